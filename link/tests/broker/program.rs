//! The program under test.

use std::path::Path;
use std::process::{Child, Command, Stdio};

fn facelatch_link(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_facelatch-link"));
    command.env("RUNTIME_DIRECTORY", folder).env("RUST_LOG", "info");
    command
}

/// The service. Dropped, it is killed.
pub struct Program {
    process: Child,
}

impl Program {
    pub fn start(folder: &Path) -> Self {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log"));
        let process = facelatch_link(folder)
            .args(["run", "--config"])
            .arg(folder.join("link.toml"))
            .stderr(log.expect("a log"))
            .stdout(Stdio::null())
            .spawn()
            .expect("the program");
        Self { process }
    }

    /// With the configuration of the document, in a folder in place of the root.
    pub fn of_the_document(root: &Path) -> Self {
        let process = facelatch_link(root)
            .args(["run", "--config"])
            .arg(root.join("etc/facelatch/link.toml"))
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("the program");
        Self { process }
    }

    /// As by power or memory that is gone.
    pub fn kill(&mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("ended");
    }

    /// As by systemd. It has to end well.
    pub fn stop(mut self) {
        let id = self.process.id().to_string();
        assert!(Command::new("/bin/kill").args(["-TERM", &id]).status().expect("kill").success());
        assert!(self.process.wait().expect("ended").success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a command; whether it succeeded, and what it wrote.
pub fn command(folder: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = facelatch_link(folder);
    command.args(arguments);
    if arguments[0] != "status" {
        command.arg("--config").arg(folder.join("link.toml"));
    }
    let output = command.output().expect("the program");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).expect("text"))
}
