//! The commands and files of docs/connect.md, carried out in their order: what needs a
//! package manager or systemd is recorded or played, everything else is done.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A piece of the document.
#[derive(Debug)]
pub enum Piece {
    /// Heading of a section.
    Section(String),
    /// A command.
    Command(String),
    /// A file, and lines for it.
    File(String, String),
}

/// The pieces: indented blocks are commands, or files if the line before names one.
pub fn pieces(text: &str) -> Vec<Piece> {
    let (mut pieces, mut before, mut block) = (vec![], String::new(), String::new());
    for line in text.lines().chain([""]) {
        if let Some(code) = line.strip_prefix("    ") {
            block.push_str(code);
            block.push('\n');
            continue;
        }
        if !block.is_empty() {
            let block = std::mem::take(&mut block);
            let file = before.rsplit_once("In `").and_then(|(_, rest)| rest.split_once('`'));
            match file.filter(|_| before.ends_with(':')) {
                Some((path, _)) => pieces.push(Piece::File(path.to_owned(), block)),
                None => pieces.extend(block.lines().map(|c| Piece::Command(c.to_owned()))),
            }
        }
        if let Some(section) = line.strip_prefix("## ") {
            pieces.push(Piece::Section(section.to_owned()));
        }
        if !line.is_empty() {
            line.clone_into(&mut before);
        }
    }
    pieces
}

/// A folder in place of the root, with commands that play the system's.
pub struct System {
    root: PathBuf,
    /// Replaced in each command and file.
    replaced: Vec<(String, String)>,
}

impl System {
    pub fn new(root: &Path, port: u16) -> Self {
        let at = |path: &str| format!("{}{path}", root.display());
        for folder in
            ["/bin", "/etc/mosquitto/certs", "/etc/mosquitto/conf.d", "/etc/facelatch/link"]
        {
            std::fs::create_dir_all(at(folder)).expect("a folder");
        }
        let link = env!("CARGO_BIN_EXE_facelatch-link");
        let config = at("/etc/facelatch/link.toml");
        // The packages would have made these.
        std::fs::write(&config, format!("service.state = \"{}\"\n", at("/state")))
            .expect("written");
        for (name, script) in [
            ("sudo", "exec \"$@\"".to_owned()),
            ("apt", format!("echo apt \"$@\" >>{}", at("/recorded"))),
            ("systemctl", format!("echo systemctl \"$@\" >>{}", at("/recorded"))),
            ("chgrp", "true".to_owned()),
            (
                "install",
                "set -- $(echo \"$@\" | sed 's/ -g [a-z-]*//'); exec /usr/bin/install \"$@\""
                    .to_owned(),
            ),
            (
                "facelatch-link",
                format!(
                    "export RUNTIME_DIRECTORY={}\ncase $1 in status) exec {link} \"$@\" ;; *) exec {link} \
                     \"$@\" --config {config} ;; esac",
                    root.display()
                ),
            ),
        ] {
            let path = root.join("bin").join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("set");
        }
        let replaced = vec![
            ("/etc/".to_owned(), at("/etc/")),
            ("/run/facelatch/".to_owned(), at("/")),
            ("broker.local".to_owned(), "localhost".to_owned()),
            ("8883".to_owned(), port.to_string()),
        ];
        Self { root: root.to_owned(), replaced }
    }

    fn here(&self, text: &str) -> String {
        self.replaced.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    /// Runs a command; it has to succeed. Returns what it wrote, and what of it was recorded.
    pub fn run(&self, command: &str) -> (String, String) {
        let recorded = self.root.join("recorded");
        let _ = std::fs::remove_file(&recorded);
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new("/bin/bash")
            .args(["-euo", "pipefail", "-c", &self.here(command)])
            .env("PATH", format!("{}/bin:{path}", self.root.display()))
            .current_dir(&self.root)
            .output()
            .expect("a shell");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{command}\n{said}");
        (said, std::fs::read_to_string(recorded).unwrap_or_default())
    }

    /// Adds lines to a file.
    pub fn write(&self, path: &str, lines: &str) {
        use std::io::Write;
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.create(true).append(true).open(self.here(path)).expect(path);
        file.write_all(self.here(lines).as_bytes()).expect("written");
    }
}
