//! Modbus RTU relay boards. To switch, a coil is written, the board echoes the command,
//! and the coil is read back.
//!
//! Only the read-back counts. An RS-485 adapter that receives its own transmission also
//! echoes the command, but does not answer a read; and some boards confirm commands to
//! channels that they lack.
//!
//! With `flash=10s` the board itself limits the on-time to ten seconds. The program
//! renews the command while the relay is to stay on, so the relay falls back when the
//! program is gone. This is not part of Modbus: boards by Waveshare and related ones take
//! function 05 at address 0x0200 + coil with tenths of a second as the value, up to
//! 0x7FFF.

use super::RelayError;
use super::serial::{Address, Port};
use rmodbus::client::ModbusRequest;
use rmodbus::{ErrorKind, ModbusProto};
use serialport::Parity;
use std::fmt;
use std::time::Duration;
use thiserror::Error;

/// Timeout per answer. Boards answer within some milliseconds; at 1200 baud question and
/// answer alone take 150 ms. Two attempts at each of two requests end before the door
/// gives up (2 seconds).
pub(super) const ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// Attempts per request: one repetition, because a bus has noise.
const TRIES: usize = 2;
/// Shortest silence between two frames. The standard asks for 3.5 characters of 11 bits,
/// and for 1.75 ms at high baud rates.
const SHORTEST_GAP: Duration = Duration::from_micros(1750);
/// Check interval while the relay is off, and while it is on.
const CHECK_OFF: Duration = Duration::from_secs(5);
const CHECK_ON: Duration = Duration::from_secs(1);
/// Address of the first coil's timer.
const FLASH: u16 = 0x0200;
/// Longest expected answer in bytes.
const LONGEST: usize = 8;

/// The fault of a board's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// No answer came.
    #[error(
        "does not answer; is it on, are A and B the right way round, and are unit, baud and parity right?"
    )]
    Silent,
    /// The answer ended too early.
    #[error("answered {got} bytes instead of {expected}; check the wiring, baud and parity")]
    Short {
        /// Bytes received.
        got: usize,
        /// Bytes expected.
        expected: usize,
    },
    /// The checksum is wrong.
    #[error("answered with a wrong checksum; check the wiring, baud and parity")]
    Checksum,
    /// Another unit answered.
    #[error("did not answer, but unit {got} did; set unit={got} if that is the board")]
    Unit {
        /// Number of that unit.
        got: u8,
    },
    /// The board refused the request.
    #[error("refused the request: {}", exception(*code))]
    Exception {
        /// Exception code of the Modbus standard.
        code: u8,
    },
    /// The answer belongs to another request.
    #[error("answered another request; is there a second master on this bus?")]
    Other,
    /// The board confirmed the command, but the coil did not change.
    #[error("confirmed, but the coil is still {}; does the board have this channel?", on_off(*coil))]
    NotTaken {
        /// State of the coil.
        coil: bool,
    },
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

fn exception(code: u8) -> String {
    let (name, cure) = match ErrorKind::from_modbus_error(code) {
        ErrorKind::IllegalFunction => {
            ("illegal function", "it is not a relay board or does not support flash=")
        }
        ErrorKind::IllegalDataAddress => ("illegal address", "it has fewer channels"),
        ErrorKind::IllegalDataValue => ("illegal value", "it does not support flash="),
        ErrorKind::SlaveDeviceFailure => ("device failure", "switch its power off and on"),
        ErrorKind::SlaveDeviceBusy | ErrorKind::Acknowledge => ("busy", "try again later"),
        _ => ("not a standard code", "see the board's manual"),
    };
    format!("exception {code}, {name}; {cure}")
}

/// A request to a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Write { coil: u16, on: bool },
    Flash { coil: u16, tenths: u16 },
    Read { coil: u16 },
}

impl Ask {
    /// The request as bytes: unit, function, address, value and checksum.
    fn frame(self, unit: u8) -> [u8; 8] {
        let mut request = ModbusRequest::new(unit, ModbusProto::Rtu);
        let mut frame = Vec::with_capacity(8);
        let made = match self {
            Self::Write { coil, on } => request.generate_set_coil(coil, on, &mut frame),
            Self::Read { coil } => request.generate_get_coils(coil, 1, &mut frame),
            Self::Flash { coil, tenths } => {
                let [address_high, address_low] = (FLASH + coil).to_be_bytes();
                let [high, low] = tenths.to_be_bytes();
                frame.extend([unit, 5, address_high, address_low, high, low]);
                frame.extend(checksum(&frame).to_le_bytes());
                Ok(())
            }
        };
        // Cannot fail: the buffer grows.
        debug_assert!(made.is_ok());
        frame.try_into().unwrap_or([0; 8])
    }

    fn function(self) -> u8 {
        match self {
            Self::Write { .. } | Self::Flash { .. } => 5,
            Self::Read { .. } => 1,
        }
    }

    /// Length of the answer in bytes, judging by the bytes received so far.
    fn expects(self, bytes: &[u8]) -> usize {
        match (bytes.get(1), self) {
            (Some(function), _) if function & 0x80 != 0 => 5,
            (_, Self::Read { .. }) => 6,
            (_, Self::Write { .. } | Self::Flash { .. }) => 8,
        }
    }

    /// Checks the answer; returns the coil's state if this was a read.
    fn answer(self, unit: u8, bytes: &[u8]) -> Result<Option<bool>, Fault> {
        let expected = self.expects(bytes);
        match bytes.len() {
            0 => return Err(Fault::Silent),
            got if got < expected => return Err(Fault::Short { got, expected }),
            _ => {}
        }
        let bytes = &bytes[..expected];
        let mut request = ModbusRequest::new(bytes[0], ModbusProto::Rtu);
        let mut coils = Vec::with_capacity(1);
        request.count = 1;
        // Other errors are told apart below.
        if let Err(ErrorKind::FrameCRCError) = request.parse_bool(bytes, &mut coils) {
            return Err(Fault::Checksum);
        }
        if bytes[0] != unit {
            return Err(Fault::Unit { got: bytes[0] });
        }
        if bytes[1] == self.function() | 0x80 {
            return Err(Fault::Exception { code: bytes[2] });
        }
        match self {
            Self::Write { .. } | Self::Flash { .. } if bytes == self.frame(unit) => Ok(None),
            Self::Read { .. } if bytes[1] == 1 && bytes[2] == 1 => Ok(coils.first().copied()),
            _ => Err(Fault::Other),
        }
    }
}

/// CRC-16 of Modbus: reflected polynomial 0xA001, initial value 0xFFFF.
fn checksum(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xFFFF, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| (crc >> 1) ^ (0xA001 * (crc & 1)))
    })
}

/// One relay of a board.
pub struct Modbus {
    unit: u8,
    coil: u16,
    flash: Option<Duration>,
    gap: Duration,
    answer_within: Duration,
    line: String,
    port: Port,
}

impl Modbus {
    pub(super) fn new(address: Address, answer_within: Duration) -> Self {
        let parity = match address.parity {
            Parity::None => 'N',
            Parity::Even => 'E',
            Parity::Odd => 'O',
        };
        Self {
            unit: address.unit,
            coil: address.channel.saturating_sub(1),
            flash: address.flash,
            gap: SHORTEST_GAP.max(Duration::from_secs_f64(3.5 * 11.0 / f64::from(address.baud))),
            answer_within,
            line: format!("{} baud, 8{parity}1", address.baud),
            port: Port::new(&address),
        }
    }

    pub(super) fn connect(&mut self) -> Result<(), RelayError> {
        self.port.connect()
    }

    pub(super) fn disconnect(&mut self) {
        self.port.disconnect();
    }

    pub(super) fn falls_back_after(&self) -> Option<Duration> {
        self.flash
    }

    /// Check interval. A flash is renewed three times before it ends.
    pub(super) fn check_every(&self, on: bool) -> Duration {
        match self.flash {
            Some(flash) if on => CHECK_ON.min(flash / 3),
            _ if on => CHECK_ON,
            _ => CHECK_OFF,
        }
    }

    pub(super) fn switch(&mut self, on: bool) -> Result<(), RelayError> {
        self.ask(self.command(on))?;
        match self.ask(Ask::Read { coil: self.coil })? {
            Some(coil) if coil != on => Err(self.fault(Fault::NotTaken { coil })),
            _ => Ok(()),
        }
    }

    /// Whether the coil is in the state `on`. Renews the flash of a relay that is on.
    pub(super) fn check(&mut self, on: bool) -> Result<bool, RelayError> {
        let as_ordered = self.ask(Ask::Read { coil: self.coil })? == Some(on);
        if on && as_ordered && self.flash.is_some() {
            self.ask(self.command(true))?;
        }
        Ok(as_ordered)
    }

    fn command(&self, on: bool) -> Ask {
        let coil = self.coil;
        match self.flash {
            // `Address` limits it to 15 bits.
            Some(flash) if on => Ask::Flash { coil, tenths: (flash.as_millis() / 100) as u16 },
            _ => Ask::Write { coil, on },
        }
    }

    fn ask(&mut self, ask: Ask) -> Result<Option<bool>, RelayError> {
        let mut fault = Fault::Silent;
        for _ in 0..TRIES {
            // Drop late answers to earlier requests.
            self.port.forget()?;
            std::thread::sleep(self.gap);
            self.port.send(&ask.frame(self.unit))?;
            let mut buffer = [0; LONGEST];
            let enough = |bytes: &[u8]| bytes.len() >= ask.expects(bytes);
            let got = self.port.receive(&mut buffer, self.answer_within, enough)?;
            match ask.answer(self.unit, &buffer[..got]) {
                Ok(coil) => return Ok(coil),
                Err(no @ Fault::Exception { .. }) => return Err(self.fault(no)),
                Err(other) => fault = other,
            }
        }
        Err(self.fault(fault))
    }

    fn fault(&self, fault: Fault) -> RelayError {
        RelayError::Answer { port: self.port.path().to_owned(), unit: self.unit, fault }
    }
}

impl fmt::Display for Modbus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { unit, coil, line, .. } = self;
        write!(f, "Modbus on {} ({line}), unit {unit}, channel {}", self.port.path(), coil + 1)
    }
}

impl fmt::Debug for Modbus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Modbus({}, unit {}, coil {})", self.port.path(), self.unit, self.coil)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ON: Ask = Ask::Write { coil: 0, on: true };
    const READ: Ask = Ask::Read { coil: 0 };

    fn sealed(bytes: &[u8]) -> Vec<u8> {
        let mut frame = bytes.to_vec();
        frame.extend(checksum(bytes).to_le_bytes());
        frame
    }

    #[test]
    fn frames_are_those_of_the_manuals() {
        assert_eq!(ON.frame(1), [1, 5, 0, 0, 0xFF, 0, 0x8C, 0x3A]);
        let off = Ask::Write { coil: 1, on: false };
        assert_eq!(off.frame(1), [1, 5, 0, 1, 0, 0, 0x9C, 0x0A]);
        assert_eq!(READ.frame(1), [1, 1, 0, 0, 0, 1, 0xFD, 0xCA]);
        let flash = Ask::Flash { coil: 0, tenths: 7 };
        assert_eq!(flash.frame(1), [1, 5, 2, 0, 0, 7, 0x8D, 0xB0]);
    }

    #[test]
    fn an_answer_is_believed_only_where_all_of_it_is_right() {
        assert_eq!(ON.answer(1, &ON.frame(1)), Ok(None));
        assert_eq!(READ.answer(1, &sealed(&[1, 1, 1, 1])), Ok(Some(true)));
        assert_eq!(READ.answer(1, &sealed(&[1, 1, 1, 0xFE])), Ok(Some(false)));
        for (ask, bytes, fault) in [
            (ON, vec![], Fault::Silent),
            (ON, ON.frame(1)[..7].to_vec(), Fault::Short { got: 7, expected: 8 }),
            (READ, vec![1], Fault::Short { got: 1, expected: 6 }),
            (ON, [1, 5, 0, 0, 0xFF, 0, 0x8C, 0x3B].to_vec(), Fault::Checksum),
            (ON, ON.frame(2).to_vec(), Fault::Unit { got: 2 }),
            (ON, sealed(&[1, 0x85, 2]), Fault::Exception { code: 2 }),
            (READ, sealed(&[1, 0x81, 1]), Fault::Exception { code: 1 }),
            (ON, sealed(&[1, 0x81, 1]), Fault::Other),
            (ON, Ask::Write { coil: 0, on: false }.frame(1).to_vec(), Fault::Other),
            (ON, Ask::Write { coil: 1, on: true }.frame(1).to_vec(), Fault::Other),
            (READ, sealed(&[1, 2, 1, 1]), Fault::Other),
            (READ, sealed(&[1, 1, 2, 1]), Fault::Other),
            // The echo of an adapter that receives its own transmission.
            (READ, READ.frame(1).to_vec(), Fault::Checksum),
        ] {
            assert_eq!(ask.answer(1, &bytes), Err(fault), "{ask:?} {bytes:02x?}");
        }
    }

    #[test]
    fn a_fault_says_what_to_do() {
        let message = Fault::Exception { code: 2 }.to_string();
        assert_eq!(
            message,
            "refused the request: exception 2, illegal address; it has fewer channels"
        );
        let message = Fault::NotTaken { coil: false }.to_string();
        assert!(message.starts_with("confirmed, but the coil is still off;"), "{message}");
    }

    #[test]
    fn a_flash_is_renewed_before_it_ends() {
        for (flash, on) in [("", 1000), ("&flash=2s", 666), ("&flash=60s", 1000)] {
            let text = format!("/dev/x?protocol=modbus{flash}");
            let board = Modbus::new(text.parse().expect("an address"), ANSWER_WITHIN);
            assert_eq!(board.check_every(true).as_millis(), on);
            assert_eq!(board.check_every(false), CHECK_OFF);
        }
    }

    proptest! {
        #[test]
        fn no_answer_panics_and_none_but_the_right_one_is_believed(
            bytes in prop::collection::vec(any::<u8>(), 0..10),
            seal in any::<bool>(),
            unit in 1u8..=247,
            coil in 0u16..256,
            on in any::<bool>(),
        ) {
            let bytes = if seal { sealed(&bytes) } else { bytes };
            for ask in [Ask::Write { coil, on }, Ask::Read { coil }, Ask::Flash { coil, tenths: 9 }] {
                match ask.answer(unit, &bytes) {
                    Ok(None) => prop_assert_eq!(&bytes[..8], &ask.frame(unit)[..]),
                    Ok(Some(coil)) => {
                        let crc = checksum(&bytes[..4]).to_le_bytes();
                        prop_assert_eq!(&bytes[..3], &[unit, 1, 1][..]);
                        prop_assert_eq!((&bytes[4..6], bytes[3] & 1 == 1), (&crc[..], coil));
                    }
                    Err(fault) => prop_assert!(!fault.to_string().is_empty()),
                }
            }
        }

        #[test]
        fn our_checksum_is_that_of_the_crate(coil in any::<u16>(), unit in any::<u8>(), on in any::<bool>()) {
            let frame = Ask::Write { coil, on }.frame(unit);
            prop_assert_eq!(checksum(&frame[..6]).to_le_bytes(), [frame[6], frame[7]]);
        }
    }
}
