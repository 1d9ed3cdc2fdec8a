//! EDGE: lockdown that survives restarts: only the order "normal" ends it, however the
//! service ended.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

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

    /// Starts or ends lockdown, synced to disk so that it survives a power cut. On an
    /// error while ending it, lockdown holds.
    pub fn set(&self, holds: bool) -> io::Result<()> {
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
        let mut file = File::create(&self.file)?;
        file.write_all(b"facelatch door normal ends it\n")?;
        file.sync_all()
    }

    /// Syncs the folder, which holds the file's name.
    fn sync_folder(&self) -> io::Result<()> {
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

/// Capacity of the order queue; at most four clients give orders.
const WAITING: usize = 8;

/// How long the end waits for a slow card.
const END_WITHIN: Duration = Duration::from_secs(3);

/// Writes the file on its own thread: a card may take seconds, and the relay switches off
/// when the service is silent for too long.
#[derive(Debug)]
pub struct LockdownWriter {
    lockdown: LockdownFile,
    orders: Option<SyncSender<bool>>,
    done: Receiver<io::Result<()>>,
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
    pub fn written(&self) -> Option<io::Result<()>> {
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
        let unreadable = LockdownFile::beside(&folder.path().join("x\0y/gallery.redb"));
        assert!(unreadable.holds());
        assert!(unreadable.set(false).is_err());
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
