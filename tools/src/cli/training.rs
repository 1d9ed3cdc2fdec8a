//! What `finetune` and `train` have in common: options, what they say, and how they
//! are stopped.

use super::AugmentOptions;
use super::import::{Normalized, read_mobilefacenet};
use super::say;
use crate::data::photos;
use crate::device;
use crate::networks::mobilefacenet::MobileFaceNet;
use crate::train::data::TrainingData;
use crate::train::learning_rate::Course;
use crate::train::margin::Margin;
use crate::train::recipe::Recipe;
use crate::train::run_folder::{Epoch, HeadKind, Judged, MODEL, RECORD, Run};
use crate::train::validation::Judge;
use crate::train::{Progress, Start, Trained, train};
use anyhow::{Result, bail, ensure};
use clap::{Args, ValueEnum};
use facelatch::nn::Normalization;
use std::path::{Path, PathBuf};

/// Where faces come from and results go to.
#[derive(Args)]
pub struct Data {
    /// Data set to learn from, as `prepare` and `split` write them
    #[arg(long, value_name = "CSV")]
    train: PathBuf,
    /// Data set to judge epochs on
    #[arg(long, value_name = "CSV")]
    validation: PathBuf,
}

impl Data {
    /// Both in memory; what is odd about them is told.
    pub fn read(&self) -> Result<TrainingData> {
        let data = TrainingData::read(&self.train, &self.validation)?;
        for warning in &data.warnings {
            log::warn!("{warning}");
        }
        Ok(data)
    }
}

/// Where it is kept what comes of a training.
#[derive(Args)]
pub struct Place {
    /// Folder for what comes of it
    #[arg(long, value_name = "RUN")]
    pub out: PathBuf,
    /// Go on from the checkpoint in --out
    #[arg(long)]
    pub resume: bool,
}

/// How batches are normalized.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BatchNorm {
    /// By the statistics the weights came with
    Kept,
    /// Each by itself; the statistics follow
    Measured,
}

/// How to train, where it is not as usual.
#[derive(Args)]
pub struct Options {
    /// Times each photo is shown [default: 10; of train: 50]
    #[arg(long, value_name = "N")]
    pub epochs: Option<usize>,
    /// Photos a step [default: 8; of train: 32]
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// Largest step [default: 0.001; of train: 0.01]
    #[arg(long, value_name = "RATE")]
    pub learning_rate: Option<f64>,
    /// Share of the last step that goes on [default: 0.9; of train: 0.95]
    #[arg(long, value_name = "SHARE")]
    pub momentum: Option<f64>,
    /// What becomes of the step after the warm-up [default: constant; of train: cosine]
    #[arg(long, value_enum)]
    pub schedule: Option<Course>,
    /// Epochs in which the step grows to its size [default: 0; of train: 2, but a tenth
    /// of all at most]
    #[arg(long, value_name = "EPOCHS")]
    pub warm_up: Option<f64>,
    /// With --schedule step: epochs from one fall to the next
    #[arg(long, value_name = "EPOCHS", default_value_t = 10)]
    pub step_epochs: usize,
    /// With --schedule step: what a fall leaves
    #[arg(long, value_name = "FACTOR", default_value_t = 0.1)]
    pub step_factor: f64,
    /// Pull of the weights of layers towards zero
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub weight_decay: f64,
    /// What turns embeddings into people [default: softmax; of train: arcface]
    #[arg(long, value_enum)]
    pub head: Option<HeadKind>,
    /// Radius of the sphere of an angular head's logits [default: 64]
    #[arg(long, value_name = "S")]
    pub scale: Option<f64>,
    /// Margin of arcface in radians [default: 0.5], or of cosface [default: 0.35]
    #[arg(long, value_name = "M")]
    pub margin: Option<f64>,
    /// Margins of combined: times and plus the angle, minus the cosine [default: 1,0.3,0.2]
    #[arg(long, value_name = "M1,M2,M3", value_delimiter = ',')]
    pub margins: Option<Vec<f64>>,
    /// Share of each label that is spread over all people
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub label_smoothing: f64,
    /// Weight of the cosine to the starting weights' embeddings
    #[arg(long, value_name = "WEIGHT", default_value_t = 0.0)]
    pub hold: f64,
    /// Share of the way the judged average goes towards the weights at each step; 1
    /// judges the weights themselves
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    pub average: f64,
    /// Steps of the network, from the picture, that stay as they are: 1 to 21, and 22
    /// leaves only the head to learn
    #[arg(long, value_name = "DEPTH", default_value_t = 0)]
    pub freeze: usize,
    /// Show each person equally often
    #[arg(long)]
    pub balanced: bool,
    /// How batches are normalized [default: kept; from nothing: measured]
    #[arg(long, value_enum)]
    pub batch_norm: Option<BatchNorm>,
    /// Share of all people that a step looks at, those of its photos among them
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    pub negatives: f64,
    /// Shorten slopes that are longer together than this
    #[arg(long, value_name = "LENGTH")]
    pub clip: Option<f64>,
    /// Compute in 16 bits where that is enough; on a GPU alone
    #[arg(long)]
    pub mixed: bool,
    /// What the best epoch is chosen by [default: loss; pairs where validation people
    /// are others than those learned]
    #[arg(long, value_enum)]
    pub judge: Option<Judge>,
    /// End after so many epochs without a better one
    #[arg(long, value_name = "EPOCHS")]
    pub patience: Option<usize>,
    /// Judge points on the way from the start to the best epoch as well, and keep the
    /// best, as 0.25,0.5,0.75
    #[arg(long, value_name = "SHARES", value_delimiter = ',')]
    pub blend: Vec<f64>,
    /// How pictures were normalized when the weights were trained [default: arcface, or
    /// as an earlier training says]
    #[arg(long, value_enum)]
    pub normalization: Option<Normalized>,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    pub seed: i64,
    /// cpu, cuda, or cuda:1
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Threads that make batches ready [default: as many as suit the device]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub threads: usize,
    #[command(flatten)]
    pub augmentation: AugmentOptions,
}

impl Options {
    /// The recipe: the usual one of the command, and what is given otherwise.
    /// `normalization` is that of the weights, where they say.
    pub fn recipe(&self, usual: Recipe, normalization: Option<Normalization>) -> Result<Recipe> {
        let epochs = self.epochs.unwrap_or(usual.epochs);
        let head = self.head.unwrap_or(usual.head);
        let mut schedule = usual.schedule;
        schedule.learning_rate = self.learning_rate.unwrap_or(schedule.learning_rate);
        schedule.course = self.schedule.unwrap_or(schedule.course);
        schedule.warm_up = self.warm_up.unwrap_or(schedule.warm_up.min(epochs as f64 / 10.0));
        schedule.step_epochs = self.step_epochs;
        schedule.step_factor = self.step_factor;
        let given = self.normalization.map(Normalization::from);
        let recipe = Recipe {
            epochs,
            batch: self.batch.unwrap_or(usual.batch),
            schedule,
            momentum: self.momentum.unwrap_or(usual.momentum),
            weight_decay: self.weight_decay,
            head,
            margin: self.margin(head)?,
            smoothing: self.label_smoothing,
            hold: self.hold,
            average: self.average,
            freeze: self.freeze,
            balanced: self.balanced,
            batch_norm: self.batch_norm.map_or(usual.batch_norm, |how| how == BatchNorm::Measured),
            negatives: self.negatives,
            clip: self.clip,
            mixed: self.mixed,
            judge: self.judge,
            patience: self.patience,
            blend: self.blend.clone(),
            augment: self.augmentation.augment()?,
            normalization: given.or(normalization).unwrap_or(usual.normalization),
            seed: self.seed,
            threads: self.threads,
            device: device::parse(&self.device)?,
        };
        recipe.check()?;
        Ok(recipe)
    }

    fn margin(&self, head: HeadKind) -> Result<Margin> {
        let mut margin = Margin::of(head);
        if let Some(scale) = self.scale {
            ensure!(
                head != HeadKind::Softmax,
                "--scale: a softmax head learns the length of its weights; leave it out, or take \
                 --head arcface"
            );
            margin.scale = scale;
        }
        match (head, self.margin) {
            (_, None) => {}
            (HeadKind::Arcface, Some(angle)) => margin.angle = angle,
            (HeadKind::Cosface, Some(cosine)) => margin.cosine = cosine,
            (HeadKind::Softmax | HeadKind::Combined, Some(_)) => {
                bail!("--margin goes with --head arcface or cosface; combined has --margins")
            }
        }
        match (head, self.margins.as_deref()) {
            (_, None) => {}
            (HeadKind::Combined, Some(&[multiplied, angle, cosine])) => {
                (margin.multiplied, margin.angle, margin.cosine) = (multiplied, angle, cosine);
            }
            (HeadKind::Combined, Some(_)) => bail!("--margins: expected three, as 1,0.3,0.2"),
            (_, Some(_)) => bail!("--margins goes with --head combined"),
        }
        Ok(margin)
    }
}

/// Weights, imported or of an earlier training, and how their pictures were normalized
/// where they say so.
pub fn read_weights(path: &Path) -> Result<(MobileFaceNet, Option<Normalization>)> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let run = if path.is_dir() {
        Some(path)
    } else if path.ends_with(MODEL) && folder.join(RECORD).exists() {
        Some(folder)
    } else {
        None
    };
    match run {
        Some(folder) => {
            let Run { record, network, .. } = Run::open(folder)?;
            Ok((network, Some(record.normalization)))
        }
        None => Ok((read_mobilefacenet(path)?, None)),
    }
}

/// Trains, saying how it goes.
pub fn follow(start: Start, data: &TrainingData, recipe: &Recipe, out: &Path) -> Result<()> {
    let (photos, people) = (data.train.crops.len(), people(&data.people));
    let same = if data.same_people { "the same people" } else { "others" };
    say(&format!(
        "{photos} photos of {people} people to learn from, {} of {same} to judge on",
        data.validation.crops.len()
    ));
    let bar = photos::progress(photos * recipe.epochs, "training");
    let trained = train(start, data, recipe, Some(out), |progress| match progress {
        Progress::Resumed { epoch, step } => {
            bar.set_position(((epoch - 1) * photos + step * recipe.batch) as u64);
            bar.suspend(|| say(&format!("goes on in epoch {epoch} after {step} steps")));
        }
        Progress::Step(step) => {
            bar.inc(step.photos as u64);
            bar.set_message(format!(
                "epoch {}  loss {:.3}  {:.1} % right  {:.0} images/s  {:.0} % waiting",
                step.epoch,
                step.loss,
                step.accuracy * 100.0,
                step.images_per_second,
                step.waited * 100.0
            ));
        }
        Progress::Judged(epoch) => bar.suspend(|| say(&told(epoch))),
        Progress::Blended(blend) => bar.suspend(|| {
            say(&format!(
                "{:4.0} % of the way  {}",
                blend.share * 100.0,
                figures(&blend.validation)
            ))
        }),
        Progress::Ended { epoch } => {
            bar.suspend(|| say(&format!("no better epoch for a while; ended after epoch {epoch}")));
        }
        Progress::Unsaved(fault) => bar.suspend(|| log::warn!("{fault}; goes on without")),
    });
    bar.finish_and_clear();
    let Trained { best_epoch, better_than_start, blend, validation, .. } = trained?;
    let way =
        if blend < 1.0 { format!("{:.0} % of the way to ", blend * 100.0) } else { String::new() };
    let better = if better_than_start { "" } else { ", but no better than the start" };
    say(&format!("{way}epoch {best_epoch} is the best{better}: {}", figures(&validation).trim()));
    say(&format!("{}", out.join(MODEL).display()));
    Ok(())
}

fn people(names: &[String]) -> usize {
    names.iter().filter(|name| !name.is_empty()).count()
}

fn told(epoch: &Epoch) -> String {
    let judged = figures(&epoch.validation);
    if epoch.number == 0 {
        return format!("start     {:33}{judged}", "");
    }
    let hold = epoch.hold.map(|hold| format!("  cosine to start {hold:.4}")).unwrap_or_default();
    format!(
        "epoch {:3}  loss {:7.3}  {:5.1} % right{hold}  {judged}  {:.0} images/s, {:.1} % waiting",
        epoch.number,
        epoch.loss,
        epoch.accuracy * 100.0,
        epoch.images_per_second,
        epoch.waited * 100.0
    )
}

fn figures(judged: &Judged) -> String {
    let mut parts = Vec::new();
    if let Some(loss) = judged.loss {
        parts.push(format!("validation loss {loss:.4}"));
    }
    if let Some(accuracy) = judged.accuracy {
        parts.push(format!("{:.1} % right", accuracy * 100.0));
    }
    if let Some(rate) = judged.true_accept_rate {
        parts.push(format!("validation TAR {:.2} %", rate * 100.0));
    }
    if let Some(rate) = judged.equal_error_rate {
        parts.push(format!("EER {:.2} %", rate * 100.0));
    }
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    fn recipe(usual: Recipe, arguments: &[&str]) -> Result<Recipe> {
        let arguments = std::iter::once(&"command").chain(arguments);
        Command::try_parse_from(arguments)?.options.recipe(usual, None)
    }

    #[test]
    fn without_options_the_recipe_is_the_usual_one() {
        assert_eq!(recipe(Recipe::finetune(), &[]).expect("a recipe"), {
            let mut usual = Recipe::finetune();
            usual.schedule.step_epochs = 10;
            usual
        });
        let train = recipe(Recipe::train(), &[]).expect("a recipe");
        assert_eq!((train.epochs, train.batch, train.margin), (50, 32, Margin::ARCFACE));
        assert_eq!(train.schedule.warm_up, 2.0);
        let short = recipe(Recipe::train(), &["--epochs", "1"]).expect("a recipe");
        assert_eq!(short.schedule.warm_up, 0.1);
    }

    #[test]
    fn margins_go_with_their_heads() {
        let with = |arguments: &[&str]| recipe(Recipe::finetune(), arguments);
        let margin = |arguments: &[&str]| with(arguments).expect("a recipe").margin;
        assert_eq!(margin(&["--head", "arcface", "--margin", "0.3"]).angle, 0.3);
        assert_eq!(margin(&["--head", "cosface", "--margin", "0.3", "--scale", "30"]).cosine, 0.3);
        let combined = margin(&["--head", "combined", "--margins", "0.9,0.4,0.15"]);
        assert_eq!((combined.multiplied, combined.angle, combined.cosine), (0.9, 0.4, 0.15));
        for (arguments, said) in [
            (&["--scale", "64"][..], "--head arcface"),
            (&["--margin", "0.3"], "--margin goes with"),
            (&["--head", "arcface", "--margins", "1,0,0"], "--margins goes with"),
            (&["--head", "combined", "--margins", "1,0"], "expected three"),
            (&["--head", "arcface", "--margin", "2"], "angle margin is 2"),
            (&["--device", "tpu"], "expected cpu, cuda"),
            (&["--mixed"], "faster only on a GPU"),
        ] {
            let error = format!("{:#}", with(arguments).expect_err("refused"));
            assert!(error.contains(said), "{error}");
        }
    }
}
