//! The lock: orders to the relay and its answers.

use std::time::Duration;

/// Delay before the next order to lock after the relay refused one or became
/// unreachable.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Timeout of the relay's answer; after it the order counts as failed. A serial command
/// takes some milliseconds, a board that was just plugged in about a second.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// State of the lock without power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LockKind {
    /// Locked without power: energised is open.
    #[default]
    FailSecure,
    /// Open without power: energised is locked.
    FailSafe,
}

impl LockKind {
    /// Whether the relay is energised while the lock is open (`open`) or locked (`!open`).
    pub fn energised(self, open: bool) -> bool {
        match self {
            Self::FailSecure => open,
            Self::FailSafe => !open,
        }
    }
}

/// An order to the relay. The answer carries its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// One more than the number of the previous order; wraps around.
    pub number: u32,
    /// `true` energises the relay, `false` de-energises it.
    pub energise: bool,
}

/// State of the lock.
///
/// ```text
///            wanted open             taken
///   Locked ---------------> Granting -------> Open
///     ^                      ^   |             |
///     | taken    wanted open |   | not taken,  | not wanted open
///     |                      |   | not wanted  |
///     +---------------------- Locking <--------+
///                             |     ^ not taken: repeated
///                             +-----+
///
///   any -- stop --> Stopping (not taken: repeated) -- taken --> Stopped
/// ```
///
/// "taken" is the relay's answer that it carried the order out. The lock counts as open or
/// locked only after that answer. Answers to any order but the last are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Locked; the relay has confirmed it.
    Locked {
        /// When the relay confirmed it.
        since: Duration,
    },
    /// Ordered to open; not yet answered.
    Granting {
        /// When the order was given.
        since: Duration,
    },
    /// Open; the relay has confirmed it.
    Open,
    /// To be locked: the order is given or due.
    Locking {
        /// When the order is given, or repeated without an answer.
        due: Duration,
    },
    /// To be de-energised for good: the order is given or due.
    Stopping {
        /// When the order is given, or repeated without an answer.
        due: Duration,
    },
    /// De-energised for good.
    Stopped,
}

/// Effect of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    Opened,
    Locked,
    /// The relay refused the order to open.
    NotOpened,
    /// No change; at most the order is repeated later.
    Nothing,
}

#[derive(Clone, Debug)]
pub(super) struct Lock {
    kind: LockKind,
    state: State,
    /// Number of the last order.
    number: u32,
    /// Whether the last order is still unanswered.
    waits: bool,
    /// See [`Self::shut`].
    shut: Option<Duration>,
}

impl Lock {
    /// Starts in `Locking`: the state that the relay was left in is unknown.
    pub fn new(now: Duration, kind: LockKind) -> Self {
        let state = State::Locking { due: now };
        Self { kind, state, number: 0, waits: false, shut: None }
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// Time since which the lock is certainly locked; `None` if it is or may be open.
    pub fn shut(&self) -> Option<Duration> {
        self.shut
    }

    /// Whether the answer to an order to open is overdue.
    pub fn overdue(&self, now: Duration) -> bool {
        matches!(self.state, State::Granting { since } if now >= since + ANSWER_WITHIN)
    }

    /// Takes the relay's answer to order `number`.
    pub fn answer(&mut self, now: Duration, number: u32, taken: bool) -> Answered {
        if number != self.number || !self.waits {
            return Answered::Nothing;
        }
        self.waits = false;
        let (state, answered) = match (self.state, taken) {
            (State::Granting { .. }, true) => (State::Open, Answered::Opened),
            (State::Granting { .. }, false) => return self.not_opened(now),
            (State::Locking { .. }, true) => {
                self.shut.get_or_insert(now);
                (State::Locked { since: now }, Answered::Locked)
            }
            (State::Locking { .. }, false) => {
                (State::Locking { due: now + RETRY_AFTER }, Answered::Nothing)
            }
            (State::Stopping { .. }, true) => (State::Stopped, Answered::Locked),
            (State::Stopping { .. }, false) => {
                (State::Stopping { due: now + RETRY_AFTER }, Answered::Nothing)
            }
            // These states expect no answer.
            (state @ (State::Locked { .. } | State::Open | State::Stopped), _) => {
                (state, Answered::Nothing)
            }
        };
        self.state = state;
        answered
    }

    /// The relay refused to open or did not answer. It may be open all the same, so it is
    /// ordered to lock.
    pub fn not_opened(&mut self, now: Duration) -> Answered {
        self.state = State::Locking { due: now };
        Answered::NotOpened
    }

    /// The relay is unreachable, so the state of the lock is unknown and the relay is
    /// ordered to lock. Returns whether the lock was open or about to open.
    pub fn away(&mut self, now: Duration) -> bool {
        let opened = matches!(self.state, State::Granting { .. } | State::Open);
        if opened || matches!(self.state, State::Locked { .. }) {
            self.state = State::Locking { due: now + RETRY_AFTER };
            self.waits = false;
        }
        // Without its relay a fail-safe lock falls open, a fail-secure one stays locked.
        self.shut = self.shut.filter(|_| self.kind == LockKind::FailSecure);
        opened
    }

    /// The relay is reachable again, in an unknown state.
    pub fn back(&mut self, now: Duration) {
        self.state = match self.state {
            State::Stopping { .. } | State::Stopped => State::Stopping { due: now },
            // `drive` opens it again in the same step if it is still wanted open.
            State::Locked { .. } | State::Granting { .. } | State::Open | State::Locking { .. } => {
                State::Locking { due: now }
            }
        };
    }

    /// De-energises the relay for good.
    pub fn stop(&mut self, now: Duration) {
        if self.state != State::Stopped {
            self.state = State::Stopping { due: now };
        }
    }

    /// Moves towards the wanted state; returns the order for the relay, if one is due.
    pub fn drive(&mut self, now: Duration, open: bool) -> Option<Order> {
        let (state, energise) = match (self.state, open) {
            (State::Locked { .. } | State::Locking { .. }, true) => {
                self.shut = None;
                (State::Granting { since: now }, self.kind.energised(true))
            }
            (State::Granting { .. } | State::Open, false) => {
                (State::Locking { due: now + ANSWER_WITHIN }, self.kind.energised(false))
            }
            (State::Locking { due }, false) if now >= due => {
                (State::Locking { due: now + ANSWER_WITHIN }, self.kind.energised(false))
            }
            (State::Stopping { due }, _) if now >= due => {
                self.shut = self.shut.filter(|_| self.kind == LockKind::FailSecure);
                (State::Stopping { due: now + ANSWER_WITHIN }, false)
            }
            (State::Locked { .. }, false)
            | (State::Granting { .. } | State::Open, true)
            | (State::Locking { .. }, false)
            | (State::Stopping { .. } | State::Stopped, _) => return None,
        };
        self.state = state;
        self.number = self.number.wrapping_add(1);
        self.waits = true;
        Some(Order { number: self.number, energise })
    }
}
