//! How to train: every choice there is, checked.

use crate::augment::Augment;
use crate::judge::Judge;
use crate::margin::Margin;
use crate::mobilefacenet::steps;
use crate::run::HeadKind;
use crate::schedule::{Course, Schedule};
use anyhow::{Context, Result, ensure};
use facelatch::nn::Normalization;
use serde::{Deserialize, Serialize};
use tch::Device;

/// How to train. What is not written down with it has no influence on the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// How often each photo is shown.
    pub epochs: usize,
    /// Photos a step.
    pub batch: usize,
    /// Sizes of steps.
    pub schedule: Schedule,
    /// Share of the last step that goes on.
    pub momentum: f64,
    /// Pull of the weights of layers towards zero.
    pub weight_decay: f64,
    /// What turns embeddings into classes.
    pub head: HeadKind,
    /// Its scale and margins; [`Margin::NONE`] for softmax.
    pub margin: Margin,
    /// Share of each label that is spread over all classes.
    pub smoothing: f64,
    /// Weight of the term that holds embeddings to those of the starting weights, the
    /// teacher: a few thousand photos must not undo what millions taught.
    pub hold: f64,
    /// Share of the way that a running average goes towards the weights at each step,
    /// 0..=1. It is what is judged and kept, and wanders less than the weights
    /// themselves (Polyak and Juditsky, "Acceleration of stochastic approximation by
    /// averaging", 1992); at 1 it is the weights.
    pub average: f64,
    /// Steps of the network, from the picture, that stay as they are.
    pub freeze: usize,
    /// Whether each person is shown equally often.
    pub balanced: bool,
    /// Whether batches are normalized by themselves, as from nothing they must be.
    pub batch_norm: bool,
    /// Share of all classes that a step looks at.
    pub negatives: f64,
    /// Slopes that are longer together are shortened to this.
    pub clip: Option<f64>,
    /// Whether the network computes in 16 bits where that is enough.
    pub mixed: bool,
    /// What an epoch is chosen by; where nothing is said, the loss where validation
    /// people are those of the training, and pairs where they are others.
    pub judge: Option<Judge>,
    /// Epochs without a better one after which it ends.
    pub patience: Option<usize>,
    /// Shares of the way from the start to the best epoch that are judged as well
    /// (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022).
    pub blend: Vec<f64>,
    /// What happens to faces before they are learned from.
    pub augment: Augment,
    /// Of the network's input.
    pub normalization: Normalization,
    /// Everything random follows from it.
    pub seed: i64,
    /// Threads that make batches ready; 0 for as many as suit the device.
    #[serde(skip)]
    pub threads: usize,
    /// Where it is computed.
    #[serde(skip, default = "cpu")]
    pub device: Device,
}

fn cpu() -> Device {
    Device::Cpu
}

impl Recipe {
    /// A softmax head on weights that know faces: 10 epochs of batches of 8, steps of
    /// 0.001 with momentum 0.9.
    pub fn finetune() -> Self {
        Self {
            epochs: 10,
            batch: 8,
            schedule: Schedule::constant(1e-3),
            momentum: 0.9,
            weight_decay: 0.0,
            head: HeadKind::Softmax,
            margin: Margin::NONE,
            smoothing: 0.0,
            hold: 0.0,
            average: 1.0,
            freeze: 0,
            balanced: false,
            batch_norm: false,
            negatives: 1.0,
            clip: None,
            mixed: false,
            judge: None,
            patience: None,
            blend: vec![],
            augment: Augment::mild(),
            normalization: Normalization::ARCFACE,
            seed: 1,
            threads: 0,
            device: Device::Cpu,
        }
    }

    /// ArcFace from nothing: 50 epochs of batches of 32, steps of 0.01 with momentum
    /// 0.95, warmed up over two epochs and falling along a cosine.
    pub fn train() -> Self {
        let schedule =
            Schedule { warm_up: 2.0, course: Course::Cosine, ..Schedule::constant(1e-2) };
        Self {
            epochs: 50,
            batch: 32,
            schedule,
            momentum: 0.95,
            head: HeadKind::Arcface,
            margin: Margin::ARCFACE,
            batch_norm: true,
            ..Self::finetune()
        }
    }

    /// Refuses what cannot be followed, naming the option.
    pub fn check(&self) -> Result<()> {
        ensure!(self.epochs > 0, "--epochs 0: nothing would be learned");
        ensure!(self.batch > 0, "--batch 0: nothing would be learned");
        ensure!(
            !self.batch_norm || self.batch > 1,
            "--batch 1: a batch that is normalized by itself needs two photos; give a larger \
             --batch, or --batch-norm kept"
        );
        self.schedule.check(self.epochs)?;
        self.margin.check()?;
        for (option, value) in [
            ("momentum", self.momentum),
            ("label-smoothing", self.smoothing),
            ("average", self.average),
            ("negatives", self.negatives),
        ] {
            ensure!((0.0..=1.0).contains(&value), "--{option} {value}: expected 0 to 1");
        }
        ensure!(self.momentum < 1.0, "--momentum 1: steps would never end; expected below 1");
        for (option, value) in [
            ("weight-decay", self.weight_decay),
            ("hold", self.hold),
            ("clip", self.clip.unwrap_or(1.0)),
        ] {
            let fine = value >= 0.0 && value.is_finite();
            ensure!(fine, "--{option} {value}: expected a number from 0");
        }
        for share in &self.blend {
            ensure!(
                *share > 0.0 && *share <= 1.0,
                "--blend {share}: expected shares of the way, above 0 and up to 1"
            );
        }
        let deepest = steps().len() + 1;
        ensure!(
            self.freeze <= deepest,
            "--freeze {}: the network has {deepest} steps, the last layer counted",
            self.freeze
        );
        ensure!(
            !self.mixed || self.device.is_cuda(),
            "--mixed: 16 bits are faster on a GPU alone; add --device cuda, or leave it out"
        );
        self.augment.check().context("augmentation")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_recipes_can_be_followed_and_are_read_as_written() {
        for recipe in [Recipe::finetune(), Recipe::train()] {
            recipe.check().expect("a recipe");
            let text = serde_json::to_string(&recipe).expect("text");
            assert_eq!(serde_json::from_str::<Recipe>(&text).expect("a recipe"), recipe);
            let faster = Recipe { threads: 7, ..recipe };
            assert_eq!(serde_json::to_string(&faster).expect("text"), text);
        }
    }

    #[test]
    fn what_cannot_be_followed_is_named() {
        let fine = Recipe::train;
        for (recipe, said) in [
            (Recipe { epochs: 0, ..fine() }, "--epochs 0"),
            (Recipe { batch: 1, ..fine() }, "--batch 1"),
            (Recipe { momentum: 1.0, ..fine() }, "--momentum 1"),
            (Recipe { smoothing: -0.1, ..fine() }, "--label-smoothing -0.1"),
            (Recipe { weight_decay: f64::NAN, ..fine() }, "--weight-decay NaN"),
            (Recipe { blend: vec![0.5, 1.5], ..fine() }, "--blend 1.5"),
            (Recipe { freeze: 99, ..fine() }, "--freeze 99"),
            (Recipe { mixed: true, ..fine() }, "--mixed"),
        ] {
            let error = format!("{:#}", recipe.check().expect_err("no recipe"));
            assert!(error.contains(said), "{error}");
        }
    }
}
