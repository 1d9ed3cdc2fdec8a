//! Runs photos through the device's own detector, alignment and recognizer, on all cores.

use crate::parallel;
use anyhow::Result;
use facelatch::models::{Alignment, Models, RecognizerModel};
use facelatch::nn::Batch;
use facelatch::vision::align::{Crop, align};
use facelatch::vision::detect::{self, Detector, DetectorSettings, Face, Net, nearest_center};
use facelatch::vision::embed::{Embedder, Embedding};
use facelatch::vision::picture;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};

/// Result for one photo.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The face nearest the centre.
    Face {
        /// Bounding box, score and landmarks, in pixels of the photo.
        face: Face,
        /// Aligned face.
        crop: Crop,
        /// Embedding, if requested.
        embedding: Option<Embedding>,
    },
    /// The detector found no face.
    NoFace,
    /// The photo is unreadable; the message names the file.
    Unreadable(String),
}

/// Callback that receives the index of the photo, the detector net and its input. Called
/// from several threads.
pub type Watch<'w> = dyn Fn(usize, Net, &Batch) + Sync + 'w;

/// Detects the face nearest the centre of each photo, aligns it as the set's recognizer
/// expects (see [`Models::alignment`]), and embeds it if `embed`.
/// Results are in the photos' order; `label` names the progress bar.
///
/// # Errors
/// If a network fails. An unreadable photo is no error.
pub fn process(
    models: &Models,
    photos: &[PathBuf],
    embed: bool,
    label: &str,
) -> Result<Vec<Outcome>> {
    process_watched(models, photos, embed, label, &|_, _, _| ())
}

/// As [`process`], and calls `watch` for every input of the detector's nets.
pub fn process_watched(
    models: &Models,
    photos: &[PathBuf],
    embed: bool,
    label: &str,
    watch: &Watch,
) -> Result<Vec<Outcome>> {
    let progress = progress(photos.len(), label);
    let alignment = models.alignment();
    let outcomes = parallel::each(
        parallel::cores(),
        photos.len(),
        || {
            let detector = Detector::new(&models.detector, DetectorSettings::default())?;
            let embedder = if embed { Some(Embedder::new(models.recognizer()?)?) } else { None };
            Ok((detector, embedder))
        },
        |(detector, embedder), at| {
            let mut watch = |net, pictures: &Batch| watch(at, net, pictures);
            let outcome = one(detector, embedder.as_mut(), &alignment, &photos[at], &mut watch)?;
            progress.inc(1);
            Ok(outcome)
        },
    );
    progress.finish_and_clear();
    outcomes
}

/// Embeds aligned faces; results are in the same order. `label` names the progress bar.
pub fn embed(model: &RecognizerModel, crops: &[&Crop], label: &str) -> Result<Vec<Embedding>> {
    let progress = progress(crops.len(), label);
    let embeddings = parallel::each(
        parallel::cores(),
        crops.len(),
        || Ok(Embedder::new(model)?),
        |embedder, at| {
            let embedding = embedder.embed(crops[at])?;
            progress.inc(1);
            Ok(embedding)
        },
    );
    progress.finish_and_clear();
    embeddings
}

/// Crop and embedding of a photo's face; `None` with a warning in the log if there is none.
pub fn told(outcome: Outcome, path: &Path) -> Option<(Crop, Option<Embedding>)> {
    match outcome {
        Outcome::Face { crop, embedding, .. } => Some((crop, embedding)),
        Outcome::NoFace => {
            log::warn!("{}: no face found; skipped", path.display());
            None
        }
        Outcome::Unreadable(message) => {
            log::warn!("{message}; skipped");
            None
        }
    }
}

fn one(
    detector: &mut Detector,
    embedder: Option<&mut Embedder>,
    alignment: &Alignment,
    photo: &Path,
    watch: &mut detect::Watch,
) -> Result<Outcome> {
    let frame = match picture::read(photo) {
        Ok(frame) => frame,
        Err(error) => return Ok(Outcome::Unreadable(error.to_string())),
    };
    let faces = detector.detect_watched(&frame, watch)?;
    let Some(face) = nearest_center(faces, &frame) else { return Ok(Outcome::NoFace) };
    let crop = align(&frame, &face.landmarks, alignment);
    let embedding = embedder.map(|embedder| embedder.embed(&crop)).transpose()?;
    Ok(Outcome::Face { face: *face, crop, embedding })
}

/// A progress bar with rate and remaining time. It is drawn only on a terminal.
pub fn progress(length: usize, label: &str) -> ProgressBar {
    let bar = ProgressBar::new(length as u64);
    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} {per_sec} {eta}") {
        bar.set_style(style);
    }
    bar.set_message(label.to_owned());
    bar
}
