//! Tests of the relay link: step by step and with random events.

use super::*;
use proptest::prelude::*;

const SETTINGS: LinkSettings = LinkSettings {
    locked: false,
    check_every: [Some(Duration::from_secs(5)), Some(Duration::from_secs(1))],
    silence: Some(Duration::from_secs(10)),
};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn order(number: u32, on: bool) -> Event {
    Event::Order(Command { number, on, at_most: None })
}

fn order_for(number: u32, on: bool, at_most: u64) -> Event {
    Event::Order(Command { number, on, at_most: Some(ms(at_most)) })
}

fn failed() -> Event {
    Event::Failed("no such file".to_owned())
}

fn taken(order: u32) -> Told {
    Told::Answer { order, taken: true, error: None }
}

fn away() -> Told {
    Told::Away { error: "no such file".to_owned() }
}

#[track_caller]
fn expect(link: &mut Link, now: u64, event: Event, device: Option<Do>, told: &[Told]) {
    let actions = link.step(ms(now), event.clone());
    assert_eq!((actions.device, &actions.told[..]), (device, told), "{now} {event:?}");
}

fn present(settings: LinkSettings) -> Link {
    let mut link = Link::new(ms(0), settings);
    expect(&mut link, 0, Event::Tick, Some(Do::Open(settings.locked)), &[]);
    expect(&mut link, 0, Event::Opened, Some(Do::Switch(settings.locked)), &[]);
    expect(&mut link, 0, Event::Switched, None, &[]);
    link
}

#[test]
fn the_relay_locks_first_and_then_follows_orders() {
    for locked in [false, true] {
        let mut link = present(LinkSettings { locked, ..SETTINGS });
        expect(&mut link, 100, order(1, !locked), Some(Do::Switch(!locked)), &[]);
        expect(&mut link, 110, Event::Switched, None, &[taken(1)]);
    }
}

#[test]
fn an_order_that_comes_while_it_is_being_opened_waits() {
    let mut link = Link::new(ms(0), SETTINGS);
    expect(&mut link, 0, Event::Tick, Some(Do::Open(false)), &[]);
    expect(&mut link, 0, order(1, false), None, &[]);
    expect(&mut link, 9, Event::Opened, Some(Do::Switch(false)), &[]);
    expect(&mut link, 9, Event::Switched, Some(Do::Switch(false)), &[]);
    expect(&mut link, 9, Event::Switched, None, &[taken(1)]);
}

#[test]
fn of_two_orders_that_wait_the_later_counts() {
    let mut link = present(SETTINGS);
    expect(&mut link, 0, order(1, true), Some(Do::Switch(true)), &[]);
    expect(&mut link, 1, order(2, false), None, &[]);
    let error = Some("superseded by a later order".to_owned());
    let superseded = Told::Answer { order: 2, taken: false, error };
    expect(&mut link, 2, order(3, true), None, &[superseded]);
    expect(&mut link, 3, Event::Switched, Some(Do::Switch(true)), &[taken(1)]);
    expect(&mut link, 4, Event::Switched, None, &[taken(3)]);
}

#[test]
fn unplugged_it_takes_nothing_and_comes_back_locked() {
    let mut link = present(SETTINGS);
    expect(&mut link, 0, order(1, true), Some(Do::Switch(true)), &[]);
    expect(&mut link, 0, Event::Switched, None, &[taken(1)]);
    expect(&mut link, 999, Event::Tick, None, &[]);
    expect(&mut link, 1000, Event::Tick, Some(Do::Check(true)), &[]);
    expect(&mut link, 1000, failed(), Some(Do::Close), &[away()]);
    let error = Some("the relay has been unreachable for 0 seconds: no such file".to_owned());
    expect(
        &mut link,
        1100,
        order(2, true),
        None,
        &[Told::Answer { order: 2, taken: false, error }],
    );
    // The same fault is not reported again.
    for at in [1200, 1600, 2400, 4000, 7200, 12_200, 17_200] {
        expect(&mut link, at - 1, Event::Tick, None, &[]);
        expect(&mut link, at, Event::Tick, Some(Do::Open(false)), &[]);
        expect(&mut link, at, failed(), Some(Do::Close), &[]);
    }
    let denied = || "permission denied".to_owned();
    expect(&mut link, 22_200, Event::Tick, Some(Do::Open(false)), &[]);
    let told = Told::Away { error: denied() };
    expect(&mut link, 22_200, Event::Failed(denied()), Some(Do::Close), &[told]);
    expect(&mut link, 27_200, Event::Tick, Some(Do::Open(false)), &[]);
    expect(&mut link, 27_200, Event::Opened, Some(Do::Switch(false)), &[]);
    let back = Told::Back { away: ms(26_200) };
    expect(&mut link, 27_200, Event::Switched, None, &[back]);
    expect(&mut link, 27_300, order(3, true), Some(Do::Switch(true)), &[]);
}

#[test]
fn a_missing_relay_is_reported_once_and_when_it_comes() {
    let mut link = Link::new(ms(0), SETTINGS);
    expect(&mut link, 0, Event::Tick, Some(Do::Open(false)), &[]);
    expect(&mut link, 0, failed(), Some(Do::Close), &[away()]);
    expect(&mut link, 200, Event::Tick, Some(Do::Open(false)), &[]);
    expect(&mut link, 200, Event::Opened, Some(Do::Switch(false)), &[]);
    // A port that opens but does not accept the command counts as unreachable.
    expect(&mut link, 200, failed(), Some(Do::Close), &[]);
    expect(&mut link, 600, Event::Tick, Some(Do::Open(false)), &[]);
    expect(&mut link, 600, Event::Opened, Some(Do::Switch(false)), &[]);
    expect(&mut link, 600, Event::Switched, None, &[Told::Back { away: ms(600) }]);
}

#[test]
fn a_relay_that_drifts_gets_the_order_again() {
    let mut link = present(SETTINGS);
    expect(&mut link, 5000, Event::Tick, Some(Do::Check(false)), &[]);
    let drifted = Told::Drifted { on: false };
    expect(&mut link, 5000, Event::Checked { as_told: false }, Some(Do::Switch(false)), &[drifted]);
    expect(&mut link, 5000, Event::Switched, None, &[]);
    expect(&mut link, 10_000, Event::Tick, Some(Do::Check(false)), &[]);
    expect(&mut link, 10_000, order(1, true), None, &[]);
    expect(&mut link, 10_000, Event::Checked { as_told: true }, Some(Do::Switch(true)), &[]);
}

#[test]
fn a_silent_service_does_not_hold_the_door_open() {
    let mut link = present(LinkSettings { check_every: [None; 2], ..SETTINGS });
    assert_eq!(link.due(), None);
    expect(&mut link, 0, order(1, true), Some(Do::Switch(true)), &[]);
    expect(&mut link, 0, Event::Switched, None, &[taken(1)]);
    expect(&mut link, 9000, Event::Heard, None, &[]);
    assert_eq!(link.due(), Some(ms(19_000)));
    expect(&mut link, 18_999, Event::Tick, None, &[]);
    expect(&mut link, 19_000, Event::Tick, Some(Do::Switch(false)), &[Told::Abandoned]);
    expect(&mut link, 19_000, Event::Switched, None, &[]);
    assert_eq!(link.due(), None);
}

#[test]
fn while_the_machine_stood_still_nobody_was_silent() {
    let mut link = present(LinkSettings { check_every: [None; 2], ..SETTINGS });
    expect(&mut link, 0, order(1, true), Some(Do::Switch(true)), &[]);
    expect(&mut link, 0, Event::Switched, None, &[taken(1)]);
    expect(&mut link, 60_000, Event::Overslept, None, &[]);
    expect(&mut link, 60_000, Event::Tick, None, &[]);
    expect(&mut link, 70_000, Event::Tick, Some(Do::Switch(false)), &[Told::Abandoned]);
    // Before its first sign of life the service cannot be silent.
    let mut link = present(LinkSettings { check_every: [None; 2], ..SETTINGS });
    expect(&mut link, 60_000, Event::Overslept, None, &[]);
    assert_eq!(link.due(), None);
}

#[test]
fn an_order_ends_after_its_maximum_on_time() {
    for locked in [false, true] {
        let settings = LinkSettings { locked, check_every: [None; 2], silence: None };
        let mut link = present(settings);
        expect(&mut link, 0, order_for(1, !locked, 5000), Some(Do::Switch(!locked)), &[]);
        // The device took 700 ms.
        expect(&mut link, 700, Event::Switched, None, &[taken(1)]);
        assert_eq!(link.due(), Some(ms(5700)));
        expect(&mut link, 5000, Event::Heard, None, &[]);
        expect(&mut link, 5699, Event::Tick, None, &[]);
        expect(&mut link, 5700, Event::Tick, Some(Do::Switch(locked)), &[Told::Expired]);
        expect(&mut link, 5700, Event::Switched, None, &[]);
        assert_eq!(link.due(), None);
        // A repetition after the end of the on-time does not switch again.
        expect(&mut link, 5800, order_for(1, !locked, 5000), None, &[]);
        expect(&mut link, 60_000, Event::Tick, None, &[]);
    }
}

#[test]
fn the_same_order_once_more_has_more_time_or_no_end() {
    let mut link = present(LinkSettings { check_every: [None; 2], silence: None, ..SETTINGS });
    expect(&mut link, 0, order_for(1, true, 5000), Some(Do::Switch(true)), &[]);
    expect(&mut link, 0, Event::Switched, None, &[taken(1)]);
    expect(&mut link, 4000, order_for(1, true, 5000), None, &[]);
    expect(&mut link, 8999, Event::Tick, None, &[]);
    assert_eq!(link.due(), Some(ms(9000)));
    expect(&mut link, 8999, order(1, true), None, &[]);
    assert_eq!(link.due(), None);
    expect(&mut link, 60_000, order_for(1, true, 1000), None, &[]);
    expect(&mut link, 61_000, Event::Tick, Some(Do::Switch(false)), &[Told::Expired]);
    // Another order number is a new order.
    expect(&mut link, 61_000, order_for(2, true, 1000), None, &[]);
    expect(&mut link, 61_000, Event::Switched, Some(Do::Switch(true)), &[]);
    expect(&mut link, 61_000, Event::Switched, None, &[taken(2)]);
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Order(bool),
    Heard,
    /// The device's result: success or failure.
    Answer(bool),
    /// A result without a request, or of another request.
    Stray(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0u64..7000).prop_map(Step::Wait),
        any::<bool>().prop_map(Step::Order),
        Just(Step::Heard),
        any::<bool>().prop_map(Step::Answer),
        prop::bool::weighted(0.9).prop_map(Step::Answer),
        (0u8..4).prop_map(Step::Stray),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    #[test]
    fn every_order_is_answered_once_and_nothing_but_an_order_unlocks(
        steps in steps(),
        locked in any::<bool>(),
    ) {
        let mut link = Link::new(ms(0), LinkSettings { locked, ..SETTINGS });
        let mut now = 0;
        let mut number = 0;
        let mut open: Vec<Command> = vec![];
        let mut pending: Option<Do> = None;
        // The state by the last order that was carried out; locked after every absence.
        let mut told = locked;
        let mut settled = false;
        for step in steps {
            let event = match step {
                Step::Wait(later) => {
                    now += later;
                    Event::Tick
                }
                Step::Order(on) => {
                    number += 1;
                    open.push(Command { number, on, at_most: None });
                    order(number, on)
                }
                Step::Heard => Event::Heard,
                Step::Answer(well) => match (pending.take(), well) {
                    (None, _) => continue,
                    (Some(Do::Check(_)), _) if now % 3 == 0 => Event::Checked { as_told: well },
                    (Some(_), false) => failed(),
                    (Some(Do::Open(_)), true) => Event::Opened,
                    (Some(Do::Check(_)), true) => Event::Checked { as_told: true },
                    (Some(Do::Switch(on)), true) => {
                        told = on;
                        settled = true;
                        Event::Switched
                    }
                    (Some(Do::Close), true) => continue,
                },
                Step::Stray(which) if pending.is_none() => match which {
                    0 => Event::Opened,
                    1 => Event::Switched,
                    2 => Event::Checked { as_told: false },
                    _ => failed(),
                },
                Step::Stray(_) => continue,
            };
            let actions = link.step(ms(now), event);
            for answer in &actions.told {
                if let Told::Answer { order, .. } = answer {
                    let at = open.iter().position(|command| command.number == *order);
                    prop_assert!(at.is_some(), "answered twice: {order}");
                    open.remove(at.unwrap_or(0));
                }
            }
            // At most the order under way and the waiting one are open.
            prop_assert!(open.len() <= 2, "{open:?}");
            match actions.device {
                None => {}
                Some(Do::Close) => {
                    settled = false;
                    pending = None;
                    prop_assert!(open.is_empty());
                }
                Some(device) => {
                    prop_assert_eq!(pending, None, "one thing at a time");
                    match device {
                        Do::Open(on) => prop_assert_eq!(on, locked),
                        Do::Switch(on) if !settled => prop_assert_eq!(on, locked),
                        Do::Switch(on) => {
                            let ordered = open.iter().any(|command| command.on == on);
                            let abandoned = actions.told.contains(&Told::Abandoned) && !on;
                            prop_assert!(on == locked || ordered || on == told || abandoned);
                        }
                        Do::Check(on) => prop_assert_eq!(on, told),
                        Do::Close => {}
                    }
                    pending = Some(device);
                }
            }
            if let Some(due) = link.due() {
                prop_assert!(due <= ms(now) + ms(10_000));
            }
        }
    }
}
