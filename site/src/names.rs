//! Short names of keys, groups, people and parts of groups, as they stand in topics.

use facelatch_crypto::{EntropyError, PublicKey, Secret};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// Parts into which the people of a group are divided. A broker's default queue holds 1,000
/// messages, so a part of the largest group must stay below that.
pub const PARTS: u8 = 16;

/// The first bytes of a SHA-256 digest.
fn digest<const N: usize>(of: &[&[u8]]) -> [u8; N] {
    let mut hasher = Sha256::new();
    for bytes in of {
        hasher.update(bytes);
    }
    let all = hasher.finalize();
    std::array::from_fn(|at| all[at])
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Bytes of lower-case hexadecimal digits, exactly `N` of them.
fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

/// A text is no name of this form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a name of {0} lower-case hexadecimal digits")]
pub struct NameError(usize);

macro_rules! hexadecimal {
    ($name:ident, $bytes:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex(&self.0, f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex(&self.0, f)
            }
        }
        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                from_hex(text).map(Self).ok_or(NameError(2 * $bytes))
            }
        }
    };
}

/// Names a key: of a door, or the site's own. The first 64 bits of the key's SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyId(pub [u8; 8]);

hexadecimal!(KeyId, 8);

impl KeyId {
    /// The name of a key.
    pub fn of(key: &PublicKey) -> Self {
        Self(digest(&[b"facelatch key ", key.bytes()]))
    }
}

/// Names a group in topics, so that the broker does not see its name. Who knows the site
/// can try names, so it hides nothing that is worth such an attempt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupTag(pub [u8; 4]);

hexadecimal!(GroupTag, 4);

impl GroupTag {
    /// The tag of a group of a site.
    pub fn of(site: KeyId, group: &str) -> Self {
        Self(digest(&[b"facelatch group ", &site.0, group.as_bytes()]))
    }
}

/// Names a person at all doors of a site: 128 random bits, never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PersonId(pub [u8; 16]);

hexadecimal!(PersonId, 16);

impl PersonId {
    /// A new one.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn random() -> Result<Self, EntropyError> {
        let random = Secret::random()?.derive("facelatch person");
        Ok(Self(std::array::from_fn(|at| random.bytes()[at])))
    }

    /// The part of the group that the person is in.
    pub fn part(self) -> Part {
        Part(self.0[0] >> 4)
    }
}

/// A part of a group, 0 to [`PARTS`] - 1: people whose id begins with this digit.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Part(u8);

impl Part {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..PARTS).map(Self)
    }

    /// The part with this number.
    pub fn new(number: u8) -> Option<Self> {
        (number < PARTS).then_some(Self(number))
    }

    /// Its number.
    pub fn number(self) -> u8 {
        self.0
    }

    /// The first and the last id of the part.
    pub(crate) fn ends(self) -> (PersonId, PersonId) {
        let (mut first, mut last) = ([0; 16], [0xff; 16]);
        first[0] = self.0 << 4;
        last[0] = self.0 << 4 | 0xf;
        (PersonId(first), PersonId(last))
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A person in a group: where the person's record is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The group.
    pub group: GroupTag,
    /// The person.
    pub person: PersonId,
}
