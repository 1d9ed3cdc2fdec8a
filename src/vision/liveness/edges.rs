//! Edges of a print or a screen: straight lines beside the face.
//!
//! A print or a screen in front of the camera has straight edges. A door frame or a shelf
//! has them, too, so edges are required on three sides of the face. A hand may hide the
//! fourth.

use crate::vision::frame::{Frame, Rect, luma};

/// Side of the neighbourhood, in sides of the bounding box. The edges of a larger photo or
/// phone are out of view anyway.
const REACH: f32 = 2.6;
/// Side of the grid onto which the neighbourhood is sampled, pixels; the face covers 37.
const GRID: usize = 96;
/// Rows and columns of the grid that the bounding box covers.
const INNER: std::ops::Range<usize> = 30..66;
/// Length of a line, pixels of the grid: somewhat longer than the face.
const LINE: usize = 52;
/// Largest lean of a line over its length to either side, pixels of the grid: 13 degrees.
const LEAN: isize = 12;
/// Least difference in luma between two pixels of the grid, one pixel apart, at an edge.
const STEP: f32 = 16.0;

/// Strength of straight edges beside the face, 0 to 1. For each of the four sides it takes
/// the share of the best line along which the luma changes in the same direction; the
/// result is the third largest. Parts of the neighbourhood outside the frame have no edges.
pub fn straight_edges(frame: &Frame, face: &Rect) -> f32 {
    if !face.is_finite() || face.area() <= 0.0 {
        return 0.0;
    }
    let light = neighbourhood(frame, face);
    let down = |x: usize, y: usize| light[y * GRID + x];
    let across = |x: usize, y: usize| light[x * GRID + y];
    let sides = [
        best_line(&down, 1..INNER.start),
        best_line(&down, INNER.end..GRID - 1),
        best_line(&across, 1..INNER.start),
        best_line(&across, INNER.end..GRID - 1),
    ];
    let mut sorted = sides;
    sorted.sort_by(|a, b| b.total_cmp(a));
    sorted[2]
}

/// Luma (BT.601) around the face, `GRID x GRID` row-major; NaN outside the frame.
fn neighbourhood(frame: &Frame, face: &Rect) -> Vec<f32> {
    let (x, y) = face.center();
    let (width, height) = (face.width() * REACH, face.height() * REACH);
    let mut light = Vec::with_capacity(GRID * GRID);
    for row in 0..GRID {
        for column in 0..GRID {
            // Pixel centres of the grid and of the frame.
            let along = |at: usize| (at as f32 + 0.5) / GRID as f32 - 0.5;
            let (x, y) = (x + along(column) * width - 0.5, y + along(row) * height - 0.5);
            let inside = x >= 0.0
                && y >= 0.0
                && x <= (frame.width() - 1) as f32
                && y <= (frame.height() - 1) as f32;
            light.push(if inside { luma(frame.sample(x, y)) } else { f32::NAN });
        }
    }
    light
}

/// The share of the best line down the grid within these columns, beside the face.
fn best_line(light: &impl Fn(usize, usize) -> f32, columns: std::ops::Range<usize>) -> f32 {
    let first = (GRID - LINE) / 2;
    // 1 for a step to brighter, -1 for a step to darker, at each pixel.
    let mut steps = vec![0i8; LINE * GRID];
    for row in 0..LINE {
        for x in columns.clone() {
            // NaN gives no step.
            let step = light(x + 1, first + row) - light(x - 1, first + row);
            steps[row * GRID + x] = i8::from(step >= STEP) - i8::from(step <= -STEP);
        }
    }
    let mut best = 0;
    for lean in -LEAN..=LEAN {
        for start in columns.clone() {
            let (mut brighter, mut darker) = (0, 0);
            for row in 0..LINE {
                let x = start as isize + lean * (row as isize) / (LINE as isize - 1);
                if x < columns.start as isize || x >= columns.end as isize {
                    continue;
                }
                let step = steps[row * GRID + x as usize];
                brighter += i32::from(step > 0);
                darker += i32::from(step < 0);
            }
            best = best.max(brighter).max(darker);
        }
    }
    best as f32 / LINE as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FACE: Rect = Rect { x1: 80.0, y1: 70.0, x2: 160.0, y2: 170.0 };

    /// A wall with a sheet of paper in these columns and rows.
    fn sheet(columns: std::ops::Range<usize>, rows: std::ops::Range<usize>) -> Frame {
        let mut frame = Frame::filled(240, 240, [90; 3]);
        for (at, pixel) in frame.pixels_mut().chunks_exact_mut(3).enumerate() {
            let (x, y) = (at % 240, at / 240);
            // It leans a little.
            if columns.contains(&(x + y / 16)) && rows.contains(&y) {
                pixel.fill(170);
            }
        }
        frame
    }

    #[test]
    fn a_sheet_behind_a_face_has_edges_and_a_wall_has_none() {
        assert!(straight_edges(&sheet(60..195, 40..200), &FACE) > 0.9);
        assert_eq!(straight_edges(&sheet(0..0, 0..0), &FACE), 0.0);
    }

    #[test]
    fn one_line_is_a_door_frame() {
        assert!(straight_edges(&sheet(40..500, 0..240), &FACE) < 0.3);
    }

    #[test]
    fn the_frames_own_border_is_no_edge() {
        let frame = Frame::filled(240, 240, [200; 3]);
        assert_eq!(straight_edges(&frame, &Rect { x1: 2.0, y1: 2.0, x2: 230.0, y2: 236.0 }), 0.0);
    }

    proptest! {
        #[test]
        fn the_answer_is_a_share(
            x in -300f32..300.0, y in -300f32..300.0, width in -10f32..400.0, height in -10f32..400.0,
        ) {
            let face = Rect { x1: x, y1: y, x2: x + width, y2: y + height };
            let answer = straight_edges(&sheet(60..180, 40..200), &face);
            prop_assert!((0.0..=1.0).contains(&answer));
        }
    }
}
