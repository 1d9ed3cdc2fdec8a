//! What follows from what the broker says.

use super::core::{Action, Broker, Core, MQTT, Now, Purpose};
use crate::home::{self, Topics};
use crate::mqtt::{Message, Publish, Qos, Report, Subscription, chance};
use crate::text::plain;
use facelatch_messages::{Bytes, FromLink, LARGEST_RECORD, LONGEST_TOPIC};
use log::Level;
use std::time::Duration;

/// Orders that may wait for the door's answer.
const MOST_ORDERS: usize = 8;
/// After Home Assistant has started, all doors of a house wait for up to this time by chance.
const REDISCOVER: Duration = Duration::from_secs(10);

impl Core {
    /// The broker's connection reports something.
    pub fn broker_report(&mut self, report: Report, now: Now) {
        match report {
            Report::Connected { .. } => self.broker_connected(),
            Report::Lost { reason, .. } => {
                self.broker = Broker::Away;
                self.broker_gone();
                self.fault("broker", Some(reason));
            }
            Report::Published { ticket } => match self.tickets.remove(&ticket) {
                Some(Purpose::Event(number)) => {
                    self.events.receiver(MQTT).done(number);
                    self.fault("topic of events", None);
                }
                Some(Purpose::Record) => {
                    self.records_under_way = self.records_under_way.saturating_sub(1);
                    let id = ticket & !(1 << 63);
                    if self.outbox.done(id) {
                        self.actions.push(Action::ToDoor(FromLink::Published { id }));
                    }
                }
                _ => {}
            },
            Report::Refused { ticket, reason } => self.broker_refuses(ticket, reason, now),
            Report::Subscribed { ticket, refused } => self.subscribed(ticket, &refused, now),
            Report::Message(message) => self.broker_message(message, now),
        }
    }

    fn broker_gone(&mut self) {
        self.tickets.clear();
        self.orders_open = false;
        self.records_under_way = 0;
        self.outbox.begin_again();
        self.records.begin_again();
        self.fetched = false;
        self.event_pause = None;
        self.events.receiver(MQTT).failed();
    }

    fn broker_connected(&mut self) {
        self.broker_gone();
        let Some(topics) = self.topics.clone() else { return };
        if self.faults.contains_key("broker") || self.next_ticket == 0 {
            self.log(Level::Info, "connected to the broker".to_owned());
        }
        self.faults.retain(|place, _| !matches!(*place, "broker" | "topic" | "topic of events"));
        self.broker = Broker::Settling { answered: None };
        let filter = |filter: String, retained| {
            // An order that waits for a door that was away would come too late.
            Subscription { filter, qos: Qos::AtMostOnce, retained }
        };
        let own = vec![filter(topics.of("event"), true), filter(topics.of("log"), true)];
        let ticket = self.ticket(Purpose::Own);
        self.actions.push(Action::Subscribe { ticket, subscriptions: own });
        let mut orders = vec![filter(topics.of("order"), false)];
        if let Some(prefix) = &self.settings.discovery {
            orders.push(filter(format!("{prefix}/status"), false));
        }
        let ticket = self.ticket(Purpose::Orders);
        self.actions.push(Action::Subscribe { ticket, subscriptions: orders });
        self.leave_old_site(&topics);
        self.publish_all();
    }

    /// Empties what is retained below another site, to which the door belonged before.
    fn leave_old_site(&mut self, topics: &Topics) {
        let site = self.last_hello.site.clone();
        if self.known_site == site {
            return;
        }
        let old = std::mem::replace(&mut self.known_site, site);
        if let Ok(old) = Topics::new(&self.settings.prefix, &topics.id, old.as_deref()) {
            for topic in old.retained() {
                let empty =
                    Publish { topic, qos: Qos::AtLeastOnce, retain: true, ..Publish::default() };
                self.publish(Purpose::Other, empty);
            }
        }
    }

    fn subscribed(&mut self, ticket: u64, refused: &[usize], now: Now) {
        let purpose = self.tickets.remove(&ticket);
        let what = match purpose {
            Some(Purpose::Own) => "its own events (B/event, B/log)",
            Some(Purpose::Orders) => "orders (B/order)",
            Some(Purpose::Records) => "records of the site (fleet/#)",
            _ => return,
        };
        if !refused.is_empty() {
            let fault = format!("the broker does not let the door read {what}; check its ACL");
            self.fault("topic", Some(fault));
        }
        match purpose {
            Some(Purpose::Own) => {
                self.broker = Broker::Settling { answered: Some(now.running) };
            }
            Some(Purpose::Orders) => self.orders_open = true,
            _ => self.records.answered(now.running),
        }
    }

    fn broker_refuses(&mut self, ticket: u64, reason: String, now: Now) {
        match self.tickets.remove(&ticket) {
            Some(Purpose::Event(_)) => {
                self.events.receiver(MQTT).failed();
                self.pause_events(now);
                self.fault("topic of events", Some(reason));
            }
            Some(Purpose::Record) => {
                self.records_under_way = self.records_under_way.saturating_sub(1);
                self.outbox.done(ticket & !(1 << 63));
                self.fault("topic", Some(format!("a record of the site: {reason}")));
            }
            Some(Purpose::Records) => {
                // It would be asked for forever.
                self.records.answered(now.running);
                self.fault("topic", Some(reason));
            }
            Some(_) => self.fault("topic", Some(reason)),
            None => {}
        }
    }

    fn broker_message(&mut self, message: Message, now: Now) {
        let Some(topics) = self.topics.clone() else { return };
        if let Some(rest) = topics.records.as_deref().and_then(|p| message.topic.strip_prefix(p)) {
            if message.retained {
                self.records.heard(now.running);
            }
            if rest.len() > LONGEST_TOPIC || message.payload.len() > LARGEST_RECORD {
                let topic = plain(&message.topic, 120);
                self.log(Level::Warn, format!("the record {topic} is too large, and is left out"));
                return;
            }
            if self.hello.is_some() {
                self.next_ticket += 1;
                let (id, topic) = (self.next_ticket, rest.to_owned());
                let record = FromLink::Record { id, topic, bytes: Bytes(message.payload) };
                self.actions.push(Action::ToDoor(record));
            }
            return;
        }
        if message.topic == topics.of("order") {
            self.order(&message, now);
        } else if message.topic == topics.of("event") || message.topic == topics.of("log") {
            // Only before the first event of this connection: later it is our own.
            let settling = matches!(self.broker, Broker::Settling { .. });
            if settling
                && message.retained
                && let Some(number) = home::retained_number(&topics.id, &message.payload)
            {
                let newest = self.events.newest();
                self.events.receiver(MQTT).arrived(number, newest);
            }
        } else if let Some(prefix) = &self.settings.discovery
            && message.topic == format!("{prefix}/status")
            && message.payload == b"online"
        {
            self.rediscover = Some(now.running + REDISCOVER.mul_f64(chance()));
        }
    }

    fn order(&mut self, message: &Message, now: Now) {
        let limits =
            home::Limits { allowed: self.last_hello.orders.clone(), age: self.settings.order_age };
        let wall_s = now.wall_us as f64 / 1e6;
        let judged = home::judge(message, &limits, now.instant, wall_s);
        let judged = judged.and_then(|order| match () {
            // A session that goes on may bring what waited while we were away.
            () if !self.orders_open => Err("it waited at the broker".to_owned()),
            () if self.hello.is_none() => Err("the door is away".to_owned()),
            () if self.orders.len() >= MOST_ORDERS => {
                Err("too many orders wait for the door".to_owned())
            }
            () => Ok(order),
        });
        match judged {
            Ok(order) => {
                self.next_ticket += 1;
                let id = self.next_ticket;
                self.orders.insert(id, order);
                let order = FromLink::Order { id, order, by: "mqtt".to_owned() };
                self.actions.push(Action::ToDoor(order));
            }
            Err(reason) => {
                let shown = plain(&String::from_utf8_lossy(&message.payload), 60);
                self.log(Level::Warn, format!("order {shown:?} refused: {reason}"));
                self.answer(&shown, Err(reason));
            }
        }
    }
}
