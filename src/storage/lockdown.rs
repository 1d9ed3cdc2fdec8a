//! EDGE: what holds for the door beyond a restart: lockdown, which only the order "normal"
//! ends, whatever ends the service.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// A file that is there while lockdown holds.
#[derive(Clone, Debug)]
pub struct Standing {
    file: PathBuf,
}

impl Standing {
    /// That of the door with this gallery: a file beside it, named after it, for two doors
    /// may keep theirs in one folder.
    pub fn beside(gallery: &Path) -> Self {
        let mut name = gallery.file_name().unwrap_or_default().to_owned();
        name.push(".lockdown");
        Self { file: gallery.with_file_name(name) }
    }

    /// Where it is written.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Whether lockdown holds. Where nobody can tell, it does.
    pub fn lockdown(&self) -> bool {
        match self.file.symlink_metadata() {
            Ok(_) => true,
            Err(error) => error.kind() != ErrorKind::NotFound,
        }
    }

    /// Makes it hold, or no longer, beyond a power cut. Where it cannot be made to end for
    /// sure, it holds.
    pub fn set_lockdown(&self, holds: bool) -> io::Result<()> {
        if holds {
            self.write()?;
            return self.sync_folder();
        }
        match std::fs::remove_file(&self.file) {
            // Perhaps since the last try, which could not make sure of it.
            Err(error) if error.kind() == ErrorKind::NotFound => return self.sync_folder(),
            removed => removed?,
        }
        self.sync_folder().inspect_err(|_| {
            // The error is told.
            let _ = self.write();
        })
    }

    fn write(&self) -> io::Result<()> {
        let mut file = File::create(&self.file)?;
        file.write_all(b"facelatch door normal ends it\n")?;
        file.sync_all()
    }

    /// The name is in the folder.
    fn sync_folder(&self) -> io::Result<()> {
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

/// Orders that wait to be written; those who give them are four at most.
const WAITING: usize = 8;

/// A card that takes longer is left to the system.
const END_WITHIN: Duration = Duration::from_secs(3);

/// Writes on a thread of its own: a card may take seconds, and a door that waits for it
/// is given up by its relay.
#[derive(Debug)]
pub struct StandingWriter {
    standing: Standing,
    orders: Option<SyncSender<bool>>,
    done: Receiver<io::Result<()>>,
}

impl StandingWriter {
    /// The thread ends with this, after what it was told, which is waited for, but not
    /// without end.
    pub fn start(standing: Standing) -> io::Result<Self> {
        let (orders, to_write) = sync_channel::<bool>(WAITING);
        // Each order has room for its answer.
        let (written, done) = sync_channel(2 * WAITING);
        let file = standing.clone();
        std::thread::Builder::new().name("lockdown".to_owned()).spawn(move || {
            for holds in to_write {
                // Who ordered it may have gone; it is written all the same.
                let _ = written.send(file.set_lockdown(holds));
            }
        })?;
        Ok(Self { standing, orders: Some(orders), done })
    }

    /// What is written.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Begins to write it; whether it did, or too much waits already.
    pub fn set_lockdown(&self, holds: bool) -> bool {
        self.orders.as_ref().is_some_and(|orders| orders.try_send(holds).is_ok())
    }

    /// How the next one went, in the order in which they were begun; nothing while it is
    /// being written.
    pub fn written(&self) -> Option<io::Result<()>> {
        self.done.try_recv().ok()
    }
}

impl Drop for StandingWriter {
    fn drop(&mut self) {
        self.orders = None;
        let until = Instant::now() + END_WITHIN;
        // Until the thread has let go of its end.
        while self.done.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_until_it_is_ended_and_where_nobody_can_tell() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let standing = Standing::beside(&folder.path().join("gallery.redb"));
        assert!(!standing.lockdown());
        standing.set_lockdown(false).expect("nothing to end");
        for _ in 0..2 {
            standing.set_lockdown(true).expect("written");
            assert!(standing.clone().lockdown());
        }
        standing.set_lockdown(false).expect("removed");
        assert!(!standing.lockdown());
        let other = Standing::beside(&folder.path().join("yard.redb"));
        other.set_lockdown(true).expect("written");
        assert!(!standing.lockdown(), "another door in the same folder");
        let unreadable = Standing::beside(&folder.path().join("x\0y/gallery.redb"));
        assert!(unreadable.lockdown());
        assert!(unreadable.set_lockdown(false).is_err());
    }

    #[test]
    fn what_is_ordered_is_written_in_turn() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let writer = StandingWriter::start(Standing::beside(&folder.path().join("gallery.redb")));
        let writer = writer.expect("a thread");
        assert!([true, false, true].into_iter().all(|holds| writer.set_lockdown(holds)));
        for _ in 0..3 {
            let done = writer.done.recv_timeout(Duration::from_secs(60));
            done.expect("an answer").expect("written");
        }
        assert!(writer.standing().lockdown() && writer.written().is_none());
        // What is ordered last is written, too.
        let standing = writer.standing().clone();
        assert!(writer.set_lockdown(false));
        drop(writer);
        assert!(!standing.lockdown());
    }
}
