use super::self_test::SelfTest;
use super::*;
use crate::models::sha256_hex;
use crate::storage::gallery::{NewTemplate, Store, peek};
use crate::vision::detect::DetectorSettings;
use crate::vision::face_picture::FacePicture;
use crate::vision::picture;
use std::io::Cursor;
use tempfile::TempDir;

const PORTRAIT: &[u8] = include_bytes!("../../../assets/astronaut.jpg");

/// A store with a register beside it.
pub(super) fn store_in(folder: &Path, name: &str) -> ModelStore {
    let register = Register::at(folder.join("register"));
    ModelStore::new(&folder.join(name)).registered(Some(register))
}

/// Installs sets without a signature.
pub(super) fn unsigned(gallery: &Path) -> InstallOptions<'_> {
    InstallOptions { unsigned: true, ..InstallOptions::new(Precision::Int8, gallery, 1e-4) }
}

/// The built-in models as a set of another version, with a self-test.
pub(super) fn set(folder: &Path, version: &str) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let to = folder.join(version);
    std::fs::create_dir_all(&to).expect("a folder");
    for file in ["pnet.onnx", "rnet.onnx", "onet.onnx", "mobilefacenet.onnx", "covered.json"] {
        std::fs::copy(from.join(file), to.join(file)).expect("copied");
    }
    let text = std::fs::read_to_string(from.join(MANIFEST)).expect("a manifest");
    let mut manifest: toml::Table = text.parse().expect("TOML");
    let test =
        SelfTest::measure(&Models::open(&from).expect("models"), &[("portrait.jpg", PORTRAIT)])
            .expect("a self-test");
    let test = test.to_json().expect("JSON");
    let mut entry = toml::Table::new();
    entry.insert("file".into(), crate::storage::models::self_test::SELF_TEST.into());
    entry.insert("sha256".into(), sha256_hex(&test).into());
    manifest.insert("version".into(), version.into());
    manifest.insert("selftest".into(), entry.into());
    write(&to, crate::storage::models::self_test::SELF_TEST, &test);
    write(&to, "portrait.jpg", PORTRAIT);
    write(&to, MANIFEST, toml::to_string(&manifest).expect("TOML").as_bytes());
    write(&to, "README.md", b"nobody's");
    to
}

pub(super) fn write(folder: &Path, name: &str, bytes: &[u8]) {
    std::fs::write(folder.join(name), bytes).expect("written");
}

/// A gallery embedded with the built-in models: Eileen with a picture, Grace without.
pub(super) fn gallery(folder: &Path) -> PathBuf {
    let path = folder.join("gallery.redb");
    let models = Models::built_in().expect("models");
    let mut recognizer =
        Recognizer::new(&models, DetectorSettings::default()).expect("a recognizer");
    let frame = picture::decode(Path::new("portrait"), PORTRAIT).expect("a portrait");
    let view = recognizer.faces(&frame).expect("views").pop().expect("a face");
    let template = view.template.expect("a good view");
    let with = NewTemplate {
        template: template.clone(),
        picture: Some(FacePicture::cut(&frame, &view.face.landmarks)),
    };
    let mut store = Store::open(&path).expect("a gallery");
    store.enroll("Eileen", &[with]).expect("enrolled");
    store.enroll("Grace", &[NewTemplate { template, picture: None }]).expect("enrolled");
    path
}

/// Names of the people whom these models can compare, with stored pictures re-embedded.
fn comparable(models: &Models, path: &Path) -> usize {
    let id = models.recognizer_id().expect("a recognizer");
    let mut recognizer = Recognizer::new(models, DetectorSettings::default()).expect("loads");
    let size = models.recognizer().expect("a recognizer").embedding_size;
    // The keys of a gallery that was sealed meanwhile are beside the register of `store`.
    let register = Register::at(path.with_file_name("register"));
    let read =
        peek(path, Some(&register), &id, size, |picture| recognizer.embed_picture(picture).ok());
    let loaded = read.expect("a gallery");
    loaded.expect("nobody works on it").gallery.templates()
}

pub(super) fn quiet(_: &Told<'_>) -> std::io::Result<()> {
    Ok(())
}

fn tar(folder: &Path) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all(".", folder).expect("a tar");
    builder.into_inner().expect("a tar")
}

fn left_over(store: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(store).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    names.filter_map(|name| name.into_string().ok()).filter(|name| name.contains("draft")).collect()
}

/// Changes the manifest of a set.
pub(super) fn edit(folder: &Path, change: impl FnOnce(&mut toml::Table)) {
    let path = folder.join(MANIFEST);
    let text = std::fs::read_to_string(&path).expect("a manifest");
    let mut manifest: toml::Table = text.parse().expect("TOML");
    change(&mut manifest);
    write(folder, MANIFEST, toml::to_string(&manifest).expect("TOML").as_bytes());
}

#[test]
fn a_recognizer_that_gives_no_numbers_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/float");
    for entry in std::fs::read_dir(from).expect("models") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("copied");
    }
    let check = || check_folder(folder.path(), Precision::Float).map(|_| ());
    check().expect("good models");
    let file = "mobilefacenet.onnx";
    let mut network = std::fs::read(folder.path().join(file)).expect("a network");
    // Eight bytes of ones hold a number of four, which is none.
    let middle = network.len() / 2;
    network[middle..middle + 8].fill(0xff);
    write(folder.path(), file, &network);
    edit(folder.path(), |manifest| {
        manifest["recognizer"]["sha256"] = sha256_hex(&network).into();
    });
    let error = check().expect_err("NaN").to_string();
    assert!(error.contains(file) && error.contains("zero or no numbers"), "{error}");
}

#[test]
fn thresholds_that_admit_everybody_are_refused() {
    let folder = TempDir::new().expect("a folder");
    let set = set(folder.path(), "open");
    check_folder(&set, Precision::Int8).map(|_| ()).expect("good models");
    edit(&set, |manifest| {
        let recognizer = manifest["recognizer"].as_table_mut().expect("a table");
        recognizer.remove("likelihood");
        for (_, value) in recognizer["thresholds"].as_table_mut().expect("a table") {
            *value = toml::Value::Float(-1.0);
        }
    });
    let error = check_folder(&set, Precision::Int8).map(|_| ()).expect_err("open");
    assert!(error.to_string().contains("does not tell two people apart"), "{error}");
}

#[test]
fn installing_carries_people_over_and_keeps_one_way_back() {
    let folder = TempDir::new().expect("a folder");
    let store = store_in(folder.path(), "models");
    assert_eq!(store.pointer().expect("a pointer"), Pointer::default());
    assert!(store.open_current().is_ok());
    assert!(!store.folder().exists(), "looking makes nothing");
    let people = gallery(folder.path());
    let mut lost = vec![];
    let mut names = vec![];
    for version in ["1", "2", "3"] {
        let source = set(folder.path(), version);
        let mut told = |told: &Told<'_>| {
            if let Told::ReEmbedded(done) = told {
                assert_eq!(done.renewed, 1);
                lost.clone_from(&done.lost);
            }
            Ok(())
        };
        let pointer = store
            .install(Source::Folder(&source), &unsigned(&people), &mut told)
            .expect("installed");
        assert!(pointer.current.starts_with(&format!("{version}+")), "{pointer:?}");
        names.push(pointer.current);
    }
    assert_eq!(lost, ["Grace"]);
    assert_eq!(store.names().expect("names"), names[1..], "one way back is enough");
    assert!(!store.path(&names[2]).join("README.md").exists());
    let pointer = store.rollback(&unsigned(&people), &mut quiet).expect("rolled back");
    assert_eq!(pointer, Pointer { current: names[1].clone(), previous: Some(names[2].clone()) });
    let models = store.open_current().expect("models");
    assert_eq!(models.manifest.version, "2");
    assert_eq!(comparable(&models, &people), 1);
    // A second rollback returns to the newer set.
    let pointer = store.rollback(&unsigned(&people), &mut quiet).expect("rolled back");
    assert_eq!(pointer.current, names[2]);
    // The same set again changes nothing.
    let again = set(folder.path(), "3");
    let after =
        store.install(Source::Folder(&again), &unsigned(&people), &mut quiet).expect("installed");
    assert_eq!(after, pointer);
}

#[test]
fn rolling_back_the_first_set_gives_the_built_in_models() {
    let folder = TempDir::new().expect("a folder");
    let store = store_in(folder.path(), "models");
    let nobody = folder.path().join("gallery.redb");
    let error = store.rollback(&unsigned(&nobody), &mut quiet).expect_err("nothing before");
    assert!(error.to_string().contains("to roll back"), "{error}");
    let source = set(folder.path(), "1");
    store.install(Source::Folder(&source), &unsigned(&nobody), &mut quiet).expect("installed");
    let pointer = store.rollback(&unsigned(&nobody), &mut quiet).expect("rolled back");
    assert_eq!(pointer.current, BUILT_IN);
    assert!(!nobody.exists(), "installing begins no gallery");
}

/// The callback fails at each step in turn, like a full disk or a killed process.
#[test]
fn whatever_step_fails_the_old_set_and_its_people_stay() {
    let folder = TempDir::new().expect("a folder");
    let store = store_in(folder.path(), "models");
    let people = gallery(folder.path());
    let [first, second] = ["1", "2"].map(|version| set(folder.path(), version));
    let before =
        store.install(Source::Folder(&first), &unsigned(&people), &mut quiet).expect("installed");
    for step in 0..4 {
        let mut heard = 0;
        let mut told = |_: &Told<'_>| {
            heard += 1;
            if heard > step { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
        };
        let error = store
            .install(Source::Folder(&second), &unsigned(&people), &mut told)
            .expect_err("a full disk");
        assert!(error.to_string().contains("free some space"), "{error}");
        assert_eq!(store.pointer().expect("a pointer"), before, "step {step}");
        let models = store.open_current().expect("models");
        assert_eq!(models.manifest.version, "1");
        assert_eq!(comparable(&models, &people), 1, "step {step}");
        assert!(left_over(store.folder()).is_empty(), "step {step}");
    }
    // After the switch an error has no effect.
    let mut told = |told: &Told<'_>| match told {
        Told::Switched(_) => Err(ErrorKind::BrokenPipe.into()),
        _ => Ok(()),
    };
    let after =
        store.install(Source::Folder(&second), &unsigned(&people), &mut told).expect("installed");
    assert_eq!(after.previous, Some(before.current));
}

#[test]
fn remains_of_a_killed_installation_are_removed() {
    let folder = TempDir::new().expect("a folder");
    let store = store_in(folder.path(), "models");
    let draft = store.folder().join(DRAFT);
    std::fs::create_dir_all(&draft).expect("a folder");
    write(&draft, "mobilefacenet.onnx", b"half a network");
    let source = set(folder.path(), "1");
    let nobody = folder.path().join("gallery.redb");
    let pointer =
        store.install(Source::Folder(&source), &unsigned(&nobody), &mut quiet).expect("installed");
    assert!(store.check(&pointer.current, Precision::Int8).is_ok());
    assert!(left_over(store.folder()).is_empty());
}

#[test]
fn a_store_that_cannot_be_written_is_named() {
    let folder = TempDir::new().expect("a folder");
    write(folder.path(), "models", b"a file in its place");
    let source = set(folder.path(), "1");
    let people = gallery(folder.path());
    let store = store_in(folder.path(), "models");
    let error = store
        .install(Source::Folder(&source), &unsigned(&people), &mut quiet)
        .expect_err("no folder");
    assert!(error.to_string().contains("models"), "{error}");
    // Only the pointer cannot be written: everything but the switch was done.
    let store = store_in(folder.path(), "store");
    std::fs::create_dir_all(store.folder().join("current.toml.draft")).expect("a folder");
    let error = store
        .install(Source::Folder(&source), &unsigned(&people), &mut quiet)
        .expect_err("no switch");
    assert!(error.to_string().contains("current.toml.draft"), "{error}");
    assert_eq!(store.pointer().expect("a pointer"), Pointer::default());
    let models = store.open_current().expect("models");
    assert_eq!(comparable(&models, &people), 2, "Grace's template was left as it was");
}

#[test]
fn two_at_once_do_not_mix() {
    let folder = TempDir::new().expect("a folder");
    let store = store_in(folder.path(), "models");
    let (source, nobody) = (set(folder.path(), "1"), folder.path().join("gallery.redb"));
    let mut refused = 0;
    let mut told = |_: &Told<'_>| {
        let other = store.install(Source::Folder(&source), &unsigned(&nobody), &mut quiet);
        refused += usize::from(matches!(other, Err(ModelStoreError::Busy { .. })));
        Ok(())
    };
    store.install(Source::Folder(&source), &unsigned(&nobody), &mut told).expect("installed");
    assert!(refused >= 3, "{refused}");
}

/// Edits a set's manifest.
fn edited<'c>(change: &'c dyn Fn(&str) -> String) -> impl Fn(&Path) + 'c {
    move |source| {
        let text = std::fs::read_to_string(source.join(MANIFEST)).expect("a manifest");
        write(source, MANIFEST, change(&text).as_bytes());
    }
}

#[test]
fn a_set_that_is_not_fit_for_a_door_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let store = store_in(folder.path(), "models");
    let nobody = folder.path().join("gallery.redb");
    let fault = |change: &dyn Fn(&Path), expected: &str| {
        let source = set(folder.path(), "1");
        change(&source);
        let error = store
            .install(Source::Folder(&source), &unsigned(&nobody), &mut quiet)
            .expect_err(expected)
            .to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(store.pointer().expect("a pointer"), Pointer::default());
        assert!(store.names().expect("names").is_empty());
    };
    fault(&|source| write(source, "pnet.onnx", b"x"), "pnet.onnx: sha256 is");
    fault(&|source| write(source, "portrait.jpg", b"x"), "portrait.jpg: sha256 is");
    fault(&|source| write(source, "selftest.json", b"x"), "selftest.json: sha256 is");
    fault(&|source| std::fs::remove_file(source.join("rnet.onnx")).expect("removed"), "rnet.onnx");
    fault(&|source| std::fs::remove_file(source.join(MANIFEST)).expect("removed"), MANIFEST);
    fault(&edited(&|text| text.replace("\"pnet.onnx\"", "\"../pnet.onnx\"")), "same folder");
    fault(&edited(&|text| text.replace("embedding_size = 256", "embedding_size = 64")), "256");
    let without_thresholds = |text: &str| {
        let mut manifest: toml::Table = text.parse().expect("TOML");
        if let Some(toml::Value::Table(recognizer)) = manifest.get_mut("recognizer") {
            recognizer.remove("thresholds");
            recognizer.remove("calibration");
        }
        toml::to_string(&manifest).expect("TOML")
    };
    fault(&edited(&without_thresholds), "no thresholds");
    // A self-test made by other models.
    let other_test = |source: &Path| {
        let path = source.join("selftest.json");
        let text = std::fs::read_to_string(&path).expect("a self-test");
        let mut test: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        test["vectors"][0]["embedding"][0] = 0.9.into();
        let changed = test.to_string();
        write(source, "selftest.json", changed.as_bytes());
        let [old, new] = [text.as_bytes(), changed.as_bytes()].map(sha256_hex);
        let text = std::fs::read_to_string(source.join(MANIFEST)).expect("a manifest");
        write(source, MANIFEST, text.replace(&old, &new).as_bytes());
    };
    fault(&other_test, "are not used");
    let float = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/float");
    let error = store
        .install(Source::Folder(&float), &unsigned(&nobody), &mut quiet)
        .expect_err("floating point")
        .to_string();
    assert!(error.contains("--precision float"), "{error}");
}

#[test]
fn a_tar_is_installed_only_as_a_whole() {
    let folder = TempDir::new().expect("a folder");
    let store = store_in(folder.path(), "models");
    let nobody = folder.path().join("gallery.redb");
    let whole = tar(&set(folder.path(), "1"));
    let install = |bytes: &[u8]| {
        let mut tar = Cursor::new(bytes);
        store.install(Source::Tar("x.tar", &mut tar), &unsigned(&nobody), &mut quiet)
    };
    for length in [0, 100, 512, 4096, 300_000, whole.len() / 2, whole.len() - 100_000] {
        assert!(install(&whole[..length]).is_err(), "{length} bytes");
        assert_eq!(store.pointer().expect("a pointer"), Pointer::default());
    }
    let mut broken = whole.clone();
    broken[whole.len() / 2] ^= 1;
    let error = install(&broken).expect_err("a flipped bit").to_string();
    assert!(error.contains("sha256"), "{error}");
    let error = install(b"no tar at all").expect_err("no tar").to_string();
    assert!(error.contains("x.tar: "), "{error}");
    install(&whole).expect("installed");
}

#[test]
fn a_tar_writes_nothing_outside_its_folder() {
    let folder = TempDir::new().expect("a folder");
    let store = store_in(folder.path(), "a/models");
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    // Written by hand, because the library refuses to.
    header.as_gnu_mut().expect("a header").name[..9].copy_from_slice(b"../../bad");
    header.set_cksum();
    builder.append(&header, &b"x"[..]).expect("appended");
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    builder.append_link(&mut link, MANIFEST, "/etc/passwd").expect("appended");
    let bytes = builder.into_inner().expect("a tar");
    let mut source = Cursor::new(bytes);
    let nobody = folder.path().join("gallery.redb");
    let error = store
        .install(Source::Tar("x.tar", &mut source), &unsigned(&nobody), &mut quiet)
        .expect_err("no manifest");
    assert!(error.to_string().contains("no manifest.toml"), "{error}");
    assert!(!folder.path().join("bad").exists());
}

#[test]
fn a_damaged_set_gives_way_to_the_one_before_it() {
    let folder = TempDir::new().expect("a folder");
    let store = store_in(folder.path(), "models");
    let nobody = folder.path().join("gallery.redb");
    let mut pointer = Pointer::default();
    for version in ["1", "2"] {
        let source = set(folder.path(), version);
        pointer = store
            .install(Source::Folder(&source), &unsigned(&nobody), &mut quiet)
            .expect("installed");
    }
    write(&store.path(&pointer.current), "onet.onnx", b"damaged");
    assert_eq!(store.open_current().expect("the one before").manifest.version, "1");
    assert!(store.check(&pointer.current, Precision::Int8).is_err());
    // Installing the same set again repairs it.
    let source = set(folder.path(), "2");
    store.install(Source::Folder(&source), &unsigned(&nobody), &mut quiet).expect("installed");
    assert_eq!(store.open_current().expect("repaired").manifest.version, "2");
    for name in store.names().expect("names") {
        std::fs::remove_dir_all(store.path(&name)).expect("removed");
    }
    assert!(matches!(store.open_current(), Err(ModelStoreError::Lost { .. })));
    for nonsense in ["current = 1", "current = \"../../etc\"", "current = \".draft\"", "\u{1}"] {
        write(store.folder(), POINTER, nonsense.as_bytes());
        let error = store.open_current().expect_err(nonsense).to_string();
        assert!(error.contains("current.toml") && error.contains("models install"), "{error}");
    }
}

#[test]
fn versions_become_plain_names() {
    let folder = TempDir::new().expect("a folder");
    let store = store_in(folder.path(), "models");
    let nobody = folder.path().join("gallery.redb");
    let source = set(folder.path(), "1");
    let text = std::fs::read_to_string(source.join(MANIFEST)).expect("a manifest");
    let odd = text.replace("version = \"1\"", "version = \"../Ünlucky one\"");
    write(&source, MANIFEST, odd.as_bytes());
    let pointer =
        store.install(Source::Folder(&source), &unsigned(&nobody), &mut quiet).expect("installed");
    assert!(pointer.current.starts_with("_") && is_set_name(&pointer.current), "{pointer:?}");
}

#[test]
fn a_lock_that_a_starting_program_has_too_ends_with_the_change() {
    let folder = TempDir::new().expect("a folder");
    let store = ModelStore::new(folder.path());
    let lock = store.lock().expect("a lock");
    assert!(matches!(store.lock(), Err(ModelStoreError::Busy { .. })));
    let lent = lock.0.try_clone().expect("a lock");
    drop(lock);
    drop(store.lock().expect("a lock"));
    drop(lent);
}
