//! EDGE: streams frames from a Video4Linux2 device through mapped buffers.

use super::driver::{
    Description, ENODEV, ask, cameras, colours, controls, describe_open, fault, open_device,
    set_format,
};
use super::nodes;
use super::offer::{Choice, choose};
use super::uri::{self, PixelFormat};
use crate::hardware::camera::yuv::{self, Colours};
use crate::hardware::camera::{CameraError, Captured, FrameLimit, Identity, STALLED_AFTER, mjpeg};
use crate::vision::frame::Frame;
use ::v4l::buffer::{Flags, Metadata, Type};
use ::v4l::device::Handle;
use ::v4l::io::mmap::Stream as Mapped;
use ::v4l::io::traits::{CaptureStream, Stream as _};
use sd_notify::NotifyState;
use std::io::{Error, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Number of buffers: the driver fills one while others wait and one is decoded.
const BUFFERS: u32 = 4;
/// How often the stop flag is checked.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Silence allowed for a slow camera, in frame intervals.
const PERIODS: f64 = 30.0;
/// Oldest credible age of a buffer.
const OLDEST: Duration = Duration::from_secs(10);

// From poll(2), the same on every Linux architecture.
const POLLIN: i16 = 1;

/// An open, streaming device.
pub struct V4l {
    path: PathBuf,
    handle: Arc<Handle>,
    /// The stream; `None` once it was released.
    mapped: Option<Mapped<'static>>,
    /// Whether the library holds a buffer, which its next call gives back to the driver.
    held: bool,
    choice: Choice,
    /// Bytes from one row to the next.
    stride: usize,
    colours: Colours,
    /// Longest time without a frame before the camera counts as stopped.
    patience: Duration,
    opened: Instant,
    stop: Arc<AtomicBool>,
    ended: bool,
    told: String,
    identity: Identity,
}

impl std::fmt::Debug for V4l {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "V4l({})", self.told)
    }
}

impl V4l {
    /// Opens the device, applies the settings of the URI and starts the stream.
    pub(in crate::hardware::camera) fn open(
        uri: &str,
        rest: &str,
        limit: FrameLimit,
    ) -> Result<Self, CameraError> {
        let wrong = |fault: String| CameraError::Option { uri: uri.to_owned(), fault };
        let (which, wish) = uri::parse(rest).map_err(wrong)?;
        let known = if matches!(which, uri::Which::Path(_)) { Vec::new() } else { cameras() };
        let path = nodes::find(&which, &known).map_err(wrong)?;
        let device = open_device(&path)?;
        let Description { card, bus, offers, others, .. } = describe_open(&path, &device)?;
        let not_there = |fault: String| CameraError::Device { device: path.clone(), fault };
        let wished = choose(&offers, &others, &wish).map_err(not_there)?;
        let (choice, format) = set_format(&path, &device, wished, &wish)?;
        limit.check(choice.width as usize, choice.height as usize).map_err(|fault| {
            not_there(format!("{fault}; the options width= and height= choose a size"))
        })?;
        for refused in controls(&device, &wish) {
            log::warn!("{}: {refused}; continuing without it", path.display());
        }
        let mapped = ask(|| Mapped::with_buffers(&device, Type::VideoCapture, BUFFERS))
            .map_err(|error| fault(&path, "provides no buffers", &error))?;
        let mut camera = Self {
            told: format!("{}: {card}, {choice}", path.display()),
            identity: nodes::identity(&path, &card, &bus),
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

    /// Queues all buffers and starts the stream. The library does so on the first call
    /// for a frame, so that call is made here with a timeout of 1 ms.
    fn start(&mut self) -> Result<(), CameraError> {
        let Some(mapped) = &mut self.mapped else { return Ok(()) };
        mapped.set_timeout(Duration::from_millis(1));
        let first = ask(|| CaptureStream::next(mapped).map(drop));
        mapped.set_timeout(self.patience);
        match first {
            Ok(()) => self.held = true,
            Err(error) if is_late(&error) => {}
            Err(error) => return Err(fault(&self.path, "does not start to stream", &error)),
        }
        Ok(())
    }

    /// Path, name and chosen mode, in words.
    pub fn told(&self) -> &str {
        &self.told
    }

    /// Model, serial number and socket.
    pub(in crate::hardware::camera) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(in crate::hardware::camera) fn opened(&self) -> Instant {
        self.opened
    }

    pub(in crate::hardware::camera) fn ended(&self) -> bool {
        self.ended
    }

    /// A flag that ends the camera once it is set: at most one more frame follows.
    pub(in crate::hardware::camera) fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Waits until the driver has filled a buffer; false if the camera was ended
    /// meanwhile. An error after too long a silence.
    fn wait(&self) -> Result<bool, CameraError> {
        let began = Instant::now();
        let slice = LOOK_EVERY.as_millis() as i32;
        while !self.stop.load(Ordering::Relaxed) {
            match self.handle.poll(POLLIN, slice) {
                Ok(0) if began.elapsed() >= self.patience => {
                    return Err(CameraError::Device {
                        device: self.path.clone(),
                        fault: format!("no frame for {} seconds", self.patience.as_secs_f64()),
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

    /// The newest frame; older ones are skipped without decoding. The inner error is a
    /// frame that cannot be decoded, the outer one the end of the stream.
    fn newest(&mut self) -> Result<Option<Result<Captured, CameraError>>, CameraError> {
        let mut skipped = 0;
        while self.wait()? {
            let Some(mapped) = &mut self.mapped else { return Ok(None) };
            if !self.held {
                // The library returns a buffer only while it holds another one, so this
                // buffer is never seen. It is the first, which many cameras spoil.
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
                    // The buffer that the library held has already been given back.
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
                Err("the driver marked the frame as damaged".to_owned())
            } else {
                decode(bytes, &self.choice, self.stride, self.colours)
            };
            let at = taken.saturating_duration_since(self.opened);
            return Ok(Some(
                frame
                    .map(|frame| Captured { frame, at })
                    .map_err(|why| CameraError::Device { device: self.path.clone(), fault: why }),
            ));
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
    /// Stops the stream explicitly. If the driver refuses to stop, dropping the stream
    /// would panic twice and abort the program, so the stream is leaked until the process
    /// ends.
    fn drop(&mut self) {
        let Some(mut mapped) = self.mapped.take() else { return };
        match mapped.stop() {
            Err(error) if error.raw_os_error() != Some(ENODEV) => {
                log::error!("{}: cannot stop the stream: {error}", self.path.display());
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

/// Whether the error only means that no buffer is ready yet.
fn is_late(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Capture time of the frame: the driver's timestamp if it uses the monotonic clock and
/// is credible, else now.
fn taken(about: &Metadata) -> Instant {
    let now = Instant::now();
    let by_clock = (about.flags & Flags::TIMESTAMP_MASK) == Flags::TIMESTAMP_MONOTONIC;
    // The clock of `Instant`, whose value cannot be read directly.
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

/// Decodes a buffer to RGB; an error names the fault.
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
        // Timestamps of another clock, in the future, or far in the past are ignored.
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
    fn a_file_that_is_no_device_is_reported_with_the_cure() {
        for (rest, expected) in [
            ("/dev/no-such-video", "no such device"),
            ("/dev/null", "is not a camera"),
            ("name=No Such Camera 1234", "name=No Such Camera 1234"),
        ] {
            let message =
                V4l::open("v4l:...", rest, FrameLimit::default()).expect_err(rest).to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
