//! The door controller combines decision, door, schedule, buttons and enrolment. It has no
//! camera, networks, devices or clock: the service passes inputs in and carries outputs
//! out, so that the same scenes run at a door and in a simulator.

mod decided;
mod false_entries;
mod interface;
mod reasons;

pub use interface::{Changes, FaceSeen, Input, Output, SavedState};

use crate::access::attempt::{Attempt, Recorder, Step};
use crate::access::decide::{
    DecideSettings, Decider, Evidence, Observation, SAME_VIEW, Seen, Sighting,
};
use crate::access::door::{self, Door, Mode, SavedPassage, State};
use crate::access::enroll::Shot;
use crate::access::enroll::at_door::{self, Barred, DoorEnrolment, Failure, Like};
use crate::access::event::Event;
use crate::access::false_entries::FalseEntries;
use crate::access::gallery::{Candidate, Gallery, PersonId, Probe};
use crate::access::gesture::{Button, Side};
use crate::access::liveness::challenge;
use crate::access::liveness::{FaceToJudge, LivenessGuard, RESEMBLES_RATE};
use crate::access::lockout::Lockout;
use crate::access::schedule::{Clock, KnownTime, WallClock};
use crate::access::signal::Signal;
use crate::access::{Settings, SitePeople};
use crate::models::ScoreCalibration;
use crate::models::threshold::Threshold;
use crate::vision::embed::Template;
use crate::vision::quality::Aspect;
use crate::vision::track::{MAX_TRACKS, TrackId};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

/// False accept rate per pair at whose similarity two views are of one face, for counting
/// attempts. Views of one visit are more alike than photos of one person of different
/// years, of which 99 of 100 reach it.
const SAME_FACE_RATE: f64 = 1e-2;
/// How long the same advice is not repeated.
const ADVICE_EVERY: Duration = Duration::from_secs(3);
/// For how long somebody who was in the last frame counts as being in view.
const IN_VIEW: Duration = Duration::from_secs(1);
/// Delay of the next grant after the relay did not open. Without it a refusal would be
/// reported with every third frame.
const GRANT_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// One door with everything that decides.
#[derive(Clone, Debug)]
pub struct Controller {
    calibration: ScoreCalibration,
    /// Whether frames come from a live camera.
    live: bool,
    settings: Settings,
    /// Whom of the site the door lets in now.
    site_people: SitePeople,
    gallery: Gallery,
    threshold: Threshold,
    wall: WallClock,
    open_hours: bool,
    decider: Decider,
    liveness: LivenessGuard,
    door: Door,
    lockout: Lockout,
    false_entries: FalseEntries,
    enrolment: DoorEnrolment,
    inside: Button,
    outside: Button,
    /// The person whom the last frame shows alone, and its time.
    alone: Option<(PersonId, Duration)>,
    /// Track of the grant that the relay has not answered yet.
    asked: Option<TrackId>,
    /// No grants before this time, because the relay did not open for the last one.
    grants_from: Duration,
    advised: Option<(Aspect, Duration)>,
    stale: Option<Duration>,
    /// Inputs of the latest decisions.
    recorder: Recorder,
    /// What the decision that is carried out rests on.
    behind: Option<Arc<Attempt>>,
}

impl Controller {
    /// Starts by locking the door. `chance` seeds the choice of liveness challenges and
    /// must be unpredictable.
    pub fn new(
        calibration: ScoreCalibration,
        settings: Settings,
        gallery: Gallery,
        chance: u64,
        now: Duration,
    ) -> (Self, Output) {
        let (door, actions) = Door::new(now, settings.door);
        let (rate, templates) = (settings.false_accept_rate, gallery.templates());
        let resembles = calibration.thresholds.for_pair(RESEMBLES_RATE).similarity;
        let entries = settings.false_entries;
        let mut controller = Self {
            false_entries: FalseEntries::new(entries, rate, &calibration.thresholds),
            threshold: calibration.thresholds.for_attempt(rate, templates),
            enrolment: DoorEnrolment::new(settings.enroll.calibrated(&calibration.thresholds)),
            calibration,
            live: false,
            decider: Decider::new(settings.decide),
            liveness: LivenessGuard::new(settings.liveness, resembles, chance),
            lockout: Lockout::new(settings.lockout),
            settings,
            site_people: SitePeople::default(),
            gallery,
            wall: WallClock::default(),
            open_hours: false,
            door,
            inside: Button::default(),
            outside: Button::default(),
            alone: None,
            asked: None,
            grants_from: now,
            advised: None,
            stale: None,
            recorder: Recorder::default(),
            behind: None,
        };
        controller.weigh();
        (controller, Output { relay: actions.relay, ..Output::default() })
    }

    /// Frames come from a live camera, where two views differ at least by noise. Recorded
    /// frames may repeat.
    pub fn watches_live(&mut self) {
        self.live = true;
        self.set_decider();
    }

    fn set_decider(&mut self) {
        let distinct = self.live && self.settings.distinct_views;
        let same_view = if distinct { SAME_VIEW } else { f32::INFINITY };
        self.decider = Decider::new(DecideSettings { same_view, ..self.settings.decide });
        self.weigh();
    }

    /// Recomputes the threshold and the needed likelihood ratio from models, gallery and
    /// the false accept rate in use. Drops all evidence.
    fn weigh(&mut self) {
        let templates = self.gallery.templates();
        let rate = self.false_entries.rate();
        self.threshold = self.calibration.thresholds.for_attempt(rate, templates);
        let likelihood = self.calibration.likelihood.as_ref();
        let weighing =
            likelihood.map(|likelihood| likelihood.weighing(self.threshold, rate, templates));
        self.decider.weigh(weighing, self.same_face());
    }

    /// Cosine at which two views are taken for views of one face.
    fn same_face(&self) -> f32 {
        self.calibration.thresholds.for_pair(SAME_FACE_RATE).similarity
    }

    /// Searches the gallery for a template: once per view and frame.
    pub fn probe<'t>(&self, template: &'t Template) -> Probe<'t> {
        let best = self.gallery.best(template).map(|best| best.candidate(self.threshold));
        Probe { template, best }
    }

    /// Whether the liveness networks should check the face of this track and probe: the
    /// person is known, and the networks have no recent result for the track.
    pub fn asks_network(&self, captured: Duration, track: TrackId, probe: &Probe<'_>) -> bool {
        probe.best.is_some_and(|best| best.reaches) && self.liveness.network_due(captured, track)
    }

    /// Whether a track is decided and no enrolment is under way.
    pub fn all_said(&self, track: TrackId) -> bool {
        self.decider.decided(track) && !self.enrolment.busy()
    }

    /// The similarity asked for now.
    pub fn threshold(&self) -> Threshold {
        self.threshold
    }

    /// The door.
    pub fn door(&self) -> &Door {
        &self.door
    }

    /// The people known.
    pub fn gallery(&self) -> &Gallery {
        &self.gallery
    }

    /// The enrolment.
    pub fn enrolment(&self) -> &DoorEnrolment {
        &self.enrolment
    }

    /// Whether the wall clock is of any use here.
    pub fn needs_clock(&self) -> bool {
        self.settings.schedule.needs_clock() || self.gallery.has_dates()
    }

    /// Whether the wall clock is known to be right.
    pub fn clock_trusted(&self, now: Duration) -> bool {
        matches!(self.clock(now), Clock::Trusted(_))
    }

    /// Unix seconds of the wall clock, if it is trusted.
    pub fn trusted_unix(&self, now: Duration) -> Option<i64> {
        self.wall.unix(now)
    }

    /// Replaces the models' calibration, and the gallery by one with the new models'
    /// templates. Drops all evidence.
    pub fn set_models(&mut self, now: Duration, calibration: ScoreCalibration, gallery: Gallery) {
        self.calibration = calibration;
        let resembles = self.calibration.thresholds.for_pair(RESEMBLES_RATE).similarity;
        self.liveness.set_resembles(resembles);
        self.lockout.forget_faces(now);
        self.false_entries.set_models(&self.calibration.thresholds);
        self.set_gallery(gallery);
    }

    /// Another gallery: evidence gathered with the old one is forgotten.
    pub fn set_gallery(&mut self, gallery: Gallery) {
        self.recorder.lose();
        self.gallery = gallery;
        self.false_entries.set_gallery();
        self.weigh();
    }

    /// Another configuration from now on. The door stays as it is, lockdown, refused
    /// tries and who has passed included; evidence gathered before is forgotten.
    pub fn reconfigure(&mut self, settings: Settings) {
        self.recorder.restart();
        self.settings = settings;
        let (entries, rate) = (self.settings.false_entries, self.settings.false_accept_rate);
        self.false_entries.set_settings(entries, rate);
        self.set_decider();
        self.liveness.set_settings(self.settings.liveness);
        self.door.set_settings(self.settings.door);
        self.lockout.set_settings(self.settings.lockout);
        let enroll = self.settings.enroll.calibrated(&self.calibration.thresholds);
        self.enrolment.set_settings(enroll);
    }

    /// Whom of the site the door lets in from now on.
    pub fn set_site_people(&mut self, people: SitePeople) {
        self.site_people = people;
    }

    /// The state that survives a restart.
    pub fn saved(&self, now: Duration) -> SavedState {
        SavedState {
            lockout: self.lockout.saved(now),
            passages: self.door.passages(now),
            clock_floor: self.wall.floor(),
            false_entries: self.false_entries.saved(),
        }
    }

    /// Counts what [`Self::saved`] returns: it is worth saving again once a count differs.
    pub fn changes(&self) -> Changes {
        Changes {
            lockout: self.lockout.changes(),
            passages: self.door.passages_recorded(),
            clock_floor: self.wall.floor(),
            attempts: self.false_entries.changes(),
        }
    }

    /// Takes up what the service saved before it ended. `clock` is what a trusted clock
    /// shows now, if that is known.
    pub fn resume(&mut self, now: Duration, saved: &SavedState, clock: Option<i64>) {
        self.lockout = Lockout::restored(self.settings.lockout, &saved.lockout, now);
        for SavedPassage { person, role, ago_s } in &saved.passages {
            let (person, ago) = (PersonId(*person), Duration::from_secs(*ago_s));
            self.door.step(now, door::Input::Passed { person, role: *role, ago });
        }
        self.wall.resume(now, KnownTime { floor: saved.clock_floor, now: clock });
        self.false_entries.resume(&saved.false_entries);
        self.weigh();
    }

    /// Takes one input at a time on a clock that does not run backwards.
    pub fn step(&mut self, now: Duration, input: Input<'_>) -> Output {
        let mut output = Output::default();
        let busy = self.enrolment.busy();
        self.elapse(now, &mut output);
        match input {
            Input::Faces { captured, faces } => self.faces(now, captured, faces, &mut output),
            Input::Button { side, pressed } => {
                let button = match side {
                    Side::Inside => &mut self.inside,
                    Side::Outside => &mut self.outside,
                };
                let gesture = button.edge(now, pressed);
                if let Some(gesture) = gesture {
                    self.gesture(now, side, gesture, &mut output);
                }
            }
            Input::Door(input) => self.at_door(now, input, None, &mut output),
            Input::LocalReset => self.enroll(now, at_door::Input::LocalReset, &mut output),
            Input::Clock(reading) => {
                let note = self.wall.step(now, reading);
                output.events.extend(note.map(Event::Clock));
                self.open_hours(now, &mut output);
            }
            Input::TrustClock => {
                output.events.extend(self.wall.accept(now).map(Event::Clock));
                self.open_hours(now, &mut output);
            }
            Input::ModelsChanged => self.enroll(now, at_door::Input::ModelsChanged, &mut output),
            Input::Kept { number, done: Ok((person, name)) } => {
                output.events.push(Event::Enrolled { person, name });
                self.enroll(now, at_door::Input::Kept { number }, &mut output);
            }
            Input::Kept { number, done: Err(reason) } => {
                output.events.push(Event::NotKept(reason));
                self.enroll(now, at_door::Input::NotKept { number }, &mut output);
            }
            Input::Tick => {}
        }
        if self.enrolment.busy() != busy {
            // Evidence from before does not count for the new purpose.
            self.decider.clear();
            self.recorder.step(now, Step::Clear);
        }
        output
    }

    /// What time alone brings about.
    fn elapse(&mut self, now: Duration, output: &mut Output) {
        self.at_door(now, door::Input::Tick, None, output);
        output.events.extend(self.lockout.elapse(now).map(Event::Lockout));
        self.expect_false_entries(now, output);
        for side in [Side::Inside, Side::Outside] {
            let button = match side {
                Side::Inside => &mut self.inside,
                Side::Outside => &mut self.outside,
            };
            if let Some(gesture) = button.tick(now) {
                self.gesture(now, side, gesture, output);
            }
        }
        self.enroll(now, at_door::Input::Tick, output);
        self.open_hours(now, output);
    }

    fn clock(&self, now: Duration) -> Clock {
        self.wall.now(now)
    }

    fn open_hours(&mut self, now: Duration, output: &mut Output) {
        let open = self.settings.schedule.open_now(self.clock(now));
        if open != self.open_hours {
            self.open_hours = open;
            self.at_door(now, door::Input::OpenHours(open), None, output);
        }
    }

    fn gesture(
        &mut self,
        now: Duration,
        side: Side,
        gesture: crate::access::gesture::Gesture,
        output: &mut Output,
    ) {
        use crate::access::gesture::Gesture;
        if self.settings.duress.is(gesture) {
            self.at_door(now, door::Input::Duress, None, output);
        }
        let event = match gesture {
            Gesture::Hold => {
                let lately = |(_, at): &(PersonId, Duration)| now <= *at + IN_VIEW;
                at_door::Input::Hold {
                    side,
                    empty: self.gallery.people() == 0,
                    in_view: self.alone.filter(lately).map(|(person, _)| person),
                    barred: self.barred(),
                }
            }
            Gesture::Presses(_) => at_door::Input::Press,
        };
        self.enroll(now, event, output);
    }

    /// Why nobody may be enrolled now.
    fn barred(&self) -> Option<Barred> {
        if self.door.mode() == Mode::Lockdown {
            Some(Barred::Lockdown)
        } else {
            self.lockout.of_door().then_some(Barred::LockedOut)
        }
    }

    fn faces(
        &mut self,
        now: Duration,
        captured: Duration,
        faces: &[FaceSeen<'_>],
        output: &mut Output,
    ) {
        let faces = &faces[..faces.len().min(MAX_TRACKS)];
        let age = now.saturating_sub(captured);
        if age >= self.settings.decide.evidence_expires {
            if self.stale.is_none_or(|told| now >= told + ADVICE_EVERY) {
                self.stale = Some(now);
                output.events.push(Event::Stale { age });
            }
            return;
        }
        let judged = faces.iter().filter_map(|face| {
            let FaceSeen { track, probe, turn, .. } = *face;
            let sample = face.sample.as_ref()?;
            Some(FaceToJudge { track, sample, yaw: turn.yaw, probe })
        });
        let gallery = &self.gallery;
        let claimed = RefCell::new(heapless::Vec::<_, MAX_TRACKS>::new());
        let similarity = |track, template: &Template, person| {
            let similarity = gallery.similarity_to(person, template);
            // Each face asks at most once.
            let _ = claimed.borrow_mut().push((track, similarity));
            similarity
        };
        for (track, action) in self.liveness.step(captured, judged, similarity) {
            challenged(track, action, output);
        }
        let decides = !matches!(self.enrolment.state(), at_door::State::Newcomer { .. });
        let stricter = |person| gallery.traits(person).map_or(0.0, |traits| traits.stricter);
        let claimed = claimed.into_inner();
        self.recorder.frame((now, captured), decides, faces, &claimed, stricter);
        self.alone = match faces {
            [face] => face
                .probe
                .and_then(|probe| probe.best)
                .filter(|best| best.reaches)
                .map(|best| (best.person, captured)),
            _ => None,
        };
        if let at_door::State::Newcomer { .. } = self.enrolment.state() {
            self.false_entries.newcomer();
            let (shot, like) = Self::shot(faces);
            self.enroll(now, at_door::Input::Frame { shot: &shot, like }, output);
            return;
        }
        self.count_faces(now, faces);
        let observations: heapless::Vec<Observation<'_>, MAX_TRACKS> =
            faces.iter().map(Self::observed).collect();
        let decisions = self.decider.result(now, captured, &observations);
        for decision in &decisions {
            self.decided(now, captured, decision, faces, output);
        }
        if decisions.is_empty() {
            self.advice(now, faces, output);
        }
    }

    fn observed<'f>(face: &FaceSeen<'f>) -> Observation<'f> {
        let track = face.track;
        let Some(Probe { template, best }) = face.probe else {
            return Observation { track, seen: Seen::Poor, look: None };
        };
        let (seen, most_alike) = Seen::of(best);
        let look = Some(Sighting { template, quality: face.weakest.1, most_alike });
        Observation { track, seen, look }
    }

    fn shot(faces: &[FaceSeen<'_>]) -> (Shot, Option<Like>) {
        match faces {
            [] => (Shot::Empty, None),
            [face] => {
                let best = face.probe.and_then(|probe| probe.best);
                let like =
                    best.map(|Candidate { person, similarity, .. }| Like { person, similarity });
                let shot = Shot::Face {
                    weakest: face.weakest_to_enroll,
                    turn: face.turn,
                    template: face.probe.map(|probe| probe.template.clone()),
                };
                (shot, like)
            }
            _ => (Shot::Crowd, None),
        }
    }

    fn name(&self, person: PersonId) -> String {
        self.gallery.name(person).unwrap_or_default().to_owned()
    }

    /// Passes one event to the door. `evidence` belongs to the person in the event.
    fn at_door(
        &mut self,
        now: Duration,
        input: door::Input,
        evidence: Option<Evidence>,
        output: &mut Output,
    ) {
        let granting = matches!(self.door.state(), State::Granting { .. });
        let done = self.door.step(now, input);
        // A later order counts instead of an earlier one.
        output.relay = done.relay.or(output.relay);
        for event in &done.events {
            output.signals.extend(Signal::of_door(event));
            output.events.push(self.door_event(*event, evidence));
        }
        if granting && !matches!(self.door.state(), State::Granting { .. }) {
            let track = self.asked.take();
            // Take back a grant that opened nothing, and delay the next one.
            if let Some(track) = track.filter(|_| self.door.state() != State::Open) {
                self.not_opened(now, track);
                self.grants_from = now + GRANT_AGAIN_AFTER;
                output.signals.push(Signal::Refused);
            }
        }
    }

    fn door_event(&self, event: door::Event, evidence: Option<Evidence>) -> Event {
        let threshold = |person: PersonId| {
            let stricter = self.gallery.traits(person).map_or(0.0, |traits| traits.stricter);
            Threshold { similarity: self.threshold.similarity + stricter, ..self.threshold }
        };
        match (event, evidence) {
            (door::Event::Granted { person, admission, again }, Some(evidence)) => Event::Granted {
                name: self.name(person),
                evidence,
                threshold: threshold(person),
                admission,
                again,
                attempt: self.behind.clone().unwrap_or_default(),
            },
            (door::Event::NotGranted { person, why }, Some(evidence)) => {
                let (name, threshold) = (self.name(person), threshold(person));
                let attempt = self.behind.clone().unwrap_or_default();
                Event::NotGranted { name, evidence, threshold, why, attempt }
            }
            (door::Event::Duress { person }, _) => {
                Event::Duress { person, name: self.name(person) }
            }
            (door::Event::Passed { person, role }, _) => {
                Event::Passed { person, name: self.name(person), role }
            }
            (door::Event::Unlocked, _) => Event::Unlocked,
            (door::Event::Locked, _) => Event::Locked,
            (event, _) => Event::Door(event),
        }
    }

    fn enroll(&mut self, now: Duration, input: at_door::Input<'_>, output: &mut Output) {
        let done = self.enrolment.step(now, input);
        for event in done.events {
            let person = match event {
                at_door::Event::Administrator(person) | at_door::Event::Confirm(person) => {
                    Some(person)
                }
                at_door::Event::LookAlike(like)
                | at_door::Event::Failed(Failure::AlreadyEnrolled(like)) => Some(like.person),
                at_door::Event::Begun(_)
                | at_door::Event::First(_)
                | at_door::Event::NotReset(_)
                | at_door::Event::NotNow(_)
                | at_door::Event::Failed(_) => None,
            };
            output
                .events
                .push(Event::Enroll { event, name: person.map(|person| self.name(person)) });
        }
        output.signals.extend(done.signal);
        output.take |= done.take;
        output.discard |= done.discard;
        output.keep = done.keep.or(output.keep);
    }
}

/// Reports and shows a step of a liveness challenge.
fn challenged(track: TrackId, action: challenge::Output, output: &mut Output) {
    output.events.push(Event::Challenge { track, action });
    output.signals.extend(Signal::of_challenge(action));
}
