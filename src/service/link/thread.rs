//! EDGE: the thread that serves the link.

use super::connection::{Connection, End, LinkTicket};
use super::event::Wording;
use super::feed::{Feed, READ};
use super::state::state_of;
use super::user::Served;
use super::{LinkSettings, LinkState, SiteEnds, door_id};
use crate::access::door;
use crate::access::event::{Caller, plain};
use crate::audit::entry::cut;
use crate::service::control::{
    Allowed, Command, LINK_ORDERS, Limits, Line, Peer, Request, and_suppressed,
};
use crate::storage::audit::AuditTail;
use facelatch_messages::{
    DoorEvent, DoorHello, DoorState, FromDoor, FromLink, LONGEST_TEXT, LONGEST_TOPIC, LinkHello,
    LinkOrder, PROTOCOL, Reach,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::unix::net::UnixListener;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Time between two looks at the log, the state and orders while a link is connected.
const TICK: Duration = Duration::from_millis(100);
/// Time between two tries to pass something on to the site.
const BUSY: Duration = Duration::from_millis(5);
/// The state is sent at least this often.
const STATE_EVERY: Duration = Duration::from_secs(60);
/// The log is read at least this often: commands append to it as well.
const READ_EVERY: Duration = Duration::from_secs(2);
/// Pause after a fault of the log or of accepting.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Messages of a link that are handled in one round.
const PER_ROUND: usize = 64;
/// Connections that are accepted in one round.
const ACCEPTED_PER_ROUND: usize = 4;
/// Pause after a round with more connections than a link makes.
const AFTER_EXCESS: Duration = Duration::from_millis(20);

/// What the site has to take in.
enum ForSite {
    Reach(bool, bool),
    Record(u64, String, Vec<u8>),
}

/// The thread's state.
pub(super) struct LinkThread {
    listener: UnixListener,
    settings: LinkSettings,
    wording: Wording,
    shown: LinkState,
    served: Served,
    limits: Limits,
    link: Option<Connection>,
    feed: Option<Feed>,
    state: Option<(DoorState, Instant)>,
    /// For the site, which is busy; nothing more is read until it takes this.
    to_site: Option<ForSite>,
    /// The site has not heard yet that the link is gone.
    gone: bool,
    /// Messages were left unread in the last round.
    more: bool,
    /// When the log could not be read last.
    failed: Option<Instant>,
}

impl LinkThread {
    /// Serves this socket.
    pub fn new(
        listener: UnixListener,
        settings: LinkSettings,
        wording: Wording,
        shown: LinkState,
    ) -> Self {
        let served = Served::new(&settings.config.user);
        Self {
            listener,
            settings,
            wording,
            shown,
            served,
            limits: Limits::default(),
            link: None,
            feed: None,
            state: None,
            to_site: None,
            gone: false,
            more: false,
            failed: None,
        }
    }

    /// Serves links until `ended`.
    pub fn run(mut self, ended: &AtomicBool) {
        let user = &self.settings.config.user;
        if self.served.uid(Instant::now()).is_none() {
            log::warn!(
                "link.user: {user:?} is no user of this system; until it is, only root and this \
                 service's user are served"
            );
        }
        loop {
            let accepts = self.wait();
            if ended.load(Ordering::Acquire) {
                break;
            }
            let now = Instant::now();
            if accepts {
                self.accept(now);
            }
            self.serve_site(now);
            self.listen(now);
            self.answer(now);
            self.report(now);
            self.end(now);
            for (uid, count) in self.limits.summaries(now) {
                let who = by(uid);
                log::warn!("link: {count} faults of {who} were not logged");
            }
        }
        self.close(&End::Gone);
    }

    /// Waits until somebody wants something or something is due, and sends what is ready to
    /// be sent. Returns whether new links wait.
    fn wait(&mut self) -> bool {
        let now = Instant::now();
        let mut sockets = vec![PollFd::new(&self.listener, PollFlags::IN)];
        let mut timeout = self.limits.owes_summary().then_some(READ_EVERY);
        if self.gone {
            timeout = Some(BUSY);
        }
        if let Some(link) = &mut self.link {
            let busy = if self.gone || self.to_site.is_some() { BUSY } else { TICK };
            timeout = Some(if self.more { Duration::ZERO } else { busy });
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::OUT, link.wants_output());
            let reads = self.to_site.is_none() && link.wants_input(now);
            flags.set(PollFlags::IN, reads);
            sockets.push(PollFd::from_borrowed_fd(link.socket(), flags));
        }
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let polled = poll(&mut sockets, timeout.as_ref());
        let ready: Vec<PollFlags> = sockets.iter().map(PollFd::revents).collect();
        if let Err(error) = polled {
            if error.kind() != ErrorKind::Interrupted {
                log::warn!("link: {error}");
                std::thread::sleep(AFTER_FAILURE);
            }
            return false;
        }
        if let (Some(link), Some(flags)) = (&mut self.link, ready.get(1)) {
            if flags.contains(PollFlags::OUT) {
                link.send(Instant::now());
            }
            // A peer that is gone is ready for ever, also if nothing is wanted of it.
            if flags.intersects(PollFlags::HUP | PollFlags::ERR) && !flags.contains(PollFlags::IN) {
                link.end = Some(End::Gone);
            }
        }
        ready.first().is_some_and(|flags| !flags.is_empty())
    }

    fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPTED_PER_ROUND {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    let peer = Peer::of(&stream);
                    if !self.served.serves(peer, now) {
                        let user = &self.settings.config.user;
                        let text =
                            format!("link: {} is not served: link.user is {user:?}", by(peer.uid));
                        self.warn(peer, &text, now);
                        continue;
                    }
                    match Connection::new(stream, peer, now) {
                        Ok(link) => self.admit(link, now),
                        Err(error) => log::warn!("link: {error}"),
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    log::warn!("link: {error}");
                    std::thread::sleep(AFTER_FAILURE);
                    return;
                }
            }
        }
        std::thread::sleep(AFTER_EXCESS);
    }

    /// Gives a link the only place: that of an earlier one of its user, or of anybody if it is
    /// root's.
    fn admit(&mut self, mut link: Connection, now: Instant) {
        let other = self.link.as_ref().map(|link| link.peer.uid);
        if other.is_some_and(|uid| uid != link.peer.uid && link.peer.uid != Some(0)) {
            let reason = "another user's link is connected; only one is served at a time";
            link.refuse(reason, now);
            link.send(now);
            self.warn(link.peer, &format!("link: {reason}"), now);
            return;
        }
        // A flood of connections costs its sender tokens, and then the connection.
        if self.limits.allow(link.peer.uid, None, now) == Allowed::No {
            let text = format!("link: {} connects too often", by(link.peer.uid));
            self.warn(link.peer, &text, now);
            std::thread::sleep(AFTER_EXCESS);
            return;
        }
        self.close(&End::Replaced);
        self.link = Some(link);
    }

    /// Handles what the link says.
    fn listen(&mut self, now: Instant) {
        self.more = false;
        for handled in 0.. {
            if !self.pass_on() {
                return;
            }
            let Some(link) = &mut self.link else { return };
            if handled == PER_ROUND {
                self.more = true;
                return;
            }
            match link.message(now) {
                Ok(Some(message)) => self.message(message, now),
                Ok(None) => return,
                Err(error) => {
                    let reason = format!("{error}; are the door and the link of one version?");
                    link.refuse(&plain(&reason), now);
                    return;
                }
            }
        }
    }

    /// Passes what waits on to the site. Returns whether nothing waits any more.
    fn pass_on(&mut self) -> bool {
        let Some(site) = &self.settings.site else { return true };
        if self.gone {
            self.gone = !site.reach(false, false);
        }
        if self.gone {
            return false;
        }
        let taken = match &self.to_site {
            None => true,
            Some(ForSite::Reach(broker, fetched)) => site.reach(*broker, *fetched),
            Some(ForSite::Record(id, topic, bytes)) => site.record(*id, topic, bytes),
        };
        if taken {
            self.to_site = None;
        }
        taken
    }

    /// Sends what the site has for the link.
    fn serve_site(&mut self, now: Instant) {
        let Some(site) = &self.settings.site else { return };
        let Some(link) = self.link.as_mut().filter(|link| link.greeted) else { return };
        while link.has_room() {
            let Some(message) = site.next() else { return };
            link.tell(&message, now);
        }
        link.send(now);
    }

    fn message(&mut self, message: FromLink, now: Instant) {
        let Some(link) = &mut self.link else { return };
        if let Some(fault) = fault(&message) {
            link.refuse(fault, now);
            return;
        }
        match message {
            FromLink::Hello(hello) if !link.greeted => self.greet(&hello, now),
            FromLink::Hello(_) => link.refuse("there was a hello already", now),
            _ if !link.greeted => link.refuse("the first message must be a hello", now),
            FromLink::Taken { number } => {
                // Numbers that it was not sent mean nothing.
                if link.untaken.contains(&number) {
                    link.untaken.retain(|sent| *sent > number);
                    self.shown.change(|shown| shown.taken = Some(number));
                }
            }
            FromLink::Order { id, order, by } => self.order(id, order, &by, now),
            FromLink::Reach(Reach { good, fault, broker, fetched }) => {
                self.shown.change(|shown| {
                    shown.reaches = Some(good);
                    shown.fault = (!fault.is_empty()).then(|| plain(&fault).into_owned());
                });
                self.to_site =
                    self.settings.site.is_some().then_some(ForSite::Reach(broker, fetched));
            }
            FromLink::Record { id, topic, bytes } if self.settings.site.is_some() => {
                self.to_site = Some(ForSite::Record(id, topic, bytes.0));
            }
            FromLink::Record { id, .. } => {
                let reason = "this door belongs to no site".to_owned();
                link.tell(&FromDoor::Failed { id, reason }, now);
            }
            FromLink::Published { .. } => {}
        }
    }

    fn greet(&mut self, hello: &LinkHello, now: Instant) {
        let Some(link) = &mut self.link else { return };
        if hello.protocol != PROTOCOL {
            let reason = format!(
                "the link speaks protocol {}, and this door (facelatch {}) speaks {PROTOCOL}; \
                 install facelatch-link of the same version",
                hello.protocol,
                env!("CARGO_PKG_VERSION")
            );
            link.refuse(&reason, now);
            return;
        }
        let tail = AuditTail::after(&self.settings.place, 0);
        let ends = tail.oldest().and_then(|oldest| Ok((oldest.unwrap_or(0), tail.newest()?)));
        // A log that cannot be read now is read later; nothing is passed over.
        let (oldest, newest) = ends.unwrap_or_else(|error| {
            log::warn!("link: {error}");
            (0, 0)
        });
        let after = match hello.after {
            None => newest,
            // Another log than the link has seen: all of it is new.
            Some(after) if after > newest => 0,
            Some(after) => after,
        };
        let tail = AuditTail::after(&self.settings.place, after);
        self.feed = Some(Feed { tail, ready: VecDeque::new(), read: now, seen: u64::MAX });
        self.state = None;
        link.greeted = true;
        let answer = DoorHello {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            id: door_id(&self.settings.key),
            door: cut(&self.settings.door),
            oldest,
            newest,
            orders: self.settings.config.orders.clone(),
            site: self.settings.site.as_ref().map(|site| site.site().to_owned()),
        };
        link.tell(&FromDoor::Hello(answer), now);
        let version = plain(&hello.version).into_owned();
        log::info!("link {version} of {} is connected", by(link.peer.uid));
        self.shown.change(|shown| {
            shown.connected = true;
            (shown.version, shown.taken) = (version, hello.after);
            (shown.reaches, shown.fault) = (None, None);
        });
    }

    /// Passes an order on, if the configuration allows it to the link.
    fn order(&mut self, id: u64, order: LinkOrder, way: &str, now: Instant) {
        let Some(link) = &mut self.link else { return };
        let command = Command::Door(match order {
            LinkOrder::Open => door::Command::Open,
            LinkOrder::Lockdown => door::Command::Lockdown,
            LinkOrder::Normal => door::Command::Normal,
            LinkOrder::AlwaysOpen => door::Command::AlwaysOpen,
        });
        let request = Request::Order(command.clone());
        let peer = link.peer;
        let lockdown = order == LinkOrder::Lockdown;
        // One more place for lockdown.
        let places = if lockdown { LINK_ORDERS } else { LINK_ORDERS - 1 };
        let refused = if !self.settings.config.orders.contains(&order) {
            Some(format!(
                "link.orders does not have \"{order}\"; add it to the configuration of the door, \
                 and restart the service"
            ))
        } else if self.limits.allow(peer.uid, Some(&request), now) == Allowed::No {
            Some("too many orders; wait some seconds".to_owned())
        } else if link.orders.len() >= places {
            Some("too many orders at once; wait for their results".to_owned())
        } else {
            None
        };
        let by = Caller { uid: peer.uid, login: None, role: "link", link: true };
        let way = plain(way).into_owned();
        let reason = match refused {
            Some(reason) => reason,
            None => match self.settings.orders.give(command, by.clone(), now) {
                Ok(ticket) => {
                    link.orders.push(LinkTicket { id, order, way, ticket });
                    return;
                }
                Err(reason) => reason,
            },
        };
        link.tell(&FromDoor::Failed { id, reason: reason.clone() }, now);
        self.shown.change(|shown| shown.refused += 1);
        let text = format!("order {order} of the link ({way}) refused: {reason}");
        if self.warn(peer, &text, now) {
            self.settings.orders.note_refused(order.to_string(), by, &reason);
        }
    }

    /// Sends the results of orders that are done or overdue.
    fn answer(&mut self, now: Instant) {
        let Some(link) = &mut self.link else { return };
        let patience = self.settings.patience;
        let mut done = Vec::new();
        link.orders.retain(|order| match order.ticket.result(now, patience) {
            Some(result) => {
                done.push((order.id, order.order, order.way.clone(), result));
                false
            }
            None => true,
        });
        let peer = link.peer;
        for (id, order, way, result) in done {
            let text = format!("order {order} of the link ({way})");
            let answer = match &result {
                Ok(did) => FromDoor::Done { id, did: cut(did) },
                Err(reason) => FromDoor::Failed { id, reason: cut(reason) },
            };
            if let Some(link) = &mut self.link {
                link.tell(&answer, now);
            }
            match result {
                Ok(did) => {
                    if let Some(before) = self.limits.line(peer.uid, Line::Note, now) {
                        log::info!(
                            "{}{}",
                            plain(&format!("{text}: {did}")),
                            and_suppressed(before)
                        );
                    }
                }
                Err(reason) => {
                    self.warn(peer, &format!("{text} refused: {reason}"), now);
                }
            }
        }
    }

    /// Sends the state if it is another or old, and events.
    fn report(&mut self, now: Instant) {
        let Some(link) = &mut self.link else { return };
        if link.greeted && link.has_room() {
            let state = {
                let status = self.settings.status.lock();
                state_of(&status.unwrap_or_else(PoisonError::into_inner))
            };
            let site = self.settings.site.as_ref().map(SiteEnds::state);
            let state = DoorState { site, ..state };
            let same = self.state.as_ref().is_some_and(|(told, at)| {
                *told == state && now.saturating_duration_since(*at) < STATE_EVERY
            });
            if !same {
                link.tell(&FromDoor::State(state.clone()), now);
                self.state = Some((state, now));
            }
        }
        while self.link.as_ref().is_some_and(Connection::takes_events) {
            let Some(event) = self.next_event(now) else { break };
            if let Some(link) = &mut self.link {
                link.untaken.push_back(event.number);
                link.tell(&FromDoor::Event(event), now);
            }
        }
        if let Some(link) = &mut self.link {
            link.send(now);
        }
    }

    /// The next event of the log; `None` if there is none yet.
    fn next_event(&mut self, now: Instant) -> Option<DoorEvent> {
        let feed = self.feed.as_mut()?;
        if let Some(event) = feed.ready.pop_front() {
            return Some(event);
        }
        let last = self.settings.auditor.state().last;
        let due = feed.seen != last || now.saturating_duration_since(feed.read) >= READ_EVERY;
        let waits =
            self.failed.is_some_and(|failed| now.saturating_duration_since(failed) < AFTER_FAILURE);
        if !due || waits {
            return None;
        }
        match feed.fill(&self.wording) {
            // All that there was is read.
            Ok(read) if read < READ => (feed.seen, feed.read) = (last, now),
            Ok(_) => {}
            Err(error) => {
                if self.failed.replace(now).is_none() {
                    log::warn!("link: {error}; events wait until the log can be read");
                }
                return None;
            }
        }
        self.failed = None;
        feed.ready.pop_front()
    }

    /// Closes the connection if it is over.
    fn end(&mut self, now: Instant) {
        let Some(link) = &self.link else { return };
        let Some(end) = link.over(now, self.settings.patience) else { return };
        let (peer, greeted) = (link.peer, link.greeted);
        let who = by(peer.uid);
        match &end {
            End::Refused(reason) => {
                self.warn(peer, &format!("link of {who} closed: {reason}"), now);
            }
            End::Silent => {
                let what = if greeted { "does not read" } else { "says no hello" };
                self.warn(peer, &format!("link of {who} closed: it {what}"), now);
            }
            End::Gone | End::Replaced => {}
        }
        self.close(&end);
    }

    /// Closes the connection. Its orders that have not begun are withdrawn, except for
    /// lockdown.
    fn close(&mut self, end: &End) {
        let Some(link) = self.link.take() else { return };
        if let Some(site) = &self.settings.site {
            site.clear();
        }
        (self.gone, self.to_site) = (self.settings.site.is_some(), None);
        let orders = link.orders.iter().filter(|order| order.order != LinkOrder::Lockdown);
        orders.for_each(|order| order.ticket.withdraw());
        (self.feed, self.state) = (None, None);
        if link.greeted && *end == End::Gone {
            log::info!("link of {} has gone", by(link.peer.uid));
        }
        self.shown.change(|shown| {
            shown.connected = false;
            shown.closed += u64::from(matches!(end, End::Refused(_) | End::Silent));
        });
    }

    /// Logs a fault, unless there were too many of this user lately. Returns whether it was
    /// logged.
    fn warn(&mut self, peer: Peer, text: &str, now: Instant) -> bool {
        let line = self.limits.line(peer.uid, Line::Refusal, now);
        if let Some(before) = line {
            log::warn!("{}{}", plain(text), and_suppressed(before));
        }
        line.is_some()
    }
}

/// What is wrong with the texts of a message; `None` if nothing is.
fn fault(message: &FromLink) -> Option<&'static str> {
    let (text, topic) = match message {
        FromLink::Hello(hello) => (hello.version.as_str(), ""),
        FromLink::Order { by, .. } => (by.as_str(), ""),
        FromLink::Reach(reach) => (reach.fault.as_str(), ""),
        FromLink::Record { topic, .. } => ("", topic.as_str()),
        FromLink::Taken { .. } | FromLink::Published { .. } => ("", ""),
    };
    if text.len() > LONGEST_TEXT {
        Some("a text is longer than 400 bytes")
    } else if topic.len() > LONGEST_TOPIC {
        Some("a topic is longer than 200 bytes")
    } else {
        None
    }
}

fn by(uid: Option<u32>) -> String {
    uid.map_or_else(|| "an unknown user".to_owned(), |uid| format!("uid {uid}"))
}
