//! The door leaf as the door contact reports it: held-open and forced-door detection.

use std::time::Duration;

/// Grace time after the relay has locked: opening the door within it raises no
/// forced-door alarm.
pub(super) const LAST_PULL: Duration = Duration::from_secs(1);

/// State of the door leaf.
///
/// ```text
///            opened while unlocked     after `held_open_after`
///   Closed ----------------------> Ajar ------------> HeldTooLong (alarm)
///    |  ^                           | ^                |       |
///    |  +---------- closed ---------+ +- always open --+       |
///    |  +---------- closed ------------------------------------+
///    | opened while locked
///    +----> Forced (alarm) -- closed --> Closed
///
///   Unknown: no contact, or no report from it yet. The first report leads to Closed
///   or Ajar, never to Forced: the door may have been open all along.
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leaf {
    /// No contact, or no report from it yet.
    #[default]
    Unknown,
    /// Closed.
    Closed,
    /// Open, and not yet for too long.
    Ajar {
        /// When it was opened, or when always open ended.
        since: Duration,
    },
    /// Held open for too long (alarm).
    HeldTooLong,
    /// Forced: opened while the door was locked (alarm).
    Forced,
}

/// An audible alarm of the leaf. The silent duress alarm is [`super::Event::Duress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alarm {
    /// The door is held open for too long.
    HeldTooLong,
    /// The door was opened while it was locked.
    Forced,
}

impl Leaf {
    /// Whether the contact reports the door as open.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Ajar { .. } | Self::HeldTooLong | Self::Forced)
    }

    /// The alarm that this state raises, if any.
    pub fn alarm(self) -> Option<Alarm> {
        match self {
            Self::HeldTooLong => Some(Alarm::HeldTooLong),
            Self::Forced => Some(Alarm::Forced),
            Self::Unknown | Self::Closed | Self::Ajar { .. } => None,
        }
    }

    /// The contact reports open. `rightly`: the lock is or may be open, or was locked less
    /// than [`LAST_PULL`] ago.
    pub(super) fn opened(self, now: Duration, rightly: bool) -> Self {
        match self {
            Self::Unknown => Self::Ajar { since: now },
            Self::Closed if rightly => Self::Ajar { since: now },
            Self::Closed => Self::Forced,
            // Reported already.
            open @ (Self::Ajar { .. } | Self::HeldTooLong | Self::Forced) => open,
        }
    }

    /// Time passes. While the door is always open, held-open time does not count.
    pub(super) fn elapse(
        self,
        now: Duration,
        held_open_after: Duration,
        always_open: bool,
    ) -> Self {
        match self {
            Self::Ajar { .. } | Self::HeldTooLong if always_open => Self::Ajar { since: now },
            Self::Ajar { since } if now >= since + held_open_after => Self::HeldTooLong,
            leaf => leaf,
        }
    }
}
