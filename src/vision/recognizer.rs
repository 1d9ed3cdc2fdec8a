//! The pure stages in a row: a frame in, its faces with quality and embedding
//! out.

use crate::models::{ModelId, Models, ModelsError};
use crate::nn::NetworkError;
use crate::vision::align::{Crop, align};
use crate::vision::detect::{DetectTimes, Detector, DetectorSettings, Face};
use crate::vision::embed::{Embedder, Template};
use crate::vision::frame::{Frame, Rect};
use crate::vision::quality::{Quality, WORTH_COMPARING};
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
        let mut views = self.views(frame);
        views.iter_mut().try_for_each(|view| self.compare(view))?;
        Ok(views)
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
        let mut views = self.find(frame, wanted)?;
        views.iter_mut().try_for_each(|view| self.compare(view))?;
        Ok(views)
    }

    /// The same, not embedded yet.
    pub fn find(
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
        Ok(self.views(frame))
    }

    fn views(&mut self, frame: &Frame) -> Vec<View> {
        self.times = StageTimes { detect: self.detector.times(), ..StageTimes::default() };
        (0..self.faces.len()).map(|at| self.upright(frame, self.faces[at])).collect()
    }

    /// The view of a face already found.
    pub fn view(&mut self, frame: &Frame, face: Face) -> Result<View, NetworkError> {
        let mut view = self.upright(frame, face);
        self.compare(&mut view)?;
        Ok(view)
    }

    fn upright(&mut self, frame: &Frame, face: Face) -> View {
        let started = Instant::now();
        let crop = align(frame, &face.landmarks);
        let quality = Quality::measure(&face, &crop);
        self.times.align += started.elapsed();
        View { face, crop, quality, template: None }
    }

    /// Embeds a view, if it is good enough to compare.
    pub fn compare(&mut self, view: &mut View) -> Result<(), NetworkError> {
        if view.quality.score() >= WORTH_COMPARING {
            let started = Instant::now();
            view.template = Some(self.embed(&view.crop)?);
            self.times.embed += started.elapsed();
        }
        Ok(())
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
