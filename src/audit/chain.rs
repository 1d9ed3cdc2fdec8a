//! The chain of hashes through all records of a log.

use sha2::{Digest, Sha256};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// Random number that tells one log from another.
pub type LogId = [u8; 16];

/// Name of the first hash, so that it is no hash of something else.
const FIRST: &[u8] = b"facelatch audit log\0";
/// Name of all further hashes.
const NEXT: &[u8] = b"facelatch audit record\0";

/// A place in the chain: after the record with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Number of the last record; 0 before the first.
    pub number: u64,
    /// Hash of that record.
    pub hash: Hash,
}

impl Link {
    /// The place before the first record of a log.
    pub fn first(log: &LogId) -> Self {
        Self { number: 0, hash: hash(&[FIRST, log]) }
    }

    /// The hash of the record with this content, if it follows here.
    pub fn next(&self, content: &[u8]) -> Hash {
        hash(&[NEXT, &self.hash, content])
    }
}

fn hash(parts: &[&[u8]]) -> Hash {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}
