//! Kernels for separable resampling: weighted means of rows of bytes, then of the pixels of
//! such a row.
//!
//! Values are signed 16-bit fixed-point numbers in steps of 1/128 ([`STEPS`]); weights are
//! fractions of 32,767 ([`ONE`]). Sums are exact, in 32 bits, and rounded once.

#[cfg(target_arch = "x86_64")]
use super::Kernel;

/// Number of value steps per grey level of a byte.
pub const STEPS: i16 = 128;

/// Sum of the weights of a mean.
pub const ONE: i16 = i16::MAX;

/// Values per pixel of a row.
pub const CHANNELS: usize = 3;
/// Values per output pixel; the fourth is unused.
pub const STORED: usize = 4;

/// Shift from a weighted sum of bytes to a value.
const ROW_SHIFT: i32 = 8;
/// Shift from a weighted sum of values to a value.
const PIXEL_SHIFT: i32 = 15;
/// Shift from a weighted sum of values to a whole byte.
const WHOLE_SHIFT: i32 = PIXEL_SHIFT + 7;

/// Number of values that a row must have after its last pixel, because an even number of
/// pixels is read.
pub const SLACK: usize = 4;

/// Input pixels and weights of each output pixel.
#[derive(Clone, Copy, Debug)]
pub struct Taps<'a> {
    /// Number of the first input pixel, per output pixel.
    pub starts: &'a [usize],
    /// Number of weights, per output pixel.
    pub counts: &'a [usize],
    /// `pitch` weights per output pixel, zero beyond its count.
    pub weights: &'a [i16],
    /// Distance between the weights of two output pixels; must be even.
    pub pitch: usize,
}

/// Weighted sum of rows of bytes: `out[i] = Σ pixels[k * pitch + i] * weights[k]`, rounded
/// to a value in steps of 1/128. Weights must be at least zero and add up to at most
/// [`ONE`].
///
/// # Panics
///
/// If `pixels` is too short for `out` and the weights.
#[inline]
pub fn weighted_rows(pixels: &[u8], pitch: usize, weights: &[i16], out: &mut [i16]) {
    let end = weights.len().saturating_sub(1) * pitch + out.len();
    assert!(weights.is_empty() || end <= pixels.len(), "rows too short");
    // The longest part that is a multiple of the values per iteration.
    #[cfg(target_arch = "x86_64")]
    let whole = if Kernel::best() == Kernel::Scalar { 0 } else { out.len() / x86::ROW * x86::ROW };
    #[cfg(target_arch = "aarch64")]
    let whole = out.len() / neon::ROW * neon::ROW;
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let whole = 0;
    let (vectors, rest) = out.split_at_mut(whole);
    // The scalar kernel runs on processors without AVX2, where even a call with nothing to
    // do must not happen.
    #[cfg(target_arch = "x86_64")]
    if whole > 0 {
        // SAFETY: `whole` is 0 with the scalar kernel, and every other kernel of x86-64 has
        // AVX2. The assertion keeps all reads in bounds.
        unsafe { x86::rows(pixels, pitch, weights, vectors) };
    }
    // SAFETY: every aarch64 has NEON; the assertion keeps all reads in bounds.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        neon::rows(pixels, pitch, weights, vectors);
    }
    let _ = vectors;
    plain_rows(pixels.get(whole..).unwrap_or_default(), pitch, weights, rest);
}

/// Weighted means of the pixels of a row. The row has `CHANNELS` values per pixel, and
/// its first pixel has the number `first`; the output has `STORED` values per pixel.
/// With `whole`, the values are rounded to whole bytes.
///
/// # Panics
///
/// If `taps.pitch` is odd, or if an output pixel needs pixels outside the row. The row must
/// have [`SLACK`] more values than its pixels.
#[inline]
pub fn weighted_pixels(row: &[i16], first: usize, taps: &Taps<'_>, whole: bool, out: &mut [i16]) {
    assert!(taps.pitch.is_multiple_of(2), "weights come in pairs");
    #[cfg(target_arch = "x86_64")]
    if Kernel::best() != Kernel::Scalar {
        // SAFETY: on x86-64 every kernel but the scalar one has AVX2.
        return unsafe { x86::pixels(row, first, taps, whole, out) };
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: every aarch64 has NEON.
    return unsafe { neon::pixels(row, first, taps, whole, out) };
    #[allow(unreachable_code, reason = "some architectures have returned")]
    plain_pixels(row, first, taps, whole, out);
}

fn rounded(sum: i32, shift: i32) -> i32 {
    (sum + (1 << (shift - 1))) >> shift
}

fn plain_rows(pixels: &[u8], pitch: usize, weights: &[i16], out: &mut [i16]) {
    for (at, value) in out.iter_mut().enumerate() {
        let products = weights
            .iter()
            .enumerate()
            .map(|(row, weight)| i32::from(pixels[row * pitch + at]) * i32::from(*weight));
        *value = rounded(products.sum(), ROW_SHIFT) as i16;
    }
}

/// Input of output pixel `pixel`: the row from its first input pixel on, and an even number
/// of weights.
#[inline(always)]
fn seen<'a>(row: &'a [i16], first: usize, taps: &Taps<'a>, pixel: usize) -> (&'a [i16], &'a [i16]) {
    let (start, count) = (taps.starts[pixel], taps.counts[pixel].next_multiple_of(2));
    if count == 0 {
        return (&[], &[]);
    }
    let weights = &taps.weights[pixel * taps.pitch..pixel * taps.pitch + count];
    let from = (start - first) * CHANNELS;
    (&row[from..from + (count - 1) * CHANNELS + STORED], weights)
}

#[cfg_attr(target_arch = "aarch64", allow(dead_code, reason = "the oracle of the tests"))]
fn plain_pixels(row: &[i16], first: usize, taps: &Taps<'_>, whole: bool, out: &mut [i16]) {
    for (pixel, out) in out.as_chunks_mut::<STORED>().0.iter_mut().enumerate() {
        let (row, weights) = seen(row, first, taps, pixel);
        for (channel, value) in out.iter_mut().enumerate() {
            let products = weights
                .iter()
                .enumerate()
                .map(|(at, weight)| i32::from(row[at * CHANNELS + channel]) * i32::from(*weight));
            *value = match (whole, products.sum()) {
                (true, sum) => rounded(sum, WHOLE_SHIFT) as i16 * STEPS,
                (false, sum) => rounded(sum, PIXEL_SHIFT) as i16,
            };
        }
    }
}

// Closures and iterators over registers are not inlined into functions with other target
// features than the rest of the program; loops over indices are.
#[cfg(target_arch = "x86_64")]
#[allow(clippy::needless_range_loop)]
mod x86 {
    use super::{CHANNELS, PIXEL_SHIFT, ROW_SHIFT, STORED, Taps, WHOLE_SHIFT, seen};
    use std::arch::x86_64::*;

    /// Values of a row per iteration.
    pub(super) const ROW: usize = 32;

    /// Two 16-bit weights in one 32-bit lane; a missing second weight is zero.
    #[inline(always)]
    fn pair(weights: &[i16]) -> i32 {
        let second = weights.get(1).copied().unwrap_or(0);
        i32::from(weights[0].cast_unsigned()) | i32::from(second) << 16
    }

    /// [`super::weighted_rows`], two rows at a time: their bytes are interleaved and
    /// multiplied by a pair of weights.
    ///
    /// # Safety
    ///
    /// The processor has AVX2. The length of `out` is a multiple of [`ROW`]. For each
    /// weight `k`, `pixels` has `out.len()` bytes from `k * pitch` on.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn rows(pixels: &[u8], pitch: usize, weights: &[i16], out: &mut [i16]) {
        let zero = _mm256_setzero_si256();
        for at in (0..out.len()).step_by(ROW) {
            let mut sums = [_mm256_set1_epi32(1 << (ROW_SHIFT - 1)); 4];
            for (two, weights) in weights.chunks(2).enumerate() {
                // SAFETY: the caller guarantees 32 bytes of each row at `at`.
                let (upper, lower) = unsafe {
                    let from = pixels.as_ptr().add(2 * two * pitch + at);
                    let lower = if weights.len() == 2 { from.add(pitch) } else { from };
                    (_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(lower.cast()))
                };
                let weights = _mm256_set1_epi32(pair(weights));
                let halves =
                    [_mm256_unpacklo_epi8(upper, lower), _mm256_unpackhi_epi8(upper, lower)];
                for half in 0..2 {
                    let words = [
                        _mm256_unpacklo_epi8(halves[half], zero),
                        _mm256_unpackhi_epi8(halves[half], zero),
                    ];
                    for quarter in 0..2 {
                        let sum = &mut sums[2 * half + quarter];
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(words[quarter], weights));
                    }
                }
            }
            for quarter in 0..4 {
                sums[quarter] = _mm256_srai_epi32::<ROW_SHIFT>(sums[quarter]);
            }
            // Packing restores the byte order of the quarters within each 128-bit half.
            let low = _mm256_packs_epi32(sums[0], sums[1]);
            let high = _mm256_packs_epi32(sums[2], sums[3]);
            // SAFETY: `out` has 32 values from `at` on.
            unsafe {
                let out = out.as_mut_ptr().add(at);
                _mm256_storeu_si256(out.cast(), _mm256_permute2x128_si256::<0x20>(low, high));
                let second = _mm256_permute2x128_si256::<0x31>(low, high);
                _mm256_storeu_si256(out.add(16).cast(), second);
            }
        }
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn pixels(row: &[i16], first: usize, taps: &Taps<'_>, whole: bool, out: &mut [i16]) {
        for (pixel, out) in out.as_chunks_mut::<STORED>().0.iter_mut().enumerate() {
            let (row, weights) = seen(row, first, taps, pixel);
            let mut sums = _mm_setzero_si128();
            for (two, weights) in weights.chunks_exact(2).enumerate() {
                // SAFETY: the slice from `seen` has four values from each pixel on.
                let products = unsafe {
                    let at = row.as_ptr().add(2 * two * CHANNELS);
                    let (left, right) = (_mm_loadl_epi64(at.cast()), at.add(CHANNELS));
                    let pixels = _mm_unpacklo_epi16(left, _mm_loadl_epi64(right.cast()));
                    _mm_madd_epi16(pixels, _mm_set1_epi32(pair(weights)))
                };
                sums = _mm_add_epi32(sums, products);
            }
            let values = if whole {
                let half = _mm_set1_epi32(1 << (WHOLE_SHIFT - 1));
                let bytes = _mm_srai_epi32::<WHOLE_SHIFT>(_mm_add_epi32(sums, half));
                _mm_slli_epi32::<{ WHOLE_SHIFT - PIXEL_SHIFT }>(bytes)
            } else {
                let half = _mm_set1_epi32(1 << (PIXEL_SHIFT - 1));
                _mm_srai_epi32::<PIXEL_SHIFT>(_mm_add_epi32(sums, half))
            };
            // SAFETY: `out` has four values.
            unsafe { _mm_storel_epi64(out.as_mut_ptr().cast(), _mm_packs_epi32(values, values)) };
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::{CHANNELS, PIXEL_SHIFT, ROW_SHIFT, STORED, Taps, WHOLE_SHIFT, seen};
    use std::arch::aarch64::*;

    /// Values of a row per iteration.
    pub(super) const ROW: usize = 16;

    /// [`super::weighted_rows`], one row at a time.
    ///
    /// # Safety
    ///
    /// The processor has NEON. The length of `out` is a multiple of [`ROW`]. For each
    /// weight `k`, `pixels` has `out.len()` bytes from `k * pitch` on.
    #[target_feature(enable = "neon")]
    pub(super) unsafe fn rows(pixels: &[u8], pitch: usize, weights: &[i16], out: &mut [i16]) {
        for at in (0..out.len()).step_by(ROW) {
            let mut sums = [vdupq_n_u32(0); 4];
            for (row, weight) in weights.iter().enumerate() {
                let weight = weight.cast_unsigned();
                // SAFETY: the caller guarantees 16 bytes of each row at `at`.
                let bytes = unsafe { vld1q_u8(pixels.as_ptr().add(row * pitch + at)) };
                let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
                sums[0] = vmlal_n_u16(sums[0], vget_low_u16(low), weight);
                sums[1] = vmlal_high_n_u16(sums[1], low, weight);
                sums[2] = vmlal_n_u16(sums[2], vget_low_u16(high), weight);
                sums[3] = vmlal_high_n_u16(sums[3], high, weight);
            }
            for half in 0..2 {
                let low = vrshrn_n_u32::<ROW_SHIFT>(sums[2 * half]);
                let both = vrshrn_high_n_u32::<ROW_SHIFT>(low, sums[2 * half + 1]);
                // SAFETY: `out` has 16 values from `at` on; each half stores eight.
                unsafe { vst1q_u16(out.as_mut_ptr().add(at + 8 * half).cast(), both) };
            }
        }
    }

    #[target_feature(enable = "neon")]
    pub(super) fn pixels(row: &[i16], first: usize, taps: &Taps<'_>, whole: bool, out: &mut [i16]) {
        for (pixel, out) in out.as_chunks_mut::<STORED>().0.iter_mut().enumerate() {
            let (row, weights) = seen(row, first, taps, pixel);
            let mut sums = vdupq_n_s32(0);
            for (at, weight) in weights.iter().enumerate() {
                // SAFETY: the slice from `seen` has four values from each pixel on.
                let four = unsafe { vld1_s16(row.as_ptr().add(at * CHANNELS)) };
                sums = vmlal_n_s16(sums, four, *weight);
            }
            let values = if whole {
                vshl_n_s16::<{ WHOLE_SHIFT - PIXEL_SHIFT }>(vmovn_s32(vrshrq_n_s32::<WHOLE_SHIFT>(
                    sums,
                )))
            } else {
                vrshrn_n_s32::<PIXEL_SHIFT>(sums)
            };
            // SAFETY: `out` has four values.
            unsafe { vst1_s16(out.as_mut_ptr(), values) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_add_up_as_in_plain_arithmetic(
            weights in prop::collection::vec(0i16..=4096, 1..9), length in 1usize..200,
            more in 0usize..9, seed in any::<u8>(),
        ) {
            let pitch = length + more;
            let pixels: Vec<u8> = (0..pitch * weights.len())
                .map(|at| (at as u8).wrapping_mul(91).wrapping_add(seed))
                .collect();
            let (mut got, mut expected) = (vec![1; length], vec![2; length]);
            weighted_rows(&pixels, pitch, &weights, &mut got);
            plain_rows(&pixels, pitch, &weights, &mut expected);
            prop_assert_eq!(got, expected);
        }

        #[test]
        fn pixels_add_up_as_in_plain_arithmetic(
            row in prop::collection::vec(0i16..=32_640, 30 + SLACK), whole in any::<bool>(),
            outputs in prop::collection::vec((5usize..15, 0usize..=6), 1..9),
            weights in prop::collection::vec(0i16..=5_461, 54),
        ) {
            let starts: Vec<usize> = outputs.iter().map(|(start, _)| *start).collect();
            let counts: Vec<usize> =
                outputs.iter().map(|(start, count)| (*count).min(15 - start)).collect();
            let taps = Taps { starts: &starts, counts: &counts, weights: &weights, pitch: 6 };
            let (mut got, mut expected) = (vec![1; 4 * counts.len()], vec![2; 4 * counts.len()]);
            weighted_pixels(&row, 5, &taps, whole, &mut got);
            plain_pixels(&row, 5, &taps, whole, &mut expected);
            prop_assert_eq!(got, expected);
        }
    }

    #[test]
    fn the_whole_of_a_byte_stays_what_it_is() {
        for byte in 0..=u8::MAX {
            let mut value = [0];
            weighted_rows(&[byte], 1, &[ONE], &mut value);
            assert_eq!((value[0] + STEPS / 2) / STEPS, i16::from(byte));
        }
    }
}
