//! The client against a broker of some bytes. The real one is in `tests/broker.rs`.

use super::*;
use proptest::prelude::*;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};

/// CONNACK: accepted, no properties.
const ACCEPTED: &[u8] = &[0x20, 3, 0, 0, 0];
const PATIENCE: Duration = Duration::from_secs(20);

/// A client of a listener here, and its reports.
fn client(keep_alive: Duration) -> (TcpListener, Client, Receiver<Report>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let short = Duration::from_millis(10);
    let settings = Settings {
        host: "127.0.0.1".to_owned(),
        port: listener.local_addr().expect("an address").port(),
        tls: None,
        client_id: "test".to_owned(),
        username: None,
        password: None,
        keep_alive,
        will: None,
        pauses: Pauses::new(short, short),
    };
    let (reports, received) = sync_channel(4);
    let client = Client::start(settings, reports).expect("a client");
    (listener, client, received)
}

/// Accepts a connection and reads its CONNECT.
fn accept(listener: &TcpListener) -> TcpStream {
    let (mut socket, _) = listener.accept().expect("a connection");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    let connect = packet(&mut socket);
    assert_eq!(connect[0], 0x10, "{connect:?}");
    socket
}

/// The next packet, of fewer than 128 bytes.
fn packet(socket: &mut TcpStream) -> Vec<u8> {
    let mut packet = vec![0; 2];
    socket.read_exact(&mut packet).expect("a packet");
    packet.resize(2 + usize::from(packet[1]), 0);
    socket.read_exact(&mut packet[2..]).expect("its rest");
    packet
}

fn next(reports: &Receiver<Report>) -> Report {
    reports.recv_timeout(PATIENCE).expect("a report")
}

fn lost(reports: &Receiver<Report>) -> String {
    match next(reports) {
        Report::Lost { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_publish_is_reported_when_it_is_acknowledged() {
    let (listener, client, reports) = client(PATIENCE);
    let mut broker = accept(&listener);
    broker.write_all(ACCEPTED).expect("written");
    assert_eq!(next(&reports), Report::Connected { session: 1 });
    let message = |topic: &str, qos| Publish { topic: topic.to_owned(), qos, ..Publish::default() };
    client.publish(1, 10, message("a", Qos::AtLeastOnce)).expect("room");
    assert_eq!(packet(&mut broker), [0x32, 6, 0, 1, b'a', 0, 1, 0]);
    // A topic that cannot be one is refused here.
    client.publish(1, 11, message("a/#", Qos::AtLeastOnce)).expect("room");
    assert!(matches!(next(&reports), Report::Refused { ticket: 11, .. }));
    client.publish(1, 12, message("b", Qos::AtMostOnce)).expect("room");
    assert_eq!(next(&reports), Report::Published { ticket: 12 });
    assert_eq!(packet(&mut broker), [0x30, 4, 0, 1, b'b', 0]);
    broker.write_all(&[0x40, 2, 0, 1]).expect("written");
    assert_eq!(next(&reports), Report::Published { ticket: 10 });
    // What the broker does not allow is refused with its reason.
    client.publish(1, 13, message("c", Qos::AtLeastOnce)).expect("room");
    let id = packet(&mut broker)[6];
    broker.write_all(&[0x40, 3, 0, id, 0x87]).expect("written");
    let Report::Refused { ticket: 13, reason } = next(&reports) else { panic!("not refused") };
    assert!(reason.contains("ACL"), "{reason}");
    // Nothing is sent for another connection than that of now.
    client.publish(7, 14, message("d", Qos::AtMostOnce)).expect("room");
    assert!(client.close(PATIENCE));
    assert_eq!(packet(&mut broker)[0], 0xe0, "the goodbye");
}

#[test]
fn what_was_not_acknowledged_is_forgotten_with_the_connection() {
    let (listener, client, reports) = client(PATIENCE);
    let mut broker = accept(&listener);
    broker.write_all(ACCEPTED).expect("written");
    assert_eq!(next(&reports), Report::Connected { session: 1 });
    let mut outbox = Outbox::new(1000);
    for ticket in 1..=3 {
        let publish =
            Publish { topic: "a".to_owned(), qos: Qos::AtLeastOnce, ..Publish::default() };
        outbox.add(ticket, publish).expect("room");
    }
    outbox.send(|ticket, publish| client.publish(1, ticket, publish.clone()));
    packet(&mut broker);
    broker.write_all(&[0x40, 2, 0, 1]).expect("written");
    assert_eq!(next(&reports), Report::Published { ticket: 1 });
    assert!(outbox.done(1) && !outbox.done(1));
    drop(broker);
    assert!(lost(&reports).contains("closed") || listener.accept().is_ok());
    let mut broker = accept(&listener);
    broker.write_all(ACCEPTED).expect("written");
    let session = loop {
        match next(&reports) {
            Report::Connected { session } => break session,
            Report::Lost { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    outbox.begin_again();
    outbox.send(|ticket, publish| client.publish(session, ticket, publish.clone()));
    let ids = [packet(&mut broker)[6], packet(&mut broker)[6]];
    for id in ids {
        broker.write_all(&[0x40, 2, 0, id]).expect("written");
    }
    for ticket in 2..=3 {
        assert_eq!(next(&reports), Report::Published { ticket });
        assert!(outbox.done(ticket));
    }
    assert!(outbox.is_empty());
}

#[test]
fn a_broker_that_falls_silent_is_given_up() {
    let (listener, _client, reports) = client(Duration::from_secs(1));
    let mut broker = accept(&listener);
    broker.write_all(ACCEPTED).expect("written");
    assert_eq!(next(&reports), Report::Connected { session: 1 });
    // It is asked, and answers once.
    assert_eq!(packet(&mut broker), [0xc0, 0]);
    broker.write_all(&[0xd0, 0]).expect("written");
    assert_eq!(packet(&mut broker), [0xc0, 0]);
    assert!(lost(&reports).contains("silent"));
    accept(&listener);
}

#[test]
fn what_a_broker_says_is_bounded_and_made_plain() {
    let (listener, _client, reports) = client(PATIENCE);
    // Refused, with a reason that tries to forge a line of a log.
    let reason = b"no\n[INFO] all is well";
    let size = reason.len() as u8;
    let mut refusal = vec![0x20, size + 6, 0, 0x87, size + 3, 31, 0, size];
    refusal.extend_from_slice(reason);
    accept(&listener).write_all(&refusal).expect("written");
    let said = lost(&reports);
    assert!(said.contains("mqtt.username") && said.contains("no\\u{a}[INFO]"), "{said}");
    // A packet of 256 MB.
    let mut broker = accept(&listener);
    broker.write_all(&[ACCEPTED, &[0x30, 0xff, 0xff, 0xff, 0x7f]].concat()).expect("written");
    assert!(matches!(next(&reports), Report::Connected { .. }));
    assert!(lost(&reports).contains("too large"));
    // Another protocol.
    let page = [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[b' '; 100]].concat();
    accept(&listener).write_all(&page).expect("written");
    assert!(lost(&reports).contains("port"), "not MQTT");
    // No QoS 1, nothing retained.
    for property in [[36, 0], [37, 0]] {
        let ack = [&[0x20, 5, 0, 0, 2], &property[..]].concat();
        accept(&listener).write_all(&ack).expect("written");
        assert!(lost(&reports).contains("use one that does"));
    }
}

#[test]
fn a_slow_owner_holds_up_the_broker_and_not_the_memory() {
    let (listener, client, reports) = client(Duration::from_secs(1));
    let mut broker = accept(&listener);
    broker.write_all(ACCEPTED).expect("written");
    assert_eq!(next(&reports), Report::Connected { session: 1 });
    let message = [&[0x30, 0xec, 7, 0, 1, b'a', 0][..], &[b'x'; 1000]].concat();
    broker.set_nonblocking(true).expect("set");
    let mut sent = 0;
    let full = std::time::Instant::now() + Duration::from_millis(1500);
    while std::time::Instant::now() < full {
        match broker.write(&message[sent % message.len()..]) {
            Ok(written) => sent += written,
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    // The sockets' own memory is some megabytes.
    assert!(sent < 64 << 20, "{sent} bytes were taken");
    // Longer than the keep alive, and yet the connection stands.
    for _ in 0..sent / message.len() {
        assert!(matches!(next(&reports), Report::Message(_)));
    }
    drop(client);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whatever_a_broker_sends_the_client_connects_again(
        accepted in any::<bool>(),
        first in prop::sample::select(vec![0x20u8, 0x30, 0x32, 0x34, 0x40, 0x50, 0x62, 0x90, 0xb0, 0xd0, 0xe0, 0xf0]),
        sent in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let (listener, _client, reports) = client(PATIENCE);
        let mut broker = accept(&listener);
        let mut bytes = if accepted { ACCEPTED.to_vec() } else { vec![] };
        bytes.extend([first, sent.len() as u8]);
        bytes.extend(&sent);
        let _ = broker.write_all(&bytes);
        drop(broker);
        loop {
            if let Report::Lost { reason, .. } = next(&reports) {
                prop_assert!(!reason.contains("processed"), "a panic");
                break;
            }
        }
        accept(&listener);
    }
}
