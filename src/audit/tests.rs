//! Whatever is done to a log is found, and named.

use super::*;
use crate::crypto::{PublicKey, Secret, Signer};
use proptest::prelude::*;

fn signer() -> Signer {
    Signer::new(&Secret::new([7; 32]))
}

fn keys() -> Vec<PublicKey> {
    vec![signer().public()]
}

fn stamp(number: u64) -> Stamp {
    let wall = 1_795_600_000_000_000 + i64::try_from(number).expect("small") * 1_000_000;
    Stamp { boot: [3; 16], monotonic: number * 1_000_000, wall, clock: ClockTrust::Trusted }
}

/// A log as it is on disk: contents of records, and where segments begin.
#[derive(Clone, Debug)]
struct Made {
    /// Bytes of each record.
    records: Vec<Vec<u8>>,
    /// Numbers of the first records of segments.
    begins: Vec<u64>,
    /// Places in the chain after each record, the first before all of them.
    links: Vec<Link>,
    heads: Vec<Head>,
}

const LOG: LogId = [9; 16];

impl Made {
    /// A log with entries of these lengths. Every third record is a head, and so is the
    /// last; every seventh begins a segment.
    fn new(lengths: &[usize]) -> Self {
        let mut made = Self {
            records: vec![],
            begins: vec![1],
            links: vec![Link::first(&LOG)],
            heads: vec![],
        };
        for (at, length) in lengths.iter().enumerate() {
            made.push(Kind::Entry, &vec![u8::try_from(at % 251).expect("small"); *length]);
            if made.records.len() % 3 == 2 {
                made.head();
            }
        }
        made.head();
        made
    }

    fn push(&mut self, kind: Kind, body: &[u8]) {
        let link = self.links[self.records.len()];
        let content = next(&link, &stamp(link.number + 1), kind, body);
        let (bytes, after) = encode(&link, &content);
        if link.number > 0 && link.number.is_multiple_of(7) {
            self.begins.push(link.number + 1);
        }
        self.records.push(bytes);
        self.links.push(after);
    }

    fn head(&mut self) {
        let link = self.links[self.records.len()];
        let head = Head::sign(&signer(), &LOG, &link, &stamp(link.number + 1));
        self.heads.push(head);
        self.push(Kind::Head, &head.signature);
        assert_eq!(Some(&head.link()), self.links.last());
    }

    fn last(&self) -> u64 {
        self.records.len() as u64
    }

    /// The segments, with these records in the place of the original ones.
    fn segments(&self, records: &[Vec<u8>]) -> Vec<(u64, Vec<u8>)> {
        let mut segments: Vec<(u64, Vec<u8>)> = Vec::new();
        for (number, bytes) in (1..).zip(records) {
            if self.begins.contains(&number) {
                let after = self.links[number as usize - 1];
                segments.push((number, SegmentHeader { log: LOG, after }.encode().to_vec()));
            }
            segments.last_mut().expect("a segment").1.extend(bytes);
        }
        segments
    }

    fn verify(&self, segments: &[(u64, Vec<u8>)]) -> Verdict {
        verify(segments, self.heads.last().copied())
    }
}

fn verify(segments: &[(u64, Vec<u8>)], head: Option<Head>) -> Verdict {
    let mut verifier = Verifier::new(keys(), head);
    for (first, bytes) in segments {
        verifier.segment(*first, bytes);
    }
    verifier.finish()
}

/// The first fault, after checking that what is before it stays proven.
fn first(verdict: &Verdict) -> Fault {
    assert!(!verdict.is_good());
    let fault = verdict.faults.first().expect("a fault").clone();
    let before = verdict.proven.first();
    assert!(
        before.is_none_or(|proven| proven.through < fault.record || proven.from > fault.record),
        "{verdict:?}"
    );
    fault
}

/// Content of a record on disk.
fn content(record: &[u8]) -> Vec<u8> {
    parse_frame(record).expect("a record").content.to_vec()
}

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0usize..200, 3..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_log_that_nobody_touched_is_proven_to_its_last_head(lengths in lengths()) {
        let made = Made::new(&lengths);
        let verdict = made.verify(&made.segments(&made.records));
        prop_assert!(verdict.is_good(), "{verdict:?}");
        prop_assert_eq!((verdict.first, verdict.last, verdict.unproven), (1, made.last(), 0));
        prop_assert_eq!(verdict.proven.len(), 1);
        prop_assert_eq!(verdict.heads, made.heads.len() as u64);
        let whole = Proven {
            from: 1,
            through: made.last(),
            wall: stamp(made.last()).wall,
            trusted: true,
        };
        prop_assert_eq!(verdict.proven[0], whole);
    }

    #[test]
    fn any_byte_that_is_changed_is_found_in_its_record(
        lengths in lengths(), at in any::<prop::sample::Index>(), bit in 0u8..8,
    ) {
        let made = Made::new(&lengths);
        let mut segments = made.segments(&made.records);
        let place = at.index(segments.iter().map(|(_, bytes)| bytes.len()).sum());
        let mut before = 0;
        for (begin, bytes) in &mut segments {
            if place < before + bytes.len() {
                let offset = place - before;
                bytes[offset] ^= 1 << bit;
                let (begin, offset) = (*begin, offset);
                // The record in which it is, or the segment if it is in its header.
                let mut record = begin;
                let mut end = SEGMENT_HEADER;
                while offset >= end + made.records[record as usize - 1].len() {
                    end += made.records[record as usize - 1].len();
                    record += 1;
                }
                let fault = first(&made.verify(&segments));
                prop_assert_eq!(fault.record, record, "{}", fault);
                break;
            }
            before += bytes.len();
        }
    }

    #[test]
    fn an_edited_record_is_named(
        lengths in lengths(), which in any::<prop::sample::Index>(), rehashed in any::<bool>(),
    ) {
        let made = Made::new(&lengths);
        let at = which.index(made.records.len());
        let mut edited = content(&made.records[at]);
        // The time of the record, which every record has.
        edited[32] ^= 1;
        let mut records = made.records.clone();
        records[at] = encode(&made.links[at], &edited).0;
        let hash = records[at].len() - 32;
        if !rehashed {
            // The former hash, with a good checksum.
            let old = made.records[at][hash..].to_vec();
            records[at].splice(hash.., old);
            let mut sum = crc32fast::Hasher::new();
            sum.update(&records[at][..4]);
            sum.update(&records[at][8..]);
            records[at].splice(4..8, sum.finalize().to_le_bytes());
        }
        let fault = first(&made.verify(&made.segments(&records)));
        let number = at as u64 + 1;
        if rehashed {
            // A head that was written again is one fault with what it signed.
            let named = fault.record <= number + 1 && number <= fault.through;
            prop_assert!(named, "{number}: {fault}");
        } else {
            prop_assert_eq!((fault.record, &fault.wrong), (number, &Wrong::Edited));
        }
    }

    #[test]
    fn a_history_that_is_written_again_is_not_what_was_signed(
        lengths in lengths(), which in any::<prop::sample::Index>(),
    ) {
        let made = Made::new(&lengths);
        let at = which.index(made.records.len());
        let (mut records, mut links) = (made.records.clone(), made.links.clone());
        for n in at..records.len() {
            let mut edited = content(&made.records[n]);
            edited[32] ^= u8::from(n == at);
            (records[n], links[n + 1]) = encode(&links[n], &edited);
        }
        let forged = Made { links, ..made.clone() };
        let fault = first(&made.verify(&forged.segments(&records)));
        let number = at as u64 + 1;
        prop_assert!(fault.record <= number && number <= fault.through, "{number}: {fault}");
        prop_assert_eq!(fault.wrong, Wrong::Rewritten);
    }

    #[test]
    fn a_record_that_is_dropped_is_named(
        lengths in lengths(), which in any::<prop::sample::Index>(),
    ) {
        let made = Made::new(&lengths);
        let at = which.index(made.records.len());
        let mut records = made.records.clone();
        records[at].clear();
        let fault = first(&made.verify(&made.segments(&records)));
        let number = at as u64 + 1;
        prop_assert_eq!((fault.record, fault.through), (number, number), "{}", fault);
        let last = number == made.last();
        prop_assert_eq!(fault.wrong, if last { Wrong::Cut } else { Wrong::Dropped });
    }

    #[test]
    fn records_that_are_swapped_are_named(
        lengths in lengths(), one in any::<prop::sample::Index>(),
        other in any::<prop::sample::Index>(),
    ) {
        let made = Made::new(&lengths);
        let one = one.index(made.records.len());
        let other = other.index(made.records.len());
        prop_assume!(one != other);
        let mut records = made.records.clone();
        records.swap(one, other);
        let fault = first(&made.verify(&made.segments(&records)));
        let (low, high) = (one.min(other) as u64 + 1, one.max(other) as u64 + 1);
        prop_assert!((low..=high).contains(&fault.record), "{low} {high}: {fault}");
        prop_assert!(matches!(fault.wrong, Wrong::Reordered | Wrong::Dropped), "{fault}");
    }

    #[test]
    fn an_end_that_is_cut_off_is_found(lengths in lengths(), at in any::<prop::sample::Index>()) {
        let made = Made::new(&lengths);
        let mut segments = made.segments(&made.records);
        let mut left = at.index(segments.iter().map(|(_, bytes)| bytes.len()).sum());
        for (_, bytes) in &mut segments {
            let keep = left.min(bytes.len());
            bytes.truncate(keep);
            left -= keep;
        }
        segments.retain(|(_, bytes)| !bytes.is_empty());
        let verdict = made.verify(&segments);
        let fault = verdict.faults.last().expect("a fault");
        prop_assert_eq!(fault.through, made.last());
        prop_assert!(fault.record > verdict.last);
    }

    #[test]
    fn a_segment_that_is_missing_or_of_another_log_is_named(
        lengths in prop::collection::vec(0usize..50, 10..30), which in any::<prop::sample::Index>(),
        foreign in any::<bool>(),
    ) {
        let made = Made::new(&lengths);
        let mut segments = made.segments(&made.records);
        let at = which.index(segments.len());
        let begin = segments[at].0;
        if foreign {
            let after = made.links[begin as usize - 1];
            let header = SegmentHeader { log: [8; 16], after }.encode();
            segments[at].1[..SEGMENT_HEADER].copy_from_slice(&header);
        } else {
            segments.remove(at);
        }
        let verdict = made.verify(&segments);
        prop_assert!(!verdict.is_good());
        let named = verdict.faults.iter().any(|fault| fault.record <= begin && begin <= fault.through);
        // The header of the first segment says which log it is: the others are then foreign.
        prop_assert!(named || foreign && at == 0, "{verdict:?}");
    }

    #[test]
    fn no_bytes_make_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400), begin in any::<u64>(),
        header in any::<bool>(), number in any::<u64>(),
    ) {
        let after = Link { number, hash: [1; 32] };
        let mut segment =
            if header { SegmentHeader { log: LOG, after }.encode().to_vec() } else { vec![] };
        segment.extend(&bytes);
        let begin = if header { number.wrapping_add(1) } else { begin };
        let _ = verify(&[(begin, segment.clone()), (begin, segment)], None);
        let _ = Head::decode(&bytes);
        let _ = Note::decode(&bytes);
        let _ = parse_frame(&bytes);
    }
}

#[test]
fn another_key_proves_nothing() {
    let made = Made::new(&[10; 8]);
    let mut verifier = Verifier::new(vec![Signer::new(&Secret::new([8; 32])).public()], None);
    for (first, bytes) in made.segments(&made.records) {
        verifier.segment(first, &bytes);
    }
    let verdict = verifier.finish();
    assert!(verdict.proven.is_empty() && !verdict.is_good());
    assert_eq!(verdict.faults[0].wrong, Wrong::Rewritten);
}

#[test]
fn notes_of_losses_are_listed_and_no_fault() {
    let mut made = Made::new(&[10; 3]);
    made.push(Kind::Note, &Note::Lost { records: 7 }.encode());
    made.push(Kind::Note, &Note::Torn { bytes: 33, kept: None }.encode());
    made.head();
    let verdict = made.verify(&made.segments(&made.records));
    assert!(verdict.is_good(), "{verdict:?}");
    assert_eq!((verdict.lost[0].count, verdict.torn[0].count), (7, 33));
}

#[test]
fn the_beginning_may_expire_but_not_vanish() {
    let mut made = Made::new(&[10; 20]);
    let begin = made.begins[1];
    let without = |made: &Made| {
        let mut segments = made.segments(&made.records);
        segments.remove(0);
        made.verify(&segments)
    };
    let verdict = without(&made);
    assert_eq!((verdict.faults[0].record, verdict.faults[0].through), (1, begin - 1));
    let note = Note::Expired { through: begin - 1, by_age: true };
    made.push(Kind::Note, &note.encode());
    made.head();
    let verdict = without(&made);
    assert!(verdict.is_good(), "{verdict:?}");
    assert_eq!(verdict.expired_through, begin - 1);
}

#[test]
fn crafted_bytes_do_not_keep_the_search_busy() {
    // Every second offset has a possible length.
    let bytes: Vec<u8> = [0xff, 0xff, 0, 0].repeat(2 << 20);
    let began = std::time::Instant::now();
    assert!(next_frame(&bytes, 0, &mut 0).is_none());
    assert!(began.elapsed().as_secs() < 20);
}
