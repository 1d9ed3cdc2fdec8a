//! EDGE: what moves the lock, named by a URI.
//!
//! | URI | What |
//! |---|---|
//! | `log:` | only says what it would do |
//! | `serial:/dev/ttyUSB0[?protocol=lcus1&channel=1]` | an LCUS-1 relay board on a serial port |

use std::fmt;
use thiserror::Error;

#[cfg(feature = "serial")]
mod lcus1;

/// Why the relay did not do as told.
#[derive(Debug, Error)]
pub enum RelayError {
    /// The URI names no relay we know.
    #[error("{uri:?}: no such kind of relay; use log: or serial:/dev/ttyUSB0")]
    Scheme {
        /// As given.
        uri: String,
    },
    /// An option of the URI is wrong.
    #[error("{uri:?}: {fault}")]
    Option {
        /// As given.
        uri: String,
        /// What is wrong, and what would be right.
        fault: String,
    },
    /// The port does not open, or does not take the command.
    #[error("{port}: {reason}; is it plugged in, and may this user write to it?")]
    Port {
        /// Which one.
        port: String,
        /// What the system said.
        reason: String,
    },
}

/// A relay. Switched on, the lock is open.
#[derive(Debug)]
pub enum Relay {
    /// Only says what it would do.
    Log,
    /// A board on a serial port.
    #[cfg(feature = "serial")]
    Lcus1(lcus1::Lcus1),
}

impl Relay {
    /// The relay that the URI names. A port is opened with the first command,
    /// and again after a failure.
    pub fn open(uri: &str) -> Result<Self, RelayError> {
        match uri.split_once(':') {
            Some(("log", "")) => Ok(Self::Log),
            #[cfg(feature = "serial")]
            Some(("serial", rest)) => lcus1::Lcus1::new(uri, rest).map(Self::Lcus1),
            _ => Err(RelayError::Scheme { uri: uri.to_owned() }),
        }
    }

    /// Switches it. When this succeeds the relay has taken the command.
    pub fn switch(&mut self, on: bool) -> Result<(), RelayError> {
        match self {
            Self::Log => {
                log::info!("relay {}", if on { "on" } else { "off" });
                Ok(())
            }
            #[cfg(feature = "serial")]
            Self::Lcus1(board) => board.switch(on),
        }
    }
}

impl fmt::Display for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log => write!(f, "log"),
            #[cfg(feature = "serial")]
            Self::Lcus1(board) => write!(f, "{board}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_that_names_no_relay_says_what_does() {
        for uri in ["", "log", "log:x", "gpio", "usb:/dev/x"] {
            let message = Relay::open(uri).expect_err(uri).to_string();
            assert!(message.contains("log:"), "{message}");
        }
        Relay::open("log:").expect("a relay").switch(true).expect("done");
    }
}
