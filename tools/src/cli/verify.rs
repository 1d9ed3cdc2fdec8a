//! `verify`: how well a set of models tells people apart.

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

/// Measure verification by the LFW protocol.
///
/// In each photo the face nearest the centre counts. A photo without a face
/// makes its pairs errors, and is told.
#[derive(Args)]
pub struct Verify {
    /// Folder of NAME/NAME_0001.jpg
    #[arg(long)]
    images: PathBuf,
    /// Pairs file in LFW's format
    #[arg(long)]
    pairs: PathBuf,
    /// Also compare every two photos named, and report TAR at FAR 1e-3 to 1e-6
    #[arg(long)]
    all_pairs: bool,
    /// Folder of models [default: those built in]
    #[arg(long)]
    models: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What `verify` measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of the models.
    pub models: String,
    /// Pairs told.
    pub pairs: usize,
    /// Folds.
    pub folds: usize,
    /// Share of pairs told right, mean over folds.
    pub accuracy: f64,
    /// Standard deviation over folds.
    pub accuracy_sd: f64,
    /// Equal error rate.
    pub eer: f64,
    /// Photos with a face, of those named.
    pub photos_with_a_face: usize,
    /// Photos in which no face was found.
    pub no_face: Vec<String>,
    /// Photos that could not be read, with the reason.
    pub unreadable: Vec<String>,
    /// Rows of the pairs file that are no pair.
    pub bad_rows: usize,
    /// Over every two photos named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_pairs: Option<AllPairs>,
}

/// Figures over every two photos.
#[derive(Clone, Debug, Serialize)]
pub struct AllPairs {
    /// Photos with a face.
    pub photos: usize,
    /// Pairs of one person.
    pub genuine: usize,
    /// Pairs of two people.
    pub impostor: usize,
    /// The manifest's thresholds on these photos; none without thresholds.
    pub thresholds: Vec<AtThreshold>,
    /// True accept rate by false accept rate; only of rates that there are enough
    /// impostor pairs for.
    pub tar: Vec<TrueAcceptRate>,
}

/// One point of the curve.
#[derive(Clone, Debug, Serialize)]
pub struct TrueAcceptRate {
    /// False accept rate allowed.
    pub far: f64,
    /// True accept rate reached.
    pub tar: f64,
    /// Similarity there.
    pub threshold: f32,
}

impl Verify {
    pub fn run(self) -> Result<()> {
        let models = Models::open_or_built_in(self.models.as_deref())?;
        let pairs = Pairs::read(&self.pairs)?;
        if pairs.pairs.is_empty() {
            bail!("{}: no pair in it", self.pairs.display());
        }
        let report = measure(&models, &pairs, &self.images, self.all_pairs)?;
        if report.photos_with_a_face == 0 {
            let first = report.unreadable.first().map_or("no face in any photo", String::as_str);
            bail!("{}: nothing to measure: {first}", self.images.display());
        }
        for (line, fault) in &pairs.bad_rows {
            log::warn!("{} line {line}: {fault}", self.pairs.display());
        }
        print(&report, self.json)
    }
}

/// Runs the protocol over a pairs file.
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
    // A rate that no impostor pair stands for cannot be measured.
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
