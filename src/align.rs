//! Faces turned upright and brought to one size.
//!
//! Five landmarks are mapped onto the ArcFace template by the similarity
//! transform (rotation, one scale, translation) with the least squared error:
//! Umeyama, "Least-squares estimation of transformation parameters between two
//! point patterns", 1991, which in the plane is a linear regression of complex
//! numbers.

use crate::frame::{Frame, FrameError, Landmarks};

/// Sides of an aligned face, pixels.
pub const CROP_SIDE: usize = 112;

/// Where the landmarks of an aligned face lie, pixel centres of a 112x112
/// picture: the template of ArcFace (Deng et al. 2019), in the order of
/// [`Landmarks`].
pub const TEMPLATE: Landmarks = [
    [38.2946, 51.6963],
    [73.5318, 51.5014],
    [56.0252, 71.7366],
    [41.5493, 92.3655],
    [70.7299, 92.2041],
];

/// An aligned face: 112x112 RGB.
#[derive(Clone, PartialEq, Eq)]
pub struct Crop(Frame);

impl std::fmt::Debug for Crop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Crop")
    }
}

impl Crop {
    /// An aligned face from `112 * 112 * 3` bytes, RGB row-major.
    pub fn from_pixels(pixels: Vec<u8>) -> Result<Self, FrameError> {
        Frame::new(CROP_SIDE, CROP_SIDE, pixels).map(Self)
    }

    /// The picture.
    pub fn frame(&self) -> &Frame {
        &self.0
    }
}

/// A similarity transform: `(x, y)` goes to
/// `(a * x - b * y + x0, b * x + a * y + y0)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Similarity {
    /// Scale times the cosine of the angle.
    pub a: f32,
    /// Scale times the sine of the angle.
    pub b: f32,
    /// Translation along x.
    pub x0: f32,
    /// Translation along y.
    pub y0: f32,
}

impl Similarity {
    /// The transform that carries `from` closest to `to`. Five equal or
    /// non-finite points give one that maps everything to one point.
    pub fn fit(from: &Landmarks, to: &Landmarks) -> Self {
        let mean = |points: &Landmarks| {
            let sum = points
                .iter()
                .fold([0.0f64; 2], |s, p| [s[0] + f64::from(p[0]), s[1] + f64::from(p[1])]);
            [sum[0] / 5.0, sum[1] / 5.0]
        };
        let (from_mean, to_mean) = (mean(from), mean(to));
        let (mut spread, mut a, mut b) = (0.0, 0.0, 0.0);
        for (p, q) in from.iter().zip(to) {
            let (px, py) = (f64::from(p[0]) - from_mean[0], f64::from(p[1]) - from_mean[1]);
            let (qx, qy) = (f64::from(q[0]) - to_mean[0], f64::from(q[1]) - to_mean[1]);
            spread += px * px + py * py;
            a += px * qx + py * qy;
            b += px * qy - py * qx;
        }
        let (a, b) = if spread > 0.0 { (a / spread, b / spread) } else { (0.0, 0.0) };
        Self {
            a: a as f32,
            b: b as f32,
            x0: (to_mean[0] - a * from_mean[0] + b * from_mean[1]) as f32,
            y0: (to_mean[1] - b * from_mean[0] - a * from_mean[1]) as f32,
        }
    }

    /// Where a point goes.
    pub fn apply(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        [self.a * x - self.b * y + self.x0, self.b * x + self.a * y + self.y0]
    }

    /// The way back. A transform that maps everything to one point has none, and
    /// gives one that maps everything to the origin.
    pub fn inverse(&self) -> Self {
        let square = self.a * self.a + self.b * self.b;
        if !square.is_normal() {
            return Self { a: 0.0, b: 0.0, x0: 0.0, y0: 0.0 };
        }
        let (a, b) = (self.a / square, -self.b / square);
        Self { a, b, x0: b * self.y0 - a * self.x0, y0: -b * self.x0 - a * self.y0 }
    }

    /// Factor by which lengths grow.
    pub fn scale(&self) -> f32 {
        self.a.hypot(self.b)
    }
}

/// Cuts the face out of `frame`, upright: 112x112, bilinear, black outside the
/// frame. Faces much larger than the crop are averaged over several samples a
/// pixel, so that fine texture does not alias.
pub fn align(frame: &Frame, landmarks: &Landmarks) -> Crop {
    // Each pixel of the crop asks where it comes from. The error is least in the
    // crop, where the network was trained to expect the landmarks; fitting the
    // way back instead would give another scale.
    let back = Similarity::fit(landmarks, &TEMPLATE).inverse();
    let side = back.scale().round().clamp(1.0, MAX_SAMPLES_A_SIDE) as usize;
    let share = 1.0 / (side * side) as f32;
    let mut crop = Frame::filled(CROP_SIDE, CROP_SIDE, [0; 3]);
    for (at, pixel) in crop.pixels_mut().chunks_exact_mut(3).enumerate() {
        let (x, y) = ((at % CROP_SIDE) as f32, (at / CROP_SIDE) as f32);
        let mut sums = [0.0f32; 3];
        for sample in 0..side * side {
            let offset = |i: usize| (i as f32 + 0.5) / side as f32 - 0.5;
            let [sx, sy] = back.apply([x + offset(sample % side), y + offset(sample / side)]);
            let sample = frame.sample(sx, sy);
            for channel in 0..3 {
                sums[channel] += sample[channel];
            }
        }
        for channel in 0..3 {
            pixel[channel] = (sums[channel] * share).round() as u8;
        }
    }
    Crop(crop)
}

/// Beyond a face of 1,000 pixels more samples a pixel change nothing visible.
const MAX_SAMPLES_A_SIDE: f32 = 8.0;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn finds_the_similarity_that_made_the_points(
            angle in -3.0f32..3.0, scale in 0.2f32..5.0, x0 in -200.0f32..200.0, y0 in -200.0f32..200.0,
        ) {
            let made = Similarity { a: scale * angle.cos(), b: scale * angle.sin(), x0, y0 };
            let moved = TEMPLATE.map(|p| made.apply(p));
            let back = Similarity::fit(&moved, &TEMPLATE);
            for (p, expected) in moved.iter().zip(TEMPLATE) {
                let [x, y] = back.apply(*p);
                prop_assert!((x - expected[0]).abs() < 0.05 && (y - expected[1]).abs() < 0.05);
                let [x, y] = back.inverse().apply(back.apply(*p));
                let tolerance = 0.01 + 1e-4 * (x0.abs() + y0.abs() + 200.0 * scale);
                prop_assert!((x - p[0]).abs() < tolerance && (y - p[1]).abs() < tolerance);
            }
        }

        #[test]
        fn no_other_similarity_is_closer(
            noise in prop::collection::vec(-4.0f32..4.0, 10), nudge in prop::collection::vec(-0.02f32..0.02, 4),
        ) {
            let from: Landmarks =
                std::array::from_fn(|i| [TEMPLATE[i][0] + noise[i], TEMPLATE[i][1] + noise[i + 5]]);
            let fit = Similarity::fit(&from, &TEMPLATE);
            let error = |s: &Similarity| -> f32 {
                from.iter().zip(TEMPLATE).map(|(p, q)| {
                    let [x, y] = s.apply(*p);
                    (x - q[0]).powi(2) + (y - q[1]).powi(2)
                }).sum()
            };
            let other = Similarity {
                a: fit.a + nudge[0], b: fit.b + nudge[1], x0: fit.x0 + nudge[2], y0: fit.y0 + nudge[3],
            };
            prop_assert!(error(&fit) <= error(&other) + 1e-2);
        }

        #[test]
        fn any_landmarks_give_a_crop(points in prop::array::uniform5([any::<f32>(), any::<f32>()])) {
            let crop = align(&Frame::filled(9, 7, [200; 3]), &points);
            prop_assert_eq!(crop.frame().width(), CROP_SIDE);
        }
    }

    #[test]
    fn a_face_on_the_template_is_cut_out_unchanged() {
        let bytes = (0..CROP_SIDE * CROP_SIDE * 3).map(|i| (i % 253) as u8).collect();
        let frame = Frame::new(CROP_SIDE, CROP_SIDE, bytes).expect("length is computed");
        let crop = align(&frame, &TEMPLATE);
        let most =
            crop.frame().pixels().iter().zip(frame.pixels()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(most <= Some(1), "{most:?}");
    }

    #[test]
    fn a_face_on_its_side_is_turned_upright() {
        // Left half dark, right half bright, then the whole turned by 90 degrees.
        let mut frame = Frame::filled(200, 200, [20; 3]);
        for (at, byte) in frame.pixels_mut().iter_mut().enumerate() {
            if at / 3 / 200 >= 100 {
                *byte = 220;
            }
        }
        let (cx, cy) = (56.0, 72.0);
        let turned = TEMPLATE.map(|[x, y]| [100.0 - (y - cy), 100.0 + (x - cx)]);
        let crop = align(&frame, &turned);
        assert!(crop.frame().pixel(20, 56)[0] < 30);
        assert!(crop.frame().pixel(92, 56)[0] > 210);
    }
}
