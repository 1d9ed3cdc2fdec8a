//! The workstation side of facelatch: it imports weights, trains, evaluates, quantizes and
//! exports the models that doors run. Detector, alignment and normalization are the
//! device's own code.

pub mod chance;
pub mod cli;
pub mod data;
pub mod deliver;
pub mod device;
pub mod files;
pub mod measure;
pub mod networks;
pub mod parallel;
pub mod quantize;
pub mod train;
pub mod weights;
