//! A door's view of its site.

mod change;
mod compare;
mod hear;
mod people;
mod start;

pub(crate) use compare::REMOVALS_MS;
pub(crate) use people::check;

use crate::MOST_GROUPS;
use crate::book::Book;
use crate::code::Code;
use crate::content::{
    Certificate, Content, Have, Join, Lease, Manifest, Models, PartDigest, Passage, Policy,
};
use crate::effect::{ChangeError, Effect, Refusal};
use crate::envelope::{Header, write};
use crate::names::{GroupTag, KeyId, Part, PersonId, Place};
use crate::rate::Rates;
use crate::roll::{Presence, Roll};
use crate::topic::Topic;
use facelatch_crypto::{Mailbox, PublicKey, Secret, Signer};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

/// Passages of one door at once, and time for one more, milliseconds.
const PASSAGES: (u64, u64) = (60, 500);
/// New records of people of one writer at once: all of a site; and time for one more.
const RECORDS: (u64, u64) = (crate::MOST_PEOPLE as u64, 100);

/// Most filters of a door.
pub(crate) const MOST_FILTERS: usize = 60;
/// Records of a group that are fetched at once: brokers drop without a word what exceeds
/// their queue, of 1,000 messages by default.
pub(crate) const MOST_AT_ONCE: usize = 800;

/// A record of the office with its revision.
#[derive(Clone, Debug)]
struct Revised<T> {
    revision: u64,
    content: T,
}

/// What a door knows about a part of a group.
#[derive(Clone, Debug)]
struct PartState {
    /// Number of records and digest by the manifest.
    expected: (usize, PartDigest),
    /// Whether the door has just these.
    agrees: bool,
    /// When to fetch what is missing, milliseconds since 1970.
    due_ms: u64,
    /// Fetches in vain so far.
    tries: u32,
    /// Records that the door lacks, as far as it knows.
    missing: u32,
}

/// How a door stands with its site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether the site admitted the door.
    pub admitted: bool,
    /// End of the lease, milliseconds since 1970. `None` if there was none yet. Afterwards
    /// the door may have missed that somebody was removed.
    pub lease_until_ms: Option<u64>,
    /// Number of the newest manifest.
    pub manifest: u64,
    /// People in the groups of the door.
    pub people: u32,
    /// Records that the door lacks, as far as it knows.
    pub missing: u32,
    /// What is wrong, and the cure; `None` if nothing is.
    pub fault: Option<String>,
}

/// A door's view of its site. Times are milliseconds since 1970 by the door's clock.
pub struct Member {
    signer: Signer,
    id: KeyId,
    mailbox: Mailbox,
    book: Book,
    /// Order of the newest keys; older ones are never taken again.
    keys_revision: u64,
    certificate: Option<Certificate>,
    /// Revisions of the certificates of all doors.
    admitted: BTreeMap<KeyId, u64>,
    revoked_revision: u64,
    revoked_people: BTreeSet<PersonId>,
    policy: Revised<Policy>,
    lease: Option<Revised<Lease>>,
    /// A newer lease, for which something is still missing.
    next_lease: Option<Revised<Lease>>,
    next_lease_bytes: Vec<u8>,
    manifests: BTreeMap<GroupTag, Revised<Manifest>>,
    /// Groups that are fetched in parts.
    large: BTreeSet<GroupTag>,
    parts: BTreeMap<(GroupTag, Part), PartState>,
    roll: Roll,
    models: Option<Revised<Models>>,
    /// The set of models whose parts are wanted.
    wanted_models: Option<[u8; 32]>,
    /// Records that this door wrote and the broker has, since the connection began.
    seen: BTreeSet<Place>,
    connected: bool,
    fetched: bool,
    have: Option<(u64, Have)>,
    have_order: u64,
    /// When the door looks at the office's records again.
    look_ms: u64,
    /// Order of the last record of each door, and time of its newest passage.
    passages: BTreeMap<KeyId, (u64, u64)>,
    /// The last passages at this door.
    lately: VecDeque<Passage>,
    passage_rates: Rates,
    record_rates: Rates,
    refused: BTreeMap<Refusal, u64>,
    models_in_use: String,
    /// Whether records of the office seem to be missing, when to fetch them, and how often
    /// that was done in vain.
    lacking: (bool, u64, u32),
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("id", &self.id).field("site", &self.book.site).finish()
    }
}

impl Member {
    /// A door of the site with this key. The door's own keys follow from its secret. `kept`
    /// is what [`Effect::Keep`] said, in any order; what is damaged there is fetched again.
    pub fn new(
        secret: &Secret,
        site_key: PublicKey,
        kept: impl IntoIterator<Item = (String, Vec<u8>)>,
    ) -> Self {
        let signer = Signer::new(&secret.derive("facelatch site signer"));
        let id = KeyId::of(&signer.public());
        let mut member = Self {
            mailbox: Mailbox::new(&secret.derive("facelatch site mailbox")),
            id,
            signer,
            book: Book::new(site_key),
            keys_revision: 0,
            certificate: None,
            admitted: BTreeMap::new(),
            revoked_revision: 0,
            revoked_people: BTreeSet::new(),
            policy: Revised { revision: 0, content: Policy::default() },
            lease: None,
            next_lease: None,
            next_lease_bytes: Vec::new(),
            manifests: BTreeMap::new(),
            large: BTreeSet::new(),
            parts: BTreeMap::new(),
            roll: Roll::default(),
            models: None,
            wanted_models: None,
            seen: BTreeSet::new(),
            connected: false,
            fetched: false,
            have: None,
            have_order: 0,
            look_ms: 0,
            passages: BTreeMap::new(),
            lately: VecDeque::new(),
            passage_rates: Rates::new(PASSAGES.0, PASSAGES.1),
            record_rates: Rates::new(RECORDS.0, RECORDS.1),
            refused: BTreeMap::new(),
            models_in_use: String::new(),
            lacking: (false, 0, 0),
        };
        member.start(kept);
        member
    }

    /// The name of the door's key.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The door's key, whose fingerprint the office shows when the door joins.
    pub fn public(&self) -> PublicKey {
        self.signer.public()
    }

    /// The site, as in topics.
    pub fn site(&self) -> KeyId {
        self.book.site
    }

    /// What the site lets this door do. `None` if it is not admitted.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_ref()
    }

    /// The rules of the site. The default without any.
    pub fn policy(&self) -> &Policy {
        &self.policy.content
    }

    /// The set of models that the site offers.
    pub fn models(&self) -> Option<&Models> {
        self.models.as_ref().map(|models| &models.content)
    }

    /// Name of a door of the site.
    pub fn door(&self, door: KeyId) -> Option<&str> {
        self.book.doors.get(&door).map(|door| door.name.as_str())
    }

    /// Everybody in the groups of the door, for comparison with its gallery.
    pub fn people(&self) -> impl Iterator<Item = PersonId> {
        self.roll
            .iter()
            .filter(|(place, entry)| {
                entry.presence == Presence::Here && self.group_of(place.person) == Some(place.group)
            })
            .map(|(place, _)| place.person)
    }

    /// How many records were refused since the start, and why.
    pub fn refused(&self) -> &BTreeMap<Refusal, u64> {
        &self.refused
    }

    /// How the door stands with its site.
    pub fn standing(&self, now_ms: u64) -> Standing {
        let lease_until_ms = self.lease.as_ref().map(|lease| lease.content.until_ms);
        let missing = self.parts.values().map(|part| part.missing).sum();
        let admitted = self.certificate.is_some();
        let fault = if !admitted {
            Some("the door is in no site; join one with facelatch site join".to_owned())
        } else if lease_until_ms.is_none() {
            Some(
                "the door has no lease of the site yet; it comes once the door has heard \
                 everything from an office that runs"
                    .to_owned(),
            )
        } else if lease_until_ms.is_some_and(|until| until <= now_ms) {
            Some(
                "the lease of the site's rules is over: the door has not heard everything from \
                 the office; check the broker, the link and the office"
                    .to_owned(),
            )
        } else if missing > 0 && self.parts.values().any(|part| part.tries > 3) {
            Some(format!(
                "{missing} records that the site should have do not arrive; check the office and \
                 the broker"
            ))
        } else {
            None
        };
        let manifest = self.manifests.values().map(|manifest| manifest.revision).max();
        Standing {
            admitted,
            lease_until_ms,
            manifest: manifest.unwrap_or(0),
            people: self.roll.here() as u32,
            missing,
            fault,
        }
    }

    /// Says which set of models the door uses, for the office.
    pub fn set_models(&mut self, version: &str) {
        self.models_in_use = version.chars().take(crate::LONGEST_NAME / 4).collect();
    }

    /// Asks for parts of the file of the set that the site offers; nothing if it offers none.
    /// Parts of other sets are refused from now on.
    pub fn fetch_models(&mut self, parts: &[u16]) -> Vec<Effect> {
        let Some(models) = &self.models else { return Vec::new() };
        self.wanted_models = Some(models.content.digest);
        let parts = parts.iter().filter(|part| **part < models.content.parts);
        let filters = parts.map(|part| Topic::ModelPart(*part).to_string()).collect();
        vec![Effect::Fetch { filters }]
    }

    /// Asks the site to admit this door. Repeat it until [`Effect::Admitted`] comes or the
    /// code is no longer good.
    ///
    /// # Errors
    /// If the name cannot be one, or there are no random numbers.
    pub fn join(&self, code: &Code, name: &str) -> Result<Vec<Effect>, ChangeError> {
        let content = Join {
            name: name.to_owned(),
            key: *self.signer.public().bytes(),
            mailbox: *self.mailbox.address().bytes(),
        };
        if !content.sound() {
            return Err(ChangeError::Content("a door's name has 1 to 100 characters"));
        }
        let header =
            Header { site: self.book.site, author: self.id, signer: self.id, order: 0, epoch: 0 };
        let topic = Topic::Join(self.id);
        let sealer = code.sealer();
        let bytes =
            write(topic, &header, &self.signer, |place| sealer.seal(place, &content.to_bytes()))?;
        Ok(vec![publish(topic, bytes)])
    }

    /// The connection to the broker begins.
    pub fn connected(&mut self) -> Vec<Effect> {
        self.connected = true;
        self.fetched = false;
        self.have = None;
        self.seen.clear();
        for part in self.parts.values_mut() {
            (part.due_ms, part.tries) = (0, 0);
        }
        self.lacking = (false, 0, 0);
        vec![Effect::Subscribe { filters: self.filters() }]
    }

    /// The connection to the broker ended.
    pub fn disconnected(&mut self) {
        self.connected = false;
        self.fetched = false;
    }

    /// The topics that the door hears, the most important first.
    pub fn filters(&self) -> Vec<String> {
        let mut filters = self.office_filters();
        if self.certificate.is_none() {
            return filters;
        }
        // Of groups whose manifest is not known yet nothing can be believed for long.
        let groups = self.groups().into_iter().filter(|group| self.manifests.contains_key(group));
        let mut whole: Vec<GroupTag> = groups.collect();
        let mut room = MOST_FILTERS.saturating_sub(filters.len() + whole.len());
        let mut divided = Vec::new();
        whole.retain(|group| {
            let parts = usize::from(crate::PARTS);
            let divide = self.large.contains(group) && room >= parts;
            if divide {
                room -= parts;
                divided.push(*group);
            }
            !divide
        });
        filters.extend(whole.iter().map(|group| format!("people/{group}/+/+")));
        for group in divided {
            filters.extend(Part::all().map(|part| Topic::people(group, part)));
        }
        filters.push("passage/+".to_owned());
        filters
    }

    /// Those of them where the office's records are.
    fn office_filters(&self) -> Vec<String> {
        let mut filters = vec![Topic::Keys(self.id).to_string()];
        if self.certificate.is_none() {
            return filters;
        }
        // The first stands for those locked out, policy, lease and models: a filter costs time.
        filters.extend(["+", "admitted/+"].map(str::to_owned));
        let groups = self.groups();
        if groups.len() > MOST_GROUPS / 4 {
            filters.push("manifest/+".to_owned());
        } else {
            filters.extend(groups.iter().map(|group| Topic::Manifest(*group).to_string()));
        }
        filters
    }

    fn groups(&self) -> Vec<GroupTag> {
        let groups = self.certificate.iter().flat_map(|certificate| &certificate.groups);
        groups.map(|group| GroupTag::of(self.book.site, group)).collect()
    }

    /// The group that a person is in, for this door.
    fn group_of(&self, person: PersonId) -> Option<GroupTag> {
        if self.revoked_people.contains(&person) {
            return None;
        }
        self.roll.group_of(person, self.groups())
    }

    /// Whether a person whom somebody made an administrator is one here.
    fn is_administrator(&self, says: bool, author: KeyId) -> bool {
        let policy = self.policy.content.administrators_from_doors;
        says && (policy || author == self.book.site || author == self.id)
    }
}

/// Publishes a record as its topic wants it.
pub(crate) fn publish(topic: Topic, bytes: Vec<u8>) -> Effect {
    let (retain, expires_s) = topic.keeping();
    Effect::Publish { topic: topic.to_string(), bytes, retain, expires_s }
}

#[cfg(test)]
mod rights_tests;
