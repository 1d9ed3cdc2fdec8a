//! The training loop, both from scratch and from weights that already know faces.
//!
//! Each epoch shows the photos in its own order, is judged on photos that are never
//! trained on, and ends with a checkpoint. All random numbers follow from the seed and
//! the position, so an interrupted training continues bit-exactly. On a CPU the same seed
//! and data give the same weights on the same machine. On a GPU they may not, because
//! cuDNN selects its algorithms and some of them add in varying order.

pub mod bench;
pub mod checkpoint;
pub mod data;
mod head;
pub mod learning_rate;
pub mod loader;
pub mod margin;
pub mod memory;
pub mod progress;
pub mod recipe;
pub mod run_folder;
pub mod sampler;
pub mod search;
pub mod sgd;
mod step;
mod tensors;
pub mod torch_net;
mod torch_reid;
pub mod validation;

use crate::networks::face::{Architecture, FaceNetwork};
use crate::networks::mobilefacenet::MobileFaceNet;
use crate::weights::Tensors;
use anyhow::{Context, Result, bail, ensure};
use checkpoint::{Checkpoint, Origin, Position, Sums};
use data::TrainingData;
use head::{at_centers, by_chance, views};
use loader::{Loader, LoaderSettings};
use margin::Margin;
pub use progress::{Diverged, Interrupted, Progress, Step};
pub use recipe::{Recipe, Teacher};
use run_folder::{
    Blend, DataDigests, Epoch, FORMAT, Head, Judged, MODEL, RECORD, Run, RunRecord, Versions,
    digest,
};
use sampler::{Order, Purpose, chance};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use step::{Learner, approach};
use tensors::unit_rows;
use torch_net::Student;
use validation::{Judge, Validation};

/// Where a training starts, and how it is interrupted.
pub struct Start {
    /// The starting weights.
    pub network: FaceNetwork,
    /// Whether the weights already know faces. If so, a new head starts at the people's
    /// centres, and embeddings can be held to those of the start and weights blended with
    /// it.
    pub trained: bool,
    /// Whether to continue from the checkpoint in the run folder.
    pub resume: bool,
    /// Set from outside to interrupt the training. After the current step a checkpoint is
    /// written and [`Interrupted`] returned.
    pub stop: Arc<AtomicBool>,
}

impl Start {
    /// Starts from weights that know faces.
    pub fn from_weights(network: impl Into<FaceNetwork>) -> Self {
        Self { network: network.into(), trained: true, resume: false, stop: Arc::default() }
    }

    /// Starts from random weights of MobileFaceNet.
    pub fn from_nothing(embedding_size: usize, seed: i64) -> Self {
        let mut chance = chance(seed, Purpose::Network, 0, 0);
        let network = MobileFaceNet::random(embedding_size, &mut chance);
        Self { network: network.into(), trained: false, resume: false, stop: Arc::default() }
    }
}

/// Result of a training.
#[derive(Debug)]
pub struct Trained {
    /// Network of the best epoch or the best blend.
    pub network: FaceNetwork,
    /// Its head, on the CPU.
    pub head: Head,
    /// Figures of all epochs, the start first.
    pub epochs: Vec<Epoch>,
    /// Number of the best epoch; never 0.
    pub best_epoch: usize,
    /// Figures of the returned network on the validation photos.
    pub validation: Judged,
    /// Whether these are better than those of the start.
    pub better_than_start: bool,
    /// The blends that were judged.
    pub blends: Vec<Blend>,
    /// Share of the way from the start to the best epoch at which the weights lie, 0..=1.
    pub blend: f64,
}

/// Trains a network. If there is a run folder, the result so far and a checkpoint are
/// written to it after each epoch. Fails if the recipe is invalid, if the folder already
/// holds a training that is not to be resumed, with [`Interrupted`] if it is stopped, and
/// with [`Diverged`] if the loss is no longer finite.
pub fn train(
    start: Start,
    data: &TrainingData,
    recipe: &Recipe,
    run_folder: Option<&Path>,
    mut progress: impl FnMut(&Progress),
) -> Result<Trained> {
    recipe.check()?;
    if !start.trained {
        let given = recipe.hold > 0.0 || !recipe.blend.is_empty() || recipe.look_alikes;
        ensure!(
            !given,
            "--hold, --blend and --look-alikes need trained weights to start from; give --weights"
        );
    }
    if let Some(folder) = run_folder.filter(|_| !start.resume) {
        ensure!(
            !Checkpoint::exists(folder) && !folder.join(RECORD).exists(),
            "{}: holds a training already; continue it with --resume, or name another folder",
            folder.display()
        );
    }
    let mut training = Training::new(start, data, recipe, run_folder)?;
    training.begin(&mut progress)?;
    training.run(&mut progress)?;
    training.finish(&mut progress)
}

struct Training<'a> {
    start: Start,
    data: &'a TrainingData,
    recipe: &'a Recipe,
    folder: Option<&'a Path>,
    learner: Learner<'a>,
    validation: Validation<'a>,
    first_head: Head,
    origin: Origin,
    position: Position,
    best: Option<(FaceNetwork, Head)>,
    /// SHA-256 of the starting weights as they were given.
    start_digest: String,
    order: Order,
}

impl<'a> Training<'a> {
    fn new(
        mut start: Start,
        data: &'a TrainingData,
        recipe: &'a Recipe,
        folder: Option<&'a Path>,
    ) -> Result<Self> {
        let architecture = start.network.architecture();
        data.check_side(architecture.alignment().side)?;
        ensure!(
            !recipe.batch_norm || architecture == Architecture::MobileFaceNet,
            "--batch-norm measured: {architecture} has no batch normalization; leave it out"
        );
        let start_digest = digest(&start.network)?;
        if recipe.batch_norm {
            start.network = start.network.measurable();
        }
        let device = recipe.device;
        let mut student = Student::new(&start.network, device);
        let known = start.trained.then(|| views(&student, data, recipe));
        let head = match &known {
            Some(known) => at_centers(known, data, recipe),
            None => by_chance(start.network.embedding_size(), data, recipe),
        };
        let order = Order::new(data, recipe, known.as_ref())?;
        let taught = known.filter(|_| recipe.hold > 0.0);
        let taught = taught.map(|[plain, mirrored]| match recipe.teacher {
            Teacher::Plain => unit_rows(&plain),
            Teacher::Flips => unit_rows(&(unit_rows(&plain) + unit_rows(&mirrored))),
        });
        student.freeze(recipe.freeze)?;
        let averaged = (recipe.average < 1.0)
            .then(|| (Student::new(&start.network, device), head.copy_to(device)));
        let first_head = head.copy_to(device);
        let origin = Origin {
            recipe: serde_json::to_string(recipe)?,
            train: data.train.digest.clone(),
            validation: data.validation.digest.clone(),
            weights: digest(&start.network)?,
        };
        let otherwise = if data.same_people { Judge::Loss } else { Judge::Pairs };
        let judge = recipe.judge.unwrap_or(otherwise);
        if judge != Judge::Pairs && !data.same_people {
            bail!(
                "the validation people are not those of the training data, so loss and accuracy \
                 are meaningless; judge by pairs"
            );
        }
        Ok(Self {
            start,
            data,
            recipe,
            folder,
            learner: Learner::new(recipe, student, head, averaged, taught),
            validation: Validation {
                faces: &data.validation,
                judge,
                normalization: &recipe.normalization,
                device,
            },
            first_head,
            origin,
            position: Position { epoch: 1, ..Position::default() },
            best: None,
            start_digest,
            order,
        })
    }

    /// Judges the start, or restores a checkpoint.
    fn begin(&mut self, told: &mut impl FnMut(&Progress)) -> Result<()> {
        if self.start.resume {
            let folder = self.folder.context("resuming needs the folder of a run")?;
            self.restore(&Checkpoint::read(folder)?)
                .with_context(|| format!("cannot resume in {}", folder.display()))?;
            let Position { epoch, step, .. } = self.position;
            told(&Progress::Resumed { epoch, step });
            return Ok(());
        }
        let (student, head) = self.learner.kept();
        let validation = self.validation.figures(student, head)?;
        let epoch = Epoch { validation, ..Epoch::default() };
        told(&Progress::Judged(epoch.clone()));
        self.position.epochs.push(epoch);
        self.position.loss_scale = self.learner.loss_scale;
        Ok(())
    }

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let Position { epoch, best_epoch, epochs, .. } = &checkpoint.position;
        ensure!(
            *epoch == epochs.len() && best_epoch < epoch,
            "the checkpoint is damaged: epoch {epoch} of {} with {best_epoch} as the best",
            epochs.len()
        );
        let learner = &mut self.learner;
        learner.student.restore(&checkpoint.group("network"))?;
        learner.head = checkpoint.take_head("head", &learner.head)?;
        checkpoint.check(&self.origin)?;
        learner.sgd.restore(&checkpoint.group("momentum"))?;
        if let Some((student, head)) = &mut learner.averaged {
            student.restore(&checkpoint.group("average"))?;
            *head = checkpoint.take_head("average-head", head)?;
        }
        learner.loss_scale = checkpoint.position.loss_scale;
        learner.steady = checkpoint.position.steady;
        if checkpoint.position.best_epoch > 0 {
            let tensors = checkpoint.group("best");
            let start = &self.start.network;
            let network =
                FaceNetwork::from_tensors(start.architecture(), tensors, start.epsilon())?;
            self.best = Some((network, checkpoint.take_head("best-head", &self.first_head)?));
        }
        self.position = checkpoint.position.clone();
        Ok(())
    }

    /// Writes a checkpoint.
    fn save(&mut self, folder: &Path) -> Result<()> {
        let learner = &self.learner;
        self.position.loss_scale = learner.loss_scale;
        self.position.steady = learner.steady;
        let mut checkpoint = Checkpoint {
            origin: self.origin.clone(),
            position: self.position.clone(),
            tensors: Tensors::new(),
        };
        checkpoint.put("network", learner.student.weights()?.tensors().clone());
        checkpoint.put("head", learner.head.tensors()?);
        checkpoint.put("momentum", learner.sgd.tensors()?);
        if let Some((student, head)) = &learner.averaged {
            checkpoint.put("average", student.weights()?.tensors().clone());
            checkpoint.put("average-head", head.tensors()?);
        }
        if let Some((network, head)) = &self.best {
            checkpoint.put("best", network.tensors().clone());
            checkpoint.put("best-head", head.tensors()?);
        }
        checkpoint.write(folder)
    }

    /// Runs the remaining epochs.
    fn run(&mut self, told: &mut impl FnMut(&Progress)) -> Result<()> {
        while self.position.epoch <= self.recipe.epochs {
            let done = self.position.epoch - 1;
            let waited = done.saturating_sub(self.position.best_epoch);
            if self.recipe.patience.is_some_and(|patience| done > 0 && waited >= patience) {
                told(&Progress::Ended { epoch: done });
                break;
            }
            let epoch = self.epoch(told)?;
            let number = epoch.number;
            told(&Progress::Judged(epoch.clone()));
            let value = epoch.validation.value;
            if !value.is_finite() {
                let cure = self.cure();
                let said = format!("epoch {number}: the validation value is not finite; {cure}");
                return Err(Diverged(said).into());
            }
            let best = &self.position.epochs[self.position.best_epoch];
            if self.best.is_none() || value > best.validation.value {
                let (student, head) = self.learner.kept();
                self.best = Some((student.weights()?, head.copy_to(tch::Device::Cpu)));
                self.position.best_epoch = number;
            }
            self.position.epochs.push(epoch);
            self.position.epoch += 1;
            self.position.step = 0;
            self.position.sums = Sums::default();
            if let Some(folder) = self.folder {
                // Writes the run first, because the checkpoint refers to it.
                let saved = self.outcome(1.0, vec![]).and_then(|outcome| {
                    self.write(folder, &outcome).and_then(|()| self.save(folder))
                });
                if let Err(error) = saved {
                    told(&Progress::Unsaved(format!("{error:#}")));
                }
            }
        }
        Ok(())
    }

    /// Runs the rest of the current epoch.
    fn epoch(&mut self, told: &mut impl FnMut(&Progress)) -> Result<Epoch> {
        let (recipe, number) = (self.recipe, self.position.epoch);
        let order = self.order(number);
        let mut loader = Loader::new(
            Arc::clone(&self.data.train.crops),
            Arc::clone(&self.data.train.labels),
            order,
            LoaderSettings {
                batch: recipe.batch,
                augment: recipe.augment,
                side: self.start.network.architecture().alignment().side,
                channels: self.start.network.architecture().channels(),
                normalization: recipe.normalization,
                seed: recipe.seed,
                epoch: number,
                threads: match recipe.threads {
                    0 => loader::threads(recipe.device),
                    threads => threads,
                },
            },
        );
        let steps = loader.batches();
        ensure!(
            self.position.step <= steps,
            "the checkpoint is damaged: {} of {steps} steps done",
            self.position.step
        );
        // Skips the batches of steps that are already done.
        for _ in 0..self.position.step {
            loader.next()?;
        }
        let (before, skipped) = (self.position.sums, loader.waited());
        let began = Instant::now();
        while let Some(batch) = loader.next()? {
            let step = self.position.step;
            let rate = recipe.schedule.at((number - 1) * steps + step, steps, recipe.epochs);
            let outcome = self.learner.step(&batch, rate, (number, step))?;
            if !outcome.loss.is_finite() {
                let said = format!(
                    "epoch {number}, batch {} of {steps}: the loss is not finite; the batch \
                     holds {}; {}",
                    step + 1,
                    self.data.train.named(&batch.indices),
                    self.cure()
                );
                return Err(Diverged(said).into());
            }
            let photos = batch.indices.len();
            let sums = &mut self.position.sums;
            sums.seen += photos;
            sums.right += outcome.right;
            sums.loss += outcome.loss * photos as f64;
            sums.hold += outcome.hold * photos as f64;
            sums.seconds = before.seconds + began.elapsed().as_secs_f64();
            sums.waited = before.waited + (loader.waited() - skipped).as_secs_f64();
            self.position.step += 1;
            told(&Progress::Step(Step::of(sums, number, step + 1, steps, photos)));
            if self.start.stop.load(Ordering::Relaxed) {
                return Err(self.interrupted(steps)?.into());
            }
        }
        let sums = self.position.sums;
        let (student, head) = self.learner.kept();
        let step = Step::of(&sums, number, steps, steps, 0);
        Ok(Epoch {
            number,
            learning_rate: recipe.schedule.at(
                (number * steps).saturating_sub(1),
                steps,
                recipe.epochs,
            ),
            loss: step.loss,
            accuracy: step.accuracy,
            hold: (recipe.hold > 0.0).then(|| sums.hold / sums.seen.max(1) as f64),
            validation: self.validation.figures(student, head)?,
            seconds: sums.seconds,
            images_per_second: step.images_per_second,
            waited: step.waited,
        })
    }

    /// The photos of an epoch, in order.
    fn order(&self, epoch: usize) -> Vec<usize> {
        let mut chance = chance(self.recipe.seed, Purpose::Order, epoch, 0);
        let mut order = self.order.draw(&self.data.train.labels, self.recipe.batch, &mut chance);
        // A single photo has no variance to normalize by.
        if self.recipe.batch_norm && order.len() % self.recipe.batch == 1 {
            order.pop();
        }
        order
    }

    fn interrupted(&mut self, steps: usize) -> Result<Interrupted> {
        let Position { epoch, step, .. } = self.position;
        let Some(folder) = self.folder else { return Ok(Interrupted::Lost { epoch }) };
        self.save(folder).with_context(|| {
            format!("interrupted in epoch {epoch}, and the checkpoint could not be written")
        })?;
        Ok(Interrupted::Saved { epoch, step, steps, folder: folder.to_owned() })
    }

    /// What to do about a loss that is not finite.
    fn cure(&self) -> String {
        let cure = "use a smaller --learning-rate, a --warm-up, or --clip";
        match self.folder.filter(|folder| Checkpoint::exists(folder)) {
            Some(folder) => format!(
                "{cure}; {} keeps the result of epoch {}",
                folder.display(),
                self.position.epoch - 1
            ),
            None => cure.to_owned(),
        }
    }

    /// Judges the blends and writes the best result.
    fn finish(&mut self, told: &mut impl FnMut(&Progress)) -> Result<Trained> {
        let (network, head) = self.best.as_ref().context("no epoch was run")?;
        let device = self.recipe.device;
        let best = (Student::new(network, device), head.copy_to(device));
        let mut chosen = (1.0, self.position.epochs[self.position.best_epoch].validation.value);
        let mut blends = Vec::new();
        for share in &self.recipe.blend {
            let (student, head) = self.blended(&best, *share);
            let blend =
                Blend { share: *share, validation: self.validation.figures(&student, &head)? };
            told(&Progress::Blended(blend));
            if blend.validation.value > chosen.1 {
                chosen = (blend.share, blend.validation.value);
            }
            blends.push(blend);
        }
        if chosen.0 < 1.0 {
            let (student, head) = self.blended(&best, chosen.0);
            self.best = Some((student.weights()?, head.copy_to(tch::Device::Cpu)));
        }
        let outcome = self.outcome(chosen.0, blends)?;
        if let Some(folder) = self.folder {
            self.write(folder, &outcome)?;
        }
        Ok(outcome)
    }

    /// A blend: `share` of the way from the start to `best`.
    fn blended(&self, best: &(Student, Head), share: f64) -> (Student, Head) {
        let device = self.recipe.device;
        let mut student = Student::new(&self.start.network, device);
        student.approach(&best.0, share);
        let mut head = self.first_head.copy_to(device);
        approach(&mut head, &best.1, share);
        (student, head)
    }

    fn outcome(&self, blend: f64, blends: Vec<Blend>) -> Result<Trained> {
        let (network, head) = self.best.as_ref().context("no epoch was run")?;
        let Position { epochs, best_epoch, .. } = self.position.clone();
        let judged = blends.iter().find(|judged| judged.share == blend);
        let validation = judged.map_or(epochs[best_epoch].validation, |judged| judged.validation);
        Ok(Trained {
            network: network.clone(),
            head: head.copy_to(tch::Device::Cpu),
            better_than_start: validation.value > epochs[0].validation.value,
            validation,
            epochs,
            best_epoch,
            blends,
            blend,
        })
    }

    fn write(&self, folder: &Path, trained: &Trained) -> Result<()> {
        let recipe = self.recipe;
        let Margin { scale, multiplied, angle, cosine } = recipe.margin;
        let mut settings = serde_json::to_value(recipe)?;
        settings["device"] = crate::device::name(recipe.device).into();
        settings["judge"] = serde_json::to_value(self.validation.judge)?;
        settings["pretrained"] = self.start.trained.into();
        let record = RunRecord {
            format: FORMAT,
            command: std::env::args().collect(),
            network: trained.network.architecture(),
            start: self.start_digest.clone(),
            head: recipe.head,
            scale,
            margins: [multiplied, angle, cosine],
            embedding_size: trained.network.embedding_size(),
            epsilon: trained.network.epsilon(),
            normalization: recipe.normalization,
            people: self.data.people.clone(),
            seed: recipe.seed,
            data: DataDigests {
                train: self.data.train.digest.clone(),
                validation: self.data.validation.digest.clone(),
            },
            versions: Versions::default(),
            settings,
            epochs: trained.epochs.clone(),
            best_epoch: trained.best_epoch,
            better_than_start: trained.better_than_start,
            blends: trained.blends.clone(),
            blend: trained.blend,
        };
        let run = Run {
            folder: folder.to_owned(),
            record,
            network: trained.network.clone(),
            head: trained.head.copy_to(tch::Device::Cpu),
        };
        run.write().with_context(|| format!("{MODEL} could not be written"))
    }
}

#[cfg(test)]
mod tests;
