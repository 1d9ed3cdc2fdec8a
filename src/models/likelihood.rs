//! Likelihood ratios: converts the similarity of two faces to the logarithm of the
//! likelihood ratio "same person" to "different people", by a straight line (Brümmer and
//! du Preez, "Application-independent evaluation of speaker detection", 2006).
//!
//! The ratio does not depend on how often strangers come to the door. The decision has to
//! add the logarithm of the prior odds. [`Weighing`] does this, from the requested false
//! accept rate and the number of templates in the gallery.

use crate::models::threshold::Threshold;
use serde::{Deserialize, Serialize};

/// Warning for a model set without a likelihood ratio, to be logged once.
pub const NOT_MEASURED: &str = "these models have no likelihood ratio, so only votes decide; \
     measure it with facelatch-tools calibrate --select";

/// `[recognizer.likelihood]` of the manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Likelihood {
    /// Slope of the line: natural logarithm of the ratio per unit of similarity; positive.
    pub slope: f64,
    /// Natural logarithm of the ratio at similarity 0.
    pub offset: f64,
    /// Lower end of the line, a similarity. Below it there was too little data, so the
    /// ratio stays the same.
    pub lowest: f64,
    /// Upper end of the line, a similarity. Above it there was too little data, and the
    /// mean ratio of impostor pairs would exceed 1, which would overstate the evidence.
    pub highest: f64,
    /// Description of the data set.
    pub data: String,
    /// Number of people.
    pub people: usize,
    /// Number of photos in which a face was found.
    pub photos: usize,
    /// Number of pairs of photos of one person.
    pub genuine_pairs: u64,
    /// Number of pairs of photos of different people.
    pub impostor_pairs: u64,
    /// Cost of the ratios on these pairs (Cllr), bits: 0 for perfect ratios, 1 for
    /// uninformative ones.
    pub cllr: f64,
}

impl Likelihood {
    /// Natural logarithm of the likelihood ratio of a similarity: how many times more often
    /// faces of one person than faces of two people have it. Never decreases with the
    /// similarity. NaN gives the lowest value.
    pub fn log_ratio(&self, similarity: f32) -> f64 {
        self.slope * between([self.lowest, self.highest], similarity) + self.offset
    }

    /// The log likelihood ratio and the evidence needed for a door with `templates`
    /// templates and a false accept rate per attempt.
    ///
    /// For an impostor the expected ratio to one template is 1. The probability that the
    /// ratio, or the running product of such ratios over frames, each conditional on the
    /// frames before, ever reaches `t` is therefore at most `1 / t`, however long the
    /// impostor tries (Ville 1939; Wald, "Sequential Tests of Statistical Hypotheses",
    /// 1945). With `n` templates, `t = n / a` keeps the false accept rate per attempt below
    /// `a`. The evidence needed is at most the highest value of the line, because higher
    /// ratios were not measured, and at least that of a similarity at the threshold.
    pub fn weighing(
        &self,
        threshold: Threshold,
        false_accept_rate: f64,
        templates: usize,
    ) -> Weighing {
        let highest = self.log_ratio(1.0);
        // Written so that an invalid rate needs the highest value.
        let odds = (templates.max(1) as f64).ln() - false_accept_rate.ln();
        let needed = odds.min(highest).max(self.log_ratio(threshold.similarity));
        let Self { slope, offset, lowest, highest, .. } = *self;
        Weighing { slope, offset, lowest, highest, needed }
    }

    /// Checks the values of a manifest.
    ///
    /// # Errors
    /// A message with the key that is invalid.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Self { slope, offset, lowest, highest, cllr, .. } = self;
        if !(slope.is_finite() && *slope > 0.0 && offset.is_finite()) {
            return Err("slope must be positive, and slope and offset finite".to_owned());
        }
        let cosine = |value: &f64| (-1.0..=1.0).contains(value);
        if !(cosine(lowest) && cosine(highest) && lowest < highest) {
            return Err("lowest must be below highest, and both within -1..=1".to_owned());
        }
        if !(cllr.is_finite() && *cllr >= 0.0) {
            return Err(format!("cllr = {cllr} is not a valid cost, which is 0 or more"));
        }
        Ok(())
    }
}

/// The likelihood line of a door, and the evidence that the door needs to open.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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

    /// Natural logarithm of the likelihood ratio needed to open.
    pub fn needed(&self) -> f64 {
        self.needed
    }
}

/// Clamps a similarity. In this order of `max` and `min` NaN becomes `lowest`.
fn between([lowest, highest]: [f64; 2], similarity: f32) -> f64 {
    f64::from(similarity).max(lowest).min(highest)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A line, also for tests of other modules.
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

    /// A door with that line.
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
    fn the_needed_evidence_is_the_odds_within_the_measured_range() {
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
        fn the_highest_ratio_always_suffices(
            rate in 1e-9f64..0.5, templates in 0usize..100_000, similarity in -1f32..1.5,
        ) {
            // Otherwise one view, however often repeated, could never open the door.
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
