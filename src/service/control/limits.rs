//! How many requests a user may send per time, and how many lines about them reach the log.

use super::protocol::{Command, Request};
use crate::access::door;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Most users remembered; the one who has been silent longest makes room.
const MOST_USERS: usize = 64;
/// Status queries: burst, and number per second. `facelatch status` sends one.
const STATUS: Rate = Rate { burst: 40.0, per_second: 20.0 };
/// Orders of people and scripts.
const ORDERS: Rate = Rate { burst: 40.0, per_second: 4.0 };
/// Lines about refused requests, per user.
const REFUSALS: Rate = Rate { burst: 5.0, per_second: 0.1 };
/// Lines about lockdown and orders of the link, per user.
const NOTES: Rate = Rate { burst: 80.0, per_second: 1.0 };
/// Longest time before the number of suppressed lines is logged.
pub const SUMMARY_AFTER: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: f64,
    per_second: f64,
}

/// A token bucket.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: Rate, at: Instant) -> Self {
        Self { tokens: rate.burst, at }
    }

    /// Takes a token; false if there is none.
    fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.tokens = rate.per_second.mul_add(passed, self.tokens).min(rate.burst);
        let has = self.tokens >= 1.0;
        if has {
            self.tokens -= 1.0;
        }
        has
    }
}

/// What one user has used.
#[derive(Debug)]
struct Account {
    status: Bucket,
    orders: Bucket,
    refusals: Bucket,
    notes: Bucket,
    /// Lines not logged since the last one that was, and since when.
    suppressed: u64,
    since: Instant,
    seen: Instant,
}

impl Account {
    fn new(now: Instant) -> Self {
        Self {
            status: Bucket::full(STATUS, now),
            orders: Bucket::full(ORDERS, now),
            refusals: Bucket::full(REFUSALS, now),
            notes: Bucket::full(NOTES, now),
            suppressed: 0,
            since: now,
            seen: now,
        }
    }
}

/// Whether a request is within the limits of its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// It is.
    Yes,
    /// It is not, but is carried out: a user who may order lockdown must get through, and
    /// repeating it changes nothing.
    Nevertheless,
    /// It is not.
    No,
}

/// Kind of a line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// A refused request.
    Refusal,
    /// Lockdown, which may be ordered without a limit, or an order of the link.
    Note,
}

/// The limits of all users.
#[derive(Debug, Default)]
pub struct Limits {
    accounts: BTreeMap<Option<u32>, Account>,
}

impl Limits {
    /// Counts a request of this user; `None` is one that could not be read.
    pub fn allow(&mut self, uid: Option<u32>, request: Option<&Request>, now: Instant) -> Allowed {
        let account = self.account(uid, now);
        let within = match request {
            Some(Request::Order(_)) => account.orders.take(ORDERS, now),
            Some(Request::Status) | None => account.status.take(STATUS, now),
        };
        match request {
            _ if within => Allowed::Yes,
            Some(Request::Order(Command::Door(door::Command::Lockdown))) => Allowed::Nevertheless,
            _ => Allowed::No,
        }
    }

    /// Whether a line about this user may be logged: `Some` with the number of lines that
    /// were not logged before it.
    pub fn line(&mut self, uid: Option<u32>, line: Line, now: Instant) -> Option<u64> {
        let account = self.account(uid, now);
        let allowed = match line {
            Line::Refusal => account.refusals.take(REFUSALS, now),
            Line::Note => account.notes.take(NOTES, now),
        };
        if allowed {
            return Some(std::mem::take(&mut account.suppressed));
        }
        if account.suppressed == 0 {
            account.since = now;
        }
        account.suppressed += 1;
        None
    }

    /// Users whose lines have been suppressed for a while, with the number of lines, which is
    /// then counted from zero.
    pub fn summaries(&mut self, now: Instant) -> Vec<(Option<u32>, u64)> {
        self.accounts
            .iter_mut()
            .filter(|(_, account)| {
                account.suppressed > 0
                    && now.saturating_duration_since(account.since) >= SUMMARY_AFTER
            })
            .map(|(uid, account)| (*uid, std::mem::take(&mut account.suppressed)))
            .collect()
    }

    /// Whether lines have been suppressed that no summary has counted yet.
    pub fn owes_summary(&self) -> bool {
        self.accounts.values().any(|account| account.suppressed > 0)
    }

    fn account(&mut self, uid: Option<u32>, now: Instant) -> &mut Account {
        if self.accounts.len() >= MOST_USERS && !self.accounts.contains_key(&uid) {
            let silent = self.accounts.iter().min_by_key(|(_, account)| account.seen);
            if let Some(uid) = silent.map(|(uid, _)| *uid) {
                self.accounts.remove(&uid);
            }
        }
        let account = self.accounts.entry(uid).or_insert_with(|| Account::new(now));
        account.seen = now;
        account
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LOCKDOWN: Request = Request::Order(Command::Door(door::Command::Lockdown));
    const OPEN: Request = Request::Order(Command::Door(door::Command::Open));

    #[test]
    fn a_flood_is_cut_and_lockdown_passes_through_it() {
        let (begin, mut limits) = (Instant::now(), Limits::default());
        let me = Some(1000);
        let mut taken = 0;
        for millis in 0..10_000 {
            let now = begin + Duration::from_millis(millis);
            taken += usize::from(limits.allow(me, Some(&OPEN), now) == Allowed::Yes);
            assert_ne!(limits.allow(me, Some(&LOCKDOWN), now), Allowed::No);
        }
        assert!((20..=81).contains(&taken), "{taken}");
        assert_eq!(limits.allow(Some(1001), Some(&OPEN), begin), Allowed::Yes, "of another user");
        let later = begin + Duration::from_secs(10);
        assert_eq!(limits.allow(me, Some(&Request::Status), later), Allowed::Yes);
    }

    #[test]
    fn lines_about_refusals_are_few_and_the_others_are_counted() {
        let (begin, mut limits) = (Instant::now(), Limits::default());
        let (mut lines, mut counted) = (0u64, 0);
        for millis in 0..60_000 {
            let now = begin + Duration::from_millis(millis);
            if let Some(suppressed) = limits.line(Some(5), Line::Refusal, now) {
                (lines, counted) = (lines + 1, counted + suppressed);
            }
            counted += limits.summaries(now).iter().map(|(_, count)| count).sum::<u64>();
        }
        assert!((10..=12).contains(&lines), "{lines} lines in a minute");
        let last = limits.summaries(begin + Duration::from_secs(600));
        counted += last.iter().map(|(_, count)| count).sum::<u64>();
        assert_eq!(lines + counted, 60_000);
        assert!(!limits.owes_summary());
    }

    proptest! {
        #[test]
        fn no_more_lines_than_the_rate_whatever_the_rhythm(
            steps in prop::collection::vec((0u64..2000, 0u32..100), 1..400),
        ) {
            let begin = Instant::now();
            let (mut limits, mut now, mut lines) = (Limits::default(), begin, 0u32);
            for (millis, uid) in steps {
                now += Duration::from_millis(millis);
                prop_assert!(limits.accounts.len() <= MOST_USERS);
                if uid == 0 {
                    lines += u32::from(limits.line(Some(0), Line::Refusal, now).is_some());
                } else {
                    limits.allow(Some(0), None, now);
                }
            }
            let seconds = now.duration_since(begin).as_secs_f64();
            prop_assert!(f64::from(lines) <= REFUSALS.burst + REFUSALS.per_second * seconds + 1.0);
        }
    }
}
