//! The leaf of the door, where a contact tells whether it is open.

use std::time::Duration;

/// Somebody who pulls in the last moment still pulls rightly: that long after the
/// relay has locked.
pub(super) const LAST_PULL: Duration = Duration::from_secs(1);

/// Where the leaf is.
///
/// ```text
///                opened, rightly           too long
///   Closed ----------------------> Ajar ------------> HeldTooLong (alarm)
///    |  ^                           | ^                |       |
///    |  +---------- closed ---------+ +- always open --+       |
///    |  +---------- closed ------------------------------------+
///    | opened while locked
///    +----> Forced (alarm) -- closed --> Closed
///
///   Unknown: no contact, or it has not said anything yet; the first word leads to
///   Closed or Ajar, for nobody knows who opened it
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leaf {
    /// No contact has spoken.
    #[default]
    Unknown,
    /// Closed.
    Closed,
    /// Open, and may be.
    Ajar {
        /// When it was opened, or when the time it may be open began.
        since: Duration,
    },
    /// Open for too long.
    HeldTooLong,
    /// Opened while the door was locked.
    Forced,
}

/// What is alarmed about. A silent alarm is none of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alarm {
    /// The door stands open for too long.
    HeldTooLong,
    /// The door was opened while it was locked.
    Forced,
}

impl Leaf {
    /// Whether the contact says open.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Ajar { .. } | Self::HeldTooLong | Self::Forced)
    }

    /// What it alarms about.
    pub fn alarm(self) -> Option<Alarm> {
        match self {
            Self::HeldTooLong => Some(Alarm::HeldTooLong),
            Self::Forced => Some(Alarm::Forced),
            Self::Unknown | Self::Closed | Self::Ajar { .. } => None,
        }
    }

    /// The contact says open. `rightly` is whether the lock was, or lately.
    pub(super) fn opened(self, now: Duration, rightly: bool) -> Self {
        match self {
            Self::Unknown => Self::Ajar { since: now },
            Self::Closed if rightly => Self::Ajar { since: now },
            Self::Closed => Self::Forced,
            // Said already.
            open @ (Self::Ajar { .. } | Self::HeldTooLong | Self::Forced) => open,
        }
    }

    /// Time passes. While the door may be open always, no time counts.
    pub(super) fn elapse(self, now: Duration, held_after: Duration, always_open: bool) -> Self {
        match self {
            Self::Ajar { .. } | Self::HeldTooLong if always_open => Self::Ajar { since: now },
            Self::Ajar { since } if now >= since + held_after => Self::HeldTooLong,
            leaf => leaf,
        }
    }
}
