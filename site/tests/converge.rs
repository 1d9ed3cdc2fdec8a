//! Doors that heard the same agree, whatever happened on the way.

mod world;

use facelatch_site::PersonId;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use world::{GROUPS, World};

const DOORS: usize = 4;

/// What may happen to a site.
#[derive(Clone, Debug)]
enum Step {
    Enroll { door: usize, group: usize },
    Rename { door: usize, person: usize },
    Move { door: usize, person: usize },
    Remove { door: usize, person: usize },
    OfficeRemoves { person: usize },
    Deliver { who: usize, count: usize },
    Lose { who: usize, at: usize },
    Repeat { who: usize, at: usize },
    Swap { who: usize, at: usize },
    Replay { who: usize, at: usize },
    Pass { ms: u64 },
    Cut { door: usize },
    Heal { door: usize },
    CutOffice,
    HealOffice,
    Restart { door: usize },
    RestartOffice,
    SaveBroker,
    KillBroker,
    Empty { at: usize },
    Rotate,
}

fn steps() -> impl Strategy<Value = Step> {
    let door = 0..DOORS;
    let (who, person, at) = (0..=DOORS, 0..20usize, 0..1000usize);
    prop_oneof![
        4 => (door.clone(), 0..2usize).prop_map(|(door, group)| Step::Enroll { door, group }),
        2 => (door.clone(), person.clone()).prop_map(|(door, person)| Step::Rename { door, person }),
        1 => (door.clone(), person.clone()).prop_map(|(door, person)| Step::Move { door, person }),
        2 => (door.clone(), person.clone()).prop_map(|(door, person)| Step::Remove { door, person }),
        1 => person.prop_map(|person| Step::OfficeRemoves { person }),
        4 => (who.clone(), 1..20usize).prop_map(|(who, count)| Step::Deliver { who, count }),
        1 => (who.clone(), at.clone()).prop_map(|(who, at)| Step::Lose { who, at }),
        1 => (who.clone(), at.clone()).prop_map(|(who, at)| Step::Repeat { who, at }),
        1 => (who.clone(), at.clone()).prop_map(|(who, at)| Step::Swap { who, at }),
        2 => (who, at.clone()).prop_map(|(who, at)| Step::Replay { who, at }),
        2 => (1..100_000u64).prop_map(|ms| Step::Pass { ms }),
        1 => door.clone().prop_map(|door| Step::Cut { door }),
        1 => door.clone().prop_map(|door| Step::Heal { door }),
        1 => Just(Step::CutOffice),
        1 => Just(Step::HealOffice),
        1 => door.prop_map(|door| Step::Restart { door }),
        1 => Just(Step::RestartOffice),
        1 => Just(Step::SaveBroker),
        1 => Just(Step::KillBroker),
        1 => at.prop_map(|at| Step::Empty { at }),
        1 => Just(Step::Rotate),
    ]
}

struct Play {
    world: World,
    people: Vec<PersonId>,
    removed: BTreeSet<PersonId>,
    saved: BTreeMap<String, Vec<u8>>,
}

impl Play {
    fn new() -> Self {
        let world = World::new(DOORS);
        let saved = world.broker.retained.clone();
        Self { world, people: Vec::new(), removed: BTreeSet::new(), saved }
    }

    fn person(&self, at: usize) -> Option<PersonId> {
        (!self.people.is_empty()).then(|| self.people[at % self.people.len()])
    }

    fn step(&mut self, step: &Step) {
        let world = &mut self.world;
        match step.clone() {
            Step::Enroll { door, group } => {
                self.people.extend(world.enroll(door, GROUPS[group]));
            }
            Step::Rename { door, person } => {
                let Some(id) = self.person(person) else { return };
                let world = &mut self.world;
                if let Some(mut person) = world.doors[door].gallery.get(&id).cloned() {
                    person.name.push('x');
                    world.put(door, person);
                }
            }
            Step::Move { door, person } => {
                let Some(id) = self.person(person) else { return };
                let world = &mut self.world;
                if let Some(mut person) = world.doors[door].gallery.get(&id).cloned() {
                    let other = usize::from(person.group == GROUPS[0]);
                    person.group = GROUPS[other].to_owned();
                    world.put(door, person);
                }
            }
            Step::Remove { door, person } => {
                let Some(id) = self.person(person) else { return };
                if self.world.remove(door, id) {
                    self.removed.insert(id);
                }
            }
            Step::OfficeRemoves { person } => {
                let Some(id) = self.person(person) else { return };
                let world = &mut self.world;
                if let Ok(effects) = world.office.revoke_person(id, world.now_ms) {
                    world.carry_office(effects);
                    self.removed.insert(id);
                }
            }
            Step::Deliver { who, count } => {
                for _ in 0..count {
                    if let Some(message) = world.broker.connections[who].queue.pop_front() {
                        world.hear(who, &message);
                    }
                }
            }
            Step::Lose { who, at } => {
                let queue = &mut world.broker.connections[who].queue;
                if !queue.is_empty() {
                    queue.remove(at % queue.len());
                }
            }
            Step::Repeat { who, at } => {
                let queue = &mut world.broker.connections[who].queue;
                if !queue.is_empty() {
                    let message = queue[at % queue.len()].clone();
                    queue.push_back(message);
                }
            }
            Step::Swap { who, at } => {
                let queue = &mut world.broker.connections[who].queue;
                if !queue.is_empty() {
                    let length = queue.len();
                    queue.swap(0, at % length);
                }
            }
            Step::Replay { who, at } => {
                let history = &world.broker.history;
                let message = history[at * 7 % history.len()].clone();
                world.hear(who, &message);
            }
            Step::Pass { ms } => world.pass(ms),
            Step::Cut { door } => world.disconnect(door),
            Step::Heal { door } => {
                if !world.broker.connections[door + 1].up {
                    world.connect(door);
                }
            }
            Step::CutOffice => world.disconnect_office(),
            Step::HealOffice => {
                if !world.broker.connections[0].up {
                    world.connect_office();
                }
            }
            Step::Restart { door } => world.restart(door),
            Step::RestartOffice => world.restart_office(),
            Step::SaveBroker => self.saved = world.broker.retained.clone(),
            Step::KillBroker => world.kill_broker(self.saved.clone()),
            Step::Empty { at } => {
                let topics: Vec<String> = world.broker.retained.keys().cloned().collect();
                if let Some(topic) = topics.get(at % topics.len().max(1)) {
                    world.broker.publish(topic, &[], true);
                }
            }
            Step::Rotate => {
                let effects = world.office.rotate(world.now_ms).expect("random numbers");
                world.carry_office(effects);
            }
        }
    }
}

/// Each case takes a fifth of a second.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn doors_agree_in_the_end_and_nobody_removed_comes_back(
        steps in prop::collection::vec(steps(), 1..80),
    ) {
        let mut play = Play::new();
        for step in &steps {
            play.step(step);
        }
        let world = &mut play.world;
        prop_assert!(world.converge().is_some(), "they do not agree");
        // A lease may come a moment after the people.
        world.settle();
        let people = world.people();
        for person in &play.removed {
            prop_assert!(!people.contains_key(person), "a removed person is back");
        }
        for (at, door) in world.doors.iter().enumerate() {
            prop_assert_eq!(&world.gallery(at), &people);
            let standing = door.member.standing(world.now_ms);
            prop_assert_eq!(standing.fault, None);
        }
        // What was known to all stays so after everybody starts again.
        for at in 0..DOORS {
            world.restart(at);
        }
        world.restart_office();
        for at in 0..DOORS {
            let known: BTreeSet<PersonId> = world.doors[at].member.people().collect();
            prop_assert_eq!(known, people.keys().copied().collect());
        }
        prop_assert!(world.converge().is_some());
        prop_assert_eq!(world.people(), people);
    }
}

#[test]
fn passages_that_a_door_missed_for_a_moment_are_heard_once() {
    let mut world = World::new(2);
    let ada = world.enroll(0, GROUPS[0]).expect("a person");
    world.settle();
    let pass = |world: &mut World, at: usize| {
        world.now_ms += 1_000;
        let now = world.now_ms;
        let effects = world.doors[at].member.passage(ada, true, now).expect("a passage");
        world.carry(at, effects);
    };
    let heard = |world: &World| world.doors[1].passages.len();
    pass(&mut world, 0);
    world.settle();
    assert_eq!(heard(&world), 1);
    // The one who hears is away, then the one who tells.
    world.disconnect(1);
    pass(&mut world, 0);
    pass(&mut world, 0);
    world.connect(1);
    world.settle();
    assert_eq!(heard(&world), 3);
    world.disconnect(0);
    pass(&mut world, 0);
    world.connect(0);
    world.settle();
    assert_eq!(heard(&world), 4);
    // Each once, however often the doors come back; and nobody's from long ago.
    for at in [0, 1, 0] {
        world.disconnect(at);
        world.connect(at);
        world.settle();
    }
    assert_eq!(heard(&world), 4);
    world.disconnect(1);
    pass(&mut world, 0);
    world.now_ms += 10 * 60 * 1_000;
    world.connect(1);
    world.settle();
    assert_eq!(heard(&world), 4);
    assert!(world.doors[1].passages.iter().all(|(person, _)| *person == ada));
}

#[test]
fn what_a_broker_drops_for_a_connected_door_is_missed_within_minutes() {
    let mut world = World::new(2);
    let [ada, eve] = [0, 0].map(|at| world.enroll(at, GROUPS[0]).expect("a person"));
    world.settle();
    // The office locks somebody out, somebody is enrolled, and all of it is dropped on its
    // way to one door.
    let effects = world.office.revoke_person(eve, world.now_ms).expect("a person");
    world.carry_office(effects);
    let bob = world.enroll(0, GROUPS[0]).expect("a person");
    for _ in 0..10 {
        world.broker.connections[2].queue.clear();
        (0..2).for_each(|who| world.deliver(who));
        world.pass(5_000);
    }
    world.broker.connections[2].queue.clear();
    let people = |world: &World| world.gallery(1).keys().copied().collect::<BTreeSet<_>>();
    assert_eq!(people(&world), [ada, eve].into());
    let begun = world.now_ms;
    while people(&world) != [ada, bob].into() {
        world.deliver_all();
        world.pass(5_000);
        assert!(world.now_ms - begun < 15 * 60_000, "{:?}", people(&world));
    }
}
