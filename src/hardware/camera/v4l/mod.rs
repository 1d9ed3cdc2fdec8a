//! Cameras of the kernel: Video4Linux2.
//!
//! What is asked of one, what it has on offer and which device is meant are
//! decided without it: [`uri`], [`offer`] and [`nodes`]. Only `driver` and `stream`
//! open devices, and are there where built with the feature `v4l`.

#[cfg(feature = "v4l")]
pub mod driver;
pub mod nodes;
pub mod offer;
#[cfg(feature = "v4l")]
pub mod stream;
pub mod uri;
