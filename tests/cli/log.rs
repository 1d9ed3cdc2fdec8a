//! `log`: verifying the audit log of a door and an exported one.

use super::{at, facelatch, fails, json_lines, output, stdout, succeeds};
use facelatch::crypto::{Secret, Signer};
use facelatch::storage::audit::{AuditLog, AuditPlace, Bounds, export, stamp};
use tempfile::TempDir;

/// A log with some records, and the door's key.
fn logged(folder: &TempDir) -> (AuditPlace, Signer) {
    let gallery = folder.path().join("gallery.redb");
    std::fs::write(&gallery, "a gallery").expect("written");
    let place = AuditPlace { gallery, register: None };
    let signer = Signer::new(&Secret::new([7; 32]));
    let now = stamp(true);
    let log = AuditLog::open(&place, Bounds::default(), Some(signer.clone()), &now);
    let mut log = log.expect("a log");
    for _ in 0..5 {
        log.append(&now, b"an entry of the log").expect("appended");
    }
    log.sign(&now).expect("signed");
    (place, signer)
}

#[test]
fn a_log_is_verified_and_the_first_record_that_was_edited_is_named() {
    let folder = TempDir::new().expect("a folder");
    let gallery = at(folder.path(), "gallery.redb");
    assert!(fails(&["log", "verify", "--gallery", &gallery]).contains("no audit log"));
    let (place, signer) = logged(&folder);
    let said = succeeds(&["log", "verify", "--gallery", &gallery]);
    assert!(said.contains("nothing was edited") && said.contains("records 1 to 7"), "{said}");
    assert!(said.contains(&signer.public().fingerprint()), "{said}");
    let key = signer.public().to_string();
    succeeds(&["log", "verify", "--gallery", &gallery, "--key", &key]);
    // The third record: header, and two records of 83 and 101 bytes.
    let segment = place.folder().join("00000000000000000001.log");
    let mut bytes = std::fs::read(&segment).expect("a segment");
    let third = bytes.windows(8).position(|number| number == 3u64.to_le_bytes()).expect("it");
    bytes[third + 42] ^= 1;
    std::fs::write(&segment, bytes).expect("written");
    let edited = output(&["log", "verify", "--gallery", &gallery]);
    assert_eq!(edited.status.code(), Some(1));
    assert!(stdout(&edited).contains("FAULT    record 3 is damaged"), "{}", stdout(&edited));
    let json = facelatch(&["log", "verify", "--json", "--gallery", &gallery]).output();
    let json = &json_lines(&stdout(&json.expect("it runs")))[0];
    assert_eq!((&json["good"], &json["faults"][0]["record"]), (&false.into(), &3.into()));
}

#[test]
fn an_exported_log_is_verified_without_the_door() {
    let folder = TempDir::new().expect("a folder");
    let (place, signer) = logged(&folder);
    let file = at(folder.path(), "log.tar");
    let all = (i64::MIN, i64::MAX);
    export(&place, &signer, file.as_ref(), all, &stamp(true)).expect("exported");
    std::fs::remove_dir_all(place.folder()).expect("removed");
    let key = at(folder.path(), "door.pub");
    std::fs::write(&key, format!("{} door\n", signer.public())).expect("written");
    let said = succeeds(&["log", "verify", &file, "--key", &key]);
    assert!(said.contains("its signature holds") && said.contains("records 1 to 7"), "{said}");
    let other = Signer::new(&Secret::new([8; 32])).public().to_string();
    let refused = output(&["log", "verify", &file, "--key", &other]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stdout(&refused).contains("BUNDLE   its signature"), "{}", stdout(&refused));
    std::fs::write(&file, "no archive").expect("written");
    assert!(fails(&["log", "verify", &file]).contains("log.tar"));
}
