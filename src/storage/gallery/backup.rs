//! EDGE: people in an encrypted file, for a backup or for another door. The file has the
//! format of age (age-encryption.org/v1); inside are records, and at the end the signature
//! of the door that wrote it:
//!
//! ```text
//! "facelatch people 1\n", identity, next person, revision: 8 bytes each
//! per record: table 1..=3, 1 byte; key, 8 bytes; length, 4 bytes; format and content
//! 0, 1 byte
//! public key, 32 bytes; ed25519 signature of the SHA-256 of all before it, 64 bytes
//! ```
//!
//! Numbers are little-endian. Templates are as their model made them.

use super::error::{StoreError, error};
use super::export::{Export, is_negatives, is_of};
use super::files::{Readable, create_folder, draft_path, guarded, in_empty_memory};
use super::limits::{MOST_PEOPLE, MOST_TEMPLATES};
use super::presence::open_to_read;
use super::rewrite::{Numbers, Take, feed, fill};
use super::sealed::{Guard, LISTED};
use super::tables::{Fault, NEXT_PERSON};
use super::{Store, sealed::Keys};
use crate::crypto::{PublicKey, SIGNATURE, Signer};
use age::secrecy::SecretString;
use redb::TableHandle;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use zeroize::Zeroizing;

/// Beginning of every file of the age format.
const AGE: &[u8] = b"age-encryption.org/v1\n";
/// Beginning of the content.
const MAGIC: &[u8; 19] = b"facelatch people 1\n";
/// What the signature is for.
const PURPOSE: &str = "people backup";
/// Work factor of scrypt for files written: 2^17 takes 128 MB for a moment.
const WORK: u8 = 17;
/// Largest work factor of files read: 2^20 takes 1 GB.
const MOST_WORK: u8 = 20;
/// Largest content, bytes, because it is read into memory: more than a thousand people with
/// five pictures each.
const LARGEST: u64 = 512 << 20;
/// Largest record, bytes: a picture takes 256 kB at most.
const LARGEST_RECORD: usize = 300 << 10;
/// Largest file with an identity, bytes.
const LARGEST_IDENTITY: u64 = 64 << 10;

/// For whom a backup is encrypted.
pub enum Lock {
    /// Recipients (`age1...`), at least one. Each can open it alone.
    Recipients(Vec<String>),
    /// Everybody with this passphrase.
    Passphrase(Zeroizing<String>),
}

/// With what a backup is opened.
pub enum Unlock {
    /// A file with identities (`AGE-SECRET-KEY-1...`), one per line; lines with `#` are
    /// comments.
    Identity(std::path::PathBuf),
    /// A passphrase.
    Passphrase(Zeroizing<String>),
}

fn io_error(path: &Path, reason: impl std::fmt::Display) -> StoreError {
    StoreError::Io { path: path.to_owned(), reason: reason.to_string() }
}

/// Whether the file is encrypted in the age format, and if so whether with a passphrase.
///
/// # Errors
/// If it cannot be read.
pub fn is_encrypted(path: &Path) -> Result<Option<bool>, StoreError> {
    let failed = |fault| error(path, fault);
    let mut file = BufReader::new(open_to_read(path).map_err(failed)?);
    let mut beginning = Vec::new();
    let read = (&mut file).take(AGE.len() as u64).read_to_end(&mut beginning);
    read.map_err(|reason| io_error(path, reason))?;
    if beginning != AGE {
        return Ok(None);
    }
    // The first recipient of a file with a passphrase is the passphrase.
    let mut first = Vec::new();
    let read = (&mut file).take(10).read_to_end(&mut first);
    read.map_err(|reason| io_error(path, reason))?;
    Ok(Some(first == b"-> scrypt "))
}

/// Passes everything on and computes the digest of it.
struct Digesting<I> {
    inner: I,
    digest: Sha256,
    /// Bytes that may still be read.
    left: u64,
}

impl<I> Digesting<I> {
    fn new(inner: I) -> Self {
        Self { inner, digest: Sha256::new(), left: LARGEST }
    }
}

impl<W: Write> Digesting<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.inner.write_all(bytes)
    }
}

impl<R: Read> Digesting<R> {
    fn get(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let too_large = || io::Error::other(format!("larger than {} MB", LARGEST >> 20));
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(too_large)?;
        self.inner.read_exact(bytes)?;
        self.digest.update(bytes);
        Ok(())
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.get(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

impl Store {
    /// Writes people, or everybody if `names` is empty, to a new encrypted file, signed by
    /// this door. Returns the number of people.
    ///
    /// # Errors
    /// If a name is unknown, a recipient is none, this gallery has no keys, or the file
    /// exists or cannot be written.
    pub fn back_up(&self, names: &[String], to: &Path, lock: &Lock) -> Result<usize, StoreError> {
        let people = self.wanted(names)?;
        if to.exists() {
            return Err(io_error(to, "already exists; name a new file"));
        }
        let keys = self.door_keys().ok_or_else(|| {
            io_error(&self.path, "has no keys to sign a backup with; enroll or start the door once")
        })?;
        let encryptor = match lock {
            Lock::Recipients(texts) => to_recipients(texts).map_err(|why| io_error(to, why))?,
            Lock::Passphrase(words) => {
                let mut recipient = age::scrypt::Recipient::new(secret(words));
                recipient.set_work_factor(WORK);
                encryptor([&recipient as &dyn age::Recipient].into_iter())
                    .map_err(|why| io_error(to, why))?
            }
        };
        create_folder(to)?;
        let draft = draft_path(to);
        let _ = std::fs::remove_file(&draft);
        let done = (|| -> Result<(), StoreError> {
            let failed = |reason: io::Error| io_error(to, reason);
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o600);
            let file = options.open(&draft).map_err(failed)?;
            let out = encryptor.wrap_output(BufWriter::new(file)).map_err(failed)?;
            let mut out = Digesting::new(out);
            let numbers = [self.revision()?[0], self.number(NEXT_PERSON)?, self.revision()?[1]];
            let head = || -> io::Result<()> {
                out.put(MAGIC)?;
                numbers.iter().try_for_each(|number| out.put(&number.to_le_bytes()))
            };
            let mut head = head;
            head().map_err(failed)?;
            let io = |reason: io::Error| Fault::Io(reason.to_string());
            feed(
                self.reader(),
                |table, key| {
                    is_of(&people, table, key) || names.is_empty() && is_negatives(table, key)
                },
                &mut |table, key, body| {
                    let at = LISTED.iter().position(|listed| listed.name() == table.name());
                    out.put(&[at.map_or(0, |at| at as u8 + 1)]).map_err(io)?;
                    out.put(&key.to_le_bytes()).map_err(io)?;
                    out.put(&(body.len() as u32).to_le_bytes()).map_err(io)?;
                    out.put(body).map_err(io)
                },
            )
            .map_err(|fault| error(to, fault))?;
            out.put(&[0]).map_err(failed)?;
            sign(&mut out, keys.signer()).map_err(failed)?;
            let file = out.inner.finish().and_then(|file| file.into_inner().map_err(Into::into));
            file.and_then(|file: File| file.sync_all()).map_err(failed)?;
            // Unlike a rename, a link does not replace an existing file.
            std::fs::hard_link(&draft, to)
                .or_else(|reason| match reason.kind() {
                    ErrorKind::AlreadyExists => Err(reason),
                    _ => std::fs::rename(&draft, to),
                })
                .map_err(failed)
        })();
        let _ = std::fs::remove_file(&draft);
        done.map(|()| people.len())
    }
}

fn sign<W: Write>(out: &mut Digesting<W>, signer: &Signer) -> io::Result<()> {
    let signature = signer.sign(PURPOSE, &out.digest.clone().finalize());
    out.inner.write_all(signer.public().bytes())?;
    out.inner.write_all(&signature)
}

fn secret(words: &Zeroizing<String>) -> SecretString {
    SecretString::from(words.as_str().to_owned())
}

fn encryptor<'r>(
    recipients: impl Iterator<Item = &'r dyn age::Recipient>,
) -> Result<age::Encryptor, String> {
    age::Encryptor::with_recipients(recipients).map_err(|error| error.to_string())
}

fn to_recipients(texts: &[String]) -> Result<age::Encryptor, String> {
    let parsed = texts.iter().map(|text| {
        text.trim().parse::<age::x25519::Recipient>().map_err(|_| {
            format!("{text:?} is no recipient; make one with age-keygen, or use a passphrase")
        })
    });
    let parsed: Vec<_> = parsed.collect::<Result<_, _>>()?;
    encryptor(parsed.iter().map(|recipient| recipient as &dyn age::Recipient))
}

/// The identities of a file as age-keygen writes it.
fn identities(path: &Path) -> Result<Vec<age::x25519::Identity>, StoreError> {
    let mut text = Zeroizing::new(String::with_capacity(LARGEST_IDENTITY as usize));
    let file = open_to_read(path).map_err(|fault| error(path, fault))?;
    file.take(LARGEST_IDENTITY)
        .read_to_string(&mut text)
        .map_err(|reason| io_error(path, format!("{reason}; name a file of age-keygen")))?;
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let found: Result<Vec<_>, _> = lines.map(str::parse).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(io_error(path, "no identity; name a file of age-keygen (AGE-SECRET-KEY-1...)")),
    }
}

impl Export {
    /// Opens an encrypted file, and returns the door that signed it. Everything is read into
    /// memory, at most 512 MB, and used only if the signature fits.
    ///
    /// # Errors
    /// If the file is missing, unreachable, not encrypted for this identity or passphrase,
    /// changed, truncated, too large, or signed by another key than the one it names.
    pub fn decrypt(path: &Path, unlock: &Unlock) -> Result<(Self, PublicKey), StoreError> {
        let file = open_to_read(path).map_err(|fault| error(path, fault))?;
        let refused = |why: age::DecryptError| io_error(path, cure(&why));
        let decryptor = age::Decryptor::new_buffered(BufReader::new(file)).map_err(refused)?;
        let reader = match unlock {
            Unlock::Passphrase(words) => {
                let mut identity = age::scrypt::Identity::new(secret(words));
                identity.set_max_work_factor(MOST_WORK);
                decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity))
            }
            Unlock::Identity(file) => {
                let all = identities(file)?;
                decryptor.decrypt(all.iter().map(|identity| identity as &dyn age::Identity))
            }
        };
        let mut content = Digesting::new(reader.map_err(refused)?);
        let failed = |fault| error(path, fault);
        let target = in_empty_memory().map_err(failed)?;
        let door = guarded(|| read(&mut content, &target)).map_err(failed)?;
        let guard = Guard::Plain;
        let mut export = Self { path: path.to_owned(), file: Readable::Memory(target), guard };
        export.checked(&Keys::none())?;
        Ok((export, door))
    }
}

/// The cure of a fault of the age format.
fn cure(why: &age::DecryptError) -> String {
    use age::DecryptError::{
        DecryptionFailed, ExcessiveWork, InvalidHeader, InvalidMac, KeyDecryptionFailed,
        NoMatchingKeys, UnknownFormat,
    };
    match why {
        NoMatchingKeys => "encrypted for others; give the identity of one of its recipients \
                           (--identity FILE), or its passphrase"
            .to_owned(),
        KeyDecryptionFailed | DecryptionFailed => {
            "the passphrase or identity is another one; try again".to_owned()
        }
        ExcessiveWork { required, .. } => format!(
            "its passphrase asks for more work (2^{required}) than is allowed (2^{MOST_WORK}); \
             decrypt it elsewhere"
        ),
        InvalidHeader | InvalidMac => "changed or damaged; use another backup".to_owned(),
        UnknownFormat => "of a newer age format; decrypt it elsewhere".to_owned(),
        other => other.to_string(),
    }
}

/// Reads the content into an empty database. Returns the door that signed it.
fn read(content: &mut Digesting<impl Read>, target: &redb::Database) -> Result<PublicKey, Fault> {
    let io = |reason: io::Error| Fault::Damaged(format!("changed or truncated ({reason})"));
    let damaged = |what: &str| Fault::Damaged(what.to_owned());
    let mut magic = [0; MAGIC.len()];
    content.get(&mut magic).map_err(io)?;
    if magic != *MAGIC {
        return Err(Fault::NoGallery("something else than people, encrypted".to_owned()));
    }
    let identity = content.number().map_err(io)?;
    let next_person = content.number().map_err(io)?;
    let revision = content.number().map_err(io)?;
    let numbers = Numbers { identity, revision, next_person };
    fill(target, None, numbers, |take| records(content, take))?;
    let digest = content.digest.clone().finalize();
    let (mut key, mut signature) = ([0; 32], [0; SIGNATURE]);
    content.inner.read_exact(&mut key).map_err(io)?;
    content.inner.read_exact(&mut signature).map_err(io)?;
    if content.inner.read(&mut [0]).map_err(io)? != 0 {
        return Err(damaged("more after its signature"));
    }
    let door = PublicKey::from_bytes(&key).ok_or_else(|| damaged("its key is none"))?;
    door.verify(PURPOSE, &digest, &signature).map_err(|error| damaged(&error.to_string()))?;
    Ok(door)
}

fn records(content: &mut Digesting<impl Read>, take: &mut Take<'_>) -> Result<(), Fault> {
    let io = |reason: io::Error| Fault::Damaged(format!("changed or truncated ({reason})"));
    let damaged = |what: &str| Fault::Damaged(what.to_owned());
    let most = [MOST_PEOPLE, MOST_PEOPLE * MOST_TEMPLATES, MOST_PEOPLE * MOST_TEMPLATES];
    let mut counts = [0; LISTED.len()];
    let mut body = Zeroizing::new(Vec::with_capacity(LARGEST_RECORD));
    loop {
        let mut table = [0];
        content.get(&mut table).map_err(io)?;
        let at = match usize::from(table[0]) {
            0 => return Ok(()),
            at @ 1..=3 => at - 1,
            _ => return Err(damaged("a table that does not exist")),
        };
        counts[at] += 1;
        if counts[at] > most[at] {
            return Err(damaged("more records than a gallery may have"));
        }
        let key = content.number().map_err(io)?;
        let mut length = [0; 4];
        content.get(&mut length).map_err(io)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > LARGEST_RECORD {
            return Err(damaged("a record is too large"));
        }
        body.resize(length, 0);
        content.get(&mut body).map_err(io)?;
        take(LISTED[at], key, &body)?;
    }
}
