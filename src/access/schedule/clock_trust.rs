//! When to trust the wall clock: it must be synchronized, it must not jump against the
//! monotonic clock, and it is never before the last time at which it was trusted.
//!
//! Somebody who controls the network can set the clock at a boot as well as later, so the
//! first jump after a boot is no more trusted than another one. Without a jump the clock is
//! trusted at once: after a restart of the service alone, or if the time that the board
//! kept turns out to be right.

use jiff::civil::DateTime;
use std::time::Duration;

/// A larger movement of the wall clock against the monotonic clock is a jump: somebody set
/// the clock. Time services correct a few seconds at once, never minutes.
const JUMP: Duration = Duration::from_secs(60);
/// Corrections up to this many seconds per day are not added up. No time service needs
/// more, and an attacker can hardly reach the opening hours with them.
const FORGIVEN: i64 = 10;
const DAY: Duration = Duration::from_secs(86_400);
/// How long the clock is not trusted after a jump: a person who can set it could set it to
/// opening hours.
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
    /// Whether the installer vouches for the clock, which has a battery for instance.
    pub vouched_for: bool,
}

/// What was known about the clock when the service ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownTime {
    /// The last time at which the clock was trusted, Unix seconds; 0 if never.
    pub floor: i64,
    /// The time that a trusted clock must show now, Unix seconds. `None` after a boot.
    pub now: Option<i64>,
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
    /// The clock is not trusted for a while: nothing shows that it has not jumped.
    Unproven,
    /// The clock is not trusted: it is this many seconds before the last time at which it
    /// was.
    Behind(i64),
}

/// ```text
///            synchronized, no jump             jumped
///   Unsure ------------------------> Trusted ----------> Doubted
///    ^ | ^------ not synchronized -----+  ^--- steady -----+ ^ ^  (jumped: the wait restarts)
///    | |                                                     | |
///    | +-- synchronized, jumped or no reading before --------+ |
///    |                                                         |
///    +-- Behind: before the last time known, from all states --+ no longer
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unsure,
    Trusted,
    Behind,
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
    /// The last time at which the clock was trusted, Unix seconds.
    floor: i64,
    /// Until when a clock that is synchronized again is not trusted, and why.
    doubt: Option<(Duration, TrustNote)>,
}

impl Default for WallClock {
    fn default() -> Self {
        Self { state: State::Unsure, last: None, anchor: None, floor: 0, doubt: None }
    }
}

impl WallClock {
    /// Takes up at `now` what was known when the service ended.
    pub fn resume(&mut self, now: Duration, known: KnownTime) {
        self.floor = self.floor.max(known.floor);
        self.anchor = self.anchor.or(known.now.map(|unix| (now, unix)));
    }

    /// The last time at which the clock was trusted, Unix seconds; 0 if never.
    pub fn floor(&self) -> i64 {
        self.floor
    }

    /// Trusts the clock as it is, also if it is before the last time known: an administrator
    /// has compared it with another clock.
    pub fn accept(&mut self, now: Duration) -> Option<TrustNote> {
        let (_, reading) = self.last?;
        self.floor = reading.unix;
        self.doubt = None;
        self.anchor = Some((now, reading.unix));
        let trusted = reading.synchronized && self.state != State::Trusted;
        trusted.then(|| {
            self.state = State::Trusted;
            TrustNote::Trusted
        })
    }

    /// Takes a reading at `now`, on a clock that never runs backwards.
    pub fn step(&mut self, now: Duration, reading: Reading) -> Option<TrustNote> {
        let since = |(at, unix): (Duration, i64)| {
            let passed = now.saturating_sub(at).as_secs() as i64;
            reading.unix.saturating_sub(unix).saturating_sub(passed)
        };
        let at_once = self.last.map_or(0, |(at, last)| since((at, last.unix)));
        let in_all = self.anchor.map_or(0, since);
        let seen_before = self.anchor.is_some();
        self.last = Some((now, reading));
        let far = |moved: &i64| moved.unsigned_abs() > JUMP.as_secs();
        let moved = [at_once, in_all].into_iter().find(far);
        self.doubt = moved.map(|by| (now + SETTLES, TrustNote::Jumped(by))).or(self.doubt);
        match self.anchor {
            Some((at, _)) if moved.is_none() && reading.synchronized => {
                if now >= at + DAY {
                    let left = in_all - in_all.clamp(-FORGIVEN, FORGIVEN);
                    self.anchor = Some((now, reading.unix.saturating_sub(left)));
                }
            }
            _ => self.anchor = Some((now, reading.unix)),
        }
        let behind = self.floor.saturating_sub(reading.unix);
        let doubted = State::Doubted { until: now + SETTLES };
        if behind > JUMP.as_secs() as i64 {
            // A clock that has been wrong is not trusted at once when it no longer is.
            self.doubt = Some((now + SETTLES, TrustNote::Unproven));
        }
        let doubt = self.doubt.filter(|(until, _)| now < *until);
        let (state, note) = match (self.state, moved) {
            (State::Unsure, _) if !reading.synchronized => (State::Unsure, None),
            (_, _) if !reading.synchronized => (State::Unsure, Some(TrustNote::NotSynchronized)),
            (State::Behind, _) if behind > JUMP.as_secs() as i64 => (State::Behind, None),
            (_, _) if behind > JUMP.as_secs() as i64 => {
                (State::Behind, Some(TrustNote::Behind(behind)))
            }
            // A time server may set the clock a moment before the system reports it, or lose
            // its connection for a moment.
            (State::Unsure, _) if doubt.is_some() => {
                let (until, note) = doubt.unwrap_or((now + SETTLES, TrustNote::Unproven));
                (State::Doubted { until }, Some(note))
            }
            (_, Some(moved)) => (doubted, Some(TrustNote::Jumped(moved))),
            (State::Unsure, None) if seen_before || reading.vouched_for => {
                (State::Trusted, Some(TrustNote::Trusted))
            }
            (State::Unsure | State::Behind, None) => {
                self.doubt = Some((now + SETTLES, TrustNote::Unproven));
                (doubted, Some(TrustNote::Unproven))
            }
            (State::Doubted { until }, None) if now >= until => {
                (State::Trusted, Some(TrustNote::Trusted))
            }
            (state @ (State::Trusted | State::Doubted { .. }), None) => (state, None),
        };
        self.state = state;
        if state == State::Trusted {
            self.floor = self.floor.max(reading.unix);
            self.doubt = None;
        }
        note
    }

    /// Unix seconds now, if the clock is trusted.
    pub fn unix(&self, now: Duration) -> Option<i64> {
        let (at, reading) = self.last?;
        let since = now.saturating_sub(at);
        let trusted = self.state == State::Trusted && since <= STALE;
        trusted.then(|| reading.unix.saturating_add(since.as_secs() as i64))
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
        let local = TimeZone::UTC.to_datetime(time);
        Reading { unix, local, synchronized, vouched_for: false }
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const BOOT: i64 = 1_795_600_000;

    /// A clock that is trusted from 0 s on.
    fn trusted() -> WallClock {
        let mut clock = WallClock::default();
        clock.step(s(0), reading(BOOT, false));
        assert_eq!(clock.step(s(0), reading(BOOT, true)), Some(TrustNote::Trusted));
        clock
    }

    #[test]
    fn a_clock_that_was_right_is_trusted_once_it_is_synchronized_and_doubted_after_a_jump() {
        let mut clock = WallClock::default();
        assert_eq!(clock.step(s(1), reading(BOOT - 20, false)), None);
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
    fn the_first_jump_after_a_boot_is_doubted_like_any_other() {
        // Without a battery the clock starts in 1970. It may be set before the system
        // reports that it is synchronized.
        for synchronized in [true, false] {
            let mut clock = WallClock::default();
            clock.step(s(1), reading(10, false));
            let jumped = clock.step(s(30), reading(BOOT, synchronized));
            let by = TrustNote::Jumped(BOOT - 10 - 29);
            assert_eq!(jumped, synchronized.then_some(by));
            let jumped = clock.step(s(31), reading(BOOT + 1, true));
            assert_eq!(jumped, (!synchronized).then_some(by));
            assert_eq!(clock.now(s(31)), Clock::Unsure);
            assert_eq!(clock.step(s(629), reading(BOOT + 599, true)), None);
            let settled = clock.step(s(631), reading(BOOT + 601, true));
            assert_eq!(settled, Some(TrustNote::Trusted));
        }
        // It was synchronized before anybody looked.
        let mut clock = WallClock::default();
        assert_eq!(clock.step(s(5), reading(BOOT, true)), Some(TrustNote::Unproven));
        assert_eq!(clock.step(s(604), reading(BOOT + 599, true)), None);
        assert_eq!(clock.step(s(605), reading(BOOT + 600, true)), Some(TrustNote::Trusted));
        // A battery.
        let mut clock = WallClock::default();
        let vouched_for = Reading { vouched_for: true, ..reading(BOOT, true) };
        assert_eq!(clock.step(s(5), vouched_for), Some(TrustNote::Trusted));
    }

    #[test]
    fn a_restart_of_the_service_alone_keeps_the_trust() {
        let mut clock = WallClock::default();
        clock.resume(s(0), KnownTime { floor: BOOT - 100, now: Some(BOOT) });
        assert_eq!(clock.step(s(2), reading(BOOT + 3, true)), Some(TrustNote::Trusted));
        // Set while the service was down.
        let mut clock = WallClock::default();
        clock.resume(s(0), KnownTime { floor: BOOT - 100, now: Some(BOOT) });
        let jumped = clock.step(s(2), reading(BOOT + 7202, true));
        assert_eq!(jumped, Some(TrustNote::Jumped(7200)));
    }

    #[test]
    fn a_time_before_the_last_one_known_is_never_trusted_until_an_administrator_accepts_it() {
        for vouched_for in [false, true] {
            let mut clock = WallClock::default();
            clock.resume(s(0), KnownTime { floor: BOOT, now: None });
            let early = |at: u64| Reading { vouched_for, ..reading(BOOT - 3600 + at as i64, true) };
            let behind = clock.step(s(1), early(1));
            assert_eq!(behind, Some(TrustNote::Behind(3599)));
            assert_eq!(clock.step(s(2000), early(2000)), None);
            assert_eq!(clock.now(s(2000)), Clock::Unsure);
            assert_eq!(clock.clone().accept(s(2000)), Some(TrustNote::Trusted));
            // It has caught up.
            assert_eq!(clock.step(s(3600), early(3600)), Some(TrustNote::Unproven));
            assert_eq!(clock.step(s(4200), early(4200)), Some(TrustNote::Trusted));
            assert_eq!(clock.floor(), BOOT + 600);
        }
        // Set back while the service runs.
        let mut clock = trusted();
        clock.step(s(50), reading(BOOT + 50, true));
        let back = clock.step(s(60), reading(BOOT - 500, true));
        assert_eq!(back, Some(TrustNote::Behind(550)));
        assert_eq!(clock.step(s(900), reading(BOOT - 100, true)), None);
        assert_eq!(clock.now(s(900)), Clock::Unsure);
        // Accepted: from now on that is the last time known.
        assert_eq!(clock.accept(s(900)), Some(TrustNote::Trusted));
        assert_eq!(clock.step(s(910), reading(BOOT - 90, true)), None);
        assert_ne!(clock.now(s(910)), Clock::Unsure);
    }

    #[test]
    fn many_small_steps_are_doubted_like_one_but_those_of_a_time_service_are_not() {
        let mut clock = trusted();
        assert_eq!(clock.step(s(10), reading(BOOT + 50, true)), None);
        let jumped = clock.step(s(20), reading(BOOT + 100, true));
        assert_eq!(jumped, Some(TrustNote::Jumped(80)));
        let mut clock = trusted();
        for day in 1..100 {
            let unix = BOOT + day * (86_400 + 9);
            assert_eq!(clock.step(s(86_400 * day as u64), reading(unix, true)), None, "{day}");
        }
    }

    #[test]
    fn a_clock_that_is_no_longer_read_is_not_trusted() {
        let clock = trusted();
        assert_ne!(clock.now(s(60)), Clock::Unsure);
        assert_eq!(clock.now(s(61)), Clock::Unsure);
    }

    proptest! {
        /// Only a synchronized clock that has not jumped for 10 minutes, and that is not
        /// before the last time at which it was trusted, is trusted.
        #[test]
        fn no_jump_is_believed_for_a_while(
            readings in prop::collection::vec((0u64..120, -7200i64..7200, any::<bool>()), 1..60),
            floor in -3600i64..3600,
        ) {
            let mut clock = WallClock::default();
            clock.resume(s(0), KnownTime { floor: BOOT + floor, now: None });
            let (mut now, mut unix, mut newest) = (0, BOOT, BOOT + floor);
            // Nobody knows what was before the first reading.
            let mut last_jump = 0;
            let mut first = true;
            for (later, by, synchronized) in readings {
                now += later;
                // Two of three steps are small enough for a time service.
                let by = if by % 3 == 0 { by } else { by % 60 };
                unix += later as i64 + by;
                clock.step(s(now), reading(unix, synchronized));
                if by.abs() > 60 && !first || first && synchronized {
                    last_jump = now;
                } else if first {
                    // An unsynchronized clock that turns out to be right.
                    last_jump = 0;
                }
                let proven = !first && last_jump == 0;
                first = false;
                if clock.now(s(now)) != Clock::Unsure {
                    prop_assert!(synchronized);
                    prop_assert!(proven || now >= last_jump + 600);
                    prop_assert!(unix >= newest - 60, "{} before the floor", newest - unix);
                    newest = newest.max(unix);
                }
            }
        }
    }
}
