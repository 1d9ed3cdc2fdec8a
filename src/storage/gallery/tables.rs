//! EDGE: the content of a gallery file: tables, records and transactions.

use crate::access::gallery::{PersonId, Traits};
use crate::models::ModelId;
use crate::storage::gallery::record::{Content, Place, RecordError, decode, encode};
use crate::storage::gallery::sealed::Guard;
use crate::storage::keys::KeyError;
use crate::vision::embed::{Embedding, Template};
use crate::vision::face_picture::FacePicture;
use crate::vision::frame::Landmarks;
use crate::vision::picture::{self, ImageError};
use crate::vision::rotation::Rotation;
use redb::{
    Database, DatabaseError, ReadableDatabase, StorageError, TableDefinition, TableError,
    TableHandle,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::RangeInclusive;

/// Key: number of the person. Content: [`PersonRecord`].
pub(super) const PEOPLE: Table = TableDefinition::new("people");

/// Key: number of the person, or [`NEGATIVES`], in the upper 32 bits, running number in the
/// lower 32. Content: [`TemplateRecord`].
pub(super) const TEMPLATES: Table = TableDefinition::new("templates");

/// Key: that of the template. Content: [`PictureRecord`].
pub(super) const CROPS: Table = TableDefinition::new("crops");

/// What proves the records of a sealed gallery; see `sealed.rs`.
pub(super) const SEAL: Table = TableDefinition::new("seal");

/// Key: [`NEXT_PERSON`], [`REVISION`], [`IDENTITY`] or [`SEALED_WITH`]. Content: a number,
/// never sealed.
pub(super) const META: Table = TableDefinition::new("meta");

/// In the place of a person: views of people who got in by mistake. No person has this
/// number.
pub(super) const NEGATIVES: PersonId = PersonId(0);

pub(super) const NEXT_PERSON: u64 = 1;

pub(super) const REVISION: u64 = 2;

/// Random number that identifies the gallery. Revisions of different galleries cannot be
/// compared.
pub(super) const IDENTITY: u64 = 3;

/// Number of the key with which the records are sealed. 0 or absent if they are not.
pub(super) const SEALED_WITH: u64 = 4;

/// Largest revision; larger ones are no work of this program.
pub(super) const LAST_REVISION: u64 = 1 << 48;

/// Most values of a template.
const LONGEST_TEMPLATE: usize = 4096;

/// Longest identity of a model, characters.
const LONGEST_MODEL: usize = 200;

pub(super) type Table = TableDefinition<'static, u64, &'static [u8]>;

pub(super) const TABLES: [(&str, Table); 5] = [
    ("people", PEOPLE),
    ("templates", TEMPLATES),
    ("crops", CROPS),
    ("meta", META),
    ("seal", SEAL),
];

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct PersonRecord {
    pub(super) name: String,
    pub(super) enrolled_at: u64,
    pub(super) traits: Traits,
}

/// Format 1, without traits.
#[derive(Deserialize)]
struct PersonRecord1 {
    name: String,
    enrolled_at: u64,
}

/// Format 2, without [`Traits::probation`].
#[derive(Deserialize)]
struct PersonRecord2 {
    name: String,
    enrolled_at: u64,
    administrator: bool,
    group: String,
    stricter: f32,
}

/// Format 3, without dates and without a site.
#[derive(Deserialize)]
struct PersonRecord3 {
    name: String,
    enrolled_at: u64,
    administrator: bool,
    group: String,
    stricter: f32,
    probation: bool,
}

impl Content for PersonRecord {
    const FORMAT: u8 = 4;

    fn older(format: u8, content: &[u8]) -> Option<Self> {
        match format {
            1 => {
                let PersonRecord1 { name, enrolled_at } = postcard::from_bytes(content).ok()?;
                Some(Self { name, enrolled_at, traits: Traits::default() })
            }
            2 => {
                let PersonRecord2 { name, enrolled_at, administrator, group, stricter } =
                    postcard::from_bytes(content).ok()?;
                let traits = Traits { administrator, group, stricter, ..Traits::default() };
                Some(Self { name, enrolled_at, traits })
            }
            3 => {
                let old: PersonRecord3 = postcard::from_bytes(content).ok()?;
                let PersonRecord3 { name, enrolled_at, administrator, group, .. } = old;
                let (stricter, probation) = (old.stricter, old.probation);
                let traits =
                    Traits { administrator, group, stricter, probation, ..Traits::default() };
                Some(Self { name, enrolled_at, traits })
            }
            _ => None,
        }
    }
}

/// A template on disk. Its values are only accessible together with its model.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct TemplateRecord {
    model: String,
    values: Vec<f32>,
    /// Number of the rotation of the values; 0 without one.
    rotation: u32,
}

/// Format 1, without a rotation.
#[derive(Deserialize)]
struct TemplateRecord1 {
    model: String,
    values: Vec<f32>,
}

impl Content for TemplateRecord {
    const FORMAT: u8 = 2;

    fn older(format: u8, content: &[u8]) -> Option<Self> {
        let read = (format == 1).then(|| postcard::from_bytes(content).ok())?;
        let TemplateRecord1 { model, values } = read?;
        Some(Self { model, values, rotation: 0 })
    }
}

impl TemplateRecord {
    /// What is wrong with its values. `length` is the length of other templates of the
    /// same model, if there are any.
    pub(super) fn fault(&self, length: Option<usize>) -> Option<String> {
        let count = self.values.len();
        let norm = self.values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        if length.is_some_and(|length| length != count) || !(1..=LONGEST_TEMPLATE).contains(&count)
        {
            Some(format!("a template has {count} values"))
        } else if !norm.is_finite() {
            Some("a template has values that are no numbers".to_owned())
        } else if norm <= 0.0 {
            Some("a template is zero".to_owned())
        } else {
            let odd = self.model.is_empty()
                || self.model.chars().count() > LONGEST_MODEL
                || self.model.chars().any(char::is_control);
            odd.then(|| "a template names no valid model".to_owned())
        }
    }

    /// Identity of the model.
    pub(super) fn model(&self) -> &str {
        &self.model
    }

    /// The values, rotated unless this is a record as its model made it.
    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }

    /// Number of values.
    pub(super) fn length(&self) -> usize {
        self.values.len()
    }

    /// Whether `model` made it.
    pub(super) fn is_of(&self, model: &ModelId) -> bool {
        self.model == model.as_str()
    }

    /// The template, rotated by this rotation, which the gallery has. `None` if another one
    /// rotated it.
    pub(super) fn template(&self, rotation: Option<&Rotation>) -> Option<Template> {
        let model = ModelId::new(&self.model);
        let embedding = Embedding::normalized(&self.values);
        match rotation {
            _ if self.rotation == 0 => Some(Template::new(model, embedding)),
            Some(rotation) if rotation.number() == self.rotation => {
                Some(Template::new(rotation.model(&model), embedding))
            }
            _ => None,
        }
    }

    /// The record as its model made the template. `None` if another rotation rotated it.
    pub(super) fn back(self, rotation: Option<&Rotation>) -> Option<Self> {
        match rotation {
            _ if self.rotation == 0 => Some(self),
            Some(rotation) if rotation.number() == self.rotation => {
                let values = rotation.back(&self.values);
                Some(Self { values, rotation: 0, ..self })
            }
            _ => None,
        }
    }

    /// The record of a template that its model made, rotated.
    pub(super) fn rotated_by(self, rotation: Option<&Rotation>) -> Self {
        match rotation {
            Some(rotation) if self.rotation == 0 => {
                let values = rotation.rotate(&self.values);
                Self { values, rotation: rotation.number(), ..self }
            }
            _ => self,
        }
    }

    /// The record of a template, rotated. `None` if another model made the template.
    pub(super) fn rotated(
        template: &Template,
        model: &ModelId,
        rotation: Option<&Rotation>,
    ) -> Option<Self> {
        let values = template.of(model).ok()?.values().to_vec();
        let record = Self { model: model.as_str().to_owned(), values, rotation: 0 };
        Some(record.rotated_by(rotation))
    }
}

/// The picture of a face on disk.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct PictureRecord {
    png: Vec<u8>,
    /// In pixels of the picture. `None` for an aligned face of 112x112 pixels, which is what
    /// format 1 kept.
    landmarks: Option<Landmarks>,
}

impl Content for PictureRecord {
    const FORMAT: u8 = 2;

    fn older(format: u8, content: &[u8]) -> Option<Self> {
        let png = (format == 1).then(|| postcard::from_bytes(content).ok())??;
        Some(Self { png, landmarks: None })
    }
}

impl PictureRecord {
    /// Encodes a picture.
    pub(super) fn new(picture: &FacePicture) -> Result<Self, ImageError> {
        let png = picture::encode_png(picture.frame())?;
        Ok(Self { png, landmarks: Some(*picture.landmarks()) })
    }

    /// Decodes the picture. `None` if it is unusable; see [`FacePicture::decode`].
    pub(super) fn picture(&self) -> Option<FacePicture> {
        FacePicture::decode(&self.png, self.landmarks).ok()
    }

    /// What is wrong with the picture. Decodes it only if its header is right.
    pub(super) fn fault(&self) -> Option<String> {
        FacePicture::decode(&self.png, self.landmarks).err()
    }
}

/// One record to write (`Some`) or to remove.
pub(super) struct Edit {
    pub(super) table: Table,
    pub(super) key: u64,
    pub(super) record: Option<Vec<u8>>,
}

/// Why a file cannot be opened, read or written.
pub(super) enum Fault {
    Absent,
    /// It may exist but cannot be reached: the fault and the cure.
    Unreachable(String),
    /// It is no regular file.
    Foreign(String),
    /// Its content is something else than a gallery.
    NoGallery(String),
    Busy,
    Damaged(String),
    /// The disk gives an error for some of it.
    Unreadable(String),
    Newer(String),
    /// It is sealed, and its keys cannot be used.
    Sealed(KeyError),
    /// It is sealed with a key that the keyring does not hold.
    OtherKey(String),
    Io(String),
}

impl Fault {
    /// Why the content cannot be used, if that is the fault: then the copy may help.
    pub(super) fn unusable(&self) -> Option<&str> {
        match self {
            Self::Damaged(reason)
            | Self::Unreadable(reason)
            | Self::NoGallery(reason)
            | Self::OtherKey(reason) => Some(reason),
            _ => None,
        }
    }
}

pub(super) fn person_of(template: u64) -> PersonId {
    PersonId((template >> 32) as u32)
}

pub(super) fn put<T: Content>(table: Table, key: u64, content: &T) -> Edit {
    let record = encode(Place { table: table.name(), key }, content);
    Edit { table, key, record: Some(record) }
}

pub(super) fn meta(key: u64, value: u64) -> Edit {
    put(META, key, &value)
}

/// Reads a record that is not sealed.
pub(super) fn read_record<T: Content>(table: Table, key: u64, bytes: &[u8]) -> Result<T, Fault> {
    decode(Place { table: table.name(), key }, bytes)
        .map_err(|error| record_fault(table, key, &error))
}

pub(super) fn record_fault(table: Table, key: u64, error: &RecordError) -> Fault {
    let text = format!("record {key} of {} {error}", table.name());
    match error {
        RecordError::Damaged => Fault::Damaged(text),
        RecordError::Newer(_) => Fault::Newer(text),
    }
}

/// A file with its records open.
#[derive(Clone, Copy)]
pub(super) struct Reader<'d> {
    pub(super) database: &'d dyn ReadableDatabase,
    pub(super) guard: &'d Guard,
}

impl Reader<'_> {
    /// Visits the records of a table in the order of their keys.
    pub(super) fn each<T: Content>(
        &self,
        table: Table,
        visit: impl FnMut(u64, T) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.each_in(table, 0..=u64::MAX, visit)
    }

    /// Like [`Self::each`], for keys in a range.
    pub(super) fn each_in<T: Content>(
        &self,
        table: Table,
        keys: RangeInclusive<u64>,
        mut visit: impl FnMut(u64, T) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        each_in(self.database, table, keys, |key, bytes| {
            visit(key, self.guard.read(table, key, bytes)?)
        })
    }

    /// The content of all records of a table, by key.
    pub(super) fn all<T: Content>(&self, table: Table) -> Result<BTreeMap<u64, T>, Fault> {
        let mut found = BTreeMap::new();
        self.each(table, |key, content| {
            found.insert(key, content);
            Ok(())
        })?;
        Ok(found)
    }

    pub(super) fn one<T: Content>(&self, table: Table, key: u64) -> Result<Option<T>, Fault> {
        let bytes = raw_one(self.database, table, key)?;
        bytes.map(|bytes| self.guard.read(table, key, &bytes)).transpose()
    }
}

/// Visits the records of a table in the order of their keys. A missing table is empty.
pub(super) fn each(
    database: &dyn ReadableDatabase,
    table: Table,
    visit: impl FnMut(u64, &[u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    each_in(database, table, 0..=u64::MAX, visit)
}

/// Like [`each`], for keys in a range.
pub(super) fn each_in(
    database: &dyn ReadableDatabase,
    table: Table,
    keys: RangeInclusive<u64>,
    mut visit: impl FnMut(u64, &[u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let transaction = database.begin_read().map_err(|error| Fault::Io(error.to_string()))?;
    let open = match transaction.open_table(table) {
        Ok(open) => open,
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(Fault::Damaged(error.to_string())),
    };
    let rows = open.range(keys).map_err(storage_fault)?;
    for row in rows {
        let (key, value) = row.map_err(storage_fault)?;
        visit(key.value(), value.value())?;
    }
    Ok(())
}

/// The bytes of one record.
pub(super) fn raw_one(
    database: &dyn ReadableDatabase,
    table: Table,
    key: u64,
) -> Result<Option<Vec<u8>>, Fault> {
    let transaction = database.begin_read().map_err(|error| Fault::Io(error.to_string()))?;
    let open = match transaction.open_table(table) {
        Ok(open) => open,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(Fault::Damaged(error.to_string())),
    };
    let value = open.get(key).map_err(storage_fault)?;
    Ok(value.map(|value| value.value().to_vec()))
}

/// A number of the table `meta`; 0 if it is absent.
pub(super) fn number_in(database: &dyn ReadableDatabase, key: u64) -> Result<u64, Fault> {
    let bytes = raw_one(database, META, key)?;
    Ok(bytes.map(|bytes| read_record(META, key, &bytes)).transpose()?.unwrap_or(0))
}

/// Identity and revision of the gallery.
pub(super) fn state(database: &dyn ReadableDatabase) -> Result<[u64; 2], Fault> {
    Ok([number_in(database, IDENTITY)?, number_in(database, REVISION)?])
}

/// Copies the bytes of all records to another, empty file in one transaction.
pub(super) fn copy_bytes(from: &dyn ReadableDatabase, to: &Database) -> Result<(), Fault> {
    let failed = |error: redb::Error| Fault::Io(error.to_string());
    let transaction = to.begin_write().map_err(|error| failed(error.into()))?;
    for (_, table) in TABLES {
        let mut open = transaction.open_table(table).map_err(|error| failed(error.into()))?;
        each(from, table, |key, bytes| {
            open.insert(key, bytes).map_err(|error| failed(error.into()))?;
            Ok(())
        })?;
    }
    transaction.commit().map_err(|error| failed(error.into()))
}

/// Applies all edits or none, in one transaction.
pub(super) fn write(database: &Database, edits: &[Edit]) -> Result<(), String> {
    let work = || -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        for (_, table) in TABLES {
            let mut open = transaction.open_table(table)?;
            for edit in edits.iter().filter(|edit| edit.table.name() == table.name()) {
                match &edit.record {
                    Some(record) => drop(open.insert(edit.key, record.as_slice())?),
                    None => drop(open.remove(edit.key)?),
                }
            }
        }
        transaction.commit()?;
        Ok(())
    };
    work().map_err(|error| error.to_string())
}

pub(super) fn fault_of(error: DatabaseError) -> Fault {
    match error {
        DatabaseError::DatabaseAlreadyOpen => Fault::Busy,
        DatabaseError::Storage(error) => storage_fault(error),
        DatabaseError::LockProtocolMismatch => Fault::Newer(error.to_string()),
        // Only for a read-only file, which cannot be repaired.
        DatabaseError::RepairAborted => Fault::Damaged("its last write is incomplete".to_owned()),
        // This includes a required upgrade: no older file format was ever written, so only
        // a flipped bit can require one.
        error => Fault::Damaged(error.to_string()),
    }
}

pub(super) fn storage_fault(error: StorageError) -> Fault {
    match &error {
        // An unreadable sector counts as damage.
        // An unreadable sector; the copy may be readable.
        StorageError::Io(io) if io.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
            Fault::Unreadable(error.to_string())
        }
        StorageError::Io(io)
            if !matches!(io.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData) =>
        {
            Fault::Io(error.to_string())
        }
        _ => Fault::Damaged(error.to_string()),
    }
}
