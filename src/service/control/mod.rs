//! EDGE: the control socket, over which `facelatch status`, `facelatch door` or any
//! program with write access queries and commands the service.
//!
//! One thread serves all clients and waits for none. `status` is answered from a shared
//! [`Status`] without waiting for the service; orders reach the service through a short
//! queue and come before status queries. A client that is silent, slow, sends too much or
//! nonsense, or disconnects affects only itself: connections, line lengths, times and
//! requests per user are limited. Root, administrators and the link have connections that
//! others cannot take. What a user may do follows from `[roles]`.

mod client;
mod connection;
mod desk;
mod limits;
mod order;
mod peer;
mod places;
mod protocol;
mod roles;

pub use client::{AskError, ask};
pub(in crate::service) use desk::and_suppressed;
pub(in crate::service) use limits::{Allowed, Limits, Line};
pub use order::{Begun, Order, OrderQueue};
pub(in crate::service) use order::{LINK_ORDERS, Ticket};
pub(in crate::service) use peer::Peer;
pub use peer::login_of;
pub use protocol::{Command, MAX_REQUEST, Reply, Request, RequestError};
pub use roles::unknown_names;
pub(in crate::service) use roles::user_id;

use super::socket::OwnSocket;
pub use super::socket::SocketError;
use crate::access::event::Event;
use crate::config::RolesConfig;
use crate::service::status::Status;
use crate::storage::lockdown::LockdownFile;
use desk::Desk;
use roles::Roles;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Timeout for each exchange with a client or the service.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Stack size of the thread in bytes.
const STACK: usize = 256 << 10;

/// How a socket is served.
#[derive(Clone, Debug)]
pub struct ControlSettings {
    /// Who may do what.
    pub roles: RolesConfig,
    /// Timeout for each exchange with a client or the service.
    pub patience: Duration,
    /// The lockdown file of a door that is starting, until [`Control::started`].
    pub starting: Option<LockdownFile>,
}

impl Default for ControlSettings {
    fn default() -> Self {
        Self { roles: RolesConfig::default(), patience: PATIENCE, starting: None }
    }
}

/// The lockdown file while the door is starting. A thread that holds the lock sees the start as a
/// whole: an order is either in the file before the door obeys it, or in the queue.
type Starting = Arc<Mutex<Option<LockdownFile>>>;

/// The control socket, which closes when this is dropped.
#[derive(Debug)]
pub struct Control {
    ended: Arc<AtomicBool>,
    starting: Starting,
    queue: OrderQueue,
    socket: OwnSocket,
}

impl Control {
    /// Opens the socket and serves it. Replaces the socket of a service that was killed,
    /// but not of one that runs. Creates the folder if needed, for this user and its
    /// group (0750); the socket is for the same two (0660).
    ///
    /// # Errors
    /// If another service or program listens there, the path is another kind of file, or folder,
    /// lock or socket cannot be created.
    pub fn listen(
        path: &Path,
        snapshot: Arc<Mutex<Status>>,
        settings: ControlSettings,
    ) -> Result<(Self, Receiver<Order>), SocketError> {
        let failed = |reason| SocketError::Path { path: path.to_owned(), reason };
        let (socket, listener) = OwnSocket::listen(path)?;
        let (queue, receiver) = OrderQueue::new();
        let ControlSettings { roles, patience, starting } = settings;
        let starting = Arc::new(Mutex::new(starting));
        let desk = Desk {
            listener,
            snapshot,
            queue: queue.clone(),
            starting: Arc::clone(&starting),
            roles: Roles::new(roles, Instant::now()),
            patience,
            limits: Limits::default(),
            connections: Vec::new(),
            excess: false,
        };
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        std::thread::Builder::new()
            .name("control".to_owned())
            .stack_size(STACK)
            .spawn(move || desk.run(&told))
            .map_err(failed)?;
        Ok((Self { ended, starting, queue, socket }, receiver))
    }

    /// The way of orders to the service, for others than clients of this socket.
    pub fn queue(&self) -> OrderQueue {
        self.queue.clone()
    }

    /// Requests that were refused since the last call, as far as they were logged.
    pub fn refused(&self) -> Vec<Event> {
        self.queue.refused()
    }

    /// The door is watched from now on, and takes orders. What was ordered before is in the
    /// lockdown file when this returns.
    pub fn started(&self) {
        *self.starting.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.socket.wake();
    }
}
