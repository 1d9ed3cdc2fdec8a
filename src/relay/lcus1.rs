//! LCUS-1 and its relatives of up to 8 relays: a USB serial port that takes
//! four bytes a command, `A0`, channel, 1 or 0, and their sum.

use super::RelayError;
use serialport::SerialPort;
use std::fmt;
use std::io::Write;
use std::time::{Duration, Instant};

const BAUD: u32 = 9600;
/// Four bytes take 4 ms; a port that takes longer is not taking them.
const PATIENCE: Duration = Duration::from_millis(500);

/// One relay of a board.
pub struct Lcus1 {
    path: String,
    channel: u8,
    port: Option<Box<dyn SerialPort>>,
}

impl Lcus1 {
    pub(super) fn new(uri: &str, rest: &str) -> Result<Self, RelayError> {
        let (path, options) = rest.split_once('?').unwrap_or((rest, ""));
        let wrong = |fault: String| RelayError::Option { uri: uri.to_owned(), fault };
        if path.is_empty() {
            return Err(wrong("names no port; write serial:/dev/ttyUSB0".to_owned()));
        }
        let mut channel = 1;
        for option in options.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("protocol", "lcus1")) => {}
                Some(("protocol", other)) => {
                    return Err(wrong(format!("protocol={other}: unknown; there is lcus1")));
                }
                Some(("channel", number)) => {
                    channel = number
                        .parse()
                        .ok()
                        .filter(|channel| (1..=8).contains(channel))
                        .ok_or_else(|| wrong(format!("channel={number}: expected 1 to 8")))?;
                }
                _ => {
                    let fault = format!("{option}: unknown; there are protocol and channel");
                    return Err(wrong(fault));
                }
            }
        }
        Ok(Self { path: path.to_owned(), channel, port: None })
    }

    pub(super) fn switch(&mut self, on: bool) -> Result<(), RelayError> {
        let command = command(self.channel, on);
        let fresh = self.port.is_none();
        self.send(command).or_else(|error| {
            // A board that was unplugged comes back on a fresh port.
            self.port = None;
            if fresh { Err(error) } else { self.send(command) }
        })
    }

    fn send(&mut self, command: [u8; 4]) -> Result<(), RelayError> {
        let failed = |reason: String| RelayError::Port { port: self.path.clone(), reason };
        let port = match &mut self.port {
            Some(port) => port,
            None => {
                let opened = serialport::new(&self.path, BAUD).timeout(PATIENCE).open();
                self.port.insert(opened.map_err(|error| failed(error.to_string()))?)
            }
        };
        port.write_all(&command).map_err(|error| failed(error.to_string()))?;
        // Not flush, which would wait for ever on an adapter that is stuck.
        let sent = Instant::now();
        while port.bytes_to_write().map_err(|error| failed(error.to_string()))? > 0 {
            if sent.elapsed() > PATIENCE {
                return Err(failed("does not take the command".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

fn command(channel: u8, on: bool) -> [u8; 4] {
    let state = u8::from(on);
    [0xA0, channel, state, 0xA0 + channel + state]
}

impl fmt::Display for Lcus1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LCUS-1 on {}, channel {}", self.path, self.channel)
    }
}

impl fmt::Debug for Lcus1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lcus1({}, channel {})", self.path, self.channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::Relay;
    use serialport::TTYPort;
    use std::io::Read;

    #[test]
    fn the_bytes_are_those_of_the_data_sheet() {
        assert_eq!(command(1, true), [0xA0, 0x01, 0x01, 0xA2]);
        assert_eq!(command(1, false), [0xA0, 0x01, 0x00, 0xA1]);
        assert_eq!(command(8, true), [0xA0, 0x08, 0x01, 0xA9]);
    }

    #[test]
    fn a_board_on_a_terminal_gets_its_commands() {
        let (mut board, port) = TTYPort::pair().expect("a pair of terminals");
        board.set_timeout(Duration::from_secs(5)).expect("a timeout");
        let path = port.name().expect("a path");
        drop(port);
        let mut relay = Relay::open(&format!("serial:{path}?channel=2")).expect("a relay");
        let mut got = [0; 8];
        relay.switch(true).expect("on");
        relay.switch(false).expect("off");
        board.read_exact(&mut got).expect("eight bytes");
        assert_eq!(got, [0xA0, 2, 1, 0xA3, 0xA0, 2, 0, 0xA2]);
    }

    #[test]
    fn a_port_that_is_not_there_is_named_each_time() {
        let mut relay = Relay::open("serial:/dev/no-such-port").expect("a relay");
        for _ in 0..2 {
            let message = relay.switch(true).expect_err("no port").to_string();
            assert!(message.contains("/dev/no-such-port"), "{message}");
        }
    }

    #[test]
    fn wrong_options_are_named() {
        for (rest, expected) in [
            ("", "no port"),
            ("/dev/x?channel=9", "channel=9"),
            ("/dev/x?protocol=modbus", "modbus"),
            ("/dev/x?speed=1", "speed=1"),
        ] {
            let message = Relay::open(&format!("serial:{rest}")).expect_err(rest).to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
