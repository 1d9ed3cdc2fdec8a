//! EDGE: `link.toml`.
//!
//! `example.toml` documents every key; a test compares it with this code. An unknown key is
//! an error, so that a misspelt setting is not silently off.

mod reader;
mod time;
mod url;

pub use reader::ConfigError;
pub use url::{HttpUrl, MqttUrl};

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Every key with its meaning and default.
pub const EXAMPLE: &str = include_str!("example.toml");
/// Where the packaged service has its configuration.
pub const SYSTEM_FILE: &str = "/etc/facelatch/link.toml";
/// Longest prefix of topics, bytes.
const LONGEST_PREFIX: usize = 60;

/// All settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The door.
    pub door: DoorConfig,
    /// The broker.
    pub mqtt: MqttConfig,
    /// Home Assistant.
    pub home_assistant: HomeConfig,
    /// The webhook.
    pub webhook: WebhookConfig,
    /// This program.
    pub service: ServiceConfig,
}

/// `[door]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DoorConfig {
    /// Socket that the door opens for this program.
    pub socket: PathBuf,
}

/// `[mqtt]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MqttConfig {
    /// The broker; `None` for none.
    pub url: Option<MqttUrl>,
    /// Certificates of authorities.
    pub ca: Option<PathBuf>,
    /// Certificate of this program.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// Name of the user.
    pub username: Option<String>,
    /// File with the user's password.
    pub password_file: Option<PathBuf>,
    /// Client identifier; `None` for one made of the door's number.
    pub client_id: Option<String>,
    /// Beginning of all topics.
    pub prefix: String,
    /// Time after which a silent broker is given up.
    #[serde(with = "time")]
    pub keep_alive: Duration,
    /// Greatest age of an order.
    #[serde(with = "time")]
    pub order_age: Duration,
}

/// `[home_assistant]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HomeConfig {
    /// Whether the door announces itself.
    pub discovery: bool,
    /// Discovery prefix.
    pub prefix: String,
}

/// `[webhook]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookConfig {
    /// The receiver; `None` for none.
    pub url: Option<HttpUrl>,
    /// File with the secret.
    pub secret_file: Option<PathBuf>,
    /// Certificates of authorities.
    pub ca: Option<PathBuf>,
    /// Longest time for an answer.
    #[serde(with = "time")]
    pub timeout: Duration,
}

/// `[service]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceConfig {
    /// Folder that remembers which events have arrived.
    pub state: PathBuf,
}

impl Default for DoorConfig {
    fn default() -> Self {
        Self { socket: "/run/facelatch/link.sock".into() }
    }
}

impl Default for MqttConfig {
    fn default() -> Self {
        Self {
            url: None,
            ca: None,
            certificate: None,
            key: None,
            username: None,
            password_file: None,
            client_id: None,
            prefix: "facelatch".to_owned(),
            keep_alive: Duration::from_secs(30),
            order_age: Duration::from_secs(10),
        }
    }
}

impl Default for HomeConfig {
    fn default() -> Self {
        Self { discovery: true, prefix: "homeassistant".to_owned() }
    }
}

impl Default for WebhookConfig {
    fn default() -> Self {
        Self { url: None, secret_file: None, ca: None, timeout: Duration::from_secs(10) }
    }
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self { state: "/var/lib/facelatch-link".into() }
    }
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// If it cannot be read, or has a fault: its place, what is wrong, and the cure.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        reader::read_file(path)
    }

    /// Reads and checks a text.
    ///
    /// # Errors
    /// If it has a fault: line, column, what is wrong, and the cure.
    pub fn parse(text: &str) -> Result<Self, String> {
        reader::read(text)
    }

    /// The first setting that does not fit, and why.
    fn check(&self) -> Result<(), (&'static str, String)> {
        let MqttConfig { url, certificate, key, ca, client_id, prefix, .. } = &self.mqtt;
        within("mqtt.keep_alive", self.mqtt.keep_alive, 5, 600)?;
        within("mqtt.order_age", self.mqtt.order_age, 2, 300)?;
        within("webhook.timeout", self.webhook.timeout, 1, 120)?;
        topic("mqtt.prefix", prefix)?;
        topic("home_assistant.prefix", &self.home_assistant.prefix)?;
        match (certificate, key) {
            (Some(_), None) => {
                return Err(("mqtt.certificate", "needs mqtt.key as well".to_owned()));
            }
            (None, Some(_)) => {
                return Err(("mqtt.key", "needs mqtt.certificate as well".to_owned()));
            }
            _ => {}
        }
        let plain = url.as_ref().is_some_and(|url| !url.tls);
        if plain && (certificate.is_some() || ca.is_some()) {
            let fault = "has no TLS, so that certificates have no use; write mqtts://";
            return Err(("mqtt.url", fault.to_owned()));
        }
        if self.mqtt.password_file.is_some() && self.mqtt.username.is_none() {
            return Err(("mqtt.password_file", "needs mqtt.username as well".to_owned()));
        }
        if client_id.as_ref().is_some_and(|id| id.is_empty() || id.len() > 200) {
            return Err(("mqtt.client_id", "expected 1 to 200 bytes".to_owned()));
        }
        let WebhookConfig { url, secret_file, .. } = &self.webhook;
        if url.is_some() && secret_file.is_none() {
            let fault = "needs webhook.secret_file, or a receiver could not tell who sends";
            return Err(("webhook.url", fault.to_owned()));
        }
        Ok(())
    }

    /// Likely mistakes, each with its key.
    pub fn advice(&self) -> Vec<String> {
        let mut advice = vec![];
        if self.mqtt.url.is_none() && self.webhook.url.is_none() {
            advice.push("nothing is linked; set mqtt.url or webhook.url".to_owned());
        }
        if let Some(url) = self.mqtt.url.as_ref().filter(|url| !url.tls && !url.local()) {
            advice.push(format!(
                "mqtt.url: {url} has no TLS: everybody on the way reads along and may give \
                 orders; write mqtts://"
            ));
        }
        if let Some(url) = self.webhook.url.as_ref().filter(|url| !url.tls && !url.local()) {
            advice.push(format!(
                "webhook.url: {url} has no TLS: everybody on the way reads along; write https://"
            ));
        }
        advice
    }
}

fn within(
    key: &'static str,
    time: Duration,
    least_s: u64,
    most_s: u64,
) -> Result<(), (&'static str, String)> {
    let range = Duration::from_secs(least_s)..=Duration::from_secs(most_s);
    if range.contains(&time) {
        return Ok(());
    }
    let text = time::text;
    let (least, most) = (text(*range.start()), text(*range.end()));
    Err((key, format!("= \"{}\": expected {least} to {most}", text(time))))
}

fn topic(key: &'static str, prefix: &str) -> Result<(), (&'static str, String)> {
    let fine = |c: char| !c.is_control() && !"+#$ ".contains(c);
    let parts = prefix.split('/').all(|part| !part.is_empty());
    if parts && prefix.len() <= LONGEST_PREFIX && prefix.chars().all(fine) {
        return Ok(());
    }
    let fault = format!(
        "= {prefix:?}: expected the beginning of a topic, like \"home/doors\": no space, +, # \
         or $, no empty part, at most {LONGEST_PREFIX} bytes"
    );
    Err((key, fault))
}

#[cfg(test)]
mod tests;
