//! A power cut at each write of the database while a sealed gallery changes.

use super::check::{Depth, check_records};
use super::files::builder;
use super::rewrite::{Numbers, fill};
use super::sealed::{Keys, Sealing};
use super::tests::{model, template};
use super::*;
use crate::storage::keys::{DoorKeys, KeyPlace};
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

type Done = Result<(), std::io::Error>;

/// A change of a file.
#[derive(Clone, Debug)]
enum Change {
    Length(u64),
    Write(u64, Vec<u8>),
}

/// Memory that remembers its changes in order.
#[derive(Debug)]
struct Recording {
    memory: InMemoryBackend,
    changes: Arc<Mutex<Vec<Change>>>,
}

impl Recording {
    fn note(&self, change: Change) {
        self.changes.lock().expect("no panic").push(change);
    }
}

impl StorageBackend for Recording {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Done {
        self.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Done {
        self.note(Change::Length(len));
        self.memory.set_len(len)
    }

    fn sync_data(&self) -> Done {
        self.memory.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Done {
        self.note(Change::Write(offset, data.to_vec()));
        self.memory.write(offset, data)
    }
}

/// What the file is after these changes.
fn replayed(changes: &[Change]) -> InMemoryBackend {
    let memory = InMemoryBackend::new();
    for change in changes {
        let done = match change {
            Change::Length(len) => memory.set_len(*len),
            Change::Write(offset, data) => memory.write(*offset, data),
        };
        assert!(done.is_ok());
    }
    memory
}

#[test]
fn a_sealed_gallery_has_its_old_or_its_new_records_after_a_cut_at_any_write() {
    let folder = TempDir::new().expect("a folder");
    let register = Register::at(folder.path().to_owned());
    let gallery = folder.path().join("g.redb");
    let keys = DoorKeys::make(&gallery, &KeyPlace::of(&register)).expect("new keys");
    let keys = Arc::new(keys);
    let changes = Arc::<Mutex<Vec<Change>>>::default();
    let recording = Recording { memory: InMemoryBackend::new(), changes: Arc::clone(&changes) };
    let database = builder().create_with_backend(recording).expect("a database");
    let numbers = Numbers { identity: 7, revision: 1, next_person: 1 };
    assert!(fill(&database, Some(&keys), numbers, |_| Ok(())).is_ok());
    let mut sealing = Sealing::new(&keys, 7);
    let before = changes.lock().expect("no panic").len();
    // Three changes, the last of which removes what the first brought.
    let person = |name: &str| PersonRecord {
        name: name.to_owned(),
        enrolled_at: 1,
        traits: Traits::default(),
    };
    let rotation = sealing.rotation(4);
    let record =
        TemplateRecord::rotated(&template(1.0, false).template, &model(), rotation.as_deref());
    let record = record.expect("its model");
    let steps = [
        vec![put(PEOPLE, 1, &person("Ada")), put(TEMPLATES, 1 << 32, &record)],
        vec![put(PEOPLE, 2, &person("Grace")), meta(NEXT_PERSON, 3)],
        vec![
            Edit { table: PEOPLE, key: 1, record: None },
            Edit { table: TEMPLATES, key: 1 << 32, record: None },
        ],
    ];
    // The file was filled with a list for each table in its first revision.
    sealing.set_next_person(1);
    assert!(sealing.close([true; 3], 1).is_ok());
    for (step, edits) in steps.into_iter().enumerate() {
        let edits = sealing.seal_edits(edits, step as u64 + 2).expect("sealed");
        write(&database, &edits).expect("written");
    }
    let all = changes.lock().expect("no panic").clone();
    assert!(all.len() > before + 10, "{} writes", all.len() - before);
    let people_of = [0, 1, 2, 1];
    let mut last = 1;
    let open = Keys { keys: Ok(Arc::clone(&keys)), sealed: true };
    for cut in before..=all.len() {
        let mut builder = builder();
        builder.set_check_integrity_on_open(true);
        let database = builder.create_with_backend(replayed(&all[..cut]));
        let database = database.unwrap_or_else(|error| panic!("write {cut}: {error}"));
        let checked = check_records(&database, &open, Depth::Records);
        let checked = checked.unwrap_or_else(|_| panic!("write {cut}: no gallery"));
        assert!(checked.flaws.is_empty(), "write {cut}: {:?}", checked.flaws);
        let [identity, revision] = checked.snapshot.revision;
        assert!(identity == 7 && revision >= last, "write {cut}: revision {revision}");
        assert_eq!(checked.people, people_of[revision as usize - 1], "write {cut}");
        last = revision;
    }
    assert_eq!(last, 4);
}
