//! EDGE: what a `pipe:` program writes to its standard error, as lines of the log.
//!
//! The program is not trusted with the log: its lines are marked, escaped, cut, freed from
//! the secrets of its command, and limited in number.

use super::redact::Secrets;
use std::io::{Read, Result};
use std::process::ChildStderr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Mark of a program's lines.
const MARK: &str = "camera program";
/// Longest line that is read, bytes, and that is shown, characters.
const LONGEST_READ: usize = 1024;
const LONGEST_SHOWN: usize = 200;
/// Most lines per [`WINDOW`], however often the program is started.
const PER_WINDOW: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);
/// Most lines of one run of the program.
const PER_RUN: u32 = 200;
/// Most threads that read a program's lines. A program that left others running may keep
/// one busy after its end.
const MOST_THREADS: usize = 4;

static THREADS: AtomicUsize = AtomicUsize::new(0);
static LATELY: Mutex<Lately> = Mutex::new(Lately { since: None, shown: 0 });

/// Lines shown in the current window.
struct Lately {
    since: Option<Instant>,
    shown: u32,
}

impl Lately {
    /// Whether there is room for another line.
    fn admits(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            *self = Self { since: Some(now), shown: 0 };
        }
        self.shown += 1;
        self.shown <= PER_WINDOW
    }
}

/// Logs the lines of a program on a thread of its own, until the program closes its standard
/// error. Without a free thread they are lost.
pub(super) fn log_lines(output: ChildStderr, secrets: Secrets) {
    if THREADS.fetch_add(1, Ordering::Relaxed) >= MOST_THREADS {
        THREADS.fetch_sub(1, Ordering::Relaxed);
        log::warn!("{MARK}: its messages are not shown: earlier programs did not end");
        return;
    }
    let read = move || {
        let lately = |now| LATELY.lock().unwrap_or_else(PoisonError::into_inner).admits(now);
        // The program has ended, or its pipe is broken: nothing more to say.
        let _ = read(output, &secrets, lately, |line| log::warn!("{MARK}: {line}"));
        THREADS.fetch_sub(1, Ordering::Relaxed);
    };
    if std::thread::Builder::new().name("program log".to_owned()).spawn(read).is_err() {
        THREADS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Passes lines to `show`, as far as `admits` and [`PER_RUN`] allow.
fn read(
    mut from: impl Read,
    secrets: &Secrets,
    mut admits: impl FnMut(Instant) -> bool,
    mut show: impl FnMut(&str),
) -> Result<()> {
    let (mut run, mut left_out) = (0u32, 0u64);
    let mut line = Line::default();
    let mut tell = |line: &Line| {
        let text = line.shown(secrets);
        if text.is_empty() {
            return;
        }
        if run >= PER_RUN || !admits(Instant::now()) {
            left_out += 1;
            return;
        }
        run += 1;
        if left_out > 0 {
            show(&format!("({left_out} lines left out)"));
            left_out = 0;
        }
        show(&text);
        if run == PER_RUN {
            show("(no more lines are shown until it is started again)");
        }
    };
    let mut buffer = [0; 4096];
    loop {
        let got = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(got) => got,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        for &byte in &buffer[..got] {
            // Programs write their progress over the same line.
            if byte == b'\n' || byte == b'\r' {
                tell(&line);
                line = Line::default();
            } else {
                line.add(byte);
            }
        }
    }
    tell(&line);
    Ok(())
}

/// A line, cut at [`LONGEST_READ`].
#[derive(Default)]
struct Line {
    bytes: Vec<u8>,
    cut: bool,
}

impl Line {
    fn add(&mut self, byte: u8) {
        if self.bytes.len() < LONGEST_READ {
            self.bytes.push(byte);
        } else {
            self.cut = true;
        }
    }

    /// The line as it may stand in the log.
    fn shown(&self, secrets: &Secrets) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        // A secret that is cut in two is not found, so the last word goes with its rest.
        let whole =
            if self.cut { text.rsplit_once(' ').map_or("", |(whole, _)| whole) } else { &text };
        let text = secrets.hide(whole);
        let text = text.trim();
        let mut shown: String = text.chars().take(LONGEST_SHOWN).flat_map(escaped).collect();
        if self.cut || text.chars().nth(LONGEST_SHOWN).is_some() {
            shown.push_str("...");
        }
        shown
    }
}

/// A character, or its code if it cannot be seen or changes what stands around it.
fn escaped(letter: char) -> impl Iterator<Item = char> {
    let plain = matches!(letter, '"' | '\'');
    let escaped = (!plain).then(|| letter.escape_debug());
    plain.then_some(letter).into_iter().chain(escaped.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(bytes: &[u8], command: &str, mut admits: impl FnMut() -> bool) -> Vec<String> {
        let mut lines = Vec::new();
        read(bytes, &Secrets::of(command), |_| admits(), |line| lines.push(line.to_owned()))
            .expect("read");
        lines
    }

    #[test]
    fn lines_are_escaped_cut_and_without_secrets() {
        let long = "ab ".repeat(1000);
        let bytes = format!(
            "first\n\n2026 ERROR forged\x1b[31m\u{202e}x\tno 'end'\rkey hunter22 here\n{long}\nend"
        );
        let lines = shown(bytes.as_bytes(), "cam --key hunter22", || true);
        assert_eq!(lines[0], "first");
        assert_eq!(lines[1], "2026 ERROR forged\\u{1b}[31m\\u{202e}x\\tno 'end'");
        assert_eq!(lines[2], "key *** here");
        assert!(lines[3].ends_with("...") && lines[3].len() < 210, "{}", lines[3]);
        assert_eq!(lines[4..], ["end"]);
        let whole = "x".repeat(5000);
        assert_eq!(shown(whole.as_bytes(), "cam", || true), ["..."]);
        assert_eq!(shown(b"\xff\xfe caf\xc3\xa9", "cam", || true), ["\u{fffd}\u{fffd} caf\u{e9}"]);
    }

    #[test]
    fn lines_are_limited_in_number() {
        let flood = "x\n".repeat(10_000);
        let lines = shown(flood.as_bytes(), "cam", || true);
        assert_eq!(lines.len(), PER_RUN as usize + 1);
        assert!(lines[PER_RUN as usize].contains("no more lines"));
        let mut count = 0;
        let every_third = || {
            count += 1;
            count % 3 == 0
        };
        let lines = shown("a\nb\nc\nd\ne\nf\n".as_bytes(), "cam", every_third);
        assert_eq!(lines, ["(2 lines left out)", "c", "(2 lines left out)", "f"]);
        let (mut lately, now) = (Lately { since: None, shown: 0 }, Instant::now());
        let admitted = (0..100).filter(|_| lately.admits(now)).count();
        assert_eq!(admitted, PER_WINDOW as usize);
        assert!(lately.admits(now + WINDOW));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_begin_a_line(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            for line in shown(&bytes, "cam secret", || true) {
                prop_assert!(!line.chars().any(char::is_control), "{:?}", line);
                prop_assert!(line.len() <= 10 * LONGEST_SHOWN + 3);
            }
        }
    }
}
