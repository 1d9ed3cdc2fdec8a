//! From the similarity of two faces to how much it speaks for one person: the
//! logarithm of a likelihood ratio, by a straight line (Brümmer and du Preez,
//! "Application-independent evaluation of speaker detection", 2006).
//!
//! A ratio says nothing of how often strangers come to the door: whoever decides adds
//! the logarithm of the odds before the comparison.

use serde::{Deserialize, Serialize};

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
    /// The same above this one.
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
        // In this order a NaN becomes the lowest.
        self.slope * f64::from(similarity).max(self.lowest).min(self.highest) + self.offset
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

    #[test]
    fn the_line_ends_where_the_data_did() {
        for (similarity, expected) in [(0.3, 0.0), (0.6, 9.0), (0.9, 9.0), (-1.0, -9.0)] {
            assert!((line().log_ratio(similarity) - expected).abs() < 1e-5, "{similarity}");
        }
        assert_eq!(line().log_ratio(f32::NAN), -9.0);
    }

    proptest! {
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
