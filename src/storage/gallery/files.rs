//! EDGE: the files of a gallery: creating, opening, checking and restoring them.

use super::check::{Checked, Depth, check_records};
use super::choose::Found;
use super::error::{StoreError, error};
use super::presence::{folder_of, give_to_owner, look, open_to_read};
use super::rewrite::{Numbers, fill};
use super::sealed::Keys;
use super::tables::{Fault, fault_of};
use crate::files;
use crate::storage::keys::DoorKeys;
use redb::backends::{FileBackend, InMemoryBackend};
use redb::{Builder, Database, DatabaseError, ReadOnlyDatabase, ReadableDatabase, StorageBackend};
use std::io::{ErrorKind, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest wait for another process to release the file.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Cache size of the database, bytes; its default is meant for servers.
pub(super) const CACHE: usize = 8 << 20;

/// Beginning of every file of the database library.
const MAGIC: &[u8; 9] = b"redb\x1a\x0a\xa9\x0d\x0a";

/// Largest file that is read into memory, bytes, because it was not closed properly and its
/// file system is read-only: a thousand people with pictures.
const LARGEST_IN_MEMORY: u64 = 64 << 20;

/// An open file.
#[derive(Debug)]
pub(super) enum Open {
    /// It can be changed.
    Writable(Database),
    /// It can only be read.
    Readable(Readable),
}

/// A file that is only read.
pub(super) enum Readable {
    File(ReadOnlyDatabase),
    /// A copy in memory of a file that was not closed properly. The database library repairs
    /// it there, and the file stays as it is.
    Memory(Database),
}

impl std::fmt::Debug for Readable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::File(_) => "File",
            Self::Memory(_) => "Memory",
        })
    }
}

impl Readable {
    pub(super) fn reader(&self) -> &dyn ReadableDatabase {
        match self {
            Self::File(database) => database,
            Self::Memory(database) => database,
        }
    }
}

impl Open {
    pub(super) fn reader(&self) -> &dyn ReadableDatabase {
        match self {
            Self::Writable(database) => database,
            Self::Readable(readable) => readable.reader(),
        }
    }
}

/// Part of the name of a draft, followed by the number of its process.
const DRAFT: &str = ".draft-";

/// Path of the copy that is kept of an old gallery when it is sealed:
/// `gallery.redb.unsealed`.
pub fn unsealed_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".unsealed");
    name.into()
}

/// Path of the last good copy: `gallery.last-good.redb` for `gallery.redb`.
pub fn copy_path(path: &Path) -> PathBuf {
    path.with_extension("last-good.redb")
}

pub(super) fn draft_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!("{DRAFT}{}", std::process::id()));
    name.into()
}

/// Removes drafts of the file and its copy that killed processes left behind: they hold
/// faces, perhaps of people who were removed since.
pub(super) fn remove_drafts(path: &Path) {
    let copy = copy_path(path);
    let names = [path, &copy].map(|file| file.file_name().unwrap_or_default().to_os_string());
    let Ok(entries) = std::fs::read_dir(folder_of(path)) else { return };
    for entry in entries.flatten() {
        let found = entry.file_name();
        let is_draft = names.iter().any(|name| {
            let rest = found.as_encoded_bytes().strip_prefix(name.as_encoded_bytes());
            rest.is_some_and(|rest| rest.starts_with(DRAFT.as_bytes()))
        });
        if is_draft && let Err(error) = std::fs::remove_file(entry.path()) {
            log::warn!("{}: {error}; a remainder with faces, remove it", entry.path().display());
        }
    }
}

pub(super) fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    builder
}

/// Creates a gallery. It is complete before it gets its name, so that a power cut leaves
/// either none or a complete one. If another process was faster, opens its gallery.
///
/// `revision` is the identity of the gallery and its first revision. It is sealed if there
/// are keys.
pub(super) fn begin(
    path: &Path,
    revision: [u64; 2],
    keys: Option<&Arc<DoorKeys>>,
) -> Result<(), StoreError> {
    create_folder(path)?;
    let failed = |fault| error(path, fault);
    let io = |reason: std::io::Error| error(path, Fault::Io(reason.to_string()));
    let draft = draft_path(path);
    remove_file(&draft).map_err(failed)?;
    let database = create(&draft).map_err(failed)?;
    let [identity, revision] = revision;
    let numbers = Numbers { identity, revision, next_person: 1 };
    fill(&database, keys, numbers, |_| Ok(())).map_err(failed)?;
    drop(database);
    give_to_owner(&draft).map_err(io)?;
    // Unlike a rename, a link does not replace an existing file.
    match std::fs::hard_link(&draft, path) {
        Ok(()) => remove_file(&draft).map_err(failed)?,
        Err(reason) if reason.kind() == ErrorKind::AlreadyExists => {
            remove_file(&draft).map_err(failed)?;
        }
        // Another process was faster, and removed the draft.
        Err(_) if path.exists() => remove_file(&draft).map_err(failed)?,
        // The file system may have no links.
        Err(_) => std::fs::rename(&draft, path).map_err(io)?,
    }
    sync_folder(path).map_err(io)
}

/// Syncs the folder of a file. Without this, a power cut may undo a rename that the
/// register already remembers.
pub(in crate::storage) fn sync_folder(path: &Path) -> std::io::Result<()> {
    std::fs::File::open(folder_of(path))?.sync_all()
}

/// A random number, from the random seed of the standard library's hashers.
pub(super) fn random() -> u64 {
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id())
}

pub(super) fn create_folder(path: &Path) -> Result<(), StoreError> {
    let folder = folder_of(path);
    files::create_folder(folder, 0o777)
        .map_err(|reason| StoreError::Io { path: folder.to_owned(), reason: reason.to_string() })
}

/// Creates a database file that only its owner can read, because it holds faces.
pub(super) fn create(path: &Path) -> Result<Database, Fault> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(|error| Fault::Io(error.to_string()))?;
    let backend = FileBackend::new(file).map_err(fault_of)?;
    builder().create_with_backend(backend).map_err(fault_of)
}

pub(super) fn remove_file(path: &Path) -> Result<(), Fault> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Fault::Io(error.to_string())),
        _ => Ok(()),
    }
}

/// An empty database in memory.
pub(super) fn in_empty_memory() -> Result<Database, Fault> {
    builder().create_with_backend(InMemoryBackend::new()).map_err(fault_of)
}

/// Puts the copy, which must be intact, in the place of the main file. Moves the main file
/// aside, with `ending` and a number after its name. Returns its path, if there was one.
pub(super) fn restore(
    path: &Path,
    copy: &Path,
    ending: &str,
) -> Result<Option<PathBuf>, StoreError> {
    let io = |reason: std::io::Error| StoreError::Io {
        path: path.to_owned(),
        reason: format!("cannot be restored from its copy: {reason}"),
    };
    let draft = draft_path(path);
    std::fs::copy(copy, &draft).map_err(io)?;
    std::fs::File::open(&draft).and_then(|file| file.sync_all()).map_err(io)?;
    give_to_owner(&draft).map_err(io)?;
    let aside = move_aside(path, ending).map_err(io)?;
    std::fs::rename(&draft, path).map_err(io)?;
    sync_folder(path).map_err(io)?;
    Ok(aside)
}

/// Moves a file aside: `gallery.redb.damaged-1`. Returns its new path; `None` if there was
/// no file.
pub(super) fn move_aside(path: &Path, ending: &str) -> std::io::Result<Option<PathBuf>> {
    if !path.exists() {
        return Ok(None);
    }
    let aside = (1..)
        .map(|n| PathBuf::from(format!("{}.{ending}-{n}", path.display())))
        .find(|candidate| !candidate.exists());
    if let Some(aside) = &aside {
        std::fs::rename(path, aside)?;
    }
    Ok(aside)
}

/// An open file with all its records checked, or why it cannot be used.
pub(super) type Probed<D> = Result<(D, Checked), Fault>;

/// State of a probed file. An error that says nothing about its content is passed on.
pub(super) fn found<D>(probed: &Probed<D>) -> Option<Found> {
    match probed {
        Ok((_, checked)) if checked.flaws.is_empty() => Some(Found::Whole(checked.snapshot)),
        Ok((_, checked)) => Some(Found::Flawed(checked.snapshot)),
        Err(Fault::Absent) => Some(Found::Absent),
        Err(fault) => fault.unusable().map(|_| Found::Unusable),
    }
}

/// Opens an existing file and checks every record.
pub(super) fn open_checked(path: &Path, patience: Duration, how: How<'_>) -> Probed<Database> {
    checked(
        path,
        patience,
        how,
        |database| database,
        || builder().set_check_integrity_on_open(true).open(path).map_err(fault_of),
    )
}

/// With which keys the records of a file are checked, and how deep.
#[derive(Clone, Copy)]
pub(super) struct How<'k> {
    pub(super) keys: &'k Keys,
    pub(super) depth: Depth<'k>,
}

impl<'k> How<'k> {
    /// Every record is opened.
    pub(super) fn all(keys: &'k Keys) -> Self {
        Self { keys, depth: Depth::Records }
    }
}

/// Like [`open_checked`], but read-only. A file that another process left in disorder is
/// read into memory and repaired there.
pub(super) fn read_checked(path: &Path, patience: Duration, how: How<'_>) -> Probed<Readable> {
    checked(path, patience, how, Readable::reader, || open_readable(path))
}

/// Opens a file read-only, without checking its records.
pub(super) fn open_readable(path: &Path) -> Result<Readable, Fault> {
    begins_right(path)?;
    let backend = FileBackend::new(open_to_read(path)?).map_err(fault_of)?;
    match builder().open_read_only_with_backend(backend) {
        Ok(database) => Ok(Readable::File(database)),
        Err(DatabaseError::RepairAborted) => in_memory(path).map(Readable::Memory),
        Err(error) => Err(fault_of(error)),
    }
}

fn in_memory(path: &Path) -> Result<Database, Fault> {
    let read = |error: std::io::Error| Fault::Io(error.to_string());
    let mut bytes = Vec::new();
    let mut file = open_to_read(path)?.take(LARGEST_IN_MEMORY + 1);
    file.read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > LARGEST_IN_MEMORY {
        let most = LARGEST_IN_MEMORY >> 20;
        return Err(Fault::Damaged(format!(
            "its last write is incomplete, and it is too large ({most} MB) to be repaired in memory"
        )));
    }
    let backend = InMemoryBackend::new();
    let fill = || {
        backend.set_len(bytes.len() as u64)?;
        backend.write(0, &bytes)
    };
    fill().map_err(|_| Fault::Io("cannot be copied to memory".to_owned()))?;
    builder().set_check_integrity_on_open(true).create_with_backend(backend).map_err(fault_of)
}

/// Checks the beginning of the file: the library would treat an empty file as a new
/// database, and what is no database at all is no damage.
fn begins_right(path: &Path) -> Result<(), Fault> {
    if look(path)?.len() == 0 {
        return Err(Fault::Damaged("it is empty".to_owned()));
    }
    let mut beginning = [0; MAGIC.len()];
    match open_to_read(path)?.read_exact(&mut beginning) {
        Ok(()) if beginning == *MAGIC => Ok(()),
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => {
            Err(Fault::Unreadable(error.to_string()))
        }
        _ => Err(Fault::NoGallery("no gallery file, or its beginning is damaged".to_owned())),
    }
}

fn checked<D>(
    path: &Path,
    patience: Duration,
    how: How<'_>,
    reader: impl for<'d> Fn(&'d D) -> &'d dyn ReadableDatabase,
    open: impl Fn() -> Result<D, Fault>,
) -> Probed<D> {
    begins_right(path)?;
    let started = Instant::now();
    loop {
        match guarded(&open) {
            Err(Fault::Busy) if started.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(fault) => return Err(fault),
            Ok(database) => {
                let checked = guarded(|| check_records(reader(&database), how.keys, how.depth))?;
                return Ok((database, checked));
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
