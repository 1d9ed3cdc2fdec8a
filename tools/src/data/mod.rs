//! Photos into data sets of aligned faces, and data sets into parts.

pub mod aligned;
pub mod augment;
pub mod dataset;
pub mod photos;
pub mod prepare;
pub mod split;
