//! Tests `push` against a real sshd on this machine, with its own port and keys. sshd
//! comes with Debian's openssh-server. If it is missing, or if the user cannot log in,
//! the tests are reported as ignored.

#![expect(clippy::print_stdout, reason = "a test's figures are its output")]
#![expect(clippy::print_stderr, reason = "the reason for ignoring tests is not their output")]

use facelatch::models::{MANIFEST, Models};
use facelatch_tools::deliver::export::self_test;
use facelatch_tools::deliver::sign::{Key, sign};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SSHD: &str = "/usr/sbin/sshd";
const ASTRONAUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/astronaut.jpg");
const ADMIRAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/grace_hopper.jpg");
const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models");
/// A busy machine needs time to start a program.
const PATIENCE: Duration = Duration::from_secs(60);
/// Number of ports to try.
const PORTS: usize = 5;

fn main() {
    let arguments = Arguments::from_args();
    let missing = match why_no_login(&arguments) {
        Some(reason) => {
            eprintln!("needs_sshd: ignored: {reason}");
            true
        }
        None => false,
    };
    let trial = |name: &str, test: fn() -> Result<(), Failed>| {
        Trial::test(format!("needs_sshd::{name}"), test).with_ignored_flag(missing)
    };
    let tests = vec![
        trial("a_set_reaches_the_door_and_everybody_stays", sets_arrive),
        trial("a_transfer_that_breaks_off_changes_nothing", transfers_break),
        trial("what_is_damaged_on_the_way_or_before_is_refused", digests_count),
        trial("sets_without_a_trusted_signature_are_refused", signatures_count),
        trial("a_dry_run_only_looks", dry_run),
        trial("devices_that_cannot_are_told_apart", devices_that_cannot),
    ];
    libtest_mimic::run(&arguments, tests).exit();
}

/// Why this user cannot log in here: sshd is missing, or the account accepts no key.
/// `None` otherwise; for all other faults the tests fail.
fn why_no_login(arguments: &Arguments) -> Option<String> {
    if !Path::new(SSHD).exists() {
        return Some(format!("there is no {SSHD}; install openssh-server"));
    }
    if arguments.list {
        return None;
    }
    let device = Device::listen().ok()?;
    let login = Command::new("ssh")
        .args(["-F", &device.path("ssh_config"), "-i", &device.path("user")])
        .args(["-p", &device.port.to_string(), "127.0.0.1", "echo here"])
        .output()
        .ok()?;
    if login.stdout == b"here\n" {
        return None;
    }
    let said = text(&login);
    // 255 is ssh's own exit status; any other comes from a login shell that does not run
    // commands.
    let refused = login.status.code() != Some(255) || said.contains("Permission denied");
    refused.then(|| format!("this user cannot log in by ssh: {}", said.trim()))
}

/// Starts sshd with the configuration in a folder, on loopback and a port that was free a
/// moment ago. `None` if sshd ended because somebody else took the port.
fn sshd(folder: &Path) -> Result<Option<(Child, u16)>, Failed> {
    let path = |name: &str| folder.join(name);
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let host_key = std::fs::read_to_string(path("host.pub"))?;
    std::fs::write(path("known_hosts"), format!("[127.0.0.1]:{port} {host_key}"))?;
    let log = path("sshd.log");
    let mut sshd = Command::new(SSHD)
        .args(["-D", "-e", "-p", &port.to_string(), "-f"])
        .arg(path("sshd_config"))
        .stdin(Stdio::null())
        .stderr(std::fs::File::create(&log)?)
        .spawn()?;
    let began = Instant::now();
    // Waits for sshd's log, because another program might answer at the port.
    while !std::fs::read_to_string(&log)?.contains("Server listening") {
        if sshd.try_wait()?.is_some() {
            return Ok(None);
        }
        if began.elapsed() > PATIENCE {
            sshd.kill()?;
            sshd.wait()?;
            return Err(format!("sshd does not listen: {}", std::fs::read_to_string(&log)?).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Some((sshd, port)))
}

/// A device: sshd on loopback, and a gallery with the astronaut, who has a picture, and
/// the admiral, who has none.
struct Device {
    folder: TempDir,
    sshd: Child,
    port: u16,
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}

impl Device {
    fn start() -> Result<Self, Failed> {
        let device = Self::listen()?;
        device.local(&["enroll", "Eileen Collins", "--image", ASTRONAUT], "facelatch.toml")?;
        device.local(&["enroll", "Grace Hopper", "--image", ADMIRAL], "without.toml")?;
        Ok(device)
    }

    /// A device with an empty gallery.
    fn listen() -> Result<Self, Failed> {
        let folder = TempDir::new()?;
        let path = |name: &str| folder.path().join(name).display().to_string();
        for key in ["host", "user"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f", &path(key)])
                .status()?;
            check(made.success(), "ssh-keygen")?;
        }
        std::fs::copy(path("user.pub"), path("authorized_keys"))?;
        std::fs::write(
            path("sshd_config"),
            format!(
                "ListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\n\
                 PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\n\
                 KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
                 PrintMotd no\n",
                path("host"),
                path("authorized_keys")
            ),
        )?;
        std::fs::write(
            path("ssh_config"),
            format!(
                "Host *\n  UserKnownHostsFile {}\n  StrictHostKeyChecking yes\n  BatchMode yes\n  \
                 IdentitiesOnly yes\n  ConnectTimeout 20\n",
                path("known_hosts")
            ),
        )?;
        std::fs::write(
            path("facelatch.toml"),
            format!(
                "[gallery]\nfile = \"{}\"\n[models]\ntrusted_keys = [\"{}\"]\n",
                path("g.redb"),
                std::fs::read_to_string(path("user.pub"))?.trim()
            ),
        )?;
        std::fs::write(
            path("without.toml"),
            format!("[gallery]\nfile = \"{}\"\nkeep_crops = false\n", path("g.redb")),
        )?;
        // As root, sshd needs a folder that only its service would create.
        let _ = std::fs::create_dir_all("/run/sshd");
        for _ in 0..PORTS {
            if let Some((sshd, port)) = sshd(folder.path())? {
                return Ok(Self { folder, sshd, port });
            }
        }
        Err(std::fs::read_to_string(path("sshd.log"))?.into())
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Runs facelatch on the device, without ssh.
    fn local(&self, arguments: &[&str], config: &str) -> Result<String, Failed> {
        let output = Command::new(facelatch())
            .args(arguments)
            .args(["--config", &self.path(config)])
            // A session of ssh has none.
            .env_remove("XDG_STATE_HOME")
            .output()?;
        check(output.status.success(), &text(&output))?;
        Ok(String::from_utf8(output.stdout)?)
    }

    fn push_command(&self, set: &Path, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_facelatch-tools"));
        command
            .args(["push", "127.0.0.1", "--models"])
            .arg(set)
            .args(["--port", &self.port.to_string(), "--identity", &self.path("user")])
            .args(["--ssh-config", &self.path("ssh_config")])
            .args(["--config", &self.path("facelatch.toml")])
            .args(if more.contains(&"--facelatch") {
                vec![]
            } else {
                vec!["--facelatch", facelatch_text()]
            })
            .args(more)
            .env_remove("RUST_LOG");
        command
    }

    fn push(&self, set: &Path, more: &[&str]) -> Result<Output, Failed> {
        Ok(self.push_command(set, more).output()?)
    }

    /// The version in use, and who is recognized in the astronaut's picture.
    fn state(&self) -> Result<(String, String), Failed> {
        let status = self.local(&["status", "--json"], "facelatch.toml")?;
        let status: Value = serde_json::from_str(&status)?;
        let seen = self.local(&["identify", "--json", ASTRONAUT], "facelatch.toml")?;
        let seen: Value = serde_json::from_str(&seen)?;
        let word = |value: &Value| value.as_str().unwrap_or("nobody").to_owned();
        Ok((word(&status["models"]), word(&seen["faces"][0]["name"])))
    }

    #[track_caller]
    fn expect(&self, version: &str) -> Result<(), Failed> {
        let state = self.state()?;
        check(
            state == (version.to_owned(), "Eileen Collins".to_owned()),
            &format!("{state:?}, expected {version}"),
        )
    }

    /// The shipped models as a set of another version, signed by the key that the device
    /// trusts, the higher versions later.
    fn set(&self, version: &str) -> Result<PathBuf, Failed> {
        let set = self.unsigned(version)?;
        let at = 1_800_000_000 + version.parse::<i64>()?;
        sign(&set, &mut Key::read(&self.folder.path().join("user"))?, at)?;
        Ok(set)
    }

    /// The same without a signature.
    fn unsigned(&self, version: &str) -> Result<PathBuf, Failed> {
        let to = self.folder.path().join(format!("set-{version}"));
        std::fs::create_dir_all(&to)?;
        let from = Path::new(MODELS);
        for file in ["pnet.onnx", "rnet.onnx", "onet.onnx", "mobilefacenet.onnx", "covered.json"] {
            std::fs::copy(from.join(file), to.join(file))?;
        }
        let (entry, files) = self_test(&Models::open(from)?)?;
        for (name, bytes) in files {
            std::fs::write(to.join(name), bytes)?;
        }
        let mut manifest = Models::open(from)?.manifest;
        manifest.version = version.to_owned();
        manifest.selftest = Some(entry);
        std::fs::write(to.join(MANIFEST), toml::to_string(&manifest)?)?;
        Ok(to)
    }

    /// A script in place of facelatch on the device.
    fn stand_in(&self, script: &str) -> Result<String, Failed> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path("stand in's place");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
        Ok(path)
    }
}

/// The device's program, which is built beside the tools.
fn facelatch() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_facelatch-tools")).with_file_name("facelatch")
}

fn facelatch_text() -> &'static str {
    static PATH: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    PATH.get_or_init(|| facelatch().display().to_string())
}

fn check(right: bool, what: &str) -> Result<(), Failed> {
    if right { Ok(()) } else { Err(what.into()) }
}

fn text(output: &Output) -> String {
    let words = [&output.stdout, &output.stderr];
    words.map(|words| String::from_utf8_lossy(words).into_owned()).join("")
}

fn refused(output: &Output, expected: &str) -> Result<(), Failed> {
    let said = text(output);
    check(output.status.code() == Some(1) && said.contains(expected), &said)?;
    check(!said.contains("panicked"), &said)
}

/// Version of the models in the program.
fn built_in_version() -> Result<String, Failed> {
    Ok(Models::built_in()?.manifest.version)
}

/// Installs a first set and a second one, then rolls back.
fn sets_arrive() -> Result<(), Failed> {
    let device = Device::start()?;
    device.expect(&built_in_version()?)?;
    let output = device.push(&device.set("1")?, &[])?;
    let said = text(&output);
    check(output.status.success(), &said)?;
    for expected in [
        "there     built-in is in use",
        "copied    10 files",
        "self-test passed on 2 pictures",
        "1 templates re-embedded",
        "Grace Hopper: all templates are of another model",
        "in use    1+",
    ] {
        check(said.contains(expected), &said)?;
    }
    println!("{said}");
    device.expect("1")?;
    let output = device.push(&device.set("2")?, &[])?;
    check(output.status.success(), &text(&output))?;
    check(text(&output).contains("previous 1+"), &text(&output))?;
    device.expect("2")?;
    device.local(&["models", "verify"], "facelatch.toml")?;
    device.local(&["models", "rollback"], "facelatch.toml")?;
    device.expect("1")?;
    // The folder's name has a space and quotes, and passes through two shells.
    let store = device.path("it's a \"store\" $HOME");
    let output = device.push(&device.set("3")?, &["--store", &store])?;
    check(output.status.success(), &text(&output))?;
    check(Path::new(&store).join("current.toml").exists(), "no store of that name")?;
    device.expect("1")
}

/// Half a transfer arrives: first the line fails, then the sender is killed.
fn transfers_break() -> Result<(), Failed> {
    let device = Device::start()?;
    let output = device.push(&device.set("1")?, &[])?;
    check(output.status.success(), &text(&output))?;
    let mark = device.path("half");
    let cut = |rest: &str| {
        format!(
            "case \"$2\" in install) {{ head -c 700000; : > '{mark}'; {rest}; }} | '{0}' \"$@\";; \
             *) exec '{0}' \"$@\";; esac",
            facelatch_text()
        )
    };
    let second = device.set("2")?;
    let line = device.stand_in(&cut("cat > /dev/null"))?;
    let output = device.push(&second, &["--facelatch", &line])?;
    refused(&output, "truncated")?;
    device.expect("1")?;

    std::fs::remove_file(&mark)?;
    // Passes nothing further on until `go` exists, or `half` is deleted with the folder.
    let go = device.path("go");
    let wait = format!("until [ -e '{go}' ] || ! [ -e '{mark}' ]; do sleep 0.1; done; cat");
    let line = device.stand_in(&cut(&wait))?;
    let mut sender = device
        .push_command(&second, &["--facelatch", &line])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Kills ssh together with it.
        .process_group(0)
        .spawn()?;
    let began = Instant::now();
    while !Path::new(&mark).exists() && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    let group = format!("-{}", sender.id());
    let killed = Command::new("kill").args(["-s", "KILL", "--", &group]).status()?;
    sender.wait()?;
    check(killed.success() && Path::new(&mark).exists(), "nothing was half sent")?;
    // The device is in the middle of it, waiting for the rest.
    device.expect("1")?;
    let output = device.push(&second, &[])?;
    refused(&output, "another facelatch is changing")?;
    std::fs::write(&go, "")?;
    // The device gives up; then the same set arrives.
    let began = Instant::now();
    let output = loop {
        let output = device.push(&second, &[])?;
        if output.status.success() || began.elapsed() > PATIENCE {
            break output;
        }
        check(text(&output).contains("another facelatch is changing"), &text(&output))?;
        std::thread::sleep(Duration::from_millis(200));
    };
    check(output.status.success(), &text(&output))?;
    device.expect("2")
}

/// Damage before sending, and on the way.
fn digests_count() -> Result<(), Failed> {
    let device = Device::start()?;
    let output = device.push(&device.set("1")?, &[])?;
    check(output.status.success(), &text(&output))?;
    let second = device.set("2")?;
    // On the way: one byte of a network is changed.
    let flip = "import sys; d = bytearray(sys.stdin.buffer.read()); d[400000] ^= 1; \
                sys.stdout.buffer.write(d)";
    let script = format!(
        "case \"$2\" in install) python3 -c '{flip}' | '{0}' \"$@\";; *) exec '{0}' \"$@\";; esac",
        facelatch_text()
    );
    let line = device.stand_in(&script)?;
    refused(&device.push(&second, &["--facelatch", &line])?, "sha256 is")?;
    device.expect("1")?;
    std::fs::write(second.join("rnet.onnx"), "damaged")?;
    let output = device.push(&second, &[])?;
    refused(&output, "rnet.onnx: sha256 is")?;
    check(!text(&output).contains("there  "), "it was sent")?;
    device.expect("1")
}

/// Without a signature, with a broken one, and with one that the device does not trust.
fn signatures_count() -> Result<(), Failed> {
    let device = Device::start()?;
    let version = built_in_version()?;
    let plain = device.unsigned("1")?;
    let output = device.push(&plain, &[])?;
    refused(&output, "not signed")?;
    check(!text(&output).contains("there  "), "it was sent")?;
    sign(&plain, &mut Key::read(&device.folder.path().join("host"))?, 1_800_000_000)?;
    refused(&device.push(&plain, &[])?, "not in models.trusted_keys")?;
    device.expect(&version)?;
    let manifest = plain.join(MANIFEST);
    let whole = std::fs::read_to_string(&manifest)?;
    std::fs::write(&manifest, format!("{whole}\n# changed\n"))?;
    refused(&device.push(&plain, &["--unsigned"])?, "does not fit")?;
    std::fs::write(&manifest, whole)?;
    let output = device.push(&plain, &["--unsigned"])?;
    check(output.status.success(), &text(&output))?;
    check(text(&output).contains("not trusted"), &text(&output))?;
    device.expect("1")
}

fn dry_run() -> Result<(), Failed> {
    let device = Device::start()?;
    let output = device.push(&device.set("1")?, &["--dry-run"])?;
    check(output.status.success(), &text(&output))?;
    for expected in ["here      1, 10 files", "there     built-in is in use", "sent      nothing"] {
        check(text(&output).contains(expected), &text(&output))?;
    }
    check(!Path::new(&device.path("models")).exists(), "something was made")?;
    device.expect(&built_in_version()?)
}

/// The program is missing, is too old, has no room, or ssh does not let it in.
fn devices_that_cannot() -> Result<(), Failed> {
    let device = Device::start()?;
    let set = device.set("1")?;
    let none = device.path("no such program");
    refused(&device.push(&set, &["--facelatch", &none])?, "give its path with --facelatch")?;
    let old = device.stand_in("echo \"error: unrecognized subcommand 'models'\" >&2; exit 2")?;
    refused(&device.push(&set, &["--facelatch", &old])?, "too old; update it")?;
    let small = device
        .stand_in(&format!("trap '' XFSZ; ulimit -f 600; exec '{}' \"$@\"", facelatch_text()))?;
    refused(&device.push(&set, &["--facelatch", &small])?, "onnx: File too large")?;
    let output = Command::new(env!("CARGO_BIN_EXE_facelatch-tools"))
        .args(["push", "127.0.0.1", "--models"])
        .arg(&set)
        .args(["--port", &device.port.to_string(), "--identity", &device.path("host")])
        .args(["--ssh-config", &device.path("ssh_config")])
        .output()?;
    refused(&output, "ssh failed")?;
    let output = Command::new(env!("CARGO_BIN_EXE_facelatch-tools"))
        .args(["push", "--models", MODELS, "--", "-oProxyCommand=touch x"])
        .output()?;
    refused(&output, "is not a host")?;
    device.expect(&built_in_version()?)
}
