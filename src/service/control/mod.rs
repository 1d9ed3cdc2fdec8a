//! EDGE: the control socket, over which `facelatch status`, `facelatch door` or any
//! program with write access queries and commands the service.
//!
//! One thread accepts clients, and each client has a thread of its own. `status` is
//! answered from a shared [`Status`] without waiting for the service; orders reach the
//! service through a short queue. A client that is silent, sends too much or nonsense, or
//! disconnects affects only itself: clients, line lengths and times are limited.

mod client;
mod peer;
mod protocol;

pub use client::{AskError, ask};
pub use protocol::{Command, MAX_REQUEST, Passage, Reply, Request, RequestError};

use crate::service::status::Status;
use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Most clients at a time.
const CLIENTS: usize = 4;
/// Capacity of the order queue: one per client.
const ORDERS: usize = CLIENTS;
/// Timeout for each exchange with a client or the service.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Pause after a client could not be accepted, for instance for lack of file descriptors.
const AFTER_FAILURE: Duration = Duration::from_millis(200);
/// Attempts to take the lock, and the time between two.
const LOCK_TRIES: usize = 25;
const BETWEEN_LOCK_TRIES: Duration = Duration::from_millis(20);
/// Stack size of a client's thread in bytes.
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

/// The control socket, which closes when this is dropped.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    ended: Arc<AtomicBool>,
    /// Held while the socket is ours; the system releases it when the process ends.
    lock: File,
}

/// An order from a client, waiting for the service.
#[derive(Debug)]
pub struct Order {
    command: Command,
    by: Option<u32>,
    ticket: Arc<AtomicU8>,
    reply: SyncSender<Result<String, String>>,
}

/// An order that the service is carrying out.
#[derive(Debug)]
pub struct Begun {
    /// The command.
    pub command: Command,
    /// User id of the client, if the kernel reports it.
    pub by: Option<u32>,
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

impl Order {
    /// Starts to carry out the order; `None` if it was withdrawn: an order that timed out
    /// must not open the door later.
    pub fn begin(self) -> Option<Begun> {
        let Self { command, by, ticket, reply } = self;
        advance(&ticket, BEGUN).then_some(Begun { command, by, reply })
    }
}

impl Begun {
    /// Sends the result: what was done, or why it was not.
    pub fn answer(self, done: Result<String, String>) {
        // The client may have disconnected.
        let _ = self.reply.try_send(done);
    }
}

/// Moves a waiting order to state `to`; false if it is no longer waiting.
fn advance(ticket: &AtomicU8, to: u8) -> bool {
    ticket.compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

/// State shared by all clients.
struct Desk {
    snapshot: Arc<Mutex<Status>>,
    orders: SyncSender<Order>,
    clients: AtomicUsize,
    patience: Duration,
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
    ) -> Result<(Self, Receiver<Order>), ControlError> {
        Self::listen_patiently(path, snapshot, PATIENCE)
    }

    /// [`Self::listen`] with another timeout than [`PATIENCE`].
    ///
    /// # Errors
    /// As for [`Self::listen`].
    pub fn listen_patiently(
        path: &Path,
        snapshot: Arc<Mutex<Status>>,
        patience: Duration,
    ) -> Result<(Self, Receiver<Order>), ControlError> {
        let failed = |reason| ControlError::Path { path: path.to_owned(), reason };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o750).create(folder).map_err(failed)?;
        }
        let lock = lock(path)?;
        let listener = bind(path)?;
        let (orders, receiver) = sync_channel(ORDERS);
        let desk = Desk { snapshot, orders, clients: AtomicUsize::new(0), patience };
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        let accepting = move || accept(&listener, &Arc::new(desk), &told);
        std::thread::Builder::new()
            .name("control".to_owned())
            .stack_size(STACK)
            .spawn(accepting)
            .map_err(failed)?;
        Ok((Self { path: path.to_owned(), ended, lock }, receiver))
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

fn accept(listener: &UnixListener, desk: &Arc<Desk>, ended: &AtomicBool) {
    loop {
        let client = listener.accept();
        if ended.load(Ordering::Acquire) {
            return;
        }
        match client {
            Ok((stream, _)) => admit(stream, desk),
            Err(error) => {
                log::warn!("control socket: {error}");
                std::thread::sleep(AFTER_FAILURE);
            }
        }
    }
}

/// Serves a client on its own thread, or refuses it if there are too many.
fn admit(stream: UnixStream, desk: &Arc<Desk>) {
    let place = Place(Arc::clone(desk));
    if desk.clients.fetch_add(1, Ordering::AcqRel) >= CLIENTS {
        let busy = format!("{CLIENTS} other clients are being served; try again");
        let _ = say(&stream, &Reply::error(busy), desk.patience);
        return;
    }
    let serving = move || {
        // A broken connection concerns only that client.
        if let Err(error) = serve(&stream, &place.0) {
            log::debug!("control socket: {error}");
        }
        drop(place);
    };
    let thread = std::thread::Builder::new().name("client".to_owned()).stack_size(STACK);
    if let Err(error) = thread.spawn(serving) {
        log::warn!("control socket: {error}");
    }
}

/// A slot for a client, released when dropped.
struct Place(Arc<Desk>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::AcqRel);
    }
}

fn serve(stream: &UnixStream, desk: &Desk) -> io::Result<()> {
    let by = peer::uid(stream);
    let mut lines = Lines { stream, buffer: [0; MAX_REQUEST], filled: 0 };
    while let Some(request) = lines.next(desk.patience)? {
        let reply = match request {
            Ok(Request::Status) => {
                let snapshot = desk.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
                Reply::status(snapshot.clone().aged())
            }
            Ok(Request::Order(command)) => Reply::from(desk.order(command, by)),
            Err(RequestError::TooLong) => {
                // The start of the next request is unknown.
                return say(
                    stream,
                    &Reply::error(RequestError::TooLong.to_string()),
                    desk.patience,
                );
            }
            Err(error) => Reply::error(error.to_string()),
        };
        say(stream, &reply, desk.patience)?;
    }
    Ok(())
}

fn say(mut stream: &UnixStream, reply: &Reply, patience: Duration) -> io::Result<()> {
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(reply.line().as_bytes())
}

impl Desk {
    /// Passes an order to the service, waits for the result within a time limit, and logs
    /// it.
    fn order(&self, command: Command, by: Option<u32>) -> Result<String, String> {
        let who = by.map_or_else(|| "an unknown user".to_owned(), |uid| format!("uid {uid}"));
        let order = format!("order {command} by {who}");
        let done = self.pass_on(command, by);
        match &done {
            Ok(did) => log::info!("{order}: {did}"),
            Err(reason) => log::warn!("{order} refused: {reason}"),
        }
        done
    }

    fn pass_on(&self, command: Command, by: Option<u32>) -> Result<String, String> {
        let ticket = Arc::new(AtomicU8::new(WAITING));
        let (reply, answer) = sync_channel(1);
        let order = Order { command, by, ticket: Arc::clone(&ticket), reply };
        self.orders.try_send(order).map_err(|error| match error {
            TrySendError::Full(_) => "the service is busy with other orders; try again",
            TrySendError::Disconnected(_) => "the service is stopping",
        })?;
        let answered = match answer.recv_timeout(self.patience) {
            Err(RecvTimeoutError::Timeout) if advance(&ticket, WITHDRAWN) => {
                return Err("the service did not start the order in time, so nothing was done; \
                            see facelatch status"
                    .to_owned());
            }
            // It has started and will be done soon.
            Err(RecvTimeoutError::Timeout) => answer.recv_timeout(self.patience),
            answered => answered,
        };
        answered
            .map_err(|_| "the service did not report the result; see facelatch status".to_owned())?
    }
}

/// Reads a client's requests, one per line.
struct Lines<'s> {
    stream: &'s UnixStream,
    buffer: [u8; MAX_REQUEST],
    filled: usize,
}

impl Lines<'_> {
    /// The next request; `None` at the end of the stream. The whole line must arrive
    /// within `patience`, in however many pieces.
    fn next(&mut self, patience: Duration) -> io::Result<Option<Result<Request, RequestError>>> {
        let until = Instant::now() + patience;
        loop {
            let end = self.buffer[..self.filled].iter().position(|byte| *byte == b'\n');
            if let Some(end) = end {
                let request = Request::parse(&self.buffer[..end]);
                self.buffer.copy_within(end + 1..self.filled, 0);
                self.filled -= end + 1;
                return Ok(Some(request));
            }
            if self.filled == self.buffer.len() {
                return Ok(Some(Err(RequestError::TooLong)));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut stream = self.stream;
            match stream.read(&mut self.buffer[self.filled..]) {
                Ok(0) if self.filled == 0 => return Ok(None),
                // The last request may lack its line end.
                Ok(0) => {
                    let request = Request::parse(&self.buffer[..self.filled]);
                    self.filled = 0;
                    return Ok(Some(request));
                }
                Ok(count) => self.filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_a_starting_program_has_too_ends_with_the_service() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control.sock");
        let (control, _orders) = Control::listen(&path, Arc::default()).expect("a socket");
        let lent = control.lock.try_clone().expect("a lock");
        drop(control);
        let (_control, _orders) = Control::listen(&path, Arc::default()).expect("a socket");
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
