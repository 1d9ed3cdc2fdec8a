//! Files of the gallery that belong to somebody else, such as after `sudo cp`. Root may read
//! everything, so under root the program runs as another user here.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;

/// Timeout, far longer than anything here takes, for busy machines.
const PATIENCE: Duration = Duration::from_secs(60);
/// Grey noise, ten frames per second: nobody in view.
const CORRIDOR: &str = "pipe:printf 'YUV4MPEG2 W64 H48 F10:1 Ip Cmono\\n'; \
                        while printf 'FRAME\\n' && head -c 3072 /dev/urandom; do sleep 0.1; done";
/// The user `nobody`.
const NOBODY: u32 = 65534;

struct Door {
    folder: TempDir,
    /// The user of the program, if this test runs as root.
    user: Option<u32>,
}

impl Door {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let user = rustix::process::geteuid().is_root().then_some(NOBODY);
        let door = Self { folder, user };
        // The build folder may be closed to others.
        std::fs::copy(env!("CARGO_BIN_EXE_facelatch"), door.path("facelatch")).expect("copied");
        std::fs::create_dir(door.path("card")).expect("a folder");
        for path in [door.folder.path().to_owned(), door.path("card")] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("rights");
            chown(&path, user, user).expect("an owner");
        }
        let text = format!(
            "[service]\nstatus_socket = {:?}\n[gallery]\nfile = {:?}\n",
            door.path("control.sock"),
            door.gallery()
        );
        std::fs::write(door.path("facelatch.toml"), text).expect("written");
        std::fs::copy(
            concat!(env!("CARGO_MANIFEST_DIR"), "/assets/astronaut_face.jpg"),
            door.path("face.jpg"),
        )
        .expect("copied");
        door
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn gallery(&self) -> PathBuf {
        self.path("card/gallery.redb")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path("facelatch"));
        command.args(arguments).arg("--config").arg(self.path("facelatch.toml"));
        command.env("XDG_STATE_HOME", self.path("card/state"));
        command.env("STATE_DIRECTORY", self.path("card/state"));
        command.env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET");
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program runs")
    }

    /// Takes the gallery's files from the program's user, or gives them back.
    fn owned(&self, own: bool) {
        for entry in std::fs::read_dir(self.path("card")).expect("a folder").flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|end| end != "redb") {
                continue;
            }
            match self.user {
                Some(user) => chown(&path, Some(if own { user } else { 0 }), None).expect("owned"),
                None => {
                    let mode = if own { 0o600 } else { 0 };
                    std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("set");
                }
            }
        }
    }

    fn touch(&self, later: u64) {
        let time = SystemTime::now() + Duration::from_secs(later);
        let files = [self.gallery(), self.path("card/gallery.last-good.redb")];
        for file in files.iter().filter(|file| file.exists()) {
            // Its owner may set the time without opening it to write.
            let touched = Command::new("touch")
                .arg("-d")
                .arg(format!(
                    "@{}",
                    time.duration_since(SystemTime::UNIX_EPOCH).expect("now").as_secs()
                ))
                .arg(file)
                .status();
            assert!(touched.expect("touch runs").success());
        }
    }

    fn status(&self) -> Value {
        serde_json::from_slice(&self.run(&["status", "--json"]).stdout).expect("JSON")
    }
}

fn says(log: &Receiver<String>, text: &str) {
    let mut all = vec![];
    loop {
        match log.recv_timeout(PATIENCE) {
            Ok(line) if line.contains(text) => return,
            Ok(line) => all.push(line),
            Err(_) => panic!("no {text:?} in {all:#?}"),
        }
    }
}

fn lines(of: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, log) = channel();
    std::thread::spawn(move || {
        BufReader::new(of).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    log
}

fn count(folder: &Path) -> usize {
    std::fs::read_dir(folder).expect("a folder").count()
}

#[test]
fn a_gallery_of_another_owner_is_named_and_stops_no_door() {
    let door = Door::new();
    let enrolled = door.run(&["enroll", "Ada", "--image", "face.jpg"]);
    assert!(enrolled.status.success(), "{}", String::from_utf8_lossy(&enrolled.stderr));

    // A command and a start name it with the cure, and make no new gallery.
    door.owned(false);
    let before = count(&door.path("card"));
    for arguments in [&["people", "list"][..], &["run", "--relay", "log:", "--camera", CORRIDOR]] {
        let refused = door.run(arguments);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains("gallery.redb") && said.contains("ermission"), "{said}");
    }
    assert!(count(&door.path("card")) <= before + 1, "only the state of the relay is new");

    // A door that is running keeps its people and goes on.
    door.owned(true);
    let mut service = Service(
        door.command(&["run", "--relay", "log:", "--camera", CORRIDOR])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs"),
    );
    let log = lines(service.0.stderr.take().expect("its log"));
    says(&log, "door locked");
    door.owned(false);
    door.touch(10);
    let shows = |state: &str, is: bool| {
        let until = Instant::now() + PATIENCE;
        loop {
            let gallery = door.status()["service"]["gallery"].clone();
            if gallery["people"] == 1 && (gallery["file"]["state"] == state) == is {
                return;
            }
            assert!(Instant::now() < until, "{gallery}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    shows("good", false);
    says(&log, "gallery.redb");
    assert!(door.run(&["door", "open"]).status.success());
    says(&log, "door unlocked");
    door.owned(true);
    door.touch(20);
    says(&log, "the file is back");
    shows("good", true);
}

/// Killed also if the test fails.
struct Service(std::process::Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
