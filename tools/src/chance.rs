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

    /// Chance of its own for each place of a tree of numbers, as seed, epoch and
    /// sample are: what is drawn at one never hangs on who drew elsewhere, or when.
    pub fn at(seed: i64, place: &[u64]) -> Self {
        let mut chance = Self::new(seed);
        for number in place {
            chance = Self(chance.next() ^ *number);
        }
        Self(chance.next())
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

    /// A number in 0..1, all equally likely.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number in `from..to`.
    pub fn between(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * self.share()
    }

    /// True with this probability: never at 0, always at 1.
    pub fn happens(&mut self, probability: f64) -> bool {
        self.share() < probability
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

    #[test]
    fn shares_fill_the_range_evenly_and_certainty_is_certain() {
        let mut chance = Chance::new(3);
        let mut counts = [0; 10];
        for _ in 0..10_000 {
            counts[(chance.share() * 10.0) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
        assert!((0..1000).all(|_| chance.happens(1.0) && !chance.happens(0.0)));
        assert!((0..1000).all(|_| (-2.0..5.0).contains(&chance.between(-2.0, 5.0))));
    }

    #[test]
    fn each_place_has_chance_of_its_own() {
        let first = |seed, place: &[u64]| Chance::at(seed, place).next();
        let mut drawn = std::collections::BTreeSet::new();
        for seed in -2..2 {
            for epoch in 0..20 {
                for sample in 0..50 {
                    drawn.insert(first(seed, &[epoch, sample]));
                }
            }
        }
        assert_eq!(drawn.len(), 4 * 20 * 50);
        assert_eq!(first(7, &[1, 2]), first(7, &[1, 2]));
        assert_ne!(first(7, &[1]), first(7, &[1, 0]));
    }
}
