//! EDGE: opening a gallery: the same rule for every command and for the service. What is
//! absent, unreachable, damaged, foreign or read-only is told apart, and nothing older than
//! what is remembered takes the place of the newer.

use super::Store;
use super::choose::{Choice, Found, Known, Trouble, Why, choose};
use super::error::{StoreError, error};
use super::files::{
    Open, PATIENCE, Probed, Readable, begin, copy_path, create, draft_path, found, open_checked,
    random, read_checked, remove_drafts, remove_file, restore, sync_folder,
};
use super::presence::{give_to_owner, read_only};
use super::register::Register;
use super::tables::{Checked, Fault, PEOPLE, copy_records, state};
use redb::Database;
use std::path::Path;
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
    /// newer than this program, older than what is remembered, another one, or damaged
    /// without a usable copy; if it is read-only and the purpose is to change it; or if a
    /// file operation fails.
    pub fn open_as(path: &Path, opening: Opening) -> Result<Self, StoreError> {
        let Opening { purpose, patience, known, register } = opening;
        let remembered = register.as_ref().and_then(|register| recall(register, path));
        let known = Known::stronger(known, remembered);
        let mut store = match why_read_only(path)? {
            None => write(path, purpose, patience, known)?,
            Some(reason) if purpose.only_reads() => read(path, patience, known, reason)?,
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

    /// Writes the revision to the register. `level` is that of the message if this fails.
    pub(super) fn note(&self, level: log::Level) {
        let Some(register) = &self.register else { return };
        let (Ok(revision), Ok(people)) = (self.revision(), self.keys(PEOPLE)) else { return };
        let now = Known { revision, inhabited: !people.is_empty() };
        if let Err(fault) = register.note(&self.path, now) {
            log::log!(
                level,
                "{fault}; without this entry a gallery that goes away is taken for a first start"
            );
        }
    }

    /// Makes the copy again, as the main file is.
    fn copy_again(&mut self) {
        let Open::Writable(main) = &self.main else { return };
        let path = copy_path(&self.path);
        let draft = draft_path(&path);
        let made = (|| {
            remove_file(&draft)?;
            let copy = create(&draft)?;
            copy_records(main, &copy, |_, _| true)?;
            drop(copy);
            let io = |error: std::io::Error| Fault::Io(error.to_string());
            give_to_owner(&draft).map_err(io)?;
            std::fs::rename(&draft, &path).and_then(|()| sync_folder(&path)).map_err(io)?;
            open_checked(&path, PATIENCE)
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
    /// Opens both. The copy is only opened if the main file says something about it.
    fn probe(path: &Path, open: impl Fn(&Path) -> Probed<D>) -> Result<Self, StoreError> {
        let main = open(path);
        if found(&main).is_none()
            && let Err(fault) = main
        {
            return Err(error(path, fault));
        }
        Ok(Self { main, copy: open(&copy_path(path)) })
    }

    /// Which of them counts.
    fn choose(&self, path: &Path, known: Option<Known>) -> Result<Choice, StoreError> {
        let main = found(&self.main).unwrap_or(Found::Absent);
        let copy = match (found(&self.copy), &self.copy) {
            (Some(copy), _) => copy,
            // The main file alone will do.
            (None, _) if matches!(main, Found::Whole(_)) => Found::Unusable,
            (None, Err(Fault::Busy)) => return Err(StoreError::Busy { path: copy_path(path) }),
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
                | (Err(fault @ Fault::NoGallery(_)), Err(Fault::Absent)) => error(&path, fault),
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
        Ok(_) => "it is older".to_owned(),
    }
}

/// Opens a gallery that can be changed.
fn write(
    path: &Path,
    purpose: Purpose,
    patience: Duration,
    known: Option<Known>,
) -> Result<Store, StoreError> {
    let copy_path = copy_path(path);
    let both = Both::probe(path, |file| {
        open_checked(file, if file == path { patience } else { PATIENCE })
    })?;
    let store = |main: Database| Store {
        path: path.to_owned(),
        main: Open::Writable(main),
        copy: None,
        repaired: None,
        read_only: None,
        register: None,
    };
    let again = |path: &Path| -> Result<(Database, Checked), StoreError> {
        open_checked(path, PATIENCE).map_err(|fault| error(path, fault))
    };
    match both.choose(path, known)? {
        Choice::Main { copied } => {
            let Both { main, copy } = both;
            let (main, _) = main.map_err(|fault| error(path, fault))?;
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
            let mut store = store(again(path)?.0);
            store.copy = again(&copy_path).map(|(copy, _)| copy).ok();
            store.repaired = Some(repaired);
            Ok(store)
        }
        Choice::Nothing if purpose.begins() => {
            // Continues the numbers of an empty gallery that was here.
            let revision = known.map_or([random(), 1], |known| {
                let [identity, revision] = known.revision;
                [identity, revision + 1]
            });
            drop(both);
            begin(path, revision)?;
            let mut store = store(again(path)?.0);
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
    reason: String,
) -> Result<Store, StoreError> {
    let both = Both::probe(path, |file| read_checked(file, patience))?;
    let store = |main: Probed<Readable>, repaired: Option<String>| -> Result<Store, StoreError> {
        let (main, _) = main.map_err(|fault| error(path, fault))?;
        Ok(Store {
            path: path.to_owned(),
            main: Open::Readable(main),
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
        Choice::Nothing => Err(StoreError::Absent { path: path.to_owned() }),
        Choice::Refuse(trouble) => Err(both.trouble(path, trouble, known)),
    }
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
        (Why::Damaged, Ok(_)) => "was damaged".to_owned(),
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
