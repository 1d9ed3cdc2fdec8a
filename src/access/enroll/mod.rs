//! Enrolment: [`Enrolment`] collects several good, different views of one person;
//! [`at_door`] lets an administrator start it with the button.

pub mod at_door;
mod views;

pub use views::{EnrollSettings, Enrolment, Hindrance, MAX_VIEWS, Poses, Shot, Step};

/// False accept rate per pair at which two views count as views of one person. It is looser
/// than a door's, because it guards against mistakes, not against attacks.
pub const SAME_PERSON_RATE: f64 = 1e-4;
