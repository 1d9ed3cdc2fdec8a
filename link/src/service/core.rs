//! What follows from what door, broker, webhook and time bring: a state machine without any
//! device, file or clock.

use crate::events::cursor::Cursors;
use crate::events::{Advice, Events};
use crate::home::{self, Topics};
use crate::mqtt::{Outbox, Pauses, Publish, Qos, Subscription, chance};
use crate::records::{Records, Step};
use crate::webhook::{Outcome, Post};
use facelatch_messages::{DoorHello, DoorState, FromLink, LinkOrder, Reach};
use log::Level;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// Places of the receivers in [`Events`].
pub(super) const MQTT: usize = 0;
pub(super) const WEBHOOK: usize = 1;
/// Bytes of the door's records that wait for the broker.
const OUTBOX: usize = 8 << 20;
/// Records that are on their way to the broker at a time.
const MOST_RECORDS: usize = 16;
/// What the broker retains of our events has come this long after its answer.
pub(super) const SETTLE: Duration = Duration::from_secs(1);
/// Time until an event is sent again that the broker does not allow.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);
/// An event that the webhook refuses as often as this is left out.
const MOST_REFUSALS: u32 = 3;

/// Lines of the log per minute; a broker may send anything.
const MOST_LINES: u32 = 60;

/// What is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whether there is a broker.
    pub mqtt: bool,
    /// Whether there is a webhook.
    pub webhook: bool,
    /// Beginning of all topics.
    pub prefix: String,
    /// Discovery prefix of Home Assistant; `None` without discovery.
    pub discovery: Option<String>,
    /// Greatest age of an order.
    pub order_age: Duration,
}

/// The time, on each clock.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Never runs backwards.
    pub instant: Instant,
    /// Time since the program began.
    pub running: Duration,
    /// Microseconds since 1970.
    pub wall_us: i64,
}

/// Whom the topics belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The topics.
    pub topics: Topics,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Tell the door.
    ToDoor(FromLink),
    /// End the connection to the door and make a new one.
    ConnectDoorAgain,
    /// The door is known now: connect to the broker. A second one of another door: begin
    /// again with everything.
    Identity(Identity),
    /// Publish over the connection of now.
    Publish {
        /// Number for the answer.
        ticket: u64,
        /// The message.
        publish: Publish,
    },
    /// Subscribe over the connection of now.
    Subscribe {
        /// Number for the answer.
        ticket: u64,
        /// The filters.
        subscriptions: Vec<Subscription>,
    },
    /// Unsubscribe over the connection of now.
    Unsubscribe(Vec<String>),
    /// Post to the webhook.
    Post(Post),
    /// Write into the log.
    Log(Level, String),
}

/// What a ticket was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The event with this number.
    Event(u64),
    /// Something that is published again if it changes or the connection is new.
    Other,
    /// A record of the door.
    Record,
    /// Subscription to orders.
    Orders,
    /// Subscription to our own events.
    Own,
    /// Subscription to records.
    Records,
}

/// State of the connection to the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Broker {
    /// There is none.
    #[default]
    Away,
    /// What it has of our events is not known yet; `answered` since it answered.
    Settling {
        /// Time of its answer.
        answered: Option<Duration>,
    },
    /// Events are sent.
    Ready,
}

/// The state machine.
pub struct Core {
    pub(super) settings: Settings,
    pub(super) actions: Vec<Action>,
    pub(super) next_ticket: u64,
    pub(super) tickets: HashMap<u64, Purpose>,

    /// Number of the door whose events these are; empty before the first hello.
    pub(super) door_id: String,
    pub(super) topics: Option<Topics>,
    /// The door's hello, while there is a connection.
    pub(super) hello: Option<DoorHello>,
    /// The last hello and state, also of a door that is away.
    pub(super) last_hello: DoorHello,
    pub(super) state: Option<DoorState>,
    pub(super) events: Events,
    pub(super) records: Records,
    pub(super) outbox: Outbox,
    pub(super) records_under_way: usize,
    /// Orders that the door has not answered.
    pub(super) orders: HashMap<u64, LinkOrder>,
    /// The connection to the door ends because this program wants it.
    pub(super) connecting_again: bool,
    pub(super) reach: Option<Reach>,
    pub(super) fetched: bool,

    pub(super) broker: Broker,
    /// Orders are obeyed: the broker has answered the subscription of this connection.
    pub(super) orders_open: bool,
    /// What is retained, by topic.
    pub(super) wanted: BTreeMap<String, Vec<u8>>,
    pub(super) rediscover: Option<Duration>,
    pub(super) event_pause: Option<Duration>,

    /// Number of the event that is being posted.
    pub(super) posting: Option<u64>,
    pub(super) post_due: Option<Duration>,
    pub(super) post_pauses: Pauses,
    pub(super) refusals: u32,

    /// What is wrong, by where.
    pub(super) faults: BTreeMap<&'static str, String>,

    /// Site whose topics were retained last.
    pub(super) known_site: Option<String>,
    /// Minute of the program, and lines of the log in it.
    minute: u64,
    lines: u32,
}

impl Core {
    /// Begins with what is remembered.
    pub fn new(settings: Settings, cursors: &Cursors) -> Self {
        let cursor = |there: bool, cursor: Option<u64>| cursor.filter(|_| there);
        let mqtt = cursor(settings.mqtt, cursors.mqtt);
        let webhook = cursor(settings.webhook, cursors.webhook);
        let mut events = Events::new(&[mqtt, webhook]);
        events.wanted(MQTT, settings.mqtt);
        events.wanted(WEBHOOK, settings.webhook);
        Self {
            settings,
            actions: vec![],
            next_ticket: 0,
            tickets: HashMap::new(),
            door_id: cursors.door.clone(),
            topics: None,
            hello: None,
            last_hello: DoorHello::default(),
            state: None,
            events,
            records: Records::default(),
            outbox: Outbox::new(OUTBOX),
            records_under_way: 0,
            orders: HashMap::new(),
            connecting_again: false,
            reach: None,
            fetched: false,
            broker: Broker::Away,
            orders_open: false,
            wanted: BTreeMap::new(),
            rediscover: None,
            event_pause: None,
            posting: None,
            post_due: None,
            post_pauses: Pauses::new(Duration::from_secs(2), Duration::from_secs(300)),
            refusals: 0,
            faults: BTreeMap::new(),
            known_site: cursors.site.clone(),
            minute: 0,
            lines: 0,
        }
    }

    /// What is to be remembered.
    pub fn cursors(&self) -> Cursors {
        let cursors = self.events.cursors();
        Cursors {
            door: self.door_id.clone(),
            site: self.known_site.clone(),
            mqtt: cursors[MQTT].filter(|_| self.settings.mqtt),
            webhook: cursors[WEBHOOK].filter(|_| self.settings.webhook),
        }
    }

    /// What is wrong, by where; empty if nothing is.
    pub fn faults(&self) -> &BTreeMap<&'static str, String> {
        &self.faults
    }

    /// Whether the door is connected.
    pub fn door(&self) -> Option<&DoorHello> {
        self.hello.as_ref()
    }

    /// Whether the broker is connected.
    pub fn broker(&self) -> bool {
        self.broker != Broker::Away
    }

    /// Events that wait here, of the receiver that has most.
    pub fn waiting(&self) -> usize {
        self.events.waiting()
    }

    /// Notes what is wrong somewhere, or that nothing is.
    pub fn fault(&mut self, place: &'static str, fault: Option<String>) {
        let old = match &fault {
            Some(fault) => self.faults.insert(place, fault.clone()),
            None => self.faults.remove(place),
        };
        match (&fault, &old) {
            (Some(fault), old) if old.as_ref() != Some(fault) => {
                self.log(Level::Warn, format!("{place}: {fault}"));
            }
            (None, Some(_)) => self.log(Level::Info, format!("{place}: all is well again")),
            _ => {}
        }
    }

    pub(super) fn log(&mut self, level: Level, text: String) {
        self.lines += 1;
        match self.lines {
            0..MOST_LINES => self.actions.push(Action::Log(level, text)),
            MOST_LINES => {
                let text = "more is left out of the log in this minute".to_owned();
                self.actions.push(Action::Log(Level::Warn, text));
            }
            _ => {}
        }
    }

    pub(super) fn ticket(&mut self, purpose: Purpose) -> u64 {
        self.next_ticket += 1;
        self.tickets.insert(self.next_ticket, purpose);
        self.next_ticket
    }

    pub(super) fn publish(&mut self, purpose: Purpose, publish: Publish) {
        let ticket = self.ticket(purpose);
        self.actions.push(Action::Publish { ticket, publish });
    }

    /// Retains this content, from now on and over each new connection.
    pub(super) fn retain(&mut self, topic: String, payload: Vec<u8>) {
        if self.wanted.get(&topic) == Some(&payload) {
            return;
        }
        self.wanted.insert(topic.clone(), payload);
        if self.broker() {
            self.publish_wanted(&topic);
        }
    }

    pub(super) fn publish_wanted(&mut self, topic: &str) {
        let Some(payload) = self.wanted.get(topic) else { return };
        let publish = Publish {
            topic: topic.to_owned(),
            payload: payload.clone(),
            qos: Qos::AtLeastOnce,
            retain: true,
            expires_s: None,
        };
        self.publish(Purpose::Other, publish);
    }

    pub(super) fn publish_all(&mut self) {
        let topics: Vec<String> = self.wanted.keys().cloned().collect();
        for topic in topics {
            self.publish_wanted(&topic);
        }
    }

    /// Whatever follows from all that has changed, and from the time. Returns what is to be
    /// done.
    pub fn step(&mut self, now: Now) -> Vec<Action> {
        let minute = now.running.as_secs() / 60;
        if minute != self.minute {
            (self.minute, self.lines) = (minute, 0);
        }
        self.settle(now);
        if self.rediscover.is_some_and(|due| due <= now.running) {
            self.rediscover = None;
            self.publish_all();
        }
        if self.event_pause.is_some_and(|until| until <= now.running) {
            self.event_pause = None;
        }
        self.send_event(now);
        self.post_event(now);
        self.send_records();
        if self.broker() {
            self.fetch_records(now);
        }
        self.advise();
        self.show_link();
        self.tell_reach();
        std::mem::take(&mut self.actions)
    }

    /// When [`step`](Self::step) has to be called again at the latest.
    pub fn due(&self) -> Option<Duration> {
        let settle = match self.broker {
            Broker::Settling { answered: Some(since) } => Some(since + SETTLE),
            _ => None,
        };
        let records = self.records.due().filter(|_| self.broker());
        [settle, records, self.rediscover, self.event_pause, self.post_due]
            .into_iter()
            .flatten()
            .min()
    }

    fn settle(&mut self, now: Now) {
        if let Broker::Settling { answered: Some(since) } = self.broker
            && now.running >= since + SETTLE
        {
            self.broker = Broker::Ready;
            if let Some(topics) = &self.topics {
                let own = vec![topics.of("event"), topics.of("log")];
                self.actions.push(Action::Unsubscribe(own));
            }
        }
    }

    fn send_event(&mut self, now: Now) {
        if self.broker != Broker::Ready || self.event_pause.is_some() {
            return;
        }
        let Some(topics) = &self.topics else { return };
        let Some(event) = self.events.receiver(MQTT).next_event() else { return };
        let message = home::event_message(&topics.id, event, now.wall_us);
        let publish = Publish {
            topic: topics.of(home::event_topic(event.kind)),
            // Cannot fail: keys are text and all values can be written.
            payload: serde_json::to_vec(&message).unwrap_or_default(),
            qos: Qos::AtLeastOnce,
            // Says after the next connection what has arrived. Home Assistant takes an event
            // only when it happens.
            retain: true,
            expires_s: None,
        };
        let number = message.number;
        self.publish(Purpose::Event(number), publish);
    }

    fn post_event(&mut self, now: Now) {
        if !self.settings.webhook
            || self.posting.is_some()
            || self.post_due.is_some_and(|due| due > now.running)
        {
            return;
        }
        let id = self.door_id.clone();
        let Some(event) = self.events.receiver(WEBHOOK).next_event() else { return };
        let message = home::event_message(&id, event, now.wall_us);
        let body = serde_json::to_vec(&message).unwrap_or_default();
        let event = format!("{id}-{}", message.number);
        (self.posting, self.post_due) = (Some(message.number), None);
        self.actions.push(Action::Post(Post { event, body }));
    }

    /// The webhook has answered, or not.
    pub fn posted(&mut self, outcome: Outcome, now: Now) {
        let Some(number) = self.posting.take() else { return };
        match outcome {
            Outcome::Taken => {
                self.events.receiver(WEBHOOK).done(number);
                self.post_pauses.reset();
                self.refusals = 0;
                self.fault("webhook", None);
            }
            Outcome::Refused { reason } => {
                self.refusals += 1;
                if self.refusals < MOST_REFUSALS {
                    self.post_again(reason, now);
                } else {
                    self.refusals = 0;
                    self.log(Level::Error, format!("webhook: an event is left out: {reason}"));
                    self.events.receiver(WEBHOOK).done(number);
                    self.fault("webhook", Some(reason));
                }
            }
            Outcome::Failed { reason } => self.post_again(reason, now),
        }
    }

    fn post_again(&mut self, reason: String, now: Now) {
        self.events.receiver(WEBHOOK).failed();
        self.post_due = Some(now.running + self.post_pauses.next_pause(chance()));
        self.fault("webhook", Some(reason));
    }

    fn send_records(&mut self) {
        if !self.broker() {
            return;
        }
        let (mut sent, room) = (vec![], MOST_RECORDS.saturating_sub(self.records_under_way));
        self.outbox.send(|ticket, publish| {
            if sent.len() >= room {
                return Err(crate::mqtt::Full);
            }
            sent.push((ticket, publish.clone()));
            Ok(())
        });
        self.records_under_way += sent.len();
        for (id, publish) in sent {
            // The outbox knows it by the door's number.
            let ticket = record_ticket(id);
            self.tickets.insert(ticket, Purpose::Record);
            self.actions.push(Action::Publish { ticket, publish });
        }
    }

    fn fetch_records(&mut self, now: Now) {
        while let Some(step) = self.records.step(now.running) {
            match step {
                Step::Fetched => self.fetched = true,
                Step::Unsubscribe(filter) => {
                    if let Some(records) = self.topics.as_ref().and_then(|t| t.records.clone()) {
                        let gone = vec![format!("{records}{filter}")];
                        self.actions.push(Action::Unsubscribe(gone));
                    }
                }
                Step::Subscribe(filter) => {
                    self.fetched = false;
                    let Some(records) = self.topics.as_ref().and_then(|t| t.records.clone()) else {
                        return;
                    };
                    let subscription = Subscription {
                        filter: format!("{records}{filter}"),
                        // Brokers drop either silently when too much waits; this costs less.
                        qos: Qos::AtMostOnce,
                        retained: true,
                    };
                    let ticket = self.ticket(Purpose::Records);
                    let subscriptions = vec![subscription];
                    self.actions.push(Action::Subscribe { ticket, subscriptions });
                }
            }
        }
    }

    fn advise(&mut self) {
        if self.hello.is_none() {
            return;
        }
        match self.events.advice() {
            Advice::Stay => {}
            Advice::Taken(number) => self.actions.push(Action::ToDoor(FromLink::Taken { number })),
            Advice::Again => {
                self.connect_door_again();
            }
        }
    }

    /// Shows at the broker what is wrong with the link itself.
    fn show_link(&mut self) {
        let Some(topics) = &self.topics else { return };
        let topic = topics.of("link");
        let others = self.faults.iter().filter(|(place, _)| **place != "door");
        let fault: Vec<String> = others.map(|(place, fault)| format!("{place}: {fault}")).collect();
        let fault = (!fault.is_empty()).then(|| fault.join("; "));
        let content = serde_json::json!({ "fault": fault });
        self.retain(topic, content.to_string().into_bytes());
    }

    fn tell_reach(&mut self) {
        if self.hello.is_none() {
            return;
        }
        let others: Vec<String> = self
            .faults
            .iter()
            .filter(|(place, _)| **place != "door")
            .map(|(place, fault)| format!("{place}: {fault}"))
            .collect();
        let most = facelatch_messages::LONGEST_TEXT;
        let mut fault = others.join("; ");
        fault.truncate(fault.floor_char_boundary(most));
        let unknown = self.settings.mqtt && self.broker == Broker::Away;
        let reach = Reach {
            good: fault.is_empty() && !unknown,
            fault,
            broker: self.broker(),
            fetched: self.fetched && self.broker(),
        };
        if self.reach.as_ref() != Some(&reach) {
            self.reach = Some(reach.clone());
            self.actions.push(Action::ToDoor(FromLink::Reach(reach)));
        }
    }

    /// Ends the connection to the door on purpose.
    pub(super) fn connect_door_again(&mut self) {
        self.hello = None;
        self.connecting_again = true;
        self.actions.push(Action::ConnectDoorAgain);
    }

    /// The program ends: what is to be published before.
    pub fn goodbye(&mut self) -> Vec<Action> {
        self.hello = None;
        self.show_availability();
        std::mem::take(&mut self.actions)
    }

    pub(super) fn pause_events(&mut self, now: Now) {
        self.event_pause = Some(now.running + REFUSED_PAUSE);
    }
}

/// Tickets of the door's records are apart from all others.
pub(super) fn record_ticket(id: u64) -> u64 {
    id | 1 << 63
}
