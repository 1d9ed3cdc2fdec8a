//! `embed`: faces as unit vectors.

use super::pictures::{FaceLine, Pictures, chosen};
use anyhow::Result;
use clap::Args;
use facelatch::align::align;
use facelatch::detect::{Detector, DetectorSettings};
use facelatch::embed::Embedder;
use facelatch::models::Models;
use std::process::ExitCode;

/// Turn the faces in pictures into embeddings of length one.
///
/// The models built in hold no recognizer yet: name a folder with one by --models.
#[derive(Args)]
pub struct Embed {
    #[command(flatten)]
    pictures: Pictures,
    /// Only the face nearest the centre
    #[arg(long)]
    nearest: bool,
}

impl Embed {
    pub fn run(self) -> Result<ExitCode> {
        let models = Models::open_or_built_in(self.pictures.models.as_deref())?;
        let mut embedder = Embedder::new(models.recognizer()?)?;
        let settings = DetectorSettings {
            minimum_face: self.pictures.minimum_face,
            ..DetectorSettings::default()
        };
        let mut detector = Detector::new(&models.detector, settings)?;
        self.pictures.each(|frame| {
            let faces = detector.detect(frame)?;
            chosen(&faces, frame, self.nearest)
                .into_iter()
                .map(|face| {
                    let embedding = embedder.embed(&align(frame, &face.landmarks))?;
                    Ok(FaceLine::new(face, Some(embedding)))
                })
                .collect()
        })
    }
}
