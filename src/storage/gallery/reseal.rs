//! EDGE: sealing an old gallery, and all records with new keys.

use super::check::Depth;
use super::error::{StoreError, error};
use super::files::{
    How, Open, PATIENCE, create, draft_path, guarded, open_checked, remove_file, sync_folder,
    unsealed_path,
};
use super::open::Purpose;
use super::presence::give_to_owner;
use super::register::Register;
use super::rewrite::{Numbers, feed, fill};
use super::sealed::{Guard, Keys};
use super::tables::{Fault, LAST_REVISION, NEXT_PERSON, number_in, state};
use super::{Opening, Store};
use crate::storage::keys::{DoorKeys, KeyError, KeyPlace};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

/// The keys of the gallery at this path. A gallery without keys may be old or new; its
/// content tells.
///
/// # Errors
/// If there are keys and they cannot be used.
pub(super) fn keys_of(path: &Path, register: Option<&Register>) -> Result<Keys, StoreError> {
    let Some(register) = register else { return Ok(Keys::none()) };
    let remembered = register.is_sealed(path);
    match DoorKeys::open(path, &KeyPlace::of(register)) {
        Ok(keys) => {
            let sealed = remembered || keys.sealed();
            Ok(Keys { keys: Ok(Arc::new(keys)), sealed })
        }
        Err(none @ KeyError::None { .. }) => Ok(Keys { keys: Err(none), sealed: remembered }),
        Err(reason) => Err(StoreError::Sealed { path: path.to_owned(), reason }),
    }
}

impl Store {
    /// Makes new keys for the records, or for the templates as well, and seals everything
    /// with them. The former template key is forgotten, so templates that leaked before have
    /// nothing in common with those in use.
    ///
    /// # Errors
    /// If the gallery or its keys cannot be opened or written. The keys in use stay.
    pub fn rotate(path: &Path, register: &Register, templates: bool) -> Result<(), StoreError> {
        let opening = || Opening::to(Purpose::Change).registered(Some(register.clone()));
        let failed = |reason| StoreError::Sealed { path: path.to_owned(), reason };
        // Nothing changes before it is known that the gallery opens.
        drop(Self::open_as(path, opening())?);
        let mut keys = DoorKeys::open(path, &KeyPlace::of(register)).map_err(failed)?;
        if templates {
            keys.begin_renewal().map_err(failed)?;
        } else {
            keys.rotate().map_err(failed)?;
        }
        // Opening seals with the current keys.
        let store = Self::open_as(path, opening())?;
        match store.guard.sealing() {
            Some(sealing) if sealing.is_current() => Ok(()),
            _ => {
                let reason = "not yet sealed with the new key, see the log; the next start \
                              tries again";
                Err(StoreError::Io { path: path.to_owned(), reason: reason.to_owned() })
            }
        }
    }

    /// Keys for opening a file of this gallery again.
    pub(super) fn own_keys(&self) -> Keys {
        let keys = self.guard.sealing().map(|sealing| Arc::clone(&sealing.keys));
        Keys { keys: keys.ok_or(KeyError::NoPlace), sealed: false }
    }

    /// Seals an old gallery, and finishes a change of keys. If that fails, the gallery serves
    /// as it is.
    pub(super) fn sealed_with_current(
        mut self,
        purpose: Purpose,
        keys: Keys,
        register: Option<&Register>,
    ) -> Result<Self, StoreError> {
        let Some(register) = register.filter(|_| purpose != Purpose::Read) else {
            return Ok(self);
        };
        let place = KeyPlace::of(register);
        let path = self.path.clone();
        let was_sealed = self.is_sealed();
        if !self.guard.sealing().is_some_and(super::sealed::Sealing::is_current) {
            let keys = match keys.keys {
                Ok(keys) => Ok(keys),
                // New keys must not be made while those of a new gallery exist.
                Err(KeyError::None { .. }) => DoorKeys::make_or_open(&path, &place).map(Arc::new),
                Err(reason) => Err(reason),
            };
            let done = keys.map_err(Fault::Sealed).and_then(|keys| self.draft(&keys));
            if let Err(fault) = done {
                let _ = remove_file(&draft_path(&path));
                log::error!("{}; its records stay as they are", error(&path, fault));
                return Ok(self);
            }
            // The file stays locked until its place is taken: no change of another process is
            // lost.
            std::fs::rename(draft_path(&path), &path)
                .and_then(|()| sync_folder(&path))
                .map_err(|reason| error(&path, Fault::Io(reason.to_string())))?;
            let Self { repaired, read_only, main, copy, .. } = self;
            drop((main, copy));
            let keys = keys_of(&path, Some(register))?;
            let (main, checked) = open_checked(&path, PATIENCE, How::all(&keys))
                .map_err(|fault| error(&path, fault))?;
            self = Self {
                path: path.clone(),
                main: Open::Writable(main),
                guard: checked.guard,
                copy: None,
                repaired,
                read_only,
                register: None,
            };
            self.copy_again();
            if !was_sealed {
                log::warn!(
                    "{}: its records are sealed now; the unsealed file is kept as {} until the \
                     next start",
                    path.display(),
                    unsealed_path(&path).display()
                );
            }
        }
        if let Err(fault) = self.settle(&place) {
            log::error!("{fault}");
        }
        if was_sealed && purpose == Purpose::Serve {
            remove_unsealed(&path);
            let source = self.door_keys().map(|keys| keys.source().clone());
            let others = register.others(&path);
            if let Some(file) = source.and_then(|source| place.retire_file(&source, &others)) {
                log::warn!(
                    "{}: removed, because systemd gives the key now; a flash card may keep old \
                     blocks of it until they are overwritten",
                    file.display()
                );
            }
        }
        Ok(self)
    }

    /// Notes in the keyring what has been reached.
    fn settle(&self, place: &KeyPlace) -> Result<(), KeyError> {
        let Some(sealing) = self.guard.sealing().filter(|sealing| sealing.is_current()) else {
            return Ok(());
        };
        if sealing.keys.sealed() && sealing.keys.rotations().len() == 1 {
            return Ok(());
        }
        let mut keys = DoorKeys::open(&self.path, place)?;
        keys.set_sealed()?;
        keys.end_renewal()
    }

    /// Writes all records, sealed with the current keys, to the draft of the file. Keeps an
    /// unsealed file under another name.
    fn draft(&self, keys: &Arc<DoorKeys>) -> Result<(), Fault> {
        let database = self.main.reader();
        let [identity, revision] = state(database)?;
        if revision >= LAST_REVISION {
            return Err(Fault::Damaged("its revision is impossible".to_owned()));
        }
        let next_person = number_in(database, NEXT_PERSON)?;
        let numbers = Numbers { identity, revision: revision + 1, next_person };
        let draft = draft_path(&self.path);
        remove_file(&draft)?;
        let target = create(&draft)?;
        guarded(|| {
            fill(&target, Some(keys), numbers, |take| feed(self.reader(), |_, _| true, take))
        })?;
        drop(target);
        let io = |reason: std::io::Error| Fault::Io(reason.to_string());
        give_to_owner(&draft).map_err(io)?;
        // What was written is read before anything is replaced.
        let written = Keys { keys: Ok(Arc::clone(keys)), sealed: true };
        let how = How { keys: &written, depth: Depth::Records };
        let (_, checked) = open_checked(&draft, PATIENCE, how)?;
        if !checked.flaws.is_empty() {
            return Err(Fault::Io("what was written cannot be read back".to_owned()));
        }
        if matches!(self.guard, Guard::Plain) {
            keep_unsealed(&self.path).map_err(io)?;
        }
        Ok(())
    }
}

/// Keeps the unsealed file under another name, until the sealed one has been used.
fn keep_unsealed(path: &Path) -> std::io::Result<()> {
    let kept = unsealed_path(path);
    match std::fs::remove_file(&kept) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if std::fs::hard_link(path, &kept).is_err() {
        // The file system may have no links.
        std::fs::copy(path, &kept)?;
        std::fs::File::open(&kept)?.sync_all()?;
        give_to_owner(&kept)?;
    }
    std::fs::set_permissions(&kept, std::os::unix::fs::PermissionsExt::from_mode(0o600))
}

/// Removes the unsealed file, now that the sealed one was opened at a start.
fn remove_unsealed(path: &Path) {
    let kept = unsealed_path(path);
    match std::fs::remove_file(&kept) {
        Ok(()) => log::warn!(
            "{}: removed, because the sealed gallery is in use; a flash card may keep old blocks \
             of it until they are overwritten",
            kept.display()
        ),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => log::error!("{}: {error}; remove it: it is not sealed", kept.display()),
    }
}
