//! The door's lock, as a state machine.
//!
//! The lock is fail-secure: energised is open, so a dead board leaves the door
//! locked.
//!
//! ```text
//!            Grant / Energise            Energised
//!   Locked ------------------> Unlocking ----------> Unlocked (until)
//!     ^  \                        | Failed              | time is up, or Stop
//!     |   \ Stop / Release        | Stop  / Release     | / Release
//!     |    v                      v                     v
//!     +-- Locking <-------------------------------------+
//!  Released  | Failed: Release again, after a moment
//! ```
//!
//! A state moves on only after the relay has answered: the door counts as open
//! once it was energised, and as locked once it was released.

use std::time::Duration;

/// Between two tries to release a relay that does not answer.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody may come in.
    Grant,
    /// The relay was switched on.
    Energised,
    /// The relay was switched off.
    Released,
    /// The relay did not do what it was told last.
    Failed,
    /// Nothing but time.
    Tick,
    /// The service ends: lock.
    Stop,
}

/// What the relay is to do. The answer comes back as an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Switch on: unlock.
    Energise,
    /// Switch off: lock.
    Release,
}

/// Where the lock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Off, as far as the relay has answered.
    Locked,
    /// Told to switch on.
    Unlocking,
    /// On until a time.
    Unlocked {
        /// When it locks again.
        until: Duration,
    },
    /// Told to switch off, last at a time.
    Locking {
        /// When it was told.
        told: Duration,
        /// Whether the relay has failed to answer that.
        failed: bool,
    },
}

/// One door.
#[derive(Clone, Debug)]
pub struct Door {
    state: State,
    open_for: Duration,
}

impl Door {
    /// A door that opens for so long. It begins by locking, whatever the relay
    /// was left at.
    pub fn new(now: Duration, open_for: Duration) -> (Self, Action) {
        let state = State::Locking { told: now, failed: false };
        (Self { state, open_for }, Action::Release)
    }

    /// Where the lock is.
    pub fn state(&self) -> State {
        self.state
    }

    /// Takes one event at a time on a clock that does not run backwards.
    pub fn step(&mut self, now: Duration, event: Event) -> Option<Action> {
        use State::{Locked, Locking, Unlocked, Unlocking};
        let locking = Locking { told: now, failed: false };
        let (state, action) = match (self.state, event) {
            (Locked, Event::Grant) => (Unlocking, Some(Action::Energise)),
            (Unlocking, Event::Energised) => (Unlocked { until: now + self.open_for }, None),
            // It may be on for all we know.
            (Unlocking, Event::Failed | Event::Released) => (locking, Some(Action::Release)),
            // Whoever is recognized while the door is open gets the whole time.
            (Unlocked { .. }, Event::Grant) => (Unlocked { until: now + self.open_for }, None),
            (Unlocked { until }, Event::Tick) if now >= until => (locking, Some(Action::Release)),
            (Locking { .. }, Event::Released) => (Locked, None),
            (Locking { told, .. }, Event::Failed | Event::Energised) => {
                (Locking { told, failed: true }, None)
            }
            (Locking { told, failed: true }, Event::Tick) if now >= told + RETRY_AFTER => {
                (locking, Some(Action::Release))
            }
            (_, Event::Stop) => (locking, Some(Action::Release)),
            // Too early for a Tick to do anything; a Grant while the relay is
            // being switched waits for the next one; answers nobody asked for.
            (state, _) => (state, None),
        };
        self.state = state;
        action
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OPEN_FOR: Duration = Duration::from_secs(3);

    fn s(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn locked() -> Door {
        let (mut door, action) = Door::new(s(0.0), OPEN_FOR);
        assert_eq!(action, Action::Release);
        assert_eq!(door.step(s(0.0), Event::Released), None);
        door
    }

    #[test]
    fn a_grant_opens_for_the_time_set() {
        let mut door = locked();
        assert_eq!(door.step(s(1.0), Event::Grant), Some(Action::Energise));
        assert_eq!(door.state(), State::Unlocking);
        assert_eq!(door.step(s(1.1), Event::Energised), None);
        assert_eq!(door.state(), State::Unlocked { until: s(4.1) });
        assert_eq!(door.step(s(4.0), Event::Tick), None);
        assert_eq!(door.step(s(4.1), Event::Tick), Some(Action::Release));
        assert_eq!(door.step(s(4.2), Event::Released), None);
        assert_eq!(door.state(), State::Locked);
    }

    #[test]
    fn a_relay_that_fails_to_open_is_released() {
        let mut door = locked();
        door.step(s(1.0), Event::Grant);
        assert_eq!(door.step(s(1.1), Event::Failed), Some(Action::Release));
        assert_eq!(door.step(s(1.2), Event::Released), None);
        assert_eq!(door.state(), State::Locked);
    }

    #[test]
    fn a_relay_that_fails_to_lock_is_told_again_and_again() {
        let mut door = locked();
        door.step(s(1.0), Event::Grant);
        door.step(s(1.0), Event::Energised);
        assert_eq!(door.step(s(4.0), Event::Tick), Some(Action::Release));
        for round in 1..20 {
            let told = 4.0 + 0.5 * f64::from(round - 1);
            assert_eq!(door.step(s(told), Event::Failed), None);
            assert_eq!(door.step(s(told + 0.4), Event::Tick), None);
            assert_eq!(door.step(s(told + 0.4), Event::Grant), None);
            assert_eq!(door.step(s(told + 0.5), Event::Tick), Some(Action::Release));
        }
        door.step(s(20.0), Event::Released);
        assert_eq!(door.state(), State::Locked);
    }

    fn event() -> impl Strategy<Value = Event> {
        use Event::*;
        prop::sample::select(vec![Grant, Energised, Released, Failed, Tick, Stop])
    }

    proptest! {
        /// Whatever happens in whatever order: it is energised only by a grant,
        /// and told to release once the time is up.
        #[test]
        fn never_open_without_a_grant_nor_beyond_its_time(
            events in prop::collection::vec((event(), 0u64..2000), 0..80),
        ) {
            let mut door = locked();
            let mut now = Duration::ZERO;
            let mut last_grant = None;
            for (event, later) in events {
                now += Duration::from_millis(later);
                if event == Event::Grant {
                    last_grant = Some(now);
                }
                let action = door.step(now, event);
                if action == Some(Action::Energise) {
                    prop_assert_eq!(event, Event::Grant);
                }
                if let State::Unlocked { until } = door.state() {
                    prop_assert!(last_grant.is_some());
                    prop_assert!(until <= now + OPEN_FOR);
                    if event == Event::Tick {
                        prop_assert!(now < until);
                    }
                }
                if event == Event::Stop {
                    prop_assert_eq!(action, Some(Action::Release));
                }
            }
        }
    }
}
