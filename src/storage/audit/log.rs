//! EDGE: appending to the audit log. Several processes may append: each takes the lock of
//! the folder, reads what others have appended, and writes its records after it.

use super::bounds::{Bounds, DAY, trusted};
use super::disk::{Disk, Folder};
use super::error::AuditError;
use super::heads::HeadsFile;
use super::segments::{read_segment, segment_name, segments};
use crate::audit::{
    Head, Kind, LARGEST_BODY, Link, LogId, Note, SEGMENT_HEADER, SegmentHeader, Stamp, encode,
    next, next_frame, stamp_of,
};
use crate::crypto::{Secret, Signer};
use crate::storage::gallery::Register;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Name of the file of heads.
pub(super) const HEADS: &str = "heads";
/// Name of the file with the door's public key.
pub(super) const KEY: &str = "key.pub";

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
pub(super) struct End {
    pub log: LogId,
    /// First record of the last segment.
    pub segment: u64,
    /// Bytes of the last segment.
    pub bytes: u64,
    pub link: Link,
    /// Number of the newest head if nothing follows it, else of an older one.
    pub head: u64,
    /// Wall clock of the first record of the last segment, if it was trusted.
    pub began: Option<i64>,
}

/// The audit log, opened to append to it.
#[derive(Debug)]
pub struct Log<D> {
    pub(super) disk: D,
    pub(super) heads: HeadsFile<D>,
    pub(super) memory: Option<HeadsFile<D>>,
    pub(super) bounds: Bounds,
    pub(super) signer: Option<Signer>,
    pub(super) end: Option<End>,
    /// The register could not be written, which was logged.
    pub(super) forgetful: bool,
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

    pub(super) fn lock(&self) -> Result<D::Lock, AuditError> {
        self.disk.lock().map_err(AuditError::io(self.disk.shown("lock")))
    }

    pub(super) fn fault<T>(&self, name: &str, done: std::io::Result<T>) -> Result<T, AuditError> {
        done.map_err(AuditError::io(self.disk.shown(name)))
    }

    /// Writes a record at the end of the last segment.
    pub(super) fn put(&mut self, end: End, content: &[u8]) -> Result<u64, AuditError> {
        let (bytes, link) = encode(&end.link, content);
        let name = segment_name(end.segment);
        if let Err(error) = self.disk.write(&name, end.bytes, &bytes) {
            // Part of it may be there. If that cannot be cut off now, the next record does.
            let _ = self.disk.cut(&name, end.bytes);
            return self.fault(&name, Err(error));
        }
        let began = match end.bytes == SEGMENT_HEADER as u64 {
            true => stamp_of(content).as_ref().and_then(trusted),
            false => end.began,
        };
        self.end = Some(End { bytes: end.bytes + bytes.len() as u64, link, began, ..end });
        Ok(link.number)
    }

    /// Writes a head, syncs the segment, and then makes it the newest head.
    pub(super) fn put_head(&mut self, end: End, stamp: &Stamp) -> Result<Option<u64>, AuditError> {
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
    pub(super) fn newest_head(&self) -> Option<Head> {
        let key = self.signer.as_ref().map(Signer::public);
        let memory = self.memory.as_ref().and_then(|memory| memory.newest().ok().flatten());
        let heads = self.heads.newest().ok().flatten();
        let valid = |head: &Head| key.is_none_or(|key| head.verify(&key).is_ok());
        heads.into_iter().chain(memory).filter(valid).max_by_key(|head| head.number)
    }

    /// Reads what others have appended, and repairs the end. Needs the lock.
    pub(super) fn catch_up(&mut self, now: &Stamp) -> Result<End, AuditError> {
        let there = segments(&self.disk)?;
        let known = self.end.map_or(0, |end| end.link.number);
        let Some(last) = there.last().copied() else { return self.begin(known, now) };
        if let Some(end) = self.end.filter(|end| end.segment == last) {
            let name = segment_name(last);
            let bytes = self.fault(&name, self.disk.length(&name))?.unwrap_or(0);
            if bytes == end.bytes {
                return Ok(end);
            }
            // Somebody has appended; else it was cut, and is read again from its beginning.
            if bytes > end.bytes {
                return self.read_on(end, known, now);
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
        let end = self.read_on(end, known, now)?;
        if end.link.number > 0 {
            return Ok(end);
        }
        // A power cut came before its first record.
        self.put(end, &next(&end.link, now, Kind::Note, &Note::Begun.encode()))?;
        Ok(self.end.unwrap_or(end))
    }

    /// Keeps the door's public key beside the log, for those who verify it without the door.
    fn keep_key(&self) -> Result<(), AuditError> {
        let Some(signer) = &self.signer else { return Ok(()) };
        let text = format!("{}\n", signer.public());
        let there = self.fault(KEY, self.disk.read(KEY, 0, 1000))?;
        match there {
            Some(there) if there == text.as_bytes() => return Ok(()),
            // A power cut came while it was written.
            Some(torn) if !torn.ends_with(b"\n") => {
                self.fault(KEY, self.disk.remove(KEY))?;
            }
            Some(former) => {
                // The door got another key. Its former one verifies what it has signed.
                let name = former_key(&former);
                match self.disk.create(&name, &former) {
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                    created => self.fault(&name, created)?,
                }
                self.fault(&name, self.disk.sync(&name))?;
                self.fault(KEY, self.disk.remove(KEY))?;
            }
            None => {}
        }
        self.fault(KEY, self.disk.create(KEY, text.as_bytes()))?;
        self.fault(KEY, self.disk.sync(KEY))?;
        self.fault("", self.disk.sync_folder())
    }

    /// Begins the log, in an empty folder. `known` is the last record that this process knows.
    fn begin(&mut self, known: u64, now: &Stamp) -> Result<End, AuditError> {
        self.set_foreign_head_aside();
        let (log, after, note) =
            match (self.newest_head().map(|head| (head.log, head.link())), self.end) {
                // The log was there.
                (Some((log, link)), _) if link.number >= known => {
                    (log, link, Note::Cut { from: 1, through: link.number })
                }
                (_, Some(end)) => (end.log, end.link, Note::Cut { from: 1, through: known }),
                (head, None) => {
                    debug_assert!(head.is_none());
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

    /// A log that begins under another key, as after `facelatch people new`, is not the one
    /// whose head the register remembers. That head is kept under another name.
    fn set_foreign_head_aside(&self) {
        let (Some(memory), Some(signer)) = (&self.memory, &self.signer) else { return };
        let Ok(Some(head)) = memory.newest() else { return };
        if head.verify(&signer.public()).is_ok() {
            return;
        }
        let former = format!("{}.former", memory.name);
        let _ = memory.disk.remove(&former);
        let kept = memory.disk.create(&former, &head.encode());
        let kept = kept.and_then(|()| memory.disk.sync(&former));
        let aside = kept.and_then(|()| memory.disk.remove(&memory.name));
        if let Err(error) = aside.and_then(|()| memory.disk.sync_folder()) {
            let file = memory.disk.shown(&memory.name);
            log::warn!("{}: {error}; remove it: it is of a former log", file.display());
        }
    }

    /// Begins a segment, synced.
    pub(super) fn new_segment(&mut self, log: &LogId, after: Link) -> Result<End, AuditError> {
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
}

/// Name under which a former public key is kept.
fn former_key(text: &[u8]) -> String {
    format!("former-{:08x}.pub", crc32fast::hash(text))
}
