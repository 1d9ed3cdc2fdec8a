//! An event as one line of the log.

use super::{Caller, Event};
use crate::access::decide::{Evidence, Weight};
use crate::access::door::{self, Alarm, Mode, Refusal, Role};
use crate::access::enroll::at_door::{self, Barred, Failure};
use crate::access::false_entries;
use crate::access::lockout::{self, Whose};
use crate::access::schedule::{Admission, TrustNote};
use crate::models::threshold::Threshold;
use std::fmt;

/// What is said about expected false entries.
fn expected(f: &mut fmt::Formatter<'_>, note: &false_entries::Note) -> fmt::Result {
    use false_entries::Note;
    let (what, report) = match note {
        Note::Tightened { from, report } | Note::Loosened { from, report } => {
            let tightened = matches!(note, Note::Tightened { .. });
            let how = if tightened { "tightened" } else { "loosened" };
            let (rate, similarity) = (report.rate, report.similarity);
            write!(
                f,
                "thresholds {how}: false accept rate {rate:.1e} per attempt instead of \
                 {from:.1e}, similarity {similarity:.3}; "
            )?;
            return write!(f, "{}", Entries(report));
        }
        Note::OverBudget(report) => (
            "false entries over budget although the thresholds are as tight as they may be; \
             lower recognition.false_accept_rate or find out who comes so often",
            report,
        ),
        Note::MoreAlike(report) => {
            let measured = report.measured.levels.iter().map(|level| {
                format!(
                    "{} of {:.1} beyond {:.1} %",
                    level.measured,
                    level.promised,
                    level.share * 100.0
                )
            });
            let measured: Vec<String> = measured.collect();
            return write!(
                f,
                "strangers are more similar to the people enrolled than the models promise: {} \
                 in {} attempts; are known people refused and give up? else lower \
                 recognition.false_accept_rate",
                measured.join(", "),
                report.measured.attempts,
            );
        }
        Note::Daily(report) => ("false entries", report),
    };
    write!(f, "{what}: {}", Entries(report))
}

/// Expected false entries in words.
struct Entries<'a>(&'a false_entries::Report);

impl fmt::Display for Entries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(report) = self;
        let false_entries::Interval { expected, low, high } = report.entries_per_year;
        write!(f, "{expected:.2} expected per year ({low:.2} to {high:.2})")?;
        if let Some(budget) = report.budget {
            write!(f, ", budget {budget}")?;
        }
        let attempts = report.attempts_per_year.expected / 365.25;
        let from = if report.assumed { "assumed so far" } else { "counted" };
        write!(f, "; {attempts:.1} attempts per day of people not enrolled, {from}")
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how =
            |threshold: &Threshold| if threshold.extrapolated { " (extrapolated)" } else { "" };
        match self {
            Self::Granted { name, evidence, threshold, admission, again, .. } => {
                write!(f, "granted: {name}, {}", Why(evidence, threshold))?;
                if *admission == Admission::ClockUnsureAdmitted {
                    write!(f, "; {}", admission.reason())?;
                }
                if *again {
                    write!(f, "; passed this way already")?;
                }
                Ok(())
            }
            Self::NotGranted { name, evidence, threshold, why, .. } => {
                write!(
                    f,
                    "refused: {name}, {}; recognized with {}",
                    Because(why),
                    Why(evidence, threshold)
                )
            }
            Self::Stranger { track, similarity, frames, .. } if *similarity <= -1.0 => {
                write!(f, "refused: nobody is enrolled, in {frames} frames, track {}", track.0)
            }
            Self::Stranger { track, similarity, frames, denied: true, .. } => write!(
                f,
                "refused: resembles a reported false entry, similarity {similarity:.3}, in \
                 {frames} frames, track {}",
                track.0
            ),
            Self::Stranger { track, similarity, frames, threshold, .. } => write!(
                f,
                "refused: unknown person, similarity {similarity:.3} < {:.3}{}, in {frames} frames, track {}",
                threshold.similarity,
                how(threshold),
                track.0,
            ),
            Self::TwoFaces { faces, .. } => write!(f, "refused: {faces} faces; one at a time"),
            Self::Poor(aspect) => write!(f, "advice: {}", aspect.advice()),
            Self::NotLive { track, verdict, enforced, .. } => write!(
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
                write!(f, "frame dropped: {:.1} s old; the board is too busy", age.as_secs_f32())
            }
            Self::Duress { name, .. } => write!(f, "duress: {name}, silent alarm"),
            Self::Passed { name, role, .. } => write!(f, "passed: {name}, {}", way(*role)),
            Self::Unlocked => write!(f, "door unlocked"),
            Self::Locked => write!(f, "door locked"),
            Self::RelayFailed(message) => write!(f, "relay failed: {message}"),
            Self::CameraAway { reason } => write!(f, "camera away: {reason}"),
            Self::CameraBack => write!(f, "camera back"),
            Self::GalleryFault { reason, .. } => write!(f, "gallery: {reason}"),
            Self::GalleryBack => write!(f, "gallery: the file is back"),
            Self::GalleryRepaired(reason) => write!(f, "gallery: {reason}"),
            Self::CameraChanged { before, now } => write!(
                f,
                "alarm: another camera answers than before: {now}, not {before}; faces count for \
                 nothing until facelatch door accept-camera accepts it"
            ),
            Self::CameraTrusted => write!(f, "alarm ended: the camera is trusted"),
            Self::LineAway { name, reason } => write!(f, "{name} away: {reason}"),
            Self::LineBack { name } => write!(f, "{name} back"),
            Self::Door(note) => Note(note).fmt(f),
            Self::Lockout(lockout::Event::LockedOut { whose: Whose::Door, lasts }) => write!(
                f,
                "locked out: too many refused attempts; for {:.0} s nobody is admitted without \
                 proof of liveness",
                lasts.as_secs_f32()
            ),
            Self::Lockout(lockout::Event::LockedOut { whose: Whose::Face, lasts }) => write!(
                f,
                "locked out: too many refused attempts of one face; it is not admitted for {:.0} s",
                lasts.as_secs_f32()
            ),
            Self::Lockout(lockout::Event::Ended) => write!(f, "lockout ended"),
            Self::Clock(TrustNote::Trusted) => write!(f, "clock: trusted"),
            Self::Clock(TrustNote::NotSynchronized) => {
                write!(f, "clock: no longer synchronized; groups now follow clock_unsure")
            }
            Self::Clock(TrustNote::Unproven) => write!(
                f,
                "clock: synchronized; not trusted for 10 minutes, because nothing shows that it \
                 has not jumped; groups follow clock_unsure meanwhile"
            ),
            Self::Clock(TrustNote::Behind(by)) => write!(
                f,
                "clock: {by} s before the last time known, so it is not trusted and groups \
                 follow clock_unsure; set it right, or if it is right, run facelatch door \
                 trust-clock"
            ),
            Self::Clock(TrustNote::Jumped(by)) => write!(
                f,
                "clock: jumped by {by} s; not trusted for 10 minutes, groups now follow clock_unsure"
            ),
            Self::Enroll { event, name } => {
                enrolling(f, event, name.as_deref().unwrap_or("nobody"))
            }
            Self::Enrolled { name, .. } => {
                write!(f, "enrolled: {name}; enter the real name with facelatch people rename")
            }
            Self::NotKept(reason) => write!(f, "not enrolled: {reason}"),
            Self::FalseEntries(note) => expected(f, note),
            Self::Ordered { order, by } => write!(f, "order {order} by {by}"),
            Self::OrderRefused { order, by, reason } => {
                write!(f, "order {order} by {by} refused: {reason}")
            }
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.uid {
            Some(uid) => write!(f, "uid {uid}")?,
            None => write!(f, "an unknown user")?,
        }
        match self.login {
            Some(login) if self.login != self.uid => write!(f, " (logged in as uid {login})"),
            _ => Ok(()),
        }
    }
}

/// The evidence for a person, in words.
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
            // Decimal logarithms: 5 is a likelihood ratio of 100,000.
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
            Refusal::Probation => {
                write!(f, "on probation until they get a name with facelatch people rename")
            }
            Refusal::Stopped => write!(f, "the service has ended"),
        }
    }
}

/// An event of the door, in words.
struct Note<'n>(&'n door::Event);

impl fmt::Display for Note<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            door::Event::Granted { person, .. } => write!(f, "granted: person {}", person.0),
            door::Event::NotGranted { person, why } => {
                write!(f, "refused: person {}, {}", person.0, Because(why))
            }
            door::Event::Duress { person } => {
                write!(f, "duress: person {}, silent alarm", person.0)
            }
            door::Event::Exit => write!(f, "request to exit"),
            door::Event::OpenedByCommand => write!(f, "opened by command"),
            door::Event::NotOpenedByCommand(why) => {
                write!(f, "not opened by command: {}; end that first", Because(why))
            }
            door::Event::Mode(Mode::Normal) => write!(f, "mode: normal"),
            door::Event::Mode(Mode::Lockdown) => write!(f, "mode: lockdown, nobody is admitted"),
            door::Event::Mode(Mode::AlwaysOpen { by_schedule: false }) => {
                write!(f, "mode: always open")
            }
            door::Event::Mode(Mode::AlwaysOpen { by_schedule: true }) => {
                write!(f, "mode: open hours")
            }
            door::Event::Unlocked => write!(f, "door unlocked"),
            door::Event::Locked => write!(f, "door locked"),
            door::Event::Released => {
                write!(f, "relay de-energised for shutdown; a fail-safe lock is now open")
            }
            door::Event::NoAnswer => write!(f, "relay silent: no answer to the order to open"),
            door::Event::RelayBack => write!(f, "relay back: the current order was sent again"),
            door::Event::Passed { person, role } => {
                write!(f, "passed: person {}, {}", person.0, way(*role))
            }
            door::Event::Alarm(Alarm::HeldTooLong) => {
                write!(f, "alarm: the door is held open too long")
            }
            door::Event::Alarm(Alarm::Forced) => write!(f, "alarm: the door was forced"),
            door::Event::AlarmEnded(Alarm::HeldTooLong) => write!(f, "alarm ended: held open"),
            door::Event::AlarmEnded(Alarm::Forced) => write!(f, "alarm ended: forced"),
        }
    }
}

fn way(role: Role) -> &'static str {
    match role {
        Role::In => "in",
        Role::Out => "out",
    }
}

fn barred_by(barred: Barred) -> &'static str {
    match barred {
        Barred::Outside => "the button outside may not begin it; see enroll.outside",
        Barred::Lockdown => "lockdown",
        Barred::LockedOut => "the door is locked out",
        Barred::Hours => "the administrator may not come in now",
    }
}

fn enrolling(f: &mut fmt::Formatter<'_>, event: &at_door::Event, name: &str) -> fmt::Result {
    match event {
        at_door::Event::Begun(_) => write!(f, "enrolling: waiting for an administrator"),
        at_door::Event::First(_) => write!(f, "enrolling: waiting for the first person"),
        at_door::Event::NotReset(_) => write!(
            f,
            "not enrolling: no administrator is enrolled who could allow it; reset the device \
             first, or use facelatch enroll"
        ),
        at_door::Event::NotNow(barred) => write!(f, "not enrolling: {}", barred_by(*barred)),
        at_door::Event::Confirm(_) => write!(
            f,
            "enrolling: {name} recognized; waiting for the button outside to be held once more"
        ),
        at_door::Event::Administrator(_) => {
            write!(f, "enrolling: allowed by {name}; waiting for the newcomer")
        }
        at_door::Event::LookAlike(like) => write!(
            f,
            "enrolling: looks like {name} (similarity {:.3}); the thresholds of both are raised",
            like.similarity
        ),
        at_door::Event::Failed(failure) => match failure {
            Failure::Cancelled => write!(f, "not enrolled: cancelled"),
            Failure::NotConfirmed => {
                write!(f, "not enrolled: the administrator did not hold the button again")
            }
            Failure::Barred(barred) => write!(f, "not enrolled: {}", barred_by(*barred)),
            Failure::NoAdministrator => write!(f, "not enrolled: no administrator came in time"),
            Failure::NoViews(hindrance) => {
                write!(f, "not enrolled: not enough good views in time: {}", hindrance.advice())
            }
            Failure::AlreadyEnrolled(like) => write!(
                f,
                "not enrolled: this is {name}, who is already enrolled (similarity {:.3})",
                like.similarity
            ),
            Failure::NotKept => write!(f, "not enrolled: the gallery could not be written"),
            Failure::ModelsChanged => {
                write!(f, "not enrolled: the models were replaced meanwhile; start again")
            }
        },
    }
}
