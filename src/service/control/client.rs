//! EDGE: the other end of the socket.

use super::PATIENCE;
use super::protocol::{Reply, Request};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Longest reply that is read, bytes.
const MAX_REPLY: u64 = 1 << 20;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// No service has this socket.
    #[error(
        "{path}: no service runs here; start one with facelatch run, or name its socket with --socket"
    )]
    Nobody {
        /// Which socket.
        path: PathBuf,
    },
    /// One does, but not for this user.
    #[error("{path}: this user may not; become root, or join the group that owns the socket")]
    Denied {
        /// Which socket.
        path: PathBuf,
    },
    /// Something else.
    #[error("{path}: {reason}; see the service's log")]
    Socket {
        /// Which socket.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// What was answered makes no sense.
    #[error("{path}: {reason}; is the service another version than this program?")]
    Answer {
        /// Which socket.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Asks the service that has this socket, and waits for its answer.
pub fn ask(path: &Path, request: &Request) -> Result<Reply, AskError> {
    let failed = |reason: io::Error| {
        let path = path.to_owned();
        match reason.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => AskError::Nobody { path },
            ErrorKind::PermissionDenied => AskError::Denied { path },
            ErrorKind::WouldBlock => {
                let reason = io::Error::new(ErrorKind::TimedOut, "no answer in time");
                AskError::Socket { path, reason }
            }
            _ => AskError::Socket { path, reason },
        }
    };
    let mut stream = UnixStream::connect(path).map_err(failed)?;
    // Longer than the service takes for its own limits.
    stream.set_read_timeout(Some(PATIENCE * 3)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    // One too many in the service's view is told so before it is heard.
    let sent = stream.write_all(request.line().as_bytes());
    let sent = sent.and_then(|()| stream.shutdown(std::net::Shutdown::Write));
    let mut answer = Vec::new();
    match ((&stream).take(MAX_REPLY).read_to_end(&mut answer), sent) {
        (Err(error), Ok(())) if answer.is_empty() => return Err(failed(error)),
        (_, Err(error)) if answer.is_empty() => return Err(failed(error)),
        _ => {}
    }
    let answered = |reason: String| AskError::Answer { path: path.to_owned(), reason };
    if answer.is_empty() {
        return Err(answered("the service hung up without an answer".to_owned()));
    }
    serde_json::from_slice(&answer).map_err(|error| answered(error.to_string()))
}
