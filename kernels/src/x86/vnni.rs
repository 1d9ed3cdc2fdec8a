//! AVX-512 with VNNI: dot products of four bytes.

use super::*;

/// Channels per register.
const LANES: usize = 16;
/// Registers of channels in the widest block.
const WIDE: usize = 4;

/// Inputs of a tile of `M` pixels.
struct Tile<'t, const M: usize> {
    walk: &'t Walk,
    inputs: [*const u8; M],
}

impl<const M: usize> Tile<'_, M> {
    /// Sums of `M` pixels and `B * 16` channels. Each step broadcasts four bytes of a
    /// pixel to all lanes and multiplies them by the step's weights of each channel.
    ///
    /// # Safety
    ///
    /// The processor has AVX-512 with VNNI. `weights` points to `B` blocks of packed
    /// weights, `block` bytes apart. `bias` points to `B * 16` values. Each input has
    /// all runs of the walk.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    #[inline]
    unsafe fn sums<const B: usize>(
        &self,
        weights: *const i8,
        block: usize,
        bias: *const i32,
    ) -> [[__m512i; B]; M] {
        let mut sums = [[_mm512_setzero_si512(); B]; M];
        for b in 0..B {
            // SAFETY: `bias` has `B * 16` values, as the caller guarantees.
            let bias = unsafe { _mm512_loadu_si512(bias.add(b * LANES).cast()) };
            for m in 0..M {
                sums[m][b] = bias;
            }
        }
        let mut at = weights;
        for &run in &self.walk.runs {
            for step in (run as usize..run as usize + self.walk.run).step_by(4) {
                let mut weights = [_mm512_setzero_si512(); B];
                for b in 0..B {
                    // SAFETY: one register per step and block, all packed weights.
                    weights[b] = unsafe { _mm512_loadu_si512(at.add(b * block).cast()) };
                }
                for m in 0..M {
                    // SAFETY: within the run, as the caller guarantees.
                    let four = unsafe { self.inputs[m].add(step).cast::<i32>() };
                    // SAFETY: as above.
                    let four = _mm512_set1_epi32(unsafe { four.read_unaligned() });
                    for b in 0..B {
                        sums[m][b] = _mm512_dpbusd_epi32(sums[m][b], four, weights[b]);
                    }
                }
                // SAFETY: at most one past the end of the block.
                at = unsafe { at.add(4 * LANES) };
            }
        }
        sums
    }
}

/// Multiplies each sum by the factor for its sign.
///
/// # Safety
///
/// The processor has AVX-512 with VNNI. Each pointer points to 16 factors.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn scaled(sum: __m512i, positive: *const f32, negative: *const f32) -> __m512 {
    // SAFETY: guaranteed by the caller.
    let (positive, negative) = unsafe { (_mm512_loadu_ps(positive), _mm512_loadu_ps(negative)) };
    let below = _mm512_cmplt_epi32_mask(sum, _mm512_setzero_si512());
    _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_mask_blend_ps(below, positive, negative))
}

/// Rounds values, halves to even, to the numbers of bytes in memory, one per lane.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn rounded(value: __m512, epilogue: &Epilogue) -> __m512i {
    let value = _mm512_max_ps(value, _mm512_set1_ps(epilogue.low));
    let value = _mm512_min_ps(value, _mm512_set1_ps(epilogue.high));
    _mm512_add_epi32(_mm512_cvtps_epi32(value), _mm512_set1_epi32(epilogue.zero_point))
}

/// # Safety
///
/// The processor has AVX-512 with VNNI. `weights` is packed for this kernel and matrix.
/// The walk has the pixels and stays within `input`, `output` and `residual`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) unsafe fn matrix(
    matrix: &Matrix,
    weights: &[i8],
    walk: &Walk,
    pixels: Range<usize>,
    input: &[u8],
    residual: Option<&[u8]>,
    output: &mut [u8],
) {
    let epilogue = &matrix.epilogue;
    let mut put = |sums: __m512i, channel: usize, to: usize| {
        // SAFETY: the walk has room for all stored channels, 16 of which begin at
        // `channel`. The residual has the layout of the output. Factors are padded to
        // 16 channels.
        unsafe {
            let mut value = scaled(
                sums,
                epilogue.positive.as_ptr().add(channel),
                epilogue.negative.as_ptr().add(channel),
            );
            if let (Some(other), Some((scale, zero_point))) = (residual, epilogue.residual) {
                let other = _mm_loadu_si128(other.as_ptr().add(to + channel).cast());
                let other =
                    _mm512_sub_epi32(_mm512_cvtepu8_epi32(other), _mm512_set1_epi32(zero_point));
                let other = _mm512_mul_ps(_mm512_cvtepi32_ps(other), _mm512_set1_ps(scale));
                value = _mm512_add_ps(value, other);
            }
            let bytes = _mm512_cvtepi32_epi8(rounded(value, epilogue));
            _mm_storeu_si128(output.as_mut_ptr().add(to + channel).cast(), bytes);
        }
    };
    // SAFETY: the caller guarantees the same.
    unsafe { tiles(matrix, weights, walk, pixels, input, &mut put) }
}

/// # Safety
///
/// As for `matrix`; `output` needs room only for the channels without padding.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) unsafe fn matrix_float(
    matrix: &Matrix,
    weights: &[i8],
    walk: &Walk,
    pixels: Range<usize>,
    input: &[u8],
    output: &mut [f32],
) {
    let epilogue = &matrix.epilogue;
    let channels = matrix.channels;
    let mut put = |sums: __m512i, channel: usize, to: usize| {
        // SAFETY: factors are padded to 16 channels; the mask excludes padding.
        unsafe {
            let positive = _mm512_loadu_ps(epilogue.positive.as_ptr().add(channel));
            let value = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), positive);
            let real = (channels - channel.min(channels)).min(LANES);
            let mask = ((1u32 << real) - 1) as u16;
            _mm512_mask_storeu_ps(output.as_mut_ptr().add(to + channel), mask, value);
        }
    };
    // SAFETY: the caller guarantees the same.
    unsafe { tiles(matrix, weights, walk, pixels, input, &mut put) }
}

/// Blocks of 64 channels and tiles of six pixels, then the remaining channels and
/// pixels. The weights of a block stay in the L1 cache while all pixels are processed.
///
/// # Safety
///
/// As for the caller, `matrix` or `matrix_float`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn tiles(
    matrix: &Matrix,
    weights: &[i8],
    walk: &Walk,
    pixels: Range<usize>,
    input: &[u8],
    put: &mut impl FnMut(__m512i, usize, usize),
) {
    let block = matrix.inputs * LANES;
    let blocks = padded(matrix.channels) / LANES;
    let mut first = 0;
    while first < blocks {
        // SAFETY: the caller guarantees the walk; all blocks are in the packed weights.
        unsafe {
            let weights = weights.as_ptr().add(first * block);
            let bias = matrix.epilogue.bias.as_ptr().add(first * LANES);
            let at = (weights, block, bias, first * LANES);
            if blocks - first >= WIDE {
                pixels_of::<WIDE>(walk, pixels.clone(), input, at, put);
                first += WIDE;
            } else if blocks - first >= 2 {
                pixels_of::<2>(walk, pixels.clone(), input, at, put);
                first += 2;
            } else {
                pixels_of::<1>(walk, pixels.clone(), input, at, put);
                first += 1;
            }
        }
    }
}

/// Packed weights of the first block, distance of the blocks in bytes, bias, and number
/// of the first channel.
type Block = (*const i8, usize, *const i32, usize);

/// All pixels of `B` blocks of 16 channels.
///
/// # Safety
///
/// As for `tiles`; the pointers of `block` are valid for `B` blocks.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn pixels_of<const B: usize>(
    walk: &Walk,
    pixels: Range<usize>,
    input: &[u8],
    block: Block,
    put: &mut impl FnMut(__m512i, usize, usize),
) {
    let mut pixel = pixels.start;
    // SAFETY: the caller guarantees the walk; the tiles end with the pixels.
    unsafe {
        while pixels.end - pixel >= 6 {
            tile::<6, B>(walk, pixel, input, block, put);
            pixel += 6;
        }
        while pixels.end - pixel >= 2 {
            tile::<2, B>(walk, pixel, input, block, put);
            pixel += 2;
        }
        while pixels.end > pixel {
            tile::<1, B>(walk, pixel, input, block, put);
            pixel += 1;
        }
    }
}

/// `M` pixels of `B` blocks of 16 channels.
///
/// # Safety
///
/// As for `pixels_of`; the walk has `M` pixels from `pixel` on.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn tile<const M: usize, const B: usize>(
    walk: &Walk,
    pixel: usize,
    input: &[u8],
    (weights, block, bias, channel): Block,
    put: &mut impl FnMut(__m512i, usize, usize),
) {
    // SAFETY: `pixel + M` pixels are in the walk, and their offsets are within `input`.
    unsafe {
        let from = walk.inputs.as_ptr().add(pixel);
        let mut inputs = [input.as_ptr(); M];
        for m in 0..M {
            inputs[m] = input.as_ptr().add(*from.add(m) as usize);
        }
        let sums = Tile::<M> { walk, inputs }.sums::<B>(weights, block, bias);
        for m in 0..M {
            let to = *walk.outputs.get_unchecked(pixel + m) as usize;
            for b in 0..B {
                put(sums[m][b], channel + b * LANES, to);
            }
        }
    }
}

/// Takes four taps of 64 channels at a time. Interleaving puts the four bytes of a
/// channel into one lane of a dot product.
///
/// # Safety
///
/// The processor has AVX-512 with VNNI. `weights` is packed for this kernel and filter.
/// The walk has the pixels and stays within `input` and `output`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) unsafe fn filter(
    filter: &Filter,
    weights: &[i8],
    walk: &Walk,
    pixels: Range<usize>,
    input: &[u8],
    output: &mut [u8],
) {
    let groups = filter.taps.div_ceil(4);
    for (block, channel) in (0..filter.channels).step_by(64).enumerate() {
        let mask = u64::MAX >> (64 - (filter.channels - channel).min(64));
        let epilogue = &filter.epilogue;
        // SAFETY: masked loads and stores access only stored channels, for which the
        // walk has room. Weights and epilogue are padded to 64 channels.
        unsafe {
            let weights = weights.as_ptr().add(block * groups * 256);
            if filter.taps == 9 {
                nine(epilogue, channel, mask, weights, walk, pixels.clone(), input, output);
                continue;
            }
            for pixel in pixels.clone() {
                let from = *walk.inputs.get_unchecked(pixel) as usize;
                let input = input.as_ptr().add(from + channel);
                let mut sums = biased(epilogue, channel);
                for group in 0..groups {
                    // Past the last tap the weights are zero: any bytes fit.
                    let last = walk.runs.len() - 1;
                    let tap = |i: usize| {
                        let run = walk.runs[(4 * group + i).min(last)] as usize;
                        _mm512_maskz_loadu_epi8(mask, input.add(run).cast())
                    };
                    let bytes = interleaved([tap(0), tap(1), tap(2), tap(3)]);
                    sums = with(sums, &bytes, weights.add(group * 256));
                }
                let to = *walk.outputs.get_unchecked(pixel) as usize;
                put(sums, epilogue, channel, mask, output.as_mut_ptr().add(to + channel));
            }
        }
    }
}

/// Filters of 3x3: the three taps of a column are interleaved once and reused by up to
/// three neighbouring pixels of a row.
///
/// # Safety
///
/// As for `filter`. The filter has nine taps, and `weights` points to the weights of
/// this block of channels. `mask` selects only stored channels from `channel` on.
#[expect(clippy::too_many_arguments, reason = "one block of a filter")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn nine(
    epilogue: &Epilogue,
    channel: usize,
    mask: u64,
    weights: *const i8,
    walk: &Walk,
    pixels: Range<usize>,
    input: &[u8],
    output: &mut [u8],
) {
    let runs: [usize; 9] = std::array::from_fn(|tap| walk.runs[tap] as usize);
    // Distance of the columns, if all distances are equal.
    let apart = runs[1].wrapping_sub(runs[0]);
    let even = (0..9).all(|tap| tap % 3 == 2 || runs[tap + 1].wrapping_sub(runs[tap]) == apart);
    let zero = _mm512_setzero_si512();
    let mut columns = [[zero; 4]; 3];
    let mut before = usize::MAX;
    for pixel in pixels {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let from = *walk.inputs.get_unchecked(pixel) as usize;
            let input = input.as_ptr().add(from + channel);
            let column = |x: usize| {
                let tap =
                    |y: usize| _mm512_maskz_loadu_epi8(mask, input.add(runs[3 * y + x]).cast());
                interleaved([tap(0), tap(1), tap(2), zero])
            };
            let moved = from.wrapping_sub(before);
            columns = if even && moved == apart {
                [columns[1], columns[2], column(2)]
            } else if even && moved == apart.wrapping_mul(2) {
                [columns[2], column(1), column(2)]
            } else {
                [column(0), column(1), column(2)]
            };
            before = from;
            let mut sums = biased(epilogue, channel);
            for x in 0..3 {
                sums = with(sums, &columns[x], weights.add(x * 256));
            }
            let to = *walk.outputs.get_unchecked(pixel) as usize;
            put(sums, epilogue, channel, mask, output.as_mut_ptr().add(to + channel));
        }
    }
}

/// Interleaves four taps of 64 channels: each 32-bit lane of the four registers has the
/// four taps of one channel.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn interleaved([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (ab, cd) = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d));
    let (ef, gh) = (_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d));
    [
        _mm512_unpacklo_epi16(ab, cd),
        _mm512_unpackhi_epi16(ab, cd),
        _mm512_unpacklo_epi16(ef, gh),
        _mm512_unpackhi_epi16(ef, gh),
    ]
}

/// Loads the bias of 64 channels.
///
/// # Safety
///
/// The processor has AVX-512 with VNNI. The epilogue is padded to 64 channels and has
/// 64 channels from `channel` on.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn biased(epilogue: &Epilogue, channel: usize) -> [__m512i; 4] {
    let mut sums = [_mm512_setzero_si512(); 4];
    for j in 0..4 {
        // SAFETY: guaranteed by the caller.
        let bias = unsafe { epilogue.bias.as_ptr().add(channel + j * LANES) };
        // SAFETY: guaranteed by the caller.
        sums[j] = unsafe { _mm512_loadu_si512(bias.cast()) };
    }
    sums
}

/// Adds the products of four interleaved taps of 64 channels.
///
/// # Safety
///
/// The processor has AVX-512 with VNNI. `weights` points to 256 weights.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn with(sums: [__m512i; 4], bytes: &[__m512i; 4], weights: *const i8) -> [__m512i; 4] {
    let mut sums = sums;
    for j in 0..4 {
        // SAFETY: guaranteed by the caller.
        let weights = unsafe { _mm512_loadu_si512(weights.add(j * 64).cast()) };
        sums[j] = _mm512_dpbusd_epi32(sums[j], bytes[j], weights);
    }
    sums
}

/// Requantizes the sums of 64 channels and stores the bytes that `mask` selects.
///
/// # Safety
///
/// The processor has AVX-512 with VNNI. The epilogue is padded to 64 channels and has
/// 64 channels from `channel` on. `out` has room for the bytes that `mask` selects.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn put(sums: [__m512i; 4], epilogue: &Epilogue, channel: usize, mask: u64, out: *mut u8) {
    let mut sums = sums;
    for j in 0..4 {
        let place = channel + j * LANES;
        // SAFETY: factors are padded to 64 channels.
        let value = unsafe {
            scaled(
                sums[j],
                epilogue.positive.as_ptr().add(place),
                epilogue.negative.as_ptr().add(place),
            )
        };
        sums[j] = rounded(value, epilogue);
    }
    let [a, b, c, d] = sums;
    // Packing restores the order from before interleaving.
    let (low, high) = (_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
    // SAFETY: guaranteed by the caller.
    unsafe { _mm512_mask_storeu_epi8(out.cast(), mask, _mm512_packus_epi16(low, high)) };
}

/// Adds the bytes of each channel to the sums, 64 channels at a time in 16 bits.
///
/// # Safety
///
/// The processor has AVX-512 with VNNI. The picture has one stored channel per sum and lies
/// within its memory.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) unsafe fn channel_sums((rows, columns): Sides, input: Pixels<'_>, sums: &mut [i32]) {
    let stored = sums.len();
    for channel in (0..stored).step_by(64) {
        let mask = u64::MAX >> (64 - (stored - channel).min(64));
        // Sums of words, modulo 2^16, and of the odd bytes alone.
        let (mut words, mut odd) = (_mm512_setzero_si512(), _mm512_setzero_si512());
        let mut left = PARTIAL;
        for row in 0..rows {
            for column in 0..columns {
                let at = input.first + row * input.pitch + column * stored + channel;
                // SAFETY: the mask selects only stored channels of a pixel.
                let bytes =
                    unsafe { _mm512_maskz_loadu_epi8(mask, input.bytes.as_ptr().add(at).cast()) };
                words = _mm512_add_epi16(words, bytes);
                odd = _mm512_add_epi16(odd, _mm512_srli_epi16::<8>(bytes));
                left -= 1;
                if left == 0 {
                    flush(words, odd, &mut sums[channel..]);
                    (words, odd) = (_mm512_setzero_si512(), _mm512_setzero_si512());
                    left = PARTIAL;
                }
            }
        }
        flush(words, odd, &mut sums[channel..]);
    }
}

/// Adds the sums of up to 64 channels.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn flush(words: __m512i, odd: __m512i, sums: &mut [i32]) {
    let even = _mm512_sub_epi16(words, _mm512_slli_epi16::<8>(odd));
    let mut halves = [[0u16; 32]; 2];
    // SAFETY: each half has 32 words.
    unsafe {
        _mm512_storeu_si512(halves[0].as_mut_ptr().cast(), even);
        _mm512_storeu_si512(halves[1].as_mut_ptr().cast(), odd);
    }
    for i in 0..sums.len().min(64) {
        sums[i] += i32::from(halves[i % 2][i / 2]);
    }
}

/// Numbers of 64 bytes in floating point, less the zero point, in the order of unpacking.
/// A byte below the exponent of 2^23 is the float `2^23 + byte`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn numbers(bytes: __m512i, zero: __m512) -> [__m512; 4] {
    let exponent = _mm512_set1_epi16(0x4b00);
    let low = _mm512_unpacklo_epi8(bytes, _mm512_setzero_si512());
    let high = _mm512_unpackhi_epi8(bytes, _mm512_setzero_si512());
    let float = |bits: __m512i| _mm512_sub_ps(_mm512_castsi512_ps(bits), zero);
    [
        float(_mm512_unpacklo_epi16(low, exponent)),
        float(_mm512_unpackhi_epi16(low, exponent)),
        float(_mm512_unpacklo_epi16(high, exponent)),
        float(_mm512_unpackhi_epi16(high, exponent)),
    ]
}

/// # Safety
///
/// The processor has AVX-512 with VNNI. All pictures lie within their memories. The factors
/// are in the order of unpacking, padded to 64.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) unsafe fn gate(gated: Gated<'_>) {
    let Gated { sides: (rows, columns), channels, input, output, epilogue, .. } = gated;
    let zero = _mm512_set1_ps(zero_of(gated.input_zero_point));
    let (scale, other_zero) = epilogue.residual.unwrap_or_default();
    let (scale, other_zero) = (_mm512_set1_ps(scale), _mm512_set1_ps(zero_of(other_zero)));
    let zero_point = _mm512_set1_epi16(epilogue.zero_point as i16);
    for row in 0..rows {
        for channel in (0..channels).step_by(64) {
            let mask = u64::MAX >> (64 - (channels - channel).min(64));
            let mut factors = [zero; 4];
            for j in 0..4 {
                // SAFETY: factors are padded to 64 channels.
                factors[j] =
                    unsafe { _mm512_loadu_ps(gated.factors.as_ptr().add(channel + j * LANES)) };
            }
            // SAFETY: below, the mask selects only stored channels of a pixel, for which the
            // pictures have room.
            let load = |picture: &Pixels<'_>, at: usize| unsafe {
                let at = picture.first + row * picture.pitch + at;
                _mm512_maskz_loadu_epi8(mask, picture.bytes.as_ptr().add(at).cast())
            };
            for column in 0..columns {
                let at = column * channels + channel;
                let mut values = numbers(load(&input, at), zero);
                for j in 0..4 {
                    values[j] = _mm512_mul_ps(values[j], factors[j]);
                }
                if let Some(other) = &gated.residual {
                    let others = numbers(load(other, at), other_zero);
                    for j in 0..4 {
                        values[j] = _mm512_add_ps(values[j], _mm512_mul_ps(others[j], scale));
                    }
                }
                // Values fit 32 bits; each step saturates, and so does the result.
                let [a, b, c, d] = values;
                let low = _mm512_packs_epi32(_mm512_cvtps_epi32(a), _mm512_cvtps_epi32(b));
                let high = _mm512_packs_epi32(_mm512_cvtps_epi32(c), _mm512_cvtps_epi32(d));
                let bytes = _mm512_packus_epi16(
                    _mm512_adds_epi16(low, zero_point),
                    _mm512_adds_epi16(high, zero_point),
                );
                let to = output.first + row * output.pitch + at;
                // SAFETY: as above.
                unsafe {
                    let out = output.bytes.as_mut_ptr().add(to);
                    _mm512_mask_storeu_epi8(out.cast(), mask, bytes);
                }
            }
        }
    }
}
