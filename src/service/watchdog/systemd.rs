//! EDGE: what the service tells systemd, by `sd_notify(3)`. Silent where nothing
//! listens (`NOTIFY_SOCKET`).

use sd_notify::NotifyState;
use std::io;
use std::time::Duration;

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// The door is watched; also the end of a reload.
    Ready,
    /// One line for `systemctl status`.
    Status(String),
    /// The configuration is read anew.
    Reloading,
    /// The service ends.
    Stopping,
    /// All threads run.
    Alive,
}

/// Tells systemd. May wait where systemd itself does not read, so the threads that
/// watch the door leave it to [`crate::service::watchdog::Watchdog`].
pub fn tell(word: &Word) -> io::Result<()> {
    let line;
    match word {
        Word::Ready => sd_notify::notify(&[NotifyState::Ready]),
        Word::Status(text) => {
            // A line break would begin another word.
            line = text.replace(['\n', '\r'], " ");
            sd_notify::notify(&[NotifyState::Status(&line)])
        }
        // systemd orders it against its own clock.
        Word::Reloading => {
            sd_notify::notify(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?])
        }
        Word::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
        Word::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
    }
}

/// How often systemd wants to hear that the service is alive: half of the time after
/// which it ends it (`WatchdogSec=` of the unit). Nothing where it does not ask.
pub fn alive_every() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|time| !time.is_zero()).map(|time| time / 2)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

    /// Says which test runs in the other process.
    const ROLE: &str = "FACELATCH_TEST_SYSTEMD";

    /// Runs a test of this program in a process of its own whose systemd is we: an
    /// environment is a process's, and other tests run in this one. Gives all that
    /// was told.
    pub(crate) fn heard(test: &str, watchdog_usec: Option<u64>) -> Vec<String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program);
        child.args(["--exact", test]).env(ROLE, "1").env("NOTIFY_SOCKET", &path);
        child.env_remove("WATCHDOG_PID").env_remove("WATCHDOG_USEC");
        if let Some(time) = watchdog_usec {
            child.env("WATCHDOG_USEC", time.to_string());
        }
        let output = child.output().expect("the tests run");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        socket.set_nonblocking(true).expect("a socket");
        let mut buffer = [0; 1024];
        let mut words = vec![];
        while let Ok(length) = socket.recv(&mut buffer) {
            words.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        words
    }

    /// Whether this is the other process.
    pub(crate) fn is_other() -> bool {
        std::env::var_os(ROLE).is_some()
    }

    #[test]
    fn what_is_told_arrives() {
        if is_other() {
            assert_eq!(alive_every(), Some(Duration::from_secs(3)));
            let status = Word::Status("door locked,\n3 people".to_owned());
            for word in [Word::Ready, status, Word::Reloading, Word::Alive, Word::Stopping] {
                tell(&word).expect("somebody listens");
            }
            return;
        }
        let words = heard("systemd::tests::what_is_told_arrives", Some(6_000_000));
        let [ready, status, reloading, alive, stopping] = &words[..] else {
            panic!("{words:?}");
        };
        assert_eq!(ready, "READY=1\n");
        assert_eq!(status, "STATUS=door locked, 3 people\n");
        let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("a time");
        assert!(time.trim().parse::<u64>().expect("microseconds") > 0);
        assert_eq!((alive.as_str(), stopping.as_str()), ("WATCHDOG=1\n", "STOPPING=1\n"));
    }

    #[test]
    fn where_nobody_listens_nothing_is_told() {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            tell(&Word::Ready).expect("nobody to fail");
        }
    }
}
