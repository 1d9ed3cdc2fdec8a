//! Faces in a frame: the multi-task cascaded network (MTCNN) of Zhang, Zhang,
//! Li and Qiao, "Joint Face Detection and Alignment using Multi-task Cascaded
//! Convolutional Networks", 2016.
//!
//! P-Net proposes windows at every scale of an image pyramid, R-Net rejects
//! most of them, O-Net rejects the rest and places five landmarks. Between the
//! nets overlapping boxes are merged and regressed boxes are squared.

use crate::frame::{Frame, Landmarks, Rect};
use crate::models::DetectorModels;
use crate::nn::{Network, NetworkError, Pictures, Precision, Side, Signature};
use crate::resample::{Resampler, Values};
use std::time::{Duration, Instant};

/// Side of the window that P-Net sees, pixels.
const P_NET_WINDOW: usize = 12;
/// Step between two P-Net windows: its only pooling layer halves the picture.
const P_NET_STRIDE: usize = 2;
/// Sides of the R-Net and O-Net inputs, pixels.
const R_NET_SIDE: usize = 24;
const O_NET_SIDE: usize = 48;
/// Ratio of two neighbouring scales: about the square root of one half, so that
/// the area halves from one to the next (section 3.1 of the paper's code).
const PYRAMID_FACTOR: f64 = 0.709;
/// P-Net looks at this many pixels at once: all levels of the pyramid of most
/// pictures. Its activations take up to 200 bytes a pixel, so this bounds them to
/// some 50 MB on a huge picture.
const P_NET_PIXELS: usize = 1 << 18;
/// Windows that go on from P-Net, the best first. A crowd of a hundred faces
/// leaves some hundred windows; more are a sign of texture, not of people.
const MAX_PROPOSALS: usize = 1024;
/// Crops in one R-Net or O-Net run; bounds the batch's activations.
const BATCH: usize = 64;

/// What a face found looks like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Face {
    /// Bounding box, pixels of the original frame; may reach over its border.
    pub rect: Rect,
    /// O-Net's probability that this is a face, 0..=1.
    pub score: f32,
    /// Five landmarks, pixels of the original frame.
    pub landmarks: Landmarks,
}

/// Knobs of the cascade.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DetectorSettings {
    /// Shorter side of the smallest face looked for, pixels; at least 12.
    pub minimum_face: f32,
    /// Scores below which P-, R- and O-Net reject, 0..=1. The paper's code uses
    /// 0.6, 0.7 and 0.7.
    pub thresholds: [f32; 3],
}

impl Default for DetectorSettings {
    fn default() -> Self {
        Self { minimum_face: 40.0, thresholds: [0.6, 0.7, 0.7] }
    }
}

/// Time spent in the parts of one detection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DetectTimes {
    /// P-Net with its pyramid.
    pub pnet: Duration,
    /// R-Net with its crops.
    pub rnet: Duration,
    /// O-Net with its crops.
    pub onet: Duration,
    /// Windows that R-Net looked at.
    pub rnet_windows: usize,
    /// Windows that O-Net looked at.
    pub onet_windows: usize,
}

/// The three nets and their buffers.
pub struct Detector {
    pnet: Network,
    rnet: Network,
    onet: Network,
    settings: DetectorSettings,
    most_pixels: usize,
    resampler: Resampler,
    pictures: Pictures,
    strips: Vec<Strip>,
    times: DetectTimes,
}

/// A part of a level that P-Net looks at: whole rows of it.
#[derive(Clone, Copy)]
struct Strip {
    scale: Scale,
    /// Number of the level.
    level: usize,
    top: usize,
    bottom: usize,
}

/// A window on its way through the cascade.
#[derive(Clone, Copy)]
struct Candidate {
    rect: Rect,
    score: f32,
    /// Offsets of the four sides, as shares of the box.
    regression: [f32; 4],
}

#[derive(Clone, Copy, PartialEq)]
enum Overlap {
    Union,
    Minimum,
}

impl Detector {
    /// Loads the three nets.
    pub fn new(models: &DetectorModels, settings: DetectorSettings) -> Result<Self, NetworkError> {
        let load = |file: &crate::models::ModelFile, input, outputs: &[usize]| {
            let signature = Signature { input, outputs: outputs.to_vec() };
            let normalization = &models.normalization;
            Network::load(&file.name, &file.bytes, &signature, normalization, models.precision)
        };
        let crops = |side| [Side::Free('N'), Side::Fixed(3), Side::Fixed(side), Side::Fixed(side)];
        let picture = [Side::Fixed(1), Side::Fixed(3), Side::Free('H'), Side::Free('W')];
        let pnet = load(&models.pnet, picture, &[2, 4])?;
        let resampler = match pnet.precision() {
            Precision::Int8 => Resampler::default(),
            // All the way: the oracle is not to owe anything to rounding.
            Precision::Float => Resampler::exact(),
        };
        Ok(Self {
            pnet,
            rnet: load(&models.rnet, crops(R_NET_SIDE), &[2, 4])?,
            onet: load(&models.onet, crops(O_NET_SIDE), &[2, 4, 10])?,
            settings,
            most_pixels: P_NET_PIXELS,
            resampler,
            pictures: Pictures::default(),
            strips: Vec::new(),
            times: DetectTimes::default(),
        })
    }

    /// All faces of the frame, the highest score first. No face is an empty list.
    pub fn detect(&mut self, frame: &Frame) -> Result<Vec<Face>, NetworkError> {
        let started = Instant::now();
        let proposals = self.propose(frame)?;
        let proposed = Instant::now();
        let refined = self.refine(frame, &proposals)?;
        let refined_at = Instant::now();
        let faces = self.output(frame, &refined)?;
        self.times = DetectTimes {
            pnet: proposed - started,
            rnet: refined_at - proposed,
            onet: refined_at.elapsed(),
            rnet_windows: proposals.len(),
            onet_windows: refined.len(),
        };
        Ok(faces)
    }

    /// Where the time of the last `detect` went.
    pub fn times(&self) -> DetectTimes {
        self.times
    }

    /// P-Net over the pyramid, as many levels at once as fit; squared boxes.
    fn propose(&mut self, frame: &Frame) -> Result<Vec<Rect>, NetworkError> {
        let mut strips = std::mem::take(&mut self.strips);
        strips.clear();
        let levels = scales(frame.width(), frame.height(), self.settings.minimum_face);
        for (level, scale) in levels.enumerate() {
            // Strips overlap by what a window needs beyond the stride, so every
            // window lies whole in one of them.
            let rows = (self.most_pixels / scale.width).max(4 * P_NET_WINDOW);
            let (rows, overlap) = (rows / P_NET_STRIDE * P_NET_STRIDE, P_NET_WINDOW - P_NET_STRIDE);
            let mut top = 0;
            loop {
                let bottom = (top + rows + overlap).min(scale.height);
                strips.push(Strip { scale, level, top, bottom });
                if bottom == scale.height {
                    break;
                }
                top += rows;
            }
        }
        let (mut all, mut found) = (Vec::new(), Vec::new());
        let mut rest = &strips[..];
        while !rest.is_empty() {
            let mut pixels = 0;
            let fit = rest.iter().take_while(|strip| {
                pixels += strip.scale.width * (strip.bottom - strip.top);
                pixels <= self.most_pixels
            });
            let (batch, after) = rest.split_at(fit.count().max(1));
            let outputs = {
                self.pictures.clear();
                for strip in batch {
                    let (width, height) = (strip.scale.width, strip.bottom - strip.top);
                    let region = Rect {
                        x1: 0.0,
                        y1: strip.top as f32 / strip.scale.y,
                        x2: frame.width() as f32,
                        y2: strip.bottom as f32 / strip.scale.y,
                    };
                    let out = self.pictures.add(height, width);
                    // P-Net learned on pictures scaled down, which have whole values.
                    let values = Values::Whole;
                    self.resampler.cut(frame, &region, (height, width), values, out);
                }
                self.pnet.run(&self.pictures)?
            };
            let threshold = self.settings.thresholds[0];
            let [scores, offsets] = outputs else { break };
            let mut places = scores.places().zip(offsets.places());
            for (at, strip) in batch.iter().enumerate() {
                strip.collect(&mut places, threshold, &mut found);
                // The strips of a level are judged together.
                let next = batch.get(at + 1).or(after.first());
                if next.is_none_or(|next| next.level != strip.level) {
                    suppress(&mut found, 0.5, Overlap::Union);
                    all.append(&mut found);
                }
            }
            rest = after;
        }
        self.strips = strips;
        suppress(&mut all, 0.7, Overlap::Union);
        all.truncate(MAX_PROPOSALS);
        Ok(all.iter().map(|candidate| regressed(candidate).squared()).collect())
    }

    /// R-Net over the proposals; squared boxes.
    fn refine(&mut self, frame: &Frame, proposals: &[Rect]) -> Result<Vec<Rect>, NetworkError> {
        let mut kept = Vec::new();
        for batch in proposals.chunks(BATCH) {
            self.crop(frame, batch, R_NET_SIDE);
            let [scores, offsets] = self.rnet.run(&self.pictures)? else { continue };
            let rows = scores.places().zip(offsets.places());
            for (rect, (score, offsets)) in batch.iter().zip(rows) {
                if score[1] >= self.settings.thresholds[1] {
                    kept.push(Candidate {
                        rect: *rect,
                        score: score[1],
                        regression: four(offsets),
                    });
                }
            }
        }
        suppress(&mut kept, 0.7, Overlap::Union);
        Ok(kept.iter().map(|candidate| regressed(candidate).squared()).collect())
    }

    /// O-Net over what R-Net kept.
    fn output(&mut self, frame: &Frame, windows: &[Rect]) -> Result<Vec<Face>, NetworkError> {
        let mut faces = Vec::new();
        for batch in windows.chunks(BATCH) {
            self.crop(frame, batch, O_NET_SIDE);
            let [scores, offsets, points] = self.onet.run(&self.pictures)? else { continue };
            let rows = scores.places().zip(offsets.places()).zip(points.places());
            for (rect, ((score, offsets), points)) in batch.iter().zip(rows) {
                if score[1] >= self.settings.thresholds[2] {
                    let candidate =
                        Candidate { rect: *rect, score: score[1], regression: four(offsets) };
                    faces.push((regressed(&candidate), score[1], landmarks(rect, points)));
                }
            }
        }
        let mut faces: Vec<Face> = faces
            .into_iter()
            .filter(|(rect, _, _)| rect.is_finite() && rect.area() > 0.0)
            .map(|(rect, score, landmarks)| Face { rect, score, landmarks })
            .collect();
        suppress(&mut faces, 0.7, Overlap::Minimum);
        Ok(faces)
    }

    /// One picture a box, of whole pixels; the box itself keeps its fractions for
    /// what the nets say of it.
    fn crop(&mut self, frame: &Frame, boxes: &[Rect], side: usize) {
        self.pictures.clear();
        for rect in boxes {
            let out = self.pictures.add(side, side);
            self.resampler.cut(frame, &whole(rect), (side, side), Values::Exact, out);
        }
    }
}

impl Strip {
    /// Takes this strip's cells off P-Net's scores and offsets, row by row, and
    /// keeps those that may be faces.
    fn collect<'v>(
        &self,
        places: &mut impl Iterator<Item = (&'v [f32], &'v [f32])>,
        threshold: f32,
        found: &mut Vec<Candidate>,
    ) {
        let cells = |side: usize| match side.checked_sub(P_NET_WINDOW) {
            Some(rest) => rest.div_ceil(P_NET_STRIDE) + 1,
            None => 0,
        };
        let (rows, columns) = (cells(self.bottom - self.top), cells(self.scale.width));
        for (cell, (scores, offsets)) in places.take(rows * columns).enumerate() {
            let score = scores[1];
            if score.is_nan() || score < threshold {
                continue;
            }
            let column = cell % columns * P_NET_STRIDE;
            let row = cell / columns * P_NET_STRIDE + self.top;
            // First and last pixel of the window, counted from one as the paper's
            // code does, and whole, as the nets were trained.
            let (first, last) = (1, P_NET_WINDOW);
            let back = |pixel: usize| (pixel as f64 / self.scale.nominal).round_ties_even() as f32;
            found.push(Candidate {
                rect: Rect {
                    x1: back(column + first),
                    y1: back(row + first),
                    x2: back(column + last),
                    y2: back(row + last),
                },
                score,
                regression: four(offsets),
            });
        }
    }
}

/// The face nearest the middle of the picture: the subject of a portrait.
pub fn nearest_center<'f>(faces: &'f [Face], frame: &Frame) -> Option<&'f Face> {
    let (x, y) = frame.bounds().center();
    let distance = |face: &Face| {
        let (fx, fy) = face.rect.center();
        (fx - x).hypot(fy - y)
    };
    faces.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)))
}

/// One level of the pyramid: its size and its scales, which differ by the
/// rounding of the size to whole pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Scale {
    width: usize,
    height: usize,
    y: f32,
    /// Before the rounding; windows go back to the picture by it.
    nominal: f64,
}

/// From the scale at which the smallest face fills a window down to the one at
/// which the picture does.
fn scales(width: usize, height: usize, minimum_face: f32) -> impl Iterator<Item = Scale> {
    // In double precision, so that sizes and windows round as they are meant to.
    let window = P_NET_WINDOW as f64;
    let first = window / f64::from(minimum_face).max(window);
    std::iter::successors(Some(first), |scale| Some(scale * PYRAMID_FACTOR))
        .map(move |scale| {
            let side = |pixels: usize| (pixels as f64 * scale).ceil() as usize;
            (side(width), side(height), scale)
        })
        .take_while(move |(_, _, scale)| width.min(height) as f64 * scale >= window)
        .map(move |(w, h, nominal)| Scale {
            width: w,
            height: h,
            y: h as f32 / height as f32,
            nominal,
        })
}

/// Moves each side by its offset.
fn regressed(candidate: &Candidate) -> Rect {
    let Candidate { rect, regression: [x1, y1, x2, y2], .. } = candidate;
    let (width, height) = (rect.width() + INCLUSIVE, rect.height() + INCLUSIVE);
    Rect {
        x1: rect.x1 + x1 * width,
        y1: rect.y1 + y1 * height,
        x2: rect.x2 + x2 * width,
        y2: rect.y2 + y2 * height,
    }
}

/// The nets were trained on boxes that name their last pixel, so that a side is
/// one longer than the difference of its ends. Offsets, landmarks and overlaps
/// are shares of that length.
const INCLUSIVE: f32 = 1.0;

/// The box on whole pixels.
fn whole(rect: &Rect) -> Rect {
    Rect {
        x1: rect.x1.round_ties_even(),
        y1: rect.y1.round_ties_even(),
        x2: rect.x2.round_ties_even(),
        y2: rect.y2.round_ties_even(),
    }
}

/// The box with its last pixels counted in.
fn inclusive(rect: &Rect) -> Rect {
    Rect { x2: rect.x2 + INCLUSIVE, y2: rect.y2 + INCLUSIVE, ..*rect }
}

/// O-Net gives five x, then five y, as shares of its square window.
fn landmarks(window: &Rect, points: &[f32]) -> Landmarks {
    let window = inclusive(window);
    std::array::from_fn(|i| {
        [window.x1 + points[i] * window.width(), window.y1 + points[i + 5] * window.height()]
    })
}

fn four(values: &[f32]) -> [f32; 4] {
    std::array::from_fn(|i| values[i])
}

trait Scored {
    fn rect(&self) -> &Rect;
    fn score(&self) -> f32;
}

impl Scored for Candidate {
    fn rect(&self) -> &Rect {
        &self.rect
    }
    fn score(&self) -> f32 {
        self.score
    }
}

impl Scored for Face {
    fn rect(&self) -> &Rect {
        &self.rect
    }
    fn score(&self) -> f32 {
        self.score
    }
}

/// Non-maximum suppression: keeps the best of boxes that overlap by more than
/// `limit`, and leaves the survivors sorted, the best first.
fn suppress<T: Scored + Copy>(candidates: &mut Vec<T>, limit: f32, overlap: Overlap) {
    // Softmax saturates, so equal scores are common: of those the later one, from a
    // coarser scale or further down, goes first, as in the detector's usual code.
    candidates.reverse();
    candidates.sort_by(|a, b| b.score().total_cmp(&a.score()));
    let mut kept: Vec<T> = Vec::with_capacity(candidates.len().min(MAX_PROPOSALS));
    for candidate in candidates.iter() {
        let covered = kept.iter().any(|better| {
            let (a, b) = (inclusive(better.rect()), inclusive(candidate.rect()));
            let share = match overlap {
                Overlap::Union => a.iou(&b),
                Overlap::Minimum => a.intersection_over_minimum(&b),
            };
            share > limit
        });
        if !covered {
            kept.push(*candidate);
        }
    }
    *candidates = kept;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate(x1: f32, y1: f32, side: f32, score: f32) -> Candidate {
        let rect = Rect { x1, y1, x2: x1 + side, y2: y1 + side };
        Candidate { rect, score, regression: [0.0; 4] }
    }

    #[test]
    fn the_pyramid_runs_from_the_smallest_face_to_the_whole_picture() {
        let levels: Vec<Scale> = scales(250, 250, 40.0).collect();
        assert_eq!(levels[0].width, 75);
        let last = levels[levels.len() - 1];
        assert!(last.width >= 12 && (last.width as f64 * PYRAMID_FACTOR) < 13.0, "{last:?}");
    }

    #[test]
    fn a_picture_smaller_than_a_window_has_no_scale() {
        assert_eq!(scales(11, 400, 12.0).count(), 0);
        assert_eq!(scales(1, 1, 0.0).count(), 0);
        assert_eq!(scales(100, 100, f32::NAN).count(), scales(100, 100, 12.0).count());
    }

    #[test]
    fn regression_moves_each_side_by_its_share() {
        let mut found = candidate(10.0, 20.0, 100.0, 1.0);
        found.regression = [0.1, -0.1, -0.2, 0.2];
        assert_eq!(regressed(&found), Rect { x1: 20.1, y1: 9.9, x2: 89.8, y2: 140.2 });
    }

    #[test]
    fn suppression_by_minimum_drops_a_box_inside_another() {
        let mut boxes = vec![candidate(0.0, 0.0, 100.0, 0.9), candidate(40.0, 40.0, 20.0, 0.8)];
        suppress(&mut boxes, 0.7, Overlap::Union);
        assert_eq!(boxes.len(), 2);
        suppress(&mut boxes, 0.7, Overlap::Minimum);
        assert_eq!(boxes.len(), 1);
        assert_eq!(boxes[0].score, 0.9);
    }

    proptest! {
        #[test]
        fn suppression_keeps_the_best_and_no_two_that_overlap(
            seeds in prop::collection::vec((0.0f32..60.0, 0.0f32..60.0, 1.0f32..40.0, 0.0f32..1.0), 1..40),
        ) {
            let mut boxes: Vec<Candidate> =
                seeds.iter().map(|&(x, y, side, score)| candidate(x, y, side, score)).collect();
            let best = boxes.iter().map(|b| b.score).fold(0.0, f32::max);
            let all = boxes.clone();
            suppress(&mut boxes, 0.5, Overlap::Union);
            prop_assert_eq!(boxes[0].score, best);
            let overlap = |a: &Rect, b: &Rect| inclusive(a).iou(&inclusive(b));
            for (i, a) in boxes.iter().enumerate() {
                for b in &boxes[i + 1..] {
                    prop_assert!(overlap(&a.rect, &b.rect) <= 0.5);
                    prop_assert!(a.score >= b.score);
                }
            }
            for gone in &all {
                prop_assert!(boxes.iter().any(|kept| kept.score >= gone.score
                    && (overlap(&kept.rect, &gone.rect) > 0.5 || kept.rect == gone.rect)));
            }
        }
    }

    #[test]
    fn a_picture_cut_into_strips_has_the_same_faces() {
        let portrait = include_bytes!("../assets/astronaut.jpg");
        let frame = crate::picture::decode("astronaut.jpg".as_ref(), portrait).expect("a portrait");
        let models = crate::models::Models::built_in().expect("models");
        let settings = DetectorSettings { minimum_face: 20.0, ..DetectorSettings::default() };
        let mut detector = Detector::new(&models.detector, settings).expect("a detector");
        let whole = detector.detect(&frame).expect("faces");
        // Strips of 48 rows, the fewest there are.
        detector.most_pixels = 1;
        let strips = detector.detect(&frame).expect("faces");
        assert_eq!((whole.len(), strips.len()), (1, 1));
        assert!(whole[0].rect.iou(&strips[0].rect) > 0.98);
    }
}
