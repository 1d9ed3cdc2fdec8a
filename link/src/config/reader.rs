//! Reads a configuration, or reports its first fault with position and cure.

use super::Config;
use serde::Deserialize;
use std::io::Read;
use std::path::{Path, PathBuf};
use thiserror::Error;
use toml::de::{DeTable, DeValue, Deserializer};

/// Longest file, bytes: the example has 4 kB.
const MOST_BYTES: u64 = 256 << 10;

/// A configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {reason}; facelatch-link config example shows one", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        reason: String,
    },
    /// Its content has a fault.
    #[error("{}:{fault}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, column, what is wrong, and the cure.
        fault: String,
    },
}

pub(super) fn read_file(path: &Path) -> Result<Config, ConfigError> {
    let fault = |reason: String| ConfigError::Read { path: path.to_owned(), reason };
    let file = std::fs::File::open(path).map_err(|error| fault(error.to_string()))?;
    if !file.metadata().is_ok_and(|data| data.is_file()) {
        return Err(fault("is no file".to_owned()));
    }
    let mut bytes = vec![];
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| fault(error.to_string()))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(fault(format!("has more than {MOST_BYTES} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| fault("is not saved as UTF-8".to_owned()))?;
    read(&text).map_err(|fault| ConfigError::Invalid { path: path.to_owned(), fault })
}

/// The error begins with line and column.
pub(super) fn read(text: &str) -> Result<Config, String> {
    let at = |byte: Option<usize>, fault: String| format!("{}: {fault}", position(text, byte));
    let table = DeTable::parse(text).map_err(|error| {
        let message = error.message().replace('\n', ", ");
        at(error.span().map(|span| span.start), format!("not valid TOML: {message}"))
    })?;
    let places = places(table.get_ref());
    let config = Config::deserialize(Deserializer::from(table)).map_err(|error| {
        let byte = error.span().map(|span| span.start);
        let key = byte.and_then(|byte| {
            let holds = |place: &&Place| place.from <= byte && byte < place.to;
            places.iter().filter(holds).min_by_key(|place| place.to - place.from)
        });
        let key = key.map(|place| place.key.as_str()).unwrap_or_default();
        at(byte, in_plain_words(key, error.message()))
    })?;
    config.check().map_err(|(key, fault)| {
        let place = places.iter().find(|place| place.key == key);
        at(place.map(|place| place.from), format!("{key} {fault}"))
    })?;
    Ok(config)
}

/// A key with its tables, and the bytes from its name to the end of its value.
struct Place {
    key: String,
    from: usize,
    to: usize,
}

fn places(table: &DeTable<'_>) -> Vec<Place> {
    let mut places = vec![];
    let mut waiting = vec![(String::new(), table)];
    while let Some((prefix, table)) = waiting.pop() {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.get_ref());
            let (from, to) = (name.span().start, value.span().end.max(name.span().end));
            if let DeValue::Table(inner) = value.get_ref() {
                waiting.push((format!("{key}."), inner));
                places.push(Place { key, from, to: name.span().end });
            } else {
                places.push(Place { key, from, to });
            }
        }
    }
    places
}

fn position(text: &str, byte: Option<usize>) -> String {
    let Some(byte) = byte else { return "1:1".to_owned() };
    let before = &text[..text.floor_char_boundary(byte)];
    let begin = before.rfind('\n').map_or(0, |at| at + 1);
    let column = before[begin..].chars().count() + 1;
    format!("{}:{column}", before.matches('\n').count() + 1)
}

/// The message of serde with key and cure.
fn in_plain_words(key: &str, message: &str) -> String {
    let shown = crate::text::plain(key, 60);
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let known: Vec<&str> = rest.split('`').skip(3).step_by(2).collect();
        let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
        let near = known.iter().map(|known| (distance(name, known), *known)).min();
        let cure = match near {
            Some((changes, near)) if changes <= 2 => format!("; did you mean {near}?"),
            _ if table.is_empty() => format!("; there are the tables {}", known.join(", ")),
            _ => format!("; [{table}] has {}", known.join(", ")),
        };
        return format!("{shown} is unknown{cure}");
    }
    let message = message.replace('\n', ", ");
    match message.strip_prefix("invalid type: ") {
        Some(rest) => {
            let rest = rest.replace("a string", "text in quotes");
            let rest = rest.replace("a boolean", "true or false");
            format!("{shown} has the wrong type: {rest}")
        }
        None => format!("{shown}: {message}"),
    }
}

/// Letters to insert, remove or replace until one word is the other (Levenshtein), for
/// words of up to 40 bytes.
fn distance(a: &str, b: &str) -> usize {
    if a.len().max(b.len()) > 40 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
