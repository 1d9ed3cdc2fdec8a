//! The pure stages in a row: a frame in, its faces with quality and embedding
//! out.

use crate::align::{Crop, align};
use crate::detect::{DetectTimes, Detector, DetectorSettings, Face};
use crate::embed::{Embedder, Template};
use crate::frame::{Frame, Rect};
use crate::models::{ModelId, Models, ModelsError};
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
    /// Its embedding, signed by the model; nothing where the view is too poor to
    /// compare.
    pub template: Option<Template>,
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

/// A frame in so many is searched everywhere while faces are followed. Evidence
/// takes at least as many frames, so nobody is let in unless all faces were seen.
const SEARCH_EVERY: usize = 3;

/// Detector and embedder.
pub struct Recognizer {
    detector: Detector,
    embedder: Embedder,
    model: ModelId,
    times: StageTimes,
    /// Of the frame that is looked at.
    faces: Vec<Face>,
    followed: Followed,
}

/// The faces of the last frame.
#[derive(Default)]
struct Followed {
    faces: Vec<Rect>,
    sides: (usize, usize),
    /// Frames since all of one was searched.
    since: usize,
}

impl Recognizer {
    /// Loads all networks.
    pub fn new(models: &Models, settings: DetectorSettings) -> Result<Self, RecognizerError> {
        Ok(Self {
            detector: Detector::new(&models.detector, settings)?,
            embedder: Embedder::new(models.recognizer()?)?,
            model: models.recognizer_id()?,
            times: StageTimes::default(),
            faces: Vec::new(),
            followed: Followed::default(),
        })
    }

    /// The faces of a frame that `wanted` wants, the highest score first.
    pub fn look(
        &mut self,
        frame: &Frame,
        wanted: impl Fn(&Face) -> bool,
    ) -> Result<Vec<View>, NetworkError> {
        let faces = self.detector.detect(frame)?;
        self.faces.clear();
        self.faces.extend(faces.iter().filter(|face| wanted(face)));
        self.views(frame)
    }

    /// Whether the last frame of a video showed a face.
    pub fn followed(&self) -> bool {
        !self.followed.faces.is_empty()
    }

    /// The same for the next frame of a video: while faces are in view, most frames
    /// are searched around them only; one in three is searched everywhere, and each
    /// in which one of them is not found again.
    pub fn follow(
        &mut self,
        frame: &Frame,
        wanted: impl Fn(&Face) -> bool,
    ) -> Result<Vec<View>, NetworkError> {
        let Followed { faces: last, sides, since } = &mut self.followed;
        let same = *sides == (frame.width(), frame.height());
        let near = same && !last.is_empty() && *since + 1 < SEARCH_EVERY;
        let mut faces = if near { self.detector.detect_near(frame, last)? } else { &[] };
        if faces.len() < last.len() || !near {
            faces = self.detector.detect(frame)?;
            *since = 0;
        } else {
            *since += 1;
        }
        *sides = (frame.width(), frame.height());
        last.clear();
        last.extend(faces.iter().map(|face| face.rect));
        self.faces.clear();
        self.faces.extend(faces.iter().filter(|face| wanted(face)));
        self.views(frame)
    }

    fn views(&mut self, frame: &Frame) -> Result<Vec<View>, NetworkError> {
        self.times = StageTimes { detect: self.detector.times(), ..StageTimes::default() };
        (0..self.faces.len()).map(|at| self.view(frame, self.faces[at])).collect()
    }

    /// The view of a face already found.
    pub fn view(&mut self, frame: &Frame, face: Face) -> Result<View, NetworkError> {
        let started = Instant::now();
        let crop = align(frame, &face.landmarks);
        let quality = Quality::measure(&face, &crop);
        let aligned = Instant::now();
        let template =
            if quality.score() >= WORTH_COMPARING { Some(self.embed(&crop)?) } else { None };
        self.times.align += aligned - started;
        self.times.embed += aligned.elapsed();
        Ok(View { face, crop, quality, template })
    }

    /// Whose templates these are.
    pub fn model(&self) -> &ModelId {
        &self.model
    }

    /// Embeds an aligned face, whatever its quality.
    pub fn embed(&mut self, crop: &Crop) -> Result<Template, NetworkError> {
        Ok(Template::new(self.model.clone(), self.embedder.embed(crop)?))
    }

    /// Where the time of the last frame went.
    pub fn times(&self) -> StageTimes {
        self.times
    }
}
