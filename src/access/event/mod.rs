//! What the door tells of itself: one event a decision, each of a kind that is
//! counted.

use crate::access::decide::{Evidence, Weight};
use crate::access::door::{Alarm, Mode, Note, Refusal, Role};
use crate::access::enroll::at_door::{self, Failure};
use crate::access::liveness::challenge::Action;
use crate::access::schedule::{Admission, TrustNote};
use crate::models::threshold::Threshold;
use crate::vision::liveness::Verdict;
use crate::vision::quality::Aspect;
use crate::vision::track::TrackId;
use std::collections::BTreeMap;
use std::fmt;
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
        action: Action,
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
    Door(Note),
    /// The wall clock.
    Clock(TrustNote),
    /// Of an enrolment with the button.
    Enroll {
        /// What.
        note: at_door::Note,
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
                Note::Granted { .. } => "granted",
                Note::NotGranted { .. } => "refused",
                Note::Duress { .. } => "duress",
                Note::Exit => "exit",
                Note::OpenedByCommand => "opened by command",
                Note::NotOpenedByCommand(_) => "command refused",
                Note::Mode(_) => "mode",
                Note::Unlocked => "unlocked",
                Note::Locked => "locked",
                Note::Released => "released",
                Note::NoAnswer => "relay silent",
                Note::RelayBack => "relay back",
                Note::Passed { .. } => "passed",
                Note::Alarm(_) => "alarm",
                Note::AlarmEnded(_) => "alarm ended",
                Note::LockedOut(_) => "locked out",
                Note::LockoutEnded => "lockout ended",
            },
            Self::Clock(_) => "clock",
            Self::Enroll { note: at_door::Note::Failed(_), .. } | Self::NotKept(_) => {
                "not enrolled"
            }
            Self::Enroll { .. } => "enrolling",
            Self::Enrolled { .. } => "enrolled",
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

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how =
            |threshold: &Threshold| if threshold.extrapolated { " (extrapolated)" } else { "" };
        match self {
            Self::Granted { name, evidence, threshold, admission, again } => {
                write!(f, "granted: {name}, {}", Why(evidence, threshold))?;
                if *admission == Admission::ClockUnsureAdmitted {
                    write!(f, "; {}", admission.reason())?;
                }
                if *again {
                    write!(f, "; passed this way already")?;
                }
                Ok(())
            }
            Self::NotGranted { name, evidence, threshold, why } => {
                write!(f, "refused: {name}, {}, though {}", Because(why), Why(evidence, threshold))
            }
            Self::Stranger { track, similarity, frames, .. } if *similarity <= -1.0 => {
                write!(f, "refused: nobody is enrolled, in {frames} frames, track {}", track.0)
            }
            Self::Stranger { track, similarity, frames, threshold } => write!(
                f,
                "refused: nobody known, similarity {similarity:.3} < {:.3}{}, in {frames} frames, track {}",
                threshold.similarity,
                how(threshold),
                track.0,
            ),
            Self::TwoFaces { faces } => write!(f, "refused: {faces} faces; one at a time"),
            Self::Poor(aspect) => write!(f, "cannot tell: {}", aspect.advice()),
            Self::NotLive { track, verdict, enforced } => write!(
                f,
                "{}: does not look live, score {:.2} ({}), in {} frames, track {}",
                if *enforced { "refused" } else { "advice" },
                verdict.score,
                verdict.cues.worst(),
                verdict.cues.frames,
                track.0,
            ),
            Self::Challenge { track, action } => {
                write!(f, "challenge: {action}, track {}", track.0)
            }
            Self::Stale { age } => {
                write!(
                    f,
                    "not used: a frame of {:.1} s ago; the board is too busy",
                    age.as_secs_f32()
                )
            }
            Self::Duress { name } => write!(f, "duress: {name}; a silent alarm"),
            Self::Passed { name, role } => write!(f, "passed: {name}, {}", way(*role)),
            Self::Unlocked => write!(f, "door unlocked"),
            Self::Locked => write!(f, "door locked"),
            Self::RelayFailed(message) => write!(f, "relay failed: {message}"),
            Self::CameraAway { reason } => write!(f, "camera away: {reason}"),
            Self::CameraBack => write!(f, "camera back"),
            Self::LineAway { name, reason } => write!(f, "{name} away: {reason}"),
            Self::LineBack { name } => write!(f, "{name} back"),
            Self::Door(note) => Told(note).fmt(f),
            Self::Clock(TrustNote::Trusted) => write!(f, "clock: trusted from now on"),
            Self::Clock(TrustNote::NotSynchronized) => {
                write!(f, "clock: no longer synchronized; schedules fall to their rules")
            }
            Self::Clock(TrustNote::Jumped(by)) => write!(
                f,
                "clock: jumped by {by} s; not trusted for a while, schedules fall to their rules"
            ),
            Self::Enroll { note, name } => enrolling(f, note, name.as_deref().unwrap_or("nobody")),
            Self::Enrolled { name } => {
                write!(f, "enrolled: {name}; give them their name with facelatch people rename")
            }
            Self::NotKept(reason) => write!(f, "not enrolled: {reason}"),
        }
    }
}

/// What speaks for a person, in words.
struct Why<'e>(&'e Evidence, &'e Threshold);

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(evidence, threshold) = self;
        write!(
            f,
            "similarity {:.3} >= {:.3}{}, in {} of {} frames, track {}",
            evidence.similarity,
            threshold.similarity,
            if threshold.extrapolated { " (extrapolated)" } else { "" },
            evidence.frames,
            evidence.of,
            evidence.track.0,
        )?;
        match evidence.weight {
            // As decimal digits: 5 is a hundred thousand times likelier.
            Some(Weight { log_ratio, needed }) => {
                let digits = std::f64::consts::LN_10;
                write!(f, ", evidence {:.1} >= {:.1}", log_ratio / digits, needed / digits)
            }
            None => Ok(()),
        }
    }
}

struct Because<'r>(&'r Refusal);

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Refusal::Lockdown => write!(f, "lockdown"),
            Refusal::LockedOut { left } => {
                write!(f, "locked out for another {:.0} s", left.as_secs_f32())
            }
            Refusal::Schedule(admission) => f.write_str(admission.reason()),
            Refusal::PassedAlready => write!(f, "passed this way already"),
            Refusal::Stopped => write!(f, "the service has ended"),
        }
    }
}

/// A note of the door, in words.
struct Told<'n>(&'n Note);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Note::Granted { person, .. } => write!(f, "granted: person {}", person.0),
            Note::NotGranted { person, why } => {
                write!(f, "refused: person {}, {}", person.0, Because(why))
            }
            Note::Duress { person } => write!(f, "duress: person {}; a silent alarm", person.0),
            Note::Exit => write!(f, "request to exit"),
            Note::OpenedByCommand => write!(f, "opened by command"),
            Note::NotOpenedByCommand(why) => {
                write!(f, "not opened by command: {}; end that first", Because(why))
            }
            Note::Mode(Mode::Normal) => write!(f, "mode: normal"),
            Note::Mode(Mode::Lockdown) => write!(f, "mode: lockdown, nobody comes in"),
            Note::Mode(Mode::AlwaysOpen { by_schedule: false }) => write!(f, "mode: always open"),
            Note::Mode(Mode::AlwaysOpen { by_schedule: true }) => write!(f, "mode: open hours"),
            Note::Unlocked => write!(f, "door unlocked"),
            Note::Locked => write!(f, "door locked"),
            Note::Released => write!(f, "relay off for good: a fail-safe lock is open"),
            Note::NoAnswer => write!(f, "relay silent: it has not said whether it opened"),
            Note::RelayBack => write!(f, "relay back: told again what to do"),
            Note::Passed { person, role } => {
                write!(f, "passed: person {}, {}", person.0, way(*role))
            }
            Note::Alarm(Alarm::HeldTooLong) => write!(f, "alarm: the door is held open too long"),
            Note::Alarm(Alarm::Forced) => write!(f, "alarm: the door was forced"),
            Note::AlarmEnded(Alarm::HeldTooLong) => write!(f, "alarm ended: held open"),
            Note::AlarmEnded(Alarm::Forced) => write!(f, "alarm ended: forced"),
            Note::LockedOut(lasts) => write!(
                f,
                "locked out: too many refused tries; nobody is let in for {:.0} s",
                lasts.as_secs_f32()
            ),
            Note::LockoutEnded => write!(f, "lockout ended"),
        }
    }
}

fn way(role: Role) -> &'static str {
    match role {
        Role::In => "in",
        Role::Out => "out",
    }
}

fn enrolling(f: &mut fmt::Formatter<'_>, note: &at_door::Note, name: &str) -> fmt::Result {
    match note {
        at_door::Note::Begun(_) => write!(f, "enrolling: an administrator is waited for"),
        at_door::Note::First(_) => write!(f, "enrolling: the first person is waited for"),
        at_door::Note::NotReset(_) => write!(
            f,
            "not enrolling: nobody is enrolled who could allow it; reset the device first, or \
             use facelatch enroll"
        ),
        at_door::Note::Administrator(_) => {
            write!(f, "enrolling: allowed by {name}; the newcomer is waited for")
        }
        at_door::Note::LookAlike(like) => write!(
            f,
            "enrolling: looks much like {name} (similarity {:.3}); more is asked of both",
            like.similarity
        ),
        at_door::Note::Failed(failure) => match failure {
            Failure::Cancelled => write!(f, "not enrolled: cancelled"),
            Failure::NoAdministrator => write!(f, "not enrolled: no administrator came in time"),
            Failure::NoViews(hindrance) => {
                write!(f, "not enrolled: not enough good views in time: {}", hindrance.advice())
            }
            Failure::AlreadyEnrolled(like) => write!(
                f,
                "not enrolled: this is {name}, who is already enrolled (similarity {:.3})",
                like.similarity
            ),
            Failure::NotKept => write!(f, "not enrolled: the gallery was not written"),
            Failure::ModelsChanged => {
                write!(f, "not enrolled: other models came between; begin again")
            }
        },
    }
}
