//! Atomic writing of files.

use anyhow::{Context, Result};
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Writes a file atomically: to `PATH.draft`, flushed to disk, then renamed. After a full
/// disk or a power cut the old file is still there. Missing folders are created.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    put(path, bytes, File::sync_all)
}

/// As [`replace`] without waiting for the disk, for many small files whose digests are
/// recorded. A power cut may leave such a file empty.
pub fn replace_unsynced(path: &Path, bytes: &[u8]) -> Result<()> {
    put(path, bytes, |_| Ok(()))
}

fn put(path: &Path, bytes: &[u8], sync: impl Fn(&File) -> std::io::Result<()>) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut draft = path.as_os_str().to_owned();
    draft.push(".draft");
    let draft = Path::new(&draft);
    let written = File::create(draft)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| sync(&file)))
        .and_then(|()| std::fs::rename(draft, path));
    if written.is_err() {
        // A partial draft is useless, and removing it frees space on a full disk.
        let _ = std::fs::remove_file(draft);
    }
    written.with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_leaves_what_was_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run.json");
        replace(&path, b"old").expect("written");
        let draft = folder.path().join("run.json.draft");
        std::os::unix::fs::symlink("/dev/full", &draft).expect("a link");
        let error = format!("{:#}", replace(&path, b"new").expect_err("no room"));
        assert!(error.contains("run.json") && error.contains("No space"), "{error}");
        assert_eq!(std::fs::read(&path).expect("a file"), b"old");
        assert!(draft.symlink_metadata().is_err());
        replace(&path, b"new").expect("written");
        assert_eq!(std::fs::read(&path).expect("a file"), b"new");
    }
}
