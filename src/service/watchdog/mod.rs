//! EDGE: the threads' heartbeats, and the thread that watches them and tells systemd.
//!
//! Each watched thread says from time to time that it runs; a thread of its own judges
//! that ([`crate::service::watchdog::judge`]), feeds systemd's watchdog while all are well, and calls
//! for the end when one is stuck.

pub mod judge;
pub mod systemd;

use crate::hardware::relay::RelayPulse;
use judge::{Beats, Verdict, Watch, WatchdogSettings, Who};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use systemd::Word;

/// Words that wait to be told; what does not fit is not told.
const WAITING: usize = 16;
/// How long the end waits until all is told, on a machine that is busy.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// When each thread last said that it runs. Saying so costs a store, so any thread may
/// as often as it likes.
#[derive(Debug)]
pub struct Heartbeats {
    started: Instant,
    /// Milliseconds since the start, and one: 0 is never.
    recognizer: AtomicU64,
    camera: AtomicU64,
    /// The relay's thread says so itself.
    relay: Option<RelayPulse>,
}

impl Default for Heartbeats {
    fn default() -> Self {
        let never = || AtomicU64::new(0);
        Self { started: Instant::now(), recognizer: never(), camera: never(), relay: None }
    }
}

impl Heartbeats {
    /// Those of a door whose relay has a thread.
    pub fn relay(pulse: RelayPulse) -> Self {
        Self { relay: Some(pulse), ..Self::default() }
    }

    /// The thread that looks at frames runs.
    pub fn recognizer(&self) {
        self.beat(&self.recognizer);
    }

    /// The thread that waits for frames runs, whether any come or not.
    pub fn camera(&self) {
        self.beat(&self.camera);
    }

    /// The time since the start, and when each thread last spoke.
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

/// The thread that watches the others. It ends when this is dropped.
#[derive(Debug)]
pub struct Watchdog {
    words: Option<SyncSender<Word>>,
    verdict: Arc<Mutex<Verdict>>,
    ended: Receiver<()>,
}

impl Watchdog {
    /// Begins to watch. `on_stuck` is called at most once, on the watchdog's thread, with
    /// the reason, and is the one to tell it; systemd hears nothing more after that, and
    /// ends the service itself should `on_stuck` not, which must not wait without a limit for
    /// any thread that is watched.
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
                watch: Watch::new(beats.read().0, settings),
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

    /// Tells systemd, without ever waiting for it.
    pub fn tell(&self, word: Word) {
        if let Some(words) = &self.words {
            // Whoever reads them has stopped reading: so be it.
            let _ = words.try_send(word);
        }
    }

    /// How the threads are.
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
    watch: Watch,
    every: Duration,
    feed_every: Option<Duration>,
    /// When systemd was last told that all is well.
    fed: Option<Duration>,
    shown: Arc<Mutex<Verdict>>,
    /// That systemd does not listen was said once.
    failed: bool,
}

impl Watching {
    fn run(mut self, words: &Receiver<Word>, on_stuck: impl FnOnce(&str)) {
        let pause = self.feed_every.map_or(self.every, |every| every.min(self.every));
        loop {
            if let stuck @ Verdict::Stuck { .. } = self.step() {
                on_stuck(&stuck.to_string());
                return;
            }
            let due = Instant::now() + pause;
            loop {
                match words.recv_timeout(due.saturating_duration_since(Instant::now())) {
                    Ok(word) => self.tell(&word),
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
        // Who is late may come back; systemd is not to end the service before this does.
        if due && !matches!(verdict, Verdict::Stuck { .. }) {
            self.fed = Some(now);
            self.tell(&Word::Alive);
        }
        verdict
    }

    fn tell(&mut self, word: &Word) {
        if let Err(error) = systemd::tell(word)
            && !std::mem::replace(&mut self.failed, true)
        {
            log::warn!("systemd: {error}; it does not hear how the service is");
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
            // Nobody has to say anything before a minute is over.
            let well = WatchdogSettings { grace: Duration::from_secs(60), ..QUICK };
            let beats = Arc::new(Heartbeats::default());
            let mut watchdog = Watchdog::start(Arc::clone(&beats), well, |reason: &str| {
                panic!("{reason}");
            })
            .expect("a thread");
            watchdog.tell(Word::Ready);
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
            watchdog.tell(Word::Status("never told".to_owned()));
            return;
        }
        let test = "heartbeat::tests::systemd_is_fed_while_all_are_well_and_not_once_one_is_stuck";
        let words = heard(test, Some(1_000_000));
        assert!(words.contains(&"READY=1\n".to_owned()), "{words:?}");
        let fed = words.iter().filter(|word| *word == "WATCHDOG=1\n").count();
        assert!(fed >= 1 && fed + 1 == words.len(), "{words:?}");
    }
}
