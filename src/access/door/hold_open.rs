//! Why the lock is open, and until when.

use super::lock::ANSWER_WITHIN;
use std::time::Duration;

/// Until when somebody wants the lock open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Claim {
    #[default]
    None,
    /// From the relay's answer on, for so long; nothing if that takes too long,
    /// however often the relay comes back meanwhile.
    Asked { made: Duration, lasts: Duration },
    /// Until a time.
    Until { made: Duration, until: Duration },
}

impl Claim {
    pub fn holds(self, now: Duration) -> bool {
        match self {
            Self::None => false,
            Self::Asked { made, .. } => now < made + ANSWER_WITHIN,
            Self::Until { until, .. } => now < until,
        }
    }

    /// When it ends at the latest, where it holds yet.
    pub fn until(self) -> Option<Duration> {
        match self {
            Self::None => None,
            Self::Asked { made, lasts } => Some(made + ANSWER_WITHIN + lasts),
            Self::Until { until, .. } => Some(until),
        }
    }

    /// The lock is open now.
    pub fn answered(self, now: Duration) -> Self {
        match self {
            Self::Asked { made, lasts } if self.holds(now) => {
                Self::Until { made, until: now + lasts }
            }
            claim => claim,
        }
    }

    /// Whoever made it before a time has passed.
    pub fn used(self, by: Duration) -> Self {
        match self {
            Self::Asked { made, .. } | Self::Until { made, .. } if made <= by => Self::None,
            claim => claim,
        }
    }
}
