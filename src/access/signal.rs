//! What a person at the door sees and hears: signals as patterns of one light of
//! three colours and one buzzer. Devices are elsewhere.

use crate::access::door::{Alarm, Note};
use crate::access::enroll::Hindrance;
use crate::access::liveness::challenge::{Action, Side};
use crate::vision::quality::Aspect;

/// Something to show and sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Come in.
    Welcome,
    /// Not you, or not now.
    Refused,
    /// Too far away.
    Closer,
    /// Too dark, too bright, or lit from one side.
    Light,
    /// Turned or tilted away, or moving.
    LookAtCamera,
    /// Turn the head to this side.
    Turn(Side),
    /// Move the head a little.
    Move,
    /// One at a time.
    OneAtATime,
    /// Enrolling: an administrator's face is waited for.
    Administrator,
    /// Enrolling: the newcomer's face is waited for.
    Newcomer,
    /// Enrolling: so many views of so many are taken.
    View {
        /// Taken.
        taken: u8,
        /// Wanted in all.
        of: u8,
    },
    /// Enrolled.
    Enrolled,
    /// Not enrolled: cancelled, out of time, or refused.
    NotEnrolled,
    /// Close the door.
    CloseDoor,
    /// The door was forced.
    Siren,
    /// An alarm is over.
    Quiet,
}

/// The light.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Colour {
    /// Off.
    Off,
    /// Well.
    Green,
    /// Not well.
    Red,
    /// Something is waited for.
    Blue,
}

/// A part of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// How long, milliseconds.
    pub ms: u16,
    /// The light meanwhile.
    pub light: Colour,
    /// Whether the buzzer sounds.
    pub sound: bool,
}

/// Beats in turn. A new signal ends the one before, an alarm's only until it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// At least one.
    pub beats: &'static [Beat],
    /// How often; nothing is until the next signal.
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
    /// How it looks and sounds.
    pub fn pattern(self) -> Pattern {
        let (beats, times) = match self {
            Self::Welcome => (WELCOME, Some(1)),
            Self::Refused => (REFUSED, Some(1)),
            Self::Closer => (CLOSER, Some(4)),
            Self::Light => (LIGHT, Some(2)),
            Self::LookAtCamera => (LOOK, Some(4)),
            // One beep is left, two are right, and again.
            Self::Turn(Side::Left) => (LEFT, Some(4)),
            Self::Turn(Side::Right) => (RIGHT, Some(4)),
            Self::Move => (MOVE, Some(3)),
            Self::OneAtATime => (ONE, Some(6)),
            Self::Administrator => (ADMINISTRATOR, None),
            Self::Newcomer => (NEWCOMER, None),
            // As many beeps as views.
            Self::View { taken, .. } => (VIEW, Some(taken.max(1))),
            Self::Enrolled => (ENROLLED, Some(3)),
            Self::NotEnrolled => (NOT_ENROLLED, Some(2)),
            Self::CloseDoor => (CLOSE_DOOR, None),
            Self::Siren => (SIREN, None),
            Self::Quiet => (QUIET, Some(1)),
        };
        Pattern { beats, times }
    }

    /// Whether it is an alarm, which nothing ends but [`Self::Quiet`].
    pub fn stands(self) -> bool {
        matches!(self, Self::CloseDoor | Self::Siren)
    }

    /// What somebody is shown whose face cannot be compared.
    pub fn of_aspect(aspect: Aspect) -> Self {
        match aspect {
            Aspect::Size => Self::Closer,
            Aspect::Brightness => Self::Light,
            Aspect::Sharpness | Aspect::Pose => Self::LookAtCamera,
        }
    }

    /// What somebody is shown who is asked to move their head; nothing once they have,
    /// for what follows is shown.
    pub fn of_challenge(action: Action) -> Option<Self> {
        match action {
            Action::AskStraight => Some(Self::LookAtCamera),
            Action::AskTurn(side) => Some(Self::Turn(side)),
            Action::AskMove => Some(Self::Move),
            Action::Passed => None,
            Action::Failed(_) => Some(Self::Refused),
        }
    }

    /// What a newcomer is shown whose view will not do; nothing where the last
    /// signal still says it.
    pub fn of_hindrance(hindrance: Hindrance) -> Option<Self> {
        match hindrance {
            Hindrance::Crowd => Some(Self::OneAtATime),
            Hindrance::Poor(aspect) => Some(Self::of_aspect(aspect)),
            Hindrance::SomebodyElse => Some(Self::Refused),
            Hindrance::NoFace | Hindrance::Same | Hindrance::Turn(_) => None,
        }
    }

    /// What follows of the door; nothing of most. Duress looks and sounds like any
    /// other grant.
    pub fn of_note(note: &Note) -> Option<Self> {
        match note {
            // Not before the relay has answered.
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
