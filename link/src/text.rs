//! Text from outside, made harmless for logs and messages.

/// The text with control characters, invisible characters and line ends as escapes, and at
/// most `most` characters of it.
pub fn plain(text: &str, most: usize) -> String {
    let mut plain = String::new();
    for (at, c) in text.chars().enumerate() {
        if at == most {
            plain.push_str("...");
            break;
        }
        if c.is_control() || invisible(c) {
            plain.extend(c.escape_unicode());
        } else {
            plain.push(c);
        }
    }
    plain
}

/// Characters that hide or reorder others: those of format, line and paragraph separators,
/// variation selectors, tags and private use.
fn invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{e000}'..='\u{f8ff}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{10ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_line_can_be_forged_by_text_from_outside() {
        assert_eq!(plain("a\nb\u{1b}[2Jc\u{202e}d", 40), "a\\u{a}b\\u{1b}[2Jc\\u{202e}d");
        assert_eq!(plain("Zoë", 3), "Zoë");
        assert_eq!(plain("abcd", 3), "abc...");
    }

    proptest! {
        #[test]
        fn what_is_plain_is_short_and_on_one_line(text in any::<String>(), most in 0usize..50) {
            let plain = plain(&text, most);
            prop_assert!(!plain.chars().any(char::is_control));
            prop_assert!(plain.chars().count() <= most * 10 + 3);
        }
    }
}
