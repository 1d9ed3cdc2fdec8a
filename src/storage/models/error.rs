//! Why a store of model sets cannot be read or changed.

use super::age::Age;
use super::floor::Lowered;
use super::self_test::SelfTestError;
use crate::models::ModelsError;
use crate::models::groups::{MOST_TIMES, WorstGroup};
use crate::storage::gallery::StoreError;
use crate::vision::built_in_faces::UselessError;
use crate::vision::recognizer::RecognizerError;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a store cannot be read or changed. The set in use stays in use.
#[derive(Debug, Error)]
pub enum ModelStoreError {
    /// A file operation failed.
    #[error("{path}: {reason}{}", cure(reason))]
    Io {
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        reason: std::io::Error,
    },
    /// The source is not a model set.
    #[error("{from}: {reason}")]
    Source {
        /// Name of the source.
        from: String,
        /// What is wrong, and the cure.
        reason: String,
    },
    /// The set is not used, because nobody answers for it.
    #[error("{set}: {reason}")]
    Untrusted {
        /// Folder or name of the set.
        set: String,
        /// Why, and the cure.
        reason: String,
    },
    /// The set has no self-test.
    #[error(
        "{set}: no self-test, so this board cannot verify that the networks give here what they gave where they were made; facelatch-tools export and quantize write one"
    )]
    NoSelfTest {
        /// Name of the set.
        set: String,
    },
    /// The set is older than the newest one that was installed here.
    #[error(
        "{set}: {reason}; the newest set installed here is {newest}; install a newer one, or this one with --downgrade"
    )]
    Downgrade {
        /// Name of the set.
        set: String,
        /// In which way it is older.
        reason: String,
        /// The newest set installed here.
        newest: Age,
    },
    /// The rate of a group of people is too high.
    #[error(
        "{set}: worst group {group}: {:.1} times the stated rate, and at most {MOST_TIMES} times is accepted; calibrate again with facelatch-tools calibrate --labels, or accept the rate with --accept-group-rate",
        group.times_stated()
    )]
    Group {
        /// Name of the set.
        set: String,
        /// The group.
        group: Box<WorstGroup>,
    },
    /// The thresholds admit people who are not the same.
    #[error("{set}: {reason}")]
    Floor {
        /// Name of the set.
        set: String,
        /// Which threshold, and the cure.
        reason: String,
    },
    /// The threshold is lower than that of the set in use, and nobody has confirmed it.
    #[error("{set}: {lowered}; confirm with --yes")]
    Lowered {
        /// Name of the set.
        set: String,
        /// The numbers.
        lowered: Box<Lowered>,
    },
    /// No set is on trial, or it does not pass.
    #[error("{path}: {reason}")]
    Shadow {
        /// The store.
        path: PathBuf,
        /// What is missing, and the cure.
        reason: String,
    },
    /// Another process is changing the store.
    #[error("{path}: another facelatch is changing these models; try again when it is done")]
    Busy {
        /// The store.
        path: PathBuf,
    },
    /// The pointer is invalid.
    #[error(
        "{path}: {reason}; remove it to use the built-in models, or install a set again with facelatch models install"
    )]
    Pointer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The set does not exist.
    #[error("{name:?}: no such model set in {path}; see facelatch models list")]
    Unknown {
        /// Name as given.
        name: String,
        /// The store.
        path: PathBuf,
    },
    /// There is no previous set.
    #[error("{path}: there is no previous model set to roll back to; see facelatch models list")]
    NoPrevious {
        /// The store.
        path: PathBuf,
    },
    /// The current set is damaged, and the previous set is damaged or missing.
    #[error(
        "{reason}; no previous set can be used either; install one with facelatch models install"
    )]
    Lost {
        /// What is wrong with the current set.
        reason: String,
    },
    /// The detector finds nothing, or a liveness network gives no numbers.
    #[error("{from}: {reason}; import good weights")]
    Useless {
        /// Folder of the set.
        from: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// The set is incomplete or has no thresholds.
    #[error(transparent)]
    Models(#[from] ModelsError),
    /// A network cannot be loaded.
    #[error(transparent)]
    Recognizer(#[from] RecognizerError),
    /// The recognizer cannot be tried on built-in faces.
    #[error(transparent)]
    Impostors(#[from] UselessError),
    /// The self-test failed.
    #[error(transparent)]
    SelfTest(#[from] SelfTestError),
    /// The gallery could not be re-embedded.
    #[error(transparent)]
    Gallery(#[from] StoreError),
}

fn cure(reason: &std::io::Error) -> &'static str {
    match reason.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "; free some space on this disk and try again"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "; run this as the user of the service, or name another folder with --store"
        }
        _ => "",
    }
}

pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> ModelStoreError {
    let path = path.to_owned();
    move |reason| ModelStoreError::Io { path, reason }
}
