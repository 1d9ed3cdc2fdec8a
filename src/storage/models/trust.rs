//! Whether a set may be used: who signed it, and whether it was installed here.

use super::ledger::{Accepted, How, Ledger};
use crate::files;
use crate::models::signature::{MAX_SIGNATURE, SIGNATURE, SetSignature, TrustedKeys};
use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

/// Who answers for a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is part of the program.
    BuiltIn,
    /// A trusted key signed it.
    Signed {
        /// Fingerprint of the key.
        key: String,
        /// Comment of the key in the configuration.
        comment: String,
    },
    /// It was installed with a signature of a trusted key that is no longer trusted.
    KeyRemoved {
        /// Fingerprint of the key.
        key: String,
    },
    /// It was installed with `--unsigned`, signed by a key that is not trusted.
    Foreign {
        /// Fingerprint of the key.
        key: String,
    },
    /// It was installed with `--unsigned`, without a signature.
    Unsigned,
    /// It was installed by a version that knew no signatures.
    Older,
}

impl Standing {
    /// What stays to be done about it; `None` for a set that is built in or signed by a
    /// trusted key.
    pub fn warning(&self) -> Option<String> {
        let cure = "install a set that is signed by a key of models.trusted_keys";
        match self {
            Self::BuiltIn | Self::Signed { .. } => None,
            Self::KeyRemoved { key } => Some(format!(
                "the set in use is signed by {key}, which is no longer in models.trusted_keys; it stays in use, and other sets by this key are refused; {cure}"
            )),
            Self::Foreign { key } => Some(format!(
                "the set in use is signed by {key}, which is not in models.trusted_keys; it was installed with --unsigned; {cure}"
            )),
            Self::Unsigned => Some(format!(
                "the set in use is not signed; it was installed with --unsigned; {cure}"
            )),
            Self::Older => Some(format!(
                "the set in use is not signed; it was installed before signatures were checked; {cure}"
            )),
        }
    }

    /// Whether the program or a trusted key answers for it.
    pub fn is_trusted(&self) -> bool {
        self.warning().is_none()
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("part of the program"),
            Self::Signed { key, comment } if comment.is_empty() => write!(f, "signed by {key}"),
            Self::Signed { key, comment } => write!(f, "signed by {comment}, {key}"),
            Self::KeyRemoved { key } => write!(f, "signed by {key}, no longer trusted"),
            Self::Foreign { key } => write!(f, "signed by {key}, not trusted"),
            Self::Unsigned => f.write_str("not signed"),
            Self::Older => f.write_str("not signed, installed before signatures were checked"),
        }
    }
}

/// The signature beside a manifest.
pub(super) enum Found {
    /// A trusted key signed the manifest.
    Trusted(SetSignature, String),
    /// Another key signed the manifest.
    Foreign(SetSignature),
    /// There is none.
    None,
    /// It is none of this manifest; the reason.
    Broken(String),
}

/// The signature in the folder of a set with this manifest, verified; `None` if there is none.
///
/// # Errors
/// Why it does not hold.
pub fn signature_of(folder: &Path, manifest: &[u8]) -> Result<Option<SetSignature>, String> {
    let bytes = match files::read(&folder.join(SIGNATURE), MAX_SIGNATURE) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let signature = SetSignature::parse(&bytes)?;
    let verified = signature.verify(manifest);
    verified.map_err(|error| format!("key {}: {error}", signature.key().fingerprint()))?;
    Ok(Some(signature))
}

impl Found {
    /// Reads and verifies the signature in a folder.
    pub fn read(folder: &Path, manifest: &[u8], trusted: &TrustedKeys) -> Self {
        let signature = match signature_of(folder, manifest) {
            Ok(Some(signature)) => signature,
            Ok(None) => return Self::None,
            Err(fault) => return Self::Broken(fault),
        };
        match trusted.comment(signature.key()) {
            Some(comment) => Self::Trusted(signature, comment.to_owned()),
            None => Self::Foreign(signature),
        }
    }

    /// Standing of a set that is being installed.
    ///
    /// # Errors
    /// Why it is refused. `unsigned` allows sets without a signature or by other keys, but
    /// no broken signature.
    pub fn admit(self, trusted: &TrustedKeys, unsigned: bool) -> Result<Standing, String> {
        match self {
            Self::Trusted(signature, comment) => {
                Ok(Standing::Signed { key: signature.key().fingerprint(), comment })
            }
            Self::Foreign(signature) if unsigned => {
                Ok(Standing::Foreign { key: signature.key().fingerprint() })
            }
            Self::None if unsigned => Ok(Standing::Unsigned),
            Self::Foreign(signature) => Err(format!(
                "signed by {}, which is not in models.trusted_keys of this door; to trust it, add \"{}\" there, or install this set once with --unsigned",
                signature.key().fingerprint(),
                signature.key()
            )),
            Self::None => {
                let keys = match trusted.is_empty() {
                    true => " and add its key to models.trusted_keys of this door",
                    false => " with a key of models.trusted_keys of this door",
                };
                Err(format!(
                    "not signed (there is no {SIGNATURE}); sign it with facelatch-tools sign{keys}, or install it once with --unsigned"
                ))
            }
            Self::Broken(fault) => Err(format!(
                "{SIGNATURE}: {fault}; copy the set again, or sign it again with facelatch-tools sign"
            )),
        }
    }

    /// Standing of a set in a store, whose manifest has this digest. `ledger` is `None` if
    /// nothing is known of the store.
    ///
    /// # Errors
    /// Why it is not used.
    pub fn judge(
        self,
        digest: &str,
        ledger: Option<&Ledger>,
        trusted: &TrustedKeys,
    ) -> Result<Standing, String> {
        let Some(ledger) = ledger else {
            return match self {
                // A store from before signatures, at a door that does not ask for them.
                Self::None | Self::Foreign(_) if trusted.is_empty() => Ok(Standing::Older),
                found => found.admit(trusted, false),
            };
        };
        let Some(Accepted { how, key, .. }) = ledger.accepted(digest) else {
            return Err(
                "lies in the folder of models but was not installed here; install it with facelatch models install".to_owned(),
            );
        };
        match (self, how) {
            (Self::Trusted(signature, comment), _) => {
                Ok(Standing::Signed { key: signature.key().fingerprint(), comment })
            }
            (Self::Foreign(signature), How::Signed)
                if key.as_ref() == Some(&signature.key().fingerprint()) =>
            {
                Ok(Standing::KeyRemoved { key: signature.key().fingerprint() })
            }
            (Self::Foreign(signature), How::Unsigned) => {
                Ok(Standing::Foreign { key: signature.key().fingerprint() })
            }
            (Self::None, How::Unsigned) => Ok(Standing::Unsigned),
            (Self::None | Self::Foreign(_), How::Older) => Ok(Standing::Older),
            (Self::Broken(fault), _) => Err(format!("{SIGNATURE}: {fault}; install the set again")),
            (Self::None | Self::Foreign(_), How::Signed) => Err(format!(
                "{SIGNATURE} was removed or replaced since the set was installed; install the set again"
            )),
        }
    }
}

/// The entry for a set of this standing.
pub(super) fn accepted(set: &str, manifest: &str, standing: &Standing) -> Option<Accepted> {
    let (how, key) = match standing {
        Standing::BuiltIn => return None,
        Standing::Signed { key, .. } | Standing::KeyRemoved { key } => (How::Signed, Some(key)),
        Standing::Foreign { key } => (How::Unsigned, Some(key)),
        Standing::Unsigned => (How::Unsigned, None),
        Standing::Older => (How::Older, None),
    };
    Some(Accepted { set: set.to_owned(), manifest: manifest.to_owned(), how, key: key.cloned() })
}
