//! Facelatch: a face-recognition door controller for small ARM boards.
//!
//! Data flows one way: camera → [`frame::Frame`] → [`detect`] → [`align`] →
//! [`embed`] → gallery → decision → door → relay. ARCHITECTURE.md has the map.

pub mod align;
mod backoff;
pub mod button;
pub mod camera;
pub mod clock;
pub mod config;
pub mod control;
pub mod controller;
pub mod decide;
pub mod detect;
pub mod door;
pub mod doorkeeper;
pub mod embed;
pub mod enroll;
pub mod event;
pub mod frame;
pub mod gallery;
pub mod gpio;
pub mod heartbeat;
pub mod lights;
pub mod liveness;
pub mod model_store;
pub mod models;
pub mod motion_gate;
pub mod neighbours;
pub mod nn;
pub mod peripherals;
pub mod picture;
pub mod pose;
pub mod process;
pub mod quality;
pub mod recognize;
pub mod relay;
pub mod resample;
pub mod schedule;
pub mod selftest;
pub mod service;
pub mod signals;
pub mod snapshot;
pub mod standing;
pub mod systemd;
pub mod timings;
pub mod track;
pub mod watchdog;
