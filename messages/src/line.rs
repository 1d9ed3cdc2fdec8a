//! Messages as lines, and lines out of a stream that may bring anything.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Longest line, bytes, with its end: a record in base64, its topic, and what stands around
/// them.
pub const LONGEST_LINE: usize = crate::LARGEST_RECORD.div_ceil(3) * 4 + 4096;

/// A line is no message.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LineError {
    /// Longer than [`LONGEST_LINE`]. The rest of the stream cannot be read.
    #[error("a line has more than {LONGEST_LINE} bytes")]
    TooLong,
    /// No JSON object of a known kind.
    #[error("no message: {0}")]
    Form(String),
}

/// A message as one line with its end.
pub fn write_line(message: &impl Serialize) -> Vec<u8> {
    // Cannot fail: keys are text and all values can be written.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Lines out of a stream.
#[derive(Debug, Default)]
pub struct Lines {
    waiting: Vec<u8>,
    /// Bytes at the beginning of `waiting` that hold no end of a line.
    searched: usize,
}

impl Lines {
    /// Adds bytes of the stream. Take the messages out before more is added, so that no more
    /// than one line and these bytes wait.
    ///
    /// # Errors
    /// If a line becomes longer than [`LONGEST_LINE`].
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), LineError> {
        self.waiting.extend_from_slice(bytes);
        let open = self.waiting.iter().rev().position(|byte| *byte == b'\n');
        let longest = open.unwrap_or(self.waiting.len());
        if longest > LONGEST_LINE { Err(LineError::TooLong) } else { Ok(()) }
    }

    /// The next message. `None` if no whole line waits. `Some(Ok(None))` is a message of a
    /// kind that this version does not know.
    pub fn next_message<T: DeserializeOwned>(&mut self) -> Option<Result<Option<T>, LineError>> {
        let end = self.waiting[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(end) = end.map(|end| self.searched + end) else {
            self.searched = self.waiting.len();
            return None;
        };
        let line: Vec<u8> = self.waiting.drain(..=end).collect();
        self.searched = 0;
        if line.len() > LONGEST_LINE {
            return Some(Err(LineError::TooLong));
        }
        Some(read(&line))
    }
}

fn read<T: DeserializeOwned>(line: &[u8]) -> Result<Option<T>, LineError> {
    match serde_json::from_slice(line) {
        Ok(message) => Ok(Some(message)),
        Err(error) => {
            let form = || LineError::Form(error.to_string().chars().take(160).collect());
            // Of an unknown kind, but of the form of a message.
            let object: serde_json::Map<String, serde_json::Value> =
                serde_json::from_slice(line).map_err(|_| form())?;
            let key = object.keys().next().filter(|_| object.len() == 1).ok_or_else(form)?;
            let unknown = error.to_string().starts_with(&format!("unknown variant `{key}`"));
            if unknown { Ok(None) } else { Err(form()) }
        }
    }
}
