//! EDGE: whether a user is served at the socket of the link.

use crate::service::control::{Peer, user_id};
use std::time::{Duration, Instant};

/// Age at which the system's list of users is read again.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The users who are served: the configured one, root, and the service's own.
#[derive(Debug)]
pub(super) struct Served {
    name: String,
    own: u32,
    found: Option<(Option<u32>, Instant)>,
}

impl Served {
    /// The user of this name or number, root, and the user of this process.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), own: rustix::process::geteuid().as_raw(), found: None }
    }

    /// Whether a peer is served.
    pub fn serves(&mut self, peer: Peer, now: Instant) -> bool {
        let Some(uid) = peer.uid else { return false };
        uid == 0 || uid == self.own || Some(uid) == self.uid(now)
    }

    /// User id of the configured user; `None` if the system does not know the name.
    pub fn uid(&mut self, now: Instant) -> Option<u32> {
        match self.found {
            Some((uid, read)) if now.saturating_duration_since(read) < READ_AGAIN_AFTER => uid,
            _ => {
                let uid = user_id(&self.name);
                self.found = Some((uid, now));
                uid
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_the_own_user_and_the_named_one_are_served_and_nobody_else() {
        let own = rustix::process::geteuid().as_raw();
        let peer = |uid| Peer { uid, ..Peer::default() };
        let (mut served, now) = (Served::new("4711"), Instant::now());
        for (uid, expected) in [(Some(0), true), (Some(own), true), (Some(4711), true)] {
            assert_eq!(served.serves(peer(uid), now), expected, "{uid:?}");
        }
        assert!(!served.serves(peer(Some(own + 4712)), now));
        assert!(!served.serves(peer(None), now), "whom the kernel does not name");
        let mut unknown = Served::new("no-such-user");
        assert_eq!(unknown.uid(now), None);
        assert!(!unknown.serves(peer(Some(4711)), now));
    }
}
