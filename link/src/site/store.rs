//! EDGE: the office's key-value store: a log of changes in one file, which is written again
//! when most of it is old.
//!
//! ```text
//! record: length of the key, 4 bytes; of the value, 4 bytes, 2^32 - 1 for none;
//!         checksum of these, 8 bytes; checksum of key and value, 8 bytes; key; value
//! ```
//!
//! Numbers are little-endian; checksums are the beginnings of SHA-256 digests. They find
//! damage, not fraud: what is secret is sealed before it comes here.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// First bytes of the file.
const MAGIC: &[u8] = b"facelatch office 1\n";
/// Bytes before key and value.
const HEADER: usize = 24;
/// Length of a value that is none.
const NONE: u32 = u32::MAX;
/// Longest key and value, bytes.
const LONGEST: (usize, usize) = (200, 1 << 20);
/// Largest file, bytes: ten times the records of a full site.
const LARGEST: u64 = 1 << 30;
/// Old bytes that a small file may have.
const SLACK: u64 = 4 << 20;

/// The store cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The system refuses.
    #[error("{}: {reason}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error, and the cure.
        reason: String,
    },
    /// Its content is damaged in the middle.
    #[error("{}: damaged at byte {at}; restore the office's folder from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
    },
}

/// The store. Only one process may have it open: hold the folder's lock.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    file: File,
    pairs: BTreeMap<String, Vec<u8>>,
    /// Bytes of the file, and of its pairs if they were all.
    bytes: u64,
    live: u64,
}

impl Store {
    /// Opens the store, or makes an empty one. An end that was being written when the power
    /// failed is cut off.
    ///
    /// # Errors
    /// If the file cannot be read, or is damaged before its end.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let io = |error: std::io::Error| fault(path, &error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        if length > LARGEST {
            return Err(StoreError::Io {
                path: path.to_owned(),
                reason: "is larger than any site; is it the right file?".to_owned(),
            });
        }
        let mut bytes = Vec::new();
        (&mut file).take(LARGEST).read_to_end(&mut bytes).map_err(io)?;
        let (pairs, good) =
            read(&bytes).map_err(|at| StoreError::Damaged { path: path.to_owned(), at })?;
        let live = pairs.iter().map(|(key, value)| record_bytes(key, value)).sum();
        let mut store = Self { path: path.to_owned(), file, pairs, bytes: good, live };
        if good == 0 {
            store.rewrite()?;
        } else if good < length {
            log::warn!(
                "{}: the end was not written completely; {} bytes were cut off",
                path.display(),
                length - good
            );
            store.file.set_len(good).map_err(io)?;
            store.file.sync_all().map_err(io)?;
        }
        Ok(store)
    }

    /// All pairs.
    pub fn pairs(&self) -> impl Iterator<Item = (String, Vec<u8>)> {
        self.pairs.iter().map(|(key, value)| (key.clone(), value.clone()))
    }

    /// Makes changes in this order, all of them durable when it returns. `None` removes.
    ///
    /// # Errors
    /// If the file cannot be written. Some of the changes may be there then.
    pub fn change(
        &mut self,
        changes: impl IntoIterator<Item = (String, Option<Vec<u8>>)>,
    ) -> Result<(), StoreError> {
        let mut bytes = Vec::new();
        for (key, value) in changes {
            let long = key.len() > LONGEST.0
                || value.as_ref().is_some_and(|value| value.len() > LONGEST.1);
            if long || value.is_none() && !self.pairs.contains_key(&key) {
                continue;
            }
            write_record(&mut bytes, &key, value.as_deref());
            let before = match value {
                Some(value) => {
                    self.live += record_bytes(&key, &value);
                    self.pairs.insert(key.clone(), value)
                }
                None => self.pairs.remove(&key),
            };
            self.live -= before.map_or(0, |before| record_bytes(&key, &before));
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let path = self.path.clone();
        let io = |error: std::io::Error| fault(&path, &error);
        self.file.seek(SeekFrom::Start(self.bytes)).map_err(io)?;
        self.file.write_all(&bytes).map_err(io)?;
        self.file.sync_data().map_err(io)?;
        self.bytes += bytes.len() as u64;
        if self.bytes > 2 * self.live + SLACK { self.rewrite() } else { Ok(()) }
    }

    /// Writes all pairs into a new file, which takes the place of the old one.
    fn rewrite(&mut self) -> Result<(), StoreError> {
        let path = self.path.clone();
        let io = |error: std::io::Error| fault(&path, &error);
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut bytes = MAGIC.to_vec();
        for (key, value) in &self.pairs {
            write_record(&mut bytes, key, Some(value));
        }
        let mut new = tempfile::Builder::new().prefix(".office").tempfile_in(folder).map_err(io)?;
        new.write_all(&bytes).map_err(io)?;
        new.as_file().sync_all().map_err(io)?;
        self.file = new.persist(&path).map_err(|error| fault(&path, &error.error))?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
        self.bytes = bytes.len() as u64;
        Ok(())
    }
}

fn fault(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Io { path: path.to_owned(), reason: error.to_string() }
}

fn record_bytes(key: &str, value: &[u8]) -> u64 {
    (HEADER + key.len() + value.len()) as u64
}

fn checksum(parts: &[&[u8]]) -> [u8; 8] {
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part));
    let digest = hasher.finalize();
    std::array::from_fn(|at| digest[at])
}

fn write_record(to: &mut Vec<u8>, key: &str, value: Option<&[u8]>) {
    let length = value.map_or(NONE, |value| value.len() as u32);
    let lengths = [(key.len() as u32).to_le_bytes(), length.to_le_bytes()].concat();
    let value = value.unwrap_or_default();
    to.extend(&lengths);
    to.extend(checksum(&[&lengths]));
    to.extend(checksum(&[key.as_bytes(), value]));
    to.extend(key.as_bytes());
    to.extend(value);
}

/// The pairs, and the number of bytes that are good. The error is where damage begins that
/// is no unfinished end.
#[allow(clippy::type_complexity)]
fn read(bytes: &[u8]) -> Result<(BTreeMap<String, Vec<u8>>, u64), u64> {
    let mut pairs = BTreeMap::new();
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        // The file was made a moment before the power failed.
        let unfinished = MAGIC.starts_with(bytes) || bytes.iter().all(|byte| *byte == 0);
        return if unfinished { Ok((pairs, 0)) } else { Err(0) };
    };
    while !rest.is_empty() {
        let at = (bytes.len() - rest.len()) as u64;
        // Space that was taken and not written yet.
        let blank = rest.iter().all(|byte| *byte == 0);
        let Some((header, after)) = rest.split_first_chunk::<HEADER>().filter(|_| !blank) else {
            return Ok((pairs, at));
        };
        if checksum(&[&header[..8]]) != header[8..16] {
            return Err(at);
        }
        let number = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let (key, value) = (number(0) as usize, number(4));
        let value = (value != NONE).then_some(value as usize);
        let length = key + value.unwrap_or(0);
        let Some((record, after)) = after.split_at_checked(length) else {
            return Ok((pairs, at));
        };
        let (key, content) = record.split_at(key);
        if checksum(&[key, content]) != header[16..24] {
            return if after.is_empty() { Ok((pairs, at)) } else { Err(at) };
        }
        let key = std::str::from_utf8(key).map_err(|_| at)?.to_owned();
        match value {
            Some(_) => pairs.insert(key, content.to_vec()),
            None => pairs.remove(&key),
        };
        rest = after;
    }
    Ok((pairs, bytes.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(store: &Store) -> BTreeMap<String, Vec<u8>> {
        store.pairs().collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

        #[test]
        fn a_store_has_after_each_power_cut_what_it_had_or_a_beginning_of_the_change(
            batches in prop::collection::vec(
                prop::collection::vec((0u8..8, prop::option::of(prop::collection::vec(any::<u8>(), 0..50))), 1..5),
                1..6,
            ),
            cut in any::<prop::sample::Index>(),
        ) {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("store");
            let mut store = Store::open(&path).expect("new");
            // What may be found, with the length of the file from which on it is.
            let mut states = vec![(0, BTreeMap::new())];
            let mut pairs = BTreeMap::new();
            for batch in &batches {
                for (key, value) in batch {
                    let key = format!("key/{key}");
                    store.change([(key.clone(), value.clone())]).expect("changed");
                    match value {
                        Some(value) => pairs.insert(key, value.clone()),
                        None => pairs.remove(&key),
                    };
                    states.push((store.bytes, pairs.clone()));
                }
            }
            prop_assert_eq!(all(&store), pairs.clone());
            drop(store);
            prop_assert_eq!(all(&Store::open(&path).expect("again")), pairs);
            let bytes = std::fs::read(&path).expect("read");
            let cut = cut.index(bytes.len() + 1);
            std::fs::write(&path, &bytes[..cut]).expect("cut");
            let expected = &states.iter().rfind(|(from, _)| *from <= cut as u64).expect("one").1;
            let mut store = Store::open(&path).expect("a cut end is no damage");
            prop_assert_eq!(&all(&store), expected);
            // And it goes on from there.
            store.change([("more".to_owned(), Some(vec![1]))]).expect("changed");
            drop(store);
            prop_assert_eq!(all(&Store::open(&path).expect("again")).len(), expected.len() + 1);
        }

        #[test]
        fn any_bytes_are_pairs_or_damage(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
            let _ = read(&[MAGIC, &bytes].concat());
        }
    }

    #[test]
    fn damage_in_the_middle_is_reported_and_not_cut_off() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store");
        let mut store = Store::open(&path).expect("new");
        for number in 0..3u8 {
            store.change([(format!("key/{number}"), Some(vec![number; 20]))]).expect("changed");
        }
        let bytes = std::fs::read(&path).expect("read");
        let last = bytes.len() - (HEADER + 5 + 20);
        for at in MAGIC.len()..last {
            let mut changed = bytes.clone();
            changed[at] ^= 0x40;
            std::fs::write(&path, &changed).expect("written");
            assert!(matches!(Store::open(&path), Err(StoreError::Damaged { .. })), "byte {at}");
        }
    }

    #[test]
    fn a_file_of_old_changes_is_written_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store");
        let mut store = Store::open(&path).expect("new");
        for number in 0..12u8 {
            store.change([("key".to_owned(), Some(vec![number; 1 << 20]))]).expect("changed");
        }
        assert!(std::fs::metadata(&path).expect("there").len() < 8 << 20);
        drop(store);
        let store = Store::open(&path).expect("again");
        assert_eq!(all(&store), BTreeMap::from([("key".to_owned(), vec![11; 1 << 20])]));
    }
}
