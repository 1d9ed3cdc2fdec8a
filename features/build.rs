//! No work: a build script makes Cargo use `[build-dependencies]`.

fn main() {}
