//! Whether the relay is there, and what it is told when it comes back: a state machine
//! without devices.

use crate::hardware::backoff::backoff;
use std::time::Duration;

/// Things told by one step: an answer to the order that was under way, one to the order
/// that waited, and that the relay is away, back, drifted or switched off.
const MAX_TOLD: usize = 3;

/// An order to the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its answer names it.
    pub number: u32,
    /// On or off.
    pub on: bool,
    /// For how long after it was carried out; then the relay is told to be locked, whoever
    /// gives the orders or not. The same order once more, by its number, counts that from
    /// then, and is answered only where it is not taken: while the relay is away, or where a
    /// later order came before it was looked at.
    pub at_most: Option<Duration>,
}

/// What the lock and the device are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkSettings {
    /// Whether the relay is on while the door is locked (a fail-safe lock).
    pub locked: bool,
    /// How often to look after the relay while it is off, and while it is on.
    pub check_every: [Option<Duration>; 2],
    /// A relay that is on is switched off when nothing was heard from whoever gives the
    /// orders for so long: the lock falls to what its kind promises without power.
    pub silence: Option<Duration>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing but time.
    Tick,
    /// An order.
    Order(Command),
    /// Whoever gives the orders is alive.
    Heard,
    /// Nobody listened for a while: who was not heard may have spoken.
    Overslept,
    /// The device is open.
    Opened,
    /// The relay is switched.
    Switched,
    /// The relay was looked at.
    Checked {
        /// Whether it was as told.
        as_told: bool,
    },
    /// Opening, switching or looking failed.
    Failed(String),
}

/// What to do with the device. All but closing has a result, which comes back as an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Do {
    /// Open it, at this level.
    Open(bool),
    /// Switch it.
    Switch(bool),
    /// See whether it is on or off, as told.
    Check(bool),
    /// Let go of it.
    Close,
}

/// What to tell whoever gives the orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The answer to an order.
    Answer {
        /// Which.
        order: u32,
        /// Whether the relay did as told.
        taken: bool,
        /// Why not.
        error: Option<String>,
    },
    /// The relay does not do as told; it is tried until it does. Told once, and again
    /// when the reason is another.
    Away {
        /// Why.
        error: String,
    },
    /// It is back, and locked.
    Back {
        /// How long it was away.
        away: Duration,
    },
    /// It was not as told, and is told again.
    Drifted {
        /// What it was told.
        on: bool,
    },
    /// Nothing was heard for too long: it is switched off. Like one that is back it is
    /// not as ordered.
    Abandoned,
    /// The time of the last order is over: it is locked, which nobody ordered.
    Expired,
}

/// How long the relay is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absence {
    /// Since when.
    pub since: Duration,
    /// Tries that failed.
    pub tries: u32,
}

/// Where the relay is.
///
/// ```text
///            due              opened              switched
///   Away ---------> Opening ---------> Settling ------------> Present --+
///    ^                 |  told to be locked |                  ^  |     | due
///    |                 |                    |    switched or   |  |     v
///    +---- failed -----+------ failed ------+    as told       |  |  Checking
///    |                                           +-------------+  |     |
///    |                                           |          order |     | not as told
///    +------------- failed ----------------- Switching <----------+-----+
/// ```
///
/// An order whose time is over ends like one to be locked, which nobody answers to.
///
/// While it is away, every order is answered at once: not taken. While the device is
/// at work, the newest order waits and the one before it is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not there.
    Away {
        /// Since when.
        absence: Absence,
        /// When to try again.
        due: Duration,
    },
    /// Told to open.
    Opening(Absence),
    /// Open, and told to be locked.
    Settling(Absence),
    /// There, and as told.
    Present {
        /// What it was told.
        on: bool,
        /// When to look after it.
        due: Option<Duration>,
    },
    /// Told to switch.
    Switching {
        /// By this order; or told again what it was told before.
        order: Option<u32>,
        /// What it is told.
        on: bool,
    },
    /// Looked at.
    Checking {
        /// What it was told.
        on: bool,
    },
}

/// What follows of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// For the device.
    pub device: Option<Do>,
    /// For whoever gives the orders, in order.
    pub told: heapless::Vec<Told, MAX_TOLD>,
}

/// The way to the relay.
#[derive(Clone, Debug)]
pub struct Link {
    settings: LinkSettings,
    state: State,
    /// The newest order, while the device is at work.
    waiting: Option<Command>,
    /// The last order that was, or is being, carried out.
    current: Option<Command>,
    /// When its time is over.
    until: Option<Duration>,
    /// When something was heard from whoever gives the orders. Who has not spoken yet
    /// cannot fall silent: reading models and people takes its time.
    heard: Option<Duration>,
    /// Why it is away, as told last.
    reason: Option<String>,
}

impl Link {
    /// Begins without a device; the first tick opens it.
    pub fn new(now: Duration, settings: LinkSettings) -> Self {
        let absence = Absence { since: now, tries: 0 };
        let state = State::Away { absence, due: now };
        Self {
            settings,
            state,
            waiting: None,
            current: None,
            until: None,
            heard: None,
            reason: None,
        }
    }

    /// Where the relay is.
    pub fn state(&self) -> State {
        self.state
    }

    /// When the next tick is due.
    pub fn due(&self) -> Option<Duration> {
        match self.state {
            State::Away { due, .. } => Some(due),
            State::Present { on, due } => {
                let silence = self.settings.silence.filter(|_| on);
                let silent = silence.zip(self.heard).map(|(silence, heard)| heard + silence);
                let ends = self.until.filter(|_| on != self.settings.locked);
                due.into_iter().chain(silent).chain(ends).min()
            }
            // The device's answer is due.
            State::Opening(_)
            | State::Settling(_)
            | State::Switching { .. }
            | State::Checking { .. } => None,
        }
    }

    /// Takes one event at a time on a clock that does not run backwards.
    pub fn step(&mut self, now: Duration, event: Event) -> Actions {
        let mut actions = Actions::default();
        match (self.state, event) {
            (_, Event::Heard) => self.heard = Some(now),
            (_, Event::Overslept) => self.heard = self.heard.map(|_| now),
            (state, Event::Order(command)) => {
                self.heard = Some(now);
                self.order(now, state, command, &mut actions);
            }
            (State::Away { absence, due }, Event::Tick) if now >= due => {
                self.state = State::Opening(absence);
                actions.device = Some(Do::Open(self.settings.locked));
            }
            (State::Present { on, .. }, Event::Tick) if self.expired(now, on) => {
                tell(&mut actions, Told::Expired);
                self.switch(None, self.settings.locked, &mut actions);
            }
            (State::Present { on: true, .. }, Event::Tick) if self.abandoned(now) => {
                tell(&mut actions, Told::Abandoned);
                self.switch(None, false, &mut actions);
            }
            (State::Present { on, due: Some(due) }, Event::Tick) if now >= due => {
                self.state = State::Checking { on };
                actions.device = Some(Do::Check(on));
            }
            (State::Opening(absence), Event::Opened) => {
                self.state = State::Settling(absence);
                actions.device = Some(Do::Switch(self.settings.locked));
            }
            (State::Settling(absence), Event::Switched) => {
                if self.reason.take().is_some() {
                    let away = now.saturating_sub(absence.since);
                    tell(&mut actions, Told::Back { away });
                }
                self.settle(now, self.settings.locked, &mut actions);
            }
            (State::Switching { order, on }, Event::Switched) => {
                if let Some(order) = order {
                    self.count_from(now);
                    tell(&mut actions, Told::Answer { order, taken: true, error: None });
                }
                self.settle(now, on, &mut actions);
            }
            (State::Checking { on }, Event::Checked { as_told: true }) => {
                self.settle(now, on, &mut actions);
            }
            (State::Checking { on }, Event::Checked { as_told: false }) => {
                tell(&mut actions, Told::Drifted { on });
                match self.waiting.take() {
                    Some(command) => self.follow(command, &mut actions),
                    None => self.switch(None, on, &mut actions),
                }
            }
            (State::Opening(absence) | State::Settling(absence), Event::Failed(error)) => {
                let absence = Absence { tries: absence.tries.saturating_add(1), ..absence };
                self.fail(now, absence, None, error, &mut actions);
            }
            (State::Switching { order, .. }, Event::Failed(error)) => {
                self.fail(now, Absence { since: now, tries: 1 }, order, error, &mut actions);
            }
            (State::Checking { .. }, Event::Failed(error)) => {
                self.fail(now, Absence { since: now, tries: 1 }, None, error, &mut actions);
            }
            // Not yet, or the device is at work.
            (_, Event::Tick) => {}
            // A result nobody waits for.
            (_, Event::Opened | Event::Switched | Event::Checked { .. } | Event::Failed(_)) => {}
        }
        actions
    }

    fn order(&mut self, now: Duration, state: State, command: Command, actions: &mut Actions) {
        match state {
            State::Away { absence, .. } => {
                let away = now.saturating_sub(absence.since).as_secs();
                let reason = self.reason.as_deref().unwrap_or("not opened yet");
                let error = format!("the relay is away since {away} s: {reason}");
                not_taken(actions, command.number, error);
            }
            _ if self.current.is_some_and(|current| current.number == command.number) => {
                self.current = Some(command);
                // One under way counts from its end.
                if !matches!(state, State::Switching { order: Some(_), .. }) {
                    self.count_from(now);
                }
            }
            State::Present { .. } => self.follow(command, actions),
            State::Opening(_)
            | State::Settling(_)
            | State::Switching { .. }
            | State::Checking { .. } => {
                if let Some(before) = self.waiting.replace(command) {
                    not_taken(actions, before.number, "a later order counts".to_owned());
                }
            }
        }
    }

    fn count_from(&mut self, now: Duration) {
        let at_most = self.current.and_then(|current| current.at_most);
        self.until = at_most.map(|at_most| now.saturating_add(at_most));
    }

    fn expired(&self, now: Duration, on: bool) -> bool {
        on != self.settings.locked && self.until.is_some_and(|until| now >= until)
    }

    fn follow(&mut self, command: Command, actions: &mut Actions) {
        self.current = Some(command);
        self.until = None;
        self.switch(Some(command.number), command.on, actions);
    }

    fn abandoned(&self, now: Duration) -> bool {
        let silence = self.settings.silence.zip(self.heard);
        silence.is_some_and(|(silence, heard)| now >= heard + silence)
    }

    fn switch(&mut self, order: Option<u32>, on: bool, actions: &mut Actions) {
        self.state = State::Switching { order, on };
        actions.device = Some(Do::Switch(on));
    }

    /// The relay is as told; now the order that waited.
    fn settle(&mut self, now: Duration, on: bool, actions: &mut Actions) {
        let due = self.settings.check_every[usize::from(on)].map(|every| now + every);
        self.state = State::Present { on, due };
        if let Some(command) = self.waiting.take() {
            self.follow(command, actions);
        }
    }

    fn fail(
        &mut self,
        now: Duration,
        absence: Absence,
        order: Option<u32>,
        error: String,
        actions: &mut Actions,
    ) {
        let waiting = self.waiting.take().map(|command| command.number);
        for order in order.into_iter().chain(waiting) {
            not_taken(actions, order, error.clone());
        }
        self.state = State::Away { absence, due: now + backoff(absence.tries) };
        actions.device = Some(Do::Close);
        if self.reason.as_ref() != Some(&error) {
            tell(actions, Told::Away { error: error.clone() });
            self.reason = Some(error);
        }
    }
}

fn not_taken(actions: &mut Actions, order: u32, error: String) {
    tell(actions, Told::Answer { order, taken: false, error: Some(error) });
}

fn tell(actions: &mut Actions, told: Told) {
    // There is room for all that one step can bring about.
    let pushed = actions.told.push(told);
    debug_assert!(pushed.is_ok(), "more to tell than a step can have: {pushed:?}");
}

#[cfg(test)]
mod tests;
