//! Encrypted backups: for whom they open, and what is refused.

use super::fault_tests::Site;
use super::tests::{model, names, signed, template};
use super::*;
use crate::storage::keys::{DoorKeys, KeyPlace};
use age::secrecy::ExposeSecret;
use std::io::{Read, Write};
use zeroize::Zeroizing;

fn words(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.to_owned())
}

/// A file with a new identity, and its recipient.
fn identity(site: &Site, name: &str) -> (PathBuf, String) {
    let identity = age::x25519::Identity::generate();
    let path = site.at(name);
    let text = format!("# created for a test\n{}\n", identity.to_string().expose_secret());
    std::fs::write(&path, text).expect("written");
    (path, identity.to_public().to_string())
}

fn backed_up(site: &Site, lock: &Lock) -> PathBuf {
    let path = site.at("backup.age");
    let _ = std::fs::remove_file(&path);
    let store = site.open(Purpose::Read).expect("the gallery");
    assert_eq!(store.back_up(&[], &path, lock).expect("written"), 2);
    assert!(store.back_up(&[], &path, lock).is_err(), "the file is there already");
    path
}

#[test]
fn a_backup_opens_for_its_recipients_and_names_its_door() {
    let site = Site::new();
    let [(first, one), (second, two), (third, _)] =
        ["one.txt", "two.txt", "three.txt"].map(|name| identity(&site, name));
    let path = backed_up(&site, &Lock::Recipients(vec![one, two]));
    let bytes = std::fs::read(&path).expect("a file");
    assert!(bytes.starts_with(b"age-encryption.org/v1\n-> X25519 "));
    assert!(!bytes.windows(3).any(|part| part == b"Ada"));
    assert_eq!(is_encrypted(&path).expect("read"), Some(false));
    let own = DoorKeys::open(&site.path(), &KeyPlace::of(&site.register)).expect("the keys");
    for file in [first, second] {
        let (export, door) = Export::decrypt(&path, &Unlock::Identity(file)).expect("opened");
        assert_eq!(door, own.signer().public());
        // Another door, with keys of its own.
        let other = Site::empty();
        let mut store = other.open(Purpose::Begin).expect("a new gallery");
        assert_eq!(store.import(&export, false).expect("imported").added, 2);
        let ada = store.find("Ada").expect("Ada");
        assert_eq!((ada.templates, store.pictures(ada.id).expect("pictures").len()), (1, 1));
        let loaded = store.load(&model(), 4).expect("loaded").gallery;
        let found = loaded.best(&signed(&model(), 1.0)).expect("Ada");
        assert!(found.name == "Ada" && found.similarity > 0.9999, "{found:?}");
    }
    let refused = Export::decrypt(&path, &Unlock::Identity(third)).err().expect("for others");
    assert!(refused.to_string().contains("--identity"), "{refused}");
    let none = Export::decrypt(&path, &Unlock::Identity(path.clone())).err().expect("no identity");
    assert!(none.to_string().contains("no identity") || none.to_string().contains("age-keygen"));
}

#[test]
fn a_passphrase_opens_a_backup_and_restores_it() {
    let site = Site::new();
    let path = backed_up(&site, &Lock::Passphrase(words("correct horse battery")));
    assert_eq!(is_encrypted(&path).expect("read"), Some(true));
    let wrong = Export::decrypt(&path, &Unlock::Passphrase(words("wrong")));
    assert!(wrong.err().expect("wrong").to_string().contains("another one"));
    site.open(Purpose::Change).expect("open").remove("Ada").expect("removed");
    let unlock = Unlock::Passphrase(words("correct horse battery"));
    let (export, _) = Export::decrypt(&path, &unlock).expect("opened");
    Store::restore(&site.path(), export, Some(&site.register)).expect("restored");
    let store = site.open(Purpose::Read).expect("open");
    assert_eq!(names(&store), ["Ada", "Grace"]);
    assert!(store.is_sealed());
}

/// The content of a backup, decrypted.
fn content(path: &Path, file: &Path) -> Vec<u8> {
    let text = std::fs::read_to_string(file).expect("an identity");
    let identity: age::x25519::Identity =
        text.lines().last().expect("a line").parse().expect("an identity");
    let bytes = std::fs::read(path).expect("a file");
    let decryptor = age::Decryptor::new_buffered(&bytes[..]).expect("an age file");
    let mut content = Vec::new();
    let reader = decryptor.decrypt(std::iter::once(&identity as _));
    reader.expect("decrypted").read_to_end(&mut content).expect("read");
    content
}

fn encrypted(path: &Path, recipient: &str, content: &[u8]) {
    let recipient: age::x25519::Recipient = recipient.parse().expect("a recipient");
    let encryptor = age::Encryptor::with_recipients(std::iter::once(&recipient as _));
    let mut bytes = Vec::new();
    let mut out = encryptor.expect("an encryptor").wrap_output(&mut bytes).expect("a writer");
    out.write_all(content).expect("written");
    out.finish().expect("finished");
    std::fs::write(path, bytes).expect("written");
}

#[test]
fn what_was_changed_signed_by_another_or_cut_is_refused() {
    let site = Site::new();
    let (file, recipient) = identity(&site, "one.txt");
    let path = backed_up(&site, &Lock::Recipients(vec![recipient.clone()]));
    let whole = content(&path, &file);
    let open = || Export::decrypt(&path, &Unlock::Identity(file.clone())).map(drop);
    encrypted(&path, &recipient, &whole);
    open().expect("the same content again");
    // Anybody who knows the recipient can encrypt, but not sign.
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        encrypted(&path, &recipient, &changed);
        assert!(open().is_err(), "byte {at}");
    }
    let other = Site::new();
    let keys = DoorKeys::open(&other.path(), &KeyPlace::of(&other.register)).expect("keys");
    let mut foreign = whole.clone();
    let key_at = whole.len() - 96;
    foreign[key_at..key_at + 32].copy_from_slice(keys.signer().public().bytes());
    encrypted(&path, &recipient, &foreign);
    assert!(open().expect_err("another key").to_string().contains("signature"));
    for length in [0, 5, 19, 100, whole.len() - 97, whole.len() - 96, whole.len() - 1] {
        encrypted(&path, &recipient, &whole[..length]);
        assert!(open().is_err(), "{length} bytes");
    }
    encrypted(&path, &recipient, &[&whole[..], &[0]].concat());
    assert!(open().expect_err("longer").to_string().contains("after its signature"));
    encrypted(&path, &recipient, b"a letter");
    assert!(open().is_err());
    // A record that claims four gigabytes.
    let mut bloated = whole[..43].to_vec();
    bloated.extend([1, 1, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    encrypted(&path, &recipient, &bloated);
    assert!(open().expect_err("too large").to_string().contains("too large"));
}

#[test]
fn cut_or_flipped_files_and_excessive_work_are_refused() {
    let site = Site::new();
    let (file, recipient) = identity(&site, "one.txt");
    let path = backed_up(&site, &Lock::Recipients(vec![recipient]));
    let whole = std::fs::read(&path).expect("a file");
    for at in (0..whole.len()).step_by(whole.len() / 60) {
        let mut changed = whole.clone();
        changed[at] ^= 0x20;
        std::fs::write(&path, &changed).expect("written");
        let opened = Export::decrypt(&path, &Unlock::Identity(file.clone()));
        assert!(opened.is_err(), "byte {at}");
        std::fs::write(&path, &whole[..at]).expect("written");
        let opened = Export::decrypt(&path, &Unlock::Identity(file.clone()));
        assert!(opened.is_err(), "{at} bytes");
    }
    // 2^40 blocks of memory.
    let salt = "AAAAAAAAAAAAAAAAAAAAAA";
    let body = "A".repeat(43);
    let text =
        format!("age-encryption.org/v1\n-> scrypt {salt} 40\n{body}\n--- {body}\n0123456789abcdef");
    std::fs::write(&path, text).expect("written");
    let opened = Export::decrypt(&path, &Unlock::Passphrase(words("x")));
    let said = opened.err().expect("too much work").to_string();
    assert!(said.contains("more work") || said.contains("changed"), "{said}");
}

#[test]
fn only_some_people_are_written_if_named() {
    let site = Site::new();
    let (file, recipient) = identity(&site, "one.txt");
    let mut store = site.open(Purpose::Change).expect("open");
    store.enroll("Hedy", &[template(3.0, true)]).expect("enrolled");
    let path = site.at("hedy.age");
    let lock = Lock::Recipients(vec![recipient]);
    assert_eq!(store.back_up(&["Hedy".to_owned()], &path, &lock).expect("written"), 1);
    assert!(store.back_up(&["Nobody".to_owned()], &site.at("x.age"), &lock).is_err());
    let bad = Lock::Recipients(vec!["age1nonsense".to_owned()]);
    let refused = store.back_up(&[], &site.at("x.age"), &bad).expect_err("no recipient");
    assert!(refused.to_string().contains("age-keygen"), "{refused}");
    assert!(!site.at("x.age").exists());
    let (export, _) = Export::decrypt(&path, &Unlock::Identity(file)).expect("opened");
    let people = export.people().expect("people");
    assert_eq!(people.len(), 1);
}
