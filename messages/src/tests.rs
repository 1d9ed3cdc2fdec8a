use super::*;
use proptest::prelude::*;

fn one<T: serde::de::DeserializeOwned>(line: &[u8]) -> Option<Result<Option<T>, LineError>> {
    let mut lines = Lines::default();
    lines.add(line).expect("short enough");
    lines.next_message()
}

#[test]
fn messages_are_read_as_they_are_written() {
    let order = FromLink::Order { id: 7, order: LinkOrder::AlwaysOpen, by: "mqtt".to_owned() };
    let line = write_line(&order);
    assert_eq!(line, b"{\"order\":{\"id\":7,\"order\":\"always-open\",\"by\":\"mqtt\"}}\n");
    assert_eq!(one(&line), Some(Ok(Some(order))));
    let bytes = Bytes(vec![0xff; LARGEST_RECORD]);
    let topic = "t".repeat(LONGEST_TOPIC);
    let record = FromLink::Record { id: u64::MAX, topic, bytes };
    let line = write_line(&record);
    assert!(line.len() <= LONGEST_LINE);
    assert_eq!(one(&line), Some(Ok(Some(record))));
}

#[test]
fn what_a_later_version_adds_is_ignored() {
    let line = b"{\"hello\":{\"protocol\":1,\"colour\":\"red\"}}\n";
    let hello = LinkHello { protocol: 1, ..LinkHello::default() };
    assert_eq!(one(line), Some(Ok(Some(FromLink::Hello(hello)))));
    assert_eq!(one::<FromLink>(b"{\"sing\":{\"song\":3}}\n"), Some(Ok(None)));
    let event = b"{\"event\":{\"number\":3,\"kind\":\"levitated\"}}\n";
    let Some(Ok(Some(FromDoor::Event(event)))) = one(event) else { panic!("no event") };
    assert_eq!((event.number, event.kind), (3, EventKind::Other));
}

#[test]
fn what_is_no_message_is_an_error() {
    for line in [
        "",
        "{}",
        "[]",
        "{\"taken\":{}}",
        "{\"taken\":{\"number\":-1}}",
        "\u{0}",
        "{\"record\":{\"id\":1,\"topic\":\"x\",\"bytes\":\"!\"}}",
        "{\"order\":{\"id\":1,\"order\":\"burn\",\"by\":\"\"}}",
        "{\"a\":1,\"b\":2}",
    ] {
        let line = format!("{line}\n");
        let read = one::<FromLink>(line.as_bytes());
        assert!(matches!(read, Some(Err(LineError::Form(_)))), "{line}: {read:?}");
    }
}

#[test]
fn an_endless_line_ends_the_stream() {
    let mut lines = Lines::default();
    let mut added = 0;
    let error = loop {
        added += 4096;
        match lines.add(&[b'x'; 4096]) {
            Ok(()) => assert_eq!(lines.next_message::<FromLink>(), None),
            Err(error) => break error,
        }
    };
    assert_eq!(error, LineError::TooLong);
    assert!(added <= LONGEST_LINE + 4096);
}

proptest! {
    #[test]
    fn however_the_stream_is_cut_the_messages_are_the_same(
        numbers in prop::collection::vec(any::<u64>(), 0..20),
        cuts in prop::collection::vec(1usize..50, 1..200),
    ) {
        let sent: Vec<FromLink> = numbers.iter().map(|&number| FromLink::Taken { number }).collect();
        let stream: Vec<u8> = sent.iter().flat_map(write_line).collect();
        let (mut lines, mut read, mut rest) = (Lines::default(), vec![], &stream[..]);
        for cut in cuts.into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (part, more) = rest.split_at(cut.min(rest.len()));
            lines.add(part).expect("short enough");
            while let Some(message) = lines.next_message::<FromLink>() {
                read.push(message.expect("a message").expect("a known kind"));
            }
            rest = more;
        }
        prop_assert_eq!(read, sent);
    }

    #[test]
    fn no_line_panics(line in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut lines = Lines::default();
        let _ = lines.add(&line);
        while let Some(read) = lines.next_message::<FromLink>() {
            let _ = read;
        }
    }
}
