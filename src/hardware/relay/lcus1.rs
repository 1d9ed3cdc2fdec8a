//! LCUS-1 and related boards of up to 8 relays: a USB serial port that takes commands of
//! four bytes: `A0`, channel, 1 or 0, and the sum of the three. They never answer.

use super::RelayError;
use super::serial::{Address, Port};
use std::fmt;

/// One relay of a board.
pub struct Lcus1 {
    channel: u8,
    port: Port,
}

impl Lcus1 {
    pub(super) fn new(address: Address) -> Self {
        // `Address` allows channels 1 to 8.
        Self { channel: address.channel.min(8) as u8, port: Port::new(&address) }
    }

    pub(super) fn connect(&mut self) -> Result<(), RelayError> {
        self.port.connect()
    }

    pub(super) fn disconnect(&mut self) {
        self.port.disconnect();
    }

    pub(super) fn check(&mut self) -> Result<(), RelayError> {
        self.port.check()
    }

    pub(super) fn switch(&mut self, on: bool) -> Result<(), RelayError> {
        let command = command(self.channel, on);
        let fresh = !self.port.is_open();
        self.port.send(&command).or_else(|error| {
            // After a board was unplugged, only a reopened port reaches it.
            self.port.disconnect();
            if fresh { Err(error) } else { self.port.send(&command) }
        })
    }
}

fn command(channel: u8, on: bool) -> [u8; 4] {
    let state = u8::from(on);
    [0xA0, channel, state, 0xA0 + channel + state]
}

impl fmt::Display for Lcus1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LCUS-1 on {}, channel {}", self.port.path(), self.channel)
    }
}

impl fmt::Debug for Lcus1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lcus1({}, channel {})", self.port.path(), self.channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::relay::Relay;
    use serialport::{SerialPort, TTYPort};
    use std::io::Read;
    use std::time::Duration;

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
}
