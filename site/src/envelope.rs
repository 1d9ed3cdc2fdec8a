//! The envelope of a record: who wrote what when, sealed and signed.
//!
//! ```text
//! 0   version 1
//! 1   kind
//! 2   site      8 bytes
//! 10  author    8 bytes, who made the record
//! 18  signer    8 bytes, who signed it: the author, or the office for somebody else
//! 26  order     8 bytes, little-endian, as all numbers
//! 34  epoch     4 bytes, of the data key; 0 for records sealed otherwise
//! 38  content, sealed with the topic and bytes 0 to 37 as associated data
//! -64 signature over the topic and all bytes before
//! ```
//!
//! The order of a door's record is a hybrid logical clock: milliseconds since 1970 in the
//! upper 48 bits, and a counter in the lower 16 (Kulkarni and others 2014, "Logical
//! Physical Clocks"). The order of an office's record is its revision, which rises by one.

use crate::effect::Refusal;
use crate::names::KeyId;
use crate::topic::Topic;
use facelatch_crypto::{EntropyError, PublicKey, SIGNATURE, Signer};

/// Bytes before the sealed content.
const HEADER: usize = 38;
/// Version of the format.
const VERSION: u8 = 1;
/// Largest record, bytes.
pub const LARGEST: usize = 128 << 10;
/// Purpose of the signatures.
const PURPOSE: &str = "site record";

/// The kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// See [`Topic::Revoked`].
    Revoked = 1,
    /// See [`Topic::Policy`].
    Policy = 2,
    /// See [`Topic::Lease`].
    Lease = 3,
    /// See [`Topic::Keys`].
    Keys = 4,
    /// See [`Topic::Admitted`].
    Admitted = 5,
    /// See [`Topic::Manifest`].
    Manifest = 6,
    /// See [`Topic::Listing`].
    Listing = 7,
    /// See [`Topic::Person`].
    Person = 8,
    /// See [`Topic::Have`].
    Have = 9,
    /// See [`Topic::Passage`].
    Passage = 10,
    /// See [`Topic::Join`].
    Join = 11,
    /// See [`Topic::Models`].
    Models = 12,
    /// See [`Topic::ModelPart`].
    ModelPart = 13,
}

/// What stands before the content of a record, apart from its kind, which follows from the
/// topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The site.
    pub site: KeyId,
    /// Who made the record.
    pub author: KeyId,
    /// Who signed it.
    pub signer: KeyId,
    /// Which of two records is newer.
    pub order: u64,
    /// Number of the data key; 0 if the content is sealed otherwise.
    pub epoch: u32,
}

impl Header {
    fn bytes(&self, topic: Topic) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = VERSION;
        bytes[1] = topic.kind() as u8;
        bytes[2..10].copy_from_slice(&self.site.0);
        bytes[10..18].copy_from_slice(&self.author.0);
        bytes[18..26].copy_from_slice(&self.signer.0);
        bytes[26..34].copy_from_slice(&self.order.to_le_bytes());
        bytes[34..38].copy_from_slice(&self.epoch.to_le_bytes());
        bytes
    }
}

/// What the content is sealed to.
fn place(topic: Topic, header: &[u8]) -> Vec<u8> {
    let mut place = format!("{topic}\0").into_bytes();
    place.extend(header);
    place
}

/// A record as bytes: `seal` gets what to seal the content to.
pub(crate) fn write(
    topic: Topic,
    header: &Header,
    signer: &Signer,
    seal: impl FnOnce(&[u8]) -> Result<Vec<u8>, EntropyError>,
) -> Result<Vec<u8>, EntropyError> {
    let head = header.bytes(topic);
    let sealed = seal(&place(topic, &head))?;
    let mut bytes = [&head[..], &sealed].concat();
    let signature = signer.sign(PURPOSE, &place(topic, &bytes));
    bytes.extend(signature);
    Ok(bytes)
}

/// A record out of bytes that may be anything. Nothing in it is verified yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Envelope<'b> {
    topic: Topic,
    pub header: Header,
    sealed: &'b [u8],
    /// All before the signature.
    signed: &'b [u8],
    signature: &'b [u8; SIGNATURE],
}

impl<'b> Envelope<'b> {
    /// Takes bytes apart that were found under a topic.
    pub fn read(topic: Topic, bytes: &'b [u8]) -> Result<Self, Refusal> {
        if bytes.len() > LARGEST {
            return Err(Refusal::Large);
        }
        let (signed, signature) =
            bytes.split_last_chunk::<SIGNATURE>().ok_or(Refusal::Malformed)?;
        let (head, sealed) = signed.split_first_chunk::<HEADER>().ok_or(Refusal::Malformed)?;
        if head[0] != VERSION {
            return Err(Refusal::Version);
        }
        if head[1] != topic.kind() as u8 {
            return Err(Refusal::Malformed);
        }
        let key = |at: usize| KeyId(std::array::from_fn(|byte| head[at + byte]));
        let header = Header {
            site: key(2),
            author: key(10),
            signer: key(18),
            order: u64::from_le_bytes(std::array::from_fn(|byte| head[26 + byte])),
            epoch: u32::from_le_bytes(std::array::from_fn(|byte| head[34 + byte])),
        };
        Ok(Self { topic, header, sealed, signed, signature })
    }

    /// Verifies the signature.
    pub fn verify(&self, key: &PublicKey) -> Result<(), Refusal> {
        key.verify(PURPOSE, &place(self.topic, self.signed), self.signature)
            .map_err(|_| Refusal::Signature)
    }

    /// What the content is sealed to.
    pub fn place(&self) -> Vec<u8> {
        place(self.topic, &self.signed[..HEADER])
    }

    /// The sealed content.
    pub fn sealed(&self) -> &'b [u8] {
        self.sealed
    }
}
