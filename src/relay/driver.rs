//! EDGE: the thread that talks to the relay, so that nobody else waits for it.

use super::link::{Command, Do, Event, Link, LinkSettings, Told};
use super::{Relay, RelayError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

/// Orders on their way: one that locks, one that opens, and room for as many again
/// while a device takes its time.
const MAX_ORDERS: usize = 4;
/// One of each kind that is told.
const MAX_UNTOLD: usize = 4;
/// Between two tries to tell what could not be told.
const TELL_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// Without anything due.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// A device that takes longer to be let go of is left to the system.
const END_WITHIN: Duration = Duration::from_secs(3);

/// A relay on a thread of its own. Dropping it switches the relay off and lets go of it,
/// which takes no longer than 3 s.
#[derive(Debug)]
pub struct RelayLink {
    orders: Option<SyncSender<Command>>,
    heard: Arc<AtomicBool>,
    ended: Receiver<()>,
}

impl RelayLink {
    /// Opens the relay, locks the door and then takes orders. Whatever fails is told and
    /// tried again. `locked` is whether the relay is on while the door is locked;
    /// `silence` the time after which a relay that is on is switched off where neither an
    /// order nor [`Self::alive`] was heard.
    pub fn start<E: From<Told> + Send + 'static>(
        relay: Relay,
        locked: bool,
        silence: Option<Duration>,
        events: SyncSender<E>,
    ) -> Result<Self, RelayError> {
        if locked && relay.falls_back_after().is_some() {
            return Err(RelayError::Option {
                uri: relay.to_string(),
                fault: "flash= would open a fail-safe lock; leave it out".to_owned(),
            });
        }
        let check_every = [false, true].map(|on| relay.check_every(on));
        let settings = LinkSettings { locked, check_every, silence };
        let (orders, taken) = sync_channel(MAX_ORDERS);
        let (end, ended) = sync_channel(1);
        let heard = Arc::new(AtomicBool::new(false));
        let started = Instant::now();
        let link = Link::new(Duration::ZERO, settings);
        let untold = Untold::default();
        let mut driver = Driver { relay, link, started, heard: heard.clone(), events, untold };
        let thread = std::thread::Builder::new().name("relay".to_owned());
        let run = move || {
            driver.run(&taken);
            // Nobody may be waiting.
            let _ = end.try_send(());
        };
        match thread.spawn(run) {
            Ok(_) => Ok(Self { orders: Some(orders), heard, ended }),
            Err(reason) => Err(RelayError::Port {
                port: "the relay's thread".to_owned(),
                reason: reason.to_string(),
            }),
        }
    }

    /// Gives an order; the answer is told. Where this says no, the relay is busy with
    /// earlier ones: the order is not taken and no answer follows.
    #[must_use]
    pub fn order(&self, number: u32, on: bool) -> bool {
        let command = Command { number, on };
        self.orders.as_ref().is_some_and(|orders| orders.try_send(command).is_ok())
    }

    /// Says that whoever gives the orders is alive.
    pub fn alive(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }
}

impl Drop for RelayLink {
    fn drop(&mut self) {
        self.orders = None;
        // One that hangs cannot be waited for.
        let _ = self.ended.recv_timeout(END_WITHIN);
    }
}

/// What is to be told and could not be yet: of each kind the latest, for an answer to
/// an earlier order and an earlier absence say nothing any more.
#[derive(Debug, Default)]
struct Untold(heapless::Deque<Told, MAX_UNTOLD>);

impl Untold {
    fn push(&mut self, told: Told) {
        for _ in 0..self.0.len() {
            if let Some(before) = self.0.pop_front().filter(|before| kind(before) != kind(&told)) {
                // It was there before.
                let _ = self.0.push_back(before);
            }
        }
        // One of each kind has room.
        let _ = self.0.push_back(told);
    }

    fn tell<E: From<Told>>(&mut self, events: &SyncSender<E>) {
        while let Some(told) = self.0.front() {
            match events.try_send(E::from(told.clone())) {
                Err(TrySendError::Full(_)) => break,
                // Where nobody listens there is nothing to tell.
                Ok(()) | Err(TrySendError::Disconnected(_)) => drop(self.0.pop_front()),
            }
        }
    }
}

fn kind(told: &Told) -> usize {
    match told {
        Told::Answer { .. } => 0,
        Told::Away { .. } | Told::Back { .. } => 1,
        Told::Drifted { .. } => 2,
        Told::Abandoned => 3,
    }
}

struct Driver<E> {
    relay: Relay,
    link: Link,
    started: Instant,
    heard: Arc<AtomicBool>,
    events: SyncSender<E>,
    untold: Untold,
}

impl<E: From<Told>> Driver<E> {
    fn run(&mut self, orders: &Receiver<Command>) {
        loop {
            if self.heard.swap(false, Ordering::Relaxed) {
                self.carry_out(Event::Heard);
            }
            self.carry_out(Event::Tick);
            self.untold.tell(&self.events);
            match orders.recv_timeout(self.wait()) {
                Ok(command) => self.carry_out(Event::Order(command)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if let Err(error) = self.relay.switch(false) {
            log::error!("the relay could not be released: {error}");
        }
        self.relay.disconnect();
    }

    fn wait(&self) -> Duration {
        let due = self.link.due().map(|due| due.saturating_sub(self.started.elapsed()));
        let again = (!self.untold.0.is_empty()).then_some(TELL_AGAIN_AFTER);
        due.into_iter().chain(again).min().unwrap_or(LONGEST_WAIT)
    }

    /// Carries out what the link says and tells it how that went, until it has nothing
    /// more to say.
    fn carry_out(&mut self, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let actions = self.link.step(self.started.elapsed(), event);
            for told in actions.told {
                self.untold.push(told);
            }
            let done = match actions.device {
                None => break,
                Some(Do::Close) => {
                    self.relay.disconnect();
                    break;
                }
                Some(Do::Open(on)) => self.relay.connect(on).map(|()| Event::Opened),
                Some(Do::Switch(on)) => self.relay.switch(on).map(|()| Event::Switched),
                Some(Do::Check(on)) => {
                    self.relay.check(on).map(|as_told| Event::Checked { as_told })
                }
            };
            // Before the next thing is done, which may take long.
            self.untold.tell(&self.events);
            next = Some(done.unwrap_or_else(|error| Event::Failed(error.to_string())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(order: u32) -> Told {
        Told::Answer { order, taken: true, error: None }
    }

    #[test]
    fn what_cannot_be_told_is_kept_the_latest_of_each_kind() {
        let (events, heard) = sync_channel::<Told>(1);
        let mut untold = Untold::default();
        untold.tell(&events);
        let away = || Told::Away { error: "gone".to_owned() };
        for told in [answer(1), away(), answer(2), Told::Abandoned, Told::Drifted { on: true }] {
            untold.push(told);
        }
        untold.push(Told::Back { away: Duration::ZERO });
        let mut got = vec![];
        for _ in 0..5 {
            untold.tell(&events);
            got.extend(heard.try_recv());
        }
        let back = Told::Back { away: Duration::ZERO };
        assert_eq!(got, [answer(2), Told::Abandoned, Told::Drifted { on: true }, back]);
        drop(heard);
        untold.push(answer(3));
        untold.tell(&events);
        assert!(untold.0.is_empty());
    }

    #[test]
    fn the_log_takes_its_orders_and_is_switched_off_at_the_end() {
        let (events, heard) = sync_channel::<Told>(8);
        let relay = Relay::open("log:").expect("a relay");
        let link = RelayLink::start(relay, false, None, events).expect("a link");
        assert!(link.order(1, true));
        let patience = Duration::from_secs(10);
        assert_eq!(heard.recv_timeout(patience), Ok(answer(1)));
        drop(link);
        assert!(heard.recv_timeout(patience).is_err(), "the thread has ended");
    }

    #[cfg(feature = "serial")]
    #[test]
    fn a_flash_is_not_for_a_lock_that_opens_without_power() {
        let relay = Relay::open("serial:/dev/x?protocol=modbus&flash=10s").expect("a relay");
        let (events, _heard) = sync_channel::<Told>(1);
        let error = RelayLink::start(relay, true, None, events).expect_err("not for it");
        assert!(error.to_string().contains("fail-safe"), "{error}");
    }
}
