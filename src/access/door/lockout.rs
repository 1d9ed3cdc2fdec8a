//! Lockout: after several refused attempts nobody is admitted for a while. Each further
//! lockout lasts twice as long.

use std::time::Duration;

/// When a lockout begins and how long it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockoutSettings {
    /// Refused attempts in a row that cause a lockout; 0 disables it.
    pub tries: u32,
    /// Duration of the first lockout. Each further one lasts twice as long.
    pub first: Duration,
    /// Longest duration of a lockout.
    pub longest: Duration,
    /// After this time without a refused attempt the count starts over. A grant resets it,
    /// too.
    pub forget_after: Duration,
}

impl Default for LockoutSettings {
    fn default() -> Self {
        Self {
            tries: 0,
            first: Duration::from_secs(30),
            longest: Duration::from_secs(15 * 60),
            forget_after: Duration::from_secs(60 * 60),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Lockout {
    tries: u32,
    /// Number of lockouts since the count started.
    level: u32,
    until: Option<Duration>,
    last: Duration,
}

impl Lockout {
    /// Counts a refused attempt. Returns the end of the lockout if one begins now. Attempts
    /// during a lockout do not count.
    pub fn refused(&mut self, now: Duration, settings: &LockoutSettings) -> Option<Duration> {
        if settings.tries == 0 || self.until.is_some() {
            return None;
        }
        if now.saturating_sub(self.last) >= settings.forget_after {
            (self.tries, self.level) = (0, 0);
        }
        self.last = now;
        self.tries += 1;
        if self.tries < settings.tries {
            return None;
        }
        let doubled = settings.first.saturating_mul(1 << self.level.min(16));
        let until = now + doubled.min(settings.longest);
        *self = Self { tries: 0, level: self.level + 1, until: Some(until), last: until };
        Some(until)
    }

    /// End of the current lockout.
    pub fn until(&self) -> Option<Duration> {
        self.until
    }

    /// Whether the lockout has just ended.
    pub fn elapse(&mut self, now: Duration) -> bool {
        self.until.take_if(|until| now >= *until).is_some()
    }

    /// Resets the counts: somebody was admitted.
    pub fn forget(&mut self) {
        (self.tries, self.level) = (0, 0);
    }
}
