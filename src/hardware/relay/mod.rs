//! EDGE: what moves the lock, named by a URI.
//!
//! | URI | What |
//! |---|---|
//! | `log:` | only says what it would do |
//! | `gpio:/dev/gpiochip0/17[?active=low]` | a relay on a GPIO line, see [`crate::hardware::gpio::Line`] |
//! | `serial:/dev/ttyUSB0[?protocol=lcus1&channel=1]` | an LCUS-1 relay board on a serial port |
//! | `serial:/dev/ttyUSB0?protocol=modbus[&channel=1&unit=1&baud=9600&parity=none&flash=10s]` | a Modbus RTU relay board |
//!
//! A USB adapter that is plugged in anew may come back as another `ttyUSBn`. Name it by
//! a path that stays, such as `/dev/serial/by-id/...`, or a udev link like
//! `/dev/facelatch/relay`; the path is resolved each time the port is opened.
//!
//! What the relay does when nobody tells it any more:
//!
//! | Relay | The process is killed | The board loses power |
//! |---|---|---|
//! | `gpio:` | what the chip's driver does with a line that is let go of: many leave it as it was (PL061, and Raspberry Pi OS), some make it an input (upstream kernels on a Pi; Raspberry Pi OS with `dtparam=strict_gpiod`), where a pull resistor decides | an input, and the pull resistor decides |
//! | `serial:` LCUS-1 | stays as it was | off |
//! | `serial:` Modbus | stays as it was; with `flash=` off after that time | off |
//!
//! So a process that was killed must come back, and its first order is to lock; whoever
//! needs the bound without it takes a Modbus board with `flash=`.

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
pub use modbus::Fault;
pub use thread::{NotOrdered, RelayLink, RelayPulse, Report};

/// A relay that tells nothing of itself is looked after so often: long before anybody
/// needs it after it was plugged in anew.
#[cfg(any(feature = "serial", feature = "gpio"))]
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Why the relay did not do as told.
#[derive(Debug, Error)]
pub enum RelayError {
    /// The URI names no relay we know.
    #[error(
        "{uri:?}: no such kind of relay; use log:, gpio:/dev/gpiochip0/17 or serial:/dev/ttyUSB0"
    )]
    Scheme {
        /// As given.
        uri: String,
    },
    /// We know such relays, but were built without them.
    #[error(
        "{uri:?}: this facelatch was built without such relays; build it with --features {feature}"
    )]
    NotBuilt {
        /// As given.
        uri: String,
        /// What to build with.
        feature: String,
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
    /// This user may not use the port.
    #[error(
        "{port}: this user may not use it; add it to the group dialout (usermod -aG dialout USER)"
    )]
    Permission {
        /// Which one.
        port: String,
    },
    /// The board does not answer as it should.
    #[cfg(feature = "serial")]
    #[error("{port}: unit {unit} {fault}")]
    Answer {
        /// Which port.
        port: String,
        /// Which board there.
        unit: u8,
        /// What is wrong.
        fault: Fault,
    },
    /// The GPIO line does not do as told.
    #[cfg(feature = "gpio")]
    #[error(transparent)]
    Gpio(#[from] crate::hardware::gpio::GpioError),
}

/// A relay. Whether on is open or locked is the lock's business.
#[derive(Debug)]
pub enum Relay {
    /// Only says what it would do.
    Log,
    /// A board on a serial port.
    #[cfg(feature = "serial")]
    Lcus1(lcus1::Lcus1),
    /// A board on a serial bus.
    #[cfg(feature = "serial")]
    Modbus(modbus::Modbus),
    /// A line of a GPIO chip.
    #[cfg(feature = "gpio")]
    Gpio(crate::hardware::gpio::Switch),
}

#[cfg_attr(not(all(feature = "serial", feature = "gpio")), allow(unused_variables))]
impl Relay {
    /// The relay that the URI names. A device is opened with the first command,
    /// and again after a failure.
    pub fn open(uri: &str) -> Result<Self, RelayError> {
        Self::open_within(uri, None)
    }

    /// The same with another limit of time for each of a board's answers. For tests on
    /// machines that are busy: the door gives up sooner.
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
            // Where it is built in, it was opened above.
            Some((kind, _)) if ["gpio", "serial"].contains(&kind) => {
                Err(RelayError::NotBuilt { uri: uri.to_owned(), feature: kind.to_owned() })
            }
            _ => Err(RelayError::Scheme { uri: uri.to_owned() }),
        }
    }

    /// Opens the device where it is not open. A line that only exists while it is held
    /// begins at this level.
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

    /// Switches it. When this succeeds the relay has taken the command: a line reads
    /// back as told, a Modbus board has confirmed it and its coil reads as told, and the
    /// port of an LCUS-1, which cannot answer, has sent all of it.
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

    /// Whether it is as told. An error says that it is not there any more. An LCUS-1
    /// can only say whether its port is there.
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

    /// How often to look after it while it is on or off; never where that is no use.
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

    /// How long after the last command the device switches off by itself, where it can.
    pub fn falls_back_after(&self) -> Option<Duration> {
        match self {
            #[cfg(feature = "serial")]
            Self::Modbus(board) => board.falls_back_after(),
            _ => None,
        }
    }

    /// Lets go of the device; the next command opens it anew.
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
    fn a_uri_that_names_no_relay_says_what_does() {
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
