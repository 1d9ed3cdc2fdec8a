//! EDGE: a device of the kernel's that streams frames into mapped buffers.

use super::nodes::{self, Node, holders};
use super::offer::{Choice, Interval, Offer, Rates, Size, choose};
use super::uri::{self, Exposure, PixelFormat, PowerLine, Wish};
use crate::camera::yuv::{self, Colours, LARGEST_SIDE, Matrix};
use crate::camera::{CameraError, Captured, STALLED_AFTER, mjpeg};
use crate::frame::Frame;
use ::v4l::buffer::{Flags, Metadata, Type};
use ::v4l::capability::Flags as Can;
use ::v4l::control::{Control, Value};
use ::v4l::device::{Device, Handle};
use ::v4l::format::{Colorspace, Quantization};
use ::v4l::frameinterval::FrameIntervalEnum;
use ::v4l::framesize::FrameSizeEnum;
use ::v4l::io::mmap::Stream as Mapped;
use ::v4l::io::traits::{CaptureStream, Stream as _};
use ::v4l::video::{Capture, capture::Parameters};
use ::v4l::{Format, FourCC, Fraction};
use sd_notify::NotifyState;
use std::io::{Error, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// As many as let the driver fill one while others wait and one is decoded.
const BUFFERS: u32 = 4;
/// How often to look whether somebody wants the end.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A slow camera may take so many times the time between two frames.
const PERIODS: f64 = 30.0;
/// A buffer said to be older is not believed.
const OLDEST: Duration = Duration::from_secs(10);

// Of poll(2) and errno(3), the same on all of Linux.
const POLLIN: i16 = 1;
const EIO: i32 = 5;
const ENXIO: i32 = 6;
const EBUSY: i32 = 16;
const ENODEV: i32 = 19;

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

/// An open device that streams.
pub struct V4l {
    path: PathBuf,
    handle: Arc<Handle>,
    /// There until it is let go.
    mapped: Option<Mapped<'static>>,
    /// Whether a buffer is out of the driver's hands: the next call gives it back.
    held: bool,
    choice: Choice,
    /// Bytes from one row to the next.
    stride: usize,
    colours: Colours,
    /// Longest silence.
    patience: Duration,
    opened: Instant,
    stop: Arc<AtomicBool>,
    ended: bool,
    told: String,
}

impl std::fmt::Debug for V4l {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "V4l({})", self.told)
    }
}

/// Asks the driver. What it says may be more than the library can read, which
/// then panics: that is a fault of this device and no more.
fn ask<T>(ask: impl FnOnce() -> std::io::Result<T>) -> std::io::Result<T> {
    catch_unwind(AssertUnwindSafe(ask))
        .unwrap_or_else(|_| Err(Error::other("the driver answers what nobody understands")))
}

/// What is wrong, and what to do.
fn fault(path: &Path, doing: &str, error: &Error) -> CameraError {
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

fn open_device(path: &Path) -> Result<Device, CameraError> {
    ask(|| Device::with_path(path)).map_err(|error| fault(path, "cannot be opened", &error))
}

/// What the device says of itself; a fault where it is no camera.
fn describe_open(path: &Path, device: &Device) -> Result<Description, CameraError> {
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

impl V4l {
    /// Opens the device, sets it as wished and lets it stream.
    pub(in crate::camera) fn open(uri: &str, rest: &str) -> Result<Self, CameraError> {
        let wrong = |fault: String| CameraError::Option { uri: uri.to_owned(), fault };
        let (which, wish) = uri::parse(rest).map_err(wrong)?;
        let known = if matches!(which, uri::Which::Path(_)) { Vec::new() } else { cameras() };
        let path = nodes::find(&which, &known).map_err(wrong)?;
        let device = open_device(&path)?;
        let Description { card, offers, others, .. } = describe_open(&path, &device)?;
        let not_there = |fault: String| CameraError::Device { device: path.clone(), fault };
        let wished = choose(&offers, &others, &wish).map_err(not_there)?;
        let (choice, format) = set_format(&path, &device, wished, &wish)?;
        for refused in controls(&device, &wish) {
            log::warn!("{}: {refused}; going on without", path.display());
        }
        let mapped = ask(|| Mapped::with_buffers(&device, Type::VideoCapture, BUFFERS))
            .map_err(|error| fault(&path, "gives no buffers", &error))?;
        let mut camera = Self {
            told: format!("{}: {card}, {choice}", path.display()),
            path,
            handle: device.handle(),
            mapped: Some(mapped),
            held: false,
            choice,
            stride: format.stride as usize,
            colours: colours(&format),
            patience: STALLED_AFTER.max(Duration::from_secs_f64(PERIODS / choice.fps().max(0.1))),
            opened: Instant::now(),
            stop: Arc::default(),
            ended: false,
        };
        camera.start()?;
        Ok(camera)
    }

    /// Gives the driver all buffers and lets it fill them. The library does so when
    /// it is asked for the first frame, for which we wait ourselves.
    fn start(&mut self) -> Result<(), CameraError> {
        let Some(mapped) = &mut self.mapped else { return Ok(()) };
        mapped.set_timeout(Duration::from_millis(1));
        let first = ask(|| CaptureStream::next(mapped).map(drop));
        mapped.set_timeout(self.patience);
        match first {
            Ok(()) => self.held = true,
            Err(error) if is_late(&error) => {}
            Err(error) => return Err(fault(&self.path, "does not begin to stream", &error)),
        }
        Ok(())
    }

    /// Which device, and what it is set to.
    pub fn told(&self) -> &str {
        &self.told
    }

    pub(in crate::camera) fn opened(&self) -> Instant {
        self.opened
    }

    pub(in crate::camera) fn ended(&self) -> bool {
        self.ended
    }

    /// Once this is set, the next frame is the last or none.
    pub(in crate::camera) fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Waits until the driver has filled a buffer; false where that is no longer
    /// wanted.
    fn wait(&self) -> Result<bool, CameraError> {
        let began = Instant::now();
        let slice = LOOK_EVERY.as_millis() as i32;
        while !self.stop.load(Ordering::Relaxed) {
            match self.handle.poll(POLLIN, slice) {
                Ok(0) if began.elapsed() >= self.patience => {
                    return Err(CameraError::Device {
                        device: self.path.clone(),
                        fault: format!("no frame for {} s", self.patience.as_secs_f64()),
                    });
                }
                Ok(0) => {}
                Ok(_) => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(fault(&self.path, "does not stream", &error)),
            }
        }
        Ok(false)
    }

    /// The newest frame that the driver has, undecoded ones thrown away; a frame
    /// that does not decode is an error of its own.
    fn newest(&mut self) -> Result<Option<Result<Captured, CameraError>>, CameraError> {
        let mut skipped = 0;
        while self.wait()? {
            let Some(mapped) = &mut self.mapped else { return Ok(None) };
            if !self.held {
                // The library shows a buffer only once it holds another: this one
                // goes unseen. It is the first, which many cameras spoil.
                match ask(|| CaptureStream::dequeue(mapped)) {
                    Ok(_) => self.held = true,
                    Err(error) if is_late(&error) => {}
                    Err(error) => return Err(fault(&self.path, "does not stream", &error)),
                }
                continue;
            }
            let (bytes, about) = match ask(|| CaptureStream::next(mapped)) {
                Ok(next) => next,
                Err(error) if is_late(&error) => {
                    // The one it held is given back already.
                    self.held = false;
                    continue;
                }
                Err(error) => return Err(fault(&self.path, "does not stream", &error)),
            };
            if skipped < BUFFERS && self.handle.poll(POLLIN, 0).is_ok_and(|ready| ready > 0) {
                skipped += 1;
                continue;
            }
            let taken = taken(about);
            let bytes = bytes.get(..about.bytesused as usize).unwrap_or(bytes);
            let frame = if about.flags.contains(Flags::ERROR) {
                Err("the driver says it is damaged".to_owned())
            } else {
                decode(bytes, &self.choice, self.stride, self.colours)
            };
            let at = taken.saturating_duration_since(self.opened);
            return Ok(Some(frame.map(|frame| Captured { frame, at }).map_err(|why| {
                CameraError::Device {
                    device: self.path.clone(),
                    fault: format!("a bad frame: {why}"),
                }
            })));
        }
        Ok(None)
    }
}

impl Iterator for V4l {
    type Item = Result<Captured, CameraError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match self.newest() {
            Ok(Some(frame)) => Some(frame),
            Ok(None) => {
                self.ended = true;
                None
            }
            Err(error) => {
                self.ended = true;
                Some(Err(error))
            }
        }
    }
}

impl Drop for V4l {
    /// Stops the stream first: where the driver refuses that, the library would
    /// panic, twice, and that would end the program with the door as it is. What
    /// is not let go then stays with the process.
    fn drop(&mut self) {
        let Some(mut mapped) = self.mapped.take() else { return };
        match mapped.stop() {
            Err(error) if error.raw_os_error() != Some(ENODEV) => {
                log::error!("{}: does not let go: {error}", self.path.display());
                std::mem::forget(mapped);
            }
            _ => {
                let _ = ask(|| {
                    drop(mapped);
                    Ok(())
                });
            }
        }
    }
}

/// Nothing yet.
fn is_late(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Sets format, size and rate; what the driver made of it.
fn set_format(
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
fn colours(format: &Format) -> Colours {
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
fn controls(device: &Device, wish: &Wish) -> Vec<String> {
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

/// When the frame was taken: by the driver's word, where it counts on the clock
/// that never jumps, else now.
fn taken(about: &Metadata) -> Instant {
    let now = Instant::now();
    let by_clock = (about.flags & Flags::TIMESTAMP_MASK) == Flags::TIMESTAMP_MONOTONIC;
    // The same clock as an `Instant`, which does not tell what it shows.
    let age = match NotifyState::monotonic_usec_now() {
        Ok(NotifyState::MonotonicUsec(shows)) if by_clock => {
            let stamp =
                i128::from(about.timestamp.sec) * 1_000_000 + i128::from(about.timestamp.usec);
            u64::try_from(shows - stamp).ok().map(Duration::from_micros)
        }
        _ => None,
    };
    age.filter(|age| *age <= OLDEST).and_then(|age| now.checked_sub(age)).unwrap_or(now)
}

/// A buffer's picture, or what is wrong with it.
fn decode(bytes: &[u8], choice: &Choice, stride: usize, colours: Colours) -> Result<Frame, String> {
    let (width, height) = (choice.width as usize, choice.height as usize);
    match choice.format {
        PixelFormat::Yuyv => {
            yuv::yuyv(bytes, width, height, stride, colours).map_err(|error| error.to_string())
        }
        PixelFormat::Nv12 => {
            yuv::nv12(bytes, width, height, stride, colours).map_err(|error| error.to_string())
        }
        PixelFormat::Mjpg => {
            mjpeg::decode(bytes, (width, height)).map_err(|error| error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(flags: Flags, sec: i64, usec: i64) -> Metadata {
        Metadata { flags, timestamp: ::v4l::Timestamp::new(sec, usec), ..Metadata::default() }
    }

    #[test]
    fn a_frame_is_as_old_as_the_drivers_clock_says() {
        let Ok(NotifyState::MonotonicUsec(now)) = NotifyState::monotonic_usec_now() else {
            panic!("no clock")
        };
        let stamp = |ago: i128| {
            let at = now - ago;
            ((at / 1_000_000) as i64, (at % 1_000_000) as i64)
        };
        let before = Instant::now();
        let (sec, usec) = stamp(3_000_000);
        let by_clock = taken(&about(Flags::TIMESTAMP_MONOTONIC, sec, usec));
        let age = before.saturating_duration_since(by_clock);
        assert!((Duration::from_secs(2)..Duration::from_secs(4)).contains(&age), "{age:?}");
        // Another clock, one that is ahead, and one far behind are not believed.
        let (late, early) = (stamp(60_000_000), stamp(-3_000_000));
        for about in [
            about(Flags::TIMESTAMP_COPY, sec, usec),
            about(Flags::TIMESTAMP_MONOTONIC, late.0, late.1),
            about(Flags::TIMESTAMP_MONOTONIC, early.0, early.1),
        ] {
            assert!(taken(&about) >= before);
        }
    }

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
        for (rest, expected) in [
            ("/dev/no-such-video", "there is no such device"),
            ("/dev/null", "is no camera"),
            ("name=No Such Camera 1234", "name=No Such Camera 1234"),
        ] {
            let message = V4l::open("v4l:...", rest).expect_err(rest).to_string();
            assert!(message.contains(expected), "{message}");
        }
        let busy = fault(Path::new("/dev/no-such"), "", &Error::from_raw_os_error(EBUSY));
        assert!(busy.to_string().contains("in use by another program"), "{busy}");
        let closed = fault(Path::new("/dev/video0"), "", &ErrorKind::PermissionDenied.into());
        assert!(closed.to_string().contains("group video"), "{closed}");
    }
}
