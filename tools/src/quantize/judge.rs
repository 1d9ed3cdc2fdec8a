//! Agreement of a quantized network with the floating-point network it was made from.

use super::affine::normalized;
use super::simulate::Simulation;
use facelatch::nn::Normalization;
use serde::Serialize;
use tch::{Kind, Tensor};

/// What a network is judged by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aim {
    /// The direction of its only output, as for embeddings.
    Direction,
    /// For a network of the detector: whether channel 1 of the first output reaches this
    /// score, and the other outputs where it does.
    Windows(f64),
}

/// Figures of one network, on pictures that were used only to choose the recipe.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Agreement {
    /// Figures of a recognizer.
    Direction {
        /// Mean cosine between the embeddings.
        mean_cosine: f64,
        /// Lowest cosine.
        least_cosine: f64,
    },
    /// Figures of a network of the detector.
    Windows {
        /// Windows compared.
        windows: i64,
        /// Windows that pass in floating point.
        passing: i64,
        /// Windows that pass in only one of the two networks, as a share of `passing`.
        told_apart: f64,
        /// Root mean squared error of the box offsets, as a share of the window.
        boxes: f64,
        /// The same for the landmarks; 0 if there are none.
        landmarks: f64,
    },
}

impl Agreement {
    /// One figure to compare by; lower is better. A window that passes in only one
    /// network is at worst one face lost or one false face. Offsets are shares of the
    /// window too.
    pub fn cost(&self) -> f64 {
        match self {
            Self::Direction { mean_cosine, .. } => 1.0 - mean_cosine,
            Self::Windows { told_apart, boxes, landmarks, .. } => told_apart + boxes + landmarks,
        }
    }
}

/// Outputs of a network for batches of byte pictures, one list per batch.
pub fn outputs(
    network: &Simulation,
    batches: &[Tensor],
    normalization: &Normalization,
) -> Vec<Vec<Tensor>> {
    tch::no_grad(|| {
        let run = |batch| network.forward(&normalized(batch, normalization), |_, _| ());
        batches.iter().map(run).collect()
    })
}

/// Compares the outputs of two networks, batch by batch.
pub fn compare(aim: Aim, float: &[Vec<Tensor>], quantized: &[Vec<Tensor>]) -> Agreement {
    match aim {
        Aim::Direction => direction(float, quantized),
        Aim::Windows(score) => windows(score, float, quantized),
    }
}

fn direction(float: &[Vec<Tensor>], quantized: &[Vec<Tensor>]) -> Agreement {
    let (mut sum, mut count, mut least) = (0.0, 0, 1.0f64);
    for (float, quantized) in float.iter().zip(quantized) {
        let cosines = Tensor::cosine_similarity(&float[0], &quantized[0], 1, 1e-12);
        sum += cosines.sum(Kind::Double).double_value(&[]);
        count += cosines.size()[0];
        least = least.min(cosines.min().double_value(&[]));
    }
    Agreement::Direction { mean_cosine: sum / count.max(1) as f64, least_cosine: least }
}

fn windows(limit: f64, float: &[Vec<Tensor>], quantized: &[Vec<Tensor>]) -> Agreement {
    let (mut windows, mut passing, mut apart) = (0, 0, 0.0);
    // Sums of the squared errors of the outputs after the first, and their counts.
    let mut errors = [(0.0, 0); 2];
    for (float, quantized) in float.iter().zip(quantized) {
        let passes = |outputs: &[Tensor]| outputs[0].select(1, 1).ge(limit);
        let (float_passes, quantized_passes) = (passes(float), passes(quantized));
        windows += float_passes.numel() as i64;
        let count = float_passes.sum(Kind::Int64).int64_value(&[]);
        passing += count;
        let differ = float_passes.logical_xor(&quantized_passes);
        apart += differ.sum(Kind::Double).double_value(&[]);
        let mask = float_passes.unsqueeze(1).to_kind(Kind::Float);
        for ((float, quantized), (sum, values)) in
            float.iter().zip(quantized).skip(1).zip(&mut errors)
        {
            let error = (float - quantized) * &mask;
            *sum += error.square().sum(Kind::Double).double_value(&[]);
            *values += count * float.size()[1];
        }
    }
    let [boxes, landmarks] = errors.map(|(sum, values)| (sum / values.max(1) as f64).sqrt());
    let told_apart = apart / passing.max(1) as f64;
    Agreement::Windows { windows, passing, told_apart, boxes, landmarks }
}
