//! `verify`: verification accuracy of a model set by the LFW protocol.

use crate::data::photos::{self, Outcome};
use crate::measure::lfw::{Pairs, Photo};
use crate::measure::metrics::{Accuracy, AtThreshold, Scores, accuracy, at_thresholds};
use anyhow::{Result, bail};
use clap::Args;
use facelatch::models::Models;
use facelatch::vision::embed::Embedding;
use serde::Serialize;
use std::collections::HashMap;
use std::path::PathBuf;

/// Measure verification accuracy by the LFW protocol.
///
/// The face nearest the centre of each photo is used. A photo without a face counts as an
/// error in each of its pairs and is listed.
#[derive(Args)]
pub struct Verify {
    /// Folder of photos named as in LFW: NAME/NAME_0001.jpg
    #[arg(long)]
    images: PathBuf,
    /// Pairs file in LFW's format
    #[arg(long)]
    pairs: PathBuf,
    /// Also compare all pairs of the photos named, and report TAR at FAR 1e-3 to 1e-6
    #[arg(long)]
    all_pairs: bool,
    /// Folder of a model set [default: the built-in one]
    #[arg(long)]
    models: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Results of `verify`; the JSON output.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of the model set.
    pub models: String,
    /// Pairs of the pairs file.
    pub pairs: usize,
    /// Number of folds for cross-validation.
    pub folds: usize,
    /// Share of pairs classified correctly, 0..=1, mean over folds.
    pub accuracy: f64,
    /// Standard deviation of the accuracy over folds.
    pub accuracy_sd: f64,
    /// Equal error rate over the pairs, 0..=1.
    pub eer: f64,
    /// Number of photos with a face, of those named.
    pub photos_with_a_face: usize,
    /// Photos in which no face was found.
    pub no_face: Vec<String>,
    /// Photos that could not be read, with the reason.
    pub unreadable: Vec<String>,
    /// Number of malformed rows in the pairs file.
    pub bad_rows: usize,
    /// Results over all pairs of the photos named, with `--all-pairs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_pairs: Option<AllPairs>,
}

/// Results over all pairs of photos.
#[derive(Clone, Debug, Serialize)]
pub struct AllPairs {
    /// Number of photos with a face.
    pub photos: usize,
    /// Number of genuine pairs, those with a missing face included.
    pub genuine: usize,
    /// Number of impostor pairs.
    pub impostor: usize,
    /// The manifest's thresholds on these photos; empty if it has none.
    pub thresholds: Vec<AtThreshold>,
    /// True accept rate by false accept rate, for the rates at which at least one impostor
    /// pair may pass.
    pub tar: Vec<TrueAcceptRate>,
}

/// True accept rate at a false accept rate.
#[derive(Clone, Debug, Serialize)]
pub struct TrueAcceptRate {
    /// Upper limit of the false accept rate per pair, 0..=1.
    pub far: f64,
    /// True accept rate at that limit, 0..=1.
    pub tar: f64,
    /// Similarity threshold (cosine).
    pub threshold: f32,
}

impl Verify {
    pub fn run(self) -> Result<()> {
        let models = Models::open_or_built_in(self.models.as_deref())?;
        let pairs = Pairs::read(&self.pairs)?;
        if pairs.pairs.is_empty() {
            bail!("{}: no pairs; expected a pairs file in LFW's format", self.pairs.display());
        }
        let report = measure(&models, &pairs, &self.images, self.all_pairs)?;
        if report.photos_with_a_face == 0 {
            let first =
                report.unreadable.first().map_or("no face found in any photo", String::as_str);
            bail!("{}: no face to measure: {first}", self.images.display());
        }
        for (line, fault) in &pairs.bad_rows {
            log::warn!("{} line {line}: {fault}", self.pairs.display());
        }
        print(&report, self.json)
    }
}

/// Runs the LFW protocol over a pairs file, and over all pairs of its photos if
/// `all_pairs`.
pub fn measure(
    models: &Models,
    pairs: &Pairs,
    images: &std::path::Path,
    all_pairs: bool,
) -> Result<Report> {
    let photos = pairs.photos();
    let paths: Vec<PathBuf> = photos.iter().map(|photo| photo.path(images)).collect();
    let outcomes = photos::process(models, &paths, true, "embedding")?;
    let mut embeddings: HashMap<&Photo, Embedding> = HashMap::new();
    let (mut no_face, mut unreadable) = (Vec::new(), Vec::new());
    for ((photo, path), outcome) in photos.iter().zip(&paths).zip(outcomes) {
        match outcome {
            Outcome::Face { embedding: Some(embedding), .. } => {
                embeddings.insert(photo, embedding);
            }
            Outcome::Face { .. } | Outcome::NoFace => no_face.push(path.display().to_string()),
            Outcome::Unreadable(message) => unreadable.push(message),
        }
    }
    let scored = pairs.scored(|photo| embeddings.get(photo));
    let Accuracy { mean, deviation } = accuracy(&scored, pairs.folds);
    Ok(Report {
        models: models.manifest.version.clone(),
        pairs: pairs.pairs.len(),
        folds: pairs.folds,
        accuracy: mean,
        accuracy_sd: deviation,
        eer: Scores::of_pairs(&scored).equal_error_rate(),
        photos_with_a_face: embeddings.len(),
        no_face,
        unreadable,
        bad_rows: pairs.bad_rows.len(),
        all_pairs: all_pairs.then(|| every_two(models, &photos, &embeddings)),
    })
}

fn every_two(
    models: &Models,
    photos: &[Photo],
    embeddings: &HashMap<&Photo, Embedding>,
) -> AllPairs {
    let faces: Vec<(&str, Option<&Embedding>)> =
        photos.iter().map(|photo| (photo.person.as_str(), embeddings.get(photo))).collect();
    let scores = Scores::of_all_pairs(&faces);
    // A rate at which less than one impostor pair would pass cannot be measured.
    let measurable = |far: &f64| far * scores.impostor.len() as f64 >= 1.0;
    let tar = [1e-3, 1e-4, 1e-5, 1e-6].into_iter().filter(measurable).map(|far| TrueAcceptRate {
        far,
        tar: scores.true_accept_rate(far),
        threshold: scores.threshold_at(far),
    });
    let thresholds = models.thresholds().map_or(vec![], |table| at_thresholds(&table, &scores));
    AllPairs {
        photos: embeddings.len(),
        thresholds,
        genuine: scores.genuine.len() + scores.genuine_lost,
        impostor: scores.impostor.len(),
        tar: tar.collect(),
    }
}

#[expect(clippy::print_stdout, reason = "the command's own output")]
pub fn print(report: &Report, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(report)?);
        return Ok(());
    }
    println!("models      {}", report.models);
    println!("pairs       {} in {} folds", report.pairs, report.folds);
    println!("accuracy    {:.2} % ± {:.2}", report.accuracy * 100.0, report.accuracy_sd * 100.0);
    println!("EER         {:.2} %", report.eer * 100.0);
    if let Some(all) = &report.all_pairs {
        println!(
            "all pairs   {} genuine, {} impostor, of {} photos",
            all.genuine, all.impostor, all.photos
        );
        for point in &all.tar {
            println!(
                "  FAR {:.0e}  TAR {:.2} %  (similarity {:.4})",
                point.far,
                point.tar * 100.0,
                point.threshold
            );
        }
    }
    for at in report.all_pairs.iter().flat_map(|all| &all.thresholds) {
        println!(
            "threshold   {:.0e} is {:.4}{}: FAR {:.1e}, TAR {:.2} % here",
            at.far,
            at.threshold,
            if at.extrapolated { " (extrapolated)" } else { "" },
            at.measured_far,
            at.tar * 100.0
        );
    }
    for path in &report.no_face {
        println!("no face     {path}");
    }
    for message in &report.unreadable {
        println!("unreadable  {message}");
    }
    if report.bad_rows > 0 {
        println!("bad rows    {}", report.bad_rows);
    }
    Ok(())
}
