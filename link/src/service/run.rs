//! EDGE: runs the service: threads, clocks, signals and systemd around [`Core`].

use super::core::{Action, Core, Now};
use super::status::{Status, status_file};
use super::wiring;
use crate::config::Config;
use crate::door::{Door, DoorReport};
use crate::events::cursor::{CursorFile, Cursors};
use crate::home::door_name;
use crate::mqtt::{Client, Full, Report};
use crate::webhook::{Outcome, Webhook};
use sd_notify::NotifyState;
use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use thiserror::Error;

/// Reports that wait. Each may be a record, so they are few.
const WAITING: usize = 32;
/// Bytes for the door from which on nothing is read from the broker, and below which it is
/// again.
const HOLD: usize = 1 << 20;
const RESUME: usize = 256 << 10;
/// Longest time between two looks at everything.
const TURN: Duration = Duration::from_secs(5);
/// While events come fast, cursors are saved this often.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// The status is written this often even if nothing changes.
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// Time for the goodbye to the broker.
const GOODBYE: Duration = Duration::from_secs(3);

/// The service cannot run.
#[derive(Debug, Error)]
pub enum RunError {
    /// A file of the configuration, or what is remembered, cannot be read.
    #[error("{0}")]
    File(String),
    /// The system has no threads or sockets left.
    #[error("threads and signals: {0}")]
    System(#[from] std::io::Error),
}

/// What threads report.
enum Input {
    Door(DoorReport),
    Broker(Report),
    Posted(Outcome),
    Stop,
}

impl From<DoorReport> for Input {
    fn from(report: DoorReport) -> Self {
        Self::Door(report)
    }
}

impl From<Report> for Input {
    fn from(report: Report) -> Self {
        Self::Broker(report)
    }
}

impl From<Outcome> for Input {
    fn from(outcome: Outcome) -> Self {
        Self::Posted(outcome)
    }
}

/// Links the door until a signal ends the program.
///
/// # Errors
/// If a file cannot be read, or the system gives no threads.
pub fn run(config: &Config) -> Result<(), RunError> {
    let folder = &config.service.state;
    if let Err(error) = std::fs::create_dir_all(folder) {
        return Err(RunError::File(format!("{}: {error}", folder.display())));
    }
    let (stop, stopped) = UnixStream::pair()?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::low_level::pipe::register(signal, stop.try_clone()?)?;
    }
    // A door with another key has other topics, so everything begins again.
    while !Service::start(config, stopped.try_clone()?)?.serve() {}
    Ok(())
}

struct Service<'c> {
    config: &'c Config,
    core: Core,
    began: Instant,
    inputs: Receiver<Input>,
    sender: SyncSender<Input>,
    door: Door,
    client: Option<Client>,
    session: u64,
    webhook: Option<Webhook>,
    file: CursorFile,
    saved: Cursors,
    saved_at: Option<Instant>,
    status: Status,
    status_path: PathBuf,
    again: bool,
}

impl<'c> Service<'c> {
    fn start(config: &'c Config, stopped: UnixStream) -> Result<Self, RunError> {
        let file = CursorFile::new(&config.service.state);
        let saved = file.load().map_err(RunError::File)?.unwrap_or_default();
        let (sender, inputs) = sync_channel(WAITING);
        let target = wiring::target(config).map_err(RunError::File)?;
        let webhook = target.map(|target| Webhook::start(target, sender.clone())).transpose()?;
        let door = Door::start(config.door.socket.clone(), sender.clone())?;
        let to = sender.clone();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            use std::io::Read;
            let _ = (&stopped).read(&mut [0]);
            let _ = to.send(Input::Stop);
        })?;
        Ok(Self {
            config,
            core: Core::new(wiring::core(config), &saved),
            began: Instant::now(),
            inputs,
            sender,
            door,
            client: None,
            session: 0,
            webhook,
            file,
            saved,
            saved_at: None,
            status: Status::default(),
            status_path: status_file(),
            again: false,
        })
    }

    fn now(&self) -> Now {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            instant: Instant::now(),
            running: self.began.elapsed(),
            wall_us: i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        }
    }

    /// Whether the program ends; else everything begins again.
    fn serve(mut self) -> bool {
        let _ = sd_notify::notify(&[NotifyState::Ready]);
        let watchdog = sd_notify::watchdog_enabled().filter(|time| !time.is_zero());
        let turn = watchdog.map_or(TURN, |time| (time / 3).min(TURN));
        loop {
            let now = self.now();
            let actions = self.core.step(now);
            for action in actions {
                self.act(action);
            }
            self.save();
            self.show();
            if watchdog.is_some() {
                let _ = sd_notify::notify(&[NotifyState::Watchdog]);
            }
            if self.again {
                self.close();
                return false;
            }
            if let Some(client) = &self.client {
                let waiting = self.door.waiting();
                if waiting > HOLD {
                    client.hold(true);
                } else if waiting < RESUME {
                    client.hold(false);
                }
            }
            let mut pause = turn;
            if let Some(due) = self.core.due() {
                pause = pause.min(due.saturating_sub(self.began.elapsed()));
            }
            match self.inputs.recv_timeout(pause) {
                Ok(Input::Door(report)) => {
                    let now = self.now();
                    self.core.door_report(report, now);
                }
                Ok(Input::Broker(report)) => {
                    if let Report::Connected { session } = &report {
                        self.session = *session;
                    }
                    let now = self.now();
                    self.core.broker_report(report, now);
                }
                Ok(Input::Posted(outcome)) => {
                    let now = self.now();
                    self.core.posted(outcome, now);
                }
                Ok(Input::Stop) => {
                    let _ = sd_notify::notify(&[NotifyState::Stopping]);
                    self.close();
                    return true;
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }

    fn act(&mut self, action: Action) {
        let full = match action {
            Action::ToDoor(message) => {
                self.door.send(&message);
                Ok(())
            }
            Action::ConnectDoorAgain => {
                self.door.connect_again();
                Ok(())
            }
            Action::Log(level, text) => {
                log::log!(level, "{text}");
                Ok(())
            }
            Action::Identity(identity) => {
                if self.client.is_some() {
                    log::info!("the door has another key or site than before; beginning again");
                    self.again = true;
                    return;
                }
                match wiring::broker(self.config, &identity.topics) {
                    Ok(None) => self.core.fault("broker", None),
                    Ok(Some(settings)) => match Client::start(settings, self.sender.clone()) {
                        Ok(client) => self.client = Some(client),
                        Err(error) => self.core.fault("broker", Some(error.to_string())),
                    },
                    Err(fault) => self.core.fault("broker", Some(fault)),
                }
                Ok(())
            }
            Action::Post(post) => {
                if let Some(webhook) = &self.webhook {
                    // One at a time: the thread is free.
                    webhook.send(post);
                }
                Ok(())
            }
            Action::Publish { ticket, publish } => {
                self.client.as_ref().map_or(Ok(()), |c| c.publish(self.session, ticket, publish))
            }
            Action::Subscribe { ticket, subscriptions } => self
                .client
                .as_ref()
                .map_or(Ok(()), |c| c.subscribe(self.session, ticket, subscriptions)),
            Action::Unsubscribe(filters) => {
                self.client.as_ref().map_or(Ok(()), |c| c.unsubscribe(self.session, filters))
            }
        };
        if full == Err(Full) {
            let fault = "it takes messages too slowly; one was left out".to_owned();
            self.core.fault("topic", Some(fault));
        }
    }

    /// Saves cursors: at once if nothing waits, and now and then while events come fast.
    fn save(&mut self) {
        let cursors = self.core.cursors();
        let soon = self.core.waiting() > 0
            && self.saved_at.is_some_and(|saved| saved.elapsed() < SAVE_EVERY);
        if cursors != self.saved && !soon {
            self.save_now(cursors);
        }
    }

    fn save_now(&mut self, cursors: Cursors) {
        self.saved_at = Some(Instant::now());
        match self.file.save(&cursors) {
            Ok(()) => {
                self.saved = cursors;
                self.core.fault("storage", None);
            }
            Err(error) => {
                let fault = format!("{}: {error}; free some space", self.file.path().display());
                self.core.fault("storage", Some(fault));
            }
        }
    }

    /// Shows the state to systemd and in the status file.
    fn show(&mut self) {
        let mut status = Status {
            time_s: self.status.time_s,
            door: self.core.door().map(door_name),
            broker: self.config.mqtt.url.as_ref().map(|_| self.core.broker()),
            waiting: self.core.waiting(),
            arrived: self.core.cursors(),
            faults: self.core.faults().iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(),
        };
        let now_s = self.now().wall_us / 1_000_000;
        let every = STATUS_EVERY.as_secs() as i64;
        let fast = now_s == status.time_s && status.waiting > 0;
        if (status == self.status && (now_s - status.time_s).abs() < every) || fast {
            return;
        }
        if status.summary() != self.status.summary() {
            let summary = status.summary();
            let _ = sd_notify::notify(&[NotifyState::Status(&summary)]);
        }
        status.time_s = now_s;
        // Without such a folder there is no status, as when it is tried by hand.
        let _ = status.write(&self.status_path);
        self.status = status;
    }

    fn close(&mut self) {
        let actions = self.core.goodbye();
        for action in actions {
            self.act(action);
        }
        if let Some(client) = self.client.take() {
            client.close(GOODBYE);
        }
        while let Ok(input) = self.inputs.try_recv() {
            if let Input::Broker(report) = input {
                let now = self.now();
                self.core.broker_report(report, now);
            }
        }
        let cursors = self.core.cursors();
        if cursors != self.saved {
            self.save_now(cursors);
        }
    }
}

impl Status {
    /// One line.
    pub fn summary(&self) -> String {
        let door = self.door.as_ref().map_or("door away".to_owned(), |door| format!("door {door}"));
        let broker = match self.broker {
            None => "",
            Some(true) => ", broker connected",
            Some(false) => ", broker away",
        };
        let faults: BTreeMap<&String, &String> = self
            .faults
            .iter()
            .filter(|(place, _)| *place != "door" && *place != "broker")
            .collect();
        let faults: String = faults.keys().map(|place| format!(", fault: {place}")).collect();
        format!("{door}{broker}{faults}")
    }
}
