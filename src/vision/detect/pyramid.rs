//! Inputs of P-Net: areas of the frame at several scales, cut into strips if they are
//! large.

use super::windows::Candidate;
use super::{P_NET_STRIDE, P_NET_WINDOW};
use crate::vision::frame::Rect;

/// Ratio of two neighbouring scales: about the square root of one half, so that the area
/// halves from level to level, as in the paper's code.
const PYRAMID_FACTOR: f64 = 0.709;
/// Side of the square searched around a face of the last frame, in sides of the face.
/// Between two frames a face moves by less than half its side, or it is a new one.
const AROUND: f32 = 2.0;
/// Factor by which a face may have become smaller since the last frame.
const SMALLER: f32 = 0.7;

/// An area of the frame, in whole pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Area {
    pub x: usize,
    pub y: usize,
    pub width: usize,
    pub height: usize,
    /// Shorter side of the smallest face to find in it, pixels.
    pub minimum_face: f32,
}

/// One pyramid level: its size in whole pixels, and its scale before and after rounding to
/// that size.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Scale {
    width: usize,
    height: usize,
    /// Vertical scale after rounding.
    y: f32,
    /// Scale before rounding. Maps windows back to the frame.
    nominal: f64,
}

/// A range of rows of a level, one input of P-Net.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strip {
    area: Area,
    scale: Scale,
    /// Number of the level, counted over all areas.
    pub level: usize,
    top: usize,
    bottom: usize,
}

impl Area {
    /// The area around a face of the last frame. `None` if it lies outside the frame.
    pub fn around(face: &Rect, (width, height): (usize, usize), minimum_face: f32) -> Option<Self> {
        if !face.is_finite() {
            return None;
        }
        let (x, y) = face.center();
        let reach = face.width().max(face.height()) * AROUND / 2.0;
        // Casts saturate at zero.
        let (left, top) = ((x - reach) as usize, (y - reach) as usize);
        let right = ((x + reach).ceil() as usize).min(width);
        let bottom = ((y + reach).ceil() as usize).min(height);
        let smallest = face.width().min(face.height()) * SMALLER;
        Some(Self {
            x: left,
            y: top,
            width: right.checked_sub(left).filter(|side| *side > 0)?,
            height: bottom.checked_sub(top).filter(|side| *side > 0)?,
            minimum_face: smallest.max(minimum_face),
        })
    }

    pub fn pixels(&self) -> usize {
        self.width * self.height
    }

    /// Adds the strips of all levels, each of about `most_pixels` pixels or less, but of at
    /// least 48 rows or the whole level.
    pub fn cut(&self, most_pixels: usize, strips: &mut Vec<Strip>) {
        let first = strips.last().map_or(0, |strip| strip.level + 1);
        for (at, scale) in scales(self.width, self.height, self.minimum_face).enumerate() {
            // Strips overlap by a window less the stride, so that every window lies whole
            // in one of them.
            let rows = (most_pixels / scale.width).max(4 * P_NET_WINDOW);
            let (rows, overlap) = (rows / P_NET_STRIDE * P_NET_STRIDE, P_NET_WINDOW - P_NET_STRIDE);
            let mut top = 0;
            loop {
                let bottom = (top + rows + overlap).min(scale.height);
                strips.push(Strip { area: *self, scale, level: first + at, top, bottom });
                if bottom == scale.height {
                    break;
                }
                top += rows;
            }
        }
    }
}

impl Strip {
    /// Height and width at its scale, pixels.
    pub fn sides(&self) -> (usize, usize) {
        (self.bottom - self.top, self.scale.width)
    }

    /// The region of the frame that it covers.
    pub fn region(&self) -> Rect {
        let (x, y) = (self.area.x as f32, self.area.y as f32);
        Rect {
            x1: x,
            y1: y + self.top as f32 / self.scale.y,
            x2: x + self.area.width as f32,
            y2: y + self.bottom as f32 / self.scale.y,
        }
    }

    /// Reads this strip's cells from P-Net's scores and offsets, row by row, and adds those
    /// at or above `threshold` to `found`.
    pub fn collect<'v>(
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
        let (x, y) = (self.area.x as f32, self.area.y as f32);
        for (cell, (scores, offsets)) in places.take(rows * columns).enumerate() {
            let score = scores[1];
            if score.is_nan() || score < threshold {
                continue;
            }
            let column = cell % columns * P_NET_STRIDE;
            let row = cell / columns * P_NET_STRIDE + self.top;
            // First and last pixel of the window, counted from one as in the paper's code,
            // and rounded to whole pixels, as the nets were trained.
            let (first, last) = (1, P_NET_WINDOW);
            let back = |pixel: usize| (pixel as f64 / self.scale.nominal).round_ties_even() as f32;
            let rect = Rect {
                x1: x + back(column + first),
                y1: y + back(row + first),
                x2: x + back(column + last),
                y2: y + back(row + last),
            };
            found.push(Candidate::new(rect, score, offsets));
        }
    }
}

/// The pyramid levels, from the scale at which the smallest face fills a window down to the
/// scale at which the picture does.
fn scales(width: usize, height: usize, minimum_face: f32) -> impl Iterator<Item = Scale> {
    // Double precision, so that sizes and windows round correctly.
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn an_area_lies_in_the_frame_and_around_its_face(
            (x, y, side) in (-200f32..900.0, -200f32..700.0, 1f32..600.0),
        ) {
            let face = Rect { x1: x, y1: y, x2: x + side, y2: y + side };
            if let Some(area) = Area::around(&face, (640, 480), 40.0) {
                prop_assert!(area.width > 0 && area.x + area.width <= 640);
                prop_assert!(area.height > 0 && area.y + area.height <= 480);
                let visible = |a: f32, limit: f32| a.clamp(0.0, limit);
                prop_assert!(area.x as f32 <= visible(face.x1, 640.0));
                prop_assert!((area.x + area.width) as f32 >= visible(face.x2, 640.0));
                prop_assert!((area.y + area.height) as f32 >= visible(face.y2, 480.0));
            } else {
                let left = |from: f32, limit: f32| {
                    from + 1.5 * side <= 1.0 || from - 0.5 * side >= limit - 1.0
                };
                prop_assert!(left(x, 640.0) || left(y, 480.0));
            }
        }
    }
}
