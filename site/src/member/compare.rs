//! Comparing what the door has with the office's manifests, and fetching what it lacks.

use super::people::mine_key;
use super::{MOST_AT_ONCE, Member, PartState, Revised};
use crate::book::{next_order, order_at};
use crate::content::{Have, Listing, Manifest, PartDigest, Version};
use crate::effect::{Effect, Refusal};
use crate::names::{GroupTag, Part, PersonId, Place};
use crate::roll::{Entry, Presence, digest_of};
use crate::topic::Topic;
use std::collections::BTreeMap;

/// How long to wait for a record whose manifest came first, milliseconds.
const GRACE_MS: u64 = 2_000;
/// Longest wait between two fetches, milliseconds.
const LONGEST_WAIT_MS: u64 = 5 * 60 * 1_000;
/// Most records that are fetched one by one; more are fetched as a whole part.
const MOST_SINGLE: usize = 4;
/// How long a removal stays in listings, milliseconds: longer than any door is away.
pub(crate) const REMOVALS_MS: u64 = 800 * 86_400 * 1_000;
/// When a door looks at the office's records though nothing seems to be missing,
/// milliseconds: after a manifest, and after the last look. A broker drops without a word what
/// has no room in its queue for a door.
const LOOK_MS: (u64, u64) = (30_000, 600_000);
/// Shortest and longest time between two reports of what the door has, milliseconds.
const HAVE_MS: (u64, u64) = (10_000, 3_600_000);

impl Member {
    /// Takes in a manifest. Whether the topics change that the door hears.
    pub(super) fn manifest(
        &mut self,
        group: GroupTag,
        manifest: Revised<Manifest>,
        now_ms: u64,
    ) -> bool {
        let people: usize =
            manifest.content.parts.iter().map(|(_, count, _)| usize::from(*count)).sum();
        let grown = people > MOST_AT_ONCE && self.large.insert(group);
        let expected: BTreeMap<Part, (usize, PartDigest)> = manifest
            .content
            .parts
            .iter()
            .map(|(part, count, digest)| (*part, (usize::from(*count), *digest)))
            .collect();
        let new = self.manifests.insert(group, manifest).is_none();
        let soon = now_ms.saturating_add(LOOK_MS.0 + 4 * self.jitter_ms(Part::default()));
        self.look_ms = self.look_ms.min(soon);
        let empty = digest_of([]);
        for part in Part::all() {
            let expected = expected.get(&part).copied().unwrap_or(empty);
            let due_ms = now_ms.saturating_add(GRACE_MS + self.jitter_ms(part));
            let state = PartState { expected, agrees: true, due_ms, tries: 0, missing: 0 };
            match self.parts.get_mut(&(group, part)) {
                Some(known) if known.expected == expected => {}
                Some(known) if !known.agrees => known.expected = expected,
                _ => {
                    self.parts.insert((group, part), state);
                }
            }
            self.compare_part(group, part);
        }
        new || grown
    }

    /// Different doors wait differently, so that they do not all fetch at once.
    fn jitter_ms(&self, part: Part) -> u64 {
        let byte = self.id.0[usize::from(part.number()) % self.id.0.len()];
        u64::from(byte) * 8
    }

    /// Compares a part with its manifest after one of both changed.
    pub(super) fn compare_part(&mut self, group: GroupTag, part: Part) {
        let Some(state) = self.parts.get_mut(&(group, part)) else { return };
        let count = self.roll.part(group, part).count();
        let agrees = count == state.expected.0 && self.roll.digest(group, part) == state.expected;
        state.agrees = agrees;
        state.missing = if agrees { 0 } else { state.expected.0.saturating_sub(count) as u32 };
        if agrees {
            state.tries = 0;
        }
    }

    /// Takes in which versions the people of a part should have.
    pub(super) fn listing(
        &mut self,
        (group, part): (GroupTag, Part),
        listing: &Listing,
    ) -> Result<Vec<Effect>, Refusal> {
        let Some(state) = self.parts.get(&(group, part)) else { return Err(Refusal::Unasked) };
        if state.agrees {
            return Ok(Vec::new());
        }
        let listed = listing.people.iter().map(|(person, version)| (*person, version));
        if digest_of(listed) != state.expected {
            return Err(Refusal::Old);
        }
        let at_ms = self.manifests.get(&group).map_or(0, |manifest| manifest.content.at_ms);
        let listed: BTreeMap<PersonId, Version> = listing.people.iter().copied().collect();
        let mut effects = Vec::new();
        let mut lacking = Vec::new();
        for (person, version) in &listed {
            let place = Place { group, person: *person };
            let had = self.roll.get(place).map(|entry| entry.version);
            if had.is_none_or(|had| had < *version) {
                if version.gone {
                    // The office's word is enough; the record itself may be withheld.
                    effects.extend(self.gone(place, *version));
                } else {
                    lacking.push(place);
                }
            } else if had > Some(*version) {
                effects.extend(self.offer(place));
            }
        }
        let had: Vec<(PersonId, Entry)> =
            self.roll.part(group, part).map(|(person, entry)| (person, *entry)).collect();
        let removed_before = order_at(at_ms.saturating_sub(REMOVALS_MS));
        for (person, entry) in had {
            let place = Place { group, person };
            if listed.contains_key(&person) {
                continue;
            }
            let author = entry.version.author;
            let known = author == self.book.site
                || self.book.doors.contains_key(&author) && !self.book.is_revoked(author);
            // A removal would be listed, unless it is as old as this.
            if !known || entry.version.order < removed_before {
                effects.extend(self.drop_entry(place));
            } else {
                effects.extend(self.offer(place));
            }
        }
        self.compare_part(group, part);
        if let Some(state) = self.parts.get_mut(&(group, part)) {
            let lacks = lacking.len() as u32;
            if lacks < state.missing {
                // It helps to fetch: no need to wait for long.
                state.tries = state.tries.min(1);
            }
            state.missing = lacks;
        }
        if lacking.len() > MOST_SINGLE {
            effects.push(Effect::Fetch { filters: vec![Topic::people(group, part)] });
        } else if !lacking.is_empty() {
            let filters = lacking.iter().map(|place| Topic::Person(*place).to_string()).collect();
            effects.push(Effect::Fetch { filters });
        }
        Ok(effects)
    }

    /// Publishes again what this door wrote and the office lacks.
    fn offer(&self, place: Place) -> Option<Effect> {
        let mine = self.roll.get(place).is_some_and(|entry| entry.version.author == self.id);
        let topic = Topic::Person(place).to_string();
        mine.then(|| Effect::PublishKept { topic, key: mine_key(place) })
    }

    /// Takes in a removal of which only the version is known.
    fn gone(&mut self, place: Place, version: Version) -> Vec<Effect> {
        let was = self.group_of(place.person);
        let entry = Entry { version, presence: Presence::Gone, administrator: false, epoch: 0 };
        self.roll.put(place, entry);
        let mut effects = Vec::new();
        effects.extend(was.map(|_| Effect::Remove(place.person)));
        effects.push(entry.keep(place));
        effects.push(Effect::Forget { key: mine_key(place) });
        effects
    }

    /// Forgets a person whom the site does not have any more.
    fn drop_entry(&mut self, place: Place) -> Vec<Effect> {
        let was = self.group_of(place.person);
        self.roll.remove(place);
        let is = self.group_of(place.person);
        let mut effects = Vec::new();
        if was.is_some() && is.is_none() {
            effects.push(Effect::Remove(place.person));
        }
        effects.extend(Self::forget_entry(place));
        effects
    }

    /// Adopts the next lease once everything is there that it names.
    pub(super) fn renew_lease(&mut self) -> Vec<Effect> {
        let Some(next) = &self.next_lease else { return Vec::new() };
        let lease = &next.content;
        let groups = self.groups();
        let has_manifest = |(group, revision): &(GroupTag, u64)| {
            !groups.contains(group)
                || self.manifests.get(group).is_some_and(|had| had.revision >= *revision)
        };
        let complete = self.revoked_revision >= lease.revoked
            && self.policy.revision >= lease.policy
            && lease.manifests.iter().all(has_manifest)
            && self.parts.values().all(|part| part.agrees);
        if !complete {
            return Vec::new();
        }
        self.lease = self.next_lease.take();
        self.lacking = (false, 0, 0);
        let bytes = std::mem::take(&mut self.next_lease_bytes);
        vec![Effect::Keep { key: "lease".to_owned(), bytes }]
    }

    /// The broker has sent all that it has since the connection began: publishes again what
    /// this door wrote and the broker lost.
    pub fn fetched(&mut self, now_ms: u64) -> Vec<Effect> {
        self.fetched = true;
        let mut effects = Vec::new();
        let written = self
            .roll
            .iter()
            .filter(|(_, entry)| entry.version.author == self.id && entry.epoch > 0);
        for (place, _) in written.filter(|(place, _)| !self.seen.contains(place)) {
            effects.extend(self.offer(place));
        }
        effects.extend(self.report(now_ms));
        // Without keys there is nobody to tell.
        effects.extend(self.passages(now_ms).unwrap_or_default());
        effects
    }

    /// What is due: call it about every second.
    pub fn tick(&mut self, now_ms: u64) -> Vec<Effect> {
        if !self.connected || self.certificate.is_none() {
            return Vec::new();
        }
        let mut due = Vec::new();
        for (part, state) in &mut self.parts {
            // A clock that was set back must not delay a fetch for longer than any wait.
            let is_due =
                state.due_ms <= now_ms || state.due_ms > now_ms.saturating_add(2 * LONGEST_WAIT_MS);
            if state.agrees || !is_due {
                continue;
            }
            let wait = (GRACE_MS << state.tries.min(16)).min(LONGEST_WAIT_MS);
            state.tries = state.tries.saturating_add(1);
            state.due_ms = now_ms.saturating_add(wait);
            due.push((*part, state.expected.0 == 0));
        }
        let mut effects = Vec::new();
        let mut filters = Vec::new();
        for ((group, part), empty) in due {
            if empty {
                // Of a part without people there is no listing.
                let listing = Listing { at_ms: 0, people: Vec::new() };
                effects.extend(self.listing((group, part), &listing).unwrap_or_default());
            } else {
                filters.push(Topic::Listing(group, part).to_string());
            }
        }
        if !filters.is_empty() {
            effects.push(Effect::Fetch { filters });
        }
        effects.extend(self.renew_lease());
        let fetch = self.fetch_office(now_ms).or_else(|| self.look(now_ms));
        effects.extend(fetch);
        if self.fetched {
            effects.extend(self.report(now_ms));
        }
        effects
    }

    /// Fetches records of the office again, if a lease waits for some or others could not be
    /// believed without them.
    fn fetch_office(&mut self, now_ms: u64) -> Option<Effect> {
        let (wanted, due_ms, tries) = self.lacking;
        if !wanted && self.next_lease.is_none() {
            return None;
        }
        let first_ms = now_ms.saturating_add(GRACE_MS + self.jitter_ms(Part::default()));
        if due_ms == 0 || due_ms > now_ms.saturating_add(2 * LONGEST_WAIT_MS) {
            self.lacking.1 = first_ms;
            return None;
        }
        if due_ms > now_ms {
            return None;
        }
        let wait = (GRACE_MS << tries.min(16)).min(LONGEST_WAIT_MS);
        self.lacking = (false, first_ms.saturating_add(wait), tries.saturating_add(1));
        let mut filters = self.office_filters();
        // Certificates are many, and a lease does not wait for them.
        filters.retain(|filter| wanted || filter != "admitted/+");
        Some(Effect::Fetch { filters })
    }

    /// Fetches the office's records once in a while, whatever was heard.
    fn look(&mut self, now_ms: u64) -> Option<Effect> {
        let next = now_ms.saturating_add(LOOK_MS.1 + 60 * self.jitter_ms(Part::default()));
        if now_ms < self.look_ms {
            // A clock that was set back delays it no longer than that.
            self.look_ms = self.look_ms.min(next);
            return None;
        }
        self.look_ms = next;
        let mut filters = self.office_filters();
        filters.retain(|filter| filter != "admitted/+");
        Some(Effect::Fetch { filters })
    }

    /// What the door has.
    pub fn have(&self, now_ms: u64) -> Have {
        let groups = self.manifests.iter();
        Have {
            at_ms: now_ms,
            revoked: self.revoked_revision,
            policy: self.policy.revision,
            manifests: groups.map(|(group, manifest)| (*group, manifest.revision)).collect(),
            epoch: self.book.epoch(),
            people: self.roll.here() as u32,
            missing: self.parts.values().map(|part| part.missing).sum(),
            lease_until_ms: self.lease.as_ref().map_or(0, |lease| lease.content.until_ms),
            refused: self.refused.values().sum(),
            models: self.models_in_use.clone(),
        }
    }

    /// Publishes what the door has, if that changed or a while has passed.
    fn report(&mut self, now_ms: u64) -> Option<Effect> {
        let have = self.have(now_ms);
        if let Some((at_ms, before)) = &self.have {
            let same = Have { at_ms: before.at_ms, ..have.clone() } == *before;
            let wait = if same { HAVE_MS.1 } else { HAVE_MS.0 };
            if now_ms.abs_diff(*at_ms) < wait {
                return None;
            }
        }
        let order = next_order(now_ms, self.have_order);
        let topic = Topic::Have(self.id);
        let bytes = self.book.seal(topic, (self.id, &self.signer), order, &have).ok()?;
        self.have_order = order;
        self.have = Some((now_ms, have));
        Some(super::publish(topic, bytes))
    }
}
