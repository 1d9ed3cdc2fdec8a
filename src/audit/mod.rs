//! The audit log: numbered records, each chained to the one before it by a hash, and signed
//! heads that fix the chain at a time. Pure: bytes in, records and verdicts out. The files
//! are in `storage/audit`; docs/audit.md describes the format for auditors.
//!
//! ```text
//! record 1 -> record 2 -> ... -> head n -> record n+1 -> ...
//! each record: number, times, kind, body, SHA-256 of (hash of the record before + itself)
//! a head: a record whose body is a signature of the chain before it
//! ```
//!
//! The chain knows nothing of the content of entries: their body is bytes. `entry.rs` is
//! that content: an event of the door or a change, as it is stored, shown and explained.

mod chain;
pub mod entry;
mod explain;
mod field;
mod filter;
mod frame;
mod head;
mod logged;
mod note;
mod of_event;
pub mod replay;
mod show;
mod verify;

pub use chain::{Hash, Link, LogId};
pub use explain::{Explained, explain};
pub use field::{Fact, Value};
pub use filter::Filter;
pub use frame::{
    Frame, FrameFault, LARGEST_BODY, LARGEST_SEGMENT, SEGMENT_HEADER, SegmentHeader, encode, next,
    next_frame, parse_frame, stamp_of,
};
pub use head::{HEAD_BYTES, Head};
pub use logged::{Logged, Names};
pub use note::Note;
pub use of_event::{attempt, follows_from_order, of_caller, of_event};
pub use show::{CSV_HEADER, csv_line, hex, json_line, line, summary};
pub use verify::{Fault, Gap, Proven, Verdict, Verifier, Wrong};

/// Whether the wall clock of a record was trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockTrust {
    /// It was synchronized, or the installer vouches for it.
    Trusted,
    /// It may be wrong by any amount, such as after a power cut on a board without a battery.
    Unsure,
}

/// When a record was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Number of the boot, as Linux draws it; zeros if it cannot be read.
    pub boot: [u8; 16],
    /// Microseconds since that boot, time in suspend included.
    pub monotonic: u64,
    /// Wall clock, Unix microseconds.
    pub wall: i64,
    /// Whether the wall clock was trusted.
    pub clock: ClockTrust,
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An entry about the door; the log does not know what its body means.
    Entry,
    /// The log says something about itself; see [`Note`].
    Note,
    /// A signature over the chain before it; see [`Head`].
    Head,
}

/// A record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number. The first is 1; no number is given twice.
    pub number: u64,
    /// When it was made.
    pub stamp: Stamp,
    /// What it is.
    pub kind: Kind,
    /// The content: at most [`LARGEST_BODY`] bytes.
    pub body: Vec<u8>,
}

impl Record {
    /// What the log says about itself in this record. `None` for other kinds of records,
    /// and for a note of a newer version.
    pub fn note(&self) -> Option<Note> {
        (self.kind == Kind::Note).then(|| Note::decode(&self.body)).flatten()
    }
}

#[cfg(test)]
mod tests;
