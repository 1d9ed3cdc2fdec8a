//! Names that people take for each other: Unicode Technical Standard 39, section 4.

use super::normal::nfd;
use super::tables::prototype;
use super::{IGNORED, within};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// How a name looks. Two names look alike if they have the same letters but for case, marks
/// written apart, invisible characters and amounts of white space, or letters of the same
/// shape, such as Latin and Cyrillic "a".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Likeness {
    // Capital I looks like small l, and small i like no l: each of the two orders of mapping
    // and folding finds pairs that the other does not.
    folded_first: String,
    mapped_first: String,
}

impl Likeness {
    /// How this name looks.
    pub fn of(name: &str) -> Self {
        Self {
            folded_first: spaced(&skeleton(&folded(name))),
            mapped_first: spaced(&skeleton(&folded(&skeleton(name)))),
        }
    }

    /// Whether two names look alike.
    pub fn is_like(&self, other: &Self) -> bool {
        self.folded_first == other.folded_first || self.mapped_first == other.mapped_first
    }
}

/// Pairs of names that look alike: each name with the first one before it that it looks
/// like. The same name twice is a pair, too.
pub fn look_alikes<'n>(names: impl IntoIterator<Item = &'n str>) -> Vec<(&'n str, &'n str)> {
    let (mut folded, mut mapped) = (HashMap::new(), HashMap::new());
    let mut pairs = Vec::new();
    for name in names {
        let Likeness { folded_first, mapped_first } = Likeness::of(name);
        let earlier = [folded.entry(folded_first), mapped.entry(mapped_first)];
        let mut first = None;
        for entry in earlier {
            match entry {
                Entry::Occupied(entry) => first = first.or(Some(*entry.get())),
                Entry::Vacant(entry) => drop(entry.insert(name)),
            }
        }
        pairs.extend(first.map(|first| (first, name)));
    }
    pairs
}

/// The skeleton of a text. Equal skeletons look alike. An "i" or "j" looks the same with a
/// dot above of its own.
pub(super) fn skeleton(text: &str) -> String {
    let mut mapped = String::with_capacity(text.len());
    for letter in nfd(text).chars().filter(|letter| !within(&IGNORED, *letter)) {
        match prototype(letter) {
            Some(prototype) => mapped.push_str(prototype),
            None => mapped.push(letter),
        }
    }
    nfd(&mapped)
}

/// A text without the difference of upper and lower case. Through upper case, so that "ß"
/// and "SS" become the same, too.
fn folded(text: &str) -> String {
    let upper = text.chars().flat_map(char::to_uppercase);
    upper.flat_map(char::to_lowercase).collect()
}

/// A text with single spaces, and without the second dot on "i" and "j".
fn spaced(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        for letter in word.chars() {
            if letter != '\u{307}' || !out.ends_with(['i', 'j']) {
                out.push(letter);
            }
        }
    }
    out
}
