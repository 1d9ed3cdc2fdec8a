//! An event as one JSON object, for `run --json`. Fields are only added, never renamed.

use super::{Caller, Event};
use crate::access::decide::Evidence;
use crate::access::door::{self, Alarm, Mode, Refusal};
use crate::access::enroll::at_door::{self, Barred, Failure};
use crate::access::false_entries;
use crate::access::lockout::{self, Whose};
use crate::access::schedule::{Admission, TrustNote};
use crate::models::threshold::Threshold;
use serde_json::{Map, Value, json};
use std::time::Duration;

impl Event {
    /// The event with its kind and its time on the service's clock, in seconds.
    pub fn to_json(&self, at: Duration) -> Value {
        let mut object = Map::new();
        object.insert("at".to_owned(), json!(at.as_secs_f64()));
        object.insert("event".to_owned(), json!(self.kind()));
        let mut add = |more: Value| {
            if let Value::Object(more) = more {
                object.extend(more);
            }
        };
        match self {
            Self::Granted { name, evidence: why, threshold, admission, again, .. } => {
                add(json!({"name": name}));
                add(evidence(why, threshold));
                add(json!({"schedule": admission.reason(), "again": again}));
            }
            Self::NotGranted { name, evidence: seen, threshold, why, .. } => {
                add(json!({"reason": reason(why), "name": name}));
                if let Refusal::LockedOut { left } = why {
                    add(json!({"left_s": left.as_secs_f64().round() as u64}));
                }
                add(evidence(seen, threshold));
            }
            Self::Stranger { track, similarity, frames, threshold, denied, .. } => {
                add(json!({
                    "reason": "stranger", "track": track.0, "similarity": similarity,
                    "frames": frames, "threshold": threshold.similarity,
                    "extrapolated": threshold.extrapolated,
                }));
                if *denied {
                    add(json!({"denied": true}));
                }
            }
            Self::TwoFaces { faces, .. } => add(json!({"reason": "two faces", "faces": faces})),
            Self::Poor(aspect) => add(json!({"advice": aspect.advice()})),
            Self::NotLive { track, verdict, person, .. } => add(json!({
                "reason": "liveness", "person": person.0, "track": track.0, "score": verdict.score,
                "cue": verdict.cues.worst().to_string(), "frames": verdict.cues.frames,
            })),
            Self::Challenge { track, action } => {
                add(json!({"track": track.0, "action": action.to_string()}));
            }
            Self::Stale { age } => add(json!({"age": age.as_secs_f64()})),
            Self::Duress { person, name } | Self::Enrolled { person, name } => {
                add(json!({"person": person.0, "name": name}));
            }
            Self::Passed { person, name, role } => {
                add(json!({"person": person.0, "name": name, "role": role}));
            }
            Self::Ordered { order, by } => {
                add(json!({"order": order}));
                add(caller(by));
            }
            Self::OrderRefused { order, by, reason } => {
                add(json!({"order": order, "error": reason}));
                add(caller(by));
            }
            Self::Unlocked | Self::Locked | Self::CameraBack | Self::GalleryBack => {}
            Self::CameraChanged { before, now } => add(json!({
                "alarm": "camera changed", "before": before, "now": now,
            })),
            Self::CameraTrusted => add(json!({"alarm": "camera changed"})),
            Self::CameraAway { reason } => add(json!({"error": reason})),
            Self::GalleryFault { state, reason } => {
                add(json!({"state": state, "error": reason}));
            }
            Self::GalleryRepaired(reason) => add(json!({"error": reason})),
            Self::LineAway { name, reason } => add(json!({"line": name, "error": reason})),
            Self::LineBack { name } => add(json!({"line": name})),
            Self::RelayFailed(message) | Self::NotKept(message) => add(json!({"error": message})),
            Self::Door(note) => {
                add(json!({"text": self.to_string()}));
                add(of_note(note));
            }
            Self::Lockout(event) => {
                add(json!({"text": self.to_string()}));
                if let lockout::Event::LockedOut { whose, lasts } = event {
                    add(json!({"for_s": lasts.as_secs(), "whose": match whose {
                        Whose::Door => "door",
                        Whose::Face => "face",
                    }}));
                }
            }
            Self::Clock(note) => {
                add(json!({"text": self.to_string()}));
                add(match note {
                    TrustNote::Trusted => json!({"clock": "trusted"}),
                    TrustNote::NotSynchronized => json!({"clock": "not synchronized"}),
                    TrustNote::Unproven => json!({"clock": "unproven"}),
                    TrustNote::Behind(by) => json!({"clock": "behind", "by_s": by}),
                    TrustNote::Jumped(by) => json!({"clock": "jumped", "by_s": by}),
                });
            }
            Self::FalseEntries(note) => {
                add(json!({"text": self.to_string()}));
                add(expected(note));
            }
            Self::Enroll { event, name } => {
                add(json!({"text": self.to_string(), "name": name}));
                add(of_enrolment(event));
            }
        }
        Value::Object(object)
    }
}

/// What is expected, with what has changed.
fn expected(note: &false_entries::Note) -> Value {
    use false_entries::Note;
    let (step, from, report) = match note {
        Note::Tightened { from, report } => ("tightened", Some(*from), report),
        Note::Loosened { from, report } => ("loosened", Some(*from), report),
        Note::OverBudget(report) => ("over budget", None, report),
        Note::MoreAlike(report) => ("more alike", None, report),
        Note::Daily(report) => ("daily", None, report),
    };
    let false_entries::Interval { expected, low, high } = report.entries_per_year;
    json!({
        "step": step, "rate_before": from, "rate": report.rate, "similarity": report.similarity,
        "expected_per_year": expected, "low": low, "high": high, "budget": report.budget,
        "attempts_per_year": report.attempts_per_year.expected, "assumed": report.assumed,
        "watched_days": report.watched_days, "strangers": report.strangers,
        "undecided": report.undecided, "known": report.known,
        "measured": report.measured.attempts, "evidence": report.measured.evidence,
    })
}

fn caller(by: &Caller) -> Value {
    json!({"uid": by.uid, "login": by.login, "needs": by.role, "link": by.link})
}

fn evidence(evidence: &Evidence, threshold: &Threshold) -> Value {
    json!({
        "person": evidence.person.0, "track": evidence.track.0,
        "similarity": evidence.similarity, "frames": evidence.frames, "of": evidence.of,
        "threshold": threshold.similarity, "extrapolated": threshold.extrapolated,
        "log_ratio": evidence.weight.map(|weight| weight.log_ratio),
        "log_ratio_needed": evidence.weight.map(|weight| weight.needed),
    })
}

/// One word for why a known person is refused.
fn reason(why: &Refusal) -> &'static str {
    match why {
        Refusal::Lockdown => "lockdown",
        Refusal::LockedOut { .. } => "locked out",
        Refusal::Schedule(Admission::UnknownGroup) => "unknown group",
        Refusal::Schedule(Admission::ClockUnsureRefused) => "clock",
        Refusal::Schedule(Admission::NotYet) => "not yet valid",
        Refusal::Schedule(Admission::NoLonger) => "no longer valid",
        Refusal::Schedule(Admission::SiteUnheard) => "site unheard",
        Refusal::Schedule(_) => "hours",
        Refusal::PassedAlready => "passed already",
        Refusal::Probation => "probation",
        Refusal::Stopped => "stopped",
    }
}

fn of_note(note: &door::Event) -> Value {
    match note {
        door::Event::NotGranted { why, .. } | door::Event::NotOpenedByCommand(why) => {
            json!({"reason": reason(why)})
        }
        door::Event::Mode(mode) => json!({"mode": match mode {
            Mode::Normal => "normal",
            Mode::Lockdown => "lockdown",
            Mode::AlwaysOpen { by_schedule: false } => "always open",
            Mode::AlwaysOpen { by_schedule: true } => "open hours",
        }}),
        door::Event::Alarm(alarm) | door::Event::AlarmEnded(alarm) => json!({"alarm": match alarm {
            Alarm::HeldTooLong => "held open",
            Alarm::Forced => "forced",
        }}),
        door::Event::Granted { .. }
        | door::Event::Duress { .. }
        | door::Event::Exit
        | door::Event::OpenedByCommand
        | door::Event::Unlocked
        | door::Event::Locked
        | door::Event::Released
        | door::Event::NoAnswer
        | door::Event::RelayBack
        | door::Event::Passed { .. } => json!({}),
    }
}

fn barred_by(barred: Barred) -> &'static str {
    match barred {
        Barred::Outside => "button outside",
        Barred::Lockdown => "lockdown",
        Barred::LockedOut => "locked out",
        Barred::Hours => "hours",
    }
}

fn of_enrolment(event: &at_door::Event) -> Value {
    let failure = match event {
        at_door::Event::Begun(_) => return json!({"step": "awaiting administrator"}),
        at_door::Event::First(_) => return json!({"step": "awaiting first person"}),
        at_door::Event::NotReset(_) => return json!({"reason": "no administrator, not reset"}),
        at_door::Event::NotNow(barred) => return json!({"reason": barred_by(*barred)}),
        at_door::Event::Confirm(_) => return json!({"step": "awaiting confirmation"}),
        at_door::Event::Administrator(_) => return json!({"step": "awaiting newcomer"}),
        at_door::Event::LookAlike(like) => {
            return json!({"step": "look-alike", "similarity": like.similarity});
        }
        at_door::Event::Failed(failure) => failure,
    };
    match failure {
        Failure::Cancelled => json!({"reason": "cancelled"}),
        Failure::NotConfirmed => json!({"reason": "not confirmed"}),
        Failure::Barred(barred) => json!({"reason": barred_by(*barred)}),
        Failure::NoAdministrator => json!({"reason": "no administrator"}),
        Failure::NoViews(hindrance) => {
            json!({"reason": "too few views", "advice": hindrance.advice()})
        }
        Failure::AlreadyEnrolled(like) => {
            json!({"reason": "already enrolled", "similarity": like.similarity})
        }
        Failure::NotKept => json!({"reason": "not written"}),
        Failure::ModelsChanged => json!({"reason": "models changed"}),
    }
}
