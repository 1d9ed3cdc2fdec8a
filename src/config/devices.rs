//! `[camera]`, `[relay]`, `[gpio]` and `[lights]`: the devices wired to the board, by URIs.

use super::fault::{Fault, seconds, within};
use super::unit::time;
use crate::hardware::camera::{self, CameraError, FrameLimit};
use crate::hardware::gpio::{self, Chip, Line, Name, Place};
use crate::hardware::lights::Lamp;
use crate::hardware::relay::{Relay, RelayError};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Range of the debounce time, seconds.
const DEBOUNCE: (f64, f64) = (0.0, 1.0);

/// Range of the largest frame, megapixels: a face needs some pixels, and no frame that can
/// be read has more.
const LARGEST_FRAME: (f64, f64) = (0.1, 67.0);

/// `[camera]`: where frames come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [camera]")]
pub struct CameraConfig {
    /// Camera URI, such as `v4l:/dev/video0`.
    pub uri: Option<String>,
    /// Frames with more megapixels are refused, 0.1 to 67.
    pub largest_frame: f64,
}

/// `[relay]`: the device that moves the lock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [relay]")]
pub struct RelayConfig {
    /// Relay URI, such as `gpio:GPIO17`; `log:` moves no lock.
    pub uri: String,
}

/// `[gpio]`: input lines, by their URIs; `None` where a line is not wired.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [gpio]")]
pub struct GpioConfig {
    /// Button outside, where anybody can press it.
    pub button_outside: Option<String>,
    /// Button in the secured area.
    pub button_inside: Option<String>,
    /// Door contact, active while the door is closed.
    pub door_contact: Option<String>,
    /// Request to exit: a button or motion sensor inside.
    pub exit: Option<String>,
    /// Local reset: a jumper or button inside the case.
    pub reset: Option<String>,
    /// A level counts once it has been stable for this time, up to 1 second; the option
    /// `debounce` of a line overrides it.
    #[serde(with = "time")]
    pub debounce: Duration,
}

/// `[lights]`: output lines, by their URIs; `None` where a line is not wired.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [lights]")]
pub struct LightsConfig {
    /// On when somebody is refused or something is wrong.
    pub red: Option<String>,
    /// On when somebody is let in.
    pub green: Option<String>,
    /// On while the door waits for something.
    pub blue: Option<String>,
    /// Sounds together with the lights, and during an alarm.
    pub buzzer: Option<String>,
}

/// The purpose of a GPIO line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// An input.
    Input(Name),
    /// An output of the lights or the buzzer.
    Lamp(Lamp),
}

impl Default for CameraConfig {
    fn default() -> Self {
        Self { uri: None, largest_frame: FrameLimit::default().as_megapixels() }
    }
}

impl CameraConfig {
    /// The largest frame.
    pub fn limit(&self) -> FrameLimit {
        FrameLimit::megapixels(self.largest_frame)
    }
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
    /// Key, purpose and URI of every configured GPIO line except the relay's.
    pub fn lines(&self) -> impl Iterator<Item = (&'static str, Wire, &str)> {
        let (gpio, lights) = (&self.gpio, &self.lights);
        [
            ("gpio.button_outside", Wire::Input(Name::ButtonOutside), &gpio.button_outside),
            ("gpio.button_inside", Wire::Input(Name::ButtonInside), &gpio.button_inside),
            ("gpio.door_contact", Wire::Input(Name::Contact), &gpio.door_contact),
            ("gpio.exit", Wire::Input(Name::Exit), &gpio.exit),
            ("gpio.reset", Wire::Input(Name::Reset), &gpio.reset),
            ("lights.red", Wire::Lamp(Lamp::Red), &lights.red),
            ("lights.green", Wire::Lamp(Lamp::Green), &lights.green),
            ("lights.blue", Wire::Lamp(Lamp::Blue), &lights.blue),
            ("lights.buzzer", Wire::Lamp(Lamp::Buzzer), &lights.buzzer),
        ]
        .into_iter()
        .filter_map(|(key, wire, uri)| Some((key, wire, uri.as_deref()?)))
    }

    /// Checks the ranges and URIs of these tables.
    pub(super) fn check_board(&self) -> Result<(), Fault> {
        let largest = self.camera.largest_frame;
        within("camera.largest_frame", largest, LARGEST_FRAME, " megapixels")?;
        seconds("gpio.debounce", self.gpio.debounce, DEBOUNCE)?;
        self.check_uris()
    }

    /// Checks that all URIs can be parsed, without opening a device.
    ///
    /// # Errors
    /// For the first URI that cannot be parsed; the fault names its key.
    pub fn check_uris(&self) -> Result<(), Fault> {
        let wrong = |key| move |fault: String| Fault::of(key, &format!("= {fault}"));
        if let Some(uri) = &self.camera.uri {
            camera(uri).map_err(wrong("camera.uri"))?;
        }
        relay(&self.relay.uri).map_err(wrong("relay.uri"))?;
        self.lines().try_for_each(|(key, _, uri)| line(uri).map_err(wrong(key)))
    }
}

/// Checks a camera URI. Kinds that this program was built without are valid: the
/// configuration may be for another build.
fn camera(uri: &str) -> Result<(), String> {
    match camera::Kind::of(uri) {
        Ok(_) | Err(CameraError::NotBuilt { .. }) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Checks a relay URI; [`Relay::open`] does not open the port yet.
fn relay(uri: &str) -> Result<(), String> {
    match Relay::open(uri) {
        Ok(_) | Err(RelayError::NotBuilt { .. }) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Checks the URI of a GPIO line.
fn line(uri: &str) -> Result<(), String> {
    uri.parse().map(|_: Line| ()).map_err(|error| error.to_string())
}

/// The place of a GPIO line in one normal form, so that different spellings of one place
/// compare equal.
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
