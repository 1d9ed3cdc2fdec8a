use super::*;
use crate::mqtt::Message;
use facelatch_messages::LinkOrder;
use proptest::prelude::*;
use std::time::{Duration, Instant};

fn hello(orders: &[LinkOrder]) -> DoorHello {
    DoorHello {
        id: "7f3a".to_owned(),
        door: "Front door".to_owned(),
        version: "0.2.0".to_owned(),
        orders: orders.to_vec(),
        ..DoorHello::default()
    }
}

fn topics() -> Topics {
    Topics::new("facelatch", "7f3a", None).expect("topics")
}

fn entities(orders: &[LinkOrder], state: &DoorState) -> serde_json::Value {
    let message = discovery(&topics(), &hello(orders), state);
    assert!(message.len() < 10_000, "{}", message.len());
    serde_json::from_slice(&message).expect("JSON")
}

#[test]
fn topics_are_apart_whatever_the_door_is_called() {
    let topics = Topics::new("home/doors", "7f3a", Some("hq")).expect("topics");
    assert_eq!(topics.of("lock"), "home/doors/hq/7f3a/lock");
    assert_eq!(topics.records.as_deref(), Some("home/doors/hq/fleet/"));
    for wrong in ["", "a/b", "+", "#", "a b", "$SYS", "\u{e9}"] {
        assert!(Topics::new("p", wrong, None).is_err(), "{wrong}");
        assert!(Topics::new("p", "7f3a", Some(wrong)).is_err(), "{wrong}");
    }
}

#[test]
fn a_door_announces_only_what_it_has_and_may() {
    let all =
        entities(&LinkOrder::ALL, &DoorState { leaf_open: Some(false), ..DoorState::default() });
    let cmps = &all["cmps"];
    assert_eq!(cmps["lock"]["payload_open"], "open");
    assert_eq!(cmps["lock"]["command_topic"], "facelatch/local/7f3a/order");
    assert_eq!(cmps["lock"]["retain"], false);
    assert_eq!(cmps["lockdown"]["payload_press"], "lockdown");
    assert_eq!(cmps["leaf"]["device_class"], "door");
    assert_eq!(cmps["lock_state"], serde_json::json!({ "p": "sensor" }), "removed");
    let none = entities(&[], &DoorState::default());
    let cmps = &none["cmps"];
    assert_eq!(cmps["lock"], serde_json::json!({ "p": "lock" }));
    assert_eq!(cmps["lock_state"]["device_class"], "enum");
    assert_eq!(cmps["lockdown"], serde_json::json!({ "p": "button" }));
    assert_eq!(cmps["leaf"], serde_json::json!({ "p": "binary_sensor" }));
    assert!(!none.to_string().contains("facelatch/local/7f3a/order"), "no way to give orders");
    let some = entities(&[LinkOrder::Lockdown], &DoorState::default());
    assert_eq!(some["cmps"]["lock"].get("payload_open"), None);
    // What Home Assistant asks of every entity.
    for (key, entity) in all["cmps"].as_object().expect("entities") {
        assert!(entity["p"].is_string(), "{key}");
        if entity.as_object().is_some_and(|entity| entity.len() > 1) {
            assert_eq!(entity["unique_id"], format!("facelatch_7f3a_{key}"));
        }
    }
}

#[test]
fn states_are_those_of_home_assistant() {
    let state = DoorState {
        lock: Lock::Jammed,
        leaf_open: Some(true),
        camera_fault: Some("unplugged".to_owned()),
        people: 3,
        false_entries_per_year: Some([0.5, 0.1, 2.0]),
        models: "1".to_owned(),
        models_waiting: Some("2".to_owned()),
        ..DoorState::default()
    };
    let states = states(&state);
    let of = |name: &str| {
        let (_, content) = states.iter().find(|(topic, _)| *topic == name).expect(name);
        String::from_utf8(content.clone()).expect("text")
    };
    assert_eq!([of("lock"), of("leaf")], ["JAMMED", "ON"]);
    assert_eq!(of("models"), r#"{"installed_version":"1","latest_version":"2"}"#);
    let all: serde_json::Value = serde_json::from_str(&of("state")).expect("JSON");
    assert_eq!(all["camera"], "unplugged");
    assert_eq!(all["relay"], serde_json::Value::Null);
    assert_eq!((&all["people"], &all["false_entries_high"]), (&3.into(), &2.0.into()));
    // Without a contact nothing is retained.
    let empty = super::states(&DoorState::default());
    assert!(empty.iter().any(|(topic, content)| *topic == "leaf" && content.is_empty()));
}

#[test]
fn an_event_keeps_its_time_and_says_if_it_is_late() {
    let event = DoorEvent {
        number: 7,
        time_us: 1_764_500_000_250_000,
        kind: EventKind::Admitted,
        severity: "info".to_owned(),
        ..DoorEvent::default()
    };
    let message = event_message("7f3a", &event, event.time_us + 1_000_000);
    assert_eq!((message.time.as_str(), message.late), ("2025-11-30T10:53:20.25Z", false));
    assert_eq!(message.event_type, "admitted");
    let written = serde_json::to_vec(&message).expect("JSON");
    assert!(!String::from_utf8_lossy(&written).contains("who"));
    assert_eq!(retained_number("7f3a", &written), Some(7));
    assert_eq!(retained_number("other", &written), None);
    assert_eq!(retained_number("7f3a", b"{\"number\":-1}"), None);
    let late = event_message("7f3a", &event, event.time_us + 61_000_000);
    assert!(late.late);
    // For whatever number a door sends as a time.
    event_message("", &DoorEvent { time_us: i64::MIN, ..event.clone() }, i64::MAX);
    let other = DoorEvent { kind: EventKind::Other, ..event };
    assert_eq!(event_message("", &other, 0).event_type, "info");
    assert_eq!(event_topic(other.kind), "log");
}

fn message(payload: &str, since: Instant) -> Message {
    let payload = payload.as_bytes().to_vec();
    Message { topic: String::new(), payload, retained: false, expires_s: None, since }
}

#[test]
fn an_order_is_new_allowed_and_not_retained() {
    let now = Instant::now();
    let limits = Limits { allowed: vec![LinkOrder::Open], age: Duration::from_secs(10) };
    let judge = |message: &Message| super::judge(message, &limits, now, 1000.0);
    let refused = |message: &Message, why: &str| {
        let reason = judge(message).expect_err(why);
        assert!(reason.contains(why), "{reason}");
    };
    assert_eq!(judge(&message("open", now)), Ok(LinkOrder::Open));
    let timed = |time: &str| message(&format!("{{\"order\":\"open\",\"time\":{time}}}"), now);
    assert_eq!(judge(&timed("995.5")), Ok(LinkOrder::Open));
    assert_eq!(judge(&timed("1009")), Ok(LinkOrder::Open));
    refused(&timed("980"), "20 s old");
    refused(&timed("1020"), "20 s from the future");
    refused(&timed("1e999"), "JSON");
    refused(&message("lockdown", now), "link.orders");
    refused(&message("burn\n", now), "no order");
    refused(&message(&"x".repeat(500), now), "400 bytes");
    let retained = Message { retained: true, ..message("open", now) };
    refused(&retained, "retained");
    refused(&Message { expires_s: Some(0), ..message("open", now) }, "waited");
    let before = now.checked_sub(Duration::from_secs(11)).expect("a time before");
    refused(&message("open", before), "may have waited for 11 s");
}

proptest! {
    #[test]
    fn no_order_panics_or_passes_what_is_not_allowed(
        payload in prop::collection::vec(any::<u8>(), 0..500),
        order in any::<String>(),
        time in any::<f64>(),
    ) {
        let now = Instant::now();
        let limits = Limits { allowed: vec![], age: Duration::from_secs(10) };
        let json = serde_json::json!({ "order": order, "time": time }).to_string();
        for payload in [payload, json.into_bytes()] {
            let message = Message { payload, ..message("", now) };
            let reason = judge(&message, &limits, now, 0.0).expect_err("nothing is allowed");
            prop_assert!(!reason.chars().any(char::is_control));
        }
    }
}
