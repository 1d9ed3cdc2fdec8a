//! Names of people and groups: which are allowed, how they are stored, and which look alike.
//!
//! A name is stored in Unicode's normal form C, so that the same letters are the same bytes.
//! It has no characters that nobody can see, because two people whose names differ only in
//! them cannot be told apart in a list. Names that look alike are found as in Unicode
//! Technical Standard 39, "Confusable Detection", without regard to case.

mod likeness;
mod normal;
mod tables;

pub use likeness::{Likeness, look_alikes};
pub use normal::nfc;

use thiserror::Error;

/// Longest name, characters, so that it fits a screen and a log line.
pub const LONGEST: usize = 100;
/// Most combining marks in a row. Vietnamese and Hebrew need two or three; more reach into
/// the lines above and below.
const MOST_MARKS: usize = 4;
/// Joiners, which may only stand where they change how letters are shaped.
const JOINERS: [char; 2] = ['\u{200c}', '\u{200d}'];
/// Characters that change the direction of text around them.
const DIRECTION: [(u32, u32); 4] =
    [(0x61c, 0x61c), (0x200e, 0x200f), (0x202a, 0x202e), (0x2066, 0x2069)];
/// Characters without a shape: Unicode's `Default_Ignorable_Code_Point`, such as soft
/// hyphen, zero-width space, variation selectors, Hangul fillers and tags.
const IGNORED: [(u32, u32); 17] = [
    (0xad, 0xad),
    (0x34f, 0x34f),
    (0x61c, 0x61c),
    (0x115f, 0x1160),
    (0x17b4, 0x17b5),
    (0x180b, 0x180f),
    (0x200b, 0x200f),
    (0x202a, 0x202e),
    (0x2060, 0x206f),
    (0x3164, 0x3164),
    (0xfe00, 0xfe0f),
    (0xfeff, 0xfeff),
    (0xffa0, 0xffa0),
    (0xfff0, 0xfff8),
    (0x1bca0, 0x1bca3),
    (0x1d173, 0x1d17a),
    (0xe0000, 0xe0fff),
];
/// Further characters without a shape: line separators, the empty Braille cell, anchors of
/// annotations, and fillers and format controls of rare scripts.
const BLANK: [(u32, u32); 6] = [
    (0x2028, 0x2029),
    (0x2800, 0x2800),
    (0xfff9, 0xfffc),
    (0x13430, 0x13440),
    (0x16fe4, 0x16fe4),
    (0x1d159, 0x1d159),
];
/// Characters without an agreed shape: private use, non-characters and the replacement
/// character.
const SHAPELESS: [(u32, u32); 5] = [
    (0xe000, 0xf8ff),
    (0xfdd0, 0xfdef),
    (0xfffd, 0xffff),
    (0xf0000, 0xfffff),
    (0x10_0000, 0x10_ffff),
];

/// Why a name is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameFault {
    /// It has no characters but white space.
    #[error("is empty")]
    Empty,
    /// It has more than [`LONGEST`] characters.
    #[error("is too long")]
    Long,
    /// It has a control character, such as a line break.
    #[error("contains the control character U+{:04X}", u32::from(*.0))]
    Control(char),
    /// It has a character that changes the direction of the text.
    #[error("contains the invisible character U+{:04X}, which changes the direction of text", u32::from(*.0))]
    Direction(char),
    /// It has a character that nobody can see.
    #[error("contains the invisible character U+{:04X}", u32::from(*.0))]
    Invisible(char),
    /// It has a character that every system shows differently or not at all.
    #[error("contains U+{:04X}, which is no printable character", u32::from(*.0))]
    Shapeless(char),
    /// It has a combining mark without a letter, the same one twice, or too many.
    #[error(
        "contains the combining mark U+{:04X} without a letter, twice, or after {MOST_MARKS} \
         others", u32::from(*.0)
    )]
    Mark(char),
}

/// The name as it is stored: without white space around it, in normal form C.
///
/// # Errors
/// If the name is empty, longer than [`LONGEST`] characters, or has characters that cannot
/// be seen.
pub fn checked(name: &str) -> Result<String, NameFault> {
    let name = nfc(name.trim());
    match fault(&name) {
        None => Ok(name),
        Some(fault) => Err(fault),
    }
}

/// What is wrong with a name that is stored already; `None` if [`checked`] would return it
/// as it is, or in normal form C.
pub fn fault(name: &str) -> Option<NameFault> {
    if name.trim().is_empty() {
        return Some(NameFault::Empty);
    }
    if name.chars().count() > LONGEST {
        return Some(NameFault::Long);
    }
    let letters: Vec<char> = name.chars().collect();
    let mut marks: Vec<char> = Vec::new();
    for (at, &letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| letters.get(at));
        if letter.is_control() {
            return Some(NameFault::Control(letter));
        }
        if within(&DIRECTION, letter) {
            return Some(NameFault::Direction(letter));
        }
        let joins = JOINERS.contains(&letter) && shapes(before, letters.get(at + 1));
        if (within(&IGNORED, letter) && !joins) || within(&BLANK, letter) {
            return Some(NameFault::Invisible(letter));
        }
        // The last two characters of every plane are no characters.
        if within(&SHAPELESS, letter) || u32::from(letter) & 0xfffe == 0xfffe {
            return Some(NameFault::Shapeless(letter));
        }
        if tables::class(letter) == 0 {
            marks.clear();
            continue;
        }
        let alone = before.is_none_or(|before| before.is_whitespace());
        if alone || marks.contains(&letter) || marks.len() == MOST_MARKS {
            return Some(NameFault::Mark(letter));
        }
        marks.push(letter);
    }
    None
}

/// Whether a joiner between these two changes their shape: between Arabic or Syriac letters,
/// as Persian names need it, and after an Indic virama. See Unicode Standard Annex 31, 2.3.
fn shapes(before: Option<&char>, after: Option<&char>) -> bool {
    let (Some(&before), Some(&after)) = (before, after) else { return false };
    let joining = |c: char| matches!(c, '\u{620}'..='\u{8ff}') && c.is_alphabetic();
    let virama = tables::class(before) == tables::VIRAMA;
    (joining(before) && joining(after)) || (virama && after.is_alphabetic())
}

/// Whether a character is in one of the ranges, both ends included.
fn within(ranges: &[(u32, u32)], letter: char) -> bool {
    let code = u32::from(letter);
    ranges.iter().any(|(first, last)| (*first..=*last).contains(&code))
}

#[cfg(test)]
mod tests;
