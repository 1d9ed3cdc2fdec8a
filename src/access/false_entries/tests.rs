use super::*;
use crate::access::gallery::{Candidate, Denied};
use crate::models::ModelId;
use crate::models::threshold::tests::table as few_people;
use crate::vision::embed::{Embedding, Template};

const RATE: f64 = 1e-3;
const DAY: u64 = 86_400;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A face that resembles no other of 512.
fn face(number: u64) -> Template {
    let mut values = [0.0; 512];
    values[number as usize % 512] = 1.0;
    Template::new(ModelId::new("tests"), Embedding::normalized(&values))
}

/// A calibration with many people, so that its intervals are narrow.
fn table() -> ThresholdTable {
    let mut calibration = few_people().calibration().clone();
    (calibration.people, calibration.impostor_pairs) = (3000, 2_000_000);
    ThresholdTable::new(few_people().points().to_vec(), calibration)
}

/// Fifty people with one template each.
fn gallery() -> Gallery {
    let mut gallery = Gallery::new(ModelId::new("tests"), 512);
    for number in 0..50 {
        gallery.add(PersonId(number), "somebody", &[face(u64::from(number))]);
    }
    gallery
}

fn budget(per_year: f64) -> FalseEntrySettings {
    FalseEntrySettings { per_year: Some(per_year), ..FalseEntrySettings::default() }
}

/// A door with what it said.
struct Played {
    gallery: Gallery,
    table: ThresholdTable,
    entries: FalseEntries,
    now: u64,
    notes: Vec<(u64, Note)>,
}

impl Played {
    fn new(settings: FalseEntrySettings) -> Self {
        let entries = FalseEntries::new(settings, RATE, &table());
        Self { gallery: gallery(), table: table(), entries, now: 0, notes: vec![] }
    }

    /// One frame, and what follows.
    fn frame(&mut self, stranger: Option<u64>) {
        let now = s(self.now);
        self.entries.watched(now);
        if let Some(number) = stranger {
            let template = face(number + 50);
            let (similarity, reaches) = (0.1, false);
            let best =
                Some(Candidate { person: PersonId(1), similarity, reaches, denied: Denied::No });
            let probe = Probe { template: &template, best };
            self.entries.seen(now, TrackId(number), &probe);
            self.entries.stranger(now, TrackId(number), &probe, 0.9);
        }
        let notes = self.entries.elapse(now, &self.table, &self.gallery);
        self.notes.extend(notes.into_iter().map(|note| (self.now, note)));
    }

    /// Days with this number of strangers each, evenly spread.
    fn days(&mut self, days: u64, strangers: u64) {
        let end = self.now + days * DAY;
        // Whole minutes, in which frames come.
        let every = DAY / strangers.max(1) / 60 * 60;
        while self.now < end {
            let comes = strangers > 0 && self.now.is_multiple_of(every);
            self.frame(comes.then_some(self.now / every));
            self.now += 60;
        }
    }

    fn said(&self, which: impl Fn(&Note) -> bool) -> usize {
        self.notes.iter().filter(|(_, note)| which(note)).count()
    }
}

#[test]
fn without_a_budget_it_only_counts() {
    let mut played = Played::new(FalseEntrySettings::default());
    played.frame(None);
    let report = played.entries.report();
    assert!(report.assumed && report.budget.is_none() && !report.over_budget);
    // 20 attempts per day at 1e-3.
    assert!((report.entries_per_year.expected - 7.3).abs() < 0.1, "{report:?}");
    played.days(10, 40);
    let report = played.entries.report().clone();
    assert!(!report.assumed && report.rate == RATE);
    assert_eq!((report.strangers, report.known), (400, 0));
    assert!((report.attempts_per_year.expected / 365.25 - 40.0).abs() < 0.5, "{report:?}");
    assert_eq!(report.measured.attempts, 400);
    assert!(played.notes.iter().all(|(_, note)| matches!(note, Note::Daily(_))));
    assert_eq!(played.notes.len(), 9);
}

#[test]
fn a_new_door_is_tightened_by_the_assumption_and_loosened_by_its_history() {
    let mut played = Played::new(budget(10.0));
    played.frame(None);
    let [(0, Note::Tightened { from, report })] = &played.notes[..] else {
        panic!("{:?}", played.notes)
    };
    assert!(*from == RATE && report.rate < RATE && report.assumed);
    assert!(report.entries_per_year.high <= 10.0, "{report:?}");
    assert!(report.similarity > table().for_attempt(RATE, 50).similarity);
    // Hardly anybody comes.
    played.days(12, 1);
    assert_eq!(played.entries.rate(), RATE);
    let loosened = |note: &Note| matches!(note, Note::Loosened { .. });
    assert!(played.said(loosened) >= 1);
    assert_eq!(played.said(|note| matches!(note, Note::Tightened { .. })), 1);
    let times: Vec<u64> =
        played.notes.iter().filter(|(_, note)| loosened(note)).map(|(at, _)| *at).collect();
    assert!(times.windows(2).all(|pair| pair[1] >= pair[0] + DAY), "{times:?}");
}

#[test]
fn a_flood_of_strangers_tightens_by_a_tenth_at_most_and_is_reported_once() {
    let mut played = Played::new(budget(1.0));
    played.days(10, 480);
    assert!((played.entries.rate() / RATE - 0.1).abs() < 1e-9);
    assert!(played.entries.report().over_budget);
    assert_eq!(played.said(|note| matches!(note, Note::OverBudget(_))), 1);
    assert_eq!(played.said(|note| matches!(note, Note::Loosened { .. })), 0);
}

#[test]
fn a_steady_stream_near_the_budget_does_not_flutter() {
    let mut played = Played::new(budget(20.0));
    played.days(20, 40);
    let changes =
        played.said(|note| matches!(note, Note::Tightened { .. } | Note::Loosened { .. }));
    assert!(changes <= 5, "{:?}", played.notes);
    assert!(played.entries.report().entries_per_year.high <= 20.0);
}

#[test]
fn a_restart_keeps_counts_and_steps_and_says_nothing_new() {
    let mut played = Played::new(budget(2.0));
    played.days(8, 100);
    let saved = played.entries.saved();
    assert!(saved.steps > 0 && saved.days.len() == 8);
    let text = serde_json::to_string(&saved).expect("text");
    let mut again = Played::new(budget(2.0));
    again.entries.resume(&serde_json::from_str(&text).expect("saved"));
    assert_eq!(again.entries.rate(), played.entries.rate());
    again.frame(None);
    assert_eq!(again.entries.saved().days, saved.days);
    assert_eq!(again.said(|note| !matches!(note, Note::OverBudget(_))), 0, "{:?}", again.notes);
    // Without a budget it says that it loosens.
    again.entries.set_settings(FalseEntrySettings::default(), RATE);
    again.now += 100;
    again.frame(None);
    assert_eq!(again.entries.rate(), RATE);
    assert_eq!(again.said(|note| matches!(note, Note::Loosened { .. })), 1);
}

#[test]
fn nobody_in_view_loses_evidence_to_a_change_for_ten_minutes() {
    let mut played = Played::new(budget(1.0));
    // Somebody stands at the door from the start.
    let template = face(99);
    let (table, gallery) = (table(), gallery());
    for at in 0..1000 {
        let probe = Probe { template: &template, best: None };
        played.entries.seen(s(at), TrackId(1), &probe);
        let notes = played.entries.elapse(s(at), &table, &gallery);
        if !notes.is_empty() {
            assert!(matches!(notes[0], Note::Tightened { .. }));
            assert_eq!(at, 600);
            return;
        }
    }
    panic!("never tightened");
}
