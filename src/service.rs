//! The door's service: feeds the doorkeeper from a camera until the camera ends or it is
//! stopped, and locks the door then.

use crate::camera::{Camera, CameraError, Captured};
use crate::doorkeeper::Doorkeeper;
use crate::event::Event;
use crate::nn::NetworkError;
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
    let (started, failures) = (None, 0);
    let mut watch =
        Watch { keeper, max_frames, stop, told, between, started, now, summary, failures };
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
    /// Nothing where frames are recorded, and time is theirs.
    started: Option<Instant>,
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
        self.started = Some(started);
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
        self.now = self.now.max(self.started.map_or(at, |started| started.elapsed()));
        let events = (self.between)(self.keeper, self.now);
        self.tell(&events);
        let events = match next {
            Some(Ok(captured)) => {
                self.summary.frames += 1;
                let now = Cell::new(self.now);
                let clock = || {
                    // Recorded frames are looked at in no time.
                    now.set(self.started.map_or(at, |started| started.elapsed()).max(now.get()));
                    now.get()
                };
                let looked = self.keeper.frame(at, &captured.frame, clock);
                self.now = now.get();
                match looked {
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

/// Runs work that the door must be locked after, panic or not.
fn guarded<T>(
    work: impl FnOnce() -> Result<T, RunError>,
) -> std::thread::Result<Result<T, RunError>> {
    catch_unwind(AssertUnwindSafe(work))
}

fn locked(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
