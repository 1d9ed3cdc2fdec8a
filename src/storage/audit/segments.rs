//! Names of segments, and the records in their bytes.

use super::disk::Disk;
use super::error::AuditError;
use crate::audit::{
    Frame, Hash, LARGEST_SEGMENT, Link, SEGMENT_HEADER, SegmentHeader, next_frame, parse_frame,
};

/// End of the name of a segment.
const ENDING: &str = ".log";
/// Digits of its number.
const DIGITS: usize = 20;

/// Name of the segment that begins with this record.
pub(super) fn segment_name(first: u64) -> String {
    format!("{first:0DIGITS$}{ENDING}")
}

/// Number of the first record of a segment; `None` if the name is of another file.
pub(super) fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(ENDING).filter(|digits| digits.len() == DIGITS)?;
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok());
    // No log has that many records; those that follow must have numbers as well.
    number.flatten().filter(|number| *number <= u64::MAX / 2)
}

/// First numbers of all segments, in order.
pub(super) fn segments<D: Disk>(disk: &D) -> Result<Vec<u64>, AuditError> {
    let names = disk.names().map_err(AuditError::io(disk.shown("")))?;
    let mut segments: Vec<u64> = names.iter().filter_map(|name| first_of(name)).collect();
    segments.sort_unstable();
    Ok(segments)
}

/// The bytes of a segment from an offset; `None` if it is gone.
pub(super) fn read_segment<D: Disk>(
    disk: &D,
    first: u64,
    from: u64,
) -> Result<Option<Vec<u8>>, AuditError> {
    let name = segment_name(first);
    let limit = LARGEST_SEGMENT.saturating_sub(from);
    let bytes = disk.read(&name, from, limit + 1).map_err(AuditError::io(disk.shown(&name)))?;
    match bytes {
        Some(bytes) if bytes.len() as u64 > limit => Err(AuditError::Damaged {
            file: disk.shown(&name),
            fault: format!("larger than {} MB, so it is no segment", LARGEST_SEGMENT >> 20),
        }),
        bytes => Ok(bytes),
    }
}

/// The whole records in the bytes of a segment, each with its offset. What is no record is
/// skipped up to the next one.
pub(super) fn frames(bytes: &[u8]) -> impl Iterator<Item = (usize, Frame<'_>)> {
    let mut at = match SegmentHeader::parse(bytes) {
        Ok(_) => SEGMENT_HEADER,
        Err(_) => 0,
    };
    let mut effort = 0;
    std::iter::from_fn(move || {
        let (found, frame) = next_frame(bytes, at, &mut effort)?;
        at = found + frame.bytes;
        Some((found, frame))
    })
}

/// Reads on in a chain. Returns the number of bytes of whole records that follow each other,
/// and the place after them.
pub(super) fn follow(bytes: &[u8], from: usize, link: Link) -> (usize, Link) {
    let (mut at, mut link) = (from, link);
    while let Some(frame) = bytes.get(at..).and_then(|rest| parse_frame(rest).ok())
        && continues(&link, &frame)
    {
        at += frame.bytes;
        link = frame.link();
    }
    (at, link)
}

/// Whether a record follows a place in the chain. A note that records were cut continues
/// after their numbers.
fn continues(link: &Link, frame: &Frame<'_>) -> bool {
    let next = link.number.checked_add(1);
    let number = next == Some(frame.number)
        || frame.record().ok().and_then(|record| record.note()).is_some_and(|note| {
            matches!(note, crate::audit::Note::Cut { from, through }
                if Some(from) == next && through.checked_add(1) == Some(frame.number))
        });
    number && link.next(frame.content) == frame.hash
}

/// Hash of a record as stored in a segment.
pub(super) fn hash_of(bytes: &[u8], number: u64) -> Option<Hash> {
    frames(bytes).find(|(_, frame)| frame.number == number).map(|(_, frame)| frame.hash)
}
