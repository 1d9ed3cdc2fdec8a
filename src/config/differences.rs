//! What is different between two configurations, key by key and without secrets.

use super::effective::shown;
use super::{Config, KEYS};
use crate::models::sha256_hex;
use serde_json::Value;

/// A setting that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingChange {
    /// Name with its table, like "door.open_for"; all groups together are "groups".
    pub key: &'static str,
    /// The value in the one configuration, as JSON; `None` if it is not set.
    pub old: Option<String>,
    /// The value in the other.
    pub new: Option<String>,
}

impl Config {
    /// The settings that differ in `now`. A secret that differs shows the same text twice.
    pub fn differences(&self, now: &Self) -> Vec<SettingChange> {
        let (before, after) = (self.to_shown_json(), now.to_shown_json());
        let value = |config: &Value, key: &str| {
            let value = key.split('.').try_fold(config, |value, part| value.get(part));
            value.filter(|value| !value.is_null()).map(|value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            })
        };
        KEYS.iter()
            .filter(|key| key.differs(self, now))
            .map(|key| SettingChange {
                key: key.name,
                old: value(&before, key.name),
                new: value(&after, key.name),
            })
            .collect()
    }

    /// The configuration without secrets, as more people may see it.
    pub fn without_secrets(&self) -> Self {
        shown(self)
    }

    /// All settings as JSON, without secrets.
    pub fn to_shown_json(&self) -> Value {
        // Fails only for a path that is not UTF-8.
        serde_json::to_value(shown(self)).unwrap_or_default()
    }

    /// The first bytes of the SHA-256 of all settings without secrets: it names a
    /// configuration.
    pub fn digest(&self) -> [u8; 8] {
        let hex = sha256_hex(self.to_shown_json().to_string().as_bytes());
        std::array::from_fn(|at| {
            let byte = hex.get(2 * at..2 * at + 2).unwrap_or_default();
            u8::from_str_radix(byte, 16).unwrap_or_default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn differences_have_both_values_and_no_secrets() {
        let before = Config::default();
        assert_eq!(before.differences(&before), []);
        let mut now = before.clone();
        now.door.open_for = Duration::from_secs(7);
        now.camera.uri = Some("pipe:ffmpeg -i rtsp://ada:secret@camera/1 -".to_owned());
        let differences = now.differences(&before);
        let keys: Vec<&str> = differences.iter().map(|change| change.key).collect();
        assert_eq!(keys, ["camera.uri", "door.open_for"]);
        assert_eq!(differences[1].old.as_deref(), Some("7s"));
        assert_eq!(differences[1].new.as_deref(), Some("3s"));
        let camera = differences[0].old.as_deref().expect("a camera");
        assert!(!camera.contains("secret"), "{camera}");
        assert_eq!(differences[0].new, None);
        assert_ne!(before.digest(), now.digest());
    }
}
