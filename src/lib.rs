//! Facelatch: a face-recognition door controller for small ARM boards.
//!
//! Data flows one way: camera → [`vision::frame::Frame`] → [`vision::detect`] → [`vision::align`] →
//! [`vision::embed`] → gallery → decision → door → relay. ARCHITECTURE.md has the map.

pub mod access;
pub mod config;
pub mod hardware;
pub mod models;
pub mod nn;
pub mod service;
pub mod storage;
pub mod vision;
