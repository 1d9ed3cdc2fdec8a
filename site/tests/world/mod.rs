//! A site in memory: an office, doors with their galleries and stores, and a broker that a
//! test can make lose, repeat, reorder, forget and lie.

// Each test file uses a part of it.
#![allow(dead_code)]

use facelatch_crypto::Secret;
use facelatch_site::{
    Code, Effect, KeyId, Member, Office, Person, PersonId, Policy, Refusal, SiteTemplate,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// First of January 2026.
pub const START_MS: u64 = 1_767_225_600_000;
pub const GROUPS: [&str; 2] = ["staff", "cleaners"];

/// A message of the broker.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub topic: String,
    pub bytes: Vec<u8>,
}

/// Whether a topic fits a filter.
pub fn fits(filter: &str, topic: &str) -> bool {
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

/// Somebody's connection.
#[derive(Debug, Default)]
pub struct Connection {
    pub up: bool,
    pub filters: Vec<String>,
    pub queue: VecDeque<Message>,
}

#[derive(Debug, Default)]
pub struct Broker {
    pub retained: BTreeMap<String, Vec<u8>>,
    /// Everything ever published, for replays.
    pub history: Vec<Message>,
    /// The office's connection is the first, then those of the doors.
    pub connections: Vec<Connection>,
    /// Bytes published.
    pub bytes: usize,
}

impl Broker {
    pub fn publish(&mut self, topic: &str, bytes: &[u8], retain: bool) {
        self.bytes += bytes.len();
        let message = Message { topic: topic.to_owned(), bytes: bytes.to_vec() };
        if retain && bytes.is_empty() {
            self.retained.remove(topic);
        } else if retain {
            self.retained.insert(topic.to_owned(), bytes.to_vec());
        }
        for connection in self.connections.iter_mut().filter(|connection| connection.up) {
            if connection.filters.iter().any(|filter| fits(filter, topic)) {
                connection.queue.push_back(message.clone());
            }
        }
        self.history.push(message);
    }

    pub fn fetch(&mut self, who: usize, filters: &[String]) {
        let connection = &mut self.connections[who];
        if !connection.up {
            return;
        }
        for filter in filters {
            for (topic, bytes) in self.retained.iter().filter(|(topic, _)| fits(filter, topic)) {
                let message = Message { topic: topic.clone(), bytes: bytes.clone() };
                connection.queue.push_back(message);
            }
        }
    }
}

/// A door.
pub struct Door {
    pub secret: Secret,
    pub member: Member,
    pub kept: BTreeMap<String, Vec<u8>>,
    pub gallery: BTreeMap<PersonId, Person>,
    pub expelled: bool,
    pub passages: Vec<(PersonId, KeyId)>,
    pub refused: BTreeMap<Refusal, u64>,
    /// How far its clock is ahead, milliseconds.
    pub ahead_ms: i64,
}

pub struct World {
    pub now_ms: u64,
    pub broker: Broker,
    pub office: Office,
    pub office_secret: Secret,
    pub office_kept: BTreeMap<String, Vec<u8>>,
    pub doors: Vec<Door>,
    people: u64,
    /// Whether the office waits for what it fetches.
    office_fetches: bool,
}

pub fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

impl World {
    /// A site with this many doors, all of which serve all groups.
    pub fn new(doors: usize) -> Self {
        Self::with(doors, 1)
    }

    /// The same with another key of the site.
    pub fn with(doors: usize, key: u8) -> Self {
        let office_secret = Secret::new([key; 32]);
        let (office, effects) = Office::new(&office_secret, []).expect("a new site");
        let broker = Broker { connections: vec![Connection::default()], ..Broker::default() };
        let mut world = Self {
            now_ms: START_MS,
            broker,
            office,
            office_secret,
            office_kept: BTreeMap::new(),
            doors: Vec::new(),
            people: 0,
            office_fetches: false,
        };
        world.carry_office(effects);
        world.connect_office();
        let policy = Policy { text: "[groups.staff]\n".to_owned(), ..Policy::default() };
        let effects = world.office.set_policy(policy).expect("a policy");
        world.carry_office(effects);
        for _ in 0..doors {
            world.add_door(&GROUPS, true);
        }
        world.settle();
        world
    }

    /// Admits one more door.
    pub fn add_door(&mut self, groups: &[&str], writes: bool) -> usize {
        let at = self.doors.len();
        self.new_door();
        let code = Code::random().expect("random numbers");
        let name = format!("door {at}");
        let effects = self
            .office
            .invite(&code, &name, &strings(groups), writes, self.now_ms)
            .expect("an invitation");
        self.carry_office(effects);
        let effects = self.doors[at].member.join(&code, &name).expect("a request");
        self.carry(at, effects);
        self.deliver_all();
        at
    }

    /// A door that is not admitted yet.
    pub fn new_door(&mut self) -> usize {
        let at = self.doors.len();
        let secret = Secret::new([100 + at as u8; 32]);
        let member = Member::new(&secret, self.office.public(), []);
        self.doors.push(Door {
            secret,
            member,
            kept: BTreeMap::new(),
            gallery: BTreeMap::new(),
            expelled: false,
            passages: Vec::new(),
            refused: BTreeMap::new(),
            ahead_ms: 0,
        });
        self.broker.connections.push(Connection::default());
        self.connect(at);
        at
    }

    fn now_of(&self, door: usize) -> u64 {
        self.now_ms.saturating_add_signed(self.doors[door].ahead_ms)
    }

    pub fn carry(&mut self, at: usize, effects: Vec<Effect>) {
        for effect in effects {
            let door = &mut self.doors[at];
            match effect {
                Effect::Keep { key, bytes } => {
                    door.kept.insert(key, bytes);
                }
                Effect::Forget { key } => {
                    door.kept.remove(&key);
                }
                Effect::Publish { topic, bytes, retain, .. } => {
                    if self.broker.connections[at + 1].up {
                        self.broker.publish(&topic, &bytes, retain);
                    }
                }
                Effect::PublishKept { topic, key } => {
                    let bytes = door.kept.get(&key).cloned();
                    if let Some(bytes) = bytes.filter(|_| self.broker.connections[at + 1].up) {
                        self.broker.publish(&topic, &bytes, true);
                    }
                }
                Effect::Subscribe { filters } => {
                    if self.broker.connections[at + 1].up {
                        self.broker.connections[at + 1].filters = filters.clone();
                        self.broker.fetch(at + 1, &filters);
                    }
                }
                Effect::Fetch { filters } => self.broker.fetch(at + 1, &filters),
                Effect::Put(person) => {
                    door.gallery.insert(person.id, *person);
                }
                Effect::Remove(person) => {
                    door.gallery.remove(&person);
                }
                Effect::Administrator { person, is } => {
                    if let Some(person) = door.gallery.get_mut(&person) {
                        person.administrator = is;
                    }
                }
                Effect::Expelled => door.expelled = true,
                Effect::Admitted(_) => door.expelled = false,
                Effect::Passage(passage) => door.passages.push((passage.person, passage.door)),
                Effect::Refused(refusal) => *door.refused.entry(refusal).or_default() += 1,
                Effect::Policy(_) | Effect::Models(_) | Effect::ModelPart { .. } => {}
                Effect::Joined { .. } => panic!("a door has no doors"),
            }
        }
    }

    pub fn carry_office(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Keep { key, bytes } => {
                    self.office_kept.insert(key, bytes);
                }
                Effect::Forget { key } => {
                    self.office_kept.remove(&key);
                }
                Effect::Publish { topic, bytes, retain, .. } => {
                    if self.broker.connections[0].up {
                        self.broker.publish(&topic, &bytes, retain);
                    }
                }
                Effect::Subscribe { filters } => {
                    self.broker.connections[0].filters = filters.clone();
                    self.broker.fetch(0, &filters);
                }
                Effect::Fetch { filters } => {
                    self.broker.fetch(0, &filters);
                    self.office_fetches = true;
                }
                Effect::Joined { .. } | Effect::Refused(_) => {}
                other => panic!("an office has no {other:?}"),
            }
        }
    }

    pub fn connect(&mut self, at: usize) {
        self.broker.connections[at + 1].up = true;
        let effects = self.doors[at].member.connected();
        self.carry(at, effects);
        self.deliver(at + 1);
        let now = self.now_of(at);
        let effects = self.doors[at].member.fetched(now);
        self.carry(at, effects);
    }

    pub fn disconnect(&mut self, at: usize) {
        let connection = &mut self.broker.connections[at + 1];
        if std::mem::take(&mut connection.up) {
            connection.queue.clear();
            connection.filters.clear();
            self.doors[at].member.disconnected();
        }
    }

    pub fn connect_office(&mut self) {
        self.broker.connections[0].up = true;
        let effects = self.office.connected();
        self.carry_office(effects);
        self.deliver(0);
        let effects = self.office.fetched(self.now_ms);
        self.carry_office(effects);
    }

    pub fn disconnect_office(&mut self) {
        let connection = &mut self.broker.connections[0];
        if std::mem::take(&mut connection.up) {
            connection.queue.clear();
            self.office.disconnected();
        }
    }

    /// Lets somebody hear one message.
    pub fn hear(&mut self, who: usize, message: &Message) {
        if who == 0 {
            let effects = self.office.hear(&message.topic, &message.bytes, self.now_ms);
            self.carry_office(effects);
        } else {
            let now = self.now_of(who - 1);
            let effects = self.doors[who - 1].member.hear(&message.topic, &message.bytes, now);
            self.carry(who - 1, effects);
        }
    }

    /// Lets somebody hear all that waits for them, and what that brings.
    pub fn deliver(&mut self, who: usize) {
        while let Some(message) = self.broker.connections[who].queue.pop_front() {
            self.hear(who, &message);
        }
        if who == 0 && std::mem::take(&mut self.office_fetches) && self.broker.connections[0].up {
            let effects = self.office.fetched(self.now_ms);
            self.carry_office(effects);
        }
    }

    pub fn deliver_all(&mut self) {
        while self.broker.connections.iter().any(|connection| !connection.queue.is_empty()) {
            (0..self.broker.connections.len()).for_each(|who| self.deliver(who));
        }
    }

    /// Time passes; everybody does what is due. Nothing is delivered.
    pub fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        let effects = self.office.tick(self.now_ms).expect("random numbers");
        self.carry_office(effects);
        for at in 0..self.doors.len() {
            let now = self.now_of(at);
            let effects = self.doors[at].member.tick(now);
            self.carry(at, effects);
        }
    }

    /// Lets a minute and more pass without faults.
    pub fn settle(&mut self) {
        for _ in 0..20 {
            self.deliver_all();
            self.pass(5_000);
        }
        self.deliver_all();
    }

    /// Connects everybody and lets time pass until all doors agree with the office. Returns
    /// the number of rounds, `None` if they do not agree after hours.
    pub fn converge(&mut self) -> Option<usize> {
        if !self.broker.connections[0].up {
            self.connect_office();
        }
        for at in 0..self.doors.len() {
            if !self.broker.connections[at + 1].up {
                self.connect(at);
            }
        }
        (0..400).find(|_| {
            self.deliver_all();
            self.pass(30_000);
            self.deliver_all();
            !self.office.is_busy() && self.agreed()
        })
    }

    /// Ids and names of people who are in the site, by the office.
    pub fn people(&self) -> BTreeMap<PersonId, String> {
        self.office.people().map(|person| (person.person.id, person.person.name)).collect()
    }

    pub fn gallery(&self, at: usize) -> BTreeMap<PersonId, String> {
        let gallery = self.doors[at].gallery.values();
        gallery.map(|person| (person.id, person.name.clone())).collect()
    }

    /// Whether the gallery of each admitted door is what the office has of its groups, and
    /// nothing is missing.
    pub fn agreed(&self) -> bool {
        let people: Vec<Person> = self.office.people().map(|person| person.person).collect();
        self.doors.iter().all(|door| {
            let Some(certificate) = door.member.certificate() else { return true };
            let groups: BTreeSet<&String> = certificate.groups.iter().collect();
            let expected: BTreeMap<PersonId, &String> = people
                .iter()
                .filter(|person| groups.contains(&person.group))
                .map(|person| (person.id, &person.name))
                .collect();
            let has: BTreeMap<PersonId, &String> =
                door.gallery.values().map(|person| (person.id, &person.name)).collect();
            let known: BTreeSet<PersonId> = door.member.people().collect();
            has == expected
                && known == has.keys().copied().collect()
                && door.member.standing(self.now_ms).missing == 0
        })
    }

    /// A new person, in no gallery yet.
    pub fn new_person(&mut self, group: &str) -> Person {
        self.people += 1;
        let mut id = [0; 16];
        // Ids of all parts, and the same ones in each run.
        id[0] = (self.people as u8).wrapping_mul(37);
        id[8..].copy_from_slice(&self.people.to_be_bytes());
        Person {
            id: PersonId(id),
            name: format!("Person {}", self.people),
            group: group.to_owned(),
            administrator: false,
            probation: false,
            stricter: 0.0,
            enrolled_at: self.now_ms / 1_000,
            valid_from: None,
            valid_until: None,
            templates: vec![
                SiteTemplate::new("test", &[1.0, self.people as f32, -0.5]).expect("a template"),
            ],
        }
    }

    /// Enrolls somebody at a door; `None` if the site does not let it.
    pub fn enroll(&mut self, at: usize, group: &str) -> Option<PersonId> {
        let person = self.new_person(group);
        self.put(at, person)
    }

    pub fn put(&mut self, at: usize, person: Person) -> Option<PersonId> {
        let (id, now) = (person.id, self.now_of(at));
        let effects = self.doors[at].member.put(person.clone(), now).ok()?;
        self.doors[at].gallery.insert(id, person);
        self.carry(at, effects);
        Some(id)
    }

    pub fn remove(&mut self, at: usize, person: PersonId) -> bool {
        let now = self.now_of(at);
        let Ok(effects) = self.doors[at].member.remove(person, now) else { return false };
        self.doors[at].gallery.remove(&person);
        self.carry(at, effects);
        true
    }

    /// Starts a door again from what it kept.
    pub fn restart(&mut self, at: usize) {
        self.disconnect(at);
        let door = &mut self.doors[at];
        let kept = door.kept.clone();
        door.member = Member::new(&door.secret, self.office.public(), kept);
    }

    /// Starts the office again from what it kept.
    pub fn restart_office(&mut self) {
        self.disconnect_office();
        let kept = self.office_kept.clone();
        let (office, effects) = Office::new(&self.office_secret, kept).expect("the same office");
        self.office = office;
        self.carry_office(effects);
    }

    /// The broker stops and has an older state afterwards.
    pub fn kill_broker(&mut self, retained: BTreeMap<String, Vec<u8>>) {
        self.disconnect_office();
        (0..self.doors.len()).for_each(|at| self.disconnect(at));
        self.broker.retained = retained;
    }
}
