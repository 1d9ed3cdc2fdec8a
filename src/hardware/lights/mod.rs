//! EDGE: a light of three colours and a buzzer. [`pattern`] says how a signal looks,
//! [`player`] plays it over time, and with the feature `gpio` a thread drives the lines.

pub mod pattern;
pub mod player;
#[cfg(feature = "gpio")]
mod thread;

pub use player::Lamp;
#[cfg(feature = "gpio")]
pub use thread::{LampEvent, Lamps};
