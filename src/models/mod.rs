//! Model sets: `manifest.toml` and the ONNX files that it names, read from a folder or
//! built into the binary.

mod alignment;
mod calibration;
pub mod covered;
pub mod groups;
pub mod likelihood;
pub mod threshold;

pub use alignment::Alignment;
pub use calibration::ScoreCalibration;

use crate::models::covered::{CoverClassifier, CoveredEntry};
use crate::models::groups::WorstGroup;
use crate::models::likelihood::Likelihood;
use crate::models::threshold::{Calibration, ThresholdTable};
use crate::nn::{Normalization, Precision};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// File name of the manifest in a model folder.
pub const MANIFEST: &str = "manifest.toml";

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

/// Order of the axes of a network's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    /// Batch, channels, height, width.
    #[serde(rename = "NCHW")]
    Nchw,
}

/// Order of the channels of a network's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Channels {
    /// Red, green, blue.
    #[serde(rename = "RGB")]
    Rgb,
    /// Blue, green, red. Only a recognizer may have it.
    #[serde(rename = "BGR")]
    Bgr,
}

impl Channels {
    /// For each channel of the network's input the channel of an RGB pixel.
    pub fn from_rgb(self) -> [usize; 3] {
        match self {
            Self::Rgb => [0, 1, 2],
            Self::Bgr => [2, 1, 0],
        }
    }
}

/// `manifest.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the set; part of the [`ModelId`] in every template.
    pub version: String,
    /// The face detector.
    pub detector: DetectorEntry,
    /// The face recognizer. A set may have only a detector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recognizer: Option<RecognizerEntry>,
    /// The liveness networks, optional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness: Option<LivenessEntry>,
    /// What tells faces that are covered, optional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covered: Option<CoveredEntry>,
    /// Licence of the set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// Self-test: pictures with the expected results, run before the set is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selftest: Option<FileEntry>,
    /// The commands that produced the recognizer, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipe: Vec<RecipeStep>,
    /// Figures measured by these commands, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
}

/// `[[recipe]]`: one command on the way from photos to this model set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeStep {
    /// Command line, one argument per entry.
    pub command: Vec<String>,
    /// Random seed of the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// ONNX operator set version, if the command wrote ONNX.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opset: Option<i64>,
    /// SHA-256 of the data sets, by their role.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, String>,
    /// Versions of the programs, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, String>,
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

/// `[liveness]`: MiniFASNets, whose outputs are averaged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LivenessEntry {
    /// Axis order of all inputs, `1 x 3 x 80 x 80`.
    pub layout: Layout,
    /// Channel order of all inputs.
    pub channels: Channels,
    /// Normalization of all inputs.
    pub normalization: Normalization,
    /// The networks, 1 to 4.
    pub networks: Vec<LivenessFile>,
}

/// `[[liveness.networks]]`: a network and the scale of its crop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LivenessFile {
    /// File name within the model folder.
    pub file: String,
    /// SHA-256, lowercase hexadecimal.
    pub sha256: String,
    /// Side of the crop divided by that of the bounding box, 1 to 10.
    pub scale: f64,
}

/// `[detector]`: MTCNN's three nets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectorEntry {
    /// Axis order of all three inputs.
    pub layout: Layout,
    /// Channel order of all three inputs.
    pub channels: Channels,
    /// Normalization of all three inputs, the same for all channels.
    pub normalization: Normalization,
    /// Proposal net, `1 x 3 x H x W`.
    pub pnet: FileEntry,
    /// Refinement net, `N x 3 x 24 x 24`.
    pub rnet: FileEntry,
    /// Output net, `N x 3 x 48 x 48`.
    pub onet: FileEntry,
}

/// A file and its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// File name within the model folder.
    pub file: String,
    /// SHA-256, lowercase hexadecimal.
    pub sha256: String,
}

/// `[recognizer]`: MobileFaceNet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecognizerEntry {
    /// File name within the model folder.
    pub file: String,
    /// SHA-256, lowercase hexadecimal.
    pub sha256: String,
    /// Axis order of the input, `1 x 3 x side x side`.
    pub layout: Layout,
    /// Channel order of the input.
    pub channels: Channels,
    /// Side of the input and where it has the landmarks of a face.
    #[serde(default)]
    pub alignment: Alignment,
    /// Normalization of the input, in the order of its channels.
    pub normalization: Normalization,
    /// Number of components of an embedding, 1 to 4096.
    pub embedding_size: usize,
    /// Similarity at or above which two faces count as one person, by false accept rate per
    /// pair, such as "1e-4". Empty until the model is calibrated.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub thresholds: BTreeMap<String, f32>,
    /// The data from which the thresholds were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// Likelihood ratio of a similarity, and the data from which it was measured. `None` if
    /// it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub likelihood: Option<Likelihood>,
    /// The group of people with the highest false accept rate, compared with the stated
    /// one. `None` if no group was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_group: Option<WorstGroup>,
}

impl RecognizerEntry {
    /// The thresholds. `None` if the model is not calibrated.
    fn threshold_table(&self) -> Result<Option<ThresholdTable>, String> {
        match (&self.calibration, self.thresholds.is_empty()) {
            (None, true) => Ok(None),
            (Some(calibration), false) => {
                ThresholdTable::from_manifest(&self.thresholds, calibration)
                    .map(Some)
                    .map_err(|fault| format!("recognizer.{fault}"))
            }
            _ => Err("recognizer: needs both thresholds and calibration, or neither".to_owned()),
        }
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
        Self::read(folder, |name| std::fs::read(folder.join(name)).map(Cow::Owned))
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

impl Manifest {
    /// Parses and checks a manifest. `path` only appears in error messages.
    ///
    /// # Errors
    /// If the text is not valid TOML or a value is out of range.
    pub fn parse(path: &Path, text: &[u8]) -> Result<Self, ModelsError> {
        let broken = |reason: String| ModelsError::Manifest { path: path.to_owned(), reason };
        let text = std::str::from_utf8(text).map_err(|error| broken(error.to_string()))?;
        let manifest: Self = toml::from_str(text)
            .map_err(|error| broken(error.to_string().trim_end().to_owned()))?;
        manifest.check().map_err(broken)?;
        Ok(manifest)
    }

    /// Name and SHA-256 of the files that the manifest names. Batch named by the
    /// self-test are not included.
    pub fn files(&self) -> Vec<(&str, &str)> {
        let DetectorEntry { pnet, rnet, onet, .. } = &self.detector;
        let mut files: Vec<(&str, &str)> = [Some(pnet), Some(rnet), Some(onet)]
            .into_iter()
            .chain([self.selftest.as_ref()])
            .flatten()
            .map(|entry| (entry.file.as_str(), entry.sha256.as_str()))
            .collect();
        files.extend(self.recognizer.iter().map(|net| (net.file.as_str(), net.sha256.as_str())));
        let liveness = self.liveness.iter().flat_map(|entry| &entry.networks);
        files.extend(liveness.map(|net| (net.file.as_str(), net.sha256.as_str())));
        files.extend(self.covered.iter().map(|net| (net.file.as_str(), net.sha256.as_str())));
        files
    }

    fn check(&self) -> Result<(), String> {
        for (file, _) in self.files() {
            if !is_plain_name(file) {
                return Err(format!("{file:?}: expected the name of a file in the same folder"));
            }
        }
        let detector = &self.detector.normalization;
        detector.check().map_err(|fault| format!("detector.normalization: {fault}"))?;
        if detector.mean.iter().any(|v| *v != detector.mean[0])
            || detector.std.iter().any(|v| *v != detector.std[0])
        {
            return Err("detector.normalization: must be the same for all channels".to_owned());
        }
        if self.detector.channels != Channels::Rgb {
            return Err("detector.channels: only RGB is supported".to_owned());
        }
        if let Some(liveness) = &self.liveness {
            liveness.check().map_err(|fault| format!("liveness.{fault}"))?;
        }
        let Some(recognizer) = &self.recognizer else { return Ok(()) };
        recognizer.alignment.check().map_err(|fault| format!("recognizer.alignment.{fault}"))?;
        recognizer
            .normalization
            .check()
            .map_err(|fault| format!("recognizer.normalization: {fault}"))?;
        if !(1..=MAX_EMBEDDING_SIZE).contains(&recognizer.embedding_size) {
            return Err(format!(
                "recognizer.embedding_size: {} is outside 1..={MAX_EMBEDDING_SIZE}",
                recognizer.embedding_size
            ));
        }
        if let Some(likelihood) = &recognizer.likelihood {
            likelihood.check().map_err(|fault| format!("recognizer.likelihood: {fault}"))?;
        }
        if let Some(group) = &recognizer.worst_group {
            group.check().map_err(|fault| format!("recognizer.worst_group: {fault}"))?;
        }
        recognizer.threshold_table().map(|_| ())
    }
}

/// Whether `name` is a plain file name, without any path separator or `..`.
pub fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
}

impl LivenessEntry {
    fn check(&self) -> Result<(), String> {
        self.normalization.check().map_err(|fault| format!("normalization: {fault}"))?;
        if self.channels != Channels::Rgb {
            return Err("channels: only RGB is supported".to_owned());
        }
        if !(1..=MAX_LIVENESS_NETWORKS).contains(&self.networks.len()) {
            return Err(format!(
                "networks: {} given, expected 1 to {MAX_LIVENESS_NETWORKS}",
                self.networks.len()
            ));
        }
        match self.networks.iter().find(|network| !(1.0..=10.0).contains(&network.scale)) {
            Some(network) => Err(format!(
                "networks: {}: scale {} is outside 1 to 10",
                network.file, network.scale
            )),
            None => Ok(()),
        }
    }
}

/// Most liveness networks in a set. Their authors publish two; more would keep people
/// waiting.
const MAX_LIVENESS_NETWORKS: usize = 4;

/// Largest embedding, components. Larger than any in use; it keeps a wrong manifest from
/// allocating gigabytes.
const MAX_EMBEDDING_SIZE: usize = 4096;

/// SHA-256 of `bytes` as lowercase hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
