//! EDGE: camera, relay, GPIO lines and lights. Each device runs on threads of its own.

pub(crate) mod backoff;
pub mod camera;
pub mod gpio;
pub mod lights;
pub mod relay;
pub mod uri;
