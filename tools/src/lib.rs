//! The host side of facelatch: imports weights, trains, evaluates and writes
//! the models that doors run. It shares detector, alignment and normalization
//! with the device.

pub mod attacks;
pub mod augment;
pub mod bench_train;
pub mod calibrate;
pub mod chance;
pub mod chart;
pub mod checkpoint;
pub mod cli;
pub mod comparisons;
pub mod dataset;
pub mod device;
pub mod evaluate;
pub mod files;
mod head;
pub mod identification;
pub mod judge;
mod learner;
pub mod lfw;
pub mod likelihood;
pub mod loader;
pub mod margin;
pub mod memory;
pub mod metrics;
pub mod minifasnet;
pub mod mobilefacenet;
pub mod mtcnn;
pub mod onnx;
pub mod parallel;
pub mod photos;
pub mod prepare;
pub mod presentations;
pub mod progress;
pub mod quantize;
pub mod recipe;
pub mod run;
pub mod sampler;
pub mod schedule;
pub mod search;
pub mod sgd;
pub mod split;
pub mod student;
pub mod train;
pub mod training_data;
pub mod weights;
