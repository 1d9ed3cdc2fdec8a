//! EDGE: opening a gallery: the same rule for every command and for the service. What is
//! absent, unreachable, damaged, foreign or read-only is told apart, and nothing older than
//! what is remembered takes the place of the newer.

use super::Store;
use super::check::{Checked, Depth, check_records, some};
use super::choose::{Choice, Found, Known, Trouble, Why, choose};
use super::error::{StoreError, error};
use super::files::{
    How, Open, PATIENCE, Probed, Readable, begin, copy_path, create, draft_path, found, guarded,
    in_empty_memory, move_aside, open_checked, random, read_checked, remove_drafts, remove_file,
    restore, sync_folder,
};
use super::presence::{give_to_owner, read_only};
use super::register::Register;
use super::reseal::keys_of;
use super::rewrite::{Numbers, Part, fill, salvage};
use super::sealed::Keys;
use super::tables::{Fault, NEXT_PERSON, PEOPLE, Reader, copy_bytes, number_in, state};
use crate::storage::keys::{DoorKeys, KeyError, KeyPlace, resolved};
use redb::{Database, ReadableDatabase};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What a gallery is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To read an existing one. It may be read-only. Damage is repaired if that is possible.
    Read,
    /// To run a door: like [`Self::Read`], but the first start creates the gallery.
    Serve,
    /// To change an existing one.
    Change,
    /// To add people. The first of them creates the gallery.
    Begin,
}

/// How to open a gallery.
#[derive(Clone, Debug)]
pub struct Opening {
    purpose: Purpose,
    patience: Duration,
    known: Option<Known>,
    register: Option<Register>,
}

impl Opening {
    /// Opens for this purpose. Waits for up to three seconds while another process has the
    /// gallery. Nothing is remembered.
    pub fn to(purpose: Purpose) -> Self {
        Self { purpose, patience: PATIENCE, known: None, register: None }
    }

    /// Waits for at most this time.
    pub fn within(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// With what the caller remembers of the gallery.
    pub fn knowing(self, known: Option<Known>) -> Self {
        Self { known, ..self }
    }

    /// With what this register remembers. The register follows every change.
    pub fn registered(self, register: Option<Register>) -> Self {
        Self { register, ..self }
    }
}

impl Store {
    /// Opens the gallery, or creates it if there is none. Waits up to three seconds for
    /// another process to release it. Restores a damaged file from its copy.
    ///
    /// # Errors
    /// See [`Store::open_as`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_as(path, Opening::to(Purpose::Begin))
    }

    /// Opens the gallery. The newer of the file and its copy counts, and neither may be
    /// older than what is remembered.
    ///
    /// # Errors
    /// If the gallery is absent, missing although it is remembered, unreachable, in use,
    /// sealed with keys that are missing or others, newer than this program, older than what
    /// is remembered, another one, or damaged without a usable copy; if it is read-only and
    /// the purpose is to change it; or if a file operation fails.
    pub fn open_as(path: &Path, opening: Opening) -> Result<Self, StoreError> {
        let Opening { purpose, patience, known, register } = opening;
        let remembered = register.as_ref().and_then(|register| recall(register, path));
        let known = Known::stronger(known, remembered);
        // A new file must take the place of what a link names, not of the link.
        let given = path;
        let path = &resolved(given);
        let behind = register.as_ref().filter(|_| path != given);
        let known = Known::stronger(known, behind.and_then(|register| recall(register, path)));
        let read_only = why_read_only(path)?;
        let keys = keys_of(path, register.as_ref())?;
        let mut store = match read_only {
            None => {
                let store = write(path, purpose, patience, known, (&keys, register.as_ref()))?;
                store.sealed_with_current(purpose, keys, register.as_ref())?
            }
            Some(reason) if purpose.only_reads() => read(path, patience, known, &keys, reason)?,
            Some(reason) => return Err(StoreError::ReadOnly { path: path.to_owned(), reason }),
        };
        store.register = register;
        // Who only reads may be anybody.
        let reads = purpose == Purpose::Read || store.read_only.is_some();
        store.note(if reads { log::Level::Debug } else { log::Level::Warn });
        Ok(store)
    }

    /// Description of the repair on opening, for the log. `None` if none was needed.
    pub fn repaired(&self) -> Option<&str> {
        self.repaired.as_deref()
    }

    /// Why the gallery can only be read: the fault and the cure. `None` if it can be
    /// changed.
    pub fn read_only(&self) -> Option<&str> {
        self.read_only.as_deref()
    }

    /// Identity and revision of the gallery.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn revision(&self) -> Result<[u64; 2], StoreError> {
        state(self.main.reader()).map_err(|fault| error(&self.path, fault))
    }

    /// The records.
    pub(super) fn reader(&self) -> Reader<'_> {
        Reader { database: self.main.reader(), guard: &self.guard }
    }

    /// Whether the records are sealed.
    pub fn is_sealed(&self) -> bool {
        self.guard.sealing().is_some()
    }

    /// The keys of a sealed gallery.
    pub fn door_keys(&self) -> Option<&Arc<DoorKeys>> {
        self.guard.sealing().map(|sealing| &sealing.keys)
    }

    /// Writes the revision to the register. `level` is that of the message if this fails.
    pub(super) fn note(&self, level: log::Level) {
        let Some(register) = &self.register else { return };
        let (Ok(revision), Ok(people)) = (self.revision(), self.keys(PEOPLE)) else { return };
        let now = Known { revision, inhabited: !people.is_empty() };
        if let Err(fault) = register.note_as(&self.path, now, self.is_sealed()) {
            log::log!(
                level,
                "{fault}; without this entry a gallery that goes away is taken for a first start"
            );
        }
    }

    /// Makes the copy again, as the main file is.
    pub(super) fn copy_again(&mut self) {
        let Open::Writable(main) = &self.main else { return };
        let path = copy_path(&self.path);
        let draft = draft_path(&path);
        let made = (|| {
            remove_file(&draft)?;
            let copy = create(&draft)?;
            copy_bytes(main, &copy)?;
            drop(copy);
            let io = |error: std::io::Error| Fault::Io(error.to_string());
            give_to_owner(&draft).map_err(io)?;
            std::fs::rename(&draft, &path).and_then(|()| sync_folder(&path)).map_err(io)?;
            open_checked(&path, PATIENCE, How { keys: &self.own_keys(), depth: Depth::Digest })
        })();
        match made {
            Ok((copy, _)) => self.copy = Some(copy),
            Err(fault) => {
                log::error!("{}; until then there is no last good copy", error(&path, fault));
                // Better no copy than one with people who were removed since.
                let _ = remove_file(&path);
                let _ = remove_file(&draft);
            }
        }
    }
}

/// What the register remembers; an entry that cannot be read is logged.
pub(super) fn recall(register: &Register, path: &Path) -> Option<Known> {
    register.known(path).unwrap_or_else(|fault| {
        log::warn!("{fault}; without this entry an older gallery is not recognized");
        None
    })
}

/// Why the gallery can only be read: the fault and the cure. `None` if it can be changed, or
/// if there is none. If the main file is missing, the copy decides.
///
/// # Errors
/// If the file cannot be reached.
pub fn why_read_only(path: &Path) -> Result<Option<String>, StoreError> {
    let copy = copy_path(path);
    match read_only(path) {
        Ok(reason) => Ok(reason),
        Err(Fault::Absent) => match read_only(&copy) {
            Ok(reason) => Ok(reason),
            Err(Fault::Absent) => Ok(None),
            Err(fault) => Err(error(&copy, fault)),
        },
        Err(fault) => Err(error(path, fault)),
    }
}

/// Both files of a gallery with all their records checked.
struct Both<D> {
    main: Probed<D>,
    copy: Probed<D>,
}

impl<D> Both<D> {
    /// Opens both. The copy is only opened if the main file says something about it, and
    /// its records only if they are not the same.
    fn probe(
        path: &Path,
        open: impl Fn(&Path, Depth<'_>) -> Probed<D>,
    ) -> Result<Self, StoreError> {
        let main = open(path, Depth::Records);
        if found(&main).is_none()
            && let Err(fault) = main
        {
            return Err(error(path, fault));
        }
        let digest = match &main {
            Ok((_, checked)) if checked.flaws.is_empty() => Some(checked.snapshot.digest),
            _ => None,
        };
        let depth = digest.as_ref().map_or(Depth::Records, Depth::Unless);
        let copy = open(&copy_path(path), depth);
        Ok(Self { main, copy })
    }

    /// The two files for [`salvage`], that which decides first.
    fn parts<'b>(
        &'b self,
        by_copy: bool,
        reader: impl Fn(&'b D) -> &'b dyn ReadableDatabase,
    ) -> Option<(Part<'b>, Option<Part<'b>>)> {
        let part = |probed: &'b Probed<D>| {
            let (database, checked) = probed.as_ref().ok()?;
            Some(Part { database: reader(database), checked })
        };
        let (main, copy) = (part(&self.main), part(&self.copy));
        if by_copy { copy.map(|copy| (copy, main)) } else { main.map(|main| (main, copy)) }
    }

    /// Which of them counts.
    fn choose(&self, path: &Path, known: Option<Known>) -> Result<Choice, StoreError> {
        let main = found(&self.main).unwrap_or(Found::Absent);
        let copy = match (found(&self.copy), &self.copy) {
            (Some(copy), _) => copy,
            // The main file alone will do.
            (None, _) if matches!(main, Found::Whole(_)) => Found::Unusable,
            (None, Err(Fault::Busy)) => return Err(StoreError::Busy { path: copy_path(path) }),
            (None, Err(Fault::Sealed(reason))) => {
                return Err(error(&copy_path(path), Fault::Sealed(reason.clone())));
            }
            (None, Err(Fault::Newer(reason))) => {
                return Err(error(&copy_path(path), Fault::Newer(reason.clone())));
            }
            (
                None,
                Err(Fault::Unreachable(reason) | Fault::Io(reason) | Fault::Foreign(reason)),
            ) => {
                return Err(error(&copy_path(path), Fault::Unreachable(reason.clone())));
            }
            (None, _) => Found::Unusable,
        };
        Ok(choose(main, copy, known))
    }

    /// The error for files of which none may be used.
    fn trouble(self, path: &Path, trouble: Trouble, known: Option<Known>) -> StoreError {
        let (path, copy) = (path.to_owned(), copy_path(path));
        let last = known.map_or(0, |known| known.revision[1]);
        match trouble {
            Trouble::Gone => StoreError::Gone { path },
            Trouble::Older(found) => StoreError::Older { path, found, known: last },
            Trouble::Other => StoreError::Other { path },
            Trouble::Differ => StoreError::Differ { path, copy },
            Trouble::Lost => match (self.main, self.copy) {
                // Both on a disk that gives errors: nothing says that they are damaged.
                (Err(fault @ Fault::Unreadable(_)), Err(Fault::Unreadable(_) | Fault::Absent))
                | (Err(fault @ Fault::NoGallery(_)), Err(Fault::Absent))
                | (Err(fault @ Fault::OtherKey(_)), Err(Fault::Absent | Fault::OtherKey(_))) => {
                    error(&path, fault)
                }
                (main, copy_fault) => StoreError::Lost {
                    path,
                    reason: reason_of(main),
                    copy,
                    copy_reason: reason_of(copy_fault),
                },
            },
        }
    }
}

fn reason_of<D>(probed: Probed<D>) -> String {
    match probed {
        Err(Fault::Absent) => "it is missing".to_owned(),
        Err(fault) => fault.unusable().unwrap_or("it cannot be read").to_owned(),
        Ok((_, checked)) if !checked.flaws.is_empty() => some(&checked.flaws),
        Ok(_) => "it is older".to_owned(),
    }
}

/// Opens a gallery that can be changed.
fn write(
    path: &Path,
    purpose: Purpose,
    patience: Duration,
    known: Option<Known>,
    (keys, register): (&Keys, Option<&Register>),
) -> Result<Store, StoreError> {
    let copy_path = copy_path(path);
    let both = Both::probe(path, |file, depth| {
        open_checked(file, if file == path { patience } else { PATIENCE }, How { keys, depth })
    })?;
    let store = |(main, checked): (Database, Checked)| Store {
        path: path.to_owned(),
        main: Open::Writable(main),
        guard: checked.guard,
        copy: None,
        repaired: None,
        read_only: None,
        register: None,
    };
    let again = |path: &Path, keys: &Keys| -> Result<(Database, Checked), StoreError> {
        open_checked(path, PATIENCE, How::all(keys)).map_err(|fault| error(path, fault))
    };
    match both.choose(path, known)? {
        Choice::Main { copied } => {
            let Both { main, copy } = both;
            let main = main.map_err(|fault| error(path, fault))?;
            // While the file is locked nobody else makes drafts.
            remove_drafts(path);
            let mut store = store(main);
            match copy {
                Ok((copy, _)) if copied => store.copy = Some(copy),
                copy => {
                    // Release it before it is replaced.
                    drop(copy);
                    store.copy_again();
                }
            }
            Ok(store)
        }
        Choice::Copy(why) => {
            let said = why_copy(why, &both);
            // Release both before one replaces the other.
            drop(both);
            let aside = restore(path, &copy_path, ending(why))?;
            let kept = aside.map(|aside| format!("; the file is kept as {}", aside.display()));
            let repaired = format!(
                "{}: {said}; restored from its last good copy{}",
                path.display(),
                kept.unwrap_or_default()
            );
            let mut store = store(again(path, keys)?);
            store.copy = again(&copy_path, keys).map(|(copy, _)| copy).ok();
            store.repaired = Some(repaired);
            Ok(store)
        }
        Choice::Salvage { by_copy } => {
            let failed = |fault| error(path, fault);
            let io = |reason: std::io::Error| failed(Fault::Io(reason.to_string()));
            let draft = draft_path(path);
            remove_file(&draft).map_err(failed)?;
            let target = create(&draft).map_err(failed)?;
            let parts = both.parts(by_copy, |database| database);
            let said = salvaged(&target, parts).map_err(failed)?;
            drop(target);
            give_to_owner(&draft).map_err(io)?;
            // Release both before they are moved.
            drop(both);
            let mut kept = Vec::new();
            for file in [path, &copy_path] {
                kept.extend(move_aside(file, ending(Why::Damaged)).map_err(io)?);
            }
            std::fs::rename(&draft, path).and_then(|()| sync_folder(path)).map_err(io)?;
            let mut store = store(again(path, keys)?);
            store.copy_again();
            store.repaired = Some(format!(
                "{}: damaged, and so was its last good copy; {said}; the files are kept as {}",
                path.display(),
                list(&kept)
            ));
            Ok(store)
        }
        Choice::Nothing if purpose.begins() => {
            // Continues the numbers of an empty gallery that was here.
            let revision = known.map_or([random(), 1], |known| {
                let [identity, revision] = known.revision;
                [identity, revision + 1]
            });
            drop(both);
            let keys = first_keys(path, keys, register)?;
            begin(path, revision, keys.keys.as_ref().ok())?;
            let mut store = store(again(path, &keys)?);
            store.copy_again();
            Ok(store)
        }
        Choice::Nothing => Err(StoreError::Absent { path: path.to_owned() }),
        Choice::Refuse(trouble) => Err(both.trouble(path, trouble, known)),
    }
}

/// Opens a gallery that can only be read.
fn read(
    path: &Path,
    patience: Duration,
    known: Option<Known>,
    keys: &Keys,
    reason: String,
) -> Result<Store, StoreError> {
    let both = Both::probe(path, |file, depth| read_checked(file, patience, How { keys, depth }))?;
    let store = |main: Probed<Readable>, repaired: Option<String>| -> Result<Store, StoreError> {
        let (main, checked) = main.map_err(|fault| error(path, fault))?;
        Ok(Store {
            path: path.to_owned(),
            main: Open::Readable(main),
            guard: checked.guard,
            copy: None,
            repaired,
            read_only: Some(reason),
            register: None,
        })
    };
    match both.choose(path, known)? {
        Choice::Main { .. } => store(both.main, None),
        Choice::Copy(why) => {
            let said = why_copy(why, &both);
            let repaired = format!("{}: {said}; its last good copy is read", path.display());
            store(both.copy, Some(repaired))
        }
        Choice::Salvage { by_copy } => {
            let failed = |fault| error(path, fault);
            let target = in_empty_memory().map_err(failed)?;
            let parts = both.parts(by_copy, Readable::reader);
            let said = salvaged(&target, parts).map_err(failed)?;
            let checked = check_records(&target, keys, Depth::Records).map_err(failed)?;
            let repaired =
                format!("{}: damaged, and so is its last good copy; {said}", path.display());
            store(Ok((Readable::Memory(target), checked)), Some(repaired))
        }
        Choice::Nothing => Err(StoreError::Absent { path: path.to_owned() }),
        Choice::Refuse(trouble) => Err(both.trouble(path, trouble, known)),
    }
}

/// The keys of a new gallery. Without a register there are none, and it is not sealed.
fn first_keys(path: &Path, keys: &Keys, register: Option<&Register>) -> Result<Keys, StoreError> {
    let Some(register) = register else { return Ok(keys.clone()) };
    let keys = match &keys.keys {
        Err(KeyError::None { .. }) => {
            let made = DoorKeys::make_or_open(path, &KeyPlace::of(register));
            Arc::new(made.map_err(|error| sealed(path, error))?)
        }
        Ok(keys) => Arc::clone(keys),
        Err(error) => return Err(sealed(path, error.clone())),
    };
    Ok(Keys { keys: Ok(keys), sealed: false })
}

fn sealed(path: &Path, reason: KeyError) -> StoreError {
    StoreError::Sealed { path: path.to_owned(), reason }
}

/// Fills an empty database with what is whole of two damaged files. Returns what is lost, in
/// words.
fn salvaged(
    target: &Database,
    parts: Option<(Part<'_>, Option<Part<'_>>)>,
) -> Result<String, Fault> {
    let no_part = || Fault::Damaged("neither file can be opened".to_owned());
    let (base, other) = parts.ok_or_else(no_part)?;
    let [identity, revision] = base.checked.snapshot.revision;
    let next_person = number_in(base.database, NEXT_PERSON)?;
    // It counts as newer than both.
    let numbers = Numbers { identity, revision: revision + 1, next_person };
    let keys = base.checked.guard.sealing().map(|sealing| &sealing.keys);
    let mut lost = Vec::new();
    guarded(|| {
        fill(target, keys, numbers, |take| {
            lost = salvage(base, other, take)?;
            Ok(())
        })
    })?;
    let flaws = some(&base.checked.flaws);
    Ok(match &lost[..] {
        [] => format!("{flaws}; every record was whole in one of them, and nothing is lost"),
        lost => format!("{flaws}; lost: {}; enroll them again; all others are whole", some(lost)),
    })
}

/// Paths in words.
fn list(paths: &[PathBuf]) -> String {
    let shown: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    shown.join(" and ")
}

/// Why the copy takes the place of the main file, in words.
fn why_copy<D>(why: Why, both: &Both<D>) -> String {
    let revision = |probed: &Probed<D>| match probed {
        Ok((_, checked)) => checked.snapshot.revision[1],
        Err(_) => 0,
    };
    match (why, &both.main) {
        (Why::Missing, _) => "was missing".to_owned(),
        (Why::Damaged, Err(fault)) => {
            format!("was damaged ({})", fault.unusable().unwrap_or("it cannot be read"))
        }
        (Why::Damaged, Ok((_, checked))) => format!("was damaged ({})", some(&checked.flaws)),
        (Why::Older, main) => format!(
            "an older gallery was put in its place (revision {}, not {})",
            revision(main),
            revision(&both.copy)
        ),
        (Why::Other, _) => "another gallery was put in its place".to_owned(),
    }
}

/// Ending of the name under which the main file is kept.
fn ending(why: Why) -> &'static str {
    match why {
        Why::Missing | Why::Damaged => "damaged",
        Why::Older => "older",
        Why::Other => "other",
    }
}
