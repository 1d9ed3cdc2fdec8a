//! What a door makes of a record.

use super::{Member, Revised};
use crate::book::{MOST_AHEAD_MS, order_at};
use crate::content::{
    Certificate, Content, Keys, Lease, Listing, Manifest, ModelPart, Models, Passage, Passages,
    PersonContent, Policy, Revoked,
};
use crate::effect::{Effect, Refusal};
use crate::envelope::Envelope;
use crate::names::{GroupTag, KeyId};
use crate::roll::Presence;
use crate::topic::Topic;

/// How old a passage may be, milliseconds.
pub(super) const OLDEST_PASSAGE_MS: u64 = 5 * 60 * 1_000;

type Heard = Result<Vec<Effect>, Refusal>;

impl Member {
    /// Takes in a record that was found under a topic below the site's own part. What cannot
    /// be believed changes nothing; the effects then say why. No bytes are no record: the
    /// broker has none there any more.
    pub fn hear(&mut self, topic: &str, bytes: &[u8], now_ms: u64) -> Vec<Effect> {
        if bytes.is_empty() {
            return Vec::new();
        }
        let mut effects = self.heard(topic, bytes, now_ms).unwrap_or_else(|refusal| {
            *self.refused.entry(refusal).or_default() += 1;
            if matches!(refusal, Refusal::Epoch | Refusal::Writer) {
                self.lacking.0 = true;
            }
            vec![Effect::Refused(refusal)]
        });
        effects.extend(self.renew_lease());
        effects
    }

    fn heard(&mut self, topic: &str, bytes: &[u8], now_ms: u64) -> Heard {
        let topic = Topic::parse(topic).ok_or(Refusal::Topic)?;
        let envelope = Envelope::read(topic, bytes)?;
        if envelope.header.site != self.book.site {
            return Err(Refusal::Site);
        }
        match topic {
            Topic::Keys(door) => return self.keys(door, &envelope, bytes),
            // For the office; and a door does not listen to itself.
            Topic::Have(_) | Topic::Join(_) => return Ok(Vec::new()),
            _ if envelope.header.author == self.id && topic == Topic::Passage(self.id) => {
                return Ok(Vec::new());
            }
            _ => {}
        }
        if self.certificate.is_none() {
            return Err(Refusal::Outside);
        }
        match topic {
            Topic::Person(place) if self.knows(place, &envelope) => return Ok(Vec::new()),
            Topic::Person(place) if !self.groups().contains(&place.group) => {
                return Err(Refusal::Unasked);
            }
            Topic::Manifest(group) if !self.groups().contains(&group) => return Ok(Vec::new()),
            _ => {}
        }
        self.book.verify(topic, &envelope, now_ms)?;
        let revision = envelope.header.order;
        if let Some(have) = self.revision(topic) {
            if revision < have {
                return Err(Refusal::Old);
            }
            if revision == have {
                return Ok(Vec::new());
            }
        }
        let content = self.book.open(&envelope)?;
        match topic {
            Topic::Revoked => self.revoked(revision, Revoked::from_bytes(&content)?, bytes),
            Topic::Policy => self.new_policy(revision, Policy::from_bytes(&content)?, bytes),
            Topic::Lease => {
                let content = Lease::from_bytes(&content)?;
                self.next_lease = Some(Revised { revision, content });
                self.next_lease_bytes = bytes.to_vec();
                Ok(Vec::new())
            }
            Topic::Admitted(door) => {
                self.admit(door, revision, Certificate::from_bytes(&content)?, bytes)
            }
            Topic::Manifest(group) => {
                let content = Manifest::from_bytes(&content)?;
                let mut effects = Vec::new();
                if self.manifest(group, Revised { revision, content }, now_ms) {
                    // All others were heard on this connection already.
                    let mut filters = self.filters();
                    filters.sort_by_key(|filter| !filter.starts_with("people/"));
                    effects.push(Effect::Subscribe { filters });
                }
                effects.push(Effect::Keep { key: topic.to_string(), bytes: bytes.to_vec() });
                Ok(effects)
            }
            Topic::Listing(group, part) => {
                self.listing((group, part), &Listing::from_bytes(&content)?)
            }
            Topic::Person(place) => {
                if revision > order_at(self.reference_ms(now_ms) + MOST_AHEAD_MS) {
                    return Err(Refusal::Ahead);
                }
                let person = PersonContent::from_bytes(&content)?;
                self.person(place, &envelope, (&content, person), bytes, now_ms)
            }
            Topic::Passage(door) => {
                self.passed(door, revision, &Passages::from_bytes(&content)?, now_ms)
            }
            Topic::Models => {
                let content = Models::from_bytes(&content)?;
                let keep = Effect::Keep { key: topic.to_string(), bytes: bytes.to_vec() };
                self.models = Some(Revised { revision, content: content.clone() });
                Ok(vec![Effect::Models(content), keep])
            }
            Topic::ModelPart(part) => {
                let ModelPart { digest, bytes } = ModelPart::from_bytes(&content)?;
                if self.wanted_models != Some(digest) {
                    return Err(Refusal::Unasked);
                }
                Ok(vec![Effect::ModelPart { digest, part, bytes }])
            }
            Topic::Keys(_) | Topic::Have(_) | Topic::Join(_) => Ok(Vec::new()),
        }
    }

    /// The moment that others' times are compared with: a door whose clock is behind knows
    /// the office's time.
    pub(super) fn reference_ms(&self, now_ms: u64) -> u64 {
        let leases = self.lease.iter().chain(&self.next_lease);
        leases.map(|lease| lease.content.at_ms).fold(now_ms, u64::max)
    }

    /// The revision of a record of the office that is had. `None` for other records.
    fn revision(&self, topic: Topic) -> Option<u64> {
        Some(match topic {
            Topic::Revoked => self.revoked_revision,
            Topic::Policy => self.policy.revision,
            Topic::Lease => {
                let leases = self.lease.iter().chain(&self.next_lease);
                leases.map(|lease| lease.revision).max()?
            }
            Topic::Admitted(door) => *self.admitted.get(&door)?,
            Topic::Manifest(group) => self.manifests.get(&group)?.revision,
            Topic::Models => self.models.as_ref()?.revision,
            _ => return None,
        })
    }

    fn keys(&mut self, door: KeyId, envelope: &Envelope<'_>, bytes: &[u8]) -> Heard {
        if door != self.id {
            return Ok(Vec::new());
        }
        if envelope.header.signer != self.book.site || envelope.header.author != self.book.site {
            return Err(Refusal::Right);
        }
        envelope.verify(&self.book.site_key)?;
        let revision = envelope.header.order;
        if revision < self.keys_revision {
            return Err(Refusal::Old);
        }
        if revision == self.keys_revision {
            return Ok(Vec::new());
        }
        let content = self.mailbox.open(&envelope.place(), envelope.sealed());
        let Keys { certificate, epochs } = Keys::from_bytes(&content.map_err(|_| Refusal::Seal)?)?;
        let mine = certificate.key == *self.signer.public().bytes()
            && certificate.mailbox == *self.mailbox.address().bytes();
        if !mine {
            return Err(Refusal::Content);
        }
        self.keys_revision = revision;
        self.lacking = (false, 0, 0);
        let renewed = epochs.iter().any(|key| !self.book.has_epoch(key.epoch));
        self.book.set_epochs(&epochs);
        let mut effects = Vec::new();
        if self.certificate.as_ref() != Some(&certificate) {
            self.book.admit(certificate.clone());
            self.certificate = Some(certificate.clone());
            effects.extend(self.leave_other_groups());
            effects.push(Effect::Admitted(Box::new(certificate)));
            effects.push(Effect::Subscribe { filters: self.filters() });
        } else if renewed {
            // Records may have been refused for want of these keys.
            let all = self.filters();
            effects.push(Effect::Fetch { filters: all.into_iter().skip(1).collect() });
        }
        effects.push(Effect::Keep { key: "keys".to_owned(), bytes: bytes.to_vec() });
        effects.push(Effect::Forget { key: "expelled".to_owned() });
        Ok(effects)
    }

    /// Forgets people of groups that the door does not serve any more.
    fn leave_other_groups(&mut self) -> Vec<Effect> {
        let groups = self.groups();
        let left: Vec<_> = self
            .roll
            .iter()
            .filter(|(place, _)| !groups.contains(&place.group))
            .map(|(place, entry)| (place, entry.presence))
            .collect();
        let mut effects = Vec::new();
        for (place, presence) in left {
            self.roll.remove(place);
            if presence == Presence::Here && self.group_of(place.person).is_none() {
                effects.push(Effect::Remove(place.person));
            }
            effects.extend(Self::forget_entry(place));
        }
        let manifests: Vec<GroupTag> =
            self.manifests.keys().copied().filter(|group| !groups.contains(group)).collect();
        for group in manifests {
            self.manifests.remove(&group);
            effects.push(Effect::Forget { key: Topic::Manifest(group).to_string() });
        }
        self.parts.retain(|(group, _), _| groups.contains(group));
        self.large.retain(|group| groups.contains(group));
        effects
    }

    fn admit(
        &mut self,
        door: KeyId,
        revision: u64,
        certificate: Certificate,
        bytes: &[u8],
    ) -> Heard {
        if certificate.door != door || self.book.is_revoked(door) {
            return Err(Refusal::Content);
        }
        if self.admitted.len() >= crate::MOST_DOORS && !self.admitted.contains_key(&door) {
            return Err(Refusal::Full);
        }
        self.admitted.insert(door, revision);
        // A door believes about itself only what came sealed for it.
        if door != self.id {
            self.book.admit(certificate);
        }
        // Records of this door may have been refused.
        for part in self.parts.values_mut().filter(|part| !part.agrees) {
            (part.due_ms, part.tries) = (part.due_ms.min(1), 0);
        }
        Ok(vec![Effect::Keep { key: Topic::Admitted(door).to_string(), bytes: bytes.to_vec() }])
    }

    fn revoked(&mut self, revision: u64, revoked: Revoked, bytes: &[u8]) -> Heard {
        let mut effects = Vec::new();
        self.revoked_revision = revision;
        if revoked.doors.binary_search(&self.id).is_ok() {
            return Ok(self.expelled());
        }
        for person in &revoked.people {
            let was = self.group_of(*person);
            self.revoked_people.insert(*person);
            effects.extend(was.map(|_| Effect::Remove(*person)));
        }
        self.revoked_people = revoked.people.iter().copied().collect();
        for door in &revoked.doors {
            if self.admitted.remove(door).is_some() {
                effects.push(Effect::Forget { key: Topic::Admitted(*door).to_string() });
            }
            self.book.forget(*door);
            self.passages.remove(door);
        }
        self.book.revoked = revoked;
        effects.push(Effect::Keep { key: "revoked".to_owned(), bytes: bytes.to_vec() });
        Ok(effects)
    }

    /// Forgets everything but that it was locked out, so that keys from before are not taken
    /// again.
    fn expelled(&mut self) -> Vec<Effect> {
        let people: Vec<_> = self.people().collect();
        let mut effects: Vec<Effect> = people.into_iter().map(Effect::Remove).collect();
        let bytes = self.keys_revision.to_le_bytes().to_vec();
        effects.push(Effect::Keep { key: "expelled".to_owned(), bytes });
        let forget = |key: String| Effect::Forget { key };
        effects.extend(
            ["keys", "revoked", "policy", "lease", "models"].map(str::to_owned).map(forget),
        );
        effects.extend(self.admitted.keys().map(|door| forget(Topic::Admitted(*door).to_string())));
        effects
            .extend(self.manifests.keys().map(|group| forget(Topic::Manifest(*group).to_string())));
        effects.extend(self.roll.iter().flat_map(|(place, _)| Self::forget_entry(place)));
        self.forget_all();
        effects.push(Effect::Expelled);
        effects.push(Effect::Subscribe { filters: self.filters() });
        effects
    }

    fn new_policy(&mut self, revision: u64, policy: Policy, bytes: &[u8]) -> Heard {
        let before = std::mem::replace(&mut self.policy, Revised { revision, content: policy });
        let mut effects = vec![Effect::Policy(Box::new(self.policy.content.clone()))];
        if before.content.administrators_from_doors != self.policy.content.administrators_from_doors
        {
            for (place, entry) in self.roll.iter().filter(|(_, entry)| entry.administrator) {
                let author = entry.version.author;
                let others = author != self.book.site && author != self.id;
                if others && self.group_of(place.person) == Some(place.group) {
                    let is = self.is_administrator(true, author);
                    effects.push(Effect::Administrator { person: place.person, is });
                }
            }
        }
        effects.push(Effect::Keep { key: "policy".to_owned(), bytes: bytes.to_vec() });
        Ok(effects)
    }

    /// Takes in the passages at another door that are not known here yet.
    fn passed(&mut self, door: KeyId, order: u64, said: &Passages, now_ms: u64) -> Heard {
        let oldest = now_ms.saturating_sub(OLDEST_PASSAGE_MS);
        let ahead = self.reference_ms(now_ms) + MOST_AHEAD_MS;
        if order > order_at(ahead) {
            return Err(Refusal::Ahead);
        }
        let (last, mut newest) = self.passages.get(&door).copied().unwrap_or_default();
        if order <= last {
            return Err(Refusal::Old);
        }
        let mut heard = Vec::new();
        for passage in &said.list {
            if passage.at_ms <= newest || !(oldest..=ahead).contains(&passage.at_ms) {
                continue;
            }
            if !self.passage_rates.allows(door, now_ms) {
                if heard.is_empty() {
                    return Err(Refusal::Rate);
                }
                break;
            }
            newest = passage.at_ms;
            heard.push(Effect::Passage(Passage { door, ..*passage }));
        }
        if heard.is_empty() {
            return Err(Refusal::Old);
        }
        self.passages.insert(door, (order, newest));
        Ok(heard)
    }
}
