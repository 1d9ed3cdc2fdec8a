//! Connection to the relay: whether it is reachable, when to retry, and its state on its
//! return. A state machine without devices.

use crate::hardware::backoff::Backoff;
use std::time::Duration;

/// Most reports of one step: the answers to the order under way and to the waiting one,
/// and one change of the relay itself.
const MAX_EVENTS: usize = 3;

/// An order to the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// Order number, repeated in the answer.
    pub number: u32,
    /// Relay on or off.
    pub on: bool,
    /// Maximum on-time, counted from when the order was carried out; then the relay locks
    /// by itself. `None`: no limit. Repeating the order number restarts it; a repetition
    /// is answered only if it is refused, because the relay is unreachable or a later
    /// order came first.
    pub at_most: Option<Duration>,
}

/// Settings of the lock and the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkSettings {
    /// State of the relay while the door is locked: on for a fail-safe lock.
    pub locked: bool,
    /// Check interval while the relay is off, and while it is on; `None`: no checks.
    pub check_every: [Option<Duration>; 2],
    /// Longest silence of the service before a relay that is on is switched off. The lock
    /// then does what its kind does without power. `None`: no limit.
    pub silence: Option<Duration>,
}

/// An event of the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// An order arrived.
    Order(Command),
    /// The service gave a sign of life.
    Heard,
    /// The relay thread was suspended, so signs of life may have been missed.
    Overslept,
    /// The device is open.
    Opened,
    /// The relay was switched.
    Switched,
    /// The relay's state was read.
    Checked {
        /// Whether it is as ordered.
        as_ordered: bool,
    },
    /// Opening, switching or checking failed, with the fault.
    Failed(String),
}

/// An action on the device. The result of each comes back as an event, except for
/// `Close`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceAction {
    /// Open it at this level.
    Open(bool),
    /// Switch it on or off.
    Switch(bool),
    /// Check whether it is in this state.
    Check(bool),
    /// Release it.
    Close,
}

/// A report to the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayEvent {
    /// The answer to an order.
    Answer {
        /// Number of the order.
        order: u32,
        /// Whether the relay carried it out.
        taken: bool,
        /// The fault if it did not.
        error: Option<String>,
    },
    /// The relay is unreachable and is retried until it works. Reported once per fault.
    Away {
        /// The fault.
        error: String,
    },
    /// The relay is reachable again, and locked.
    Back {
        /// How long it was unreachable.
        away: Duration,
    },
    /// The relay was in another state than ordered and is switched again.
    Drifted {
        /// The ordered state.
        on: bool,
    },
    /// The service was silent for too long, and the relay is switched off. Like after
    /// `Back`, its state differs from the last order.
    Abandoned,
    /// The maximum on-time of the last order is over; the relay locks without an order.
    Expired,
}

/// A period in which the relay is unreachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absence {
    /// Start of the period.
    pub since: Duration,
    /// Failed attempts.
    pub tries: u32,
}

/// State of the relay.
///
/// ```text
///            due              opened              switched
///   Away ---------> Opening ---------> Settling ------------> Present --+
///    ^                 |  switch to locked  |                  ^  |     | due
///    |                 |                    |    switched or   |  |     v
///    +---- failed -----+------ failed ------+    as set        |  |  Checking
///    |                                           +-------------+  |     |
///    |                                           |          order |     | not as set
///    +------------- failed ----------------- Switching <----------+-----+
/// ```
///
/// When the on-time of an order is over, the relay is locked as if by an order that gets
/// no answer.
///
/// While the relay is away, every order is refused at once. While the device is busy,
/// only the newest order waits; the one before it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Unreachable.
    Away {
        /// The period of absence.
        absence: Absence,
        /// Time of the next attempt.
        due: Duration,
    },
    /// Being opened.
    Opening(Absence),
    /// Open, and being switched to locked.
    Settling(Absence),
    /// Reachable, and in the ordered state.
    Present {
        /// The ordered state.
        on: bool,
        /// Time of the next check.
        due: Option<Duration>,
    },
    /// Being switched.
    Switching {
        /// Number of the order; `None` if the link switches without an order.
        order: Option<u32>,
        /// The new state.
        on: bool,
    },
    /// Being checked.
    Checking {
        /// The ordered state.
        on: bool,
    },
}

/// Result of one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Action for the device.
    pub device: Option<DeviceAction>,
    /// Reports for the service, in order.
    pub events: heapless::Vec<RelayEvent, MAX_EVENTS>,
}

/// The link to the relay.
#[derive(Clone, Debug)]
pub struct Link {
    settings: LinkSettings,
    state: State,
    /// The newest order, while the device is busy.
    waiting: Option<Command>,
    /// The order that was carried out last, or is being carried out.
    current: Option<Command>,
    /// End of its maximum on-time.
    until: Option<Duration>,
    /// Last sign of life of the service. `None` before the first one, when silence does
    /// not count: loading models takes its time.
    heard: Option<Duration>,
    /// The fault reported last.
    reason: Option<String>,
}

impl Link {
    /// A link without an open device; the first tick opens it.
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

    /// State of the relay.
    pub fn state(&self) -> State {
        self.state
    }

    /// When the next tick is due; `None` while the device is busy or nothing is due.
    pub fn due(&self) -> Option<Duration> {
        match self.state {
            State::Away { due, .. } => Some(due),
            State::Present { on, due } => {
                let silence = self.settings.silence.filter(|_| on);
                let silent = silence.zip(self.heard).map(|(silence, heard)| heard + silence);
                let ends = self.until.filter(|_| on != self.settings.locked);
                due.into_iter().chain(silent).chain(ends).min()
            }
            // The device's result comes first.
            State::Opening(_)
            | State::Settling(_)
            | State::Switching { .. }
            | State::Checking { .. } => None,
        }
    }

    /// Takes one event and returns the output. `now` is on a clock that never runs
    /// backwards.
    pub fn step(&mut self, now: Duration, input: Input) -> Output {
        let mut output = Output::default();
        match (self.state, input) {
            (_, Input::Heard) => self.heard = Some(now),
            (_, Input::Overslept) => self.heard = self.heard.map(|_| now),
            (state, Input::Order(command)) => {
                self.heard = Some(now);
                self.order(now, state, command, &mut output);
            }
            (State::Away { absence, due }, Input::Tick) if now >= due => {
                self.state = State::Opening(absence);
                output.device = Some(DeviceAction::Open(self.settings.locked));
            }
            (State::Present { on, .. }, Input::Tick) if self.expired(now, on) => {
                tell(&mut output, RelayEvent::Expired);
                self.switch(None, self.settings.locked, &mut output);
            }
            (State::Present { on: true, .. }, Input::Tick) if self.abandoned(now) => {
                tell(&mut output, RelayEvent::Abandoned);
                self.switch(None, false, &mut output);
            }
            (State::Present { on, due: Some(due) }, Input::Tick) if now >= due => {
                self.state = State::Checking { on };
                output.device = Some(DeviceAction::Check(on));
            }
            (State::Opening(absence), Input::Opened) => {
                self.state = State::Settling(absence);
                output.device = Some(DeviceAction::Switch(self.settings.locked));
            }
            (State::Settling(absence), Input::Switched) => {
                if self.reason.take().is_some() {
                    let away = now.saturating_sub(absence.since);
                    tell(&mut output, RelayEvent::Back { away });
                }
                self.settle(now, self.settings.locked, &mut output);
            }
            (State::Switching { order, on }, Input::Switched) => {
                if let Some(order) = order {
                    self.count_from(now);
                    tell(&mut output, RelayEvent::Answer { order, taken: true, error: None });
                }
                self.settle(now, on, &mut output);
            }
            (State::Checking { on }, Input::Checked { as_ordered: true }) => {
                self.settle(now, on, &mut output);
            }
            (State::Checking { on }, Input::Checked { as_ordered: false }) => {
                tell(&mut output, RelayEvent::Drifted { on });
                match self.waiting.take() {
                    Some(command) => self.follow(command, &mut output),
                    None => self.switch(None, on, &mut output),
                }
            }
            (State::Opening(absence) | State::Settling(absence), Input::Failed(error)) => {
                let absence = Absence { tries: absence.tries.saturating_add(1), ..absence };
                self.fail(now, absence, None, error, &mut output);
            }
            (State::Switching { order, .. }, Input::Failed(error)) => {
                self.fail(now, Absence { since: now, tries: 1 }, order, error, &mut output);
            }
            (State::Checking { .. }, Input::Failed(error)) => {
                self.fail(now, Absence { since: now, tries: 1 }, None, error, &mut output);
            }
            // Not due yet, or the device is busy.
            (_, Input::Tick) => {}
            // A result without a request.
            (_, Input::Opened | Input::Switched | Input::Checked { .. } | Input::Failed(_)) => {}
        }
        output
    }

    fn order(&mut self, now: Duration, state: State, command: Command, output: &mut Output) {
        match state {
            State::Away { absence, .. } => {
                let away = now.saturating_sub(absence.since).as_secs();
                let reason = self.reason.as_deref().unwrap_or("not opened yet");
                let error = format!("the relay has been unreachable for {away} seconds: {reason}");
                not_taken(output, command.number, error);
            }
            _ if self.current.is_some_and(|current| current.number == command.number) => {
                self.current = Some(command);
                // The on-time of an order under way starts when it is done.
                if !matches!(state, State::Switching { order: Some(_), .. }) {
                    self.count_from(now);
                }
            }
            State::Present { .. } => self.follow(command, output),
            State::Opening(_)
            | State::Settling(_)
            | State::Switching { .. }
            | State::Checking { .. } => {
                if let Some(before) = self.waiting.replace(command) {
                    not_taken(output, before.number, "superseded by a later order".to_owned());
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

    fn follow(&mut self, command: Command, output: &mut Output) {
        self.current = Some(command);
        self.until = None;
        self.switch(Some(command.number), command.on, output);
    }

    fn abandoned(&self, now: Duration) -> bool {
        let silence = self.settings.silence.zip(self.heard);
        silence.is_some_and(|(silence, heard)| now >= heard + silence)
    }

    fn switch(&mut self, order: Option<u32>, on: bool, output: &mut Output) {
        self.state = State::Switching { order, on };
        output.device = Some(DeviceAction::Switch(on));
    }

    /// The relay is as ordered; the waiting order is next.
    fn settle(&mut self, now: Duration, on: bool, output: &mut Output) {
        let due = self.settings.check_every[usize::from(on)].map(|every| now + every);
        self.state = State::Present { on, due };
        if let Some(command) = self.waiting.take() {
            self.follow(command, output);
        }
    }

    fn fail(
        &mut self,
        now: Duration,
        absence: Absence,
        order: Option<u32>,
        error: String,
        output: &mut Output,
    ) {
        let waiting = self.waiting.take().map(|command| command.number);
        for order in order.into_iter().chain(waiting) {
            not_taken(output, order, error.clone());
        }
        self.state = State::Away { absence, due: Backoff::DEVICE.due(now, absence.tries) };
        output.device = Some(DeviceAction::Close);
        if self.reason.as_ref() != Some(&error) {
            tell(output, RelayEvent::Away { error: error.clone() });
            self.reason = Some(error);
        }
    }
}

fn not_taken(output: &mut Output, order: u32, error: String) {
    tell(output, RelayEvent::Answer { order, taken: false, error: Some(error) });
}

fn tell(output: &mut Output, event: RelayEvent) {
    // One step cannot report more than this.
    let pushed = output.events.push(event);
    debug_assert!(pushed.is_ok(), "more to tell than a step can have: {pushed:?}");
}

#[cfg(test)]
mod tests;
