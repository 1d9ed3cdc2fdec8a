//! What a table of thresholds promises: from a similarity back to its false accept rate,
//! and how sure that rate is.
//!
//! A measured rate is a count of impostor pairs that passed, so its interval is that of a
//! Poisson count. Pairs that share a person are not independent: at most half as many pairs
//! as people can share nobody, so no more than these are counted. An extrapolated rate
//! depends on the fitted scale and shape of the tail; its interval follows from their
//! variances by the delta method, on the logarithm of the rate (Coles, "An Introduction to
//! Statistical Modeling of Extreme Values", sections 2.6.4 and 4.3; the variances are those
//! of Smith, "Maximum likelihood estimation in a class of nonregular cases", 1985). Faces
//! at the door may differ from those of the calibration data; no interval covers that.

use super::poisson;
use super::threshold::{Tail, ThresholdTable};

/// Probability with which the interval of a rate holds. Two such intervals, of the rate and
/// of the number of attempts, hold together with at least 95 % (Bonferroni).
pub const CONFIDENCE: f64 = 0.975;

/// Quantile of the normal distribution for an interval of [`CONFIDENCE`].
const DEVIATIONS: f64 = 2.241_403;

/// Impostor pairs above a rate from which a group counts for its interval: as many as
/// `facelatch-tools calibrate` needs to measure a rate.
const ENOUGH: f64 = 30.0;

/// Least number of exceedances that an interval assumes. With fewer, a rarer rate would
/// have a higher upper end.
const FEWEST: f64 = 6.0;

/// Rates below this are all alike.
const RAREST: f64 = 1e-300;

impl ThresholdTable {
    /// The false accept rate per pair that the table promises for a similarity: the highest
    /// rate whose threshold is at least that similarity. 1 below the lowest similarity of
    /// the table, where nothing is promised. Never rises with the similarity.
    pub fn pair_rate_at(&self, similarity: f32) -> f64 {
        let Some(&(highest, least)) = self.points().first() else { return 1.0 };
        if similarity.is_nan() || similarity < least {
            return 1.0;
        }
        if self.for_pair(highest).similarity >= similarity {
            return highest;
        }
        let (mut low, mut high) = (RAREST.ln(), highest.ln());
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if self.for_pair(middle.exp()).similarity >= similarity {
                low = middle;
            } else {
                high = middle;
            }
        }
        // The upper end: a rate must not be understated.
        high.exp()
    }

    /// The false accept rate per attempt that the table promises for a similarity and
    /// `templates` templates: [`super::threshold::pair_rate`] the other way round.
    pub fn attempt_rate_at(&self, similarity: f32, templates: usize) -> f64 {
        attempt_rate([(self.pair_rate_at(similarity), templates)])
    }

    /// Interval of a false accept rate per pair of this table, by [`CONFIDENCE`]. If the
    /// tails are exponential, its upper end rises with the rate.
    pub fn interval_of(&self, rate: f64) -> [f64; 2] {
        if !(rate > 0.0 && rate < 1.0) {
            return [0.0, 1.0];
        }
        if !self.for_pair(rate).extrapolated {
            return self.measured_interval(rate);
        }
        let tail = self.calibration().tails().max_by(|a, b| {
            let at = |tail: &Tail| tail.similarity_at(rate);
            at(a).total_cmp(&at(b))
        });
        let Some(tail) = tail else { return [0.0, 1.0] };
        let spread = (DEVIATIONS * self.deviation(tail, rate)).exp();
        // A rarer rate is at most what a measured one is.
        let [_, most] = self.measured_interval(self.lowest_measured());
        [rate / spread, (rate * spread).min(most)]
    }

    fn measured_interval(&self, rate: f64) -> [f64; 2] {
        let count = self.exceedances(rate);
        let [low, high] = poisson::interval(count, CONFIDENCE);
        [rate * low / count, (rate * high / count).min(1.0)]
    }

    /// Standard deviation of the logarithm of an extrapolated rate.
    fn deviation(&self, tail: &Tail, rate: f64) -> f64 {
        let count = self.exceedances(tail.far).max(FEWEST);
        let rarer = (tail.far / rate).ln().max(0.0);
        let shape = tail.shape;
        let of_tail = if shape.abs() < 1e-9 {
            // Of an exponential tail only the scale was fitted.
            rarer * rarer
        } else {
            // z = (similarity - start of the tail) / scale, and w = 1 + shape * z.
            let w = (shape * rarer).exp();
            let z = (w - 1.0) / shape;
            let by_scale = z / w;
            let by_shape = rarer / shape - z / (shape * w);
            let bend = 1.0 + shape;
            2.0 * bend * by_scale * by_scale - 2.0 * bend * by_scale * by_shape
                + bend * bend * by_shape * by_shape
        };
        ((1.0 + of_tail.max(0.0)) / count).sqrt()
    }

    /// Number of independent impostor pairs at this rate, by the smallest population or
    /// group that can decide it.
    fn exceedances(&self, rate: f64) -> f64 {
        let calibration = self.calibration();
        let apart = |pairs: u64, people: usize| {
            let passing = rate * pairs as f64;
            (passing, passing.min(people as f64 / 2.0))
        };
        let populations = &calibration.populations;
        let groups = populations.iter().flat_map(|population| &population.groups);
        let parts = populations
            .iter()
            .map(|population| apart(population.impostor_pairs, population.people))
            .chain(groups.map(|group| apart(group.impostor_pairs, group.people)));
        let (_, all) = apart(calibration.impostor_pairs, calibration.people);
        let least = parts.filter(|(passing, _)| *passing >= ENOUGH).map(|(_, apart)| apart);
        least.fold(all, f64::min).max(1e-3)
    }
}

/// The false accept rate per attempt over templates with these rates per pair, each with a
/// number of templates: `1 - (1 - rate)^templates ...`.
pub fn attempt_rate(templates: impl IntoIterator<Item = (f64, usize)>) -> f64 {
    let nobody = |(rate, count): (f64, usize)| (-rate.clamp(0.0, 1.0)).ln_1p() * count as f64;
    // A rate of 1 beside no template is no number.
    let some = templates.into_iter().filter(|(_, count)| *count > 0);
    -some.map(nobody).sum::<f64>().exp_m1()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Models;
    use crate::models::threshold::pair_rate;
    use crate::models::threshold::tests::table;
    use proptest::prelude::*;

    #[test]
    fn a_threshold_leads_back_to_its_rate() {
        for table in [table(), Models::built_in().expect("models").thresholds().expect("a table")] {
            for rate in [1e-2, 1e-3, 1e-4, 1e-7, 1e-9, 1e-12] {
                let back = table.pair_rate_at(table.for_pair(rate).similarity);
                assert!(back >= rate * (1.0 - 1e-9), "{rate} {back}");
                // Similarities have 24 bits, which is a share of the rate.
                assert!(back <= rate * 1.001 || table.for_pair(back * 0.999).extrapolated);
            }
            assert_eq!(table.pair_rate_at(-1.0), 1.0);
            assert_eq!(table.pair_rate_at(f32::NAN), 1.0);
        }
    }

    #[test]
    fn the_built_in_models_promise_rates_with_intervals() {
        let table = Models::built_in().expect("models").thresholds().expect("a table");
        for (rate, within) in [(1e-3, 1.2), (1e-4, 1.4), (1e-6, 2.0), (4e-7, 2.1)] {
            let [low, high] = table.interval_of(rate);
            assert!(rate / within < low && low < rate, "{rate}: {low}");
            assert!(rate < high && high < rate * within, "{rate}: {high}");
        }
    }

    #[test]
    fn attempts_and_pairs_lead_to_each_other() {
        for (attempt, templates) in [(1e-4, 1), (1e-4, 250), (0.3, 50_000)] {
            let back = attempt_rate([(pair_rate(attempt, templates), templates)]);
            assert!((back / attempt - 1.0).abs() < 1e-9, "{attempt} {templates}");
        }
        assert_eq!(attempt_rate([]), 0.0);
        assert_eq!(attempt_rate([(1.0, 0)]), 0.0);
        assert_eq!(attempt_rate([(1.0, 3), (1e-9, 2)]), 1.0);
    }

    proptest! {
        #[test]
        fn a_higher_similarity_promises_no_higher_rate(a in 0f32..1.2, b in 0f32..1.2, shape in 0.0f64..0.3) {
            let mut calibration = table().calibration().clone();
            calibration.tail.shape = shape;
            let table = ThresholdTable::new(table().points().to_vec(), calibration);
            let (low, high) = if a < b { (a, b) } else { (b, a) };
            let (rate, rarer) = (table.pair_rate_at(low), table.pair_rate_at(high));
            prop_assert!(rarer <= rate);
            // The promise holds: at that rate the table asks for no more.
            prop_assert!(rate == 1.0 || table.for_pair(rate * 1.000_001).similarity <= low + 1e-6);
        }

        #[test]
        fn intervals_hold_their_rate_and_rise_with_it(
            a in -14.0f64..-1.0, b in -14.0f64..-1.0, people in 2usize..3000, shape in 0.0f64..0.3,
        ) {
            let mut calibration = table().calibration().clone();
            calibration.people = people;
            let exponential = shape < 0.1;
            calibration.tail.shape = if exponential { 0.0 } else { shape };
            let table = ThresholdTable::new(table().points().to_vec(), calibration);
            let (rare, often) = if a < b { (a, b) } else { (b, a) };
            let (rare, often) = (10f64.powf(rare), 10f64.powf(often));
            let (i, j) = (table.interval_of(rare), table.interval_of(often));
            prop_assert!(i[0] <= rare && often <= j[1] && i[1] <= 1.0 && j[1] <= 1.0);
            prop_assert!(!exponential || i[1] <= j[1] * (1.0 + 1e-9), "{i:?} {j:?}");
        }
    }
}
