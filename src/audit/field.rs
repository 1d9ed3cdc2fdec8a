//! The details of an entry: named values, with the names of the JSON of
//! [`crate::access::event::Event`].

use super::entry::cut;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Names of details. A name is kept as its place here, so names are only added at the end.
static NAMES: [&str; 48] = [
    "person",
    "track",
    "similarity",
    "frames",
    "of",
    "threshold",
    "extrapolated",
    "log_ratio",
    "log_ratio_needed",
    "schedule",
    "again",
    "reason",
    "left_s",
    "faces",
    "advice",
    "score",
    "cue",
    "action",
    "age",
    "role",
    "alarm",
    "before",
    "now",
    "error",
    "state",
    "line",
    "mode",
    "for_s",
    "whose",
    "clock",
    "by_s",
    "step",
    "order",
    "needs",
    "group",
    "rate",
    "templates",
    "liveness",
    "too_long",
    "file",
    "digest",
    "set",
    "previous",
    "version",
    "people",
    "recording",
    "enforced",
    "text",
];

/// A detail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    name: Name,
    /// Its value.
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Name {
    /// Place in [`NAMES`].
    Known(u8),
    Other(String),
}

/// The value of a detail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// Yes or no.
    Flag(bool),
    /// A whole number from 0 up.
    Count(u64),
    /// A whole number.
    Signed(i64),
    /// A number.
    Number(f32),
    /// A number that is not exact as [`Self::Number`].
    Double(f64),
    /// A text.
    Text(String),
}

impl Fact {
    /// A detail. A text is cut to [`super::entry::LONGEST_TEXT`].
    pub fn new(name: &str, value: Value) -> Self {
        let place = NAMES.iter().position(|known| *known == name);
        let place = place.and_then(|place| u8::try_from(place).ok());
        let name = place.map_or_else(|| Name::Other(cut(name)), Name::Known);
        let value = match value {
            Value::Text(text) => Value::Text(cut(&text)),
            other => other,
        };
        Self { name, value }
    }

    /// A detail of a JSON value; `None` for null, and for lists and objects.
    pub fn of_json(name: &str, value: &serde_json::Value) -> Option<Self> {
        let value = match value {
            serde_json::Value::Bool(flag) => Value::Flag(*flag),
            serde_json::Value::String(text) => Value::Text(text.clone()),
            serde_json::Value::Number(number) => {
                if let Some(count) = number.as_u64() {
                    Value::Count(count)
                } else if let Some(signed) = number.as_i64() {
                    Value::Signed(signed)
                } else {
                    let double = number.as_f64()?;
                    let single = double as f32;
                    let exact = f64::from(single).to_bits() == double.to_bits();
                    if exact { Value::Number(single) } else { Value::Double(double) }
                }
            }
            _ => return None,
        };
        Some(Self::new(name, value))
    }

    /// The name of the detail.
    pub fn name(&self) -> &str {
        match &self.name {
            Name::Known(place) => NAMES.get(usize::from(*place)).copied().unwrap_or("unknown"),
            Name::Other(name) => name,
        }
    }
}

impl Value {
    /// As in the JSON.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Flag(flag) => json!(flag),
            Self::Count(count) => json!(count),
            Self::Signed(signed) => json!(signed),
            Self::Number(number) => json!(number),
            Self::Double(number) => json!(number),
            Self::Text(text) => json!(text),
        }
    }
}

impl super::entry::Entry {
    fn value(&self, name: &str) -> Option<&Value> {
        self.facts.iter().find(|fact| fact.name() == name).map(|fact| &fact.value)
    }

    /// Adds a detail.
    pub fn add(&mut self, name: &str, value: Value) {
        self.facts.push(Fact::new(name, value));
    }

    /// The same with a text as a detail.
    pub fn with(mut self, name: &str, text: &str) -> Self {
        self.add(name, Value::Text(text.to_owned()));
        self
    }

    /// A detail that is a number.
    pub fn number(&self, name: &str) -> Option<f64> {
        match self.value(name)? {
            Value::Count(count) => Some(*count as f64),
            Value::Signed(signed) => Some(*signed as f64),
            Value::Number(number) => Some(f64::from(*number)),
            Value::Double(number) => Some(*number),
            Value::Flag(_) | Value::Text(_) => None,
        }
    }

    /// A detail that is a whole number from 0 up.
    pub fn count(&self, name: &str) -> Option<u64> {
        match self.value(name)? {
            Value::Count(count) => Some(*count),
            _ => None,
        }
    }

    /// A detail that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.value(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A detail that is yes or no; no if it is missing.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.value(name), Some(Value::Flag(true)))
    }

    /// Number of the person whom it is about.
    pub fn person(&self) -> Option<u32> {
        self.count("person").and_then(|person| u32::try_from(person).ok())
    }

    /// Whether it is about this person: as a detail, in a frame or by a change.
    pub fn is_about(&self, person: u32) -> bool {
        let changed = |change: &super::entry::Change| matches!(change, super::entry::Change::Person { id, .. } if *id == person);
        self.person() == Some(person) || self.changes.iter().any(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_as_numbers_and_unknown_ones_as_texts() {
        for name in NAMES.iter().chain(&["never seen"]) {
            assert_eq!(Fact::new(name, Value::Flag(true)).name(), *name);
        }
        let mut sorted = NAMES.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), NAMES.len());
    }

    #[test]
    fn numbers_keep_every_bit() {
        for number in [0.1f32, -1.0, 0.412_345_6, f32::MIN_POSITIVE] {
            let fact = Fact::of_json("similarity", &json!(number)).expect("a number");
            assert_eq!(fact.value, Value::Number(number));
        }
        assert_eq!(Fact::of_json("rate", &json!(0.1f64)).expect("one").value, Value::Double(0.1));
        assert_eq!(Fact::of_json("by_s", &json!(-5)).expect("one").value, Value::Signed(-5));
        assert_eq!(Fact::of_json("name", &json!(null)), None);
    }
}
