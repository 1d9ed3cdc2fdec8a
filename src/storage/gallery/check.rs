//! EDGE: checking every record of a gallery file.

use super::choose::Snapshot;
use super::record::Content;
use super::sealed::{Guard, Keys, LISTED, Sealing};
use super::tables::{
    CROPS, Fault, LAST_REVISION, META, PEOPLE, PersonRecord, PictureRecord, SEAL, TEMPLATES, Table,
    TemplateRecord, each, read_record, state,
};
use redb::{ReadableDatabase, TableHandle};
use sha2::{Digest, Sha256};

/// Result of [`check_records`].
#[derive(Clone, Debug)]
pub(super) struct Checked {
    pub(super) snapshot: Snapshot,
    /// Number of people.
    pub(super) people: usize,
    /// How the records are protected.
    pub(super) guard: Guard,
    /// Records of a sealed gallery that are not used, and why.
    pub(super) flaws: Vec<String>,
}

/// Whether records are opened, or only counted in the digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth<'d> {
    /// Every record is opened.
    Records,
    /// Records are opened unless the digest is this one, whose records were opened.
    Unless(&'d [u8; 32]),
    /// The caller has opened every record before.
    Digest,
}

/// Reads and checks every record. A record of a sealed gallery that does not fit is a flaw,
/// and anything else wrong with a file is an error.
pub(super) fn check_records(
    database: &dyn ReadableDatabase,
    keys: &Keys,
    depth: Depth<'_>,
) -> Result<Checked, Fault> {
    let (digest, people) = digest_of(database)?;
    let revision = state(database)?;
    match revision[1] {
        0 => {
            return Err(Fault::NoGallery(
                "a database of another program, not a gallery".to_owned(),
            ));
        }
        1..=LAST_REVISION => {}
        _ => return Err(Fault::Damaged("its revision is impossible".to_owned())),
    }
    let guard = Guard::of(database, keys)?;
    let opened = match depth {
        Depth::Records => false,
        Depth::Unless(known) => digest == *known,
        Depth::Digest => true,
    };
    let mut flaws = Vec::new();
    if !opened {
        match &guard {
            Guard::Plain => check_plain(database)?,
            Guard::Sealed(sealing) => flaws = flaws_of(database, sealing)?,
        }
    }
    Ok(Checked { snapshot: Snapshot { revision, digest }, people, guard, flaws })
}

/// Digest of the bytes of all records, and the number of people. Checks the table `meta`,
/// which is never sealed.
fn digest_of(database: &dyn ReadableDatabase) -> Result<([u8; 32], usize), Fault> {
    let mut digest = Sha256::new();
    let mut people = 0;
    for table in [PEOPLE, TEMPLATES, CROPS, META, SEAL] {
        each(database, table, |key, bytes| {
            digest.update(table.name());
            digest.update(key.to_le_bytes());
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
            if table.name() == META.name() {
                read_record::<u64>(META, key, bytes)?;
            }
            if table.name() == PEOPLE.name() {
                people += 1;
                // Larger numbers would alias those of other people.
                if key == 0 || key > u64::from(u32::MAX) {
                    return Err(Fault::Damaged(format!(
                        "record {key} of people has no valid number"
                    )));
                }
            }
            Ok(())
        })?;
    }
    Ok((digest.finalize().into(), people))
}

fn check_plain(database: &dyn ReadableDatabase) -> Result<(), Fault> {
    fn check<T: Content>(database: &dyn ReadableDatabase, table: Table) -> Result<(), Fault> {
        each(database, table, |key, bytes| read_record::<T>(table, key, bytes).map(drop))
    }
    check::<PersonRecord>(database, PEOPLE)?;
    check::<TemplateRecord>(database, TEMPLATES)?;
    check::<PictureRecord>(database, CROPS)
}

/// Records that were changed, exchanged, put back, added or removed by hand.
fn flaws_of(database: &dyn ReadableDatabase, sealing: &Sealing) -> Result<Vec<String>, Fault> {
    let mut flaws = Vec::new();
    for (table, list) in LISTED.into_iter().zip(&sealing.lists) {
        let name = table.name();
        let mut left = list.keys().copied().peekable();
        let mut missing = |flaws: &mut Vec<String>, until: Option<u64>| {
            while let Some(key) = left.next_if(|key| until.is_none_or(|until| *key < until)) {
                flaws.push(format!("record {key} of {name} is missing"));
            }
            left.next_if(|key| Some(*key) == until);
        };
        each(database, table, |key, bytes| {
            missing(&mut flaws, Some(key));
            match sealing.body(table, key, bytes) {
                Err(flaw) => flaws.push(format!("record {key} of {name} {flaw}")),
                Ok(body) => match table_check(table, key, &body) {
                    Err(Fault::Damaged(flaw)) => flaws.push(flaw),
                    other => other?,
                },
            }
            Ok(())
        })?;
        missing(&mut flaws, None);
    }
    Ok(flaws)
}

/// Decodes a body as a record of its table.
fn table_check(table: Table, key: u64, body: &[u8]) -> Result<(), Fault> {
    use super::record::decode_body;
    use super::tables::record_fault;
    let done = match table.name() {
        "people" => decode_body::<PersonRecord>(body).map(drop),
        "templates" => decode_body::<TemplateRecord>(body).map(drop),
        _ => decode_body::<PictureRecord>(body).map(drop),
    };
    done.map_err(|error| record_fault(table, key, &error))
}

/// The first flaws in words.
pub(super) fn some(flaws: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = flaws.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
    match flaws.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}
