//! Records that the doors of one site share: who signs, seals and believes what. Pure: no
//! files, no network, no clock.
//!
//! A [`Member`] is a door's view of its site, an [`Office`] holds the site's key. Both are
//! state machines: they get what was heard, and the time, and return [`Effect`]s to carry
//! out. What must survive a restart is among the effects, as pairs for a small key-value
//! store, which they get back when they start.
//!
//! What others send is hostile until checked. The broker is trusted with nothing: it sees
//! neither names nor templates, cannot change or make up a record, and cannot bring an old
//! one back. It can withhold records; then the lease ends, and the door's configuration says
//! what holds.
//!
//! Records of people are merged so that all who know the same records agree, in whatever
//! order these came: of two records of a person the newer wins, by hybrid logical clock and
//! then by author, but a removal wins whatever its time. An id that was removed never comes
//! back; a person who is enrolled again gets a new one.
//!
//! The office makes a manifest of each group: how many records there should be, and their
//! digest. A door whose digest differs fetches the listing of that part, signed by the
//! office as well, and then what it lacks. So the retained records are a cache: what the
//! broker loses, writers and office publish again.

mod book;
mod code;
mod content;
pub mod dates;
mod effect;
mod envelope;
mod member;
mod names;
mod office;
mod rate;
mod roll;
mod topic;

pub use code::{CODE_MS, Code, CodeError};
pub use content::{
    Certificate, Have, LARGEST_MODEL_PART, LEASE_S, LONGEST_NAME, LONGEST_POLICY, MOST_DOORS,
    MOST_GROUPS, MOST_NUMBERS, MOST_PEOPLE, MOST_TEMPLATES, Models, Passage, Person, Policy,
    Revoked, SiteTemplate,
};
pub use effect::{ChangeError, Effect, Refusal};
pub use envelope::{Kind, LARGEST};
pub use member::{Member, Standing};
pub use names::{GroupTag, KeyId, NameError, PARTS, Part, PersonId, Place};
pub use office::{DoorView, Office, OfficeError, SitePerson};
pub use topic::{LONGEST_TOPIC, MOST_MODEL_PARTS, Topic};
