//! Who may come in: state machines without clock, devices or files. Each takes the time
//! as an argument and returns what is to be done.

pub mod liveness;
