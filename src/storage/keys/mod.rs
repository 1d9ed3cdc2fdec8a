//! EDGE: the keys of one door.
//!
//! A master key of 32 bytes opens the keyring, a small file beside the gallery. The master
//! key is a systemd credential, or a file in the folder of the register, apart from the
//! gallery. The keyring holds the keys that seal, the door's identity, which signs, and the
//! key of the template rotation. Whatever happens to the master key or the keyring, nothing
//! is made over what they have sealed.

mod error;
mod files;
mod keyring;
mod master;
mod moving;

pub use error::KeyError;
pub(super) use keyring::resolved;
pub use keyring::{keyring_copy_path, keyring_path};
pub use master::{CREDENTIAL, CREDSTORE, KeyPlace, Source, remarks};
pub use moving::{Binding, binding, credstore};

use crate::crypto::{Sealer, Secret, Signer};
use crate::storage::gallery::Register;
use crate::vision::rotation::Rotation;
use keyring::Keyring;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroize;

/// What a sealing key is used for. Each purpose has a key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Records of the gallery.
    Gallery,
    /// Pictures that the audit log keeps.
    AuditPictures,
    /// Templates that must not be recognized again.
    Negatives,
}

impl Purpose {
    fn text(self) -> &'static str {
        match self {
            Self::Gallery => "seal gallery",
            Self::AuditPictures => "seal audit pictures",
            Self::Negatives => "seal negatives",
        }
    }
}

/// The keys of one door, open.
pub struct DoorKeys {
    gallery: PathBuf,
    source: Source,
    master: Secret,
    ring: Keyring,
    signer: Signer,
    /// Template rotations made so far.
    made: Mutex<Vec<Arc<Rotation>>>,
}

impl fmt::Debug for DoorKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DoorKeys({})", self.signer.public().fingerprint())
    }
}

impl DoorKeys {
    /// Opens the keys that belong to a gallery. Opening the gallery makes them if it is
    /// new.
    ///
    /// # Errors
    /// [`KeyError::None`] if there are none yet; if the master key is missing, is another
    /// one or cannot be read; or if keyring and copy are damaged.
    pub fn open(gallery: &Path, place: &KeyPlace) -> Result<Self, KeyError> {
        let (ring, source, master) = keyring::open(gallery, place)?;
        Ok(Self::with(gallery, source, master, ring))
    }

    /// Makes the keys of a gallery, and a master key if there is none. The caller has made
    /// sure that nothing is sealed with earlier keys.
    ///
    /// # Errors
    /// If there is a keyring, the master key cannot be read or a file cannot be written.
    pub fn make(gallery: &Path, place: &KeyPlace) -> Result<Self, KeyError> {
        if keyring::exists(gallery)? {
            return Err(KeyError::Exists { keyring: keyring_path(gallery) });
        }
        let mut found = None;
        for source in place.sources() {
            // A key that cannot be read now must not be passed over for a worse one.
            if let Some(key) = master::read(&source)? {
                found = Some((source, key));
                break;
            }
        }
        let (source, master) = match found {
            Some(found) => found,
            None => place.make().or_else(|error| {
                // Another process was faster.
                let file = Source::File(place.file().to_owned());
                match master::read(&file) {
                    Ok(Some(key)) => Ok((file, key)),
                    _ => Err(error),
                }
            })?,
        };
        let ring = Keyring::new()?;
        keyring::make(gallery, &ring, &master)?;
        Ok(Self::with(gallery, source, master, ring))
    }

    /// Like [`Self::make`], or opens those that another process has just made.
    ///
    /// # Errors
    /// See [`Self::make`] and [`Self::open`].
    pub fn make_or_open(gallery: &Path, place: &KeyPlace) -> Result<Self, KeyError> {
        match Self::make(gallery, place) {
            Err(KeyError::Exists { .. }) => Self::open(gallery, place),
            made => made,
        }
    }

    fn with(gallery: &Path, source: Source, master: Secret, ring: Keyring) -> Self {
        let signer = Signer::new(&Secret::new(ring.signing));
        Self { gallery: gallery.to_owned(), source, master, ring, signer, made: Mutex::default() }
    }

    /// Seals and opens for a purpose, with the current key.
    pub fn sealer(&self, purpose: Purpose) -> Sealer {
        // There is always one.
        let current = self.ring.sealing.last().copied().unwrap_or_default();
        Sealer::new(&Secret::new(current).derive(purpose.text()))
    }

    /// The sealer whose [`Sealer::id`] is `id`: also one of a key before the last rotation.
    pub fn sealer_with(&self, purpose: Purpose, id: u32) -> Option<Sealer> {
        let all = self.ring.sealing.iter().rev();
        let mut all = all.map(|key| Sealer::new(&Secret::new(*key).derive(purpose.text())));
        all.find(|sealer| sealer.id() == id)
    }

    /// The door's identity. It survives [`Self::rotate`].
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// Key of the pseudonyms of people outside this door. It survives [`Self::rotate`], so
    /// that they stay.
    pub fn pseudonyms(&self) -> Secret {
        Secret::new(self.ring.signing).derive("pseudonyms of people")
    }

    /// Secret from which the door's keys at a site follow. It survives [`Self::rotate`].
    pub fn site(&self) -> Secret {
        Secret::new(self.ring.signing).derive("door of a site")
    }

    /// Where the master key comes from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Number of sealing keys that were replaced and are kept to open what they sealed.
    pub fn former(&self) -> usize {
        self.ring.sealing.len() - 1
    }

    /// Adds a sealing key, which becomes the current one. Opening the gallery seals its
    /// records with it.
    ///
    /// # Errors
    /// If the keyring cannot be written.
    pub fn rotate(&mut self) -> Result<(), KeyError> {
        let mut ring = self.ring.clone();
        ring.add_sealing()?;
        self.write(ring)
    }

    /// Adds a key of template rotations, which becomes the current one. The former stays
    /// until [`Self::end_renewal`].
    ///
    /// # Errors
    /// If the keyring cannot be written.
    pub(super) fn begin_renewal(&mut self) -> Result<(), KeyError> {
        let mut ring = self.ring.clone();
        ring.add_templates()?;
        self.write(ring)
    }

    /// Forgets all keys of template rotations but the current one.
    ///
    /// # Errors
    /// If the keyring cannot be written.
    pub(super) fn end_renewal(&mut self) -> Result<(), KeyError> {
        if self.ring.templates.len() == 1 {
            return Ok(());
        }
        let mut ring = self.ring.clone();
        let former = ring.templates.len() - 1;
        ring.templates.drain(..former).for_each(|mut key| key.zeroize());
        self.write(ring)
    }

    /// Numbers of the template rotations, the current one last. More than one while
    /// templates are being renewed.
    pub(super) fn rotations(&self) -> Vec<u32> {
        self.ring.templates.iter().map(|key| number_of(&Secret::new(*key))).collect()
    }

    /// The template rotation of this number, for embeddings of `size` components.
    pub(super) fn rotation(&self, number: u32, size: usize) -> Option<Arc<Rotation>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = made.iter().find(|r| r.number() == number && r.size() == size) {
            return Some(Arc::clone(known));
        }
        let keys = self.ring.templates.iter().map(|key| Secret::new(*key));
        let key = keys.into_iter().find(|key| number_of(key) == number)?;
        let rotation = Arc::new(Rotation::new(number, size, stream(&key)));
        // A gallery has templates of one size, rarely of two.
        made.truncate(7);
        made.push(Arc::clone(&rotation));
        Some(rotation)
    }

    /// Whether the gallery was sealed before.
    pub fn sealed(&self) -> bool {
        self.ring.sealed
    }

    /// Remembers that the gallery is sealed: from now on an unsealed one is not accepted.
    ///
    /// # Errors
    /// If the keyring cannot be written.
    pub(super) fn set_sealed(&mut self) -> Result<(), KeyError> {
        if self.ring.sealed {
            return Ok(());
        }
        let mut ring = self.ring.clone();
        ring.sealed = true;
        self.write(ring)
    }

    /// Destroys the keyring of a gallery, and the key file unless other galleries need it.
    /// What they sealed cannot be read any more. Neither has to be readable. Returns the
    /// files destroyed.
    ///
    /// # Errors
    /// If a file cannot be overwritten or removed.
    pub fn erase(gallery: &Path, register: &Register) -> Result<Vec<PathBuf>, KeyError> {
        let mut erased = Vec::new();
        if keyring::erase(gallery)? {
            erased.push(keyring_path(gallery));
        }
        let place = KeyPlace::of(register);
        if register.others(gallery).is_empty() && files::shred(place.file())? {
            erased.push(place.file().to_owned());
        }
        Ok(erased)
    }

    fn write(&mut self, mut ring: Keyring) -> Result<(), KeyError> {
        ring.number += 1;
        keyring::put(&self.gallery, &ring, &self.master)?;
        self.ring = ring;
        Ok(())
    }
}

/// Number of a key of template rotations, which tells nothing about it. Never 0.
fn number_of(key: &Secret) -> u32 {
    let [a, b, c, d, ..] = *key.derive("number of the template rotation").bytes();
    u32::from_le_bytes([a, b, c, d]).max(1)
}

/// The random numbers that follow from a key.
fn stream(key: &Secret) -> impl FnMut() -> u32 {
    let key = key.derive("template rotation");
    let (mut block, mut at) = (key.derive("0"), 0);
    move || {
        const WORDS: usize = 8;
        if at % WORDS == 0 {
            block = key.derive(&(at / WORDS).to_string());
        }
        let first = at % WORDS * 4;
        at += 1;
        let bytes = block.bytes();
        u32::from_le_bytes([bytes[first], bytes[first + 1], bytes[first + 2], bytes[first + 3]])
    }
}

#[cfg(test)]
mod tests;
