//! The office of a site of doors: its key and store, its connection to the broker, and the
//! orders that commands give it.

mod answer;
mod carry;
mod clock;
mod command;
mod folder;
mod order;
pub(crate) mod service;
mod spool;
mod store;

pub use answer::Answer;
pub use carry::{Line, Wire};
pub use clock::Clock;
pub use command::{SiteCommand, run};
pub use folder::{Folder, FolderError};
pub use order::Order;
pub use store::{Store, StoreError};
