//! Kernels for aarch64: with dot products of bytes (`matrix_dot`), or with widening
//! products on processors without them. Activations in memory are signed.
//!
//! Functions are unsafe for two reasons: the processor must have the instructions, and the
//! walk must stay within input and output. The callers in [`super`] guarantee both.

/// An array of `count` values. The compiler unrolls such a loop, while it does not inline
/// the closure of `std::array::from_fn` into a function with target features.
macro_rules! array {
    ($count:expr, $zero:expr, |$i:ident| $value:expr) => {{
        let mut all = [$zero; $count];
        for $i in 0..$count {
            all[$i] = $value;
        }
        all
    }};
}

pub(super) mod gate;

use super::{Epilogue, Filter, Matrix, Walk, padded};
use std::arch::aarch64::*;
use std::arch::asm;
use std::ops::Range;

/// Pixels per tile.
const TILE: usize = 4;

/// Adds to the sums of four channels the products of their weights with four bytes of a
/// pixel, those of lane `LANE`. Inline assembly because the intrinsic is not stable.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn dot<const LANE: i32>(sums: int32x4_t, weights: int8x16_t, pixel: int8x16_t) -> int32x4_t {
    let mut sums = sums;
    // SAFETY: the instruction reads and writes only registers.
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

/// Factors of the sums of 16 channels, by the sign of the sum.
struct Factors {
    positive: [float32x4_t; 4],
    negative: [float32x4_t; 4],
}

impl Factors {
    /// Loads the factors of 16 channels.
    ///
    /// # Safety
    ///
    /// The processor has NEON. `channel` is a multiple of 16 and a stored channel of the
    /// epilogue.
    #[inline(always)]
    unsafe fn at(epilogue: &Epilogue, channel: usize) -> Self {
        // SAFETY: factors are padded to 16 channels.
        unsafe {
            let positive = epilogue.positive.as_ptr().add(channel);
            let negative = epilogue.negative.as_ptr().add(channel);
            Self {
                positive: array!(4, vdupq_n_f32(0.0), |i| vld1q_f32(positive.add(4 * i))),
                negative: array!(4, vdupq_n_f32(0.0), |i| vld1q_f32(negative.add(4 * i))),
            }
        }
    }

    /// Multiplies each sum by the factor for its sign.
    #[target_feature(enable = "neon")]
    #[inline]
    fn scaled(&self, sums: [int32x4_t; 4]) -> [float32x4_t; 4] {
        array!(4, vdupq_n_f32(0.0), |i| {
            let factor = vbslq_f32(vcltzq_s32(sums[i]), self.negative[i], self.positive[i]);
            vmulq_f32(vcvtq_f32_s32(sums[i]), factor)
        })
    }
}

/// Rounds 16 values, halves to even, to bytes. Each step saturates, and so does the result.
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

/// Adds the residual of 16 channels to their values.
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
    array!(4, values[0], |i| {
        vaddq_f32(values[i], vmulq_f32(vcvtq_f32_s32(quarters[i]), vdupq_n_f32(scale)))
    })
}

/// Stores the sums of 16 channels of a pixel.
trait Put {
    /// Stores the sums of 16 channels from `channel` on, of the pixel at offset `to`.
    ///
    /// # Safety
    ///
    /// The processor has NEON. The output has room for the stored channels of a pixel at
    /// `to`, or for the channels without padding if it is floating point.
    unsafe fn put(&mut self, sums: [int32x4_t; 4], epilogue: &Epilogue, channel: usize, to: usize);
}

/// Requantized output, with an optional residual of the same layout.
struct Bytes<'a> {
    residual: Option<&'a [u8]>,
    output: &'a mut [u8],
}

impl Put for Bytes<'_> {
    #[inline(always)]
    unsafe fn put(&mut self, sums: [int32x4_t; 4], epilogue: &Epilogue, channel: usize, to: usize) {
        // SAFETY: factors are padded to 16 channels. The caller guarantees the processor
        // and the room in the output, and the residual has the same layout.
        unsafe {
            let mut values = Factors::at(epilogue, channel).scaled(sums);
            if let (Some(other), Some((scale, zero_point))) = (self.residual, epilogue.residual) {
                let other = vld1q_s8(other.as_ptr().add(to + channel).cast());
                values = with_residual(values, other, scale, zero_point);
            }
            let bytes = rounded(values, epilogue);
            vst1q_s8(self.output.as_mut_ptr().add(to + channel).cast(), bytes);
        }
    }
}

/// Output in floating point, without padding channels.
struct Floats<'a> {
    channels: usize,
    output: &'a mut [f32],
}

impl Put for Floats<'_> {
    #[inline(always)]
    unsafe fn put(&mut self, sums: [int32x4_t; 4], epilogue: &Epilogue, channel: usize, to: usize) {
        let mut values = [0.0f32; 16];
        for i in 0..4 {
            // SAFETY: factors are padded to 16 channels; each sum fills four of the 16
            // values; the caller guarantees NEON.
            unsafe {
                let positive = vld1q_f32(epilogue.positive.as_ptr().add(channel + 4 * i));
                let value = vmulq_f32(vcvtq_f32_s32(sums[i]), positive);
                vst1q_f32(values.as_mut_ptr().add(4 * i), value);
            }
        }
        let real = (self.channels - channel).min(16);
        self.output[to + channel..to + channel + real].copy_from_slice(&values[..real]);
    }
}

/// # Safety
///
/// The processor has NEON with dot products. `weights` is packed for this kernel and
/// matrix. The walk has the pixels and stays within `input`, `output` and `residual`.
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
    // SAFETY: the caller guarantees the same.
    unsafe { tiles_dot(matrix, weights, walk, pixels, input, &mut Bytes { residual, output }) }
}

/// # Safety
///
/// As for `matrix_dot`; `output` needs room only for the channels without padding.
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
    // SAFETY: the caller guarantees the same.
    unsafe { tiles_dot(matrix, weights, walk, pixels, input, put) }
}

/// Blocks of 16 channels and tiles of [`TILE`] pixels, then the remaining pixels. The
/// weights of a block stay in the L1 cache while all pixels are processed.
///
/// # Safety
///
/// As for the caller, `matrix_dot` or `matrix_dot_float`.
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
        // SAFETY: the tiles end with the pixels; the caller guarantees the rest.
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

/// `M` pixels of 16 channels.
///
/// # Safety
///
/// As for `tiles_dot`; the walk has `M` pixels from `pixel` on, and `weights` are those of
/// the 16 channels from `channel` on.
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
    // SAFETY: the walk has `M` pixels from `pixel` on, each with all its runs in `input`.
    // There are 16 weights for each input. The epilogue is padded to 16 channels.
    unsafe {
        let from = array!(M, input.as_ptr(), |m| {
            input.as_ptr().add(*walk.inputs.get_unchecked(pixel + m) as usize)
        });
        let bias = matrix.epilogue.bias.as_ptr().add(channel);
        let bias = array!(4, vdupq_n_s32(0), |i| vld1q_s32(bias.add(4 * i)));
        let mut sums = [bias; M];
        let mut at = weights.as_ptr();
        for &run in &walk.runs {
            for step in (run as usize..run as usize + walk.run).step_by(16) {
                let bytes = array!(M, vdupq_n_s8(0), |m| vld1q_s8(from[m].add(step).cast()));
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
        for m in 0..M {
            let to = *walk.outputs.get_unchecked(pixel + m) as usize;
            put.put(sums[m], &matrix.epilogue, channel, to);
        }
    }
}

/// # Safety
///
/// The processor has NEON. `weights` is packed for this kernel and matrix. The walk has the
/// pixels and stays within `input`, `output` and `residual`.
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
    // SAFETY: the caller guarantees the same.
    unsafe { tiles(matrix, weights, walk, pixels, input, &mut Bytes { residual, output }) }
}

/// # Safety
///
/// As for `matrix`; `output` needs room only for the channels without padding.
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
    // SAFETY: the caller guarantees the same.
    unsafe { tiles(matrix, weights, walk, pixels, input, put) }
}

/// Blocks of 16 channels and tiles of [`TILE`] pixels, then the remaining pixels.
///
/// # Safety
///
/// As for the caller, `matrix` or `matrix_float`.
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
        // SAFETY: the tiles end with the pixels; the caller guarantees the rest.
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

/// `M` pixels of 16 channels, four channels at a time. The sum of two products of bytes
/// fits in 16 bits, because weights are never -128; pairs of these are then added in 32
/// bits.
///
/// # Safety
///
/// As for `tiles`; the walk has `M` pixels from `pixel` on, and `weights` are those of the
/// 16 channels from `channel` on.
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
    // SAFETY: the walk has `M` pixels from `pixel` on, each with all its runs in `input`.
    // There are 16 weights for each input, those of four channels together. The epilogue is
    // padded to 16 channels.
    unsafe {
        let from = array!(M, input.as_ptr(), |m| {
            input.as_ptr().add(*walk.inputs.get_unchecked(pixel + m) as usize)
        });
        let mut all = [[vdupq_n_s32(0); 4]; M];
        for four in 0..4 {
            let mut sums = [[vdupq_n_s32(0); 4]; M];
            let mut at = weights.as_ptr().add(four * 4 * matrix.inputs);
            for &run in &walk.runs {
                for step in (run as usize..run as usize + walk.run).step_by(16) {
                    let weights = array!(4, vdupq_n_s8(0), |i| vld1q_s8(at.add(16 * i)));
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
        for m in 0..M {
            let to = *walk.outputs.get_unchecked(pixel + m) as usize;
            put.put(all[m], &matrix.epilogue, channel, to);
        }
    }
}

/// # Safety
///
/// The processor has NEON. `weights` is packed for this kernel and filter. The walk has the
/// pixels and stays within `input` and `output`.
#[target_feature(enable = "neon")]
pub(super) unsafe fn filter(
    filter: &Filter,
    weights: &[i8],
    walk: &Walk,
    pixels: Range<usize>,
    input: &[u8],
    output: &mut [u8],
) {
    // SAFETY: the caller guarantees the same.
    unsafe {
        match filter.taps {
            9 => taps(Nine::new, filter, weights, walk, pixels, input, output),
            _ => taps(Any::new, filter, weights, walk, pixels, input, output),
        }
    }
}

/// The weights of the taps of 16 channels.
trait Weighted {
    /// Adds the products of 16 channels of one pixel to the bias. The sum of two products
    /// of bytes fits in 16 bits, because weights are never -128.
    ///
    /// # Safety
    ///
    /// The processor has NEON. There are 16 bytes at each tap's offset from `input`.
    unsafe fn sums(&self, bias: [int32x4_t; 4], input: *const u8) -> [int32x4_t; 4];
}

/// Adds the products of two taps of 16 channels, widened to 32 bits, to the sums.
#[target_feature(enable = "neon")]
#[inline]
fn widened(sums: [int32x4_t; 4], low: int16x8_t, high: int16x8_t) -> [int32x4_t; 4] {
    [
        vaddw_s16(sums[0], vget_low_s16(low)),
        vaddw_high_s16(sums[1], low),
        vaddw_s16(sums[2], vget_low_s16(high)),
        vaddw_high_s16(sums[3], high),
    ]
}

/// Filters of 3x3: the weights and the offsets of the taps stay in registers.
struct Nine {
    weights: [int8x16_t; 9],
    places: [usize; 9],
}

impl Nine {
    /// # Safety
    ///
    /// The processor has NEON. `weights` points to 16 weights for each of nine taps; `runs`
    /// has nine offsets.
    #[inline(always)]
    unsafe fn new(weights: *const i8, runs: &[u32]) -> Self {
        // SAFETY: guaranteed by the caller.
        unsafe {
            Self {
                weights: array!(9, vdupq_n_s8(0), |tap| vld1q_s8(weights.add(16 * tap))),
                places: array!(9, 0, |tap| *runs.get_unchecked(tap) as usize),
            }
        }
    }
}

impl Weighted for Nine {
    #[inline(always)]
    unsafe fn sums(&self, bias: [int32x4_t; 4], input: *const u8) -> [int32x4_t; 4] {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let mut sums = bias;
            for tap in (0..9).step_by(2) {
                let (a, v) = (vld1q_s8(input.add(self.places[tap]).cast()), self.weights[tap]);
                let mut low = vmull_s8(vget_low_s8(a), vget_low_s8(v));
                let mut high = vmull_high_s8(a, v);
                if tap + 1 < 9 {
                    let b = vld1q_s8(input.add(self.places[tap + 1]).cast());
                    let w = self.weights[tap + 1];
                    low = vmlal_s8(low, vget_low_s8(b), vget_low_s8(w));
                    high = vmlal_high_s8(high, b, w);
                }
                sums = widened(sums, low, high);
            }
            sums
        }
    }
}

/// Filters of any size.
struct Any<'a> {
    weights: *const i8,
    runs: &'a [u32],
}

impl<'a> Any<'a> {
    /// # Safety
    ///
    /// `weights` points to 16 weights for each run, padded to an even number of runs, and
    /// stays valid while `sums` is called.
    #[inline(always)]
    unsafe fn new(weights: *const i8, runs: &'a [u32]) -> Self {
        Self { weights, runs }
    }
}

impl Weighted for Any<'_> {
    #[inline(always)]
    unsafe fn sums(&self, bias: [int32x4_t; 4], input: *const u8) -> [int32x4_t; 4] {
        // SAFETY: guaranteed by the caller; the weights are padded to an even number of
        // taps.
        unsafe {
            let (mut sums, mut at) = (bias, self.weights);
            for taps in self.runs.chunks(2) {
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
                sums = widened(sums, low, high);
                at = at.add(32);
            }
            sums
        }
    }
}

/// Takes 16 channels at a time and keeps their weights and factors in place while all
/// pixels are processed.
///
/// # Safety
///
/// As for `filter`; `new` accepts the weights and runs of this filter.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn taps<'w, W: Weighted>(
    new: unsafe fn(*const i8, &'w [u32]) -> W,
    filter: &Filter,
    weights: &[i8],
    walk: &'w Walk,
    pixels: Range<usize>,
    input: &[u8],
    output: &mut [u8],
) {
    let (epilogue, even) = (&filter.epilogue, filter.taps.next_multiple_of(2));
    for channel in (0..filter.channels).step_by(16) {
        // SAFETY: 16 stored channels are read at each tap and written, for which the walk
        // has room. Weights are padded to an even number of taps, the epilogue to 16
        // channels.
        unsafe {
            let weighted = new(weights.as_ptr().add(channel * even), &walk.runs);
            let bias = epilogue.bias.as_ptr().add(channel);
            let bias = array!(4, vdupq_n_s32(0), |i| vld1q_s32(bias.add(4 * i)));
            let factors = Factors::at(epilogue, channel);
            for pixel in pixels.clone() {
                let from = *walk.inputs.get_unchecked(pixel) as usize;
                let to = *walk.outputs.get_unchecked(pixel) as usize;
                let sums = weighted.sums(bias, input.as_ptr().add(from + channel));
                let bytes = rounded(factors.scaled(sums), epilogue);
                vst1q_s8(output.as_mut_ptr().add(to + channel).cast(), bytes);
            }
        }
    }
}
