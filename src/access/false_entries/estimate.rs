//! Expected false entries per year, and the false accept rate that keeps them within a
//! budget. Pure functions of traffic, gallery and calibration.

use super::Interval;
use crate::models::promise::attempt_rate;
use crate::models::threshold::ThresholdTable;

/// Steps by which the rate is tightened; each divides it by 10^(1/4), all together by 10.
///
/// They are bounded, because a person who walks by the door with many faces raises its traffic.
/// Without a bound that would tighten the thresholds until staff are refused. So a flood of
/// attempts costs at most what one decade of the rate costs, and beyond it the door says
/// that its budget is exceeded.
pub const MOST_STEPS: u8 = 4;

/// Numbers of steps, none included.
pub const STEPS: usize = MOST_STEPS as usize + 1;

/// What decides about a stranger: the calibration of the models, and the templates of the
/// gallery by what is added to their threshold.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Similarities and their false accept rates.
    pub table: &'a ThresholdTable,
    /// [`crate::access::gallery::Gallery::strictness`].
    pub strictness: &'a [(f32, usize)],
}

impl Known<'_> {
    /// Number of templates.
    fn templates(&self) -> usize {
        self.strictness.iter().map(|(_, count)| count).sum()
    }

    /// The threshold for a false accept rate per attempt.
    pub fn similarity(&self, rate: f64) -> f32 {
        self.table.for_attempt(rate, self.templates()).similarity
    }

    /// False accept rate per attempt that the calibration promises at a threshold.
    pub fn rate_at(&self, similarity: f32) -> Interval {
        let rates = |end: fn(&ThresholdTable, f64) -> f64| {
            attempt_rate(self.strictness.iter().map(|(stricter, count)| {
                (end(self.table, self.table.pair_rate_at(similarity + stricter)), *count)
            }))
        };
        Interval {
            expected: rates(|_, rate| rate),
            low: rates(|table, rate| table.interval_of(rate)[0]),
            high: rates(|table, rate| table.interval_of(rate)[1]),
        }
    }

    /// Probability, by the calibration, that a stranger is at least this similar to
    /// somebody.
    pub fn share_beyond(&self, similarity: f32) -> f64 {
        attempt_rate([(self.table.pair_rate_at(similarity), self.templates())])
    }

    /// Expected false entries per year at a threshold with this number of attempts per year. If
    /// both intervals hold by [`crate::models::promise::CONFIDENCE`], this one holds with at
    /// least 95 %.
    pub fn entries(&self, attempts: Interval, similarity: f32) -> Interval {
        let rate = self.rate_at(similarity);
        Interval {
            expected: attempts.expected * rate.expected,
            low: attempts.low * rate.low,
            high: attempts.high * rate.high,
        }
    }

    /// Upper ends of [`Self::entries`] by the number of steps by which the rate is
    /// tightened.
    pub fn upper_ends(&self, attempts: Interval, rate: f64) -> [f64; STEPS] {
        std::array::from_fn(|steps| {
            let similarity = self.similarity(stepped(rate, steps as u8));
            self.entries(attempts, similarity).high
        })
    }
}

/// The fewest steps with which the upper end of the expected entries is within the budget,
/// and whether it is: with [`MOST_STEPS`] it may still be above.
pub fn steps_within(budget: f64, upper_ends: &[f64; STEPS]) -> (u8, bool) {
    // Written so that what is no number is above the budget.
    match upper_ends.iter().position(|high| *high <= budget) {
        Some(steps) => (steps as u8, true),
        None => (MOST_STEPS, false),
    }
}

/// A false accept rate tightened by this number of steps.
pub fn stepped(rate: f64, steps: u8) -> f64 {
    rate * 10f64.powf(-f64::from(steps.min(MOST_STEPS)) / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Models;
    use crate::models::threshold::pair_rate;
    use crate::models::threshold::tests::table;
    use proptest::prelude::*;

    fn attempts(expected: f64) -> Interval {
        Interval { expected, low: 0.9 * expected, high: 1.1 * expected }
    }

    #[test]
    fn the_expected_entries_are_attempts_times_the_rate() {
        let table = table();
        let known = Known { table: &table, strictness: &[(0.0, 100)] };
        let similarity = known.similarity(1e-3);
        let entries = known.entries(attempts(7300.0), similarity);
        assert!((entries.expected - 7.3).abs() < 0.05, "{entries:?}");
        assert!(entries.low < 7.3 && entries.high > 7.3);
        // Nobody is enrolled.
        let known = Known { table: &table, strictness: &[] };
        assert_eq!(known.entries(attempts(7300.0), 0.3), Interval::default());
    }

    #[test]
    fn a_stricter_threshold_lowers_the_rate() {
        let table = table();
        let plain = Known { table: &table, strictness: &[(0.0, 10)] };
        let some = Known { table: &table, strictness: &[(0.0, 5), (0.1, 5)] };
        let never = Known { table: &table, strictness: &[(0.0, 5), (f32::INFINITY, 5)] };
        let rates = [plain, some, never].map(|known| known.rate_at(0.4).expected);
        assert!(rates[0] > rates[1] && rates[1] > rates[2], "{rates:?}");
        assert!((rates[2] - 0.5 * rates[0]).abs() < 0.01 * rates[0], "{rates:?}");
    }

    #[test]
    fn an_impossible_budget_ends_at_the_last_step() {
        let table = Models::built_in().expect("models").thresholds().expect("a table");
        let known = Known { table: &table, strictness: &[(0.0, 250)] };
        let ends = known.upper_ends(attempts(7300.0), 1e-4);
        assert_eq!(steps_within(1e9, &ends), (0, true));
        assert_eq!(steps_within(1e-9, &ends), (MOST_STEPS, false));
        assert_eq!(steps_within(1.0, &[f64::NAN; STEPS]), (MOST_STEPS, false));
        assert!((stepped(1e-4, MOST_STEPS) - 1e-5).abs() < 1e-18);
        assert_eq!(stepped(1e-4, 0), 1e-4);
    }

    proptest! {
        #[test]
        fn entries_rise_with_rate_traffic_and_templates(
            similarity in 0.26f32..0.9, looser in 0.001f32..0.2, traffic in 1.0f64..1e6,
            more in 1.01f64..10.0, templates in 1usize..5000, others in 1usize..5000,
        ) {
            let table = table();
            let strictness = [(0.0, templates), (0.05, others)];
            let known = Known { table: &table, strictness: &strictness };
            let entries = known.entries(attempts(traffic), similarity);
            let at = |known: Known<'_>, traffic, similarity| known.entries(attempts(traffic), similarity);
            for higher in [
                at(known, traffic * more, similarity),
                at(known, traffic, similarity - looser),
                at(Known { strictness: &[(0.0, templates + 1), (0.05, others)], ..known }, traffic, similarity),
                at(Known { strictness: &[(0.0, templates), (0.05, others + 1)], ..known }, traffic, similarity),
            ] {
                prop_assert!(higher.expected >= entries.expected, "{higher:?} {entries:?}");
                prop_assert!(higher.high >= entries.high * (1.0 - 1e-9), "{higher:?} {entries:?}");
            }
            prop_assert!(entries.low <= entries.expected && entries.expected <= entries.high);
        }

        #[test]
        fn tightening_meets_the_budget_or_says_that_it_does_not(
            budget in 1e-3f64..100.0, traffic in 1.0f64..1e6, rate in 1e-6f64..1e-2,
            templates in 1usize..2000,
        ) {
            let table = table();
            let known = Known { table: &table, strictness: &[(0.0, templates)] };
            let within = |traffic| {
                steps_within(budget, &known.upper_ends(attempts(traffic), rate))
            };
            let (steps, meets) = within(traffic);
            let high = |steps| {
                known.entries(attempts(traffic), known.similarity(stepped(rate, steps))).high
            };
            prop_assert_eq!(high(steps) <= budget, meets);
            prop_assert!(stepped(rate, steps) <= rate && stepped(rate, steps) >= rate / 10.000_001);
            // No more than needed.
            prop_assert!(steps == 0 || high(steps - 1) > budget);
            // More traffic never loosens.
            let (more, _) = within(traffic * 2.0);
            prop_assert!(more >= steps);
            // A stricter threshold never follows from a looser rate.
            let similarity = known.similarity(stepped(rate, steps));
            prop_assert!(similarity >= known.similarity(rate));
        }
    }

    /// Strangers with the similarities that the calibration describes come to a door, and as
    /// many get in as it expects.
    #[test]
    fn strangers_at_the_stated_rate_get_in_as_often_as_expected() {
        let table = Models::built_in().expect("models").thresholds().expect("a table");
        let templates = 20;
        let known = Known { table: &table, strictness: &[(0.0, templates)] };
        let threshold = known.similarity(1e-2);
        let expected = known.rate_at(threshold).expected;
        // A uniform rate per pair leads to the similarity that has it.
        let mut state = 20_261_130u64;
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        };
        let (attempts, mut entries) = (20_000, 0u32);
        for _ in 0..attempts {
            // The best of independent templates.
            let best = pair_rate(uniform(), templates);
            entries += u32::from(table.for_pair(best).similarity >= threshold);
        }
        let mean = expected * f64::from(attempts);
        // Five standard deviations of a Poisson count: the seed is fixed.
        assert!((f64::from(entries) - mean).abs() < 5.0 * mean.sqrt(), "{entries} {mean}");
    }
}
