//! `calibrate`: the thresholds of a set of models.

use super::import::{Thresholds, update_manifest};
use super::say;
use crate::calibrate::calibrate;
use crate::lfw::{all_photos, names_in};
use crate::metrics::Scores;
use crate::photos;
use anyhow::Result;
use clap::Args;
use facelatch::embed::Embedding;
use facelatch::likelihood::Likelihood;
use facelatch::models::Models;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Measure a recognizer's thresholds and write them into its manifest.
///
/// Anything that changes what the recognizer sees changes them: its weights, their
/// arithmetic, the detector. The people should play no other part.
#[derive(Args)]
pub struct Calibrate {
    /// Folder of models
    #[arg(long)]
    models: PathBuf,
    /// Folder of NAME/NAME_0001.jpg
    #[arg(long)]
    images: PathBuf,
    /// File with a name a line, whose photos all count
    #[arg(long)]
    people: PathBuf,
}

impl Calibrate {
    pub fn run(self) -> Result<()> {
        let thresholds = thresholds(&Models::open(&self.models)?, &self.images, &self.people)?;
        for (far, similarity) in &thresholds.0 {
            say(&format!("FAR {far}  similarity {similarity:.4}"));
        }
        write(&self.models, thresholds, None)
    }
}

/// Puts thresholds and a likelihood into the manifest of a folder. One that was in it was
/// measured on what the networks were before, and goes.
pub fn write(
    folder: &Path,
    (thresholds, calibration): Thresholds,
    likelihood: Option<Likelihood>,
) -> Result<()> {
    let Some(mut entry) = Models::open(folder)?.manifest.recognizer else { return Ok(()) };
    (entry.thresholds, entry.calibration) = (thresholds, Some(calibration));
    entry.likelihood = likelihood;
    update_manifest(folder, None, "recognizer", toml::Value::try_from(entry)?)
}

/// Thresholds from every two photos of these people.
pub fn thresholds(models: &Models, images: &Path, people: &Path) -> Result<Thresholds> {
    let photos = all_photos(images, &names_in(people)?)?;
    let paths: Vec<PathBuf> = photos.iter().map(|photo| photo.path(images)).collect();
    let outcomes = photos::process(models, &paths, true, "calibration")?;
    let embeddings: Vec<Option<Embedding>> = outcomes
        .into_iter()
        .zip(&paths)
        .map(|(outcome, path)| photos::told(outcome, path).and_then(|(_, embedding)| embedding))
        .collect();
    let faces: Vec<(&str, Option<&Embedding>)> = photos
        .iter()
        .map(|photo| photo.person.as_str())
        .zip(embeddings.iter().map(Option::as_ref))
        .filter(|(_, embedding)| embedding.is_some())
        .collect();
    let found: BTreeSet<&str> = faces.iter().map(|(person, _)| *person).collect();
    let file = people.file_name().unwrap_or_default().to_string_lossy();
    calibrate(&Scores::of_all_pairs(&faces), file.into_owned(), found.len(), faces.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::likelihood::Line;

    #[test]
    fn a_manifest_says_what_was_measured() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
        let folder = tempfile::tempdir().expect("a folder");
        for entry in std::fs::read_dir(models).expect("models") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                let copy = folder.path().join(path.file_name().expect("a name"));
                std::fs::copy(&path, copy).expect("a copy");
            }
        }
        let spread = |count: usize, from: f32, to: f32| {
            (0..count).map(|at| from + (to - from) * at as f32 / count as f32).collect()
        };
        let scores = Scores::new(spread(500, 0.3, 0.9), spread(40_000, -0.3, 0.4), 0);
        let line = Line::fit(&scores).expect("a line");
        let likelihood = Likelihood {
            slope: line.slope,
            offset: line.offset,
            lowest: 0.3,
            highest: 0.4,
            data: "made up".to_owned(),
            people: 100,
            photos: 300,
            genuine_pairs: 500,
            impostor_pairs: 40_000,
            cllr: 0.1,
        };
        let measured = || calibrate(&scores, "made up".to_owned(), 100, 300).expect("thresholds");
        write(folder.path(), measured(), Some(likelihood.clone())).expect("written");
        let models = Models::open(folder.path()).expect("models");
        assert_eq!(models.likelihood(), Some(&likelihood));
        assert_eq!(models.thresholds().expect("thresholds").calibration().data, "made up");
        // Thresholds of other networks come without the likelihood of these.
        write(folder.path(), measured(), None).expect("written");
        assert_eq!(Models::open(folder.path()).expect("models").likelihood(), None);
    }
}
