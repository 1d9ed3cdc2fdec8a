//! The recognizer: detects, aligns, measures and embeds the faces of a frame.

use crate::models::covered::CoverClassifier;
use crate::models::{Alignment, ModelId, Models, ModelsError};
use crate::nn::NetworkError;
use crate::vision::align::{Crop, align};
use crate::vision::built_in_faces::{self, UselessError};
use crate::vision::detect::{DetectTimes, Detector, DetectorSettings, Face};
use crate::vision::embed::{Embedder, Template};
use crate::vision::face_picture::FacePicture;
use crate::vision::frame::{Frame, Landmarks, Rect};
use crate::vision::quality::{Quality, WORTH_COMPARING};
use crate::vision::whole;
use std::time::{Duration, Instant};
use thiserror::Error;

/// Why the recognizer cannot be created.
#[derive(Debug, Error)]
pub enum RecognizerError {
    /// The model set is incomplete.
    #[error(transparent)]
    Models(#[from] ModelsError),
    /// A network cannot be loaded.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The recognizer recognizes nobody, or anybody.
    #[error(transparent)]
    Useless(#[from] UselessError),
}

/// A face of a frame with the results of all stages.
#[derive(Clone, Debug)]
pub struct View {
    /// Bounding box, score and landmarks, pixels of the frame.
    pub face: Face,
    /// The face aligned by [`Alignment::ARCFACE`], on which quality and liveness are
    /// measured. The recognizer may have another alignment.
    pub crop: Crop,
    /// Quality of the view.
    pub quality: Quality,
    /// Its template. `None` if the quality is too low to compare, or if it was not embedded
    /// yet.
    pub template: Option<Template>,
}

/// Time spent in each stage for the last frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// Detection, by net.
    pub detect: DetectTimes,
    /// Alignment and quality of all faces.
    pub align: Duration,
    /// Embedding of all faces.
    pub embed: Duration,
}

/// While faces are followed, one frame in this many is searched completely. A grant needs
/// at least as many frames, so nobody is admitted before a complete search.
const SEARCH_EVERY: usize = 3;

/// Detector and embedder of one model set.
pub struct Recognizer {
    detector: Detector,
    embedder: Embedder,
    model: ModelId,
    covers: Option<CoverClassifier>,
    times: StageTimes,
    /// Wanted faces of the current frame.
    faces: Vec<Face>,
    followed: Followed,
}

/// Similarity from which two faces are one person at any false accept rate.
pub fn one_person(models: &Models) -> f32 {
    let points = models.thresholds().ok();
    let highest = points.iter().flat_map(|table| table.points()).map(|(_, similarity)| *similarity);
    highest.reduce(f32::max).unwrap_or(built_in_faces::SAME_FOR_ALL)
}

/// The faces of the last frame of a video.
#[derive(Default)]
struct Followed {
    faces: Vec<Rect>,
    sides: (usize, usize),
    /// Frames since the last complete search.
    since: usize,
}

impl Recognizer {
    /// Loads the networks of detector and recognizer, and embeds two built-in faces.
    ///
    /// # Errors
    /// If the set has no recognizer, a network cannot be loaded, or the recognizer does not
    /// tell the two faces apart.
    pub fn new(models: &Models, settings: DetectorSettings) -> Result<Self, RecognizerError> {
        let model = models.recognizer()?;
        let mut embedder = Embedder::new(model)?;
        built_in_faces::check(&mut embedder, model, one_person(models))?;
        Ok(Self {
            detector: Detector::new(&models.detector, settings)?,
            embedder,
            model: models.recognizer_id()?,
            covers: models.covers().cloned(),
            times: StageTimes::default(),
            faces: Vec::new(),
            followed: Followed::default(),
        })
    }

    /// Views of all faces of a single picture, the highest score first. Empty if there is
    /// none. [`View::template`] is `None` for faces too poor to compare.
    ///
    /// # Errors
    /// If a network fails.
    pub fn faces(&mut self, frame: &Frame) -> Result<Vec<View>, NetworkError> {
        self.look(frame, |_| true)
    }

    /// Like [`Self::faces`], for the faces that `wanted` accepts. The others are neither
    /// aligned nor embedded.
    ///
    /// # Errors
    /// If a network fails.
    pub fn look(
        &mut self,
        frame: &Frame,
        wanted: impl Fn(&Face) -> bool,
    ) -> Result<Vec<View>, NetworkError> {
        let faces = self.detector.detect(frame)?;
        self.faces.clear();
        self.faces.extend(faces.iter().filter(|face| wanted(face)));
        let mut views = self.views(frame);
        views.iter_mut().try_for_each(|view| self.compare(frame, view))?;
        Ok(views)
    }

    /// Whether the last frame of the video showed a face.
    pub fn followed(&self) -> bool {
        !self.followed.faces.is_empty()
    }

    /// Like [`Self::look`], for the next frame of a video. While faces are in view, most
    /// frames are searched only around them. One frame in three is searched completely, and
    /// also every frame in which one of these faces is not found again.
    ///
    /// # Errors
    /// If a network fails.
    pub fn follow(
        &mut self,
        frame: &Frame,
        wanted: impl Fn(&Face) -> bool,
    ) -> Result<Vec<View>, NetworkError> {
        let mut views = self.find(frame, wanted)?;
        views.iter_mut().try_for_each(|view| self.compare(frame, view))?;
        Ok(views)
    }

    /// Like [`Self::follow`], without embedding the faces; see [`Self::compare`].
    ///
    /// # Errors
    /// If a network fails.
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
        if self.faces.is_empty() {
            return Vec::new();
        }
        let content = whole::content(frame);
        (0..self.faces.len()).map(|at| self.upright(frame, &content, self.faces[at])).collect()
    }

    /// The view of a face already detected, with its template.
    ///
    /// # Errors
    /// If the network fails.
    pub fn view(&mut self, frame: &Frame, face: Face) -> Result<View, NetworkError> {
        let mut view = self.upright(frame, &whole::content(frame), face);
        self.compare(frame, &mut view)?;
        Ok(view)
    }

    fn upright(&mut self, frame: &Frame, content: &Rect, face: Face) -> View {
        let started = Instant::now();
        let crop = align(frame, &face.landmarks, &Alignment::ARCFACE);
        let quality = Quality::measure(content, &face, &crop, self.covers.as_ref());
        self.times.align += started.elapsed();
        View { face, crop, quality, template: None }
    }

    /// Sets the template of a view of `frame`, if its quality is high enough to compare.
    ///
    /// # Errors
    /// If the network fails.
    pub fn compare(&mut self, frame: &Frame, view: &mut View) -> Result<(), NetworkError> {
        if view.quality.score() >= WORTH_COMPARING {
            let started = Instant::now();
            let embedding = match *self.embedder.alignment() == Alignment::ARCFACE {
                true => self.embedder.embed(&view.crop),
                false => self.embedder.embed_face(frame, &view.face.landmarks),
            };
            view.template = Some(Template::new(self.model.clone(), embedding?));
            self.times.embed += started.elapsed();
        }
        Ok(())
    }

    /// The model that makes the templates.
    pub fn model(&self) -> &ModelId {
        &self.model
    }

    /// Embeds a face with landmarks in pixels of its frame, whatever its quality.
    ///
    /// # Errors
    /// If the network fails.
    pub fn embed(&mut self, frame: &Frame, face: &Landmarks) -> Result<Template, NetworkError> {
        let embedding = self.embedder.embed_face(frame, face)?;
        Ok(Template::new(self.model.clone(), embedding))
    }

    /// Embeds a kept picture of a face.
    ///
    /// # Errors
    /// If the network fails.
    pub fn embed_picture(&mut self, picture: &FacePicture) -> Result<Template, NetworkError> {
        self.embed(picture.frame(), picture.landmarks())
    }

    /// Times of the last frame.
    pub fn times(&self) -> StageTimes {
        self.times
    }
}
