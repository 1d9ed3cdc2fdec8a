//! `facelatch-link`: links a door to Home Assistant, webhooks and the other doors of its
//! site. The only part of Facelatch that speaks to a network.

pub mod config;
pub mod mqtt;
pub mod text;
