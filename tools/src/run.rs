//! What a training leaves behind: a folder with the network, its head, and how
//! they came about.

use crate::files;
use crate::mobilefacenet::MobileFaceNet;
use crate::student::unit_rows;
use crate::weights::{Tensor as Weights, Tensors, safetensors};
use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use facelatch::nn::Normalization;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};

/// Network and head under the names [`MobileFaceNet`] has, and `head.weight`,
/// `head.bias`.
pub const MODEL: &str = "model.safetensors";
/// The record.
pub const RECORD: &str = "run.json";
/// What the record's form is counted by.
pub const FORMAT: u32 = 1;
/// The libtorch that tch is made for.
pub const LIBTORCH: &str = "2.11.0";

/// What turns embeddings into classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum HeadKind {
    /// A linear layer: weight and bias a class
    Softmax,
    /// Cosines to class centres, an angle added to the own one
    Arcface,
    /// Cosines to class centres, a number taken from the own one
    Cosface,
    /// Cosines to class centres, all three margins
    Combined,
}

/// A head with its weights.
#[derive(Debug)]
pub struct Head {
    /// Which.
    pub kind: HeadKind,
    /// `classes x embedding_size`.
    pub weight: Tensor,
    /// `classes`, for softmax alone.
    pub bias: Option<Tensor>,
    /// What cosines are multiplied by; 1 for softmax, whose weights have a length.
    pub scale: f64,
}

impl Head {
    /// Logits `N x classes` of embeddings `N x embedding_size`, without any margin:
    /// what a face is told by where nobody knows whose it is.
    pub fn logits(&self, embeddings: &Tensor) -> Tensor {
        match self.kind {
            HeadKind::Softmax => embeddings.linear(&self.weight, self.bias.as_ref()),
            HeadKind::Arcface | HeadKind::Cosface | HeadKind::Combined => {
                unit_rows(embeddings).matmul(&unit_rows(&self.weight).tr()) * self.scale
            }
        }
    }

    /// The same head on another device, apart from this one.
    pub fn copy_to(&self, device: Device) -> Self {
        let copy = |tensor: &Tensor| tensor.detach().to_device(device).copy();
        Self {
            kind: self.kind,
            weight: copy(&self.weight),
            bias: self.bias.as_ref().map(copy),
            scale: self.scale,
        }
    }

    /// Under the names of the model file.
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
                "{name} is {:?}, expected {shape:?}, as {RECORD} says; they are of two trainings",
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

/// A tensor of torch as plain numbers.
pub(crate) fn plain(tensor: &Tensor) -> Result<Weights> {
    let shape = tensor.size().iter().map(|side| *side as usize).collect();
    let flat = tensor.detach().to_device(Device::Cpu).contiguous().flatten(0, -1);
    Ok(Weights { shape, values: Vec::try_from(flat)? })
}

/// Plain numbers as a tensor of torch.
pub(crate) fn torch(tensor: &Weights) -> Tensor {
    let shape: Vec<i64> = tensor.shape.iter().map(|side| *side as i64).collect();
    Tensor::from_slice(&tensor.values).view(&shape[..])
}

/// SHA-256 of the data sets, hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataDigests {
    /// Learned from.
    pub train: String,
    /// Judged on.
    pub validation: String,
}

/// What it was made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Versions {
    /// This program.
    pub facelatch_tools: String,
    /// What trained.
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
    /// What is chosen by, the higher the better: minus the loss, the accuracy, or
    /// the mean true accept rate.
    pub value: f64,
    /// Mean cross-entropy of the logits without a margin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Share of photos whose highest logit is the right one, 0..=1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Mean over false accept rates of the true accept rate of all pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub true_accept_rate: Option<f64>,
    /// Of all pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equal_error_rate: Option<f64>,
}

/// How an epoch went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// From 1; 0 is the start.
    pub number: usize,
    /// Of its last step; 0 at the start.
    pub learning_rate: f64,
    /// Mean loss of the training photos, margin and smoothing in it; 0 at the start.
    pub loss: f64,
    /// Share of training photos told right as they were learned from, without a
    /// margin, 0..=1; 0 at the start.
    pub accuracy: f64,
    /// Mean cosine to the teacher, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<f64>,
    /// On the validation photos.
    pub validation: Judged,
    /// What the steps took, judging not counted.
    pub seconds: f64,
    /// Training photos a second.
    pub images_per_second: f64,
    /// Share of that time in which nothing was there to be learned from, 0..=1.
    pub waited: f64,
}

/// A point on the way from the start to the best epoch, judged.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Blend {
    /// Share of the way, 0..=1.
    pub share: f64,
    /// On the validation photos.
    pub validation: Judged,
}

/// `run.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`FORMAT`].
    pub format: u32,
    /// The command line.
    pub command: Vec<String>,
    /// Kind of the head.
    pub head: HeadKind,
    /// Of the logits.
    pub scale: f64,
    /// What the own angle is multiplied by, what is added to it (radians), and what
    /// is taken from its cosine.
    pub margins: [f64; 3],
    /// Components of an embedding.
    pub embedding_size: usize,
    /// What batch normalization adds to a variance before its root.
    pub epsilon: f64,
    /// Of the pictures.
    pub normalization: Normalization,
    /// By label.
    pub people: Vec<String>,
    /// Everything random follows from it.
    pub seed: i64,
    /// The data sets.
    pub data: DataDigests,
    /// The programs.
    pub versions: Versions,
    /// All of the recipe.
    pub settings: serde_json::Value,
    /// How it went, the start first.
    pub epochs: Vec<Epoch>,
    /// Whose weights these are.
    pub best_epoch: usize,
    /// Whether they are better than the start on the validation photos.
    pub better_than_start: bool,
    /// Points on the way from the start to the best epoch, where they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blends: Vec<Blend>,
    /// How far from the start to the best epoch the weights lie, 0..=1.
    pub blend: f64,
}

/// The folder and what is in it.
#[derive(Debug)]
pub struct Run {
    /// Where.
    pub folder: PathBuf,
    /// How it came about.
    pub record: RunRecord,
    /// The recognizer.
    pub network: MobileFaceNet,
    /// What it was trained under, on the CPU.
    pub head: Head,
}

impl Run {
    /// Reads a folder that a training wrote.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(RECORD);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
                "{}: no {RECORD} in it; name the --out folder of a finished training",
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
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let (network, head) =
            Self::read_model(&bytes, &record).with_context(|| path.display().to_string())?;
        Ok(Self { folder: folder.to_owned(), record, network, head })
    }

    fn read_model(bytes: &[u8], record: &RunRecord) -> Result<(MobileFaceNet, Head)> {
        let mut tensors = safetensors::read(bytes)?;
        let head = Head::take(&mut tensors, record)?;
        let network = MobileFaceNet::from_tensors(tensors, record.epsilon)?;
        Ok((network, head))
    }

    /// Writes the folder, the record last.
    pub fn write(&self) -> Result<()> {
        let mut tensors = self.network.tensors.clone();
        tensors.append(&mut self.head.tensors()?);
        files::replace(&self.folder.join(MODEL), &safetensors::write(&tensors, None)?)?;
        files::replace(&self.folder.join(RECORD), &serde_json::to_vec_pretty(&self.record)?)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::student::tests::noise;

    /// A run of noise with two people.
    pub(crate) fn noisy(folder: &Path, kind: HeadKind) -> Run {
        let network = noise(16, 3);
        let softmax = kind == HeadKind::Softmax;
        let weight: Vec<f32> = (0..32).map(|i| (i as f32 * 0.7).sin()).collect();
        Run {
            folder: folder.to_owned(),
            record: RunRecord {
                format: FORMAT,
                command: vec!["facelatch-tools".into(), "train".into()],
                head: kind,
                scale: if softmax { 1.0 } else { 64.0 },
                margins: [1.0, 0.5, 0.0],
                embedding_size: 16,
                epsilon: network.epsilon,
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
