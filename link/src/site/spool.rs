//! EDGE: orders for the office's service, as files in its folder: only who may read the
//! site's key can write there. The service has a user of its own, so files that root makes
//! there are given to the folder's owner.

use super::answer::Answer;
use super::order::Order;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Longest file, bytes: a policy, or the list of all people.
const MOST_BYTES: u64 = 64 << 20;
/// Most orders that are taken at once.
const MOST_ORDERS: usize = 100;

/// The two folders.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    orders: PathBuf,
    answers: PathBuf,
}

impl Spool {
    pub fn new(folder: &Path) -> Self {
        Self { orders: folder.join("orders"), answers: folder.join("answers") }
    }

    /// Makes the folders, without what is left of earlier times.
    pub fn clear(&self) -> std::io::Result<()> {
        for folder in [&self.orders, &self.answers] {
            match std::fs::remove_dir_all(folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => DirBuilder::new().mode(0o700).create(folder)?,
            }
        }
        Ok(())
    }

    /// Gives an order. Returns its number, for [`Self::look`].
    pub fn give(&self, order: &Order) -> std::io::Result<String> {
        let mut file = self.file()?;
        file.write_all(&serde_json::to_vec(order)?)?;
        let number =
            format!("{:016x}", crate::mqtt::chance().to_bits() ^ u64::from(std::process::id()));
        file.persist_noclobber(self.orders.join(&number)).map_err(|error| error.error)?;
        Ok(number)
    }

    /// A copy of a file that the service may not be able to read, at most `most` bytes of it.
    /// It goes when it is dropped.
    pub fn lend(&self, path: &Path, most: u64) -> std::io::Result<NamedTempFile> {
        let mut copy = self.file()?;
        std::io::copy(&mut std::fs::File::open(path)?.take(most), &mut copy)?;
        Ok(copy)
    }

    /// A file that is no order yet, and that the service can read.
    fn file(&self) -> std::io::Result<NamedTempFile> {
        let file = tempfile::Builder::new().prefix(".order").tempfile_in(&self.orders)?;
        let owner = std::fs::metadata(&self.orders)?;
        if owner.uid() != file.as_file().metadata()?.uid() {
            std::os::unix::fs::fchown(file.as_file(), Some(owner.uid()), Some(owner.gid()))?;
        }
        Ok(file)
    }

    /// The answer to an order. `None` if there is none yet.
    pub fn look(&self, number: &str) -> Option<Answer> {
        let path = self.answers.join(number);
        let bytes = read(&path).ok()?;
        let _ = std::fs::remove_file(&path);
        serde_json::from_slice(&bytes).ok()
    }

    /// Takes an order back, so that it is not carried out when nobody expects it.
    pub fn take_back(&self, number: &str) {
        let _ = std::fs::remove_file(self.orders.join(number));
    }

    /// Orders that wait, each with its number.
    pub fn take(&self) -> Vec<(String, Result<Order, String>)> {
        let Ok(entries) = std::fs::read_dir(&self.orders) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let names = names.filter(|name| !name.starts_with('.')).take(MOST_ORDERS);
        let order = |name: String| {
            let path = self.orders.join(&name);
            let bytes = read(&path);
            std::fs::remove_file(&path).ok()?;
            let order = bytes.map_err(|error| error.to_string()).and_then(|bytes| {
                serde_json::from_slice(&bytes).map_err(|error| error.to_string())
            });
            Some((name, order))
        };
        names.filter_map(order).collect()
    }

    /// Answers an order.
    pub fn answer(&self, number: &str, answer: &Answer) {
        let write = || {
            let mut file = tempfile::Builder::new().prefix(".answer").tempfile_in(&self.answers)?;
            file.write_all(&serde_json::to_vec(answer)?)?;
            file.persist(self.answers.join(number)).map_err(|error| error.error)
        };
        if let Err(error) = write() {
            log::error!("{}: an answer cannot be written: {error}", self.answers.display());
        }
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(path)?;
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_lent_is_no_order_and_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = Spool::new(folder.path());
        spool.clear().expect("made");
        let file = folder.path().join("set.tar");
        std::fs::write(&file, "a set").expect("written");
        let lent = spool.lend(&file, 3).expect("lent");
        assert_eq!(std::fs::read(lent.path()).expect("read"), b"a s");
        assert!(spool.take().is_empty());
        let number = spool.give(&Order::Doors).expect("given");
        let orders = spool.take();
        assert!(matches!(&orders[..], [(taken, Ok(Order::Doors))] if *taken == number));
        drop(lent);
        assert_eq!(std::fs::read_dir(&spool.orders).expect("read").count(), 0);
        assert!(spool.lend(&folder.path().join("none"), 3).is_err());
    }
}
