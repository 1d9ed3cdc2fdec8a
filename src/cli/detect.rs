//! `detect`: finds the faces in pictures.

use super::image_args::{FaceLine, Pictures};
use super::model_args::ModelArgs;
use anyhow::Result;
use clap::Args;
use facelatch::vision::detect::Detector;
use std::process::ExitCode;

/// Find the faces in pictures: bounding box, score, five landmarks and quality
///
/// Coordinates are pixels of the picture. Quality is from 0 (useless) to 1 (perfect):
/// the lowest of the scores for size, sharpness, brightness and pose.
#[derive(Args)]
pub struct Detect {
    #[command(flatten)]
    pictures: Pictures,
    #[command(flatten)]
    models: ModelArgs,
}

impl Detect {
    pub fn run(self) -> Result<ExitCode> {
        let models = self.models.open()?;
        let mut detector = Detector::new(&models.detector, self.pictures.detector())?;
        self.pictures.each(|frame| {
            Ok(detector.detect(frame)?.iter().map(|face| FaceLine::new(frame, face)).collect())
        })
    }
}
