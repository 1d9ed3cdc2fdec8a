//! Alignment: rotates and scales a face to an upright crop of fixed size.
//!
//! A similarity transform (rotation, uniform scale, translation) maps the five landmarks
//! onto the reference landmarks of an [`Alignment`] with the least squared error: Umeyama, "Least-squares
//! estimation of transformation parameters between two point patterns", 1991. In two
//! dimensions this is a linear regression of complex numbers.

use crate::models::{Alignment, Channels};
use crate::nn::Normalization;
use crate::vision::frame::{Frame, FrameError, Landmarks};

/// An aligned face: a square frame, RGB. Its side and the places of the landmarks are those
/// of the [`Alignment`] by which it was made.
#[derive(Clone, PartialEq, Eq)]
pub struct Crop(Frame);

impl std::fmt::Debug for Crop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Crop")
    }
}

impl Crop {
    /// An aligned face from `side * side * 3` bytes, RGB row-major.
    ///
    /// # Errors
    /// If the length is wrong.
    pub fn from_pixels(side: usize, pixels: Vec<u8>) -> Result<Self, FrameError> {
        Frame::new(side, side, pixels).map(Self)
    }

    /// Side, pixels.
    pub fn side(&self) -> usize {
        self.0.width()
    }

    /// The pixels of the face.
    pub fn frame(&self) -> &Frame {
        &self.0
    }

    /// Writes the normalized picture as planes, `3 x side x side`, in the order `channels`.
    pub fn planar(&self, channels: Channels, normalization: &Normalization, out: &mut Vec<f32>) {
        let Normalization { mean, std } = normalization;
        let plane = self.side() * self.side();
        out.resize(3 * plane, 0.0);
        let from_rgb = channels.from_rgb();
        for (at, pixel) in self.0.pixels().chunks_exact(3).enumerate() {
            for channel in 0..3 {
                out[channel * plane + at] =
                    (f32::from(pixel[from_rgb[channel]]) - mean[channel]) / std[channel];
            }
        }
    }
}

/// A similarity transform: maps `(x, y)` to
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
    /// The transform that maps `from` to `to` with the least squared error. If the points
    /// of `from` are all equal or not finite, it maps everything to one point.
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

    /// Maps a point `[x, y]`.
    pub fn apply(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        [self.a * x - self.b * y + self.x0, self.b * x + self.a * y + self.y0]
    }

    /// The inverse transform. A transform that maps everything to one point has none;
    /// the result then maps everything to the origin.
    pub fn inverse(&self) -> Self {
        let square = self.a * self.a + self.b * self.b;
        if !square.is_normal() {
            return Self { a: 0.0, b: 0.0, x0: 0.0, y0: 0.0 };
        }
        let (a, b) = (self.a / square, -self.b / square);
        Self { a, b, x0: b * self.y0 - a * self.x0, y0: -b * self.x0 - a * self.y0 }
    }

    /// Factor by which lengths are scaled.
    pub fn scale(&self) -> f32 {
        self.a.hypot(self.b)
    }
}

/// Cuts the face out of `frame`, upright, with bilinear sampling. Pixels outside the frame
/// are black. A face much larger than the crop is first reduced by
/// averaging squares of pixels, so that fine texture does not alias.
pub fn align(frame: &Frame, landmarks: &Landmarks, alignment: &Alignment) -> Crop {
    // Fit towards the crop and invert: this minimizes the error in the crop, where the
    // network expects the landmarks. Fitting the inverse directly would give another scale.
    let back = Similarity::fit(landmarks, &alignment.landmarks).inverse();
    let square = back.scale().round().clamp(1.0, LARGEST_SQUARE) as usize;
    Crop(if square > 1 {
        let (reduced, back) = reduced(frame, &back, alignment.side, square);
        sampled(&reduced, &back, alignment.side)
    } else {
        sampled(frame, &back, alignment.side)
    })
}

/// Samples the crop from `frame`; `back` maps crop coordinates to frame coordinates.
fn sampled(frame: &Frame, back: &Similarity, side: usize) -> Frame {
    let mut crop = Frame::filled(side, side, [0; 3]);
    for (y, row) in crop.pixels_mut().chunks_exact_mut(side * 3).enumerate() {
        for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
            let [from_x, from_y] = back.apply([x as f32, y as f32]);
            let sample = frame.sample(from_x, from_y);
            for channel in 0..3 {
                // Samples are never negative, so that adding 0.5 rounds.
                pixel[channel] = (sample[channel] + 0.5) as u8;
            }
        }
    }
    crop
}

/// The part of the frame that a crop of side `crop` covers, reduced by the factor `side`, and
/// the transform from crop coordinates to it.
fn reduced(frame: &Frame, back: &Similarity, crop: usize, side: usize) -> (Frame, Similarity) {
    let last = (crop - 1) as f32;
    let corners = [[0.0, 0.0], [last, 0.0], [0.0, last], [last, last]].map(|p| back.apply(p));
    // Bilinear samples reach one square beyond the crop. Casts saturate at zero.
    let range = |axis: usize, pixels: usize| {
        let along = corners.map(|corner| corner[axis]);
        let least = along.iter().copied().fold(f32::INFINITY, f32::min);
        let most = along.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let from = (least as usize).saturating_sub(2 * side).min(pixels);
        let to = (most.ceil().max(0.0) as usize).saturating_add(2 * side).min(pixels);
        (from, to.saturating_sub(from).div_ceil(side))
    };
    let ((left, width), (top, height)) = (range(0, frame.width()), range(1, frame.height()));
    let mut small = Frame::filled(width, height, [0; 3]);
    let squares = match side {
        2 => means::<2>,
        3 => means::<3>,
        4 => means::<4>,
        5 => means::<5>,
        6 => means::<6>,
        7 => means::<7>,
        _ => means::<8>,
    };
    squares(frame, (left, top), &mut small);
    // The origin of the reduced frame is the centre of its first square.
    let middle = (side - 1) as f32 / 2.0;
    let scale = 1.0 / side as f32;
    let back = Similarity {
        a: back.a * scale,
        b: back.b * scale,
        x0: (back.x0 - left as f32 - middle) * scale,
        y0: (back.y0 - top as f32 - middle) * scale,
    };
    (small, back)
}

/// Fills `out` with the means of `SIDE x SIDE` squares of the frame, the first of which
/// begins at `(left, top)`. Pixels beyond the frame count as black.
fn means<const SIDE: usize>(frame: &Frame, (left, top): (usize, usize), out: &mut Frame) {
    let (pitch, width) = (frame.width() * 3, out.width());
    for (y, out) in out.pixels_mut().chunks_exact_mut(width.max(1) * 3).enumerate() {
        let from = (top + y * SIDE) * pitch + left * 3;
        for (x, out) in out.chunks_exact_mut(3).enumerate() {
            let mut sums = [0; 3];
            let inside = (frame.width() - left).saturating_sub(x * SIDE).min(SIDE) * 3;
            for row in (0..SIDE).take_while(|row| top + y * SIDE + row < frame.height()) {
                let pixels = &frame.pixels()[from + row * pitch + x * SIDE * 3..][..inside];
                let mut add = |pixel: &[u8]| {
                    (0..3).for_each(|channel| sums[channel] += u32::from(pixel[channel]));
                };
                if inside == SIDE * 3 {
                    // The fixed length lets the compiler unroll the loop.
                    (0..SIDE).for_each(|at| add(&pixels[3 * at..3 * at + 3]));
                } else {
                    pixels.chunks_exact(3).for_each(add);
                }
            }
            let area = (SIDE * SIDE) as u32;
            (0..3).for_each(|channel| out[channel] = ((sums[channel] + area / 2) / area) as u8);
        }
    }
}

/// Largest side of a square averaged, pixels. For faces above about 1,000 pixels larger
/// squares make no visible difference.
const LARGEST_SQUARE: f32 = 8.0;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ARCFACE: Alignment = Alignment::ARCFACE;
    const TEMPLATE: Landmarks = ARCFACE.landmarks;
    const CROP_SIDE: usize = ARCFACE.side;

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
            let crop = align(&Frame::filled(9, 7, [200; 3]), &points, &ARCFACE);
            prop_assert_eq!(crop.frame().width(), CROP_SIDE);
        }
    }

    #[test]
    fn a_face_on_the_template_is_cut_out_unchanged() {
        let bytes = (0..CROP_SIDE * CROP_SIDE * 3).map(|i| (i % 253) as u8).collect();
        let frame = Frame::new(CROP_SIDE, CROP_SIDE, bytes).expect("length is computed");
        let crop = align(&frame, &TEMPLATE, &ARCFACE);
        let most =
            crop.frame().pixels().iter().zip(frame.pixels()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(most <= Some(1), "{most:?}");
    }

    /// Oracle: the mean of 64 samples per pixel from the original frame.
    fn finely_sampled(frame: &Frame, landmarks: &Landmarks) -> Vec<f32> {
        const SAMPLES: usize = 8;
        let back = Similarity::fit(landmarks, &TEMPLATE).inverse();
        let offset = |i: usize| (i as f32 + 0.5) / SAMPLES as f32 - 0.5;
        let mut values = Vec::new();
        for at in 0..CROP_SIDE * CROP_SIDE {
            let (x, y) = ((at % CROP_SIDE) as f32, (at / CROP_SIDE) as f32);
            let mut sums = [0.0; 3];
            for sample in 0..SAMPLES * SAMPLES {
                let [x, y] =
                    back.apply([x + offset(sample % SAMPLES), y + offset(sample / SAMPLES)]);
                let sample = frame.sample(x, y);
                (0..3).for_each(|channel| sums[channel] += sample[channel]);
            }
            values.extend(sums.map(|sum| sum / (SAMPLES * SAMPLES) as f32));
        }
        values
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn large_faces_are_the_mean_of_many_samples(
            angle in -0.5f32..0.5, scale in 1.5f32..6.0, x0 in -150.0f32..150.0, y0 in -150.0f32..150.0,
        ) {
            // Slow waves of colour; part of the crop may lie outside the frame.
            let mut frame = Frame::filled(420, 400, [0; 3]);
            for (at, byte) in frame.pixels_mut().iter_mut().enumerate() {
                let (x, y) = ((at / 3 % 420) as f32, (at / 3 / 420) as f32);
                let wave = (x / 31.0 + (at % 3) as f32).sin() + (y / 23.0).cos();
                *byte = (128.0 + 60.0 * wave) as u8;
            }
            let made = Similarity { a: scale * angle.cos(), b: scale * angle.sin(), x0, y0 };
            let landmarks = TEMPLATE.map(|p| made.apply(p));
            let crop = align(&frame, &landmarks, &ARCFACE);
            let expected = finely_sampled(&frame, &landmarks);
            let off: f32 = crop.frame().pixels().iter().zip(&expected)
                .map(|(got, expected)| (f32::from(*got) - expected).abs()).sum();
            let mean = off / expected.len() as f32;
            prop_assert!(mean < 3.0, "{mean}");
        }
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
        let crop = align(&frame, &turned, &ARCFACE);
        assert!(crop.frame().pixel(20, 56)[0] < 30);
        assert!(crop.frame().pixel(92, 56)[0] > 210);
    }
}
