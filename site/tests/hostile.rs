//! A broker, a stranger or a locked-out door that lies: nothing that they send changes
//! anything, and what they withhold ends the lease.

mod world;

use facelatch_crypto::Secret;
use facelatch_site::{Code, Effect, Member, Policy, Refusal};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::LazyLock;
use world::{GROUPS, Message, START_MS, World, strings};

const DAY_MS: u64 = 86_400_000;

/// A site in which something of every kind was published, and what was.
fn busy() -> World {
    let mut world = World::new(3);
    let people: Vec<_> = (0..12).filter_map(|at| world.enroll(at % 3, GROUPS[at % 2])).collect();
    world.settle();
    world.remove(1, people[0]);
    let effects = world.office.revoke_person(people[1], world.now_ms).expect("a person");
    world.carry_office(effects);
    let effects = world.office.offer_models("2026.12", &[7; 250_000]).expect("models");
    world.carry_office(effects);
    let now = world.now_ms;
    let effects = world.doors[0].member.passage(people[2], true, now).expect("a passage");
    world.carry(0, effects);
    world.settle();
    world
}

/// Made once: keys and signatures take time.
static HISTORY: LazyLock<Vec<Message>> = LazyLock::new(|| busy().broker.history);

fn snapshot(world: &World, at: usize) -> (BTreeMap<String, Vec<u8>>, usize, String) {
    let door = &world.doors[at];
    let standing = format!("{:?}", door.member.standing(world.now_ms));
    (door.kept.clone(), door.gallery.len(), standing)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_cut_or_displaced_record_changes_nothing(
        places in prop::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u8..8, 0u8..4),
            300,
        ),
    ) {
        let mut world = busy();
        let before: Vec<_> = (0..3).map(|at| snapshot(&world, at)).collect();
        let people = world.people();
        for (which, at, bit, how) in places {
            let mut message = HISTORY[which.index(HISTORY.len())].clone();
            if message.bytes.is_empty() {
                continue;
            }
            match how {
                0 => {
                    let at = at.index(message.bytes.len());
                    message.bytes[at] ^= 1 << bit;
                }
                1 => message.bytes.truncate(at.index(message.bytes.len())),
                2 => message.bytes.push(bit),
                _ => {
                    let other = &HISTORY[at.index(HISTORY.len())];
                    if other.topic == message.topic {
                        continue;
                    }
                    message.topic.clone_from(&other.topic);
                }
            }
            (0..=3).for_each(|who| world.hear(who, &message));
        }
        // Requests to join that were displaced are nobody's.
        prop_assert_eq!(world.office.doors().len(), 3);
        prop_assert_eq!(world.people(), people);
        for (at, before) in before.into_iter().enumerate() {
            prop_assert_eq!(snapshot(&world, at), before);
        }
    }

    #[test]
    fn whatever_is_repeated_nothing_goes_back(
        order in prop::collection::vec(any::<prop::sample::Index>(), 300),
    ) {
        let mut world = busy();
        let people = world.people();
        let have = |world: &World, at: usize| {
            let mut have = world.doors[at].member.have(0);
            have.refused = 0;
            have
        };
        let before: Vec<_> = (0..3).map(|at| have(&world, at)).collect();
        // Only what this world said itself: the keys are the same, but nonces are not.
        let history = world.broker.history.clone();
        for which in order {
            let message = history[which.index(history.len())].clone();
            (0..=3).for_each(|who| world.hear(who, &message));
        }
        prop_assert_eq!(world.people(), people.clone());
        for (at, before) in before.iter().enumerate() {
            prop_assert_eq!(&have(&world, at), before);
            prop_assert_eq!(world.gallery(at), people.clone());
        }
    }

    #[test]
    fn any_bytes_are_refused(
        topic in "(people|keys|join|have|manifest|revoked|listing|.{0,9})(/[0-9a-f]{0,32}){0,3}",
        bytes in prop::collection::vec(any::<u8>(), 1..400),
    ) {
        let mut world = World::new(1);
        let before = snapshot(&world, 0);
        let now = world.now_ms;
        let effects = world.doors[0].member.hear(&topic, &bytes, now);
        prop_assert!(matches!(effects[..], [Effect::Refused(_)] | []), "{effects:?}");
        prop_assert!(matches!(world.office.hear(&topic, &bytes, now)[..], [Effect::Refused(_)]));
        prop_assert_eq!(snapshot(&world, 0), before);
    }
}

#[test]
fn records_of_another_site_are_refused() {
    let mut world = busy();
    let other = {
        let mut other = World::with(2, 9);
        other.enroll(0, "staff");
        other.settle();
        other.broker.history
    };
    let before = snapshot(&world, 0);
    for message in other.iter().filter(|message| !message.bytes.is_empty()) {
        let now = world.now_ms;
        let effects = world.doors[0].member.hear(&message.topic, &message.bytes, now);
        assert_eq!(effects, [Effect::Refused(Refusal::Site)], "{}", message.topic);
        world.hear(0, message);
    }
    assert_eq!(snapshot(&world, 0), before);
    assert_eq!(world.office.doors().len(), 3);
}

#[test]
fn a_removal_wins_over_a_later_change() {
    let mut world = World::new(2);
    let ada = world.enroll(0, "staff").expect("enrolled");
    world.settle();
    world.disconnect(1);
    world.remove(0, ada);
    world.settle();
    // The other door has not heard of it.
    world.now_ms += 60_000;
    let mut person = world.doors[1].gallery[&ada].clone();
    person.name = "Ada Lovelace".to_owned();
    assert!(world.put(1, person.clone()).is_some());
    assert!(world.converge().is_some());
    assert!(world.people().is_empty());
    assert!(world.gallery(0).is_empty() && world.gallery(1).is_empty());
    // Nor can anybody bring the id back.
    assert_eq!(world.put(0, person), None);
}

#[test]
fn a_door_that_was_away_for_a_month_or_for_years_converges() {
    for away_ms in [30 * DAY_MS, 900 * DAY_MS, 2_000 * DAY_MS] {
        let mut world = World::new(3);
        let people: Vec<_> = (0..20).filter_map(|_| world.enroll(0, "staff")).collect();
        world.settle();
        world.disconnect(2);
        for person in &people[..10] {
            world.remove(0, *person);
        }
        let late = world.enroll(1, "cleaners").expect("enrolled");
        // One more was enrolled at the door that is away.
        let there = world.enroll(2, "staff").expect("enrolled");
        world.settle();
        // Nobody hears anything while so much time passes.
        for _ in 0..20 {
            world.pass(away_ms / 20);
            world.deliver_all();
        }
        assert_eq!(world.gallery(2).len(), 21);
        assert!(world.doors[2].member.standing(world.now_ms).fault.is_some(), "the lease is over");
        assert!(world.converge().is_some(), "after {} days", away_ms / DAY_MS);
        let now = world.people();
        assert!(people[..10].iter().all(|person| !now.contains_key(person)));
        assert!(people[10..].iter().chain([&late]).all(|person| now.contains_key(person)));
        // A record as old as a forgotten removal cannot be told from one of somebody removed.
        assert_eq!(now.contains_key(&there), away_ms < 800 * DAY_MS);
        assert_eq!(world.gallery(2), now);
    }
}

#[test]
fn a_withheld_revocation_ends_the_lease_of_that_door() {
    let mut world = World::new(2);
    let ada = world.enroll(0, "staff").expect("enrolled");
    world.settle();
    let lease = |world: &World| world.doors[1].member.standing(world.now_ms).lease_until_ms;
    let before = lease(&world).expect("a lease");
    let effects = world.office.revoke_person(ada, world.now_ms).expect("a person");
    world.carry_office(effects);
    // The broker keeps all news of her from one door, and passes new leases on.
    let withheld =
        |topic: &str| ["revoked", "people", "listing"].iter().any(|word| topic.starts_with(word));
    for _ in 0..20 * 24 {
        for who in 0..3 {
            while let Some(message) = world.broker.connections[who].queue.pop_front() {
                if who < 2 || !withheld(&message.topic) {
                    world.hear(who, &message);
                }
            }
        }
        world.pass(3_600_000);
    }
    assert!(!world.gallery(0).contains_key(&ada));
    assert!(world.gallery(1).contains_key(&ada), "she is withheld");
    assert!(world.doors[0].member.standing(world.now_ms).fault.is_none());
    assert_eq!(lease(&world), Some(before), "no newer lease counts");
    assert!(world.doors[1].member.standing(world.now_ms).fault.is_some());
    // Any one of the three is enough to know that she is out.
    assert!(world.converge().is_some());
    world.settle();
    assert!(world.gallery(1).is_empty());
    assert!(lease(&world) > Some(before));
}

#[test]
fn a_removal_in_a_listing_is_enough() {
    let mut world = World::new(2);
    let ada = world.enroll(0, "staff").expect("enrolled");
    world.settle();
    world.disconnect(1);
    world.remove(0, ada);
    world.settle();
    world.broker.retained.retain(|topic, _| !topic.starts_with("people"));
    world.disconnect_office();
    world.connect(1);
    world.settle();
    assert!(world.gallery(1).is_empty());
    assert_eq!(world.doors[1].member.standing(world.now_ms).missing, 0);
}

#[test]
fn a_door_that_is_locked_out_reads_and_writes_nothing_any_more() {
    let mut world = World::new(3);
    let ada = world.enroll(0, "staff").expect("enrolled");
    let eve = world.enroll(2, "staff").expect("enrolled");
    world.settle();
    let door = world.doors[2].member.id();
    // It is stolen, and not connected when it is locked out.
    world.disconnect(2);
    let effects = world.office.revoke_door(door, None, world.now_ms).expect("a door");
    world.carry_office(effects);
    world.settle();
    assert_eq!(world.office.doors().len(), 2);
    // Whom it enrolled is still there, unless the office distrusts it.
    assert!(world.gallery(0).contains_key(&eve));
    let grace = world.enroll(0, "staff").expect("enrolled");
    world.settle();
    // Its thief reads everything that the broker has, and writes.
    let retained = world.broker.retained.clone();
    for (topic, bytes) in &retained {
        let message = Message { topic: topic.clone(), bytes: bytes.clone() };
        world.hear(3, &message);
    }
    assert!(!world.doors[2].gallery.contains_key(&grace));
    assert!(world.doors[2].refused.contains_key(&Refusal::Epoch));
    let mallory = world.new_person("staff");
    let effects = world.doors[2].member.put(mallory.clone(), world.now_ms).expect("a record");
    let Some(Effect::Publish { topic, bytes, .. }) = effects.last().cloned() else {
        panic!("it is published")
    };
    for who in 0..3 {
        let message = Message { topic: topic.clone(), bytes: bytes.clone() };
        world.hear(who, &message);
    }
    assert_eq!(world.doors[0].refused.get(&Refusal::LockedOut), Some(&1));
    world.settle();
    let expected = [ada, eve, grace].into_iter().collect::<std::collections::BTreeSet<_>>();
    for at in 0..2 {
        assert_eq!(
            world.gallery(at).into_keys().collect::<std::collections::BTreeSet<_>>(),
            expected
        );
    }
    // A new door gets them all, sealed with the new key and signed by the office.
    let new = world.add_door(&GROUPS, false);
    world.settle();
    assert_eq!(world.gallery(new).len(), 3);
}

#[test]
fn a_door_that_hears_that_it_is_locked_out_forgets_everybody() {
    let mut world = World::new(2);
    world.enroll(0, "staff").expect("enrolled");
    world.settle();
    let door = world.doors[1].member.id();
    let keys: Vec<Message> = world.broker.history.clone();
    let effects = world.office.revoke_door(door, None, world.now_ms).expect("a door");
    world.carry_office(effects);
    world.settle();
    assert!(world.doors[1].expelled && world.doors[1].gallery.is_empty());
    assert_eq!(world.doors[1].kept.keys().collect::<Vec<_>>(), ["expelled"]);
    // Neither old keys nor a restart bring it back.
    world.restart(1);
    world.connect(1);
    for message in &keys {
        world.hear(2, message);
    }
    assert!(world.doors[1].member.certificate().is_none());
    assert!(world.doors[1].gallery.is_empty());
}

#[test]
fn people_whom_a_distrusted_door_wrote_are_removed() {
    let mut world = World::new(2);
    let ada = world.enroll(1, "staff").expect("enrolled");
    world.settle();
    let since = world.now_ms;
    let eve = world.enroll(1, "staff").expect("enrolled");
    world.settle();
    let door = world.doors[1].member.id();
    let effects = world.office.revoke_door(door, Some(since), world.now_ms).expect("a door");
    world.carry_office(effects);
    assert!(world.converge().is_some());
    assert!(world.gallery(0).contains_key(&ada) && !world.gallery(0).contains_key(&eve));
}

#[test]
fn a_clock_that_is_far_ahead_wins_nothing() {
    let mut world = World::new(2);
    let ada = world.enroll(0, "staff").expect("enrolled");
    world.settle();
    world.doors[1].ahead_ms = 365 * DAY_MS as i64;
    let mut person = world.doors[1].gallery[&ada].clone();
    person.name = "Eve".to_owned();
    assert!(world.put(1, person).is_some());
    world.settle();
    assert_eq!(world.gallery(0)[&ada], "Person 1");
    assert!(world.doors[0].refused.contains_key(&Refusal::Ahead));
    // Others may change and remove her.
    assert!(world.remove(0, ada));
    world.doors[1].ahead_ms = 0;
    assert!(world.converge().is_some());
    assert!(world.gallery(1).is_empty());
}

#[test]
fn a_door_whose_clock_is_far_behind_hears_everything() {
    let mut world = World::new(2);
    world.doors[1].ahead_ms = -(START_MS as i64) + 5_000;
    let ada = world.enroll(0, "staff").expect("enrolled");
    world.settle();
    assert!(world.gallery(1).contains_key(&ada));
    // What it writes is newer than what it knows.
    let mut person = world.doors[1].gallery[&ada].clone();
    person.name = "Ada Lovelace".to_owned();
    world.put(1, person);
    assert!(world.converge().is_some());
    assert_eq!(world.gallery(0)[&ada], "Ada Lovelace");
}

#[test]
fn doors_write_only_their_own_groups_and_only_if_they_may() {
    let mut world = World::new(1);
    let reader = world.add_door(&GROUPS, false);
    let cleaners = world.add_door(&["cleaners"], true);
    world.settle();
    assert_eq!(world.enroll(reader, "staff"), None);
    assert_eq!(world.enroll(cleaners, "staff"), None);
    let ada = world.enroll(0, "staff").expect("enrolled");
    let bob = world.enroll(cleaners, "cleaners").expect("enrolled");
    world.settle();
    assert!(!world.remove(reader, bob));
    assert_eq!(world.gallery(cleaners).into_keys().collect::<Vec<_>>(), [bob]);
    assert_eq!(world.gallery(reader).len(), 2);
    // A door that gets fewer groups forgets people of the others.
    let door = world.doors[0].member.id();
    let effects = world.office.change_door(door, &strings(&["cleaners"]), true).expect("a door");
    world.carry_office(effects);
    world.settle();
    assert!(!world.gallery(0).contains_key(&ada));
    assert!(world.converge().is_some());
}

#[test]
fn an_administrator_of_one_door_is_none_elsewhere_without_the_policys_leave() {
    let mut world = World::new(2);
    let mut person = world.new_person("staff");
    person.administrator = true;
    let ada = world.put(0, person).expect("enrolled");
    world.settle();
    let is = |world: &World, at: usize| world.doors[at].gallery[&ada].administrator;
    assert!(is(&world, 0) && !is(&world, 1));
    for leave in [true, false] {
        let policy = Policy { administrators_from_doors: leave, ..world.office.policy().clone() };
        let effects = world.office.set_policy(policy).expect("a policy");
        world.carry_office(effects);
        world.settle();
        assert_eq!(is(&world, 1), leave);
    }
    // The office may make one.
    let person = world.office.person(ada).expect("a person").person;
    let effects = world.office.put_person(person, world.now_ms).expect("changed");
    world.carry_office(effects);
    world.settle();
    assert!(is(&world, 1));
}

#[test]
fn a_door_joins_with_the_code_only_and_only_in_time() {
    let mut world = World::new(0);
    let at = world.new_door();
    let (code, other) = (Code::random().expect("random"), Code::random().expect("random"));
    let admitted = |world: &World| world.doors[at].member.certificate().is_some();
    let now = world.now_ms;
    world.office.invite(&code, "front", &strings(&["staff"]), true, now).expect("invited");
    let ask = |world: &mut World, code: &Code| {
        let effects = world.doors[at].member.join(code, "front").expect("a request");
        world.carry(at, effects);
        world.deliver_all();
    };
    ask(&mut world, &other);
    assert!(!admitted(&world));
    // Too late.
    world.now_ms += facelatch_site::CODE_MS;
    ask(&mut world, &code);
    assert!(!admitted(&world));
    let now = world.now_ms;
    world.office.invite(&code, "front", &strings(&["staff"]), true, now).expect("invited");
    // Somebody else heard the request, and sends it again as their own.
    let effects = world.doors[at].member.join(&code, "front").expect("a request");
    let Some(Effect::Publish { topic, bytes, .. }) = effects.first().cloned() else { panic!() };
    let thief = Member::new(&Secret::new([250; 32]), world.office.public(), []);
    let stolen = Message { topic: format!("join/{}", thief.id()), bytes: bytes.clone() };
    world.hear(0, &stolen);
    assert!(world.office.doors().is_empty());
    world.hear(0, &Message { topic: topic.clone(), bytes: bytes.clone() });
    world.deliver_all();
    assert!(admitted(&world));
    assert_eq!(world.office.doors()[0].certificate.name, "front");
    // The code is used up.
    let before = world.office.refused()[&Refusal::Unasked];
    world.hear(0, &Message { topic, bytes });
    assert_eq!(world.office.refused()[&Refusal::Unasked], before + 1);
    assert_eq!(world.office.doors().len(), 1);
}

#[test]
fn a_flood_of_one_door_is_cut_off_and_others_are_heard() {
    let mut world = World::new(2);
    let ada = world.enroll(0, "staff").expect("enrolled");
    let bob = world.enroll(1, "staff").expect("enrolled");
    world.settle();
    let mut last = String::new();
    for number in 0..10_100 {
        let mut person = world.doors[0].gallery[&ada].clone();
        person.name = format!("Ada {number}");
        last.clone_from(&person.name);
        let now = world.now_ms;
        let effects = world.doors[0].member.put(person.clone(), now).expect("changed");
        let Some(Effect::Publish { topic, bytes, .. }) = effects.last().cloned() else { panic!() };
        let effects = world.doors[1].member.hear(&topic, &bytes, now);
        world.carry(1, effects);
        if number == 10_099 {
            world.doors[0].gallery.insert(ada, person);
            world.broker.publish(&topic, &bytes, true);
        }
    }
    assert!(world.doors[1].refused[&Refusal::Rate] >= 90);
    assert!(world.remove(1, bob));
    assert!(world.converge().is_some());
    assert_eq!(world.gallery(1)[&ada], last);
    assert!(!world.gallery(0).contains_key(&bob));
}

#[test]
fn an_office_that_was_set_back_goes_on_from_its_newest_records() {
    let mut world = World::new(2);
    let ada = world.enroll(0, "staff").expect("enrolled");
    world.settle();
    let old = world.office_kept.clone();
    let effects = world.office.revoke_person(ada, world.now_ms).expect("a person");
    world.carry_office(effects);
    let bob = world.enroll(0, "staff").expect("enrolled");
    world.settle();
    world.office_kept = old;
    world.restart_office();
    assert!(world.converge().is_some());
    assert_eq!(world.people().into_keys().collect::<Vec<_>>(), [bob]);
    // And it is obeyed again.
    let effects = world.office.revoke_person(bob, world.now_ms).expect("a person");
    world.carry_office(effects);
    assert!(world.converge().is_some());
    assert!(world.gallery(1).is_empty());
}

#[test]
fn what_is_damaged_in_a_doors_store_is_fetched_again() {
    let mut world = busy();
    let people = world.people();
    for (number, bytes) in world.doors[1].kept.values_mut().enumerate() {
        match number % 3 {
            0 => bytes.truncate(bytes.len() / 2),
            1 => bytes.iter_mut().take(60).for_each(|byte| *byte ^= 0x55),
            _ => {}
        }
    }
    world.restart(1);
    assert!(world.converge().is_some());
    assert_eq!(world.people(), people);
}

#[test]
fn a_new_door_of_a_large_site_fetches_it_in_parts() {
    let mut world = World::new(1);
    for _ in 0..1_200 {
        world.enroll(0, "staff").expect("enrolled");
        world.deliver(0);
    }
    world.settle();
    let new = world.add_door(&GROUPS, true);
    world.settle();
    assert_eq!(world.gallery(new).len(), 1_200);
    let filters = world.doors[new].member.filters();
    let whole = filters.iter().filter(|filter| filter.ends_with("/+/+")).count();
    let parts = filters.iter().filter(|filter| filter.starts_with("people/")).count() - whole;
    assert_eq!((whole, parts), (1, 16));
    assert!(filters.len() <= 60);
}

#[test]
fn somebody_moved_renamed_and_removed_at_three_doors_at_once_is_gone() {
    let mut world = World::new(4);
    let ada = world.enroll(0, "staff").expect("enrolled");
    world.settle();
    world.disconnect(0);
    let mut moved = world.doors[2].gallery[&ada].clone();
    let mut renamed = moved.clone();
    moved.group = "cleaners".to_owned();
    renamed.name = "Ada Lovelace".to_owned();
    world.put(2, moved);
    world.remove(0, ada);
    world.put(3, renamed);
    assert!(world.converge().is_some());
    assert!((0..4).all(|at| world.gallery(at).is_empty()));
}
