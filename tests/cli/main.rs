//! The command line as users see it: arguments, output, exit codes, signals.

mod config;
mod demo;
mod false_entries;
mod images;
mod key;
mod log;
mod log_show;
mod models;
mod people;
mod run;

use facelatch::vision::picture;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;

const ASTRONAUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/astronaut.jpg");
const ADMIRAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/grace_hopper.jpg");
const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models");
/// Where the program remembers galleries.
const STATE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/state");
/// Timeout for events that must happen: far longer than they take.
const PATIENCE: Duration = Duration::from_secs(60);

fn facelatch(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_facelatch"));
    command.args(arguments).env_remove("RUST_LOG").env("XDG_STATE_HOME", STATE);
    if arguments.first() != Some(&"run") {
        return command;
    }
    // Each service gets its own folders for its socket and its state, as under systemd.
    static SERVICES: AtomicUsize = AtomicUsize::new(0);
    let name = format!("{}-{}", std::process::id(), SERVICES.fetch_add(1, Ordering::Relaxed));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    command.env("RUNTIME_DIRECTORY", &folder).env("STATE_DIRECTORY", &folder);
    command
}

fn output(arguments: &[&str]) -> Output {
    facelatch(arguments).output().expect("the program runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

#[track_caller]
fn succeeds(arguments: &[&str]) -> String {
    let output = output(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    stdout(&output)
}

#[track_caller]
fn fails(arguments: &[&str]) -> String {
    let output = output(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", stdout(&output));
    let message = stderr(&output);
    assert!(!message.contains("panicked"), "{message}");
    message
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn at(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().expect("a plain path").to_owned()
}

/// Path of a gallery in which the astronaut is enrolled.
fn enrolled(folder: &TempDir) -> String {
    let gallery = at(folder.path(), "gallery.redb");
    let said = succeeds(&["enroll", "Eileen Collins", "--image", ASTRONAUT, "--gallery", &gallery]);
    assert!(said.contains("1 template added"), "{said}");
    gallery
}

/// YUV4MPEG2 video of the portrait near the camera: `count` frames, 4:4:4.
fn video(portrait: &str, count: usize) -> Vec<u8> {
    let frame = picture::read(Path::new(portrait)).expect("a portrait");
    let mut planes = vec![Vec::new(), Vec::new(), Vec::new()];
    for pixel in frame.pixels().chunks_exact(3) {
        let [r, g, b] = [f32::from(pixel[0]), f32::from(pixel[1]), f32::from(pixel[2])];
        // BT.601, limited range.
        planes[0].push((16.0 + 0.257 * r + 0.504 * g + 0.098 * b) as u8);
        planes[1].push((128.0 - 0.148 * r - 0.291 * g + 0.439 * b) as u8);
        planes[2].push((128.0 + 0.439 * r - 0.368 * g - 0.071 * b) as u8);
    }
    let (width, height) = (frame.width(), frame.height());
    let mut video = format!("YUV4MPEG2 W{width} H{height} F10:1 Ip C444\n").into_bytes();
    for _ in 0..count {
        video.extend(b"FRAME\n");
        for plane in &planes {
            video.extend(plane);
        }
    }
    video
}

fn events(text: &str, kind: &str) -> Vec<Value> {
    json_lines(text).into_iter().filter(|event| event["event"] == kind).collect()
}

#[test]
fn wrong_usage_is_exit_code_two_and_help_is_for_everybody() {
    for arguments in [&["detect"][..], &["fly"], &["enroll", "A"], &["run", "--frames"]] {
        assert_eq!(output(arguments).status.code(), Some(2), "{arguments:?}");
    }
    for command in [
        "demo", "run", "enroll", "people", "detect", "embed", "identify", "models", "status",
        "door", "bench",
    ] {
        assert!(succeeds(&[command, "--help"]).contains("Usage: facelatch"), "{command}");
    }
}

/// Two runs of a door with this configuration, for the audit log: the astronaut comes, and
/// then the admiral.
fn astronaut_and_admiral_come(folder: &TempDir, config: &str, gallery: &str) {
    for (name, photo) in [("astronaut", ASTRONAUT), ("admiral", ADMIRAL)] {
        let frames = folder.path().join(name);
        std::fs::create_dir(&frames).expect("a folder");
        for number in 0..4 {
            std::fs::copy(photo, frames.join(format!("{number}.jpg"))).expect("copied");
        }
        let camera = format!("images:{}", frames.display());
        let run = ["run", "--config", config, "--gallery", gallery, "--camera", &camera];
        let done = facelatch(&[&run[..], &["--relay", "log:"]].concat()).output();
        let done = done.expect("the program runs");
        assert!(done.status.success(), "{}", stderr(&done));
    }
}
