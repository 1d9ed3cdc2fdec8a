//! Each test that docs/threat-model.md names exists, so that no defence is claimed that is
//! no longer tried.

use std::path::{Path, PathBuf};

/// Texts in which tests are found by their name.
fn sources(folder: &Path, texts: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default();
        if path.is_dir() {
            sources(&path, texts);
        } else if ["rs", "py", "txt", "sh"].contains(&end) {
            let text = std::fs::read_to_string(&path).expect("text");
            texts.push((path, text));
        }
    }
}

/// Names in the column of tests: functions, titles of scenes and trials, and files.
fn named(document: &str) -> Vec<&str> {
    let rows = document.lines().filter(|line| line.starts_with("| "));
    let cells = rows.filter_map(|row| row.trim_matches('|').split(" | ").nth(2));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn every_test_of_the_threat_model_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document =
        std::fs::read_to_string(root.join("docs/threat-model.md")).expect("the threat model");
    let mut texts = vec![];
    let folders = ["src", "tests", "tools/src", "tools/tests", "packaging"];
    for folder in folders.into_iter().chain(["link/src", "link/tests", "site/src", "site/tests"]) {
        sources(&root.join(folder), &mut texts);
    }
    let exists = |name: &str| {
        root.join(name).exists()
            || texts.iter().any(|(_, text)| {
                [
                    format!("fn {name}("),
                    format!("def {name}("),
                    format!("# {name}\n"),
                    format!("Trial::test(\"{name}\""),
                    format!("name: \"{name}\""),
                ]
                .iter()
                .any(|form| text.contains(form))
            })
    };
    // Settings of the unit are no tests.
    let names: Vec<&str> =
        named(&document).into_iter().filter(|name| !name.contains('=')).collect();
    assert!(names.len() > 50, "the column of tests is not found: {names:?}");
    let missing: Vec<&&str> = names.iter().filter(|name| !exists(name)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
    // Files are named without quotes.
    let words = document.split([' ', ',', '|', '\n']);
    for file in words.filter(|word| word.starts_with("tests/") || word.starts_with("packaging/")) {
        assert!(root.join(file).exists(), "no such file: {file}");
    }
}
