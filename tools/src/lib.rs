//! The host side of facelatch: imports weights, trains, evaluates and writes
//! the models that doors run. It shares detector, alignment and normalization
//! with the device.

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
