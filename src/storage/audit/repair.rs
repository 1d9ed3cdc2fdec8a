//! What is found when the log is opened or others have appended: a torn end is cut off, and
//! what signed heads prove and is missing is noted.

use super::disk::Disk;
use super::error::AuditError;
use super::log::{End, HEADS, Log};
use super::segments::{follow, frames, hash_of, read_segment, segment_name, segments};
use crate::audit::{Head, Kind, Link, Note, SegmentHeader, Stamp, next, next_frame};
use crate::crypto::Signer;

/// Torn ends of the log that are kept, and the most bytes of each.
const MOST_TORN: usize = 16;
const LARGEST_TORN: usize = 1 << 20;
/// Longest note, bytes.
const LARGEST_NOTE: u64 = 1024;
/// Beginning of the names of files that keep a torn end.
const TORN: &str = "torn-";

impl<D: Disk + Clone> Log<D> {
    /// Reads the last segment from a place on.
    pub(super) fn read_on(&mut self, from: End, now: &Stamp) -> Result<End, AuditError> {
        let offset = from.bytes;
        let bytes = read_segment(&self.disk, from.segment, offset)?.unwrap_or_default();
        let newest = self.newest_head();
        let proven = newest.map_or(0, |head| head.number);
        let (mut at, mut link) = follow(&bytes, 0, from.link);
        // Records up to the newest head were on the disk before it. Where one of them is
        // damaged, those after it stay; `facelatch log verify` names it.
        let mut from_here = at;
        let mut effort = 0;
        while let Some((found, frame)) = next_frame(&bytes, from_here, &mut effort) {
            from_here = found + frame.bytes;
            if frame.number > proven {
                break;
            }
            (at, link) = follow(&bytes, from_here, frame.link());
            from_here = at;
        }
        let mut end = End { bytes: offset + at as u64, link, ..from };
        end.head = newest.filter(|head| head.number == link.number).map_or(from.head, |h| h.number);
        let torn = bytes.get(at..).unwrap_or_default();
        self.end = Some(end);
        if !torn.is_empty() {
            let kept = self.keep_torn(link.number.saturating_add(1), torn);
            let name = segment_name(end.segment);
            self.fault(&name, self.disk.cut(&name, end.bytes))?;
            let note = Note::Torn { bytes: torn.len() as u64, kept };
            self.put(end, &next(&end.link, now, Kind::Note, &note.encode()))?;
            self.sync()?;
            log::warn!(
                "{}: its last {} bytes are no whole record, as after a power cut; they were cut \
                 off",
                self.disk.shown(&name).display(),
                torn.len()
            );
        }
        self.compare(newest, now)
    }

    /// Compares the end of the log with the newest head. What it proves and is missing is noted.
    pub(super) fn compare(&mut self, newest: Option<Head>, now: &Stamp) -> Result<End, AuditError> {
        let end = self.end.ok_or_else(|| AuditError::Absent { folder: self.disk.shown("") })?;
        let Some(head) = newest else { return Ok(end) };
        if head.number > end.link.number {
            let (from, through) = (end.link.number.saturating_add(1), head.number);
            let jumped = End { link: Link { number: through, hash: end.link.hash }, ..end };
            let note = Note::Cut { from, through };
            self.put(jumped, &next(&jumped.link, now, Kind::Note, &note.encode()))?;
            self.sync()?;
            log::error!(
                "{}: records {from} to {through} of the audit log are missing, although a signed \
                 head proves that they were there",
                self.disk.shown("").display()
            );
        }
        self.end.ok_or_else(|| AuditError::Absent { folder: self.disk.shown("") })
    }

    /// Compares the record that the newest head is with the log: somebody may have written
    /// the log again. Once, when the log is opened.
    pub(super) fn check_newest(&mut self, now: &Stamp) -> Result<(), AuditError> {
        let Some(key) = self.signer.as_ref().map(Signer::public) else { return Ok(()) };
        let memory = self.memory.as_ref().and_then(|memory| memory.newest().ok().flatten());
        let heads = self.heads.newest().ok().flatten();
        for head in
            heads.iter().chain(memory.iter().filter(|memory| heads.as_ref() != Some(memory)))
        {
            if head.verify(&key).is_ok() {
                self.check_head(head, now)?;
            }
        }
        Ok(())
    }

    pub(super) fn check_head(&mut self, head: &Head, now: &Stamp) -> Result<(), AuditError> {
        let Some(end) = self.end else { return Ok(()) };
        let there = segments(&self.disk)?;
        let Some(first) = there.into_iter().rfind(|first| *first <= head.number) else {
            return Ok(());
        };
        let bytes = read_segment(&self.disk, first, 0)?.unwrap_or_default();
        // Records that were cut are noted already, and so is another log in its place.
        let found = hash_of(&bytes, head.number);
        let kept = self.fault(HEADS, self.heads.kept())?;
        if found == Some(head.link().hash)
            || found.is_none() && head.number < end.link.number && self.is_cut(&bytes, head)
            || kept.contains(head)
        {
            return Ok(());
        }
        self.fault(HEADS, self.heads.keep(head))?;
        let note = Note::Differs { number: head.number };
        let end = self.make_room(end, LARGEST_NOTE, now)?;
        self.put(end, &next(&end.link, now, Kind::Note, &note.encode()))?;
        log::error!(
            "{}: record {} of the audit log is not the one that was signed; facelatch log verify \
             says more",
            self.disk.shown("").display(),
            head.number
        );
        Ok(())
    }

    /// Whether a note in these bytes says that the record of a head was cut.
    pub(super) fn is_cut(&self, bytes: &[u8], head: &Head) -> bool {
        frames(bytes).any(|(_, frame)| {
            frame.number > head.number
                && frame.record().ok().and_then(|record| record.note()).is_some_and(
                    |note| matches!(note, Note::Cut { from, through } if (from..=through).contains(&head.number)),
                )
        })
    }

    /// Continues in a new segment where the header of the last one is damaged.
    pub(super) fn continue_damaged(
        &mut self,
        there: &[u64],
        bytes: &[u8],
    ) -> Result<End, AuditError> {
        let mut link = Link { number: 0, hash: [0; 32] };
        for (_, frame) in frames(bytes) {
            if frame.number > link.number {
                link = frame.link();
            }
        }
        let mut log = self.newest_head().map(|head| head.log);
        for first in there.iter().rev() {
            if log.is_none() {
                let bytes = read_segment(&self.disk, *first, 0)?.unwrap_or_default();
                log = SegmentHeader::parse(&bytes).ok().map(|header| header.log);
            }
        }
        self.new_segment(&log.unwrap_or_default(), link)
    }

    /// Keeps the end of the log that is no whole record. Returns the name of the file.
    pub(super) fn keep_torn(&self, number: u64, bytes: &[u8]) -> Option<String> {
        let mut torn: Vec<String> =
            self.disk.names().ok()?.into_iter().filter(|name| name.starts_with(TORN)).collect();
        torn.sort();
        let excess = (torn.len() + 1).saturating_sub(MOST_TORN);
        for name in torn.iter().take(excess) {
            let _ = self.disk.remove(name);
        }
        let name = (1..=MOST_TORN)
            .map(|again| format!("{TORN}{number:020}-{again:02}"))
            .find(|name| !torn.contains(name))?;
        let bytes = &bytes[..bytes.len().min(LARGEST_TORN)];
        self.disk.create(&name, bytes).ok()?;
        self.disk.sync(&name).ok()?;
        self.disk.sync_folder().ok()?;
        Some(name)
    }
}
