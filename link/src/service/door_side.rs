//! What follows from what the door says.

use super::core::{Action, Broker, Core, Identity, Now};
use super::core::{MQTT, Purpose, WEBHOOK};
use crate::door::DoorReport;
use crate::events::Events;
use crate::home::{self, Topics, discovery};
use crate::mqtt::{Publish, Qos};
use crate::text::plain;
use facelatch_messages::{DoorHello, DoorState, FromDoor, FromLink, LONGEST_TOPIC, LinkHello};
use facelatch_messages::{LARGEST_RECORD, PROTOCOL};
use log::Level;

/// Longest text of the door that is logged, characters.
const SHOWN: usize = 300;

impl Core {
    /// The door's connection reports something.
    pub fn door_report(&mut self, report: DoorReport, _now: Now) {
        match report {
            DoorReport::Connected => {
                let hello = LinkHello {
                    protocol: PROTOCOL,
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    after: self.events.after(),
                };
                self.actions.push(Action::ToDoor(FromLink::Hello(hello)));
            }
            DoorReport::Lost { reason } => {
                self.hello = None;
                self.reach = None;
                if !std::mem::take(&mut self.connecting_again) {
                    self.fault("door", Some(reason));
                    self.show_availability();
                }
            }
            DoorReport::Message(message) => self.door_message(*message),
        }
    }

    fn door_message(&mut self, message: FromDoor) {
        match message {
            FromDoor::Hello(hello) => self.door_hello(hello),
            FromDoor::Refused { reason } => {
                let reason = plain(&reason, SHOWN);
                self.fault("door", Some(format!("the door refuses this program: {reason}")));
            }
            // Before its hello a door says nothing that counts.
            _ if self.hello.is_none() => {}
            FromDoor::State(state) => {
                self.state = Some(state);
                self.show_state();
            }
            FromDoor::Event(event) => self.events.event(&event),
            FromDoor::Done { id, did } => self.answered(id, Ok(did)),
            FromDoor::Failed { id, reason } => self.answered(id, Err(reason)),
            FromDoor::Publish { id, topic, bytes, retain, expires_s } => {
                self.door_record(id, &topic, bytes.0, retain, expires_s);
            }
            FromDoor::Subscribe { filters } => {
                let gone = self.records.subscribe(filters);
                if let Some(records) = self.records_prefix()
                    && self.broker()
                    && !gone.is_empty()
                {
                    let gone = gone.iter().map(|filter| format!("{records}{filter}")).collect();
                    self.actions.push(Action::Unsubscribe(gone));
                }
            }
            FromDoor::Fetch { filters } => self.records.fetch(filters),
        }
    }

    fn door_hello(&mut self, hello: DoorHello) {
        if hello.protocol != PROTOCOL {
            let (theirs, fault) = (hello.protocol, "update the older of both programs");
            let fault = format!("the door speaks version {theirs} of the protocol; {fault}");
            self.fault("door", Some(fault));
            return;
        }
        let topics = match Topics::new(&self.settings.prefix, &hello.id, hello.site.as_deref()) {
            Ok(topics) => topics,
            Err(fault) => {
                self.fault("door", Some(fault));
                return;
            }
        };
        if self.door_id != hello.id {
            if !self.door_id.is_empty() {
                let text = "the door has another key than before; events are sent from now on";
                self.log(Level::Warn, text.to_owned());
            }
            let asked = self.events.after();
            self.events = Events::new(&[None, None]);
            self.events.wanted(MQTT, self.settings.mqtt);
            self.events.wanted(WEBHOOK, self.settings.webhook);
            self.door_id = hello.id.clone();
            if asked.is_some() {
                // It was asked for the events of the other one.
                self.connect_door_again();
                return;
            }
        }
        let welcome = self.events.hello(&hello);
        if welcome.began_again {
            let text = "the door's log began again; events are sent from now on";
            self.log(Level::Warn, text.to_owned());
            self.connect_door_again();
            return;
        }
        if welcome.lost > 0 {
            let lost = welcome.lost;
            self.log(
                Level::Warn,
                format!("up to {lost} events were deleted at the door before they were sent"),
            );
        }
        if self.topics.as_ref() != Some(&topics) {
            self.topics = Some(topics.clone());
            self.actions.push(Action::Identity(Identity { topics }));
        }
        let name = home::door_name(&hello);
        if self.faults.contains_key("door") || self.last_hello == DoorHello::default() {
            self.log(
                Level::Info,
                format!("connected to {name}, version {}", plain(&hello.version, 40)),
            );
        }
        self.faults.remove("door");
        self.orders.clear();
        self.hello = Some(hello.clone());
        self.last_hello = hello;
        self.reach = None;
        self.show_state();
        self.show_availability();
    }

    /// Retains the state, and announces the door.
    fn show_state(&mut self) {
        let (Some(topics), Some(state)) = (self.topics.clone(), self.state.clone()) else { return };
        self.announce(&topics, &state);
        for (name, payload) in home::states(&state) {
            self.retain(topics.of(name), payload);
        }
    }

    fn announce(&mut self, topics: &Topics, state: &DoorState) {
        if let Some(prefix) = &self.settings.discovery {
            let topic = topics.discovery(prefix);
            let content = discovery(topics, &self.last_hello, state);
            self.retain(topic, content);
        }
    }

    pub(super) fn show_availability(&mut self) {
        let Some(topics) = &self.topics else { return };
        let topic = topics.of("availability");
        let there = if self.hello.is_some() { "online" } else { "offline" };
        self.retain(topic, there.into());
    }

    fn answered(&mut self, id: u64, answer: Result<String, String>) {
        let Some(order) = self.orders.remove(&id) else {
            if let Err(reason) = answer {
                let reason = plain(&reason, SHOWN);
                // The door itself logs what is unusual.
                self.log(Level::Debug, format!("the door refuses a record: {reason}"));
            }
            return;
        };
        match &answer {
            Ok(did) => self.log(Level::Info, format!("order {order}: {}", plain(did, SHOWN))),
            Err(reason) => {
                self.log(Level::Warn, format!("order {order} refused: {}", plain(reason, SHOWN)));
            }
        }
        self.answer(order.name(), answer);
    }

    /// Publishes what became of an order.
    pub(super) fn answer(&mut self, order: &str, answer: Result<String, String>) {
        let Some(topics) = self.topics.as_ref().filter(|_| self.broker != Broker::Away) else {
            return;
        };
        let topic = topics.of("answer");
        let (key, text) = match &answer {
            Ok(did) => ("did", did),
            Err(reason) => ("refused", reason),
        };
        let payload = serde_json::json!({ "order": order, key: plain(text, SHOWN) });
        let publish = Publish {
            topic,
            payload: payload.to_string().into_bytes(),
            qos: Qos::AtMostOnce,
            expires_s: Some(60),
            ..Publish::default()
        };
        self.publish(Purpose::Other, publish);
    }

    fn door_record(
        &mut self,
        id: u64,
        topic: &str,
        payload: Vec<u8>,
        retain: bool,
        expires_s: Option<u32>,
    ) {
        let shown = plain(topic, LONGEST_TOPIC);
        let Some(prefix) = self.records_prefix() else {
            self.log(Level::Warn, format!("the door publishes {shown} and belongs to no site"));
            return;
        };
        if topic.len() > LONGEST_TOPIC || payload.len() > LARGEST_RECORD || id >> 63 != 0 {
            self.log(Level::Warn, format!("the door's record {shown} is too long"));
            return;
        }
        // The door publishes again what it still wants to say.
        self.outbox.done(id);
        let topic = format!("{prefix}{topic}");
        let publish = Publish { topic, payload, qos: Qos::AtLeastOnce, retain, expires_s };
        if self.outbox.add(id, publish).is_err() {
            self.log(Level::Warn, format!("too many records wait; {shown} is not published"));
        }
    }

    /// Beginning of the topics of the site's records; `None` without a site or a broker.
    pub(super) fn records_prefix(&self) -> Option<String> {
        self.topics.as_ref().filter(|_| self.settings.mqtt)?.records.clone()
    }
}
