//! `[camera]`, `[relay]`, `[gpio]` and `[lights]`: what is wired to the board, by URIs.

use super::fault::{Fault, seconds};
use super::unit::time;
use crate::hardware::camera::{self, CameraError};
use crate::hardware::gpio::{self, Chip, Line, Place};
use crate::hardware::relay::{Relay, RelayError};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long a contact may be waited for to stand still, seconds.
const DEBOUNCE: (f64, f64) = (0.0, 1.0);

/// `[camera]`: where frames come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [camera]")]
pub struct CameraConfig {
    /// A camera URI.
    pub uri: Option<String>,
}

/// `[relay]`: what moves the lock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [relay]")]
pub struct RelayConfig {
    /// A relay URI.
    pub uri: String,
}

/// `[gpio]`: lines that are watched, by their URIs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [gpio]")]
pub struct GpioConfig {
    /// The button where anybody may press it.
    pub button_outside: Option<String>,
    /// The button in the secured area.
    pub button_inside: Option<String>,
    /// Active while the door is closed.
    pub door_contact: Option<String>,
    /// Request to exit: a button or a motion sensor inside.
    pub exit: Option<String>,
    /// A jumper or a button within the case: local reset.
    pub reset: Option<String>,
    /// A level counts once it has stood for so long, where its URI says nothing else.
    #[serde(with = "time")]
    pub debounce: Duration,
}

/// `[lights]`: lines that are driven, by their URIs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [lights]")]
pub struct LightsConfig {
    /// Refused, or something is wrong.
    pub red: Option<String>,
    /// Let in.
    pub green: Option<String>,
    /// Something is waited for.
    pub blue: Option<String>,
    /// Sounds the same.
    pub buzzer: Option<String>,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self { uri: "log:".to_owned() }
    }
}

impl Default for GpioConfig {
    fn default() -> Self {
        Self {
            button_outside: None,
            button_inside: None,
            door_contact: None,
            exit: None,
            reset: None,
            debounce: gpio::DEBOUNCE,
        }
    }
}

impl super::Config {
    /// All GPIO lines but the relay's, by their keys.
    pub fn lines(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let (gpio, lights) = (&self.gpio, &self.lights);
        [
            ("gpio.button_outside", &gpio.button_outside),
            ("gpio.button_inside", &gpio.button_inside),
            ("gpio.door_contact", &gpio.door_contact),
            ("gpio.exit", &gpio.exit),
            ("gpio.reset", &gpio.reset),
            ("lights.red", &lights.red),
            ("lights.green", &lights.green),
            ("lights.blue", &lights.blue),
            ("lights.buzzer", &lights.buzzer),
        ]
        .into_iter()
        .filter_map(|(key, uri)| Some((key, uri.as_deref()?)))
    }

    /// Ranges of what is configured here.
    pub(super) fn check_board(&self) -> Result<(), Fault> {
        seconds("gpio.debounce", self.gpio.debounce, DEBOUNCE)?;
        self.check_uris()
    }

    /// Whether all URIs can be read. No device is touched.
    pub fn check_uris(&self) -> Result<(), Fault> {
        let wrong = |key| move |fault: String| Fault::of(key, &format!("= {fault}"));
        if let Some(uri) = &self.camera.uri {
            camera(uri).map_err(wrong("camera.uri"))?;
        }
        relay(&self.relay.uri).map_err(wrong("relay.uri"))?;
        self.lines().try_for_each(|(key, uri)| line(uri).map_err(wrong(key)))
    }
}

/// Whether this names a camera. What this program was built without may be in the
/// configuration of another.
fn camera(uri: &str) -> Result<(), String> {
    match camera::Kind::of(uri) {
        Ok(_) | Err(CameraError::NotBuilt { .. }) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether this names a relay: ports are opened later.
fn relay(uri: &str) -> Result<(), String> {
    match Relay::open(uri) {
        Ok(_) | Err(RelayError::NotBuilt { .. }) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether this names a GPIO line.
fn line(uri: &str) -> Result<(), String> {
    uri.parse().map(|_: Line| ()).map_err(|error| error.to_string())
}

/// The place of a GPIO line, the same for ways of writing it that differ in nothing.
pub(super) fn wired_to(uri: &str) -> Option<Place> {
    let place = uri.parse::<Line>().ok()?.place;
    let Place::On { chip, offset } = place else { return Some(place) };
    let name = match &chip {
        Chip::Path(path) => path.to_str().and_then(|path| path.strip_prefix("/dev/")),
        Chip::Label(label) => Some(label.as_str()),
        Chip::Number(_) => None,
    };
    let number = name.and_then(|name| name.strip_prefix("gpiochip")?.parse().ok());
    Some(Place::On { chip: number.map_or(chip, Chip::Number), offset })
}
