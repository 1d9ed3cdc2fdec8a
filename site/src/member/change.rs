//! What the door itself tells the site.

use super::hear::OLDEST_PASSAGE_MS;
use super::people::mine_key;
use super::{Member, publish};
use crate::MOST_PEOPLE;
use crate::book::next_order;
use crate::content::{Content, MOST_PASSAGES, Passage, Passages, Person, PersonContent};
use crate::effect::{ChangeError, Effect};
use crate::names::{GroupTag, PersonId, Place};
use crate::roll::{Entry, MOST_RECORDS, Presence};
use crate::topic::Topic;
use zeroize::Zeroizing;

impl Member {
    /// Adds a person of one of the door's groups, or changes one. The door's own gallery has
    /// the change already, so it is not among the effects.
    ///
    /// # Errors
    /// If the door may not write people of that group, something of the person is out of
    /// range, or the person was removed.
    pub fn put(&mut self, person: Person, now_ms: u64) -> Result<Vec<Effect>, ChangeError> {
        if let Some(fault) = person.fault() {
            return Err(ChangeError::Content(fault));
        }
        let group = self.writes(&person.group)?;
        let place = Place { group, person: person.id };
        let groups = self.groups();
        let gone = self.revoked_people.contains(&person.id)
            || self.roll.of(person.id, groups).any(|(_, entry)| entry.presence == Presence::Gone);
        if gone {
            return Err(ChangeError::Unknown);
        }
        let was = self.group_of(person.id);
        let joins = was.is_none();
        if joins && self.roll.here() >= MOST_PEOPLE || self.roll.len() >= MOST_RECORDS {
            return Err(ChangeError::Full);
        }
        let mut effects = self.write(place, PersonContent::Here(Box::new(person)), now_ms)?;
        if let Some(was) = was.filter(|was| *was != group) {
            let left = Place { group: was, ..place };
            effects.extend(self.write(left, PersonContent::Moved, now_ms)?);
        }
        Ok(effects)
    }

    /// Removes a person from the site for ever. A person who is enrolled again gets a new id.
    ///
    /// # Errors
    /// If the site has no such person, or the door may not write people of their group.
    pub fn remove(&mut self, person: PersonId, now_ms: u64) -> Result<Vec<Effect>, ChangeError> {
        let group = self.group_of(person).ok_or(ChangeError::Unknown)?;
        if !self.book.may_write(self.id, group) {
            return Err(ChangeError::Right(format!("with the tag {group}")));
        }
        self.write(Place { group, person }, PersonContent::Gone, now_ms)
    }

    /// Tells the other doors that somebody went through this one.
    ///
    /// # Errors
    /// If the door is in no site, or there are no random numbers.
    pub fn passage(
        &mut self,
        person: PersonId,
        inwards: bool,
        now_ms: u64,
    ) -> Result<Vec<Effect>, ChangeError> {
        if self.certificate.is_none() {
            return Err(ChangeError::Outside);
        }
        // Each has a time of its own, by which others tell those that they know.
        let at_ms = self.lately.back().map_or(now_ms, |last| now_ms.max(last.at_ms + 1));
        self.lately.push_back(Passage { person, door: self.id, inwards, at_ms });
        self.passages(now_ms)
    }

    /// Tells the other doors who went through this one lately; nothing if nobody did.
    pub(super) fn passages(&mut self, now_ms: u64) -> Result<Vec<Effect>, ChangeError> {
        let old = now_ms.saturating_sub(OLDEST_PASSAGE_MS);
        self.lately.retain(|passage| passage.at_ms >= old);
        while self.lately.len() > MOST_PASSAGES {
            self.lately.pop_front();
        }
        if self.lately.is_empty() {
            return Ok(Vec::new());
        }
        let (last, _) = self.passages.get(&self.id).copied().unwrap_or_default();
        let order = next_order(now_ms, last);
        let topic = Topic::Passage(self.id);
        let content = Passages { list: self.lately.iter().copied().collect() };
        let bytes = self.book.seal(topic, (self.id, &self.signer), order, &content)?;
        self.passages.insert(self.id, (order, 0));
        Ok(vec![publish(topic, bytes)])
    }

    fn writes(&self, group: &str) -> Result<GroupTag, ChangeError> {
        let certificate = self.certificate.as_ref().ok_or(ChangeError::Outside)?;
        let tag = GroupTag::of(self.book.site, group);
        if certificate.writes && certificate.serves(self.book.site, tag) {
            Ok(tag)
        } else {
            Err(ChangeError::Right(group.to_owned()))
        }
    }

    fn write(
        &mut self,
        place: Place,
        content: PersonContent,
        now_ms: u64,
    ) -> Result<Vec<Effect>, ChangeError> {
        let order = next_order(now_ms, self.roll.newest());
        let plain = Zeroizing::new(content.to_bytes());
        let topic = Topic::Person(place);
        let bytes = self.book.seal_bytes(topic, (self.id, &self.signer), order, &plain)?;
        let entry = Entry::new(order, self.id, self.book.epoch(), &plain, &content);
        self.roll.put(place, entry);
        self.compare_part(place.group, place.person.part());
        Ok(vec![
            entry.keep(place),
            Effect::Keep { key: mine_key(place), bytes: bytes.clone() },
            publish(topic, bytes),
        ])
    }
}
