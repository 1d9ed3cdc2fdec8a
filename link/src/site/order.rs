//! What a command wants of the office, and doing it.

use super::answer::Answer;
use crate::text::plain;
use facelatch_site::{
    ChangeError, Code, Effect, KeyId, Office, Person, PersonId, Policy, SitePerson, dates,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::PathBuf;

/// Longest name that is shown, characters.
const SHOWN: usize = 100;
/// Largest file of a set of models, bytes.
pub(super) const LARGEST_MODELS: u64 = 50 << 20;

/// An order of a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Let a door join.
    Admit {
        /// The code.
        code: String,
        /// Name of the door.
        door: String,
        /// Groups that it serves.
        groups: Vec<String>,
        /// Whether it may add, change and remove people.
        writes: bool,
    },
    /// The code was not used.
    Uninvite {
        /// Name of the door.
        door: String,
    },
    /// Let a door serve other groups.
    Change {
        /// Name or id of the door.
        door: String,
        /// Groups that it serves.
        groups: Vec<String>,
        /// Whether it may add, change and remove people.
        writes: bool,
    },
    /// List the doors.
    Doors,
    /// List the people.
    People,
    /// Lock a door out.
    RevokeDoor {
        /// Name or id of the door.
        door: String,
        /// Remove people whom it wrote since this moment, milliseconds since 1970.
        distrust_ms: Option<u64>,
    },
    /// Lock a person out.
    RevokePerson {
        /// Name or id of the person.
        person: String,
    },
    /// Change what holds for a person; what is `None` stays.
    Person(PersonEdit),
    /// Make a new data key.
    Rotate,
    /// Put rules in place of those before.
    Policy {
        /// Groups, hours and holidays.
        text: String,
        /// Whether administrators of one door are so everywhere.
        administrators_from_doors: bool,
        /// How long a lease lasts, seconds.
        lease_s: u32,
    },
    /// Offer a set of models.
    Models {
        /// The file.
        file: PathBuf,
        /// Version of the set.
        version: String,
    },
}

/// A change of a person.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonEdit {
    /// Name or id of the person.
    pub person: String,
    /// Another name.
    pub name: Option<String>,
    /// Another group.
    pub group: Option<String>,
    /// Whether the person is an administrator.
    pub administrator: Option<bool>,
    /// From when the person may come in, seconds since 1970.
    pub from: Option<i64>,
    /// Until when.
    pub until: Option<i64>,
    /// No dates any more, before `from` and `until` are set.
    pub always: bool,
}

impl Order {
    /// Whether it changes nothing, so that nobody else has to hear of it.
    pub fn only_reads(&self) -> bool {
        matches!(self, Self::Doors | Self::People)
    }
}

/// The result of an order: what to carry out, and the answer.
pub(super) type Done = (Vec<Effect>, Answer);

/// Carries an order out, except for the effects.
pub(super) fn execute(office: &mut Office, order: &Order, now_ms: u64) -> Done {
    match try_execute(office, order, now_ms) {
        Ok(done) => done,
        Err(reason) => (Vec::new(), Answer::failed(&reason)),
    }
}

fn try_execute(office: &mut Office, order: &Order, now: u64) -> Result<Done, String> {
    let said = |error: ChangeError| error.to_string();
    match order {
        Order::Admit { code, door, groups, writes } => {
            let code: Code = code.parse().map_err(|error| format!("{error}"))?;
            let effects = office.invite(&code, door, groups, *writes, now).map_err(said)?;
            Ok((effects, Answer::wait()))
        }
        Order::Uninvite { door } => {
            office.uninvite(door);
            Ok((Vec::new(), Answer::done("The code is no longer good.", json!({}))))
        }
        Order::Change { door, groups, writes } => {
            let id = door_id(office, door)?;
            let effects = office.change_door(id, groups, *writes).map_err(said)?;
            let groups_text = groups.iter().map(|group| plain(group, SHOWN)).collect::<Vec<_>>();
            let text = format!(
                "Door {} now serves {}, and {} people.",
                plain(door, SHOWN),
                groups_text.join(", "),
                if *writes { "may change their" } else { "may not change their" }
            );
            Ok((
                effects,
                Answer::done(
                    &text,
                    json!({"door": id.to_string(), "groups": groups, "writes": writes}),
                ),
            ))
        }
        Order::Doors => Ok((Vec::new(), doors(office, now))),
        Order::People => Ok((Vec::new(), people(office))),
        Order::RevokeDoor { door, distrust_ms } => {
            let id = door_id(office, door)?;
            let before = office.people_count();
            let effects = office.revoke_door(id, *distrust_ms, now).map_err(said)?;
            let removed = before.saturating_sub(office.people_count());
            let text = format!(
                "Door {} is locked out: nothing that it signs counts any more, and it gets no \
                 further data key. {}Data key {} is new, and everything is sealed with it now.\n\
                 Take its user or certificate away in the broker as well: it can still read what \
                 the broker has, sealed.",
                plain(door, SHOWN),
                match removed {
                    0 => String::new(),
                    1 => "1 person whom it wrote was removed. ".to_owned(),
                    count => format!("{count} people whom it wrote were removed. "),
                },
                office.epoch()
            );
            let json =
                json!({"door": id.to_string(), "epoch": office.epoch(), "people_removed": removed});
            Ok((effects, Answer::done(&text, json)))
        }
        Order::RevokePerson { person } => {
            let found = person_of(office, person)?;
            let id = found.person.id;
            let effects = office.revoke_person(id, now).map_err(said)?;
            let text = format!(
                "{} is removed from the site for ever. Doors that are connected know it at once, \
                 others when they are back. To let them in again, enroll them again.",
                plain(&found.person.name, SHOWN)
            );
            Ok((
                effects,
                Answer::done(&text, json!({"person": id.to_string(), "name": found.person.name})),
            ))
        }
        Order::Person(edit) => {
            let mut person = person_of(office, &edit.person)?.person;
            edit.apply(&mut person)?;
            let (id, shown) = (person.id, describe(&person));
            let effects = office.put_person(person, now).map_err(|error| match error {
                ChangeError::Right(group) => {
                    format!("no door serves the group {:?}", plain(&group, SHOWN))
                }
                error => said(error),
            })?;
            Ok((effects, Answer::done(&shown, json!({"person": id.to_string()}))))
        }
        Order::Rotate => {
            let effects = office.rotate(now).map_err(said)?;
            let text = format!(
                "Data key {} is new. {} doors get it, and everything is sealed with it now.",
                office.epoch(),
                office.doors().len()
            );
            Ok((
                effects,
                Answer::done(
                    &text,
                    json!({"epoch": office.epoch(), "doors": office.doors().len()}),
                ),
            ))
        }
        Order::Policy { text, administrators_from_doors, lease_s } => {
            let policy = Policy {
                text: text.clone(),
                administrators_from_doors: *administrators_from_doors,
                lease_s: *lease_s,
            };
            let effects = office.set_policy(policy).map_err(said)?;
            let said = format!(
                "The rules are signed and go to {} doors. They hold for {} without news from \
                 the office.",
                office.doors().len(),
                duration(u64::from(*lease_s))
            );
            Ok((
                effects,
                Answer::done(&said, json!({"revision": office.revision(), "lease_s": lease_s})),
            ))
        }
        Order::Models { file, version } => {
            let io = |error: std::io::Error| format!("{}: {error}", file.display());
            let length = std::fs::metadata(file).map_err(io)?.len();
            if length > LARGEST_MODELS {
                return Err(format!("{}: has more than 50 MiB", file.display()));
            }
            let bytes = std::fs::read(file).map_err(io)?;
            let effects = office.offer_models(version, &bytes).map_err(said)?;
            let text = format!(
                "Set {} of {} bytes is offered to {} doors. Each checks the set's own signature \
                 before it uses it.",
                plain(version, SHOWN),
                bytes.len(),
                office.doors().len()
            );
            Ok((effects, Answer::done(&text, json!({"version": version, "bytes": bytes.len()}))))
        }
    }
}

fn door_id(office: &Office, named: &str) -> Result<KeyId, String> {
    office.door(named).map(|door| door.door).ok_or_else(|| {
        format!(
            "no door {:?}; facelatch-link site doors lists those that are admitted",
            plain(named, SHOWN)
        )
    })
}

fn person_of(office: &Office, named: &str) -> Result<SitePerson, String> {
    if let Some(person) = named.parse::<PersonId>().ok().and_then(|id| office.person(id)) {
        return Ok(person);
    }
    let mut found: Vec<SitePerson> =
        office.people().filter(|person| person.person.name == named).collect();
    match found.len() {
        1 => Ok(found.swap_remove(0)),
        0 => Err(format!(
            "nobody is called {:?}; facelatch-link site people lists everybody",
            plain(named, SHOWN)
        )),
        count => Err(format!(
            "{count} people are called {:?}; give the id that facelatch-link site people shows: {}",
            plain(named, SHOWN),
            found.iter().map(|person| person.person.id.to_string()).collect::<Vec<_>>().join(", ")
        )),
    }
}

impl PersonEdit {
    fn apply(&self, person: &mut Person) -> Result<(), String> {
        let Self { name, group, administrator, from, until, always, .. } = self;
        if let Some(name) = name {
            name.clone_into(&mut person.name);
        }
        if let Some(group) = group {
            group.clone_into(&mut person.group);
        }
        person.administrator = administrator.unwrap_or(person.administrator);
        if *always {
            (person.valid_from, person.valid_until) = (None, None);
        }
        person.valid_from = from.or(person.valid_from);
        person.valid_until = until.or(person.valid_until);
        match (person.valid_from, person.valid_until) {
            (Some(from), Some(until)) if from >= until => {
                Err("the last day is before the first; give both".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// A person in one line.
fn describe(person: &Person) -> String {
    let zone = jiff::tz::TimeZone::system();
    let mut line =
        format!("{}  {}  {}", person.id, plain(&person.name, SHOWN), plain(&person.group, SHOWN));
    if person.administrator {
        line.push_str(", administrator");
    }
    for (word, date) in [("from", person.valid_from), ("until", person.valid_until)] {
        if let Some(date) = date {
            line.push_str(&format!(", {word} {}", dates::shown(date, &zone)));
        }
    }
    line
}

/// A time in words, rounded down to one unit.
fn duration(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7_200 => (seconds / 60, "minute"),
        7_200..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

fn doors(office: &Office, now: u64) -> Answer {
    let revoked = office.revoked_revision();
    let manifests = office.manifests();
    let mut lines = Vec::new();
    let mut rows = Vec::new();
    for door in office.doors() {
        let certificate = &door.certificate;
        let mut state = Vec::new();
        let row = match &door.have {
            None => {
                state.push("has not reported yet".to_owned());
                json!(null)
            }
            Some(have) => {
                let behind = have.manifests.iter().any(|(group, revision)| {
                    manifests.get(group).is_some_and(|newest| newest > revision)
                });
                if have.revoked < revoked {
                    state.push("does not know yet who is locked out".to_owned());
                }
                if have.missing > 0 {
                    state.push(format!("lacks {} records", have.missing));
                } else if behind {
                    state.push("is behind".to_owned());
                }
                match have.lease_until_ms {
                    0 => state.push("has no lease yet".to_owned()),
                    until if until <= now => state.push("its lease is over".to_owned()),
                    _ => {}
                }
                if state.is_empty() {
                    state.push("up to date".to_owned());
                }
                state.push(format!(
                    "{} people, reported {} ago",
                    have.people,
                    duration(now.saturating_sub(have.at_ms) / 1_000)
                ));
                json!({
                    "reported_ms": have.at_ms, "people": have.people, "missing": have.missing,
                    "behind": behind, "knows_locked_out": have.revoked >= revoked,
                    "lease_until_ms": have.lease_until_ms, "epoch": have.epoch,
                    "refused": have.refused, "models": have.models,
                })
            }
        };
        let groups = certificate.groups.iter().map(|group| plain(group, SHOWN)).collect::<Vec<_>>();
        lines.push(format!(
            "{}  {}  {}{}: {}",
            certificate.door,
            plain(&certificate.name, SHOWN),
            groups.join(", "),
            if certificate.writes { "" } else { " (reads only)" },
            state.join(", ")
        ));
        rows.push(json!({
            "door": certificate.door.to_string(), "name": certificate.name,
            "groups": certificate.groups, "writes": certificate.writes,
            "admitted_ms": certificate.since_ms, "have": row,
        }));
    }
    if lines.is_empty() {
        lines.push("No door is admitted yet; facelatch-link site admit lets one join.".to_owned());
    }
    let locked_out = office.revoked().doors.len();
    if locked_out > 0 {
        lines.push(format!("Locked out: {locked_out}."));
    }
    Answer::done(
        &lines.join("\n"),
        json!({"site": office.site().to_string(), "doors": rows, "locked_out": locked_out}),
    )
}

fn people(office: &Office) -> Answer {
    let mut people: Vec<SitePerson> = office.people().collect();
    people.sort_by_cached_key(|person| person.person.name.to_lowercase());
    let doors = office.doors();
    let writer = |author: KeyId| {
        let door = doors.iter().find(|door| door.certificate.door == author);
        door.map_or_else(
            || if author == office.site() { "the office".to_owned() } else { author.to_string() },
            |door| plain(&door.certificate.name, SHOWN),
        )
    };
    let line = |entry: &SitePerson| {
        let templates = entry.person.templates.len();
        format!("{}, {templates} templates, by {}", describe(&entry.person), writer(entry.author))
    };
    let row = |entry: &SitePerson| {
        let person = &entry.person;
        json!({
            "person": person.id.to_string(), "name": person.name, "group": person.group,
            "administrator": person.administrator, "templates": person.templates.len(),
            "valid_from": person.valid_from, "valid_until": person.valid_until,
            "author": entry.author.to_string(),
        })
    };
    let mut lines: Vec<String> = people.iter().map(line).collect();
    if lines.is_empty() {
        lines.push("Nobody is enrolled at a door of the site yet.".to_owned());
    }
    Answer::done(&lines.join("\n"), json!({"people": people.iter().map(row).collect::<Vec<_>>()}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_one_unit() {
        let said = [1, 119, 120, 7_199, 7_200, 172_800, 604_800].map(duration);
        assert_eq!(
            said,
            ["1 second", "119 seconds", "2 minutes", "119 minutes", "2 hours", "2 days", "7 days"]
        );
    }
}
