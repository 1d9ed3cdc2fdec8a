//! `facelatch-link`: the program.

fn main() {}
