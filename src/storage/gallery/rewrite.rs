//! EDGE: all records into a new file: to seal an old gallery, with new keys, or what is whole
//! of two damaged files. The new file takes the place of the old one by a rename, so a power
//! cut leaves the one or the other, and no old record stays behind in free pages.

use super::check::Checked;
use super::record::{Content, Place, body_of, decode_body, encode, with_checksum};
use super::sealed::{Guard, LISTED, Sealing};
use super::tables::{
    CROPS, Edit, Fault, IDENTITY, NEXT_PERSON, PEOPLE, REVISION, Reader, TABLES, TEMPLATES, Table,
    TemplateRecord, each, meta, person_of, raw_one,
};
use crate::storage::keys::DoorKeys;
use redb::{Database, ReadableDatabase, TableHandle};
use std::collections::BTreeSet;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The numbers of a new file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    pub(super) identity: u64,
    pub(super) revision: u64,
    pub(super) next_person: u64,
}

/// Takes format and content of one record. The tables come one after the other, in the order
/// of [`LISTED`].
pub(super) type Take<'t> = dyn FnMut(Table, u64, &[u8]) -> Result<(), Fault> + 't;

/// Writes a new, empty file in one transaction: sealed if there are keys. `feed` passes on
/// each record with its template as its model made it.
pub(super) fn fill(
    to: &Database,
    keys: Option<&Arc<DoorKeys>>,
    numbers: Numbers,
    feed: impl FnOnce(&mut Take<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let failed = |error: redb::Error| Fault::Io(error.to_string());
    let Numbers { identity, revision, next_person } = numbers;
    let mut sealing = keys.map(|keys| Sealing::new(keys, identity));
    let transaction = to.begin_write().map_err(|error| failed(error.into()))?;
    {
        let mut open = Vec::new();
        for table in LISTED {
            let table = transaction.open_table(table).map_err(|error| failed(error.into()))?;
            open.push(table);
        }
        feed(&mut |table, key, body| {
            let bytes = match &mut sealing {
                None => with_checksum(Place { table: table.name(), key }, body),
                Some(sealing) => {
                    let body = rotated(table, key, body, sealing)?;
                    sealing.seal(table, key, &body, revision).map_err(Fault::Io)?
                }
            };
            let at = LISTED.iter().position(|listed| listed.name() == table.name());
            if let Some(open) = at.and_then(|at| open.get_mut(at)) {
                open.insert(key, bytes.as_slice()).map_err(|error| failed(error.into()))?;
            }
            Ok(())
        })?;
    }
    let mut edits =
        vec![meta(IDENTITY, identity), meta(NEXT_PERSON, next_person), meta(REVISION, revision)];
    if let Some(sealing) = &mut sealing {
        sealing.set_next_person(next_person);
        edits.extend(sealing.close([true; 3], revision).map_err(Fault::Io)?);
    }
    for (_, table) in TABLES {
        let mut open = transaction.open_table(table).map_err(|error| failed(error.into()))?;
        for Edit { key, record, .. } in edits.iter().filter(|e| e.table.name() == table.name()) {
            if let Some(record) = record {
                open.insert(key, record.as_slice()).map_err(|error| failed(error.into()))?;
            }
        }
    }
    transaction.commit().map_err(|error| failed(error.into()))
}

/// A record as it is sealed: a template is rotated.
fn rotated(
    table: Table,
    key: u64,
    body: &[u8],
    sealing: &Sealing,
) -> Result<Zeroizing<Vec<u8>>, Fault> {
    if table.name() != TEMPLATES.name() {
        return Ok(Zeroizing::new(body.to_vec()));
    }
    let record = template_of(key, body)?;
    let rotation = sealing.rotation(record.length());
    Ok(template_body(key, &record.rotated_by(rotation.as_deref())))
}

fn template_of(key: u64, body: &[u8]) -> Result<TemplateRecord, Fault> {
    decode_body(body).map_err(|error| super::tables::record_fault(TEMPLATES, key, &error))
}

fn template_body(key: u64, record: &TemplateRecord) -> Zeroizing<Vec<u8>> {
    let bytes = Zeroizing::new(encode(Place { table: TEMPLATES.name(), key }, record));
    Zeroizing::new(bytes[..bytes.len().saturating_sub(4)].to_vec())
}

/// Passes on the records of a file that are wanted, each with its template as its model made
/// it.
pub(super) fn feed(
    from: Reader<'_>,
    wanted: impl Fn(Table, u64) -> bool,
    take: &mut Take<'_>,
) -> Result<(), Fault> {
    for table in LISTED {
        each(from.database, table, |key, bytes| {
            if !wanted(table, key) {
                return Ok(());
            }
            let body = body(from.guard, table, key, bytes).map_err(|flaw| {
                Fault::Damaged(format!("record {key} of {} {flaw}", table.name()))
            })?;
            pass(from.guard, table, key, &body, take)
        })?;
    }
    Ok(())
}

/// Passes on one record, a template as its model made it.
fn pass(
    guard: &Guard,
    table: Table,
    key: u64,
    body: &[u8],
    take: &mut Take<'_>,
) -> Result<(), Fault> {
    if table.name() != TEMPLATES.name() {
        return take(table, key, body);
    }
    match guard.plain_template(template_of(key, body)?) {
        Some(record) => take(table, key, &template_body(key, &record)),
        // Its rotation is gone, so nothing can be compared with it. Its picture stays.
        None => {
            log::error!("record {key} of templates: its rotation is unknown; left out");
            Ok(())
        }
    }
}

fn body(guard: &Guard, table: Table, key: u64, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
    match guard.sealing() {
        Some(sealing) => sealing.body(table, key, bytes),
        None => body_of(Place { table: table.name(), key }, bytes)
            .map(|body| Zeroizing::new(body.to_vec()))
            .map_err(|error| error.to_string()),
    }
}

/// A file of a sealed gallery and what checking it found.
#[derive(Clone, Copy)]
pub(super) struct Part<'p> {
    pub(super) database: &'p dyn ReadableDatabase,
    pub(super) checked: &'p Checked,
}

/// Passes on every record that one of two files of the same gallery has whole. The lists of
/// `base` decide which records there are. Returns what is lost, in words.
pub(super) fn salvage(
    base: Part<'_>,
    other: Option<Part<'_>>,
    take: &mut Take<'_>,
) -> Result<Vec<String>, Fault> {
    let guard = &base.checked.guard;
    let Some(sealing) = guard.sealing() else {
        return Err(Fault::Damaged("its records are not sealed".to_owned()));
    };
    // Records are proven by the lists of `base`, wherever they are read.
    let databases: Vec<&dyn ReadableDatabase> =
        [Some(base), other].into_iter().flatten().map(|part| part.database).collect();
    let mut lost = Vec::new();
    let mut gone: BTreeSet<u32> = BTreeSet::new();
    for (table, list) in LISTED.into_iter().zip(&sealing.lists) {
        let name = table.name();
        for key in list.keys().copied() {
            let person = if name == PEOPLE.name() { key as u32 } else { person_of(key).0 };
            if gone.contains(&person) {
                continue;
            }
            let mut reason = "is missing".to_owned();
            let mut found = None;
            for database in &databases {
                // A page that cannot be read is damage of this record only.
                let Ok(Some(bytes)) = raw_one(*database, table, key) else { continue };
                match sealing.body(table, key, &bytes).and_then(|body| known(table, body)) {
                    Ok(body) => {
                        found = Some(body);
                        break;
                    }
                    Err(flaw) => reason = flaw,
                }
            }
            if let Some(body) = found {
                pass(guard, table, key, &body, take)?;
                continue;
            }
            if name == PEOPLE.name() {
                gone.insert(person);
                lost.push(format!(
                    "person number {person} with all templates (the record {reason})"
                ));
            } else {
                let what = if name == CROPS.name() { "picture" } else { "template" };
                lost.push(format!("a {what} of person number {person} (it {reason})"));
            }
        }
    }
    Ok(lost)
}

/// A body that this program can decode, or why it is not used.
fn known(table: Table, body: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, String> {
    fn decodes<T: Content>(body: &[u8]) -> Result<(), String> {
        decode_body::<T>(body).map(drop).map_err(|error| error.to_string())
    }
    match table.name() {
        "people" => decodes::<super::tables::PersonRecord>(&body)?,
        "templates" => decodes::<TemplateRecord>(&body)?,
        _ => decodes::<super::tables::PictureRecord>(&body)?,
    }
    Ok(body)
}
