//! What is in the records, and its limits. Bytes come from others: they are decoded with
//! limits, and whatever is out of range refuses the whole record.

use crate::effect::Refusal;
use crate::names::{GroupTag, KeyId, Part, PersonId};
use facelatch_crypto::{MailboxAddress, PublicKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Most people of a site.
pub const MOST_PEOPLE: usize = 10_000;
/// Most doors of a site.
pub const MOST_DOORS: usize = 1_000;
/// Most groups of a site, and of a door.
pub const MOST_GROUPS: usize = 32;
/// Most templates of a person.
pub const MOST_TEMPLATES: usize = 64;
/// Most numbers of a template.
pub const MOST_NUMBERS: usize = 1_024;
/// Longest name of a person, a group or a door, characters.
pub const LONGEST_NAME: usize = 100;
/// Longest text of a policy, bytes.
pub const LONGEST_POLICY: usize = 64 << 10;
/// Most people in the list of those locked out. Older ones are removed as well; the list
/// only brings the news faster.
pub const MOST_REVOKED_PEOPLE: usize = 2_000;
/// Most epochs whose keys a door gets.
pub const MOST_EPOCHS: usize = 16;
/// Shortest and longest lease, seconds.
pub const LEASE_S: std::ops::RangeInclusive<u32> = 60..=90 * 86_400;
/// Largest part of a set of models, bytes.
pub const LARGEST_MODEL_PART: usize = 100 << 10;

/// Content whose ranges are checked after decoding.
pub(crate) trait Content: Serialize + DeserializeOwned {
    /// Whether all is in range.
    fn sound(&self) -> bool;

    fn to_bytes(&self) -> Vec<u8> {
        // Cannot fail: all lengths are known.
        postcard::to_stdvec(self).unwrap_or_default()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Refusal> {
        match postcard::take_from_bytes::<Self>(bytes) {
            Ok((content, [])) if content.sound() => Ok(content),
            _ => Err(Refusal::Content),
        }
    }
}

/// Whether a text may be a name. The door's own rules for names are stricter.
pub(crate) fn is_name(text: &str) -> bool {
    !text.trim().is_empty()
        && text.len() <= 4 * LONGEST_NAME
        && text.chars().count() <= LONGEST_NAME
        && !text.chars().any(char::is_control)
}

/// What the office lets a door do. Its envelope carries the signature of the site's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The door: the name of its key.
    pub door: KeyId,
    /// Name of the door.
    pub name: String,
    /// The door's key, with which it signs.
    pub key: [u8; 32],
    /// What is sealed for the door is sealed to this address.
    pub mailbox: [u8; 32],
    /// Groups whose people the door knows.
    pub groups: Vec<String>,
    /// Whether the door may add, change and remove people of its groups.
    pub writes: bool,
    /// When it was admitted, milliseconds since 1970.
    pub since_ms: u64,
    /// When the admission ends, milliseconds since 1970; `None` if it does not.
    pub until_ms: Option<u64>,
}

impl Content for Certificate {
    fn sound(&self) -> bool {
        is_name(&self.name)
            && self.groups.len() <= MOST_GROUPS
            && self.groups.iter().all(|group| is_name(group))
            && self.public().is_some_and(|key| KeyId::of(&key) == self.door)
    }
}

impl Certificate {
    /// The door's key. `None` if it is none.
    pub fn public(&self) -> Option<PublicKey> {
        PublicKey::from_bytes(&self.key)
    }

    /// Where content is sealed to.
    pub fn address(&self) -> MailboxAddress {
        MailboxAddress::from_bytes(self.mailbox)
    }

    /// Whether the door knows the people of a group.
    pub fn serves(&self, site: KeyId, group: GroupTag) -> bool {
        self.groups.iter().any(|name| GroupTag::of(site, name) == group)
    }
}

/// A data key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(crate) struct EpochKey {
    #[zeroize(skip)]
    pub epoch: u32,
    pub key: [u8; 32],
}

/// What a door gets, sealed for it alone.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Keys {
    pub certificate: Certificate,
    /// The newest last.
    pub epochs: Vec<EpochKey>,
}

impl Content for Keys {
    fn sound(&self) -> bool {
        self.certificate.sound()
            && (1..=MOST_EPOCHS).contains(&self.epochs.len())
            && self.epochs.iter().all(|key| key.epoch > 0)
            && self.epochs.is_sorted_by(|a, b| a.epoch < b.epoch)
    }
}

/// Who is locked out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// Doors, sorted.
    pub doors: Vec<KeyId>,
    /// People who were removed lately, the newest last.
    pub people: Vec<PersonId>,
}

impl Content for Revoked {
    fn sound(&self) -> bool {
        self.doors.len() <= MOST_DOORS
            && self.doors.is_sorted_by(|a, b| a < b)
            && self.people.len() <= MOST_REVOKED_PEOPLE
    }
}

/// Rules of the site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Groups, hours and holidays, as in the door's configuration.
    pub text: String,
    /// Whether people whom a door made administrators are so at all doors.
    pub administrators_from_doors: bool,
    /// How long doors may go without hearing from the office, seconds.
    pub lease_s: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { text: String::new(), administrators_from_doors: false, lease_s: 7 * 86_400 }
    }
}

impl Content for Policy {
    fn sound(&self) -> bool {
        self.text.len() <= LONGEST_POLICY && LEASE_S.contains(&self.lease_s)
    }
}

/// Until when the policy holds for a door that has all of this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    /// The office's time, milliseconds since 1970.
    pub at_ms: u64,
    pub until_ms: u64,
    /// Revisions; 0 if there is none yet.
    pub revoked: u64,
    pub policy: u64,
    /// Newest manifest of each group, sorted by group.
    pub manifests: Vec<(GroupTag, u64)>,
}

impl Content for Lease {
    fn sound(&self) -> bool {
        self.manifests.len() <= MOST_GROUPS && self.manifests.is_sorted_by(|a, b| a.0 < b.0)
    }
}

/// Digest of a part: of the versions of its people, in the order of their ids.
pub(crate) type PartDigest = [u8; 12];

/// Which people of a group there should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// The office's time, milliseconds since 1970.
    pub at_ms: u64,
    /// Parts that are not empty, sorted: people, removed ones too, and digest.
    pub parts: Vec<(Part, u16, PartDigest)>,
}

impl Content for Manifest {
    fn sound(&self) -> bool {
        self.parts.is_sorted_by(|a, b| a.0 < b.0)
            && self.parts.iter().all(|part| part.0.number() < crate::PARTS)
    }
}

/// Version of a person's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Version {
    /// Removed for ever: wins whatever its time, so the fields' order is the rank.
    pub gone: bool,
    pub order: u64,
    pub author: KeyId,
    /// Of the content, to settle two contents of one author and order.
    pub hash: [u8; 8],
}

/// The people in a part of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listing {
    /// The office's time, milliseconds since 1970.
    pub at_ms: u64,
    /// Sorted by id.
    pub people: Vec<(PersonId, Version)>,
}

/// Most people in a listing, so that it fits a record.
pub(crate) const MOST_LISTED: usize = 2_500;

impl Content for Listing {
    fn sound(&self) -> bool {
        self.people.len() <= MOST_LISTED && self.people.is_sorted_by(|a, b| a.0 < b.0)
    }
}

/// A template: the direction of an embedding in 8 bits a number. The length does not count;
/// scale it to one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteTemplate {
    /// Identity of the model that made it.
    pub model: String,
    /// The numbers, largest magnitude 127.
    pub numbers: Vec<i8>,
}

impl SiteTemplate {
    /// Rounds an embedding to 8 bits. `None` if it has no direction or too many numbers.
    pub fn new(model: &str, embedding: &[f32]) -> Option<Self> {
        let largest = embedding.iter().fold(0.0f32, |largest, number| largest.max(number.abs()));
        let finite = embedding.iter().all(|number| number.is_finite());
        if !finite || largest <= 0.0 || embedding.len() > MOST_NUMBERS || !is_name(model) {
            return None;
        }
        let scale = 127.0 / f64::from(largest);
        let round = |number: &f32| (f64::from(*number) * scale).round() as i8;
        let numbers = embedding.iter().map(round).collect();
        Some(Self { model: model.to_owned(), numbers })
    }

    /// The embedding with length one.
    pub fn embedding(&self) -> Vec<f32> {
        let length = self.numbers.iter().map(|n| f64::from(*n).powi(2)).sum::<f64>().sqrt();
        let scaled = |n: &i8| if length > 0.0 { (f64::from(*n) / length) as f32 } else { 0.0 };
        self.numbers.iter().map(scaled).collect()
    }
}

/// A person as all doors of the group know them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Person {
    /// Who it is, at all doors.
    pub id: PersonId,
    /// Name.
    pub name: String,
    /// Group.
    pub group: String,
    /// Whether the person is an administrator. What is put into the gallery says what holds
    /// there.
    pub administrator: bool,
    /// Whether the person is refused until they get a name.
    pub probation: bool,
    /// Similarity added to the threshold, from 0 up.
    pub stricter: f32,
    /// Time of enrolment, seconds since 1970.
    pub enrolled_at: u64,
    /// First moment at which the person may come in, seconds since 1970.
    pub valid_from: Option<i64>,
    /// First moment at which the person may not come in any more, seconds since 1970.
    pub valid_until: Option<i64>,
    /// Templates.
    pub templates: Vec<SiteTemplate>,
}

impl Person {
    fn sound(&self) -> bool {
        is_name(&self.name)
            && is_name(&self.group)
            && (0.0..=2.0).contains(&self.stricter)
            && self.templates.len() <= MOST_TEMPLATES
            && self.templates.iter().all(|template| {
                (1..=MOST_NUMBERS).contains(&template.numbers.len()) && is_name(&template.model)
            })
    }

    /// What is wrong with it. `None` if nothing is.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        (!self.sound()).then_some(
            "a name, a group or a template of the person is out of range: names have 1 to 100 \
             characters, people at most 64 templates of 1 to 1024 numbers",
        )
    }
}

/// The content of a person's record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum PersonContent {
    /// In the group.
    Here(Box<Person>),
    /// Now in another group.
    Moved,
    /// Removed for ever.
    Gone,
}

impl Content for PersonContent {
    fn sound(&self) -> bool {
        match self {
            Self::Here(person) => person.sound(),
            Self::Moved | Self::Gone => true,
        }
    }
}

/// What a door has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Have {
    /// The door's time, milliseconds since 1970.
    pub at_ms: u64,
    /// Revision of the list of those locked out.
    pub revoked: u64,
    /// Revision of the policy.
    pub policy: u64,
    /// Newest manifest of each group.
    pub manifests: Vec<(GroupTag, u64)>,
    /// Number of the newest data key.
    pub epoch: u32,
    /// People who are in the door's groups.
    pub people: u32,
    /// People that the manifests have and the door lacks, as far as it knows.
    pub missing: u32,
    /// End of the lease, milliseconds since 1970; 0 without one.
    pub lease_until_ms: u64,
    /// Records refused since the door's program started.
    pub refused: u64,
    /// Version of the set of models in use.
    pub models: String,
}

impl Content for Have {
    fn sound(&self) -> bool {
        self.manifests.len() <= MOST_GROUPS && self.models.len() <= LONGEST_NAME
    }
}

/// Most passages that a door repeats.
pub(crate) const MOST_PASSAGES: usize = 32;

/// Somebody went through a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// Who.
    pub person: PersonId,
    /// Through which door. What the door itself wrote, whatever stands in the content.
    pub door: KeyId,
    /// Whether in; out otherwise.
    pub inwards: bool,
    /// When, by the clock of that door, milliseconds since 1970.
    pub at_ms: u64,
}

/// The last passages of a door, the newest last: a door that was away for a moment hears
/// those that it missed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Passages {
    pub list: Vec<Passage>,
}

impl Content for Passages {
    fn sound(&self) -> bool {
        self.list.len() <= MOST_PASSAGES
    }
}

/// A door wants to be admitted. Sealed with the code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Join {
    pub name: String,
    pub key: [u8; 32],
    pub mailbox: [u8; 32],
}

impl Content for Join {
    fn sound(&self) -> bool {
        is_name(&self.name)
    }
}

/// The set of models that doors should use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Models {
    /// Version of the set.
    pub version: String,
    /// SHA-256 digest of the file.
    pub digest: [u8; 32],
    /// Bytes of the file.
    pub bytes: u64,
    /// Number of its parts.
    pub parts: u16,
}

impl Content for Models {
    fn sound(&self) -> bool {
        is_name(&self.version)
            && self.parts <= crate::topic::MOST_MODEL_PARTS
            && self.bytes.div_ceil(LARGEST_MODEL_PART as u64) == u64::from(self.parts)
    }
}

/// A part of a set's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ModelPart {
    pub digest: [u8; 32],
    pub bytes: Vec<u8>,
}

impl Content for ModelPart {
    fn sound(&self) -> bool {
        self.bytes.len() <= LARGEST_MODEL_PART
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cosine(a: &[f32], b: &[f32]) -> f64 {
        let dot = |a: &[f32], b: &[f32]| {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
        };
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    }

    proptest! {
        #[test]
        fn eight_bits_keep_the_direction(
            numbers in prop::collection::vec(-1f32..1.0, 128..513),
            others in prop::collection::vec(-1f32..1.0, 513),
        ) {
            prop_assume!(numbers.iter().any(|number| number.abs() > 1e-3));
            let template = SiteTemplate::new("m", &numbers).expect("a template");
            let rounded = template.embedding();
            // Of n numbers below 1 each is moved by at most 1/254.
            prop_assert!(cosine(&numbers, &rounded) > 0.999);
            let others = &others[..numbers.len()];
            if others.iter().any(|number| number.abs() > 1e-3) {
                let moved = cosine(&numbers, others) - cosine(&rounded, others);
                prop_assert!(moved.abs() < 0.05, "{moved}");
            }
        }

        #[test]
        fn any_bytes_are_content_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Keys::from_bytes(&bytes);
            let _ = Revoked::from_bytes(&bytes);
            let _ = Policy::from_bytes(&bytes);
            let _ = Lease::from_bytes(&bytes);
            let _ = Manifest::from_bytes(&bytes);
            let _ = Listing::from_bytes(&bytes);
            let _ = PersonContent::from_bytes(&bytes);
            let _ = Have::from_bytes(&bytes);
            let _ = Passages::from_bytes(&bytes);
            let _ = Join::from_bytes(&bytes);
            let _ = Models::from_bytes(&bytes);
            let _ = ModelPart::from_bytes(&bytes);
        }
    }

    #[test]
    fn what_has_no_direction_is_no_template() {
        assert_eq!(SiteTemplate::new("m", &[0.0; 8]), None);
        assert_eq!(SiteTemplate::new("m", &[]), None);
        assert_eq!(SiteTemplate::new("m", &[f32::NAN, 1.0]), None);
        assert_eq!(SiteTemplate::new("", &[1.0]), None);
    }

    #[test]
    fn names_have_limits() {
        assert!(is_name("Ada Lovelace"));
        assert!(!is_name(" "));
        assert!(!is_name("Ada\nLovelace"));
        assert!(is_name(&"ü".repeat(100)));
        assert!(!is_name(&"ü".repeat(101)));
    }
}
