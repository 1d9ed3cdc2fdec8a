//! EDGE: a camera that is kept going in threads of its own: one opens it and
//! reads, and may be held up by it; the other minds the first, so that nothing a
//! camera does holds up the door.
//!
//! ```text
//! reading thread --(one message)--> minding thread --(newest frame, health)--> service
//!       ^                                 |
//!       +--- opened, interrupted by ------+
//! ```

mod reader;
pub mod reopen;

use super::{CameraError, Captured, Kind, redacted};
use crate::vision::frame::Frame;
use reader::{News, Reader};
use reopen::{Action, Event, Patience, Reopen, Telling};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The minding thread shows at least so often that it lives.
const BEAT: Duration = Duration::from_millis(500);
/// How long the end waits for a camera to be let go.
const LET_GO_WITHIN: Duration = Duration::from_secs(2);
/// A reading thread that was to end and holds the camera for longer will not let it go:
/// the minding thread shows no life any more, so that the watchdog has the service
/// started anew, which takes the driver's thread with it.
const HOLDS_FOR: Duration = Duration::from_secs(30);
/// How long the end sleeps between two looks at whether the camera was let go.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Mean of all channels, of 255, up to which a picture is black: below what any face
/// can be seen in, and above the black of cameras that do not reach 0.
const BLACK: u64 = 16;

/// What a camera gave.
#[derive(Clone, Debug)]
pub enum Taken {
    /// A frame, with the time it was taken at on the service's clock; the own time
    /// of a recorded one.
    Frame(Captured),
    /// A frame of a live camera that is the last one once more, to the last bit, or as
    /// black; only where frames are to differ.
    Same,
    /// Nothing new in the time given.
    Nothing,
    /// No frame, and there will be none until the camera is back.
    Away {
        /// Of the last frame, or of the start.
        since: Duration,
        /// Why.
        reason: Arc<str>,
    },
    /// No frame ever again, and why, if that was a fault.
    Ended(Option<Arc<str>>),
}

/// What the camera is up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CameraState {
    /// It is opened for the first time.
    Opening,
    /// Frames come.
    Streaming,
    /// None come; it is opened again and again.
    Away {
        /// Why.
        reason: Arc<str>,
        /// How often it was opened in vain.
        tries: u32,
    },
    /// None will come: the last recorded frame was taken, or the threads ended.
    Ended {
        /// Why, if that was a fault.
        fault: Option<Arc<str>>,
    },
}

/// How the camera is, on the service's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CameraHealth {
    /// What it is up to.
    pub state: CameraState,
    /// Since when.
    pub since: Duration,
    /// When a good frame came last.
    pub last_frame: Option<Duration>,
    /// When the minding thread showed last that it lives; twice a second, unless the
    /// camera is held for good by a reader that does not end. A watchdog is only fed
    /// while this is not old.
    pub alive: Duration,
    /// Good frames so far.
    pub frames: u64,
    /// Frames so far that were not readable.
    pub bad_frames: u64,
    /// What the camera is and how it is set; its URI before it was opened, without
    /// passwords.
    pub told: Arc<str>,
}

/// What the threads share.
struct Shared {
    uri: String,
    kind: Kind,
    /// Where the service's clock begins.
    origin: Instant,
    stop: AtomicBool,
    /// Frames are to differ.
    distinct: AtomicBool,
    slot: Mutex<Slot>,
    changed: Condvar,
}

struct Slot {
    newest: Option<Captured>,
    /// Frames came that showed nothing new.
    same: bool,
    health: CameraHealth,
}

impl Shared {
    fn new(uri: &str, origin: Instant) -> Result<Self, CameraError> {
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
            kind,
            origin,
            stop: AtomicBool::new(false),
            distinct: AtomicBool::new(false),
            slot: Mutex::new(Slot { newest: None, same: false, health }),
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

/// A camera that is kept going. Ends when dropped.
pub struct LiveCamera {
    shared: Arc<Shared>,
    wake: SyncSender<Message>,
    minding: Option<JoinHandle<()>>,
}

impl LiveCamera {
    /// Begins to open the camera; an error only where the URI names none. `origin`
    /// is where the service's clock begins.
    pub fn start(uri: &str, origin: Instant) -> Result<Self, CameraError> {
        Self::start_patient(uri, origin, Patience::with(uri))
    }

    /// The same with patience of another measure.
    pub fn start_patient(
        uri: &str,
        origin: Instant,
        patience: Patience,
    ) -> Result<Self, CameraError> {
        let shared = Arc::new(Shared::new(uri, origin)?);
        let (sender, receiver) = sync_channel(1);
        let minder = Minder::new(Arc::clone(&shared), patience, sender.clone());
        let minding = std::thread::Builder::new()
            .name("camera".to_owned())
            .spawn(move || minder.run(&receiver))
            .map_err(|error| CameraError::Option {
                uri: uri.to_owned(),
                fault: format!("no thread to watch it with: {error}"),
            })?;
        Ok(Self { shared, wake: sender, minding: Some(minding) })
    }

    /// Live or recorded.
    pub fn kind(&self) -> Kind {
        self.shared.kind
    }

    /// Whether a live camera whose frames are all the same, to the last bit, hangs and is
    /// opened anew; at first it does not.
    pub fn expect_distinct(&self, distinct: bool) {
        self.shared.distinct.store(distinct, Ordering::Relaxed);
    }

    /// The newest frame that was not taken yet, or the next recorded one. Waits for
    /// it as long as given, or until the camera is seen to go away.
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
            // Whoever reads recorded frames waits for this.
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

    /// How the camera is.
    pub fn health(&self) -> CameraHealth {
        self.shared.slot().health.clone()
    }

    /// Ends the camera, with whatever program it is, and waits a moment until it is
    /// let go.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
        // Where there is no room the minding thread is awake already.
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

/// From the reading thread.
struct Message {
    /// Of which reading thread; 0 of none.
    generation: u64,
    news: News,
}

/// The minding thread.
struct Minder {
    shared: Arc<Shared>,
    reopen: Reopen,
    sender: SyncSender<Message>,
    reader: Option<Reader>,
    /// One that has not ended yet, and when it was told to.
    old: Option<(JoinHandle<()>, Duration)>,
    /// Of the last reading thread.
    generation: u64,
    /// Digest of the last frame of a live camera.
    last: Option<u32>,
}

/// Says that the threads have ended, even by a panic.
struct LastWord(Arc<Shared>);

impl Drop for LastWord {
    fn drop(&mut self) {
        let mut slot = self.0.slot();
        if !matches!(slot.health.state, CameraState::Ended { .. }) {
            let fault = std::thread::panicking().then(|| "its thread panicked".into());
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
        Self { shared, reopen, sender, reader: None, old: None, generation: 0, last: None }
    }

    fn run(mut self, receiver: &Receiver<Message>) {
        let _last_word = LastWord(Arc::clone(&self.shared));
        while !self.shared.stopped() {
            let wait = match self.shared.kind {
                // Recorded ones are opened once, and come or do not.
                Kind::Recorded if self.generation > 0 => BEAT,
                _ => self.reopen.wake().saturating_sub(self.shared.now()).min(BEAT),
            };
            // A message of a camera that was let go counts no longer.
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
        // What the reading thread still wants to say finds nobody.
        self.let_go();
        let asked = Instant::now();
        while self.old.as_ref().is_some_and(|(old, _)| !old.is_finished())
            && asked.elapsed() < LET_GO_WITHIN
        {
            while receiver.try_recv().is_ok() {}
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Says that the camera is minded, unless a reader holds it that never ends: nothing
    /// but another process helps then.
    fn show_life(&self, now: Duration) {
        let holds = |(old, since): &(JoinHandle<()>, Duration)| {
            now >= *since + HOLDS_FOR && !old.is_finished()
        };
        if !self.old.as_ref().is_some_and(holds) {
            self.shared.slot().health.alive = now;
        }
    }

    /// Takes the news of a live camera to the state machine and does as it says.
    fn live(&mut self, now: Duration, news: Option<News>) -> bool {
        let event = match news {
            None | Some(News::Wake) => Event::Tick,
            Some(News::Opened(told)) => {
                if let Some(told) = told {
                    self.shared.slot().health.told = told;
                }
                Event::Opened
            }
            Some(News::Frame(captured)) => match self.same(&captured.frame) {
                Some(dark) => {
                    self.show_same();
                    Event::Same { dark }
                }
                None => {
                    self.show(now, captured);
                    Event::Frame
                }
            },
            Some(News::Bad(reason)) => {
                self.shared.slot().health.bad_frames += 1;
                Event::Bad(reason)
            }
            Some(News::Failed(reason)) => Event::Failed(reason),
            Some(News::Ended) => Event::Ended,
        };
        let mut actions = self.reopen.step(now, event);
        // Opening may fail at once, and says so.
        while !actions.is_empty() {
            let mut next = None;
            for action in actions {
                match action {
                    Action::Open => next = self.open().err().map(Event::Failed),
                    Action::Close => self.let_go(),
                    Action::Tell(telling) => self.tell(&telling),
                }
            }
            actions = next.map_or_else(Vec::new, |event| self.reopen.step(now, event));
        }
        self.publish(now);
        true
    }

    fn tell(&self, telling: &Telling) {
        let told = Arc::clone(&self.shared.slot().health.told);
        match telling {
            Telling::There { .. } => log::info!("{telling}: {told}"),
            Telling::Away { .. } => log::error!("{telling}"),
            Telling::Bad { .. } => log::warn!("{telling}"),
        }
    }

    /// What the state machine thinks of the camera, for everybody.
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

    /// Whether the frame of a camera whose frames are to differ shows nothing new, and
    /// is black then.
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

    /// Lets the service know of a frame that it need not look at.
    fn show_same(&self) {
        let mut slot = self.shared.slot();
        slot.same = true;
        slot.health.frames += 1;
        drop(slot);
        self.shared.changed.notify_all();
    }

    /// Puts the frame where the service takes it.
    fn show(&self, now: Duration, captured: Captured) {
        let mut slot = self.shared.slot();
        slot.newest = Some(captured);
        slot.health.frames += 1;
        slot.health.last_frame = Some(now);
        drop(slot);
        self.shared.changed.notify_all();
    }

    /// Every recorded frame in turn; nothing is opened again.
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
            None | Some(News::Wake | News::Opened(_)) => true,
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
                // Until it was taken, with a sign of life now and then.
                while slot.newest.is_some() && !self.shared.stopped() {
                    let waited = self.shared.changed.wait_timeout(slot, BEAT);
                    (slot, _) = waited.unwrap_or_else(PoisonError::into_inner);
                    slot.health.alive = self.shared.now();
                }
                true
            }
        }
    }

    /// Starts a reading thread, unless the last one still holds the camera.
    fn open(&mut self) -> Result<(), String> {
        if let Some((old, _)) = self.old.take_if(|(old, _)| old.is_finished()) {
            // It has caught its panics.
            let _ = old.join();
        }
        if self.old.is_some() {
            return Err("the camera does not let go".to_owned());
        }
        self.generation += 1;
        let (generation, sender) = (self.generation, self.sender.clone());
        let (uri, origin) = (self.shared.uri.clone(), self.shared.origin);
        let tell = move |news| sender.send(Message { generation, news }).is_ok();
        let reader = Reader::start(uri, origin, tell)
            .map_err(|error| format!("no thread to read it with: {error}"))?;
        self.reader = Some(reader);
        Ok(())
    }

    /// Ends the reading thread, which may take its time.
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
mod tests {
    use super::*;
    use crate::vision::picture;
    use tempfile::TempDir;

    /// Longer than anything here takes on any machine.
    const LONG: Duration = Duration::from_secs(60);
    const VIDEO: &str = "printf 'YUV4MPEG2 W1 H1 C444\\nFRAME\\nabc'";

    fn hasty() -> Patience {
        let soon = Duration::from_millis(5);
        Patience { least: soon, most: soon, ..Patience::default() }
    }

    fn start(uri: &str, patience: Patience) -> LiveCamera {
        LiveCamera::start_patient(uri, Instant::now(), patience).expect("a camera")
    }

    /// The next frame, whatever happens before.
    fn frame(camera: &LiveCamera) -> Captured {
        let began = Instant::now();
        while began.elapsed() < LONG {
            match camera.next(LONG) {
                Taken::Frame(captured) => return captured,
                Taken::Ended(fault) => panic!("ended: {fault:?}"),
                Taken::Nothing | Taken::Same | Taken::Away { .. } => std::thread::sleep(LOOK_EVERY),
            }
        }
        panic!("no frame")
    }

    /// Waits until it is away for this reason. Where it is opened again before a slow
    /// machine has ended the last program, it is away for another one meanwhile.
    #[track_caller]
    fn is_away(camera: &LiveCamera, expected: &str) {
        let (began, mut reasons) = (Instant::now(), Vec::new());
        while began.elapsed() < LONG {
            if let Taken::Away { reason, .. } = camera.next(LOOK_EVERY) {
                if reason.contains(expected) {
                    return;
                }
                reasons.push(reason);
                reasons.dedup();
            }
        }
        panic!("not away by {expected:?}, but {reasons:?}")
    }

    #[test]
    fn a_program_that_dies_is_started_again_and_again() {
        let origin = Instant::now();
        let camera = LiveCamera::start_patient(&format!("pipe:{VIDEO}"), origin, hasty());
        let camera = camera.expect("a camera");
        let mut last = Duration::ZERO;
        for _ in 0..3 {
            let captured = frame(&camera);
            assert!(captured.at >= last && captured.at <= origin.elapsed(), "{:?}", captured.at);
            last = captured.at;
        }
        assert!(camera.health().frames >= 3);
        is_away(&camera, "the camera ended");
    }

    #[test]
    fn garbage_is_told_and_tried_again() {
        let camera = start("pipe:echo hello", hasty());
        is_away(&camera, "no YUV4MPEG2 stream");
        let began = Instant::now();
        let tried = || match camera.health().state {
            CameraState::Away { tries, .. } => tries,
            _ => 0,
        };
        while tried() < 3 {
            assert!(began.elapsed() < LONG);
            std::thread::sleep(LOOK_EVERY);
        }
    }

    #[test]
    fn a_program_that_hangs_is_ended_and_started_again() {
        let folder = TempDir::new().expect("a folder");
        let file = folder.path().join("pids");
        let hang = format!("pipe:echo $$ >> {}; {VIDEO}; sleep 1000", file.display());
        let short = Duration::from_millis(50);
        let camera = start(&hang, Patience { between: short, ..hasty() });
        frame(&camera);
        is_away(&camera, "no frame for 0.05 s");
        frame(&camera);
        drop(camera);
        let pids = std::fs::read_to_string(&file).expect("they were written");
        assert!(pids.lines().count() >= 2, "{pids}");
        let left: Vec<&str> =
            pids.lines().filter(|pid| std::path::Path::new("/proc").join(pid).exists()).collect();
        assert!(left.is_empty(), "{left:?} go on");
        let silent = start("pipe:sleep 1000", Patience { first_frame: short, ..hasty() });
        is_away(&silent, "no frame within 0.05 s of opening");
    }

    #[test]
    fn a_reader_that_never_ends_takes_the_sign_of_life_with_it() {
        let origin = Instant::now();
        let shared = Arc::new(Shared::new("pipe:true", origin).expect("a camera"));
        let (sender, _receiver) = sync_channel(1);
        let mut minder = Minder::new(Arc::clone(&shared), hasty(), sender);
        let (end, ended) = sync_channel::<()>(0);
        let stuck = std::thread::spawn(move || {
            let _ = ended.recv();
        });
        let told = Duration::from_secs(100);
        minder.old = Some((stuck, told));
        let alive = |minder: &Minder, after: Duration| {
            minder.show_life(told + after);
            shared.slot().health.alive == told + after
        };
        assert!(alive(&minder, HOLDS_FOR - LOOK_EVERY));
        assert!(!alive(&minder, HOLDS_FOR));
        assert!(!alive(&minder, 2 * HOLDS_FOR));
        assert_eq!(minder.open().expect_err("it is held"), "the camera does not let go");
        // One that ends late is as good as any.
        drop(end);
        while minder.old.as_ref().is_some_and(|(old, _)| !old.is_finished()) {
            std::thread::sleep(LOOK_EVERY);
        }
        assert!(alive(&minder, 3 * HOLDS_FOR));
    }

    #[test]
    fn a_camera_whose_frames_are_all_the_same_is_opened_anew_if_they_are_to_differ() {
        let folder = TempDir::new().expect("a folder");
        let file = folder.path().join("openings");
        for (luma, expected) in [("\\353", "all the same"), ("\\020", "black")] {
            let bytes = format!("printf 'FRAME\\n{luma}\\200\\200'");
            let begin = "printf 'YUV4MPEG2 W1 H1 C444\\n'";
            let uri = format!(
                "pipe:echo x >> {}; {begin}; while {bytes}; do sleep 0.01; done",
                file.display()
            );
            std::fs::write(&file, "").expect("written");
            let openings = || std::fs::read_to_string(&file).expect("text").len() / 2;
            let same = Duration::from_millis(30);
            let camera = start(&uri, Patience { same, ..hasty() });
            camera.expect_distinct(true);
            frame(&camera);
            is_away(&camera, expected);
            let began = Instant::now();
            while openings() < 3 {
                assert!(began.elapsed() < LONG);
                assert!(!matches!(camera.next(LOOK_EVERY), Taken::Frame(_)), "nothing is new");
            }
            // It has never been back in between.
            assert!(matches!(camera.health().state, CameraState::Away { .. }));
        }
    }

    #[test]
    fn frames_that_may_be_the_same_are_all_shown() {
        let frames = "for i in 1 2 3 4 5 6 7 8 9; do printf 'FRAME\\nabc'; sleep 0.01; done";
        let camera = start(&format!("pipe:{VIDEO}; {frames}; sleep 1000"), hasty());
        for _ in 0..2 {
            frame(&camera);
        }
    }

    #[test]
    fn only_the_newest_frame_counts() {
        let many = "for i in 1 2 3 4 5 6 7 8 9; do printf 'FRAME\\nabc'; done; \
                    printf 'FRAME\\n\\353\\200\\200'; sleep 1000";
        let camera = start(&format!("pipe:{VIDEO}; {many}"), Patience::default());
        let began = Instant::now();
        while camera.health().frames < 11 {
            assert!(began.elapsed() < LONG);
            std::thread::sleep(LOOK_EVERY);
        }
        assert_eq!(frame(&camera).frame, Frame::filled(1, 1, [255; 3]));
        assert!(matches!(camera.next(LOOK_EVERY), Taken::Nothing));
        let health = camera.health();
        assert_eq!((health.state, health.bad_frames), (CameraState::Streaming, 0));
        assert!(health.last_frame.is_some_and(|at| at <= health.alive));
    }

    #[test]
    fn the_end_does_not_wait_for_a_camera_that_hangs() {
        let began = Instant::now();
        let mut camera = start("pipe:sleep 1000", Patience::default());
        assert!(matches!(camera.next(LOOK_EVERY), Taken::Nothing));
        camera.stop();
        assert!(matches!(camera.next(LONG), Taken::Ended(None)));
        assert!(began.elapsed() < LONG);
    }

    #[test]
    fn recorded_frames_come_in_turn_and_end() {
        let folder = TempDir::new().expect("a folder");
        for (name, grey) in [("a.png", 10), ("b.png", 20), ("d.png", 30)] {
            let png = picture::encode_png(&Frame::filled(4, 4, [grey; 3])).expect("a picture");
            std::fs::write(folder.path().join(name), png).expect("written");
        }
        std::fs::write(folder.path().join("c.jpg"), "no picture").expect("written");
        let camera = start(&format!("images:{}?fps=10", folder.path().display()), hasty());
        assert_eq!(camera.kind(), Kind::Recorded);
        for (grey, at) in [(10, 0), (20, 100), (30, 300)] {
            let captured = frame(&camera);
            assert_eq!(captured.frame.pixel(0, 0), [grey; 3]);
            assert_eq!(captured.at, Duration::from_millis(at));
        }
        assert!(matches!(camera.next(LONG), Taken::Ended(None)));
        assert_eq!(camera.health().bad_frames, 1);
        let missing = start("images:/no/such/folder", hasty());
        let Taken::Ended(Some(fault)) = missing.next(LONG) else { panic!("no fault") };
        assert!(fault.contains("/no/such/folder"), "{fault}");
    }

    #[test]
    fn what_names_no_camera_is_refused_at_once() {
        for uri in ["camera0", "v4l:video0", "v4l:/dev/video0?fps=no"] {
            assert!(LiveCamera::start(uri, Instant::now()).is_err(), "{uri}");
        }
    }
}
