//! Messages between a door and `facelatch-link`, over a socket that the door opens for it.
//!
//! Each message is one JSON object on one line, with the name of its kind as the only key.
//! The link speaks first, with its hello; the door answers with its own. After that both
//! send when they have something. A door believes nothing that it hears here: orders need
//! the configuration's leave, and records of a site carry signatures that the door checks.
//!
//! ```text
//!   link                                  door
//!   {"hello":{"protocol":1,"after":41}}
//!                                         {"hello":{"protocol":1,"door":"front",...}}
//!                                         {"state":{"lock":"locked",...}}
//!                                         {"event":{"number":42,"kind":"admitted",...}}
//!   {"taken":{"number":42}}
//!   {"order":{"id":1,"order":"open","by":"mqtt"}}
//!                                         {"done":{"id":1,"did":"opened by command"}}
//! ```
//!
//! A side that meets a kind of message that it does not know ignores it, and so is a field
//! that it does not know: that is how versions of the two programs get along. The number of
//! the protocol rises only when an old side would misunderstand a new one.

mod bytes;
mod line;

pub use bytes::Bytes;
pub use line::{LONGEST_LINE, LineError, Lines, write_line};

use serde::{Deserialize, Serialize};
use std::fmt;

/// Version of the protocol.
pub const PROTOCOL: u32 = 1;
/// Most events that the door sends before the link says that it has taken them.
pub const MOST_UNTAKEN: usize = 64;
/// Largest record of a site, bytes.
pub const LARGEST_RECORD: usize = 128 << 10;
/// Longest topic of a record, bytes.
pub const LONGEST_TOPIC: usize = 200;
/// Longest text in a message, bytes; the door cuts longer ones of its own and refuses those
/// of the link.
pub const LONGEST_TEXT: usize = 400;

/// What the link tells the door.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromLink {
    /// The first message of a connection.
    Hello(LinkHello),
    /// All events up to this number have arrived where the link brings them.
    Taken {
        /// Number of the event.
        number: u64,
    },
    /// Somebody wants the door to do something.
    Order {
        /// Chosen by the link, for the answer.
        id: u64,
        /// What it is to do.
        order: LinkOrder,
        /// Way by which the order came, such as "mqtt"; for the log.
        by: String,
    },
    /// A record of the site, from another door or the office.
    Record {
        /// Chosen by the link, for the answer.
        id: u64,
        /// Its place: the topic below the site's own part.
        topic: String,
        /// Its bytes; empty where the broker has none any more.
        bytes: Bytes,
    },
    /// The broker has taken a record that the door published.
    Published {
        /// Number of the publication.
        id: u64,
    },
    /// Whether the link reaches those whom it serves.
    Reach(Reach),
}

/// The first message of the link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkHello {
    /// Version of the protocol: [`PROTOCOL`].
    pub protocol: u32,
    /// Version of the program.
    pub version: String,
    /// Number of the last event that has arrived; the door sends those after it. `None`
    /// asks for those that happen from now on.
    pub after: Option<u64>,
}

/// Whether the link reaches those whom it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reach {
    /// Whether it does.
    pub good: bool,
    /// What is wrong, and the cure; empty if nothing is.
    pub fault: String,
    /// Whether the broker is reached, by which records of the site come and go.
    pub broker: bool,
    /// Records of the site were requested from the broker, and all that it has were passed
    /// on since the connection began. Until then nothing is known to be missing.
    pub fetched: bool,
}

/// An order that a link may pass on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkOrder {
    /// Open the door once.
    Open,
    /// Open for nobody.
    Lockdown,
    /// End lockdown, or always open.
    Normal,
    /// Stay open.
    AlwaysOpen,
}

impl LinkOrder {
    /// All orders.
    pub const ALL: [Self; 4] = [Self::Open, Self::Lockdown, Self::Normal, Self::AlwaysOpen];

    /// The word for it, as in the configuration and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Lockdown => "lockdown",
            Self::Normal => "normal",
            Self::AlwaysOpen => "always-open",
        }
    }
}

impl fmt::Display for LinkOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the door tells the link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromDoor {
    /// The answer to the link's hello.
    Hello(DoorHello),
    /// The door refuses to go on, and closes the connection.
    Refused {
        /// The reason and the cure.
        reason: String,
    },
    /// The state of the door, after each change and at least every minute.
    State(DoorState),
    /// Something happened.
    Event(DoorEvent),
    /// An order was carried out, or a record taken in.
    Done {
        /// The link's number.
        id: u64,
        /// What was done.
        did: String,
    },
    /// An order or a record was refused.
    Failed {
        /// The link's number.
        id: u64,
        /// The reason and the cure.
        reason: String,
    },
    /// A record for the others of the site.
    Publish {
        /// Number of the publication, for the link's answer.
        id: u64,
        /// Its place: the topic below the site's own part.
        topic: String,
        /// Its bytes.
        bytes: Bytes,
        /// Whether the broker keeps it for those who come later.
        retain: bool,
        /// Time after which the broker drops it, seconds; `None` if it does not.
        expires_s: Option<u32>,
    },
    /// Topics that the door needs, each with its wildcards, in place of those before.
    Subscribe {
        /// The filters below the site's own part, in the order in which to fetch them.
        filters: Vec<String>,
    },
    /// The door lacks records that others say are there: fetch these filters again.
    Fetch {
        /// The filters below the site's own part.
        filters: Vec<String>,
    },
}

/// The door's first message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DoorHello {
    /// Version of the protocol: [`PROTOCOL`].
    pub protocol: u32,
    /// Version of the program.
    pub version: String,
    /// Number that tells this door from all others, as 16 hexadecimal digits. It stays as
    /// long as the door keeps its key.
    pub id: String,
    /// Name of the door.
    pub door: String,
    /// Number of the oldest event that is still there.
    pub oldest: u64,
    /// Number of the newest one.
    pub newest: u64,
    /// Orders that the configuration allows the link.
    pub orders: Vec<LinkOrder>,
    /// The site that the door belongs to, as in topics; `None` if to none.
    pub site: Option<String>,
}

/// The state of a door. Fields that a version does not know are left at their defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DoorState {
    /// The lock.
    pub lock: Lock,
    /// Why the door is in that state: normal, lockdown, always open, open hours.
    pub mode: String,
    /// Whether the leaf is open; `None` without a door contact.
    pub leaf_open: Option<bool>,
    /// The alarm, such as "forced"; `None` without one.
    pub alarm: Option<String>,
    /// What is wrong with the camera; `None` if nothing is.
    pub camera_fault: Option<String>,
    /// What is wrong with the relay.
    pub relay_fault: Option<String>,
    /// What is wrong with the clock.
    pub clock_fault: Option<String>,
    /// What is wrong with the gallery or the audit log.
    pub storage_fault: Option<String>,
    /// Number of people enrolled.
    pub people: u32,
    /// False entries expected per year, with the ends of the interval.
    pub false_entries_per_year: Option<[f64; 3]>,
    /// Version of the model set in use.
    pub models: String,
    /// Version of a newer set that waits to be used.
    pub models_waiting: Option<String>,
    /// State of the site, as the door sees it; `None` without a site.
    pub site: Option<SiteState>,
}

/// The lock of a door, as Home Assistant names its states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lock {
    /// Not known yet.
    #[default]
    Unknown,
    /// Locked.
    Locked,
    /// The relay was told to open.
    Opening,
    /// Open for somebody.
    Open,
    /// Open for everybody.
    Unlocked,
    /// The relay was told to lock.
    Locking,
    /// The relay does not answer.
    Jammed,
}

/// The site, as a door sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SiteState {
    /// Number of the newest manifest that the door has.
    pub manifest: u64,
    /// Records that the manifest names and the door lacks.
    pub missing: u32,
    /// Seconds until the policy's lease ends; below 0 if it has.
    pub lease_s: i64,
    /// What is wrong, and the cure; `None` if nothing is.
    pub fault: Option<String>,
}

/// Something that happened at the door, from its audit log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DoorEvent {
    /// Number of the record; numbers rise, with gaps.
    pub number: u64,
    /// When it happened, microseconds since 1970 in UTC.
    pub time_us: i64,
    /// Whether the door trusted its clock.
    pub clock_trusted: bool,
    /// The kind, in few words for automations.
    pub kind: EventKind,
    /// The kind, as in the audit log.
    pub event: String,
    /// info, warn or error.
    pub severity: String,
    /// Number of the person in this door's gallery.
    pub person: Option<u32>,
    /// Name or pseudonym of the person, as `link.names` says.
    pub who: Option<String>,
    /// Why, in few words.
    pub reason: Option<String>,
    /// The event in plain English, without anybody's name.
    pub text: String,
}

/// What an event means to an automation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A known person was let in.
    Admitted,
    /// A known person was refused.
    Refused,
    /// An unknown person tried.
    Stranger,
    /// A face did not look live.
    NotLive,
    /// The door was forced open.
    Forced,
    /// The door was held open too long.
    HeldOpen,
    /// Somebody went out by request to exit.
    Exit,
    /// Somebody was forced to open. Only with `link.duress`.
    Duress,
    /// Anything else.
    #[default]
    #[serde(other)]
    Other,
}

impl EventKind {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Refused => "refused",
            Self::Stranger => "stranger",
            Self::NotLive => "not_live",
            Self::Forced => "forced",
            Self::HeldOpen => "held_open",
            Self::Exit => "exit",
            Self::Duress => "duress",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests;
