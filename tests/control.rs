//! The service's control socket as clients use it: the program itself, and clients that
//! send nothing, too much or garbage.

use facelatch::access::door;
use facelatch::service::control::{
    AskError, Command, Control, ControlError, MAX_REQUEST, Order, Request, ask,
};
use facelatch::service::status::Status;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Output;
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
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("run/control.sock");
    let snapshot = Arc::new(Mutex::new(Status::default()));
    let (control, orders) =
        Control::listen_patiently(&path, Arc::clone(&snapshot), patience).expect("a socket");
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
fn one_client_too_many_gets_an_error_and_is_served_later() {
    let service = service();
    let clients: Vec<UnixStream> = (0..4)
        .map(|_| {
            let client = UnixStream::connect(&service.path).expect("a client");
            assert_eq!(said(&client, b"{\"do\":\"status\"}\n")["ok"], true);
            client
        })
        .collect();
    let reply = ask(&service.path, &Request::Status).expect("a reply");
    assert!(reply.error.expect("a reason").contains("try again"));
    drop(clients);
    let began = Instant::now();
    while !ask(&service.path, &Request::Status).expect("a reply").ok {
        assert!(began.elapsed() < LONG, "no place, though nobody is served");
        std::thread::yield_now();
    }
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
    let again = || Control::listen(&service.path, Arc::default());
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
    assert!(matches!(again(), Err(ControlError::Taken { .. })));
    drop(other);
    std::fs::remove_file(&service.path).expect("a socket");
    std::fs::write(&service.path, "precious").expect("a file");
    assert!(matches!(again(), Err(ControlError::NoSocket { .. })));
    assert_eq!(std::fs::read(&service.path).expect("a file"), b"precious");
}
