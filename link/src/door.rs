//! EDGE: the connection to the door's socket, on one thread. It connects again when the door
//! was away.

use crate::mqtt::{Pauses, chance};
use crate::reports::Reports;
use crate::wake::{self, Waker, Woken};
use facelatch_messages::{FromDoor, FromLink, Lines, write_line};
use rustix::event::PollFlags;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

/// A door that takes nothing for this time is given up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Most bytes that wait for the door. Records of a site are held back long before.
const MOST_BYTES: usize = 8 << 20;
/// The door speaks at least once a minute; after this time it is given up.
const SILENCE: Duration = Duration::from_secs(180);

/// What the thread reports.
#[derive(Clone, Debug, PartialEq)]
pub enum DoorReport {
    /// The socket is open; the door waits for the hello.
    Connected,
    /// A message of the door.
    Message(Box<FromDoor>),
    /// The connection is lost or could not be made.
    Lost {
        /// The reason, and the cure if one is known.
        reason: String,
    },
}

#[derive(Default)]
struct Queue {
    open: bool,
    bytes: Vec<u8>,
    again: bool,
    stop: bool,
}

/// The connection. Dropped, it ends.
pub struct Door {
    shared: Waker<Queue>,
}

impl Door {
    /// Starts to connect to this socket.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start<T: From<DoorReport> + Send + 'static>(
        socket: PathBuf,
        reports: SyncSender<T>,
    ) -> std::io::Result<Self> {
        let (shared, woken) = wake::pair()?;
        std::thread::Builder::new().name("door".to_owned()).spawn(move || {
            connect_again_and_again(&socket, &woken, Reports::new(reports));
        })?;
        Ok(Self { shared })
    }

    /// Sends a message; none is sent while there is no connection.
    pub fn send(&self, message: &FromLink) {
        let mut queue = self.shared.lock();
        if queue.open {
            queue.bytes.extend(write_line(message));
            // A door that takes nothing is as good as gone.
            queue.again |= queue.bytes.len() > MOST_BYTES;
            drop(queue);
            self.shared.wake();
        }
    }

    /// Bytes that wait for the door.
    pub fn waiting(&self) -> usize {
        self.shared.lock().bytes.len()
    }

    /// Ends the connection and makes a new one at once.
    pub fn connect_again(&self) {
        self.shared.lock().again = true;
        self.shared.wake();
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.wake();
    }
}

fn connect_again_and_again<T: From<DoorReport>>(
    socket: &Path,
    shared: &Woken<Queue>,
    mut reports: Reports<T>,
) {
    let mut pauses = Pauses::new(Duration::from_millis(500), Duration::from_secs(10));
    loop {
        let began = Instant::now();
        let end = carry(socket, shared, &mut reports);
        let mut queue = shared.lock();
        let (stop, at_once) = (queue.stop || reports.gone, std::mem::take(&mut queue.again));
        *queue = Queue { stop, ..Queue::default() };
        drop(queue);
        if stop {
            return;
        }
        reports.add(DoorReport::Lost { reason: end });
        if began.elapsed() > PATIENCE || at_once {
            pauses.reset();
        }
        let mut rest = pauses.next_pause(chance());
        if at_once {
            rest = Duration::from_millis(50);
        }
        if !shared.rest(rest, &mut reports, |queue| queue.stop) {
            return;
        }
    }
}

/// One connection; returns the reason for its end.
fn carry<T: From<DoorReport>>(
    path: &Path,
    shared: &Woken<Queue>,
    reports: &mut Reports<T>,
) -> String {
    let mut socket = match UnixStream::connect(path) {
        Ok(socket) => socket,
        Err(error) => {
            let cure = match error.kind() {
                ErrorKind::NotFound => "; does the door run, and has it link.socket?",
                ErrorKind::ConnectionRefused => "; does the door run?",
                ErrorKind::PermissionDenied => {
                    "; this user must be in the group of the socket's folder"
                }
                _ => "",
            };
            return format!("{}: {error}{cure}", path.display());
        }
    };
    if let Err(error) = socket.set_nonblocking(true) {
        return error.to_string();
    }
    {
        let mut queue = shared.lock();
        *queue = Queue { open: true, stop: queue.stop, ..Queue::default() };
    }
    reports.add(DoorReport::Connected);
    let (mut lines, mut buffer) = (Lines::default(), vec![0; 64 << 10]);
    let (mut heard, mut moved) = (Instant::now(), Instant::now());
    loop {
        reports.pass_on();
        let waiting = {
            let mut queue = shared.lock();
            if queue.stop || queue.again || reports.gone {
                return "this program ended the connection".to_owned();
            }
            match socket.write(&queue.bytes) {
                Ok(written) => {
                    queue.bytes.drain(..written);
                    moved = Instant::now();
                }
                Err(error) if retry(&error) => {}
                Err(error) => return format!("the door has closed the connection: {error}"),
            }
            !queue.bytes.is_empty()
        };
        if waiting && moved.elapsed() > PATIENCE {
            return "the door takes nothing more".to_owned();
        }
        if heard.elapsed() > SILENCE {
            return format!("the door has been silent for {} s", heard.elapsed().as_secs());
        }
        let stalled = reports.stalled();
        let mut wanted = if stalled { PollFlags::empty() } else { PollFlags::IN };
        if waiting {
            wanted |= PollFlags::OUT;
        }
        let wanted = (!wanted.is_empty()).then_some((&socket as &dyn AsFd, wanted));
        shared.wait(wanted, Duration::from_millis(if stalled { 20 } else { 1000 }));
        while !reports.stalled() {
            match socket.read(&mut buffer) {
                Ok(0) => return "the door has closed the connection".to_owned(),
                Ok(read) => {
                    heard = Instant::now();
                    if let Err(fault) = take(&mut lines, &buffer[..read], reports) {
                        return fault;
                    }
                }
                Err(error) if retry(&error) => break,
                Err(error) => return format!("the door has closed the connection: {error}"),
            }
        }
        if stalled {
            heard = Instant::now();
        }
    }
}

fn take<T: From<DoorReport>>(
    lines: &mut Lines,
    bytes: &[u8],
    reports: &mut Reports<T>,
) -> Result<(), String> {
    lines.add(bytes).map_err(|error| format!("the door sent something else: {error}"))?;
    while let Some(message) = lines.next_message::<FromDoor>() {
        match message {
            Ok(Some(message)) => reports.add(DoorReport::Message(Box::new(message))),
            // Of a newer door.
            Ok(None) => {}
            Err(error) => {
                let error = crate::text::plain(&error.to_string(), 200);
                return Err(format!("the door sent something else: {error}"));
            }
        }
    }
    Ok(())
}

fn retry(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
