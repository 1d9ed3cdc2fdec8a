//! EDGE: the office at work: what it decides goes to its store and then to the broker, and
//! what the broker has comes back.

use super::answer::Answer;
use super::carry::{Line, Wire};
use super::clock::Clock;
use super::folder::{Folder, FolderError, Lock};
use super::order::{Done, Order, execute};
use super::spool::Spool;
use super::store::Store;
use crate::mqtt::Settings;
use facelatch_site::{Effect, Office, Refusal};
use serde_json::json;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Bytes of records that wait for the broker: several times those of a full site, since a
/// new data key seals everything again.
const MOST_BYTES: usize = 128 << 20;
/// How often to look at what is due.
const TICK: Duration = Duration::from_millis(250);

/// A door that may join, and who waits for it.
struct Expected {
    /// Number of the order; `None` for the command of this process.
    number: Option<String>,
    door: String,
    until: Instant,
}

/// The office at work.
pub(crate) struct Service {
    clock: Clock,
    _lock: Lock,
    store: Store,
    office: Office,
    wire: Option<Wire>,
    fetched: bool,
    ticked: Option<Instant>,
    expected: Vec<Expected>,
    /// Answers for the command of this process.
    own: VecDeque<Answer>,
    /// Why there is no connection.
    lost: Option<String>,
    refused: BTreeMap<Refusal, u64>,
}

impl Service {
    /// Opens the folder.
    pub fn open(folder: &Folder, clock: Clock) -> Result<Self, String> {
        let lock = folder.lock().map_err(|error| error.to_string())?;
        let said = |error: FolderError| error.to_string();
        let secret = folder.secret().map_err(said)?;
        let store = folder.store().map_err(said)?;
        let (office, effects) =
            Office::new(&secret, store.pairs()).map_err(|error| error.to_string())?;
        let mut service = Self {
            clock,
            _lock: lock,
            store,
            office,
            wire: None,
            fetched: false,
            ticked: None,
            expected: Vec::new(),
            own: VecDeque::new(),
            lost: None,
            refused: BTreeMap::new(),
        };
        service.carry(effects)?;
        Ok(service)
    }

    /// Starts to connect.
    pub fn connect(&mut self, settings: Settings, prefix: &str) -> Result<(), String> {
        let prefix = format!("{prefix}/{}/fleet/", self.office.site());
        let wire = Wire::start(settings, prefix, MOST_BYTES);
        self.wire = Some(wire.map_err(|error| format!("the connection to the broker: {error}"))?);
        Ok(())
    }

    pub fn office(&self) -> &Office {
        &self.office
    }

    /// Why there is no connection. `None` if there is one.
    pub fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    pub fn connected(&self) -> bool {
        self.wire.as_ref().is_some_and(Wire::connected)
    }

    /// Whether all that the broker has was heard.
    pub fn fetched(&self) -> bool {
        self.fetched
    }

    /// Whether the broker has everything.
    pub fn settled(&self) -> bool {
        !self.office.is_busy() && self.wire.as_ref().is_some_and(Wire::idle)
    }

    /// Carries out an order of this process. The answer of an admission comes later, with
    /// [`Self::own_answer`].
    pub fn order(&mut self, order: &Order) -> Result<Answer, String> {
        self.order_of(order, None)
    }

    pub fn own_answer(&mut self) -> Option<Answer> {
        self.own.pop_front()
    }

    fn order_of(&mut self, order: &Order, number: Option<String>) -> Result<Answer, String> {
        let (effects, answer): Done = execute(&mut self.office, order, self.clock.now_ms());
        self.carry(effects)?;
        if let (Order::Admit { door, .. }, true) = (order, answer.wait) {
            let until = Instant::now() + Duration::from_millis(facelatch_site::CODE_MS);
            self.expected.push(Expected { number, door: door.clone(), until });
        }
        Ok(answer)
    }

    /// Takes orders of other processes.
    pub fn take_orders(&mut self, spool: &Spool) -> Result<(), String> {
        for (number, order) in spool.take() {
            let answer = match order {
                Ok(order) => self.order_of(&order, Some(number.clone()))?,
                Err(reason) => Answer::failed(&format!("the order cannot be read: {reason}")),
            };
            if !answer.wait {
                spool.answer(&number, &answer);
            }
        }
        let now = Instant::now();
        for late in self.expected.extract_if(.., |expected| expected.until <= now) {
            let answer = Answer::failed(&late_door(&late.door));
            match late.number {
                Some(number) => spool.answer(&number, &answer),
                None => self.own.push_back(answer),
            }
        }
        Ok(())
    }

    /// Does what comes next, within about `patience`.
    pub fn step(&mut self, patience: Duration, spool: Option<&Spool>) -> Result<(), String> {
        let line = self.wire.as_mut().and_then(|wire| wire.next_line(patience.min(TICK)));
        let now = self.clock.now_ms();
        let effects = match line {
            None => Vec::new(),
            Some(Line::Connected) => {
                self.fetched = false;
                self.lost = None;
                self.office.connected()
            }
            Some(Line::Fetched) => {
                self.fetched = true;
                self.office.fetched(now)
            }
            Some(Line::Record { topic, bytes }) => self.office.hear(&topic, &bytes, now),
            Some(Line::Lost { reason }) => {
                if self.lost.as_ref() != Some(&reason) {
                    log::warn!("no connection to the broker: {reason}");
                }
                self.lost = Some(reason);
                self.fetched = false;
                self.office.disconnected();
                Vec::new()
            }
        };
        self.carry_with(effects, spool)?;
        if self.ticked.is_none_or(|ticked| ticked.elapsed() >= TICK) {
            self.ticked = Some(Instant::now());
            let effects = self.office.tick(now).map_err(|error| error.to_string())?;
            self.carry_with(effects, spool)?;
        }
        Ok(())
    }

    fn carry(&mut self, effects: Vec<Effect>) -> Result<(), String> {
        self.carry_with(effects, None)
    }

    /// What is kept goes to the store before anybody hears of it.
    fn carry_with(&mut self, effects: Vec<Effect>, spool: Option<&Spool>) -> Result<(), String> {
        if effects.is_empty() {
            return Ok(());
        }
        let mut changes = Vec::new();
        let mut others = Vec::new();
        for effect in effects {
            match effect {
                Effect::Keep { key, bytes } => changes.push((key, Some(bytes))),
                Effect::Forget { key } => changes.push((key, None)),
                other => others.push(other),
            }
        }
        self.store.change(changes).map_err(|error| error.to_string())?;
        if let Some(wire) = &mut self.wire {
            others = wire.carry(others);
        }
        for effect in others {
            match effect {
                Effect::Joined { door, says, fingerprint } => {
                    self.joined(door, &says, &fingerprint, spool);
                }
                Effect::Refused(refusal) => {
                    let count = self.refused.entry(refusal).or_default();
                    *count += 1;
                    // What is old comes with every connection. Each other kind is named often
                    // enough, and cannot fill a log.
                    let usual = matches!(refusal, Refusal::Old | Refusal::Unasked);
                    if count.is_power_of_two() && !usual {
                        log::warn!("{count} records of the site were refused: {refusal}");
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn joined(
        &mut self,
        door: facelatch_site::KeyId,
        says: &str,
        fingerprint: &str,
        spool: Option<&Spool>,
    ) {
        let Some(name) = self
            .office
            .doors()
            .into_iter()
            .find(|view| view.certificate.door == door)
            .map(|view| view.certificate.name)
        else {
            return;
        };
        let text = format!(
            "Door {} joined. It calls itself {:?} and has the key {fingerprint}: compare this \
             with what facelatch site show says at the door.",
            crate::text::plain(&name, 100),
            crate::text::plain(says, 100)
        );
        log::info!("{text}");
        let json = json!({
            "door": door.to_string(), "name": name, "says": says, "fingerprint": fingerprint,
        });
        let answer = Answer::done(&text, json);
        for expected in self.expected.extract_if(.., |expected| expected.door == name) {
            match (expected.number, spool) {
                (Some(number), Some(spool)) => spool.answer(&number, &answer),
                (Some(_), None) => {}
                (None, _) => self.own.push_back(answer.clone()),
            }
        }
    }

    /// Sends what waits and ends the connection.
    pub fn close(mut self) {
        if let Some(wire) = self.wire.take() {
            wire.close(Duration::from_secs(2));
        }
    }
}

pub(super) fn late_door(door: &str) -> String {
    format!(
        "door {:?} did not join in ten minutes; the code is no longer good. Run the command \
         again, and check at the door that site.key, the clock and the link are right",
        crate::text::plain(door, 100)
    )
}
