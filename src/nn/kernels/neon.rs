//! aarch64: with dot products of bytes where the processor has them, with
//! widening products where not. Activations in memory are signed.
//!
//! As on x86-64, the callers in [`super`] answer for the instructions and for
//! the walk's staying within input and output.

use super::{Epilogue, Filter, Matrix, Walk, padded};
use std::arch::aarch64::*;
use std::arch::asm;
use std::ops::Range;

/// Pixels of a tile.
const TILE: usize = 4;

/// Four channels' sums with what four bytes of a pixel, the lane `LANE`, add:
/// the intrinsic for it is not stable.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn dot<const LANE: i32>(sums: int32x4_t, weights: int8x16_t, pixel: int8x16_t) -> int32x4_t {
    let mut sums = sums;
    // SAFETY: registers alone are read and written.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {weights:v}.16b, {pixel:v}.4b[{lane}]",
            sums = inout(vreg) sums,
            weights = in(vreg) weights,
            pixel = in(vreg) pixel,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// Sums times the factor of their sign.
///
/// # Safety
///
/// Four factors behind each pointer.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn scaled(sum: int32x4_t, positive: *const f32, negative: *const f32) -> float32x4_t {
    // SAFETY: the caller's word.
    let (positive, negative) = unsafe { (vld1q_f32(positive), vld1q_f32(negative)) };
    vmulq_f32(vcvtq_f32_s32(sum), vbslq_f32(vcltzq_s32(sum), negative, positive))
}

/// Sixteen values to bytes: each step saturates, so that the end does, too.
#[target_feature(enable = "neon")]
#[inline]
fn rounded(values: [float32x4_t; 4], epilogue: &Epilogue) -> int8x16_t {
    let zero_point = vdupq_n_s16(epilogue.zero_point as i16);
    let words = |low: float32x4_t, high: float32x4_t| {
        let words = vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(low)), vcvtnq_s32_f32(high));
        vqaddq_s16(words, zero_point)
    };
    vqmovn_high_s16(vqmovn_s16(words(values[0], values[1])), words(values[2], values[3]))
}

/// Adds a residual of 16 channels.
#[target_feature(enable = "neon")]
#[inline]
fn with_residual(
    values: [float32x4_t; 4],
    other: int8x16_t,
    scale: f32,
    zero_point: i32,
) -> [float32x4_t; 4] {
    let zero_point = vdupq_n_s16(zero_point as i16);
    let low = vsubq_s16(vmovl_s8(vget_low_s8(other)), zero_point);
    let high = vsubq_s16(vmovl_high_s8(other), zero_point);
    let quarters = [
        vmovl_s16(vget_low_s16(low)),
        vmovl_high_s16(low),
        vmovl_s16(vget_low_s16(high)),
        vmovl_high_s16(high),
    ];
    std::array::from_fn(|i| {
        vaddq_f32(values[i], vmulq_f32(vcvtq_f32_s32(quarters[i]), vdupq_n_f32(scale)))
    })
}

/// What becomes of 16 channels' sums of a pixel.
trait Put {
    /// # Safety
    ///
    /// The output has room for 16 stored channels, or all real ones, at `to`.
    unsafe fn put(&mut self, sums: [int32x4_t; 4], epilogue: &Epilogue, channel: usize, to: usize);
}

struct Bytes<'a> {
    residual: Option<&'a [u8]>,
    output: &'a mut [u8],
}

impl Put for Bytes<'_> {
    #[inline(always)]
    unsafe fn put(&mut self, sums: [int32x4_t; 4], epilogue: &Epilogue, channel: usize, to: usize) {
        // SAFETY: factors are padded to 16 channels; output and residual have room by
        // the caller's word; NEON is there, for these are called under it.
        unsafe {
            let mut values = std::array::from_fn(|i| {
                let place = channel + 4 * i;
                scaled(
                    sums[i],
                    epilogue.positive.as_ptr().add(place),
                    epilogue.negative.as_ptr().add(place),
                )
            });
            if let (Some(other), Some((scale, zero_point))) = (self.residual, epilogue.residual) {
                let other = vld1q_s8(other.as_ptr().add(to + channel).cast());
                values = with_residual(values, other, scale, zero_point);
            }
            let bytes = rounded(values, epilogue);
            vst1q_s8(self.output.as_mut_ptr().add(to + channel).cast(), bytes);
        }
    }
}

struct Floats<'a> {
    channels: usize,
    output: &'a mut [f32],
}

impl Put for Floats<'_> {
    #[inline(always)]
    unsafe fn put(&mut self, sums: [int32x4_t; 4], epilogue: &Epilogue, channel: usize, to: usize) {
        let mut values = [0.0f32; 16];
        for (i, sum) in sums.into_iter().enumerate() {
            // SAFETY: factors are padded; four of the 16 values each; NEON as above.
            unsafe {
                let positive = vld1q_f32(epilogue.positive.as_ptr().add(channel + 4 * i));
                let value = vmulq_f32(vcvtq_f32_s32(sum), positive);
                vst1q_f32(values.as_mut_ptr().add(4 * i), value);
            }
        }
        let real = (self.channels - channel).min(16);
        self.output[to + channel..to + channel + real].copy_from_slice(&values[..real]);
    }
}

/// # Safety
///
/// NEON with dot products; the walk stays within `input`, `output` and `residual`.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn matrix_dot(
    matrix: &Matrix,
    weights: &[i8],
    walk: &Walk,
    pixels: Range<usize>,
    input: &[u8],
    residual: Option<&[u8]>,
    output: &mut [u8],
) {
    // SAFETY: the caller's word, handed on.
    unsafe { tiles_dot(matrix, weights, walk, pixels, input, &mut Bytes { residual, output }) }
}

/// # Safety
///
/// As `matrix_dot`.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn matrix_dot_float(
    matrix: &Matrix,
    weights: &[i8],
    walk: &Walk,
    pixels: Range<usize>,
    input: &[u8],
    output: &mut [f32],
) {
    let put = &mut Floats { channels: matrix.channels, output };
    // SAFETY: the caller's word, handed on.
    unsafe { tiles_dot(matrix, weights, walk, pixels, input, put) }
}

/// Blocks of 16 channels, whose weights stay in the nearest cache while all
/// pixels pass.
#[target_feature(enable = "neon,dotprod")]
#[inline]
unsafe fn tiles_dot(
    matrix: &Matrix,
    weights: &[i8],
    walk: &Walk,
    pixels: Range<usize>,
    input: &[u8],
    put: &mut impl Put,
) {
    for (block, weights) in weights.chunks_exact(matrix.inputs * 16).enumerate() {
        let mut pixel = pixels.start;
        // SAFETY: tiles end with the pixels; the rest is the caller's word.
        unsafe {
            while pixels.end - pixel >= TILE {
                tile_dot::<TILE>(matrix, weights, walk, pixel, input, block * 16, put);
                pixel += TILE;
            }
            while pixels.end > pixel {
                tile_dot::<1>(matrix, weights, walk, pixel, input, block * 16, put);
                pixel += 1;
            }
        }
    }
}

#[target_feature(enable = "neon,dotprod")]
#[inline]
unsafe fn tile_dot<const M: usize>(
    matrix: &Matrix,
    weights: &[i8],
    walk: &Walk,
    pixel: usize,
    input: &[u8],
    channel: usize,
    put: &mut impl Put,
) {
    // SAFETY: `M` pixels of the walk, each with all its runs in `input`; 16 weights for
    // each input; the epilogue is padded to 16 channels.
    unsafe {
        let from: [*const u8; M] = std::array::from_fn(|m| {
            input.as_ptr().add(*walk.inputs.get_unchecked(pixel + m) as usize)
        });
        let bias = matrix.epilogue.bias.as_ptr().add(channel);
        let bias: [int32x4_t; 4] = std::array::from_fn(|i| vld1q_s32(bias.add(4 * i)));
        let mut sums = [bias; M];
        let mut at = weights.as_ptr();
        for &run in &walk.runs {
            for step in (run as usize..run as usize + walk.run).step_by(16) {
                let bytes: [int8x16_t; M] =
                    std::array::from_fn(|m| vld1q_s8(from[m].add(step).cast()));
                macro_rules! lane {
                    ($lane:literal) => {
                        for i in 0..4 {
                            let weights = vld1q_s8(at.add(64 * $lane + 16 * i));
                            for m in 0..M {
                                sums[m][i] = dot::<$lane>(sums[m][i], weights, bytes[m]);
                            }
                        }
                    };
                }
                lane!(0);
                lane!(1);
                lane!(2);
                lane!(3);
                at = at.add(256);
            }
        }
        for (m, sums) in sums.into_iter().enumerate() {
            let to = *walk.outputs.get_unchecked(pixel + m) as usize;
            put.put(sums, &matrix.epilogue, channel, to);
        }
    }
}

/// # Safety
///
/// NEON; the walk stays within `input`, `output` and `residual`.
#[target_feature(enable = "neon")]
pub(super) unsafe fn matrix(
    matrix: &Matrix,
    weights: &[i8],
    walk: &Walk,
    pixels: Range<usize>,
    input: &[u8],
    residual: Option<&[u8]>,
    output: &mut [u8],
) {
    // SAFETY: the caller's word, handed on.
    unsafe { tiles(matrix, weights, walk, pixels, input, &mut Bytes { residual, output }) }
}

/// # Safety
///
/// As `matrix`.
#[target_feature(enable = "neon")]
pub(super) unsafe fn matrix_float(
    matrix: &Matrix,
    weights: &[i8],
    walk: &Walk,
    pixels: Range<usize>,
    input: &[u8],
    output: &mut [f32],
) {
    let put = &mut Floats { channels: matrix.channels, output };
    // SAFETY: the caller's word, handed on.
    unsafe { tiles(matrix, weights, walk, pixels, input, put) }
}

#[target_feature(enable = "neon")]
#[inline]
unsafe fn tiles(
    matrix: &Matrix,
    weights: &[i8],
    walk: &Walk,
    pixels: Range<usize>,
    input: &[u8],
    put: &mut impl Put,
) {
    for channel in (0..padded(matrix.channels)).step_by(16) {
        let weights = &weights[channel * matrix.inputs..(channel + 16) * matrix.inputs];
        let mut pixel = pixels.start;
        // SAFETY: tiles end with the pixels; the rest is the caller's word.
        unsafe {
            while pixels.end - pixel >= TILE {
                tile::<TILE>(matrix, weights, walk, pixel, input, channel, put);
                pixel += TILE;
            }
            while pixels.end > pixel {
                tile::<1>(matrix, weights, walk, pixel, input, channel, put);
                pixel += 1;
            }
        }
    }
}

/// Sixteen channels of `M` pixels, four at a time. Two products of bytes fit in 16
/// bits, for weights are never -128; then they are added up in pairs.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn tile<const M: usize>(
    matrix: &Matrix,
    weights: &[i8],
    walk: &Walk,
    pixel: usize,
    input: &[u8],
    channel: usize,
    put: &mut impl Put,
) {
    // SAFETY: as for `tile_dot`, the weights of four channels being together.
    unsafe {
        let from: [*const u8; M] = std::array::from_fn(|m| {
            input.as_ptr().add(*walk.inputs.get_unchecked(pixel + m) as usize)
        });
        let mut all = [[vdupq_n_s32(0); 4]; M];
        for four in 0..4 {
            let mut sums = [[vdupq_n_s32(0); 4]; M];
            let mut at = weights.as_ptr().add(four * 4 * matrix.inputs);
            for &run in &walk.runs {
                for step in (run as usize..run as usize + walk.run).step_by(16) {
                    let weights: [int8x16_t; 4] = std::array::from_fn(|i| vld1q_s8(at.add(16 * i)));
                    for m in 0..M {
                        let bytes = vld1q_s8(from[m].add(step).cast());
                        for i in 0..4 {
                            let words = vmull_s8(vget_low_s8(weights[i]), vget_low_s8(bytes));
                            let words = vmlal_high_s8(words, weights[i], bytes);
                            sums[m][i] = vpadalq_s16(sums[m][i], words);
                        }
                    }
                    at = at.add(64);
                }
            }
            let bias = vld1q_s32(matrix.epilogue.bias.as_ptr().add(channel + 4 * four));
            for m in 0..M {
                let [a, b, c, d] = sums[m];
                all[m][four] = vaddq_s32(bias, vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d)));
            }
        }
        for (m, sums) in all.into_iter().enumerate() {
            let to = *walk.outputs.get_unchecked(pixel + m) as usize;
            put.put(sums, &matrix.epilogue, channel, to);
        }
    }
}

/// Two taps of 16 channels at a time.
///
/// # Safety
///
/// NEON; the walk stays within `input` and `output`.
#[target_feature(enable = "neon")]
pub(super) unsafe fn filter(
    filter: &Filter,
    weights: &[i8],
    walk: &Walk,
    pixels: Range<usize>,
    input: &[u8],
    output: &mut [u8],
) {
    let groups = filter.taps.div_ceil(2);
    let mut put = Bytes { residual: None, output };
    for (&from, &to) in walk.inputs.iter().zip(&walk.outputs).skip(pixels.start).take(pixels.len())
    {
        for channel in (0..filter.channels).step_by(16) {
            // SAFETY: 16 stored channels at each tap, which the walk has room for; the
            // weights have an even number of taps; the epilogue is padded.
            unsafe {
                let bias = filter.epilogue.bias.as_ptr().add(channel);
                let mut sums: [int32x4_t; 4] = std::array::from_fn(|i| vld1q_s32(bias.add(4 * i)));
                let mut at = weights.as_ptr().add(channel * groups * 2);
                let input = input.as_ptr().add(from as usize + channel);
                for taps in walk.runs.chunks(2) {
                    let a = vld1q_s8(input.add(taps[0] as usize).cast());
                    let v = vld1q_s8(at);
                    let mut low = vmull_s8(vget_low_s8(a), vget_low_s8(v));
                    let mut high = vmull_high_s8(a, v);
                    if let Some(tap) = taps.get(1) {
                        let b = vld1q_s8(input.add(*tap as usize).cast());
                        let w = vld1q_s8(at.add(16));
                        low = vmlal_s8(low, vget_low_s8(b), vget_low_s8(w));
                        high = vmlal_high_s8(high, b, w);
                    }
                    sums[0] = vaddw_s16(sums[0], vget_low_s16(low));
                    sums[1] = vaddw_high_s16(sums[1], low);
                    sums[2] = vaddw_s16(sums[2], vget_low_s16(high));
                    sums[3] = vaddw_high_s16(sums[3], high);
                    at = at.add(32);
                }
                put.put(sums, &filter.epilogue, channel, to as usize);
            }
        }
    }
}
