//! Why the keys of a door cannot be used.

use crate::crypto::EntropyError;
use std::path::PathBuf;
use thiserror::Error;

/// Why the keys of a door cannot be opened or changed.
#[derive(Clone, Debug, Error)]
pub enum KeyError {
    /// No keys were made for this gallery yet.
    #[error("{keyring}: this gallery has no keys yet; the first enrolment or start makes them")]
    None {
        /// Where the keyring would be.
        keyring: PathBuf,
    },
    /// The user has no folder for a key.
    #[error("no folder for the door's key: the user has no home; set XDG_STATE_HOME")]
    NoPlace,
    /// There is a keyring, and no key to open it.
    #[error(
        "{keyring}: the key that opens it is missing ({looked}); bring the key back, because \
         without it the people enrolled stay unreadable. If it is lost: facelatch key erase, and \
         then facelatch people restore BACKUP"
    )]
    Missing {
        /// The keyring.
        keyring: PathBuf,
        /// Where a key was looked for, and what was found there.
        looked: String,
    },
    /// There is a key, and it is not the one of this keyring.
    #[error(
        "{keyring}: sealed with another key than that of {tried}; bring the right key back, or, if \
         it is lost: facelatch key erase, and then facelatch people restore BACKUP"
    )]
    Wrong {
        /// The keyring.
        keyring: PathBuf,
        /// Where the keys tried came from.
        tried: String,
    },
    /// The keyring and its copy are damaged.
    #[error(
        "{keyring}: damaged, and so is its copy {copy}; put a backup of either back, or: facelatch \
         key erase, and then facelatch people restore BACKUP"
    )]
    Damaged {
        /// The keyring.
        keyring: PathBuf,
        /// Its copy.
        copy: PathBuf,
    },
    /// The gallery is sealed, and its keyring is missing.
    #[error(
        "{keyring}: missing, although the gallery is sealed with it; put it back, because without \
         it the people enrolled stay unreadable. If it is lost: facelatch people restore BACKUP"
    )]
    Lost {
        /// The keyring.
        keyring: PathBuf,
    },
    /// The keyring was written by a later version.
    #[error("{keyring}: written by a later version; update facelatch")]
    Newer {
        /// The keyring.
        keyring: PathBuf,
    },
    /// A file of the keys cannot be read or written.
    #[error("{path}: {reason}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The fault and the cure.
        reason: String,
    },
    /// Keys exist already.
    #[error("{keyring}: exists already; nothing is made over it")]
    Exists {
        /// The keyring.
        keyring: PathBuf,
    },
    /// The system gives no random numbers.
    #[error("{0}")]
    Entropy(String),
}

impl From<EntropyError> for KeyError {
    fn from(error: EntropyError) -> Self {
        Self::Entropy(error.to_string())
    }
}
