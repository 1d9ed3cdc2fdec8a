//! EDGE: the socket through which the service is asked and told, by `facelatch status`
//! and `facelatch door` or any program that may write to it.
//!
//! A thread waits for clients, and one more serves each. `status` is answered from a
//! shared [`Snapshot`] and never waits for the service; orders go to it through a
//! short queue. A client that says nothing, too much or nonsense, or goes away, costs
//! itself alone: clients, lines and times are limited.

mod client;
mod peer;
mod protocol;

pub use client::{AskError, ask};
pub use protocol::{Command, MAX_REQUEST, Passage, Reply, Request, RequestError};

use crate::service::status::Snapshot;
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

/// Clients at a time.
const CLIENTS: usize = 4;
/// Orders that wait for the service; one a client.
const ORDERS: usize = CLIENTS;
/// How long anybody is waited for.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// After a failure to take a client, such as no file left.
const AFTER_FAILURE: Duration = Duration::from_millis(200);
/// Tries to lock, and the time between two.
const LOCK_TRIES: usize = 25;
const BETWEEN_LOCK_TRIES: Duration = Duration::from_millis(20);
/// Stack of a thread that serves a client, bytes.
const STACK: usize = 256 << 10;

/// Why there is no socket.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Somebody else has it.
    #[error(
        "{path}: another service has this socket; stop it first, or give this one another \
         socket"
    )]
    Taken {
        /// Which socket.
        path: PathBuf,
    },
    /// Somebody else's service has, or had it.
    #[error(
        "{lock}: another user's, so that their service may run; stop it, or remove this \
             file where none runs"
    )]
    Foreign {
        /// What is theirs.
        lock: PathBuf,
    },
    /// There is something else.
    #[error("{path}: this is no socket; remove it, or name another path")]
    NoSocket {
        /// Which path.
        path: PathBuf,
    },
    /// It cannot be made.
    #[error("{path}: {reason}; name a socket in a folder that this user may write to")]
    Path {
        /// Which path.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
}

/// The socket, open until this is dropped.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    ended: Arc<AtomicBool>,
    /// Held as long as the socket is ours; the system lets go of it with the process.
    lock: File,
}

/// Something for the service to do.
#[derive(Debug)]
pub struct Order {
    command: Command,
    by: Option<u32>,
    ticket: Arc<AtomicU8>,
    reply: SyncSender<Result<String, String>>,
}

/// An order that the service has begun to follow.
#[derive(Debug)]
pub struct Begun {
    /// What to do.
    pub command: Command,
    /// User id of who orders it, where the system says.
    pub by: Option<u32>,
    reply: SyncSender<Result<String, String>>,
}

/// How far an order is.
///
/// ```text
///   WAITING -- the service begins --> BEGUN
///      +------ not in time ---------> WITHDRAWN
/// ```
const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const WITHDRAWN: u8 = 2;

impl Order {
    /// Begins to follow it; nothing if it was withdrawn meanwhile: an order that was not
    /// followed in time must not open the door later.
    pub fn begin(self) -> Option<Begun> {
        let Self { command, by, ticket, reply } = self;
        advance(&ticket, BEGUN).then_some(Begun { command, by, reply })
    }
}

impl Begun {
    /// Says what was done, or why not.
    pub fn answer(self, done: Result<String, String>) {
        // Whoever asked may have gone.
        let _ = self.reply.try_send(done);
    }
}

/// From waiting to something else, unless somebody was faster.
fn advance(ticket: &AtomicU8, to: u8) -> bool {
    ticket.compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

/// What all clients share.
struct Desk {
    snapshot: Arc<Mutex<Snapshot>>,
    orders: SyncSender<Order>,
    clients: AtomicUsize,
    patience: Duration,
}

impl Control {
    /// Opens the socket and serves it. The socket of a service that was killed is
    /// replaced, that of one that runs is not. Its folder is made if there is none, for
    /// this user and its group (0750), and the socket is theirs alone (0660).
    pub fn listen(
        path: &Path,
        snapshot: Arc<Mutex<Snapshot>>,
    ) -> Result<(Self, Receiver<Order>), ControlError> {
        Self::listen_patiently(path, snapshot, PATIENCE)
    }

    /// The same with another limit of time than [`PATIENCE`].
    pub fn listen_patiently(
        path: &Path,
        snapshot: Arc<Mutex<Snapshot>>,
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
        // Wakes the thread that waits for clients.
        let _ = UnixStream::connect(&self.path);
        let _ = std::fs::remove_file(&self.path);
        // Last, and not by closing alone: a program that another thread is starting has
        // the file, too, for as long as it takes to begin.
        let _ = self.lock.unlock();
    }
}

/// A lock beside the socket: a name in a folder outlives its process, a lock does not.
fn lock(path: &Path) -> Result<File, ControlError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let failed = |reason| ControlError::Path { path: PathBuf::from(&name), reason };
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(&name);
    let file = file.map_err(|reason| not_locked(Path::new(&name), reason))?;
    // Whoever started a program in the moment the lock was let go of has lent it that for
    // as long as the other takes to begin.
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(BETWEEN_LOCK_TRIES),
            Err(TryLockError::Error(reason)) => return Err(failed(reason)),
        }
    }
    Err(ControlError::Taken { path: path.to_owned() })
}

/// Why the lock does not open. One that is there and another user's tells of a service that
/// must not be fought over the relay.
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
        // Another program than ours may answer there.
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

/// Serves a client on a thread of its own, if not too many are served.
fn admit(stream: UnixStream, desk: &Arc<Desk>) {
    let place = Place(Arc::clone(desk));
    if desk.clients.fetch_add(1, Ordering::AcqRel) >= CLIENTS {
        let busy = format!("{CLIENTS} others are being served; try again");
        let _ = say(&stream, &Reply::error(busy), desk.patience);
        return;
    }
    let serving = move || {
        // Whoever broke off notices; nobody else has to.
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

/// One of the places for clients, given back whatever happens.
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
                // Where the next one begins nobody knows.
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
    /// Gives an order to the service and waits for its answer, for a bounded time.
    fn order(&self, command: Command, by: Option<u32>) -> Result<String, String> {
        let who = by.map_or_else(|| "somebody local".to_owned(), |uid| format!("uid {uid}"));
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
            TrySendError::Disconnected(_) => "the service is ending",
        })?;
        let answered = match answer.recv_timeout(self.patience) {
            Err(RecvTimeoutError::Timeout) if advance(&ticket, WITHDRAWN) => {
                return Err("the service did not take the order in time, and nothing was done; \
                            see facelatch status"
                    .to_owned());
            }
            // It has begun, and is near its end.
            Err(RecvTimeoutError::Timeout) => answer.recv_timeout(self.patience),
            answered => answered,
        };
        answered
            .map_err(|_| "the service did not say how that went; see facelatch status".to_owned())?
    }
}

/// The lines of a client.
struct Lines<'s> {
    stream: &'s UnixStream,
    buffer: [u8; MAX_REQUEST],
    filled: usize,
}

impl Lines<'_> {
    /// The next request; nothing where there is no more. The whole of it must come
    /// within `patience`, however it is cut into pieces.
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
                // The last one may come without its end of line.
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
