//! EDGE: what an administrator orders: a gallery from a backup, and a new one in the place
//! of one that is lost.

use super::choose::Known;
use super::error::{StoreError, error};
use super::export::Export;
use super::files::{
    How, PATIENCE, begin, copy_path, create, create_folder, draft_path, move_aside, open_readable,
    random, read_checked, remove_file, sync_folder,
};
use super::open::recall;
use super::presence::{give_to_owner, look, same_file};
use super::register::Register;
use super::reseal::keys_of;
use super::rewrite::{Numbers, feed, fill};
use super::sealed::Keys;
use super::tables::{Fault, LAST_REVISION, NEXT_PERSON, number_in};
use super::{Opening, Purpose, Store};
use crate::storage::keys::{DoorKeys, KeyError, KeyPlace};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Result of [`Store::restore`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Number of people.
    pub people: usize,
    /// Number of administrators among them.
    pub administrators: usize,
    /// Where the gallery that was in use is kept, if there was one.
    pub aside: Option<PathBuf>,
}

impl Store {
    /// Makes the content of a backup the gallery, although it may be older or another one.
    /// It gets a revision above all that are known, so that it counts as the newest. The
    /// gallery in use is moved aside.
    ///
    /// # Errors
    /// If the backup cannot be read or has invalid people, the gallery is unreachable or in
    /// use, or a file operation fails.
    pub fn restore(
        path: &Path,
        export: Export,
        register: Option<&Register>,
    ) -> Result<Restored, StoreError> {
        export.check()?;
        reachable(path)?;
        let keys = keys_to_begin(path, register)?;
        let people = export.people()?;
        let source = export.reader();
        let failed = |fault| error(path, fault);
        // Held until the end, so that no other process writes meanwhile.
        let copy = copy_path(path);
        let mut held = Vec::new();
        for file in [path, &copy] {
            match read_checked(file, PATIENCE, How::all(&keys)) {
                Ok(whole) => held.push(whole),
                Err(Fault::Busy) => return Err(StoreError::Busy { path: file.to_owned() }),
                Err(_) => {}
            }
        }
        let known = register.and_then(|register| recall(register, path));
        let here = known
            .map(|known| known.revision)
            .or_else(|| held.first().map(|(_, checked)| checked.snapshot.revision));
        let [identity, mut last] = here.unwrap_or([export.revision()?[0], 0]);
        let mut next = number_in(source.database, NEXT_PERSON).map_err(failed)?;
        for (readable, checked) in &held {
            last = last.max(checked.snapshot.revision[1]);
            next = next.max(number_in(readable.reader(), NEXT_PERSON).map_err(failed)?);
        }
        let revision = last.max(export.revision()?[1]) + 1;
        if revision > LAST_REVISION {
            return Err(failed(Fault::Damaged("its revision is impossible".to_owned())));
        }
        create_folder(path)?;
        let draft = draft_path(path);
        remove_file(&draft).map_err(failed)?;
        let target = create(&draft).map_err(failed)?;
        let numbers = Numbers { identity, revision, next_person: next };
        fill(&target, keys.keys.as_ref().ok(), numbers, |take| feed(source, |_, _| true, take))
            .map_err(failed)?;
        drop(target);
        let io = |reason: std::io::Error| failed(Fault::Io(reason.to_string()));
        give_to_owner(&draft).map_err(io)?;
        // The file itself may be the backup: what was read stays readable.
        let aside = move_aside(path, "replaced").map_err(io)?;
        std::fs::rename(&draft, path).and_then(|()| sync_folder(path)).map_err(io)?;
        drop(held);
        let note = Known { revision: [identity, revision], inhabited: !people.is_empty() };
        // Opening makes the copy again.
        let opening =
            Opening::to(Purpose::Change).knowing(Some(note)).registered(register.cloned());
        drop(export);
        drop(Self::open_as(path, opening)?);
        let administrators = people.iter().filter(|person| person.traits.administrator).count();
        Ok(Restored { people: people.len(), administrators, aside })
    }

    /// Starts with an empty gallery where one is missing that had people.
    ///
    /// # Errors
    /// If a gallery or its copy is present or unreachable, or a file operation fails.
    pub fn renew(path: &Path, register: Option<&Register>) -> Result<(), StoreError> {
        reachable(path)?;
        for file in [path.to_owned(), copy_path(path)] {
            match look(&file) {
                Err(Fault::Absent) => {}
                Err(fault) => return Err(error(&file, fault)),
                Ok(_) => {
                    let reason = match open_readable(&file) {
                        Ok(_) => "there is a gallery; export its people and move it away first",
                        Err(_) => "a damaged gallery; move it away first",
                    };
                    return Err(StoreError::Io { path: file, reason: reason.to_owned() });
                }
            }
        }
        let known = register.and_then(|register| recall(register, path));
        // A service that remembers the gallery takes it for its next revision.
        let revision = known.map_or([random(), 1], |known| {
            let [identity, revision] = known.revision;
            [identity, revision + 1]
        });
        let keys = keys_to_begin(path, register)?;
        begin(path, revision, keys.keys.as_ref().ok())?;
        let opening = Opening::to(Purpose::Change).registered(register.cloned());
        Self::open_as(path, opening).map(drop)
    }

    /// Whether the file is this gallery or its copy.
    pub fn is_itself(path: &Path, file: &Path) -> bool {
        same_file(path, file) || same_file(&copy_path(path), file)
    }
}

/// The keys for a gallery that an administrator begins again: those that exist, else new
/// ones.
fn keys_to_begin(path: &Path, register: Option<&Register>) -> Result<Keys, StoreError> {
    let keys = keys_of(path, register)?;
    let (Err(KeyError::None { .. }), Some(register)) = (&keys.keys, register) else {
        return Ok(Keys { sealed: false, ..keys });
    };
    let made = DoorKeys::make_or_open(path, &KeyPlace::of(register));
    let made = made.map_err(|reason| StoreError::Sealed { path: path.to_owned(), reason })?;
    Ok(Keys { keys: Ok(Arc::new(made)), sealed: false })
}

/// Whether the gallery is present or absent for sure. A command that needs models as well
/// asks first, because the models may lie beside a gallery that cannot be reached.
///
/// # Errors
/// If the file cannot be reached, or is no regular file.
pub fn reachable(path: &Path) -> Result<(), StoreError> {
    match look(path) {
        Ok(_) | Err(Fault::Absent) => Ok(()),
        Err(fault) => Err(error(path, fault)),
    }
}
