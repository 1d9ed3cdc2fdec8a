//! From pixels to templates and cues. Every stage is a pure function of its input, or of
//! its input and what it saw before; only [`picture`] reads files.
//!
//! ```text
//! Frame -> motion_gate -> detect -> track -> align -> quality, liveness, embed -> Template
//! ```
//!
//! [`draw`] shows people what the stages found.

pub mod align;
pub mod built_in_faces;
pub mod cover;
pub mod detect;
pub mod draw;
pub mod embed;
pub mod face_picture;
pub mod frame;
pub mod liveness;
pub mod motion_gate;
pub mod picture;
pub mod pose;
pub mod quality;
pub mod recognizer;
pub mod resample;
pub mod rotation;
pub mod track;
pub mod whole;
pub(crate) mod ycbcr;
