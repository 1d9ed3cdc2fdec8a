//! Architectures, and how they are written as ONNX.

pub mod face;
pub mod minifasnet;
pub mod mobilefacenet;
pub mod mtcnn;
pub mod onnx;
pub mod reid;
