//! Why the gallery cannot be read or written.

use super::limits::{MOST_NEGATIVES, MOST_PEOPLE, MOST_TEMPLATES};
use super::tables::Fault;
use crate::access::names::{self, NameFault};
use crate::storage::keys::KeyError;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why an operation on the gallery failed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// There is no gallery, and none was used here before.
    #[error(
        "{path}: no gallery yet; enroll somebody first (facelatch enroll --help), or correct the \
         path (--gallery, or gallery.file in the configuration)"
    )]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// There is no gallery, although people were enrolled here.
    #[error(
        "{path}: the gallery is missing, although people were enrolled here; mount its card or \
         disk, or put the file back. To start with an empty gallery: facelatch people new"
    )]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// The file may exist, but the program cannot reach it.
    #[error("{path}: unreachable: {reason}")]
    Unreachable {
        /// The file.
        path: PathBuf,
        /// The fault and the cure.
        reason: String,
    },
    /// The file can be read but not changed.
    #[error("{path}: read-only: {reason}")]
    ReadOnly {
        /// The file.
        path: PathBuf,
        /// The fault and the cure.
        reason: String,
    },
    /// The file is no gallery.
    #[error("{path}: {reason}; name a gallery file or a file written by facelatch people export")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        reason: String,
    },
    /// The file is older than the gallery that was in use.
    #[error(
        "{path}: revision {found} is older than revision {known}, which was in use here: it may \
         bring back people who were removed. Put the newer file back. To use the older one \
         nevertheless: facelatch people restore FILE"
    )]
    Older {
        /// The file.
        path: PathBuf,
        /// Its revision.
        found: u64,
        /// The newest revision known.
        known: u64,
    },
    /// Another gallery stands in the place of the one that was in use.
    #[error(
        "{path}: another gallery than the one that was in use here; put that one back. To use \
         this one nevertheless: facelatch people restore FILE"
    )]
    Other {
        /// The file.
        path: PathBuf,
    },
    /// File and copy have the same revision and different content.
    #[error(
        "{path}: has the same revision as its copy {copy} but different content, so one of them \
         was tampered with; move the wrong one away"
    )]
    Differ {
        /// The file.
        path: PathBuf,
        /// The copy.
        copy: PathBuf,
    },
    /// The file has the revision of the gallery in memory and different content.
    #[error(
        "{path}: has the same revision as the gallery in use but different content, so it was \
         tampered with; move it away, and its last good copy takes its place"
    )]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The gallery is sealed, and its keys cannot be used.
    #[error("{path}: sealed, and cannot be opened: {reason}")]
    Sealed {
        /// The file.
        path: PathBuf,
        /// What is wrong with the keys.
        reason: KeyError,
    },
    /// A file operation failed.
    #[error("{path}: {reason}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Description of the error.
        reason: String,
    },
    /// Another process has the file open.
    #[error("{path}: in use by another facelatch; wait until it is done and try again")]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The file is the gallery into which it is to be imported.
    #[error("{path}: is the gallery itself; name a file written by facelatch people export")]
    Itself {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged. It has no copy.
    #[error("{path}: damaged: {reason}; use another backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The main file is damaged, and the copy is damaged or missing.
    #[error(
        "{path}: damaged ({reason}), and its last good copy {copy} is unusable ({copy_reason}); \
         facelatch people restore FILE takes a backup. To start with an empty gallery move both \
         away, then: facelatch people new"
    )]
    Lost {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// The copy.
        copy: PathBuf,
        /// What is wrong with the copy.
        copy_reason: String,
    },
    /// The file was written by a later version.
    #[error("{path}: {reason}; update facelatch")]
    Newer {
        /// The file.
        path: PathBuf,
        /// The record that is newer.
        reason: String,
    },
    /// The name is invalid.
    #[error("{name:?}: {fault}; give a name of 1 to {} printable characters", names::LONGEST)]
    Name {
        /// Name as given.
        name: String,
        /// What is wrong with it.
        fault: NameFault,
    },
    /// Somebody else has a name that looks alike.
    #[error(
        "{name:?}: looks like {other:?}, who is already enrolled; choose a name that people \
         can tell from it"
    )]
    Alike {
        /// Name as given.
        name: String,
        /// Name of the person enrolled.
        other: String,
    },
    /// Nobody has this name.
    #[error("{name:?}: nobody with this name is enrolled; see facelatch people list")]
    Unknown {
        /// Name as given.
        name: String,
    },
    /// Somebody else has this name.
    #[error("{name:?}: somebody with this name is already enrolled; choose another name")]
    Taken {
        /// Name as given.
        name: String,
    },
    /// A person of the file is invalid.
    #[error("{path}: {name:?}: {reason}; this file was not written by facelatch people export")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Name of the person.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The person would have too many templates.
    #[error(
        "{name:?}: would have {count} templates, more than {MOST_TEMPLATES}; remove the person \
         and enroll again with fewer views"
    )]
    ManyTemplates {
        /// Name of the person.
        name: String,
        /// Number of templates.
        count: usize,
    },
    /// There are too many negatives.
    #[error(
        "{path}: {MOST_NEGATIVES} reported false entries at most; remove some first, see \
         facelatch people negatives --help"
    )]
    ManyNegatives {
        /// The file.
        path: PathBuf,
    },
    /// There is no negative with this number.
    #[error("no reported false entry has the number {number}; see facelatch people negatives list")]
    NoNegative {
        /// The number.
        number: u32,
    },
    /// The gallery would have too many people.
    #[error("{path}: more than {MOST_PEOPLE} people; remove some first")]
    ManyPeople {
        /// The file.
        path: PathBuf,
    },
}

impl StoreError {
    /// The state of the gallery in one word, for JSON: absent, lost, unreachable, read-only,
    /// foreign, older, damaged, sealed, busy or failed.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Absent { .. } => "absent",
            Self::Gone { .. } => "lost",
            Self::Unreachable { .. } => "unreachable",
            Self::ReadOnly { .. } => "read-only",
            Self::Foreign { .. } | Self::Other { .. } => "foreign",
            Self::Older { .. } => "older",
            Self::Differ { .. }
            | Self::Changed { .. }
            | Self::Lost { .. }
            | Self::Damaged { .. } => "damaged",
            Self::Sealed { .. } => "sealed",
            Self::Busy { .. } => "busy",
            _ => "failed",
        }
    }
}

pub(super) fn error(path: &Path, fault: Fault) -> StoreError {
    let path = path.to_owned();
    match fault {
        Fault::Absent => StoreError::Io { path, reason: "file not found".to_owned() },
        Fault::Unreachable(reason) => StoreError::Unreachable { path, reason },
        Fault::Foreign(reason) | Fault::NoGallery(reason) | Fault::OtherKey(reason) => {
            StoreError::Foreign { path, reason }
        }
        Fault::Busy => StoreError::Busy { path },
        Fault::Damaged(reason) => StoreError::Damaged { path, reason },
        Fault::Unreadable(reason) => {
            StoreError::Unreachable { path, reason: format!("{reason}; check its card or disk") }
        }
        Fault::Sealed(reason) => StoreError::Sealed { path, reason },
        Fault::Newer(reason) => StoreError::Newer { path, reason },
        Fault::Io(reason) => StoreError::Io { path, reason },
    }
}
