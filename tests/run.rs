//! The service from outside: a relay board on a pseudo-terminal, orders from another
//! process, signals, systemd's socket, a service that is killed and restarted.

use facelatch::vision::picture;
use serde_json::Value;
use serialport::{SerialPort, TTYPort};
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Timeout, far longer than anything here takes, for busy machines.
const PATIENCE: Duration = Duration::from_secs(60);
/// A camera of grey noise, ten frames per second: nobody in view, no two frames the same.
const CORRIDOR: &str = "pipe:printf 'YUV4MPEG2 W64 H48 F10:1 Ip Cmono\\n'; \
                        while printf 'FRAME\\n' && head -c 3072 /dev/urandom; do sleep 0.1; done";

/// A door: folder, relay board and systemd socket.
struct Door {
    folder: TempDir,
    board: TTYPort,
    /// Held open, so that the terminal outlives a service.
    other_end: TTYPort,
    port: String,
    systemd: UnixDatagram,
}

/// The running program and its log.
struct Service {
    child: Child,
    log: Receiver<String>,
}

impl Door {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let (board, other_end) = TTYPort::pair().expect("a pair of terminals");
        let port = other_end.name().expect("a path");
        let systemd = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        systemd.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self { folder, board, other_end, port, systemd }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, more: &str) {
        let socket = self.path("control.sock");
        let text = format!(
            "[service]\nstatus_socket = {socket:?}\n[gallery]\nfile = {:?}\n{more}",
            self.path("gallery.redb")
        );
        std::fs::write(self.path("facelatch.toml"), text).expect("written");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_facelatch"));
        command.args(arguments).arg("--config").arg(self.path("facelatch.toml"));
        command.env("XDG_STATE_HOME", self.path("state"));
        command.env_remove("RUST_LOG").env("NOTIFY_SOCKET", self.path("notify"));
        command.env("STATE_DIRECTORY", self.path("state"));
        command
    }

    fn start(&self) -> Service {
        self.start_with(&["--camera", CORRIDOR, "--relay", &format!("serial:{}", self.port)])
    }

    fn start_with(&self, devices: &[&str]) -> Service {
        let mut child = self
            .command(&["run"])
            .args(devices)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let (sender, log) = channel();
        let lines = BufReader::new(child.stderr.take().expect("its log")).lines();
        std::thread::spawn(move || {
            lines.map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Service { child, log }
    }

    /// Kills the service. Its exclusive lock on the terminal survives it, because the
    /// terminal is held open here, and must be released for others than root.
    fn kill(&self, service: &mut Service) {
        service.child.kill().expect("killed");
        service.child.wait().expect("an end");
        // Closing a native copy releases the exclusive lock.
        drop(self.other_end.try_clone_native().expect("a terminal"));
    }

    fn order(&self, order: &str) -> Output {
        self.command(&["door", order]).output().expect("the program runs")
    }

    fn status(&self) -> Value {
        let output = self.command(&["status", "--json"]).output().expect("the program runs");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Waits for this line to systemd.
    fn hears(&self, word: &str) {
        let mut buffer = [0; 4096];
        loop {
            let length = self.systemd.recv(&mut buffer).expect("a word in time");
            if String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == word) {
                return;
            }
        }
    }

    /// Waits for both lines that report a reload to systemd; each reload sends both once.
    fn hears_of_reading(&self) {
        self.hears("RELOADING=1");
        self.hears("READY=1");
    }

    /// Asserts that the board receives nothing for a while.
    fn stays_as_it_is(&mut self) {
        self.board.set_timeout(Duration::from_millis(500)).expect("a timeout");
        let error = self.board.read(&mut [0]).expect_err("no command");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    /// Waits until the board receives the command to switch to this state.
    fn switched(&mut self, on: bool) {
        self.board.set_timeout(Duration::from_millis(100)).expect("a timeout");
        let (until, mut last) = (Instant::now() + PATIENCE, [0u8; 4]);
        while Instant::now() < until {
            let mut byte = [0];
            match self.board.read(&mut byte) {
                Ok(1) => {
                    last.rotate_left(1);
                    last[3] = byte[0];
                    if last[0] == 0xa0 && last[2] == u8::from(on) {
                        return;
                    }
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::TimedOut => {}
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the relay was not switched to {on}");
    }
}

impl Service {
    /// Waits for a log line with this text.
    fn says(&self, text: &str) {
        let mut all = Vec::new();
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(text) => return,
                Ok(line) => all.push(line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no {text:?} in {all:#?}")
                }
            }
        }
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let killed = Command::new("kill").args(["-s", signal, &id]).status();
        assert!(killed.expect("kill runs").success());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // For tests that failed; the kill of an ended process has no effect.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn orders_reloads_and_systemd_are_served_while_the_door_is_watched() {
    let mut door = Door::new();
    door.configure("[door]\nopen_for = \"50s\"\n");
    let mut service = door.start();
    door.switched(false);
    door.hears("READY=1");

    assert!(door.order("open").status.success());
    door.switched(true);
    assert!(door.order("lockdown").status.success());
    door.switched(false);
    let refused = door.order("open");
    assert_eq!(refused.status.code(), Some(1));
    let reason = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(reason.contains("lockdown; end that first"), "{reason}");

    // An invalid configuration changes nothing, nor does a change that needs a restart.
    door.configure("[door]\nopen_fro = \"40s\"\n");
    service.signal("HUP");
    service.says("did you mean door.open_for?; keeping the one in use");
    door.hears_of_reading();
    door.configure("[door]\nlock = \"fail-safe\"\n");
    service.signal("HUP");
    service.says("door.lock has changed, which needs a restart");
    door.hears_of_reading();
    // A valid one is applied, and lockdown stays.
    door.configure("[door]\nopen_for = \"1s\"\n");
    service.signal("HUP");
    service.says("configuration: reloaded");
    door.hears_of_reading();
    assert_eq!(door.status()["service"]["door"]["mode"], "lockdown");
    assert!(door.order("normal").status.success());
    assert!(door.order("open").status.success());
    let opened = Instant::now();
    door.switched(true);
    // Open for one second instead of fifty.
    door.switched(false);
    assert!(opened.elapsed() < Duration::from_secs(45), "{:?}", opened.elapsed());

    // `check` asks the service about devices that it holds instead of opening them again.
    let checked = door.command(&["check", "--json"]).output().expect("the program runs");
    let found = String::from_utf8_lossy(&checked.stdout).into_owned();
    for thing in ["service", "camera", "relay"] {
        let good = format!("{{\"thing\":\"{thing}\",\"state\":\"good\"");
        assert!(found.contains(&good), "{found}");
    }

    service.signal("TERM");
    door.hears("STOPPING=1");
    assert_eq!(service.child.wait().expect("an end").code(), Some(0));
    assert!(!door.path("control.sock").exists());
}

#[test]
fn a_service_that_was_killed_while_the_door_was_open_locks_it_when_it_is_back() {
    let mut door = Door::new();
    door.configure("[door]\nopen_for = \"50s\"\n");
    let mut service = door.start();
    door.hears("READY=1");
    assert!(door.order("open").status.success());
    door.switched(true);
    door.kill(&mut service);
    let service = door.start();
    door.switched(false);
    door.hears("READY=1");
    // It has taken over the socket file of the killed service.
    assert_eq!(door.status()["service"]["pid"], service.child.id());
}

/// A card that is pulled, and an old file that is put back, while the door runs.
#[test]
fn a_gallery_that_goes_away_is_reported_and_its_people_stay() {
    let door = Door::new();
    let card = door.path("card");
    std::fs::create_dir(&card).expect("a folder");
    let gallery = card.join("gallery.redb");
    door.configure("");
    let portrait = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/astronaut.jpg");
    let admiral = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/grace_hopper.jpg");
    let on_card = |arguments: &[&str]| {
        let mut command = door.command(arguments);
        command.arg("--gallery").arg(&gallery).output().expect("the program runs")
    };
    for (name, photo) in [("Eileen Collins", portrait), ("Grace Hopper", admiral)] {
        assert!(on_card(&["enroll", name, "--image", photo]).status.success());
    }
    let old = std::fs::read(&gallery).expect("a gallery");
    let port = format!("serial:{}", door.port);
    let file = gallery.to_str().expect("a plain path");
    let service = door.start_with(&["--camera", CORRIDOR, "--relay", &port, "--gallery", file]);
    door.hears("READY=1");
    let away = door.path("away");
    std::fs::rename(&card, &away).expect("moved");
    // The mount point.
    std::fs::create_dir(&card).expect("a folder");
    service.says("the gallery is missing, although people were enrolled here");
    let now = || {
        let status = door.status()["service"]["gallery"].clone();
        (status["people"].clone(), status["file"]["state"].clone())
    };
    let shown = |people: u64, state: &str| {
        let until = Instant::now() + PATIENCE;
        while now() != (people.into(), state.into()) {
            assert!(Instant::now() < until, "{:?}", now());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    shown(2, "lost");
    assert_eq!(std::fs::read_dir(&card).expect("a folder").count(), 0);
    std::fs::remove_dir(&card).expect("removed");
    std::fs::rename(&away, &card).expect("back");
    service.says("gallery: the file is back");
    shown(2, "good");
    // Somebody is removed, and both files are put back: the service knows better.
    assert!(on_card(&["people", "remove", "Grace Hopper"]).status.success());
    service.says("gallery: 1 people");
    for name in ["gallery.redb", "gallery.last-good.redb"] {
        std::fs::write(card.join(name), &old).expect("written");
    }
    service.says("is older than revision");
    shown(1, "older");
    assert!(on_card(&["people", "restore", file]).status.success());
    service.says("gallery: 2 people");
    shown(2, "good");
}

#[test]
fn a_door_that_was_killed_open_is_locked_before_its_configuration_is_found_broken() {
    let mut door = Door::new();
    let relay = format!("serial:{}", door.port);
    let given = ["--camera", CORRIDOR, "--relay", &relay];
    let configured = format!("[door]\nopen_for = \"50s\"\n[relay]\nuri = {relay:?}\n");
    // What is wrong at the next start, and the devices named on its command line.
    let faults: [(&str, Option<&str>, &[&str]); 4] = [
        ("not valid TOML", Some("[door\n"), &given),
        ("cannot be read", None, &given),
        ("no port", Some("[relay]\nuri = \"serial:\"\n"), &given[..2]),
        ("no camera", Some(&configured), &[]),
    ];
    for (fault, text, devices) in faults {
        door.configure(&configured);
        let mut service = door.start_with(&given[..2]);
        door.hears("READY=1");
        assert!(door.order("open").status.success());
        door.switched(true);
        door.kill(&mut service);
        match text {
            Some(text) => door.configure(text),
            None => std::fs::remove_file(door.path("facelatch.toml")).expect("removed"),
        }
        let began = Instant::now();
        let mut next = door.start_with(devices);
        door.switched(false);
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
        next.says("is off, the door is locked");
        if text.is_some() {
            next.says(fault);
        }
        assert_eq!(next.child.wait().expect("an end").code(), Some(1), "{fault}");
    }
}

#[test]
fn the_relay_of_a_killed_service_is_released_without_a_configuration() {
    let mut door = Door::new();
    door.configure("[door]\nopen_for = \"50s\"\n");
    let release = |door: &Door| {
        let output = door.order("release-relay");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let said = release(&door);
    assert!(said.contains("nothing to release"), "{said}");
    let mut service = door.start();
    door.hears("READY=1");
    assert!(door.order("open").status.success());
    door.switched(true);
    let said = release(&door);
    assert!(said.contains("a service runs"), "{said}");
    door.stays_as_it_is();
    std::fs::write(door.path("facelatch.toml"), [0xff]).expect("written");
    // A start beside a service that runs fails, and touches nothing.
    let mut second = door.start();
    assert_eq!(second.child.wait().expect("an end").code(), Some(1));
    door.stays_as_it_is();
    door.kill(&mut service);
    let said = release(&door);
    assert!(said.contains("is off, the door is locked"), "{said}");
    door.switched(false);
}

#[test]
fn a_recording_is_a_service_too() {
    let door = Door::new();
    door.configure("");
    let portrait = concat!("images:", env!("CARGO_MANIFEST_DIR"), "/assets/astronaut.jpg?loop");
    let mut service = door.start_with(&["--camera", portrait]);
    door.hears("READY=1");
    assert!(door.order("lockdown").status.success());
    assert_eq!(door.status()["service"]["door"]["mode"], "lockdown");
    service.signal("TERM");
    door.hears("STOPPING=1");
    assert_eq!(service.child.wait().expect("an end").code(), Some(0));
}

#[test]
fn lockdown_outlives_the_service_and_is_ended_by_order_alone() {
    let mut door = Door::new();
    door.configure("");
    let mut service = door.start();
    door.hears("READY=1");
    assert!(door.order("lockdown").status.success());
    door.kill(&mut service);
    let mut service = door.start();
    service.says("lockdown holds since before this start");
    door.hears("READY=1");
    assert_eq!(door.order("open").status.code(), Some(1));
    assert!(door.order("normal").status.success());
    assert!(door.order("open").status.success());
    door.switched(true);
    door.kill(&mut service);
    let service = door.start();
    door.hears("READY=1");
    assert!(door.order("open").status.success());
    drop(service);
}

#[test]
fn an_order_to_open_an_unreachable_relay_reports_the_failure() {
    let mut door = Door::new();
    door.port = "/dev/no-such-port".to_owned();
    door.configure("");
    let _service = door.start();
    door.hears("READY=1");
    let failed = || door.status()["service"]["events"]["relay failed"].as_u64().unwrap_or(0);
    let more_than = |before: u64| {
        let began = Instant::now();
        while failed() <= before {
            assert!(began.elapsed() < PATIENCE, "no more than {before} failures");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    // The missing relay counts as one failure.
    more_than(0);
    let before = failed();
    let refused = door.order("open");
    assert_eq!(refused.status.code(), Some(1));
    let reason = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(reason.contains("did not open") && reason.contains("no-such-port"), "{reason}");
    more_than(before);
}

#[test]
fn a_second_service_at_the_same_door_is_refused() {
    let door = Door::new();
    door.configure("");
    let first = door.start();
    door.hears("READY=1");
    let mut second = door.start();
    second.says("another service has this socket");
    assert_eq!(second.child.wait().expect("an end").code(), Some(1));
    drop(first);
}

/// Killed a moment after a lockout began, the service goes on with it.
#[test]
fn a_lockout_survives_a_kill() {
    let door = Door::new();
    door.configure(
        "[lockout]\ntries = 1\nfirst = \"1h\"\nlongest = \"1h\"\n\
         [recognition]\ndistinct_views = false\n",
    );
    let portrait = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/astronaut.jpg");
    let picture = picture::read(Path::new(portrait)).expect("a portrait");
    let (width, height) = (picture.width(), picture.height());
    // Grey is enough for a face.
    let (pixels, _) = picture.pixels().as_chunks::<3>();
    let mut frame = b"FRAME\n".to_vec();
    frame.extend(pixels.iter().map(|pixel| pixel[1]));
    let file = door.path("frame");
    std::fs::write(&file, frame).expect("written");
    let camera = format!(
        "pipe:printf 'YUV4MPEG2 W{width} H{height} F10:1 Ip Cmono\\n'; \
         while cat {}; do sleep 0.1; done",
        file.display()
    );
    let relay = format!("serial:{}", door.port);
    let devices = ["--camera", &camera, "--relay", &relay];
    let mut service = door.start_with(&devices);
    // Nobody is enrolled yet.
    service.says("locked out: too many refused attempts");
    let (state, until) = (door.path("gallery.redb.state"), Instant::now() + PATIENCE);
    while !state.exists() {
        assert!(Instant::now() < until, "the state of the door is not written");
        std::thread::sleep(Duration::from_millis(20));
    }
    door.kill(&mut service);
    let enrolled = door.command(&["enroll", "Eileen Collins", "--image", portrait]).output();
    assert!(enrolled.expect("the program runs").status.success());
    let service = door.start_with(&devices);
    service.says("refused: Eileen Collins, locked out for another");
}
