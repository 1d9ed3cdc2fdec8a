//! The models and what is known about them: `manifest.toml` beside the ONNX
//! files, read from a folder or built into the binary.

mod calibration;
pub mod likelihood;
pub mod threshold;

pub use calibration::ScoreCalibration;

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

/// Name of the manifest in a folder of models.
pub const MANIFEST: &str = "manifest.toml";

/// Why a folder of models cannot be used.
#[derive(Debug, Error)]
pub enum ModelsError {
    /// A file is not there, or not readable.
    #[error("{path}: {reason}; a folder of models holds manifest.toml and the ONNX files it names")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// The manifest is no manifest.
    #[error("{path}: {reason}; write it again with facelatch-tools import")]
    Manifest {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// A model is not the one the manifest speaks of.
    #[error(
        "{path}: sha256 is {got}, the manifest says {expected}; install the models that belong together"
    )]
    Digest {
        /// Which file.
        path: PathBuf,
        /// Of the file.
        got: String,
        /// In the manifest.
        expected: String,
    },
    /// A set of models with the detector alone.
    #[error(
        "{path}: there is no recognizer in it; import one with facelatch-tools import mobilefacenet and name its folder with --models"
    )]
    NoRecognizer {
        /// Which manifest.
        path: PathBuf,
    },
    /// The recognizer has no thresholds yet.
    #[error(
        "{path}: the recognizer has no thresholds, so nobody can be told apart; measure them with facelatch-tools calibrate"
    )]
    NoThresholds {
        /// Which manifest.
        path: PathBuf,
    },
}

/// Order of an input's axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    /// Batch, channels, height, width.
    #[serde(rename = "NCHW")]
    Nchw,
}

/// Order of an input's channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Channels {
    /// Red, green, blue.
    #[serde(rename = "RGB")]
    Rgb,
}

/// `manifest.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Of this set of models; templates remember it.
    pub version: String,
    /// The face detector.
    pub detector: DetectorEntry,
    /// The face recognizer; a set of models may hold the detector alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recognizer: Option<RecognizerEntry>,
    /// What tells live faces from prints and screens; optional, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness: Option<LivenessEntry>,
    /// On what terms the set may be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// Faces with what the networks make of them, to try before the set is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selftest: Option<FileEntry>,
    /// How the recognizer came about, the first step first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipe: Vec<RecipeStep>,
    /// What was measured on the way, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
}

/// `[[recipe]]`: one command on the way from photos to this set of models.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeStep {
    /// The command line.
    pub command: Vec<String>,
    /// Everything random followed from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// ONNX's operator set, where the step wrote ONNX.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opset: Option<i64>,
    /// SHA-256 of the data sets by their part.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, String>,
    /// Versions of the programs by their name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, String>,
}

/// Which recognizer this is: the set's version and the beginning of the network's
/// digest. Templates remember it, for those of two models do not compare.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelId(Arc<str>);

impl ModelId {
    /// By its name.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ModelId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// `[liveness]`: MiniFASNets, whose answers are averaged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LivenessEntry {
    /// Axes of all inputs, `1 x 3 x 80 x 80`.
    pub layout: Layout,
    /// Channels of all inputs.
    pub channels: Channels,
    /// The same for all.
    pub normalization: Normalization,
    /// At least one.
    pub networks: Vec<LivenessFile>,
}

/// `[[liveness.networks]]`: a network and how much of the picture it sees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LivenessFile {
    /// Name within the folder.
    pub file: String,
    /// SHA-256, lowercase hexadecimal.
    pub sha256: String,
    /// Sides of the crop in sides of the face's box.
    pub scale: f64,
}

/// `[detector]`: MTCNN's three nets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectorEntry {
    /// Axes of all three inputs.
    pub layout: Layout,
    /// Channels of all three inputs.
    pub channels: Channels,
    /// The same for all three, and for all channels.
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
    /// Name within the folder.
    pub file: String,
    /// SHA-256, lowercase hexadecimal.
    pub sha256: String,
}

/// `[recognizer]`: MobileFaceNet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecognizerEntry {
    /// Name within the folder.
    pub file: String,
    /// SHA-256, lowercase hexadecimal.
    pub sha256: String,
    /// Axes of the input, `1 x 3 x 112 x 112`.
    pub layout: Layout,
    /// Channels of the input.
    pub channels: Channels,
    /// Of the input.
    pub normalization: Normalization,
    /// Components of an embedding.
    pub embedding_size: usize,
    /// Similarity at or above which two faces count as one person, by false
    /// accept rate a pair. Absent until the model is calibrated.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub thresholds: BTreeMap<String, f32>,
    /// The data behind the thresholds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// What a similarity says, with the data behind it; absent where nobody measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub likelihood: Option<Likelihood>,
}

impl RecognizerEntry {
    /// The thresholds, if the model is calibrated.
    fn threshold_table(&self) -> Result<Option<ThresholdTable>, String> {
        match (&self.calibration, self.thresholds.is_empty()) {
            (None, true) => Ok(None),
            (Some(calibration), false) => {
                ThresholdTable::from_manifest(&self.thresholds, calibration)
                    .map(Some)
                    .map_err(|fault| format!("recognizer.{fault}"))
            }
            _ => Err("recognizer: thresholds and calibration come together".to_owned()),
        }
    }
}

/// A file's name, for messages, and its content.
#[derive(Clone, Debug)]
pub struct ModelFile {
    /// Path, or name of the built-in file.
    pub name: String,
    /// ONNX.
    pub bytes: Cow<'static, [u8]>,
}

/// What the detector loads.
#[derive(Clone, Debug)]
pub struct DetectorModels {
    /// Proposal net.
    pub pnet: ModelFile,
    /// Refinement net.
    pub rnet: ModelFile,
    /// Output net.
    pub onet: ModelFile,
    /// Of all three inputs.
    pub normalization: Normalization,
    /// What they must be in; either where nothing is said.
    pub precision: Option<Precision>,
}

/// What the embedder loads.
#[derive(Clone, Debug)]
pub struct RecognizerModel {
    /// The network.
    pub file: ModelFile,
    /// Of its input.
    pub normalization: Normalization,
    /// Components of an embedding.
    pub embedding_size: usize,
    /// What it must be in; either where nothing is said.
    pub precision: Option<Precision>,
}

/// What liveness loads.
#[derive(Clone, Debug)]
pub struct LivenessModels {
    /// Scale of the crop, and the network.
    pub networks: Vec<(f64, ModelFile)>,
    /// Of all inputs.
    pub normalization: Normalization,
}

/// A set of models that belong together.
#[derive(Clone, Debug)]
pub struct Models {
    /// Its manifest.
    pub manifest: Manifest,
    /// Where the manifest came from, for messages.
    pub source: PathBuf,
    /// MTCNN.
    pub detector: DetectorModels,
    /// MobileFaceNet, where there is one.
    recognizer: Option<RecognizerModel>,
    /// MiniFASNets, where there are any.
    liveness: Option<LivenessModels>,
}

/// The models in the binary.
const BUILT_IN: [(&str, &[u8]); 5] = [
    (MANIFEST, include_bytes!("../../models/manifest.toml")),
    ("pnet.onnx", include_bytes!("../../models/pnet.onnx")),
    ("rnet.onnx", include_bytes!("../../models/rnet.onnx")),
    ("onet.onnx", include_bytes!("../../models/onet.onnx")),
    ("mobilefacenet.onnx", include_bytes!("../../models/mobilefacenet.onnx")),
];

impl Models {
    /// The models built into the binary.
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

    /// The models in a folder, each held against its digest.
    pub fn open(folder: &Path) -> Result<Self, ModelsError> {
        Self::read(folder, |name| std::fs::read(folder.join(name)).map(Cow::Owned))
    }

    /// The models among some files by name; `folder` appears in messages.
    pub fn from_files(
        folder: &Path,
        files: &BTreeMap<String, Vec<u8>>,
    ) -> Result<Self, ModelsError> {
        Self::read(folder, |name| {
            let absent = || std::io::Error::new(std::io::ErrorKind::NotFound, "not written");
            files.get(name).cloned().map(Cow::Owned).ok_or_else(absent)
        })
    }

    /// The folder's models, or the built-in ones.
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
            manifest,
            source,
        })
    }

    /// The same set, whose networks must be in this precision.
    pub fn in_precision(mut self, precision: Precision) -> Self {
        self.detector.precision = Some(precision);
        if let Some(recognizer) = &mut self.recognizer {
            recognizer.precision = Some(precision);
        }
        self
    }

    /// MobileFaceNet, which embedding cannot do without.
    pub fn recognizer(&self) -> Result<&RecognizerModel, ModelsError> {
        self.recognizer
            .as_ref()
            .ok_or_else(|| ModelsError::NoRecognizer { path: self.source.clone() })
    }

    /// The networks that tell live faces, where the set has any.
    pub fn liveness(&self) -> Option<&LivenessModels> {
        self.liveness.as_ref()
    }

    /// Which recognizer this is.
    pub fn recognizer_id(&self) -> Result<ModelId, ModelsError> {
        let Some(recognizer) = &self.manifest.recognizer else {
            return Err(ModelsError::NoRecognizer { path: self.source.clone() });
        };
        let digest: String = recognizer.sha256.chars().take(8).collect();
        Ok(ModelId::new(&format!("{}+{digest}", self.manifest.version)))
    }

    /// What similarities say, where it was measured.
    pub fn likelihood(&self) -> Option<&Likelihood> {
        self.manifest.recognizer.as_ref()?.likelihood.as_ref()
    }

    /// How similarities are judged: the thresholds, without which a door cannot run, and
    /// the likelihood ratio, if it was measured.
    pub fn calibration(&self) -> Result<ScoreCalibration, ModelsError> {
        let likelihood = self.likelihood().cloned();
        Ok(ScoreCalibration { thresholds: self.thresholds()?, likelihood })
    }

    /// The thresholds, which a door cannot do without.
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
    /// Reads and checks a manifest; `path` appears in messages.
    pub fn parse(path: &Path, text: &[u8]) -> Result<Self, ModelsError> {
        let broken = |reason: String| ModelsError::Manifest { path: path.to_owned(), reason };
        let text = std::str::from_utf8(text).map_err(|error| broken(error.to_string()))?;
        let manifest: Self = toml::from_str(text)
            .map_err(|error| broken(error.to_string().trim_end().to_owned()))?;
        manifest.check().map_err(broken)?;
        Ok(manifest)
    }

    /// The files of the set, but for the manifest itself and what the self-test
    /// names: name and SHA-256.
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
        if let Some(liveness) = &self.liveness {
            liveness.check().map_err(|fault| format!("liveness.{fault}"))?;
        }
        let Some(recognizer) = &self.recognizer else { return Ok(()) };
        recognizer
            .normalization
            .check()
            .map_err(|fault| format!("recognizer.normalization: {fault}"))?;
        if !(1..=MAX_EMBEDDING_SIZE).contains(&recognizer.embedding_size) {
            return Err(format!(
                "recognizer.embedding_size: {} is not in 1..={MAX_EMBEDDING_SIZE}",
                recognizer.embedding_size
            ));
        }
        if let Some(likelihood) = &recognizer.likelihood {
            likelihood.check().map_err(|fault| format!("recognizer.likelihood: {fault}"))?;
        }
        recognizer.threshold_table().map(|_| ())
    }
}

/// Whether this names a file within a folder and leads nowhere else.
pub fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
}

impl LivenessEntry {
    fn check(&self) -> Result<(), String> {
        self.normalization.check().map_err(|fault| format!("normalization: {fault}"))?;
        if !(1..=MAX_LIVENESS_NETWORKS).contains(&self.networks.len()) {
            return Err(format!(
                "networks: {} of them, expected 1 to {MAX_LIVENESS_NETWORKS}",
                self.networks.len()
            ));
        }
        match self.networks.iter().find(|network| !(1.0..=10.0).contains(&network.scale)) {
            Some(network) => Err(format!(
                "networks: {}: scale {} is not in 1 to 10",
                network.file, network.scale
            )),
            None => Ok(()),
        }
    }
}

/// Two come from their authors; more would keep people waiting.
const MAX_LIVENESS_NETWORKS: usize = 4;

/// Larger than any face embedding in use; keeps a wrong manifest from asking
/// for gigabytes.
const MAX_EMBEDDING_SIZE: usize = 4096;

/// SHA-256 as lowercase hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::likelihood::tests::line;

    fn manifest(change: impl Fn(&mut RecognizerEntry)) -> Result<Manifest, ModelsError> {
        let mut manifest = Models::built_in().expect("models").manifest;
        change(manifest.recognizer.as_mut().expect("a recognizer"));
        let text = toml::to_string(&manifest).expect("a manifest");
        Manifest::parse(Path::new("models/manifest.toml"), text.as_bytes())
    }

    #[test]
    fn a_likelihood_is_read_as_it_was_written_and_may_be_absent() {
        for likelihood in [None, Some(line())] {
            let read = manifest(|entry| entry.likelihood.clone_from(&likelihood));
            let recognizer = read.expect("a manifest").recognizer.expect("a recognizer");
            assert_eq!(recognizer.likelihood, likelihood);
        }
    }

    #[test]
    fn a_manifest_may_speak_of_liveness_or_not() {
        let built_in = Models::built_in().expect("models");
        assert!(built_in.liveness().is_none());
        let with = |scale: f64| {
            let mut manifest = built_in.manifest.clone();
            manifest.liveness = Some(LivenessEntry {
                layout: Layout::Nchw,
                channels: Channels::Rgb,
                normalization: Normalization { mean: [0.0; 3], std: [1.0; 3] },
                networks: vec![LivenessFile { file: "a.onnx".into(), sha256: "0".into(), scale }],
            });
            let text = toml::to_string(&manifest).expect("a manifest");
            (Manifest::parse(Path::new("manifest.toml"), text.as_bytes()), manifest)
        };
        let (read, written) = with(2.7);
        assert_eq!(read.expect("a manifest"), written);
        let error = with(0.2).0.expect_err("smaller than the face").to_string();
        assert!(error.contains("liveness.networks: a.onnx: scale 0.2"), "{error}");
    }

    #[test]
    fn the_models_built_in_weigh_evidence() {
        let models = Models::built_in().expect("models");
        let line = models.likelihood().expect("a likelihood ratio");
        // Ratios of up to a hundred thousand, with no more pairs of one person than those
        // of the card.
        assert!((11.0..12.5).contains(&line.log_ratio(1.0)), "{line:?}");
        let threshold = models.thresholds().expect("thresholds").for_attempt(1e-4, 50);
        let needed = line.weighing(threshold, 1e-4, 50).needed();
        assert!(needed > line.log_ratio(threshold.similarity), "more than votes ask for");
        assert!(needed <= line.log_ratio(1.0), "and not more than one view can bring");
    }

    #[test]
    fn a_likelihood_that_falls_is_refused() {
        let falling = manifest(|entry| {
            entry.likelihood = Some(line());
            entry.likelihood.iter_mut().for_each(|line| line.slope = -1.0);
        });
        let error = falling.expect_err("a falling line").to_string();
        assert!(error.contains("recognizer.likelihood: slope must be positive"), "{error}");
    }
}
