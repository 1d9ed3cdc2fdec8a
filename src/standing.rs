//! EDGE: what holds for the door beyond a restart: lockdown, which only the order "normal"
//! ends, whatever ends the service.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// A file that is there while lockdown holds.
#[derive(Clone, Debug)]
pub struct Standing {
    file: PathBuf,
}

impl Standing {
    /// That of the door with this gallery: the file `lockdown` beside it.
    pub fn beside(gallery: &Path) -> Self {
        Self { file: gallery.with_file_name("lockdown") }
    }

    /// Where it is written.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Whether lockdown holds. Where nobody can tell, it does.
    pub fn lockdown(&self) -> bool {
        match self.file.symlink_metadata() {
            Ok(_) => true,
            Err(error) => error.kind() != ErrorKind::NotFound,
        }
    }

    /// Makes it hold, or no longer, beyond a power cut.
    pub fn set_lockdown(&self, holds: bool) -> std::io::Result<()> {
        if holds {
            let mut file = File::create(&self.file)?;
            file.write_all(b"facelatch door normal ends it\n")?;
            file.sync_all()?;
        } else {
            match std::fs::remove_file(&self.file) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        // The name is in the folder.
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_until_it_is_ended_and_where_nobody_can_tell() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let standing = Standing::beside(&folder.path().join("gallery.redb"));
        assert!(!standing.lockdown());
        standing.set_lockdown(false).expect("nothing to end");
        for _ in 0..2 {
            standing.set_lockdown(true).expect("written");
            assert!(standing.clone().lockdown());
        }
        standing.set_lockdown(false).expect("removed");
        assert!(!standing.lockdown());
        let unreadable = Standing::beside(&folder.path().join("x\0y/gallery.redb"));
        assert!(unreadable.lockdown());
        assert!(unreadable.set_lockdown(false).is_err());
    }
}
