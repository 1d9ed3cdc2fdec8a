//! The client's handle, its thread, and what both share.

use super::outbox::size;
use super::session::{End, Session};
use super::{Publish, Report, Settings, Subscription, chance};
use crate::reports::Reports;
use crate::wake::{self, Waker, Woken};
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Most bytes of messages that wait for the client's thread.
const MOST_BYTES: usize = 4 << 20;
/// Most commands that wait.
const MOST_COMMANDS: usize = 4096;
/// A connection that lasted for this time was a good one.
const GOOD: Duration = Duration::from_secs(20);
/// A handshake of TLS takes less than half of it. Bytes.
const STACK: usize = 256 << 10;

/// Too many messages wait already: try again when some have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

pub(super) enum Command {
    Publish { ticket: u64, publish: Publish },
    Subscribe { ticket: u64, subscriptions: Vec<Subscription> },
    Unsubscribe { filters: Vec<String> },
}

#[derive(Default)]
pub(super) struct Queue {
    /// The connection for which commands are taken; 0 without one.
    pub session: u64,
    pub commands: VecDeque<Command>,
    bytes: usize,
    pub stop: bool,
    /// Nothing is read from the broker for now.
    pub hold: bool,
}

impl Queue {
    pub fn pop(&mut self) -> Option<Command> {
        let command = self.commands.pop_front()?;
        if let Command::Publish { publish, .. } = &command {
            self.bytes -= size(publish);
        }
        Some(command)
    }

    /// Takes commands for this connection from now on.
    pub fn begin(&mut self, session: u64) {
        *self = Self { session, stop: self.stop, hold: self.hold, ..Self::default() };
    }
}

/// A client. Dropped, it ends the connection; the broker does not publish the will then.
pub struct Client {
    shared: Waker<Queue>,
    ended: Receiver<()>,
}

impl Client {
    /// Starts to connect. Reports go to `reports`; while that is full, nothing is read from
    /// the broker.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start<T: From<Report> + Send + 'static>(
        settings: Settings,
        reports: SyncSender<T>,
    ) -> std::io::Result<Self> {
        let (shared, woken) = wake::pair()?;
        let (end, ended) = sync_channel(1);
        let reports = Reports::new(reports);
        std::thread::Builder::new().name("mqtt".to_owned()).stack_size(STACK).spawn(move || {
            connect_again_and_again(settings, &woken, reports);
            drop(end);
        })?;
        Ok(Self { shared, ended })
    }

    /// Publishes a message over this connection; [`Report::Published`] or
    /// [`Report::Refused`] follows, or [`Report::Lost`]. Does nothing if that connection is
    /// lost already.
    ///
    /// # Errors
    /// If too many messages wait.
    pub fn publish(&self, session: u64, ticket: u64, publish: Publish) -> Result<(), Full> {
        let bytes = size(&publish);
        self.command(session, bytes, Command::Publish { ticket, publish })
    }

    /// Subscribes to filters over this connection; [`Report::Subscribed`] follows.
    ///
    /// # Errors
    /// If too many commands wait.
    pub fn subscribe(
        &self,
        session: u64,
        ticket: u64,
        subscriptions: Vec<Subscription>,
    ) -> Result<(), Full> {
        if subscriptions.is_empty() {
            return Ok(());
        }
        self.command(session, 0, Command::Subscribe { ticket, subscriptions })
    }

    /// Ends subscriptions of this connection.
    ///
    /// # Errors
    /// If too many commands wait.
    pub fn unsubscribe(&self, session: u64, filters: Vec<String>) -> Result<(), Full> {
        if filters.is_empty() {
            return Ok(());
        }
        self.command(session, 0, Command::Unsubscribe { filters })
    }

    fn command(&self, session: u64, bytes: usize, command: Command) -> Result<(), Full> {
        let mut queue = self.shared.lock();
        if queue.session != session {
            return Ok(());
        }
        let full = queue.bytes + bytes > MOST_BYTES && !queue.commands.is_empty();
        if full || queue.commands.len() >= MOST_COMMANDS {
            return Err(Full);
        }
        queue.bytes += bytes;
        queue.commands.push_back(command);
        drop(queue);
        self.shared.wake();
        Ok(())
    }

    /// Sends what waits, says goodbye and ends, within about `patience`. Whether it did.
    pub fn close(self, patience: Duration) -> bool {
        self.stop();
        self.ended.recv_timeout(patience) == Err(std::sync::mpsc::RecvTimeoutError::Disconnected)
    }

    /// Reads nothing more from the broker while `hold`: its messages come faster than they
    /// can be passed on.
    pub fn hold(&self, hold: bool) {
        let mut queue = self.shared.lock();
        if queue.hold != hold {
            queue.hold = hold;
            drop(queue);
            self.shared.wake();
        }
    }

    fn stop(&self) {
        self.shared.lock().stop = true;
        self.shared.wake();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop();
    }
}

fn connect_again_and_again<T: From<Report>>(
    settings: Settings,
    shared: &Woken<Queue>,
    mut reports: Reports<T>,
) {
    let mut pauses = settings.pauses;
    for number in 1.. {
        let began = Instant::now();
        // A broker that makes the protocol's crate panic ends its connection and no more.
        let end = std::panic::catch_unwind(AssertUnwindSafe(|| {
            Session::run(number, &settings, shared, &mut reports)
        }));
        shared.lock().begin(0);
        let reason = match end {
            Ok(End::Stopped) => return,
            Ok(End::Lost(reason)) => reason,
            Err(_) => "an answer of the broker could not be processed".to_owned(),
        };
        reports.add(Report::Lost { session: number, reason });
        if began.elapsed() >= GOOD {
            pauses.reset();
        }
        if !shared.rest(pauses.next_pause(chance()), &mut reports, |queue| queue.stop) {
            return;
        }
    }
}
