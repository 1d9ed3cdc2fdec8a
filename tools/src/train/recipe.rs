//! Training settings, with their ranges checked.

use crate::data::augment::Augment;
use crate::train::learning_rate::{Course, Schedule};
use crate::train::margin::Margin;
use crate::train::run_folder::HeadKind;
use crate::train::validation::Judge;
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use facelatch::nn::Normalization;
use serde::{Deserialize, Serialize};
use tch::Device;

/// Steps of each architecture, including the layer that computes the embedding.
const STEPS: usize = 20;

/// Training settings. A setting that is not serialized has no influence on the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Epochs: how often each photo is shown.
    pub epochs: usize,
    /// Photos per step.
    pub batch: usize,
    /// Learning rate over the course of the training.
    pub schedule: Schedule,
    /// SGD momentum.
    pub momentum: f64,
    /// Weight decay of the layers' weights.
    pub weight_decay: f64,
    /// Kind of the head, which turns embeddings into classes.
    pub head: HeadKind,
    /// Scale and margins of the head; [`Margin::NONE`] for softmax.
    pub margin: Margin,
    /// Label smoothing: share of each label that is spread over all classes.
    pub smoothing: f64,
    /// Weight of the loss term that keeps embeddings near those of the starting weights,
    /// the teacher. A few thousand photos must not undo what millions taught.
    pub hold: f64,
    /// What the teacher sees of a training photo.
    #[serde(default, skip_serializing_if = "is_default")]
    pub teacher: Teacher,
    /// Loss term that pushes different people of a batch apart.
    #[serde(default, skip_serializing_if = "is_default")]
    pub impostors: Impostors,
    /// Share of the way that a running average moves towards the weights at each step,
    /// 0..=1. The average is judged and kept, because it fluctuates less than the weights
    /// themselves (Polyak and Juditsky, "Acceleration of stochastic approximation by
    /// averaging", 1992). At 1 it equals the weights.
    pub average: f64,
    /// Frozen steps of the network, counted from the picture.
    pub freeze: usize,
    /// Whether each person is shown equally often.
    pub balanced: bool,
    /// Whether photos of each group of people are shown equally often.
    #[serde(default, skip_serializing_if = "is_default")]
    pub balanced_groups: bool,
    /// Whether a batch holds people who resemble one another for the starting weights.
    #[serde(default, skip_serializing_if = "is_default")]
    pub look_alikes: bool,
    /// Whether batch normalization uses the statistics of each batch. Training from
    /// scratch requires it.
    pub batch_norm: bool,
    /// Share of all classes that each step computes logits for, 0..=1.
    pub negatives: f64,
    /// Largest global norm of the gradients; longer ones are clipped to it.
    pub clip: Option<f64>,
    /// Mixed precision: whether the network computes in 16 bits where that is enough.
    pub mixed: bool,
    /// What the best epoch is chosen by. `None` stands for the loss if the validation
    /// people are those of the training data, and for pairs if they are others.
    pub judge: Option<Judge>,
    /// Patience: epochs without improvement after which training ends.
    pub patience: Option<usize>,
    /// Blends to judge as well, as shares of the way from the start to the best epoch
    /// (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022).
    pub blend: Vec<f64>,
    /// Augmentations of the training faces.
    pub augment: Augment,
    /// Normalization of the network's input.
    pub normalization: Normalization,
    /// All random numbers follow from the seed.
    pub seed: i64,
    /// Threads that make batches; 0 chooses a number for the device.
    #[serde(skip)]
    pub threads: usize,
    /// Device that trains.
    #[serde(skip, default = "cpu")]
    pub device: Device,
}

/// What the teacher sees of a training photo. Its embedding is computed before the training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Teacher {
    /// The photo and its mirror image; their embeddings are averaged
    #[default]
    Flips,
    /// The photo alone
    Plain,
}

/// The loss term `weight * mean(max(0, similarity - threshold))` over all pairs of photos of
/// different people in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Impostors {
    /// Weight of the term; 0 for none.
    pub weight: f64,
    /// Similarity below which a pair is far enough apart, -1..=1.
    pub threshold: f64,
}

impl Default for Impostors {
    fn default() -> Self {
        Self { weight: 0.0, threshold: 0.3 }
    }
}

/// Settings that are as they were before they existed are left out, so that older trainings
/// can be continued.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn cpu() -> Device {
    Device::Cpu
}

impl Recipe {
    /// Fine-tuning of weights that know faces, with a softmax head: 10 epochs, batches of
    /// 8, learning rate 0.001, momentum 0.9.
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
            teacher: Teacher::Flips,
            impostors: Impostors::default(),
            average: 1.0,
            freeze: 0,
            balanced: false,
            balanced_groups: false,
            look_alikes: false,
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

    /// ArcFace from scratch: 50 epochs, batches of 32, learning rate 0.01 with a warm-up
    /// over two epochs and a cosine decay, momentum 0.95.
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

    /// Fails if a setting is out of range. The message names the option.
    pub fn check(&self) -> Result<()> {
        ensure!(self.epochs > 0, "--epochs 0: expected at least 1");
        ensure!(self.batch > 0, "--batch 0: expected at least 1");
        ensure!(
            !self.batch_norm || self.batch > 1,
            "--batch 1: batch normalization by batch statistics needs at least two photos; \
             give a larger --batch, or --batch-norm kept"
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
        ensure!(self.momentum < 1.0, "--momentum 1: expected a number below 1");
        for (option, value) in [
            ("weight-decay", self.weight_decay),
            ("hold", self.hold),
            ("impostors", self.impostors.weight),
            ("clip", self.clip.unwrap_or(1.0)),
        ] {
            let fine = value >= 0.0 && value.is_finite();
            ensure!(fine, "--{option} {value}: expected a finite number, 0 or more");
        }
        for share in &self.blend {
            ensure!(
                *share > 0.0 && *share <= 1.0,
                "--blend {share}: expected shares above 0 and up to 1"
            );
        }
        ensure!(
            self.freeze <= STEPS,
            "--freeze {}: the network has {STEPS} steps, including the last layer",
            self.freeze
        );
        let threshold = self.impostors.threshold;
        ensure!(
            (-1.0..=1.0).contains(&threshold),
            "--impostor-similarity {threshold}: expected -1 to 1"
        );
        ensure!(
            !self.look_alikes || !(self.balanced || self.balanced_groups),
            "--look-alikes chooses the photos of a batch itself; leave out --balanced and \
             --balanced-groups"
        );
        ensure!(
            !self.mixed || self.device.is_cuda(),
            "--mixed: 16 bits are faster only on a GPU; add --device cuda, or leave out --mixed"
        );
        self.augment.check().context("augmentation")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::face::Architecture;

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
    fn settings_that_older_versions_lack_are_written_only_if_they_are_used() {
        let usual = serde_json::to_string(&Recipe::finetune()).expect("text");
        for name in ["teacher", "impostors", "balanced_groups", "look_alikes", "side_light"] {
            assert!(!usual.contains(name), "{name}");
        }
        let recipe = Recipe {
            teacher: Teacher::Plain,
            impostors: Impostors { weight: 2.0, threshold: 0.3 },
            balanced_groups: true,
            augment: Augment::door(),
            ..Recipe::finetune()
        };
        let text = serde_json::to_string(&recipe).expect("text");
        assert_eq!(serde_json::from_str::<Recipe>(&text).expect("a recipe"), recipe);
        assert!(text.contains("\"teacher\":\"plain\"") && text.contains("side_light"), "{text}");
    }

    #[test]
    fn every_architecture_has_the_steps_that_can_be_frozen() {
        for architecture in [Architecture::MobileFaceNet, Architecture::Reid] {
            assert_eq!(architecture.steps().len(), STEPS);
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
            (
                Recipe { impostors: Impostors { weight: -1.0, threshold: 0.3 }, ..fine() },
                "--impostors -1",
            ),
            (
                Recipe { impostors: Impostors { weight: 1.0, threshold: 2.0 }, ..fine() },
                "--impostor-similarity 2",
            ),
            (Recipe { look_alikes: true, balanced: true, ..fine() }, "--look-alikes"),
            (Recipe { mixed: true, ..fine() }, "--mixed"),
        ] {
            let error = format!("{:#}", recipe.check().expect_err("no recipe"));
            assert!(error.contains(said), "{error}");
        }
    }
}
