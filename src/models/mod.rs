//! Model sets: `manifest.toml` and the ONNX files that it names, read from a folder or
//! built into the binary.

mod alignment;
mod calibration;
pub mod covered;
pub mod groups;
pub mod likelihood;
mod manifest;
pub mod poisson;
pub mod promise;
pub mod signature;
pub mod threshold;

pub use alignment::Alignment;
pub use calibration::ScoreCalibration;
pub use manifest::{
    Channels, DetectorEntry, FileEntry, Layout, LivenessEntry, LivenessFile, Manifest, RecipeStep,
    RecognizerEntry,
};

use crate::files;
use crate::models::covered::CoverClassifier;
use crate::models::groups::WorstGroup;
use crate::models::likelihood::Likelihood;
use crate::models::threshold::ThresholdTable;
use crate::nn::{Normalization, Precision};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// File name of the manifest in a model folder.
pub const MANIFEST: &str = "manifest.toml";

/// Largest file of a set, bytes: fifty times the largest network of the shipped set.
pub const MAX_FILE: u64 = 256 << 20;

/// Why a model set cannot be used.
#[derive(Debug, Error)]
pub enum ModelsError {
    /// A file is missing or unreadable.
    #[error("{path}: {reason}; a model folder holds manifest.toml and the ONNX files it names")]
    Read {
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        reason: std::io::Error,
    },
    /// The manifest is invalid.
    #[error("{path}: {reason}; create it again with facelatch-tools import")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the key.
        reason: String,
    },
    /// The digest of a file differs from that in the manifest.
    #[error(
        "{path}: sha256 is {got}, but the manifest has {expected}; install a set whose files belong together"
    )]
    Digest {
        /// The file.
        path: PathBuf,
        /// SHA-256 of the file, lowercase hexadecimal.
        got: String,
        /// SHA-256 in the manifest.
        expected: String,
    },
    /// The file that tells covered faces is invalid.
    #[error("{path}: {reason}; learn it again with facelatch-tools covers")]
    Covers {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the key.
        reason: String,
    },
    /// The set has a detector but no recognizer.
    #[error(
        "{path}: the set has no recognizer; import one with facelatch-tools import mobilefacenet and name its folder with --models"
    )]
    NoRecognizer {
        /// The manifest.
        path: PathBuf,
    },
    /// The recognizer is not calibrated.
    #[error(
        "{path}: the recognizer has no thresholds, so it cannot recognize anybody; measure them with facelatch-tools calibrate"
    )]
    NoThresholds {
        /// The manifest.
        path: PathBuf,
    },
}

/// Identity of a recognizer: the version of the set and the beginning of the network's
/// digest. Every template stores it, because templates of two models cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelId(Arc<str>);

impl ModelId {
    /// An identity from its text, such as `2026.11+1f2e3d4c`.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The identity as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ModelId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// A model file: its content, and its name for error messages.
#[derive(Clone, Debug)]
pub struct ModelFile {
    /// Path of the file, also for a built-in one.
    pub name: String,
    /// ONNX model.
    pub bytes: Cow<'static, [u8]>,
}

/// The networks of the detector.
#[derive(Clone, Debug)]
pub struct DetectorModels {
    /// Proposal net.
    pub pnet: ModelFile,
    /// Refinement net.
    pub rnet: ModelFile,
    /// Output net.
    pub onet: ModelFile,
    /// Normalization of all three inputs.
    pub normalization: Normalization,
    /// Required arithmetic of the networks. `None` allows both.
    pub precision: Option<Precision>,
}

/// The network of the embedder.
#[derive(Clone, Debug)]
pub struct RecognizerModel {
    /// The network.
    pub file: ModelFile,
    /// Channel order of the input.
    pub channels: Channels,
    /// Side of the input and where it has the landmarks of a face.
    pub alignment: Alignment,
    /// Normalization of the input, in the order of its channels.
    pub normalization: Normalization,
    /// Number of components of an embedding, 1 to 4096.
    pub embedding_size: usize,
    /// Required arithmetic of the network. `None` allows both.
    pub precision: Option<Precision>,
}

/// The networks of liveness.
#[derive(Clone, Debug)]
pub struct LivenessModels {
    /// Scale of the crop (see [`LivenessFile::scale`]) and the network.
    pub networks: Vec<(f64, ModelFile)>,
    /// Normalization of all inputs.
    pub normalization: Normalization,
}

/// A model set, read and with all digests verified.
#[derive(Clone, Debug)]
pub struct Models {
    /// Manifest of the set.
    pub manifest: Manifest,
    /// Path of the manifest, for error messages.
    pub source: PathBuf,
    /// The manifest as it was read. Signatures are made over these bytes.
    pub manifest_bytes: Arc<[u8]>,
    /// The detector, MTCNN.
    pub detector: DetectorModels,
    /// MobileFaceNet, if the set has it.
    recognizer: Option<RecognizerModel>,
    /// MiniFASNets, if the set has any.
    liveness: Option<LivenessModels>,
    /// What tells covered faces, if the set has it.
    covers: Option<CoverClassifier>,
}

/// The files of the built-in set.
const BUILT_IN: [(&str, &[u8]); 6] = [
    (MANIFEST, include_bytes!("../../models/manifest.toml")),
    ("pnet.onnx", include_bytes!("../../models/pnet.onnx")),
    ("rnet.onnx", include_bytes!("../../models/rnet.onnx")),
    ("onet.onnx", include_bytes!("../../models/onet.onnx")),
    ("mobilefacenet.onnx", include_bytes!("../../models/mobilefacenet.onnx")),
    ("covered.json", include_bytes!("../../models/covered.json")),
];

impl Models {
    /// The set built into the binary.
    ///
    /// # Errors
    /// None in a correct build.
    pub fn built_in() -> Result<Self, ModelsError> {
        let folder = Path::new("built-in models");
        Self::read(folder, |name| {
            BUILT_IN
                .iter()
                .find(|(file, _)| *file == name)
                .map(|(_, bytes)| Cow::Borrowed(*bytes))
                .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::NotFound, "not built in"))
        })
    }

    /// Reads the set in a folder and checks each file against its digest.
    ///
    /// # Errors
    /// If a file is missing or unreadable, the manifest is invalid, or a digest differs.
    pub fn open(folder: &Path) -> Result<Self, ModelsError> {
        Self::read(folder, |name| files::read(&folder.join(name), MAX_FILE).map(Cow::Owned))
    }

    /// Like [`Self::open`], from the content of files by name. `folder` only appears in
    /// error messages.
    ///
    /// # Errors
    /// As for [`Self::open`]; a file that `files` lacks counts as missing.
    pub fn from_files(
        folder: &Path,
        files: &BTreeMap<String, Vec<u8>>,
    ) -> Result<Self, ModelsError> {
        Self::read(folder, |name| {
            let absent = || std::io::Error::new(std::io::ErrorKind::NotFound, "not written");
            files.get(name).cloned().map(Cow::Owned).ok_or_else(absent)
        })
    }

    /// The set in a folder, or the built-in set.
    ///
    /// # Errors
    /// As for [`Self::open`] and [`Self::built_in`].
    pub fn open_or_built_in(folder: Option<&Path>) -> Result<Self, ModelsError> {
        folder.map_or_else(Self::built_in, Self::open)
    }

    fn read(
        folder: &Path,
        file: impl Fn(&str) -> std::io::Result<Cow<'static, [u8]>>,
    ) -> Result<Self, ModelsError> {
        let read = |name: &str| {
            let path = folder.join(name);
            file(name).map_err(|reason| ModelsError::Read { path, reason })
        };
        let source = folder.join(MANIFEST);
        let text = read(MANIFEST)?;
        let manifest = Manifest::parse(&source, &text)?;
        let verified = |name: &str, sha256: &str| {
            let bytes = read(name)?;
            let path = folder.join(name);
            let got = sha256_hex(&bytes);
            if got != sha256 {
                return Err(ModelsError::Digest { path, got, expected: sha256.to_owned() });
            }
            Ok(ModelFile { name: path.display().to_string(), bytes })
        };
        let detector = &manifest.detector;
        let recognizer = match &manifest.recognizer {
            None => None,
            Some(entry) => Some(RecognizerModel {
                file: verified(&entry.file, &entry.sha256)?,
                channels: entry.channels,
                alignment: entry.alignment,
                normalization: entry.normalization,
                embedding_size: entry.embedding_size,
                precision: None,
            }),
        };
        let liveness = manifest.liveness.as_ref().map(|entry| {
            let networks = entry.networks.iter();
            let networks = networks
                .map(|network| Ok((network.scale, verified(&network.file, &network.sha256)?)));
            Ok(LivenessModels {
                networks: networks.collect::<Result<_, ModelsError>>()?,
                normalization: entry.normalization,
            })
        });
        let liveness = liveness.transpose()?;
        let covers = manifest.covered.as_ref().map(|entry| {
            let ModelFile { bytes, .. } = verified(&entry.file, &entry.sha256)?;
            let path = folder.join(&entry.file);
            CoverClassifier::parse(&bytes).map_err(|reason| ModelsError::Covers { path, reason })
        });
        let covers = covers.transpose()?;
        Ok(Self {
            detector: DetectorModels {
                pnet: verified(&detector.pnet.file, &detector.pnet.sha256)?,
                rnet: verified(&detector.rnet.file, &detector.rnet.sha256)?,
                onet: verified(&detector.onet.file, &detector.onet.sha256)?,
                normalization: detector.normalization,
                precision: None,
            },
            recognizer,
            liveness,
            covers,
            manifest,
            source,
            manifest_bytes: text.as_ref().into(),
        })
    }

    /// Requires the detector and the recognizer to have this precision. Loading a network
    /// of the other precision then fails.
    pub fn in_precision(mut self, precision: Precision) -> Self {
        self.detector.precision = Some(precision);
        if let Some(recognizer) = &mut self.recognizer {
            recognizer.precision = Some(precision);
        }
        self
    }

    /// The recognizer.
    ///
    /// # Errors
    /// If the set has none.
    pub fn recognizer(&self) -> Result<&RecognizerModel, ModelsError> {
        self.recognizer
            .as_ref()
            .ok_or_else(|| ModelsError::NoRecognizer { path: self.source.clone() })
    }

    /// The alignment that the recognizer expects; that of ArcFace if the set has none.
    pub fn alignment(&self) -> Alignment {
        self.recognizer.as_ref().map_or(Alignment::ARCFACE, |recognizer| recognizer.alignment)
    }

    /// The liveness networks, if the set has any.
    pub fn liveness(&self) -> Option<&LivenessModels> {
        self.liveness.as_ref()
    }

    /// What tells covered faces. `None` if the set has no `[covered]`.
    pub fn covers(&self) -> Option<&CoverClassifier> {
        self.covers.as_ref()
    }

    /// SHA-256 of the manifest, which through its digests stands for every file of the set.
    pub fn digest(&self) -> String {
        sha256_hex(&self.manifest_bytes)
    }

    /// Identity of the recognizer.
    ///
    /// # Errors
    /// If the set has none.
    pub fn recognizer_id(&self) -> Result<ModelId, ModelsError> {
        let Some(recognizer) = &self.manifest.recognizer else {
            return Err(ModelsError::NoRecognizer { path: self.source.clone() });
        };
        let digest: String = recognizer.sha256.chars().take(8).collect();
        Ok(ModelId::new(&format!("{}+{digest}", self.manifest.version)))
    }

    /// The likelihood ratio of a similarity, if it was measured.
    pub fn likelihood(&self) -> Option<&Likelihood> {
        self.manifest.recognizer.as_ref()?.likelihood.as_ref()
    }

    /// The group of people with the highest false accept rate, if groups were measured.
    pub fn worst_group(&self) -> Option<&WorstGroup> {
        self.manifest.recognizer.as_ref()?.worst_group.as_ref()
    }

    /// The thresholds, and the likelihood ratio if it was measured.
    ///
    /// # Errors
    /// If the set has no recognizer or no thresholds.
    pub fn calibration(&self) -> Result<ScoreCalibration, ModelsError> {
        let likelihood = self.likelihood().cloned();
        Ok(ScoreCalibration { thresholds: self.thresholds()?, likelihood })
    }

    /// The thresholds of the recognizer.
    ///
    /// # Errors
    /// If the set has no recognizer or no thresholds.
    pub fn thresholds(&self) -> Result<ThresholdTable, ModelsError> {
        let Some(recognizer) = &self.manifest.recognizer else {
            return Err(ModelsError::NoRecognizer { path: self.source.clone() });
        };
        match recognizer.threshold_table() {
            Ok(Some(table)) => Ok(table),
            Ok(None) => Err(ModelsError::NoThresholds { path: self.source.clone() }),
            Err(reason) => Err(ModelsError::Manifest { path: self.source.clone(), reason }),
        }
    }
}

/// Whether `name` is a plain file name, without any path separator or `..`.
pub fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
}

/// SHA-256 of `bytes` as lowercase hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
