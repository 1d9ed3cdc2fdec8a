//! EDGE: the master key from its file to a credential that systemd decrypts, and back.

use super::error::KeyError;
use super::files::shred;
use super::keyring;
use super::master::{CREDENTIAL, CREDSTORE, KeyPlace, Source, decrypted, key_of, read, text_of};
use crate::storage::gallery::folder_of;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What an encrypted credential is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// A key of the machine in /var/lib/systemd, on its disk.
    Host,
    /// Something else than the disk alone: a TPM.
    Tpm,
    /// Unknown: the administrator who gives it to systemd decides.
    Unknown,
}

/// Beginning of a credential that only the machine's key encrypts, in base64: the number of
/// that kind in systemd's src/shared/creds-util.h.
const BY_HOST: &str = "Whxqht+dQJax1aZeCGLxm";

/// What the encrypted credential in a folder is bound to.
pub fn binding(folder: &Path) -> Binding {
    match std::fs::read_to_string(folder.join(CREDENTIAL)) {
        Ok(text) if text.starts_with(BY_HOST) => Binding::Host,
        Ok(_) => Binding::Tpm,
        Err(_) => Binding::Unknown,
    }
}

/// The folder of encrypted credentials.
pub fn credstore() -> PathBuf {
    PathBuf::from(CREDSTORE)
}

impl KeyPlace {
    /// Encrypts the key of the key file as a credential in `folder`, and reads it back. The
    /// key file stays: the service removes it at the first start at which it gets the
    /// credential. `with` is what it is bound to: auto, host, tpm2 or host+tpm2. Returns the
    /// credential.
    ///
    /// # Errors
    /// If there is no key file, a credential exists, systemd-creds fails, or what it made
    /// cannot be read back.
    pub fn to_credential(
        &self,
        gallery: &Path,
        folder: &Path,
        with: &str,
    ) -> Result<PathBuf, KeyError> {
        let file = Source::File(self.file().to_owned());
        let failed = |path: &Path, reason: String| KeyError::Io { path: path.to_owned(), reason };
        let key = read(&file)?.ok_or_else(|| {
            failed(self.file(), "no key file here; see facelatch key status".to_owned())
        })?;
        // It must be the right key before it is moved.
        keyring::open_with(gallery, &key)?;
        let target = folder.join(CREDENTIAL);
        if target.exists() {
            return Err(failed(&target, "exists already; move it away first".to_owned()));
        }
        crate::files::create_folder(folder, 0o700)
            .map_err(|error| failed(folder, error.to_string()))?;
        let draft = folder.join(format!("{CREDENTIAL}.draft"));
        let _ = std::fs::remove_file(&draft);
        let done = encrypted(text_of(&key).as_bytes(), &draft, with)
            .and_then(|()| {
                let back = decrypted(&draft)?;
                let same = key_of(&back).is_some_and(|back| back == key);
                same.then_some(()).ok_or_else(|| "what was written is not the key".to_owned())
            })
            .and_then(|()| std::fs::rename(&draft, &target).map_err(|error| error.to_string()))
            .and_then(|()| {
                let folder = std::fs::File::open(folder_of(&target));
                folder.and_then(|folder| folder.sync_all()).map_err(|error| error.to_string())
            });
        let _ = std::fs::remove_file(&draft);
        done.map_err(|reason| failed(&target, reason))?;
        Ok(target)
    }

    /// Writes the key of a credential to the key file, reads it back, and removes the
    /// encrypted credential in `folder`. Returns whether there was one.
    ///
    /// # Errors
    /// If no credential can be read, there is a key file, or a file cannot be written or
    /// removed.
    pub fn to_file(&self, gallery: &Path, folder: &Path) -> Result<bool, KeyError> {
        let failed = |reason: &str| KeyError::Io {
            path: folder.join(CREDENTIAL),
            reason: reason.to_owned(),
        };
        let mut found = None;
        let stored = Source::Credstore(folder.join(CREDENTIAL));
        for source in self.sources().filter(|source| !source.is_file()).chain([stored]) {
            if let Ok(Some(key)) = read(&source)
                && keyring::open_with(gallery, &key).is_ok()
            {
                found = Some(key);
                break;
            }
        }
        let key = found.ok_or_else(|| {
            failed("no credential here opens the keyring; see facelatch key status")
        })?;
        let file = Source::File(self.file().to_owned());
        // The service removes the file only at its next start.
        if read(&file)?.as_ref() != Some(&key) {
            self.write(&key)?;
        }
        let back = read(&file)?;
        if back != Some(key) {
            return Err(failed("the key file cannot be read back; the credential stays"));
        }
        shred(&folder.join(CREDENTIAL))
    }

    /// Removes a key file whose key this process got from systemd: the credential works.
    /// It stays if other galleries need it. Returns the file if it was removed.
    pub(crate) fn retire_file(&self, used: &Source, others: &[PathBuf]) -> Option<PathBuf> {
        let Source::Credential(_) = used else { return None };
        if !others.is_empty() {
            return None;
        }
        let file = Source::File(self.file().to_owned());
        let (Ok(Some(credential)), Ok(Some(old))) = (read(used), read(&file)) else { return None };
        // Another key may open another keyring.
        if credential != old {
            return None;
        }
        match shred(self.file()) {
            Ok(true) => Some(self.file().to_owned()),
            Ok(false) => None,
            Err(error) => {
                log::warn!("{error}; remove it: the key comes from systemd now");
                None
            }
        }
    }
}

fn encrypted(content: &[u8], to: &Path, with: &str) -> Result<(), String> {
    let mut child = Command::new("systemd-creds")
        .args(["encrypt", &format!("--name={CREDENTIAL}"), &format!("--with-key={with}"), "-"])
        .arg(to)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("systemd-creds: {error}; systemd 250 or later has it"))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(content).map_err(|error| error.to_string())?;
    }
    let done = child.wait_with_output().map_err(|error| error.to_string())?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr).trim().chars().take(300).collect::<String>();
    Err(format!("systemd-creds cannot encrypt: {said}; try --with-key host"))
}
