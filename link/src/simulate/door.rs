//! A simulated door: a member of the site on its own thread and connection.

use super::crowd::Present;
use super::named;
use crate::mqtt::Settings;
use crate::site::{Clock, Line, Wire};
use facelatch_crypto::{PublicKey, Secret};
use facelatch_site::{Code, Effect, Member, Person, PersonId};
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of records that wait for the broker.
const MOST_BYTES: usize = 64 << 20;
/// How often orders are looked at, and what is due.
const PAUSE: Duration = Duration::from_millis(100);
const TICK: Duration = Duration::from_millis(500);
/// Stack of the thread, bytes.
const STACK: usize = 512 << 10;

/// What a door is told.
pub(super) enum Do {
    Join(Code),
    Enroll(Vec<Person>),
    Remove(PersonId),
    /// End the connection, and begin it.
    Cut,
    Heal,
    /// Do not hear news of people and of those locked out.
    Withhold(bool),
    /// Start again from what was kept.
    Restart,
}

/// What a door shows.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    pub admitted: bool,
    pub fetched: bool,
    pub present: Present,
    /// When each person of interest was removed.
    pub removed: BTreeMap<PersonId, Instant>,
    pub heard: u64,
    pub refused: u64,
    pub missing: u32,
    pub fault: Option<String>,
    pub lease_until_ms: u64,
    pub epoch: u32,
    /// Whether the broker has everything of this door.
    pub idle: bool,
}

/// A door.
pub(super) struct Door {
    shown: Arc<Mutex<Shown>>,
    orders: Sender<Do>,
}

impl Door {
    /// Starts it, without a connection.
    pub fn start(
        number: usize,
        site_key: PublicKey,
        prefix: String,
        settings: &Settings,
        clock: &Clock,
        keeps: bool,
    ) -> Result<Self, String> {
        let (orders, waiting) = channel();
        let shown = Arc::default();
        let secret = Secret::random().map_err(|error| error.to_string())?;
        let mut simulated = Simulated {
            name: format!("door {number}"),
            member: Member::new(&secret, site_key, []),
            secret,
            site_key,
            settings: named(settings, &format!("door-{number}")),
            prefix,
            wire: None,
            kept: BTreeMap::new(),
            keeps,
            shown: Arc::clone(&shown),
            clock: clock.clone(),
            withheld: false,
            ticked: Instant::now(),
            heard: 0,
        };
        std::thread::Builder::new()
            .name(format!("door {number}"))
            .stack_size(STACK)
            .spawn(move || simulated.run(&waiting))
            .map_err(|error| format!("the thread of a door: {error}"))?;
        Ok(Self { shown, orders })
    }

    pub fn tell(&self, what: Do) {
        // It ends only with this.
        let _ = self.orders.send(what);
    }

    pub fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Simulated {
    name: String,
    member: Member,
    secret: Secret,
    site_key: PublicKey,
    settings: Settings,
    prefix: String,
    wire: Option<Wire>,
    kept: BTreeMap<String, Vec<u8>>,
    /// Whether it keeps what it knows of others' records: only needed to start again.
    keeps: bool,
    shown: Arc<Mutex<Shown>>,
    clock: Clock,
    withheld: bool,
    ticked: Instant,
    /// Bytes of earlier connections.
    heard: u64,
}

impl Simulated {
    fn run(&mut self, orders: &Receiver<Do>) {
        loop {
            loop {
                match orders.try_recv() {
                    Ok(order) => self.obey(order),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            let Some(wire) = &mut self.wire else {
                std::thread::sleep(PAUSE);
                continue;
            };
            let line = wire.next_line(PAUSE);
            let now = self.clock.now_ms();
            let effects = match line {
                None => Vec::new(),
                Some(Line::Connected) => self.member.connected(),
                Some(Line::Fetched) => {
                    self.show(|shown| shown.fetched = true);
                    self.member.fetched(now)
                }
                Some(Line::Lost { .. }) => {
                    self.member.disconnected();
                    self.show(|shown| shown.fetched = false);
                    Vec::new()
                }
                Some(Line::Record { topic, bytes }) => {
                    let news = ["revoked", "people", "listing"];
                    if self.withheld && news.iter().any(|word| topic.starts_with(word)) {
                        Vec::new()
                    } else {
                        self.member.hear(&topic, &bytes, now)
                    }
                }
            };
            self.carry(effects);
            if self.ticked.elapsed() >= TICK {
                self.ticked = Instant::now();
                let effects = self.member.tick(now);
                self.carry(effects);
                self.show_standing(now);
            }
        }
    }

    fn show(&self, change: impl FnOnce(&mut Shown)) {
        change(&mut self.shown.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn show_standing(&self, now: u64) {
        let standing = self.member.standing(now);
        let have = self.member.have(now);
        let (heard, idle) =
            self.wire.as_ref().map_or((0, false), |wire| (wire.heard(), wire.idle()));
        self.show(|shown| {
            shown.admitted = standing.admitted;
            shown.missing = standing.missing;
            shown.fault = standing.fault;
            shown.lease_until_ms = have.lease_until_ms;
            shown.epoch = have.epoch;
            shown.refused = have.refused;
            shown.heard = self.heard + heard;
            shown.idle = idle;
        });
    }

    fn obey(&mut self, order: Do) {
        let now = self.clock.now_ms();
        match order {
            Do::Join(code) => {
                let effects = self.member.join(&code, &self.name).unwrap_or_default();
                self.carry(effects);
            }
            Do::Enroll(people) => {
                for person in people {
                    let (id, name) = (person.id, person.name.clone());
                    if let Ok(effects) = self.member.put(person, now) {
                        self.show(|shown| shown.present.put(id, &name));
                        self.carry(effects);
                    }
                }
            }
            Do::Remove(person) => {
                if let Ok(effects) = self.member.remove(person, now) {
                    self.carry(vec![Effect::Remove(person)]);
                    self.carry(effects);
                }
            }
            Do::Cut => {
                if let Some(wire) = self.wire.take() {
                    self.heard += wire.heard();
                    self.member.disconnected();
                    self.show(|shown| shown.fetched = false);
                }
            }
            Do::Heal => {
                let wire = Wire::start(self.settings.clone(), self.prefix.clone(), MOST_BYTES);
                self.wire = wire.map_err(|error| log::error!("{}: {error}", self.name)).ok();
            }
            Do::Withhold(withheld) => self.withheld = withheld,
            Do::Restart => {
                self.obey(Do::Cut);
                let kept = self.kept.clone();
                self.member = Member::new(&self.secret, self.site_key, kept);
                self.obey(Do::Heal);
            }
        }
        self.show_standing(now);
    }

    fn carry(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Keep { key, .. } if !self.keeps && key.starts_with("entry/") => {}
                Effect::Keep { key, bytes } => {
                    self.kept.insert(key, bytes);
                }
                Effect::Forget { key } => {
                    self.kept.remove(&key);
                }
                Effect::Put(person) => {
                    self.show(|shown| shown.present.put(person.id, &person.name));
                }
                Effect::Remove(person) => self.show(|shown| {
                    shown.present.remove(person);
                    shown.removed.entry(person).or_insert_with(Instant::now);
                }),
                Effect::Admitted(_) => self.show(|shown| shown.admitted = true),
                Effect::PublishKept { topic, key } => {
                    if let (Some(wire), Some(bytes)) = (&mut self.wire, self.kept.get(&key)) {
                        wire.publish(&topic, bytes.clone(), true, None);
                    }
                }
                effect @ (Effect::Publish { .. }
                | Effect::Subscribe { .. }
                | Effect::Fetch { .. }) => {
                    if let Some(wire) = &mut self.wire {
                        wire.carry(vec![effect]);
                    }
                }
                _ => {}
            }
        }
    }
}
