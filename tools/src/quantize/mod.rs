//! 8-bit quantization: weights in -127..=127 with one scale per output channel,
//! activations in -128..=127 with one scale and zero point each.
//!
//! The order follows Nagel et al., "A white paper on neural network quantization", 2021.
//! The input's normalization is folded in, channels are brought to similar ranges
//! ([`equalize`]), ranges are chosen on real inputs ([`ranges`]), and bias correction
//! removes the mean rounding error. If that is not enough, quantization-aware training
//! adjusts the weights ([`tune`]). Results are judged on photos that no range was
//! measured on.

pub mod affine;
pub mod equalize;
pub mod fold;
pub mod graph;
pub mod inputs;
pub mod judge;
pub mod ranges;
pub mod simulate;
#[cfg(test)]
mod toy;
pub mod tune;
pub mod whole;
pub mod write;

use affine::{Affine, normalized, weight_scales};
use anyhow::{Context, Result};
use facelatch::nn::Normalization;
use graph::{Graph, Op};
use judge::{Agreement, Aim};
use ranges::{Method, Observed};
use serde::Serialize;
use simulate::{Quantized, Simulation, channels_last};
use tch::{Device, Tensor};

/// Number of batches on which ranges are measured.
const OBSERVED_ON: usize = 64;
/// Number of batches whose mean errors correct the biases. They give thousands of
/// positions per channel and are in memory all at once.
const CORRECTED_ON: usize = 2;

/// Number of pictures on which the byte that stands for zero is chosen.
const CENTERED_ON: i64 = 16;

/// Settings of post-training quantization.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Recipe {
    /// How ranges of activations are chosen.
    pub activations: Method,
    /// Whether biases are corrected by the mean error.
    pub correct_biases: bool,
}

impl Recipe {
    /// All recipes to try, the simplest first.
    pub fn all() -> Vec<Self> {
        let ranges = [
            Method::MinMax,
            Method::Without(1e-5),
            Method::Without(1e-4),
            Method::Without(1e-3),
            Method::LeastSquares,
        ];
        [false, true]
            .into_iter()
            .flat_map(|correct_biases| {
                ranges.map(|activations| Self { activations, correct_biases })
            })
            .collect()
    }
}

/// A network to quantize, with its pictures and its aim.
pub struct Task<'a> {
    /// The floating-point network, for pictures normalized by `normalization`.
    pub graph: &'a Graph,
    /// Normalization of the floating-point network's pictures.
    pub normalization: Normalization,
    /// What the quantized network is judged by.
    pub aim: Aim,
    /// Calibration set, bytes in batches `N x 3 x H x W`. Ranges are measured on it.
    pub calibrate: &'a [Tensor],
    /// Selection set, bytes in batches `N x 3 x H x W`. The best recipe is chosen on it.
    pub select: &'a [Tensor],
    /// All random numbers follow from the seed.
    pub seed: i64,
}

/// Result of post-training quantization.
pub struct PostTraining {
    /// The network.
    pub quantized: Quantized,
    /// The recipe that did best.
    pub recipe: Recipe,
    /// Its agreement with the floating-point network on the selection set.
    pub agreement: Agreement,
}

impl Task<'_> {
    /// Outputs of the floating-point network for batches of bytes.
    pub fn teacher(&self, batches: &[Tensor]) -> Vec<Vec<Tensor>> {
        let network = Simulation::float(self.graph, Device::Cpu);
        judge::outputs(&network, batches, &self.normalization)
    }

    /// Agreement of a quantized network with the given outputs of the teacher on the
    /// selection set.
    pub fn judge(&self, network: &Simulation, teacher: &[Vec<Tensor>]) -> Agreement {
        let outputs = judge::outputs(network, self.select, &network.picture().normalization());
        judge::compare(self.aim, teacher, &outputs)
    }

    /// An equivalent network that takes the picture in bytes and whose channels have similar
    /// ranges, and how it stores the picture.
    pub fn prepared(&self) -> Result<(Graph, Affine)> {
        let (mut graph, picture) = self.centered();
        let observed = self.observe(&graph, picture)?;
        let peaks: Vec<Vec<f32>> = observed.into_iter().map(|seen| seen.peaks).collect();
        equalize::equalize(&mut graph, &peaks);
        Ok((graph, picture))
    }

    /// The network with the normalization folded in, and how it stores the picture: with
    /// the byte as zero that changes the outputs least.
    fn centered(&self) -> (Graph, Affine) {
        let folded = |zero: u8| {
            let (mut graph, picture) = (self.graph.clone(), Affine::picture(zero));
            fold::fold(&mut graph, &self.normalization, picture);
            (graph, picture)
        };
        let candidates = fold::candidates(self.graph, &self.normalization);
        let some: Vec<Tensor> = match (self.calibrate.first(), candidates.len()) {
            (Some(batch), 2..) => vec![batch.narrow(0, 0, CENTERED_ON.min(batch.size()[0]))],
            _ => vec![],
        };
        let teacher = self.teacher(&some);
        let cost = |zero: &u8| {
            let (graph, picture) = folded(*zero);
            let network = Simulation::float(&graph, Device::Cpu);
            let outputs = judge::outputs(&network, &some, &picture.normalization());
            (judge::compare(self.aim, &teacher, &outputs).cost(), *zero)
        };
        let costs = candidates.iter().map(cost);
        let best = costs.min_by(|(a, _), (b, _)| a.total_cmp(b));
        folded(best.map_or(128, |(_, zero)| zero))
    }

    fn observe(&self, graph: &Graph, picture: Affine) -> Result<Vec<Observed>> {
        let network = Simulation::float(graph, Device::Cpu);
        let batches: Vec<Tensor> =
            spread(self.calibrate, OBSERVED_ON).map(Tensor::shallow_clone).collect();
        let normalization = picture.normalization();
        ranges::observe(&network, graph.steps.len(), &batches, &normalization, self.seed)
    }

    /// Tries the recipes and returns the best result. `told` is called with each recipe
    /// and its agreement. Fails without recipes, or if an activation is empty or not
    /// finite.
    pub fn post_training(
        &self,
        recipes: &[Recipe],
        mut told: impl FnMut(&Recipe, &Agreement),
    ) -> Result<PostTraining> {
        let (graph, picture) = self.prepared()?;
        let observed = self.observe(&graph, picture)?;
        let teacher = self.teacher(self.select);
        let mut best: Option<PostTraining> = None;
        for &recipe in recipes {
            let quantized = self.quantized(&graph, picture, &observed, &recipe)?;
            let network = Simulation::quantized(&quantized, Device::Cpu);
            let agreement = self.judge(&network, &teacher);
            told(&recipe, &agreement);
            if best.as_ref().is_none_or(|best| agreement.cost() < best.agreement.cost()) {
                best = Some(PostTraining { quantized, recipe, agreement });
            }
        }
        best.context("no recipe to try")
    }

    fn quantized(
        &self,
        graph: &Graph,
        picture: Affine,
        observed: &[Observed],
        recipe: &Recipe,
    ) -> Result<Quantized> {
        let mut activations: Vec<_> = (0..graph.steps.len())
            .map(|at| (!graph.is_head(at)).then(|| observed[at].affine(recipe.activations)))
            .collect();
        for (at, step) in graph.steps.iter().enumerate() {
            // The maximum of some bytes is one of them, so the scale stays.
            if let (Op::MaxPool { .. }, Some(input)) = (&step.op, step.input) {
                activations[at] = activations[input];
            }
        }
        let mut scales = vec![Vec::new(); graph.steps.len()];
        for (at, linear) in graph.linears() {
            scales[at] = weight_scales(&linear.weight.values, linear.row());
        }
        let quantized =
            Quantized { graph: graph.clone(), picture, weight_scales: scales, activations };
        if recipe.correct_biases { self.corrected(&quantized) } else { Ok(quantized) }
    }

    /// Corrects the biases so that the mean of each channel is what it is without
    /// rounding. Works layer by layer, with the earlier layers already corrected.
    fn corrected(&self, quantized: &Quantized) -> Result<Quantized> {
        let float = Simulation::float(&quantized.graph, Device::Cpu);
        let whole = Simulation::quantized(quantized, Device::Cpu);
        let batches: Vec<Tensor> = spread(self.calibrate, CORRECTED_ON)
            .map(|batch| channels_last(&normalized(batch, &quantized.picture.normalization())))
            .collect();
        let mut values: Vec<[Vec<Option<Tensor>>; 2]> =
            batches.iter().map(|_| Default::default()).collect();
        tch::no_grad(|| {
            for (at, step) in quantized.graph.steps.iter().enumerate() {
                let sums: Vec<[Tensor; 2]> = batches
                    .iter()
                    .zip(&values)
                    .map(|(batch, [plain, rounded])| {
                        [float.sums(at, batch, plain), whole.sums(at, batch, rounded)]
                    })
                    .collect();
                let layer = matches!(step.op, Op::Linear(_));
                let errors = layer.then(|| {
                    let mean = |sums: &Tensor| {
                        let axes: &[i64] = if sums.dim() == 4 { &[0, 2, 3] } else { &[0] };
                        sums.mean_dim(axes, false, tch::Kind::Float)
                    };
                    let errors: Vec<Tensor> =
                        sums.iter().map(|[plain, rounded]| mean(plain) - mean(rounded)).collect();
                    Tensor::stack(&errors, 0).mean_dim([0i64].as_slice(), false, tch::Kind::Float)
                });
                if let Some(errors) = &errors {
                    whole.shift(at, errors);
                }
                for ((batch, [plain, rounded]), [plain_sums, _]) in
                    batches.iter().zip(&mut values).zip(sums)
                {
                    let rounded_sums = whole.sums(at, batch, rounded);
                    let next = float.finished(at, plain_sums, plain);
                    plain.push(Some(next));
                    let next = whole.finished(at, rounded_sums, rounded);
                    rounded.push(Some(next));
                    float.forget(at, plain);
                    whole.forget(at, rounded);
                }
            }
        });
        whole.to_quantized()
    }
}

/// Some batches, evenly spaced over the list.
fn spread(batches: &[Tensor], count: usize) -> impl Iterator<Item = &Tensor> {
    batches.iter().step_by((batches.len() / count.max(1)).max(1)).take(count)
}
