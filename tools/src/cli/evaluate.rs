//! `evaluate`: everything a recognizer or a classifier is judged by, as a page, plots and
//! JSON.

use super::calibrate::write;
use crate::data::photos;
use crate::device;
use crate::files;
use crate::measure::calibrate::calibrate;
use crate::measure::chart::Picture;
use crate::measure::identification::Settings;
use crate::measure::lfw::{Pairs, Photo};
use crate::measure::metrics::{Accuracy, Scores, accuracy};
use crate::measure::report::gather::{self, Gathered};
use crate::measure::report::open::{self, Face, Open, Protocol, Subjects};
use crate::measure::report::{FORMAT, Report, closed, figures, html};
use crate::train::run_folder::Run;
use crate::train::torch_net::Student;
use crate::train::validation;
use anyhow::{Context, Result, bail};
use clap::Args;
use facelatch::models::Models;
use facelatch::vision::align::{CROP_SIDE, Crop};
use facelatch::vision::embed::Embedding;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};

/// Faces that torch embeds at once.
const BATCH: usize = 64;

/// Measure a recognizer or a classifier, and write a report.
///
/// A run on people it was trained on is asked whom it sees (closed set). Everything else is
/// asked whether two faces are of one person, and who of a gallery somebody is (open set):
/// a run or a set of models, on people it has not seen.
#[derive(Args)]
pub struct Evaluate {
    /// Folder that a training wrote
    #[arg(long, conflicts_with = "models")]
    run: Option<PathBuf>,
    /// Folder of models [default: those built in]
    #[arg(long)]
    models: Option<PathBuf>,
    /// Data set: path,label,person[,group] of aligned faces
    #[arg(long, required_unless_present = "images", conflicts_with = "images")]
    data: Option<PathBuf>,
    /// Folder of NAME/NAME_0001.jpg; in each photo the face nearest the centre counts
    #[arg(long, requires = "pairs")]
    images: Option<PathBuf>,
    /// Pairs file in LFW's format, whose photos all count
    #[arg(long, requires = "images")]
    pairs: Option<PathBuf>,
    /// Folder for report.html, report.json and the plots as SVG and PNG
    #[arg(long, default_value = "report")]
    out: PathBuf,
    /// What torch computes a run on: cpu, cuda, cuda:1
    #[arg(long, default_value = "cpu")]
    device: String,
    /// First photos of a person that are enrolled in the gallery; others are searched for
    #[arg(long, default_value_t = 1)]
    enrolled: usize,
    /// Share of the people who are kept out of the gallery, those with too few photos first
    #[arg(long, default_value_t = 0.5, value_parser = share)]
    outside: f64,
    /// Who is kept out, and what intervals are drawn by, follow from it
    #[arg(long, default_value_t = 1, allow_hyphen_values = true)]
    seed: i64,
    /// Leave pictures of people out
    #[arg(long)]
    no_photos: bool,
    /// Number people and photos instead of naming them
    #[arg(long)]
    no_names: bool,
    /// Write thresholds and likelihood ratio into the manifest of --models; these people
    /// should play no other part
    #[arg(long, requires = "models")]
    write_calibration: bool,
    /// Print report.json
    #[arg(long)]
    json: bool,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a share between 0 and 1".to_owned()),
    }
}

/// What computes embeddings.
enum Recognizer {
    /// The device's own, in 8 bits or floating point.
    Models(Box<Models>),
    /// Torch.
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
                "{}: nothing to measure: {}",
                gathered.data.name,
                first.map_or("no face in any photo", String::as_str)
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
                    bail!("--write-calibration takes people that the training did not know");
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
            (Some(csv), ..) => gather::crops(csv),
            (None, Some(images), Some(pairs)) => match recognizer {
                Recognizer::Models(models) => gather::photos(models, images, pairs),
                // A run has no detector of its own.
                Recognizer::Run(..) => gather::photos(&Models::built_in()?, images, pairs),
            },
            _ => bail!("name --data, or --images and --pairs"),
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
                bail!("{name}: no likelihood ratio to write; nothing was written");
            };
            let line = figures.line.clone();
            let (people, photos) = (line.people, line.photos);
            let thresholds = calibrate(&all.scores(), name.clone(), people, photos)
                .with_context(|| format!("{name}: nothing was written"))?;
            write(folder, thresholds, Some(line))?;
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

    /// The labels a run knows these people by; none where it knows nobody.
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
                    "{}: {seen} photos are of people the run was trained on; the figures flatter",
                    gathered.data.name
                );
            }
            return Ok(None);
        }
        let stranger = gathered.faces.iter().zip(&labels).find(|(_, label)| label.is_none());
        if let Some((face, _)) = stranger {
            bail!(
                "{}: {} is nobody the run knows, others are; give people it was trained on or others, not both",
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

/// Embeddings and, as the head of the run sees them, logits.
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

/// LFW's figures; photos and faces are in the same order.
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

/// Numbers instead of names.
fn number(names: &mut [String], what: &str) {
    for (at, name) in names.iter_mut().enumerate() {
        *name = format!("{what} {}", at + 1);
    }
}

fn png(crop: &Crop) -> Option<Vec<u8>> {
    let side = CROP_SIDE as u32;
    let picture = image::RgbImage::from_raw(side, side, crop.frame().pixels().to_vec())?;
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).ok()?;
    Some(bytes.into_inner())
}

/// The page, its plots and its figures; the page last.
pub fn write_report(out: &Path, report: &Report, faces: Option<&html::Faces>) -> Result<()> {
    let plot = |picture: &Picture| -> Result<()> {
        let file = |ending: &str| out.join(format!("{}.{ending}", picture.name));
        files::replace(&file("svg"), picture.svg_file().as_bytes())?;
        files::replace(&file("png"), &picture.png()?)
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
        println!("loss        {:.4} (guessing: {:.4})", closed.loss, closed.loss_of_chance);
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
            "gallery     {} people, {} mated searches, {} others; rank one {:.2} %",
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
            "likelihood  ln ratio = {:.3} * similarity {:+.3}, Cllr {:.4} bits (least {:.4})",
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
    }
}
