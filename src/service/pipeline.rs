//! The stages and the controller together: frames and whatever else happens at the
//! door go in, the relay is told what follows.
//!
//! [`Doorkeeper`] does that for one frame at a time at a time it is told;
//! [`crate::service::run`] feeds it.

use crate::access::controller::{Controller, FaceSeen, Input, Output};
use crate::access::decide::Zone;
use crate::access::door::{Door, Order, State};
use crate::access::enroll::MAX_VIEWS;
use crate::access::enroll::at_door::Newcomer;
use crate::access::event::Event;
use crate::access::gallery::{Gallery, PersonId};
use crate::access::liveness::Mode;
use crate::access::signal::Signal;
use crate::config::{ClockSource, Config};
use crate::hardware::relay::link::Told;
use crate::hardware::relay::{Relay, RelayLink};
use crate::models::ScoreCalibration;
use crate::models::threshold::Threshold;
use crate::nn::NetworkError;
use crate::service::wall_clock;
use crate::storage::gallery::NewTemplate;
use crate::vision::frame::Frame;
use crate::vision::liveness::Sample;
use crate::vision::liveness::network::LivenessNets;
use crate::vision::recognizer::{Recognizer, StageTimes, View};
use crate::vision::track::{MAX_TRACKS, TrackId, Tracker};
use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// How often the wall clock is read where a schedule needs it.
const CLOCK_EVERY: Duration = Duration::from_secs(1);
/// Signals that wait to be shown.
const MAX_SIGNALS: usize = 8;

/// A relay that is open locks by itself so long after the door should have told it to.
const LATE: Duration = Duration::from_secs(2);

/// What may change while the door is watched.
pub enum Change {
    /// Somebody was enrolled, renamed or removed.
    Gallery(Gallery),
    /// Another set of models was installed.
    Models(Box<ModelSet>),
    /// Another configuration holds, with the models as it wants them.
    Config(Box<(Config, ModelSet)>),
}

/// A set of models with all that depends on it.
pub struct ModelSet {
    /// Its networks.
    pub recognizer: Recognizer,
    /// Those that tell live faces, where there are any and liveness is asked for.
    pub liveness: Option<LivenessNets>,
    /// Thresholds and likelihood of its similarities.
    pub calibration: ScoreCalibration,
    /// Everybody, by its templates.
    pub gallery: Gallery,
}

/// What a frame showed.
pub struct Looked {
    captured: Duration,
    tracks: heapless::Vec<TrackId, MAX_TRACKS>,
    views: Vec<View>,
    samples: heapless::Vec<Option<Sample>, MAX_TRACKS>,
}

/// What moves the lock.
pub enum Hand {
    /// It has answered before it returns: for recorded frames.
    Direct(Relay),
    /// It answers later, on a thread of its own; its answers come back by
    /// [`Doorkeeper::relay_told`].
    Link(RelayLink),
}

/// Everything between a frame and the relay.
pub struct Doorkeeper {
    recognizer: Recognizer,
    /// Whether liveness is asked for.
    measures_life: bool,
    liveness: Option<LivenessNets>,
    zone: Zone,
    tracker: Tracker,
    controller: Controller,
    hand: Hand,
    /// The relay has said that it is away.
    away: bool,
    /// What it said last was wrong.
    said: Option<String>,
    /// Of the newest order.
    order: Option<Order>,
    /// Until when the relay was told that the lock is wanted open; nothing is without end.
    until: Option<Duration>,
    judged_in: Duration,
    decided_in: Duration,
    /// Time of the last step.
    last: Duration,
    keep_crops: bool,
    clock: Option<ClockSource>,
    clock_read: Option<Duration>,
    /// Views of somebody who is being enrolled.
    views: heapless::Vec<NewTemplate, MAX_VIEWS>,
    newcomer: Option<NewPerson>,
    signals: heapless::Vec<Signal, MAX_SIGNALS>,
}

/// Somebody enrolled at the door, to be written into the gallery in one transaction.
#[derive(Clone, Debug)]
pub struct NewPerson {
    /// As [`Newcomer`] has it.
    pub number: u32,
    /// All their views.
    pub templates: Vec<NewTemplate>,
    /// Whether they are the first, who may let others in.
    pub administrator: bool,
    /// Whom they look like, and by how much both thresholds rise.
    pub look_alike: Option<(PersonId, f32)>,
}

impl Doorkeeper {
    /// Begins by locking the door; the events tell whether the relay answered.
    pub fn new(models: ModelSet, config: &Config, hand: Hand, now: Duration) -> (Self, Vec<Event>) {
        let ModelSet { recognizer, liveness, calibration, gallery } = models;
        let (mut controller, output) =
            Controller::new(calibration, config, gallery, unforeseen(), now);
        if matches!(hand, Hand::Link(_)) {
            controller.watches_live(config);
        }
        let clock = controller.needs_clock().then_some(config.schedule.clock);
        let mut keeper = Self {
            recognizer,
            measures_life: config.liveness.mode != Mode::Off,
            liveness,
            zone: config.zone(),
            tracker: Tracker::new(config.recognition.evidence_expires),
            controller,
            hand,
            away: false,
            said: None,
            order: None,
            until: None,
            judged_in: Duration::ZERO,
            decided_in: Duration::ZERO,
            last: now,
            keep_crops: config.gallery.keep_crops,
            clock,
            clock_read: None,
            views: heapless::Vec::new(),
            newcomer: None,
            signals: heapless::Vec::new(),
        };
        let mut events = Vec::new();
        keeper.carry_out(now, output, &mut events);
        (keeper, events)
    }

    /// The similarity asked for now.
    pub fn threshold(&self) -> Threshold {
        self.controller.threshold()
    }

    /// The recognizer, for enrolling between frames.
    pub fn recognizer(&mut self) -> &mut Recognizer {
        &mut self.recognizer
    }

    /// Whether somebody is in view, or was a moment ago.
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

    /// Time that liveness took in the last frame; nothing where it is not asked for.
    pub fn judged_in(&self) -> Option<Duration> {
        self.measures_life.then_some(self.judged_in)
    }

    /// Time from the last frame's faces to what follows of them: searching the gallery
    /// and deciding.
    pub fn decided_in(&self) -> Duration {
        self.decided_in
    }

    /// The people known.
    pub fn gallery(&self) -> &Gallery {
        self.controller.gallery()
    }

    /// Whether the wall clock can be trusted; nothing where no schedule asks for it.
    pub fn clock_trusted(&self, now: Duration) -> Option<bool> {
        self.controller.needs_clock().then(|| self.controller.clock_trusted(now))
    }

    /// Another gallery or other models: evidence gathered before is forgotten.
    pub fn change(&mut self, now: Duration, change: Change) -> Vec<Event> {
        match change {
            Change::Gallery(gallery) => {
                self.set_gallery(gallery);
                Vec::new()
            }
            Change::Models(models) => self.set_models(now, *models),
            Change::Config(both) => {
                let (config, models) = *both;
                self.zone = config.zone();
                self.tracker.set_apart(config.recognition.evidence_expires);
                self.keep_crops = config.gallery.keep_crops;
                self.measures_life = config.liveness.mode != Mode::Off;
                let events = self.set_models(now, models);
                self.controller.reconfigure(&config);
                self.clock = self.controller.needs_clock().then_some(config.schedule.clock);
                self.clock_read = None;
                events
            }
        }
    }

    fn set_models(&mut self, now: Duration, models: ModelSet) -> Vec<Event> {
        let ModelSet { recognizer, liveness, calibration, gallery } = models;
        let other = self.recognizer.model() != recognizer.model();
        self.recognizer = recognizer;
        self.liveness = liveness;
        self.controller.set_models(calibration, gallery);
        // Views of one person are of one model.
        if other { self.input(now, Input::ModelsChanged) } else { Vec::new() }
    }

    /// Another gallery: evidence gathered with the old one is forgotten. One of
    /// another model's templates lets nobody in.
    pub fn set_gallery(&mut self, gallery: Gallery) {
        self.controller.set_gallery(gallery);
    }

    /// Looks at a frame and decides at once: [`Self::look`], then [`Self::decide`].
    pub fn frame(&mut self, now: Duration, frame: &Frame) -> Result<Vec<Event>, NetworkError> {
        let looked = self.look(now, frame)?;
        Ok(self.decide(now, &looked))
    }

    /// Looks at a frame that was captured at this time, on a clock that does not run
    /// backwards.
    pub fn look(&mut self, captured: Duration, frame: &Frame) -> Result<Looked, NetworkError> {
        let (width, height) = (frame.width(), frame.height());
        let zone = self.zone;
        // A poster of a hundred faces must not hold up the door.
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
                self.recognizer.compare(view)?;
                if view.template.is_some() {
                    self.tracker.embedded(captured, *track, quality);
                }
            }
        }
        let samples = self.samples(captured, frame, &tracks, &views)?;
        Ok(Looked { captured, tracks, views, samples })
    }

    /// Decides on what a frame showed. Whatever else happened meanwhile is to be told
    /// before, at its own time.
    pub fn decide(&mut self, now: Duration, looked: &Looked) -> Vec<Event> {
        let Looked { captured, tracks, views, samples } = looked;
        let faces: heapless::Vec<FaceSeen<'_>, MAX_TRACKS> = tracks
            .iter()
            .zip(views)
            .zip(samples)
            .map(|((track, view), sample)| FaceSeen {
                track: *track,
                weakest: view.quality.weakest(),
                weakest_to_enroll: view.quality.weakest_to_enroll(),
                turn: view.quality.turn,
                sample: *sample,
                template: view.template.as_ref(),
            })
            .collect();
        let mut events = self.tick(now);
        let (now, captured) = (self.last, *captured);
        let began = Instant::now();
        let output = self.controller.step(now, Input::Faces { captured, faces: &faces });
        self.decided_in = began.elapsed();
        if output.take {
            self.hold_on(views);
        }
        self.carry_out(now, output, &mut events);
        events
    }

    /// Anything but frames that happens at the door. What comes late counts from now.
    pub fn input(&mut self, now: Duration, input: Input<'_>) -> Vec<Event> {
        let mut events = Vec::new();
        let now = self.advance(now);
        let output = self.controller.step(now, input);
        self.carry_out(now, output, &mut events);
        events
    }

    /// What a relay with a thread of its own has told.
    pub fn relay_told(&mut self, now: Duration, told: Told) -> Vec<Event> {
        match told {
            Told::Answer { order, taken, error } => {
                let newest = self.order.filter(|last| last.number == order);
                let opens =
                    newest.is_some_and(|last| last.energise != self.controller.door().idle());
                // That an order was given up for a later one is no fault, and that it does
                // not lock either while it is away goes without saying.
                let error = error.filter(|_| newest.is_some() && (opens || !self.away));
                self.said.clone_from(&error);
                let mut events: Vec<Event> = error.map(Event::RelayFailed).into_iter().collect();
                events.extend(self.input(now, Input::Answer { order, taken }));
                events
            }
            Told::Away { error } => {
                self.away = true;
                let mut events = self.input(now, Input::RelayAway);
                // The order that found it out has said so.
                if self.said.as_ref() != Some(&error) {
                    events.push(Event::RelayFailed(error));
                }
                events
            }
            Told::Back { .. } => {
                self.away = false;
                self.said = None;
                self.input(now, Input::RelayBack)
            }
            Told::Drifted { on } => {
                let (was, should) = if on { ("off", "on") } else { ("on", "off") };
                vec![Event::RelayFailed(format!(
                    "was {was} but should be {should}; set again; does something else switch it?"
                ))]
            }
            Told::Abandoned => {
                let reason = "switched off: the service gave no sign of life for too long";
                let mut events = vec![Event::RelayFailed(reason.to_owned())];
                events.extend(self.input(now, Input::RelayBack));
                events
            }
            Told::Expired => {
                let reason = "locked at its maximum on-time: the service did not order it in time";
                let mut events = vec![Event::RelayFailed(reason.to_owned())];
                events.extend(self.input(now, Input::RelayBack));
                events
            }
        }
    }

    fn advance(&mut self, now: Duration) -> Duration {
        self.last = self.last.max(now);
        self.last
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Duration) -> Vec<Event> {
        if let Hand::Link(link) = &self.hand {
            link.alive();
        }
        match self.clock {
            Some(source) if self.clock_read.is_none_or(|at| now >= at + CLOCK_EVERY) => {
                self.clock_read = Some(now);
                match wall_clock::read(source == ClockSource::Trusted) {
                    Some(reading) => self.input(now, Input::Clock(reading)),
                    None => self.input(now, Input::Tick),
                }
            }
            _ => self.input(now, Input::Tick),
        }
    }

    /// Switches the relay off for good.
    pub fn stop(&mut self, now: Duration) -> Vec<Event> {
        self.input(now, Input::Stop)
    }

    /// Whether the lock is known to be closed.
    pub fn locked(&self) -> bool {
        matches!(self.controller.door().state(), State::Locked { .. })
    }

    /// Whether the relay is known to be off for good.
    pub fn stopped(&self) -> bool {
        self.controller.door().state() == State::Stopped
    }

    /// Somebody to be written into the gallery. How that went is to be told as
    /// [`Input::Kept`].
    pub fn newcomer(&mut self) -> Option<NewPerson> {
        self.newcomer.take()
    }

    /// The next signal to be shown and sounded.
    pub fn signal(&mut self) -> Option<Signal> {
        if self.signals.is_empty() { None } else { Some(self.signals.remove(0)) }
    }

    /// What says whether the faces are there in person. The networks look at those alone
    /// that the door may open for: a poster of strangers must not hold it up.
    fn samples(
        &mut self,
        captured: Duration,
        frame: &Frame,
        tracks: &[TrackId],
        views: &[View],
    ) -> Result<heapless::Vec<Option<Sample>, MAX_TRACKS>, NetworkError> {
        let began = Instant::now();
        let mut samples = heapless::Vec::new();
        for (track, view) in tracks.iter().zip(views) {
            let mut sample = self.measures_life.then(|| Sample::measure(frame, view));
            if let (Some(sample), Some(nets), Some(template)) =
                (&mut sample, &mut self.liveness, &view.template)
                && self.controller.asks_network(captured, *track, template)
            {
                sample.network = Some(nets.judge(frame, &view.face.rect)?);
            }
            // No more views than tracks are asked for.
            let _ = samples.push(sample);
        }
        self.judged_in = began.elapsed();
        Ok(samples)
    }

    fn hold_on(&mut self, views: &[View]) {
        let [View { crop, template: Some(template), .. }] = views else { return };
        let crop = self.keep_crops.then(|| crop.clone());
        // No more are taken than are wanted.
        let _ = self.views.push(NewTemplate { template: template.clone(), crop });
    }

    /// Until when an order counts: one that opens only as long as the door is wanted open.
    fn wanted_until(&self, order: Order) -> Option<Duration> {
        let door = self.controller.door();
        let stops = matches!(door.state(), State::Stopping { .. } | State::Stopped);
        if stops || order.energise == door.idle() { None } else { door.open_until() }
    }

    /// Whoever wants a lock open that is open already gives no order, but more time.
    fn renew(&mut self, now: Duration) {
        let (Hand::Link(link), Some(order), State::Open) =
            (&self.hand, self.order, self.controller.door().state())
        else {
            return;
        };
        let until = self.wanted_until(order);
        // One that is busy is told with the next tick.
        if until != self.until && link.order(order.number, order.energise, late(now, until)).is_ok()
        {
            self.until = until;
        }
    }

    /// Carries out what the controller says and tells it how that went, until it has
    /// nothing more to say. A failure is tried again only after some time, so this
    /// ends.
    fn carry_out(&mut self, now: Duration, mut output: Output, events: &mut Vec<Event>) {
        loop {
            for signal in output.signals {
                // Whoever shows them is late: the newest count, and alarms with their ends.
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
                    administrator: by.is_none(),
                    look_alike: look_alike.map(|(like, stricter)| (like.person, stricter)),
                });
                self.views.clear();
            }
            if output.discard {
                self.views.clear();
            }
            events.extend(output.events);
            let Some(order) = output.relay else { return self.renew(now) };
            self.order = Some(order);
            let until = self.wanted_until(order);
            let error = match &mut self.hand {
                Hand::Direct(relay) => relay.switch(order.energise).err().map(|e| e.to_string()),
                Hand::Link(link) => {
                    match link.order(order.number, order.energise, late(now, until)) {
                        Ok(()) => {
                            self.until = until;
                            return;
                        }
                        Err(reason) => Some(reason.to_string()),
                    }
                }
            };
            let taken = error.is_none();
            events.extend(error.map(Event::RelayFailed));
            output = self.controller.step(now, Input::Answer { order: order.number, taken });
        }
    }
}

/// For how long after `now` the relay may be so.
fn late(now: Duration, until: Option<Duration>) -> Option<Duration> {
    until.map(|until| until.saturating_sub(now) + LATE)
}

/// A number that nobody can foresee: the standard library's hashers are seeded by the
/// system.
fn unforeseen() -> u64 {
    RandomState::new().hash_one(0)
}
