//! EDGE: the link's connection: what it sent, what it has not read yet, and how fast it may
//! go. No call blocks.

use crate::service::control::{Peer, Ticket};
use facelatch_messages::{
    FromDoor, FromLink, LineError, Lines, LinkOrder, MOST_UNTAKEN, write_line,
};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Bytes that are read at a time.
const CHUNK: usize = 16 << 10;
/// Bytes that wait for a link that reads slowly. Nothing is added and nothing is read while
/// more wait; a single message may go beyond.
const MOST_WAITING: usize = 64 << 10;
/// Messages of the link: burst, and number per second. A new door gets some thousand records
/// at once.
const BURST: f64 = 4000.0;
const PER_SECOND: f64 = 500.0;

/// An order of the link in progress.
pub(super) struct LinkTicket {
    /// The link's number.
    pub id: u64,
    /// The order.
    pub order: LinkOrder,
    /// How it came, as the link says; plain.
    pub way: String,
    /// Where the result comes from.
    pub ticket: Ticket,
}

/// Why a connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The link hung up, or the connection broke.
    Gone,
    /// It was told the reason.
    Refused(String),
    /// It did not say hello, or did not read, for too long.
    Silent,
    /// Another connection takes its place.
    Replaced,
}

/// The link's connection.
pub(super) struct Connection {
    stream: UnixStream,
    /// Who is at the other end.
    pub peer: Peer,
    lines: Lines,
    output: VecDeque<u8>,
    /// When it was accepted, or last took something or had nothing to take.
    progress: Instant,
    accepted: Instant,
    /// Messages that may be read now, and when that was computed.
    tokens: f64,
    at: Instant,
    /// It has said hello.
    pub greeted: bool,
    /// Numbers of events that it was sent and has not taken yet.
    pub untaken: VecDeque<u64>,
    /// Its orders in progress.
    pub orders: Vec<LinkTicket>,
    /// Why it is to be closed, once what waits is sent.
    pub end: Option<End>,
}

impl Connection {
    /// A link that has just connected.
    ///
    /// # Errors
    /// If the socket cannot be made non-blocking.
    pub fn new(stream: UnixStream, peer: Peer, now: Instant) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            peer,
            lines: Lines::default(),
            output: VecDeque::new(),
            progress: now,
            accepted: now,
            tokens: BURST,
            at: now,
            greeted: false,
            untaken: VecDeque::new(),
            orders: Vec::new(),
            end: None,
        })
    }

    /// The socket, to wait for.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Whether something waits to be sent.
    pub fn wants_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Whether there is room for more to be sent.
    pub fn has_room(&self) -> bool {
        self.output.len() < MOST_WAITING && self.end.is_none()
    }

    /// Whether another event may be sent.
    pub fn takes_events(&self) -> bool {
        self.greeted && self.has_room() && self.untaken.len() < MOST_UNTAKEN
    }

    /// Whether more of it may be read now.
    pub fn wants_input(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.tokens = PER_SECOND.mul_add(passed, self.tokens).min(BURST);
        self.has_room() && self.tokens >= 1.0
    }

    /// The next message, reading what has arrived. `None` if there is none yet, or the link
    /// sends too fast. A message of an unknown kind is passed over.
    ///
    /// # Errors
    /// If a line is no message.
    pub fn message(&mut self, now: Instant) -> Result<Option<FromLink>, LineError> {
        let mut chunk = [0; CHUNK];
        while self.wants_input(now) {
            match self.lines.next_message::<FromLink>() {
                Some(read) => {
                    self.tokens -= 1.0;
                    if let Some(message) = read? {
                        return Ok(Some(message));
                    }
                }
                None => match self.stream.read(&mut chunk) {
                    Ok(0) => {
                        self.end = Some(End::Gone);
                        return Ok(None);
                    }
                    Ok(count) => self.lines.add(&chunk[..count])?,
                    Err(error) => {
                        self.note(&error);
                        return Ok(None);
                    }
                },
            }
        }
        Ok(None)
    }

    /// Queues a message.
    pub fn tell(&mut self, message: &FromDoor, now: Instant) {
        if self.output.is_empty() {
            self.progress = now;
        }
        self.output.extend(write_line(message));
    }

    /// Queues a last message, after which the connection is closed.
    pub fn refuse(&mut self, reason: &str, now: Instant) {
        if self.end.is_none() {
            self.tell(&FromDoor::Refused { reason: reason.to_owned() }, now);
            self.end = Some(End::Refused(reason.to_owned()));
        }
    }

    /// Sends what waits, as far as the link takes it now.
    pub fn send(&mut self, now: Instant) {
        while !self.output.is_empty() {
            let (front, _) = self.output.as_slices();
            match self.stream.write(front) {
                Ok(0) => self.end = Some(End::Gone),
                Ok(count) => {
                    self.output.drain(..count);
                    self.progress = now;
                    continue;
                }
                Err(error) => self.note(&error),
            }
            break;
        }
        if self.output.is_empty() {
            self.progress = now;
            // Not the memory of the largest message for ever.
            self.output.shrink_to(MOST_WAITING);
        }
    }

    /// Why the connection is over; `None` if it is not. A link may be silent after its hello
    /// as long as it reads.
    pub fn over(&self, now: Instant, patience: Duration) -> Option<End> {
        if self.end == Some(End::Gone) || (self.end.is_some() && self.output.is_empty()) {
            return self.end.clone();
        }
        let since =
            if self.greeted || !self.output.is_empty() { self.progress } else { self.accepted };
        let waits = !self.greeted || !self.output.is_empty();
        let late = waits && now.saturating_duration_since(since) >= patience;
        late.then(|| self.end.clone().unwrap_or(End::Silent))
    }

    fn note(&mut self, error: &io::Error) {
        if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
            self.end = Some(End::Gone);
        }
    }
}
