//! A record as a line of text, as JSON, and as CSV.

use super::ClockTrust;
use super::entry::{Change, Entry, PersonChange, Severity};
use super::field::Value;
use super::logged::{Logged, Names};
use crate::access::event::{plain, plain_json};
use facelatch_site::dates;
use jiff::tz::TimeZone;
use serde_json::{Map, json};
use std::fmt::Write;

/// Names of the columns of comma-separated records, as their first line.
pub const CSV_HEADER: &str = "id,time,clock_trusted,event,severity,door,person,name,track,\
                              similarity,threshold,frames,of,reason,by,text\r\n";

/// A record as one line, without its end. Times are in this zone; one of a clock that was
/// not trusted has a question mark.
pub fn line(logged: &Logged, names: &Names, zone: &TimeZone) -> String {
    let Logged { number, stamp, entry } = logged;
    let time = logged.time(zone).strftime("%Y-%m-%d %H:%M:%S").to_string();
    let sure = if stamp.clock == ClockTrust::Trusted { ' ' } else { '?' };
    let mark = match entry.severity {
        Severity::Info => ' ',
        Severity::Warn => '!',
        Severity::Error => 'E',
    };
    let text = summary(entry, names);
    let line = format!("{number:>7}  {time}{sure} {mark} {:18} {text}", plain(&entry.event));
    line.trim_end().to_owned()
}

/// What an entry says, in one line of plain characters.
pub fn summary(entry: &Entry, names: &Names) -> String {
    let mut text = what(entry, names);
    let by = names.by(&entry.by);
    if !by.is_empty() {
        let gap = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{gap}{by}");
    }
    if let Some(door) = &entry.door {
        let _ = write!(text, " [{door}]");
    }
    plain(&text).into_owned()
}

fn what(entry: &Entry, names: &Names) -> String {
    let who = entry.person().map(|person| names.who(person));
    let named = || who.clone().unwrap_or_else(|| "somebody".to_owned());
    let changes: Vec<String> =
        entry.changes.iter().map(|change| of_change(change, names)).collect();
    if !changes.is_empty() {
        return changes.join("; ");
    }
    match (entry.event.as_str(), entry.text("reason")) {
        ("granted", _) => {
            let again = if entry.flag("again") { "; passed this way already" } else { "" };
            format!("{}, {}{again}", named(), evidence(entry))
        }
        ("refused", Some("stranger")) => {
            let (similarity, threshold) = (entry.number("similarity"), entry.number("threshold"));
            match (similarity, threshold) {
                (Some(similarity), Some(threshold)) if similarity > -1.0 => format!(
                    "unknown person, similarity {similarity:.3}, threshold {threshold:.3}, in {} \
                     frames",
                    entry.count("frames").unwrap_or(0)
                ),
                _ => "unknown person; nobody is enrolled".to_owned(),
            }
        }
        ("refused", Some("two faces")) => {
            format!("{} faces at once", entry.count("faces").unwrap_or(2))
        }
        ("refused" | "advice", Some("liveness")) => format!(
            "{} does not look live, score {:.2} ({})",
            named(),
            entry.number("score").unwrap_or(0.0),
            entry.text("cue").unwrap_or("unknown cue")
        ),
        ("refused", Some(reason)) => {
            format!("{}, {}; recognized with {}", named(), why(reason, entry), evidence(entry))
        }
        ("passed", _) => format!("{}, {}", named(), entry.text("role").unwrap_or("")),
        ("duress", _) => format!("{}, silent alarm", named()),
        ("order refused", _) => {
            let order = entry.text("order").unwrap_or("an order");
            format!("{order}: {}", entry.text("error").unwrap_or("refused"))
        }
        _ => {
            let more = entry.facts.iter().filter_map(|fact| {
                let name = fact.name();
                Some(match (&fact.value, name) {
                    (_, "person") => named(),
                    (
                        Value::Text(text),
                        "order" | "alarm" | "mode" | "action" | "advice" | "error" | "reason"
                        | "clock" | "step" | "role" | "whose" | "text",
                    ) => text.clone(),
                    (Value::Flag(false), _) => return None,
                    (Value::Flag(true), _) => name.to_owned(),
                    (Value::Text(text), _) => format!("{name} {text}"),
                    (value, _) => format!("{name} {}", value.to_json()),
                })
            });
            more.collect::<Vec<_>>().join(", ")
        }
    }
}

/// Why a known person was refused, in words.
pub(super) fn why(reason: &str, entry: &Entry) -> String {
    match reason {
        "lockdown" => "the door was in lockdown".to_owned(),
        "locked out" => match entry.count("left_s") {
            Some(left) => format!("locked out for another {left} s after refused attempts"),
            None => "locked out after refused attempts".to_owned(),
        },
        "unknown group" => "the configuration has no such group".to_owned(),
        "clock" => "the clock was not trusted, and the group's rule is refuse".to_owned(),
        "hours" => "outside the hours of the group".to_owned(),
        "not yet valid" => "they may come in later".to_owned(),
        "no longer valid" => "their time was over".to_owned(),
        "site unheard" => "the door had not heard from its site for too long".to_owned(),
        "passed already" => "passed this way already".to_owned(),
        "probation" => "on probation until they get a name".to_owned(),
        "stopped" => "the service was ending".to_owned(),
        other => other.to_owned(),
    }
}

fn evidence(entry: &Entry) -> String {
    let mut text = format!(
        "similarity {:.3} >= {:.3}, in {} of {} frames",
        entry.number("similarity").unwrap_or(0.0),
        entry.number("threshold").unwrap_or(0.0),
        entry.count("frames").unwrap_or(0),
        entry.count("of").unwrap_or(0),
    );
    let ten = std::f64::consts::LN_10;
    if let (Some(has), Some(needed)) = (entry.number("log_ratio"), entry.number("log_ratio_needed"))
    {
        let _ = write!(text, ", evidence {:.1} >= {:.1}", has / ten, needed / ten);
    }
    text
}

/// A change in words.
pub(super) fn of_change(change: &Change, names: &Names) -> String {
    let (id, what) = match change {
        Change::Setting { key, old, new } => {
            let shown = |value: &Option<String>| value.clone().unwrap_or("not set".to_owned());
            return format!("{key}: {} -> {}", shown(old), shown(new));
        }
        Change::Person { id, what } => (*id, what),
    };
    let who = names.who(id);
    match what {
        PersonChange::Added { templates, group, administrator, probation } => {
            let administrator = if *administrator { ", administrator" } else { "" };
            let probation = if *probation { ", on probation" } else { "" };
            let templates = count(*templates);
            format!("{who} added with {templates}, group {group}{administrator}{probation}")
        }
        PersonChange::Removed { templates } => {
            format!("person {id} removed with {}", count(*templates))
        }
        PersonChange::Renamed => format!("{who} renamed"),
        PersonChange::Group { old, new } => format!("{who}: group {old} -> {new}"),
        PersonChange::Administrator(true) => format!("{who} became an administrator"),
        PersonChange::Administrator(false) => format!("{who} is no longer an administrator"),
        PersonChange::Stricter { old, new } => {
            format!("{who}: threshold raised by {new:.3} instead of {old:.3}")
        }
        PersonChange::Probation(true) => format!("{who} is on probation"),
        PersonChange::Probation(false) => format!("{who} is no longer on probation"),
        PersonChange::Templates { old, new } => format!("{who}: {old} -> {}", count(*new)),
        PersonChange::Dates { new: (None, None), .. } => format!("{who}: no dates any more"),
        PersonChange::Dates { new: (from, until), .. } => {
            let date = |word: &str, date: &Option<i64>| {
                date.map(|date| format!(" {word} {}", dates::shown(date, &TimeZone::system())))
            };
            let dates = [date("from", from), date("until", until)].into_iter().flatten();
            format!("{who} may come in{}", dates.collect::<String>())
        }
    }
}

fn count(templates: u32) -> String {
    format!("{templates} {}", if templates == 1 { "template" } else { "templates" })
}

/// A record as one JSON object on one line, without its end. Details have the names of
/// `run --json`; fields are only added.
pub fn json_line(logged: &Logged, names: &Names) -> String {
    let Logged { number, stamp, entry } = logged;
    let mut object = Map::new();
    let mut put = |name: &str, value: serde_json::Value| {
        if !value.is_null() {
            object.insert(name.to_owned(), value);
        }
    };
    put("id", json!(number));
    put("time", json!(logged.time(&TimeZone::UTC).timestamp().to_string()));
    put("clock_trusted", json!(stamp.clock == ClockTrust::Trusted));
    put("boot", json!(hex(&stamp.boot)));
    put("uptime_s", json!(stamp.monotonic as f64 / 1e6));
    put("event", json!(entry.event));
    put("severity", json!(entry.severity.name()));
    put("door", json!(entry.door));
    for fact in &entry.facts {
        put(fact.name(), fact.value.to_json());
    }
    put("name", json!(entry.person().and_then(|person| names.name(person))));
    let by = &entry.by;
    put(
        "by",
        json!({"via": by.via.name(), "uid": by.uid, "login": by.login,
        "sudo_claimed": by.sudo, "role": by.role}),
    );
    if let Some(basis) = &entry.basis {
        put("models", json!(basis.models));
        put("configuration", json!(hex(&basis.configuration)));
    }
    if !entry.frames.is_empty() {
        let frames = entry.frames.iter().map(|frame| {
            json!({
                "before_ms": frame.before, "person": frame.person,
                "similarity": frame.similarity, "quality": frame.quality,
            })
        });
        put("votes", frames.collect());
    }
    if !entry.changes.is_empty() {
        put("changes", entry.changes.iter().map(|change| of_change_json(change, names)).collect());
    }
    if let Some(picture) = &entry.picture {
        put("picture_sha256", json!(hex(&picture.sha256)));
    }
    put("replay", json!(entry.inputs.is_some()));
    let text = serde_json::Value::Object(object).to_string();
    plain_json(&text).into_owned()
}

fn of_change_json(change: &Change, names: &Names) -> serde_json::Value {
    match change {
        Change::Setting { key, old, new } => json!({"setting": key, "old": old, "new": new}),
        Change::Person { id, what } => {
            let (what, old, new) = match what {
                PersonChange::Added { templates, group, administrator, probation } => (
                    "added",
                    json!(null),
                    json!({"templates": templates, "group": group,
                        "administrator": administrator, "probation": probation}),
                ),
                PersonChange::Removed { templates } => {
                    ("removed", json!({"templates": templates}), json!(null))
                }
                PersonChange::Renamed => ("renamed", json!(null), json!(null)),
                PersonChange::Group { old, new } => ("group", json!(old), json!(new)),
                PersonChange::Administrator(is) => ("administrator", json!(!is), json!(is)),
                PersonChange::Stricter { old, new } => ("stricter", json!(old), json!(new)),
                PersonChange::Probation(is) => ("probation", json!(!is), json!(is)),
                PersonChange::Templates { old, new } => ("templates", json!(old), json!(new)),
                PersonChange::Dates { old, new } => ("dates", json!(old), json!(new)),
            };
            json!({"person": id, "name": names.name(*id), "what": what, "old": old, "new": new})
        }
    }
}

/// A record as a line of CSV (RFC 4180), with its end.
pub fn csv_line(logged: &Logged, names: &Names) -> String {
    let Logged { number, stamp, entry } = logged;
    let number_of = |name| entry.number(name).map_or(String::new(), |number| format!("{number}"));
    let text = |text: Option<&str>| cell(text.unwrap_or(""));
    let columns = [
        number.to_string(),
        logged.time(&TimeZone::UTC).timestamp().to_string(),
        (stamp.clock == ClockTrust::Trusted).to_string(),
        cell(&entry.event),
        entry.severity.name().to_owned(),
        text(entry.door.as_deref()),
        number_of("person"),
        text(entry.person().and_then(|person| names.name(person))),
        number_of("track"),
        number_of("similarity"),
        number_of("threshold"),
        number_of("frames"),
        number_of("of"),
        text(entry.text("reason")),
        cell(&names.by(&entry.by)),
        cell(&what(entry, names)),
    ];
    columns.join(",") + "\r\n"
}

/// A text as a cell: quoted where needed, and never taken for a formula by a spreadsheet.
fn cell(text: &str) -> String {
    let text = plain(text);
    let formula = text.starts_with(['=', '+', '-', '@']);
    let text = if formula { format!("'{text}") } else { text.into_owned() };
    if text.contains([',', '"', ' ']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

/// Bytes as lowercase hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
