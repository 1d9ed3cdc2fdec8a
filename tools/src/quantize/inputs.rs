//! Calibration pictures: the inputs of the networks when photos pass through the device's
//! own detector, including candidates that it rejects.

use crate::data::photos::{self, Outcome};
use anyhow::Result;
use facelatch::models::{Channels, Models};
use facelatch::nn::Batch;
use facelatch::vision::align::Crop;
use facelatch::vision::detect::Net;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use tch::{Kind, Tensor};

/// Batch per batch. P-Net's pictures differ in size, so each size has its own batches.
const BATCH: usize = 64;

/// Byte pictures for each network, in batches `N x 3 x H x W`.
#[derive(Debug, Default)]
pub struct Inputs {
    /// Inputs of the detector's networks.
    pub detector: BTreeMap<Net, Vec<Tensor>>,
    /// The central face of each photo that shows one, with the index of the photo.
    pub faces: Vec<(usize, Crop)>,
}

/// Runs the detector on photos and collects the inputs of its networks. `watched` gives n
/// for each network, whose inputs are collected from every n-th photo. Photos that cannot
/// be read or show no face are logged and skipped.
pub fn gather(
    models: &Models,
    photos: &[PathBuf],
    watched: impl Fn(Net) -> usize + Sync,
    label: &str,
) -> Result<Inputs> {
    // Sorted by photo, because threads finish in any order.
    let seen: Mutex<BTreeMap<(Net, usize), Vec<Picture>>> = Mutex::new(BTreeMap::new());
    let watch = |photo: usize, net: Net, pictures: &Batch| {
        if photo.is_multiple_of(watched(net).max(1)) {
            let pictures = in_bytes(pictures);
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.entry((net, photo)).or_default().extend(pictures);
        }
    };
    let outcomes = photos::process_watched(models, photos, false, label, &watch)?;
    let mut inputs = Inputs::default();
    for ((at, outcome), photo) in outcomes.into_iter().enumerate().zip(photos) {
        match outcome {
            Outcome::Face { crop, .. } => inputs.faces.push((at, crop)),
            Outcome::NoFace => log::warn!("{}: no face found; skipped", photo.display()),
            Outcome::Unreadable(message) => log::warn!("{message}; skipped"),
        }
    }
    let mut by_size: BTreeMap<(Net, usize, usize), Vec<Vec<u8>>> = BTreeMap::new();
    for ((net, _), pictures) in seen.into_inner().unwrap_or_else(PoisonError::into_inner) {
        for Picture { height, width, bytes } in pictures {
            by_size.entry((net, height, width)).or_default().push(bytes);
        }
    }
    for ((net, height, width), pictures) in by_size {
        let batches = inputs.detector.entry(net).or_default();
        batches.extend(pictures.chunks(BATCH).map(|batch| tensor(batch, height, width)));
    }
    Ok(inputs)
}

/// Crops as batches `N x 3 x side x side` of bytes, in the order `channels`.
pub fn batches(crops: &[&Crop], channels: Channels) -> Vec<Tensor> {
    let batch = |crops: &[&Crop]| {
        let (width, height) = (crops[0].frame().width(), crops[0].frame().height());
        let planes: Vec<Vec<u8>> =
            crops.iter().map(|crop| planar(crop.frame().pixels(), channels)).collect();
        tensor(&planes, height, width)
    };
    crops.chunks(BATCH).map(batch).collect()
}

/// One picture, planar RGB.
struct Picture {
    height: usize,
    width: usize,
    bytes: Vec<u8>,
}

/// The inputs of a network, rounded to bytes. Crops lose the fractions that resampling
/// leaves, as they do when the network takes bytes.
fn in_bytes(pictures: &Batch) -> Vec<Picture> {
    let mut values = pictures.values();
    let mut next = |&(height, width): &(usize, usize)| {
        let (picture, rest) = values.split_at(height * width * Batch::PIXEL);
        values = rest;
        let plane = |channel: usize| picture.iter().skip(channel).step_by(Batch::PIXEL);
        let byte = |value: &i16| (value + Batch::STEPS / 2).div_euclid(Batch::STEPS);
        let bytes = (0..3).flat_map(plane).map(|value| byte(value).clamp(0, 255) as u8);
        Picture { height, width, bytes: bytes.collect() }
    };
    pictures.sides().iter().map(&mut next).collect()
}

/// Interleaved RGB to planes in the order `channels`.
fn planar(pixels: &[u8], channels: Channels) -> Vec<u8> {
    channels
        .from_rgb()
        .into_iter()
        .flat_map(|channel| pixels.iter().skip(channel).step_by(3))
        .copied()
        .collect()
}

fn tensor(pictures: &[Vec<u8>], height: usize, width: usize) -> Tensor {
    let shape = [pictures.len(), 3, height, width];
    Tensor::from_data_size(&pictures.concat(), &shape.map(|side| side as i64), Kind::Uint8)
}
