//! The door's service: feeds the doorkeeper from a camera until the camera ends or it is
//! stopped, and locks the door then.

use crate::access::event::{Counts, Event};
use crate::hardware::camera::live::{LiveCamera, Taken};
use crate::hardware::camera::{Captured, Kind};
use crate::nn::NetworkError;
use crate::service::pipeline::Doorkeeper;
use crate::vision::motion_gate::{Look, MotionGate};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use thiserror::Error;

/// The door's clock ticks at least so often, frames or not.
const TICK: Duration = Duration::from_millis(50);
/// Tries to release the relay at the end, and the time between two.
const LAST_TRIES: usize = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(100);
/// Frames in a row that the networks may fail on before the service gives up.
const MOST_FAILURES: usize = 10;

/// Why the service ended other than by its end of input.
#[derive(Debug, Error)]
pub enum RunError {
    /// A network failed.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The camera ended, and not because a recording was over.
    #[error("camera: {0}")]
    Camera(String),
    /// The relay could not be released at the end.
    #[error("the relay could not be released: {0}; cut its power if the door stands open")]
    Relay(String),
}

/// What a run saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Frames that came.
    pub frames: usize,
    /// Of these, those that were looked at: the others showed that nothing moved.
    pub looked: usize,
    /// Frames that could not be read, or that the networks failed on.
    pub bad_frames: usize,
    /// Times somebody was let in.
    pub granted: usize,
}

/// How a run begins and ends.
pub struct Plan<'a> {
    /// Where the service's clock begins.
    pub started: Instant,
    /// Frames after which it ends.
    pub max_frames: usize,
    /// Ends it once it is set.
    pub stop: &'a AtomicBool,
    /// Whether a frame of a live camera that is the last one once more, to the last bit,
    /// shows nothing, and one that gives no others hangs.
    pub distinct: bool,
    /// Passes over frames in which nothing moves; not those of a recording.
    pub gate: Option<MotionGate>,
}

/// The time between two frames.
pub struct Moment<'a> {
    /// On the service's clock.
    pub now: Duration,
    /// Where frames come from.
    pub camera: &'a LiveCamera,
    /// What was seen so far.
    pub summary: &'a Summary,
    /// How often each kind of event was told.
    pub counts: &'a Counts,
    /// What the last frame took, if it was looked at.
    pub took: Option<Duration>,
    /// A frame was looked at and is not decided on yet: neither people nor models may
    /// change now.
    pub in_frame: bool,
}

/// Feeds the doorkeeper until the camera ends, as many frames came as planned, or it is
/// stopped; then locks the door before anything else.
///
/// `told` gets every event with its time; `between` is called between frames, at least
/// twenty times a second, to bring what has changed or what else has happened, and gives
/// the events that follow. At the end it is called until the relay has answered.
pub fn run(
    keeper: &mut Doorkeeper,
    camera: LiveCamera,
    plan: Plan<'_>,
    told: impl FnMut(Duration, &Event),
    between: impl FnMut(&mut Doorkeeper, &Moment<'_>) -> Vec<Event>,
) -> Result<Summary, RunError> {
    let recorded = camera.kind() == Kind::Recorded;
    camera.expect_distinct(plan.distinct);
    let mut watch = Watch {
        keeper,
        camera,
        plan,
        told,
        between,
        recorded,
        now: Duration::ZERO,
        captured: Duration::ZERO,
        took: None,
        away: false,
        summary: Summary::default(),
        counts: Counts::default(),
        failures: 0,
    };
    let watched = guarded(|| watch.watch());
    // Whatever came before, even a panic; and only then is the camera let go, which may
    // take its time.
    let closed = guarded(|| watch.close());
    let bad = watch.camera.health().bad_frames;
    watch.camera.stop();
    watch.summary.bad_frames += usize::try_from(bad).unwrap_or(usize::MAX);
    match (watched, closed) {
        (Err(panic), _) | (_, Err(panic)) => resume_unwind(panic),
        (Ok(watched), Ok(closed)) => watched.and(closed).map(|()| watch.summary),
    }
}

/// One run.
struct Watch<'a, T, B> {
    keeper: &'a mut Doorkeeper,
    camera: LiveCamera,
    plan: Plan<'a>,
    told: T,
    between: B,
    /// Time is that of the frames.
    recorded: bool,
    now: Duration,
    /// When the last frame was.
    captured: Duration,
    took: Option<Duration>,
    /// The camera is away, and that is told.
    away: bool,
    summary: Summary,
    counts: Counts,
    failures: usize,
}

impl<T, B> Watch<'_, T, B>
where
    T: FnMut(Duration, &Event),
    B: FnMut(&mut Doorkeeper, &Moment<'_>) -> Vec<Event>,
{
    fn watch(&mut self) -> Result<(), RunError> {
        while self.summary.frames < self.plan.max_frames && !self.plan.stop.load(Ordering::Relaxed)
        {
            match self.camera.next(TICK) {
                Taken::Frame(captured) => self.frame(&captured)?,
                Taken::Away { reason, .. } => {
                    self.tell_away(&reason);
                    self.pass();
                }
                Taken::Same => {
                    self.summary.frames += 1;
                    self.pass();
                }
                Taken::Nothing => self.pass(),
                Taken::Ended(fault) => return ended(self.recorded, fault.as_deref()),
            }
        }
        Ok(())
    }

    /// A moment without a frame.
    fn pass(&mut self) {
        // A recording has no time between its frames.
        if !self.recorded {
            self.visit(self.plan.started.elapsed());
            let events = self.keeper.tick(self.now);
            self.tell(&events);
        }
    }

    fn tell_away(&mut self, reason: &str) {
        if !self.away {
            self.away = true;
            self.tell(&[Event::CameraAway { reason: reason.to_owned() }]);
        }
    }

    fn frame(&mut self, captured: &Captured) -> Result<(), RunError> {
        self.summary.frames += 1;
        if self.away {
            self.away = false;
            self.tell(&[Event::CameraBack]);
        }
        // The clock of a camera may stand still, but not run backwards.
        self.captured = self.captured.max(captured.at);
        let at = self.captured;
        self.visit(if self.recorded { at } else { self.plan.started.elapsed() });
        let gate = self.plan.gate.as_mut().filter(|_| !self.recorded);
        if gate
            .is_some_and(|gate| gate.step(at, &captured.frame, self.keeper.followed()) == Look::No)
        {
            let events = self.keeper.tick(self.now);
            self.tell(&events);
            return Ok(());
        }
        self.summary.looked += 1;
        let began = Instant::now();
        let looked = self.keeper.look(at, &captured.frame);
        // Recorded frames are looked at in no time.
        if !self.recorded {
            // What happened meanwhile, each at its own time, before time passes.
            self.visit_in(self.plan.started.elapsed(), true);
        }
        let events = match looked {
            Ok(looked) => {
                self.failures = 0;
                let events = self.keeper.decide(self.now, &looked);
                self.took = Some(began.elapsed());
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
        };
        self.tell(&events);
        Ok(())
    }

    /// Lets the rest of the door have its moment.
    fn visit(&mut self, now: Duration) {
        self.visit_in(now, false);
    }

    fn visit_in(&mut self, now: Duration, frame: bool) {
        self.now = self.now.max(now);
        let events = self.between(frame);
        self.tell(&events);
    }

    fn between(&mut self, in_frame: bool) -> Vec<Event> {
        let moment = Moment {
            now: self.now,
            camera: &self.camera,
            summary: &self.summary,
            counts: &self.counts,
            took: self.took.take(),
            in_frame,
        };
        (self.between)(self.keeper, &moment)
    }

    fn tell(&mut self, events: &[Event]) {
        for event in events {
            self.counts.add(event);
            self.summary.granted += usize::from(matches!(event, Event::Granted { .. }));
            (self.told)(self.now, event);
        }
    }

    /// Locks the door; tries for a while where the relay does not answer.
    fn close(&mut self) -> Result<(), RunError> {
        let mut last = "it does not answer".to_owned();
        let mut events = self.keeper.stop(self.now);
        for _ in 0..=LAST_TRIES {
            self.tell(&events);
            for event in events.drain(..) {
                if let Event::RelayFailed(message) = event {
                    last = message;
                }
            }
            if self.keeper.stopped() {
                return Ok(());
            }
            std::thread::sleep(BETWEEN_TRIES);
            self.now += BETWEEN_TRIES;
            events = self.between(false);
            events.extend(self.keeper.tick(self.now));
        }
        self.tell(&events);
        if self.keeper.stopped() { Ok(()) } else { Err(RunError::Relay(last)) }
    }
}

/// What it means that no frame will ever come again.
fn ended(recorded: bool, fault: Option<&str>) -> Result<(), RunError> {
    match fault {
        Some(fault) => Err(RunError::Camera(fault.to_owned())),
        None if recorded => Ok(()),
        None => Err(RunError::Camera("its threads have ended; start the service anew".to_owned())),
    }
}

/// Runs work that the door must be locked after, panic or not.
fn guarded<T>(
    work: impl FnOnce() -> Result<T, RunError>,
) -> std::thread::Result<Result<T, RunError>> {
    catch_unwind(AssertUnwindSafe(work))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_recording_may_end_without_a_fault() {
        assert!(ended(true, None).is_ok());
        for (recorded, fault) in [(true, Some("cut short")), (false, Some("it")), (false, None)] {
            assert!(matches!(ended(recorded, fault), Err(RunError::Camera(_))));
        }
    }
}
