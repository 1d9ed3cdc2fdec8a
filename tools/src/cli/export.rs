//! `export`: turns a training run into a model set.

use super::import::Thresholds;
use super::say;
use super::training::read_weights;
use crate::data::augment::mirrored;
use crate::data::dataset::Dataset;
use crate::data::photos;
use crate::deliver::export::{Agreement, PORTRAITS, compare, exported, seal, set};
use crate::files;
use crate::measure::calibrate::{Sample, calibrate};
use crate::measure::metrics::Scores;
use crate::networks::face::FaceNetwork;
use crate::networks::onnx::OPSET;
use crate::train::run_folder::{Run, RunRecord, digest};
use anyhow::{Context, Result, ensure};
use clap::Args;
use facelatch::models::{Alignment, MANIFEST, Models, RecipeStep, RecognizerModel};
use facelatch::nn::Precision;
use facelatch::storage::models::BUILT_IN;
use facelatch::vision::align::{Crop, align};
use facelatch::vision::detect::{Detector, DetectorSettings, nearest_center};
use facelatch::vision::embed::Embedding;
use facelatch::vision::picture;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Said of a new set.
pub const NOT_SIGNED: &str =
    "not signed; doors install it after facelatch-tools sign, with a key that they trust";

/// Export a trained recognizer as a model set: ONNX files and a manifest.
///
/// MobileFaceNet's batch normalization is folded into the layers before it. Before anything is written, the
/// embeddings of the device's runtime (tract) are compared with those of libtorch on real
/// faces. Doors run int8 models, so run `quantize` next.
#[derive(Args)]
pub struct Export {
    /// Folder of the training run
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// Folder of the model set that provides the detector, or `built-in`. It must be a
    /// floating-point set if you want to quantize the result
    #[arg(long, value_name = "DIR")]
    detector: PathBuf,
    /// Weight interpolation (Wortsman et al. 2022): export the weights at this share of the
    /// way from the starting weights to those of the run, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, requires = "weights")]
    blend: f64,
    /// With --blend: the weights that the run started from, as they were given to it
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Output folder for the model set
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Version of the new model set
    #[arg(long)]
    name: String,
    /// Licence terms of the model set [default: those of the detector's set]
    #[arg(long, value_name = "TEXT")]
    licence: Option<String>,
    /// Data set for measuring thresholds, of people in neither training nor test data
    #[arg(long, value_name = "CSV")]
    calibrate: Option<PathBuf>,
    /// Data set on which tract is compared with libtorch [default: two portraits]
    #[arg(long, value_name = "CSV")]
    check_faces: Option<PathBuf>,
}

impl Export {
    pub fn run(self) -> Result<()> {
        let mut run = Run::open(&self.run)?;
        if let Some(weights) = &self.weights {
            run.network = self.blended(&run, weights)?;
        }
        let alignment = run.network.architecture().alignment();
        let detector = if self.detector.as_os_str() == BUILT_IN {
            Models::built_in()?
        } else {
            Models::open(&self.detector)?
        };
        let licence = self.licence.clone().or_else(|| detector.manifest.licence.clone());
        let licence = licence.context(
            "the detector's manifest has no licence to inherit; give the licence terms with --licence",
        )?;
        let mut data = BTreeMap::new();
        let crops = match &self.check_faces {
            Some(csv) => {
                let dataset = Dataset::read(csv)?;
                data.insert("check_faces".to_owned(), dataset.digest.clone());
                dataset.crops(&alignment)?
            }
            None => portraits(&detector, &alignment)?,
        };
        let model = exported(&run.network, run.record.normalization);
        let agreement = compare(&run.network, &model, &crops)?;
        let Agreement { faces, cosine, difference } = agreement;
        say(&format!(
            "tract and libtorch agree on {faces} faces: cosine at least {cosine:.7}, components differ by at most {difference:.1e}; ONNX opset {OPSET}"
        ));

        let (mut manifest, mut set) = set(&detector, &model, &self.name);
        manifest.licence = Some(licence);
        manifest.figures = figures(&run.record, &agreement);
        if self.blend < 1.0 {
            manifest.figures.insert("export_blend".to_owned(), self.blend);
        }
        if let (Some(csv), Some(recognizer)) = (&self.calibrate, &mut manifest.recognizer) {
            let dataset = Dataset::read(csv)?;
            data.insert("calibrate".to_owned(), dataset.digest.clone());
            let (thresholds, calibration) = thresholds(&model, &dataset, csv)?;
            for (far, similarity) in &thresholds {
                say(&format!("FAR {far}  similarity {similarity:.4}"));
            }
            (recognizer.thresholds, recognizer.calibration) = (thresholds, Some(calibration));
        }
        manifest.recipe = vec![trained(&run.record), this_step(data)];
        seal(&mut manifest, &mut set, &self.out)?;

        // The manifest last: a folder counts as a set only once it has a manifest, and then
        // it is complete.
        let last = set.remove(MANIFEST);
        for (name, bytes) in set.iter().map(|(name, bytes)| (name.as_str(), bytes)) {
            files::replace(&self.out.join(name), bytes)?;
        }
        files::replace(&self.out.join(MANIFEST), &last.unwrap_or_default())?;
        say(&format!("{}: {} files, version {}", self.out.display(), set.len() + 1, self.name));
        say(NOT_SIGNED);
        self.advise(&detector, &run)
    }

    /// The weights between those that the run started from and its own.
    fn blended(&self, run: &Run, weights: &Path) -> Result<FaceNetwork> {
        let share = self.blend;
        ensure!((0.0..=1.0).contains(&share), "--blend {share}: expected 0 to 1");
        let (start, _) = read_weights(weights)?;
        let started = &run.record.start;
        ensure!(
            started.is_empty() || *started == digest(&start)?,
            "{}: not the weights that the run started from",
            weights.display()
        );
        // Training with batch statistics begins with another epsilon.
        let same = start.epsilon() == run.network.epsilon();
        let start = if same { start } else { start.measurable() };
        start.blended(&run.network, share).with_context(|| {
            format!("{}: not the weights that the run started from", weights.display())
        })
    }

    /// Warns about steps that are left before a door can use the set.
    fn advise(&self, detector: &Models, run: &Run) -> Result<()> {
        let nets = detector.clone().in_precision(Precision::Float).detector;
        if Detector::new(&nets, DetectorSettings::default()).is_err() {
            log::warn!(
                "the detector is int8 and the recognizer floating point; to quantize both, export with --detector models/float"
            );
        }
        if self.calibrate.is_none() {
            log::warn!(
                "{}: no thresholds, so no door can use this set yet; run quantize, which measures them, or export with --calibrate",
                self.out.display()
            );
        }
        if !run.record.better_than_start {
            log::warn!(
                "{}: no epoch was better than the starting weights on the validation photos",
                run.folder.display()
            );
        }
        Ok(())
    }
}

/// The aligned face of each portrait, and its mirror image.
fn portraits(models: &Models, alignment: &Alignment) -> Result<Vec<Crop>> {
    let mut detector = Detector::new(&models.detector, DetectorSettings::default())?;
    let mut crops = Vec::new();
    for (name, bytes) in PORTRAITS {
        let frame = picture::decode(Path::new(name), bytes)?;
        let faces = detector.detect(&frame)?;
        let face = nearest_center(faces, &frame)
            .with_context(|| format!("{name}: the detector finds no face"))?;
        let crop = align(&frame, &face.landmarks, alignment);
        crops.push(mirrored(&crop));
        crops.push(crop);
    }
    Ok(crops)
}

/// Thresholds measured on all pairs of faces of a data set.
fn thresholds(model: &RecognizerModel, dataset: &Dataset, csv: &Path) -> Result<Thresholds> {
    let crops = dataset.crops(&model.alignment)?;
    let embeddings = photos::embed(model, &crops.iter().collect::<Vec<_>>(), "calibration")?;
    let labels = dataset.rows.iter().map(|row| row.label);
    let faces: Vec<(usize, Option<&Embedding>)> = labels.zip(embeddings.iter().map(Some)).collect();
    let people: BTreeSet<usize> = dataset.rows.iter().map(|row| row.label).collect();
    calibrate(&[Sample {
        data: csv.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        people: people.len(),
        photos: faces.len(),
        scores: Scores::of_all_pairs(&faces),
        groups: vec![],
    }])
}

fn figures(record: &RunRecord, agreement: &Agreement) -> BTreeMap<String, f64> {
    let mut figures = BTreeMap::from([
        ("export_faces".to_owned(), agreement.faces as f64),
        ("export_least_cosine".to_owned(), f64::from(agreement.cosine)),
        ("export_largest_difference".to_owned(), f64::from(agreement.difference)),
        ("epoch".to_owned(), record.best_epoch as f64),
    ]);
    if let Some(best) = record.epochs.iter().find(|epoch| epoch.number == record.best_epoch) {
        let judged = &best.validation;
        for (name, value) in [
            ("validation_loss", judged.loss),
            ("validation_accuracy", judged.accuracy),
            ("validation_true_accept_rate", judged.true_accept_rate),
            ("validation_equal_error_rate", judged.equal_error_rate),
        ] {
            figures.extend(value.map(|value| (name.to_owned(), value)));
        }
    }
    figures
}

/// The recipe step of the training, from its record.
fn trained(record: &RunRecord) -> RecipeStep {
    let data = [("train", &record.data.train), ("validation", &record.data.validation)];
    let versions = [
        ("facelatch-tools", &record.versions.facelatch_tools),
        ("libtorch", &record.versions.libtorch),
    ];
    let named = |pairs: [(&str, &String); 2]| {
        pairs
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.to_owned(), value.clone()))
            .collect()
    };
    RecipeStep {
        command: record.command.clone(),
        seed: Some(record.seed),
        opset: None,
        data: named(data),
        versions: named(versions),
    }
}

/// The recipe step of the command that runs now. `data` holds SHA-256 digests by option.
pub fn this_step(data: BTreeMap<String, String>) -> RecipeStep {
    RecipeStep {
        command: std::env::args().collect(),
        seed: None,
        opset: Some(OPSET),
        data,
        versions: BTreeMap::from([(
            env!("CARGO_PKG_NAME").to_owned(),
            env!("CARGO_PKG_VERSION").to_owned(),
        )]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::dataset::Row;
    use crate::networks::face::Architecture;
    use crate::networks::reid;
    use crate::networks::reid::tests::telling_apart;
    use crate::train::run_folder::HeadKind;
    use crate::train::run_folder::tests::noisy;
    use crate::train::torch_net::tests::crop;
    use facelatch::models::Channels;
    use facelatch::storage::models::check_folder;
    use tempfile::TempDir;

    fn export(folder: &TempDir) -> Export {
        let run = folder.path().join("run");
        noisy(&run, HeadKind::Arcface).write().expect("a run");
        Export {
            run,
            blend: 1.0,
            weights: None,
            detector: PathBuf::from(BUILT_IN),
            out: folder.path().join("out"),
            name: "toy".to_owned(),
            licence: Some("anybody's".to_owned()),
            calibrate: None,
            check_faces: None,
        }
    }

    #[test]
    fn a_run_becomes_a_set_that_says_where_it_comes_from() {
        let folder = TempDir::new().expect("a folder");
        let csv = folder.path().join("faces/labels.csv");
        std::fs::create_dir(folder.path().join("faces")).expect("a folder");
        let row = |label: usize| {
            let path = folder.path().join(format!("faces/{label}.png"));
            let png = picture::encode_png(crop(label).frame()).expect("a PNG");
            std::fs::write(&path, png).expect("written");
            Row { path, label, person: format!("person {label}"), group: None }
        };
        let rows = (0..3).map(row).collect();
        Dataset { rows, people: vec![], digest: String::new() }.write(&csv).expect("written");
        let export = Export { check_faces: Some(csv.clone()), ..export(&folder) };
        let out = export.out.clone();
        export.run().expect("exported");

        let manifest = Models::open(&out).expect("models").manifest;
        assert_eq!(manifest.version, "toy");
        assert_eq!(manifest.licence.as_deref(), Some("anybody's"));
        assert_eq!(manifest.figures["export_faces"], 3.0);
        let [training, exporting] = &manifest.recipe[..] else { panic!("{:?}", manifest.recipe) };
        assert_eq!(training.command, ["facelatch-tools", "train"]);
        assert_eq!((training.seed, exporting.opset), (Some(1), Some(OPSET)));
        assert_eq!(exporting.data["check_faces"], Dataset::read(&csv).expect("faces").digest);
        // Only the thresholds are missing.
        let error = check_folder(&out, Precision::Float).err().expect("no thresholds");
        assert!(error.to_string().contains("no thresholds"), "{error}");
    }

    #[test]
    fn the_way_back_to_the_start_is_exported_if_it_is_the_start() {
        let folder = TempDir::new().expect("a folder");
        let start = telling_apart(1);
        let weights = folder.path().join("start.onnx");
        std::fs::write(&weights, start.to_onnx()).expect("written");
        let at = |blend| Export { blend, weights: Some(weights.clone()), ..export(&folder) };
        let first = at(0.0);
        let mut run = noisy(&first.run, HeadKind::Arcface);
        run.network = telling_apart(2).into();
        (run.record.network, run.record.epsilon) = (Architecture::Reid, 0.0);
        run.record.normalization = reid::NORMALIZATION;
        run.record.start = digest(&start.clone().into()).expect("a digest");
        run.record.embedding_size = reid::EMBEDDING_SIZE;
        run.head.weight = tch::Tensor::zeros([2, 256], (tch::Kind::Float, tch::Device::Cpu));
        run.write().expect("a run");
        let out = first.out.clone();
        first.run().expect("exported");
        let models = Models::open(&out).expect("models");
        let model = models.recognizer().expect("a recognizer");
        assert!(model.file.bytes == start.to_onnx(), "at 0 the file is that of the start");
        assert!(model.file.name.ends_with("/face-reidentification-retail-0095.onnx"));
        assert_eq!((model.alignment, model.channels), (reid::ALIGNMENT, Channels::Bgr));

        std::fs::write(&weights, telling_apart(3).to_onnx()).expect("written");
        // The helper writes another run.
        let second = at(0.5);
        run.write().expect("a run");
        let error = second.run().expect_err("another start").to_string();
        assert!(error.contains("not the weights that the run started from"), "{error}");
    }

    #[test]
    fn terms_are_inherited_or_asked_for() {
        let folder = TempDir::new().expect("a folder");
        let inherits = Export { licence: None, ..export(&folder) };
        let out = inherits.out.clone();
        inherits.run().expect("exported");
        let licence = Models::open(&out).expect("models").manifest.licence.expect("terms");
        assert_eq!(Some(licence), Models::built_in().expect("models").manifest.licence);
        // The set just exported, without its licence.
        let text = std::fs::read_to_string(out.join(MANIFEST)).expect("a manifest");
        let without: Vec<&str> = text.lines().filter(|line| !line.starts_with("licence")).collect();
        std::fs::write(out.join(MANIFEST), without.join("\n")).expect("written");
        let other = folder.path().join("other");
        let asks = Export { licence: None, detector: out, out: other.clone(), ..export(&folder) };
        let error = asks.run().expect_err("no terms").to_string();
        assert!(error.contains("--licence"), "{error}");
        assert!(!other.exists(), "nothing is written");
    }

    #[test]
    fn what_is_wrong_is_said_before_anything_is_written() {
        let folder = TempDir::new().expect("a folder");
        let missing = Some(folder.path().join("none.csv"));
        for export in [
            Export { check_faces: missing.clone(), ..export(&folder) },
            Export { calibrate: missing.clone(), ..export(&folder) },
            Export { run: folder.path().join("none"), ..export(&folder) },
            Export { detector: folder.path().join("none"), ..export(&folder) },
        ] {
            let out = export.out.clone();
            let error = format!("{:#}", export.run().expect_err("something is missing"));
            assert!(error.contains("none"), "{error}");
            assert!(!out.exists(), "{error}");
        }
    }
}
