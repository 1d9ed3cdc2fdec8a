//! The run folder of a training: the network, its head, and the record of how they were
//! made.

use crate::files;
use crate::networks::face::{Architecture, FaceNetwork};
use crate::train::tensors::{plain, torch, unit_rows};
use crate::weights::{Tensors, safetensors};
use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use facelatch::files::{self as input, LARGEST};
use facelatch::models::sha256_hex;
use facelatch::nn::Normalization;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};

/// File of the network and the head. Tensors have the names of [`FaceNetwork`], and
/// `head.weight` and `head.bias`.
pub const MODEL: &str = "model.safetensors";
/// File of the record.
pub const RECORD: &str = "run.json";
/// Version of the record's format.
pub const FORMAT: u32 = 1;
/// Version of libtorch that tch requires.
pub const LIBTORCH: &str = "2.11.0";

/// Kind of layer that turns embeddings into classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum HeadKind {
    /// Linear layer with weight and bias per class
    Softmax,
    /// Cosines to class centres with an additive angular margin
    Arcface,
    /// Cosines to class centres with an additive cosine margin
    Cosface,
    /// Cosines to class centres with all three margins
    Combined,
}

/// A head with its weights.
#[derive(Debug)]
pub struct Head {
    /// Kind of the head.
    pub kind: HeadKind,
    /// Class weights, `classes x embedding_size`.
    pub weight: Tensor,
    /// Class biases, `classes`; only for softmax.
    pub bias: Option<Tensor>,
    /// Factor on the cosines; 1 for softmax, whose weights have a length of their own.
    pub scale: f64,
}

impl Head {
    /// Logits `N x classes` of embeddings `N x embedding_size` without a margin, because
    /// the identity of the faces is not known.
    pub fn logits(&self, embeddings: &Tensor) -> Tensor {
        match self.kind {
            HeadKind::Softmax => embeddings.linear(&self.weight, self.bias.as_ref()),
            HeadKind::Arcface | HeadKind::Cosface | HeadKind::Combined => {
                unit_rows(embeddings).matmul(&unit_rows(&self.weight).tr()) * self.scale
            }
        }
    }

    /// An independent copy of the head on another device.
    pub fn copy_to(&self, device: Device) -> Self {
        let copy = |tensor: &Tensor| tensor.detach().to_device(device).copy();
        Self {
            kind: self.kind,
            weight: copy(&self.weight),
            bias: self.bias.as_ref().map(copy),
            scale: self.scale,
        }
    }

    /// The head's tensors under the names of the model file.
    pub fn tensors(&self) -> Result<Tensors> {
        let mut tensors = Tensors::from([("head.weight".to_owned(), plain(&self.weight)?)]);
        if let Some(bias) = &self.bias {
            tensors.insert("head.bias".to_owned(), plain(bias)?);
        }
        Ok(tensors)
    }

    fn take(tensors: &mut Tensors, record: &RunRecord) -> Result<Self> {
        let softmax = record.head == HeadKind::Softmax;
        let classes = record.people.len();
        let mut take = |name: &str, shape: &[usize]| {
            let tensor = tensors.remove(name).with_context(|| format!("{name} is missing"))?;
            ensure!(
                tensor.shape == shape,
                "{name} is {:?}, expected {shape:?} as in {RECORD}; they belong to two trainings",
                tensor.shape
            );
            ensure!(
                tensor.values.iter().all(|value| value.is_finite()),
                "{name} holds a value that is not finite"
            );
            Ok(torch(&tensor))
        };
        let weight = take("head.weight", &[classes, record.embedding_size])?;
        let bias = if softmax { Some(take("head.bias", &[classes])?) } else { None };
        Ok(Self { kind: record.head, weight, bias, scale: record.scale })
    }
}

/// SHA-256 of the data sets, hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataDigests {
    /// Of the training data.
    pub train: String,
    /// Of the validation data.
    pub validation: String,
}

/// Versions of the programs that made the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Versions {
    /// Version of this program.
    pub facelatch_tools: String,
    /// Version of libtorch.
    pub libtorch: String,
}

impl Default for Versions {
    fn default() -> Self {
        Self {
            facelatch_tools: env!("CARGO_PKG_VERSION").to_owned(),
            libtorch: LIBTORCH.to_owned(),
        }
    }
}

/// Figures on the validation photos.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The value that epochs are compared by; higher is better. It is the negated loss,
    /// the accuracy, or the mean true accept rate.
    pub value: f64,
    /// Mean cross-entropy of the logits without a margin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Share of photos whose highest logit is the correct one, 0..=1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// True accept rate over all pairs, averaged over several false accept rates, 0..=1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub true_accept_rate: Option<f64>,
    /// Equal error rate over all pairs, 0..=1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equal_error_rate: Option<f64>,
}

/// Figures of an epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Number, from 1; 0 is the start.
    pub number: usize,
    /// Learning rate of the last step; 0 at the start.
    pub learning_rate: f64,
    /// Mean loss of the training photos, including margin and smoothing; 0 at the start.
    pub loss: f64,
    /// Share of training photos classified correctly during training, without a margin,
    /// 0..=1; 0 at the start.
    pub accuracy: f64,
    /// Mean cosine to the teacher; `None` without a teacher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<f64>,
    /// Figures on the validation photos.
    pub validation: Judged,
    /// Duration of the training steps without validation, seconds.
    pub seconds: f64,
    /// Training photos per second.
    pub images_per_second: f64,
    /// Share of that time spent waiting for batches, 0..=1.
    pub waited: f64,
}

/// A blend of the start and the best epoch, with its figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Blend {
    /// Share of the way from the start to the best epoch, 0..=1.
    pub share: f64,
    /// Figures on the validation photos.
    pub validation: Judged,
}

/// The record of a run, `run.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Version of the format, [`FORMAT`].
    pub format: u32,
    /// Command line of the training.
    pub command: Vec<String>,
    /// Which network was trained. Runs of older versions do not say it and have
    /// MobileFaceNet.
    #[serde(default)]
    pub network: Architecture,
    /// SHA-256 of the starting weights, hexadecimal; empty in runs of older versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub start: String,
    /// Kind of the head.
    pub head: HeadKind,
    /// Factor on the logits.
    pub scale: f64,
    /// Margins: the factor on the own angle, the angle added to it (radians), and the
    /// number subtracted from its cosine.
    pub margins: [f64; 3],
    /// Length of an embedding.
    pub embedding_size: usize,
    /// Epsilon of batch normalization, added to the variance; 0 without batch normalization.
    pub epsilon: f64,
    /// Normalization of the input pictures.
    pub normalization: Normalization,
    /// Names of the people, by label.
    pub people: Vec<String>,
    /// All random numbers follow from the seed.
    pub seed: i64,
    /// Digests of the data sets.
    pub data: DataDigests,
    /// Versions of the programs.
    pub versions: Versions,
    /// The complete recipe.
    pub settings: serde_json::Value,
    /// Figures of all epochs, the start first.
    pub epochs: Vec<Epoch>,
    /// Number of the epoch that the weights come from.
    pub best_epoch: usize,
    /// Whether the weights are better than the start on the validation photos.
    pub better_than_start: bool,
    /// Blends that were judged; empty if none were requested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blends: Vec<Blend>,
    /// Share of the way from the start to the best epoch at which the weights lie, 0..=1.
    pub blend: f64,
}

/// A run folder and its contents.
#[derive(Debug)]
pub struct Run {
    /// Path of the folder.
    pub folder: PathBuf,
    /// The record, `run.json`.
    pub record: RunRecord,
    /// The recognizer network.
    pub network: FaceNetwork,
    /// The head that it was trained with, on the CPU.
    pub head: Head,
}

/// SHA-256 of a network's weights, hexadecimal.
///
/// # Errors
/// If they cannot be written as safetensors.
pub fn digest(network: &FaceNetwork) -> Result<String> {
    Ok(sha256_hex(&safetensors::write(network.tensors(), None)?))
}

impl Run {
    /// Reads a folder that a training wrote. Fails if a file is missing, damaged or of
    /// another format version, or if the model does not fit the record.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(RECORD);
        let text = match input::read(&path, LARGEST) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
                "{}: holds no {RECORD}; name the --out folder of a finished training",
                folder.display()
            ),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let record: RunRecord =
            serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        if record.format != FORMAT {
            bail!(
                "{}: format {}, expected {FORMAT}; train again with this version",
                path.display(),
                record.format
            );
        }
        let path = folder.join(MODEL);
        let bytes = input::read(&path, LARGEST).with_context(|| path.display().to_string())?;
        let (network, head) =
            Self::read_model(&bytes, &record).with_context(|| path.display().to_string())?;
        Ok(Self { folder: folder.to_owned(), record, network, head })
    }

    fn read_model(bytes: &[u8], record: &RunRecord) -> Result<(FaceNetwork, Head)> {
        let mut tensors = safetensors::read(bytes)?;
        let head = Head::take(&mut tensors, record)?;
        let network = FaceNetwork::from_tensors(record.network, tensors, record.epsilon)?;
        Ok((network, head))
    }

    /// Writes the folder, the record last.
    pub fn write(&self) -> Result<()> {
        let mut tensors = self.network.tensors().clone();
        tensors.append(&mut self.head.tensors()?);
        files::replace(&self.folder.join(MODEL), &safetensors::write(&tensors, None)?)?;
        files::replace(&self.folder.join(RECORD), &serde_json::to_vec_pretty(&self.record)?)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::train::torch_net::tests::{noise, reid_noise};

    /// A run with random weights and two people.
    pub(crate) fn noisy(folder: &Path, kind: HeadKind) -> Run {
        let network = noise(16, 3);
        let softmax = kind == HeadKind::Softmax;
        let weight: Vec<f32> = (0..32).map(|i| (i as f32 * 0.7).sin()).collect();
        Run {
            folder: folder.to_owned(),
            record: RunRecord {
                format: FORMAT,
                command: vec!["facelatch-tools".into(), "train".into()],
                network: network.architecture(),
                start: String::new(),
                head: kind,
                scale: if softmax { 1.0 } else { 64.0 },
                margins: [1.0, 0.5, 0.0],
                embedding_size: 16,
                epsilon: network.epsilon(),
                normalization: Normalization::ARCFACE,
                people: vec!["Ada".into(), "Grace".into()],
                seed: 1,
                data: DataDigests::default(),
                versions: Versions::default(),
                settings: serde_json::json!({}),
                epochs: vec![Epoch::default()],
                best_epoch: 0,
                better_than_start: false,
                blends: vec![],
                blend: 1.0,
            },
            network,
            head: Head {
                kind,
                weight: Tensor::from_slice(&weight).view([2, 16]),
                bias: softmax.then(|| Tensor::from_slice(&[0.5f32, -0.5])),
                scale: if softmax { 1.0 } else { 64.0 },
            },
        }
    }

    #[test]
    fn a_run_is_read_as_it_was_written() {
        for kind in [HeadKind::Softmax, HeadKind::Arcface] {
            let folder = tempfile::tempdir().expect("a folder");
            let run = noisy(folder.path(), kind);
            run.write().expect("written");
            let read = Run::open(folder.path()).expect("a run");
            assert_eq!(read.record, run.record);
            assert_eq!(read.network, run.network);
            assert_eq!(read.head.tensors().expect("numbers"), run.head.tensors().expect("numbers"));
        }
    }

    #[test]
    fn a_run_of_an_older_version_has_mobilefacenet() {
        let folder = tempfile::tempdir().expect("a folder");
        noisy(folder.path(), HeadKind::Arcface).write().expect("written");
        let path = folder.path().join(RECORD);
        let text = std::fs::read(&path).expect("a record");
        let mut record: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        let fields = record.as_object_mut().expect("fields");
        assert_eq!(fields.remove("network"), Some("mobilefacenet".into()));
        assert!(!fields.contains_key("start"));
        std::fs::write(&path, record.to_string()).expect("written");
        let run = Run::open(folder.path()).expect("an old run");
        assert_eq!(run.network.architecture(), Architecture::MobileFaceNet);
    }

    #[test]
    fn a_run_of_the_other_network_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut run = noisy(folder.path(), HeadKind::Arcface);
        run.network = reid_noise(1).into();
        (run.record.network, run.record.epsilon) = (Architecture::Reid, 0.0);
        run.record.embedding_size = run.network.embedding_size();
        run.head.weight = Tensor::zeros([2, 256], (tch::Kind::Float, Device::Cpu));
        run.write().expect("written");
        let read = Run::open(folder.path()).expect("a run");
        assert!(read.network == run.network && read.record == run.record);
        run.record.network = Architecture::MobileFaceNet;
        run.write().expect("written");
        assert!(Run::open(folder.path()).is_err(), "the weights of another network");
    }

    #[test]
    fn only_a_linear_head_looks_at_the_length_of_an_embedding() {
        let folder = tempfile::tempdir().expect("a folder");
        let embedding = Tensor::from_slice(&[0.25f32; 16]).view([1, 16]);
        let differ = |kind| {
            let head = noisy(folder.path(), kind).head;
            let [short, long] = [1.0, 2.0].map(|factor| head.logits(&(&embedding * factor)));
            (short - long).abs().max().double_value(&[])
        };
        assert!(differ(HeadKind::Softmax) > 1e-2);
        assert!(differ(HeadKind::Cosface) < 1e-4);
    }

    #[test]
    fn a_model_of_another_training_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut run = noisy(folder.path(), HeadKind::Arcface);
        run.record.people.push("Hedy".into());
        run.write().expect("written");
        let error = format!("{:#}", Run::open(folder.path()).expect_err("three people"));
        assert!(error.contains("head.weight is [2, 16], expected [3, 16]"), "{error}");
        let empty = tempfile::tempdir().expect("a folder");
        let error = Run::open(empty.path()).expect_err("nothing").to_string();
        assert!(error.contains("no run.json"), "{error}");
    }
}
