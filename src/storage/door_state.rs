//! EDGE: the state of a door that survives restarts and power cuts: refused attempts,
//! passages, counted attempts, and the last time at which the clock was trusted. One small JSON file beside the
//! gallery, replaced as a whole.
//!
//! It is written rarely, because every write wears a memory card: at once only for refused
//! attempts, else once a minute or once an hour ([`SaveSchedule`]). A power cut loses what
//! came after the last write, and never more.

use crate::access::controller::{Changes, SavedState};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Format of the file.
const FORMAT: u32 = 1;
/// Maximum size of the file: passages of the largest gallery take about half of it.
const MAX_BYTES: u64 = 1 << 20;
/// Least time between two writes because of refused attempts.
const ATTEMPTS_EVERY: Duration = Duration::from_secs(5);
/// Least time between two writes because of passages.
const PASSAGES_EVERY: Duration = Duration::from_secs(60);
/// Least time between two writes because of counted attempts.
const COUNTS_EVERY: Duration = Duration::from_secs(15 * 60);
/// Least time between two writes because the clock has moved on.
const CLOCK_EVERY: Duration = Duration::from_secs(3600);
/// How long the end waits for a slow card.
const END_WITHIN: Duration = Duration::from_secs(3);

/// When it was: a moment that the next start can compare with its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// Number of the boot, as Linux draws it.
    pub boot: String,
    /// Seconds since that boot.
    pub since_boot_s: u64,
    /// Unix seconds, if the clock was trusted.
    pub trusted_unix: Option<i64>,
}

impl Moment {
    /// Now. Without a boot number, as in a sandbox, no two moments can be compared.
    pub fn now(trusted_unix: Option<i64>) -> Self {
        let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
        let uptime = read("/proc/uptime");
        let seconds = uptime.split(['.', ' ']).next().and_then(|text| text.parse().ok());
        Self {
            boot: read("/proc/sys/kernel/random/boot_id").trim().to_owned(),
            since_boot_s: seconds.unwrap_or_default(),
            trusted_unix,
        }
    }

    /// Seconds from `earlier` to this moment. `None` if there was a boot in between, because
    /// nothing has measured that time.
    fn since(&self, earlier: &Self) -> Option<u64> {
        let same = !self.boot.is_empty() && self.boot == earlier.boot;
        same.then(|| self.since_boot_s.checked_sub(earlier.since_boot_s)).flatten()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    format: u32,
    saved: Moment,
    state: SavedState,
}

/// The state as a start takes it up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resumed {
    /// The state, with the time since it was saved added as far as that is known.
    pub state: SavedState,
    /// What a trusted clock shows now, Unix seconds. `None` after a boot.
    pub clock: Option<i64>,
}

/// Why the state cannot be taken up.
#[derive(Debug, thiserror::Error)]
pub enum DoorStateError {
    /// The file cannot be read or written.
    #[error(
        "{file}: {error}; refused tries, passages and the last time are not kept over a restart"
    )]
    Io {
        /// The file.
        file: PathBuf,
        /// The fault.
        #[source]
        error: io::Error,
    },
    /// The file is no state of a door.
    #[error(
        "{0}: is damaged; refused tries and passages from before this start are forgotten, and \
         the file is written again"
    )]
    Damaged(PathBuf),
}

/// The file.
#[derive(Clone, Debug)]
pub struct DoorStateFile {
    file: PathBuf,
}

impl DoorStateFile {
    /// The file of the door with this gallery: beside the gallery and named after it.
    pub fn beside(gallery: &Path) -> Self {
        let mut name = gallery.file_name().unwrap_or_default().to_owned();
        name.push(".state");
        Self { file: gallery.with_file_name(name) }
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// The state, as it is at `now`. Nothing if there is no file.
    ///
    /// # Errors
    /// If the file cannot be read, or is damaged.
    pub fn read(&self, now: &Moment) -> Result<Resumed, DoorStateError> {
        let io = |error| DoorStateError::Io { file: self.file.clone(), error };
        let damaged = || DoorStateError::Damaged(self.file.clone());
        // A file that is not regular must not block the start.
        let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&self.file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Resumed::default()),
            file => file.map_err(io)?,
        };
        if !file.metadata().map_err(io)?.is_file() {
            return Err(damaged());
        }
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(damaged());
        }
        let Content { format, saved, state } =
            serde_json::from_slice(&bytes).map_err(|_| damaged())?;
        if format != FORMAT {
            return Err(damaged());
        }
        // Without a measure of the time that has passed none is assumed: a lockout lasts
        // longer then, and nobody is admitted too early.
        let passed = now.since(&saved);
        let clock = saved
            .trusted_unix
            .zip(passed)
            .map(|(unix, passed)| unix.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX)));
        Ok(Resumed { state: state.later(Duration::from_secs(passed.unwrap_or(0))), clock })
    }

    /// Replaces the file, synced to disk.
    ///
    /// # Errors
    /// If it cannot be written. The file from before then stays.
    pub fn write(&self, state: &SavedState, saved: Moment) -> Result<(), DoorStateError> {
        let io = |error| DoorStateError::Io { file: self.file.clone(), error };
        let content = Content { format: FORMAT, saved, state: state.clone() };
        let bytes = serde_json::to_vec(&content).map_err(|error| io(error.into()))?;
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut new = self.file.clone().into_os_string();
        new.push(".new");
        let new = PathBuf::from(new);
        let written = (|| {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&new, &self.file)?;
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        })();
        written.map_err(io)
    }
}

/// Decides when the state is written again.
#[derive(Clone, Copy, Debug)]
pub struct SaveSchedule {
    written: Changes,
    /// `None` until the first write.
    at: Option<Duration>,
}

impl SaveSchedule {
    /// At the start, with what was taken up then.
    pub fn new(changes: Changes) -> Self {
        Self { written: changes, at: None }
    }

    /// Whether to write now. It then counts as written.
    pub fn due(&mut self, now: Duration, changes: Changes) -> bool {
        let since = self.at.map_or(Duration::MAX, |at| now.saturating_sub(at));
        let due = changes.lockout != self.written.lockout && since >= ATTEMPTS_EVERY
            || changes.passages != self.written.passages && since >= PASSAGES_EVERY
            || changes.attempts != self.written.attempts && since >= COUNTS_EVERY
            || changes.clock_floor != self.written.clock_floor && since >= CLOCK_EVERY
            // The first trusted time.
            || self.written.clock_floor == 0 && changes.clock_floor != 0;
        if due {
            *self = Self { written: changes, at: Some(now) };
        }
        due
    }
}

/// Writes the file on its own thread, because a card may take seconds.
#[derive(Debug)]
pub struct DoorStateWriter {
    states: Option<SyncSender<(SavedState, Moment)>>,
    done: Receiver<Result<(), DoorStateError>>,
}

impl DoorStateWriter {
    /// Starts the thread. It ends when this is dropped, after a state that is being written;
    /// that is waited for up to three seconds.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(file: DoorStateFile) -> io::Result<Self> {
        let (states, to_write) = sync_channel::<(SavedState, Moment)>(1);
        let (written, done) = sync_channel(2);
        std::thread::Builder::new().name("door state".to_owned()).spawn(move || {
            for (state, saved) in to_write {
                // Results that nobody takes are dropped.
                let _ = written.try_send(file.write(&state, saved));
            }
        })?;
        Ok(Self { states: Some(states), done })
    }

    /// Queues a state; false while two others wait.
    pub fn write(&self, state: SavedState, saved: Moment) -> bool {
        self.states.as_ref().is_some_and(|states| states.try_send((state, saved)).is_ok())
    }

    /// Result of a write that has ended.
    pub fn written(&self) -> Option<Result<(), DoorStateError>> {
        self.done.try_recv().ok()
    }
}

impl Drop for DoorStateWriter {
    fn drop(&mut self) {
        self.states = None;
        let until = Instant::now() + END_WITHIN;
        // The channel closes when the thread ends.
        while self.done.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::door::{Role, SavedPassage};
    use crate::access::false_entries::{Day, SavedFalseEntries};
    use crate::access::lockout::SavedLockout;
    use proptest::prelude::*;

    fn moment(boot: &str, since_boot_s: u64, trusted_unix: Option<i64>) -> Moment {
        Moment { boot: boot.to_owned(), since_boot_s, trusted_unix }
    }

    fn state() -> SavedState {
        SavedState {
            lockout: SavedLockout { tries: 2, level: 1, left_s: 30, last_s: 4 },
            passages: vec![SavedPassage { person: 7, role: Role::In, ago_s: 60 }],
            clock_floor: 1_795_600_000,
            false_entries: SavedFalseEntries {
                days: vec![Day { seconds: 86_400, strangers: 3, undecided: 1, known: 40 }],
                steps: 2,
                ..SavedFalseEntries::default()
            },
        }
    }

    fn file() -> (tempfile::TempDir, DoorStateFile) {
        let folder = tempfile::TempDir::new().expect("a folder");
        let file = DoorStateFile::beside(&folder.path().join("gallery.redb"));
        (folder, file)
    }

    #[test]
    fn the_state_comes_back_with_the_time_that_has_passed() {
        let (_folder, file) = file();
        assert_eq!(file.read(&moment("a", 0, None)).expect("nothing yet"), Resumed::default());
        file.write(&state(), moment("a", 100, Some(1_795_600_000))).expect("written");
        let resumed = file.read(&moment("a", 110, None)).expect("read");
        assert_eq!(resumed.clock, Some(1_795_600_010));
        assert_eq!((resumed.state.lockout.left_s, resumed.state.passages[0].ago_s), (20, 70));
        // A boot in between: nobody has measured the time, so none is assumed.
        for later in [moment("b", 5, None), moment("", 200, None), moment("a", 99, None)] {
            let resumed = file.read(&later).expect("read");
            assert_eq!(resumed, Resumed { state: state(), clock: None });
        }
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(file.path()).expect("written").permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_is_no_state_is_named_and_replaced() {
        let (_folder, file) = file();
        let now = moment("a", 0, None);
        let newer = r#"{"format":2,"saved":{},"state":{}}"#;
        for bytes in ["", "{", "null", newer, "\u{0}", &" ".repeat(MAX_BYTES as usize + 1)] {
            std::fs::write(file.path(), bytes).expect("written");
            let error = file.read(&now).expect_err("no state");
            assert!(matches!(error, DoorStateError::Damaged(_)), "{error}");
        }
        file.write(&state(), now.clone()).expect("replaced");
        assert_eq!(file.read(&now).expect("read").state, state());
        std::fs::remove_file(file.path()).expect("removed");
        std::fs::create_dir(file.path()).expect("a folder");
        assert!(file.read(&now).is_err() && file.write(&state(), now).is_err());
    }

    #[test]
    fn it_is_written_soon_after_an_attempt_and_rarely_otherwise() {
        let at = Duration::from_secs;
        let mut changes = Changes { clock_floor: 10, ..Changes::default() };
        let mut schedule = SaveSchedule::new(changes);
        assert!(!schedule.due(at(9000), changes));
        changes.lockout = 1;
        assert!(schedule.due(at(9001), changes) && !schedule.due(at(9001), changes));
        changes.lockout = 2;
        assert!(!schedule.due(at(9005), changes));
        assert!(schedule.due(at(9006), changes));
        changes.passages = 1;
        assert!(!schedule.due(at(9065), changes) && schedule.due(at(9066), changes));
        changes.clock_floor = 20;
        assert!(!schedule.due(at(12_665), changes) && schedule.due(at(12_666), changes));
        // A whole day in which somebody passes every second.
        let mut writes = 0;
        for second in 0..86_400 {
            changes.passages += 1;
            changes.clock_floor += 1;
            writes += usize::from(schedule.due(at(20_000 + second), changes));
        }
        assert!(writes <= 1440, "{writes}");
    }

    #[test]
    fn the_last_state_is_written_before_the_end() {
        let (_folder, file) = file();
        let writer = DoorStateWriter::start(file.clone()).expect("a thread");
        assert!(writer.write(state(), moment("a", 1, None)));
        drop(writer);
        assert_eq!(file.read(&moment("b", 1, None)).expect("read").state, state());
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let (_folder, file) = file();
            std::fs::write(file.path(), bytes).expect("written");
            let _ = file.read(&moment("a", 0, None));
        }
    }
}
