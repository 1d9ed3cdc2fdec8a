//! EDGE: the folder of a set that is being installed.

use super::error::io;
use super::{DRAFT, ModelStoreError, REPLACED, remove, sync_folder};
use std::path::{Path, PathBuf};

/// Folder of a set that is being installed, removed on drop unless it was renamed.
pub(super) struct Draft {
    pub path: PathBuf,
}

impl Draft {
    /// Creates the folder, after removing those left by an interrupted installation.
    pub fn begin(store: &Path) -> Result<Self, ModelStoreError> {
        for left in [DRAFT, REPLACED] {
            remove(&store.join(left))?;
        }
        let path = store.join(DRAFT);
        std::fs::create_dir(&path).map_err(io(&path))?;
        Ok(Self { path })
    }

    /// Removes files that do not belong to the set, and syncs the folder.
    pub fn keep_only(&self, files: &[String]) -> Result<(), ModelStoreError> {
        for entry in std::fs::read_dir(&self.path).map_err(io(&self.path))? {
            let entry = entry.map_err(io(&self.path))?;
            if !files.iter().any(|file| entry.file_name() == file.as_str()) {
                std::fs::remove_file(entry.path()).map_err(io(&entry.path()))?;
            }
        }
        sync_folder(&self.path)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After the rename there is nothing to remove.
        let _ = remove(&self.path);
    }
}
