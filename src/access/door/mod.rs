//! The door as a state machine: it decides who may come in now, gives orders to the relay
//! and interprets the door contact.
//!
//! It combines three state machines: the lock ([`State`]), the leaf ([`Leaf`]) and the mode
//! ([`Mode`]). Reasons to hold the lock open are claims, each with its end:
//!
//! ```text
//!   wanted open =  exit claim
//!               or mode is not lockdown, and: always open, or grant claim
//!
//!   grant claim: a known person, or the command "open";   for `open_for`
//!   exit claim:  request to exit; no mode cancels it;     for `exit_for`
//!   each counts from the relay's answer, or from now if the lock is open already
//! ```

mod hold_open;
mod interface;
mod leaf;
mod lock;
mod passback;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use interface::{Command, Event, Input, Mode, Output, Refusal};
pub use leaf::{Alarm, Leaf};
pub use lock::{LockKind, Order, State};
pub use passback::{AntiPassback, PassbackSettings, Role, SavedPassage};

use crate::access::gallery::PersonId;
use crate::access::schedule::Admission;
use hold_open::HoldOpen;
use interface::MAX_PASSING;
use leaf::LAST_PULL;
use lock::{Answered, Lock};
use passback::Passback;
use std::time::Duration;

/// Delay of "always open" after the relay failed to open: the door stays locked
/// meanwhile.
const OPEN_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Settings of a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoorSettings {
    /// Fail-secure or fail-safe.
    pub lock: LockKind,
    /// How long a grant unlocks the door.
    pub open_for: Duration,
    /// How long a request to exit unlocks the door.
    pub exit_for: Duration,
    /// Whether to lock as soon as the door has closed behind somebody.
    pub lock_when_closed: bool,
    /// Time after which an open door counts as held open.
    pub held_open_after: Duration,
    /// A duress gesture applies to a person recognized within this time before or after it.
    pub duress_within: Duration,
    /// Anti-passback.
    pub passback: PassbackSettings,
}

impl Default for DoorSettings {
    fn default() -> Self {
        Self {
            lock: LockKind::default(),
            open_for: Duration::from_secs(3),
            exit_for: Duration::from_secs(3),
            lock_when_closed: true,
            held_open_after: Duration::from_secs(30),
            duress_within: Duration::from_secs(10),
            passback: PassbackSettings::default(),
        }
    }
}

/// State machine of one door.
#[derive(Clone, Debug)]
pub struct Door {
    settings: DoorSettings,
    lock: Lock,
    leaf: Leaf,
    /// When the leaf was last opened.
    leaf_opened: Duration,
    lockdown: bool,
    always_open: bool,
    open_hours: bool,
    /// Always open does not open the door before this time.
    open_again: Duration,
    grant: HoldOpen,
    exit: HoldOpen,
    passback: Passback,
    /// Admitted people who have not passed yet.
    passing: heapless::Vec<PersonId, MAX_PASSING>,
    /// Until when the last duress gesture counts.
    duress_until: Option<Duration>,
    /// The person recognized last, and when.
    last: Option<(PersonId, Duration)>,
}

impl Door {
    /// Starts with an order to lock: the state that the relay was left in is unknown.
    pub fn new(now: Duration, settings: DoorSettings) -> (Self, Output) {
        let mut door = Self {
            settings,
            lock: Lock::new(now, settings.lock),
            leaf: Leaf::Unknown,
            leaf_opened: now,
            lockdown: false,
            always_open: false,
            open_hours: false,
            open_again: now,
            grant: HoldOpen::None,
            exit: HoldOpen::None,
            passback: Passback::default(),
            passing: heapless::Vec::new(),
            duress_until: None,
            last: None,
        };
        let relay = door.lock.drive(now, false);
        (door, Output { relay, ..Output::default() })
    }

    /// Applies new settings. The state of the door stays, lockdown included. [`DoorSettings::lock`] is ignored: changing it requires a new [`Door`].
    pub fn set_settings(&mut self, settings: DoorSettings) {
        self.settings = DoorSettings { lock: self.settings.lock, ..settings };
    }

    /// The passages that anti-passback has not forgotten.
    pub fn passages(&self, now: Duration) -> Vec<SavedPassage> {
        match self.settings.passback.rule {
            AntiPassback::Off => Vec::new(),
            _ => self.passback.saved(now, self.settings.passback.forget),
        }
    }

    /// Whether a duress gesture counts for the next person who is recognized.
    pub fn under_duress(&self, now: Duration) -> bool {
        self.duress_until.is_some_and(|until| now < until)
    }

    /// Number of passages recorded so far.
    pub fn passages_recorded(&self) -> u64 {
        self.passback.changes()
    }

    /// State of the lock.
    pub fn state(&self) -> State {
        self.lock.state()
    }

    /// Whether the relay is energised while the door is locked.
    pub fn idle(&self) -> bool {
        self.settings.lock.energised(false)
    }

    /// Latest time until which the lock is wanted open, as far as known now. `None` while
    /// always open; zero if nothing has claimed the lock.
    pub fn open_until(&self) -> Option<Duration> {
        if matches!(self.mode(), Mode::AlwaysOpen { .. }) {
            return None;
        }
        let grant = if self.lockdown { HoldOpen::None } else { self.grant };
        Some(grant.until().max(self.exit.until()).unwrap_or_default())
    }

    /// State of the door leaf.
    pub fn leaf(&self) -> Leaf {
        self.leaf
    }

    /// Current mode.
    pub fn mode(&self) -> Mode {
        match (self.lockdown, self.always_open, self.open_hours) {
            (true, ..) => Mode::Lockdown,
            (false, true, _) => Mode::AlwaysOpen { by_schedule: false },
            (false, false, true) => Mode::AlwaysOpen { by_schedule: true },
            (false, false, false) => Mode::Normal,
        }
    }

    /// Takes one event. `now` is on a clock that never runs backwards.
    pub fn step(&mut self, now: Duration, input: Input) -> Output {
        let mut output = Output::default();
        let (mode, alarm) = (self.mode(), self.leaf.alarm());
        self.elapse(now, &mut output);
        if matches!(self.state(), State::Stopping { .. } | State::Stopped) {
            self.step_stopped(now, input, &mut output);
        } else {
            self.take(now, input, &mut output);
        }
        // Again: the event may have changed the mode.
        self.elapse_leaf(now);
        if self.mode() != mode {
            report(&mut output, Event::Mode(self.mode()));
        }
        if self.leaf.alarm() != alarm {
            if let Some(alarm) = alarm {
                report(&mut output, Event::AlarmEnded(alarm));
            }
            if let Some(alarm) = self.leaf.alarm() {
                report(&mut output, Event::Alarm(alarm));
            }
        }
        output.relay = self.lock.drive(now, self.wanted_open(now));
        output
    }

    fn wanted_open(&self, now: Duration) -> bool {
        let always = matches!(self.mode(), Mode::AlwaysOpen { .. }) && now >= self.open_again;
        let grant = !self.lockdown && self.grant.holds(now);
        always || grant || self.exit.holds(now)
    }

    /// Applies timeouts.
    fn elapse(&mut self, now: Duration, output: &mut Output) {
        match self.state() {
            State::Granting { .. } if self.lock.overdue(now) => {
                report(output, Event::NoAnswer);
                self.lock.not_opened(now);
                self.give_up(now);
            }
            // Nobody opened the door.
            State::Locked { since } if now >= since + LAST_PULL => self.passing.clear(),
            _ => {}
        }
        self.elapse_leaf(now);
    }

    fn elapse_leaf(&mut self, now: Duration) {
        let always = matches!(self.mode(), Mode::AlwaysOpen { .. });
        self.leaf = self.leaf.elapse(now, self.settings.held_open_after, always);
    }

    fn take(&mut self, now: Duration, input: Input, output: &mut Output) {
        match input {
            Input::Known { person, admission, locked_out } => {
                self.known(now, person, (admission, locked_out), output);
            }
            Input::Exit => {
                report(output, Event::Exit);
                self.exit = self.claim(now, self.settings.exit_for);
            }
            Input::Duress => self.duress(now, output),
            Input::Opened => self.opened(now, output),
            Input::Closed => self.closed(),
            Input::Command(command) => self.command(now, command, output),
            Input::OpenHours(open) => self.open_hours = open,
            Input::Passed { person, role, ago } => {
                self.passback.passed(now, ago, person, role);
            }
            Input::Answer { order, taken } => self.answer(now, order, taken, output),
            Input::RelayAway => {
                if self.lock.away(now) {
                    self.give_up(now);
                }
            }
            Input::RelayBack => {
                report(output, Event::RelayBack);
                self.lock.back(now);
            }
            Input::Tick => {}
            Input::Stop => self.lock.stop(now),
        }
    }

    /// The service is ending: only de-energising the relay still matters.
    fn step_stopped(&mut self, now: Duration, input: Input, output: &mut Output) {
        match input {
            Input::Answer { order, taken } => self.answer(now, order, taken, output),
            Input::RelayBack => self.lock.back(now),
            Input::Known { person, .. } => {
                report(output, Event::NotGranted { person, why: Refusal::Stopped });
            }
            Input::Command(Command::Open) => {
                report(output, Event::NotOpenedByCommand(Refusal::Stopped));
            }
            Input::Exit | Input::Duress | Input::Opened | Input::Closed => {}
            Input::RelayAway => {}
            Input::Command(_) | Input::OpenHours(_) | Input::Passed { .. } => {}
            Input::Tick | Input::Stop => {}
        }
    }

    fn known(
        &mut self,
        now: Duration,
        person: PersonId,
        (admission, locked_out): (Admission, Option<Duration>),
        output: &mut Output,
    ) {
        let forced = self.duress_until.take().is_some_and(|until| now < until);
        self.last = Some((person, now));
        let again = self.passback.again(now, person, &self.settings.passback);
        let hard = self.settings.passback.rule == AntiPassback::Hard;
        let why = if self.lockdown {
            Some(Refusal::Lockdown)
        } else if let Some(left) = locked_out {
            Some(Refusal::LockedOut { left })
        } else if !admission.admitted() {
            Some(Refusal::Schedule(admission))
        } else if again && hard && !forced {
            // Under duress the door opens all the same.
            Some(Refusal::PassedAlready)
        } else {
            None
        };
        report(
            output,
            match why {
                Some(why) => Event::NotGranted { person, why },
                None => Event::Granted { person, admission, again },
            },
        );
        if forced {
            report(output, Event::Duress { person });
        }
        if why.is_some() {
            return;
        }
        self.grant = self.claim(now, self.settings.open_for);
        if !self.passing.contains(&person) {
            // If there are more, the earliest have passed already.
            if self.passing.is_full() {
                self.passing.remove(0);
            }
            let _ = self.passing.push(person);
        }
        if self.state() == State::Open && self.leaf != Leaf::Closed {
            self.passed(now, output);
        }
    }

    fn command(&mut self, now: Duration, command: Command, output: &mut Output) {
        match command {
            Command::Open if self.lockdown => {
                report(output, Event::NotOpenedByCommand(Refusal::Lockdown));
            }
            Command::Open => {
                report(output, Event::OpenedByCommand);
                self.grant = self.claim(now, self.settings.open_for);
            }
            Command::Lockdown => {
                self.lockdown = true;
                self.always_open = false;
                self.grant = HoldOpen::None;
                self.passing.clear();
            }
            // Only the command "normal" ends lockdown.
            Command::AlwaysOpen if self.lockdown => {
                report(output, Event::NotOpenedByCommand(Refusal::Lockdown));
            }
            Command::AlwaysOpen => {
                self.always_open = true;
                self.open_again = now;
            }
            Command::Normal => (self.lockdown, self.always_open) = (false, false),
        }
    }

    /// A claim that counts from `made` if the lock is open, else from the relay's answer.
    fn claim(&self, made: Duration, lasts: Duration) -> HoldOpen {
        let claim = HoldOpen::Asked { made, lasts };
        if self.state() == State::Open { claim.answered(made) } else { claim }
    }

    fn answer(&mut self, now: Duration, order: u32, taken: bool, output: &mut Output) {
        match self.lock.answer(now, order, taken) {
            Answered::Opened => {
                report(output, Event::Unlocked);
                self.grant = self.grant.answered(now);
                self.exit = self.exit.answered(now);
                if self.leaf != Leaf::Closed {
                    self.passed(now, output);
                }
            }
            Answered::Locked
                if self.state() == State::Stopped && self.settings.lock == LockKind::FailSafe =>
            {
                report(output, Event::Released);
            }
            Answered::Locked => report(output, Event::Locked),
            Answered::NotOpened => self.give_up(now),
            Answered::Nothing => {}
        }
    }

    /// The relay did not open: drops all claims, so that people have to ask again.
    fn give_up(&mut self, now: Duration) {
        (self.grant, self.exit) = (HoldOpen::None, HoldOpen::None);
        self.passing.clear();
        self.open_again = now + OPEN_AGAIN_AFTER;
    }

    fn opened(&mut self, now: Duration, output: &mut Output) {
        // The relay may have opened without answering, or may not have locked yet.
        let rightly = self.lock.shut().is_none_or(|since| now < since + LAST_PULL);
        if !self.leaf.is_open() {
            self.leaf_opened = now;
        }
        self.leaf = self.leaf.opened(now, rightly);
        if rightly {
            self.passed(now, output);
        }
    }

    fn closed(&mut self) {
        if self.settings.lock_when_closed && self.leaf.is_open() {
            // Nobody knows who went through. End the grant first, so that a person who came
            // in does not lock in a person who asked to leave.
            let granted = self.grant.holds(self.leaf_opened);
            let grant = self.grant.used(self.leaf_opened);
            if !granted || grant == self.grant {
                self.exit = self.exit.used(self.leaf_opened);
            }
            self.grant = grant;
        }
        self.leaf = Leaf::Closed;
    }

    /// Everybody who was admitted has passed.
    fn passed(&mut self, now: Duration, output: &mut Output) {
        let passing = core::mem::take(&mut self.passing);
        let Some(role) = self.settings.passback.role else { return };
        for person in passing {
            self.passback.passed(now, Duration::ZERO, person, role);
            report(output, Event::Passed { person, role });
        }
    }

    fn duress(&mut self, now: Duration, output: &mut Output) {
        let within = self.settings.duress_within;
        match self.last {
            Some((person, at)) if now < at + within => {
                self.last = None;
                report(output, Event::Duress { person });
            }
            _ => self.duress_until = Some(now + within),
        }
    }
}

fn report(output: &mut Output, event: Event) {
    // `MAX_NOTES` is enough for any step.
    let pushed = output.events.push(event);
    debug_assert!(pushed.is_ok(), "no room for another event in this step: {event:?}");
}
