//! A hostile program in the place of the link, at the socket of a door that recognizes
//! people: nothing opens that should not, and nothing stops.

use facelatch_messages::{Bytes, FromLink, LinkHello, LinkOrder, PROTOCOL, Reach, write_line};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;

const ASTRONAUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/astronaut.jpg");
/// Frames of the run: some seconds.
const FRAMES: &str = "150";

/// Numbers that seem to be random and are always the same (xorshift64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }

    fn text(&mut self) -> String {
        (0..self.below(60)).map(|_| char::from(b' ' + self.below(90) as u8)).collect()
    }

    /// A line of a link that means no good.
    fn line(&mut self) -> Vec<u8> {
        let id = self.below(300);
        let message = match self.below(7) {
            0 => FromLink::Hello(LinkHello {
                protocol: PROTOCOL,
                after: Some(id),
                ..LinkHello::default()
            }),
            1 => FromLink::Taken { number: id },
            2 => FromLink::Published { id },
            3 => FromLink::Reach(Reach { fault: self.text(), fetched: true, ..Reach::default() }),
            4 => {
                let bytes = (0..self.below(3000)).map(|_| self.below(256) as u8).collect();
                FromLink::Record { id, topic: self.text(), bytes: Bytes(bytes) }
            }
            _ => {
                let order = LinkOrder::ALL[self.below(4) as usize];
                FromLink::Order { id, order, by: self.text() }
            }
        };
        let mut line = write_line(&message);
        if self.below(8) == 0 {
            let at = self.below(line.len() as u64) as usize;
            line[at] = self.below(256) as u8;
        }
        line
    }

    /// Keeps at a socket until `over`, with one trick after the other.
    fn attack(&mut self, socket: &Path, over: &AtomicBool, connected: &AtomicUsize) {
        while !over.load(Ordering::Relaxed) {
            let Ok(mut stream) = UnixStream::connect(socket) else {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            };
            connected.fetch_add(1, Ordering::Relaxed);
            let _ = stream.set_read_timeout(Some(Duration::from_millis(1)));
            let _ = stream.set_write_timeout(Some(Duration::from_millis(100)));
            let hello = LinkHello { protocol: PROTOCOL, after: Some(0), ..LinkHello::default() };
            let _ = stream.write_all(&write_line(&FromLink::Hello(hello)));
            let reads = self.below(2) == 0;
            for _ in 0..self.below(400) {
                let sent = match self.below(200) {
                    0 => stream.write_all(&[b'['; 300_000]),
                    1 => stream.write_all(b"{\"order\":"),
                    _ => stream.write_all(&self.line()),
                };
                if sent.is_err() || over.load(Ordering::Relaxed) {
                    break;
                }
                if reads {
                    let _ = stream.read(&mut [0; 4096]);
                }
            }
        }
    }
}

struct Door {
    folder: TempDir,
}

impl Door {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_facelatch"));
        command.args(arguments).arg("--config").arg(self.path("facelatch.toml"));
        command.env("XDG_STATE_HOME", self.path("state"));
        command.env("STATE_DIRECTORY", self.path("state"));
        command.env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET");
        command
    }
}

#[test]
fn a_hostile_link_opens_nothing_and_stops_nothing() {
    let door = Door { folder: TempDir::new().expect("a folder") };
    let (control, link) = (door.path("run/control.sock"), door.path("run/link.sock"));
    let text = format!(
        "[service]\nstatus_socket = {control:?}\n[gallery]\nfile = {:?}\n[link]\nsocket = {link:?}\n",
        door.path("gallery.redb")
    );
    std::fs::write(door.path("facelatch.toml"), text).expect("written");
    let enrolled = door.command(&["enroll", "Eileen Collins", "--image", ASTRONAUT]).output();
    assert!(enrolled.expect("the program runs").status.success());
    let camera = format!("images:{ASTRONAUT}?fps=10&loop");
    let run = ["run", "--camera", &camera, "--relay", "log:", "--json", "--max-frames", FRAMES];
    let mut child = door
        .command(&run)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program runs");
    let out = BufReader::new(child.stdout.take().expect("its output"));
    let (over, connected) = (AtomicBool::new(false), AtomicUsize::new(0));
    let events: Vec<Value> = std::thread::scope(|scope| {
        for seed in 1..=3 {
            let (link, over, connected) = (&link, &over, &connected);
            scope.spawn(move || Chance(seed * 7919).attack(link, over, connected));
        }
        let lines = out.lines().map_while(Result::ok);
        let events = lines.map(|line| serde_json::from_str(&line).expect("JSON")).collect();
        over.store(true, Ordering::Relaxed);
        events
    });
    assert_eq!(child.wait().expect("an end").code(), Some(0));
    assert!(connected.load(Ordering::Relaxed) > 3, "it was attacked");
    let count = |kind: &str| events.iter().filter(|event| event["event"] == kind).count();
    assert!(count("granted") > 0, "the person is let in");
    assert_eq!(count("unlocked"), count("granted"), "and only because of that");
    assert_eq!(count("order") + count("mode") + count("opened by command"), 0);
    assert!(count("order refused") > 0, "orders were tried and logged");
    assert!(count("order refused") < 40, "at a bounded rate");
    let verified = door.command(&["log", "verify"]).output().expect("the program runs");
    let said = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(verified.status.success(), "{said}");
}
