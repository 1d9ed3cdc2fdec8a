//! The office of a site of doors: its key and store, its connection to the broker, and the
//! orders that commands give it.

mod answer;
mod carry;
mod command;
mod folder;
mod order;
mod service;
mod spool;
mod store;

pub use answer::Answer;
pub use carry::{Line, Wire};
pub use command::{SiteCommand, run};
pub use folder::{Folder, FolderError};
pub use order::Order;
pub use store::{Store, StoreError};

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
