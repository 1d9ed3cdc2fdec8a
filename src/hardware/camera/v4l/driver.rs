//! EDGE: what a driver is asked, and what it is told, before frames come.

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

// Of errno(3), the same on all of Linux.
const EIO: i32 = 5;
const ENXIO: i32 = 6;
const EBUSY: i32 = 16;
pub(super) const ENODEV: i32 = 19;

// Controls, as linux/v4l2-controls.h numbers them.
const POWER_LINE_FREQUENCY: u32 = 0x0098_0918;
const EXPOSURE_AUTO: u32 = 0x009a_0901;
const EXPOSURE_ABSOLUTE: u32 = 0x009a_0902;
/// Values of `EXPOSURE_AUTO`: all by itself, by hand, and what webcams call
/// automatic, as their aperture is fixed.
const ALL_AUTO: i64 = 0;
const BY_HAND: i64 = 1;
const APERTURE_PRIORITY: i64 = 3;
/// Unit of `EXPOSURE_ABSOLUTE`.
const EXPOSURE_UNIT: Duration = Duration::from_micros(100);

/// What a device says of itself.
#[derive(Clone, Debug)]
pub struct Description {
    /// Its name.
    pub card: String,
    /// Its driver.
    pub driver: String,
    /// Its place, as the driver calls it.
    pub bus: String,
    /// What is on offer that is read.
    pub offers: Vec<Offer>,
    /// Formats that are not read.
    pub others: Vec<String>,
}

/// Asks the driver. What it says may be more than the library can read, which
/// then panics: that is a fault of this device and no more.
pub(super) fn ask<T>(ask: impl FnOnce() -> std::io::Result<T>) -> std::io::Result<T> {
    catch_unwind(AssertUnwindSafe(ask))
        .unwrap_or_else(|_| Err(Error::other("the driver answers what nobody understands")))
}

/// What is wrong, and what to do.
pub(super) fn fault(path: &Path, doing: &str, error: &Error) -> CameraError {
    let fault = match (error.kind(), error.raw_os_error()) {
        (ErrorKind::PermissionDenied, _) => "no permission; add the user that runs this to the \
            group video (usermod -aG video USER) and log in again"
            .to_owned(),
        (ErrorKind::NotFound, _) | (_, Some(ENODEV | ENXIO)) => "there is no such device (any \
            more); is it plugged in? facelatch camera list shows those there are"
            .to_owned(),
        (_, Some(EBUSY)) => match holders(path)[..] {
            [] => "in use by another program; end that".to_owned(),
            ref programs => format!("in use by {}; end that", programs.join(", ")),
        },
        (_, Some(EIO)) => format!("{doing}: {error}; nothing comes, or the cable is bad"),
        _ => format!("{doing}: {error}"),
    };
    CameraError::Device { device: path.to_owned(), fault }
}

pub(super) fn open_device(path: &Path) -> Result<Device, CameraError> {
    ask(|| Device::with_path(path)).map_err(|error| fault(path, "cannot be opened", &error))
}

/// What the device says of itself; a fault where it is no camera.
pub(super) fn describe_open(path: &Path, device: &Device) -> Result<Description, CameraError> {
    let no_camera =
        |fault: &str| CameraError::Device { device: path.to_owned(), fault: fault.to_owned() };
    let caps = ask(|| device.query_caps()).map_err(|error| fault(path, "is no camera", &error))?;
    if !caps.capabilities.contains(Can::VIDEO_CAPTURE) {
        return Err(no_camera(if caps.capabilities.contains(Can::VIDEO_CAPTURE_MPLANE) {
            "sends its planes apart, which is not read; use pipe: with rpicam-vid or ffmpeg"
        } else {
            "is no camera now; it may be another face of one, or one that nothing feeds; \
             facelatch camera list shows those there are"
        }));
    }
    if !caps.capabilities.contains(Can::STREAMING) {
        return Err(no_camera("cannot stream; use pipe: with ffmpeg"));
    }
    let (mut offers, mut others) = (Vec::<Offer>::new(), Vec::new());
    let formats =
        ask(|| device.enum_formats()).map_err(|error| fault(path, "tells no formats", &error))?;
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

/// What the device at this path says of itself.
pub fn describe(path: &Path) -> Result<Description, CameraError> {
    describe_open(path, &open_device(path)?)
}

/// All nodes that are cameras, or may be: those that cannot be asked, too.
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

/// Sets format, size and rate; what the driver made of it.
pub(super) fn set_format(
    path: &Path,
    device: &Device,
    wished: Choice,
    wish: &Wish,
) -> Result<(Choice, Format), CameraError> {
    let refused = |fault: String| CameraError::Device { device: path.to_owned(), fault };
    // What this driver calls it.
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
            "was asked for {wished} and set itself to {} {width}x{height}; ask for that",
            format.fourcc
        )));
    }
    let (numerator, denominator) = wished.interval;
    let parameters = Parameters::new(Fraction::new(numerator, denominator));
    // Drivers without a rate of their own refuse; they send at whatever rate they do.
    let interval = match ask(|| device.set_params(&parameters)) {
        Ok(set) if set.interval.numerator > 0 && set.interval.denominator > 0 => {
            (set.interval.numerator, set.interval.denominator)
        }
        _ => wished.interval,
    };
    Ok((Choice { width, height, interval, ..wished }, format))
}

/// What the driver says of its colours; where it does not, the kernel's rule.
pub(super) fn colours(format: &Format) -> Colours {
    let matrix = match format.colorspace {
        // The nearest to the others of high definition, too.
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

/// Sets what is wished; what the camera refused.
pub(super) fn controls(device: &Device, wish: &Wish) -> Vec<String> {
    let set = |id: u32, value: i64| {
        ask(|| device.set_control(Control { id, value: Value::Integer(value) }))
    };
    let mut refused = Vec::new();
    let exposed = match wish.exposure {
        None => Ok(()),
        // What the one kind of camera calls automatic the other does not know.
        Some(Exposure::Auto) => {
            set(EXPOSURE_AUTO, APERTURE_PRIORITY).or_else(|_| set(EXPOSURE_AUTO, ALL_AUTO))
        }
        Some(Exposure::Time(time)) => {
            let units = time.as_nanos() / EXPOSURE_UNIT.as_nanos();
            // Those that know no other way have no switch for it.
            let _ = set(EXPOSURE_AUTO, BY_HAND);
            set(EXPOSURE_ABSOLUTE, i64::try_from(units).unwrap_or(i64::MAX))
        }
    };
    if let Err(error) = exposed {
        refused.push(format!("takes no such exposure ({error})"));
    }
    if let Some(power_line) = wish.power_line {
        let value = match power_line {
            PowerLine::Off => 0,
            PowerLine::Hz50 => 1,
            PowerLine::Hz60 => 2,
            PowerLine::Auto => 3,
        };
        if let Err(error) = set(POWER_LINE_FREQUENCY, value) {
            refused.push(format!("takes no such power-line frequency ({error})"));
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
    fn what_is_no_device_is_told_with_the_cure() {
        let missing = describe(Path::new("/dev/no-such-video")).expect_err("no device");
        assert!(missing.to_string().contains("there is no such device"), "{missing}");
        let other = describe(Path::new("/dev/null")).expect_err("no camera");
        assert!(other.to_string().contains("is no camera"), "{other}");
        let busy = fault(Path::new("/dev/no-such"), "", &Error::from_raw_os_error(EBUSY));
        assert!(busy.to_string().contains("in use by another program"), "{busy}");
        let closed = fault(Path::new("/dev/video0"), "", &ErrorKind::PermissionDenied.into());
        assert!(closed.to_string().contains("group video"), "{closed}");
    }
}
