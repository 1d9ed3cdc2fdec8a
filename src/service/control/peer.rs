//! EDGE: the user at the other end of a socket.

use rustix::net::sockopt::socket_peercred;
use std::os::unix::net::UnixStream;

/// User id of the peer, as the kernel reports it (`SO_PEERCRED`); `None` if it does not.
pub fn uid(stream: &UnixStream) -> Option<u32> {
    socket_peercred(stream).ok().map(|peer| peer.uid.as_raw())
}
