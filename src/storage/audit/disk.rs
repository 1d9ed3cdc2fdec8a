//! EDGE: the files of one folder. The log and its register use nothing else of the file
//! system, so that tests can put a folder in memory in its place that loses what was not
//! synced.

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest wait for another process to release the lock.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time between two attempts.
const BETWEEN: Duration = Duration::from_millis(2);
/// Most files in a folder that are looked at.
const MOST_NAMES: usize = 10_000;

/// The files of one folder, by name.
pub trait Disk {
    /// Releases the lock when it is dropped.
    type Lock;

    /// Makes the folder if it is missing.
    fn prepare(&self) -> io::Result<()>;
    /// Takes the lock of the folder, which processes share. Waits for two seconds at most.
    fn lock(&self) -> io::Result<Self::Lock>;
    /// Names of all files.
    fn names(&self) -> io::Result<Vec<String>>;
    /// Length of a file; `None` if there is none.
    fn length(&self, name: &str) -> io::Result<Option<u64>>;
    /// At most `most` bytes of a file from an offset; `None` if there is none.
    fn read(&self, name: &str, from: u64, most: u64) -> io::Result<Option<Vec<u8>>>;
    /// Makes a new file. An error if there is one.
    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Writes into an existing file.
    fn write(&self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts a file to this length.
    fn cut(&self, name: &str, length: u64) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Waits until the content of a file is on the disk.
    fn sync(&self, name: &str) -> io::Result<()>;
    /// Waits until the names of the folder are on the disk.
    fn sync_folder(&self) -> io::Result<()>;
    /// Path of a file, for messages.
    fn shown(&self, name: &str) -> PathBuf;
}

/// A real folder. Nothing in it is reached through a link: its user may have made one, and
/// root writes here as well. The folder is opened for each operation, because a card may go
/// away and come back.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    mode: Mode,
}

impl Folder {
    /// The folder at this path, with these rights when it is made.
    pub fn at(path: PathBuf, mode: u32) -> Self {
        Self { path, mode: Mode::from_raw_mode(mode) }
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn parent(&self) -> &Path {
        self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    fn open(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(&self.path, flags, Mode::empty()).map_err(|error| match error {
            Errno::LOOP | Errno::NOTDIR => {
                io::Error::other("it is a link or a file, not a folder; move it away")
            }
            error => error.into(),
        })
    }

    /// The folder, if it belongs to somebody who may decide about the log.
    fn open_owned(&self) -> io::Result<(OwnedFd, u32, u32)> {
        let folder = self.open()?;
        let found = rustix::fs::fstat(&folder)?;
        let me = rustix::process::geteuid().as_raw();
        let around = std::fs::metadata(self.parent())?.uid();
        let fine = [0, me, around].contains(&found.st_uid) || me == 0 && around == 0;
        if !fine {
            return Err(io::Error::new(
                ErrorKind::PermissionDenied,
                format!(
                    "the folder belongs to user {}, not to {around} like the folder around it; \
                     chown it",
                    found.st_uid
                ),
            ));
        }
        Ok((folder, found.st_uid, found.st_gid))
    }

    fn open_file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let (folder, owner) = if flags != OFlags::RDONLY {
            let (folder, owner, _) = self.open_owned()?;
            (folder, Some(owner))
        } else {
            (self.open()?, None)
        };
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder, name, flags, Mode::empty());
        let file = File::from(file.map_err(|error| match error {
            Errno::LOOP => io::Error::other("it is a link; remove it"),
            error => error.into(),
        })?);
        let found = file.metadata()?;
        if !found.is_file() || found.nlink() > 1 {
            return Err(io::Error::other("it is no file, or has a second name; remove it"));
        }
        if owner.is_some_and(|owner| ![0, owner].contains(&found.uid())) {
            return Err(io::Error::new(
                ErrorKind::PermissionDenied,
                format!(
                    "it belongs to user {}, not to the owner of its folder; chown it",
                    found.uid()
                ),
            ));
        }
        Ok(file)
    }

    /// A new file for the owner of the folder.
    fn make(&self, name: &str, mode: u32) -> io::Result<File> {
        let (folder, owner, group) = self.open_owned()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode);
        let file = File::from(rustix::fs::openat(&folder, name, flags | OFlags::NOFOLLOW, mode)?);
        rustix::fs::fchmod(&file, mode)?;
        give(&file, owner, group)?;
        Ok(file)
    }
}

/// Gives a file that root has made to the owner of its folder.
fn give(file: impl std::os::fd::AsFd, owner: u32, group: u32) -> io::Result<()> {
    if rustix::process::geteuid().is_root() && owner != 0 {
        std::os::unix::fs::fchown(file, Some(owner), Some(group))?;
    }
    Ok(())
}

/// Name of the lock file.
const LOCK: &str = "lock";

impl Disk for Folder {
    type Lock = File;

    fn prepare(&self) -> io::Result<()> {
        match self.open_owned() {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            opened => return opened.map(drop),
        }
        crate::files::create_folder(self.parent(), 0o777)?;
        let around = std::fs::metadata(self.parent())?;
        match rustix::fs::mkdir(&self.path, self.mode) {
            Ok(()) => {}
            // Another process was faster.
            Err(Errno::EXIST) => return self.open_owned().map(drop),
            Err(error) => return Err(error.into()),
        }
        let folder = self.open()?;
        rustix::fs::fchmod(&folder, self.mode)?;
        give(&folder, around.uid(), around.gid())?;
        File::open(self.parent())?.sync_all()
    }

    fn lock(&self) -> io::Result<File> {
        let file = match self.open_file(LOCK, OFlags::RDWR) {
            Err(error) if error.kind() == ErrorKind::NotFound => match self.make(LOCK, 0o600) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    self.open_file(LOCK, OFlags::RDWR)?
                }
                made => made?,
            },
            file => file?,
        };
        let until = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if Instant::now() < until => {
                    std::thread::sleep(BETWEEN);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(io::Error::new(
                        ErrorKind::ResourceBusy,
                        "another process has kept the log locked for 2 s; end it",
                    ));
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let entries = Dir::read_from(self.open()?)?;
        let mut names = Vec::new();
        for entry in entries.take(MOST_NAMES) {
            if let Ok(name) = entry?.file_name().to_str() {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn length(&self, name: &str) -> io::Result<Option<u64>> {
        match rustix::fs::statat(self.open()?, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(found.st_size.try_into().unwrap_or(0))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn read(&self, name: &str, from: u64, most: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match self.open_file(name, OFlags::RDONLY) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let there = file.metadata()?.len().saturating_sub(from).min(most);
        let mut bytes = vec![0; usize::try_from(there).unwrap_or(0)];
        let mut done = 0;
        while done < bytes.len() {
            match file.read_at(&mut bytes[done..], from + done as u64) {
                Ok(0) => break,
                Ok(more) => done += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(done);
        Ok(Some(bytes))
    }

    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.make(name, 0o640)?.write_all_at(bytes, 0)
    }

    fn write(&self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.open_file(name, OFlags::WRONLY)?.write_all_at(bytes, at)
    }

    fn cut(&self, name: &str, length: u64) -> io::Result<()> {
        self.open_file(name, OFlags::WRONLY)?.set_len(length)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let (folder, ..) = self.open_owned()?;
        Ok(rustix::fs::unlinkat(folder, name, AtFlags::empty())?)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.open_file(name, OFlags::WRONLY)?.sync_data()
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::from(self.open()?).sync_all()
    }

    fn shown(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}
