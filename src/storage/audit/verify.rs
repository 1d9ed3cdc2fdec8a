//! EDGE: verifying the log of a door, with the heads that are kept apart from it.

use super::disk::Disk;
use super::error::AuditError;
use super::heads::HeadsFile;
use super::log::{AuditPlace, HEADS, KEY};
use super::segments::{read_segment, segments};
use crate::audit::{Head, Verdict, Verifier};
use crate::crypto::PublicKey;
use std::io::ErrorKind;
use std::time::Duration;

/// A record that is being written is whole after this time.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Longest file of a public key, bytes.
const LARGEST_KEY: u64 = 1000;

/// Verifies the log of a door, while others may append to it. `keys` are those that may
/// have signed; without one only the chain is verified.
///
/// # Errors
/// If the folder cannot be read, or there is no log.
pub fn verify(place: &AuditPlace, keys: &[PublicKey]) -> Result<Verdict, AuditError> {
    let disk = place.disk();
    let memory = place.memory();
    let verdict = verify_on(&disk, memory.as_ref(), keys)?;
    // A record may be half written, or a segment have expired, while it was read.
    if verdict.is_good() && verdict.tail == 0 {
        return Ok(verdict);
    }
    std::thread::sleep(AGAIN_AFTER);
    verify_on(&disk, memory.as_ref(), keys)
}

/// The public key that the log keeps beside its segments. It proves only what it is
/// compared with: who can write the log can replace it.
///
/// # Errors
/// If the file cannot be read or is no key.
pub fn kept_key(place: &AuditPlace) -> Result<Option<PublicKey>, AuditError> {
    key_on(&place.disk())
}

pub(super) fn key_on<D: Disk>(disk: &D) -> Result<Option<PublicKey>, AuditError> {
    let file = || disk.shown(KEY);
    let Some(bytes) = disk.read(KEY, 0, LARGEST_KEY).map_err(AuditError::io(file()))? else {
        return Ok(None);
    };
    // A power cut came while it was written; the next start writes it again.
    if !bytes.ends_with(b"\n") {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&bytes);
    let key = text.trim().parse::<PublicKey>();
    key.map(Some).map_err(|fault| AuditError::Damaged { file: file(), fault: fault.to_string() })
}

/// The heads that are kept in the folder and in the register.
pub(super) fn all_heads<D: Disk + Clone>(
    disk: &D,
    memory: Option<&HeadsFile<D>>,
) -> Result<Vec<Head>, AuditError> {
    let own = HeadsFile { disk: disk.clone(), name: HEADS.to_owned() };
    let mut heads = Vec::new();
    match own.kept().and_then(|kept| Ok((kept, own.newest()?))) {
        Ok((kept, newest)) => heads.extend(kept.into_iter().chain(newest)),
        // The folder is gone; the register knows whether there was a log in it.
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(AuditError::Io { file: disk.shown(HEADS), reason: error }),
    }
    if let Some(memory) = memory {
        match memory.newest() {
            Ok(newest) => heads.extend(newest),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => log::warn!(
                "{}: {error}; without it a log whose end and heads were cut is not recognized",
                memory.disk.shown(&memory.name).display()
            ),
        }
    }
    Ok(heads)
}

pub(super) fn verify_on<D: Disk + Clone>(
    disk: &D,
    memory: Option<&HeadsFile<D>>,
    keys: &[PublicKey],
) -> Result<Verdict, AuditError> {
    // Before the segments: what is appended meanwhile must not look cut.
    let heads = all_heads(disk, memory)?;
    let there = match segments(disk) {
        Err(AuditError::Io { reason, .. }) if reason.kind() == ErrorKind::NotFound => Vec::new(),
        there => there?,
    };
    if there.is_empty() && heads.is_empty() {
        return Err(AuditError::Absent { folder: disk.shown("") });
    }
    let unsigned = heads.is_empty();
    let mut verifier = Verifier::new(keys.to_vec(), heads);
    for first in there {
        match read_segment(disk, first, 0) {
            Ok(Some(bytes)) => verifier.segment(first, &bytes),
            // It has expired meanwhile.
            Ok(None) => {}
            Err(error) => verifier.unreadable(first, error.to_string()),
        }
    }
    let verdict = verifier.finish();
    // A power cut came before the first record.
    if unsigned && verdict.records == 0 && verdict.faults.is_empty() {
        return Err(AuditError::Absent { folder: disk.shown("") });
    }
    Ok(verdict)
}
