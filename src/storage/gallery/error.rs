//! Why the gallery cannot be read or written.

use super::tables::Fault;
use crate::access::names::{self, NameFault};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why an operation on the gallery failed.
#[derive(Debug, Error)]
pub enum StoreError {
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
    /// The main file is damaged, and the copy is damaged or missing.
    #[error(
        "{path}: damaged ({reason}), and its last good copy {copy} is unusable ({copy_reason}); \
         restore one of them from a backup, or move both away to start with an empty gallery"
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
}

pub(super) fn error(path: &Path, fault: Fault) -> StoreError {
    let path = path.to_owned();
    match fault {
        Fault::Absent => StoreError::Io { path, reason: "file not found".to_owned() },
        Fault::Busy => StoreError::Busy { path },
        Fault::Damaged(reason) => StoreError::Io { path, reason: format!("damaged: {reason}") },
        Fault::Newer(reason) => StoreError::Newer { path, reason },
        Fault::Io(reason) => StoreError::Io { path, reason },
    }
}
