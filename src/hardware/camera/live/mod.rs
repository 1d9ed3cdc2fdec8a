//! EDGE: a camera that is reopened after every failure, on two threads. The reading
//! thread opens and reads the camera and may block on it. The camera thread supervises
//! the reading thread, so that a blocked camera never blocks the door.
//!
//! ```text
//! reading thread --(one message)--> camera thread --(newest frame, health)--> service
//!       ^                                 |
//!       +--- opened, interrupted by ------+
//! ```

mod reader;
pub mod reopen;
mod trust;

pub use trust::Changed;

use super::{CameraError, Captured, FrameLimit, Identity, Kind, redacted};
use crate::vision::frame::Frame;
use reader::{News, Reader};
use reopen::{CameraEvent, Input, Output, Patience, Reopen};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use trust::Trust;

/// Longest time between two signs of life of the camera thread.
const BEAT: Duration = Duration::from_millis(500);
/// How long the end waits for the reading thread to release the camera.
const LET_GO_WITHIN: Duration = Duration::from_secs(2);
/// A cancelled reading thread that holds the camera longer than this will never release
/// it. The camera thread then stops its sign of life: the watchdog restarts the service,
/// and the driver's thread ends with the process.
const HOLDS_FOR: Duration = Duration::from_secs(30);
/// Polling interval while the end waits.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Largest mean of all channel values, of 255, of a black picture: too dark to see a face
/// in, and above the black level of cameras that never reach 0.
const BLACK: u64 = 16;

/// Result of waiting for a frame.
#[derive(Clone, Debug)]
pub enum Taken {
    /// A frame and its capture time: on the service's clock if live, on its own clock if
    /// recorded.
    Frame(Captured),
    /// A live frame that is bit-identical to the last one, or black after a black one.
    /// Only with [`LiveCamera::expect_distinct`].
    Same,
    /// No new frame before the timeout.
    Nothing,
    /// The camera has failed and is being reopened; no frames until then.
    Away {
        /// Time of the last frame, or of the start if there was none.
        since: Duration,
        /// The fault.
        reason: Arc<str>,
    },
    /// No more frames will come; the fault, if one caused that.
    Ended(Option<Arc<str>>),
}

/// State of the camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CameraState {
    /// It is being opened for the first time.
    Opening,
    /// Frames arrive.
    Streaming,
    /// No frames arrive; it is reopened until they do.
    Away {
        /// The fault.
        reason: Arc<str>,
        /// Failed attempts to open it.
        tries: u32,
    },
    /// No more frames: the last recorded frame was taken, or the threads have ended.
    Ended {
        /// The fault, if one caused the end.
        fault: Option<Arc<str>>,
    },
}

/// State and counters of the camera; times are on the service's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CameraHealth {
    /// State of the camera.
    pub state: CameraState,
    /// When it entered that state.
    pub since: Duration,
    /// Time of the last good frame.
    pub last_frame: Option<Duration>,
    /// Last sign of life of the camera thread, at least twice a second. It stops when a
    /// cancelled reading thread never releases the camera. The watchdog is fed only while
    /// this is recent.
    pub alive: Duration,
    /// Number of good frames.
    pub frames: u64,
    /// Number of unreadable frames.
    pub bad_frames: u64,
    /// Device name and format, or the URI before the camera was opened; without
    /// passwords.
    pub told: Arc<str>,
}

/// State shared by both threads and the service.
struct Shared {
    uri: String,
    limit: FrameLimit,
    kind: Kind,
    /// Time zero of the service's clock.
    origin: Instant,
    stop: AtomicBool,
    /// Whether bit-identical frames count as a fault.
    distinct: AtomicBool,
    slot: Mutex<Slot>,
    changed: Condvar,
}

struct Slot {
    newest: Option<Captured>,
    /// Whether frames arrived that showed nothing new.
    same: bool,
    health: CameraHealth,
    trust: Trust,
}

impl Shared {
    fn new(uri: &str, limit: FrameLimit, origin: Instant) -> Result<Self, CameraError> {
        let kind = Kind::of(uri)?;
        let now = origin.elapsed();
        let health = CameraHealth {
            state: CameraState::Opening,
            since: now,
            last_frame: None,
            alive: now,
            frames: 0,
            bad_frames: 0,
            told: redacted(uri).into(),
        };
        Ok(Self {
            uri: uri.to_owned(),
            limit,
            kind,
            origin,
            stop: AtomicBool::new(false),
            distinct: AtomicBool::new(false),
            slot: Mutex::new(Slot { newest: None, same: false, health, trust: Trust::default() }),
            changed: Condvar::new(),
        })
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// A camera that is reopened after every failure. Dropping it ends it.
pub struct LiveCamera {
    shared: Arc<Shared>,
    wake: SyncSender<Message>,
    minding: Option<JoinHandle<()>>,
}

impl LiveCamera {
    /// Starts to open the camera and returns at once. `origin` is time zero of the
    /// service's clock. An error if the URI is wrong or no thread can be started.
    pub fn start(uri: &str, origin: Instant) -> Result<Self, CameraError> {
        Self::start_within(uri, FrameLimit::default(), origin)
    }

    /// [`Self::start`] with another limit on the size of frames.
    pub fn start_within(
        uri: &str,
        limit: FrameLimit,
        origin: Instant,
    ) -> Result<Self, CameraError> {
        Self::start_patient(uri, limit, origin, Patience::with(uri))
    }

    /// [`Self::start_within`] with other timeouts.
    pub fn start_patient(
        uri: &str,
        limit: FrameLimit,
        origin: Instant,
        patience: Patience,
    ) -> Result<Self, CameraError> {
        let shared = Arc::new(Shared::new(uri, limit, origin)?);
        let (sender, receiver) = sync_channel(1);
        let minder = Minder::new(Arc::clone(&shared), patience, sender.clone());
        let minding = std::thread::Builder::new()
            .name("camera".to_owned())
            .spawn(move || minder.run(&receiver))
            .map_err(|error| CameraError::Option {
                uri: uri.to_owned(),
                fault: format!("cannot start the camera thread: {error}"),
            })?;
        Ok(Self { shared, wake: sender, minding: Some(minding) })
    }

    /// Live or recorded.
    pub fn kind(&self) -> Kind {
        self.shared.kind
    }

    /// Sets whether a live camera with bit-identical frames counts as hung and is
    /// reopened. Off at the start.
    pub fn expect_distinct(&self, distinct: bool) {
        self.shared.distinct.store(distinct, Ordering::Relaxed);
    }

    /// Returns the newest frame not taken yet, or the next recorded one. Waits until one
    /// arrives, the camera fails, or `timeout` is over.
    pub fn next(&self, timeout: Duration) -> Taken {
        let slot = self.shared.slot();
        let was_away = matches!(slot.health.state, CameraState::Away { .. });
        let (mut slot, _) = self
            .shared
            .changed
            .wait_timeout_while(slot, timeout, |slot| {
                let goes_on = match slot.health.state {
                    CameraState::Opening | CameraState::Streaming => true,
                    CameraState::Away { .. } => was_away,
                    CameraState::Ended { .. } => false,
                };
                slot.newest.is_none() && !slot.same && goes_on
            })
            .unwrap_or_else(PoisonError::into_inner);
        let same = std::mem::take(&mut slot.same);
        if let Some(captured) = slot.newest.take() {
            drop(slot);
            // The camera thread hands over the next recorded frame only now.
            self.shared.changed.notify_all();
            return Taken::Frame(captured);
        }
        if same {
            return Taken::Same;
        }
        match &slot.health.state {
            CameraState::Opening | CameraState::Streaming => Taken::Nothing,
            CameraState::Away { reason, .. } => {
                Taken::Away { since: slot.health.since, reason: Arc::clone(reason) }
            }
            CameraState::Ended { fault } => Taken::Ended(fault.clone()),
        }
    }

    /// Whether another camera answers than the one that was there first or was accepted
    /// last. Its frames must not open the door. Survives until [`Self::accept`], until the
    /// first camera is back, or until the process ends.
    pub fn changed(&self) -> Option<Changed> {
        self.shared.slot().trust.changed()
    }

    /// Behaves as if this camera had been opened: for tests without devices.
    #[doc(hidden)]
    pub fn opened_as(&self, identity: Identity) {
        self.shared.slot().trust.opened(Some(identity));
    }

    /// Accepts the camera that is there now.
    pub fn accept(&self) {
        self.shared.slot().trust.accept();
    }

    /// State and counters of the camera.
    pub fn health(&self) -> CameraHealth {
        self.shared.slot().health.clone()
    }

    /// Ends the camera, including the program of a `pipe:`, and waits up to two seconds
    /// until it is released.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
        // If the channel is full, the camera thread is awake already.
        let _ = self.wake.try_send(Message { generation: 0, news: News::Wake });
        if let Some(minding) = self.minding.take() {
            let _ = minding.join();
        }
    }
}

impl Drop for LiveCamera {
    fn drop(&mut self) {
        self.stop();
    }
}

/// News from a reading thread to the camera thread.
struct Message {
    /// Number of the reading thread; 0 if from none.
    generation: u64,
    news: News,
}

/// The camera thread.
struct Minder {
    shared: Arc<Shared>,
    reopen: Reopen,
    sender: SyncSender<Message>,
    reader: Option<Reader>,
    /// A cancelled reading thread that has not ended yet, and when it was cancelled.
    old: Option<(JoinHandle<()>, Duration)>,
    /// Number of the last reading thread.
    generation: u64,
    /// CRC-32 of the last live frame.
    last: Option<u32>,
    /// Whether the current lack of frames was logged.
    told_away: bool,
}

/// Reports the end of the camera thread when dropped, also after a panic.
struct LastWord(Arc<Shared>);

impl Drop for LastWord {
    fn drop(&mut self) {
        let mut slot = self.0.slot();
        if !matches!(slot.health.state, CameraState::Ended { .. }) {
            let fault = std::thread::panicking().then(|| "the camera thread panicked".into());
            slot.health.state = CameraState::Ended { fault };
            slot.health.since = self.0.now();
        }
        drop(slot);
        self.0.changed.notify_all();
    }
}

impl Minder {
    fn new(shared: Arc<Shared>, patience: Patience, sender: SyncSender<Message>) -> Self {
        let reopen = Reopen::new(shared.now(), patience);
        let (reader, old, generation, last) = (None, None, 0, None);
        Self { shared, reopen, sender, reader, old, generation, last, told_away: false }
    }

    fn run(mut self, receiver: &Receiver<Message>) {
        let _last_word = LastWord(Arc::clone(&self.shared));
        while !self.shared.stopped() {
            let wait = match self.shared.kind {
                // A recording is opened once and never reopened.
                Kind::Recorded if self.generation > 0 => BEAT,
                _ => self.reopen.wake().saturating_sub(self.shared.now()).min(BEAT),
            };
            // Messages of a cancelled reading thread are ignored.
            let news = match receiver.recv_timeout(wait) {
                Ok(message) if message.generation == self.generation => Some(message.news),
                Ok(_) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
            };
            let now = self.shared.now();
            self.show_life(now);
            let goes_on = match self.shared.kind {
                Kind::Live => self.live(now, news),
                Kind::Recorded => self.recorded(now, news),
            };
            if !goes_on {
                break;
            }
        }
        // The reading thread may block on a full channel, so the channel is drained.
        self.let_go();
        let asked = Instant::now();
        while self.old.as_ref().is_some_and(|(old, _)| !old.is_finished())
            && asked.elapsed() < LET_GO_WITHIN
        {
            while receiver.try_recv().is_ok() {}
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Gives a sign of life, unless a cancelled reading thread never releases the camera:
    /// only a restart of the process helps then.
    fn show_life(&self, now: Duration) {
        let holds = |(old, since): &(JoinHandle<()>, Duration)| {
            now >= *since + HOLDS_FOR && !old.is_finished()
        };
        if !self.old.as_ref().is_some_and(holds) {
            self.shared.slot().health.alive = now;
        }
    }

    /// Feeds news of a live camera to the state machine and carries out its actions.
    fn live(&mut self, now: Duration, news: Option<News>) -> bool {
        let event = match news {
            None | Some(News::Wake) => Input::Tick,
            Some(News::Opened(told, identity)) => {
                let mut slot = self.shared.slot();
                // Before its first frame is handed over. A frame of the one before is gone.
                slot.trust.opened(identity);
                slot.newest = None;
                if let Some(told) = told {
                    slot.health.told = told;
                }
                Input::Opened
            }
            Some(News::Frame(captured)) => match self.same(&captured.frame) {
                Some(dark) => {
                    self.show_same();
                    Input::Same { dark }
                }
                None => {
                    self.show(now, captured);
                    Input::Frame
                }
            },
            Some(News::Bad(reason)) => {
                self.shared.slot().health.bad_frames += 1;
                Input::Bad(reason)
            }
            Some(News::Failed(reason)) => Input::Failed(reason),
            Some(News::Ended) => Input::Ended,
        };
        let mut actions = self.reopen.step(now, event);
        // Opening may fail at once, which is the next event.
        while !actions.is_empty() {
            let mut next = None;
            for action in actions {
                match action {
                    Output::Open => next = self.open().err().map(Input::Failed),
                    Output::Close => self.let_go(),
                    Output::Report(event) => self.tell(&event),
                }
            }
            actions = next.map_or_else(Vec::new, |event| self.reopen.step(now, event));
        }
        self.publish(now);
        true
    }

    fn tell(&mut self, event: &CameraEvent) {
        let told = Arc::clone(&self.shared.slot().health.told);
        match event {
            CameraEvent::There { .. } => {
                self.told_away = false;
                log::info!("{event}: {told}");
            }
            // The first fault is an event, so it is not logged here as well.
            CameraEvent::Away { .. } if !self.told_away => {
                self.told_away = true;
                log::debug!("{event}");
            }
            CameraEvent::Away { .. } => log::error!("{event}"),
            CameraEvent::Bad { .. } => log::warn!("{event}"),
        }
    }

    /// Publishes the camera's state to the service.
    fn publish(&self, now: Duration) {
        let mut slot = self.shared.slot();
        let (state, since) = match self.reopen.away() {
            Some((since, reason, tries)) => {
                (CameraState::Away { reason: reason.into(), tries }, since)
            }
            None if slot.health.frames > 0 => (CameraState::Streaming, now),
            None => (CameraState::Opening, slot.health.since),
        };
        let same = std::mem::discriminant(&state) == std::mem::discriminant(&slot.health.state);
        slot.health.state = state;
        if !same {
            slot.health.since = since;
            drop(slot);
            self.shared.changed.notify_all();
        }
    }

    /// If frames must differ and this one shows nothing new: whether it is black. Else
    /// `None`.
    fn same(&mut self, frame: &Frame) -> Option<bool> {
        if !self.shared.distinct.load(Ordering::Relaxed) {
            self.last = None;
            return None;
        }
        let digest = Some(crc32fast::hash(frame.pixels()));
        let repeats = std::mem::replace(&mut self.last, digest) == digest;
        if !repeats && !self.reopen.is_dark() {
            return None;
        }
        let dark = is_black(frame);
        (repeats || dark).then_some(dark)
    }

    /// Tells the service that a frame came that it need not process.
    fn show_same(&self) {
        let mut slot = self.shared.slot();
        slot.same = true;
        slot.health.frames += 1;
        drop(slot);
        self.shared.changed.notify_all();
    }

    /// Hands the frame to the service.
    fn show(&self, now: Duration, captured: Captured) {
        let mut slot = self.shared.slot();
        slot.newest = Some(captured);
        slot.health.frames += 1;
        slot.health.last_frame = Some(now);
        drop(slot);
        self.shared.changed.notify_all();
    }

    /// Hands over recorded frames one by one. A recording is never reopened.
    fn recorded(&mut self, now: Duration, news: Option<News>) -> bool {
        let shared = Arc::clone(&self.shared);
        let ended = |fault: Option<String>| {
            let mut slot = shared.slot();
            let fault = fault.map(Arc::from);
            slot.health.state = CameraState::Ended { fault };
            slot.health.since = now;
            false
        };
        match news {
            None if self.generation == 0 => match self.open() {
                Ok(()) => true,
                Err(fault) => ended(Some(fault)),
            },
            None | Some(News::Wake | News::Opened(..)) => true,
            Some(News::Bad(reason)) => {
                log::error!("{reason}");
                self.shared.slot().health.bad_frames += 1;
                true
            }
            Some(News::Failed(reason)) => ended(Some(reason)),
            Some(News::Ended) => ended(None),
            Some(News::Frame(captured)) => {
                self.show(now, captured);
                let mut slot = self.shared.slot();
                if slot.health.state == CameraState::Opening {
                    (slot.health.state, slot.health.since) = (CameraState::Streaming, now);
                }
                // Wait until the frame is taken, with signs of life meanwhile.
                while slot.newest.is_some() && !self.shared.stopped() {
                    let waited = self.shared.changed.wait_timeout(slot, BEAT);
                    (slot, _) = waited.unwrap_or_else(PoisonError::into_inner);
                    slot.health.alive = self.shared.now();
                }
                true
            }
        }
    }

    /// Starts a reading thread; an error while the last one still holds the camera.
    fn open(&mut self) -> Result<(), String> {
        if let Some((old, _)) = self.old.take_if(|(old, _)| old.is_finished()) {
            // It catches its own panics.
            let _ = old.join();
        }
        if self.old.is_some() {
            return Err("the previous reading thread still holds the camera".to_owned());
        }
        self.generation += 1;
        let (generation, sender) = (self.generation, self.sender.clone());
        let Shared { uri, limit, origin, .. } = &*self.shared;
        let (uri, limit, origin) = (uri.clone(), *limit, *origin);
        let tell = move |news| sender.send(Message { generation, news }).is_ok();
        let reader = Reader::start(uri, limit, origin, tell)
            .map_err(|error| format!("cannot start the reading thread: {error}"))?;
        self.reader = Some(reader);
        Ok(())
    }

    /// Cancels the reading thread without waiting for its end.
    fn let_go(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.generation += 1;
            self.old = Some((reader.cancel(), self.shared.now()));
        }
    }
}

fn is_black(frame: &Frame) -> bool {
    let pixels = frame.pixels();
    let sum: u64 = pixels.iter().map(|value| u64::from(*value)).sum();
    sum <= BLACK * pixels.len() as u64
}

#[cfg(test)]
mod tests;
