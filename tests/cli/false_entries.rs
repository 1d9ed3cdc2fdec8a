//! `people report-false`, `people negatives` and `people alike`, and what `status` says.

use super::{
    ADMIRAL, ASTRONAUT, astronaut_and_admiral_come, at, enrolled, fails, json_lines, succeeds,
};
use serde_json::Value;
use tempfile::TempDir;

fn people<'a>(common: &[&'a str], arguments: &[&'a str]) -> Vec<&'a str> {
    [&["people"], arguments, common].concat()
}

#[test]
fn a_reported_view_no_longer_matches_and_a_picture_of_the_person_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let gallery = enrolled(&folder);
    let config = at(folder.path(), "door.toml");
    std::fs::write(&config, "[audit]\npictures = \"all\"\n").expect("written");
    let common = ["--config", &config, "--gallery", &gallery];
    astronaut_and_admiral_come(&folder, &config, &gallery);
    let id = |kind: &str| {
        let said = succeeds(&["log", "show", "--json", "--gallery", &gallery, "--kind", kind]);
        json_lines(&said)[0]["id"].to_string()
    };
    let name = || {
        let said = succeeds(&["identify", "--json", ASTRONAUT, "--gallery", &gallery]);
        json_lines(&said)[0]["faces"][0]["name"].clone()
    };
    let numbers = || -> Vec<String> {
        let said = succeeds(&people(&common, &["negatives", "list", "--json"]));
        json_lines(&said).iter().map(|line| line["number"].to_string()).collect()
    };
    let (granted, refused) = (id("granted"), id("refused"));
    // It really was her.
    let message = fails(&people(&common, &["report-false", &granted]));
    assert!(message.contains("1 of 1 enrolled views") && message.contains("--force"), "{message}");
    let message = fails(&people(&common, &["report-false", &refused]));
    assert!(message.contains("it is no admission but \"refused\""), "{message}");
    let message = fails(&people(&common, &["report-false", "9999"]));
    assert!(message.contains("not in the log"), "{message}");
    assert!(numbers().is_empty());
    let said = succeeds(&people(&common, &["report-false", "--picture", ADMIRAL]));
    assert!(said.contains("most similar to Eileen Collins") && said.contains("reported"), "{said}");
    assert_eq!(name(), "Eileen Collins");
    succeeds(&people(&common, &["report-false", &granted, "--force"]));
    succeeds(&people(&common, &["report-false", "--picture", ASTRONAUT, "--force"]));
    assert_eq!(name(), Value::Null);
    let status = &json_lines(&succeeds(&["status", "--json", "--gallery", &gallery]))[0];
    assert_eq!((&status["negatives"], &status["people"]), (&Value::from(3), &Value::from(1)));
    assert_eq!(status["false_entries"]["assumed"], true);
    let all = numbers();
    assert_eq!(all.len(), 3);
    succeeds(&people(&common, &["negatives", "remove", &all[0], &all[1], &all[2]]));
    assert_eq!(name(), "Eileen Collins");
    let message = fails(&people(&common, &["negatives", "remove", &all[0]]));
    assert!(message.contains("no reported false entry has the number"), "{message}");
    let said = succeeds(&["log", "show", "--gallery", &gallery, "--kind", "false entry reported"]);
    assert_eq!(said.lines().count(), 3, "{said}");
    assert!(succeeds(&people(&common, &["alike"])).contains("nobody resembles anybody"));
}
