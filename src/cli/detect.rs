//! `detect`: where the faces are.

use super::image_args::{FaceLine, Pictures};
use super::model_args::ModelArgs;
use anyhow::Result;
use clap::Args;
use facelatch::vision::detect::Detector;
use std::process::ExitCode;

/// Find the faces in pictures: box, score, five landmarks and quality
///
/// All in pixels of the picture. Quality is 0 (useless) to 1 (as good as it
/// gets): that of the weakest of size, sharpness, light and pose.
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
