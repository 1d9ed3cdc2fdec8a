//! EDGE: the one way to open a file that somebody named. Only regular files are opened: a
//! FIFO waits for a writer that may never come, and a device never ends. Opening never
//! waits, and reading ends at a limit.

mod kind;

pub use kind::{Class, Kind, kind_of};

use rustix::fs::{Mode, OFlags};
use std::fs::{DirBuilder, File, FileType, Metadata};
use std::io::{Error, ErrorKind, Read, Result};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::Path;

/// Limit for files of which nothing better is known: no table, photo or network is larger.
pub const LARGEST: u64 = 1 << 30;

/// Opens a regular file for reading.
///
/// # Errors
/// If the file cannot be opened, or is no regular file; then the error says what it is.
pub fn open(path: &Path) -> Result<File> {
    // Even opening some devices does something, such as resetting a board on a serial port.
    regular(&std::fs::metadata(path)?)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    // Another file may have taken its place since.
    regular(&file.metadata()?)?;
    Ok(file)
}

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// As for [`open`], or if the file is larger.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let most =
            if limit >= 1 << 20 { format!("{} MB", limit >> 20) } else { format!("{limit} bytes") };
        return Err(Error::new(ErrorKind::FileTooLarge, format!("larger than {most}")));
    }
    Ok(bytes)
}

/// Like [`read`], for UTF-8 text.
///
/// # Errors
/// As for [`read`], or if the file is not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> Result<String> {
    String::from_utf8(read(path, limit)?)
        .map_err(|_| Error::new(ErrorKind::InvalidData, "not UTF-8 text"))
}

/// Creates a folder and those above it that are missing, with these rights, such that a power
/// cut does not undo it: each folder that gets a new one is synced.
///
/// # Errors
/// If a folder cannot be created or synced.
pub fn create_folder(path: &Path, mode: u32) -> Result<()> {
    let absolute = std::path::absolute(path)?;
    let missing: Vec<&Path> = absolute.ancestors().take_while(|folder| !folder.exists()).collect();
    DirBuilder::new().recursive(true).mode(mode).create(path)?;
    missing
        .iter()
        .filter_map(|folder| folder.parent())
        .try_for_each(|folder| File::open(folder)?.sync_all())
}

fn regular(found: &Metadata) -> Result<()> {
    let kind = found.file_type();
    if kind.is_file() {
        return Ok(());
    }
    let error = if kind.is_dir() { ErrorKind::IsADirectory } else { ErrorKind::InvalidInput };
    Err(Error::new(error, format!("{}, not a file; name a regular file", name(kind))))
}

fn name(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a FIFO or pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn fault(path: &Path) -> Error {
        read(path, 10).expect_err("not a regular file")
    }

    #[test]
    fn only_regular_files_are_opened_and_nothing_waits() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "0123456789").expect("written");
        assert_eq!(read_text(&file, 10).expect("a file"), "0123456789");
        assert_eq!(read(&file, 9).expect_err("too large").kind(), ErrorKind::FileTooLarge);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        assert_eq!(read(&link, 10).expect("a link to a file"), b"0123456789");

        let fifo = folder.path().join("fifo");
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, mode).expect("a FIFO");
        assert!(fault(&fifo).to_string().starts_with("a FIFO or pipe, not a file"));
        let socket = folder.path().join("socket");
        let _listener = UnixListener::bind(&socket).expect("a socket");
        assert!(fault(&socket).to_string().starts_with("a socket"));
        assert!(fault(Path::new("/dev/zero")).to_string().starts_with("a device"));
        assert_eq!(fault(folder.path()).kind(), ErrorKind::IsADirectory);
        assert_eq!(fault(&folder.path().join("none")).kind(), ErrorKind::NotFound);
    }

    #[test]
    fn folders_are_created_with_those_above_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let deep = folder.path().join("a/b/../c");
        for _ in 0..2 {
            create_folder(&deep, 0o700).expect("created");
            assert!(deep.is_dir());
        }
        std::fs::write(folder.path().join("file"), "x").expect("written");
        assert!(create_folder(&folder.path().join("file/a"), 0o700).is_err());
    }

    #[test]
    fn text_is_utf8() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        std::fs::write(&file, [0xe9]).expect("written");
        assert_eq!(read_text(&file, 10).expect_err("latin").kind(), ErrorKind::InvalidData);
    }
}
