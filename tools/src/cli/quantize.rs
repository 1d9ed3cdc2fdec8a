//! `quantize`: converts a floating-point model set to int8.

use super::calibrate;
use super::export::{NOT_SIGNED, this_step};
use super::import::{forget, update_manifest, write_file};
use super::say;
use crate::data::photos;
use crate::deliver::export::self_test;
use crate::measure::lfw::{Pairs, Photo, all_photos, check_apart, names_in, people_of};
use crate::quantize::fold::CENTERED;
use crate::quantize::graph::Graph;
use crate::quantize::inputs::{Inputs, batches, gather};
use crate::quantize::judge::{Agreement, Aim};
use crate::quantize::simulate::Quantized;
use crate::quantize::tune::{Progress, Schedule, tune};
use crate::quantize::whole::{Whole, compare};
use crate::quantize::{Recipe, Task, write};
use anyhow::{Context, Result, bail};
use clap::Args;
use facelatch::files::{self as input, LARGEST};
use facelatch::models::{
    Channels, DetectorEntry, FileEntry, Layout, ModelFile, Models, RecipeStep, RecognizerEntry,
    sha256_hex,
};
use facelatch::nn::Normalization;
use facelatch::vision::align::Crop;
use facelatch::vision::detect::{DetectorSettings, Net};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Quantize floating-point models to int8.
///
/// Activation ranges are measured on the photos of --calibrate. Quantization-aware training
/// then adapts the weights on the photos of --calibrate and --train. The variant to keep is
/// selected on --select. No person may be in two of these sets.
#[derive(Args)]
pub struct Quantize {
    /// Folder of the floating-point model set
    #[arg(long)]
    models: PathBuf,
    /// Folder of photos named as in LFW: NAME/NAME_0001.jpg
    #[arg(long)]
    images: PathBuf,
    /// Calibration set: file with one name per line; all photos of these people are used
    #[arg(long, value_name = "PEOPLE")]
    calibrate: PathBuf,
    /// Selection set: pairs file in LFW's format whose photos select the recipe and the
    /// epoch
    #[arg(long, value_name = "PAIRS")]
    select: PathBuf,
    /// Pairs file in LFW's format whose people are used for training, in addition to those
    /// of --calibrate
    #[arg(long, value_name = "PAIRS")]
    train: Option<PathBuf>,
    /// Output folder: the int8 models, manifest.toml and quantize.json
    #[arg(long, default_value = "models")]
    out: PathBuf,
    /// Version of the new model set
    #[arg(long)]
    name: String,
    /// Epochs of quantization-aware training (three times as many for P-Net); 0 turns it
    /// off
    #[arg(long, value_name = "N", default_value_t = 2)]
    qat_epochs: usize,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    seed: i64,
}

/// Interval of photos whose windows are collected for a net: every fourth, second or each
/// photo. That gives thousands of windows per net, rejected ones included.
fn watched(net: Net) -> usize {
    match net {
        Net::Pnet => 4,
        Net::Rnet => 2,
        Net::Onet => 1,
    }
}

/// Approximate number of faces for measuring ranges, and for selecting the recipe.
const CALIBRATED_ON: usize = 512;
const CHOSEN_ON: usize = 256;

/// `quantize.json`: what was done and how close the result is to floating point.
#[derive(Serialize)]
struct Record<'m> {
    seed: i64,
    networks: BTreeMap<&'m str, NetworkRecord>,
    whole: Whole,
}

#[derive(Serialize)]
struct NetworkRecord {
    bytes: usize,
    recipe: Recipe,
    training: Schedule,
    /// Agreement with floating point on the selection set, before training and after each
    /// epoch.
    agreement: Vec<Agreement>,
    /// The selected epoch; 0 is before training.
    chosen: usize,
}

impl Quantize {
    pub fn run(self) -> Result<()> {
        let models = Models::open(&self.models)?;
        // All input is checked before the long work begins.
        let read = |file: &ModelFile| Graph::read(&file.name, &file.bytes);
        let recognizer = models.recognizer()?;
        let nets = [
            ("pnet", read(&models.detector.pnet)?, Some(Net::Pnet)),
            ("rnet", read(&models.detector.rnet)?, Some(Net::Rnet)),
            ("onet", read(&models.detector.onet)?, Some(Net::Onet)),
            (recognizer_name(&models)?, read(&recognizer.file)?, None),
        ];
        if let Some((name, ..)) =
            nets.iter().find(|(_, graph, net)| net.is_some() && graph.start.is_some())
        {
            bail!(
                "{name}: scales its picture itself, which only a recognizer may; import the \
                 detector again"
            );
        }
        let [calibrate, train, select] = self.data()?;
        let calibrate = self.gather(&models, &calibrate, "calibration")?;
        let train = self.gather(&models, &train, "training")?;
        let chosen_by = self.gather(&models, &select, "selection")?;

        let mut networks = BTreeMap::new();
        let mut files = BTreeMap::new();
        let mut recognizer_takes = CENTERED;
        for (name, graph, net) in &nets {
            let (normalization, aim) = match net {
                Some(net) => (models.detector.normalization, Aim::Windows(threshold(*net))),
                None => (recognizer.normalization, Aim::Direction),
            };
            let task = Task {
                graph,
                normalization,
                aim,
                calibrate: &pictures(&[&calibrate], *net, CALIBRATED_ON, recognizer.channels),
                select: &pictures(&[&chosen_by], *net, CHOSEN_ON, recognizer.channels),
                seed: self.seed,
            };
            let learned_from =
                pictures(&[&calibrate, &train], *net, usize::MAX, recognizer.channels);
            say(name);
            let training = schedule(*net, self.qat_epochs);
            let (done, written) = quantize(&task, &learned_from, training)?;
            let bytes = write::write(&done);
            write_file(&self.out.join(format!("{name}.onnx")), &bytes)?;
            networks.insert(*name, written);
            let entry = FileEntry { file: format!("{name}.onnx"), sha256: sha256_hex(&bytes) };
            files.insert(*name, entry);
            if net.is_none() {
                recognizer_takes = done.picture.normalization();
            }
        }
        self.write_manifest(&models, &files, recognizer_takes)?;
        let made = Models::open(&self.out)?;
        let thresholds = calibrate::thresholds(&made, &self.images, &self.calibrate)?;
        calibrate::write(&self.out, thresholds, None)?;

        let people: Vec<&str> = select.iter().map(|photo| photo.person.as_str()).collect();
        let whole = compare([&models, &made], &self.paths(&select), &people)?;
        tell_whole(&whole);
        self.write_figures(&models, &whole)?;
        let record = Record { seed: self.seed, networks, whole };
        write_file(&self.out.join("quantize.json"), &serde_json::to_vec_pretty(&record)?)?;
        say(NOT_SIGNED);
        Ok(())
    }

    /// Photos of the calibration, training and selection set.
    ///
    /// # Errors
    /// If a file cannot be read or a person is in two sets.
    fn data(&self) -> Result<[Vec<Photo>; 3]> {
        let select = Pairs::read(&self.select)?;
        let calibrate = names_in(&self.calibrate)?;
        let train = self.train.as_deref().map(Pairs::read).transpose()?;
        let train = train.as_ref().map(people_of).unwrap_or_default();
        check_apart(&[
            ("--calibrate", calibrate.clone()),
            ("--train", train.clone()),
            ("--select", people_of(&select)),
        ])?;
        let all = |people| all_photos(&self.images, people);
        Ok([all(&calibrate)?, all(&train)?, select.photos()])
    }

    fn paths(&self, photos: &[Photo]) -> Vec<PathBuf> {
        photos.iter().map(|photo| photo.path(&self.images)).collect()
    }

    fn gather(&self, models: &Models, photos: &[Photo], label: &str) -> Result<Inputs> {
        gather(models, &self.paths(photos), watched, label)
    }

    /// Writes the measured figures and the self-test into the manifest. Any later change of
    /// a network would make the self-test fail.
    fn write_figures(&self, models: &Models, whole: &Whole) -> Result<()> {
        let mut figures = models.manifest.figures.clone();
        figures.extend([
            ("quantize_cosine".to_owned(), f64::from(whole.cosine)),
            ("quantize_landmarks".to_owned(), f64::from(whole.landmarks[0])),
        ]);
        update_manifest(&self.out, None, "figures", toml::Value::try_from(figures)?)?;
        let (entry, files) = self_test(&Models::open(&self.out)?)?;
        for (name, bytes) in files {
            write_file(&self.out.join(name), &bytes)?;
        }
        update_manifest(&self.out, None, "selftest", toml::Value::try_from(entry)?)
    }

    /// The recipe of the floating-point set with this step added at the end.
    fn recipe(&self, models: &Models) -> Result<Vec<RecipeStep>> {
        let mut data = BTreeMap::new();
        let parts = [("calibrate", Some(&self.calibrate)), ("select", Some(&self.select))];
        for (part, file) in parts.into_iter().chain([("train", self.train.as_ref())]) {
            if let Some(file) = file {
                let bytes =
                    input::read(file, LARGEST).with_context(|| file.display().to_string())?;
                data.insert(part.to_owned(), sha256_hex(&bytes));
            }
        }
        let mut recipe = models.manifest.recipe.clone();
        recipe.push(RecipeStep { seed: Some(self.seed), ..this_step(data) });
        Ok(recipe)
    }

    /// Writes the manifest without thresholds, which are measured later with the new
    /// models. Licence and recipe come from the floating-point set. `normalization` is that
    /// of the new recognizer.
    fn write_manifest(
        &self,
        models: &Models,
        files: &BTreeMap<&str, FileEntry>,
        normalization: Normalization,
    ) -> Result<()> {
        let recognizer = models.recognizer()?;
        let file = |name: &str| {
            files.get(name).cloned().with_context(|| format!("{name} was not quantized"))
        };
        let detector = DetectorEntry {
            layout: Layout::Nchw,
            channels: Channels::Rgb,
            normalization: CENTERED,
            pnet: file("pnet")?,
            rnet: file("rnet")?,
            onet: file("onet")?,
        };
        let FileEntry { file, sha256 } = file(recognizer_name(models)?)?;
        let recognizer = RecognizerEntry {
            file,
            sha256,
            layout: Layout::Nchw,
            channels: recognizer.channels,
            alignment: recognizer.alignment,
            normalization,
            embedding_size: recognizer.embedding_size,
            thresholds: BTreeMap::new(),
            calibration: None,
            likelihood: None,
            worst_group: None,
        };
        update_manifest(&self.out, None, "detector", toml::Value::try_from(detector)?)?;
        let recognizer = toml::Value::try_from(recognizer)?;
        update_manifest(&self.out, Some(&self.name), "recognizer", recognizer)?;
        // These described networks that were in this folder before.
        forget(&self.out, &["selftest", "recipe", "figures", "licence"])?;
        if let Some(licence) = &models.manifest.licence {
            update_manifest(&self.out, None, "licence", licence.as_str().into())?;
        }
        let recipe = toml::Value::try_from(self.recipe(models)?)?;
        update_manifest(&self.out, None, "recipe", recipe)
    }
}

/// Name of the recognizer's file in the manifest, without its extension.
fn recognizer_name(models: &Models) -> Result<&str> {
    let entry = models.manifest.recognizer.as_ref().context("the set has no recognizer")?;
    let name = entry.file.strip_suffix(".onnx").unwrap_or(&entry.file);
    if ["pnet", "rnet", "onet"].contains(&name) {
        bail!("the recognizer's file is named {name}, like one of the detector; rename it");
    }
    Ok(name)
}

/// Quantizes and trains one network; returns it and its record.
fn quantize(
    task: &Task,
    learned_from: &[tch::Tensor],
    training: Schedule,
) -> Result<(Quantized, NetworkRecord)> {
    let start = task.post_training(&Recipe::all(), tell)?;
    let pictures: i64 = learned_from.iter().map(|batch| batch.size()[0]).sum();
    let bar = photos::progress(pictures as usize * training.epochs, "training");
    let done = tune(task, &start.quantized, learned_from, &training, |progress| match progress {
        Progress::Seen(pictures) => bar.inc(*pictures as u64),
        Progress::Judged(epoch, agreement) => {
            bar.suspend(|| say(&format!("  epoch {epoch:<28} {}", told(agreement))));
        }
    })?;
    bar.finish_and_clear();
    let record = NetworkRecord {
        bytes: write::write(&done.quantized).len(),
        recipe: start.recipe,
        training,
        agreement: done.epochs,
        chosen: done.chosen,
    };
    Ok((done.quantized, record))
}

/// Schedule of quantization-aware training per network. P-Net has few weights and many
/// windows per picture, so its epochs are short and there are more of them. Higher learning
/// rates made the results of the detector's nets unsteady on the selection photos; lower
/// ones did not improve the recognizer.
fn schedule(net: Option<Net>, epochs: usize) -> Schedule {
    match net {
        Some(Net::Pnet) => Schedule { epochs: 3 * epochs, batch: 16, rate: 0.003 },
        Some(Net::Rnet | Net::Onet) => Schedule { epochs, batch: 64, rate: 0.003 },
        None => Schedule { epochs, batch: 32, rate: 0.01 },
    }
}

/// Input batches of a network: all windows of a detector net or, for the recognizer, about
/// `faces` faces spread evenly over the list, in the order `channels`.
fn pictures(
    inputs: &[&Inputs],
    net: Option<Net>,
    faces: usize,
    channels: Channels,
) -> Vec<tch::Tensor> {
    match net {
        Some(net) => {
            let batches = inputs.iter().filter_map(|inputs| inputs.detector.get(&net)).flatten();
            batches.map(tch::Tensor::shallow_clone).collect()
        }
        None => {
            let all = inputs.iter().flat_map(|inputs| &inputs.faces);
            let step = (all.clone().count() / faces).max(1);
            let crops: Vec<&Crop> = all.step_by(step).map(|(_, crop)| crop).collect();
            batches(&crops, channels)
        }
    }
}

fn threshold(net: Net) -> f64 {
    let [pnet, rnet, onet] = DetectorSettings::default().thresholds;
    f64::from(match net {
        Net::Pnet => pnet,
        Net::Rnet => rnet,
        Net::Onet => onet,
    })
}

fn tell(recipe: &Recipe, agreement: &Agreement) {
    let Recipe { activations, correct_biases } = recipe;
    let ranges = format!("{activations:?}");
    let biases = if *correct_biases { "bias correction" } else { "no correction" };
    say(&format!("  {ranges:16} {biases:17} {}", told(agreement)));
}

fn tell_whole(whole: &Whole) {
    let Whole { photos, found: [float, bytes], same, landmarks, cosine, rates } = whole;
    say(&format!(
        "faces found in {photos} photos: {float} in floating point, {bytes} in int8, {same} the same face"
    ));
    say(&format!(
        "landmarks differ by {:.2} px on average (95th percentile {:.2}), cosine {cosine:.4}",
        landmarks[0], landmarks[1]
    ));
    for rate in rates {
        let [float, bytes] = rate.tar.map(|rate| rate * 100.0);
        say(&format!(
            "FAR {:.0e}  TAR {float:.2} % in floating point, {bytes:.2} % in int8",
            rate.far
        ));
    }
}

fn told(agreement: &Agreement) -> String {
    match agreement {
        Agreement::Direction { mean_cosine, least_cosine } => {
            format!("cosine {mean_cosine:.5}, minimum {least_cosine:.5}")
        }
        Agreement::Windows { windows, passing, told_apart, boxes, landmarks } => format!(
            "{windows} windows, {passing} pass, {:.2} % decided differently, box RMSE {boxes:.4}, landmark RMSE {landmarks:.4}",
            told_apart * 100.0
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::affine::Affine;
    use facelatch::nn::Precision;
    use facelatch::storage::models::check_folder;
    use std::path::Path;
    use tempfile::TempDir;

    /// Treats the shipped models as if they had just been quantized.
    #[test]
    fn terms_recipe_and_a_self_test_come_along() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
        let folder = TempDir::new().expect("a folder");
        let out = folder.path().join("out");
        std::fs::create_dir(&out).expect("a folder");
        let names = ["pnet", "rnet", "onet", "mobilefacenet"];
        let files: BTreeMap<&str, FileEntry> = names
            .into_iter()
            .map(|name| {
                let file = format!("{name}.onnx");
                let bytes = std::fs::read(shipped.join(&file)).expect("a model");
                std::fs::write(out.join(&file), &bytes).expect("written");
                (name, FileEntry { file, sha256: sha256_hex(&bytes) })
            })
            .collect();
        let people = folder.path().join("people.txt");
        std::fs::write(&people, "Ada\n").expect("written");
        let mut models = Models::open(&shipped).expect("models");
        models.manifest.recipe = vec![RecipeStep { seed: Some(1), ..RecipeStep::default() }];
        models.manifest.figures = BTreeMap::from([("epoch".to_owned(), 7.0)]);
        let quantize = Quantize {
            models: shipped.clone(),
            images: folder.path().to_owned(),
            calibrate: people.clone(),
            select: people,
            train: None,
            out: out.clone(),
            name: "new".to_owned(),
            qat_epochs: 0,
            seed: 3,
        };
        let normalization = models.recognizer().expect("a recognizer").normalization;
        quantize.write_manifest(&models, &files, normalization).expect("written");
        let recognizer = models.manifest.recognizer.clone().expect("a recognizer");
        let calibration = recognizer.calibration.expect("a calibration");
        calibrate::write(&out, (recognizer.thresholds, calibration), None).expect("written");
        let whole = Whole {
            photos: 1,
            found: [1, 1],
            same: 1,
            landmarks: [0.3, 0.5],
            cosine: 0.998,
            rates: vec![],
        };
        quantize.write_figures(&models, &whole).expect("written");

        let checked = check_folder(&out, Precision::Int8).expect("a set that a door takes");
        assert_eq!(checked.report.expect("a self-test").vectors, 2);
        let manifest = checked.models.manifest;
        assert_eq!(manifest.version, "new");
        assert_eq!(manifest.licence, models.manifest.licence);
        assert_eq!((manifest.figures["epoch"], manifest.recipe.len()), (7.0, 2));
        assert_eq!(manifest.recipe[1].seed, Some(3));
        assert_eq!(manifest.recipe[1].data["calibrate"], sha256_hex(b"Ada\n"));
        // A second run removes the self-test and figures of the first.
        let other = Affine::picture(67).normalization();
        quantize.write_manifest(&models, &files, other).expect("written");
        let manifest = Models::open(&out).expect("models").manifest;
        assert_eq!((manifest.selftest, manifest.figures.len()), (None, 0));
        assert_eq!(manifest.recognizer.expect("a recognizer").normalization.mean, [67.0; 3]);
    }
}
