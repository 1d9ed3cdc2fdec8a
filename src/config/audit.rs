//! `[audit]`: what the audit log keeps, and for how long.

use super::fault::{Fault, seconds};
use super::unit::{size, time};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Range of the time for which records are kept, seconds: a day to ten years.
const KEEP_FOR: (f64, f64) = (86_400.0, 3650.0 * 86_400.0);
/// Range of the time for which pictures are kept, seconds: an hour to ten years.
const PICTURES_KEEP_FOR: (f64, f64) = (3600.0, 3650.0 * 86_400.0);
/// Least size of the log, bytes: a week of a busy door.
const SMALLEST: u64 = 8_000_000;

/// Of which attempts the audit log keeps a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pictures {
    /// Of none.
    #[default]
    Off,
    /// Of those that were refused.
    Refused,
    /// Of all.
    All,
}

/// `[audit]`: what the audit log keeps, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [audit]")]
pub struct AuditConfig {
    /// Records are removed when they are older than this; a day to ten years.
    #[serde(with = "time")]
    pub keep_for: Duration,
    /// The oldest records are removed when the log is larger than this, bytes; 8 MB or more.
    #[serde(with = "size")]
    pub largest: u64,
    /// Of which attempts a picture of the face is kept, sealed.
    pub pictures: Pictures,
    /// Pictures are removed when they are older than this; an hour to ten years.
    #[serde(with = "time")]
    pub pictures_keep_for: Duration,
    /// Keep the inputs of each decision, so that it can be derived again.
    pub replay: bool,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            keep_for: Duration::from_secs(365 * 86_400),
            largest: 256_000_000,
            pictures: Pictures::Off,
            pictures_keep_for: Duration::from_secs(30 * 86_400),
            replay: false,
        }
    }
}

impl super::Config {
    /// Checks the ranges of this table.
    pub(super) fn check_audit(&self) -> Result<(), Fault> {
        seconds("audit.keep_for", self.audit.keep_for, KEEP_FOR)?;
        seconds("audit.pictures_keep_for", self.audit.pictures_keep_for, PICTURES_KEEP_FOR)?;
        if self.audit.largest < SMALLEST {
            let value = size::text(self.audit.largest);
            return Err(Fault::of("audit.largest", &format!("= {value:?}: expected 8 MB or more")));
        }
        Ok(())
    }
}
