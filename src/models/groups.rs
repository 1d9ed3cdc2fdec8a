//! Rates of groups of people: what a manifest says of the group that is taken for one
//! another most often.

use crate::models::threshold::parse_rate;
use serde::{Deserialize, Serialize};

/// A stated rate is exceeded badly if a group's rate is more than this many times as high.
pub const MOST_TIMES: f64 = 2.0;

/// Words for a model set without [`WorstGroup`].
pub const NOT_MEASURED: &str =
    "no group of people was measured; facelatch-tools calibrate --labels measures them";

/// `[recognizer.worst_group]`: the group of people whose members are taken for one another
/// most often, compared with what the threshold states.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorstGroup {
    /// Name of the group, from the labels.
    pub name: String,
    /// The rate of `[recognizer.thresholds]` at whose threshold the group was measured,
    /// such as "1e-4".
    pub stated: String,
    /// False accept rate within the group at that threshold, 0 to 1.
    pub measured: f64,
    /// Lower end of the 95 % interval of `measured`.
    pub low: f64,
    /// Upper end of the 95 % interval of `measured`.
    pub high: f64,
    /// Number of impostor pairs within the group.
    pub pairs: u64,
    /// Number of people of the group.
    pub people: usize,
    /// Description of the data set.
    pub data: String,
}

impl WorstGroup {
    /// How many times the stated rate the measured one is. Infinite for a stated rate that
    /// is none, which a checked manifest does not have.
    pub fn times_stated(&self) -> f64 {
        parse_rate(&self.stated).map_or(f64::INFINITY, |stated| self.measured / stated)
    }

    /// Whether the measured rate is more than [`MOST_TIMES`] times the stated one.
    pub fn exceeds(&self) -> bool {
        // Rates are decimal fractions, so exactly twice may come out a little higher.
        self.times_stated() > MOST_TIMES * (1.0 + 1e-9)
    }

    /// Checks the values of a manifest.
    ///
    /// # Errors
    /// A message with the key that is invalid.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Self { name, stated, measured, low, high, .. } = self;
        if name.is_empty() {
            return Err("name is empty".to_owned());
        }
        if parse_rate(stated).is_none() {
            return Err(format!(
                "stated = \"{stated}\" is not a rate between 0 and 1, such as \"1e-4\""
            ));
        }
        // Written so that NaN is refused.
        if !(0.0 <= *low && low <= measured && measured <= high && *high <= 1.0) {
            return Err(format!(
                "expected 0 <= low <= measured <= high <= 1, found {low}, {measured} and {high}"
            ));
        }
        Ok(())
    }
}

impl std::fmt::Display for WorstGroup {
    /// One line without the words "worst group".
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, stated, measured, low, high, pairs, people, data } = self;
        write!(
            f,
            "{name}: false accept rate {measured:.1e} (95 %: {low:.1e} to {high:.1e}) where {stated} is stated; {pairs} pairs of {people} people of {data}"
        )
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A group, also for tests of other modules.
    pub(crate) fn group() -> WorstGroup {
        WorstGroup {
            name: "women".to_owned(),
            stated: "1e-3".to_owned(),
            measured: 2e-3,
            low: 1.1e-3,
            high: 3.4e-3,
            pairs: 6555,
            people: 115,
            data: "made up".to_owned(),
        }
    }

    #[test]
    fn a_group_exceeds_its_rate_only_above_twice() {
        for (measured, exceeds) in [(0.0, false), (1e-3, false), (2e-3, false), (2.1e-3, true)] {
            let group = WorstGroup { measured, ..group() };
            assert_eq!(group.exceeds(), exceeds, "{measured}");
        }
        for stated in ["1e-2", "1e-3", "1e-4", "1e-5", "2.6e-5"] {
            let rate = parse_rate(stated).expect("a rate");
            let group = WorstGroup { stated: stated.to_owned(), measured: 2.0 * rate, ..group() };
            assert!(!group.exceeds(), "{stated}");
        }
    }

    #[test]
    fn a_group_is_described_in_one_line() {
        let line = group().to_string();
        assert_eq!(
            line,
            "women: false accept rate 2.0e-3 (95 %: 1.1e-3 to 3.4e-3) where 1e-3 is stated; 6555 pairs of 115 people of made up"
        );
    }

    #[test]
    fn rates_of_nonsense_are_refused() {
        assert_eq!(group().check(), Ok(()));
        let broken: [fn(&mut WorstGroup); 6] = [
            |group| group.name.clear(),
            |group| group.stated = "often".to_owned(),
            |group| group.measured = f64::NAN,
            |group| group.low = -1e-3,
            |group| group.low = 2.5e-3,
            |group| group.high = 1.5,
        ];
        for (at, spoil) in broken.iter().enumerate() {
            let mut group = group();
            spoil(&mut group);
            assert!(group.check().is_err(), "{at}");
        }
    }
}
