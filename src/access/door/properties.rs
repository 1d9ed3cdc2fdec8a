//! Properties that hold after any sequence of events, for each kind of lock. They are
//! checked against a record of the events that is independent of the door.

use super::lock::ANSWER_WITHIN;
use super::*;
use crate::access::schedule::Admission;
use proptest::prelude::*;

const OPEN_FOR: Duration = Duration::from_secs(3);
const EXIT_FOR: Duration = Duration::from_secs(4);
const FORGET: Duration = Duration::from_secs(60);

/// A random input.
#[derive(Clone, Copy, Debug)]
enum Happens {
    /// An event at the door.
    Input(Input),
    /// The relay answers the last order: carried out or not.
    Answers(bool),
    /// An answer to an arbitrary order.
    Noise(u32, bool),
}

fn happens() -> impl Strategy<Value = Happens> {
    let person = || (1u32..4).prop_map(PersonId);
    let admission = prop::sample::select(vec![
        Admission::Always,
        Admission::WithinHours,
        Admission::OutsideHours,
        Admission::ClockUnsureRefused,
    ]);
    let role = prop::sample::select(vec![Role::In, Role::Out]);
    let command = prop::sample::select(vec![
        Command::Open,
        Command::Lockdown,
        Command::AlwaysOpen,
        Command::Normal,
        Command::Normal,
    ]);
    let plain = prop::sample::select(vec![
        Input::Exit,
        Input::Duress,
        Input::Opened,
        Input::Closed,
        Input::RelayAway,
        Input::RelayBack,
        Input::Tick,
    ]);
    prop_oneof![
        4 => (person(), admission, prop::option::weighted(0.2, Just(Duration::from_secs(5))))
            .prop_map(|(person, admission, locked_out)| {
                Happens::Input(Input::Known { person, admission, locked_out })
            }),
        4 => plain.prop_map(Happens::Input),
        2 => command.prop_map(|command| Happens::Input(Input::Command(command))),
        1 => any::<bool>().prop_map(|open| Happens::Input(Input::OpenHours(open))),
        1 => (person(), role, prop_oneof![Just(0), 0u64..2 * FORGET.as_secs()]).prop_map(
            |(person, role, ago)| {
                let ago = Duration::from_secs(ago);
                Happens::Input(Input::Passed { person, role, ago })
            }
        ),
        8 => prop::bool::weighted(0.7).prop_map(Happens::Answers),
        1 => (0u32..20, any::<bool>()).prop_map(|(order, taken)| Happens::Noise(order, taken)),
    ]
}

/// The door and the independent record of its events.
struct Record {
    settings: DoorSettings,
    door: Door,
    now: Duration,
    last: Order,
    /// Answer to the last order, if there was one.
    answered: Option<bool>,
    /// The relay became unreachable after the last order, which therefore no longer counts.
    void: bool,
    lockdown: bool,
    always_open: bool,
    open_hours: bool,
    /// Time of the last grant or command to open.
    granted: Option<Duration>,
    exit: Option<Duration>,
    duress: Option<Duration>,
    /// Direction and time of each person's last passage. Milliseconds of the clock;
    /// negative if before it began.
    passed: std::collections::BTreeMap<PersonId, (Role, i64)>,
    contact_open: bool,
    /// Time since which the lock is certainly locked.
    shut: Option<Duration>,
}

impl Record {
    fn new(settings: DoorSettings) -> Self {
        let (door, output) = Door::new(Duration::ZERO, settings);
        let last = output.relay.expect("an order to lock");
        assert_eq!(last.energise, settings.lock == LockKind::FailSafe);
        Self {
            settings,
            door,
            now: Duration::ZERO,
            last,
            answered: None,
            void: false,
            lockdown: false,
            always_open: false,
            open_hours: false,
            granted: None,
            exit: None,
            duress: None,
            passed: Default::default(),
            contact_open: false,
            shut: None,
        }
    }

    fn ordered_to_open(&self) -> bool {
        let open = match self.settings.lock {
            LockKind::FailSecure => self.last.energise,
            LockKind::FailSafe => !self.last.energise,
        };
        open && !self.void
    }

    fn always(&self) -> bool {
        !self.lockdown && (self.always_open || self.open_hours)
    }

    /// Whether a recorded grant, exit or command allows the door to be open now.
    fn may_be_open(&self) -> bool {
        let within = |at: Option<Duration>, lasts: Duration| {
            at.is_some_and(|at| self.now < at + ANSWER_WITHIN + lasts)
        };
        self.always()
            || (!self.lockdown && within(self.granted, OPEN_FOR))
            || within(self.exit, EXIT_FOR)
    }

    fn step(&mut self, happens: Happens) -> Result<(), TestCaseError> {
        let input = match happens {
            Happens::Input(input) => input,
            Happens::Answers(taken) => Input::Answer { order: self.last.number, taken },
            Happens::Noise(order, taken) => Input::Answer { order, taken },
        };
        let (before, leaf) = (self.door.state(), self.door.leaf());
        let opening = self.ordered_to_open();
        let unanswered = self.answered.is_none();
        let refused = matches!(input, Input::Answer { order, taken: false }
            if order == self.last.number && unanswered);
        if let Input::Answer { order, taken } = input
            && order == self.last.number
            && unanswered
        {
            self.answered = Some(taken);
        }
        match input {
            Input::Command(Command::Lockdown) => {
                (self.lockdown, self.always_open, self.granted) = (true, false, None);
            }
            Input::Command(Command::AlwaysOpen) if !self.lockdown => self.always_open = true,
            Input::Command(Command::Normal) => (self.lockdown, self.always_open) = (false, false),
            Input::OpenHours(open) => self.open_hours = open,
            Input::Duress => self.duress = Some(self.now),
            _ => {}
        }
        let output = self.door.step(self.now, input);

        let mut decided = 0;
        for event in &output.events {
            match *event {
                Event::Granted { person, admission, again } => {
                    decided += 1;
                    prop_assert!(!self.lockdown, "a grant during lockdown");
                    let locked_out = matches!(input, Input::Known { locked_out: Some(_), .. });
                    prop_assert!(!locked_out, "a grant during a lockout");
                    prop_assert!(admission.admitted());
                    let ms = |time: Duration| time.as_millis() as i64;
                    let lately = |at: i64| ms(self.now) < at + ms(FORGET);
                    let passed = self.passed.get(&person);
                    let inside = passed.is_some_and(|(role, at)| *role == Role::In && lately(*at));
                    let rule = self.settings.passback.rule;
                    prop_assert_eq!(again, inside && rule != AntiPassback::Off);
                    if rule == AntiPassback::Hard && inside {
                        prop_assert!(self.duress.is_some(), "hard anti-passback was ignored");
                    }
                    self.granted = Some(self.now);
                }
                Event::NotGranted { .. } => decided += 1,
                Event::OpenedByCommand => {
                    prop_assert!(!self.lockdown, "the command \"open\" worked in lockdown");
                    self.granted = Some(self.now);
                }
                Event::Exit => self.exit = Some(self.now),
                Event::Duress { .. } => {
                    let within = self.settings.duress_within;
                    let lately = self.duress.take().is_some_and(|at| self.now < at + within);
                    prop_assert!(lately, "a duress alarm without the gesture");
                }
                Event::Passed { person, role } => {
                    self.passed.insert(person, (role, self.now.as_millis() as i64));
                }
                Event::Unlocked => prop_assert!(
                    opening && matches!(input, Input::Answer { taken: true, .. }),
                    "unlocked without the relay's answer"
                ),
                Event::Alarm(Alarm::Forced) => {
                    let since = self.shut.expect("a forced door was locked before");
                    prop_assert!(input == Input::Opened && self.now >= since + LAST_PULL);
                }
                _ => {}
            }
        }
        if let Input::Passed { person, role, ago } = input {
            let at = self.now.as_millis() as i64 - ago.as_millis() as i64;
            if self.passed.get(&person).is_none_or(|(_, last)| *last <= at) {
                self.passed.insert(person, (role, at));
            }
        }
        prop_assert_eq!(decided, usize::from(matches!(input, Input::Known { .. })));

        if let Some(order) = output.relay {
            prop_assert_eq!(order.number, self.last.number.wrapping_add(1));
            (self.last, self.answered, self.void) = (order, None, false);
        }
        let moved = matches!(before, State::Granting { .. } | State::Open | State::Locked { .. });
        if input == Input::RelayAway && moved {
            (self.answered, self.void) = (Some(false), output.relay.is_none());
        }
        let shut = self.shut.is_some_and(|since| self.now >= since + LAST_PULL);
        if input == Input::Opened && leaf == Leaf::Closed && shut && !self.always() {
            prop_assert_eq!(self.door.leaf(), Leaf::Forced, "relay reachable or not");
        }
        if refused && opening && matches!(before, State::Granting { .. }) {
            let locks = output.relay.is_some_and(|_| !self.ordered_to_open());
            prop_assert!(locks, "a relay that refused to open was not ordered to lock");
        }
        if self.ordered_to_open() {
            prop_assert!(self.may_be_open(), "open without a reason, or for too long");
        }
        if input == Input::Exit {
            prop_assert!(self.ordered_to_open(), "a request to exit did not open");
        }
        match self.door.state() {
            State::Open => prop_assert!(self.ordered_to_open() && self.answered == Some(true)),
            State::Granting { since } => {
                prop_assert!(self.ordered_to_open() && self.answered.is_none());
                prop_assert!(self.now < since + ANSWER_WITHIN, "the answer's timeout passed");
            }
            State::Locked { .. } => {
                prop_assert!(!self.ordered_to_open() && self.answered == Some(true));
            }
            State::Locking { .. } => {
                prop_assert!(!self.ordered_to_open() || self.answered.is_some())
            }
            State::Stopping { .. } | State::Stopped => prop_assert!(false, "stopped unasked"),
        }
        let falls_open = input == Input::RelayAway && self.settings.lock == LockKind::FailSafe;
        if self.ordered_to_open() || falls_open {
            self.shut = None;
        }
        if let State::Locked { since } = self.door.state() {
            self.shut.get_or_insert(since);
        }
        match input {
            Input::Opened => self.contact_open = true,
            Input::Closed => self.contact_open = false,
            _ => {}
        }
        prop_assert!(self.door.leaf().is_open() == self.contact_open);
        prop_assert!(!(self.always() && self.door.leaf() == Leaf::HeldTooLong));
        Ok(())
    }

    /// Lets time pass in ticks of 250 milliseconds.
    fn wait(&mut self, time: Duration) -> Result<(), TestCaseError> {
        let end = self.now + time;
        while self.now < end {
            self.now = end.min(self.now + Duration::from_millis(250));
            self.step(Happens::Input(Input::Tick))?;
        }
        Ok(())
    }
}

fn settings() -> impl Strategy<Value = DoorSettings> {
    let lock = prop::sample::select(vec![LockKind::FailSecure, LockKind::FailSafe]);
    let rule =
        prop::sample::select(vec![AntiPassback::Off, AntiPassback::Soft, AntiPassback::Hard]);
    (lock, rule, any::<bool>()).prop_map(|(lock, rule, lock_when_closed)| DoorSettings {
        lock,
        open_for: OPEN_FOR,
        exit_for: EXIT_FOR,
        lock_when_closed,
        held_open_after: Duration::from_secs(6),
        passback: PassbackSettings { rule, role: Some(Role::In), forget: FORGET },
        ..DoorSettings::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// A fail-secure lock is energised only by a recorded grant, exit or command, and
    /// never longer than its time allows, except while the door is always open. A fail-safe
    /// lock is de-energised under the same conditions. Lockdown, lockout, schedule and
    /// anti-passback hold, and a request to exit is never refused.
    #[test]
    fn open_only_for_a_recorded_reason_and_its_duration(
        settings in settings(),
        story in prop::collection::vec((happens(), 0u64..2500), 0..120),
    ) {
        let mut record = Record::new(settings);
        for (happens, later) in story {
            record.wait(Duration::from_millis(later))?;
            record.step(happens)?;
        }
    }

    /// After any sequence of events, a failing relay is ordered to lock repeatedly, and
    /// once it works again the door is locked.
    #[test]
    fn a_failing_relay_is_asked_for_the_safe_state_until_it_answers(
        settings in settings(),
        story in prop::collection::vec((happens(), 0u64..1500), 0..60),
        silent in any::<bool>(),
    ) {
        let mut record = Record::new(settings);
        for (happens, later) in story {
            record.wait(Duration::from_millis(later))?;
            record.step(happens)?;
        }
        for event in [Input::Command(Command::Normal), Input::OpenHours(false), Input::RelayBack] {
            record.step(Happens::Input(event))?;
        }
        record.wait(ANSWER_WITHIN + EXIT_FOR)?;
        let mut asked = 0;
        for _ in 0..40 {
            let before = record.last.number;
            record.wait(Duration::from_millis(250))?;
            if record.last.number != before {
                prop_assert!(!record.ordered_to_open());
                asked += 1;
            }
            if !silent && record.answered.is_none() {
                record.step(Happens::Answers(false))?;
            }
        }
        if !matches!(record.door.state(), State::Locked { .. }) {
            // Every half second if it refuses, every two seconds if it does not answer.
            prop_assert!(asked >= if silent { 4 } else { 15 }, "asked {asked} times");
            record.wait(ANSWER_WITHIN)?;
            record.step(Happens::Answers(true))?;
        }
        let locked = matches!(record.door.state(), State::Locked { .. });
        prop_assert!(locked, "{:?}", record.door.state());
    }

    /// Stopping de-energises the relay, whatever happens before or after it.
    #[test]
    fn nothing_follows_the_end_but_power_off(
        settings in settings(),
        before in prop::collection::vec((happens(), 0u64..1500), 0..40),
        after in prop::collection::vec((happens(), 0u64..1500), 0..40),
    ) {
        let mut record = Record::new(settings);
        for (happens, later) in before {
            record.wait(Duration::from_millis(later))?;
            record.step(happens)?;
        }
        let (mut door, mut now) = (record.door, record.now);
        let mut last = door.step(now, Input::Stop).relay.expect("an order");
        prop_assert!(!last.energise);
        for (happens, later) in after {
            now += Duration::from_millis(later);
            let input = match happens {
                Happens::Input(input) => input,
                Happens::Answers(taken) => Input::Answer { order: last.number, taken },
                Happens::Noise(order, taken) => Input::Answer { order, taken },
            };
            let output = door.step(now, input);
            if let Some(order) = output.relay {
                prop_assert!(!order.energise);
                last = order;
            }
            let granted = |event: &Event| matches!(event, Event::Granted { .. } | Event::Unlocked);
            prop_assert!(!output.events.iter().any(granted));
        }
        door.step(now, Input::Answer { order: last.number, taken: true });
        let stopped = door.state() == State::Stopped
            || door.step(now + ANSWER_WITHIN, Input::Tick).relay.is_some();
        prop_assert!(stopped);
    }
}
