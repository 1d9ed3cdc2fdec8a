//! EDGE: the socket for `facelatch-link`, the program that links this door to others. The
//! messages are those of the crate `facelatch_messages`.
//!
//! One thread serves one connection and waits for nobody. Events come from the audit log on
//! disk, from the number on that the link asks for, so that none is lost while the link is
//! away; the state comes from the shared [`Status`]. Orders need the leave of `[link]` and
//! take the way of orders from the control socket. Nothing that a link sends, or fails to
//! read, reaches the door otherwise or keeps it waiting: buffers, rates and times are
//! limited.

mod connection;
mod event;
mod feed;
mod state;
mod thread;
mod user;

use super::audit::Auditor;
use super::control::OrderQueue;
use super::pipeline::Pipeline;
use super::site::SiteEnds;
use super::socket::{OwnSocket, SocketError};
use super::status::Status;
use crate::config::{LinkConfig, LinkNames};
use crate::crypto::{PublicKey, Secret};
use crate::models::sha256_hex;
use crate::storage::audit::AuditPlace;
use event::{PeopleNames, Wording};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use thread::LinkThread;

/// Time for the first message, and for a link that does not read.
const PATIENCE: Duration = Duration::from_secs(5);
/// Stack size of the thread in bytes.
const STACK: usize = 256 << 10;

/// State of the link, for `facelatch status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkNow {
    /// Whether a link is connected.
    pub connected: bool,
    /// Seconds since it connected, or since it went; since the start if none has been there.
    pub since_s: u64,
    /// Its version.
    pub version: String,
    /// Number of the last event that it has taken; `None` if it has not said.
    pub taken: Option<u64>,
    /// Whether it reaches those whom it serves; `None` if it has not said.
    pub reaches: Option<bool>,
    /// What is wrong, and the cure; `None` if nothing is.
    pub fault: Option<String>,
    /// Connections that were closed because of what they sent or did not read.
    pub closed: u64,
    /// Orders that were refused.
    pub refused: u64,
}

/// The state with the time of its last change.
#[derive(Debug)]
struct Shown {
    now: LinkNow,
    changed: Instant,
}

/// The state of the link, shared by its thread and the status.
#[derive(Clone, Debug)]
pub struct LinkState(Arc<Mutex<Shown>>);

impl LinkState {
    fn new() -> Self {
        let shown = Shown { now: LinkNow::default(), changed: Instant::now() };
        Self(Arc::new(Mutex::new(shown)))
    }

    fn change(&self, change: impl FnOnce(&mut LinkNow)) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let connected = shown.now.connected;
        change(&mut shown.now);
        if shown.now.connected != connected {
            shown.changed = Instant::now();
        }
    }

    /// The state now.
    pub fn now(&self) -> LinkNow {
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        LinkNow { since_s: shown.changed.elapsed().as_secs(), ..shown.now.clone() }
    }
}

/// What the link is given and may do.
pub struct LinkSettings {
    /// `[link]`.
    pub config: LinkConfig,
    /// Name of the door.
    pub door: String,
    /// The door's public key, which tells it from others.
    pub key: PublicKey,
    /// Key of pseudonyms.
    pub pseudonyms: Secret,
    /// The way of orders to the service.
    pub orders: OrderQueue,
    /// The status of the service.
    pub status: Arc<Mutex<Status>>,
    /// Where the audit log is.
    pub place: AuditPlace,
    /// Its state.
    pub auditor: Auditor,
    /// The site, if the door is in one.
    pub site: Option<SiteEnds>,
    /// Time for the first message, for a link that does not read, and for an order.
    pub patience: Duration,
}

impl LinkSettings {
    /// The patience of a door.
    pub const PATIENCE: Duration = PATIENCE;
}

/// The socket of the link, which closes when this is dropped.
pub struct Link {
    ended: Arc<AtomicBool>,
    state: LinkState,
    /// Names of people, if the link may hear them.
    people: Option<PeopleNames>,
    /// [`Pipeline::galleries`] of the names that are set.
    galleries: Option<u64>,
    socket: OwnSocket,
}

impl Link {
    /// Opens the socket and serves it. The folder and the rights are those of the control
    /// socket.
    ///
    /// # Errors
    /// If another service listens there, the path is another kind of file, or folder, lock
    /// or socket cannot be created.
    pub fn listen(path: &Path, settings: LinkSettings) -> Result<Self, SocketError> {
        let (socket, listener) = OwnSocket::listen(path)?;
        let (ended, state) = (Arc::<AtomicBool>::default(), LinkState::new());
        let people = PeopleNames::default();
        let named = settings.config.names == LinkNames::Name;
        let wording = Wording {
            names: settings.config.names,
            duress: settings.config.duress,
            key: settings.pseudonyms.clone(),
            people: Arc::clone(&people),
        };
        let thread = LinkThread::new(listener, settings, wording, state.clone());
        let told = Arc::clone(&ended);
        std::thread::Builder::new()
            .name("link".to_owned())
            .stack_size(STACK)
            .spawn(move || thread.run(&told))
            .map_err(|reason| SocketError::Path { path: path.to_owned(), reason })?;
        Ok(Self { ended, state, people: named.then_some(people), galleries: None, socket })
    }

    /// The state of the link.
    pub fn state(&self) -> LinkState {
        self.state.clone()
    }

    /// Between two frames: passes on what has changed. Never waits.
    pub fn visit(&mut self, pipeline: &Pipeline) {
        if let Some(people) = &self.people
            && self.galleries != Some(pipeline.galleries())
        {
            self.galleries = Some(pipeline.galleries());
            let named = pipeline.gallery().names();
            let named = named.map(|(person, name)| (person.0, name.to_owned())).collect();
            *people.lock().unwrap_or_else(PoisonError::into_inner) = named;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.socket.wake();
    }
}

/// Number that tells a door from all others, as 16 hexadecimal digits, by its key.
pub fn door_id(key: &PublicKey) -> String {
    let mut id = sha256_hex(key.to_string().as_bytes());
    id.truncate(16);
    id
}
