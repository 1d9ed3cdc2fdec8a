//! EDGE: `facelatch.toml`.
//!
//! Every setting has a default, so an empty file is a whole configuration. An
//! unknown key is an error: a misspelt rule must not be silently off.

use crate::decide::{DecideSettings, TwoFaces, Zone};
use crate::detect::DetectorSettings;
use crate::threshold::parse_rate;
use serde::{Deserialize, Deserializer};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// Not there, or not readable.
    #[error("{path}: {reason}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// Not what it should be.
    #[error("{path}: {reason}")]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
}

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[camera]`
    pub camera: CameraConfig,
    /// `[relay]`
    pub relay: RelayConfig,
    /// `[door]`
    pub door: DoorConfig,
    /// `[gallery]`
    pub gallery: GalleryConfig,
    /// `[models]`
    pub models: ModelsConfig,
    /// `[recognition]`
    pub recognition: RecognitionConfig,
}

/// `[camera]`: where frames come from.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CameraConfig {
    /// A camera URI.
    pub uri: Option<String>,
}

/// `[relay]`: what moves the lock.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelayConfig {
    /// A relay URI.
    pub uri: String,
}

/// `[door]`: how long it opens.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DoorConfig {
    /// Time to pull the door open.
    #[serde(deserialize_with = "duration")]
    pub open_for: Duration,
}

/// `[gallery]`: where people are kept.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GalleryConfig {
    /// The file; by default in the user's data folder.
    pub file: Option<PathBuf>,
    /// Whether the aligned face is kept beside each template, so that a new
    /// model can make the template anew.
    pub keep_crops: bool,
}

/// `[models]`: where sets of models are installed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelsConfig {
    /// The folder; by default `models` beside the gallery.
    pub folder: Option<PathBuf>,
}

/// `[recognition]`: who is let in.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecognitionConfig {
    /// False accept rate an attempt: how many of so many strangers at the door
    /// may pass.
    #[serde(deserialize_with = "rate")]
    pub false_accept_rate: f64,
    /// Frames that must agree.
    pub frames: usize,
    /// Age at which a frame's evidence is forgotten.
    #[serde(deserialize_with = "duration")]
    pub evidence_expires: Duration,
    /// What to do about two faces in the zone.
    pub two_faces: TwoFaces,
    /// Somebody let in who stays is let in again after this.
    #[serde(deserialize_with = "duration")]
    pub again_after: Duration,
    /// Left, top, right, bottom of the part of the picture in which faces
    /// count, as shares of it.
    pub zone: [f32; 4],
    /// Shorter side of a face that counts, pixels.
    pub minimum_face: f32,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self { uri: "log:".to_owned() }
    }
}

impl Default for DoorConfig {
    fn default() -> Self {
        Self { open_for: Duration::from_secs(3) }
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
            zone: zone.area,
            minimum_face: zone.minimum_face,
        }
    }
}

impl Config {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|reason| ConfigError::Read { path: path.to_owned(), reason })?;
        Self::parse(path, &text)
    }

    /// Reads a text; `path` appears in messages.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let invalid = |reason: String| ConfigError::Invalid { path: path.to_owned(), reason };
        let config: Self = toml::from_str(text)
            .map_err(|error| invalid(error.to_string().trim_end().to_owned()))?;
        config.check().map_err(invalid)?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let recognition = &self.recognition;
        let within = |name: &str, value: f64, from: f64, to: f64, unit: &str| {
            if (from..=to).contains(&value) {
                Ok(())
            } else {
                Err(format!("{name} = {value}{unit}: expected {from} to {to}{unit}"))
            }
        };
        let seconds = |name: &str, value: Duration, from: f64, to: f64| {
            within(name, value.as_secs_f64(), from, to, " s")
        };
        // Fewer would make one picture nearly enough.
        within("recognition.frames", recognition.frames as f64, 3.0, 30.0, "")?;
        let face = f64::from(recognition.minimum_face);
        within("recognition.minimum_face", face, 20.0, 2000.0, " pixels")?;
        seconds("recognition.evidence_expires", recognition.evidence_expires, 0.1, 10.0)?;
        seconds("recognition.again_after", recognition.again_after, 0.0, 3600.0)?;
        seconds("door.open_for", self.door.open_for, 0.2, 60.0)?;
        let [left, top, right, bottom] = recognition.zone;
        let inside = recognition.zone.iter().all(|share| (0.0..=1.0).contains(share));
        if !inside || left >= right || top >= bottom {
            return Err(format!(
                "recognition.zone = {:?}: expected [left, top, right, bottom], shares of the \
                 picture from 0 to 1",
                recognition.zone
            ));
        }
        Ok(())
    }

    /// What [`crate::decide`] needs of it.
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

    /// What [`crate::detect`] needs of it. Faces too small to count are not
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

/// A rate as a number or as text like "1e-4".
fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Rate {
        Number(f64),
        Text(String),
    }
    let (value, shown) = match Rate::deserialize(deserializer)? {
        Rate::Number(number) => (Some(number).filter(|n| *n > 0.0 && *n < 1.0), number.to_string()),
        Rate::Text(text) => (parse_rate(&text), text),
    };
    value.ok_or_else(|| {
        serde::de::Error::custom(format!("{shown:?} is no rate between 0 and 1, like \"1e-4\""))
    })
}

/// A time with its unit: "3s", "1.5s", "250ms", "2m".
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).ok_or_else(|| {
        serde::de::Error::custom(format!("{text:?} is no time, like \"3s\", \"1.5s\" or \"250ms\""))
    })
}

/// Reads "3s", "1.5s", "250ms" or "2m".
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit_at);
    let factor = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let seconds = number.trim().parse::<f64>().ok()? * factor;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("facelatch.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_said_is_the_default() {
        assert_eq!(parse("").expect("a configuration"), Config::default());
    }

    #[test]
    fn all_can_be_set() {
        let config = parse(
            "[camera]\nuri = \"pipe:cam\"\n[relay]\nuri = \"serial:/dev/ttyUSB0\"\n\
             [door]\nopen_for = \"4.5s\"\n[gallery]\nfile = \"/x/g.redb\"\nkeep_crops = false\n\
             [models]\nfolder = \"/y\"\n\
             [recognition]\nfalse_accept_rate = \"1e-5\"\nframes = 4\n\
             evidence_expires = \"900ms\"\ntwo_faces = \"all\"\nagain_after = \"1m\"\n\
             zone = [0.1, 0.2, 0.9, 1.0]\nminimum_face = 80\n",
        )
        .expect("a configuration");
        assert_eq!(config.door.open_for, Duration::from_millis(4500));
        assert_eq!(config.recognition.false_accept_rate, 1e-5);
        assert_eq!(config.decide().two_faces, TwoFaces::All);
        assert_eq!(config.decide().again_after, Duration::from_secs(60));
        assert_eq!(config.gallery_file(), Path::new("/x/g.redb"));
        assert_eq!(config.model_store(), Path::new("/y"));
        assert_eq!(config.zone().minimum_face, 80.0);
        let beside = parse("[gallery]\nfile = \"/x/g.redb\"").expect("a configuration");
        assert_eq!(beside.model_store(), Path::new("/x/models"));
    }

    #[test]
    fn mistakes_name_the_place_and_the_cure() {
        for (text, expected) in [
            ("[door]\nopen_fro = \"3s\"", "open_fro"),
            ("[door]\nopen_for = \"3\"", "no time"),
            ("[door]\nopen_for = \"3 weeks\"", "no time"),
            ("[door]\nopen_for = \"-3s\"", "no time"),
            ("[door]\nopen_for = \"2h\"", "door.open_for"),
            ("[recognition]\nfalse_accept_rate = 2", "no rate"),
            ("[recognition]\nfalse_accept_rate = \"often\"", "no rate"),
            ("[recognition]\nframes = 2", "recognition.frames"),
            ("[recognition]\ntwo_faces = \"both\"", "refuse"),
            ("[recognition]\nzone = [0.5, 0.0, 0.5, 1.0]", "recognition.zone"),
            ("[recognition]\nzone = [nan, 0.0, 0.5, 1.0]", "recognition.zone"),
            ("doors = 3", "doors"),
            ("[door", "facelatch.toml"),
        ] {
            let message = parse(text).expect_err(text);
            assert!(message.contains(expected), "{text}: {message}");
            assert!(message.contains("facelatch.toml"), "{message}");
        }
    }
}
