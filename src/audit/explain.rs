//! A record in plain English: who, how alike, what was asked, which frames, what else stood
//! in the way, and how far the time can be trusted. Nothing is said that the log does not
//! have.

use super::ClockTrust;
use super::entry::{Entry, Via};
use super::logged::{Logged, Names};
use super::show::{hex, summary, why};
use crate::access::event::plain;
use jiff::tz::TimeZone;
use std::fmt::Write;

/// For how long before a decision the steps of its challenge are looked for, seconds.
const CHALLENGE_WITHIN: f64 = 60.0;
/// For how long after a decision the answer of the relay is looked for, seconds.
const ANSWER_WITHIN: f64 = 10.0;

/// A record with those around it, the nearest last before it and first after it.
#[derive(Clone, Copy, Debug)]
pub struct Explained<'l> {
    /// The record.
    pub logged: &'l Logged,
    /// Records before it, oldest first.
    pub before: &'l [Logged],
    /// Records after it, oldest first.
    pub after: &'l [Logged],
}

/// Explains a record in paragraphs, in plain characters. Each ends with a line end, and
/// empty lines separate them.
pub fn explain(explained: &Explained<'_>, names: &Names, zone: &TimeZone) -> String {
    let entry = &explained.logged.entry;
    let mut paragraphs = vec![what_happened(explained, names, zone)];
    let attempt = matches!(entry.event.as_str(), "granted" | "refused")
        || entry.event == "advice" && entry.text("reason") == Some("liveness");
    if attempt {
        paragraphs.push(how_alike(entry, names));
        paragraphs.push(frames(entry, names));
        paragraphs.push(liveness(explained));
        paragraphs.push(in_the_way(entry));
    }
    paragraphs.push(who_ordered(entry, names));
    paragraphs.push(what_followed(explained));
    paragraphs.push(clock(explained.logged));
    paragraphs.push(basis(explained.logged));
    paragraphs.retain(|paragraph| !paragraph.is_empty());
    let text: Vec<String> = paragraphs.iter().map(|paragraph| wrapped(&plain(paragraph))).collect();
    text.join("\n")
}

/// Who it is about, with the number in the log.
fn who(entry: &Entry, names: &Names) -> String {
    match entry.person() {
        Some(person) if names.name(person).is_some() => {
            format!("{} (person {person})", names.who(person))
        }
        Some(person) => names.who(person),
        None => "somebody".to_owned(),
    }
}

fn what_happened(explained: &Explained<'_>, names: &Names, zone: &TimeZone) -> String {
    let Logged { number, entry, .. } = explained.logged;
    let time = explained.logged.time(zone);
    let unsure = explained.logged.stamp.clock != ClockTrust::Trusted;
    let mut text = format!(
        "Record {number}. On {} ({}{})",
        time.strftime("%A %-d %B %Y at %H:%M:%S"),
        zone.iana_name().unwrap_or("local time"),
        if unsure { ", by a clock that was not trusted" } else { "" }
    );
    if let Some(door) = &entry.door {
        let _ = write!(text, ", at the door \"{door}\"");
    }
    let who = who(entry, names);
    let reason = entry.text("reason").unwrap_or("");
    let what = match (entry.event.as_str(), reason) {
        ("granted", _) => format!("the door recognized {who} and was ordered to open"),
        ("refused", "stranger") => "the door refused somebody whom it did not recognize".to_owned(),
        ("refused", "two faces") => format!(
            "the door refused to decide because {} faces were in view at once",
            entry.count("faces").unwrap_or(2)
        ),
        ("refused", "liveness") => format!(
            "the door saw the face of {who}, but it did not look like a living person, so the \
             door stayed as it was"
        ),
        ("advice", "liveness") => format!(
            "the door saw the face of {who}, and it did not look like a living person; the \
             setting liveness.mode = \"advise\" only reports that"
        ),
        ("refused", _) => format!("the door recognized {who} and did not let them in"),
        ("exit", _) => "somebody asked to leave, and the door was ordered to open".to_owned(),
        ("opened by command", _) => "the door was ordered to open by a command".to_owned(),
        ("command refused", _) => {
            format!("a command to open the door was refused: {}", why(reason, entry))
        }
        ("unlocked", _) => "the relay confirmed that the door was unlocked".to_owned(),
        ("locked", _) => "the relay confirmed that the door was locked".to_owned(),
        ("duress", _) => format!("{who} gave the duress signal; the door raised a silent alarm"),
        ("passed", _) => {
            format!("{who} passed the door, {}", entry.text("role").unwrap_or("either way"))
        }
        ("challenge", _) => format!(
            "the door gave a person in view the message \"{}\"",
            entry.text("action").unwrap_or("")
        ),
        ("locked out", _) => format!(
            "there had been too many refused attempts{}; a lockout of {} seconds began",
            if entry.text("whose") == Some("face") { " of one face" } else { "" },
            entry.count("for_s").unwrap_or(0)
        ),
        ("mode", _) => format!("the mode of the door became {}", entry.text("mode").unwrap_or("")),
        ("alarm", _) => format!("an alarm began: {}", entry.text("alarm").unwrap_or("")),
        ("alarm ended", _) => format!("an alarm ended: {}", entry.text("alarm").unwrap_or("")),
        ("order", _) => {
            format!("the service got the order \"{}\"", entry.text("order").unwrap_or(""))
        }
        (event, _) => {
            let detail =
                summary(&Entry { by: Default::default(), door: None, ..entry.clone() }, names);
            let colon = if detail.is_empty() { "" } else { ": " };
            format!("this was recorded: {event}{colon}{detail}")
        }
    };
    let _ = write!(text, ", {what}.");
    text
}

fn how_alike(entry: &Entry, names: &Names) -> String {
    let (Some(similarity), Some(threshold)) =
        (entry.number("similarity"), entry.number("threshold"))
    else {
        return String::new();
    };
    let frames = entry.count("frames").unwrap_or(0);
    let templates = entry.count("templates");
    let stranger = entry.text("reason") == Some("stranger");
    let mut text = if !stranger {
        format!(
            "{frames} of the {} frames that counted showed this person. The least similar of \
             them had a similarity of {similarity:.3} to the stored pictures; {threshold:.3} or \
             more was needed, and 1 would be the very same picture.",
            entry.count("of").unwrap_or(frames)
        )
    } else if similarity <= -1.0 {
        return "Nobody was enrolled, so there was nobody to compare with.".to_owned();
    } else {
        format!(
            "In {frames} frames nobody who is enrolled was similar enough. The highest \
             similarity to anybody was {similarity:.3}; {threshold:.3} or more was needed, and 1 \
             would be the very same picture."
        )
    };
    if let Some(rate) = entry.number("rate").filter(|rate| *rate > 0.0) {
        let _ = write!(
            text,
            " That threshold follows from the setting recognition.false_accept_rate: about one \
             stranger in {} would reach it",
            grouped(1.0 / rate)
        );
        if let Some(templates) = templates {
            let _ = write!(
                text,
                " in this gallery of {templates} {}",
                if templates == 1 { "template" } else { "templates" }
            );
        }
        text += if entry.flag("extrapolated") {
            ". It is an estimate beyond what the models were measured with."
        } else {
            "."
        };
    }
    if let (Some(has), Some(needed)) = (entry.number("log_ratio"), entry.number("log_ratio_needed"))
    {
        let person = entry.person().map_or("this person".to_owned(), |person| names.who(person));
        let _ = write!(
            text,
            " Taken together, these views are about {} times more likely if it was {person} than \
             if it was a stranger; at least {} times was needed.",
            grouped(has.exp()),
            grouped(needed.exp())
        );
    }
    text
}

fn frames(entry: &Entry, names: &Names) -> String {
    if entry.frames.is_empty() {
        return String::new();
    }
    let mut text = "The frames that counted, with their time before the decision:".to_owned();
    for (at, frame) in entry.frames.iter().enumerate() {
        let shows = match frame.person {
            Some(person) => names.who(person),
            None => "nobody known".to_owned(),
        };
        let _ = write!(
            text,
            "{} {:.2} s {shows}, similarity {:.3}",
            if at == 0 { "" } else { ";" },
            f64::from(frame.before) / 1000.0,
            frame.similarity
        );
        if let Some(quality) = frame.quality {
            let _ = write!(text, ", quality {quality} %");
        }
    }
    text + "."
}

fn liveness(explained: &Explained<'_>) -> String {
    let entry = &explained.logged.entry;
    let mut text = match (entry.text("liveness"), entry.text("reason")) {
        (_, Some("liveness")) => format!(
            "The check for a living person gave a score of {:.2}, where 1 is certainly live; the \
             most suspicious cue was: {}.",
            entry.number("score").unwrap_or(0.0),
            entry.text("cue").unwrap_or("unknown")
        ),
        (Some("off"), _) if entry.person().is_some() => {
            "Whether a living person stood there was not checked (liveness.mode = \"off\"), so a \
             good picture of the person would have had the same result."
                .to_owned()
        }
        (Some("enforce"), _) if entry.event == "granted" => {
            "The check for a living person (liveness.mode = \"enforce\") was passed.".to_owned()
        }
        (Some("advise"), _) if entry.event == "granted" => {
            "The check for a living person only reports doubts (liveness.mode = \"advise\")."
                .to_owned()
        }
        _ => String::new(),
    };
    let Some(track) = entry.count("track") else { return text };
    let asked = explained.before.iter().filter(|other| {
        let since = explained.logged.seconds_since(other);
        other.entry.event == "challenge"
            && other.entry.count("track") == Some(track)
            && since.is_some_and(|since| (0.0..CHALLENGE_WITHIN).contains(&since))
    });
    let asked: Vec<&str> = asked.filter_map(|other| other.entry.text("action")).collect();
    let ended = |action: &&str| *action == "passed" || action.starts_with("failed");
    let said: Vec<String> =
        asked.iter().filter(|one| !ended(one)).map(|one| format!("\"{one}\"")).collect();
    let results: Vec<&str> = asked.iter().copied().filter(|one| ended(one)).collect();
    if !said.is_empty() {
        let gap = if text.is_empty() { "" } else { " " };
        let _ =
            write!(text, "{gap}Before that the door asked the person: {}.", said.join(", then "));
        if !results.is_empty() {
            let _ = write!(text, " The result: {}.", results.join(", then "));
        }
    } else if entry.text("liveness") != Some("off") && entry.event == "granted" {
        text += " Nothing was asked of the person.";
    }
    text
}

fn in_the_way(entry: &Entry) -> String {
    let reason = entry.text("reason").unwrap_or("");
    let mut text = match (entry.event.as_str(), reason) {
        ("refused", "stranger") if entry.flag("denied") => {
            "A view was as similar to a reported false entry as to the person whom it resembled, \
             so it counted against them, however similar it was (facelatch people negatives)."
                .to_owned()
        }
        ("refused", "stranger" | "liveness") => String::new(),
        ("refused", "two faces") => {
            "While several faces are in view the door decides about none of them \
             (recognition.two_faces): the wrong one might go in."
                .to_owned()
        }
        ("refused", reason) => format!("What stood in the way: {}.", why(reason, entry)),
        ("granted", _) => {
            let mut text = match entry.text("schedule") {
                Some(schedule) => format!("The schedule admitted them: {schedule}."),
                None => String::new(),
            };
            if entry.flag("again") {
                text += " Their last passage went the same way, which the setting \
                         door.anti_passback only reports.";
            }
            text + " Nothing else stood in the way: no lockdown and no lockout."
        }
        _ => String::new(),
    };
    if let Some(group) = entry.text("group") {
        let _ = write!(text, " The group of the person was \"{group}\".");
    }
    text.trim_start().to_owned()
}

fn who_ordered(entry: &Entry, names: &Names) -> String {
    let by = &entry.by;
    let Some(way) = (match by.via {
        Via::Door => None,
        Via::Socket => Some("over the control socket"),
        Via::Link => Some("over the control socket, from the program that links this door"),
        Via::CommandLine => Some("with the command line of facelatch"),
        Via::Files => Some("in a file that the service found changed"),
    }) else {
        return String::new();
    };
    let mut text = match by.uid {
        Some(uid) => format!("The order was given by {} {way}.", names.user(uid)),
        None => format!("The order came {way}; who gave it is not known."),
    };
    let proof = match by.via {
        Via::Socket | Via::Link => "The service has this from the kernel.",
        _ => "The program that wrote the record has this from the kernel.",
    };
    if by.uid.is_some() {
        let _ = write!(text, " {proof}");
    }
    match by.login {
        Some(login) if Some(login) != by.uid => {
            let _ = write!(text, " The login session is that of {}.", names.user(login));
        }
        _ => {}
    }
    if let Some(sudo) = by.sudo {
        let _ = write!(
            text,
            " sudo says that {} called it; that is a claim, which root can make of anybody.",
            names.user(sudo)
        );
    }
    if let Some(role) = &by.role {
        let _ = write!(text, " The order needs the role \"{role}\".");
    }
    text
}

fn what_followed(explained: &Explained<'_>) -> String {
    let entry = &explained.logged.entry;
    if !matches!(entry.event.as_str(), "granted" | "exit" | "opened by command") {
        return String::new();
    }
    let answer = explained.after.iter().find_map(|other| {
        let after = other.seconds_since(explained.logged)?;
        let answer = match other.entry.event.as_str() {
            "unlocked" => "the relay confirmed that the door was unlocked",
            "relay failed" => "the relay failed",
            "relay silent" => "the relay had not answered",
            _ => return None,
        };
        (0.0..ANSWER_WITHIN).contains(&after).then_some((after, answer, other.number))
    });
    match answer {
        Some((after, answer, number)) if after < 0.05 => {
            format!("At once {answer} (record {number}).")
        }
        Some((after, answer, number)) => {
            format!("{after:.1} seconds later {answer} (record {number}).")
        }
        None => {
            "No answer of the relay is recorded; the door may have been open already.".to_owned()
        }
    }
}

fn clock(logged: &Logged) -> String {
    let uptime = logged.stamp.monotonic / 1_000_000;
    let (hours, minutes, seconds) = (uptime / 3600, uptime / 60 % 60, uptime % 60);
    let up = format!("{hours} h {minutes} min {seconds} s after the board was started");
    match logged.stamp.clock {
        ClockTrust::Trusted => {
            format!("The clock was trusted at that time. It was {up}.")
        }
        ClockTrust::Unsure => format!(
            "The clock was not trusted at that time, so date and time may be wrong. It was {up}, \
             which is certain; the order of the records is certain as well."
        ),
    }
}

fn basis(logged: &Logged) -> String {
    logged.entry.basis.as_ref().map_or(String::new(), |basis| {
        format!(
            "Models {}, configuration {} (the beginning of its SHA-256).",
            basis.models,
            hex(&basis.configuration)
        )
    })
}

/// A positive number in a reader's precision: two digits, and commas between thousands.
fn grouped(number: f64) -> String {
    if !number.is_finite() || number >= 1e15 {
        return "more than a million billion".to_owned();
    }
    if number < 10.0 {
        return format!("{number:.1}");
    }
    let unit = 10f64.powf(number.log10().floor() - 1.0);
    let rounded = ((number / unit).round() * unit) as u64;
    let digits = rounded.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Lines of at most 88 characters, unless a word is longer.
fn wrapped(text: &str) -> String {
    let (mut lines, mut line) = (String::new(), String::new());
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > 88 {
            lines += &line;
            lines.push('\n');
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    lines + &line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_round() {
        for (number, expected) in [
            (10_000.0, "10,000"),
            (3_234_567.0, "3,200,000"),
            (12.4, "12"),
            (1.25, "1.2"),
            (99.6, "100"),
            (f64::INFINITY, "more than a million billion"),
        ] {
            assert_eq!(grouped(number), expected);
        }
    }
}
