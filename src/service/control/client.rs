//! EDGE: the client side of the control socket.

use super::PATIENCE;
use super::protocol::{Reply, Request};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Longest reply accepted, in bytes.
const MAX_REPLY: u64 = 1 << 20;

/// Errors of a request to the service.
#[derive(Debug, Error)]
pub enum AskError {
    /// No service listens on this socket.
    #[error(
        "{path}: no service runs here; start one with facelatch run, or name its socket with --socket"
    )]
    Nobody {
        /// Path of the socket.
        path: PathBuf,
    },
    /// This user may not write to the socket.
    #[error("{path}: permission denied; become root, or join the group that owns the socket")]
    Denied {
        /// Path of the socket.
        path: PathBuf,
    },
    /// The exchange failed or timed out.
    #[error("{path}: {reason}; see the service's log")]
    Socket {
        /// Path of the socket.
        path: PathBuf,
        /// The system's error.
        reason: io::Error,
    },
    /// The reply is missing or cannot be parsed.
    #[error("{path}: {reason}; do the service and this program have the same version?")]
    Answer {
        /// Path of the socket.
        path: PathBuf,
        /// The fault of the reply.
        reason: String,
    },
}

/// Time for which a client that gets no place asks again, and the time between two tries.
const AGAIN_WITHIN: Duration = Duration::from_secs(5);
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// Sends a request to the service on this socket and waits up to 15 seconds for its
/// reply. While others take all places, it asks again for up to five seconds.
///
/// # Errors
/// If no service listens, this user has no permission, or the reply is late or invalid.
pub fn ask(path: &Path, request: &Request) -> Result<Reply, AskError> {
    let until = Instant::now() + AGAIN_WITHIN;
    loop {
        let reply = ask_once(path, request)?;
        if !reply.again || Instant::now() >= until {
            return Ok(reply);
        }
        std::thread::sleep(BETWEEN_TRIES);
    }
}

fn ask_once(path: &Path, request: &Request) -> Result<Reply, AskError> {
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
    // Longer than the service's own timeouts.
    stream.set_read_timeout(Some(PATIENCE * 3)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    // A service with too many clients replies before it reads the request.
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
        return Err(answered("the service closed the connection without a reply".to_owned()));
    }
    // A service that needs the place may say so after the reply.
    let line = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
    serde_json::from_slice(line).map_err(|error| answered(error.to_string()))
}
