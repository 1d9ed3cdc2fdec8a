//! The controller's side of the expected false entries: it counts attempts, and tightens
//! the threshold.

use super::{Controller, FaceSeen, Output};
use crate::access::event::Event;
use crate::access::false_entries::Report;
use crate::access::gallery::Probe;
use crate::vision::track::TrackId;
use std::time::Duration;

impl Controller {
    /// Expected false entries, ten minutes old at most.
    pub fn false_entries(&self) -> &Report {
        self.false_entries.report()
    }

    /// Lets time pass. A rate that has changed applies at once.
    pub(super) fn expect_false_entries(&mut self, now: Duration, output: &mut Output) {
        let rate = self.false_entries.rate();
        let notes = self.false_entries.elapse(now, &self.calibration.thresholds, &self.gallery);
        output.events.extend(notes.into_iter().map(Event::FalseEntries));
        // Computed in the same way, so equal rates are equal numbers.
        if self.false_entries.rate() != rate {
            self.weigh();
        }
    }

    /// A frame with these faces was watched, and no newcomer is enrolled.
    pub(super) fn count_faces(&mut self, now: Duration, faces: &[FaceSeen<'_>]) {
        self.false_entries.watched(now);
        for face in faces {
            if let Some(probe) = &face.probe {
                self.false_entries.seen(now, face.track, probe);
            }
        }
    }

    /// A track was refused as a stranger.
    pub(super) fn count_stranger(&mut self, now: Duration, track: TrackId, faces: &[FaceSeen<'_>]) {
        let same_face = self.same_face();
        let probe: Option<&Probe<'_>> =
            faces.iter().find(|face| face.track == track).and_then(|face| face.probe.as_ref());
        if let Some(probe) = probe {
            self.false_entries.stranger(now, track, probe, same_face);
        }
    }
}
