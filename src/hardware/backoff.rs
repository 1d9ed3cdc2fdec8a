//! Retry delays of unreachable devices, and how often a failure is reported.

use std::time::Duration;

/// Delays between attempts that fail: the first one, then twice as long after each further
/// failure, up to the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Delay after the first failure.
    pub first: Duration,
    /// Longest delay.
    pub limit: Duration,
}

impl Backoff {
    /// For devices that somebody plugs in: one needs about 0.2 s to appear, and the door
    /// waits at most 5 s longer.
    pub const DEVICE: Self =
        Self { first: Duration::from_millis(200), limit: Duration::from_secs(5) };

    /// Delay after `failures` failures in a row; after none as after one.
    pub fn delay(self, failures: u32) -> Duration {
        let times = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(times).min(self.limit)
    }

    /// When the next attempt is due after a failure at `now`, which is the last of
    /// `failures` in a row.
    pub fn due(self, now: Duration, failures: u32) -> Duration {
        now.saturating_add(self.delay(failures))
    }
}

/// Retries of a device until it works. Each fault is reported once, until another fault
/// replaces it.
#[derive(Clone, Debug, Default)]
pub struct Retry {
    failed: u32,
    due: Duration,
    reason: Option<String>,
}

impl Retry {
    /// When the next attempt is due.
    pub fn due(&self) -> Duration {
        self.due
    }

    /// Records a failure; returns whether its reason is new.
    pub fn failed(&mut self, now: Duration, reason: &str) -> bool {
        self.failed = self.failed.saturating_add(1);
        self.due = Backoff::DEVICE.due(now, self.failed);
        let news = self.reason.as_deref() != Some(reason);
        if news {
            self.reason = Some(reason.to_owned());
        }
        news
    }

    /// Records a success; returns whether it ends a failure.
    pub fn succeeded(&mut self) -> bool {
        self.failed = 0;
        self.due = Duration::ZERO;
        self.reason.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_from_the_first_delay_to_the_limit() {
        let waits: Vec<u128> =
            (0..8).map(|failures| Backoff::DEVICE.delay(failures).as_millis()).collect();
        assert_eq!(waits, [200, 200, 400, 800, 1600, 3200, 5000, 5000]);
        let now = Duration::from_secs(9);
        assert_eq!(Backoff::DEVICE.due(now, 3), now + Duration::from_millis(800));
        for failures in [32, 33, u32::MAX] {
            assert_eq!(Backoff::DEVICE.delay(failures), Backoff::DEVICE.limit);
            let longest = Backoff { first: Duration::MAX, limit: Duration::MAX };
            assert_eq!(longest.due(now, failures), Duration::MAX);
        }
    }

    #[test]
    fn each_reason_and_the_recovery_are_reported_once() {
        let now = Duration::from_secs(9);
        let mut retry = Retry::default();
        assert!(retry.due() <= now && !retry.succeeded());
        assert!(retry.failed(now, "gone"));
        assert!(!retry.failed(now, "gone"));
        assert_eq!(retry.due(), now + Duration::from_millis(400));
        assert!(retry.failed(now, "held"));
        assert!(retry.succeeded() && !retry.succeeded());
        assert!(retry.due() <= now && retry.failed(now, "held"));
    }
}
