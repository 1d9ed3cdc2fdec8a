//! What the networks really see: pictures on their way through the device's own
//! detector, those it rejects among them.

use crate::photos::{self, Outcome};
use anyhow::Result;
use facelatch::align::Crop;
use facelatch::detect::Net;
use facelatch::models::{Models, Normalization};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use tch::{Kind, Tensor};

/// Pictures in a batch. P-Net's differ in size and are batched by it.
const BATCH: usize = 64;

/// Pictures of bytes for each network, in batches `N x 3 x H x W`.
#[derive(Debug, Default)]
pub struct Inputs {
    /// By net of the detector.
    pub detector: BTreeMap<Net, Vec<Tensor>>,
    /// The central face of each photo that shows one, with the photo's number.
    pub faces: Vec<(usize, Crop)>,
}

/// Looks at photos. The detector's nets are watched on one photo of so many.
pub fn gather(
    models: &Models,
    photos: &[PathBuf],
    watched: impl Fn(Net) -> usize + Sync,
    label: &str,
) -> Result<Inputs> {
    // By photo, because threads finish in any order.
    let seen: Mutex<BTreeMap<(Net, usize), Vec<Picture>>> = Mutex::new(BTreeMap::new());
    let normalization = models.detector.normalization;
    let watch = |photo: usize, net: Net, shape: [usize; 4], values: &[f32]| {
        if photo.is_multiple_of(watched(net).max(1)) {
            let pictures = pictures(shape, values, &normalization);
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.entry((net, photo)).or_default().extend(pictures);
        }
    };
    let outcomes = photos::process_watched(models, photos, false, label, &watch)?;
    let mut inputs = Inputs::default();
    for ((at, outcome), photo) in outcomes.into_iter().enumerate().zip(photos) {
        match outcome {
            Outcome::Face { crop, .. } => inputs.faces.push((at, crop)),
            Outcome::NoFace => log::warn!("{}: no face; left out", photo.display()),
            Outcome::Unreadable(message) => log::warn!("{message}; left out"),
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

/// Faces as batches of pictures.
pub fn batches(crops: &[&Crop]) -> Vec<Tensor> {
    let batch = |crops: &[&Crop]| {
        let (width, height) = (crops[0].frame().width(), crops[0].frame().height());
        let planes: Vec<Vec<u8>> = crops.iter().map(|crop| planar(crop.frame().pixels())).collect();
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

/// The batch that a net is fed, back in bytes; crops lose the fractions that
/// resampling leaves, as they will when the net takes bytes.
fn pictures(
    [_, channels, height, width]: [usize; 4],
    values: &[f32],
    normalization: &Normalization,
) -> Vec<Picture> {
    let plane = (height * width).max(1);
    let byte = |(channel, value): (usize, f32)| {
        let value = value * normalization.std[channel % 3] + normalization.mean[channel % 3];
        value.round_ties_even().clamp(0.0, 255.0) as u8
    };
    let one = |values: &[f32]| {
        let bytes = values.iter().enumerate().map(|(at, value)| byte((at / plane, *value)));
        Picture { height, width, bytes: bytes.collect() }
    };
    values.chunks_exact(channels.max(1) * plane).map(one).collect()
}

/// Pixel by pixel to plane by plane.
fn planar(pixels: &[u8]) -> Vec<u8> {
    (0..3).flat_map(|channel| pixels.iter().skip(channel).step_by(3)).copied().collect()
}

fn tensor(pictures: &[Vec<u8>], height: usize, width: usize) -> Tensor {
    let shape = [pictures.len(), 3, height, width];
    Tensor::from_data_size(&pictures.concat(), &shape.map(|side| side as i64), Kind::Uint8)
}
