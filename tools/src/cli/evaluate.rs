//! `evaluate`: measures a recognizer or a classifier; writes an HTML page, plots and JSON.

use super::calibrate::{write, write_worst_group};
use crate::data::photos;
use crate::device;
use crate::files;
use crate::measure::calibrate::{Sample, calibrate};
use crate::measure::chart::Picture;
use crate::measure::comparisons::Comparisons;
use crate::measure::groups::{Group, worst_of};
use crate::measure::identification::Settings;
use crate::measure::lfw::{Pairs, Photo};
use crate::measure::metrics::{Accuracy, Scores, accuracy};
use crate::measure::report::gather::{self, Gathered};
use crate::measure::report::open::{self, Open, Protocol};
use crate::measure::report::subjects::{Face, Subjects};
use crate::measure::report::{FORMAT, Report, closed, figures, html};
use crate::train::run_folder::Run;
use crate::train::torch_net::Student;
use crate::train::validation;
use anyhow::{Context, Result, bail};
use clap::Args;
use facelatch::models::{Alignment, Models};
use facelatch::vision::align::Crop;
use facelatch::vision::embed::Embedding;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};

/// Faces per torch batch.
const BATCH: usize = 64;

/// Measure a recognizer or a classifier and write a report.
///
/// A training run on the people it was trained on is evaluated as a classifier (closed
/// set): accuracy, loss, confusion matrix. A training run on other people, or a model set,
/// is evaluated as a recognizer (open set): verification of all photo pairs, identification
/// in a gallery, likelihood ratio.
#[derive(Args)]
pub struct Evaluate {
    /// Folder of a training run
    #[arg(long, conflicts_with = "models")]
    run: Option<PathBuf>,
    /// Folder of a model set [default: the built-in one]
    #[arg(long)]
    models: Option<PathBuf>,
    /// Data set of aligned faces: CSV with `path,label,person[,group]`
    #[arg(long, required_unless_present = "images", conflicts_with = "images")]
    data: Option<PathBuf>,
    /// Folder of photos named as in LFW: NAME/NAME_0001.jpg. The face nearest the centre of
    /// each photo is used
    #[arg(long, requires = "pairs")]
    images: Option<PathBuf>,
    /// Pairs file in LFW's format; all photo pairs of the photos it names are compared
    #[arg(long, requires = "images")]
    pairs: Option<PathBuf>,
    /// Output folder: report.html, report.json and the plots as SVG
    #[arg(long, default_value = "report")]
    out: PathBuf,
    /// Device for --run: cpu, cuda or cuda:1
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Templates per person in the gallery: the first photos of a person are enrolled, the
    /// others are probes
    #[arg(long, default_value_t = 1)]
    enrolled: usize,
    /// Share of people not enrolled in the gallery, 0 to 1; people with too few photos come
    /// first
    #[arg(long, default_value_t = 0.5, value_parser = share)]
    outside: f64,
    /// Seed of the choice of people not enrolled and of the bootstrap for confidence
    /// intervals
    #[arg(long, default_value_t = 1, allow_hyphen_values = true)]
    seed: i64,
    /// Leave face pictures out of the report
    #[arg(long)]
    no_photos: bool,
    /// Replace names of people and photos by numbers in the report
    #[arg(long)]
    no_names: bool,
    /// Write thresholds and likelihood ratio into the manifest of --models. Use people who
    /// are in neither training nor test data
    #[arg(long, requires = "models")]
    write_calibration: bool,
    /// Write the group whose false accept rate is highest compared with the stated one into
    /// the manifest of --models. Use people who are in neither training nor calibration data,
    /// and a data set with groups
    #[arg(long, requires = "models", conflicts_with = "write_calibration")]
    write_worst_group: bool,
    /// Print the contents of report.json instead of a summary
    #[arg(long)]
    json: bool,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a share between 0 and 1".to_owned()),
    }
}

/// Source of the embeddings.
enum Recognizer {
    /// The device's runtime, in int8 or floating point.
    Models(Box<Models>),
    /// A training run in torch.
    Run(Box<Run>, Device),
}

impl Evaluate {
    pub fn run(self) -> Result<()> {
        let recognizer = match &self.run {
            Some(folder) => {
                let device = device::parse(&self.device)?;
                Recognizer::Run(Box::new(Run::open(folder)?), device)
            }
            None => {
                let models = Models::open_or_built_in(self.models.as_deref())?;
                Recognizer::Models(Box::new(models))
            }
        };
        let mut gathered = self.gather(&recognizer)?;
        let known = recognizer.knows(&gathered)?;
        let crops: Vec<&Crop> = gathered.crops.iter().flatten().collect();
        if crops.is_empty() {
            let first = gathered.data.unreadable.first();
            bail!(
                "{}: no face to measure: {}",
                gathered.data.name,
                first.map_or("no face found in any photo", String::as_str)
            );
        }
        let mut report = Report {
            format: FORMAT,
            model: recognizer.name()?,
            tools: env!("CARGO_PKG_VERSION").to_owned(),
            data: gathered.data.clone(),
            closed: None,
            open: None,
        };
        match (&recognizer, known) {
            (Recognizer::Run(run, device), Some(labels)) => {
                if self.write_calibration {
                    bail!("--write-calibration needs people who are not in the training data");
                }
                let (_, logits) = embed_in_torch(run, *device, &crops)?;
                let mut names = run.record.people.clone();
                if self.no_names {
                    number(&mut names, "person");
                }
                report.closed = Some(closed::measure(&logits, &labels, &names)?);
            }
            _ => {
                let embeddings = recognizer.embed(&crops)?;
                report.open = Some(self.open_set(&recognizer, &mut gathered, embeddings)?);
            }
        }
        if self.no_names {
            number(&mut report.data.no_face, "photo without a face");
            number(&mut report.data.unreadable, "photo not readable");
        }
        let face = |at: usize| gathered.crops.get(at)?.as_ref().and_then(png);
        let faces: Option<&html::Faces> = if self.no_photos { None } else { Some(&face) };
        write_report(&self.out, &report, faces)?;
        print(&report, &self.out, self.json)
    }

    fn gather(&self, recognizer: &Recognizer) -> Result<Gathered> {
        match (&self.data, &self.images, &self.pairs) {
            (Some(csv), ..) => gather::crops(csv, &recognizer.alignment()),
            (None, Some(images), Some(pairs)) => match recognizer {
                Recognizer::Models(models) => gather::photos(models, images, pairs),
                // A training run has no detector.
                Recognizer::Run(..) => gather::photos(&Models::built_in()?, images, pairs),
            },
            _ => bail!("no data to evaluate; give --data, or --images with --pairs"),
        }
    }

    fn open_set(
        &self,
        recognizer: &Recognizer,
        gathered: &mut Gathered,
        embeddings: Vec<Embedding>,
    ) -> Result<Open> {
        let mut embeddings = embeddings.into_iter();
        for (face, crop) in gathered.faces.iter_mut().zip(&gathered.crops) {
            face.embedding = crop.as_ref().and_then(|_| embeddings.next());
        }
        let mut subjects = Subjects {
            people: gathered.people.clone(),
            groups: gathered.groups.clone(),
            faces: gathered.faces.clone(),
        };
        if self.no_names {
            number(&mut subjects.people, "person");
            for (at, face) in subjects.faces.iter_mut().enumerate() {
                face.name = format!("photo {}", at + 1);
            }
        }
        let name = &gathered.data.name;
        let all = subjects.compare(name)?;
        let table = match recognizer {
            Recognizer::Models(models) => models.thresholds().ok(),
            Recognizer::Run(..) => None,
        };
        let settings = Settings { enrolled: self.enrolled, outside: self.outside, seed: self.seed };
        let mut open = open::measure(&subjects, &all, table.as_ref(), name, &settings)?;
        if let Some((pairs, photos)) = &gathered.pairs {
            open.protocol = Some(protocol(pairs, photos, &gathered.faces));
        }
        if let (true, Some(folder)) = (self.write_calibration, &self.models) {
            let Some(figures) = &open.likelihood else {
                bail!("{name}: no likelihood ratio could be measured, so nothing was written");
            };
            let line = figures.line.clone();
            let (people, photos) = (line.people, line.photos);
            let sample = Sample {
                data: name.clone(),
                people,
                photos,
                scores: all.scores(),
                groups: groups_of(&subjects, &all),
            };
            let thresholds = calibrate(std::slice::from_ref(&sample))
                .with_context(|| format!("{name}: nothing was written"))?;
            write(folder, thresholds, Some(line))?;
            let table = Models::open(folder)?.thresholds()?;
            write_worst_group(folder, worst_of(&sample.groups, &table, name))?;
        }
        if let (true, Some(folder)) = (self.write_worst_group, &self.models) {
            let Some(worst) = &open.worst_group else {
                bail!(
                    "{name}: no group has enough pairs to be judged, so nothing was written; give a data set with a column `group`, and more people of each group"
                );
            };
            if table.is_none() {
                bail!(
                    "{}: no thresholds, so groups cannot be compared with a stated rate; run calibrate first",
                    folder.display()
                );
            }
            write_worst_group(folder, Some(worst.clone()))?;
        }
        Ok(open)
    }
}

impl Recognizer {
    fn name(&self) -> Result<String> {
        Ok(match self {
            Self::Models(models) => models.recognizer_id()?.to_string(),
            Self::Run(run, _) => {
                let name = run.folder.file_name().unwrap_or(run.folder.as_os_str());
                format!("run {}", name.to_string_lossy())
            }
        })
    }

    /// The alignment of the faces that it takes.
    fn alignment(&self) -> Alignment {
        match self {
            Self::Models(models) => models.alignment(),
            Self::Run(run, _) => run.network.architecture().alignment(),
        }
    }

    /// The training labels of these faces, in order; `None` if the run was trained on none
    /// of these people, or if photos come from a pairs file.
    ///
    /// # Errors
    /// If some of a data set's people are in the training data and some are not.
    fn knows(&self, gathered: &Gathered) -> Result<Option<Vec<usize>>> {
        let Self::Run(run, _) = self else { return Ok(None) };
        let known: BTreeMap<&str, usize> = run
            .record
            .people
            .iter()
            .enumerate()
            .map(|(label, name)| (name.as_str(), label))
            .collect();
        let name = |face: &Face| gathered.people[face.person].as_str();
        let labels: Vec<Option<usize>> =
            gathered.faces.iter().map(|face| known.get(name(face)).copied()).collect();
        if gathered.pairs.is_some() || labels.iter().all(Option::is_none) {
            let seen = labels.iter().flatten().count();
            if seen > 0 {
                log::warn!(
                    "{}: {seen} photos are of people the run was trained on; the results are too optimistic",
                    gathered.data.name
                );
            }
            return Ok(None);
        }
        let stranger = gathered.faces.iter().zip(&labels).find(|(_, label)| label.is_none());
        if let Some((face, _)) = stranger {
            bail!(
                "{}: {} is not in the training data, but other people are; evaluate on people of the training data or on others, not both",
                gathered.data.name,
                name(face)
            );
        }
        Ok(Some(labels.into_iter().flatten().collect()))
    }

    fn embed(&self, crops: &[&Crop]) -> Result<Vec<Embedding>> {
        match self {
            Self::Models(models) => photos::embed(models.recognizer()?, crops, "embedding"),
            Self::Run(run, device) => Ok(embed_in_torch(run, *device, crops)?.0),
        }
    }
}

/// Embeddings and the logits of the run's head, one row per crop.
fn embed_in_torch(
    run: &Run,
    device: Device,
    crops: &[&Crop],
) -> Result<(Vec<Embedding>, Vec<Vec<f32>>)> {
    let student = Student::new(&run.network, device);
    let head = run.head.copy_to(device);
    let progress = photos::progress(crops.len(), "embedding");
    let (mut embeddings, mut logits) = (Vec::new(), Vec::new());
    for batch in crops.chunks(BATCH) {
        let _guard = tch::no_grad_guard();
        let embedded = validation::embed(&student, batch, &run.record.normalization, false, device);
        let rows = |tensor: &Tensor| -> Result<Vec<Vec<f32>>> {
            Ok(Vec::try_from(tensor.to_device(Device::Cpu))?)
        };
        logits.append(&mut rows(&head.logits(&embedded))?);
        embeddings.extend(rows(&embedded)?.iter().map(|row| Embedding::normalized(row)));
        progress.inc(batch.len() as u64);
    }
    progress.finish_and_clear();
    Ok((embeddings, logits))
}

/// The groups of these people.
fn groups_of(subjects: &Subjects, all: &Comparisons) -> Vec<Group> {
    let groups = subjects.groups.iter().enumerate();
    groups
        .map(|(at, name)| Group::of(name, all, |face| subjects.faces[face].group == Some(at)))
        .collect()
}

/// Accuracy and EER by the LFW protocol; `photos` and `faces` are in the same order.
fn protocol(pairs: &Pairs, photos: &[Photo], faces: &[Face]) -> Protocol {
    let embeddings: BTreeMap<&Photo, &Embedding> = photos
        .iter()
        .zip(faces)
        .filter_map(|(photo, face)| Some((photo, face.embedding.as_ref()?)))
        .collect();
    let scored = pairs.scored(|photo| embeddings.get(photo).copied());
    let Accuracy { mean, deviation } = accuracy(&scored, pairs.folds);
    Protocol {
        pairs: pairs.pairs.len(),
        folds: pairs.folds,
        bad_rows: pairs.bad_rows.len(),
        accuracy: mean,
        accuracy_sd: deviation,
        eer: Scores::of_pairs(&scored).equal_error_rate(),
    }
}

/// Replaces names by numbers from 1.
fn number(names: &mut [String], what: &str) {
    for (at, name) in names.iter_mut().enumerate() {
        *name = format!("{what} {}", at + 1);
    }
}

fn png(crop: &Crop) -> Option<Vec<u8>> {
    let side = crop.side() as u32;
    let picture = image::RgbImage::from_raw(side, side, crop.frame().pixels().to_vec())?;
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).ok()?;
    Some(bytes.into_inner())
}

/// Writes plots, `report.json` and, last, `report.html` into the folder `out`. Without
/// `faces` the page has no face pictures.
pub fn write_report(out: &Path, report: &Report, faces: Option<&html::Faces>) -> Result<()> {
    let plot = |picture: &Picture| -> Result<()> {
        let file = out.join(format!("{}.svg", picture.name));
        files::replace(&file, picture.svg_file().as_bytes())
    };
    figures::pictures(report).iter().try_for_each(plot)?;
    let mut json = serde_json::to_vec(report)?;
    json.push(b'\n');
    files::replace(&out.join("report.json"), &json)?;
    files::replace(&out.join("report.html"), html::page(report, faces).as_bytes())
}

#[expect(clippy::print_stdout, reason = "the command's own output")]
fn print(report: &Report, out: &Path, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(report)?);
        return Ok(());
    }
    println!("model       {}", report.model);
    let data = &report.data;
    println!(
        "data        {}: {} people, {} photos, a face in {}",
        data.name, data.people, data.photos, data.photos_with_a_face
    );
    if let Some(closed) = &report.closed {
        let [low, high] = closed.top1_interval.map(|share| share * 100.0);
        println!("top-1       {:.2} % (95 %: {low:.2} to {high:.2})", closed.top1 * 100.0);
        println!("top-5       {:.2} %", closed.top5 * 100.0);
        println!("loss        {:.4} (by chance: {:.4})", closed.loss, closed.loss_of_chance);
    }
    if let Some(open) = &report.open {
        print_open(open);
    }
    println!("report      {}", out.join("report.html").display());
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the command's own output")]
fn print_open(open: &Open) {
    let within = |interval: Option<[f64; 2]>| {
        interval.map_or(String::new(), |[low, high]| {
            format!(" (95 %: {:.2} to {:.2})", low * 100.0, high * 100.0)
        })
    };
    if let Some(protocol) = &open.protocol {
        println!(
            "accuracy    {:.2} % ± {:.2}, EER {:.2} % of {} pairs in {} folds",
            protocol.accuracy * 100.0,
            protocol.accuracy_sd * 100.0,
            protocol.eer * 100.0,
            protocol.pairs,
            protocol.folds
        );
    }
    let verification = &open.verification;
    println!(
        "all pairs   {} genuine, {} impostor, EER {:.2} %",
        verification.genuine,
        verification.impostor,
        verification.eer * 100.0
    );
    for point in &verification.tar {
        println!(
            "  FAR {:.0e}  TAR {:.2} %{}, similarity {:.4}",
            point.far,
            point.tar * 100.0,
            within(point.interval),
            point.threshold
        );
    }
    if let Some(found) = &open.identification {
        println!(
            "gallery     {} people, {} mated searches, {} non-mated; rank-1 {:.2} %",
            found.enrolled,
            found.mated,
            found.non_mated,
            found.rank_one * 100.0
        );
        for point in &found.fnir {
            println!(
                "  FPIR {:.0e}  FNIR {:.2} %{}, similarity {:.4}",
                point.fpir,
                point.fnir * 100.0,
                within(point.interval),
                point.threshold
            );
        }
    }
    if let Some(figures) = &open.likelihood {
        println!(
            "likelihood  ln ratio = {:.3} * similarity {:+.3}, Cllr {:.4} bits (minimum {:.4})",
            figures.line.slope, figures.line.offset, figures.line.cllr, figures.cllr_least
        );
    }
    for group in &open.groups {
        println!(
            "group       {}: TAR {:.2} %, FAR {:.1e} at {:.4}",
            group.group,
            group.tar * 100.0,
            group.far,
            verification.reference.threshold
        );
        for rate in group.rates.iter().filter(|rate| rate.enough) {
            let [low, high] = rate.far_interval;
            println!(
                "  stated {:<6} FAR {:.1e} (95 %: {low:.1e} to {high:.1e}){}{}",
                format!("{:e}", rate.stated),
                rate.far,
                rate.tar.map_or(String::new(), |tar| format!(
                    ", TAR {:.2} %{}",
                    tar * 100.0,
                    within(rate.tar_interval)
                )),
                if rate.extrapolated { ", extrapolated" } else { "" }
            );
        }
    }
    match &open.worst_group {
        Some(worst) => println!("worst group {worst}"),
        None if open.groups.is_empty() => {}
        None => println!("worst group none: no group has enough pairs to be judged"),
    }
}
