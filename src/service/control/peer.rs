//! EDGE: the user at the other end of a socket.

use rustix::net::sockopt::socket_peercred;
use std::os::unix::net::UnixStream;

/// The user at the other end of a socket, as when it connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// User id; `None` if the kernel does not report it.
    pub uid: Option<u32>,
    /// Primary group id.
    pub gid: Option<u32>,
}

impl Peer {
    /// The peer as the kernel reports it (`SO_PEERCRED`).
    pub fn of(stream: &UnixStream) -> Self {
        socket_peercred(stream).map_or_else(
            |_| Self::default(),
            |peer| Self { uid: Some(peer.uid.as_raw()), gid: Some(peer.gid.as_raw()) },
        )
    }
}
