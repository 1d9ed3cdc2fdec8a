//! The rows of a gallery and the search for the rows most similar to a probe: a coarse pass
//! over copies in 8 bits, then exact similarities of the rows that can still matter.
//!
//! A row x is copied as x̂ = scale * r with whole numbers r in -127..=127, and the probe p
//! likewise as p̂. By the inequality of Cauchy and Schwarz
//!
//! ```text
//! x·p = x̂·p̂ + (x - x̂)·p̂ + x·(p - p̂)  <=  x̂·p̂ + |x - x̂| |p̂| + |x| |p - p̂|
//! ```
//!
//! x̂·p̂ comes from an exact sum of whole numbers, and |x - x̂| is stored with each row. The
//! bound also covers the rounding of [`dot`]. So a row whose bound is below the similarity
//! to beat is left out without changing the result.

use crate::vision::embed::dot;
use facelatch_kernels::Kernel;
use facelatch_kernels::search::{Block, inner_products};

/// Largest length of a row that the coarse pass covers. Embeddings are unit vectors whose
/// numbers are rounded to 24 bits, so only a foreign vector is longer.
const MAX_LENGTH: f64 = 1.0 + 1e-6;

/// Largest relative rounding error of one operation in 32 bits.
const ROUNDING: f64 = 1.0 / (1 << 24) as f64;

/// Largest rounding error of the bound: six operations with results below 8.
const BOUND_ROUNDING: f64 = 6.0 * 8.0 * ROUNDING;

/// 1.5 * 2^23. A small float is rounded to a whole number when this is added, and the last
/// byte of the sum is that number.
const WHOLE: f32 = 12_582_912.0;

/// Running sums and maxima, for vector instructions.
const LANES: usize = 8;

/// Rows per call of the kernel.
const TILE: usize = 64;

/// Most blocks of a probe: 1,024 numbers. It keeps the copy of the probe on the stack.
const MAX_BLOCKS: usize = 16;

/// Galleries with fewer rows are searched exactly at once: copying the probe takes as long
/// as comparing this many rows.
const FEW: usize = 64;

/// Unit vectors of one size, row-major, each with a copy in 8 bits.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rows {
    size: usize,
    values: Vec<f32>,
    /// Copies: whole blocks per row, filled up with zeros.
    blocks: Vec<Block>,
    copies: Vec<Copied>,
}

/// What the copy of a vector stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Copied {
    /// Value of one step of the copy.
    scale: f32,
    /// At least the length of the difference between vector and copy; infinite if the
    /// vector is longer than [`MAX_LENGTH`].
    error: f32,
}

/// The copy of a probe, and what the bounds of all rows have in common.
struct Coarse {
    blocks: [Block; MAX_BLOCKS],
    scale: f32,
    /// At least the length of the copy.
    length: f32,
    /// At least all of the bound that does not depend on the row.
    error: f32,
}

/// The next float above a value, so that it is not rounded down.
fn up(value: f64) -> f32 {
    (value as f32).next_up()
}

/// The square root of a sum of squares, at least; `sums` are parts of the sum.
fn length(sums: [f64; LANES]) -> f64 {
    sums.iter().sum::<f64>().sqrt() * (1.0 + 1e-9)
}

/// Copies a vector to blocks.
fn copied(values: &[f32], blocks: &mut [Block]) -> Copied {
    let mut largest = [0.0f32; LANES];
    for values in values.chunks(LANES) {
        for (largest, value) in largest.iter_mut().zip(values) {
            *largest = largest.max(value.abs());
        }
    }
    let scale = largest.into_iter().fold(0.0, f32::max) / 127.0;
    let factor = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    let (mut whole, mut error) = ([0.0; LANES], [0.0; LANES]);
    for (block, values) in blocks.iter_mut().zip(values.chunks(Block::LEN)) {
        let mut padded = [0.0; Block::LEN];
        padded[..values.len()].copy_from_slice(values);
        let number = |value: f32| (value * factor + WHOLE).to_bits() as i8;
        *block = Block::new(padded.map(number));
        // Whatever the numbers are, the error is theirs.
        for (at, (value, number)) in padded.iter().zip(block.numbers()).enumerate() {
            let value = f64::from(*value);
            let difference = value - f64::from(scale) * f64::from(*number);
            whole[at % LANES] += value * value;
            error[at % LANES] += difference * difference;
        }
    }
    let error = if length(whole) <= MAX_LENGTH { up(length(error)) } else { f32::INFINITY };
    Copied { scale, error }
}

impl Coarse {
    /// `None` if the probe is too large or too long.
    fn new(probe: &[f32]) -> Option<Self> {
        let mut blocks = [Block::ZERO; MAX_BLOCKS];
        let used = probe.len().div_ceil(Block::LEN);
        let Copied { scale, error } = copied(probe, blocks.get_mut(..used)?);
        if !error.is_finite() {
            return None;
        }
        let mut squares = 0;
        for number in blocks[..used].iter().flat_map(Block::numbers) {
            squares += i32::from(*number) * i32::from(*number);
        }
        let copy = f64::from(scale) * f64::from(squares).sqrt() * (1.0 + 1e-9);
        // In `dot` each product is rounded once and then takes part in fewer additions than
        // there are numbers. 1e-30 covers products below the range of floats.
        let roundings = (probe.len() + 16) as f64 * ROUNDING;
        let rounding = 1.01 * roundings * MAX_LENGTH * MAX_LENGTH + 1e-30;
        let error = up(MAX_LENGTH * f64::from(error) + rounding + BOUND_ROUNDING);
        Some(Self { blocks, scale, length: up(copy), error })
    }

    /// At least the similarity to a row, from the sum of the products of the copies. NaN if
    /// the row has no bound.
    #[inline(always)]
    fn bound(&self, row: &Copied, sum: i32) -> f32 {
        sum as f32 * (row.scale * self.scale) + (row.error * self.length + self.error)
    }

    /// Whether the similarity to a row may be `least` or more; true without a bound.
    #[inline(always)]
    fn may_reach(&self, least: f32, row: &Copied, sum: i32) -> bool {
        let bound = self.bound(row, sum);
        bound >= least || bound.is_nan()
    }
}

impl Rows {
    /// No rows yet, of `size` numbers each.
    pub(super) fn new(size: usize) -> Self {
        Self { size, values: vec![], blocks: vec![], copies: vec![] }
    }

    /// Numbers per row.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Adds a row of [`Self::size`] numbers.
    pub(super) fn push(&mut self, values: &[f32]) {
        debug_assert_eq!(values.len(), self.size);
        self.values.extend_from_slice(values);
        let first = self.blocks.len();
        self.blocks.resize(first + self.size.div_ceil(Block::LEN), Block::ZERO);
        self.copies.push(copied(values, &mut self.blocks[first..]));
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.copies.len()
    }

    /// The row with that number.
    #[inline]
    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.size..(row + 1) * self.size]
    }

    /// Cosine similarity of the row with that number to a probe of the same size, -1..=1.
    #[inline]
    pub(super) fn similarity(&self, row: usize, probe: &[f32]) -> f32 {
        dot(self.row(row), probe).clamp(-1.0, 1.0)
    }

    /// Calls `seen` with the number and the similarity to the probe, -1..=1, of each row
    /// in order. It returns the similarity to beat; rows below it may be left out.
    pub(super) fn search(&self, probe: &[f32], seen: impl FnMut(usize, f32) -> f32) {
        self.search_from(0, f32::NEG_INFINITY, probe, seen);
    }

    /// Calls `seen` with the number and the similarity to the probe of each row from `first`
    /// on that is at least as similar to it as `least`.
    pub(super) fn reaching(
        &self,
        first: usize,
        probe: &[f32],
        least: f32,
        mut seen: impl FnMut(usize, f32),
    ) {
        self.search_from(first, least, probe, |row, similarity| {
            if similarity >= least {
                seen(row, similarity);
            }
            least
        });
    }

    /// Like [`Self::search`], from the row `first` on, with the similarity to beat there.
    fn search_from(
        &self,
        first: usize,
        least: f32,
        probe: &[f32],
        mut seen: impl FnMut(usize, f32) -> f32,
    ) {
        let few = self.len().saturating_sub(first) < FEW;
        match if few { None } else { Coarse::new(probe) } {
            Some(coarse) => self.search_coarsely(&coarse, first, least, probe, seen),
            None => {
                for row in first..self.len() {
                    seen(row, self.similarity(row, probe));
                }
            }
        }
    }

    fn search_coarsely(
        &self,
        coarse: &Coarse,
        first: usize,
        mut least: f32,
        probe: &[f32],
        mut seen: impl FnMut(usize, f32) -> f32,
    ) {
        let kernel = Kernel::best();
        let per_row = self.size.div_ceil(Block::LEN);
        let copy = &coarse.blocks[..per_row];
        let mut sums = [0; TILE];
        let blocks = self.blocks[first * per_row..].chunks(TILE * per_row);
        let tiles = blocks.zip(self.copies[first..].chunks(TILE));
        for (tile, (blocks, copies)) in tiles.enumerate() {
            let sums = &mut sums[..copies.len()];
            inner_products(kernel, blocks, copy, sums);
            // Vectorized; in most tiles no row can matter.
            let mut left = false;
            for (row, sum) in copies.iter().zip(&*sums) {
                left |= coarse.may_reach(least, row, *sum);
            }
            if !left {
                continue;
            }
            for (at, (row, sum)) in copies.iter().zip(&*sums).enumerate() {
                if coarse.may_reach(least, row, *sum) {
                    let row = first + tile * TILE + at;
                    least = seen(row, self.similarity(row, probe));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows_of(size: usize, vectors: &[Vec<f32>]) -> Rows {
        let mut rows = Rows::new(size);
        vectors.iter().for_each(|vector| rows.push(vector));
        rows
    }

    /// Numbers of very different sizes, so that some vanish beside others.
    fn number() -> impl Strategy<Value = f32> {
        prop_oneof![
            4 => -1f32..1.0,
            1 => (-1f32..1.0, -60i32..20).prop_map(|(value, power)| value * 2f32.powi(power)),
            1 => Just(0.0),
        ]
    }

    /// A vector of length one, or zero.
    fn unit(values: &[f32]) -> Vec<f32> {
        crate::vision::embed::Embedding::normalized(values).values().to_vec()
    }

    /// A vector with each number between two steps of its copy.
    fn between_steps(values: &[f32], size: usize) -> Vec<f32> {
        let step = 1.0 / 127.0;
        let whole = |value: &f32| ((value * 20.0).round() + 0.5) * step;
        let mut values: Vec<f32> = values.iter().map(whole).collect();
        values[0] = 1.0;
        values.resize(size, 0.0);
        unit(&values)
    }

    fn sums(rows: &Rows, coarse: &Coarse) -> Vec<i32> {
        let mut sums = vec![0; rows.len()];
        let copy = &coarse.blocks[..rows.size().div_ceil(Block::LEN)];
        inner_products(Kernel::best(), &rows.blocks, copy, &mut sums);
        sums
    }

    proptest! {
        #[test]
        fn no_similarity_is_above_its_bound(
            vectors in prop::collection::vec(prop::collection::vec(number(), 150), 2..8),
            size in 1usize..150, between: bool, opposite: bool,
        ) {
            let mut vectors: Vec<Vec<f32>> = vectors
                .iter()
                .map(|v| if between { between_steps(&v[..size], size) } else { unit(&v[..size]) })
                .collect();
            // The probe itself: its errors and those of the row point the same way.
            let probe = vectors[0].clone();
            if opposite {
                vectors[0].iter_mut().for_each(|value| *value = -*value);
            }
            let rows = rows_of(size, &vectors);
            let coarse = Coarse::new(&probe).expect("a unit vector");
            for (row, sum) in sums(&rows, &coarse).into_iter().enumerate() {
                let bound = coarse.bound(&rows.copies[row], sum);
                let similarity = dot(&vectors[row], &probe);
                prop_assert!(bound >= similarity, "{bound} {similarity}");
                // Twice the errors of row and probe, each at most half a step per number.
                let steps = (size as f32).sqrt() / 254.0;
                prop_assert!(bound <= similarity + 5.0 * steps + 1e-3, "{bound} {similarity}");
            }
        }

        /// Vectors that no embedding has: of any length, infinite, not a number.
        #[test]
        fn a_vector_of_another_length_is_never_left_out(
            vectors in prop::collection::vec(prop::collection::vec(any::<f32>(), 20), 1..8),
            probe in prop::collection::vec(number(), 20),
        ) {
            let (rows, probe) = (rows_of(20, &vectors), unit(&probe));
            let coarse = Coarse::new(&probe).expect("a unit vector");
            for (row, sum) in sums(&rows, &coarse).into_iter().enumerate() {
                let similarity = dot(&vectors[row], &probe);
                let least = if similarity.is_nan() { 1.0 } else { similarity.min(1.0) };
                let reaches = coarse.may_reach(least, &rows.copies[row], sum);
                prop_assert!(reaches, "{similarity}");
            }
        }
    }

    #[test]
    fn probes_without_a_bound_are_compared_exactly() {
        for probe in [vec![2.0; 4], vec![f32::NAN; 4], vec![f32::INFINITY; 4], vec![0.0; 2000]] {
            assert!(Coarse::new(&probe).is_none());
        }
        assert!(Coarse::new(&[0.0; 4]).is_some() && Coarse::new(&unit(&[1.0; 1024])).is_some());
        let rows = rows_of(2000, &vec![unit(&[1.0; 2000]); FEW]);
        let mut seen = vec![];
        rows.search(&unit(&[1.0; 2000]), |row, similarity| {
            seen.push((row, similarity));
            1.0
        });
        assert_eq!(seen.len(), FEW);
        assert!(seen.iter().all(|(_, similarity)| (similarity - 1.0).abs() < 1e-4));
    }

    #[test]
    fn most_rows_are_left_out() {
        let mut state = 1u32;
        let mut noise = || {
            let next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 24) as f32 - 0.5
            };
            unit(&std::iter::repeat_with(next).take(256).collect::<Vec<f32>>())
        };
        let rows = rows_of(256, &(0..2000).map(|_| noise()).collect::<Vec<_>>());
        let (probe, mut seen, mut best) = (noise(), 0, -1.0f32);
        rows.search(&probe, |_, similarity| {
            seen += 1;
            best = best.max(similarity);
            best
        });
        assert!(seen < 100, "{seen} of 2000 rows compared exactly");
        let exact = (0..2000).map(|row| rows.similarity(row, &probe)).fold(-1.0, f32::max);
        assert_eq!(best, exact);
    }
}
