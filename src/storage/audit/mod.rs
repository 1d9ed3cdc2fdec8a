//! EDGE: the audit log on disk: segments and heads in a folder beside the gallery, and the
//! newest head once more in the register, which is apart from it. The service and programs
//! beside it append to it and read it at the same time. docs/audit.md describes the files.
//!
//! ```no_run
//! use facelatch::storage::audit::{AuditLog, AuditPlace, AuditReader, Bounds, Order, stamp};
//!
//! let place = AuditPlace::of("/var/lib/facelatch/gallery.redb".as_ref());
//! let now = stamp(true);
//! let mut log = AuditLog::open(&place, Bounds::default(), None, &now)?;
//! let number = log.append(&now, b"an entry")?;
//! log.sync()?;
//! let reader = AuditReader::open(&place)?;
//! assert_eq!(reader.record(number)?.ok_or("no record")?.body, b"an entry");
//! for record in reader.records(1..=u64::MAX, Order::NewestFirst)? {
//!     println!("{}", record?.number);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bounds;
mod bundle;
mod disk;
mod error;
mod heads;
mod log;
#[cfg(test)]
mod memory;
mod pictures;
mod read;
mod repair;
mod segments;
mod stamp;
mod tail;
mod verify;

pub use self::log::{AuditLog, AuditPlace, Log};
pub use bounds::Bounds;
pub use bundle::{Exported, VerifiedBundle, export, verify_bundle};
pub use disk::{Disk, Folder};
pub use error::AuditError;
pub use heads::HeadsFile;
pub use pictures::PictureFolder;
pub use read::{AuditReader, Order, Reader, Records};
pub use stamp::stamp;
pub use tail::{AuditTail, Tail};
pub use verify::{kept_key, verify};

#[cfg(test)]
mod power_tests;
#[cfg(test)]
mod tests;
