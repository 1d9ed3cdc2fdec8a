//! EDGE: messages to systemd by `sd_notify(3)`. Without `NOTIFY_SOCKET` none are sent.

use sd_notify::NotifyState;
use std::io;
use std::time::Duration;

/// A message to systemd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notification {
    /// The door is being watched. Also ends a reload.
    Ready,
    /// One line of text for `systemctl status`.
    Status(String),
    /// The configuration is being read again.
    Reloading,
    /// The service is ending.
    Stopping,
    /// All threads run; feeds systemd's watchdog.
    Alive,
}

/// Sends a message to systemd. It may block if systemd does not read, so the threads that
/// watch the door use [`Watchdog`](super::Watchdog) instead.
///
/// # Errors
/// If the message cannot be sent.
pub fn tell(word: &Notification) -> io::Result<()> {
    let line;
    match word {
        Notification::Ready => sd_notify::notify(&[NotifyState::Ready]),
        Notification::Status(text) => {
            // A line break would start another message.
            line = text.replace(['\n', '\r'], " ");
            sd_notify::notify(&[NotifyState::Status(&line)])
        }
        // systemd orders this message by its own clock.
        Notification::Reloading => {
            sd_notify::notify(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?])
        }
        Notification::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
        Notification::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
    }
}

/// Interval for feeding systemd's watchdog: half of `WatchdogSec=` in the unit. `None` if
/// the unit does not set it.
pub fn alive_every() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|time| !time.is_zero()).map(|time| time / 2)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

    /// Environment variable that marks the child process of a test.
    const ROLE: &str = "FACELATCH_TEST_SYSTEMD";

    /// Runs a test of this program in a child process for which this one is systemd: the
    /// environment belongs to a process, and other tests run in this one. Returns all
    /// messages received.
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

    /// Whether this is the child process.
    pub(crate) fn is_other() -> bool {
        std::env::var_os(ROLE).is_some()
    }

    #[test]
    fn sent_messages_arrive() {
        if is_other() {
            assert_eq!(alive_every(), Some(Duration::from_secs(3)));
            let status = Notification::Status("door locked,\n3 people".to_owned());
            for word in [
                Notification::Ready,
                status,
                Notification::Reloading,
                Notification::Alive,
                Notification::Stopping,
            ] {
                tell(&word).expect("somebody listens");
            }
            return;
        }
        let words =
            heard("service::watchdog::systemd::tests::sent_messages_arrive", Some(6_000_000));
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
    fn without_a_socket_nothing_is_sent() {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            tell(&Notification::Ready).expect("nobody to fail");
        }
    }
}
