//! EDGE: a Mosquitto of the simulation, on a port of this computer.

use crate::config::MqttUrl;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest wait until it takes connections.
const PATIENCE: Duration = Duration::from_secs(10);

/// The broker. It ends with this, and with a signal that ends the program.
pub(super) struct Broker {
    program: PathBuf,
    folder: TempDir,
    port: u16,
    child: Arc<Mutex<Child>>,
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
        let child = Arc::new(Mutex::new(spawn(program, &config)?));
        end_with_signals(&child, folder.path().to_owned()).map_err(|error| error.to_string())?;
        let mut broker = Self { program: program.to_owned(), folder, port, child };
        broker.wait()?;
        Ok(broker)
    }

    pub fn url(&self) -> MqttUrl {
        MqttUrl { tls: false, host: "127.0.0.1".to_owned(), port: self.port }
    }

    /// Kills it as a power cut would.
    pub fn kill(&mut self) {
        end(&self.child);
    }

    /// Starts it again with what it had saved.
    pub fn start_again(&mut self) -> Result<(), String> {
        *lock(&self.child) = spawn(&self.program, &self.folder.path().join("mosquitto.conf"))?;
        self.wait()
    }

    /// Memory in use, bytes.
    pub fn memory(&self) -> Option<u64> {
        memory_of(&lock(&self.child).id().to_string())
    }

    fn wait(&mut self) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return Ok(());
            }
            if let Ok(Some(status)) = lock(&self.child).try_wait() {
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

/// On a signal that ends the program, ends the broker and removes its folder first.
fn end_with_signals(child: &Arc<Mutex<Child>>, folder: PathBuf) -> std::io::Result<()> {
    let (mut told, tells) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        signal_hook::low_level::pipe::register(signal, tells.try_clone()?)?;
    }
    let child = Arc::clone(child);
    let work = move || {
        let _ = told.read(&mut [0]);
        end(&child);
        let _ = std::fs::remove_dir_all(folder);
        std::process::exit(1);
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(work).map(drop)
}

fn end(child: &Mutex<Child>) {
    let mut child = lock(child);
    let _ = child.kill();
    let _ = child.wait();
}

fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
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
