//! Chance that repeats itself: torch's generator is one for the whole process, so
//! that whoever else draws from it would change what is drawn here.

use tch::Tensor;

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", 2014).
pub struct Chance(u64);

impl Chance {
    /// Everything drawn follows from the seed.
    pub fn new(seed: i64) -> Self {
        Self(seed.cast_unsigned())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0..count`; 0 for a count of 0.
    pub fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.next()) * count as u128) >> 64) as usize
    }

    /// So many numbers in `0..count`, as an index.
    pub fn some(&mut self, number: usize, count: usize) -> Tensor {
        let chosen: Vec<i64> = (0..number).map(|_| self.below(count) as i64).collect();
        Tensor::from_slice(&chosen)
    }

    /// The numbers `0..count` in any order.
    pub fn order(&mut self, count: usize) -> Vec<i64> {
        let mut order: Vec<i64> = (0..count as i64).collect();
        for at in (1..count).rev() {
            order.swap(at, self.below(at + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_holds_every_number_once_and_follows_from_the_seed() {
        let mut order = Chance::new(-5).order(1000);
        assert_eq!(order, Chance::new(-5).order(1000));
        assert_ne!(order, Chance::new(5).order(1000));
        order.sort_unstable();
        assert!(order.into_iter().eq(0..1000));
        assert_eq!(Chance::new(1).below(0), 0);
    }
}
