//! What `finetune`, `train` and `search` share: options, reading of weights, and progress
//! messages.

use super::AugmentOptions;
use super::import::{Normalized, read_mobilefacenet, read_reid};
use super::say;
use crate::data::photos;
use crate::device;
use crate::networks::face::{Architecture, FaceNetwork};
use crate::networks::reid::{self, Reid};
use crate::train::data::TrainingData;
use crate::train::learning_rate::Course;
use crate::train::margin::Margin;
use crate::train::recipe::{Impostors, Recipe, Teacher};
use crate::train::run_folder::{Epoch, HeadKind, Judged, MODEL, RECORD, Run};
use crate::train::validation::Judge;
use crate::train::{Progress, Start, Trained, train};
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use facelatch::files::{self as input, LARGEST};
use facelatch::models::{MANIFEST, Models};
use facelatch::nn::Normalization;
use std::path::{Path, PathBuf};

/// Training and validation set.
#[derive(Args)]
pub struct Data {
    /// Training set: CSV as `prepare` and `split` write it
    #[arg(long, value_name = "CSV")]
    train: PathBuf,
    /// Validation set: CSV on which each epoch is evaluated
    #[arg(long, value_name = "CSV")]
    validation: PathBuf,
}

impl Data {
    /// Reads both sets into memory and logs warnings about them. Their faces must be aligned
    /// for the network.
    pub fn read(&self, network: Architecture) -> Result<TrainingData> {
        let data = TrainingData::read(&self.train, &self.validation, &network.alignment())?;
        for warning in &data.warnings {
            log::warn!("{warning}");
        }
        Ok(data)
    }
}

/// Output folder and resumption of a training run.
#[derive(Args)]
pub struct Place {
    /// Output folder of the training run: model.safetensors, run.json and the checkpoint
    #[arg(long, value_name = "RUN")]
    pub out: PathBuf,
    /// Resume from the checkpoint in --out
    #[arg(long)]
    pub resume: bool,
}

/// Statistics used by batch normalization during training.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BatchNorm {
    /// The running statistics stored with the weights, which stay unchanged
    Kept,
    /// The statistics of each batch; the running statistics are updated
    Measured,
}

/// Hyperparameters that differ from the command's defaults. The defaults in brackets are
/// those of `finetune` and `search`; `train` has its own where one is given.
#[derive(Args)]
pub struct Options {
    /// Epochs: passes over the training set [default: 10; train: 50]
    #[arg(long, value_name = "N")]
    pub epochs: Option<usize>,
    /// Batch size: photos per step [default: 8; train: 32]
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// Learning rate at its peak, after the warm-up [default: 0.001; train: 0.01]
    #[arg(long, value_name = "RATE")]
    pub learning_rate: Option<f64>,
    /// SGD momentum, 0 up to but not including 1 [default: 0.9; train: 0.95]
    #[arg(long, value_name = "SHARE")]
    pub momentum: Option<f64>,
    /// Learning-rate schedule after the warm-up [default: constant; train: cosine]
    #[arg(long, value_enum)]
    pub schedule: Option<Course>,
    /// Linear warm-up of the learning rate, in epochs; may be fractional [default: 0;
    /// train: 2, but at most a tenth of --epochs]
    #[arg(long, value_name = "EPOCHS")]
    pub warm_up: Option<f64>,
    /// With --schedule step: epochs between two drops of the learning rate
    #[arg(long, value_name = "EPOCHS", default_value_t = 10)]
    pub step_epochs: usize,
    /// With --schedule step: factor applied to the learning rate at each drop, 0 to 1
    #[arg(long, value_name = "FACTOR", default_value_t = 0.1)]
    pub step_factor: f64,
    /// Weight decay (L2), from 0; applies to weight matrices and kernels, not to biases,
    /// batch normalization or PReLU
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub weight_decay: f64,
    /// Classification head that is trained on the embeddings [default: softmax; train:
    /// arcface]
    #[arg(long, value_enum)]
    pub head: Option<HeadKind>,
    /// Scale s of the logits of arcface, cosface and combined, above 0 [default: 64]
    #[arg(long, value_name = "S")]
    pub scale: Option<f64>,
    /// Margin, 0 to 1: added to the angle, in radians, by arcface [default: 0.5];
    /// subtracted from the cosine by cosface [default: 0.35]
    #[arg(long, value_name = "M")]
    pub margin: Option<f64>,
    /// Margins of --head combined, s * (cos(M1 * angle + M2) - M3): M1 0.5 to 2, M2 0 to 1
    /// in radians, M3 0 to 1 [default: 1,0.3,0.2]
    #[arg(long, value_name = "M1,M2,M3", value_delimiter = ',')]
    pub margins: Option<Vec<f64>>,
    /// Label smoothing: share of each label spread evenly over all people, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub label_smoothing: f64,
    /// Distillation weight, from 0: adds WEIGHT * (1 - cosine to the embedding of the
    /// starting weights) to the loss, so that embeddings stay near those of the starting
    /// weights
    #[arg(long, value_name = "WEIGHT", default_value_t = 0.0)]
    pub hold: f64,
    /// With --hold: what the starting weights see of each training photo
    #[arg(long, value_enum, default_value_t = Teacher::Flips)]
    pub teacher: Teacher,
    /// Weight of a loss term for impostors, from 0: adds WEIGHT * mean(max(0, similarity -
    /// T)) over the pairs of different people in a batch
    #[arg(long, value_name = "WEIGHT", default_value_t = 0.0)]
    pub impostors: f64,
    /// Similarity T from which --impostors counts a pair, -1 to 1
    #[arg(long, value_name = "T", default_value_t = 0.3)]
    pub impostor_similarity: f64,
    /// Exponential moving average (EMA) of the weights: share of the current weights that
    /// enters the average per step, 0 to 1. The average is what is evaluated and saved; 1
    /// turns averaging off
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    pub average: f64,
    /// Freeze the first DEPTH blocks of the network, counted from the input: 0 to 19; 20
    /// also freezes the embedding layer, so that only the head is trained
    #[arg(long, value_name = "DEPTH", default_value_t = 0)]
    pub freeze: usize,
    /// Balanced sampling: show each person equally often
    #[arg(long)]
    pub balanced: bool,
    /// Balanced sampling by group: show photos of each group of people equally often. The
    /// column group of the training set names the groups
    #[arg(long)]
    pub balanced_groups: bool,
    /// Fill each batch with people who resemble one another for the starting weights
    #[arg(long)]
    pub look_alikes: bool,
    /// Statistics for batch normalization [default: kept; train from scratch: measured]
    #[arg(long, value_enum)]
    pub batch_norm: Option<BatchNorm>,
    /// Share of all people that a step compares with, 0 to 1 (Partial FC); the people of
    /// the batch are always included
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    pub negatives: f64,
    /// Gradient clipping: limit of the global L2 norm, from 0 [default: no clipping]
    #[arg(long, value_name = "LENGTH")]
    pub clip: Option<f64>,
    /// Mixed precision: compute in 16 bits where that is accurate enough; needs a GPU
    #[arg(long)]
    pub mixed: bool,
    /// Validation metric that selects the best epoch [default: loss; pairs if the
    /// validation set has other people than the training set]
    #[arg(long, value_enum)]
    pub judge: Option<Judge>,
    /// Early stopping: end after this number of epochs without a better one [default: off]
    #[arg(long, value_name = "EPOCHS")]
    pub patience: Option<usize>,
    /// Weight interpolation: after training, also evaluate weights at these shares of the
    /// way from the start to the best epoch and keep the best of all. Above 0 and up to 1,
    /// such as 0.25,0.5,0.75
    #[arg(long, value_name = "SHARES", value_delimiter = ',')]
    pub blend: Vec<f64>,
    /// Input normalization that MobileFaceNet's weights were trained with [default: as
    /// recorded by an earlier training run, otherwise arcface]
    #[arg(long, value_enum)]
    pub normalization: Option<Normalized>,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    pub seed: i64,
    /// Device to compute on: cpu, cuda or cuda:1
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Threads that prepare batches [default: chosen for the device]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub threads: usize,
    #[command(flatten)]
    pub augmentation: AugmentOptions,
}

impl Options {
    /// The command's `usual` recipe with the options that were given, for these starting
    /// weights. `--normalization` overrides the normalization recorded with them.
    ///
    /// # Errors
    /// If an option is out of range or options contradict each other.
    pub fn recipe(&self, usual: Recipe, start: &Weights) -> Result<Recipe> {
        let network = start.network;
        ensure!(
            self.normalization.is_none() || network == Architecture::MobileFaceNet,
            "--normalization: {network} normalizes pictures itself; leave it out"
        );
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
            teacher: self.teacher,
            impostors: Impostors { weight: self.impostors, threshold: self.threshold() },
            average: self.average,
            freeze: self.freeze,
            balanced: self.balanced,
            balanced_groups: self.balanced_groups,
            look_alikes: self.look_alikes,
            batch_norm: self.batch_norm.map_or(usual.batch_norm, |how| how == BatchNorm::Measured),
            negatives: self.negatives,
            clip: self.clip,
            mixed: self.mixed,
            judge: self.judge,
            patience: self.patience,
            blend: self.blend.clone(),
            augment: self.augmentation.augment()?,
            normalization: given.or(start.normalization).unwrap_or(usual.normalization),
            seed: self.seed,
            threads: self.threads,
            device: device::parse(&self.device)?,
        };
        recipe.check()?;
        Ok(recipe)
    }

    /// Without a weight the threshold has no influence and is not recorded.
    fn threshold(&self) -> f64 {
        if self.impostors == 0.0 {
            Impostors::default().threshold
        } else {
            self.impostor_similarity
        }
    }

    fn margin(&self, head: HeadKind) -> Result<Margin> {
        let mut margin = Margin::of(head);
        if let Some(scale) = self.scale {
            ensure!(
                head != HeadKind::Softmax,
                "--scale: a softmax head learns the scale of its logits; leave --scale out, or use \
                 --head arcface"
            );
            margin.scale = scale;
        }
        match (head, self.margin) {
            (_, None) => {}
            (HeadKind::Arcface, Some(angle)) => margin.angle = angle,
            (HeadKind::Cosface, Some(cosine)) => margin.cosine = cosine,
            (HeadKind::Softmax | HeadKind::Combined, Some(_)) => {
                bail!("--margin needs --head arcface or cosface; --head combined takes --margins")
            }
        }
        match (head, self.margins.as_deref()) {
            (_, None) => {}
            (HeadKind::Combined, Some(&[multiplied, angle, cosine])) => {
                (margin.multiplied, margin.angle, margin.cosine) = (multiplied, angle, cosine);
            }
            (HeadKind::Combined, Some(_)) => {
                bail!("--margins: expected three numbers, such as 1,0.3,0.2")
            }
            (_, Some(_)) => bail!("--margins needs --head combined"),
        }
        Ok(margin)
    }
}

/// What the options of a training depend on in its starting weights.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weights {
    /// Which network they belong to.
    pub network: Architecture,
    /// Normalization of the input, if it is recorded with the weights or fixed by the
    /// network.
    pub normalization: Option<Normalization>,
}

/// Reads weights of either network: from a file that `import mobilefacenet` takes, from
/// face-reidentification-retail-0095 as a floating-point ONNX file, as OpenVINO's .xml or in
/// the folder of a model set, or from the folder or `model.safetensors` of an earlier
/// training run.
///
/// # Errors
/// If there are no such weights. A set with MobileFaceNet is refused, because its ONNX file
/// no longer has the batch normalization.
pub fn read_weights(path: &Path) -> Result<(FaceNetwork, Weights)> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let run = if path.is_dir() && !path.join(MANIFEST).exists() {
        Some(path)
    } else if path.ends_with(MODEL) && folder.join(RECORD).exists() {
        Some(folder)
    } else {
        None
    };
    if let Some(folder) = run {
        let Run { record, network, .. } = Run::open(folder)?;
        let weights =
            Weights { network: record.network, normalization: Some(record.normalization) };
        return Ok((network, weights));
    }
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let network = if path.is_dir() {
        let models = Models::open(path)?;
        let file = &models.recognizer()?.file;
        Reid::from_onnx(&file.bytes).with_context(|| {
            format!(
                "{}: training can start from the set of {}; of MobileFaceNet, give the file that \
                 was imported or the folder of the training run",
                file.name,
                reid::NAME
            )
        })?
    } else if ending == "onnx" {
        let bytes = input::read(path, LARGEST).with_context(|| path.display().to_string())?;
        Reid::from_onnx(&bytes).with_context(|| path.display().to_string())?
    } else if ending == "xml" {
        read_reid(path, &path.with_extension("bin"))?
    } else {
        return Ok((read_mobilefacenet(path)?.into(), Weights::default()));
    };
    let weights = Weights { network: Architecture::Reid, normalization: Some(reid::NORMALIZATION) };
    Ok((network.into(), weights))
}

/// Trains and prints progress, each epoch's figures and the result.
pub fn follow(start: Start, data: &TrainingData, recipe: &Recipe, out: &Path) -> Result<()> {
    let (photos, people) = (data.train.crops.len(), people(&data.people));
    let same = if data.same_people { "the same people" } else { "other people" };
    say(&format!(
        "training set: {photos} photos of {people} people; validation set: {} photos of {same}",
        data.validation.crops.len()
    ));
    let bar = photos::progress(photos * recipe.epochs, "training");
    let trained = train(start, data, recipe, Some(out), |progress| match progress {
        Progress::Resumed { epoch, step } => {
            bar.set_position(((epoch - 1) * photos + step * recipe.batch) as u64);
            bar.suspend(|| say(&format!("resuming in epoch {epoch} after {step} steps")));
        }
        Progress::Step(step) => {
            bar.inc(step.photos as u64);
            bar.set_message(format!(
                "epoch {}  loss {:.3}  accuracy {:.1} %  {:.0} images/s  {:.0} % waiting for data",
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
                "{:4.0} % interpolated  {}",
                blend.share * 100.0,
                figures(&blend.validation)
            ))
        }),
        Progress::Ended { epoch } => {
            bar.suspend(|| say(&format!("early stopping after epoch {epoch}: no better epoch")));
        }
        Progress::Unsaved(fault) => {
            bar.suspend(|| log::warn!("{fault}; training continues without a new checkpoint"));
        }
    });
    bar.finish_and_clear();
    let Trained { best_epoch, better_than_start, blend, validation, .. } = trained?;
    let way =
        if blend < 1.0 { format!("{:.0} % of the way to ", blend * 100.0) } else { String::new() };
    let better = if better_than_start { "" } else { ", but no better than the start" };
    say(&format!("best: {way}epoch {best_epoch}{better}: {}", figures(&validation).trim()));
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
        "epoch {:3}  loss {:7.3}  accuracy {:5.1} %{hold}  {judged}  {:.0} images/s, {:.1} % waiting for data",
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
        parts.push(format!("validation accuracy {:.1} %", accuracy * 100.0));
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
    use crate::train::torch_net::tests::reid_noise;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    fn recipe(usual: Recipe, arguments: &[&str]) -> Result<Recipe> {
        let arguments = std::iter::once(&"command").chain(arguments);
        Command::try_parse_from(arguments)?.options.recipe(usual, &Weights::default())
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
            (&["--margin", "0.3"], "--margin needs"),
            (&["--head", "arcface", "--margins", "1,0,0"], "--margins needs"),
            (&["--head", "combined", "--margins", "1,0"], "expected three"),
            (&["--head", "arcface", "--margin", "2"], "angle margin is 2"),
            (&["--device", "tpu"], "expected cpu, cuda"),
            (&["--mixed"], "faster only on a GPU"),
        ] {
            let error = format!("{:#}", with(arguments).expect_err("refused"));
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn the_other_network_brings_its_normalization_and_takes_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("start.onnx");
        let network = reid_noise(3);
        std::fs::write(&path, network.to_onnx()).expect("written");
        let (read, weights) = read_weights(&path).expect("weights");
        assert!(read == network.into());
        let recipe = |arguments: &[&str]| {
            let arguments = std::iter::once(&"command").chain(arguments);
            Command::try_parse_from(arguments)?.options.recipe(Recipe::finetune(), &weights)
        };
        let plain = recipe(&["--impostor-similarity", "0.5"]).expect("a recipe");
        assert_eq!(
            (plain.normalization, plain.impostors),
            (reid::NORMALIZATION, Default::default())
        );
        let more = ["--hold", "10", "--teacher", "plain", "--impostors", "2", "--balanced-groups"];
        let more = recipe(&more).expect("a recipe");
        assert_eq!((more.teacher, more.balanced_groups), (Teacher::Plain, true));
        assert_eq!(more.impostors, Impostors { weight: 2.0, threshold: 0.3 });
        let error = recipe(&["--normalization", "arcface"]).expect_err("its own").to_string();
        assert!(error.contains("normalizes pictures itself"), "{error}");
        std::fs::write(&path, b"onnx").expect("written");
        assert!(format!("{:#}", read_weights(&path).expect_err("damaged")).contains("start.onnx"));
    }
}
