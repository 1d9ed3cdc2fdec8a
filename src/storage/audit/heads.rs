//! EDGE: the file of heads: the newest head, and those that stay when their segments go: the
//! last head of each segment and the first of each day.
//!
//! ```text
//! 0     one of the two newest heads      (158 bytes)
//! 4096  the other one
//! 8192  heads that stay, each in 256 bytes; the oldest is overwritten
//! ```
//!
//! The newer of the two is never overwritten, and they are in different sectors: a power cut
//! leaves one of them.

use super::disk::Disk;
use crate::audit::Head;
use std::io;

/// Offset of the second slot, and of the heads that stay.
const SECOND: u64 = 4096;
const KEPT: u64 = 8192;
/// Bytes of each of them.
const EACH: u64 = 256;
/// How many stay: more than ten years of days.
const MOST_KEPT: u64 = 4096;

/// A file of heads.
#[derive(Clone, Debug)]
pub struct HeadsFile<D> {
    pub(super) disk: D,
    pub(super) name: String,
}

impl<D: Disk> HeadsFile<D> {
    /// Both slots.
    fn slots(&self) -> io::Result<Option<[Option<Head>; 2]>> {
        let Some(bytes) = self.disk.read(&self.name, 0, KEPT)? else { return Ok(None) };
        let head = |at: u64| bytes.get(at as usize..).and_then(Head::decode);
        Ok(Some([head(0), head(SECOND)]))
    }

    /// The newest head; `None` if there is none.
    pub fn newest(&self) -> io::Result<Option<Head>> {
        let slots = self.slots()?.unwrap_or_default();
        Ok(slots.into_iter().flatten().max_by_key(|head| head.number))
    }

    /// Makes this the newest head, synced.
    pub fn set_newest(&self, head: &Head) -> io::Result<()> {
        let at = match self.slots()? {
            None => {
                self.disk.create(&self.name, &head.encode())?;
                self.disk.sync(&self.name)?;
                return self.disk.sync_folder();
            }
            // Not the slot of the newer one.
            Some([Some(one), Some(other)]) if one.number > other.number => SECOND,
            Some([Some(_), None]) => SECOND,
            Some(_) => 0,
        };
        self.disk.write(&self.name, at, &head.encode())?;
        self.disk.sync(&self.name)
    }

    /// The heads that stay, the oldest first.
    pub fn kept(&self) -> io::Result<Vec<Head>> {
        let bytes = self.disk.read(&self.name, KEPT, EACH * MOST_KEPT)?.unwrap_or_default();
        let mut kept: Vec<Head> = bytes.chunks(EACH as usize).filter_map(Head::decode).collect();
        kept.sort_by_key(|head| head.number);
        Ok(kept)
    }

    /// Keeps a head, synced. In a new file it is the newest one as well.
    pub fn keep(&self, head: &Head) -> io::Result<()> {
        if self.slots()?.is_none() {
            self.set_newest(head)?;
        }
        let bytes = self.disk.read(&self.name, KEPT, EACH * MOST_KEPT)?.unwrap_or_default();
        let place = |head: Option<Head>| head.map_or(0, |head| head.number);
        let places = (0..MOST_KEPT).zip(bytes.chunks(EACH as usize).map(Head::decode).map(place));
        let used = (bytes.len() as u64).div_ceil(EACH);
        let at = match places.min_by_key(|(_, number)| *number) {
            // A damaged one, or the oldest of a full file.
            Some((at, number)) if number == 0 || used == MOST_KEPT => at,
            _ => used,
        };
        let mut slot = head.encode().to_vec();
        slot.resize(EACH as usize, 0);
        self.disk.write(&self.name, KEPT + at * EACH, &slot)?;
        self.disk.sync(&self.name)
    }
}
