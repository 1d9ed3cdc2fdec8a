//! EDGE: what survives a restart: people, installed sets of models, lockdown and the state of
//! the door.

pub mod door_state;
pub mod gallery;
pub mod lockdown;
pub mod models;

pub use crate::access::names;
