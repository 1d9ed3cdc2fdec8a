//! `key`, and encrypted backups.

use super::{
    ASTRONAUT, at, enrolled, facelatch, fails, json_lines, output, stderr, stdout, succeeds,
};
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

#[test]
fn keys_are_shown_renewed_and_destroyed() {
    let folder = TempDir::new().expect("a folder");
    let gallery = at(folder.path(), "gallery.redb");
    // A state of its own: destroying a key must not take that of other tests.
    let output = |arguments: &[&str]| {
        let state = at(folder.path(), "state");
        let mut command = facelatch(&[arguments, &["--gallery", &gallery]].concat());
        command.env("XDG_STATE_HOME", state).output().expect("the program runs")
    };
    let key = |arguments: &[&str]| output(&[&["key"], arguments].concat());
    let enrolled = output(&["enroll", "Eileen Collins", "--image", ASTRONAUT]);
    assert!(enrolled.status.success(), "{}", stderr(&enrolled));
    let status = || json_lines(&stdout(&key(&["status", "--json"])))[0].clone();
    let before = status();
    assert_eq!(before["sealed"], true);
    assert_eq!(before["former_keys"], 0);
    assert!(before["key"].as_str().expect("a text").contains("door.key"), "{before}");
    assert!(before["protects"].as_str().expect("a text").contains("not a stolen card"));
    assert!(before["fingerprint"].as_str().expect("a text").starts_with("SHA256:"));
    assert!(key(&["rotate"]).status.success());
    assert!(key(&["rotate", "--templates"]).status.success());
    let after = status();
    assert_eq!(after["identity"], before["identity"]);
    assert_eq!(after["former_keys"], 1);
    let found = stdout(&output(&["identify", "--json", ASTRONAUT]));
    assert_eq!(json_lines(&found)[0]["faces"][0]["name"], "Eileen Collins");
    let refused = key(&["erase"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("--yes"), "{}", stderr(&refused));
    assert!(std::path::Path::new(&gallery).exists());
    let erased = key(&["erase", "--yes"]);
    assert!(erased.status.success(), "{}", stderr(&erased));
    assert!(stdout(&erased).contains("door.key: destroyed"), "{}", stdout(&erased));
    assert!(!std::path::Path::new(&gallery).exists());
    let listed = output(&["people", "list"]);
    assert!(stderr(&listed).contains("facelatch people new"), "{}", stderr(&listed));
}

#[test]
fn a_backup_is_encrypted_signed_and_restored() {
    let folder = TempDir::new().expect("a folder");
    let gallery = enrolled(&folder);
    let [backup, words, other] =
        ["backup.age", "words", "other.redb"].map(|name| at(folder.path(), name));
    std::fs::write(&words, "short\n").expect("written");
    let export = ["people", "export", &backup, "--passphrase-file", &words, "--gallery", &gallery];
    assert!(fails(&export).contains("shorter than 10"));
    std::fs::write(&words, "four words in a row\n").expect("written");
    assert_eq!(succeeds(&export), format!("1 people written to {backup}\n"));
    let mode = std::fs::metadata(&backup).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let status = succeeds(&["key", "status", "--json", "--gallery", &gallery]);
    let door = json_lines(&status)[0]["fingerprint"].as_str().expect("a text").to_owned();
    let import = |more: &[&str]| {
        let common =
            ["people", "import", &backup, "--passphrase-file", &words, "--gallery", &other];
        output(&[&common, more].concat())
    };
    let refused = import(&["--from", "SHA256:nonsense"]);
    assert!(stderr(&refused).contains(&format!("signed by the door {door}")));
    assert!(!std::path::Path::new(&other).exists(), "nothing was created");
    let done = import(&["--from", &door]);
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(stdout(&done).contains(&format!("signed by another door, {door}")));
    succeeds(&["people", "remove", "Eileen Collins", "--gallery", &gallery]);
    let restore = ["people", "restore", &backup, "--passphrase-file", &words];
    let said = succeeds(&[&restore[..], &["--gallery", &gallery]].concat());
    assert!(said.contains("signed by this door") && said.contains("1 people restored"), "{said}");
    let mut bytes = std::fs::read(&backup).expect("a file");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&backup, bytes).expect("written");
    assert!(stderr(&import(&[])).contains("changed"), "a changed file");
}

/// The service starts without the key: it locks, reports the fault, and knows nobody.
#[test]
fn a_door_whose_key_is_missing_runs_and_knows_nobody() {
    let folder = TempDir::new().expect("a folder");
    let gallery = enrolled(&folder);
    for keys in ["gallery.redb.keys", "gallery.last-good.redb.keys"] {
        let path = folder.path().join(keys);
        if path.exists() {
            std::fs::remove_file(path).expect("removed");
        }
    }
    let camera = format!("images:{ASTRONAUT}");
    let run = ["run", "--camera", &camera, "--relay", "log:", "--gallery", &gallery];
    let done = output(&run);
    let said = stderr(&done);
    assert!(said.contains("until then no face opens the door"), "{said}");
    assert!(done.status.success(), "{said}");
    assert!(!said.contains("Eileen Collins"), "{said}");
}
