//! What the service writes to the audit log, and when: each event once, those before an
//! opening before the relay is ordered, and with each who caused it.

use super::audit::Auditor;
use super::files::{in_files, settings_changes};
use crate::access::door;
use crate::access::event::Event;
use crate::access::gallery::PersonId;
use crate::audit::entry::{Basis, By, Change, Entry, PersonChange};
use crate::audit::{attempt, follows_from_order, hex, of_caller, of_event};
use crate::config::{AuditConfig, Config, Pictures};
use crate::files;
use crate::storage::audit::AuditPlace;
use crate::storage::gallery::Person;
use crate::vision::frame::Frame;
use crate::vision::track::TrackId;
use rustix::fs::OFlags;
use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

/// Most events that were written before they were reported.
const MOST_EARLY: usize = 64;
/// Most faces of a frame of which a picture may be kept.
const MOST_FACES: usize = 4;

/// Turns events into entries of the log.
pub(super) struct Entries {
    auditor: Auditor,
    door: Option<String>,
    basis: Basis,
    pictures: Pictures,
    /// Events that are written already and will be reported soon, in turn.
    early: VecDeque<Event>,
    /// Who gave the order from which the next events follow.
    cause: Option<By>,
    /// Aligned faces of the frame that is decided.
    faces: Vec<(TrackId, Frame)>,
}

impl Entries {
    /// Writes to this log.
    pub fn new(auditor: Auditor, config: &Config, door: Option<String>, models: &str) -> Self {
        let mut entries = Self {
            auditor,
            door,
            basis: Basis { models: models.to_owned(), configuration: [0; 8] },
            pictures: Pictures::Off,
            early: VecDeque::new(),
            cause: None,
            faces: Vec::new(),
        };
        entries.configure(config);
        entries
    }

    /// Writes nothing.
    pub fn off() -> Self {
        Self::new(Auditor::off(), &Config::default(), None, "")
    }

    /// The log.
    pub fn auditor(&self) -> &Auditor {
        &self.auditor
    }

    /// Another configuration is in use.
    pub fn configure(&mut self, config: &Config) {
        let AuditConfig { pictures, .. } = config.audit;
        self.pictures = pictures;
        self.basis.configuration = config.digest();
    }

    /// Other models are in use.
    pub fn set_models(&mut self, models: &str) {
        models.clone_into(&mut self.basis.models);
    }

    /// Whether [`Self::show`] is of any use.
    pub fn wants_faces(&self) -> bool {
        self.pictures != Pictures::Off
    }

    /// The faces of the frame that is decided, for pictures of attempts.
    pub fn show(&mut self, faces: impl Iterator<Item = (TrackId, Frame)>) {
        self.faces = faces.take(MOST_FACES).collect();
    }

    /// Writes an event before it is reported, so that it is in the log before what follows.
    pub fn early(&mut self, now: Duration, event: &Event) {
        if self.early.len() < MOST_EARLY {
            self.write(now, event);
            self.early.push_back(event.clone());
        }
    }

    /// Writes an event that is reported, unless it is written already.
    pub fn reported(&mut self, now: Duration, event: &Event) {
        if self.early.front() == Some(event) {
            self.early.pop_front();
            self.attribute(event);
        } else {
            self.write(now, event);
        }
    }

    /// All events so far are reported: what comes now follows from no order.
    pub fn all_reported(&mut self) {
        self.early.clear();
        self.cause = None;
        self.faces.clear();
    }

    /// Notes who gave an order, or that an event follows from none.
    fn attribute(&mut self, event: &Event) {
        if let Event::Ordered { by, .. } = event {
            self.cause = Some(of_caller(by));
        } else if !follows_from_order(event) {
            self.cause = None;
        }
    }

    fn write(&mut self, now: Duration, event: &Event) {
        self.attribute(event);
        let mut entry = of_event(now, event);
        if follows_from_order(event)
            && let Some(by) = &self.cause
        {
            entry.by = by.clone();
        }
        let opened = matches!(event, Event::Door(door::Event::OpenedByCommand));
        let picture = attempt(event).and_then(|_| {
            entry.basis = Some(self.basis.clone());
            self.picture(&entry)
        });
        self.append_with(entry, picture);
        if opened {
            self.auditor.sign();
        }
    }

    /// The face of an attempt, if a picture of it is to be kept.
    fn picture(&self, entry: &Entry) -> Option<Frame> {
        let wanted = match self.pictures {
            Pictures::Off => false,
            Pictures::Refused => entry.event == "refused",
            Pictures::All => true,
        };
        let track = entry.count("track").map(TrackId);
        let mut faces = self.faces.iter().filter(|_| wanted);
        let face = match track {
            Some(track) => faces.find(|(its, _)| *its == track),
            None => faces.next(),
        };
        face.map(|(_, face)| face.clone())
    }

    /// Writes an entry.
    pub fn append(&self, entry: Entry) {
        self.append_with(entry, None);
    }

    fn append_with(&self, mut entry: Entry, picture: Option<Frame>) {
        entry.door.clone_from(&self.door);
        let now = self.auditor.now();
        match picture {
            Some(picture) => self.auditor.pictured(now, entry, picture),
            None => self.auditor.entry(now, entry.encode()),
        };
    }
}

/// File in the folder of the log with the configuration of the last start.
const LAST_CONFIGURATION: &str = "configuration.json";
/// Longest such file, bytes.
const LONGEST: u64 = 1 << 20;

/// Entries for the configuration of this start: what is different from the last start, or
/// from the defaults if that is not known. Keeps it for the next start.
pub(super) fn configured(place: &AuditPlace, config: &Config) -> Vec<Entry> {
    let file = place.folder().join(LAST_CONFIGURATION);
    let now = config.without_secrets();
    let text = files::read_text(&file, LONGEST).ok();
    let before = text.as_deref().and_then(|text| serde_json::from_str::<Config>(text).ok());
    let changes = settings_changes(&before.clone().unwrap_or_default(), &now);
    if before.as_ref() != Some(&now) {
        // Without the folder there is no log yet. The next start names the differences again.
        let _ = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            // A link could lead anywhere.
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(&file)
            .and_then(|mut file| file.write_all(config.to_shown_json().to_string().as_bytes()));
    }
    let mut entry = Entry { by: in_files(), ..Entry::new("configuration") };
    let compared = if before.is_some() { "the last start" } else { "the defaults" };
    entry = entry.with("before", compared).with("digest", &hex(&config.digest()));
    entry.with_changes(changes)
}

/// What is different between two states of the gallery: the people before and now.
pub fn people_changes(before: &[Person], now: &[Person]) -> Vec<Change> {
    let find = |people: &[Person], id: PersonId| people.iter().find(|p| p.id == id).cloned();
    let mut changes = Vec::new();
    let mut note = |id: PersonId, what| changes.push(Change::Person { id: id.0, what });
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    for person in before {
        if find(now, person.id).is_none() {
            note(person.id, PersonChange::Removed { templates: number(person.templates) });
        }
    }
    for person in now {
        let Person { id, name, traits, templates, .. } = person;
        let Some(was) = find(before, *id) else {
            note(
                *id,
                PersonChange::Added {
                    templates: number(*templates),
                    group: traits.group.clone(),
                    administrator: traits.administrator,
                    probation: traits.probation,
                },
            );
            continue;
        };
        if was.name != *name {
            note(*id, PersonChange::Renamed);
        }
        if was.traits.group != traits.group {
            let (old, new) = (was.traits.group.clone(), traits.group.clone());
            note(*id, PersonChange::Group { old, new });
        }
        if was.traits.administrator != traits.administrator {
            note(*id, PersonChange::Administrator(traits.administrator));
        }
        if was.traits.stricter.to_bits() != traits.stricter.to_bits() {
            let (old, new) = (was.traits.stricter, traits.stricter);
            note(*id, PersonChange::Stricter { old, new });
        }
        if was.traits.probation != traits.probation {
            note(*id, PersonChange::Probation(traits.probation));
        }
        let [old, new] = [&was.traits, traits].map(|one| (one.valid_from, one.valid_until));
        if old != new {
            note(*id, PersonChange::Dates { old, new });
        }
        if was.templates != *templates {
            let (old, new) = (number(was.templates), number(*templates));
            note(*id, PersonChange::Templates { old, new });
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::gallery::Traits;

    fn person(id: u32, name: &str) -> Person {
        let (name, traits) = (name.to_owned(), Traits::default());
        Person { id: PersonId(id), name, enrolled_at: 0, traits, templates: 2, crops: 2 }
    }

    #[test]
    fn every_difference_between_two_galleries_is_named_once_and_without_names() {
        let before = [person(1, "Ada"), person(2, "Bob"), person(3, "Eve")];
        assert_eq!(people_changes(&before, &before), []);
        let mut ada = person(1, "Ada Lovelace");
        ada.traits = Traits {
            administrator: true,
            group: "night".to_owned(),
            stricter: 0.1,
            probation: true,
            ..Traits::default()
        };
        ada.templates = 5;
        let now = [ada, person(2, "Bob"), person(4, "Grace")];
        let changes = people_changes(&before, &now);
        let of = |id: u32| {
            let one =
                |change: &&Change| matches!(change, Change::Person { id: its, .. } if *its == id);
            changes.iter().filter(one).count()
        };
        assert_eq!([of(1), of(2), of(3), of(4), changes.len()], [6, 0, 1, 1, 8]);
        let text = format!("{changes:?}");
        assert!(!["Ada", "Eve", "Grace"].iter().any(|name| text.contains(name)), "{text}");
    }
}
