//! EDGE: the thread of the site.

use super::lease::LeaseClock;
use super::models::Delivery;
use super::{
    Input, Joining, MOST_OUT, Shared, SiteError, SiteNow, SiteOrder, SiteSettings, now_ms,
};
use crate::access::SitePeople;
use crate::access::door::Role;
use crate::access::event::plain;
use crate::access::gallery::PersonId;
use crate::service::control::Begun;
use crate::storage::site::SiteStore;
use facelatch_messages::FromDoor;
use facelatch_site::{CODE_MS, ChangeError, Code, Effect, Member, PersonId as SiteId, Refusal};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Time between two looks at the clock and the gallery.
const TICK: Duration = Duration::from_secs(1);
/// Records that are handled together, with one transaction.
const BATCH: usize = 256;
/// Time between two requests to join.
const JOIN_EVERY: Duration = Duration::from_secs(5);

/// Keys of the store that are not the member's.
pub(super) const APPLIED: &str = "applied/";
pub(super) const OWN: &str = "own/";
pub(super) const SITE: &str = "own/site";
pub(super) const GALLERY: &str = "own/gallery";
pub(super) const SYNCED: &str = "own/synced";
const MODELS: &str = "own/models";

/// Digest of a person as the gallery and the site last agreed.
pub(super) type Digest = [u8; 16];

/// The thread's state.
pub(super) struct SiteThread {
    pub(super) settings: SiteSettings,
    pub(super) shared: Arc<Mutex<Shared>>,
    pub(super) member: Member,
    pub(super) store: SiteStore,
    /// What was applied last, by person.
    pub(super) applied: BTreeMap<SiteId, Digest>,
    /// Numbers in the gallery.
    pub(super) numbers: BTreeMap<SiteId, PersonId>,
    /// Identity of the gallery that this is about.
    pub(super) identity: Option<u64>,
    /// Whether all that the site had was fetched once, so that what is only here is new.
    pub(super) synced: bool,
    /// Time and size of the gallery's file when it was compared last.
    pub(super) seen: Option<(SystemTime, u64)>,
    /// When to compare it once more although it looks unchanged.
    pub(super) look_again: Option<Instant>,
    connected: bool,
    fetched: bool,
    joining: Option<Joining>,
    /// The set of models that the site offers.
    pub(super) delivery: Delivery,
    lease: LeaseClock,
    /// A fault of the gallery or the store.
    pub(super) fault: Option<String>,
    /// Why the rules of the site are not used.
    rules_fault: Option<String>,
    /// The last refusal that was logged.
    refusal: Option<Refusal>,
    /// Numbers messages to the link.
    pub(super) published: u64,
}

impl SiteThread {
    /// Takes up what was kept.
    pub fn open(mut settings: SiteSettings, shared: Arc<Mutex<Shared>>) -> Result<Self, SiteError> {
        let mut store = SiteStore::open(&settings.gallery, &settings.secret)?;
        let mut kept: BTreeMap<String, Vec<u8>> = store.all()?.into_iter().collect();
        if store.damaged() > 0 {
            log::error!(
                "{} entries of the site's file are damaged; they are heard again",
                store.damaged()
            );
        }
        let site = facelatch_site::KeyId::of(&settings.key);
        let mut other = false;
        if kept.get(SITE).is_some_and(|kept| kept[..] != site.0) {
            log::warn!("the door belongs to another site than before; it forgets the former");
            store.clear()?;
            kept.clear();
            other = true;
        }
        store.keep(&[(SITE.to_owned(), Some(site.0.to_vec()))])?;
        let installed = kept.get(MODELS).and_then(|kept| kept[..].try_into().ok());
        let delivery = Delivery::new(settings.place.take(), installed);
        settings.models.clone_into(&mut lock(&shared).models);
        let mut thread = Self {
            member: Member::new(&settings.secret, settings.key, []),
            applied: BTreeMap::new(),
            numbers: BTreeMap::new(),
            identity: kept
                .get(GALLERY)
                .and_then(|kept| Some(u64::from_le_bytes(*kept.first_chunk()?))),
            synced: kept.contains_key(SYNCED),
            seen: None,
            look_again: None,
            connected: false,
            fetched: false,
            joining: None,
            delivery,
            lease: LeaseClock::default(),
            fault: None,
            rules_fault: None,
            refusal: None,
            published: 0,
            settings,
            shared,
            store,
        };
        for (key, bytes) in &kept {
            let id = key.strip_prefix(APPLIED).and_then(|id| id.parse().ok());
            if let (Some(id), Ok(digest)) = (id, Digest::try_from(&bytes[..])) {
                thread.applied.insert(id, digest);
            }
        }
        kept.retain(|key, _| !key.starts_with(APPLIED) && !key.starts_with(OWN));
        thread.member = Member::new(&thread.settings.secret, thread.settings.key, kept);
        thread.member.set_models(&thread.settings.models);
        if other && let Err(error) = thread.unmark() {
            log::error!("{error}; people of the former site keep its mark");
        }
        thread.number();
        thread.rules();
        thread.show();
        Ok(thread)
    }

    /// The site, as in topics.
    pub fn site(&self) -> String {
        self.member.site().to_string()
    }

    /// Works until `ended`.
    pub fn run(&mut self, inputs: &Receiver<Input>, ended: &AtomicBool) {
        let mut tick = Instant::now();
        loop {
            let first = match inputs.recv_timeout(tick.saturating_duration_since(Instant::now())) {
                Ok(first) => Some(first),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if ended.load(Ordering::Acquire) {
                return;
            }
            let mut effects = Vec::new();
            let mut answers = Vec::new();
            let mut next = first;
            for _ in 0..BATCH {
                let Some(input) = next else { break };
                if matches!(input, Input::Look) {
                    tick = Instant::now();
                }
                self.input(input, &mut effects, &mut answers);
                // Orders and connections are handled one by one.
                next = if self.waiting_out() + effects.len() < MOST_OUT {
                    inputs.try_recv().ok()
                } else {
                    None
                };
            }
            self.carry(effects, ended);
            self.send(answers);
            if Instant::now() >= tick {
                tick = Instant::now() + TICK;
                let mut effects = self.member.tick(now_ms());
                effects.extend(self.join());
                effects.extend(self.models());
                self.carry(effects, ended);
                self.compare(ended);
                self.show();
            }
            // The link reads slowly, or is away.
            while self.connected && self.waiting_out() >= MOST_OUT && !ended.load(Ordering::Acquire)
            {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    fn input(&mut self, input: Input, effects: &mut Vec<Effect>, answers: &mut Vec<FromDoor>) {
        match input {
            Input::Record { id, topic, bytes } => {
                let heard = self.member.hear(&topic, &bytes, now_ms());
                let refusal = heard.iter().find_map(|effect| match effect {
                    Effect::Refused(refusal) => Some(*refusal),
                    _ => None,
                });
                answers.push(match refusal {
                    None => FromDoor::Done { id, did: "taken in".to_owned() },
                    Some(refusal) => FromDoor::Failed { id, reason: refusal.to_string() },
                });
                if let Some(refusal) = refusal
                    // What is old comes with every connection.
                    && !matches!(refusal, Refusal::Old | Refusal::Unasked)
                    && self.refusal.replace(refusal) != Some(refusal)
                {
                    log::warn!("site: a record at {} was refused: {refusal}", plain(&topic));
                }
                effects.extend(heard);
            }
            Input::Reach { good, fetched } => {
                if good && !self.connected {
                    (self.connected, self.fetched) = (true, false);
                    self.locked(|shared| shared.out.clear());
                    self.delivery.connected();
                    effects.extend(self.member.connected());
                } else if !good && self.connected {
                    self.connected = false;
                    self.member.disconnected();
                }
                if self.connected && fetched && !self.fetched {
                    self.fetched = true;
                    effects.extend(self.member.fetched(now_ms()));
                }
            }
            Input::Passed(person, role) => {
                let id = self.numbers.iter().find(|(_, number)| **number == person);
                let Some(id) = id.map(|(id, _)| *id) else { return };
                match self.member.passage(id, role == Role::In, now_ms()) {
                    Ok(passed) => effects.extend(passed),
                    Err(ChangeError::Outside) => {}
                    Err(error) => log::warn!("site: {error}"),
                }
            }
            Input::Order(order, begun) => self.order(order, begun, effects),
            Input::Join(code) => effects.extend(self.begin_to_join(code).unwrap_or_default()),
            Input::Look => {}
        }
    }

    fn order(&mut self, order: SiteOrder, begun: Begun, effects: &mut Vec<Effect>) {
        match order {
            SiteOrder::Join(code) => match self.begin_to_join(code) {
                Ok(asked) => {
                    effects.extend(asked);
                    let fingerprint = self.member.public().fingerprint();
                    let reach = if self.connected {
                        ""
                    } else {
                        "; the link does not reach the broker now: see facelatch status"
                    };
                    begun.answer(Ok(format!(
                        "asking the site to admit this door, whose key is {fingerprint}; \
                             compare it with what the office shows; facelatch site show says when \
                             the door is admitted{reach}"
                    )));
                }
                Err(error) => begun.answer(Err(error.to_string())),
            },
            SiteOrder::Show => {
                self.show();
                let now = self.locked(|shared| shared.now.clone());
                begun.answer(Ok(now.text()));
            }
            SiteOrder::Leave => begun.answer(match self.leave() {
                Ok(()) => Ok("the door has left its site; its people stay, as people of this \
                              door alone; remove site.key from the configuration"
                    .to_owned()),
                Err(error) => Err(error),
            }),
        }
    }

    fn begin_to_join(&mut self, code: Code) -> Result<Vec<Effect>, ChangeError> {
        let asked = self.ask(&code)?;
        let now = Instant::now();
        let until = now + Duration::from_millis(CODE_MS);
        self.joining = Some(Joining { code, until, next: now + JOIN_EVERY });
        Ok(asked)
    }

    fn ask(&self, code: &Code) -> Result<Vec<Effect>, ChangeError> {
        self.member.join(code, &self.settings.door)
    }

    /// Repeats a request to join.
    fn join(&mut self) -> Vec<Effect> {
        let now = Instant::now();
        let Some(joining) = &mut self.joining else { return Vec::new() };
        if now >= joining.until || self.member.certificate().is_some() {
            self.joining = None;
            return Vec::new();
        }
        if now < joining.next || !self.connected {
            return Vec::new();
        }
        joining.next = now + JOIN_EVERY;
        let code = joining.code.clone();
        self.ask(&code).unwrap_or_default()
    }

    /// The next step to the set of models that the site offers.
    fn models(&mut self) -> Vec<Effect> {
        let version = self.locked(|shared| shared.models.clone());
        self.member.set_models(&version);
        let step = self.delivery.step(&mut self.member, self.connected);
        if let Some(entry) = step.entry {
            self.note(entry);
        }
        let mut effects = step.effects;
        effects.extend(
            step.installed.map(|of| Effect::Keep { key: MODELS.to_owned(), bytes: of.to_vec() }),
        );
        effects
    }

    /// Forgets the site.
    fn leave(&mut self) -> Result<(), String> {
        self.unmark().map_err(|error| error.to_string())?;
        self.store.clear().map_err(|error| error.to_string())?;
        self.member = Member::new(&self.settings.secret, self.settings.key, []);
        self.applied.clear();
        self.numbers.clear();
        (self.synced, self.joining) = (false, None);
        self.delivery.forget();
        self.rules();
        self.show();
        Ok(())
    }

    /// Whether local changes may become changes of the site. Once everything was fetched,
    /// that holds also while the broker is away.
    pub(super) fn knows_site(&mut self) -> bool {
        let standing = self.member.standing(now_ms());
        if !self.synced
            && self.fetched
            && standing.admitted
            && standing.lease_until_ms.is_some()
            && standing.missing == 0
        {
            self.synced = true;
            let keep = [(SYNCED.to_owned(), Some(vec![1]))];
            self.fault = self.store.keep(&keep).err().map(|error| error.to_string());
        }
        self.synced && standing.admitted
    }

    /// Passes the rules of the site on, if they can be used.
    pub(super) fn rules(&mut self) {
        let admitted = self.member.certificate().is_some();
        let text = if admitted { self.member.policy().text.as_str() } else { "" };
        match self.settings.rules.set(text) {
            Ok(()) => {
                self.rules_fault = None;
            }
            Err(error) => {
                log::error!("site: its rules cannot be used: {error}; those before stay in use");
                self.rules_fault = Some(error.to_string());
            }
        }
    }

    /// Shows the state to the others.
    pub(super) fn show(&mut self) {
        let now = now_ms();
        let standing = self.member.standing(now);
        let until = standing.lease_until_ms;
        let left = until.map(|until| self.lease.left_s(until, (now, Instant::now())));
        let over = left.is_none_or(|left| left <= 0);
        let certificate = self.member.certificate();
        let shown = SiteNow {
            site: self.member.site().to_string(),
            door: self.member.id().to_string(),
            fingerprint: self.member.public().fingerprint(),
            name: certificate.map(|certificate| certificate.name.clone()),
            groups: certificate.map_or(Vec::new(), |certificate| certificate.groups.clone()),
            writes: certificate.is_some_and(|certificate| certificate.writes),
            people: standing.people,
            missing: standing.missing,
            manifest: standing.manifest,
            lease_s: left,
            refused: self.member.refused().values().sum(),
            models: self.delivery.text(),
            fault: (self.fault.clone())
                .or(self.rules_fault.clone())
                .or(standing.fault)
                .or(self.delivery.fault()),
        };
        let people = if over { self.settings.on_lease_end.people() } else { SitePeople::All };
        self.locked(|shared| {
            if shared.people != people {
                match people {
                    SitePeople::All => log::info!("site: its rules are up to date again"),
                    _ => log::warn!("site: not heard for too long; site.on_lease_end holds now"),
                }
            }
            (shared.now, shared.people) = (shown, people);
        });
    }

    pub(super) fn locked<T>(&self, with: impl FnOnce(&mut Shared) -> T) -> T {
        with(&mut lock(&self.shared))
    }

    fn waiting_out(&self) -> usize {
        self.locked(|shared| shared.out.len())
    }

    /// Whether the link reaches the broker.
    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    /// Queues messages for the link.
    pub(super) fn send(&self, messages: Vec<FromDoor>) {
        self.locked(|shared| shared.out.extend(messages));
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SiteNow {
    /// In words.
    pub fn text(&self) -> String {
        let Self { site, door, fingerprint, groups, people, missing, models, fault, .. } = self;
        let mut lines = vec![format!("site {site}, this door {door}, its key {fingerprint}")];
        match &self.name {
            None => lines.push("not admitted; join with facelatch site join CODE".to_owned()),
            Some(name) => {
                let writes = if self.writes { "" } else { ", and may not change its people" };
                lines.push(format!("admitted as {name} for {}{writes}", groups.join(", ")));
                lines.push(format!("{people} people, {missing} records missing"));
                lines.push(match self.lease_s {
                    None => "no lease yet".to_owned(),
                    Some(lease) if lease <= 0 => format!("the lease ended {} s ago", -lease),
                    Some(lease) => format!("the lease holds for {lease} s"),
                });
            }
        }
        if self.refused > 0 {
            lines.push(format!("{} records refused since the start", self.refused));
        }
        lines.extend(models.as_ref().map(|models| format!("the site offers models {models}")));
        lines.extend(fault.clone());
        plain(&lines.join("; ")).into_owned()
    }
}
