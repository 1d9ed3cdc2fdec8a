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
mod peer;
mod places;
mod protocol;
mod roles;

pub use client::{AskError, ask};
pub use peer::login_of;
pub use protocol::{Command, MAX_REQUEST, Passage, Reply, Request, RequestError};
pub use roles::unknown_names;

use crate::access::event::{Caller, Event};
use crate::config::RolesConfig;
use crate::service::status::Status;
use crate::storage::lockdown::LockdownFile;
use desk::Desk;
use limits::Limits;
use places::MAX_CONNECTIONS;
use roles::Roles;
use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Capacity of the order queue: one per connection, so that it is never full.
const ORDERS: usize = MAX_CONNECTIONS;
/// Timeout for each exchange with a client or the service.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Attempts to take the lock, and the time between two.
const LOCK_TRIES: usize = 25;
const BETWEEN_LOCK_TRIES: Duration = Duration::from_millis(20);
/// Stack size of the thread in bytes.
const STACK: usize = 256 << 10;

/// Errors of opening the socket.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Another service or program listens on the socket.
    #[error(
        "{path}: another service has this socket; stop it first, or give this one another \
         socket"
    )]
    Taken {
        /// Path of the socket.
        path: PathBuf,
    },
    /// The lock file belongs to another user.
    #[error(
        "{lock}: belongs to another user, whose service may be running; stop that service, or \
             remove this file if none runs"
    )]
    Foreign {
        /// Path of the lock file.
        lock: PathBuf,
    },
    /// The path is a file of another kind.
    #[error("{path}: not a socket; remove it or name another path")]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// Folder, lock or socket cannot be created.
    #[error("{path}: {reason}; name a socket in a folder that this user may write to")]
    Path {
        /// The path.
        path: PathBuf,
        /// The system's error.
        reason: io::Error,
    },
}

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

/// Most refused requests that wait for the service.
const MOST_REFUSED: usize = 32;

/// Requests that were refused lately, for the audit log.
type Refused = Arc<Mutex<Vec<Event>>>;

/// The control socket, which closes when this is dropped.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    ended: Arc<AtomicBool>,
    starting: Starting,
    refused: Refused,
    /// Held while the socket is ours; the system releases it when the process ends.
    lock: File,
}

/// An order from a client, waiting for the service.
#[derive(Debug)]
pub struct Order {
    command: Command,
    by: Caller,
    ticket: TicketState,
    reply: SyncSender<Result<String, String>>,
}

/// An order that the service is carrying out.
#[derive(Debug)]
pub struct Begun {
    /// The command.
    pub command: Command,
    /// Who gave it.
    pub by: Caller,
    reply: SyncSender<Result<String, String>>,
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
struct TicketState(Arc<AtomicU8>);

impl TicketState {
    /// Moves a waiting order to state `to`; false if it is no longer waiting.
    fn advance(&self, to: u8) -> bool {
        self.0.compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Withdraws the order; false if it has begun.
    fn withdraw(&self) -> bool {
        self.advance(WITHDRAWN)
    }
}

impl Order {
    /// Starts to carry out the order; `None` if it was withdrawn: an order that timed out
    /// must not open the door later.
    pub fn begin(self) -> Option<Begun> {
        let Self { command, by, ticket, reply } = self;
        ticket.advance(BEGUN).then_some(Begun { command, by, reply })
    }
}

impl Begun {
    /// Sends the result: what was done, or why it was not.
    pub fn answer(self, done: Result<String, String>) {
        // The client may have disconnected.
        let _ = self.reply.try_send(done);
    }
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
    ) -> Result<(Self, Receiver<Order>), ControlError> {
        let failed = |reason| ControlError::Path { path: path.to_owned(), reason };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o750).create(folder).map_err(failed)?;
        }
        let lock = lock(path)?;
        let listener = bind(path)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let (orders, receiver) = sync_channel(ORDERS);
        let ControlSettings { roles, patience, starting } = settings;
        let starting = Arc::new(Mutex::new(starting));
        let refused = Refused::default();
        let desk = Desk {
            listener,
            snapshot,
            orders,
            starting: Arc::clone(&starting),
            refused: Arc::clone(&refused),
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
        Ok((Self { path: path.to_owned(), ended, starting, refused, lock }, receiver))
    }

    /// Requests that were refused since the last call, as far as they were logged.
    pub fn refused(&self) -> Vec<Event> {
        std::mem::take(&mut *self.refused.lock().unwrap_or_else(PoisonError::into_inner))
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
        // Wakes the accepting thread.
        let _ = UnixStream::connect(&self.path);
        let _ = std::fs::remove_file(&self.path);
        // Unlocked last, and explicitly: a program that another thread is starting
        // inherits the open file until its exec.
        let _ = self.lock.unlock();
    }
}

/// Takes a lock beside the socket. Unlike the socket's name, a lock ends with its
/// process.
fn lock(path: &Path) -> Result<File, ControlError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let failed = |reason| ControlError::Path { path: PathBuf::from(&name), reason };
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(&name);
    let file = file.map_err(|reason| not_locked(Path::new(&name), reason))?;
    // A program started just before the lock was released may keep it until its exec, so
    // retry.
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(BETWEEN_LOCK_TRIES),
            Err(TryLockError::Error(reason)) => return Err(failed(reason)),
        }
    }
    Err(ControlError::Taken { path: path.to_owned() })
}

/// The error for a lock file that cannot be opened. If it exists and belongs to another
/// user, their service may run, and the two must not fight over the relay.
fn not_locked(lock: &Path, reason: io::Error) -> ControlError {
    if reason.kind() == ErrorKind::PermissionDenied && lock.exists() {
        return ControlError::Foreign { lock: lock.to_owned() };
    }
    ControlError::Path { path: lock.to_owned(), reason }
}

fn bind(path: &Path) -> Result<UnixListener, ControlError> {
    let failed = |reason| ControlError::Path { path: path.to_owned(), reason };
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ControlError::NoSocket { path: path.to_owned() });
        }
        // A program other than facelatch may listen there.
        Ok(_) if UnixStream::connect(path).is_ok() => {
            return Err(ControlError::Taken { path: path.to_owned() });
        }
        Ok(_) => std::fs::remove_file(path).map_err(failed)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(failed)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_a_starting_program_has_too_ends_with_the_service() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control.sock");
        let (control, _orders) =
            Control::listen(&path, Arc::default(), ControlSettings::default()).expect("a socket");
        let lent = control.lock.try_clone().expect("a lock");
        drop(control);
        let (_control, _orders) =
            Control::listen(&path, Arc::default(), ControlSettings::default()).expect("a socket");
        drop(lent);
    }

    #[test]
    fn the_lock_of_another_user_is_another_service() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let lock = folder.path().join("socket.lock");
        let why = |kind: ErrorKind| not_locked(&lock, kind.into());
        let denied = ErrorKind::PermissionDenied;
        assert!(matches!(why(denied), ControlError::Path { .. }), "a folder that is not ours");
        std::fs::write(&lock, "").expect("written");
        assert!(matches!(why(denied), ControlError::Foreign { .. }));
        assert!(matches!(why(ErrorKind::StorageFull), ControlError::Path { .. }));
    }
}
