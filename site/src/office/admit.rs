//! Admitting doors and locking them out.

use super::{Invitation, Office};
use crate::LARGEST_MODEL_PART;
use crate::code::{CODE_MS, Code};
use crate::content::{Certificate, Content, Join, Policy, is_name};
use crate::content::{MOST_REVOKED_PEOPLE, ModelPart, Models};
use crate::effect::{ChangeError, Effect};
use crate::names::{GroupTag, KeyId, PersonId};
use crate::topic::Topic;
use crate::{MOST_DOORS, MOST_GROUPS};
use facelatch_crypto::PublicKey;
use sha2::{Digest, Sha256};

impl Office {
    /// Lets the door that shows this code join within [`CODE_MS`]. A request that came before
    /// is fetched.
    ///
    /// # Errors
    /// If a name is out of range or taken, or there are as many doors or groups as may be.
    pub fn invite(
        &mut self,
        code: &Code,
        name: &str,
        groups: &[String],
        writes: bool,
        now_ms: u64,
    ) -> Result<Vec<Effect>, ChangeError> {
        let refuse = |text| Err(ChangeError::Content(text));
        if !is_name(name) {
            return refuse("names of doors have 1 to 100 characters");
        }
        self.check_groups(groups)?;
        if self.book.doors.len() >= MOST_DOORS {
            return refuse("a site has at most 1000 doors; revoke those that are no more");
        }
        self.invitations.retain(|invitation| invitation.name != name);
        self.invitations.push(Invitation {
            code: code.clone(),
            name: name.to_owned(),
            groups: groups.to_vec(),
            writes,
            until_ms: now_ms.saturating_add(CODE_MS),
        });
        Ok(vec![Effect::Fetch { filters: vec!["join/+".to_owned()] }])
    }

    fn check_groups(&self, groups: &[String]) -> Result<(), ChangeError> {
        let refuse = |text| Err(ChangeError::Content(text));
        if !groups.iter().all(|group| is_name(group)) {
            return refuse("names of groups have 1 to 100 characters");
        }
        if groups.is_empty() || groups.len() > MOST_GROUPS {
            return refuse("a door serves 1 to 32 groups");
        }
        let mut all = self.groups();
        all.extend(groups.iter().map(|name| (GroupTag::of(self.site, name), name.clone())));
        if all.len() > MOST_GROUPS {
            return refuse("a site has at most 32 groups; use one of those that are there");
        }
        Ok(())
    }

    /// Takes back the invitation of a door that did not come.
    pub fn uninvite(&mut self, name: &str) {
        self.invitations.retain(|invitation| invitation.name != name);
    }

    pub(super) fn admit(
        &mut self,
        invitation: Invitation,
        join: &Join,
        key: &PublicKey,
        now_ms: u64,
    ) -> Result<Vec<Effect>, ChangeError> {
        let door = KeyId::of(key);
        let named = self.book.doors.values().find(|other| other.name == invitation.name);
        if named.is_some_and(|other| other.door != door) {
            return Err(ChangeError::Content(
                "another door of that name is admitted; revoke it first, or choose another name",
            ));
        }
        let certificate = Certificate {
            door,
            name: invitation.name,
            key: *key.bytes(),
            mailbox: join.mailbox,
            groups: invitation.groups,
            writes: invitation.writes,
            since_ms: now_ms,
            until_ms: None,
        };
        let mut effects = self.put_door(certificate)?;
        let says = join.name.clone();
        effects.push(Effect::Joined { door, says, fingerprint: key.fingerprint() });
        let topic = Topic::Join(door);
        effects.push(crate::member::publish(topic, Vec::new()));
        Ok(effects)
    }

    fn put_door(&mut self, certificate: Certificate) -> Result<Vec<Effect>, ChangeError> {
        let door = certificate.door;
        if !certificate.sound() {
            return Err(ChangeError::Content("the door's key cannot be one"));
        }
        let before = self.tags();
        let mut effects = vec![self.keep(&format!("door/{door}"), &certificate.to_bytes())?];
        self.book.admit(certificate.clone());
        effects.extend(self.issue_keys(door)?);
        effects.extend(self.issue(Topic::Admitted(door), &certificate)?);
        // The lease names the manifests of new groups, so these come first.
        let tags = self.tags();
        if tags != before {
            effects.push(Effect::Subscribe { filters: self.filters() });
        }
        self.lease_wanted = true;
        Ok(effects)
    }

    /// Lets a door serve other groups, or write.
    ///
    /// # Errors
    /// If there is no such door, or a group is out of range.
    pub fn change_door(
        &mut self,
        door: KeyId,
        groups: &[String],
        writes: bool,
    ) -> Result<Vec<Effect>, ChangeError> {
        self.check_groups(groups)?;
        let known = self.book.doors.get(&door).ok_or(ChangeError::Unknown)?;
        let certificate = Certificate { groups: groups.to_vec(), writes, ..known.clone() };
        self.put_door(certificate)
    }

    /// Locks a door out: its signatures count no more, it gets no data key any more, and
    /// everything is sealed with a new one. With `distrust_ms`, people whom it wrote since
    /// that moment are removed.
    ///
    /// # Errors
    /// If there is no such door, or there are no random numbers.
    pub fn revoke_door(
        &mut self,
        door: KeyId,
        distrust_ms: Option<u64>,
        now_ms: u64,
    ) -> Result<Vec<Effect>, ChangeError> {
        if !self.book.doors.contains_key(&door) {
            return Err(ChangeError::Unknown);
        }
        let mut effects = Vec::new();
        if let Some(since_ms) = distrust_ms {
            let since = crate::book::order_at(since_ms);
            let distrusted: Vec<PersonId> = self
                .roll
                .iter()
                .filter(|(_, entry)| entry.version.author == door && entry.version.order >= since)
                .map(|(place, _)| place.person)
                .collect();
            for person in distrusted {
                self.lock_out_person(person);
                effects.extend(self.remove_everywhere(person, now_ms)?);
            }
        }
        self.book.forget(door);
        self.haves.remove(&door);
        self.lock_out_door(door);
        // First with the old data key, which all doors have, so that it arrives at once.
        effects.extend(self.issue_revoked()?);
        effects.push(Effect::Forget { key: format!("door/{door}") });
        for topic in [Topic::Keys(door), Topic::Admitted(door), Topic::Have(door)] {
            effects.extend(self.withdraw(topic));
        }
        effects.extend(self.rotate(now_ms)?);
        Ok(effects)
    }

    pub(super) fn lock_out_door(&mut self, door: KeyId) {
        let doors = &mut self.book.revoked.doors;
        if let Err(at) = doors.binary_search(&door) {
            doors.insert(at, door);
        }
        // A door whose key is that old is in no configuration any more; its certificate is
        // not in the site either.
        doors.truncate(MOST_DOORS);
    }

    pub(super) fn lock_out_person(&mut self, person: PersonId) {
        let people = &mut self.book.revoked.people;
        people.retain(|known| *known != person);
        people.push(person);
        let over = people.len().saturating_sub(MOST_REVOKED_PEOPLE);
        people.drain(..over);
    }

    pub(super) fn issue_revoked(&mut self) -> Result<Vec<Effect>, ChangeError> {
        let revoked = self.book.revoked.clone();
        let mut effects = vec![self.keep("revoked", &revoked.to_bytes())?];
        effects.extend(self.issue(Topic::Revoked, &revoked)?);
        self.lease_wanted = true;
        Ok(effects)
    }

    /// Makes a new data key for all doors of the site, and seals everything with it. People's
    /// records follow in the next calls of [`Self::tick`].
    ///
    /// # Errors
    /// If there are no random numbers.
    pub fn rotate(&mut self, now_ms: u64) -> Result<Vec<Effect>, ChangeError> {
        let mut effects: Vec<Effect> = self.new_epoch()?.into_iter().collect();
        let doors: Vec<KeyId> = self.book.doors.keys().copied().collect();
        for door in doors {
            effects.extend(self.issue_keys(door)?);
        }
        effects.extend(self.issue_all()?);
        let _ = now_ms;
        Ok(effects)
    }

    /// Makes all records of the office again. Manifests, listings and lease follow in the
    /// next call of [`Self::tick`].
    pub(super) fn issue_all(&mut self) -> Result<Vec<Effect>, ChangeError> {
        let mut effects = Vec::new();
        if self.book.revoked != crate::content::Revoked::default() {
            effects.extend(self.issue_revoked()?);
        }
        if self.records.contains_key(&Topic::Policy) {
            let policy = self.policy.clone();
            effects.extend(self.issue(Topic::Policy, &policy)?);
        }
        let doors: Vec<Certificate> = self.book.doors.values().cloned().collect();
        for door in doors {
            effects.extend(self.issue(Topic::Admitted(door.door), &door)?);
        }
        for group in self.tags() {
            self.mark_group(group);
        }
        self.lease_wanted = true;
        Ok(effects)
    }

    /// Puts rules in place of those before.
    ///
    /// # Errors
    /// If something is out of range.
    pub fn set_policy(&mut self, policy: Policy) -> Result<Vec<Effect>, ChangeError> {
        if !policy.sound() {
            return Err(ChangeError::Content(
                "a policy has at most 65536 bytes, and a lease lasts a minute to 90 days",
            ));
        }
        self.policy = policy;
        let policy = self.policy.clone();
        let mut effects = vec![self.keep("policy", &policy.to_bytes())?];
        effects.extend(self.issue(Topic::Policy, &policy)?);
        self.lease_wanted = true;
        Ok(effects)
    }

    /// Offers a set of models to the doors, which check its own signature.
    ///
    /// # Errors
    /// If the version is no name or the file is too large.
    pub fn offer_models(&mut self, version: &str, file: &[u8]) -> Result<Vec<Effect>, ChangeError> {
        let digest: [u8; 32] = Sha256::digest(file).into();
        let parts = file.len().div_ceil(LARGEST_MODEL_PART);
        let models = Models {
            version: version.to_owned(),
            digest,
            bytes: file.len() as u64,
            parts: u16::try_from(parts).unwrap_or(u16::MAX),
        };
        if !models.sound() {
            return Err(ChangeError::Content(
                "a set of models has a version of 1 to 100 characters and at most 50 MiB",
            ));
        }
        let mut effects = Vec::new();
        for (at, bytes) in (0..models.parts).zip(file.chunks(LARGEST_MODEL_PART)) {
            let part = ModelPart { digest, bytes: bytes.to_vec() };
            effects.extend(self.issue(Topic::ModelPart(at), &part)?);
        }
        let left: Vec<Topic> = self
            .records
            .keys()
            .filter(|topic| matches!(topic, Topic::ModelPart(at) if *at >= models.parts))
            .copied()
            .collect();
        for topic in left {
            effects.extend(self.withdraw(topic));
        }
        effects.extend(self.issue(Topic::Models, &models)?);
        Ok(effects)
    }
}
