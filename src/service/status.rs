//! State and counters of the whole service, for the control socket and `facelatch
//! status`. The service refreshes it.

use crate::access::door::{Alarm, Door, Leaf, Mode, State};
use crate::access::event::{Counts, plain};
use crate::access::false_entries::Report;
use crate::access::gallery::Gallery;
use crate::hardware::camera::live::CameraState;
use crate::service::audit::AuditNow;
use crate::service::link::{LinkNow, LinkState};
pub use crate::service::model_watch::{ModelsNow, TrialNow};
use crate::service::pipeline::Pipeline;
use crate::service::process_usage::{Meter, Usage};
use crate::service::run::BetweenFrames;
use crate::service::site::{SiteEnds, SiteNow};
use crate::service::stage_times::{Spreads, Stage, StageTimes};
use crate::service::watchdog::judge::Verdict;
use crate::storage::gallery::{Store, StoreError, remarks};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Maximum age of the status while the service runs.
const REFRESH_EVERY: Duration = Duration::from_millis(500);

/// State of the service. Times are in seconds. Fields that another version of the service
/// does not send keep their defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
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
    /// The audit log.
    pub audit: AuditNow,
    /// Version of the model set.
    pub models: String,
    /// Who answers for the model set, and the set on trial.
    pub model_set: ModelsNow,
    /// Expected false entries.
    pub false_entries: Report,
    /// Whether schedules trust the wall clock.
    pub clock: ClockNow,
    /// The threads.
    pub watchdog: WatchdogNow,
    /// The link to other doors and systems; `None` if the configuration has none.
    pub link: Option<LinkNow>,
    /// The site of the door; `None` if the configuration has none.
    pub site: Option<SiteNow>,
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
    /// State of the lock: starting, locked, granting, open, locking, stopping or stopped.
    pub state: String,
    /// Mode: normal, lockdown, always open, or open hours; while the door is starting,
    /// lockdown or not known yet.
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

/// Size of the gallery in use, and state of its file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GalleryNow {
    /// Number of people.
    pub people: usize,
    /// Number of their templates.
    pub templates: usize,
    /// The file.
    pub file: GalleryFileNow,
}

/// State of the gallery's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GalleryFileNow {
    /// good, read-only, or the fault: absent, lost, unreachable, foreign, older, damaged,
    /// sealed (its key is missing) or failed. The people in use stay in use.
    pub state: String,
    /// The fault and its cure.
    pub fault: Option<String>,
    /// The last repair since the start, if there was one.
    pub repaired: Option<String>,
    /// What others may do with the file that they should not.
    pub remarks: Vec<String>,
}

impl Default for GalleryFileNow {
    fn default() -> Self {
        Self { state: "good".to_owned(), fault: None, repaired: None, remarks: Vec::new() }
    }
}

impl GalleryFileNow {
    /// State of an open gallery.
    pub fn of(store: &Store, file: &Path) -> Self {
        let fault = store.read_only().map(|reason| StoreError::ReadOnly {
            path: file.to_owned(),
            reason: reason.to_owned(),
        });
        Self {
            state: fault.as_ref().map_or("good", StoreError::kind).to_owned(),
            fault: fault.map(|fault| fault.to_string()),
            repaired: store.repaired().map(str::to_owned),
            remarks: remarks(file),
        }
    }

    /// State of a gallery that cannot be opened.
    pub fn failed(error: &StoreError, file: &Path) -> Self {
        Self {
            state: error.kind().to_owned(),
            fault: Some(error.to_string()),
            repaired: None,
            remarks: remarks(file),
        }
    }

    /// Whether files may be written beside it: its folder is neither away nor read-only.
    pub fn is_writable(&self) -> bool {
        !["absent", "lost", "unreachable", "read-only"].contains(&self.state.as_str())
    }

    /// Whether the file cannot be read.
    pub fn is_fault(&self) -> bool {
        !["good", "read-only"].contains(&self.state.as_str())
    }
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

/// State of a door whose models and people are still being read.
pub const STARTING: &str = "starting";

impl Status {
    /// The status until the first refresh: models and people are being read. `lockdown` is
    /// whether lockdown holds.
    pub fn starting(lockdown: bool) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            door: DoorNow::starting(lockdown),
            camera: CameraNow { state: "opening".to_owned(), ..CameraNow::default() },
            relay: RelayNow { state: "opening".to_owned(), ..RelayNow::default() },
            ..Self::default()
        }
    }

    /// Whether the door is still starting.
    pub fn is_starting(&self) -> bool {
        self.door.state == STARTING
    }

    /// The status with its age filled in, for sending.
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
    /// State of a door that is starting; `lockdown` is whether lockdown will hold.
    pub fn starting(lockdown: bool) -> Self {
        let mode = if lockdown { "lockdown" } else { "not known yet" };
        let (state, leaf) = (STARTING.to_owned(), "unknown".to_owned());
        Self { state, mode: mode.to_owned(), leaf, alarm: None }
    }

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
    /// Size of this gallery, and state of its file.
    pub fn of(gallery: &Gallery, file: &GalleryFileNow) -> Self {
        Self { people: gallery.people(), templates: gallery.templates(), file: file.clone() }
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

/// Refreshes the status while the service runs.
pub(super) struct StatusBoard {
    shared: Arc<Mutex<Status>>,
    refreshed: Option<Instant>,
    /// The line for systemd.
    line: String,
    started: Instant,
    meter: Meter,
    stage_times: StageTimes,
    relay: RelayNow,
    /// Since when the relay has been in this state.
    relay_since: Duration,
    link: Option<LinkState>,
    site: Option<SiteEnds>,
}

impl StatusBoard {
    /// `relay` is the first state of the relay.
    pub fn new(shared: Arc<Mutex<Status>>, started: Instant, relay: &'static str) -> Self {
        Self {
            shared,
            refreshed: None,
            line: String::new(),
            started,
            meter: Meter::default(),
            stage_times: StageTimes::default(),
            relay: RelayNow { state: relay.to_owned(), since_s: 0.0 },
            relay_since: Duration::ZERO,
            link: None,
            site: None,
        }
    }

    /// The status, shared with those who show it.
    pub fn shared(&self) -> Arc<Mutex<Status>> {
        Arc::clone(&self.shared)
    }

    /// Shows the state of the link from now on.
    pub fn set_link(&mut self, link: LinkState) {
        self.link = Some(link);
    }

    /// Shows the state of the site from now on.
    pub fn set_site(&mut self, site: SiteEnds) {
        self.site = Some(site);
    }

    /// When the service's clock started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// State of the relay, in words.
    pub fn relay(&self) -> &str {
        &self.relay.state
    }

    /// Notes the state of the relay at this time.
    pub fn set_relay(&mut self, at: Duration, state: &str) {
        let state = plain(state);
        if state != self.relay.state {
            self.relay.state = state.into_owned();
            self.relay_since = at;
        }
    }

    /// Counts the times of a frame that took this long in all.
    pub fn add(&mut self, pipeline: &Pipeline, took: Duration) {
        let times = pipeline.times();
        self.stage_times.add(Stage::Detect, times.detect.total());
        self.stage_times.add(Stage::Embed, times.embed);
        if let Some(took) = pipeline.judged_in() {
            self.stage_times.add(Stage::Liveness, took);
        }
        self.stage_times.add(Stage::Match, pipeline.decided_in());
        self.stage_times.add(Stage::Frame, took);
    }

    /// Whether the status is older than it may be, by the time of this machine: that of a
    /// recording may stand still.
    pub fn is_due(&self) -> bool {
        self.refreshed.is_none_or(|at| at.elapsed() >= REFRESH_EVERY)
    }

    /// Refreshes the status. Returns the line for systemd if it has changed.
    pub fn refresh(
        &mut self,
        pipeline: &Pipeline,
        between: &BetweenFrames<'_>,
        verdict: Verdict,
    ) -> Option<String> {
        self.refreshed = Some(Instant::now());
        let status = self.status(pipeline, between, verdict);
        let line = status.line();
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = status;
        if line == self.line {
            return None;
        }
        self.line.clone_from(&line);
        Some(line)
    }

    fn status(
        &mut self,
        pipeline: &Pipeline,
        between: &BetweenFrames<'_>,
        verdict: Verdict,
    ) -> Status {
        let BetweenFrames { now, camera, summary, .. } = between;
        let health = camera.health();
        let state = match &health.state {
            CameraState::Opening => "opening".to_owned(),
            CameraState::Streaming if camera.changed().is_some() => {
                "another than before, see facelatch door accept-camera".to_owned()
            }
            CameraState::Streaming => "running".to_owned(),
            // A reason may come from outside, and a line break in it would be an assignment
            // for systemd.
            CameraState::Away { reason, .. } => plain(reason).into_owned(),
            CameraState::Ended { .. } => "ended".to_owned(),
        };
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let (frames, looked) = (count(summary.frames), count(summary.looked));
        let since = |at: Duration| now.saturating_sub(at).as_secs_f64();
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs_f64(),
            door: DoorNow::of(pipeline.door()),
            camera: CameraNow {
                state,
                since_s: since(health.since),
                frames,
                dropped: health.frames.saturating_sub(frames),
                bad: health.bad_frames,
            },
            relay: RelayNow { since_s: since(self.relay_since), ..self.relay.clone() },
            gallery: GalleryNow::of(pipeline.gallery(), pipeline.gallery_file()),
            audit: pipeline.auditor().state(),
            models: pipeline.models_now().version.clone(),
            model_set: pipeline.models_now().clone(),
            false_entries: pipeline.false_entries().clone(),
            clock: match pipeline.clock_trusted(*now) {
                None => ClockNow::Unneeded,
                Some(true) => ClockNow::Trusted,
                Some(false) => ClockNow::Unsure,
            },
            watchdog: WatchdogNow::of(verdict),
            link: self.link.as_ref().map(LinkState::now),
            site: self.site.as_ref().map(SiteEnds::now),
            timings: self.stage_times.spreads(),
            motion: MotionNow {
                frames,
                looked,
                share: if frames == 0 { 0.0 } else { looked as f64 / frames as f64 },
            },
            process: self.meter.measure(self.started.elapsed()),
            refreshed: Some(Instant::now()),
            ..Status::default()
        };
        status.count(between.counts);
        status
    }
}

impl Status {
    /// One line for `systemctl status`, which changes seldom.
    fn line(&self) -> String {
        let Self { door, camera, relay, gallery, audit, .. } = self;
        let alarm =
            door.alarm.as_ref().map(|alarm| format!(", alarm: {alarm}")).unwrap_or_default();
        let file = match gallery.file.state.as_str() {
            "good" => String::new(),
            state => format!(", gallery file {state}"),
        };
        let audit = if audit.state == "failed" { ", audit log not written" } else { "" };
        format!(
            "door {}, mode {}{alarm}; camera {}; relay {}; {} people{file}{audit}",
            door.state, door.mode, camera.state, relay.state, gallery.people
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::door::{Command, DoorSettings, Input};
    use crate::service::watchdog::judge::Who;

    #[test]
    fn the_door_is_described_in_words() {
        let now = Duration::ZERO;
        let (mut door, actions) = Door::new(now, DoorSettings::default());
        let order = actions.relay.expect("an order").number;
        door.step(now, Input::Answer { order, taken: true });
        let later = Duration::from_secs(10);
        door.step(later, Input::Closed);
        door.step(later, Input::Command(Command::Lockdown));
        door.step(later, Input::Opened);
        let shown = DoorNow::of(&door);
        assert_eq!((shown.state.as_str(), shown.mode.as_str()), ("locked", "lockdown"));
        assert_eq!((shown.leaf.as_str(), shown.alarm.as_deref()), ("forced", Some("forced")));
    }

    #[test]
    fn a_snapshot_is_the_same_after_a_journey() {
        let mut status = Status { pid: 7, uptime_s: 1.5, ..Status::default() };
        status.clock = ClockNow::Unsure;
        status.events.insert("granted".to_owned(), 3);
        let silent = Duration::from_millis(9500);
        status.watchdog = WatchdogNow::of(Verdict::Late { who: Who::Camera, silent });
        let text = serde_json::to_string(&status).expect("text");
        assert_eq!(serde_json::from_str::<Status>(&text).expect("a status"), status);
        // A status of another version.
        let other = r#"{"pid":7,"lift":"second floor"}"#;
        assert_eq!(serde_json::from_str::<Status>(other).expect("a status").pid, 7);
    }
}
