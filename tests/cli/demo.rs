//! The command `demo`.

use super::{at, enrolled, events, facelatch, fails, json_lines, stderr, succeeds};
use facelatch::vision::draw::{KNOWN, PLAIN, UNKNOWN};
use facelatch::vision::picture;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

#[test]
fn the_demo_goes_as_it_should_and_is_plain_off_a_terminal() {
    let folder = TempDir::new().expect("a folder");
    let frames = at(folder.path(), "frames");
    let drawn = at(folder.path(), "drawn");
    let said = succeeds(&["demo", "--save-frames", &frames, "--save", &drawn]);
    assert!(said.contains("every decision was right"), "{said}");
    assert_eq!(said.matches("door unlocked").count(), 1, "{said}");
    assert!(!said.contains('\x1b'), "{said:?}");
    assert_drawn(&frames, &drawn);
    // `run` on the recorded frames gives the same result.
    let gallery = enrolled(&folder);
    let camera = format!("images:{frames}/3-*.png?fps=10");
    let arguments = ["run", "--camera", &camera, "--gallery", &gallery, "--json"];
    let said = succeeds(&arguments);
    let granted = events(&said, "granted");
    assert_eq!(granted.len(), 1, "{said}");
    assert_eq!(granted[0]["name"], "Eileen Collins");
    assert!(granted[0]["similarity"].as_f64() >= granted[0]["threshold"].as_f64());
    assert_eq!(events(&said, "unlocked").len(), 1);
    let last = json_lines(&said).pop().expect("events");
    assert_eq!(last["event"], "locked");
    let camera = format!("images:{frames}/4-*.png");
    let said = succeeds(&["run", "--camera", &camera, "--gallery", &gallery, "--json"]);
    assert_eq!(events(&said, "granted").len(), 0, "{said}");
    assert_eq!(events(&said, "refused").len(), 1, "{said}");
    let said = succeeds(&[
        "run",
        "--camera",
        &camera,
        "--gallery",
        &gallery,
        "--json",
        "--max-frames",
        "2",
    ]);
    assert_eq!(events(&said, "refused").len(), 0, "{said}");
}

#[test]
fn a_demo_that_is_stopped_leaves_nothing_behind() {
    let folder = TempDir::new().expect("a folder");
    let mut demo = facelatch(&["demo"])
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut lines = BufReader::new(demo.stdout.take().expect("its output")).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line.contains("a stranger"))));
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
    let id = demo.id().to_string();
    assert!(Command::new("kill").args(["-s", "INT", &id]).status().expect("kill runs").success());
    lines.map_while(Result::ok).for_each(drop);
    let ended = demo.wait_with_output().expect("an end");
    assert_eq!(ended.status.code(), Some(1));
    assert!(stderr(&ended).contains("stopped by a signal"), "{}", stderr(&ended));
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

/// Asserts that the drawn frames show the door: red after a refusal, green while it is
/// open.
#[track_caller]
fn assert_drawn(frames: &str, drawn: &str) {
    for (name, door) in [
        ("1-00-far.png", PLAIN),
        ("2-29-near.png", UNKNOWN),
        ("3-29-near.png", KNOWN),
        ("4-29-near.png", UNKNOWN),
    ] {
        let read = |folder: &str| picture::read(Path::new(folder).join(name)).expect("a frame");
        let (frame, drawn) = (read(frames), read(drawn));
        assert_eq!((drawn.width(), drawn.height()), (frame.width(), frame.height()));
        assert_eq!(drawn.pixel(639, 479), door, "{name}");
        assert_ne!(frame.pixel(639, 479), door, "{name}");
        let boxed = (0..400).any(|y| (0..640).any(|x| drawn.pixel(x, y) == door));
        assert_eq!(boxed, door != PLAIN, "{name}");
    }
    let message = fails(&["demo", "--save", drawn, "--save-frames", drawn]);
    assert!(message.contains("name the same folder"), "{message}");
}
