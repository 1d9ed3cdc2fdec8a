//! EDGE: the thread that serves all clients. It waits for none of them: a slow client costs
//! only its own place. In each round orders come before status queries.

use super::Starting;
use super::connection::Connection;
use super::limits::{Allowed, Limits, Line, SUMMARY_AFTER};
use super::order::OrderQueue;
use super::peer::Peer;
use super::places::{Held, Place, place};
use super::protocol::{Command, Reply, Request, RequestError};
use super::roles::{Class, Role, Roles};
use crate::access::door;
use crate::access::event::{Caller, plain};
use crate::service::status::Status;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::ErrorKind;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Clients accepted in one round, so that those who are connected are served meanwhile.
const ACCEPTED_PER_ROUND: usize = 4;
/// Time between two looks at orders in progress.
const ANSWER_EVERY: Duration = Duration::from_millis(10);
/// Pause after a client could not be accepted, for instance for lack of file descriptors.
const AFTER_FAILURE: Duration = Duration::from_millis(200);
/// Pause after a round in which somebody sent too much, so that a flood costs little time
/// of the processor.
const AFTER_EXCESS: Duration = Duration::from_millis(2);
/// How often the program looks whether suppressed lines are due to be summed up.
const SUMMARY_EVERY: Duration = Duration::from_secs(5);

/// The desk at which clients are served.
pub(super) struct Desk {
    pub listener: UnixListener,
    pub snapshot: Arc<Mutex<Status>>,
    pub queue: OrderQueue,
    pub starting: Starting,
    pub roles: Roles,
    pub patience: Duration,
    pub limits: Limits,
    pub connections: Vec<Connection>,
    /// Somebody sent too much in this round.
    pub excess: bool,
}

impl Desk {
    /// Serves clients until `ended`, and then tells those with an order in progress that the
    /// service stops.
    pub fn run(mut self, ended: &AtomicBool) {
        loop {
            let accepts = self.wait();
            if ended.load(Ordering::Acquire) {
                break;
            }
            let now = Instant::now();
            self.roles.refresh(now);
            if accepts {
                self.accept(now);
            }
            self.serve(now);
            self.answer(now);
            self.sum_up(now);
            let patience = self.patience;
            self.connections.retain(|client| !client.is_over(now, patience));
            if std::mem::take(&mut self.excess) {
                std::thread::sleep(AFTER_EXCESS);
            }
        }
        let now = Instant::now();
        for client in self.connections.iter_mut().filter(|client| client.order.is_some()) {
            client.refuse(&Reply::error("the service is stopping"), now);
        }
    }

    /// Waits until a client wants something or something is due; reads and writes what is
    /// ready. Returns whether new clients wait.
    fn wait(&mut self) -> bool {
        let timeout = self.timeout();
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let waits = |client: &Connection| client.wants_input() || client.wants_output();
        let mut sockets = vec![PollFd::new(&self.listener, PollFlags::IN)];
        sockets.extend(self.connections.iter().filter(|client| waits(client)).map(|client| {
            let flags = if client.wants_output() { PollFlags::OUT } else { PollFlags::IN };
            PollFd::from_borrowed_fd(client.socket(), flags)
        }));
        let polled = poll(&mut sockets, timeout.as_ref());
        let ready: Vec<bool> = sockets.iter().map(|fd| !fd.revents().is_empty()).collect();
        if let Err(error) = polled {
            if error.kind() != ErrorKind::Interrupted {
                log::warn!("control socket: {error}");
                std::thread::sleep(AFTER_FAILURE);
            }
            return false;
        }
        let now = Instant::now();
        let clients = self.connections.iter_mut().filter(|client| waits(client));
        for (client, _) in clients.zip(&ready[1..]).filter(|(_, ready)| **ready) {
            if client.wants_output() {
                client.send(now);
            } else {
                client.receive();
            }
        }
        ready[0]
    }

    /// Time until something is due; `None` if nothing is.
    fn timeout(&self) -> Option<Duration> {
        if self.connections.iter().any(Connection::has_request) {
            return Some(Duration::ZERO);
        }
        if self.connections.iter().any(|client| client.order.is_some()) {
            return Some(ANSWER_EVERY);
        }
        let due = self.connections.iter().filter_map(|client| client.due(self.patience)).min();
        let due = due.map(|due| due.saturating_duration_since(Instant::now()));
        let summary = self.limits.owes_summary().then_some(SUMMARY_EVERY);
        due.into_iter().chain(summary).min()
    }

    fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPTED_PER_ROUND {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    let peer = Peer::of(&stream);
                    let class = self.roles.class(peer);
                    match Connection::new(stream, peer, class, now) {
                        Ok(client) => self.admit(client, now),
                        Err(error) => log::warn!("control socket: {error}"),
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    log::warn!("control socket: {error}");
                    std::thread::sleep(AFTER_FAILURE);
                    return;
                }
            }
        }
    }

    /// Gives a client a place, or refuses it if every place of its class has an order in
    /// progress.
    fn admit(&mut self, mut client: Connection, now: Instant) {
        let held: Vec<Held> = self.connections.iter().map(Connection::held).collect();
        match place(&held, client.peer.uid, client.class) {
            Place::Free => {}
            Place::Of(index) => {
                self.excess = true;
                let mut gone = self.connections.swap_remove(index);
                // It may have hung up already.
                gone.receive();
                if !gone.is_over(now, self.patience) {
                    let told = "another client needs this place; connect again";
                    gone.refuse(&Reply::again(told), now);
                }
            }
            Place::None => {
                self.excess = true;
                let busy = "the service is busy with other orders; try again";
                client.refuse(&Reply::again(busy), now);
                return;
            }
        }
        // A client that sends its request at once needs no further round.
        client.receive();
        self.connections.push(client);
    }

    /// Takes one request of each client, the most urgent first.
    fn serve(&mut self, now: Instant) {
        let mut requests: Vec<_> = (0..self.connections.len())
            .filter_map(|index| Some((index, self.connections[index].request()?)))
            .collect();
        requests.sort_by_key(|(_, request)| urgency(request.as_ref().ok()));
        for (index, request) in requests {
            self.take(index, request, now);
        }
    }

    fn take(&mut self, index: usize, request: Result<Request, RequestError>, now: Instant) {
        let peer = self.connections[index].peer;
        let done = match self.permit(peer, request, now) {
            Ok(Request::Status) => {
                let snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
                Some(Reply::status(snapshot.clone().aged()))
            }
            Ok(Request::Order(command)) => match self.order(index, command.clone(), now) {
                None => None,
                Some(done) => {
                    self.log(peer, &command, &done, now);
                    Some(Reply::from(done))
                }
            },
            Err(reason) => Some(Reply::error(reason)),
        };
        if let Some(reply) = done {
            self.connections[index].reply(&reply, now);
        }
    }

    /// Whether a request is within the limits of its user.
    fn within_limits(&mut self, peer: Peer, request: Option<&Request>, now: Instant) -> bool {
        let allowed = self.limits.allow(peer.uid, request, now);
        self.excess |= allowed != Allowed::Yes;
        allowed != Allowed::No
    }

    /// The request if its user may send it now.
    fn permit(
        &mut self,
        peer: Peer,
        request: Result<Request, RequestError>,
        now: Instant,
    ) -> Result<Request, String> {
        let who = by(peer);
        let asked = request.as_ref().ok().cloned();
        let name = request.as_ref().map_or("a request".to_owned(), |one| format!("request {one}"));
        let role = request.as_ref().ok().map(Role::needed);
        let refused = if let Some(role) = role.filter(|role| !self.roles.allow(peer, *role)) {
            // Costs the sender a query, so that it cannot ask without end.
            let _ = self.within_limits(peer, None, now);
            format!(
                "{who} lacks the role {role}; name the user or a group under roles.{role} in the \
                 configuration, and restart the service"
            )
        } else if !self.within_limits(peer, request.as_ref().ok(), now) {
            format!("too many requests by {who}; wait some seconds")
        } else {
            match request {
                Ok(request) => return Ok(request),
                Err(error) => error.to_string(),
            }
        };
        if self.warn(peer, &format!("{name} by {who} refused: {refused}"), now) {
            let order = asked.as_ref().map_or("unknown".to_owned(), Request::to_string);
            let by = self.caller(peer, asked.as_ref());
            self.queue.note_refused(order, by, &refused);
        }
        Err(refused)
    }

    /// Who is at the other end, as far as the kernel shows it.
    fn caller(&self, peer: Peer, request: Option<&Request>) -> Caller {
        Caller {
            uid: peer.uid,
            login: peer.login(),
            role: request.map_or("", |request| Role::needed(request).name()),
            link: self.roles.class(peer) == Class::Link,
        }
    }

    /// Passes an order to the service. Returns the result if there is one already.
    fn order(
        &mut self,
        index: usize,
        command: Command,
        now: Instant,
    ) -> Option<Result<String, String>> {
        if let Some(done) = self.while_starting(&command) {
            return Some(done);
        }
        let request = Request::Order(command.clone());
        let by = self.caller(self.connections[index].peer, Some(&request));
        match self.queue.give(command, by, now) {
            Ok(ticket) => {
                self.connections[index].order = Some(ticket);
                None
            }
            Err(reason) => Some(Err(reason)),
        }
    }

    /// While models and people are read, nobody takes orders: lockdown is begun and ended in
    /// the file that the door obeys from its first moment, and everything else must wait.
    /// `None` once the door is watched.
    fn while_starting(&self, command: &Command) -> Option<Result<String, String>> {
        let starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        let file = starting.as_ref()?;
        let (holds, did) = match command {
            Command::Door(door::Command::Lockdown) => {
                (true, "the door is starting; lockdown will hold")
            }
            Command::Door(door::Command::Normal) => {
                (false, "the door is starting; lockdown will not hold")
            }
            _ => {
                let wait = "the door is starting: it reads models and people; try again shortly";
                return Some(Err(wait.to_owned()));
            }
        };
        let done = file.set(holds);
        if done.is_ok() {
            let mut snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
            snapshot.door = crate::service::status::DoorNow::starting(holds);
        }
        Some(done.map(|()| did.to_owned()).map_err(|error| error.to_string()))
    }

    /// Sends the results of orders that are done, or overdue.
    fn answer(&mut self, now: Instant) {
        for index in 0..self.connections.len() {
            let order = self.connections[index].order.as_ref();
            let Some(done) = order.and_then(|order| order.result(now, self.patience)) else {
                continue;
            };
            if let Some(order) = self.connections[index].order.take() {
                self.log(self.connections[index].peer, &order.command, &done, now);
            }
            self.connections[index].reply(&Reply::from(done), now);
        }
    }

    /// Logs an order and its result.
    fn log(&mut self, peer: Peer, command: &Command, done: &Result<String, String>, now: Instant) {
        let order = format!("order {command} by {}", by(peer));
        match done {
            Err(reason) => {
                self.warn(peer, &format!("{order} refused: {reason}"), now);
            }
            Ok(did) => {
                let text = format!("{order}: {did}");
                let often = matches!(command, Command::Door(door::Command::Lockdown));
                if !often {
                    log::info!("{}", plain(&text));
                } else if let Some(before) = self.limits.line(peer.uid, Line::Note, now) {
                    log::info!("{}{}", plain(&text), and_suppressed(before));
                }
            }
        }
    }

    /// Logs a refused request, unless there were too many of this user lately. Returns
    /// whether it was logged.
    fn warn(&mut self, peer: Peer, text: &str, now: Instant) -> bool {
        let line = self.limits.line(peer.uid, Line::Refusal, now);
        if let Some(before) = line {
            log::warn!("{}{}", plain(text), and_suppressed(before));
        }
        line.is_some()
    }

    /// Logs how many lines were suppressed.
    fn sum_up(&mut self, now: Instant) {
        for (uid, count) in self.limits.summaries(now) {
            let who = by(Peer { uid, ..Peer::default() });
            let seconds = SUMMARY_AFTER.as_secs();
            log::warn!("{count} requests by {who} in the last {seconds} seconds were not logged");
        }
    }
}

/// Orders first, and lockdown before all others.
fn urgency(request: Option<&Request>) -> u8 {
    match request {
        Some(Request::Order(Command::Door(door::Command::Lockdown))) => 0,
        Some(Request::Order(_)) => 1,
        Some(Request::Status) | None => 2,
    }
}

fn by(peer: Peer) -> String {
    peer.uid.map_or_else(|| "an unknown user".to_owned(), |uid| format!("uid {uid}"))
}

/// The end of a line of the log before which some were suppressed.
pub(in crate::service) fn and_suppressed(count: u64) -> String {
    if count == 0 { String::new() } else { format!("; {count} requests before were not logged") }
}
