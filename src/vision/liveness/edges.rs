//! The edge of a print or a screen: straight lines beside the face.
//!
//! What is held before a camera ends somewhere, and ends straight. A door frame or a shelf
//! does so too, so that such lines are asked for on three sides of the face; over the
//! fourth the hand may lie.

use crate::vision::frame::{Frame, Rect, luma};

/// Sides of the neighbourhood looked at, in sides of the face's box: a photo or phone
/// that fills more of the picture shows no edge anyway.
const REACH: f32 = 2.6;
/// The neighbourhood is looked at in so many pixels each way; the face takes 37 of them.
const GRID: usize = 96;
/// Rows and columns of the grid that the face's box covers.
const INNER: std::ops::Range<usize> = 30..66;
/// The length of line that is asked for, pixels of the grid: somewhat more than a face.
const LINE: usize = 52;
/// Pixels that a line may lean over its length, either way: 13 degrees.
const LEAN: isize = 12;
/// Step of brightness from one pixel of the grid to the second next that makes an edge.
const STEP: f32 = 16.0;

/// How straight and long the edges beside the face are, 0 to 1: for each side of the face
/// the share of the best line on which brightness steps the same way, and of the four
/// sides the third largest. Parts of the neighbourhood outside the frame have no edges.
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

/// Brightness (BT.601) around the face, row-major; not a number outside the frame.
fn neighbourhood(frame: &Frame, face: &Rect) -> Vec<f32> {
    let (x, y) = face.center();
    let (width, height) = (face.width() * REACH, face.height() * REACH);
    let mut light = Vec::with_capacity(GRID * GRID);
    for row in 0..GRID {
        for column in 0..GRID {
            // Pixel centres of both.
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

/// The best line down the grid within these columns, somewhere beside the face.
fn best_line(light: &impl Fn(usize, usize) -> f32, columns: std::ops::Range<usize>) -> f32 {
    let first = (GRID - LINE) / 2;
    // 1 where it grows brighter, -1 where darker, once a pixel.
    let mut steps = vec![0i8; LINE * GRID];
    for row in 0..LINE {
        for x in columns.clone() {
            // False for what is not a number.
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

    /// A wall with a sheet of paper between these columns and rows.
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
