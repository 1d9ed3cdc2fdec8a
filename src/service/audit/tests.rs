//! What is logged, what is lost, and for what the door waits.

use super::*;
use crate::audit::{ClockTrust, Kind, Record};
use crate::crypto::Secret;
use tempfile::TempDir;

fn signer() -> Signer {
    Signer::new(&Secret::new([7; 32]))
}

fn place(folder: &TempDir) -> AuditPlace {
    let gallery = folder.path().join("gallery.redb");
    std::fs::write(&gallery, "a gallery").expect("written");
    AuditPlace { gallery, register: None }
}

fn settings(place: &AuditPlace) -> AuditSettings {
    AuditSettings {
        place: place.clone(),
        bounds: Bounds::default(),
        signer: Some(signer()),
        recorded: false,
        clock_vouched_for: false,
        sealer: None,
        pictures_keep_for: Duration::from_secs(3600),
    }
}

fn records(place: &AuditPlace) -> Vec<Record> {
    let reader = AuditReader::open(place).expect("a log");
    let records = reader.records(1..=u64::MAX, Order::OldestFirst).expect("records");
    records.collect::<Result<_, _>>().expect("records")
}

#[test]
fn a_run_is_logged_from_its_start_to_its_end_and_signed() {
    let folder = TempDir::new().expect("a folder");
    let place = place(&folder);
    for _ in 0..2 {
        let thread = AuditThread::start(settings(&place)).expect("a thread");
        let auditor = thread.auditor();
        assert!(auditor.entry(auditor.now(), b"granted".to_vec()));
        assert!(auditor.wait(Duration::from_secs(60)), "written");
        assert_eq!((auditor.state().state.as_str(), auditor.state().lost), ("good", 0));
        drop(thread);
    }
    let found = records(&place);
    let notes: Vec<Note> = found.iter().filter_map(Record::note).collect();
    assert_eq!(notes.iter().filter(|note| matches!(note, Note::Started { .. })).count(), 2);
    assert_eq!(notes.iter().filter(|note| **note == Note::Stopped).count(), 2);
    assert_eq!(found.iter().filter(|record| record.kind == Kind::Entry).count(), 2);
    assert_eq!(found.last().map(|record| record.kind), Some(Kind::Head));
    let verdict = crate::storage::audit::verify(&place, &[signer().public()]).expect("a log");
    assert!(verdict.is_good() && verdict.unproven == 0, "{verdict:?}");
}

#[test]
fn what_cannot_be_written_waits_and_what_has_no_room_is_counted_and_said() {
    let folder = TempDir::new().expect("a folder");
    let place = place(&folder);
    // A file where the folder of the log belongs.
    std::fs::write(place.folder(), "in the way").expect("written");
    let shared = Arc::new(Shared::new(AuditNow::default()));
    let mut work = Work::new(settings(&place), Arc::clone(&shared), AuditNow::default());
    for n in 0..WAITING + 10 {
        let body = u32::try_from(n).expect("small").to_le_bytes().to_vec();
        work.take(Job::Entry(stamp(false), body));
        if n == 0 {
            work.step();
        }
    }
    shared.overflowed.fetch_add(5, Ordering::Relaxed);
    let auditor = Auditor { jobs: None, shared, patient: false };
    assert_eq!(auditor.state().state, "failed");
    assert!(auditor.state().fault.expect("a fault").contains("move it away"));
    assert!(!auditor.settle());
    std::fs::remove_file(place.folder()).expect("removed");
    // Not before it is time.
    work.step();
    assert_eq!(auditor.state().state, "failed");
    work.failed = Instant::now().checked_sub(AGAIN_AFTER);
    work.step();
    assert_eq!(auditor.state().state, "good");
    let found = records(&place);
    let entries = found.iter().filter(|record| record.kind == Kind::Entry).count();
    let lost: u64 = found
        .iter()
        .filter_map(|record| match record.note() {
            Some(Note::Lost { records }) => Some(records),
            _ => None,
        })
        .sum();
    // Notes about the clock may have taken room as well.
    assert!(entries as u64 + lost >= WAITING as u64 + 15, "{entries} {lost}");
    assert!(lost >= 15 && auditor.state().lost == lost, "{lost}");
}

#[test]
fn the_door_never_waits_for_a_thread_that_hangs() {
    let (jobs, _to_do) = sync_channel(QUEUE);
    let shared = Arc::new(Shared::new(AuditNow::default()));
    shared.sync.store(1000, Ordering::Relaxed);
    let auditor = Auditor { jobs: Some(jobs), shared, patient: false };
    let queued = (0..QUEUE + 3).filter(|_| auditor.entry(stamp(false), vec![0; 100])).count();
    assert_eq!((queued, auditor.state().lost), (QUEUE, 3));
    let began = Instant::now();
    assert!(!auditor.settle());
    assert!(began.elapsed() >= FAST, "it has waited");
    // A slow disk is not waited for at all.
    auditor.shared.sync.store(6000, Ordering::Relaxed);
    assert!(!auditor.settle());
    assert!(!auditor.entry(stamp(false), vec![0; LARGEST_BODY + 1]));
}

#[test]
fn the_median_of_syncs_decides_when_records_are_on_the_disk() {
    let folder = TempDir::new().expect("a folder");
    let shared = Arc::new(Shared::new(AuditNow::default()));
    let mut work = Work::new(settings(&place(&folder)), shared, AuditNow::default());
    let ms = Duration::from_millis;
    work.measured(ms(1));
    work.measured(ms(1));
    assert!(!work.state.before_opening && work.state.sync_ms.is_none(), "too few");
    work.measured(ms(80));
    assert!(work.state.before_opening);
    for _ in 0..SYNCS {
        work.measured(ms(12));
    }
    assert!(!work.state.before_opening);
    assert_eq!(work.state.sync_ms, Some(12.0));
}

#[test]
fn a_clock_that_is_set_is_noted_and_one_that_runs_is_not() {
    let stamp = |boot: u8, seconds: u64, wall: i64, clock| Stamp {
        boot: [boot; 16],
        monotonic: seconds * 1_000_000,
        wall: wall * 1_000_000,
        clock,
    };
    let (unsure, trusted) = (ClockTrust::Unsure, ClockTrust::Trusted);
    let before = stamp(1, 10, 100, unsure);
    let notes = |now| clock_notes(Some(&before), &now);
    assert!(notes(stamp(1, 20, 110, unsure)).is_empty());
    assert!(notes(stamp(2, 20, 900, trusted)).is_empty(), "another boot");
    assert!(clock_notes(None, &before).is_empty());
    let ten_years = 3650 * 86_400;
    for by in [ten_years, -ten_years] {
        let set = Note::ClockSet { by: by * 1_000_000 };
        assert_eq!(notes(stamp(1, 20, 110 + by, trusted)), [set, Note::ClockTrust]);
    }
    let extreme = Stamp { wall: i64::MIN, ..before };
    assert_eq!(notes(extreme).len(), 1);
}
