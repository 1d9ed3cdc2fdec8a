//! Comparison of all pairs of faces of a set, and bootstrap intervals over people.

use crate::chance::Chance;
use crate::measure::metrics::Scores;
use facelatch::vision::embed::Embedding;

/// Largest number of faces in a set: all pairs are kept in memory, 12 bytes per pair.
pub const MAX_FACES: usize = 20_000;
/// Number of bootstrap resamples of the people; the tenth lowest and the tenth highest
/// result bound 95 %.
const DRAWS: usize = 400;
const BEYOND: usize = DRAWS / 40;

/// Similarity of two faces.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compared {
    /// Cosine similarity, -1..=1.
    pub similarity: f32,
    /// Index of the first face in the set.
    pub first: u32,
    /// Index of the second face, greater than `first`.
    pub second: u32,
}

/// All pairs of a set, by descending similarity.
#[derive(Clone, Debug, Default)]
pub struct Comparisons {
    /// Pairs of the same person.
    pub genuine: Vec<Compared>,
    /// Pairs of two people.
    pub impostor: Vec<Compared>,
    /// Indices of the faces of genuine pairs that lack an embedding. They count as rejected
    /// at any threshold.
    pub lost: Vec<[u32; 2]>,
    /// Person of each face.
    pub people: Vec<usize>,
    /// Whether each face has an embedding.
    pub found: Vec<bool>,
}

impl Comparisons {
    /// Compares all pairs of faces; each face comes with its person.
    pub fn of(faces: &[(usize, Option<&Embedding>)]) -> Self {
        let mut all = Self {
            people: faces.iter().map(|(person, _)| *person).collect(),
            found: faces.iter().map(|(_, embedding)| embedding.is_some()).collect(),
            ..Self::default()
        };
        for (first, (person, embedding)) in faces.iter().enumerate() {
            for (second, (other, other_embedding)) in faces.iter().enumerate().skip(first + 1) {
                let places = [first as u32, second as u32];
                match (person == other, embedding.zip(*other_embedding)) {
                    (genuine, Some((a, b))) => {
                        let [first, second] = places;
                        let pair = Compared { similarity: a.similarity(b), first, second };
                        (if genuine { &mut all.genuine } else { &mut all.impostor }).push(pair);
                    }
                    (true, None) => all.lost.push(places),
                    (false, None) => {}
                }
            }
        }
        // Pairs of the same similarity are ordered by index, so that the order is the same
        // on every machine.
        let order = |a: &Compared, b: &Compared| {
            b.similarity
                .total_cmp(&a.similarity)
                .then((a.first, a.second).cmp(&(b.first, b.second)))
        };
        all.genuine.sort_unstable_by(order);
        all.impostor.sort_unstable_by(order);
        all
    }

    /// The similarities without the indices.
    pub fn scores(&self) -> Scores {
        self.scores_of(|_, _| true)
    }

    /// The similarities of the pairs for whose two face indices `wanted` is true.
    pub fn scores_of(&self, wanted: impl Fn(usize, usize) -> bool) -> Scores {
        let of = |pairs: &[Compared]| {
            let wanted = pairs.iter().filter(|p| wanted(p.first as usize, p.second as usize));
            wanted.map(|pair| pair.similarity).collect()
        };
        let lost = self.lost.iter().filter(|[a, b]| wanted(*a as usize, *b as usize)).count();
        // They are sorted already, so the sort in `new` takes one pass.
        Scores::new(of(&self.genuine), of(&self.impostor), lost)
    }

    /// Number of people.
    fn count(&self) -> usize {
        self.people.iter().max().map_or(0, |last| last + 1)
    }

    /// 95 % intervals of the true accept rate at the false accept rates `rates`, which must
    /// be in descending order; `None` if a resample could not be measured.
    ///
    /// People are resampled with all their photos, and threshold and true accept rate are
    /// computed for each resample (the subsets bootstrap of Bolle, Ratha and Pankanti,
    /// "Error analysis of pattern recognition systems", 2004). Pairs of one person are not
    /// independent, so an interval over pairs would be too narrow.
    pub fn intervals(&self, rates: &[f64], seed: i64) -> Vec<Option<[f64; 2]>> {
        let mut photos = vec![0.0; self.count()];
        for (person, found) in self.people.iter().zip(&self.found) {
            photos[*person] += f64::from(u8::from(*found));
        }
        let person = |place: u32| self.people[place as usize];
        let mut drawn = vec![Vec::with_capacity(DRAWS); rates.len()];
        for times in draws(photos.len(), seed) {
            let weights = || times.iter().zip(&photos).map(|(times, photos)| times * photos);
            let squares: f64 = weights().map(|weight| weight * weight).sum();
            let impostors = (weights().sum::<f64>().powi(2) - squares) / 2.0;
            // Each genuine pair counts as often as its person was drawn.
            let above: Vec<f64> = self
                .genuine
                .iter()
                .scan(0.0, |sum, pair| {
                    *sum += times[person(pair.first)];
                    Some(*sum)
                })
                .collect();
            let lost: f64 = self.lost.iter().map(|[place, _]| times[person(*place)]).sum();
            let genuine = above.last().copied().unwrap_or(0.0) + lost;
            if impostors <= 0.0 || genuine <= 0.0 {
                continue;
            }
            // Go through the rates in ascending order and through the impostor pairs from
            // the most similar one.
            let (mut passed, mut next) = (0.0, 0);
            for (rate, drawn) in rates.iter().zip(&mut drawn).rev() {
                while let Some(pair) = self.impostor.get(next) {
                    let weight = times[person(pair.first)] * times[person(pair.second)];
                    if passed + weight > rate * impostors {
                        break;
                    }
                    passed += weight;
                    next += 1;
                }
                let first = self.impostor.get(next).map(|pair| pair.similarity.next_up());
                let threshold = first.unwrap_or(-1.0);
                let count = self.genuine.partition_point(|pair| pair.similarity >= threshold);
                drawn.push(count.checked_sub(1).map_or(0.0, |last| above[last]) / genuine);
            }
        }
        drawn.into_iter().map(interval).collect()
    }
}

/// Bootstrap resamples: per resample, the number of times that each of `people` people was
/// drawn.
pub fn draws(people: usize, seed: i64) -> impl Iterator<Item = Vec<f64>> {
    let mut chance = Chance::new(seed);
    (0..DRAWS).map(move |_| {
        let mut times = vec![0.0; people];
        for _ in 0..people {
            times[chance.below(people)] += 1.0;
        }
        times
    })
}

/// 95 % interval of the results of all resamples; `None` if some could not be measured.
pub fn interval(mut drawn: Vec<f64>) -> Option<[f64; 2]> {
    drawn.sort_by(f64::total_cmp);
    (drawn.len() == DRAWS).then(|| [drawn[BEYOND - 1], drawn[DRAWS - BEYOND]])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Embeddings of people scattered around one random direction per person; a larger
    /// `width` makes recognition harder.
    pub(crate) fn crowd(people: usize, photos: usize, width: f64) -> Vec<(usize, Embedding)> {
        let mut chance = Chance::new(9);
        let mut number = || chance.below(2001) as f64 / 1000.0 - 1.0;
        let mut faces = Vec::new();
        for person in 0..people {
            let centre: Vec<f64> = (0..16).map(|_| number()).collect();
            for _ in 0..photos {
                let face: Vec<f32> =
                    centre.iter().map(|value| (value + width * number()) as f32).collect();
                faces.push((person, Embedding::normalized(&face)));
            }
        }
        faces
    }

    pub(crate) fn compared(faces: &[(usize, Embedding)]) -> Comparisons {
        let faces: Vec<_> = faces.iter().map(|(person, face)| (*person, Some(face))).collect();
        Comparisons::of(&faces)
    }

    #[test]
    fn every_two_faces_are_compared_once() {
        let faces = crowd(5, 3, 0.5);
        let mut given: Vec<(usize, Option<&Embedding>)> =
            faces.iter().map(|(person, face)| (*person, Some(face))).collect();
        given[4].1 = None;
        let all = Comparisons::of(&given);
        // Five people with three pairs each; of the second two are lost.
        assert_eq!((all.genuine.len(), all.lost.len()), (13, 2));
        assert_eq!(all.impostor.len(), 14 * 13 / 2 - 13);
        let plain = Scores::of_all_pairs(&given);
        let scores = all.scores();
        assert_eq!(scores.genuine, plain.genuine);
        assert_eq!(scores.impostor, plain.impostor);
        assert_eq!(scores.genuine_lost, plain.genuine_lost);
    }

    #[test]
    fn an_interval_holds_the_figure_and_is_wider_with_fewer_people() {
        let width = |people: usize| {
            let all = compared(&crowd(people, 3, 1.2));
            let rates = [1e-1, 1e-2];
            let scores = all.scores();
            let mut widths = Vec::new();
            for (rate, interval) in rates.iter().zip(all.intervals(&rates, 1)) {
                let [low, high] = interval.expect("an interval");
                let rate = scores.true_accept_rate(*rate);
                assert!(low <= rate && rate <= high, "{low} {rate} {high}");
                widths.push(high - low);
            }
            widths[1]
        };
        let (few, many) = (width(20), width(120));
        assert!(few > 1.5 * many, "{few} {many}");
    }

    #[test]
    fn draws_follow_from_the_seed() {
        assert!(draws(7, 3).eq(draws(7, 3)));
        assert!(!draws(7, 3).eq(draws(7, 4)));
        assert!(draws(7, 3).all(|times| times.iter().sum::<f64>() == 7.0));
        assert_eq!(interval(vec![0.5]), None);
    }

    proptest! {
        // The true accept rate equals the best that any allowed threshold gives, found by
        // counting pair by pair.
        #[test]
        fn rates_are_those_of_counting(
            genuine in prop::collection::vec(-10i32..=10, 1..30),
            impostor in prop::collection::vec(-10i32..=10, 1..60),
            far in 0.0f64..1.0,
        ) {
            let tenths = |values: &[i32]| -> Vec<f32> {
                values.iter().map(|value| *value as f32 / 10.0).collect()
            };
            let scores = Scores::new(tenths(&genuine), tenths(&impostor), 0);
            // The best of all thresholds that accept no more impostor pairs than allowed.
            let best = (-11..=11)
                .map(|step| step as f32 / 10.0 + 0.05)
                .filter(|at| {
                    let passed = scores.impostor.iter().filter(|s| *s >= at).count();
                    passed as f64 <= far * impostor.len() as f64
                })
                .map(|at| scores.genuine.iter().filter(|s| **s >= at).count())
                .max()
                .unwrap_or(0);
            let expected = best as f64 / genuine.len() as f64;
            prop_assert!((scores.true_accept_rate(far) - expected).abs() < 1e-12);
        }

        #[test]
        fn true_accepts_rise_with_false_accepts(seed in 0usize..50, a in 0.0f64..1.0, b in 0.0f64..1.0) {
            let scores = compared(&crowd(4 + seed % 5, 3, 1.0)).scores();
            let (low, high) = if a < b { (a, b) } else { (b, a) };
            prop_assert!(scores.true_accept_rate(low) <= scores.true_accept_rate(high));
        }
    }
}
