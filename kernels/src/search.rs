//! Inner products of a probe with rows of bytes: the coarse pass of a search. The sums are
//! exact, so all kernels give the same integers.

use super::Kernel;

/// Sixty-four numbers in -127..=127, on a cache line of their own. A row is a whole number
/// of blocks, the last one filled up with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Block([i8; Block::LEN]);

impl Block {
    /// Numbers per block.
    pub const LEN: usize = 64;

    /// A block of zeros.
    pub const ZERO: Self = Self([0; Self::LEN]);

    /// A block of these numbers; -128 becomes -127. Kernels add two products in 16 bits,
    /// which would overflow with -128.
    #[inline]
    pub fn new(numbers: [i8; Self::LEN]) -> Self {
        Self(numbers.map(|number| number.max(-127)))
    }

    /// The numbers.
    #[inline]
    pub fn numbers(&self) -> &[i8; Self::LEN] {
        &self.0
    }
}

/// Largest number of blocks of a probe: far from overflow of a sum in 32 bits.
pub const MAX_BLOCKS: usize = 1 << 10;

/// Inner products: `out[i] = Σ rows[i * probe.len() + k] * probe[k]`, over the numbers of
/// the blocks.
///
/// # Panics
///
/// If the processor lacks the kernel's instructions, if `rows` has another number of blocks
/// than `out.len()` rows have, or if the probe has more than [`MAX_BLOCKS`].
pub fn inner_products(kernel: Kernel, rows: &[Block], probe: &[Block], out: &mut [i32]) {
    assert!(kernel.is_available(), "{} is not for this processor", kernel.name());
    assert!(probe.len() <= MAX_BLOCKS, "a probe of {} blocks", probe.len());
    assert_eq!(rows.len(), probe.len() * out.len(), "blocks of all rows");
    match kernel {
        // SAFETY: the assertions above: the processor has the instructions, and `rows` has
        // as many blocks per sum as the probe.
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx2 => unsafe { x86::avx2(rows, probe, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx512Vnni => unsafe { x86::vnni(rows, probe, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Kernel::Neon => unsafe { neon::widening(rows, probe, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Kernel::NeonDot => unsafe { neon::dot(rows, probe, out) },
        _ => plain(rows, probe, out),
    }
}

fn plain(rows: &[Block], probe: &[Block], out: &mut [i32]) {
    for (row, sum) in out.iter_mut().enumerate() {
        let row = &rows[row * probe.len()..(row + 1) * probe.len()];
        let pairs = row.iter().zip(probe).flat_map(|(row, probe)| row.0.iter().zip(&probe.0));
        *sum = pairs.map(|(a, b)| i32::from(*a) * i32::from(*b)).sum();
    }
}

// Iterators over registers are not inlined into functions with other target features than
// the rest of the program; loops over indices are.
#[cfg(target_arch = "x86_64")]
#[allow(clippy::needless_range_loop)]
mod x86 {
    use super::Block;
    use std::arch::x86_64::*;

    /// Rows per tile.
    const TILE: usize = 4;

    /// Blocks from one that is read to one that is fetched: 4 kB. The processor's own
    /// prefetching stops at the ends of pages.
    const AHEAD: usize = 64;

    /// # Safety
    ///
    /// The processor has AVX2. `rows` has `probe.len()` blocks for each element of `out`.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn avx2(rows: &[Block], probe: &[Block], out: &mut [i32]) {
        let mut at = rows.as_ptr();
        let (tiles, rest) = out.as_chunks_mut::<TILE>();
        for out in tiles {
            // SAFETY: the caller guarantees the blocks of `TILE` rows from `at` on, and
            // `at` then points at most one past the end. `out` has four sums.
            unsafe {
                let [a, b, c, d] = sums::<TILE>(at, probe);
                let sums = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
                let high = _mm256_extracti128_si256::<1>(sums);
                let sums = _mm_add_epi32(_mm256_castsi256_si128(sums), high);
                _mm_storeu_si128(out.as_mut_ptr().cast(), sums);
                at = at.add(TILE * probe.len());
            }
        }
        for out in rest {
            // SAFETY: as above, for one row.
            unsafe {
                let [sum] = sums::<1>(at, probe);
                let high = _mm256_extracti128_si256::<1>(sum);
                let sum = _mm_add_epi32(_mm256_castsi256_si128(sum), high);
                let sum = _mm_hadd_epi32(sum, sum);
                *out = _mm_cvtsi128_si32(_mm_hadd_epi32(sum, sum));
                at = at.add(probe.len());
            }
        }
    }

    /// Products of `M` rows with the probe, eight partial sums per row. The instruction
    /// multiplies unsigned by signed bytes: the probe's signs are moved to the row. Two
    /// products fit into its 16 bits, because no number is -128.
    ///
    /// # Safety
    ///
    /// The processor has AVX2. `rows` points to the blocks of `M` rows.
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn sums<const M: usize>(rows: *const Block, probe: &[Block]) -> [__m256i; M] {
        let (ones, blocks) = (_mm256_set1_epi16(1), probe.len());
        let mut sums = [_mm256_setzero_si256(); M];
        for (at, block) in probe.iter().enumerate() {
            for m in 0..M {
                let ahead = rows.wrapping_add(m * blocks + at + AHEAD);
                _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
            }
            for half in 0..2 {
                // SAFETY: a block has two halves of 32 bytes.
                let probe =
                    unsafe { _mm256_load_si256(block.0.as_ptr().cast::<__m256i>().add(half)) };
                let size = _mm256_abs_epi8(probe);
                for m in 0..M {
                    // SAFETY: the caller guarantees the blocks of `M` rows.
                    let row = unsafe {
                        let row = rows.add(m * blocks + at);
                        _mm256_load_si256(row.cast::<__m256i>().add(half))
                    };
                    let pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(row, probe));
                    sums[m] = _mm256_add_epi32(sums[m], _mm256_madd_epi16(pairs, ones));
                }
            }
        }
        sums
    }
    /// # Safety
    ///
    /// The processor has AVX-512 with VNNI. `rows` has `probe.len()` blocks for each
    /// element of `out`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub(super) unsafe fn vnni(rows: &[Block], probe: &[Block], out: &mut [i32]) {
        let mut at = rows.as_ptr();
        let (tiles, rest) = out.as_chunks_mut::<TILE>();
        for out in tiles {
            // SAFETY: the caller guarantees the blocks of `TILE` rows from `at` on, and
            // `at` then points at most one past the end.
            let sums = unsafe { wide_sums::<TILE>(at, probe) };
            for m in 0..TILE {
                out[m] = _mm512_reduce_add_epi32(sums[m]);
            }
            // SAFETY: as above.
            at = unsafe { at.add(TILE * probe.len()) };
        }
        for out in rest {
            // SAFETY: as above, for one row.
            unsafe {
                let [sum] = wide_sums::<1>(at, probe);
                *out = _mm512_reduce_add_epi32(sum);
                at = at.add(probe.len());
            }
        }
    }

    /// Products of `M` rows with the probe, 16 partial sums per row. The instruction
    /// multiplies unsigned by signed bytes: the probe's signs are moved to the row.
    ///
    /// # Safety
    ///
    /// The processor has AVX-512 with VNNI. `rows` points to the blocks of `M` rows.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    #[inline]
    unsafe fn wide_sums<const M: usize>(rows: *const Block, probe: &[Block]) -> [__m512i; M] {
        let (zero, blocks) = (_mm512_setzero_si512(), probe.len());
        let mut sums = [zero; M];
        for (at, block) in probe.iter().enumerate() {
            // SAFETY: a block has 64 bytes and is aligned to them.
            let probe = unsafe { _mm512_load_si512(block.0.as_ptr().cast()) };
            let (size, negative) = (_mm512_abs_epi8(probe), _mm512_movepi8_mask(probe));
            for m in 0..M {
                let ahead = rows.wrapping_add(m * blocks + at + AHEAD);
                _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                // SAFETY: the caller guarantees the blocks of `M` rows.
                let row = unsafe { _mm512_load_si512(rows.add(m * blocks + at).cast()) };
                let row = _mm512_mask_sub_epi8(row, negative, zero, row);
                sums[m] = _mm512_dpbusd_epi32(sums[m], size, row);
            }
        }
        sums
    }
}

#[cfg(target_arch = "aarch64")]
#[allow(clippy::needless_range_loop, reason = "iterators over registers are not inlined")]
mod neon {
    use super::Block;
    use std::arch::aarch64::*;
    use std::arch::asm;

    /// Rows per tile.
    const TILE: usize = 4;

    /// Rows of `out`, in tiles, by a function for tiles and one for single rows.
    macro_rules! tiles {
        ($sums:ident, $rows:ident, $probe:ident, $out:ident) => {
            let mut at = $rows.as_ptr();
            let (tiles, rest) = $out.as_chunks_mut::<TILE>();
            for out in tiles {
                // SAFETY: the caller guarantees the blocks of `TILE` rows from `at` on, and
                // `at` then points at most one past the end. `out` has four sums.
                unsafe {
                    let [a, b, c, d] = $sums::<TILE>(at, $probe);
                    let sums = vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
                    vst1q_s32(out.as_mut_ptr(), sums);
                    at = at.add(TILE * $probe.len());
                }
            }
            for out in rest {
                // SAFETY: as above, for one row.
                unsafe {
                    let [sum] = $sums::<1>(at, $probe);
                    *out = vaddvq_s32(sum);
                    at = at.add($probe.len());
                }
            }
        };
    }

    /// # Safety
    ///
    /// The processor has NEON. `rows` has `probe.len()` blocks for each element of `out`.
    #[target_feature(enable = "neon")]
    pub(super) unsafe fn widening(rows: &[Block], probe: &[Block], out: &mut [i32]) {
        tiles!(widening_sums, rows, probe, out);
    }

    /// # Safety
    ///
    /// The processor has NEON with dot products. `rows` has `probe.len()` blocks for each
    /// element of `out`.
    #[target_feature(enable = "neon,dotprod")]
    pub(super) unsafe fn dot(rows: &[Block], probe: &[Block], out: &mut [i32]) {
        tiles!(dot_sums, rows, probe, out);
    }

    /// Products of `M` rows with the probe, four partial sums per row. The sum of two
    /// products fits in 16 bits, because no number is -128.
    ///
    /// # Safety
    ///
    /// The processor has NEON. `rows` points to the blocks of `M` rows.
    #[target_feature(enable = "neon")]
    #[inline]
    unsafe fn widening_sums<const M: usize>(rows: *const Block, probe: &[Block]) -> [int32x4_t; M] {
        let mut sums = [vdupq_n_s32(0); M];
        for (at, block) in probe.iter().enumerate() {
            for step in (0..Block::LEN).step_by(16) {
                // SAFETY: a block has four times 16 bytes.
                let bytes = unsafe { vld1q_s8(block.0.as_ptr().add(step)) };
                for m in 0..M {
                    // SAFETY: the caller guarantees the blocks of `M` rows.
                    let row =
                        unsafe { vld1q_s8(rows.add(m * probe.len() + at).cast::<i8>().add(step)) };
                    let words = vmull_s8(vget_low_s8(row), vget_low_s8(bytes));
                    let words = vmlal_high_s8(words, row, bytes);
                    sums[m] = vpadalq_s16(sums[m], words);
                }
            }
        }
        sums
    }

    /// As [`widening_sums`], with dot products of four bytes.
    ///
    /// # Safety
    ///
    /// The processor has NEON with dot products. `rows` points to the blocks of `M` rows.
    #[target_feature(enable = "neon,dotprod")]
    #[inline]
    unsafe fn dot_sums<const M: usize>(rows: *const Block, probe: &[Block]) -> [int32x4_t; M] {
        let mut sums = [vdupq_n_s32(0); M];
        for (at, block) in probe.iter().enumerate() {
            for step in (0..Block::LEN).step_by(16) {
                // SAFETY: a block has four times 16 bytes.
                let bytes = unsafe { vld1q_s8(block.0.as_ptr().add(step)) };
                for m in 0..M {
                    // SAFETY: the caller guarantees the blocks of `M` rows. The instruction
                    // reads and writes only registers; its intrinsic is not stable.
                    unsafe {
                        let row = vld1q_s8(rows.add(m * probe.len() + at).cast::<i8>().add(step));
                        asm!(
                            "sdot {sums:v}.4s, {row:v}.16b, {bytes:v}.16b",
                            sums = inout(vreg) sums[m],
                            row = in(vreg) row,
                            bytes = in(vreg) bytes,
                            options(pure, nomem, nostack, preserves_flags),
                        );
                    }
                }
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blocks(numbers: &[i8]) -> Vec<Block> {
        numbers.as_chunks().0.iter().map(|numbers| Block::new(*numbers)).collect()
    }

    fn available() -> impl Iterator<Item = Kernel> {
        Kernel::ALL.into_iter().filter(|kernel| kernel.is_available())
    }

    proptest! {
        #[test]
        fn every_kernel_adds_up_the_same_integers(
            rows in 0usize..14, per_row in 1usize..6, seed in 1u64..,
        ) {
            let mut state = seed;
            let mut numbers = |count: usize| -> Vec<i8> {
                (0..count * Block::LEN)
                    .map(|_| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        // Extremes are frequent, because sums saturate there.
                        match state >> 61 {
                            0 => i8::MIN,
                            1 => i8::MAX,
                            _ => (state >> 40) as i8,
                        }
                    })
                    .collect()
            };
            let (rows_of, probe) = (numbers(rows * per_row), numbers(per_row));
            let expected: Vec<i32> = rows_of
                .chunks_exact(per_row * Block::LEN)
                .map(|row| {
                    let number = |n: &i8| i32::from(*n).max(-127);
                    row.iter().zip(&probe).map(|(a, b)| number(a) * number(b)).sum()
                })
                .collect();
            for kernel in available() {
                let mut sums = vec![1; rows];
                inner_products(kernel, &blocks(&rows_of), &blocks(&probe), &mut sums);
                prop_assert_eq!(&sums, &expected, "{}", kernel.name());
            }
        }
    }

    #[test]
    fn the_largest_sums_fit() {
        for (row, probe) in [(127, 127), (-127, -127), (-128, 127), (127, -128)] {
            let (row, probe) = ([Block::new([row; 64]); 6], [Block::new([probe; 64]); 6]);
            let expected: i32 = row
                .iter()
                .zip(&probe)
                .flat_map(|(a, b)| a.0.iter().zip(&b.0))
                .map(|(a, b)| i32::from(*a) * i32::from(*b))
                .sum();
            assert_eq!(expected.abs(), 6 * 64 * 127 * 127);
            for kernel in available() {
                let mut sums = [0; 5];
                inner_products(kernel, &row.repeat(5), &probe, &mut sums);
                assert_eq!(sums, [expected; 5], "{}", kernel.name());
            }
        }
    }
}
