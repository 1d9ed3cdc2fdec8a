//! Attacks on a store of model sets: what nobody answers for, what is older, what would let
//! everybody in.

use super::shadow::Compared;
use super::tests::{edit, gallery, quiet, set, store_in, unsigned, write};
use super::*;
use crate::access::gallery::PersonId;
use crate::crypto::{Secret, Signer};
use crate::models::signature::{SIGNATURE, SetSignature, time_text};
use crate::storage::gallery::{NewTemplate, Store};
use crate::vision::detect::DetectorSettings;
use crate::vision::face_picture::FacePicture;
use crate::vision::picture;
use std::io::Cursor;
use tempfile::TempDir;

fn signer(number: u8) -> Signer {
    Signer::new(&Secret::new([number; 32]))
}

fn trusting(numbers: &[u8]) -> TrustedKeys {
    let lines: Vec<String> =
        numbers.iter().map(|number| format!("{} office", signer(*number).public())).collect();
    TrustedKeys::parse(&lines).expect("keys")
}

/// Notes the time in the manifest and signs it.
fn sign(folder: &Path, key: u8, unix: i64) {
    edit(folder, |manifest| {
        manifest.insert("signed_at".into(), time_text(unix).expect("a time").into());
    });
    let manifest = std::fs::read(folder.join(MANIFEST)).expect("a manifest");
    let signature = SetSignature::sign(&signer(key), &manifest).to_string();
    write(folder, SIGNATURE, signature.as_bytes());
}

/// A set with that version, signed.
fn signed(folder: &Path, version: &str, key: u8, unix: i64) -> PathBuf {
    let set = set(folder, version);
    sign(&set, key, unix);
    set
}

fn strict(gallery: &Path) -> InstallOptions<'_> {
    InstallOptions::new(Precision::Int8, gallery, 1e-4)
}

/// A store that trusts key 1, and a gallery that does not exist.
fn door(folder: &TempDir) -> (ModelStore, PathBuf) {
    let store = store_in(folder.path(), "models").trusting(trusting(&[1]));
    (store, folder.path().join("gallery.redb"))
}

#[track_caller]
fn refused(store: &ModelStore, set: &Path, options: &InstallOptions<'_>, expected: &[&str]) {
    let before = store.pointer().expect("a pointer");
    let error = store.install(Source::Folder(set), options, &mut quiet).expect_err("refused");
    let error = error.to_string();
    for expected in expected {
        assert!(error.contains(expected), "{expected}: {error}");
    }
    assert_eq!(store.pointer().expect("a pointer"), before);
}

#[track_caller]
fn installed(store: &ModelStore, set: &Path, options: &InstallOptions<'_>) -> String {
    store.install(Source::Folder(set), options, &mut quiet).expect("installed").current
}

fn standing(store: &ModelStore) -> Standing {
    store.open_in_use().expect("a set").standing
}

#[test]
fn only_sets_of_trusted_keys_are_installed_unless_that_is_asked_for() {
    let folder = TempDir::new().expect("a folder");
    let (store, nobody) = door(&folder);
    let plain = set(folder.path(), "1");
    refused(&store, &plain, &strict(&nobody), &["1+", "not signed", "sign", "--unsigned"]);
    let name = installed(&store, &plain, &unsigned(&nobody));
    assert_eq!(standing(&store), Standing::Unsigned);
    assert!(standing(&store).warning().expect("a warning").contains("--unsigned"));

    let foreign = signed(folder.path(), "2", 2, 100);
    let key = signer(2).public();
    let expected = [&key.fingerprint(), "models.trusted_keys", &key.to_string()];
    refused(&store, &foreign, &strict(&nobody), &expected);
    installed(&store, &foreign, &unsigned(&nobody));
    assert_eq!(standing(&store), Standing::Foreign { key: key.fingerprint() });

    let own = signed(folder.path(), "3", 1, 101);
    installed(&store, &own, &strict(&nobody));
    let by = signer(1).public().fingerprint();
    assert_eq!(standing(&store), Standing::Signed { key: by, comment: "office".to_owned() });
    assert_eq!(standing(&store).warning(), None);
    assert!(store.open(&name).is_err(), "it was forgotten");
}

#[test]
fn a_set_that_is_signed_later_gets_its_signature_by_installing_it_again() {
    let folder = TempDir::new().expect("a folder");
    let (store, nobody) = door(&folder);
    let set = signed(folder.path(), "1", 1, 100);
    let signature = std::fs::read(set.join(SIGNATURE)).expect("a signature");
    std::fs::remove_file(set.join(SIGNATURE)).expect("removed");
    let name = installed(&store, &set, &unsigned(&nobody));
    assert_eq!(standing(&store), Standing::Unsigned);
    write(&set, SIGNATURE, &signature);
    assert_eq!(installed(&store, &set, &strict(&nobody)), name);
    assert!(standing(&store).is_trusted());
    // And the reverse.
    std::fs::remove_file(set.join(SIGNATURE)).expect("removed");
    installed(&store, &set, &unsigned(&nobody));
    assert_eq!(standing(&store), Standing::Unsigned);
}

#[test]
fn a_signature_that_does_not_hold_is_refused_even_with_unsigned() {
    let folder = TempDir::new().expect("a folder");
    let (store, nobody) = door(&folder);
    let set = signed(folder.path(), "1", 1, 100);
    edit(&set, |manifest| {
        manifest.insert("licence".into(), "changed".into());
    });
    for options in [strict(&nobody), unsigned(&nobody)] {
        refused(&store, &set, &options, &[SIGNATURE, "does not fit", "sign it again"]);
    }
    write(&set, SIGNATURE, b"purpose = \"audit head\"");
    refused(&store, &set, &unsigned(&nobody), &[SIGNATURE]);
    // A network that was exchanged is named by its digest.
    sign(&set, 1, 101);
    write(&set, "rnet.onnx", b"x");
    refused(&store, &set, &strict(&nobody), &["rnet.onnx: sha256"]);
}

/// Somebody can write the folder of models, and nothing else.
#[test]
fn what_is_only_put_into_the_folder_is_not_used() {
    let folder = TempDir::new().expect("a folder");
    let (store, nobody) = door(&folder);
    let first = installed(&store, &signed(folder.path(), "1", 1, 100), &strict(&nobody));
    let second = installed(&store, &signed(folder.path(), "2", 1, 200), &strict(&nobody));
    let attack = |set: &Path| {
        let name = name_of(&Models::open(set).expect("models"));
        let to = store.path(&name);
        std::fs::create_dir_all(&to).expect("a folder");
        for entry in std::fs::read_dir(set).expect("a set") {
            let entry = entry.expect("an entry");
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
        let text = format!("current = \"{name}\"\nprevious = \"{second}\"\n");
        write(store.folder(), POINTER, text.as_bytes());
        let error = store.open(&name).map(|_| ()).expect_err("refused").to_string();
        assert!(error.contains("not installed here"), "{error}");
        let opened = store.open_in_use().expect("the previous set");
        assert_eq!(opened.name, second, "the previous set serves");
        std::fs::remove_dir_all(to).expect("removed");
    };
    // Without a signature, with a foreign one, and a replay of an older one by a trusted key.
    attack(&set(folder.path(), "4"));
    attack(&signed(folder.path(), "5", 2, 300));
    attack(&signed(folder.path(), "0", 1, 50));
    // A set in use loses its signature.
    write(
        store.folder(),
        POINTER,
        format!("current = \"{second}\"\nprevious = \"{first}\"\n").as_bytes(),
    );
    assert_eq!(store.open_in_use().expect("a set").name, second);
    std::fs::remove_file(store.path(&second).join(SIGNATURE)).expect("removed");
    let error = store.open(&second).map(|_| ()).expect_err("refused").to_string();
    assert!(error.contains("removed or replaced"), "{error}");
    assert_eq!(store.open_in_use().expect("a set").name, first);
}

#[test]
fn a_key_that_is_removed_leaves_its_set_in_use_and_brings_no_other() {
    let folder = TempDir::new().expect("a folder");
    let (store, nobody) = door(&folder);
    installed(&store, &signed(folder.path(), "1", 1, 100), &strict(&nobody));
    let after = store.clone().trusting(trusting(&[3]));
    let Standing::KeyRemoved { key } = standing(&after) else { panic!("{:?}", standing(&after)) };
    assert_eq!(key, signer(1).public().fingerprint());
    let warning = standing(&after).warning().expect("a warning");
    assert!(warning.contains(&key) && warning.contains("stays in use"), "{warning}");
    let next = signed(folder.path(), "2", 1, 200);
    refused(&after, &next, &strict(&nobody), &["not in models.trusted_keys"]);
    // Nor does the way back lead there without a word.
    installed(&after, &signed(folder.path(), "3", 3, 300), &strict(&nobody));
    let error = after.rollback(&strict(&nobody), &mut quiet).expect_err("refused").to_string();
    assert!(error.contains("no longer in models.trusted_keys"), "{error}");
    after.rollback(&unsigned(&nobody), &mut quiet).expect("rolled back");
    // The key comes back.
    assert!(standing(&store).is_trusted());
}

#[test]
fn a_store_from_before_signatures_is_taken_over_once() {
    let folder = TempDir::new().expect("a folder");
    let (store, nobody) = door(&folder);
    let name = installed(&store, &set(folder.path(), "1"), &unsigned(&nobody));
    std::fs::remove_dir_all(folder.path().join("register")).expect("removed");
    // A door that asks for signatures does not take it over.
    let error = store.open(&name).map(|_| ()).expect_err("refused").to_string();
    assert!(error.contains("not signed"), "{error}");
    let asks_none = store.clone().trusting(TrustedKeys::default());
    assert_eq!(standing(&asks_none), Standing::Older);
    asks_none.adopt().expect("written");
    assert_eq!(standing(&asks_none), Standing::Older);
    assert!(standing(&asks_none).warning().expect("a warning").contains("before signatures"));
    // From now on, nothing else comes in by the folder.
    std::fs::rename(store.path(&name), store.path("9+00000000")).expect("renamed");
    edit(&store.path("9+00000000"), |manifest| {
        manifest.insert("version".into(), "9".into());
    });
    write(store.folder(), POINTER, b"current = \"9+00000000\"\n");
    assert!(matches!(asks_none.open_in_use().map(|_| ()), Err(ModelStoreError::Lost { .. })));
    // A first start writes the ledger too.
    let fresh = store_in(folder.path(), "fresh");
    fresh.adopt().expect("written");
    let copy = fresh.path("9+00000000");
    std::fs::create_dir_all(fresh.folder()).expect("a folder");
    std::fs::rename(store.path("9+00000000"), copy).expect("renamed");
    assert!(fresh.open("9+00000000").is_err());
}

#[test]
fn older_sets_come_back_only_if_that_is_asked_for() {
    let folder = TempDir::new().expect("a folder");
    let (store, nobody) = door(&folder);
    let [old, new] = [("1", 100), ("2", 200)].map(|(v, at)| signed(folder.path(), v, 1, at));
    installed(&store, &old, &strict(&nobody));
    installed(&store, &new, &strict(&nobody));
    refused(&store, &old, &strict(&nobody), &["1+", "version 1 is lower than 2", "--downgrade"]);
    // A higher version that was signed earlier is a replay as well.
    let replay = signed(folder.path(), "3", 1, 150);
    refused(&store, &replay, &strict(&nobody), &["signed at 1970-01-01T00:02:30Z", "03:20Z"]);
    // Returning to the set before does not make room for older ones.
    store.rollback(&strict(&nobody), &mut quiet).expect("rolled back");
    refused(&store, &replay, &strict(&nobody), &["--downgrade"]);
    installed(&store, &new, &strict(&nobody));
    let downgrade = InstallOptions { downgrade: true, ..strict(&nobody) };
    let name = installed(&store, &old, &downgrade);
    assert_eq!(store.pointer().expect("a pointer").current, name);
    installed(&store, &replay, &strict(&nobody));
}

#[test]
fn a_set_without_a_self_test_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let (store, nobody) = door(&folder);
    let set = set(folder.path(), "1");
    edit(&set, |manifest| {
        manifest.remove("selftest");
    });
    sign(&set, 1, 100);
    refused(&store, &set, &strict(&nobody), &["no self-test", "export"]);
}

/// Sets every threshold to a similarity.
fn with_thresholds(set: &Path, similarity: f64) {
    edit(set, |manifest| {
        let recognizer = manifest["recognizer"].as_table_mut().expect("a table");
        recognizer.remove("likelihood");
        for (_, value) in recognizer["thresholds"].as_table_mut().expect("a table") {
            *value = toml::Value::Float(similarity);
        }
        let calibration = recognizer["calibration"].as_table_mut().expect("a table");
        calibration.remove("other_tails");
        let tail = calibration["tail"].as_table_mut().expect("a table");
        tail.insert("similarity".into(), similarity.into());
        tail.insert("scale".into(), 1e-6.into());
        tail.insert("shape".into(), 0.0.into());
    });
}

#[test]
fn thresholds_that_two_people_reach_are_refused_with_the_numbers() {
    let folder = TempDir::new().expect("a folder");
    let (store, nobody) = door(&folder);
    let set = set(folder.path(), "1");
    // A signature does not help.
    for similarity in [-1.0, 0.15] {
        with_thresholds(&set, similarity);
        sign(&set, 1, 100);
        let options = InstallOptions { lower: true, ..strict(&nobody) };
        let expected: &[&str] = match similarity {
            // The two faces tell that much at the first look.
            -1.0 => &["does not tell two people apart"],
            _ => &["is 0.150", "171 built-in impostor pairs", "calibrate"],
        };
        refused(&store, &set, &options, expected);
    }
}

#[test]
fn a_lower_threshold_is_named_in_numbers_and_must_be_confirmed() {
    let folder = TempDir::new().expect("a folder");
    let (store, nobody) = door(&folder);
    let set = set(folder.path(), "1");
    with_thresholds(&set, 0.45);
    sign(&set, 1, 100);
    let expected = ["0.450 instead of 0.499", "1e-4", "1.4e-3", "same recognizer", "--yes"];
    refused(&store, &set, &strict(&nobody), &expected);
    let mut said = Vec::new();
    let options = InstallOptions { lower: true, ..strict(&nobody) };
    let mut told = |told: &Told<'_>| {
        if let Told::Lowered(lowered) = told {
            said.push(lowered.to_string());
        }
        Ok(())
    };
    store.install(Source::Folder(&set), &options, &mut told).expect("installed");
    assert_eq!(said.len(), 1);
    // The way up needs no word.
    let back = signed(folder.path(), "2", 1, 200);
    installed(&store, &back, &strict(&nobody));
}

#[test]
fn a_group_that_is_worse_off_than_stated_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let (store, nobody) = door(&folder);
    let set = set(folder.path(), "1");
    edit(&set, |manifest| {
        let group = manifest["recognizer"]["worst_group"].as_table_mut().expect("a table");
        group.insert("measured".into(), 0.05.into());
        group.insert("high".into(), 0.06.into());
    });
    sign(&set, 1, 100);
    refused(&store, &set, &strict(&nobody), &["women", "5.0 times", "--accept-group-rate"]);
    let options = InstallOptions { accept_group_rate: true, ..strict(&nobody) };
    installed(&store, &set, &options);
}

#[test]
fn a_set_that_confuses_the_people_of_the_door_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let (store, people) = door(&folder);
    // Two people with one face, as a set that tells nobody apart would have it.
    let models = Models::built_in().expect("models");
    let mut recognizer = Recognizer::new(&models, DetectorSettings::default()).expect("loads");
    let portrait = include_bytes!("../../../assets/astronaut.jpg");
    let frame = picture::decode(Path::new("portrait"), portrait).expect("a portrait");
    let view = recognizer.faces(&frame).expect("views").pop().expect("a face");
    let mut gallery = Store::open(&people).expect("a gallery");
    for name in ["Ada", "Eve"] {
        let picture = Some(FacePicture::cut(&frame, &view.face.landmarks));
        let template = view.template.clone().expect("a template");
        gallery.enroll(name, &[NewTemplate { template, picture }]).expect("enrolled");
    }
    drop(gallery);
    // The set in use confuses them as well: not a fault of the new one.
    let mut known = None;
    let mut told = |told: &Told<'_>| {
        if let Told::Measured(floor) = told {
            known = floor.gallery.as_ref().map(|gallery| (gallery.known, gallery.alike.len()));
        }
        Ok(())
    };
    let first = signed(folder.path(), "1", 1, 100);
    store.install(Source::Folder(&first), &strict(&people), &mut told).expect("installed");
    assert_eq!(known, Some((1, 0)));
    // After a set that tells them apart, because it recognizes nobody, it is.
    let blind = set(folder.path(), "2");
    with_thresholds(&blind, 1.5);
    sign(&blind, 1, 200);
    installed(&store, &blind, &strict(&people));
    let third = signed(folder.path(), "3", 1, 300);
    let options = InstallOptions { lower: true, ..strict(&people) };
    refused(&store, &third, &options, &["1 pairs of the 2 people", "Ada and Eve", "at most 0"]);
}

#[test]
fn bloated_bundles_are_refused() {
    let folder = TempDir::new().expect("a folder");
    let (store, nobody) = door(&folder);
    let install = |bytes: Vec<u8>| {
        let mut source = Cursor::new(bytes);
        let source = Source::Tar("x.tar", &mut source);
        store.install(source, &unsigned(&nobody), &mut quiet).expect_err("refused").to_string()
    };
    let header = |kind: tar::EntryType, size: u64| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_path("a").expect("a name");
        header.set_size(size);
        header.set_mode(0o644);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let folders = header(tar::EntryType::Directory, 0).repeat(1100);
    assert!(install(folders).contains("more than 1024 entries"));
    // A long name that would fill the memory is not read.
    let name = header(tar::EntryType::GNULongName, 1 << 40);
    assert!(install(name).contains("x.tar: "));
    let large = header(tar::EntryType::Regular, 1 << 40);
    assert!(install(large).contains("256 MB"));
    let signature = signed(folder.path(), "1", 1, 100);
    write(&signature, SIGNATURE, &vec![b'#'; 5000]);
    refused(&store, &signature, &strict(&nobody), &["4096 bytes"]);
}

#[test]
fn a_set_on_trial_opens_nothing_until_it_has_passed() {
    let folder = TempDir::new().expect("a folder");
    let (store, _) = door(&folder);
    let people = gallery(folder.path());
    let first = installed(&store, &signed(folder.path(), "1", 1, 100), &strict(&people));
    let trial = InstallOptions { shadow: Some(Duration::from_secs(3600)), ..strict(&people) };
    let second = signed(folder.path(), "2", 1, 200);
    assert_eq!(installed(&store, &second, &trial), first, "the first set stays in use");
    let mut shadow = store.shadow().expect("readable").expect("a trial");
    assert_eq!((shadow.instead_of.as_str(), shadow.watched), (first.as_str(), 0));
    assert!(store.open(&shadow.set).is_ok());
    let error = store.end_shadow(&strict(&people), &mut quiet).expect_err("too early");
    assert!(error.to_string().contains("1.0 hours are left"), "{error}");
    // It survives a restart.
    for _ in 0..60 {
        shadow.count(Compared::Agreed(Some(PersonId(1))));
    }
    shadow.watched = 3600;
    store.note_shadow(&shadow).expect("written");
    assert_eq!(store.shadow().expect("readable"), Some(shadow.clone()));
    let after = store.end_shadow(&strict(&people), &mut quiet).expect("passed");
    assert_eq!(after, Pointer { current: shadow.set.clone(), previous: Some(first) });
    assert!(standing(&store).is_trusted());
    assert_eq!(store.shadow().expect("readable"), None);
    // Notes of a trial that is over are dropped.
    store.note_shadow(&shadow).expect("nothing to write");
    assert_eq!(store.shadow().expect("readable"), None);
}

#[test]
fn a_trial_ends_when_it_is_stopped_or_another_set_is_installed() {
    let folder = TempDir::new().expect("a folder");
    let (store, nobody) = door(&folder);
    let trial = InstallOptions { shadow: Some(Duration::from_secs(3600)), ..strict(&nobody) };
    let set = signed(folder.path(), "1", 1, 100);
    installed(&store, &set, &trial);
    let name = store.stop_shadow().expect("stopped");
    assert!(!store.path(&name).exists() && store.shadow().expect("readable").is_none());
    assert!(store.stop_shadow().expect_err("none").to_string().contains("no set is on trial"));
    installed(&store, &set, &trial);
    installed(&store, &signed(folder.path(), "2", 1, 200), &strict(&nobody));
    assert!(store.shadow().expect("readable").is_none());
    // A set cannot be tried against itself.
    refused(&store, &signed(folder.path(), "2", 1, 200), &trial, &["in use already"]);
    // The key is removed during the trial.
    installed(&store, &signed(folder.path(), "3", 1, 300), &trial);
    let after = store.clone().trusting(trusting(&[3]));
    let mut shadow = after.shadow().expect("readable").expect("a trial");
    (shadow.watched, shadow.attempts, shadow.agreed) = (3600, 60, 60);
    after.note_shadow(&shadow).expect("written");
    let error = after.end_shadow(&strict(&nobody), &mut quiet).expect_err("refused").to_string();
    assert!(error.contains("no longer in models.trusted_keys"), "{error}");
}

#[test]
fn a_damaged_ledger_leaves_signed_sets_usable() {
    let folder = TempDir::new().expect("a folder");
    let (store, nobody) = door(&folder);
    let name = installed(&store, &signed(folder.path(), "1", 1, 100), &strict(&nobody));
    let register = folder.path().join("register");
    for entry in std::fs::read_dir(&register).expect("a register") {
        write(&register, entry.expect("an entry").file_name().to_str().expect("text"), b"\x01");
    }
    assert!(store.open(&name).is_ok());
    let without = store.trusting(TrustedKeys::default());
    let error = without.open(&name).map(|_| ()).expect_err("refused").to_string();
    assert!(error.contains("models-") && error.contains("damaged"), "{error}");
}
