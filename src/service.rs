//! The door's service: takes frames through the stages, lets the state machines
//! decide, and carries out what they say.
//!
//! [`Doorkeeper`] does that for one frame at a time at a time it is told;
//! [`run`] feeds it from a camera until the camera ends or it is stopped.

use crate::camera::{Camera, CameraError, Captured};
use crate::clock;
use crate::config::{ClockSource, Config};
use crate::controller::{Controller, FaceSeen, Input, Output};
use crate::decide::Zone;
use crate::door::State;
use crate::enroll::MAX_VIEWS;
use crate::enroll::button::Newcomer;
use crate::event::Counts;
use crate::frame::Frame;
use crate::gallery::store::NewTemplate;
use crate::gallery::{Gallery, PersonId};
use crate::liveness::Sample;
use crate::liveness::guard::Mode;
use crate::liveness::network::LivenessNets;
use crate::nn::NetworkError;
use crate::recognize::{Recognizer, View};
use crate::relay::Relay;
use crate::signals::Signal;
use crate::threshold::{Threshold, ThresholdTable};
use crate::track::{MAX_TRACKS, Tracker};
use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use thiserror::Error;

/// The door's clock ticks at least so often, frames or not.
const TICK: Duration = Duration::from_millis(50);
/// Tries to release the relay at the end, and the time between two.
const LAST_TRIES: usize = 10;
const BETWEEN_TRIES: Duration = Duration::from_millis(200);
/// Frames in a row that the networks may fail on before the service gives up.
const MOST_FAILURES: usize = 10;
/// How often the wall clock is read where a schedule needs it.
const CLOCK_EVERY: Duration = Duration::from_secs(1);
/// Signals that wait to be shown.
const MAX_SIGNALS: usize = 8;

pub use crate::event::Event;

/// What may change while the door is watched.
pub enum Change {
    /// Somebody was enrolled, renamed or removed.
    Gallery(Gallery),
    /// Another set of models was installed.
    Models(Box<ModelSet>),
}

/// A set of models with all that depends on it.
pub struct ModelSet {
    /// Its networks.
    pub recognizer: Recognizer,
    /// Those that tell live faces, where there are any and liveness is asked for.
    pub liveness: Option<LivenessNets>,
    /// Its thresholds.
    pub thresholds: ThresholdTable,
    /// Everybody, by its templates.
    pub gallery: Gallery,
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
    relay: Relay,
    keep_crops: bool,
    clock: Option<ClockSource>,
    clock_read: Option<Duration>,
    /// Views of somebody who is being enrolled.
    views: heapless::Vec<NewTemplate, MAX_VIEWS>,
    newcomer: Option<NewPerson>,
    signals: heapless::Deque<Signal, MAX_SIGNALS>,
}

/// Somebody enrolled at the door, to be written into the gallery in one transaction.
#[derive(Clone, Debug)]
pub struct NewPerson {
    /// All their views.
    pub templates: Vec<NewTemplate>,
    /// Whether they are the first, who may let others in.
    pub administrator: bool,
    /// Whom they look like, and by how much both thresholds rise.
    pub look_alike: Option<(PersonId, f32)>,
}

impl Doorkeeper {
    /// Begins by locking the door; the events tell whether the relay answered.
    pub fn new(
        models: ModelSet,
        config: &Config,
        relay: Relay,
        now: Duration,
    ) -> (Self, Vec<Event>) {
        let ModelSet { recognizer, liveness, thresholds, gallery } = models;
        let (controller, output) = Controller::new(thresholds, config, gallery, unforeseen(), now);
        let clock = controller.needs_clock().then_some(config.schedule.clock);
        let mut keeper = Self {
            recognizer,
            measures_life: config.liveness.mode != Mode::Off,
            liveness,
            zone: config.zone(),
            tracker: Tracker::default(),
            controller,
            relay,
            keep_crops: config.gallery.keep_crops,
            clock,
            clock_read: None,
            views: heapless::Vec::new(),
            newcomer: None,
            signals: heapless::Deque::new(),
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

    /// How often each kind of event was told.
    pub fn counts(&self) -> &Counts {
        self.controller.counts()
    }

    /// Another gallery or other models: evidence gathered before is forgotten.
    pub fn change(&mut self, change: Change) {
        match change {
            Change::Gallery(gallery) => self.set_gallery(gallery),
            Change::Models(models) => {
                let ModelSet { recognizer, liveness, thresholds, gallery } = *models;
                self.recognizer = recognizer;
                self.liveness = liveness;
                // Views of one person are of one model.
                self.views.clear();
                self.controller.set_models(thresholds, gallery);
            }
        }
    }

    /// Another gallery: evidence gathered with the old one is forgotten. One of
    /// another model's templates lets nobody in.
    pub fn set_gallery(&mut self, gallery: Gallery) {
        self.controller.set_gallery(gallery);
    }

    /// Takes a frame of the time `now`, on a clock that does not run backwards.
    pub fn frame(&mut self, now: Duration, frame: &Frame) -> Result<Vec<Event>, NetworkError> {
        let (width, height) = (frame.width(), frame.height());
        let zone = self.zone;
        // A poster of a hundred faces must not hold up the door.
        let count = Cell::new(0);
        let views = self.recognizer.follow(frame, |face| {
            let wanted = zone.contains(&face.rect, width, height) && count.get() < MAX_TRACKS;
            count.set(count.get() + usize::from(wanted));
            wanted
        })?;
        let faces: Vec<_> = views.iter().map(|view| view.face).collect();
        let tracks = self.tracker.step(now, &faces);
        let samples = self.samples(frame, &views)?;
        let faces: heapless::Vec<FaceSeen<'_>, MAX_TRACKS> = tracks
            .iter()
            .zip(&views)
            .zip(samples)
            .map(|((track, view), sample)| FaceSeen {
                track: *track,
                weakest: view.quality.weakest(),
                weakest_to_enroll: view.quality.weakest_to_enroll(),
                turn: view.quality.turn,
                sample,
                template: view.template.as_ref(),
            })
            .collect();
        let mut events = self.tick(now);
        let output = self.controller.step(now, Input::Faces { captured: now, faces: &faces });
        if output.take {
            self.hold_on(&views);
        }
        self.carry_out(now, output, &mut events);
        Ok(events)
    }

    /// Anything but frames that happens at the door.
    pub fn input(&mut self, now: Duration, input: Input<'_>) -> Vec<Event> {
        let mut events = Vec::new();
        let output = self.controller.step(now, input);
        self.carry_out(now, output, &mut events);
        events
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Duration) -> Vec<Event> {
        match self.clock {
            Some(source) if self.clock_read.is_none_or(|at| now >= at + CLOCK_EVERY) => {
                self.clock_read = Some(now);
                match clock::read(source == ClockSource::Trusted) {
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
        self.signals.pop_front()
    }

    /// What says whether the faces are there in person.
    fn samples(
        &mut self,
        frame: &Frame,
        views: &[View],
    ) -> Result<heapless::Vec<Option<Sample>, MAX_TRACKS>, NetworkError> {
        let mut samples = heapless::Vec::new();
        for view in views {
            let mut sample = self.measures_life.then(|| Sample::measure(frame, view));
            if let (Some(sample), Some(nets)) = (&mut sample, &mut self.liveness) {
                sample.network = Some(nets.judge(frame, &view.face.rect)?);
            }
            // No more views than tracks are asked for.
            let _ = samples.push(sample);
        }
        Ok(samples)
    }

    fn hold_on(&mut self, views: &[View]) {
        let [View { crop, template: Some(template), .. }] = views else { return };
        let crop = self.keep_crops.then(|| crop.clone());
        // No more are taken than are wanted.
        let _ = self.views.push(NewTemplate { template: template.clone(), crop });
    }

    /// Carries out what the controller says and tells it how that went, until it has
    /// nothing more to say. A failure is tried again only after some time, so this
    /// ends.
    fn carry_out(&mut self, now: Duration, mut output: Output, events: &mut Vec<Event>) {
        loop {
            for signal in output.signals {
                // Whoever shows them is late: the newest count.
                if self.signals.is_full() {
                    self.signals.pop_front();
                }
                let _ = self.signals.push_back(signal);
            }
            if let Some(Newcomer { by, look_alike }) = output.keep {
                self.newcomer = Some(NewPerson {
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
            let Some(order) = output.relay else { return };
            let taken = match self.relay.switch(order.energise) {
                Ok(()) => true,
                Err(error) => {
                    events.push(Event::RelayFailed(error.to_string()));
                    false
                }
            };
            output = self.controller.step(now, Input::Answer { order: order.number, taken });
        }
    }
}

/// Why the service ended other than by its end of input.
#[derive(Debug, Error)]
pub enum RunError {
    /// A network failed.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The relay could not be released at the end.
    #[error("the relay could not be released: {0}; cut its power if the door stands open")]
    Relay(String),
}

/// What a run saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Frames looked at.
    pub frames: usize,
    /// Frames that could not be read.
    pub bad_frames: usize,
    /// Times somebody was let in.
    pub granted: usize,
}

/// Feeds the doorkeeper until the camera ends, `max_frames` are looked at or
/// `stop` is set; then locks the door before anything else.
///
/// `told` gets every event with its time; `between` is called between frames with the
/// doorkeeper and the time, to bring what has changed or what else has happened, and
/// gives the events that follow.
pub fn run(
    keeper: &mut Doorkeeper,
    camera: Camera,
    max_frames: usize,
    stop: &AtomicBool,
    told: impl FnMut(Duration, &Event),
    between: impl FnMut(&mut Doorkeeper, Duration) -> Vec<Event>,
) -> Result<Summary, RunError> {
    let (now, summary) = (Duration::ZERO, Summary::default());
    let mut watch = Watch { keeper, max_frames, stop, told, between, now, summary, failures: 0 };
    if camera.recorded() {
        watch.recorded(camera)?
    } else {
        watch.live(camera)?
    }
    Ok(watch.summary)
}

/// The newest frame or error from the camera's thread with its time, and whether
/// it has ended.
#[derive(Default)]
struct Slot {
    newest: Option<(Duration, Result<Captured, CameraError>)>,
    ended: bool,
}

/// Says that the camera's thread has ended, even by a panic.
struct Ended<'a> {
    slot: &'a Mutex<Slot>,
    filled: &'a Condvar,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        locked(self.slot).ended = true;
        self.filled.notify_one();
    }
}

/// One run.
struct Watch<'a, T, B> {
    keeper: &'a mut Doorkeeper,
    max_frames: usize,
    stop: &'a AtomicBool,
    told: T,
    between: B,
    now: Duration,
    summary: Summary,
    failures: usize,
}

impl<T: FnMut(Duration, &Event), B: FnMut(&mut Doorkeeper, Duration) -> Vec<Event>>
    Watch<'_, T, B>
{
    /// Every frame in turn, at its own time.
    fn recorded(&mut self, mut camera: Camera) -> Result<(), RunError> {
        let watched = guarded(|| {
            while self.goes_on() {
                let Some(next) = camera.next() else { break };
                let at = next.as_ref().map_or(self.now, |captured| captured.at);
                self.step(at, Some(next))?;
            }
            Ok(())
        });
        self.finish(watched, || {})
    }

    /// The newest frame whenever there is time for one, at the time it came.
    fn live(&mut self, camera: Camera) -> Result<(), RunError> {
        let (slot, filled) = (Mutex::new(Slot::default()), Condvar::new());
        let interrupter = camera.interrupter();
        let started = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _ended = Ended { slot: &slot, filled: &filled };
                for next in camera {
                    locked(&slot).newest = Some((started.elapsed(), next));
                    filled.notify_one();
                }
            });
            let watched = guarded(|| {
                while self.goes_on() {
                    let (mut guard, _) = filled
                        .wait_timeout_while(locked(&slot), TICK, |slot| {
                            slot.newest.is_none() && !slot.ended
                        })
                        .unwrap_or_else(PoisonError::into_inner);
                    let (newest, ended) = (guard.newest.take(), guard.ended);
                    drop(guard);
                    match newest {
                        Some((at, next)) => self.step(at, Some(next))?,
                        None if ended => break,
                        None => self.step(started.elapsed(), None)?,
                    }
                }
                Ok(())
            });
            self.finish(watched, || {
                if !locked(&slot).ended {
                    interrupter.interrupt();
                }
            })
        })
    }

    /// Locks the door whatever came before, even a panic, and only then lets go
    /// of the camera, whose thread may take its time.
    fn finish(
        &mut self,
        watched: std::thread::Result<Result<(), RunError>>,
        let_go: impl FnOnce(),
    ) -> Result<(), RunError> {
        let closed = guarded(|| self.close());
        let_go();
        match (watched, closed) {
            (Err(panic), _) | (_, Err(panic)) => resume_unwind(panic),
            (Ok(watched), Ok(closed)) => watched.and(closed),
        }
    }

    fn goes_on(&self) -> bool {
        self.summary.frames < self.max_frames && !self.stop.load(Ordering::Relaxed)
    }

    fn step(
        &mut self,
        at: Duration,
        next: Option<Result<Captured, CameraError>>,
    ) -> Result<(), RunError> {
        // A frame may have come a moment before the last tick.
        self.now = self.now.max(at);
        let events = (self.between)(self.keeper, self.now);
        self.tell(&events);
        let events = match next {
            Some(Ok(captured)) => {
                self.summary.frames += 1;
                match self.keeper.frame(self.now, &captured.frame) {
                    Ok(events) => {
                        self.failures = 0;
                        events
                    }
                    Err(error) => {
                        self.summary.bad_frames += 1;
                        self.failures += 1;
                        if self.failures >= MOST_FAILURES {
                            return Err(error.into());
                        }
                        log::error!("{error}");
                        self.keeper.tick(self.now)
                    }
                }
            }
            Some(Err(error)) => {
                self.summary.bad_frames += 1;
                log::error!("{error}");
                self.keeper.tick(self.now)
            }
            None => self.keeper.tick(self.now),
        };
        self.tell(&events);
        Ok(())
    }

    fn tell(&mut self, events: &[Event]) {
        for event in events {
            self.summary.granted += usize::from(matches!(event, Event::Granted { .. }));
            (self.told)(self.now, event);
        }
    }

    /// Locks the door; tries for a while where the relay does not answer.
    fn close(&mut self) -> Result<(), RunError> {
        let mut last = "it does not answer".to_owned();
        for tried in 0..=LAST_TRIES {
            let events = if tried == 0 {
                self.keeper.stop(self.now)
            } else {
                std::thread::sleep(BETWEEN_TRIES);
                self.now += BETWEEN_TRIES;
                self.keeper.tick(self.now)
            };
            self.tell(&events);
            if self.keeper.stopped() {
                return Ok(());
            }
            for event in events {
                if let Event::RelayFailed(message) = event {
                    last = message;
                }
            }
        }
        Err(RunError::Relay(last))
    }
}

/// A number that nobody can foresee: the standard library's hashers are seeded by the
/// system.
fn unforeseen() -> u64 {
    RandomState::new().hash_one(0)
}

/// Runs work that the door must be locked after, panic or not.
fn guarded<T>(
    work: impl FnOnce() -> Result<T, RunError>,
) -> std::thread::Result<Result<T, RunError>> {
    catch_unwind(AssertUnwindSafe(work))
}

fn locked(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
