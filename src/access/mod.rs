//! Who may come in: state machines without clock, devices or files. Each takes the time
//! as an argument and returns what is to be done.

pub mod controller;
pub mod decide;
pub mod door;
pub mod enroll;
pub mod event;
pub mod gallery;
pub mod gesture;
pub mod liveness;
pub mod schedule;
mod settings;
pub mod signal;

pub use settings::{DoorEnrolmentSettings, Settings};
