//! Sends a model set to a device with the system's ssh: a tar goes to the standard input of
//! `facelatch models install -` on the device, which checks it and switches. The ssh client
//! already has the user's hosts, keys and configuration.

use anyhow::{Context, Result, anyhow, bail};
use facelatch::files::{self as input, LARGEST};
use facelatch::models::Models;
use facelatch::models::groups::{MOST_TIMES, NOT_MEASURED, WorstGroup};
use facelatch::models::signature::SIGNATURE;
use facelatch::storage::models::signature_of;
use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// Exit code of ssh if ssh failed.
const SSH_FAILED: i32 = 255;
/// Exit codes of a shell if the program is missing or cannot be executed.
const NOT_FOUND: i32 = 127;
const NOT_RUNNING: i32 = 126;
/// Exit code of facelatch for a command line it does not understand.
const WRONG_USAGE: i32 = 2;

/// Refuses a set whose worst group exceeds its stated false accept rate by more than twice,
/// unless that is `accepted`. Returns a warning if the rate is accepted or no group was
/// measured.
///
/// # Errors
/// If the worst group's rate is too high. The error names the group and its figures.
pub fn check_groups(worst: Option<&WorstGroup>, accepted: bool) -> Result<Option<String>> {
    let Some(worst) = worst else {
        return Ok(Some(NOT_MEASURED.to_owned()));
    };
    if !worst.exceeds() {
        return Ok(None);
    }
    let times = worst.times_stated();
    if !accepted {
        bail!(
            "worst group {worst}: {times:.1} times the stated rate, and push allows {MOST_TIMES} times; calibrate again with --labels that name this group, or accept the rate with --accept-group-rate"
        );
    }
    Ok(Some(format!(
        "worst group {worst}: {times:.1} times the stated rate, accepted with --accept-group-rate"
    )))
}

/// Refuses a set without a signature, unless that is `accepted`, and one whose signature does
/// not hold. Returns who signed it.
///
/// # Errors
/// If the set is refused.
pub fn check_signature(folder: &Path, models: &Models, accepted: bool) -> Result<String> {
    let shown = folder.display();
    match signature_of(folder, &models.manifest_bytes) {
        Ok(Some(signature)) => Ok(format!("signed by {}", signature.key().fingerprint())),
        Ok(None) if accepted => Ok("not signed, accepted with --unsigned".to_owned()),
        Ok(None) => bail!(
            "{shown}: not signed; sign it with facelatch-tools sign, or send it with --unsigned"
        ),
        Err(fault) => {
            bail!("{shown}: {SIGNATURE}: {fault}; sign the set again with facelatch-tools sign")
        }
    }
}

/// A device, and how to reach it with ssh.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Name as ssh takes it: HOST, USER@HOST or a host of the ssh configuration.
    pub name: String,
    /// Port of sshd; `None` for ssh's default.
    pub port: Option<u16>,
    /// Private key file; `None` for ssh's default.
    pub identity: Option<PathBuf>,
    /// ssh configuration file; `None` for the user's.
    pub ssh_config: Option<PathBuf>,
    /// Path of the facelatch program on the device.
    pub facelatch: String,
    /// Options appended to every facelatch command, such as `--store` or `--config`.
    pub options: Vec<String>,
}

/// Output of a successful command on a device.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Standard output of the command.
    pub said: String,
}

impl Host {
    /// Checks the host name: not empty, no leading `-` (ssh would take it for an option),
    /// no whitespace or control characters.
    pub fn check(&self) -> Result<()> {
        let name = &self.name;
        if name.is_empty() || name.starts_with('-') {
            bail!("{name:?} is not a host; give HOST or USER@HOST");
        }
        if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            bail!("{name:?} is not a host: it contains a blank; give HOST or USER@HOST");
        }
        Ok(())
    }

    /// Arguments of ssh for running a facelatch command on the device. Words are quoted for
    /// the shell there.
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
        // ssh takes nothing after `--` for an option.
        arguments.extend(["--".into(), self.name.clone().into(), line.into()]);
        arguments
    }

    /// Runs a facelatch command on the device and returns its output.
    ///
    /// # Errors
    /// If the host name is invalid, ssh fails, or the command fails.
    pub fn ask(&self, command: &[&str]) -> Result<Answer> {
        self.check()?;
        let output = self
            .ssh(command)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run ssh; install the OpenSSH client")?;
        self.ended(output.status)?;
        Ok(Answer { said: String::from_utf8_lossy(&output.stdout).into_owned() })
    }

    /// Runs a facelatch command on the device with the set as a tar on its standard input.
    /// Its output goes to standard output. `sent` is called with the number of bytes of
    /// each write.
    ///
    /// # Errors
    /// If the host name is invalid, ssh fails, or the command fails.
    pub fn send(&self, command: &[&str], set: &Set, sent: impl FnMut(usize)) -> Result<()> {
        self.check()?;
        let mut ssh = self
            .ssh(command)
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot run ssh; install the OpenSSH client")?;
        let pipe = ssh.stdin.take().context("ssh has no standard input")?;
        let written = set.write_tar(Counted { to: pipe, sent });
        // The exit status says more than a broken pipe, so check it first.
        self.ended(ssh.wait().context("cannot wait for ssh to end")?)?;
        written.context("cannot send the model set")
    }

    fn ssh(&self, command: &[&str]) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.args(self.arguments(command));
        ssh
    }

    /// Turns the exit status of ssh into an error with a cure.
    fn ended(&self, status: ExitStatus) -> Result<()> {
        let (name, facelatch) = (&self.name, &self.facelatch);
        if status.success() {
            return Ok(());
        }
        Err(match status.code() {
            Some(SSH_FAILED) => {
                anyhow!("{name}: ssh failed; see its message above, and try: ssh {name} true")
            }
            Some(NOT_FOUND | NOT_RUNNING) => anyhow!(
                "{name}: cannot run {facelatch} there; install facelatch there, or give its path with --facelatch"
            ),
            Some(WRONG_USAGE) => anyhow!(
                "{name}: {facelatch} there does not know this command and is probably too old; update it"
            ),
            Some(_) => {
                anyhow!(
                    "{name}: the device refused, see its message above; it keeps its current models"
                )
            }
            None => anyhow!("{name}: ssh was ended by a signal ({status})"),
        })
    }
}

/// Quotes a word for a POSIX shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Files of a model set. The manifest is last, so that its arrival means that all other
/// files have arrived.
#[derive(Clone, Debug)]
pub struct Set {
    /// Name and content.
    files: Vec<(String, Vec<u8>)>,
}

impl Set {
    /// Reads the named files of a folder.
    pub fn read(folder: &Path, names: &[String]) -> Result<Self> {
        let mut files = Vec::new();
        for name in names {
            let path = folder.join(name);
            let bytes = input::read(&path, LARGEST).with_context(|| path.display().to_string())?;
            files.push((name.clone(), bytes));
        }
        Ok(Self::of(files))
    }

    /// Files by name. The manifest becomes the last one.
    pub fn of(mut files: Vec<(String, Vec<u8>)>) -> Self {
        files.sort_by_key(|(name, _)| name == facelatch::models::MANIFEST);
        Self { files }
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are no files.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Total size of all files, bytes.
    pub fn bytes(&self) -> usize {
        self.files.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    /// Writes the files as a tar. The same files give the same bytes.
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

/// Writer that reports the number of bytes of each write.
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
    fn a_set_that_takes_a_group_for_one_another_too_often_is_refused_unless_accepted() {
        let group = |measured: f64| WorstGroup {
            name: "women".to_owned(),
            stated: "1e-4".to_owned(),
            measured,
            low: 1.2e-4,
            high: 1e-3,
            pairs: 55_181,
            people: 247,
            data: "made up".to_owned(),
        };
        assert_eq!(check_groups(Some(&group(2e-4)), false).expect("allowed"), None);
        let high = group(3.1e-4);
        let error = check_groups(Some(&high), false).expect_err("refused").to_string();
        for part in ["women", "3.1e-4", "1.2e-4 to 1.0e-3", "1e-4", "3.1 times", "--labels"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        let warning = check_groups(Some(&high), true).expect("accepted").expect("a warning");
        assert!(warning.contains("women") && warning.contains("accepted"), "{warning}");
        let warning = check_groups(None, false).expect("unknown").expect("a warning");
        assert!(warning.contains("no group of people was measured"), "{warning}");
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
