//! Relay boards on pseudo-terminals: which answers are accepted, and what happens when a
//! board is unplugged.

use facelatch::hardware::relay::link::RelayEvent;
use facelatch::hardware::relay::{Relay, RelayLink};
use rmodbus::ModbusProto;
use rmodbus::server::ModbusFrame;
use rmodbus::server::context::ModbusContext;
use rmodbus::server::storage::ModbusStorageSmall;
use serialport::{SerialPort, TTYPort};
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const UNIT: u8 = 7;
const MODBUS: &str = "protocol=modbus&channel=2&unit=7";
/// Timeout for events that must happen: far longer than they take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a Modbus board behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    Well,
    Silent,
    /// Sends only this many bytes of each answer.
    Cut(usize),
    WrongChecksum,
    Garbage,
    /// Answers with this exception code.
    Exception(u8),
    /// Answers with the address of another unit.
    Unit(u8),
    /// Confirms but does not switch.
    Liar,
    /// No board is connected, and the adapter receives its own request.
    Echo,
    /// The adapter receives its own request, and both directions have stray bytes before
    /// them; a board answers.
    EchoAndStray,
    /// Sends stray bytes before each answer.
    Stray,
    /// No board is connected, and the adapter makes stray bytes.
    StrayOnly,
    /// Corrupts its first answer.
    NoisyOnce,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Lcus1,
    Modbus(Manner),
}

/// State of a board, and the commands it received.
#[derive(Clone, Debug)]
struct Seen {
    on: bool,
    kind: Kind,
    commands: Vec<Vec<u8>>,
}

/// A USB socket for boards: a symbolic link that stays, to a pseudo-terminal that changes.
struct Socket {
    folder: TempDir,
    plugged: Option<Plugged>,
}

struct Plugged {
    seen: Arc<Mutex<Seen>>,
    out: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Socket {
    fn empty() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), plugged: None }
    }

    fn with(kind: Kind) -> Self {
        let mut socket = Self::empty();
        socket.plug(kind);
        socket
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("relay")
    }

    fn relay(&self, options: &str) -> Relay {
        self.relay_within(PATIENCE, options)
    }

    /// A relay that waits this long for the board's answer.
    fn relay_within(&self, patience: Duration, options: &str) -> Relay {
        let uri = format!("serial:{}?{options}", self.path().display());
        Relay::open_patiently(&uri, patience).expect("a relay")
    }

    fn modbus(&self) -> Relay {
        self.relay(MODBUS)
    }

    fn plug(&mut self, kind: Kind) {
        let (board, port) = TTYPort::pair().expect("a pair of terminals");
        symlink(port.name().expect("a path"), self.path()).expect("a link");
        let seen = Arc::new(Mutex::new(Seen { on: false, kind, commands: vec![] }));
        let out = Arc::new(AtomicBool::new(false));
        let (told, stop) = (seen.clone(), out.clone());
        let thread = std::thread::spawn(move || serve(board, port, &told, &stop));
        self.plugged = Some(Plugged { seen, out, thread });
    }

    fn unplug(&mut self) {
        std::fs::remove_file(self.path()).expect("a link");
        let plugged = self.plugged.take().expect("a board");
        plugged.out.store(true, Ordering::Relaxed);
        plugged.thread.join().expect("a board");
    }

    fn seen(&self) -> Seen {
        self.plugged.as_ref().expect("a board").seen.lock().expect("a board").clone()
    }

    /// Waits until the board reaches this state: an LCUS-1 does not confirm commands.
    #[track_caller]
    fn until(&self, expected: impl Fn(&Seen) -> bool) {
        let started = Instant::now();
        while !expected(&self.seen()) {
            assert!(started.elapsed() < PATIENCE, "{:?}", self.seen());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn change(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.plugged.as_ref().expect("a board").seen.lock().expect("a board"));
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.plugged.is_some() {
            self.unplug();
        }
    }
}

/// Runs a board until it is unplugged, which closes its terminal. It also holds the other
/// end open, so that commands can be read after their sender hung up.
fn serve(mut port: TTYPort, _other: TTYPort, seen: &Mutex<Seen>, stop: &AtomicBool) {
    port.set_timeout(Duration::from_millis(5)).expect("a timeout");
    let mut got = vec![];
    while !stop.load(Ordering::Relaxed) {
        let mut bytes = [0; 64];
        // An error means that nothing was received.
        let read = port.read(&mut bytes).unwrap_or(0);
        got.extend(&bytes[..read]);
        let mut seen = seen.lock().expect("a board");
        let length = if seen.kind == Kind::Lcus1 { 4 } else { 8 };
        while got.len() >= length {
            let command: Vec<u8> = got.drain(..length).collect();
            let answer = match seen.kind {
                Kind::Lcus1 => {
                    seen.on = command[2] == 1;
                    vec![]
                }
                Kind::Modbus(manner) => answer(manner, &command, &mut seen),
            };
            seen.commands.push(command);
            // The sender may be gone.
            let _ = port.write_all(&answer);
        }
    }
}

/// The answer of a Modbus board with two channels.
fn answer(manner: Manner, command: &[u8], seen: &mut Seen) -> Vec<u8> {
    let mut coils = ModbusStorageSmall::new();
    coils.set_coil(1, seen.on).expect("a coil");
    let before = seen.on;
    let flash = command[1] == 5 && command[2] == 2;
    if flash {
        seen.on = true;
        return command.to_vec();
    }
    let mut answer = Vec::new();
    let mut frame = ModbusFrame::new(UNIT, command, ModbusProto::Rtu, &mut answer);
    frame.parse().expect("a frame with a right checksum, for this unit");
    if frame.readonly {
        frame.process_read(&coils).expect("a coil");
    } else {
        frame.process_write(&mut coils).expect("a coil");
    }
    frame.finalize_response().expect("an answer");
    seen.on = coils.get_coil(1).expect("a coil");
    match manner {
        Manner::Well => {}
        Manner::Silent => answer.clear(),
        Manner::Cut(left) => answer.truncate(left),
        Manner::WrongChecksum => *answer.last_mut().expect("a checksum") ^= 1,
        Manner::Garbage => answer.fill(0xA5),
        Manner::Exception(code) => answer = sealed(&[UNIT, command[1] | 0x80, code]),
        Manner::Unit(unit) => {
            let end = answer.len() - 2;
            answer[0] = unit;
            answer = sealed(&answer[..end]);
        }
        Manner::Liar => seen.on = before,
        Manner::Echo => {
            seen.on = before;
            answer = command.to_vec();
        }
        Manner::EchoAndStray => {
            answer = [&[0x00], command, &[0xFF, 0x00], &answer].concat();
        }
        Manner::Stray => answer = [&[0xFF, 0x00][..], &answer].concat(),
        Manner::StrayOnly => {
            seen.on = before;
            answer = vec![0x00];
        }
        Manner::NoisyOnce => {
            answer[1] ^= 0x10;
            seen.kind = Kind::Modbus(Manner::Well);
        }
    }
    answer
}

fn sealed(bytes: &[u8]) -> Vec<u8> {
    let crc = bytes.iter().fold(0xFFFF_u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| (crc >> 1) ^ (0xA001 * (crc & 1)))
    });
    [bytes, &crc.to_le_bytes()].concat()
}

fn link(relay: Relay, locked: bool) -> (RelayLink, Receiver<RelayEvent>) {
    let (events, told) = sync_channel(16);
    (RelayLink::start(relay, locked, None, events).expect("a link"), told)
}

#[track_caller]
fn next(told: &Receiver<RelayEvent>) -> RelayEvent {
    told.recv_timeout(PATIENCE).expect("something told")
}

fn taken(order: u32) -> RelayEvent {
    RelayEvent::Answer { order, taken: true, error: None }
}

/// Waits for the answer to an order that failed, and returns its error. Skips changes of
/// the reason for which the relay is away.
#[track_caller]
fn refused(told: &Receiver<RelayEvent>, number: u32) -> String {
    loop {
        match next(told) {
            RelayEvent::Answer { order, taken: false, error: Some(error) } if order == number => {
                return error;
            }
            RelayEvent::Away { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_modbus_board_follows_orders_and_is_read_back() {
    let socket = Socket::with(Kind::Modbus(Manner::Well));
    let mut relay = socket.modbus();
    for on in [true, false, true] {
        relay.switch(on).expect("switched");
        assert_eq!(socket.seen().on, on);
        assert!(relay.check(on).expect("there") && !relay.check(!on).expect("there"));
    }
    let functions: Vec<u8> = socket.seen().commands.iter().map(|command| command[1]).collect();
    assert_eq!(functions, [5, 1, 1, 1].repeat(3), "written, read back, and looked at twice");
}

#[test]
fn no_answer_but_the_right_one_is_believed() {
    for (manner, expected) in [
        (Manner::Silent, "unit 7 does not answer; is it on"),
        (Manner::Cut(3), "answered 3 bytes instead of 8"),
        (Manner::WrongChecksum, "answered with a wrong checksum"),
        (Manner::Garbage, "answered with a wrong checksum"),
        (Manner::Exception(2), "exception 2, illegal address; it has fewer channels"),
        (Manner::Unit(9), "did not answer, but unit 9 did; set unit=9"),
        (Manner::Liar, "confirmed, but the coil is still off"),
        (Manner::Echo, "does not answer; the adapter receives only its own request (echo)"),
        (Manner::StrayOnly, "does not answer; only stray bytes (00 or FF) came"),
    ] {
        let socket = Socket::with(Kind::Modbus(manner));
        // A right answer is waited for twice, for this long each time.
        let answers = matches!(manner, Manner::Exception(_) | Manner::Liar);
        let patience = if answers { PATIENCE } else { Duration::from_secs(1) };
        let mut relay = socket.relay_within(patience, MODBUS);
        let message = relay.switch(true).expect_err("not so").to_string();
        assert!(message.contains(expected), "{manner:?}: {message}");
        assert!(message.starts_with(&socket.path().display().to_string()), "{message}");
        // The next answer is accepted again.
        socket.change(|seen| seen.kind = Kind::Modbus(Manner::Well));
        relay.switch(true).expect("switched");
        assert!(socket.seen().on);
    }
}

#[test]
fn a_board_behind_an_adapter_that_echoes_or_adds_bytes_is_driven() {
    for manner in [Manner::EchoAndStray, Manner::Stray] {
        let socket = Socket::with(Kind::Modbus(manner));
        let mut relay = socket.modbus();
        for on in [true, false, true] {
            relay.switch(on).expect("switched");
            assert_eq!(socket.seen().on, on);
            assert!(relay.check(on).expect("there") && !relay.check(!on).expect("there"));
        }
    }
}

#[test]
fn an_echo_alone_never_counts_as_switched() {
    let socket = Socket::with(Kind::Modbus(Manner::EchoAndStray));
    let mut relay = socket.relay_within(Duration::from_secs(2), MODBUS);
    relay.switch(true).expect("switched");
    for fresh in [false, true] {
        if fresh {
            relay.disconnect();
        }
        // The board loses its power.
        socket.change(|seen| {
            *seen = Seen { on: false, kind: Kind::Modbus(Manner::Echo), ..seen.clone() }
        });
        let message = relay.switch(true).expect_err("no board").to_string();
        assert!(message.contains("only its own request (echo)"), "{message}");
        let message = relay.check(false).expect_err("no board").to_string();
        assert!(message.contains("only its own request (echo)"), "{message}");
        socket.change(|seen| seen.kind = Kind::Modbus(Manner::EchoAndStray));
        relay.switch(true).expect("switched");
        assert!(socket.seen().on);
    }
}

#[test]
fn noise_on_the_bus_costs_a_second_try_and_nothing_else() {
    let socket = Socket::with(Kind::Modbus(Manner::NoisyOnce));
    let mut relay = socket.relay_within(Duration::from_secs(2), MODBUS);
    relay.switch(true).expect("switched");
    assert_eq!(socket.seen().commands.len(), 3);
}

#[test]
fn a_flash_switches_off_unless_it_is_renewed() {
    let socket = Socket::with(Kind::Modbus(Manner::Well));
    let mut relay = socket.relay(&format!("{MODBUS}&flash=2s"));
    relay.switch(true).expect("switched");
    assert!(relay.check(true).expect("there"));
    relay.switch(false).expect("switched");
    assert!(relay.check(false).expect("there"));
    let commands = socket.seen().commands;
    let flash = &[UNIT, 5, 2, 1, 0, 20][..];
    let read = &[UNIT, 1, 0, 1, 0, 1][..];
    let off = &[UNIT, 5, 0, 1, 0, 0][..];
    let got: Vec<&[u8]> = commands.iter().map(|command| &command[..6]).collect();
    assert_eq!(got, [flash, read, read, flash, off, read, read]);
}

#[test]
fn a_relay_that_is_unplugged_refuses_and_comes_back_locked() {
    for (kind, options, locked) in [
        (Kind::Lcus1, "channel=1", false),
        (Kind::Lcus1, "channel=1", true),
        (Kind::Modbus(Manner::Well), MODBUS, false),
    ] {
        let mut socket = Socket::with(kind);
        let (link, told) = link(socket.relay(options), locked);
        assert_eq!(link.order(1, !locked, None), Ok(()));
        assert_eq!(next(&told), taken(1));
        socket.until(|seen| seen.on != locked && seen.commands.len() >= 2);
        socket.unplug();
        // The loss is noticed although no order is pending.
        assert!(matches!(next(&told), RelayEvent::Away { .. }));
        assert_eq!(link.order(2, !locked, None), Ok(()));
        assert!(refused(&told, 2).contains("the relay has been unreachable for"));
        assert_eq!(link.order(3, locked, None), Ok(()));
        refused(&told, 3);
        socket.plug(kind);
        loop {
            match next(&told) {
                RelayEvent::Back { .. } => break,
                // The reason changes from unplugged to a missing path.
                RelayEvent::Away { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(link.order(4, !locked, None), Ok(()));
        assert_eq!(next(&told), taken(4));
        socket.until(|seen| seen.on != locked && seen.commands.len() >= 2);
        if kind == Kind::Lcus1 {
            let states: Vec<u8> = socket.seen().commands.iter().map(|told| told[2]).collect();
            assert_eq!(states, [u8::from(locked), u8::from(!locked)], "locked first");
        }
        drop(link);
        // It is de-energised at the end.
        socket.until(|seen| !seen.on);
    }
}

#[test]
fn a_relay_that_is_plugged_in_late_is_found() {
    let mut socket = Socket::empty();
    let (link, told) = link(socket.modbus(), false);
    match next(&told) {
        RelayEvent::Away { error } => assert!(error.contains("is it plugged in"), "{error}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(link.order(1, false, None), Ok(()));
    refused(&told, 1);
    socket.plug(Kind::Modbus(Manner::Well));
    assert!(matches!(next(&told), RelayEvent::Back { .. }));
    assert_eq!(link.order(2, true, None), Ok(()));
    assert_eq!(next(&told), taken(2));
    assert!(socket.seen().on);
}

#[test]
fn a_board_that_confirms_without_switching_counts_as_unreachable() {
    let socket = Socket::with(Kind::Modbus(Manner::Well));
    let (link, told) = link(socket.modbus(), false);
    assert_eq!(link.order(1, false, None), Ok(()));
    assert_eq!(next(&told), taken(1));
    socket.change(|seen| seen.kind = Kind::Modbus(Manner::Liar));
    assert_eq!(link.order(2, true, None), Ok(()));
    assert!(refused(&told, 2).contains("confirmed, but the coil is still off"));
    assert!(matches!(next(&told), RelayEvent::Away { .. }));
    socket.change(|seen| seen.kind = Kind::Modbus(Manner::Well));
    assert!(matches!(next(&told), RelayEvent::Back { .. }));
    assert!(!socket.seen().on);
}

#[test]
fn a_coil_that_somebody_else_switched_is_seen_and_switched_back() {
    let socket = Socket::with(Kind::Modbus(Manner::Well));
    let (link, told) = link(socket.modbus(), false);
    assert_eq!(link.order(1, true, None), Ok(()));
    assert_eq!(next(&told), taken(1));
    socket.change(|seen| seen.on = false);
    assert_eq!(next(&told), RelayEvent::Drifted { on: true });
    assert_eq!(link.order(2, true, None), Ok(()));
    assert_eq!(next(&told), taken(2));
    assert!(socket.seen().on);
}
