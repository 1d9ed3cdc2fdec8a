//! `detect`: where the faces are.

use super::pictures::{FaceLine, Pictures};
use anyhow::Result;
use clap::Args;
use facelatch::detect::{Detector, DetectorSettings};
use facelatch::models::Models;
use std::process::ExitCode;

/// Find the faces in pictures: box, score and five landmarks, in pixels of the picture.
#[derive(Args)]
pub struct Detect {
    #[command(flatten)]
    pictures: Pictures,
}

impl Detect {
    pub fn run(self) -> Result<ExitCode> {
        let models = Models::open_or_built_in(self.pictures.models.as_deref())?;
        let settings = DetectorSettings {
            minimum_face: self.pictures.minimum_face,
            ..DetectorSettings::default()
        };
        let mut detector = Detector::new(&models.detector, settings)?;
        self.pictures.each(|frame| {
            Ok(detector.detect(frame)?.iter().map(|face| FaceLine::new(face, None)).collect())
        })
    }
}
