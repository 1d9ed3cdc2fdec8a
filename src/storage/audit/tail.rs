//! EDGE: following the audit log while others append to it.

use super::disk::{Disk, Folder};
use super::error::AuditError;
use super::log::AuditPlace;
use super::read::{Order, Reader};
use super::segments::{segment_name, segments};
use crate::audit::{FrameFault, Record, SEGMENT_HEADER, SegmentHeader, next_frame, parse_frame};

/// Bytes that are read at a time: more than the longest record.
const CHUNK: u64 = 256 << 10;
/// Bytes of the longest record, rounded up.
const LONGEST_RECORD: usize = 66 << 10;
/// Most chunks and segments that one call looks at, so that a log full of damage keeps
/// nobody busy.
const MOST_STEPS: usize = 64;

/// A place in a log from which it is read on, record by record, also while records are
/// appended. Takes no lock.
#[derive(Debug)]
pub struct Tail<D> {
    disk: D,
    /// Segment and offset of the next record; `None` if the segment is to be found.
    at: Option<(u64, u64)>,
    /// Number of the last record that was read.
    last: u64,
    /// Whether the records after `last` were searched from the beginning of the segment.
    searched: bool,
}

/// Follows a door's log.
pub type AuditTail = Tail<Folder>;

impl AuditTail {
    /// The log beside a gallery, from the record after this number.
    pub fn after(place: &AuditPlace, number: u64) -> Self {
        Self::on(place.disk(), number)
    }
}

/// Records in the bytes of a segment.
struct Found {
    records: Vec<Record>,
    /// Bytes up to the end of the last whole record, or of damage that was passed over.
    bytes: usize,
    /// The last record is not the one after the record before.
    gap: bool,
}

impl<D: Disk> Tail<D> {
    /// Follows the log in this folder from the record after this number.
    pub fn on(disk: D, number: u64) -> Self {
        Self { disk, at: None, last: number, searched: false }
    }

    /// Number of the last record that was read.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Number of the oldest record that is there; `None` if there is none.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn oldest(&self) -> Result<Option<u64>, AuditError> {
        Ok(segments(&self.disk)?.first().copied())
    }

    /// Number of the newest record; 0 if there is none.
    ///
    /// # Errors
    /// If the folder or the newest segment cannot be read.
    pub fn newest(&self) -> Result<u64, AuditError>
    where
        D: Clone,
    {
        let reader = Reader::on(self.disk.clone());
        let newest = reader.records(1..=u64::MAX, Order::NewestFirst)?.next().transpose()?;
        Ok(newest.map_or(0, |record| record.number))
    }

    /// Up to `most` of the next records, in order; fewer, also none, if there are no more
    /// yet. Numbers rise, with a gap where records have expired or are damaged.
    ///
    /// # Errors
    /// If the folder or a segment cannot be read. The next call tries again.
    pub fn records(&mut self, most: usize) -> Result<Vec<Record>, AuditError> {
        let mut all = Vec::new();
        for _ in 0..MOST_STEPS {
            if all.len() >= most {
                break;
            }
            let Some((segment, offset)) = self.at else {
                let Some(segment) = self.find(self.last)? else { break };
                self.at = Some((segment, 0));
                continue;
            };
            let name = segment_name(segment);
            let bytes = self.disk.read(&name, offset, CHUNK);
            let Some(bytes) = bytes.map_err(AuditError::io(self.disk.shown(&name)))? else {
                // It has expired.
                self.at = None;
                continue;
            };
            let cut = bytes.len() as u64 >= CHUNK;
            let found = self.parse(&bytes, offset == 0, cut, most - all.len());
            if found.gap && offset > 0 && !std::mem::replace(&mut self.searched, true) {
                // The file was repaired, and is another one at this place.
                self.at = Some((segment, 0));
                continue;
            }
            self.at = Some((segment, offset + found.bytes as u64));
            if let Some(last) = found.records.last() {
                self.last = last.number;
                self.searched = false;
            }
            let none = found.records.is_empty();
            all.extend(found.records);
            if none && found.bytes == 0 {
                let next = segments(&self.disk)?.into_iter().find(|first| *first > segment);
                match next {
                    Some(next) => self.at = Some((next, 0)),
                    None => break,
                }
            }
        }
        Ok(all)
    }

    /// The segment with the record after a number, or the oldest one after it.
    fn find(&self, number: u64) -> Result<Option<u64>, AuditError> {
        let all = segments(&self.disk)?;
        let holds = all.iter().rev().find(|first| **first <= number.saturating_add(1));
        Ok(holds.or(all.first()).copied())
    }

    /// The records after `last`. `begins` is whether the bytes begin with a header, `cut`
    /// whether the file goes on after them.
    fn parse(&self, bytes: &[u8], begins: bool, cut: bool, most: usize) -> Found {
        let header = begins && SegmentHeader::parse(bytes).is_ok();
        let mut at = if header { SEGMENT_HEADER } else { 0 };
        let (mut records, mut last, mut gap, mut effort) = (Vec::new(), self.last, false, 0);
        while records.len() < most {
            let rest = bytes.get(at..).unwrap_or_default();
            let (skipped, frame) = match parse_frame(rest) {
                Ok(frame) => (0, frame),
                Err(FrameFault::Short) if cut => break,
                // What is being written is no whole record yet, and nothing follows it.
                Err(_) => match next_frame(rest, 1, &mut effort) {
                    Some(found) => found,
                    None => break,
                },
            };
            at += skipped + frame.bytes;
            if frame.number <= last {
                continue;
            }
            gap |= frame.number != last.saturating_add(1);
            last = frame.number;
            // A record of a later version is passed over, as if it were damaged.
            records.extend(frame.record().ok());
        }
        if at == 0 && cut {
            // No record is as long as that: damage.
            at = bytes.len().saturating_sub(LONGEST_RECORD);
        }
        Found { records, bytes: at, gap }
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::{Files, Memory};
    use super::*;
    use crate::audit::{ClockTrust, Kind, Link, Stamp, encode, next};
    use proptest::prelude::*;

    /// Names of segments with their bytes, of records with these lengths of bodies; a new
    /// segment begins at each `true`.
    fn log(first: u64, records: &[(usize, bool)]) -> Vec<(u64, Vec<u8>)> {
        let stamp = Stamp { boot: [1; 16], monotonic: 2, wall: 3, clock: ClockTrust::Trusted };
        let mut link = Link { number: first - 1, hash: [0; 32] };
        let mut all: Vec<(u64, Vec<u8>)> = vec![];
        for (length, new) in records {
            if *new || all.is_empty() {
                let header = SegmentHeader { log: [7; 16], after: link };
                all.push((link.number + 1, header.encode().to_vec()));
            }
            let content = next(&link, &stamp, Kind::Entry, &vec![42; *length]);
            let (bytes, after) = encode(&link, &content);
            all.last_mut().expect("a segment").1.extend(bytes);
            link = after;
        }
        all
    }

    fn disk(segments: &[(u64, Vec<u8>)]) -> Memory {
        let name = |first: &u64| format!("log/{}", segment_name(*first));
        let files: Files =
            segments.iter().map(|(first, bytes)| (name(first), bytes.clone())).collect();
        let [disk, _] = Memory::pair(files);
        disk
    }

    fn set(disk: &Memory, first: u64, bytes: Option<&[u8]>) {
        let name = format!("log/{}", segment_name(first));
        let mut state = disk.state.borrow_mut();
        match bytes {
            Some(bytes) => state.files.insert(name, bytes.to_vec()),
            None => state.files.remove(&name),
        };
    }

    fn numbers(tail: &mut Tail<Memory>, most: usize) -> Vec<u64> {
        tail.records(most).expect("readable").iter().map(|record| record.number).collect()
    }

    #[test]
    fn records_come_in_order_from_any_number_on_and_over_segments() {
        let segments = log(5, &[(10, true), (0, false), (60_000, false), (9, true), (9, true)]);
        let disk = disk(&segments);
        for (after, expected) in
            [(0, vec![5, 6, 7, 8, 9]), (6, vec![7, 8, 9]), (9, vec![]), (90, vec![])]
        {
            let mut tail = Tail::on(disk.clone(), after);
            assert_eq!(numbers(&mut tail, 100), expected, "after {after}");
            assert_eq!(numbers(&mut tail, 100), Vec::<u64>::new());
        }
        let mut tail = Tail::on(disk, 0);
        assert_eq!((tail.oldest().expect("read"), tail.newest().expect("read")), (Some(5), 9));
        assert_eq!([numbers(&mut tail, 2), numbers(&mut tail, 2)], [[5, 6], [7, 8]]);
    }

    #[test]
    fn expired_segments_leave_a_gap_and_repaired_ones_do_not() {
        let segments = log(1, &[(10, true), (10, false), (10, true), (10, true)]);
        let disk = disk(&segments);
        let mut tail = Tail::on(disk.clone(), 0);
        assert_eq!(numbers(&mut tail, 1), [1]);
        set(&disk, 1, None);
        set(&disk, 3, None);
        assert_eq!(numbers(&mut tail, 9), [4]);
        // A torn end that was read as nothing is cut, and other records follow.
        let whole = log(1, &[(10, true), (10, false), (500, false), (10, false)]).remove(0).1;
        let first = log(1, &[(10, true), (10, false)]).remove(0).1.len();
        let other = self::disk(&[(1, whole[..first + 200].to_vec())]);
        let mut tail = Tail::on(other.clone(), 0);
        assert_eq!(numbers(&mut tail, 9), [1, 2]);
        set(&other, 1, Some(&whole));
        assert_eq!(numbers(&mut tail, 9), [3, 4]);
    }

    #[test]
    fn damage_costs_the_damaged_record_alone() {
        let (_, mut bytes) = log(1, &[(100, true), (100, false), (100, false)]).remove(0);
        let one = (bytes.len() - SEGMENT_HEADER) / 3;
        bytes[SEGMENT_HEADER + one + 60] ^= 1;
        let mut tail = Tail::on(disk(&[(1, bytes)]), 0);
        assert_eq!(numbers(&mut tail, 9), [1, 3]);
        // A file of zeros longer than a chunk, and a segment after it.
        let (first, after) = log(4, &[(1, true)]).remove(0);
        let mut tail = Tail::on(disk(&[(1, vec![0; 2 * CHUNK as usize]), (first, after)]), 0);
        assert_eq!(numbers(&mut tail, 9), [4]);
    }

    proptest! {
        #[test]
        fn however_the_log_grows_each_record_comes_once(
            records in prop::collection::vec((0usize..300, prop::bool::weighted(0.1)), 1..40),
            cuts in prop::collection::vec(0usize..9000, 0..12),
            most in 1usize..8,
        ) {
            let segments = log(1, &records);
            let whole: usize = segments.iter().map(|(_, bytes)| bytes.len()).sum();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (whole + 1)).collect();
            cuts.sort_unstable();
            cuts.push(whole);
            let disk = disk(&[]);
            let mut tail = Tail::on(disk.clone(), 0);
            let mut seen = vec![];
            for cut in cuts {
                // The log as far as it was written then.
                let mut left = cut;
                for (first, bytes) in &segments {
                    let written = left.min(bytes.len());
                    left -= written;
                    if written > 0 {
                        set(&disk, *first, Some(&bytes[..written]));
                    }
                }
                loop {
                    let more = numbers(&mut tail, most);
                    prop_assert!(more.len() <= most);
                    if more.is_empty() {
                        break;
                    }
                    seen.extend(more);
                }
            }
            let expected: Vec<u64> = (1..=records.len() as u64).collect();
            prop_assert_eq!(seen, expected);
        }

        #[test]
        fn no_bytes_panic_or_repeat(
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
            at in any::<prop::sample::Index>(),
        ) {
            let (first, mut whole) = log(1, &[(100, true), (100, false)]).remove(0);
            let from = at.index(whole.len());
            whole.splice(from.., bytes);
            let mut tail = Tail::on(disk(&[(first, whole)]), 0);
            let mut last = 0;
            for _ in 0..10 {
                for number in numbers(&mut tail, 3) {
                    prop_assert!(number > last);
                    last = number;
                }
            }
        }
    }
}
