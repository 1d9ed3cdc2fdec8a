//! The lock: what the relay is told, and what it has answered.

use std::time::Duration;

/// Between two tries to lock with a relay that says no.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// A relay silent for longer has not done as told: a serial command takes some
/// milliseconds, a board that is plugged in anew about a second.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// What the lock does without power.
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
    /// Whether the relay is on while the lock is open, or locked.
    pub fn energised(self, open: bool) -> bool {
        match self {
            Self::FailSecure => open,
            Self::FailSafe => !open,
        }
    }
}

/// A command to the relay. Its answer names the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// One more than that of the last one.
    pub number: u32,
    /// On or off.
    pub energise: bool,
}

/// Where the lock is.
///
/// ```text
///            wanted open             taken
///   Locked ---------------> Granting -------> Open
///     ^                      ^   |             |
///     | taken    wanted open |   | not taken,  | not wanted open
///     |                      |   | not wanted  |
///     +---------------------- Locking <--------+
///                             |     ^ not taken: again after a moment
///                             +-----+
///
///   any -- stop --> Stopping (not taken: again) -- taken --> Stopped
/// ```
///
/// A state moves on only after the relay has answered: the lock counts as open
/// or locked once the command was taken. An answer to an earlier command than the
/// last says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Locked, as far as the relay has answered.
    Locked {
        /// When it answered.
        since: Duration,
    },
    /// Told to open, not yet answered.
    Granting {
        /// When it was told.
        told: Duration,
    },
    /// Open, as the relay has answered.
    Open,
    /// To be locked, told so or about to be.
    Locking {
        /// When it is told (again).
        due: Duration,
    },
    /// To be without power, told so or about to be.
    Stopping {
        /// When it is told (again).
        due: Duration,
    },
    /// Without power for good.
    Stopped,
}

/// What an answer brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    Opened,
    Locked,
    /// It was to open and does not.
    NotOpened,
    /// Nothing but a later try.
    Nothing,
}

#[derive(Clone, Debug)]
pub(super) struct Lock {
    kind: LockKind,
    state: State,
    /// Of the last order.
    number: u32,
    /// Whether its answer is still to come.
    waits: bool,
    /// Since when it is locked for sure: nothing may have opened it since.
    shut: Option<Duration>,
}

impl Lock {
    /// Begins by locking, whatever the relay was left at.
    pub fn new(now: Duration, kind: LockKind) -> Self {
        let state = State::Locking { due: now };
        Self { kind, state, number: 0, waits: false, shut: None }
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// Since when it is locked for sure; nothing where it is, or may be, open.
    pub fn shut(&self) -> Option<Duration> {
        self.shut
    }

    /// Whether an answer to opening is overdue.
    pub fn overdue(&self, now: Duration) -> bool {
        matches!(self.state, State::Granting { told } if now >= told + ANSWER_WITHIN)
    }

    /// The relay has answered an order.
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
            // Answered already.
            (state @ (State::Locked { .. } | State::Open | State::Stopped), _) => {
                (state, Answered::Nothing)
            }
        };
        self.state = state;
        answered
    }

    /// The relay did not open, or did not say: it may be open for all we know.
    pub fn not_opened(&mut self, now: Duration) -> Answered {
        self.state = State::Locking { due: now };
        Answered::NotOpened
    }

    /// The relay is away: what it does nobody knows, and it is told to lock once it
    /// answers. Whether it was open, or about to be.
    pub fn away(&mut self, now: Duration) -> bool {
        let opened = matches!(self.state, State::Granting { .. } | State::Open);
        if opened || matches!(self.state, State::Locked { .. }) {
            self.state = State::Locking { due: now + RETRY_AFTER };
            self.waits = false;
        }
        // Without its relay it falls to what its kind is without power.
        self.shut = self.shut.filter(|_| self.kind == LockKind::FailSecure);
        opened
    }

    /// The relay was away and is back, in a state nobody knows.
    pub fn back(&mut self, now: Duration) {
        self.state = match self.state {
            State::Stopping { .. } | State::Stopped => State::Stopping { due: now },
            // Towards open again if that is still wanted.
            State::Locked { .. } | State::Granting { .. } | State::Open | State::Locking { .. } => {
                State::Locking { due: now }
            }
        };
    }

    /// Power off for good.
    pub fn stop(&mut self, now: Duration) {
        if self.state != State::Stopped {
            self.state = State::Stopping { due: now };
        }
    }

    /// Moves towards what is wanted.
    pub fn drive(&mut self, now: Duration, open: bool) -> Option<Order> {
        let (state, energise) = match (self.state, open) {
            (State::Locked { .. } | State::Locking { .. }, true) => {
                self.shut = None;
                (State::Granting { told: now }, self.kind.energised(true))
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
