//! Facelatch: a face-recognition door controller for small ARM boards.
//!
//! Data flows one way: camera → [`vision::frame::Frame`] → [`vision::detect`] → [`vision::align`] →
//! [`vision::embed`] → gallery → decision → door → relay. ARCHITECTURE.md has the map.

pub mod access;
mod backoff;
pub mod button;
pub mod camera;
pub mod clock;
pub mod config;
pub mod control;
pub mod controller;
pub mod decide;
pub mod door;
pub mod doorkeeper;
pub mod enroll;
pub mod event;
pub mod gallery;
pub mod gpio;
pub mod heartbeat;
pub mod lights;
pub mod model_store;
pub mod models;
pub mod neighbours;
pub mod nn;
pub mod peripherals;
pub mod process;
pub mod relay;
pub mod schedule;
pub mod selftest;
pub mod service;
pub mod signals;
pub mod snapshot;
pub mod standing;
pub mod systemd;
pub mod timings;
pub mod vision;
pub mod watchdog;
