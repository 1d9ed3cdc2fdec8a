//! From templates to the door: state machines without clock, devices or files. Each step
//! takes the time and an input and returns events, signals and orders.
//!
//! [`controller::Controller`] combines them; most programs need only it,
//! [`gallery::Gallery`] and [`Settings`].

pub mod attempt;
pub mod controller;
pub mod decide;
pub mod door;
pub mod enroll;
pub mod event;
pub mod false_entries;
pub mod gallery;
pub mod gesture;
pub mod liveness;
pub mod lockout;
pub mod names;
pub mod schedule;
mod search;
mod settings;
pub mod signal;

pub use settings::{DoorEnrolmentSettings, Settings, SitePeople};
