use super::*;
use crate::door::DoorReport;
use crate::events::cursor::Cursors;
use crate::mqtt::{Message, Publish, Report};
use crate::webhook::Outcome;
use facelatch_messages::{DoorEvent, DoorHello, FromDoor, FromLink, LinkOrder, PROTOCOL};
use proptest::prelude::*;
use std::time::{Duration, Instant};

/// The state machine with clocks that the test moves.
struct Link {
    core: Core,
    instant: Instant,
    running: Duration,
}

impl Link {
    fn new(cursors: &Cursors) -> Self {
        let settings = Settings {
            mqtt: true,
            webhook: false,
            prefix: "facelatch".to_owned(),
            discovery: Some("homeassistant".to_owned()),
            order_age: Duration::from_secs(10),
        };
        Self {
            core: Core::new(settings, cursors),
            instant: Instant::now(),
            running: Duration::ZERO,
        }
    }

    fn now(&self) -> Now {
        Now { instant: self.instant + self.running, running: self.running, wall_us: 0 }
    }

    fn wait(&mut self, millis: u64) -> Vec<Action> {
        self.running += Duration::from_millis(millis);
        self.core.step(self.now())
    }

    fn door(&mut self, message: FromDoor) -> Vec<Action> {
        let now = self.now();
        self.core.door_report(DoorReport::Message(Box::new(message)), now);
        self.core.step(now)
    }

    fn hello(&mut self, hello: DoorHello) -> Vec<Action> {
        self.core.door_report(DoorReport::Connected, self.now());
        self.door(FromDoor::Hello(hello))
    }

    fn broker(&mut self, report: Report) -> Vec<Action> {
        let now = self.now();
        self.core.broker_report(report, now);
        self.core.step(now)
    }

    /// Connected, with the answers of the broker to all subscriptions.
    fn connect(&mut self) -> Vec<Action> {
        let mut actions = self.broker(Report::Connected { session: 1 });
        for ticket in subscriptions(&actions) {
            actions.extend(self.broker(Report::Subscribed { ticket, refused: vec![] }));
        }
        actions.extend(self.wait(2000));
        actions
    }

    fn message(&mut self, topic: &str, payload: &[u8], retained: bool) -> Vec<Action> {
        let since = self.now().instant;
        let (topic, payload) = (topic.to_owned(), payload.to_vec());
        self.broker(Report::Message(Message { topic, payload, retained, expires_s: None, since }))
    }
}

fn hello() -> DoorHello {
    DoorHello {
        protocol: PROTOCOL,
        id: "7f3a".to_owned(),
        newest: 5,
        orders: vec![LinkOrder::Open],
        ..DoorHello::default()
    }
}

fn event(number: u64) -> FromDoor {
    FromDoor::Event(DoorEvent { number, ..DoorEvent::default() })
}

fn subscriptions(actions: &[Action]) -> Vec<u64> {
    let ticket = |action: &Action| match action {
        Action::Subscribe { ticket, .. } => Some(*ticket),
        _ => None,
    };
    actions.iter().filter_map(ticket).collect()
}

fn published(actions: &[Action]) -> Vec<(u64, Publish)> {
    let publish = |action: &Action| match action {
        Action::Publish { ticket, publish } => Some((*ticket, publish.clone())),
        _ => None,
    };
    actions.iter().filter_map(publish).collect()
}

fn events(actions: &[Action]) -> Vec<(u64, Publish)> {
    let mut events = published(actions);
    events.retain(|(_, publish)| publish.topic.ends_with("/log"));
    events
}

fn told(actions: &[Action]) -> Vec<FromLink> {
    let message = |action: &Action| match action {
        Action::ToDoor(message) => Some(message.clone()),
        _ => None,
    };
    actions.iter().filter_map(message).collect()
}

#[test]
fn events_are_sent_one_at_a_time_and_only_once_it_is_known_what_arrived() {
    let cursors = Cursors { door: "7f3a".to_owned(), mqtt: Some(2), ..Cursors::default() };
    let mut link = Link::new(&cursors);
    link.hello(hello());
    for number in 3..=5 {
        link.door(event(number));
    }
    let actions = link.broker(Report::Connected { session: 1 });
    let tickets = subscriptions(&actions);
    // The broker has number 3, whose acknowledgement was lost, and says a lie.
    for ticket in tickets {
        assert_eq!(events(&link.broker(Report::Subscribed { ticket, refused: vec![] })), []);
    }
    link.message("facelatch/local/7f3a/log", br#"{"door":"7f3a","number":3}"#, true);
    link.message("facelatch/local/7f3a/event", br#"{"door":"7f3a","number":99}"#, true);
    assert_eq!(link.core.cursors().mqtt, Some(3));
    let sent = events(&link.wait(2000));
    assert_eq!(sent.len(), 1);
    assert!(String::from_utf8_lossy(&sent[0].1.payload).contains("\"number\":4"));
    // Its own event, which comes back, changes nothing.
    link.message("facelatch/local/7f3a/log", br#"{"door":"7f3a","number":5}"#, true);
    assert_eq!(link.core.cursors().mqtt, Some(3));
    let actions = link.broker(Report::Published { ticket: sent[0].0 });
    assert_eq!(told(&actions), [FromLink::Taken { number: 4 }]);
    let sent = events(&actions);
    assert!(String::from_utf8_lossy(&sent[0].1.payload).contains("\"number\":5"));
    // Refused by the broker's ACL: later again, and the fault is shown to the door.
    let reason = "not allowed".to_owned();
    let actions = link.broker(Report::Refused { ticket: sent[0].0, reason });
    assert!(
        matches!(&told(&actions)[..], [FromLink::Reach(reach)] if reach.fault.contains("not allowed"))
    );
    assert_eq!(events(&link.wait(20_000)), []);
    assert_eq!(events(&link.wait(11_000)).len(), 1);
}

#[test]
fn an_order_waits_for_nothing() {
    let mut link = Link::new(&Cursors::default());
    link.hello(hello());
    let order = "facelatch/local/7f3a/order";
    let orders = |actions: &[Action]| {
        told(actions).into_iter().filter(|m| matches!(m, FromLink::Order { .. })).count()
    };
    let actions = link.broker(Report::Connected { session: 1 });
    // What a session that goes on brings before the answer to the subscription.
    assert_eq!(orders(&link.message(order, b"open", false)), 0);
    for ticket in subscriptions(&actions) {
        link.broker(Report::Subscribed { ticket, refused: vec![] });
    }
    assert_eq!(orders(&link.message(order, b"open", true)), 0, "retained");
    assert_eq!(orders(&link.message(order, b"lockdown", false)), 0, "not allowed");
    assert_eq!(orders(&link.message(order, b"open", false)), 1);
    // Few at a time.
    let passed: usize = (0..50).map(|_| orders(&link.message(order, b"open", false))).sum();
    assert_eq!(passed, 7);
    link.core.door_report(DoorReport::Lost { reason: "gone".to_owned() }, link.now());
    assert_eq!(orders(&link.message(order, b"open", false)), 0, "no door");
}

#[test]
fn a_door_that_leaves_or_changes_is_shown() {
    let mut link = Link::new(&Cursors::default());
    let actions = link.hello(hello());
    assert!(actions.iter().any(|action| matches!(action, Action::Identity(_))));
    let availability = |actions: &[Action]| {
        let mut found = published(actions);
        found.retain(|(_, publish)| publish.topic.ends_with("/availability"));
        found.pop().map(|(_, publish)| String::from_utf8_lossy(&publish.payload).into_owned())
    };
    assert_eq!(availability(&link.connect()).as_deref(), Some("online"));
    link.core.door_report(DoorReport::Lost { reason: "gone".to_owned() }, link.now());
    assert_eq!(availability(&link.wait(0)).as_deref(), Some("offline"));
    assert_eq!(availability(&link.hello(hello())).as_deref(), Some("online"));
    // It joins a site: the topics are others, and the old ones are emptied.
    let actions = link.hello(DoorHello { site: Some("hq".to_owned()), ..hello() });
    assert!(actions.iter().any(|action| matches!(action, Action::Identity(_))));
    let mut again = Link::new(&link.core.cursors());
    again.hello(DoorHello { site: Some("hq".to_owned()), ..hello() });
    let emptied = published(&again.connect());
    assert!(emptied.iter().any(|(_, publish)| {
        publish.topic == "facelatch/local/7f3a/lock" && publish.payload.is_empty() && publish.retain
    }));
    assert_eq!(again.core.cursors().site.as_deref(), Some("hq"));
    // Another key: events from now on, of which it is asked over a new connection.
    let actions = again.hello(DoorHello { id: "8888".to_owned(), newest: 900, ..hello() });
    assert!(actions.contains(&Action::ConnectDoorAgain));
    // Another protocol is a fault.
    again.hello(DoorHello { protocol: 99, ..hello() });
    assert!(again.core.faults()["door"].contains("update"));
}

proptest! {
    #[test]
    fn a_broker_that_sends_anything_floods_neither_log_nor_door(
        messages in prop::collection::vec(
            (
                prop::sample::select(vec!["order", "event", "log", "state", "../fleet/x"]),
                prop::collection::vec(any::<u8>(), 0..60),
                any::<bool>(),
            ),
            0..300,
        ),
        tickets in prop::collection::vec(any::<u64>(), 0..20),
    ) {
        let mut link = Link::new(&Cursors::default());
        link.hello(hello());
        link.connect();
        let (mut lines, mut orders) = (0, 0);
        let mut count = |actions: &[Action]| {
            for action in actions {
                match action {
                    Action::Log(_, text) => {
                        lines += 1;
                        assert!(!text.chars().any(char::is_control), "{text}");
                    }
                    Action::ToDoor(FromLink::Order { .. }) => orders += 1,
                    _ => {}
                }
            }
        };
        for ticket in tickets {
            count(&link.broker(Report::Published { ticket }));
            count(&link.broker(Report::Subscribed { ticket, refused: vec![7] }));
            count(&link.broker(Report::Refused { ticket, reason: "no".to_owned() }));
            link.core.posted(Outcome::Taken, link.now());
        }
        for (topic, payload, retained) in messages {
            count(&link.message(&format!("facelatch/local/7f3a/{topic}"), &payload, retained));
        }
        prop_assert!(lines <= 60 && orders <= 8, "{lines} lines, {orders} orders");
    }
}
