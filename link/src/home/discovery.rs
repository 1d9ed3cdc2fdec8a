//! How a door announces itself to Home Assistant: one message for the device and all its
//! entities (device-based discovery).

use super::{Topics, door_name};
use facelatch_messages::{DoorHello, DoorState, EventKind, LinkOrder};
use serde_json::{Map, Value, json};

/// Kinds of events that the entity for passages has.
const KINDS: [EventKind; 8] = [
    EventKind::Admitted,
    EventKind::Refused,
    EventKind::Stranger,
    EventKind::NotLive,
    EventKind::Forced,
    EventKind::HeldOpen,
    EventKind::Exit,
    EventKind::Duress,
];

/// An order with the time at which it was given, so that an old one is refused.
const ORDER: &str = r#"{"order":"{{ value }}","time":{{ as_timestamp(now()) }}}"#;

/// The content of the door's discovery message.
pub fn discovery(topics: &Topics, hello: &DoorHello, state: &DoorState) -> Vec<u8> {
    let mut entities = Entities { topics, map: Map::new() };
    let allowed = |order: LinkOrder| hello.orders.contains(&order);
    let order = topics.of("order");

    // Home Assistant has no lock without orders.
    entities.add("lock", "lock", !hello.orders.is_empty(), || {
        let mut lock = json!({
            "name": null,
            "state_topic": topics.of("lock"),
            "command_topic": order,
            "command_template": ORDER,
            "payload_lock": LinkOrder::Normal.name(),
            "payload_unlock": LinkOrder::AlwaysOpen.name(),
            "retain": false,
            "optimistic": false,
        });
        if allowed(LinkOrder::Open) {
            lock["payload_open"] = LinkOrder::Open.name().into();
        }
        lock
    });
    entities.add("lock_state", "sensor", hello.orders.is_empty(), || {
        json!({
            "name": "Lock",
            "icon": "mdi:door",
            "state_topic": topics.of("lock"),
            "device_class": "enum",
            "options": ["LOCKED", "OPENING", "OPEN", "UNLOCKED", "LOCKING", "JAMMED"],
        })
    });
    entities.add("passage", "event", true, || {
        json!({
            "name": "Passage",
            "icon": "mdi:account-arrow-right",
            "state_topic": topics.of("event"),
            "event_types": KINDS.map(EventKind::name),
        })
    });
    entities.add("log", "event", true, || {
        json!({
            "name": "Log",
            "icon": "mdi:text-box-outline",
            "state_topic": topics.of("log"),
            "event_types": ["info", "warn", "error"],
            "entity_category": "diagnostic",
            "enabled_by_default": false,
        })
    });
    entities.add(
        "leaf",
        "binary_sensor",
        state.leaf_open.is_some(),
        || json!({ "name": "Leaf", "device_class": "door", "state_topic": topics.of("leaf") }),
    );
    entities.add("alarm", "binary_sensor", true, || {
        json!({
            "name": "Alarm",
            "device_class": "safety",
            "state_topic": topics.of("state"),
            "value_template": "{{ 'ON' if value_json.alarm else 'OFF' }}",
            "json_attributes_topic": topics.of("state"),
            "json_attributes_template": "{{ {'alarm': value_json.alarm} | tojson }}",
        })
    });
    entities.add("mode", "sensor", true, || {
        json!({
            "name": "Mode",
            "icon": "mdi:door-closed-lock",
            "state_topic": topics.of("state"),
            "value_template": "{{ value_json.mode }}",
        })
    });
    let has_site = state.site.is_some();
    for (key, name, there) in [
        ("camera", "Camera", true),
        ("relay", "Relay", true),
        ("clock", "Clock", true),
        ("storage", "Storage", true),
        ("site", "Site", has_site),
    ] {
        entities.add(key, "binary_sensor", there, || problem(&topics.of("state"), name, key));
    }
    entities.add("link", "binary_sensor", true, || problem(&topics.of("link"), "Link", "fault"));
    entities.add("people", "sensor", true, || {
        json!({
            "name": "People",
            "icon": "mdi:account-group",
            "state_topic": topics.of("state"),
            "value_template": "{{ value_json.people }}",
            "state_class": "measurement",
            "entity_category": "diagnostic",
        })
    });
    entities.add("false_entries", "sensor", true, || {
        json!({
            "name": "Expected false entries per year",
            "icon": "mdi:account-alert",
            "state_topic": topics.of("state"),
            "value_template": "{{ value_json.false_entries }}",
            "json_attributes_topic": topics.of("state"),
            "json_attributes_template": "{{ {'low': value_json.false_entries_low, \
                                         'high': value_json.false_entries_high} | tojson }}",
            "suggested_display_precision": 3,
            "state_class": "measurement",
            "entity_category": "diagnostic",
        })
    });
    entities.add("models", "update", !state.models.is_empty(), || {
        json!({
            "name": "Models",
            "title": "Face models",
            "state_topic": topics.of("models"),
            "entity_category": "diagnostic",
        })
    });
    for (key, name, icon, what) in [
        ("lockdown", "Lockdown", "mdi:lock-alert", LinkOrder::Lockdown),
        ("normal", "Normal", "mdi:lock-check", LinkOrder::Normal),
    ] {
        entities.add(key, "button", allowed(what), || {
            json!({
                "name": name,
                "icon": icon,
                "command_topic": order,
                "command_template": ORDER,
                "payload_press": what.name(),
                "retain": false,
            })
        });
    }

    let message = json!({
        "dev": {
            "ids": [format!("facelatch_{}", topics.id)],
            "name": door_name(hello),
            "mf": "Facelatch",
            "mdl": "Door controller",
            "sw": crate::text::plain(&hello.version, 40),
        },
        "o": { "name": "facelatch-link", "sw": env!("CARGO_PKG_VERSION") },
        "availability": [{ "topic": topics.of("availability") }],
        "qos": 1,
        "cmps": entities.map,
    });
    message.to_string().into_bytes()
}

struct Entities<'t> {
    topics: &'t Topics,
    map: Map<String, Value>,
}

impl Entities<'_> {
    /// An entity, or what removes it where it was before.
    fn add(&mut self, key: &str, platform: &str, there: bool, entity: impl FnOnce() -> Value) {
        let mut value = if there { entity() } else { json!({}) };
        value["p"] = platform.into();
        if there {
            value["unique_id"] = format!("facelatch_{}_{key}", self.topics.id).into();
        }
        self.map.insert(key.to_owned(), value);
    }
}

/// A sensor that is on while the key has a text, which it shows.
fn problem(topic: &str, name: &str, key: &str) -> Value {
    json!({
        "name": name,
        "device_class": "problem",
        "entity_category": "diagnostic",
        "state_topic": topic,
        "value_template": format!("{{{{ 'ON' if value_json.{key} else 'OFF' }}}}"),
        "json_attributes_topic": topic,
        "json_attributes_template": format!("{{{{ {{'fault': value_json.{key}}} | tojson }}}}"),
    })
}
