//! EDGE: the thread that a camera may hold up.

use crate::hardware::camera::{Camera, Captured, Interrupter};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// What a reading thread has to tell.
pub(super) enum News {
    /// Nothing; somebody wants the end.
    Wake,
    /// It is open; what it is, if there is anything to say.
    Opened(Option<Arc<str>>),
    /// At its time on the service's clock.
    Frame(Captured),
    /// What is no frame, and why; there may be more.
    Bad(String),
    /// There will be no more, and why.
    Failed(String),
    /// There will be no more.
    Ended,
}

/// A thread that opens a camera and reads it.
pub(super) struct Reader {
    thread: JoinHandle<()>,
    cancel: Arc<Cancel>,
}

impl Reader {
    /// Tells all that comes, until the camera ends, `tell` says that nobody listens,
    /// or it is cancelled.
    pub(super) fn start(
        uri: String,
        origin: Instant,
        tell: impl Fn(News) -> bool + Send + 'static,
    ) -> std::io::Result<Self> {
        let cancel = Arc::new(Cancel::default());
        let cancelled = Arc::clone(&cancel);
        let thread = std::thread::Builder::new().name("frames".to_owned()).spawn(move || {
            let reading = AssertUnwindSafe(|| read(&uri, origin, &cancelled, &tell));
            if catch_unwind(reading).is_err() {
                tell(News::Failed("its reader panicked".to_owned()));
            }
        })?;
        Ok(Self { thread, cancel })
    }

    /// Ends the camera; the thread may take its time.
    pub(super) fn cancel(self) -> JoinHandle<()> {
        self.cancel.cancel();
        self.thread
    }
}

/// How a reading thread is told to end, before and after its camera is open.
#[derive(Default)]
struct Cancel {
    wanted: AtomicBool,
    interrupter: Mutex<Option<Interrupter>>,
}

impl Cancel {
    fn cancel(&self) {
        // Under the lock, so that a camera that is just opened does not miss it.
        let interrupter = self.interrupter.lock().unwrap_or_else(PoisonError::into_inner);
        self.wanted.store(true, Ordering::Relaxed);
        if let Some(interrupter) = &*interrupter {
            interrupter.interrupt();
        }
    }

    /// Whether the camera that was opened is still wanted.
    fn arm(&self, interrupter: Interrupter) -> bool {
        let mut armed = self.interrupter.lock().unwrap_or_else(PoisonError::into_inner);
        *armed = Some(interrupter);
        !self.wanted.load(Ordering::Relaxed)
    }

    fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }
}

/// Opens the camera and tells all that comes, until it ends or is not wanted.
fn read(uri: &str, origin: Instant, cancel: &Cancel, tell: impl Fn(News) -> bool) {
    let mut camera = match Camera::open(uri) {
        Ok(camera) => camera,
        Err(error) => {
            tell(News::Failed(error.to_string()));
            return;
        }
    };
    if !cancel.arm(camera.interrupter()) || !tell(News::Opened(camera.told().map(Arc::from))) {
        return;
    }
    // From the camera's clock to the service's; recorded frames have their own.
    let opened = camera.opened().map(|opened| opened.saturating_duration_since(origin));
    while let Some(next) = camera.next() {
        let news = match next {
            Ok(Captured { frame, at }) => {
                News::Frame(Captured { frame, at: opened.map_or(at, |opened| opened + at) })
            }
            Err(error) if camera.ended() => News::Failed(error.to_string()),
            Err(error) => News::Bad(error.to_string()),
        };
        let is_last = matches!(news, News::Failed(_));
        if cancel.is_wanted() || !tell(news) || is_last {
            return;
        }
    }
    tell(News::Ended);
}
