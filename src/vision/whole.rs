//! How much of a face lies in the picture.
//!
//! The detector also finds faces that the edge of the picture cuts, and places the missing
//! landmarks outside the picture. The aligned face is black there, and black bars of
//! different people resemble each other: of 300 people of LFW cut at the nose, up to two in
//! a hundred pairs passed a threshold for one in ten thousand.

use crate::models::Alignment;
use crate::vision::align::Similarity;
use crate::vision::detect::Face;
use crate::vision::frame::{Frame, Landmarks, Rect};

/// The face from the eyebrows to the chin and from ear to ear: centre and half the axes of
/// an ellipse, in pixels of a face aligned by [`Alignment::ARCFACE`].
const CENTRE: [f32; 2] = [56.0, 76.0];
const HALF_AXES: [f32; 2] = [38.0, 38.0];
/// Corners of the polygon that stands for the ellipse. Its area is 0.6 % smaller.
const CORNERS: usize = 32;
/// Clipping a convex polygon by a straight line adds at most one corner.
const MOST_CORNERS: usize = CORNERS + 4;
/// Most that the channels of two pixels of a bar differ. JPEG changes a bar of one colour by
/// a level or two; the noise of a camera is larger.
const BAR_SPREAD: u8 = 3;

type Polygon = heapless::Vec<[f32; 2], MOST_CORNERS>;

/// The part of the frame without bars of one colour at its edges, such as those of a picture
/// that was fitted into a frame of another shape. Empty if the whole frame has one colour.
pub fn content(frame: &Frame) -> Rect {
    let (width, height) = (frame.width(), frame.height());
    let row = |y: usize| {
        let (pixels, _) = frame.row(y).as_chunks::<3>();
        one_colour(pixels.iter())
    };
    let top = (0..height).take_while(|y| row(*y)).count();
    let bottom = (top..height).rev().take_while(|y| row(*y)).count();
    let (pixels, _) = frame.pixels().as_chunks::<3>();
    let rows = top..height - bottom;
    let column = |x: usize| one_colour(rows.clone().map(|y| &pixels[y * width + x]));
    let left = (0..width).take_while(|x| column(*x)).count();
    let right = (left..width).rev().take_while(|x| column(*x)).count();
    let edges = [left, top, width - right, height - bottom].map(|edge| edge as f32);
    Rect { x1: edges[0], y1: edges[1], x2: edges[2], y2: edges[3] }
}

fn one_colour<'p>(mut pixels: impl Iterator<Item = &'p [u8; 3]>) -> bool {
    let Some(first) = pixels.next() else { return true };
    pixels.all(|pixel| pixel.iter().zip(first).all(|(a, b)| a.abs_diff(*b) <= BAR_SPREAD))
}

/// The share of a face that lies in `content` (see [`content`]), 0..=1: of its outline and
/// of its bounding box, the smaller one. The detector may squeeze the landmarks of a face
/// that is cut into the picture; the bounding box then still reaches beyond. Landmarks that
/// give no outline give 0.
pub fn share(face: &Face, content: &Rect) -> f32 {
    outline_share(&face.landmarks, content).min(box_share(&face.rect, content))
}

fn outline_share(landmarks: &Landmarks, content: &Rect) -> f32 {
    let place = Similarity::fit(&Alignment::ARCFACE.landmarks, landmarks);
    let mut outline = Polygon::new();
    for corner in 0..CORNERS {
        let angle = corner as f32 / CORNERS as f32 * std::f32::consts::TAU;
        let [x, y] = place.apply([
            CENTRE[0] + HALF_AXES[0] * angle.cos(),
            CENTRE[1] + HALF_AXES[1] * angle.sin(),
        ]);
        // From pixel-centre coordinates to those of rectangles.
        let _ = outline.push([x + 0.5, y + 0.5]);
    }
    let whole = area(&outline);
    let Rect { x1, y1, x2, y2 } = *content;
    let mut inside = outline;
    for (axis, edge, side) in [(0, x1, 1.0), (0, x2, -1.0), (1, y1, 1.0), (1, y2, -1.0)] {
        inside = clipped(&inside, axis, edge, side);
    }
    let share = area(&inside) / whole;
    if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
}

/// The part of a convex polygon where the coordinate `axis`, times `side`, is at least that
/// of `edge` (Sutherland and Hodgman, "Reentrant Polygon Clipping", 1974).
fn clipped(polygon: &Polygon, axis: usize, edge: f32, side: f32) -> Polygon {
    let depth = |corner: &[f32; 2]| side * (corner[axis] - edge);
    let mut kept = Polygon::new();
    let Some(mut before) = polygon.last() else { return kept };
    for corner in polygon {
        let (d0, d1) = (depth(before), depth(corner));
        if (d0 < 0.0) != (d1 < 0.0) {
            let along = d0 / (d0 - d1);
            let crossing: [f32; 2] =
                std::array::from_fn(|at| before[at] + along * (corner[at] - before[at]));
            let _ = kept.push(crossing);
        }
        if d1 >= 0.0 {
            let _ = kept.push(*corner);
        }
        before = corner;
    }
    kept
}

/// Area of a polygon, by the shoelace formula. The corners are taken relative to the first
/// one, so that a polygon far from the origin loses no digits.
fn area(polygon: &Polygon) -> f32 {
    let Some([x0, y0]) = polygon.first().copied() else { return 0.0 };
    let twice: f32 = polygon
        .windows(2)
        .map(|pair| {
            let [[ax, ay], [bx, by]] = [pair[0], pair[1]];
            (ax - x0) * (by - y0) - (bx - x0) * (ay - y0)
        })
        .sum();
    twice.abs() / 2.0
}

fn box_share(rect: &Rect, content: &Rect) -> f32 {
    let along = |from: f32, to: f32, least: f32, most: f32| {
        ((to.min(most) - from.max(least)) / (to - from)).clamp(0.0, 1.0)
    };
    let share = along(rect.x1, rect.x2, content.x1, content.x2)
        * along(rect.y1, rect.y2, content.y1, content.y2);
    if share.is_finite() { share } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FRAME: Rect = Rect { x1: 0.0, y1: 0.0, x2: 112.0, y2: 120.0 };

    fn face(landmarks: Landmarks) -> Face {
        Face { rect: Rect { x1: 20.0, y1: 30.0, x2: 90.0, y2: 110.0 }, score: 1.0, landmarks }
    }

    fn moved(landmarks: Landmarks, [x, y]: [f32; 2]) -> Landmarks {
        landmarks.map(|point| [point[0] + x, point[1] + y])
    }

    #[test]
    fn a_face_in_the_picture_is_whole_and_half_a_face_is_half() {
        let landmarks = Alignment::ARCFACE.landmarks;
        assert!(share(&face(landmarks), &FRAME) > 0.999);
        // The middle of the outline lies on an edge.
        for by in [[-56.5, 0.0], [55.5, 0.0], [0.0, -76.5], [0.0, 43.5]] {
            let half = outline_share(&moved(landmarks, by), &FRAME);
            assert!((half - 0.5).abs() < 0.005, "{by:?}: {half}");
        }
        assert_eq!(outline_share(&moved(landmarks, [300.0, 0.0]), &FRAME), 0.0);
    }

    #[test]
    fn the_bounding_box_tells_of_a_cut_that_the_landmarks_hide() {
        let mut cut = face(Alignment::ARCFACE.landmarks);
        cut.rect.y2 = 150.0;
        let expected = (120.0 - 30.0) / (150.0 - 30.0);
        assert!((share(&cut, &FRAME) - expected).abs() < 1e-6);
    }

    #[test]
    fn bars_of_one_colour_are_no_part_of_the_content() {
        let mut frame = Frame::filled(60, 40, [7, 8, 9]);
        for (at, byte) in frame.pixels_mut().iter_mut().enumerate() {
            let (x, y) = (at / 3 % 60, at / 3 / 60);
            if (10..50).contains(&x) && (4..30).contains(&y) {
                *byte = ((x * 37 + y * 61) % 251) as u8;
            } else {
                *byte += (at % 2) as u8;
            }
        }
        assert_eq!(content(&frame), Rect { x1: 10.0, y1: 4.0, x2: 50.0, y2: 30.0 });
        let empty = content(&Frame::filled(9, 7, [0; 3]));
        assert_eq!((empty.x2 - empty.x1) * (empty.y2 - empty.y1), 0.0);
        let landmarks = Alignment::ARCFACE.landmarks;
        assert_eq!(share(&face(landmarks), &empty), 0.0);
    }

    proptest! {
        /// The polygon's share is that of many points of the ellipse.
        #[test]
        fn the_share_is_that_of_many_points(
            angle in -3.0f32..3.0, scale in 0.3f32..4.0, x0 in -200.0f32..200.0, y0 in -200.0f32..200.0,
        ) {
            let place = Similarity { a: scale * angle.cos(), b: scale * angle.sin(), x0, y0 };
            let landmarks = Alignment::ARCFACE.landmarks.map(|point| place.apply(point));
            let (mut inside, mut all) = (0.0, 0.0);
            for at in 0..201 * 201 {
                let [u, v] = [at % 201, at / 201].map(|step| step as f32 / 100.0 - 1.0);
                if u * u + v * v <= 1.0 {
                    let [x, y] = place.apply([CENTRE[0] + HALF_AXES[0] * u, CENTRE[1] + HALF_AXES[1] * v]);
                    let (x, y) = (x + 0.5, y + 0.5);
                    all += 1.0;
                    if (FRAME.x1..FRAME.x2).contains(&x) && (FRAME.y1..FRAME.y2).contains(&y) {
                        inside += 1.0;
                    }
                }
            }
            let found = outline_share(&landmarks, &FRAME);
            prop_assert!((found - inside / all).abs() < 0.02, "{found} {}", inside / all);
        }

        #[test]
        fn any_face_has_a_share(
            points in prop::array::uniform5([any::<f32>(), any::<f32>()]), rect in prop::array::uniform4(any::<f32>()),
        ) {
            let [x1, y1, x2, y2] = rect;
            let face = Face { rect: Rect { x1, y1, x2, y2 }, score: 1.0, landmarks: points };
            let share = share(&face, &FRAME);
            prop_assert!((0.0..=1.0).contains(&share), "{share}");
        }
    }
}
