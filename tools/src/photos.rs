//! Photos through the device's own detector, alignment and embedder, on all
//! cores.

use crate::parallel;
use anyhow::Result;
use facelatch::align::{Crop, align};
use facelatch::detect::{self, Detector, DetectorSettings, Face, Net, nearest_center};
use facelatch::embed::{Embedder, Embedding};
use facelatch::models::Models;
use facelatch::nn::Pictures;
use facelatch::picture;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What became of a photo.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The face nearest the centre.
    Face {
        /// Where it is.
        face: Face,
        /// Aligned.
        crop: Crop,
        /// Embedded, where embeddings were asked for.
        embedding: Option<Embedding>,
    },
    /// No face found.
    NoFace,
    /// Not readable; the message names the file.
    Unreadable(String),
}

/// Sees what the detector's nets are fed, with the photo's place in the list. Called
/// from several threads.
pub type Watch<'w> = dyn Fn(usize, Net, &Pictures) + Sync + 'w;

/// Finds, aligns and, if `embed`, embeds the central face of each photo. The
/// outcomes come in the photos' order.
pub fn process(
    models: &Models,
    photos: &[PathBuf],
    embed: bool,
    label: &str,
) -> Result<Vec<Outcome>> {
    process_watched(models, photos, embed, label, &|_, _, _| ())
}

/// The same, while `watch` sees every input of the detector's nets.
pub fn process_watched(
    models: &Models,
    photos: &[PathBuf],
    embed: bool,
    label: &str,
    watch: &Watch,
) -> Result<Vec<Outcome>> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let progress = progress(photos.len(), label);
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(vec![None; photos.len()]);
    std::thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..threads.min(photos.len()))
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let mut detector =
                        Detector::new(&models.detector, DetectorSettings::default())?;
                    let mut embedder =
                        if embed { Some(Embedder::new(models.recognizer()?)?) } else { None };
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(photo) = photos.get(index) else { return Ok(()) };
                        let mut watch = |net, pictures: &Pictures| watch(index, net, pictures);
                        let outcome = one(&mut detector, embedder.as_mut(), photo, &mut watch)?;
                        if let Ok(mut outcomes) = outcomes.lock() {
                            outcomes[index] = Some(outcome);
                        }
                        progress.inc(1);
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("a worker thread panicked"))??;
        }
        Ok(())
    })?;
    progress.finish_and_clear();
    let outcomes = outcomes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    // Every index below the length was taken by exactly one worker.
    Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or(Outcome::NoFace)).collect())
}

/// Embeds aligned faces, in their order.
pub fn embed(models: &Models, crops: &[&Crop], label: &str) -> Result<Vec<Embedding>> {
    let progress = progress(crops.len(), label);
    let model = models.recognizer()?;
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

/// The face of a photo; a photo without one is told and left out.
pub fn told(outcome: Outcome, path: &Path) -> Option<(Crop, Option<Embedding>)> {
    match outcome {
        Outcome::Face { crop, embedding, .. } => Some((crop, embedding)),
        Outcome::NoFace => {
            log::warn!("{}: no face; left out", path.display());
            None
        }
        Outcome::Unreadable(message) => {
            log::warn!("{message}; left out");
            None
        }
    }
}

fn one(
    detector: &mut Detector,
    embedder: Option<&mut Embedder>,
    photo: &Path,
    watch: &mut detect::Watch,
) -> Result<Outcome> {
    let frame = match picture::read(photo) {
        Ok(frame) => frame,
        Err(error) => return Ok(Outcome::Unreadable(error.to_string())),
    };
    let faces = detector.detect_watched(&frame, watch)?;
    let Some(face) = nearest_center(faces, &frame) else { return Ok(Outcome::NoFace) };
    let crop = align(&frame, &face.landmarks);
    let embedding = embedder.map(|embedder| embedder.embed(&crop)).transpose()?;
    Ok(Outcome::Face { face: *face, crop, embedding })
}

/// A progress bar with rate and time left on a terminal, nothing elsewhere.
pub fn progress(length: usize, label: &str) -> ProgressBar {
    let bar = ProgressBar::new(length as u64);
    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} {per_sec} {eta}") {
        bar.set_style(style);
    }
    bar.set_message(label.to_owned());
    bar
}
