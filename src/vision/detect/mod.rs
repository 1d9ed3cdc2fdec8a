//! Face detection with the multi-task cascaded network (MTCNN) of Zhang, Zhang, Li and
//! Qiao, "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional
//! Networks", 2016.
//!
//! P-Net proposes windows at every scale of an image pyramid. R-Net rejects most of them.
//! O-Net rejects more and places five landmarks. After each net overlapping boxes are
//! suppressed, and regressed boxes are made square.

mod nets;
mod pyramid;
mod windows;

use crate::models::DetectorModels;
use crate::nn::worker::Worker;
use crate::nn::{Batch, Dim, Network, NetworkError, Precision, Signature};
use crate::vision::frame::{Frame, Landmarks, Rect};
use crate::vision::resample::{Resampler, Values};
use nets::Nets;
use pyramid::{Area, Strip};
use std::time::{Duration, Instant};
use windows::{Candidate, Overlap, landmarks, suppress, whole};

/// Side of P-Net's window, pixels.
const P_NET_WINDOW: usize = 12;
/// Step between two P-Net windows, pixels: its only pooling layer halves the picture.
const P_NET_STRIDE: usize = 2;
/// Side of R-Net's input, pixels.
const R_NET_SIDE: usize = 24;
/// Side of O-Net's input, pixels.
const O_NET_SIDE: usize = 48;
/// Most pixels per run of P-Net: enough for all pyramid levels of most pictures. Its
/// activations take up to 200 bytes per pixel, so this bounds them to about 50 MB on a huge
/// picture.
const P_NET_PIXELS: usize = 1 << 18;
/// Most windows passed from P-Net to R-Net, the best first. A crowd of a hundred faces
/// gives a few hundred windows; more indicate texture rather than people.
const MAX_PROPOSALS: usize = 1024;
/// Most crops per run of R-Net or O-Net; bounds the memory for activations.
const BATCH: usize = 64;

/// Intersection over union at or above which two O-Net windows show one face.
const SAME_FACE: f32 = 0.5;

/// A detected face.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Face {
    /// Bounding box, pixels of the frame; may extend beyond its border.
    pub rect: Rect,
    /// O-Net's probability that this is a face, 0..=1.
    pub score: f32,
    /// Five landmarks, pixels of the frame.
    pub landmarks: Landmarks,
}

/// Settings of the detector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DetectorSettings {
    /// Shorter side of the smallest face to find, pixels; at least 12.
    pub minimum_face: f32,
    /// Scores below which P-Net, R-Net and O-Net reject a window, 0..=1. The paper's code
    /// uses 0.6, 0.7 and 0.7.
    pub thresholds: [f32; 3],
    /// Whether a face is the mean of all windows that found it, weighted by score (box
    /// voting, Gidaris and Komodakis 2015, section 5), or only the best window, as in the
    /// paper's code. Noise decides which of several good windows is the best.
    pub vote: bool,
    /// Whether a second thread shares the work. The result is the same.
    pub two_threads: bool,
}

impl Default for DetectorSettings {
    fn default() -> Self {
        Self { minimum_face: 40.0, thresholds: [0.6, 0.7, 0.7], vote: true, two_threads: false }
    }
}

/// Time spent in each net during one detection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DetectTimes {
    /// P-Net, with the pyramid.
    pub pnet: Duration,
    /// R-Net, with its crops.
    pub rnet: Duration,
    /// O-Net, with its crops.
    pub onet: Duration,
    /// Number of windows that R-Net processed.
    pub rnet_windows: usize,
    /// Number of windows that O-Net processed.
    pub onet_windows: usize,
}

impl DetectTimes {
    /// Total time of the three nets.
    pub fn total(&self) -> Duration {
        self.pnet + self.rnet + self.onet
    }
}

/// One of the three nets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Net {
    /// Proposal net.
    Pnet,
    /// Refinement net.
    Rnet,
    /// Output net.
    Onet,
}

/// Callback that receives the input of a net before it runs. Quantization measures its
/// ranges with it.
pub type Watch<'w> = dyn FnMut(Net, &Batch) + 'w;

/// The three nets and their buffers. The buffers are reused: once they have grown to the
/// size of the frames, detection allocates no memory.
pub struct Detector {
    nets: Nets,
    settings: DetectorSettings,
    most_pixels: usize,
    resampler: Resampler,
    areas: Vec<Area>,
    strips: Vec<Strip>,
    /// Candidates of one pyramid level.
    found: Vec<Candidate>,
    /// Candidates of all levels.
    all: Vec<Candidate>,
    windows: Vec<Rect>,
    landmarks: Vec<Landmarks>,
    faces: Vec<Face>,
    times: DetectTimes,
}

impl Detector {
    /// Loads the three nets.
    ///
    /// # Errors
    /// If a model is invalid, or has another shape or precision than required.
    pub fn new(models: &DetectorModels, settings: DetectorSettings) -> Result<Self, NetworkError> {
        let load = |file: &crate::models::ModelFile, input, outputs: &[usize]| {
            let signature = Signature { input, outputs: outputs.to_vec() };
            let normalization = &models.normalization;
            Network::load(&file.name, &file.bytes, &signature, normalization, models.precision)
        };
        let crops = |side| [Dim::Free('N'), Dim::Fixed(3), Dim::Fixed(side), Dim::Fixed(side)];
        let picture = [Dim::Fixed(1), Dim::Fixed(3), Dim::Free('H'), Dim::Free('W')];
        let nets = || -> Result<[Network; 3], NetworkError> {
            Ok([
                load(&models.pnet, picture, &[2, 4])?,
                load(&models.rnet, crops(R_NET_SIDE), &[2, 4])?,
                load(&models.onet, crops(O_NET_SIDE), &[2, 4, 10])?,
            ])
        };
        let second = settings.two_threads.then(|| Worker::new(nets()?.into())).transpose()?;
        let nets = Nets::new(nets()?, second);
        let resampler = match nets.first().precision() {
            Precision::Int8 => Resampler::default(),
            // The float networks are the oracle, so resample without rounding, too.
            Precision::Float => Resampler::exact(),
        };
        Ok(Self {
            nets,
            settings,
            most_pixels: P_NET_PIXELS,
            resampler,
            areas: Vec::new(),
            strips: Vec::new(),
            found: Vec::new(),
            all: Vec::new(),
            windows: Vec::new(),
            landmarks: Vec::new(),
            faces: Vec::new(),
            times: DetectTimes::default(),
        })
    }

    /// All faces of the frame, the highest score first. Empty if there is none.
    ///
    /// # Errors
    /// If a network fails.
    pub fn detect(&mut self, frame: &Frame) -> Result<&[Face], NetworkError> {
        self.detect_watched(frame, &mut |_, _| ())
    }

    /// Like [`Self::detect`]. Calls `watch` with every input of every net before it runs.
    ///
    /// # Errors
    /// If a network fails.
    pub fn detect_watched(
        &mut self,
        frame: &Frame,
        watch: &mut Watch,
    ) -> Result<&[Face], NetworkError> {
        self.areas.clear();
        self.areas.push(self.everywhere(frame));
        self.cascade(frame, watch)
    }

    /// Finds faces near those of the previous frame and of about their size. Much faster
    /// than [`Self::detect`], but does not find any other face. `faces` are the bounding
    /// boxes in the previous frame, in pixels.
    ///
    /// # Errors
    /// If a network fails.
    pub fn detect_near(&mut self, frame: &Frame, faces: &[Rect]) -> Result<&[Face], NetworkError> {
        let sides = (frame.width(), frame.height());
        self.areas.clear();
        let near = faces.iter().filter_map(|f| Area::around(f, sides, self.settings.minimum_face));
        self.areas.extend(near);
        let everywhere = self.everywhere(frame);
        if self.areas.iter().map(Area::pixels).sum::<usize>() > everywhere.pixels() {
            self.areas.clear();
            self.areas.push(everywhere);
        }
        self.cascade(frame, &mut |_, _| ())
    }

    fn everywhere(&self, frame: &Frame) -> Area {
        let (width, height) = (frame.width(), frame.height());
        Area { x: 0, y: 0, width, height, minimum_face: self.settings.minimum_face }
    }

    fn cascade(&mut self, frame: &Frame, watch: &mut Watch) -> Result<&[Face], NetworkError> {
        let started = Instant::now();
        self.propose(frame, watch)?;
        let (proposed, rnet_windows) = (Instant::now(), self.windows.len());
        self.refine(frame, watch)?;
        let (refined, onet_windows) = (Instant::now(), self.windows.len());
        self.output(frame, watch)?;
        self.times = DetectTimes {
            pnet: proposed - started,
            rnet: refined - proposed,
            onet: refined.elapsed(),
            rnet_windows,
            onet_windows,
        };
        Ok(&self.faces)
    }

    /// Times of the last detection.
    pub fn times(&self) -> DetectTimes {
        self.times
    }

    /// Runs P-Net over the pyramids, as many strips per run as fit. Sets `windows`,
    /// squared.
    fn propose(&mut self, frame: &Frame, watch: &mut Watch) -> Result<(), NetworkError> {
        self.strips.clear();
        for area in &self.areas {
            area.cut(self.most_pixels, &mut self.strips);
        }
        self.all.clear();
        self.found.clear();
        let mut rest = &self.strips[..];
        while !rest.is_empty() {
            let mut pixels = 0;
            let fit = rest.iter().take_while(|strip| {
                let (height, width) = strip.sides();
                pixels += height * width;
                pixels <= self.most_pixels
            });
            let (batch, after) = rest.split_at(fit.count().max(1));
            let resampler = &mut self.resampler;
            let fill = |at: usize, pictures: &mut Batch| {
                let strip: &Strip = &batch[at];
                let (height, width) = strip.sides();
                let out = pictures.add(height, width);
                // P-Net was trained on scaled pictures with whole pixel values.
                resampler.cut(frame, &strip.region(), (height, width), Values::Whole, out);
            };
            let outputs = self.nets.run(Net::Pnet, batch.len(), halfway(batch), fill, watch)?;
            let mut places = outputs.places(0).zip(outputs.places(1));
            for (at, strip) in batch.iter().enumerate() {
                strip.collect(&mut places, self.settings.thresholds[0], &mut self.found);
                // Suppress over all strips of a level together.
                let next = batch.get(at + 1).or(after.first());
                if next.is_none_or(|next| next.level != strip.level) {
                    suppress(&mut self.found, 0.5, Overlap::Union);
                    self.all.append(&mut self.found);
                }
            }
            rest = after;
        }
        suppress(&mut self.all, 0.7, Overlap::Union);
        self.all.truncate(MAX_PROPOSALS);
        self.windows_of_all();
        Ok(())
    }

    fn windows_of_all(&mut self) {
        self.windows.clear();
        self.windows.extend(self.all.iter().map(|candidate| candidate.regressed().squared()));
    }

    /// Runs R-Net over `windows`. Keeps the accepted ones, squared.
    fn refine(&mut self, frame: &Frame, watch: &mut Watch) -> Result<(), NetworkError> {
        self.all.clear();
        for batch in self.windows.chunks(BATCH) {
            let fill = crops(&mut self.resampler, frame, batch, R_NET_SIDE);
            let split = batch.len().div_ceil(2);
            let outputs = self.nets.run(Net::Rnet, batch.len(), split, fill, watch)?;
            let rows = outputs.places(0).zip(outputs.places(1));
            for (rect, (score, offsets)) in batch.iter().zip(rows) {
                if score[1] >= self.settings.thresholds[1] {
                    self.all.push(Candidate::new(*rect, score[1], offsets));
                }
            }
        }
        suppress(&mut self.all, 0.7, Overlap::Union);
        self.windows_of_all();
        Ok(())
    }

    /// Runs O-Net over `windows`. Sets `faces`.
    fn output(&mut self, frame: &Frame, watch: &mut Watch) -> Result<(), NetworkError> {
        self.all.clear();
        self.landmarks.clear();
        for batch in self.windows.chunks(BATCH) {
            let fill = crops(&mut self.resampler, frame, batch, O_NET_SIDE);
            let split = batch.len().div_ceil(2);
            let outputs = self.nets.run(Net::Onet, batch.len(), split, fill, watch)?;
            let rows = outputs.places(0).zip(outputs.places(1)).zip(outputs.places(2));
            for (window, ((score, offsets), points)) in batch.iter().zip(rows) {
                let rect = Candidate::new(*window, score[1], offsets).regressed();
                let sound = rect.is_finite() && rect.area() > 0.0;
                if score[1] >= self.settings.thresholds[2] && sound {
                    self.all.push(Candidate::new(rect, score[1], &[0.0; 4]));
                    self.landmarks.push(landmarks(window, points));
                }
            }
        }
        self.found.clear();
        self.found.extend_from_slice(&self.all);
        suppress(&mut self.all, 0.7, Overlap::Minimum);
        self.faces.clear();
        self.faces.extend(self.all.iter().map(|candidate| {
            let (rect, score) = (candidate.rect, candidate.score);
            let alone = Face { rect, score, landmarks: self.landmarks[candidate.order] };
            if self.settings.vote { voted(&alone, &self.found, &self.landmarks) } else { alone }
        }));
        self.found.clear();
        Ok(())
    }
}

/// The mean of all windows of a face and their landmarks, weighted by score.
fn voted(face: &Face, windows: &[Candidate], landmarks: &[Landmarks]) -> Face {
    let (mut rect, mut points, mut total) = ([0.0; 4], [[0.0; 2]; 5], 0.0);
    for (window, landmarks) in windows.iter().zip(landmarks) {
        let other = window.rect;
        if other.iou(&face.rect) < SAME_FACE {
            continue;
        }
        total += window.score;
        for (sum, side) in rect.iter_mut().zip([other.x1, other.y1, other.x2, other.y2]) {
            *sum += side * window.score;
        }
        for (sum, point) in points.iter_mut().flatten().zip(landmarks.iter().flatten()) {
            *sum += point * window.score;
        }
    }
    // `total` is positive unless the threshold is 0: the face's own window counts, too.
    let mean = |sum: f32| if total > 0.0 { sum / total } else { 0.0 };
    let [x1, y1, x2, y2] = rect.map(mean);
    let landmarks = points.map(|point| point.map(mean));
    if total > 0.0 { Face { rect: Rect { x1, y1, x2, y2 }, landmarks, ..*face } } else { *face }
}

/// Number of strips, from the first, that hold about half of the pixels.
fn halfway(strips: &[Strip]) -> usize {
    let pixels = |strip: &Strip| {
        let (height, width) = strip.sides();
        height * width
    };
    let all: usize = strips.iter().map(pixels).sum();
    let mut before = 0;
    let first = strips.iter().take_while(|strip| {
        let more = 2 * before < all;
        before += pixels(strip);
        more
    });
    first.count()
}

/// Returns a function that cuts out box number `at` at `side x side` pixels. The box is
/// rounded to whole pixels for the crop only; the regression uses the exact box.
fn crops(
    resampler: &mut Resampler,
    frame: &Frame,
    boxes: &[Rect],
    side: usize,
) -> impl FnMut(usize, &mut Batch) {
    move |at, pictures| {
        let out = pictures.add(side, side);
        resampler.cut(frame, &whole(&boxes[at]), (side, side), Values::Exact, out);
    }
}

/// The face nearest the centre of the frame: the subject of a portrait. `None` if there is
/// no face.
pub fn nearest_center<'f>(faces: &'f [Face], frame: &Frame) -> Option<&'f Face> {
    let (x, y) = frame.bounds().center();
    let distance = |face: &Face| {
        let (fx, fy) = face.rect.center();
        (fx - x).hypot(fy - y)
    };
    faces.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn portrait() -> Frame {
        let portrait = include_bytes!("../../../assets/astronaut.jpg");
        crate::vision::picture::decode("astronaut.jpg".as_ref(), portrait).expect("a portrait")
    }

    fn detector(minimum_face: f32) -> Detector {
        let models = crate::models::Models::built_in().expect("models");
        let settings = DetectorSettings { minimum_face, ..DetectorSettings::default() };
        Detector::new(&models.detector, settings).expect("a detector")
    }

    #[test]
    fn a_picture_cut_into_strips_has_the_same_faces() {
        let (frame, mut detector) = (portrait(), detector(20.0));
        let whole = detector.detect(&frame).expect("faces").to_vec();
        // Strips of 48 rows, the minimum.
        detector.most_pixels = 1;
        let strips = detector.detect(&frame).expect("faces");
        assert_eq!((whole.len(), strips.len()), (1, 1));
        assert!(whole[0].rect.iou(&strips[0].rect) > 0.98);
    }

    #[test]
    fn two_threads_find_the_same_faces() {
        let (frame, mut alone) = (portrait(), detector(20.0));
        let models = crate::models::Models::built_in().expect("models");
        let settings = DetectorSettings { two_threads: true, ..alone.settings };
        let mut both = Detector::new(&models.detector, settings).expect("a detector");
        // Low thresholds, so that all nets have batches to share.
        alone.settings.thresholds = [0.3, 0.2, 0.2];
        both.settings.thresholds = alone.settings.thresholds;
        for _ in 0..2 {
            let faces = alone.detect(&frame).expect("faces");
            assert!(!faces.is_empty());
            assert_eq!(both.detect(&frame).expect("faces"), faces);
            let near = [faces[0].rect];
            let faces = alone.detect_near(&frame, &near).expect("faces");
            assert_eq!(both.detect_near(&frame, &near).expect("faces"), faces);
            assert!(both.detect(&Frame::filled(64, 64, [0; 3])).expect("faces").is_empty());
        }
        assert!(alone.times().onet_windows > 1);
    }

    #[test]
    fn near_a_face_it_is_found_again_and_elsewhere_nothing() {
        let (frame, mut detector) = (portrait(), detector(40.0));
        let everywhere = detector.detect(&frame).expect("faces").to_vec();
        let moved = |by: f32| {
            let Rect { x1, y1, x2, y2 } = everywhere[0].rect;
            Rect { x1: x1 + by, y1: y1 + by, x2: x2 + by, y2: y2 + by }
        };
        let near = detector.detect_near(&frame, &[moved(15.0)]).expect("faces").to_vec();
        assert_eq!(near.len(), 1);
        assert!(near[0].rect.iou(&everywhere[0].rect) > 0.8);
        let corner = Rect { x1: 0.0, y1: 350.0, x2: 40.0, y2: 390.0 };
        assert!(detector.detect_near(&frame, &[corner]).expect("faces").is_empty());
        assert!(detector.detect_near(&frame, &[]).expect("faces").is_empty());
    }
}
