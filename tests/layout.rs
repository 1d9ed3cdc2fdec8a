//! The rooms of `src/` and `tools/src/`, and who may import whom. An import against the
//! table, or a file in no room, fails with its place.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// A room, and the rooms that it may import.
type Rule = (&'static str, &'static [&'static str]);

/// From the ground up: a room imports only rooms above it in this list. `cli` belongs to
/// the program and imports the library as `facelatch`.
const DEVICE: &[Rule] = &[
    ("nn", &[]),
    ("models", &["nn"]),
    ("vision", &["nn", "models"]),
    ("access", &["vision", "models"]),
    ("audit", &["models", "vision", "access"]),
    ("storage", &["audit", "access", "vision", "models", "nn"]),
    ("hardware", &["vision"]),
    // Lights show what a decision means.
    ("hardware/lights", &["vision", "access"]),
    ("config", &["access", "vision", "hardware", "models"]),
    ("service", &["nn", "models", "vision", "access", "audit", "storage", "hardware", "config"]),
    (
        "cli",
        &["nn", "models", "vision", "access", "audit", "storage", "hardware", "config", "service"],
    ),
];

/// Belong to no room; all rooms may import them. `crypto` is a crate of its own.
const DEVICE_LEAVES: &[&str] = &["crypto", "files", "files/mod", "files/kind"];
const LEAVES: &[&str] = &["chance", "device", "files", "parallel"];

const TOOLS: &[Rule] = &[
    ("weights", &[]),
    ("networks", &["weights"]),
    ("data", &[]),
    ("measure", &["data"]),
    ("train", &["data", "networks", "weights", "measure"]),
    ("quantize", &["networks", "weights", "data", "measure"]),
    ("deliver", &["networks", "train"]),
    ("cli", &["weights", "networks", "data", "measure", "train", "quantize", "deliver"]),
];

/// What the tools may take from the door's library: no devices, no service.
const SHARED: &[&str] = &["files", "crypto", "nn", "models", "vision", "storage"];

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = vec![];
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Lines with code that is compiled into the program: no comments, no tests.
fn code(text: &str) -> Vec<(usize, String)> {
    let mut lines = vec![];
    // Braces that are open since a `#[cfg(test)] mod`, and whether one is about to open.
    let (mut depth, mut test, mut inside) = (0i64, false, false);
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split("//").next().unwrap_or("");
        if inside {
            depth += line.matches('{').count() as i64 - line.matches('}').count() as i64;
            inside = depth > 0;
            continue;
        }
        let trimmed = line.trim();
        if trimmed.starts_with("#[cfg(test)]") {
            test = true;
            continue;
        }
        if std::mem::take(&mut test) {
            depth = line.matches('{').count() as i64 - line.matches('}').count() as i64;
            inside = depth > 0;
            continue;
        }
        lines.push((number, line.to_owned()));
    }
    lines
}

/// Names that follow `PREFIX::` in a line.
fn imported<'l>(line: &'l str, prefix: &str) -> Vec<&'l str> {
    let mut names = vec![];
    for (at, _) in line.match_indices(prefix) {
        let boundary = line[..at].chars().next_back();
        if boundary.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &line[at + prefix.len()..];
        let name = |text: &'l str| {
            let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
            &text[..end]
        };
        match rest.strip_prefix('{') {
            Some(list) => {
                let list = list.split('}').next().unwrap_or(list);
                names.extend(list.split(',').map(|entry| name(entry.trim())));
            }
            None => names.push(name(rest)),
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The row of the table that holds for a file: the longest one that fits.
fn rule(table: &'static [Rule], file: &str) -> Option<&'static Rule> {
    let holds = |room: &str| {
        file.strip_prefix(room).is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
    };
    table.iter().filter(|(room, _)| holds(room)).max_by_key(|(room, _)| room.len())
}

/// Faults of a tree of sources, one per line.
fn faults(root: &Path, table: &'static [Rule], leaves: &[&str], library: &str) -> String {
    let mut faults = String::new();
    for path in rust_files(root) {
        let file = path.strip_prefix(root).expect("below its root").to_string_lossy().into_owned();
        let name = file.strip_suffix(".rs").unwrap_or(&file);
        if name == "main" || name == "lib" {
            continue;
        }
        let allowed = match rule(table, &file) {
            Some((_, allowed)) => *allowed,
            None if leaves.contains(&name) => &[],
            None => {
                let _ = writeln!(faults, "{}: is in no room", path.display());
                continue;
            }
        };
        let own = file.split('/').next().unwrap_or(&file);
        let text = std::fs::read_to_string(&path).expect("a source file");
        for (number, line) in code(&text) {
            for (prefix, outside) in
                [("crate::", own == "cli" && library == "facelatch::"), (library, false)]
            {
                if outside {
                    continue;
                }
                let shared = prefix == "facelatch::" && library == prefix && table == TOOLS;
                for room in imported(&line, prefix) {
                    let fine = if shared {
                        SHARED.contains(&room) || own == "cli"
                    } else {
                        room == own || allowed.contains(&room) || leaves.contains(&room)
                    };
                    if !fine {
                        let rule = format!("{own} may import {allowed:?}");
                        let _ =
                            writeln!(faults, "{}:{number}: {prefix}{room}; {rule}", path.display());
                    }
                }
            }
        }
    }
    faults
}

#[test]
fn every_import_of_the_door_goes_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let faults = faults(&root, DEVICE, DEVICE_LEAVES, "facelatch::");
    assert!(faults.is_empty(), "against the table in tests/layout.rs:\n{faults}");
}

#[test]
fn every_import_of_the_tools_goes_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/src");
    let faults = faults(&root, TOOLS, LEAVES, "facelatch::");
    assert!(faults.is_empty(), "against the table in tests/layout.rs:\n{faults}");
}

#[test]
fn src_holds_the_rooms_and_nothing_else() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut names: Vec<String> = std::fs::read_dir(root)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let mut rooms: Vec<&str> =
        DEVICE.iter().map(|(room, _)| *room).filter(|room| !room.contains('/')).collect();
    rooms.extend(["files", "lib.rs", "main.rs"]);
    rooms.sort_unstable();
    assert_eq!(names, rooms);
}

#[test]
fn comments_and_tests_do_not_count_and_lists_do() {
    let text = "use crate::nn::X; // crate::cli\n#[cfg(test)]\nmod tests {\n    use crate::cli;\n}\n\
                pub(crate) use crate::{models::M, vision};\n";
    let found: Vec<(usize, Vec<String>)> = code(text)
        .iter()
        .map(|(number, line)| {
            (*number, imported(line, "crate::").into_iter().map(str::to_owned).collect())
        })
        .filter(|(_, names): &(usize, Vec<String>)| !names.is_empty())
        .collect();
    let expected = [(1, vec!["nn"]), (6, vec!["models", "vision"])];
    let expected =
        expected.map(|(number, names)| (number, names.into_iter().map(str::to_owned).collect()));
    assert_eq!(found, expected);
}
