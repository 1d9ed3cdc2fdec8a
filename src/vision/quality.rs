//! Quality of a view of a face: size, sharpness, brightness, pose, and whether the whole face
//! is to be seen. Each is measured, and the weakest decides.

use crate::models::Alignment;
use crate::models::covered::{Cover, CoverClassifier, Covered};
use crate::vision::align::Crop;
use crate::vision::cover;
use crate::vision::detect::Face;
use crate::vision::frame::{Frame, Rect, luma};
use crate::vision::pose::Turn;
use crate::vision::whole;
use std::ops::Range;

/// An aspect of quality in which a view of a face can be poor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aspect {
    /// Size: the face is too far away.
    Size,
    /// Sharpness: the face moves or is out of focus.
    Sharpness,
    /// Brightness: too dark, too bright, or for enrolment too uneven.
    Brightness,
    /// Pose: the head is turned or tilted away.
    Pose,
    /// The edge of the picture cuts the face.
    Cut,
    /// Something covers the face.
    Covered(Cover),
}

impl Aspect {
    /// Advice for the person in front of the camera.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Size => "come closer",
            Self::Sharpness => "hold still",
            Self::Brightness => "more even light is needed",
            Self::Pose => "look into the camera",
            Self::Cut => "come fully into the picture",
            Self::Covered(Cover::Mask) => "take off the mask",
            Self::Covered(Cover::Sunglasses) => "take off the sunglasses",
            Self::Covered(Cover::Other) => "uncover the whole face",
        }
    }
}

/// The quality measurements of one view.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// Distance between the eyes in the frame, pixels.
    pub eye_distance: f32,
    /// Sharpness, from 0 up: the mean square of the Laplacian of the aligned face divided
    /// by the variance of its luma, so the share of fine detail in the contrast.
    pub sharpness: f32,
    /// Mean luma (BT.601) of the aligned face, 0..=255.
    pub brightness: f32,
    /// Difference in light between the left and the right half: the difference of their
    /// mean luma divided by the sum, from 0 (equal) to 1 (one half is black).
    pub sides: f32,
    /// Turn of the head, from the position of the nose.
    pub turn: Turn,
    /// Share of the face that lies in the picture, 0..=1; see [`whole::share`].
    pub in_picture: f32,
    /// Whether something covers the face. `None` with a model set that cannot tell.
    pub covered: Option<Covered>,
}

/// Side of the crop that is measured, pixels.
const CROP_SIDE: usize = Alignment::ARCFACE.side;
/// Columns of the crop that show the face without hair.
const FACE: Range<usize> = 24..88;
/// Rows of the crop from eyebrows to chin.
const FACE_ROWS: Range<usize> = 36..100;

/// Quality score below which a view is not compared with the gallery. By the ramps below,
/// such a face has lost a fifth of its similarity to a clear view.
pub const WORTH_COMPARING: f32 = 0.2;
/// Quality score below which a view is not enrolled. A template is used for years, so it
/// should lose almost no similarity.
pub const WORTH_ENROLLING: f32 = 0.5;

// Ramps from useless (score 0) to perfect (score 1). Measured on 200 photos of LFW: each
// was degraded step by step and compared with the original (median cosine).
//   eye distance 21 pixels: 0.96, 13: 0.81, 9: 0.53
//   sharpness 0.047: 0.98, 0.014: 0.84, 0.006: 0.56
//   brightness 65: 0.97, 32: 0.91, 15: 0.71; overexposed 192: 0.94, 216: 0.85, 229: 0.63
const EYE_DISTANCE: (f32, f32) = (10.0, 26.0);
const SHARPNESS: (f32, f32) = (0.006, 0.045);
const DARK: (f32, f32) = (10.0, 60.0);
const BRIGHT: (f32, f32) = (240.0, 190.0);
// In LFW, which has few profile views, 98 of 100 photos have a yaw within 0.45 and a pitch
// within 0.22.
const YAW: (f32, f32) = (0.8, 0.35);
const PITCH: (f32, f32) = (0.5, 0.22);
/// Pitch of a frontal face, the position of the nose between eyes (0) and mouth (1), from
/// the ArcFace template: (71.7 - 51.6) / (92.3 - 51.6).
const FRONTAL_PITCH: f32 = 0.49;
// Measured the same way, with one half of the face darkened step by step: 0.20: 0.96,
// 0.34: 0.91, 0.43: 0.88, 0.54: 0.82. Of the original photos half lie below 0.06, nine in
// ten below 0.20, 98 in 100 below 0.37.
const SIDES: (f32, f32) = (0.5, 0.16);
// A view is enrolled with 0.9 of the face in the picture and compared with 0.84. None of
// 10,000 photos of LFW and of portraits, whose faces are whole, has less than 0.9.
const IN_PICTURE: (f32, f32) = (0.8, 1.0);
// By the definition of the degree: 0.5 at 0, where enrolment refuses, and 0.2 at 1.
const COVERED: (f32, f32) = (5.0 / 3.0, -5.0 / 3.0);

impl Quality {
    /// Measures a face, with landmarks in pixels of the frame, and its crop aligned by
    /// [`Alignment::ARCFACE`], whatever the recognizer's own alignment is. A crop of another
    /// side counts as black. `content` is the part of the frame that shows something; see
    /// [`whole::content`]. Without `covers` a covered face is not noticed.
    pub fn measure(
        content: &Rect,
        face: &Face,
        crop: &Crop,
        covers: Option<&CoverClassifier>,
    ) -> Self {
        let turn = Turn::of(&face.landmarks);
        let [left, right, ..] = face.landmarks;
        let light = match crop.side() {
            CROP_SIDE => light(crop.frame()),
            _ => vec![0.0; CROP_SIDE * CROP_SIDE],
        };
        let (mut sum, mut squares, mut detail, mut count) = (0.0, 0.0, 0.0, 0.0f32);
        for [middle, laplacian] in details(&light, CROP_SIDE, FACE, FACE_ROWS) {
            sum += middle;
            squares += middle * middle;
            detail += laplacian * laplacian;
            count += 1.0;
        }
        let brightness = sum / count;
        let contrast = (squares / count - brightness * brightness).max(1.0);
        Self {
            eye_distance: (right[0] - left[0]).hypot(right[1] - left[1]),
            sharpness: detail / count / contrast,
            brightness,
            sides: sides(&light),
            turn,
            in_picture: whole::share(face, content),
            covered: covers.and_then(|covers| Some(covers.judge(&cover::features(crop)?))),
        }
    }

    /// Score of the weakest aspect, from 0 (useless) to 1 (perfect).
    pub fn score(&self) -> f32 {
        self.weakest().1
    }

    /// The weakest aspect and its score for a view to be enrolled, which also needs even
    /// light.
    pub fn weakest_to_enroll(&self) -> (Aspect, f32) {
        let even = ramp(self.sides, SIDES);
        let weakest = self.weakest();
        if even < weakest.1 { (Aspect::Brightness, even) } else { weakest }
    }

    /// The weakest aspect and its score, 0..=1.
    pub fn weakest(&self) -> (Aspect, f32) {
        let aspects = [
            (Aspect::Size, ramp(self.eye_distance, EYE_DISTANCE)),
            (Aspect::Sharpness, ramp(self.sharpness, SHARPNESS)),
            (Aspect::Brightness, ramp(self.brightness, DARK).min(ramp(self.brightness, BRIGHT))),
            (
                Aspect::Pose,
                ramp(self.turn.yaw.abs(), YAW)
                    .min(ramp((self.turn.pitch - FRONTAL_PITCH).abs(), PITCH)),
            ),
            (Aspect::Cut, ramp(self.in_picture, IN_PICTURE)),
            self.covered.map_or((Aspect::Covered(Cover::Other), 1.0), |covered| {
                (Aspect::Covered(covered.by), ramp(covered.degree, COVERED))
            }),
        ];
        aspects.into_iter().fold(aspects[0], |a, b| if b.1 < a.1 { b } else { a })
    }
}

/// Linear ramp from 0 at `none` to 1 at `full`, clamped; either bound may be the larger.
/// NaN gives 0.
fn ramp(value: f32, (none, full): (f32, f32)) -> f32 {
    let share = (value - none) / (full - none);
    if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
}

/// See [`Quality::sides`]. `light` is the luma of the crop, row-major.
fn sides(light: &[f32]) -> f32 {
    let half = |columns: Range<usize>| -> f32 {
        FACE_ROWS.map(|y| light[y * CROP_SIDE..][columns.clone()].iter().sum::<f32>()).sum()
    };
    let middle = (FACE.start + FACE.end) / 2;
    let (left, right) = (half(FACE.start..middle), half(middle..FACE.end));
    (left - right).abs() / (left + right).max(1.0)
}

/// Luma of each pixel, row-major, 0..=255.
fn light(frame: &Frame) -> Vec<f32> {
    frame.pixels().as_chunks::<3>().0.iter().map(|pixel| luma(pixel.map(f32::from))).collect()
}

/// Luma and Laplacian of each pixel in a range of columns and rows, row by row. The range
/// must not touch the border.
fn details(
    light: &[f32],
    width: usize,
    columns: Range<usize>,
    rows: Range<usize>,
) -> impl Iterator<Item = [f32; 2]> {
    let at = move |x: usize, y: usize| light[y * width + x];
    rows.flat_map(move |y| columns.clone().map(move |x| (x, y))).map(move |(x, y)| {
        let around = at(x - 1, y) + at(x + 1, y) + at(x, y - 1) + at(x, y + 1);
        [at(x, y), around - 4.0 * at(x, y)]
    })
}

/// Mean luma of a whole picture, 0..=255, and its sharpness, from 0 up, measured as for
/// faces. Helps to point and focus a camera.
pub fn of_picture(frame: &Frame) -> (f64, f64) {
    let (light, width, height) = (light(frame), frame.width(), frame.height());
    let count = light.len() as f64;
    let mean = light.iter().copied().map(f64::from).sum::<f64>() / count;
    let contrast = light.iter().map(|light| (f64::from(*light) - mean).powi(2)).sum::<f64>();
    let inner = |side: usize| 1..side.saturating_sub(1);
    let (mut detail, mut inside) = (0.0, 0.0);
    for [_, laplacian] in details(&light, width, inner(width), inner(height)) {
        detail += f64::from(laplacian).powi(2);
        inside += 1.0;
    }
    (mean, detail / f64::max(inside, 1.0) / (contrast / count).max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::covered::Linear;
    use crate::vision::frame::Landmarks;

    const TEMPLATE: Landmarks = Alignment::ARCFACE.landmarks;
    const CONTENT: Rect = Rect { x1: 0.0, y1: 0.0, x2: 120.0, y2: 120.0 };

    fn measured(face: &Face, crop: &Crop) -> Quality {
        Quality::measure(&CONTENT, face, crop, None)
    }

    fn face(landmarks: Landmarks) -> Face {
        Face { rect: Rect { x1: 0.0, y1: 0.0, x2: 112.0, y2: 112.0 }, score: 1.0, landmarks }
    }

    fn crop(pixel: impl Fn(usize, usize) -> u8) -> Crop {
        let pixels = (0..CROP_SIDE * CROP_SIDE)
            .flat_map(|at| [pixel(at % CROP_SIDE, at / CROP_SIDE); 3])
            .collect();
        Crop::from_pixels(CROP_SIDE, pixels).expect("112 x 112")
    }

    /// Blobs a few pixels wide, like the detail of a face.
    fn textured(x: usize, y: usize) -> u8 {
        let wave = |v: usize, step: f32| (v as f32 / step).sin();
        (128.0 + 40.0 * wave(x, 2.0) * wave(y, 2.0) + 40.0 * wave(x, 14.0)) as u8
    }

    #[test]
    fn a_good_view_is_good_and_each_fault_is_named() {
        let good = measured(&face(TEMPLATE), &crop(textured));
        assert!(good.score() > 0.9, "{good:?}");
        let far = face(TEMPLATE.map(|[x, y]| [x / 4.0, y / 4.0]));
        assert_eq!(measured(&far, &crop(textured)).weakest().0, Aspect::Size);
        let smooth = crop(|x, _| (128.0 + 40.0 * (x as f32 / 14.0).sin()) as u8);
        assert_eq!(measured(&face(TEMPLATE), &smooth).weakest().0, Aspect::Sharpness);
        for dim in [crop(|x, y| textured(x, y) / 12), crop(|x, y| 235 + textured(x, y) / 13)] {
            assert_eq!(measured(&face(TEMPLATE), &dim).weakest().0, Aspect::Brightness);
        }
        let mut turned = TEMPLATE;
        turned[2][0] += 25.0;
        assert_eq!(measured(&face(turned), &crop(textured)).weakest().0, Aspect::Pose);
    }

    #[test]
    fn a_face_that_is_not_whole_is_poor_and_the_cure_is_named() {
        let shifted = face(TEMPLATE.map(|[x, y]| [x, y + 60.0]));
        let cut = measured(&shifted, &crop(textured));
        assert_eq!(cut.weakest().0.advice(), "come fully into the picture");
        assert!(cut.score() < WORTH_COMPARING, "{cut:?}");
        let linear = |bias| Linear { bias, weights: vec![0.0; CoverClassifier::FEATURES] };
        for (degree, compared, enrolled) in
            [(-1.0, true, true), (0.1, true, false), (1.1, false, false)]
        {
            let covers = CoverClassifier {
                mask: linear(-3.0),
                sunglasses: linear(degree),
                other: linear(-2.0),
            };
            let crop = crop(textured);
            let quality = Quality::measure(&CONTENT, &face(TEMPLATE), &crop, Some(&covers));
            assert_eq!(quality.weakest().0.advice(), "take off the sunglasses");
            assert_eq!(quality.score() >= WORTH_COMPARING, compared, "{degree}");
            assert_eq!(quality.score() >= WORTH_ENROLLING, enrolled, "{degree}");
        }
    }

    #[test]
    fn light_from_one_side_spoils_an_enrolment_alone() {
        let lit = |share: f32| {
            crop(move |x, y| {
                let factor = if x < CROP_SIDE / 2 { share } else { 1.0 };
                (f32::from(textured(x, y)) * factor) as u8
            })
        };
        let even = measured(&face(TEMPLATE), &lit(0.9));
        assert_eq!(even.weakest_to_enroll(), even.weakest());
        let uneven = measured(&face(TEMPLATE), &lit(0.2));
        assert!(uneven.sides > 0.5, "{uneven:?}");
        assert_eq!(uneven.weakest_to_enroll().0, Aspect::Brightness);
        assert!(uneven.weakest_to_enroll().1 < WORTH_ENROLLING);
    }

    #[test]
    fn a_sharp_picture_measures_sharper_than_a_smooth_one() {
        let picture = |light: fn(usize, usize) -> u8| {
            let pixels = (0..64 * 64).flat_map(|at| [light(at % 64, at / 64); 3]).collect();
            of_picture(&Frame::new(64, 64, pixels).expect("a picture"))
        };
        let (brightness, sharp) = picture(|x, y| if (x / 4 + y / 4) % 2 == 0 { 100 } else { 200 });
        assert!((brightness - 150.0).abs() < 1.0, "{brightness}");
        let (_, smooth) = picture(|x, y| (2 * x + 2 * y) as u8);
        assert!(sharp > 100.0 * smooth, "{sharp} {smooth}");
        for side in [1, 2] {
            assert_eq!(of_picture(&Frame::filled(side, side, [7; 3])).1, 0.0);
        }
    }

    #[test]
    fn nonsense_landmarks_score_nothing() {
        let broken = face([[f32::NAN; 2]; 5]);
        assert_eq!(measured(&broken, &crop(textured)).score(), 0.0);
        let one_point = face([[5.0; 2]; 5]);
        assert_eq!(measured(&one_point, &crop(textured)).score(), 0.0);
    }
}
