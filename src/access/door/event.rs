//! What happens to a door, and what follows.

use super::leaf::Alarm;
use super::lock::Order;
use super::passback::Role;
use crate::access::gallery::PersonId;
use crate::access::schedule::Admission;
use std::time::Duration;

/// People let in who have not yet passed: as many as come through in one opening.
pub(super) const MAX_PASSING: usize = 4;
/// Notes of one step: at the most an end of lockout, a silent relay, a grant under
/// duress, a mode, an alarm's end and another's beginning, and everybody who passes.
const MAX_NOTES: usize = 7 + MAX_PASSING;

/// An order of whoever runs the building.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Open once.
    Open,
    /// Nobody comes in.
    Lockdown,
    /// Stay open.
    AlwaysOpen,
    /// An end to lockdown and to always open.
    Normal,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody known stands at the door, by the evidence of several frames.
    Known {
        /// Who.
        person: PersonId,
        /// What the schedule says of them.
        admission: Admission,
    },
    /// Somebody tried and is not known, or not believed.
    Refused,
    /// Somebody inside wants to leave.
    Exit,
    /// The gesture for duress.
    Duress,
    /// The contact: the door was opened.
    Opened,
    /// The contact: the door was closed.
    Closed,
    /// An order.
    Command(Command),
    /// The schedule that holds the door open has begun or ended.
    OpenHours(bool),
    /// Somebody passed at another door.
    Passed {
        /// Who.
        person: PersonId,
        /// Which way.
        role: Role,
        /// How long ago.
        ago: Duration,
    },
    /// The relay has answered.
    Answer {
        /// Which order.
        order: u32,
        /// Whether it did as told.
        taken: bool,
    },
    /// The relay is away: nobody knows what the lock does.
    RelayAway,
    /// The relay was away and is back.
    RelayBack,
    /// Nothing but time.
    Tick,
    /// The service ends: power off.
    Stop,
}

/// Why somebody known is not let in, or an order not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Nobody comes in.
    Lockdown,
    /// Too many tries; for so long from now.
    LockedOut {
        /// Time left.
        left: Duration,
    },
    /// What the schedule says.
    Schedule(Admission),
    /// They passed this way already.
    PassedAlready,
    /// The service has ended.
    Stopped,
}

/// Something to tell, one for each decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Somebody known may come in.
    Granted {
        /// Who.
        person: PersonId,
        /// What the schedule says of them.
        admission: Admission,
        /// They passed this way already, and the rule is soft.
        again: bool,
    },
    /// Somebody known may not.
    NotGranted {
        /// Who.
        person: PersonId,
        /// Why not.
        why: Refusal,
    },
    /// Somebody let in was forced to: nobody at the door may notice.
    Duress {
        /// Who.
        person: PersonId,
    },
    /// Somebody leaves.
    Exit,
    /// The order "open" is followed.
    OpenedByCommand,
    /// It is not.
    NotOpenedByCommand(Refusal),
    /// Another mode.
    Mode(Mode),
    /// The relay has opened the lock.
    Unlocked,
    /// The relay has locked it.
    Locked,
    /// The relay is off for good, and so a fail-safe lock is open.
    Released,
    /// The relay has not said in time whether it opened.
    NoAnswer,
    /// The relay is back.
    RelayBack,
    /// Somebody let in has passed.
    Passed {
        /// Who.
        person: PersonId,
        /// Which way; other doors want to know.
        role: Role,
    },
    /// An alarm begins.
    Alarm(Alarm),
    /// It ends.
    AlarmEnded(Alarm),
    /// Too many refused tries: nobody is let in for so long.
    LockedOut(Duration),
    /// That is over.
    LockoutEnded,
}

/// What follows of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// What the relay is to do. The answer comes back as an event.
    pub relay: Option<Order>,
    /// What to tell, in order.
    pub notes: heapless::Vec<Note, MAX_NOTES>,
}

/// What holds for the door by order or by schedule.
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
/// Lockdown is left by the order "normal" alone: neither "always open" nor open
/// hours end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Locked, and open for whoever may come in.
    Normal,
    /// Nobody comes in. Whoever wants to leave may.
    Lockdown,
    /// Open.
    AlwaysOpen {
        /// By the schedule and not by an order.
        by_schedule: bool,
    },
}
