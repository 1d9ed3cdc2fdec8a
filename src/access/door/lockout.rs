//! After several refused tries nobody is let in for a while, then for longer.

use std::time::Duration;

/// When and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockoutSettings {
    /// Refused tries in a row that lock out; 0 is never.
    pub tries: u32,
    /// For how long the first time; each further one takes twice as long.
    pub first: Duration,
    /// But never longer than this.
    pub longest: Duration,
    /// So long without a try forgets all of it, as does somebody let in.
    pub forget: Duration,
}

impl Default for LockoutSettings {
    fn default() -> Self {
        Self {
            tries: 0,
            first: Duration::from_secs(30),
            longest: Duration::from_secs(15 * 60),
            forget: Duration::from_secs(60 * 60),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Lockout {
    tries: u32,
    /// Lockouts so far.
    level: u32,
    until: Option<Duration>,
    last: Duration,
}

impl Lockout {
    /// A try was refused; until when nobody is let in, where this begins now.
    pub fn refused(&mut self, now: Duration, settings: &LockoutSettings) -> Option<Duration> {
        if settings.tries == 0 || self.until.is_some() {
            return None;
        }
        if now.saturating_sub(self.last) >= settings.forget {
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

    /// Until when nobody is let in.
    pub fn until(&self) -> Option<Duration> {
        self.until
    }

    /// Whether it has just come to its end.
    pub fn elapse(&mut self, now: Duration) -> bool {
        self.until.take_if(|until| now >= *until).is_some()
    }

    /// Somebody was let in.
    pub fn forget(&mut self) {
        (self.tries, self.level) = (0, 0);
    }
}
