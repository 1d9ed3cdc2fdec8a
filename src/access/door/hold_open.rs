//! A reason to hold the lock open, with its end.

use super::lock::ANSWER_WITHIN;
use std::time::Duration;

/// How long a grant or a request to exit wants the lock open. Times are on the service's
/// monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum HoldOpen {
    #[default]
    None,
    /// Waits for the relay: from its answer on, the claim holds for `lasts`. Without an
    /// answer within [`ANSWER_WITHIN`] it lapses, even if the relay reconnects meanwhile.
    Asked { made: Duration, lasts: Duration },
    /// The lock is open, and the claim holds until `until`.
    Until { made: Duration, until: Duration },
}

impl HoldOpen {
    pub fn holds(self, now: Duration) -> bool {
        match self {
            Self::None => false,
            Self::Asked { made, .. } => now < made + ANSWER_WITHIN,
            Self::Until { until, .. } => now < until,
        }
    }

    /// Latest time at which the claim can end; `None` without a claim.
    pub fn until(self) -> Option<Duration> {
        match self {
            Self::None => None,
            Self::Asked { made, lasts } => Some(made + ANSWER_WITHIN + lasts),
            Self::Until { until, .. } => Some(until),
        }
    }

    /// The relay has opened the lock at `now`: a waiting claim starts to count.
    pub fn answered(self, now: Duration) -> Self {
        match self {
            Self::Asked { made, lasts } if self.holds(now) => {
                Self::Until { made, until: now + lasts }
            }
            claim => claim,
        }
    }

    /// Drops the claim if it was made at or before `by`: its person has gone through.
    pub fn used(self, by: Duration) -> Self {
        match self {
            Self::Asked { made, .. } | Self::Until { made, .. } if made <= by => Self::None,
            claim => claim,
        }
    }
}
