//! EDGE: sets of models that the office offers: fetched in parts, and installed as
//! `facelatch models install` would, by a thread of its own with the lowest priority. A set
//! must be signed by a key that this door trusts; what the office says does not replace that.

use super::carry::by_site;
use crate::access::event::plain;
use crate::audit::entry::Entry;
use crate::nn::Precision;
use crate::service::files::{ReadConfig, warn_of_lost};
use crate::storage::gallery::StoreError;
use crate::storage::models::{InstallOptions, ModelStore, ModelStoreError, OfferedSet, Told};
use facelatch_site::{Effect, LARGEST_MODEL_PART, Member, Models};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

/// Most parts that are asked for at once: 3 MiB.
const AT_ONCE: usize = 32;
/// Time without a part after which the parts are asked for again; it doubles up to the second.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(3600));
/// Time after which a set that was refused is tried again: a key may have been added.
const TRY_AGAIN: Duration = Duration::from_secs(3600);
/// The same while another process has the gallery or the store.
const BUSY: Duration = Duration::from_secs(30);

/// Where sets are installed.
pub struct ModelPlace {
    /// The store.
    pub store: ModelStore,
    /// Reads the configuration, which has the trusted keys.
    pub read_config: ReadConfig,
    /// Arithmetic of the networks.
    pub precision: Precision,
}

/// The set that is offered, on its way.
pub(super) struct Delivery {
    /// `None` if the models are from a folder that was named.
    place: Option<ModelPlace>,
    /// Digest of the file that was installed last.
    installed: Option<[u8; 32]>,
    stage: Stage,
}

enum Stage {
    Nothing,
    /// The file cannot be written.
    Waiting {
        until: Instant,
        fault: String,
    },
    Fetching {
        set: OfferedSet,
        version: String,
        asked: Option<Asked>,
    },
    Installing {
        version: String,
        digest: [u8; 32],
        done: Receiver<(OfferedSet, Result<Entry, Failure>)>,
    },
    Refused {
        set: OfferedSet,
        version: String,
        until: Instant,
        fault: String,
    },
}

/// What was asked for last.
struct Asked {
    /// When, or when a part came last.
    at: Instant,
    /// How long to wait.
    wait: Duration,
    /// Number of its parts that have not come.
    left: usize,
}

/// Why a set was not installed.
struct Failure {
    reason: String,
    /// Another process has the gallery or the store.
    busy: bool,
}

/// What follows from a look at the delivery.
#[derive(Default)]
pub(super) struct Step {
    /// To be carried out.
    pub effects: Vec<Effect>,
    /// Digest of the file that was installed, to be kept.
    pub installed: Option<[u8; 32]>,
    /// For the audit log.
    pub entry: Option<Entry>,
}

impl Delivery {
    pub fn new(place: Option<ModelPlace>, installed: Option<[u8; 32]>) -> Self {
        let left = place.as_ref().map(|place| OfferedSet::discard(&place.store));
        if let Some(Err(error)) = left {
            log::warn!("site: {error}");
        }
        Self { place, installed, stage: Stage::Nothing }
    }

    /// Forgets what is under way. An installation that has begun goes on.
    pub fn forget(&mut self) {
        (self.installed, self.stage) = (None, Stage::Nothing);
    }

    /// The site is reached again: what was asked for before will not come.
    pub fn connected(&mut self) {
        if let Stage::Fetching { asked, .. } = &mut self.stage {
            *asked = None;
        }
    }

    /// A part has come.
    pub fn part(&mut self, digest: [u8; 32], number: u16, bytes: &[u8]) {
        let Stage::Fetching { set, asked, .. } = &mut self.stage else { return };
        if set.digest() != digest {
            return;
        }
        let before = set.missing().count();
        if let Err(error) = set.put(usize::from(number), bytes) {
            self.wait(error.to_string());
            return;
        }
        if let Some(asked) = asked
            && set.missing().count() < before
        {
            *asked =
                Asked { at: Instant::now(), wait: ASK_AGAIN.0, left: asked.left.saturating_sub(1) };
        }
    }

    fn wait(&mut self, fault: String) {
        log::error!("site: the set of models that the site offers: {}", plain(&fault));
        self.stage = Stage::Waiting { until: Instant::now() + TRY_AGAIN, fault };
    }

    /// Takes the next step. Called about once per second.
    pub fn step(&mut self, member: &mut Member, connected: bool) -> Step {
        let mut step = Step::default();
        let Some(place) = &self.place else { return step };
        let offered = member.certificate().and(member.models()).cloned();
        let wanted = offered.filter(|models| Some(models.digest) != self.installed);
        let now = Instant::now();
        match std::mem::replace(&mut self.stage, Stage::Nothing) {
            Stage::Installing { version, digest, done } => match done.try_recv() {
                Err(TryRecvError::Empty) => {
                    self.stage = Stage::Installing { version, digest, done };
                }
                Ok((_, Ok(entry))) => {
                    log::info!("site: models {} installed", plain(&version));
                    self.installed = Some(digest);
                    (step.installed, step.entry) = (Some(digest), Some(entry));
                }
                Ok((set, Err(Failure { reason, busy }))) => {
                    let wait = if busy { BUSY } else { TRY_AGAIN };
                    let fault = reason;
                    if !busy {
                        log::error!("site: models {} not installed: {fault}", plain(&version));
                    }
                    self.stage = Stage::Refused { set, version, until: now + wait, fault };
                }
                Err(TryRecvError::Disconnected) => {
                    self.wait("its installation ended unexpectedly; see the log".to_owned());
                }
            },
            Stage::Refused { set, version, until, fault } if is_of(&set, wanted.as_ref()) => {
                self.stage = if now >= until {
                    install(place, set, version)
                } else {
                    Stage::Refused { set, version, until, fault }
                };
            }
            Stage::Fetching { mut set, version, mut asked } if is_of(&set, wanted.as_ref()) => {
                if set.missing().next().is_none() {
                    self.stage = match set.is_intact() {
                        Ok(true) => install(place, set, version),
                        // Its parts were of two files; again.
                        Ok(false) => Stage::Fetching { set, version, asked: None },
                        Err(error) => return self.waiting(error.to_string(), step),
                    };
                    return step;
                }
                let due = asked.as_ref().is_none_or(|asked| {
                    asked.left == 0 || now.saturating_duration_since(asked.at) >= asked.wait
                });
                if connected && due {
                    let parts: Vec<u16> = set
                        .missing()
                        .take(AT_ONCE)
                        .filter_map(|part| part.try_into().ok())
                        .collect();
                    let wait = match &asked {
                        Some(asked) if asked.left > 0 => (2 * asked.wait).min(ASK_AGAIN.1),
                        _ => ASK_AGAIN.0,
                    };
                    asked = Some(Asked { at: now, wait, left: parts.len() });
                    step.effects.extend(member.fetch_models(&parts));
                }
                self.stage = Stage::Fetching { set, version, asked };
            }
            Stage::Waiting { until, fault } if now < until => {
                self.stage = Stage::Waiting { until, fault };
            }
            stale => {
                // Its file goes before another one takes its name.
                drop(stale);
                let Some(models) = wanted else { return step };
                let Models { digest, bytes, version, .. } = models;
                match OfferedSet::begin(&place.store, digest, bytes, LARGEST_MODEL_PART) {
                    Ok(set) => {
                        log::info!("site: the site offers models {}", plain(&version));
                        self.stage = Stage::Fetching { set, version, asked: None };
                    }
                    Err(error) => return self.waiting(error.to_string(), step),
                }
            }
        }
        step
    }

    fn waiting(&mut self, fault: String, step: Step) -> Step {
        self.wait(fault);
        step
    }

    /// How the delivery stands, in words; `None` if nothing is on its way.
    pub fn text(&self) -> Option<String> {
        match &self.stage {
            Stage::Nothing | Stage::Waiting { .. } => None,
            Stage::Fetching { set, version, .. } => {
                let here = set.parts() - set.missing().count();
                Some(format!("{version}: {here} of {} parts fetched", set.parts()))
            }
            Stage::Installing { version, .. } => Some(format!("{version}: being installed")),
            Stage::Refused { version, .. } => Some(format!("{version}: not installed")),
        }
    }

    /// Why the set that is offered is not in use, and the cure.
    pub fn fault(&self) -> Option<String> {
        match &self.stage {
            Stage::Waiting { fault, .. } => Some(format!("the set of models of the site: {fault}")),
            Stage::Refused { version, fault, .. } => {
                Some(format!("models {version} of the site are not installed: {fault}"))
            }
            _ => None,
        }
    }
}

/// Whether that is the set that is wanted.
fn is_of(set: &OfferedSet, wanted: Option<&Models>) -> bool {
    wanted.is_some_and(|wanted| wanted.digest == set.digest())
}

/// Installs a set on a thread of its own.
fn install(place: &ModelPlace, mut set: OfferedSet, version: String) -> Stage {
    let digest = set.digest();
    let (send, done) = sync_channel(1);
    let ModelPlace { store, read_config, precision } = place;
    let (store, read_config, precision) = (store.clone(), read_config.clone(), *precision);
    let work = move || {
        // Only on time that nobody else wants.
        let _ = rustix::process::setpriority_process(None, 19);
        let entry = install_now(&store, &read_config, precision, &mut set);
        let _ = send.send((set, entry));
    };
    // If no thread starts, the channel is closed, which counts as an end.
    let started = std::thread::Builder::new().name("install".to_owned()).spawn(work);
    if let Err(error) = started {
        log::error!("site: cannot start the thread that installs models: {error}");
    }
    Stage::Installing { version, digest, done }
}

fn install_now(
    store: &ModelStore,
    read_config: &ReadConfig,
    precision: Precision,
    set: &mut OfferedSet,
) -> Result<Entry, Failure> {
    let config =
        read_config().map_err(|error| Failure { reason: format!("{error:#}"), busy: false })?;
    let store = store.clone().trusting(config.trusted_keys());
    let gallery = config.gallery_file();
    let options = InstallOptions::new(precision, &gallery, config.recognition.false_accept_rate);
    let mut told = |told: &Told<'_>| {
        if let Told::ReEmbedded(done) = told {
            warn_of_lost(done);
        }
        Ok(())
    };
    let installed = store.pointer().and_then(|before| {
        set.with_source(|source| store.install(source, &options, &mut told))?;
        store.changed("installed", &before)
    });
    match installed {
        Ok(entry) => Ok(Entry { by: by_site(), ..entry }),
        Err(error) => {
            let busy = matches!(
                error,
                ModelStoreError::Busy { .. } | ModelStoreError::Gallery(StoreError::Busy { .. })
            );
            Err(Failure { reason: error.to_string(), busy })
        }
    }
}
