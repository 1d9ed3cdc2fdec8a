//! EDGE: cameras, named by a URI.
//!
//! | URI | Camera |
//! |---|---|
//! | `v4l:/dev/video0`, `v4l:name=PART OF ITS NAME`, `v4l:usb=1-1.2` | a Video4Linux2 device; [`v4l::uri`] has its options |
//! | `nokhwa:0[?width=1280&height=720&fps=15]` | a desktop camera |
//! | `pipe:COMMAND` | a program that writes YUV4MPEG2 to its standard output |
//! | `images:DIR-or-glob[?fps=10&loop]` | image files in the order of their names |
//!
//! Recorded frames keep their own timestamps and none is dropped. Live frames carry their
//! capture time; a consumer slower than the camera gets only the newest frame. [`live`]
//! reopens a camera after any failure.

mod images;
pub mod live;
pub mod mjpeg;
#[cfg(feature = "nokhwa")]
mod nokhwa;
mod pipe;
mod program_log;
mod redact;
pub mod v4l;
pub mod y4m;
pub mod yuv;

pub use redact::redacted;

use crate::vision::frame::Frame;
use rustix::process::Pid;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use thiserror::Error;

/// A live camera that delivers no frame for this long counts as stopped.
pub const STALLED_AFTER: Duration = Duration::from_secs(5);

/// Errors of opening or reading a camera.
#[derive(Debug, Error)]
pub enum CameraError {
    /// The URI's scheme is unknown.
    #[error(
        "{:?}: no such kind of camera; use v4l:/dev/video0, images:DIR, images:'PATTERN' or \
         pipe:'COMMAND'",
        redacted(uri)
    )]
    Scheme {
        /// The URI from the configuration or command line.
        uri: String,
    },
    /// The scheme is known, but support for it was not compiled in.
    #[error(
        "{:?}: this facelatch was built without such cameras; build it with --features {feature}",
        redacted(uri)
    )]
    NotBuilt {
        /// The URI from the configuration or command line.
        uri: String,
        /// Cargo feature to build with.
        feature: &'static str,
    },
    /// A device is missing, refuses a setting, or sent a buffer that is not a frame.
    #[error("{device}: {fault}")]
    Device {
        /// Path of the device.
        device: PathBuf,
        /// The fault and its cure.
        fault: String,
    },
    /// The URI is malformed, or one of its options is wrong.
    #[error("{:?}: {fault}", redacted(uri))]
    Option {
        /// The URI from the configuration or command line.
        uri: String,
        /// The fault and the values that are allowed.
        fault: String,
    },
    /// No image file was found, or one cannot be read.
    #[error("{path}: {fault}")]
    Images {
        /// The folder, pattern or file.
        path: PathBuf,
        /// The fault.
        fault: String,
    },
    /// The program cannot be started, failed, or wrote something other than YUV4MPEG2.
    #[error("pipe:{}: {fault}", redact::command(command))]
    Pipe {
        /// The command after `pipe:`.
        command: String,
        /// The fault and its cure.
        fault: String,
    },
}

/// The largest frame that is taken from a camera.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FrameLimit {
    megapixels: f64,
}

impl FrameLimit {
    /// A limit in megapixels.
    pub fn megapixels(megapixels: f64) -> Self {
        Self { megapixels }
    }

    /// The limit in megapixels.
    pub fn as_megapixels(self) -> f64 {
        self.megapixels
    }

    /// An error with the cure if frames of this size, in pixels, are larger.
    pub fn check(self, width: usize, height: usize) -> Result<(), String> {
        // Sides of frames are far below the precision of f64.
        if width as f64 * height as f64 <= self.megapixels * 1e6 {
            return Ok(());
        }
        Err(format!(
            "frames of {width}x{height} pixels are larger than camera.largest_frame = {} \
             megapixels allows; raise that, or have smaller ones sent",
            self.megapixels
        ))
    }
}

impl Default for FrameLimit {
    /// Full HD, 1920x1080, and a little more: coders round sides up to blocks.
    fn default() -> Self {
        Self { megapixels: 2.1 }
    }
}

/// What tells a camera from another one behind the same URI.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Model, with the numbers of its maker if known.
    pub model: String,
    /// Serial number; `None` if it has none.
    pub serial: Option<String>,
    /// USB socket or bus address.
    pub socket: String,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // These are the device's own words, and the log is not its.
        write!(f, "{}", self.model.escape_debug())?;
        if let Some(serial) = &self.serial {
            write!(f, ", serial number {}", serial.escape_debug())?;
        }
        write!(f, ", in socket {}", self.socket.escape_debug())
    }
}

/// A frame and its capture time.
#[derive(Clone, Debug)]
pub struct Captured {
    /// The RGB frame.
    pub frame: Frame,
    /// Capture time since the camera was opened.
    pub at: Duration,
}

/// An open camera: an iterator of frames.
#[derive(Debug)]
pub enum Camera {
    /// Image files.
    Images(images::Images),
    /// A program that writes YUV4MPEG2.
    Pipe(Box<pipe::Pipe>),
    /// A Video4Linux2 device.
    #[cfg(feature = "v4l")]
    V4l(Box<v4l::stream::V4l>),
    /// A desktop camera.
    #[cfg(feature = "nokhwa")]
    Nokhwa(Box<nokhwa::Nokhwa>),
}

/// Whether a camera is live or a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only the newest frame counts, and the end of the stream is a fault.
    Live,
    /// Every frame counts, and the stream has a last frame.
    Recorded,
}

impl Kind {
    /// The kind of the camera that the URI names. Checks the URI and opens nothing; an
    /// error if the URI is wrong or support for it was not compiled in.
    pub fn of(uri: &str) -> Result<Self, CameraError> {
        let wrong = |fault: String| CameraError::Option { uri: uri.to_owned(), fault };
        match uri.split_once(':') {
            Some(("images", rest)) => {
                images::parse(rest).map_err(wrong)?;
                Ok(Self::Recorded)
            }
            Some(("pipe", command)) => {
                // Quotes around nothing, or a remark alone, start no program either.
                let bare =
                    command.trim_matches(|c: char| c.is_whitespace() || "'\";&|".contains(c));
                if bare.is_empty() || bare.starts_with('#') {
                    let fault = "names no program; write pipe:COMMAND, such as pipe:ffmpeg ... -f \
                                 yuv4mpegpipe -";
                    return Err(wrong(fault.to_owned()));
                }
                Ok(Self::Live)
            }
            Some(("v4l", rest)) => {
                v4l::uri::parse(rest).map_err(wrong)?;
                if cfg!(feature = "v4l") { Ok(Self::Live) } else { Err(not_built(uri, "device")) }
            }
            Some(("nokhwa", rest)) => {
                #[cfg(feature = "nokhwa")]
                nokhwa::parse(rest).map_err(wrong)?;
                let _ = rest;
                if cfg!(feature = "nokhwa") {
                    Ok(Self::Live)
                } else {
                    Err(not_built(uri, "nokhwa"))
                }
            }
            _ => Err(CameraError::Scheme { uri: uri.to_owned() }),
        }
    }
}

fn not_built(uri: &str, feature: &'static str) -> CameraError {
    CameraError::NotBuilt { uri: uri.to_owned(), feature }
}

impl Camera {
    /// Opens the camera that the URI names. A `pipe:` program is started but not yet
    /// read.
    ///
    /// # Errors
    /// If the URI is wrong, the device or program does not start, or its frames are larger
    /// than `limit`, as far as that is known already.
    pub fn open(uri: &str, limit: FrameLimit) -> Result<Self, CameraError> {
        Kind::of(uri)?;
        match uri.split_once(':') {
            Some(("images", rest)) => images::Images::open(uri, rest, limit).map(Self::Images),
            Some(("pipe", command)) => {
                pipe::Pipe::open(command, limit).map(|pipe| Self::Pipe(Box::new(pipe)))
            }
            #[cfg(feature = "v4l")]
            Some(("v4l", rest)) => {
                v4l::stream::V4l::open(uri, rest, limit).map(|device| Self::V4l(Box::new(device)))
            }
            #[cfg(feature = "nokhwa")]
            Some(("nokhwa", rest)) => {
                nokhwa::Nokhwa::open(uri, rest, limit).map(|device| Self::Nokhwa(Box::new(device)))
            }
            _ => Err(CameraError::Scheme { uri: uri.to_owned() }),
        }
    }

    /// True for recorded frames, none of which may be dropped; false for live frames, of
    /// which only the newest counts.
    pub fn recorded(&self) -> bool {
        matches!(self, Self::Images(_))
    }

    /// Device name and chosen format, for the log and `status`; `None` if the URI already
    /// says it all.
    pub fn told(&self) -> Option<&str> {
        match self {
            Self::Images(_) | Self::Pipe(_) => None,
            #[cfg(feature = "v4l")]
            Self::V4l(device) => Some(device.told()),
            #[cfg(feature = "nokhwa")]
            Self::Nokhwa(device) => Some(device.told()),
        }
    }

    /// Identity of a device; `None` for programs and files, which may change at will.
    pub fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Images(_) | Self::Pipe(_) => None,
            #[cfg(feature = "v4l")]
            Self::V4l(device) => Some(device.identity()),
            #[cfg(feature = "nokhwa")]
            Self::Nokhwa(device) => Some(device.identity()),
        }
    }

    /// When a live camera was opened, which is time zero of its frames; `None` for
    /// recordings.
    pub fn opened(&self) -> Option<Instant> {
        match self {
            Self::Images(_) => None,
            Self::Pipe(pipe) => Some(pipe.opened()),
            #[cfg(feature = "v4l")]
            Self::V4l(device) => Some(device.opened()),
            #[cfg(feature = "nokhwa")]
            Self::Nokhwa(device) => Some(device.opened()),
        }
    }

    /// Whether the stream is over, so that the last error was its end.
    pub fn ended(&self) -> bool {
        match self {
            Self::Images(_) => false,
            Self::Pipe(pipe) => pipe.ended(),
            #[cfg(feature = "v4l")]
            Self::V4l(device) => device.ended(),
            #[cfg(feature = "nokhwa")]
            Self::Nokhwa(device) => device.ended(),
        }
    }

    /// A handle with which another thread can end the camera while this one waits for a
    /// frame.
    pub fn interrupter(&self) -> Interrupter {
        match self {
            Self::Images(_) => Interrupter::default(),
            Self::Pipe(pipe) => Interrupter { group: pipe.group(), stop: pipe.stop() },
            #[cfg(feature = "v4l")]
            Self::V4l(device) => Interrupter { stop: device.stop(), ..Interrupter::default() },
            #[cfg(feature = "nokhwa")]
            Self::Nokhwa(device) => Interrupter { stop: device.stop(), ..Interrupter::default() },
        }
    }
}

/// Waits for the next frame; `None` at the end of the stream. More frames may follow an
/// error: one unreadable image does not end a folder.
impl Iterator for Camera {
    type Item = Result<Captured, CameraError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Images(images) => images.next(),
            Self::Pipe(pipe) => pipe.next(),
            #[cfg(feature = "v4l")]
            Self::V4l(device) => device.next(),
            #[cfg(feature = "nokhwa")]
            Self::Nokhwa(device) => device.next(),
        }
    }
}

/// Ends a camera while another thread waits for its next frame.
#[derive(Clone, Debug, Default)]
pub struct Interrupter {
    /// Process group of the program, while it exists.
    group: Arc<Mutex<Option<Pid>>>,
    /// Flag that the camera polls while it waits.
    stop: Arc<AtomicBool>,
}

impl Interrupter {
    /// Ends the camera: at most one more frame follows.
    pub fn interrupt(&self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(group) = *self.group.lock().unwrap_or_else(PoisonError::into_inner) {
            pipe::end(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_impossible_camera_is_rejected_before_it_is_opened() {
        for (uri, expected) in [
            ("camera0", "no such kind of camera"),
            ("v4l:video0", "names no device"),
            ("v4l:/dev/video0?colour=red", "unknown; the options are width"),
            ("pipe:", "names no program"),
            ("pipe:  ", "names no program"),
            ("pipe:''", "names no program"),
            ("pipe:# later", "names no program"),
            ("images:", "names no pictures"),
            ("images:?loop", "names no pictures"),
            ("images:frames?fps=0", "fps=0"),
        ] {
            let message = Kind::of(uri).expect_err(uri).to_string();
            assert!(message.contains(expected), "{message}");
            assert!(Camera::open(uri, FrameLimit::default()).is_err());
        }
        let message = Kind::of("rtsp://ada:secret@cam").expect_err("no camera").to_string();
        assert!(message.starts_with("\"rtsp://***@cam\": no such kind"), "{message}");
        assert_eq!(Kind::of("images:frames").expect("a folder"), Kind::Recorded);
        assert_eq!(Kind::of("pipe:true").expect("a program"), Kind::Live);
    }

    #[cfg(not(feature = "v4l"))]
    #[test]
    fn a_camera_that_was_not_built_in_says_how_to_get_it() {
        let message = Camera::open("v4l:/dev/video0", FrameLimit::default())
            .expect_err("not built")
            .to_string();
        assert!(message.ends_with("build it with --features device"), "{message}");
    }

    proptest! {
        #[test]
        fn no_uri_makes_it_panic(uri in "(v4l|nokhwa|images|[a-z]{0,4})?:?[ -~]{0,30}") {
            let _ = Kind::of(&uri);
        }
    }
}
