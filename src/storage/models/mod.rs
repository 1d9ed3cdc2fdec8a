//! EDGE: the model sets installed on a device. A store is a folder:
//!
//! ```text
//!   STORE/current.toml            the pointer: names of the current and the previous set
//!   STORE/2026.11-int8+1f2e3d4c/  a set: manifest.toml, its signature, and the files it names
//!   STORE/shadow.toml             a set that is on trial, and how it does
//! ```
//!
//! The folder of a set is named by its version and the beginning of the digest of its
//! manifest, which through the digests in the manifest covers every byte of the set. A set
//! is written under a temporary name, checked and tested, and only then renamed. The set in
//! use changes by one rename of a small file, the pointer. The pointer is a file and not a
//! symbolic link for three reasons: the current and the previous name must change at once,
//! a file can be synced to the disk before it is renamed, and not every file system that
//! boards boot from has links.
//!
//! The folder alone installs nothing: a set is used only if the ledger, which is kept apart,
//! says that it was installed here, and if its signature still holds.

mod age;
mod check;
mod draft;
mod error;
mod floor;
mod install;
mod ledger;
mod offered;
pub mod self_test;
pub mod shadow;
#[cfg(test)]
mod tests;
mod trust;
#[cfg(test)]
mod trust_tests;
mod unpack;

use crate::audit::entry::Entry;
use crate::files;
use crate::models::signature::TrustedKeys;
use crate::models::{MANIFEST, Models, is_plain_name};
use crate::nn::Precision;
use crate::storage::gallery::{ReEmbedded, Register};
use crate::vision::recognizer::Recognizer;
use check::check_models;
use error::io;
use ledger::Ledger;
use self_test::Report;
use serde::{Deserialize, Serialize};
use shadow::Shadow;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use trust::{Found, accepted};

pub use age::Age;
pub use check::check_folder;
pub use error::ModelStoreError;
pub use floor::{Floor, Lowered, Neighbours};
pub use install::InstallOptions;
pub use offered::OfferedSet;
pub use trust::{Standing, signature_of};
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
    /// The set of that name passed all checks of its files and networks; who answers for it.
    Checked(&'t str, &'t Checked, &'t Standing),
    /// How alike the set finds people who are not the same.
    Measured(&'t Floor),
    /// The threshold is lower than that of the set in use, which was accepted.
    Lowered(&'t Lowered),
    /// The set of that name is on trial for this duration.
    OnTrial(&'t str, Duration),
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
    /// Where galleries and installed sets are remembered.
    register: Option<Register>,
    /// Keys whose signatures count.
    trusted: TrustedKeys,
}

/// A set that was opened from a store.
pub struct Opened {
    /// Name of the set, or [`BUILT_IN`].
    pub name: String,
    /// The models.
    pub models: Models,
    /// Who answers for them.
    pub standing: Standing,
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
        Self { folder: folder.to_owned(), register: None, trusted: TrustedKeys::default() }
    }

    /// With the register that follows the changes of galleries and remembers which sets were
    /// installed.
    pub fn registered(self, register: Option<Register>) -> Self {
        Self { register, ..self }
    }

    /// With the keys whose signatures count.
    pub fn trusting(self, trusted: TrustedKeys) -> Self {
        Self { trusted, ..self }
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

    /// What changed since `before`, for the audit log: `what` says how.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn changed(&self, what: &str, before: &Pointer) -> Result<Entry, ModelStoreError> {
        let now = self.pointer()?;
        let mut entry = Entry::new("models").with("reason", what).with("set", &now.current);
        if let Ok(models) = self.open(&now.current) {
            let digest = models.manifest.recognizer.as_ref().map(|one| one.sha256.as_str());
            entry = entry.with("version", &models.manifest.version);
            entry = entry.with("digest", digest.unwrap_or("no recognizer"));
        }
        if let Some(trial) = self.shadow()? {
            entry = entry.with("trial", &trial.set);
        }
        Ok(entry.with("previous", &before.current))
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

    /// Opens a set by its name, and checks each file against its digest, its signature, and
    /// that it was installed here.
    ///
    /// # Errors
    /// If there is no such set, or it cannot be used.
    pub fn open(&self, name: &str) -> Result<Models, ModelStoreError> {
        self.open_judged(name).map(|(models, _)| models)
    }

    /// Like [`Self::open`], with who answers for the set.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_judged(&self, name: &str) -> Result<(Models, Standing), ModelStoreError> {
        if name == BUILT_IN {
            return Ok((Models::built_in()?, Standing::BuiltIn));
        }
        if !is_set_name(name) || !self.path(name).is_dir() {
            return Err(ModelStoreError::Unknown {
                name: name.to_owned(),
                path: self.folder.clone(),
            });
        }
        let models = Models::open(&self.path(name))?;
        let found = Found::read(&self.path(name), &models.manifest_bytes, &self.trusted);
        let judged = match self.ledger() {
            Ok(ledger) => found.judge(&models.digest(), ledger.as_ref(), &self.trusted),
            // A signature still counts when it is not known what was installed.
            Err(error) => found.admit(&self.trusted, false).map_err(|_| error.to_string()),
        };
        match judged {
            Ok(standing) => Ok((models, standing)),
            Err(reason) => Err(ModelStoreError::Untrusted { set: name.to_owned(), reason }),
        }
    }

    /// Opens the current set. If it is damaged or nobody answers for it, opens the previous
    /// set and logs the error: the previous set served the same door, which is better than a
    /// door that stays shut.
    ///
    /// # Errors
    /// If the pointer is invalid or neither set can be used.
    pub fn open_current(&self) -> Result<Models, ModelStoreError> {
        self.open_in_use().map(|opened| opened.models)
    }

    /// Like [`Self::open_current`], with the name of the set and who answers for it.
    ///
    /// # Errors
    /// As for [`Self::open_current`].
    pub fn open_in_use(&self) -> Result<Opened, ModelStoreError> {
        let Pointer { current, previous } = self.pointer()?;
        let reason = match self.open_judged(&current) {
            Ok((models, standing)) => return Ok(Opened { name: current, models, standing }),
            Err(error) => error.to_string(),
        };
        match previous.map(|previous| (self.open_judged(&previous), previous)) {
            Some((Ok((models, standing)), name)) => {
                log::error!("{reason}; using the previous set, {}", models.manifest.version);
                Ok(Opened { name, models, standing })
            }
            _ => Err(ModelStoreError::Lost { reason }),
        }
    }

    /// Writes down which sets are installed, if that was not done yet. The service does it at
    /// each start; what comes into the folder afterwards is used only if it is installed.
    ///
    /// # Errors
    /// If the ledger cannot be read or written.
    pub fn adopt(&self) -> Result<(), ModelStoreError> {
        match self.ledger()? {
            Some(_) => Ok(()),
            None => self.write_ledger(&self.ledger_or_adopted()?, &Standing::BuiltIn),
        }
    }

    fn ledger(&self) -> Result<Option<Ledger>, ModelStoreError> {
        match ledger::file(self.register.as_ref(), &self.folder) {
            Some(file) => ledger::read(&file).map_err(io(&file)),
            None => Ok(None),
        }
    }

    /// The ledger, or a new one with the sets that may be used without it.
    fn ledger_or_adopted(&self) -> Result<Ledger, ModelStoreError> {
        if let Some(ledger) = self.ledger()? {
            return Ok(ledger);
        }
        let store = std::path::absolute(&self.folder).unwrap_or_else(|_| self.folder.clone());
        let mut ledger = Ledger { store: store.display().to_string(), ..Ledger::default() };
        let Pointer { current, previous } = self.pointer().unwrap_or_default();
        for name in previous.iter().chain([&current]) {
            let Ok((models, standing)) = self.open_judged(name) else { continue };
            if let Some(entry) = accepted(name, &models.digest(), &standing) {
                ledger.accept(entry);
                ledger.newest = (*name == current).then(|| Age::of(&models.manifest));
            }
        }
        Ok(ledger)
    }

    /// Writes the ledger. Without a register there is none, and then only signed sets can be
    /// told from others.
    fn write_ledger(&self, ledger: &Ledger, new: &Standing) -> Result<(), ModelStoreError> {
        match ledger::file(self.register.as_ref(), &self.folder) {
            Some(file) => ledger::write(&file, ledger).map_err(io(&file)),
            None if new.is_trusted() || self.trusted.is_empty() => Ok(()),
            None => Err(ModelStoreError::Untrusted {
                set: self.folder.display().to_string(),
                reason: "this user has no folder to remember unsigned sets in; set XDG_STATE_HOME or HOME".to_owned(),
            }),
        }
    }

    /// The set on trial, if there is one.
    ///
    /// # Errors
    /// If its file cannot be read.
    pub fn shadow(&self) -> Result<Option<Shadow>, ModelStoreError> {
        let path = self.folder.join(shadow::FILE);
        match files::read_text(&path, shadow::LARGEST) {
            Ok(text) => toml::from_str(&text).map(Some).map_err(|error| ModelStoreError::Shadow {
                path,
                reason: format!(
                    "{}; remove it and begin the trial again",
                    error.to_string().trim_end()
                ),
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == ErrorKind::NotADirectory => Ok(None),
            Err(error) => Err(io(&path)(error)),
        }
    }

    /// Writes how the set on trial does, if it is still the one on trial.
    ///
    /// # Errors
    /// If another process changes the store, or the file cannot be written.
    pub fn note_shadow(&self, shadow: &Shadow) -> Result<(), ModelStoreError> {
        let _lock = self.lock()?;
        match self.shadow()? {
            Some(before) if before.is_same_trial(shadow) => self.begin_shadow(shadow),
            _ => Ok(()),
        }
    }

    fn begin_shadow(&self, shadow: &Shadow) -> Result<(), ModelStoreError> {
        let path = self.folder.join(shadow::FILE);
        let failed = |error: toml::ser::Error| ModelStoreError::Shadow {
            path: path.clone(),
            reason: error.to_string(),
        };
        self.replace(shadow::FILE, &toml::to_string(shadow).map_err(failed)?)
    }

    fn forget_shadow(&self) -> Result<(), ModelStoreError> {
        let path = self.folder.join(shadow::FILE);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(io(&path)(error)),
            _ => Ok(()),
        }
    }

    /// Checks the digests, signature, shapes, thresholds and self-test of a set.
    ///
    /// # Errors
    /// If a check fails.
    pub fn check(&self, name: &str, precision: Precision) -> Result<Checked, ModelStoreError> {
        if name == BUILT_IN {
            return check_models(Models::built_in()?, Path::new(BUILT_IN), precision);
        }
        check_models(self.open(name)?, &self.path(name), precision)
    }

    /// Writes the pointer.
    fn point(&self, pointer: &Pointer) -> Result<(), ModelStoreError> {
        let path = self.folder.join(POINTER);
        let broken = |reason: String| ModelStoreError::Pointer { path, reason };
        let text = toml::to_string(pointer).map_err(|error| broken(error.to_string()))?;
        self.replace(POINTER, &text)
    }

    /// Writes a file of the store: syncs a draft to the disk, then renames it.
    fn replace(&self, name: &str, text: &str) -> Result<(), ModelStoreError> {
        let path = self.folder.join(name);
        let draft = self.folder.join(format!("{name}{DRAFT}"));
        write_synced(&draft, text.as_bytes())?;
        std::fs::rename(&draft, &path).map_err(io(&path))?;
        sync_folder(&self.folder)
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

/// Name of the folder of a set: version and beginning of the manifest's digest.
fn name_of(models: &Models) -> String {
    let digest = models.digest();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let version: String =
        models.manifest.version.chars().map(plain).take(LONGEST_VERSION).collect();
    // Names that begin with a dot are reserved for drafts.
    let version = version.trim_start_matches('.');
    format!("{version}+{}", digest.get(..8).unwrap_or(&digest))
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
