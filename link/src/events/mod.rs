//! Events on their way to their receivers, each once and in order.
//!
//! The door's audit log is the queue. Here is only how far each receiver has come (its
//! cursor), and the few events that the door has sent and a receiver has not taken. A cursor
//! moves when the receiver has acknowledged the event, and is then written to disk
//! ([`cursor`]). One event is under way to a receiver at a time.
//!
//! An event that the broker has taken and whose acknowledgement was lost would arrive twice.
//! So events are retained on the broker: after each new connection the newest one there says
//! what has arrived ([`Receiver::arrived`]). Twice comes only an event that a broker passed
//! on and then forgot because it was killed before it saved what it retains, or one that a
//! webhook took without an answer. Its number tells the receiver.

pub mod cursor;

use facelatch_messages::{DoorEvent, DoorHello, MOST_UNTAKEN};
use std::collections::VecDeque;

/// Events of a slow receiver from which on the others do not wait for it.
const SLOW: usize = MOST_UNTAKEN / 2;

/// One receiver.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Receiver {
    /// Number of the last event that has arrived; `None` before the first connection to the
    /// door, from which on events are sent.
    cursor: Option<u64>,
    /// Number of the last event that is in `waiting` or needs not be.
    last: u64,
    waiting: VecDeque<DoorEvent>,
    /// The first of those that wait is under way.
    under_way: bool,
    /// Nobody wants events here.
    unwanted: bool,
    /// It was too slow: what came after those that wait is fetched from the door again.
    behind: bool,
}

impl Receiver {
    /// A receiver that has come as far as this number.
    pub fn new(cursor: Option<u64>) -> Self {
        Self { cursor, last: cursor.unwrap_or(0), ..Self::default() }
    }

    /// Number of the last event that has arrived.
    pub fn cursor(&self) -> Option<u64> {
        self.cursor
    }

    /// Events that wait here.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The event to send now, which is under way from then on; `None` if there is none or
    /// one is under way.
    pub fn next_event(&mut self) -> Option<&DoorEvent> {
        if self.under_way {
            return None;
        }
        let next = self.waiting.front()?;
        self.under_way = true;
        Some(next)
    }

    /// The receiver has acknowledged the event with this number, or will never take it.
    pub fn done(&mut self, number: u64) {
        if self.under_way && self.waiting.front().is_some_and(|event| event.number == number) {
            self.under_way = false;
            self.waiting.pop_front();
            self.cursor = Some(number);
        }
    }

    /// It is not known whether the event under way has arrived: it is sent again.
    pub fn failed(&mut self) {
        self.under_way = false;
    }

    /// The receiver is known to have all events up to this number. `newest` is the door's.
    pub fn arrived(&mut self, number: u64, newest: u64) {
        // Other writers there may lie; a number that does not exist would silence the door.
        if number > newest || self.cursor.is_none_or(|cursor| number <= cursor) {
            return;
        }
        self.cursor = Some(number);
        self.last = self.last.max(number);
        self.under_way = false;
        while self.waiting.front().is_some_and(|event| event.number <= number) {
            self.waiting.pop_front();
        }
    }

    fn take(&mut self, event: &DoorEvent) {
        if event.number > self.last && !self.behind {
            self.last = event.number;
            self.waiting.push_back(event.clone());
        }
    }
}

/// What is to be done about the connection to the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Nothing.
    Stay,
    /// Tell the door that events up to this number have arrived.
    Taken(u64),
    /// Connect again, to get events again.
    Again,
}

/// What a door's hello says about the events that are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Welcome {
    /// Events that were deleted at the door before they arrived everywhere, at most.
    pub lost: u64,
    /// The door's log began again: its numbers are smaller than before.
    pub began_again: bool,
}

/// All receivers of a door's events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Events {
    receivers: Vec<Receiver>,
    /// Number of the door's newest event.
    newest: u64,
    /// Number that the door was told last.
    told: u64,
}

impl Events {
    /// Receivers that have come as far as these numbers.
    pub fn new(cursors: &[Option<u64>]) -> Self {
        let receivers = cursors.iter().map(|cursor| Receiver::new(*cursor)).collect();
        Self { receivers, ..Self::default() }
    }

    /// A receiver, by its place in [`Events::new`].
    pub fn receiver(&mut self, at: usize) -> &mut Receiver {
        &mut self.receivers[at]
    }

    /// Whether a receiver wants events at all.
    pub fn wanted(&mut self, at: usize, wanted: bool) {
        self.receivers[at].unwanted = !wanted;
    }

    fn each(&mut self) -> impl Iterator<Item = &mut Receiver> {
        self.receivers.iter_mut().filter(|receiver| !receiver.unwanted)
    }

    /// How far each has come.
    pub fn cursors(&self) -> Vec<Option<u64>> {
        self.receivers.iter().map(Receiver::cursor).collect()
    }

    /// Events that wait here, of the receiver that has most.
    pub fn waiting(&self) -> usize {
        self.receivers.iter().map(Receiver::waiting).max().unwrap_or(0)
    }

    /// Number of the door's newest event, as far as is known.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// The number after which the door is to send events; `None` for those from now on.
    pub fn after(&self) -> Option<u64> {
        let known = self.receivers.iter().filter(|r| !r.unwanted && r.cursor.is_some());
        known.map(|receiver| receiver.last).min()
    }

    /// The door has answered. With [`Welcome::began_again`] the connection has to be made
    /// again, since the door was asked for events after a number that it does not have.
    pub fn hello(&mut self, hello: &DoorHello) -> Welcome {
        let after = self.after();
        let (mut lost, mut began_again) = (0, false);
        self.newest = hello.newest;
        self.told = 0;
        for receiver in self.each() {
            receiver.behind = false;
            match receiver.cursor {
                None => *receiver = Receiver::new(Some(hello.newest)),
                Some(cursor) if cursor > hello.newest => {
                    began_again = true;
                    *receiver = Receiver::new(Some(hello.newest));
                }
                Some(_) => {}
            }
        }
        if !began_again && let Some(after) = after {
            lost = hello.oldest.saturating_sub(after.saturating_add(1));
        }
        Welcome { lost, began_again }
    }

    /// The door has sent an event.
    pub fn event(&mut self, event: &DoorEvent) {
        self.newest = self.newest.max(event.number);
        for receiver in self.each() {
            receiver.take(event);
        }
    }

    /// What is to be done about the connection to the door, after anything has changed.
    pub fn advice(&mut self) -> Advice {
        let fast = self.each().any(|r| !r.behind && r.waiting.is_empty());
        for receiver in self.each() {
            receiver.behind |= fast && receiver.waiting.len() >= SLOW;
        }
        if self.each().any(|r| r.behind && r.waiting.is_empty()) {
            return Advice::Again;
        }
        let come = |r: &mut Receiver| {
            if r.waiting.is_empty() { r.last } else { r.cursor.unwrap_or(0) }
        };
        let taken = self.each().filter(|r| !r.behind).map(come).min();
        match taken {
            Some(number) if number > self.told && number <= self.newest => {
                self.told = number;
                Advice::Taken(number)
            }
            _ => Advice::Stay,
        }
    }
}

#[cfg(test)]
mod tests;
