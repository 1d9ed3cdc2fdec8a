//! The pure stages in a row: a frame in, its faces with quality and embedding
//! out.

use crate::align::{Crop, align};
use crate::detect::{DetectTimes, Detector, DetectorSettings, Face};
use crate::embed::{Embedder, Embedding};
use crate::frame::Frame;
use crate::models::{Models, ModelsError};
use crate::nn::NetworkError;
use crate::quality::{Quality, WORTH_COMPARING};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Why the stages cannot be set up.
#[derive(Debug, Error)]
pub enum RecognizerError {
    /// The set of models is not complete.
    #[error(transparent)]
    Models(#[from] ModelsError),
    /// A network does not load.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

/// A face with what the stages made of it.
#[derive(Clone, Debug)]
pub struct View {
    /// Where it is.
    pub face: Face,
    /// Turned upright.
    pub crop: Crop,
    /// How good a view it is.
    pub quality: Quality,
    /// Its embedding; nothing where the view is too poor to compare.
    pub embedding: Option<Embedding>,
}

/// Time spent in the stages of the last frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// Finding faces, by net.
    pub detect: DetectTimes,
    /// Turning them upright and measuring their quality.
    pub align: Duration,
    /// Embedding them.
    pub embed: Duration,
}

/// Detector and embedder.
pub struct Recognizer {
    detector: Detector,
    embedder: Embedder,
    times: StageTimes,
}

impl Recognizer {
    /// Loads all networks.
    pub fn new(models: &Models, settings: DetectorSettings) -> Result<Self, RecognizerError> {
        Ok(Self {
            detector: Detector::new(&models.detector, settings)?,
            embedder: Embedder::new(models.recognizer()?)?,
            times: StageTimes::default(),
        })
    }

    /// The faces of a frame that `wanted` wants, the highest score first.
    pub fn look(
        &mut self,
        frame: &Frame,
        wanted: impl Fn(&Face) -> bool,
    ) -> Result<Vec<View>, NetworkError> {
        let faces = self.detector.detect(frame)?;
        self.times = StageTimes { detect: self.detector.times(), ..StageTimes::default() };
        faces.into_iter().filter(wanted).map(|face| self.view(frame, face)).collect()
    }

    /// The view of a face already found.
    pub fn view(&mut self, frame: &Frame, face: Face) -> Result<View, NetworkError> {
        let started = Instant::now();
        let crop = align(frame, &face.landmarks);
        let quality = Quality::measure(&face, &crop);
        let aligned = Instant::now();
        let embedding = if quality.score() >= WORTH_COMPARING {
            Some(self.embedder.embed(&crop)?)
        } else {
            None
        };
        self.times.align += aligned - started;
        self.times.embed += aligned.elapsed();
        Ok(View { face, crop, quality, embedding })
    }

    /// Embeds an aligned face, whatever its quality.
    pub fn embed(&mut self, crop: &Crop) -> Result<Embedding, NetworkError> {
        self.embedder.embed(crop)
    }

    /// Where the time of the last frame went.
    pub fn times(&self) -> StageTimes {
        self.times
    }
}
