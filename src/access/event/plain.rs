//! Text from outside, made safe for a line of the log: no character in it can begin a
//! line, move the cursor of a terminal, or change the order of the text around it.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a character only shows itself. The others begin lines, control terminals,
/// reorder text or cannot be seen. The two joiners count as plain, because names in some
/// scripts need them.
pub fn is_plain(c: char) -> bool {
    !(c.is_control()
        || matches!(
            c,
            // Soft hyphen; marks, embeddings, overrides and isolates of bidirectional text.
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
            // Line and paragraph separators, and further embeddings and overrides.
            | '\u{2028}'..='\u{202e}'
            // Invisible operators, isolates and deprecated format characters.
            | '\u{2060}'..='\u{206f}'
            // Byte order mark, interlinear annotations, tags.
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        ))
}

/// The text with every character that is not plain written as `\u{1b}`.
pub fn plain(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_plain(c) {
            escaped.push(c);
        } else {
            escaped.extend(c.escape_unicode());
        }
    }
    Cow::Owned(escaped)
}

/// A JSON document with every character that is not plain written as `\u001b`, which
/// means the same: such characters occur only in strings. `json` has no line breaks outside
/// of strings.
pub fn plain_json(json: &str) -> Cow<'_, str> {
    if json.chars().all(is_plain) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_plain(c) {
            escaped.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_terminals_and_directions_are_out_of_reach() {
        assert_eq!(plain("a\n\u{1b}[2Jb\u{7f}\u{9b}"), r"a\u{a}\u{1b}[2Jb\u{7f}\u{9b}");
        assert_eq!(plain("\u{202e}boB\u{2066}\u{feff}"), r"\u{202e}boB\u{2066}\u{feff}");
        assert_eq!(plain("a\r\u{85}\u{2028}"), r"a\u{d}\u{85}\u{2028}");
        for name in ["Zoë Ångström", "李小龙", "نسیم\u{200c}ها", "a\\n", ""] {
            assert!(matches!(plain(name), Cow::Borrowed(same) if same == name));
        }
    }

    proptest! {
        #[test]
        fn the_log_stays_one_line_and_json_keeps_its_meaning(text in any::<String>()) {
            prop_assert!(plain(&text).chars().all(is_plain));
            let json = serde_json::to_string(&text).expect("JSON");
            let shown = plain_json(&json);
            prop_assert!(shown.chars().all(is_plain));
            prop_assert_eq!(serde_json::from_str::<String>(&shown).expect("JSON"), text);
        }
    }
}
