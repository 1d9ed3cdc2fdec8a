//! EDGE: the relay of the last start, kept where the next start finds it before it reads
//! the configuration: a door that was killed while open, and whose configuration can no
//! longer be read, must still release its relay.
//!
//! One small file per configuration, so that the doors of one board do not mix. It is
//! written only when it changes. A running service holds a lock on it.

use crate::access::door::LockKind;
use crate::access::event::is_plain;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// Longer files are refused. Bytes.
const MAX_BYTES: u64 = 4096;
/// Longest URI of a relay. Bytes.
const MAX_URI: usize = 1024;
/// Version of the format.
const VERSION: u32 = 1;
/// Attempts to take the lock, and the time between two: a program that was started just
/// before a service ended may keep its lock until it runs.
const LOCK_TRIES: usize = 25;
const BETWEEN_LOCK_TRIES: Duration = Duration::from_millis(20);

/// A relay and the lock that it moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastRelay {
    /// URI of the relay.
    pub uri: String,
    /// Kind of the lock.
    pub lock: LockKind,
}

/// Why the file cannot be used.
#[derive(Debug, Error)]
pub enum LastRelayError {
    /// The file or its folder cannot be read or written.
    #[error("{file}: {reason}; the user of the service must be able to write there")]
    File {
        /// The file.
        file: PathBuf,
        /// The system's error.
        reason: io::Error,
    },
    /// The file is not one that a service wrote, or it is damaged.
    #[error("{file}: {fault}; remove it, and the next start of the service writes it again")]
    Wrong {
        /// The file.
        file: PathBuf,
        /// The fault.
        fault: String,
    },
    /// A running service has the lock.
    #[error("{file}: a service runs and has this relay")]
    InUse {
        /// The file.
        file: PathBuf,
    },
}

/// The file as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    relay: String,
    lock: LockKind,
    /// CRC-32 of `relay` and of the name of `lock`.
    check: u32,
}

impl Record {
    fn of(last: &LastRelay) -> Self {
        let (relay, lock) = (last.uri.clone(), last.lock);
        let check = check(&relay, lock);
        Self { version: VERSION, relay, lock, check }
    }

    fn checked(self) -> Result<LastRelay, String> {
        let Self { version, relay, lock, check: sum } = self;
        if version != VERSION {
            return Err(format!("has format {version}, and this facelatch reads {VERSION}"));
        }
        if sum != check(&relay, lock) {
            return Err("is damaged: its checksum is wrong".to_owned());
        }
        if relay.len() > MAX_URI || !relay.chars().all(is_plain) {
            return Err("names no relay".to_owned());
        }
        Ok(LastRelay { uri: relay, lock })
    }
}

fn check(relay: &str, lock: LockKind) -> u32 {
    crc32fast::hash(format!("{relay}\n{lock:?}").as_bytes())
}

/// The place of the file of one door.
#[derive(Clone, Debug)]
pub struct LastRelayFile {
    file: PathBuf,
}

/// The lock of a service on its file; the system releases it when the process ends.
#[derive(Debug)]
pub struct LastRelayLock(#[allow(dead_code, reason = "held, not used")] File);

impl LastRelayFile {
    /// The file in this folder of the door with this configuration file.
    pub fn of(folder: &Path, config: &Path) -> Self {
        // Without links resolved: a configuration that is gone must give the same name.
        let config = std::path::absolute(config).unwrap_or_else(|_| config.to_owned());
        let digest = Sha256::digest(config.as_os_str().as_encoded_bytes());
        let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self { file: folder.join(format!("relay-{name}.json")) }
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// The relay of the last start; `None` if there was none.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged, or may have been written by somebody else.
    pub fn read(&self) -> Result<Option<LastRelay>, LastRelayError> {
        Ok(self.open()?.map(|(_, last)| last))
    }

    /// The relay of the last start, if no service runs. The lock keeps a service from
    /// starting meanwhile, and must be dropped after the relay is released.
    ///
    /// # Errors
    /// As for [`Self::read`], and if a service runs.
    pub fn take(&self) -> Result<Option<(LastRelay, LastRelayLock)>, LastRelayError> {
        let Some((file, last)) = self.open()? else { return Ok(None) };
        Ok(Some((last, self.lock(file)?)))
    }

    /// Keeps this relay for the next start, synced to disk, and locks the file. The disk is
    /// written to only if the file changes.
    ///
    /// # Errors
    /// If the file cannot be written, or another service has the lock.
    pub fn keep(&self, last: &LastRelay) -> Result<LastRelayLock, LastRelayError> {
        match self.open() {
            Ok(Some((file, kept))) => {
                let lock = self.lock(file)?;
                if kept == *last {
                    return Ok(lock);
                }
            }
            // A file that is wrong is replaced.
            Ok(None) | Err(LastRelayError::Wrong { .. }) => {}
            Err(error) => return Err(error),
        }
        let failed = |reason| self.failed(reason);
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        crate::files::create_folder(folder, 0o700).map_err(failed)?;
        let new = self.file.with_extension("new");
        // One that a power cut left. The new file must be ours alone.
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
        let mut file = file.map_err(failed)?;
        let mut text =
            serde_json::to_vec(&Record::of(last)).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        let written = file.write_all(&text).and_then(|()| file.sync_all());
        let lock = written.map_err(failed).and_then(|()| self.lock(file))?;
        std::fs::rename(&new, &self.file).map_err(failed)?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(lock)
    }

    fn failed(&self, reason: io::Error) -> LastRelayError {
        LastRelayError::File { file: self.file.clone(), reason }
    }

    fn lock(&self, file: File) -> Result<LastRelayLock, LastRelayError> {
        for _ in 0..LOCK_TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(LastRelayLock(file)),
                Err(TryLockError::WouldBlock) => std::thread::sleep(BETWEEN_LOCK_TRIES),
                Err(TryLockError::Error(reason)) => return Err(self.failed(reason)),
            }
        }
        Err(LastRelayError::InUse { file: self.file.clone() })
    }

    /// Opens and checks the file; `None` if there is none.
    fn open(&self) -> Result<Option<(File, LastRelay)>, LastRelayError> {
        // A link or a pipe in its place must not be followed or waited for.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
        let opened =
            OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(&self.file);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                return Err(self.wrong("is a link"));
            }
            Err(error) => return Err(self.failed(error)),
        };
        let found = file.metadata().map_err(|error| self.failed(error))?;
        let folder = self.file.parent().and_then(|folder| std::fs::metadata(folder).ok());
        let own = rustix::process::geteuid().as_raw();
        let trusted = [Some(0), Some(own), folder.map(|folder| folder.uid())];
        let fault = if !found.is_file() {
            "is no file"
        } else if !trusted.contains(&Some(found.uid())) {
            "belongs to another user"
        } else if found.mode() & 0o022 != 0 {
            "can be written by others"
        } else if found.len() > MAX_BYTES {
            "is too long"
        } else {
            let mut text = Vec::new();
            (&file).take(MAX_BYTES).read_to_end(&mut text).map_err(|error| self.failed(error))?;
            let record: Result<Record, _> = serde_json::from_slice(&text);
            let last = record.map_err(|_| "is damaged: it cannot be read".to_owned());
            let last = last.and_then(Record::checked).map_err(|fault| self.wrong(&fault))?;
            return Ok(Some((file, last)));
        };
        Err(self.wrong(fault))
    }

    fn wrong(&self, fault: &str) -> LastRelayError {
        LastRelayError::Wrong { file: self.file.clone(), fault: fault.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use tempfile::TempDir;

    const CONFIG: &str = "/etc/facelatch/facelatch.toml";

    fn place() -> (TempDir, LastRelayFile) {
        let folder = TempDir::new().expect("a folder");
        let file = LastRelayFile::of(&folder.path().join("state"), Path::new(CONFIG));
        (folder, file)
    }

    fn relay(uri: &str) -> LastRelay {
        LastRelay { uri: uri.to_owned(), lock: LockKind::FailSecure }
    }

    #[test]
    fn the_next_start_finds_the_relay_and_the_disk_is_written_to_only_for_a_change() {
        let (_folder, file) = place();
        assert_eq!(file.read().expect("nothing yet"), None);
        let inode = || std::fs::metadata(file.path()).expect("a file").ino();
        let first = LastRelay { lock: LockKind::FailSafe, ..relay("serial:/dev/ttyUSB0") };
        drop(file.keep(&first).expect("kept"));
        assert_eq!(file.read().expect("kept"), Some(first.clone()));
        let before = inode();
        drop(file.keep(&first).expect("kept"));
        assert_eq!(inode(), before);
        drop(file.keep(&relay("gpio:GPIO17")).expect("kept"));
        assert_eq!(file.read().expect("kept"), Some(relay("gpio:GPIO17")));
        let mode = std::fs::metadata(file.path()).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn doors_of_one_board_do_not_mix() {
        let (folder, _) = place();
        let of = |config: &str| LastRelayFile::of(folder.path(), Path::new(config)).file;
        assert_ne!(of("/etc/a.toml"), of("/etc/b.toml"));
        assert_eq!(of("/etc/./a.toml"), of("/etc/a.toml"));
        assert_eq!(of("here.toml"), of("./here.toml"));
    }

    #[test]
    fn while_a_service_runs_nobody_else_takes_its_relay() {
        let (_folder, file) = place();
        for uri in ["serial:/dev/ttyUSB0", "serial:/dev/ttyUSB1", "serial:/dev/ttyUSB1"] {
            let lock = file.keep(&relay(uri)).expect("kept");
            assert!(matches!(file.take(), Err(LastRelayError::InUse { .. })));
            assert!(matches!(file.keep(&relay("log:")), Err(LastRelayError::InUse { .. })));
            drop(lock);
            assert_eq!(file.take().expect("free").expect("one").0, relay(uri));
        }
    }

    #[test]
    fn what_no_service_wrote_is_refused_with_the_reason_and_replaced() {
        let (folder, file) = place();
        let refused = |expected: &str| {
            let message = file.read().expect_err(expected).to_string();
            assert!(message.contains(expected) && message.contains("relay-"), "{message}");
            drop(file.keep(&relay("log:")).expect("replaced"));
            assert_eq!(file.read().expect("kept"), Some(relay("log:")));
        };
        drop(file.keep(&relay("log:")).expect("kept"));
        let whole = std::fs::read_to_string(file.path()).expect("text");
        let write = |text: &str| std::fs::write(file.path(), text).expect("written");
        write(&whole.replace("log:", "lag:"));
        refused("checksum");
        write(&whole.replace("\"version\":1", "\"version\":2"));
        refused("has format 2");
        write(&whole[..20]);
        refused("damaged");
        write(&"x".repeat(5000));
        refused("too long");
        std::fs::set_permissions(file.path(), PermissionsExt::from_mode(0o622)).expect("a mode");
        refused("written by others");
        let elsewhere = folder.path().join("elsewhere");
        std::fs::rename(file.path(), &elsewhere).expect("moved");
        symlink(&elsewhere, file.path()).expect("a link");
        refused("is a link");
        assert_eq!(std::fs::read_to_string(elsewhere).expect("untouched"), whole);
    }

    proptest! {
        #[test]
        fn every_relay_survives_and_no_damage_is_taken_for_one(
            uri in "[ -~]{0,60}|\\PC{0,20}", safe in any::<bool>(),
            at in 0usize..200, bit in 0u32..8,
        ) {
            let lock = if safe { LockKind::FailSafe } else { LockKind::FailSecure };
            let last = LastRelay { uri, lock };
            prop_assume!(last.uri.chars().all(is_plain));
            let mut text = serde_json::to_vec(&Record::of(&last)).expect("JSON");
            let read = |text: &[u8]| {
                let record: Option<Record> = serde_json::from_slice(text).ok();
                record.and_then(|record| record.checked().ok())
            };
            prop_assert_eq!(read(&text), Some(last.clone()));
            let at = at % text.len();
            text[at] ^= 1 << bit;
            let other = read(&text);
            prop_assert!(other.is_none() || other == Some(last));
        }
    }
}
