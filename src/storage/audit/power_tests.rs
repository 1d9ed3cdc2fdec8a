//! Power cuts at every byte of every write, and disks that are full or read-only.

use super::heads::HeadsFile;
use super::memory::{Files, Memory, Op, after_power_cut, length};
use super::read::Reader;
use super::verify::verify_on;
use super::{AuditError, Bounds, Log, Order};
use crate::audit::{ClockTrust, Note, Record, Stamp, Verdict};
use crate::crypto::{Secret, Signer};
use std::io::ErrorKind;

fn signer() -> Signer {
    Signer::new(&Secret::new([7; 32]))
}

fn at(seconds: u64) -> Stamp {
    let wall = 1_795_600_000_000_000 + i64::try_from(seconds).expect("small") * 1_000_000;
    Stamp { boot: [3; 16], monotonic: seconds * 1_000_000, wall, clock: ClockTrust::Trusted }
}

const SMALL: Bounds = Bounds { keep_for: Bounds::YEAR, largest: 4 << 20 };

fn memory([_, register]: &[Memory; 2]) -> HeadsFile<Memory> {
    HeadsFile { disk: register.clone(), name: "g.heads".to_owned() }
}

fn open(disk: &[Memory; 2], now: &Stamp) -> Result<Log<Memory>, AuditError> {
    Log::open_on(disk[0].clone(), Some(memory(disk)), SMALL, Some(signer()), now)
}

fn verified(disk: &[Memory; 2]) -> Verdict {
    verify_on(&disk[0], Some(&memory(disk)), &[signer().public()]).expect("a log")
}

fn records(disk: &[Memory; 2]) -> Vec<Record> {
    let reader = Reader::on(disk[0].clone());
    let records = reader.records(1..=u64::MAX, Order::OldestFirst).expect("records");
    records.collect::<Result<_, _>>().expect("records")
}

/// Number of operations after which a record was known to be on the disk, and the record.
type Promise = (usize, Record);

/// What survives of the operations that were not synced, in several ways.
fn ways() -> [fn(usize) -> bool; 5] {
    [|_| false, |_| true, |at| at % 2 == 0, |at| at % 2 == 1, |at| at * 7 % 5 < 2]
}

/// Cuts the power within a journal, at every byte of every write. Whatever was promised must
/// be there afterwards, the log must verify, and it must go on.
fn cut_everywhere(journal: &[Op], promises: &[Promise]) -> usize {
    let mut cuts = 0;
    for done in 0..=journal.len() {
        for place in 0..=journal.get(done).map_or(0, length) {
            // Where nothing of the write survives, its length does not matter.
            let ways = ways().into_iter().enumerate().filter(|(way, survives)| {
                place == 0 || *way == 1 || survives(done) && place % 5 == *way
            });
            for (way, survives) in ways {
                let files = after_power_cut(&Files::new(), journal, done, place, survives);
                let disk = Memory::pair(files);
                let shown = format!("{done} operations, {place} bytes, way {way}");
                let mut log = open(&disk, &at(1000)).unwrap_or_else(|e| panic!("{shown}: {e}"));
                let found = records(&disk);
                for (when, promised) in promises {
                    if *when <= done {
                        assert!(found.contains(promised), "{shown}: {promised:?}");
                    }
                }
                let verdict = verified(&disk);
                assert!(verdict.is_good(), "{shown}: {verdict:?}");
                assert_eq!(verdict.tail, 0, "{shown}");
                cuts += 1;
                if cuts % 16 == 0 {
                    log.append(&at(1001), b"after").expect("appended");
                    log.sign(&at(1002)).expect("signed");
                    let verdict = verified(&disk);
                    assert!(verdict.is_good() && verdict.unproven == 0, "{shown}: {verdict:?}");
                }
            }
        }
    }
    cuts
}

/// Number of operations so far, for what was synced, with all records.
fn promise(disk: &[Memory; 2], promises: &mut Vec<Promise>) {
    let done = disk[0].state.borrow().journal.len();
    for record in records(disk) {
        if !promises.iter().any(|(_, known)| *known == record) {
            promises.push((done, record));
        }
    }
}

#[test]
fn a_power_cut_at_every_byte_of_a_first_day_loses_nothing_that_was_synced() {
    let disk = Memory::pair(Files::new());
    let mut promises = Vec::new();
    let mut log = open(&disk, &at(0)).expect("a log");
    promise(&disk, &mut promises);
    for n in 1..=2u64 {
        log.append(&at(n), &[1, 2, 3]).expect("appended");
        log.append(&at(n), b"a longer body of an entry").expect("appended");
        log.sync().expect("synced");
        promise(&disk, &mut promises);
        log.append(&at(n), &[]).expect("appended");
        // The next day from the second on: a head that stays.
        log.sign(&at(n * 86_400)).expect("signed");
        promise(&disk, &mut promises);
    }
    let journal = disk[0].state.borrow().journal.clone();
    let cuts = cut_everywhere(&journal, &promises);
    assert!(cuts > 2000, "{cuts}");
}

#[test]
fn a_power_cut_while_segments_change_and_expire_loses_nothing_that_was_synced() {
    let disk = Memory::pair(Files::new());
    let mut log = open(&disk, &at(0)).expect("a log");
    // One segment each, and enough of them that the first must go at the next one.
    for n in 0..70 {
        log.append(&at(n), &vec![7; 60_000]).expect("appended");
    }
    log.sync().expect("synced");
    let before = disk[0].state.borrow().files.clone();
    disk[0].state.borrow_mut().journal.clear();
    log.append(&at(100), &[1; 50]).expect("appended");
    log.append(&at(101), &vec![2; 10_000]).expect("appended");
    log.sync().expect("synced");
    let mut promises = Vec::new();
    promise(&disk, &mut promises);
    // What has expired is not promised.
    let first = records(&disk)[0].number;
    promises.retain(|(_, record)| record.number >= first);
    let journal = disk[0].state.borrow().journal.clone();
    assert!(journal.iter().any(|op| matches!(op, Op::Remove(_))), "nothing expired");
    // Each cut reads 4 MB; a few of them per operation.
    let mut sparse: Vec<(usize, usize)> = Vec::new();
    for (done, op) in journal.iter().enumerate() {
        let bytes = length(op);
        sparse.extend([0, 1, bytes / 2, bytes].map(|place| (done, place.min(bytes))));
    }
    sparse.dedup();
    for (done, place) in sparse {
        for survives in ways().into_iter().take(3) {
            let files = after_power_cut(&before, &journal, done, place, survives);
            let disk = Memory::pair(files);
            drop(open(&disk, &at(1000)).expect("a log"));
            let verdict = verified(&disk);
            assert!(verdict.is_good(), "{done} {place}: {verdict:?}");
            let last = records(&disk).last().map_or(0, |record| record.number);
            let promised = promises.iter().filter(|(when, _)| *when <= done);
            assert!(promised.map(|(_, record)| record.number).max().unwrap_or(0) <= last);
        }
    }
}

#[test]
fn a_torn_end_is_kept_and_counted() {
    let disk = Memory::pair(Files::new());
    let mut log = open(&disk, &at(0)).expect("a log");
    log.append(&at(1), b"whole").expect("appended");
    log.append(&at(2), b"torn").expect("appended");
    let name = "log/00000000000000000001.log";
    let mut files = disk[0].state.borrow().files.clone();
    let file = files.get_mut(name).expect("a segment");
    file.truncate(file.len() - 3);
    let disk = Memory::pair(files);
    drop(open(&disk, &at(3)).expect("a log"));
    let found = records(&disk);
    let Some(Note::Torn { bytes, kept: Some(kept) }) = found[2].note() else {
        panic!("{found:?}");
    };
    assert_eq!(bytes, 82 + 4 - 3);
    let kept = disk[0].state.borrow().files[&format!("log/{kept}")].len();
    assert_eq!(kept as u64, bytes);
    assert_eq!(verified(&disk).torn[0].count, bytes);
}

#[test]
fn a_full_disk_loses_no_record_that_was_written_and_goes_on_when_there_is_room() {
    for room in 0..700 {
        let disk = Memory::pair(Files::new());
        let mut log = open(&disk, &at(0)).expect("a log");
        log.append(&at(1), b"before").expect("appended");
        disk[0].state.borrow_mut().room = Some(room);
        let mut written = Vec::new();
        for n in 0..4u8 {
            if log.append(&at(2), &[n; 50]).is_ok() {
                written.push(n);
            }
            let _ = log.sign(&at(2));
        }
        // A start on the full disk finds the log, or says why not.
        if let Err(error) = open(&disk, &at(3)) {
            assert!(error.to_string().contains("make room"), "{error}");
        }
        disk[0].state.borrow_mut().room = None;
        let reopened = room % 2 == 0;
        if reopened {
            log = open(&disk, &at(4)).expect("a log");
        }
        log.append(&at(5), b"after").expect("appended");
        log.sign(&at(6)).expect("signed");
        let verdict = verified(&disk);
        assert!(verdict.is_good(), "{room}: {verdict:?}");
        let bodies: Vec<Vec<u8>> = records(&disk).into_iter().map(|record| record.body).collect();
        for n in written {
            assert!(bodies.contains(&vec![n; 50]), "{room}: {n}");
        }
        assert!(bodies.contains(&b"before".to_vec()) && bodies.contains(&b"after".to_vec()));
    }
}

#[test]
fn a_read_only_disk_is_an_error_with_its_cure_and_changes_nothing() {
    let disk = Memory::pair(Files::new());
    let mut log = open(&disk, &at(0)).expect("a log");
    log.append(&at(1), b"before").expect("appended");
    let files = disk[0].state.borrow().files.clone();
    disk[0].state.borrow_mut().read_only = true;
    for failed in [log.append(&at(2), b"x").err(), log.sign(&at(2)).err()] {
        let Some(AuditError::Io { reason, .. }) = &failed else { panic!("{failed:?}") };
        assert_eq!(reason.kind(), ErrorKind::ReadOnlyFilesystem);
        assert!(failed.expect("an error").to_string().contains("mount the disk writable"));
    }
    assert_eq!(disk[0].state.borrow().files, files);
    disk[0].state.borrow_mut().read_only = false;
    log.append(&at(3), b"after").expect("appended");
    assert!(verified(&disk).is_good());
}

#[test]
fn a_bit_flip_is_named_and_costs_only_its_record() {
    let disk = Memory::pair(Files::new());
    let mut log = open(&disk, &at(0)).expect("a log");
    for n in 0..5 {
        log.append(&at(n), &[0; 20]).expect("appended");
    }
    log.sign(&at(6)).expect("signed");
    let files = disk[0].state.borrow().files.clone();
    let name = "log/00000000000000000001.log";
    for byte in 0..files[name].len() {
        let mut flipped = files.clone();
        flipped.get_mut(name).expect("a segment")[byte] ^= 4;
        let disk = Memory::pair(flipped);
        let mut log = open(&disk, &at(10)).expect("a log");
        log.append(&at(11), b"after").expect("appended");
        log.sign(&at(12)).expect("signed");
        assert!(records(&disk).len() >= 7, "{byte}");
        let verdict = verified(&disk);
        assert!(!verdict.is_good(), "{byte}");
        let repaired = verdict.proven.last().expect("later heads");
        assert_eq!((verdict.unproven, repaired.through), (0, verdict.last), "{byte}");
    }
}

#[test]
fn a_log_that_is_cut_or_replaced_while_nobody_looks_says_so_for_ever() {
    let make = |entries: u64| {
        let disk = Memory::pair(Files::new());
        let mut log = open(&disk, &at(0)).expect("a log");
        for n in 0..entries {
            log.append(&at(n), &[9; 20]).expect("appended");
        }
        log.sign(&at(entries)).expect("signed");
        disk[0].state.borrow().files.clone()
    };
    let files = make(5);
    let name = "log/00000000000000000001.log";
    let heads = "log/heads";
    // The end is cut, with the heads beside it; the register remembers.
    let mut cut = files.clone();
    cut.get_mut(name).expect("a segment").truncate(80 + 82 + 1);
    cut.remove(heads);
    // The whole folder is gone.
    let gone: Files =
        files.iter().filter(|(name, _)| name.starts_with("register")).map(own).collect();
    // Another log in its place, signed with the same key.
    let mut other = make(30);
    other.insert("register/g.heads".to_owned(), files["register/g.heads"].clone());
    for (files, what) in [(cut, "cut"), (gone, "gone"), (other, "other")] {
        let disk = Memory::pair(files);
        assert!(!verified(&disk).is_good(), "{what}");
        for round in 0..2 {
            let mut log = open(&disk, &at(20)).expect("a log");
            log.append(&at(21), b"after").expect("appended");
            log.sign(&at(22)).expect("signed");
            let verdict = verified(&disk);
            assert!(!verdict.is_good(), "{what} {round}");
        }
        let numbers: Vec<u64> = records(&disk).iter().map(|record| record.number).collect();
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
        if what != "other" {
            assert!(!numbers.contains(&7) && numbers.contains(&8), "{what}: {numbers:?}");
        }
    }
}

fn own((name, bytes): (&String, &Vec<u8>)) -> (String, Vec<u8>) {
    (name.clone(), bytes.clone())
}
