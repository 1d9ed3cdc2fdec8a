//! The rules of the site on their way to the configuration in use: its groups and holidays.

use crate::config::{Config, ConfigError};
use crate::service::reload::Reload;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

/// The rules of the site, as the site thread sets them and the thread that reads files
/// lays them over the configuration.
#[derive(Debug)]
pub struct SiteRules {
    text: Mutex<String>,
    reload: Arc<Reload>,
}

impl SiteRules {
    /// No rules. Others than before have the configuration reloaded.
    pub fn new(reload: Arc<Reload>) -> Self {
        Self { text: Mutex::default(), reload }
    }

    /// Sets the rules, in TOML; empty for none.
    ///
    /// # Errors
    /// If they cannot be used; then those before stay.
    pub(super) fn set(&self, text: &str) -> Result<(), ConfigError> {
        Config::default().with_site_rules(text)?;
        let mut now = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        if *now != text {
            text.clone_into(&mut now);
            self.reload.wanted.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// The rules in TOML; empty for none.
    pub fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
