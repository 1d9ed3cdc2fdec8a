//! `embed`: faces as unit vectors.

use super::pictures::{FaceLine, More, Pictures, chosen};
use anyhow::Result;
use clap::Args;
use facelatch::align::align;
use facelatch::detect::Detector;
use facelatch::embed::Embedder;
use facelatch::models::Models;
use facelatch::quality::Quality;
use std::path::PathBuf;
use std::process::ExitCode;

/// Turn the faces in pictures into embeddings of length one
#[derive(Args)]
pub struct Embed {
    #[command(flatten)]
    pictures: Pictures,
    /// Only the face nearest the centre
    #[arg(long)]
    nearest: bool,
    /// Folder of models [default: those built in]
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
}

impl Embed {
    pub fn run(self) -> Result<ExitCode> {
        let models = Models::open_or_built_in(self.models.as_deref())?;
        let mut embedder = Embedder::new(models.recognizer()?)?;
        let mut detector = Detector::new(&models.detector, self.pictures.detector())?;
        self.pictures.each(|frame| {
            let faces = detector.detect(frame)?;
            chosen(&faces, frame, self.nearest)
                .into_iter()
                .map(|face| {
                    let crop = align(frame, &face.landmarks);
                    let quality = Quality::measure(face, &crop).score();
                    Ok(FaceLine::with(face, quality, More::from(embedder.embed(&crop)?)))
                })
                .collect()
        })
    }
}
