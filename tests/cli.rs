//! The command line as users see it: arguments, output, exit codes, signals.

use facelatch::models::sha256_hex;
use facelatch::vision::frame::Frame;
use facelatch::vision::picture;
use image::{DynamicImage, ImageFormat, RgbImage};
use serde_json::Value;
use std::io::{BufRead, BufReader, Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const ASTRONAUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/astronaut.jpg");
const ADMIRAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/grace_hopper.jpg");
const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models");
/// Timeout for events that must happen: far longer than they take.
const PATIENCE: Duration = Duration::from_secs(60);

fn facelatch(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_facelatch"));
    command.args(arguments).env_remove("RUST_LOG");
    if arguments.first() != Some(&"run") {
        return command;
    }
    // Each service gets its own folder for its socket, as under systemd.
    static SERVICES: AtomicUsize = AtomicUsize::new(0);
    let name = format!("{}-{}", std::process::id(), SERVICES.fetch_add(1, Ordering::Relaxed));
    command.env("RUNTIME_DIRECTORY", Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
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
fn the_demo_goes_as_it_should_and_is_plain_off_a_terminal() {
    let folder = TempDir::new().expect("a folder");
    let frames = at(folder.path(), "frames");
    let said = succeeds(&["demo", "--save", &frames]);
    assert!(said.contains("every decision was right"), "{said}");
    assert_eq!(said.matches("door unlocked").count(), 1, "{said}");
    assert!(!said.contains('\x1b'), "{said:?}");
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

/// Reading a missing gallery must not create one.
#[test]
fn looking_begins_no_gallery() {
    let folder = TempDir::new().expect("a folder");
    let gallery = at(folder.path(), "none/gallery.redb");
    let missing = at(folder.path(), "missing.redb");
    let faces = succeeds(&["identify", "--json", ASTRONAUT, "--gallery", &gallery]);
    assert_eq!(json_lines(&faces)[0]["faces"][0]["name"], Value::Null);
    succeeds(&["status", "--gallery", &gallery]);
    succeeds(&["people", "list", "--gallery", &gallery]);
    let message = fails(&["people", "import", &missing, "--gallery", &gallery]);
    assert!(message.contains("missing.redb: file not found"), "{message}");
    let message = fails(&["people", "remove", "A", "--gallery", &gallery]);
    assert!(message.contains("no gallery yet"), "{message}");
    assert!(!folder.path().join("none").exists());
    // If only the last good copy is left, it is used.
    let gallery = enrolled(&folder);
    for arguments in [&["status", "--json"][..], &["identify", "--json", ASTRONAUT]] {
        std::fs::remove_file(&gallery).expect("removed");
        let said = succeeds(&[arguments, &["--gallery", &gallery]].concat());
        let line = &json_lines(&said)[0];
        let known = line["people"] == 1 || line["faces"][0]["name"] == "Eileen Collins";
        assert!(known, "{said}");
    }
}

/// Importing needs only read permission for the export.
#[test]
fn an_export_that_may_only_be_read_is_imported() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::new().expect("a folder");
    let export = at(folder.path(), "export.redb");
    succeeds(&["people", "export", &export, "--gallery", &enrolled(&folder)]);
    let before = std::fs::read(&export).expect("a file");
    std::fs::set_permissions(&export, PermissionsExt::from_mode(0o400)).expect("permissions");
    let other = at(folder.path(), "other.redb");
    let said = succeeds(&["people", "import", &export, "--gallery", &other]);
    assert_eq!(said, "1 people added\n");
    assert_eq!(std::fs::read(&export).expect("a file"), before);
}

#[test]
fn people_come_and_go() {
    let folder = TempDir::new().expect("a folder");
    let gallery = enrolled(&folder);
    let people = |arguments: &[&str]| {
        let mut all = vec!["people"];
        all.extend(arguments);
        all.extend(["--gallery", &gallery]);
        output(&all)
    };
    let listed = json_lines(&stdout(&people(&["list", "--json"])));
    assert_eq!(listed[0]["name"], "Eileen Collins");
    assert_eq!((&listed[0]["templates"], &listed[0]["pictures"]), (&1.into(), &1.into()));

    let faces = succeeds(&["identify", "--json", ASTRONAUT, ADMIRAL, "--gallery", &gallery]);
    let faces = json_lines(&faces);
    assert_eq!(faces[0]["faces"][0]["name"], "Eileen Collins");
    assert!(faces[0]["faces"][0]["similarity"].as_f64().expect("a number") > 0.99);
    assert_eq!(faces[1]["faces"][0]["name"], Value::Null);

    // The same face under another name is refused, and another face under the same name.
    let message = fails(&["enroll", "Somebody", "--image", ASTRONAUT, "--gallery", &gallery]);
    assert!(message.contains("Eileen Collins, who is already enrolled"), "{message}");
    let message = fails(&["enroll", "Eileen Collins", "--image", ADMIRAL, "--gallery", &gallery]);
    assert!(message.contains("does not look like Eileen Collins"), "{message}");

    assert!(people(&["admin", "Eileen Collins"]).status.success());
    assert!(people(&["group", "Eileen Collins", "astronauts"]).status.success());
    assert!(!people(&["admin", "Somebody"]).status.success());
    assert!(people(&["rename", "Eileen Collins", "Commander Collins"]).status.success());
    let saved = at(folder.path(), "saved");
    assert!(people(&["show", "Commander Collins", "--save", &saved]).status.success());
    assert_eq!(std::fs::read_dir(&saved).expect("a folder").count(), 1);
    let exported = at(folder.path(), "exported.redb");
    assert!(people(&["export", &exported]).status.success());
    assert!(!people(&["import", &exported]).status.success(), "the name is taken");
    assert!(people(&["remove", "Commander Collins"]).status.success());
    let gone = people(&["remove", "Commander Collins"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(stderr(&gone).contains("nobody with this name"));
    assert!(people(&["import", &exported]).status.success());
    let listed = stdout(&people(&["list"]));
    assert!(listed.contains("Commander Collins  1 template"), "{listed}");
    assert!(listed.contains(", group astronauts, administrator"), "{listed}");
    assert!(people(&["admin", "Commander Collins", "--off"]).status.success());
    let shown = json_lines(&stdout(&people(&["show", "Commander Collins", "--json"])));
    assert_eq!(shown[0]["administrator"], Value::Bool(false));
    assert_eq!(shown[0]["group"], "astronauts");
    let status = succeeds(&["status", "--json", "--gallery", &gallery]);
    let status = &json_lines(&status)[0];
    assert_eq!((&status["people"], &status["templates"]), (&1.into(), &1.into()));
    let marked = status["thresholds"].as_array().expect("thresholds");
    let extrapolated: Vec<bool> =
        marked.iter().map(|line| line["extrapolated"] == Value::Bool(true)).collect();
    assert!(!extrapolated[0] && extrapolated[extrapolated.len() - 1] && extrapolated.is_sorted());
}

#[test]
fn enrolling_in_front_of_the_camera_takes_different_views() {
    let folder = TempDir::new().expect("a folder");
    let frames = at(folder.path(), "frames");
    succeeds(&["demo", "--save", &frames]);
    let gallery = at(folder.path(), "gallery.redb");
    // Pictures of one view add no second view, and the camera ends too early.
    let still = format!("images:{ASTRONAUT}");
    let message = fails(&["enroll", "A", "--camera", &still, "--gallery", &gallery]);
    assert!(message.contains("after 1 of 5 views"), "{message}");
    assert_eq!(succeeds(&["people", "list", "--gallery", &gallery]), "");
    let walk = format!("images:{frames}/1-*.png?fps=3");
    let said = succeeds(&["enroll", "A", "--camera", &walk, "--views", "2", "--gallery", &gallery]);
    assert!(said.contains("A: 2 templates added"), "{said}");
}

#[test]
fn a_signal_ends_enrolling_and_its_camera() {
    let folder = TempDir::new().expect("a folder");
    let gallery = at(folder.path(), "gallery.redb");
    let mark = at(folder.path(), "camera-program");
    let camera = format!("pipe:touch {mark}; sleep 1000; : {mark}");
    let mut enrolling = facelatch(&["enroll", "A", "--camera", &camera, "--gallery", &gallery])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let began = Instant::now();
    while !Path::new(&mark).exists() {
        let ended = enrolling.try_wait().expect("a state");
        assert!(ended.is_none() && began.elapsed() < PATIENCE, "no camera is opened: {ended:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let id = enrolling.id().to_string();
    assert!(Command::new("kill").args(["-s", "INT", &id]).status().expect("kill runs").success());
    let ended = enrolling.wait_with_output().expect("an end");
    assert_eq!(ended.status.code(), Some(1));
    assert!(stderr(&ended).contains("nothing was enrolled") || stderr(&ended).contains("signal"));
    let left = Command::new("pgrep").args(["-f", &mark]).output().expect("pgrep runs");
    assert!(left.stdout.is_empty(), "the camera program goes on");
}

#[test]
fn a_signal_ends_enrolling_from_pictures() {
    let folder = TempDir::new().expect("a folder");
    let gallery = at(folder.path(), "gallery.redb");
    let blank = picture::encode_png(&Frame::filled(640, 480, [90; 3])).expect("a PNG");
    std::fs::write(at(folder.path(), "blank.png"), blank).expect("written");
    // Logged in every round, which shows that the camera runs.
    std::fs::write(at(folder.path(), "bad.png"), "no picture").expect("written");
    let camera = format!("images:{}?fps=1000&loop", folder.path().display());
    for signal in ["INT", "TERM"] {
        let mut enrolling = facelatch(&["enroll", "A", "--camera", &camera, "--gallery", &gallery])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let mut log = BufReader::new(enrolling.stderr.take().expect("its log")).lines();
        assert!(log.any(|line| line.is_ok_and(|line| line.contains("bad.png"))));
        let id = enrolling.id().to_string();
        let killed = Command::new("kill").args(["-s", signal, &id]).status().expect("kill runs");
        assert!(killed.success());
        let last = log.map_while(Result::ok).last().expect("a last word");
        assert!(last.contains("stopped by a signal after 0 of 5 views"), "{last}");
        assert_eq!(enrolling.wait().expect("an end").code(), Some(1));
    }
}

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

#[test]
fn a_damaged_gallery_is_named_and_nobody_is_lost() {
    let folder = TempDir::new().expect("a folder");
    let gallery = enrolled(&folder);
    let whole = std::fs::read(&gallery).expect("a gallery");
    std::fs::write(&gallery, &whole[..whole.len() / 2]).expect("written");
    let listed = output(&["people", "list", "--gallery", &gallery]);
    assert!(listed.status.success());
    assert!(stdout(&listed).contains("Eileen Collins"));
    let message = stderr(&listed);
    assert!(message.contains("was damaged") && message.contains("damaged-1"), "{message}");
    std::fs::write(&gallery, "nonsense").expect("written");
    std::fs::write(at(folder.path(), "gallery.last-good.redb"), "nonsense").expect("written");
    let message = fails(&["people", "list", "--gallery", &gallery]);
    assert!(message.contains("restore one of them from a backup"), "{message}");
}

/// The portrait as a JPEG turned on its side, with an EXIF tag for its orientation.
fn on_its_side() -> Vec<u8> {
    let upright = image::open(ASTRONAUT).expect("a portrait");
    let mut jpeg = Cursor::new(Vec::new());
    upright.rotate270().write_to(&mut jpeg, ImageFormat::Jpeg).expect("a JPEG");
    let jpeg = jpeg.into_inner();
    // One IFD with one entry: orientation, a short, 6 (turn clockwise).
    let mut exif =
        b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0".to_vec();
    let mut tagged = jpeg[..2].to_vec();
    tagged.extend([0xff, 0xe1]);
    tagged.extend((exif.len() as u16 + 2).to_be_bytes());
    tagged.append(&mut exif);
    tagged.extend(&jpeg[2..]);
    tagged
}

/// A PNG whose header claims 12000x9000 pixels that are not there.
fn enormous() -> Vec<u8> {
    let mut png = picture::encode_png(&Frame::filled(1, 1, [0; 3])).expect("a PNG");
    png[16..20].copy_from_slice(&12000u32.to_be_bytes());
    png[20..24].copy_from_slice(&9000u32.to_be_bytes());
    let sum = crc32fast::hash(&png[12..29]);
    png[29..33].copy_from_slice(&sum.to_be_bytes());
    png
}

#[test]
fn odd_pictures_are_read_and_bad_ones_cost_only_themselves() {
    let folder = TempDir::new().expect("a folder");
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.path().join(name), bytes).expect("written");
    };
    let png = |picture: DynamicImage| {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Png).expect("a PNG");
        bytes.into_inner()
    };
    let portrait = image::open(ASTRONAUT).expect("a portrait");
    let jpeg = std::fs::read(ASTRONAUT).expect("a portrait");
    write("alpha.png", &png(DynamicImage::ImageRgba8(portrait.to_rgba8())));
    write("cmyk.jpg", include_bytes!("data/cmyk.jpg"));
    write("cut.jpg", &jpeg[..60]);
    write("half.jpg", &jpeg[..jpeg.len() / 2]);
    write("deep.png", &png(DynamicImage::ImageRgb16(portrait.to_rgb16())));
    write("enormous.png", &enormous());
    write("grey.png", &png(DynamicImage::ImageLuma8(portrait.to_luma8())));
    write("one.png", &png(DynamicImage::ImageRgb8(RgbImage::new(1, 1))));
    write("side.jpg", &on_its_side());
    write("text.jpg", b"this is no picture");
    write("zero.png", b"");
    let run = output(&["detect", "--json", folder.path().to_str().expect("a plain path")]);
    assert_eq!(run.status.code(), Some(1), "some cannot be read");
    let lines = json_lines(&stdout(&run));
    assert_eq!(lines.len(), 11);
    let of = |name: &str| {
        lines
            .iter()
            .find(|line| line["image"].as_str().is_some_and(|image| image.ends_with(name)))
            .unwrap_or_else(|| panic!("no line for {name}"))
    };
    for (name, faces) in [
        ("alpha.png", 1),
        ("cmyk.jpg", 0),
        ("deep.png", 1),
        ("grey.png", 1),
        ("one.png", 0),
        ("side.jpg", 1),
    ] {
        assert_eq!(of(name)["faces"].as_array().map(Vec::len), Some(faces), "{}", of(name));
    }
    assert_eq!((&of("side.jpg")["width"], &of("side.jpg")["height"]), (&320.into(), &400.into()));
    let face = &of("side.jpg")["faces"][0];
    assert!(face["quality"].as_f64().expect("a number") > 0.5, "{face}");
    for (name, expected) in [
        ("cut.jpg", "truncated"),
        ("half.jpg", "truncated"),
        ("enormous.png", "12000x9000 is 108 megapixels"),
        ("text.jpg", "neither JPEG nor PNG"),
        ("zero.png", "neither JPEG nor PNG"),
    ] {
        let error = of(name)["error"].as_str().expect("an error");
        assert!(error.contains(expected) && error.contains(name), "{error}");
    }
}

#[test]
fn folders_without_pictures_are_named() {
    let folder = TempDir::new().expect("a folder");
    let empty = folder.path().to_str().expect("a plain path");
    let message = fails(&["detect", empty]);
    assert!(message.contains("no picture in this folder (0 other files)"), "{message}");
    std::fs::write(folder.path().join("notes.txt"), "x").expect("written");
    let message = fails(&["detect", empty, "no-such-file.jpg"]);
    assert!(
        message.contains("(1 other files)") && message.contains("no-such-file.jpg"),
        "{message}"
    );
}

/// A folder of models in which one file is replaced and its digest in the manifest updated.
fn models_with(folder: &TempDir, file: &str, bytes: &[u8]) -> PathBuf {
    let to = folder.path().join("models");
    std::fs::create_dir_all(&to).expect("a folder");
    for entry in std::fs::read_dir(MODELS).expect("models") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            continue;
        }
        std::fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copied");
    }
    let old = sha256_hex(&std::fs::read(to.join(file)).expect("a model"));
    std::fs::write(to.join(file), bytes).expect("written");
    let manifest = std::fs::read_to_string(to.join("manifest.toml")).expect("a manifest");
    std::fs::write(to.join("manifest.toml"), manifest.replace(&old, &sha256_hex(bytes)))
        .expect("written");
    to
}

#[test]
fn models_that_do_not_fit_are_named() {
    let folder = TempDir::new().expect("a folder");
    let rnet = std::fs::read(Path::new(MODELS).join("rnet.onnx")).expect("a model");
    for (file, bytes, expected) in [
        ("pnet.onnx", b"not ONNX at all".to_vec(), "pnet.onnx"),
        ("onet.onnx", rnet[..rnet.len() / 2].to_vec(), "onet.onnx"),
        ("pnet.onnx", rnet.clone(), "24x24"),
        ("mobilefacenet.onnx", rnet.clone(), "mobilefacenet.onnx"),
    ] {
        let models = models_with(&folder, file, &bytes);
        let models = models.to_str().expect("a plain path");
        let message = fails(&["embed", "--models", models, ASTRONAUT]);
        assert!(message.contains(expected) && message.contains(file), "{message}");
    }
    let models = models_with(&folder, "rnet.onnx", &rnet);
    let mut file =
        std::fs::OpenOptions::new().append(true).open(models.join("rnet.onnx")).expect("a model");
    file.write_all(b"x").expect("written");
    let message = fails(&["detect", "--models", models.to_str().expect("plain"), ASTRONAUT]);
    assert!(message.contains("rnet.onnx: sha256 is"), "{message}");
}

#[test]
fn models_and_kernels_that_are_not_those_asked_for_are_named() {
    let float = concat!(env!("CARGO_MANIFEST_DIR"), "/models/float");
    let message = fails(&["detect", "--models", float, ASTRONAUT]);
    assert!(message.contains("pnet.onnx: layers from conv1 on are in floating"), "{message}");
    assert!(message.contains("--precision float"), "{message}");
    let message = fails(&["detect", "--precision", "float", ASTRONAUT]);
    assert!(message.contains("pnet.onnx: node ") && message.contains("--models"), "{message}");
    let line = ["--json", "--models", float, "--precision", "float", ASTRONAUT];
    let found = json_lines(&succeeds(&[&["detect"][..], &line].concat()));
    assert_eq!(found[0]["faces"].as_array().map(Vec::len), Some(1));

    let forced = |name: &str| {
        facelatch(&["detect", ASTRONAUT]).env("FACELATCH_KERNEL", name).output().expect("a run")
    };
    assert!(forced("scalar").status.success());
    let foreign = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
    for (name, expected) in [("warp", "there is no kernel warp"), (foreign, "cannot run")] {
        let output = forced(name);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
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

#[test]
fn bench_reports_every_stage() {
    let said = succeeds(&["bench", "--json", "--rounds", "2"]);
    let report = &json_lines(&said)[0];
    for stage in ["detect", "pnet", "rnet", "onet", "align", "embed", "match", "total"] {
        let figures = &report["stages"][stage];
        let [min, median, p95] =
            ["min_ms", "median_ms", "p95_ms"].map(|key| figures[key].as_f64().expect("a number"));
        assert!(min > 0.0 && min <= median && median <= p95, "{stage}: {figures}");
    }
}

#[test]
fn a_shot_is_written_and_measured() {
    let folder = TempDir::new().expect("a folder");
    let file = at(folder.path(), "near.y4m");
    std::fs::write(&file, video(ASTRONAUT, 1)).expect("written");
    let out = at(folder.path(), "shot.png");
    for camera in [format!("pipe:cat {file}"), format!("images:{ASTRONAUT}")] {
        let said =
            succeeds(&["camera", "shot", &out, "--camera", &camera, "--frames", "1", "--json"]);
        let line = &json_lines(&said)[0];
        let taken = picture::read(Path::new(&out)).expect("a picture");
        assert_eq!(
            (line["width"].as_u64(), line["height"].as_u64()),
            (Some(taken.width() as u64), Some(taken.height() as u64))
        );
        assert_eq!(line["faces"].as_array().expect("faces").len(), 1, "{line}");
        assert!(line["brightness"].as_f64().is_some_and(|light| (20.0..235.0).contains(&light)));
        assert!(line["sharpness"].as_f64().is_some_and(|sharp| sharp > 0.0));
    }
    for (out, camera, expected) in [
        ("shot.gif", "pipe:true", "must end in .jpg"),
        (&*out, "pipe:echo hello", "not a YUV4MPEG2 stream"),
        (&*out, "images:/no/such/folder", "/no/such/folder"),
        (&*out, "v4l:video0", "names no device"),
        (&*out, "v4l:/dev/no-such-video", "no-such-video"),
    ] {
        let message = fails(&["camera", "shot", out, "--camera", camera]);
        assert!(message.contains(expected), "{message}");
    }
}

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
