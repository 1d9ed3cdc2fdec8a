//! Unicode's normal forms: Unicode Standard Annex 15, and section 3.12 of the standard for
//! Hangul syllables.

use super::tables::{class, composition, decomposition};

// Hangul syllables are computed from their leading consonant, vowel and trailing consonant.
const SYLLABLES: u32 = 0xac00;
const LEADING: u32 = 0x1100;
const VOWELS: u32 = 0x1161;
/// One before the first trailing consonant: the number 0 stands for none.
const TRAILING: u32 = 0x11a7;
const NUMBER_OF_LEADING: u32 = 19;
const NUMBER_OF_VOWELS: u32 = 21;
const NUMBER_OF_TRAILING: u32 = 28;

/// A text in normal form C, in which letters and their marks are composed.
pub fn nfc(text: &str) -> String {
    if text.is_ascii() {
        return text.to_owned();
    }
    let mut composed: Vec<char> = Vec::new();
    // The letter that takes marks, and the class of the last mark that it did not take.
    let (mut letter, mut left): (Option<usize>, Option<u8>) = (None, None);
    for (class, next) in decomposed(text) {
        let blocked = left.is_some_and(|left| left >= class);
        let taking = letter.and_then(|at| composed.get_mut(at)).filter(|_| !blocked);
        if let Some(taking) = taking
            && let Some(both) = syllable(*taking, next).or_else(|| composition(*taking, next))
        {
            *taking = both;
            continue;
        }
        if class == 0 {
            (letter, left) = (Some(composed.len()), None);
        } else {
            left = Some(class);
        }
        composed.push(next);
    }
    composed.into_iter().collect()
}

/// A text in normal form D, in which letters and their marks are apart.
pub(super) fn nfd(text: &str) -> String {
    decomposed(text).into_iter().map(|(_, letter)| letter).collect()
}

/// The characters of normal form D with their combining classes.
fn decomposed(text: &str) -> Vec<(u8, char)> {
    let mut letters: Vec<(u8, char)> = Vec::with_capacity(text.len());
    for letter in text.chars() {
        if let Some(parts) = parts(letter) {
            letters.extend(parts.into_iter().flatten().map(|part| (0, part)));
        } else if let Some(parts) = decomposition(letter) {
            letters.extend(parts.chars().map(|part| (class(part), part)));
        } else {
            letters.push((class(letter), letter));
        }
    }
    // Marks between two letters are in the order of their classes.
    for marks in letters.chunk_by_mut(|(one, _), (next, _)| (*one == 0) == (*next == 0)) {
        marks.sort_by_key(|(class, _)| *class);
    }
    letters
}

/// The parts of a Hangul syllable; `None` for other characters.
fn parts(letter: char) -> Option<[Option<char>; 3]> {
    let at = u32::from(letter).checked_sub(SYLLABLES)?;
    let (leading, rest) = (
        at / (NUMBER_OF_VOWELS * NUMBER_OF_TRAILING),
        at % (NUMBER_OF_VOWELS * NUMBER_OF_TRAILING),
    );
    if leading >= NUMBER_OF_LEADING {
        return None;
    }
    let trailing = rest % NUMBER_OF_TRAILING;
    Some([
        char::from_u32(LEADING + leading),
        char::from_u32(VOWELS + rest / NUMBER_OF_TRAILING),
        char::from_u32(TRAILING + trailing).filter(|_| trailing > 0),
    ])
}

/// The Hangul syllable of two parts; `None` for other characters.
fn syllable(first: char, second: char) -> Option<char> {
    let (first, second) = (u32::from(first), u32::from(second));
    let below = |code: u32, start: u32, number: u32| {
        code.checked_sub(start).filter(|index| *index < number)
    };
    if let Some(leading) = below(first, LEADING, NUMBER_OF_LEADING) {
        let vowel = below(second, VOWELS, NUMBER_OF_VOWELS)?;
        let at = (leading * NUMBER_OF_VOWELS + vowel) * NUMBER_OF_TRAILING;
        return char::from_u32(SYLLABLES + at);
    }
    let all = NUMBER_OF_LEADING * NUMBER_OF_VOWELS * NUMBER_OF_TRAILING;
    let open = below(first, SYLLABLES, all)? % NUMBER_OF_TRAILING == 0;
    let trailing = below(second, TRAILING, NUMBER_OF_TRAILING).filter(|trailing| *trailing > 0)?;
    char::from_u32(first + trailing).filter(|_| open)
}
