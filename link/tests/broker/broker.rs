//! A real Mosquitto, what is published and retained there, and somebody who watches.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

const MISSING: &str = "this test needs Mosquitto and OpenSSL, and does not pass without them; \
     on Debian: apt-get install mosquitto mosquitto-clients openssl";

/// A command, found also where only root looks for it.
fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/usr/local/sbin"));
    command
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// A CA, and certificates for the broker and a client, which expire tomorrow.
fn certificates(folder: &Path) {
    let run = |arguments: &[&str]| {
        let output = tool("openssl").args(arguments).current_dir(folder).output().expect(MISSING);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let key = |name: &str| {
        run(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", name]);
    };
    key("ca.key");
    run(&[
        "req",
        "-x509",
        "-new",
        "-key",
        "ca.key",
        "-days",
        "1",
        "-subj",
        "/CN=test-ca",
        "-out",
        "ca.pem",
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        "-addext",
        "keyUsage=critical,keyCertSign",
    ]);
    for (name, usage) in [("server", "serverAuth"), ("client", "clientAuth")] {
        key(&format!("{name}.key"));
        run(&[
            "req",
            "-new",
            "-key",
            &format!("{name}.key"),
            "-subj",
            &format!("/CN={name}"),
            "-out",
            &format!("{name}.csr"),
        ]);
        let extensions = format!(
            "basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost\n\
             extendedKeyUsage={usage}\n"
        );
        std::fs::write(folder.join(format!("{name}.ext")), extensions).expect("written");
        run(&[
            "x509",
            "-req",
            "-in",
            &format!("{name}.csr"),
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "1",
            "-extfile",
            &format!("{name}.ext"),
            "-out",
            &format!("{name}.pem"),
        ]);
    }
}

/// A Mosquitto that listens with TLS and client certificates, and without for this test.
pub struct Broker {
    folder: PathBuf,
    /// Port with TLS.
    pub port: u16,
    /// Port without.
    pub open_port: u16,
    process: Child,
}

impl Broker {
    pub fn new(folder: &Path) -> Self {
        certificates(folder);
        let (port, open_port) = (free_port(), free_port());
        std::fs::create_dir(folder.join("data")).expect("a folder");
        let at = folder.display();
        let user = if rustix::process::getuid().is_root() { "user root\n" } else { "" };
        let text = format!(
            "listener {port} 127.0.0.1\ncafile {at}/ca.pem\ncertfile {at}/server.pem\n\
             keyfile {at}/server.key\nrequire_certificate true\nuse_identity_as_username true\n\
             listener {open_port} 127.0.0.1\nallow_anonymous true\npersistence true\n\
             persistence_location {at}/data/\nmax_queued_messages 0\nmax_inflight_messages 0\nlog_type all\n{user}"
        );
        std::fs::write(folder.join("mosquitto.conf"), text).expect("written");
        let process = spawn(folder);
        let broker = Self { folder: folder.to_owned(), port, open_port, process };
        broker.wait();
        broker
    }

    /// With the configuration of the document, in a folder in place of the root.
    pub fn of_the_document(root: &Path, port: u16) -> Self {
        let user = if rustix::process::getuid().is_root() { "user root\n" } else { "" };
        let path = root.join("etc/mosquitto/conf.d/facelatch.conf");
        let text = std::fs::read_to_string(path).expect("the document's file");
        let conf = format!("persistence_location {}/\n{user}{text}", root.display());
        std::fs::write(root.join("mosquitto.conf"), conf).expect("written");
        let process = spawn(root);
        let broker = Self { folder: root.to_owned(), port, open_port: port, process };
        broker.wait();
        broker
    }

    /// Starts it again after it has ended.
    pub fn start(&mut self) {
        self.process.wait().expect("it has ended");
        self.process = spawn(&self.folder);
        self.wait();
    }

    fn wait(&self) {
        super::until("the broker listens", || {
            std::net::TcpStream::connect(("127.0.0.1", self.open_port)).is_ok()
        });
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        let status = Command::new("/bin/kill").args([&format!("-{name}"), &id]).status();
        assert!(status.expect("kill").success());
    }

    fn client(&self, program: &str) -> Command {
        let mut command = tool(program);
        command.args(["-h", "127.0.0.1", "-p", &self.open_port.to_string(), "-V", "5"]);
        command
    }

    pub fn publish(&self, topic: &str, payload: &str, options: &[&str]) {
        let mut command = self.client("mosquitto_pub");
        let payload = if payload.is_empty() { vec!["-n"] } else { vec!["-m", payload] };
        let status = command.args(["-t", topic]).args(payload).args(options).status();
        assert!(status.expect(MISSING).success());
    }

    /// How many lines of its log contain all of these.
    pub fn logged(&self, parts: &[&str]) -> usize {
        let log = std::fs::read_to_string(self.folder.join("mosquitto.log")).expect("a log");
        log.lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }

    /// What is retained on a topic now.
    pub fn retained(&self, topic: &str) -> Option<String> {
        let mut command = self.client("mosquitto_sub");
        let output = command.args(["-t", topic, "--retained-only", "-C", "1", "-W", "1"]).output();
        let text = String::from_utf8(output.expect(MISSING).stdout).expect("text");
        text.lines().next().map(str::to_owned)
    }

    /// Topics on which anything is retained.
    pub fn all_retained(&self) -> Vec<String> {
        let mut command = self.client("mosquitto_sub");
        let output = command.args(["-t", "#", "--retained-only", "-W", "2", "-F", "%t"]).output();
        let text = String::from_utf8(output.expect(MISSING).stdout).expect("text");
        text.lines().map(str::to_owned).collect()
    }
}

fn spawn(folder: &Path) -> Child {
    let mut log = std::fs::OpenOptions::new();
    let log = log.create(true).append(true).open(folder.join("mosquitto.log")).expect("a log");
    tool("mosquitto")
        .arg("-c")
        .arg(folder.join("mosquitto.conf"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect(MISSING)
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Somebody who notes all messages of a topic, with a session that outlives the broker.
pub struct Watcher {
    process: Child,
    lines: Arc<Mutex<Vec<String>>>,
    name: String,
    rounds: usize,
}

impl Watcher {
    pub fn new(broker: &Broker, topic: &str) -> Self {
        let name = format!("watcher-{}", topic.replace('/', "-"));
        let probe = format!("probe/{}", topic.replace(['/', '+'], "-"));
        let mut command = broker.client("mosquitto_sub");
        command.args(["-i", &name, "-c", "-x", "3600", "-q", "1", "-t", topic, "-t", &probe]);
        let mut process = command
            .args(["-R"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect(MISSING);
        let lines = Arc::new(Mutex::new(vec![]));
        let (noted, out) = (Arc::clone(&lines), process.stdout.take().expect("a pipe"));
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                noted.lock().expect("lines").push(line);
            }
        });
        Self { process, lines, name: probe, rounds: 0 }
    }

    /// Waits until it hears what is published.
    pub fn ready(&mut self, broker: &Broker) {
        self.rounds += 1;
        let word = format!("probe {}", self.rounds);
        super::until("somebody watches", || {
            broker.publish(&self.name, &word, &[]);
            super::pause(100);
            self.lines.lock().expect("lines").contains(&word)
        });
    }

    /// What was heard.
    pub fn lines(&self) -> Vec<String> {
        let lines = self.lines.lock().expect("lines");
        lines.iter().filter(|line| !line.starts_with("probe ")).cloned().collect()
    }

    /// Numbers of the events that were heard.
    pub fn numbers(&self) -> Vec<u64> {
        let number = |line: &String| {
            let event: serde_json::Value = serde_json::from_str(line).expect(line);
            event["number"].as_u64().expect("a number")
        };
        self.lines().iter().map(number).collect()
    }

    /// How many different events were heard.
    pub fn different(&self) -> usize {
        let mut numbers = self.numbers();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.len()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
