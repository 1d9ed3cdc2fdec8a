//! Anti-passback: who came in must go out before coming in again, so that one
//! face does not let in two people.
//!
//! Two doors share a role where both let people in, or both out: what passes at
//! one is told to the other.

use crate::access::gallery::PersonId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// People remembered: as many as the largest gallery holds. Whoever passed longest
/// ago makes room.
const MOST_PEOPLE: usize = 10_000;

/// Times are counted from so long before the clock begins: others may tell of what was
/// before this service, and longer than this nobody remembers.
const BEFORE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Which way people pass at a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Into the area.
    In,
    /// Out of it.
    Out,
}

/// What to do about somebody who passes the same way twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AntiPassback {
    /// Nothing.
    #[default]
    Off,
    /// Let them pass, and tell.
    Soft,
    /// Do not let them pass.
    Hard,
}

/// How it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassbackSettings {
    /// Whether.
    pub rule: AntiPassback,
    /// Which way people pass here; nothing is kept without.
    pub role: Option<Role>,
    /// A passage so long ago is forgotten: somebody may have left by a window.
    pub forget: Duration,
}

impl Default for PassbackSettings {
    fn default() -> Self {
        Self { rule: AntiPassback::Off, role: None, forget: Duration::from_secs(12 * 3600) }
    }
}

/// Which way everybody passed last, and when.
#[derive(Clone, Debug, Default)]
pub(super) struct Passback {
    last: BTreeMap<PersonId, (Role, Duration)>,
}

impl Passback {
    /// Whether somebody who is to pass here passed this way last.
    pub fn again(&self, now: Duration, person: PersonId, settings: &PassbackSettings) -> bool {
        let lately = |at: Duration| (now + BEFORE).saturating_sub(at) < settings.forget;
        settings.rule != AntiPassback::Off
            && self
                .last
                .get(&person)
                .is_some_and(|(role, at)| Some(*role) == settings.role && lately(*at))
    }

    /// Somebody passed, here or elsewhere, so long ago. What is heard late does not undo
    /// what is known to have come after it.
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
    }
}
