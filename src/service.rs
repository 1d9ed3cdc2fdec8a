//! The door's service: takes frames through the stages, lets the state machines
//! decide, and carries out what they say.
//!
//! [`Doorkeeper`] does that for one frame at a time at a time it is told;
//! [`run`] feeds it from a camera until the camera ends or it is stopped.

use crate::camera::{Camera, CameraError, Captured};
use crate::config::Config;
use crate::decide::{Decider, Decision, Evidence, Observation, Seen, Zone};
use crate::door::{self, Door};
use crate::frame::Frame;
use crate::gallery::Gallery;
use crate::nn::NetworkError;
use crate::quality::Aspect;
use crate::recognize::{Recognizer, View};
use crate::relay::Relay;
use crate::threshold::{Threshold, ThresholdTable};
use crate::track::{MAX_TRACKS, TrackId, Tracker};
use std::cell::Cell;
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
/// How long the same advice is not repeated.
const ADVICE_EVERY: Duration = Duration::from_secs(3);

/// Something worth telling.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Somebody may come in.
    Granted {
        /// Who.
        name: String,
        /// Why.
        evidence: Evidence,
        /// What their similarity had to reach.
        threshold: Threshold,
    },
    /// Nobody the gallery knows.
    Stranger {
        /// Their track.
        track: TrackId,
        /// Highest similarity to anybody; -1 where nobody is enrolled.
        similarity: f32,
        /// Frames that said so.
        frames: usize,
        /// What it would have had to reach.
        threshold: Threshold,
    },
    /// More than one face in the zone.
    TwoFaces {
        /// How many.
        faces: usize,
    },
    /// A face that cannot be compared, and why.
    Poor(Aspect),
    /// The relay has opened the lock.
    Unlocked,
    /// The relay has closed the lock.
    Locked,
    /// The relay did not do as told.
    RelayFailed(String),
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how =
            |threshold: &Threshold| if threshold.extrapolated { " (extrapolated)" } else { "" };
        match self {
            Self::Granted { name, evidence, threshold } => write!(
                f,
                "granted: {name}, similarity {:.3} >= {:.3}{}, in {} of {} frames, track {}",
                evidence.similarity,
                threshold.similarity,
                how(threshold),
                evidence.frames,
                evidence.of,
                evidence.track.0,
            ),
            Self::Stranger { track, similarity, frames, .. } if *similarity <= -1.0 => {
                write!(f, "refused: nobody is enrolled, in {frames} frames, track {}", track.0)
            }
            Self::Stranger { track, similarity, frames, threshold } => write!(
                f,
                "refused: nobody known, similarity {similarity:.3} < {:.3}{}, in {frames} frames, track {}",
                threshold.similarity,
                how(threshold),
                track.0,
            ),
            Self::TwoFaces { faces } => write!(f, "refused: {faces} faces; one at a time"),
            Self::Poor(aspect) => write!(f, "cannot tell: {}", aspect.advice()),
            Self::Unlocked => write!(f, "door unlocked"),
            Self::Locked => write!(f, "door locked"),
            Self::RelayFailed(message) => write!(f, "relay failed: {message}"),
        }
    }
}

/// What may change while the door is watched.
pub enum Change {
    /// Somebody was enrolled, renamed or removed.
    Gallery(Gallery),
    /// Another set of models was installed.
    Models(Box<OtherModels>),
}

/// A set of models with all that depends on it.
pub struct OtherModels {
    /// Its networks.
    pub recognizer: Recognizer,
    /// Its thresholds.
    pub thresholds: ThresholdTable,
    /// Everybody, by its templates.
    pub gallery: Gallery,
}

/// Everything between a frame and the relay.
pub struct Doorkeeper {
    recognizer: Recognizer,
    thresholds: ThresholdTable,
    false_accept_rate: f64,
    zone: Zone,
    gallery: Gallery,
    threshold: Threshold,
    tracker: Tracker,
    decider: Decider,
    door: Door,
    relay: Relay,
    advised: Option<(Aspect, Duration)>,
}

impl Doorkeeper {
    /// Begins by locking the door; the events tell whether the relay answered.
    pub fn new(
        recognizer: Recognizer,
        thresholds: ThresholdTable,
        config: &Config,
        gallery: Gallery,
        relay: Relay,
        now: Duration,
    ) -> (Self, Vec<Event>) {
        let (door, action) = Door::new(now, config.door.open_for);
        let mut keeper = Self {
            recognizer,
            false_accept_rate: config.recognition.false_accept_rate,
            zone: config.zone(),
            threshold: thresholds
                .for_attempt(config.recognition.false_accept_rate, gallery.templates()),
            thresholds,
            gallery,
            tracker: Tracker::default(),
            decider: Decider::new(config.decide()),
            door,
            relay,
            advised: None,
        };
        let mut events = Vec::new();
        keeper.carry_out(now, Some(action), &mut events);
        (keeper, events)
    }

    /// The similarity asked for now.
    pub fn threshold(&self) -> Threshold {
        self.threshold
    }

    /// The recognizer, for enrolling between frames.
    pub fn recognizer(&mut self) -> &mut Recognizer {
        &mut self.recognizer
    }

    /// What changed since the last frame: evidence gathered before is forgotten.
    pub fn change(&mut self, change: Change) {
        match change {
            Change::Gallery(gallery) => self.set_gallery(gallery),
            Change::Models(models) => {
                self.recognizer = models.recognizer;
                self.thresholds = models.thresholds;
                self.set_gallery(models.gallery);
            }
        }
    }

    /// Another gallery: evidence gathered with the old one is forgotten. One of
    /// another model's templates lets nobody in.
    pub fn set_gallery(&mut self, gallery: Gallery) {
        self.threshold = self.thresholds.for_attempt(self.false_accept_rate, gallery.templates());
        self.gallery = gallery;
        self.decider.clear();
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
        let observations: Vec<Observation> = tracks
            .iter()
            .zip(&views)
            .map(|(track, view)| Observation { track: *track, seen: self.seen(view), look: None })
            .collect();
        let mut events = self.tick(now);
        let decisions = self.decider.step(now, &observations);
        for decision in &decisions {
            self.decided(now, decision, &mut events);
        }
        if decisions.is_empty() {
            events.extend(self.advice(now, &views));
        }
        Ok(events)
    }

    fn seen(&self, view: &View) -> Seen {
        let Some(template) = &view.template else { return Seen::Poor };
        match self.gallery.best(template) {
            Some(best) if best.similarity >= self.threshold.similarity => {
                Seen::Person(best.id, best.similarity)
            }
            best => Seen::Nobody(best.map_or(-1.0, |best| best.similarity)),
        }
    }

    fn decided(&mut self, now: Duration, decision: &Decision, events: &mut Vec<Event>) {
        let threshold = self.threshold;
        match *decision {
            Decision::Grant(evidence) => {
                let name = self.gallery.name(evidence.person).unwrap_or_default().to_owned();
                events.push(Event::Granted { name, evidence, threshold });
                let action = self.door.step(now, door::Event::Grant);
                self.carry_out(now, action, events);
                if !matches!(self.door.state(), door::State::Unlocked { .. }) {
                    self.decider.not_opened(evidence.track);
                }
            }
            Decision::Stranger { track, similarity, frames } => {
                events.push(Event::Stranger { track, similarity, frames, threshold });
            }
            Decision::TwoFaces { faces } => events.push(Event::TwoFaces { faces }),
        }
    }

    /// What to tell somebody who stands alone and cannot be compared.
    fn advice(&mut self, now: Duration, views: &[View]) -> Option<Event> {
        let [View { template: None, quality, .. }] = views else { return None };
        let (aspect, _) = quality.weakest();
        let told = |(last, at): (Aspect, Duration)| last == aspect && now < at + ADVICE_EVERY;
        if self.advised.is_some_and(told) {
            return None;
        }
        self.advised = Some((aspect, now));
        Some(Event::Poor(aspect))
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Duration) -> Vec<Event> {
        let mut events = Vec::new();
        let action = self.door.step(now, door::Event::Tick);
        self.carry_out(now, action, &mut events);
        events
    }

    /// Locks the door for good.
    pub fn stop(&mut self, now: Duration) -> Vec<Event> {
        let mut events = Vec::new();
        let action = self.door.step(now, door::Event::Stop);
        self.carry_out(now, action, &mut events);
        events
    }

    /// Whether the lock is known to be closed.
    pub fn locked(&self) -> bool {
        self.door.state() == door::State::Locked
    }

    /// Carries out what the door says and tells it how that went, until it has
    /// nothing more to say. A failure is tried again only after some time, so
    /// this ends.
    fn carry_out(
        &mut self,
        now: Duration,
        mut action: Option<door::Action>,
        events: &mut Vec<Event>,
    ) {
        while let Some(todo) = action {
            let on = todo == door::Action::Energise;
            let answer = match self.relay.switch(on) {
                Ok(()) if on => door::Event::Energised,
                Ok(()) => door::Event::Released,
                Err(error) => {
                    events.push(Event::RelayFailed(error.to_string()));
                    door::Event::Failed
                }
            };
            action = self.door.step(now, answer);
            match answer {
                door::Event::Energised => events.push(Event::Unlocked),
                door::Event::Released => events.push(Event::Locked),
                _ => {}
            }
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
/// `told` gets every event with its time; `between` is called between frames,
/// and may give what has changed.
pub fn run(
    keeper: &mut Doorkeeper,
    camera: Camera,
    max_frames: usize,
    stop: &AtomicBool,
    told: impl FnMut(Duration, &Event),
    between: impl FnMut() -> Option<Change>,
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

impl<T: FnMut(Duration, &Event), B: FnMut() -> Option<Change>> Watch<'_, T, B> {
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
        if let Some(change) = (self.between)() {
            self.keeper.change(change);
        }
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
            if self.keeper.locked() {
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

/// Runs work that the door must be locked after, panic or not.
fn guarded<T>(
    work: impl FnOnce() -> Result<T, RunError>,
) -> std::thread::Result<Result<T, RunError>> {
    catch_unwind(AssertUnwindSafe(work))
}

fn locked(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
