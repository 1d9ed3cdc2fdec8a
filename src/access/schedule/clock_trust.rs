//! When to trust the wall clock: it must be synchronized, and it must not jump against
//! the monotonic clock.

use jiff::civil::DateTime;
use std::time::Duration;

/// A larger movement of the wall clock against the monotonic clock is a jump: somebody set
/// the clock. Time services correct a few seconds at once, never minutes.
const JUMP: Duration = Duration::from_secs(60);
/// Corrections up to this many seconds per day are not added up. No time service needs
/// more, and an attacker can hardly reach the opening hours with them.
const FORGIVEN: i64 = 10;
const DAY: Duration = Duration::from_secs(86_400);
/// How long the clock is not trusted after a jump while it was synchronized: a person who
/// can set it could set it to opening hours.
const SETTLES: Duration = Duration::from_secs(600);
/// Maximum age of a reading; an older one is not trusted.
const STALE: Duration = Duration::from_secs(60);

/// A reading of the system's wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Seconds since 1970-01-01 UTC, which daylight saving time does not affect.
    pub unix: i64,
    /// The same time as local time.
    pub local: DateTime,
    /// Whether the system reports that the clock is synchronized with a time server.
    pub synchronized: bool,
}

/// The local time, if the clock is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The clock is trusted and shows this time.
    Trusted(DateTime),
    /// The clock is not trusted.
    Unsure,
}

/// A change of trust in the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrustNote {
    /// The clock is trusted from now on.
    Trusted,
    /// The clock is no longer trusted: it is not synchronized.
    NotSynchronized,
    /// The clock is not trusted for a while: it has jumped by this many seconds.
    Jumped(i64),
}

/// ```text
///              synchronized                jumped
///   Unsure ------------------> Trusted ------------> Doubted
///     ^  ^--- not synchronized ---+  ^--- steady ------+ |  (jumped: the wait restarts)
///     +------------------------------ not synchronized --+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unsure,
    Trusted,
    Doubted { until: Duration },
}

/// Decides from readings of the wall clock whether to trust it.
#[derive(Clone, Debug)]
pub struct WallClock {
    state: State,
    last: Option<(Duration, Reading)>,
    /// Start of the comparison, as monotonic time and Unix time in seconds. With it many
    /// small steps count like one large step.
    anchor: Option<(Duration, i64)>,
}

impl Default for WallClock {
    fn default() -> Self {
        Self { state: State::Unsure, last: None, anchor: None }
    }
}

impl WallClock {
    /// Takes a reading at `now`, on a clock that never runs backwards.
    pub fn step(&mut self, now: Duration, reading: Reading) -> Option<TrustNote> {
        let since = |(at, unix): (Duration, i64)| {
            let passed = now.saturating_sub(at).as_secs() as i64;
            reading.unix.saturating_sub(unix).saturating_sub(passed)
        };
        let at_once = self.last.map_or(0, |(at, last)| since((at, last.unix)));
        let in_all = self.anchor.map_or(0, since);
        self.last = Some((now, reading));
        let far = |moved: &i64| moved.unsigned_abs() > JUMP.as_secs();
        let moved = [at_once, in_all].into_iter().find(far);
        match self.anchor {
            Some((at, _)) if moved.is_none() && reading.synchronized => {
                if now >= at + DAY {
                    let left = in_all - in_all.clamp(-FORGIVEN, FORGIVEN);
                    self.anchor = Some((now, reading.unix.saturating_sub(left)));
                }
            }
            _ => self.anchor = Some((now, reading.unix)),
        }
        let (state, note) = match (self.state, reading.synchronized) {
            // The jump when the clock is synchronized for the first time is expected.
            (State::Unsure, true) => (State::Trusted, Some(TrustNote::Trusted)),
            (State::Unsure, false) => (State::Unsure, None),
            (State::Trusted | State::Doubted { .. }, false) => {
                (State::Unsure, Some(TrustNote::NotSynchronized))
            }
            (State::Trusted | State::Doubted { .. }, true) => match (self.state, moved) {
                (_, Some(moved)) => {
                    (State::Doubted { until: now + SETTLES }, Some(TrustNote::Jumped(moved)))
                }
                (State::Doubted { until }, None) if now >= until => {
                    (State::Trusted, Some(TrustNote::Trusted))
                }
                (state, None) => (state, None),
            },
        };
        self.state = state;
        note
    }

    /// The last reading, if the clock is trusted and the reading at most 60 seconds old.
    pub fn now(&self, now: Duration) -> Clock {
        match (self.state, self.last) {
            (State::Trusted, Some((at, reading))) if now.saturating_sub(at) <= STALE => {
                Clock::Trusted(reading.local)
            }
            _ => Clock::Unsure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::{Timestamp, tz::TimeZone};
    use proptest::prelude::*;

    fn reading(unix: i64, synchronized: bool) -> Reading {
        let time = Timestamp::from_second(unix).expect("a time");
        Reading { unix, local: TimeZone::UTC.to_datetime(time), synchronized }
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const BOOT: i64 = 1_795_600_000;

    #[test]
    fn a_clock_is_trusted_once_it_is_synchronized_and_doubted_after_a_jump() {
        let mut clock = WallClock::default();
        // After a boot without a battery the clock starts in 1970.
        assert_eq!(clock.step(s(1), reading(10, false)), None);
        assert_eq!(clock.now(s(1)), Clock::Unsure);
        assert_eq!(clock.step(s(30), reading(BOOT, true)), Some(TrustNote::Trusted));
        assert_eq!(clock.now(s(30)), Clock::Trusted(reading(BOOT, true).local));
        assert_eq!(clock.step(s(60), reading(BOOT + 35, true)), None);
        let jumped = clock.step(s(90), reading(BOOT + 3665, true));
        assert_eq!(jumped, Some(TrustNote::Jumped(3600)));
        assert_eq!(clock.now(s(90)), Clock::Unsure);
        assert_eq!(clock.step(s(689), reading(BOOT + 4264, true)), None);
        assert_eq!(clock.step(s(690), reading(BOOT + 4265, true)), Some(TrustNote::Trusted));
        let lost = clock.step(s(700), reading(BOOT + 4275, false));
        assert_eq!(lost, Some(TrustNote::NotSynchronized));
        assert_eq!(clock.now(s(700)), Clock::Unsure);
    }

    #[test]
    fn many_small_steps_are_doubted_like_one_but_those_of_a_time_service_are_not() {
        let mut clock = WallClock::default();
        clock.step(s(0), reading(BOOT, true));
        assert_eq!(clock.step(s(10), reading(BOOT + 50, true)), None);
        let jumped = clock.step(s(20), reading(BOOT + 100, true));
        assert_eq!(jumped, Some(TrustNote::Jumped(80)));
        let mut clock = WallClock::default();
        clock.step(s(0), reading(BOOT, true));
        for day in 1..100 {
            let unix = BOOT + day * (86_400 + 9);
            assert_eq!(clock.step(s(86_400 * day as u64), reading(unix, true)), None, "{day}");
        }
    }

    #[test]
    fn a_clock_that_is_no_longer_read_is_not_trusted() {
        let mut clock = WallClock::default();
        clock.step(s(0), reading(BOOT, true));
        assert_ne!(clock.now(s(60)), Clock::Unsure);
        assert_eq!(clock.now(s(61)), Clock::Unsure);
    }

    proptest! {
        /// Only a synchronized clock that has not jumped for 10 minutes is trusted.
        #[test]
        fn no_jump_is_believed_for_a_while(
            readings in prop::collection::vec((0u64..120, -7200i64..7200, any::<bool>()), 1..60),
        ) {
            let mut clock = WallClock::default();
            let (mut now, mut unix) = (0, BOOT);
            let mut was_synchronized = false;
            let mut last_jump: Option<u64> = None;
            for (later, by, synchronized) in readings {
                now += later;
                // Two of three steps are small enough for a time service.
                let by = if by % 3 == 0 { by } else { by % 60 };
                unix += later as i64 + by;
                clock.step(s(now), reading(unix, synchronized));
                if by.abs() > 60 && was_synchronized {
                    last_jump = Some(now);
                }
                if !synchronized {
                    last_jump = None;
                }
                was_synchronized = synchronized;
                if clock.now(s(now)) != Clock::Unsure {
                    prop_assert!(synchronized);
                    prop_assert!(last_jump.is_none_or(|at| now >= at + 600));
                }
            }
        }
    }
}
