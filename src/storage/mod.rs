//! EDGE: what survives a restart: people, installed sets of models, and lockdown.

pub mod gallery;
pub mod lockdown;
pub mod models;

pub use crate::access::names;
