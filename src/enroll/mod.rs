//! Enrolling: [`Enrolment`] takes several good, different views of one person,
//! [`button`] has an administrator begin it at the door.

pub mod button;
mod views;

pub use views::{EnrollSettings, Enrolment, Hindrance, MAX_VIEWS, Poses, Shot, Step};
