//! EDGE: which role a user has, by the configuration and the system's lists of users and
//! groups, and which role a request needs.
//!
//! | Role | Allows |
//! |---|---|
//! | `read` | `status` |
//! | `order` | `status`, `open`, `lockdown`, `normal`, `always-open` |
//! | `administrator` | all of `read` and `order`, `reload`, `local-reset`, `trust-clock`, `accept-camera`, `site-join`, `site-show`, `site-leave` |
//!
//! Root and the service's own user are administrators.

use super::peer::Peer;
use super::protocol::{Command, Request};
use crate::config::{EVERYBODY, RolesConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// User of the program that links this door to others.
const LINK: &str = "facelatch-link";
/// Longer lists of users or groups are cut. Bytes.
const MAX_LIST: u64 = 1 << 20;
/// Age at which the lists are read again, so that a user who left a group loses its roles,
/// and a flood of connections reads them seldom.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// A role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// May query the status.
    Read,
    /// May open the door and change its mode.
    Order,
    /// May reload the configuration and begin a local reset.
    Administrator,
}

impl Role {
    /// The role that a request needs.
    pub fn needed(request: &Request) -> Self {
        match request {
            Request::Status => Self::Read,
            Request::Order(Command::Door(_)) => Self::Order,
            Request::Order(
                Command::LocalReset
                | Command::TrustClock
                | Command::AcceptCamera
                | Command::Reload
                | Command::Site(_),
            ) => Self::Administrator,
        }
    }
}

impl Role {
    /// The word for it, as in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Order => "order",
            Self::Administrator => "administrator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whose connections compete with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Root.
    Root,
    /// The service's own user, and administrators by the configuration.
    Administrator,
    /// The program that links this door to others.
    Link,
    /// Everybody else.
    Other,
}

/// Users and groups of one role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Members {
    everybody: bool,
    users: BTreeSet<u32>,
    groups: BTreeSet<u32>,
}

impl Members {
    fn has(&self, peer: Peer) -> bool {
        self.everybody
            || peer.uid.is_some_and(|uid| self.users.contains(&uid))
            || peer.gid.is_some_and(|gid| self.groups.contains(&gid))
    }
}

/// The system's lists of users and groups.
struct Directory {
    /// User id and primary group id by name.
    users: BTreeMap<String, (u32, u32)>,
    /// Group id and names of members by name.
    groups: BTreeMap<String, (u32, Vec<String>)>,
}

impl Directory {
    /// Reads the lists `passwd` and `group` in the folder; what is missing or malformed is
    /// skipped.
    fn read(folder: &std::path::Path) -> Self {
        let text = |name: &str| {
            let mut bytes = Vec::new();
            // An unreadable list names nobody, so that nobody gets a role from it.
            let _ = File::open(folder.join(name))
                .and_then(|file| file.take(MAX_LIST).read_to_end(&mut bytes));
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Self::parse(&text("passwd"), &text("group"))
    }

    fn parse(passwd: &str, group: &str) -> Self {
        let user = |line: &str| {
            let mut fields = line.split(':');
            let (name, _, uid, gid) =
                (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            Some((name.to_owned(), (uid.parse().ok()?, gid.parse().ok()?)))
        };
        let one = |line: &str| {
            let mut fields = line.split(':');
            let (name, _, gid, members) =
                (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            let members = members.split(',').filter(|name| !name.is_empty());
            Some((name.to_owned(), (gid.parse().ok()?, members.map(str::to_owned).collect())))
        };
        Self {
            users: passwd.lines().filter_map(user).collect(),
            groups: group.lines().filter_map(one).collect(),
        }
    }

    /// Adds the users and groups of an entry; false if it names none.
    fn add(&self, entry: &str, members: &mut Members) -> bool {
        if entry == EVERYBODY {
            members.everybody = true;
            return true;
        }
        let Some(name) = entry.strip_prefix('@') else {
            let uid = self.users.get(entry).map(|(uid, _)| *uid).or_else(|| entry.parse().ok());
            members.users.extend(uid);
            return uid.is_some();
        };
        let group = self.groups.get(name).or_else(|| {
            let number: u32 = name.parse().ok()?;
            self.groups.values().find(|(gid, _)| *gid == number)
        });
        let gid = group.map(|(gid, _)| *gid).or_else(|| name.parse().ok());
        let Some(gid) = gid else { return false };
        members.groups.insert(gid);
        let named = group.into_iter().flat_map(|(_, names)| names);
        members.users.extend(named.filter_map(|name| self.users.get(name)).map(|(uid, _)| *uid));
        let primary = self.users.values().filter(|(_, primary)| *primary == gid);
        members.users.extend(primary.map(|(uid, _)| *uid));
        true
    }
}

/// The members of all roles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Resolved {
    read: Members,
    order: Members,
    administrator: Members,
    link: Option<u32>,
}

impl Resolved {
    fn of(config: &RolesConfig, directory: &Directory) -> Self {
        let members = |entries: &[String]| {
            let mut members = Members::default();
            for entry in entries {
                // An unknown name was reported at the start.
                directory.add(entry, &mut members);
            }
            members
        };
        Self {
            read: members(&config.read),
            order: members(&config.order),
            administrator: members(&config.administrator),
            link: directory.users.get(LINK).map(|(uid, _)| *uid),
        }
    }
}

/// The roles of all users.
#[derive(Debug)]
pub(super) struct Roles {
    config: RolesConfig,
    folder: PathBuf,
    /// The service's own user.
    own: u32,
    resolved: Resolved,
    read: Instant,
}

impl Roles {
    /// The roles by this configuration and the lists in `/etc`.
    pub fn new(config: RolesConfig, now: Instant) -> Self {
        let folder = PathBuf::from("/etc");
        let resolved = Resolved::of(&config, &Directory::read(&folder));
        let own = rustix::process::geteuid().as_raw();
        Self { config, folder, own, resolved, read: now }
    }

    /// Reads the lists again if they are old.
    pub fn refresh(&mut self, now: Instant) {
        if now.saturating_duration_since(self.read) >= READ_AGAIN_AFTER {
            self.resolved = Resolved::of(&self.config, &Directory::read(&self.folder));
            self.read = now;
        }
    }

    /// Whether the peer has a role, or one that includes it.
    pub fn allow(&self, peer: Peer, role: Role) -> bool {
        let administrator =
            self.is_own(peer) || peer.uid == Some(0) || self.resolved.administrator.has(peer);
        let order = self.resolved.order.has(peer);
        match role {
            Role::Read => administrator || order || self.resolved.read.has(peer),
            Role::Order => administrator || order,
            Role::Administrator => administrator,
        }
    }

    /// With whose connections those of the peer compete.
    pub fn class(&self, peer: Peer) -> Class {
        if peer.uid == Some(0) {
            Class::Root
        } else if peer.uid.is_some() && peer.uid == self.resolved.link {
            Class::Link
        } else if self.is_own(peer)
            || (!self.resolved.administrator.everybody && self.resolved.administrator.has(peer))
        {
            Class::Administrator
        } else {
            Class::Other
        }
    }

    fn is_own(&self, peer: Peer) -> bool {
        peer.uid == Some(self.own)
    }
}

/// User id of a user by name or number; `None` if the system knows none of this name.
pub(in crate::service) fn user_id(name: &str) -> Option<u32> {
    let directory = Directory::read(std::path::Path::new("/etc"));
    directory.users.get(name).map(|(uid, _)| *uid).or_else(|| name.parse().ok())
}

/// Entries of the configuration that name no user or group of this system, with their keys.
pub fn unknown_names(config: &RolesConfig) -> Vec<(&'static str, String)> {
    unknown_in(config, &Directory::read(std::path::Path::new("/etc")))
}

fn unknown_in(config: &RolesConfig, directory: &Directory) -> Vec<(&'static str, String)> {
    let unknown = |entry: &&String| !directory.add(entry, &mut Members::default());
    let lists = config.lists();
    lists
        .iter()
        .flat_map(|(key, list)| list.iter().filter(unknown).map(|entry| (*key, entry.clone())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::door;
    use crate::service::site::SiteOrder;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nfacelatch:x:990:990::/var:/bin/false\n\
                          facelatch-link:x:991:991::/:/bin/false\nada:x:1000:1000:,,,:/:/bin/sh\n\
                          grace:x:1001:50::/:/bin/sh\nbroken\nbad:x:minus:0::/:\n";
    const GROUP: &str = "root:x:0:\nfacelatch:x:990:ada,nobody-known\nstaff:x:50:ada\nodd:x\n";

    fn roles(config: RolesConfig) -> Roles {
        let resolved = Resolved::of(&config, &Directory::parse(PASSWD, GROUP));
        Roles { config, folder: "/no/such/folder".into(), own: 990, resolved, read: Instant::now() }
    }

    fn peer(uid: u32, gid: u32) -> Peer {
        Peer { uid: Some(uid), gid: Some(gid), pid: None }
    }

    fn list(entries: &[&str]) -> Vec<String> {
        entries.iter().map(|entry| (*entry).to_owned()).collect()
    }

    const ALL: [Role; 3] = [Role::Read, Role::Order, Role::Administrator];

    #[test]
    fn by_default_members_of_the_group_read() {
        let roles = roles(RolesConfig::default());
        let allowed = |peer: Peer| ALL.map(|role| roles.allow(peer, role));
        assert_eq!(allowed(peer(0, 0)), [true, true, true], "root");
        assert_eq!(allowed(peer(990, 990)), [true, true, true], "the service");
        assert_eq!(allowed(peer(1000, 1000)), [true, false, false], "a member");
        assert_eq!(allowed(peer(991, 991)), [true, false, false], "the link");
        assert_eq!(allowed(Peer::default()), [true, false, false], "unknown");
    }

    #[test]
    fn users_and_groups_have_the_roles_that_name_them() {
        let roles = roles(RolesConfig {
            read: list(&["grace"]),
            order: list(&["@staff"]),
            administrator: list(&["1234", "@77"]),
        });
        let allowed = |uid, gid| ALL.map(|role| roles.allow(peer(uid, gid), role));
        assert_eq!(allowed(1000, 1000), [true, true, false], "ada, of two groups");
        assert_eq!(allowed(1001, 1001), [true, true, false], "staff is grace's own group");
        assert_eq!(allowed(1002, 50), [true, true, false], "by the group it runs with");
        assert_eq!(allowed(1234, 1), [true, true, true], "a number without a name");
        assert_eq!(allowed(1003, 77), [true, true, true], "a group without a name");
        assert_eq!(allowed(1003, 1003), [false; 3], "nobody");
        assert_eq!(allowed(990, 990), [true, true, true]);
    }

    #[test]
    fn root_the_link_and_administrators_have_places_of_their_own() {
        let roles = roles(RolesConfig {
            administrator: list(&["ada"]),
            order: list(&["*"]),
            ..RolesConfig::default()
        });
        assert_eq!(roles.class(peer(0, 0)), Class::Root);
        assert_eq!(roles.class(peer(990, 990)), Class::Administrator);
        assert_eq!(roles.class(peer(1000, 1000)), Class::Administrator);
        assert_eq!(roles.class(peer(991, 991)), Class::Link);
        assert_eq!(roles.class(peer(1001, 50)), Class::Other);
        assert_eq!(roles.class(Peer::default()), Class::Other);
    }

    #[test]
    fn lists_that_are_gone_give_nobody_a_role() {
        let mut roles =
            roles(RolesConfig { order: list(&["ada", "1001"]), ..RolesConfig::default() });
        assert!(roles.allow(peer(1000, 1000), Role::Order));
        roles.refresh(roles.read + READ_AGAIN_AFTER);
        assert!(!roles.allow(peer(1000, 1000), Role::Order));
        assert!(roles.allow(peer(1001, 1001), Role::Order), "a number needs no list");
        assert!(roles.allow(peer(0, 0), Role::Order));
    }

    #[test]
    fn names_that_the_system_does_not_know_are_found() {
        let config = RolesConfig {
            order: list(&["ada", "eve", "@staff", "@nobodies", "12", "*"]),
            ..RolesConfig::default()
        };
        let unknown = unknown_in(&config, &Directory::parse(PASSWD, GROUP));
        assert_eq!(
            unknown,
            [("roles.order", "eve".to_owned()), ("roles.order", "@nobodies".to_owned())]
        );
    }

    #[test]
    fn each_request_needs_the_least_role_that_covers_it() {
        let order = |command| Role::needed(&Request::Order(command));
        assert_eq!(Role::needed(&Request::Status), Role::Read);
        for command in [
            door::Command::Open,
            door::Command::Lockdown,
            door::Command::AlwaysOpen,
            door::Command::Normal,
        ] {
            assert_eq!(order(Command::Door(command)), Role::Order);
        }
        assert_eq!(order(Command::Reload), Role::Administrator);
        assert_eq!(order(Command::LocalReset), Role::Administrator);
        assert_eq!(order(Command::TrustClock), Role::Administrator);
        assert_eq!(order(Command::AcceptCamera), Role::Administrator);
        assert_eq!(order(Command::Site(SiteOrder::Leave)), Role::Administrator);
    }
}
