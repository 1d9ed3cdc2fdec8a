//! What is known of an input line: its level, what was told of it, and when.

use super::debounce::Debounce;
use std::fmt;
use std::time::Duration;

/// What is wired to a line. What active means is what its name says: pressed, closed,
/// asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    /// The button in the secured area; active is pressed.
    ButtonInside,
    /// The button outside; active is pressed.
    ButtonOutside,
    /// The contact of the door; active is closed.
    Contact,
    /// The request to exit; active is somebody who wants out.
    Exit,
    /// The jumper or button within the case; active is a local reset.
    Reset,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ButtonInside => "button inside",
            Self::ButtonOutside => "button outside",
            Self::Contact => "door contact",
            Self::Exit => "request to exit",
            Self::Reset => "local reset",
        })
    }
}

impl Name {
    /// Whether each edge counts, so that a pulse too short to be told in time is told
    /// late; of the others the level does.
    fn counts_edges(self) -> bool {
        match self {
            Self::ButtonInside | Self::ButtonOutside | Self::Exit | Self::Reset => true,
            Self::Contact => false,
        }
    }
}

/// What happened at a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It has another level; the first is told too.
    Edge {
        /// Which.
        name: Name,
        /// Its level.
        active: bool,
        /// When it came to that, by the kernel, since the inputs were started.
        at: Duration,
    },
    /// It cannot be read any more, or yet; it is tried until it can. Told once, and again
    /// when the reason is another.
    Away {
        /// Which.
        name: Name,
        /// Why.
        error: String,
    },
    /// It can be read again.
    Back {
        /// Which.
        name: Name,
    },
}

/// Kernel times on our clock. Both run alike, and the kernel's began earlier; by how much
/// is seen from edges: each is read some moment after it came, so the largest lead seen
/// is the nearest to the truth.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    lead: Duration,
    last: Duration,
}

impl Clock {
    /// When an edge came that has the kernel's time `kernel` and was read at `read`: not
    /// later than that, and not before the one before.
    pub fn at(&mut self, kernel: Duration, read: Duration) -> Duration {
        self.lead = self.lead.max(kernel.saturating_sub(read));
        self.last = kernel.saturating_sub(self.lead).min(read).max(self.last);
        self.last
    }
}

/// Edges that wait to be told: two pulses.
const MAX_OWED: usize = 4;

/// One line.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    counts_edges: bool,
    contact: Option<Debounce>,
    told: Option<bool>,
    /// In turn, each another level than the one before; one where the level counts.
    owed: heapless::Deque<(bool, Duration), MAX_OWED>,
}

impl Watch {
    /// Of a line that is not open yet.
    pub fn new(name: Name) -> Self {
        let counts_edges = name.counts_edges();
        Self { counts_edges, contact: None, told: None, owed: heapless::Deque::new() }
    }

    /// The line is open and has this level. `period` is what the kernel leaves to us.
    pub fn begin(&mut self, now: Duration, period: Duration, active: bool) {
        self.contact = Some(Debounce::new(period, active));
        self.owe(now, Some(active));
    }

    /// Takes an edge at its time.
    pub fn edge(&mut self, at: Duration, active: bool) {
        let change = self.contact.as_mut().and_then(|contact| contact.edge(at, active));
        self.owe(at, change);
    }

    /// Takes the level as it is read: an edge may have been lost.
    pub fn level(&mut self, now: Duration, active: bool) {
        let change = self.contact.as_mut().and_then(|contact| contact.level(now, active));
        self.owe(now, change);
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Duration) {
        let change = self.contact.as_mut().and_then(|contact| contact.tick(now));
        self.owe(now, change);
    }

    /// When a tick may bring a change.
    pub fn due(&self) -> Option<Duration> {
        self.contact.and_then(|contact| contact.due())
    }

    /// The level that is to be told next, and since when it was so.
    pub fn owed(&self) -> Option<(bool, Duration)> {
        self.owed.front().copied()
    }

    /// It was told.
    pub fn paid(&mut self) {
        if let Some((active, _)) = self.owed.pop_front() {
            self.told = Some(active);
        }
    }

    /// A level that could not be told and is left again was none where levels count.
    /// Where edges do, the earliest pulse is left out once there is no more room.
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
    fn the_first_level_is_told_and_then_changes() {
        let mut watch = Watch::new(Name::Contact);
        watch.begin(ms(5), ms(10), true);
        assert_eq!(watch.owed(), Some((true, ms(5))));
        watch.paid();
        watch.edge(ms(100), false);
        assert_eq!((watch.owed(), watch.due()), (None, Some(ms(110))));
        watch.tick(ms(111));
        assert_eq!(watch.owed(), Some((false, ms(111))));
        watch.paid();
        // Opened again, with nothing new.
        watch.begin(ms(200), ms(10), false);
        assert_eq!(watch.owed(), None);
    }

    /// All that is told.
    fn told(watch: &mut Watch) -> Vec<(bool, Duration)> {
        let told = std::iter::from_fn(|| {
            let owed = watch.owed();
            watch.paid();
            owed
        });
        told.collect()
    }

    #[test]
    fn a_queue_that_is_full_loses_no_level() {
        let mut watch = Watch::new(Name::Contact);
        watch.begin(ms(0), Duration::ZERO, false);
        watch.paid();
        watch.edge(ms(1), true);
        watch.edge(ms(2), false);
        assert_eq!(watch.owed(), None, "nobody was told that it was closed");
        watch.edge(ms(3), true);
        assert_eq!(told(&mut watch), [(true, ms(3))]);
    }

    #[test]
    fn a_press_too_short_to_be_told_in_time_is_told_late() {
        for name in [Name::ButtonInside, Name::ButtonOutside, Name::Exit, Name::Reset] {
            let mut watch = Watch::new(name);
            watch.begin(ms(0), Duration::ZERO, false);
            watch.paid();
            watch.edge(ms(1), true);
            watch.edge(ms(2), false);
            assert_eq!(told(&mut watch), [(true, ms(1)), (false, ms(2))], "{name}");
            // Of more than there is room for, the latest.
            for at in 3..10 {
                watch.edge(ms(at), at % 2 == 1);
            }
            let latest = [(true, ms(7)), (false, ms(8)), (true, ms(9))];
            assert_eq!(told(&mut watch), latest, "{name}");
        }
    }

    #[test]
    fn kernel_times_are_told_on_our_clock() {
        let mut clock = Clock::default();
        // Our clock began 1000 s after the kernel's; read after 5 ms, 1 ms and 9 ms.
        let boot = Duration::from_secs(1000);
        assert_eq!(clock.at(boot + ms(100), ms(105)), ms(105));
        assert_eq!(clock.at(boot + ms(200), ms(201)), ms(201));
        assert_eq!(clock.at(boot + ms(300), ms(309)), ms(301));
        // A clock that does not keep to that.
        assert_eq!(clock.at(ms(1), ms(400)), ms(301));
        assert_eq!(clock.at(boot * 2, ms(500)), ms(500));
    }

    proptest! {
        #[test]
        fn what_is_told_in_the_end_is_the_level(
            edges: bool,
            period in 0u64..20,
            steps in prop::collection::vec((0u64..30, any::<bool>(), 0u8..4), 0..80),
        ) {
            let mut watch = Watch::new(if edges { Name::Exit } else { Name::Contact });
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
