//! EDGE: everything around the door except the camera: relay, GPIO lines, lights, control
//! socket and watchdog. Each has threads of its own; the service visits them between two
//! frames.

use super::audit::AuditThread;
use super::control::{Control, ControlSettings, Order, SocketError, unknown_names};
use super::last_relay::take_over;
use super::link::{Link, LinkSettings};
use super::message::{MAX_MESSAGES, Message, in_turn};
use super::orders::Orders;
use super::pipeline::{Pipeline, RelayHandle};
use super::reload::Reload;
use super::run::BetweenFrames;
use super::site::{ModelPlace, Site, SiteRules, SiteSettings};
use super::status::{Status, StatusBoard};
use super::watchdog::judge::WatchdogSettings;
use super::watchdog::systemd::Notification;
use super::watchdog::{Heartbeats, Watchdog};
#[cfg(feature = "gpio")]
use super::wiring::Wiring;
use crate::access::event::{Event, plain};
use crate::config::Config;
use crate::hardware::camera::Kind;
use crate::hardware::relay::link::RelayEvent;
use crate::hardware::relay::{Relay, RelayError, RelayLink, Report};
use crate::storage::audit::AuditPlace;
use crate::storage::gallery::Register;
use crate::storage::keys::DoorKeys;
use crate::storage::last_relay::{LastRelay, LastRelayFile, LastRelayLock};
use crate::storage::lockdown::{LockdownFile, LockdownWriter};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use thiserror::Error;

/// A relay that is on is switched off after this silence of the service, or after half the
/// watchdog's time limit if that is shorter: before the service is ended.
const SILENCE: Duration = Duration::from_secs(10);
/// Shortest such silence: a frame on a slow board, or a write to a slow card, may take
/// this long.
const SHORTEST_SILENCE: Duration = Duration::from_secs(2);
/// Silence allowed to a thread before the first frame: opening a camera may take its time.
const GRACE: Duration = Duration::from_secs(60);

/// Why the door cannot be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// The relay.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] SocketError),
    /// The URI of a GPIO line.
    #[error("{key} = {fault}")]
    Line {
        /// The key in the configuration.
        key: &'static str,
        /// The fault and the expected form.
        fault: String,
    },
    /// A thread cannot be started.
    #[error("cannot start the thread of {what}: {reason}")]
    Thread {
        /// Purpose of the thread.
        what: &'static str,
        /// The system's error.
        reason: std::io::Error,
    },
}

/// Everything around the door except the camera.
pub struct Peripherals {
    messages: Receiver<Message>,
    #[cfg(feature = "gpio")]
    wiring: Wiring,
    orders: Orders,
    reload: Arc<Reload>,
    /// What systemd was notified of last: reloading or ready.
    notified_reloading: Option<bool>,
    /// Number of reloads seen so far.
    reloads: u32,
    beats: Arc<Heartbeats>,
    watchdog: Watchdog,
    status: StatusBoard,
    link: Option<Link>,
    site: Option<Arc<Site>>,
    /// Tells others that a service has the relay.
    _last_relay: Option<LastRelayLock>,
}

/// What the link shows of its door.
pub struct LinkOf<'a> {
    /// Name of the door; `None` if it is the only one of the board.
    pub door: Option<&'a str>,
    /// Its keys, if they could be opened.
    pub keys: Option<&'a DoorKeys>,
    /// Its audit log.
    pub audit: &'a AuditThread,
}

/// The first two steps of the start: the relay, which is ordered to lock, and the socket,
/// of which each door has one.
pub struct Startup {
    sender: SyncSender<Message>,
    messages: Receiver<Message>,
    relay: RelayHandle,
    control: Option<(Control, Receiver<Order>)>,
    status: Arc<Mutex<Status>>,
    lockdown: LockdownFile,
    last_relay: Option<LastRelayLock>,
}

impl Startup {
    /// Locks the door before models and people are read, which may take minutes: a service
    /// that was killed may have left the relay open. A missing relay is waited for. For
    /// recorded frames the relay has no thread, because devices do not follow recorded
    /// time. The relay is kept in `file` for the next start.
    ///
    /// # Errors
    /// If the control socket cannot be opened, or the thread of the relay cannot be started.
    pub fn begin(
        config: &Config,
        relay: Relay,
        frames: Kind,
        (file, kept): (&LastRelayFile, LastRelay),
    ) -> Result<Self, StartError> {
        let lockdown = LockdownFile::beside(&config.gallery_file());
        let status = Arc::new(Mutex::new(Status::starting(lockdown.holds())));
        for (key, name) in unknown_names(&config.roles) {
            log::warn!("{key}: {name:?} is no user or group of this system, and gets no role");
        }
        let settings = ControlSettings {
            roles: config.roles.clone(),
            starting: Some(lockdown.clone()),
            ..ControlSettings::default()
        };
        let control = Control::listen(&config.status_socket(), Arc::clone(&status), settings);
        let control = match control {
            Ok(control) => Some(control),
            // Two services at one door would fight over the lock.
            Err(error @ (SocketError::Taken { .. } | SocketError::Foreign { .. })) => {
                return Err(error.into());
            }
            Err(error) => {
                log::warn!("{error}; facelatch status and facelatch door will not work");
                None
            }
        };
        // Now this is the only service at the door.
        let last_relay = take_over(file, kept);
        let (sender, messages) = sync_channel(MAX_MESSAGES);
        let locked = config.door.lock.energised(false);
        let silence = silence(config.watchdog());
        let relay = match frames {
            Kind::Live => {
                RelayHandle::Link(RelayLink::start(relay, locked, Some(silence), sender.clone())?)
            }
            Kind::Recorded => RelayHandle::Direct(relay),
        };
        Ok(Self { sender, messages, relay, control, status, lockdown, last_relay })
    }

    /// Opens everything else that the configuration names. Missing devices are waited for;
    /// only a device that can never work is an error. `started` is time zero. `on_stuck` gets the reason if a thread is stuck:
    /// it must end the process, on a thread that waits for no other without a limit.
    ///
    /// # Errors
    /// If the URI of a GPIO line is wrong, or a thread cannot be started.
    pub fn open(
        self,
        config: &Config,
        started: Instant,
        reload: Arc<Reload>,
        on_stuck: impl FnOnce(&str) + Send + 'static,
    ) -> Result<(Peripherals, RelayHandle), StartError> {
        let Self { sender, messages, relay, control, status, lockdown, last_relay } = self;
        // The relay's thread has its own.
        #[cfg(not(feature = "gpio"))]
        drop(sender);
        let (beats, state) = match &relay {
            RelayHandle::Link(link) => (Heartbeats::relay(link.pulse()), "opening"),
            RelayHandle::Direct(_) => (Heartbeats::default(), "answering"),
        };
        let beats = Arc::new(beats);
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
        let thread = |what| move |reason| StartError::Thread { what, reason };
        let watchdog = Watchdog::start(Arc::clone(&beats), settings, on_stuck)
            .map_err(thread("the watchdog"))?;
        let lockdown = LockdownWriter::start(lockdown).map_err(thread("the lockdown file"))?;
        let peripherals = Peripherals {
            messages,
            #[cfg(feature = "gpio")]
            wiring: Wiring::open(config, started, &sender)?,
            orders: Orders::new(control, lockdown),
            reload,
            notified_reloading: None,
            reloads: 0,
            beats,
            watchdog,
            status: StatusBoard::new(status, started, state),
            link: None,
            site: None,
            _last_relay: last_relay,
        };
        Ok((peripherals, relay))
    }
}

impl Peripherals {
    /// Takes up the door's membership in a site, if the configuration has one. The door works
    /// without it. `models`: the version in use, and where sets are installed.
    pub fn open_site(
        &mut self,
        config: &Config,
        models: (&str, Option<ModelPlace>),
        of: &LinkOf<'_>,
        rules: Arc<SiteRules>,
    ) {
        let (Some(key), LinkOf { door, keys, audit }) = (config.site_key(), of) else { return };
        let Some(keys) = keys else {
            return log::error!("site: needs the door's key; mend what is said above");
        };
        let name = config.site.door.as_deref().or(*door);
        let settings = SiteSettings {
            key,
            secret: keys.site(),
            door: name.map_or_else(host, str::to_owned),
            on_lease_end: config.site.on_lease_end,
            gallery: config.gallery_file(),
            register: Register::of_user(),
            models: models.0.to_owned(),
            place: models.1,
            rules,
            auditor: audit.auditor(),
        };
        match Site::start(settings) {
            Ok(site) => {
                let site = Arc::new(site);
                self.status.set_site(site.ends());
                self.orders.set_site(Arc::clone(&site));
                self.site = Some(site);
            }
            Err(error) => log::error!("{error}; the door works without its site"),
        }
    }

    /// The site of the door.
    pub fn site(&self) -> Option<Arc<Site>> {
        self.site.clone()
    }

    /// Opens the socket of the link, if the configuration has one. The door works without it.
    pub fn open_link(&mut self, config: &Config, of: LinkOf<'_>) {
        let Some(socket) = &config.link.socket else { return };
        let LinkOf { door, keys, audit } = of;
        let (Some(orders), Some(keys)) = (self.orders.queue(), keys) else {
            let what = "link.socket is not opened: it needs the control socket and the door's key";
            return log::error!("{what}; mend what is said above, and restart the service");
        };
        let settings = LinkSettings {
            config: config.link.clone(),
            door: door.map_or_else(host, str::to_owned),
            key: keys.signer().public(),
            pseudonyms: keys.pseudonyms(),
            orders,
            status: self.status.shared(),
            place: AuditPlace::of(&config.gallery_file()),
            auditor: audit.auditor(),
            site: self.site.as_ref().map(|site| site.ends()),
            patience: LinkSettings::PATIENCE,
        };
        match Link::listen(socket, settings) {
            Ok(link) => {
                self.status.set_link(link.state());
                self.link = Some(link);
            }
            Err(error) => log::error!("{error}; the door works without its link"),
        }
    }

    /// Takes up lockdown if it held when the last service ended.
    pub fn restore(&self, pipeline: &mut Pipeline) -> Vec<Event> {
        self.orders.restore(pipeline)
    }

    /// Notifies systemd that the service is stopping.
    pub fn stopping(&self) {
        self.watchdog.notify(Notification::Stopping);
    }

    /// Notifies systemd when a reload starts and ends.
    fn notify_reload(&mut self) {
        let reloading = self.reload.pending();
        let times = self.reload.times.load(Ordering::Relaxed);
        let missed = std::mem::replace(&mut self.reloads, times) != times;
        if missed && self.notified_reloading == Some(false) {
            // It started and ended between two frames.
            self.notified_reloading = Some(true);
            self.watchdog.notify(Notification::Reloading);
        }
        if self.notified_reloading != Some(reloading) {
            self.notified_reloading = Some(reloading);
            let notification =
                if reloading { Notification::Reloading } else { Notification::Ready };
            self.watchdog.notify(notification);
        }
    }

    /// Between two frames: takes the reports of all devices and the orders of clients, and
    /// refreshes what they see.
    pub fn visit(&mut self, pipeline: &mut Pipeline, between: &BetweenFrames<'_>) -> Vec<Event> {
        let now = between.now;
        self.beats.recognizer();
        self.notify_reload();
        // The camera's thread gives a sign of life twice per second.
        let alive = between.camera.health().alive;
        if self.status.started().elapsed().saturating_sub(alive) < Duration::from_secs(2) {
            self.beats.camera();
        }
        let mut events = Vec::new();
        for (at, message) in in_turn(&self.messages, self.status.started(), now) {
            events.extend(self.message(pipeline, at, message));
        }
        events.extend(self.orders.visit(pipeline, now, &self.reload, self.status.relay()));
        if let Some(link) = &mut self.link {
            link.visit(pipeline);
        }
        if let Some(site) = &self.site {
            pipeline.set_site_people(site.people());
            site.set_models(&pipeline.models_now().version);
        }
        while let Some(signal) = pipeline.signal() {
            #[cfg(feature = "gpio")]
            self.wiring.show(signal);
            #[cfg(not(feature = "gpio"))]
            let _ = signal;
        }
        if let Some(took) = between.took {
            self.status.add(pipeline, took);
        }
        if self.status.is_due() || self.orders.any_done() {
            let line = self.status.refresh(pipeline, between, self.watchdog.verdict());
            if let Some(line) = line {
                self.watchdog.notify(Notification::Status(line));
            }
        }
        self.orders.answer_all();
        events
    }

    fn message(&mut self, pipeline: &mut Pipeline, at: Duration, message: Message) -> Vec<Event> {
        match message {
            Message::Relay(Report { event, .. }) => {
                let state = match &event {
                    RelayEvent::Answer { taken: true, .. } | RelayEvent::Back { .. } => {
                        Some("answering")
                    }
                    RelayEvent::Away { error } => Some(&error[..]),
                    RelayEvent::Answer { taken: false, .. }
                    | RelayEvent::Drifted { .. }
                    | RelayEvent::Abandoned
                    | RelayEvent::Expired => None,
                };
                if let Some(state) = state {
                    self.status.set_relay(at, state);
                }
                pipeline.relay_report(at, event)
            }
            #[cfg(feature = "gpio")]
            Message::Line(event) => line(pipeline, at, event),
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
}

/// Takes an event of an input line.
#[cfg(feature = "gpio")]
fn line(
    pipeline: &mut Pipeline,
    at: Duration,
    event: crate::hardware::gpio::LineEvent,
) -> Vec<Event> {
    use crate::access::controller::Input;
    use crate::access::door;
    use crate::access::gesture::Side;
    use crate::hardware::gpio::{LineEvent, Name};
    match event {
        LineEvent::Edge { name, active, .. } => {
            let button = |side| Input::Button { side, pressed: active };
            let input = match (name, active) {
                (Name::ButtonInside, _) => button(Side::Inside),
                (Name::ButtonOutside, _) => button(Side::Outside),
                (Name::Contact, true) => Input::Door(door::Input::Closed),
                (Name::Contact, false) => Input::Door(door::Input::Opened),
                (Name::Exit, true) => Input::Door(door::Input::Exit),
                (Name::Reset, true) => Input::LocalReset,
                (Name::Exit | Name::Reset, false) => return Vec::new(),
            };
            pipeline.input(at, input)
        }
        LineEvent::Away { name, error } => {
            vec![Event::LineAway { name: name.to_string(), reason: error }]
        }
        LineEvent::Back { name } => vec![Event::LineBack { name: name.to_string() }],
    }
}

/// Name of the board.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "door".to_owned() } else { plain(name).into_owned() }
}

fn silence(watchdog: Option<Duration>) -> Duration {
    watchdog.map_or(SILENCE, |patience| patience / 2).clamp(SHORTEST_SILENCE, SILENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_given_up_before_the_service_but_not_for_a_slow_frame() {
        let s = Duration::from_secs;
        for (watchdog, expected) in [(None, 10), (Some(2), 2), (Some(12), 6), (Some(300), 10)] {
            assert_eq!(silence(watchdog.map(s)), s(expected), "{watchdog:?}");
        }
    }
}
