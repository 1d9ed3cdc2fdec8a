//! Why the audit log cannot be read or written.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use thiserror::Error;

/// Why the audit log cannot be read or written.
#[derive(Debug, Error)]
pub enum AuditError {
    /// A file cannot be read or written.
    #[error("{file}: {reason}{}", cure(.reason))]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// The system's error.
        reason: io::Error,
    },
    /// A file is not what a log consists of.
    #[error("{file}: {fault}")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The fault and its cure.
        fault: String,
    },
    /// The gallery beside which the log belongs is missing.
    #[error(
        "{gallery}: is missing, so no audit log is begun beside it; mount its card or disk, or \
         enroll somebody"
    )]
    NoGallery {
        /// The gallery.
        gallery: PathBuf,
    },
    /// There is no log.
    #[error("{folder}: no audit log; the first start of the service begins it")]
    Absent {
        /// The folder of the log.
        folder: PathBuf,
    },
    /// The content of a record is too long.
    #[error("a record of {bytes} bytes is too long for the audit log; {limit} is the limit")]
    TooLong {
        /// Its bytes.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The system gives no random numbers.
    #[error(transparent)]
    Entropy(#[from] crate::crypto::EntropyError),
}

impl AuditError {
    /// An error of the system at a file.
    pub(super) fn io(file: PathBuf) -> impl FnOnce(io::Error) -> Self {
        move |reason| Self::Io { file, reason }
    }
}

fn cure(reason: &io::Error) -> &'static str {
    match reason.kind() {
        ErrorKind::PermissionDenied if reason.raw_os_error().is_some() => {
            "; become root or the user of the service, such as with: sudo -u facelatch"
        }
        ErrorKind::NotFound => "; is the card or disk with the gallery mounted?",
        ErrorKind::ReadOnlyFilesystem => "; mount the disk writable, or replace it",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; make room on the disk",
        _ => "",
    }
}
