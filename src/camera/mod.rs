//! EDGE: where frames come from, named by a URI.
//!
//! | URI | What |
//! |---|---|
//! | `images:DIR-or-glob[?fps=10&loop]` | picture files in the order of their names |
//! | `pipe:COMMAND` | a program that writes YUV4MPEG2 to its standard output |
//!
//! Recorded frames carry their own time and none is dropped. Live frames carry
//! the time they came at; whoever is slower than the camera gets the newest.

mod images;
mod pipe;
pub mod y4m;

use crate::frame::Frame;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// Why there are no frames.
#[derive(Debug, Error)]
pub enum CameraError {
    /// The URI names no camera we know.
    #[error("{uri:?}: no such kind of camera; use images:DIR, images:'PATTERN' or pipe:'COMMAND'")]
    Scheme {
        /// As given.
        uri: String,
    },
    /// An option of the URI is wrong.
    #[error("{uri:?}: {fault}")]
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
    #[error("pipe:{command}: {fault}")]
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
}

impl Camera {
    /// Opens the camera that the URI names.
    pub fn open(uri: &str) -> Result<Self, CameraError> {
        match uri.split_once(':') {
            Some(("images", rest)) => images::Images::open(uri, rest).map(Self::Images),
            Some(("pipe", command)) => {
                pipe::Pipe::open(command).map(|pipe| Self::Pipe(Box::new(pipe)))
            }
            _ => Err(CameraError::Scheme { uri: uri.to_owned() }),
        }
    }

    /// Whether frames are recorded, so that none may be dropped, or live, so
    /// that only the newest counts.
    pub fn recorded(&self) -> bool {
        matches!(self, Self::Images(_))
    }

    /// What ends the camera from another thread that waits for no frame.
    pub fn interrupter(&self) -> Interrupter {
        match self {
            Self::Images(_) => Interrupter(None),
            Self::Pipe(pipe) => Interrupter(pipe.group()),
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
        }
    }
}

/// Ends a camera that another thread waits on.
#[derive(Clone, Copy, Debug)]
pub struct Interrupter(Option<rustix::process::Pid>);

impl Interrupter {
    /// Ends it: the next frame is the last or none.
    pub fn interrupt(self) {
        if let Some(group) = self.0 {
            pipe::end(group);
        }
    }
}
