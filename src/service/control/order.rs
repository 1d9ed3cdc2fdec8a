//! Orders on their way to the service, and what is known of each on the way back.

use super::Command;
use super::places::MAX_CONNECTIONS;
use crate::access::event::{Caller, Event};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Orders of the link in progress at a time; the last place is for lockdown.
pub(in crate::service) const LINK_ORDERS: usize = 4;
/// Capacity of the queue: one per connection, and those of the link, so that it is never
/// full.
const ORDERS: usize = MAX_CONNECTIONS + LINK_ORDERS;
/// Most refused requests that wait for the service.
const MOST_REFUSED: usize = 32;

/// What came of an order: what was done, or why it was not.
type Done = Result<String, String>;

/// An order, waiting for the service.
#[derive(Debug)]
pub struct Order {
    command: Command,
    by: Caller,
    state: OrderState,
    reply: SyncSender<Done>,
}

/// An order that the service is carrying out.
#[derive(Debug)]
pub struct Begun {
    /// The command.
    pub command: Command,
    /// Who gave it.
    pub by: Caller,
    reply: SyncSender<Done>,
}

/// State of an order.
///
/// ```text
///   WAITING -- the service begins --> BEGUN
///      +------ not in time ---------> WITHDRAWN
/// ```
const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const WITHDRAWN: u8 = 2;

/// The state of an order, shared by the thread that serves the client and the service.
#[derive(Clone, Debug, Default)]
struct OrderState(Arc<AtomicU8>);

impl OrderState {
    /// Moves a waiting order to state `to`; false if it is no longer waiting.
    fn advance(&self, to: u8) -> bool {
        self.0.compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Order {
    /// Starts to carry out the order; `None` if it was withdrawn: an order that timed out
    /// must not open the door later.
    pub fn begin(self) -> Option<Begun> {
        let Self { command, by, state, reply } = self;
        state.advance(BEGUN).then_some(Begun { command, by, reply })
    }
}

impl Begun {
    /// Sends the result: what was done, or why it was not.
    pub fn answer(self, done: Done) {
        // The client may have disconnected.
        let _ = self.reply.try_send(done);
    }
}

/// An order in progress, as the thread sees it that serves the client. Dropping it withdraws
/// nothing.
#[derive(Debug)]
pub(in crate::service) struct Ticket {
    /// The order.
    pub command: Command,
    state: OrderState,
    answer: Receiver<Done>,
    since: Instant,
}

impl Ticket {
    /// The result once there is one, or once it is overdue: an order that the service has not
    /// begun within `patience` is withdrawn.
    pub fn result(&self, now: Instant, patience: Duration) -> Option<Done> {
        let waited = now.saturating_duration_since(self.since);
        let unknown = || "the service did not report the result; see facelatch status";
        match self.answer.try_recv() {
            Ok(done) => Some(done),
            Err(TryRecvError::Disconnected) => Some(Err(unknown().to_owned())),
            Err(TryRecvError::Empty) if waited < patience => None,
            Err(TryRecvError::Empty) if self.state.advance(WITHDRAWN) => {
                Some(Err("the service did not start the order in time, so nothing was done; see \
                          facelatch status"
                    .to_owned()))
            }
            // It has started and will be done soon.
            Err(TryRecvError::Empty) if waited < patience.saturating_mul(2) => None,
            Err(TryRecvError::Empty) => Some(Err(unknown().to_owned())),
        }
    }

    /// Withdraws the order if the service has not begun it.
    pub fn withdraw(&self) {
        self.state.advance(WITHDRAWN);
    }
}

/// The way of orders, and of news about refused ones, to the service. Clones lead to the
/// same one.
#[derive(Clone, Debug)]
pub struct OrderQueue {
    orders: SyncSender<Order>,
    /// Requests that were refused lately, for the audit log.
    refused: Arc<Mutex<Vec<Event>>>,
}

impl OrderQueue {
    /// A queue and its end.
    pub(super) fn new() -> (Self, Receiver<Order>) {
        let (orders, receiver) = sync_channel(ORDERS);
        (Self { orders, refused: Arc::default() }, receiver)
    }

    /// Passes an order to the service.
    ///
    /// # Errors
    /// If the queue is full, or the service is stopping.
    pub(in crate::service) fn give(
        &self,
        command: Command,
        by: Caller,
        now: Instant,
    ) -> Result<Ticket, String> {
        let state = OrderState::default();
        let (reply, answer) = sync_channel(1);
        let order = Order { command: command.clone(), by, state: state.clone(), reply };
        match self.orders.try_send(order) {
            Ok(()) => Ok(Ticket { command, state, answer, since: now }),
            Err(TrySendError::Full(_)) => {
                Err("the service is busy with other orders; try again".to_owned())
            }
            Err(TrySendError::Disconnected(_)) => Err("the service is stopping".to_owned()),
        }
    }

    /// Notes a refused request for the audit log; without room it is dropped. The caller
    /// limits their rate.
    pub(in crate::service) fn note_refused(&self, order: String, by: Caller, reason: &str) {
        let mut waiting = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MOST_REFUSED {
            waiting.push(Event::OrderRefused { order, by, reason: reason.to_owned() });
        }
    }

    /// Requests that were refused since the last call, as far as they were noted.
    pub(super) fn refused(&self) -> Vec<Event> {
        std::mem::take(&mut *self.refused.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
