//! Tables and keys that a text has twice: what a TOML parser refuses without saying where
//! the first one is.

use super::fault::{Places, Position};
use toml::de::{DeTable, Error};

/// The fault in words, with the line of the first table or key and the cure; `None` if the
/// error is another one.
pub(super) fn reason(text: &str, error: &Error) -> Option<String> {
    if !error.message().contains("duplicate key") {
        return None;
    }
    let span = error.span()?;
    let line = text.get(..span.start)?.rfind('\n').map_or(0, |at| at + 1);
    let (before, rest) = text.split_at_checked(line)?;
    let whole = rest.lines().next()?.trim();
    let header = header(whole);
    // The table in which a key stands: the last header before it.
    let table = match header {
        Some(_) => None,
        None => before.lines().rev().find_map(|line| self::header(line.trim())),
    };
    let alone = match (header, table) {
        (Some(header), _) => format!("[{header}]"),
        (None, Some(table)) => format!("[{table}]\n{whole}"),
        (None, None) => whole.to_owned(),
    };
    // A value may go on in further lines, so only the key is taken.
    let key = last_key(&alone).or_else(|| {
        let name = whole.split_once('=')?.0.trim();
        last_key(&format!("{}{name} = 1", table.map_or_else(String::new, |t| format!("[{t}]\n"))))
    })?;
    let parsed = DeTable::parse(before).ok();
    let places = parsed.map(|table| Places::of(table.get_ref()));
    let first = places.as_ref().and_then(|places| places.named(&key)).map(|place| {
        let at = Position::of(before, place.name.start);
        format!("in line {}", at.line)
    });
    let first = first.unwrap_or_else(|| "in this table".to_owned());
    Some(match header {
        Some(_) => format!("[{key}] is already {first}; merge the two"),
        None => format!("{key} is already set {first}; remove one of the two"),
    })
}

/// The name in the line of a table, like "door" of `[door]  # the lock`.
fn header(line: &str) -> Option<&str> {
    let name = line.strip_prefix('[')?.split('#').next()?.trim_end().strip_suffix(']')?;
    (!name.starts_with('[')).then_some(name)
}

/// The innermost key of a text with one table or setting.
fn last_key(text: &str) -> Option<String> {
    let table = DeTable::parse(text).ok()?;
    Places::of(table.get_ref()).last().map(|place| place.key.clone())
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use std::path::Path;

    #[test]
    fn what_is_there_twice_is_named_with_its_first_line() {
        for (text, expected) in [
            ("[door]\nopen_for = \"3s\"\n\n[door]  # again", "4:2: [door] is already in line 1"),
            (
                "[door]\nopen_for = \"3s\"\nopen_for = \"4s\"",
                "3:1: door.open_for is already set in line 2; remove",
            ),
            (
                "[groups.\"a b\"]\n[relay]\n[groups.\"a b\"]",
                "[groups.\"a b\"] is already in line 1",
            ),
            (
                "relay.uri = \"log:\"\nrelay.uri = \"log:\"",
                "2:7: relay.uri is already set in line 1",
            ),
            (
                "[door]\nopen_hours = []\nopen_hours = [\n]",
                "door.open_hours is already set in line 2",
            ),
            ("[relay]\nuri = \"log:\"\n\"uri\" = \"log:\"", "relay.uri is already set in line 2"),
            ("relay = { uri = \"log:\", uri = \"log:\" }", "is already set in this table"),
            ("relay = {}\n[relay]", "[relay] is already in line 1"),
            ("[relay]\n[door]\n[relay.uri]\n[relay]", "[relay] is already in line 1"),
        ] {
            let message = Config::parse(Path::new("f.toml"), text).expect_err(text).to_string();
            assert!(message.starts_with("f.toml:") && message.contains(expected), "{message}");
        }
    }
}
