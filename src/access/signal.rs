//! Signals for the person at the door: what they mean. [`crate::hardware::lights::pattern`]
//! says how they look and sound.

use crate::access::door::{self, Alarm};
use crate::access::liveness::challenge::{self, Direction};
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
    /// Show the whole face: something covers it, or the edge of the picture cuts it.
    WholeFace,
    /// Turn the head to this side.
    Turn(Direction),
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

impl Signal {
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
            Aspect::Cut | Aspect::Covered(_) => Self::WholeFace,
        }
    }

    /// Signal for a step of a liveness challenge. `None` once the challenge is passed:
    /// the decision that follows has its own signal.
    pub fn of_challenge(action: challenge::Output) -> Option<Self> {
        match action {
            challenge::Output::AskStraight => Some(Self::LookAtCamera),
            challenge::Output::AskTurn(side) => Some(Self::Turn(side)),
            challenge::Output::AskMove => Some(Self::Move),
            challenge::Output::Passed => None,
            challenge::Output::Failed(_) => Some(Self::Refused),
        }
    }

    /// Signal for a note of the door; `None` for most notes. Duress has no signal, so that
    /// it looks and sounds like any other grant.
    pub fn of_door(event: &door::Event) -> Option<Self> {
        match event {
            // Only once the relay has answered.
            door::Event::Unlocked => Some(Self::Welcome),
            door::Event::NotGranted { .. } => Some(Self::Refused),
            door::Event::Alarm(Alarm::HeldTooLong) => Some(Self::CloseDoor),
            door::Event::Alarm(Alarm::Forced) => Some(Self::Siren),
            door::Event::AlarmEnded(_) => Some(Self::Quiet),
            door::Event::Granted { .. }
            | door::Event::Duress { .. }
            | door::Event::Exit
            | door::Event::OpenedByCommand
            | door::Event::NotOpenedByCommand(_)
            | door::Event::Mode(_)
            | door::Event::Locked
            | door::Event::Released
            | door::Event::NoAnswer
            | door::Event::RelayBack
            | door::Event::Passed { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::gallery::PersonId;

    #[test]
    fn duress_is_silent() {
        assert_eq!(Signal::of_door(&door::Event::Duress { person: PersonId(1) }), None);
    }
}
