//! EDGE: what the service says of itself, for `facelatch-link status`.

use crate::events::cursor::Cursors;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where the packaged service keeps its status.
const FOLDER: &str = "/run/facelatch-link";

/// The status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// When it was written, seconds since 1970.
    pub time_s: i64,
    /// Name of the door; `None` while it is away.
    pub door: Option<String>,
    /// Whether there is a connection to the broker; `None` if none is configured.
    pub broker: Option<bool>,
    /// Events that wait in this program.
    pub waiting: usize,
    /// Last events that have arrived.
    pub arrived: Cursors,
    /// What is wrong, by where.
    pub faults: BTreeMap<String, String>,
}

/// The file: in systemd's runtime folder for the service, or in that of the package.
pub fn status_file() -> PathBuf {
    let folder = std::env::var_os("RUNTIME_DIRECTORY").map(PathBuf::from);
    folder.unwrap_or_else(|| FOLDER.into()).join("status.json")
}

impl Status {
    /// Replaces the file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let draft = path.with_extension("new");
        std::fs::write(&draft, serde_json::to_vec(self)?)?;
        std::fs::rename(&draft, path)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// If there is none, or it is damaged.
    pub fn read(path: &Path) -> std::io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    }
}
