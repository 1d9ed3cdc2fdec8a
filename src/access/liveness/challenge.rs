//! The challenge: the person is asked to turn the head to given sides.
//!
//! The sides follow from a random number, so that a recorded video has to guess them, with
//! a chance of one in two per turn. A print that is turned does not pass, because its nose
//! stays between its eyes.
//!
//! ```text
//!             begin                 straight                 nose on that side
//!   Idle ---------------> Centre -------------> Turn(side) --------------------+
//!    ^                    ^   |                  |  |                          |
//!    |                    |   | time is up       |  | other side, time is up   |
//!    |                    |   v                  |  v                          |
//!    |      again_after   |  Failed <------------+  Failed                     |
//!    +--------------------|---+                                                |
//!    |                    +------------- turns left ----------------------------+
//!    |   valid_for                                                             |
//!    +------------------------ Passed <------- none left ----------------------+
//! ```
//!
//! A face that is lost for longer than `lost_after`, or a view of another face, fails a
//! running challenge and ends a passed one, because somebody else may stand there now.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A side, as seen by the person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The person's left, the right of the picture.
    Left,
    /// The person's right, the left of the picture.
    Right,
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Left => "left",
            Self::Right => "right",
        })
    }
}

/// Settings of a challenge.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChallengeSettings {
    /// Number of turns, 1 to 8.
    pub turns: u32,
    /// Time limit for each step: looking straight ahead, and each turn.
    pub each: Duration,
    /// Duration for which a passed challenge counts.
    pub valid_for: Duration,
    /// Wait after a failure until the next challenge.
    pub again_after: Duration,
    /// Time without the face after which it counts as lost.
    pub lost_after: Duration,
}

impl Default for ChallengeSettings {
    fn default() -> Self {
        Self {
            turns: 2,
            each: Duration::from_secs(4),
            valid_for: Duration::from_secs(5),
            again_after: Duration::from_secs(3),
            lost_after: Duration::from_millis(600),
        }
    }
}

/// Largest yaw ([`crate::vision::pose::Turn::yaw`]) of a face that looks straight ahead. Of the
/// photos of LFW, in which people look into the camera, 98 of 100 lie within 0.45 and half
/// within 0.1.
pub(super) const STRAIGHT: f32 = 0.15;
/// Smallest yaw of a turned head. The nose stands out by 0.4 times the distance between the
/// eyes, so a head turned by 35 degrees reaches `0.4 * tan(35 degrees) = 0.28`.
const TURNED: f32 = 0.28;

/// Input of the state machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Input {
    /// Begin a challenge. The bits of the number select the sides.
    Begin(u64),
    /// The yaw of the face in this frame; negative is the left of the picture.
    Face(f32),
    /// A view in which the face cannot be told: it is in view, and no step counts.
    Unclear,
    /// A view that shows another face.
    OtherFace,
    /// Time passed.
    Tick,
}

/// Output of the state machine: the message for the person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask to look straight ahead.
    AskStraight,
    /// Ask to turn the head.
    AskTurn(Direction),
    /// Ask to move the head a little. Not part of a challenge:
    /// [`LivenessGuard`](super::LivenessGuard) uses it to see the nose move.
    AskMove,
    /// The challenge is passed.
    Passed,
    /// The challenge failed.
    Failed(Failure),
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AskStraight => write!(f, "look straight ahead"),
            Self::AskTurn(side) => write!(f, "turn your head to your {side}"),
            Self::AskMove => write!(f, "move your head a little"),
            Self::Passed => write!(f, "passed"),
            Self::Failed(Failure::WrongSide) => write!(f, "failed: turned to the other side"),
            Self::Failed(Failure::TooLate) => write!(f, "failed: not in time"),
            Self::Failed(Failure::Lost) => write!(f, "failed: the face went out of view"),
            Self::Failed(Failure::OtherFace) => write!(f, "failed: another face came into view"),
        }
    }
}

/// Why a challenge failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The head turned to the other side.
    WrongSide,
    /// A step took longer than its time limit.
    TooLate,
    /// The face went out of view.
    Lost,
    /// Another face came into view.
    OtherFace,
}

/// State of a challenge. `since` is its beginning, `seen` the last frame with the face.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Centre { left: Turns, since: Duration, seen: Duration },
    Turn { side: Direction, left: Turns, since: Duration, seen: Duration },
    Passed { since: Duration, seen: Duration },
    Failed { since: Duration },
}

/// The remaining turns, one bit per turn, the lowest first; 0 is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Turns {
    sides: u64,
    count: u32,
}

/// The challenge of one track.
#[derive(Clone, Debug)]
pub struct Challenge {
    settings: ChallengeSettings,
    state: State,
}

impl Challenge {
    /// An idle challenge.
    pub fn new(settings: ChallengeSettings) -> Self {
        Self { settings, state: State::Idle }
    }

    /// Whether the challenge is passed and still counts at `now`.
    pub fn passed(&self, now: Duration) -> bool {
        match self.state {
            State::Passed { since, seen } => {
                now < since + self.settings.valid_for && now <= seen + self.settings.lost_after
            }
            State::Idle | State::Centre { .. } | State::Turn { .. } | State::Failed { .. } => false,
        }
    }

    /// Processes an event at the time `now` on a monotonic clock.
    pub fn step(&mut self, now: Duration, event: Input) -> Option<Output> {
        let ChallengeSettings { each, valid_for, again_after, lost_after, turns } = self.settings;
        let late = |since: Duration| now >= since + each;
        let lost = |seen: Duration| now > seen + lost_after;
        match (self.state, event) {
            (State::Idle, Input::Begin(sides)) => {
                let left = Turns { sides, count: turns.clamp(1, 8) };
                self.state = State::Centre { left, since: now, seen: now };
                Some(Output::AskStraight)
            }
            (State::Idle, Input::Face(_) | Input::Unclear | Input::OtherFace | Input::Tick) => None,
            (State::Centre { .. } | State::Turn { .. }, Input::OtherFace) => {
                self.fail(now, Failure::OtherFace)
            }
            (State::Passed { .. }, Input::OtherFace) => {
                self.state = State::Idle;
                None
            }
            (State::Centre { seen, .. } | State::Turn { seen, .. }, _) if lost(seen) => {
                self.fail(now, Failure::Lost)
            }
            (State::Centre { since, .. } | State::Turn { since, .. }, _) if late(since) => {
                self.fail(now, Failure::TooLate)
            }
            (State::Centre { left, .. }, Input::Face(yaw)) if yaw.abs() <= STRAIGHT => {
                let side = if left.sides & 1 == 0 { Direction::Left } else { Direction::Right };
                let left = Turns { sides: left.sides >> 1, count: left.count - 1 };
                self.state = State::Turn { side, left, since: now, seen: now };
                Some(Output::AskTurn(side))
            }
            (State::Centre { left, since, .. }, Input::Face(_) | Input::Unclear) => {
                self.state = State::Centre { left, since, seen: now };
                None
            }
            (State::Turn { side, left, since, .. }, Input::Face(yaw)) => {
                let on_side = if side == Direction::Left { yaw } else { -yaw };
                if on_side <= -TURNED {
                    return self.fail(now, Failure::WrongSide);
                }
                // False for NaN.
                let turned = on_side >= TURNED;
                let (state, action) = match (turned, left.count) {
                    (false, _) => (State::Turn { side, left, since, seen: now }, None),
                    (true, 0) => (State::Passed { since: now, seen: now }, Some(Output::Passed)),
                    (true, _) => {
                        (State::Centre { left, since: now, seen: now }, Some(Output::AskStraight))
                    }
                };
                self.state = state;
                action
            }
            (State::Turn { side, left, since, .. }, Input::Unclear) => {
                self.state = State::Turn { side, left, since, seen: now };
                None
            }
            // A challenge is already running.
            (State::Centre { .. } | State::Turn { .. }, Input::Begin(_) | Input::Tick) => None,
            (State::Passed { since, seen }, event) => {
                if now >= since + valid_for || lost(seen) {
                    self.state = State::Idle;
                    return self.step(now, event);
                }
                if let Input::Face(_) | Input::Unclear = event {
                    self.state = State::Passed { since, seen: now };
                }
                None
            }
            (State::Failed { since }, event) => {
                if now < since + again_after {
                    return None;
                }
                self.state = State::Idle;
                self.step(now, event)
            }
        }
    }

    fn fail(&mut self, now: Duration, failure: Failure) -> Option<Output> {
        self.state = State::Failed { since: now };
        Some(Output::Failed(failure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Seed of a challenge to the left, then to the right.
    const LEFT_RIGHT: u64 = 0b10;

    fn begun() -> Challenge {
        let mut challenge = Challenge::new(ChallengeSettings::default());
        assert_eq!(challenge.step(ms(0), Input::Begin(LEFT_RIGHT)), Some(Output::AskStraight));
        challenge
    }

    fn play(challenge: &mut Challenge, yaws: &[f32]) -> Vec<Output> {
        let steps = yaws.iter().enumerate();
        steps
            .filter_map(|(at, yaw)| challenge.step(ms(100 * at as u64 + 100), Input::Face(*yaw)))
            .collect()
    }

    #[test]
    fn a_person_who_turns_as_asked_passes_for_some_seconds() {
        let mut challenge = begun();
        let actions = play(&mut challenge, &[0.3, 0.05, 0.2, 0.35, 0.3, 0.0, -0.1, -0.4]);
        let turn = Output::AskTurn;
        let expected =
            [turn(Direction::Left), Output::AskStraight, turn(Direction::Right), Output::Passed];
        assert_eq!(actions, expected);
        assert!(challenge.passed(ms(900)) && !challenge.passed(ms(1500)));
        for at in 9..80 {
            challenge.step(ms(at * 100), Input::Face(0.0));
        }
        assert!(!challenge.passed(ms(7900)));
    }

    #[test]
    fn the_other_side_fails_and_another_try_waits() {
        let mut challenge = begun();
        let actions = play(&mut challenge, &[0.0, -0.4]);
        assert_eq!(actions.last(), Some(&Output::Failed(Failure::WrongSide)));
        assert_eq!(challenge.step(ms(1000), Input::Begin(1)), None);
        assert_eq!(challenge.step(ms(4000), Input::Begin(1)), Some(Output::AskStraight));
    }

    #[test]
    fn time_and_a_lost_face_fail() {
        let mut challenge = begun();
        let mut actions = play(&mut challenge, &[0.0; 60]);
        assert_eq!(actions.pop(), Some(Output::Failed(Failure::TooLate)));
        let mut challenge = begun();
        assert_eq!(challenge.step(ms(700), Input::Tick), Some(Output::Failed(Failure::Lost)));
    }

    #[test]
    fn a_print_that_is_turned_about_never_passes() {
        let mut challenge = begun();
        let yaws: Vec<f32> = (0..39)
            .map(|at| {
                let yaw = 0.9 * (f64::from(at) / 3.0).sin();
                let landmarks = crate::vision::liveness::motion::tests::seen(true, yaw, 0.1, 0.0);
                crate::vision::pose::Turn::of(&landmarks).yaw
            })
            .collect();
        assert!(!play(&mut challenge, &yaws).contains(&Output::Passed), "{yaws:?}");
    }

    proptest! {
        #[test]
        fn nobody_passes_without_turning_to_every_side(
            seed in any::<u64>(), yaws in prop::collection::vec(-0.6f32..0.27, 0..60),
        ) {
            // The first turn asked for is to the left, and no yaw reaches it.
            let mut challenge = Challenge::new(ChallengeSettings::default());
            challenge.step(ms(0), Input::Begin(seed & !1));
            prop_assert!(!play(&mut challenge, &yaws).contains(&Output::Passed));
        }

        #[test]
        fn it_is_passed_only_after_it_said_so(
            seed in any::<u64>(), steps in prop::collection::vec((0u64..900, -0.6f32..0.6), 0..80),
        ) {
            let mut challenge = Challenge::new(ChallengeSettings::default());
            let (mut now, mut said) = (0, false);
            for (wait, yaw) in steps {
                now += wait;
                let event = if wait.is_multiple_of(5) { Input::Begin(seed) } else { Input::Face(yaw) };
                said |= challenge.step(ms(now), event) == Some(Output::Passed);
                prop_assert!(said || !challenge.passed(ms(now)));
            }
        }
    }
}
