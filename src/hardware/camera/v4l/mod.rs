//! Video4Linux2 cameras.
//!
//! [`uri`], [`offer`] and [`nodes`] parse the URI, choose a format and find the device
//! without opening it. Only `driver` and `stream` open devices; both need the feature
//! `v4l`.

#[cfg(feature = "v4l")]
pub mod driver;
pub mod nodes;
pub mod offer;
#[cfg(feature = "v4l")]
pub mod stream;
pub mod uri;
