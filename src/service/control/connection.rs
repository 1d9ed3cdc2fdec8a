//! EDGE: one client: the bytes that it sent, the reply that it has not read yet, and its
//! order in progress. No call blocks.

use super::order::Ticket;
use super::peer::Peer;
use super::places::Held;
use super::protocol::{MAX_REQUEST, Reply, Request, RequestError};
use super::roles::Class;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A client.
pub(super) struct Connection {
    stream: UnixStream,
    pub peer: Peer,
    pub class: Class,
    input: [u8; MAX_REQUEST],
    filled: usize,
    output: Vec<u8>,
    /// When it was accepted, got a reply, or took one.
    since: Instant,
    /// An order that waits for its result.
    pub order: Option<Ticket>,
    /// The client sends no more.
    ended: bool,
    /// Closed once the reply is sent.
    last: bool,
    /// The connection is broken.
    broken: bool,
}

impl Connection {
    /// A client that has just connected.
    ///
    /// # Errors
    /// If the socket cannot be made non-blocking.
    pub fn new(stream: UnixStream, peer: Peer, class: Class, now: Instant) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            peer,
            class,
            input: [0; MAX_REQUEST],
            filled: 0,
            output: Vec::new(),
            since: now,
            order: None,
            ended: false,
            last: false,
            broken: false,
        })
    }

    /// The socket, to wait for.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// As its competitors for a place see it.
    pub fn held(&self) -> Held {
        let busy = self.order.is_some();
        Held { uid: self.peer.uid, class: self.class, since: self.since, busy }
    }

    /// Whether more of a request can be read.
    pub fn wants_input(&self) -> bool {
        self.is_idle() && !self.ended && self.filled < self.input.len()
    }

    /// Whether a reply waits to be sent.
    pub fn wants_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Whether a whole request has been read that may be answered now.
    pub fn has_request(&self) -> bool {
        let whole = self.line_end().is_some()
            || self.filled == self.input.len()
            || (self.ended && self.filled > 0);
        self.is_idle() && whole
    }

    /// When the client is given up unless it sends a whole request, or reads its reply, within
    /// `patience`. `None` while an order is in progress.
    pub fn due(&self, patience: Duration) -> Option<Instant> {
        if self.order.is_some() { None } else { self.since.checked_add(patience) }
    }

    /// Whether it is to be closed.
    pub fn is_over(&self, now: Instant, patience: Duration) -> bool {
        if self.order.is_some() {
            return false;
        }
        let done = self.output.is_empty() && (self.last || (self.ended && self.filled == 0));
        self.broken || done || self.due(patience).is_some_and(|due| now >= due)
    }

    fn is_idle(&self) -> bool {
        self.order.is_none() && self.output.is_empty() && !self.last && !self.broken
    }

    fn line_end(&self) -> Option<usize> {
        self.input[..self.filled].iter().position(|byte| *byte == b'\n')
    }

    /// Reads what has arrived.
    pub fn receive(&mut self) {
        if !self.wants_input() {
            return;
        }
        match self.stream.read(&mut self.input[self.filled..]) {
            Ok(0) => self.ended = true,
            Ok(count) => self.filled += count,
            Err(error) => self.note(&error),
        }
    }

    /// Takes the next request; `None` if it is not whole.
    pub fn request(&mut self) -> Option<Result<Request, RequestError>> {
        if !self.has_request() {
            return None;
        }
        let Some(end) = self.line_end() else {
            let filled = std::mem::take(&mut self.filled);
            if filled == self.input.len() {
                // The start of the next request is unknown.
                self.last = true;
                return Some(Err(RequestError::TooLong));
            }
            // The last request may lack its line end.
            return Some(Request::parse(&self.input[..filled]));
        };
        let request = Request::parse(&self.input[..end]);
        self.input.copy_within(end + 1..self.filled, 0);
        self.filled -= end + 1;
        Some(request)
    }

    /// Sends a reply, as far as the client takes it now.
    pub fn reply(&mut self, reply: &Reply, now: Instant) {
        self.output = reply.line().into_bytes();
        self.since = now;
        self.send(now);
    }

    /// Sends a last reply and closes the connection once it is sent.
    pub fn refuse(&mut self, reply: &Reply, now: Instant) {
        self.last = true;
        self.reply(reply, now);
    }

    /// Sends more of the reply.
    pub fn send(&mut self, now: Instant) {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => self.broken = true,
                Ok(count) => {
                    self.output.drain(..count);
                    self.since = now;
                    continue;
                }
                Err(error) => self.note(&error),
            }
            return;
        }
    }

    fn note(&mut self, error: &io::Error) {
        if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
            // A broken connection concerns only this client.
            self.broken = true;
        }
    }
}
