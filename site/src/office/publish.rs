//! The office's own records: made, published, compared with what the broker has.

use super::start::person_key;
use super::{Office, Record};
use crate::book::order_at;
use crate::content::{
    Content, EpochKey, Keys, Lease, Listing, MOST_EPOCHS, MOST_LISTED, Manifest, PartDigest,
};
use crate::effect::{ChangeError, Effect};
use crate::envelope::{Envelope, Header, write};
use crate::member::{REMOVALS_MS, publish};
use crate::names::{GroupTag, KeyId, Part, Place};
use crate::roll::{Entry, Presence, digest_of};
use crate::topic::Topic;
use std::collections::BTreeSet;
use zeroize::Zeroizing;

/// Shortest time between two manifests of changes that do not lock anybody out,
/// milliseconds.
const MANIFEST_MS: u64 = 1_000;
/// Leases made in the time of one.
const LEASES: u64 = 8;
/// Records of people that are sealed again per call.
const SEALED_AT_ONCE: usize = 100;
/// Longest wait for what the broker has, milliseconds.
const COMPARE_MS: u64 = 10 * 60_000;
/// Shortest time between two comparisons that somebody's report starts, milliseconds.
const COMPARE_AGAIN_MS: u64 = 15_000;
/// Longest time between two comparisons, milliseconds.
const COMPARE_ALWAYS_MS: u64 = 6 * 3_600_000;

impl Office {
    /// Makes a record of the office, keeps and publishes it.
    pub(super) fn issue(
        &mut self,
        topic: Topic,
        content: &impl Content,
    ) -> Result<Vec<Effect>, ChangeError> {
        let revision = self.next_revision();
        let bytes = self.book.seal(topic, (self.site, &self.signer), revision, content)?;
        self.issued(topic, revision, bytes)
    }

    fn next_revision(&mut self) -> u64 {
        self.revision = self.revision.saturating_add(1);
        self.revision
    }

    fn issued(
        &mut self,
        topic: Topic,
        revision: u64,
        bytes: Vec<u8>,
    ) -> Result<Vec<Effect>, ChangeError> {
        let kept = self.keep("revision", &revision.to_le_bytes())?;
        self.records.insert(topic, (revision, bytes.clone()));
        self.seen.insert(topic);
        let key = format!("record/{topic}");
        Ok(vec![kept, Effect::Keep { key, bytes: bytes.clone() }, publish(topic, bytes)])
    }

    /// Data keys for one door: all with which something is still sealed.
    pub(super) fn issue_keys(&mut self, door: KeyId) -> Result<Vec<Effect>, ChangeError> {
        let Some(certificate) = self.book.doors.get(&door).cloned() else {
            return Err(ChangeError::Unknown);
        };
        let newest = self.book.epoch();
        let used = self.roll.iter().map(|(_, entry)| entry.epoch);
        let oldest = used.min().unwrap_or(newest).min(newest.saturating_sub(1));
        let epochs: Vec<EpochKey> = self
            .epochs
            .iter()
            .rev()
            .take_while(|key| key.epoch >= oldest)
            .take(MOST_EPOCHS)
            .cloned()
            .collect();
        let epochs = epochs.into_iter().rev().collect();
        let address = certificate.address();
        let plain = Zeroizing::new(Keys { certificate, epochs }.to_bytes());
        let topic = Topic::Keys(door);
        let order = self.next_revision();
        let header =
            Header { site: self.site, author: self.site, signer: self.site, order, epoch: 0 };
        // Sealed before, because sealing for somebody can fail otherwise than by entropy.
        let mut fault = None;
        let bytes = write(topic, &header, &self.signer, |place| {
            Ok(address.seal(place, &plain).unwrap_or_else(|error| {
                fault = Some(error);
                Vec::new()
            }))
        })?;
        if let Some(fault) = fault {
            return Err(fault.into());
        }
        self.issued(topic, order, bytes)
    }

    /// Takes a record back: nothing is to be found under its topic.
    pub(super) fn withdraw(&mut self, topic: Topic) -> Vec<Effect> {
        self.records.remove(&topic);
        vec![Effect::Forget { key: format!("record/{topic}") }, publish(topic, Vec::new())]
    }

    /// The connection to the broker begins.
    pub fn connected(&mut self) -> Vec<Effect> {
        self.connected = true;
        self.seen.clear();
        vec![Effect::Subscribe { filters: self.filters() }]
    }

    /// The connection to the broker ended.
    pub fn disconnected(&mut self) {
        self.connected = false;
        (self.compare_at_ms, self.compare_wanted) = (None, false);
    }

    /// The broker has sent all that it has for the filters of the subscription, or of the last
    /// fetch: publishes again what it lost.
    pub fn fetched(&mut self, now_ms: u64) -> Vec<Effect> {
        self.compared_at_ms = now_ms;
        self.compare_at_ms = None;
        let mut effects = Vec::new();
        // Those locked out come first in the order of topics.
        for (topic, (_, bytes)) in &self.records {
            if !self.seen.contains(topic) {
                effects.push(publish(*topic, bytes.clone()));
            }
        }
        for (place, bytes) in &self.people {
            let topic = Topic::Person(*place);
            if !self.seen.contains(&topic) {
                effects.push(publish(topic, bytes.to_vec()));
            }
        }
        effects
    }

    /// Has the broker show everything again, because something seems to be missing there, or
    /// because that was not done for long.
    fn compare(&mut self, now_ms: u64) -> Option<Effect> {
        let since_ms = now_ms.abs_diff(self.compared_at_ms);
        let due =
            since_ms >= COMPARE_ALWAYS_MS || self.compare_wanted && since_ms >= COMPARE_AGAIN_MS;
        if !self.connected || !due || self.compare_at_ms.is_some() {
            return None;
        }
        self.compare_wanted = false;
        self.seen.clear();
        self.compare_at_ms = Some(now_ms.saturating_add(COMPARE_MS));
        Some(Effect::Fetch { filters: self.filters() })
    }

    /// What is due: call it about every second, connected or not.
    ///
    /// # Errors
    /// If there are no random numbers.
    pub fn tick(&mut self, now_ms: u64) -> Result<Vec<Effect>, ChangeError> {
        self.invitations.retain(|invitation| invitation.until_ms > now_ms);
        let mut effects = Vec::new();
        if self.compare_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            // It did not send all; it will be asked again.
            (self.compare_at_ms, self.compared_at_ms) = (None, now_ms);
        }
        effects.extend(self.compare(now_ms));
        effects.extend(self.seal_again()?);
        effects.extend(self.drop_old_removals(now_ms));
        self.mark_missing();
        let waited = now_ms.abs_diff(self.manifests_at_ms) >= MANIFEST_MS;
        if self.lease_wanted || waited {
            effects.extend(self.issue_manifests(now_ms)?);
        }
        let every_ms = u64::from(self.policy.lease_s) * 1_000 / LEASES;
        if self.lease_wanted || now_ms.abs_diff(self.lease_at_ms) >= every_ms {
            effects.extend(self.issue_lease(now_ms)?);
        }
        Ok(effects)
    }

    /// Manifests that should be and are not, as in the first moment of a group.
    fn mark_missing(&mut self) {
        let missing: Vec<GroupTag> = self
            .tags()
            .into_iter()
            .filter(|group| !self.records.contains_key(&Topic::Manifest(*group)))
            .collect();
        for group in missing {
            self.mark_group(group);
        }
    }

    /// All of a group is made again.
    pub(super) fn mark_group(&mut self, group: GroupTag) {
        self.dirty_groups.insert(group);
        let parts = Part::all().filter(|part| self.roll.part(group, *part).next().is_some());
        let parts: BTreeSet<_> = parts.map(|part| (group, part)).collect();
        self.dirty.extend(parts);
    }

    pub(super) fn mark(&mut self, place: Place) {
        self.dirty_groups.insert(place.group);
        self.dirty.insert((place.group, place.person.part()));
    }

    /// The listings first: a door that gets the manifest finds them.
    fn issue_manifests(&mut self, now_ms: u64) -> Result<Vec<Effect>, ChangeError> {
        let mut effects = Vec::new();
        for (group, part) in std::mem::take(&mut self.dirty) {
            let people = self.roll.part(group, part).take(MOST_LISTED);
            let people = people.map(|(person, entry)| (person, entry.version)).collect();
            let listing = Listing { at_ms: now_ms, people };
            effects.extend(self.issue(Topic::Listing(group, part), &listing)?);
        }
        for group in std::mem::take(&mut self.dirty_groups) {
            let parts = self.manifest_parts(group);
            let manifest = Manifest { at_ms: now_ms, parts };
            effects.extend(self.issue(Topic::Manifest(group), &manifest)?);
        }
        if !effects.is_empty() {
            self.manifests_at_ms = now_ms;
        }
        Ok(effects)
    }

    /// The parts of a group as its manifest should have them.
    pub(super) fn manifest_parts(&self, group: GroupTag) -> Vec<(Part, u16, PartDigest)> {
        let mut parts = Vec::new();
        for part in Part::all() {
            let people = self.roll.part(group, part).take(MOST_LISTED);
            let (count, digest) = digest_of(people.map(|(person, entry)| (person, &entry.version)));
            if count > 0 {
                parts.push((part, count as u16, digest));
            }
        }
        parts
    }

    fn issue_lease(&mut self, now_ms: u64) -> Result<Vec<Effect>, ChangeError> {
        let revision = |topic| self.records.get(&topic).map_or(0, |(revision, _)| *revision);
        let lease = Lease {
            at_ms: now_ms,
            until_ms: now_ms.saturating_add(u64::from(self.policy.lease_s) * 1_000),
            revoked: revision(Topic::Revoked),
            policy: revision(Topic::Policy),
            manifests: self.manifests().into_iter().take(crate::MOST_GROUPS).collect(),
        };
        self.lease_wanted = false;
        self.lease_at_ms = now_ms;
        self.issue(Topic::Lease, &lease)
    }

    pub(super) fn has_old_seals(&self) -> bool {
        let newest = self.book.epoch();
        self.roll.iter().any(|(_, entry)| entry.epoch < newest)
    }

    /// Seals some of the records that are sealed with an older data key. They keep their
    /// author and order, so nothing newer is lost to it.
    fn seal_again(&mut self) -> Result<Vec<Effect>, ChangeError> {
        let newest = self.book.epoch();
        let old: Vec<(Place, Entry)> = self
            .roll
            .iter()
            .filter(|(_, entry)| entry.epoch < newest)
            .map(|(place, entry)| (place, *entry))
            .take(SEALED_AT_ONCE)
            .collect();
        let mut effects = Vec::new();
        for (place, entry) in old {
            let topic = Topic::Person(place);
            let content = self
                .people
                .get(&place)
                .and_then(|bytes| Envelope::read(topic, bytes).ok())
                .and_then(|envelope| self.book.open(&envelope).ok());
            let Some(content) = content else {
                // Not there, or damaged: nobody can have it from here.
                self.roll.remove(place);
                self.people.remove(&place);
                self.mark(place);
                continue;
            };
            let version = entry.version;
            let author = (version.author, &self.signer);
            let bytes = self.book.seal_bytes(topic, author, version.order, &content)?;
            effects.extend(self.record(place, Entry { epoch: newest, ..entry }, bytes));
        }
        Ok(effects)
    }

    /// Has a record, keeps and publishes it.
    pub(super) fn record(&mut self, place: Place, entry: Entry, bytes: Vec<u8>) -> Vec<Effect> {
        self.roll.put(place, entry);
        self.people.insert(place, Record::from(bytes.clone()));
        self.seen.insert(Topic::Person(place));
        vec![
            Effect::Keep { key: person_key(place), bytes: bytes.clone() },
            publish(Topic::Person(place), bytes),
        ]
    }

    /// Removals that no door can have missed any more need not be known.
    fn drop_old_removals(&mut self, now_ms: u64) -> Vec<Effect> {
        let before = order_at(now_ms.saturating_sub(REMOVALS_MS));
        let old: Vec<Place> = self
            .roll
            .iter()
            .filter(|(_, entry)| entry.presence != Presence::Here && entry.version.order < before)
            .map(|(place, _)| place)
            .collect();
        let mut effects = Vec::new();
        for place in old {
            self.roll.remove(place);
            self.people.remove(&place);
            self.mark(place);
            effects.push(Effect::Forget { key: person_key(place) });
            effects.push(publish(Topic::Person(place), Vec::new()));
        }
        effects
    }
}
