//! The parts of the Unicode Character Database that names need: canonical combining
//! classes, decompositions and compositions, and the prototypes of confusable characters.
//!
//! `unicode.bin` holds them in sorted rows of fixed size, which a binary search reads where
//! they lie. Crates with these tables cost ten times as much room in the program. A test
//! compares the file with such crates, and writes it again on request.

use std::str::from_utf8;

static FILE: &[u8] = include_bytes!("unicode.bin");

/// Canonical combining class of signs that take the vowel from an Indic consonant.
pub(super) const VIRAMA: u8 = 9;

/// A code point and an offset into the texts.
type Text = [u8; 5];

struct Tables {
    /// First code point of a range, its length, and the combining class.
    classes: &'static [[u8; 5]],
    /// Characters and their full canonical decompositions.
    decompositions: &'static [Text],
    /// Two characters and the one that they compose to.
    compositions: &'static [[u8; 9]],
    /// Characters and their prototypes.
    prototypes: &'static [Text],
    /// Texts, each after a byte with its length.
    texts: &'static [u8],
}

/// The file: four numbers of rows in two bytes each, the rows, the texts. All numbers are
/// big-endian, so that rows are in the order of their bytes.
fn tables() -> Tables {
    let (counts, rest) = FILE.split_at_checked(8).unwrap_or_default();
    let count = |at: usize| match counts.get(2 * at..2 * at + 2) {
        Some(&[high, low]) => usize::from(u16::from_be_bytes([high, low])),
        _ => 0,
    };
    let (classes, rest) = rest.split_at_checked(5 * count(0)).unwrap_or_default();
    let (decompositions, rest) = rest.split_at_checked(5 * count(1)).unwrap_or_default();
    let (compositions, rest) = rest.split_at_checked(9 * count(2)).unwrap_or_default();
    let (prototypes, texts) = rest.split_at_checked(5 * count(3)).unwrap_or_default();
    Tables {
        classes: classes.as_chunks().0,
        decompositions: decompositions.as_chunks().0,
        compositions: compositions.as_chunks().0,
        prototypes: prototypes.as_chunks().0,
        texts,
    }
}

fn code(letter: char) -> [u8; 3] {
    let [_, a, b, c] = u32::from(letter).to_be_bytes();
    [a, b, c]
}

fn number(bytes: [u8; 3]) -> u32 {
    u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]])
}

fn text(rows: &'static [Text], texts: &'static [u8], letter: char) -> Option<&'static str> {
    let key = code(letter);
    let at = rows.binary_search_by(|[a, b, c, ..]| [*a, *b, *c].cmp(&key)).ok()?;
    let [.., high, low] = rows.get(at)?;
    let (length, text) =
        texts.get(usize::from(u16::from_be_bytes([*high, *low]))..)?.split_first()?;
    from_utf8(text.get(..usize::from(*length))?).ok()
}

/// Canonical combining class: 0 for letters, above 0 for marks.
pub(super) fn class(letter: char) -> u8 {
    let (rows, key) = (tables().classes, u32::from(letter));
    let after = rows.partition_point(|[a, b, c, ..]| number([*a, *b, *c]) <= key);
    match after.checked_sub(1).and_then(|at| rows.get(at)) {
        Some(&[a, b, c, length, class]) if key - number([a, b, c]) < u32::from(length) => class,
        _ => 0,
    }
}

/// Full canonical decomposition of a character, except of Hangul syllables; `None` if it is
/// the character itself.
pub(super) fn decomposition(letter: char) -> Option<&'static str> {
    let tables = tables();
    text(tables.decompositions, tables.texts, letter)
}

/// The character that two compose to, except to Hangul syllables.
pub(super) fn composition(first: char, second: char) -> Option<char> {
    let rows = tables().compositions;
    let ([a, b, c], [d, e, f]) = (code(first), code(second));
    let key = [a, b, c, d, e, f];
    let at = rows.binary_search_by(|row| row[..6].cmp(&key[..])).ok()?;
    let [.., a, b, c] = rows.get(at)?;
    char::from_u32(number([*a, *b, *c]))
}

/// The text that a decomposed character is shown as by its prototype; `None` if it is the
/// character itself.
pub(super) fn prototype(letter: char) -> Option<&'static str> {
    let tables = tables();
    text(tables.prototypes, tables.texts, letter)
}

#[cfg(test)]
pub(super) fn versions_hold() -> bool {
    let tables = tables();
    !tables.classes.is_empty()
        && !tables.decompositions.is_empty()
        && !tables.compositions.is_empty()
        && !tables.prototypes.is_empty()
}
