//! What the service shows of itself, whole: what the door does now and how all parts
//! are. The service refreshes it, the socket and `facelatch status` show it.

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

/// The service now. Times are seconds; what an older service does not say is empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// Of the program that runs.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Since it began.
    pub uptime_s: f64,
    /// Since the service last said how it is; more than some seconds is no good sign.
    pub age_s: f64,
    /// The door.
    pub door: DoorNow,
    /// The camera.
    pub camera: CameraNow,
    /// The relay.
    pub relay: RelayNow,
    /// Who is known.
    pub gallery: GalleryNow,
    /// Version of the set of models.
    pub models: String,
    /// The wall clock, as far as schedules go.
    pub clock: ClockNow,
    /// The threads.
    pub watchdog: WatchdogNow,
    /// How often each kind of event was told.
    pub events: BTreeMap<String, u64>,
    /// How long the stages take.
    pub timings: Spreads,
    /// Frames that were looked at.
    pub motion: MotionNow,
    /// Memory and processor.
    pub process: Usage,
    /// When the service last said how it is.
    #[serde(skip)]
    pub refreshed: Option<Instant>,
}

/// The door now, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DoorNow {
    /// Of the lock: locked, granting, open, locking, stopping or stopped.
    pub state: String,
    /// normal, lockdown, always open, or open hours.
    pub mode: String,
    /// unknown, closed, ajar, held too long, or forced.
    pub leaf: String,
    /// What is alarmed about, if anything.
    pub alarm: Option<String>,
}

/// The camera now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CameraNow {
    /// Such as "running", or what is wrong.
    pub state: String,
    /// For how long.
    pub since_s: f64,
    /// Frames that came.
    pub frames: u64,
    /// Frames that a newer one took the place of.
    pub dropped: u64,
    /// Frames that could not be read.
    pub bad: u64,
}

/// The relay now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RelayNow {
    /// Such as "answering", or what is wrong.
    pub state: String,
    /// For how long.
    pub since_s: f64,
}

/// Who is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GalleryNow {
    /// People.
    pub people: usize,
    /// Templates of them.
    pub templates: usize,
}

/// The wall clock, as far as schedules go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockNow {
    /// No schedule asks for it.
    #[default]
    Unneeded,
    /// It is right.
    Trusted,
    /// It is not known to be: schedules fall to their rules.
    Unsure,
}

/// How the threads are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WatchdogNow {
    /// healthy, late or stuck.
    pub state: String,
    /// Who is late or stuck.
    pub who: Option<String>,
    /// For how long they have not said anything.
    pub silent_s: f64,
}

/// Frames that were looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MotionNow {
    /// Frames that came.
    pub frames: u64,
    /// Frames that were looked at.
    pub looked: u64,
    /// The same as a share, 0 to 1.
    pub share: f64,
}

impl Snapshot {
    /// The same with its age, as it is sent.
    pub fn aged(mut self) -> Self {
        let age = self.refreshed.map_or(Duration::ZERO, |at| at.elapsed());
        self.age_s = age.as_secs_f64();
        self
    }

    /// All kinds of events that were told.
    pub fn count(&mut self, counts: &Counts) {
        self.events = counts.all().map(|(kind, count)| (kind.to_owned(), count)).collect();
    }
}

impl DoorNow {
    /// That of a door.
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
    /// That of a gallery.
    pub fn of(gallery: &Gallery) -> Self {
        Self { people: gallery.people(), templates: gallery.templates() }
    }
}

impl WatchdogNow {
    /// A verdict of the watchdog.
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
    /// That of a gate's share.
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
        // One of another version.
        let other = r#"{"pid":7,"lift":"second floor"}"#;
        assert_eq!(serde_json::from_str::<Snapshot>(other).expect("a snapshot").pid, 7);
    }
}
