//! EDGE: what a door keeps of its site, sealed, in a redb file beside the gallery. Each change
//! is one transaction, so that a power cut loses or keeps all of it. What is lost is fetched
//! from the site again.

use crate::crypto::{Sealer, Secret};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// Key: a text. Value: sealed bytes.
const KEPT: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("site");
/// Longest key, bytes.
const LONGEST_KEY: usize = 200;
/// Attempts to open a file that another process has, and the time between two.
const OPEN_TRIES: usize = 40;
const BETWEEN_OPEN_TRIES: Duration = Duration::from_millis(50);
/// Largest value, bytes.
const LARGEST: usize = 256 << 10;

/// The file cannot be used.
#[derive(Debug, Error)]
#[error(
    "{file}: {reason}; make room or mend the disk, or remove this file: the site is heard again then"
)]
pub struct SiteStoreError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong.
    pub reason: String,
}

/// What a door keeps of its site.
#[derive(Debug)]
pub struct SiteStore {
    file: PathBuf,
    database: Database,
    sealer: Sealer,
    /// Entries that could not be opened at the start.
    damaged: usize,
}

/// The database in a file, which may be empty.
fn database(file: File) -> Result<Database, redb::DatabaseError> {
    redb::Builder::new().create_with_backend(redb::backends::FileBackend::new(file)?)
}

impl SiteStore {
    /// File of the door with this gallery: `gallery.redb.site` for `gallery.redb`.
    pub fn path(gallery: &Path) -> PathBuf {
        let mut name = gallery.file_name().unwrap_or_default().to_owned();
        name.push(".site");
        gallery.with_file_name(name)
    }

    /// Opens the file of the door with this gallery, or makes it. A file that is none, or
    /// was written with another key, is replaced by an empty one.
    ///
    /// # Errors
    /// If the file cannot be made or read, or another process has it.
    pub fn open(gallery: &Path, secret: &Secret) -> Result<Self, SiteStoreError> {
        let file = Self::path(gallery);
        let failed = |reason: String| SiteStoreError { file: file.clone(), reason };
        let mut options = OpenOptions::new();
        let nofollow = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.custom_flags(nofollow);
        let open = || options.open(&file).map_err(|error| failed(error.to_string()));
        // A service that is ending may have it for a moment.
        let mut opened = database(open()?);
        for _ in 0..OPEN_TRIES {
            if !matches!(opened, Err(redb::DatabaseError::DatabaseAlreadyOpen)) {
                break;
            }
            std::thread::sleep(BETWEEN_OPEN_TRIES);
            opened = database(open()?);
        }
        let database = match opened {
            Ok(database) => database,
            Err(error @ redb::DatabaseError::DatabaseAlreadyOpen) => {
                return Err(failed(error.to_string()));
            }
            Err(error) => {
                log::error!(
                    "{}: {error}; it is made again, and the site heard again",
                    file.display()
                );
                let made = options.truncate(true).open(&file);
                let made = made.map_err(|error| failed(error.to_string()))?;
                database(made).map_err(|error| failed(error.to_string()))?
            }
        };
        let sealer = Sealer::new(&secret.derive("facelatch site store"));
        Ok(Self { file, database, sealer, damaged: 0 })
    }

    /// All entries. Those that were changed or sealed with another key are left out; see
    /// [`Self::damaged`].
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn all(&mut self) -> Result<Vec<(String, Vec<u8>)>, SiteStoreError> {
        let mut all = Vec::new();
        let mut damaged = 0;
        let mut work = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_read()?;
            let table = match transaction.open_table(KEPT) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            for row in table.iter()? {
                let (key, value) = row?;
                match self.sealer.open(key.value().as_bytes(), value.value()) {
                    Ok(bytes) => all.push((key.value().to_owned(), bytes.to_vec())),
                    Err(_) => damaged += 1,
                }
            }
            Ok(())
        };
        work().map_err(|error| self.failed(&error.to_string()))?;
        self.damaged = damaged;
        Ok(all)
    }

    /// The value under a key; `None` if there is none, or it was changed.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn one(&self, key: &str) -> Result<Option<Vec<u8>>, SiteStoreError> {
        let work = || -> Result<Option<Vec<u8>>, redb::Error> {
            let transaction = self.database.begin_read()?;
            let table = match transaction.open_table(KEPT) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let value = table.get(key)?;
            let opened =
                value.and_then(|value| self.sealer.open(key.as_bytes(), value.value()).ok());
            Ok(opened.map(|bytes| bytes.to_vec()))
        };
        work().map_err(|error| self.failed(&error.to_string()))
    }

    /// Number of entries that could not be opened.
    pub fn damaged(&self) -> usize {
        self.damaged
    }

    /// Keeps values under their keys, or nothing for `None`, all of it or nothing.
    ///
    /// # Errors
    /// If a key or value is too large, there are no random numbers, or the file cannot be
    /// written.
    pub fn keep(&self, changes: &[(String, Option<Vec<u8>>)]) -> Result<(), SiteStoreError> {
        let mut sealed = Vec::with_capacity(changes.len());
        for (key, value) in changes {
            let large = value.as_ref().is_some_and(|value| value.len() > LARGEST);
            if key.len() > LONGEST_KEY || large {
                return Err(self.failed("an entry is too large"));
            }
            let value = value.as_ref().map(|value| self.sealer.seal(key.as_bytes(), value));
            let value = value.transpose().map_err(|error| self.failed(&error.to_string()))?;
            sealed.push((key, value));
        }
        let work = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            {
                let mut table = transaction.open_table(KEPT)?;
                for (key, value) in &sealed {
                    match value {
                        Some(value) => drop(table.insert(key.as_str(), value.as_slice())?),
                        None => drop(table.remove(key.as_str())?),
                    }
                }
            }
            transaction.commit()?;
            Ok(())
        };
        work().map_err(|error| self.failed(&error.to_string()))
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn clear(&self) -> Result<(), SiteStoreError> {
        let work = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            transaction.delete_table(KEPT)?;
            transaction.commit()?;
            Ok(())
        };
        work().map_err(|error| self.failed(&error.to_string()))
    }

    fn failed(&self, reason: &str) -> SiteStoreError {
        SiteStoreError { file: self.file.clone(), reason: reason.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(key: &str, value: &[u8]) -> (String, Option<Vec<u8>>) {
        (key.to_owned(), Some(value.to_vec()))
    }

    #[test]
    fn what_is_kept_is_there_after_a_restart_and_sealed() {
        let folder = tempfile::tempdir().expect("a folder");
        let gallery = folder.path().join("gallery.redb");
        let secret = Secret::new([1; 32]);
        let mut store = SiteStore::open(&gallery, &secret).expect("a store");
        assert_eq!(store.all().expect("read"), []);
        store
            .keep(&[pair("entry/1", b"a secret of the site"), pair("policy", b"b")])
            .expect("kept");
        store.keep(&[pair("policy", b"c"), ("entry/2".to_owned(), None)]).expect("kept");
        assert!(SiteStore::open(&gallery, &secret).is_err(), "two at once");
        drop(store);
        let bytes = std::fs::read(SiteStore::path(&gallery)).expect("a file");
        assert!(!bytes.windows(6).any(|six| six == b"secret"));
        let mut store = SiteStore::open(&gallery, &secret).expect("a store");
        let all = store.all().expect("read");
        assert_eq!(all[0], ("entry/1".to_owned(), b"a secret of the site".to_vec()));
        assert_eq!(all[1], ("policy".to_owned(), b"c".to_vec()));
        store.clear().expect("cleared");
        assert_eq!(store.all().expect("read"), []);
    }

    #[test]
    fn what_another_key_sealed_or_somebody_moved_is_left_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let gallery = folder.path().join("gallery.redb");
        let mut store = SiteStore::open(&gallery, &Secret::new([1; 32])).expect("a store");
        store.keep(&[pair("a", b"1")]).expect("kept");
        store.sealer = Sealer::new(&Secret::new([3; 32]));
        assert_eq!((store.all().expect("read"), store.damaged()), (vec![], 1));
        drop(store);
        std::fs::write(SiteStore::path(&gallery), b"no database").expect("written");
        let mut store = SiteStore::open(&gallery, &Secret::new([1; 32])).expect("made again");
        assert_eq!(store.all().expect("read"), []);
        assert!(store.keep(&[pair(&"k".repeat(300), b"1")]).is_err());
    }
}
