//! EDGE: a serial port with a relay board on it.

use super::RelayError;
use crate::hardware::uri;
use serialport::{ClearBuffer, ErrorKind, Parity, SerialPort};
use std::io::{Read, Write};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Options allowed after the `?`, for LCUS-1 and for Modbus boards.
const OPTIONS: [&str; 2] = ["protocol", "channel"];
const MODBUS_OPTIONS: [&str; 6] = ["protocol", "channel", "unit", "baud", "parity", "flash"];
/// Timeout for sending a command. Eight bytes take 9 ms at 9600 baud and 73 ms at 1200
/// baud.
const PATIENCE: Duration = Duration::from_millis(500);
/// Baud rates of relay boards.
const BAUDS: [u32; 8] = [1200, 2400, 4800, 9600, 19_200, 38_400, 57_600, 115_200];
/// Longest flash: boards count tenths of a second in 15 bits.
const LONGEST_FLASH: Duration = Duration::from_millis(0x7FFF * 100);
/// Shortest flash: it is renewed three times in that time, and must survive a busy bus.
const SHORTEST_FLASH: Duration = Duration::from_secs(2);

/// The protocol of a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Lcus1,
    Modbus,
}

/// What [`Port::receive`] still waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Nothing.
    Enough,
    /// More bytes, but not after this time of silence.
    Silence(Duration),
    /// More bytes, until the time is over.
    Answer,
}

/// One relay: everything after `serial:`.
#[derive(Clone, Debug, PartialEq)]
pub struct Address {
    pub path: String,
    pub protocol: Protocol,
    /// Channel, counted from 1.
    pub channel: u16,
    pub unit: u8,
    pub baud: u32,
    pub parity: Parity,
    /// Time after which the board itself switches the relay off.
    pub flash: Option<Duration>,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(rest: &str) -> Result<Self, String> {
        let (path, options) = uri::split(rest);
        if path.is_empty() {
            return Err("names no port; write serial:/dev/ttyUSB0".to_owned());
        }
        let protocol = match options.split('&').find_map(|o| o.strip_prefix("protocol=")) {
            None | Some("lcus1") => Protocol::Lcus1,
            Some("modbus") => Protocol::Modbus,
            Some(other) => {
                return Err(format!("protocol={other}: unknown; expected lcus1 or modbus"));
            }
        };
        let modbus = protocol == Protocol::Modbus;
        let mut address = Self {
            path: path.to_owned(),
            protocol,
            channel: 1,
            unit: 1,
            baud: 9600,
            parity: Parity::None,
            flash: None,
        };
        let known = if modbus { &MODBUS_OPTIONS[..] } else { &OPTIONS };
        for option in uri::options(options, known)? {
            match option.key {
                "channel" => {
                    let most = if modbus { 256 } else { 8 };
                    address.channel = option.number(1..=most, &format!("1 to {most}"))?;
                }
                "unit" => address.unit = option.number(1..=247, "1 to 247")?,
                "baud" => {
                    let baud = option.value.parse().ok().filter(|baud| BAUDS.contains(baud));
                    let expected = || option.expected(&format!("one of {BAUDS:?}"));
                    address.baud = baud.ok_or_else(expected)?;
                }
                "parity" => {
                    address.parity = match option.value {
                        "none" => Parity::None,
                        "even" => Parity::Even,
                        "odd" => Parity::Odd,
                        _ => return Err(option.expected("none, even or odd")),
                    };
                }
                "flash" => {
                    let range = SHORTEST_FLASH..=LONGEST_FLASH;
                    address.flash = Some(option.time(range, "2s to 3276s")?);
                }
                // The protocol was read first: it decides which options are known.
                _ => {}
            }
        }
        Ok(address)
    }
}

/// A serial port that is opened when it is first needed.
pub struct Port {
    path: String,
    baud: u32,
    parity: Parity,
    port: Option<Box<dyn SerialPort>>,
}

impl Port {
    pub fn new(address: &Address) -> Self {
        let Address { path, baud, parity, .. } = address;
        Self { path: path.clone(), baud: *baud, parity: *parity, port: None }
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn is_open(&self) -> bool {
        self.port.is_some()
    }

    /// Opens the port unless it is open, exclusively.
    pub fn connect(&mut self) -> Result<(), RelayError> {
        if self.port.is_none() {
            let port = serialport::new(&self.path, self.baud).parity(self.parity).timeout(PATIENCE);
            self.port = Some(port.open().map_err(|error| self.not_opened(error))?);
        }
        Ok(())
    }

    /// Closes the port and discards unsent bytes, which closing would wait for.
    pub fn disconnect(&mut self) {
        if let Some(port) = self.port.take()
            && port.bytes_to_write().is_ok_and(|left| left > 0)
        {
            // Fails for an unplugged port, which has nothing to discard.
            let _ = port.clear(ClearBuffer::Output);
        }
    }

    /// Checks that the port still exists.
    pub fn check(&mut self) -> Result<(), RelayError> {
        self.connect()?;
        self.with(|port| port.bytes_to_write().map(drop).map_err(text))
    }

    /// Sends all bytes and waits until they have left the port.
    pub fn send(&mut self, command: &[u8]) -> Result<(), RelayError> {
        self.connect()?;
        self.with(|port| {
            port.write_all(command).map_err(text)?;
            // Not `flush`, which blocks forever on an adapter that hangs.
            let sent = Instant::now();
            while port.bytes_to_write().map_err(text)? > 0 {
                if sent.elapsed() > PATIENCE {
                    return Err("does not accept the command".to_owned());
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        })
    }

    /// Discards the bytes received so far.
    pub fn forget(&mut self) -> Result<(), RelayError> {
        self.connect()?;
        self.with(|port| port.clear(ClearBuffer::Input).map_err(text))
    }

    /// Reads until `wait` has enough of the bytes received so far, until the longest silence
    /// that it allows after them, or until the time is over; returns the number of bytes.
    pub fn receive(
        &mut self,
        buffer: &mut [u8],
        patience: Duration,
        wait: impl Fn(&[u8]) -> Wait,
    ) -> Result<usize, RelayError> {
        let asked = Instant::now();
        self.with(|port| {
            let mut got = 0;
            while got < buffer.len() {
                let left = patience.saturating_sub(asked.elapsed());
                let left = match wait(&buffer[..got]) {
                    Wait::Enough => break,
                    Wait::Silence(longest) => left.min(longest),
                    Wait::Answer => left,
                };
                if left.is_zero() {
                    break;
                }
                port.set_timeout(left).map_err(text)?;
                match port.read(&mut buffer[got..]) {
                    Ok(0) => return Err("has been disconnected".to_owned()),
                    Ok(read) => got += read,
                    Err(error) if error.kind() == std::io::ErrorKind::TimedOut => break,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error.to_string()),
                }
            }
            port.set_timeout(PATIENCE).map_err(text)?;
            Ok(got)
        })
    }

    fn with<T>(
        &mut self,
        work: impl FnOnce(&mut Box<dyn SerialPort>) -> Result<T, String>,
    ) -> Result<T, RelayError> {
        let result = match &mut self.port {
            Some(port) => work(port),
            None => Err("is not open".to_owned()),
        };
        result.map_err(|reason| RelayError::Port { port: self.path.clone(), reason })
    }

    fn not_opened(&self, error: serialport::Error) -> RelayError {
        let port = self.path.clone();
        match error.kind() {
            ErrorKind::Io(std::io::ErrorKind::PermissionDenied) => RelayError::Permission { port },
            _ => RelayError::Port { port, reason: error.to_string() },
        }
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_options_have_the_factory_settings() {
        let address: Address = "/dev/ttyUSB0".parse().expect("an address");
        assert_eq!((address.protocol, address.channel), (Protocol::Lcus1, 1));
        let address: Address = "/dev/x?protocol=modbus".parse().expect("an address");
        assert_eq!((address.channel, address.unit, address.baud), (1, 1, 9600));
        assert_eq!((address.parity, address.flash), (Parity::None, None));
        let text = "/dev/x?flash=10s&unit=247&channel=256&baud=19200&parity=even&protocol=modbus";
        let address: Address = text.parse().expect("an address");
        assert_eq!((address.channel, address.unit, address.baud), (256, 247, 19_200));
        assert_eq!((address.parity, address.flash), (Parity::Even, Some(Duration::from_secs(10))));
    }

    #[test]
    fn wrong_options_are_named() {
        for (rest, expected) in [
            ("", "no port"),
            ("?channel=1", "no port"),
            ("/dev/x?channel=9", "channel=9: expected 1 to 8"),
            ("/dev/x?channel=0", "channel=0"),
            ("/dev/x?protocol=x10", "x10: unknown; expected lcus1 or modbus"),
            ("/dev/x?speed=1", "speed=1: unknown; the options are protocol and channel"),
            ("/dev/x?unit=1", "unit=1: unknown"),
            ("/dev/x?protocol=modbus&unit=0", "unit=0: expected 1 to 247"),
            ("/dev/x?protocol=modbus&channel=257", "channel=257: expected 1 to 256"),
            ("/dev/x?protocol=modbus&baud=9601", "baud=9601: expected one of [1200,"),
            ("/dev/x?protocol=modbus&parity=8", "parity=8: expected none, even or odd"),
            ("/dev/x?protocol=modbus&flash=1s", "flash=1s: expected 2s"),
            ("/dev/x?protocol=modbus&flash=5", "flash=5: expected 2s"),
            ("/dev/x?protocol=modbus&speed=1", "the options are protocol, channel, unit"),
        ] {
            let message = rest.parse::<Address>().expect_err(rest);
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn the_example_shows_every_option() {
        let options = crate::config::tests::options;
        let (names, shown) = options("# Options of serial: behind");
        assert_eq!(names, OPTIONS);
        let address: Address = format!("/dev/x?{shown}").parse().expect("an address");
        assert_eq!(address.protocol, Protocol::Lcus1);
        let (names, shown) = options("# Options of serial: with protocol=modbus");
        assert_eq!(names, MODBUS_OPTIONS);
        let address: Address = format!("/dev/x?{shown}").parse().expect("an address");
        assert!(address.protocol == Protocol::Modbus && address.flash.is_some());
    }
}
