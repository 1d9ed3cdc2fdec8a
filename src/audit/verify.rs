//! Verifies a log: segment after segment, record after record. Names the first record that
//! was edited, cut, reordered or dropped, and says up to which record and time signed heads
//! prove it.

use super::chain::{Hash, Link, LogId};
use super::frame::{Frame, SEGMENT_HEADER, SegmentHeader, next_frame};
use super::head::Head;
use super::{ClockTrust, Kind, Note, Stamp};
use crate::crypto::PublicKey;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Most faults, gaps and torn ends that a verdict lists; the first ones.
const MOST_LISTED: usize = 1000;

/// In place of the hash of a record that is damaged.
const UNKNOWN: Hash = [0; 32];

/// What is wrong with a record, or with several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "fault")]
pub enum Wrong {
    /// The content does not fit its hash.
    Edited,
    /// Bytes that are no record, because they were overwritten or damaged.
    Damaged {
        /// How many.
        bytes: usize,
    },
    /// They are not in the log.
    Dropped,
    /// It stands where another record belongs.
    Reordered,
    /// They are not the ones that were signed: they were written again with new hashes, or
    /// another key signed.
    Rewritten,
    /// The end of the log is gone, although a signed head proves that it was there.
    Cut,
    /// The segment that begins with it is not usable.
    Segment {
        /// Why.
        reason: String,
    },
}

/// A fault of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Number of the first record that is concerned.
    pub record: u64,
    /// Number of the last one.
    pub through: u64,
    /// What is wrong.
    #[serde(flatten)]
    pub wrong: Wrong,
    /// Wall clock of the last record before it, Unix microseconds; `None` if there is none.
    pub after: Option<i64>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { record, through, wrong, .. } = self;
        let (one, are) = if record == through {
            (format!("record {record}"), "is")
        } else {
            (format!("records {record} to {through}"), "are")
        };
        match wrong {
            Wrong::Edited => write!(
                f,
                "{one} was edited: it does not fit its hash (or the record before it was edited \
                 together with its hash)"
            ),
            Wrong::Damaged { bytes } => {
                write!(f, "{one} {are} damaged: {bytes} bytes are no record")
            }
            Wrong::Dropped => write!(f, "{one} {are} missing"),
            Wrong::Reordered => write!(f, "{one} is out of order"),
            Wrong::Rewritten => {
                write!(f, "{one} {are} not what was signed; or another key signed")
            }
            Wrong::Cut => {
                write!(f, "{one} {are} cut off: a signed head proves that there was more")
            }
            Wrong::Segment { reason } => write!(f, "the segment that begins with {one}: {reason}"),
        }
    }
}

/// Records that follow each other without a fault, up to a signed head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Proven {
    /// Number of the first.
    pub from: u64,
    /// Number of the head that proves them.
    pub through: u64,
    /// Wall clock of that head, Unix microseconds.
    pub wall: i64,
    /// Whether the wall clock was trusted then.
    pub trusted: bool,
}

/// A record in which the log itself says that something is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// Number of the record that says so.
    pub record: u64,
    /// Its wall clock, Unix microseconds.
    pub wall: i64,
    /// Records that were lost, or bytes of a torn end.
    pub count: u64,
}

/// What was found about a log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whole records that were read.
    pub records: u64,
    /// Numbers of the first and the last of them; 0 if there is none.
    pub first: u64,
    /// See `first`.
    pub last: u64,
    /// Faults in the order of the records.
    pub faults: Vec<Fault>,
    /// Stretches that signed heads prove, in order.
    pub proven: Vec<Proven>,
    /// Records after the last signed head, which nothing proves yet.
    pub unproven: u64,
    /// Signed heads that were verified, those of removed segments included.
    pub heads: u64,
    /// Records that say that records were lost before they could be written.
    pub lost: Vec<Gap>,
    /// Records that say that a torn end was cut off, as after a power cut.
    pub torn: Vec<Gap>,
    /// Number of the last record that was removed because of its age or the size of the log.
    pub expired_through: u64,
    /// Bytes at the end that are no whole record yet.
    pub tail: u64,
}

impl Verdict {
    /// Whether nothing is wrong. Losses that the log itself names are no fault.
    pub fn is_good(&self) -> bool {
        self.faults.is_empty() && self.records > 0
    }

    fn fault(&mut self, record: u64, through: u64, wrong: Wrong, after: Option<i64>) {
        if self.faults.len() < MOST_LISTED {
            self.faults.push(Fault { record, through, wrong, after });
        }
    }
}

/// Verifies a log.
#[derive(Debug)]
pub struct Verifier {
    keys: Vec<PublicKey>,
    /// Heads from outside the segments, by number.
    heads: BTreeMap<u64, Vec<Head>>,
    /// First number of an extract, whose beginning is not missing.
    extract: Option<u64>,
    log: Option<LogId>,
    link: Option<Link>,
    /// Wall clock of the last record.
    wall: Option<i64>,
    /// First record since the last fault.
    since: u64,
    /// Number of the last record that a head proves.
    proven: u64,
    /// Records that notes say were cut.
    cut: BTreeSet<u64>,
    verdict: Verdict,
}

impl Verifier {
    /// With the keys that may have signed, and heads that were kept apart from the log. Without
    /// a key only the chain is verified.
    pub fn new(keys: Vec<PublicKey>, heads: impl IntoIterator<Item = Head>) -> Self {
        let mut verdict = Verdict::default();
        let mut by_number = BTreeMap::<u64, Vec<Head>>::new();
        for head in heads {
            if signed(&keys, &head) == Some(false) {
                verdict.fault(head.number, head.number, Wrong::Rewritten, None);
            } else {
                by_number.entry(head.number).or_default().push(head);
            }
        }
        Self {
            keys,
            heads: by_number,
            extract: None,
            log: None,
            link: None,
            wall: None,
            since: 0,
            proven: 0,
            cut: BTreeSet::new(),
            verdict,
        }
    }

    /// The log is an extract that begins with this record.
    pub fn extract_from(self, first: u64) -> Self {
        Self { extract: Some(first), ..self }
    }

    /// Notes that a segment cannot be read.
    pub fn unreadable(&mut self, first: u64, reason: String) {
        self.broken(first, first, Wrong::Segment { reason });
    }

    /// Verifies the next segment: the number in its name, and its bytes.
    pub fn segment(&mut self, named: u64, bytes: &[u8]) {
        // What the segment before left is no end of the log.
        let tail = std::mem::take(&mut self.verdict.tail);
        if tail > 0 {
            let next = self.link.map_or(named, |link| link.number.saturating_add(1));
            let bytes = usize::try_from(tail).unwrap_or(usize::MAX);
            self.broken(next, next.max(named.saturating_sub(1)), Wrong::Damaged { bytes });
            if let Some(link) =
                self.link.as_mut().filter(|link| link.number.saturating_add(1) < named)
            {
                *link = Link { number: named - 1, hash: UNKNOWN };
            }
        }
        let mut at = SEGMENT_HEADER;
        match SegmentHeader::parse(bytes) {
            Ok(header) if self.log.is_some_and(|log| log != header.log) => {
                let reason = "it belongs to another log".to_owned();
                return self.unreadable(named, reason);
            }
            Ok(header) if header.after.number.saturating_add(1) != named => {
                let reason =
                    format!("its first record is {}", header.after.number.saturating_add(1));
                return self.unreadable(named, reason);
            }
            Ok(header) => self.begin(&header),
            // As after a power cut while it was begun, if no segment follows.
            Err(_) if bytes.len() < SEGMENT_HEADER => {
                self.verdict.tail = bytes.len().max(1) as u64;
                return;
            }
            Err(reason) => {
                self.unreadable(named, reason.to_owned());
                self.link.get_or_insert(Link { number: named.saturating_sub(1), hash: UNKNOWN });
            }
        }
        let frames = collect(bytes, at);
        let numbers: BTreeSet<u64> = frames.iter().map(|(_, frame)| frame.number).collect();
        for (found, frame) in &frames {
            if *found > at {
                let next = self.link.map_or(named, |link| link.number.saturating_add(1));
                let through = frame.number.saturating_sub(1).max(next);
                self.broken(next, through, Wrong::Damaged { bytes: *found - at });
                // What is damaged is not missing as well.
                if frame.number > next
                    && let Some(link) = &mut self.link
                {
                    *link = Link { number: frame.number - 1, hash: UNKNOWN };
                }
            }
            self.frame(frame, &numbers);
            at = *found + frame.bytes;
        }
        self.verdict.tail = bytes.len().saturating_sub(at) as u64;
    }

    fn begin(&mut self, header: &SegmentHeader) {
        let first = header.after.number.saturating_add(1);
        self.log = Some(header.log);
        match self.link {
            None => {
                self.since = first;
                if header.after.number == 0 && header.after != Link::first(&header.log) {
                    let reason = "its first hash is not that of its log".to_owned();
                    self.unreadable(first, reason);
                }
                let kept = self.heads.get(&header.after.number);
                if kept.is_some_and(|kept| kept.iter().any(|head| head.link() != header.after)) {
                    self.broken(first, first, Wrong::Rewritten);
                }
            }
            Some(link) if link == header.after => {}
            Some(Link { number, hash: UNKNOWN }) if number == header.after.number => {}
            Some(link) if link.number < header.after.number => {
                self.broken(link.number.saturating_add(1), header.after.number, Wrong::Dropped);
            }
            Some(link) if link.number > header.after.number => {
                self.broken(first, link.number, Wrong::Reordered);
            }
            Some(_) => self.broken(first, first, Wrong::Edited),
        }
        self.link = Some(header.after);
    }

    fn frame(&mut self, frame: &Frame<'_>, numbers: &BTreeSet<u64>) {
        let Some(link) = self.link else { return };
        let record = frame.record().ok();
        let note = record.as_ref().and_then(|record| record.note());
        let unlinked = link.hash == UNKNOWN;
        let next = link.number.saturating_add(1);
        let number = frame.number;
        self.verdict.records += 1;
        if self.verdict.first == 0 {
            self.verdict.first = number;
        }
        if number < next {
            return self.broken(number, number, Wrong::Reordered);
        }
        let jump = matches!(note, Some(Note::Cut { from, through })
            if from == next && through.checked_add(1) == Some(number));
        let mut follows = number == next && !unlinked;
        if number > next && !jump {
            if (next..number).take(MOST_LISTED).any(|missing| numbers.contains(&missing)) {
                self.broken(number, number, Wrong::Reordered);
            } else {
                self.broken(next, number - 1, Wrong::Dropped);
            }
        } else if !unlinked && link.next(frame.content) != frame.hash {
            self.broken(number, number, Wrong::Edited);
            follows = false;
        }
        if let Some(record) = &record {
            self.wall = Some(record.stamp.wall);
            match record.kind {
                Kind::Head if follows => {
                    self.head(&link, frame, &record.stamp);
                }
                Kind::Entry | Kind::Note | Kind::Head => {}
            }
        } else {
            let reason = "it has a field that this version does not know".to_owned();
            self.broken(number, number, Wrong::Segment { reason });
        }
        if let Some(note) = note {
            let wall = self.wall.unwrap_or_default();
            self.note(number, wall, &note);
        }
        let differs = |head: &Head| head.link().hash != frame.hash;
        if self.heads.get(&number).is_some_and(|heads| heads.iter().any(differs)) {
            let from = self.proven.max(self.since.saturating_sub(1)) + 1;
            self.broken(from.min(number), number, Wrong::Rewritten);
        }
        self.link = Some(frame.link());
        self.verdict.last = self.verdict.last.max(number);
    }

    fn head(&mut self, before: &Link, frame: &Frame<'_>, stamp: &Stamp) {
        let Some(log) = self.log else { return };
        let head = Head::of(&log, before, frame);
        let Some(valid) = head.map_or(Some(false), |head| signed(&self.keys, &head)) else {
            return;
        };
        let number = frame.number;
        if !valid {
            let from = self.proven.max(self.since.saturating_sub(1)) + 1;
            return self.broken(from.min(number), number, Wrong::Rewritten);
        }
        self.verdict.heads += 1;
        self.proven = number;
        let trusted = stamp.clock == ClockTrust::Trusted;
        let proven = Proven { from: self.since, through: number, wall: stamp.wall, trusted };
        match self.verdict.proven.last_mut() {
            Some(last) if last.from == proven.from => *last = proven,
            _ => self.verdict.proven.push(proven),
        }
    }

    fn note(&mut self, record: u64, wall: i64, note: &Note) {
        let listed = |list: &mut Vec<Gap>, count| {
            if list.len() < MOST_LISTED {
                list.push(Gap { record, wall, count });
            }
        };
        match note {
            Note::Lost { records } => listed(&mut self.verdict.lost, *records),
            Note::Torn { bytes, .. } => listed(&mut self.verdict.torn, *bytes),
            Note::Cut { from, through } => {
                let after = self.wall;
                self.cut.insert(*through);
                self.verdict.fault(*from, *through, Wrong::Cut, after);
            }
            Note::Differs { number } => self.broken(*number, *number, Wrong::Rewritten),
            Note::Expired { through, .. } => {
                self.verdict.expired_through = self.verdict.expired_through.max(*through);
            }
            _ => {}
        }
    }

    /// Notes a fault; what follows is proven apart from what was before.
    fn broken(&mut self, record: u64, through: u64, wrong: Wrong) {
        self.verdict.fault(record, through, wrong, self.wall);
        self.since = self.since.max(through.saturating_add(1));
    }

    /// The verdict, after all segments.
    pub fn finish(mut self) -> Verdict {
        let last = self.link.map_or(0, |link| link.number);
        let newest = self.heads.last_key_value().map_or(0, |(number, _)| *number);
        if newest > last {
            self.broken(last.saturating_add(1), newest, Wrong::Cut);
        }
        let Verdict { first, expired_through, .. } = self.verdict;
        let explained = first <= expired_through.saturating_add(1)
            || self.extract == Some(first)
            || self.cut.contains(&first.saturating_sub(1));
        if first > 1 && !explained {
            let from = expired_through.saturating_add(1);
            self.verdict.fault(from, first - 1, Wrong::Dropped, None);
        }
        let apart: usize = self.heads.range(..first).map(|(_, heads)| heads.len()).sum();
        self.verdict.heads += if self.keys.is_empty() { 0 } else { apart as u64 };
        self.verdict.unproven = last.saturating_sub(self.proven);
        self.verdict.faults.sort_by_key(|fault| (fault.record, fault.through));
        self.verdict
    }
}

/// Whether one of the keys signed a head; `None` without keys.
fn signed(keys: &[PublicKey], head: &Head) -> Option<bool> {
    (!keys.is_empty()).then(|| keys.iter().any(|key| head.verify(key).is_ok()))
}

/// All whole records with their offsets.
fn collect(bytes: &[u8], from: usize) -> Vec<(usize, Frame<'_>)> {
    let mut frames = Vec::new();
    let mut at = from;
    let mut effort = 0;
    while let Some((found, frame)) = next_frame(bytes, at, &mut effort) {
        at = found + frame.bytes;
        frames.push((found, frame));
    }
    frames
}
