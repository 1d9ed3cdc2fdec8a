//! A set on trial: it runs beside the set in use and opens nothing. What is counted, and when
//! it has passed.

use crate::access::gallery::PersonId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// File name of the trial in a store.
pub const FILE: &str = "shadow.toml";
/// Largest such file, bytes.
pub const LARGEST: u64 = 4 << 20;

/// Least number of attempts on which a set is judged.
pub const LEAST_ATTEMPTS: u64 = 50;
/// Least share of attempts on which both sets agree.
pub const LEAST_AGREEMENT: f64 = 0.98;
/// Most attempts of one person whom only the set in use recognizes, and their largest share.
/// Both must be exceeded.
pub const MOST_LOST: u64 = 1;
/// See [`MOST_LOST`].
pub const MOST_LOST_SHARE: f64 = 0.1;

/// First word of a condition that no further attempt can meet.
const FAILED: &str = "failed";

/// What both sets said of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// The same person, or both nobody; with the person.
    Agreed(Option<PersonId>),
    /// Only the set in use recognized this person.
    Lost(PersonId),
    /// The set on trial took this person for another.
    Other(PersonId),
    /// Only the set on trial recognized somebody.
    Admitted,
    /// Nothing to compare: the pictures were dropped, or the person has no kept picture that
    /// the set on trial could embed.
    Unmeasured,
}

/// A trial and its counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shadow {
    /// Name of the set on trial.
    pub set: String,
    /// Name of the set in use when the trial began.
    pub instead_of: String,
    /// Time when the trial began, Unix seconds; only to tell trials apart.
    pub began: u64,
    /// Duration of the trial, seconds.
    pub seconds: u64,
    /// How long the trial has run, seconds. The service counts it itself, so that a wrong
    /// clock or a stopped service does not end a trial.
    pub watched: u64,
    /// Number of attempts on which the sets were compared.
    pub attempts: u64,
    /// Attempts on which both agreed.
    pub agreed: u64,
    /// Attempts of people whom only the set in use recognized.
    pub lost: u64,
    /// Attempts of people whom the set on trial took for others.
    pub other: u64,
    /// Attempts in which only the set on trial recognized somebody.
    pub admitted: u64,
    /// Attempts that could not be compared.
    pub unmeasured: u64,
    /// Why the set could not be switched to after it had passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Attempts that the set in use granted, and those of them lost, by number of the person.
    pub people: BTreeMap<String, Person>,
}

/// Attempts of one person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Person {
    /// Recognized by the set in use.
    pub granted: u64,
    /// Of these, not recognized by the set on trial, or taken for another.
    pub lost: u64,
}

impl Shadow {
    /// Begins a trial.
    pub fn begin(set: &str, instead_of: &str, duration: Duration) -> Self {
        let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            set: set.to_owned(),
            instead_of: instead_of.to_owned(),
            began: unix.map_or(0, |since| since.as_secs()),
            seconds: duration.as_secs(),
            ..Self::default()
        }
    }

    /// Whether both are states of one trial.
    pub fn is_same_trial(&self, other: &Self) -> bool {
        let id = |shadow: &Self| (shadow.set.clone(), shadow.instead_of.clone(), shadow.began);
        id(self) == id(other)
    }

    /// Counts an attempt.
    pub fn count(&mut self, compared: Compared) {
        let (person, lost) = match compared {
            Compared::Unmeasured => {
                self.unmeasured += 1;
                return;
            }
            Compared::Agreed(person) => {
                self.agreed += 1;
                (person, 0)
            }
            Compared::Lost(person) => {
                self.lost += 1;
                (Some(person), 1)
            }
            Compared::Other(person) => {
                self.other += 1;
                (Some(person), 1)
            }
            Compared::Admitted => {
                self.admitted += 1;
                (None, 0)
            }
        };
        self.attempts += 1;
        if let Some(PersonId(number)) = person {
            let counts = self.people.entry(number.to_string()).or_default();
            counts.granted += 1;
            counts.lost += lost;
        }
    }

    /// Whether waiting does not help.
    pub fn has_failed(&self) -> bool {
        self.fault.is_some() || self.open().is_some_and(|open| open.starts_with(FAILED))
    }

    /// Share of attempts on which both sets agree; 1 without attempts.
    pub fn agreement(&self) -> f64 {
        if self.attempts == 0 { 1.0 } else { self.agreed as f64 / self.attempts as f64 }
    }

    /// Numbers of the people whom the set on trial recognizes too seldom.
    pub fn losers(&self) -> impl Iterator<Item = &str> {
        let seldom = |counts: &Person| {
            counts.lost > MOST_LOST && counts.lost as f64 > MOST_LOST_SHARE * counts.granted as f64
        };
        self.people
            .iter()
            .filter(move |(_, counts)| seldom(counts))
            .map(|(number, _)| number.as_str())
    }

    /// The first condition that does not hold; `None` if the set has passed.
    pub fn open(&self) -> Option<String> {
        if self.admitted > 0 {
            return Some(format!(
                "{FAILED}: it recognized somebody in {} attempts in which the set in use recognized nobody; look at them in the log, then install it without --shadow or stop the trial",
                self.admitted
            ));
        }
        if self.other > 0 {
            return Some(format!(
                "{FAILED}: it took people for others in {} attempts; stop the trial",
                self.other
            ));
        }
        let losers: Vec<&str> = self.losers().collect();
        if !losers.is_empty() {
            return Some(format!(
                "{FAILED}: it recognizes people too seldom whom the set in use recognizes (numbers {}); enroll them again, or stop the trial",
                losers.join(", ")
            ));
        }
        if self.watched < self.seconds {
            let left = hours(self.seconds - self.watched);
            return Some(format!("waiting: {left} hours are left"));
        }
        if self.attempts < LEAST_ATTEMPTS {
            return Some(format!(
                "waiting: {} of {LEAST_ATTEMPTS} attempts that can be compared",
                self.attempts
            ));
        }
        if self.agreement() < LEAST_AGREEMENT {
            return Some(format!(
                "{FAILED}: the sets agree on {:.1} % of attempts, at least {:.0} % are needed; stop the trial",
                100.0 * self.agreement(),
                100.0 * LEAST_AGREEMENT
            ));
        }
        None
    }
}

fn hours(seconds: u64) -> String {
    format!("{:.1}", seconds as f64 / 3600.0)
}

/// One line.
impl fmt::Display for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { set, attempts, lost, other, admitted, unmeasured, .. } = self;
        write!(
            f,
            "{set}: {} of {} hours, {attempts} attempts, {:.1} % agree; only the set in use recognized {lost}, only this one {admitted}, another person {other}, not comparable {unmeasured}; ",
            hours(self.watched),
            hours(self.seconds),
            100.0 * self.agreement()
        )?;
        match (self.open(), &self.fault) {
            (Some(open), _) => f.write_str(&open),
            (None, Some(fault)) => write!(f, "passed, but cannot be switched to: {fault}"),
            (None, None) => f.write_str("passed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial() -> Shadow {
        let mut shadow = Shadow::begin("2+aa", "1+bb", Duration::from_secs(7200));
        for at in 0..60 {
            shadow.count(Compared::Agreed((at % 2 == 0).then_some(PersonId(at % 6))));
        }
        shadow.watched = 7200;
        shadow
    }

    #[test]
    fn a_set_passes_when_all_conditions_hold() {
        assert_eq!(trial().open(), None);
        let mut early = trial();
        early.watched = 3600;
        assert_eq!(early.open().expect("waits"), "waiting: 1.0 hours are left");
        let mut seldom = Shadow::begin("2+aa", "1+bb", Duration::ZERO);
        seldom.count(Compared::Agreed(None));
        assert!(seldom.open().expect("waits").contains("1 of 50"));
    }

    #[test]
    fn each_fault_is_named() {
        let open = |compared: &[Compared]| {
            let mut shadow = trial();
            compared.iter().for_each(|compared| shadow.count(*compared));
            shadow.open().unwrap_or_default()
        };
        assert!(open(&[Compared::Admitted]).contains("recognized nobody"));
        assert!(open(&[Compared::Other(PersonId(1))]).contains("for others"));
        // Once may happen to anybody.
        assert_eq!(open(&[Compared::Lost(PersonId(0))]), "");
        assert!(open(&[Compared::Lost(PersonId(0)); 2]).contains("numbers 0"));
        let one_each: Vec<_> = (100..110).map(|at| Compared::Lost(PersonId(at))).collect();
        assert!(open(&one_each).contains("agree on 85.7 %"), "{}", open(&one_each));
        assert_eq!(open(&[Compared::Unmeasured; 100]), "");
    }

    #[test]
    fn a_trial_comes_back_from_its_text() {
        let text = toml::to_string(&trial()).expect("TOML");
        assert_eq!(toml::from_str::<Shadow>(&text).expect("a trial"), trial());
        assert!(trial().is_same_trial(&Shadow { attempts: 1, ..trial() }));
        assert!(!trial().is_same_trial(&Shadow { began: 1, ..trial() }));
    }
}
