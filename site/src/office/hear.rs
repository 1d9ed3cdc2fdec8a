//! What the office makes of a record.

use super::start::person_key;
use super::{Office, Record};
use crate::MOST_PEOPLE;
use crate::book::{MOST_AHEAD_MS, order_at};
use crate::content::{Content, Have, Join, PersonContent, Revoked};
use crate::effect::{Effect, Refusal};
use crate::envelope::Envelope;
use crate::member::{REMOVALS_MS, check};
use crate::names::{KeyId, Place};
use crate::roll::{Entry, MOST_RECORDS, Presence};
use crate::topic::Topic;

type Heard = Result<Vec<Effect>, Refusal>;

impl Office {
    /// Takes in a record that was found under a topic below the site's own part. What cannot
    /// be believed changes nothing; the effects then say why.
    pub fn hear(&mut self, topic: &str, bytes: &[u8], now_ms: u64) -> Vec<Effect> {
        self.heard(topic, bytes, now_ms).unwrap_or_else(|refusal| {
            *self.refused.entry(refusal).or_default() += 1;
            vec![Effect::Refused(refusal)]
        })
    }

    fn heard(&mut self, topic: &str, bytes: &[u8], now_ms: u64) -> Heard {
        let topic = Topic::parse(topic).ok_or(Refusal::Topic)?;
        if bytes.is_empty() {
            self.emptied(topic);
            return Ok(Vec::new());
        }
        let envelope = Envelope::read(topic, bytes)?;
        if envelope.header.site != self.site {
            return Err(Refusal::Site);
        }
        if let Topic::Join(door) = topic {
            return self.join(door, &envelope, now_ms);
        }
        if self.has(topic, &envelope, bytes) {
            self.seen.insert(topic);
            return Ok(Vec::new());
        }
        self.book.verify(topic, &envelope, now_ms)?;
        match topic {
            Topic::Person(place) => self.take_person(place, &envelope, bytes, now_ms),
            Topic::Have(door) => {
                let content = self.book.open(&envelope)?;
                self.have(door, envelope.header.order, Have::from_bytes(&content)?, now_ms)
            }
            Topic::Passage(_) => Ok(Vec::new()),
            _ => self.own(topic, &envelope),
        }
    }

    /// Whether a record is just the one that should be there.
    fn has(&self, topic: Topic, envelope: &Envelope<'_>, bytes: &[u8]) -> bool {
        match topic {
            Topic::Person(place) => {
                let header = envelope.header;
                let same = |entry: &Entry| {
                    (entry.version.order, entry.version.author, entry.epoch)
                        == (header.order, header.author, header.epoch)
                };
                self.roll.get(place).is_some_and(same)
                    && self.people.get(&place).is_some_and(|have| **have == *bytes)
            }
            topic => self.records.get(&topic).is_some_and(|(_, have)| have == bytes),
        }
    }

    /// Somebody emptied a topic, or the broker lost it.
    fn emptied(&mut self, topic: Topic) {
        self.compare_wanted |= match topic {
            Topic::Person(place) => self.people.contains_key(&place),
            topic => self.records.contains_key(&topic),
        };
    }

    /// A record that this office once signed and does not have like this.
    fn own(&mut self, topic: Topic, envelope: &Envelope<'_>) -> Heard {
        let order = envelope.header.order;
        if order <= self.revision {
            // Of a door or a group that is no more; anything else is published again.
            return if self.records.contains_key(&topic) {
                Err(Refusal::Old)
            } else {
                Ok(self.withdraw(topic))
            };
        }
        // The office was set back, as by an old backup: its revisions must go on from here,
        // and nobody who was locked out may come back.
        self.revision = order;
        let mut effects =
            vec![self.keep("revision", &order.to_le_bytes()).map_err(|_| Refusal::Seal)?];
        if topic == Topic::Revoked
            && let Ok(content) = self.book.open(envelope)
        {
            let Revoked { doors, people } = Revoked::from_bytes(&content)?;
            for door in doors {
                self.book.forget(door);
                self.lock_out_door(door);
            }
            for person in people {
                self.lock_out_person(person);
            }
        }
        // Made again with the next revisions.
        effects.extend(self.issue_all().map_err(|_| Refusal::Seal)?);
        Ok(effects)
    }

    fn have(&mut self, door: KeyId, order: u64, have: Have, now_ms: u64) -> Heard {
        if self.haves.get(&door).is_some_and(|(before, _)| *before >= order) {
            return Err(Refusal::Old);
        }
        if order > order_at(now_ms + MOST_AHEAD_MS) {
            return Err(Refusal::Ahead);
        }
        let behind = have.epoch < self.book.epoch() || have.revoked < self.revoked_revision();
        self.compare_wanted |= have.missing > 0 || behind;
        self.haves.insert(door, (order, have));
        Ok(Vec::new())
    }

    fn take_person(
        &mut self,
        place: Place,
        envelope: &Envelope<'_>,
        bytes: &[u8],
        now_ms: u64,
    ) -> Heard {
        let header = envelope.header;
        if header.order > order_at(now_ms + MOST_AHEAD_MS) {
            return Err(Refusal::Ahead);
        }
        // It may be one of somebody whose removal is forgotten by now.
        let forgotten = header.order < order_at(now_ms.saturating_sub(REMOVALS_MS));
        if forgotten && header.signer != self.site && self.roll.get(place).is_none() {
            return Err(Refusal::Old);
        }
        let content = self.book.open(envelope)?;
        let person = PersonContent::from_bytes(&content)?;
        check(self.site, place, &person)?;
        let entry = Entry::new(header.order, header.author, header.epoch, &content, &person);
        let before = self.roll.get(place).copied();
        if let Some(before) = before {
            if entry.version < before.version
                || entry.version == before.version && entry.epoch < before.epoch
            {
                return Err(Refusal::Old);
            }
            if entry.version == before.version {
                // The same, sealed once more: what the broker has is as good.
                self.seen.insert(Topic::Person(place));
                return Ok(Vec::new());
            }
        }
        let joins = entry.presence == Presence::Here
            && before.is_none_or(|before| before.presence != Presence::Here);
        if before.is_none() && self.roll.len() >= MOST_RECORDS
            || joins && self.roll.here() >= MOST_PEOPLE
        {
            return Err(Refusal::Full);
        }
        if !self.record_rates.allows(header.signer, now_ms) {
            return Err(Refusal::Rate);
        }
        self.roll.put(place, entry);
        self.people.insert(place, Record::from(bytes));
        self.seen.insert(Topic::Person(place));
        self.mark(place);
        let mut effects = vec![Effect::Keep { key: person_key(place), bytes: bytes.to_vec() }];
        // Doors of another group that the person was in do not hear of it otherwise.
        let gone = self
            .roll
            .of(place.person, self.tags())
            .any(|(_, entry)| entry.presence == Presence::Gone);
        if gone {
            effects
                .extend(self.remove_everywhere(place.person, now_ms).map_err(|_| Refusal::Seal)?);
        }
        Ok(effects)
    }

    fn join(&mut self, door: KeyId, envelope: &Envelope<'_>, now_ms: u64) -> Heard {
        let open =
            |code: &crate::Code| code.sealer().open(&envelope.place(), envelope.sealed()).ok();
        let invited = self.invitations.iter().enumerate().find_map(|(at, invitation)| {
            (invitation.until_ms > now_ms).then(|| Some((at, open(&invitation.code)?))).flatten()
        });
        let (at, content) = invited.ok_or(Refusal::Unasked)?;
        let join = Join::from_bytes(&content)?;
        let key = facelatch_crypto::PublicKey::from_bytes(&join.key).ok_or(Refusal::Content)?;
        let (author, signer) = (envelope.header.author, envelope.header.signer);
        if KeyId::of(&key) != door || author != door || signer != door {
            return Err(Refusal::Content);
        }
        envelope.verify(&key)?;
        if self.book.is_revoked(door) {
            return Err(Refusal::LockedOut);
        }
        let invitation = self.invitations.swap_remove(at);
        self.admit(invitation, &join, &key, now_ms).map_err(|_| Refusal::Content)
    }
}
