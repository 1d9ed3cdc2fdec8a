//! The part after `v4l:` in a camera's URI.
//!
//! | Part | Meaning |
//! |---|---|
//! | `/dev/video0` | a device by its path, or a link to one |
//! | `name=HD Webcam` | the only device whose name contains this text |
//! | `usb=1-1.2` | the device in this USB socket, or with this bus address |
//! | `?width=1280&height=720` | pixels; only a size that the camera offers |
//! | `fps=15` | frames per second; the nearest rate that the camera offers |
//! | `format=mjpg`, `yuyv` or `nv12` | pixel format |
//! | `exposure=auto` or `10ms` | exposure time |
//! | `power-line=50hz`, `60hz`, `off` or `auto` | mains frequency of lamps whose flicker is suppressed |

use crate::hardware::uri::{self, Opt};
use std::path::PathBuf;
use std::time::Duration;

/// How the URI names the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// By its path.
    Path(PathBuf),
    /// By a part of its name.
    Name(String),
    /// By its USB socket or bus address.
    Usb(String),
}

/// Pixel formats, the cheapest to decode first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PixelFormat {
    /// Packed 4:2:2, two pixels in four bytes.
    Yuyv,
    /// 4:2:0, a luma plane and a plane of Cb, Cr pairs.
    Nv12,
    /// Motion JPEG.
    Mjpg,
}

impl PixelFormat {
    /// All formats, the cheapest to decode first.
    pub const ALL: [Self; 3] = [Self::Yuyv, Self::Nv12, Self::Mjpg];

    /// The kernel's four-character code.
    pub fn fourcc(self) -> &'static [u8; 4] {
        match self {
            Self::Yuyv => b"YUYV",
            Self::Nv12 => b"NV12",
            Self::Mjpg => b"MJPG",
        }
    }

    /// The format with this code; `JPEG` is another code for Motion JPEG.
    pub fn from_fourcc(fourcc: [u8; 4]) -> Option<Self> {
        match &fourcc {
            b"JPEG" => Some(Self::Mjpg),
            _ => Self::ALL.into_iter().find(|format| *format.fourcc() == fourcc),
        }
    }
}

impl std::fmt::Display for PixelFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Yuyv => "YUYV",
            Self::Nv12 => "NV12",
            Self::Mjpg => "MJPG",
        })
    }
}

/// Exposure setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// Automatic exposure.
    Auto,
    /// This exposure time, whatever the light.
    Time(Duration),
}

/// Which lamp flicker the camera suppresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerLine {
    /// None.
    Off,
    /// Flicker of 50 Hz mains.
    Hz50,
    /// Flicker of 60 Hz mains.
    Hz60,
    /// As the camera detects it.
    Auto,
}

/// The settings that a URI asks for; `None` leaves a setting to the camera or to
/// [`super::offer::choose`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wish {
    /// Columns.
    pub width: Option<u32>,
    /// Rows.
    pub height: Option<u32>,
    /// Frames per second.
    pub fps: Option<f64>,
    /// Pixel format.
    pub format: Option<PixelFormat>,
    /// Exposure setting.
    pub exposure: Option<Exposure>,
    /// Flicker suppression.
    pub power_line: Option<PowerLine>,
}

/// Options allowed after the `?`.
pub(crate) const OPTIONS: [&str; 6] =
    ["width", "height", "fps", "format", "exposure", "power-line"];
/// Shortest and longest exposure that still yields a frame.
const EXPOSURES: std::ops::RangeInclusive<Duration> =
    Duration::from_micros(100)..=Duration::from_secs(10);
/// Allowed width or height in pixels.
pub(crate) const SIDES: std::ops::RangeInclusive<u32> = 16..=super::super::yuv::LARGEST_SIDE as u32;
/// Allowed frames per second. At a lower rate a working camera looks like a stopped one.
pub(crate) const RATES: std::ops::RangeInclusive<f64> = 0.5..=1000.0;

/// Parses device and settings; an error names the fault and the allowed values.
pub fn parse(rest: &str) -> Result<(Which, Wish), String> {
    let (device, options) = uri::split(rest);
    let which = match device.split_once('=') {
        Some(("name", name)) if !name.trim().is_empty() => Which::Name(name.trim().to_owned()),
        Some(("usb", socket)) if !socket.is_empty() => Which::Usb(socket.to_owned()),
        _ if device.starts_with('/') && !device.contains('\0') => Which::Path(device.into()),
        _ => {
            return Err(format!(
                "{device:?} names no device; expected /dev/videoN, name=PART OF ITS NAME or \
                 usb=SOCKET (facelatch camera list shows them)"
            ));
        }
    };
    Ok((which, wish(options)?))
}

fn wish(options: &str) -> Result<Wish, String> {
    let mut wish = Wish::default();
    for option in uri::options(options, &OPTIONS)? {
        match option.key {
            "width" => wish.width = Some(option.number(SIDES, SIDE)?),
            "height" => wish.height = Some(option.number(SIDES, SIDE)?),
            "fps" => wish.fps = Some(option.number(RATES, RATE)?),
            "format" => {
                let named = PixelFormat::ALL
                    .into_iter()
                    .find(|format| format.to_string().eq_ignore_ascii_case(option.value));
                wish.format = Some(named.ok_or_else(|| option.expected("mjpg, yuyv or nv12"))?);
            }
            "exposure" => wish.exposure = Some(exposure(&option)?),
            _ => {
                wish.power_line = Some(match option.value {
                    "off" => PowerLine::Off,
                    "50hz" => PowerLine::Hz50,
                    "60hz" => PowerLine::Hz60,
                    "auto" => PowerLine::Auto,
                    _ => return Err(option.expected("50hz, 60hz, off or auto")),
                });
            }
        }
    }
    Ok(wish)
}

pub(crate) const SIDE: &str = "pixels from 16 to 8192";
pub(crate) const RATE: &str = "0.5 to 1000";

fn exposure(option: &Opt<'_>) -> Result<Exposure, String> {
    if option.value == "auto" {
        return Ok(Exposure::Auto);
    }
    let expected = "auto, or a time with its unit, 0.1ms to 10s";
    option.time(EXPOSURES, expected).map(Exposure::Time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn devices_are_named_by_path_name_or_socket() {
        for (rest, expected) in [
            ("/dev/video0", Which::Path("/dev/video0".into())),
            ("/dev/v4l/by-id/usb-cam=1?fps=5", Which::Path("/dev/v4l/by-id/usb-cam=1".into())),
            ("name=Logitech C920", Which::Name("Logitech C920".to_owned())),
            ("name=C920?width=640", Which::Name("C920".to_owned())),
            ("usb=1-1.2", Which::Usb("1-1.2".to_owned())),
            ("usb=usb-0000:01:00.0-1.2", Which::Usb("usb-0000:01:00.0-1.2".to_owned())),
        ] {
            assert_eq!(parse(rest).expect(rest).0, expected, "{rest}");
        }
    }

    #[test]
    fn wishes_are_read_with_their_units() {
        let options = "width=1280&height=720&fps=7.5&format=MJPG&exposure=10ms&power-line=50hz";
        let expected = Wish {
            width: Some(1280),
            height: Some(720),
            fps: Some(7.5),
            format: Some(PixelFormat::Mjpg),
            exposure: Some(Exposure::Time(Duration::from_millis(10))),
            power_line: Some(PowerLine::Hz50),
        };
        assert_eq!(parse(&format!("/dev/video0?{options}")).expect("a wish").1, expected);
        assert_eq!(parse("/dev/video0?").expect("no wish").1, Wish::default());
        for (value, expected) in [
            ("auto", Exposure::Auto),
            ("250us", Exposure::Time(Duration::from_micros(250))),
            ("0.02s", Exposure::Time(Duration::from_millis(20))),
        ] {
            let wish = parse(&format!("/dev/video0?exposure={value}")).expect(value).1;
            assert_eq!(wish.exposure, Some(expected), "{value}");
        }
    }

    #[test]
    fn faults_are_named_with_the_expected_form() {
        for (rest, expected) in [
            ("", "\"\" names no device; expected /dev/videoN"),
            ("video0", "names no device"),
            ("name=", "names no device"),
            ("name= ?fps=5", "names no device"),
            ("usb=", "names no device"),
            ("/dev/\0", "names no device"),
            ("/dev/video0?width=0", "width=0: expected pixels from 16 to 8192"),
            ("/dev/video0?height=9000", "height=9000: expected"),
            ("/dev/video0?width", "width: expected"),
            ("/dev/video0?fps=nan", "fps=nan: expected 0.5 to 1000"),
            ("/dev/video0?fps=0.2", "fps=0.2: expected 0.5 to 1000"),
            ("/dev/video0?format=h264", "format=h264: expected mjpg, yuyv or nv12"),
            ("/dev/video0?exposure=10", "exposure=10: expected auto, or a time with its unit"),
            ("/dev/video0?exposure=1us", "0.1ms to 10s"),
            ("/dev/video0?power-line=55hz", "power-line=55hz: expected 50hz"),
            ("/dev/video0?colour=red", "colour=red: unknown; the options are width, height"),
        ] {
            let message = parse(rest).expect_err(rest);
            assert!(message.contains(expected), "{rest}: {message}");
        }
    }

    #[test]
    fn two_frames_come_before_a_camera_counts_as_stopped() {
        let longest = Duration::from_secs_f64(1.0 / RATES.start());
        assert!(2 * longest < super::super::super::STALLED_AFTER);
        assert!(RATE.starts_with(&RATES.start().to_string()));
    }

    #[test]
    fn the_example_shows_every_option() {
        let (names, shown) = crate::config::tests::options("# Options of v4l:");
        assert_eq!(names, OPTIONS);
        let (_, wish) = parse(&format!("/dev/video0?{shown}")).expect("a wish");
        assert!(wish.width.is_some() && wish.power_line.is_some());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(rest in "(/dev/v|name=|usb=)?[ -~é\0]{0,12}(\\?[a-z=&.0-9-]{0,30})?") {
            let _ = parse(&rest);
        }

        #[test]
        fn no_value_makes_it_panic(
            key in "width|height|fps|format|exposure|power-line",
            value in "[0-9a-zé.+-]{0,12}",
        ) {
            let _ = parse(&format!("/dev/video0?{key}={value}"));
        }
    }
}
