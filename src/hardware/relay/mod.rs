//! EDGE: the relay that moves the lock, named by a URI.
//!
//! | URI | Relay |
//! |---|---|
//! | `log:` | none; only logs each command |
//! | `gpio:/dev/gpiochip0/17[?active=low]` | a relay on a GPIO line, see [`crate::hardware::gpio::Line`] |
//! | `serial:/dev/ttyUSB0[?protocol=lcus1&channel=1]` | an LCUS-1 relay board on a serial port |
//! | `serial:/dev/ttyUSB0?protocol=modbus[&channel=1&unit=1&baud=9600&parity=none&flash=10s]` | a Modbus RTU relay board |
//!
//! A USB adapter that is unplugged and plugged back in may return as another `ttyUSBn`.
//! Name it by a stable path such as `/dev/serial/by-id/...`, or by a udev link like
//! `/dev/facelatch/relay`; the path is resolved each time the port is opened.
//!
//! State of the relay without the program:
//!
//! | Relay | The process is killed | The board loses power |
//! |---|---|---|
//! | `gpio:` | depends on the chip's driver, which releases the line: many keep its level (PL061, and Raspberry Pi OS); some make it an input (upstream kernels on a Pi; Raspberry Pi OS with `dtparam=strict_gpiod`), where a pull resistor decides | an input; the pull resistor decides |
//! | `serial:` LCUS-1 | unchanged | off |
//! | `serial:` Modbus | unchanged; with `flash=` off after that time | off |
//!
//! A killed process must therefore be restarted, and its first order locks the door. The
//! next start, or `facelatch door release-relay`, switches the relay off even if the
//! configuration can no longer be read. To bound the on-time without that, use a Modbus
//! board with `flash=`.

use std::fmt;
use std::time::Duration;
use thiserror::Error;

#[cfg(feature = "serial")]
mod lcus1;
pub mod link;
#[cfg(feature = "serial")]
mod modbus;
#[cfg(feature = "serial")]
mod serial;
mod thread;

#[cfg(feature = "serial")]
pub use modbus::{Fault, coil_of};
pub use thread::{NotOrdered, RelayLink, RelayPulse, Report};

/// Check interval of relays that do not report changes: much shorter than the time
/// between plugging one back in and the next use of the door.
#[cfg(any(feature = "serial", feature = "gpio"))]
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Errors of opening or switching a relay.
#[derive(Debug, Error)]
pub enum RelayError {
    /// The URI's scheme is unknown.
    #[error(
        "{uri:?}: no such kind of relay; use log:, gpio:/dev/gpiochip0/17 or serial:/dev/ttyUSB0"
    )]
    Scheme {
        /// The URI from the configuration or command line.
        uri: String,
    },
    /// The kind is known, but support for it was not compiled in.
    #[error(
        "{uri:?}: this facelatch was built without such relays; build it with --features {feature}"
    )]
    NotBuilt {
        /// The URI from the configuration or command line.
        uri: String,
        /// Cargo feature to build with.
        feature: String,
    },
    /// The URI is malformed, or one of its options is wrong.
    #[error("{uri:?}: {fault}")]
    Option {
        /// The URI from the configuration or command line.
        uri: String,
        /// The fault and the values that are allowed.
        fault: String,
    },
    /// The port cannot be opened or does not accept the command.
    #[error("{port}: {reason}; is it plugged in, and is writing to it permitted?")]
    Port {
        /// Path of the port.
        port: String,
        /// The system's error message.
        reason: String,
    },
    /// Permission to open the port is denied.
    #[error(
        "{port}: permission denied; add the user that runs facelatch to the group dialout (usermod -aG dialout USER)"
    )]
    Permission {
        /// Path of the port.
        port: String,
    },
    /// The board's answer is missing or wrong.
    #[cfg(feature = "serial")]
    #[error("{port}: unit {unit} {fault}")]
    Answer {
        /// Path of the port.
        port: String,
        /// Modbus unit number of the board.
        unit: u8,
        /// The fault and its cure.
        fault: Fault,
    },
    /// The GPIO line cannot be used.
    #[cfg(feature = "gpio")]
    #[error(transparent)]
    Gpio(#[from] crate::hardware::gpio::GpioError),
}

/// A relay, on or off. The lock's kind decides which of the two is locked.
#[derive(Debug)]
pub enum Relay {
    /// No relay; only logs each command.
    Log,
    /// An LCUS-1 board on a serial port.
    #[cfg(feature = "serial")]
    Lcus1(lcus1::Lcus1),
    /// A Modbus RTU board on a serial bus.
    #[cfg(feature = "serial")]
    Modbus(modbus::Modbus),
    /// A relay on a GPIO line.
    #[cfg(feature = "gpio")]
    Gpio(crate::hardware::gpio::Switch),
}

#[cfg_attr(not(all(feature = "serial", feature = "gpio")), allow(unused_variables))]
impl Relay {
    /// The relay that the URI names. The device is opened by the first command, and again
    /// after a failure. An error if the URI is wrong or support for it was not compiled
    /// in.
    pub fn open(uri: &str) -> Result<Self, RelayError> {
        Self::open_within(uri, None)
    }

    /// [`Self::open`] with another timeout for each of a board's answers: for tests on
    /// busy machines. The door itself gives up sooner.
    #[doc(hidden)]
    pub fn open_patiently(uri: &str, answer_within: Duration) -> Result<Self, RelayError> {
        Self::open_within(uri, Some(answer_within))
    }

    fn open_within(uri: &str, answer_within: Option<Duration>) -> Result<Self, RelayError> {
        match uri.split_once(':') {
            Some(("log", "")) => Ok(Self::Log),
            #[cfg(feature = "gpio")]
            Some(("gpio", _)) => {
                let wrong = |fault| RelayError::Option { uri: uri.to_owned(), fault };
                let line = uri
                    .parse()
                    .map_err(|error: crate::hardware::gpio::LineError| wrong(error.fault))?;
                crate::hardware::gpio::Switch::new(line).map(Self::Gpio).map_err(wrong)
            }
            #[cfg(feature = "serial")]
            Some(("serial", rest)) => {
                let wrong = |fault| RelayError::Option { uri: uri.to_owned(), fault };
                let address: serial::Address = rest.parse().map_err(wrong)?;
                Ok(match address.protocol {
                    serial::Protocol::Lcus1 => Self::Lcus1(lcus1::Lcus1::new(address)),
                    serial::Protocol::Modbus => {
                        let answer_within = answer_within.unwrap_or(modbus::ANSWER_WITHIN);
                        Self::Modbus(modbus::Modbus::new(address, answer_within))
                    }
                })
            }
            // Compiled-in kinds were handled above.
            Some((kind, _)) if ["gpio", "serial"].contains(&kind) => {
                Err(RelayError::NotBuilt { uri: uri.to_owned(), feature: kind.to_owned() })
            }
            _ => Err(RelayError::Scheme { uri: uri.to_owned() }),
        }
    }

    /// Opens the device unless it is open. A GPIO line starts at the level `on`.
    pub fn connect(&mut self, on: bool) -> Result<(), RelayError> {
        match self {
            Self::Log => Ok(()),
            #[cfg(feature = "serial")]
            Self::Lcus1(board) => board.connect(),
            #[cfg(feature = "serial")]
            Self::Modbus(board) => board.connect(),
            #[cfg(feature = "gpio")]
            Self::Gpio(switch) => Ok(switch.connect(on)?),
        }
    }

    /// Switches the relay. On success the relay has accepted the command: a GPIO line
    /// reads back the level; a Modbus board has confirmed the command and its coil reads
    /// back; the port of an LCUS-1, which cannot answer, has sent all bytes.
    pub fn switch(&mut self, on: bool) -> Result<(), RelayError> {
        match self {
            Self::Log => {
                log::info!("relay {}", if on { "on" } else { "off" });
                Ok(())
            }
            #[cfg(feature = "serial")]
            Self::Lcus1(board) => board.switch(on),
            #[cfg(feature = "serial")]
            Self::Modbus(board) => board.switch(on),
            #[cfg(feature = "gpio")]
            Self::Gpio(switch) => Ok(switch.switch(on)?),
        }
    }

    /// Whether the relay is in the state `on`. An error if it is unreachable. For an
    /// LCUS-1 only the port is checked, so the result is always true.
    pub fn check(&mut self, on: bool) -> Result<bool, RelayError> {
        match self {
            Self::Log => Ok(true),
            #[cfg(feature = "serial")]
            Self::Lcus1(board) => board.check().map(|()| true),
            #[cfg(feature = "serial")]
            Self::Modbus(board) => board.check(on),
            #[cfg(feature = "gpio")]
            Self::Gpio(switch) => Ok(switch.is(on)?),
        }
    }

    /// Interval of checks while the relay is on or off; `None` if checks make no sense.
    pub fn check_every(&self, on: bool) -> Option<Duration> {
        match self {
            Self::Log => None,
            #[cfg(feature = "serial")]
            Self::Lcus1(_) => Some(CHECK_EVERY),
            #[cfg(feature = "serial")]
            Self::Modbus(board) => Some(board.check_every(on)),
            #[cfg(feature = "gpio")]
            Self::Gpio(_) => Some(CHECK_EVERY),
        }
    }

    /// Time after the last command at which the device switches itself off; `None` if it
    /// never does.
    pub fn falls_back_after(&self) -> Option<Duration> {
        match self {
            #[cfg(feature = "serial")]
            Self::Modbus(board) => board.falls_back_after(),
            _ => None,
        }
    }

    /// Closes the device; the next command opens it again.
    pub fn disconnect(&mut self) {
        match self {
            Self::Log => {}
            #[cfg(feature = "serial")]
            Self::Lcus1(board) => board.disconnect(),
            #[cfg(feature = "serial")]
            Self::Modbus(board) => board.disconnect(),
            #[cfg(feature = "gpio")]
            Self::Gpio(switch) => switch.disconnect(),
        }
    }
}

impl fmt::Display for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log => write!(f, "log"),
            #[cfg(feature = "serial")]
            Self::Lcus1(board) => write!(f, "{board}"),
            #[cfg(feature = "serial")]
            Self::Modbus(board) => write!(f, "{board}"),
            #[cfg(feature = "gpio")]
            Self::Gpio(switch) => write!(f, "{switch}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_uri_that_names_no_relay_gets_the_expected_form() {
        for uri in ["", "log", "log:x", "gpio", "usb:/dev/x"] {
            let message = Relay::open(uri).expect_err(uri).to_string();
            assert!(message.contains("log:"), "{message}");
        }
        Relay::open("log:").expect("a relay").switch(true).expect("done");
    }

    #[cfg(all(feature = "serial", feature = "gpio"))]
    #[test]
    fn every_kind_says_what_it_is() {
        for (uri, expected) in [
            ("log:", "log"),
            ("serial:/dev/ttyUSB0", "LCUS-1 on /dev/ttyUSB0, channel 1"),
            (
                "serial:/dev/ttyUSB0?protocol=modbus&unit=3&channel=2",
                "Modbus on /dev/ttyUSB0 (9600 baud, 8N1), unit 3, channel 2",
            ),
            ("gpio:0/17?active=low", "gpio:0/17?active=low"),
        ] {
            assert_eq!(Relay::open(uri).expect(uri).to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn no_uri_panics(
            scheme in "(log|gpio|serial|usb)?",
            rest in "(:[/0-9a-z:?&=.-]{0,30}|\\PC{0,20})",
            option in "([?&](protocol|channel|unit|baud|parity|flash|active|bias|debounce)=\
                (modbus|lcus1|[0-9]{0,9}(ms|s)?|none|even|low|pull-up)){0,4}",
        ) {
            if let Err(error) = Relay::open(&format!("{scheme}{rest}{option}")) {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}
