//! Signed heads: the door's key says that the chain was like this at a time.

use super::chain::{Hash, Link, LogId};
use super::frame::{FIXED, Frame, fields, fixed};
use super::{Kind, Stamp};
use crate::crypto::{PublicKey, SIGNATURE, Signature, SignatureError, Signer};

/// What the signature is for.
const PURPOSE: &str = "audit head";

/// Bytes of an encoded head.
pub const HEAD_BYTES: usize = 16 + 32 + FIXED + SIGNATURE + 4;

/// A signed head. It is the record `number`, and signs all records before it, and its own
/// number and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The log.
    pub log: LogId,
    /// Number of the record that is the head.
    pub number: u64,
    /// Hash of the record before it.
    pub before: Hash,
    /// When it was signed.
    pub stamp: Stamp,
    /// The signature.
    pub signature: Signature,
}

impl Head {
    /// Signs the chain up to a place, as the record that follows there.
    pub fn sign(signer: &Signer, log: &LogId, after: &Link, stamp: &Stamp) -> Self {
        let number = after.number.saturating_add(1);
        let mut head = Self {
            log: *log,
            number,
            before: after.hash,
            stamp: *stamp,
            signature: [0; SIGNATURE],
        };
        head.signature = signer.sign(PURPOSE, &head.signed());
        head
    }

    /// The head that a record is, if it follows the place `after`; `None` if it is none.
    pub fn of(log: &LogId, after: &Link, frame: &Frame<'_>) -> Option<Self> {
        let (number, stamp, Kind::Head) = fields(frame.content)? else { return None };
        let signature = frame.content.get(FIXED..)?;
        let signature =
            *signature.first_chunk::<SIGNATURE>().filter(|s| s.len() == signature.len())?;
        Some(Self { log: *log, number, before: after.hash, stamp, signature })
    }

    /// The bytes that the signature covers: log id, hash before, and the fields of the
    /// record.
    fn signed(&self) -> Vec<u8> {
        let fields = fixed(self.number, &self.stamp, Kind::Head);
        [&self.log[..], &self.before, &fields].concat()
    }

    /// Verifies the signature.
    ///
    /// # Errors
    /// If another key signed it, or something in it was changed.
    pub fn verify(&self, key: &PublicKey) -> Result<(), SignatureError> {
        key.verify(PURPOSE, &self.signed(), &self.signature)
    }

    /// The content of the record that the head is.
    pub fn content(&self) -> Vec<u8> {
        [&fixed(self.number, &self.stamp, Kind::Head)[..], &self.signature].concat()
    }

    /// The place in the chain after the record that the head is.
    pub fn link(&self) -> Link {
        let before = Link { number: self.number.saturating_sub(1), hash: self.before };
        Link { number: self.number, hash: before.next(&self.content()) }
    }

    /// As bytes with a checksum, for the file of heads.
    pub fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        let content = [&self.signed()[..], &self.signature].concat();
        let sum = crc32fast::hash(&content).to_le_bytes();
        for (to, from) in bytes.iter_mut().zip(content.iter().chain(&sum)) {
            *to = *from;
        }
        bytes
    }

    /// From [`Self::encode`]; `None` if the bytes are no head.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (content, sum) = bytes.first_chunk::<HEAD_BYTES>()?.split_last_chunk::<4>()?;
        if crc32fast::hash(content) != u32::from_le_bytes(*sum) {
            return None;
        }
        let (log, rest) = content.split_first_chunk::<16>()?;
        let (before, rest) = rest.split_first_chunk::<32>()?;
        let (number, stamp, Kind::Head) = fields(rest)? else { return None };
        let signature = *rest.get(FIXED..)?.first_chunk::<SIGNATURE>()?;
        Some(Self { log: *log, number, before: *before, stamp, signature })
    }
}
