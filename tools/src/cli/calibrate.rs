//! `calibrate`: similarity thresholds and the likelihood ratio of a model set.

use super::import::{Thresholds, update_manifest};
use super::say;
use crate::data::photos;
use crate::measure::calibrate::calibrate;
use crate::measure::comparisons::Comparisons;
use crate::measure::lfw::{self, Pairs, all_photos, names_in};
use crate::measure::likelihood;
use crate::measure::metrics::Scores;
use anyhow::Result;
use clap::Args;
use facelatch::models::Models;
use facelatch::models::likelihood::Likelihood;
use facelatch::vision::embed::Embedding;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Measure a recognizer's similarity thresholds and write them into its manifest.
///
/// There is one threshold per false accept rate. Repeat this after any change of the
/// weights, of their precision or of the detector. Use people who are in neither training
/// nor test data. With --select the likelihood ratio is measured as well. Without it, a
/// likelihood ratio already in the manifest is removed, because it was measured on other
/// networks.
#[derive(Args)]
pub struct Calibrate {
    /// Folder of the model set to calibrate
    #[arg(long)]
    models: PathBuf,
    /// Folder of photos named as in LFW: NAME/NAME_0001.jpg
    #[arg(long)]
    images: PathBuf,
    /// File with one name per line; all photos of these people are used
    #[arg(long)]
    people: PathBuf,
    /// Pairs file in LFW's format whose photos are added to those of --people to measure
    /// the likelihood ratio. It needs people with several photos, none of them in the
    /// training data
    #[arg(long)]
    select: Option<PathBuf>,
    /// Seed of the bootstrap for confidence intervals
    #[arg(long, default_value_t = 1, allow_hyphen_values = true)]
    seed: i64,
}

impl Calibrate {
    pub fn run(self) -> Result<()> {
        let models = Models::open(&self.models)?;
        let people = names_in(&self.people)?;
        let faces = Faces::embed(&models, &self.images, &people, "calibration")?;
        let thresholds = faces.thresholds(&self.people)?;
        for (far, similarity) in &thresholds.0 {
            say(&format!("FAR {far}  similarity {similarity:.4}"));
        }
        let likelihood = self.likelihood(&models, people, faces)?;
        write(&self.models, thresholds, likelihood)
    }

    fn likelihood(
        &self,
        models: &Models,
        people: BTreeSet<String>,
        mut faces: Faces,
    ) -> Result<Option<Likelihood>> {
        let Some(select) = &self.select else { return Ok(None) };
        let others = lfw::people_of(&Pairs::read(select)?);
        lfw::check_apart(&[("--people", people), ("--select", others.clone())])?;
        faces.0.append(&mut Faces::embed(models, &self.images, &others, "selection")?.0);
        let names: Vec<&String> =
            faces.0.iter().map(|(person, _)| person).collect::<BTreeSet<_>>().into_iter().collect();
        let numbered: Vec<(usize, Option<&Embedding>)> = faces
            .0
            .iter()
            .map(|(person, embedding)| {
                (names.binary_search(&person).unwrap_or_default(), Some(embedding))
            })
            .collect();
        let all = Comparisons::of(&numbered);
        let data = format!("{}, {}", file_name(&self.people), file_name(select));
        let line = likelihood::measured(&all, &all.scores(), &data)?;
        say(&format!(
            "likelihood  ln ratio = {:.3} * similarity {:+.3}, from {:.2} at {:.4} and below to {:.2} at {:.4} and above",
            line.slope,
            line.offset,
            line.log_ratio(-1.0),
            line.lowest,
            line.log_ratio(1.0),
            line.highest
        ));
        say(&format!(
            "            {} people, {} photos, {} genuine and {} impostor pairs, Cllr {:.4} bits",
            line.people, line.photos, line.genuine_pairs, line.impostor_pairs, line.cllr
        ));
        let [slope, even] = likelihood::intervals(&all, self.seed);
        if let (Some(slope), Some(even)) = (slope, even) {
            say(&format!(
                "            95 %: slope {:.1} to {:.1}, ratio 1 at similarity {:.3} to {:.3}",
                slope[0], slope[1], even[0], even[1]
            ));
        }
        Ok(Some(line))
    }
}

/// Name of the person and embedding, per face found.
struct Faces(Vec<(String, Embedding)>);

impl Faces {
    fn embed(
        models: &Models,
        images: &Path,
        people: &BTreeSet<String>,
        label: &str,
    ) -> Result<Self> {
        let photos = all_photos(images, people)?;
        let paths: Vec<PathBuf> = photos.iter().map(|photo| photo.path(images)).collect();
        let outcomes = photos::process(models, &paths, true, label)?;
        let embedded =
            outcomes.into_iter().zip(&paths).zip(photos).filter_map(|((outcome, path), photo)| {
                Some((photo.person, photos::told(outcome, path).and_then(|(_, face)| face)?))
            });
        Ok(Self(embedded.collect()))
    }

    fn thresholds(&self, people: &Path) -> Result<Thresholds> {
        let faces: Vec<(&str, Option<&Embedding>)> =
            self.0.iter().map(|(person, face)| (person.as_str(), Some(face))).collect();
        let found: BTreeSet<&str> = faces.iter().map(|(person, _)| *person).collect();
        calibrate(&Scores::of_all_pairs(&faces), file_name(people), found.len(), faces.len())
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Writes thresholds and likelihood ratio into the manifest of a folder. Without
/// `likelihood`, an older one is removed, because it was measured on other networks.
///
/// # Errors
/// If the manifest cannot be read or written.
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

/// Thresholds measured on all photo pairs of the people named in the file `people`.
pub fn thresholds(models: &Models, images: &Path, people: &Path) -> Result<Thresholds> {
    Faces::embed(models, images, &names_in(people)?, "calibration")?.thresholds(people)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::likelihood::Line;

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
        // New thresholds without a likelihood ratio remove the old ratio.
        write(folder.path(), measured(), None).expect("written");
        assert_eq!(Models::open(folder.path()).expect("models").likelihood(), None);
    }
}
