//! The door as a member of a site: people, rules and passages that doors share by way of the
//! link. `facelatch_site` decides what is believed; the thread here carries out what follows.
//!
//! ```text
//!   link thread --Record, Reach--> site thread --SiteChange--> gallery file
//!        <--Publish, Subscribe--       |   ^--- local changes of the gallery
//!                                      +--> state for pipeline and status, passages
//! ```

mod carry;
mod lease;
mod local;
mod models;
mod rules;
mod thread;

pub use models::ModelPlace;
pub use rules::SiteRules;

use super::audit::Auditor;
use super::control::Begun;
use crate::access::SitePeople;
use crate::access::door::Role;
use crate::access::gallery::PersonId;
use crate::config::LeaseEnd;
use crate::crypto::{PublicKey, Secret};
use crate::storage::gallery::Register;
use crate::storage::site::SiteStoreError;
use facelatch_messages::{FromDoor, SiteState};
use facelatch_site::Code;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use thiserror::Error;
use thread::SiteThread;

/// Inputs that wait for the thread.
const WAITING: usize = 64;
/// Messages that wait for the link; while there are more, nothing is taken in.
const MOST_OUT: usize = 256;
/// Passages at other doors that wait for the door.
const MOST_PASSAGES: usize = 64;

/// Why a door cannot be in a site.
#[derive(Debug, Error)]
pub enum SiteError {
    /// What it keeps cannot be read.
    #[error(transparent)]
    Store(#[from] SiteStoreError),
    /// The thread cannot be started.
    #[error("cannot start the thread of the site: {0}")]
    Thread(std::io::Error),
}

/// An order about the site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SiteOrder {
    /// Ask to be admitted, with the code that the office gave.
    Join(Code),
    /// Say how the door stands with its site.
    Show,
    /// Leave the site; its people become people of this door alone.
    Leave,
}

/// State of the site, for `facelatch status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SiteNow {
    /// The site, as in topics.
    pub site: String,
    /// The door, as in topics.
    pub door: String,
    /// Fingerprint of the door's key at the site.
    pub fingerprint: String,
    /// Name that the site gave the door; `None` if it is not admitted.
    pub name: Option<String>,
    /// Groups whose people the door knows.
    pub groups: Vec<String>,
    /// Whether changes here become changes of the site.
    pub writes: bool,
    /// People of the site that the door knows.
    pub people: u32,
    /// Records that the door lacks.
    pub missing: u32,
    /// Number of the newest manifest.
    pub manifest: u64,
    /// Seconds until the lease ends, below 0 if it has; `None` if there was none yet.
    pub lease_s: Option<i64>,
    /// Records that were refused since the start.
    pub refused: u64,
    /// A set of models that the site offers and that is not in use yet, and how far it is.
    pub models: Option<String>,
    /// What is wrong, and the cure.
    pub fault: Option<String>,
}

/// What others see of the thread.
#[derive(Debug, Default)]
struct Shared {
    now: SiteNow,
    people: SitePeople,
    out: VecDeque<FromDoor>,
    passages: VecDeque<Passage>,
    /// Version of the set of models in use.
    models: String,
}

/// Somebody went through another door of the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Number of the person in this gallery.
    pub person: PersonId,
    /// Into the area or out of it.
    pub role: Role,
    /// How long ago.
    pub ago: Duration,
}

/// What the thread takes in.
enum Input {
    /// A record of the site.
    Record { id: u64, topic: String, bytes: Vec<u8> },
    /// Whether the broker is reached, and everything was fetched.
    Reach { good: bool, fetched: bool },
    /// Somebody passed here.
    Passed(PersonId, Role),
    /// An order of the control socket.
    Order(SiteOrder, Begun),
    /// A request to join that nobody waits for.
    Join(Code),
    /// Look at the gallery and the clock now.
    Look,
}

/// What a member needs.
pub struct SiteSettings {
    /// The site's key.
    pub key: PublicKey,
    /// Secret from which the door's own keys follow.
    pub secret: Secret,
    /// Name of the door.
    pub door: String,
    /// What holds after the lease.
    pub on_lease_end: LeaseEnd,
    /// The gallery.
    pub gallery: PathBuf,
    /// Where galleries are remembered.
    pub register: Option<Register>,
    /// Version of the set of models in use.
    pub models: String,
    /// Where sets of models that the site offers are installed; `None` if the models are from
    /// a folder that was named.
    pub place: Option<ModelPlace>,
    /// Where the rules of the site go.
    pub rules: Arc<SiteRules>,
    /// Where changes of people are logged.
    pub auditor: Auditor,
}

/// The door's end of the thread, which ends when this is dropped.
pub struct Site {
    ends: SiteEnds,
    ended: Arc<AtomicBool>,
}

/// The ends that threads share.
#[derive(Clone)]
pub struct SiteEnds {
    /// The site, as in topics.
    site: String,
    inputs: SyncSender<Input>,
    shared: Arc<Mutex<Shared>>,
}

impl Site {
    /// Opens what is kept of the site and starts the thread.
    ///
    /// # Errors
    /// If the file cannot be opened or the thread cannot be started.
    pub fn start(settings: SiteSettings) -> Result<Self, SiteError> {
        let (inputs, taken): (_, Receiver<Input>) = sync_channel(WAITING);
        let shared = Arc::<Mutex<Shared>>::default();
        let mut thread = SiteThread::open(settings, Arc::clone(&shared))?;
        let site = thread.site();
        let ended = Arc::<AtomicBool>::default();
        let told = Arc::clone(&ended);
        let thread = move || thread.run(&taken, &told);
        std::thread::Builder::new()
            .name("site".to_owned())
            .spawn(thread)
            .map_err(SiteError::Thread)?;
        Ok(Self { ends: SiteEnds { site, inputs, shared }, ended })
    }

    /// The ends for other threads.
    pub fn ends(&self) -> SiteEnds {
        self.ends.clone()
    }

    /// Passes an order on, which the thread answers.
    pub fn order(&self, order: SiteOrder, begun: Begun) {
        if let Err(TrySendError::Full(Input::Order(_, begun))) =
            self.ends.inputs.try_send(Input::Order(order, begun))
        {
            begun.answer(Err("the site is busy; try again".to_owned()));
        }
    }

    /// Asks the site to admit this door; repeated until it is or the code is no longer good.
    pub fn join(&self, code: Code) {
        let _ = self.ends.inputs.try_send(Input::Join(code));
    }

    /// Tells the site that somebody passed here. Never waits; without room the passage is
    /// lost.
    pub fn passed(&self, person: PersonId, role: Role) {
        let _ = self.ends.inputs.try_send(Input::Passed(person, role));
    }

    /// Has the thread look at the gallery now.
    pub fn look(&self) {
        let _ = self.ends.inputs.try_send(Input::Look);
    }

    /// Says which version of the models is in use.
    pub fn set_models(&self, version: &str) {
        self.ends.locked(|shared| {
            if shared.models != version {
                version.clone_into(&mut shared.models);
            }
        });
    }

    /// Whom of the site the door lets in now.
    pub fn people(&self) -> SitePeople {
        self.ends.locked(|shared| shared.people)
    }

    /// Passages at other doors since the last call.
    pub fn passages(&self) -> Vec<Passage> {
        self.ends.locked(|shared| shared.passages.drain(..).collect())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.look();
    }
}

impl SiteEnds {
    fn locked<T>(&self, with: impl FnOnce(&mut Shared) -> T) -> T {
        with(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The site, as in topics.
    pub fn site(&self) -> &str {
        &self.site
    }

    /// State of the site.
    pub fn now(&self) -> SiteNow {
        self.locked(|shared| shared.now.clone())
    }

    /// The state as the link hears it.
    pub(super) fn state(&self) -> SiteState {
        let now = self.now();
        SiteState {
            manifest: now.manifest,
            missing: now.missing,
            // To the minute, so that it is another state once a minute alone.
            lease_s: now.lease_s.map_or(-1, |lease| lease - lease.rem_euclid(60)),
            fault: now.fault,
        }
    }

    /// Passes a record on; false if the thread is busy, and the record is to be shown again.
    pub(super) fn record(&self, id: u64, topic: &str, bytes: &[u8]) -> bool {
        let (topic, bytes) = (topic.to_owned(), bytes.to_vec());
        !matches!(
            self.inputs.try_send(Input::Record { id, topic, bytes }),
            Err(TrySendError::Full(_))
        )
    }

    /// Whether the site is reached by the link; false if the thread is busy.
    pub(super) fn reach(&self, good: bool, fetched: bool) -> bool {
        let sent = self.inputs.try_send(Input::Reach { good, fetched });
        !matches!(sent, Err(TrySendError::Full(_)))
    }

    /// The link is gone: what waits for it is out of date.
    pub(super) fn clear(&self) {
        self.locked(|shared| shared.out.clear());
    }

    /// The next message for the link.
    pub(super) fn next(&self) -> Option<FromDoor> {
        self.locked(|shared| shared.out.pop_front())
    }
}

/// Milliseconds since 1970 by the wall clock.
fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A request to join that is repeated until it is answered.
struct Joining {
    code: Code,
    until: Instant,
    next: Instant,
}
