//! Sets of models as an installer uses them: install, list, verify, roll back, and
//! interruptions of each.

mod sets;

use facelatch::models::Models;
use serde_json::Value;
use sets::tar;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const ASTRONAUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/astronaut.jpg");
const ADMIRAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/grace_hopper.jpg");

/// A site whose gallery has the astronaut with a stored picture and the admiral without.
struct Door {
    folder: TempDir,
    gallery: String,
}

impl Door {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let gallery = at(folder.path(), "gallery.redb");
        let door = Self { folder, gallery };
        door.succeeds(&["enroll", "Eileen Collins", "--image", ASTRONAUT]);
        let config = at(door.folder.path(), "without.toml");
        std::fs::write(&config, "[gallery]\nkeep_crops = false\n").expect("written");
        door.succeeds(&["enroll", "Grace Hopper", "--image", ADMIRAL, "--config", &config]);
        door
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_facelatch"));
        command.args(arguments).args(["--gallery", &self.gallery]).env_remove("RUST_LOG");
        command.env("XDG_STATE_HOME", self.folder.path().join("state"));
        // The service's socket is in the same folder.
        command.env("RUNTIME_DIRECTORY", self.folder.path());
        command.env("STATE_DIRECTORY", self.folder.path());
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program runs")
    }

    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", stdout(&output));
        let message = stderr(&output);
        assert!(!message.contains("panicked"), "{message}");
        message
    }

    /// The name that the gallery gives to the person in the picture, or null.
    fn identify(&self, image: &str) -> Value {
        let line = json_lines(&self.succeeds(&["identify", "--json", image])).remove(0);
        line["faces"][0]["name"].clone()
    }

    /// The version of the current set.
    fn version(&self) -> String {
        let listed = json_lines(&self.succeeds(&["models", "list", "--json"]));
        let used = listed.iter().find(|line| line["state"] == "current").expect("one in use");
        used["version"].as_str().expect("a version").to_owned()
    }

    /// The project's models as a set of this version, with a self-test.
    fn set(&self, version: &str) -> PathBuf {
        sets::set(self.folder.path(), version)
    }

    fn install(&self, version: &str) -> Output {
        self.output(&[
            "models",
            "install",
            "--unsigned",
            self.set(version).to_str().expect("plain"),
        ])
    }
}

fn built_in_version() -> String {
    Models::built_in().expect("models").manifest.version
}

fn at(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().expect("a plain path").to_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn people_stay_when_sets_are_installed_and_rolled_back() {
    let door = Door::new();
    let listed = door.succeeds(&["models", "list"]);
    assert!(listed.starts_with("built-in") && listed.contains("current"), "{listed}");
    assert!(listed.contains("recognizer: Apache-2.0"), "{listed}");
    assert!(listed.contains("worst group women"), "{listed}");
    assert_eq!(door.identify(ADMIRAL), "Grace Hopper");

    let installed = door.install("2");
    assert!(installed.status.success(), "{}", stderr(&installed));
    let said = stdout(&installed);
    assert!(said.contains("self-test passed on 1 pictures"), "{said}");
    assert!(said.contains("1 templates re-embedded"), "{said}");
    assert!(said.contains("in use    2+") && said.contains("previous built-in"), "{said}");
    // The person without a picture is named; the one with a picture is still recognized.
    assert!(stderr(&installed).contains("Grace Hopper: all templates"), "{}", stderr(&installed));
    assert_eq!(door.identify(ASTRONAUT), "Eileen Collins");
    assert_eq!(door.identify(ADMIRAL), Value::Null);
    let status = door.succeeds(&["status", "--json"]);
    assert!(json_lines(&status)[0]["recognizer"].as_str().expect("text").starts_with("2+"));

    assert!(door.install("3").status.success());
    let listed = json_lines(&door.succeeds(&["models", "list", "--json"]));
    let states: Vec<_> = listed.iter().map(|line| line["state"].as_str()).collect();
    assert_eq!(states, [Some("previous"), Some("current"), Some("kept")]);
    assert_eq!(door.version(), "3");

    let verified = json_lines(&door.succeeds(&["models", "verify", "--json"]));
    assert_eq!(verified[0]["selftest"]["vectors"], 1);
    assert_eq!(verified[0]["files"], 8);
    let said = door.succeeds(&["models", "rollback"]);
    assert!(said.contains("in use    2+"), "{said}");
    assert_eq!(door.version(), "2");
    assert_eq!(door.identify(ASTRONAUT), "Eileen Collins");
    // The models of a folder and the built-in ones can still be named.
    for models in [sets::MODELS, "built-in"] {
        let status = door.succeeds(&["status", "--json", "--models", models]);
        assert_eq!(json_lines(&status)[0]["models"], built_in_version());
    }
    assert_eq!(door.output(&["models"]).status.code(), Some(2));
    assert_eq!(door.output(&["models", "install"]).status.code(), Some(2));
}

/// A gallery as the program wrote it before pictures had a margin and landmarks: the
/// astronaut with an aligned face of 112x112 pixels, the admiral without a picture.
const OLDER_GALLERY: &[u8] = include_bytes!("data/gallery-with-crops-of-112.redb");

#[test]
fn a_gallery_of_an_older_format_moves_to_another_set() {
    let folder = TempDir::new().expect("a folder");
    let gallery = at(folder.path(), "gallery.redb");
    std::fs::write(&gallery, OLDER_GALLERY).expect("written");
    let door = Door { folder, gallery };
    let listed = json_lines(&door.succeeds(&["people", "list", "--json"]));
    let pictures: Vec<_> = listed.iter().map(|person| person["pictures"].as_u64()).collect();
    assert_eq!(pictures, [Some(1), Some(0)]);

    let installed = door.install("2");
    assert!(installed.status.success(), "{}", stderr(&installed));
    assert!(stdout(&installed).contains("1 templates re-embedded"), "{}", stdout(&installed));
    let warned = stderr(&installed);
    assert!(warned.contains("Grace Hopper") && !warned.contains("Eileen Collins"), "{warned}");
    assert_eq!(door.identify(ASTRONAUT), "Eileen Collins");
    assert_eq!(door.identify(ADMIRAL), Value::Null);

    // The old picture is kept as it is, and a new one is larger.
    door.succeeds(&["enroll", "Grace Hopper", "--image", ADMIRAL]);
    assert_eq!(door.identify(ADMIRAL), "Grace Hopper");
    let pictures = at(door.folder.path(), "pictures");
    for name in ["Eileen Collins", "Grace Hopper"] {
        door.succeeds(&["people", "show", name, "--save", &pictures]);
    }
    let side =
        |name: &str| image::image_dimensions(Path::new(&pictures).join(name)).expect("a picture").0;
    assert_eq!((side("person-0001-01.png"), side("person-0002-01.png")), (112, 192));
}

#[test]
fn a_damaged_set_is_named_and_the_previous_one_used() {
    let door = Door::new();
    assert!(door.install("2").status.success());
    assert!(door.install("3").status.success());
    let listed = json_lines(&door.succeeds(&["models", "list", "--json"]));
    let [two, three] =
        [&listed[0]["set"], &listed[1]["set"]].map(|set| set.as_str().expect("text"));
    let store = door.folder.path().join("models");
    std::fs::write(store.join(three).join("rnet.onnx"), "x").expect("written");
    let output = door.output(&["models", "verify", two, three, "none+00", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let lines = json_lines(&stdout(&output));
    assert!(lines[0]["error"].is_null());
    assert!(lines[1]["error"].as_str().expect("an error").contains("rnet.onnx: sha256"));
    assert!(lines[2]["error"].as_str().expect("an error").contains("no such model set"));
    let message = door.fails(&["models", "verify"]);
    assert!(message.contains("rnet.onnx: sha256"), "{message}");
    let output = door.output(&["status", "--json"]);
    assert_eq!(json_lines(&stdout(&output))[0]["models"], "2");
    assert!(stderr(&output).contains("using the previous set"), "{}", stderr(&output));
    std::fs::write(store.join("current.toml"), "current = 7").expect("written");
    let message = door.fails(&["status"]);
    assert!(message.contains("current.toml"), "{message}");
}

/// The install is killed at each of its messages, and while it still reads the tar.
#[test]
fn a_kill_at_any_moment_leaves_a_door_that_works() {
    let door = Door::new();
    assert!(door.install("2").status.success());
    let set = door.set("3");
    for word in ["copied", "checked", "measured", "gallery"] {
        let mut installing = door
            .command(&["models", "install", "--unsigned", set.to_str().expect("plain")])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let mut said = BufReader::new(installing.stdout.take().expect("its output")).lines();
        assert!(said.any(|line| line.is_ok_and(|line| line.starts_with(word))));
        installing.kill().expect("killed");
        installing.wait().expect("an end");
        // It may have got further before it died; the set in use is complete either way.
        let version = door.version();
        assert!(version == "2" || version == "3", "{version}");
        door.succeeds(&["models", "verify"]);
        assert_eq!(door.identify(ASTRONAUT), "Eileen Collins", "{word}");
    }
    let tar = tar(&door.set("4"));
    let before = door.version();
    let mut installing = door
        .command(&["models", "install", "--unsigned", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the program runs");
    let mut pipe = installing.stdin.take().expect("its input");
    pipe.write_all(&tar[..tar.len() / 2]).expect("half a tar");
    installing.kill().expect("killed");
    installing.wait().expect("an end");
    assert_eq!(door.version(), before);
    door.succeeds(&["models", "verify"]);
    // The remains of the killed install do not block the next one.
    assert!(door.install("4").status.success());
    assert_eq!((door.version().as_str(), door.identify(ASTRONAUT)), ("4", "Eileen Collins".into()));
    let hidden: Vec<_> = std::fs::read_dir(door.folder.path().join("models"))
        .expect("a store")
        .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
        .filter(|name| name.contains("draft"))
        .collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}

/// A limit on file size fails in the middle of a file, as a full disk does.
#[test]
fn a_full_disk_leaves_the_set_in_use() {
    let door = Door::new();
    assert!(door.install("2").status.success());
    let set = door.set("3");
    let line = format!(
        "trap '' XFSZ; ulimit -f 600; exec {} models install --unsigned {} --gallery {}",
        env!("CARGO_BIN_EXE_facelatch"),
        set.display(),
        door.gallery
    );
    let output = Command::new("sh")
        .args(["-c", &line])
        .env("XDG_STATE_HOME", door.folder.path().join("state"))
        .output()
        .expect("a shell");
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stderr(&output).contains("onnx: File too large"), "{}", stderr(&output));
    assert_eq!(door.version(), "2");
    assert_eq!(door.identify(ASTRONAUT), "Eileen Collins");
    assert!(!door.folder.path().join("models/.draft").exists());
}

#[test]
fn a_tar_that_is_not_whole_is_refused() {
    let door = Door::new();
    let set = door.set("2");
    let folder = set.to_str().expect("a path");
    assert!(door.succeeds(&["models", "verify", folder]).contains("files verified"));
    let tar = tar(&set);
    let file = at(door.folder.path(), "set.tar");
    std::fs::write(&file, &tar[..tar.len() / 3]).expect("written");
    let message = door.fails(&["models", "install", "--unsigned", &file]);
    assert!(message.contains("set.tar: "), "{message}");
    let message = door.fails(&["models", "install", &at(door.folder.path(), "none")]);
    assert!(message.contains("none: No such file"), "{message}");
    assert_eq!(door.version(), built_in_version());
    std::fs::write(&file, &tar).expect("written");
    door.succeeds(&["models", "install", "--unsigned", &file]);
    assert_eq!(door.version(), "2");
}

/// Writes a configuration that trusts a key, and signs a set with it.
fn signed(door: &Door, version: &str, key: u8, unix: i64) -> (String, String) {
    let set = door.set(version);
    let config = at(door.folder.path(), "trusting.toml");
    std::fs::write(&config, sets::sign(&set, key, unix)).expect("written");
    (config, set.to_str().expect("plain").to_owned())
}

#[test]
fn who_answers_for_a_set_is_shown_as_long_as_it_is_in_use() {
    let door = Door::new();
    let status = |more: &[&str]| {
        json_lines(&door.succeeds(&[&["status", "--json"], more].concat())).remove(0)
    };
    assert_eq!(status(&[])["models_signature"], "part of the program");
    let plain = door.set("1").to_str().expect("plain").to_owned();
    let message = door.fails(&["models", "install", &plain]);
    assert!(message.contains("not signed") && message.contains("--unsigned"), "{message}");
    let output = door.output(&["models", "install", "--unsigned", &plain]);
    assert!(stderr(&output).contains("the set in use is not signed"), "{}", stderr(&output));
    assert!(status(&[])["models_warning"].as_str().expect("text").contains("--unsigned"));
    let text = door.succeeds(&["status"]);
    assert!(text.contains("  UNSIGNED   the set in use is not signed"), "{text}");
    let checked = stdout(&door.output(&["check", "--json"]));
    let line = checked.lines().find(|line| line.contains("\"signature\"")).expect("a line");
    assert!(line.contains("\"odd\"") && line.contains("not signed"), "{line}");

    let (config, set) = signed(&door, "2", 1, 1_800_000_000);
    let said = door.succeeds(&["models", "install", &set, "--config", &config]);
    assert!(said.contains("signed by office, SHA256:"), "{said}");
    assert!(said.contains("different people reach 0.18"), "{said}");
    assert_eq!(status(&["--config", &config])["models_warning"], Value::Null);
    let listed = door.succeeds(&["models", "list", "--config", &config]);
    assert!(listed.contains("  signed by office, SHA256:"), "{listed}");
    assert!(listed.contains("  part of the program"), "{listed}");
    let checked = stdout(&door.output(&["check", "--json", "--config", &config]));
    assert!(checked.contains("signed by office"), "{checked}");

    // The key goes, the set stays, with a word.
    assert_eq!(door.version(), "2");
    let gone = status(&[]);
    assert!(gone["models_warning"].as_str().expect("text").contains("stays in use"), "{gone}");
    // A replay of an older one.
    let (config, set) = signed(&door, "1.9", 1, 1_799_999_999);
    let message = door.fails(&["models", "install", &set, "--config", &config]);
    assert!(message.contains("lower than 2") && message.contains("--downgrade"), "{message}");
}

#[test]
fn a_manifest_that_opens_for_everybody_is_refused() {
    let door = Door::new();
    let set = door.set("9");
    let path = set.join("manifest.toml");
    let text = std::fs::read_to_string(&path).expect("a manifest");
    let mut manifest: toml::Table = text.parse().expect("TOML");
    manifest.remove("selftest");
    let recognizer = manifest["recognizer"].as_table_mut().expect("a table");
    recognizer.remove("likelihood");
    recognizer.remove("worst_group");
    for (_, value) in recognizer["thresholds"].as_table_mut().expect("a table") {
        *value = (-1.0).into();
    }
    std::fs::write(&path, toml::to_string(&manifest).expect("TOML")).expect("written");
    let set = set.to_str().expect("plain");
    let message = door.fails(&["models", "install", set]);
    assert!(message.contains("not signed"), "{message}");
    let message = door.fails(&["models", "install", "--unsigned", "--yes", set]);
    assert!(message.contains("does not tell two people apart"), "{message}");
    assert_eq!(door.version(), built_in_version());
}

#[test]
fn a_trial_is_shown_and_stopped() {
    let door = Door::new();
    let set = door.set("2").to_str().expect("plain").to_owned();
    let install = ["models", "install", "--unsigned", "--shadow", "48h", &set];
    let said = door.succeeds(&install);
    assert!(said.contains("on trial  2+") && said.contains("48.0 hours"), "{said}");
    assert_eq!(door.version(), built_in_version());
    let listed = door.succeeds(&["models", "list"]);
    assert!(listed.contains("trial") && listed.contains("0 attempts"), "{listed}");
    assert!(door.succeeds(&["models", "shadow"]).contains("waiting: 48.0 hours are left"));
    assert!(door.succeeds(&["models", "shadow", "stop"]).contains("the trial of 2+"));
    assert!(door.succeeds(&["models", "shadow"]).contains("no set is on trial"));
    for time in ["0s", "1s", "61d", "soon", "-1h", "NaNh", "1e300d"] {
        let output = door.output(&["models", "install", &set, "--shadow", time]);
        assert_eq!(output.status.code(), Some(2), "{time}");
    }
}

/// A service that watches the astronaut once the file `gate` exists.
struct Watching {
    service: std::process::Child,
    gate: String,
    log: std::io::Lines<BufReader<std::process::ChildStderr>>,
}

impl Watching {
    fn start(door: &Door) -> Self {
        let gate = at(door.folder.path(), "gate");
        let frame = {
            let frame = facelatch::vision::picture::read(Path::new(ASTRONAUT)).expect("a portrait");
            let grey = |pixel: &[u8]| {
                let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(f32::from);
                (16.0 + 0.257 * r + 0.504 * g + 0.098 * b) as u8
            };
            let mut video =
                format!("YUV4MPEG2 W{} H{} F10:1 Ip Cmono\n", frame.width(), frame.height())
                    .into_bytes();
            video.extend(b"FRAME\n");
            video.extend(frame.pixels().chunks_exact(3).map(grey));
            video
        };
        let file = at(door.folder.path(), "near.y4m");
        std::fs::write(&file, &frame).expect("written");
        let length =
            frame.iter().position(|byte| *byte == b'\n').map_or(0, |at| frame.len() - at - 1);
        let camera = format!(
            "pipe:head -n 1 {file}; until [ -e {gate} ]; do sleep 0.1; done; \
             while tail -c {length} {file}; do sleep 0.2; done"
        );
        // The camera repeats one picture.
        let config = at(door.folder.path(), "facelatch.toml");
        std::fs::write(&config, "[recognition]\ndistinct_views = false\n").expect("written");
        let mut service = door
            .command(&["run", "--config", &config, "--camera", &camera, "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let log = BufReader::new(service.stderr.take().expect("its log")).lines();
        let mut watching = Self { service, gate, log };
        watching.logs("2 people");
        watching
    }

    /// Waits until the log says so.
    #[track_caller]
    fn logs(&mut self, words: &str) {
        assert!(self.log.any(|line| line.is_ok_and(|line| line.contains(words))), "{words}");
    }

    /// Lets the astronaut appear; returns the event of the grant and ends the service.
    fn granted(mut self, meanwhile: impl FnOnce()) -> Value {
        std::fs::write(&self.gate, "").expect("written");
        let rest = std::thread::spawn(move || self.log.map_while(Result::ok).count());
        let told = BufReader::new(self.service.stdout.take().expect("its output")).lines();
        let mut told = told.map_while(Result::ok);
        let granted = told.find(|line| line.contains("\"granted\"")).expect("somebody let in");
        let more = std::thread::spawn(move || told.count());
        meanwhile();
        let id = self.service.id().to_string();
        assert!(Command::new("kill").arg(&id).status().expect("kill runs").success());
        assert!(self.service.wait().expect("an end").success());
        rest.join().expect("the log");
        more.join().expect("the output");
        json_lines(&granted).remove(0)
    }
}

/// A running service switches to a newly installed set without a restart.
#[test]
fn a_set_installed_meanwhile_is_used_by_the_service() {
    let door = Door::new();
    let mut service = Watching::start(&door);
    assert!(door.install("2").status.success());
    service.logs("models: 2+");
    let granted = service.granted(|| {
        // The status is renewed every second or so.
        let mut now = Value::Null;
        for _ in 0..600 {
            let status = json_lines(&door.succeeds(&["status", "--json"])).remove(0);
            now = status["service"].clone();
            if now["models"] == "2" {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        assert_eq!(now["models"], "2");
        assert!(now["model_set"]["warning"].as_str().expect("text").contains("not signed"));
    });
    assert_eq!(granted["name"], "Eileen Collins");
}

/// The set on trial sees what the door sees, opens nothing, and takes over when it has passed.
#[test]
fn a_set_on_trial_is_compared_and_takes_over() {
    let door = Door::new();
    let mut service = Watching::start(&door);
    let set = door.set("2").to_str().expect("plain").to_owned();
    door.succeeds(&["models", "install", "--unsigned", "--shadow", "1min", &set]);
    service.logs("it runs beside built-in");
    let trial = || {
        let status = json_lines(&door.succeeds(&["status", "--json"])).remove(0);
        status["service"]["model_set"]["trial"].clone()
    };
    let mut last = Value::Null;
    service.granted(|| {
        for _ in 0..300 {
            last = trial();
            if last["attempts"].as_u64().is_some_and(|attempts| attempts > 0) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    });
    assert_eq!((&last["attempts"], &last["agreement"]), (&1.into(), &1.0.into()), "{last}");
    assert!(last["line"].as_str().expect("text").contains("waiting"), "{last}");
    assert_eq!(door.version(), built_in_version());

    // Nearly at its end; the next start goes on with it.
    let path = door.folder.path().join("models/shadow.toml");
    let text = std::fs::read_to_string(&path).expect("a trial");
    let mut shadow: toml::Table = text.parse().expect("TOML");
    for (key, value) in [("watched", 59), ("attempts", 50), ("agreed", 50)] {
        shadow.insert(key.to_owned(), value.into());
    }
    std::fs::write(&path, toml::to_string(&shadow).expect("TOML")).expect("written");
    std::fs::remove_file(door.folder.path().join("gate")).expect("removed");
    let mut service = Watching::start(&door);
    service.logs("passed; switching to it");
    service.logs("models: 2+");
    assert_eq!(service.granted(|| ())["name"], "Eileen Collins");
    assert_eq!(door.version(), "2");
    assert!(!path.exists());
}
