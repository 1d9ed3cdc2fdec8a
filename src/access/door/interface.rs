//! Inputs and outputs of the door's state machine.

use super::leaf::Alarm;
use super::lock::Order;
use super::passback::Role;
use crate::access::gallery::PersonId;
use crate::access::schedule::Admission;
use std::time::Duration;

/// Maximum number of people who were granted and have not passed yet: as many as walk
/// through in one opening.
pub(super) const MAX_PASSING: usize = 4;
/// Maximum number of events of one step: a relay that does not answer, a grant and its duress alarm, a mode, the end of one alarm and the beginning of
/// another, and a passage for each person in [`MAX_PASSING`].
const MAX_NOTES: usize = 6 + MAX_PASSING;

/// An operator's command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Open once, for [`super::DoorSettings::open_for`].
    Open,
    /// Admit nobody; requests to exit still open the door.
    Lockdown,
    /// Hold the door open until [`Self::Normal`] or [`Self::Lockdown`].
    AlwaysOpen,
    /// End lockdown and always open.
    Normal,
}

/// An input of the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A person was recognized in several frames.
    Known {
        /// The recognized person.
        person: PersonId,
        /// Whether their schedule admits them now.
        admission: Admission,
        /// Remaining time of the lockout that keeps them out.
        locked_out: Option<Duration>,
    },
    /// A request to exit.
    Exit,
    /// The duress gesture.
    Duress,
    /// The door contact reports that the door was opened.
    Opened,
    /// The door contact reports that the door was closed.
    Closed,
    /// An operator's command.
    Command(Command),
    /// The scheduled open hours have begun (`true`) or ended (`false`).
    OpenHours(bool),
    /// A person passed at another door.
    Passed {
        /// The person who passed.
        person: PersonId,
        /// Into the area or out of it.
        role: Role,
        /// Age of the passage.
        ago: Duration,
    },
    /// The relay has answered an order.
    Answer {
        /// [`Order::number`] of that order.
        order: u32,
        /// Whether the relay carried it out.
        taken: bool,
    },
    /// The relay is unreachable: the state of the lock is unknown.
    RelayAway,
    /// The relay is reachable again.
    RelayBack,
    /// Time has passed.
    Tick,
    /// The service ends: de-energise the relay for good.
    Stop,
}

/// Why a known person is not admitted, or a command is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The door is in lockdown.
    Lockdown,
    /// A lockout after too many refused attempts.
    LockedOut {
        /// Remaining time of the lockout.
        left: Duration,
    },
    /// The schedule does not admit them now.
    Schedule(Admission),
    /// Hard anti-passback: their last passage went the same way.
    PassedAlready,
    /// They were enrolled at the door and have no name yet.
    Probation,
    /// The service has ended.
    Stopped,
}

/// Something to log and report: a decision or a change of the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A known person is admitted.
    Granted {
        /// The admitted person.
        person: PersonId,
        /// Why the schedule admits them.
        admission: Admission,
        /// Their last passage went the same way: soft anti-passback, or hard under duress.
        again: bool,
    },
    /// A known person is not admitted.
    NotGranted {
        /// The refused person.
        person: PersonId,
        /// The reason.
        why: Refusal,
    },
    /// Duress alarm. It is silent: nobody at the door may notice.
    Duress {
        /// The person under duress.
        person: PersonId,
    },
    /// A request to exit opens the door.
    Exit,
    /// The command "open" is carried out.
    OpenedByCommand,
    /// The command "open" or "always open" is refused.
    NotOpenedByCommand(Refusal),
    /// The mode has changed to this one.
    Mode(Mode),
    /// The relay has unlocked the door.
    Unlocked,
    /// The relay has locked the door.
    Locked,
    /// The relay is de-energised for good, which leaves a fail-safe lock open.
    Released,
    /// The relay did not answer the order to open in time.
    NoAnswer,
    /// The relay is reachable again.
    RelayBack,
    /// An admitted person has passed.
    Passed {
        /// The person who passed.
        person: PersonId,
        /// Into the area or out of it. Other doors need it for anti-passback.
        role: Role,
    },
    /// An alarm begins.
    Alarm(Alarm),
    /// An alarm ends.
    AlarmEnded(Alarm),
}

/// Output of one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Order for the relay. Its answer comes back as [`Input::Answer`].
    pub relay: Option<Order>,
    /// Notes in the order in which they happened.
    pub events: heapless::Vec<Event, MAX_NOTES>,
}

/// Mode of the door, set by command or by schedule.
///
/// ```text
///            AlwaysOpen, or open hours begin
///   Normal <--------------------------------> AlwaysOpen
///      ^      Normal, or open hours end          |
///      | Normal                         Lockdown |
///      +-------- Lockdown <----------------------+
///  (to AlwaysOpen during open hours)
/// ```
///
/// Only the command "normal" ends lockdown; "always open" and open hours do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Locked; a grant, a request to exit or the command "open" opens it for a while.
    Normal,
    /// Locked; only a request to exit opens it.
    Lockdown,
    /// Held open.
    AlwaysOpen {
        /// Open by schedule, not by command.
        by_schedule: bool,
    },
}
