//! A set of models to a device, over the system's ssh: a tar into the standard input of
//! `facelatch models install -` there, which checks it and switches. ssh knows the hosts,
//! the keys and the user's habits better than any code of ours could.

use anyhow::{Context, Result, anyhow, bail};
use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// What ssh says when it is ssh that failed.
const SSH_FAILED: i32 = 255;
/// What a shell says where there is no such program, or it does not run.
const NOT_FOUND: i32 = 127;
const NOT_RUNNING: i32 = 126;
/// What facelatch says of a command line it does not understand.
const WRONG_USAGE: i32 = 2;

/// A device and how to reach it.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// As ssh takes it: HOST, USER@HOST or a name of its configuration.
    pub name: String,
    /// Where sshd listens.
    pub port: Option<u16>,
    /// Private key.
    pub identity: Option<PathBuf>,
    /// ssh's configuration, in the place of the user's.
    pub ssh_config: Option<PathBuf>,
    /// The program there.
    pub facelatch: String,
    /// Options of its own for all of it: where gallery and models are.
    pub options: Vec<String>,
}

/// What a device said, and how it ended.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Standard output.
    pub said: String,
}

impl Host {
    /// Refuses what ssh would take for an option, or a shell for more than a name.
    pub fn check(&self) -> Result<()> {
        let name = &self.name;
        if name.is_empty() || name.starts_with('-') {
            bail!("{name:?} is no host; give it as HOST or USER@HOST");
        }
        if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            bail!("{name:?} is no host: there is a blank in it");
        }
        Ok(())
    }

    /// ssh's arguments for a facelatch command on the device.
    pub fn arguments(&self, command: &[&str]) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["-T".into()];
        for (flag, path) in [("-F", &self.ssh_config), ("-i", &self.identity)] {
            if let Some(path) = path {
                arguments.extend([flag.into(), path.into()]);
            }
        }
        if let Some(port) = self.port {
            arguments.extend(["-p".into(), port.to_string().into()]);
        }
        let words = [self.facelatch.as_str()].into_iter().chain(command.iter().copied());
        let words = words.chain(self.options.iter().map(String::as_str));
        let line = words.map(quoted).collect::<Vec<_>>().join(" ");
        // What follows `--` is no option, whatever it looks like.
        arguments.extend(["--".into(), self.name.clone().into(), line.into()]);
        arguments
    }

    /// Runs a facelatch command on the device and takes what it says.
    pub fn ask(&self, command: &[&str]) -> Result<Answer> {
        self.check()?;
        let output = self
            .ssh(command)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run ssh; install OpenSSH's client")?;
        self.ended(output.status)?;
        Ok(Answer { said: String::from_utf8_lossy(&output.stdout).into_owned() })
    }

    /// Runs a facelatch command on the device that takes a tar; what it says goes to
    /// standard output. `sent` hears how many bytes went on their way.
    pub fn send(&self, command: &[&str], set: &Set, sent: impl FnMut(usize)) -> Result<()> {
        self.check()?;
        let mut ssh = self
            .ssh(command)
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot run ssh; install OpenSSH's client")?;
        let pipe = ssh.stdin.take().context("ssh takes nothing")?;
        let written = set.write_tar(Counted { to: pipe, sent });
        // Its end says more than a pipe that broke.
        self.ended(ssh.wait().context("ssh is gone")?)?;
        written.context("the set could not be sent")
    }

    fn ssh(&self, command: &[&str]) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.args(self.arguments(command));
        ssh
    }

    /// What the end of ssh means.
    fn ended(&self, status: ExitStatus) -> Result<()> {
        let (name, facelatch) = (&self.name, &self.facelatch);
        if status.success() {
            return Ok(());
        }
        Err(match status.code() {
            Some(SSH_FAILED) => anyhow!(
                "{name}: ssh could not do it; see its words above, and try: ssh {name} true"
            ),
            Some(NOT_FOUND | NOT_RUNNING) => anyhow!(
                "{name}: there is no program {facelatch} that runs; install facelatch there, or say where it is with --facelatch"
            ),
            Some(WRONG_USAGE) => anyhow!(
                "{name}: {facelatch} there does not know these commands, so it is too old; update it first"
            ),
            Some(_) => {
                anyhow!("{name}: refused, as said above; the models in use there stay in use")
            }
            None => anyhow!("{name}: ssh was stopped by a signal ({status})"),
        })
    }
}

/// A word that a POSIX shell takes as it is.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// A set's files, the manifest last: its arrival says that all else is there.
#[derive(Clone, Debug)]
pub struct Set {
    /// Name and content.
    files: Vec<(String, Vec<u8>)>,
}

impl Set {
    /// The named files of a folder.
    pub fn read(folder: &Path, names: &[String]) -> Result<Self> {
        let mut files = Vec::new();
        for name in names {
            let path = folder.join(name);
            let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
            files.push((name.clone(), bytes));
        }
        files.sort_by_key(|(name, _)| name == facelatch::models::MANIFEST);
        Ok(Self { files })
    }

    /// Files in it.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> usize {
        self.files.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    /// The same files give the same tar.
    pub fn write_tar(&self, to: impl Write) -> std::io::Result<()> {
        let mut tar = tar::Builder::new(to);
        for (name, bytes) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append_data(&mut header, name, bytes.as_slice())?;
        }
        tar.into_inner()?.flush()
    }
}

/// Tells how much went through.
struct Counted<W, F> {
    to: W,
    sent: F,
}

impl<W: Write, F: FnMut(usize)> Write for Counted<W, F> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        loop {
            match self.to.write(bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(count) => {
                    (self.sent)(count);
                    return Ok(count);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Host {
        Host { name: name.to_owned(), facelatch: "facelatch".to_owned(), ..Host::default() }
    }

    #[test]
    fn a_host_that_is_an_option_is_refused() {
        for name in ["", "-oProxyCommand=touch /tmp/x", "door 1", "door\n1"] {
            assert!(host(name).check().is_err(), "{name:?}");
            assert!(host(name).ask(&["models", "list"]).is_err(), "{name:?}");
        }
        assert!(host("root@door-1.example").check().is_ok());
    }

    #[test]
    fn words_reach_the_device_as_they_are() {
        let mut host = host("door");
        host.facelatch = "/opt/face latch/it's".to_owned();
        host.options = vec!["--store".into(), "$(reboot); `x` \"y\"".into()];
        host.port = Some(2222);
        let arguments = host.arguments(&["models", "install", "-"]);
        let (line, before) = arguments.split_last().expect("arguments");
        assert_eq!(before, ["-T", "-p", "2222", "--", "door"].map(OsString::from));
        let echo = format!("printf '%s|' {}", line.to_str().expect("text"));
        let said = Command::new("sh").args(["-c", &echo]).output().expect("a shell");
        let said = String::from_utf8(said.stdout).expect("text");
        assert_eq!(said, "/opt/face latch/it's|models|install|-|--store|$(reboot); `x` \"y\"|");
    }

    #[test]
    fn a_tar_ends_with_the_manifest_and_repeats_itself() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["manifest.toml", "a.onnx", "z.onnx"] {
            std::fs::write(folder.path().join(name), name).expect("written");
        }
        let names = ["manifest.toml", "z.onnx", "a.onnx"].map(str::to_owned);
        let set = Set::read(folder.path(), &names).expect("a set");
        assert_eq!((set.len(), set.bytes()), (3, 13 + 6 + 6));
        let mut bytes = 0;
        let mut tars = [vec![], vec![]];
        for tar in &mut tars {
            set.write_tar(Counted { to: tar, sent: |count| bytes += count }).expect("a tar");
        }
        assert_eq!(tars[0], tars[1]);
        assert_eq!(bytes, 2 * tars[0].len());
        let mut archive = tar::Archive::new(&tars[0][..]);
        let entries = archive.entries().expect("entries");
        let last = entries.last().expect("an entry").expect("an entry");
        assert_eq!(last.path().expect("a name").to_str(), Some("manifest.toml"));
    }
}
