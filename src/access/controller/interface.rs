//! What goes into the controller, and what comes out.

use crate::access::door::{self, Order, SavedPassage};
use crate::access::enroll::at_door::Newcomer;
use crate::access::event::Event;
use crate::access::false_entries::SavedFalseEntries;
use crate::access::gallery::{PersonId, Probe};
use crate::access::gesture::Side;
use crate::access::lockout::SavedLockout;
use crate::access::schedule::Reading;
use crate::access::signal::Signal;
use crate::vision::liveness::Sample;
use crate::vision::pose::Turn;
use crate::vision::quality::{Aspect, Quality};
use crate::vision::track::TrackId;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One face in the zone, seen in one frame.
#[derive(Clone, Copy, Debug)]
pub struct FaceSeen<'a> {
    /// Track of the face.
    pub track: TrackId,
    /// The weakest aspect of the view and its score, 0..=1.
    pub weakest: (Aspect, f32),
    /// The weakest aspect by the stricter rules for enrolment, and its score, 0..=1.
    pub weakest_to_enroll: (Aspect, f32),
    /// Turn of the head.
    pub turn: Turn,
    /// Sample for the liveness check; `None` if liveness is not checked.
    pub sample: Option<Sample>,
    /// The template and its search; `None` for a view that is too poor to compare.
    pub probe: Option<Probe<'a>>,
}

impl<'a> FaceSeen<'a> {
    /// A face of this track and quality, without a liveness sample. `probe` comes from
    /// [`Controller::probe`](super::Controller::probe).
    pub fn new(track: TrackId, quality: &Quality, probe: Option<Probe<'a>>) -> Self {
        Self {
            track,
            weakest: quality.weakest(),
            weakest_to_enroll: quality.weakest_to_enroll(),
            turn: quality.turn,
            sample: None,
            probe,
        }
    }
}

/// An input of the controller. All times are on one clock that never runs backwards; its
/// zero does not matter.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// The stages have processed a frame.
    Faces {
        /// Time of the frame.
        captured: Duration,
        /// The faces in the zone; only the first
        /// [`MAX_TRACKS`](crate::vision::track::MAX_TRACKS) count.
        faces: &'a [FaceSeen<'a>],
    },
    /// A button was pressed or released.
    Button {
        /// Place of the button.
        side: Side,
        /// Pressed (`true`) or released (`false`).
        pressed: bool,
    },
    /// An input of the door.
    Door(door::Input),
    /// Somebody with access to the board has reset it, so the next person enrolled needs no
    /// administrator.
    LocalReset,
    /// A reading of the wall clock.
    Clock(Reading),
    /// An administrator has compared the wall clock with another clock: it is right.
    TrustClock,
    /// From now on another model makes the templates. This cancels an enrolment.
    ModelsChanged,
    /// A newcomer was written to the gallery, or could not be.
    Kept {
        /// [`Newcomer::number`].
        number: u32,
        /// Their number and provisional name, or the reason why they were not written.
        done: Result<(PersonId, String), String>,
    },
    /// Time has passed, and nothing else happened.
    Tick,
}

/// Output of one step, to be carried out by the service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// Order for the relay. Its answer must come back as [`door::Input::Answer`].
    pub relay: Option<Order>,
    /// Events to log and report.
    pub events: Vec<Event>,
    /// Signals to show and sound; each replaces the one before.
    pub signals: Vec<Signal>,
    /// Store the view of this frame's only face in memory.
    pub take: bool,
    /// Drop all stored views.
    pub discard: bool,
    /// Write a newcomer with the stored views to the gallery.
    pub keep: Option<Newcomer>,
}

/// State that survives a restart. Times are relative to the moment of saving.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SavedState {
    /// Refused attempts.
    pub lockout: SavedLockout,
    /// Last passages, for anti-passback; one per person.
    pub passages: Vec<SavedPassage>,
    /// The last time at which the clock was trusted, Unix seconds; 0 if never.
    pub clock_floor: i64,
    /// Attempts, similarities of strangers, and by how much the rate is tightened.
    pub false_entries: SavedFalseEntries,
}

impl SavedState {
    /// The state after this much more time has passed.
    pub fn later(mut self, passed: Duration) -> Self {
        let passed = passed.as_secs();
        self.lockout.left_s = self.lockout.left_s.saturating_sub(passed);
        self.lockout.last_s = self.lockout.last_s.saturating_add(passed);
        for passage in &mut self.passages {
            passage.ago_s = passage.ago_s.saturating_add(passed);
        }
        self
    }
}

/// Counts of the changes of a [`SavedState`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Refused attempts, and those forgiven.
    pub lockout: u64,
    /// Passages.
    pub passages: u64,
    /// [`SavedState::clock_floor`].
    pub clock_floor: i64,
    /// Attempts counted, and changes of the rate.
    pub attempts: u64,
}
