//! How long the rules of the site hold: by the wall clock, and at most as long by the
//! monotonic one, so that setting the clock back makes no lease longer.

use std::time::{Duration, Instant};

/// Ends of the lease that was seen last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LeaseClock {
    seen: Option<(u64, Instant)>,
}

impl LeaseClock {
    /// Seconds that are left of a lease until `until_ms`, at most 0 if it is over. Times in
    /// milliseconds since 1970.
    pub fn left_s(&mut self, until_ms: u64, (now_ms, now): (u64, Instant)) -> i64 {
        let left = Duration::from_millis(until_ms.saturating_sub(now_ms));
        let ends = match self.seen {
            Some((seen, ends)) if seen == until_ms => ends,
            // Without such a moment the wall clock alone counts.
            _ => now.checked_add(left).unwrap_or(now),
        };
        self.seen = Some((until_ms, ends));
        let by_wall = i128::from(until_ms) - i128::from(now_ms);
        let by_now = match ends.checked_duration_since(now) {
            Some(left) => left.as_millis() as i128,
            None => -(now.saturating_duration_since(ends).as_millis() as i128),
        };
        i64::try_from(by_wall.min(by_now).div_euclid(1000)).unwrap_or(i64::MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_makes_no_lease_longer() {
        let (start, began) = (1_800_000_000_000, Instant::now());
        let at =
            |wall_s: i64, s: u64| (start + (wall_s * 1000) as u64, began + Duration::from_secs(s));
        let until = start + 100_000;
        let mut lease = LeaseClock::default();
        assert_eq!(lease.left_s(until, at(0, 0)), 100);
        assert_eq!(lease.left_s(until, at(10, 10)), 90);
        // Back by a day, and forward by a minute.
        let day = (start - 86_400_000, began + Duration::from_secs(20));
        assert_eq!(lease.left_s(until, day), 80);
        assert_eq!(lease.left_s(until, at(90, 30)), 10);
        assert!(lease.left_s(until, at(30, 101)) <= 0);
        // A new lease counts from its own beginning.
        assert_eq!(lease.left_s(until + 100_000, at(101, 101)), 99);
        assert!(lease.left_s(0, at(0, 0)) < 0);
        assert!(lease.left_s(u64::MAX, at(0, 0)) > 0);
    }
}
