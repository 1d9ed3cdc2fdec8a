use super::keyring::put;
use super::*;
use crate::storage::gallery::{Known, Register};
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

struct Site {
    folder: TempDir,
    register: Register,
    place: KeyPlace,
}

impl Site {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let register = Register::at(folder.path().join("register"));
        let place = KeyPlace::of(&register);
        Self { folder, register, place }
    }

    fn gallery(&self) -> PathBuf {
        self.folder.path().join("gallery.redb")
    }

    fn files(&self) -> [PathBuf; 2] {
        [keyring_path(&self.gallery()), keyring_copy_path(&self.gallery())]
    }

    fn open(&self) -> Result<DoorKeys, KeyError> {
        DoorKeys::open(&self.gallery(), &self.place)
    }

    fn make(&self) -> DoorKeys {
        DoorKeys::make(&self.gallery(), &self.place).expect("new keys")
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

#[test]
fn keys_are_made_once_and_only_their_owner_reads_them() {
    let site = Site::new();
    assert!(matches!(site.open(), Err(KeyError::None { .. })));
    let made = site.make();
    let open = site.open().expect("the keys");
    assert_eq!(open.signer().public(), made.signer().public());
    let sealed = made.sealer(Purpose::Gallery).seal(b"", b"Ada").expect("sealed");
    assert!(open.sealer(Purpose::Gallery).open(b"", &sealed).is_ok());
    assert!(open.sealer(Purpose::Negatives).open(b"", &sealed).is_err());
    assert!(matches!(DoorKeys::make(&site.gallery(), &site.place), Err(KeyError::Exists { .. })));
    for file in site.files().iter().map(PathBuf::as_path).chain([site.place.file()]) {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    assert!(remarks(&site.place).is_empty());
    std::fs::set_permissions(site.place.file(), PermissionsExt::from_mode(0o644)).expect("rights");
    assert!(remarks(&site.place).join("").contains("chmod 600"));
    // A second gallery of this machine has keys of its own under the same master key.
    let other = DoorKeys::make(&site.folder.path().join("other.redb"), &site.place);
    assert_ne!(other.expect("keys").signer().public(), made.signer().public());
}

#[test]
fn a_rotation_keeps_the_identity_and_opens_what_was_sealed() {
    let site = Site::new();
    let mut keys = site.make();
    let (identity, before) = (keys.signer().public(), keys.sealer(Purpose::AuditPictures));
    let sealed = before.seal(b"", b"a picture").expect("sealed");
    keys.rotate().expect("rotated");
    let keys = site.open().expect("the keys");
    assert_eq!((keys.signer().public(), keys.former()), (identity, 1));
    assert_ne!(keys.sealer(Purpose::AuditPictures).id(), before.id());
    let opener = keys.sealer_with(Purpose::AuditPictures, before.id()).expect("the former");
    assert_eq!(&**opener.open(b"", &sealed).expect("opened"), b"a picture");
    assert!(keys.sealer_with(Purpose::Gallery, before.id()).is_none());
}

#[test]
fn renewed_template_keys_are_forgotten_only_at_the_end() {
    let site = Site::new();
    let mut keys = site.make();
    let first = keys.rotations()[0];
    keys.begin_renewal().expect("begun");
    let both = site.open().expect("the keys").rotations();
    assert_eq!((both.len(), both[0]), (2, first));
    keys.end_renewal().expect("ended");
    let keys = site.open().expect("the keys");
    assert_eq!(keys.rotations(), [both[1]]);
    assert!(keys.rotation(both[0], 256).is_none());
    let again = site.open().expect("the keys").rotation(both[1], 256);
    assert_eq!(keys.rotation(both[1], 256), again, "it follows from the key");
}

#[test]
fn what_happened_to_the_key_is_named_and_nothing_is_made_over_the_keyring() {
    let site = Site::new();
    let identity = site.make().signer().public();
    let key = std::fs::read(site.place.file()).expect("a key");
    let refused = |expected: &str| {
        let said = site.open().expect_err("no key").to_string();
        assert!(said.contains(expected), "{expected}: {said}");
        let made = DoorKeys::make(&site.gallery(), &site.place);
        assert!(matches!(made, Err(KeyError::Exists { .. })));
    };
    std::fs::remove_file(site.place.file()).expect("removed");
    refused("the key that opens it is missing");
    std::fs::write(site.place.file(), "nonsense").expect("written");
    refused("no key: it is damaged");
    std::fs::write(site.place.file(), master::text_of(&Secret::new([9; 32])).as_str())
        .expect("written");
    refused("sealed with another key");
    std::fs::write(site.place.file(), &key).expect("written");
    assert_eq!(site.open().expect("the keys").signer().public(), identity);
    // The keyring is gone, and whoever asks is told so.
    for file in site.files() {
        std::fs::remove_file(file).expect("removed");
    }
    assert!(matches!(site.open(), Err(KeyError::None { .. })));
}

#[test]
fn a_damaged_keyring_gives_way_to_its_copy() {
    let site = Site::new();
    let mut keys = site.make();
    let old = std::fs::read(&site.files()[0]).expect("a keyring");
    keys.rotate().expect("rotated");
    let (id, whole) = (
        keys.sealer(Purpose::Gallery).id(),
        site.files().map(|file| std::fs::read(file).expect("a keyring")),
    );
    let mut broken = vec![old, Vec::new(), b"nothing of ours".to_vec(), vec![7; 10_000]];
    broken.extend((0..whole[0].len()).step_by(5).map(|at| {
        let mut bytes = whole[0].clone();
        bytes[at] ^= 0x10;
        bytes
    }));
    for (n, bytes) in broken.iter().enumerate() {
        for file in site.files() {
            std::fs::write(&file, bytes).expect("written");
            let opened = site.open();
            // A flipped version of the format is a later one, not damage.
            if matches!(opened, Err(KeyError::Newer { .. })) {
                std::fs::write(&file, &whole[0]).expect("written");
                continue;
            }
            assert_eq!(opened.expect("the copy").sealer(Purpose::Gallery).id(), id, "{n}");
            assert!(site.files().iter().all(|file| {
                std::fs::read(file).is_ok_and(|bytes| bytes.len() == whole[0].len())
            }));
        }
    }
    for file in site.files() {
        std::fs::write(file, "x").expect("written");
    }
    assert!(matches!(site.open(), Err(KeyError::Damaged { .. })));
}

/// A power cut between the two files of a keyring: either is enough.
#[test]
fn the_newer_of_two_keyrings_counts() {
    let site = Site::new();
    let mut keys = site.make();
    let old = std::fs::read(&site.files()[0]).expect("a keyring");
    keys.rotate().expect("rotated");
    let id = keys.sealer(Purpose::Gallery).id();
    std::fs::write(&site.files()[1], &old).expect("written");
    assert_eq!(site.open().expect("the keys").sealer(Purpose::Gallery).id(), id);
    let both = site.files().map(|file| std::fs::read(file).expect("a keyring"));
    assert_eq!(both[0], both[1], "the late copy follows");
    put(&site.gallery(), &keys.ring, &keys.master).expect("written");
}

#[test]
fn what_is_erased_is_gone() {
    let site = Site::new();
    site.make();
    let erased = DoorKeys::erase(&site.gallery(), &site.register).expect("erased");
    assert_eq!(erased.len(), 2);
    assert!(matches!(site.open(), Err(KeyError::None { .. })));
    assert!(!site.place.file().exists());
    assert!(DoorKeys::erase(&site.gallery(), &site.register).expect("nothing").is_empty());
    // The key stays where another gallery needs it.
    let other = site.folder.path().join("other.redb");
    site.make();
    DoorKeys::make(&other, &site.place).expect("keys");
    let known = Known { revision: [7, 2], inhabited: true };
    site.register.note(&other, known).expect("written");
    DoorKeys::erase(&site.gallery(), &site.register).expect("erased");
    assert!(DoorKeys::open(&other, &site.place).is_ok());
}

#[test]
fn the_kind_of_a_credential_is_named() {
    let site = Site::new();
    let folder = site.folder.path().to_owned();
    assert_eq!(binding(&folder), Binding::Unknown);
    // Begins as what systemd-creds encrypt --with-key=host writes.
    std::fs::write(folder.join(CREDENTIAL), "Whxqht+dQJax1aZeCGLxmiAAAAAB").expect("written");
    assert_eq!(binding(&folder), Binding::Host);
    std::fs::write(folder.join(CREDENTIAL), "DHzAexF2RZGcSwvqCLwg/g==").expect("written");
    assert_eq!(binding(&folder), Binding::Tpm);
}

#[test]
fn a_key_file_is_removed_only_by_a_process_that_got_the_same_key_from_systemd() {
    let site = Site::new();
    let keys = site.make();
    let credential = site.folder.path().join(CREDENTIAL);
    let used = Source::Credential(credential.clone());
    let others = Vec::new();
    assert_eq!(site.place.retire_file(keys.source(), &others), None);
    std::fs::write(&credential, [7; 32]).expect("written");
    assert_eq!(site.place.retire_file(&used, &others), None, "another key");
    std::fs::copy(site.place.file(), &credential).expect("copied");
    let other = [site.folder.path().join("other.redb")];
    assert_eq!(site.place.retire_file(&used, &other), None, "another gallery needs it");
    assert_eq!(site.place.retire_file(&used, &others).as_deref(), Some(site.place.file()));
    assert!(!site.place.file().exists());
}
