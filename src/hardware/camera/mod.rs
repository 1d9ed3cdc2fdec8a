//! EDGE: where frames come from, named by a URI.
//!
//! | URI | What |
//! |---|---|
//! | `v4l:/dev/video0`, `v4l:name=PART OF ITS NAME`, `v4l:usb=1-1.2` | a camera of the kernel; [`v4l::uri`] has its options |
//! | `nokhwa:0[?width=1280&height=720&fps=15]` | a camera of a desktop |
//! | `pipe:COMMAND` | a program that writes YUV4MPEG2 to its standard output |
//! | `images:DIR-or-glob[?fps=10&loop]` | picture files in the order of their names |
//!
//! Recorded frames carry their own time and none is dropped. Live frames carry
//! the time they were taken at; whoever is slower than the camera gets the newest.
//! [`live`] keeps a camera going, whatever happens to it.

mod images;
pub mod live;
pub mod mjpeg;
#[cfg(feature = "nokhwa")]
mod nokhwa;
mod pipe;
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

/// A live camera that is silent for so long has stopped, whatever it says.
pub const STALLED_AFTER: Duration = Duration::from_secs(5);

/// Why there are no frames.
#[derive(Debug, Error)]
pub enum CameraError {
    /// The URI names no camera we know.
    #[error(
        "{:?}: no such kind of camera; use v4l:/dev/video0, images:DIR, images:'PATTERN' or \
         pipe:'COMMAND'",
        redacted(uri)
    )]
    Scheme {
        /// As given.
        uri: String,
    },
    /// We know such cameras, but were built without them.
    #[error(
        "{:?}: this facelatch was built without such cameras; build it with --features {feature}",
        redacted(uri)
    )]
    NotBuilt {
        /// As given.
        uri: String,
        /// What to build with.
        feature: &'static str,
    },
    /// A device is not there, does not do as asked, or has sent what is no frame.
    #[error("{device}: {fault}")]
    Device {
        /// Which.
        device: PathBuf,
        /// What is wrong, and what to do.
        fault: String,
    },
    /// An option of the URI is wrong.
    #[error("{:?}: {fault}", redacted(uri))]
    Option {
        /// As given.
        uri: String,
        /// What is wrong, and what would be right.
        fault: String,
    },
    /// No picture to be found.
    #[error("{path}: {fault}")]
    Images {
        /// Folder or pattern.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// The program does not start, or says nothing sensible.
    #[error("pipe:{}: {fault}", redacted(command))]
    Pipe {
        /// As given.
        command: String,
        /// What is wrong, and what to do.
        fault: String,
    },
}

/// A frame and when it was taken.
#[derive(Clone, Debug)]
pub struct Captured {
    /// The picture.
    pub frame: Frame,
    /// Since the camera was opened.
    pub at: Duration,
}

/// A source of frames.
#[derive(Debug)]
pub enum Camera {
    /// Picture files.
    Images(images::Images),
    /// A program.
    Pipe(Box<pipe::Pipe>),
    /// A device of the kernel.
    #[cfg(feature = "v4l")]
    V4l(Box<v4l::stream::V4l>),
    /// A device of a desktop.
    #[cfg(feature = "nokhwa")]
    Nokhwa(Box<nokhwa::Nokhwa>),
}

/// Whether a camera shows what is, or what was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only the newest frame counts; when it ends, something is wrong.
    Live,
    /// Every frame counts, and there is a last one.
    Recorded,
}

impl Kind {
    /// That of the camera that the URI names; an error where it names none, before
    /// anything is opened.
    pub fn of(uri: &str) -> Result<Self, CameraError> {
        let wrong = |fault: String| CameraError::Option { uri: uri.to_owned(), fault };
        match uri.split_once(':') {
            Some(("images", _)) => Ok(Self::Recorded),
            Some(("pipe", _)) => Ok(Self::Live),
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
    /// Opens the camera that the URI names.
    pub fn open(uri: &str) -> Result<Self, CameraError> {
        Kind::of(uri)?;
        match uri.split_once(':') {
            Some(("images", rest)) => images::Images::open(uri, rest).map(Self::Images),
            Some(("pipe", command)) => {
                pipe::Pipe::open(command).map(|pipe| Self::Pipe(Box::new(pipe)))
            }
            #[cfg(feature = "v4l")]
            Some(("v4l", rest)) => {
                v4l::stream::V4l::open(uri, rest).map(|device| Self::V4l(Box::new(device)))
            }
            #[cfg(feature = "nokhwa")]
            Some(("nokhwa", rest)) => {
                nokhwa::Nokhwa::open(uri, rest).map(|device| Self::Nokhwa(Box::new(device)))
            }
            _ => Err(CameraError::Scheme { uri: uri.to_owned() }),
        }
    }

    /// Whether frames are recorded, so that none may be dropped, or live, so
    /// that only the newest counts.
    pub fn recorded(&self) -> bool {
        matches!(self, Self::Images(_))
    }

    /// What it is and how it is set, where there is more to say than its URI; for everybody.
    pub fn told(&self) -> Option<&str> {
        match self {
            Self::Images(_) | Self::Pipe(_) => None,
            #[cfg(feature = "v4l")]
            Self::V4l(device) => Some(device.told()),
            #[cfg(feature = "nokhwa")]
            Self::Nokhwa(device) => Some(device.told()),
        }
    }

    /// When a live camera was opened: what its frames count their time from.
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

    /// Whether it is known that nothing more comes: then the last error was the end.
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

    /// What ends the camera from another thread that waits for no frame.
    pub fn interrupter(&self) -> Interrupter {
        match self {
            Self::Images(_) => Interrupter::default(),
            Self::Pipe(pipe) => Interrupter { group: pipe.group(), ..Interrupter::default() },
            #[cfg(feature = "v4l")]
            Self::V4l(device) => Interrupter { stop: device.stop(), ..Interrupter::default() },
            #[cfg(feature = "nokhwa")]
            Self::Nokhwa(device) => Interrupter { stop: device.stop(), ..Interrupter::default() },
        }
    }
}

/// The next frame; nothing at the end. Waits for it. After an error there may be
/// more: one bad picture is not the end of a folder.
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

/// Ends a camera that another thread waits on.
#[derive(Clone, Debug, Default)]
pub struct Interrupter {
    /// Programs to end, as long as there are any.
    group: Arc<Mutex<Option<Pid>>>,
    /// What the camera looks at while it waits.
    stop: Arc<AtomicBool>,
}

impl Interrupter {
    /// Ends it: the next frame is the last or none.
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
    fn what_no_camera_can_be_is_told_before_it_is_opened() {
        for (uri, expected) in [
            ("camera0", "no such kind of camera"),
            ("v4l:video0", "names no device"),
            ("v4l:/dev/video0?colour=red", "unknown; there are width"),
        ] {
            let message = Kind::of(uri).expect_err(uri).to_string();
            assert!(message.contains(expected), "{message}");
            assert!(Camera::open(uri).is_err());
        }
        let message = Kind::of("rtsp://ada:secret@cam").expect_err("no camera").to_string();
        assert!(message.starts_with("\"rtsp://ada:***@cam\": no such kind"), "{message}");
        assert_eq!(Kind::of("images:frames").expect("a folder"), Kind::Recorded);
        assert_eq!(Kind::of("pipe:true").expect("a program"), Kind::Live);
    }

    #[cfg(not(feature = "v4l"))]
    #[test]
    fn a_camera_that_was_not_built_in_says_how_to_get_it() {
        let message = Camera::open("v4l:/dev/video0").expect_err("not built").to_string();
        assert!(message.ends_with("build it with --features device"), "{message}");
    }

    proptest! {
        #[test]
        fn no_uri_makes_it_panic(uri in "(v4l|nokhwa|images|[a-z]{0,4})?:?[ -~]{0,30}") {
            let _ = Kind::of(&uri);
        }
    }
}
