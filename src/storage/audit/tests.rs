//! The log in a real folder: several appenders, rights, links, clocks and bounds.

use super::*;
use crate::audit::{ClockTrust, Kind, Note, Record, Stamp};
use crate::crypto::{Secret, Signer};
use crate::storage::gallery::Register;
use tempfile::TempDir;

fn signer() -> Signer {
    Signer::new(&Secret::new([7; 32]))
}

/// A moment so many seconds after the first one.
fn at(seconds: i64) -> Stamp {
    let wall = (1_795_600_000 + seconds) * 1_000_000;
    Stamp {
        boot: [3; 16],
        monotonic: seconds.unsigned_abs() * 1_000_000,
        wall,
        clock: ClockTrust::Trusted,
    }
}

struct Site {
    _folder: TempDir,
    place: AuditPlace,
}

impl Site {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let gallery = folder.path().join("gallery.redb");
        std::fs::write(&gallery, "a gallery").expect("written");
        let register = Some(Register::at(folder.path().join("register")));
        Self { place: AuditPlace { gallery, register }, _folder: folder }
    }

    fn open(&self) -> AuditLog {
        AuditLog::open(&self.place, Bounds::default(), Some(signer()), &at(0)).expect("a log")
    }

    fn records(&self, order: Order) -> Vec<Record> {
        let reader = AuditReader::open(&self.place).expect("a log");
        let records = reader.records(1..=u64::MAX, order).expect("records");
        records.collect::<Result<_, _>>().expect("records")
    }
}

#[test]
fn records_come_back_in_both_orders_and_by_number() {
    let site = Site::new();
    let mut log = site.open();
    for n in 0..5u8 {
        assert_eq!(log.append(&at(i64::from(n)), &[n]).expect("appended"), u64::from(n) + 2);
    }
    assert_eq!(log.sign(&at(9)).expect("signed"), Some(7));
    assert_eq!(log.sign(&at(9)).expect("signed"), None);
    log.sync().expect("synced");
    let records = site.records(Order::OldestFirst);
    assert_eq!(records[0].note(), Some(Note::Begun));
    assert_eq!(records[1].body, [0]);
    assert_eq!(records[6].kind, Kind::Head);
    let mut back = site.records(Order::NewestFirst);
    back.reverse();
    assert_eq!(back, records);
    let reader = AuditReader::open(&site.place).expect("a log");
    assert_eq!(reader.record(3).expect("read").as_ref(), Some(&records[2]));
    assert_eq!(reader.record(8).expect("read"), None);
}

#[test]
fn several_appenders_see_each_other() {
    let site = Site::new();
    let mut service = site.open();
    let mut command = site.open();
    assert_eq!(service.append(&at(1), b"1").expect("appended"), 2);
    assert_eq!(command.append(&at(2), b"2").expect("appended"), 3);
    assert_eq!(command.sign(&at(2)).expect("signed"), Some(4));
    assert_eq!(service.append(&at(3), b"3").expect("appended"), 5);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut log = site.open();
                for n in 0..50 {
                    log.append(&at(n), b"one of many").expect("appended");
                }
            });
        }
    });
    let records = site.records(Order::OldestFirst);
    let numbers: Vec<u64> = records.iter().map(|record| record.number).collect();
    assert_eq!(numbers, (1..=205).collect::<Vec<_>>());
}
