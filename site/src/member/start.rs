//! What a door knew before it was started again.

use super::{Member, Revised};
use crate::content::{Certificate, Content, Keys, Lease, Manifest, Models, Policy, Revoked};
use crate::effect::Refusal;
use crate::envelope::Envelope;
use crate::names::{GroupTag, PersonId, Place};
use crate::roll::{Entry, Roll};
use crate::topic::Topic;
use std::collections::BTreeMap;

impl Member {
    /// Takes in what was kept. Records of the office are verified again, so that damage costs
    /// only what is damaged; it is fetched again.
    pub(super) fn start(&mut self, kept: impl IntoIterator<Item = (String, Vec<u8>)>) {
        let mut records = BTreeMap::new();
        for (key, bytes) in kept {
            if let Some(place) = key.strip_prefix("entry/").and_then(place_of) {
                match postcard::from_bytes::<Entry>(&bytes) {
                    Ok(entry) => self.roll.put(place, entry),
                    Err(_) => self.count(Refusal::Malformed),
                }
            } else if key == "expelled" {
                let revision =
                    bytes.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
                self.keys_revision = revision;
            } else if !key.starts_with("mine/") {
                records.insert(key, bytes);
            }
        }
        if let Some(bytes) = records.remove("keys")
            && let Err(refusal) = self.start_keys(&bytes)
        {
            self.count(refusal);
        }
        // Those locked out first: nothing of theirs is taken from what follows.
        for first in [true, false] {
            for (key, bytes) in records.iter().filter(|(key, _)| (*key == "revoked") == first) {
                if let Err(refusal) = self.start_record(key, bytes) {
                    self.count(refusal);
                }
            }
        }
        if self.certificate.is_none() {
            self.roll = Roll::default();
        }
        for (group, part) in self.parts.keys().copied().collect::<Vec<_>>() {
            self.compare_part(group, part);
        }
    }

    fn count(&mut self, refusal: Refusal) {
        *self.refused.entry(refusal).or_default() += 1;
    }

    fn start_keys(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let envelope = Envelope::read(Topic::Keys(self.id), bytes)?;
        envelope.verify(&self.book.site_key)?;
        let content = self.mailbox.open(&envelope.place(), envelope.sealed());
        let Keys { certificate, epochs } = Keys::from_bytes(&content.map_err(|_| Refusal::Seal)?)?;
        self.keys_revision = envelope.header.order;
        self.book.set_epochs(&epochs);
        self.book.admit(certificate.clone());
        self.certificate = Some(certificate);
        Ok(())
    }

    fn start_record(&mut self, key: &str, bytes: &[u8]) -> Result<(), Refusal> {
        let topic = Topic::parse(key).ok_or(Refusal::Topic)?;
        let envelope = Envelope::read(topic, bytes)?;
        self.book.verify(topic, &envelope, 0)?;
        let content = self.book.open(&envelope)?;
        let revision = envelope.header.order;
        match topic {
            Topic::Revoked => {
                self.book.revoked = Revoked::from_bytes(&content)?;
                self.revoked_people = self.book.revoked.people.iter().copied().collect();
                self.revoked_revision = revision;
            }
            Topic::Policy => {
                self.policy = Revised { revision, content: Policy::from_bytes(&content)? };
            }
            Topic::Lease => {
                self.lease = Some(Revised { revision, content: Lease::from_bytes(&content)? });
            }
            Topic::Models => {
                self.models = Some(Revised { revision, content: Models::from_bytes(&content)? });
            }
            Topic::Manifest(group) => {
                let content = Manifest::from_bytes(&content)?;
                self.manifest(group, Revised { revision, content }, 0);
            }
            Topic::Admitted(door) => {
                let certificate = Certificate::from_bytes(&content)?;
                if certificate.door == door && !self.book.is_revoked(door) && door != self.id {
                    self.admitted.insert(door, revision);
                    self.book.admit(certificate);
                }
            }
            _ => return Err(Refusal::Topic),
        }
        Ok(())
    }

    pub(super) fn forget_all(&mut self) {
        self.certificate = None;
        self.book = crate::book::Book::new(self.book.site_key);
        self.admitted.clear();
        (self.revoked_revision, self.lease, self.next_lease) = (0, None, None);
        self.revoked_people.clear();
        self.policy = Revised { revision: 0, content: Policy::default() };
        self.manifests.clear();
        self.large.clear();
        self.parts.clear();
        self.roll = Roll::default();
        self.models = None;
        self.seen.clear();
    }
}

/// The place that the end of a key names: "GROUP/PERSON".
fn place_of(text: &str) -> Option<Place> {
    let (group, person) = text.split_once('/')?;
    let (group, person): (GroupTag, PersonId) = (group.parse().ok()?, person.parse().ok()?);
    Some(Place { group, person })
}
