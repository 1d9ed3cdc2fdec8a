//! The command `config`.

use super::{at, fails, succeeds};
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
