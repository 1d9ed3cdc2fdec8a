//! Models on their way to the doors: ONNX held against libtorch, and sets pushed over ssh.

pub mod export;
pub mod push;
