//! What a decision rests on, kept for the audit log: the frames that counted and, for a
//! replay, everything that the decision was derived from.
//!
//! Nothing in it is a face: similarities and measurements only.

mod recorder;
mod tape;

pub(super) use recorder::Recorder;
pub use tape::{
    AskedDoor, BestSeen, FaceTaken, FrameTaken, MOST_FRAMES, MOST_VIEWS, Rules, SampleTaken, Step,
    Tape, ViewTaken,
};

use crate::access::decide::VoteSeen;
use crate::access::liveness::Mode;

/// What an attempt rests on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attempt {
    /// Frames that counted, oldest first.
    pub votes: Vec<VoteSeen>,
    /// Group of the person; `None` for a stranger.
    pub group: Option<String>,
    /// False accept rate per attempt that the threshold follows from.
    pub rate: f64,
    /// Templates in the gallery.
    pub templates: usize,
    /// Effect of liveness on the door.
    pub liveness: Mode,
    /// Inputs for a replay, if they are kept.
    pub tape: Option<Tape>,
    /// Whether the inputs were too many to be kept.
    pub too_long: bool,
}
