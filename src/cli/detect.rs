//! `detect`: finds the faces in pictures.

use super::image_args::{FaceLine, Pictures};
use super::model_args::ModelArgs;
use anyhow::Result;
use clap::Args;
use facelatch::vision::detect::Detector;
use std::path::PathBuf;
use std::process::ExitCode;

/// Find the faces in pictures: bounding box, score, five landmarks and quality
///
/// Coordinates are pixels of the picture. Quality is from 0 (useless) to 1 (perfect):
/// the lowest of the scores for size, sharpness, brightness, pose, and whether the whole
/// face is to be seen.
#[derive(Args)]
pub struct Detect {
    #[command(flatten)]
    pictures: Pictures,
    /// Save a copy of each picture in this folder, with the boxes, scores and landmarks
    /// drawn on it
    ///
    /// The copies are PNG files that only you may read, named like the pictures. A number is
    /// added to a name that is taken: no existing file is overwritten.
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    #[command(flatten)]
    models: ModelArgs,
}

impl Detect {
    pub fn run(self) -> Result<ExitCode> {
        let models = self.models.open()?;
        let mut detector = Detector::new(&models.detector, self.pictures.detector())?;
        self.pictures.each(self.save.as_deref(), |frame| {
            let faces = detector.detect(frame)?.iter();
            Ok(faces.map(|face| FaceLine::new(frame, face, models.covers())).collect())
        })
    }
}
