//! EDGE: the keyring: the keys of one door in a small file beside its gallery, sealed with
//! the master key, and a copy of that file.

use super::error::KeyError;
use super::files::{read_small, replace, shred, write_new};
use super::master::{KeyPlace, Source, read};
use crate::crypto::{Sealer, Secret};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Beginning of a keyring; the last byte is the version of the format.
const MAGIC: &[u8; 8] = b"FLKEYS\x00\x01";
/// Largest keyring, bytes.
const LARGEST: usize = 4096;
/// Most sealing keys that are kept. Pictures of the audit log that an older one sealed are
/// lost; they are past their time by then.
const MOST_SEALING: usize = 16;

/// What a keyring holds.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(super) struct Keyring {
    /// Grows with every change: of two files the higher one counts.
    pub(super) number: u64,
    /// Whether the gallery was sealed: from then on an unsealed one is not accepted.
    pub(super) sealed: bool,
    /// Sealing keys, the current one last.
    pub(super) sealing: Vec<[u8; 32]>,
    /// Keys of template rotations, the current one last. More than one only while
    /// templates are being renewed.
    pub(super) templates: Vec<[u8; 32]>,
    /// The door's identity.
    pub(super) signing: [u8; 32],
}

/// The file that a link names, if the gallery is one that leads somewhere.
pub(in crate::storage) fn resolved(gallery: &Path) -> PathBuf {
    match std::fs::read_link(gallery) {
        Ok(_) => gallery.canonicalize().unwrap_or_else(|_| gallery.to_owned()),
        Err(_) => gallery.to_owned(),
    }
}

/// Path of the keyring: `gallery.redb.keys` for `gallery.redb`.
pub fn keyring_path(gallery: &Path) -> PathBuf {
    with_ending(resolved(gallery))
}

/// Path of its copy: `gallery.last-good.redb.keys`.
pub fn keyring_copy_path(gallery: &Path) -> PathBuf {
    with_ending(crate::storage::gallery::copy_path(&resolved(gallery)))
}

fn with_ending(path: PathBuf) -> PathBuf {
    let mut name = path.into_os_string();
    name.push(".keys");
    name.into()
}

/// State of one of the two files.
enum Found {
    Absent,
    /// No keyring, or damaged.
    Damaged,
    Newer,
    /// Sealed with a key of this number.
    Whole(u32, Zeroizing<Vec<u8>>),
}

fn find(path: &Path) -> Result<Found, KeyError> {
    let content = match read_small(path, LARGEST as u64) {
        Ok(content) => content,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Found::Absent);
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let cure = "run the command as root or as the owner of the gallery";
            let reason = format!("permission denied; {cure}");
            return Err(KeyError::Io { path: path.to_owned(), reason });
        }
        // An unreadable sector, or a file of another kind: the copy may help.
        Err(_) => return Ok(Found::Damaged),
    };
    Ok(match content.split_first_chunk::<8>() {
        Some((magic, rest)) if magic == MAGIC => match rest.split_first_chunk::<4>() {
            Some((id, sealed)) => {
                Found::Whole(u32::from_le_bytes(*id), Zeroizing::new(sealed.to_vec()))
            }
            None => Found::Damaged,
        },
        Some((magic, _)) if magic[..7] == MAGIC[..7] && magic[7] > MAGIC[7] => Found::Newer,
        _ => Found::Damaged,
    })
}

/// Whether there is a keyring or a copy of one.
pub(super) fn exists(gallery: &Path) -> Result<bool, KeyError> {
    let mut found = false;
    for path in [keyring_path(gallery), keyring_copy_path(gallery)] {
        found |= !matches!(find(&path)?, Found::Absent);
    }
    Ok(found)
}

/// Opens the keyring with the first key that fits.
pub(super) fn open(
    gallery: &Path,
    place: &KeyPlace,
) -> Result<(Keyring, Source, Secret), KeyError> {
    let (path, copy) = (keyring_path(gallery), keyring_copy_path(gallery));
    let files = [find(&path)?, find(&copy)?];
    let whole = files.iter().any(|file| matches!(file, Found::Whole(..)));
    let newer = files.iter().any(|file| matches!(file, Found::Newer));
    match &files {
        [Found::Absent, Found::Absent] => return Err(KeyError::None { keyring: path }),
        _ if whole => {}
        _ if newer => return Err(KeyError::Newer { keyring: path }),
        _ => return Err(KeyError::Damaged { keyring: path, copy }),
    }
    let (mut looked, mut tried, mut fits) = (Vec::new(), Vec::new(), false);
    for source in place.sources() {
        let key = match read(&source) {
            Ok(Some(key)) => key,
            Ok(None) => {
                looked.push(format!("{source}: none"));
                continue;
            }
            Err(error) => {
                looked.push(error.to_string());
                continue;
            }
        };
        let sealer = Sealer::new(&key);
        let rings = files.each_ref().map(|file| {
            let Found::Whole(id, sealed) = file else { return None };
            fits |= *id == sealer.id();
            unsealed(&sealer, sealed)
        });
        let numbers = rings.each_ref().map(|ring| ring.as_ref().map(|ring| ring.number));
        let best = rings.into_iter().flatten().max_by_key(|ring| ring.number);
        if let Some(ring) = best {
            // A power cut between the two files, or damage of one of them. What looks like the
            // work of a later version stays, whether it is that or a flipped bit.
            if numbers != [Some(ring.number); 2]
                && !newer
                && let Err(error) = put(gallery, &ring, &key)
            {
                log::warn!("{error}; the keyring has only one whole copy");
            }
            return Ok((ring, source, key));
        }
        tried.push(source.to_string());
    }
    let keyring = path;
    Err(match (fits, tried.is_empty()) {
        (true, _) => KeyError::Damaged { keyring, copy },
        (false, true) => KeyError::Missing { keyring, looked: looked.join("; ") },
        (false, false) => KeyError::Wrong { keyring, tried: tried.join(" and ") },
    })
}

/// Whether this key opens the keyring.
pub(super) fn open_with(gallery: &Path, key: &Secret) -> Result<(), KeyError> {
    let keyring = keyring_path(gallery);
    let (sealer, mut any) = (Sealer::new(key), false);
    for path in [keyring.clone(), keyring_copy_path(gallery)] {
        if let Found::Whole(_, sealed) = find(&path)? {
            any = true;
            if unsealed(&sealer, &sealed).is_some() {
                return Ok(());
            }
        }
    }
    Err(match any {
        true => KeyError::Wrong { keyring, tried: "this place".to_owned() },
        false => KeyError::None { keyring },
    })
}

fn unsealed(sealer: &Sealer, sealed: &[u8]) -> Option<Keyring> {
    let content = sealer.open(MAGIC, sealed).ok()?;
    let ring: Keyring = postcard::from_bytes(&content).ok()?;
    let counts = 1..=MOST_SEALING;
    (counts.contains(&ring.sealing.len()) && !ring.templates.is_empty()).then_some(ring)
}

/// The bytes of a keyring file.
fn sealed(ring: &Keyring, key: &Secret) -> Result<Vec<u8>, KeyError> {
    let sealer = Sealer::new(key);
    // Does not grow, so no part of a key stays behind in freed memory.
    let mut content = Zeroizing::new([0; LARGEST - 100]);
    let used = postcard::to_slice(ring, &mut content[..])
        .map_err(|error| KeyError::Entropy(format!("the keyring is too large: {error}")))?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend(sealer.id().to_le_bytes());
    bytes.extend(sealer.seal(MAGIC, used)?);
    Ok(bytes)
}

/// Writes a first keyring, where there must be none.
pub(super) fn make(gallery: &Path, ring: &Keyring, key: &Secret) -> Result<(), KeyError> {
    let bytes = sealed(ring, key)?;
    let path = keyring_path(gallery);
    write_new(&path, &bytes).map_err(|error| match path.exists() {
        // Another process was faster.
        true => KeyError::Exists { keyring: path.clone() },
        false => error,
    })?;
    replace(&keyring_copy_path(gallery), &bytes)
}

/// Writes both files of a keyring, one after the other.
pub(super) fn put(gallery: &Path, ring: &Keyring, key: &Secret) -> Result<(), KeyError> {
    let bytes = sealed(ring, key)?;
    replace(&keyring_path(gallery), &bytes)?;
    replace(&keyring_copy_path(gallery), &bytes)
}

/// Destroys both files. Returns whether there were any.
pub(super) fn erase(gallery: &Path) -> Result<bool, KeyError> {
    let mut erased = false;
    for path in [keyring_path(gallery), keyring_copy_path(gallery)] {
        erased |= shred(&path)?;
    }
    Ok(erased)
}

impl Keyring {
    /// A keyring of new keys.
    pub(super) fn new() -> Result<Self, KeyError> {
        let random = || Secret::random().map(|secret| *secret.bytes());
        Ok(Self {
            number: 1,
            sealed: false,
            sealing: vec![random()?],
            templates: vec![random()?],
            signing: random()?,
        })
    }

    /// Adds a sealing key, which becomes the current one.
    pub(super) fn add_sealing(&mut self) -> Result<(), KeyError> {
        if self.sealing.len() >= MOST_SEALING {
            self.sealing[0].zeroize();
            self.sealing.remove(0);
        }
        self.sealing.push(*Secret::random()?.bytes());
        Ok(())
    }

    /// Adds a key of template rotations, which becomes the current one.
    pub(super) fn add_templates(&mut self) -> Result<(), KeyError> {
        if self.templates.len() < MOST_SEALING {
            self.templates.push(*Secret::random()?.bytes());
        }
        Ok(())
    }
}
