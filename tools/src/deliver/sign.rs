//! Signs model sets with an ed25519 key in a file of OpenSSH, or with one that ssh-agent
//! holds. A door installs sets by the keys in its `models.trusted_keys`.

use super::agent::Agent;
use super::push::Set;
use crate::files;
use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use facelatch::crypto::{PublicKey, Secret, Signer};
use facelatch::files as input;
use facelatch::models::signature::{SIGNATURE, SetSignature, time_text};
use facelatch::models::{MANIFEST, MAX_FILE, Manifest, Models, is_plain_name};
use facelatch::storage::models::self_test::SelfTest;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// Largest key file, bytes. One of an ed25519 key has about 400.
const LARGEST_KEY: u64 = 16 << 10;
/// Most files and bytes of a tar, as a door takes them.
const MOST_FILES: usize = 64;
const MOST_BYTES: u64 = 256 << 20;

/// What signs.
pub enum Key {
    /// A key that was read from a file.
    File(Box<Signer>),
    /// A key that ssh-agent holds.
    Agent(Agent, PublicKey),
}

impl Key {
    /// Reads a private key as `ssh-keygen -t ed25519 -N ""` writes it.
    ///
    /// # Errors
    /// If the file cannot be read, or holds no ed25519 key, or an encrypted one.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            input::read_text(path, LARGEST_KEY).with_context(|| path.display().to_string())?;
        let signer = private_key(&text).with_context(|| path.display().to_string())?;
        Ok(Self::File(Box::new(signer)))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        match self {
            Self::File(signer) => signer.public(),
            Self::Agent(_, key) => *key,
        }
    }

    fn sign(&mut self, manifest: &[u8]) -> Result<SetSignature> {
        match self {
            Self::File(signer) => Ok(SetSignature::sign(signer, manifest)),
            Self::Agent(agent, key) => {
                let signature = agent.sign(key, &SetSignature::to_sign(manifest))?;
                SetSignature::made(*key, signature, manifest).context(
                    "the agent's signature does not fit; the agent may hold a key of another kind",
                )
            }
        }
    }
}

/// Takes lengths and strings off the front of OpenSSH's encoding (RFC 4251, section 5).
pub(super) struct Reader<'b>(pub &'b [u8]);

impl<'b> Reader<'b> {
    pub fn bytes(&mut self, count: usize) -> Result<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).context("it ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn number(&mut self) -> Result<u32> {
        let bytes = self.bytes(4)?;
        Ok(bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    pub fn string(&mut self) -> Result<&'b [u8]> {
        let length = self.number()? as usize;
        self.bytes(length)
    }
}

/// The key in a file of OpenSSH (its `PROTOCOL.key`).
fn private_key(text: &str) -> Result<Signer> {
    const CURE: &str = "expected a private key as ssh-keygen -t ed25519 -N \"\" writes it";
    let body: String = text
        .trim()
        .strip_prefix("-----BEGIN OPENSSH PRIVATE KEY-----")
        .and_then(|rest| rest.strip_suffix("-----END OPENSSH PRIVATE KEY-----"))
        .context(CURE)?
        .split_ascii_whitespace()
        .collect();
    let bytes = STANDARD.decode(body).map_err(|_| anyhow!(CURE))?;
    let mut reader = Reader(bytes.strip_prefix(b"openssh-key-v1\0").context(CURE)?);
    let (cipher, kdf) = (reader.string()?, reader.string()?);
    if cipher != b"none" || kdf != b"none" {
        bail!("the key is encrypted; add it to ssh-agent with ssh-add and sign with --agent");
    }
    reader.string()?;
    ensure!(reader.number()? == 1, "more than one key; {CURE}");
    reader.string()?;
    let mut reader = Reader(reader.string()?);
    ensure!(reader.number()? == reader.number()?, "damaged; {CURE}");
    ensure!(reader.string()? == b"ssh-ed25519", "not an ed25519 key; {CURE}");
    let public = reader.string()?;
    let secret: [u8; 32] =
        reader.string()?.first_chunk().copied().with_context(|| format!("damaged; {CURE}"))?;
    let signer = Signer::new(&Secret::new(secret));
    ensure!(signer.public().bytes() == public, "its two halves do not belong together; {CURE}");
    Ok(signer)
}

/// What was signed.
#[derive(Debug)]
pub struct Signed {
    /// Version of the set.
    pub version: String,
    /// Number of files that the signature covers, the manifest included.
    pub files: usize,
    /// When it was signed.
    pub at: String,
    /// The key.
    pub key: PublicKey,
}

/// Signs the set in a folder or tar: notes the time in the manifest, and puts the signature
/// beside it. `unix` is the time, seconds.
///
/// # Errors
/// If the set is incomplete or has no self-test, or it cannot be signed or written.
pub fn sign(set: &Path, key: &mut Key, unix: i64) -> Result<Signed> {
    let at = time_text(unix).with_context(|| format!("{unix} is no time"))?;
    let shown = set.display().to_string();
    let is_folder = set.is_dir();
    let mut files = if is_folder { folder(set)? } else { tar(set)? };
    let manifest = files.get(MANIFEST).with_context(|| format!("{shown}: no {MANIFEST}"))?;
    let text = std::str::from_utf8(manifest).with_context(|| format!("{shown}: {MANIFEST}"))?;
    let mut table: toml::Table =
        toml::from_str(text).with_context(|| format!("{shown}: {MANIFEST}"))?;
    table.insert("signed_at".to_owned(), at.clone().into());
    let manifest = toml::to_string(&table)?.into_bytes();
    files.insert(MANIFEST.to_owned(), manifest.clone());
    // Every digest is checked first: nobody should answer for files that do not fit.
    let models = Models::from_files(set, &files)?;
    let read =
        |name: &str| files.get(name).cloned().ok_or_else(|| std::io::ErrorKind::NotFound.into());
    let test = SelfTest::read(set, &models.manifest, &read)?.with_context(|| {
        format!("{shown}: no self-test, and no door installs such a set; create it again with facelatch-tools export or quantize")
    })?;
    test.check_pictures(set, &read)?;
    let covered: Vec<String> = covered(&models.manifest, &test);
    let signature = key.sign(&manifest)?.to_string().into_bytes();
    if is_folder {
        // An interrupted run leaves a signature of another manifest, which no door takes.
        files::replace(&set.join(MANIFEST), &manifest)?;
        files::replace(&set.join(SIGNATURE), &signature)?;
    } else {
        files.insert(SIGNATURE.to_owned(), signature);
        files.retain(|name, _| name == SIGNATURE || covered.contains(name));
        let mut bytes = Vec::new();
        Set::of(files.into_iter().collect()).write_tar(&mut bytes)?;
        files::replace(set, &bytes)?;
    }
    Ok(Signed { version: models.manifest.version, files: covered.len(), at, key: key.public() })
}

/// Names of the files that the digests of a manifest cover, the manifest included.
fn covered(manifest: &Manifest, test: &SelfTest) -> Vec<String> {
    let named = manifest.files().into_iter().map(|(name, _)| name);
    [MANIFEST].into_iter().chain(named).chain(test.pictures()).map(str::to_owned).collect()
}

/// The files of a set in a folder.
fn folder(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let read = |name: &str| input::read(&folder.join(name), MAX_FILE);
    let path = folder.join(MANIFEST);
    let text = read(MANIFEST).with_context(|| path.display().to_string())?;
    let manifest = Manifest::parse(&path, &text)?;
    let pictures = SelfTest::read(folder, &manifest, &read)?;
    let named = manifest.files().into_iter().map(|(name, _)| name);
    let names = [MANIFEST].into_iter().chain(named);
    let names = names.chain(pictures.iter().flat_map(SelfTest::pictures));
    names
        .map(|name| {
            let bytes = read(name).with_context(|| folder.join(name).display().to_string())?;
            Ok((name.to_owned(), bytes))
        })
        .collect()
}

/// The files at the top level of a tar.
fn tar(path: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let shown = path.display().to_string();
    let file = input::open(path).with_context(|| shown.clone())?;
    let mut archive = tar::Archive::new(file);
    let (mut files, mut bytes) = (BTreeMap::new(), 0);
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry.with_context(|| format!("{shown}: not a tar, or truncated"))?;
        let name = entry.path()?.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let Some(name) = name.filter(|name| is_plain_name(name)) else { continue };
        if !entry.header().entry_type().is_file() {
            continue;
        }
        bytes += entry.size();
        if files.len() >= MOST_FILES || bytes > MOST_BYTES {
            bail!(
                "{shown}: more than {MOST_FILES} files or {} MB; this is not a model set",
                MOST_BYTES >> 20
            );
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        files.insert(name, content);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::export::self_test;
    use facelatch::models::sha256_hex;
    use std::path::PathBuf;
    use std::process::Command;
    use tempfile::TempDir;

    /// A key file as OpenSSH writes it, with this cipher.
    fn file(number: u8, cipher: &str) -> String {
        let string = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes(), bytes].concat();
        let public = Signer::new(&Secret::new([number; 32])).public();
        let halves = [[number; 32], *public.bytes()].concat();
        let secret = [
            &[7; 8][..],
            &string(b"ssh-ed25519"),
            &string(public.bytes()),
            &string(&halves),
            &string(b"office"),
            &[1, 2, 3],
        ]
        .concat();
        let bytes = [
            b"openssh-key-v1\0",
            &string(cipher.as_bytes())[..],
            &string(cipher.as_bytes()),
            &string(b""),
            &1u32.to_be_bytes(),
            &string(&public.ssh_blob()),
            &string(&secret),
        ]
        .concat();
        let text = STANDARD.encode(bytes);
        let (one, other) = text.split_at(70);
        format!(
            "-----BEGIN OPENSSH PRIVATE KEY-----\n{one}\n{other}\n-----END OPENSSH PRIVATE KEY-----\n"
        )
    }

    fn set(folder: &Path) -> PathBuf {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
        let to = folder.join("set");
        std::fs::create_dir_all(&to).expect("a folder");
        for file in ["pnet.onnx", "rnet.onnx", "onet.onnx", "mobilefacenet.onnx", "covered.json"] {
            std::fs::copy(from.join(file), to.join(file)).expect("copied");
        }
        let (entry, files) = self_test(&Models::open(&from).expect("models")).expect("a test");
        let text = std::fs::read_to_string(from.join(MANIFEST)).expect("a manifest");
        let mut manifest: toml::Table = text.parse().expect("TOML");
        manifest.insert("selftest".into(), toml::Value::try_from(entry).expect("TOML"));
        for (name, bytes) in files {
            std::fs::write(to.join(name), bytes).expect("written");
        }
        std::fs::write(to.join(MANIFEST), toml::to_string(&manifest).expect("TOML"))
            .expect("written");
        to
    }

    fn key() -> Key {
        Key::File(Box::new(private_key(&file(1, "none")).expect("a key")))
    }

    #[test]
    fn a_key_of_openssh_is_read() {
        assert_eq!(key().public(), Signer::new(&Secret::new([1; 32])).public());
        let whole = file(1, "none");
        for text in ["", "ssh-ed25519 AAAA", &whole[..whole.len() / 2], &whole.replace('A', "B")] {
            assert!(private_key(text).is_err(), "{text}");
        }
        let error = private_key(&file(1, "aes256-ctr")).expect_err("encrypted").to_string();
        assert!(error.contains("encrypted") && error.contains("--agent"), "{error}");
        // The program itself, where it is installed.
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("key");
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&path)
            .status();
        if made.is_ok_and(|status| status.success()) {
            let public = std::fs::read_to_string(path.with_extension("pub")).expect("a key");
            assert_eq!(Key::read(&path).expect("a key").public(), public.parse().expect("a key"));
        }
    }

    #[test]
    fn a_signed_folder_and_a_signed_tar_hold() {
        let folder = TempDir::new().expect("a folder");
        let set = set(folder.path());
        let tar = folder.path().join("set.tar");
        let made = Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&set).arg(".").status();
        assert!(made.expect("tar runs").success());
        for path in [&set, &tar] {
            let signed = sign(path, &mut key(), 1_800_000_000).expect("signed");
            assert_eq!(signed.at, "2027-01-15T08:00:00Z");
            assert_eq!(signed.files, 9);
        }
        // Signing again replaces the signature.
        sign(&tar, &mut key(), 1_800_000_001).expect("signed");
        let unpacked = folder.path().join("unpacked");
        std::fs::create_dir(&unpacked).expect("a folder");
        let took = Command::new("tar").arg("-xf").arg(&tar).arg("-C").arg(&unpacked).status();
        assert!(took.expect("tar runs").success());
        for (folder, at) in [(&set, 1_800_000_000), (&unpacked, 1_800_000_001)] {
            let manifest = std::fs::read(folder.join(MANIFEST)).expect("a manifest");
            let signature = std::fs::read(folder.join(SIGNATURE)).expect("a signature");
            let signature = SetSignature::parse(&signature).expect("a signature");
            assert!(signature.verify(&manifest).is_ok());
            assert_eq!(*signature.key(), key().public());
            let models = Models::open(folder).expect("models");
            assert_eq!(models.manifest.signed_unix(), Some(at));
        }
    }

    #[test]
    fn what_is_incomplete_or_has_no_self_test_is_not_signed() {
        let folder = TempDir::new().expect("a folder");
        let set = set(folder.path());
        let fault = || format!("{:#}", sign(&set, &mut key(), 0).expect_err("refused"));
        let picture = set.join("selftest-1.jpg");
        let whole = std::fs::read(&picture).expect("a picture");
        std::fs::write(&picture, b"another").expect("written");
        assert!(fault().contains("selftest-1.jpg: sha256"), "{}", fault());
        std::fs::write(&picture, whole).expect("written");
        let text = std::fs::read_to_string(set.join(MANIFEST)).expect("a manifest");
        let mut manifest: toml::Table = text.parse().expect("TOML");
        manifest.remove("selftest");
        std::fs::write(set.join(MANIFEST), toml::to_string(&manifest).expect("TOML"))
            .expect("written");
        assert!(fault().contains("no self-test"), "{}", fault());
        std::fs::write(set.join("rnet.onnx"), b"x").expect("written");
        assert!(fault().contains(&sha256_hex(b"x")), "{}", fault());
        assert!(!set.join(SIGNATURE).exists());
    }
}
