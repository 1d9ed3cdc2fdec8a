//! Moiré: isolated peaks in the spectrum of a face.
//!
//! A camera that looks at a screen samples one grid with another, and prints consist of
//! dots. Both leave waves in the picture that skin never has (Garcia and de Queiroz,
//! "Face-spoofing 2D-detection based on moiré-pattern analysis", 2015). A wave is a single
//! point in the spectrum. The spectrum of a natural picture falls off smoothly, or along
//! lines if it has edges.
//!
//! The spectrum is computed from the original frame, because resampling would smooth the
//! waves away.

use crate::vision::frame::{Frame, Rect, luma};
use std::f32::consts::TAU;

/// Side of a window, pixels: the smallest in which waves of ten pixels repeat often enough
/// to be detected. Faces are rarely smaller.
const SIDE: usize = 64;
/// Most windows along each axis: more cost time and add little.
const WINDOWS: usize = 3;
/// Lowest frequency of a peak, waves per window: the face itself has waves longer than ten
/// pixels.
const LOWEST: i32 = 6;
/// Frequency of JPEG blocks, which begin every eight pixels, in waves per window. Its
/// multiples come from the camera and do not count.
const JPEG_WAVES: i32 = SIDE as i32 / 8;
/// Distance in the spectrum, waves, of the neighbours with which a peak is compared:
/// further than the Hann window spreads it.
const APART: i32 = 3;
/// Power of half a level of luma per pixel under the Hann window: the power of rounding
/// errors.
const FLOOR: f32 = 0.25 * (SIDE * SIDE) as f32 * 0.375 * 0.375;

/// Height of the strongest isolated peak above its surroundings in the spectrum of a face,
/// decibels, 0 to about 40. It is the larger value of luma and of red minus green, because
/// the fringes of screens are coloured. 0 for a face outside the frame.
pub fn moire(frame: &Frame, face: &Rect) -> f32 {
    if !face.is_finite() || face.intersection(&frame.bounds()) <= 0.0 {
        return 0.0;
    }
    let mut power = [vec![0.0f32; SIDE * SIDE], vec![0.0f32; SIDE * SIDE]];
    let (columns, rows) =
        (starts(face.x1, face.x2, frame.width()), starts(face.y1, face.y2, frame.height()));
    let (hann, turns) = (hann(), turns());
    let mut windows = 0.0;
    for top in rows.iter() {
        for left in columns.iter() {
            add_window(frame, (*left, *top), &hann, &turns, &mut power);
            windows += 1.0;
        }
    }
    power.iter().map(|power| prominence(power, windows * FLOOR)).fold(0.0, f32::max)
}

/// First pixels of the windows that cover an axis of the face evenly. A window larger than
/// the face or the frame extends beyond it.
fn starts(from: f32, to: f32, pixels: usize) -> heapless::Vec<isize, WINDOWS> {
    let last = pixels.saturating_sub(SIDE) as f32;
    let spare = (to - from - SIDE as f32).max(0.0);
    // Windows overlap by half, as in Welch's method.
    let count = ((spare / (SIDE as f32 / 2.0)) as usize + 1).min(WINDOWS);
    let first = if spare > 0.0 { from } else { (from + to - SIDE as f32) / 2.0 };
    let step = if count > 1 { spare / (count - 1) as f32 } else { 0.0 };
    (0..count).map(|at| (first + at as f32 * step).clamp(0.0, last) as isize).collect()
}

/// Adds the power spectra of one window to `power`. Luma is the real part and red minus
/// green the imaginary part of one transform; their symmetry separates the two spectra.
fn add_window(
    frame: &Frame,
    (left, top): (isize, isize),
    hann: &[f32; SIDE],
    turns: &[[f32; 2]; SIDE / 2],
    power: &mut [Vec<f32>; 2],
) {
    let mut grid = vec![[0.0f32; 2]; SIDE * SIDE];
    let mut mean = [0.0f32; 2];
    for (y, row) in grid.chunks_exact_mut(SIDE).enumerate() {
        for (x, value) in row.iter_mut().enumerate() {
            let colour = frame.pixel(left + x as isize, top + y as isize).map(f32::from);
            *value = [luma(colour), colour[0] - colour[1]];
            (0..2).for_each(|part| mean[part] += value[part] / (SIDE * SIDE) as f32);
        }
    }
    for (y, row) in grid.chunks_exact_mut(SIDE).enumerate() {
        for (x, value) in row.iter_mut().enumerate() {
            (0..2).for_each(|part| value[part] = (value[part] - mean[part]) * hann[x] * hann[y]);
        }
    }
    grid.chunks_exact_mut(SIDE).for_each(|row| transform(row, turns));
    let mut line = [[0.0f32; 2]; SIDE];
    for column in 0..SIDE {
        (0..SIDE).for_each(|row| line[row] = grid[row * SIDE + column]);
        transform(&mut line, turns);
        (0..SIDE).for_each(|row| grid[row * SIDE + column] = line[row]);
    }
    for row in 0..SIDE {
        for column in 0..SIDE {
            let [re, im] = grid[row * SIDE + column];
            let [other_re, other_im] = grid[(SIDE - row) % SIDE * SIDE + (SIDE - column) % SIDE];
            let square = |a: f32, b: f32| (a * a + b * b) / 4.0;
            power[0][row * SIDE + column] += square(re + other_re, im - other_im);
            power[1][row * SIDE + column] += square(im + other_im, re - other_re);
        }
    }
}

/// The largest ratio of a power to the strongest power at distance [`APART`] from it,
/// decibels.
fn prominence(power: &[f32], floor: f32) -> f32 {
    let half = SIDE as i32 / 2;
    let wrapped = |waves: i32| waves.rem_euclid(SIDE as i32) as usize;
    let at = |x: i32, y: i32| power[wrapped(y) * SIDE + wrapped(x)];
    let of_jpeg = |waves: i32| {
        let beside = waves.rem_euclid(JPEG_WAVES);
        beside <= 1 || beside == JPEG_WAVES - 1
    };
    let mut most = 1.0f32;
    // The other half plane is a mirror image.
    for y in 0..=half - APART {
        for x in -half + APART..=half - APART {
            if x * x + y * y < LOWEST * LOWEST || of_jpeg(x) && of_jpeg(y) {
                continue;
            }
            let around = (-APART..=APART)
                .flat_map(|d| [(d, -APART), (d, APART), (-APART, d), (APART, d)])
                .map(|(dx, dy)| at(x + dx, y + dy))
                .fold(floor, f32::max);
            most = most.max(at(x, y) / around);
        }
    }
    10.0 * most.log10()
}

fn hann() -> [f32; SIDE] {
    std::array::from_fn(|at| 0.5 - 0.5 * (TAU * (at as f32 + 0.5) / SIDE as f32).cos())
}

/// The factors `e^(-2πi k / SIDE)`.
fn turns() -> [[f32; 2]; SIDE / 2] {
    std::array::from_fn(|k| {
        let (sin, cos) = (TAU * k as f32 / SIDE as f32).sin_cos();
        [cos, -sin]
    })
}

/// Fast Fourier transform of `SIDE` complex numbers, in place (Cooley and Tukey, 1965).
fn transform(values: &mut [[f32; 2]], turns: &[[f32; 2]; SIDE / 2]) {
    let bits = SIDE.trailing_zeros();
    for at in 0..SIDE {
        let other = at.reverse_bits() >> (usize::BITS - bits);
        if at < other {
            values.swap(at, other);
        }
    }
    let mut length = 2;
    while length <= SIDE {
        for block in values.chunks_exact_mut(length) {
            let (first, second) = block.split_at_mut(length / 2);
            for (k, (a, b)) in first.iter_mut().zip(second).enumerate() {
                let [cos, sin] = turns[k * (SIDE / length)];
                let turned = [b[0] * cos - b[1] * sin, b[0] * sin + b[1] * cos];
                *b = [a[0] - turned[0], a[1] - turned[1]];
                *a = [a[0] + turned[0], a[1] + turned[1]];
            }
        }
        length *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn picture(pixel: impl Fn(f32, f32) -> [f32; 3]) -> Frame {
        let mut frame = Frame::filled(160, 160, [0; 3]);
        for (at, to) in frame.pixels_mut().chunks_exact_mut(3).enumerate() {
            let values = pixel((at % 160) as f32, (at / 160) as f32);
            (0..3).for_each(|channel| to[channel] = values[channel].clamp(0.0, 255.0) as u8);
        }
        frame
    }

    fn face() -> Rect {
        Rect { x1: 30.0, y1: 30.0, x2: 130.0, y2: 130.0 }
    }

    /// Light from one side, an edge, and noise like that of a sensor.
    fn plain(x: f32, y: f32) -> f32 {
        let mixed = ((x as u32 * 160 + y as u32) ^ 0x9e37).wrapping_mul(0x85eb_ca6b);
        let mixed = (mixed ^ mixed >> 13).wrapping_mul(0xc2b2_ae35);
        let noise = ((mixed ^ mixed >> 16) % 8) as f32;
        90.0 + x / 2.0 + if x + 2.0 * y > 240.0 { 40.0 } else { 0.0 } + noise
    }

    #[test]
    fn waves_stand_out_of_a_plain_picture() {
        let still = moire(&picture(|x, y| [plain(x, y); 3]), &face());
        let wave = |x: f32, y: f32| 6.0 * (x * 1.3 + y * 0.7).sin();
        let waved = moire(&picture(|x, y| [plain(x, y) + wave(x, y); 3]), &face());
        let fringes = |x, y| [plain(x, y) + wave(x, y), plain(x, y) - wave(x, y), plain(x, y)];
        let coloured = moire(&picture(fringes), &face());
        assert!(waved > still + 10.0 && coloured > still + 10.0, "{still} {waved} {coloured}");
    }

    #[test]
    fn blocks_of_eight_pixels_are_the_cameras() {
        // Each JPEG block has an offset of its own.
        let block = |x: f32, y: f32| {
            let number = (x as u32 / 8) * 20 + y as u32 / 8;
            (number.wrapping_mul(2_654_435_761) >> 30) as f32 * 3.0
        };
        let blocks = moire(&picture(|x, y| [plain(x, y) + block(x, y); 3]), &face());
        assert!(blocks < 12.0, "{blocks}");
    }

    #[test]
    fn the_transform_is_that_of_the_definition() {
        let values: Vec<[f32; 2]> =
            (0..SIDE).map(|at| [(at as f32 * 0.7).sin(), (at as f32).sqrt()]).collect();
        let mut fast = values.clone();
        transform(&mut fast, &turns());
        for (k, got) in fast.iter().enumerate() {
            let sum = values.iter().enumerate().fold([0.0f32; 2], |sum, (at, v)| {
                let (sin, cos) = (-TAU * (k * at % SIDE) as f32 / SIDE as f32).sin_cos();
                [sum[0] + v[0] * cos - v[1] * sin, sum[1] + v[0] * sin + v[1] * cos]
            });
            assert!((sum[0] - got[0]).abs() < 1e-2 && (sum[1] - got[1]).abs() < 1e-2, "{k}");
        }
    }

    proptest! {
        #[test]
        fn any_box_has_a_finite_answer(
            x in -300f32..300.0, y in -300f32..300.0, width in -10f32..400.0, height in -10f32..400.0,
        ) {
            let frame = Frame::filled(50, 70, [90, 80, 70]);
            let answer = moire(&frame, &Rect { x1: x, y1: y, x2: x + width, y2: y + height });
            prop_assert!((0.0..100.0).contains(&answer));
        }
    }
}
