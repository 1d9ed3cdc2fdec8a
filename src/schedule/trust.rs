//! Whether the wall clock can be trusted: it must be synchronized, and go on as the
//! monotonic clock does.

use super::LocalTime;
use std::time::Duration;

/// A wall clock that moves by more than this against the monotonic one was set:
/// time services correct a few seconds at once, never minutes.
const JUMP: Duration = Duration::from_secs(60);
/// A clock that was set while it was synchronized is not trusted for so long:
/// whoever can set it could set it to opening hours.
const SETTLES: Duration = Duration::from_secs(600);
/// A reading older than this says nothing.
const STALE: Duration = Duration::from_secs(60);

/// What the system's clock shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Seconds since 1970, UTC: no zone makes it jump.
    pub unix: i64,
    /// The same as the clock on the wall shows it.
    pub local: LocalTime,
    /// Whether the system says that it follows a time server.
    pub synchronized: bool,
}

/// The time, where it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// It is this.
    Trusted(LocalTime),
    /// Nobody knows.
    Unsure,
}

/// What to tell of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrustNote {
    /// From now on it is trusted.
    Trusted,
    /// No longer: it is not synchronized.
    NotSynchronized,
    /// Not for a while: it has jumped, by so many seconds.
    Jumped(i64),
}

/// ```text
///              synchronized                jumped
///   Unsure ------------------> Trusted ------------> Doubted
///     ^  ^--- not synchronized ---+  ^--- steady ------+ |  (jumped: doubted anew)
///     +------------------------------ not synchronized --+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unsure,
    Trusted,
    Doubted { until: Duration },
}

/// The wall clock as far as it can be trusted.
#[derive(Clone, Debug)]
pub struct WallClock {
    state: State,
    last: Option<(Duration, Reading)>,
}

impl Default for WallClock {
    fn default() -> Self {
        Self { state: State::Unsure, last: None }
    }
}

impl WallClock {
    /// Takes a reading, `now` on a clock that does not run backwards.
    pub fn step(&mut self, now: Duration, reading: Reading) -> Option<TrustNote> {
        let moved = self.last.map_or(0, |(at, last)| {
            let passed = now.saturating_sub(at).as_secs() as i64;
            reading.unix.saturating_sub(last.unix).saturating_sub(passed)
        });
        self.last = Some((now, reading));
        let jumped = moved.unsigned_abs() > JUMP.as_secs();
        let (state, note) = match (self.state, reading.synchronized) {
            // That a clock jumps as it is first set right is no wonder.
            (State::Unsure, true) => (State::Trusted, Some(TrustNote::Trusted)),
            (State::Unsure, false) => (State::Unsure, None),
            (State::Trusted | State::Doubted { .. }, false) => {
                (State::Unsure, Some(TrustNote::NotSynchronized))
            }
            (State::Trusted | State::Doubted { .. }, true) if jumped => {
                (State::Doubted { until: now + SETTLES }, Some(TrustNote::Jumped(moved)))
            }
            (State::Doubted { until }, true) if now >= until => {
                (State::Trusted, Some(TrustNote::Trusted))
            }
            (state @ (State::Trusted | State::Doubted { .. }), true) => (state, None),
        };
        self.state = state;
        note
    }

    /// The time as last read.
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
    use crate::schedule::Date;
    use proptest::prelude::*;

    fn reading(unix: i64, synchronized: bool) -> Reading {
        let (days, second) = (unix.div_euclid(86_400), unix.rem_euclid(86_400));
        let local = LocalTime::new(Date::from_days(days as i32), (second / 60) as u16);
        Reading { unix, local: local.expect("a time"), synchronized }
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const BOOT: i64 = 1_795_600_000;

    #[test]
    fn a_clock_is_trusted_once_it_is_synchronized_and_doubted_after_a_jump() {
        let mut clock = WallClock::default();
        // After booting without a battery it is 1970 at first.
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
    fn a_clock_that_is_no_longer_read_is_not_trusted() {
        let mut clock = WallClock::default();
        clock.step(s(0), reading(BOOT, true));
        assert_ne!(clock.now(s(60)), Clock::Unsure);
        assert_eq!(clock.now(s(61)), Clock::Unsure);
    }

    proptest! {
        /// Nothing but a synchronized clock that has not jumped for a while is
        /// trusted, whatever it shows.
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
                // Two in three are steps that time services take, too.
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
