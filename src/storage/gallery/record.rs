//! Format of one record on disk: a format version, the content, and a checksum over both
//! and the place of the record. So a flipped bit and a record in the wrong place are both
//! detected. In a sealed gallery, sealing takes the place of the checksum.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Content of a record. Older formats stay readable; a newer format is an error.
pub trait Content: Serialize + DeserializeOwned {
    /// Format version of the records written.
    const FORMAT: u8 = 1;

    /// Reads content of an older format. `None` if it is invalid or the format never
    /// existed.
    fn older(_format: u8, _content: &[u8]) -> Option<Self> {
        None
    }
}

impl Content for u64 {}
impl Content for Vec<u8> {}

/// Size of the CRC-32 at the end, bytes.
const CHECKSUM: usize = 4;

/// Why bytes are not a valid record.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The record is truncated or its checksum is wrong.
    #[error("is damaged")]
    Damaged,
    /// The record was written by a later version.
    #[error("has format {0}, newer than this program supports")]
    Newer(u8),
}

/// The place of a record in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'t> {
    /// Name of the table.
    pub table: &'t str,
    /// Key within the table.
    pub key: u64,
}

/// Encodes content as a record.
pub fn encode<T: Content>(place: Place<'_>, content: &T) -> Vec<u8> {
    let mut bytes = vec![T::FORMAT];
    // Postcard fails only on sequences of unknown length, and no content has one.
    bytes.extend(postcard::to_stdvec(content).unwrap_or_default());
    bytes.extend(checksum(place, &bytes).to_le_bytes());
    bytes
}

/// Adds the checksum to format and content of a record.
pub fn with_checksum(place: Place<'_>, body: &[u8]) -> Vec<u8> {
    let mut bytes = body.to_vec();
    bytes.extend(checksum(place, body).to_le_bytes());
    bytes
}

/// Format and content of a record, after its checksum was checked.
///
/// # Errors
/// If the record is damaged.
pub fn body_of<'b>(place: Place<'_>, bytes: &'b [u8]) -> Result<&'b [u8], RecordError> {
    let (body, sum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(RecordError::Damaged)?;
    let right = checksum(place, body) == u32::from_le_bytes(*sum);
    if right { Ok(body) } else { Err(RecordError::Damaged) }
}

/// Decodes the content of a record.
///
/// # Errors
/// If the record is damaged or newer than this program.
pub fn decode<T: Content>(place: Place<'_>, bytes: &[u8]) -> Result<T, RecordError> {
    decode_body(body_of(place, bytes)?)
}

/// Decodes format and content of a record, without the checksum.
///
/// # Errors
/// If the content is invalid or newer than this program.
pub fn decode_body<T: Content>(body: &[u8]) -> Result<T, RecordError> {
    match body.split_first() {
        Some((&format, content)) if format == T::FORMAT => {
            postcard::from_bytes(content).map_err(|_| RecordError::Damaged)
        }
        Some((&format, _)) if format > T::FORMAT => Err(RecordError::Newer(format)),
        Some((&format, content)) => T::older(format, content).ok_or(RecordError::Damaged),
        None => Err(RecordError::Damaged),
    }
}

fn checksum(place: Place<'_>, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(place.table.as_bytes());
    hasher.update(&place.key.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLACE: Place<'_> = Place { table: "people", key: 7 };

    impl Content for String {}
    impl Content for (String, Vec<u32>) {}
    impl Content for (String, Vec<f32>) {}

    /// A number that was shorter in format 1.
    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    struct Longer(u64);

    impl Content for Longer {
        const FORMAT: u8 = 2;

        fn older(format: u8, content: &[u8]) -> Option<Self> {
            let shorter = postcard::from_bytes::<u8>(content).ok();
            shorter.filter(|_| format == 1).map(|number| Self(u64::from(number)))
        }
    }

    #[test]
    fn an_older_format_is_read_by_what_knows_it() {
        let mut bytes = vec![1, 200];
        bytes.extend(checksum(PLACE, &bytes).to_le_bytes());
        assert_eq!(decode::<Longer>(PLACE, &bytes), Ok(Longer(200)));
        assert_eq!(decode::<Longer>(PLACE, &encode(PLACE, &Longer(9000))), Ok(Longer(9000)));
        let mut bytes = vec![0, 200];
        bytes.extend(checksum(PLACE, &bytes).to_le_bytes());
        assert_eq!(decode::<Longer>(PLACE, &bytes), Err(RecordError::Damaged));
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(content in any::<(String, Vec<u32>)>()) {
            let bytes = encode(PLACE, &content);
            prop_assert_eq!(decode::<(String, Vec<u32>)>(PLACE, &bytes), Ok(content));
        }

        #[test]
        fn a_flipped_bit_is_seen(content in ".{0,40}", at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = encode(PLACE, &content);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(decode::<String>(PLACE, &bytes).is_err());
        }

        #[test]
        fn noise_is_no_record(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            prop_assert!(decode::<(String, Vec<f32>)>(PLACE, &bytes).is_err());
        }
    }

    #[test]
    fn a_record_in_the_wrong_place_is_seen() {
        let bytes = encode(PLACE, &"Ada".to_owned());
        for place in [Place { table: "people", key: 8 }, Place { table: "crops", key: 7 }] {
            assert_eq!(decode::<String>(place, &bytes), Err(RecordError::Damaged));
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut bytes = encode(PLACE, &"Ada".to_owned());
        bytes.truncate(bytes.len() - CHECKSUM);
        bytes[0] = String::FORMAT + 1;
        let sum = checksum(PLACE, &bytes);
        bytes.extend(sum.to_le_bytes());
        assert_eq!(decode::<String>(PLACE, &bytes), Err(RecordError::Newer(String::FORMAT + 1)));
    }
}
