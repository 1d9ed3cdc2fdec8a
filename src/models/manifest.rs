//! `manifest.toml`: what it may say, and the checks of its values.

use crate::models::covered::CoveredEntry;
use crate::models::groups::WorstGroup;
use crate::models::likelihood::Likelihood;
use crate::models::threshold::{Calibration, ThresholdTable};
use crate::models::{Alignment, ModelsError, is_plain_name};
use crate::nn::Normalization;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

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
    /// Version of the set; part of the [`ModelId`](crate::models::ModelId) in every template.
    pub version: String,
    /// When the set was signed, such as "2026-11-30T18:00:00Z". A door takes no set that was
    /// signed earlier than the one in use, unless that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_at: Option<String>,
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
    pub(super) fn threshold_table(&self) -> Result<Option<ThresholdTable>, String> {
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

    /// When the set was signed, Unix seconds; `None` if the manifest does not say it.
    pub fn signed_unix(&self) -> Option<i64> {
        self.signed_at.as_deref().and_then(unix)
    }

    fn check(&self) -> Result<(), String> {
        if let Some(text) = self.signed_at.as_deref().filter(|text| unix(text).is_none()) {
            return Err(format!(
                "signed_at = {text:?}: expected a time such as \"2026-11-30T18:00:00Z\""
            ));
        }
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

fn unix(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
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
