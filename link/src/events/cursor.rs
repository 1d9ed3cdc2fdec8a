//! EDGE: how far receivers have come, in a file that is replaced at once and whole.

use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Longest file, bytes.
const MOST_BYTES: u64 = 4096;

/// What is remembered across restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cursors {
    /// Number of the door whose events these are.
    pub door: String,
    /// Site of the door, as in topics, when it last said so.
    pub site: Option<String>,
    /// Number of the last event that the broker has; `None` if none was sent yet.
    pub mqtt: Option<u64>,
    /// Number of the last event that the webhook has.
    pub webhook: Option<u64>,
}

/// The file.
#[derive(Clone, Debug)]
pub struct CursorFile {
    path: PathBuf,
}

impl CursorFile {
    /// The file in this folder.
    pub fn new(folder: &Path) -> Self {
        Self { path: folder.join("cursors.json") }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds; `None` before the first save.
    ///
    /// # Errors
    /// If it cannot be read, or is damaged: the reason and the cure.
    pub fn load(&self) -> Result<Option<Cursors>, String> {
        let fault = |reason: &str| {
            format!(
                "{}: {reason}; delete it, and events are sent from then on",
                self.path.display()
            )
        };
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{}: {error}", self.path.display())),
        };
        let mut text = vec![];
        file.take(MOST_BYTES + 1)
            .read_to_end(&mut text)
            .map_err(|error| fault(&error.to_string()))?;
        if text.len() as u64 > MOST_BYTES {
            return Err(fault("is too long"));
        }
        serde_json::from_slice(&text).map(Some).map_err(|_| fault("is damaged"))
    }

    /// Replaces it. After a power cut the old or the new content is there.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, cursors: &Cursors) -> std::io::Result<()> {
        let text = serde_json::to_vec(cursors)?;
        let draft = self.path.with_extension("new");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&draft, &self.path)?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_damage_is_named() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let file = CursorFile::new(folder.path());
        assert_eq!(file.load(), Ok(None));
        let cursors = Cursors { door: "7f".to_owned(), mqtt: Some(3), ..Cursors::default() };
        for mqtt in 0..3 {
            let cursors = Cursors { mqtt: Some(mqtt), ..cursors.clone() };
            file.save(&cursors).expect("saved");
            assert_eq!(file.load(), Ok(Some(cursors)));
        }
        std::fs::write(file.path(), "{").expect("written");
        assert!(file.load().expect_err("damaged").contains("delete it"));
        std::fs::write(file.path(), vec![b' '; 5000]).expect("written");
        assert!(file.load().expect_err("long").contains("too long"));
    }
}
