//! A folder in memory for tests, which records every operation: so that it can be shown as a
//! power cut would leave it, and fail like a disk that is full or read-only.

use super::disk::Disk;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::rc::Rc;

/// An operation on a file.
#[derive(Clone, Debug)]
pub enum Op {
    Create(String, Vec<u8>),
    Write(String, u64, Vec<u8>),
    Cut(String, u64),
    Remove(String),
    Sync(String),
    SyncFolder(String),
}

pub type Files = BTreeMap<String, Vec<u8>>;

#[derive(Debug, Default)]
pub struct State {
    pub files: Files,
    pub journal: Vec<Op>,
    /// Bytes that may still be written; `None` for no limit.
    pub room: Option<u64>,
    pub read_only: bool,
    /// Bytes that were synced and operations that synced.
    pub syncs: u64,
}

/// One folder of a shared disk.
#[derive(Clone, Debug)]
pub struct Memory {
    pub state: Rc<RefCell<State>>,
    folder: &'static str,
}

impl Memory {
    /// Two folders of a disk with these files.
    pub fn pair(files: Files) -> [Self; 2] {
        let state = Rc::new(RefCell::new(State { files, ..State::default() }));
        ["log/", "register/"].map(|folder| Self { state: Rc::clone(&state), folder })
    }

    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.folder)
    }

    fn apply(&self, op: Op) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        if state.read_only {
            return Err(ErrorKind::ReadOnlyFilesystem.into());
        }
        let mut op = op;
        let mut full = false;
        if let (Some(room), Op::Create(_, bytes) | Op::Write(_, _, bytes)) = (state.room, &mut op) {
            let fits = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
            full = fits < bytes.len();
            bytes.truncate(fits);
            state.room = Some(room - fits as u64);
        }
        carry_out(&mut state.files, &op);
        state.journal.push(op);
        if full { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

/// Carries an operation out.
pub fn carry_out(files: &mut Files, op: &Op) {
    match op {
        Op::Create(name, bytes) => drop(files.insert(name.clone(), bytes.clone())),
        Op::Write(name, at, bytes) => {
            // The file may not be there after a power cut.
            let Some(file) = files.get_mut(name) else { return };
            if bytes.is_empty() {
                return;
            }
            let end = *at as usize + bytes.len();
            if file.len() < end {
                file.resize(end, 0);
            }
            file[*at as usize..end].copy_from_slice(bytes);
        }
        Op::Cut(name, length) => {
            if let Some(file) = files.get_mut(name) {
                file.resize(*length as usize, 0);
            }
        }
        Op::Remove(name) => drop(files.remove(name)),
        Op::Sync(_) | Op::SyncFolder(_) => {}
    }
}

/// The files as a power cut after `done` operations and `bytes` bytes of the next one may
/// leave them. `survives` says which of the operations survive that were not synced.
pub fn after_power_cut(
    before: &Files,
    journal: &[Op],
    done: usize,
    bytes: usize,
    mut survives: impl FnMut(usize) -> bool,
) -> Files {
    let synced = |at: usize, op: &Op| {
        let later = &journal[at + 1..done];
        match op {
            // The content with the file, the name with the folder.
            Op::Create(name, _) => later.iter().any(|later| {
                matches!(later, Op::SyncFolder(folder) if name.starts_with(folder.as_str()))
            }),
            Op::Remove(name) => later.iter().any(|later| {
                matches!(later, Op::SyncFolder(folder) if name.starts_with(folder.as_str()))
            }),
            Op::Write(name, ..) | Op::Cut(name, _) => {
                later.iter().any(|later| matches!(later, Op::Sync(synced) if synced == name))
            }
            Op::Sync(_) | Op::SyncFolder(_) => true,
        }
    };
    let mut files = before.clone();
    for (at, op) in journal.iter().enumerate().take(done) {
        if synced(at, op) || survives(at) {
            let content = match op {
                // A name without its content.
                Op::Create(name, _)
                    if !journal[at + 1..done]
                        .iter()
                        .any(|later| matches!(later, Op::Sync(synced) if synced == name))
                        && !survives(at) =>
                {
                    &Op::Create(name.clone(), Vec::new())
                }
                op => op,
            };
            carry_out(&mut files, content);
        }
    }
    if survives(done) {
        match journal.get(done) {
            Some(Op::Create(name, all)) => {
                carry_out(&mut files, &Op::Create(name.clone(), all[..bytes].to_vec()));
            }
            Some(Op::Write(name, at, all)) => {
                carry_out(&mut files, &Op::Write(name.clone(), *at, all[..bytes].to_vec()));
            }
            _ => {}
        }
    }
    files
}

/// Bytes of an operation.
pub fn length(op: &Op) -> usize {
    match op {
        Op::Create(_, bytes) | Op::Write(_, _, bytes) => bytes.len(),
        _ => 0,
    }
}

impl Disk for Memory {
    type Lock = ();

    fn prepare(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self) -> io::Result<()> {
        Ok(())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let state = self.state.borrow();
        let names = state.files.keys().filter_map(|name| name.strip_prefix(self.folder));
        Ok(names.map(str::to_owned).collect())
    }

    fn length(&self, name: &str) -> io::Result<Option<u64>> {
        Ok(self.state.borrow().files.get(&self.name(name)).map(|file| file.len() as u64))
    }

    fn read(&self, name: &str, from: u64, most: u64) -> io::Result<Option<Vec<u8>>> {
        let state = self.state.borrow();
        let Some(file) = state.files.get(&self.name(name)) else { return Ok(None) };
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(file.len());
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(file.len() - from);
        Ok(Some(file[from..from + most].to_vec()))
    }

    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if self.length(name)?.is_some() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.apply(Op::Create(self.name(name), bytes.to_vec()))
    }

    fn write(&self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        if self.length(name)?.is_none() {
            return Err(ErrorKind::NotFound.into());
        }
        self.apply(Op::Write(self.name(name), at, bytes.to_vec()))
    }

    fn cut(&self, name: &str, length: u64) -> io::Result<()> {
        self.apply(Op::Cut(self.name(name), length))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if self.length(name)?.is_none() {
            return Err(ErrorKind::NotFound.into());
        }
        self.apply(Op::Remove(self.name(name)))
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.state.borrow_mut().syncs += 1;
        self.apply(Op::Sync(self.name(name)))
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.apply(Op::SyncFolder(self.folder.to_owned()))
    }

    fn shown(&self, name: &str) -> PathBuf {
        PathBuf::from(self.name(name))
    }
}
