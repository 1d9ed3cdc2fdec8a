//! EDGE: the file of a set that comes in parts, kept beside the sets until it is whole.

use super::error::io;
use super::unpack::MOST_BYTES;
use super::{ModelStore, ModelStoreError, Source};
use crate::files;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Name of the file. Names that begin with a dot are no sets.
const OFFERED: &str = ".offered.tar";

/// A set as a tar of which parts are here. The file is removed on drop.
pub struct OfferedSet {
    path: PathBuf,
    file: File,
    digest: [u8; 32],
    bytes: u64,
    part: usize,
    here: Vec<bool>,
}

impl OfferedSet {
    /// Begins a file of this SHA-256 digest and this many bytes, of which each part but the
    /// last has `part` bytes.
    ///
    /// # Errors
    /// If it would be larger than a set may be, or cannot be created.
    pub fn begin(
        store: &ModelStore,
        digest: [u8; 32],
        bytes: u64,
        part: usize,
    ) -> Result<Self, ModelStoreError> {
        let path = store.folder().join(OFFERED);
        if bytes > MOST_BYTES || part == 0 {
            let reason = format!("{bytes} bytes in parts of {part} are not a model set");
            return Err(ModelStoreError::Source { from: path.display().to_string(), reason });
        }
        files::create_folder(store.folder(), 0o777).map_err(io(store.folder()))?;
        Self::discard(store)?;
        let mut options = File::options();
        let file =
            options.read(true).write(true).create_new(true).open(&path).map_err(io(&path))?;
        let parts = bytes.div_ceil(part as u64);
        Ok(Self { path, file, digest, bytes, part, here: vec![false; parts as usize] })
    }

    /// Removes the file that an ended program left.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn discard(store: &ModelStore) -> Result<(), ModelStoreError> {
        let path = store.folder().join(OFFERED);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(io(&path)(error)),
            _ => Ok(()),
        }
    }

    /// SHA-256 digest that the file is to have.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Number of its parts.
    pub fn parts(&self) -> usize {
        self.here.len()
    }

    /// Numbers of the parts that are missing, the lowest first.
    pub fn missing(&self) -> impl Iterator<Item = usize> {
        self.here.iter().enumerate().filter(|(_, here)| !**here).map(|(number, _)| number)
    }

    /// Takes in a part. One that the file cannot have, or has already, changes nothing.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn put(&mut self, number: usize, bytes: &[u8]) -> Result<(), ModelStoreError> {
        let start = number as u64 * self.part as u64;
        let expected = self.bytes.saturating_sub(start).min(self.part as u64);
        match self.here.get_mut(number) {
            Some(here) if !*here && bytes.len() as u64 == expected => {
                self.file.write_all_at(bytes, start).map_err(io(&self.path))?;
                *here = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// Checks the digest of the whole file. If it is another, all parts are missing again.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn is_intact(&mut self) -> Result<bool, ModelStoreError> {
        let mut sha = Sha256::new();
        let mut part = vec![0; self.part.min(1 << 20)];
        self.file.rewind().map_err(io(&self.path))?;
        loop {
            match self.file.read(&mut part).map_err(io(&self.path))? {
                0 => break,
                count => sha.update(part.get(..count).unwrap_or_default()),
            }
        }
        let intact = self.here.iter().all(|here| *here) && sha.finalize()[..] == self.digest;
        if !intact {
            self.here.fill(false);
        }
        Ok(intact)
    }

    /// Passes the file on as the source of an installation.
    ///
    /// # Errors
    /// If the file cannot be read, or `with` fails.
    pub fn with_source<T>(
        &mut self,
        with: impl FnOnce(Source<'_>) -> Result<T, ModelStoreError>,
    ) -> Result<T, ModelStoreError> {
        let (bytes, path) = (self.bytes, self.path.clone());
        self.file.rewind().map_err(io(&path))?;
        let mut tar = (&mut self.file).take(bytes);
        with(Source::Tar("the set that the site offers", &mut tar))
    }
}

impl Drop for OfferedSet {
    fn drop(&mut self) {
        // What stays is removed by the next one.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(folder: &std::path::Path, content: &[u8]) -> OfferedSet {
        let store = ModelStore::new(folder);
        let digest = Sha256::digest(content).into();
        OfferedSet::begin(&store, digest, content.len() as u64, 10).expect("a file")
    }

    #[test]
    fn parts_in_any_order_make_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let content: Vec<u8> = (0..25).collect();
        let mut set = begin(folder.path(), &content);
        // Too short, too long, and none of its parts.
        for (number, length) in [(0, 9), (2, 10), (1, 11), (3, 5), (usize::MAX, 10)] {
            set.put(number, &vec![7; length]).expect("nothing");
        }
        assert_eq!(set.missing().collect::<Vec<_>>(), [0, 1, 2]);
        for number in [2, 0, 1] {
            let part = content.chunks(10).nth(number).expect("a part");
            set.put(number, part).expect("written");
            // A second one changes nothing.
            set.put(number, &vec![9; part.len()]).expect("nothing");
        }
        assert!(set.missing().next().is_none() && set.is_intact().expect("read"));
        let read = |source: Source<'_>| {
            let mut read = Vec::new();
            if let Source::Tar(_, tar) = source {
                tar.read_to_end(&mut read).expect("read");
            }
            Ok(read)
        };
        assert_eq!(set.with_source(read).expect("read"), content);
        assert!(ModelStore::new(folder.path()).names().expect("names").is_empty());
        drop(set);
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }

    #[test]
    fn a_file_with_another_digest_begins_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut set = begin(folder.path(), &[1; 25]);
        for (number, part) in [[2; 10].as_slice(), &[2; 10], &[2; 5]].into_iter().enumerate() {
            set.put(number, part).expect("written");
        }
        assert!(!set.is_intact().expect("read"));
        assert_eq!(set.missing().count(), 3);
        let store = ModelStore::new(folder.path());
        let large = OfferedSet::begin(&store, [0; 32], u64::MAX, 10).map(drop);
        assert!(matches!(large, Err(ModelStoreError::Source { .. })), "{large:?}");
    }

    #[test]
    fn what_was_left_or_put_there_is_replaced_and_never_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let other = folder.path().join("other");
        std::fs::write(&other, "kept").expect("written");
        let path = folder.path().join(OFFERED);
        std::os::unix::fs::symlink(&other, &path).expect("a link");
        let mut set = begin(folder.path(), &[1; 10]);
        set.put(0, &[1; 10]).expect("written");
        assert!(path.symlink_metadata().expect("there").is_file());
        assert_eq!(std::fs::read(&other).expect("there"), b"kept");
    }
}
