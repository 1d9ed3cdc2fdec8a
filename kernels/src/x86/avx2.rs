//! AVX2: products of 16-bit pairs.

use super::super::Scratch;
use super::*;

/// Pixels per tile: with two registers of eight channels each, their sums take 12 of
/// the 16 registers.
const TILE: usize = 6;
/// Channels per register.
const LANES: usize = 8;

/// Multiplies each sum by the factor for its sign.
///
/// # Safety
///
/// The processor has AVX2. Each pointer points to eight factors.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn scaled(sum: __m256i, positive: *const f32, negative: *const f32) -> __m256 {
    // SAFETY: the caller guarantees eight factors behind each pointer.
    let (positive, negative) = unsafe { (_mm256_loadu_ps(positive), _mm256_loadu_ps(negative)) };
    // The blend selects by the sign bit of the sum.
    let factor = _mm256_blendv_ps(positive, negative, _mm256_castsi256_ps(sum));
    _mm256_mul_ps(_mm256_cvtepi32_ps(sum), factor)
}

/// Rounds values, halves to even, to the numbers of bytes in memory, one per lane.
#[target_feature(enable = "avx2")]
#[inline]
fn rounded(value: __m256, epilogue: &Epilogue) -> __m256i {
    let value = _mm256_max_ps(value, _mm256_set1_ps(epilogue.low));
    let value = _mm256_min_ps(value, _mm256_set1_ps(epilogue.high));
    _mm256_add_epi32(_mm256_cvtps_epi32(value), _mm256_set1_epi32(epilogue.zero_point))
}

/// # Safety
///
/// The processor has AVX2. `weights` is packed for this kernel and matrix. The walk has
/// the pixels and stays within `input`, `output` and `residual`.
#[target_feature(enable = "avx2")]
#[expect(clippy::too_many_arguments, reason = "what a layer reads and writes")]
pub(crate) unsafe fn matrix(
    matrix: &Matrix,
    weights: &[i16],
    walk: &Walk,
    pixels: Range<usize>,
    input: &[u8],
    residual: Option<&[u8]>,
    output: &mut [u8],
    scratch: &mut Scratch,
) {
    let epilogue = &matrix.epilogue;
    let mut put = |sums: [__m256i; 2], channel: usize, to: usize| {
        let mut steps = sums;
        for half in 0..2 {
            let channel = channel + half * LANES;
            // SAFETY: the walk has room for all stored channels; the residual has the
            // layout of the output; factors are padded to 16 channels.
            unsafe {
                let mut value = scaled(
                    sums[half],
                    epilogue.positive.as_ptr().add(channel),
                    epilogue.negative.as_ptr().add(channel),
                );
                if let (Some(other), Some((scale, zero_point))) = (residual, epilogue.residual) {
                    let other = _mm_loadl_epi64(other.as_ptr().add(to + channel).cast());
                    let other = _mm256_sub_epi32(
                        _mm256_cvtepu8_epi32(other),
                        _mm256_set1_epi32(zero_point),
                    );
                    let other = _mm256_mul_ps(_mm256_cvtepi32_ps(other), _mm256_set1_ps(scale));
                    value = _mm256_add_ps(value, other);
                }
                steps[half] = rounded(value, epilogue);
            }
        }
        // Packing works on 128-bit halves; the permutation restores the order.
        let words = _mm256_packs_epi32(steps[0], steps[1]);
        let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
        let bytes =
            _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
        // SAFETY: 16 stored channels begin here.
        unsafe { _mm_storeu_si128(output.as_mut_ptr().add(to + channel).cast(), bytes) };
    };
    // SAFETY: the caller guarantees the same.
    unsafe { tiles(matrix, weights, walk, pixels, input, scratch, &mut put) }
}

/// # Safety
///
/// As for `matrix`; `output` needs room only for the channels without padding.
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn matrix_float(
    matrix: &Matrix,
    weights: &[i16],
    walk: &Walk,
    pixels: Range<usize>,
    input: &[u8],
    output: &mut [f32],
    scratch: &mut Scratch,
) {
    let epilogue = &matrix.epilogue;
    let channels = matrix.channels;
    let mut put = |sums: [__m256i; 2], channel: usize, to: usize| {
        let mut values = [0.0f32; 16];
        for (half, sum) in sums.into_iter().enumerate() {
            // SAFETY: factors are padded to 16 channels; each half fills eight of the
            // 16 values.
            unsafe {
                let place = channel + half * LANES;
                let positive = _mm256_loadu_ps(epilogue.positive.as_ptr().add(place));
                let value = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), positive);
                _mm256_storeu_ps(values.as_mut_ptr().add(half * LANES), value);
            }
        }
        let real = (channels - channel).min(16);
        output[to + channel..to + channel + real].copy_from_slice(&values[..real]);
    };
    // SAFETY: the caller guarantees the same.
    unsafe { tiles(matrix, weights, walk, pixels, input, scratch, &mut put) }
}

/// Widens the input of up to six pixels, then multiplies it by all weights.
///
/// # Safety
///
/// As for the caller, `matrix` or `matrix_float`.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn tiles(
    matrix: &Matrix,
    weights: &[i16],
    walk: &Walk,
    pixels: Range<usize>,
    input: &[u8],
    scratch: &mut Scratch,
    put: &mut impl FnMut([__m256i; 2], usize, usize),
) {
    let inputs = matrix.inputs;
    scratch.words.resize((TILE * inputs).max(scratch.words.len()), 0);
    let mut pixel = pixels.start;
    while pixel < pixels.end {
        let some = (pixels.end - pixel).min(TILE);
        for m in 0..some {
            let from = walk.inputs[pixel + m] as usize;
            let mut to = m * inputs;
            for &run in &walk.runs {
                let run = from + run as usize;
                for at in (run..run + walk.run).step_by(16) {
                    // SAFETY: 16 bytes of the run, guaranteed by the caller, and 16 of
                    // this pixel's `inputs` words.
                    unsafe {
                        let bytes = _mm_loadu_si128(input.as_ptr().add(at).cast());
                        let words = _mm256_cvtepu8_epi16(bytes);
                        _mm256_storeu_si256(scratch.words.as_mut_ptr().add(to).cast(), words);
                    }
                    to += 16;
                }
            }
        }
        for (block, weights) in weights.chunks_exact(inputs * 16).enumerate() {
            let bias = &matrix.epilogue.bias[block * 16..block * 16 + 16];
            let words = scratch.words.as_ptr();
            let outputs = &walk.outputs[pixel..pixel + some];
            // SAFETY: the scratch memory has the words of `some` pixels; weights and
            // bias are those of one block.
            unsafe {
                match some {
                    TILE => tile::<TILE>(weights, words, inputs, bias, block, outputs, put),
                    1 => tile::<1>(weights, words, inputs, bias, block, outputs, put),
                    2 => tile::<2>(weights, words, inputs, bias, block, outputs, put),
                    3 => tile::<3>(weights, words, inputs, bias, block, outputs, put),
                    4 => tile::<4>(weights, words, inputs, bias, block, outputs, put),
                    _ => tile::<5>(weights, words, inputs, bias, block, outputs, put),
                }
            }
        }
        pixel += some;
    }
}

/// Sums of `M` pixels and 16 channels.
///
/// # Safety
///
/// The processor has AVX2. `words` points to `inputs` words for each of `M` pixels,
/// `weights` has 16 weights for each input, `bias` 16 values and `outputs` `M` offsets.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn tile<const M: usize>(
    weights: &[i16],
    words: *const i16,
    inputs: usize,
    bias: &[i32],
    block: usize,
    outputs: &[u32],
    put: &mut impl FnMut([__m256i; 2], usize, usize),
) {
    // SAFETY: the caller guarantees `M` pixels of `inputs` words each, and 16 weights
    // for each input.
    unsafe {
        let low = _mm256_loadu_si256(bias.as_ptr().cast());
        let high = _mm256_loadu_si256(bias.as_ptr().add(LANES).cast());
        let mut sums = [[low, high]; M];
        let mut at = weights.as_ptr();
        for pair in (0..inputs).step_by(2) {
            let low = _mm256_loadu_si256(at.cast());
            let high = _mm256_loadu_si256(at.add(16).cast());
            for m in 0..M {
                let two = words.add(m * inputs + pair).cast::<i32>().read_unaligned();
                let two = _mm256_set1_epi32(two);
                sums[m][0] = _mm256_add_epi32(sums[m][0], _mm256_madd_epi16(two, low));
                sums[m][1] = _mm256_add_epi32(sums[m][1], _mm256_madd_epi16(two, high));
            }
            at = at.add(32);
        }
        for m in 0..M {
            put(sums[m], block * 16, outputs[m] as usize);
        }
    }
}

/// Takes two taps of 32 channels at a time, interleaved and widened to 16 bits.
///
/// # Safety
///
/// The processor has AVX2. `weights` is packed for this kernel and filter. The walk has
/// the pixels and stays within `input` and `output`.
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn filter(
    filter: &Filter,
    weights: &[i16],
    walk: &Walk,
    pixels: Range<usize>,
    input: &[u8],
    output: &mut [u8],
) {
    let groups = filter.taps.div_ceil(2);
    let epilogue = &filter.epilogue;
    let zero = _mm256_setzero_si256();
    for (&from, &to) in walk.inputs.iter().zip(&walk.outputs).skip(pixels.start).take(pixels.len())
    {
        for (block, channel) in (0..filter.channels).step_by(32).enumerate() {
            let whole = filter.channels - channel >= 32;
            // SAFETY: 32 or, at the end, 16 stored channels are read and written, for
            // which the walk has room. Weights and epilogue are padded to 32 channels.
            unsafe {
                let input = input.as_ptr().add(from as usize + channel);
                // Past the last tap the weights are zero: any bytes fit.
                let last = walk.runs.len() - 1;
                let tap = |tap: usize| {
                    let at = input.add(walk.runs[tap.min(last)] as usize);
                    if whole {
                        _mm256_loadu_si256(at.cast())
                    } else {
                        _mm256_zextsi128_si256(_mm_loadu_si128(at.cast()))
                    }
                };
                let bias = epilogue.bias.as_ptr().add(channel);
                let mut sums = [zero; 4];
                for j in 0..4 {
                    sums[j] = _mm256_loadu_si256(bias.add(j * LANES).cast());
                }
                let mut at = weights.as_ptr().add(block * groups * 64);
                for group in 0..groups {
                    let (a, b) = (tap(group * 2), tap(group * 2 + 1));
                    let (low, high) = (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b));
                    let words = [
                        _mm256_unpacklo_epi8(low, zero),
                        _mm256_unpackhi_epi8(low, zero),
                        _mm256_unpacklo_epi8(high, zero),
                        _mm256_unpackhi_epi8(high, zero),
                    ];
                    for j in 0..4 {
                        let weights = _mm256_loadu_si256(at.add(j * 16).cast());
                        let products = _mm256_madd_epi16(words[j], weights);
                        sums[j] = _mm256_add_epi32(sums[j], products);
                    }
                    at = at.add(64);
                }
                for j in 0..4 {
                    let place = channel + j * LANES;
                    let value = scaled(
                        sums[j],
                        epilogue.positive.as_ptr().add(place),
                        epilogue.negative.as_ptr().add(place),
                    );
                    sums[j] = rounded(value, epilogue);
                }
                let [a, b, c, d] = sums;
                let (low, high) = (_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
                let bytes = _mm256_packus_epi16(low, high);
                let out = output.as_mut_ptr().add(to as usize + channel);
                if whole {
                    _mm256_storeu_si256(out.cast(), bytes);
                } else {
                    _mm_storeu_si128(out.cast(), _mm256_castsi256_si128(bytes));
                }
            }
        }
    }
}

/// Adds the bytes of each channel to the sums, 32 channels at a time in 16 bits.
///
/// # Safety
///
/// The processor has AVX2. The picture has one stored channel per sum, a multiple of 16, and
/// lies within its memory.
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn channel_sums((rows, columns): Sides, input: Pixels<'_>, sums: &mut [i32]) {
    let stored = sums.len();
    for channel in (0..stored).step_by(32) {
        let whole = stored - channel >= 32;
        // Sums of words, modulo 2^16, and of the odd bytes alone.
        let (mut words, mut odd) = (_mm256_setzero_si256(), _mm256_setzero_si256());
        let mut left = PARTIAL;
        for row in 0..rows {
            for column in 0..columns {
                let at = input.first + row * input.pitch + column * stored + channel;
                // SAFETY: 32 or, at the end, 16 stored channels of a pixel.
                let bytes = unsafe {
                    let at = input.bytes.as_ptr().add(at);
                    if whole {
                        _mm256_loadu_si256(at.cast())
                    } else {
                        _mm256_zextsi128_si256(_mm_loadu_si128(at.cast()))
                    }
                };
                words = _mm256_add_epi16(words, bytes);
                odd = _mm256_add_epi16(odd, _mm256_srli_epi16::<8>(bytes));
                left -= 1;
                if left == 0 {
                    flush(words, odd, &mut sums[channel..]);
                    (words, odd) = (_mm256_setzero_si256(), _mm256_setzero_si256());
                    left = PARTIAL;
                }
            }
        }
        flush(words, odd, &mut sums[channel..]);
    }
}

/// Adds the sums of up to 32 channels.
#[target_feature(enable = "avx2")]
#[inline]
fn flush(words: __m256i, odd: __m256i, sums: &mut [i32]) {
    let even = _mm256_sub_epi16(words, _mm256_slli_epi16::<8>(odd));
    let mut halves = [[0u16; 16]; 2];
    // SAFETY: each half has 16 words.
    unsafe {
        _mm256_storeu_si256(halves[0].as_mut_ptr().cast(), even);
        _mm256_storeu_si256(halves[1].as_mut_ptr().cast(), odd);
    }
    for i in 0..sums.len().min(32) {
        sums[i] += i32::from(halves[i % 2][i / 2]);
    }
}

/// Numbers of 32 bytes in floating point, less the zero point, in the order of unpacking.
/// A byte below the exponent of 2^23 is the float `2^23 + byte`.
#[target_feature(enable = "avx2")]
#[inline]
fn numbers(bytes: __m256i, zero: __m256) -> [__m256; 4] {
    let exponent = _mm256_set1_epi16(0x4b00);
    let low = _mm256_unpacklo_epi8(bytes, _mm256_setzero_si256());
    let high = _mm256_unpackhi_epi8(bytes, _mm256_setzero_si256());
    let float = |bits: __m256i| _mm256_sub_ps(_mm256_castsi256_ps(bits), zero);
    [
        float(_mm256_unpacklo_epi16(low, exponent)),
        float(_mm256_unpackhi_epi16(low, exponent)),
        float(_mm256_unpacklo_epi16(high, exponent)),
        float(_mm256_unpackhi_epi16(high, exponent)),
    ]
}

/// # Safety
///
/// The processor has AVX2. All pictures lie within their memories. The factors are in the
/// order of unpacking, padded to 32.
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn gate(gated: Gated<'_>) {
    let Gated { sides: (rows, columns), channels, input, output, epilogue, .. } = gated;
    let zero = _mm256_set1_ps(zero_of(gated.input_zero_point));
    let (scale, other_zero) = epilogue.residual.unwrap_or_default();
    let (scale, other_zero) = (_mm256_set1_ps(scale), _mm256_set1_ps(zero_of(other_zero)));
    let zero_point = _mm256_set1_epi16(epilogue.zero_point as i16);
    for row in 0..rows {
        for channel in (0..channels).step_by(32) {
            let whole = channels - channel >= 32;
            let mut factors = [zero; 4];
            for j in 0..4 {
                // SAFETY: factors are padded to 32 channels.
                factors[j] =
                    unsafe { _mm256_loadu_ps(gated.factors.as_ptr().add(channel + j * LANES)) };
            }
            // SAFETY: below, for each pixel 32 or, at the end, 16 stored channels are read
            // and written, for which the pictures have room.
            let load = |picture: &Pixels<'_>, at: usize| unsafe {
                let at = picture.bytes.as_ptr().add(picture.first + row * picture.pitch + at);
                if whole {
                    _mm256_loadu_si256(at.cast())
                } else {
                    _mm256_zextsi128_si256(_mm_loadu_si128(at.cast()))
                }
            };
            for column in 0..columns {
                let at = column * channels + channel;
                let mut values = numbers(load(&input, at), zero);
                for j in 0..4 {
                    values[j] = _mm256_mul_ps(values[j], factors[j]);
                }
                if let Some(other) = &gated.residual {
                    let others = numbers(load(other, at), other_zero);
                    for j in 0..4 {
                        values[j] = _mm256_add_ps(values[j], _mm256_mul_ps(others[j], scale));
                    }
                }
                // Values fit 32 bits; each step saturates, and so does the result.
                let [a, b, c, d] = values;
                let low = _mm256_packs_epi32(_mm256_cvtps_epi32(a), _mm256_cvtps_epi32(b));
                let high = _mm256_packs_epi32(_mm256_cvtps_epi32(c), _mm256_cvtps_epi32(d));
                let bytes = _mm256_packus_epi16(
                    _mm256_adds_epi16(low, zero_point),
                    _mm256_adds_epi16(high, zero_point),
                );
                let to = output.first + row * output.pitch + at;
                // SAFETY: as above.
                unsafe {
                    let out = output.bytes.as_mut_ptr().add(to);
                    if whole {
                        _mm256_storeu_si256(out.cast(), bytes);
                    } else {
                        _mm_storeu_si128(out.cast(), _mm256_castsi256_si128(bytes));
                    }
                }
            }
        }
    }
}
