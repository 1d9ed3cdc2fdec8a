//! State of an input line: its level, the levels to report, and their times.

use super::debounce::Debounce;
use super::line::Name;
use std::time::Duration;

/// An event of an input line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineEvent {
    /// The level changed. The first level is reported too.
    Edge {
        /// The input.
        name: Name,
        /// The new level.
        active: bool,
        /// Time of the change by the kernel's timestamp, since the inputs were started.
        at: Duration,
    },
    /// The line cannot be read and is retried. Reported once per fault.
    Away {
        /// The input.
        name: Name,
        /// The fault.
        error: String,
    },
    /// The line can be read again.
    Back {
        /// The input.
        name: Name,
    },
}

/// Converts kernel timestamps to this program's clock. Both clocks run at the same rate,
/// and the kernel's started earlier. Each edge is read shortly after it happened, so the
/// largest difference seen is closest to the true one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    lead: Duration,
    last: Duration,
}

impl Clock {
    /// Time of an edge with the kernel timestamp `kernel` that was read at `read`: not
    /// later than `read`, and not before the previous edge.
    pub fn at(&mut self, kernel: Duration, read: Duration) -> Duration {
        self.lead = self.lead.max(kernel.saturating_sub(read));
        self.last = kernel.saturating_sub(self.lead).min(read).max(self.last);
        self.last
    }
}

/// Capacity for unreported levels: two pulses.
const MAX_OWED: usize = 4;

/// State of one line.
#[derive(Clone, Debug)]
pub(super) struct InputState {
    counts_edges: bool,
    contact: Option<Debounce>,
    told: Option<bool>,
    /// Unreported levels in order, each different from the one before; at most one if
    /// only the level counts.
    owed: heapless::Deque<(bool, Duration), MAX_OWED>,
}

impl InputState {
    /// A line that is not open yet.
    pub fn new(name: Name) -> Self {
        let counts_edges = name.counts_edges();
        Self { counts_edges, contact: None, told: None, owed: heapless::Deque::new() }
    }

    /// The line is open and has this level. `period` is the debounce period that the
    /// kernel does not handle.
    pub fn begin(&mut self, now: Duration, period: Duration, active: bool) {
        self.contact = Some(Debounce::new(period, active));
        self.owe(now, Some(active));
    }

    /// Takes an edge to the level `active` at the time `at`.
    pub fn edge(&mut self, at: Duration, active: bool) {
        let change = self.contact.as_mut().and_then(|contact| contact.edge(at, active));
        self.owe(at, change);
    }

    /// Takes the level read now, because an edge may have been lost.
    pub fn level(&mut self, now: Duration, active: bool) {
        let change = self.contact.as_mut().and_then(|contact| contact.level(now, active));
        self.owe(now, change);
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Duration) {
        let change = self.contact.as_mut().and_then(|contact| contact.tick(now));
        self.owe(now, change);
    }

    /// When the next tick may bring a change.
    pub fn due(&self) -> Option<Duration> {
        self.contact.and_then(|contact| contact.due())
    }

    /// The level to report next, and since when it holds.
    pub fn owed(&self) -> Option<(bool, Duration)> {
        self.owed.front().copied()
    }

    /// The level was reported.
    pub fn paid(&mut self) {
        if let Some((active, _)) = self.owed.pop_front() {
            self.told = Some(active);
        }
    }

    /// Queues a level. If only the level counts, an unreported older level is dropped. If
    /// edges count and the queue is full, its oldest pulse is dropped.
    fn owe(&mut self, at: Duration, change: Option<bool>) {
        let Some(active) = change else { return };
        if !self.counts_edges {
            self.owed.clear();
        }
        let last = self.owed.back().map(|(active, _)| *active).or(self.told);
        if last == Some(active) {
            return;
        }
        if self.owed.is_full() {
            self.owed.pop_front();
            self.owed.pop_front();
        }
        // There is room.
        let _ = self.owed.push_back((active, at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_first_level_is_reported_and_then_changes() {
        let mut watch = InputState::new(Name::Contact);
        watch.begin(ms(5), ms(10), true);
        assert_eq!(watch.owed(), Some((true, ms(5))));
        watch.paid();
        watch.edge(ms(100), false);
        assert_eq!((watch.owed(), watch.due()), (None, Some(ms(110))));
        watch.tick(ms(111));
        assert_eq!(watch.owed(), Some((false, ms(111))));
        watch.paid();
        // The line is opened again, with nothing new.
        watch.begin(ms(200), ms(10), false);
        assert_eq!(watch.owed(), None);
    }

    /// All levels that are reported.
    fn told(watch: &mut InputState) -> Vec<(bool, Duration)> {
        let told = std::iter::from_fn(|| {
            let owed = watch.owed();
            watch.paid();
            owed
        });
        told.collect()
    }

    #[test]
    fn a_queue_that_is_full_loses_no_level() {
        let mut watch = InputState::new(Name::Contact);
        watch.begin(ms(0), Duration::ZERO, false);
        watch.paid();
        watch.edge(ms(1), true);
        watch.edge(ms(2), false);
        assert_eq!(watch.owed(), None, "the closed level was not reported");
        watch.edge(ms(3), true);
        assert_eq!(told(&mut watch), [(true, ms(3))]);
    }

    #[test]
    fn a_short_press_is_reported_even_if_late() {
        for name in [Name::ButtonInside, Name::ButtonOutside, Name::Exit, Name::Reset] {
            let mut watch = InputState::new(name);
            watch.begin(ms(0), Duration::ZERO, false);
            watch.paid();
            watch.edge(ms(1), true);
            watch.edge(ms(2), false);
            assert_eq!(told(&mut watch), [(true, ms(1)), (false, ms(2))], "{name}");
            // If there are too many for the queue, the latest are kept.
            for at in 3..10 {
                watch.edge(ms(at), at % 2 == 1);
            }
            let latest = [(true, ms(7)), (false, ms(8)), (true, ms(9))];
            assert_eq!(told(&mut watch), latest, "{name}");
        }
    }

    #[test]
    fn kernel_times_are_converted_to_our_clock() {
        let mut clock = Clock::default();
        // Our clock starts 1000 s after the kernel's; read after 5 ms, 1 ms and 9 ms.
        let boot = Duration::from_secs(1000);
        assert_eq!(clock.at(boot + ms(100), ms(105)), ms(105));
        assert_eq!(clock.at(boot + ms(200), ms(201)), ms(201));
        assert_eq!(clock.at(boot + ms(300), ms(309)), ms(301));
        // A clock that runs at another rate.
        assert_eq!(clock.at(ms(1), ms(400)), ms(301));
        assert_eq!(clock.at(boot * 2, ms(500)), ms(500));
    }

    proptest! {
        #[test]
        fn the_last_report_is_the_level(
            edges: bool,
            period in 0u64..20,
            steps in prop::collection::vec((0u64..30, any::<bool>(), 0u8..4), 0..80),
        ) {
            let mut watch = InputState::new(if edges { Name::Exit } else { Name::Contact });
            let (mut now, mut level, mut told) = (0, false, vec![]);
            watch.begin(ms(0), ms(period), level);
            for (later, active, what) in steps {
                now += later;
                match what {
                    0 => {
                        level = active;
                        watch.edge(ms(now), level);
                    }
                    // An edge was lost.
                    1 => {
                        level = active;
                        watch.level(ms(now), level);
                    }
                    2 => watch.tick(ms(now)),
                    _ => {
                        told.extend(watch.owed());
                        watch.paid();
                    }
                }
            }
            watch.level(ms(now), level);
            watch.tick(ms(now + period));
            told.extend(self::told(&mut watch));
            prop_assert_eq!(told.last().map(|told| told.0), Some(level));
            for pair in told.windows(2) {
                prop_assert!(pair[0].0 != pair[1].0 && pair[0].1 <= pair[1].1, "{told:?}");
            }
        }
    }
}
