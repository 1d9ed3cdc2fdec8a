//! People, as the office sees and changes them.

use super::{Office, Record};
use crate::book::next_order;
use crate::content::{Content, Person, PersonContent};
use crate::effect::{ChangeError, Effect};
use crate::envelope::Envelope;
use crate::names::{GroupTag, KeyId, PersonId, Place};
use crate::roll::{Entry, Presence};
use crate::topic::Topic;
use zeroize::Zeroizing;

/// A person of the site.
#[derive(Clone, Debug, PartialEq)]
pub struct SitePerson {
    /// The person, as the writer of the record says.
    pub person: Person,
    /// The door that wrote the record, or the office.
    pub author: KeyId,
}

impl Office {
    /// Number of people.
    pub fn people_count(&self) -> usize {
        self.roll.here()
    }

    /// Everybody of the site. Each call opens all records.
    pub fn people(&self) -> impl Iterator<Item = SitePerson> {
        let places = self.roll.iter().filter(|(_, entry)| entry.presence == Presence::Here);
        places.filter_map(|(place, entry)| {
            let current = self.roll.group_of(place.person, self.groups_of(place.person));
            let person = self.open_person(place).filter(|_| current == Some(place.group))?;
            Some(SitePerson { person, author: entry.version.author })
        })
    }

    /// The person with this id.
    pub fn person(&self, person: PersonId) -> Option<SitePerson> {
        let group = self.roll.group_of(person, self.groups_of(person))?;
        let place = Place { group, person };
        let author = self.roll.get(place)?.version.author;
        Some(SitePerson { person: self.open_person(place)?, author })
    }

    fn groups_of(&self, person: PersonId) -> Vec<GroupTag> {
        let tags = self.manifest_tags();
        self.roll.of(person, tags).map(|(group, _)| group).collect()
    }

    /// Groups with a manifest, or about to have one.
    fn manifest_tags(&self) -> Vec<GroupTag> {
        let mut tags: Vec<GroupTag> = self.manifests().into_keys().collect();
        tags.extend(self.dirty_groups.iter());
        tags.extend(self.groups().into_keys());
        tags.sort_unstable();
        tags.dedup();
        tags
    }

    fn open_person(&self, place: Place) -> Option<Person> {
        let record: &Record = self.people.get(&place)?;
        let envelope = Envelope::read(Topic::Person(place), record).ok()?;
        let content = self.book.open(&envelope).ok()?;
        match PersonContent::from_bytes(&content).ok()? {
            PersonContent::Here(person) => Some(*person),
            PersonContent::Moved | PersonContent::Gone => None,
        }
    }

    /// Adds a person, or changes one.
    ///
    /// # Errors
    /// If something of the person is out of range, or no door serves the group.
    pub fn put_person(&mut self, person: Person, now_ms: u64) -> Result<Vec<Effect>, ChangeError> {
        if let Some(fault) = person.fault() {
            return Err(ChangeError::Content(fault));
        }
        let group = GroupTag::of(self.site, &person.group);
        if !self.groups().contains_key(&group) {
            return Err(ChangeError::Right(person.group));
        }
        let id = person.id;
        let tags = self.tags();
        if self.roll.of(id, tags.clone()).any(|(_, entry)| entry.presence == Presence::Gone) {
            return Err(ChangeError::Unknown);
        }
        let was = self.roll.group_of(id, tags);
        if was.is_none() && self.roll.here() >= crate::MOST_PEOPLE {
            return Err(ChangeError::Full);
        }
        let place = Place { group, person: id };
        let mut effects = self.write(place, &PersonContent::Here(Box::new(person)), now_ms)?;
        if let Some(was) = was.filter(|was| *was != group) {
            let left = Place { group: was, person: id };
            effects.extend(self.write(left, &PersonContent::Moved, now_ms)?);
        }
        Ok(effects)
    }

    /// Removes a person from the site for ever, and puts them on the list of those locked
    /// out, which doors hear first.
    ///
    /// # Errors
    /// If the site has no such person.
    pub fn revoke_person(
        &mut self,
        person: PersonId,
        now_ms: u64,
    ) -> Result<Vec<Effect>, ChangeError> {
        let tags = self.tags();
        if self.roll.of(person, tags).next().is_none() {
            return Err(ChangeError::Unknown);
        }
        self.lock_out_person(person);
        let mut effects = self.issue_revoked()?;
        effects.extend(self.remove_everywhere(person, now_ms)?);
        Ok(effects)
    }

    /// Writes removals into all groups that the person was in.
    pub(super) fn remove_everywhere(
        &mut self,
        person: PersonId,
        now_ms: u64,
    ) -> Result<Vec<Effect>, ChangeError> {
        let tags = self.tags();
        let groups: Vec<GroupTag> = self
            .roll
            .of(person, tags)
            .filter(|(_, entry)| entry.presence != Presence::Gone)
            .map(|(group, _)| group)
            .collect();
        let mut effects = Vec::new();
        for group in groups {
            effects.extend(self.write(Place { group, person }, &PersonContent::Gone, now_ms)?);
        }
        Ok(effects)
    }

    fn write(
        &mut self,
        place: Place,
        content: &PersonContent,
        now_ms: u64,
    ) -> Result<Vec<Effect>, ChangeError> {
        let order = next_order(now_ms, self.roll.newest());
        let plain = Zeroizing::new(content.to_bytes());
        let topic = Topic::Person(place);
        let bytes = self.book.seal_bytes(topic, (self.site, &self.signer), order, &plain)?;
        let entry = Entry::new(order, self.site, self.book.epoch(), &plain, content);
        self.mark(place);
        Ok(self.record(place, entry, bytes))
    }
}
