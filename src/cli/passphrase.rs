//! Passphrases: asked on the terminal without echo, or read from a file.

use anyhow::{Context, Result, bail};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use zeroize::Zeroizing;

/// Longest passphrase, bytes.
const LONGEST: u64 = 1024;

/// Shortest passphrase for a new file, characters.
const SHORTEST: usize = 10;

/// Switches the echo of the terminal back on.
struct Echo<'t>(&'t File, Termios);

impl Drop for Echo<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.0, OptionalActions::Now, &self.1);
    }
}

/// Asks for a passphrase on the terminal. A new one is asked for twice.
pub fn ask(new: bool) -> Result<Zeroizing<String>> {
    let terminal = File::options()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .context("no terminal to ask for a passphrase; give it with --passphrase-file")?;
    let words = line(&terminal, "passphrase: ")?;
    if new {
        check(&words)?;
        if line(&terminal, "once more: ")? != words {
            bail!("the two passphrases differ; try again");
        }
    }
    Ok(words)
}

fn line(mut terminal: &File, prompt: &str) -> Result<Zeroizing<String>> {
    let before = tcgetattr(terminal).context("/dev/tty")?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    let echo = Echo(terminal, before);
    tcsetattr(terminal, OptionalActions::Flush, &silent).context("/dev/tty")?;
    write!(terminal, "{prompt}")?;
    terminal.flush()?;
    let mut text = Zeroizing::new(String::with_capacity(LONGEST as usize));
    BufReader::new(terminal).take(LONGEST).read_line(&mut text)?;
    drop(echo);
    writeln!(terminal)?;
    Ok(trimmed(&text))
}

/// The first line of a file.
pub fn read(path: &Path, new: bool) -> Result<Zeroizing<String>> {
    let name = || path.display().to_string();
    let file = File::open(path).with_context(name)?;
    let mut text = Zeroizing::new(String::with_capacity(LONGEST as usize));
    BufReader::new(file).take(LONGEST).read_line(&mut text).with_context(name)?;
    let words = trimmed(&text);
    if new {
        check(&words).with_context(name)?;
    }
    Ok(words)
}

fn trimmed(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.trim_end_matches(['\n', '\r']).to_owned())
}

fn check(words: &str) -> Result<()> {
    if words.chars().count() < SHORTEST {
        bail!("the passphrase is shorter than {SHORTEST} characters; take several words");
    }
    Ok(())
}
