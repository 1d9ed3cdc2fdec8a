//! A new office, and one that is started again.

use super::{Office, OfficeError, Record};
use crate::book::Book;
use crate::content::{Certificate, Content, EpochKey, Manifest, PersonContent, Policy, Revoked};
use crate::effect::{ChangeError, Effect};
use crate::envelope::Envelope;
use crate::names::{GroupTag, KeyId, PersonId, Place};
use crate::rate::Rates;
use crate::roll::{Entry, Roll};
use crate::topic::Topic;
use facelatch_crypto::{EntropyError, Sealer, Secret, Signer};
use std::collections::{BTreeMap, BTreeSet};
use zeroize::Zeroizing;

/// Records of people at once from one door, and time for one more, milliseconds.
const RECORDS: (u64, u64) = (crate::MOST_PEOPLE as u64, 100);

impl Office {
    /// The office that holds this secret. `kept` is what [`Effect::Keep`] said; nothing for
    /// a new site, whose first data key is among the effects.
    ///
    /// # Errors
    /// If what was kept is damaged, or belongs to another secret.
    pub fn new(
        secret: &Secret,
        kept: impl IntoIterator<Item = (String, Vec<u8>)>,
    ) -> Result<(Self, Vec<Effect>), OfficeError> {
        let signer = Signer::new(&secret.derive("facelatch site key"));
        let site = KeyId::of(&signer.public());
        let mut office = Self {
            store: Sealer::new(&secret.derive("facelatch site office store")),
            book: Book::new(signer.public()),
            signer,
            site,
            revision: 0,
            epochs: Vec::new(),
            haves: BTreeMap::new(),
            policy: Policy::default(),
            roll: Roll::default(),
            people: BTreeMap::new(),
            records: BTreeMap::new(),
            dirty: BTreeSet::new(),
            dirty_groups: BTreeSet::new(),
            manifests_at_ms: 0,
            lease_at_ms: 0,
            lease_wanted: true,
            seen: BTreeSet::new(),
            connected: false,
            compare_at_ms: None,
            compared_at_ms: 0,
            compare_wanted: false,
            invitations: Vec::new(),
            record_rates: Rates::new(RECORDS.0, RECORDS.1),
            refused: BTreeMap::new(),
        };
        let mut people = Vec::new();
        for (key, bytes) in kept {
            match key.strip_prefix("person/").and_then(place_of) {
                Some(place) => people.push((place, bytes)),
                None => office.start_with(&key, &bytes)?,
            }
        }
        let mut effects = Vec::new();
        if office.epochs.is_empty() {
            effects.extend(office.new_epoch()?);
        }
        office.book.set_epochs(&office.epochs);
        for (place, bytes) in people {
            office.start_person(place, bytes);
        }
        effects.extend(
            office
                .make_whole()
                .map_err(|_| OfficeError::Damaged("the list of doors".to_owned()))?,
        );
        Ok((office, effects))
    }

    /// Makes records again that a stop or damage left out.
    fn make_whole(&mut self) -> Result<Vec<Effect>, ChangeError> {
        let mut effects = Vec::new();
        let doors: Vec<KeyId> = self.book.doors.keys().copied().collect();
        for door in &doors {
            if !self.records.contains_key(&Topic::Keys(*door)) {
                effects.extend(self.issue_keys(*door)?);
            }
        }
        let lacks = |topic: Topic| !self.records.contains_key(&topic);
        if doors.iter().any(|door| lacks(Topic::Admitted(*door)))
            || self.book.revoked != Revoked::default() && lacks(Topic::Revoked)
            || self.policy != Policy::default() && lacks(Topic::Policy)
        {
            effects.extend(self.issue_all()?);
        }
        for group in self.manifests().into_keys() {
            let topic = Topic::Manifest(group);
            let manifest = self.records.get(&topic).and_then(|(_, bytes)| {
                let content = self.book.open(&Envelope::read(topic, bytes).ok()?).ok()?;
                Manifest::from_bytes(&content).ok()
            });
            let whole = self
                .manifest_parts(group)
                .iter()
                .all(|(part, ..)| self.records.contains_key(&Topic::Listing(group, *part)));
            if !whole || manifest.is_none_or(|had| had.parts != self.manifest_parts(group)) {
                self.mark_group(group);
            }
        }
        Ok(effects)
    }

    fn start_with(&mut self, key: &str, bytes: &[u8]) -> Result<(), OfficeError> {
        let damaged = || OfficeError::Damaged(format!("the record {key}"));
        if let Some(topic) = key.strip_prefix("record/") {
            let topic = Topic::parse(topic).ok_or_else(damaged)?;
            // A damaged one is made again.
            if let Ok(envelope) = Envelope::read(topic, bytes)
                && envelope.verify(&self.signer.public()).is_ok()
            {
                self.revision = self.revision.max(envelope.header.order);
                self.records.insert(topic, (envelope.header.order, bytes.to_vec()));
            }
            return Ok(());
        }
        let content = self.store.open(key.as_bytes(), bytes).map_err(|_| damaged())?;
        match key {
            "revision" => {
                let bytes = content.first_chunk::<8>().ok_or_else(damaged)?;
                self.revision = self.revision.max(u64::from_le_bytes(*bytes));
            }
            "epochs" => {
                self.epochs = postcard::from_bytes(&content).map_err(|_| damaged())?;
            }
            "revoked" => {
                self.book.revoked = Revoked::from_bytes(&content).map_err(|_| damaged())?;
            }
            "policy" => self.policy = Policy::from_bytes(&content).map_err(|_| damaged())?,
            _ if key.starts_with("door/") => {
                let door = Certificate::from_bytes(&content).map_err(|_| damaged())?;
                self.book.admit(door);
            }
            _ => return Err(damaged()),
        }
        Ok(())
    }

    /// A record that cannot be opened is left out: the broker or a door still has it.
    fn start_person(&mut self, place: Place, bytes: Vec<u8>) {
        let Ok(envelope) = Envelope::read(Topic::Person(place), &bytes) else { return };
        let Ok(content) = self.book.open(&envelope) else { return };
        let Ok(person) = PersonContent::from_bytes(&content) else { return };
        let header = envelope.header;
        let entry = Entry::new(header.order, header.author, header.epoch, &content, &person);
        self.roll.put(place, entry);
        self.people.insert(place, Record::from(bytes));
    }

    /// Makes the next data key.
    pub(super) fn new_epoch(&mut self) -> Result<Option<Effect>, EntropyError> {
        let epoch = self.epochs.last().map_or(1, |last| last.epoch.saturating_add(1));
        self.epochs.push(EpochKey { epoch, key: *Secret::random()?.bytes() });
        self.book.set_epochs(&self.epochs);
        let bytes = Zeroizing::new(postcard::to_stdvec(&self.epochs).unwrap_or_default());
        self.keep("epochs", &bytes).map(Some)
    }

    /// Keeps content, sealed with the office's own key.
    pub(super) fn keep(&self, key: &str, content: &[u8]) -> Result<Effect, EntropyError> {
        let bytes = self.store.seal(key.as_bytes(), content)?;
        Ok(Effect::Keep { key: key.to_owned(), bytes })
    }
}

/// Key of a person's record.
pub(super) fn person_key(place: Place) -> String {
    format!("person/{}/{}", place.group, place.person)
}

fn place_of(text: &str) -> Option<Place> {
    let (group, person) = text.split_once('/')?;
    let (group, person): (GroupTag, PersonId) = (group.parse().ok()?, person.parse().ok()?);
    Some(Place { group, person })
}
