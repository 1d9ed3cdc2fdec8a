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
pub enum Event {
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
pub enum Action {
    /// Open the camera.
    Open,
    /// Close the camera and ignore later news from it.
    Close,
    /// Write a line to the log.
    Tell(Telling),
}

/// A log line about the camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Telling {
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

impl fmt::Display for Telling {
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

    /// When the next [`Event::Tick`] is due.
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
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        match (self.state, event) {
            (State::Waiting { until }, Event::Tick) if now >= until => {
                self.state = State::Opening { since: now };
                self.bad.only = false;
                vec![Action::Open]
            }
            // The camera is closed already.
            (State::Waiting { .. }, _) => self.say_again(now),
            (State::Opening { since }, Event::Tick) if now >= since + self.patience.first_frame => {
                let waited = self.patience.first_frame;
                self.silent(now, format!("no frame {} seconds after opening", waited.as_secs_f64()))
            }
            (State::Opening { .. } | State::Frozen { .. }, Event::Frame) => self.there(now),
            (State::Opening { .. }, Event::Same { .. }) if self.away_is_new() => self.there(now),
            (State::Opening { .. }, Event::Same { .. }) => {
                self.state = State::Frozen { since: now, last: now };
                self.say_again(now)
            }
            (State::Frozen { since, .. }, Event::Same { dark }) => {
                self.bad.only = false;
                if now >= since + self.same_for(dark) {
                    return self.hangs(now, dark);
                }
                self.state = State::Frozen { since, last: now };
                self.say_again(now)
            }
            (State::Streaming { since, differed, .. }, Event::Same { dark }) => {
                self.bad.only = false;
                if now >= differed + self.patience.same {
                    return self.hangs(now, dark);
                }
                self.state = State::Streaming { since, last: now, differed };
                self.tell_bad(now)
            }
            (State::Opening { .. }, Event::Tick | Event::Opened) => self.say_again(now),
            (State::Streaming { since, .. }, Event::Frame) => {
                self.state = State::Streaming { since, last: now, differed: now };
                self.bad.only = false;
                if now >= since + self.patience.steady {
                    self.failures = 0;
                }
                self.tell_bad(now)
            }
            (State::Frozen { last, .. } | State::Streaming { last, .. }, Event::Tick)
                if now >= last + self.patience.between =>
            {
                let waited = self.patience.between;
                self.silent(now, format!("no frame for {} seconds", waited.as_secs_f64()))
            }
            (State::Frozen { .. }, Event::Tick | Event::Opened) => self.say_again(now),
            (State::Streaming { .. }, Event::Tick | Event::Opened) => Vec::new(),
            (_, Event::Bad(reason)) => {
                self.bad.frames = self.bad.frames.saturating_add(1);
                self.bad.reason = reason;
                self.bad.only = true;
                // A camera that sends only unreadable frames counts as silent.
                if now >= self.wake() { self.step(now, Event::Tick) } else { self.tell_bad(now) }
            }
            (_, Event::Failed(reason)) => self.fail(now, reason),
            (_, Event::Ended) => self.silent(now, "the camera stream ended".to_owned()),
        }
    }

    /// Fails for lack of good frames; adds the fault of unreadable ones, if there were
    /// only those.
    fn silent(&mut self, now: Duration, reason: String) -> Vec<Action> {
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
    fn hangs(&mut self, now: Duration, dark: bool) -> Vec<Action> {
        let reason = if dark {
            "its picture is black; light the door or uncover the lens"
        } else {
            "its frames are all the same, so it hangs; reconnect it if this persists"
        };
        self.fail_as(now, reason.to_owned(), dark)
    }

    fn fail(&mut self, now: Duration, reason: String) -> Vec<Action> {
        self.fail_as(now, reason, false)
    }

    fn fail_as(&mut self, now: Duration, reason: String, dark: bool) -> Vec<Action> {
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
        let mut actions = vec![Action::Close];
        if is_new {
            actions.extend(self.tell_away(now));
        } else {
            actions.extend(self.say_again(now));
        }
        actions
    }

    fn there(&mut self, now: Duration) -> Vec<Action> {
        self.state = State::Streaming { since: now, last: now, differed: now };
        self.bad.only = false;
        let Some(away) = self.away.take() else { return Vec::new() };
        let after =
            std::mem::replace(&mut self.was_there, true).then(|| now.saturating_sub(away.since));
        vec![Action::Tell(Telling::There { after, tries: away.tries })]
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
    fn say_again(&mut self, now: Duration) -> Vec<Action> {
        match self.told_last() {
            Some(told) if now >= told + self.patience.say_again => {
                self.tell_away(now).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn tell_away(&mut self, now: Duration) -> Option<Action> {
        let away = self.away.as_mut()?;
        away.told = Some(now);
        Some(Action::Tell(Telling::Away {
            lasting: now.saturating_sub(away.since),
            reason: away.reason.clone(),
            tries: away.tries,
        }))
    }

    /// Logs unreadable frames, if there are any and the last such line is old enough.
    fn tell_bad(&mut self, now: Duration) -> Vec<Action> {
        let lately = self.bad.told.is_some_and(|told| now < told + self.patience.say_again);
        if self.bad.frames == 0 || lately {
            return Vec::new();
        }
        self.bad.told = Some(now);
        let frames = std::mem::take(&mut self.bad.frames);
        vec![Action::Tell(Telling::Bad { frames, reason: self.bad.reason.clone() })]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(time: u64) -> Duration {
        Duration::from_millis(time)
    }

    /// A camera and its log; times are in milliseconds.
    struct Scene {
        reopen: Reopen,
        log: Vec<String>,
    }

    impl Scene {
        fn new() -> Self {
            Self::of(Patience::default())
        }

        fn of(patience: Patience) -> Self {
            Self { reopen: Reopen::new(ms(0), patience), log: Vec::new() }
        }

        fn step(&mut self, at: u64, event: Event) -> &mut Self {
            for action in self.reopen.step(ms(at), event) {
                self.log.push(match action {
                    Action::Open => format!("{at} open"),
                    Action::Close => format!("{at} close"),
                    Action::Tell(telling) => format!("{at} {telling}"),
                });
            }
            self
        }

        /// Steps at every due time up to `end`; `outcome` is the result of each opening.
        fn until(&mut self, end: u64, outcome: impl Fn() -> Event) -> &mut Self {
            loop {
                let at = self.reopen.wake().as_millis() as u64;
                if at > end {
                    return self;
                }
                let before = self.log.len();
                self.step(at, Event::Tick);
                if self.log[before..].iter().any(|line| line.ends_with("open")) {
                    self.step(at, outcome());
                }
            }
        }

        fn said(&mut self) -> Vec<String> {
            std::mem::take(&mut self.log)
        }
    }

    fn failed() -> Event {
        Event::Failed("no such device".to_owned())
    }

    #[test]
    fn the_first_frame_is_told_and_the_rest_is_silence() {
        let mut scene = Scene::new();
        scene.step(0, Event::Tick).step(300, Event::Opened).step(400, Event::Frame);
        for at in 5..100 {
            scene.step(100 * at, Event::Frame);
        }
        assert_eq!(scene.said(), ["0 open", "400 the camera works"]);
        assert_eq!(scene.reopen.away(), None);
    }

    #[test]
    fn a_camera_that_is_not_there_is_tried_ever_more_seldom_and_told_once_a_minute() {
        let mut scene = Scene::new();
        scene.until(200_000, failed);
        let said = scene.said();
        let opened: Vec<&str> = said.iter().filter_map(|line| line.strip_suffix(" open")).collect();
        let expected = [
            "0", "500", "1500", "3500", "7500", "15500", "31500", "61500", "91500", "121500",
            "151500", "181500",
        ];
        assert_eq!(opened, expected);
        let told: Vec<&String> = said.iter().filter(|line| line.contains("no camera")).collect();
        assert_eq!(
            told,
            [
                "0 no camera for 0 seconds, 1 failed attempt to open it: no such device",
                "60000 no camera for 60 seconds, 7 failed attempts to open it: no such device",
                "120000 no camera for 120 seconds, 9 failed attempts to open it: no such device",
                "180000 no camera for 180 seconds, 11 failed attempts to open it: no such device",
            ]
        );
        assert_eq!(scene.reopen.away(), Some((ms(0), "no such device", 12)));
    }

    #[test]
    fn another_reason_is_told_at_once_and_so_is_the_return() {
        let mut scene = Scene::new();
        scene.step(0, Event::Tick).step(0, failed()).step(500, Event::Tick);
        scene.step(500, Event::Failed("in use".to_owned())).step(1500, Event::Tick);
        scene.step(1600, Event::Frame);
        assert_eq!(
            scene.said(),
            [
                "0 open",
                "0 close",
                "0 no camera for 0 seconds, 1 failed attempt to open it: no such device",
                "500 open",
                "500 close",
                "500 no camera for 0 seconds, 2 failed attempts to open it: in use",
                "1500 open",
                "1600 the camera works, 2 failed attempts to open it",
            ]
        );
    }

    #[test]
    fn silence_and_a_first_frame_that_does_not_come_are_failures() {
        let mut scene = Scene::new();
        scene.step(0, Event::Tick).step(100, Event::Frame).step(5099, Event::Tick);
        assert_eq!(scene.said().len(), 2);
        assert_eq!(scene.reopen.wake(), ms(5100));
        scene.step(5100, Event::Tick).step(5600, Event::Tick).step(5700, Event::Opened);
        scene.step(20_600, Event::Tick).step(21_600, Event::Tick).step(22_100, Event::Frame);
        assert_eq!(
            scene.said(),
            [
                "5100 close",
                "5100 no camera for 5 seconds: no frame for 5 seconds",
                "5600 open",
                "20600 close",
                "20600 no camera for 20 seconds, 1 failed attempt to open it: no frame \
                 15 seconds after opening",
                "21600 open",
                "22100 the camera works again after 22 seconds, 1 failed attempt to open it",
            ]
        );
    }

    #[test]
    fn a_camera_that_hangs_is_opened_anew_until_a_frame_differs() {
        let mut scene = Scene::new();
        let same = || Event::Same { dark: false };
        scene.step(0, Event::Tick).step(100, Event::Frame).step(200, same()).step(2000, same());
        assert_eq!(scene.said().len(), 2);
        scene.step(2100, same()).step(2600, Event::Tick).step(2700, same()).step(4700, same());
        scene.step(5700, Event::Tick).step(5800, same()).step(6000, Event::Frame);
        assert_eq!(
            scene.said(),
            [
                "2100 close",
                "2100 no camera for 2 seconds: its frames are all the same, so it hangs; \
                 reconnect it if this persists",
                "2600 open",
                "4700 close",
                "5700 open",
                "6000 the camera works again after 5 seconds, 1 failed attempt to open it",
            ]
        );
    }

    #[test]
    fn a_video_whose_key_frames_are_far_apart_does_not_hang() {
        let mut scene = Scene::of(Patience::with("pipe:ffmpeg -i rtsp://cam -f yuv4mpegpipe -"));
        scene.step(0, Event::Tick);
        for at in 1..600 {
            let key_frame = at % 100 == 0;
            let event = if key_frame { Event::Frame } else { Event::Same { dark: false } };
            scene.step(100 * at, event);
        }
        assert_eq!(scene.said(), ["0 open", "100 the camera works"]);
        for at in 600..800 {
            scene.step(100 * at, Event::Same { dark: false });
        }
        assert!(scene.said().concat().contains("its frames are all the same"));
        assert_eq!(Patience::with("v4l:/dev/video0"), Patience::default());
    }

    #[test]
    fn the_dark_is_told_once_and_the_camera_is_watched_in_between() {
        let mut scene = Scene::new();
        scene.step(0, Event::Tick).step(0, Event::Frame);
        let (mut at, mut open, mut closed) = (0, true, 0);
        while at < 3_600_000 {
            at += 100;
            scene.step(at, Event::Tick);
            if open {
                scene.step(at, Event::Same { dark: true });
            }
            for line in &scene.log {
                open = if line.ends_with("open") { true } else { open && !line.ends_with("close") };
            }
            scene.log.retain(|line| line.contains("camera"));
            closed += u64::from(!open);
        }
        assert!(scene.reopen.is_dark());
        let said = scene.said();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[1].contains("its picture is black"), "{said:?}");
        // Closed for half a second about fifteen times an hour.
        assert!(closed < 100, "{closed}");
        while !open {
            at += 100;
            open = scene.step(at, Event::Tick).said().iter().any(|line| line.ends_with("open"));
        }
        scene.step(at, Event::Frame);
        assert!(!scene.reopen.is_dark() && scene.reopen.away().is_none());
    }

    #[test]
    fn bad_frames_cost_only_themselves_unless_there_are_no_others() {
        let bad = || Event::Bad("cut short".to_owned());
        let mut scene = Scene::new();
        scene.step(0, Event::Tick).step(100, Event::Frame).step(200, bad()).step(300, bad());
        scene.step(400, Event::Frame).step(60_000, Event::Frame).step(60_200, Event::Frame);
        assert_eq!(
            scene.said()[2..],
            ["200 unreadable frame: cut short", "60200 unreadable frame: cut short"]
        );
        for at in 0..60 {
            scene.step(60_300 + 100 * at, bad());
        }
        let said = scene.said();
        assert_eq!(
            said,
            ["65200 close", "65200 no camera for 5 seconds: no frame for 5 seconds; cut short"]
        );
    }

    #[test]
    fn one_frame_now_and_then_does_not_make_it_be_opened_more_often() {
        let mut scene = Scene::new();
        let mut at = 0;
        let mut waits = Vec::new();
        for _ in 0..9 {
            scene.step(at, Event::Tick).step(at, Event::Frame).step(at, Event::Ended);
            waits.push(scene.reopen.wake().as_millis() as u64 - at);
            at = scene.reopen.wake().as_millis() as u64;
        }
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        // Steady frames reset the delay.
        scene.step(at, Event::Tick).step(at, Event::Frame).step(at + 5_000, Event::Frame);
        scene.step(at + 5_100, Event::Ended);
        assert_eq!(scene.reopen.wake(), ms(at + 5_600));
    }

    proptest! {
        #[test]
        fn it_is_open_or_will_be_whatever_happens(
            events in prop::collection::vec((0..20_000u64, 0..8usize), 0..200),
        ) {
            let patience = Patience::default();
            let mut reopen = Reopen::new(ms(0), patience);
            let (mut now, mut open, mut told) = (ms(0), false, Vec::new());
            for (pause, event) in events {
                now += ms(pause);
                let event = match event {
                    0 => Event::Opened,
                    1 => Event::Frame,
                    2 => Event::Bad("bad".to_owned()),
                    3 => failed(),
                    4 => Event::Ended,
                    5 => Event::Same { dark: false },
                    6 => Event::Same { dark: true },
                    _ => Event::Tick,
                };
                let about = event.clone();
                for action in reopen.step(now, event) {
                    match action {
                        Action::Open => {
                            prop_assert!(!open, "opened twice");
                            open = true;
                        }
                        Action::Close => {
                            prop_assert!(open, "closed twice");
                            open = false;
                        }
                        Action::Tell(Telling::Away { .. }) => told.push(now),
                        Action::Tell(_) => {}
                    }
                }
                // A closed camera is opened within the longest delay.
                prop_assert!(open || reopen.wake() <= now + patience.most, "{about:?}");
                prop_assert!(open || reopen.away().is_some() || now == ms(0) || reopen.wake() <= now);
                prop_assert_eq!(reopen.away().is_some() && open && about == Event::Frame, false);
            }
        }
    }
}
