//! EDGE: the text of a configuration file.

use super::{ConfigError, Position};
use crate::files;
use std::io::Read;
use std::path::Path;

/// Longer files are rejected; a configuration with a hundred groups takes about 10 KiB.
const MAX_BYTES: u64 = 1 << 20;

/// The text of a file of at most [`MAX_BYTES`].
pub(super) fn text_of(path: &Path) -> Result<String, ConfigError> {
    let mut bytes = Vec::new();
    files::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|reason| ConfigError::Read { path: path.to_owned(), reason })?;
    let invalid = |at, reason| Err(ConfigError::Invalid { path: path.to_owned(), at, reason });
    if bytes.len() as u64 > MAX_BYTES {
        return invalid(None, format!("longer than {MAX_BYTES} bytes; is it a configuration?"));
    }
    if let Some(encoding) = wide(&bytes) {
        let reason = format!("saved as Unicode by Notepad ({encoding}); save the file as UTF-8");
        return invalid(Some(Position { line: 1, column: 1 }), reason);
    }
    String::from_utf8(bytes).or_else(|error| {
        let valid = error.utf8_error().valid_up_to();
        let bytes = error.as_bytes();
        let before = String::from_utf8_lossy(&bytes[..valid]);
        let at = Position::of(&before, before.len());
        let byte = bytes.get(valid).copied().unwrap_or_default();
        let reason =
            format!("line {} is not UTF-8 (byte 0x{byte:02X}); save the file as UTF-8", at.line);
        invalid(Some(at), reason)
    })
}

/// The encoding of a text whose characters have two or four bytes each, by its byte order
/// mark, or by zeros in every second place as ASCII characters have them.
fn wide(bytes: &[u8]) -> Option<&'static str> {
    let zero = |at: usize| bytes.get(at) == Some(&0);
    match bytes {
        [0xFF, 0xFE, 0, 0, ..] | [0, 0, 0xFE, 0xFF, ..] => Some("UTF-32"),
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => Some("UTF-16"),
        _ if zero(0) != zero(1) && zero(2) != zero(3) && zero(0) == zero(2) => Some("UTF-16"),
        _ if zero(1) && zero(2) && (zero(0) != zero(3)) => Some("UTF-32"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn message(bytes: &[u8]) -> String {
        let folder = tempfile::TempDir::new().expect("a folder");
        let path = folder.path().join("f.toml");
        std::fs::write(&path, bytes).expect("written");
        let message = Config::read(&path).expect_err("no configuration").to_string();
        message.strip_prefix(&format!("{}:", path.display())).expect(&message).to_owned()
    }

    #[test]
    fn another_encoding_is_named_with_line_and_cure() {
        let text = "[door]\nopen_for = \"4s\" # caf\u{e9}\n";
        let latin: Vec<u8> = text.chars().map(|letter| letter as u8).collect();
        let told = message(&latin);
        assert!(told.starts_with("2:22: line 2 is not UTF-8 (byte 0xE9); save the file"), "{told}");
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let four: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
        for (bytes, expected) in [
            (little.clone(), "UTF-16"),
            (big.clone(), "UTF-16"),
            ([&[0xFF, 0xFE], &little[..]].concat(), "UTF-16"),
            ([&[0xFE, 0xFF], &big[..]].concat(), "UTF-16"),
            ([&[0xFF, 0xFE, 0, 0], &four[..]].concat(), "UTF-32"),
            (four, "UTF-32"),
        ] {
            let told = message(&bytes);
            let expected = format!("1:1: saved as Unicode by Notepad ({expected}); save");
            assert!(told.starts_with(&expected), "{told}");
        }
        // Cut within a character, and after valid characters of several bytes.
        let cut = ["# \u{e9}\n# ".as_bytes(), &[0xC3]].concat();
        assert!(message(&cut).starts_with("2:3: line 2 is not UTF-8"));
    }

    #[test]
    fn utf_8_with_a_byte_order_mark_is_read() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let path = folder.path().join("f.toml");
        std::fs::write(&path, "\u{feff}[door]\r\nopen_for = \"4s\" # \u{e9}\r\n").expect("written");
        assert_eq!(Config::read(&path).expect("read").door.open_for.as_secs(), 4);
    }
}
