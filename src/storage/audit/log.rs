//! EDGE: appending to the audit log. Several processes may append: each takes the lock of
//! the folder, reads what others have appended, and writes its records after it.

use super::disk::{Disk, Folder};
use super::error::AuditError;
use super::heads::HeadsFile;
use super::segments::{follow, frames, hash_of, read_segment, segment_name, segments};
use crate::audit::{
    ClockTrust, Head, Kind, LARGEST_BODY, Link, LogId, Note, SEGMENT_HEADER, SegmentHeader, Stamp,
    encode, next, next_frame,
};
use crate::crypto::{Secret, Signer};
use crate::storage::gallery::Register;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Name of the file of heads.
pub(super) const HEADS: &str = "heads";
/// Name of the file with the door's public key.
pub(super) const KEY: &str = "key.pub";
/// Segments into which the largest log is divided.
const SEGMENTS: u64 = 64;
/// Smallest and largest segment that is begun, bytes.
const SEGMENT_SIZES: (u64, u64) = (64 << 10, 4 << 20);
/// Torn ends of the log that are kept, and the most bytes of each.
const MOST_TORN: usize = 16;
const LARGEST_TORN: usize = 1 << 20;
/// A segment goes by age once heads of this many days say that it is too old: a clock that
/// jumps ahead for a moment must not cost the log.
const DAYS_AGREE: usize = 3;
const DAY: i64 = 86_400_000_000;
/// A segment is closed when it is older than this part of the time for which records are
/// kept, so that they go soon after it.
const AGES: i64 = 16;
/// Bytes around the body of a record, and of the head after it.
const AROUND_BODY: u64 = 82 + 146;
/// Longest note, bytes.
const LARGEST_NOTE: u64 = 1024;
/// Beginning of the names of files that keep a torn end.
const TORN: &str = "torn-";

/// Bounds of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Segments go when they are older than this.
    pub keep_for: Duration,
    /// The oldest segments go when the log is larger than this, bytes.
    pub largest: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { keep_for: Self::YEAR, largest: 256_000_000 }
    }
}

impl Bounds {
    /// 365 days.
    pub const YEAR: Duration = Duration::from_secs(365 * 86_400);

    /// Size at which a segment is closed, bytes.
    fn segment(&self) -> u64 {
        (self.largest / SEGMENTS).clamp(SEGMENT_SIZES.0, SEGMENT_SIZES.1)
    }

    fn keep_for_micros(&self) -> i64 {
        i64::try_from(self.keep_for.as_micros()).unwrap_or(i64::MAX)
    }
}

/// Where the log of a door is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditPlace {
    /// The gallery: the log is in a folder beside it and named after it.
    pub gallery: PathBuf,
    /// A folder apart from it, which remembers the newest head. `None` if there is none.
    pub register: Option<Register>,
}

impl AuditPlace {
    /// The place of the log of the door with this gallery, with the register of this user.
    pub fn of(gallery: &Path) -> Self {
        Self { gallery: gallery.to_owned(), register: Register::of_user() }
    }

    /// The folder: `gallery.redb.audit` for `gallery.redb`.
    pub fn folder(&self) -> PathBuf {
        let mut name = self.gallery.file_name().unwrap_or_default().to_owned();
        name.push(".audit");
        self.gallery.with_file_name(name)
    }

    pub(super) fn disk(&self) -> Folder {
        Folder::at(self.folder(), 0o750)
    }

    pub(super) fn memory(&self) -> Option<HeadsFile<Folder>> {
        let register = self.register.as_ref()?;
        let disk = Folder::at(register.folder().to_owned(), 0o700);
        Some(HeadsFile { disk, name: register.audit_name(&self.gallery) })
    }
}

/// The end of the log as far as this process has read it.
#[derive(Clone, Copy, Debug)]
struct End {
    log: LogId,
    /// First record of the last segment.
    segment: u64,
    /// Bytes of the last segment.
    bytes: u64,
    link: Link,
    /// Number of the newest head if nothing follows it, else of an older one.
    head: u64,
    /// Wall clock of the first record of the last segment, if it was trusted.
    began: Option<i64>,
}

/// The audit log, opened to append to it.
#[derive(Debug)]
pub struct Log<D> {
    disk: D,
    heads: HeadsFile<D>,
    memory: Option<HeadsFile<D>>,
    bounds: Bounds,
    signer: Option<Signer>,
    end: Option<End>,
    /// The register could not be written, which was logged.
    forgetful: bool,
}

/// The audit log of a door in its folder.
pub type AuditLog = Log<Folder>;

impl AuditLog {
    /// Opens the log, and begins it if there is none. An end that a power cut has torn is cut
    /// to the last whole record. `signer` is the door's key; without it the log gets no
    /// heads. `now` is for records of what was found.
    ///
    /// # Errors
    /// If the gallery is missing, or the folder cannot be read or written.
    pub fn open(
        place: &AuditPlace,
        bounds: Bounds,
        signer: Option<Signer>,
        now: &Stamp,
    ) -> Result<Self, AuditError> {
        if !place.gallery.exists() {
            return Err(AuditError::NoGallery { gallery: place.gallery.clone() });
        }
        Self::open_on(place.disk(), place.memory(), bounds, signer, now)
    }
}

impl<D: Disk + Clone> Log<D> {
    pub(super) fn open_on(
        disk: D,
        memory: Option<HeadsFile<D>>,
        bounds: Bounds,
        signer: Option<Signer>,
        now: &Stamp,
    ) -> Result<Self, AuditError> {
        disk.prepare().map_err(AuditError::io(disk.shown("")))?;
        let heads = HeadsFile { disk: disk.clone(), name: HEADS.to_owned() };
        let mut log = Self { disk, heads, memory, bounds, signer, end: None, forgetful: false };
        let lock = log.lock()?;
        log.catch_up(now)?;
        log.keep_key()?;
        log.check_newest(now)?;
        log.remove_expired(now)?;
        drop(lock);
        Ok(log)
    }

    /// Appends an entry. It is safe from a power cut only after [`Self::sync`]. Returns its
    /// number.
    ///
    /// # Errors
    /// If the body is longer than [`LARGEST_BODY`], or the log cannot be written. Then the
    /// log is as before.
    pub fn append(&mut self, stamp: &Stamp, body: &[u8]) -> Result<u64, AuditError> {
        if body.len() > LARGEST_BODY {
            return Err(AuditError::TooLong { bytes: body.len(), limit: LARGEST_BODY });
        }
        self.append_kind(stamp, Kind::Entry, body)
    }

    /// Like [`Self::append`], for what the log says about itself.
    ///
    /// # Errors
    /// If the log cannot be written.
    pub fn note(&mut self, stamp: &Stamp, note: &Note) -> Result<u64, AuditError> {
        self.append_kind(stamp, Kind::Note, &note.encode())
    }

    fn append_kind(&mut self, stamp: &Stamp, kind: Kind, body: &[u8]) -> Result<u64, AuditError> {
        let _lock = self.lock()?;
        let end = self.catch_up(stamp)?;
        let end = self.make_room(end, body.len() as u64, stamp)?;
        self.put(end, &next(&end.link, stamp, kind, body))
    }

    /// Waits until all records are on the disk, and returns how long that took.
    ///
    /// # Errors
    /// If the disk does not take them.
    pub fn sync(&mut self) -> Result<Duration, AuditError> {
        let began = Instant::now();
        if let Some(end) = self.end {
            let name = segment_name(end.segment);
            self.disk.sync(&name).map_err(AuditError::io(self.disk.shown(&name)))?;
        }
        Ok(began.elapsed())
    }

    /// Signs all records so far, if there are any after the newest head, and syncs. Returns
    /// the number of the head; `None` if there was nothing to sign, or no key to sign with.
    ///
    /// # Errors
    /// If the log or the file of heads cannot be written.
    pub fn sign(&mut self, stamp: &Stamp) -> Result<Option<u64>, AuditError> {
        let _lock = self.lock()?;
        let end = self.catch_up(stamp)?;
        if end.head == end.link.number {
            return Ok(None);
        }
        let end = self.make_room(end, 64, stamp)?;
        // Making room may have signed.
        if end.head == end.link.number {
            return Ok(Some(end.head));
        }
        self.put_head(end, stamp)
    }

    /// Removes the oldest segments as far as the bounds want it. Their last heads stay.
    ///
    /// # Errors
    /// If the log cannot be written.
    pub fn expire(&mut self, stamp: &Stamp) -> Result<(), AuditError> {
        let _lock = self.lock()?;
        self.catch_up(stamp)?;
        self.remove_expired(stamp)
    }

    /// Number of the last record; 0 if there is none.
    pub fn last(&self) -> u64 {
        self.end.map_or(0, |end| end.link.number)
    }

    fn lock(&self) -> Result<D::Lock, AuditError> {
        self.disk.lock().map_err(AuditError::io(self.disk.shown("lock")))
    }

    fn fault<T>(&self, name: &str, done: std::io::Result<T>) -> Result<T, AuditError> {
        done.map_err(AuditError::io(self.disk.shown(name)))
    }

    /// Writes a record at the end of the last segment.
    fn put(&mut self, end: End, content: &[u8]) -> Result<u64, AuditError> {
        let (bytes, link) = encode(&end.link, content);
        let name = segment_name(end.segment);
        if let Err(error) = self.disk.write(&name, end.bytes, &bytes) {
            // Part of it may be there. If that cannot be cut off now, the next record does.
            let _ = self.disk.cut(&name, end.bytes);
            return self.fault(&name, Err(error));
        }
        let began = match end.bytes == SEGMENT_HEADER as u64 {
            true => crate::audit::stamp_of(content).as_ref().and_then(trusted),
            false => end.began,
        };
        self.end = Some(End { bytes: end.bytes + bytes.len() as u64, link, began, ..end });
        Ok(link.number)
    }

    /// Writes a head, syncs the segment, and then makes it the newest head.
    fn put_head(&mut self, end: End, stamp: &Stamp) -> Result<Option<u64>, AuditError> {
        let Some(signer) = &self.signer else { return Ok(None) };
        let head = Head::sign(signer, &end.log, &end.link, stamp);
        let number = self.put(end, &head.content())?;
        if let Some(end) = &mut self.end {
            end.head = number;
        }
        self.sync()?;
        self.remember(&head)?;
        // One head of each day stays when its segment goes, and tells the age of the others.
        let day = |head: &Head| head.stamp.wall.div_euclid(DAY);
        let kept = self.fault(HEADS, self.heads.kept())?;
        if kept.last().is_none_or(|last| day(last) != day(&head)) {
            self.fault(HEADS, self.heads.keep(&head))?;
        }
        Ok(Some(number))
    }

    /// Notes the newest head. The records that it signs must be on the disk.
    fn remember(&mut self, head: &Head) -> Result<(), AuditError> {
        self.fault(HEADS, self.heads.set_newest(head))?;
        if let Some(memory) = &self.memory {
            let noted = memory.disk.prepare().and_then(|()| memory.set_newest(head));
            let failed = noted.is_err();
            if let Err(error) = noted
                && !self.forgetful
            {
                log::warn!(
                    "{}: {error}; without it a log that was cut and its heads replaced is not \
                     recognized",
                    memory.disk.shown(&memory.name).display()
                );
            }
            self.forgetful = failed;
        }
        Ok(())
    }

    /// The newest head that is remembered in either place.
    fn newest_head(&self) -> Option<Head> {
        let key = self.signer.as_ref().map(Signer::public);
        let memory = self.memory.as_ref().and_then(|memory| memory.newest().ok().flatten());
        let heads = self.heads.newest().ok().flatten();
        let valid = |head: &Head| key.is_none_or(|key| head.verify(&key).is_ok());
        heads.into_iter().chain(memory).filter(valid).max_by_key(|head| head.number)
    }

    /// Reads what others have appended, and repairs the end. Needs the lock.
    fn catch_up(&mut self, now: &Stamp) -> Result<End, AuditError> {
        let there = segments(&self.disk)?;
        let Some(last) = there.last().copied() else { return self.begin(now) };
        if let Some(end) = self.end.filter(|end| end.segment == last) {
            let name = segment_name(last);
            let bytes = self.fault(&name, self.disk.length(&name))?.unwrap_or(0);
            if bytes == end.bytes {
                return Ok(end);
            }
            // Somebody has appended; else it was cut, and is read again from its beginning.
            if bytes > end.bytes {
                return self.read_on(end, now);
            }
        }
        let bytes = read_segment(&self.disk, last, 0)?.unwrap_or_default();
        let header = match SegmentHeader::parse(&bytes) {
            Ok(header) if header.after.number.saturating_add(1) == last => header,
            // A power cut while it was begun: no record is in it.
            _ if next_frame(&bytes, 0, &mut 0).is_none() => {
                let name = segment_name(last);
                self.keep_torn(last, &bytes);
                self.fault(&name, self.disk.remove(&name))?;
                self.fault("", self.disk.sync_folder())?;
                self.end = None;
                return self.catch_up(now);
            }
            _ => return self.continue_damaged(&there, &bytes),
        };
        let end = End {
            log: header.log,
            segment: last,
            bytes: SEGMENT_HEADER as u64,
            link: header.after,
            head: 0,
            began: next_frame(&bytes, SEGMENT_HEADER, &mut 0)
                .and_then(|(_, frame)| trusted(&frame.record().ok()?.stamp)),
        };
        let end = self.read_on(end, now)?;
        if end.link.number > 0 {
            return Ok(end);
        }
        // A power cut came before its first record.
        self.put(end, &next(&end.link, now, Kind::Note, &Note::Begun.encode()))?;
        Ok(self.end.unwrap_or(end))
    }

    /// Reads the last segment from a place on.
    fn read_on(&mut self, from: End, now: &Stamp) -> Result<End, AuditError> {
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
    fn compare(&mut self, newest: Option<Head>, now: &Stamp) -> Result<End, AuditError> {
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
    fn check_newest(&mut self, now: &Stamp) -> Result<(), AuditError> {
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

    fn check_head(&mut self, head: &Head, now: &Stamp) -> Result<(), AuditError> {
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
    fn is_cut(&self, bytes: &[u8], head: &Head) -> bool {
        frames(bytes).any(|(_, frame)| {
            frame.number > head.number
                && frame.record().ok().and_then(|record| record.note()).is_some_and(
                    |note| matches!(note, Note::Cut { from, through } if (from..=through).contains(&head.number)),
                )
        })
    }

    /// Keeps the door's public key beside the log, for those who verify it without the door.
    fn keep_key(&self) -> Result<(), AuditError> {
        let Some(signer) = &self.signer else { return Ok(()) };
        let text = format!("{}\n", signer.public());
        let there = self.fault(KEY, self.disk.read(KEY, 0, 1000))?;
        match there {
            Some(there) if there == text.as_bytes() => return Ok(()),
            Some(_) => self.fault(KEY, self.disk.remove(KEY))?,
            None => {}
        }
        self.fault(KEY, self.disk.create(KEY, text.as_bytes()))?;
        self.fault(KEY, self.disk.sync(KEY))?;
        self.fault("", self.disk.sync_folder())
    }

    /// Begins the log, in an empty folder.
    fn begin(&mut self, now: &Stamp) -> Result<End, AuditError> {
        let (log, after, note) = match self.newest_head() {
            // The log was there.
            Some(head) => {
                let note = Note::Cut { from: 1, through: head.number };
                (head.log, head.link(), note)
            }
            None => {
                let random = Secret::random()?;
                let mut log = LogId::default();
                log.iter_mut().zip(random.bytes()).for_each(|(to, from)| *to = *from);
                (log, Link::first(&log), Note::Begun)
            }
        };
        let end = self.new_segment(&log, after)?;
        self.put(end, &next(&end.link, now, Kind::Note, &note.encode()))?;
        self.sync()?;
        Ok(self.end.unwrap_or(end))
    }

    /// Continues in a new segment where the header of the last one is damaged.
    fn continue_damaged(&mut self, there: &[u64], bytes: &[u8]) -> Result<End, AuditError> {
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

    /// Begins a segment, synced.
    fn new_segment(&mut self, log: &LogId, after: Link) -> Result<End, AuditError> {
        let segment = after.number.saturating_add(1);
        let name = segment_name(segment);
        let header = SegmentHeader { log: *log, after }.encode();
        self.fault(&name, self.disk.create(&name, &header))?;
        self.fault(&name, self.disk.sync(&name))?;
        self.fault("", self.disk.sync_folder())?;
        let bytes = SEGMENT_HEADER as u64;
        let end = End { log: *log, segment, bytes, link: after, head: after.number, began: None };
        self.end = Some(end);
        Ok(end)
    }

    /// Closes the last segment with a head and begins another, if a record with a body of
    /// this many bytes has no room in it, or if it is old.
    fn make_room(&mut self, end: End, body: u64, now: &Stamp) -> Result<End, AuditError> {
        let full = end.bytes + body + AROUND_BODY > self.bounds.segment();
        let oldest = self.bounds.keep_for_micros() / AGES;
        let age = trusted(now).zip(end.began).map_or(0, |(now, began)| now.saturating_sub(began));
        let empty = end.bytes == SEGMENT_HEADER as u64;
        if empty || !full && age < oldest {
            return Ok(end);
        }
        let signed = self.put_head(end, now)?;
        if signed.is_some()
            && let Some(head) = self.fault(HEADS, self.heads.newest())?
        {
            self.fault(HEADS, self.heads.keep(&head))?;
        }
        self.sync()?;
        let link = self.end.unwrap_or(end).link;
        self.new_segment(&end.log, link)?;
        self.remove_expired(now)?;
        Ok(self.end.unwrap_or(end))
    }

    /// See [`Self::expire`]. Needs the lock.
    fn remove_expired(&mut self, now: &Stamp) -> Result<(), AuditError> {
        let there = segments(&self.disk)?;
        let mut total = 0;
        let mut sizes = Vec::new();
        for first in &there {
            let name = segment_name(*first);
            let bytes = self.fault(&name, self.disk.length(&name))?.unwrap_or(0);
            total += bytes;
            sizes.push(bytes);
        }
        let kept = self.fault(HEADS, self.heads.kept())?;
        let mut expired = None;
        let mut gone = 0;
        for (pair, bytes) in there.windows(2).zip(sizes) {
            let [first, after] = *pair else { continue };
            let large = total > self.bounds.largest;
            let old = self.is_old(first..after, &kept, now);
            if !large && !old {
                break;
            }
            total -= bytes;
            gone += 1;
            expired = Some(Note::Expired { through: after - 1, by_age: !large });
        }
        let (Some(note), Some(end)) = (expired, self.end) else { return Ok(()) };
        self.put(end, &next(&end.link, now, Kind::Note, &note.encode()))?;
        self.sync()?;
        for first in there.into_iter().take(gone) {
            let name = segment_name(first);
            self.fault(&name, self.disk.remove(&name))?;
        }
        self.fault("", self.disk.sync_folder())
    }

    /// Whether heads of several days say that a segment is too old.
    fn is_old(&self, numbers: std::ops::Range<u64>, kept: &[Head], now: &Stamp) -> bool {
        let inside = kept.iter().filter(|head| numbers.contains(&head.number));
        let Some(ended) = inside.filter_map(|head| trusted(&head.stamp)).max() else {
            return false;
        };
        let limit = ended.saturating_add(self.bounds.keep_for_micros());
        let stamps = kept.iter().map(|head| &head.stamp).chain([now]);
        let days: BTreeSet<i64> = stamps
            .filter_map(trusted)
            .filter(|wall| *wall > limit)
            .map(|wall| wall.div_euclid(DAY))
            .collect();
        days.len() >= DAYS_AGREE
    }

    /// Keeps the end of the log that is no whole record. Returns the name of the file.
    fn keep_torn(&self, number: u64, bytes: &[u8]) -> Option<String> {
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

/// The wall clock, if it was trusted.
fn trusted(stamp: &Stamp) -> Option<i64> {
    (stamp.clock == ClockTrust::Trusted).then_some(stamp.wall)
}
