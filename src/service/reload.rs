//! Whether the configuration is to be read again, shared by the signal handler, the control
//! socket and the thread that reads files.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// State of reloading.
#[derive(Debug, Default)]
pub struct Reload {
    /// A reload was requested, by a signal or an order.
    pub wanted: Arc<AtomicBool>,
    /// A reload is running.
    pub busy: AtomicBool,
    /// Number of finished reloads, successful or not.
    pub times: AtomicU32,
}

impl Reload {
    /// Starts a reload.
    pub fn begin(&self) {
        self.busy.store(true, Ordering::Relaxed);
        // Before the file is read: a request that comes meanwhile causes another reload.
        self.wanted.store(false, Ordering::Release);
    }

    /// Ends a reload, if one is running. Its result must be available already.
    pub fn end(&self) {
        if self.busy.load(Ordering::Relaxed) {
            self.times.fetch_add(1, Ordering::Relaxed);
            // After counting: an observer that sees neither has missed nothing.
            self.busy.store(false, Ordering::Release);
        }
    }

    /// Whether a reload is requested or running.
    pub fn pending(&self) -> bool {
        self.wanted.load(Ordering::Acquire) || self.busy.load(Ordering::Acquire)
    }
}
