//! Which records are shown.

use super::entry::Severity;
use super::logged::Logged;

/// Which records are shown: those that fit everything that is set.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Not before this time, Unix microseconds.
    pub since: Option<i64>,
    /// Before this time, Unix microseconds.
    pub until: Option<i64>,
    /// About this person.
    pub person: Option<u32>,
    /// Of one of these kinds; empty for all.
    pub kinds: Vec<String>,
    /// Of this door.
    pub door: Option<String>,
    /// At least this severe.
    pub severity: Option<Severity>,
}

impl Filter {
    /// Whether a record is shown.
    pub fn fits(&self, logged: &Logged) -> bool {
        let Logged { stamp, entry, .. } = logged;
        self.since.is_none_or(|since| stamp.wall >= since)
            && self.until.is_none_or(|until| stamp.wall < until)
            && self.person.is_none_or(|person| entry.is_about(person))
            && (self.kinds.is_empty() || self.kinds.contains(&entry.event))
            && self.door.as_ref().is_none_or(|door| entry.door.as_ref() == Some(door))
            && self.severity.is_none_or(|least| entry.severity >= least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::entry::{Change, Entry, PersonChange};
    use crate::audit::field::Value;
    use crate::audit::{ClockTrust, Stamp};

    fn logged(entry: Entry, wall: i64) -> Logged {
        let stamp = Stamp { boot: [0; 16], monotonic: 0, wall, clock: ClockTrust::Trusted };
        Logged { number: 1, stamp, entry }
    }

    #[test]
    fn a_record_is_shown_only_if_everything_fits() {
        let mut entry = Entry::new("granted");
        entry.add("person", Value::Count(7));
        entry.door = Some("back".to_owned());
        let one = logged(entry, 100);
        let all = Filter::default();
        let fits = |filter: Filter| filter.fits(&one);
        assert!(fits(all.clone()));
        assert!(fits(Filter { since: Some(100), until: Some(101), ..all.clone() }));
        assert!(!fits(Filter { since: Some(101), ..all.clone() }));
        assert!(!fits(Filter { until: Some(100), ..all.clone() }));
        assert!(fits(Filter { person: Some(7), ..all.clone() }));
        assert!(!fits(Filter { person: Some(8), ..all.clone() }));
        assert!(!fits(Filter { kinds: vec!["refused".to_owned()], ..all.clone() }));
        assert!(fits(Filter { door: Some("back".to_owned()), ..all.clone() }));
        assert!(!fits(Filter { door: Some("front".to_owned()), ..all.clone() }));
        assert!(!fits(Filter { severity: Some(Severity::Warn), ..all.clone() }));
        let change = Change::Person { id: 9, what: PersonChange::Renamed };
        let changed = logged(Entry { changes: vec![change], ..Entry::new("people") }, 0);
        assert!(Filter { person: Some(9), ..all }.fits(&changed));
    }
}
