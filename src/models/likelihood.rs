//! From the similarity of two faces to how much it speaks for one person: the
//! logarithm of a likelihood ratio, by a straight line (Brümmer and du Preez,
//! "Application-independent evaluation of speaker detection", 2006).
//!
//! A ratio says nothing of how often strangers come to the door: whoever decides adds
//! the logarithm of the odds before the comparison. [`Weighing`] does, from the false
//! accept rate that is asked for and the number of templates compared with.

use crate::models::threshold::Threshold;
use serde::{Deserialize, Serialize};

/// To be told once where a set of models has no likelihood ratio.
pub const NOT_MEASURED: &str = "these models have no likelihood ratio, so that votes alone decide; \
     measure it with facelatch-tools calibrate --select";

/// `[recognizer.likelihood]` of the manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Likelihood {
    /// Natural logarithm of the ratio gained a unit of similarity; positive.
    pub slope: f64,
    /// Natural logarithm of the ratio at similarity 0.
    pub offset: f64,
    /// Below this similarity there were too few faces to say more, so that the ratio
    /// is the one here.
    pub lowest: f64,
    /// The same above this one, and above it the ratios of pairs of two people would be
    /// more than 1 on average, so that they would promise too much.
    pub highest: f64,
    /// Which photos of whom.
    pub data: String,
    /// People in it.
    pub people: usize,
    /// Photos in it in which a face was found.
    pub photos: usize,
    /// Pairs of photos of one person.
    pub genuine_pairs: u64,
    /// Pairs of photos of two people.
    pub impostor_pairs: u64,
    /// Cost of the ratios on these pairs, bits: 0 for an oracle, 1 for ratios that
    /// say nothing.
    pub cllr: f64,
}

impl Likelihood {
    /// Natural logarithm of how many times more often one person's faces are as alike
    /// as this than two people's. Never falls as the similarity rises; of no number it
    /// is the lowest.
    pub fn log_ratio(&self, similarity: f32) -> f64 {
        self.slope * between([self.lowest, self.highest], similarity) + self.offset
    }

    /// What a door that compares with so many templates makes of a similarity, and how
    /// much evidence it asks for.
    ///
    /// Of somebody else's face the ratio to a template is 1 on average; that it, or any
    /// product of such ratios over frames, each given those before, ever reaches `t` has
    /// a probability of at most `1 / t`, however long they try (Ville 1939; Wald,
    /// "Sequential Tests of Statistical Hypotheses", 1945). Over `n` templates the false
    /// accept rate an attempt `a` is so held by `t = n / a`. No more is asked than the
    /// line can give, for ratios beyond it were not measured; and no less than what a
    /// similarity at the door's threshold brings.
    pub fn weighing(
        &self,
        threshold: Threshold,
        false_accept_rate: f64,
        templates: usize,
    ) -> Weighing {
        let highest = self.log_ratio(1.0);
        // Written so that a rate of nonsense asks for all there is.
        let odds = (templates.max(1) as f64).ln() - false_accept_rate.ln();
        let needed = odds.min(highest).max(self.log_ratio(threshold.similarity));
        let Self { slope, offset, lowest, highest, .. } = *self;
        Weighing { slope, offset, lowest, highest, needed }
    }

    /// What is wrong with it, if anything is.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Self { slope, offset, lowest, highest, cllr, .. } = self;
        if !(slope.is_finite() && *slope > 0.0 && offset.is_finite()) {
            return Err("slope must be positive, and it and offset finite".to_owned());
        }
        let cosine = |value: &f64| (-1.0..=1.0).contains(value);
        if !(cosine(lowest) && cosine(highest) && lowest < highest) {
            return Err("lowest must be below highest, both similarities in -1..=1".to_owned());
        }
        if !(cllr.is_finite() && *cllr >= 0.0) {
            return Err(format!("cllr = {cllr} is no cost; it is 0 or more"));
        }
        Ok(())
    }
}

/// What similarities are worth at a door, and how much evidence it asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weighing {
    slope: f64,
    offset: f64,
    lowest: f64,
    highest: f64,
    needed: f64,
}

impl Weighing {
    /// [`Likelihood::log_ratio`].
    pub fn log_ratio(&self, similarity: f32) -> f64 {
        self.slope * between([self.lowest, self.highest], similarity) + self.offset
    }

    /// Natural logarithm of the likelihood ratio that opens.
    pub fn needed(&self) -> f64 {
        self.needed
    }
}

/// In this order a NaN becomes the lowest.
fn between([lowest, highest]: [f64; 2], similarity: f32) -> f64 {
    f64::from(similarity).max(lowest).min(highest)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A line for the tests of other stages, too.
    pub(crate) fn line() -> Likelihood {
        Likelihood {
            slope: 30.0,
            offset: -9.0,
            lowest: 0.0,
            highest: 0.6,
            data: "made up".to_owned(),
            people: 2,
            photos: 4,
            genuine_pairs: 2,
            impostor_pairs: 4,
            cllr: 0.1,
        }
    }

    /// What a door with that line asks for.
    pub(crate) fn weighing() -> Weighing {
        line().weighing(threshold(0.4), 1e-3, 1)
    }

    fn threshold(similarity: f32) -> Threshold {
        Threshold { similarity, extrapolated: false }
    }

    #[test]
    fn the_line_ends_where_the_data_did() {
        for (similarity, expected) in [(0.3, 0.0), (0.6, 9.0), (0.9, 9.0), (-1.0, -9.0)] {
            assert!((line().log_ratio(similarity) - expected).abs() < 1e-5, "{similarity}");
        }
        assert_eq!(line().log_ratio(f32::NAN), -9.0);
    }

    #[test]
    fn a_door_asks_for_the_odds_but_for_no_more_than_was_measured() {
        let needed = |similarity, rate, templates| {
            line().weighing(threshold(similarity), rate, templates).needed()
        };
        assert!((needed(0.3, 1e-3, 1) - 1e3f64.ln()).abs() < 1e-9);
        assert!((needed(0.3, 1e-3, 5) - 5e3f64.ln()).abs() < 1e-9);
        assert!((needed(0.3, 1e-6, 5000) - 9.0).abs() < 1e-5, "the line ends there");
        assert!((needed(0.58, 1e-3, 1) - 8.4).abs() < 1e-5, "the threshold brings more");
        assert!((needed(0.7, 1e-3, 1) - 9.0).abs() < 1e-5, "and is beyond the line");
        assert!((needed(0.3, 1e-3, 0) - 1e3f64.ln()).abs() < 1e-9);
        for rate in [f64::NAN, 0.0, -1.0] {
            assert!((needed(0.3, rate, 10) - 9.0).abs() < 1e-5, "{rate}");
        }
    }

    proptest! {
        #[test]
        fn a_frame_at_the_lines_end_brings_what_is_needed(
            rate in 1e-9f64..0.5, templates in 0usize..100_000, similarity in -1f32..1.5,
        ) {
            // Else nobody could ever come in by one view, however often seen.
            let weighing = line().weighing(threshold(similarity), rate, templates);
            prop_assert!(weighing.needed() <= weighing.log_ratio(1.0));
            prop_assert!(weighing.needed() >= weighing.log_ratio(similarity));
        }

        #[test]
        fn more_templates_or_a_lower_rate_never_ask_for_less(
            a in 1e-9f64..0.5, b in 1e-9f64..0.5, few in 0usize..1000, more in 0usize..1000,
        ) {
            let (low, high) = if a < b { (a, b) } else { (b, a) };
            let needed = |rate, count| line().weighing(threshold(0.4), rate, count).needed();
            prop_assert!(needed(low, few + more) >= needed(high, few));
        }

        #[test]
        fn more_alike_never_speaks_less_for_one_person(a in -1f32..=1.0, b in -1f32..=1.0) {
            let (low, high) = if a < b { (a, b) } else { (b, a) };
            prop_assert!(line().log_ratio(low) <= line().log_ratio(high));
        }
    }

    #[test]
    fn lines_of_nonsense_are_refused() {
        assert_eq!(line().check(), Ok(()));
        let broken: [fn(&mut Likelihood); 6] = [
            |line| line.slope = 0.0,
            |line| line.slope = f64::NAN,
            |line| line.offset = f64::INFINITY,
            |line| line.highest = line.lowest,
            |line| line.highest = 1.5,
            |line| line.cllr = -1.0,
        ];
        for (at, spoil) in broken.iter().enumerate() {
            let mut line = line();
            spoil(&mut line);
            assert!(line.check().is_err(), "{at}");
        }
    }
}
