//! What a decision rests on, for the audit log.

use super::Controller;
use crate::access::attempt::{AskedDoor, Attempt, Rules, Step};
use crate::access::decide::VoteSeen;
use crate::access::door::{Mode, State};
use crate::access::gallery::PersonId;
use crate::access::schedule::Admission;
use crate::vision::track::TrackId;
use std::sync::Arc;
use std::time::Duration;

impl Controller {
    /// Whether to keep the inputs of decisions, for a replay.
    pub fn keep_inputs(&mut self, keep: bool) {
        self.recorder.keep(keep);
    }

    /// The rules by which faces are decided now.
    pub fn rules(&self) -> Rules {
        let (decide, weighing) = self.decider.rules();
        let (liveness, resembles) = self.liveness.rules();
        Rules {
            threshold: self.threshold.similarity,
            same_face: self.same_face(),
            resembles,
            decide,
            weighing,
            liveness,
            passback: self.settings.door.passback,
        }
    }

    /// What a decision about these votes rests on. `person` is the one who was recognized.
    pub(super) fn attempt(
        &self,
        votes: Vec<VoteSeen>,
        person: Option<PersonId>,
        asked: Option<AskedDoor>,
    ) -> Arc<Attempt> {
        let group = person.and_then(|person| self.gallery.traits(person));
        let (tape, too_long) = self.recorder.tape(|| self.rules(), asked);
        Arc::new(Attempt {
            votes,
            group: group.map(|traits| traits.group.clone()),
            rate: self.false_entries.rate(),
            templates: self.gallery.templates(),
            liveness: self.liveness.rules().0.mode,
            tape,
            too_long,
        })
    }

    /// What the door is asked about a known person; `None` if inputs are not kept.
    pub(super) fn asked_door(
        &self,
        now: Duration,
        person: PersonId,
        admission: Admission,
        locked_out: Option<Duration>,
    ) -> Option<AskedDoor> {
        self.recorder.on().then(|| {
            let passages = self.door.passages(now);
            let passage = passages.iter().find(|passage| passage.person == person.0);
            AskedDoor {
                admission,
                probation: self.gallery.traits(person).is_some_and(|traits| traits.probation),
                locked_out,
                lockdown: self.door.mode() == Mode::Lockdown,
                stopped: matches!(self.door.state(), State::Stopping { .. } | State::Stopped),
                passage: passage.map(|passage| (passage.role, passage.ago_s)),
                duress: self.door.under_duress(now),
            }
        })
    }

    /// Takes back a grant.
    pub(super) fn not_opened(&mut self, now: Duration, track: TrackId) {
        self.decider.not_opened(track);
        self.recorder.step(now, Step::NotOpened { track: track.0 });
    }
}
