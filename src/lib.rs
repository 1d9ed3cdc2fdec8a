//! Facelatch: a face-recognition door controller for small ARM boards.
//!
//! Data flows one way: camera → [`vision::frame::Frame`] → [`vision::detect`] → [`vision::align`] →
//! [`vision::embed`] → gallery → decision → door → relay. ARCHITECTURE.md has the map.

pub mod access;
pub mod clock;
pub mod config;
pub mod control;
pub mod doorkeeper;
pub mod hardware;
pub mod heartbeat;
pub mod models;
pub mod neighbours;
pub mod nn;
pub mod peripherals;
pub mod process;
pub mod service;
pub mod snapshot;
pub mod storage;
pub mod systemd;
pub mod timings;
pub mod vision;
pub mod watchdog;
