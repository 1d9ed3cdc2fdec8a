//! Retry delays of unreachable devices, and how often a failure is reported.

use std::time::Duration;

/// Delay before the second attempt: about the time a device needs to appear once plugged
/// in.
const FIRST: Duration = Duration::from_millis(200);
/// Longest delay: after a device is plugged in, the door waits no longer than this.
const LONGEST: Duration = Duration::from_secs(5);

/// Delay before the next attempt after `failed` failures in a row: 0.2 s, then twice as
/// long each time, up to 5 s.
pub fn backoff(failed: u32) -> Duration {
    let doubled = failed.saturating_sub(1).min(LONGEST.as_millis().ilog2());
    (FIRST * (1 << doubled)).min(LONGEST)
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
        self.due = now + backoff(self.failed);
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
    fn it_doubles_from_a_fifth_of_a_second_to_five() {
        let waits: Vec<u128> = (0..8).map(|failed| backoff(failed).as_millis()).collect();
        assert_eq!(waits, [200, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff(u32::MAX), LONGEST);
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
