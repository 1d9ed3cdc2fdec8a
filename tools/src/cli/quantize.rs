//! `quantize`: a set of models in floating point into one in 8 bits.

use super::finetune::{all_photos, check_apart, names_in, people_of};
use super::import::{update_manifest, write_file};
use crate::lfw::{Pairs, Photo};
use crate::quantize::graph::Graph;
use crate::quantize::fold::CENTERED;
use crate::quantize::inputs::{Inputs, batches, gather};
use crate::quantize::judge::{Agreement, Aim};
use crate::quantize::{Recipe, Task, write};
use anyhow::{Context, Result};
use clap::Args;
use facelatch::align::Crop;
use facelatch::detect::{DetectorSettings, Net};
use facelatch::models::{
    Channels, DetectorEntry, FileEntry, Layout, ModelFile, Models, RecognizerEntry, sha256_hex,
};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Turn floating-point models into 8-bit ones.
///
/// Ranges are measured on the photos of --calibrate, recipes are chosen on those of
/// --select, and nobody should be in both.
#[derive(Args)]
pub struct Quantize {
    /// Folder of floating-point models
    #[arg(long)]
    models: PathBuf,
    /// Folder of NAME/NAME_0001.jpg
    #[arg(long)]
    images: PathBuf,
    /// File with a name a line: people to measure ranges on, with all their photos
    #[arg(long, value_name = "PEOPLE")]
    calibrate: PathBuf,
    /// Pairs file whose photos choose the recipe
    #[arg(long, value_name = "PAIRS")]
    select: PathBuf,
    /// Folder for the 8-bit models and manifest.toml
    #[arg(long, default_value = "models")]
    out: PathBuf,
    /// Version of the new set of models
    #[arg(long)]
    name: String,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    seed: i64,
}

/// Of how many photos one is watched for each net's ranges: enough for thousands of
/// windows of each, among them those that are rejected.
fn watched(net: Net) -> usize {
    match net {
        Net::Pnet => 8,
        Net::Rnet => 8,
        Net::Onet => 2,
    }
}

/// Faces that ranges are measured on, and that choose the recipe.
const CALIBRATED_ON: usize = 512;
const CHOSEN_ON: usize = 256;

/// `quantize.json`: what was done and how near it stays to floating point.
#[derive(Serialize)]
struct Record {
    seed: i64,
    networks: BTreeMap<&'static str, NetworkRecord>,
}

#[derive(Serialize)]
struct NetworkRecord {
    recipe: Recipe,
    agreement: Agreement,
    bytes: usize,
}

impl Quantize {
    pub fn run(self) -> Result<()> {
        let models = Models::open(&self.models)?;
        // All that can be wrong with the input is, before the long work begins.
        let read = |file: &ModelFile| Graph::read(&file.name, &file.bytes);
        let recognizer = models.recognizer()?;
        let nets = [
            ("pnet", read(&models.detector.pnet)?, Some(Net::Pnet)),
            ("rnet", read(&models.detector.rnet)?, Some(Net::Rnet)),
            ("onet", read(&models.detector.onet)?, Some(Net::Onet)),
            ("mobilefacenet", read(&recognizer.file)?, None),
        ];
        let select = Pairs::read(&self.select)?;
        let people = names_in(&self.calibrate)?;
        check_apart(&[("--calibrate", people.clone()), ("--select", people_of(&select))])?;
        let calibrate = self.gather(&models, &all_photos(&self.images, &people)?, "calibration")?;
        let select = self.gather(&models, &select.photos(), "selection")?;

        let mut record = Record { seed: self.seed, networks: BTreeMap::new() };
        let mut files = BTreeMap::new();
        for (name, graph, net) in &nets {
            let (normalization, aim) = match net {
                Some(net) => (models.detector.normalization, Aim::Windows(threshold(*net))),
                None => (recognizer.normalization, Aim::Direction),
            };
            let task = Task {
                graph,
                normalization,
                aim,
                calibrate: &pictures(&calibrate, *net, CALIBRATED_ON),
                select: &pictures(&select, *net, CHOSEN_ON),
                seed: self.seed,
            };
            say(name);
            let done = task.post_training(tell)?;
            let bytes = write::write(&done.quantized);
            write_file(&self.out.join(format!("{name}.onnx")), &bytes)?;
            record.networks.insert(
                *name,
                NetworkRecord {
                    recipe: done.recipe,
                    agreement: done.agreement,
                    bytes: bytes.len(),
                },
            );
            let entry = FileEntry { file: format!("{name}.onnx"), sha256: sha256_hex(&bytes) };
            files.insert(*name, entry);
        }
        self.write_manifest(&files, recognizer.embedding_size)?;
        write_file(&self.out.join("quantize.json"), &serde_json::to_vec_pretty(&record)?)
    }

    fn gather(&self, models: &Models, photos: &[Photo], label: &str) -> Result<Inputs> {
        let paths: Vec<PathBuf> = photos.iter().map(|photo| photo.path(&self.images)).collect();
        gather(models, &paths, watched, label)
    }

    /// Without thresholds: those of other weights would not hold.
    fn write_manifest(
        &self,
        files: &BTreeMap<&str, FileEntry>,
        embedding_size: usize,
    ) -> Result<()> {
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
        let FileEntry { file, sha256 } = file("mobilefacenet")?;
        let recognizer = RecognizerEntry {
            file,
            sha256,
            layout: Layout::Nchw,
            channels: Channels::Rgb,
            normalization: CENTERED,
            embedding_size,
            thresholds: BTreeMap::new(),
            calibration: None,
        };
        update_manifest(&self.out, None, "detector", toml::Value::try_from(detector)?)?;
        let recognizer = toml::Value::try_from(recognizer)?;
        update_manifest(&self.out, Some(&self.name), "recognizer", recognizer)
    }
}

/// A network's pictures: the windows of a net of the detector, or so many faces from
/// all over the list.
fn pictures(inputs: &Inputs, net: Option<Net>, faces: usize) -> Vec<tch::Tensor> {
    match net {
        Some(net) => inputs
            .detector
            .get(&net)
            .map_or(vec![], |batches| batches.iter().map(tch::Tensor::shallow_clone).collect()),
        None => {
            let step = (inputs.faces.len() / faces).max(1);
            let crops: Vec<&Crop> =
                inputs.faces.iter().step_by(step).map(|(_, crop)| crop).collect();
            batches(&crops)
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
    let Recipe { activations, cut_weights, correct_biases } = recipe;
    let ranges = format!("{activations:?}");
    let weights = if *cut_weights { "cut weights" } else { "whole weights" };
    let biases = if *correct_biases { "corrected biases" } else { "plain biases" };
    say(&format!("  {ranges:16} {weights:14} {biases:17} {}", told(agreement)));
}

fn told(agreement: &Agreement) -> String {
    match agreement {
        Agreement::Direction { mean_cosine, least_cosine } => {
            format!("cosine {mean_cosine:.5}, least {least_cosine:.5}")
        }
        Agreement::Windows { windows, passing, told_apart, boxes, landmarks } => format!(
            "{windows} windows, {passing} pass, {:.2} % told apart, boxes {boxes:.4}, landmarks {landmarks:.4}",
            told_apart * 100.0
        ),
    }
}

#[expect(clippy::print_stdout, reason = "the command's own output")]
fn say(line: &str) {
    println!("{line}");
}
