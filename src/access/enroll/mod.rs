//! Enrolling: [`Enrolment`] takes several good, different views of one person,
//! [`at_door`] has an administrator begin it at the door.

pub mod at_door;
mod views;

pub use views::{EnrollSettings, Enrolment, Hindrance, MAX_VIEWS, Poses, Shot, Step};

/// False accept rate a pair at which two views count as one person's. Looser than a door:
/// here it is about mistakes, not about attacks.
pub const SAME_PERSON_RATE: f64 = 1e-4;
