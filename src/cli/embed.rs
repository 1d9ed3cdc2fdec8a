//! `embed`: prints the embeddings of faces.

use super::image_args::{FaceLine, More, Pictures, chosen};
use super::model_args::ModelArgs;
use anyhow::Result;
use clap::Args;
use facelatch::models::Alignment;
use facelatch::vision::align::align;
use facelatch::vision::built_in_faces;
use facelatch::vision::detect::Detector;
use facelatch::vision::embed::Embedder;
use facelatch::vision::quality::Quality;
use facelatch::vision::recognizer::one_person;
use facelatch::vision::whole;
use std::process::ExitCode;

/// Compute the embeddings of the faces in pictures, unit vectors
#[derive(Args)]
pub struct Embed {
    #[command(flatten)]
    pictures: Pictures,
    /// Embed only the face nearest the centre of each picture
    #[arg(long)]
    nearest: bool,
    #[command(flatten)]
    models: ModelArgs,
}

impl Embed {
    pub fn run(self) -> Result<ExitCode> {
        let models = self.models.open()?;
        let model = models.recognizer()?;
        let mut embedder = Embedder::new(model)?;
        built_in_faces::check(&mut embedder, model, one_person(&models))?;
        let mut detector = Detector::new(&models.detector, self.pictures.detector())?;
        self.pictures.each(None, |frame| {
            let content = whole::content(frame);
            let faces = detector.detect(frame)?;
            chosen(faces, frame, self.nearest)
                .into_iter()
                .map(|face| {
                    let crop = align(frame, &face.landmarks, &Alignment::ARCFACE);
                    let quality = Quality::measure(&content, face, &crop, models.covers()).score();
                    let embedding = embedder.embed_face(frame, &face.landmarks)?;
                    Ok(FaceLine::with(face, quality, More::from(embedding)))
                })
                .collect()
        })
    }
}
