//! Bytes in a message, as base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes, at most [`LARGEST_RECORD`](crate::LARGEST_RECORD) of them where they are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(from)?;
        if text.len() > crate::LARGEST_RECORD.div_ceil(3) * 4 {
            return Err(D::Error::custom("has more bytes than a record may have"));
        }
        STANDARD.decode(&*text).map(Self).map_err(|_| D::Error::custom("is no base64"))
    }
}
