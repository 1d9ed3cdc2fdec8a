//! EDGE: reports passages here to other doors of the same area, over the control sockets
//! of their services, so that anti-passback covers all of them.
//!
//! Each neighbour has its own thread, so that one that does not answer delays no other.
//! Passages that could not be reported are sent later, with their age.

use crate::access::door::Role;
use crate::hardware::backoff::Retry;
use crate::service::control::{Command, Passage, Request, ask};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Capacity of the queue to a thread, and of its list for an unreachable neighbour; a
/// full list drops its oldest passage.
const WAITING: usize = 64;
/// Longest wait when there is nothing to report.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Stack size of a thread in bytes.
const STACK: usize = 256 << 10;

/// A passage at this door.
struct Passed {
    who: String,
    way: Role,
    at: Instant,
}

/// The other doors. Their threads end when this is dropped, or a few seconds later.
#[derive(Debug, Default)]
pub struct Neighbours {
    doors: Vec<(PathBuf, SyncSender<Passed>)>,
}

impl Neighbours {
    /// Starts a thread for each of these sockets, which may come and go.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(sockets: &[PathBuf]) -> io::Result<Self> {
        let start = |socket: &PathBuf| {
            let (sender, queue) = sync_channel(WAITING);
            let path = socket.clone();
            let thread = std::thread::Builder::new().name("neighbour".to_owned()).stack_size(STACK);
            thread.spawn(move || tell_all(&path, &queue))?;
            Ok((socket.clone(), sender))
        };
        Ok(Self { doors: sockets.iter().map(start).collect::<io::Result<_>>()? })
    }

    /// Reports that somebody passes here now. Never blocks.
    pub fn tell(&self, who: &str, way: Role) {
        for (socket, queue) in &self.doors {
            let passed = Passed { who: who.to_owned(), way, at: Instant::now() };
            if queue.try_send(passed).is_err() {
                log::warn!("{}: cannot report that {who} passed: queue full", socket.display());
            }
        }
    }
}

/// Reports all passages to one neighbour, in order, until the queue is closed.
fn tell_all(socket: &Path, queue: &Receiver<Passed>) {
    let began = Instant::now();
    let (mut untold, mut retry) = (VecDeque::new(), Retry::default());
    loop {
        let wait = match untold.is_empty() {
            true => LONGEST_WAIT,
            false => retry.due().saturating_sub(began.elapsed()),
        };
        match queue.recv_timeout(wait) {
            Ok(passed) => {
                if untold.len() == WAITING {
                    untold.pop_front();
                }
                untold.push_back(passed);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Some(passed) = untold.front()
            && began.elapsed() >= retry.due()
        {
            match tell(socket, passed) {
                Ok(()) => {
                    untold.pop_front();
                    if retry.succeeded() {
                        log::info!("{}: receives passages again", socket.display());
                    }
                }
                Err(reason) => {
                    if retry.failed(began.elapsed(), &reason) {
                        log::warn!("{reason}; passages are reported to this door later");
                    }
                }
            }
        }
    }
}

fn tell(socket: &Path, Passed { who, way, at }: &Passed) -> Result<(), String> {
    let passage = Passage { who: who.clone(), way: *way, ago: at.elapsed() };
    let request = Request::Order(Command::Passed(passage));
    if let Err(error) = Request::parse(request.line().as_bytes()) {
        // No door would take it, now or later.
        log::warn!("{}: cannot report that {who} passed: {error}", socket.display());
        return Ok(());
    }
    let reply = ask(socket, &request).map_err(|error| error.to_string())?;
    reply.error.map_or(Ok(()), |reason| Err(format!("{}: {reason}", socket.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RolesConfig;
    use crate::service::control::{self, Control, ControlSettings};
    use crate::service::status::Status;
    use std::os::unix::net::UnixListener;
    use std::sync::{Arc, Mutex};

    /// Long enough for any machine.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn an_unreachable_door_gets_the_passages_later_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("control.sock");
        let neighbours = Neighbours::start(std::slice::from_ref(&socket)).expect("threads");
        neighbours.tell("Ada Lovelace", Role::In);
        neighbours.tell("Grace \"Amazing\" Hopper", Role::Out);
        // The neighbour starts only now, and refuses the first passage.
        std::thread::sleep(Duration::from_millis(50));
        let snapshot = Arc::new(Mutex::new(Status::default()));
        let roles = RolesConfig { neighbour: vec!["*".to_owned()], ..RolesConfig::default() };
        let settings = ControlSettings { roles, ..ControlSettings::default() };
        let (_control, orders) = Control::listen(&socket, snapshot, settings).expect("a socket");
        let next = || orders.recv_timeout(PATIENCE).expect("an order").begin().expect("in time");
        next().answer(Err("not yet".to_owned()));
        let all = [("Ada Lovelace", Role::In), ("Grace \"Amazing\" Hopper", Role::Out)];
        for (name, role) in all {
            let begun = next();
            let Command::Passed(Passage { who, way, ago }) = &begun.command else {
                panic!("{:?}", begun.command)
            };
            assert_eq!((who.as_str(), *way), (name, role));
            assert!(*ago >= Duration::from_millis(50) && *ago < PATIENCE, "{ago:?}");
            begun.answer(Ok("noted".to_owned()));
        }
    }

    #[test]
    fn a_name_that_no_door_takes_holds_up_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("control.sock");
        let roles = RolesConfig { neighbour: vec!["*".to_owned()], ..RolesConfig::default() };
        let settings = ControlSettings { roles, ..ControlSettings::default() };
        let (_control, orders) =
            Control::listen(&socket, Arc::default(), settings).expect("a socket");
        let neighbours = Neighbours::start(std::slice::from_ref(&socket)).expect("threads");
        neighbours.tell("Ada\u{202e}", Role::In);
        neighbours.tell("Grace", Role::In);
        let begun = orders.recv_timeout(PATIENCE).expect("an order").begin().expect("in time");
        assert!(matches!(&begun.command, Command::Passed(Passage { who, .. }) if who == "Grace"));
    }

    #[test]
    fn a_passage_waits_for_no_other_door() {
        let folder = tempfile::tempdir().expect("a folder");
        let sockets = [folder.path().join("silent.sock"), folder.path().join("none.sock")];
        // It accepts connections and never answers.
        let silent = UnixListener::bind(&sockets[0]).expect("a socket");
        let neighbours = Neighbours::start(&sockets).expect("threads");
        neighbours.tell("Ada", Role::In);
        let (_held, _) = silent.accept().expect("its neighbour");
        // If `tell` waited for an answer, it would take 15 s.
        let began = Instant::now();
        for _ in 0..5 * WAITING {
            neighbours.tell("Ada", Role::In);
        }
        assert!(began.elapsed() < 2 * control::PATIENCE, "{:?}", began.elapsed());
    }
}
