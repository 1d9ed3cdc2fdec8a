//! Modbus RTU relay boards. To switch, a coil is written, the board repeats the command,
//! and the coil is read back.
//!
//! Only the read-back counts. Some boards confirm commands to channels that they lack. And
//! many RS-485 adapters receive their own transmission: this echo of a command is the same
//! as its confirmation. The answer to a read differs from its request, so it proves that
//! the board is there, and shows whether the adapter echoes. Once it is known to echo, a
//! command needs two copies. Until then, the next request waits for a possible second one,
//! because two senders at a time disturb each other.
//!
//! Adapters that switch from sending to receiving also add bytes, mostly 00 or FF. So an
//! answer is looked for after any number of other bytes, by unit, function and checksum.
//!
//! With `flash=10s` the board itself limits the on-time to ten seconds. The program
//! renews the command while the relay is to stay on, so the relay falls back when the
//! program is gone. This is not part of Modbus: boards by Waveshare and related ones take
//! function 05 at address 0x0200 + coil with tenths of a second as the value, up to
//! 0x7FFF.

use super::RelayError;
use super::serial::{Address, Port, Wait};
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
/// Most bytes received after one request: a late answer, an echo, an answer, and stray
/// bytes before each.
const LONGEST: usize = 256;
/// Bytes that adapters add when they switch from sending to receiving.
const STRAY: [u8; 2] = [0x00, 0xFF];

/// The fault of a board's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// No answer came.
    #[error(
        "does not answer; is it on, are A and B the right way round, and are unit, baud and parity right?"
    )]
    Silent,
    /// The adapter received its own request, and no answer came.
    #[error(
        "does not answer; the adapter receives only its own request (echo); is the board on, \
         are A and B the right way round, and are unit, baud and parity right?"
    )]
    Echo,
    /// Only bytes came that no board sends as an answer.
    #[error(
        "does not answer; only stray bytes (00 or FF) came; check A and B, the ground and \
         the bus's termination"
    )]
    Stray,
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

    /// Length of the answer in bytes.
    fn expects(self) -> usize {
        match self {
            Self::Read { .. } => 6,
            Self::Write { .. } | Self::Flash { .. } => 8,
        }
    }

    /// Splits the bytes received after the request at the end of its echo. Only for a read
    /// can an echo be told from an answer.
    fn after_echo(self, unit: u8, bytes: &[u8]) -> (bool, &[u8]) {
        let request = self.frame(unit);
        let echo = match self {
            Self::Read { .. } => bytes.windows(request.len()).position(|window| *window == request),
            Self::Write { .. } | Self::Flash { .. } => None,
        };
        (echo.is_some(), echo.map_or(bytes, |at| &bytes[at + request.len()..]))
    }

    /// The answer among these bytes: the coil's state, if this was a read. A command needs
    /// this number of copies.
    fn found(self, unit: u8, bytes: &[u8], copies: usize) -> Option<Result<Option<bool>, Fault>> {
        let refusal = [unit, self.function() | 0x80];
        let refused = bytes.windows(5).find(|it| it.starts_with(&refusal) && sealed(it));
        if let Some(exception) = refused {
            return Some(Err(Fault::Exception { code: exception[2] }));
        }
        match self {
            Self::Read { .. } => {
                // An echo never has this form: its third byte is 0, as there are 256 coils.
                let answer =
                    bytes.windows(6).find(|it| it.starts_with(&[unit, 1, 1]) && sealed(it));
                answer.map(|answer| Ok(Some(answer[3] & 1 == 1)))
            }
            Self::Write { .. } | Self::Flash { .. } => {
                (self.copies(unit, bytes) >= copies).then_some(Ok(None))
            }
        }
    }

    /// How often the request itself is among these bytes.
    fn copies(self, unit: u8, bytes: &[u8]) -> usize {
        let request = self.frame(unit);
        bytes.windows(request.len()).filter(|window| **window == request).count()
    }

    /// Judges all bytes received after the request: whether the adapter echoed it, which
    /// only a read shows, and the coil's state if this was a read.
    fn answer(self, unit: u8, bytes: &[u8], copies: usize) -> (bool, Result<Option<bool>, Fault>) {
        let (echo, rest) = self.after_echo(unit, bytes);
        let answer = self.found(unit, rest, copies).unwrap_or_else(|| {
            let echo = echo && rest.is_empty() || self.copies(unit, rest) > 0;
            Err(if echo { Fault::Echo } else { self.fault(unit, rest) })
        });
        (echo, answer)
    }

    /// Why these bytes have no answer.
    fn fault(self, unit: u8, bytes: &[u8]) -> Fault {
        let Some(first) = bytes.iter().position(|byte| !STRAY.contains(byte)) else {
            return if bytes.is_empty() { Fault::Silent } else { Fault::Stray };
        };
        let whole = [8, 6, 5].into_iter().find_map(|length| {
            bytes.windows(length).find(|window| (1..=247).contains(&window[0]) && sealed(window))
        });
        let (got, expected) = (bytes.len() - first, self.expects());
        match whole {
            Some(window) if window[0] != unit => Fault::Unit { got: window[0] },
            Some(_) => Fault::Other,
            None if got < expected => Fault::Short { got, expected },
            None => Fault::Checksum,
        }
    }

    /// What to wait for after these bytes. `settle` is the time in which the second copy of
    /// a command may still come while it is not known whether the adapter echoes.
    fn wait(self, unit: u8, bytes: &[u8], echoes: Option<bool>, settle: Duration) -> Wait {
        let (_, rest) = self.after_echo(unit, bytes);
        match self.found(unit, rest, needed(echoes)) {
            None => Wait::Answer,
            Some(Ok(None)) if echoes.is_none() && self.copies(unit, rest) < 2 => {
                Wait::Silence(settle)
            }
            Some(_) => Wait::Enough,
        }
    }
}

/// The state of a coil according to all bytes that came after a request to read it, as the
/// relay judges them. `coil` counts from 0.
///
/// # Errors
/// The fault of the answer, or that there is none.
pub fn coil_of(unit: u8, coil: u16, bytes: &[u8]) -> Result<Option<bool>, Fault> {
    Ask::Read { coil }.answer(unit, bytes, 1).1
}

/// Copies of a command that confirm it.
fn needed(echoes: Option<bool>) -> usize {
    if echoes == Some(true) { 2 } else { 1 }
}

/// Whether the last two bytes are the checksum of those before.
fn sealed(bytes: &[u8]) -> bool {
    let body = bytes.split_last_chunk::<2>();
    body.is_some_and(|(body, sum)| checksum(body).to_le_bytes() == *sum)
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
    /// Whether the adapter receives its own transmission; `None` until a read was answered.
    echoes: Option<bool>,
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
            echoes: None,
        }
    }

    pub(super) fn connect(&mut self) -> Result<(), RelayError> {
        self.port.connect()
    }

    pub(super) fn disconnect(&mut self) {
        // Another adapter may be plugged in before the port is opened again.
        self.echoes = None;
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
        match self.ask(self.command(on)) {
            // One copy of two may be the board's after all, and reading back decides.
            Ok(_) | Err(RelayError::Answer { fault: Fault::Echo, .. }) => {}
            Err(other) => return Err(other),
        }
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
            let (unit, echoes) = (self.unit, self.echoes);
            let settle = self.answer_within.min(ANSWER_WITHIN);
            let wait = |bytes: &[u8]| ask.wait(unit, bytes, echoes, settle);
            let got = self.port.receive(&mut buffer, self.answer_within, wait)?;
            let (echo, answer) = ask.answer(unit, &buffer[..got], needed(echoes));
            if matches!(ask, Ask::Read { .. }) && (echo || answer.is_ok()) {
                self.learn(echo);
            }
            match answer {
                Ok(coil) => return Ok(coil),
                Err(no @ Fault::Exception { .. }) => return Err(self.fault(no)),
                Err(other) => fault = other,
            }
        }
        Err(self.fault(fault))
    }

    fn learn(&mut self, echoes: bool) {
        if echoes && self.echoes.is_none() {
            log::debug!("{self}: the adapter receives its own requests; two copies confirm one");
        }
        self.echoes = Some(echoes);
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

    fn seal(bytes: &[u8]) -> Vec<u8> {
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

    fn joined(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    #[test]
    fn an_answer_is_believed_only_where_all_of_it_is_right() {
        assert_eq!(ON.answer(1, &ON.frame(1), 1), (false, Ok(None)));
        assert_eq!(READ.answer(1, &seal(&[1, 1, 1, 1]), 1), (false, Ok(Some(true))));
        assert_eq!(READ.answer(1, &seal(&[1, 1, 1, 0xFE]), 1), (false, Ok(Some(false))));
        let off = Ask::Write { coil: 0, on: false };
        for (ask, bytes, fault) in [
            (ON, vec![], Fault::Silent),
            (ON, ON.frame(1)[..7].to_vec(), Fault::Short { got: 7, expected: 8 }),
            (READ, vec![1], Fault::Short { got: 1, expected: 6 }),
            (READ, vec![0, 0xFF, 1], Fault::Short { got: 1, expected: 6 }),
            (ON, vec![0xFF; 9], Fault::Stray),
            (READ, vec![0], Fault::Stray),
            (ON, [1, 5, 0, 0, 0xFF, 0, 0x8C, 0x3B].to_vec(), Fault::Checksum),
            (ON, ON.frame(2).to_vec(), Fault::Unit { got: 2 }),
            (ON, seal(&[1, 0x85, 2]), Fault::Exception { code: 2 }),
            (READ, seal(&[1, 0x81, 1]), Fault::Exception { code: 1 }),
            (ON, seal(&[1, 0x81, 1]), Fault::Other),
            (ON, off.frame(1).to_vec(), Fault::Other),
            (ON, Ask::Write { coil: 1, on: true }.frame(1).to_vec(), Fault::Other),
            (READ, seal(&[1, 2, 1, 1]), Fault::Other),
            (READ, seal(&[1, 1, 2, 1]), Fault::Other),
        ] {
            assert_eq!(ask.answer(1, &bytes, 1), (false, Err(fault)), "{ask:?} {bytes:02x?}");
        }
    }

    #[test]
    fn an_echo_and_stray_bytes_are_told_from_an_answer() {
        let (echo, on) = (READ.frame(1), seal(&[1, 1, 1, 1]));
        let no = seal(&[1, 0x81, 2]);
        for (bytes, expected) in [
            (joined(&[&echo, &on]), (true, Ok(Some(true)))),
            (joined(&[&[0], &echo, &[0xFF, 0], &on, &[0]]), (true, Ok(Some(true)))),
            (joined(&[&echo, &echo, &on]), (true, Ok(Some(true)))),
            (joined(&[&[0xFF], &on]), (false, Ok(Some(true)))),
            (joined(&[&[1, 1, 1], &on]), (false, Ok(Some(true)))),
            (joined(&[&echo[..7], &on]), (false, Ok(Some(true)))),
            (joined(&[&echo, &no]), (true, Err(Fault::Exception { code: 2 }))),
            (echo.to_vec(), (true, Err(Fault::Echo))),
            (joined(&[&echo, &[0]]), (true, Err(Fault::Stray))),
            (joined(&[&echo, &on[..4]]), (true, Err(Fault::Short { got: 4, expected: 6 }))),
            // A late answer to an earlier command is no answer to a read.
            (ON.frame(1).to_vec(), (false, Err(Fault::Other))),
        ] {
            assert_eq!(READ.answer(1, &bytes, 1), expected, "{bytes:02x?}");
        }
        let once = ON.frame(1);
        for (bytes, copies, expected) in [
            (joined(&[&once]), 2, Err(Fault::Echo)),
            (joined(&[&[0], &once, &[0xFF], &once]), 2, Ok(None)),
            (joined(&[&once, &once[..7]]), 2, Err(Fault::Echo)),
            (joined(&[&once, &seal(&[1, 0x85, 2])]), 1, Err(Fault::Exception { code: 2 })),
            (joined(&[&[0xFF], &once]), 1, Ok(None)),
            (joined(&[&on, &once]), 1, Ok(None)),
        ] {
            assert_eq!(ON.answer(1, &bytes, copies), (false, expected), "{bytes:02x?}");
        }
    }

    #[test]
    fn a_second_copy_is_waited_for_until_echoes_are_known() {
        let settle = Duration::from_millis(300);
        let (once, twice) = (ON.frame(1).to_vec(), ON.frame(1).repeat(2));
        for (bytes, echoes, expected) in [
            (&once[..7], None, Wait::Answer),
            (&once, None, Wait::Silence(settle)),
            (&twice, None, Wait::Enough),
            (&once, Some(false), Wait::Enough),
            (&once, Some(true), Wait::Answer),
            (&twice, Some(true), Wait::Enough),
        ] {
            assert_eq!(ON.wait(1, bytes, echoes, settle), expected, "{echoes:?}");
        }
        assert_eq!(READ.wait(1, &READ.frame(1), None, settle), Wait::Answer);
        assert_eq!(READ.wait(1, &seal(&[1, 1, 1, 1]), None, settle), Wait::Enough);
    }

    #[test]
    fn no_echo_of_a_read_is_taken_for_its_answer() {
        for (unit, coil) in (1..=247).flat_map(|unit| (0..256).map(move |coil| (unit, coil))) {
            let ask = Ask::Read { coil };
            let echo = ask.frame(unit);
            assert_eq!(ask.answer(unit, &echo, 1), (true, Err(Fault::Echo)));
            // Not even one that lost its first bytes.
            assert!((1..8).all(|lost| ask.found(unit, &echo[lost..], 1).is_none()));
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
            bytes in prop::collection::vec(any::<u8>(), 0..30),
            sealing in any::<bool>(),
            unit in 1u8..=247,
            coil in 0u16..256,
            on in any::<bool>(),
            echoes in any::<Option<bool>>(),
        ) {
            let bytes = if sealing { seal(&bytes) } else { bytes };
            for ask in [Ask::Write { coil, on }, Ask::Read { coil }, Ask::Flash { coil, tenths: 9 }] {
                let _ = ask.wait(unit, &bytes, echoes, ANSWER_WITHIN);
                let right = seal(&[unit, 1, 1, u8::from(on)]);
                let has = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
                match ask.answer(unit, &bytes, needed(echoes)).1 {
                    Ok(None) => prop_assert!(has(&ask.frame(unit))),
                    Ok(Some(_)) => prop_assert!(has(&[unit, 1, 1])),
                    Err(fault) => prop_assert!(!fault.to_string().is_empty()),
                }
                // The right answer is found behind anything that has none.
                let whole = joined(&[&bytes, &right]);
                if matches!(ask, Ask::Read { .. }) && ask.found(unit, &bytes, 1).is_none() {
                    let found = ask.answer(unit, &whole, 1).1;
                    let refused = matches!(found, Err(Fault::Exception { .. }));
                    prop_assert!(found.is_ok() || refused, "{found:?}");
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
