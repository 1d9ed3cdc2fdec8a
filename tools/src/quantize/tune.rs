//! Quantization-aware training: with simulated quantization the network learns to
//! reproduce the outputs of the floating-point network for the same pictures and their
//! mirror images (Hinton, Vinyals and Dean, "Distilling the knowledge in a neural
//! network", 2015). It needs no labels. Weights, biases, slopes and scales are all
//! trained.

use super::Task;
use super::affine::normalized;
use super::judge::{Agreement, Aim};
use super::simulate::{Learns, Quantized, Simulation};
use crate::chance::Chance;
use anyhow::{Result, bail};
use serde::Serialize;
use std::collections::BTreeMap;
use tch::nn::{Adam, Optimizer, OptimizerConfig};
use tch::{Device, Kind, Tensor};

/// Learning rate of slopes and of logarithms of scales, relative to that of weights. A
/// weight ranges over 127 units, whereas a change of a logarithm changes its scale by a
/// share.
const SCALES_SLOWER: f64 = 0.05;
/// Weight of offsets relative to scores. A box that is off by 1 % of its window counts
/// like a score that is off by 3 %.
const OFFSETS: f64 = 10.0;
/// Share of the way that the running average of all variables moves towards them at each
/// step. The average is judged and kept, because rounding makes the variables themselves
/// fluctuate (Polyak and Juditsky, "Acceleration of stochastic approximation by
/// averaging", 1992).
const AVERAGE: f64 = 0.02;

/// Settings of quantization-aware training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Schedule {
    /// Epochs: how often each picture is shown. 0 leaves the network as it is.
    pub epochs: usize,
    /// Batch per step.
    pub batch: usize,
    /// Initial learning rate of Adam, in units of weights, with a cosine decay to zero.
    pub rate: f64,
}

/// Result of quantization-aware training.
pub struct Tuned {
    /// Network of the best epoch, or of the start if no epoch was better.
    pub quantized: Quantized,
    /// Number of that epoch; 0 for the start.
    pub chosen: usize,
    /// Figures on the selection set, the start first.
    pub epochs: Vec<Agreement>,
}

/// What the training reports while it runs.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// This many more pictures were trained on.
    Seen(usize),
    /// An epoch was judged; number 0 is the start.
    Judged(usize, Agreement),
}

/// Trains on byte pictures, in batches of one size each, and keeps the epoch that is best
/// on the task's selection set. Fails if the loss is not finite.
pub fn tune(
    task: &Task,
    start: &Quantized,
    train: &[Tensor],
    schedule: &Schedule,
    mut told: impl FnMut(&Progress),
) -> Result<Tuned> {
    let mut chance = Chance::new(task.seed);
    let teacher = Simulation::float(task.graph, Device::Cpu);
    let student = Simulation::quantized(start, Device::Cpu);
    let mut averaged = Simulation::quantized(start, Device::Cpu);
    let expected = task.teacher(task.select);
    let mut epochs = vec![task.judge(&student, &expected)];
    told(&Progress::Judged(0, epochs[0]));
    let (mut best, mut chosen) = (start.clone(), 0);
    let pools = pools(train);
    let steps: usize =
        pools.iter().map(|pool| (pool.size()[0] as usize).div_ceil(schedule.batch.max(1))).sum();
    let mut optimizer = Adam::default().build(&student.store, schedule.rate)?;
    for epoch in 1..=schedule.epochs {
        for (step, batch) in shuffled(&pools, schedule.batch, &mut chance).iter().enumerate() {
            let done = ((epoch - 1) * steps + step) as f64 / (schedule.epochs * steps) as f64;
            set_rates(
                &mut optimizer,
                schedule.rate * (1.0 + (std::f64::consts::PI * done).cos()) / 2.0,
            );
            let loss = loss(task, &teacher, &student, batch);
            if !loss.double_value(&[]).is_finite() {
                bail!("epoch {epoch}: the loss is not finite; use a smaller learning rate");
            }
            optimizer.backward_step(&loss);
            averaged.approach(&student, AVERAGE);
            told(&Progress::Seen(batch.size()[0] as usize));
        }
        let agreement = task.judge(&averaged, &expected);
        told(&Progress::Judged(epoch, agreement));
        if agreement.cost() < epochs[chosen].cost() {
            (best, chosen) = (averaged.to_quantized()?, epoch);
        }
        epochs.push(agreement);
    }
    Ok(Tuned { quantized: best, chosen, epochs })
}

fn set_rates(optimizer: &mut Optimizer, rate: f64) {
    optimizer.set_lr_group(Learns::Units as usize, rate);
    optimizer.set_lr_group(Learns::Scales as usize, rate * SCALES_SLOWER);
}

/// Loss of the student against the teacher on a batch of bytes.
fn loss(task: &Task, teacher: &Simulation, student: &Simulation, bytes: &Tensor) -> Tensor {
    let taught =
        tch::no_grad(|| teacher.forward(&normalized(bytes, &task.normalization), |_, _| ()));
    let normalization = student.picture().normalization();
    let given = student.forward(&normalized(bytes, &normalization), |_, _| ());
    match task.aim {
        Aim::Direction => {
            1.0 - Tensor::cosine_similarity(&taught[0], &given[0], 1, 1e-12).mean(Kind::Float)
        }
        Aim::Windows(_) => {
            // Offsets count in proportion to the face score. The sum is divided by the
            // number of faces. Most windows show none, so if it were divided by all
            // windows, a batch without faces would hardly change anything.
            let face = taught[0].slice(1, 1, 2, 1);
            let faces = face.sum(Kind::Float) + 1.0;
            let score = (&taught[0] - &given[0]).square().sum(Kind::Float);
            let offsets = taught.iter().zip(&given).skip(1);
            offsets.fold(score, |sum, (taught, given)| {
                let values = taught.size()[1] as f64;
                sum + ((taught - given).square() * &face).sum(Kind::Float) * (OFFSETS / values)
            }) / faces
        }
    }
}

/// All pictures, joined by size.
fn pools(batches: &[Tensor]) -> Vec<Tensor> {
    let mut by_size: BTreeMap<Vec<i64>, Vec<&Tensor>> = BTreeMap::new();
    for batch in batches {
        by_size.entry(batch.size()[1..].to_vec()).or_default().push(batch);
    }
    by_size.values().map(|batches| Tensor::cat(batches, 0)).collect()
}

/// Every picture once in random order, in batches of one size, half of them mirrored.
fn shuffled(pools: &[Tensor], batch: usize, chance: &mut Chance) -> Vec<Tensor> {
    let mut batches = Vec::new();
    for pool in pools {
        let order = chance.order(pool.size()[0] as usize);
        batches.extend(order.chunks(batch.max(1)).map(|index| (pool, Tensor::from_slice(index))));
    }
    let mixed = chance.order(batches.len());
    let batch = |at: &i64| {
        let (pool, index) = &batches[*at as usize];
        let pictures = pool.index_select(0, index);
        if chance.below(2) == 1 { pictures.flip([3]) } else { pictures }
    };
    mixed.iter().map(batch).collect()
}

#[cfg(test)]
mod tests {
    use super::super::graph::Graph;
    use super::super::ranges::Method;
    use super::super::{Recipe, toy, write};
    use super::*;
    use facelatch::nn::Normalization;

    fn tuned(aim: Aim, epochs: usize) -> Tuned {
        let graph = Graph::read("toy.onnx", &toy::onnx(1)).expect("a graph");
        let task = Task {
            graph: &graph,
            normalization: Normalization::ARCFACE,
            aim,
            calibrate: &[toy::pictures(16, 1)],
            select: &[toy::pictures(16, 2)],
            seed: 1,
        };
        // A range that is far too narrow leaves much to learn.
        let recipe = Recipe { activations: Method::Without(0.2), correct_biases: false };
        let start = task.post_training(&[recipe], |_, _| ()).expect("a quantized network");
        let schedule = Schedule { epochs, batch: 4, rate: 0.1 };
        tune(&task, &start.quantized, &[toy::pictures(64, 4)], &schedule, |_| ()).expect("tuned")
    }

    #[test]
    fn training_brings_the_outputs_nearer_and_repeats_itself() {
        for aim in [Aim::Windows(0.2), Aim::Direction] {
            let done = tuned(aim, 4);
            assert_eq!(done.epochs.len(), 5);
            let (start, best) = (done.epochs[0].cost(), done.epochs[done.chosen].cost());
            assert!(best < 0.9 * start, "{aim:?}: {start} {best}");
            let again = tuned(aim, 4);
            assert!(write::write(&done.quantized) == write::write(&again.quantized));
        }
    }

    #[test]
    fn gates_are_trained_and_a_relu_stays_one() {
        let graph = Graph::read("gated.onnx", &toy::gated()).expect("a graph");
        let task = Task {
            graph: &graph,
            normalization: Normalization { mean: [0.0; 3], std: [1.0; 3] },
            aim: Aim::Direction,
            calibrate: &[toy::pictures(16, 1)],
            select: &[toy::pictures(16, 2)],
            seed: 1,
        };
        let recipe = Recipe { activations: Method::Without(0.2), correct_biases: false };
        let start = task.post_training(&[recipe], |_, _| ()).expect("a quantized network");
        let schedule = Schedule { epochs: 4, batch: 4, rate: 0.1 };
        let done = tune(&task, &start.quantized, &[toy::pictures(64, 4)], &schedule, |_| ());
        let done = done.expect("tuned");
        let (start, best) = (done.epochs[0].cost(), done.epochs[done.chosen].cost());
        assert!(best < 0.9 * start, "{start} {best}");
        let relus = done.quantized.graph.linears().filter(|(_, linear)| linear.is_relu());
        assert_eq!(relus.count(), 1);
    }

    #[test]
    fn without_epochs_the_start_stays() {
        let done = tuned(Aim::Direction, 0);
        assert_eq!((done.chosen, done.epochs.len()), (0, 1));
    }

    /// Reading the weights out used to multiply the weights that were still being
    /// trained.
    #[test]
    fn reading_the_network_out_leaves_it_as_it_is() {
        let start = tuned(Aim::Direction, 0).quantized;
        let network = Simulation::quantized(&start, Device::Cpu);
        let once = network.to_quantized().expect("weights");
        assert_eq!(once, network.to_quantized().expect("weights"));
    }
}
