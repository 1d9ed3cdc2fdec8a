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
    /// Process id.
    pub pid: Option<i32>,
}

impl Peer {
    /// The peer as the kernel reports it (`SO_PEERCRED`).
    pub fn of(stream: &UnixStream) -> Self {
        socket_peercred(stream).map_or_else(
            |_| Self::default(),
            |peer| Self {
                uid: Some(peer.uid.as_raw()),
                gid: Some(peer.gid.as_raw()),
                pid: Some(peer.pid.as_raw_nonzero().get()),
            },
        )
    }

    /// User id of the login from which the client was started: with sudo, that of the user
    /// who called it. The kernel keeps it, and only root can set it, once. `None` if there was
    /// no login, as for a service, or this process may not see it.
    pub fn login(self) -> Option<u32> {
        login_of(&self.pid?.to_string())
    }
}

/// User id of the login from which a process was started; `self` is this one.
pub fn login_of(process: &str) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{process}/loginuid")).ok()?;
    text.trim().parse().ok().filter(|login| *login != u32::MAX)
}
