//! Records of a site over a connection to the broker: fetched in parts, published until the
//! broker has them.

use crate::mqtt::{Client, Outbox, Publish, Qos, Report, Settings, Subscription};
use crate::records::{Records, Step};
use facelatch_site::Effect;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// Reports of the broker that wait.
const WAITING: usize = 256;
/// Longest pause without looking at what is due.
const PAUSE: Duration = Duration::from_millis(200);

/// What comes over the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The connection begins. Nothing is subscribed yet.
    Connected,
    /// Everything that the broker has for the filters was heard since the connection began.
    Fetched,
    /// A record.
    Record {
        /// Below the site's own part.
        topic: String,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// The connection is lost, or could not be made.
    Lost {
        /// The reason.
        reason: String,
    },
}

/// The connection.
pub struct Wire {
    client: Client,
    reports: Receiver<Report>,
    /// What all topics begin with.
    prefix: String,
    /// Number of the connection; 0 without one.
    session: u64,
    records: Records,
    outbox: Outbox,
    ticket: u64,
    /// Ticket of the filter that is fetched.
    fetching: u64,
    began: Instant,
    /// Records that the broker refused or that found no room, since the start.
    unsent: u64,
    /// Bytes of topics and records that were heard, since the start.
    heard: u64,
}

impl Wire {
    /// Starts to connect. Topics are `prefix` and what the site says; up to `most_bytes` of
    /// records wait to be sent.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(settings: Settings, prefix: String, most_bytes: usize) -> std::io::Result<Self> {
        let (sender, reports) = sync_channel(WAITING);
        let client = Client::start(settings, sender)?;
        Ok(Self {
            client,
            reports,
            prefix,
            session: 0,
            records: Records::default(),
            outbox: Outbox::new(most_bytes),
            ticket: 0,
            fetching: 0,
            began: Instant::now(),
            unsent: 0,
            heard: 0,
        })
    }

    /// Whether there is a connection.
    pub fn connected(&self) -> bool {
        self.session > 0
    }

    /// Whether the broker has everything that was published.
    pub fn idle(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Records that the broker refused or that found no room, since the start.
    pub fn unsent(&self) -> u64 {
        self.unsent
    }

    /// Bytes of topics and records that were heard, since the start.
    pub fn heard(&self) -> u64 {
        self.heard
    }

    /// Hears these filters, in place of those before.
    pub fn subscribe(&mut self, filters: Vec<String>) {
        let left = self.records.subscribe(filters);
        let left: Vec<String> = left.iter().map(|filter| self.full(filter)).collect();
        // If there is no room, more is heard than needed.
        let _ = self.client.unsubscribe(self.session, left);
    }

    /// Fetches what the broker has for these filters.
    pub fn fetch(&mut self, filters: Vec<String>) {
        self.records.fetch(filters);
    }

    /// Publishes a record, and again over the next connections until the broker has it.
    pub fn publish(&mut self, topic: &str, bytes: Vec<u8>, retain: bool, expires_s: Option<u32>) {
        if self.session == 0 && !retain {
            return;
        }
        self.ticket += 1;
        let publish = Publish {
            topic: self.full(topic),
            payload: bytes,
            qos: Qos::AtLeastOnce,
            retain,
            expires_s,
        };
        if self.outbox.add(self.ticket, publish).is_err() {
            self.unsent += 1;
        }
        self.send();
    }

    /// Carries out what concerns the connection, and returns the other effects.
    pub fn carry(&mut self, effects: Vec<Effect>) -> Vec<Effect> {
        let mut others = Vec::new();
        for effect in effects {
            match effect {
                Effect::Publish { topic, bytes, retain, expires_s } => {
                    self.publish(&topic, bytes, retain, expires_s);
                }
                Effect::Subscribe { filters } => self.subscribe(filters),
                Effect::Fetch { filters } => self.fetch(filters),
                other => others.push(other),
            }
        }
        others
    }

    /// What comes next; `None` if nothing does within `patience`.
    pub fn next_line(&mut self, patience: Duration) -> Option<Line> {
        let until = Instant::now() + patience;
        loop {
            if self.session > 0 {
                self.send();
                match self.records.step(self.began.elapsed()) {
                    Some(Step::Fetched) => return Some(Line::Fetched),
                    Some(Step::Unsubscribe(filter)) => {
                        let filter = self.full(&filter);
                        // If there is no room, more is heard than needed.
                        let _ = self.client.unsubscribe(self.session, vec![filter]);
                        continue;
                    }
                    Some(Step::Subscribe(filter)) => {
                        self.ticket += 1;
                        self.fetching = self.ticket;
                        let filter = self.full(&filter);
                        let subscription =
                            Subscription { filter, qos: Qos::AtLeastOnce, retained: true };
                        // Without room it is tried again after a while.
                        let _ =
                            self.client.subscribe(self.session, self.ticket, vec![subscription]);
                    }
                    None => {}
                }
            }
            let now = Instant::now();
            let due = self.records.due().map(|due| due.saturating_sub(self.began.elapsed()));
            let rest = until.saturating_duration_since(now);
            let wait = rest.min(due.unwrap_or(PAUSE)).min(PAUSE).max(Duration::from_millis(1));
            match self.reports.recv_timeout(wait) {
                Ok(report) => {
                    if let Some(line) = self.line(report) {
                        return Some(line);
                    }
                }
                Err(RecvTimeoutError::Timeout) if rest.is_zero() => return None,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(rest);
                    return None;
                }
            }
        }
    }

    /// Sends what waits and ends the connection.
    pub fn close(self, patience: Duration) -> bool {
        self.client.close(patience)
    }

    fn line(&mut self, report: Report) -> Option<Line> {
        match report {
            Report::Connected { session } => {
                self.session = session;
                self.outbox.begin_again();
                self.records.begin_again();
                Some(Line::Connected)
            }
            Report::Lost { reason, .. } => {
                self.session = 0;
                self.outbox.begin_again();
                self.records.begin_again();
                Some(Line::Lost { reason })
            }
            Report::Message(message) => {
                if message.retained {
                    self.records.heard(self.began.elapsed());
                }
                self.heard += (message.topic.len() + message.payload.len()) as u64;
                let topic = message.topic.strip_prefix(&self.prefix)?.to_owned();
                Some(Line::Record { topic, bytes: message.payload })
            }
            Report::Published { ticket } => {
                self.outbox.done(ticket);
                None
            }
            Report::Refused { ticket, reason } => {
                if self.outbox.done(ticket) {
                    self.unsent += 1;
                    log::warn!("a record of the site was not taken: {reason}");
                }
                None
            }
            Report::Subscribed { ticket, refused } => {
                if !refused.is_empty() {
                    log::warn!(
                        "the broker refuses a subscription to the site's records; give this user \
                         the right to read {}#",
                        self.prefix
                    );
                }
                if ticket == self.fetching {
                    self.records.answered(self.began.elapsed());
                }
                None
            }
        }
    }

    fn send(&mut self) {
        let (client, session) = (&self.client, self.session);
        if session > 0 {
            self.outbox.send(|ticket, publish| client.publish(session, ticket, publish.clone()));
        }
    }

    fn full(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }
}
