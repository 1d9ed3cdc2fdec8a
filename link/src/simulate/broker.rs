//! EDGE: a Mosquitto of the simulation, on a port of this computer.

use crate::config::MqttUrl;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest wait until it takes connections.
const PATIENCE: Duration = Duration::from_secs(10);

/// The broker. It ends with this.
pub(super) struct Broker {
    program: PathBuf,
    folder: TempDir,
    port: u16,
    child: Child,
}

impl Broker {
    /// Starts one with the defaults of its package, except that it saves every few seconds.
    pub fn start(program: &Path) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .map_err(|error| error.to_string())?
            .port();
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\n\
             persistence_location {}/\nautosave_interval 3\nlog_type error\n",
            folder.path().display()
        );
        let config = folder.path().join("mosquitto.conf");
        std::fs::write(&config, text).map_err(|error| error.to_string())?;
        // As root it would become a user who cannot write the folder.
        if rustix::process::geteuid().is_root() {
            let text = std::fs::read_to_string(&config).map_err(|error| error.to_string())?;
            std::fs::write(&config, format!("{text}user root\n"))
                .map_err(|error| error.to_string())?;
        }
        let child = spawn(program, &config)?;
        let mut broker = Self { program: program.to_owned(), folder, port, child };
        broker.wait()?;
        Ok(broker)
    }

    pub fn url(&self) -> MqttUrl {
        MqttUrl { tls: false, host: "127.0.0.1".to_owned(), port: self.port }
    }

    /// Kills it as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again with what it had saved.
    pub fn start_again(&mut self) -> Result<(), String> {
        self.child = spawn(&self.program, &self.folder.path().join("mosquitto.conf"))?;
        self.wait()
    }

    /// Memory in use, bytes.
    pub fn memory(&self) -> Option<u64> {
        memory_of(&self.child.id().to_string())
    }

    fn wait(&mut self) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("{} ended: {status}", self.program.display()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(format!("{} takes no connections", self.program.display()))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(program: &Path, config: &Path) -> Result<Child, String> {
    Command::new(program)
        .arg("-c")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| {
            format!(
                "{}: {error}; install mosquitto, or name a broker with --broker",
                program.display()
            )
        })
}

/// Memory that a process uses, bytes. `process` is its number, or "self".
pub(super) fn memory_of(process: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
}
