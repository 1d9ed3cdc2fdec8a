//! EDGE: `facelatch.toml`.
//!
//! Every setting has a default, so an empty file is a complete configuration. An unknown
//! key is an error, so that a misspelt rule is not silently off. `config/example.toml`
//! documents the meaning, range and default of every key; tests compare it with this code.

mod access;
mod advice;
mod audit;
mod devices;
mod differences;
mod effective;
mod fault;
mod link;
mod reader;
mod reload;
mod roles;
mod service;
mod site;
#[cfg(test)]
pub(crate) mod tests;
mod text;
mod twice;
mod unit;

pub use access::{
    ClockSource, DoorConfig, EnrollConfig, GroupConfig, Groups, LockoutConfig, ScheduleConfig,
};
pub use audit::{AuditConfig, Pictures};
pub use devices::{CameraConfig, GpioConfig, LightsConfig, RelayConfig, Wire};
pub use differences::SettingChange;
pub use effective::Effective;
pub use fault::{Fault, Position};
pub use link::{LINK_USER, LinkConfig, LinkNames};
pub use reload::{KEYS, Key};
pub use roles::{EVERYBODY, RolesConfig};
pub use service::{SOCKET, SYSTEM_FOLDER, ServiceConfig};
pub use site::{LeaseEnd, SiteConfig};

use crate::access::Settings;
use crate::access::decide::{DecideSettings, TwoFaces, Zone};
use crate::access::false_entries::FalseEntrySettings;
use crate::access::liveness::challenge::ChallengeSettings;
use crate::access::liveness::{GuardSettings, Mode};
use crate::models::signature::TrustedKeys;
use crate::vision::detect::DetectorSettings;
use fault::{seconds, within};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use text::text_of;
use thiserror::Error;
use unit::{rate, time};

/// `example.toml`: the meaning, range and default of every key. Read as it stands, it is
/// the default configuration.
pub const EXAMPLE: &str = include_str!("example.toml");
/// Highest false accept rate: from here on strangers get in by trying. It is the error of
/// the best models on one hard pair.
const CARELESS_RATE: f64 = 1e-2;

/// Most keys in `models.trusted_keys`.
const MOST_KEYS: usize = 16;
/// How much of a wrong key a message shows, characters.
const SHOWN_OF_KEY: usize = 64;

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file is missing or unreadable.
    #[error("{path}: {reason}{}", cure(.reason))]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        reason: std::io::Error,
    },
    /// The file is not valid TOML, has an unknown key, or a value is out of range.
    #[error("{path}:{}{reason}", position(.at))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Position of the fault in the file; `None` if it has none.
        at: Option<Position>,
        /// The fault and the cure.
        reason: String,
    },
    /// The configuration cannot be written as TOML.
    #[error("the configuration cannot be written: {reason}")]
    Write {
        /// The error of the TOML writer.
        reason: String,
    },
}

fn cure(reason: &std::io::Error) -> &'static str {
    match reason.kind() {
        ErrorKind::NotFound => "; facelatch config example prints one",
        ErrorKind::PermissionDenied => {
            "; run this as a user who may read it, such as the service's: sudo -u facelatch"
        }
        _ => "",
    }
}

fn position(at: &Option<Position>) -> String {
    at.map_or_else(|| " ".to_owned(), |at| format!("{at}: "))
}

/// All settings, in the order in which an installer needs them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[camera]`: where frames come from.
    pub camera: CameraConfig,
    /// `[relay]`: the device that moves the lock.
    pub relay: RelayConfig,
    /// `[gpio]`: input lines.
    pub gpio: GpioConfig,
    /// `[lights]`: output lines.
    pub lights: LightsConfig,
    /// `[door]`: lock, alarms, duress and anti-passback.
    pub door: DoorConfig,
    /// `[recognition]`: evidence needed to open.
    pub recognition: RecognitionConfig,
    /// `[liveness]`: checks that the person is present.
    pub liveness: LivenessConfig,
    /// `[enroll]`: enrolment with the button.
    pub enroll: EnrollConfig,
    /// `[lockout]`: pauses after refused tries.
    pub lockout: LockoutConfig,
    /// `[schedule]`: holidays and the clock.
    pub schedule: ScheduleConfig,
    /// `[groups]`: hours per group, by name.
    pub groups: Groups,
    /// `[gallery]`: where people are stored.
    pub gallery: GalleryConfig,
    /// `[audit]`: how much of the audit log is kept.
    pub audit: AuditConfig,
    /// `[models]`: where model sets are installed.
    pub models: ModelsConfig,
    /// `[service]`: socket, power saving and watchdog.
    pub service: ServiceConfig,
    /// `[roles]`: who may do what over the control socket.
    pub roles: RolesConfig,
    /// `[link]`: the socket for the program that links this door to others.
    pub link: LinkConfig,
    /// `[site]`: the site whose people, groups and rules this door shares.
    pub site: SiteConfig,
}

/// `[gallery]`: where enrolled people are stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [gallery]")]
pub struct GalleryConfig {
    /// The file; `None` means [`default_gallery`].
    pub file: Option<PathBuf>,
    /// Keep the aligned face beside each template, so that a new model can recompute the
    /// template.
    pub keep_crops: bool,
}

/// `[models]`: where model sets are installed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [models]")]
pub struct ModelsConfig {
    /// The folder; `None` means `models` beside the gallery.
    pub folder: Option<PathBuf>,
    /// Public keys whose signed sets may be installed, as in OpenSSH's `.pub` files; at most
    /// 16.
    pub trusted_keys: Vec<String>,
}

/// `[recognition]`: how much evidence opens the door.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [recognition]")]
pub struct RecognitionConfig {
    /// False accept rate per attempt, above 0 and up to 1e-2: 1e-4 admits about one stranger
    /// in 10,000.
    #[serde(with = "rate")]
    pub false_accept_rate: f64,
    /// Most false entries expected per year, up to 1,000; the rate is tightened to keep it,
    /// down to a tenth. 0 sets no limit.
    pub false_entries_per_year: f64,
    /// Attempts per day of people who are not enrolled, assumed until the door has counted
    /// its own, 0.1 to 100,000.
    pub strangers_per_day: f64,
    /// Number of frames of one face that must agree, 3 to 30.
    pub frames: usize,
    /// Older frames no longer count as evidence; 100 ms to 10 s.
    #[serde(with = "time")]
    pub evidence_expires: Duration,
    /// Whom to admit when two faces are in the zone.
    pub two_faces: TwoFaces,
    /// A person who was let in and stays in view is let in again after this; up to 1 hour.
    #[serde(with = "time")]
    pub again_after: Duration,
    /// Ignore views of live cameras that repeat an earlier one, noise included.
    pub distinct_views: bool,
    /// Left, top, right and bottom of the part of the picture in which faces count, as
    /// fractions of its width and height, 0 to 1.
    pub zone: [f32; 4],
    /// Least shorter side of the bounding box of a face that counts, pixels, 20 to 2000.
    pub minimum_face: f32,
}

/// `[liveness]`: whether the person must be present, rather than a picture of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [liveness]")]
pub struct LivenessConfig {
    /// Off, log doubts, or require liveness to open.
    pub mode: Mode,
    /// Liveness score below which a face is refused, 0 to 1.
    pub threshold: f32,
    /// Require that the head turned a little. Has an effect only with [`Mode::Enforce`].
    pub motion: bool,
    /// Number of head turns to ask for, 0 to 8. Has an effect only with [`Mode::Enforce`].
    pub turns: u32,
}

impl Default for LivenessConfig {
    fn default() -> Self {
        Self { mode: Mode::Off, threshold: 0.5, motion: false, turns: 0 }
    }
}

impl Default for GalleryConfig {
    fn default() -> Self {
        Self { file: None, keep_crops: true }
    }
}

impl Default for RecognitionConfig {
    fn default() -> Self {
        let decide = DecideSettings::default();
        let zone = Zone::default();
        let entries = FalseEntrySettings::default();
        Self {
            false_accept_rate: 1e-4,
            false_entries_per_year: entries.per_year.unwrap_or(0.0),
            strangers_per_day: entries.strangers_per_day,
            frames: decide.frames,
            evidence_expires: decide.evidence_expires,
            two_faces: decide.two_faces,
            again_after: decide.again_after,
            distinct_views: true,
            zone: zone.area,
            minimum_face: zone.minimum_face,
        }
    }
}

impl Config {
    /// Reads and checks a file of at most 1 MiB.
    ///
    /// # Errors
    /// If the file is missing, unreadable, too large or not UTF-8, and as for
    /// [`Self::parse`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(path, &text_of(path)?)
    }

    /// Reads and checks a text; `path` appears in error messages. A setting that the text
    /// does not have gets its default.
    ///
    /// # Errors
    /// If the text is not valid TOML, has an unknown key, or a value is out of range. The
    /// error has line and column.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        read(path, text).map(|read| read.config)
    }

    /// As TOML that [`Self::parse`] reads back as the same configuration.
    ///
    /// # Errors
    /// If a setting cannot be written as TOML, such as a path that is not UTF-8.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self).map_err(|error| ConfigError::Write { reason: error.to_string() })
    }

    /// Checks ranges, and settings against each other.
    fn check(&self) -> Result<(), Fault> {
        self.check_board()?;
        self.check_access()?;
        self.check_service()?;
        self.check_roles()?;
        self.check_link()?;
        self.check_site()?;
        self.check_audit()?;
        self.check_models()?;
        let recognition = &self.recognition;
        if recognition.false_accept_rate > CARELESS_RATE {
            return Err(Fault::of(
                "recognition.false_accept_rate",
                &format!(
                    "= \"{:e}\" admits about one stranger in {:.0}: expected 1e-2 at most; a \
                     door needs \"1e-4\" or less",
                    recognition.false_accept_rate,
                    1.0 / recognition.false_accept_rate
                ),
            ));
        }
        let budget = recognition.false_entries_per_year;
        within("recognition.false_entries_per_year", budget, (0.0, 1000.0), "")?;
        let strangers = recognition.strangers_per_day;
        within("recognition.strangers_per_day", strangers, (0.1, 100_000.0), "")?;
        // With fewer, one picture would nearly be enough.
        within("recognition.frames", recognition.frames as f64, (3.0, 30.0), "")?;
        let face = f64::from(recognition.minimum_face);
        within("recognition.minimum_face", face, (20.0, 2000.0), " pixels")?;
        seconds("recognition.evidence_expires", recognition.evidence_expires, (0.1, 10.0))?;
        seconds("recognition.again_after", recognition.again_after, (0.0, 3600.0))?;
        within("liveness.threshold", f64::from(self.liveness.threshold), (0.0, 1.0), "")?;
        within("liveness.turns", f64::from(self.liveness.turns), (0.0, 8.0), "")?;
        let [left, top, right, bottom] = recognition.zone;
        let inside = recognition.zone.iter().all(|share| (0.0..=1.0).contains(share));
        if !inside || left >= right || top >= bottom {
            return Err(Fault::of(
                "recognition.zone",
                &format!(
                    "= {:?}: expected [left, top, right, bottom], fractions of the picture \
                     from 0 to 1",
                    recognition.zone
                ),
            ));
        }
        Ok(())
    }

    /// Checks the number and form of the trusted keys.
    fn check_models(&self) -> Result<(), Fault> {
        let keys = &self.models.trusted_keys;
        if keys.len() > MOST_KEYS {
            let fault = format!("has {} keys: expected at most {MOST_KEYS}", keys.len());
            return Err(Fault::of("models.trusted_keys", &fault));
        }
        TrustedKeys::parse(keys).map(|_| ()).map_err(|(at, fault)| {
            let shown: String = keys[at].chars().take(SHOWN_OF_KEY).collect();
            Fault::of("models.trusted_keys", &format!("has {shown:?}: {fault}"))
        })
    }

    /// The keys whose signed sets of models may be installed.
    pub fn trusted_keys(&self) -> TrustedKeys {
        // Checked when the configuration was read; without keys no signature counts.
        TrustedKeys::parse(&self.models.trusted_keys).unwrap_or_default()
    }

    /// Settings for [`crate::access::controller::Controller`].
    pub fn access(&self) -> Settings {
        Settings {
            false_accept_rate: self.recognition.false_accept_rate,
            false_entries: self.false_entries(),
            distinct_views: self.recognition.distinct_views,
            decide: self.decide(),
            liveness: self.liveness(),
            door: self.door(),
            lockout: self.lockout(),
            duress: self.door.duress,
            schedule: self.schedule(),
            enroll: self.enroll_at_door(),
        }
    }

    /// Settings for [`crate::access::false_entries`].
    pub fn false_entries(&self) -> FalseEntrySettings {
        let RecognitionConfig { false_entries_per_year: budget, strangers_per_day, .. } =
            self.recognition;
        FalseEntrySettings { per_year: (budget > 0.0).then_some(budget), strangers_per_day }
    }

    /// Settings for [`crate::access::decide`].
    pub fn decide(&self) -> DecideSettings {
        let recognition = &self.recognition;
        DecideSettings {
            frames: recognition.frames,
            evidence_expires: recognition.evidence_expires,
            two_faces: recognition.two_faces,
            again_after: recognition.again_after,
            ..DecideSettings::default()
        }
    }

    /// The zone in which faces count.
    pub fn zone(&self) -> Zone {
        let recognition = &self.recognition;
        Zone { area: recognition.zone, minimum_face: recognition.minimum_face }
    }

    /// Settings for [`crate::access::liveness`].
    pub fn liveness(&self) -> GuardSettings {
        let LivenessConfig { mode, threshold, motion, turns } = self.liveness;
        let challenge = (turns > 0).then(|| {
            let default = ChallengeSettings::default();
            // On a slow board frames are further apart; a challenge must survive the gap.
            let lost_after = default.lost_after.max(self.recognition.evidence_expires);
            ChallengeSettings { turns, lost_after, ..default }
        });
        GuardSettings { mode, threshold, motion, challenge }
    }

    /// Settings for [`crate::vision::detect`]. It does not search for faces that are too small to
    /// count, with a margin because a face's box can be smaller than its window.
    pub fn detector(&self) -> DetectorSettings {
        let minimum_face = (self.recognition.minimum_face * 0.8).max(12.0);
        DetectorSettings { minimum_face, ..DetectorSettings::default() }
    }

    /// Folder in which model sets are installed.
    pub fn model_store(&self) -> PathBuf {
        self.models.folder.clone().unwrap_or_else(|| self.gallery_file().with_file_name("models"))
    }

    /// File of the gallery.
    pub fn gallery_file(&self) -> PathBuf {
        self.gallery.file.clone().unwrap_or_else(default_gallery)
    }
}

/// `facelatch/gallery.redb` in `$XDG_DATA_HOME` or `~/.local/share`; for root, who runs
/// services, in `/var/lib`.
pub fn default_gallery() -> PathBuf {
    let folder = if rustix::process::getuid().is_root() {
        PathBuf::from("/var/lib")
    } else if let Some(folder) = std::env::var_os("XDG_DATA_HOME").filter(|f| !f.is_empty()) {
        PathBuf::from(folder)
    } else if let Some(home) = std::env::var_os("HOME") {
        PathBuf::from(home).join(".local/share")
    } else {
        PathBuf::from(".")
    };
    folder.join("facelatch/gallery.redb")
}

/// Folder for what the service must find before it reads its configuration: that which
/// systemd made for the service, else the one of [`default_gallery`].
pub fn state_folder() -> PathBuf {
    let made = std::env::var_os("STATE_DIRECTORY").filter(|folders| !folders.is_empty());
    // Several folders are separated by colons.
    let first = made.and_then(|folders| std::env::split_paths(&folders).next());
    first.unwrap_or_else(|| {
        let mut folder = default_gallery();
        folder.pop();
        folder
    })
}

fn read(path: &Path, text: &str) -> Result<reader::Read, ConfigError> {
    reader::read(text).map_err(|fault| ConfigError::Invalid {
        path: path.to_owned(),
        at: fault.at,
        reason: fault.reason,
    })
}
