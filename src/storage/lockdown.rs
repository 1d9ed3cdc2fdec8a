//! EDGE: lockdown that survives restarts: only the order "normal" ends it, however the
//! service ended.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Lockdown cannot be begun or ended.
#[derive(Debug, Error)]
#[error("{file}: {reason}{}", cure(.reason))]
pub struct LockdownError {
    /// The file that exists while lockdown holds.
    pub file: PathBuf,
    /// The system's error.
    pub reason: io::Error,
}

fn cure(reason: &io::Error) -> &'static str {
    match reason.kind() {
        ErrorKind::PermissionDenied => {
            "; become root or the user of the service, such as with: sudo -u facelatch"
        }
        ErrorKind::NotFound => {
            "; is the disk with the gallery mounted, and the configuration the door's?"
        }
        ErrorKind::ReadOnlyFilesystem => {
            "; the disk is read-only: mount it writable, or replace it"
        }
        ErrorKind::StorageFull => "; make room on the disk",
        _ => "",
    }
}

/// The file that exists while lockdown holds.
#[derive(Clone, Debug)]
pub struct LockdownFile {
    file: PathBuf,
}

impl LockdownFile {
    /// The file of the door with this gallery: beside the gallery and named after it,
    /// because two doors may keep theirs in one folder.
    pub fn beside(gallery: &Path) -> Self {
        let mut name = gallery.file_name().unwrap_or_default().to_owned();
        name.push(".lockdown");
        Self { file: gallery.with_file_name(name) }
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// Whether lockdown holds. It also holds if the file cannot be checked.
    pub fn holds(&self) -> bool {
        match self.file.symlink_metadata() {
            Ok(_) => true,
            Err(error) => error.kind() != ErrorKind::NotFound,
        }
    }

    /// Starts or ends lockdown, synced to disk so that it survives a power cut.
    ///
    /// # Errors
    /// If the file cannot be written, removed or synced. After an error while ending it,
    /// lockdown holds.
    pub fn set(&self, holds: bool) -> Result<(), LockdownError> {
        self.write_or_remove(holds)
            .map_err(|reason| LockdownError { file: self.file.clone(), reason })
    }

    fn write_or_remove(&self, holds: bool) -> io::Result<()> {
        if holds {
            self.write()?;
            return self.sync_folder();
        }
        match std::fs::remove_file(&self.file) {
            // A previous attempt may have removed it without the sync.
            Err(error) if error.kind() == ErrorKind::NotFound => return self.sync_folder(),
            removed => removed?,
        }
        self.sync_folder().inspect_err(|_| {
            // The caller gets the error of the sync.
            let _ = self.write();
        })
    }

    fn write(&self) -> io::Result<()> {
        // A new file only: root must follow no link that the service's user has made. One
        // that is there already, of whatever kind and owner, is lockdown.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&self.file);
        let mut file = match file {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
            file => file?,
        };
        file.write_all(b"facelatch door normal ends it\n")?;
        file.sync_all()
    }

    /// Syncs the folder, which holds the file's name.
    fn sync_folder(&self) -> io::Result<()> {
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

/// Capacity of the order queue: one for each connection of those who give orders.
const WAITING: usize = 40;

/// How long the end waits for a slow card.
const END_WITHIN: Duration = Duration::from_secs(3);

/// Writes the file on its own thread: a card may take seconds, and the relay switches off
/// when the service is silent for too long.
#[derive(Debug)]
pub struct LockdownWriter {
    lockdown: LockdownFile,
    orders: Option<SyncSender<bool>>,
    done: Receiver<Result<(), LockdownError>>,
}

impl LockdownWriter {
    /// Starts the thread. It ends when this is dropped, after pending orders are written;
    /// that is waited for up to three seconds. An error if the thread cannot be started.
    pub fn start(lockdown: LockdownFile) -> io::Result<Self> {
        let (orders, to_write) = sync_channel::<bool>(WAITING);
        // Room for the result of every order.
        let (written, done) = sync_channel(2 * WAITING);
        let file = lockdown.clone();
        std::thread::Builder::new().name("lockdown".to_owned()).spawn(move || {
            for holds in to_write {
                // The order is written even if its result is no longer wanted.
                let _ = written.send(file.set(holds));
            }
        })?;
        Ok(Self { lockdown, orders: Some(orders), done })
    }

    /// The file being written.
    pub fn file(&self) -> &LockdownFile {
        &self.lockdown
    }

    /// Queues a change; false if the queue is full.
    pub fn set(&self, holds: bool) -> bool {
        self.orders.as_ref().is_some_and(|orders| orders.try_send(holds).is_ok())
    }

    /// Result of the next change, in the order they were queued; `None` while it is
    /// pending.
    pub fn written(&self) -> Option<Result<(), LockdownError>> {
        self.done.try_recv().ok()
    }
}

impl Drop for LockdownWriter {
    fn drop(&mut self) {
        self.orders = None;
        let until = Instant::now() + END_WITHIN;
        // The channel closes when the thread ends.
        while self.done.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lockdown_holds_until_ended_and_if_its_file_is_unreadable() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let lockdown = LockdownFile::beside(&folder.path().join("gallery.redb"));
        assert!(!lockdown.holds());
        lockdown.set(false).expect("nothing to end");
        for _ in 0..2 {
            lockdown.set(true).expect("written");
            assert!(lockdown.clone().holds());
        }
        lockdown.set(false).expect("removed");
        assert!(!lockdown.holds());
        let other = LockdownFile::beside(&folder.path().join("yard.redb"));
        other.set(true).expect("written");
        assert!(!lockdown.holds(), "another door in the same folder");
        // A link is lockdown, too, and is not followed.
        std::os::unix::fs::symlink(folder.path().join("precious"), lockdown.path())
            .expect("a link");
        assert!(lockdown.holds());
        lockdown.set(true).expect("holds");
        assert!(!folder.path().join("precious").exists());
        lockdown.set(false).expect("removed");
        assert!(!lockdown.holds());
        let unreadable = LockdownFile::beside(&folder.path().join("x\0y/gallery.redb"));
        assert!(unreadable.holds());
        assert!(unreadable.set(false).is_err());
    }

    #[test]
    fn a_fault_names_the_file_and_the_cure() {
        let file = PathBuf::from("/var/lib/facelatch/gallery.redb.lockdown");
        let said =
            |kind: ErrorKind| LockdownError { file: file.clone(), reason: kind.into() }.to_string();
        assert!(said(ErrorKind::PermissionDenied).contains("sudo -u facelatch"));
        assert!(said(ErrorKind::NotFound).contains("mounted"));
        assert!(said(ErrorKind::ReadOnlyFilesystem).contains("read-only"));
        assert!(said(ErrorKind::Other).starts_with("/var/lib/facelatch/gallery.redb.lockdown: "));
        let missing = LockdownFile::beside(Path::new("/no/such/folder/gallery.redb"));
        assert!(missing.set(true).is_err() && !missing.holds());
    }

    #[test]
    fn changes_are_written_in_order() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let writer =
            LockdownWriter::start(LockdownFile::beside(&folder.path().join("gallery.redb")));
        let writer = writer.expect("a thread");
        assert!([true, false, true].into_iter().all(|holds| writer.set(holds)));
        for _ in 0..3 {
            let done = writer.done.recv_timeout(Duration::from_secs(60));
            done.expect("an answer").expect("written");
        }
        assert!(writer.file().holds() && writer.written().is_none());
        // The last order is written, too.
        let lockdown = writer.file().clone();
        assert!(writer.set(false));
        drop(writer);
        assert!(!lockdown.holds());
    }
}
