//! What goes into the controller, and what comes out.

use crate::access::door::{self, Order};
use crate::access::enroll::at_door::Newcomer;
use crate::access::event::Event;
use crate::access::gallery::Probe;
use crate::access::gesture::Side;
use crate::access::schedule::Reading;
use crate::access::signal::Signal;
use crate::vision::liveness::Sample;
use crate::vision::pose::Turn;
use crate::vision::quality::Aspect;
use crate::vision::track::TrackId;
use std::time::Duration;

/// One face in the zone.
#[derive(Clone, Copy, Debug)]
pub struct FaceSeen<'a> {
    /// Track of the face.
    pub track: TrackId,
    /// The weakest aspect of the view and its score.
    pub weakest: (Aspect, f32),
    /// The same by the stricter rules for enrolment.
    pub weakest_to_enroll: (Aspect, f32),
    /// Which way it looks.
    pub turn: Turn,
    /// Sample for the liveness check; `None` if liveness is not checked.
    pub sample: Option<Sample>,
    /// The template and its search; `None` for a view that is too poor to compare.
    pub probe: Option<Probe<'a>>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// A frame was looked at.
    Faces {
        /// When it was taken.
        captured: Duration,
        /// At most [`MAX_TRACKS`] count.
        faces: &'a [FaceSeen<'a>],
    },
    /// A button went down or up.
    Button {
        /// Place of the button.
        side: Side,
        /// Down.
        pressed: bool,
    },
    /// An input of the door.
    Door(door::Input),
    /// Somebody with the device in hand has reset it.
    LocalReset,
    /// What the wall clock shows.
    Clock(Reading),
    /// Another model makes templates from now on.
    ModelsChanged,
    /// A newcomer was written to the gallery, or could not be.
    Kept {
        /// [`Newcomer::number`].
        number: u32,
        /// Their provisional name, or the reason why they were not written.
        done: Result<String, String>,
    },
    /// Nothing but time.
    Tick,
}

/// What the service must do after a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// Order for the relay. Its answer comes back as [`Input::Answer`].
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
