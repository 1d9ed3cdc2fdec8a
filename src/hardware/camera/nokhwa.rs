//! EDGE: desktop cameras, by number. The library waits for a frame without a timeout, so
//! a separate thread calls it.

use super::v4l::uri::{RATE, RATES, SIDE, SIDES};
use super::yuv::{self, Chroma, Colours};
use super::{CameraError, Captured, FrameLimit, Identity, STALLED_AFTER, mjpeg};
use crate::hardware::uri;
use crate::vision::frame::Frame;
use ::nokhwa::Buffer;
use ::nokhwa::Camera;
use ::nokhwa::utils::{
    CameraFormat, CameraIndex, FrameFormat, RequestedFormat, RequestedFormatType,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Pixel formats that can be decoded.
const FORMATS: [FrameFormat; 6] = [
    FrameFormat::YUYV,
    FrameFormat::NV12,
    FrameFormat::MJPEG,
    FrameFormat::RAWRGB,
    FrameFormat::RAWBGR,
    FrameFormat::GRAY,
];
/// Options allowed after the `?`.
pub(super) const OPTIONS: [&str; 3] = ["width", "height", "fps"];
/// How often the stop flag is checked.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The parsed part after `nokhwa:` in a URI.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Wish {
    index: u32,
    width: u32,
    height: u32,
    fps: u32,
}

/// Parses number and options; an error names the fault and the allowed values.
pub(super) fn parse(rest: &str) -> Result<Wish, String> {
    let (index, options) = uri::split(rest);
    let index = index.parse().map_err(|_| format!("{index:?} is not a camera number, like 0"))?;
    let mut wish = Wish { index, width: 1280, height: 720, fps: 15 };
    for option in uri::options(options, &OPTIONS)? {
        match option.key {
            "width" => wish.width = option.number(SIDES, SIDE)?,
            "height" => wish.height = option.number(SIDES, SIDE)?,
            _ => wish.fps = option.number(RATES, RATE)?.round().max(1.0) as u32,
        }
    }
    Ok(wish)
}

/// An open camera and the receiving end of its reading thread.
#[derive(Debug)]
pub struct Nokhwa {
    device: PathBuf,
    frames: Receiver<Result<(Instant, Buffer), String>>,
    opened: Instant,
    stop: Arc<AtomicBool>,
    ended: bool,
    told: String,
    identity: Identity,
}

impl Nokhwa {
    pub(super) fn open(uri: &str, rest: &str, limit: FrameLimit) -> Result<Self, CameraError> {
        let wish =
            parse(rest).map_err(|fault| CameraError::Option { uri: uri.to_owned(), fault })?;
        let device = PathBuf::from(format!("nokhwa:{}", wish.index));
        let broken = |fault: String| CameraError::Device { device: device.clone(), fault };
        let (sender, frames) = sync_channel(1);
        let (said, told) = sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        std::thread::Builder::new()
            .name("nokhwa".to_owned())
            .spawn(move || read(wish, limit, &said, &sender, &stopped))
            .map_err(|error| broken(format!("cannot start its reading thread: {error}")))?;
        let (told, identity) = told
            .recv_timeout(2 * STALLED_AFTER)
            .map_err(|_| broken("does not open; check its plug and access to it".to_owned()))?
            .map_err(broken)?;
        let told = format!("{}: {told}", device.display());
        Ok(Self { device, frames, opened: Instant::now(), stop, ended: false, told, identity })
    }

    /// Device, name and chosen format, in words.
    pub fn told(&self) -> &str {
        &self.told
    }

    /// Model and place.
    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// A flag that ends the camera once it is set: at most one more frame follows.
    pub(super) fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    fn error(&self, fault: String) -> CameraError {
        CameraError::Device { device: self.device.clone(), fault }
    }
}

/// The format nearest to the wish: first its size, then its rate, then the pixel format
/// that is cheapest to decode. The library's own choice has one pixel format and needs the
/// exact size.
fn nearest(formats: &[CameraFormat], wish: Wish) -> Option<CameraFormat> {
    let distance = |format: &CameraFormat| {
        let (width, height) = (format.resolution().width(), format.resolution().height());
        let size = u64::from(width.abs_diff(wish.width)).pow(2)
            + u64::from(height.abs_diff(wish.height)).pow(2);
        let cost = FORMATS.iter().position(|known| *known == format.format());
        Some((size, format.frame_rate().abs_diff(wish.fps), cost?))
    };
    let known = formats.iter().filter_map(|format| Some((distance(format)?, *format)));
    known.min_by_key(|(distance, _)| *distance).map(|(_, format)| format)
}

/// The reading thread: opens the camera, reports name and format or the error through
/// `said`, and then sends each frame with its capture time.
fn read(
    wish: Wish,
    limit: FrameLimit,
    said: &SyncSender<Result<(String, Identity), String>>,
    frames: &SyncSender<Result<(Instant, Buffer), String>>,
    stop: &AtomicBool,
) {
    let any = RequestedFormat::with_formats(RequestedFormatType::None, &FORMATS);
    let opened = Camera::new(CameraIndex::Index(wish.index), any).and_then(|mut camera| {
        if let Some(format) = nearest(&camera.compatible_camera_formats()?, wish) {
            let exact = RequestedFormatType::Exact(format);
            camera.set_camera_requset(RequestedFormat::with_formats(exact, &FORMATS))?;
        }
        camera.open_stream().map(|()| camera)
    });
    let mut camera = match opened {
        Ok(camera) => camera,
        Err(error) => return drop(said.send(Err(error.to_string()))),
    };
    let format = camera.camera_format();
    let (size, name) = (format.resolution(), camera.info().human_name());
    if let Err(fault) = limit.check(size.width() as usize, size.height() as usize) {
        return drop(said.send(Err(fault)));
    }
    let told = format!(
        "{name}, {} {}x{} at {} frames per second",
        format.format(),
        size.width(),
        size.height(),
        format.frame_rate()
    );
    let identity = Identity { model: name, serial: None, socket: camera.info().misc() };
    let _ = said.send(Ok((told, identity)));
    // Many cameras spoil their first frame.
    let _ = camera.frame();
    while !stop.load(Ordering::Relaxed) {
        let frame = camera.frame().map_err(|error| error.to_string());
        let is_last = frame.is_err();
        if frames.send(frame.map(|frame| (Instant::now(), frame))).is_err() || is_last {
            return;
        }
    }
}

impl Iterator for Nokhwa {
    type Item = Result<Captured, CameraError>;

    fn next(&mut self) -> Option<Self::Item> {
        let began = Instant::now();
        while !self.ended && !self.stop.load(Ordering::Relaxed) {
            let fault = match self.frames.recv_timeout(LOOK_EVERY) {
                Ok(Ok((taken, buffer))) => {
                    let at = taken.saturating_duration_since(self.opened);
                    let frame = decode(&buffer).map(|frame| Captured { frame, at });
                    return Some(frame.map_err(|why| self.error(why)));
                }
                Ok(Err(fault)) => fault,
                Err(RecvTimeoutError::Disconnected) => "the reading thread has ended".to_owned(),
                Err(RecvTimeoutError::Timeout) if began.elapsed() < STALLED_AFTER => continue,
                Err(RecvTimeoutError::Timeout) => {
                    format!("no frame for {} seconds", STALLED_AFTER.as_secs())
                }
            };
            self.ended = true;
            return Some(Err(self.error(fault)));
        }
        self.ended = true;
        None
    }
}

impl Drop for Nokhwa {
    /// Asks the thread to end; it does so after the frame that it waits for.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Decodes a buffer to RGB; an error names the fault.
fn decode(buffer: &Buffer) -> Result<Frame, String> {
    let bytes = buffer.buffer();
    let size = buffer.resolution();
    let (width, height) = (size.width() as usize, size.height() as usize);
    let (limited, full) = (Colours::default(), Colours { full_range: true, ..Colours::default() });
    let shown = |error: yuv::YuvError| error.to_string();
    match buffer.source_frame_format() {
        FrameFormat::MJPEG => {
            mjpeg::decode(bytes, (width, height)).map_err(|error| error.to_string())
        }
        FrameFormat::YUYV => yuv::yuyv(bytes, width, height, 0, limited).map_err(shown),
        FrameFormat::NV12 => yuv::nv12(bytes, width, height, 0, limited).map_err(shown),
        FrameFormat::GRAY => yuv::planar(bytes, width, height, Chroma::Grey, full).map_err(shown),
        FrameFormat::RAWRGB => {
            Frame::new(width, height, bytes.to_vec()).map_err(|error| error.to_string())
        }
        FrameFormat::RAWBGR => {
            let mut pixels = bytes.to_vec();
            pixels.chunks_exact_mut(3).for_each(<[u8]>::reverse);
            Frame::new(width, height, pixels).map_err(|error| error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_size_comes_first_then_the_rate_then_the_cheapest_format() {
        let format = |width, height, kind, fps| CameraFormat::new_from(width, height, kind, fps);
        let wish = Wish { index: 0, width: 640, height: 480, fps: 15 };
        let formats = [
            format(1280, 720, FrameFormat::YUYV, 15),
            format(640, 480, FrameFormat::MJPEG, 30),
            format(640, 480, FrameFormat::YUYV, 10),
            format(640, 480, FrameFormat::MJPEG, 15),
            format(640, 480, FrameFormat::YUYV, 15),
        ];
        assert_eq!(nearest(&formats, wish), Some(formats[4]));
        assert_eq!(nearest(&formats[..4], wish), Some(formats[3]));
        assert_eq!(nearest(&formats[..3], wish), Some(formats[2]));
        assert_eq!(nearest(&formats[..1], wish), Some(formats[0]));
        assert_eq!(nearest(&[], wish), None);
    }
    use proptest::prelude::*;

    #[test]
    fn the_example_says_that_it_has_the_first_options_of_another_kind() {
        assert!(crate::config::EXAMPLE.contains("nokhwa: has the first three"));
        assert_eq!(OPTIONS, super::super::v4l::uri::OPTIONS[..3]);
    }

    #[test]
    fn numbers_and_wishes_are_read() {
        let wish = parse("1?width=640&height=480&fps=29.97").expect("a wish");
        assert_eq!(wish, Wish { index: 1, width: 640, height: 480, fps: 30 });
        for (rest, expected) in [
            ("", "\"\" is not a camera number"),
            ("0?width=1", "width=1: expected pixels"),
            ("0?format=mjpg", "format=mjpg: unknown"),
        ] {
            let message = parse(rest).expect_err(rest);
            assert!(message.contains(expected), "{message}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(rest in "[0-9]{0,2}(\\?[a-z=&.0-9-]{0,20})?") {
            let _ = parse(&rest);
        }
    }
}
