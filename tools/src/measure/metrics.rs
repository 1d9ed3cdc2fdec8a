//! Metrics of verification: accuracy over folds, equal error rate, true accept rate at a
//! false accept rate, and the tail of the impostor similarities.

use facelatch::models::threshold::{Tail, ThresholdTable};
use facelatch::vision::embed::Embedding;
use serde::Serialize;

/// A pair of photos with its similarity. A pair with a missing face counts as an error at
/// any threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// Cosine similarity, -1..=1; `None` if one of the photos shows no face.
    pub similarity: Option<f32>,
    /// Whether both photos show the same person.
    pub genuine: bool,
    /// Fold of the pair, from 0.
    pub fold: usize,
}

/// Accuracy over folds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accuracy {
    /// Share of pairs classified correctly, 0..=1, mean over folds.
    pub mean: f64,
    /// Standard deviation over folds; 0 for one fold.
    pub deviation: f64,
}

/// Accuracy by the LFW protocol: each fold is classified at the threshold that is best on
/// all other folds. A single fold is classified at its own best threshold.
pub fn accuracy(pairs: &[Scored], folds: usize) -> Accuracy {
    let shares: Vec<f64> = (0..folds)
        .filter(|fold| pairs.iter().any(|pair| pair.fold == *fold))
        .map(|fold| {
            let rest: Vec<Scored> =
                pairs.iter().filter(|pair| folds == 1 || pair.fold != fold).copied().collect();
            let threshold = best_threshold(&rest);
            let own: Vec<&Scored> = pairs.iter().filter(|pair| pair.fold == fold).collect();
            let right = own.iter().filter(|pair| told_right(pair, threshold)).count();
            right as f64 / own.len().max(1) as f64
        })
        .collect();
    let folds = shares.len();
    let mean = shares.iter().sum::<f64>() / folds.max(1) as f64;
    let spread: f64 = shares.iter().map(|share| (share - mean).powi(2)).sum();
    let deviation = if folds > 1 { (spread / (folds - 1) as f64).sqrt() } else { 0.0 };
    Accuracy { mean, deviation }
}

fn told_right(pair: &Scored, threshold: f32) -> bool {
    pair.similarity.is_some_and(|similarity| (similarity >= threshold) == pair.genuine)
}

/// The threshold that classifies the most pairs correctly: the middle of the best gap.
fn best_threshold(pairs: &[Scored]) -> f32 {
    let mut scored: Vec<(f32, bool)> =
        pairs.iter().filter_map(|pair| Some((pair.similarity?, pair.genuine))).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    // Lower the threshold pair by pair, starting above the highest similarity.
    let mut right = scored.iter().filter(|(_, genuine)| !genuine).count();
    let (mut best, mut threshold) = (right, f32::INFINITY);
    for (at, (similarity, genuine)) in scored.iter().enumerate() {
        if *genuine {
            right += 1
        } else {
            right -= 1
        }
        let next = scored.get(at + 1).map_or(*similarity, |(next, _)| *next);
        if next == *similarity && at + 1 < scored.len() {
            continue;
        }
        if right > best {
            best = right;
            threshold = f32::midpoint(*similarity, next);
        }
    }
    threshold
}

/// Genuine and impostor similarities in descending order.
#[derive(Clone, Debug, Default)]
pub struct Scores {
    /// Similarities of pairs of the same person.
    pub genuine: Vec<f32>,
    /// Similarities of pairs of two people.
    pub impostor: Vec<f32>,
    /// Number of genuine pairs with a missing face; they count as rejected at any
    /// threshold.
    pub genuine_lost: usize,
}

impl Scores {
    /// Sorts the similarities, which may come in any order.
    pub fn new(mut genuine: Vec<f32>, mut impostor: Vec<f32>, genuine_lost: usize) -> Self {
        genuine.sort_by(|a, b| b.total_cmp(a));
        impostor.sort_by(|a, b| b.total_cmp(a));
        Self { genuine, impostor, genuine_lost }
    }

    /// Scores of these pairs. Genuine pairs without a similarity count as lost; impostor
    /// pairs without one are left out.
    pub fn of_pairs(pairs: &[Scored]) -> Self {
        let of = |genuine: bool| {
            pairs
                .iter()
                .filter(|pair| pair.genuine == genuine)
                .filter_map(|pair| pair.similarity)
                .collect()
        };
        let lost = pairs.iter().filter(|pair| pair.genuine && pair.similarity.is_none()).count();
        Self::new(of(true), of(false), lost)
    }

    /// Scores of all pairs of faces; each face comes with its person. Genuine pairs with a
    /// missing face count as lost.
    pub fn of_all_pairs<P: PartialEq>(faces: &[(P, Option<&Embedding>)]) -> Self {
        let (mut genuine, mut impostor, mut lost) = (Vec::new(), Vec::new(), 0);
        for (at, (person, embedding)) in faces.iter().enumerate() {
            for (other, other_embedding) in &faces[at + 1..] {
                match (person == other, embedding.zip(*other_embedding)) {
                    (true, Some((a, b))) => genuine.push(a.similarity(b)),
                    (false, Some((a, b))) => impostor.push(a.similarity(b)),
                    (true, None) => lost += 1,
                    (false, None) => {}
                }
            }
        }
        Self::new(genuine, impostor, lost)
    }

    /// The lowest threshold at which the false accept rate is at most `far`. A pair is
    /// accepted if its similarity is at or above the threshold.
    pub fn threshold_at(&self, far: f64) -> f32 {
        let allowed = (far * self.impostor.len() as f64).floor() as usize;
        // The first impostor pair that is not allowed must be below the threshold.
        self.impostor.get(allowed).map_or(-1.0, |first| first.next_up())
    }

    /// True accept rate, 0..=1, at the threshold for the false accept rate `far`.
    pub fn true_accept_rate(&self, far: f64) -> f64 {
        self.true_accept_rate_above(self.threshold_at(far))
    }

    /// True accept rate, 0..=1, at a similarity threshold.
    pub fn true_accept_rate_above(&self, similarity: f32) -> f64 {
        let accepted = count_at_least(&self.genuine, similarity);
        accepted as f64 / (self.genuine.len() + self.genuine_lost).max(1) as f64
    }

    /// False accept rate, 0..=1, at a similarity threshold.
    pub fn false_accept_rate(&self, similarity: f32) -> f64 {
        count_at_least(&self.impostor, similarity) as f64 / self.impostor.len().max(1) as f64
    }

    /// Equal error rate, 0..=1: the rate at which false accepts and false rejects are
    /// equally frequent.
    pub fn equal_error_rate(&self) -> f64 {
        let total = (self.genuine.len() + self.genuine_lost).max(1) as f64;
        let mut best = (f64::INFINITY, 1.0);
        for similarity in self.genuine.iter().chain(&self.impostor) {
            let far = self.false_accept_rate(*similarity);
            let frr = 1.0 - count_at_least(&self.genuine, *similarity) as f64 / total;
            if (far - frr).abs() < best.0 {
                best = ((far - frr).abs(), f64::midpoint(far, frr));
            }
        }
        best.1
    }

    /// Mean excess over `level` of the impostor similarities above it, which is the scale
    /// of an exponential tail. 0 if none is above.
    pub fn mean_excess(&self, level: f64) -> f64 {
        let count = self.impostor.partition_point(|value| f64::from(*value) > level);
        let sum: f64 = self.impostor[..count].iter().map(|value| f64::from(*value) - level).sum();
        sum / count.max(1) as f64
    }

    /// Fits a generalized Pareto distribution to the impostor similarities above the level
    /// that the share `far` of them exceeds, by probability-weighted moments (Hosking and
    /// Wallis, "Parameter and quantile estimation for the generalized Pareto distribution",
    /// 1987). `None` if fewer than 20 pairs are above or the fit fails.
    pub fn fit_tail(&self, far: f64) -> Option<Tail> {
        let count = (far * self.impostor.len() as f64).floor() as usize;
        if count < 20 {
            return None;
        }
        let level = f64::from(self.impostor[count]);
        // Ascending exceedances.
        let excesses: Vec<f64> =
            self.impostor[..count].iter().rev().map(|s| f64::from(*s) - level).collect();
        let n = count as f64;
        let mean = excesses.iter().sum::<f64>() / n;
        // Mean of x (1 - F(x)), with plotting positions (i - 0.35) / n.
        let weighted = excesses
            .iter()
            .enumerate()
            .map(|(i, x)| x * (1.0 - (i as f64 + 0.65) / n))
            .sum::<f64>()
            / n;
        let shape = 2.0 - mean / (mean - 2.0 * weighted);
        let scale = 2.0 * mean * weighted / (mean - 2.0 * weighted);
        let share = count as f64 / self.impostor.len() as f64;
        let fine = shape.is_finite() && scale.is_finite() && scale > 0.0;
        fine.then_some(Tail { similarity: level, far: share, scale, shape })
    }
}

/// Rates at a threshold of the manifest, measured on other photos.
#[derive(Clone, Debug, Serialize)]
pub struct AtThreshold {
    /// Nominal false accept rate per pair, from the manifest.
    pub far: f64,
    /// Similarity threshold (cosine).
    pub threshold: f32,
    /// Whether the threshold was extrapolated from the tail.
    pub extrapolated: bool,
    /// False accept rate measured on these photos, 0..=1.
    pub measured_far: f64,
    /// True accept rate measured on these photos, 0..=1.
    pub tar: f64,
}

/// Measures each threshold of a manifest on these scores.
pub fn at_thresholds(table: &ThresholdTable, scores: &Scores) -> Vec<AtThreshold> {
    let at = |(far, threshold): &(f64, f32)| AtThreshold {
        far: *far,
        threshold: *threshold,
        extrapolated: table.for_pair(*far).extrapolated,
        measured_far: scores.false_accept_rate(*threshold),
        tar: scores.true_accept_rate_above(*threshold),
    };
    table.points().iter().map(at).collect()
}

/// Number of values at or above a limit; the values are in descending order.
fn count_at_least(descending: &[f32], limit: f32) -> usize {
    descending.partition_point(|value| *value >= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(similarity: f32, genuine: bool, fold: usize) -> Scored {
        Scored { similarity: Some(similarity), genuine, fold }
    }

    #[test]
    fn each_fold_is_told_by_the_threshold_of_the_others() {
        let pairs =
            [pair(0.9, true, 0), pair(0.1, false, 0), pair(0.8, true, 1), pair(0.7, false, 1)];
        // Fold 0 teaches 0.5, which lets 0.7 pass; fold 1 teaches 0.75.
        let accuracy = accuracy(&pairs, 2);
        assert_eq!(accuracy.mean, 0.75);
        assert!((accuracy.deviation - 0.353_553_39).abs() < 1e-6);
    }

    #[test]
    fn a_photo_without_a_face_is_an_error() {
        let mut pairs = vec![pair(0.9, true, 0), pair(0.1, false, 0)];
        assert_eq!(accuracy(&pairs, 1).mean, 1.0);
        pairs.push(Scored { similarity: None, genuine: true, fold: 0 });
        pairs.push(Scored { similarity: None, genuine: false, fold: 0 });
        assert_eq!(accuracy(&pairs, 1).mean, 0.5);
        assert_eq!(Scores::of_pairs(&pairs).true_accept_rate(0.5), 0.5);
    }

    #[test]
    fn the_true_accept_rate_counts_genuine_pairs_above_the_allowed_impostors() {
        let impostor = (0..1000).map(|i| i as f32 / 1000.0).collect();
        let scores = Scores::new(vec![0.9985, 0.5, 0.995], impostor, 0);
        // One impostor of a thousand (0.999) may pass: the threshold is over 0.998.
        assert!((scores.true_accept_rate(1e-3) - 1.0 / 3.0).abs() < 1e-9);
        assert!((scores.true_accept_rate(1e-2) - 2.0 / 3.0).abs() < 1e-9);
        assert_eq!(scores.false_accept_rate(scores.threshold_at(1e-3)), 1e-3);
    }

    #[test]
    fn the_equal_error_rate_of_mirrored_scores_is_their_overlap() {
        let genuine = (0..100).map(|i| 0.4 + i as f32 / 100.0).collect();
        let impostor = (0..100).map(|i| -0.4 + i as f32 / 100.0).collect();
        let rate = Scores::new(genuine, impostor, 0).equal_error_rate();
        assert!((rate - 0.1).abs() < 0.011, "{rate}");
    }

    #[test]
    fn the_tail_of_an_exponential_is_found() {
        // Quantiles of an exponential distribution with mean 0.05.
        let n = 200_000;
        let impostor =
            (0..n).map(|i| (-0.05 * ((i as f64 + 0.5) / n as f64).ln()) as f32).collect();
        let scores = Scores::new(vec![], impostor, 0);
        let tail = scores.fit_tail(1e-2).expect("enough pairs");
        assert!(tail.shape.abs() < 0.02 && (tail.scale - 0.05).abs() < 0.002, "{tail:?}");
        let expected = -0.05 * 1e-6f64.ln();
        assert!((tail.similarity_at(1e-6) - expected).abs() < 0.03);
        assert!((scores.mean_excess(tail.similarity) - 0.05).abs() < 0.002);
        assert!(Scores::default().fit_tail(1e-2).is_none());
        assert_eq!(Scores::default().mean_excess(0.0), 0.0);
    }
}
