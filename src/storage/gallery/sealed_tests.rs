//! Sealed galleries that somebody changed, old ones that become sealed, and keys that are
//! missing, others or renewed.

use super::fault_tests::Site;
use super::sealed::LISTED;
use super::tables::{META, SEAL};
use super::tests::{model, names, signed, template};
use super::*;
use crate::storage::keys::{DoorKeys, KeyPlace, keyring_copy_path, keyring_path};
use redb::ReadableDatabase;
use std::collections::BTreeMap;

const OLD: &[u8] = include_bytes!("../../../tests/data/gallery-with-crops-of-112.redb");

type Rows = BTreeMap<(usize, u64), Vec<u8>>;

/// The tables by number: the three that are sealed, what proves them, and the numbers.
fn tables() -> [Table; 5] {
    let [people, templates, crops] = LISTED;
    [people, templates, crops, SEAL, META]
}

fn rows(path: &Path) -> Rows {
    let database = Database::open(path).expect("a database");
    let mut rows = Rows::new();
    for (at, table) in tables().into_iter().enumerate() {
        let read = each(&database, table, |key, bytes| {
            rows.insert((at, key), bytes.to_vec());
            Ok(())
        });
        assert!(read.is_ok());
    }
    rows
}

/// Table and key of a record, and what is written there; `None` removes it.
type Forged = ((usize, u64), Option<Vec<u8>>);

/// Writes rows behind the back of the program, with everything that the database itself
/// checks put right.
fn forge(path: &Path, rows: &[Forged]) {
    let database = Database::open(path).expect("a database");
    let edits: Vec<Edit> = rows
        .iter()
        .map(|((at, key), record)| Edit { table: tables()[*at], key: *key, record: record.clone() })
        .collect();
    write(&database, &edits).expect("written");
}

impl Site {
    fn both(&self) -> [PathBuf; 2] {
        [self.path(), copy_path(&self.path())]
    }

    fn keyring(&self) -> [PathBuf; 2] {
        [keyring_path(&self.path()), keyring_copy_path(&self.path())]
    }

    pub(super) fn place(&self) -> KeyPlace {
        KeyPlace::of(&self.register)
    }

    /// Everybody with the similarity to a probe, by name.
    fn known(&self) -> Vec<(String, i32)> {
        let store = self.open(Purpose::Read).expect("the gallery");
        let loaded = store.load(&model(), 4).expect("loaded").gallery;
        let probe = signed(&model(), 0.5);
        names(&store)
            .into_iter()
            .map(|name| {
                let alike = loaded.best_of(&name, &probe).map_or(0.0, |alike| alike * 1e5);
                (name, alike.round() as i32)
            })
            .collect()
    }
}

#[test]
fn nothing_of_a_sealed_gallery_can_be_read_in_its_files() {
    let site = Site::new();
    let store = site.open(Purpose::Read).expect("the gallery");
    assert!(store.is_sealed());
    let ada = store.find("Ada").expect("Ada").id;
    assert_eq!(store.pictures(ada).expect("pictures").len(), 1);
    for file in site.both() {
        let bytes = std::fs::read(&file).expect("a file");
        // No shorter ones: three bytes are among sealed ones by chance.
        for secret in [&b"Grace"[..], b"\x89PNG\r\n\x1a\n", b"2026.11+abcd"] {
            assert!(!bytes.windows(secret.len()).any(|part| part == secret));
        }
    }
    // The values of the templates themselves are rotated, too.
    let read = store.reader().each(TEMPLATES, |_, record: TemplateRecord| {
        assert!(record.template(None).is_none(), "it names its rotation");
        Ok(())
    });
    assert!(read.is_ok());
}

/// Each way to change the records of a file by hand, and what is said of it.
fn changes(old: &Rows, new: &Rows) -> Vec<(&'static str, Vec<Forged>)> {
    let (people, templates) = ((0, 1), (1, 1 << 32));
    let other = (1, 2 << 32);
    // Two records of one revision.
    let (joan, joan_too) = ((1, 4 << 32), (1, (4 << 32) + 1));
    let mut flipped = new[&people].clone();
    *flipped.last_mut().expect("bytes") ^= 1;
    vec![
        ("record 1 of people was changed", vec![(people, Some(flipped))]),
        ("record 1 of people is older", vec![(people, Some(old[&people].clone()))]),
        ("record 1 of people is missing", vec![(people, None)]),
        ("put back by hand", vec![((0, 3), Some(old[&(0, 3)].clone()))]),
        (
            "record 4294967296 of templates was changed",
            vec![(templates, Some(new[&other].clone())), (other, Some(new[&templates].clone()))],
        ),
        (
            "of templates was changed, or belongs to another place",
            vec![(joan, Some(new[&joan_too].clone())), (joan_too, Some(new[&joan].clone()))],
        ),
        ("its list of records", vec![((3, 1), Some(old[&(3, 1)].clone()))]),
        ("its list of records", vec![((3, 0), Some(old[&(3, 0)].clone()))]),
        ("its list of records", vec![((3, 0), None)]),
        ("its list of records", vec![((4, REVISION), Some(old[&(4, REVISION)].clone()))]),
        ("do not fit", vec![((4, NEXT_PERSON), Some(old[&(4, NEXT_PERSON)].clone()))]),
    ]
}

/// A gallery of which an older state is known: then Hedy was removed, Ada was made an
/// administrator, and Joan came.
fn changed_site() -> (Site, Rows, Rows) {
    let site = Site::new();
    let mut store = site.open(Purpose::Change).expect("open");
    store.enroll("Hedy", &[template(3.0, false)]).expect("enrolled");
    drop(store);
    let old = rows(&site.path());
    let mut store = site.open(Purpose::Change).expect("open");
    store.set_administrator("Ada", true).expect("changed");
    store.remove("Hedy").expect("removed");
    store.enroll("Joan", &[template(0.7, false), template(0.8, false)]).expect("enrolled");
    drop(store);
    let new = rows(&site.path());
    (site, old, new)
}

#[test]
fn a_record_changed_by_hand_is_named_and_the_copy_serves() {
    let (site, old, new) = changed_site();
    let whole = site.bytes();
    let everybody = site.known();
    for (expected, change) in changes(&old, &new) {
        site.write(&whole);
        forge(&site.path(), &change);
        let store = site.open(Purpose::Serve).expect("the copy");
        let said = store.repaired().expect("a repair").to_owned();
        assert!(said.contains(expected), "{expected}: {said}");
        drop(store);
        assert_eq!(site.known(), everybody, "{expected}");
        // The copy alone: the file is whole, and the copy is made again.
        site.write(&whole);
        forge(&copy_path(&site.path()), &change);
        assert!(site.open(Purpose::Serve).expect("the file").repaired().is_none());
        assert_eq!(rows(&site.both()[0]), rows(&site.both()[1]), "{expected}");
    }
}

#[test]
fn records_changed_in_both_files_are_lost_and_the_rest_serves() {
    let (site, old, new) = changed_site();
    let (whole, state) = (site.bytes(), files(&site));
    for (expected, change) in changes(&old, &new).into_iter().take(6) {
        put_files(&state);
        site.write(&whole);
        for file in site.both() {
            forge(&file, &change);
        }
        let revision = site.register.known(&site.path()).expect("an entry").expect("known");
        let store = site.open(Purpose::Serve).expect("the rest");
        let said = store.repaired().expect("a repair").to_owned();
        assert!(said.contains(expected) && said.contains("kept as"), "{expected}: {said}");
        assert!(store.revision().expect("a revision")[1] > revision.revision[1]);
        let found = names(&store);
        // Nobody comes back, nobody gets what is somebody else's, and whoever is whole stays.
        assert!(!found.contains(&"Hedy".to_owned()), "{found:?}");
        assert!(found.contains(&"Joan".to_owned()), "{found:?}");
        if expected.contains("of people") {
            assert!(said.contains("lost: person number 1"), "{said}");
            assert!(!found.contains(&"Ada".to_owned()), "{found:?}");
        } else {
            assert_eq!(found, ["Ada", "Grace", "Joan"]);
        }
        let loaded = store.load(&model(), 4).expect("loaded").gallery;
        let best = loaded.best(&signed(&model(), 1.0)).expect("somebody").name;
        assert!(best != "Grace" && best != "Hedy", "{best}");
        drop(store);
        assert!(site.open(Purpose::Serve).expect("whole").repaired().is_none());
    }
    // Without a list nothing proves what the newest records are.
    for (expected, change) in changes(&old, &new).into_iter().skip(6).take(3) {
        put_files(&state);
        site.write(&whole);
        for file in site.both() {
            forge(&file, &change);
        }
        let error = site.open(Purpose::Serve).expect_err("nothing serves");
        assert_eq!(error.kind(), "damaged");
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
}

/// Different records damaged in the two files: together they are whole.
#[test]
fn two_damaged_files_make_a_whole_one() {
    let (site, _, new) = changed_site();
    let everybody = site.known();
    for (file, key) in site.both().into_iter().zip([1, 2]) {
        let mut bytes = new[&(0, key)].clone();
        bytes[12] ^= 4;
        forge(&file, &[((0, key), Some(bytes))]);
    }
    let store = site.open(Purpose::Read).expect("whole");
    assert!(store.repaired().expect("a repair").contains("nothing is lost"));
    drop(store);
    assert_eq!(site.known(), everybody);
}

#[test]
fn an_unsealed_gallery_does_not_take_the_place_of_a_sealed_one() {
    let site = Site::new();
    let crafted = site.at("crafted.redb");
    let mut store = Store::open(&crafted).expect("a new gallery");
    store.enroll("Mallory", &[template(0.5, false)]).expect("enrolled");
    drop(store);
    let whole = site.bytes();
    let plain = std::fs::read(&crafted).expect("a file");
    std::fs::write(site.path(), &plain).expect("written");
    let store = site.open(Purpose::Serve).expect("the copy");
    assert_eq!(names(&store), ["Ada", "Grace"]);
    assert!(store.repaired().expect("a repair").contains("not sealed"));
    drop(store);
    site.write(&[plain.clone(), plain.clone()]);
    for purpose in [Purpose::Read, Purpose::Serve, Purpose::Change] {
        let error = site.open(purpose).expect_err("unsealed").to_string();
        assert!(error.contains("not sealed"), "{error}");
    }
    // Without the keyring it is no old gallery either: the register knows.
    for file in site.keyring() {
        std::fs::remove_file(file).expect("removed");
    }
    assert_eq!(site.kind(Purpose::Serve), "sealed");
    site.write(&whole);
    assert_eq!(site.kind(Purpose::Serve), "sealed");
}

#[test]
fn without_its_key_a_gallery_is_neither_opened_nor_replaced() {
    let site = Site::new();
    let key = site.place().file().to_owned();
    let right = std::fs::read(&key).expect("a key");
    let other = Site::new();
    let wrong = std::fs::read(other.place().file()).expect("a key");
    let before = (site.bytes(), site.keyring().map(|file| std::fs::read(file).expect("a file")));
    for (content, expected) in
        [(None, "missing"), (Some(wrong), "another key"), (Some(b"x".to_vec()), "no key")]
    {
        match &content {
            None => std::fs::remove_file(&key).expect("removed"),
            Some(content) => std::fs::write(&key, content).expect("written"),
        }
        for purpose in [Purpose::Read, Purpose::Serve, Purpose::Change, Purpose::Begin] {
            let error = site.open(purpose).expect_err("sealed");
            assert_eq!(error.kind(), "sealed", "{purpose:?}");
            assert!(error.to_string().contains(expected), "{expected}: {error}");
        }
        assert!(peek(&site.path(), Some(&site.register), &model(), 4, |_| None).is_err());
        assert_eq!(content.is_some(), key.exists(), "no key is made");
        let after = (site.bytes(), site.keyring().map(|file| std::fs::read(file).expect("a file")));
        assert!(after == before, "nothing is written");
    }
    std::fs::write(&key, right).expect("back");
    assert_eq!(site.kind(Purpose::Serve), "good");
}

/// A site with the gallery of an earlier version in clear.
fn old_site() -> Site {
    let site = Site::empty();
    std::fs::write(site.path(), OLD).expect("written");
    site
}

#[test]
fn an_old_gallery_is_sealed_at_the_first_start_and_its_copy_goes_with_the_next() {
    let site = old_site();
    let store = site.open(Purpose::Read).expect("the gallery");
    let (people, [identity, revision]) = (names(&store), store.revision().expect("a revision"));
    assert!(!people.is_empty() && !store.is_sealed(), "who only reads changes nothing");
    let pictures = |store: &Store| -> usize {
        let people = store.people().expect("people");
        people.iter().map(|person| store.pictures(person.id).expect("pictures").len()).sum()
    };
    let before = pictures(&store);
    drop(store);
    let kept = unsealed_path(&site.path());
    let store = site.open(Purpose::Serve).expect("sealed");
    assert!(store.is_sealed() && kept.exists());
    assert_eq!(store.revision().expect("a revision"), [identity, revision + 1]);
    assert_eq!((names(&store), pictures(&store)), (people.clone(), before));
    drop(store);
    for file in site.both() {
        let bytes = std::fs::read(file).expect("a file");
        assert!(!bytes.windows(4).any(|part| part == b"\x89PNG"), "no old page stays");
    }
    drop(site.open(Purpose::Change).expect("open"));
    assert!(kept.exists(), "only a start is a start");
    drop(site.open(Purpose::Serve).expect("open"));
    assert!(!kept.exists());
    // The file that was kept can be restored on order.
    std::fs::write(&kept, OLD).expect("written");
    let export = Export::open(&kept, Some((&site.path(), &site.register))).expect("plain");
    Store::restore(&site.path(), export, Some(&site.register)).expect("restored");
    let store = site.open(Purpose::Read).expect("open");
    assert!(store.is_sealed());
    assert_eq!(names(&store), people);
}

#[test]
fn old_files_are_imported_and_templates_get_the_rotation_of_this_door() {
    let site = Site::new();
    let other = Site::new();
    let export = site.at("export.redb");
    let store = other.open(Purpose::Read).expect("open");
    store.export(&["Ada".to_owned()], &export).expect("exported");
    drop(store);
    let mut store = site.open(Purpose::Change).expect("open");
    store.remove("Ada").expect("removed");
    let export = Export::open(&export, None).expect("an export");
    assert_eq!(store.import(&export, false).expect("imported").added, 1);
    let loaded = store.load(&model(), 4).expect("loaded").gallery;
    let found = loaded.best(&signed(&model(), 1.0)).expect("Ada");
    assert!(found.name == "Ada" && found.similarity > 0.9999, "{found:?}");
}

fn key_ids(site: &Site) -> (u32, Vec<u32>, crate::crypto::PublicKey) {
    let keys = DoorKeys::open(&site.path(), &site.place()).expect("the keys");
    let sealer = keys.sealer(crate::storage::keys::Purpose::Gallery);
    (sealer.id(), keys.rotations(), keys.signer().public())
}

#[test]
fn new_keys_change_every_record_and_nobody_enrolls_again() {
    let site = Site::new();
    let everybody = site.known();
    for templates in [false, true] {
        let (before, old) = (rows(&site.path()), key_ids(&site));
        Store::rotate(&site.path(), &site.register, templates).expect("rotated");
        let (after, new) = (rows(&site.path()), key_ids(&site));
        assert_eq!(site.known(), everybody);
        assert_eq!(new.2, old.2, "the identity stays");
        assert_eq!(new.0 != old.0, !templates);
        assert_eq!(new.1 != old.1 && new.1.len() == 1, templates);
        for (place, record) in before.iter().filter(|((table, _), _)| *table < 4) {
            assert_ne!(after.get(place), Some(record), "{place:?}");
        }
        assert_eq!(rows(&site.path()), rows(&copy_path(&site.path())), "the copy follows");
    }
    let mut store = site.open(Purpose::Change).expect("open");
    store.enroll("Hedy", &[template(2.0, false)]).expect("enrolled");
    drop(store);
    assert!(site.known().iter().any(|(name, _)| name == "Hedy"));
}

/// All files of a site.
type Files = BTreeMap<PathBuf, Option<Vec<u8>>>;

fn files(site: &Site) -> Files {
    let kept = unsealed_path(&site.path());
    // What the register remembers is written last.
    let entries = std::fs::read_dir(site.register.folder()).into_iter().flatten().flatten();
    let entries = entries.map(|entry| entry.path());
    let entries = entries.filter(|path| path.extension().is_some_and(|end| end == "toml"));
    let all = site.both().into_iter().chain(site.keyring()).chain([kept]).chain(entries);
    all.map(|path| (path.clone(), std::fs::read(path).ok())).collect()
}

fn put_files(files: &Files) {
    for (path, content) in files {
        match content {
            Some(content) => std::fs::write(path, content).expect("written"),
            None => drop(std::fs::remove_file(path)),
        }
    }
}

/// Sealing and new keys write one file after the other, each to a draft that is renamed. So a
/// power cut leaves some of the files new and the others old, in that order, and perhaps part
/// of a draft.
#[test]
fn a_power_cut_while_keys_change_leaves_the_old_or_the_new_state() {
    for change in ["seal", "rotate"] {
        let site = if change == "seal" { old_site() } else { Site::new() };
        let everybody = names(&site.open(Purpose::Read).expect("open"));
        let known = (change != "seal").then(|| site.known());
        let old = files(&site);
        let mut keys = match change {
            "seal" => DoorKeys::make(&site.path(), &site.place()).expect("new keys"),
            _ => DoorKeys::open(&site.path(), &site.place()).expect("the keys"),
        };
        if change == "rotate" {
            keys.rotate().expect("a new key");
        }
        let begun = files(&site);
        drop(site.open(Purpose::Change).expect("sealed"));
        let new = files(&site);
        let [main, copy] = &site.both();
        let [ring, ring_copy] = &site.keyring();
        let kept = &unsealed_path(main);
        let order: [(&Files, &PathBuf); 7] = [
            (&begun, ring),
            (&begun, ring_copy),
            (&new, kept),
            (&new, main),
            (&new, copy),
            (&new, ring),
            (&new, ring_copy),
        ];
        for cut in 0..=order.len() {
            for path in new.keys().filter(|path| !old.contains_key(*path)) {
                let _ = std::fs::remove_file(path);
            }
            put_files(&old);
            for (from, path) in &order[..cut] {
                put_files(&Files::from([((*path).clone(), from[*path].clone())]));
            }
            let draft = PathBuf::from(format!("{}.draft-1", main.display()));
            std::fs::write(&draft, &OLD[..cut * 100]).expect("written");
            let store = site.open(Purpose::Change);
            let store = store.unwrap_or_else(|error| panic!("{change} {cut}: {error}"));
            assert!(store.is_sealed(), "{change} {cut}");
            assert_eq!(names(&store), everybody, "{change} {cut}");
            assert!(store.guard.sealing().is_some_and(sealed::Sealing::is_current));
            drop(store);
            assert!(!draft.exists(), "{change} {cut}");
            if let Some(known) = &known {
                assert_eq!(&site.known(), known, "{change} {cut}");
            }
        }
    }
}

/// The keyring of a renewal holds both template keys until both files are new.
#[test]
fn a_power_cut_while_templates_are_renewed_loses_no_template() {
    let site = Site::new();
    let known = site.known();
    let old = files(&site);
    let mut keys = DoorKeys::open(&site.path(), &site.place()).expect("the keys");
    keys.begin_renewal().expect("begun");
    let begun = files(&site);
    drop(site.open(Purpose::Change).expect("renewed"));
    let new = files(&site);
    let ([main, copy], [ring, ring_copy]) = (site.both(), site.keyring());
    let states: [(&Files, &[&PathBuf]); 6] = [
        (&begun, &[&ring]),
        (&begun, &[&ring, &ring_copy]),
        (&begun, &[]),
        (&new, &[&main]),
        (&new, &[&main, &copy]),
        (&new, &[&main, &copy, &ring]),
    ];
    for (n, (from, paths)) in states.into_iter().enumerate() {
        put_files(if n < 2 { &old } else { &begun });
        for path in paths {
            put_files(&Files::from([((*path).clone(), from[*path].clone())]));
        }
        drop(site.open(Purpose::Serve).unwrap_or_else(|error| panic!("{n}: {error}")));
        assert_eq!(site.known(), known, "{n}");
        assert_eq!(key_ids(&site).1.len(), 1, "{n}: the former key is forgotten");
    }
}

#[test]
fn a_gallery_that_was_erased_is_gone() {
    let site = Site::new();
    DoorKeys::erase(&site.path(), &site.register).expect("erased");
    assert_eq!(site.kind(Purpose::Read), "sealed");
    assert!(Store::renew(&site.path(), Some(&site.register)).is_err(), "there is one");
    for file in site.both() {
        std::fs::remove_file(file).expect("removed");
    }
    Store::renew(&site.path(), Some(&site.register)).expect("a new gallery");
    let store = site.open(Purpose::Change).expect("open");
    assert!(store.is_sealed() && names(&store).is_empty());
}

#[test]
fn each_change_of_a_sealed_gallery_reaches_its_copy() {
    let site = Site::new();
    let mut store = site.open(Purpose::Change).expect("open");
    store.rename("Ada", "Augusta").expect("renamed");
    store.remove("Grace").expect("removed");
    store.enroll("Hedy", &[template(3.0, true)]).expect("enrolled");
    drop(store);
    assert_eq!(rows(&site.path()), rows(&copy_path(&site.path())));
    std::fs::remove_file(site.path()).expect("removed");
    assert_eq!(names(&site.open(Purpose::Serve).expect("the copy")), ["Augusta", "Hedy"]);
    let database = Database::open(site.path()).expect("a database");
    assert!(database.begin_read().is_ok());
}
