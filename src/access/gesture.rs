//! Gestures of a button: a number of short presses, or a long one (hold).
//!
//! ```text
//!           pressed               for `HOLD`
//!   Up ---------------> Down ------------------> Held (reported at once)
//!    ^                   | released                | released
//!    |                   v                         |
//!    +-- reported --- Between --pressed--> Down    |
//!    |   no press for `BETWEEN`                    |
//!    +---------------------------------------------+
//! ```

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A button held down for this time is a hold, not a press.
const HOLD: Duration = Duration::from_secs(3);
/// Maximum gap between two presses of one gesture.
const BETWEEN: Duration = Duration::from_millis(600);
/// Maximum count of presses; further ones are not counted.
const MOST_PRESSES: u8 = 9;

/// Place of a button.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Inside the secured area.
    Inside,
    /// Outside, where anybody may press it.
    Outside,
}

/// A gesture on one button.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gesture {
    /// Number of short presses, 1..=9; more count as 9.
    Presses(u8),
    /// The button was held for 3 seconds; it may still be down.
    Hold,
}

/// Button gesture that reports duress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DuressGesture {
    /// No gesture reports duress.
    #[default]
    Off,
    /// Two short presses.
    Double,
    /// Three short presses.
    Triple,
}

impl DuressGesture {
    /// Whether `gesture` is the configured one.
    pub fn is(self, gesture: Gesture) -> bool {
        match self {
            Self::Off => false,
            Self::Double => gesture == Gesture::Presses(2),
            Self::Triple => gesture == Gesture::Presses(3),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Up,
    Down {
        since: Duration,
        before: u8,
    },
    Held,
    Between {
        released: Duration,
        presses: u8,
    },
}

/// State machine of one button.
#[derive(Clone, Copy, Debug, Default)]
pub struct Button {
    state: State,
}

impl Button {
    /// Takes a debounced edge at `now`, on a clock that never runs backwards. Returns a
    /// gesture that was completed before the edge.
    pub fn edge(&mut self, now: Duration, pressed: bool) -> Option<Gesture> {
        let gesture = self.tick(now);
        self.state = match (self.state, pressed) {
            (State::Up, true) => State::Down { since: now, before: 0 },
            (State::Between { presses, .. }, true) => State::Down { since: now, before: presses },
            (State::Down { before, .. }, false) => {
                State::Between { released: now, presses: (before + 1).min(MOST_PRESSES) }
            }
            (State::Held, false) => State::Up,
            // An edge was missed or reported twice.
            (state @ (State::Up | State::Between { .. }), false) => state,
            (state @ (State::Down { .. } | State::Held), true) => state,
        };
        gesture
    }

    /// Lets time pass; returns the gesture that is complete at `now`.
    pub fn tick(&mut self, now: Duration) -> Option<Gesture> {
        let (state, gesture) = match self.state {
            State::Down { since, .. } if now >= since + HOLD => (State::Held, Gesture::Hold),
            State::Between { released, presses } if now >= released + BETWEEN => {
                (State::Up, Gesture::Presses(presses))
            }
            State::Up | State::Down { .. } | State::Held | State::Between { .. } => return None,
        };
        self.state = state;
        Some(gesture)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Plays presses, given as begin and end in milliseconds, with a tick every 50
    /// milliseconds. Returns the gestures with their times.
    fn gestures(presses: &[(u64, u64)]) -> Vec<(u64, Gesture)> {
        let mut button = Button::default();
        let mut told = vec![];
        for at in (0..12_000).step_by(50) {
            let edge = presses.iter().find_map(|(from, to)| {
                (*from == at).then_some(true).or((*to == at).then_some(false))
            });
            let gesture = match edge {
                Some(pressed) => button.edge(ms(at), pressed),
                None => button.tick(ms(at)),
            };
            told.extend(gesture.map(|gesture| (at, gesture)));
        }
        told
    }

    #[test]
    fn presses_are_counted_and_a_hold_is_reported_at_once() {
        assert_eq!(gestures(&[(100, 250)]), [(850, Gesture::Presses(1))]);
        let three = [(100, 200), (400, 500), (1000, 1100)];
        assert_eq!(gestures(&three), [(1700, Gesture::Presses(3))]);
        let apart = [(100, 200), (900, 1000)];
        assert_eq!(gestures(&apart), [(800, Gesture::Presses(1)), (1600, Gesture::Presses(1))]);
        assert_eq!(gestures(&[(100, 9000)]), [(3100, Gesture::Hold)]);
        assert_eq!(gestures(&[(100, 3050)]), [(3650, Gesture::Presses(1))]);
        let then_held = [(100, 200), (300, 4000)];
        assert_eq!(gestures(&then_held), [(3300, Gesture::Hold)]);
    }

    proptest! {
        #[test]
        fn no_gesture_without_a_press_and_no_hold_before_its_time(
            steps in prop::collection::vec((prop::option::of(any::<bool>()), 0u64..4000), 0..60),
        ) {
            let mut button = Button::default();
            let mut now = 0;
            let (mut presses, mut told) = (0u32, 0u32);
            let mut down: Option<u64> = None;
            for (edge, later) in steps {
                now += later;
                let held_since = down;
                match edge {
                    Some(true) if down.is_none() => {
                        presses += 1;
                        down = Some(now);
                    }
                    Some(false) => down = None,
                    _ => {}
                }
                let gesture = match edge {
                    Some(pressed) => button.edge(ms(now), pressed),
                    None => button.tick(ms(now)),
                };
                match gesture {
                    Some(Gesture::Hold) => {
                        prop_assert!(held_since.is_some_and(|since| now >= since + 3000));
                        told += 1;
                    }
                    Some(Gesture::Presses(count)) => told += u32::from(count),
                    None => {}
                }
                prop_assert!(told <= presses);
            }
        }
    }
}
