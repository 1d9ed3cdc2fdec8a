//! Records and segments as bytes. All numbers are little-endian.
//!
//! ```text
//! segment: header, then records
//! header:  "facelatch audit\n" 16 | version 4 | log id 16 | number of the first record 8
//!          | hash before it 32 | CRC-32 of all that 4
//! record:  length of the content 4 | CRC-32 of length, content and hash 4
//!          | content | hash 32
//! content: number 8 | boot 16 | monotonic 8 | wall 8 | clock trusted 1 | kind 1 | body
//! hash:    SHA-256("facelatch audit record\0", hash of the record before, content)
//! ```

use super::chain::{Hash, Link, LogId};
use super::{ClockTrust, Kind, Record, Stamp};
use thiserror::Error;

/// Longest body of a record, bytes.
pub const LARGEST_BODY: usize = 64 << 10;
/// Largest segment, bytes; larger files are no segments.
pub const LARGEST_SEGMENT: u64 = 8 << 20;
/// Bytes of the header of a segment.
pub const SEGMENT_HEADER: usize = 80;

/// Bytes of a content without its body.
pub(super) const FIXED: usize = 42;
/// Bytes before the content.
const PREFIX: usize = 8;
/// Bytes of a record around its content.
const AROUND: usize = PREFIX + 32;

const MAGIC: &[u8; 16] = b"facelatch audit\n";
/// Version of the format.
const VERSION: u32 = 1;

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FrameFault {
    /// The bytes end within the record.
    #[error("it is cut short")]
    Short,
    /// No record has this length.
    #[error("its length is impossible")]
    Length,
    /// The checksum is wrong.
    #[error("its checksum is wrong")]
    Checksum,
    /// A field has a value that this version does not know.
    #[error("it has a field that this version does not know")]
    Field,
}

/// A record within the bytes of a segment, with its checksum verified.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'b> {
    /// The fields and the body, as the chain hashes them.
    pub content: &'b [u8],
    /// The hash stored with it.
    pub hash: Hash,
    /// Bytes from its beginning to the next record.
    pub bytes: usize,
    /// Its number.
    pub number: u64,
}

impl Frame<'_> {
    /// The record.
    ///
    /// # Errors
    /// If a field has an unknown value.
    pub fn record(&self) -> Result<Record, FrameFault> {
        let (number, stamp, kind) = fields(self.content).ok_or(FrameFault::Field)?;
        let body = self.content.get(FIXED..).unwrap_or_default().to_vec();
        Ok(Record { number, stamp, kind, body })
    }

    /// The place in the chain after this record, as stored.
    pub fn link(&self) -> Link {
        Link { number: self.number, hash: self.hash }
    }
}

/// The content of a record without its body.
pub(super) fn fixed(number: u64, stamp: &Stamp, kind: Kind) -> [u8; FIXED] {
    let mut bytes = [0; FIXED];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[8..24].copy_from_slice(&stamp.boot);
    bytes[24..32].copy_from_slice(&stamp.monotonic.to_le_bytes());
    bytes[32..40].copy_from_slice(&stamp.wall.to_le_bytes());
    bytes[40] = u8::from(stamp.clock == ClockTrust::Trusted);
    bytes[41] = match kind {
        Kind::Entry => 0,
        Kind::Note => 1,
        Kind::Head => 2,
    };
    bytes
}

/// Number, times and kind of a content. `None` if a field has an unknown value.
pub(super) fn fields(content: &[u8]) -> Option<(u64, Stamp, Kind)> {
    let (number, rest) = content.split_first_chunk::<8>()?;
    let (boot, rest) = rest.split_first_chunk::<16>()?;
    let (monotonic, rest) = rest.split_first_chunk::<8>()?;
    let (wall, rest) = rest.split_first_chunk::<8>()?;
    let ([clock, kind], _) = rest.split_first_chunk::<2>()?;
    let clock = match clock {
        0 => ClockTrust::Unsure,
        1 => ClockTrust::Trusted,
        _ => return None,
    };
    let kind = match kind {
        0 => Kind::Entry,
        1 => Kind::Note,
        2 => Kind::Head,
        _ => return None,
    };
    let monotonic = u64::from_le_bytes(*monotonic);
    let wall = i64::from_le_bytes(*wall);
    Some((u64::from_le_bytes(*number), Stamp { boot: *boot, monotonic, wall, clock }, kind))
}

/// When the record with this content was made.
pub fn stamp_of(content: &[u8]) -> Option<Stamp> {
    fields(content).map(|(_, stamp, _)| stamp)
}

/// The content of the record that follows a place in the chain.
pub fn next(after: &Link, stamp: &Stamp, kind: Kind, body: &[u8]) -> Vec<u8> {
    [&fixed(after.number.saturating_add(1), stamp, kind), body].concat()
}

/// The bytes of a record that follows a place in the chain, and the place after it.
pub fn encode(after: &Link, content: &[u8]) -> (Vec<u8>, Link) {
    let hash = after.next(content);
    let mut bytes = Vec::with_capacity(content.len() + AROUND);
    bytes.extend((content.len() as u32).to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(content);
    bytes.extend(hash);
    let sum = checksum(&bytes).to_le_bytes();
    bytes[4..8].copy_from_slice(&sum);
    let number = content.first_chunk::<8>().map_or(0, |number| u64::from_le_bytes(*number));
    (bytes, Link { number, hash })
}

/// CRC-32 of a record without the field of the checksum.
fn checksum(frame: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(frame.get(..4).unwrap_or_default());
    hasher.update(frame.get(PREFIX..).unwrap_or_default());
    hasher.finalize()
}

/// The record at the beginning of these bytes. Verifies the checksum; the chain is for the
/// caller to verify.
///
/// # Errors
/// If the bytes do not begin with a whole record.
pub fn parse_frame(bytes: &[u8]) -> Result<Frame<'_>, FrameFault> {
    let length = bytes.first_chunk::<4>().ok_or(FrameFault::Short)?;
    let length = u32::from_le_bytes(*length) as usize;
    if !(FIXED..=FIXED + LARGEST_BODY).contains(&length) {
        return Err(FrameFault::Length);
    }
    let frame = bytes.get(..length + AROUND).ok_or(FrameFault::Short)?;
    let stored = frame.get(4..PREFIX).and_then(|sum| sum.first_chunk::<4>());
    if stored.map(|sum| u32::from_le_bytes(*sum)) != Some(checksum(frame)) {
        return Err(FrameFault::Checksum);
    }
    let (around, hash) = frame.split_last_chunk::<32>().ok_or(FrameFault::Short)?;
    let content = around.get(PREFIX..).ok_or(FrameFault::Short)?;
    let number = content.first_chunk::<8>().ok_or(FrameFault::Short)?;
    let number = u64::from_le_bytes(*number);
    Ok(Frame { content, hash: *hash, bytes: frame.len(), number })
}

/// Most bytes whose checksum is computed in search of a record, per segment: bytes that
/// somebody has crafted must not keep the search busy for hours.
const MOST_EFFORT: usize = 256 << 20;

/// The first whole record at or after an offset. `effort` counts the bytes whose checksum was
/// computed in vain, for several searches in one segment; begin with 0.
pub fn next_frame<'b>(
    bytes: &'b [u8],
    from: usize,
    effort: &mut usize,
) -> Option<(usize, Frame<'b>)> {
    for at in from..bytes.len() {
        let rest = bytes.get(at..)?;
        match parse_frame(rest) {
            Ok(frame) => return Some((at, frame)),
            Err(FrameFault::Checksum) => {
                let length = rest.first_chunk::<4>().map_or(0, |four| u32::from_le_bytes(*four));
                *effort += length as usize + AROUND;
                if *effort > MOST_EFFORT {
                    return None;
                }
            }
            Err(_) => {}
        }
    }
    None
}

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The log that it belongs to.
    pub log: LogId,
    /// The place in the chain before its first record.
    pub after: Link,
}

impl SegmentHeader {
    /// As bytes.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[..16].copy_from_slice(MAGIC);
        bytes[16..20].copy_from_slice(&VERSION.to_le_bytes());
        bytes[20..36].copy_from_slice(&self.log);
        bytes[36..44].copy_from_slice(&self.after.number.saturating_add(1).to_le_bytes());
        bytes[44..76].copy_from_slice(&self.after.hash);
        let sum = crc32fast::hash(&bytes[..76]).to_le_bytes();
        bytes[76..].copy_from_slice(&sum);
        bytes
    }

    /// The header at the beginning of these bytes.
    ///
    /// # Errors
    /// If there is none: the fault and, where there is one, the cure.
    pub fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let header = bytes.first_chunk::<SEGMENT_HEADER>().ok_or("its header is cut short")?;
        let (content, sum) = header.split_last_chunk::<4>().ok_or("its header is cut short")?;
        let (magic, rest) = content.split_first_chunk::<16>().ok_or("it is no segment")?;
        if magic != MAGIC {
            return Err("it is no segment of an audit log, or its beginning is damaged");
        }
        if crc32fast::hash(content) != u32::from_le_bytes(*sum) {
            return Err("the checksum of its header is wrong");
        }
        let (version, rest) = rest.split_first_chunk::<4>().ok_or("it is no segment")?;
        if u32::from_le_bytes(*version) != VERSION {
            return Err("it has a newer format; read it with a newer facelatch");
        }
        let (log, rest) = rest.split_first_chunk::<16>().ok_or("it is no segment")?;
        let (first, hash) = rest.split_first_chunk::<8>().ok_or("it is no segment")?;
        let first = u64::from_le_bytes(*first).checked_sub(1);
        let number = first.ok_or("its first number is impossible")?;
        let hash = *hash.first_chunk::<32>().ok_or("it is no segment")?;
        Ok(Self { log: *log, after: Link { number, hash } })
    }
}
