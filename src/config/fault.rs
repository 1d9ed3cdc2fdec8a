//! Faults and advice about a setting, and its place in the text.

use crate::hardware::uri::duration_text;
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::time::Duration;
use toml::de::{DeTable, DeValue};

/// A fault of a setting, or advice about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The setting, like "door.open_for".
    pub key: Cow<'static, str>,
    /// A related setting, whose position is shown if `key` is not in the text.
    pub other: Option<&'static str>,
    /// Fault and cure, a sentence that begins with the key.
    pub text: String,
}

impl Fault {
    pub(super) fn of(key: impl Into<Cow<'static, str>>, text: &str) -> Self {
        Self { key: key.into(), other: None, text: text.to_owned() }
    }

    pub(super) fn or_at(self, other: &'static str) -> Self {
        Self { other: Some(other), ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.text)
    }
}

/// An error if the number is out of its range.
pub(super) fn within(
    key: &'static str,
    value: f64,
    (from, to): (f64, f64),
    unit: &str,
) -> Result<(), Fault> {
    if (from..=to).contains(&value) {
        Ok(())
    } else {
        Err(Fault::of(key, &format!("= {value}{unit}: expected {from} to {to}{unit}")))
    }
}

/// An error if the time is out of its range, which is in seconds.
pub(super) fn seconds(
    key: &'static str,
    value: Duration,
    (from, to): (f64, f64),
) -> Result<(), Fault> {
    let (from, to) = (Duration::from_secs_f64(from), Duration::from_secs_f64(to));
    if (from..=to).contains(&value) {
        Ok(())
    } else {
        let [value, from, to] = [value, from, to].map(duration_text);
        Err(Fault::of(key, &format!("= {value:?}: expected {from:?} to {to:?}")))
    }
}

/// A position in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl Position {
    /// The position of this byte of the text, or of its end if it is shorter.
    pub(super) fn of(text: &str, byte: usize) -> Self {
        let before = &text[..text.floor_char_boundary(byte)];
        let begin = before.rfind('\n').map_or(0, |at| at + 1);
        Self { line: before.matches('\n').count() + 1, column: before[begin..].chars().count() + 1 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// The place of a key in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Name with its tables, like "door.open_for".
    pub key: String,
    /// Byte range of the name.
    pub name: Range<usize>,
    /// Byte range of the value.
    pub value: Range<usize>,
    /// Whether the value is a table.
    pub table: bool,
}

/// All keys of a text, each table before its own keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places(Vec<Place>);

impl Places {
    pub fn of(table: &DeTable<'_>) -> Self {
        let mut places = Self::default();
        places.add("", table);
        places
    }

    fn add(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = format!("{prefix}{}", quoted(name.get_ref()));
            let below = format!("{key}.");
            let inner = match value.get_ref() {
                DeValue::Table(inner) => Some(inner),
                _ => None,
            };
            self.0.push(Place {
                key,
                name: name.span(),
                value: value.span(),
                table: inner.is_some(),
            });
            if let Some(inner) = inner {
                self.add(&below, inner);
            }
        }
    }

    /// The key with this name.
    pub fn named(&self, key: &str) -> Option<&Place> {
        self.0.iter().find(|place| place.key == key)
    }

    /// The key that was added last.
    pub fn last(&self) -> Option<&Place> {
        self.0.last()
    }

    /// The innermost key whose name or value contains this byte.
    pub fn around(&self, byte: usize) -> Option<&Place> {
        let holds = |place: &&Place| place.name.contains(&byte) || place.value.contains(&byte);
        self.0.iter().filter(holds).min_by_key(|place| place.value.len())
    }

    /// The keys that are not tables, in the order of the text.
    pub fn settings(&self) -> Vec<&Place> {
        let mut settings: Vec<_> = self.0.iter().filter(|place| !place.table).collect();
        settings.sort_by_key(|place| place.name.start);
        settings
    }
}

/// A name as part of a dotted key, quoted if necessary.
pub(super) fn quoted(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(bare) { name.to_owned() } else { format!("{name:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_counts_characters_from_one() {
        let text = "ä = 1\nbö = 2";
        let at = |byte| Position::of(text, byte).to_string();
        assert_eq!(
            [at(0), at(1), at(2), at(7), at(10), at(99)].join(" "),
            "1:1 1:1 1:2 2:1 2:3 2:7"
        );
    }

    #[test]
    fn keys_are_found_however_they_are_written() {
        for text in ["[a]\nb = 1", "a.b = 1", "a = { b = 1 }", "[a]\n\"b\" = 1"] {
            let table = DeTable::parse(text).expect(text);
            let places = Places::of(table.get_ref());
            let place = places.named("a.b").expect(text);
            assert_eq!(&text[place.value.clone()], "1", "{text}");
            assert_eq!(places.around(place.value.start), Some(place), "{text}");
            assert_eq!(places.around(place.name.start), Some(place), "{text}");
            assert_eq!(places.settings(), [place], "{text}");
        }
        assert_eq!(quoted("a b"), "\"a b\"");
    }
}
