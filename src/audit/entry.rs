//! The content of a record of the audit log.
//!
//! The body of a record is one byte with the number of the format, then the entry as
//! postcard writes it. Postcard names variants by their place, so variants and fields are
//! only added at the end of what the format number covers; a test holds an entry of each
//! format as bytes. People are named by their number only.

use super::field::Fact;
use crate::access::attempt::Tape;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Number of the format that is written.
pub const FORMAT: u8 = 1;
/// Longest text in an entry, bytes; longer ones are cut.
pub const LONGEST_TEXT: usize = 400;
/// Most changes of one entry; more are divided among several entries.
pub const MOST_CHANGES: usize = 200;

/// One thing that happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Kind of the event, as in the field `event` of its JSON.
    pub event: String,
    /// How much it matters.
    pub severity: Severity,
    /// Who caused it.
    pub by: By,
    /// Name of the door, if it is not the only one of the board.
    pub door: Option<String>,
    /// Details, with the field names of the JSON.
    pub facts: Vec<Fact>,
    /// The frames that a decision rests on, oldest first.
    pub frames: Vec<FrameSeen>,
    /// Changes of people, settings and models.
    pub changes: Vec<Change>,
    /// Models and configuration in use at an attempt.
    pub basis: Option<Basis>,
    /// Picture of the attempt, if one is kept apart from the log.
    pub picture: Option<Picture>,
    /// The inputs of the decision, if they are kept.
    pub inputs: Option<Box<Tape>>,
}

/// How much an event matters.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Severity {
    /// The ordinary course of things.
    #[default]
    Info,
    /// Something to look at.
    Warn,
    /// Something failed.
    Error,
}

impl Severity {
    /// The word for it, as in the JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

impl From<log::Level> for Severity {
    fn from(level: log::Level) -> Self {
        match level {
            log::Level::Error => Self::Error,
            log::Level::Warn => Self::Warn,
            log::Level::Info | log::Level::Debug | log::Level::Trace => Self::Info,
        }
    }
}

/// Who caused an event, and how much of that is proven.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    /// The way by which it came.
    pub via: Via,
    /// User id, as the kernel shows it.
    pub uid: Option<u32>,
    /// User id of the login, as the kernel shows it: with sudo, the user who called it.
    pub login: Option<u32>,
    /// User id that sudo names. A claim: root can set it to anything.
    pub sudo: Option<u32>,
    /// Role that the order needs.
    pub role: Option<String>,
}

/// The way by which an order came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Via {
    /// Nobody's order: people in front of the door, its devices, or time.
    #[default]
    Door,
    /// The control socket.
    Socket,
    /// The program that links this door to others.
    Link,
    /// The command line.
    CommandLine,
    /// A file that the running service found changed.
    Files,
}

impl Via {
    /// The words for it, as in the JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Door => "door",
            Self::Socket => "socket",
            Self::Link => "link",
            Self::CommandLine => "command line",
            Self::Files => "files",
        }
    }
}

/// A frame that a decision rests on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrameSeen {
    /// Milliseconds before the decision.
    pub before: u32,
    /// Number of the person whom it shows; `None` for nobody known.
    pub person: Option<u32>,
    /// Cosine similarity to that person, or to the most similar one, -1..=1.
    pub similarity: f32,
    /// Quality of the view in percent.
    pub quality: Option<u8>,
}

/// Models and configuration in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    /// Version of the set, and the beginning of the digest of its recognizer.
    pub models: String,
    /// The beginning of the SHA-256 of the configuration.
    pub configuration: [u8; 8],
}

/// A picture of an attempt, which is kept apart from the log for a time of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    /// SHA-256 of the PNG file.
    pub sha256: [u8; 32],
    /// Its length in bytes.
    pub bytes: u32,
}

/// A difference between before and after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// A person.
    Person {
        /// Number of the person.
        id: u32,
        /// The difference.
        what: PersonChange,
    },
    /// A setting.
    Setting {
        /// Name with its table, like "door.open_for".
        key: String,
        /// The value before, without secrets; `None` if it had none.
        old: Option<String>,
        /// The value now.
        new: Option<String>,
    },
}

/// A difference of one person. Names are not kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PersonChange {
    /// Enrolled, or brought in by a file.
    Added {
        /// Number of templates.
        templates: u32,
        /// Group.
        group: String,
        /// Whether they are an administrator.
        administrator: bool,
        /// Whether they are refused until they get a name.
        probation: bool,
    },
    /// Removed with this number of templates.
    Removed {
        /// Number of templates.
        templates: u32,
    },
    /// Another name.
    Renamed,
    /// Another group.
    Group {
        /// Before.
        old: String,
        /// Now.
        new: String,
    },
    /// Became an administrator, or no longer is one.
    Administrator(bool),
    /// The threshold is raised by another amount.
    Stricter {
        /// Before.
        old: f32,
        /// Now.
        new: f32,
    },
    /// Probation began or ended.
    Probation(bool),
    /// Another number of templates.
    Templates {
        /// Before.
        old: u32,
        /// Now.
        new: u32,
    },
    /// Other dates from and until which the person may come in, seconds since 1970.
    Dates {
        /// Before.
        old: (Option<i64>, Option<i64>),
        /// Now.
        new: (Option<i64>, Option<i64>),
    },
}

/// A body cannot be read.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum EntryError {
    /// A later version wrote it.
    #[error("a later version of facelatch wrote it, in format {0}; read it with that version")]
    Newer(u8),
    /// It is none.
    #[error("its content cannot be read")]
    Malformed,
}

impl Entry {
    /// An entry of this kind.
    pub fn new(event: &str) -> Self {
        Self { event: cut(event), ..Self::default() }
    }

    /// The body of the record.
    pub fn encode(&self) -> Vec<u8> {
        // Cannot fail: the entry has no map and no sequence of unknown length.
        postcard::to_extend(self, vec![FORMAT]).unwrap_or_else(|_| vec![FORMAT])
    }

    /// Reads the body of a record, in any format so far.
    ///
    /// # Errors
    /// If a later version wrote it, or it is no entry.
    pub fn decode(body: &[u8]) -> Result<Self, EntryError> {
        match body.split_first() {
            Some((&FORMAT, rest)) => match postcard::take_from_bytes(rest) {
                Ok((entry, [])) => Ok(entry),
                _ => Err(EntryError::Malformed),
            },
            Some((&newer, _)) if newer > FORMAT => Err(EntryError::Newer(newer)),
            _ => Err(EntryError::Malformed),
        }
    }

    /// The same, with these changes, divided so that none has too many. At least one.
    pub fn with_changes(self, changes: Vec<Change>) -> Vec<Self> {
        if changes.is_empty() {
            return vec![self];
        }
        let parts = changes.chunks(MOST_CHANGES);
        parts.map(|part| Self { changes: part.to_vec(), ..self.clone() }).collect()
    }
}

/// The text, cut to [`LONGEST_TEXT`] bytes.
pub fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(LONGEST_TEXT)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::field::Value;
    use proptest::prelude::*;

    fn entry() -> Entry {
        Entry {
            event: "granted".to_owned(),
            severity: Severity::Info,
            by: By { via: Via::Socket, uid: Some(0), login: Some(1000), sudo: None, role: None },
            door: Some("back".to_owned()),
            facts: vec![
                Fact::new("person", Value::Count(7)),
                Fact::new("similarity", Value::Number(0.5)),
                Fact::new("unheard of", Value::Text("x".to_owned())),
            ],
            frames: vec![FrameSeen {
                before: 100,
                person: None,
                similarity: 0.25,
                quality: Some(80),
            }],
            changes: vec![Change::Person { id: 3, what: PersonChange::Administrator(true) }],
            basis: Some(Basis { models: "2026.11+ab".to_owned(), configuration: [1; 8] }),
            picture: None,
            inputs: None,
        }
    }

    #[test]
    fn format_1_stays_readable() {
        let bytes = "01076772616e7465640001010001e807000001046261636b0300000107000203\
                     0000003f010a756e6865617264206f660501780164000000803e015001000304\
                     01010a323032362e31312b616201010101010101010000";
        let written: String = entry().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(written, bytes, "a new format needs a new number");
        assert_eq!(Entry::decode(&entry().encode()), Ok(entry()));
    }

    #[test]
    fn a_newer_format_is_named() {
        assert_eq!(Entry::decode(&[FORMAT + 1, 0]), Err(EntryError::Newer(FORMAT + 1)));
        assert_eq!(Entry::decode(&[]), Err(EntryError::Malformed));
        let longer = [&entry().encode()[..], &[0]].concat();
        assert_eq!(Entry::decode(&longer), Err(EntryError::Malformed));
    }

    #[test]
    fn many_changes_are_divided_and_none_is_lost() {
        let change = |id| Change::Person { id, what: PersonChange::Renamed };
        let changes: Vec<Change> = (0..2 * MOST_CHANGES as u32 + 1).map(change).collect();
        let parts = Entry::new("people").with_changes(changes.clone());
        assert_eq!(parts.len(), 3);
        let all: Vec<Change> = parts.into_iter().flat_map(|part| part.changes).collect();
        assert_eq!(all, changes);
        assert_eq!(Entry::new("people").with_changes(vec![]).len(), 1);
    }

    proptest! {
        #[test]
        fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Entry::decode(&body);
            let _ = Entry::decode(&[&[FORMAT][..], &body].concat());
        }

        #[test]
        fn a_cut_text_is_its_beginning(text in "\\PC{0,300}") {
            let short = cut(&text);
            prop_assert!(text.starts_with(&short) && short.len() <= LONGEST_TEXT);
            prop_assert!(short.len() == text.len() || short.len() > LONGEST_TEXT - 4);
        }
    }
}
