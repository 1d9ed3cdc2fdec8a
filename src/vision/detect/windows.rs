//! Candidate boxes of the cascade: regression, landmarks and non-maximum suppression.

use crate::vision::frame::{Landmarks, Rect};

/// A box with its score and regression.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub rect: Rect,
    pub score: f32,
    /// Offsets of left, top, right and bottom, as shares of the width or height.
    pub regression: [f32; 4],
    /// Index in the list given to [`suppress`].
    pub order: usize,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Overlap {
    Union,
    Minimum,
}

/// The nets were trained on boxes whose last pixel is inclusive, so that a side is one
/// pixel longer than the difference of its ends. Offsets, landmarks and overlaps are shares
/// of that length.
const INCLUSIVE: f32 = 1.0;

impl Candidate {
    pub fn new(rect: Rect, score: f32, offsets: &[f32]) -> Self {
        Self { rect, score, regression: std::array::from_fn(|i| offsets[i]), order: 0 }
    }

    /// Moves each side by its offset.
    pub fn regressed(&self) -> Rect {
        let Self { rect, regression: [x1, y1, x2, y2], .. } = self;
        let (width, height) = (rect.width() + INCLUSIVE, rect.height() + INCLUSIVE);
        Rect {
            x1: rect.x1 + x1 * width,
            y1: rect.y1 + y1 * height,
            x2: rect.x2 + x2 * width,
            y2: rect.y2 + y2 * height,
        }
    }
}

/// The box rounded to whole pixels.
pub(super) fn whole(rect: &Rect) -> Rect {
    Rect {
        x1: rect.x1.round_ties_even(),
        y1: rect.y1.round_ties_even(),
        x2: rect.x2.round_ties_even(),
        y2: rect.y2.round_ties_even(),
    }
}

/// The box with its last pixel included.
fn inclusive(rect: &Rect) -> Rect {
    Rect { x2: rect.x2 + INCLUSIVE, y2: rect.y2 + INCLUSIVE, ..*rect }
}

/// Landmarks in pixels of the frame from O-Net's output: five x, then five y, as shares of
/// the square window.
pub(super) fn landmarks(window: &Rect, points: &[f32]) -> Landmarks {
    let window = inclusive(window);
    std::array::from_fn(|i| {
        [window.x1 + points[i] * window.width(), window.y1 + points[i + 5] * window.height()]
    })
}

/// Non-maximum suppression, in place: of boxes that overlap by more than `limit` it keeps
/// the best. The remaining boxes are sorted, the best first, each with its index in the
/// original list.
pub(super) fn suppress(candidates: &mut Vec<Candidate>, limit: f32, overlap: Overlap) {
    for (order, candidate) in candidates.iter_mut().enumerate() {
        candidate.order = order;
    }
    // Softmax saturates, so equal scores are common. The later one, from a coarser scale or
    // further down, then goes first, as in the common implementation of MTCNN.
    candidates
        .sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then_with(|| b.order.cmp(&a.order)));
    let mut kept = 0;
    for at in 0..candidates.len() {
        let candidate = candidates[at];
        let covered = candidates[..kept].iter().any(|better| {
            let (a, b) = (inclusive(&better.rect), inclusive(&candidate.rect));
            let share = match overlap {
                Overlap::Union => a.iou(&b),
                Overlap::Minimum => a.intersection_over_minimum(&b),
            };
            share > limit
        });
        if !covered {
            candidates[kept] = candidate;
            kept += 1;
        }
    }
    candidates.truncate(kept);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate(x1: f32, y1: f32, side: f32, score: f32) -> Candidate {
        Candidate::new(Rect { x1, y1, x2: x1 + side, y2: y1 + side }, score, &[0.0; 4])
    }

    #[test]
    fn regression_moves_each_side_by_its_share() {
        let mut found = candidate(10.0, 20.0, 100.0, 1.0);
        found.regression = [0.1, -0.1, -0.2, 0.2];
        assert_eq!(found.regressed(), Rect { x1: 20.1, y1: 9.9, x2: 89.8, y2: 140.2 });
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

    #[test]
    fn of_equal_scores_the_later_one_goes_first() {
        let mut boxes = vec![candidate(0.0, 0.0, 50.0, 1.0), candidate(5.0, 0.0, 50.0, 1.0)];
        suppress(&mut boxes, 0.5, Overlap::Union);
        assert_eq!((boxes.len(), boxes[0].order, boxes[0].rect.x1), (1, 1, 5.0));
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
                prop_assert_eq!(a.rect, all[a.order].rect);
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
}
