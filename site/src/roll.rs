//! The people that somebody knows of: for each the version of the record, not its content.

use crate::content::{MOST_PEOPLE, PartDigest, PersonContent, Version};
use crate::names::{GroupTag, KeyId, Part, PersonId, Place};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Most records, with those of removed people.
pub(crate) const MOST_RECORDS: usize = 4 * MOST_PEOPLE;

/// Whether a record has the person in the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Presence {
    Here,
    Moved,
    Gone,
}

/// What is known of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub version: Version,
    pub presence: Presence,
    /// Whether the record says that the person is an administrator.
    pub administrator: bool,
    /// Epoch of the data key with which the record is sealed.
    pub epoch: u32,
}

impl Entry {
    /// The entry of a record.
    pub fn new(
        order: u64,
        author: KeyId,
        epoch: u32,
        bytes: &[u8],
        content: &PersonContent,
    ) -> Self {
        let presence = match content {
            PersonContent::Here(_) => Presence::Here,
            PersonContent::Moved => Presence::Moved,
            PersonContent::Gone => Presence::Gone,
        };
        let administrator = matches!(content, PersonContent::Here(person) if person.administrator);
        let digest = Sha256::digest(bytes);
        let hash = std::array::from_fn(|at| digest[at]);
        let gone = presence == Presence::Gone;
        let version = Version { gone, order, author, hash };
        Self { version, presence, administrator, epoch }
    }
}

/// Number and digest of the versions of people, sorted by id.
pub(crate) fn digest_of<'v>(
    people: impl IntoIterator<Item = (PersonId, &'v Version)>,
) -> (usize, PartDigest) {
    let mut hasher = Sha256::new();
    let mut count = 0;
    for (person, Version { gone, order, author, hash }) in people {
        hasher.update(person.0);
        hasher.update([u8::from(*gone)]);
        hasher.update(order.to_le_bytes());
        hasher.update(author.0);
        hasher.update(hash);
        count += 1;
    }
    let all = hasher.finalize();
    (count, std::array::from_fn(|at| all[at]))
}

/// All records.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roll {
    entries: BTreeMap<Place, Entry>,
    /// Number of entries with [`Presence::Here`].
    here: usize,
    /// Highest order.
    newest: u64,
}

impl Roll {
    pub fn get(&self, place: Place) -> Option<&Entry> {
        self.entries.get(&place)
    }

    /// Number of people in groups.
    pub fn here(&self) -> usize {
        self.here
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Highest order of all records there ever were.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    pub fn iter(&self) -> impl Iterator<Item = (Place, &Entry)> {
        self.entries.iter().map(|(place, entry)| (*place, entry))
    }

    /// Puts an entry in place of the one before.
    pub fn put(&mut self, place: Place, entry: Entry) {
        let before = self.entries.insert(place, entry);
        self.here += usize::from(entry.presence == Presence::Here);
        self.here -= usize::from(before.is_some_and(|entry| entry.presence == Presence::Here));
        self.newest = self.newest.max(entry.version.order);
    }

    pub fn remove(&mut self, place: Place) {
        let before = self.entries.remove(&place);
        self.here -= usize::from(before.is_some_and(|entry| entry.presence == Presence::Here));
    }

    /// The entries of a part, in the order of their ids.
    pub fn part(&self, group: GroupTag, part: Part) -> impl Iterator<Item = (PersonId, &Entry)> {
        let (first, last) = part.ends();
        let place = |person| Place { group, person };
        self.entries.range(place(first)..=place(last)).map(|(place, entry)| (place.person, entry))
    }

    /// Number of records and digest of a part.
    pub fn digest(&self, group: GroupTag, part: Part) -> (usize, PartDigest) {
        digest_of(self.part(group, part).map(|(person, entry)| (person, &entry.version)))
    }

    /// The records of a person in these groups.
    pub fn of<'r>(
        &'r self,
        person: PersonId,
        groups: impl IntoIterator<Item = GroupTag> + 'r,
    ) -> impl Iterator<Item = (GroupTag, &'r Entry)> + 'r {
        let entry = move |group| Some((group, self.entries.get(&Place { group, person })?));
        groups.into_iter().filter_map(entry)
    }

    /// The group that a person is in: that of the newest record, unless one says that the
    /// person was removed.
    pub fn group_of(
        &self,
        person: PersonId,
        groups: impl IntoIterator<Item = GroupTag>,
    ) -> Option<GroupTag> {
        let mut newest: Option<(GroupTag, &Entry)> = None;
        for (group, entry) in self.of(person, groups) {
            match entry.presence {
                Presence::Gone => return None,
                Presence::Here
                    if newest.is_none_or(|(_, before)| entry.version > before.version) =>
                {
                    newest = Some((group, entry));
                }
                _ => {}
            }
        }
        newest.map(|(group, _)| group)
    }
}
