//! EDGE: pictures of attempts, one sealed file each in a folder within that of the log. They
//! are kept apart from the records, because they go sooner: the chain stays whole, and the
//! record keeps their digest.

use super::AuditPlace;
use super::error::AuditError;
use crate::crypto::Sealer;
use sha2::{Digest, Sha256};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// Largest picture, bytes, sealed.
const LARGEST: usize = 256 << 10;
/// Most bytes of all pictures; the oldest make room.
const MOST_BYTES: u64 = 64 << 20;
/// How many pictures are written between two looks at the size of all.
const LOOK_EVERY: u32 = 100;

/// The pictures of one log.
#[derive(Debug)]
pub struct PictureFolder {
    path: PathBuf,
    keep_for: Duration,
    written: u32,
}

impl PictureFolder {
    /// The pictures of the log at this place, which go when they are older than `keep_for`.
    pub fn of(place: &AuditPlace, keep_for: Duration) -> Self {
        Self { path: place.folder().join("pictures"), keep_for, written: 0 }
    }

    fn file(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:012}.sealed"))
    }

    fn failed(&self, number: u64) -> impl Fn(io::Error) -> AuditError + use<> {
        let file = self.file(number);
        move |reason| AuditError::Io { file: file.clone(), reason }
    }

    /// Writes the picture of a record, sealed, so that it opens for this record only.
    ///
    /// # Errors
    /// If it is too large or cannot be written.
    pub fn write(&mut self, number: u64, sealer: &Sealer, png: &[u8]) -> Result<(), AuditError> {
        let failed = self.failed(number);
        let sealed = sealer.seal(&place(number), png).map_err(io::Error::other).map_err(&failed)?;
        if sealed.len() > LARGEST {
            return Err(failed(io::Error::other("the picture is too large")));
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path).map_err(&failed)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let bytes = [&sealer.id().to_le_bytes()[..], &sealed].concat();
        let mut file = options.open(self.file(number)).map_err(&failed)?;
        file.write_all(&bytes).map_err(&failed)?;
        if self.written.is_multiple_of(LOOK_EVERY) {
            self.expire();
        }
        self.written = self.written.wrapping_add(1);
        Ok(())
    }

    /// The picture of a record as a PNG file. `sealer` finds the key with this number, and
    /// `sha256` is the digest in the record.
    ///
    /// # Errors
    /// If there is none any more, it cannot be read, or it is not that of the record.
    pub fn read(
        &self,
        number: u64,
        sha256: &[u8; 32],
        sealer: impl Fn(u32) -> Option<Sealer>,
    ) -> Result<Vec<u8>, AuditError> {
        let failed = self.failed(number);
        let gone = |error: io::Error| match error.kind() {
            ErrorKind::NotFound => io::Error::new(
                ErrorKind::NotFound,
                "the picture is gone: audit.pictures_keep_for has passed, or there was no room",
            ),
            _ => error,
        };
        let bytes = std::fs::File::open(self.file(number)).and_then(|file| {
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut io::Read::take(file, LARGEST as u64 + 5), &mut bytes)?;
            Ok(bytes)
        });
        let bytes = bytes.map_err(gone).map_err(&failed)?;
        let wrong = |text: &str| failed(io::Error::other(text.to_owned()));
        let (key, sealed) = bytes.split_first_chunk::<4>().ok_or_else(|| wrong("it is cut"))?;
        let sealer = sealer(u32::from_le_bytes(*key))
            .ok_or_else(|| wrong("the key that sealed it is not among the door's keys"))?;
        let png = sealer.open(&place(number), sealed).map_err(|error| wrong(&error.to_string()))?;
        if Sha256::digest(&*png).as_slice() != sha256 {
            return Err(wrong("it is not the picture that the record names"));
        }
        Ok(png.to_vec())
    }

    /// Removes pictures that are too old, and the oldest while there are too many. By the
    /// times of the files: a wrong clock removes pictures at a wrong time, and no records.
    pub fn expire(&self) {
        let Ok(entries) = std::fs::read_dir(&self.path) else { return };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|end| end == "sealed"))
            .filter_map(|entry| {
                let found = entry.metadata().ok()?;
                Some((found.modified().ok()?, found.len(), entry.path()))
            })
            .collect();
        files.sort();
        let mut all: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        let now = SystemTime::now();
        for (at, bytes, path) in files {
            let old = now.duration_since(at).is_ok_and(|age| age > self.keep_for);
            if !old && all <= MOST_BYTES {
                break;
            }
            all = all.saturating_sub(bytes);
            if let Err(error) = std::fs::remove_file(&path) {
                log::warn!("{}: {error}; the picture stays", path.display());
            }
        }
    }
}

/// What a picture is sealed for.
fn place(number: u64) -> Vec<u8> {
    [&b"audit picture "[..], &number.to_le_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Secret;

    #[test]
    fn a_picture_opens_for_its_record_and_goes_in_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = AuditPlace { gallery: folder.path().join("gallery.redb"), register: None };
        let mut pictures = PictureFolder::of(&place, Duration::from_secs(3600));
        let sealer = Sealer::new(&Secret::new([3; 32]));
        let find = |id| (id == sealer.id()).then(|| sealer.clone());
        let digest: [u8; 32] = Sha256::digest(b"a face").into();
        pictures.write(7, &sealer, b"a face").expect("written");
        assert_eq!(pictures.read(7, &digest, find).expect("a picture"), b"a face");
        let on_disk = std::fs::read(pictures.file(7)).expect("a file");
        assert!(!on_disk.windows(6).any(|bytes| bytes == b"a face"));
        std::fs::copy(pictures.file(7), pictures.file(8)).expect("copied");
        let fault = |number, digest| {
            pictures.read(number, digest, find).expect_err("no picture").to_string()
        };
        assert!(fault(8, &digest).contains("belongs to another place"));
        assert!(fault(7, &[0; 32]).contains("not the picture"));
        assert!(fault(9, &digest).contains("pictures_keep_for"));
        let none = pictures.read(7, &digest, |_| None).expect_err("no key").to_string();
        assert!(none.contains("key"), "{none}");
        pictures.expire();
        assert!(pictures.file(7).exists());
        PictureFolder { keep_for: Duration::ZERO, ..pictures }.expire();
        assert!(std::fs::read_dir(place.folder().join("pictures")).expect("a folder").count() == 0);
    }
}
