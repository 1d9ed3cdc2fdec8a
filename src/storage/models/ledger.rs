//! EDGE: the ledger of model sets: which sets this machine has installed, kept in the register
//! of galleries and so apart from the sets. Somebody who can write the folder of sets cannot
//! write it, so that a folder alone installs nothing.

use super::age::Age;
use crate::files;
use crate::storage::gallery::Register;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Largest entry, bytes.
const LARGEST: u64 = 64 << 10;

/// What the ledger says of one store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Ledger {
    /// Path of the store, for people who read the file.
    pub store: String,
    /// The newest set that was installed. A set that is older is a downgrade.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest: Option<Age>,
    /// The sets that may be used.
    pub sets: Vec<Accepted>,
}

/// A set that was installed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Accepted {
    /// Name of its folder.
    pub set: String,
    /// SHA-256 of its manifest.
    pub manifest: String,
    /// How it was accepted.
    pub how: How,
    /// Fingerprint of the key that signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// How a set was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum How {
    /// A trusted key had signed it.
    Signed,
    /// With `--unsigned`.
    Unsigned,
    /// It was installed by a version that knew no signatures.
    Older,
}

impl Ledger {
    /// The entry for a set with this manifest.
    pub fn accepted(&self, manifest: &str) -> Option<&Accepted> {
        self.sets.iter().find(|accepted| accepted.manifest == manifest)
    }

    /// Adds or replaces an entry.
    pub fn accept(&mut self, accepted: Accepted) {
        self.sets.retain(|other| other.manifest != accepted.manifest);
        self.sets.push(accepted);
    }
}

/// File of the ledger for a store. `None` if this user has no register.
pub(super) fn file(register: Option<&Register>, store: &Path) -> Option<PathBuf> {
    // Without links, as far as the path exists.
    let given = std::path::absolute(store).ok()?;
    let folder = given.parent().and_then(|folder| folder.canonicalize().ok());
    let real = given.canonicalize().ok().or_else(|| Some(folder?.join(given.file_name()?)));
    let digest = Sha256::digest(real.unwrap_or(given).as_os_str().as_bytes());
    let name: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Some(register?.folder().join(format!("models-{name}.toml")))
}

/// Reads a ledger; `None` if there is none.
///
/// # Errors
/// If the file exists and cannot be read, or is damaged.
pub(super) fn read(file: &Path) -> io::Result<Option<Ledger>> {
    let text = match files::read_text(file, LARGEST) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    toml::from_str(&text).map(Some).map_err(|_| {
        io::Error::other(
            "damaged; remove it, and install the models again with --unsigned if needed",
        )
    })
}

/// Writes a ledger. Survives a power cut: the file is either the former or the new one.
///
/// # Errors
/// If it cannot be written.
pub(super) fn write(file: &Path, ledger: &Ledger) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let text = toml::to_string(ledger).map_err(io::Error::other)?;
    let draft = folder.join(format!(".draft-models-{}", std::process::id()));
    let written = (|| {
        let mut options = std::fs::OpenOptions::new();
        let mut to = options.write(true).create(true).truncate(true).mode(0o644).open(&draft)?;
        to.write_all(text.as_bytes())?;
        to.sync_all()?;
        std::fs::rename(&draft, file)?;
        std::fs::File::open(folder)?.sync_all()
    })();
    written.inspect_err(|_| {
        let _ = std::fs::remove_file(&draft);
    })
}
