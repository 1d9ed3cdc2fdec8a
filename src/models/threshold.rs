//! Thresholds: from a false accept rate to the similarity that a match needs.
//!
//! Three quantities are distinguished: the rate per attempt (one person at the door,
//! compared with every template), the rate per pair (two faces compared once), and the
//! similarity that impostor pairs of the calibration data exceed at that rate. Below the
//! lowest rate that the data can measure, the similarity is extrapolated along a fitted
//! tail and marked as extrapolated.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `[recognizer.thresholds]` and `[recognizer.calibration]` of the manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct ThresholdTable {
    /// False accept rate per pair and the similarity that reaches it, the highest rate
    /// first.
    points: Vec<(f64, f32)>,
    calibration: Calibration,
}

/// The data from which the thresholds were measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Description of the data set.
    pub data: String,
    /// Number of people.
    pub people: usize,
    /// Number of photos in which a face was found.
    pub photos: usize,
    /// Number of pairs of photos of different people.
    pub impostor_pairs: u64,
    /// Lowest false accept rate per pair that is measured from enough impostor pairs. Below
    /// it thresholds follow the tail.
    pub measured_down_to: f64,
    /// The rates of `[recognizer.thresholds]` that follow the tail.
    pub extrapolated: Vec<String>,
    /// The fitted tail: of several populations, the one that is strictest at the lowest
    /// rate of `[recognizer.thresholds]`.
    pub tail: Tail,
    /// Tails of the other populations. At each rate the strictest tail holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_tails: Vec<Tail>,
    /// The populations that were measured; one population without groups is described
    /// above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub populations: Vec<Population>,
    /// The population or group that decided each threshold, by the rate in
    /// `[recognizer.thresholds]`. Empty for one population without groups.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub decided_by: BTreeMap<String, String>,
}

/// `[[recognizer.calibration.populations]]`: people measured together. Nobody is compared
/// with people of another population.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Population {
    /// Description of the data set.
    pub data: String,
    /// Number of people.
    pub people: usize,
    /// Number of photos in which a face was found.
    pub photos: usize,
    /// Number of pairs of photos of different people.
    pub impostor_pairs: u64,
    /// Lowest false accept rate per pair that is measured from enough impostor pairs.
    pub measured_down_to: f64,
    /// Groups of these people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<MeasuredGroup>,
}

/// `[[recognizer.calibration.populations.groups]]`: a group whose members were compared
/// with each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredGroup {
    /// Name of the group, from the labels.
    pub name: String,
    /// Number of people.
    pub people: usize,
    /// Number of pairs of photos of different people of the group.
    pub impostor_pairs: u64,
    /// Lowest false accept rate per pair for which the group has enough impostor pairs to
    /// decide in any case: five are expected to pass. Below it, the group decides only if
    /// its pairs show an excess. May be above 1.
    pub decides_down_to: f64,
}

impl Calibration {
    /// All tails, that of [`Self::tail`] first.
    pub(super) fn tails(&self) -> impl Iterator<Item = &Tail> {
        std::iter::once(&self.tail).chain(&self.other_tails)
    }
}

/// Generalized Pareto tail of the impostor similarities above a high level (Coles, "An
/// Introduction to Statistical Modeling of Extreme Values", chapter 4).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tail {
    /// Similarity at which the tail begins.
    pub similarity: f64,
    /// Share of impostor pairs at or above it.
    pub far: f64,
    /// Scale of the exceedances, in units of similarity.
    pub scale: f64,
    /// Shape, -1 to 1: 0 is an exponential tail, and below 0 the tail is bounded.
    pub shape: f64,
}

impl Tail {
    /// The similarity that impostor pairs reach at the rate `far`, which must be at most
    /// that of the tail.
    pub fn similarity_at(&self, far: f64) -> f64 {
        let rarer = self.far / far;
        let beyond = if self.shape.abs() < 1e-9 {
            rarer.ln()
        } else {
            (rarer.powf(self.shape) - 1.0) / self.shape
        };
        self.similarity + self.scale * beyond
    }
}

/// A threshold for the similarity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// Cosine similarity at or above which two faces count as one person. May be infinite.
    pub similarity: f32,
    /// Whether it lies beyond the range that the calibration data can measure.
    pub extrapolated: bool,
}

impl ThresholdTable {
    /// A table from points `(false accept rate per pair, similarity)` in any order.
    pub fn new(points: impl IntoIterator<Item = (f64, f32)>, calibration: Calibration) -> Self {
        let mut points: Vec<_> = points.into_iter().collect();
        points.sort_by(|a, b| b.0.total_cmp(&a.0));
        Self { points, calibration }
    }

    /// The table of a manifest.
    ///
    /// # Errors
    /// A message with the key that is invalid.
    pub(crate) fn from_manifest(
        thresholds: &BTreeMap<String, f32>,
        calibration: &Calibration,
    ) -> Result<Self, String> {
        let mut points = Vec::new();
        for (far, similarity) in thresholds {
            let rate = parse_rate(far).ok_or_else(|| {
                format!("thresholds: \"{far}\" is not a rate between 0 and 1, such as \"1e-4\"")
            })?;
            if !(-1.0..=2.0).contains(similarity) {
                return Err(format!("thresholds: \"{far}\" = {similarity} is outside -1 to 2"));
            }
            points.push((rate, *similarity));
        }
        let table = Self::new(points, calibration.clone());
        if table.points.is_empty() {
            return Err("thresholds: the table is empty".to_owned());
        }
        if table.points.windows(2).any(|pair| pair[1].1 < pair[0].1) {
            return Err("thresholds: a lower rate must not have a lower similarity".to_owned());
        }
        let mut rates = calibration.tails().map(|tail| tail.far);
        let open = |rate: f64| rate > 0.0 && rate < 1.0;
        if !(open(calibration.measured_down_to) && rates.all(open)) {
            return Err(
                "calibration: tail.far and measured_down_to must lie between 0 and 1".to_owned()
            );
        }
        for tail in calibration.tails() {
            let finite =
                tail.similarity.is_finite() && tail.shape.is_finite() && tail.scale.is_finite();
            if !finite || tail.scale <= 0.0 || tail.shape.abs() > 1.0 {
                return Err(
                    "calibration.tail: scale must be positive and shape within -1..=1".to_owned()
                );
            }
        }
        Ok(table)
    }

    /// The points `(false accept rate per pair, similarity)`, the highest rate first.
    pub fn points(&self) -> &[(f64, f32)] {
        &self.points
    }

    /// The data from which the thresholds were measured.
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// The threshold for a false accept rate per pair.
    ///
    /// Between two measured rates the similarity is interpolated over the logarithm of the
    /// rate. Above the highest rate of the table the similarity of that rate is used, which
    /// is stricter than requested. An invalid rate gives an infinite similarity.
    pub fn for_pair(&self, far: f64) -> Threshold {
        let measured = |far: f64| -> f32 {
            let above = self.points.iter().rev().find(|(rate, _)| *rate >= far);
            let below = self.points.iter().find(|(rate, _)| *rate <= far);
            match (above, below) {
                (Some(&(high, s1)), Some(&(low, s2))) if high > low => {
                    let share = ((high / far).ln() / (high / low).ln()) as f32;
                    s1 + (s2 - s1) * share
                }
                (Some(&(_, similarity)), _) | (None, Some(&(_, similarity))) => similarity,
                (None, None) => f32::INFINITY,
            }
        };
        let lowest = self.lowest_measured();
        // Written so that NaN is extrapolated, to infinity.
        if far >= lowest {
            return Threshold { similarity: measured(far), extrapolated: false };
        }
        let floor = measured(lowest);
        let far = far.max(f64::MIN_POSITIVE);
        let similarity = self.calibration.tails().fold(floor, |strictest, tail| {
            let similarity = tail.similarity_at(far) as f32;
            // Written so that NaN admits nobody.
            if similarity.is_nan() { f32::INFINITY } else { similarity.max(strictest) }
        });
        Threshold { similarity, extrapolated: true }
    }

    /// The false accept rate per pair whose threshold is this similarity, from 1e-15 up to
    /// the highest rate of the table, which also stands for all lower similarities.
    pub fn rate_at(&self, similarity: f32) -> f64 {
        let highest = self.points.first().map_or(1.0, |(rate, _)| *rate);
        let (mut low, mut high) = (LOWEST_RATE.ln(), highest.ln());
        // A higher rate never has a higher similarity.
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            match self.for_pair(middle.exp()).similarity > similarity {
                true => low = middle,
                false => high = middle,
            }
        }
        high.exp()
    }

    /// The lowest rate of the table that was measured; 1 if none was. Between it and the
    /// next lower point the similarity depends on the tail.
    pub(super) fn lowest_measured(&self) -> f64 {
        let down_to = self.calibration.measured_down_to;
        let lowest = self.points.iter().rev().map(|(rate, _)| *rate).find(|rate| *rate >= down_to);
        lowest.unwrap_or(1.0)
    }

    /// The threshold for a false accept rate per attempt, in which a probe is compared with
    /// `templates` templates.
    pub fn for_attempt(&self, far: f64, templates: usize) -> Threshold {
        self.for_pair(pair_rate(far, templates))
    }
}

/// Lowest rate that [`ThresholdTable::rate_at`] looks for.
const LOWEST_RATE: f64 = 1e-15;

/// The false accept rate per attempt over `templates` comparisons at this rate per pair: the
/// inverse of [`pair_rate`].
pub fn attempt_rate(pair: f64, templates: usize) -> f64 {
    -((-pair).ln_1p() * templates.max(1) as f64).exp_m1()
}

/// The false accept rate per pair that gives the rate `attempt` over `templates`
/// comparisons: `attempt = 1 - (1 - pair)^templates`, solved for `pair`.
pub fn pair_rate(attempt: f64, templates: usize) -> f64 {
    -((-attempt).ln_1p() / templates.max(1) as f64).exp_m1()
}

/// Parses a rate such as `"1e-4"`. `None` unless it lies between 0 and 1, both excluded.
pub fn parse_rate(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|rate| *rate > 0.0 && *rate < 1.0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A table, also for tests of other modules.
    pub(crate) fn table() -> ThresholdTable {
        ThresholdTable::new(
            [(1e-2, 0.25), (1e-4, 0.45), (1e-3, 0.35)],
            Calibration {
                data: "made up".to_owned(),
                people: 2,
                photos: 2,
                impostor_pairs: 1_000_000,
                measured_down_to: 1e-4,
                extrapolated: vec![],
                tail: Tail { similarity: 0.35, far: 1e-3, scale: 0.05, shape: 0.0 },
                other_tails: vec![],
                populations: vec![],
                decided_by: BTreeMap::new(),
            },
        )
    }

    #[test]
    fn measured_rates_give_the_similarities_of_the_table() {
        for (far, similarity) in [(1e-2, 0.25), (1e-3, 0.35), (1e-4, 0.45)] {
            let threshold = table().for_pair(far);
            assert!((threshold.similarity - similarity).abs() < 1e-6);
            assert!(!threshold.extrapolated);
        }
        let between = table().for_pair(10f64.powf(-2.5));
        assert!((between.similarity - 0.30).abs() < 1e-5);
        assert_eq!(table().for_pair(0.5).similarity, 0.25);
    }

    #[test]
    fn beyond_the_data_the_tail_takes_over_and_says_so() {
        let rare = table().for_pair(1e-9);
        assert!(rare.extrapolated);
        let expected = 0.35 + 0.05 * (1e6f64).ln();
        assert!((f64::from(rare.similarity) - expected).abs() < 1e-5);
        // The tail just below 1e-4 lies below the similarity measured at 1e-4, which then
        // remains the minimum.
        assert!(table().for_pair(9.9e-5).similarity >= 0.45);
    }

    #[test]
    fn between_the_last_measured_rate_and_a_tail_one_is_extrapolated() {
        let mut table = table();
        table.calibration.measured_down_to = 2.5e-4;
        // 1e-3 was measured, 1e-4 follows the tail, and 5e-4 depends on it.
        let threshold = table.for_pair(5e-4);
        assert!(threshold.extrapolated);
        assert!(threshold.similarity >= table.for_pair(1e-3).similarity);
        assert!(!table.for_pair(1e-3).extrapolated);
    }

    #[test]
    fn a_similarity_has_the_rate_whose_threshold_it_is() {
        for rate in [1e-9, 1e-6, 3e-4, 1e-3, 1e-2] {
            let back = table().rate_at(table().for_pair(rate).similarity);
            assert!((back / rate).ln().abs() < 1e-3, "{rate}: {back}");
        }
        assert!((table().rate_at(-1.0) / 1e-2 - 1.0).abs() < 1e-9);
        assert!((attempt_rate(pair_rate(1e-4, 500), 500) - 1e-4).abs() < 1e-12);
    }

    #[test]
    fn more_templates_make_it_stricter() {
        assert!((pair_rate(1e-4, 1) - 1e-4).abs() < 1e-18);
        assert!((pair_rate(1e-4, 1000) - 1.000_05e-7).abs() < 1e-12);
        assert!(
            table().for_attempt(1e-3, 5000).similarity > table().for_attempt(1e-3, 5).similarity
        );
    }

    proptest! {
        #[test]
        fn a_lower_rate_is_never_looser(a in 1e-12f64..1.0, b in 1e-12f64..1.0, shape in -0.3f64..0.3) {
            let mut table = table();
            table.calibration.tail.shape = shape;
            let (low, high) = if a < b { (a, b) } else { (b, a) };
            prop_assert!(table.for_pair(low).similarity >= table.for_pair(high).similarity);
        }

        #[test]
        fn the_pair_rate_multiplies_back(attempt in 1e-9f64..0.5, templates in 1usize..100_000) {
            let pair = pair_rate(attempt, templates);
            let back = -((-pair).ln_1p() * templates as f64).exp_m1();
            prop_assert!((back - attempt).abs() < 1e-9 * attempt.max(1e-6) + attempt * 1e-9);
        }
    }

    #[test]
    fn an_invalid_rate_admits_nobody() {
        for far in [f64::NAN, 0.0, -1.0] {
            assert!(table().for_pair(far).similarity > 1.0, "{far}");
        }
    }
}
