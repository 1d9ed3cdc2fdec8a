//! What the link hears of a record of the audit log.

use crate::audit::entry::{Change, Entry, PersonChange, cut};
use crate::audit::{ClockTrust, Logged, Names, Stamp, summary};
use crate::config::LinkNames;
use crate::crypto::Secret;
use facelatch_messages::{DoorEvent, EventKind};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Most settings that a text names.
const MOST_NAMED: usize = 8;
/// Letters of pseudonyms: none that is taken for another.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// Names of people by their number, as the service sets them.
pub(super) type PeopleNames = Arc<Mutex<BTreeMap<u32, String>>>;

/// What the link may hear.
#[derive(Clone, Debug)]
pub(super) struct Wording {
    /// How people are named.
    pub names: LinkNames,
    /// Whether duress is reported.
    pub duress: bool,
    /// Key of pseudonyms.
    pub key: Secret,
    /// Names, if they may be heard.
    pub people: PeopleNames,
}

impl Wording {
    /// A record as an event. `None` for one that the link does not hear of.
    pub fn event(&self, logged: &Logged) -> Option<DoorEvent> {
        let Logged { number, stamp, entry } = logged;
        let kind = kind(entry);
        // Not even that something happened.
        if kind == EventKind::Duress && !self.duress {
            return None;
        }
        let person = entry.person();
        let reason = ["reason", "alarm", "error"].iter().find_map(|name| entry.text(name));
        Some(DoorEvent {
            number: *number,
            time_us: stamp.wall,
            clock_trusted: stamp.clock == ClockTrust::Trusted,
            kind,
            event: cut(&entry.event),
            severity: entry.severity.name().to_owned(),
            person: person.filter(|_| self.names == LinkNames::Name),
            who: person.and_then(|person| self.who(person)),
            reason: reason.map(cut),
            text: cut(&text(entry)),
        })
    }

    fn who(&self, person: u32) -> Option<String> {
        match self.names {
            LinkNames::None => None,
            LinkNames::Pseudonym => Some(pseudonym(&self.key, person)),
            LinkNames::Name => {
                let people = self.people.lock().unwrap_or_else(PoisonError::into_inner);
                people.get(&person).map(|name| cut(name))
            }
        }
    }
}

/// A short text that is always the same for a person of this door, and from which nobody
/// without the key learns who it is.
fn pseudonym(key: &Secret, person: u32) -> String {
    let key = key.derive(&format!("link person {person}"));
    let letter = |byte: &u8| char::from(LETTERS[usize::from(byte % 32)]);
    key.bytes().iter().take(8).map(letter).collect()
}

/// An event that says that records are missing.
pub(super) fn gap(missing: u64, last: u64, now: &Stamp) -> DoorEvent {
    let records = if missing == 1 { "record" } else { "records" };
    DoorEvent {
        number: last,
        time_us: now.wall,
        clock_trusted: now.clock == ClockTrust::Trusted,
        kind: EventKind::Other,
        event: "events missing".to_owned(),
        severity: "warn".to_owned(),
        text: format!(
            "{missing} {records} up to number {last} are no longer in the audit log, or damaged"
        ),
        ..DoorEvent::default()
    }
}

fn kind(entry: &Entry) -> EventKind {
    match (entry.event.as_str(), entry.text("reason"), entry.text("alarm")) {
        ("granted", ..) => EventKind::Admitted,
        ("refused", Some("stranger"), _) => EventKind::Stranger,
        ("refused", Some("liveness"), _) => EventKind::NotLive,
        ("refused", ..) => EventKind::Refused,
        ("alarm", _, Some("forced")) => EventKind::Forced,
        ("alarm", _, Some("held open")) => EventKind::HeldOpen,
        ("exit", ..) => EventKind::Exit,
        ("duress", ..) => EventKind::Duress,
        _ => EventKind::Other,
    }
}

/// The entry in plain English, without names and numbers of people, and without values of
/// settings, which may be secret.
fn text(entry: &Entry) -> String {
    let somebody = entry.person().map(|person| (person, "a known person".to_owned()));
    let names = Names::new(somebody.into_iter().collect(), BTreeMap::new());
    if entry.changes.is_empty() {
        return summary(entry, &names);
    }
    let by = names.by(&entry.by);
    let gap = if by.is_empty() { "" } else { ", " };
    format!("{}{gap}{by}", changes(&entry.changes))
}

fn changes(changes: &[Change]) -> String {
    let (mut added, mut removed, mut changed) = (0, 0, 0);
    let mut settings = Vec::new();
    for change in changes {
        match change {
            Change::Setting { key, .. } => settings.push(key.as_str()),
            Change::Person { what: PersonChange::Added { .. }, .. } => added += 1,
            Change::Person { what: PersonChange::Removed { .. }, .. } => removed += 1,
            Change::Person { .. } => changed += 1,
        }
    }
    let mut parts = Vec::new();
    for (count, what) in [(added, "added"), (removed, "removed"), (changed, "changed")] {
        match count {
            0 => {}
            // One person may have several changes.
            _ if what == "changed" => parts.push(format!("{count} properties of people changed")),
            1 => parts.push(format!("1 person {what}")),
            _ => parts.push(format!("{count} people {what}")),
        }
    }
    if !settings.is_empty() {
        let more = settings.len().saturating_sub(MOST_NAMED);
        settings.truncate(MOST_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        parts.push(format!("settings changed: {}{more}", settings.join(", ")));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::door::{self, Alarm, Role};
    use crate::access::event::Event;
    use crate::access::gallery::PersonId;
    use crate::audit::entry::By;
    use crate::audit::{Value, of_event};
    use std::time::Duration;

    fn wording(names: LinkNames, duress: bool) -> Wording {
        let people = PeopleNames::default();
        people.lock().expect("a lock").insert(4711, "Ada Lovelace".to_owned());
        Wording { names, duress, key: Secret::new([1; 32]), people }
    }

    fn logged(entry: Entry) -> Logged {
        let stamp = Stamp { boot: [0; 16], monotonic: 0, wall: 5, clock: ClockTrust::Trusted };
        Logged { number: 3, stamp, entry }
    }

    fn of(event: &Event) -> Entry {
        of_event(Duration::ZERO, event)
    }

    fn granted() -> Entry {
        let mut entry = Entry::new("granted");
        entry.add("person", Value::Count(4711));
        entry.add("similarity", Value::Number(0.75));
        entry
    }

    #[test]
    fn people_are_named_as_the_configuration_says_and_never_in_the_text() {
        let (person, name) = (PersonId(4711), "Ada Lovelace".to_owned());
        let mut changed = Entry::new("people");
        changed.add("person", Value::Count(4711));
        let removed = Change::Person { id: 4711, what: PersonChange::Removed { templates: 5 } };
        changed.changes = vec![removed];
        let entries = [
            granted(),
            changed,
            of(&Event::Passed { person, name: name.clone(), role: Role::In }),
            of(&Event::Enrolled { person, name: name.clone() }),
            of(&Event::Duress { person, name }),
        ];
        for entry in entries {
            let one = logged(entry);
            let event = |names| wording(names, true).event(&one).expect("an event");
            let (none, pseudonym, named) =
                (event(LinkNames::None), event(LinkNames::Pseudonym), event(LinkNames::Name));
            assert_eq!((none.person, none.who.as_deref()), (None, None));
            assert_eq!((named.person, named.who.as_deref()), (Some(4711), Some("Ada Lovelace")));
            assert_eq!(pseudonym.person, None);
            assert_eq!(pseudonym.who.as_ref().map(String::len), Some(8));
            for event in [none, pseudonym, named] {
                let text = &event.text;
                assert!(!text.contains("Ada") && !text.contains("4711"), "{text}");
            }
        }
    }

    #[test]
    fn pseudonyms_stay_and_differ_between_people_and_doors() {
        let of = |key: u8, person| pseudonym(&Secret::new([key; 32]), person);
        assert_eq!(of(1, 7), of(1, 7));
        let all: std::collections::BTreeSet<String> = (0..2000).map(|one| of(1, one)).collect();
        assert_eq!(all.len(), 2000);
        assert_ne!(of(1, 7), of(2, 7));
    }

    #[test]
    fn duress_is_silent_unless_configured() {
        let duress = of(&Event::Duress { person: PersonId(4711), name: "Ada".to_owned() });
        assert_eq!(wording(LinkNames::Name, false).event(&logged(duress.clone())), None);
        let heard = wording(LinkNames::None, true).event(&logged(duress)).expect("an event");
        assert_eq!(heard.kind, EventKind::Duress);
    }

    #[test]
    fn kinds_are_what_automations_ask_for() {
        let refused = |reason: &str| Entry::new("refused").with("reason", reason);
        for (entry, expected) in [
            (granted(), EventKind::Admitted),
            (refused("stranger"), EventKind::Stranger),
            (refused("liveness"), EventKind::NotLive),
            (refused("hours"), EventKind::Refused),
            (refused("two faces"), EventKind::Refused),
            (of(&Event::Door(door::Event::Alarm(Alarm::Forced))), EventKind::Forced),
            (of(&Event::Door(door::Event::Alarm(Alarm::HeldTooLong))), EventKind::HeldOpen),
            (of(&Event::Door(door::Event::AlarmEnded(Alarm::Forced))), EventKind::Other),
            (of(&Event::Door(door::Event::Exit)), EventKind::Exit),
            (of(&Event::Unlocked), EventKind::Other),
        ] {
            let event = wording(LinkNames::None, false).event(&logged(entry)).expect("an event");
            assert_eq!(event.kind, expected, "{event:?}");
        }
    }

    #[test]
    fn settings_are_named_and_their_values_are_not() {
        let change = |key: usize| Change::Setting {
            key: format!("table.key{key}"),
            old: Some("secret".to_owned()),
            new: None,
        };
        let mut entry = Entry::new("configuration");
        entry.changes = (0..20).map(change).collect();
        entry.by = By { via: crate::audit::entry::Via::Files, ..By::default() };
        let event = wording(LinkNames::Name, true).event(&logged(entry)).expect("an event");
        assert!(event.text.contains("table.key7 and 12 more, found in a file"), "{}", event.text);
        assert!(!event.text.contains("secret"), "{}", event.text);
        let missing = gap(3, 9, &logged(Entry::new("x")).stamp);
        assert_eq!((missing.number, missing.kind), (9, EventKind::Other));
        assert!(missing.text.starts_with("3 records up to number 9"), "{}", missing.text);
    }
}
