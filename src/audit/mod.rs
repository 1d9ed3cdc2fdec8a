//! audit
pub mod entry;
mod field;
mod of_event;
pub mod replay;

pub use field::{Fact, Value};
pub use of_event::{attempt, follows_from_order, of_caller, of_event};
