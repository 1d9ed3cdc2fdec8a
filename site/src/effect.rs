//! What follows from an input, and why inputs are refused.

use crate::content::{Certificate, Models, Passage, Person, Policy};
use crate::names::{KeyId, PersonId};
use thiserror::Error;

/// What to do. Do it in this order: what is kept comes after what it says was done, so that
/// a stop in between repeats the change and loses none.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Keep these bytes under this key, in place of those before. They are secret.
    Keep {
        /// At most 100 bytes of lower-case letters, digits and slashes.
        key: String,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Keep nothing under this key.
    Forget {
        /// The key.
        key: String,
    },
    /// Publish a record.
    Publish {
        /// Below the site's own part.
        topic: String,
        /// The record.
        bytes: Vec<u8>,
        /// Whether the broker keeps it for those who come later.
        retain: bool,
        /// Seconds after which the broker drops it; `None` if it does not.
        expires_s: Option<u32>,
    },
    /// Publish the record that is kept under a key, retained and without an end.
    PublishKept {
        /// Below the site's own part.
        topic: String,
        /// The key.
        key: String,
    },
    /// The topics to hear, in place of those before, in the order in which to fetch them.
    Subscribe {
        /// Filters below the site's own part.
        filters: Vec<String>,
    },
    /// Fetch these retained records again.
    Fetch {
        /// Filters below the site's own part.
        filters: Vec<String>,
    },
    /// Put this person into the gallery, in place of the one with the same id.
    Put(Box<Person>),
    /// Remove this person from the gallery; nothing to do if not there.
    Remove(PersonId),
    /// Whether the person may be an administrator here changed.
    Administrator {
        /// The person.
        person: PersonId,
        /// Whether the person is one.
        is: bool,
    },
    /// The policy changed.
    Policy(Box<Policy>),
    /// Somebody went through another door.
    Passage(Passage),
    /// The site admitted this door, or changed what it may do.
    Admitted(Box<Certificate>),
    /// The site locked this door out. Its people were removed before.
    Expelled,
    /// The site offers another set of models than before.
    Models(Models),
    /// A part of the file of the set, as it was asked for with `fetch_models`. Its content
    /// is not checked here: the set has a digest and a signature.
    ModelPart {
        /// SHA-256 digest of the whole file.
        digest: [u8; 32],
        /// Number of the part, from 0.
        part: u16,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// A door joined. Only an office has this.
    Joined {
        /// The door.
        door: KeyId,
        /// The name that the door has for itself.
        says: String,
        /// Fingerprint of its key, to compare with the one that the door shows.
        fingerprint: String,
    },
    /// An input was refused and changed nothing.
    Refused(Refusal),
}

/// Why a record was refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// The topic is none of a site.
    #[error("the topic is unknown")]
    Topic,
    /// More bytes than a record may have.
    #[error("it is too large")]
    Large,
    /// Not of the form of a record.
    #[error("it is cut or no record")]
    Malformed,
    /// Of a version that this program does not know.
    #[error("it has a newer version; update this program")]
    Version,
    /// It belongs to another site.
    #[error("it belongs to another site")]
    Site,
    /// Its signer was not admitted, or is not known here yet.
    #[error("its writer is not admitted")]
    Writer,
    /// Its signer was locked out.
    #[error("its writer is locked out")]
    LockedOut,
    /// Its writer may not write this.
    #[error("its writer may not write this")]
    Right,
    /// The signature does not fit.
    #[error("its signature does not fit")]
    Signature,
    /// It is sealed with a data key that is not known here.
    #[error("its data key is not known here")]
    Epoch,
    /// It cannot be opened.
    #[error("it cannot be opened")]
    Seal,
    /// The content is out of range.
    #[error("its content is out of range")]
    Content,
    /// It is older than what is known.
    #[error("it is older than what is known")]
    Old,
    /// Its time is far ahead.
    #[error("its time is far ahead; check the clocks of the doors")]
    Ahead,
    /// Its writer sends too much.
    #[error("its writer sends too much")]
    Rate,
    /// There are as many people as may be.
    #[error("the site has as many people as it may have")]
    Full,
    /// This program is in no site yet.
    #[error("this door is in no site")]
    Outside,
    /// It was not asked for.
    #[error("it was not asked for")]
    Unasked,
}

/// Why a change cannot be made here.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// This door is in no site.
    #[error("this door is in no site; join one with facelatch site join")]
    Outside,
    /// The door may not write people of this group.
    #[error("the site does not let this door change people of group {0:?}; ask the office")]
    Right(String),
    /// A person, a group or a template is out of range.
    #[error("{0}")]
    Content(&'static str),
    /// The person is not known, or was removed.
    #[error("the site has no such person")]
    Unknown,
    /// There are as many as may be.
    #[error("the site has as many people as it may have; remove some")]
    Full,
    /// There are no random numbers.
    #[error(transparent)]
    Entropy(#[from] facelatch_crypto::EntropyError),
    /// The key of a door is not usable.
    #[error(transparent)]
    Letter(#[from] facelatch_crypto::LetterError),
}
