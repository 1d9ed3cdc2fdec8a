//! EDGE: reading the audit log, beside those who append to it. Takes no lock: what is being
//! written is no whole record yet.

use super::disk::{Disk, Folder};
use super::error::AuditError;
use super::log::AuditPlace;
use super::segments::{frames, read_segment, segments};
use crate::audit::Record;
use std::ops::RangeInclusive;

/// Order in which records are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The oldest first.
    OldestFirst,
    /// The newest first.
    NewestFirst,
}

/// Reads the records of a log. It does not verify the chain.
#[derive(Debug)]
pub struct Reader<D> {
    disk: D,
}

/// Reads the records of a door's log.
pub type AuditReader = Reader<Folder>;

impl AuditReader {
    /// The log beside a gallery.
    ///
    /// # Errors
    /// If there is none, or its folder cannot be read.
    pub fn open(place: &AuditPlace) -> Result<Self, AuditError> {
        let reader = Self { disk: place.disk() };
        match segments(&reader.disk) {
            Ok(there) if there.is_empty() => Err(AuditError::Absent { folder: place.folder() }),
            Err(AuditError::Io { reason, .. }) if reason.kind() == std::io::ErrorKind::NotFound => {
                Err(AuditError::Absent { folder: place.folder() })
            }
            there => there.map(|_| reader),
        }
    }
}

impl<D: Disk> Reader<D> {
    /// A reader of this folder.
    pub fn on(disk: D) -> Self {
        Self { disk }
    }

    /// The records with these numbers, such as `1..=u64::MAX` for all. What is damaged is
    /// left out; a segment that cannot be read is an error in its place, and the others
    /// follow. Holds one segment in memory at a time.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn records(
        &self,
        numbers: RangeInclusive<u64>,
        order: Order,
    ) -> Result<Records<'_, D>, AuditError> {
        let there = segments(&self.disk)?;
        let mut wanted: Vec<u64> = Vec::new();
        for (at, first) in there.iter().enumerate() {
            let after = there.get(at + 1).copied().unwrap_or(u64::MAX);
            if *first <= *numbers.end() && after > *numbers.start() {
                wanted.push(*first);
            }
        }
        // Taken from the end.
        if order == Order::OldestFirst {
            wanted.reverse();
        }
        Ok(Records { disk: &self.disk, wanted, numbers, order, ready: Vec::new() })
    }

    /// The record with this number; `None` if there is none.
    ///
    /// # Errors
    /// If its segment cannot be read.
    pub fn record(&self, number: u64) -> Result<Option<Record>, AuditError> {
        self.records(number..=number, Order::OldestFirst)?.next().transpose()
    }
}

/// Records of a log, one after the other.
#[derive(Debug)]
pub struct Records<'d, D> {
    disk: &'d D,
    /// Segments that are still to be read; the next one is the last.
    wanted: Vec<u64>,
    numbers: RangeInclusive<u64>,
    order: Order,
    /// Records of the segment that was read; the next one is the last.
    ready: Vec<Record>,
}

impl<D: Disk> Iterator for Records<'_, D> {
    type Item = Result<Record, AuditError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.ready.pop() {
                return Some(Ok(record));
            }
            let bytes = match read_segment(self.disk, self.wanted.pop()?, 0) {
                Ok(Some(bytes)) => bytes,
                // It has expired meanwhile.
                Ok(None) => continue,
                Err(error) => return Some(Err(error)),
            };
            self.ready = frames(&bytes)
                .filter(|(_, frame)| self.numbers.contains(&frame.number))
                .filter_map(|(_, frame)| frame.record().ok())
                .collect();
            if self.order == Order::OldestFirst {
                self.ready.reverse();
            }
        }
    }
}
