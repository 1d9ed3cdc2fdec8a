//! EDGE: the sets of models on a device. A store is a folder:
//!
//! ```text
//!   STORE/current.toml            which set is used, and which was before
//!   STORE/2026.11-int8+1f2e3d4c/  a set: manifest.toml and the files it names
//! ```
//!
//! A set's folder is named by its version and the beginning of its manifest's digest,
//! which through the digests in it speaks for every byte of the set. It is written
//! under another name, checked, tried and only then given its own; what is used
//! changes by one rename of a small file. That is a file and not a symbolic link
//! because both names, the one in use and the one to go back to, must change at once,
//! because a file can be brought to the disk before it gets its name, and because not
//! every file system that boards boot from has links.

pub mod self_test;
#[cfg(test)]
mod tests;
mod unpack;

use crate::models::{MANIFEST, Models, ModelsError, is_plain_name, sha256_hex};
use crate::nn::Precision;
use crate::storage::gallery::{ReEmbedded, Store, StoreError, copy_path};
use crate::vision::detect::DetectorSettings;
use crate::vision::recognizer::{Recognizer, RecognizerError};
use self_test::{Report, SelfTest, SelfTestError};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use thiserror::Error;

pub use unpack::Source;

/// Name of the models in the binary, where no set is installed.
pub const BUILT_IN: &str = "built-in";
/// Name of the file that says which set is used.
const POINTER: &str = "current.toml";
/// Held while a store is changed.
const LOCK: &str = ".lock";
/// A set that is not yet complete, or no longer.
const DRAFT: &str = ".draft";
const REPLACED: &str = ".replaced";
/// Longest part of a version that goes into a folder's name.
const LONGEST_VERSION: usize = 64;

/// Why a store cannot be read or changed. What was used is still used.
#[derive(Debug, Error)]
pub enum ModelStoreError {
    /// The system does not let us.
    #[error("{path}: {reason}{}", cure(reason))]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// What should be installed is no set of models.
    #[error("{from}: {reason}")]
    Source {
        /// Where it comes from.
        from: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Somebody else is changing it.
    #[error("{path}: another facelatch is changing these models; wait until it is done")]
    Busy {
        /// The store.
        path: PathBuf,
    },
    /// The pointer makes no sense.
    #[error(
        "{path}: {reason}; remove it to use the built-in models, or install a set again with facelatch models install"
    )]
    Pointer {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No such set.
    #[error("{name:?}: there is no such set of models in {path}; see facelatch models list")]
    Unknown {
        /// As given.
        name: String,
        /// The store.
        path: PathBuf,
    },
    /// Nothing to go back to.
    #[error("{path}: no set of models was in use before this one, so there is no way back")]
    NoPrevious {
        /// The store.
        path: PathBuf,
    },
    /// The set in use is damaged, and so is the one before it.
    #[error(
        "{reason}; nor can the set before it be used; install one with facelatch models install"
    )]
    Lost {
        /// What is wrong with the set in use.
        reason: String,
    },
    /// The set is not whole, or not fit for a door.
    #[error(transparent)]
    Models(#[from] ModelsError),
    /// A network does not load.
    #[error(transparent)]
    Recognizer(#[from] RecognizerError),
    /// It gives something else here than where it was made.
    #[error(transparent)]
    SelfTest(#[from] SelfTestError),
    /// The people could not be carried over.
    #[error(transparent)]
    Gallery(#[from] StoreError),
}

fn cure(reason: &std::io::Error) -> &'static str {
    match reason.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "; make room on this disk and try again"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "; run this as the user the door runs as, or name another folder with --store"
        }
        _ => "",
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> ModelStoreError {
    let path = path.to_owned();
    move |reason| ModelStoreError::Io { path, reason }
}

/// `current.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pointer {
    /// The set in use: its folder's name, or [`BUILT_IN`].
    pub current: String,
    /// The one before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
}

impl Default for Pointer {
    fn default() -> Self {
        Self { current: BUILT_IN.to_owned(), previous: None }
    }
}

/// A set that was checked from end to end.
pub struct Checked {
    /// Each file as its digest says.
    pub models: Models,
    /// Its networks, loaded.
    pub recognizer: Recognizer,
    /// How the self-test went, where the set has one.
    pub report: Option<Report>,
    /// Names of its files, the manifest among them.
    pub files: Vec<String>,
}

/// What happened so far; the last one comes after the switch.
pub enum Told<'t> {
    /// All files are here.
    Unpacked(usize),
    /// The set is whole, its networks load and give what they should.
    Checked(&'t str, &'t Checked),
    /// The gallery's templates are the new set's.
    ReEmbedded(&'t ReEmbedded),
    /// The set has its place.
    Placed(&'t str),
    /// It is used from now on.
    Switched(&'t Pointer),
}

/// Hears of each step; an error, before the switch, ends the work and leaves all as
/// it was.
pub type Telling<'t> = dyn FnMut(&Told<'_>) -> std::io::Result<()> + 't;

/// The sets of models of a device.
#[derive(Clone, Debug)]
pub struct ModelStore {
    folder: PathBuf,
}

/// Holds the lock until it is dropped.
struct Lock(File);

impl Drop for Lock {
    /// Closing is not enough: a program that another thread is starting has the file, too,
    /// for as long as it takes to begin.
    fn drop(&mut self) {
        // Where that fails, the file is closed in a moment.
        let _ = self.0.unlock();
    }
}

impl ModelStore {
    /// The store in a folder, which need not be there: then the built-in models are
    /// used.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a set is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Which set is used.
    pub fn pointer(&self) -> Result<Pointer, ModelStoreError> {
        let path = self.folder.join(POINTER);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Pointer::default()),
            // So says a file in the place of the folder.
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                return Err(io(&self.folder)(error));
            }
            Err(reason) => return Err(io(&path)(reason)),
        };
        let broken = |reason: String| ModelStoreError::Pointer { path: path.clone(), reason };
        let pointer: Pointer =
            toml::from_str(&text).map_err(|error| broken(error.to_string().trim_end().into()))?;
        for name in [Some(&pointer.current), pointer.previous.as_ref()].into_iter().flatten() {
            if !is_set_name(name) {
                return Err(broken(format!("{name:?} is no set's name")));
            }
        }
        Ok(pointer)
    }

    /// Names of the sets in it, in order; the built-in one is not among them.
    pub fn names(&self) -> Result<Vec<String>, ModelStoreError> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(vec![]),
            Err(reason) => return Err(io(&self.folder)(reason)),
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            // What is named otherwise is something else's, like a plain set of models.
            .filter(|name| is_set_name(name) && name.contains('+'))
            .filter(|name| self.path(name).join(MANIFEST).is_file())
            .collect();
        names.sort();
        Ok(names)
    }

    /// A set by its name, each file held against its digest.
    pub fn open(&self, name: &str) -> Result<Models, ModelStoreError> {
        if name == BUILT_IN {
            return Ok(Models::built_in()?);
        }
        if !is_set_name(name) || !self.path(name).is_dir() {
            return Err(ModelStoreError::Unknown {
                name: name.to_owned(),
                path: self.folder.clone(),
            });
        }
        Ok(Models::open(&self.path(name))?)
    }

    /// The set in use. Where it is damaged the one before it, which once was good
    /// enough for the same door: that is told, and better than a door that stays shut.
    pub fn open_current(&self) -> Result<Models, ModelStoreError> {
        let Pointer { current, previous } = self.pointer()?;
        let reason = match self.open(&current) {
            Ok(models) => return Ok(models),
            Err(error) => error.to_string(),
        };
        match previous.map(|previous| self.open(&previous)) {
            Some(Ok(models)) => {
                log::error!(
                    "{reason}; going on with the set before it, {}",
                    models.manifest.version
                );
                Ok(models)
            }
            _ => Err(ModelStoreError::Lost { reason }),
        }
    }

    /// Checks a set: digests, shapes, thresholds, self-test.
    pub fn check(&self, name: &str, precision: Precision) -> Result<Checked, ModelStoreError> {
        if name == BUILT_IN {
            return check_models(Models::built_in()?, Path::new(BUILT_IN), precision);
        }
        check_models(self.open(name)?, &self.path(name), precision)
    }

    /// Installs a set and carries the people over: copies it, checks it and tries it,
    /// makes the gallery's templates anew, and then switches. Whatever goes wrong
    /// before that, the set in use stays in use; people whose templates were made
    /// anew already are made anew again from the same pictures by who needs it.
    pub fn install(
        &self,
        source: Source<'_>,
        precision: Precision,
        gallery: &Path,
        told: &mut Telling<'_>,
    ) -> Result<Pointer, ModelStoreError> {
        let _lock = self.lock()?;
        let draft = Draft::begin(&self.folder)?;
        let count = source.unpack(&draft.path)?;
        self.tell(told, &Told::Unpacked(count))?;
        let mut checked = check_models(Models::open(&draft.path)?, &draft.path, precision)?;
        draft.keep_only(&checked.files)?;
        let name = name_of(&draft.path, &checked.models)?;
        self.tell(told, &Told::Checked(&name, &checked))?;
        self.place(&draft, &name)?;
        self.tell(told, &Told::Placed(&name))?;
        let before = self.pointer().unwrap_or_default();
        let previous =
            if before.current == name { before.previous } else { Some(before.current.clone()) };
        let after = Pointer { current: name, previous };
        self.switch(&mut checked, gallery, &after, told)?;
        self.forget(&after);
        Ok(after)
    }

    /// Goes back to the set before, checked and with the people carried over. What was
    /// in use is then the one before.
    pub fn rollback(
        &self,
        precision: Precision,
        gallery: &Path,
        told: &mut Telling<'_>,
    ) -> Result<Pointer, ModelStoreError> {
        let _lock = self.lock()?;
        let Pointer { current, previous } = self.pointer()?;
        let Some(previous) = previous else {
            return Err(ModelStoreError::NoPrevious { path: self.folder.clone() });
        };
        let mut checked = self.check(&previous, precision)?;
        self.tell(told, &Told::Checked(&previous, &checked))?;
        let after = Pointer { current: previous, previous: Some(current) };
        self.switch(&mut checked, gallery, &after, told)?;
        Ok(after)
    }

    /// The gallery first, the pointer last: all that can fail is before the rename.
    fn switch(
        &self,
        checked: &mut Checked,
        gallery: &Path,
        after: &Pointer,
        told: &mut Telling<'_>,
    ) -> Result<(), ModelStoreError> {
        if gallery.exists() || copy_path(gallery).exists() {
            let id = checked.models.recognizer_id()?;
            let mut store = Store::open(gallery)?;
            if let Some(repaired) = store.repaired() {
                log::error!("{repaired}");
            }
            let done = store.re_embed(&id, |crop| checked.recognizer.embed(crop).ok())?;
            drop(store);
            self.tell(told, &Told::ReEmbedded(&done))?;
        }
        self.point(after)?;
        // Whoever no longer listens cannot undo it.
        let _ = told(&Told::Switched(after));
        Ok(())
    }

    fn tell(&self, told: &mut Telling<'_>, what: &Told<'_>) -> Result<(), ModelStoreError> {
        told(what).map_err(io(&self.folder))
    }

    /// Gives a complete draft its name. One of that name is the same, if it is whole.
    fn place(&self, draft: &Draft, name: &str) -> Result<(), ModelStoreError> {
        let target = self.path(name);
        let replaced = self.folder.join(REPLACED);
        if target.exists() {
            if open_whole(&target).is_ok() {
                return Ok(());
            }
            std::fs::rename(&target, &replaced).map_err(io(&target))?;
        }
        std::fs::rename(&draft.path, &target).map_err(io(&target))?;
        sync_folder(&self.folder)?;
        remove(&replaced)
    }

    /// The switch: one rename of a file that is on the disk already.
    fn point(&self, pointer: &Pointer) -> Result<(), ModelStoreError> {
        let path = self.folder.join(POINTER);
        let broken = |reason: String| ModelStoreError::Pointer { path: path.clone(), reason };
        let text = toml::to_string(pointer).map_err(|error| broken(error.to_string()))?;
        let draft = self.folder.join(format!("{POINTER}{DRAFT}"));
        write_synced(&draft, text.as_bytes())?;
        std::fs::rename(&draft, &path).map_err(io(&path))?;
        sync_folder(&self.folder)
    }

    /// Removes the sets that are neither used nor the way back, so that a disk does
    /// not fill up over the years.
    fn forget(&self, pointer: &Pointer) {
        for name in self.names().unwrap_or_default() {
            if name != pointer.current && Some(&name) != pointer.previous.as_ref() {
                // It is only in the way.
                if let Err(error) = remove(&self.path(&name)) {
                    log::warn!("{error}");
                }
            }
        }
    }

    fn lock(&self) -> Result<Lock, ModelStoreError> {
        std::fs::create_dir_all(&self.folder).map_err(io(&self.folder))?;
        let path = self.folder.join(LOCK);
        let file = File::options().create(true).append(true).open(&path).map_err(io(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock(file)),
            Err(std::fs::TryLockError::WouldBlock) => {
                Err(ModelStoreError::Busy { path: self.folder.clone() })
            }
            Err(std::fs::TryLockError::Error(reason)) => Err(io(&path)(reason)),
        }
    }
}

/// A folder that goes away unless it gets a name.
struct Draft {
    path: PathBuf,
}

impl Draft {
    /// A new one; whatever a killed installation left goes first.
    fn begin(store: &Path) -> Result<Self, ModelStoreError> {
        for left in [DRAFT, REPLACED] {
            remove(&store.join(left))?;
        }
        let path = store.join(DRAFT);
        std::fs::create_dir(&path).map_err(io(&path))?;
        Ok(Self { path })
    }

    /// Removes what came along and belongs to nobody, and brings the folder to the
    /// disk.
    fn keep_only(&self, files: &[String]) -> Result<(), ModelStoreError> {
        for entry in std::fs::read_dir(&self.path).map_err(io(&self.path))? {
            let entry = entry.map_err(io(&self.path))?;
            if !files.iter().any(|file| entry.file_name() == file.as_str()) {
                std::fs::remove_file(entry.path()).map_err(io(&entry.path()))?;
            }
        }
        sync_folder(&self.path)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Once it has its name there is nothing here.
        let _ = remove(&self.path);
    }
}

/// Checks a set that is not in a store.
pub fn check_folder(folder: &Path, precision: Precision) -> Result<Checked, ModelStoreError> {
    check_models(Models::open(folder)?, folder, precision)
}

fn check_models(
    models: Models,
    folder: &Path,
    precision: Precision,
) -> Result<Checked, ModelStoreError> {
    let models = models.in_precision(precision);
    models.thresholds()?;
    let mut recognizer = Recognizer::new(&models, DetectorSettings::default())?;
    let read = |name: &str| std::fs::read(folder.join(name));
    let test = SelfTest::read(folder, &models.manifest, &read)?;
    let report = match &test {
        Some(test) => Some(test.run(&mut recognizer, folder, &read)?),
        None => None,
    };
    let named = models.manifest.files().into_iter().map(|(name, _)| name);
    let pictures = test.iter().flat_map(SelfTest::pictures);
    let files = [MANIFEST].into_iter().chain(named).chain(pictures).map(str::to_owned).collect();
    Ok(Checked { models, recognizer, report, files })
}

/// Whether all files of a set are there as their digests say, without loading it.
fn open_whole(folder: &Path) -> Result<(), ModelStoreError> {
    let models = Models::open(folder)?;
    let read = |name: &str| std::fs::read(folder.join(name));
    if let Some(test) = SelfTest::read(folder, &models.manifest, &read)? {
        for picture in test.pictures() {
            read(picture).map_err(io(&folder.join(picture)))?;
        }
    }
    Ok(())
}

/// Version and beginning of the manifest's digest.
fn name_of(folder: &Path, models: &Models) -> Result<String, ModelStoreError> {
    let path = folder.join(MANIFEST);
    let digest = sha256_hex(&std::fs::read(&path).map_err(io(&path))?);
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let version: String =
        models.manifest.version.chars().map(plain).take(LONGEST_VERSION).collect();
    // A folder that begins with a dot is hidden, and a draft.
    let version = version.trim_start_matches('.');
    Ok(format!("{version}+{}", digest.get(..8).unwrap_or(&digest)))
}

fn is_set_name(name: &str) -> bool {
    is_plain_name(name) && !name.starts_with('.')
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), ModelStoreError> {
    File::create(path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .map_err(io(path))
}

/// A name is on the disk only when its folder is.
fn sync_folder(folder: &Path) -> Result<(), ModelStoreError> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(io(folder))
}

fn remove(folder: &Path) -> Result<(), ModelStoreError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io(folder)(error)),
        _ => Ok(()),
    }
}
