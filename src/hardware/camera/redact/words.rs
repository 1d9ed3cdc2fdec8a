//! Splits a shell command into words, without carrying anything out.

/// A word of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word<'t> {
    /// What separates two programs. It stands alone: inside a word it may belong to a value
    /// that somebody forgot to quote.
    Operator(&'t str),
    /// Any other word.
    Text {
        /// The word without its quotes.
        meant: String,
        /// Whether the shell would not change it any further.
        plain: bool,
    },
}

/// Operators after which another program begins.
const OPERATORS: [&str; 8] = ["|", "|&", "||", "&&", ";", "&", "{", "!"];

/// The words of a command. Text in parentheses or backquotes is part of a word. The lines of
/// a here-document are one word with its operator.
pub(super) fn words(text: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        let line_end = rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len());
        if rest[..line_end].contains('\n') && !words.is_empty() {
            words.push(Word::Operator(";"));
        }
        rest = &rest[line_end..];
        if rest.is_empty() {
            return words;
        }
        let (end, meant, plain) = word(rest);
        let raw = &rest[..end];
        // Between programs of a GStreamer pipeline, "!" is no operator.
        let first = words.is_empty();
        match OPERATORS.iter().find(|operator| **operator == raw) {
            Some(&"!") if !first => words.push(Word::Text { meant, plain }),
            Some(operator) => words.push(Word::Operator(operator)),
            None if raw.contains("<<") => {
                words.push(Word::Text { meant: rest.to_owned(), plain: false });
                return words;
            }
            None => match meant.strip_suffix(';').filter(|_| raw.ends_with(';')) {
                Some(meant) => {
                    words.push(Word::Text { meant: meant.to_owned(), plain });
                    words.push(Word::Operator(";"));
                }
                None => words.push(Word::Text { meant, plain }),
            },
        }
        rest = &rest[end..];
    }
}

/// The first word: its length in bytes, the word without quotes, and whether it is plain.
fn word(text: &str) -> (usize, String, bool) {
    let (mut meant, mut plain) = (String::new(), true);
    let (mut quote, mut depth, mut back) = (None, 0u32, false);
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match (quote, letter) {
            (None, '\\') | (Some('"'), '\\') => {
                // A line that goes on is no end of the command.
                match letters.next() {
                    Some((_, '\n')) => meant.push(' '),
                    Some((_, next)) => meant.push(next),
                    None => {}
                }
                plain = false;
            }
            (Some(open), letter) if open == letter => quote = None,
            (Some(_), letter) => {
                plain &= letter != '$' && letter != '`';
                meant.push(letter);
            }
            (None, '\'' | '"') => quote = Some(letter),
            (None, letter) if letter.is_whitespace() && depth == 0 && !back => {
                return (at, meant, plain);
            }
            (None, letter) => {
                match letter {
                    '(' | '{' => depth += u32::from(letter == '(' || meant.ends_with('$')),
                    ')' | '}' => depth = depth.saturating_sub(1),
                    '`' => back = !back,
                    _ => {}
                }
                plain &= !"$`()*?[~#".contains(letter);
                meant.push(letter);
            }
        }
    }
    // A quote that does not end: nobody knows what it was to be.
    (text.len(), meant, plain && quote.is_none())
}
