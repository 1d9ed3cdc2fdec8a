//! A challenge: turn your head to the side that is named.
//!
//! Which sides follows from a number that nobody can foresee, so that a recorded video
//! would have to guess them: one in two a turn. A print that is turned about does not
//! pass: its nose stays between its eyes.
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
//! A face that is lost for longer than `lost_after` fails what has begun and ends what was
//! passed: somebody else may stand there now.

use std::time::Duration;

/// A side, as the person before the camera has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The person's left, the picture's right.
    Left,
    /// The person's right, the picture's left.
    Right,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Left => "left",
            Self::Right => "right",
        })
    }
}

/// How much is asked, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChallengeSettings {
    /// Turns in a row, 1 to 8.
    pub turns: u32,
    /// Time for each.
    pub each: Duration,
    /// How long it counts once it is passed.
    pub valid_for: Duration,
    /// How long until another try.
    pub again_after: Duration,
    /// Time without a face after which it is another face.
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

/// Yaw ([`crate::vision::pose::Turn::yaw`]) within which a face looks straight ahead: 98 of
/// 100 photos of LFW, which are taken of people who look into cameras, lie within 0.45,
/// half of them within 0.1.
const STRAIGHT: f32 = 0.15;
/// Yaw from which on a head is turned. The nose stands out by 0.4 distances of the eyes,
/// so a head turned by 35 degrees reaches `0.4 * tan(35 degrees) = 0.28`.
const TURNED: f32 = 0.28;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// Somebody is to be asked; which sides follows from the number.
    Begin(u64),
    /// The face in this frame, with its yaw: negative is the picture's left.
    Face(f32),
    /// Time passed.
    Tick,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell them to look straight ahead.
    AskStraight,
    /// Tell them to turn their head.
    AskTurn(Side),
    /// Tell them to move their head a little: not part of a challenge, for
    /// [`super::guard`] has to see the nose move.
    AskMove,
    /// Tell them that they are done.
    Passed,
    /// Tell them that they are not.
    Failed(Failure),
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AskStraight => write!(f, "look straight ahead"),
            Self::AskTurn(side) => write!(f, "turn your head to your {side}"),
            Self::AskMove => write!(f, "move your head a little"),
            Self::Passed => write!(f, "passed"),
            Self::Failed(Failure::WrongSide) => write!(f, "failed: turned to the other side"),
            Self::Failed(Failure::TooLate) => write!(f, "failed: not in time"),
            Self::Failed(Failure::Lost) => write!(f, "failed: the face went out of view"),
        }
    }
}

/// Why a challenge failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Turned to the other side.
    WrongSide,
    /// Did not turn in time.
    TooLate,
    /// The face went out of view.
    Lost,
}

/// Where a challenge stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Centre { left: Turns, since: Duration, seen: Duration },
    Turn { side: Side, left: Turns, since: Duration, seen: Duration },
    Passed { since: Duration, seen: Duration },
    Failed { since: Duration },
}

/// The turns still to come: a bit each, the lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Turns {
    sides: u64,
    count: u32,
}

/// One person's challenge.
#[derive(Clone, Debug)]
pub struct Challenge {
    settings: ChallengeSettings,
    state: State,
}

impl Challenge {
    /// Nothing asked yet.
    pub fn new(settings: ChallengeSettings) -> Self {
        Self { settings, state: State::Idle }
    }

    /// Whether it is passed, and still counts at this time.
    pub fn passed(&self, now: Duration) -> bool {
        match self.state {
            State::Passed { since, seen } => {
                now < since + self.settings.valid_for && now <= seen + self.settings.lost_after
            }
            State::Idle | State::Centre { .. } | State::Turn { .. } | State::Failed { .. } => false,
        }
    }

    /// Takes an event, on a clock that does not run backwards.
    pub fn step(&mut self, now: Duration, event: Event) -> Option<Action> {
        let ChallengeSettings { each, valid_for, again_after, lost_after, turns } = self.settings;
        let late = |since: Duration| now >= since + each;
        let lost = |seen: Duration| now > seen + lost_after;
        match (self.state, event) {
            (State::Idle, Event::Begin(sides)) => {
                let left = Turns { sides, count: turns.clamp(1, 8) };
                self.state = State::Centre { left, since: now, seen: now };
                Some(Action::AskStraight)
            }
            (State::Idle, Event::Face(_) | Event::Tick) => None,
            (State::Centre { seen, .. } | State::Turn { seen, .. }, _) if lost(seen) => {
                self.fail(now, Failure::Lost)
            }
            (State::Centre { since, .. } | State::Turn { since, .. }, _) if late(since) => {
                self.fail(now, Failure::TooLate)
            }
            (State::Centre { left, .. }, Event::Face(yaw)) if yaw.abs() <= STRAIGHT => {
                let side = if left.sides & 1 == 0 { Side::Left } else { Side::Right };
                let left = Turns { sides: left.sides >> 1, count: left.count - 1 };
                self.state = State::Turn { side, left, since: now, seen: now };
                Some(Action::AskTurn(side))
            }
            (State::Centre { left, since, .. }, Event::Face(_)) => {
                self.state = State::Centre { left, since, seen: now };
                None
            }
            (State::Turn { side, left, since, .. }, Event::Face(yaw)) => {
                let on_side = if side == Side::Left { yaw } else { -yaw };
                if on_side <= -TURNED {
                    return self.fail(now, Failure::WrongSide);
                }
                // False for what is not a number.
                let turned = on_side >= TURNED;
                let (state, action) = match (turned, left.count) {
                    (false, _) => (State::Turn { side, left, since, seen: now }, None),
                    (true, 0) => (State::Passed { since: now, seen: now }, Some(Action::Passed)),
                    (true, _) => {
                        (State::Centre { left, since: now, seen: now }, Some(Action::AskStraight))
                    }
                };
                self.state = state;
                action
            }
            // Already asked.
            (State::Centre { .. } | State::Turn { .. }, Event::Begin(_) | Event::Tick) => None,
            (State::Passed { since, seen }, event) => {
                if now >= since + valid_for || lost(seen) {
                    self.state = State::Idle;
                    return self.step(now, event);
                }
                if let Event::Face(_) = event {
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

    fn fail(&mut self, now: Duration, failure: Failure) -> Option<Action> {
        self.state = State::Failed { since: now };
        Some(Action::Failed(failure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Left, then right.
    const LEFT_RIGHT: u64 = 0b10;

    fn begun() -> Challenge {
        let mut challenge = Challenge::new(ChallengeSettings::default());
        assert_eq!(challenge.step(ms(0), Event::Begin(LEFT_RIGHT)), Some(Action::AskStraight));
        challenge
    }

    fn play(challenge: &mut Challenge, yaws: &[f32]) -> Vec<Action> {
        let steps = yaws.iter().enumerate();
        steps
            .filter_map(|(at, yaw)| challenge.step(ms(100 * at as u64 + 100), Event::Face(*yaw)))
            .collect()
    }

    #[test]
    fn who_turns_as_asked_passes_for_some_seconds() {
        let mut challenge = begun();
        let actions = play(&mut challenge, &[0.3, 0.05, 0.2, 0.35, 0.3, 0.0, -0.1, -0.4]);
        let turn = Action::AskTurn;
        let expected = [turn(Side::Left), Action::AskStraight, turn(Side::Right), Action::Passed];
        assert_eq!(actions, expected);
        assert!(challenge.passed(ms(900)) && !challenge.passed(ms(1500)));
        for at in 9..80 {
            challenge.step(ms(at * 100), Event::Face(0.0));
        }
        assert!(!challenge.passed(ms(7900)));
    }

    #[test]
    fn the_other_side_fails_and_another_try_waits() {
        let mut challenge = begun();
        let actions = play(&mut challenge, &[0.0, -0.4]);
        assert_eq!(actions.last(), Some(&Action::Failed(Failure::WrongSide)));
        assert_eq!(challenge.step(ms(1000), Event::Begin(1)), None);
        assert_eq!(challenge.step(ms(4000), Event::Begin(1)), Some(Action::AskStraight));
    }

    #[test]
    fn time_and_a_lost_face_fail() {
        let mut challenge = begun();
        let mut actions = play(&mut challenge, &[0.0; 60]);
        assert_eq!(actions.pop(), Some(Action::Failed(Failure::TooLate)));
        let mut challenge = begun();
        assert_eq!(challenge.step(ms(700), Event::Tick), Some(Action::Failed(Failure::Lost)));
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
        assert!(!play(&mut challenge, &yaws).contains(&Action::Passed), "{yaws:?}");
    }

    proptest! {
        #[test]
        fn nobody_passes_without_turning_to_every_side(
            seed in any::<u64>(), yaws in prop::collection::vec(-0.6f32..0.27, 0..60),
        ) {
            // Never to the left, and one left is asked.
            let mut challenge = Challenge::new(ChallengeSettings::default());
            challenge.step(ms(0), Event::Begin(seed & !1));
            prop_assert!(!play(&mut challenge, &yaws).contains(&Action::Passed));
        }

        #[test]
        fn it_is_passed_only_after_it_said_so(
            seed in any::<u64>(), steps in prop::collection::vec((0u64..900, -0.6f32..0.6), 0..80),
        ) {
            let mut challenge = Challenge::new(ChallengeSettings::default());
            let (mut now, mut said) = (0, false);
            for (wait, yaw) in steps {
                now += wait;
                let event = if wait.is_multiple_of(5) { Event::Begin(seed) } else { Event::Face(yaw) };
                said |= challenge.step(ms(now), event) == Some(Action::Passed);
                prop_assert!(said || !challenge.passed(ms(now)));
            }
        }
    }
}
