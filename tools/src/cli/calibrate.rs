//! `calibrate`: similarity thresholds and the likelihood ratio of a model set.

use super::import::{Thresholds, update_manifest};
use super::say;
use crate::data::photos;
use crate::measure::calibrate::{Sample, calibrate, named};
use crate::measure::comparisons::{Comparisons, MAX_FACES};
use crate::measure::groups::{Group, worst_of};
use crate::measure::labels::Labels;
use crate::measure::lfw::{self, Pairs, Photo, all_photos, names_in};
use crate::measure::likelihood;
use anyhow::{Result, bail};
use clap::Args;
use facelatch::models::Models;
use facelatch::models::groups::WorstGroup;
use facelatch::models::likelihood::Likelihood;
use facelatch::models::threshold::ThresholdTable;
use facelatch::vision::embed::Embedding;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Measure a recognizer's similarity thresholds and write them into its manifest.
///
/// There is one threshold per false accept rate. Repeat this after any change of the
/// weights, of their precision or of the detector. Use people who are in neither training
/// nor test data.
///
/// Several populations may be given: repeat --images and --people. At each rate the
/// strictest population that has enough pairs decides. With --labels, groups of people
/// decide as well: a group raises the threshold to where its own false accept rate is the
/// stated one. The manifest names who decided each rate, and the group that is worst off.
///
/// With --select the likelihood ratio is measured as well. Without it, a likelihood ratio
/// already in the manifest is removed, because it was measured on other networks. The same
/// holds for the worst group without --labels.
#[derive(Args)]
pub struct Calibrate {
    /// Folder of the model set to calibrate
    #[arg(long)]
    models: PathBuf,
    /// Folder of photos named as in LFW: NAME/NAME_0001.jpg. Repeat it for each --people, or
    /// give it once for all
    #[arg(long, required = true)]
    images: Vec<PathBuf>,
    /// File with one name per line; all photos of these people are used. Repeat it for each
    /// population
    #[arg(long, required = true)]
    people: Vec<PathBuf>,
    /// CSV with `path,label,person,group` that gives photos or people a group, such as women
    /// and men. Repeat it to divide people in several ways
    #[arg(long, value_name = "CSV")]
    labels: Vec<PathBuf>,
    /// Pairs file in LFW's format whose photos are added to those of --people to measure
    /// the likelihood ratio. It needs people with several photos, none of them in the
    /// training data
    #[arg(long)]
    select: Option<PathBuf>,
    /// Folder of the photos of --select [default: the first --images]
    #[arg(long, value_name = "DIR", requires = "select")]
    select_images: Option<PathBuf>,
    /// Seed of the bootstrap for confidence intervals
    #[arg(long, default_value_t = 1, allow_hyphen_values = true)]
    seed: i64,
}

/// Photos measured together, with their comparisons.
struct Population {
    images: PathBuf,
    people: BTreeSet<String>,
    faces: Faces,
    all: Comparisons,
}

impl Calibrate {
    pub fn run(self) -> Result<()> {
        let models = Models::open(&self.models)?;
        let images = self.images_of_each()?;
        let labels: Vec<Labels> =
            self.labels.iter().map(|csv| Labels::read(csv)).collect::<Result<_>>()?;
        let mut populations = Vec::new();
        for (images, people) in images.iter().zip(&self.people) {
            let people = names_in(people)?;
            let faces = Faces::embed(&models, images, &people, "calibration")?;
            let all = faces.compare()?;
            populations.push(Population { images: images.to_path_buf(), people, faces, all });
        }
        let samples = self.samples(&populations, &images, &labels)?;
        let (thresholds, calibration) = calibrate(&samples)?;
        for (far, similarity) in &thresholds {
            let extrapolated = calibration.extrapolated.contains(far);
            let mark = if extrapolated { ", extrapolated" } else { "" };
            let by = calibration.decided_by.get(far).map_or(String::new(), |by| format!("  {by}"));
            say(&format!("FAR {far}  similarity {similarity:.4}{mark}{by}"));
        }
        let rates = thresholds.iter().filter_map(|(far, at)| Some((far.parse().ok()?, *at)));
        let table = ThresholdTable::new(rates, calibration.clone());
        let worst = tell_groups(&samples, &table);
        let likelihood = self.likelihood(&models, &images, populations)?;
        write(&self.models, (thresholds, calibration), likelihood)?;
        write_worst_group(&self.models, worst)
    }

    /// The folder of photos of each list of people.
    fn images_of_each(&self) -> Result<Vec<&Path>> {
        let (images, people) = (&self.images, &self.people);
        match &images[..] {
            [one] => Ok(vec![one.as_path(); people.len()]),
            _ if images.len() == people.len() => Ok(images.iter().map(PathBuf::as_path).collect()),
            _ => bail!(
                "{} --images and {} --people; give one --images for all, or one for each --people",
                images.len(),
                people.len()
            ),
        }
    }

    fn samples(
        &self,
        populations: &[Population],
        images: &[&Path],
        labels: &[Labels],
    ) -> Result<Vec<Sample>> {
        let mut used = vec![false; labels.len()];
        let names = names(images, &self.people);
        let samples = populations.iter().zip(names).map(|(population, data)| {
            let Population { faces, all, .. } = population;
            let mut members: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
            for (labels, used) in labels.iter().zip(&mut used) {
                for (face, (photo, _)) in faces.0.iter().enumerate() {
                    if let Some(group) = labels.group(photo) {
                        members.entry(group).or_default().insert(face);
                        *used = true;
                    }
                }
            }
            let groups = members.iter();
            Sample {
                data,
                people: faces.people().len(),
                photos: faces.0.len(),
                scores: all.scores(),
                groups: groups
                    .map(|(name, faces)| Group::of(name, all, |face| faces.contains(&face)))
                    .collect(),
            }
        });
        let samples = samples.collect();
        match self.labels.iter().zip(used).find(|(_, used)| !used) {
            Some((csv, _)) => {
                bail!("{}: gives a group to nobody whom --people names", csv.display())
            }
            None => Ok(samples),
        }
    }

    fn likelihood(
        &self,
        models: &Models,
        images: &[&Path],
        mut populations: Vec<Population>,
    ) -> Result<Option<Likelihood>> {
        let Some(select) = &self.select else { return Ok(None) };
        let folder = self.select_images.as_deref().or(images.first().copied());
        let folder = folder.unwrap_or(Path::new(""));
        let others = lfw::people_of(&Pairs::read(select)?);
        let mut faces = Faces::embed(models, folder, &others, "selection")?;
        let mut data = vec![];
        // People of the same folder are compared with those of --select. The populations of
        // other folders only limit what the line may promise.
        for (population, people) in populations.iter_mut().zip(&self.people) {
            if population.images == folder {
                let part = [("--people", population.people.clone()), ("--select", others.clone())];
                lfw::check_apart(&part)?;
                faces.0.append(&mut population.faces.0);
                data.push(file_name(people));
            }
        }
        // A person may be in several lists.
        faces.0.sort_by(|(a, _), (b, _)| a.cmp(b));
        faces.0.dedup_by(|(a, _), (b, _)| a == b);
        data.push(file_name(select));
        let mut data = data.join(", ");
        let limits =
            populations.iter().zip(names(images, &self.people)).filter(|(p, _)| p.images != folder);
        let (limits, limited): (Vec<&Comparisons>, Vec<String>) =
            limits.map(|(population, name)| (&population.all, name)).unzip();
        if !limited.is_empty() {
            data = format!("{data}; impostors at least as alike as in {}", limited.join(", "));
        }
        let all = faces.compare()?;
        let mut scores = all.scores();
        let impostor: Vec<Vec<f32>> = limits.iter().map(|all| all.scores().impostor).collect();
        let impostor: Vec<&[f32]> =
            impostor.iter().map(Vec::as_slice).chain([scores.impostor.as_slice()]).collect();
        scores.impostor = likelihood::strictest(&impostor);
        let line = likelihood::measured(&all, &scores, &data)?;
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
        let [slope, even] = likelihood::intervals(&all, &limits, self.seed);
        if let (Some(slope), Some(even)) = (slope, even) {
            say(&format!(
                "            95 %: slope {:.1} to {:.1}, ratio 1 at similarity {:.3} to {:.3}",
                slope[0], slope[1], even[0], even[1]
            ));
        }
        Ok(Some(line))
    }
}

/// Prints the rates of each group that has enough pairs, and returns the worst group.
fn tell_groups(samples: &[Sample], table: &ThresholdTable) -> Option<WorstGroup> {
    let mut all = vec![];
    for sample in samples {
        for group in &sample.groups {
            say(&format!(
                "group       {}: {} people, {} impostor pairs",
                named(group, sample),
                group.people,
                group.pairs()
            ));
            for rate in group.at_all(table).iter().filter(|rate| rate.enough) {
                let [low, high] = rate.far_interval;
                say(&format!(
                    "  stated {:<6} FAR {:.1e} (95 %: {low:.1e} to {high:.1e})",
                    format!("{:e}", rate.stated),
                    rate.far
                ));
            }
        }
        all.extend(worst_of(&sample.groups, table, &sample.data));
    }
    let worst = all.into_iter().max_by(|a, b| a.times_stated().total_cmp(&b.times_stated()));
    if let Some(worst) = &worst {
        say(&format!("worst group {worst}"));
    }
    worst
}

/// Photo and embedding, per face found.
struct Faces(Vec<(Photo, Embedding)>);

impl Faces {
    fn embed(
        models: &Models,
        images: &Path,
        people: &BTreeSet<String>,
        label: &str,
    ) -> Result<Self> {
        let photos = all_photos(images, people)?;
        if photos.len() > MAX_FACES {
            bail!(
                "{}: {} photos are too many, because all pairs are compared; give at most {MAX_FACES}",
                images.display(),
                photos.len()
            );
        }
        let paths: Vec<PathBuf> = photos.iter().map(|photo| photo.path(images)).collect();
        let outcomes = photos::process(models, &paths, true, label)?;
        let embedded =
            outcomes.into_iter().zip(&paths).zip(photos).filter_map(|((outcome, path), photo)| {
                Some((photo, photos::told(outcome, path).and_then(|(_, face)| face)?))
            });
        Ok(Self(embedded.collect()))
    }

    /// Names of the people, sorted.
    fn people(&self) -> Vec<&str> {
        let names: BTreeSet<&str> = self.0.iter().map(|(p, _)| p.person.as_str()).collect();
        names.into_iter().collect()
    }

    /// Comparisons of all pairs, in the order of the faces.
    fn compare(&self) -> Result<Comparisons> {
        if self.0.len() > MAX_FACES {
            bail!(
                "{} photos are too many, because all pairs are compared; give at most {MAX_FACES}",
                self.0.len()
            );
        }
        let names = self.people();
        let numbered = self.0.iter().map(|(photo, embedding)| {
            (names.binary_search(&photo.person.as_str()).unwrap_or_default(), Some(embedding))
        });
        Ok(Comparisons::of(&numbered.collect::<Vec<_>>()))
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Names of the populations in the manifest: that of the list of people, with the folder of
/// the list, or else that of the photos, where several lists have one name.
fn names(images: &[&Path], people: &[PathBuf]) -> Vec<String> {
    let files: Vec<String> = people.iter().map(|path| file_name(path)).collect();
    let repeated = |name: &String| files.iter().filter(|other| *other == name).count() > 1;
    let parents = people.iter().map(|path| path.parent().map(file_name).unwrap_or_default());
    let parents: Vec<String> = parents.collect();
    let apart = parents.iter().collect::<BTreeSet<_>>().len() == parents.len();
    let folders = parents.iter().zip(images).map(|(parent, images)| {
        if apart && !parent.is_empty() { parent.clone() } else { images.display().to_string() }
    });
    let named = files.iter().zip(folders).map(|(file, folder)| {
        if repeated(file) { format!("{folder}/{file}") } else { file.clone() }
    });
    named.collect()
}

/// Writes thresholds and likelihood ratio into the manifest of a folder. Without
/// `likelihood`, an older one is removed, because it was measured on other networks. The
/// worst group is removed, because it was measured at other thresholds.
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
    (entry.likelihood, entry.worst_group) = (likelihood, None);
    update_manifest(folder, None, "recognizer", toml::Value::try_from(entry)?)
}

/// Writes the worst group into the manifest of a folder, or removes it.
///
/// # Errors
/// If the manifest cannot be read or written.
pub fn write_worst_group(folder: &Path, worst: Option<WorstGroup>) -> Result<()> {
    let Some(mut entry) = Models::open(folder)?.manifest.recognizer else { return Ok(()) };
    entry.worst_group = worst;
    update_manifest(folder, None, "recognizer", toml::Value::try_from(entry)?)
}

/// Thresholds measured on all photo pairs of the people named in the file `people`.
pub fn thresholds(models: &Models, images: &Path, people: &Path) -> Result<Thresholds> {
    let faces = Faces::embed(models, images, &names_in(people)?, "calibration")?;
    calibrate(&[Sample {
        data: file_name(people),
        people: faces.people().len(),
        photos: faces.0.len(),
        scores: faces.compare()?.scores(),
        groups: vec![],
    }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::likelihood::Line;
    use crate::measure::metrics::Scores;

    fn built_in() -> tempfile::TempDir {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
        let folder = tempfile::tempdir().expect("a folder");
        for entry in std::fs::read_dir(models).expect("models") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                let copy = folder.path().join(path.file_name().expect("a name"));
                std::fs::copy(&path, copy).expect("a copy");
            }
        }
        folder
    }

    #[test]
    fn a_manifest_says_what_was_measured() {
        let folder = built_in();
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
        let sample = |data: &str| Sample {
            data: data.to_owned(),
            people: 100,
            photos: 300,
            scores: scores.clone(),
            groups: vec![],
        };
        let measured = || calibrate(&[sample("made up")]).expect("thresholds");
        let worst = WorstGroup {
            name: "women".to_owned(),
            stated: "1e-3".to_owned(),
            measured: 2e-3,
            low: 1e-3,
            high: 4e-3,
            pairs: 6555,
            people: 115,
            data: "made up".to_owned(),
        };
        write(folder.path(), measured(), Some(likelihood.clone())).expect("written");
        let signature = folder.path().join(facelatch::models::signature::SIGNATURE);
        std::fs::write(&signature, "").expect("written");
        write_worst_group(folder.path(), Some(worst.clone())).expect("written");
        assert!(!signature.exists(), "a signature of the former manifest is misleading");
        let models = Models::open(folder.path()).expect("models");
        assert_eq!(models.likelihood(), Some(&likelihood));
        assert_eq!(models.worst_group(), Some(&worst));
        assert_eq!(models.thresholds().expect("thresholds").calibration().data, "made up");
        // New thresholds without a likelihood ratio remove the old ratio and the old group.
        let two = calibrate(&[sample("made up"), sample("others")]).expect("thresholds");
        write(folder.path(), two.clone(), None).expect("written");
        let models = Models::open(folder.path()).expect("models");
        assert_eq!((models.likelihood(), models.worst_group()), (None, None));
        let table = models.thresholds().expect("thresholds");
        assert_eq!(table.calibration(), &two.1);
        assert_eq!(table.calibration().populations[1].data, "others");
    }

    #[test]
    fn lists_of_one_name_are_told_apart_by_their_folders() {
        let [a, b] = ["portraits/people.txt", "lfw/people.txt"].map(PathBuf::from);
        let other = PathBuf::from("lfw/others.txt");
        let images = [Path::new("p/images"), Path::new("l/images"), Path::new("l/images")];
        let names = |lists: &[PathBuf]| super::names(&images[..lists.len()], lists);
        assert_eq!(names(std::slice::from_ref(&a)), ["people.txt"]);
        assert_eq!(names(&[a.clone(), b.clone()]), ["portraits/people.txt", "lfw/people.txt"]);
        assert_eq!(names(&[a.clone(), other]), ["people.txt", "others.txt"]);
        assert_eq!(names(&[a.clone(), a]), ["p/images/people.txt", "l/images/people.txt"]);
    }
}
