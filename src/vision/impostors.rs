//! Impostor pairs that the program brings along: views of two people, and pictures without a
//! face. How alike a recognizer finds them is the least that a threshold must exceed.
//!
//! Two people cannot prove a false accept rate. They do prove that a threshold does not let
//! everybody in, whatever the manifest says of it.

use super::built_in_faces::{self, UselessError};
use super::embed::Template;
use super::frame::{Frame, Landmarks};
use super::recognizer::Recognizer;

/// Result of [`measure`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Impostors {
    /// Highest cosine similarity of a pair, -1 to 1.
    pub highest: f32,
    /// Number of pairs.
    pub pairs: usize,
}

/// Compares every view of one built-in person with every view of the other, and all with the
/// pictures without a face.
///
/// # Errors
/// If the network fails.
pub fn measure(recognizer: &mut Recognizer) -> Result<Impostors, UselessError> {
    let [one, other] = built_in_faces::all()?;
    let landmarks = one.1;
    let mut embed = |views: Vec<(Frame, Landmarks)>| -> Result<Vec<Template>, UselessError> {
        views.iter().map(|(frame, face)| Ok(recognizer.embed(frame, face)?)).collect()
    };
    let (width, height) = (one.0.width(), one.0.height());
    let without = faceless(width, height).into_iter().map(|frame| (frame, landmarks)).collect();
    let (one, other) = (embed(views(&one.0, &one.1))?, embed(views(&other.0, &other.1))?);
    let without = embed(without)?;
    let mut measured = Impostors { highest: -1.0, pairs: 0 };
    for (left, right) in [(&one, &other), (&one, &without), (&other, &without)] {
        for (a, b) in left.iter().flat_map(|a| right.iter().map(move |b| (a, b))) {
            measured.pairs += 1;
            // Both are of one model.
            measured.highest = measured.highest.max(a.similarity(b).unwrap_or(1.0));
        }
    }
    Ok(measured)
}

/// A face as a door sees it: in other light, turned, from nearer and farther, mirrored.
fn views(frame: &Frame, landmarks: &Landmarks) -> Vec<(Frame, Landmarks)> {
    let (mirrored, turned) = mirror(frame, landmarks);
    let lit = |factor: f32, offset: f32| {
        let mut frame = frame.clone();
        for value in frame.pixels_mut() {
            // The cast saturates.
            *value = (f32::from(*value) * factor + offset) as u8;
        }
        frame
    };
    vec![
        (frame.clone(), *landmarks),
        (mirrored, turned),
        (lit(0.5, 0.0), *landmarks),
        (lit(1.3, 10.0), *landmarks),
        (lit(0.5, 64.0), *landmarks),
        (frame.clone(), moved(landmarks, 1.0, 0.1)),
        (frame.clone(), moved(landmarks, 1.0, -0.1)),
        (frame.clone(), moved(landmarks, 1.08, 0.0)),
        (frame.clone(), moved(landmarks, 0.92, 0.0)),
    ]
}

fn mirror(frame: &Frame, landmarks: &Landmarks) -> (Frame, Landmarks) {
    let mut mirrored = frame.clone();
    for row in mirrored.pixels_mut().chunks_exact_mut(3 * frame.width()) {
        let pixels = row.len() / 3;
        for at in 0..pixels / 2 {
            for channel in 0..3 {
                row.swap(3 * at + channel, 3 * (pixels - 1 - at) + channel);
            }
        }
    }
    let [left_eye, right_eye, nose, left_mouth, right_mouth] = *landmarks;
    let across = |[x, y]: [f32; 2]| [frame.width() as f32 - 1.0 - x, y];
    (mirrored, [right_eye, left_eye, nose, right_mouth, left_mouth].map(across))
}

/// Landmarks scaled and turned by an angle in radians about their middle.
fn moved(landmarks: &Landmarks, scale: f32, angle: f32) -> Landmarks {
    let middle = |axis: usize| landmarks.iter().map(|point| point[axis]).sum::<f32>() / 5.0;
    let (x, y) = (middle(0), middle(1));
    let (sin, cos) = (angle.sin() * scale, angle.cos() * scale);
    landmarks.map(|[px, py]| {
        let (dx, dy) = (px - x, py - y);
        [x + cos * dx - sin * dy, y + sin * dx + cos * dy]
    })
}

/// Pictures without a face: grey, a slope, stripes, squares, noise.
fn faceless(width: usize, height: usize) -> Vec<Frame> {
    let mut noise = 1u32;
    let mut drawn = |value: &mut dyn FnMut(usize, usize, u8) -> u8| {
        let mut frame = Frame::filled(width, height, [0; 3]);
        for (row, line) in frame.pixels_mut().chunks_exact_mut(3 * width).enumerate() {
            for (column, pixel) in line.chunks_exact_mut(3).enumerate() {
                // Numerical Recipes' generator.
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                pixel.fill(value(column, row, (noise >> 24) as u8));
            }
        }
        frame
    };
    vec![
        drawn(&mut |_, _, _| 128),
        drawn(&mut |column, _, _| (column * 255 / width) as u8),
        drawn(&mut |_, row, _| if row / 8 % 2 == 0 { 40 } else { 200 }),
        drawn(&mut |column, row, _| if (column / 12 + row / 12) % 2 == 0 { 60 } else { 180 }),
        drawn(&mut |_, _, noise| noise),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Models;
    use crate::vision::detect::DetectorSettings;

    #[test]
    fn the_built_in_impostors_are_below_every_threshold_of_the_built_in_set() {
        let models = Models::built_in().expect("models");
        let mut recognizer = Recognizer::new(&models, DetectorSettings::default()).expect("loads");
        let Impostors { highest, pairs } = measure(&mut recognizer).expect("measured");
        let table = models.thresholds().expect("thresholds");
        let lowest = table.points()[0].1;
        assert_eq!(pairs, 9 * 9 + 2 * 9 * 5);
        assert!(highest > 0.0 && highest < lowest, "{highest} of {pairs}, {lowest}");
    }

    #[test]
    fn mirroring_twice_changes_nothing() {
        let [(frame, landmarks), _] = built_in_faces::all().expect("faces");
        let (mirrored, turned) = mirror(&frame, &landmarks);
        assert_ne!(mirrored.pixels(), frame.pixels());
        let (back, same) = mirror(&mirrored, &turned);
        assert_eq!(back.pixels(), frame.pixels());
        for (a, b) in same.iter().zip(&landmarks) {
            assert!((a[0] - b[0]).abs() < 1e-4 && a[1] == b[1]);
        }
    }
}
