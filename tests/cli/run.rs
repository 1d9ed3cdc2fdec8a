//! `run`: cameras, signals and changes while it runs.

use super::{
    ASTRONAUT, PATIENCE, at, enrolled, events, facelatch, json_lines, output, stderr, succeeds,
    video,
};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// Path of a configuration for a camera that repeats one picture.
fn still_pictures(folder: &TempDir) -> String {
    let config = at(folder.path(), "facelatch.toml");
    let text = "[door]\nopen_for = \"50s\"\n[recognition]\ndistinct_views = false\n";
    std::fs::write(&config, text).expect("written");
    config
}

#[test]
fn a_camera_that_hangs_opens_nothing() {
    let folder = TempDir::new().expect("a folder");
    let gallery = enrolled(&folder);
    let file = at(folder.path(), "near.y4m");
    std::fs::write(&file, video(ASTRONAUT, 1)).expect("written");
    let frame_bytes = video(ASTRONAUT, 2).len() - video(ASTRONAUT, 1).len();
    // A camera program counts as frozen only after 15 seconds of identical frames, because
    // it may send coded video.
    let camera = format!("pipe:cat {file}; while tail -c {frame_bytes} {file}; do sleep 0.5; done");
    let arguments = ["run", "--camera", &camera, "--gallery", &gallery, "--max-frames", "40"];
    let said = succeeds(&[&arguments[..], &["--json"]].concat());
    assert_eq!(events(&said, "granted").len(), 0, "{said}");
    assert_eq!(events(&said, "camera away").len(), 1, "{said}");
}

#[test]
fn a_camera_that_ends_by_a_fault_fails_the_run_after_the_door_is_locked() {
    let folder = TempDir::new().expect("a folder");
    let gallery = at(folder.path(), "gallery.redb");
    let camera = "images:/no/such/folder";
    let ended = output(&["run", "--camera", camera, "--gallery", &gallery, "--json"]);
    assert_eq!(ended.status.code(), Some(1));
    let message = stderr(&ended);
    assert!(message.contains("camera: ") && message.contains("/no/such/folder"), "{message}");
    assert!(message.contains("relay off"), "{message}");
}

#[test]
fn a_pipe_that_ends_is_begun_anew() {
    let folder = TempDir::new().expect("a folder");
    let gallery = enrolled(&folder);
    let file = at(folder.path(), "near.y4m");
    std::fs::write(&file, video(ASTRONAUT, 1)).expect("written");
    let frame_bytes = video(ASTRONAUT, 2).len() - video(ASTRONAUT, 1).len();
    // The program ends after its first frame. After its restart it sends frames without
    // end, so that dropped live frames do not matter.
    let mark = at(folder.path(), "begun");
    let camera = format!(
        "pipe:[ -e {mark} ] || {{ : > {mark}; exec cat {file}; }}; sleep 1; cat {file}; \
         while sleep 0.15; do tail -c {frame_bytes} {file} || exit; done"
    );
    let config = still_pictures(&folder);
    let arguments = ["run", "--config", &config, "--camera", &camera, "--gallery", &gallery];
    let said = succeeds(&[&arguments[..], &["--max-frames", "7", "--json"]].concat());
    assert_eq!(events(&said, "granted").len(), 1, "{said}");
    assert_eq!(events(&said, "camera away").len(), 1, "{said}");
    assert_eq!(events(&said, "camera back").len(), 1, "{said}");
    assert_eq!(json_lines(&said).pop().expect("events")["event"], "locked");
}

#[test]
fn a_video_that_lies_or_breaks_off_is_named() {
    let folder = TempDir::new().expect("a folder");
    let gallery = at(folder.path(), "gallery.redb");
    for (command, expected) in [
        ("printf 'YUV4MPEG2 W640 H480\\nFRAME\\nabc'", "cut short within a frame: 3 of 460800"),
        (
            "printf 'YUV4MPEG2 W2 H2 Cmono\\nFRAME\\nabcdefgh'",
            "expected FRAME after frame 1, found \"efgh\"",
        ),
        ("printf 'YUV4MPEG2 W640000 H480\\n'", "a size outside"),
        ("true", "not a YUV4MPEG2 stream"),
    ] {
        let camera = format!("pipe:{command}");
        let mut service = facelatch(&["run", "--camera", &camera, "--gallery", &gallery])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let mut log = BufReader::new(service.stderr.take().expect("its log")).lines();
        // It is restarted again and again, and the fault is logged each time.
        assert!(log.any(|line| line.is_ok_and(|line| line.contains(expected))), "{expected}");
        end(&mut service, "TERM");
        assert_eq!(service.wait().expect("an end").code(), Some(0));
    }
}

fn end(service: &mut Child, signal: &str) {
    let id = service.id().to_string();
    assert!(Command::new("kill").args(["-s", signal, &id]).status().expect("kill runs").success());
}

/// Starts `run` on an endless camera with the relay on a pseudo-terminal, waits until the
/// door is open and sends a signal: the relay is de-energised and the exit code is 0.
#[test]
fn a_signal_locks_the_door_and_ends_the_service() {
    use serialport::{SerialPort, TTYPort};
    use std::io::Read;
    let folder = TempDir::new().expect("a folder");
    let gallery = enrolled(&folder);
    let file = at(folder.path(), "near.y4m");
    std::fs::write(&file, video(ASTRONAUT, 1)).expect("written");
    let frame_bytes = video(ASTRONAUT, 2).len() - video(ASTRONAUT, 1).len();
    let camera =
        format!("pipe:cat {file}; while sleep 0.1; do tail -c {frame_bytes} {file} || exit; done");
    let (mut board, port) = TTYPort::pair().expect("a pair of terminals");
    board.set_timeout(PATIENCE).expect("a timeout");
    let relay = format!("serial:{}", port.name().expect("a path"));
    let config = still_pictures(&folder);
    let arguments = [
        "run",
        "--config",
        &config,
        "--camera",
        &camera,
        "--relay",
        &relay,
        "--gallery",
        &gallery,
        "--json",
    ];
    for signal in ["TERM", "INT"] {
        let mut service = facelatch(&arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program runs");
        let mut lines = BufReader::new(service.stdout.take().expect("its output")).lines();
        assert!(lines.any(|line| line.is_ok_and(|line| line.contains("\"unlocked\""))));
        end(&mut service, signal);
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        assert!(rest.last().expect("a last event").contains("\"locked\""), "{rest:?}");
        assert_eq!(service.wait().expect("an end").code(), Some(0));
        let mut sent = vec![0; board.bytes_to_read().expect("a count") as usize];
        board.read_exact(&mut sent).expect("all commands");
        let mut states: Vec<u8> = sent.chunks(4).map(|command| command[2]).collect();
        // Some commands come twice: from the relay's thread and from the door.
        states.dedup();
        assert_eq!(states, [0, 1, 0], "off at the start, on, off at the end");
    }
}

#[test]
fn somebody_removed_meanwhile_is_no_longer_let_in() {
    let folder = TempDir::new().expect("a folder");
    let gallery = enrolled(&folder);
    let file = at(folder.path(), "near.y4m");
    std::fs::write(&file, video(ASTRONAUT, 1)).expect("written");
    let frame_bytes = video(ASTRONAUT, 2).len() - video(ASTRONAUT, 1).len();
    // The camera shows the face only once the gate file exists.
    let gate = at(folder.path(), "gate");
    let header = format!("head -n 1 {file}");
    let camera = format!(
        "pipe:{header}; until [ -e {gate} ]; do sleep 0.1; done; \
         while tail -c {frame_bytes} {file}; do sleep 0.2; done"
    );
    let config = still_pictures(&folder);
    let arguments = ["run", "--config", &config, "--camera", &camera, "--gallery", &gallery];
    let mut service = facelatch(&[&arguments[..], &["--json"]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut log = BufReader::new(service.stderr.take().expect("its log")).lines();
    assert!(log.any(|line| line.is_ok_and(|line| line.contains("1 people"))));
    succeeds(&["people", "remove", "Eileen Collins", "--gallery", &gallery]);
    assert!(log.any(|line| line.is_ok_and(|line| line.contains("0 people"))));
    std::fs::write(&gate, "").expect("written");
    let rest = std::thread::spawn(move || log.map_while(Result::ok).count());
    let mut told = BufReader::new(service.stdout.take().expect("its output")).lines();
    let mut said = Vec::new();
    for line in told.by_ref().map_while(Result::ok) {
        let refused = line.contains("\"refused\"");
        said.push(line);
        if refused {
            break;
        }
    }
    end(&mut service, "TERM");
    said.extend(told.map_while(Result::ok));
    assert_eq!(service.wait().expect("an end").code(), Some(0));
    rest.join().expect("the log");
    let said = said.join("\n");
    assert_eq!(events(&said, "granted").len(), 0, "{said}");
    assert!(!events(&said, "refused").is_empty(), "{said}");
}
