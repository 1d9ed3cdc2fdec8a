//! How many false entries per year are to be expected at this door, and thresholds that
//! keep them within a budget.
//!
//! ```text
//!   frames -> attempts.rs   one attempt per track
//!          -> traffic.rs    attempts per day -> attempts per year, an interval
//!          -> strangers.rs  how similar strangers are, beside the promise of the models
//!   calibration and gallery -> estimate.rs  false accept rate per attempt, an interval
//!   attempts x rate = expected false entries per year
//!                          -> tightening.rs by how much the rate is tightened
//! ```
//!
//! Attempts count as independent comparisons of one view with all templates. A decision
//! takes several views, which makes an entry rarer, and somebody who stays long has several
//! chances, which makes it likelier; neither is counted. An attacker who chooses whom to
//! resemble is no stranger by chance: liveness and lockout are against attackers.

pub mod attempts;
mod estimate;
mod strangers;
mod tightening;
mod traffic;

pub use estimate::{Known, MOST_STEPS, STEPS, stepped, steps_within};
pub use strangers::{Level, Measured, SIGNIFICANCE, Strangers};
pub use traffic::{Day, HISTORY, Traffic, Whose};

use crate::access::gallery::{Gallery, PersonId, Probe};
use crate::models::threshold::ThresholdTable;
use crate::vision::track::TrackId;
use attempts::Attempts;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tightening::{LOOSEN_WITHIN, Needed, Tightening};

/// How often the expectation is computed again. It changes slowly, and takes some
/// milliseconds.
const EVERY: Duration = Duration::from_secs(600);

/// How soon a change of the thresholds that had to wait is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// For so long a change of the thresholds waits until nobody is in view, because it drops
/// the evidence of the person in view.
const WAIT_AT_MOST: Duration = Duration::from_secs(600);

/// False accept rate per pair at whose similarity two views are of one visitor. Stricter
/// than for one visit, because each attempt is compared with many.
const SAME_VISITOR_RATE: f64 = 1e-5;

/// A figure with its interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interval {
    /// The figure expected.
    pub expected: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The budget, and what is assumed of a new door.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FalseEntrySettings {
    /// Most false entries per year; `None` without a budget.
    pub per_year: Option<f64>,
    /// Attempts per day of people who are not enrolled, until the door has counted its own;
    /// above 0.
    pub strangers_per_day: f64,
}

impl Default for FalseEntrySettings {
    fn default() -> Self {
        Self { per_year: None, strangers_per_day: 20.0 }
    }
}

/// The part that survives a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SavedFalseEntries {
    /// Attempts per day, the newest last.
    pub days: Vec<Day>,
    /// Similarities of strangers.
    pub strangers: Strangers,
    /// Steps by which the rate is tightened.
    pub steps: u8,
}

/// What is expected, for the status and the log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Days in which the door watched and counted, 365 at most.
    pub watched_days: f64,
    /// Whether that is too short for a history, so that the configured number of strangers
    /// decides.
    pub assumed: bool,
    /// Attempts refused as strangers'.
    pub strangers: u64,
    /// Attempts that ended before a decision and matched nobody.
    pub undecided: u64,
    /// Attempts of known people.
    pub known: u64,
    /// Attempts per year of people who are not enrolled.
    pub attempts_per_year: Interval,
    /// False accept rate per attempt of the configuration.
    pub configured_rate: f64,
    /// The rate in use: the configured one, or less.
    pub rate: f64,
    /// Similarity that it asks for.
    pub similarity: f32,
    /// What the calibration promises at that similarity, per attempt.
    pub promised_rate: Interval,
    /// Expected false entries per year.
    pub entries_per_year: Interval,
    /// The most that the configuration allows; `None` without a budget.
    pub budget: Option<f64>,
    /// Whether the upper end is above the budget although the rate is tightened as far as it
    /// may be.
    pub over_budget: bool,
    /// Similarities of strangers beside the promise.
    pub measured: Measured,
}

/// Something to log and report.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// The rate is tightened to keep the budget.
    Tightened {
        /// Rate before.
        from: f64,
        /// What is expected now.
        report: Box<Report>,
    },
    /// The rate is looser again, and not looser than configured.
    Loosened {
        /// Rate before.
        from: f64,
        /// What is expected now.
        report: Box<Report>,
    },
    /// The budget is exceeded although the rate is tightened as far as it may be.
    OverBudget(Box<Report>),
    /// Strangers are more similar to the people enrolled than the models promise.
    MoreAlike(Box<Report>),
    /// Once per watched day.
    Daily(Box<Report>),
}

/// Notes of one step.
pub type Notes = heapless::Vec<Note, 4>;

/// Counts attempts, expects false entries, and tightens the false accept rate.
#[derive(Clone, Debug)]
pub struct FalseEntries {
    settings: FalseEntrySettings,
    /// Configured false accept rate per attempt.
    configured: f64,
    traffic: Traffic,
    strangers: Strangers,
    attempts: Attempts,
    tightening: Tightening,
    /// When to compute again.
    due: Duration,
    /// Since when a change of the rate has waited.
    waits_since: Option<Duration>,
    day_over: bool,
    said_over_budget: bool,
    said_more_alike: bool,
    report: Report,
    changes: u64,
}

impl FalseEntries {
    /// A door without history. `configured` is its false accept rate per attempt.
    pub fn new(settings: FalseEntrySettings, configured: f64, table: &ThresholdTable) -> Self {
        Self {
            settings,
            configured,
            traffic: Traffic::default(),
            strangers: Strangers::default(),
            attempts: attempts(table),
            tightening: Tightening::default(),
            due: Duration::ZERO,
            waits_since: None,
            day_over: false,
            said_over_budget: false,
            said_more_alike: false,
            report: Report::default(),
            changes: 0,
        }
    }

    /// Applies other settings; counts and steps stay.
    pub fn set_settings(&mut self, settings: FalseEntrySettings, configured: f64) {
        (self.settings, self.configured) = (settings, configured);
        self.said_over_budget = false;
        self.due = Duration::ZERO;
    }

    /// Goes on with what was saved before a restart.
    pub fn resume(&mut self, saved: &SavedFalseEntries) {
        self.traffic = Traffic::restored(&saved.days);
        self.strangers = Strangers::restored(&saved.strangers);
        self.tightening = Tightening::restored(saved.steps);
        self.said_more_alike = self.strangers.more_alike();
        self.due = Duration::ZERO;
    }

    /// The part that survives a restart.
    pub fn saved(&self) -> SavedFalseEntries {
        SavedFalseEntries {
            days: self.traffic.days().to_vec(),
            strangers: self.strangers.clone(),
            steps: self.tightening.steps(),
        }
    }

    /// Number of changes so far that a restart should not lose.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// False accept rate per attempt in use.
    pub fn rate(&self) -> f64 {
        stepped(self.configured, self.tightening.steps())
    }

    /// What is expected, ten minutes old at most.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The gallery has changed.
    pub fn set_gallery(&mut self) {
        self.due = Duration::ZERO;
    }

    /// The models have changed, and with them the templates of faces remembered.
    pub fn set_models(&mut self, table: &ThresholdTable) {
        self.attempts = attempts(table);
        self.said_more_alike = false;
        self.due = Duration::ZERO;
    }

    /// A newcomer is enrolled, who is no stranger.
    pub fn newcomer(&mut self) {
        self.attempts.clear();
    }

    /// A frame was processed. Call it before its faces.
    pub fn watched(&mut self, now: Duration) {
        if self.traffic.watched(now) {
            self.day_over = true;
            self.changes += 1;
        }
    }

    /// A track was compared with the gallery.
    pub fn seen(&mut self, now: Duration, track: TrackId, probe: &Probe<'_>) {
        self.attempts.seen(now, track, probe);
    }

    /// A track was refused as a stranger; `same_face` is the cosine of two views of one face.
    pub fn stranger(&mut self, now: Duration, track: TrackId, probe: &Probe<'_>, same_face: f32) {
        self.attempts.stranger(now, track, probe, same_face);
    }

    /// A track was decided to be a known person.
    pub fn known(&mut self, now: Duration, track: TrackId, person: PersonId) {
        self.attempts.known(now, track, person);
    }

    /// Lets time pass. If the notes say that the rate has changed, the threshold in use must
    /// follow it.
    pub fn elapse(&mut self, now: Duration, table: &ThresholdTable, gallery: &Gallery) -> Notes {
        self.count(now, table, gallery);
        if now < self.due && !self.day_over {
            return Notes::new();
        }
        self.due = now + EVERY;
        let strictness = gallery.strictness();
        let known = Known { table, strictness: &strictness };
        let attempts = self.traffic.per_year(self.settings.strangers_per_day);
        let budget = self.settings.per_year.map(|budget| {
            let ends = known.upper_ends(attempts, self.configured);
            let (steps, meets) = steps_within(budget, &ends);
            let (to_loosen, _) = steps_within(LOOSEN_WITHIN * budget, &ends);
            (Needed { steps, to_loosen }, meets)
        });
        let needed = budget.map(|(needed, _)| needed);
        let (before, from) = (self.tightening, self.rate());
        if self.tightening.step(now, needed).is_none() {
            self.waits_since = None;
        } else if !self.may_change(now) {
            self.tightening = before;
            self.due = now + AGAIN;
        }
        let tightest = self.tightening.steps() == MOST_STEPS;
        let over = tightest && budget.is_some_and(|(_, meets)| !meets);
        self.report = self.make_report(&known, attempts, over);
        self.notes(before.steps(), from)
    }

    /// What is to be said about the report, given the steps and the rate before.
    fn notes(&mut self, before: u8, from: f64) -> Notes {
        let mut notes = Notes::new();
        let report = Box::new(self.report.clone());
        let steps = self.tightening.steps();
        // There is room for one note of each kind.
        if steps > before {
            let _ = notes.push(Note::Tightened { from, report: report.clone() });
        } else if steps < before {
            let _ = notes.push(Note::Loosened { from, report: report.clone() });
        }
        self.changes += u64::from(steps != before);
        if report.over_budget && !std::mem::replace(&mut self.said_over_budget, true) {
            let _ = notes.push(Note::OverBudget(report.clone()));
        }
        // Not said again before the rate was loosened, which takes a day.
        self.said_over_budget &= steps == MOST_STEPS;
        if report.measured.more_alike && !std::mem::replace(&mut self.said_more_alike, true) {
            let _ = notes.push(Note::MoreAlike(report.clone()));
        }
        if std::mem::take(&mut self.day_over) {
            let _ = notes.push(Note::Daily(report));
        }
        notes
    }

    /// Counts the attempts that have ended.
    fn count(&mut self, now: Duration, table: &ThresholdTable, gallery: &Gallery) {
        for attempt in self.attempts.elapse(now) {
            self.traffic.count(attempt.whose);
            self.changes += 1;
            if let Some(similarity) = attempt.similarity {
                let strictness = [(0.0, gallery.templates())];
                let share = Known { table, strictness: &strictness }.share_beyond(similarity);
                self.strangers.add(gallery.model().as_str(), similarity, share);
            }
        }
    }

    /// Whether the rate may change now: if nobody is in view, or has been for long.
    fn may_change(&mut self, now: Duration) -> bool {
        let since = *self.waits_since.get_or_insert(now);
        let may = self.attempts.is_idle() || now >= since + WAIT_AT_MOST;
        if may {
            self.waits_since = None;
        }
        may
    }

    fn make_report(&self, known: &Known<'_>, attempts: Interval, over_budget: bool) -> Report {
        let rate = self.rate();
        let similarity = known.similarity(rate);
        let watched_days = self.traffic.watched_days();
        Report {
            watched_days,
            assumed: watched_days < HISTORY,
            strangers: self.traffic.attempts(Whose::Stranger),
            undecided: self.traffic.attempts(Whose::Undecided),
            known: self.traffic.attempts(Whose::Known),
            attempts_per_year: attempts,
            configured_rate: self.configured,
            rate,
            // JSON has no infinite numbers.
            similarity: similarity.min(2.0),
            promised_rate: known.rate_at(similarity),
            entries_per_year: known.entries(attempts, similarity),
            budget: self.settings.per_year,
            over_budget,
            measured: self.strangers.measured(),
        }
    }
}

/// No attempts yet, by this calibration.
fn attempts(table: &ThresholdTable) -> Attempts {
    Attempts::new(table.for_pair(SAME_VISITOR_RATE).similarity)
}

#[cfg(test)]
mod tests;
