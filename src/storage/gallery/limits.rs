//! Bounds of a gallery, and checks of what comes from files that somebody may have crafted.

use super::tables::{NEGATIVES, PersonRecord};
use super::{StoreError, checked_name};
use crate::access::gallery::PersonId;
use std::collections::BTreeMap;

/// Most templates of one person. The threshold rises with the number of all templates, so
/// one person must not raise it for everybody.
pub const MOST_TEMPLATES: usize = 64;

/// Most negatives: each is compared with every probe, and costs known people some of their
/// views.
pub const MOST_NEGATIVES: usize = 256;

/// Most people of a gallery.
pub const MOST_PEOPLE: usize = 10_000;

/// Most characters that are shown of a text from a file.
const LONGEST_SHOWN: usize = 100;

/// Largest [`crate::access::gallery::Traits::stricter`]: no similarity exceeds it.
const STRICTEST: f32 = 2.0;

/// The person as it may be shown and logged: without control characters, and not longer
/// than a name may be. Names that commands wrote stay as they are.
pub(super) fn shown(mut record: PersonRecord) -> PersonRecord {
    record.name = printable(&record.name);
    record.traits.group = printable(&record.traits.group);
    record
}

/// Escapes control characters and cuts what is longer than a name.
fn printable(text: &str) -> String {
    let is_fine = |c: char| !c.is_control();
    if text.chars().all(is_fine) && text.chars().count() <= LONGEST_SHOWN {
        return text.to_owned();
    }
    let mut shown = String::new();
    for c in text.chars().take(LONGEST_SHOWN) {
        match is_fine(c) {
            true => shown.push(c),
            false => shown.extend(c.escape_default()),
        }
    }
    shown
}

/// What is wrong with a person of a file, apart from templates and pictures.
pub(super) fn person_fault(record: &PersonRecord) -> Option<String> {
    let name = |what: &str, name: &str| match checked_name(name) {
        Err(StoreError::Name { fault, .. }) => Some(format!("its {what} {fault}")),
        _ => None,
    };
    let stricter = record.traits.stricter;
    name("name", &record.name).or_else(|| name("group", &record.traits.group)).or_else(|| {
        let valid = (0.0..=STRICTEST).contains(&stricter);
        (!valid).then(|| format!("the addition to its threshold is {stricter}"))
    })
}

/// Most templates of a person, or most negatives.
pub(super) fn most_of(person: PersonId) -> usize {
    if person == NEGATIVES { MOST_NEGATIVES } else { MOST_TEMPLATES }
}

/// Lengths of templates by the identity of their model: the first one decides.
#[derive(Default)]
pub(super) struct Lengths(BTreeMap<String, usize>);

impl Lengths {
    /// The length of earlier templates of this model.
    pub(super) fn of(&self, model: &str) -> Option<usize> {
        self.0.get(model).copied()
    }

    pub(super) fn add(&mut self, model: &str, length: usize) {
        self.0.entry(model.to_owned()).or_insert(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::gallery::Traits;

    #[test]
    fn what_comes_from_a_file_is_shown_without_control_characters() {
        assert_eq!(printable("Łucja 王"), "Łucja 王");
        assert_eq!(printable("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
        assert_eq!(printable(&"x".repeat(5000)).len(), LONGEST_SHOWN);
    }

    #[test]
    fn impossible_people_are_named_with_their_fault() {
        let person = |name: &str, group: &str, stricter: f32| PersonRecord {
            name: name.to_owned(),
            enrolled_at: 0,
            traits: Traits { group: group.to_owned(), stricter, ..Traits::default() },
        };
        assert_eq!(person_fault(&person("Ada", "staff", 0.07)), None);
        for (record, expected) in [
            (person("", "staff", 0.0), "its name is empty"),
            (person("Ada", "x\n\u{1b}", 0.0), "its group contains the control character U+000A"),
            (person("Ada", &"g".repeat(101), 0.0), "its group is too long"),
            (person("Ada", "staff", -1.0), "the addition to its threshold is -1"),
            (person("Ada", "staff", f32::NAN), "the addition to its threshold is NaN"),
            (person("Ada", "staff", f32::INFINITY), "the addition to its threshold is inf"),
        ] {
            assert_eq!(person_fault(&record).as_deref(), Some(expected));
        }
    }
}
