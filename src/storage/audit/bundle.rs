//! EDGE: a log as one file, which can be verified without the door: a tar archive with the
//! public key, the heads, the segments, and a list of all that with its signature.
//!
//! ```text
//! manifest.json   format, log, first and last record, digests of the other files
//! manifest.sig    signature of manifest.json, 64 bytes
//! key.pub         the door's public key, as OpenSSH writes it
//! heads           heads that are kept apart from the segments, 158 bytes each
//! segments/N.log  the segments as they are on the door
//! ```

use super::error::AuditError;
use super::log::{AuditPlace, KEY};
use super::segments::{frames, read_segment, segment_name, segments};
use super::verify::all_heads;
use crate::audit::{HEAD_BYTES, Head, LARGEST_SEGMENT, SegmentHeader, Stamp, Verdict, Verifier};
use crate::crypto::{PublicKey, SIGNATURE, Signer};
use crate::files;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What the signature of a bundle is for.
const PURPOSE: &str = "audit bundle";
/// Version of the format.
const FORMAT: u32 = 1;
/// Names of the files in the archive, and of the folder of the segments.
const MANIFEST: &str = "manifest.json";
const SIGNED: &str = "manifest.sig";
const HEADS: &str = "heads";
const SEGMENTS: &str = "segments/";
/// Most segments, and bytes of manifest and heads, that are read.
const MOST_SEGMENTS: usize = 100_000;
const LARGEST_PART: u64 = 16 << 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    /// Log id, hexadecimal.
    log: String,
    /// Number of the first record.
    first: u64,
    /// Number of the last record.
    last: u64,
    /// Whether the log goes on after it.
    cut: bool,
    /// When it was exported, Unix microseconds.
    exported: i64,
    /// SHA-256 of each file, hexadecimal.
    files: BTreeMap<String, String>,
}

/// What was exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Number of the first record.
    pub first: u64,
    /// Number of the last record.
    pub last: u64,
    /// Segments.
    pub segments: usize,
}

/// A bundle that was verified.
#[derive(Clone, Debug)]
pub struct VerifiedBundle {
    /// What was found about the log.
    pub verdict: Verdict,
    /// The key in the bundle.
    pub key: Option<PublicKey>,
    /// What is wrong with the bundle itself; `None` if its signature holds.
    pub fault: Option<String>,
    /// When it was exported, Unix microseconds.
    pub exported: i64,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes the log of a door into a new file. Of the segments those are taken that have
/// records with a wall clock from `from` to `to`, Unix microseconds.
///
/// # Errors
/// If there is no log or no record in that time, or a file cannot be read or written.
pub fn export(
    place: &AuditPlace,
    signer: &Signer,
    file: &Path,
    (from, to): (i64, i64),
    now: &Stamp,
) -> Result<Exported, AuditError> {
    let disk = place.disk();
    // Before the segments: what is appended meanwhile must not look cut.
    let mut heads = all_heads(&disk, place.memory().as_ref())?;
    let there = segments(&disk)?;
    let mut wanted = Vec::new();
    for first in &there {
        let Some(bytes) = read_segment(&disk, *first, 0)? else { continue };
        let stamps = frames(&bytes).filter_map(|(_, frame)| frame.record().ok());
        let mut walls = stamps.map(|record| record.stamp.wall);
        if walls.any(|wall| (from..=to).contains(&wall)) {
            wanted.push(*first);
        }
    }
    // One stretch: a clock that jumped must not leave a hole in it.
    let ends = wanted.first().copied().zip(wanted.last().copied());
    let Some((begin, end)) = ends else {
        return Err(AuditError::Damaged {
            file: place.folder(),
            fault: "no record of this time; facelatch log show lists what there is".to_owned(),
        });
    };
    let wanted: Vec<u64> = there.iter().copied().filter(|s| (begin..=end).contains(s)).collect();
    let cut = there.last() != Some(&end);
    let failed = |error: io::Error| AuditError::Io { file: file.to_owned(), reason: error };
    let out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let mut archive = tar::Builder::new(out.map_err(failed)?);
    let mut manifest = Manifest {
        format: FORMAT,
        log: String::new(),
        first: begin,
        last: 0,
        cut,
        exported: now.wall,
        files: BTreeMap::new(),
    };
    let mut add = |archive: &mut tar::Builder<File>, name: &str, bytes: &[u8]| {
        manifest.files.insert(name.to_owned(), hex(&Sha256::digest(bytes)));
        put(archive, name, bytes).map_err(failed)
    };
    let mut log = String::new();
    let mut last = 0;
    for first in &wanted {
        let Some(bytes) = read_segment(&disk, *first, 0)? else { continue };
        // What is being written is left out.
        let whole = frames(&bytes).last().map_or(0, |(at, frame)| at + frame.bytes);
        let bytes = bytes.get(..whole).unwrap_or_default();
        last = frames(bytes).map(|(_, frame)| frame.number).max().unwrap_or(0).max(last);
        if let Ok(header) = SegmentHeader::parse(bytes) {
            log = hex(&header.log);
        }
        add(&mut archive, &format!("{SEGMENTS}{}", segment_name(*first)), bytes)?;
    }
    heads.retain(|head| head.number <= last);
    heads.sort_by_key(|head| head.number);
    let heads: Vec<u8> = heads.iter().flat_map(Head::encode).collect();
    add(&mut archive, HEADS, &heads)?;
    add(&mut archive, KEY, format!("{}\n", signer.public()).as_bytes())?;
    (manifest.log, manifest.last) = (log, last);
    let text = serde_json::to_vec_pretty(&manifest).map_err(|error| failed(error.into()))?;
    put(&mut archive, MANIFEST, &text).map_err(failed)?;
    put(&mut archive, SIGNED, &signer.sign(PURPOSE, &text)).map_err(failed)?;
    let out = archive.into_inner().map_err(failed)?;
    out.sync_all().map_err(failed)?;
    Ok(Exported { first: begin, last, segments: wanted.len() })
}

fn put(archive: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, bytes)
}

/// Verifies a file written by [`export`]. Without `keys` that of the bundle counts, which
/// proves only that the bundle was not changed by somebody without that key.
///
/// # Errors
/// If the file cannot be read, or is no bundle.
pub fn verify_bundle(file: &Path, keys: &[PublicKey]) -> Result<VerifiedBundle, AuditError> {
    let wrong =
        |fault: &str| AuditError::Damaged { file: file.to_owned(), fault: fault.to_owned() };
    let small = ["manifest.json", SIGNED, KEY, HEADS];
    // The archive is read twice: the key is after the segments, which do not all fit in memory.
    let mut parts: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut names: Vec<u64> = Vec::new();
    each(file, |name, entry| {
        if let Some(first) = segment_of(name) {
            if names.len() >= MOST_SEGMENTS {
                return Err(io::Error::other("it has too many segments"));
            }
            names.push(first);
        } else if small.contains(&name) {
            parts.insert(name.to_owned(), limited(entry, LARGEST_PART)?);
        }
        Ok(())
    })?;
    let text = parts.get(MANIFEST).ok_or_else(|| {
        wrong("no bundle of an audit log: it has no manifest; facelatch log export writes one")
    })?;
    let manifest: Manifest =
        serde_json::from_slice(text).map_err(|_| wrong("its manifest is damaged"))?;
    if manifest.format != FORMAT {
        return Err(wrong("it has a newer format; verify it with a newer facelatch"));
    }
    let key = parts.get(KEY).map(|text| String::from_utf8_lossy(text).trim().parse::<PublicKey>());
    let key = key.and_then(Result::ok);
    let mut trusted = keys.to_vec();
    if trusted.is_empty() {
        trusted.extend(key);
    }
    if trusted.is_empty() {
        return Err(wrong("it has no public key; give the door's with --key"));
    }
    let mut fault = None;
    let signature = parts.get(SIGNED).and_then(|bytes| bytes.first_chunk::<SIGNATURE>());
    let holds = |signature| {
        trusted.iter().any(|key: &PublicKey| key.verify(PURPOSE, text, signature).is_ok())
    };
    if !signature.is_some_and(holds) {
        fault =
            Some("its signature does not fit: it was changed, or another key signed it".to_owned());
    }
    let mut fits = |name: &str, bytes: &[u8]| {
        if manifest.files.get(name) != Some(&hex(&Sha256::digest(bytes))) && fault.is_none() {
            fault = Some(format!("its file {name} is not what its manifest says"));
        }
    };
    let heads = parts.get(HEADS).map(Vec::as_slice).unwrap_or_default();
    fits(HEADS, heads);
    if let Some(key) = parts.get(KEY) {
        fits(KEY, key);
    }
    let heads = heads.chunks(HEAD_BYTES).filter_map(Head::decode);
    let mut verifier = Verifier::new(trusted, heads).extract_from(manifest.first);
    if !names.is_sorted() {
        return Err(wrong("its segments are out of order"));
    }
    each(file, |name, entry| {
        if let Some(first) = segment_of(name) {
            let bytes = limited(entry, LARGEST_SEGMENT)?;
            fits(name, &bytes);
            verifier.segment(first, &bytes);
        }
        Ok(())
    })?;
    let missing = manifest.files.keys().find(|name| match segment_of(name) {
        Some(first) => names.binary_search(&first).is_err(),
        None => !parts.contains_key(*name),
    });
    if let Some(missing) = missing
        && fault.is_none()
    {
        fault = Some(format!("its file {missing} is missing"));
    }
    let verdict = verifier.finish();
    if verdict.last != manifest.last && fault.is_none() {
        fault = Some(format!("it ends with record {}, not {}", verdict.last, manifest.last));
    }
    Ok(VerifiedBundle { verdict, key, fault, exported: manifest.exported })
}

/// First record of a segment in the archive.
fn segment_of(name: &str) -> Option<u64> {
    super::segments::first_of(name.strip_prefix(SEGMENTS)?)
}

fn limited(entry: &mut dyn Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(ErrorKind::FileTooLarge, "one of its files is too large"));
    }
    Ok(bytes)
}

/// Reads all files of an archive.
fn each(
    file: &Path,
    mut work: impl FnMut(&str, &mut dyn Read) -> io::Result<()>,
) -> Result<(), AuditError> {
    let done = (|| {
        let mut archive = tar::Archive::new(files::open(file)?);
        for entry in archive.entries()?.take(2 * MOST_SEGMENTS) {
            let mut entry = entry?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            work(&name, &mut entry)?;
        }
        Ok(())
    })();
    done.map_err(AuditError::io(file.to_owned()))
}
