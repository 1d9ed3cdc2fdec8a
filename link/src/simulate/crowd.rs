//! People of a simulation, the same ones in each run, and a digest of who is there.

use facelatch_site::{Person, PersonId, SiteTemplate};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The group of everybody.
pub(super) const GROUP: &str = "staff";

/// Makes people.
#[derive(Clone, Debug)]
pub(super) struct Crowd {
    templates: u8,
    numbers: u16,
    made: u64,
}

/// Digest of one person.
fn digest(id: PersonId, name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (id.0, name).hash(&mut hasher);
    hasher.finish()
}

/// Who is there.
#[derive(Clone, Debug, Default)]
pub(super) struct Present {
    people: BTreeMap<PersonId, u64>,
    sum: u64,
}

impl Present {
    pub fn put(&mut self, id: PersonId, name: &str) {
        let new = digest(id, name);
        let old = self.people.insert(id, new).unwrap_or(0);
        self.sum ^= new ^ old;
    }

    pub fn remove(&mut self, id: PersonId) {
        self.sum ^= self.people.remove(&id).unwrap_or(0);
    }

    pub fn contains(&self, id: PersonId) -> bool {
        self.people.contains_key(&id)
    }

    /// Number of people and their digest, which does not depend on the order of changes.
    pub fn state(&self) -> (usize, u64) {
        (self.people.len(), self.sum)
    }
}

impl Crowd {
    pub fn new(templates: u8, numbers: u16) -> Self {
        Self { templates, numbers, made: 0 }
    }

    /// The next person.
    pub fn next(&mut self) -> Person {
        self.made += 1;
        // Numbers as of a linear congruential generator (Knuth, MMIX).
        let mut state = self.made.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut number = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
        };
        let mut templates = Vec::new();
        for _ in 0..self.templates {
            let embedding: Vec<f32> = (0..self.numbers).map(|_| number()).collect();
            templates.extend(SiteTemplate::new("simulated", &embedding));
        }
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.made.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        id[8..].copy_from_slice(&self.made.to_be_bytes());
        Person {
            id: PersonId(id),
            name: format!("Person {}", self.made),
            group: GROUP.to_owned(),
            administrator: false,
            probation: false,
            stricter: 0.0,
            enrolled_at: 0,
            valid_from: None,
            valid_until: None,
            templates,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_there_does_not_depend_on_the_order() {
        let mut crowd = Crowd::new(1, 16);
        let people: Vec<Person> = (0..3).map(|_| crowd.next()).collect();
        let (mut a, mut b) = (Present::default(), Present::default());
        people.iter().for_each(|person| a.put(person.id, &person.name));
        people.iter().rev().for_each(|person| b.put(person.id, &person.name));
        assert_eq!(a.state(), b.state());
        b.put(people[0].id, "another name");
        assert_ne!(a.state(), b.state());
        b.put(people[0].id, &people[0].name);
        b.remove(people[1].id);
        assert!(!b.contains(people[1].id));
        a.remove(people[1].id);
        assert_eq!(a.state(), b.state());
    }
}
