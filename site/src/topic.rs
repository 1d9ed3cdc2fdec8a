//! Topics below the site's own part, `facelatch/SITE/fleet/`.

use crate::envelope::Kind;
use crate::names::{GroupTag, KeyId, Part, PersonId, Place};
use std::fmt;

/// Longest topic, bytes.
pub const LONGEST_TOPIC: usize = 100;

/// Most parts of a set of models.
pub const MOST_MODEL_PARTS: u16 = 512;

/// The place of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// `revoked`: doors and people that are locked out.
    Revoked,
    /// `policy`: groups, hours and holidays.
    Policy,
    /// `lease`: until when the policy holds, and what must be there.
    Lease,
    /// `keys/DOOR`: the data keys, sealed for one door.
    Keys(KeyId),
    /// `admitted/DOOR`: the certificate of a door.
    Admitted(KeyId),
    /// `manifest/GROUP`: digests of the group's parts.
    Manifest(GroupTag),
    /// `listing/GROUP/PART`: the versions of the people in a part.
    Listing(GroupTag, Part),
    /// `people/GROUP/PART/PERSON`.
    Person(Place),
    /// `have/DOOR`: what a door has.
    Have(KeyId),
    /// `passage/DOOR`: who went through a door lately.
    Passage(KeyId),
    /// `join/DOOR`: a door wants to be admitted.
    Join(KeyId),
    /// `models`: the set of models that doors should use.
    Models,
    /// `models/PART`: a part of its file.
    ModelPart(u16),
}

impl Topic {
    /// The topic that a text names. `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > LONGEST_TOPIC {
            return None;
        }
        let mut words = text.split('/');
        let first = words.next()?;
        let mut word = || words.next();
        let topic = match first {
            "revoked" => Self::Revoked,
            "policy" => Self::Policy,
            "lease" => Self::Lease,
            "keys" => Self::Keys(word()?.parse().ok()?),
            "admitted" => Self::Admitted(word()?.parse().ok()?),
            "manifest" => Self::Manifest(word()?.parse().ok()?),
            "listing" => Self::Listing(word()?.parse().ok()?, part(word()?)?),
            "people" => {
                let group = word()?.parse().ok()?;
                let part = part(word()?)?;
                let person: PersonId = word()?.parse().ok()?;
                if person.part() != part {
                    return None;
                }
                Self::Person(Place { group, person })
            }
            "have" => Self::Have(word()?.parse().ok()?),
            "passage" => Self::Passage(word()?.parse().ok()?),
            "join" => Self::Join(word()?.parse().ok()?),
            "models" => match word() {
                None => Self::Models,
                Some(number) => Self::ModelPart(model_part(number)?),
            },
            _ => return None,
        };
        words.next().is_none().then_some(topic)
    }

    /// The kind of the records there.
    pub fn kind(self) -> Kind {
        match self {
            Self::Revoked => Kind::Revoked,
            Self::Policy => Kind::Policy,
            Self::Lease => Kind::Lease,
            Self::Keys(_) => Kind::Keys,
            Self::Admitted(_) => Kind::Admitted,
            Self::Manifest(_) => Kind::Manifest,
            Self::Listing(..) => Kind::Listing,
            Self::Person(_) => Kind::Person,
            Self::Have(_) => Kind::Have,
            Self::Passage(_) => Kind::Passage,
            Self::Join(_) => Kind::Join,
            Self::Models => Kind::Models,
            Self::ModelPart(_) => Kind::ModelPart,
        }
    }

    /// Seconds after which the broker drops a record, if it does; and whether it keeps it
    /// for those who come later.
    pub fn keeping(self) -> (bool, Option<u32>) {
        match self {
            Self::Passage(_) => (true, Some(300)),
            Self::Join(_) => (true, Some(600)),
            _ => (true, None),
        }
    }

    /// The filter for all people in a part of a group.
    pub fn people(group: GroupTag, part: Part) -> String {
        format!("people/{group}/{part}/+")
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revoked => f.write_str("revoked"),
            Self::Policy => f.write_str("policy"),
            Self::Lease => f.write_str("lease"),
            Self::Keys(door) => write!(f, "keys/{door}"),
            Self::Admitted(door) => write!(f, "admitted/{door}"),
            Self::Manifest(group) => write!(f, "manifest/{group}"),
            Self::Listing(group, part) => write!(f, "listing/{group}/{part}"),
            Self::Person(Place { group, person }) => {
                write!(f, "people/{group}/{}/{person}", person.part())
            }
            Self::Have(door) => write!(f, "have/{door}"),
            Self::Passage(door) => write!(f, "passage/{door}"),
            Self::Join(door) => write!(f, "join/{door}"),
            Self::Models => f.write_str("models"),
            Self::ModelPart(part) => write!(f, "models/{part}"),
        }
    }
}

fn part(text: &str) -> Option<Part> {
    match text.as_bytes() {
        [digit @ b'0'..=b'9'] => Part::new(digit - b'0'),
        [digit @ b'a'..=b'f'] => Part::new(digit - b'a' + 10),
        _ => None,
    }
}

/// A decimal number without leading zeros, so that a part has one topic only.
fn model_part(text: &str) -> Option<u16> {
    let number: u16 = text.parse().ok().filter(|number| *number < MOST_MODEL_PARTS)?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn topics() -> impl Strategy<Value = Topic> {
        let key = || any::<[u8; 8]>().prop_map(KeyId);
        let group = || any::<[u8; 4]>().prop_map(GroupTag);
        let part = (0..crate::PARTS).prop_filter_map("a part", Part::new);
        let person = any::<[u8; 16]>().prop_map(PersonId);
        prop_oneof![
            Just(Topic::Revoked),
            Just(Topic::Policy),
            Just(Topic::Lease),
            Just(Topic::Models),
            key().prop_map(Topic::Keys),
            key().prop_map(Topic::Admitted),
            key().prop_map(Topic::Have),
            key().prop_map(Topic::Passage),
            key().prop_map(Topic::Join),
            group().prop_map(Topic::Manifest),
            (group(), part).prop_map(|(group, part)| Topic::Listing(group, part)),
            (group(), person).prop_map(|(group, person)| Topic::Person(Place { group, person })),
            (0..MOST_MODEL_PARTS).prop_map(Topic::ModelPart),
        ]
    }

    proptest! {
        #[test]
        fn a_topic_is_read_as_it_is_written(topic in topics()) {
            let text = topic.to_string();
            prop_assert!(text.len() <= LONGEST_TOPIC);
            prop_assert_eq!(Topic::parse(&text), Some(topic));
            prop_assert_eq!(Topic::parse(&format!("{text}/")), None);
            prop_assert_eq!(Topic::parse(&text.to_uppercase()).is_none(), text != text.to_uppercase());
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,120}") {
            let _ = Topic::parse(&text);
        }

        #[test]
        fn every_topic_has_one_text(text in "(models|listing|people|keys)/[0-9a-f/+]{0,50}") {
            if let Some(topic) = Topic::parse(&text) {
                prop_assert_eq!(topic.to_string(), text);
            }
        }
    }
}
