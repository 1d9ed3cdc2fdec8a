//! EDGE: the files of a gallery: creating, opening, checking and restoring them.

use super::error::{StoreError, error};
use super::tables::{Fault, IDENTITY, NEXT_PERSON, REVISION, check_records, fault_of, meta, write};
use redb::{Builder, Database, DatabaseError, ReadOnlyDatabase, ReadableDatabase};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest wait for another process to release the file.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Cache size of the database, bytes; its default is meant for servers.
pub(super) const CACHE: usize = 8 << 20;

/// Path of the last good copy: `gallery.last-good.redb` for `gallery.redb`.
pub fn copy_path(path: &Path) -> PathBuf {
    path.with_extension("last-good.redb")
}

pub(super) fn draft_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".draft-{}", std::process::id()));
    name.into()
}

pub(super) fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    builder
}

/// Creates a gallery. It is complete before it gets its name, so that a power cut leaves
/// either none or a complete one. If another process was faster, opens its gallery.
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
    // Unlike a rename, a link does not replace an existing file.
    match std::fs::hard_link(&draft, path) {
        Ok(()) => remove_file(&draft).map_err(failed)?,
        Err(reason) if reason.kind() == ErrorKind::AlreadyExists => {
            remove_file(&draft).map_err(failed)?;
        }
        // The file system may have no links.
        Err(_) => std::fs::rename(&draft, path).map_err(io)?,
    }
    open_checked(path, PATIENCE).map_err(failed)
}

/// A random number, from the random seed of the standard library's hashers.
pub(super) fn random() -> u64 {
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id())
}

pub(super) fn create_folder(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)
        .map_err(|reason| StoreError::Io { path: folder.to_owned(), reason: reason.to_string() })
}

/// Creates a database file that only its owner can read, because it holds faces.
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

/// Moves the damaged file aside and replaces it by the copy, if the copy is intact. Returns
/// the path of the damaged file, if there was one.
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
                _ => "it is missing".to_owned(),
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
        reason: format!("damaged, and cannot be restored from its copy: {reason}"),
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

/// Opens an existing file and checks every record.
pub(super) fn open_checked(path: &Path, patience: Duration) -> Result<Database, Fault> {
    checked(path, patience, || builder().set_check_integrity_on_open(true).open(path))
}

/// Like [`open_checked`], but read-only, for a file that belongs to somebody else.
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
        Ok(_) => return Err(Fault::Io("not a regular file".to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(Fault::Absent),
        Err(error) => return Err(Fault::Io(error.to_string())),
    };
    if length == 0 {
        // The library would treat it as a new database.
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

/// Runs `work` and returns a panic as damage: the database library can panic on a damaged
/// file.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Fault::Damaged("its pages are inconsistent".to_owned())))
}
