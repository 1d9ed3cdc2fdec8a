//! EDGE: small files of keys: read with a limit, and written as a whole.

use super::error::KeyError;
use crate::storage::gallery::{folder_of, give_to_owner, sync_folder};
use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Reads a regular file of at most `limit` bytes.
pub(super) fn read_small(path: &Path, limit: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("no regular file"));
    }
    // Never grows, so no part of a key stays behind in freed memory.
    let mut content = Zeroizing::new(Vec::with_capacity(limit as usize + 1));
    file.take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(io::Error::other("too large"));
    }
    Ok(content)
}

/// Writes a file that must not exist yet. After a power cut it is complete or absent.
pub(super) fn write_new(path: &Path, content: &[u8]) -> Result<(), KeyError> {
    let done = draft(path, content).and_then(|draft| {
        // Unlike a rename, a link does not replace an existing file.
        let placed = std::fs::hard_link(&draft, path).or_else(|error| {
            if error.kind() == ErrorKind::AlreadyExists || path.exists() {
                return Err(io::Error::from(ErrorKind::AlreadyExists));
            }
            // The file system may have no links.
            std::fs::rename(&draft, path)
        });
        let _ = std::fs::remove_file(&draft);
        placed?;
        sync_folder(path)
    });
    done.map_err(|error| failed(path, &error))
}

/// Replaces a file. After a power cut it is the former or the new one.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), KeyError> {
    let done = draft(path, content).and_then(|draft| {
        std::fs::rename(&draft, path).inspect_err(|_| {
            let _ = std::fs::remove_file(&draft);
        })?;
        sync_folder(path)
    });
    done.map_err(|error| failed(path, &error))
}

/// Removes a file, after overwriting it. Flash memory may keep old blocks all the same.
/// Returns whether there was one.
pub(super) fn shred(path: &Path) -> Result<bool, KeyError> {
    let done = (|| {
        let length = match std::fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            Ok(_) => 0,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if length > 0 {
            // A link put there meanwhile must not name the file that root overwrites.
            let nofollow = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
            let mut file = OpenOptions::new().write(true).custom_flags(nofollow).open(path)?;
            file.write_all(&vec![0; length.min(1 << 16) as usize])?;
            file.sync_all()?;
        }
        std::fs::remove_file(path)?;
        sync_folder(path).map(|()| true)
    })();
    done.map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &io::Error) -> KeyError {
    let cure = match error.kind() {
        ErrorKind::AlreadyExists => "nothing is made over it",
        ErrorKind::PermissionDenied => "run the command as root or as the owner of the gallery",
        ErrorKind::ReadOnlyFilesystem => "remount its file system for writing",
        ErrorKind::StorageFull => "free some space",
        _ => "check its card or disk",
    };
    KeyError::Io { path: path.to_owned(), reason: format!("{error}; {cure}") }
}

/// Writes and syncs a draft beside the file, which only its owner can read.
fn draft(path: &Path, content: &[u8]) -> io::Result<PathBuf> {
    let folder = folder_of(path);
    // A power cut must not take the folder, and the key with it.
    crate::files::create_folder(folder, 0o700)?;
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".draft-{}", std::process::id()));
    let draft = PathBuf::from(name);
    let _ = std::fs::remove_file(&draft);
    let written = (|| {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&draft)?;
        file.write_all(content)?;
        give_to_owner(&draft)?;
        file.sync_all()
    })();
    written.inspect_err(|_| {
        let _ = std::fs::remove_file(&draft);
    })?;
    Ok(draft)
}
