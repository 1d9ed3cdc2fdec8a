//! `log show` and `log explain`: what commands and the service wrote.

use super::{astronaut_and_admiral_come, at, enrolled, fails, json_lines, succeeds};
use serde_json::Value;
use std::path::Path;
use tempfile::TempDir;

fn shown(gallery: &str, more: &[&str]) -> Vec<Value> {
    let said = succeeds(&[&["log", "show", "--json", "--gallery", gallery], more].concat());
    json_lines(&said)
}

/// All bytes of the log's files.
fn on_disk(gallery: &str) -> Vec<u8> {
    let folder = format!("{gallery}.audit");
    let files = std::fs::read_dir(folder).expect("the log");
    files.flat_map(|file| std::fs::read(file.expect("a file").path()).unwrap_or_default()).collect()
}

#[test]
fn changes_of_people_are_shown_with_who_made_them_and_kept_without_names() {
    let folder = TempDir::new().expect("a folder");
    let gallery = enrolled(&folder);
    let people = |arguments: &[&str]| {
        succeeds(&[&["people"], arguments, &["--gallery", &gallery]].concat());
    };
    people(&["rename", "Eileen Collins", "Eileen"]);
    people(&["group", "Eileen", "night"]);
    people(&["admin", "Eileen"]);
    people(&["dates", "Eileen", "--until", "2026-12-31T17:00Z"]);
    let log = shown(&gallery, &["--kind", "people"]);
    let what: Vec<&str> =
        log.iter().map(|one| one["changes"][0]["what"].as_str().expect("a change")).collect();
    assert_eq!(what, ["added", "renamed", "group", "administrator", "dates"]);
    assert_eq!(log[1]["changes"][0]["name"], "Eileen");
    assert_eq!(log[2]["changes"][0]["new"], "night");
    assert_eq!(log[4]["changes"][0]["new"], serde_json::json!([null, 1_798_736_400]));
    let uid = rustix_uid();
    assert!(log.iter().all(|one| one["by"]["via"] == "command line" && one["by"]["uid"] == uid));
    people(&["remove", "Eileen"]);
    let text = succeeds(&["log", "show", "--gallery", &gallery, "--last", "1"]);
    assert!(text.contains("person 1 removed with 1 template"), "{text}");
    let text = succeeds(&["log", "show", "--gallery", &gallery, "--person", "1"]);
    assert!(text.contains("person 1 (removed) added with 1 template"), "{text}");
    let bytes = on_disk(&gallery);
    let named = |name: &[u8]| bytes.windows(name.len()).any(|part| part == name);
    assert!(named(b"night") && !named(b"Eileen"));
    let message = fails(&["log", "show", "--gallery", &gallery, "--person", "Eileen"]);
    assert!(message.contains("nobody who is enrolled has this name"), "{message}");
    let csv = succeeds(&["log", "show", "--gallery", &gallery, "--csv"]);
    assert!(csv.starts_with("id,time,clock_trusted,event,") && csv.contains("\r\n"), "{csv}");
}

#[test]
fn an_opening_is_explained_replayed_and_shown_with_its_picture() {
    let folder = TempDir::new().expect("a folder");
    let gallery = enrolled(&folder);
    let config = at(folder.path(), "back.toml");
    std::fs::write(&config, "[audit]\npictures = \"all\"\nreplay = true\n").expect("written");
    astronaut_and_admiral_come(&folder, &config, &gallery);
    let log = shown(&gallery, &["--door", "back"]);
    let of = |kind: &str| log.iter().find(|one| one["event"] == kind).cloned().expect(kind);
    let granted = of("granted");
    assert_eq!(granted["name"], "Eileen Collins");
    assert_eq!(granted["votes"].as_array().map(Vec::len), Some(3));
    let order = |kind: &str| log.iter().position(|one| one["event"] == kind);
    assert!(order("granted") < order("unlocked"), "{log:?}");
    let settings = of("configuration")["changes"].to_string();
    assert!(settings.contains("\"audit.pictures\""), "{settings}");
    for (kind, expected) in [("granted", "recognized Eileen Collins"), ("refused", "refused")] {
        let id = of(kind)["id"].to_string();
        let picture = at(folder.path(), &format!("{kind}.png"));
        let explain = ["log", "explain", &id, "--config", &config, "--gallery", &gallery];
        let text = succeeds(&[&explain[..], &["--replay", "--picture", &picture]].concat());
        assert!(
            text.contains(expected) && text.contains("the same decision, bit for bit"),
            "{text}"
        );
        assert!(std::fs::read(&picture).expect("a picture").starts_with(b"\x89PNG"));
    }
    let stricter = "[recognition]\nfalse_accept_rate = \"1e-6\"\n";
    std::fs::write(&config, stricter).expect("written");
    let id = granted["id"].to_string();
    let explain = ["log", "explain", &id, "--config", &config, "--gallery", &gallery, "--replay"];
    let text = succeeds(&explain);
    assert!(text.contains("The rules are different today:\n  threshold: "), "{text}");
    let bytes = on_disk(&gallery);
    assert!(!bytes.windows(6).any(|part| part == b"Eileen"));
    assert!(Path::new(&format!("{gallery}.audit/pictures")).is_dir());
    let verified = succeeds(&["log", "verify", "--gallery", &gallery]);
    assert!(!verified.is_empty());
    let message = fails(&["log", "explain", "99999", "--gallery", &gallery]);
    assert!(message.contains("not in the log"), "{message}");
}

fn rustix_uid() -> Value {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find(|line| line.starts_with("Uid:")).expect("a user");
    let uid = line.split_whitespace().nth(1).and_then(|uid| uid.parse::<u64>().ok());
    Value::from(uid.expect("a number"))
}
