//! An admitted door that signs what it may not.

use crate::book::order_at;
use crate::content::{Content, Lease, Manifest, Passages, PersonContent, Policy, Revoked};
use crate::effect::{Effect, Refusal};
use crate::envelope::{Header, write};
use crate::names::{GroupTag, KeyId, PersonId, Place};
use crate::topic::Topic;
use crate::{Code, Have, Member, Office, Passage};
use facelatch_crypto::{Sealer, Secret};

const NOW_MS: u64 = 1_767_225_600_000;

/// An office, and two doors that it admitted, each with its keys.
fn site() -> (Office, Vec<Member>) {
    let (mut office, _) = Office::new(&Secret::new([1; 32]), []).expect("a new site");
    let mut doors: Vec<Member> = [2, 3]
        .map(|key| Member::new(&Secret::new([key; 32]), office.public(), []))
        .into_iter()
        .collect();
    let mut published = Vec::new();
    for (at, door) in doors.iter().enumerate() {
        let code = Code::random().expect("random numbers");
        let name = format!("door {at}");
        office.invite(&code, &name, &["staff".to_owned()], true, NOW_MS).expect("invited");
        for effect in door.join(&code, &name).expect("a request") {
            if let Effect::Publish { topic, bytes, .. } = effect {
                published.extend(office.hear(&topic, &bytes, NOW_MS));
            }
        }
    }
    published.extend(office.tick(NOW_MS).expect("random numbers"));
    for door in &mut doors {
        // Twice: the first time it has no keys for those of others.
        for effect in published.iter().chain(&published) {
            if let Effect::Publish { topic, bytes, .. } = effect {
                door.hear(topic, bytes, NOW_MS);
            }
        }
        assert!(door.certificate().is_some());
    }
    (office, doors)
}

/// A record that a door makes with all keys that it has.
fn record(
    office: &Office,
    door: &Member,
    author: KeyId,
    topic: Topic,
    content: &impl Content,
) -> Vec<u8> {
    let key = office.epochs.last().expect("a key");
    let sealer = Sealer::new(&Secret::new(key.key));
    let header = Header {
        site: office.site(),
        author,
        signer: door.id(),
        order: order_at(NOW_MS) + 99,
        epoch: key.epoch,
    };
    let sealed = |place: &[u8]| sealer.seal(place, &content.to_bytes());
    write(topic, &header, &door.signer, sealed).expect("random numbers")
}

#[test]
fn a_door_writes_nothing_for_the_office_or_for_another_door() {
    let (mut office, mut doors) = site();
    let victim = doors.pop().expect("two");
    let mut victim = victim;
    let liar = doors.pop().expect("two");
    let (me, other, boss) = (liar.id(), victim.id(), office.site());
    let group = GroupTag::of(boss, "staff");
    let certificate = victim.certificate().expect("admitted").clone();
    let mut records: Vec<(Topic, Vec<u8>)> = Vec::new();
    for author in [me, other, boss] {
        let mut add = |topic: Topic, bytes: Vec<u8>| records.push((topic, bytes));
        let make = |topic: Topic| record(&office, &liar, author, topic, &Revoked::default());
        add(Topic::Revoked, make(Topic::Revoked));
        let topic = Topic::Policy;
        add(topic, record(&office, &liar, author, topic, &Policy::default()));
        let topic = Topic::Lease;
        let lease = Lease {
            at_ms: NOW_MS,
            until_ms: u64::MAX,
            revoked: 0,
            policy: 0,
            manifests: Vec::new(),
        };
        add(topic, record(&office, &liar, author, topic, &lease));
        let topic = Topic::Manifest(group);
        let manifest = Manifest { at_ms: NOW_MS, parts: Vec::new() };
        add(topic, record(&office, &liar, author, topic, &manifest));
        let topic = Topic::Admitted(me);
        add(topic, record(&office, &liar, author, topic, &certificate));
    }
    let person = Place { group, person: PersonId([7; 16]) };
    let topic = Topic::Person(person);
    for author in [other, boss] {
        records.push((topic, record(&office, &liar, author, topic, &PersonContent::Gone)));
    }
    // Of a group that it does not serve.
    let elsewhere = Topic::Person(Place { group: GroupTag::of(boss, "board"), ..person });
    records.push((elsewhere, record(&office, &liar, me, elsewhere, &PersonContent::Gone)));
    let topic = Topic::Passage(other);
    let passage = Passage { person: person.person, door: other, inwards: true, at_ms: NOW_MS };
    let passage = Passages { list: vec![passage] };
    records.push((topic, record(&office, &liar, me, topic, &passage)));
    let topic = Topic::Have(other);
    records.push((topic, record(&office, &liar, me, topic, &Have::default())));
    let before = (victim.have(0), office.revision());
    for (topic, bytes) in &records {
        let text = topic.to_string();
        let heard = office.hear(&text, bytes, NOW_MS);
        assert_eq!(heard, [Effect::Refused(Refusal::Right)], "the office, {text}");
        let heard = victim.hear(&text, bytes, NOW_MS);
        let refused =
            matches!(heard[..], [Effect::Refused(Refusal::Right | Refusal::Unasked)] | []);
        assert!(refused, "{text}: {heard:?}");
    }
    let have = Have { refused: 0, ..victim.have(0) };
    assert_eq!((have, office.revision()), (Have { refused: 0, ..before.0 }, before.1));
    // What it may write is taken.
    let topic = Topic::Person(person);
    let own = record(&office, &liar, me, topic, &PersonContent::Gone);
    assert!(
        !victim.hear(&topic.to_string(), &own, NOW_MS).contains(&Effect::Refused(Refusal::Right))
    );
}
