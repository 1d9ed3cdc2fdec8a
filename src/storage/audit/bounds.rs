//! How much of the log is kept: when a segment is closed, and which go.

use super::disk::Disk;
use super::error::AuditError;
use super::log::{End, HEADS, Log};
use super::segments::{segment_name, segments};
use crate::audit::{ClockTrust, Head, Kind, Note, SEGMENT_HEADER, Stamp, next};
use std::collections::BTreeSet;
use std::time::Duration;

/// Segments into which the largest log is divided.
const SEGMENTS: u64 = 64;
/// Smallest and largest segment that is begun, bytes.
const SEGMENT_SIZES: (u64, u64) = (64 << 10, 4 << 20);
/// A segment goes by age once heads of this many days say that it is too old: a clock that
/// jumps ahead for a moment must not cost the log.
const DAYS_AGREE: usize = 3;
pub(super) const DAY: i64 = 86_400_000_000;
/// A segment is closed when it is older than this part of the time for which records are
/// kept, so that they go soon after it.
const AGES: i64 = 16;
/// Bytes around the body of a record, and of the head after it.
const AROUND_BODY: u64 = 82 + 146;

/// Bounds of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Segments go when they are older than this.
    pub keep_for: Duration,
    /// The oldest segments go when the log is larger than this, bytes.
    pub largest: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { keep_for: Self::YEAR, largest: 256_000_000 }
    }
}

impl Bounds {
    /// 365 days.
    pub const YEAR: Duration = Duration::from_secs(365 * 86_400);

    /// Size at which a segment is closed, bytes.
    pub(super) fn segment(&self) -> u64 {
        (self.largest / SEGMENTS).clamp(SEGMENT_SIZES.0, SEGMENT_SIZES.1)
    }

    pub(super) fn keep_for_micros(&self) -> i64 {
        i64::try_from(self.keep_for.as_micros()).unwrap_or(i64::MAX)
    }
}

impl<D: Disk + Clone> Log<D> {
    /// Closes the last segment with a head and begins another, if a record with a body of
    /// this many bytes has no room in it, or if it is old.
    pub(super) fn make_room(
        &mut self,
        end: End,
        body: u64,
        now: &Stamp,
    ) -> Result<End, AuditError> {
        let full = end.bytes + body + AROUND_BODY > self.bounds.segment();
        let oldest = self.bounds.keep_for_micros() / AGES;
        let age = trusted(now).zip(end.began).map_or(0, |(now, began)| now.saturating_sub(began));
        let empty = end.bytes == SEGMENT_HEADER as u64;
        if empty || !full && age < oldest {
            return Ok(end);
        }
        let signed = self.put_head(end, now)?;
        if signed.is_some()
            && let Some(head) = self.fault(HEADS, self.heads.newest())?
        {
            self.fault(HEADS, self.heads.keep(&head))?;
        }
        self.sync()?;
        let link = self.end.unwrap_or(end).link;
        self.new_segment(&end.log, link)?;
        self.remove_expired(now)?;
        Ok(self.end.unwrap_or(end))
    }

    /// See [`Self::expire`]. Needs the lock.
    pub(super) fn remove_expired(&mut self, now: &Stamp) -> Result<(), AuditError> {
        let there = segments(&self.disk)?;
        let mut total = 0;
        let mut sizes = Vec::new();
        for first in &there {
            let name = segment_name(*first);
            let bytes = self.fault(&name, self.disk.length(&name))?.unwrap_or(0);
            total += bytes;
            sizes.push(bytes);
        }
        let kept = self.fault(HEADS, self.heads.kept())?;
        let mut expired = None;
        let mut gone = 0;
        for (pair, bytes) in there.windows(2).zip(sizes) {
            let [first, after] = *pair else { continue };
            let large = total > self.bounds.largest;
            let old = self.is_old(first..after, &kept, now);
            if !large && !old {
                break;
            }
            total -= bytes;
            gone += 1;
            expired = Some(Note::Expired { through: after - 1, by_age: !large });
        }
        let (Some(note), Some(end)) = (expired, self.end) else { return Ok(()) };
        self.put(end, &next(&end.link, now, Kind::Note, &note.encode()))?;
        self.sync()?;
        for first in there.into_iter().take(gone) {
            let name = segment_name(first);
            self.fault(&name, self.disk.remove(&name))?;
        }
        self.fault("", self.disk.sync_folder())
    }

    /// Whether heads of several days say that a segment is too old.
    pub(super) fn is_old(&self, numbers: std::ops::Range<u64>, kept: &[Head], now: &Stamp) -> bool {
        let inside = kept.iter().filter(|head| numbers.contains(&head.number));
        let Some(ended) = inside.filter_map(|head| trusted(&head.stamp)).max() else {
            return false;
        };
        let limit = ended.saturating_add(self.bounds.keep_for_micros());
        let stamps = kept.iter().map(|head| &head.stamp).chain([now]);
        let days: BTreeSet<i64> = stamps
            .filter_map(trusted)
            .filter(|wall| *wall > limit)
            .map(|wall| wall.div_euclid(DAY))
            .collect();
        days.len() >= DAYS_AGREE
    }
}

/// The wall clock, if it was trusted.
pub(super) fn trusted(stamp: &Stamp) -> Option<i64> {
    (stamp.clock == ClockTrust::Trusted).then_some(stamp.wall)
}
