//! EDGE: the model sets installed on a device. A store is a folder:
//!
//! ```text
//!   STORE/current.toml            the pointer: names of the current and the previous set
//!   STORE/2026.11-int8+1f2e3d4c/  a set: manifest.toml and the files it names
//! ```
//!
//! The folder of a set is named by its version and the beginning of the digest of its
//! manifest, which through the digests in the manifest covers every byte of the set. A set
//! is written under a temporary name, checked and tested, and only then renamed. The set in
//! use changes by one rename of a small file, the pointer. The pointer is a file and not a
//! symbolic link for three reasons: the current and the previous name must change at once,
//! a file can be synced to the disk before it is renamed, and not every file system that
//! boards boot from has links.

mod check;
pub mod self_test;
#[cfg(test)]
mod tests;
mod unpack;

use crate::files;
use crate::models::{MANIFEST, MAX_FILE, Models, ModelsError, is_plain_name, sha256_hex};
use crate::nn::Precision;
use crate::storage::gallery::{Opening, Purpose, ReEmbedded, Register, Store, StoreError};
use crate::vision::recognizer::{Recognizer, RecognizerError};
use check::{check_models, open_whole};
use self_test::{Report, SelfTestError};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use thiserror::Error;

pub use check::check_folder;
pub use unpack::Source;

/// Name of the set built into the binary, which is used if no set is installed.
pub const BUILT_IN: &str = "built-in";
/// File name of the pointer.
const POINTER: &str = "current.toml";
/// Largest pointer, bytes.
const MAX_POINTER: u64 = 1 << 16;
/// Lock file, held while a store is changed.
const LOCK: &str = ".lock";
/// Folder of a set that is being installed.
const DRAFT: &str = ".draft";
/// Folder of a damaged set that is being replaced.
const REPLACED: &str = ".replaced";
/// Longest part of a version in the name of a folder, characters.
const LONGEST_VERSION: usize = 64;

/// Why a store cannot be read or changed. The set in use stays in use.
#[derive(Debug, Error)]
pub enum ModelStoreError {
    /// A file operation failed.
    #[error("{path}: {reason}{}", cure(reason))]
    Io {
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        reason: std::io::Error,
    },
    /// The source is not a model set.
    #[error("{from}: {reason}")]
    Source {
        /// Name of the source.
        from: String,
        /// What is wrong, and the cure.
        reason: String,
    },
    /// Another process is changing the store.
    #[error("{path}: another facelatch is changing these models; try again when it is done")]
    Busy {
        /// The store.
        path: PathBuf,
    },
    /// The pointer is invalid.
    #[error(
        "{path}: {reason}; remove it to use the built-in models, or install a set again with facelatch models install"
    )]
    Pointer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The set does not exist.
    #[error("{name:?}: no such model set in {path}; see facelatch models list")]
    Unknown {
        /// Name as given.
        name: String,
        /// The store.
        path: PathBuf,
    },
    /// There is no previous set.
    #[error("{path}: there is no previous model set to roll back to; see facelatch models list")]
    NoPrevious {
        /// The store.
        path: PathBuf,
    },
    /// The current set is damaged, and the previous set is damaged or missing.
    #[error(
        "{reason}; no previous set can be used either; install one with facelatch models install"
    )]
    Lost {
        /// What is wrong with the current set.
        reason: String,
    },
    /// The detector finds nothing, or a liveness network gives no numbers.
    #[error("{from}: {reason}; import good weights")]
    Useless {
        /// Folder of the set.
        from: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// The set is incomplete or has no thresholds.
    #[error(transparent)]
    Models(#[from] ModelsError),
    /// A network cannot be loaded.
    #[error(transparent)]
    Recognizer(#[from] RecognizerError),
    /// The self-test failed.
    #[error(transparent)]
    SelfTest(#[from] SelfTestError),
    /// The gallery could not be re-embedded.
    #[error(transparent)]
    Gallery(#[from] StoreError),
}

fn cure(reason: &std::io::Error) -> &'static str {
    match reason.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "; free some space on this disk and try again"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "; run this as the user of the service, or name another folder with --store"
        }
        _ => "",
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> ModelStoreError {
    let path = path.to_owned();
    move |reason| ModelStoreError::Io { path, reason }
}

/// The content of `current.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pointer {
    /// The set in use: the name of its folder, or [`BUILT_IN`].
    pub current: String,
    /// The set used before, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
}

impl Default for Pointer {
    fn default() -> Self {
        Self { current: BUILT_IN.to_owned(), previous: None }
    }
}

/// A set that passed all checks.
pub struct Checked {
    /// The models, with verified digests.
    pub models: Models,
    /// The loaded networks.
    pub recognizer: Recognizer,
    /// Result of the self-test, if the set has one.
    pub report: Option<Report>,
    /// Names of the files, including the manifest.
    pub files: Vec<String>,
}

/// A step of an installation or rollback that was completed.
pub enum Told<'t> {
    /// The files were copied; the number of files.
    Unpacked(usize),
    /// The set of that name passed all checks.
    Checked(&'t str, &'t Checked),
    /// The gallery was re-embedded with the new set.
    ReEmbedded(&'t ReEmbedded),
    /// The set of that name is in the store.
    Placed(&'t str),
    /// The pointer was written: the set is used from now on.
    Switched(&'t Pointer),
}

/// Callback for each step. An error before the switch ends the work, and the set in use
/// stays in use.
pub type Telling<'t> = dyn FnMut(&Told<'_>) -> std::io::Result<()> + 't;

/// The model sets of a device.
#[derive(Clone, Debug)]
pub struct ModelStore {
    folder: PathBuf,
    /// Where galleries are remembered.
    register: Option<Register>,
}

/// Holds the lock until it is dropped.
struct Lock(File);

impl Drop for Lock {
    /// Unlocks explicitly. Closing is not enough: a program that another thread is starting
    /// inherits the file until it executes.
    fn drop(&mut self) {
        // If this fails, closing the file releases the lock.
        let _ = self.0.unlock();
    }
}

impl ModelStore {
    /// The store in a folder. If the folder does not exist, the built-in set is used.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), register: None }
    }

    /// With the register that follows the changes of galleries.
    pub fn registered(self, register: Option<Register>) -> Self {
        Self { register, ..self }
    }

    /// The folder of the store.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of a set.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Reads the pointer. Without one the built-in set is current.
    ///
    /// # Errors
    /// If the pointer cannot be read or is invalid.
    pub fn pointer(&self) -> Result<Pointer, ModelStoreError> {
        let path = self.folder.join(POINTER);
        let text = match files::read_text(&path, MAX_POINTER) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Pointer::default()),
            // There is a file in place of the folder.
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
                return Err(broken(format!("{name:?} is not a valid set name")));
            }
        }
        Ok(pointer)
    }

    /// Names of the installed sets, sorted, without the built-in one.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn names(&self) -> Result<Vec<String>, ModelStoreError> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(vec![]),
            Err(reason) => return Err(io(&self.folder)(reason)),
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            // Other folders do not belong to the store.
            .filter(|name| is_set_name(name) && name.contains('+'))
            .filter(|name| self.path(name).join(MANIFEST).is_file())
            .collect();
        names.sort();
        Ok(names)
    }

    /// Opens a set by its name and checks each file against its digest.
    ///
    /// # Errors
    /// If there is no such set, or it cannot be used.
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

    /// Opens the current set. If it is damaged, opens the previous set and logs the error:
    /// the previous set served the same door, which is better than a door that stays shut.
    ///
    /// # Errors
    /// If the pointer is invalid or neither set can be used.
    pub fn open_current(&self) -> Result<Models, ModelStoreError> {
        let Pointer { current, previous } = self.pointer()?;
        let reason = match self.open(&current) {
            Ok(models) => return Ok(models),
            Err(error) => error.to_string(),
        };
        match previous.map(|previous| self.open(&previous)) {
            Some(Ok(models)) => {
                log::error!("{reason}; using the previous set, {}", models.manifest.version);
                Ok(models)
            }
            _ => Err(ModelStoreError::Lost { reason }),
        }
    }

    /// Checks the digests, shapes, thresholds and self-test of a set.
    ///
    /// # Errors
    /// If a check fails.
    pub fn check(&self, name: &str, precision: Precision) -> Result<Checked, ModelStoreError> {
        if name == BUILT_IN {
            return check_models(Models::built_in()?, Path::new(BUILT_IN), precision);
        }
        check_models(self.open(name)?, &self.path(name), precision)
    }

    /// Installs a set and makes it current: copies it, checks it, re-embeds the gallery,
    /// and then writes the pointer. Returns the new pointer.
    ///
    /// # Errors
    /// If a step fails. The set in use then stays in use. Templates that were already
    /// re-embedded are re-embedded again from the same pictures when they are needed.
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

    /// Makes the previous set current, after checking it and re-embedding the gallery. The
    /// set used so far becomes the previous one. Returns the new pointer.
    ///
    /// # Errors
    /// If there is no previous set or a step fails.
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

    /// Re-embeds the gallery, then writes the pointer. Everything that can fail comes
    /// before the rename of the pointer.
    fn switch(
        &self,
        checked: &mut Checked,
        gallery: &Path,
        after: &Pointer,
        told: &mut Telling<'_>,
    ) -> Result<(), ModelStoreError> {
        let opening = Opening::to(Purpose::Change).registered(self.register.clone());
        let store = match Store::open_as(gallery, opening) {
            Err(StoreError::Absent { .. }) => None,
            store => Some(store?),
        };
        if let Some(mut store) = store {
            let id = checked.models.recognizer_id()?;
            if let Some(repaired) = store.repaired() {
                log::error!("{repaired}");
            }
            let done =
                store.re_embed(&id, |picture| checked.recognizer.embed_picture(picture).ok())?;
            drop(store);
            self.tell(told, &Told::ReEmbedded(&done))?;
        }
        self.point(after)?;
        // An error of the callback cannot undo the switch.
        let _ = told(&Told::Switched(after));
        Ok(())
    }

    fn tell(&self, told: &mut Telling<'_>, what: &Told<'_>) -> Result<(), ModelStoreError> {
        told(what).map_err(io(&self.folder))
    }

    /// Renames a complete draft to the name of its set. An existing set of that name is
    /// identical and stays, unless it is damaged.
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

    /// Writes the pointer: syncs a draft to the disk, then renames it.
    fn point(&self, pointer: &Pointer) -> Result<(), ModelStoreError> {
        let path = self.folder.join(POINTER);
        let broken = |reason: String| ModelStoreError::Pointer { path: path.clone(), reason };
        let text = toml::to_string(pointer).map_err(|error| broken(error.to_string()))?;
        let draft = self.folder.join(format!("{POINTER}{DRAFT}"));
        write_synced(&draft, text.as_bytes())?;
        std::fs::rename(&draft, &path).map_err(io(&path))?;
        sync_folder(&self.folder)
    }

    /// Removes the sets that are neither current nor previous, so that the disk does not
    /// fill up.
    fn forget(&self, pointer: &Pointer) {
        for name in self.names().unwrap_or_default() {
            if name != pointer.current && Some(&name) != pointer.previous.as_ref() {
                // Not an error: the set only occupies space.
                if let Err(error) = remove(&self.path(&name)) {
                    log::warn!("{error}");
                }
            }
        }
    }

    fn lock(&self) -> Result<Lock, ModelStoreError> {
        files::create_folder(&self.folder, 0o777).map_err(io(&self.folder))?;
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

/// Folder of a set that is being installed, removed on drop unless it was renamed.
struct Draft {
    path: PathBuf,
}

impl Draft {
    /// Creates the folder, after removing those left by an interrupted installation.
    fn begin(store: &Path) -> Result<Self, ModelStoreError> {
        for left in [DRAFT, REPLACED] {
            remove(&store.join(left))?;
        }
        let path = store.join(DRAFT);
        std::fs::create_dir(&path).map_err(io(&path))?;
        Ok(Self { path })
    }

    /// Removes files that do not belong to the set, and syncs the folder.
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
        // After the rename there is nothing to remove.
        let _ = remove(&self.path);
    }
}

/// Name of the folder of a set: version and beginning of the manifest's digest.
fn name_of(folder: &Path, models: &Models) -> Result<String, ModelStoreError> {
    let path = folder.join(MANIFEST);
    let digest = sha256_hex(&files::read(&path, MAX_FILE).map_err(io(&path))?);
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let version: String =
        models.manifest.version.chars().map(plain).take(LONGEST_VERSION).collect();
    // Names that begin with a dot are reserved for drafts.
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

/// Syncs a folder, without which a rename in it is not on the disk.
fn sync_folder(folder: &Path) -> Result<(), ModelStoreError> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(io(folder))
}

fn remove(folder: &Path) -> Result<(), ModelStoreError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io(folder)(error)),
        _ => Ok(()),
    }
}
