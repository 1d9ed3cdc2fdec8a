//! A site of many doors on a real broker: how long news takes, and what faults do.
//!
//! Doors and office are the state machines of `facelatch-site`; the connections are those of
//! `facelatch-link`, one for each door. Only the doors' galleries are missing: a simulated
//! door notes whom it would have.

mod broker;
mod crowd;
mod door;
mod liar;
mod office;
mod play;
mod report;

use crate::config::MqttUrl;
use crate::mqtt::{Pauses, Settings, Tls};
use broker::Broker;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// What to simulate.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Number of doors, each with its own connection.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(2..=5_000))]
    pub doors: u16,
    /// Number of people.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(20..=9_000))]
    pub people: u32,
    /// Templates of each person.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub templates: u8,
    /// Numbers of a template.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(16..=1_024))]
    pub numbers: u16,
    /// A broker that runs already; it is left as it is, and cannot be killed. All below
    /// facelatch-simulation/ is published there.
    #[arg(long, value_name = "URL")]
    pub broker: Option<MqttUrl>,
    /// Program of the broker that is started otherwise.
    #[arg(long, default_value = "mosquitto", value_name = "PROGRAM")]
    pub mosquitto: PathBuf,
    /// Certificates of the authorities that may have signed the broker's certificate.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Certificate of the doors, for brokers that ask for one.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub certificate: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub key: Option<PathBuf>,
    /// Longest time that doors may take to agree, seconds.
    #[arg(long, default_value_t = 600)]
    pub patience: u64,
    /// Report in JSON.
    #[arg(long)]
    pub json: bool,
}

/// Beginning of all topics.
const PREFIX: &str = "facelatch-simulation";

/// Plays everything and reports. Whether all went as it should.
///
/// # Errors
/// If the broker cannot be started or reached.
pub fn run(options: &Options) -> Result<bool, String> {
    let started = match &options.broker {
        None => Some(Broker::start(&options.mosquitto)?),
        Some(_) => None,
    };
    let url = match (&options.broker, &started) {
        (Some(url), _) => url.clone(),
        (None, Some(broker)) => broker.url(),
        (None, None) => return Err("there is no broker".to_owned()),
    };
    let tls = url.tls.then(|| Tls {
        ca: options.ca.clone(),
        client: options.certificate.clone().zip(options.key.clone()),
    });
    let settings = Settings {
        host: url.host,
        port: url.port,
        tls,
        client_id: String::new(),
        username: None,
        password: None,
        keep_alive: Duration::from_secs(30),
        will: None,
        pauses: Pauses::new(Duration::from_millis(200), Duration::from_secs(2)),
    };
    play::play(options, &settings, started)
}

/// The same settings with a client identifier of its own.
fn named(settings: &Settings, name: &str) -> Settings {
    let client_id = format!("{name}-{:08x}", crate::mqtt::chance().to_bits() >> 32);
    Settings { client_id, ..settings.clone() }
}
