//! Which passages reported by other doors can be true: nobody walks from one door to the
//! next in no time.

use crate::access::gallery::PersonId;
use std::collections::BTreeMap;
use std::time::Duration;

/// Shortest time between two passages of one person: through the two doors of an airlock,
/// three metres apart.
const WALK: Duration = Duration::from_secs(2);
/// Maximum number of people remembered: the size of the largest gallery. The person whose
/// passage is oldest makes room.
const MOST_PEOPLE: usize = 10_000;
/// Offset of stored times, so that passages from before the service started can be stored:
/// the longest age of a report.
const BEFORE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The last passage of each person that another door reported.
#[derive(Debug, Default)]
pub(super) struct Passages {
    last: BTreeMap<PersonId, Duration>,
}

impl Passages {
    /// Whether a passage of this person, `ago` before `now`, is far enough in time from the
    /// last one that counted. If so, it counts.
    pub fn plausible(&mut self, now: Duration, ago: Duration, person: PersonId) -> bool {
        let at = (now + BEFORE).saturating_sub(ago);
        if let Some(last) = self.last.get(&person) {
            if last.abs_diff(at) < WALK {
                return false;
            }
            // A late report: the newer passage stays.
            if *last > at {
                return true;
            }
        } else if self.last.len() >= MOST_PEOPLE {
            let oldest = self.last.iter().min_by_key(|(_, at)| **at);
            if let Some(gone) = oldest.map(|(person, _)| *person) {
                self.last.remove(&gone);
            }
        }
        self.last.insert(person, at);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn a_person_passes_no_more_often_than_people_walk() {
        let (ada, bob) = (PersonId(1), PersonId(2));
        let mut passages = Passages::default();
        assert!(passages.plausible(S(10), S(0), ada));
        assert!(!passages.plausible(S(11), S(0), ada), "a second later");
        assert!(!passages.plausible(S(15), S(4), ada), "reported late, but of the same moment");
        assert!(passages.plausible(S(11), S(0), bob), "somebody else");
        assert!(passages.plausible(S(12), S(0), ada));
        // Reports that waited come in a row, each with its age.
        for ago in [3000, 2000, 1000] {
            assert!(passages.plausible(S(20), S(ago), bob), "{ago}");
        }
        assert!(passages.plausible(S(20), BEFORE, ada));
    }

    proptest! {
        #[test]
        fn reports_of_the_present_are_at_least_a_walk_apart(
            steps in prop::collection::vec(0u64..3000, 1..200),
        ) {
            let (mut passages, mut now, mut counted) = (Passages::default(), Duration::ZERO, 0u32);
            for millis in steps {
                now += Duration::from_millis(millis);
                counted += u32::from(passages.plausible(now, Duration::ZERO, PersonId(7)));
            }
            prop_assert!(WALK * (counted - 1) <= now, "{counted} in {now:?}");
        }
    }
}
