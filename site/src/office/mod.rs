//! The holder of the site's key: admits doors, makes policy, leases and manifests, and locks
//! out.

mod admit;
mod hear;
mod people;
mod publish;
mod start;

use crate::book::Book;
use crate::code::Code;
use crate::content::{Certificate, EpochKey, Have, Policy, Revoked};
use crate::effect::Refusal;
use crate::member::{MOST_AT_ONCE, MOST_FILTERS};
use crate::names::{GroupTag, KeyId, Part, Place};
use crate::rate::Rates;
use crate::roll::Roll;
use crate::topic::Topic;
use facelatch_crypto::{PublicKey, Sealer, Secret, Signer};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use thiserror::Error;

pub use people::SitePerson;

/// What an office kept cannot be used.
#[derive(Debug, Error)]
pub enum OfficeError {
    /// Something is damaged, or belongs to another key.
    #[error(
        "{0} of the office's store is damaged or belongs to another site's key; restore the \
         office's folder from a backup"
    )]
    Damaged(String),
    /// There are no random numbers.
    #[error(transparent)]
    Entropy(#[from] facelatch_crypto::EntropyError),
}

/// A door that may join.
#[derive(Debug)]
struct Invitation {
    code: Code,
    name: String,
    groups: Vec<String>,
    writes: bool,
    until_ms: u64,
}

/// A door, as the office sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct DoorView {
    /// What it may do.
    pub certificate: Certificate,
    /// What it has, as it said last. `None` if it said nothing yet.
    pub have: Option<Have>,
}

/// What the office has of a person's record.
type Record = Box<[u8]>;

/// The holder of the site's key. Times are milliseconds since 1970 by the office's clock.
pub struct Office {
    signer: Signer,
    /// Seals what is kept.
    store: Sealer,
    site: KeyId,
    book: Book,
    /// Of the newest record of the office.
    revision: u64,
    pub(crate) epochs: Vec<EpochKey>,
    haves: BTreeMap<KeyId, (u64, Have)>,
    policy: Policy,
    roll: Roll,
    people: BTreeMap<Place, Record>,
    /// The office's own records, as published, with their revisions.
    records: BTreeMap<Topic, (u64, Vec<u8>)>,
    /// Parts whose listing is to be made again.
    dirty: BTreeSet<(GroupTag, Part)>,
    /// Groups whose manifest is to be made again.
    dirty_groups: BTreeSet<GroupTag>,
    manifests_at_ms: u64,
    /// The office's time in the newest lease.
    lease_at_ms: u64,
    lease_wanted: bool,
    /// Topics that the broker has as they should be.
    seen: BTreeSet<Topic>,
    connected: bool,
    /// While the broker shows all that it has: when to stop waiting for it.
    compare_at_ms: Option<u64>,
    compared_at_ms: u64,
    compare_wanted: bool,
    invitations: Vec<Invitation>,
    record_rates: Rates,
    refused: BTreeMap<Refusal, u64>,
}

impl fmt::Debug for Office {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Office").field("site", &self.site).finish()
    }
}

impl Office {
    /// The site, as in topics.
    pub fn site(&self) -> KeyId {
        self.site
    }

    /// The site's key, which each door's configuration names.
    pub fn public(&self) -> PublicKey {
        self.signer.public()
    }

    /// The site's key that follows from a secret.
    pub fn public_of(secret: &Secret) -> PublicKey {
        Signer::new(&secret.derive("facelatch site key")).public()
    }

    /// The doors of the site, in the order of their names.
    pub fn doors(&self) -> Vec<DoorView> {
        let view = |certificate: &Certificate| DoorView {
            certificate: certificate.clone(),
            have: self.haves.get(&certificate.door).map(|(_, have)| have.clone()),
        };
        let mut doors: Vec<DoorView> = self.book.doors.values().map(view).collect();
        doors.sort_by(|a, b| a.certificate.name.cmp(&b.certificate.name));
        doors
    }

    /// The door with this name or id.
    pub fn door(&self, named: &str) -> Option<&Certificate> {
        let id: Option<KeyId> = named.parse().ok();
        let by_id = id.and_then(|id| self.book.doors.get(&id));
        by_id.or_else(|| self.book.doors.values().find(|door| door.name == named))
    }

    /// Who is locked out.
    pub fn revoked(&self) -> &Revoked {
        &self.book.revoked
    }

    /// The rules of the site.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Number of the newest data key.
    pub fn epoch(&self) -> u32 {
        self.book.epoch()
    }

    /// Revision of the newest record of the office.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Number of the newest manifest of each group.
    pub fn manifests(&self) -> BTreeMap<GroupTag, u64> {
        let manifest = |(topic, (revision, _)): (&Topic, &(u64, Vec<u8>))| match topic {
            Topic::Manifest(group) => Some((*group, *revision)),
            _ => None,
        };
        self.records.iter().filter_map(manifest).collect()
    }

    /// Revision of the list of those locked out; 0 if nobody ever was.
    pub fn revoked_revision(&self) -> u64 {
        self.records.get(&Topic::Revoked).map_or(0, |(revision, _)| *revision)
    }

    /// How many records were refused since the start, and why.
    pub fn refused(&self) -> &BTreeMap<Refusal, u64> {
        &self.refused
    }

    /// Whether something waits that [`Self::tick`] will publish.
    pub fn is_busy(&self) -> bool {
        !self.dirty.is_empty()
            || !self.dirty_groups.is_empty()
            || self.lease_wanted
            || self.compare_at_ms.is_some()
            || self.has_old_seals()
    }

    /// Names of the groups that doors serve, by their tags.
    pub fn groups(&self) -> BTreeMap<GroupTag, String> {
        let groups = self.book.doors.values().flat_map(|door| &door.groups);
        groups.map(|name| (GroupTag::of(self.site, name), name.clone())).collect()
    }

    /// All groups of which there are people or doors.
    fn tags(&self) -> BTreeSet<GroupTag> {
        let manifests = self.manifests();
        let people = self.roll.iter().map(|(place, _)| place.group);
        self.groups().into_keys().chain(people).chain(manifests.into_keys()).collect()
    }

    /// The topics that the office hears.
    pub fn filters(&self) -> Vec<String> {
        let mut filters: Vec<String> = [
            "join/+",
            "revoked",
            "policy",
            "lease",
            "keys/+",
            "admitted/+",
            "manifest/+",
            "have/+",
            "listing/+/+",
            "models",
            "models/+",
        ]
        .map(str::to_owned)
        .to_vec();
        let tags = self.tags();
        let mut room = MOST_FILTERS.saturating_sub(filters.len() + tags.len());
        for group in tags {
            let parts = Part::all().map(|part| self.roll.part(group, part).count());
            let divide = parts.sum::<usize>() > MOST_AT_ONCE && room >= usize::from(crate::PARTS);
            if divide {
                room -= usize::from(crate::PARTS);
                filters.extend(Part::all().map(|part| Topic::people(group, part)));
            } else {
                filters.push(format!("people/{group}/+/+"));
            }
        }
        filters
    }
}
