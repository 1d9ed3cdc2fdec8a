//! By how many steps the false accept rate is tightened.
//!
//! ```text
//!   more steps are needed                          -> all of them at once
//!   fewer would do for 7/10 of the budget, and
//!     have for a day                               -> one fewer, and the day begins again
//!   there is no budget any more                    -> none
//! ```
//!
//! So a rate that is near the budget does not make the thresholds flutter, and every change
//! is an event.

use super::estimate::MOST_STEPS;
use std::time::Duration;

/// Share of the budget within which fewer steps must do before the rate is loosened.
pub const LOOSEN_WITHIN: f64 = 0.7;

/// Time for which they must.
const LOOSEN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Steps needed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needed {
    /// For the budget.
    pub steps: u8,
    /// For [`LOOSEN_WITHIN`] of the budget; at least as many.
    pub to_loosen: u8,
}

/// The steps in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tightening {
    steps: u8,
    /// Since when fewer steps have been enough.
    loose_since: Option<Duration>,
}

impl Tightening {
    /// Goes on with the steps from before a restart.
    pub fn restored(steps: u8) -> Self {
        Self { steps: steps.min(MOST_STEPS), loose_since: None }
    }

    /// The steps in use.
    pub fn steps(&self) -> u8 {
        self.steps
    }

    /// Takes what is needed now; `None` if there is no budget. Returns the steps before if
    /// they have changed.
    pub fn step(&mut self, now: Duration, needed: Option<Needed>) -> Option<u8> {
        let before = self.steps;
        match needed {
            None => *self = Self::default(),
            Some(needed) if needed.steps > self.steps => {
                *self = Self::restored(needed.steps);
            }
            Some(needed) if needed.to_loosen < self.steps => {
                let since = *self.loose_since.get_or_insert(now);
                if now >= since + LOOSEN_AFTER {
                    *self = Self { steps: self.steps - 1, loose_since: Some(now) };
                }
            }
            Some(_) => self.loose_since = None,
        }
        (self.steps != before).then_some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn h(hours: u64) -> Duration {
        Duration::from_secs(hours * 3600)
    }

    fn needed(steps: u8, to_loosen: u8) -> Option<Needed> {
        Some(Needed { steps, to_loosen })
    }

    #[test]
    fn it_tightens_at_once_and_loosens_one_step_a_day() {
        let mut tightening = Tightening::default();
        assert_eq!(tightening.step(h(0), needed(0, 0)), None);
        assert_eq!(tightening.step(h(1), needed(3, 3)), Some(0));
        // Near the budget nothing changes.
        for at in 2..100 {
            assert_eq!(tightening.step(h(at), needed(2, 3)), None);
        }
        assert_eq!(tightening.step(h(100), needed(0, 0)), None);
        assert_eq!(tightening.step(h(123), needed(0, 0)), None);
        assert_eq!(tightening.step(h(124), needed(0, 0)), Some(3));
        assert_eq!(tightening.step(h(147), needed(0, 0)), None);
        assert_eq!(tightening.step(h(148), needed(0, 0)), Some(2));
        assert_eq!(tightening.steps(), 1);
        // The day begins again.
        assert_eq!(tightening.step(h(160), needed(1, 1)), None);
        assert_eq!(tightening.step(h(172), needed(0, 0)), None);
        assert_eq!(tightening.step(h(180), None), Some(1));
    }

    #[test]
    fn a_restart_keeps_the_steps() {
        let mut tightening = Tightening::restored(2);
        assert_eq!(tightening.step(h(0), needed(1, 1)), None);
        assert_eq!(tightening.steps(), 2);
        assert_eq!(Tightening::restored(200).steps(), MOST_STEPS);
    }

    proptest! {
        #[test]
        fn it_never_has_fewer_steps_than_needed_and_loosens_slowly(
            timeline in prop::collection::vec((0u64..20, 0u8..=MOST_STEPS, 0u8..=MOST_STEPS), 1..60),
        ) {
            let mut tightening = Tightening::default();
            let (mut now, mut loosened) = (0, None);
            for (hours, steps, more) in timeline {
                now += hours;
                let before = tightening.steps();
                let changed = tightening.step(h(now), needed(steps, steps.max(more)));
                prop_assert!(tightening.steps() >= steps);
                prop_assert_eq!(changed.is_some(), before != tightening.steps());
                if tightening.steps() < before {
                    prop_assert_eq!(tightening.steps(), before - 1);
                    prop_assert!(loosened.is_none_or(|at| now >= at + 24));
                    loosened = Some(now);
                }
            }
        }
    }
}
