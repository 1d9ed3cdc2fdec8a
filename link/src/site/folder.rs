//! EDGE: the office's folder: the site's key, the store, and the lock that one process holds.

use super::store::{Store, StoreError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use facelatch_crypto::{EntropyError, PublicKey, Secret};
use facelatch_site::Office;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use thiserror::Error;
use zeroize::Zeroizing;

/// Where the packaged service has its office.
pub const SYSTEM_FOLDER: &str = "/var/lib/facelatch-office";
/// First line of the key's file.
const TITLE: &str = "facelatch site key 1";
/// Longest file of a key, bytes.
const MOST_BYTES: u64 = 1_000;

/// The office's folder cannot be used.
#[derive(Debug, Error)]
pub enum FolderError {
    /// The system refuses.
    #[error("{}: {reason}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error, and the cure.
        reason: String,
    },
    /// There is a site already.
    #[error(
        "{}: has the key of a site already; doors know it by this key, so a new one would lose \
         them all. Choose another folder with --office",
        .0.display()
    )]
    Exists(PathBuf),
    /// There is no site.
    #[error("{}: has no key of a site; make one with facelatch-link site init", .0.display())]
    Missing(PathBuf),
    /// Another process works with it.
    #[error("{}: the office's service works with it", .0.display())]
    Locked(PathBuf),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There are no random numbers.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// The office's folder.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

/// Held while a process works with the folder.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] File);

impl Folder {
    /// The folder at this path.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn key_path(&self) -> PathBuf {
        self.0.join("site.key")
    }

    /// Where the site's public key is, as OpenSSH writes it.
    pub fn public_path(&self) -> PathBuf {
        self.0.join("site.pub")
    }

    /// Makes a new site's key. Returns its public half.
    ///
    /// # Errors
    /// If there is one already, or the folder cannot be written.
    pub fn create(&self) -> Result<PublicKey, FolderError> {
        let path = self.key_path();
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0);
        made.map_err(|error| fault(&self.0, &error))?;
        let secret = Secret::random()?;
        let text = Zeroizing::new(format!("{TITLE}\n{}\n", STANDARD.encode(secret.bytes())));
        let public = Office::public_of(&secret);
        write_new(&path, text.as_bytes(), 0o600, false)?;
        write_new(&self.public_path(), format!("{public}\n").as_bytes(), 0o644, true)?;
        Ok(public)
    }

    /// The site's secret.
    ///
    /// # Errors
    /// If there is none, it is damaged, or others may read it.
    pub fn secret(&self) -> Result<Secret, FolderError> {
        let path = self.key_path();
        let io = |reason: &str| FolderError::Io { path: path.clone(), reason: reason.to_owned() };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(FolderError::Missing(self.0.clone()));
            }
            Err(error) => return Err(fault(&path, &error)),
        };
        let data = file.metadata().map_err(|error| fault(&path, &error))?;
        if !data.is_file() {
            return Err(io("is no file"));
        }
        if data.mode() & 0o077 != 0 {
            return Err(io(
                "others may read the site's key; run chmod 600 on it, and if somebody \
                           may have read it, make a new site",
            ));
        }
        let mut text = Zeroizing::new(String::new());
        file.take(MOST_BYTES).read_to_string(&mut text).map_err(|error| fault(&path, &error))?;
        let bytes = text
            .strip_prefix(TITLE)
            .and_then(|rest| STANDARD.decode(rest.trim()).ok())
            .map(Zeroizing::new);
        let bytes = bytes.as_ref().and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok());
        bytes.map(Secret::new).ok_or_else(|| io("is no site's key; restore it from a backup"))
    }

    /// Takes the folder for this process.
    ///
    /// # Errors
    /// If another one has it.
    pub fn lock(&self) -> Result<Lock, FolderError> {
        let path = self.0.join("lock");
        let open =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = open.map_err(|error| fault(&path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock(file)),
            Err(TryLockError::WouldBlock) => Err(FolderError::Locked(self.0.clone())),
            Err(TryLockError::Error(error)) => Err(fault(&path, &error)),
        }
    }

    /// Opens the store. Hold the lock.
    ///
    /// # Errors
    /// If it is damaged or cannot be read.
    pub fn store(&self) -> Result<Store, FolderError> {
        Ok(Store::open(&self.0.join("office.log"))?)
    }
}

fn fault(path: &Path, error: &std::io::Error) -> FolderError {
    FolderError::Io { path: path.to_owned(), reason: error.to_string() }
}

fn write_new(path: &Path, bytes: &[u8], mode: u32, again: bool) -> Result<(), FolderError> {
    let mut options = OpenOptions::new();
    options.write(true).mode(mode);
    if again {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let mut file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(FolderError::Exists(path.to_owned()));
        }
        Err(error) => return Err(fault(path, &error)),
    };
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|error| fault(path, &error))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| fault(folder, &error))
}
