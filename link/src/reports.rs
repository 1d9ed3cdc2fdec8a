//! Reports of a thread to its owner, who may be slow: the thread never waits for it, and
//! reads nothing more from outside meanwhile.

use std::collections::VecDeque;
use std::sync::mpsc::{SyncSender, TrySendError};

/// Reports on their way to the owner, who may be slow.
pub(crate) struct Reports<T> {
    to: SyncSender<T>,
    waiting: VecDeque<T>,
    /// The owner does not listen any more.
    pub gone: bool,
}

impl<T> Reports<T> {
    pub fn new(to: SyncSender<T>) -> Self {
        Self { to, waiting: VecDeque::new(), gone: false }
    }

    pub fn add(&mut self, report: impl Into<T>) {
        self.waiting.push_back(report.into());
        self.pass_on();
    }

    pub fn pass_on(&mut self) {
        while let Some(report) = self.waiting.pop_front() {
            match self.to.try_send(report) {
                Ok(()) => {}
                Err(TrySendError::Full(report)) => {
                    self.waiting.push_front(report);
                    return;
                }
                Err(TrySendError::Disconnected(_)) => {
                    self.gone = true;
                    self.waiting.clear();
                    return;
                }
            }
        }
    }

    /// Whether the owner has to take reports before more is read from outside.
    pub fn stalled(&self) -> bool {
        !self.waiting.is_empty()
    }
}
