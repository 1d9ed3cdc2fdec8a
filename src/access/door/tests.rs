//! Timelines of events and the events and orders that follow.

use super::lock::ANSWER_WITHIN;
use super::*;
use crate::access::schedule::Admission;

const ADA: PersonId = PersonId(1);
const GRACE: PersonId = PersonId(2);

fn s(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn known(person: PersonId) -> Input {
    Input::Known { person, admission: Admission::Always, locked_out: None }
}

fn granted(person: PersonId) -> Event {
    Event::Granted { person, admission: Admission::Always, again: false }
}

/// A door with a relay that carries out each order at once, unless it is broken: then it
/// refuses each order.
struct Site {
    door: Door,
    broken: bool,
    /// Whether the relay is energised.
    on: bool,
    orders: Vec<bool>,
    events: Vec<Event>,
}

impl Site {
    fn new(settings: DoorSettings) -> Self {
        let (door, output) = Door::new(s(0.0), settings);
        let (orders, events) = (vec![], vec![]);
        let mut site = Self { door, broken: false, on: true, orders, events };
        site.carry_out(s(0.0), output);
        assert!(matches!(site.door.state(), State::Locked { .. }));
        site.orders.clear();
        site.events.clear();
        site
    }

    fn carry_out(&mut self, now: Duration, mut output: Output) {
        loop {
            self.events.extend(output.events);
            let Some(order) = output.relay else { return };
            self.orders.push(order.energise);
            if !self.broken {
                self.on = order.energise;
            }
            let answer = Input::Answer { order: order.number, taken: !self.broken };
            output = self.door.step(now, answer);
        }
    }

    /// Takes one event at this time in seconds and returns the events.
    fn at(&mut self, seconds: f64, event: Input) -> Vec<Event> {
        let output = self.door.step(s(seconds), event);
        self.carry_out(s(seconds), output);
        std::mem::take(&mut self.events)
    }
}

fn plain() -> Site {
    Site::new(DoorSettings::default())
}

#[test]
fn a_grant_opens_for_the_time_set() {
    for (lock, open) in [(LockKind::FailSecure, true), (LockKind::FailSafe, false)] {
        let mut site = Site::new(DoorSettings { lock, ..DoorSettings::default() });
        assert_eq!(site.on, !open);
        assert_eq!(site.at(1.0, known(ADA)), [granted(ADA), Event::Unlocked]);
        assert_eq!((site.on, site.door.state()), (open, State::Open));
        assert_eq!(site.at(3.9, Input::Tick), []);
        assert_eq!(site.at(4.0, Input::Tick), [Event::Locked]);
        assert_eq!((site.on, site.door.state()), (!open, State::Locked { since: s(4.0) }));
    }
}

#[test]
fn a_second_grant_while_open_gets_the_full_time() {
    let mut site = plain();
    site.at(1.0, known(ADA));
    assert_eq!(site.at(3.0, known(GRACE)), [granted(GRACE)]);
    assert_eq!(site.at(5.9, Input::Tick), []);
    assert_eq!(site.at(6.0, Input::Tick), [Event::Locked]);
}

#[test]
fn open_time_counts_from_the_answer_of_the_relay() {
    let (mut door, first) = Door::new(s(0.0), DoorSettings::default());
    let first = first.relay.expect("an order to lock");
    assert!(!first.energise);
    door.step(s(0.1), Input::Answer { order: first.number, taken: true });
    let order = door.step(s(1.0), known(ADA)).relay.expect("an order to open");
    assert_eq!(door.state(), State::Granting { since: s(1.0) });
    assert_eq!(door.step(s(1.5), known(ADA)).relay, None);
    // An answer to an earlier order is ignored.
    door.step(s(1.6), Input::Answer { order: first.number, taken: true });
    assert_eq!(door.state(), State::Granting { since: s(1.0) });
    door.step(s(1.8), Input::Answer { order: order.number, taken: true });
    assert_eq!(door.state(), State::Open);
    assert_eq!(door.step(s(4.7), Input::Tick).relay, None);
    let lock = door.step(s(4.8), Input::Tick).relay.expect("an order to lock");
    assert!(!lock.energise && lock.number == order.number + 1);
}

#[test]
fn a_silent_relay_is_ordered_to_lock() {
    let (mut door, first) = Door::new(s(0.0), DoorSettings::default());
    let first = first.relay.expect("an order to lock");
    door.step(s(0.1), Input::Answer { order: first.number, taken: true });
    door.step(s(1.0), known(ADA));
    assert_eq!(door.step(s(2.9), Input::Tick), Output::default());
    let output = door.step(s(3.0), Input::Tick);
    assert_eq!(output.events[..], [Event::NoAnswer]);
    assert!(output.relay.is_some_and(|order| !order.energise));
    // Repeated, because the lock may be open.
    assert_eq!(door.step(s(4.9), Input::Tick).relay, None);
    assert!(door.step(s(5.0), Input::Tick).relay.is_some_and(|order| !order.energise));
}

#[test]
fn the_order_to_lock_is_repeated_until_it_succeeds() {
    let mut site = plain();
    site.at(1.0, known(ADA));
    site.broken = true;
    site.orders.clear();
    for round in 0..40 {
        site.at(4.0 + 0.25 * f64::from(round), Input::Tick);
    }
    assert_eq!(site.orders, vec![false; 20]);
    assert!(matches!(site.door.state(), State::Locking { .. }));
    site.broken = false;
    assert_eq!(site.at(20.0, Input::Tick), [Event::Locked]);
}

#[test]
fn a_request_to_exit_opens_whatever_the_mode() {
    let mut site = plain();
    for (command, at) in [(Command::Normal, 1.0), (Command::Lockdown, 11.0)] {
        site.at(at, Input::Command(command));
        assert_eq!(site.at(at + 1.0, Input::Exit), [Event::Exit, Event::Unlocked]);
        assert_eq!(site.at(at + 4.0, Input::Tick), [Event::Locked]);
    }
}

#[test]
fn lockdown_ends_a_grant_at_once_but_not_an_exit() {
    let mut site = plain();
    site.at(1.0, known(ADA));
    let events = site.at(1.5, Input::Command(Command::Lockdown));
    assert_eq!(events, [Event::Mode(Mode::Lockdown), Event::Locked]);
    site.at(2.0, Input::Exit);
    let refused = Event::NotGranted { person: ADA, why: Refusal::Lockdown };
    assert_eq!(site.at(3.0, known(ADA)), [refused]);
    assert_eq!(site.at(4.0, Input::Command(Command::Lockdown)), []);
    assert_eq!(site.door.state(), State::Open);
    assert_eq!(site.at(5.0, Input::Tick), [Event::Locked]);
    let refused = Event::NotOpenedByCommand(Refusal::Lockdown);
    assert_eq!(site.at(6.0, Input::Command(Command::Open)), [refused]);
    assert_eq!(site.at(6.5, Input::Command(Command::AlwaysOpen)), [refused]);
    assert_eq!(site.at(7.0, Input::OpenHours(true)), []);
    // The open hours count only after lockdown has ended.
    let open = Mode::AlwaysOpen { by_schedule: true };
    let events = site.at(8.0, Input::Command(Command::Normal));
    assert_eq!(events, [Event::Mode(open), Event::Unlocked]);
    assert_eq!(site.at(9.0, Input::OpenHours(false)), [Event::Mode(Mode::Normal), Event::Locked]);
}

#[test]
fn always_open_stays_open_and_comes_back_after_the_relay_was_away() {
    let mut site = plain();
    site.at(1.0, Input::Command(Command::AlwaysOpen));
    assert_eq!(site.at(9000.0, Input::Tick), []);
    assert_eq!(site.door.state(), State::Open);
    site.orders.clear();
    assert_eq!(site.at(9001.0, Input::RelayBack), [Event::RelayBack, Event::Unlocked]);
    assert_eq!(site.orders, [true]);
    site.broken = true;
    site.at(9002.0, Input::RelayBack);
    assert_eq!(site.orders, [true, true, false]);
    site.broken = false;
    assert_eq!(site.at(9003.0, Input::Tick), [Event::Locked]);
    assert_eq!(site.at(9006.9, Input::Tick), []);
    assert_eq!(site.at(9007.0, Input::Tick), [Event::Unlocked]);
}

#[test]
fn a_door_held_open_and_a_door_forced_are_alarmed_about_until_closed() {
    let mut site = plain();
    site.at(0.5, Input::Closed);
    site.at(1.0, known(ADA));
    assert_eq!(site.at(2.0, Input::Opened), []);
    assert_eq!(site.at(4.0, Input::Tick), [Event::Locked]);
    assert_eq!(site.at(31.9, Input::Tick), []);
    assert_eq!(site.at(32.0, Input::Tick), [Event::Alarm(Alarm::HeldTooLong)]);
    assert_eq!(site.at(40.0, Input::Closed), [Event::AlarmEnded(Alarm::HeldTooLong)]);
    assert_eq!(site.at(41.0, Input::Opened), [Event::Alarm(Alarm::Forced)]);
    assert_eq!(site.door.leaf(), Leaf::Forced);
    assert_eq!(site.at(42.0, Input::Closed), [Event::AlarmEnded(Alarm::Forced)]);
    // Opened within the grace time after locking.
    site.at(50.0, known(ADA));
    site.at(53.0, Input::Tick);
    assert_eq!(site.at(53.9, Input::Opened), []);
}

#[test]
fn a_door_is_forced_whether_its_relay_is_there_or_not() {
    for (lock, forced) in [(LockKind::FailSecure, true), (LockKind::FailSafe, false)] {
        let mut site = Site::new(DoorSettings { lock, ..DoorSettings::default() });
        site.at(0.5, Input::Closed);
        site.broken = true;
        // A fail-safe lock is open without power.
        site.at(10.0, Input::RelayAway);
        let told = site.at(20.0, Input::Opened);
        assert_eq!(told.contains(&Event::Alarm(Alarm::Forced)), forced, "{lock:?}");
    }
}

#[test]
fn a_person_coming_in_does_not_use_up_the_request_to_exit() {
    let mut site = plain();
    site.at(0.5, Input::Closed);
    site.at(1.0, known(ADA));
    site.at(1.2, Input::Exit);
    site.at(2.0, Input::Opened);
    site.at(2.5, Input::Closed);
    assert_eq!(site.door.state(), State::Open);
    // The second passage uses up the exit.
    site.at(3.0, Input::Opened);
    site.at(3.5, Input::Closed);
    assert!(matches!(site.door.state(), State::Locked { .. }));
}

#[test]
fn the_door_locks_once_it_has_closed() {
    let mut site = plain();
    site.at(0.5, Input::Closed);
    site.at(1.0, known(ADA));
    site.at(1.5, Input::Opened);
    assert_eq!(site.at(2.5, Input::Closed), [Event::Locked]);
    // A grant after the opening keeps the door unlocked.
    site.at(10.0, known(ADA));
    site.at(10.5, Input::Opened);
    site.at(11.0, known(GRACE));
    assert_eq!(site.at(11.5, Input::Closed), []);
    assert_eq!(site.at(14.0, Input::Tick), [Event::Locked]);
}

#[test]
fn a_lockout_keeps_a_known_person_out() {
    let mut site = Site::new(DoorSettings::default());
    let locked_out = Some(s(7.0));
    let input = Input::Known { person: ADA, admission: Admission::Always, locked_out };
    let why = Refusal::LockedOut { left: s(7.0) };
    assert_eq!(site.at(1.0, input), [Event::NotGranted { person: ADA, why }]);
}

#[test]
fn duress_opens_and_raises_a_silent_alarm() {
    let mut site = plain();
    assert_eq!(site.at(1.0, Input::Duress), []);
    let events = site.at(5.0, known(ADA));
    assert_eq!(events, [granted(ADA), Event::Duress { person: ADA }, Event::Unlocked]);
    site.at(8.0, Input::Tick);
    assert_eq!(site.at(20.0, known(ADA)), [granted(ADA), Event::Unlocked]);
    // The gesture just after recognition.
    assert_eq!(site.at(21.0, Input::Duress), [Event::Duress { person: ADA }]);
    site.at(23.0, Input::Tick);
    // The gesture alone opens nothing, and it expires.
    assert_eq!(site.at(40.0, Input::Duress), []);
    assert_eq!(site.at(50.0, known(GRACE)), [granted(GRACE), Event::Unlocked]);
    // In lockdown the door stays locked, but the alarm is raised.
    site.at(60.0, Input::Command(Command::Lockdown));
    site.at(61.0, Input::Duress);
    let refused = Event::NotGranted { person: ADA, why: Refusal::Lockdown };
    assert_eq!(site.at(62.0, known(ADA)), [refused, Event::Duress { person: ADA }]);
}

#[test]
fn anti_passback_refuses_a_second_entry() {
    for (rule, refused) in [(AntiPassback::Soft, false), (AntiPassback::Hard, true)] {
        let role = Some(Role::In);
        let passback = PassbackSettings { rule, role, ..PassbackSettings::default() };
        let mut site = Site::new(DoorSettings { passback, ..DoorSettings::default() });
        site.at(0.5, Input::Closed);
        site.at(1.0, known(ADA));
        // Nobody opened the door: she has not passed.
        site.at(4.0, Input::Tick);
        assert_eq!(site.at(10.0, known(ADA)), [granted(ADA), Event::Unlocked]);
        let passed = Event::Passed { person: ADA, role: Role::In };
        assert_eq!(site.at(10.5, Input::Opened), [passed]);
        site.at(12.0, Input::Closed);
        let events = site.at(20.0, known(ADA));
        let again = Event::Granted { person: ADA, admission: Admission::Always, again: true };
        let not = Event::NotGranted { person: ADA, why: Refusal::PassedAlready };
        assert_eq!(events[0], if refused { not } else { again });
        // Under duress the door opens all the same.
        site.at(30.0, Input::Duress);
        assert_eq!(site.at(31.0, known(ADA))[0], again);
        site.at(32.0, Input::Opened);
        site.at(33.0, Input::Closed);
        // A late report from another door: she came in after that passage.
        let out = |ago| Input::Passed { person: ADA, role: Role::Out, ago: s(ago) };
        site.at(40.0, out(10.0));
        assert_eq!(site.at(40.5, known(ADA))[0], if refused { not } else { again });
        site.at(50.0, out(2.0));
        assert_eq!(site.at(51.0, known(ADA))[0], granted(ADA));
    }
}

#[test]
fn passages_from_before_the_start_keep_their_time() {
    let (rule, role) = (AntiPassback::Hard, Some(Role::In));
    let passback = PassbackSettings { rule, role, ..PassbackSettings::default() };
    let mut site = Site::new(DoorSettings { passback, ..DoorSettings::default() });
    let hours = |hours: f64| hours * 3600.0;
    let passed = |role, ago| Input::Passed { person: ADA, role, ago: s(ago) };
    site.at(1.0, passed(Role::Out, hours(1.0)));
    // An earlier passage that is reported later.
    site.at(2.0, passed(Role::In, hours(2.0)));
    assert_eq!(site.at(3.0, known(ADA))[0], granted(ADA));
    // Passages are forgotten after twelve hours.
    site.at(19.0, Input::Passed { person: GRACE, role: Role::In, ago: Duration::MAX });
    site.at(20.0, Input::Passed { person: GRACE, role: Role::In, ago: s(hours(13.0)) });
    assert_eq!(site.at(21.0, known(GRACE))[0], granted(GRACE));
}

#[test]
fn the_schedule_refuses_outside_its_hours() {
    let mut site = plain();
    let admission = Admission::OutsideHours;
    let why = Refusal::Schedule(admission);
    let events = site.at(1.0, Input::Known { person: ADA, admission, locked_out: None });
    assert_eq!(events, [Event::NotGranted { person: ADA, why }]);
    assert_eq!(site.orders, Vec::<bool>::new());
}

#[test]
fn the_end_de_energises_the_relay_for_good() {
    for lock in [LockKind::FailSecure, LockKind::FailSafe] {
        let mut site = Site::new(DoorSettings { lock, ..DoorSettings::default() });
        site.at(1.0, Input::Command(Command::AlwaysOpen));
        site.broken = true;
        site.orders.clear();
        site.at(2.0, Input::Stop);
        site.at(2.5, Input::Tick);
        assert_eq!(site.orders, [false, false]);
        site.broken = false;
        site.at(3.0, Input::Tick);
        assert_eq!((site.on, site.door.state()), (false, State::Stopped));
        site.orders.clear();
        let why = Refusal::Stopped;
        assert_eq!(site.at(4.0, known(ADA)), [Event::NotGranted { person: ADA, why }]);
        site.at(5.0, Input::Exit);
        site.at(6.0, Input::Command(Command::AlwaysOpen));
        assert_eq!(site.orders, Vec::<bool>::new());
    }
}

#[test]
fn the_end_of_an_opening_is_known_from_its_start() {
    let mut site = Site::new(DoorSettings::default());
    assert_eq!(site.door.open_until(), Some(s(0.0)));
    site.broken = true;
    // Before the relay's answer, its timeout counts in full.
    let output = site.door.step(s(1.0), known(ADA));
    assert!(output.relay.is_some());
    assert_eq!(site.door.open_until(), Some(s(1.0) + ANSWER_WITHIN + s(3.0)));
    site.broken = false;
    site.carry_out(s(1.5), output);
    assert_eq!(site.door.open_until(), Some(s(4.5)));
    site.at(3.0, known(GRACE));
    assert_eq!(site.door.open_until(), Some(s(6.0)));
    site.at(4.0, Input::Command(Command::AlwaysOpen));
    assert_eq!(site.door.open_until(), None);
    site.at(5.0, Input::Exit);
    site.at(5.5, Input::Command(Command::Lockdown));
    assert_eq!(site.door.open_until(), Some(s(8.0)));
}
