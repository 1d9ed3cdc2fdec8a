//! Anti-passback: a person who came in must go out before coming in again, so that one
//! face does not let in two people.
//!
//! Doors report passages to each other, so that one area can have several doors in and
//! several out.

use crate::access::gallery::PersonId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Maximum number of people remembered: the size of the largest gallery. The person whose
/// passage is oldest makes room.
const MOST_PEOPLE: usize = 10_000;

/// Offset of stored times, so that passages from before the service started can be
/// stored. Older passages are ignored.
const BEFORE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Direction of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Into the area.
    In,
    /// Out of the area.
    Out,
}

/// What to do about a person who passes the same way twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AntiPassback {
    /// Passages are not checked.
    #[default]
    Off,
    /// Admit the person and report it.
    Soft,
    /// Refuse the person, except under duress.
    Hard,
}

/// Settings of anti-passback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassbackSettings {
    /// Off, soft or hard.
    pub rule: AntiPassback,
    /// Direction of this reader; without it, passages at this door are not recorded.
    pub role: Option<Role>,
    /// Age at which a passage is forgotten: the person may have left another way.
    pub forget: Duration,
}

impl Default for PassbackSettings {
    fn default() -> Self {
        Self { rule: AntiPassback::Off, role: None, forget: Duration::from_secs(12 * 3600) }
    }
}

/// A passage, for the next start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedPassage {
    /// [`PersonId`].
    pub person: u32,
    /// Direction.
    pub role: Role,
    /// Seconds since the passage.
    pub ago_s: u64,
}

/// Direction and time of each person's last passage.
#[derive(Clone, Debug, Default)]
pub(super) struct Passback {
    last: BTreeMap<PersonId, (Role, Duration)>,
    /// Number of passages recorded.
    changes: u64,
}

impl Passback {
    /// Number of passages recorded so far.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether this person's last passage had the direction of this reader and is not yet
    /// forgotten.
    pub fn again(&self, now: Duration, person: PersonId, settings: &PassbackSettings) -> bool {
        let lately = |at: Duration| (now + BEFORE).saturating_sub(at) < settings.forget;
        settings.rule != AntiPassback::Off
            && self
                .last
                .get(&person)
                .is_some_and(|(role, at)| Some(*role) == settings.role && lately(*at))
    }

    /// The passages that are not forgotten yet, with their ages.
    pub fn saved(&self, now: Duration, forget: Duration) -> Vec<SavedPassage> {
        let ago = |at: Duration| (now + BEFORE).saturating_sub(at);
        self.last
            .iter()
            .filter(|(_, (_, at))| ago(*at) < forget)
            .map(|(person, (role, at))| SavedPassage {
                person: person.0,
                role: *role,
                ago_s: ago(*at).as_secs(),
            })
            .collect()
    }

    /// Records a passage at this or another door, `ago` before `now`. A late report does
    /// not replace a newer passage.
    pub fn passed(&mut self, now: Duration, ago: Duration, person: PersonId, role: Role) {
        if ago >= BEFORE {
            return;
        }
        let at = now + BEFORE - ago;
        if self.last.get(&person).is_some_and(|(_, last)| *last > at) {
            return;
        }
        if self.last.len() >= MOST_PEOPLE && !self.last.contains_key(&person) {
            let longest_ago = self.last.iter().min_by_key(|(_, (_, at))| *at);
            if let Some(gone) = longest_ago.map(|(person, _)| *person) {
                self.last.remove(&gone);
            }
        }
        self.last.insert(person, (role, at));
        self.changes += 1;
    }
}
