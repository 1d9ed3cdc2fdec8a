//! What the door tells of itself: one event a decision, each of a kind that is
//! counted.

mod json;
mod text;

use crate::access::decide::Evidence;
use crate::access::door::{self, Refusal, Role};
use crate::access::enroll::at_door;
use crate::access::liveness::challenge;
use crate::access::schedule::{Admission, TrustNote};
use crate::models::threshold::Threshold;
use crate::vision::liveness::Verdict;
use crate::vision::quality::Aspect;
use crate::vision::track::TrackId;
use std::collections::BTreeMap;
use std::time::Duration;

/// Something worth telling.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Somebody may come in.
    Granted {
        /// Who.
        name: String,
        /// Why.
        evidence: Evidence,
        /// What their similarity had to reach.
        threshold: Threshold,
        /// What the schedule says of them.
        admission: Admission,
        /// They passed this way already, and the rule is soft.
        again: bool,
    },
    /// Somebody known may not.
    NotGranted {
        /// Who.
        name: String,
        /// Why they count as known.
        evidence: Evidence,
        /// What their similarity had to reach.
        threshold: Threshold,
        /// Why not.
        why: Refusal,
    },
    /// Nobody the gallery knows.
    Stranger {
        /// Their track.
        track: TrackId,
        /// Highest similarity to anybody; -1 where nobody is enrolled.
        similarity: f32,
        /// Frames that said so.
        frames: usize,
        /// What it would have had to reach.
        threshold: Threshold,
    },
    /// More than one face in the zone.
    TwoFaces {
        /// How many.
        faces: usize,
    },
    /// A face that cannot be compared, and why.
    Poor(Aspect),
    /// A face that does not look as if it were there in person.
    NotLive {
        /// Whose.
        track: TrackId,
        /// Why.
        verdict: Verdict,
        /// Whether the door stays shut for it.
        enforced: bool,
    },
    /// Somebody is asked to move their head, or has.
    Challenge {
        /// Who.
        track: TrackId,
        /// What.
        action: challenge::Output,
    },
    /// A frame that was looked at for too long to say who stands there now.
    Stale {
        /// Its age.
        age: Duration,
    },
    /// Somebody recognized is forced to open: a silent alarm.
    Duress {
        /// Who.
        name: String,
    },
    /// Somebody let in has passed.
    Passed {
        /// Who.
        name: String,
        /// Which way.
        role: Role,
    },
    /// The relay has opened the lock.
    Unlocked,
    /// The relay has closed the lock.
    Locked,
    /// The relay did not do as told.
    RelayFailed(String),
    /// No frames come any more; the door goes on without.
    CameraAway {
        /// Why.
        reason: String,
    },
    /// Frames come again.
    CameraBack,
    /// A line of the board, or a lamp, cannot be used any more, or yet.
    LineAway {
        /// What is wired to it.
        name: String,
        /// Why.
        reason: String,
    },
    /// It can again.
    LineBack {
        /// What is wired to it.
        name: String,
    },
    /// Anything else that the door tells.
    Door(door::Event),
    /// The wall clock.
    Clock(TrustNote),
    /// Of an enrolment with the button.
    Enroll {
        /// What.
        event: at_door::Event,
        /// Whom it names.
        name: Option<String>,
    },
    /// Somebody is enrolled.
    Enrolled {
        /// Their name so far.
        name: String,
    },
    /// The gallery did not take a newcomer.
    NotKept(String),
}

impl Event {
    /// What it is counted as.
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
                door::Event::LockedOut(_) => "locked out",
                door::Event::LockoutEnded => "lockout ended",
            },
            Self::Clock(_) => "clock",
            Self::Enroll { event: at_door::Event::Failed(_), .. } | Self::NotKept(_) => {
                "not enrolled"
            }
            Self::Enroll { .. } => "enrolling",
            Self::Enrolled { .. } => "enrolled",
        }
    }

    /// How urgent the event is in a log.
    pub fn severity(&self) -> log::Level {
        match self {
            Self::RelayFailed(_)
            | Self::NotKept(_)
            | Self::CameraAway { .. }
            | Self::LineAway { .. }
            | Self::Door(door::Event::NoAnswer) => log::Level::Error,
            Self::Clock(TrustNote::NotSynchronized | TrustNote::Jumped(_))
            | Self::Door(door::Event::Alarm(_))
            | Self::Duress { .. }
            | Self::Stale { .. } => log::Level::Warn,
            _ => log::Level::Info,
        }
    }
}

/// How often each kind of event was told. As many entries as kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    /// One more.
    pub fn add(&mut self, event: &Event) {
        *self.0.entry(event.kind()).or_default() += 1;
    }

    /// How often.
    pub fn of(&self, kind: &str) -> u64 {
        self.0.get(kind).copied().unwrap_or(0)
    }

    /// All kinds that were told.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(kind, count)| (*kind, *count))
    }
}
