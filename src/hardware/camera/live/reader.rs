//! EDGE: the reading thread, which may block on a camera.

use crate::hardware::camera::{Camera, Captured, FrameLimit, Identity, Interrupter};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// News from a reading thread.
pub(super) enum News {
    /// Wakes the camera thread; carries no news.
    Wake,
    /// The camera is open; its name and format, and its identity, if known.
    Opened(Option<Arc<str>>, Option<Identity>),
    /// A frame, with its time on the service's clock.
    Frame(Captured),
    /// An unreadable frame and the fault; more frames may follow.
    Bad(String),
    /// The stream is over because of this fault.
    Failed(String),
    /// The stream is over without a known fault.
    Ended,
}

/// The thread that opens and reads a camera.
pub(super) struct Reader {
    thread: JoinHandle<()>,
    cancel: Arc<Cancel>,
}

impl Reader {
    /// Starts the thread. It passes all news to `tell` until the camera ends, `tell`
    /// returns false, or the thread is cancelled.
    pub(super) fn start(
        uri: String,
        limit: FrameLimit,
        origin: Instant,
        tell: impl Fn(News) -> bool + Send + 'static,
    ) -> std::io::Result<Self> {
        let cancel = Arc::new(Cancel::default());
        let cancelled = Arc::clone(&cancel);
        let thread = std::thread::Builder::new().name("frames".to_owned()).spawn(move || {
            let reading = AssertUnwindSafe(|| read(&uri, limit, origin, &cancelled, &tell));
            if catch_unwind(reading).is_err() {
                tell(News::Failed("the reading thread panicked".to_owned()));
            }
        })?;
        Ok(Self { thread, cancel })
    }

    /// Asks camera and thread to end and returns without waiting for that.
    pub(super) fn cancel(self) -> JoinHandle<()> {
        self.cancel.cancel();
        self.thread
    }
}

/// Cancels a reading thread, before or after its camera is open.
#[derive(Default)]
struct Cancel {
    wanted: AtomicBool,
    interrupter: Mutex<Option<Interrupter>>,
}

impl Cancel {
    fn cancel(&self) {
        // Under the lock, so that a camera that is being opened does not miss it.
        let interrupter = self.interrupter.lock().unwrap_or_else(PoisonError::into_inner);
        self.wanted.store(true, Ordering::Relaxed);
        if let Some(interrupter) = &*interrupter {
            interrupter.interrupt();
        }
    }

    /// Registers the open camera; false if it was cancelled meanwhile.
    fn arm(&self, interrupter: Interrupter) -> bool {
        let mut armed = self.interrupter.lock().unwrap_or_else(PoisonError::into_inner);
        *armed = Some(interrupter);
        !self.wanted.load(Ordering::Relaxed)
    }

    fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }
}

/// Opens the camera and passes on all news until it ends or is cancelled.
fn read(
    uri: &str,
    limit: FrameLimit,
    origin: Instant,
    cancel: &Cancel,
    tell: impl Fn(News) -> bool,
) {
    let mut camera = match Camera::open(uri, limit) {
        Ok(camera) => camera,
        Err(error) => {
            tell(News::Failed(error.to_string()));
            return;
        }
    };
    let opened = News::Opened(camera.told().map(Arc::from), camera.identity().cloned());
    if !cancel.arm(camera.interrupter()) || !tell(opened) {
        return;
    }
    // From the camera's clock to the service's; recorded frames keep their own time.
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
