//! Sources of an installation: a model folder, or a tar of one.

use super::ModelStoreError;
use super::error::io;
use crate::files;
use crate::models::signature::{MAX_SIGNATURE, SIGNATURE};
use crate::models::{MANIFEST, MAX_FILE, Manifest, ModelsError, is_plain_name};
use crate::storage::models::self_test::SelfTest;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path};

/// Most files in a tar. A set has about half a dozen.
const MOST_FILES: usize = 64;
/// Most entries of any kind in a tar, so that an endless stream of folders ends.
const MOST_ENTRIES: usize = 1024;
/// Most bytes of all files together: a hundred times the size of the shipped set. Bounds
/// the memory and disk used for something that is not a model set.
pub(super) const MOST_BYTES: u64 = 256 << 20;

/// Source of a set to install.
pub enum Source<'s> {
    /// A folder with manifest.toml.
    Folder(&'s Path),
    /// A tar with manifest.toml at its top level. The name only appears in error messages.
    Tar(&'s str, &'s mut dyn Read),
}

impl Source<'_> {
    /// Copies the files to an empty folder and syncs each to the disk. Returns the number
    /// of files.
    pub(super) fn unpack(self, to: &Path) -> Result<usize, ModelStoreError> {
        match self {
            Self::Folder(folder) => copy(folder, to),
            Self::Tar(name, tar) => untar(name, tar, to),
        }
    }
}

/// Copies the manifest, its signature and the files that it names, and no other file in the
/// folder.
fn copy(from: &Path, to: &Path) -> Result<usize, ModelStoreError> {
    let path = from.join(MANIFEST);
    let read = |name: &str| files::read(&from.join(name), MAX_FILE);
    let absent = |reason| ModelsError::Read { path: path.clone(), reason };
    let text = read(MANIFEST).map_err(absent)?;
    let manifest = Manifest::parse(&path, &text)?;
    let test = SelfTest::read(from, &manifest, &read)?;
    let named = manifest.files().into_iter().map(|(name, _)| name);
    let pictures = test.iter().flat_map(SelfTest::pictures);
    let signature = from.join(SIGNATURE).symlink_metadata().is_ok().then_some(SIGNATURE);
    let (mut count, mut bytes) = (0, 0);
    for name in [MANIFEST].into_iter().chain(signature).chain(named).chain(pictures) {
        let source = from.join(name);
        let file = files::open(&source).map_err(io(&source))?;
        let length = file.metadata().map_err(io(&source))?.len();
        bytes += length;
        if bytes > MOST_BYTES || (name == SIGNATURE && length > MAX_SIGNATURE) {
            return Err(ModelStoreError::Source {
                from: source.display().to_string(),
                reason: format!(
                    "the files are larger than {} MB, or the signature than {MAX_SIGNATURE} bytes; this is not a model set",
                    MOST_BYTES >> 20
                ),
            });
        }
        // A file that grows meanwhile is caught by its digest.
        write(&mut file.take(length), &to.join(name))?;
        count += 1;
    }
    Ok(count)
}

/// Extracts the regular files at the top level of a tar.
fn untar(name: &str, tar: &mut dyn Read, to: &Path) -> Result<usize, ModelStoreError> {
    let fault = |reason: String| ModelStoreError::Source { from: name.to_owned(), reason };
    let broken =
        |error: std::io::Error| fault(format!("truncated or not a tar ({error}); send it again"));
    let mut archive = tar::Archive::new(tar);
    let (mut count, mut bytes) = (0, 0);
    // Raw: a long name is read into memory before its entry, however long it is, and no file of
    // a set needs one.
    for (at, entry) in archive.entries().map_err(broken)?.raw(true).enumerate() {
        let mut entry = entry.map_err(broken)?;
        if at >= MOST_ENTRIES {
            return Err(fault(format!(
                "more than {MOST_ENTRIES} entries; this is not a model set"
            )));
        }
        let path = entry.path().map_err(broken)?.into_owned();
        let mut parts = path.components().filter(|part| *part != Component::CurDir);
        let (Some(Component::Normal(file)), None) = (parts.next(), parts.next()) else { continue };
        let Some(file) = file.to_str().filter(|file| is_plain_name(file)) else { continue };
        if !entry.header().entry_type().is_file() {
            continue;
        }
        count += 1;
        bytes += entry.size();
        if count > MOST_FILES || bytes > MOST_BYTES {
            return Err(fault(format!(
                "more than {MOST_FILES} files or {} MB; this is not a model set",
                MOST_BYTES >> 20
            )));
        }
        let target = to.join(file);
        let expected = entry.size();
        let written = write(&mut entry, &target)?;
        if written != expected {
            return Err(fault(format!(
                "truncated in {file}, after {written} of {expected} bytes; send it again"
            )));
        }
    }
    if !to.join(MANIFEST).is_file() {
        return Err(fault(format!(
            "no {MANIFEST} at the top level, or truncated before it; create it with tar -cf SET.tar -C FOLDER ."
        )));
    }
    Ok(count)
}

/// Writes a new file and syncs it to the disk. Returns the number of bytes.
fn write(from: &mut impl Read, to: &Path) -> Result<u64, ModelStoreError> {
    let mut work = || -> std::io::Result<u64> {
        let mut file = File::create_new(to)?;
        let written = std::io::copy(from, &mut file)?;
        file.sync_all()?;
        Ok(written)
    };
    work().map_err(io(to))
}
