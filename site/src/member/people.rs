//! Records of people: which of two counts, and what the gallery gets.

use super::Member;
use crate::MOST_PEOPLE;
use crate::content::{Content, Person, PersonContent};
use crate::effect::{Effect, Refusal};
use crate::envelope::Envelope;
use crate::names::Place;
use crate::roll::{Entry, MOST_RECORDS, Presence};
use crate::topic::Topic;

/// Key of what is known of a record.
pub(super) fn entry_key(place: Place) -> String {
    format!("entry/{}/{}", place.group, place.person)
}

/// Key of a record that this door wrote.
pub(super) fn mine_key(place: Place) -> String {
    format!("mine/{}/{}", place.group, place.person)
}

impl Entry {
    /// As it is kept.
    pub(super) fn keep(&self, place: Place) -> Effect {
        let bytes = postcard::to_stdvec(self).unwrap_or_default();
        Effect::Keep { key: entry_key(place), bytes }
    }
}

impl Member {
    pub(super) fn forget_entry(place: Place) -> [Effect; 2] {
        [entry_key(place), mine_key(place)].map(|key| Effect::Forget { key })
    }

    /// Whether a record is the one that is had, in a part that agrees with its manifest, so
    /// that it need not be opened: that saves most of the work of a reconnect. Whoever makes
    /// such a header up gains nothing.
    pub(super) fn knows(&mut self, place: Place, envelope: &Envelope<'_>) -> bool {
        let Some(entry) = self.roll.get(place) else { return false };
        let header = envelope.header;
        let same = (entry.version.order, entry.version.author, entry.epoch)
            == (header.order, header.author, header.epoch);
        let part = self.parts.get(&(place.group, place.person.part()));
        let known = same && part.is_some_and(|part| part.agrees);
        if known && header.author == self.id {
            self.seen.insert(place);
        }
        known
    }

    pub(super) fn person(
        &mut self,
        place: Place,
        envelope: &Envelope<'_>,
        (content, person): (&[u8], PersonContent),
        bytes: &[u8],
        now_ms: u64,
    ) -> Result<Vec<Effect>, Refusal> {
        check(self.book.site, place, &person)?;
        let header = envelope.header;
        let entry = Entry::new(header.order, header.author, header.epoch, content, &person);
        let before = self.roll.get(place).copied();
        if header.author == self.id && before.is_none_or(|before| before.version <= entry.version) {
            self.seen.insert(place);
        }
        if let Some(before) = before {
            if entry.version < before.version {
                return Err(Refusal::Old);
            }
            if entry.version == before.version {
                // Sealed again with a newer data key, or the same once more.
                if entry.epoch <= before.epoch {
                    return Ok(Vec::new());
                }
                self.roll.put(place, entry);
                return Ok(self.kept(place, &entry, bytes));
            }
        }
        let new = before.is_none();
        let joins = entry.presence == Presence::Here
            && before.is_none_or(|before| before.presence != Presence::Here);
        if new && self.roll.len() >= MOST_RECORDS || joins && self.roll.here() >= MOST_PEOPLE {
            return Err(Refusal::Full);
        }
        if !self.record_rates.allows(header.signer, now_ms) {
            return Err(Refusal::Rate);
        }
        let mut effects = self.apply(place, entry, person);
        effects.extend(self.kept(place, &entry, bytes));
        Ok(effects)
    }

    /// Puts an entry in place of the one before, and says what that means for the gallery.
    pub(super) fn apply(
        &mut self,
        place: Place,
        entry: Entry,
        content: PersonContent,
    ) -> Vec<Effect> {
        let was = self.group_of(place.person);
        self.roll.put(place, entry);
        self.compare_part(place.group, place.person.part());
        let is = self.group_of(place.person);
        match (was, is, content) {
            (_, Some(group), PersonContent::Here(person)) if group == place.group => {
                let administrator =
                    self.is_administrator(person.administrator, entry.version.author);
                vec![Effect::Put(Box::new(Person { administrator, ..*person }))]
            }
            (Some(_), None, _) => vec![Effect::Remove(place.person)],
            // Left this group for one whose record came earlier and did not count then: it is
            // not here any more, and has to be fetched.
            (Some(was), Some(is), _) if was != is => {
                let other = Place { group: is, person: place.person };
                self.roll.remove(other);
                self.compare_part(other.group, other.person.part());
                let filters = vec![Topic::Person(other).to_string()];
                let mut effects = vec![Effect::Remove(place.person), Effect::Fetch { filters }];
                effects.extend(Self::forget_entry(other));
                effects
            }
            _ => Vec::new(),
        }
    }

    fn kept(&self, place: Place, entry: &Entry, bytes: &[u8]) -> Vec<Effect> {
        let mine = mine_key(place);
        let record = if entry.version.author == self.id {
            Effect::Keep { key: mine, bytes: bytes.to_vec() }
        } else {
            Effect::Forget { key: mine }
        };
        vec![entry.keep(place), record]
    }
}

/// Whether a record says about whom it is where it is found.
pub(crate) fn check(
    site: crate::KeyId,
    place: Place,
    content: &PersonContent,
) -> Result<(), Refusal> {
    if let PersonContent::Here(person) = content {
        let tag = crate::GroupTag::of(site, &person.group);
        if person.id != place.person || tag != place.group {
            return Err(Refusal::Content);
        }
    }
    debug_assert!(content.sound());
    Ok(())
}
