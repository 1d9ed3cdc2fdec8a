//! State and counters of the whole service, for the control socket and `facelatch
//! status`. The service refreshes it.

use crate::access::door::{Alarm, Door, Leaf, Mode, State};
use crate::access::event::Counts;
use crate::access::gallery::Gallery;
use crate::service::process_usage::Usage;
use crate::service::stage_times::Spreads;
use crate::service::watchdog::judge::Verdict;
use crate::vision::motion_gate::Share;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// State of the service. Times are in seconds. Fields that another version of the service
/// does not send keep their defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// Version of the running program.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Time since the program started.
    pub uptime_s: f64,
    /// Time since the service last refreshed this; more than some seconds means trouble.
    pub age_s: f64,
    /// The door.
    pub door: DoorNow,
    /// The camera.
    pub camera: CameraNow,
    /// The relay.
    pub relay: RelayNow,
    /// The gallery.
    pub gallery: GalleryNow,
    /// Version of the model set.
    pub models: String,
    /// Whether schedules trust the wall clock.
    pub clock: ClockNow,
    /// The threads.
    pub watchdog: WatchdogNow,
    /// Number of events by kind.
    pub events: BTreeMap<String, u64>,
    /// Durations of the stages.
    pub timings: Spreads,
    /// How many frames the motion gate let through.
    pub motion: MotionNow,
    /// Memory and processor time.
    pub process: Usage,
    /// When the service last refreshed this.
    #[serde(skip)]
    pub refreshed: Option<Instant>,
}

/// State of the door, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DoorNow {
    /// State of the lock: locked, granting, open, locking, stopping or stopped.
    pub state: String,
    /// Mode: normal, lockdown, always open, or open hours.
    pub mode: String,
    /// State of the leaf: unknown, closed, ajar, held too long, or forced.
    pub leaf: String,
    /// The alarm: held open too long, or forced; `None` without an alarm.
    pub alarm: Option<String>,
}

/// State of the camera.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CameraNow {
    /// The state, such as "running", or the fault.
    pub state: String,
    /// Time in that state.
    pub since_s: f64,
    /// Number of frames from the camera.
    pub frames: u64,
    /// Frames dropped because a newer one arrived.
    pub dropped: u64,
    /// Unreadable frames.
    pub bad: u64,
}

/// State of the relay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RelayNow {
    /// The state, such as "answering", or the fault.
    pub state: String,
    /// Time in that state.
    pub since_s: f64,
}

/// Size of the gallery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GalleryNow {
    /// Number of people.
    pub people: usize,
    /// Number of their templates.
    pub templates: usize,
}

/// Whether schedules trust the wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockNow {
    /// No schedule needs it.
    #[default]
    Unneeded,
    /// It is trusted.
    Trusted,
    /// It is not trusted: groups follow `clock_unsure`.
    Unsure,
}

/// State of the threads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WatchdogNow {
    /// The state: healthy, late or stuck.
    pub state: String,
    /// The late or stuck thread.
    pub who: Option<String>,
    /// Its silence.
    pub silent_s: f64,
}

/// How many frames the motion gate let through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MotionNow {
    /// Number of frames from the camera.
    pub frames: u64,
    /// Frames that the motion gate let through.
    pub looked: u64,
    /// Their share of all frames, 0 to 1.
    pub share: f64,
}

impl Snapshot {
    /// The snapshot with its age filled in, for sending.
    pub fn aged(mut self) -> Self {
        let age = self.refreshed.map_or(Duration::ZERO, |at| at.elapsed());
        self.age_s = age.as_secs_f64();
        self
    }

    /// Sets the number of events by kind.
    pub fn count(&mut self, counts: &Counts) {
        self.events = counts.all().map(|(kind, count)| (kind.to_owned(), count)).collect();
    }
}

impl DoorNow {
    /// State of this door.
    pub fn of(door: &Door) -> Self {
        let state = match door.state() {
            State::Locked { .. } => "locked",
            State::Granting { .. } => "granting",
            State::Open => "open",
            State::Locking { .. } => "locking",
            State::Stopping { .. } => "stopping",
            State::Stopped => "stopped",
        };
        let mode = match door.mode() {
            Mode::Normal => "normal",
            Mode::Lockdown => "lockdown",
            Mode::AlwaysOpen { by_schedule: false } => "always open",
            Mode::AlwaysOpen { by_schedule: true } => "open hours",
        };
        let leaf = match door.leaf() {
            Leaf::Unknown => "unknown",
            Leaf::Closed => "closed",
            Leaf::Ajar { .. } => "ajar",
            Leaf::HeldTooLong => "held too long",
            Leaf::Forced => "forced",
        };
        let alarm = door.leaf().alarm().map(|alarm| match alarm {
            Alarm::HeldTooLong => "held open too long",
            Alarm::Forced => "forced",
        });
        Self {
            state: state.to_owned(),
            mode: mode.to_owned(),
            leaf: leaf.to_owned(),
            alarm: alarm.map(str::to_owned),
        }
    }
}

impl GalleryNow {
    /// Size of this gallery.
    pub fn of(gallery: &Gallery) -> Self {
        Self { people: gallery.people(), templates: gallery.templates() }
    }
}

impl WatchdogNow {
    /// State of the threads by this verdict.
    pub fn of(verdict: Verdict) -> Self {
        let (state, who) = match verdict {
            Verdict::Healthy => ("healthy", None),
            Verdict::Late { who, silent } => ("late", Some((who, silent))),
            Verdict::Stuck { who, silent } => ("stuck", Some((who, silent))),
        };
        Self {
            state: state.to_owned(),
            who: who.map(|(who, _)| who.to_string()),
            silent_s: who.map_or(0.0, |(_, silent)| silent.as_secs_f64()),
        }
    }
}

impl MotionNow {
    /// Share of frames that the motion gate let through.
    pub fn of(Share { frames, looked }: Share) -> Self {
        let share = if frames == 0 { 0.0 } else { looked as f64 / frames as f64 };
        Self { frames, looked, share }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::door::{Command, DoorSettings, Event};
    use crate::service::watchdog::judge::Who;

    #[test]
    fn the_door_is_told_in_words() {
        let now = Duration::ZERO;
        let (mut door, actions) = Door::new(now, DoorSettings::default());
        let order = actions.relay.expect("an order").number;
        door.step(now, Event::Answer { order, taken: true });
        let later = Duration::from_secs(10);
        door.step(later, Event::Closed);
        door.step(later, Event::Command(Command::Lockdown));
        door.step(later, Event::Opened);
        let shown = DoorNow::of(&door);
        assert_eq!((shown.state.as_str(), shown.mode.as_str()), ("locked", "lockdown"));
        assert_eq!((shown.leaf.as_str(), shown.alarm.as_deref()), ("forced", Some("forced")));
    }

    #[test]
    fn a_snapshot_is_the_same_after_a_journey() {
        let mut snapshot = Snapshot { pid: 7, uptime_s: 1.5, ..Snapshot::default() };
        snapshot.clock = ClockNow::Unsure;
        snapshot.events.insert("granted".to_owned(), 3);
        let silent = Duration::from_millis(9500);
        snapshot.watchdog = WatchdogNow::of(Verdict::Late { who: Who::Camera, silent });
        let text = serde_json::to_string(&snapshot).expect("text");
        assert_eq!(serde_json::from_str::<Snapshot>(&text).expect("a snapshot"), snapshot);
        // A snapshot of another version.
        let other = r#"{"pid":7,"lift":"second floor"}"#;
        assert_eq!(serde_json::from_str::<Snapshot>(other).expect("a snapshot").pid, 7);
    }
}
