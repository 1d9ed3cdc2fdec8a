//! What commands write to the audit log of the door: what they changed, and who ran them.
//!
//! A log that cannot be written stops no command: the change is made, and the command says
//! loudly that the log does not have it.

use super::common_args::CommonArgs;
use facelatch::audit::entry::{By, Entry, Via};
use facelatch::config::{ClockSource, Config};
use facelatch::service::control::login_of;
use facelatch::service::people_changes;
use facelatch::storage::audit::{AuditError, AuditLog, AuditPlace, Bounds, stamp};
use facelatch::storage::gallery::{Person, Store};
use facelatch::storage::keys::{DoorKeys, KeyPlace};

/// The audit log of the door that the configuration names.
pub struct Trail {
    place: AuditPlace,
    bounds: Bounds,
    door: Option<String>,
    /// Whether the installer vouches for the wall clock.
    vouched_for: bool,
    /// The people before the change.
    before: Vec<Person>,
}

impl Trail {
    /// The log of this door.
    pub fn of(common: &CommonArgs, config: &Config) -> Self {
        Self::at(config, common.door())
    }

    /// The log of the door with this configuration.
    pub fn at(config: &Config, door: Option<String>) -> Self {
        let place = AuditPlace::of(&config.gallery_file());
        let bounds = Bounds { keep_for: config.audit.keep_for, largest: config.audit.largest };
        let vouched_for = config.schedule.clock == ClockSource::Trusted;
        Self { place, bounds, door, vouched_for, before: Vec::new() }
    }

    /// Notes the people before a change.
    pub fn before(&mut self, store: &Store) {
        // Without them everybody counts as added.
        self.before = store.people().unwrap_or_default();
    }

    /// Writes what has changed since [`Self::before`], if anything has. `entry` says by what.
    pub fn people(&self, entry: Entry, store: &Store) {
        match store.people() {
            Ok(now) => {
                let changes = people_changes(&self.before, &now);
                if !changes.is_empty() || entry.event != "people" {
                    self.write(entry.with_changes(changes));
                }
            }
            Err(error) => log::error!("{error}; the audit log does not have this change"),
        }
    }

    /// Writes entries.
    pub fn write(&self, entries: Vec<Entry>) {
        if let Err(error) = self.append(entries) {
            log::error!("{error}; the audit log does not have what this command did");
        }
    }

    fn append(&self, entries: Vec<Entry>) -> Result<(), AuditError> {
        let now = stamp(facelatch::service::wall_clock::read(self.vouched_for).synchronized);
        // Without the keys the service signs what was written here.
        let keys = KeyPlace::of_user().and_then(|at| DoorKeys::open(&self.place.gallery, &at).ok());
        let signer = keys.map(|keys| keys.signer().clone());
        let mut log = AuditLog::open(&self.place, self.bounds, signer, &now)?;
        for mut entry in entries {
            entry.by = by();
            entry.door.clone_from(&self.door);
            log.append(&now, &entry.encode())?;
        }
        log.sync()?;
        log.sign(&now).map(drop)
    }
}

/// Who runs this command. The kernel shows user and login; `SUDO_UID` is a claim.
fn by() -> By {
    let sudo = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok());
    By {
        via: Via::CommandLine,
        uid: Some(rustix::process::getuid().as_raw()),
        login: login_of("self"),
        sudo,
        role: None,
    }
}
