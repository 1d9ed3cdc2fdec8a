//! EDGE: an MQTT 5 client on one thread, without a runtime.
//!
//! [`Client::start`] starts the thread. It connects, and connects again with growing pauses
//! whenever the connection is lost, until the client is dropped. What happens is reported
//! through a bounded channel as [`Report`]s. Nothing of a connection survives it: publishes
//! that the broker has not acknowledged are forgotten when it is lost, and the owner decides
//! after the next [`Report::Connected`] what to publish again ([`Outbox`] helps). The broker
//! is not trusted: sizes are bounded before memory is taken, and its texts are made plain.

mod client;
mod outbox;
mod packet;
mod pause;
mod session;
pub(crate) mod stream;
mod tls;
mod words;

pub use client::{Client, Full};
pub use outbox::Outbox;
pub use pause::{Pauses, chance};
pub use tls::{Tls, TlsError};

use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Largest packet that is accepted from a broker, bytes: a record of a site, its topic and
/// properties.
pub const LARGEST_PACKET: u32 = (facelatch_messages::LARGEST_RECORD + 4096) as u32;

/// How to reach a broker, and as whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name or address of the host.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// TLS; without it everybody on the way reads and changes everything.
    pub tls: Option<Tls>,
    /// Client identifier: a broker closes the older of two connections with the same one.
    pub client_id: String,
    /// Name of the user, where the broker asks for one.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<Zeroizing<String>>,
    /// A broker that is silent for this time is gone; 5 seconds or more.
    pub keep_alive: Duration,
    /// What the broker publishes when the connection is lost.
    pub will: Option<Will>,
    /// Pauses between attempts to connect.
    pub pauses: Pauses,
}

/// What the broker publishes when a client is lost. Retained, QoS 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// Its topic.
    pub topic: String,
    /// Its content.
    pub payload: Vec<u8>,
    /// Time that the client has to come back before the will is published, seconds.
    pub delay_s: u32,
}

/// How often a message arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Qos {
    /// At most once (0): not acknowledged.
    #[default]
    AtMostOnce,
    /// At least once (1): acknowledged by the broker.
    AtLeastOnce,
}

/// A message to be published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publish {
    /// Its topic, without wildcards.
    pub topic: String,
    /// Its content; empty and retained removes what the broker retains.
    pub payload: Vec<u8>,
    /// How often it arrives.
    pub qos: Qos,
    /// Whether the broker keeps it for those who come later.
    pub retain: bool,
    /// Time after which the broker drops it, seconds; `None` if it does not.
    pub expires_s: Option<u32>,
}

/// A filter to subscribe to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Topic, perhaps with wildcards.
    pub filter: String,
    /// Largest QoS of messages that arrive by it.
    pub qos: Qos,
    /// Whether the broker sends what it retains.
    pub retained: bool,
}

/// A message of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Its content.
    pub payload: Vec<u8>,
    /// The broker had kept it: it was published before the subscription.
    pub retained: bool,
    /// Rest of the time after which the broker would have dropped it, seconds; `None` if it
    /// has no end.
    pub expires_s: Option<u32>,
    /// It reached this computer after this time.
    pub since: Instant,
}

/// What a client reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The broker accepts messages. Nothing is subscribed yet.
    Connected {
        /// Number of the connection.
        session: u64,
    },
    /// The connection is lost, or could not be made. All that was not acknowledged is
    /// forgotten.
    Lost {
        /// Number of the connection.
        session: u64,
        /// The reason, and the cure if one is known.
        reason: String,
    },
    /// A message has arrived.
    Message(Message),
    /// The broker has the message, or it was sent with QoS 0.
    Published {
        /// The owner's number.
        ticket: u64,
    },
    /// The broker has answered a subscription.
    Subscribed {
        /// The owner's number.
        ticket: u64,
        /// Positions of the filters that it refused.
        refused: Vec<usize>,
    },
    /// The broker or its limits refuse a message.
    Refused {
        /// The owner's number.
        ticket: u64,
        /// The reason.
        reason: String,
    },
}

#[cfg(test)]
mod tests;
