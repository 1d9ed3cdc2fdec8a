//! EDGE: events on their way from the audit log to the link.

use super::event::{Wording, gap};
use crate::audit::Logged;
use crate::storage::audit::{AuditError, AuditTail};
use facelatch_messages::DoorEvent;
use std::collections::VecDeque;
use std::time::Instant;

/// Records that are read from the log at a time.
pub(super) const READ: usize = 32;

/// Events on their way from the log to the link.
pub(super) struct Feed {
    pub tail: AuditTail,
    /// Read and not sent yet.
    pub ready: VecDeque<DoorEvent>,
    /// When the log was read last, and its last number then.
    pub read: Instant,
    pub seen: u64,
}

impl Feed {
    /// Reads on in the log. Returns the number of records.
    pub fn fill(&mut self, wording: &Wording) -> Result<usize, AuditError> {
        let mut before = self.tail.last();
        let records = self.tail.records(READ)?;
        for record in &records {
            let missing = record.number.saturating_sub(before).saturating_sub(1);
            if missing > 0 {
                self.ready.push_back(gap(missing, record.number - 1, &record.stamp));
            }
            before = record.number;
            let event = Logged::of(record).and_then(|logged| wording.event(&logged));
            self.ready.extend(event);
        }
        Ok(records.len())
    }
}
