//! Galleries whose records somebody crafted: their checksums are right.

use crate::targets::used;
use redb::{Database, TableDefinition};
use std::path::Path;
use tempfile::TempDir;

type Table = TableDefinition<'static, u64, &'static [u8]>;
const TABLES: [&str; 4] = ["people", "templates", "crops", "meta"];
const PEOPLE: Table = TableDefinition::new("people");
const TEMPLATES: Table = TableDefinition::new("templates");
const CROPS: Table = TableDefinition::new("crops");
const META: Table = TableDefinition::new("meta");

/// An input is a row of records: table, key (two bytes), length (two bytes), body. So a
/// change of one leaves the others in their place.
fn record(table: u8, key: u16, body: &[u8]) -> Vec<u8> {
    let length = body.len() as u16;
    let head = [&[table][..], &key.to_le_bytes(), &length.to_le_bytes()].concat();
    [&head[..], body].concat()
}

fn body(format: u8, content: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = vec![format];
    bytes.extend(postcard::to_stdvec(content).expect("bytes"));
    bytes
}

pub fn seeds() -> Vec<Vec<u8>> {
    let model = "2026.11-int8+1f2e3d4c";
    let meta = [(1u16, 3u64), (2, 7), (3, 99)]
        .map(|(key, number)| record(3, key, &body(1, &number)))
        .concat();
    let values = [0.5f32, -0.25, 0.125, 1.0];
    let people = |format: u8, person: Vec<u8>| {
        let mut all = meta.clone();
        all.extend(record(0, 1, &[&[format], &person[..]].concat()));
        all.extend(record(1, 1, &body(1, &(model, &values[..]))));
        all.extend(record(2, 1, &body(1, &vec![0xffu8, 0xd8, 0xff, 0xd9])));
        all
    };
    let bytes = |content: &dyn Fn() -> postcard::Result<Vec<u8>>| content().expect("bytes");
    vec![
        people(1, bytes(&|| postcard::to_stdvec(&("Ada", 5u64)))),
        people(2, bytes(&|| postcard::to_stdvec(&("Ada", 5u64, true, "staff", 0.1f32)))),
        people(3, bytes(&|| postcard::to_stdvec(&("Ada", 5u64, true, "staff", 0.1f32, false)))),
        meta,
    ]
}

/// Writes a gallery with the records of an input.
pub fn write(path: &Path, mut input: &[u8]) {
    let database = Database::create(path).expect("a database");
    let transaction = database.begin_write().expect("a transaction");
    for table in [PEOPLE, TEMPLATES, CROPS, META] {
        transaction.open_table(table).expect("a table");
    }
    while let [table, low, high, short, long, rest @ ..] = input {
        let at = usize::from(table % 4);
        let number = u64::from(u16::from_le_bytes([*low, *high]));
        // Templates and crops are numbered within a person.
        let key = if at == 1 || at == 2 { number << 32 } else { number };
        let length = usize::from(u16::from_le_bytes([*short, *long])).min(rest.len());
        let (body, next) = rest.split_at(length);
        input = next;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(TABLES[at].as_bytes());
        hasher.update(&key.to_le_bytes());
        hasher.update(body);
        let record = [body, &hasher.finalize().to_le_bytes()].concat();
        let table = [PEOPLE, TEMPLATES, CROPS, META][at];
        let mut table = transaction.open_table(table).expect("a table");
        table.insert(key, &record[..]).expect("inserted");
    }
    transaction.commit().expect("written");
}

/// Uses a gallery file in a folder of its own.
pub fn opened(make: impl FnOnce(&Path)) -> String {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
    let folder = folder.expect("a folder");
    let path = folder.path().join("gallery.redb");
    make(&path);
    used(&path, folder.path())
}
