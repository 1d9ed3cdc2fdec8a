//! The host side of facelatch: imports weights, trains, evaluates and writes
//! the models that doors run. It shares detector, alignment and normalization
//! with the device.

pub mod arcface;
pub mod augment;
pub mod calibrate;
pub mod chance;
pub mod cli;
pub mod dataset;
pub mod export;
pub mod files;
pub mod finetune;
pub mod lfw;
pub mod loader;
pub mod metrics;
pub mod mobilefacenet;
pub mod mtcnn;
pub mod onnx;
pub mod parallel;
pub mod photos;
pub mod push;
pub mod quantize;
pub mod run;
pub mod search;
pub mod student;
pub mod weights;
