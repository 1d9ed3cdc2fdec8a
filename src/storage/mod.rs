//! EDGE: what survives a restart: people, keys, the audit log, installed sets of models,
//! lockdown, the state of the door, and the last relay.

pub mod audit;
pub mod door_state;
pub mod gallery;
pub mod keys;
pub mod last_relay;
pub mod lockdown;
pub mod models;
pub mod site;

pub use crate::access::names;
