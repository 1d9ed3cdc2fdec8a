//! Messages that must arrive: kept until the broker acknowledges them, and sent again over
//! each new connection.

use super::{Full, Publish};
use std::collections::VecDeque;

/// Messages in the order in which they were added, in memory only.
#[derive(Debug)]
pub struct Outbox {
    entries: VecDeque<Entry>,
    bytes: usize,
    most_bytes: usize,
}

#[derive(Debug)]
struct Entry {
    ticket: u64,
    publish: Publish,
    /// Sent over the connection of now.
    sent: bool,
}

impl Outbox {
    /// An empty one that takes this many bytes of topics and contents.
    pub fn new(most_bytes: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, most_bytes }
    }

    /// Adds a message. `ticket` is a number that no other waiting message has.
    ///
    /// # Errors
    /// If it is full; nothing was added.
    pub fn add(&mut self, ticket: u64, publish: Publish) -> Result<(), Full> {
        let bytes = size(&publish);
        if !self.entries.is_empty() && self.bytes + bytes > self.most_bytes {
            return Err(Full);
        }
        self.bytes += bytes;
        self.entries.push_back(Entry { ticket, publish, sent: false });
        Ok(())
    }

    /// A connection is lost or new: everything is to be sent again.
    pub fn begin_again(&mut self) {
        for entry in &mut self.entries {
            entry.sent = false;
        }
    }

    /// Offers messages that were not sent over this connection to `send`, in their order,
    /// until it refuses one.
    pub fn send(&mut self, mut send: impl FnMut(u64, &Publish) -> Result<(), Full>) {
        for entry in self.entries.iter_mut().filter(|entry| !entry.sent) {
            if send(entry.ticket, &entry.publish).is_err() {
                return;
            }
            entry.sent = true;
        }
    }

    /// A message has arrived, or was refused for good. Whether it was one of these.
    pub fn done(&mut self, ticket: u64) -> bool {
        let Some(at) = self.entries.iter().position(|entry| entry.ticket == ticket) else {
            return false;
        };
        if let Some(entry) = self.entries.remove(at) {
            self.bytes -= size(&entry.publish);
        }
        true
    }

    /// Messages that have not arrived.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether all have arrived.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Bytes that a message counts.
pub(super) fn size(publish: &Publish) -> usize {
    publish.topic.len() + publish.payload.len() + 64
}
