//! The way of a frame: from the picture to the order for the relay.
//!
//! [`Pipeline::look`] runs the stages on a frame, [`Pipeline::decide`] gives what they found
//! to the controller, and whatever else happens at the door enters by [`Pipeline::input`].
//! Orders leave by the actuator. [`run`](mod@super::run) calls all of them.

use super::actuator::Actuator;
use super::audit::Auditor;
use super::audit_entries::Entries;
use super::models::ModelSet;
use super::status::{GalleryFileNow, ModelsNow};
use super::trial::Feed;
use super::wall_clock;
use crate::access::SitePeople;
use crate::access::controller::{Changes, Controller, FaceSeen, Input, Output, SavedState};
use crate::access::decide::Zone;
use crate::access::door::{self, Door, State};
use crate::access::enroll::MAX_VIEWS;
use crate::access::enroll::at_door::Newcomer;
use crate::access::event::Event;
use crate::access::false_entries::Report;
use crate::access::gallery::{Candidate, Gallery, PersonId, Probe, Traits};
use crate::access::liveness::Mode;
use crate::access::signal::Signal;
use crate::config::{ClockSource, Config};
use crate::hardware::relay::link::RelayEvent;
use crate::models::threshold::Threshold;
use crate::nn::NetworkError;
use crate::storage::gallery::NewTemplate;
use crate::vision::face_picture::FacePicture;
use crate::vision::frame::Frame;
use crate::vision::liveness::Sample;
use crate::vision::liveness::network::LivenessNets;
use crate::vision::recognizer::{Recognizer, StageTimes, View};
use crate::vision::track::{MAX_TRACKS, TrackId, Tracker};
use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

pub use super::actuator::RelayHandle;

/// How often the wall clock is read if a schedule needs it.
const CLOCK_EVERY: Duration = Duration::from_secs(1);
/// Most signals that wait to be shown.
const MAX_SIGNALS: usize = 8;

/// Whether the faces of the camera count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CameraTrust {
    /// They do.
    Trusted,
    /// Another camera answers than before; they do not.
    Changed,
    /// Somebody accepted the other camera.
    Accepted,
}

/// What may change while the door is watched.
pub enum Change {
    /// People were enrolled, renamed or removed.
    Gallery(Box<Gallery>),
    /// Another set of models was installed.
    Models(Box<ModelSet>),
    /// The configuration was reloaded, with the models as it wants them.
    Config(Box<(Config, ModelSet)>),
}

/// What a frame shows. The vectors have one entry per face.
pub struct Looked {
    captured: Duration,
    tracks: heapless::Vec<TrackId, MAX_TRACKS>,
    views: Vec<View>,
    /// Results of the gallery search, for views with a template.
    best: heapless::Vec<Option<Candidate>, MAX_TRACKS>,
    samples: heapless::Vec<Option<Sample>, MAX_TRACKS>,
    /// Picture of the only face, while an enrolment may take it.
    picture: Option<FacePicture>,
}

impl Looked {
    /// The faces: track, view, and the result of the gallery search if the view was
    /// compared and somebody is enrolled.
    pub fn faces(&self) -> impl Iterator<Item = (TrackId, &View, Option<Candidate>)> {
        let best = self.best.iter().copied();
        self.tracks
            .iter()
            .zip(&self.views)
            .zip(best)
            .map(|((track, view), best)| (*track, view, best))
    }
}

/// Everything between a frame and the relay.
pub struct Pipeline {
    recognizer: Recognizer,
    /// Whether liveness is measured.
    measures_life: bool,
    liveness: Option<LivenessNets>,
    zone: Zone,
    tracker: Tracker,
    controller: Controller,
    actuator: Actuator,
    /// Time that liveness took in the last frame.
    judged_in: Duration,
    /// Time for the search of the last frame's probes, and for its decision.
    searched_in: Duration,
    decided_in: Duration,
    /// Time of the last step.
    last: Duration,
    keep_crops: bool,
    /// Whether people enrolled at the door are refused until they get a name.
    probation: bool,
    clock: ClockSource,
    clock_read: Option<Duration>,
    /// Views of the person who is being enrolled.
    views: heapless::Vec<NewTemplate, MAX_VIEWS>,
    newcomer: Option<NewPerson>,
    gallery_file: GalleryFileNow,
    models_now: ModelsNow,
    /// Set while a model set is on trial.
    trial: Option<Feed>,
    signals: heapless::Vec<Signal, MAX_SIGNALS>,
    camera: CameraTrust,
    entries: Entries,
    /// Galleries that were in use, this one included.
    galleries: u64,
}

/// A person enrolled at the door, to be written to the gallery in one transaction.
#[derive(Clone, Debug)]
pub struct NewPerson {
    /// [`Newcomer::number`].
    pub number: u32,
    /// All views.
    pub templates: Vec<NewTemplate>,
    /// The first person becomes an administrator, and the others may be on probation.
    pub traits: Traits,
    /// A known person who looks alike, and the amount by which both thresholds rise.
    pub look_alike: Option<(PersonId, f32)>,
}

impl Pipeline {
    /// Starts by locking the door. The events say whether the relay answered.
    pub fn new(
        models: ModelSet,
        config: &Config,
        relay: RelayHandle,
        now: Duration,
    ) -> (Self, Vec<Event>) {
        let ModelSet { recognizer, liveness, calibration, gallery } = models;
        let (mut controller, output) =
            Controller::new(calibration, config.access(), gallery, unpredictable(), now);
        let actuator = Actuator::new(relay);
        if actuator.is_link() {
            controller.watches_live();
        }
        controller.keep_inputs(config.audit.replay);
        let mut pipeline = Self {
            recognizer,
            measures_life: config.liveness.mode != Mode::Off,
            liveness,
            zone: config.zone(),
            tracker: Tracker::new(config.recognition.evidence_expires),
            controller,
            actuator,
            judged_in: Duration::ZERO,
            searched_in: Duration::ZERO,
            decided_in: Duration::ZERO,
            last: now,
            keep_crops: config.gallery.keep_crops,
            probation: config.enroll.probation,
            clock: config.schedule.clock,
            clock_read: None,
            views: heapless::Vec::new(),
            newcomer: None,
            gallery_file: GalleryFileNow::default(),
            models_now: ModelsNow::default(),
            trial: None,
            signals: heapless::Vec::new(),
            camera: CameraTrust::Trusted,
            entries: Entries::off(),
            galleries: 1,
        };
        let mut events = Vec::new();
        pipeline.carry_out(now, output, &mut events);
        (pipeline, events)
    }

    /// Writes to this audit log from now on.
    pub(super) fn set_entries(&mut self, entries: Entries) {
        self.entries = entries;
    }

    /// What is written to the audit log.
    pub(super) fn entries(&mut self) -> &mut Entries {
        &mut self.entries
    }

    /// Writes to the audit log.
    pub fn auditor(&self) -> &Auditor {
        self.entries.auditor()
    }

    /// The current threshold.
    pub fn threshold(&self) -> Threshold {
        self.controller.threshold()
    }

    /// The recognizer, for enrolling between frames.
    pub fn recognizer(&mut self) -> &mut Recognizer {
        &mut self.recognizer
    }

    /// Sets whether another camera answers than before, so that its faces do not count.
    /// Returns whether that is new.
    pub fn camera_changed(&mut self, changed: bool) -> bool {
        let is = if changed { CameraTrust::Changed } else { CameraTrust::Trusted };
        let was = std::mem::replace(&mut self.camera, is);
        (was == CameraTrust::Trusted) == changed
    }

    /// Somebody accepts the other camera; false if there is none.
    pub fn accept_camera(&mut self) -> bool {
        if self.camera == CameraTrust::Changed {
            self.camera = CameraTrust::Accepted;
        }
        self.camera == CameraTrust::Accepted
    }

    /// Whether somebody has accepted the other camera.
    pub fn camera_accepted(&self) -> bool {
        self.camera == CameraTrust::Accepted
    }

    /// Whether a face is in view, or was a moment ago.
    pub fn followed(&self) -> bool {
        self.recognizer.followed()
    }

    /// The door.
    pub fn door(&self) -> &Door {
        self.controller.door()
    }

    /// Time spent in the stages of the last frame.
    pub fn times(&self) -> StageTimes {
        self.recognizer.times()
    }

    /// Time that liveness took in the last frame; `None` if it is off.
    pub fn judged_in(&self) -> Option<Duration> {
        self.measures_life.then_some(self.judged_in)
    }

    /// Time for the gallery search and the decision of the last frame.
    pub fn decided_in(&self) -> Duration {
        self.decided_in
    }

    /// Takes up the state from before the start. `clock` is what a trusted clock shows now,
    /// Unix seconds, if that is known.
    pub fn resume(&mut self, now: Duration, saved: &SavedState, clock: Option<i64>) {
        self.controller.resume(now, saved, clock);
    }

    /// The state that survives a restart.
    pub fn saved(&self, now: Duration) -> SavedState {
        self.controller.saved(now)
    }

    /// Counts the changes of [`Self::saved`].
    pub fn changes(&self) -> Changes {
        self.controller.changes()
    }

    /// Unix seconds of the wall clock, if it is trusted.
    pub fn trusted_unix(&self, now: Duration) -> Option<i64> {
        self.controller.trusted_unix(now)
    }

    /// Expected false entries.
    pub fn false_entries(&self) -> &Report {
        self.controller.false_entries()
    }

    /// The gallery.
    pub fn gallery(&self) -> &Gallery {
        self.controller.gallery()
    }

    /// Number of galleries that were in use, this one included: another number means other
    /// people, names or templates.
    pub fn galleries(&self) -> u64 {
        self.galleries
    }

    /// State of the gallery's file.
    pub fn gallery_file(&self) -> &GalleryFileNow {
        &self.gallery_file
    }

    /// Notes the state of the gallery's file, for the status.
    pub fn set_gallery_file(&mut self, now: GalleryFileNow) {
        self.gallery_file = now;
    }

    /// The model set in use, for the status.
    pub fn models_now(&self) -> &ModelsNow {
        &self.models_now
    }

    /// Notes the model set in use.
    pub fn set_models_now(&mut self, now: ModelsNow) {
        self.models_now = now;
    }

    /// Whom of the site the door lets in from now on.
    pub fn set_site_people(&mut self, people: SitePeople) {
        self.controller.set_site_people(people);
    }

    /// Begins or ends the trial of a model set.
    pub fn set_trial(&mut self, trial: Option<Feed>) {
        self.trial = trial;
    }

    /// Shows a frame and its decisions to the set on trial. Called after the decision, which
    /// it must not delay.
    pub fn try_out(&mut self, frame: &Frame, looked: &Looked, events: &[Event]) {
        if let Some(trial) = &mut self.trial {
            trial.see(frame, looked, self.controller.gallery(), events);
        }
    }

    /// Whether the wall clock is trusted; `None` if no schedule needs it.
    pub fn clock_trusted(&self, now: Duration) -> Option<bool> {
        self.controller.needs_clock().then(|| self.controller.clock_trusted(now))
    }

    /// Applies a change. Drops all evidence.
    pub fn change(&mut self, now: Duration, change: Change) -> Vec<Event> {
        match change {
            Change::Gallery(gallery) => {
                self.set_gallery(*gallery);
                Vec::new()
            }
            Change::Models(models) => self.set_models(now, *models),
            Change::Config(both) => {
                let (config, models) = *both;
                self.zone = config.zone();
                self.tracker.set_evidence_expires(config.recognition.evidence_expires);
                self.keep_crops = config.gallery.keep_crops;
                self.probation = config.enroll.probation;
                self.measures_life = config.liveness.mode != Mode::Off;
                let events = self.set_models(now, models);
                self.entries.configure(&config);
                self.controller.reconfigure(config.access());
                self.controller.keep_inputs(config.audit.replay);
                self.clock = config.schedule.clock;
                self.clock_read = None;
                events
            }
        }
    }

    fn set_models(&mut self, now: Duration, models: ModelSet) -> Vec<Event> {
        let ModelSet { recognizer, liveness, calibration, gallery } = models;
        let other = self.recognizer.model() != recognizer.model();
        self.entries.set_models(recognizer.model().as_str());
        self.recognizer = recognizer;
        self.liveness = liveness;
        self.galleries += 1;
        self.controller.set_models(now, calibration, gallery);
        // The views of one person must come from one model.
        if other { self.input(now, Input::ModelsChanged) } else { Vec::new() }
    }

    /// Replaces the gallery and drops all evidence. A gallery with templates of another
    /// model admits nobody.
    pub fn set_gallery(&mut self, gallery: Gallery) {
        self.galleries += 1;
        self.controller.set_gallery(gallery);
    }

    /// Processes a frame: [`Self::look`], then [`Self::decide`].
    ///
    /// # Errors
    /// If a network fails. The frame then counts for nothing.
    pub fn frame(&mut self, now: Duration, frame: &Frame) -> Result<Vec<Event>, NetworkError> {
        let looked = self.look(now, frame)?;
        Ok(self.decide(now, &looked))
    }

    /// Runs the stages on a frame. `captured` is its time, on a clock that never runs
    /// backwards.
    ///
    /// # Errors
    /// If a network fails.
    pub fn look(&mut self, captured: Duration, frame: &Frame) -> Result<Looked, NetworkError> {
        let (width, height) = (frame.width(), frame.height());
        let zone = self.zone;
        // A poster with a hundred faces must not delay the door.
        let count = Cell::new(0);
        let mut views = self.recognizer.find(frame, |face| {
            let wanted = zone.contains(&face.rect, width, height) && count.get() < MAX_TRACKS;
            count.set(count.get() + usize::from(wanted));
            wanted
        })?;
        let faces: Vec<_> = views.iter().map(|view| view.face).collect();
        let tracks = self.tracker.step(captured, &faces);
        for (track, view) in tracks.iter().zip(&mut views) {
            let (quality, decided) = (view.quality.score(), self.controller.all_said(*track));
            if self.tracker.worth_embedding(captured, *track, quality, decided) {
                self.recognizer.compare(frame, view)?;
                if view.template.is_some() {
                    self.tracker.embedded(captured, *track, quality);
                }
            }
        }
        let began = Instant::now();
        let best: heapless::Vec<Option<Candidate>, MAX_TRACKS> = views
            .iter()
            .map(|view| view.template.as_ref().and_then(|found| self.controller.probe(found).best))
            .collect();
        self.searched_in = began.elapsed();
        let samples = self.samples(captured, frame, &tracks, &views, &best)?;
        let picture = match &views[..] {
            [view] if self.keep_crops && self.controller.enrolment().busy() => {
                Some(FacePicture::cut(frame, &view.face.landmarks))
            }
            _ => None,
        };
        Ok(Looked { captured, tracks, views, best, samples, picture })
    }

    /// Decides on what a frame showed. Inputs that came in meanwhile must be given first,
    /// with their own times.
    pub fn decide(&mut self, now: Duration, looked: &Looked) -> Vec<Event> {
        let Looked { captured, tracks, views, best, samples, picture } = looked;
        let faces: heapless::Vec<FaceSeen<'_>, MAX_TRACKS> = tracks
            .iter()
            .zip(views)
            .zip(best)
            .zip(samples)
            .map(|(((track, view), best), sample)| {
                let probe = view.template.as_ref().map(|template| Probe { template, best: *best });
                FaceSeen { sample: *sample, ..FaceSeen::new(*track, &view.quality, probe) }
            })
            .collect();
        let mut events = self.tick(now);
        let (now, captured) = (self.last, *captured);
        if self.entries.wants_faces() {
            let crops = tracks.iter().zip(views);
            self.entries.show(crops.map(|(track, view)| (*track, view.crop.frame().clone())));
        }
        let began = Instant::now();
        let output = self.controller.step(now, Input::Faces { captured, faces: &faces });
        self.decided_in = self.searched_in + began.elapsed();
        if output.take {
            self.hold_on(views, picture.clone());
        }
        self.carry_out(now, output, &mut events);
        events
    }

    /// Takes any input except frames. A late input counts from the last step.
    pub fn input(&mut self, now: Duration, input: Input<'_>) -> Vec<Event> {
        let mut events = Vec::new();
        let now = self.advance(now);
        let output = self.controller.step(now, input);
        self.carry_out(now, output, &mut events);
        events
    }

    /// Takes a report of the relay's thread.
    pub fn relay_report(&mut self, now: Duration, event: RelayEvent) -> Vec<Event> {
        let reaction = self.actuator.report(event, self.controller.door());
        let mut events: Vec<Event> = reaction.before.into_iter().collect();
        if let Some(input) = reaction.input {
            events.extend(self.input(now, input));
        }
        events.extend(reaction.after);
        events
    }

    fn advance(&mut self, now: Duration) -> Duration {
        self.last = self.last.max(now);
        self.last
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Duration) -> Vec<Event> {
        self.actuator.alive();
        // Asked each time: somebody may get a last day while the service runs.
        let due = self.clock_read.is_none_or(|at| now >= at + CLOCK_EVERY);
        if due && self.controller.needs_clock() {
            self.clock_read = Some(now);
            let reading = wall_clock::read(self.clock == ClockSource::Trusted);
            return self.input(now, Input::Clock(reading));
        }
        self.input(now, Input::Tick)
    }

    /// De-energises the relay for good.
    pub fn stop(&mut self, now: Duration) -> Vec<Event> {
        self.input(now, Input::Door(door::Input::Stop))
    }

    /// Whether the relay has confirmed that the door is locked.
    pub fn locked(&self) -> bool {
        matches!(self.controller.door().state(), State::Locked { .. })
    }

    /// Whether the relay has confirmed that it is de-energised for good.
    pub fn stopped(&self) -> bool {
        self.controller.door().state() == State::Stopped
    }

    /// The person to be written to the gallery, if there is one. The result must be given
    /// back as [`Input::Kept`].
    pub fn newcomer(&mut self) -> Option<NewPerson> {
        self.newcomer.take()
    }

    /// The next signal to be shown and sounded.
    pub fn signal(&mut self) -> Option<Signal> {
        if self.signals.is_empty() { None } else { Some(self.signals.remove(0)) }
    }

    /// Liveness measurements of all faces. The networks run only on faces for which the door
    /// may open, so that a poster of strangers does not delay it.
    fn samples(
        &mut self,
        captured: Duration,
        frame: &Frame,
        tracks: &[TrackId],
        views: &[View],
        best: &[Option<Candidate>],
    ) -> Result<heapless::Vec<Option<Sample>, MAX_TRACKS>, NetworkError> {
        let began = Instant::now();
        let mut samples = heapless::Vec::new();
        for ((track, view), best) in tracks.iter().zip(views).zip(best) {
            let mut sample = self.measures_life.then(|| Sample::measure(frame, view));
            if let (Some(sample), Some(nets), Some(template)) =
                (&mut sample, &mut self.liveness, &view.template)
                && self.controller.asks_network(captured, *track, &Probe { template, best: *best })
            {
                sample.network = Some(nets.judge(frame, &view.face.rect)?);
            }
            // There are no more views than tracks.
            let _ = samples.push(sample);
        }
        self.judged_in = began.elapsed();
        Ok(samples)
    }

    fn hold_on(&mut self, views: &[View], picture: Option<FacePicture>) {
        let [View { template: Some(template), .. }] = views else { return };
        // The enrolment takes no more views than fit.
        let _ = self.views.push(NewTemplate { template: template.clone(), picture });
    }

    /// Carries out the controller's output and gives it the results, until there is nothing
    /// left to do. A failure is retried only after some time, so this ends.
    fn carry_out(&mut self, now: Duration, mut output: Output, events: &mut Vec<Event>) {
        let mut written = events.len();
        loop {
            for signal in output.signals {
                // The reader is late: keep the newest signals, and alarms with their ends.
                if self.signals.is_full() {
                    let passing = |signal: &Signal| !signal.stands() && *signal != Signal::Quiet;
                    let oldest = self.signals.iter().position(passing).unwrap_or(0);
                    self.signals.remove(oldest);
                }
                let _ = self.signals.push(signal);
            }
            if let Some(Newcomer { number, by, look_alike }) = output.keep {
                self.newcomer = Some(NewPerson {
                    number,
                    templates: self.views.iter().cloned().collect(),
                    traits: Traits {
                        administrator: by.is_none(),
                        probation: by.is_some() && self.probation,
                        ..Traits::default()
                    },
                    look_alike: look_alike.map(|(like, stricter)| (like.person, stricter)),
                });
                self.views.clear();
            }
            if output.discard {
                self.views.clear();
            }
            events.extend(output.events);
            let door = self.controller.door();
            let Some(order) = output.relay else { return self.actuator.renew(now, door) };
            if matches!(door.state(), State::Granting { .. }) {
                // Why it opens is in the log before it opens.
                for event in events.iter().skip(written) {
                    self.entries.early(now, event);
                }
                written = events.len();
                self.entries.auditor().settle();
            }
            let Some(done) = self.actuator.order(now, order, door) else { return };
            let taken = done.is_ok();
            events.extend(done.err().map(Event::RelayFailed));
            let answer = door::Input::Answer { order: order.number, taken };
            output = self.controller.step(now, Input::Door(answer));
        }
    }
}

/// A number that nobody can predict: the standard library seeds its hashers from the
/// system's random numbers.
fn unpredictable() -> u64 {
    RandomState::new().hash_one(0)
}
