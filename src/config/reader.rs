//! Reads a configuration from text, or reports its first fault with position and cure.

use super::fault::{Place, Places, Position, quoted};
use super::reload::KEYS;
use super::{Config, Fault, twice};
use serde::Deserialize;
use toml::de::{DeTable, Deserializer};

/// Longer names are not searched for similar keys: no key is half as long. Bytes.
const LONGEST_NAME: usize = 64;
/// Keys of earlier versions, with what takes their place.
const REMOVED: [(&str, &str); 2] = [("door.neighbours", SITE), ("roles.neighbour", SITE)];
const SITE: &str = "doors of one area tell each other who passed as doors of a site: remove the \
                    key, and see [site] in facelatch config example";
/// Characters of a wrong value that are shown.
const SHOWN: usize = 40;

/// A configuration with the places of its keys in the text.
#[derive(Debug)]
pub(super) struct Read {
    pub config: Config,
    pub places: Places,
}

impl Read {
    /// Position of the remark's setting in the text; `None` if it is not in the text.
    pub fn position(&self, text: &str, fault: &Fault) -> Option<Position> {
        position(&self.places, text, fault)
    }
}

/// A fault of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TextFault {
    pub at: Option<Position>,
    pub reason: String,
}

/// Reads and checks a text.
pub(super) fn read(text: &str) -> Result<Read, TextFault> {
    let at = |byte: usize| Some(Position::of(text, byte));
    let table = DeTable::parse(text).map_err(|error| TextFault {
        at: error.span().and_then(|span| at(span.start)),
        reason: twice::reason(text, &error)
            .unwrap_or_else(|| format!("not valid TOML: {}", in_one_line(error.message()))),
    })?;
    let places = Places::of(table.get_ref());
    if let Some((name, byte)) = list_for_table(table.get_ref()) {
        let reason = format!("{name} is a list: expected a table like [{name}]");
        return Err(TextFault { at: at(byte), reason });
    }
    let config = Config::deserialize(Deserializer::from(table)).map_err(|error| {
        let span = error.span();
        let place = span.as_ref().and_then(|span| places.around(span.start));
        TextFault {
            at: span.as_ref().and_then(|span| at(span.start)),
            reason: in_plain_words(text, place, error.message()),
        }
    })?;
    match config.check() {
        Ok(()) => Ok(Read { config, places }),
        Err(fault) => {
            Err(TextFault { at: position(&places, text, &fault), reason: fault.to_string() })
        }
    }
}

/// Name and byte of a list that stands where a table belongs: serde would assign its values
/// to the keys in order.
fn list_for_table(table: &DeTable<'_>) -> Option<(String, usize)> {
    let known = |name: &str| KEYS.iter().any(|key| key.name.split('.').next() == Some(name));
    let lists = |prefix: &str, table: &DeTable<'_>| {
        let (name, _) = table.iter().find(|(name, value)| {
            value.get_ref().is_array() && (!prefix.is_empty() || known(name.get_ref()))
        })?;
        Some((shortened(&format!("{prefix}{}", quoted(name.get_ref()))), name.span().start))
    };
    let groups = table.get("groups").and_then(|groups| groups.get_ref().as_table());
    lists("", table).or_else(|| lists("groups.", groups?))
}

fn position(places: &Places, text: &str, fault: &Fault) -> Option<Position> {
    let place = places.named(&fault.key);
    let place = place.or_else(|| fault.other.and_then(|other| places.named(other)))?;
    Some(Position::of(text, place.name.start))
}

/// The message of serde, with the key, the value as written, and the cure.
fn in_plain_words(text: &str, place: Option<&Place>, message: &str) -> String {
    let Some(place) = place else { return in_one_line(message) };
    let key = &place.key;
    if message.starts_with("unknown field ") {
        return unknown_key(place, &alternatives(message));
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let wrong = rest.split("`, expected ").next().unwrap_or(rest).trim_matches('`');
        let known = alternatives(message);
        let near = nearest(wrong, known.iter().copied());
        let cure = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
        let wrong = shortened(wrong);
        return format!("{key}: {wrong:?} is unknown; expected {}{cure}", listed(&known));
    }
    match message.rsplit_once(", expected ") {
        Some((found, expected)) if found.starts_with("invalid ") => {
            let expected = match expected {
                "a string" => "text in quotes",
                "a boolean" => "true or false",
                "a sequence" => "a list in brackets",
                "f32" | "f64" => "a number",
                "u8" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
                other => other,
            };
            let value = match &text[place.value.clone()] {
                _ if place.table => "a table",
                // The command of a camera may hold a password, wherever it was written.
                value if value.contains("pipe:") || value.contains("://") => "***",
                value => value,
            };
            format!("{key} = {}: expected {expected}", shortened(value))
        }
        _ => format!("{key}: {}", in_one_line(message)),
    }
}

fn unknown_key(place: &Place, known: &[&str]) -> String {
    let (table, name) = place.key.rsplit_once('.').unwrap_or(("", &place.key));
    let prefix = if table.is_empty() { String::new() } else { format!("{table}.") };
    let near = nearest(name, known.iter().copied());
    if place.table && table.is_empty() {
        let cure = match near {
            Some(near) => format!("did you mean [{near}]?"),
            None => format!("known: {}", known.join(", ")),
        };
        return format!("unknown table [{}]; {cure}", shortened(name));
    }
    let elsewhere = || {
        let same = |key: &&&str| key.rsplit_once('.').is_some_and(|(_, last)| last == name);
        KEYS.iter().map(|key| &key.name).find(same)
    };
    let cure = match near {
        Some(near) => format!("did you mean {prefix}{near}?"),
        None => match elsewhere() {
            Some(key) => format!("did you mean {key}?"),
            None => format!("known: {}", known.join(", ")),
        },
    };
    if let Some((key, now)) = REMOVED.iter().find(|(key, _)| *key == place.key) {
        return format!("{key} is no longer a key; {now}");
    }
    format!("unknown key {}; {cure}", shortened(&place.key))
}

/// The alternatives in a message of serde: the names in backticks behind "expected".
fn alternatives(message: &str) -> Vec<&str> {
    let offered = message.rsplit_once("`, expected ").map_or("", |(_, offered)| offered);
    offered.split('`').skip(1).step_by(2).collect()
}

/// The name that was probably meant: at most one mistake per three letters, counted by the
/// Damerau-Levenshtein distance, in which two exchanged neighbours are one mistake.
pub(super) fn nearest<'n>(wrong: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    if wrong.len() > LONGEST_NAME {
        return None;
    }
    let wrong = wrong.to_lowercase().replace('-', "_");
    let mistakes = |name: &str| strsim::damerau_levenshtein(&wrong, &name.replace('-', "_"));
    let near = names.map(|name| (mistakes(name), name)).min_by_key(|(mistakes, _)| *mistakes);
    near.filter(|(mistakes, name)| mistakes * 3 <= name.len()).map(|(_, name)| name)
}

/// "a", "b" or "c".
fn listed(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

fn in_one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn shortened(text: &str) -> String {
    let line = in_one_line(text);
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        let fault = read(text).expect_err(text);
        let at = fault.at.map_or_else(String::new, |at| at.to_string());
        format!("{at}: {}", fault.reason)
    }

    #[test]
    fn a_misspelt_name_is_reported_with_place_and_suggestion() {
        for (text, expected) in [
            (
                "[door]\nopen_fro = \"3s\"",
                "2:1: unknown key door.open_fro; did you mean door.open_for?",
            ),
            (
                "door = { open_fro = 1 }",
                "1:10: unknown key door.open_fro; did you mean door.open_for?",
            ),
            ("\n[dor]\nopen_for = \"3s\"", "2:2: unknown table [dor]; did you mean [door]?"),
            (
                "[relay]\nopen_for = 1",
                "2:1: unknown key relay.open_for; did you mean door.open_for?",
            ),
            ("open_for = \"3s\"", "1:1: unknown key open_for; did you mean door.open_for?"),
            ("[relay]\ncolour = 1", "2:1: unknown key relay.colour; known: uri"),
            ("[mqtt]", "1:2: unknown table [mqtt]; known: camera, relay, gpio"),
            (
                "[groups.\"night shift\"]\nhour = []",
                "2:1: unknown key groups.\"night shift\".hour; did you mean \
                 groups.\"night shift\".hours?",
            ),
            (
                "[recognition]\ntwo_faces = \"both\"",
                "2:13: recognition.two_faces: \"both\" is unknown; expected \"refuse\", \"all\" or \
                 \"any\"",
            ),
            ("[door]\nlock = \"fail_safe\"", "; did you mean \"fail-safe\"?"),
            (
                "[enroll]\nposes = [\"front\", \"lefd\"]",
                "2:19: enroll.poses: \"lefd\" is unknown; expected \"front\", \"left\", \"right\", \
                 \"up\" or \"down\"; did you mean \"left\"?",
            ),
        ] {
            let message = fault(text);
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn a_wrong_value_is_reported_with_the_expected_form() {
        for (text, expected) in [
            ("[door]\nopen_for = 3", "2:12: door.open_for = 3: expected a time with its unit"),
            (
                "[door]\nopen_for = \"3\"",
                "2:12: door.open_for: \"3\" is not a time with its unit, like \"3s\"",
            ),
            (
                "[door]\nopen_for = \"2h\"",
                "2:1: door.open_for = \"2h\": expected \"200ms\" to \"1m\"",
            ),
            ("[door]\nlock_when_closed = 1", "door.lock_when_closed = 1: expected true or false"),
            ("door = 3", "1:8: door = 3: expected a table like [door]"),
            ("[[door]]", "1:3: door is a list: expected a table like [door]"),
            ("[[mqtt]]", "unknown key mqtt; known: camera, "),
            ("schedule = [[], 1]", "1:1: schedule is a list: expected a table like [schedule]"),
            ("groups = { a = [] }", "1:12: groups.a is a list: expected a table like [groups.a]"),
            ("[door.open_for]\nx = 1", "door.open_for = a table: expected a time"),
            ("[recognition]\nframes = -3", "recognition.frames = -3: expected a whole number"),
            ("[recognition]\nframes = 2", "2:1: recognition.frames = 2: expected 3 to 30"),
            ("[recognition]\nzone = [0, 1]", "recognition.zone = [0, 1]: expected"),
            ("[recognition]\nminimum_face = \"big\"", "minimum_face = \"big\": expected a number"),
            ("[enroll]\nviews = 3", "2:1: enroll.poses has 5 poses, more than enroll.views = 3"),
            ("[door]\nanti_passback = \"hard\"", "2:1: door.anti_passback needs door.role"),
            ("[camera]\nuri = \"webcam\"", "2:1: camera.uri = \"webcam\": no such kind of camera"),
            ("[relay]\nuri = \"usb:\"", "2:1: relay.uri = \"usb:\": no such kind of relay"),
            ("[gpio]\nexit = \"17\"", "2:1: gpio.exit = \"17\": is not a GPIO line; write gpio:"),
            (
                "[service]\nwatchdog = \"1s\"",
                "expected \"2s\" to \"10m\", or \"0s\" to turn it off",
            ),
            ("[door", "1:6: not valid TOML: "),
            ("[door]\n[door]", "2:2: [door] is already in line 1; merge the two"),
            ("a = 'x\n", "1:7: not valid TOML: "),
        ] {
            let message = fault(text);
            assert!(message.contains(expected), "{text}: {message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn far_too_long_names_and_values_are_cut() {
        for text in [
            format!("{} = 1", "a".repeat(100_000)),
            format!("[door]\nopen_for = [{}]", "1,".repeat(10_000)),
            format!("[door]\nlock = \"{}\"", "`, expected ".repeat(10_000)),
        ] {
            assert!(fault(&text).len() < 400, "{}", fault(&text).len());
        }
    }
}
