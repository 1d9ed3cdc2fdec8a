//! EDGE: the heartbeats of the threads, and the thread that judges them.
//!
//! Each watched thread records heartbeats. The watchdog thread judges them ([`judge`]),
//! feeds systemd's watchdog while no thread is stuck, and ends the service once one is.

pub mod judge;
pub mod systemd;

use crate::hardware::relay::RelayPulse;
use judge::{Beats, Judge, Verdict, WatchdogSettings, Who};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use systemd::Notification;

/// Capacity for messages to systemd; what does not fit is dropped.
const WAITING: usize = 16;
/// How long the end waits until all messages are sent, on a busy machine.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The last heartbeat of each thread. A heartbeat costs one atomic store, so threads may
/// record it as often as they like.
#[derive(Debug)]
pub struct Heartbeats {
    started: Instant,
    /// Milliseconds since `started`, plus one; 0 means never.
    recognizer: AtomicU64,
    camera: AtomicU64,
    /// The relay thread records its own heartbeat.
    relay: Option<RelayPulse>,
}

impl Default for Heartbeats {
    fn default() -> Self {
        let never = || AtomicU64::new(0);
        Self { started: Instant::now(), recognizer: never(), camera: never(), relay: None }
    }
}

impl Heartbeats {
    /// Heartbeats of a door whose relay has a thread.
    pub fn relay(pulse: RelayPulse) -> Self {
        Self { relay: Some(pulse), ..Self::default() }
    }

    /// Records a heartbeat of the thread that processes frames.
    pub fn recognizer(&self) {
        self.beat(&self.recognizer);
    }

    /// Records a heartbeat of the camera thread, whether frames come or not.
    pub fn camera(&self) {
        self.beat(&self.camera);
    }

    /// Time since the start, and the last heartbeat of each thread.
    pub fn read(&self) -> (Duration, Beats) {
        let last = |beat: &AtomicU64| {
            beat.load(Ordering::Relaxed).checked_sub(1).map(Duration::from_millis)
        };
        let now = self.started.elapsed();
        let silent = self.relay.as_ref().map(RelayPulse::silent);
        let beats = Beats {
            recognizer: last(&self.recognizer),
            camera: last(&self.camera),
            relay: silent.flatten().map(|silent| now.saturating_sub(silent)),
            gone: matches!(silent, Some(None)).then_some(Who::Relay),
        };
        (now, beats)
    }

    fn beat(&self, beat: &AtomicU64) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        beat.store(now + 1, Ordering::Relaxed);
    }
}

/// The watchdog thread. Dropping this ends it.
#[derive(Debug)]
pub struct Watchdog {
    words: Option<SyncSender<Notification>>,
    verdict: Arc<Mutex<Verdict>>,
    ended: Receiver<()>,
}

impl Watchdog {
    /// Starts to watch. `on_stuck` is called at most once, on the watchdog's thread, with
    /// the verdict in words. It must end the service and must not wait without a limit
    /// for a watched thread. After that systemd is no longer fed, and ends the service
    /// itself if `on_stuck` does not.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(
        beats: Arc<Heartbeats>,
        settings: WatchdogSettings,
        on_stuck: impl FnOnce(&str) + Send + 'static,
    ) -> io::Result<Self> {
        let (words, receiver) = sync_channel(WAITING);
        let (end, ended) = sync_channel(1);
        let verdict = Arc::new(Mutex::new(Verdict::Healthy));
        let shown = Arc::clone(&verdict);
        std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            let watching = Watching {
                watch: Judge::new(beats.read().0, settings),
                beats,
                every: settings.step_every,
                feed_every: systemd::alive_every(),
                fed: None,
                shown,
                failed: false,
            };
            watching.run(&receiver, on_stuck);
            let _ = end.send(());
        })?;
        Ok(Self { words: Some(words), verdict, ended })
    }

    /// Sends a message to systemd from the watchdog thread, without blocking.
    pub fn notify(&self, notification: Notification) {
        if let Some(words) = &self.words {
            // If systemd does not read its messages, this one is dropped.
            let _ = words.try_send(notification);
        }
    }

    /// The current verdict.
    pub fn verdict(&self) -> Verdict {
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.words = None;
        let _ = self.ended.recv_timeout(LAST_WORDS);
    }
}

struct Watching {
    beats: Arc<Heartbeats>,
    watch: Judge,
    every: Duration,
    feed_every: Option<Duration>,
    /// When systemd's watchdog was last fed.
    fed: Option<Duration>,
    shown: Arc<Mutex<Verdict>>,
    /// Whether a failure to notify systemd was logged; it is logged once.
    failed: bool,
}

impl Watching {
    fn run(mut self, words: &Receiver<Notification>, on_stuck: impl FnOnce(&str)) {
        let pause = self.feed_every.map_or(self.every, |every| every.min(self.every));
        loop {
            if let stuck @ Verdict::Stuck { .. } = self.step() {
                on_stuck(&stuck.to_string());
                return;
            }
            let due = Instant::now() + pause;
            loop {
                match words.recv_timeout(due.saturating_duration_since(Instant::now())) {
                    Ok(word) => self.notify(&word),
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => break,
                }
            }
        }
    }

    fn step(&mut self) -> Verdict {
        let (now, beats) = self.beats.read();
        let verdict = self.watch.step(now, beats);
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *shown, verdict);
        drop(shown);
        match (before, verdict) {
            (Verdict::Healthy, Verdict::Late { .. }) => log::warn!("{verdict}"),
            (Verdict::Late { .. }, Verdict::Healthy) => log::info!("all threads run again"),
            _ => {}
        }
        let due = self.feed_every.is_some_and(|every| self.fed.is_none_or(|at| now >= at + every));
        // A late thread may recover, so systemd is still fed and does not end the service
        // first.
        if due && !matches!(verdict, Verdict::Stuck { .. }) {
            self.fed = Some(now);
            self.notify(&Notification::Alive);
        }
        verdict
    }

    fn notify(&mut self, word: &Notification) {
        if let Err(error) = systemd::tell(word)
            && !std::mem::replace(&mut self.failed, true)
        {
            log::warn!("cannot notify systemd: {error}; further failures are not logged");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::watchdog::systemd::tests::{heard, is_other};

    const QUICK: WatchdogSettings = WatchdogSettings {
        grace: Duration::from_millis(1),
        late_after: Duration::from_millis(1),
        stuck_after: Duration::from_millis(3),
        step_every: Duration::from_millis(1),
    };

    #[test]
    fn a_beat_is_read_back() {
        let beats = Heartbeats::default();
        assert_eq!(beats.read().1, Beats::default());
        beats.recognizer();
        let (now, read) = beats.read();
        assert!(read.recognizer.expect("a beat") <= now);
        assert_eq!(read.camera, None);
        beats.camera();
        assert!(beats.read().1.camera.is_some());
    }

    #[test]
    fn silence_calls_for_the_end_once() {
        let (called, calls) = sync_channel(8);
        let beats = Arc::new(Heartbeats::default());
        let watchdog = Watchdog::start(Arc::clone(&beats), QUICK, move |reason: &str| {
            called.send(reason.to_owned()).expect("somebody waits");
        })
        .expect("a thread");
        let reason = calls.recv().expect("a reason");
        assert!(reason.contains("stuck"), "{reason}");
        assert!(matches!(watchdog.verdict(), Verdict::Stuck { .. }));
        assert!(calls.recv().is_err(), "the watchdog has ended");
    }

    #[test]
    fn systemd_is_fed_while_all_are_well_and_not_once_one_is_stuck() {
        if is_other() {
            // Within the first minute no thread needs a heartbeat.
            let well = WatchdogSettings { grace: Duration::from_secs(60), ..QUICK };
            let beats = Arc::new(Heartbeats::default());
            let mut watchdog = Watchdog::start(Arc::clone(&beats), well, |reason: &str| {
                panic!("{reason}");
            })
            .expect("a thread");
            watchdog.notify(Notification::Ready);
            watchdog.words = None;
            watchdog.ended.recv().expect("its end");
            let stuck =
                WatchdogSettings { grace: Duration::ZERO, stuck_after: Duration::ZERO, ..well };
            let (called, calls) = sync_channel(1);
            let watchdog = Watchdog::start(beats, stuck, move |_: &str| {
                called.send(()).expect("somebody waits");
            })
            .expect("a thread");
            calls.recv().expect("a call");
            watchdog.notify(Notification::Status("never told".to_owned()));
            return;
        }
        let test =
            "service::watchdog::tests::systemd_is_fed_while_all_are_well_and_not_once_one_is_stuck";
        let words = heard(test, Some(1_000_000));
        assert!(words.contains(&"READY=1\n".to_owned()), "{words:?}");
        let fed = words.iter().filter(|word| *word == "WATCHDOG=1\n").count();
        assert!(fed >= 1 && fed + 1 == words.len(), "{words:?}");
    }
}
