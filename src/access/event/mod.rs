//! The events of the door, to be logged, reported and counted: one per decision or change.
//! `text.rs` writes an event as a line of the log, `json.rs` as a JSON object.

mod json;
mod plain;
mod text;

pub use plain::{is_plain, plain, plain_json};

use crate::access::attempt::Attempt;
use crate::access::decide::Evidence;
use crate::access::door::{self, Refusal, Role};
use crate::access::enroll::at_door;
use crate::access::false_entries;
use crate::access::gallery::PersonId;
use crate::access::liveness::challenge;
use crate::access::lockout;
use crate::access::schedule::{Admission, TrustNote};
use crate::models::threshold::Threshold;
use crate::vision::liveness::Verdict;
use crate::vision::quality::Aspect;
use crate::vision::track::TrackId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Something that happened at the door.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A known person is admitted.
    Granted {
        /// Name of the person.
        name: String,
        /// The evidence that this is the person.
        evidence: Evidence,
        /// The threshold of this person; [`super::gallery::Traits::stricter`] is included.
        threshold: Threshold,
        /// Why the schedule admits them.
        admission: Admission,
        /// Whether their last passage went the same way (soft anti-passback).
        again: bool,
        /// What the decision rests on.
        attempt: Arc<Attempt>,
    },
    /// A known person is not admitted.
    NotGranted {
        /// Name of the person.
        name: String,
        /// The evidence that this is the person.
        evidence: Evidence,
        /// The threshold of this person; [`super::gallery::Traits::stricter`] is included.
        threshold: Threshold,
        /// The reason.
        why: Refusal,
        /// What the decision rests on.
        attempt: Arc<Attempt>,
    },
    /// A person who is not in the gallery.
    Stranger {
        /// Track of the face.
        track: TrackId,
        /// Highest cosine similarity to any person, -1..=1; -1 if nobody is enrolled.
        similarity: f32,
        /// Number of frames in which nobody matched.
        frames: usize,
        /// The threshold that the similarity does not reach.
        threshold: Threshold,
        /// Whether a view was as similar to a reported false entry as to the person, so that
        /// it counted for nobody. The similarity may reach the threshold then.
        denied: bool,
        /// What the decision rests on.
        attempt: Arc<Attempt>,
    },
    /// More than one face is in the zone.
    TwoFaces {
        /// Number of faces.
        faces: usize,
        /// What the decision rests on.
        attempt: Arc<Attempt>,
    },
    /// The only face is too poor to compare; the aspect is the weakest one.
    Poor(Aspect),
    /// A known person does not look live.
    NotLive {
        /// Track of the face.
        track: TrackId,
        /// The liveness score and its cues.
        verdict: Verdict,
        /// Whether this keeps the door locked, or is only reported.
        enforced: bool,
        /// The person whom the track shows.
        person: PersonId,
        /// What the decision rests on.
        attempt: Arc<Attempt>,
    },
    /// A step of a liveness challenge.
    Challenge {
        /// Track of the face.
        track: TrackId,
        /// The request to the person, or the result.
        action: challenge::Output,
    },
    /// A frame was dropped, because it was older than evidence may be.
    Stale {
        /// Age of the frame.
        age: Duration,
    },
    /// Silent duress alarm.
    Duress {
        /// The person under duress.
        person: PersonId,
        /// Name of the person under duress.
        name: String,
    },
    /// An admitted person has passed.
    Passed {
        /// The person who passed.
        person: PersonId,
        /// Name of the person.
        name: String,
        /// Into the area or out of it.
        role: Role,
    },
    /// The relay has unlocked the door.
    Unlocked,
    /// The relay has locked the door.
    Locked,
    /// The relay refused an order or is unreachable; the text says why.
    RelayFailed(String),
    /// The camera delivers no frames. The door continues without it.
    CameraAway {
        /// The fault and the cure.
        reason: String,
    },
    /// The camera delivers frames again.
    CameraBack,
    /// The gallery's file is away, unreachable, damaged, older than the people in use, or
    /// another one. The people in use stay in use.
    GalleryFault {
        /// The state in one word.
        state: &'static str,
        /// The fault and the cure.
        reason: String,
    },
    /// The gallery's file can be read again.
    GalleryBack,
    /// The gallery's file was replaced by its last good copy; the text says why.
    GalleryRepaired(String),
    /// Another camera answers than before. Faces count for nothing until it is accepted.
    CameraChanged {
        /// The camera before, in words.
        before: String,
        /// The camera now, in words.
        now: String,
    },
    /// The changed camera was accepted, or the one before is back.
    CameraTrusted,
    /// A GPIO line cannot be used.
    LineAway {
        /// What is wired to it: a button, a contact, a lamp.
        name: String,
        /// The fault and the cure.
        reason: String,
    },
    /// A GPIO line can be used again.
    LineBack {
        /// What is wired to it: a button, a contact, a lamp.
        name: String,
    },
    /// Any other event of the door. Those with their own variant above never appear here.
    Door(door::Event),
    /// A lockout begins or ends.
    Lockout(lockout::Event),
    /// Trust in the wall clock has changed.
    Clock(TrustNote),
    /// A step of an enrolment with the button.
    Enroll {
        /// The step.
        event: at_door::Event,
        /// Name of the person whom the step refers to; `None` if it refers to nobody.
        name: Option<String>,
    },
    /// A newcomer is enrolled.
    Enrolled {
        /// Number of the person.
        person: PersonId,
        /// Their provisional name.
        name: String,
    },
    /// A newcomer could not be written to the gallery; the text says why.
    NotKept(String),
    /// Expected false entries, and changes of the threshold that follow.
    FalseEntries(false_entries::Note),
    /// Somebody gave the service an order. The events that follow from it come directly
    /// after.
    Ordered {
        /// The order, as in the protocol of the control socket.
        order: String,
        /// Who gave it.
        by: Caller,
    },
    /// A request over the control socket was refused.
    OrderRefused {
        /// The request, as in the protocol of the control socket.
        order: String,
        /// Who gave it.
        by: Caller,
        /// Why it was refused, and the cure.
        reason: String,
    },
}

/// Who gave an order over the control socket. What the kernel shows is proven.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// User id at the other end of the socket, as the kernel shows it.
    pub uid: Option<u32>,
    /// User id of the login from which the client was started, as the kernel shows it: with
    /// sudo, the user who called it.
    pub login: Option<u32>,
    /// Role by which the order is allowed, or which it lacks.
    pub role: &'static str,
    /// Whether the user is the program that links this door to others.
    pub link: bool,
}

impl Event {
    /// Kind of the event, as counted in [`Counts`] and as the field `event` of its JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Granted { .. } => "granted",
            Self::NotGranted { .. } | Self::Stranger { .. } | Self::TwoFaces { .. } => "refused",
            Self::NotLive { enforced: true, .. } => "refused",
            Self::Poor(_) | Self::NotLive { enforced: false, .. } => "advice",
            Self::Challenge { .. } => "challenge",
            Self::Stale { .. } => "stale",
            Self::Duress { .. } => "duress",
            Self::Passed { .. } => "passed",
            Self::Unlocked => "unlocked",
            Self::Locked => "locked",
            Self::RelayFailed(_) => "relay failed",
            Self::CameraAway { .. } => "camera away",
            Self::CameraBack => "camera back",
            Self::GalleryFault { .. } => "gallery fault",
            Self::GalleryBack => "gallery back",
            Self::GalleryRepaired(_) => "gallery repaired",
            Self::CameraChanged { .. } => "alarm",
            Self::CameraTrusted => "alarm ended",
            Self::LineAway { .. } => "line away",
            Self::LineBack { .. } => "line back",
            Self::Door(note) => match note {
                door::Event::Granted { .. } => "granted",
                door::Event::NotGranted { .. } => "refused",
                door::Event::Duress { .. } => "duress",
                door::Event::Exit => "exit",
                door::Event::OpenedByCommand => "opened by command",
                door::Event::NotOpenedByCommand(_) => "command refused",
                door::Event::Mode(_) => "mode",
                door::Event::Unlocked => "unlocked",
                door::Event::Locked => "locked",
                door::Event::Released => "released",
                door::Event::NoAnswer => "relay silent",
                door::Event::RelayBack => "relay back",
                door::Event::Passed { .. } => "passed",
                door::Event::Alarm(_) => "alarm",
                door::Event::AlarmEnded(_) => "alarm ended",
            },
            Self::Lockout(lockout::Event::LockedOut { .. }) => "locked out",
            Self::Lockout(lockout::Event::Ended) => "lockout ended",
            Self::Clock(_) => "clock",
            Self::Enroll { event: at_door::Event::Failed(_), .. } | Self::NotKept(_) => {
                "not enrolled"
            }
            Self::Enroll { .. } => "enrolling",
            Self::Enrolled { .. } => "enrolled",
            Self::FalseEntries(false_entries::Note::Daily(_)) => "false entries expected",
            Self::FalseEntries(_) => "false entries",
            Self::Ordered { .. } => "order",
            Self::OrderRefused { .. } => "order refused",
        }
    }

    /// Level at which the event is logged.
    pub fn severity(&self) -> log::Level {
        match self {
            Self::RelayFailed(_)
            | Self::NotKept(_)
            | Self::CameraAway { .. }
            | Self::GalleryFault { .. }
            | Self::GalleryRepaired(_)
            | Self::CameraChanged { .. }
            | Self::LineAway { .. }
            | Self::Door(door::Event::NoAnswer) => log::Level::Error,
            Self::Clock(
                TrustNote::NotSynchronized | TrustNote::Jumped(_) | TrustNote::Behind(_),
            )
            | Self::Door(door::Event::Alarm(_))
            | Self::Lockout(lockout::Event::LockedOut { .. })
            | Self::Duress { .. }
            | Self::FalseEntries(
                false_entries::Note::Tightened { .. }
                | false_entries::Note::Loosened { .. }
                | false_entries::Note::OverBudget(_)
                | false_entries::Note::MoreAlike(_),
            )
            | Self::Stale { .. } => log::Level::Warn,
            // The socket's own thread logs both, with the result.
            Self::Ordered { .. } | Self::OrderRefused { .. } => log::Level::Debug,
            _ => log::Level::Info,
        }
    }
}

/// Number of events by kind. Bounded: there are about thirty kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    /// Counts one event.
    pub fn add(&mut self, event: &Event) {
        *self.0.entry(event.kind()).or_default() += 1;
    }

    /// Number of events of this kind; 0 for an unknown kind.
    pub fn of(&self, kind: &str) -> u64 {
        self.0.get(kind).copied().unwrap_or(0)
    }

    /// All kinds that occurred, in alphabetical order, with their numbers.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(kind, count)| (*kind, *count))
    }
}
