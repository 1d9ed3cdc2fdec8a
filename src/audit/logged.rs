//! Records as they are read, and what readers need to understand them: names of people and
//! users, and the time zone.

use super::entry::{By, Entry, Severity, Via};
use super::field::Value;
use super::{Kind, Note, Record, Stamp};
use crate::access::event::plain;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use std::collections::BTreeMap;

/// A record with its content.
#[derive(Clone, Debug, PartialEq)]
pub struct Logged {
    /// Number of the record.
    pub number: u64,
    /// When it was made.
    pub stamp: Stamp,
    /// What it says. One that cannot be read has the kind "unreadable".
    pub entry: Entry,
}

impl Logged {
    /// The content of a record; `None` for heads, which say nothing about the door.
    pub fn of(record: &Record) -> Option<Self> {
        let entry = match record.kind {
            Kind::Head => return None,
            Kind::Note => of_note(record.note().as_ref()),
            Kind::Entry => Entry::decode(&record.body).unwrap_or_else(|fault| {
                let mut entry = Entry::new("unreadable").with("error", &fault.to_string());
                entry.severity = Severity::Error;
                entry
            }),
        };
        Some(Self { number: record.number, stamp: record.stamp, entry })
    }

    /// Its wall clock in a time zone.
    pub fn time(&self, zone: &TimeZone) -> Zoned {
        let time = Timestamp::from_microsecond(self.stamp.wall).unwrap_or(Timestamp::UNIX_EPOCH);
        time.to_zoned(zone.clone())
    }

    /// Whether both were made since the same start of the board.
    pub fn same_boot(&self, other: &Self) -> bool {
        self.stamp.boot == other.stamp.boot
    }

    /// Seconds from the other to this one, by the clock of the boot; `None` if there was a
    /// restart of the board between them.
    pub fn seconds_since(&self, other: &Self) -> Option<f64> {
        let (to, from) = (self.stamp.monotonic as f64, other.stamp.monotonic as f64);
        self.same_boot(other).then_some((to - from) / 1e6)
    }
}

/// What the log says about itself, as an entry.
fn of_note(note: Option<&Note>) -> Entry {
    let severe = |event: &str, severity| Entry { severity, ..Entry::new(event) };
    match note {
        None => severe("unreadable", Severity::Error)
            .with("error", "a later version of facelatch wrote it; read it with that version"),
        Some(Note::Begun) => Entry::new("log begun"),
        Some(Note::Lost { records }) => {
            let mut entry = severe("records lost", Severity::Error);
            entry.add("records", Value::Count(*records));
            entry
        }
        Some(Note::Torn { bytes, kept }) => {
            let mut entry = severe("log torn", Severity::Warn);
            entry.add("bytes", Value::Count(*bytes));
            kept.iter().fold(entry, |entry, file| entry.with("file", file))
        }
        Some(Note::Cut { from, through }) => {
            let mut entry = severe("records cut", Severity::Error);
            entry.add("from", Value::Count(*from));
            entry.add("through", Value::Count(*through));
            entry
        }
        Some(Note::Differs { number }) => {
            let mut entry = severe("record differs", Severity::Error);
            entry.add("number", Value::Count(*number));
            entry
        }
        Some(Note::Expired { through, by_age }) => {
            let mut entry = Entry::new("records expired");
            entry.add("through", Value::Count(*through));
            entry.with("reason", if *by_age { "age" } else { "size" })
        }
        Some(Note::Started { version, process, booted }) => {
            let mut entry = Entry::new("service started").with("version", version);
            entry.add("process", Value::Count(u64::from(*process)));
            entry.add("booted", Value::Flag(*booted));
            entry
        }
        Some(Note::Stopped) => Entry::new("service stopped"),
        Some(Note::ClockSet { by }) => {
            let mut entry = severe("clock set", Severity::Warn);
            entry.add("by_s", Value::Double(*by as f64 / 1e6));
            entry
        }
        Some(Note::ClockTrust) => Entry::new("clock trust"),
    }
}

/// Names of people and of users of the system.
#[derive(Clone, Debug, Default)]
pub struct Names {
    people: BTreeMap<u32, String>,
    /// Whether everybody who is enrolled is in `people`.
    whole: bool,
    users: BTreeMap<u32, String>,
}

impl Names {
    /// The names of everybody who is enrolled, and of users by their id.
    pub fn new(people: BTreeMap<u32, String>, users: BTreeMap<u32, String>) -> Self {
        Self { people, whole: true, users }
    }

    /// For a gallery that cannot be read.
    pub fn without_people(users: BTreeMap<u32, String>) -> Self {
        Self { people: BTreeMap::new(), whole: false, users }
    }

    /// The name of a person, which may hold any characters. `None` if it is not known.
    pub fn name(&self, person: u32) -> Option<&str> {
        self.people.get(&person).map(String::as_str)
    }

    /// The person with this name or, written as digits, this number.
    pub fn find(&self, text: &str) -> Option<u32> {
        let named = self.people.iter().find(|(_, name)| *name == text);
        named.map(|(id, _)| *id).or_else(|| text.parse().ok())
    }

    /// A person in words, in plain characters.
    pub fn who(&self, person: u32) -> String {
        match self.name(person) {
            Some(name) => plain(name).into_owned(),
            None if self.whole => format!("person {person} (removed)"),
            None => format!("person {person}"),
        }
    }

    /// A user in words, in plain characters.
    pub fn user(&self, uid: u32) -> String {
        match self.users.get(&uid) {
            Some(name) => format!("{} (uid {uid})", plain(name)),
            None => format!("uid {uid}"),
        }
    }

    /// Who caused something, as "by ..."; empty if it was nobody's order.
    pub fn by(&self, by: &By) -> String {
        if by.via == Via::Door {
            return String::new();
        }
        let mut text = match by.uid {
            Some(uid) => format!("by {}", self.user(uid)),
            None => "by an unknown user".to_owned(),
        };
        if let Some(login) = by.login.filter(|login| Some(*login) != by.uid) {
            text += &format!(", logged in as {}", self.user(login));
        }
        if let Some(sudo) = by.sudo.filter(|sudo| Some(*sudo) != by.login) {
            text += &format!(", sudo by {}", self.user(sudo));
        }
        match by.via {
            Via::Door | Via::CommandLine => {}
            Via::Socket => text += " over the socket",
            Via::Link => text += " over the link",
            Via::Files => text += " in a file",
        }
        text
    }
}
