//! Turns a bouncing contact into a steady level, for lines that the kernel refuses to
//! debounce. The kernel does it in software only if the driver lacks the setting
//! (`ENOTSUPP`). If the driver has it but cannot do the period, the request fails, as
//! with gpio-omap of Linux 5.10 above 7.9 ms.
//!
//! ```text
//!              an edge to another level
//!   Steady ------------------------------> Moving (since the last edge)
//!      ^                                    |   |
//!      +-- back at the old level -----------+   | that level for the period: reported
//!      +----------------------------------------+
//! ```
//!
//! As in the kernel, a change is reported after the new level was stable for the period,
//! so two changes are never closer than one period.

use std::time::Duration;

/// Default debounce period of an input. Of 18 switches measured by J. Ganssle (A Guide to
/// Debouncing, 2004), all but one bounced for less than 6.2 ms; three times that is too
/// short to be noticed.
pub const DEBOUNCE: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Steady,
    Moving { since: Duration },
}

/// The debounced state of one contact.
#[derive(Clone, Copy, Debug)]
pub struct Debounce {
    period: Duration,
    /// The level reported last.
    active: bool,
    state: State,
}

impl Debounce {
    /// A contact at this level.
    pub fn new(period: Duration, active: bool) -> Self {
        Self { period, active, state: State::Steady }
    }

    /// The level reported last.
    pub fn active(&self) -> bool {
        self.active
    }

    /// When the next tick may report a change; `None` while the level is steady.
    pub fn due(&self) -> Option<Duration> {
        match self.state {
            State::Steady => None,
            State::Moving { since } => Some(since + self.period),
        }
    }

    /// Takes an edge to the level `active` at the time `at`; returns the new level if it
    /// changed.
    pub fn edge(&mut self, at: Duration, active: bool) -> Option<bool> {
        // The level before the edge may have been stable long enough.
        let before = self.tick(at);
        self.state =
            if active == self.active { State::Steady } else { State::Moving { since: at } };
        // Both can be changes only if the period is zero.
        self.tick(at).or(before.filter(|before| *before == self.active))
    }

    /// Takes the level read now; returns the new level if it changed. Unlike an edge, an
    /// unchanged reading does not restart the period.
    pub fn level(&mut self, now: Duration, active: bool) -> Option<bool> {
        match self.state {
            State::Moving { .. } if active != self.active => self.tick(now),
            State::Steady if active == self.active => None,
            State::Moving { .. } | State::Steady => self.edge(now, active),
        }
    }

    /// Lets time pass; returns the new level if it changed.
    pub fn tick(&mut self, now: Duration) -> Option<bool> {
        match self.state {
            State::Moving { since } if now >= since + self.period => {
                self.state = State::Steady;
                self.active = !self.active;
                Some(self.active)
            }
            State::Moving { .. } | State::Steady => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PERIOD: Duration = Duration::from_millis(10);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_press_that_bounces_is_one_press() {
        let mut contact = Debounce::new(PERIOD, false);
        for (at, active) in [(100, true), (101, false), (103, true), (104, false), (105, true)] {
            assert_eq!(contact.edge(ms(at), active), None);
        }
        assert_eq!((contact.tick(ms(114)), contact.due()), (None, Some(ms(115))));
        assert_eq!((contact.tick(ms(115)), contact.due()), (Some(true), None));
        assert_eq!(contact.edge(ms(200), false), None);
        // The next edge comes before the tick.
        assert_eq!(contact.edge(ms(215), true), Some(false));
        assert_eq!(contact.tick(ms(225)), Some(true));
    }

    #[test]
    fn a_spike_is_nothing() {
        let mut contact = Debounce::new(PERIOD, false);
        assert_eq!(contact.edge(ms(100), true), None);
        assert_eq!(contact.edge(ms(109), false), None);
        assert_eq!((contact.tick(ms(500)), contact.due()), (None, None));
    }

    #[test]
    fn without_a_period_every_edge_counts() {
        let mut contact = Debounce::new(Duration::ZERO, false);
        assert_eq!(contact.edge(ms(1), true), Some(true));
        assert_eq!(contact.edge(ms(1), false), Some(false));
        assert_eq!(contact.edge(ms(1), false), None);
    }

    #[test]
    fn a_level_without_an_edge_counts() {
        let mut contact = Debounce::new(PERIOD, false);
        assert_eq!(contact.level(ms(100), true), None);
        assert_eq!(contact.level(ms(105), true), None);
        assert_eq!(contact.level(ms(110), true), Some(true));
    }

    proptest! {
        #[test]
        fn never_two_changes_within_the_period_and_in_the_end_the_truth(
            period in 0u64..30,
            first in any::<bool>(),
            steps in prop::collection::vec((0u64..40, 0u8..4), 0..100),
        ) {
            let mut contact = Debounce::new(ms(period), first);
            let (mut now, mut level) = (0, first);
            let mut changes: Vec<(u64, bool)> = vec![];
            for (later, what) in steps {
                now += later;
                let change = match what {
                    // An edge; one to the same level is one whose other was missed.
                    0 | 1 => {
                        level = what == 1;
                        contact.edge(ms(now), level)
                    }
                    2 => contact.level(ms(now), level),
                    _ => contact.tick(ms(now)),
                };
                changes.extend(change.map(|active| (now, active)));
            }
            now += period;
            changes.extend(contact.tick(ms(now)).map(|active| (now, active)));
            let mut last = first;
            for (_, active) in &changes {
                prop_assert_eq!(*active, !last, "a change changes");
                last = *active;
            }
            prop_assert_eq!(last, level);
            prop_assert_eq!(contact.active(), level);
            for pair in changes.windows(2) {
                prop_assert!(pair[1].0 - pair[0].0 >= period, "{changes:?}");
            }
        }
    }
}
