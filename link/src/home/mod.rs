//! What a door shows at a broker, and to Home Assistant there: topics, states, discovery,
//! events and orders. No device, file or clock.
//!
//! All topics of a door begin with `PREFIX/SITE/NUMBER/`, below written as `B`.
//!
//! | Topic | Retained | Content |
//! |---|---|---|
//! | `B/availability` | yes, also as will | `online`, `offline` |
//! | `B/lock` | yes | `LOCKED`, `OPENING`, `OPEN`, `UNLOCKED`, `LOCKING`, `JAMMED` |
//! | `B/leaf` | yes | `ON` while the leaf is open |
//! | `B/state` | yes | the rest of the state, as JSON |
//! | `B/models` | yes | versions of model sets, as JSON |
//! | `B/link` | yes | what is wrong with the link, as JSON |
//! | `B/event`, `B/log` | the newest | events, as JSON |
//! | `B/order` | never | orders for the door |
//! | `B/answer` | no | what became of an order, as JSON |

mod discovery;
mod order;

pub use discovery::discovery;
pub use order::{Limits, judge};

use facelatch_messages::{DoorEvent, DoorHello, DoorState, EventKind, Lock};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Site in the topics of a door that belongs to none.
pub const NO_SITE: &str = "local";
/// An event that is older when it is sent is late: automations may ignore it. Microseconds.
const LATE_US: i64 = 60_000_000;
/// Longest name of a door that is shown, characters.
const LONGEST_NAME: usize = 80;

/// The topics of a door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    /// Number of the door.
    pub id: String,
    /// `B`, without a slash at its end.
    pub base: String,
    /// Beginning of the topics of the site's records, with a slash at its end; `None`
    /// without a site.
    pub records: Option<String>,
}

impl Topics {
    /// The topics for this door.
    ///
    /// # Errors
    /// If number or site cannot be part of a topic.
    pub fn new(prefix: &str, id: &str, site: Option<&str>) -> Result<Self, String> {
        let fine = |part: &str| {
            let named = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !part.is_empty() && part.len() <= 64 && part.chars().all(named)
        };
        for part in [Some(id), site].into_iter().flatten() {
            if !fine(part) {
                let part = crate::text::plain(part, 80);
                return Err(format!("the door's number or site {part:?} cannot be in a topic"));
            }
        }
        let base = format!("{prefix}/{}/{id}", site.unwrap_or(NO_SITE));
        let records = site.map(|site| format!("{prefix}/{site}/fleet/"));
        Ok(Self { id: id.to_owned(), base, records })
    }

    /// A topic of the door.
    pub fn of(&self, name: &str) -> String {
        format!("{}/{name}", self.base)
    }

    /// All topics on which something is retained.
    pub fn retained(&self) -> Vec<String> {
        let names = ["availability", "lock", "leaf", "state", "models", "link", "event", "log"];
        names.iter().map(|name| self.of(name)).collect()
    }

    /// The topic by which Home Assistant discovers the door.
    pub fn discovery(&self, prefix: &str) -> String {
        format!("{prefix}/device/facelatch_{}/config", self.id)
    }
}

/// The door's name, as it is shown.
pub fn door_name(hello: &DoorHello) -> String {
    let name = crate::text::plain(hello.door.trim(), LONGEST_NAME);
    if name.is_empty() { format!("Door {}", hello.id) } else { name }
}

/// What is retained of a door's state: names of topics and their content. An empty content
/// removes the topic.
pub fn states(state: &DoorState) -> Vec<(&'static str, Vec<u8>)> {
    let lock = match state.lock {
        Lock::Unknown => "None",
        Lock::Locked => "LOCKED",
        Lock::Opening => "OPENING",
        Lock::Open => "OPEN",
        Lock::Unlocked => "UNLOCKED",
        Lock::Locking => "LOCKING",
        Lock::Jammed => "JAMMED",
    };
    let leaf = state.leaf_open.map_or("", |open| if open { "ON" } else { "OFF" });
    let models = json!({
        "installed_version": state.models,
        "latest_version": state.models_waiting.as_ref().unwrap_or(&state.models),
    });
    let models = if state.models.is_empty() { vec![] } else { models.to_string().into() };
    // The likeliest value, then the ends of the interval around it.
    let entries = state.false_entries_per_year;
    let all = json!({
        "mode": state.mode,
        "alarm": state.alarm,
        "camera": state.camera_fault,
        "relay": state.relay_fault,
        "clock": state.clock_fault,
        "storage": state.storage_fault,
        "people": state.people,
        "false_entries": entries.map(|[likely, _, _]| likely),
        "false_entries_low": entries.map(|[_, low, _]| low),
        "false_entries_high": entries.map(|[_, _, high]| high),
        "site": state.site.as_ref().and_then(|site| site.fault.as_ref()),
        "manifest": state.site.as_ref().map(|site| site.manifest),
        "missing": state.site.as_ref().map(|site| site.missing),
    });
    vec![
        ("lock", lock.into()),
        ("leaf", leaf.into()),
        ("models", models),
        ("state", all.to_string().into()),
    ]
}

/// An event as a broker or a webhook gets it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventMessage {
    /// The kind, or the severity of events for which there is no kind.
    pub event_type: String,
    /// Number of the door.
    pub door: String,
    /// Number of the event at that door. Numbers rise, with gaps.
    pub number: u64,
    /// When it happened, by RFC 3339 in UTC.
    pub time: String,
    /// Whether the door trusted its clock.
    pub clock_trusted: bool,
    /// Sent more than a minute after it happened.
    pub late: bool,
    /// The kind, as in the audit log.
    pub event: String,
    /// info, warn or error.
    pub severity: String,
    /// Number of the person in the door's gallery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub person: Option<u32>,
    /// Name or pseudonym, if the door's configuration sends one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// Why, in few words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The event in plain English.
    pub text: String,
}

/// An event as a message; `wall_us` is the time of now, microseconds since 1970.
pub fn event_message(door: &str, event: &DoorEvent, wall_us: i64) -> EventMessage {
    let event_type = match event.kind {
        EventKind::Other => event.severity.clone(),
        kind => kind.name().to_owned(),
    };
    let time = jiff::Timestamp::from_microsecond(event.time_us).unwrap_or(jiff::Timestamp::MIN);
    EventMessage {
        event_type,
        door: door.to_owned(),
        number: event.number,
        time: time.to_string(),
        clock_trusted: event.clock_trusted,
        late: wall_us.saturating_sub(event.time_us) > LATE_US,
        event: event.event.clone(),
        severity: event.severity.clone(),
        person: event.person,
        who: event.who.clone(),
        reason: event.reason.clone(),
        text: event.text.clone(),
    }
}

/// Name of the topic for an event of this kind.
pub fn event_topic(kind: EventKind) -> &'static str {
    if kind == EventKind::Other { "log" } else { "event" }
}

/// The number of a retained event of this door; `None` if it is something else.
pub fn retained_number(door: &str, payload: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Known {
        door: String,
        number: u64,
    }
    let known: Known = serde_json::from_slice(payload).ok()?;
    (known.door == door).then_some(known.number)
}

#[cfg(test)]
mod tests;
