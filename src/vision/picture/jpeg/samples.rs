//! Converts coefficients to samples and samples to pixels, with the rounding of libjpeg.

use super::Block;
use crate::vision::ycbcr::{Colours, Matrix, Weights};

/// Fractional bits of the factors of the transform.
const FACTOR_BITS: u32 = 13;
/// Extra bits kept between its two passes.
const EXTRA_BITS: u32 = 2;
/// JPEG files hold YCbCr by BT.601, full range.
const WEIGHTS: Weights = Colours { matrix: Matrix::Bt601, full_range: true }.weights();

/// The samples of one colour component.
pub(super) struct Plane {
    width: usize,
    height: usize,
    stride: usize,
    samples: Vec<u8>,
}

impl Plane {
    /// Transforms all blocks, `across` of them per row. Samples beyond `width` and `height`
    /// are padding and never used.
    pub(super) fn new(
        width: usize,
        height: usize,
        across: usize,
        blocks: &[Block],
        quantization: &[u16; 64],
    ) -> Self {
        let mut samples = vec![0; 64 * blocks.len()];
        let stride = 8 * across;
        let rows = blocks.chunks_exact(across).zip(samples.chunks_exact_mut(8 * stride));
        for (blocks, samples) in rows {
            for (at, block) in blocks.iter().enumerate() {
                let values = transformed(block, quantization);
                for (y, values) in values.as_chunks::<8>().0.iter().enumerate() {
                    samples[y * stride + 8 * at..][..8].copy_from_slice(values);
                }
            }
        }
        Self { width, height, stride, samples }
    }

    fn row(&self, y: usize) -> &[u8] {
        &self.samples[y * self.stride..][..self.width]
    }
}

/// Inverse discrete cosine transform of Loeffler, Ligtenberg and Moschytz in fixed point,
/// columns first.
fn transformed(block: &Block, quantization: &[u16; 64]) -> [u8; 64] {
    if block[1..].iter().all(|coefficient| *coefficient == 0) {
        let flat = i32::from(block[0]).wrapping_mul(i32::from(quantization[0]));
        return [sample(flat.wrapping_add(4) >> 3); 64];
    }
    let mut rows = [Lanes::default(); 8];
    let factors = block.as_chunks::<8>().0.iter().zip(quantization.as_chunks::<8>().0);
    for (row, (coefficients, steps)) in rows.iter_mut().zip(factors) {
        for at in 0..8 {
            row.0[at] = i32::from(coefficients[at]).wrapping_mul(i32::from(steps[at]));
        }
    }
    pass(&mut rows, FACTOR_BITS - EXTRA_BITS);
    let mut columns = turned(&rows);
    pass(&mut columns, FACTOR_BITS + EXTRA_BITS + 3);
    let mut samples = [0; 64];
    for (samples, row) in samples.as_chunks_mut::<8>().0.iter_mut().zip(&turned(&columns)) {
        for (out, value) in samples.iter_mut().zip(&row.0) {
            *out = sample(*value);
        }
    }
    samples
}

/// Eight numbers at a time. Only invalid coefficients give sums beyond 32 bits; these wrap,
/// and the result is clamped to a sample.
#[derive(Clone, Copy, Default)]
struct Lanes([i32; 8]);

impl Lanes {
    #[inline(always)]
    fn with(mut self, other: &Self, operation: impl Fn(i32, i32) -> i32) -> Self {
        for at in 0..8 {
            self.0[at] = operation(self.0[at], other.0[at]);
        }
        self
    }

    #[inline(always)]
    fn times(self, factor: i32) -> Self {
        self.with(&Self([factor; 8]), i32::wrapping_mul)
    }
}

impl std::ops::Add for Lanes {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.with(&other, i32::wrapping_add)
    }
}

impl std::ops::Sub for Lanes {
    type Output = Self;

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.with(&other, i32::wrapping_sub)
    }
}

/// Transposes eight rows.
#[inline(always)]
fn turned(rows: &[Lanes; 8]) -> [Lanes; 8] {
    let mut columns = [Lanes::default(); 8];
    for (y, row) in rows.iter().enumerate() {
        for (column, value) in columns.iter_mut().zip(&row.0) {
            column.0[y] = *value;
        }
    }
    columns
}

/// One pass over each lane; the result is rounded and shifted right by `bits`.
#[inline(always)]
fn pass(c: &mut [Lanes; 8], bits: u32) {
    let both = (c[2] + c[6]).times(4433);
    let (low, high) = (both + c[6].times(-15137), both + c[2].times(6270));
    let one = 1 << FACTOR_BITS;
    let half = Lanes([1 << (bits - 1); 8]);
    let (sum, difference) = ((c[0] + c[4]).times(one) + half, (c[0] - c[4]).times(one) + half);
    let even = [sum + high, difference + low, difference - low, sum - high];

    let all = (c[7] + c[3] + c[5] + c[1]).times(9633);
    let (z1, z2) = ((c[7] + c[1]).times(-7373), (c[5] + c[3]).times(-20995));
    let (z3, z4) = ((c[7] + c[3]).times(-16069) + all, (c[5] + c[1]).times(-3196) + all);
    let odd = [
        c[1].times(12299) + z1 + z4,
        c[3].times(25172) + z2 + z3,
        c[5].times(16819) + z2 + z4,
        c[7].times(2446) + z1 + z3,
    ];
    for at in 0..4 {
        let shift = Lanes([bits as i32; 8]);
        c[at] = (even[at] + odd[at]).with(&shift, |value, bits| value >> bits);
        c[7 - at] = (even[at] - odd[at]).with(&shift, |value, bits| value >> bits);
    }
}

fn sample(value: i32) -> u8 {
    value.saturating_add(128).clamp(0, 255) as u8
}

/// RGB pixels of a grey picture.
pub(super) fn grey(width: usize, height: usize, plane: &Plane) -> Vec<u8> {
    let mut pixels = Vec::with_capacity(3 * width * height);
    for y in 0..height {
        pixels.extend(plane.row(y).iter().flat_map(|value| [*value; 3]));
    }
    pixels
}

/// RGB pixels from the planes Y, Cb and Cr. `shared` is the number of columns and rows of
/// pixels that share a sample of Cb and Cr.
pub(super) fn rgb(width: usize, height: usize, planes: [&Plane; 3], shared: [usize; 2]) -> Vec<u8> {
    let [luma, blue, red] = planes;
    let mut pixels = vec![0; 3 * width * height];
    let [mut blue, mut red] = [blue, red].map(|plane| Upsampler::new(plane, shared));
    for (y, out) in pixels.chunks_exact_mut(3 * width).enumerate() {
        let samples = luma.row(y).iter().zip(blue.row(y)).zip(red.row(y));
        for (pixel, ((light, blue), red)) in out.as_chunks_mut::<3>().0.iter_mut().zip(samples) {
            WEIGHTS.write(pixel, *light, WEIGHTS.colour(*blue, *red));
        }
    }
    pixels
}

/// Upsamples the rows of a plane to the size of the picture: each pixel is three quarters
/// of the nearer sample and one quarter of the farther. Both axes are summed before
/// rounding once. Halves are rounded up and down alternately, so that the picture gets no
/// brighter.
struct Upsampler<'p> {
    plane: &'p Plane,
    shared: [usize; 2],
    sums: Vec<i32>,
    out: Vec<u8>,
}

impl<'p> Upsampler<'p> {
    fn new(plane: &'p Plane, shared: [usize; 2]) -> Self {
        Self { plane, shared, sums: Vec::new(), out: vec![0; shared[0] * plane.width] }
    }

    fn row(&mut self, y: usize) -> &[u8] {
        let Self { plane, shared, sums, out } = self;
        let near = plane.row(y / shared[1]);
        // Beyond the edge the last row is repeated.
        let far = match y % 2 {
            0 => (y / 2).saturating_sub(1),
            _ => (y / 2 + 1).min(plane.height - 1),
        };
        if shared[1] == 2 {
            sums.clear();
            let pairs = near.iter().zip(plane.row(far));
            sums.extend(pairs.map(|(near, far)| 3 * i32::from(*near) + i32::from(*far)));
        }
        match shared {
            [1, 1] => return near,
            // Too narrow for neighbours on both sides: libjpeg copies the sample.
            [2, _] if plane.width <= 2 => {
                for (pair, value) in out.as_chunks_mut::<2>().0.iter_mut().zip(near) {
                    *pair = [*value; 2];
                }
            }
            [2, 1] => {
                sums.clear();
                sums.extend(near.iter().map(|value| i32::from(*value)));
                widened(sums, out, [1, 2], 2);
            }
            [2, _] => widened(sums, out, [8, 7], 4),
            [_, _] => {
                let bias = if y.is_multiple_of(2) { 1 } else { 2 };
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out = ((*sum + bias) >> 2) as u8;
                }
            }
        }
        out
    }
}

/// Doubles the width: two values between each pair of neighbours, and the first and the
/// last sample at the edges.
fn widened(row: &[i32], out: &mut [u8], bias: [i32; 2], bits: u32) {
    let part = |near: i32, far: i32, bias: i32| ((3 * near + far + bias) >> bits) as u8;
    if let ([first, .., last], [start, between @ .., end]) = (row, out) {
        *start = part(*first, *first, bias[0]);
        *end = part(*last, *last, bias[1]);
        for (pair, two) in between.as_chunks_mut::<2>().0.iter_mut().zip(row.windows(2)) {
            *pair = [part(two[0], two[1], bias[1]), part(two[1], two[0], bias[0])];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plane(width: usize, height: usize, samples: &[u8]) -> Plane {
        Plane { width, height, stride: width, samples: samples.to_vec() }
    }

    /// Oracle: the transform by its definition (T.81, A.3.3).
    fn defined(block: &Block, quantization: &[u16; 64]) -> [f64; 64] {
        let wave = |u: usize, x: usize| {
            let scale = if u == 0 { 0.5f64.sqrt() } else { 1.0 };
            scale * ((2 * x + 1) as f64 * u as f64 * std::f64::consts::PI / 16.0).cos()
        };
        std::array::from_fn(|at| {
            let (x, y) = (at % 8, at / 8);
            let parts = (0..64).map(|k| {
                let value = f64::from(block[k]) * f64::from(quantization[k]);
                value * wave(k % 8, x) * wave(k / 8, y) / 4.0
            });
            (parts.sum::<f64>() + 128.0).clamp(0.0, 255.0)
        })
    }

    #[test]
    fn halves_go_up_and_down_in_turn() {
        let row = plane(3, 1, &[10, 20, 30]);
        let mut wide = Upsampler::new(&row, [2, 1]);
        // 10, 12.5, 17.5, 22.5, 27.5, 30
        assert_eq!(wide.row(0), [10, 13, 17, 23, 27, 30]);
        let column = plane(1, 2, &[10, 20]);
        let mut tall = Upsampler::new(&column, [1, 2]);
        let rows: Vec<u8> = (0..4).map(|y| tall.row(y)[0]).collect();
        assert_eq!(rows, [10, 13, 17, 20]);
        let both = plane(3, 2, &[10, 20, 30, 20, 30, 40]);
        let mut large = Upsampler::new(&both, [2, 2]);
        // 12.5, 15, 20, 25, 30, 32.5: the sums are rounded once.
        assert_eq!(large.row(1), [13, 15, 20, 25, 30, 32]);
        let narrow = plane(2, 1, &[10, 20]);
        assert_eq!(Upsampler::new(&narrow, [2, 2]).row(0), [10, 10, 20, 20]);
    }

    #[test]
    fn primary_colours_are_those_of_the_standard() {
        for (samples, expected) in [
            ([0, 128, 128], [0, 0, 0]),
            ([255, 128, 128], [255, 255, 255]),
            ([76, 85, 255], [254, 0, 0]),
            ([150, 44, 21], [0, 255, 1]),
            ([29, 255, 107], [0, 0, 254]),
        ] {
            let planes = samples.map(|sample| plane(1, 1, &[sample]));
            let pixel = rgb(1, 1, planes.each_ref(), [1, 1]);
            assert_eq!(pixel, expected, "{samples:?}");
        }
    }

    proptest! {
        #[test]
        fn the_transform_is_that_of_the_definition(
            values in prop::collection::vec(-120i16..120, 64), step in 1u16..8, zeros in 0usize..64,
        ) {
            let mut block: Block = std::array::from_fn(|at| values[at]);
            block[64 - zeros..].fill(0);
            let quantization = [step; 64];
            let got = transformed(&block, &quantization);
            for (got, expected) in got.iter().zip(defined(&block, &quantization)) {
                prop_assert!((f64::from(*got) - expected).abs() < 1.0, "{got} {expected}");
            }
        }

        #[test]
        fn no_coefficient_makes_it_panic(
            values in prop::collection::vec(any::<i16>(), 64),
            steps in prop::collection::vec(any::<u16>(), 64),
        ) {
            transformed(&std::array::from_fn(|at| values[at]), &std::array::from_fn(|at| steps[at]));
        }
    }
}
