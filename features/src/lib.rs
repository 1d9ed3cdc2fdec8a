//! No code: see the comment in `Cargo.toml`.
