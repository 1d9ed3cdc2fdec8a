//! The end of a process with a stuck thread.

use crate::access::event::plain;
use std::io::Write;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

/// Exit code of a service with a stuck thread.
pub const EXIT_STUCK: u8 = 70;
/// How long the end of the process waits for a reader of its last words, on a busy machine.
pub const LAST_WORDS: Duration = Duration::from_secs(5);
/// Time that the main thread has to lock the door.
pub(super) const CLOSES_WITHIN: Duration = Duration::from_secs(5);

/// Ends the process, with the reason as its last line. The main thread has `closes_within`
/// to lock the door and to end the process itself. If it is the thread that is stuck, the
/// relay's own thread has locked already. The line is written directly, because the log's
/// thread would not get to it; a reader that does not read is not waited for.
pub(super) fn end_stuck(reason: &str, closes_within: Duration) {
    let line = last_line(reason);
    let (done, written) = sync_channel(1);
    let writing = move || {
        let _ = std::io::stderr().write_all(line.as_bytes());
        let _ = done.send(());
    };
    if std::thread::Builder::new().spawn(writing).is_ok() {
        let _ = written.recv_timeout(LAST_WORDS);
    }
    std::thread::sleep(closes_within);
    std::process::exit(EXIT_STUCK.into());
}

fn last_line(reason: &str) -> String {
    let reason = plain(reason);
    format!("[ERROR] {reason}; ending the process so that systemd restarts it\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Set in the process that is to end.
    const ENDS: &str = "FACELATCH_TEST_ENDS";

    #[test]
    fn a_stuck_process_says_why_once_and_ends_with_its_own_code() {
        if std::env::var_os(ENDS).is_some() {
            end_stuck("camera: stuck", Duration::ZERO);
        }
        let program = std::env::current_exe().expect("this program");
        let name = "service::exit::tests::a_stuck_process_says_why_once_and_ends_with_its_own_code";
        let ended = Command::new(program)
            .args([name, "--exact", "--nocapture"])
            .env(ENDS, "1")
            .output()
            .expect("it runs");
        assert_eq!(ended.status.code(), Some(EXIT_STUCK.into()));
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(said.matches(last_line("camera: stuck").trim()).count(), 1, "{said}");
    }
}
