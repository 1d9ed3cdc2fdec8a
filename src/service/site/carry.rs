//! EDGE: what follows from a record: changes of the gallery, what is kept, and messages.

use super::thread::{APPLIED, Digest, SYNCED, SiteThread};
use super::{MOST_PASSAGES, Passage, now_ms};
use crate::access::door::Role;
use crate::audit::entry::{By, Entry, Severity, Via};
use crate::service::audit_entries::people_changes;
use crate::storage::gallery::{Opening, Purpose, SiteChange, Store, StoreError};
use facelatch_messages::{Bytes, FromDoor};
use facelatch_site::{Effect, Person, PersonId as SiteId};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Pause before a change of the gallery that failed is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What is kept, with nothing for what is forgotten.
type Kept = Vec<(String, Option<Vec<u8>>)>;

impl SiteThread {
    /// Carries out effects: first the gallery, then what is kept, so that a stop in between
    /// repeats changes and loses none.
    pub(super) fn carry(&mut self, effects: Vec<Effect>, ended: &AtomicBool) {
        let (mut changes, mut kept, mut messages) = (Vec::new(), Kept::new(), Vec::new());
        let mut rules = false;
        for effect in effects {
            match effect {
                Effect::Put(person) => changes.push(SiteChange::Put(person)),
                Effect::Remove(person) => changes.push(SiteChange::Remove(person)),
                Effect::Administrator { person, is } => {
                    changes.push(SiteChange::Administrator(person, is));
                }
                Effect::Keep { key, bytes } => kept.push((key, Some(bytes))),
                Effect::Forget { key } => kept.push((key, None)),
                Effect::Passage(passage) => self.passed_elsewhere(&passage),
                Effect::Admitted(certificate) => {
                    let groups = certificate.groups.join(", ");
                    log::info!("site: admitted as {:?} for {groups}", certificate.name);
                    self.note(Entry::new("site").with("state", "admitted"));
                    rules = true;
                }
                Effect::Expelled => {
                    log::error!("site: this door is locked out; its people of the site are gone");
                    let entry = Entry::new("site").with("state", "locked out");
                    self.note(Entry { severity: Severity::Error, ..entry });
                    rules = true;
                    self.synced = false;
                    self.delivery.forget();
                    kept.push((SYNCED.to_owned(), None));
                }
                // After what is kept.
                message @ (Effect::Publish { .. }
                | Effect::PublishKept { .. }
                | Effect::Subscribe { .. }
                | Effect::Fetch { .. }) => messages.push(message),
                Effect::Policy(_) => rules = true,
                Effect::ModelPart { digest, part, bytes } => {
                    self.delivery.part(digest, part, &bytes);
                }
                // The member keeps what is offered.
                Effect::Models(_) | Effect::Joined { .. } | Effect::Refused(_) => {}
            }
        }
        if !changes.is_empty() && !self.change_gallery(&changes, &mut kept, ended) {
            return;
        }
        self.keep(&kept);
        if rules {
            self.rules();
        }
        for message in messages {
            self.message(message);
        }
    }

    fn keep(&mut self, kept: &Kept) {
        if kept.is_empty() {
            return;
        }
        let fault = self.store.keep(kept).err().map(|error| error.to_string());
        if let Some(fault) = fault.as_ref().filter(|fault| self.fault.as_ref() != Some(*fault)) {
            log::error!("site: {fault}");
        }
        self.fault = fault;
    }

    fn message(&mut self, message: Effect) {
        if !self.is_connected() {
            return;
        }
        let message = match message {
            Effect::Publish { topic, bytes, retain, expires_s } => {
                self.publish(topic, bytes, retain, expires_s)
            }
            Effect::PublishKept { topic, key } => match self.store.one(&key) {
                Ok(Some(bytes)) => self.publish(topic, bytes, true, None),
                _ => return,
            },
            Effect::Subscribe { filters } => FromDoor::Subscribe { filters },
            Effect::Fetch { filters } => FromDoor::Fetch { filters },
            _ => return,
        };
        self.send(vec![message]);
    }

    fn publish(
        &mut self,
        topic: String,
        bytes: Vec<u8>,
        retain: bool,
        expires_s: Option<u32>,
    ) -> FromDoor {
        self.published += 1;
        FromDoor::Publish { id: self.published, topic, bytes: Bytes(bytes), retain, expires_s }
    }

    /// Makes changes in the gallery, and tries again until that works or the service ends.
    /// Returns whether it worked; adds what is to be kept about it.
    fn change_gallery(
        &mut self,
        changes: &[SiteChange],
        kept: &mut Kept,
        ended: &AtomicBool,
    ) -> bool {
        loop {
            match self.try_change(changes, kept) {
                Ok(()) => {
                    self.fault = None;
                    return true;
                }
                Err(error) => {
                    let fault = error.to_string();
                    // Another process has it for a moment.
                    let busy = matches!(error, StoreError::Busy { .. });
                    if !busy && self.fault.as_ref() != Some(&fault) {
                        log::error!("site: {fault}; its changes wait");
                        self.fault = Some(fault);
                        self.show();
                    }
                }
            }
            if ended.load(Ordering::Acquire) {
                return false;
            }
            std::thread::sleep(AGAIN_AFTER);
        }
    }

    fn try_change(&mut self, changes: &[SiteChange], kept: &mut Kept) -> Result<(), StoreError> {
        let mut gallery = self.open_gallery(Purpose::Begin)?;
        let before = gallery.people()?;
        let not_taken = gallery.apply_site(changes)?;
        for (id, fault) in not_taken {
            log::error!("site: person {id} cannot be taken in: {fault}");
        }
        let touched: BTreeSet<SiteId> = changes
            .iter()
            .map(|change| match change {
                SiteChange::Put(person) => person.id,
                SiteChange::Remove(id) | SiteChange::Administrator(id, _) => *id,
            })
            .collect();
        for id in &touched {
            self.applied.remove(id);
            self.numbers.remove(id);
        }
        for now in gallery.site_people(Some(&touched))? {
            self.applied.insert(now.person.id, digest(&now.person));
            self.numbers.insert(now.person.id, now.number);
        }
        for id in &touched {
            let digest = self.applied.get(id).map(|digest| digest.to_vec());
            kept.push((format!("{APPLIED}{id}"), digest));
        }
        let entry = Entry { by: by_site(), ..Entry::new("people") };
        for entry in entry.with_changes(people_changes(&before, &gallery.people()?)) {
            self.note(entry);
        }
        Ok(())
    }

    /// The gallery, open to be changed.
    pub(super) fn open_gallery(&self, purpose: Purpose) -> Result<Store, StoreError> {
        let opening = Opening::to(purpose).registered(self.settings.register.clone());
        Store::open_as(&self.settings.gallery, opening)
    }

    /// Writes to the audit log.
    pub(super) fn note(&self, entry: Entry) {
        let auditor = &self.settings.auditor;
        auditor.entry(auditor.now(), entry.encode());
    }

    fn passed_elsewhere(&self, passage: &facelatch_site::Passage) {
        let Some(person) = self.numbers.get(&passage.person).copied() else { return };
        let ago = Duration::from_millis(now_ms().saturating_sub(passage.at_ms));
        let role = if passage.inwards { Role::In } else { Role::Out };
        self.locked(|shared| {
            if shared.passages.len() < MOST_PASSAGES {
                shared.passages.push_back(Passage { person, role, ago });
            }
        });
    }
}

/// Who caused what the site changed.
pub(super) fn by_site() -> By {
    By { via: Via::Link, ..By::default() }
}

/// Digest of a person.
pub(super) fn digest(person: &Person) -> Digest {
    let bytes = postcard::to_stdvec(person).unwrap_or_default();
    let digest = Sha256::digest(bytes);
    std::array::from_fn(|at| digest[at])
}
