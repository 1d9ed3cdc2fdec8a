//! Validation: figures on photos that are never trained on, by which the best epoch is
//! chosen.

use crate::measure::metrics::Scores;
use crate::train::data::Faces;
use crate::train::margin::{cross_entropy, right};
use crate::train::run_folder::{Head, Judged};
use crate::train::tensors::unit_rows;
use crate::train::torch_net::{Student, pictures};
use anyhow::{Result, bail};
use clap::ValueEnum;
use facelatch::nn::Normalization;
use facelatch::vision::align::Crop;
use facelatch::vision::embed::Embedding;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// False accept rates at which [`Judge::Pairs`] averages the true accept rate. Lower
/// rates would depend on two or three pairs.
pub const JUDGED_AT: [f64; 3] = [1e-2, 1e-3, 1e-4];
/// Batch per batch when embedding without training.
const EMBED_BATCH: usize = 64;

/// What the best epoch is chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Judge {
    /// Lowest loss of classifying validation photos of the training people
    Loss,
    /// Highest share of these photos that are classified correctly
    Accuracy,
    /// Highest mean true accept rate over all pairs of photos
    Pairs,
}

/// Validation photos and how they are judged.
pub struct Validation<'a> {
    /// Photos with the labels of their people. Except for [`Judge::Pairs`], the labels
    /// are those of the training data.
    pub faces: &'a Faces,
    /// Which figures are computed.
    pub judge: Judge,
    /// Normalization of the network's input.
    pub normalization: &'a Normalization,
    /// Device that holds the network.
    pub device: Device,
}

impl Validation<'_> {
    /// Computes the figures of a network and its head. For [`Judge::Pairs`] it fails if
    /// the photos form no pair of one person or no pair of two people.
    pub fn figures(&self, student: &Student, head: &Head) -> Result<Judged> {
        let crops: Vec<&Crop> = self.faces.crops.iter().collect();
        let embeddings = embed(student, &crops, self.normalization, false, self.device);
        match self.judge {
            Judge::Loss | Judge::Accuracy => self.closed(&embeddings, head),
            Judge::Pairs => self.open(&embeddings),
        }
    }

    fn closed(&self, embeddings: &Tensor, head: &Head) -> Result<Judged> {
        let labels = Tensor::from_slice(&self.faces.labels).to_device(self.device);
        let logits = tch::no_grad(|| head.logits(embeddings));
        let loss = cross_entropy(&logits, &labels, 0.0).double_value(&[]);
        let accuracy = right(&logits, &labels) as f64 / self.faces.labels.len().max(1) as f64;
        let value = if self.judge == Judge::Loss { -loss } else { accuracy };
        Ok(Judged { value, loss: Some(loss), accuracy: Some(accuracy), ..Judged::default() })
    }

    fn open(&self, embeddings: &Tensor) -> Result<Judged> {
        let rows = Vec::<Vec<f32>>::try_from(&unit_rows(embeddings).to_device(Device::Cpu))?;
        let embeddings: Vec<Embedding> =
            rows.iter().map(|row| Embedding::normalized(row)).collect();
        let faces: Vec<(i64, Option<&Embedding>)> =
            self.faces.labels.iter().copied().zip(embeddings.iter().map(Some)).collect();
        let scores = Scores::of_all_pairs(&faces);
        if scores.genuine.is_empty() || scores.impostor.is_empty() {
            bail!(
                "the validation photos form {} pairs of one person and {} of two people; \
                 judging by pairs needs both, so give at least two photos of each of two people",
                scores.genuine.len(),
                scores.impostor.len()
            );
        }
        if rows.iter().flatten().any(|value| !value.is_finite()) {
            return Ok(Judged { value: f64::NAN, ..Judged::default() });
        }
        let rates = JUDGED_AT.map(|far| scores.true_accept_rate(far));
        let value = rates.iter().sum::<f64>() / rates.len() as f64;
        Ok(Judged {
            value,
            true_accept_rate: Some(value),
            equal_error_rate: Some(scores.equal_error_rate()),
            ..Judged::default()
        })
    }
}

/// Embeddings `N x embedding_size` of crops, or of their mirror images, on `device`. They
/// are not normalized to length one.
pub fn embed(
    student: &Student,
    crops: &[&Crop],
    normalization: &Normalization,
    mirrored: bool,
    device: Device,
) -> Tensor {
    let channels = student.architecture().channels();
    let batches: Vec<Tensor> = crops
        .chunks(EMBED_BATCH)
        .map(|batch| {
            let seen = pictures(batch, channels, normalization).to_device(device);
            let seen = if mirrored { seen.flip([3]) } else { seen };
            tch::no_grad(|| student.forward(&seen).to_kind(Kind::Float))
        })
        .collect();
    Tensor::cat(&batches, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::run_folder::HeadKind;
    use crate::train::torch_net::tests::{crop, noise};
    use std::sync::Arc;

    fn figures(judge: Judge, labels: &[i64]) -> Result<Judged> {
        let student = Student::new(&noise(16, 1), Device::Cpu);
        let faces = Faces {
            // All photos of a person are the same.
            crops: Arc::new(labels.iter().map(|label| crop(*label as usize)).collect()),
            labels: Arc::new(labels.to_vec()),
            names: vec![],
            groups: vec![],
            digest: String::new(),
        };
        let normalization = &Normalization::ARCFACE;
        let [first, second] = [crop(0), crop(1)];
        let weight = embed(&student, &[&first, &second], normalization, false, Device::Cpu);
        let head = Head { kind: HeadKind::Arcface, weight, bias: None, scale: 64.0 };
        Validation { faces: &faces, judge, normalization, device: Device::Cpu }
            .figures(&student, &head)
    }

    #[test]
    fn people_at_their_centres_are_told_right() {
        let judged = figures(Judge::Loss, &[0, 1, 0]).expect("figures");
        assert_eq!(judged.accuracy, Some(1.0));
        assert_eq!(judged.loss, Some(-judged.value));
        assert!(judged.value > -0.7 && judged.true_accept_rate.is_none());
        assert_eq!(figures(Judge::Accuracy, &[0, 1]).expect("figures").value, 1.0);
    }

    #[test]
    fn others_are_judged_by_their_pairs() {
        let judged = figures(Judge::Pairs, &[5, 9, 5, 9]).expect("figures");
        assert_eq!((judged.value, judged.equal_error_rate), (1.0, Some(0.0)));
        let error = figures(Judge::Pairs, &[5, 9]).expect_err("no pair").to_string();
        assert!(error.contains("0 pairs of one person and 1 of two"), "{error}");
    }
}
