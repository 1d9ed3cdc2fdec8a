//! Attempts at one door, counted per day over a year.
//!
//! A day is 24 hours in which the camera was watched, whatever the wall clock says: a clock
//! that is wrong, or a door that is off at night, changes no rate.

use super::Interval;
use crate::models::poisson;
use crate::models::promise::CONFIDENCE;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Days that are kept.
const MOST_DAYS: usize = 365;

/// Seconds of one day.
const DAY: f64 = 86_400.0;

/// Days of one year.
const YEAR: f64 = 365.25;

/// Longest gap between two frames that counts as watched: a camera that is away sees
/// nobody.
const LONGEST_GAP: Duration = Duration::from_secs(60);

/// Attempts that the assumed number of them counts for.
const ASSUMED: f64 = 5.0;

/// Watched days below which a door has no history.
pub const HISTORY: f64 = 7.0;

/// Attempts of one day, or of the part of it that has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Day {
    /// Watched seconds, 86,400 at most.
    pub seconds: u32,
    /// Attempts that were refused as strangers'.
    pub strangers: u32,
    /// Attempts that ended before a decision and matched nobody.
    pub undecided: u32,
    /// Attempts of known people.
    pub known: u32,
}

/// Whose attempt it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Somebody who was refused as a stranger.
    Stranger,
    /// Somebody who left before a decision and matched nobody.
    Undecided,
    /// A known person.
    Known,
}

/// Counted attempts of one door.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Traffic {
    /// The newest last; that one is not over yet.
    days: Vec<Day>,
    /// Time of the last frame.
    last: Option<Duration>,
    /// Watched time that is less than a second.
    rest: Duration,
}

impl Traffic {
    /// Goes on with these days, the newest last. Impossible values are cut.
    pub fn restored(days: &[Day]) -> Self {
        let newest = days.iter().skip(days.len().saturating_sub(MOST_DAYS));
        let days = newest.map(|day| Day { seconds: day.seconds.min(DAY as u32), ..*day }).collect();
        Self { days, ..Self::default() }
    }

    /// The days, the newest last; 365 at most.
    pub fn days(&self) -> &[Day] {
        &self.days
    }

    /// A frame was watched. Returns whether a day is over.
    pub fn watched(&mut self, now: Duration) -> bool {
        let gap = self.last.map_or(Duration::ZERO, |last| now.saturating_sub(last));
        self.last = Some(now);
        self.rest += gap.min(LONGEST_GAP);
        let whole = self.rest.as_secs();
        self.rest -= Duration::from_secs(whole);
        let today = self.today();
        today.seconds += whole as u32;
        let over = f64::from(today.seconds) >= DAY;
        if over {
            if self.days.len() >= MOST_DAYS {
                self.days.remove(0);
            }
            self.days.push(Day::default());
        }
        over
    }

    /// Counts one attempt.
    pub fn count(&mut self, whose: Whose) {
        let today = self.today();
        let number = match whose {
            Whose::Stranger => &mut today.strangers,
            Whose::Undecided => &mut today.undecided,
            Whose::Known => &mut today.known,
        };
        *number = number.saturating_add(1);
    }

    fn today(&mut self) -> &mut Day {
        if self.days.is_empty() {
            self.days.push(Day::default());
        }
        let last = self.days.len() - 1;
        &mut self.days[last]
    }

    /// Watched time in days.
    pub fn watched_days(&self) -> f64 {
        // The sum of no numbers is -0, which would be shown.
        0.0 + self.days.iter().map(|day| f64::from(day.seconds)).sum::<f64>() / DAY
    }

    /// Number of attempts of this kind.
    pub fn attempts(&self, whose: Whose) -> u64 {
        let number = |day: &Day| match whose {
            Whose::Stranger => day.strangers,
            Whose::Undecided => day.undecided,
            Whose::Known => day.known,
        };
        self.days.iter().map(|day| u64::from(number(day))).sum()
    }

    /// Attempts per year of people who are not enrolled, undecided ones included: an
    /// interval by [`CONFIDENCE`].
    ///
    /// Attempts are taken for a Poisson process whose rate has a gamma distribution. What
    /// the configuration assumes, above 0 per day, counts as five attempts in the time that
    /// they take on average: so it decides as long as there is no history, and hardly
    /// matters later (Gelman et al., "Bayesian Data Analysis", section 2.6). Traffic that
    /// varies more than a Poisson process, such as an event next door, is not covered.
    pub fn per_year(&self, assumed_per_day: f64) -> Interval {
        let attempts = self.attempts(Whose::Stranger) + self.attempts(Whose::Undecided);
        let shape = attempts as f64 + ASSUMED;
        let scale = YEAR / (self.watched_days() + ASSUMED / assumed_per_day);
        let outside = 0.5 * (1.0 - CONFIDENCE);
        Interval {
            expected: shape * scale,
            low: poisson::gamma_quantile(shape, outside) * scale,
            high: poisson::gamma_quantile(shape, 1.0 - outside) * scale,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn days(count: usize, strangers: u32) -> Traffic {
        Traffic::restored(&vec![Day { seconds: 86_400, strangers, ..Day::default() }; count])
    }

    #[test]
    fn a_year_is_kept_by_watched_days() {
        let mut traffic = Traffic::default();
        let mut over = 0;
        // One frame in 50 seconds, for 400 days.
        for at in 0..400 * 1728 + 1 {
            over += u32::from(traffic.watched(Duration::from_secs(at * 50)));
            if at % 1728 == 7 {
                traffic.count(Whose::Stranger);
            }
        }
        assert_eq!((over, traffic.days().len()), (400, MOST_DAYS));
        assert!((traffic.watched_days() - 364.0).abs() < 0.01, "{}", traffic.watched_days());
        assert_eq!(traffic.attempts(Whose::Stranger), 364);
        // The camera was away.
        traffic.watched(Duration::from_secs(9_000_000_000));
        assert!(traffic.watched_days() < 364.1);
    }

    #[test]
    fn fractions_of_seconds_add_up() {
        let mut traffic = Traffic::default();
        for at in 0..=1000u64 {
            traffic.watched(Duration::from_millis(at * 66));
        }
        assert_eq!(traffic.days()[0].seconds, 66);
    }

    #[test]
    fn without_history_the_assumption_counts_and_then_the_counts_do() {
        let new = Traffic::default().per_year(20.0);
        assert!((new.expected / (20.0 * YEAR) - 1.0).abs() < 1e-9);
        assert!(new.low < 0.3 * new.expected && new.high > 2.0 * new.expected, "{new:?}");
        let known = days(100, 8).per_year(20.0);
        assert!((known.expected / (8.0 * YEAR) - 1.0).abs() < 0.01, "{known:?}");
        assert!(known.low > 7.2 * YEAR && known.high < 8.8 * YEAR, "{known:?}");
    }

    #[test]
    fn impossible_days_are_cut() {
        let odd = Day { seconds: u32::MAX, strangers: u32::MAX, ..Day::default() };
        let mut traffic = Traffic::restored(&[odd; 1000]);
        assert_eq!(traffic.days().len(), MOST_DAYS);
        assert!(traffic.watched_days() <= 365.0);
        traffic.count(Whose::Stranger);
        assert!(traffic.watched(Duration::ZERO));
        assert!(traffic.per_year(1.0).high.is_finite());
    }

    proptest! {
        #[test]
        fn more_attempts_are_more_per_year(
            count in 0usize..40, strangers in 0u32..50, more in 1u32..50, assumed in 0.1f64..1000.0,
        ) {
            let (few, many) = (days(count + 1, strangers), days(count + 1, strangers + more));
            let (few, many) = (few.per_year(assumed), many.per_year(assumed));
            prop_assert!(few.low < few.expected && few.expected < few.high);
            prop_assert!(few.low < many.low && few.expected < many.expected && few.high < many.high);
        }
    }
}
