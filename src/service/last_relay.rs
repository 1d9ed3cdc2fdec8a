//! EDGE: releases the relay of the last start, for a door whose service was killed, or
//! cannot start.
//!
//! Released is switched off, as at every end of the service: that locks a fail-secure lock,
//! and opens a fail-safe lock, which must not hold people in while nobody is in charge.

use crate::access::door::LockKind;
use crate::hardware::relay::{Relay, RelayError};
use crate::storage::last_relay::{LastRelay, LastRelayError, LastRelayFile, LastRelayLock};
use std::fmt;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};
use thiserror::Error;

/// Time limit for releasing a relay: a device that hangs must not keep the service from
/// starting again.
const WITHIN: Duration = Duration::from_secs(3);
/// Time for which a relay that fails is tried again, and the time between two tries: the
/// port of a killed process may be busy for a moment.
const TRY_FOR: Duration = Duration::from_secs(1);
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// Why the relay may not be released.
#[derive(Debug, Error)]
pub enum ReleaseError {
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] LastRelayError),
    /// The relay cannot be switched.
    #[error("cannot release the relay of the last start: {0}; cut its power if the door is open")]
    Relay(#[from] RelayError),
    /// The relay does not answer in time.
    #[error(
        "cannot release the relay of the last start: {uri:?} hangs for {} seconds; cut its power \
         if the door is open",
        WITHIN.as_secs()
    )]
    Hangs {
        /// URI of the relay.
        uri: String,
    },
}

/// A relay that is off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    relay: String,
    lock: LockKind,
}

impl fmt::Display for Released {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.lock {
            LockKind::FailSecure => "locked",
            LockKind::FailSafe => "open, as a fail-safe lock is without its relay",
        };
        write!(f, "relay of the last start: {} is off, the door is {state}", self.relay)
    }
}

/// Switches the relay of the last start off, within some seconds. `None` if there was none.
///
/// # Errors
/// If the file cannot be used, a service runs, or the relay cannot be switched.
pub fn release(file: &LastRelayFile) -> Result<Option<Released>, ReleaseError> {
    let Some((last, lock)) = file.take()? else { return Ok(None) };
    let released = switch_off(last)?;
    drop(lock);
    Ok(Some(released))
}

/// Before the relay of a start is used: switches off the one of the last start if it is
/// another, and keeps this one for the next start. A failure is logged, and the door starts.
/// The result is to be held while the service runs.
pub(super) fn take_over(file: &LastRelayFile, now: LastRelay) -> Option<LastRelayLock> {
    let before = file.take().map(|taken| taken.filter(|(last, _)| last.uri != now.uri));
    match before {
        Ok(Some((last, lock))) => {
            match switch_off(last) {
                Ok(released) => log::warn!("another relay is configured; {released}"),
                Err(error) => log::error!("another relay is configured; {error}"),
            }
            drop(lock);
        }
        Ok(None) => {}
        Err(error) => log::warn!("{error}"),
    }
    file.keep(&now)
        .inspect_err(|error| {
            log::warn!(
                "{error}; until then a start with a broken configuration cannot lock the relay"
            );
        })
        .ok()
}

/// After a start that failed before it had its relay: switches off the relay of the last
/// start, and logs the result.
pub fn release_after_failure(file: &LastRelayFile) {
    match release(file) {
        Ok(None) => {}
        Ok(Some(released)) => log::warn!("the door cannot start; {released}"),
        // It is in good hands.
        Err(ReleaseError::File(LastRelayError::InUse { .. })) => {}
        Err(error) => log::error!("{error}"),
    }
}

fn switch_off(last: LastRelay) -> Result<Released, ReleaseError> {
    let LastRelay { uri, lock } = last;
    let mut relay = Relay::open(&uri)?;
    let name = relay.to_string();
    let (done, switched) = sync_channel(1);
    let switching = move || {
        let began = Instant::now();
        let result = loop {
            match relay.switch(false) {
                Err(_) if began.elapsed() < TRY_FOR => std::thread::sleep(BETWEEN_TRIES),
                result => break result,
            }
        };
        // First the answer: closing a device that hangs may take long.
        let _ = done.try_send(result);
        relay.disconnect();
    };
    let thread = std::thread::Builder::new().name("release".to_owned()).spawn(switching);
    if let Err(reason) = thread {
        let (port, reason) = (uri, reason.to_string());
        return Err(RelayError::Port { port, reason }.into());
    }
    match switched.recv_timeout(WITHIN) {
        Ok(result) => result?,
        Err(_) => return Err(ReleaseError::Hangs { uri }),
    }
    Ok(Released { relay: name, lock })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[cfg(feature = "serial")]
    #[test]
    fn the_relay_of_the_last_start_is_switched_off_whatever_its_lock() {
        use serialport::{SerialPort, TTYPort};
        use std::io::Read;
        let folder = tempfile::TempDir::new().expect("a folder");
        let file = LastRelayFile::of(folder.path(), Path::new("/etc/a.toml"));
        assert_eq!(release(&file).expect("nothing to do"), None);
        let (mut board, other_end) = TTYPort::pair().expect("a pair of terminals");
        board.set_timeout(Duration::from_secs(10)).expect("a timeout");
        let uri = format!("serial:{}?channel=3", other_end.name().expect("a path"));
        // Held open, so that the terminal outlives each use, whose exclusive lock must then
        // be released for others than root: closing a native copy does.
        let unlock = || drop(other_end.try_clone_native().expect("a terminal"));
        for (lock, state) in [(LockKind::FailSecure, "locked"), (LockKind::FailSafe, "open")] {
            let service = file.keep(&LastRelay { uri: uri.clone(), lock }).expect("kept");
            let busy = release(&file).expect_err("a service runs");
            assert!(matches!(busy, ReleaseError::File(LastRelayError::InUse { .. })), "{busy}");
            drop(service);
            let released = release(&file).expect("released").expect("one").to_string();
            assert!(released.contains("channel 3") && released.contains(state), "{released}");
            let mut sent = [0; 4];
            board.read_exact(&mut sent).expect("a command");
            assert_eq!(sent, [0xA0, 3, 0, 0xA3]);
            unlock();
        }
        // Another relay is configured: the old one is switched off first.
        let now = LastRelay { uri: "log:".to_owned(), lock: LockKind::FailSecure };
        let lock = take_over(&file, now.clone()).expect("kept");
        let mut sent = [0; 4];
        board.read_exact(&mut sent).expect("a command");
        assert_eq!(sent, [0xA0, 3, 0, 0xA3]);
        drop(lock);
        assert_eq!(file.read().expect("kept"), Some(now));
    }

    #[test]
    fn a_relay_that_is_gone_is_reported_in_time() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let file = LastRelayFile::of(folder.path(), Path::new("/etc/a.toml"));
        for uri in ["serial:/dev/no-such-port", "burn:/dev/x", "serial:"] {
            let lock = LockKind::FailSecure;
            drop(file.keep(&LastRelay { uri: uri.to_owned(), lock }).expect("kept"));
            let began = Instant::now();
            let message = release(&file).expect_err(uri).to_string();
            assert!(message.contains("cut its power"), "{message}");
            assert!(began.elapsed() < WITHIN + Duration::from_secs(10), "{:?}", began.elapsed());
        }
    }
}
