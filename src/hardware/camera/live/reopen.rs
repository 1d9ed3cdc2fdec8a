//! When to reopen a failed live camera and what to log about it: a state machine.

use crate::hardware::backoff::Backoff;
use crate::hardware::camera::STALLED_AFTER;
use std::fmt;
use std::time::Duration;

/// Longest time that a camera with a black picture stays open before it is reopened. It
/// stays open that long because somebody may switch on the light.
const DARK_AT_MOST: Duration = Duration::from_secs(600);

/// Limit on identical frames of a `pipe:` program. Video coded with key frames repeats
/// bit-identical frames of a still scene until the next key frame, which network cameras
/// send at least every ten seconds.
const SAME_OF_A_PROGRAM: Duration = Duration::from_secs(15);

/// Timeouts and retry delays of a live camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Longest time from opening to the first frame: programs connect and sensors wake
    /// up.
    pub first_frame: Duration,
    /// Longest time between two good frames.
    pub between: Duration,
    /// Longest run of bit-identical frames: every real camera has noise. Longer for
    /// `pipe:` programs, because video coding removes noise.
    pub same: Duration,
    /// Delay between the first failure and reopening; doubles with each further failure.
    pub least: Duration,
    /// Largest delay before reopening.
    pub most: Duration,
    /// A run of good frames of this length resets the failure count.
    pub steady: Duration,
    /// Interval at which a continuing failure is logged again.
    pub say_again: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first_frame: Duration::from_secs(15),
            between: STALLED_AFTER,
            same: Duration::from_secs(2),
            least: Duration::from_millis(500),
            most: Duration::from_secs(30),
            steady: Duration::from_secs(5),
            say_again: Duration::from_secs(60),
        }
    }
}

impl Patience {
    /// The defaults for the camera that the URI names.
    pub fn with(uri: &str) -> Self {
        let patience = Self::default();
        if uri.starts_with("pipe:") {
            Self { same: SAME_OF_A_PROGRAM, ..patience }
        } else {
            patience
        }
    }
}

/// An event of the camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// The camera is open.
    Opened,
    /// A good frame arrived.
    Frame,
    /// A frame arrived that is bit-identical to the last one.
    Same {
        /// Whether it is black.
        dark: bool,
    },
    /// An unreadable frame arrived, with the fault; more may follow.
    Bad(String),
    /// Opening failed, or the stream is over; with the fault.
    Failed(String),
    /// The stream is over without a known fault.
    Ended,
}

/// An action to carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open the camera.
    Open,
    /// Close the camera and ignore later news from it.
    Close,
    /// Write a line to the log.
    Report(CameraEvent),
}

/// A log line about the camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CameraEvent {
    /// The camera has failed for a new reason, or keeps failing.
    Away {
        /// Time without frames.
        lasting: Duration,
        /// The fault.
        reason: String,
        /// Failed attempts to open it.
        tries: u32,
    },
    /// Frames arrive.
    There {
        /// Time without frames before; `None` for the first opening.
        after: Option<Duration>,
        /// Failed attempts to open it.
        tries: u32,
    },
    /// Frames arrive, but some are unreadable.
    Bad {
        /// Unreadable frames since the last such line.
        frames: u32,
        /// The fault of the last one.
        reason: String,
    },
}

impl fmt::Display for CameraEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vain = |tries: u32| match tries {
            0 => String::new(),
            1 => ", 1 failed attempt to open it".to_owned(),
            _ => format!(", {tries} failed attempts to open it"),
        };
        match self {
            Self::Away { lasting, reason, tries } => {
                write!(f, "no camera for {} seconds{}: {reason}", lasting.as_secs(), vain(*tries))
            }
            Self::There { after: None, tries } => write!(f, "the camera works{}", vain(*tries)),
            Self::There { after: Some(after), tries } => {
                let after = after.as_secs();
                write!(f, "the camera works again after {after} seconds{}", vain(*tries))
            }
            Self::Bad { frames: 1, reason } => write!(f, "unreadable frame: {reason}"),
            Self::Bad { frames, reason } => {
                write!(f, "{frames} unreadable frames, the last: {reason}")
            }
        }
    }
}

/// State of the camera.
///
/// ```text
///                Tick, it is time                  Frame
///    Waiting ---------------------> Opening ---------------------> Streaming
///    ^ ^ ^   (Open)                   |  |     (Tell there)        ^  |     |
///    | | |                            |  | Same                    |  |     | Frame,
///    | | +----------------------------+  v          Frame          |  +-----+ Same
///    | |  Failed, Ended, no frame     Frozen ----------------------+  |
///    | |  in time (Close, Tell away)     |         (Tell there)       |
///    | +---------------------------------+                            |
///    |    Failed, Ended, silent, only Same for too long (Close)       |
///    +----------------------------------------------------------------+
///         Failed, Ended, no good frame or only Same for too long (Close, Tell away)
/// ```
///
/// A camera that still hangs after it was reopened waits longer each time, like a missing
/// one. A black picture may just be the night: it is logged once, the camera stays open
/// ever longer between two reopenings, and it is watched meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Closed until that time.
    Waiting { until: Duration },
    /// Open or being opened, no frame yet.
    Opening { since: Duration },
    /// Open, but every frame is the same as before.
    Frozen { since: Duration, last: Duration },
    /// Frames arrive. `differed` is the time of the last frame that differed from the one
    /// before.
    Streaming { since: Duration, last: Duration, differed: Duration },
}

/// A period without frames.
#[derive(Clone, Debug)]
struct Away {
    since: Duration,
    /// Empty before the first failure.
    reason: String,
    /// Failed attempts to open it.
    tries: u32,
    /// When it was last logged.
    told: Option<Duration>,
    /// Whether the picture is black.
    dark: bool,
}

impl Away {
    fn new(since: Duration) -> Self {
        Self { since, reason: String::new(), tries: 0, told: None, dark: false }
    }
}

/// Unreadable frames.
#[derive(Clone, Debug, Default)]
struct Bad {
    /// Number not logged yet.
    frames: u32,
    reason: String,
    /// Whether no good frame arrived since the last unreadable one.
    only: bool,
    told: Option<Duration>,
}

/// Decides when to open, close and log. Times come from the caller, on a clock that never
/// runs backwards.
#[derive(Clone, Debug)]
pub struct Reopen {
    patience: Patience,
    state: State,
    away: Option<Away>,
    /// Whether frames ever arrived.
    was_there: bool,
    /// Failures in a row, without a steady run of frames between them.
    failures: u32,
    bad: Bad,
}

impl Reopen {
    /// A camera that is opened at the next step.
    pub fn new(now: Duration, patience: Patience) -> Self {
        Self {
            patience,
            state: State::Waiting { until: now },
            away: Some(Away::new(now)),
            was_there: false,
            failures: 0,
            bad: Bad::default(),
        }
    }

    /// Start of the period without frames, the fault and the failed attempts; `None`
    /// while frames arrive and before the first failure.
    pub fn away(&self) -> Option<(Duration, &str, u32)> {
        let away = self.away.as_ref().filter(|away| !away.reason.is_empty())?;
        Some((away.since, &away.reason, away.tries))
    }

    /// Whether it is away because its picture is black. Only a frame that is not black
    /// ends that.
    pub fn is_dark(&self) -> bool {
        self.away.as_ref().is_some_and(|away| away.dark)
    }

    /// When the next [`Input::Tick`] is due.
    pub fn wake(&self) -> Duration {
        let next = match self.state {
            State::Waiting { until } => until,
            State::Opening { since } => since + self.patience.first_frame,
            State::Frozen { last, .. } | State::Streaming { last, .. } => {
                last + self.patience.between
            }
        };
        let told = self.told_last();
        told.map_or(next, |told| next.min(told + self.patience.say_again))
    }

    /// The actions that follow from an event.
    pub fn step(&mut self, now: Duration, event: Input) -> Vec<Output> {
        match (self.state, event) {
            (State::Waiting { until }, Input::Tick) if now >= until => {
                self.state = State::Opening { since: now };
                self.bad.only = false;
                vec![Output::Open]
            }
            // The camera is closed already.
            (State::Waiting { .. }, _) => self.say_again(now),
            (State::Opening { since }, Input::Tick) if now >= since + self.patience.first_frame => {
                let waited = self.patience.first_frame;
                self.silent(now, format!("no frame {} seconds after opening", waited.as_secs_f64()))
            }
            (State::Opening { .. } | State::Frozen { .. }, Input::Frame) => self.there(now),
            (State::Opening { .. }, Input::Same { .. }) if self.away_is_new() => self.there(now),
            (State::Opening { .. }, Input::Same { .. }) => {
                self.state = State::Frozen { since: now, last: now };
                self.say_again(now)
            }
            (State::Frozen { since, .. }, Input::Same { dark }) => {
                self.bad.only = false;
                if now >= since + self.same_for(dark) {
                    return self.hangs(now, dark);
                }
                self.state = State::Frozen { since, last: now };
                self.say_again(now)
            }
            (State::Streaming { since, differed, .. }, Input::Same { dark }) => {
                self.bad.only = false;
                if now >= differed + self.patience.same {
                    return self.hangs(now, dark);
                }
                self.state = State::Streaming { since, last: now, differed };
                self.tell_bad(now)
            }
            (State::Opening { .. }, Input::Tick | Input::Opened) => self.say_again(now),
            (State::Streaming { since, .. }, Input::Frame) => {
                self.state = State::Streaming { since, last: now, differed: now };
                self.bad.only = false;
                if now >= since + self.patience.steady {
                    self.failures = 0;
                }
                self.tell_bad(now)
            }
            (State::Frozen { last, .. } | State::Streaming { last, .. }, Input::Tick)
                if now >= last + self.patience.between =>
            {
                let waited = self.patience.between;
                self.silent(now, format!("no frame for {} seconds", waited.as_secs_f64()))
            }
            (State::Frozen { .. }, Input::Tick | Input::Opened) => self.say_again(now),
            (State::Streaming { .. }, Input::Tick | Input::Opened) => Vec::new(),
            (_, Input::Bad(reason)) => {
                self.bad.frames = self.bad.frames.saturating_add(1);
                self.bad.reason = reason;
                self.bad.only = true;
                // A camera that sends only unreadable frames counts as silent.
                if now >= self.wake() { self.step(now, Input::Tick) } else { self.tell_bad(now) }
            }
            (_, Input::Failed(reason)) => self.fail(now, reason),
            (_, Input::Ended) => self.silent(now, "the camera stream ended".to_owned()),
        }
    }

    /// Fails for lack of good frames; adds the fault of unreadable ones, if there were
    /// only those.
    fn silent(&mut self, now: Duration, reason: String) -> Vec<Output> {
        let reason = if self.bad.only { format!("{reason}; {}", self.bad.reason) } else { reason };
        self.fail(now, reason)
    }

    /// Longest run of identical frames after reopening.
    fn same_for(&self, dark: bool) -> Duration {
        let same = self.patience.same;
        if !dark {
            return same;
        }
        let backoff = Backoff { first: same, limit: DARK_AT_MOST };
        backoff.delay(self.failures.saturating_add(1))
    }

    /// Fails because all frames were the same for too long.
    fn hangs(&mut self, now: Duration, dark: bool) -> Vec<Output> {
        let reason = if dark {
            "its picture is black; light the door or uncover the lens"
        } else {
            "its frames are all the same, so it hangs; reconnect it if this persists"
        };
        self.fail_as(now, reason.to_owned(), dark)
    }

    fn fail(&mut self, now: Duration, reason: String) -> Vec<Output> {
        self.fail_as(now, reason, false)
    }

    fn fail_as(&mut self, now: Duration, reason: String, dark: bool) -> Vec<Output> {
        let since = match self.state {
            State::Streaming { differed, .. } => differed,
            State::Opening { since }
            | State::Frozen { since, .. }
            | State::Waiting { until: since } => since,
        };
        let away = self.away.get_or_insert_with(|| Away::new(since));
        away.dark = dark;
        // A camera that stops after it delivered frames is no failed attempt to open it.
        if let State::Opening { .. } | State::Frozen { .. } = self.state {
            away.tries = away.tries.saturating_add(1);
        }
        let is_new = away.told.is_none() || away.reason != reason;
        away.reason = reason;
        self.failures = self.failures.saturating_add(1);
        // In the dark the camera must be open to notice light, so the delay stays short.
        let failures = if dark { 1 } else { self.failures };
        let backoff = Backoff { first: self.patience.least, limit: self.patience.most };
        self.state = State::Waiting { until: backoff.due(now, failures) };
        self.bad = Bad::default();
        let mut actions = vec![Output::Close];
        if is_new {
            actions.extend(self.tell_away(now));
        } else {
            actions.extend(self.say_again(now));
        }
        actions
    }

    fn there(&mut self, now: Duration) -> Vec<Output> {
        self.state = State::Streaming { since: now, last: now, differed: now };
        self.bad.only = false;
        let Some(away) = self.away.take() else { return Vec::new() };
        let after =
            std::mem::replace(&mut self.was_there, true).then(|| now.saturating_sub(away.since));
        vec![Output::Report(CameraEvent::There { after, tries: away.tries })]
    }

    /// Whether it has not failed yet.
    fn away_is_new(&self) -> bool {
        self.away.as_ref().is_none_or(|away| away.reason.is_empty())
    }

    /// When the failure was last logged; `None` for a black picture, which is logged
    /// once.
    fn told_last(&self) -> Option<Duration> {
        self.away.as_ref().filter(|away| !away.dark).and_then(|away| away.told)
    }

    /// Logs a continuing failure again if the last line is old enough.
    fn say_again(&mut self, now: Duration) -> Vec<Output> {
        match self.told_last() {
            Some(told) if now >= told + self.patience.say_again => {
                self.tell_away(now).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn tell_away(&mut self, now: Duration) -> Option<Output> {
        let away = self.away.as_mut()?;
        away.told = Some(now);
        Some(Output::Report(CameraEvent::Away {
            lasting: now.saturating_sub(away.since),
            reason: away.reason.clone(),
            tries: away.tries,
        }))
    }

    /// Logs unreadable frames, if there are any and the last such line is old enough.
    fn tell_bad(&mut self, now: Duration) -> Vec<Output> {
        let lately = self.bad.told.is_some_and(|told| now < told + self.patience.say_again);
        if self.bad.frames == 0 || lately {
            return Vec::new();
        }
        self.bad.told = Some(now);
        let frames = std::mem::take(&mut self.bad.frames);
        vec![Output::Report(CameraEvent::Bad { frames, reason: self.bad.reason.clone() })]
    }
}

#[cfg(test)]
mod tests;
