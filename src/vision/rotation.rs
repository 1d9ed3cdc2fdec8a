//! A keyed rotation of embeddings. It keeps every cosine and mixes all components, so a
//! rotated template says nothing to a recognizer without the key, and a new key makes every
//! template that leaked before useless.
//!
//! Three rounds of random signs, a random order and Walsh-Hadamard transforms behave like a
//! random rotation (Ailon and Chazelle, "Approximate nearest neighbors and the fast
//! Johnson-Lindenstrauss transform", 2006; Andoni et al., "Practical and optimal LSH for
//! angular distance", 2015, use three rounds). It takes n log n additions and no table of
//! n x n numbers. Somebody who knows n embeddings and their rotated forms can compute it, so
//! it makes templates revocable; keeping them secret is what sealing is for.

use crate::models::ModelId;
use crate::vision::embed::{Embedding, Template};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

const ROUNDS: usize = 3;

/// A rotation of embeddings of one size.
#[derive(Clone, PartialEq, Zeroize, ZeroizeOnDrop)]
pub struct Rotation {
    number: u32,
    rounds: Vec<Round>,
}

#[derive(Clone, PartialEq, Zeroize, ZeroizeOnDrop)]
struct Round {
    /// 1 or -1 per component.
    signs: Vec<f64>,
    /// Which component comes to each place.
    order: Vec<u32>,
}

impl fmt::Debug for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rotation({:08x})", self.number)
    }
}

/// Walsh-Hadamard transform, scaled to keep lengths; `values` has a power of two of them. It
/// is its own inverse.
fn transform(values: &mut [f64]) {
    let mut half = 1;
    while half < values.len() {
        for pair in values.chunks_exact_mut(2 * half) {
            let (a, b) = pair.split_at_mut(half);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    let scale = 1.0 / (values.len() as f64).sqrt();
    values.iter_mut().for_each(|value| *value *= scale);
}

/// Components that one transform covers: the largest power of two.
fn covered(size: usize) -> usize {
    if size == 0 { 0 } else { 1 << size.ilog2() }
}

impl Rotation {
    /// The rotation of embeddings with `size` components that follows from random numbers.
    /// `number` names it; it is not 0.
    pub fn new(number: u32, size: usize, mut random: impl FnMut() -> u32) -> Self {
        let rounds = (0..ROUNDS).map(|_| {
            let signs = (0..size).map(|_| if random() & 1 == 0 { 1.0 } else { -1.0 }).collect();
            let mut order: Vec<u32> = (0..size as u32).collect();
            // Fisher-Yates; multiplying spreads 32 random bits over the places left.
            for last in (1..size).rev() {
                let other = (u64::from(random()) * (last as u64 + 1)) >> 32;
                order.swap(last, other as usize);
            }
            Round { signs, order }
        });
        Self { number, rounds: rounds.collect() }
    }

    /// Number that names the rotation.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Number of components.
    pub fn size(&self) -> usize {
        self.rounds.first().map_or(0, |round| round.signs.len())
    }

    /// Rotates the components of an embedding. Those of another size stay as they are.
    pub fn rotate(&self, values: &[f32]) -> Vec<f32> {
        if values.len() != self.size() {
            return values.to_vec();
        }
        let mut now: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
        let mut next = vec![0.0; now.len()];
        let covered = covered(now.len());
        for round in &self.rounds {
            for ((to, from), sign) in next.iter_mut().zip(&round.order).zip(&round.signs) {
                *to = now[*from as usize] * sign;
            }
            std::mem::swap(&mut now, &mut next);
            transform(&mut now[..covered]);
            // Sizes between two powers of two: the rest takes part from the other end.
            if covered < now.len() {
                let first = now.len() - covered;
                transform(&mut now[first..]);
            }
        }
        now.into_iter().map(|value| value as f32).collect()
    }

    /// Undoes [`Self::rotate`].
    pub fn back(&self, values: &[f32]) -> Vec<f32> {
        if values.len() != self.size() {
            return values.to_vec();
        }
        let mut now: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
        let mut next = vec![0.0; now.len()];
        let covered = covered(now.len());
        for round in self.rounds.iter().rev() {
            if covered < now.len() {
                let first = now.len() - covered;
                transform(&mut now[first..]);
            }
            transform(&mut now[..covered]);
            for ((from, to), sign) in now.iter().zip(&round.order).zip(&round.signs) {
                next[*to as usize] = from * sign;
            }
            std::mem::swap(&mut now, &mut next);
        }
        now.into_iter().map(|value| value as f32).collect()
    }

    /// The identity of templates of `model` that this rotation has rotated: they compare
    /// only with each other.
    pub fn model(&self, model: &ModelId) -> ModelId {
        ModelId::new(&format!("{} rotated by {:08x}", model.as_str(), self.number))
    }

    /// A template of `model`, rotated. `None` if another model made it.
    pub fn template(&self, model: &ModelId, template: &Template) -> Option<Template> {
        let values = self.rotate(template.of(model).ok()?.values());
        Some(Template::new(self.model(model), Embedding::normalized(&values)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn random(seed: u64) -> impl FnMut() -> u32 {
        let mut state = seed | 1;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u32
        }
    }

    fn unit(values: &[f32]) -> Vec<f32> {
        Embedding::normalized(values).values().to_vec()
    }

    fn cosine(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }

    proptest! {
        /// Each component of a rotated vector is rounded once, by at most 2^-24 of its size,
        /// so the inner product of two unit vectors changes by at most 2^-23.
        #[test]
        fn every_cosine_stays(
            size in 1usize..300, seed: u64,
            a in prop::collection::vec(-1f32..1.0, 300), b in prop::collection::vec(-1f32..1.0, 300),
        ) {
            let rotation = Rotation::new(7, size, random(seed));
            let (a, b) = (unit(&a[..size]), unit(&b[..size]));
            let (ra, rb) = (rotation.rotate(&a), rotation.rotate(&b));
            let bound = 1.0 / f64::from(1 << 23) * (1.0 + 1e-3) + 1e-12;
            prop_assert!((cosine(&ra, &rb) - cosine(&a, &b)).abs() <= bound);
            for (back, value) in rotation.back(&ra).iter().zip(&a) {
                prop_assert!((back - value).abs() <= 2e-7, "{back} {value}");
            }
        }
    }

    #[test]
    fn renewing_a_hundred_times_costs_no_accuracy() {
        let mut next = random(3);
        let vector = unit(&(0..256).map(|_| next() as f32 - 2.1e9).collect::<Vec<_>>());
        let mut now = vector.clone();
        for seed in 0..100 {
            let rotation = Rotation::new(1, 256, random(seed));
            now = rotation.back(&rotation.rotate(&now));
        }
        assert!((cosine(&now, &vector) - 1.0).abs() < 1e-6);
    }

    /// A component alone comes out spread over all, whichever it was, and two rotations have
    /// nothing in common.
    #[test]
    fn components_are_mixed_and_rotations_differ() {
        for size in [128, 256, 512, 200] {
            let [one, other] = [1, 2].map(|seed| Rotation::new(1, size, random(seed)));
            for at in [0, 1, size / 2, size - 1] {
                let mut vector = vec![0.0; size];
                vector[at] = 1.0;
                let (a, b) = (one.rotate(&vector), other.rotate(&vector));
                let largest = a.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
                assert!(largest < 8.0 / (size as f32).sqrt(), "{size} {at}: {largest}");
                let used = a.iter().filter(|value| value.abs() > 1e-4).count();
                assert!(used * 2 > size, "{size} {at}: {used}");
                assert!(cosine(&a, &vector).abs() < 0.5, "{size} {at}");
                assert!(cosine(&a, &b).abs() < 0.5, "{size} {at}");
            }
        }
    }

    #[test]
    fn rotated_templates_compare_only_with_their_own_kind() {
        let model = ModelId::new("2026.11+abcd");
        let of = |x: f32| Template::new(model.clone(), Embedding::normalized(&[x, 1.0, 0.5, -x]));
        let [one, other] = [1, 2].map(|n| Rotation::new(n, 4, random(u64::from(n))));
        let (a, b) = (of(0.3), of(0.7));
        let plain = a.similarity(&b).expect("one model");
        let [ra, rb] = [&a, &b].map(|t| one.template(&model, t).expect("its model"));
        assert!((ra.similarity(&rb).expect("one rotation") - plain).abs() < 1e-6);
        assert!(ra.similarity(&other.template(&model, &b).expect("its model")).is_err());
        assert!(ra.similarity(&b).is_err());
        assert!(one.template(&ModelId::new("other"), &a).is_none());
    }
}
