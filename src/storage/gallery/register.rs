//! EDGE: the register of galleries: which galleries this machine has used, kept apart from
//! them. It tells a first start from a gallery that went away with its card, and a newer
//! gallery from an older one that somebody put back.

use super::choose::Known;
use crate::storage::keys::keyring_path;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Register of the service and of root. It is not inside the folder of the service's
/// gallery, because that folder may be a mount point.
pub const SYSTEM_REGISTER: &str = "/var/lib/facelatch-register";

/// Largest entry, bytes.
const LARGEST: u64 = 64 << 10;

/// The folder of the register. Each gallery has one small file in it, named after the
/// gallery's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    folder: PathBuf,
}

/// An entry on disk.
#[derive(Serialize, Deserialize)]
struct Entry {
    /// Path of the gallery, for people who read the entry.
    gallery: String,
    /// Identity, hexadecimal, because it may exceed the numbers of TOML.
    identity: String,
    revision: u64,
    inhabited: bool,
    /// Whether its records are sealed.
    #[serde(default)]
    sealed: bool,
}

impl Register {
    /// The register in this folder, which is made when it is needed.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The register of this user: `facelatch/galleries` in `$XDG_STATE_HOME`; for root and
    /// the service [`SYSTEM_REGISTER`]; else in `~/.local/state`. `None` if the user has no
    /// home.
    pub fn of_user() -> Option<Self> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let user = rustix::process::geteuid();
        let system = Path::new(SYSTEM_REGISTER);
        let owns = || system.metadata().is_ok_and(|folder| folder.uid() == user.as_raw());
        let folder = if let Some(state) = set("XDG_STATE_HOME") {
            PathBuf::from(state).join("facelatch/galleries")
        } else if user.is_root() || owns() {
            system.to_owned()
        } else {
            PathBuf::from(set("HOME")?).join(".local/state/facelatch/galleries")
        };
        Some(Self::at(folder))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Other galleries of this register that have a keyring, and so need the same key.
    pub fn others(&self, gallery: &Path) -> Vec<PathBuf> {
        let own = names(gallery).unwrap_or_default();
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let texts = entries.filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
        let paths = texts.filter_map(|text| toml::from_str::<Entry>(&text).ok());
        let paths = paths.map(|entry| PathBuf::from(entry.gallery));
        let mut others: Vec<PathBuf> =
            paths.filter(|path| !own.contains(path) && keyring_path(path).exists()).collect();
        others.sort();
        others.dedup();
        others
    }

    fn entry(&self, path: &Path) -> PathBuf {
        self.folder.join(format!("{}.toml", digest_of(path)))
    }

    /// Name of the file that keeps the newest head of the audit log beside a gallery.
    pub fn audit_name(&self, gallery: &Path) -> String {
        let names = names(gallery).unwrap_or_default();
        format!("{}.heads", digest_of(names.last().map_or(gallery, PathBuf::as_path)))
    }

    /// What is remembered about the gallery at this path. `None` if nobody was ever enrolled
    /// there.
    ///
    /// # Errors
    /// If the entry exists and cannot be read.
    pub fn known(&self, gallery: &Path) -> io::Result<Option<Known>> {
        let mut known = None;
        for path in names(gallery)? {
            known = Known::stronger(known, read(&self.entry(&path))?.map(|(known, _)| known));
        }
        Ok(known)
    }

    /// Whether the gallery at this path was sealed. An entry that cannot be read says nothing.
    pub(super) fn is_sealed(&self, gallery: &Path) -> bool {
        let names = names(gallery).unwrap_or_default();
        names.iter().any(|path| matches!(read(&self.entry(path)), Ok(Some((_, true)))))
    }

    /// Remembers a gallery. An empty one is only remembered if it had people before.
    /// Survives a power cut: the entry is either the former or the new one.
    ///
    /// # Errors
    /// If the entry cannot be written.
    pub fn note(&self, gallery: &Path, now: Known) -> io::Result<()> {
        self.note_as(gallery, now, false)
    }

    /// Like [`Self::note`]. A gallery that was sealed once stays so.
    pub(super) fn note_as(&self, gallery: &Path, now: Known, sealed: bool) -> io::Result<()> {
        for path in names(gallery)? {
            let entry = self.entry(&path);
            let before = read(&entry).unwrap_or(None);
            let sealed = sealed || before.is_some_and(|(_, sealed)| sealed);
            if before == Some((now, sealed)) || (before.is_none() && !now.inhabited) {
                continue;
            }
            self.write(&path, &entry, now, sealed).map_err(|error| at(&entry, &error))?;
        }
        Ok(())
    }

    fn write(&self, path: &Path, entry: &Path, now: Known, sealed: bool) -> io::Result<()> {
        let [identity, revision] = now.revision;
        let text = toml::to_string(&Entry {
            gallery: path.to_string_lossy().into_owned(),
            identity: format!("{identity:016x}"),
            revision,
            inhabited: now.inhabited,
            sealed,
        })
        .map_err(io::Error::other)?;
        crate::files::create_folder(&self.folder, 0o700)?;
        let draft = self.folder.join(format!(".draft-{}-{identity:x}", std::process::id()));
        let written = (|| {
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o644);
            let mut file = options.open(&draft)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&draft, entry)?;
            std::fs::File::open(&self.folder)?.sync_all()
        })();
        written.inspect_err(|_| {
            let _ = std::fs::remove_file(&draft);
        })
    }
}

/// Name of a path in the register.
fn digest_of(path: &Path) -> String {
    let digest = Sha256::digest(path.as_os_str().as_bytes());
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The names under which a gallery is remembered: its path as given, and without links. When
/// a card is away, so may be the links that lie on it.
fn names(gallery: &Path) -> io::Result<Vec<PathBuf>> {
    let given = std::path::absolute(gallery)?;
    let folder = given.parent().and_then(|folder| folder.canonicalize().ok());
    let real = folder.zip(given.file_name()).map(|(folder, name)| folder.join(name));
    let real = real.filter(|real| *real != given);
    Ok([given].into_iter().chain(real).collect())
}

fn read(entry: &Path) -> io::Result<Option<(Known, bool)>> {
    let file = match std::fs::File::open(entry) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(entry, &error)),
    };
    let mut text = String::new();
    file.take(LARGEST).read_to_string(&mut text).map_err(|error| at(entry, &error))?;
    let damaged = || io::Error::other(format!("{}: damaged; remove it", entry.display()));
    let read: Entry = toml::from_str(&text).map_err(|_| damaged())?;
    let identity = u64::from_str_radix(&read.identity, 16).map_err(|_| damaged())?;
    let known = Known { revision: [identity, read.revision], inhabited: read.inhabited };
    Ok(Some((known, read.sealed)))
}

fn at(entry: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", entry.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn a_gallery_is_remembered_by_its_path_once_it_has_people() {
        let folder = TempDir::new().expect("a folder");
        let register = Register::at(folder.path().join("register"));
        let gallery = folder.path().join("g.redb");
        assert_eq!(register.known(&gallery).expect("no entry"), None);
        let empty = Known { revision: [u64::MAX, 1], inhabited: false };
        register.note(&gallery, empty).expect("nothing to write");
        assert!(!register.folder().exists(), "an empty gallery is not worth an entry");
        let full = Known { revision: [u64::MAX, 2], inhabited: true };
        for known in [full, Known { revision: [u64::MAX, 3], ..empty }] {
            register.note(&gallery, known).expect("written");
            assert_eq!(register.known(&gallery).expect("an entry"), Some(known));
        }
        assert_eq!(register.known(&folder.path().join("h.redb")).expect("no entry"), None);
        // The same path, written differently.
        let same = folder.path().join("./g.redb");
        assert!(register.known(&same).expect("an entry").is_some());
        let left = std::fs::read_dir(register.folder()).expect("a folder").count();
        assert_eq!(left, 1, "no draft stays behind");
    }

    #[test]
    fn a_gallery_is_remembered_behind_a_link_and_without_it() {
        let folder = TempDir::new().expect("a folder");
        let register = Register::at(folder.path().join("register"));
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        std::fs::create_dir(&real).expect("a folder");
        std::os::unix::fs::symlink(&real, &link).expect("a link");
        let known = Known { revision: [7, 2], inhabited: true };
        register.note(&link.join("g.redb"), known).expect("written");
        assert_eq!(register.known(&real.join("g.redb")).expect("an entry"), Some(known));
        // The link lay on the card that is away.
        std::fs::remove_file(&link).expect("removed");
        assert_eq!(register.known(&link.join("g.redb")).expect("an entry"), Some(known));
    }

    #[test]
    fn a_damaged_entry_is_named() {
        let folder = TempDir::new().expect("a folder");
        let register = Register::at(folder.path().to_owned());
        let gallery = folder.path().join("g.redb");
        let known = Known { revision: [7, 2], inhabited: true };
        register.note(&gallery, known).expect("written");
        let entry = register.entry(&gallery);
        std::fs::write(&entry, "identity = 7").expect("written");
        let message = register.known(&gallery).expect_err("damaged").to_string();
        assert!(message.contains("damaged; remove it"), "{message}");
        register.note(&gallery, known).expect("written");
        assert_eq!(register.known(&gallery).expect("an entry"), Some(known));
    }
}
