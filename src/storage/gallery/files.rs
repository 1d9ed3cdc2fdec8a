//! EDGE: a gallery's files: beginning, opening, checking and restoring them.

use crate::storage::gallery::StoreError;
use crate::storage::gallery::tables::{
    Fault, IDENTITY, NEXT_PERSON, REVISION, check_records, fault_of, meta, write,
};
use redb::{Builder, Database, DatabaseError, ReadOnlyDatabase, ReadableDatabase};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long to wait for another facelatch to let go of the file.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// What the database may keep in memory; its own default suits servers.
pub(super) const CACHE: usize = 8 << 20;

/// `gallery.redb` has its copy in `gallery.last-good.redb`.
pub fn copy_path(path: &Path) -> PathBuf {
    path.with_extension("last-good.redb")
}

pub(super) fn draft_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".draft-{}", std::process::id()));
    name.into()
}

pub(super) fn error(path: &Path, fault: Fault) -> StoreError {
    let path = path.to_owned();
    match fault {
        Fault::Absent => StoreError::Io { path, reason: "not there".to_owned() },
        Fault::Busy => StoreError::Busy { path },
        Fault::Damaged(reason) => StoreError::Io { path, reason: format!("damaged: {reason}") },
        Fault::Newer(reason) => StoreError::Newer { path, reason },
        Fault::Io(reason) => StoreError::Io { path, reason },
    }
}

pub(super) fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    builder
}

/// A new gallery, complete before it has its name: a power cut leaves none or a
/// whole one. Where another facelatch was faster, that one's.
pub(super) fn begin(path: &Path) -> Result<Database, StoreError> {
    create_folder(path)?;
    let failed = |fault| error(path, fault);
    let io = |reason: std::io::Error| error(path, Fault::Io(reason.to_string()));
    let draft = draft_path(path);
    remove_file(&draft).map_err(failed)?;
    let database = create(&draft).map_err(failed)?;
    let first = [meta(REVISION, 1), meta(NEXT_PERSON, 1), meta(IDENTITY, random())];
    write(&database, &first).map_err(|reason| failed(Fault::Io(reason)))?;
    drop(database);
    // A link, unlike a rename, replaces nothing.
    match std::fs::hard_link(&draft, path) {
        Ok(()) => remove_file(&draft).map_err(failed)?,
        Err(reason) if reason.kind() == ErrorKind::AlreadyExists => {
            remove_file(&draft).map_err(failed)?;
        }
        // Not every file system has links.
        Err(_) => std::fs::rename(&draft, path).map_err(io)?,
    }
    open_checked(path, PATIENCE).map_err(failed)
}

/// Different each time: the standard library seeds its hashers so.
pub(super) fn random() -> u64 {
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id())
}

pub(super) fn create_folder(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)
        .map_err(|reason| StoreError::Io { path: folder.to_owned(), reason: reason.to_string() })
}

/// A new file that only its owner can read: faces are nobody else's business.
pub(super) fn create(path: &Path) -> Result<Database, Fault> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(|error| Fault::Io(error.to_string()))?;
    let backend = redb::backends::FileBackend::new(file).map_err(fault_of)?;
    builder().create_with_backend(backend).map_err(fault_of)
}

pub(super) fn remove_file(path: &Path) -> Result<(), Fault> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Fault::Io(error.to_string())),
        _ => Ok(()),
    }
}

/// Moves the damaged file aside and puts the copy in its place, if the copy is
/// whole.
pub(super) fn restore(
    path: &Path,
    copy: &Path,
    reason: &str,
) -> Result<Option<PathBuf>, StoreError> {
    match open_checked(copy, PATIENCE) {
        Ok(copy) => drop(copy),
        Err(fault @ (Fault::Busy | Fault::Io(_) | Fault::Newer(_))) => {
            return Err(error(copy, fault));
        }
        Err(fault) => {
            let copy_reason = match fault {
                Fault::Damaged(reason) => reason,
                _ => "it is not there".to_owned(),
            };
            return Err(StoreError::Lost {
                path: path.to_owned(),
                reason: reason.to_owned(),
                copy: copy.to_owned(),
                copy_reason,
            });
        }
    }
    let io = |reason: std::io::Error| StoreError::Io {
        path: path.to_owned(),
        reason: format!("damaged, and its copy cannot take its place: {reason}"),
    };
    let draft = draft_path(path);
    std::fs::copy(copy, &draft).map_err(io)?;
    std::fs::File::open(&draft).and_then(|file| file.sync_all()).map_err(io)?;
    let aside = if path.exists() {
        let aside = (1..)
            .map(|n| PathBuf::from(format!("{}.damaged-{n}", path.display())))
            .find(|candidate| !candidate.exists());
        if let Some(aside) = &aside {
            std::fs::rename(path, aside).map_err(io)?;
        }
        aside
    } else {
        None
    };
    std::fs::rename(&draft, path).map_err(io)?;
    Ok(aside)
}

/// Opens an existing file and reads every record of it.
pub(super) fn open_checked(path: &Path, patience: Duration) -> Result<Database, Fault> {
    checked(path, patience, || builder().set_check_integrity_on_open(true).open(path))
}

/// Like [`open_checked`], but writes nothing: the file may be another's.
pub(super) fn open_to_read(path: &Path, patience: Duration) -> Result<ReadOnlyDatabase, Fault> {
    checked(path, patience, || builder().open_read_only(path))
}

fn checked<D: ReadableDatabase>(
    path: &Path,
    patience: Duration,
    open: impl Fn() -> Result<D, DatabaseError>,
) -> Result<D, Fault> {
    let length = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        Ok(_) => return Err(Fault::Io("not a file".to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(Fault::Absent),
        Err(error) => return Err(Fault::Io(error.to_string())),
    };
    if length == 0 {
        // The library would take it for a new one.
        return Err(Fault::Damaged("it is empty".to_owned()));
    }
    let started = Instant::now();
    loop {
        match guarded(|| open().map_err(fault_of)) {
            Err(Fault::Busy) if started.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(fault) => return Err(fault),
            Ok(database) => {
                guarded(|| check_records(&database))?;
                return Ok(database);
            }
        }
    }
}

/// A damaged file can make the library panic; that, too, is only damage.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Fault::Damaged("its pages make no sense".to_owned())))
}
