//! EDGE: a socket of the service: made in its folder, locked beside it, and removed at the
//! end.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// Attempts to take the lock, and the time between two.
const LOCK_TRIES: usize = 25;
const BETWEEN_LOCK_TRIES: Duration = Duration::from_millis(20);

/// Errors of opening the socket.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Another service or program listens on the socket.
    #[error(
        "{path}: another service has this socket; stop it first, or give this one another \
         socket"
    )]
    Taken {
        /// Path of the socket.
        path: PathBuf,
    },
    /// The lock file belongs to another user.
    #[error(
        "{lock}: belongs to another user, whose service may be running; stop that service, or \
             remove this file if none runs"
    )]
    Foreign {
        /// Path of the lock file.
        lock: PathBuf,
    },
    /// The path is a file of another kind.
    #[error("{path}: not a socket; remove it or name another path")]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// Folder, lock or socket cannot be created.
    #[error("{path}: {reason}; name a socket in a folder that this user may write to")]
    Path {
        /// The path.
        path: PathBuf,
        /// The system's error.
        reason: io::Error,
    },
}

/// A socket that belongs to this process until it is dropped.
#[derive(Debug)]
pub(super) struct OwnSocket {
    path: PathBuf,
    /// Held while the socket is ours; the system releases it when the process ends.
    lock: File,
}

impl OwnSocket {
    /// Makes the socket, non-blocking. Replaces the socket of a service that was killed, but
    /// not of one that runs. Creates the folder if needed, for this user and its group
    /// (0750); the socket is for the same two (0660).
    ///
    /// # Errors
    /// If another service or program listens there, the path is another kind of file, or
    /// folder, lock or socket cannot be created.
    pub fn listen(path: &Path) -> Result<(Self, UnixListener), SocketError> {
        let failed = |reason| SocketError::Path { path: path.to_owned(), reason };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o750).create(folder).map_err(failed)?;
        }
        let lock = lock(path)?;
        let listener = bind(path)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok((Self { path: path.to_owned(), lock }, listener))
    }

    /// Wakes the thread that waits for clients.
    pub fn wake(&self) {
        let _ = UnixStream::connect(&self.path);
    }
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        // Unlocked last, and explicitly: a program that another thread is starting
        // inherits the open file until its exec.
        let _ = self.lock.unlock();
    }
}

/// Takes a lock beside the socket. Unlike the socket's name, a lock ends with its
/// process.
fn lock(path: &Path) -> Result<File, SocketError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let failed = |reason| SocketError::Path { path: PathBuf::from(&name), reason };
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(&name);
    let file = file.map_err(|reason| not_locked(Path::new(&name), reason))?;
    // A program started just before the lock was released may keep it until its exec, so
    // retry.
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(BETWEEN_LOCK_TRIES),
            Err(TryLockError::Error(reason)) => return Err(failed(reason)),
        }
    }
    Err(SocketError::Taken { path: path.to_owned() })
}

/// The error for a lock file that cannot be opened. If it exists and belongs to another
/// user, their service may run, and the two must not fight over the relay.
fn not_locked(lock: &Path, reason: io::Error) -> SocketError {
    if reason.kind() == ErrorKind::PermissionDenied && lock.exists() {
        return SocketError::Foreign { lock: lock.to_owned() };
    }
    SocketError::Path { path: lock.to_owned(), reason }
}

fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    let failed = |reason| SocketError::Path { path: path.to_owned(), reason };
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NoSocket { path: path.to_owned() });
        }
        // A program other than facelatch may listen there.
        Ok(_) if UnixStream::connect(path).is_ok() => {
            return Err(SocketError::Taken { path: path.to_owned() });
        }
        Ok(_) => std::fs::remove_file(path).map_err(failed)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(failed)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_a_starting_program_has_too_ends_with_the_service() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control.sock");
        let (socket, _listener) = OwnSocket::listen(&path).expect("a socket");
        let lent = socket.lock.try_clone().expect("a lock");
        drop(socket);
        let _again = OwnSocket::listen(&path).expect("a socket");
        drop(lent);
    }

    #[test]
    fn the_lock_of_another_user_is_another_service() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let lock = folder.path().join("socket.lock");
        let why = |kind: ErrorKind| not_locked(&lock, kind.into());
        let denied = ErrorKind::PermissionDenied;
        assert!(matches!(why(denied), SocketError::Path { .. }), "a folder that is not ours");
        std::fs::write(&lock, "").expect("written");
        assert!(matches!(why(denied), SocketError::Foreign { .. }));
        assert!(matches!(why(ErrorKind::StorageFull), SocketError::Path { .. }));
    }
}
