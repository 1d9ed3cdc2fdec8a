//! The socket for the program that links a door to others, as that program uses it, and as a
//! hostile one would.

use facelatch::access::door;
use facelatch::access::event::Event;
use facelatch::audit::entry::Entry;
use facelatch::config::{LinkConfig, LinkNames};
use facelatch::crypto::{Secret, Signer};
use facelatch::service::audit::{AuditSettings, AuditThread};
use facelatch::service::control::{Command, Control, ControlSettings, Order};
use facelatch::service::link::{Link, LinkNow, LinkSettings, LinkState};
use facelatch::service::status::Status;
use facelatch::storage::audit::{AuditPlace, Bounds};
use facelatch_messages::{
    Bytes, DoorEvent, DoorHello, FromDoor, FromLink, LONGEST_LINE, Lines, LinkHello, LinkOrder,
    Lock, MOST_UNTAKEN, PROTOCOL, Reach, write_line,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Timeout for events that must happen: far longer than they take.
const LONG: Duration = Duration::from_secs(60);

/// A door with a link's socket, an audit log and a way for orders, without lock and camera.
struct Door {
    folder: TempDir,
    socket: PathBuf,
    status: Arc<Mutex<Status>>,
    orders: Receiver<Order>,
    control: Control,
    audit: AuditThread,
    link: Link,
    state: LinkState,
}

/// A door whose link may do all, with ten minutes for everything.
fn door() -> Door {
    door_with(LinkConfig { orders: LinkOrder::ALL.to_vec(), ..LinkConfig::default() }, LONG * 10)
}

fn door_with(config: LinkConfig, patience: Duration) -> Door {
    let folder = tempfile::tempdir().expect("a folder");
    let status = Arc::new(Mutex::new(Status::default()));
    let path = folder.path().join("run/control.sock");
    let (control, orders) =
        Control::listen(&path, Arc::clone(&status), ControlSettings::default()).expect("a socket");
    // A log is begun beside a gallery alone.
    std::fs::write(folder.path().join("gallery.redb"), "").expect("written");
    let place = AuditPlace { gallery: folder.path().join("gallery.redb"), register: None };
    let audit = AuditThread::start(AuditSettings {
        place: place.clone(),
        bounds: Bounds::default(),
        signer: None,
        // It waits for room, so that nothing is lost in a burst.
        recorded: true,
        clock_vouched_for: true,
        sealer: None,
        pictures_keep_for: LONG,
    })
    .expect("a thread");
    let socket = folder.path().join("run/link.sock");
    let settings = LinkSettings {
        config,
        door: "front".to_owned(),
        key: Signer::new(&Secret::new([1; 32])).public(),
        pseudonyms: Secret::new([2; 32]),
        orders: control.queue(),
        status: Arc::clone(&status),
        place,
        auditor: audit.auditor(),
        site: None,
        patience,
    };
    let link = Link::listen(&socket, settings).expect("a socket");
    let state = link.state();
    Door { folder, socket, status, orders, control, audit, link, state }
}

impl Door {
    fn append(&self, entries: &[&str]) {
        let auditor = self.audit.auditor();
        for event in entries {
            assert!(auditor.entry(auditor.now(), Entry::new(event).encode()));
        }
    }

    /// Waits until the state of the link is so.
    fn shows(&self, is: impl Fn(&LinkNow) -> bool) -> LinkNow {
        let until = Instant::now() + LONG;
        loop {
            let now = self.state.now();
            if is(&now) {
                return now;
            }
            assert!(Instant::now() < until, "{now:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn refused(&self) -> Vec<(String, String)> {
        let refused = self.control.refused().into_iter();
        refused
            .filter_map(|event| match event {
                Event::OrderRefused { order, by, reason } => {
                    assert!(by.link && by.role == "link", "{by:?}");
                    Some((order, reason))
                }
                _ => None,
            })
            .collect()
    }
}

/// The other end.
struct Peer {
    stream: UnixStream,
    lines: Lines,
}

impl Peer {
    fn at(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("a listener");
        stream.set_read_timeout(Some(LONG)).expect("a timeout");
        stream.set_write_timeout(Some(LONG)).expect("a timeout");
        Self { stream, lines: Lines::default() }
    }

    /// Connects and says hello.
    fn greet(door: &Door, after: Option<u64>) -> (Self, DoorHello) {
        let mut peer = Self::at(&door.socket);
        peer.say(&hello(PROTOCOL, after));
        let Some(FromDoor::Hello(hello)) = peer.next() else { panic!("no hello") };
        (peer, hello)
    }

    fn say(&mut self, message: &FromLink) {
        self.stream.write_all(&write_line(message)).expect("a reader");
    }

    fn take(&mut self, number: u64) {
        self.say(&FromLink::Taken { number });
    }

    /// The next message; `None` at the end of the connection.
    fn next(&mut self) -> Option<FromDoor> {
        let mut bytes = [0; 4096];
        loop {
            if let Some(message) = self.lines.next_message() {
                return Some(message.expect("a message").expect("a known one"));
            }
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.lines.add(&bytes[..count]).expect("a short line"),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn event(&mut self) -> DoorEvent {
        loop {
            match self.next().expect("a message") {
                FromDoor::Event(event) => return event,
                FromDoor::State(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The answer to an order or a record.
    fn answer(&mut self, wanted: u64) -> Result<String, String> {
        loop {
            match self.next().expect("a message") {
                FromDoor::Done { id, did } if id == wanted => return Ok(did),
                FromDoor::Failed { id, reason } if id == wanted => return Err(reason),
                FromDoor::State(_) | FromDoor::Event(_) => {}
                // Of other orders.
                FromDoor::Done { .. } | FromDoor::Failed { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Why the door closes the connection.
    fn refusal(&mut self) -> String {
        loop {
            match self.next() {
                Some(FromDoor::Refused { reason }) => {
                    assert_eq!(self.next(), None, "nothing follows");
                    return reason;
                }
                Some(_) => {}
                None => panic!("closed without a reason"),
            }
        }
    }
}

fn hello(protocol: u32, after: Option<u64>) -> FromLink {
    FromLink::Hello(LinkHello { protocol, version: "1.2".to_owned(), after })
}

fn order(id: u64, order: LinkOrder) -> FromLink {
    FromLink::Order { id, order, by: "mqtt".to_owned() }
}

#[test]
fn a_link_gets_hello_state_and_each_event_once_in_order() {
    let door = door();
    let mode = std::fs::metadata(&door.socket).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let (mut link, hello) = Peer::greet(&door, Some(0));
    assert_eq!((hello.protocol, hello.door.as_str(), hello.id.len()), (PROTOCOL, "front", 16));
    assert_eq!((hello.orders, hello.site), (LinkOrder::ALL.to_vec(), None));
    let Some(FromDoor::State(state)) = link.next() else { panic!("no state") };
    assert_eq!(state.lock, Lock::Unknown);
    door.append(&["granted", "refused", "exit"]);
    let mut events = vec![link.event()];
    while events.last().map(|event| event.event.as_str()) != Some("exit") {
        events.push(link.event());
    }
    let kinds: Vec<&str> = events.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(kinds[..2], ["log begun", "service started"], "{kinds:?}");
    assert_eq!(kinds[kinds.len() - 3..], ["granted", "refused", "exit"], "{kinds:?}");
    assert!(events.is_sorted_by(|one, next| one.number < next.number));
    assert!(events.iter().all(|event| event.time_us > 0));
    // What it has taken does not come again; what it has not, does.
    let at = |kind: &str| events.iter().find(|event| event.event == kind).expect(kind).number;
    link.take(at("granted"));
    door.shows(|now| now.taken == Some(at("granted")) && now.connected);
    drop(link);
    door.shows(|now| !now.connected);
    door.append(&["duress", "unlocked"]);
    let (mut link, _) = Peer::greet(&door, Some(at("granted")));
    let mut after = vec![];
    while after.len() < 3 {
        // Whether the clock is trusted may be found out meanwhile.
        after.extend(Some(link.event().event).filter(|event| event != "clock trust"));
    }
    assert_eq!(after, ["refused", "exit", "unlocked"], "duress is not configured");
    // A changed state is sent at once.
    door.status.lock().expect("a lock").door.state = "locked".to_owned();
    let changed = std::iter::from_fn(|| link.next())
        .find(|message| matches!(message, FromDoor::State(state) if state.lock == Lock::Locked));
    assert!(changed.is_some());
    drop(door.folder);
}

#[test]
fn a_link_that_names_no_number_gets_what_happens_from_now_on_and_of_another_log_all() {
    let door = door();
    door.append(&["granted"]);
    let (mut first, _) = Peer::greet(&door, Some(0));
    while first.event().event != "granted" {}
    let (mut link, _) = Peer::greet(&door, None);
    door.append(&["exit"]);
    assert_eq!(link.event().event, "exit");
    let (mut link, hello) = Peer::greet(&door, Some(1_000_000));
    assert!(hello.newest < 1_000_000);
    assert_eq!(link.event().event, "log begun");
}

#[test]
fn no_more_events_than_are_taken_are_sent_and_none_is_lost() {
    let door = door();
    let many = 5 * MOST_UNTAKEN;
    door.append(&vec!["granted"; many]);
    let (mut link, _) = Peer::greet(&door, Some(0));
    let mut numbers = vec![];
    while numbers.len() < MOST_UNTAKEN {
        numbers.push(link.event().number);
    }
    // Nothing more comes, until something is taken.
    link.stream.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
    assert_eq!(link.stream.read(&mut [0]).expect_err("silence").kind(), ErrorKind::WouldBlock);
    link.stream.set_read_timeout(Some(LONG)).expect("a timeout");
    // Numbers that were never sent count for nothing.
    link.take(u64::MAX);
    let mut granted = 0;
    while granted < many - MOST_UNTAKEN {
        link.take(*numbers.last().expect("a number"));
        let event = link.event();
        granted += usize::from(event.event == "granted");
        numbers.push(event.number);
    }
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
}

#[test]
fn records_that_are_gone_are_said_with_their_number() {
    let door = door();
    door.append(&["granted", "exit"]);
    let (mut link, _) = Peer::greet(&door, Some(0));
    while link.event().event != "exit" {}
    drop(link);
    // Damage in the middle of the log: one record cannot be read.
    let folder = door.folder.path().join("gallery.redb.audit");
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    let segment = entries
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|end| end == "log"));
    let segment = segment.expect("a segment");
    let mut bytes = std::fs::read(&segment).expect("a segment");
    let at = bytes.windows(7).position(|seven| seven == b"granted").expect("the entry");
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).expect("written");
    let (mut link, _) = Peer::greet(&door, Some(0));
    let events: Vec<DoorEvent> =
        std::iter::repeat_with(|| link.event()).take_while(|event| event.event != "exit").collect();
    let missing = events.iter().find(|event| event.event == "events missing").expect("a gap");
    assert!(missing.text.starts_with("1 record up to number"), "{missing:?}");
    assert_eq!(missing.severity, "warn");
    assert!(events.is_sorted_by(|one, next| one.number < next.number));
}

#[test]
fn allowed_orders_take_the_way_of_all_orders_and_others_are_refused_and_logged() {
    let config = LinkConfig { orders: vec![LinkOrder::Open], ..LinkConfig::default() };
    let door = door_with(config, LONG * 10);
    let (mut link, hello) = Peer::greet(&door, None);
    assert_eq!(hello.orders, [LinkOrder::Open]);
    link.say(&order(7, LinkOrder::Open));
    let begun = door.orders.recv_timeout(LONG).expect("an order").begin().expect("in time");
    assert_eq!(begun.command, Command::Door(door::Command::Open));
    assert!(begun.by.link && begun.by.role == "link" && begun.by.uid.is_some());
    begun.answer(Ok("opened by command".to_owned()));
    assert_eq!(link.answer(7), Ok("opened by command".to_owned()));
    for (id, refused) in
        [LinkOrder::Lockdown, LinkOrder::Normal, LinkOrder::AlwaysOpen].into_iter().enumerate()
    {
        link.say(&order(id as u64, refused));
        let reason = link.answer(id as u64).expect_err("not allowed");
        assert!(reason.contains(&format!("does not have \"{refused}\"")), "{reason}");
    }
    assert!(door.orders.try_recv().is_err(), "nothing reaches the door");
    let logged = door.refused();
    assert_eq!(logged[0].0, "lockdown");
    assert_eq!(logged.len(), 3);
    assert_eq!(door.state.now().refused, 3);
    // A flood is cut, and the log does not grow with it.
    for id in 0..400 {
        link.say(&order(id, LinkOrder::Normal));
        link.answer(id).expect_err("not allowed");
    }
    assert!(door.refused().len() < 10);
}

#[test]
fn orders_that_the_door_does_not_begin_in_time_or_whose_link_is_gone_are_withdrawn() {
    let config = LinkConfig { orders: LinkOrder::ALL.to_vec(), ..LinkConfig::default() };
    let door = door_with(config, Duration::from_millis(300));
    let (mut link, _) = Peer::greet(&door, None);
    link.say(&order(1, LinkOrder::Open));
    assert!(link.answer(1).expect_err("too late").contains("nothing was done"));
    let late = door.orders.recv_timeout(LONG).expect("an order");
    assert!(late.begin().is_none(), "it must not open later");
    let door = self::door();
    let (mut link, _) = Peer::greet(&door, None);
    link.say(&order(1, LinkOrder::Open));
    link.say(&order(2, LinkOrder::Lockdown));
    let [open, lockdown] = [(); 2].map(|()| door.orders.recv_timeout(LONG).expect("an order"));
    drop(link);
    door.shows(|now| !now.connected);
    assert!(open.begin().is_none(), "nobody waits for it any more");
    assert!(lockdown.begin().is_some(), "whoever ordered it meant it");
}

#[test]
fn a_flood_of_orders_is_cut_and_lockdown_has_a_place() {
    let door = door();
    let (mut link, _) = Peer::greet(&door, None);
    for id in 0..200 {
        link.say(&order(id, LinkOrder::Open));
    }
    link.say(&order(1000, LinkOrder::Lockdown));
    let mut begun = vec![];
    while begun.last() != Some(&Command::Door(door::Command::Lockdown)) {
        let order = door.orders.recv_timeout(LONG).expect("an order").begin().expect("in time");
        begun.push(order.command.clone());
        // The orders to open are still in progress.
        if begun.len() > 3 {
            order.answer(Ok("mode lockdown".to_owned()));
        } else {
            std::mem::forget(order);
        }
    }
    assert_eq!(begun.len(), 4, "{begun:?}");
    assert_eq!(link.answer(1000), Ok("mode lockdown".to_owned()));
}

#[test]
fn what_is_no_link_is_refused_with_the_reason_and_the_cure() {
    let door = door();
    let long = "x".repeat(500);
    let record =
        |topic: &str| FromLink::Record { id: 1, topic: topic.to_owned(), bytes: Bytes::default() };
    let first = write_line(&hello(PROTOCOL, None));
    let after = |message: &FromLink| [first.clone(), write_line(message)].concat();
    let by = FromLink::Order { id: 1, order: LinkOrder::Open, by: long.clone() };
    let fault = FromLink::Reach(Reach { fault: long.clone(), ..Reach::default() });
    for (bytes, expected) in [
        (write_line(&hello(PROTOCOL + 1, None)), "install facelatch-link of the same version"),
        (write_line(&hello(0, None)), "protocol 0"),
        (write_line(&FromLink::Taken { number: 1 }), "must be a hello"),
        (write_line(&order(1, LinkOrder::Open)), "must be a hello"),
        (b"GET / HTTP/1.1\r\n".to_vec(), "no message"),
        (b"\xff\xfe\x00\n".to_vec(), "no message"),
        (vec![b'{'; LONGEST_LINE + 20_000], "more than"),
        (after(&hello(PROTOCOL, None)), "a hello already"),
        (after(&by), "longer than 400"),
        (after(&fault), "longer than 400"),
        (after(&record(&long)), "longer than 200"),
    ] {
        let mut peer = Peer::at(&door.socket);
        // The door may hang up before all is written.
        let _ = peer.stream.write_all(&bytes);
        let reason = peer.refusal();
        assert!(reason.contains(expected), "{reason}");
    }
    assert!(door.orders.try_recv().is_err());
    let (mut link, _) = Peer::greet(&door, None);
    link.stream.write_all(b"{\"sing\":{\"song\":3}}\n").expect("a reader");
    link.say(&record("policy"));
    assert!(link.answer(1).expect_err("no site").contains("no site"));
    assert_eq!(door.state.now().closed, 11);
}

#[test]
fn a_silent_link_is_closed_and_so_is_one_that_does_not_read() {
    let door = door_with(LinkConfig::default(), Duration::from_millis(200));
    let mut silent = Peer::at(&door.socket);
    assert_eq!(silent.next(), None);
    // One that says half a hello, byte by byte.
    let mut slow = Peer::at(&door.socket);
    while slow.stream.write_all(b" ").is_ok() {
        std::thread::sleep(Duration::from_millis(20));
    }
    // One that takes events without reading them.
    let door = door_with(LinkConfig::default(), Duration::from_millis(500));
    let (mut deaf, _) = Peer::greet(&door, Some(0));
    let until = Instant::now() + LONG;
    let mut number = 0;
    while door.state.now().connected {
        assert!(Instant::now() < until, "the connection lasts");
        door.append(&["granted"; 50]);
        number += 50;
        let taken = write_line(&FromLink::Taken { number });
        if deaf.stream.write_all(&taken).is_err() {
            break;
        }
        // States change as well.
        door.status.lock().expect("a lock").door.mode = "x".repeat(number as usize % 4000);
    }
    door.shows(|now| !now.connected && now.closed == 1);
    // One that reads and says nothing more stays.
    let door = door_with(LinkConfig::default(), Duration::from_millis(500));
    let (mut quiet, _) = Peer::greet(&door, None);
    std::thread::sleep(Duration::from_millis(1200));
    door.append(&["exit"]);
    while quiet.event().event != "exit" {}
}

#[test]
fn a_new_link_takes_the_place_of_the_one_before() {
    let door = door();
    let (mut first, _) = Peer::greet(&door, None);
    let (mut second, _) = Peer::greet(&door, None);
    while first.next().is_some() {}
    second.say(&FromLink::Reach(Reach { fault: "no\nbroker".into(), ..Reach::default() }));
    let now = door.shows(|now| now.reaches == Some(false));
    assert_eq!(now.fault.as_deref(), Some("no\\u{a}broker"));
    assert_eq!((now.version.as_str(), now.closed), ("1.2", 0));
    drop(door.link);
    assert!(!door.socket.exists());
    while second.next().is_some() {}
}

/// Bytes that a hostile link may send: messages, pieces of them, and anything.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![Just(0u64), 1u64..200, Just(u64::MAX)];
    let message = prop_oneof![
        (0u32..3, prop::option::of(number.clone())).prop_map(|(one, after)| hello(one, after)),
        number.clone().prop_map(|number| FromLink::Taken { number }),
        (number.clone(), 0usize..4, "\\PC{0,20}").prop_map(|(id, at, by)| FromLink::Order {
            id,
            order: LinkOrder::ALL[at],
            by
        }),
        (number.clone(), "\\PC{0,220}", prop::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(id, topic, bytes)| FromLink::Record { id, topic, bytes: Bytes(bytes) }),
        number.prop_map(|id| FromLink::Published { id }),
        (any::<bool>(), "\\PC{0,100}").prop_map(|(good, fault)| FromLink::Reach(Reach {
            good,
            fault,
            broker: good,
            fetched: good,
        })),
    ];
    let line = prop_oneof![
        6 => message.clone().prop_map(|message| write_line(&message)),
        1 => (message, any::<prop::sample::Index>(), any::<u8>()).prop_map(|(message, at, byte)| {
            let mut line = write_line(&message);
            let at = at.index(line.len());
            line[at] = byte;
            line
        }),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ];
    prop::collection::vec(line, 0..30)
        .prop_map(|lines| [write_line(&hello(PROTOCOL, Some(0))), lines.concat()].concat())
}

#[test]
fn whatever_a_link_sends_the_door_gets_allowed_orders_alone() {
    let config = LinkConfig {
        orders: vec![LinkOrder::Lockdown],
        names: LinkNames::Pseudonym,
        ..LinkConfig::default()
    };
    let door = door_with(config, LONG * 10);
    door.append(&["granted"; 100]);
    while door.audit.auditor().state().last < 100 {
        std::thread::sleep(Duration::from_millis(10));
    }
    // Whoever connects more often is sent away.
    let config = Config { cases: 30, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&hostile(), |bytes| {
            let mut peer = Peer::at(&door.socket);
            let _ = peer.stream.write_all(&bytes);
            peer.stream.shutdown(std::net::Shutdown::Write).expect("a socket");
            while peer.next().is_some() {}
            while let Ok(order) = door.orders.try_recv() {
                if let Some(begun) = order.begin() {
                    prop_assert_eq!(&begun.command, &Command::Door(door::Command::Lockdown));
                    begun.answer(Ok(String::new()));
                }
            }
            Ok(())
        })
        .expect("no other orders");
    let (mut link, _) = Peer::greet(&door, None);
    door.append(&["exit"]);
    assert_eq!(link.event().event, "exit");
}
