//! How long a device that is not there is left alone between two tries, and how often
//! that is told.

use std::time::Duration;

/// Before the second try: a device plugged in anew takes about as long to appear.
const FIRST: Duration = Duration::from_millis(200);
/// Longest: whoever plugs it in waits no longer for the door to come back.
const LONGEST: Duration = Duration::from_secs(5);

/// The time before the next try, after so many in a row have failed: 0.2 s, then
/// twice as long each time, up to 5 s.
pub fn backoff(failed: u32) -> Duration {
    let doubled = failed.saturating_sub(1).min(LONGEST.as_millis().ilog2());
    (FIRST * (1 << doubled)).min(LONGEST)
}

/// A device that is tried until it is there. Why it is not is told once, and again when
/// the reason is another.
#[derive(Clone, Debug, Default)]
pub struct Retry {
    failed: u32,
    due: Duration,
    reason: Option<String>,
}

impl Retry {
    /// When to try again.
    pub fn due(&self) -> Duration {
        self.due
    }

    /// It failed; whether that is news.
    pub fn failed(&mut self, now: Duration, reason: &str) -> bool {
        self.failed = self.failed.saturating_add(1);
        self.due = now + backoff(self.failed);
        let news = self.reason.as_deref() != Some(reason);
        if news {
            self.reason = Some(reason.to_owned());
        }
        news
    }

    /// It is there; whether that is news.
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
    fn a_reason_is_told_once_and_so_is_the_end() {
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
