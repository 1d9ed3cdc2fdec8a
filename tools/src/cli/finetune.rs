//! `finetune`: a recognizer of our own from published weights.

use super::calibrate::thresholds;
use super::import::{
    Normalized, read_mobilefacenet, update_manifest, write_file, write_recognizer,
};
use super::verify::{Report, measure, print};
use crate::finetune::{Epoch, Finetuned, Progress, Recipe, Sample, finetune};
use crate::lfw::{Pairs, Photo, all_photos, check_apart, names_in, people_of};
use crate::photos::{self};
use anyhow::{Context, Result};
use clap::Args;
use facelatch::models::Models;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Train a recognizer on from imported weights.
///
/// The people of --train are learned, the epoch is chosen on the photos of
/// --select, the thresholds come from the people of --calibrate, and --report
/// only reports, once, at the end. Nobody should be in two of them.
#[derive(Args)]
pub struct Finetune {
    /// Weights to start from, as `import mobilefacenet` reads them
    #[arg(long)]
    weights: PathBuf,
    /// Folder of NAME/NAME_0001.jpg
    #[arg(long)]
    images: PathBuf,
    /// Pairs file whose people are learned, with all their photos
    #[arg(long, value_name = "PAIRS")]
    train: PathBuf,
    /// Pairs file whose photos choose the epoch
    #[arg(long, value_name = "PAIRS")]
    select: PathBuf,
    /// File with a name a line: people for the thresholds, with all their photos
    #[arg(long, value_name = "PEOPLE")]
    calibrate: PathBuf,
    /// Pairs file to report on at the end
    #[arg(long, value_name = "PAIRS")]
    report: Option<PathBuf>,
    /// Folder for mobilefacenet.onnx and manifest.toml; a detector must be in it
    #[arg(long, default_value = "models")]
    out: PathBuf,
    /// How pictures were normalized when the weights were trained
    #[arg(long, value_enum, default_value_t = Normalized::Arcface)]
    normalization: Normalized,
    /// Version of this set of models
    #[arg(long)]
    name: String,
    /// Times each photo is shown
    #[arg(long, default_value_t = 5)]
    epochs: usize,
    /// Photos a step
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Step size
    #[arg(long, default_value_t = 1e-3)]
    learning_rate: f64,
    /// Share of the last step that goes on
    #[arg(long, default_value_t = 0.9)]
    momentum: f64,
    /// Pull of the weights towards zero
    #[arg(long, default_value_t = 5e-4)]
    weight_decay: f64,
    /// ArcFace's s
    #[arg(long, default_value_t = 64.0)]
    scale: f64,
    /// ArcFace's m, radians
    #[arg(long, default_value_t = 0.5)]
    margin: f64,
    /// Weight of the cosine to the starting weights' embeddings
    #[arg(long, default_value_t = 20.0)]
    hold: f64,
    /// Share of the way the judged average goes towards the weights at each
    /// step; 1 judges the weights themselves
    #[arg(long, default_value_t = 1.0)]
    average: f64,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    seed: i64,
}

/// `finetune.json`: what was done and how it went.
#[derive(Serialize)]
struct Record<'a> {
    recipe: Recipe,
    people: usize,
    photos: usize,
    selection_photos: usize,
    epochs: &'a [Epoch],
    chosen: usize,
    better_than_start: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<Report>,
}

impl Finetune {
    pub fn run(self) -> Result<()> {
        let recipe = Recipe {
            epochs: self.epochs,
            batch: self.batch,
            learning_rate: self.learning_rate,
            momentum: self.momentum,
            weight_decay: self.weight_decay,
            scale: self.scale,
            margin: self.margin,
            hold: self.hold,
            average: self.average,
            seed: self.seed,
        };
        let normalization = self.normalization.into();
        let start = read_mobilefacenet(&self.weights)?;
        let detector = Models::open(&self.out)
            .context("the folder needs a detector first: facelatch-tools import mtcnn")?;
        // All that can be wrong with the input is, before the long work begins.
        let data = self.data()?;
        let train = self.faces(&detector, &data.train, "learning")?;
        let select = self.faces(&detector, &data.select, "selection")?;

        let bar = photos::progress(train.len() * recipe.epochs, "training");
        let Finetuned { weights, chosen, better, epochs } = finetune(
            &start,
            &normalization,
            &train,
            &select,
            &recipe,
            |progress| match progress {
                Progress::Seen(photos) => bar.inc(*photos as u64),
                Progress::Judged(epoch) => bar.suspend(|| tell(epoch)),
            },
        )?;
        bar.finish_and_clear();
        if better {
            say(&format!("epoch {chosen} is the best of the selection photos"));
        } else {
            say(&format!("no epoch is better than the start; keeping epoch {chosen}, the mildest"));
        }

        // In a folder of its own until it has its thresholds: a recognizer without
        // them must not take the place of one that has.
        let draft = self.out.join("finetune.draft");
        copy_detector(&self.out, &draft)?;
        write_recognizer(&draft, &weights, normalization, &self.name, None)?;
        let thresholds = thresholds(&Models::open(&draft)?, &self.images, &self.calibrate)?;
        write_recognizer(&self.out, &weights, normalization, &self.name, Some(thresholds))?;
        std::fs::remove_dir_all(&draft).with_context(|| draft.display().to_string())?;

        let report = match &data.report {
            Some(pairs) => {
                let report = measure(&Models::open(&self.out)?, pairs, &self.images, true)?;
                print(&report, false)?;
                Some(report)
            }
            None => None,
        };
        let record = Record {
            recipe,
            people: train.iter().map(|sample| sample.person + 1).max().unwrap_or(0),
            photos: train.len(),
            selection_photos: select.len(),
            epochs: &epochs,
            chosen,
            better_than_start: better,
            report,
        };
        let path = self.out.join("finetune.json");
        write_file(&path, &serde_json::to_vec_pretty(&record)?)
    }

    fn data(&self) -> Result<Data> {
        let train = people_of(&Pairs::read(&self.train)?);
        let select = Pairs::read(&self.select)?;
        let calibrate = names_in(&self.calibrate)?;
        let report = self.report.as_deref().map(Pairs::read).transpose()?;
        let parts = [
            ("--train", train.clone()),
            ("--select", people_of(&select)),
            ("--calibrate", calibrate),
            ("--report", report.as_ref().map(people_of).unwrap_or_default()),
        ];
        check_apart(&parts)?;
        Ok(Data { train: all_photos(&self.images, &train)?, select: select.photos(), report })
    }

    /// The photos' faces; a photo without one is told and left out.
    fn faces(&self, models: &Models, photos: &[Photo], label: &str) -> Result<Vec<Sample>> {
        let paths: Vec<PathBuf> = photos.iter().map(|photo| photo.path(&self.images)).collect();
        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        let mut samples = Vec::new();
        for ((photo, path), outcome) in
            photos.iter().zip(&paths).zip(photos::process(models, &paths, false, label)?)
        {
            if let Some((crop, _)) = photos::told(outcome, path) {
                let next = numbers.len();
                let person = *numbers.entry(&photo.person).or_insert(next);
                samples.push(Sample { crop, person });
            }
        }
        Ok(samples)
    }
}

/// What the files of the command line name.
struct Data {
    train: Vec<Photo>,
    select: Vec<Photo>,
    report: Option<Pairs>,
}

/// The detector's part of a folder of models into another one.
fn copy_detector(from: &Path, to: &Path) -> Result<()> {
    let detector = Models::open(from)?.manifest.detector;
    for file in [&detector.pnet.file, &detector.rnet.file, &detector.onet.file] {
        let source = from.join(file);
        let bytes = std::fs::read(&source).with_context(|| source.display().to_string())?;
        write_file(&to.join(file), &bytes)?;
    }
    update_manifest(to, None, "detector", toml::Value::try_from(detector)?)
}

fn tell(epoch: &Epoch) {
    let judged =
        format!("TAR {:.2} %  EER {:.2} %", epoch.judged * 100.0, epoch.equal_error_rate * 100.0);
    match epoch.number {
        0 => say(&format!("start                                     {judged}")),
        number => say(&format!(
            "epoch {number:2}  loss {:7.3}  cosine to start {:.4}  {judged}",
            epoch.loss, epoch.hold
        )),
    }
}

#[expect(clippy::print_stdout, reason = "the command's own output")]
fn say(line: &str) {
    println!("{line}");
}
