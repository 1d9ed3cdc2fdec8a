//! The log in a real folder: several appenders, rights, links, clocks and bounds.

use super::*;
use crate::audit::{ClockTrust, Kind, Note, Record, Stamp};
use crate::crypto::{Secret, Signer};
use crate::storage::gallery::Register;
use tempfile::TempDir;

fn signer() -> Signer {
    Signer::new(&Secret::new([7; 32]))
}

/// A moment this number of seconds after the first one.
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

fn names(site: &Site) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(site.place.folder())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn files_are_for_their_owner_and_root_follows_no_link() {
    let site = Site::new();
    let mut log = site.open();
    log.append(&at(1), b"x").expect("appended");
    log.sign(&at(1)).expect("signed");
    drop(log);
    let folder = site.place.folder();
    let mode = |name: &str| {
        let found = std::fs::metadata(folder.join(name)).expect("a file");
        std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o777
    };
    assert_eq!(names(&site), ["00000000000000000001.log", "heads", "key.pub", "lock"]);
    assert_eq!((mode(""), mode("00000000000000000001.log"), mode("lock")), (0o750, 0o640, 0o600));
    let elsewhere = site.place.gallery.with_file_name("elsewhere");
    for name in ["00000000000000000001.log", "lock", "heads"] {
        let file = folder.join(name);
        let before = std::fs::read(&file).expect("a file");
        // Another name of the same file, then a link to another file.
        std::fs::hard_link(&file, &elsewhere).expect("a link");
        let opened = |site: &Site| {
            let log = AuditLog::open(&site.place, Bounds::default(), Some(signer()), &at(2));
            log.and_then(|mut log| log.append(&at(3), b"y").and_then(|_| log.sign(&at(3))))
        };
        let refused = opened(&site).expect_err(name).to_string();
        assert!(refused.contains("second name"), "{refused}");
        std::fs::remove_file(&file).expect("removed");
        std::os::unix::fs::symlink(&elsewhere, &file).expect("a link");
        let refused = opened(&site).expect_err(name).to_string();
        assert!(refused.contains("is a link; remove it"), "{refused}");
        assert_eq!(std::fs::read(&elsewhere).expect("untouched"), before);
        std::fs::remove_file(&file).expect("removed");
        std::fs::rename(&elsewhere, &file).expect("back");
    }
    let aside = site.place.gallery.with_file_name("aside");
    std::fs::rename(&folder, &aside).expect("moved");
    std::os::unix::fs::symlink(&aside, &folder).expect("a link");
    let refused = AuditLog::open(&site.place, Bounds::default(), None, &at(2));
    let refused = refused.expect_err("a link").to_string();
    assert!(refused.contains("not a folder; move it away"), "{refused}");
}

#[test]
fn root_writes_for_the_owner_of_the_folder_and_refuses_others() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    use std::os::unix::fs::{MetadataExt, chown};
    let site = Site::new();
    let around = site.place.gallery.parent().expect("a folder").to_owned();
    chown(&around, Some(12345), Some(12346)).expect("given away");
    let mut log = site.open();
    log.append(&at(1), b"x").expect("appended");
    log.sign(&at(1)).expect("signed");
    for name in names(&site) {
        let found = std::fs::metadata(site.place.folder().join(&name)).expect("a file");
        assert_eq!((found.uid(), found.gid()), (12345, 12346), "{name}");
    }
    let segment = site.place.folder().join("00000000000000000001.log");
    chown(&segment, Some(999), None).expect("given away");
    let refused = log.append(&at(2), b"y").expect_err("wrong owner").to_string();
    assert!(refused.contains("belongs to user 999"), "{refused}");
    chown(&segment, Some(12345), None).expect("given back");
    log.append(&at(3), b"z").expect("appended");
    chown(site.place.folder(), Some(999), None).expect("given away");
    let refused = log.append(&at(4), b"y").expect_err("wrong owner").to_string();
    assert!(refused.contains("the folder belongs to user 999, not to 12345"), "{refused}");
}

#[test]
fn records_that_vanish_while_the_service_runs_are_noted() {
    let site = Site::new();
    let segment = site.place.folder().join("00000000000000000001.log");
    for everything in [false, true] {
        let mut log = site.open();
        let before = std::fs::metadata(&segment).expect("a segment").len();
        let first = log.append(&at(1), b"not signed yet").expect("appended");
        if everything {
            std::fs::remove_file(&segment).expect("removed");
        } else {
            let file = std::fs::File::options().write(true).open(&segment).expect("a segment");
            file.set_len(before).expect("cut");
        }
        assert_eq!(log.append(&at(2), b"after").expect("appended"), first + 2);
        let from = if everything { 1 } else { first };
        let note = Some(Note::Cut { from, through: first });
        let reader = AuditReader::open(&site.place).expect("a log");
        let found = reader.record(first + 1).expect("read").expect("a record");
        assert_eq!(found.note(), note);
        let verdict = verify(&site.place, &[signer().public()]).expect("a log");
        let fault = verdict.faults.first().expect("a fault");
        assert_eq!((fault.record, fault.through), (from, first));
    }
}

#[test]
fn without_its_gallery_no_log_is_begun() {
    let site = Site::new();
    std::fs::remove_file(&site.place.gallery).expect("removed");
    let refused = AuditLog::open(&site.place, Bounds::default(), None, &at(0));
    assert!(matches!(refused, Err(AuditError::NoGallery { .. })));
    assert!(!site.place.folder().exists());
    assert!(matches!(AuditReader::open(&site.place), Err(AuditError::Absent { .. })));
    assert!(matches!(verify(&site.place, &[]), Err(AuditError::Absent { .. })));
}

#[test]
fn the_oldest_segments_go_when_the_log_is_too_large_and_their_heads_stay() {
    let site = Site::new();
    let bounds = Bounds { largest: 4 << 20, ..Bounds::default() };
    let mut log = AuditLog::open(&site.place, bounds, Some(signer()), &at(0)).expect("a log");
    for n in 0..2000 {
        log.append(&at(n * 60), &[1; 5000]).expect("appended");
    }
    log.sign(&at(2000 * 60)).expect("signed");
    let sizes = names(&site)
        .into_iter()
        .map(|name| std::fs::metadata(site.place.folder().join(name)).expect("a file").len());
    let total: u64 = sizes.sum();
    assert!(total < (4 << 20) + (1 << 17), "{total}");
    let verdict = verify(&site.place, &[signer().public()]).expect("a log");
    assert!(verdict.is_good(), "{verdict:?}");
    assert!(verdict.first > 1000 && verdict.expired_through == verdict.first - 1, "{verdict:?}");
    // More than those in the segments that are left.
    assert!(verdict.heads > 130, "{verdict:?}");
    assert_eq!(verdict.unproven, 0);
}

#[test]
fn segments_go_by_age_once_three_days_agree_and_no_jump_of_the_clock_costs_any() {
    let site = Site::new();
    let bounds = Bounds { keep_for: std::time::Duration::from_secs(30 * 86_400), largest: 1 << 30 };
    let mut log = AuditLog::open(&site.place, bounds, Some(signer()), &at(0)).expect("a log");
    let day = |log: &mut AuditLog, day: i64, clock| {
        let stamp = Stamp { clock, ..at(day * 86_400) };
        log.append(&stamp, b"a day").expect("appended");
        log.sign(&stamp).expect("signed");
        log.expire(&stamp).expect("looked");
    };
    let trusted = ClockTrust::Trusted;
    for n in 0..20 {
        day(&mut log, n, trusted);
    }
    let first = |site: &Site| site.records(Order::OldestFirst)[0].number;
    // Ten years ahead and back, trusted on one day and not trusted on others.
    day(&mut log, 3650, trusted);
    for n in 3651..3660 {
        day(&mut log, n, ClockTrust::Unsure);
    }
    day(&mut log, -3650, trusted);
    assert_eq!(first(&site), 1);
    for n in 21..40 {
        day(&mut log, n, trusted);
    }
    assert!(first(&site) > 1, "the first days are older than 30 days");
    let kept = first(&site);
    assert!(kept < 40, "{kept}");
    for n in 40..60 {
        day(&mut log, n, trusted);
    }
    let verdict = verify(&site.place, &[signer().public()]).expect("a log");
    assert!(verdict.is_good(), "{verdict:?}");
}

#[test]
fn a_bundle_is_verified_without_the_door_and_every_change_is_found() {
    let site = Site::new();
    let bounds = Bounds { largest: 4 << 20, ..Bounds::default() };
    let mut log = AuditLog::open(&site.place, bounds, Some(signer()), &at(0)).expect("a log");
    for n in 0..60 {
        log.append(&at(n * 60), &[1; 5000]).expect("appended");
    }
    log.sign(&at(3600)).expect("signed");
    let file = site.place.gallery.with_file_name("bundle.tar");
    let all = (i64::MIN, i64::MAX);
    let done = export(&site.place, &signer(), &file, all, &at(4000)).expect("exported");
    assert_eq!((done.first, done.last), (1, log.last()));
    assert!(done.segments > 3);
    let read = verify_bundle(&file, &[]).expect("a bundle");
    assert!(read.verdict.is_good() && read.fault.is_none(), "{read:?}");
    assert_eq!((read.key, read.verdict.unproven), (Some(signer().public()), 0));
    // An extract.
    let part = site.place.gallery.with_file_name("part.tar");
    let span = (at(1200).wall, at(1800).wall);
    let extract = export(&site.place, &signer(), &part, span, &at(4000)).expect("exported");
    assert!(extract.first > 1 && extract.last < done.last);
    let read = verify_bundle(&part, &[signer().public()]).expect("a bundle");
    assert!(read.verdict.is_good() && read.fault.is_none(), "{read:?}");
    let other = Signer::new(&Secret::new([8; 32])).public();
    assert!(verify_bundle(&part, &[other]).expect("a bundle").fault.is_some());
    // Every byte counts, but for the padding and the fields that tar does not check.
    let whole = std::fs::read(&part).expect("a file");
    let changed = site.place.gallery.with_file_name("changed.tar");
    let mut found = 0;
    for place in (512..whole.len() - 1024).step_by(4801) {
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        std::fs::write(&changed, &bytes).expect("written");
        match verify_bundle(&changed, &[]) {
            Ok(read) => found += usize::from(read.fault.is_some() || !read.verdict.is_good()),
            Err(_) => found += 1,
        }
    }
    assert!(found > 20, "{found}");
    for length in (0..whole.len() - 1600).step_by(9973) {
        std::fs::write(&changed, &whole[..length]).expect("written");
        let read = verify_bundle(&changed, &[]);
        assert!(read.is_err() || read.is_ok_and(|read| read.fault.is_some()), "{length}");
    }
    assert!(export(&site.place, &signer(), &part, all, &at(0)).is_err(), "the file is there");
}

#[test]
fn what_somebody_else_appends_while_it_is_verified_does_not_look_like_a_fault() {
    let site = Site::new();
    drop(site.open());
    let ended = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut log = site.open();
            for n in 0..300 {
                log.append(&at(n), &[5; 300]).expect("appended");
                if n % 10 == 0 {
                    log.sign(&at(n)).expect("signed");
                }
            }
            ended.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        while !ended.load(std::sync::atomic::Ordering::Relaxed) {
            let verdict = verify(&site.place, &[signer().public()]).expect("a log");
            assert!(verdict.is_good(), "{verdict:?}");
        }
    });
}

/// Prints what a record costs: `cargo test --release -p facelatch --lib -- --ignored
/// --nocapture overhead_of_the_audit_log`. FACELATCH_AUDIT_FOLDER names a folder on the disk to
/// measure.
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stderr)]
fn overhead_of_the_audit_log() {
    let folder =
        std::env::var_os("FACELATCH_AUDIT_FOLDER").map_or_else(std::env::temp_dir, Into::into);
    let folder = TempDir::new_in(folder).expect("a folder");
    let gallery = folder.path().join("gallery.redb");
    std::fs::write(&gallery, "a gallery").expect("written");
    let register = Some(Register::at(folder.path().join("register")));
    let place = AuditPlace { gallery, register };
    let now = at(0);
    let mut log = AuditLog::open(&place, Bounds::default(), Some(signer()), &now).expect("a log");
    let mut took = [vec![], vec![], vec![]];
    for n in 0..300 {
        let body = [7; 300];
        let began = std::time::Instant::now();
        log.append(&at(n), &body).expect("appended");
        took[0].push(began.elapsed());
        took[1].push(log.sync().expect("synced"));
        let began = std::time::Instant::now();
        log.sign(&at(n)).expect("signed");
        took[2].push(began.elapsed());
    }
    for (what, times) in
        ["append", "sync", "signed head with its three syncs"].iter().zip(&mut took)
    {
        times.sort_unstable();
        eprintln!("{what}: median {:?}, p95 {:?}", times[150], times[285]);
    }
    // As large as a segment gets.
    while log.last() < 8000 {
        log.append(&now, &[7; 300]).expect("appended");
    }
    let began = std::time::Instant::now();
    drop(AuditLog::open(&place, Bounds::default(), Some(signer()), &now).expect("a log"));
    eprintln!("open with a last segment of 8,000 records: {:?}", began.elapsed());
    let began = std::time::Instant::now();
    let verdict = verify(&place, &[signer().public()]).expect("a log");
    assert!(verdict.is_good());
    eprintln!(
        "verify {} records and {} heads: {:?}",
        verdict.records,
        verdict.heads,
        began.elapsed()
    );
}
