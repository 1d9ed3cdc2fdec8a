//! Reproducible random numbers. Torch has one generator for the whole process, so any other
//! user of it would change the numbers drawn here.

use tch::Tensor;

/// Pseudorandom number generator SplitMix64 (Steele, Lea and Flood, "Fast splittable
/// pseudorandom number generators", 2014).
pub struct Chance(u64);

impl Chance {
    /// A generator whose numbers depend only on the seed.
    pub fn new(seed: i64) -> Self {
        Self(seed.cast_unsigned())
    }

    /// An independent generator per path of numbers, such as epoch and sample. What it
    /// draws does not depend on draws of other generators or on their order.
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

    /// A uniform integer in `0..count`; 0 if `count` is 0.
    pub fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.next()) * count as u128) >> 64) as usize
    }

    /// A uniform number in `0.0..1.0`.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A uniform number in `from..to`.
    pub fn between(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * self.share()
    }

    /// True with this probability: never for 0, always for 1.
    pub fn happens(&mut self, probability: f64) -> bool {
        self.share() < probability
    }

    /// `number` uniform integers in `0..count`, with repetition, as an index tensor of
    /// shape `number`.
    pub fn some(&mut self, number: usize, count: usize) -> Tensor {
        let chosen: Vec<i64> = (0..number).map(|_| self.below(count) as i64).collect();
        Tensor::from_slice(&chosen)
    }

    /// A random permutation of `0..count` (Fisher-Yates).
    pub fn order(&mut self, count: usize) -> Vec<i64> {
        let mut order: Vec<i64> = (0..count as i64).collect();
        for at in (1..count).rev() {
            order.swap(at, self.below(at + 1));
        }
        order
    }
}

/// Normally distributed numbers with mean 0 and standard deviation 1 (Box and Muller, "A
/// note on the generation of random normal deviates", 1958).
pub fn normal(chance: &mut Chance, count: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let radius = (-2.0 * (1.0 - chance.share()).ln()).sqrt();
        let (sine, cosine) = (std::f64::consts::TAU * chance.share()).sin_cos();
        values.extend([(radius * cosine) as f32, (radius * sine) as f32]);
    }
    values.truncate(count);
    values
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

    #[test]
    fn normal_numbers_have_their_mean_and_deviation() {
        let values = normal(&mut Chance::new(3), 20_001);
        assert_eq!(values.len(), 20_001);
        let mean = values.iter().sum::<f32>() / 20_001.0;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 20_001.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
