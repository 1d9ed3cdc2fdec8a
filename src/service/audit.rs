//! EDGE: the thread that writes the audit log. The door never waits for it, but for one
//! moment before it opens, and only where syncs are so fast that nobody notices.
//!
//! What cannot be written waits in a bounded queue; what has no room there is counted, and a
//! record with the count follows as soon as the log can be written again.

use super::wall_clock;
use crate::audit::entry::{Entry, Picture};
use crate::audit::{LARGEST_BODY, Note, Stamp};
use crate::crypto::{Sealer, Signer};
use crate::storage::audit::{
    AuditError, AuditLog, AuditPlace, AuditReader, Bounds, Order, PictureFolder, stamp,
};
use crate::vision::frame::Frame;
use crate::vision::picture::encode_png;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Records between the door and the thread.
const QUEUE: usize = 256;
/// Records that wait in the thread while the log cannot be written, and their bytes.
const WAITING: usize = 1024;
const WAITING_BYTES: usize = 4 << 20;
/// A sync that takes longer than this is not waited for before the door opens.
const FAST: Duration = Duration::from_millis(5);
/// Number of syncs whose median counts, and the least of them.
const SYNCS: usize = 15;
const FEWEST_SYNCS: usize = 3;
/// Time between two signed heads, if something was logged.
const SIGN_EVERY: Duration = Duration::from_secs(60);
/// Time between two looks at the age of segments.
const EXPIRE_EVERY: Duration = Duration::from_secs(6 * 3600);
/// Time between two attempts to write again after a failure, and between two lines of the
/// log about it.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(600);
/// A wall clock that differs from the monotonic one by more than this was set.
const CLOCK_SET: i64 = 1_000_000;
/// How long the end waits for a slow card.
const END_WITHIN: Duration = Duration::from_secs(3);

/// State of the audit log, for `facelatch status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditNow {
    /// off, starting, good or failed.
    pub state: String,
    /// Why the log cannot be written, and the cure.
    pub fault: Option<String>,
    /// Number of the last record.
    pub last: u64,
    /// Number of the newest signed head; 0 if there is none since the start.
    pub signed: u64,
    /// Records that were lost since the start.
    pub lost: u64,
    /// Records that wait to be written.
    pub waiting: u64,
    /// Median of the last syncs, milliseconds; `None` until enough were measured.
    pub sync_ms: Option<f64>,
    /// Whether records are on the disk before the door opens; else right after it.
    pub before_opening: bool,
}

enum Job {
    Entry(Stamp, Vec<u8>),
    /// An entry with a picture that is kept apart from it.
    Pictured(Stamp, Box<(Entry, Frame)>),
    Note(Stamp, Note),
    Sign(Stamp),
}

struct Shared {
    /// Records that found the queue full.
    overflowed: AtomicU64,
    /// Jobs that were queued.
    queued: AtomicU64,
    /// Jobs of which nothing is left to do, and the state.
    done: Mutex<(u64, AuditNow)>,
    changed: Condvar,
    /// Median of the last syncs, microseconds; `u64::MAX` until enough were measured.
    sync: AtomicU64,
    /// Whether the wall clock is trusted: as the door says, else as the system does.
    trusted: AtomicBool,
    /// Whether the door says so.
    door_says: AtomicBool,
    failed: AtomicBool,
}

/// Writes to the audit log. Clones write to the same one.
#[derive(Clone)]
pub struct Auditor {
    jobs: Option<SyncSender<Job>>,
    shared: Arc<Shared>,
    /// Waits for room in the queue: for recorded frames, which come faster than at a door.
    patient: bool,
}

/// Ends the thread when it is dropped, after what is queued is written.
pub struct AuditThread {
    auditor: Auditor,
    ended: Receiver<()>,
}

/// What the log of a service needs.
pub struct AuditSettings {
    /// Where the log is.
    pub place: AuditPlace,
    /// How long and how much is kept.
    pub bounds: Bounds,
    /// The door's key.
    pub signer: Option<Signer>,
    /// Whether frames are recorded.
    pub recorded: bool,
    /// Whether the installer vouches for the wall clock.
    pub clock_vouched_for: bool,
    /// Seals pictures; without it none are kept.
    pub sealer: Option<Sealer>,
    /// How long pictures are kept.
    pub pictures_keep_for: Duration,
}

impl Auditor {
    /// One that writes nothing.
    pub fn off() -> Self {
        let state = AuditNow { state: "off".to_owned(), ..AuditNow::default() };
        Self { jobs: None, shared: Arc::new(Shared::new(state)), patient: false }
    }

    /// Now, for a record.
    pub fn now(&self) -> Stamp {
        stamp(self.shared.trusted.load(Ordering::Relaxed))
    }

    /// Whether the wall clock is trusted from now on; `None` if the door has not checked it.
    /// Then the system's word counts.
    pub fn set_clock_trusted(&self, trusted: Option<bool>) {
        self.shared.door_says.store(trusted.is_some(), Ordering::Relaxed);
        if let Some(trusted) = trusted {
            self.shared.trusted.store(trusted, Ordering::Relaxed);
        }
    }

    /// Queues an entry with a body of at most [`LARGEST_BODY`] bytes. Never waits; without
    /// room the entry is lost and counted. Returns whether it was queued.
    pub fn entry(&self, at: Stamp, body: Vec<u8>) -> bool {
        if body.len() > LARGEST_BODY {
            self.shared.overflowed.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.queue(Job::Entry(at, body))
    }

    /// Queues an entry with a picture, which is kept apart from it for a time of its own.
    pub fn pictured(&self, at: Stamp, entry: Entry, picture: Frame) -> bool {
        self.queue(Job::Pictured(at, Box::new((entry, picture))))
    }

    /// Has what is queued so far signed, after an opening by command.
    pub fn sign(&self) {
        self.queue(Job::Sign(self.now()));
    }

    fn queue(&self, job: Job) -> bool {
        let Some(jobs) = &self.jobs else { return false };
        let signs = matches!(job, Job::Sign(_));
        let queued = if self.patient { jobs.send(job).is_ok() } else { jobs.try_send(job).is_ok() };
        if queued {
            self.shared.queued.fetch_add(1, Ordering::SeqCst);
        } else if !signs {
            self.shared.overflowed.fetch_add(1, Ordering::Relaxed);
        }
        queued
    }

    /// Before the door opens: waits until what is queued is on the disk, if that is known to
    /// take less than 5 ms, and for twice that at most. Returns whether it is on the disk.
    pub fn settle(&self) -> bool {
        let fast = self.shared.sync.load(Ordering::Relaxed) < micros(FAST);
        if !fast || self.shared.failed.load(Ordering::Relaxed) {
            return false;
        }
        self.wait(2 * FAST)
    }

    /// Waits until what is queued is on the disk. Returns whether it is.
    fn wait(&self, at_most: Duration) -> bool {
        let wanted = self.shared.queued.load(Ordering::SeqCst);
        let until = Instant::now() + at_most;
        let mut done = self.shared.done.lock().unwrap_or_else(PoisonError::into_inner);
        while done.0 < wanted {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.changed.wait_timeout(done, left);
            done = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// The state of the log.
    pub fn state(&self) -> AuditNow {
        let done = self.shared.done.lock().unwrap_or_else(PoisonError::into_inner);
        let overflowed = self.shared.overflowed.load(Ordering::Relaxed);
        AuditNow { lost: done.1.lost + overflowed, ..done.1.clone() }
    }
}

impl Shared {
    fn new(state: AuditNow) -> Self {
        Self {
            overflowed: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            done: Mutex::new((0, state)),
            changed: Condvar::new(),
            sync: AtomicU64::new(u64::MAX),
            trusted: AtomicBool::new(false),
            door_says: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        }
    }
}

impl AuditThread {
    /// Starts the thread, which opens the log. A log that cannot be opened is logged, and
    /// tried again.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(settings: AuditSettings) -> io::Result<Self> {
        let (jobs, to_do) = sync_channel(QUEUE);
        let (end, ended) = sync_channel(1);
        let state = AuditNow { state: "starting".to_owned(), ..AuditNow::default() };
        let shared = Arc::new(Shared::new(state.clone()));
        let auditor =
            Auditor { jobs: Some(jobs), shared: Arc::clone(&shared), patient: settings.recorded };
        let mut work = Work::new(settings, shared, state);
        std::thread::Builder::new().name("audit log".to_owned()).spawn(move || {
            work.run(&to_do);
            let _ = end.send(());
        })?;
        Ok(Self { auditor, ended })
    }

    /// Writes to the log.
    pub fn auditor(&self) -> Auditor {
        self.auditor.clone()
    }
}

impl Drop for AuditThread {
    fn drop(&mut self) {
        let now = self.auditor.now();
        self.auditor.queue(Job::Note(now, Note::Stopped));
        self.auditor.sign();
        // Clones may outlive this, so the thread is waited for, not its channel.
        if !self.auditor.shared.failed.load(Ordering::Relaxed) {
            self.auditor.wait(END_WITHIN);
        }
        self.auditor.jobs = None;
        let _ = self.ended.recv_timeout(Duration::from_millis(50));
    }
}

/// The thread's work.
struct Work {
    settings: AuditSettings,
    shared: Arc<Shared>,
    log: Option<AuditLog>,
    /// What is not written yet, and its bytes.
    waiting: VecDeque<Job>,
    waiting_bytes: usize,
    /// Records that had no room, since the last note about it.
    lost: u64,
    /// Jobs that were taken from the queue.
    taken: u64,
    state: AuditNow,
    syncs: VecDeque<Duration>,
    /// When the log could not be written last, and when that was logged last.
    failed: Option<Instant>,
    said: Option<Instant>,
    signed: Instant,
    expired: Instant,
    /// The last stamp.
    last: Option<Stamp>,
    pictures: PictureFolder,
}

impl Work {
    fn new(settings: AuditSettings, shared: Arc<Shared>, state: AuditNow) -> Self {
        let now = Instant::now();
        let pictures = PictureFolder::of(&settings.place, settings.pictures_keep_for);
        Self {
            pictures,
            settings,
            shared,
            log: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            lost: 0,
            taken: 0,
            state,
            syncs: VecDeque::new(),
            failed: None,
            said: None,
            signed: now,
            expired: now,
            last: None,
        }
    }

    fn run(&mut self, jobs: &Receiver<Job>) {
        let now = self.now();
        let booted = AuditReader::open(&self.settings.place)
            .and_then(|reader| reader.records(1..=u64::MAX, Order::NewestFirst)?.next().transpose())
            .is_ok_and(|last| last.is_some_and(|last| last.stamp.boot != now.boot));
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let process = std::process::id();
        self.take(Job::Note(now, Note::Started { version, process, booted }));
        self.step();
        loop {
            let patience = match self.failed {
                Some(_) => AGAIN_AFTER,
                None => SIGN_EVERY.saturating_sub(self.signed.elapsed()).max(AGAIN_AFTER),
            };
            match jobs.recv_timeout(patience) {
                Ok(job) => {
                    self.taken += 1;
                    self.take(job);
                    // As many as there are with one sync.
                    while let Ok(job) = jobs.try_recv() {
                        self.taken += 1;
                        self.take(job);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.step();
        }
    }

    /// Now, with the trust of the clock looked up.
    fn now(&self) -> Stamp {
        if !self.shared.door_says.load(Ordering::Relaxed) {
            let reading = wall_clock::read(self.settings.clock_vouched_for);
            self.shared.trusted.store(reading.synchronized, Ordering::Relaxed);
        }
        stamp(self.shared.trusted.load(Ordering::Relaxed))
    }

    /// Takes a job, with a note before it if the clock has changed since the last one.
    fn take(&mut self, job: Job) {
        let at = match &job {
            Job::Entry(at, _) | Job::Pictured(at, _) | Job::Note(at, _) | Job::Sign(at) => *at,
        };
        for note in clock_notes(self.last.replace(at).as_ref(), &at) {
            self.wait(Job::Note(at, note));
        }
        self.wait(job);
    }

    fn wait(&mut self, job: Job) {
        let bytes = job.bytes();
        let full = self.waiting.len() >= WAITING || self.waiting_bytes + bytes > WAITING_BYTES;
        match job {
            // The next head signs as well.
            Job::Sign(_) if full => {}
            _ if full => self.lost += 1,
            job => {
                self.waiting_bytes += bytes;
                self.waiting.push_back(job);
            }
        }
    }

    /// Writes what waits, if it is time to try.
    fn step(&mut self) {
        let now = self.now();
        for note in clock_notes(self.last.replace(now).as_ref(), &now) {
            self.wait(Job::Note(now, note));
        }
        let again = self.failed.is_none_or(|failed| failed.elapsed() >= AGAIN_AFTER);
        if again {
            match self.write(&now) {
                Ok(()) => self.worked(),
                Err(error) => self.did_not(&error),
            }
        }
        let mut shared = self.shared.done.lock().unwrap_or_else(PoisonError::into_inner);
        self.state.waiting = self.waiting.len() as u64;
        if self.failed.is_none() {
            shared.0 = self.taken;
        }
        let lost = self.state.lost + self.lost;
        shared.1 = AuditNow { lost, ..self.state.clone() };
        drop(shared);
        self.shared.changed.notify_all();
    }

    fn write(&mut self, now: &Stamp) -> Result<(), AuditError> {
        let mut log = match self.log.take() {
            Some(log) => log,
            None => {
                let AuditSettings { place, bounds, signer, .. } = &self.settings;
                AuditLog::open(place, *bounds, signer.clone(), now)?
            }
        };
        let mut signs = self.signed.elapsed() >= SIGN_EVERY;
        let mut wrote = false;
        while let Some(job) = self.waiting.front() {
            match job {
                Job::Entry(at, body) => drop(log.append(at, body)?),
                Job::Pictured(at, both) => {
                    let (entry, picture) = &**both;
                    self.settings.append(&mut log, &mut self.pictures, at, entry, picture)?;
                }
                Job::Note(at, note) => drop(log.note(at, note)?),
                Job::Sign(_) => signs = true,
            }
            wrote |= !matches!(job, Job::Sign(_));
            self.waiting_bytes = self.waiting_bytes.saturating_sub(job.bytes());
            self.waiting.pop_front();
        }
        let overflowed = self.shared.overflowed.swap(0, Ordering::Relaxed);
        self.lost += overflowed;
        if self.lost > 0 {
            log.note(now, &Note::Lost { records: self.lost })?;
            log::error!(
                "{} records of the audit log are lost, because they could not be written in \
                 time; a record says so",
                self.lost
            );
            self.state.lost += std::mem::take(&mut self.lost);
            wrote = true;
        }
        if wrote {
            let took = log.sync()?;
            self.measured(took);
            // Who waits for the disk does not wait for the signature.
            self.shared.done.lock().unwrap_or_else(PoisonError::into_inner).0 = self.taken;
            self.shared.changed.notify_all();
        }
        if signs {
            self.signed = Instant::now();
            if let Some(number) = log.sign(now)? {
                self.state.signed = number;
            }
        }
        if self.expired.elapsed() >= EXPIRE_EVERY {
            self.expired = Instant::now();
            log.expire(now)?;
            self.pictures.expire();
        }
        self.state.last = log.last();
        self.log = Some(log);
        Ok(())
    }

    fn measured(&mut self, took: Duration) {
        if self.syncs.len() == SYNCS {
            self.syncs.pop_front();
        }
        self.syncs.push_back(took);
        let mut sorted: Vec<Duration> = self.syncs.iter().copied().collect();
        sorted.sort_unstable();
        let median = sorted.get(sorted.len() / 2).filter(|_| sorted.len() >= FEWEST_SYNCS);
        self.state.sync_ms = median.map(|median| median.as_secs_f64() * 1e3);
        self.state.before_opening = median.is_some_and(|median| *median < FAST);
        self.shared.sync.store(median.map_or(u64::MAX, |m| micros(*m)), Ordering::Relaxed);
    }

    fn worked(&mut self) {
        if self.failed.take().is_some() {
            log::warn!("the audit log is written again");
        }
        self.said = None;
        self.shared.failed.store(false, Ordering::Relaxed);
        self.state.state = "good".to_owned();
        self.state.fault = None;
    }

    fn did_not(&mut self, error: &AuditError) {
        self.failed = Some(Instant::now());
        self.shared.failed.store(true, Ordering::Relaxed);
        if self.said.is_none_or(|said| said.elapsed() >= SAY_AGAIN_AFTER) {
            self.said = Some(Instant::now());
            log::error!("{error}; the audit log is not written, and the door goes on");
        }
        self.state.state = "failed".to_owned();
        self.state.fault = Some(error.to_string());
    }
}

impl AuditSettings {
    /// Appends an entry and writes its picture. A picture that cannot be written is logged;
    /// the record stays, and names a picture that there is not.
    fn append(
        &self,
        log: &mut AuditLog,
        pictures: &mut PictureFolder,
        at: &Stamp,
        entry: &Entry,
        picture: &Frame,
    ) -> Result<(), AuditError> {
        let png = self.sealer.as_ref().and_then(|sealer| Some((sealer, encode_png(picture).ok()?)));
        let Some((sealer, png)) = png else {
            return log.append(at, &entry.encode()).map(drop);
        };
        let kept = Picture {
            sha256: Sha256::digest(&png).into(),
            bytes: u32::try_from(png.len()).unwrap_or(u32::MAX),
        };
        let entry = Entry { picture: Some(kept), ..entry.clone() };
        let number = log.append(at, &entry.encode())?;
        if let Err(error) = pictures.write(number, sealer, &png) {
            log::error!("{error}; the picture of record {number} is lost");
        }
        Ok(())
    }
}

impl Job {
    /// Bytes that it takes while it waits, at least.
    fn bytes(&self) -> usize {
        match self {
            Self::Entry(_, body) => body.len(),
            Self::Pictured(_, both) => both.1.pixels().len(),
            Self::Note(..) | Self::Sign(_) => 0,
        }
    }
}

/// What has happened to the wall clock between two stamps.
fn clock_notes(before: Option<&Stamp>, now: &Stamp) -> Vec<Note> {
    let Some(before) = before.filter(|before| before.boot == now.boot) else { return Vec::new() };
    let offset = |stamp: &Stamp| i128::from(stamp.wall) - i128::from(stamp.monotonic);
    let by = i64::try_from(offset(now) - offset(before)).unwrap_or(i64::MAX);
    let mut notes = Vec::new();
    if by.saturating_abs() > CLOCK_SET {
        notes.push(Note::ClockSet { by });
    }
    if before.clock != now.clock {
        notes.push(Note::ClockTrust);
    }
    notes
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{ClockTrust, Kind, Record};
    use crate::crypto::Secret;
    use tempfile::TempDir;

    fn signer() -> Signer {
        Signer::new(&Secret::new([7; 32]))
    }

    fn place(folder: &TempDir) -> AuditPlace {
        let gallery = folder.path().join("gallery.redb");
        std::fs::write(&gallery, "a gallery").expect("written");
        AuditPlace { gallery, register: None }
    }

    fn settings(place: &AuditPlace) -> AuditSettings {
        AuditSettings {
            place: place.clone(),
            bounds: Bounds::default(),
            signer: Some(signer()),
            recorded: false,
            clock_vouched_for: false,
            sealer: None,
            pictures_keep_for: Duration::from_secs(3600),
        }
    }

    fn records(place: &AuditPlace) -> Vec<Record> {
        let reader = AuditReader::open(place).expect("a log");
        let records = reader.records(1..=u64::MAX, Order::OldestFirst).expect("records");
        records.collect::<Result<_, _>>().expect("records")
    }

    #[test]
    fn a_run_is_logged_from_its_start_to_its_end_and_signed() {
        let folder = TempDir::new().expect("a folder");
        let place = place(&folder);
        for _ in 0..2 {
            let thread = AuditThread::start(settings(&place)).expect("a thread");
            let auditor = thread.auditor();
            assert!(auditor.entry(auditor.now(), b"granted".to_vec()));
            assert!(auditor.wait(Duration::from_secs(60)), "written");
            assert_eq!((auditor.state().state.as_str(), auditor.state().lost), ("good", 0));
            drop(thread);
        }
        let found = records(&place);
        let notes: Vec<Note> = found.iter().filter_map(Record::note).collect();
        assert_eq!(notes.iter().filter(|note| matches!(note, Note::Started { .. })).count(), 2);
        assert_eq!(notes.iter().filter(|note| **note == Note::Stopped).count(), 2);
        assert_eq!(found.iter().filter(|record| record.kind == Kind::Entry).count(), 2);
        assert_eq!(found.last().map(|record| record.kind), Some(Kind::Head));
        let verdict = crate::storage::audit::verify(&place, &[signer().public()]).expect("a log");
        assert!(verdict.is_good() && verdict.unproven == 0, "{verdict:?}");
    }

    #[test]
    fn what_cannot_be_written_waits_and_what_has_no_room_is_counted_and_said() {
        let folder = TempDir::new().expect("a folder");
        let place = place(&folder);
        // A file where the folder of the log belongs.
        std::fs::write(place.folder(), "in the way").expect("written");
        let shared = Arc::new(Shared::new(AuditNow::default()));
        let mut work = Work::new(settings(&place), Arc::clone(&shared), AuditNow::default());
        for n in 0..WAITING + 10 {
            let body = u32::try_from(n).expect("small").to_le_bytes().to_vec();
            work.take(Job::Entry(stamp(false), body));
            if n == 0 {
                work.step();
            }
        }
        shared.overflowed.fetch_add(5, Ordering::Relaxed);
        let auditor = Auditor { jobs: None, shared, patient: false };
        assert_eq!(auditor.state().state, "failed");
        assert!(auditor.state().fault.expect("a fault").contains("move it away"));
        assert!(!auditor.settle());
        std::fs::remove_file(place.folder()).expect("removed");
        // Not before it is time.
        work.step();
        assert_eq!(auditor.state().state, "failed");
        work.failed = Instant::now().checked_sub(AGAIN_AFTER);
        work.step();
        assert_eq!(auditor.state().state, "good");
        let found = records(&place);
        let entries = found.iter().filter(|record| record.kind == Kind::Entry).count();
        let lost: u64 = found
            .iter()
            .filter_map(|record| match record.note() {
                Some(Note::Lost { records }) => Some(records),
                _ => None,
            })
            .sum();
        // Notes about the clock may have taken room as well.
        assert!(entries as u64 + lost >= WAITING as u64 + 15, "{entries} {lost}");
        assert!(lost >= 15 && auditor.state().lost == lost, "{lost}");
    }

    #[test]
    fn the_door_never_waits_for_a_thread_that_hangs() {
        let (jobs, _to_do) = sync_channel(QUEUE);
        let shared = Arc::new(Shared::new(AuditNow::default()));
        shared.sync.store(1000, Ordering::Relaxed);
        let auditor = Auditor { jobs: Some(jobs), shared, patient: false };
        let queued = (0..QUEUE + 3).filter(|_| auditor.entry(stamp(false), vec![0; 100])).count();
        assert_eq!((queued, auditor.state().lost), (QUEUE, 3));
        let began = Instant::now();
        assert!(!auditor.settle());
        assert!(began.elapsed() >= FAST, "it has waited");
        // A slow disk is not waited for at all.
        auditor.shared.sync.store(6000, Ordering::Relaxed);
        assert!(!auditor.settle());
        assert!(!auditor.entry(stamp(false), vec![0; LARGEST_BODY + 1]));
    }

    #[test]
    fn the_median_of_syncs_decides_when_records_are_on_the_disk() {
        let folder = TempDir::new().expect("a folder");
        let shared = Arc::new(Shared::new(AuditNow::default()));
        let mut work = Work::new(settings(&place(&folder)), shared, AuditNow::default());
        let ms = Duration::from_millis;
        work.measured(ms(1));
        work.measured(ms(1));
        assert!(!work.state.before_opening && work.state.sync_ms.is_none(), "too few");
        work.measured(ms(80));
        assert!(work.state.before_opening);
        for _ in 0..SYNCS {
            work.measured(ms(12));
        }
        assert!(!work.state.before_opening);
        assert_eq!(work.state.sync_ms, Some(12.0));
    }

    #[test]
    fn a_clock_that_is_set_is_noted_and_one_that_runs_is_not() {
        let stamp = |boot: u8, seconds: u64, wall: i64, clock| Stamp {
            boot: [boot; 16],
            monotonic: seconds * 1_000_000,
            wall: wall * 1_000_000,
            clock,
        };
        let (unsure, trusted) = (ClockTrust::Unsure, ClockTrust::Trusted);
        let before = stamp(1, 10, 100, unsure);
        let notes = |now| clock_notes(Some(&before), &now);
        assert!(notes(stamp(1, 20, 110, unsure)).is_empty());
        assert!(notes(stamp(2, 20, 900, trusted)).is_empty(), "another boot");
        assert!(clock_notes(None, &before).is_empty());
        let ten_years = 3650 * 86_400;
        for by in [ten_years, -ten_years] {
            let set = Note::ClockSet { by: by * 1_000_000 };
            assert_eq!(notes(stamp(1, 20, 110 + by, trusted)), [set, Note::ClockTrust]);
        }
        let extreme = Stamp { wall: i64::MIN, ..before };
        assert_eq!(notes(extreme).len(), 1);
    }
}
