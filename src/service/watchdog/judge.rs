//! Judges whether the threads that the door depends on still run: a state machine from
//! heartbeats and time to a verdict.

use std::fmt;
use std::time::Duration;

/// A watched thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The thread that processes frames and decides.
    Recognizer,
    /// The thread that supervises the camera, not the one that reads frames from it.
    Camera,
    /// The thread that talks to the relay.
    Relay,
}

/// The last heartbeat of each thread; `None` before the first one.
///
/// The camera's heartbeat is that of its thread, not its frames: an unplugged camera that
/// is being reopened counts as alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beats {
    /// The recognizer's, once per frame or tick.
    pub recognizer: Option<Duration>,
    /// The camera thread's, twice per second, unless a cancelled reading thread never
    /// releases the camera.
    pub camera: Option<Duration>,
    /// The relay thread's, before every device call and at least twice per second; `None`
    /// also if the relay has no thread.
    pub relay: Option<Duration>,
    /// A thread that has ended although it is needed.
    pub gone: Option<Who>,
}

/// Time limits of the watchdog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchdogSettings {
    /// Time allowed before the first heartbeat.
    pub grace: Duration,
    /// Silence after which a thread is late.
    pub late_after: Duration,
    /// Silence after which a thread is stuck.
    pub stuck_after: Duration,
    /// Time between two steps. A step later than twice this was delayed itself.
    pub step_every: Duration,
}

impl Default for WatchdogSettings {
    /// A frame takes less than a second on the slowest board, and a camera that does not
    /// answer is given up after five seconds.
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(60),
            late_after: Duration::from_secs(8),
            stuck_after: Duration::from_secs(20),
            step_every: Duration::from_secs(1),
        }
    }
}

/// State of the threads.
///
/// ```text
///             silent for `late_after`          silent for `stuck_after`
///   Healthy ---------------------------> Late ---------------------------> Stuck
///      ^                                  |
///      +------------ a beat --------------+
/// ```
///
/// A thread that has ended is stuck at once.
///
/// No thread is late before its first heartbeat until `grace` is over. Time in which the
/// watchdog itself did not run (a stopped process, a sleeping machine) does not count.
/// Only a restart leads out of `Stuck`: a stuck thread that continues may hold what
/// another one took over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// All threads run.
    #[default]
    Healthy,
    /// A thread has been silent for long.
    Late {
        /// The thread.
        who: Who,
        /// Its silence.
        silent: Duration,
    },
    /// A thread has been silent for too long or has ended.
    Stuck {
        /// The thread.
        who: Who,
        /// Its silence; zero if it has ended.
        silent: Duration,
    },
}

/// The watchdog's state.
#[derive(Clone, Debug)]
pub struct Judge {
    settings: WatchdogSettings,
    started: Duration,
    /// Silence before this time does not count.
    excused: Duration,
    last: Duration,
    verdict: Verdict,
}

impl Judge {
    /// Starts to watch.
    pub fn new(now: Duration, settings: WatchdogSettings) -> Self {
        let verdict = Verdict::Healthy;
        Self { settings, started: now, excused: now, last: now, verdict }
    }

    /// Judges the threads by their last heartbeats. `now` is on the clock of the
    /// heartbeats, which never runs backwards.
    pub fn step(&mut self, now: Duration, beats: Beats) -> Verdict {
        let late = self.last.saturating_add(self.settings.step_every.saturating_mul(2));
        if now > late {
            self.excused = now;
        }
        self.last = now;
        if !matches!(self.verdict, Verdict::Stuck { .. }) {
            // `max_by_key` takes the last of equals: the recognizer, which matters most.
            let each = [(Who::Camera, beats.camera), (Who::Recognizer, beats.recognizer)];
            let each = each.map(|(who, beat)| self.judge(now, who, beat));
            let relay = beats.relay.map(|beat| self.judge(now, Who::Relay, Some(beat)));
            let gone = beats.gone.map(|who| Verdict::Stuck { who, silent: Duration::ZERO });
            let judged = relay.into_iter().chain(each).max_by_key(severity);
            self.verdict = gone.or(judged).unwrap_or_default();
        }
        self.verdict
    }

    fn judge(&self, now: Duration, who: Who, beat: Option<Duration>) -> Verdict {
        let WatchdogSettings { grace, late_after, stuck_after, .. } = self.settings;
        let counts = beat.unwrap_or(self.started.saturating_add(grace)).max(self.excused);
        let silent = now.saturating_sub(counts);
        if silent >= stuck_after {
            Verdict::Stuck { who, silent }
        } else if silent >= late_after {
            Verdict::Late { who, silent }
        } else {
            Verdict::Healthy
        }
    }
}

/// Order of verdicts: by kind, then by silence.
fn severity(verdict: &Verdict) -> (u8, Duration) {
    match verdict {
        Verdict::Healthy => (0, Duration::ZERO),
        Verdict::Late { silent, .. } => (1, *silent),
        Verdict::Stuck { silent, .. } => (2, *silent),
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Recognizer => "recognizer",
            Self::Camera => "camera thread",
            Self::Relay => "relay thread",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Healthy => write!(f, "healthy"),
            Self::Late { who, silent } => {
                write!(f, "{who} late: silent for {:.0} seconds", silent.as_secs_f32())
            }
            Self::Stuck { who, silent } if silent.is_zero() => write!(f, "{who} stuck: it ended"),
            Self::Stuck { who, silent } => {
                write!(f, "{who} stuck: silent for {:.0} seconds", silent.as_secs_f32())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn beats(recognizer: u64, camera: u64) -> Beats {
        Beats { recognizer: Some(s(recognizer)), camera: Some(s(camera)), ..Beats::default() }
    }

    /// Steps once per second with heartbeats at the given times.
    fn watched(watch: &mut Judge, seconds: std::ops::Range<u64>, beats: Beats) -> Verdict {
        seconds.map(|now| watch.step(s(now), beats)).last().expect("a step")
    }

    #[test]
    fn a_thread_that_falls_silent_is_late_then_stuck_for_good() {
        let mut watch = Judge::new(s(0), WatchdogSettings::default());
        assert_eq!(watched(&mut watch, 0..18, beats(10, 17)), Verdict::Healthy);
        let late = Verdict::Late { who: Who::Recognizer, silent: s(8) };
        assert_eq!(watched(&mut watch, 18..19, beats(10, 18)), late);
        assert_eq!(watched(&mut watch, 19..20, beats(19, 19)), Verdict::Healthy);
        let stuck = watched(&mut watch, 20..40, beats(39, 19));
        assert_eq!(stuck, Verdict::Stuck { who: Who::Camera, silent: s(20) });
        assert_eq!(watched(&mut watch, 40..42, beats(41, 41)), stuck);
        assert_eq!(stuck.to_string(), "camera thread stuck: silent for 20 seconds");
    }

    #[test]
    fn a_relay_thread_is_watched_from_its_beginning_and_its_end_counts_at_once() {
        let mut watch = Judge::new(s(0), WatchdogSettings::default());
        let relay = |at| Beats { relay: Some(s(at)), ..Beats::default() };
        assert_eq!(watched(&mut watch, 0..8, relay(0)), Verdict::Healthy);
        assert!(matches!(
            watched(&mut watch, 8..20, relay(0)),
            Verdict::Late { who: Who::Relay, .. }
        ));
        let stuck = Verdict::Stuck { who: Who::Relay, silent: s(20) };
        assert_eq!(watched(&mut watch, 20..21, relay(0)), stuck);
        let off = Duration::MAX;
        let settings =
            WatchdogSettings { grace: off, late_after: off, stuck_after: off, step_every: off };
        for settings in [WatchdogSettings::default(), settings] {
            let mut watch = Judge::new(s(0), settings);
            let gone = Beats { gone: Some(Who::Relay), ..beats(1, 1) };
            let ended = watch.step(s(1), gone);
            assert_eq!(ended.to_string(), "relay thread stuck: it ended");
            assert_eq!(watch.step(s(2), beats(2, 2)), ended);
        }
    }

    #[test]
    fn loading_takes_its_time_once() {
        let mut watch = Judge::new(s(0), WatchdogSettings::default());
        assert_eq!(watched(&mut watch, 0..60, Beats::default()), Verdict::Healthy);
        let first = Beats { recognizer: Some(s(60)), ..Beats::default() };
        let late = watched(&mut watch, 60..70, first);
        assert_eq!(late, Verdict::Late { who: Who::Recognizer, silent: s(9) });
        let only = Beats { recognizer: Some(s(79)), ..Beats::default() };
        assert!(matches!(
            watched(&mut watch, 70..81, only),
            Verdict::Stuck { who: Who::Camera, .. }
        ));
        // The grace time ends with the first heartbeat.
        let mut watch = Judge::new(s(0), WatchdogSettings::default());
        let hung = Beats { recognizer: Some(s(3)), ..Beats::default() };
        assert!(matches!(watched(&mut watch, 0..24, hung), Verdict::Stuck { .. }));
    }

    #[test]
    fn a_process_that_was_stopped_is_not_stuck() {
        let mut watch = Judge::new(s(0), WatchdogSettings::default());
        watched(&mut watch, 0..10, beats(9, 9));
        assert_eq!(watch.step(s(500), beats(9, 9)), Verdict::Healthy);
        assert_eq!(watched(&mut watch, 501..505, beats(9, 504)), Verdict::Healthy);
        assert!(matches!(watched(&mut watch, 505..521, beats(9, 520)), Verdict::Stuck { .. }));
    }

    #[test]
    fn a_watchdog_that_is_off_never_barks() {
        let off = Duration::MAX;
        let settings =
            WatchdogSettings { grace: off, late_after: off, stuck_after: off, step_every: off };
        let mut watch = Judge::new(s(5), settings);
        for (now, beats) in [(6, Beats::default()), (1_000_000, beats(7, 7))] {
            assert_eq!(watch.step(s(now), beats), Verdict::Healthy);
        }
    }

    proptest! {
        /// Healthy while both threads beat in time, stuck once one does not, and late in
        /// between, in any order of events.
        #[test]
        fn silence_alone_decides(
            steps in prop::collection::vec((0u64..1900, any::<(u8, u8)>()), 1..300),
            begun: bool,
        ) {
            let settings = WatchdogSettings::default();
            let mut watch = Judge::new(Duration::ZERO, settings);
            let mut now = Duration::ZERO;
            let mut beats = Beats::default();
            if begun {
                (beats.recognizer, beats.camera) = (Some(now), Some(now));
            }
            let mut was_stuck = false;
            for (later, (recognizer, camera)) in steps {
                now += Duration::from_millis(later);
                if recognizer < 10 {
                    beats.recognizer = Some(now);
                }
                if camera < 10 {
                    beats.camera = Some(now);
                }
                let since = |beat: Option<Duration>| {
                    now.saturating_sub(beat.unwrap_or(settings.grace))
                };
                let longest = since(beats.recognizer).max(since(beats.camera));
                let verdict = watch.step(now, beats);
                was_stuck |= longest >= settings.stuck_after;
                match verdict {
                    Verdict::Healthy => prop_assert!(!was_stuck && longest < settings.late_after),
                    Verdict::Late { silent, .. } => {
                        prop_assert!(!was_stuck);
                        prop_assert_eq!(silent, longest);
                        prop_assert!(silent >= settings.late_after);
                    }
                    Verdict::Stuck { .. } => prop_assert!(was_stuck),
                }
            }
        }
    }
}
