//! EDGE: who is at the other end of a socket, by the kernel.

use rustix::net::sockopt::socket_peercred;
use std::os::unix::net::UnixStream;

/// Their user id, where the kernel says (`SO_PEERCRED`).
pub fn uid(stream: &UnixStream) -> Option<u32> {
    socket_peercred(stream).ok().map(|peer| peer.uid.as_raw())
}
