//! The loop: runs the pipeline on camera frames until the camera ends or the service is
//! stopped, then locks the door.

use crate::access::event::{Counts, Event};
use crate::hardware::camera::live::{Changed, LiveCamera, Taken};
use crate::hardware::camera::{Captured, Kind};
use crate::nn::NetworkError;
use crate::service::pipeline::Pipeline;
use crate::vision::motion_gate::{Gate, MotionGate};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Longest time between two ticks of the door's clock, with or without frames.
const TICK: Duration = Duration::from_millis(50);
/// Attempts to release the relay at the end, and the time between two.
const LAST_TRIES: usize = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(100);
/// Consecutive frames on which the networks may fail before the service gives up.
const MOST_FAILURES: usize = 10;

/// Why the loop ended, other than by the end of its input or on request.
#[derive(Debug, Error)]
pub enum RunError {
    /// A network failed.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The camera ended, and it was not the end of a recording.
    #[error("camera: {0}")]
    Camera(String),
    /// The relay could not be released at the end.
    #[error("the relay could not be released: {0}; cut its power if the door stands open")]
    Relay(String),
}

/// Counters of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Frames from the camera.
    pub frames: usize,
    /// Frames that were processed; the motion gate skipped the others.
    pub looked: usize,
    /// Frames that could not be decoded, or on which a network failed.
    pub bad_frames: usize,
    /// Number of grants.
    pub granted: usize,
}

/// When a run starts and ends, and which frames it skips.
pub struct RunOptions<'a> {
    /// Time zero of the service's clock.
    pub started: Instant,
    /// Number of frames after which the run ends.
    pub max_frames: usize,
    /// Ends the run once it is set.
    pub stop: &'a AtomicBool,
    /// Whether a live frame that repeats the previous one bit by bit is ignored, and a camera
    /// that only repeats frames counts as hung.
    pub distinct: bool,
    /// Skips live frames without motion.
    pub gate: Option<MotionGate>,
}

/// What the edges see between two frames.
pub struct BetweenFrames<'a> {
    /// Time on the service's clock.
    pub now: Duration,
    /// The camera.
    pub camera: &'a LiveCamera,
    /// Counters so far.
    pub summary: &'a Summary,
    /// Number of events by kind.
    pub counts: &'a Counts,
    /// Processing time of the last frame, if it was not skipped.
    pub took: Option<Duration>,
    /// A frame was processed but is not decided yet: people and models must not change.
    pub in_frame: bool,
}

/// Runs the pipeline until the camera ends, the number of frames is reached, or the run is
/// stopped. Then locks the door before anything else.
///
/// `report` gets every event with its time. `between` is called between frames, at least
/// twenty times per second, to deliver changes and inputs; it returns the events that
/// follow. At the end it is called until the relay has answered.
///
/// # Errors
/// If the camera or a network fails, or the relay cannot be released at the end.
pub fn run(
    pipeline: &mut Pipeline,
    camera: LiveCamera,
    options: RunOptions<'_>,
    report: impl FnMut(Duration, &Event),
    between: impl FnMut(&mut Pipeline, &BetweenFrames<'_>) -> Vec<Event>,
) -> Result<Summary, RunError> {
    let recorded = camera.kind() == Kind::Recorded;
    camera.expect_distinct(options.distinct);
    let mut run = Run {
        pipeline,
        camera,
        options,
        report,
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
    let watched = guarded(|| run.watch());
    // After anything, even a panic. The camera is released afterwards, because that may
    // take time.
    let closed = guarded(|| run.close());
    let bad = run.camera.health().bad_frames;
    run.camera.stop();
    run.summary.bad_frames += usize::try_from(bad).unwrap_or(usize::MAX);
    match (watched, closed) {
        (Err(panic), _) | (_, Err(panic)) => resume_unwind(panic),
        (Ok(watched), Ok(closed)) => watched.and(closed).map(|()| run.summary),
    }
}

/// A run in progress.
struct Run<'a, T, B> {
    pipeline: &'a mut Pipeline,
    camera: LiveCamera,
    options: RunOptions<'a>,
    report: T,
    between: B,
    /// Frames come from a recording, and so does the time.
    recorded: bool,
    now: Duration,
    /// Time of the last frame.
    captured: Duration,
    took: Option<Duration>,
    /// The camera is unreachable, which was reported.
    away: bool,
    summary: Summary,
    counts: Counts,
    failures: usize,
}

impl<T, B> Run<'_, T, B>
where
    T: FnMut(Duration, &Event),
    B: FnMut(&mut Pipeline, &BetweenFrames<'_>) -> Vec<Event>,
{
    fn watch(&mut self) -> Result<(), RunError> {
        while self.summary.frames < self.options.max_frames
            && !self.options.stop.load(Ordering::Relaxed)
        {
            match self.camera.next(TICK) {
                Taken::Frame(captured) => self.frame(&captured)?,
                Taken::Away { reason, .. } => {
                    self.report_away(&reason);
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

    /// Lets time pass without a frame.
    fn pass(&mut self) {
        // In a recording no time passes between frames.
        if !self.recorded {
            self.visit(self.options.started.elapsed());
            self.trusts_camera();
            let events = self.pipeline.tick(self.now);
            self.report_all(&events);
        }
    }

    /// Reports another camera than before once. Returns whether the camera's faces count.
    fn trusts_camera(&mut self) -> bool {
        if self.pipeline.camera_accepted() {
            self.camera.accept();
        }
        let changed = self.camera.changed();
        let trusted = changed.is_none();
        if self.pipeline.camera_changed(!trusted) {
            let event = match changed {
                Some(Changed { before, now }) => {
                    Event::CameraChanged { before: before.to_string(), now: now.to_string() }
                }
                None => Event::CameraTrusted,
            };
            self.report_all(&[event]);
        }
        trusted
    }

    fn report_away(&mut self, reason: &str) {
        if !self.away {
            self.away = true;
            self.report_all(&[Event::CameraAway { reason: reason.to_owned() }]);
        }
    }

    fn frame(&mut self, captured: &Captured) -> Result<(), RunError> {
        self.summary.frames += 1;
        if self.away {
            self.away = false;
            self.report_all(&[Event::CameraBack]);
        }
        // The time of a camera may repeat, but must not run backwards.
        self.captured = self.captured.max(captured.at);
        let at = self.captured;
        self.visit(if self.recorded { at } else { self.options.started.elapsed() });
        if !self.trusts_camera() {
            let events = self.pipeline.tick(self.now);
            self.report_all(&events);
            return Ok(());
        }
        let gate = self.options.gate.as_mut().filter(|_| !self.recorded);
        if gate.is_some_and(|gate| {
            gate.step(at, &captured.frame, self.pipeline.followed()) == Gate::Skip
        }) {
            let events = self.pipeline.tick(self.now);
            self.report_all(&events);
            return Ok(());
        }
        self.summary.looked += 1;
        let began = Instant::now();
        let looked = self.pipeline.look(at, &captured.frame);
        // Recorded time does not pass during processing.
        if !self.recorded {
            // Before the decision: what happened meanwhile, each with its own time.
            self.visit_in(self.options.started.elapsed(), true);
        }
        let events = match looked {
            Ok(looked) => {
                self.failures = 0;
                let events = self.pipeline.decide(self.now, &looked);
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
                self.pipeline.tick(self.now)
            }
        };
        self.report_all(&events);
        Ok(())
    }

    /// Visits the edges.
    fn visit(&mut self, now: Duration) {
        self.visit_in(now, false);
    }

    fn visit_in(&mut self, now: Duration, frame: bool) {
        self.now = self.now.max(now);
        let events = self.between(frame);
        self.report_all(&events);
    }

    fn between(&mut self, in_frame: bool) -> Vec<Event> {
        let between = BetweenFrames {
            now: self.now,
            camera: &self.camera,
            summary: &self.summary,
            counts: &self.counts,
            took: self.took.take(),
            in_frame,
        };
        (self.between)(self.pipeline, &between)
    }

    fn report_all(&mut self, events: &[Event]) {
        for event in events {
            self.counts.add(event);
            self.summary.granted += usize::from(matches!(event, Event::Granted { .. }));
            self.pipeline.entries().reported(self.now, event);
            (self.report)(self.now, event);
        }
        self.pipeline.entries().all_reported();
    }

    /// Locks the door. Retries for a while if the relay does not answer.
    fn close(&mut self) -> Result<(), RunError> {
        let mut last = "no answer".to_owned();
        let mut events = self.pipeline.stop(self.now);
        for _ in 0..=LAST_TRIES {
            self.report_all(&events);
            for event in events.drain(..) {
                if let Event::RelayFailed(message) = event {
                    last = message;
                }
            }
            if self.pipeline.stopped() {
                return Ok(());
            }
            std::thread::sleep(BETWEEN_TRIES);
            self.now += BETWEEN_TRIES;
            events = self.between(false);
            events.extend(self.pipeline.tick(self.now));
        }
        self.report_all(&events);
        if self.pipeline.stopped() { Ok(()) } else { Err(RunError::Relay(last)) }
    }
}

/// Result of a run whose camera has ended.
fn ended(recorded: bool, fault: Option<&str>) -> Result<(), RunError> {
    match fault {
        Some(fault) => Err(RunError::Camera(fault.to_owned())),
        None if recorded => Ok(()),
        None => Err(RunError::Camera("its threads have ended; restart the service".to_owned())),
    }
}

/// Runs work after which the door must be locked, even if it panics.
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
