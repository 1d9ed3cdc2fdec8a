//! What the controller does about a decision: it admits, refuses or advises.

use super::{ADVICE_EVERY, Controller, FaceSeen, Output, challenged};
use crate::access::attempt::Step;
use crate::access::decide::{Decision, Evidence, VoteSeen};
use crate::access::door::{self, Refusal, State};
use crate::access::enroll::at_door::{self, Barred};
use crate::access::event::Event;
use crate::access::gallery::PersonId;
use crate::access::gesture::Side;
use crate::access::liveness::LivenessAdmission;
use crate::access::schedule::Admission;
use crate::access::signal::Signal;
use crate::vision::embed::Template;
use crate::vision::quality::{Aspect, WORTH_COMPARING};
use crate::vision::track::TrackId;
use std::time::Duration;

impl Controller {
    pub(super) fn decided(
        &mut self,
        now: Duration,
        captured: Duration,
        decision: &Decision,
        faces: &[FaceSeen<'_>],
        output: &mut Output,
    ) {
        match *decision {
            Decision::Grant(evidence) => self.known(now, captured, evidence, faces, output),
            // The newcomer is no stranger.
            Decision::Stranger { .. }
                if matches!(
                    self.enrolment.state(),
                    at_door::State::Newcomer { .. } | at_door::State::Keeping { .. }
                ) => {}
            Decision::Stranger { track, similarity, frames, denied } => {
                self.count_stranger(now, track, faces);
                let threshold = self.threshold;
                let attempt = self.attempt(self.decider.votes(track), None, None);
                let event =
                    Event::Stranger { track, similarity, frames, threshold, denied, attempt };
                output.events.push(event);
                // While the enrolment waits for an administrator, its signal stays.
                if !self.enrolment.busy() {
                    output.signals.push(Signal::Refused);
                }
                self.refused(now, view(faces, track), false, output);
            }
            Decision::TwoFaces { faces } => {
                let attempt = self.attempt(Vec::new(), None, None);
                output.events.push(Event::TwoFaces { faces, attempt });
                output.signals.push(Signal::OneAtATime);
            }
        }
    }

    /// A known person wants to come in, unless the enrolment waits for an administrator and
    /// they are one. Others are still admitted meanwhile: otherwise anybody could block the
    /// door by holding the button.
    fn known(
        &mut self,
        now: Duration,
        captured: Duration,
        evidence: Evidence,
        faces: &[FaceSeen<'_>],
        output: &mut Output,
    ) {
        let Evidence { track, person, .. } = evidence;
        self.false_entries.known(now, track, person);
        let (view, same_face) = (view(faces, track), self.same_face());
        let votes = self.decider.votes(track);
        let held = self.lockout.holds(now, view, same_face);
        let proof = held.is_some_and(|held| !held.despite_proof) && self.liveness.enforced();
        let administrator = self.gallery.traits(person).is_some_and(|traits| traits.administrator);
        let allows = match self.enrolment.state() {
            at_door::State::Idle | at_door::State::Confirm { .. } => None,
            at_door::State::Administrator { side, .. } => administrator.then_some(*side),
            at_door::State::Newcomer { .. } | at_door::State::Keeping { .. } => return,
        };
        let early = allows != Some(Side::Inside) && now < self.grants_from;
        if early || self.not_live(now, captured, (evidence, &votes), (view, proof), output) {
            self.not_opened(now, track);
            return;
        }
        let admission = self.admission(now, person);
        if allows.is_some() {
            let hours = (!admission.admitted()).then_some(Barred::Hours);
            let barred = self.barred().or(hours);
            self.enroll(now, at_door::Input::Administrator { person, barred }, output);
        }
        let locked_out = held.filter(|_| !proof).map(|held| held.left);
        let asked = self.asked_door(now, person, admission, locked_out);
        self.behind = Some(self.attempt(votes, Some(person), asked));
        if self.gallery.traits(person).is_some_and(|traits| traits.probation) {
            let note = door::Event::NotGranted { person, why: Refusal::Probation };
            output.signals.extend(Signal::of_door(&note));
            output.events.push(self.door_event(note, Some(evidence)));
            return;
        }
        // An administrator at the button outside is let in, whether they confirm or not.
        if allows != Some(Side::Inside) {
            let event = door::Input::Known { person, admission, locked_out };
            let before = output.events.len();
            self.at_door(now, event, Some(evidence), output);
            let granted = |event: &Event| matches!(event, Event::Granted { .. });
            if let Some(view) = view
                && output.events[before..].iter().any(granted)
            {
                self.lockout.admitted(view, same_face);
            }
            if matches!(self.door.state(), State::Granting { .. }) {
                self.asked = Some(track);
            }
        }
    }

    /// Whether schedule, dates and the site let somebody in.
    fn admission(&self, now: Duration, person: PersonId) -> Admission {
        let schedule = &self.settings.schedule;
        let Some(traits) = self.gallery.traits(person) else {
            return schedule.admits("", self.clock(now));
        };
        let dates = (traits.valid_from, traits.valid_until);
        let admission = schedule.admits(&traits.group, self.clock(now));
        if !admission.admitted() {
            return admission;
        }
        if traits.site.is_some() && !self.site_people.admits(traits.administrator) {
            return Admission::SiteUnheard;
        }
        let outside = schedule.outside_dates(&traits.group, dates, self.trusted_unix(now));
        outside.unwrap_or(admission)
    }

    /// Whether liveness keeps the door shut for somebody who may come in.
    fn not_live(
        &mut self,
        now: Duration,
        captured: Duration,
        (evidence, votes): (Evidence, &[VoteSeen]),
        (view, proof): (Option<&Template>, bool),
        output: &mut Output,
    ) -> bool {
        let Evidence { track, person, .. } = evidence;
        let admission = self.liveness.admit(captured, track, person, proof);
        let (sides, number) = (self.liveness.asked(), person.0);
        self.recorder.step(now, Step::Admit { track: track.0, person: number, proof, sides });
        let refusal = |door: &Self, verdict, enforced| {
            let attempt = door.attempt(votes.to_vec(), Some(person), None);
            Event::NotLive { track, verdict, enforced, person, attempt }
        };
        match admission {
            LivenessAdmission::Open => false,
            LivenessAdmission::Advised(verdict) => {
                output.events.extend(verdict.map(|verdict| refusal(self, verdict, false)));
                false
            }
            LivenessAdmission::Wait(action) => {
                if let Some(action) = action {
                    challenged(track, action, output);
                }
                true
            }
            LivenessAdmission::Refused(verdict) => {
                if let Some(verdict) = verdict {
                    output.events.push(refusal(self, verdict, true));
                    output.signals.push(Signal::Refused);
                    self.refused(now, view, true, output);
                }
                true
            }
        }
    }

    /// Counts a refused attempt. `known` says whether the view is of a known person who does
    /// not look live.
    fn refused(
        &mut self,
        now: Duration,
        view: Option<&Template>,
        known: bool,
        output: &mut Output,
    ) {
        let Some(view) = view else { return };
        let begins = self.lockout.refused(now, view, known, self.same_face());
        output.events.extend(begins.map(Event::Lockout));
    }

    /// What to tell somebody who stands alone and cannot be compared.
    pub(super) fn advice(&mut self, now: Duration, faces: &[FaceSeen<'_>], output: &mut Output) {
        let [FaceSeen { probe: None, weakest: (aspect, score), .. }] = faces else { return };
        if *score >= WORTH_COMPARING {
            // It could be compared, and its track is decided.
            return;
        }
        let told = |(last, at): (Aspect, Duration)| last == *aspect && now < at + ADVICE_EVERY;
        if self.advised.is_some_and(told) {
            return;
        }
        self.advised = Some((*aspect, now));
        output.events.push(Event::Poor(*aspect));
        output.signals.push(Signal::of_aspect(*aspect));
    }
}

/// The template of a track's view.
fn view<'f>(faces: &[FaceSeen<'f>], track: TrackId) -> Option<&'f Template> {
    let face = faces.iter().find(|face| face.track == track)?;
    face.probe.map(|probe| probe.template)
}
