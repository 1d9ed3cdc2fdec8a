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

fn order(number: u32, on: bool) -> Input {
    Input::Order(Command { number, on, at_most: None })
}

fn order_for(number: u32, on: bool, at_most: u64) -> Input {
    Input::Order(Command { number, on, at_most: Some(ms(at_most)) })
}

fn failed() -> Input {
    Input::Failed("no such file".to_owned())
}

fn taken(order: u32) -> RelayEvent {
    RelayEvent::Answer { order, taken: true, error: None }
}

fn away() -> RelayEvent {
    RelayEvent::Away { error: "no such file".to_owned() }
}

#[track_caller]
fn expect(
    link: &mut Link,
    now: u64,
    input: Input,
    device: Option<DeviceAction>,
    events: &[RelayEvent],
) {
    let output = link.step(ms(now), input.clone());
    assert_eq!((output.device, &output.events[..]), (device, events), "{now} {input:?}");
}

fn present(settings: LinkSettings) -> Link {
    let mut link = Link::new(ms(0), settings);
    expect(&mut link, 0, Input::Tick, Some(DeviceAction::Open(settings.locked)), &[]);
    expect(&mut link, 0, Input::Opened, Some(DeviceAction::Switch(settings.locked)), &[]);
    expect(&mut link, 0, Input::Switched, None, &[]);
    link
}

#[test]
fn the_relay_locks_first_and_then_follows_orders() {
    for locked in [false, true] {
        let mut link = present(LinkSettings { locked, ..SETTINGS });
        expect(&mut link, 100, order(1, !locked), Some(DeviceAction::Switch(!locked)), &[]);
        expect(&mut link, 110, Input::Switched, None, &[taken(1)]);
    }
}

#[test]
fn an_order_that_comes_while_it_is_being_opened_waits() {
    let mut link = Link::new(ms(0), SETTINGS);
    expect(&mut link, 0, Input::Tick, Some(DeviceAction::Open(false)), &[]);
    expect(&mut link, 0, order(1, false), None, &[]);
    expect(&mut link, 9, Input::Opened, Some(DeviceAction::Switch(false)), &[]);
    expect(&mut link, 9, Input::Switched, Some(DeviceAction::Switch(false)), &[]);
    expect(&mut link, 9, Input::Switched, None, &[taken(1)]);
}

#[test]
fn of_two_orders_that_wait_the_later_counts() {
    let mut link = present(SETTINGS);
    expect(&mut link, 0, order(1, true), Some(DeviceAction::Switch(true)), &[]);
    expect(&mut link, 1, order(2, false), None, &[]);
    let error = Some("superseded by a later order".to_owned());
    let superseded = RelayEvent::Answer { order: 2, taken: false, error };
    expect(&mut link, 2, order(3, true), None, &[superseded]);
    expect(&mut link, 3, Input::Switched, Some(DeviceAction::Switch(true)), &[taken(1)]);
    expect(&mut link, 4, Input::Switched, None, &[taken(3)]);
}

#[test]
fn unplugged_it_takes_nothing_and_comes_back_locked() {
    let mut link = present(SETTINGS);
    expect(&mut link, 0, order(1, true), Some(DeviceAction::Switch(true)), &[]);
    expect(&mut link, 0, Input::Switched, None, &[taken(1)]);
    expect(&mut link, 999, Input::Tick, None, &[]);
    expect(&mut link, 1000, Input::Tick, Some(DeviceAction::Check(true)), &[]);
    expect(&mut link, 1000, failed(), Some(DeviceAction::Close), &[away()]);
    let error = Some("the relay has been unreachable for 0 seconds: no such file".to_owned());
    expect(
        &mut link,
        1100,
        order(2, true),
        None,
        &[RelayEvent::Answer { order: 2, taken: false, error }],
    );
    // The same fault is not reported again.
    for at in [1200, 1600, 2400, 4000, 7200, 12_200, 17_200] {
        expect(&mut link, at - 1, Input::Tick, None, &[]);
        expect(&mut link, at, Input::Tick, Some(DeviceAction::Open(false)), &[]);
        expect(&mut link, at, failed(), Some(DeviceAction::Close), &[]);
    }
    let denied = || "permission denied".to_owned();
    expect(&mut link, 22_200, Input::Tick, Some(DeviceAction::Open(false)), &[]);
    let away = RelayEvent::Away { error: denied() };
    expect(&mut link, 22_200, Input::Failed(denied()), Some(DeviceAction::Close), &[away]);
    expect(&mut link, 27_200, Input::Tick, Some(DeviceAction::Open(false)), &[]);
    expect(&mut link, 27_200, Input::Opened, Some(DeviceAction::Switch(false)), &[]);
    let back = RelayEvent::Back { away: ms(26_200) };
    expect(&mut link, 27_200, Input::Switched, None, &[back]);
    expect(&mut link, 27_300, order(3, true), Some(DeviceAction::Switch(true)), &[]);
}

#[test]
fn a_missing_relay_is_reported_once_and_when_it_comes() {
    let mut link = Link::new(ms(0), SETTINGS);
    expect(&mut link, 0, Input::Tick, Some(DeviceAction::Open(false)), &[]);
    expect(&mut link, 0, failed(), Some(DeviceAction::Close), &[away()]);
    expect(&mut link, 200, Input::Tick, Some(DeviceAction::Open(false)), &[]);
    expect(&mut link, 200, Input::Opened, Some(DeviceAction::Switch(false)), &[]);
    // A port that opens but does not accept the command counts as unreachable.
    expect(&mut link, 200, failed(), Some(DeviceAction::Close), &[]);
    expect(&mut link, 600, Input::Tick, Some(DeviceAction::Open(false)), &[]);
    expect(&mut link, 600, Input::Opened, Some(DeviceAction::Switch(false)), &[]);
    expect(&mut link, 600, Input::Switched, None, &[RelayEvent::Back { away: ms(600) }]);
}

#[test]
fn a_relay_that_drifts_gets_the_order_again() {
    let mut link = present(SETTINGS);
    expect(&mut link, 5000, Input::Tick, Some(DeviceAction::Check(false)), &[]);
    let drifted = RelayEvent::Drifted { on: false };
    expect(
        &mut link,
        5000,
        Input::Checked { as_ordered: false },
        Some(DeviceAction::Switch(false)),
        &[drifted],
    );
    expect(&mut link, 5000, Input::Switched, None, &[]);
    expect(&mut link, 10_000, Input::Tick, Some(DeviceAction::Check(false)), &[]);
    expect(&mut link, 10_000, order(1, true), None, &[]);
    expect(
        &mut link,
        10_000,
        Input::Checked { as_ordered: true },
        Some(DeviceAction::Switch(true)),
        &[],
    );
}

#[test]
fn a_silent_service_does_not_hold_the_door_open() {
    let mut link = present(LinkSettings { check_every: [None; 2], ..SETTINGS });
    assert_eq!(link.due(), None);
    expect(&mut link, 0, order(1, true), Some(DeviceAction::Switch(true)), &[]);
    expect(&mut link, 0, Input::Switched, None, &[taken(1)]);
    expect(&mut link, 9000, Input::Heard, None, &[]);
    assert_eq!(link.due(), Some(ms(19_000)));
    expect(&mut link, 18_999, Input::Tick, None, &[]);
    expect(
        &mut link,
        19_000,
        Input::Tick,
        Some(DeviceAction::Switch(false)),
        &[RelayEvent::Abandoned],
    );
    expect(&mut link, 19_000, Input::Switched, None, &[]);
    assert_eq!(link.due(), None);
}

#[test]
fn while_the_machine_stood_still_nobody_was_silent() {
    let mut link = present(LinkSettings { check_every: [None; 2], ..SETTINGS });
    expect(&mut link, 0, order(1, true), Some(DeviceAction::Switch(true)), &[]);
    expect(&mut link, 0, Input::Switched, None, &[taken(1)]);
    expect(&mut link, 60_000, Input::Overslept, None, &[]);
    expect(&mut link, 60_000, Input::Tick, None, &[]);
    expect(
        &mut link,
        70_000,
        Input::Tick,
        Some(DeviceAction::Switch(false)),
        &[RelayEvent::Abandoned],
    );
    // Before its first sign of life the service cannot be silent.
    let mut link = present(LinkSettings { check_every: [None; 2], ..SETTINGS });
    expect(&mut link, 60_000, Input::Overslept, None, &[]);
    assert_eq!(link.due(), None);
}

#[test]
fn an_order_ends_after_its_maximum_on_time() {
    for locked in [false, true] {
        let settings = LinkSettings { locked, check_every: [None; 2], silence: None };
        let mut link = present(settings);
        expect(&mut link, 0, order_for(1, !locked, 5000), Some(DeviceAction::Switch(!locked)), &[]);
        // The device took 700 ms.
        expect(&mut link, 700, Input::Switched, None, &[taken(1)]);
        assert_eq!(link.due(), Some(ms(5700)));
        expect(&mut link, 5000, Input::Heard, None, &[]);
        expect(&mut link, 5699, Input::Tick, None, &[]);
        expect(
            &mut link,
            5700,
            Input::Tick,
            Some(DeviceAction::Switch(locked)),
            &[RelayEvent::Expired],
        );
        expect(&mut link, 5700, Input::Switched, None, &[]);
        assert_eq!(link.due(), None);
        // A repetition after the end of the on-time does not switch again.
        expect(&mut link, 5800, order_for(1, !locked, 5000), None, &[]);
        expect(&mut link, 60_000, Input::Tick, None, &[]);
    }
}

#[test]
fn the_same_order_once_more_has_more_time_or_no_end() {
    let mut link = present(LinkSettings { check_every: [None; 2], silence: None, ..SETTINGS });
    expect(&mut link, 0, order_for(1, true, 5000), Some(DeviceAction::Switch(true)), &[]);
    expect(&mut link, 0, Input::Switched, None, &[taken(1)]);
    expect(&mut link, 4000, order_for(1, true, 5000), None, &[]);
    expect(&mut link, 8999, Input::Tick, None, &[]);
    assert_eq!(link.due(), Some(ms(9000)));
    expect(&mut link, 8999, order(1, true), None, &[]);
    assert_eq!(link.due(), None);
    expect(&mut link, 60_000, order_for(1, true, 1000), None, &[]);
    expect(
        &mut link,
        61_000,
        Input::Tick,
        Some(DeviceAction::Switch(false)),
        &[RelayEvent::Expired],
    );
    // Another order number is a new order.
    expect(&mut link, 61_000, order_for(2, true, 1000), None, &[]);
    expect(&mut link, 61_000, Input::Switched, Some(DeviceAction::Switch(true)), &[]);
    expect(&mut link, 61_000, Input::Switched, None, &[taken(2)]);
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
        let mut pending: Option<DeviceAction> = None;
        // The state by the last order that was carried out; locked after every absence.
        let mut ordered_on = locked;
        let mut settled = false;
        for step in steps {
            let event = match step {
                Step::Wait(later) => {
                    now += later;
                    Input::Tick
                }
                Step::Order(on) => {
                    number += 1;
                    open.push(Command { number, on, at_most: None });
                    order(number, on)
                }
                Step::Heard => Input::Heard,
                Step::Answer(well) => match (pending.take(), well) {
                    (None, _) => continue,
                    (Some(DeviceAction::Check(_)), _) if now % 3 == 0 => Input::Checked { as_ordered: well },
                    (Some(_), false) => failed(),
                    (Some(DeviceAction::Open(_)), true) => Input::Opened,
                    (Some(DeviceAction::Check(_)), true) => Input::Checked { as_ordered: true },
                    (Some(DeviceAction::Switch(on)), true) => {
                        ordered_on = on;
                        settled = true;
                        Input::Switched
                    }
                    (Some(DeviceAction::Close), true) => continue,
                },
                Step::Stray(which) if pending.is_none() => match which {
                    0 => Input::Opened,
                    1 => Input::Switched,
                    2 => Input::Checked { as_ordered: false },
                    _ => failed(),
                },
                Step::Stray(_) => continue,
            };
            let output = link.step(ms(now), event);
            for answer in &output.events {
                if let RelayEvent::Answer { order, .. } = answer {
                    let at = open.iter().position(|command| command.number == *order);
                    prop_assert!(at.is_some(), "answered twice: {order}");
                    open.remove(at.unwrap_or(0));
                }
            }
            // At most the order under way and the waiting one are open.
            prop_assert!(open.len() <= 2, "{open:?}");
            match output.device {
                None => {}
                Some(DeviceAction::Close) => {
                    settled = false;
                    pending = None;
                    prop_assert!(open.is_empty());
                }
                Some(device) => {
                    prop_assert_eq!(pending, None, "one thing at a time");
                    match device {
                        DeviceAction::Open(on) => prop_assert_eq!(on, locked),
                        DeviceAction::Switch(on) if !settled => prop_assert_eq!(on, locked),
                        DeviceAction::Switch(on) => {
                            let ordered = open.iter().any(|command| command.on == on);
                            let abandoned = output.events.contains(&RelayEvent::Abandoned) && !on;
                            prop_assert!(on == locked || ordered || on == ordered_on || abandoned);
                        }
                        DeviceAction::Check(on) => prop_assert_eq!(on, ordered_on),
                        DeviceAction::Close => {}
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
