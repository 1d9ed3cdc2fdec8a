//! EDGE: the master key, which opens the keyring: where it may come from, and the file that
//! holds it if nothing safer does.

use super::error::KeyError;
use super::files::{read_small, write_new};
use crate::crypto::Secret;
use crate::storage::gallery::{Register, SYSTEM_REGISTER};
use sha2::{Digest, Sha256};
use std::fmt;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use zeroize::{Zeroize, Zeroizing};

/// Name of the credential, and of its file.
pub const CREDENTIAL: &str = "facelatch.key";
/// Folder in which systemd looks for encrypted credentials.
pub const CREDSTORE: &str = "/etc/credstore.encrypted";
/// Where systemd shows the running service its credentials; root may read there.
const RUNNING: &str = "/run/credentials/facelatch.service";
/// Beginning of each line of a key file.
const LINE: &str = "facelatch-key-1";
/// Largest key file, bytes.
const LARGEST: u64 = 4096;

/// Where a master key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A credential that systemd has decrypted for the service.
    Credential(PathBuf),
    /// An encrypted credential, decrypted by `systemd-creds`.
    Credstore(PathBuf),
    /// A file that only its owner can read.
    File(PathBuf),
}

impl Source {
    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Credential(path) | Self::Credstore(path) | Self::File(path) => path,
        }
    }

    /// Whether the key lies in a plain file.
    pub fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credential(path) => write!(f, "the systemd credential {}", path.display()),
            Self::Credstore(path) => write!(f, "the encrypted credential {}", path.display()),
            Self::File(path) => write!(f, "the file {}", path.display()),
        }
    }
}

/// Where the master key of a door is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPlace {
    /// The key file.
    file: PathBuf,
    /// Credentials in the order in which they are asked for.
    credentials: Vec<Source>,
}

impl KeyPlace {
    /// The place that belongs to a register: the credential of the service, else `door.key`
    /// in the register's folder. That folder is apart from the gallery, which may lie on a
    /// card of its own: who takes that card does not get the key with it.
    pub fn of(register: &Register) -> Self {
        let mut credentials = Vec::new();
        if let Some(folder) = std::env::var_os("CREDENTIALS_DIRECTORY") {
            credentials.push(Source::Credential(Path::new(&folder).join(CREDENTIAL)));
        }
        if register.folder() == Path::new(SYSTEM_REGISTER) {
            credentials.push(Source::Credential(Path::new(RUNNING).join(CREDENTIAL)));
            credentials.push(Source::Credstore(Path::new(CREDSTORE).join(CREDENTIAL)));
        }
        Self { file: register.folder().join("door.key"), credentials }
    }

    /// The place of this user. `None` if the user has no home.
    pub fn of_user() -> Option<Self> {
        Register::of_user().as_ref().map(Self::of)
    }

    /// The key file, which need not exist.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Every place at which a key may be, the safer first.
    pub(super) fn sources(&self) -> impl Iterator<Item = Source> + '_ {
        self.credentials.iter().cloned().chain([Source::File(self.file.clone())])
    }

    /// Makes a key file with a new key, which must not exist yet.
    pub(super) fn make(&self) -> Result<(Source, Secret), KeyError> {
        let key = Secret::random()?;
        self.write(&key)?;
        Ok((Source::File(self.file.clone()), key))
    }

    /// Writes the key file, which must not exist yet.
    pub(super) fn write(&self, key: &Secret) -> Result<(), KeyError> {
        write_new(&self.file, text_of(key).as_bytes())
    }
}

/// The key that a source gives; `None` if there is none.
pub(super) fn read(source: &Source) -> Result<Option<Secret>, KeyError> {
    let path = source.path();
    let io = |reason: String| KeyError::Io { path: path.to_owned(), reason };
    let content = match source {
        Source::Credstore(_) if !rustix::process::geteuid().is_root() => return Ok(None),
        Source::Credstore(_) => match path.try_exists() {
            Ok(true) => decrypted(path).map_err(io)?,
            Ok(false) => return Ok(None),
            Err(error) => return Err(io(format!("{error}; check the path"))),
        },
        Source::Credential(_) | Source::File(_) => match read_small(path, LARGEST) {
            Ok(content) => content,
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Ok(None);
            }
            // Other users may not even look into the folder of the service.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Err(io(
                    "permission denied; run the command as root or as the owner of the gallery"
                        .to_owned(),
                ));
            }
            Err(error) => return Err(io(format!("{error}; check its card or disk"))),
        },
    };
    key_of(&content).map(Some).ok_or_else(|| {
        io("no key: it is damaged, or another kind of file; put the right one back".to_owned())
    })
}

/// The key in the content of a key file or of a credential: lines as [`text_of`] writes
/// them, or exactly 32 bytes.
pub(super) fn key_of(content: &[u8]) -> Option<Secret> {
    if let Ok(bytes) = <&[u8; 32]>::try_from(content) {
        return Some(Secret::new(*bytes));
    }
    let text = std::str::from_utf8(content);
    let mut keys = Vec::new();
    match text {
        Ok(text) => keys.extend(text.lines().filter_map(key_of_line)),
        // A flipped bit may make a byte that is no text.
        Err(_) => {
            let lines = content.split(|byte| *byte == b'\n');
            let texts = lines.filter_map(|line| std::str::from_utf8(line).ok());
            keys.extend(texts.filter_map(key_of_line));
        }
    }
    let first = keys.pop()?;
    keys.iter().all(|key| *key == first).then_some(first)
}

fn key_of_line(line: &str) -> Option<Secret> {
    let mut words = line.split_ascii_whitespace();
    let (Some(LINE), Some(key), Some(sum), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return None;
    };
    let mut bytes = Zeroizing::new([0; 32]);
    if key.len() != 64 || !key.is_ascii() {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(key.get(at..at + 2)?, 16).ok()?;
    }
    (sum_of(&bytes) == sum).then(|| Secret::new(*bytes))
}

/// Four bytes of a digest: they detect a flipped bit and tell nothing useful about the key.
fn sum_of(key: &[u8; 32]) -> String {
    let digest = Sha256::digest([LINE.as_bytes(), key].concat());
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// A key as a key file holds it: the same line twice, with an empty line between, so that a
/// flipped bit loses nothing.
pub(super) fn text_of(key: &Secret) -> Zeroizing<String> {
    let mut hex = Zeroizing::new(String::with_capacity(64));
    for byte in key.bytes() {
        for digit in [byte >> 4, byte & 15] {
            hex.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    let line = |text: &mut String| {
        for part in [LINE, " ", &hex, " ", &sum_of(key.bytes()), "\n"] {
            text.push_str(part);
        }
    };
    let mut text = Zeroizing::new(String::with_capacity(256));
    line(&mut text);
    text.push('\n');
    line(&mut text);
    text
}

/// Decrypts a credential. Returns its content, or the fault and the cure.
pub(super) fn decrypted(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let name = format!("--name={CREDENTIAL}");
    let done = Command::new("systemd-creds")
        .args(["decrypt", &name])
        .arg(path)
        .arg("-")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("systemd-creds: {error}; systemd 250 or later has it"))?;
    if done.status.success() {
        return Ok(Zeroizing::new(done.stdout));
    }
    let (mut out, said) = (done.stdout, String::from_utf8_lossy(&done.stderr).into_owned());
    out.zeroize();
    let said: String = said.trim().chars().take(300).collect();
    Err(format!("cannot be decrypted on this machine: {said}; bring back its TPM or host key"))
}

/// What other users may do with the key file that they should not: the thing, the fault and
/// the cure, one line each.
pub fn remarks(place: &KeyPlace) -> Vec<String> {
    let file = place.file();
    let Ok(metadata) = std::fs::metadata(file) else { return Vec::new() };
    let shown = file.display();
    let mut remarks = Vec::new();
    if metadata.mode() & 0o077 != 0 {
        let mode = metadata.mode() & 0o777;
        remarks.push(format!(
            "{shown}: other users may read or write the door's key (mode {mode:04o}); chmod 600 \
             {shown}, then facelatch key rotate"
        ));
    }
    let folder = file.parent().and_then(|folder| std::fs::metadata(folder).ok());
    if let Some(folder) = folder
        && folder.uid() != metadata.uid()
    {
        remarks.push(format!(
            "{shown}: belongs to user {}, not to the owner of its folder (user {}); chown {} \
             {shown}",
            metadata.uid(),
            folder.uid(),
            folder.uid()
        ));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A key file survives any one damaged byte.
        #[test]
        fn a_flipped_bit_loses_no_key(
            key in any::<[u8; 32]>(), at in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let key = Secret::new(key);
            let mut text = text_of(&key).as_bytes().to_vec();
            prop_assert!(key_of(&text) == Some(key.clone()));
            let at = at.index(text.len());
            text[at] ^= 1 << bit;
            prop_assert!(key_of(&text) == Some(key));
        }

        #[test]
        fn what_is_no_key_is_none(content in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assume!(content.len() != 32);
            prop_assert!(key_of(&content).is_none());
        }
    }

    #[test]
    fn two_different_keys_in_a_file_are_none() {
        let [a, b] = [1, 2].map(|byte| text_of(&Secret::new([byte; 32])));
        assert!(key_of(format!("{}{}", *a, *b).as_bytes()).is_none());
        assert!(key_of(&[7; 32]).is_some(), "a credential of 32 bytes");
    }
}
