//! What the program that links the door sends over its socket.

use crate::mutate::mutated;
use crate::targets::{FAST, JSON, Target};
use facelatch_messages::{
    Bytes, FromLink, LONGEST_LINE, Lines, LinkHello, LinkOrder, PROTOCOL, Reach, write_line,
};

pub fn targets() -> Vec<Target> {
    vec![Target {
        name: "link",
        quick: 20_000,
        longest: LONGEST_LINE + 4096,
        memory: 16 << 20,
        seeds,
        mutate: |chance, one, other| mutated(chance, one, other, JSON),
        run,
        ..FAST
    }]
}

fn seeds() -> Vec<Vec<u8>> {
    let hello = LinkHello { protocol: PROTOCOL, version: "1".to_owned(), after: Some(7) };
    let messages = [
        FromLink::Hello(hello),
        FromLink::Taken { number: 9 },
        FromLink::Order { id: 1, order: LinkOrder::Open, by: "mqtt".to_owned() },
        FromLink::Record { id: 2, topic: "policy".to_owned(), bytes: Bytes(vec![7; 50]) },
        FromLink::Published { id: 3 },
        FromLink::Reach(Reach { good: true, broker: true, ..Reach::default() }),
    ];
    let mut seeds: Vec<Vec<u8>> = messages.iter().map(write_line).collect();
    seeds.push(seeds.concat());
    seeds
}

/// Reads lines as the socket brings them, in pieces.
fn run(input: &[u8]) -> String {
    let mut lines = Lines::default();
    let mut outcome = String::new();
    for piece in input.chunks(16 << 10) {
        if let Err(error) = lines.add(piece) {
            return format!("{outcome} {error}");
        }
        while let Some(read) = lines.next_message::<FromLink>() {
            outcome = match read {
                Ok(Some(FromLink::Order { order, .. })) => order.to_string(),
                Ok(Some(_)) => "a message".to_owned(),
                Ok(None) => "of an unknown kind".to_owned(),
                Err(error) => error.to_string(),
            };
        }
    }
    outcome
}
