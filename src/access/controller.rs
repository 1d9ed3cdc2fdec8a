//! The door controller combines decision, door, schedule, buttons and enrolment. It has no
//! camera, networks, devices or clock: the service passes inputs in and carries outputs
//! out, so that the same scenes run at a door and in a simulator.

use crate::access::decide::{
    DecideSettings, Decider, Decision, Evidence, Look, Observation, SAME_VIEW, Seen,
};
use crate::access::door::{self, Command, Door, Note, Order, Role, State};
use crate::access::enroll::Shot;
use crate::access::enroll::at_door::{self, ByButton, Failure, Like, Newcomer};
use crate::access::event::Event;
use crate::access::gallery::{Gallery, PersonId};
use crate::access::gesture::{Button, Side};
use crate::access::liveness::challenge::Action;
use crate::access::liveness::{LivenessAdmission, LivenessGuard};
use crate::access::schedule::{Clock, Reading, Schedule, WallClock};
use crate::access::signal::Signal;
use crate::config::{Config, DuressGesture};
use crate::models::ScoreCalibration;
use crate::models::threshold::Threshold;
use crate::vision::embed::Template;
use crate::vision::liveness::Sample;
use crate::vision::pose::Turn;
use crate::vision::quality::{Aspect, WORTH_COMPARING};
use crate::vision::track::{MAX_TRACKS, TrackId};
use std::time::Duration;

/// How long the same advice is not repeated.
const ADVICE_EVERY: Duration = Duration::from_secs(3);
/// Delay of the next grant after the relay did not open. Without it a refusal would be
/// reported with every third frame.
const GRANT_AGAIN_AFTER: Duration = Duration::from_secs(2);

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
    /// `None` if the view is too poor to compare.
    pub template: Option<&'a Template>,
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
    /// A request to exit.
    Exit,
    /// The contact: the door was opened.
    Opened,
    /// The contact: the door was closed.
    Closed,
    /// An order.
    Command(Command),
    /// Somebody passed at another door.
    Passed {
        /// The person who passed.
        person: PersonId,
        /// Into the area or out of it.
        role: Role,
        /// Age of the passage.
        ago: Duration,
    },
    /// Somebody with the device in hand has reset it.
    LocalReset,
    /// What the wall clock shows.
    Clock(Reading),
    /// The relay has answered.
    Answer {
        /// [`Order::number`] of that order.
        order: u32,
        /// Whether the relay carried it out.
        taken: bool,
    },
    /// The relay is unreachable.
    RelayAway,
    /// The relay is reachable again.
    RelayBack,
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
    /// The service ends.
    Stop,
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

/// One door with everything that decides.
#[derive(Clone, Debug)]
pub struct Controller {
    calibration: ScoreCalibration,
    /// Whether frames come from a live camera.
    live: bool,
    false_accept_rate: f64,
    /// A frame older than this shows nobody who stands there now.
    frame_expires: Duration,
    duress: DuressGesture,
    gallery: Gallery,
    threshold: Threshold,
    schedule: Schedule,
    wall: WallClock,
    open_hours: bool,
    decider: Decider,
    liveness: LivenessGuard,
    door: Door,
    enrolment: ByButton,
    inside: Button,
    outside: Button,
    /// Track of the grant that the relay has not answered yet.
    asked: Option<TrackId>,
    /// No grants before this time, because the relay did not open for the last one.
    grants_from: Duration,
    advised: Option<(Aspect, Duration)>,
    stale: Option<Duration>,
}

impl Controller {
    /// Starts by locking the door. `chance` seeds the choice of liveness challenges and
    /// must be unpredictable.
    pub fn new(
        calibration: ScoreCalibration,
        config: &Config,
        gallery: Gallery,
        chance: u64,
        now: Duration,
    ) -> (Self, Output) {
        let (door, actions) = Door::new(now, config.door());
        let false_accept_rate = config.recognition.false_accept_rate;
        let mut controller = Self {
            threshold: calibration.thresholds.for_attempt(false_accept_rate, gallery.templates()),
            enrolment: ByButton::new(config.enroll_by_button(&calibration.thresholds)),
            calibration,
            live: false,
            false_accept_rate,
            frame_expires: config.recognition.evidence_expires,
            duress: config.door.duress,
            gallery,
            schedule: config.schedule(),
            wall: WallClock::default(),
            open_hours: false,
            decider: Decider::new(config.decide()),
            liveness: LivenessGuard::new(config.liveness(chance)),
            door,
            inside: Button::default(),
            outside: Button::default(),
            asked: None,
            grants_from: now,
            advised: None,
            stale: None,
        };
        controller.weigh();
        (controller, Output { relay: actions.relay, ..Output::default() })
    }

    /// Frames come from a live camera, whose views differ at least by noise; recorded ones
    /// may well be the same.
    pub fn watches_live(&mut self, config: &Config) {
        self.live = true;
        self.set_decider(config);
    }

    fn set_decider(&mut self, config: &Config) {
        let distinct = self.live && config.recognition.distinct_views;
        let same_view = if distinct { SAME_VIEW } else { f32::INFINITY };
        self.decider = Decider::new(DecideSettings { same_view, ..config.decide() });
        self.weigh();
    }

    /// Recomputes the threshold and the needed likelihood ratio from models, gallery and
    /// false accept rate. Drops all evidence.
    fn weigh(&mut self) {
        let templates = self.gallery.templates();
        self.threshold = self.calibration.thresholds.for_attempt(self.false_accept_rate, templates);
        let weighing = self.calibration.likelihood.as_ref().map(|likelihood| {
            likelihood.weighing(self.threshold, self.false_accept_rate, templates)
        });
        self.decider.weigh(weighing);
    }

    /// Whether the liveness networks should check the face of this track and template: the
    /// person is known, and the networks have no recent result for the track.
    pub fn asks_network(&self, captured: Duration, track: TrackId, template: &Template) -> bool {
        self.liveness.network_due(captured, track)
            && self.gallery.best(template).is_some_and(|best| best.reaches(self.threshold))
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
    pub fn enrolment(&self) -> &ByButton {
        &self.enrolment
    }

    /// Whether the wall clock is of any use here.
    pub fn needs_clock(&self) -> bool {
        self.schedule.needs_clock()
    }

    /// Whether the wall clock is known to be right.
    pub fn clock_trusted(&self, now: Duration) -> bool {
        matches!(self.clock(now), Clock::Trusted(_))
    }

    /// Replaces the models' calibration, and the gallery by one with the new models'
    /// templates. Drops all evidence.
    pub fn set_models(&mut self, calibration: ScoreCalibration, gallery: Gallery) {
        self.calibration = calibration;
        self.set_gallery(gallery);
    }

    /// Another gallery: evidence gathered with the old one is forgotten.
    pub fn set_gallery(&mut self, gallery: Gallery) {
        self.gallery = gallery;
        self.weigh();
    }

    /// Another configuration from now on. The door stays as it is, lockdown, refused
    /// tries and who has passed included; evidence gathered before is forgotten.
    pub fn reconfigure(&mut self, config: &Config) {
        self.false_accept_rate = config.recognition.false_accept_rate;
        self.frame_expires = config.recognition.evidence_expires;
        self.duress = config.door.duress;
        self.schedule = config.schedule();
        self.set_decider(config);
        self.liveness.set_settings(config.liveness(0));
        self.door.set_settings(config.door());
        self.enrolment.set_settings(config.enroll_by_button(&self.calibration.thresholds));
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
            Input::Exit => self.at_door(now, door::Event::Exit, None, &mut output),
            Input::Opened => self.at_door(now, door::Event::Opened, None, &mut output),
            Input::Closed => self.at_door(now, door::Event::Closed, None, &mut output),
            Input::Command(command) => {
                self.at_door(now, door::Event::Command(command), None, &mut output);
            }
            Input::Passed { person, role, ago } => {
                self.at_door(now, door::Event::Passed { person, role, ago }, None, &mut output);
            }
            Input::LocalReset => self.enroll(now, at_door::Event::LocalReset, &mut output),
            Input::Clock(reading) => {
                let note = self.wall.step(now, reading);
                output.events.extend(note.map(Event::Clock));
                self.open_hours(now, &mut output);
            }
            Input::Answer { order, taken } => {
                self.at_door(now, door::Event::Answer { order, taken }, None, &mut output);
            }
            Input::RelayAway => self.at_door(now, door::Event::RelayAway, None, &mut output),
            Input::RelayBack => self.at_door(now, door::Event::RelayBack, None, &mut output),
            Input::ModelsChanged => self.enroll(now, at_door::Event::ModelsChanged, &mut output),
            Input::Kept { number, done: Ok(name) } => {
                output.events.push(Event::Enrolled { name });
                self.enroll(now, at_door::Event::Kept { number }, &mut output);
            }
            Input::Kept { number, done: Err(reason) } => {
                output.events.push(Event::NotKept(reason));
                self.enroll(now, at_door::Event::NotKept { number }, &mut output);
            }
            Input::Tick => {}
            Input::Stop => self.at_door(now, door::Event::Stop, None, &mut output),
        }
        if self.enrolment.busy() != busy {
            // Evidence from before does not count for the new purpose.
            self.decider.clear();
        }
        output
    }

    /// What time alone brings about.
    fn elapse(&mut self, now: Duration, output: &mut Output) {
        self.at_door(now, door::Event::Tick, None, output);
        for side in [Side::Inside, Side::Outside] {
            let button = match side {
                Side::Inside => &mut self.inside,
                Side::Outside => &mut self.outside,
            };
            if let Some(gesture) = button.tick(now) {
                self.gesture(now, side, gesture, output);
            }
        }
        self.enroll(now, at_door::Event::Tick, output);
        self.open_hours(now, output);
    }

    fn clock(&self, now: Duration) -> Clock {
        self.wall.now(now)
    }

    fn open_hours(&mut self, now: Duration, output: &mut Output) {
        let open = self.schedule.open_now(self.clock(now));
        if open != self.open_hours {
            self.open_hours = open;
            self.at_door(now, door::Event::OpenHours(open), None, output);
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
        if self.duress.is(gesture) {
            self.at_door(now, door::Event::Duress, None, output);
        }
        let event = match gesture {
            Gesture::Hold => at_door::Event::Hold { side, empty: self.gallery.people() == 0 },
            Gesture::Presses(_) => at_door::Event::Press,
        };
        self.enroll(now, event, output);
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
        if age >= self.frame_expires {
            if self.stale.is_none_or(|told| now >= told + ADVICE_EVERY) {
                self.stale = Some(now);
                output.events.push(Event::Stale { age });
            }
            return;
        }
        let samples = faces.iter().filter_map(|face| {
            face.sample.as_ref().map(|sample| (face.track, sample, face.turn.yaw))
        });
        for (track, action) in self.liveness.step(captured, samples) {
            challenged(track, action, output);
        }
        if let at_door::State::Newcomer { .. } = self.enrolment.state() {
            let (shot, like) = self.shot(faces);
            self.enroll(now, at_door::Event::Frame { shot: &shot, like }, output);
            return;
        }
        let observations: heapless::Vec<Observation<'_>, MAX_TRACKS> =
            faces.iter().map(|face| self.observed(face)).collect();
        let decisions = self.decider.result(now, captured, &observations);
        for decision in &decisions {
            self.decided(now, captured, decision, output);
        }
        if decisions.is_empty() {
            self.advice(now, faces, output);
        }
    }

    fn observed<'f>(&self, face: &FaceSeen<'f>) -> Observation<'f> {
        let track = face.track;
        let Some(template) = face.template else {
            return Observation { track, seen: Seen::Poor, look: None };
        };
        let best = self.gallery.best(template);
        let seen = match &best {
            Some(best) if best.reaches(self.threshold) => Seen::Person(best.id, best.similarity),
            best => Seen::Nobody(best.as_ref().map_or(-1.0, |best| best.similarity)),
        };
        let most_alike = best.map(|best| best.id);
        let look = Some(Look { template, quality: face.weakest.1, most_alike });
        Observation { track, seen, look }
    }

    fn shot(&self, faces: &[FaceSeen<'_>]) -> (Shot, Option<Like>) {
        match faces {
            [] => (Shot::Empty, None),
            [face] => {
                let best = face.template.and_then(|template| self.gallery.best(template));
                let like = best.map(|best| Like { person: best.id, similarity: best.similarity });
                let shot = Shot::Face {
                    weakest: face.weakest_to_enroll,
                    turn: face.turn,
                    template: face.template.cloned(),
                };
                (shot, like)
            }
            _ => (Shot::Crowd, None),
        }
    }

    fn decided(
        &mut self,
        now: Duration,
        captured: Duration,
        decision: &Decision,
        output: &mut Output,
    ) {
        match *decision {
            Decision::Grant(evidence) => self.known(now, captured, evidence, output),
            // The newcomer is no stranger.
            Decision::Stranger { .. }
                if matches!(
                    self.enrolment.state(),
                    at_door::State::Newcomer { .. } | at_door::State::Keeping { .. }
                ) => {}
            Decision::Stranger { track, similarity, frames } => {
                let threshold = self.threshold;
                output.events.push(Event::Stranger { track, similarity, frames, threshold });
                // While the enrolment waits for an administrator, its signal stays.
                if !self.enrolment.busy() {
                    output.signals.push(Signal::Refused);
                }
                self.at_door(now, door::Event::Refused, None, output);
            }
            Decision::TwoFaces { faces } => {
                output.events.push(Event::TwoFaces { faces });
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
        output: &mut Output,
    ) {
        let Evidence { track, person, .. } = evidence;
        let administrator = self.gallery.traits(person).is_some_and(|traits| traits.administrator);
        let allows = match self.enrolment.state() {
            at_door::State::Idle => false,
            at_door::State::Administrator { .. } => administrator,
            at_door::State::Newcomer { .. } | at_door::State::Keeping { .. } => return,
        };
        if !allows && now < self.grants_from || self.not_live(now, captured, track, output) {
            self.decider.not_opened(track);
        } else if allows {
            self.enroll(now, at_door::Event::Administrator(person), output);
        } else {
            let group = self.gallery.traits(person).map_or("", |traits| traits.group.as_str());
            let admission = self.schedule.admits(group, self.clock(now));
            let event = door::Event::Known { person, admission };
            self.at_door(now, event, Some(evidence), output);
            if matches!(self.door.state(), State::Granting { .. }) {
                self.asked = Some(track);
            }
        }
    }

    /// Whether liveness keeps the door shut for somebody who may come in.
    fn not_live(
        &mut self,
        now: Duration,
        captured: Duration,
        track: TrackId,
        output: &mut Output,
    ) -> bool {
        let refusal = |verdict, enforced| Event::NotLive { track, verdict, enforced };
        match self.liveness.admit(captured, track) {
            LivenessAdmission::Open => false,
            LivenessAdmission::Advised(verdict) => {
                output.events.extend(verdict.map(|verdict| refusal(verdict, false)));
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
                    output.events.push(refusal(verdict, true));
                    output.signals.push(Signal::Refused);
                    self.at_door(now, door::Event::Refused, None, output);
                }
                true
            }
        }
    }

    /// What to tell somebody who stands alone and cannot be compared.
    fn advice(&mut self, now: Duration, faces: &[FaceSeen<'_>], output: &mut Output) {
        let [FaceSeen { template: None, weakest: (aspect, score), .. }] = faces else { return };
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

    fn name(&self, person: PersonId) -> String {
        self.gallery.name(person).unwrap_or_default().to_owned()
    }

    /// Passes one event to the door. `evidence` belongs to the person in the event.
    fn at_door(
        &mut self,
        now: Duration,
        event: door::Event,
        evidence: Option<Evidence>,
        output: &mut Output,
    ) {
        let granting = matches!(self.door.state(), State::Granting { .. });
        let actions = self.door.step(now, event);
        // A later order counts instead of an earlier one.
        output.relay = actions.relay.or(output.relay);
        for note in &actions.notes {
            output.signals.extend(Signal::of_note(note));
            output.events.push(self.told(*note, evidence));
        }
        if granting && !matches!(self.door.state(), State::Granting { .. }) {
            let track = self.asked.take();
            // Take back a grant that opened nothing, and delay the next one.
            if let Some(track) = track.filter(|_| self.door.state() != State::Open) {
                self.decider.not_opened(track);
                self.grants_from = now + GRANT_AGAIN_AFTER;
                output.signals.push(Signal::Refused);
            }
        }
    }

    fn told(&self, note: Note, evidence: Option<Evidence>) -> Event {
        let threshold = |person: PersonId| {
            let stricter = self.gallery.traits(person).map_or(0.0, |traits| traits.stricter);
            Threshold { similarity: self.threshold.similarity + stricter, ..self.threshold }
        };
        match (note, evidence) {
            (Note::Granted { person, admission, again }, Some(evidence)) => Event::Granted {
                name: self.name(person),
                evidence,
                threshold: threshold(person),
                admission,
                again,
            },
            (Note::NotGranted { person, why }, Some(evidence)) => {
                let (name, threshold) = (self.name(person), threshold(person));
                Event::NotGranted { name, evidence, threshold, why }
            }
            (Note::Duress { person }, _) => Event::Duress { name: self.name(person) },
            (Note::Passed { person, role }, _) => Event::Passed { name: self.name(person), role },
            (Note::Unlocked, _) => Event::Unlocked,
            (Note::Locked, _) => Event::Locked,
            (note, _) => Event::Door(note),
        }
    }

    fn enroll(&mut self, now: Duration, event: at_door::Event<'_>, output: &mut Output) {
        let actions = self.enrolment.step(now, event);
        for note in actions.notes {
            let person = match note {
                at_door::Note::Administrator(person) => Some(person),
                at_door::Note::LookAlike(like)
                | at_door::Note::Failed(Failure::AlreadyEnrolled(like)) => Some(like.person),
                at_door::Note::Begun(_)
                | at_door::Note::First(_)
                | at_door::Note::NotReset(_)
                | at_door::Note::Failed(_) => None,
            };
            output
                .events
                .push(Event::Enroll { note, name: person.map(|person| self.name(person)) });
        }
        output.signals.extend(actions.signal);
        output.take |= actions.take;
        output.discard |= actions.discard;
        output.keep = actions.keep.or(output.keep);
    }
}

/// Reports and shows a step of a liveness challenge.
fn challenged(track: TrackId, action: Action, output: &mut Output) {
    output.events.push(Event::Challenge { track, action });
    output.signals.extend(Signal::of_challenge(action));
}
