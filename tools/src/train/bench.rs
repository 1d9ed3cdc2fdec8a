//! Measures the speed of one training step of [`crate::train`], on pictures that are
//! already in memory.

use crate::chance::Chance;
use crate::networks::mobilefacenet::{INPUT_SIDE, MobileFaceNet};
use crate::train::loader::Batch;
use crate::train::margin::Margin;
use crate::train::recipe::Recipe;
use crate::train::run_folder::{Head, HeadKind};
use crate::train::step::Learner;
use crate::train::torch_net::Student;
use anyhow::{Result, ensure};
use std::time::Instant;
use tch::{Cuda, Device, Tensor};

/// Classes of the head. Their number hardly affects the duration of a step.
const CLASSES: i64 = 10;
/// Length of an embedding.
const EMBEDDING_SIZE: i64 = 512;
/// Learning rate, large enough to move the weights.
const RATE: f64 = 0.01;
/// Weight decay, so that the step contains every computation of a real one.
const WEIGHT_DECAY: f64 = 5e-4;

/// The recipe that is measured: ArcFace from scratch, with batch normalization by batch
/// statistics.
pub fn recipe(batch: usize, device: Device, mixed: bool) -> Recipe {
    Recipe { batch, device, mixed, weight_decay: WEIGHT_DECAY, ..Recipe::train() }
}

/// A training step that can be repeated.
pub struct Bench<'a> {
    learner: Learner<'a>,
    batch: Batch,
    taken: usize,
}

impl<'a> Bench<'a> {
    /// Makes random weights and pictures. Fails if the recipe is invalid.
    pub fn new(recipe: &'a Recipe) -> Result<Self> {
        recipe.check()?;
        let mut chance = Chance::new(recipe.seed);
        let network = MobileFaceNet::random(EMBEDDING_SIZE as usize, &mut chance);
        let mut noise = |shape: &[i64]| {
            let count = shape.iter().product::<i64>();
            let values: Vec<f32> = (0..count).map(|_| chance.between(-1.0, 1.0) as f32).collect();
            Tensor::from_slice(&values).view(shape)
        };
        let side = INPUT_SIDE as i64;
        let size = recipe.batch as i64;
        let labels: Vec<i64> = (0..size).map(|face| face % CLASSES).collect();
        let head = Head {
            kind: HeadKind::Arcface,
            weight: noise(&[CLASSES, EMBEDDING_SIZE]).to_device(recipe.device),
            bias: None,
            scale: Margin::ARCFACE.scale,
        };
        Ok(Self {
            batch: Batch {
                pictures: noise(&[size, 3, side, side]),
                labels: Tensor::from_slice(&labels),
                indices: (0..recipe.batch).collect(),
            },
            learner: Learner::new(
                recipe,
                Student::new(&network.into(), recipe.device),
                head,
                None,
                None,
            ),
            taken: 0,
        })
    }

    /// Runs `count` steps and returns images per second. Fails if the loss is not finite.
    pub fn steps(&mut self, count: usize) -> Result<f64> {
        let before = Instant::now();
        for _ in 0..count {
            let outcome = self.learner.step(&self.batch, RATE, (1, self.taken))?;
            ensure!(outcome.loss.is_finite(), "step {}: the loss is not finite", self.taken + 1);
            self.taken += 1;
        }
        if let Device::Cuda(number) = self.learner.recipe.device {
            Cuda::synchronize(number as i64);
        }
        let images = (count * self.batch.indices.len()) as f64;
        Ok(images / before.elapsed().as_secs_f64().max(f64::MIN_POSITIVE))
    }
}

/// The median: the mean of the two middle values for an even count, 0 for an empty list.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_taken_and_counted() {
        let recipe = recipe(2, Device::Cpu, false);
        let mut bench = Bench::new(&recipe).expect("a step");
        assert!(bench.steps(2).expect("a figure") > 0.0);
        assert_eq!(bench.taken, 2);
    }

    #[test]
    fn the_middle_is_found() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[9.0, 1.0, 2.0, 4.0]), 3.0);
    }
}
