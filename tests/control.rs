//! The service's control socket as clients use it: the program itself, and clients that
//! send nothing, too much or garbage.

use facelatch::access::door;
use facelatch::access::event::is_plain;
use facelatch::service::control::{
    AskError, Command, Control, ControlSettings, MAX_REQUEST, Order, Request, SocketError, ask,
};
use facelatch::service::status::Status;
use facelatch::storage::lockdown::LockdownFile;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const OPEN: Request = Request::Order(Command::Door(door::Command::Open));
/// Timeout for events that must happen: far longer than they take.
const LONG: Duration = Duration::from_secs(60);

/// A control socket in its own folder.
struct Service {
    folder: TempDir,
    path: PathBuf,
    snapshot: Arc<Mutex<Status>>,
    orders: Receiver<Order>,
    control: Control,
}

impl Service {
    fn order(&self) -> Order {
        self.orders.recv_timeout(LONG).expect("an order")
    }
}

/// A control socket that waits ten minutes for every client.
fn service() -> Service {
    service_that_waits(Duration::from_secs(600))
}

fn service_that_waits(patience: Duration) -> Service {
    service_with(ControlSettings { patience, ..ControlSettings::default() })
}

fn service_with(settings: ControlSettings) -> Service {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("run/control.sock");
    let snapshot = Arc::new(Mutex::new(Status::default()));
    let (control, orders) =
        Control::listen(&path, Arc::clone(&snapshot), settings).expect("a socket");
    Service { folder, path, snapshot, orders, control }
}

fn facelatch(arguments: &[&str], socket: &Path) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_facelatch"));
    command.args(arguments).arg("--socket").arg(socket).env_remove("RUST_LOG");
    command.env("XDG_STATE_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/state"));
    command.output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Sends a line and returns the reply.
fn said(mut stream: &UnixStream, line: &[u8]) -> Value {
    stream.write_all(line).expect("somebody listens");
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).expect("a reply");
    serde_json::from_str(&reply).expect("JSON")
}

#[test]
fn another_process_orders_the_door_and_hears_how_that_went() {
    let service = service();
    let path = service.path.clone();
    std::thread::scope(|scope| {
        let program = scope.spawn(|| facelatch(&["door", "open"], &path));
        let order = service.order().begin().expect("in time");
        assert_eq!(order.command, Command::Door(door::Command::Open));
        order.answer(Ok("opened by command".to_owned()));
        let output = program.join().expect("an output");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "opened by command\n");

        let program = scope.spawn(|| facelatch(&["door", "reload"], &path));
        let order = service.order().begin().expect("in time");
        assert_eq!(order.command, Command::Reload);
        order.answer(Err("door.open_for = \"2h\": expected 1 to 60 s".to_owned()));
        let output = program.join().expect("an output");
        assert_eq!(output.status.code(), Some(1));
        let message = text(&output.stderr);
        assert!(message.contains("reload: refused: door.open_for"), "{message}");
    });
}

#[test]
fn the_status_is_that_of_the_running_service_and_waits_for_nobody() {
    let service = service();
    {
        let mut snapshot = service.snapshot.lock().expect("a snapshot");
        snapshot.pid = 4242;
        snapshot.door.state = "locked".to_owned();
        snapshot.door.mode = "lockdown".to_owned();
    }
    let gallery = service.folder.path().join("gallery.redb");
    let gallery = gallery.to_str().expect("a plain path");
    // No order is answered here, and the status does not wait for one.
    let output = facelatch(&["status", "--gallery", gallery], &service.path);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(shown.starts_with("door         locked, mode lockdown"), "{shown}");
    assert!(shown.contains("process 4242") && shown.contains("thresholds"), "{shown}");
    let output = facelatch(&["status", "--json", "--gallery", gallery], &service.path);
    let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(shown["service"]["pid"], 4242);
    assert_eq!(shown["people"], 0);
}

#[test]
fn where_no_service_runs_the_status_says_so_and_the_rest() {
    let folder = tempfile::tempdir().expect("a folder");
    let (socket, gallery) = (folder.path().join("none.sock"), folder.path().join("gallery.redb"));
    let gallery = gallery.to_str().expect("a plain path");
    let output = facelatch(&["status", "--gallery", gallery], &socket);
    let shown = text(&output.stdout);
    assert!(output.status.success());
    assert!(shown.starts_with("service      none") && shown.contains("facelatch run"), "{shown}");
    assert!(shown.contains("thresholds") && shown.contains("worst group"), "{shown}");
    let output = facelatch(&["door", "open"], &socket);
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(message.contains("none.sock") && message.contains("facelatch run"), "{message}");
}

#[test]
fn the_socket_is_for_its_user_and_group_alone() {
    let service = service();
    let mode = |path: &Path| std::fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    assert_eq!(mode(&service.path), 0o660);
    // The umask may remove more permissions.
    assert_eq!(mode(service.path.parent().expect("a folder")) & !0o750, 0);
}

#[test]
fn nonsense_is_answered_and_harms_nobody() {
    let service = service();
    let client = UnixStream::connect(&service.path).expect("a client");
    for line in [&b"\n"[..], b"open\n", b"\xff\x00\n", b"{\"do\":\"opne\"}\n", b"[[[[[[[[\n"] {
        let reply = said(&client, line);
        assert!(reply["error"].is_string(), "{reply}");
    }
    assert_eq!(said(&client, b"{\"do\":\"status\"}\n")["ok"], true);
}

#[test]
fn a_request_may_come_in_pieces_or_several_at_once() {
    let service = service();
    let mut client = UnixStream::connect(&service.path).expect("a client");
    for byte in b"{\"do\":\"sta" {
        client.write_all(&[*byte]).expect("somebody listens");
    }
    client.write_all(b"tus\"}\n{\"do\":\"status\"}\n{\"do\":\"status\"}").expect("a listener");
    client.shutdown(std::net::Shutdown::Write).expect("a socket");
    let mut replies = String::new();
    client.read_to_string(&mut replies).expect("replies");
    assert_eq!(replies.lines().filter(|line| line.contains("\"ok\":true")).count(), 3);
}

#[test]
fn a_client_that_sends_too_much_gets_an_error_and_is_dropped() {
    let service = service();
    let mut client = UnixStream::connect(&service.path).expect("a client");
    // The service may hang up before everything is sent.
    let _ = client.write_all(&[b'['; 2 * MAX_REQUEST]);
    let mut reply = String::new();
    let _ = BufReader::new(&client).read_line(&mut reply);
    assert!(reply.contains("at most 1024 bytes"), "{reply}");
    assert!(ask(&service.path, &Request::Status).expect("a reply").ok);
}

#[test]
fn a_silent_client_is_dropped() {
    let service = service_that_waits(Duration::from_millis(20));
    let mut client = UnixStream::connect(&service.path).expect("a client");
    let mut rest = vec![];
    // The service hangs up after its timeout.
    client.read_to_end(&mut rest).expect("an end");
    assert_eq!(rest, b"");
}

#[test]
fn a_client_too_many_takes_the_place_of_the_one_that_waited_longest() {
    let service = service();
    let mut clients: Vec<UnixStream> = (0..8)
        .map(|_| {
            let client = UnixStream::connect(&service.path).expect("a client");
            assert_eq!(said(&client, b"{\"do\":\"status\"}\n")["ok"], true);
            client
        })
        .collect();
    // The first one asks again, so that the second has waited longest.
    assert_eq!(said(&clients[0], b"{\"do\":\"status\"}\n")["ok"], true);
    assert!(ask(&service.path, &Request::Status).expect("a reply").ok);
    let mut told = String::new();
    clients[1].read_to_string(&mut told).expect("an end");
    assert!(told.contains("connect again"), "{told}");
    assert_eq!(said(&clients[0], b"{\"do\":\"status\"}\n")["ok"], true);
    assert_eq!(said(&clients[7], b"{\"do\":\"status\"}\n")["ok"], true);
}

/// A client that keeps its connection as long as it can, in its own manner.
fn holds(path: &Path, manner: usize, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let Ok(mut client) = UnixStream::connect(path) else { return };
        client.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
        let mut reply = [0; 4096];
        let _ = match manner % 4 {
            // It asks, and then says nothing more.
            0 => client.write_all(b"{\"do\":\"status\"}\n").map(drop),
            // A byte at a time.
            1 => (0..10).try_for_each(|_| {
                std::thread::sleep(Duration::from_millis(30));
                client.write_all(b" ")
            }),
            // It never takes its replies.
            2 => (0..20).try_for_each(|_| client.write_all(b"{\"do\":\"status\"}\n")),
            // It connects again and again.
            _ => continue,
        };
        while !over.load(Ordering::Relaxed) && client.read(&mut reply).is_ok_and(|read| read > 0) {}
    }
}

#[test]
fn lockdown_goes_through_every_time_whatever_slow_clients_do() {
    let service = service_that_waits(Duration::from_secs(60));
    let Service { folder: _folder, path, orders, control: _control, .. } = service;
    let (path, over, carried_out) = (&path, &AtomicBool::new(false), &AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for manner in 0..24 {
            scope.spawn(move || holds(path, manner, over));
        }
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let order = orders.recv_timeout(Duration::from_millis(20));
                if let Some(begun) = order.ok().and_then(Order::begin) {
                    assert_eq!(begun.command, Command::Door(door::Command::Lockdown));
                    carried_out.fetch_add(1, Ordering::Relaxed);
                    begun.answer(Ok("mode lockdown".to_owned()));
                }
            }
        });
        let lockdown = Request::Order(Command::Door(door::Command::Lockdown));
        let replies: Vec<_> = (0..20).map(|_| ask(path, &lockdown)).collect();
        over.store(true, Ordering::Relaxed);
        for reply in replies {
            let reply = reply.expect("a reply");
            assert!(reply.ok, "{reply:?}");
        }
    });
    assert_eq!(carried_out.load(Ordering::Relaxed), 20);
}

#[test]
fn a_flood_of_orders_is_cut_and_lockdown_passes_through_it() {
    let service = service();
    let path = service.path.clone();
    let flood = std::thread::spawn(move || {
        let replies: Vec<bool> = (0..300).map(|_| ask(&path, &OPEN).expect("a reply").ok).collect();
        let lockdown = Request::Order(Command::Door(door::Command::Lockdown));
        (replies, ask(&path, &lockdown).expect("a reply"))
    });
    let (began, mut opened) = (Instant::now(), 0);
    while !flood.is_finished() {
        let order = service.orders.recv_timeout(Duration::from_millis(5));
        if let Some(begun) = order.ok().and_then(Order::begin) {
            opened += usize::from(begun.command == Command::Door(door::Command::Open));
            begun.answer(Ok("done".to_owned()));
        }
    }
    let most = 41 + 4 * (began.elapsed().as_secs() as usize + 1);
    assert!((40..=most).contains(&opened), "{opened} in {:?}", began.elapsed());
    let (replies, lockdown) = flood.join().expect("a thread");
    assert!(replies.iter().filter(|ok| **ok).count() <= most);
    assert!(lockdown.ok, "{lockdown:?}");
}

#[test]
fn a_door_that_starts_says_so_and_keeps_lockdown() {
    let folder = tempfile::tempdir().expect("a folder");
    let lockdown = LockdownFile::beside(&folder.path().join("gallery.redb"));
    let starting = Some(lockdown.clone());
    let service = service_with(ControlSettings { starting, ..ControlSettings::default() });
    *service.snapshot.lock().expect("a snapshot") = Status::starting(false);
    let order = |command| ask(&service.path, &Request::Order(Command::Door(command)));
    let mode = || {
        let reply = ask(&service.path, &Request::Status).expect("a reply");
        let now = reply.status.expect("a status");
        assert!(now.is_starting());
        now.door.mode
    };
    assert_eq!(mode(), "not known yet");
    let refused = order(door::Command::Open).expect("a reply");
    assert!(refused.error.expect("a reason").contains("starting"));
    assert!(order(door::Command::Lockdown).expect("a reply").ok);
    assert!(lockdown.holds());
    assert_eq!(mode(), "lockdown");
    assert!(order(door::Command::Normal).expect("a reply").ok);
    assert!(!lockdown.holds());
    assert!(service.orders.try_recv().is_err(), "nobody is there to take an order");
    service.control.started();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| order(door::Command::Lockdown));
        service.order().begin().expect("in time").answer(Ok("mode lockdown".to_owned()));
        assert!(asked.join().expect("a thread").expect("a reply").ok);
    });
}

#[test]
fn without_a_service_lockdown_is_kept_for_the_next_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let config = path("facelatch.toml");
    let settings = format!(
        "[service]\nstatus_socket = {:?}\n[gallery]\nfile = {:?}\n",
        path("control.sock"),
        path("gallery.redb")
    );
    std::fs::write(&config, settings).expect("written");
    let config = config.to_str().expect("a plain path");
    let lockdown = LockdownFile::beside(&path("gallery.redb"));
    let order = |order: &str, more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_facelatch"));
        command.args(["door", order, "--config", config]).args(more).env_remove("RUST_LOG");
        let output = command.output().expect("the program runs");
        (output.status.code(), text_of(&output))
    };
    for _ in 0..2 {
        let (code, said) = order("lockdown", &[]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("no service runs") && lockdown.holds(), "{said}");
    }
    let (code, said) = order("normal", &[]);
    assert!(code == Some(0) && !lockdown.holds(), "{said}");
    assert_eq!(order("open", &[]).0, Some(1));
    // The socket of another door, while this one has a service.
    let other = path("other.sock");
    let other = ["--socket", other.to_str().expect("a plain path")];
    assert!(order("lockdown", &other).0 == Some(0) && lockdown.holds());
    let listens =
        Control::listen(&path("control.sock"), Arc::default(), ControlSettings::default());
    let _listens = listens.expect("a socket");
    let (code, said) = order("normal", &other);
    assert!(code == Some(1) && lockdown.holds(), "{said}");
    assert!(said.contains("control.sock"), "{said}");
    // Nobody knows whose socket it was.
    let output = facelatch(&["door", "lockdown"], &path("other.sock"));
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
}

/// Standard output and error.
fn text_of(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn a_client_that_disconnects_during_an_order_does_no_harm() {
    let service = service();
    let mut client = UnixStream::connect(&service.path).expect("a client");
    client.write_all(OPEN.line().as_bytes()).expect("a listener");
    drop(client);
    let order = service.order().begin().expect("not withdrawn");
    order.answer(Ok("opened".to_owned()));
    assert!(ask(&service.path, &Request::Status).expect("a reply").ok);
}

#[test]
fn an_order_that_timed_out_is_never_carried_out() {
    // The request must arrive within the timeout, too.
    let service = service_that_waits(Duration::from_secs(2));
    let reply = ask(&service.path, &OPEN).expect("a reply");
    let reason = reply.error.expect("a reason");
    assert!(reason.contains("nothing was done"), "{reason}");
    assert!(service.order().begin().is_none());
}

#[test]
fn a_service_that_ends_answers_nobody_for_ever() {
    let service = service();
    let path = service.path.clone();
    let asking = std::thread::spawn(move || ask(&path, &OPEN));
    let order = service.order().begin().expect("in time");
    drop(order);
    let reply = asking.join().expect("a thread").expect("a reply");
    assert!(reply.error.expect("a reason").contains("did not report"));
    drop(service.orders);
    let reply = ask(&service.path, &OPEN).expect("a reply");
    assert!(reply.error.expect("a reason").contains("stopping"));
    drop(service.control);
    assert!(matches!(ask(&service.path, &OPEN), Err(AskError::Nobody { .. })));
}

#[test]
fn the_socket_of_a_dead_service_is_replaced_and_that_of_a_live_one_is_not() {
    let service = service();
    let again = || Control::listen(&service.path, Arc::default(), ControlSettings::default());
    let message = again().expect_err("it is taken").to_string();
    assert!(message.contains("control.sock") && message.contains("stop it first"), "{message}");
    assert!(
        ask(&service.path, &Request::Status).expect("a reply").ok,
        "the first client is still served"
    );
    drop(service.control);
    // A socket file without a listener, as a killed process leaves it.
    drop(UnixListener::bind(&service.path).expect("a socket"));
    let (control, _orders) = again().expect("a socket");
    assert!(ask(&service.path, &Request::Status).expect("a reply").ok);
    drop(control);
    // Another program answers on the path.
    let other = UnixListener::bind(&service.path).expect("a socket");
    assert!(matches!(again(), Err(SocketError::Taken { .. })));
    drop(other);
    std::fs::remove_file(&service.path).expect("a socket");
    std::fs::write(&service.path, "precious").expect("a file");
    assert!(matches!(again(), Err(SocketError::NoSocket { .. })));
    assert_eq!(std::fs::read(&service.path).expect("a file"), b"precious");
}

/// Keeps the lines of the log.
struct Kept(Mutex<Vec<String>>);

impl log::Log for Kept {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().expect("the lines").push(record.args().to_string());
    }

    fn flush(&self) {}
}

/// The lines that this program has logged so far.
fn logged() -> &'static Kept {
    static KEPT: Kept = Kept(Mutex::new(Vec::new()));
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        log::set_logger(&KEPT).expect("the first logger");
        log::set_max_level(log::LevelFilter::Info);
    });
    &KEPT
}

/// Bytes that a client may send in one go.
fn sent() -> impl Strategy<Value = Vec<u8>> {
    let words = any::<String>;
    let line = |value: Value| format!("{value}\n").into_bytes();
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..3000),
        words().prop_map(move |name| line(json!({ "do": name }))),
        words().prop_map(move |code| line(json!({ "do": "site-join", "code": code }))),
        (words(), words()).prop_map(move |(key, value)| line(json!({"do": "status", key: value}))),
        (0usize..400).prop_map(|deep| [b"[".repeat(deep), b"{\"a\":".repeat(deep / 2)].concat()),
    ]
}

#[test]
fn whatever_is_sent_the_door_gets_requests_alone_and_the_log_plain_lines() {
    let kept = logged();
    let Service { folder: _folder, path, orders, control: _control, .. } = service();
    let before = kept.0.lock().expect("the lines").len();
    let mut runner = TestRunner::new(ProptestConfig { cases: 200, ..ProptestConfig::default() });
    let over = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let taking = scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let order = orders.recv_timeout(Duration::from_millis(10));
                let Some(begun) = order.ok().and_then(Order::begin) else { continue };
                let did = begun.command.to_string();
                begun.answer(Ok(did));
            }
        });
        let done = runner.run(&sent(), |bytes| {
            let mut client = UnixStream::connect(&path).expect("a client");
            // The service may hang up before everything is sent.
            let _ = client.write_all(&bytes);
            let _ = client.shutdown(std::net::Shutdown::Write);
            let mut replies = Vec::new();
            let _ = client.read_to_end(&mut replies);
            for reply in String::from_utf8(replies).expect("text").lines() {
                let reply: Value = serde_json::from_str(reply).expect("JSON");
                prop_assert!(reply["ok"] == true || reply["error"].is_string(), "{}", reply);
            }
            Ok(())
        });
        over.store(true, Ordering::Relaxed);
        taking.join().expect("only requests");
        done.expect("replies");
    });
    assert!(ask(&path, &Request::Status).is_ok());
    let lines = kept.0.lock().expect("the lines").split_off(before);
    assert!(lines.iter().all(|line| line.chars().all(is_plain)), "{lines:#?}");
}
