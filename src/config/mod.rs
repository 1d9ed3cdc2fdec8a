//! EDGE: `facelatch.toml`.
//!
//! Every setting has a default, so an empty file is a whole configuration. An
//! unknown key is an error: a misspelt rule must not be silently off. What every key
//! means, its range and its default stand in `config/example.toml`, which tests hold
//! against what is here.

mod access;
mod advice;
mod devices;
mod effective;
mod fault;
mod reader;
mod reload;
mod service;
#[cfg(test)]
pub(crate) mod tests;
mod unit;

pub use access::{
    ClockSource, DoorConfig, DuressGesture, EnrollConfig, GroupConfig, Groups, LockoutConfig,
    ScheduleConfig,
};
pub use devices::{CameraConfig, GpioConfig, LightsConfig, RelayConfig};
pub use effective::Effective;
pub use fault::{Fault, Position};
pub use reload::{KEYS, Key};
pub use service::{SOCKET, SYSTEM_FOLDER, ServiceConfig};
pub(crate) use unit::in_words;
pub use unit::{duration_text, parse_duration};

use crate::access::decide::{DecideSettings, TwoFaces, Zone};
use crate::access::liveness::challenge::ChallengeSettings;
use crate::access::liveness::{GuardSettings, Mode};
use crate::models::Models;
use crate::nn::NetworkError;
use crate::vision::detect::DetectorSettings;
use crate::vision::liveness::network::LivenessNets;
use fault::{seconds, within};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;
use unit::{rate, time};

/// Every key with what it means, its range and its default; as it stands it is the
/// default configuration.
pub const EXAMPLE: &str = include_str!("example.toml");
/// Longer files are no configuration: a hundred groups take some 10 KiB.
const MAX_BYTES: u64 = 1 << 20;

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// Not there, or not readable.
    #[error("{path}: {reason}{}", cure(.reason))]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// Not what it should be.
    #[error("{path}:{}{reason}", position(.at))]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// Where in it, where it is anywhere.
        at: Option<Position>,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// Not to be written as text.
    #[error("the configuration cannot be written: {reason}")]
    Write {
        /// What cannot be.
        reason: String,
    },
}

fn cure(reason: &std::io::Error) -> &'static str {
    match reason.kind() {
        ErrorKind::NotFound => "; facelatch config example prints one",
        ErrorKind::PermissionDenied => {
            "; run this as somebody who may read it, like the service's own user: sudo -u facelatch"
        }
        _ => "",
    }
}

fn position(at: &Option<Position>) -> String {
    at.map_or_else(|| " ".to_owned(), |at| format!("{at}: "))
}

/// Everything that can be set, in the order in which an installer needs it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[camera]`
    pub camera: CameraConfig,
    /// `[relay]`
    pub relay: RelayConfig,
    /// `[gpio]`
    pub gpio: GpioConfig,
    /// `[lights]`
    pub lights: LightsConfig,
    /// `[door]`
    pub door: DoorConfig,
    /// `[recognition]`
    pub recognition: RecognitionConfig,
    /// `[liveness]`
    pub liveness: LivenessConfig,
    /// `[enroll]`
    pub enroll: EnrollConfig,
    /// `[lockout]`
    pub lockout: LockoutConfig,
    /// `[schedule]`
    pub schedule: ScheduleConfig,
    /// `[groups]`
    pub groups: Groups,
    /// `[gallery]`
    pub gallery: GalleryConfig,
    /// `[models]`
    pub models: ModelsConfig,
    /// `[service]`
    pub service: ServiceConfig,
}

/// `[gallery]`: where people are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [gallery]")]
pub struct GalleryConfig {
    /// The file; by default in the user's data folder.
    pub file: Option<PathBuf>,
    /// Whether the aligned face is kept beside each template, so that a new
    /// model can make the template anew.
    pub keep_crops: bool,
}

/// `[models]`: where sets of models are installed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [models]")]
pub struct ModelsConfig {
    /// The folder; by default `models` beside the gallery.
    pub folder: Option<PathBuf>,
}

/// `[recognition]`: who is let in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [recognition]")]
pub struct RecognitionConfig {
    /// False accept rate an attempt: how many of so many strangers at the door
    /// may pass.
    #[serde(with = "rate")]
    pub false_accept_rate: f64,
    /// Frames that must agree.
    pub frames: usize,
    /// Age at which a frame's evidence is forgotten.
    #[serde(with = "time")]
    pub evidence_expires: Duration,
    /// What to do about two faces in the zone.
    pub two_faces: TwoFaces,
    /// Somebody let in who stays is let in again after this.
    #[serde(with = "time")]
    pub again_after: Duration,
    /// Whether a view that is the same once more, noise included, counts for nothing;
    /// not asked of recorded frames.
    pub distinct_views: bool,
    /// Left, top, right, bottom of the part of the picture in which faces
    /// count, as shares of it.
    pub zone: [f32; 4],
    /// Shorter side of a face that counts, pixels.
    pub minimum_face: f32,
}

/// `[liveness]`: whether a face must be there in person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [liveness]")]
pub struct LivenessConfig {
    /// Off; logged; or asked for before the door opens.
    pub mode: Mode,
    /// Score below which a face is refused, 0 to 1.
    pub threshold: f32,
    /// Whether the head must have been seen to turn a little where it is enforced.
    pub motion: bool,
    /// Turns of the head that are asked for where it is enforced; 0 asks nothing.
    pub turns: u32,
}

impl LivenessConfig {
    /// Loads what the models have to tell live faces with, where that is asked for.
    pub fn nets(&self, models: &Models) -> Result<Option<LivenessNets>, NetworkError> {
        let wanted = models.liveness().filter(|_| self.mode != Mode::Off);
        wanted.map(LivenessNets::new).transpose()
    }
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
        Self {
            false_accept_rate: 1e-4,
            frames: decide.frames,
            evidence_expires: decide.expires,
            two_faces: decide.two_faces,
            again_after: decide.again_after,
            distinct_views: true,
            zone: zone.area,
            minimum_face: zone.minimum_face,
        }
    }
}

impl Config {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(path, &text_of(path)?)
    }

    /// Reads a text; `path` appears in messages.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        read(path, text).map(|read| read.config)
    }

    /// As a text that [`Self::parse`] makes the same of.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self).map_err(|error| ConfigError::Write { reason: error.to_string() })
    }

    /// Ranges, and what does not go together.
    fn check(&self) -> Result<(), Fault> {
        self.check_board()?;
        self.check_access()?;
        self.check_service()?;
        let recognition = &self.recognition;
        // Fewer would make one picture nearly enough.
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
                    "= {:?}: expected [left, top, right, bottom], shares of the picture from \
                     0 to 1",
                    recognition.zone
                ),
            ));
        }
        Ok(())
    }

    /// What [`crate::access::decide`] needs of it.
    pub fn decide(&self) -> DecideSettings {
        let recognition = &self.recognition;
        DecideSettings {
            frames: recognition.frames,
            expires: recognition.evidence_expires,
            two_faces: recognition.two_faces,
            again_after: recognition.again_after,
            ..DecideSettings::default()
        }
    }

    /// Where faces count.
    pub fn zone(&self) -> Zone {
        let recognition = &self.recognition;
        Zone { area: recognition.zone, minimum_face: recognition.minimum_face }
    }

    /// What [`crate::vision::liveness`] needs of it; the sides that a challenge asks for follow
    /// from the seed.
    pub fn liveness(&self, seed: u64) -> GuardSettings {
        let LivenessConfig { mode, threshold, motion, turns } = self.liveness;
        let challenge = (turns > 0).then(|| {
            let default = ChallengeSettings::default();
            // On a slow board frames lie further apart, and nobody is lost between two.
            let lost_after = default.lost_after.max(self.recognition.evidence_expires);
            ChallengeSettings { turns, lost_after, ..default }
        });
        GuardSettings { mode, threshold, motion, challenge, seed }
    }

    /// What [`crate::vision::detect`] needs of it. Faces too small to count are not
    /// looked for; a face's box may be a little smaller than its window.
    pub fn detector(&self) -> DetectorSettings {
        let minimum_face = (self.recognition.minimum_face * 0.8).max(12.0);
        DetectorSettings { minimum_face, ..DetectorSettings::default() }
    }

    /// Where sets of models are installed.
    pub fn model_store(&self) -> PathBuf {
        self.models.folder.clone().unwrap_or_else(|| self.gallery_file().with_file_name("models"))
    }

    /// The gallery's file.
    pub fn gallery_file(&self) -> PathBuf {
        self.gallery.file.clone().unwrap_or_else(default_gallery)
    }
}

/// `gallery.redb` in the user's data folder; for root, who runs services, in
/// `/var/lib/facelatch`.
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

/// The text of a file.
fn text_of(path: &Path) -> Result<String, ConfigError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text))
        .map_err(|reason| ConfigError::Read { path: path.to_owned(), reason })?;
    if text.len() as u64 > MAX_BYTES {
        let reason = format!("longer than {MAX_BYTES} bytes; is it a configuration?");
        return Err(ConfigError::Invalid { path: path.to_owned(), at: None, reason });
    }
    Ok(text)
}

fn read(path: &Path, text: &str) -> Result<reader::Read, ConfigError> {
    reader::read(text).map_err(|fault| ConfigError::Invalid {
        path: path.to_owned(),
        at: fault.at,
        reason: fault.reason,
    })
}
