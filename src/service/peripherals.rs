//! EDGE: what is around the door besides the camera: relay, lines, lights, the control
//! socket and the watchdog. All of them have threads of their own; the service visits
//! them between two frames.

use crate::access::controller::Input;
use crate::access::door::{self, Note, State};
use crate::access::event::Event;
use crate::config::Config;
use crate::hardware::camera::Kind;
use crate::hardware::camera::live::CameraState;
use crate::hardware::relay::link::Told;
use crate::hardware::relay::{Relay, RelayError, RelayLink, Report};
use crate::service::control::{Begun, Command, Control, ControlError, Order, Passage};
use crate::service::pipeline::{Doorkeeper, Hand};
use crate::service::process_usage::Meter;
use crate::service::run::Moment;
use crate::service::stage_times::{Stage, Timings};
use crate::service::status::{
    CameraNow, ClockNow, DoorNow, GalleryNow, MotionNow, RelayNow, Snapshot, WatchdogNow,
};
use crate::service::watchdog::judge::WatchdogSettings;
use crate::service::watchdog::systemd::Word;
use crate::service::watchdog::{Heartbeats, Watchdog};
use crate::storage::lockdown::{Standing, StandingWriter};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Messages that wait for the service: two edges of every line and one answer of every
/// device. Who finds no room tries again.
const MAX_MESSAGES: usize = 32;
/// The snapshot is as old as this at most while the service runs.
const SHOW_EVERY: Duration = Duration::from_millis(500);
/// A relay that is on is switched off where the service is silent for so long, or for half
/// of the watchdog's patience where that is less: before the service is ended.
const SILENCE: Duration = Duration::from_secs(10);
/// A frame on a slow board, or a card that is slow to write, is no silence.
const SHORTEST_SILENCE: Duration = Duration::from_secs(2);
/// Whoever orders the door to be opened hears of it within so long: the door itself gives
/// a relay two seconds.
const OPENS_WITHIN: Duration = Duration::from_secs(3);
/// A thread may be silent for so long before the first frame: opening a camera may take
/// its time.
const GRACE: Duration = Duration::from_secs(60);

/// Why the door has not all that it is to have.
#[derive(Debug, Error)]
pub enum PeripheralsError {
    /// The relay.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// The socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A line's URI.
    #[error("{key} = {fault}")]
    Line {
        /// Which key of the configuration.
        key: &'static str,
        /// What is wrong, and what would be right.
        fault: String,
    },
    /// The system gives no more threads.
    #[error("no thread for {what}: {reason}")]
    Thread {
        /// What it was for.
        what: &'static str,
        /// What the system said.
        reason: std::io::Error,
    },
}

/// The configuration is to be read anew, or is being read.
#[derive(Debug, Default)]
pub struct Reload {
    /// Somebody wants it, by a signal or an order.
    pub wanted: Arc<AtomicBool>,
    /// It is being read.
    pub busy: AtomicBool,
    /// How often it was read, with success or without.
    pub times: AtomicU32,
}

impl Reload {
    /// It is read now.
    pub fn begin(&self) {
        self.busy.store(true, Ordering::Relaxed);
        // Before reading: who wants it meanwhile gets it once more.
        self.wanted.store(false, Ordering::Release);
    }

    /// It was read, if it was, and what is new lies ready.
    pub fn end(&self) {
        if self.busy.load(Ordering::Relaxed) {
            self.times.fetch_add(1, Ordering::Relaxed);
            // After it was counted: who sees neither has missed nothing.
            self.busy.store(false, Ordering::Release);
        }
    }
}

/// From a thread of the board's.
enum Message {
    Relay(Report),
    #[cfg(feature = "gpio")]
    Line(crate::hardware::gpio::Event),
    #[cfg(feature = "gpio")]
    Lamp(crate::hardware::lights::LampEvent),
}

impl From<Report> for Message {
    fn from(report: Report) -> Self {
        Self::Relay(report)
    }
}

impl Message {
    /// When it happened: answers and edges count from their own time, however long the
    /// service was at a frame. A request to exit counts from when it is heard, for so does
    /// the time in which the relay has to answer to it.
    fn at(&self, started: Instant, now: Duration) -> Duration {
        let at = match self {
            Self::Relay(report) => report.at.saturating_duration_since(started),
            #[cfg(feature = "gpio")]
            Self::Line(crate::hardware::gpio::Event::Edge {
                name: crate::hardware::gpio::Name::Exit,
                ..
            }) => now,
            #[cfg(feature = "gpio")]
            Self::Line(crate::hardware::gpio::Event::Edge { at, .. }) => *at,
            #[cfg(feature = "gpio")]
            Self::Line(_) | Self::Lamp(_) => now,
        };
        at.min(now)
    }
}

#[cfg(feature = "gpio")]
impl From<crate::hardware::gpio::Event> for Message {
    fn from(event: crate::hardware::gpio::Event) -> Self {
        Self::Line(event)
    }
}

#[cfg(feature = "gpio")]
impl From<crate::hardware::lights::LampEvent> for Message {
    fn from(event: crate::hardware::lights::LampEvent) -> Self {
        Self::Lamp(event)
    }
}

/// What is around the door.
pub struct Peripherals {
    messages: Receiver<Message>,
    #[cfg(feature = "gpio")]
    wired: Wired,
    control: Option<(Control, Receiver<Order>)>,
    /// Orders to open that the relay has not answered, and until when it may.
    opening: Vec<(Begun, Duration)>,
    /// What those hear who gave orders, once the snapshot shows what they did.
    answers: Vec<(Begun, Result<String, String>)>,
    /// What holds beyond a restart.
    standing: StandingWriter,
    /// Orders that are being written there, in turn.
    writing: VecDeque<Writing>,
    reload: Arc<Reload>,
    /// Whether systemd was told last that it is being read.
    told_reading: Option<bool>,
    /// How often the configuration was read until now.
    read: u32,
    beats: Arc<Heartbeats>,
    watchdog: Watchdog,
    snapshot: Arc<Mutex<Snapshot>>,
    show: Show,
}

/// An order that is being written.
struct Writing {
    begun: Begun,
    /// Lockdown ends once it is written.
    ends: bool,
}

/// Lines and lights; they end when this is dropped.
#[cfg(feature = "gpio")]
struct Wired {
    _inputs: crate::hardware::gpio::Inputs,
    lamps: crate::hardware::lights::Lamps,
}

/// What is shown of the service, and when it was last.
struct Show {
    shown: Option<Instant>,
    /// What systemd shows.
    status: String,
    started: Instant,
    models: String,
    meter: Meter,
    timings: Timings,
    relay: RelayNow,
    /// Since when the relay is as it is.
    relay_since: Duration,
}

/// What must be there before anything else: the relay, which is told to lock, and the
/// socket, of which there is one a door.
pub struct Secured {
    sender: SyncSender<Message>,
    messages: Receiver<Message>,
    hand: Hand,
    control: Option<(Control, Receiver<Order>)>,
    snapshot: Arc<Mutex<Snapshot>>,
}

impl Secured {
    /// Locks the door before models and people are read, which may take minutes: the
    /// relay may have been left open by a service that was killed. A relay that is not
    /// there is waited for. One beside a recording has no thread of its own: recorded
    /// frames have their own time, which devices do not keep to.
    pub fn begin(config: &Config, relay: Relay, frames: Kind) -> Result<Self, PeripheralsError> {
        let snapshot = Arc::new(Mutex::new(Snapshot::default()));
        let control = match Control::listen(&config.status_socket(), Arc::clone(&snapshot)) {
            Ok(control) => Some(control),
            // Another service at this door would fight over the lock.
            Err(error @ (ControlError::Taken { .. } | ControlError::Foreign { .. })) => {
                return Err(error.into());
            }
            Err(error) => {
                log::warn!("{error}; going on without facelatch status and facelatch door");
                None
            }
        };
        let (sender, messages) = sync_channel(MAX_MESSAGES);
        let locked = config.door.lock.energised(false);
        let silence = silence(config.watchdog());
        let hand = match frames {
            Kind::Live => {
                Hand::Link(RelayLink::start(relay, locked, Some(silence), sender.clone())?)
            }
            Kind::Recorded => Hand::Direct(relay),
        };
        Ok(Self { sender, messages, hand, control, snapshot })
    }

    /// Opens everything else that the configuration names. Devices that are not there yet
    /// are waited for; only what can never work is an error. Times count from `started`.
    /// `models` is what is shown of them; `reload` is set where somebody orders it.
    /// `on_stuck` gets the reason where a thread is stuck, tells it and ends the process
    /// with [`EXIT_STUCK`], on a thread that may not wait for another without a limit. Where
    /// the main thread is the one that is stuck, the relay has been off for long then, as its
    /// own thread heard nothing; where it is not, it is to lock the door before.
    pub fn open(
        self,
        config: &Config,
        started: Instant,
        models: &str,
        reload: Arc<Reload>,
        on_stuck: impl FnOnce(&str) + Send + 'static,
    ) -> Result<(Peripherals, Hand), PeripheralsError> {
        let Self { sender, messages, hand, control, snapshot } = self;
        // The relay's thread has its own.
        #[cfg(not(feature = "gpio"))]
        drop(sender);
        let beats = Arc::new(match &hand {
            Hand::Link(link) => Heartbeats::relay(link.pulse()),
            Hand::Direct(_) => Heartbeats::default(),
        });
        let settings = match config.watchdog() {
            Some(patience) => WatchdogSettings {
                grace: GRACE.max(patience),
                late_after: patience / 2,
                stuck_after: patience,
                ..WatchdogSettings::default()
            },
            None => WatchdogSettings {
                grace: Duration::MAX,
                late_after: Duration::MAX,
                stuck_after: Duration::MAX,
                ..WatchdogSettings::default()
            },
        };
        let watchdog = Watchdog::start(Arc::clone(&beats), settings, on_stuck)
            .map_err(|reason| PeripheralsError::Thread { what: "the watchdog", reason })?;
        let state = match &hand {
            Hand::Link(_) => "opening",
            Hand::Direct(_) => "answering",
        };
        let relay = RelayNow { state: state.to_owned(), since_s: 0.0 };
        let show = Show {
            shown: None,
            status: String::new(),
            started,
            models: models.to_owned(),
            meter: Meter::default(),
            timings: Timings::default(),
            relay,
            relay_since: Duration::ZERO,
        };
        let peripherals = Peripherals {
            messages,
            #[cfg(feature = "gpio")]
            wired: Wired::open(config, started, &sender)?,
            control,
            opening: Vec::new(),
            answers: Vec::new(),
            standing: StandingWriter::start(Standing::beside(&config.gallery_file()))
                .map_err(|reason| PeripheralsError::Thread { what: "lockdown's file", reason })?,
            writing: VecDeque::new(),
            reload,
            told_reading: None,
            read: 0,
            beats,
            watchdog,
            snapshot,
            show,
        };
        Ok((peripherals, hand))
    }
}

impl Peripherals {
    /// What held when the last service ended holds for this door, too.
    pub fn restore(&self, keeper: &mut Doorkeeper) -> Vec<Event> {
        if !self.standing.standing().lockdown() {
            return Vec::new();
        }
        log::warn!("lockdown holds since before this start; facelatch door normal ends it");
        keeper.input(Duration::ZERO, Input::Command(door::Command::Lockdown))
    }

    /// Tells systemd that the service ends.
    pub fn stopping(&self) {
        self.watchdog.tell(Word::Stopping);
    }

    /// Tells systemd that the door is watched, or that the configuration is read anew.
    fn tell_reload(&mut self) {
        let reads =
            self.reload.wanted.load(Ordering::Acquire) || self.reload.busy.load(Ordering::Acquire);
        let times = self.reload.times.load(Ordering::Relaxed);
        let missed = std::mem::replace(&mut self.read, times) != times;
        if missed && self.told_reading == Some(false) {
            // It began and ended between two frames.
            self.told_reading = Some(true);
            self.watchdog.tell(Word::Reloading);
        }
        if self.told_reading != Some(reads) {
            self.told_reading = Some(reads);
            self.watchdog.tell(if reads { Word::Reloading } else { Word::Ready });
        }
    }

    /// Between two frames: what the board and others have to say, and what they are told.
    pub fn visit(&mut self, keeper: &mut Doorkeeper, moment: &Moment<'_>) -> Vec<Event> {
        let now = moment.now;
        self.beats.recognizer();
        self.tell_reload();
        let health = moment.camera.health();
        // Its minding thread says twice a second that it lives.
        if self.show.started.elapsed().saturating_sub(health.alive) < Duration::from_secs(2) {
            self.beats.camera();
        }
        let mut events = Vec::new();
        for (at, message) in in_turn(&self.messages, self.show.started, now) {
            events.extend(self.message(keeper, at, message));
        }
        while let Some(order) = self.control.as_ref().and_then(|(_, orders)| orders.try_recv().ok())
        {
            if let Some(begun) = order.begin() {
                events.extend(self.order(keeper, now, begun));
            }
        }
        events.extend(self.written(keeper, now));
        self.opened(keeper, now);
        while let Some(signal) = keeper.signal() {
            #[cfg(feature = "gpio")]
            self.wired.lamps.show(signal);
            #[cfg(not(feature = "gpio"))]
            let _ = signal;
        }
        if let Some(took) = moment.took {
            let times = keeper.times();
            self.show.timings.add(Stage::Detect, times.detect.total());
            self.show.timings.add(Stage::Embed, times.embed);
            if let Some(took) = keeper.judged_in() {
                self.show.timings.add(Stage::Liveness, took);
            }
            self.show.timings.add(Stage::Match, keeper.decided_in());
            self.show.timings.add(Stage::Frame, took);
        }
        // By the time of this machine: that of a recording may stand still.
        let due = self.show.shown.is_none_or(|at| at.elapsed() >= SHOW_EVERY);
        if due || !self.answers.is_empty() {
            self.show.shown = Some(Instant::now());
            let snapshot = self.show.snapshot(keeper, moment, self.watchdog.verdict());
            let status = status(&snapshot);
            if status != self.show.status {
                self.watchdog.tell(Word::Status(status.clone()));
                self.show.status = status;
            }
            *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
        }
        for (begun, answer) in self.answers.drain(..) {
            begun.answer(answer);
        }
        events
    }

    fn message(&mut self, keeper: &mut Doorkeeper, at: Duration, message: Message) -> Vec<Event> {
        match message {
            Message::Relay(Report { told, .. }) => {
                let state = match &told {
                    Told::Answer { taken: true, .. } | Told::Back { .. } => Some("answering"),
                    Told::Away { error } => Some(&error[..]),
                    Told::Answer { taken: false, .. }
                    | Told::Drifted { .. }
                    | Told::Abandoned
                    | Told::Expired => None,
                };
                if let Some(state) = state.filter(|state| *state != self.show.relay.state) {
                    state.clone_into(&mut self.show.relay.state);
                    self.show.relay_since = at;
                }
                keeper.relay_told(at, told)
            }
            #[cfg(feature = "gpio")]
            Message::Line(event) => line(keeper, at, event),
            #[cfg(feature = "gpio")]
            Message::Lamp(event) => vec![match event {
                crate::hardware::lights::LampEvent::Away { lamp, error } => {
                    Event::LineAway { name: lamp.to_string(), reason: error }
                }
                crate::hardware::lights::LampEvent::Back { lamp } => {
                    Event::LineBack { name: lamp.to_string() }
                }
            }],
        }
    }

    /// Follows an order of somebody on this machine.
    fn order(&mut self, keeper: &mut Doorkeeper, now: Duration, begun: Begun) -> Vec<Event> {
        let command = match begun.command.clone() {
            Command::Door(command) => command,
            Command::Passed(Passage { who, way: role, ago }) => {
                // Not everybody may come in at every door.
                let person = keeper.gallery().id(&who);
                let did = person.map_or("nobody here has that name", |_| "noted");
                self.answer(begun, Ok(format!("{who}: {did}")));
                let passed = |person| keeper.input(now, Input::Passed { person, role, ago });
                return person.map(passed).unwrap_or_default();
            }
            Command::LocalReset => {
                let events = keeper.input(now, Input::LocalReset);
                self.answer(
                    begun,
                    Ok("the first person may enroll with the button now".to_owned()),
                );
                return events;
            }
            Command::Reload => {
                self.reload.wanted.store(true, Ordering::Relaxed);
                self.answer(begun, Ok("the configuration is read anew; see the log".to_owned()));
                return Vec::new();
            }
        };
        if matches!(keeper.door().state(), State::Stopping { .. } | State::Stopped) {
            self.answer(begun, Err("the service ends".to_owned()));
            return Vec::new();
        }
        // Lockdown is ended once nothing brings it back.
        let ends_lockdown =
            command == door::Command::Normal && keeper.door().mode() == door::Mode::Lockdown;
        if ends_lockdown {
            self.write(begun, false, true);
            return Vec::new();
        }
        let events = keeper.input(now, Input::Command(command));
        let refused = events
            .iter()
            .find(|event| matches!(event, Event::Door(Note::NotOpenedByCommand(_))))
            .map(Event::to_string);
        match (command, refused) {
            (_, Some(reason)) => self.answer(begun, Err(reason)),
            (door::Command::Open, None) => self.opening.push((begun, now + OPENS_WITHIN)),
            (door::Command::Lockdown, None) => self.write(begun, true, false),
            (door::Command::Normal, None) => self.write(begun, false, false),
            (door::Command::AlwaysOpen, None) => self.answer(begun, Ok(mode(keeper))),
        }
        events
    }

    /// Has it written that lockdown holds, or no longer; whoever ordered it is answered
    /// after that. `ends` is whether it ends only then.
    fn write(&mut self, begun: Begun, lockdown: bool, ends: bool) {
        if lockdown {
            // It beats what was ordered before it.
            self.writing.iter_mut().for_each(|writing| writing.ends = false);
        }
        if self.standing.set_lockdown(lockdown) {
            self.writing.push_back(Writing { begun, ends });
        } else if ends {
            self.answer(begun, Err("the disk is busy; try again".to_owned()));
        } else {
            let did = "done, but a restart may undo it: the disk is busy; order it once more";
            self.answer(begun, Ok(did.to_owned()));
        }
    }

    /// What was written meanwhile.
    fn written(&mut self, keeper: &mut Doorkeeper, now: Duration) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(done) = self.standing.written() {
            let Some(Writing { begun, ends }) = self.writing.pop_front() else { break };
            let file = self.standing.standing().file().display().to_string();
            let answer = match done {
                Ok(()) => {
                    if ends {
                        let normal = Input::Command(door::Command::Normal);
                        events.extend(keeper.input(now, normal));
                    }
                    Ok(mode(keeper))
                }
                Err(reason) if ends => Err(format!("{file}: {reason}")),
                Err(reason) => {
                    Ok(format!("{}, but a restart may undo it: {file}: {reason}", mode(keeper)))
                }
            };
            self.answer(begun, answer);
        }
        events
    }

    /// Whoever ordered the door to be opened hears whether it was.
    fn opened(&mut self, keeper: &Doorkeeper, now: Duration) {
        for (begun, until) in std::mem::take(&mut self.opening) {
            match keeper.door().state() {
                State::Open => self.answer(begun, Ok("opened by command".to_owned())),
                State::Granting { .. } if now < until => self.opening.push((begun, until)),
                _ => {
                    let refusal = format!("the relay did not open: {}", self.show.relay.state);
                    self.answer(begun, Err(refusal));
                }
            }
        }
    }

    fn answer(&mut self, begun: Begun, answer: Result<String, String>) {
        self.answers.push((begun, answer));
    }
}

fn mode(keeper: &Doorkeeper) -> String {
    format!("mode {}", DoorNow::of(keeper.door()).mode)
}

/// What has come, each with the time it counts from, in the order of those times.
fn in_turn(
    messages: &Receiver<Message>,
    started: Instant,
    now: Duration,
) -> Vec<(Duration, Message)> {
    let come = messages.try_iter().take(MAX_MESSAGES);
    let mut come: Vec<_> = come.map(|message| (message.at(started, now), message)).collect();
    come.sort_by_key(|(at, _)| *at);
    come
}

fn silence(watchdog: Option<Duration>) -> Duration {
    watchdog.map_or(SILENCE, |patience| patience / 2).clamp(SHORTEST_SILENCE, SILENCE)
}

/// The service's exit code where a thread is stuck.
pub const EXIT_STUCK: u8 = 70;

/// One line for `systemctl status`, which changes seldom.
fn status(snapshot: &Snapshot) -> String {
    let Snapshot { door, camera, relay, gallery, .. } = snapshot;
    let alarm = door.alarm.as_ref().map(|alarm| format!(", alarm: {alarm}")).unwrap_or_default();
    format!(
        "door {}, mode {}{alarm}; camera {}; relay {}; {} people",
        door.state, door.mode, camera.state, relay.state, gallery.people
    )
}

impl Show {
    fn snapshot(
        &mut self,
        keeper: &Doorkeeper,
        moment: &Moment<'_>,
        verdict: crate::service::watchdog::judge::Verdict,
    ) -> Snapshot {
        let Moment { now, camera, summary, .. } = moment;
        let health = camera.health();
        let state = match &health.state {
            CameraState::Opening => "opening".to_owned(),
            CameraState::Streaming => "running".to_owned(),
            CameraState::Away { reason, .. } => reason.to_string(),
            CameraState::Ended { .. } => "ended".to_owned(),
        };
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let (frames, looked) = (count(summary.frames), count(summary.looked));
        let since = |at: Duration| now.saturating_sub(at).as_secs_f64();
        let mut snapshot = Snapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs_f64(),
            door: DoorNow::of(keeper.door()),
            camera: CameraNow {
                state,
                since_s: since(health.since),
                frames,
                dropped: health.frames.saturating_sub(frames),
                bad: health.bad_frames,
            },
            relay: RelayNow { since_s: since(self.relay_since), ..self.relay.clone() },
            gallery: GalleryNow::of(keeper.gallery()),
            models: self.models.clone(),
            clock: match keeper.clock_trusted(*now) {
                None => ClockNow::Unneeded,
                Some(true) => ClockNow::Trusted,
                Some(false) => ClockNow::Unsure,
            },
            watchdog: WatchdogNow::of(verdict),
            timings: self.timings.spreads(),
            motion: MotionNow {
                frames,
                looked,
                share: if frames == 0 { 0.0 } else { looked as f64 / frames as f64 },
            },
            process: self.meter.measure(self.started.elapsed()),
            refreshed: Some(Instant::now()),
            ..Snapshot::default()
        };
        snapshot.count(moment.counts);
        snapshot
    }
}

#[cfg(feature = "gpio")]
impl Wired {
    fn open(
        config: &Config,
        started: Instant,
        sender: &SyncSender<Message>,
    ) -> Result<Self, PeripheralsError> {
        use crate::hardware::gpio::{Inputs, Line, Name};
        use crate::hardware::lights::{Lamp, Lamps};
        let (mut inputs, mut lamps) = (Vec::new(), Vec::new());
        for (key, uri) in config.lines() {
            let wrong = |fault: String| PeripheralsError::Line { key, fault };
            let mut line: Line = uri
                .parse()
                .map_err(|error: crate::hardware::gpio::LineError| wrong(error.to_string()))?;
            let mut input = |name| {
                line.debounce.get_or_insert(config.gpio.debounce);
                inputs.push((name, line.clone()));
            };
            match key {
                "gpio.button_outside" => input(Name::ButtonOutside),
                "gpio.button_inside" => input(Name::ButtonInside),
                "gpio.door_contact" => input(Name::Contact),
                "gpio.exit" => input(Name::Exit),
                "gpio.reset" => input(Name::Reset),
                "lights.red" => lamps.push((Lamp::Red, line)),
                "lights.green" => lamps.push((Lamp::Green, line)),
                "lights.blue" => lamps.push((Lamp::Blue, line)),
                "lights.buzzer" => lamps.push((Lamp::Buzzer, line)),
                _ => return Err(wrong(format!("{uri:?}: is wired to nothing"))),
            }
        }
        let thread = |what| move |reason| PeripheralsError::Thread { what, reason };
        Ok(Self {
            _inputs: Inputs::open(&inputs, started, sender).map_err(thread("the lines"))?,
            lamps: Lamps::start(&lamps, sender.clone()).map_err(thread("the lights"))?,
        })
    }
}

/// What happened at a line, at this time.
#[cfg(feature = "gpio")]
fn line(keeper: &mut Doorkeeper, at: Duration, event: crate::hardware::gpio::Event) -> Vec<Event> {
    use crate::access::gesture::Side;
    use crate::hardware::gpio::Name;
    match event {
        crate::hardware::gpio::Event::Edge { name, active, .. } => {
            let button = |side| Input::Button { side, pressed: active };
            let input = match (name, active) {
                (Name::ButtonInside, _) => button(Side::Inside),
                (Name::ButtonOutside, _) => button(Side::Outside),
                (Name::Contact, true) => Input::Closed,
                (Name::Contact, false) => Input::Opened,
                (Name::Exit, true) => Input::Exit,
                (Name::Reset, true) => Input::LocalReset,
                (Name::Exit | Name::Reset, false) => return Vec::new(),
            };
            keeper.input(at, input)
        }
        crate::hardware::gpio::Event::Away { name, error } => {
            vec![Event::LineAway { name: name.to_string(), reason: error }]
        }
        crate::hardware::gpio::Event::Back { name } => {
            vec![Event::LineBack { name: name.to_string() }]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "gpio")]
    #[test]
    fn what_came_during_a_long_frame_counts_from_its_own_time_and_an_exit_from_now() {
        use crate::hardware::gpio::{Event, Name};
        let started = Instant::now();
        let ms = Duration::from_millis;
        let (sender, messages) = sync_channel(8);
        let edge = |name, at| Message::Line(Event::Edge { name, active: true, at: ms(at) });
        let told = Told::Answer { order: 5, taken: true, error: None };
        let report = Report { told, at: started + ms(300) };
        for message in [
            edge(Name::Exit, 200),
            edge(Name::ButtonInside, 2400),
            Message::Relay(report),
            edge(Name::Contact, 1000),
            // As a clock that is read a moment later has it.
            edge(Name::ButtonOutside, 2600),
        ] {
            assert!(sender.try_send(message).is_ok(), "there is room");
        }
        let come: Vec<(Duration, String)> = in_turn(&messages, started, ms(2500))
            .into_iter()
            .map(|(at, message)| match message {
                Message::Relay(_) => (at, "relay".to_owned()),
                Message::Line(Event::Edge { name, .. }) => (at, format!("{name:?}")),
                Message::Line(_) | Message::Lamp(_) => unreachable!("none was sent"),
            })
            .collect();
        let expected = [
            (300, "relay"),
            (1000, "Contact"),
            (2400, "ButtonInside"),
            (2500, "Exit"),
            (2500, "ButtonOutside"),
        ];
        assert_eq!(come, expected.map(|(at, what)| (ms(at), what.to_owned())));
    }

    #[test]
    fn a_relay_is_given_up_before_the_service_but_not_for_a_slow_frame() {
        let s = Duration::from_secs;
        for (watchdog, expected) in [(None, 10), (Some(2), 2), (Some(12), 6), (Some(300), 10)] {
            assert_eq!(silence(watchdog.map(s)), s(expected), "{watchdog:?}");
        }
    }
}
