//! The service: [`Core`] decides what follows from what happens, [`run`] carries it out.

mod core;
mod door_side;
mod network_side;
mod run;
mod status;
pub mod wiring;

pub use self::core::{Action, Core, Identity, Now, Settings};
pub use run::{RunError, run};
pub use status::{Status, status_file};

#[cfg(test)]
mod tests;
