//! Models on their way to the doors: ONNX held against libtorch, signatures, and sets pushed
//! over ssh.

pub mod agent;
pub mod export;
pub mod push;
pub mod sign;
