//! Where a recognizer expects the landmarks of a face in its input picture.

use serde::{Deserialize, Serialize};

/// `[recognizer.alignment]`: the reference landmarks to which a face is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alignment {
    /// Side of the aligned face, pixels, [`Self::SIDES`].
    pub side: usize,
    /// Left eye, right eye, tip of the nose, left and right corner of the mouth, as seen in
    /// the picture: x and y in pixel-centre coordinates of the aligned face.
    pub landmarks: [[f32; 2]; 5],
}

/// Least distance between the reference eyes, pixels. Closer points give no direction.
const LEAST_EYE_DISTANCE: f32 = 8.0;

impl Alignment {
    /// Sides that a recognizer may have, pixels. Larger ones would keep people waiting.
    pub const SIDES: std::ops::RangeInclusive<usize> = 32..=256;

    /// The alignment of the ArcFace models (Deng et al. 2019), 112x112 pixels. It holds for
    /// a manifest that names none.
    pub const ARCFACE: Self = Self {
        side: 112,
        landmarks: [
            [38.2946, 51.6963],
            [73.5318, 51.5014],
            [56.0252, 71.7366],
            [41.5493, 92.3655],
            [70.7299, 92.2041],
        ],
    };

    /// Checks the ranges. The landmarks must lie in the picture, the left eye to the left of
    /// the right one, and the mouth below the eyes.
    ///
    /// # Errors
    /// The first fault, with the value and what is expected.
    pub fn check(&self) -> Result<(), String> {
        if !Self::SIDES.contains(&self.side) {
            let (least, most) = (Self::SIDES.start(), Self::SIDES.end());
            return Err(format!("side: {} is outside {least}..={most}", self.side));
        }
        let within = 0.0..=(self.side - 1) as f32;
        if let Some([x, y]) = self.landmarks.iter().find(|p| !p.iter().all(|v| within.contains(v)))
        {
            return Err(format!("landmarks: [{x}, {y}] is not in a picture of side {}", self.side));
        }
        let [left_eye, right_eye, _, left_mouth, right_mouth] = self.landmarks;
        if right_eye[0] - left_eye[0] < LEAST_EYE_DISTANCE {
            return Err(format!(
                "landmarks: the right eye must be at least {LEAST_EYE_DISTANCE} pixels to the right of the left eye"
            ));
        }
        let eyes = left_eye[1].max(right_eye[1]);
        if left_mouth[1] <= eyes || right_mouth[1] <= eyes {
            return Err("landmarks: the mouth must be below the eyes".to_owned());
        }
        Ok(())
    }
}

impl Default for Alignment {
    fn default() -> Self {
        Self::ARCFACE
    }
}
