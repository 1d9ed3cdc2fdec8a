//! Events of the door as entries.

use super::entry::{By, Entry, FrameSeen, Severity, Via};
use super::field::{Fact, Value};
use crate::access::attempt::Attempt;
use crate::access::event::{Caller, Event};
use std::time::Duration;

/// Fields of an event's JSON that are not kept: the record has kind and time, names are
/// looked up when the log is read, texts are made again, and who gave an order is in `by`.
const NOT_KEPT: [&str; 8] = ["event", "at", "name", "text", "uid", "login", "link", "needs"];

/// An event as an entry. `now` is its time on the service's clock. An event that follows
/// from an order gets `by` from the caller.
pub fn of_event(now: Duration, event: &Event) -> Entry {
    let mut entry = Entry::new(event.kind());
    entry.severity = Severity::from(event.severity());
    if let serde_json::Value::Object(fields) = event.to_json(now) {
        let kept = fields.iter().filter(|(name, _)| !NOT_KEPT.contains(&name.as_str()));
        entry.facts = kept.filter_map(|(name, value)| Fact::of_json(name, value)).collect();
    }
    match event {
        Event::Ordered { by, .. } => entry.by = of_caller(by),
        Event::OrderRefused { by, .. } => {
            entry.by = of_caller(by);
            entry.severity = Severity::Warn;
        }
        _ => {}
    }
    if let Event::NotLive { enforced, .. } = event {
        entry.add("enforced", Value::Flag(*enforced));
    }
    if let Some(attempt) = attempt(event) {
        of_attempt(&mut entry, now, attempt);
    }
    entry
}

/// What a decision rests on; `None` for other events.
pub fn attempt(event: &Event) -> Option<&Attempt> {
    match event {
        Event::Granted { attempt, .. }
        | Event::NotGranted { attempt, .. }
        | Event::Stranger { attempt, .. }
        | Event::TwoFaces { attempt, .. }
        | Event::NotLive { attempt, .. } => Some(attempt),
        _ => None,
    }
}

fn of_attempt(entry: &mut Entry, now: Duration, attempt: &Attempt) {
    let Attempt { votes, group, rate, templates, liveness, tape, too_long } = attempt;
    entry.frames = votes
        .iter()
        .map(|vote| FrameSeen {
            before: u32::try_from(now.saturating_sub(vote.at).as_millis()).unwrap_or(u32::MAX),
            person: vote.person.map(|person| person.0),
            similarity: vote.similarity,
            quality: vote.quality.map(|quality| (quality * 100.0).round().clamp(0.0, 100.0) as u8),
        })
        .collect();
    if let Some(group) = group {
        entry.add("group", Value::Text(group.clone()));
    }
    entry.add("rate", Value::Double(*rate));
    entry.add("templates", Value::Count(*templates as u64));
    entry.add("liveness", Value::Text(liveness.name().to_owned()));
    if *too_long {
        entry.add("too_long", Value::Flag(true));
    }
    entry.inputs = tape.clone().map(Box::new);
}

/// Who gave an order over the control socket.
pub fn of_caller(caller: &Caller) -> By {
    By {
        via: if caller.link { Via::Link } else { Via::Socket },
        uid: caller.uid,
        login: caller.login,
        sudo: None,
        role: (!caller.role.is_empty()).then(|| caller.role.to_owned()),
    }
}

/// Whether an event follows from an order that came directly before.
pub fn follows_from_order(event: &Event) -> bool {
    use crate::access::door;
    matches!(
        event,
        Event::Door(
            door::Event::OpenedByCommand
                | door::Event::NotOpenedByCommand(_)
                | door::Event::Mode(_)
        ) | Event::Clock(_)
            | Event::CameraTrusted
            | Event::Enroll { .. }
    )
}
