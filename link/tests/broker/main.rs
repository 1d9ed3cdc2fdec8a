//! The program against a real Mosquitto with TLS and client certificates, and a door of
//! some lines: brokers that are killed, restarted, halted and cut off in mid-traffic.
//!
//! Needs Debian's packages mosquitto, mosquitto-clients and openssl, which `./test.sh`
//! installs where it may.

// Figures of the runs; --nocapture shows them.
#![allow(clippy::print_stdout)]

mod broker;
mod document;
mod door;
mod program;
mod proxy;

use broker::{Broker, Watcher};
use document::{Piece, System};
use door::FakeDoor;
use facelatch_link::mqtt::Tls;
use facelatch_link::webhook::{self, Outcome, Post, Target};
use facelatch_messages::{
    Bytes, DoorEvent, DoorHello, DoorState, EventKind, FromDoor, FromLink, LinkOrder, Lock, Reach,
};
use program::Program;
use proxy::Proxy;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

/// Waits until the test is true.
fn until(what: &str, mut test: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !test() {
        assert!(Instant::now() < end, "not within {} s: {what}", PATIENCE.as_secs());
        pause(20);
    }
}

/// A folder, a broker in it, a door, and the program's configuration.
struct Stage {
    folder: TempDir,
    broker: Broker,
    door: FakeDoor,
}

impl Stage {
    fn new(hello: DoorHello) -> Self {
        let folder = TempDir::new().expect("a folder");
        let broker = Broker::new(folder.path());
        let door = FakeDoor::new(&folder.path().join("link.sock"), hello);
        Self { folder, broker, door }
    }

    fn configure(&self, port: u16, more: &str) {
        let folder = self.folder.path().display();
        let text = format!(
            "door.socket = \"{folder}/link.sock\"\nservice.state = \"{folder}/state\"\n[mqtt]\n\
             url = \"mqtts://localhost:{port}\"\nca = \"{folder}/ca.pem\"\n\
             certificate = \"{folder}/client.pem\"\nkey = \"{folder}/client.key\"\n\
             keep_alive = \"5s\"\n{more}\n"
        );
        std::fs::write(self.folder.path().join("link.toml"), text).expect("written");
    }

    fn program(&self) -> Program {
        Program::start(self.folder.path())
    }

    fn command(&self, arguments: &[&str]) -> (bool, String) {
        program::command(self.folder.path(), arguments)
    }

    fn retained(&self, topic: &str) -> Option<String> {
        self.broker.retained(topic)
    }
}

fn hello() -> DoorHello {
    DoorHello {
        id: "00000000000000aa".to_owned(),
        door: "Front door".to_owned(),
        orders: vec![LinkOrder::Open, LinkOrder::Normal],
        ..DoorHello::default()
    }
}

fn event(kind: EventKind) -> DoorEvent {
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time");
    DoorEvent {
        kind,
        time_us: wall.as_micros() as i64,
        severity: "info".to_owned(),
        text: "somebody came in".to_owned(),
        ..DoorEvent::default()
    }
}

#[test]
fn every_event_arrives_once_and_in_order() {
    let mut stage = Stage::new(hello());
    let proxy = Proxy::new(stage.broker.port);
    stage.configure(proxy.port, "");
    let mut watcher = Watcher::new(&stage.broker, "facelatch/local/+/event");
    watcher.ready(&stage.broker);
    let mut program = stage.program();
    stage.door.wait_connected();
    until("the door is announced", || {
        stage.retained("facelatch/local/00000000000000aa/availability").as_deref() == Some("online")
    });

    let mut sent = 0;
    let mut traffic = |door: &FakeDoor, count: usize, between: u64| {
        for _ in 0..count {
            sent += 1;
            door.happen(event(EventKind::Admitted));
            pause(between);
        }
        sent
    };
    let all_there = |watcher: &Watcher, broker: &Broker, sent: usize, what: &str| {
        until(what, || watcher.different() == sent);
        // A watcher gets what it may have acknowledged too late once more, which the broker
        // marks. How often the program has published is what the broker received.
        let received = broker.logged(&["Received PUBLISH from facelatch-", "/event'"]);
        let marked = broker.logged(&["Sending PUBLISH to watcher", "(d1, ", "/event'"]);
        let repeated = watcher.numbers().len() - sent;
        println!(
            "{what}: {sent} events, published {received} times, {repeated} repeated by the broker"
        );
        assert!(repeated <= marked + received - sent, "{repeated} repeated, {marked} marked");
        received - sent
    };
    let total = traffic(&stage.door, 200, 1);
    assert_eq!(all_there(&watcher, &stage.broker, total, "no disturbance"), 0);

    traffic(&stage.door, 40, 0);
    stage.broker.signal("TERM");
    traffic(&stage.door, 30, 5);
    stage.broker.start();
    let total = traffic(&stage.door, 50, 5);
    assert_eq!(all_there(&watcher, &stage.broker, total, "the broker restarted"), 0);

    // Longer than the keep alive.
    traffic(&stage.door, 40, 0);
    stage.broker.signal("STOP");
    traffic(&stage.door, 60, 120);
    stage.broker.signal("CONT");
    let total = traffic(&stage.door, 50, 5);
    assert_eq!(all_there(&watcher, &stage.broker, total, "the broker halted for 7 s"), 0);

    traffic(&stage.door, 40, 0);
    proxy.stall(true);
    traffic(&stage.door, 60, 120);
    proxy.stall(false);
    let total = traffic(&stage.door, 50, 5);
    assert_eq!(all_there(&watcher, &stage.broker, total, "a partition of 7 s"), 0);

    for round in 0..5 {
        traffic(&stage.door, 60, 0);
        pause(5 * round);
        program.kill();
        traffic(&stage.door, 20, 0);
        program = stage.program();
        traffic(&stage.door, 20, 5);
    }
    let total = traffic(&stage.door, 20, 5);
    assert_eq!(all_there(&watcher, &stage.broker, total, "the program killed five times"), 0);

    stage.door.hang_up();
    let total = traffic(&stage.door, 50, 5);
    assert_eq!(all_there(&watcher, &stage.broker, total, "the door restarted"), 0);

    // A broker that is killed forgets what it has passed on since it last saved. Only the
    // one event whose acknowledgement was under way may come again. The watcher is back
    // before the program, since that broker keeps nothing for it.
    traffic(&stage.door, 40, 0);
    stage.broker.signal("KILL");
    proxy.refuse(true);
    let total = traffic(&stage.door, 20, 5);
    stage.broker.start();
    watcher.ready(&stage.broker);
    proxy.refuse(false);
    let killed = all_there(&watcher, &stage.broker, total, "the broker killed");
    assert!(killed <= 1, "{killed} events came twice");

    let mut first: Vec<u64> = vec![];
    for number in watcher.numbers() {
        if !first.contains(&number) {
            first.push(number);
        }
    }
    assert_eq!(first, stage.door.numbers(), "in order");
    drop(program);
}

#[test]
fn states_orders_and_discovery() {
    let mut stage = Stage::new(hello());
    let proxy = Proxy::new(stage.broker.port);
    stage.configure(proxy.port, "order_age = \"2s\"");
    let program = stage.program();
    stage.door.wait_connected();
    let base = "facelatch/local/00000000000000aa";
    let of = |name: &str| format!("{base}/{name}");
    let state =
        |lock| DoorState { lock, leaf_open: Some(false), people: 2, ..DoorState::default() };
    stage.door.say(&FromDoor::State(state(Lock::Locked)));
    until("it is locked", || stage.retained(&of("lock")).as_deref() == Some("LOCKED"));
    stage.door.say(&FromDoor::State(state(Lock::Open)));
    until("it is open", || stage.retained(&of("lock")).as_deref() == Some("OPEN"));
    until("its leaf", || stage.retained(&of("leaf")).as_deref() == Some("OFF"));
    let config = "homeassistant/device/facelatch_00000000000000aa/config";
    let discovery = stage.retained(config).expect("announced");
    let discovery: serde_json::Value = serde_json::from_str(&discovery).expect("JSON");
    assert_eq!(discovery["dev"]["name"], "Front door");

    // Orders: allowed and new ones alone.
    let orders = stage.door.orders();
    let next = |orders: &Receiver<LinkOrder>| orders.recv_timeout(PATIENCE).expect("an order");
    let mut answers = Watcher::new(&stage.broker, &of("answer"));
    answers.ready(&stage.broker);
    stage.broker.publish(&of("order"), "open", &[]);
    assert_eq!(next(&orders), LinkOrder::Open);
    until("its answer", || answers.lines().iter().any(|line| line.contains("opened")));
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time");
    let timed = |back: u64| format!("{{\"order\":\"open\",\"time\":{}}}", wall.as_secs() - back);
    stage.broker.publish(&of("order"), &timed(0), &[]);
    assert_eq!(next(&orders), LinkOrder::Open);
    for (payload, options, why) in [
        ("lockdown", &[][..], "does not allow"),
        (&timed(60), &[], "old"),
        ("burn", &[], "no order"),
    ] {
        let before = answers.lines().len();
        stage.broker.publish(&of("order"), payload, options);
        until(why, || answers.lines()[before..].iter().any(|line| line.contains(why)));
    }
    // A retained order is not obeyed, neither when it is published to a program that was
    // away nor by one that connects.
    stage.broker.publish(&of("order"), "normal", &["-r"]);
    assert_eq!(next(&orders), LinkOrder::Normal, "live it is an order like any");
    proxy.refuse(true);
    until("the program is cut off", || stage.command(&["status"]).1.contains("away"));
    stage.broker.publish(&of("order"), "open", &["-q", "1"]);
    proxy.refuse(false);
    until("the program is back", || !stage.command(&["status"]).1.contains("away"));
    stage.broker.publish(&of("order"), "", &["-r"]);
    pause(500);
    assert!(orders.try_recv().is_err(), "obeyed what waited");
    // One that waited on its way: the proxy holds it for longer than an order may be old.
    proxy.stall(true);
    stage.broker.publish(&of("order"), "open", &[]);
    stage.broker.publish(&of("order"), &timed(0), &[]);
    pause(3000);
    proxy.stall(false);
    stage.broker.publish(&of("order"), "normal", &[]);
    // The bare word has no time of its own: it may pass, the one with a time does not.
    let mut obeyed = vec![next(&orders)];
    while obeyed.last() != Some(&LinkOrder::Normal) {
        obeyed.push(next(&orders));
    }
    assert!(obeyed.len() <= 2, "{obeyed:?}");

    // Home Assistant has restarted: the door is announced again.
    let mut announced = Watcher::new(&stage.broker, config);
    announced.ready(&stage.broker);
    let before = announced.lines().len();
    stage.broker.publish("homeassistant/status", "online", &[]);
    until("announced again", || announced.lines().len() > before);

    // Ended, the door is offline at once; killed, by its will.
    program.stop();
    assert_eq!(stage.retained(&of("availability")).as_deref(), Some("offline"));
    let mut program = stage.program();
    until("online", || stage.retained(&of("availability")).as_deref() == Some("online"));
    program.kill();
    until("the will", || stage.retained(&of("availability")).as_deref() == Some("offline"));

    let (done, said) = stage.command(&["forget"]);
    assert!(done, "{said}");
    assert_eq!(stage.broker.all_retained(), Vec::<String>::new());
}

#[test]
fn what_is_wrong_with_certificates_is_said_with_the_cure() {
    let stage = Stage::new(hello());
    let folder = stage.folder.path().display().to_string();
    let port = stage.broker.port;
    stage.configure(port, "");
    let (done, said) = stage.command(&["check"]);
    assert!(done && said.contains("accepts this program"), "{said}");
    let configured = |from: &str, to: &str| {
        stage.configure(port, "");
        let path = stage.folder.path().join("link.toml");
        let text = std::fs::read_to_string(&path).expect("read");
        assert!(text.contains(from), "{text}");
        std::fs::write(&path, text.replace(from, to)).expect("written");
        stage.command(&["check"])
    };
    for (from, to, cure) in [
        (&format!("ca = \"{folder}/ca.pem\"\n"), "", "mqtt.ca"),
        (&"mqtts://localhost".to_owned(), "mqtts://127.0.0.1", "a name in mqtt.url"),
        (
            &format!("certificate = \"{folder}/client.pem\"\nkey = \"{folder}/client.key\"\n"),
            "",
            "asks for mqtt.certificate",
        ),
        (&format!("{folder}/client.key"), &format!("{folder}/server.key"), "does not fit"),
        (&format!("{folder}/client.pem"), &format!("{folder}/none.pem"), "No such file"),
        (&format!("mqtts://localhost:{port}"), "mqtts://localhost:1", "refused"),
        (
            &format!("mqtts://localhost:{port}"),
            &format!("mqtts://localhost:{}", stage.broker.open_port),
            "mqtt://",
        ),
    ] {
        let (done, said) = configured(from, to);
        assert!(!done && said.contains(cure), "{cure}: {said}");
    }
}

#[test]
fn records_of_a_site_pass_unchanged() {
    let mut stage = Stage::new(DoorHello { site: Some("hq".to_owned()), ..hello() });
    stage.configure(stage.broker.port, "");
    stage.broker.publish("facelatch/hq/fleet/revoked", "one", &["-r"]);
    for number in 0..200 {
        let topic = format!("facelatch/hq/fleet/people/staff/{number}");
        stage.broker.publish(&topic, &format!("record {number}"), &["-r"]);
    }
    let _program = stage.program();
    stage.door.wait_connected();
    let heard = stage.door.heard();
    let filters = ["revoked", "people/staff/+"].map(str::to_owned).to_vec();
    stage.door.say(&FromDoor::Subscribe { filters });
    let mut records = vec![];
    let fetched = |records: &mut Vec<(String, Vec<u8>)>| loop {
        match heard.recv_timeout(PATIENCE).expect("a message") {
            FromLink::Record { topic, bytes, .. } => records.push((topic, bytes.0)),
            FromLink::Reach(Reach { fetched: true, .. }) => return,
            _ => {}
        }
    };
    fetched(&mut records);
    assert_eq!(records.len(), 201);
    assert_eq!(records[0], ("revoked".to_owned(), b"one".to_vec()), "revocations first");
    assert!(records.contains(&("people/staff/7".to_owned(), b"record 7".to_vec())));
    // Any bytes, both ways.
    let bytes: Vec<u8> = (0..=255).collect();
    stage.door.say(&FromDoor::Publish {
        id: 9,
        topic: "people/staff/9".to_owned(),
        bytes: Bytes(bytes.clone()),
        retain: true,
        expires_s: None,
    });
    let (mut published, mut echoed) = (false, false);
    while !(published && echoed) {
        match heard.recv_timeout(PATIENCE).expect("a message") {
            FromLink::Published { id: 9 } => published = true,
            FromLink::Record { topic, bytes: got, .. } => {
                assert_eq!((topic.as_str(), &got.0), ("people/staff/9", &bytes));
                echoed = true;
            }
            _ => {}
        }
    }
    // After the broker was away everything is fetched again, and published what was not.
    stage.broker.signal("TERM");
    stage.door.say(&FromDoor::Publish {
        id: 10,
        topic: "revoked".to_owned(),
        bytes: Bytes(b"two".to_vec()),
        retain: true,
        expires_s: None,
    });
    pause(1000);
    stage.broker.start();
    let (mut published, mut two, mut records) = (false, false, 0);
    while !(published && two && records >= 200) {
        match heard.recv_timeout(PATIENCE).expect("a message") {
            FromLink::Published { id: 10 } => published = true,
            FromLink::Record { bytes, .. } if bytes.0 == b"two" => two = true,
            FromLink::Record { .. } => records += 1,
            _ => {}
        }
    }
    stage.door.say(&FromDoor::Fetch { filters: vec!["revoked".to_owned()] });
    let mut records = vec![];
    loop {
        match heard.recv_timeout(PATIENCE).expect("a message") {
            FromLink::Record { topic, bytes, .. } => records.push((topic, bytes.0)),
            FromLink::Reach(Reach { fetched: true, .. })
                if records.contains(&("revoked".to_owned(), b"two".to_vec())) =>
            {
                break;
            }
            _ => {}
        }
    }
}

/// A webhook that answers as it is told, and says what it got.
fn receive(listener: TcpListener, got: Sender<(String, String)>) {
    for socket in listener.incoming() {
        let mut socket = socket.expect("a connection");
        let mut reader = BufReader::new(socket.try_clone().expect("cloned"));
        let (mut line, mut length, mut name) = (String::new(), 0, String::new());
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                break;
            }
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().expect("a number");
            }
            if let Some(value) = line.strip_prefix("Facelatch-Event: ") {
                name = value.trim().to_owned();
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_ok() {
            let body = String::from_utf8(body).expect("text");
            let _ = socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
            if got.send((name, body)).is_err() {
                return;
            }
        }
    }
}

#[test]
fn a_webhook_that_is_away_holds_up_nobody_and_gets_all_in_the_end() {
    let stage = Stage::new(hello());
    // The port is taken, and answers nothing for now.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let secret = stage.folder.path().join("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef\n").expect("written");
    let hook = format!(
        "[webhook]\nurl = \"http://127.0.0.1:{port}/door\"\nsecret_file = \"{}\"\ntimeout = \"1s\"\n",
        secret.display()
    );
    stage.configure(stage.broker.port, &hook);
    let mut watcher = Watcher::new(&stage.broker, "facelatch/local/+/event");
    watcher.ready(&stage.broker);
    let mut program = stage.program();
    stage.door.wait_connected();
    pause(2000);
    for _ in 0..150 {
        stage.door.happen(event(EventKind::Refused));
    }
    until("the broker has all", || watcher.different() == 150);
    program.kill();
    let program = stage.program();
    let (sender, got) = channel();
    std::thread::spawn(move || receive(listener, sender));
    for _ in 0..50 {
        stage.door.happen(event(EventKind::Exit));
    }
    let mut names: Vec<String> = vec![];
    while names.len() < 200 {
        let (name, body) = got.recv_timeout(PATIENCE).expect("an event");
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(name, format!("00000000000000aa-{}", body["number"]));
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let numbers: Vec<String> =
        stage.door.numbers().iter().map(|number| format!("00000000000000aa-{number}")).collect();
    assert_eq!(names, numbers);
    until("the broker has all as well", || watcher.different() == 200);
    assert_eq!(watcher.numbers().len(), 200, "once");
    program.stop();
}

#[test]
fn a_webhook_with_tls_is_believed_only_by_its_certificate() {
    let folder = TempDir::new().expect("a folder");
    broker::certificates(folder.path());
    let serve = || {
        let port = broker::free_port();
        let mut server = broker::tool("openssl")
            .args(["s_server", "-quiet", "-cert", "server.pem", "-key", "server.key", "-accept"])
            .arg(port.to_string())
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl");
        let mut answers = server.stdin.take().expect("a pipe");
        answers.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("written");
        (server, answers, port)
    };
    let target = |host: &str, port: u16, ca: Option<&str>| Target {
        url: format!("https://{host}:{port}/door").parse().expect("a URL"),
        tls: Tls { ca: ca.map(|name| folder.path().join(name)), client: None },
        secret: "0123456789abcdef".to_owned().into(),
        timeout: Duration::from_secs(20),
    };
    let event = Post { event: "7f3a-1".to_owned(), body: b"{}".to_vec() };
    let (mut server, _answers, port) = serve();
    until("the receiver listens", || {
        // Any failure before it listens is one of connecting.
        webhook::post(&target("localhost", port, Some("ca.pem")), &event) == Outcome::Taken
    });
    for (host, ca, cure) in [
        ("localhost", None, "webhook.ca"),
        ("localhost", Some("client.pem"), "webhook.ca"),
        ("127.0.0.1", Some("ca.pem"), "a name in webhook.url"),
        ("localhost", Some("none.pem"), "No such file"),
    ] {
        let Outcome::Failed { reason } = webhook::post(&target(host, port, ca), &event) else {
            panic!("{host} {ca:?} was believed")
        };
        assert!(reason.contains(cure), "{cure}: {reason}");
    }
    server.kill().expect("killed");
    server.wait().expect("ended");
}

#[test]
fn the_document_does_what_it_says() {
    let folder = TempDir::new().expect("a folder");
    let port = broker::free_port();
    let system = System::new(folder.path(), port);
    let mut door = FakeDoor::new(&folder.path().join("link.sock"), hello());
    door.say(&FromDoor::State(DoorState { lock: Lock::Locked, ..DoorState::default() }));
    // What systemd would start, and what was done.
    let (mut broker, mut program, mut section) = (None, None, String::new());
    let mut sections = vec![];
    for piece in document::pieces(include_str!("../../../docs/connect.md")) {
        match piece {
            Piece::Section(name) => {
                section.clone_from(&name);
                sections.push(name);
            }
            // Played by the test of a site.
            _ if section == "A site of doors" => {}
            Piece::File(path, lines) => {
                let socket = format!("door.socket = \"{}/link.sock\"\n", folder.path().display());
                if path.ends_with("link.toml") && section.starts_with("Home Assistant") {
                    system.write(&path, &socket);
                }
                system.write(&path, &lines);
            }
            Piece::Command(command) => {
                if command == "facelatch-link status" {
                    until("the broker is connected", || {
                        let status = program::command(folder.path(), &["status"]);
                        status.1.contains("broker:  connected")
                    });
                }
                let (said, recorded) = system.run(&command);
                if command.ends_with("facelatch-link check") {
                    assert!(said.contains("accepts this program"), "{said}");
                }
                match recorded.trim() {
                    "systemctl restart mosquitto" => {
                        broker = Some(Broker::of_the_document(folder.path(), port));
                    }
                    "systemctl restart facelatch-link" => {
                        program = Some(Program::of_the_document(folder.path()));
                    }
                    "systemctl stop facelatch-link" => {
                        program.take().expect("it runs").stop();
                    }
                    _ => {}
                }
                if command.ends_with("facelatch-link forget") {
                    assert!(said.contains("is removed from 9 topics"), "{said}");
                }
            }
        }
    }
    assert!(broker.is_some() && program.is_none(), "everything was played");
    assert!(sections.contains(&"A webhook".to_owned()), "{sections:?}");
}
