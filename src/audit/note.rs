//! Records in which the log speaks about itself.

use serde::{Deserialize, Serialize};

/// What the log says about itself. Stored with postcard; variants are only ever appended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Note {
    /// The log begins here.
    Begun,
    /// Records that could not be written: the queue was full, or the disk refused them.
    Lost {
        /// How many.
        records: u64,
    },
    /// The end of the log was no whole record, as after a power cut, and was cut off.
    Torn {
        /// Bytes that were cut off.
        bytes: u64,
        /// Name of the file in the log's folder that keeps them; `None` if it could not be
        /// written.
        kept: Option<String>,
    },
    /// Records that a signed head proves are gone. Numbers continue after them.
    Cut {
        /// Number of the first record that is gone.
        from: u64,
        /// Number of the last record that is gone.
        through: u64,
    },
    /// A record is not the one that a signed head proves.
    Differs {
        /// Its number.
        number: u64,
    },
    /// The oldest records were removed, as `[audit]` in the configuration wants it.
    Expired {
        /// Number of the last record that was removed.
        through: u64,
        /// Whether they were too old; else the log was too large.
        by_age: bool,
    },
    /// The service started.
    Started {
        /// Version of the program.
        version: String,
        /// Process id.
        process: u32,
        /// Whether this is the first start after a boot.
        booted: bool,
    },
    /// The service ended.
    Stopped,
    /// The wall clock was set.
    ClockSet {
        /// By how much it moved, microseconds; negative if backwards.
        by: i64,
    },
    /// Whether the wall clock is trusted has changed; the stamp says how it is now.
    ClockTrust,
}

/// Longest note, bytes.
const LARGEST: usize = 1024;

impl Note {
    /// As the body of a record.
    pub fn encode(&self) -> Vec<u8> {
        // Fails for no value of this type.
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// From the body of a record; `None` if it is no note that this version knows.
    pub fn decode(body: &[u8]) -> Option<Self> {
        (body.len() <= LARGEST).then(|| postcard::from_bytes(body).ok()).flatten()
    }
}
