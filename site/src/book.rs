//! Who may write what: the site's key, the doors that it admitted, and the data keys. Shared
//! by doors and office.

use crate::content::{Certificate, Content, EpochKey, Revoked};
use crate::effect::{ChangeError, Refusal};
use crate::envelope::{Envelope, Header, write};
use crate::names::{GroupTag, KeyId};
use crate::topic::Topic;
use facelatch_crypto::{PublicKey, Sealer, Secret, Signer};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// How far the time of a door's record may be ahead, milliseconds: clocks of doors differ by
/// seconds, and a door whose clock is wrong must not win for ever.
pub(crate) const MOST_AHEAD_MS: u64 = 10 * 60 * 1_000;

/// Bits of an order below the milliseconds.
pub(crate) const COUNTER_BITS: u32 = 16;

/// The order of a moment.
pub(crate) fn order_at(ms: u64) -> u64 {
    ms.min(u64::MAX >> COUNTER_BITS) << COUNTER_BITS
}

/// The order after all these, and not before now.
pub(crate) fn next_order(now_ms: u64, newest: u64) -> u64 {
    order_at(now_ms).max(newest.saturating_add(1))
}

/// Keys and rights.
#[derive(Clone, Debug)]
pub(crate) struct Book {
    pub site: KeyId,
    pub site_key: PublicKey,
    pub doors: BTreeMap<KeyId, Certificate>,
    /// Keys of the doors, which take time to make from their bytes.
    publics: BTreeMap<KeyId, PublicKey>,
    pub revoked: Revoked,
    epochs: BTreeMap<u32, Sealer>,
}

impl Book {
    pub fn new(site_key: PublicKey) -> Self {
        Self {
            site: KeyId::of(&site_key),
            site_key,
            doors: BTreeMap::new(),
            publics: BTreeMap::new(),
            revoked: Revoked::default(),
            epochs: BTreeMap::new(),
        }
    }

    /// Puts a certificate in place of the one of the same door.
    pub fn admit(&mut self, certificate: Certificate) {
        if let Some(key) = certificate.public() {
            self.publics.insert(certificate.door, key);
            self.doors.insert(certificate.door, certificate);
        }
    }

    pub fn forget(&mut self, door: KeyId) {
        self.publics.remove(&door);
        self.doors.remove(&door);
    }

    /// Puts data keys in place of those before.
    pub fn set_epochs<'k>(&mut self, keys: impl IntoIterator<Item = &'k EpochKey>) {
        let sealer = |key: &EpochKey| (key.epoch, Sealer::new(&Secret::new(key.key)));
        self.epochs = keys.into_iter().map(sealer).collect();
    }

    /// Number of the newest data key; 0 without one.
    pub fn epoch(&self) -> u32 {
        self.epochs.keys().next_back().copied().unwrap_or(0)
    }

    pub fn has_epoch(&self, epoch: u32) -> bool {
        self.epochs.contains_key(&epoch)
    }

    pub fn is_revoked(&self, door: KeyId) -> bool {
        self.revoked.doors.binary_search(&door).is_ok()
    }

    /// Whether a door may write people of a group.
    pub fn may_write(&self, door: KeyId, group: GroupTag) -> bool {
        door == self.site
            || self
                .doors
                .get(&door)
                .is_some_and(|door| door.writes && door.serves(self.site, group))
    }

    /// Verifies who signed a record and whether they may write there; the content stays
    /// sealed.
    pub fn verify(
        &self,
        topic: Topic,
        envelope: &Envelope<'_>,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        let Header { site, author, signer, .. } = envelope.header;
        if site != self.site {
            return Err(Refusal::Site);
        }
        if signer == self.site {
            // The office writes everything but what doors say about themselves.
            return match topic {
                Topic::Have(_) | Topic::Passage(_) | Topic::Join(_) => Err(Refusal::Right),
                Topic::Person(_) => envelope.verify(&self.site_key),
                _ if author == self.site => envelope.verify(&self.site_key),
                _ => Err(Refusal::Right),
            };
        }
        if author != signer {
            return Err(Refusal::Right);
        }
        if self.is_revoked(signer) {
            return Err(Refusal::LockedOut);
        }
        let (Some(key), Some(door)) = (self.publics.get(&signer), self.doors.get(&signer)) else {
            return Err(Refusal::Writer);
        };
        if door.until_ms.is_some_and(|until| until <= now_ms) {
            return Err(Refusal::LockedOut);
        }
        let may = match topic {
            Topic::Person(place) => self.may_write(signer, place.group),
            Topic::Have(door) | Topic::Passage(door) => door == signer,
            _ => false,
        };
        if !may {
            return Err(Refusal::Right);
        }
        envelope.verify(key)
    }

    /// Opens the content of a record that is sealed with a data key.
    pub fn open(&self, envelope: &Envelope<'_>) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let sealer = self.epochs.get(&envelope.header.epoch).ok_or(Refusal::Epoch)?;
        sealer.open(&envelope.place(), envelope.sealed()).map_err(|_| Refusal::Seal)
    }

    /// A record sealed with the newest data key.
    pub fn seal(
        &self,
        topic: Topic,
        (author, signer): (KeyId, &Signer),
        order: u64,
        content: &impl Content,
    ) -> Result<Vec<u8>, ChangeError> {
        self.seal_bytes(topic, (author, signer), order, &Zeroizing::new(content.to_bytes()))
    }

    /// The same for content that is already in bytes.
    pub fn seal_bytes(
        &self,
        topic: Topic,
        (author, signer): (KeyId, &Signer),
        order: u64,
        content: &[u8],
    ) -> Result<Vec<u8>, ChangeError> {
        let (epoch, sealer) = self.epochs.last_key_value().ok_or(ChangeError::Outside)?;
        let signer_id = KeyId::of(&signer.public());
        let header = Header { site: self.site, author, signer: signer_id, order, epoch: *epoch };
        Ok(write(topic, &header, signer, |place| sealer.seal(place, content))?)
    }
}
