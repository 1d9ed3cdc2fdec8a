//! Signals for the person at the door, as patterns of one three-colour light and one
//! buzzer. The devices that play them are in other modules.

use crate::access::door::{Alarm, Note};
use crate::access::enroll::Hindrance;
use crate::access::liveness::challenge::{Action, Side};
use crate::vision::quality::Aspect;

/// A signal to show and sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Come in: the door is unlocked.
    Welcome,
    /// Not admitted.
    Refused,
    /// Come closer: the face is too small.
    Closer,
    /// The face is too dark, too bright, or lit from one side.
    Light,
    /// The face is turned or tilted away, or moves.
    LookAtCamera,
    /// Turn the head to this side.
    Turn(Side),
    /// Move the head a little.
    Move,
    /// One person at a time.
    OneAtATime,
    /// Enrolment waits for an administrator's face.
    Administrator,
    /// Enrolment waits for the newcomer's face.
    Newcomer,
    /// Enrolment has taken a view.
    View {
        /// Number of views taken.
        taken: u8,
        /// Number of views wanted.
        of: u8,
    },
    /// Enrolled.
    Enrolled,
    /// Not enrolled: cancelled, out of time, or refused.
    NotEnrolled,
    /// Alarm: the door is held open; close it.
    CloseDoor,
    /// Alarm: the door was forced.
    Siren,
    /// The alarm is over.
    Quiet,
}

/// Colour of the light.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Colour {
    /// No light.
    Off,
    /// Success.
    Green,
    /// Refusal or alarm.
    Red,
    /// The device waits for the person.
    Blue,
}

/// One step of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Duration in milliseconds.
    pub ms: u16,
    /// Colour of the light.
    pub light: Colour,
    /// Whether the buzzer sounds.
    pub sound: bool,
}

/// A sequence of beats. A new signal replaces the pattern; the pattern of an alarm resumes
/// afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// At least one beat.
    pub beats: &'static [Beat],
    /// Number of repetitions; `None` repeats until the next signal.
    pub times: Option<u8>,
}

const fn beat(ms: u16, light: Colour, sound: bool) -> Beat {
    Beat { ms, light, sound }
}

use Colour::{Blue, Green, Off, Red};

const WELCOME: &[Beat] = &[beat(150, Green, true), beat(1350, Green, false)];
const REFUSED: &[Beat] = &[beat(600, Red, true), beat(900, Red, false)];
const CLOSER: &[Beat] = &[beat(120, Blue, false), beat(380, Off, false)];
const LIGHT: &[Beat] =
    &[beat(120, Blue, false), beat(120, Off, false), beat(120, Blue, false), beat(640, Off, false)];
const LOOK: &[Beat] = &[beat(400, Blue, false), beat(100, Off, false)];
const LEFT: &[Beat] = &[beat(60, Blue, true), beat(440, Blue, false)];
const RIGHT: &[Beat] =
    &[beat(60, Blue, true), beat(100, Blue, false), beat(60, Blue, true), beat(280, Blue, false)];
const MOVE: &[Beat] = &[
    beat(60, Blue, true),
    beat(60, Blue, false),
    beat(60, Blue, true),
    beat(60, Blue, false),
    beat(60, Blue, true),
    beat(500, Off, false),
];
const ONE: &[Beat] = &[beat(120, Red, false), beat(120, Off, false)];
const ADMINISTRATOR: &[Beat] = &[beat(100, Blue, false), beat(100, Red, false)];
const NEWCOMER: &[Beat] = &[beat(250, Blue, false), beat(250, Green, false)];
const VIEW: &[Beat] =
    &[beat(80, Green, true), beat(170, Off, false), beat(250, Blue, false), beat(250, Off, false)];
const ENROLLED: &[Beat] = &[beat(150, Green, true), beat(100, Green, false)];
const NOT_ENROLLED: &[Beat] = &[beat(300, Red, true), beat(200, Off, false)];
const CLOSE_DOOR: &[Beat] = &[beat(100, Red, true), beat(900, Off, false)];
const SIREN: &[Beat] = &[beat(500, Red, true), beat(100, Off, true)];
const QUIET: &[Beat] = &[beat(1, Off, false)];

impl Signal {
    /// Pattern of the signal.
    pub fn pattern(self) -> Pattern {
        let (beats, times) = match self {
            Self::Welcome => (WELCOME, Some(1)),
            Self::Refused => (REFUSED, Some(1)),
            Self::Closer => (CLOSER, Some(4)),
            Self::Light => (LIGHT, Some(2)),
            Self::LookAtCamera => (LOOK, Some(4)),
            // One beep for left, two beeps for right, repeated.
            Self::Turn(Side::Left) => (LEFT, Some(4)),
            Self::Turn(Side::Right) => (RIGHT, Some(4)),
            Self::Move => (MOVE, Some(3)),
            Self::OneAtATime => (ONE, Some(6)),
            Self::Administrator => (ADMINISTRATOR, None),
            Self::Newcomer => (NEWCOMER, None),
            // One beep per view.
            Self::View { taken, .. } => (VIEW, Some(taken.max(1))),
            Self::Enrolled => (ENROLLED, Some(3)),
            Self::NotEnrolled => (NOT_ENROLLED, Some(2)),
            Self::CloseDoor => (CLOSE_DOOR, None),
            Self::Siren => (SIREN, None),
            Self::Quiet => (QUIET, Some(1)),
        };
        Pattern { beats, times }
    }

    /// Whether the signal is an alarm, which only [`Self::Quiet`] ends.
    pub fn stands(self) -> bool {
        matches!(self, Self::CloseDoor | Self::Siren)
    }

    /// Signal for a person whose face cannot be compared, by its weakest aspect.
    pub fn of_aspect(aspect: Aspect) -> Self {
        match aspect {
            Aspect::Size => Self::Closer,
            Aspect::Brightness => Self::Light,
            Aspect::Sharpness | Aspect::Pose => Self::LookAtCamera,
        }
    }

    /// Signal for a step of a liveness challenge. `None` once the challenge is passed:
    /// the decision that follows has its own signal.
    pub fn of_challenge(action: Action) -> Option<Self> {
        match action {
            Action::AskStraight => Some(Self::LookAtCamera),
            Action::AskTurn(side) => Some(Self::Turn(side)),
            Action::AskMove => Some(Self::Move),
            Action::Passed => None,
            Action::Failed(_) => Some(Self::Refused),
        }
    }

    /// Signal for a newcomer whose view cannot be used; `None` if the last signal still
    /// applies.
    pub fn of_hindrance(hindrance: Hindrance) -> Option<Self> {
        match hindrance {
            Hindrance::Crowd => Some(Self::OneAtATime),
            Hindrance::Poor(aspect) => Some(Self::of_aspect(aspect)),
            Hindrance::SomebodyElse => Some(Self::Refused),
            Hindrance::NoFace | Hindrance::Same | Hindrance::Turn(_) => None,
        }
    }

    /// Signal for a note of the door; `None` for most notes. Duress has no signal, so that
    /// it looks and sounds like any other grant.
    pub fn of_note(note: &Note) -> Option<Self> {
        match note {
            // Only once the relay has answered.
            Note::Unlocked => Some(Self::Welcome),
            Note::NotGranted { .. } | Note::LockedOut(_) => Some(Self::Refused),
            Note::Alarm(Alarm::HeldTooLong) => Some(Self::CloseDoor),
            Note::Alarm(Alarm::Forced) => Some(Self::Siren),
            Note::AlarmEnded(_) => Some(Self::Quiet),
            Note::Granted { .. }
            | Note::Duress { .. }
            | Note::Exit
            | Note::OpenedByCommand
            | Note::NotOpenedByCommand(_)
            | Note::Mode(_)
            | Note::Locked
            | Note::Released
            | Note::NoAnswer
            | Note::RelayBack
            | Note::Passed { .. }
            | Note::LockoutEnded => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::gallery::PersonId;

    const ALL: [Signal; 17] = [
        Signal::Welcome,
        Signal::Refused,
        Signal::Closer,
        Signal::Light,
        Signal::LookAtCamera,
        Signal::Turn(Side::Left),
        Signal::Turn(Side::Right),
        Signal::Move,
        Signal::OneAtATime,
        Signal::Administrator,
        Signal::Newcomer,
        Signal::View { taken: 1, of: 5 },
        Signal::Enrolled,
        Signal::NotEnrolled,
        Signal::CloseDoor,
        Signal::Siren,
        Signal::Quiet,
    ];

    #[test]
    fn no_two_signals_look_alike_and_all_but_waiting_end() {
        for (at, signal) in ALL.iter().enumerate() {
            let pattern = signal.pattern();
            assert!(pattern.beats.iter().all(|beat| beat.ms > 0) && !pattern.beats.is_empty());
            for other in &ALL[at + 1..] {
                assert_ne!(pattern.beats, other.pattern().beats, "{signal:?} {other:?}");
            }
            if let Some(times) = pattern.times {
                let once: u32 = pattern.beats.iter().map(|beat| u32::from(beat.ms)).sum();
                assert!(once * u32::from(times) <= 2500, "{signal:?} lasts too long");
            }
        }
    }

    #[test]
    fn as_many_beeps_as_views() {
        for taken in 1..=5 {
            let pattern = Signal::View { taken, of: 5 }.pattern();
            let beeps = pattern.beats.iter().filter(|beat| beat.sound).count();
            assert_eq!(beeps * usize::from(pattern.times.expect("an end")), usize::from(taken));
        }
    }

    #[test]
    fn duress_is_silent() {
        assert_eq!(Signal::of_note(&Note::Duress { person: PersonId(1) }), None);
    }
}
