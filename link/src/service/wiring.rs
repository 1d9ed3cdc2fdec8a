//! EDGE: settings into what the parts need: files that hold secrets, and names of topics.

use crate::config::Config;
use crate::home::Topics;
use crate::mqtt::{self, Pauses, Tls, Will};
use crate::service::Settings;
use crate::webhook::{self, Target};
use std::path::{Path, PathBuf};

/// Time that a program or network has to come back before the door counts as offline,
/// seconds.
const WILL_DELAY_S: u32 = 10;

/// A file of the configuration: a name without a folder is one of systemd's credentials, if
/// the unit has any.
pub fn file(path: &Path) -> PathBuf {
    let bare = path.components().count() == 1 && path.is_relative();
    match std::env::var_os("CREDENTIALS_DIRECTORY").filter(|_| bare) {
        Some(folder) => PathBuf::from(folder).join(path),
        None => path.to_owned(),
    }
}

/// Settings of the state machine.
pub fn core(config: &Config) -> Settings {
    let home = &config.home_assistant;
    Settings {
        mqtt: config.mqtt.url.is_some(),
        webhook: config.webhook.url.is_some(),
        prefix: config.mqtt.prefix.clone(),
        discovery: home.discovery.then(|| home.prefix.clone()),
        order_age: config.mqtt.order_age,
    }
}

/// Settings of the client, with the door's client identifier and will; `None` if no broker
/// is configured.
///
/// # Errors
/// If the password cannot be read.
pub fn broker(config: &Config, topics: &Topics) -> Result<Option<mqtt::Settings>, String> {
    let mqtt = &config.mqtt;
    let Some(url) = &mqtt.url else { return Ok(None) };
    let tls = Tls {
        ca: mqtt.ca.as_deref().map(file),
        client: mqtt.certificate.as_deref().map(file).zip(mqtt.key.as_deref().map(file)),
    };
    let password = match &mqtt.password_file {
        Some(path) => Some(webhook::first_line(&file(path))?),
        None => None,
    };
    let id = || format!("facelatch-{}", topics.id);
    Ok(Some(mqtt::Settings {
        host: url.host.clone(),
        port: url.port,
        tls: url.tls.then_some(tls),
        client_id: mqtt.client_id.clone().unwrap_or_else(id),
        username: mqtt.username.clone(),
        password,
        keep_alive: mqtt.keep_alive,
        will: Some(Will {
            topic: topics.of("availability"),
            payload: b"offline".to_vec(),
            delay_s: WILL_DELAY_S,
        }),
        pauses: Pauses::default(),
    }))
}

/// Where events are posted; `None` if no webhook is configured.
///
/// # Errors
/// If the secret cannot be read.
pub fn target(config: &Config) -> Result<Option<Target>, String> {
    let hook = &config.webhook;
    let (Some(url), Some(secret)) = (&hook.url, &hook.secret_file) else { return Ok(None) };
    Ok(Some(Target {
        url: url.clone(),
        tls: Tls { ca: hook.ca.as_deref().map(file), client: None },
        secret: webhook::secret(&file(secret))?,
        timeout: hook.timeout,
    }))
}
