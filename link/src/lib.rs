//! `facelatch-link`: links a door to Home Assistant, webhooks and the other doors of its
//! site. The only part of Facelatch that speaks to a network.

pub mod config;
pub mod door;
pub mod events;
pub mod home;
pub mod mqtt;
pub mod records;
mod reports;
pub mod service;
pub mod simulate;
pub mod site;
pub mod text;
mod wake;
pub mod webhook;
