//! The command `config`.

use super::{at, facelatch, fails, stderr, stdout, succeeds};
use serde_json::Value;
use std::path::Path;
use tempfile::TempDir;

#[test]
fn the_example_is_a_configuration_and_what_is_printed_is_the_same() {
    let folder = TempDir::new().expect("a folder");
    let file = at(folder.path(), "facelatch.toml");
    std::fs::write(&file, succeeds(&["config", "example"])).expect("written");
    let checked = succeeds(&["config", "check", &file]);
    assert_eq!(checked, format!("{file}: valid; 0 settings, 0 pieces of advice\n"));
    // This machine may have a configuration of its own.
    let empty = at(folder.path(), "empty.toml");
    std::fs::write(&empty, "").expect("written");
    let printed = succeeds(&["config", "print", "--config", &empty]);
    assert_eq!(succeeds(&["config", "print", "--config", &file]), printed);
    std::fs::write(&file, &printed).expect("written");
    let json = |arguments: &[&str]| -> Value {
        let said = succeeds(&[&["config", "print", "--json"], arguments].concat());
        serde_json::from_str(&said).expect("JSON")
    };
    let (full, default) = (json(&["--config", &file]), json(&["--config", &empty]));
    assert_eq!(full["config"], default["config"]);
    assert!(full["set"]["door.open_for"].is_array() && full["file"] == file.as_str());
    let system = "/etc/facelatch/facelatch.toml";
    if Path::new(system).exists() {
        assert_eq!(json(&[])["file"], system);
    } else {
        assert_eq!(succeeds(&["config", "print"]), printed);
        assert!(json(&[])["file"].is_null());
    }
}

#[test]
fn a_configuration_is_checked_with_place_and_cure() {
    let folder = TempDir::new().expect("a folder");
    let file = at(folder.path(), "facelatch.toml");
    std::fs::write(&file, "[door]\nopen_fro = \"4s\"\n").expect("written");
    let expected = format!("{file}:2:1: unknown key door.open_fro; did you mean door.open_for?");
    for arguments in [
        ["config", "check", &file].as_slice(),
        &["config", "print", "--config", &file],
        &["status", "--config", &file],
    ] {
        assert!(fails(arguments).contains(&expected), "{arguments:?}");
    }
    std::fs::write(&file, "[liveness]\nmode = \"enforce\"\n").expect("written");
    let said = succeeds(&["config", "check", &file]);
    assert!(said.contains(&format!("{file}:2:1: liveness.mode is \"enforce\"")), "{said}");
    assert!(said.ends_with("valid; 1 setting, 1 piece of advice\n"), "{said}");
    let missing = at(folder.path(), "none.toml");
    assert!(fails(&["config", "check", &missing]).contains("facelatch config example prints one"));
    // Only if the machine has no configuration in /etc.
    if !Path::new("/etc/facelatch/facelatch.toml").exists() {
        let said = succeeds(&["config", "check"]);
        assert_eq!(said, "defaults: valid; 0 settings, 0 pieces of advice\n");
    }
}

#[test]
fn what_cannot_be_meant_is_named_with_its_place() {
    let folder = TempDir::new().expect("a folder");
    let file = at(folder.path(), "facelatch.toml");
    let write = |bytes: &[u8]| std::fs::write(&file, bytes).expect("written");
    for (bytes, expected) in [
        (&b"[door]\nopen_for = \"4s\" # caf\xe9\n"[..], ":2:22: line 2 is not UTF-8"),
        (b"\xff\xfe[\0d\0o\0o\0r\0]\0", ":1:1: saved as Unicode by Notepad (UTF-16)"),
        (b"[door]\n[relay]\n[door]\n", ":3:2: [door] is already in line 1; merge the two"),
        (b"[camera]\nuri = \"pipe:\"\n", ":2:1: camera.uri = \"pipe:\": names no program"),
        (b"[camera]\nuri = \"images:\"\n", ":2:1: camera.uri = \"images:\": names no pictures"),
        (b"[recognition]\nfalse_accept_rate = 0.99\n", "expected 1e-2 at most"),
    ] {
        write(bytes);
        let message = fails(&["config", "check", &file]);
        assert!(message.contains(&file) && message.contains(expected), "{message}");
    }
    write(b"[groups.Staff]\nhours = [\"fri 18:00-18:00\"]\n[schedule]\nclock = \"trusted\"\n");
    let said = succeeds(&["config", "check", &file]);
    for expected in ["no table [groups.staff]", "did you mean \"Staff\"?", "lasts 24 hours"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let output = facelatch(&["config", "check", &file]).env("TZ", "Europe/Berln").output();
    let said = stdout(&output.expect("the program runs"));
    assert!(said.contains("TZ=\"Europe/Berln\" is no time zone"), "{said}");
}

#[test]
fn secrets_of_a_camera_are_not_printed() {
    let folder = TempDir::new().expect("a folder");
    let file = at(folder.path(), "facelatch.toml");
    let command = "TOKEN=QX1 ffmpeg -i 'rtsp://QX2:QX3@cam/QX4?key=QX5' -headers 'A: QX6' -p QX7 -";
    std::fs::write(&file, format!("[camera]\nuri = \"pipe:{command}\"\n")).expect("written");
    let shot = at(folder.path(), "shot.png");
    for arguments in [
        &["config", "print", "--config", &file][..],
        &["config", "print", "--json", "--config", &file],
        &["config", "check", &file],
        &["camera", "shot", &shot, "--config", &file],
    ] {
        // Nothing answers at that address, wherever ffmpeg is installed.
        let output = facelatch(arguments).output().expect("the program runs");
        let said = stdout(&output) + &stderr(&output);
        assert!(!said.contains("QX"), "{arguments:?}: {said}");
    }
    std::fs::write(&file, format!("[camera]\nuri = [\"pipe:{command}\"]\n")).expect("written");
    let message = fails(&["config", "check", &file]);
    assert!(message.contains("camera.uri = ***: expected text"), "{message}");
}
