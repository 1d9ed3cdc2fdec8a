//! How the records of an open gallery are protected: not at all, as old galleries and
//! unencrypted exports, or sealed.
//!
//! A sealed record is opened only in its place: table, key, gallery and the revision in
//! which it was written are bound to it. The revisions of all records are in three lists, one
//! per table, which are records themselves; and the revisions of the lists are in the root,
//! together with the revision of the gallery. So a record that was exchanged, put back from
//! an older file, added or removed by hand does not fit its list, a list does not fit the
//! root, and a root does not fit the file's revision, which the register knows.

use super::record::{Content, decode_body};
use super::tables::{
    CROPS, Edit, Fault, IDENTITY, NEXT_PERSON, PEOPLE, REVISION, SEAL, SEALED_WITH, TEMPLATES,
    Table, TemplateRecord, meta, number_in, raw_one,
};
use crate::crypto::Sealer;
use crate::models::ModelId;
use crate::storage::keys::{DoorKeys, KeyError, Purpose};
use crate::vision::embed::Template;
use crate::vision::rotation::Rotation;
use redb::{ReadableDatabase, TableHandle};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Key of the root in the table `seal`. The lists follow, in the order of [`LISTED`].
const ROOT: u64 = 0;

/// Tables whose records are sealed.
pub(super) const LISTED: [Table; 3] = [PEOPLE, TEMPLATES, CROPS];

/// Bytes of the revision before a sealed record.
const REVISION_BYTES: usize = 8;

/// Bytes of the checksum after a record that is not sealed.
const CHECKSUM: usize = 4;

/// The keys with which a gallery is opened, or why there are none.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    pub(super) keys: Result<Arc<DoorKeys>, KeyError>,
    /// Whether the gallery is remembered as sealed, so that an unsealed one is not its own.
    pub(super) sealed: bool,
}

impl Keys {
    /// No keys: for files that are not sealed.
    pub(super) fn none() -> Self {
        Self { keys: Err(KeyError::NoPlace), sealed: false }
    }
}

/// How the records of a file are protected.
#[derive(Clone, Debug)]
pub(super) enum Guard {
    Plain,
    Sealed(Box<Sealing>),
}

/// The revision in which each record of a table was written, by key.
pub(super) type List = BTreeMap<u64, u64>;

/// What a sealed file is opened with.
#[derive(Clone)]
pub(super) struct Sealing {
    pub(super) keys: Arc<DoorKeys>,
    sealer: Sealer,
    identity: u64,
    root: Root,
    pub(super) lists: [List; 3],
}

impl std::fmt::Debug for Sealing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.sealer)
    }
}

/// What proves the lists.
#[derive(Clone, Serialize, Deserialize)]
struct Root {
    /// Revision of the gallery.
    revision: u64,
    /// Number of the next person.
    next_person: u64,
    /// Revisions of the lists.
    lists: [u64; 3],
    /// Number of the rotation of the templates.
    rotation: u32,
}

/// Why a record is not used. It is said after the record's name.
pub(super) type Flaw = String;

fn damaged(what: &str) -> Fault {
    Fault::Damaged(what.to_owned())
}

/// Everything that a sealed record belongs to.
fn place(table: &str, key: u64, identity: u64, revision: u64) -> Vec<u8> {
    let mut place = format!("facelatch gallery {table}\0").into_bytes();
    for part in [key, identity, revision] {
        place.extend(part.to_le_bytes());
    }
    place
}

impl Sealing {
    /// A new gallery with nobody in it, sealed with the current key.
    pub(super) fn new(keys: &Arc<DoorKeys>, identity: u64) -> Self {
        let rotation = keys.rotations().last().copied().unwrap_or(0);
        let root = Root { revision: 0, next_person: 0, lists: [0; 3], rotation };
        let sealer = keys.sealer(Purpose::Gallery);
        Self { keys: Arc::clone(keys), sealer, identity, root, lists: Default::default() }
    }

    /// Opens root and lists of a file that says that it is sealed with this key.
    fn read(database: &dyn ReadableDatabase, id: u64, keys: &Keys) -> Result<Self, Fault> {
        let keys = match &keys.keys {
            Ok(keys) => keys,
            Err(KeyError::None { keyring }) => {
                return Err(Fault::Sealed(KeyError::Lost { keyring: keyring.clone() }));
            }
            Err(error) => return Err(Fault::Sealed(error.clone())),
        };
        let sealer = u32::try_from(id).ok().and_then(|id| keys.sealer_with(Purpose::Gallery, id));
        let sealer = sealer.ok_or_else(|| {
            Fault::OtherKey(format!(
                "another gallery, or one that is newer than its keyring: sealed with the key \
                 {id:08x}, which the keyring does not hold"
            ))
        })?;
        let [identity, revision] = [number_in(database, IDENTITY)?, number_in(database, REVISION)?];
        let open = |key: u64, wanted: u64| -> Result<Zeroizing<Vec<u8>>, Fault> {
            let bytes = raw_one(database, SEAL, key)?.ok_or_else(|| damaged(MISSING_LIST))?;
            let (written, sealed) = revision_of(&bytes).ok_or_else(|| damaged(CHANGED_LIST))?;
            if written != wanted {
                return Err(damaged("its list of records is of another revision"));
            }
            sealer
                .open(&place(SEAL.name(), key, identity, written), sealed)
                .map_err(|_| damaged(CHANGED_LIST))
        };
        let root: Root =
            postcard::from_bytes(&open(ROOT, revision)?).map_err(|_| damaged(CHANGED_LIST))?;
        let mut lists: [List; 3] = Default::default();
        for (at, list) in lists.iter_mut().enumerate() {
            let bytes = open(1 + at as u64, root.lists[at])?;
            *list = decode_list(&bytes).ok_or_else(|| damaged(CHANGED_LIST))?;
        }
        let numbers =
            root.revision == revision && root.next_person == number_in(database, NEXT_PERSON)?;
        if !numbers {
            return Err(damaged("its numbers do not fit its list of records"));
        }
        Ok(Self { keys: Arc::clone(keys), sealer, identity, root, lists })
    }

    /// Whether the records are sealed and the templates rotated with the current keys.
    pub(super) fn is_current(&self) -> bool {
        self.sealer.id() == self.keys.sealer(Purpose::Gallery).id()
            && self.keys.rotations().last() == Some(&self.root.rotation)
    }

    /// The rotation of the templates.
    pub(super) fn rotation(&self, size: usize) -> Option<Arc<Rotation>> {
        self.keys.rotation(self.root.rotation, size)
    }

    /// Format and content of a record, or why it is not used.
    pub(super) fn body(
        &self,
        table: Table,
        key: u64,
        bytes: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Flaw> {
        let name = table.name();
        let (written, sealed) = revision_of(bytes).ok_or("was changed")?;
        match self.list(table).and_then(|list| list.get(&key)) {
            None => return Err("was removed, and was put back by hand".to_owned()),
            Some(wanted) if written < *wanted => {
                return Err(format!("is older (revision {written}, not {wanted})"));
            }
            Some(wanted) if written > *wanted => return Err("was changed".to_owned()),
            Some(_) => {}
        }
        self.sealer
            .open(&place(name, key, self.identity, written), sealed)
            .map_err(|_| "was changed, or belongs to another place".to_owned())
    }

    fn list(&self, table: Table) -> Option<&List> {
        let at = LISTED.iter().position(|listed| listed.name() == table.name())?;
        self.lists.get(at)
    }

    /// Seals format and content of a record of the next revision.
    pub(super) fn seal(
        &mut self,
        table: Table,
        key: u64,
        body: &[u8],
        revision: u64,
    ) -> Result<Vec<u8>, String> {
        let place = place(table.name(), key, self.identity, revision);
        let mut bytes = revision.to_le_bytes().to_vec();
        bytes.extend(self.sealer.seal(&place, body).map_err(|error| error.to_string())?);
        if let Some(at) = LISTED.iter().position(|listed| listed.name() == table.name()) {
            self.lists[at].insert(key, revision);
        }
        Ok(bytes)
    }

    /// Seals edits that make the next revision, and adds those of the lists and the root.
    pub(super) fn seal_edits(
        &mut self,
        edits: Vec<Edit>,
        revision: u64,
    ) -> Result<Vec<Edit>, String> {
        let mut changed = [false; 3];
        let mut sealed = Vec::new();
        for Edit { table, key, record } in edits {
            let Some(at) = LISTED.iter().position(|listed| listed.name() == table.name()) else {
                sealed.push(Edit { table, key, record });
                continue;
            };
            changed[at] = true;
            let record = match record {
                Some(record) => {
                    let record = Zeroizing::new(record);
                    let body = &record[..record.len().saturating_sub(CHECKSUM)];
                    Some(self.seal(table, key, body, revision)?)
                }
                None => {
                    self.lists[at].remove(&key);
                    None
                }
            };
            sealed.push(Edit { table, key, record });
        }
        if let Some(next) = sealed.iter().rev().find_map(next_person) {
            self.root.next_person = next;
        }
        sealed.extend(self.close(changed, revision)?);
        Ok(sealed)
    }

    /// The edits of changed lists, of the root and of the file's own numbers.
    pub(super) fn close(&mut self, changed: [bool; 3], revision: u64) -> Result<Vec<Edit>, String> {
        let mut edits = Vec::new();
        for (at, changed) in changed.into_iter().enumerate() {
            if changed {
                self.root.lists[at] = revision;
                let body = encode_list(&self.lists[at]);
                let key = 1 + at as u64;
                let record = Some(self.seal(SEAL, key, &body, revision)?);
                edits.push(Edit { table: SEAL, key, record });
            }
        }
        self.root.revision = revision;
        let body = postcard::to_stdvec(&self.root).map_err(|error| error.to_string())?;
        let record = Some(self.seal(SEAL, ROOT, &body, revision)?);
        edits.push(Edit { table: SEAL, key: ROOT, record });
        edits.push(meta(REVISION, revision));
        edits.push(meta(SEALED_WITH, u64::from(self.sealer.id())));
        Ok(edits)
    }

    /// Sets the number of the next person, for [`Self::close`].
    pub(super) fn set_next_person(&mut self, next: u64) {
        self.root.next_person = next;
    }
}

const MISSING_LIST: &str = "its list of records is missing";
const CHANGED_LIST: &str = "its list of records was changed";

/// The number of the next person, if this edit sets it.
fn next_person(edit: &Edit) -> Option<u64> {
    let is = edit.table.name() == super::tables::META.name() && edit.key == NEXT_PERSON;
    let record = edit.record.as_ref().filter(|_| is)?;
    decode_body(&record[..record.len().checked_sub(CHECKSUM)?]).ok()
}

fn revision_of(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (revision, sealed) = bytes.split_first_chunk::<REVISION_BYTES>()?;
    Some((u64::from_le_bytes(*revision), sealed))
}

/// Keys as differences, so that most take one byte or a few.
fn encode_list(list: &List) -> Vec<u8> {
    let mut before = 0;
    let mut pairs = Vec::with_capacity(list.len());
    for (key, revision) in list {
        pairs.push((key.wrapping_sub(before), *revision));
        before = *key;
    }
    // Fails only for sequences of unknown length.
    postcard::to_stdvec(&pairs).unwrap_or_default()
}

fn decode_list(bytes: &[u8]) -> Option<List> {
    let pairs: Vec<(u64, u64)> = postcard::from_bytes(bytes).ok()?;
    let mut key = 0u64;
    let mut list = List::new();
    for (step, revision) in pairs {
        key = key.wrapping_add(step);
        list.insert(key, revision);
    }
    Some(list)
}

impl Guard {
    /// How the records of this file are protected.
    ///
    /// # Errors
    /// If it is sealed and cannot be opened, or is not and should be.
    pub(super) fn of(database: &dyn ReadableDatabase, keys: &Keys) -> Result<Self, Fault> {
        let id = number_in(database, SEALED_WITH)?;
        if id != 0 {
            return Ok(Self::Sealed(Box::new(Sealing::read(database, id, keys)?)));
        }
        match (&keys.keys, keys.sealed) {
            (_, false) => Ok(Self::Plain),
            (Err(KeyError::None { keyring }), true) => {
                Err(Fault::Sealed(KeyError::Lost { keyring: keyring.clone() }))
            }
            (_, true) => Err(damaged(
                "its records are not sealed, although this gallery was sealed: somebody put it \
                 there",
            )),
        }
    }

    /// What a sealed file is opened with.
    pub(super) fn sealing(&self) -> Option<&Sealing> {
        match self {
            Self::Plain => None,
            Self::Sealed(sealing) => Some(sealing),
        }
    }

    /// The rotation of the templates in this file.
    pub(super) fn rotation(&self, size: usize) -> Option<Arc<Rotation>> {
        self.sealing().and_then(|sealing| sealing.rotation(size))
    }

    /// The record of a template, rotated as those of this file are. `None` if another model
    /// made it.
    pub(super) fn template_record(
        &self,
        template: &Template,
        model: &ModelId,
    ) -> Option<TemplateRecord> {
        let size = template.of(model).ok()?.values().len();
        TemplateRecord::rotated(template, model, self.rotation(size).as_deref())
    }

    /// A template as comparing needs it: rotated as those of this file are.
    pub(super) fn template(&self, record: &TemplateRecord) -> Option<Template> {
        record.template(self.rotation(record.length()).as_deref())
    }

    /// A record with its template as its model made it.
    pub(super) fn plain_template(&self, record: TemplateRecord) -> Option<TemplateRecord> {
        let rotation = self.rotation(record.length());
        record.back(rotation.as_deref())
    }

    /// Reads a record.
    pub(super) fn read<T: Content>(
        &self,
        table: Table,
        key: u64,
        bytes: &[u8],
    ) -> Result<T, Fault> {
        match self {
            Self::Sealed(sealing) => {
                let name = table.name();
                let body = sealing
                    .body(table, key, bytes)
                    .map_err(|flaw| Fault::Damaged(format!("record {key} of {name} {flaw}")))?;
                decode_body(&body).map_err(|error| super::tables::record_fault(table, key, &error))
            }
            Self::Plain => super::tables::read_record(table, key, bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_list_comes_back(list in prop::collection::btree_map(any::<u64>(), any::<u64>(), 0..50)) {
            prop_assert_eq!(decode_list(&encode_list(&list)), Some(list));
        }

        #[test]
        fn no_bytes_are_too_much_for_a_list(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode_list(&bytes);
        }
    }
}
