//! EDGE: queries a Video4Linux2 driver and sets it up before frames come.

use super::nodes::{self, Node, holders};
use super::offer::{Choice, Interval, Offer, Rates, Size};
use super::uri::{Exposure, PixelFormat, PowerLine, Wish};
use crate::hardware::camera::CameraError;
use crate::hardware::camera::yuv::{Colours, LARGEST_SIDE, Matrix};
use ::v4l::capability::Flags as Can;
use ::v4l::control::{Control, Value};
use ::v4l::device::Device;
use ::v4l::format::{Colorspace, Quantization};
use ::v4l::frameinterval::FrameIntervalEnum;
use ::v4l::framesize::FrameSizeEnum;
use ::v4l::video::{Capture, capture::Parameters};
use ::v4l::{Format, FourCC, Fraction};
use std::io::{Error, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

// errno(3) values, the same on every Linux architecture.
const EIO: i32 = 5;
const ENXIO: i32 = 6;
const EBUSY: i32 = 16;
pub(super) const ENODEV: i32 = 19;

// Control IDs from linux/v4l2-controls.h.
const POWER_LINE_FREQUENCY: u32 = 0x0098_0918;
const EXPOSURE_AUTO: u32 = 0x009a_0901;
const EXPOSURE_ABSOLUTE: u32 = 0x009a_0902;
/// Values of `EXPOSURE_AUTO`: automatic, manual, and aperture priority. The last is what
/// webcams call automatic, because their aperture is fixed.
const ALL_AUTO: i64 = 0;
const BY_HAND: i64 = 1;
const APERTURE_PRIORITY: i64 = 3;
/// Unit of `EXPOSURE_ABSOLUTE`.
const EXPOSURE_UNIT: Duration = Duration::from_micros(100);

/// Description of a device by its driver.
#[derive(Clone, Debug)]
pub struct Description {
    /// Device name.
    pub card: String,
    /// Driver name.
    pub driver: String,
    /// Bus address as the driver reports it.
    pub bus: String,
    /// Formats on offer that can be decoded.
    pub offers: Vec<Offer>,
    /// Four-character codes of formats that cannot be decoded.
    pub others: Vec<String>,
}

/// Calls the library. It panics on driver answers that it cannot parse; that becomes an
/// error of this device.
pub(super) fn ask<T>(ask: impl FnOnce() -> std::io::Result<T>) -> std::io::Result<T> {
    catch_unwind(AssertUnwindSafe(ask))
        .unwrap_or_else(|_| Err(Error::other("the driver sent an answer that cannot be parsed")))
}

/// Turns a system error into one with a cure. `doing` names the failed operation.
pub(super) fn fault(path: &Path, doing: &str, error: &Error) -> CameraError {
    let fault = match (error.kind(), error.raw_os_error()) {
        (ErrorKind::PermissionDenied, _) => "permission denied; add the user that runs facelatch \
            to the group video (usermod -aG video USER) and log in again"
            .to_owned(),
        (ErrorKind::NotFound, _) | (_, Some(ENODEV | ENXIO)) => "no such device; is it plugged \
            in? facelatch camera list shows the cameras found"
            .to_owned(),
        (_, Some(EBUSY)) => match holders(path)[..] {
            [] => "in use by another program; stop that program".to_owned(),
            ref programs => format!("in use by {}; stop that program", programs.join(", ")),
        },
        (_, Some(EIO)) => format!("{doing}: {error}; check the cable and the signal source"),
        _ => format!("{doing}: {error}"),
    };
    CameraError::Device { device: path.to_owned(), fault }
}

pub(super) fn open_device(path: &Path) -> Result<Device, CameraError> {
    ask(|| Device::with_path(path)).map_err(|error| fault(path, "cannot be opened", &error))
}

/// Queries an open device. An error if it is not a camera, cannot stream, or only offers
/// multi-planar capture.
pub(super) fn describe_open(path: &Path, device: &Device) -> Result<Description, CameraError> {
    let no_camera =
        |fault: &str| CameraError::Device { device: path.to_owned(), fault: fault.to_owned() };
    let caps =
        ask(|| device.query_caps()).map_err(|error| fault(path, "is not a camera", &error))?;
    if !caps.capabilities.contains(Can::VIDEO_CAPTURE) {
        return Err(no_camera(if caps.capabilities.contains(Can::VIDEO_CAPTURE_MPLANE) {
            "offers only multi-planar capture, which is not supported; use pipe: with rpicam-vid or \
             ffmpeg"
        } else {
            "is not a camera now; it may be another node of one, or a loopback device that \
             nothing feeds; facelatch camera list shows the cameras found"
        }));
    }
    if !caps.capabilities.contains(Can::STREAMING) {
        return Err(no_camera("cannot stream; use pipe: with ffmpeg"));
    }
    let (mut offers, mut others) = (Vec::<Offer>::new(), Vec::new());
    let formats =
        ask(|| device.enum_formats()).map_err(|error| fault(path, "lists no formats", &error))?;
    for format in formats {
        match PixelFormat::from_fourcc(format.fourcc.repr) {
            Some(known) if offers.iter().all(|offer| offer.format != known) => {
                offers.push(Offer { format: known, sizes: sizes(device, format.fourcc) });
            }
            Some(_) => {}
            None => others.push(String::from_utf8_lossy(&format.fourcc.repr).trim().to_owned()),
        }
    }
    Ok(Description { card: caps.card, driver: caps.driver, bus: caps.bus, offers, others })
}

fn sizes(device: &Device, fourcc: FourCC) -> Vec<Size> {
    let told = ask(|| device.enum_framesizes(fourcc)).unwrap_or_default();
    let sizes: Vec<Size> = told
        .into_iter()
        .map(|size| match size.size {
            FrameSizeEnum::Discrete(one) => {
                let (width, height) = (one.width, one.height);
                Size::One { width, height, rates: rates(device, fourcc, width, height) }
            }
            FrameSizeEnum::Stepwise(range) => Size::Range {
                width: [range.min_width, range.max_width, range.step_width],
                height: [range.min_height, range.max_height, range.step_height],
            },
        })
        .collect();
    if sizes.is_empty() { vec![Size::Unknown] } else { sizes }
}

fn rates(device: &Device, fourcc: FourCC, width: u32, height: u32) -> Rates {
    let interval = |fraction: Fraction| -> Interval { (fraction.numerator, fraction.denominator) };
    let mut these = Vec::new();
    for rate in ask(|| device.enum_frameintervals(fourcc, width, height)).unwrap_or_default() {
        match rate.interval {
            FrameIntervalEnum::Discrete(one) => these.push(interval(one)),
            FrameIntervalEnum::Stepwise(range) => {
                return Rates::Between {
                    shortest: interval(range.min),
                    longest: interval(range.max),
                };
            }
        }
    }
    if these.is_empty() { Rates::Unknown } else { Rates::These(these) }
}

/// Opens and queries the device at this path.
pub fn describe(path: &Path) -> Result<Description, CameraError> {
    describe_open(path, &open_device(path)?)
}

/// All nodes that are cameras. Those that cannot be queried are included.
pub fn cameras() -> Vec<Node> {
    let mut cameras = nodes::nodes();
    cameras.retain_mut(|node| {
        let Ok(device) = ask(|| Device::with_path(&node.device)) else { return true };
        let Ok(caps) = ask(|| device.query_caps()) else { return true };
        node.bus = Some(caps.bus);
        caps.capabilities.contains(Can::VIDEO_CAPTURE)
    });
    cameras
}

/// Sets format, size and rate; returns the mode that the driver chose and its format
/// description. An error if the driver changed the format or a side that `wish` names.
pub(super) fn set_format(
    path: &Path,
    device: &Device,
    wished: Choice,
    wish: &Wish,
) -> Result<(Choice, Format), CameraError> {
    let refused = |fault: String| CameraError::Device { device: path.to_owned(), fault };
    // The code that this driver uses for the format.
    let formats = ask(|| device.enum_formats()).unwrap_or_default();
    let fourcc = formats
        .iter()
        .map(|format| format.fourcc)
        .find(|fourcc| PixelFormat::from_fourcc(fourcc.repr) == Some(wished.format))
        .unwrap_or(FourCC::new(wished.format.fourcc()));
    let format = ask(|| device.set_format(&Format::new(wished.width, wished.height, fourcc)))
        .map_err(|error| fault(path, &format!("cannot be set to {wished}"), &error))?;
    let (width, height) = (format.width, format.height);
    let side = 1..=LARGEST_SIDE as u32;
    if PixelFormat::from_fourcc(format.fourcc.repr) != Some(wished.format)
        || !side.contains(&width)
        || !side.contains(&height)
        || wish.width.is_some_and(|asked| asked != width)
        || wish.height.is_some_and(|asked| asked != height)
    {
        return Err(refused(format!(
            "was asked for {wished} but chose {} {width}x{height}; ask for that",
            format.fourcc
        )));
    }
    let (numerator, denominator) = wished.interval;
    let parameters = Parameters::new(Fraction::new(numerator, denominator));
    // Drivers without rate control refuse and send at their own rate.
    let interval = match ask(|| device.set_params(&parameters)) {
        Ok(set) if set.interval.numerator > 0 && set.interval.denominator > 0 => {
            (set.interval.numerator, set.interval.denominator)
        }
        _ => wished.interval,
    };
    Ok((Choice { width, height, interval, ..wished }, format))
}

/// Matrix and range that the driver reports; the kernel's defaults if it reports none.
pub(super) fn colours(format: &Format) -> Colours {
    let matrix = match format.colorspace {
        // BT.709 is close to the other high-definition matrices.
        Colorspace::Rec709 | Colorspace::DCIP3 | Colorspace::Rec2020 | Colorspace::SMPTE240M => {
            Matrix::Bt709
        }
        _ => Matrix::Bt601,
    };
    let full_range = match format.quantization {
        Quantization::FullRange => true,
        Quantization::LimitedRange => false,
        Quantization::Default => matches!(format.colorspace, Colorspace::JPEG),
    };
    Colours { matrix, full_range }
}

/// Sets exposure and flicker suppression; returns the settings that the camera refused,
/// in words.
pub(super) fn controls(device: &Device, wish: &Wish) -> Vec<String> {
    let set = |id: u32, value: i64| {
        ask(|| device.set_control(Control { id, value: Value::Integer(value) }))
    };
    let mut refused = Vec::new();
    let exposed = match wish.exposure {
        None => Ok(()),
        // Cameras support one of the two automatic modes.
        Some(Exposure::Auto) => {
            set(EXPOSURE_AUTO, APERTURE_PRIORITY).or_else(|_| set(EXPOSURE_AUTO, ALL_AUTO))
        }
        Some(Exposure::Time(time)) => {
            let units = time.as_nanos() / EXPOSURE_UNIT.as_nanos();
            // Cameras without automatic exposure lack this switch.
            let _ = set(EXPOSURE_AUTO, BY_HAND);
            set(EXPOSURE_ABSOLUTE, i64::try_from(units).unwrap_or(i64::MAX))
        }
    };
    if let Err(error) = exposed {
        refused.push(format!("does not support this exposure ({error})"));
    }
    if let Some(power_line) = wish.power_line {
        let value = match power_line {
            PowerLine::Off => 0,
            PowerLine::Hz50 => 1,
            PowerLine::Hz60 => 2,
            PowerLine::Auto => 3,
        };
        if let Err(error) = set(POWER_LINE_FREQUENCY, value) {
            refused.push(format!("does not support this power-line frequency ({error})"));
        }
    }
    refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drivers_word_on_colours_counts() {
        let format = |colorspace, quantization| {
            let mut format = Format::new(2, 2, FourCC::new(b"YUYV"));
            (format.colorspace, format.quantization) = (colorspace, quantization);
            colours(&format)
        };
        for (colorspace, quantization, matrix, full_range) in [
            (Colorspace::Default, Quantization::Default, Matrix::Bt601, false),
            (Colorspace::SRGB, Quantization::Default, Matrix::Bt601, false),
            (Colorspace::JPEG, Quantization::Default, Matrix::Bt601, true),
            (Colorspace::JPEG, Quantization::LimitedRange, Matrix::Bt601, false),
            (Colorspace::SRGB, Quantization::FullRange, Matrix::Bt601, true),
            (Colorspace::Rec709, Quantization::Default, Matrix::Bt709, false),
        ] {
            let expected = Colours { matrix, full_range };
            assert_eq!(format(colorspace, quantization), expected, "{colorspace}");
        }
    }

    #[test]
    fn a_file_that_is_no_device_is_reported_with_the_cure() {
        let missing = describe(Path::new("/dev/no-such-video")).expect_err("no device");
        assert!(missing.to_string().contains("no such device"), "{missing}");
        let other = describe(Path::new("/dev/null")).expect_err("no camera");
        assert!(other.to_string().contains("is not a camera"), "{other}");
        let busy = fault(Path::new("/dev/no-such"), "", &Error::from_raw_os_error(EBUSY));
        assert!(busy.to_string().contains("in use by another program"), "{busy}");
        let closed = fault(Path::new("/dev/video0"), "", &ErrorKind::PermissionDenied.into());
        assert!(closed.to_string().contains("group video"), "{closed}");
    }
}
