//! EDGE: the thread that talks to the relay, so that no other thread blocks on it.

use super::link::{Command, DeviceAction, Input, Link, LinkSettings, RelayEvent};
use super::{Relay, RelayError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Capacity of the order queue: one order to lock, one to open, and as many again while
/// the device is busy.
const MAX_ORDERS: usize = 4;
/// Capacity for undelivered reports: one per kind.
const MAX_UNREPORTED: usize = 4;
/// Delay before undelivered reports are tried again.
const REPORT_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// Longest time between two heartbeats, except while a device call blocks: half of the
/// shortest time after which the watchdog calls the thread late.
const BEAT_EVERY: Duration = Duration::from_millis(500);
/// Value of the heartbeat once the thread has ended.
const GONE: u64 = u64::MAX;
/// If the thread slept this much longer than requested, the machine or the whole program
/// was suspended, and missing heartbeats of the service do not count.
const OVERSLEPT: Duration = Duration::from_secs(1);
/// How long the end waits for the device to be released.
const END_WITHIN: Duration = Duration::from_secs(3);

/// Errors of giving an order to the relay thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotOrdered {
    /// The queue is full because the device is busy.
    #[error("busy with earlier orders")]
    Busy,
    /// The thread has ended and accepts no more orders.
    #[error("the relay thread has ended; restart the service")]
    Gone,
}

/// A report of the relay and its time, since delivery may be delayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The report.
    pub event: RelayEvent,
    /// Time of the report.
    pub at: Instant,
}

impl From<Report> for RelayEvent {
    fn from(report: Report) -> Self {
        report.event
    }
}

/// The last heartbeat of the relay thread.
#[derive(Clone, Debug)]
pub struct RelayPulse {
    started: Instant,
    /// Milliseconds since `started`, or [`GONE`].
    last: Arc<AtomicU64>,
}

impl RelayPulse {
    fn new() -> Self {
        Self { started: Instant::now(), last: Arc::new(AtomicU64::new(0)) }
    }

    /// Time since the last heartbeat; `None` once the thread has ended.
    pub fn silent(&self) -> Option<Duration> {
        match self.last.load(Ordering::Relaxed) {
            GONE => None,
            last => Some(self.started.elapsed().saturating_sub(Duration::from_millis(last))),
        }
    }

    fn beat(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(GONE - 1);
        self.last.store(now, Ordering::Relaxed);
    }

    fn gone(&self) {
        self.last.store(GONE, Ordering::Relaxed);
    }
}

/// Marks the thread as ended if it panics.
struct Ending(RelayPulse);

impl Drop for Ending {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.gone();
        }
    }
}

/// The device that the thread drives; each call may block.
trait Device: Send + 'static {
    fn connect(&mut self, on: bool) -> Result<(), RelayError>;
    fn switch(&mut self, on: bool) -> Result<(), RelayError>;
    fn check(&mut self, on: bool) -> Result<bool, RelayError>;
    fn disconnect(&mut self);
}

impl Device for Relay {
    fn connect(&mut self, on: bool) -> Result<(), RelayError> {
        self.connect(on)
    }

    fn switch(&mut self, on: bool) -> Result<(), RelayError> {
        self.switch(on)
    }

    fn check(&mut self, on: bool) -> Result<bool, RelayError> {
        self.check(on)
    }

    fn disconnect(&mut self) {
        self.disconnect();
    }
}

/// A relay on its own thread. Dropping it switches the relay off and releases it, within
/// 3 seconds.
#[derive(Debug)]
pub struct RelayLink {
    orders: Option<SyncSender<Command>>,
    newest: Arc<AtomicU32>,
    heard: Arc<AtomicBool>,
    pulse: RelayPulse,
    ended: Receiver<()>,
}

impl RelayLink {
    /// Starts the thread, which opens the relay, locks the door and then accepts orders.
    /// Failures are reported to `events` and retried. `locked` is the relay's state while
    /// the door is locked. If the thread gets neither an order nor [`Self::alive`] for
    /// the time `silence`, it switches a relay that is on off.
    pub fn start<E: From<Report> + Send + 'static>(
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
        Self::drive(relay, LinkSettings { locked, check_every, silence }, events)
    }

    fn drive<E: From<Report> + Send + 'static>(
        device: impl Device,
        settings: LinkSettings,
        events: SyncSender<E>,
    ) -> Result<Self, RelayError> {
        let (orders, taken) = sync_channel(MAX_ORDERS);
        let (end, ended) = sync_channel(1);
        let heard = Arc::new(AtomicBool::new(false));
        let newest = Arc::new(AtomicU32::new(0));
        let pulse = RelayPulse::new();
        let mut driver = Driver {
            device,
            link: Link::new(Duration::ZERO, settings),
            started: Instant::now(),
            newest: newest.clone(),
            heard: heard.clone(),
            pulse: pulse.clone(),
            events,
            unreported: Unreported::default(),
        };
        let thread = std::thread::Builder::new().name("relay".to_owned());
        let ending = Ending(pulse.clone());
        let run = move || {
            let _ending = ending;
            driver.run(&taken);
            // Nobody may wait for it any more.
            let _ = end.try_send(());
        };
        match thread.spawn(run) {
            Ok(_) => Ok(Self { orders: Some(orders), newest, heard, pulse, ended }),
            Err(reason) => Err(RelayError::Port {
                port: "relay thread".to_owned(),
                reason: reason.to_string(),
            }),
        }
    }

    /// Gives an order. It replaces all earlier orders that are not carried out yet, and
    /// its answer is reported. On an error the order is not accepted and no answer
    /// follows. `at_most` is the maximum on-time; then the relay locks by itself.
    /// Repeating the order number restarts it; a repetition is answered only if it is
    /// refused, because the relay is unreachable or a later order came first.
    pub fn order(
        &self,
        number: u32,
        on: bool,
        at_most: Option<Duration>,
    ) -> Result<(), NotOrdered> {
        self.newest.store(number, Ordering::Relaxed);
        let orders = self.orders.as_ref().ok_or(NotOrdered::Gone)?;
        orders.try_send(Command { number, on, at_most }).map_err(|error| match error {
            TrySendError::Full(_) => NotOrdered::Busy,
            TrySendError::Disconnected(_) => {
                self.pulse.gone();
                NotOrdered::Gone
            }
        })
    }

    /// The heartbeat of the thread, for the watchdog.
    pub fn pulse(&self) -> RelayPulse {
        self.pulse.clone()
    }

    /// Heartbeat of the service, which gives the orders.
    pub fn alive(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }
}

impl Drop for RelayLink {
    fn drop(&mut self) {
        self.orders = None;
        // A thread that hangs is not waited for any longer.
        let _ = self.ended.recv_timeout(END_WITHIN);
    }
}

/// Reports that could not be delivered yet: the latest of each kind, because it makes the
/// earlier ones obsolete.
#[derive(Debug, Default)]
struct Unreported(heapless::Deque<Report, MAX_UNREPORTED>);

impl Unreported {
    fn push(&mut self, event: RelayEvent) {
        for _ in 0..self.0.len() {
            let before = self.0.pop_front();
            if let Some(before) = before.filter(|before| kind(&before.event) != kind(&event)) {
                // It was in the queue before, so there is room.
                let _ = self.0.push_back(before);
            }
        }
        // There is room for one of each kind.
        let _ = self.0.push_back(Report { event, at: Instant::now() });
    }

    fn report<E: From<Report>>(&mut self, events: &SyncSender<E>) {
        while let Some(report) = self.0.front() {
            match events.try_send(E::from(report.clone())) {
                Err(TrySendError::Full(_)) => break,
                // Without a receiver the report is dropped.
                Ok(()) | Err(TrySendError::Disconnected(_)) => drop(self.0.pop_front()),
            }
        }
    }
}

fn kind(event: &RelayEvent) -> usize {
    match event {
        RelayEvent::Answer { .. } => 0,
        RelayEvent::Away { .. } | RelayEvent::Back { .. } => 1,
        RelayEvent::Drifted { .. } => 2,
        RelayEvent::Abandoned | RelayEvent::Expired => 3,
    }
}

struct Driver<D, E> {
    device: D,
    link: Link,
    started: Instant,
    /// Number of the newest order, in the queue or not.
    newest: Arc<AtomicU32>,
    heard: Arc<AtomicBool>,
    pulse: RelayPulse,
    events: SyncSender<E>,
    unreported: Unreported,
}

impl<D: Device, E: From<Report>> Driver<D, E> {
    fn run(&mut self, orders: &Receiver<Command>) {
        loop {
            self.pulse.beat();
            if self.heard.swap(false, Ordering::Relaxed) {
                self.carry_out(Input::Heard);
            }
            self.carry_out(Input::Tick);
            self.unreported.report(&self.events);
            let (wait, slept) = (self.wait(), Instant::now());
            let order = orders.recv_timeout(wait);
            if slept.elapsed() >= wait + OVERSLEPT {
                self.carry_out(Input::Overslept);
            }
            match order {
                Ok(first) => self.carry_out_newest(first, orders),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if let Err(error) = self.device.switch(false) {
            log::error!("cannot switch the relay off at the end: {error}");
        }
        self.device.disconnect();
    }

    fn wait(&self) -> Duration {
        let due = self.link.due().map(|due| due.saturating_sub(self.started.elapsed()));
        let again = (!self.unreported.0.is_empty()).then_some(REPORT_AGAIN_AFTER);
        due.into_iter().chain(again).min().unwrap_or(BEAT_EVERY).min(BEAT_EVERY)
    }

    /// Carries out only the newest order. Earlier ones piled up while the device was
    /// busy. An order to open that was withdrawn meanwhile must not open the door seconds
    /// later, even if the order to lock found no room in the queue.
    fn carry_out_newest(&mut self, first: Command, orders: &Receiver<Command>) {
        let mut newest = first;
        for command in orders.try_iter() {
            if newest.number != command.number {
                self.supersede(newest);
            }
            newest = command;
        }
        if newest.number == self.newest.load(Ordering::Relaxed) {
            self.carry_out(Input::Order(newest));
        } else {
            self.supersede(newest);
        }
    }

    fn supersede(&mut self, Command { number: order, .. }: Command) {
        let error = Some("superseded by a later order".to_owned());
        self.unreported.push(RelayEvent::Answer { order, taken: false, error });
        self.unreported.report(&self.events);
    }

    /// Feeds an event to the link, carries out its action, and feeds back the result
    /// until no action is left.
    fn carry_out(&mut self, input: Input) {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let output = self.link.step(self.started.elapsed(), input);
            for event in output.events {
                self.unreported.push(event);
            }
            self.pulse.beat();
            let done = match output.device {
                None => break,
                Some(DeviceAction::Close) => {
                    self.device.disconnect();
                    break;
                }
                Some(DeviceAction::Open(on)) => self.device.connect(on).map(|()| Input::Opened),
                Some(DeviceAction::Switch(on)) => self.device.switch(on).map(|()| Input::Switched),
                Some(DeviceAction::Check(on)) => {
                    self.device.check(on).map(|as_ordered| Input::Checked { as_ordered })
                }
            };
            // Deliver reports before the next device call, which may block.
            self.unreported.report(&self.events);
            next = Some(done.unwrap_or_else(|error| Input::Failed(error.to_string())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn answer(order: u32) -> RelayEvent {
        RelayEvent::Answer { order, taken: true, error: None }
    }

    fn superseded(order: u32) -> RelayEvent {
        RelayEvent::Answer {
            order,
            taken: false,
            error: Some("superseded by a later order".to_owned()),
        }
    }

    /// A relay that takes as long to switch as the test wants.
    struct Slow {
        begun: SyncSender<bool>,
        go_on: Receiver<()>,
    }

    impl Device for Slow {
        fn connect(&mut self, _: bool) -> Result<(), RelayError> {
            Ok(())
        }

        fn switch(&mut self, on: bool) -> Result<(), RelayError> {
            // At the end of a test nobody receives.
            let _ = self.begun.try_send(on);
            let _ = self.go_on.recv();
            Ok(())
        }

        fn check(&mut self, _: bool) -> Result<bool, RelayError> {
            Ok(true)
        }

        fn disconnect(&mut self) {}
    }

    /// A slow relay that is locked.
    struct Site {
        /// First, so that it is dropped first, which unblocks the relay.
        go_on: SyncSender<()>,
        link: RelayLink,
        event: Receiver<RelayEvent>,
        begun: Receiver<bool>,
    }

    impl Site {
        fn locked() -> Self {
            let (events, event) = sync_channel(16);
            let (begin, begun) = sync_channel(16);
            let (go_on, go) = sync_channel(16);
            let settings = LinkSettings { locked: false, check_every: [None; 2], silence: None };
            let slow = Slow { begun: begin, go_on: go };
            let link = RelayLink::drive(slow, settings, events).expect("a link");
            let site = Self { go_on, link, event, begun };
            site.switched(false);
            site
        }

        #[track_caller]
        fn begins(&self, on: bool) {
            assert_eq!(self.begun.recv_timeout(PATIENCE), Ok(on));
        }

        #[track_caller]
        fn switched(&self, on: bool) {
            self.begins(on);
            self.go_on.send(()).expect("a relay");
        }

        #[track_caller]
        fn event(&self, expected: &[RelayEvent]) {
            for event in expected {
                assert_eq!(self.event.recv_timeout(PATIENCE).as_ref(), Ok(event));
            }
        }
    }

    #[test]
    fn orders_that_piled_up_are_given_up_but_for_the_newest() {
        let site = Site::locked();
        assert_eq!(site.link.order(1, true, None), Ok(()));
        site.begins(true);
        for (number, on) in [(2, false), (3, true), (4, false)] {
            assert_eq!(site.link.order(number, on, None), Ok(()));
        }
        site.go_on.send(()).expect("a relay");
        site.event(&[answer(1), superseded(2), superseded(3)]);
        site.switched(false);
        site.event(&[answer(4)]);
    }

    #[test]
    fn an_order_to_open_does_not_outlive_one_to_lock_that_found_no_room() {
        let site = Site::locked();
        assert_eq!(site.link.order(1, false, None), Ok(()));
        site.begins(false);
        for (number, on) in [(2, false), (3, true), (4, false), (5, true)] {
            assert_eq!(site.link.order(number, on, None), Ok(()));
        }
        assert_eq!(site.link.order(6, false, None), Err(NotOrdered::Busy));
        site.go_on.send(()).expect("a relay");
        site.event(&[answer(1), superseded(2), superseded(3), superseded(4), superseded(5)]);
        assert_eq!(site.link.order(7, false, None), Ok(()));
        site.switched(false);
        site.event(&[answer(7)]);
    }

    #[test]
    fn unsent_reports_keep_the_latest_of_each_kind() {
        let (events, heard) = sync_channel::<RelayEvent>(1);
        let mut unreported = Unreported::default();
        unreported.report(&events);
        let away = || RelayEvent::Away { error: "gone".to_owned() };
        for event in
            [answer(1), away(), answer(2), RelayEvent::Abandoned, RelayEvent::Drifted { on: true }]
        {
            unreported.push(event);
        }
        unreported.push(RelayEvent::Back { away: Duration::ZERO });
        let mut got = vec![];
        for _ in 0..5 {
            unreported.report(&events);
            got.extend(heard.try_recv());
        }
        let back = RelayEvent::Back { away: Duration::ZERO };
        assert_eq!(got, [answer(2), RelayEvent::Abandoned, RelayEvent::Drifted { on: true }, back]);
        drop(heard);
        unreported.push(answer(3));
        unreported.report(&events);
        assert!(unreported.0.is_empty());
    }

    #[test]
    fn a_thread_that_hangs_is_silent_and_one_that_panics_is_gone() {
        let site = Site::locked();
        let pulse = site.link.pulse();
        assert_eq!(site.link.order(1, true, None), Ok(()));
        site.begins(true);
        // The thread now blocks in the device's call.
        let silent = pulse.silent().expect("a thread");
        while pulse.silent().expect("a thread") <= silent + BEAT_EVERY * 2 {
            std::thread::sleep(Duration::from_millis(20));
        }
        site.go_on.send(()).expect("a relay");
        site.event(&[answer(1)]);
        assert!(pulse.silent().expect("a thread") < PATIENCE);

        struct Broken;
        impl Device for Broken {
            fn connect(&mut self, _: bool) -> Result<(), RelayError> {
                panic!("a driver with a fault");
            }
            fn switch(&mut self, _: bool) -> Result<(), RelayError> {
                Ok(())
            }
            fn check(&mut self, _: bool) -> Result<bool, RelayError> {
                Ok(true)
            }
            fn disconnect(&mut self) {}
        }
        let (events, event) = sync_channel::<RelayEvent>(1);
        let settings = LinkSettings { locked: false, check_every: [None; 2], silence: None };
        let link = RelayLink::drive(Broken, settings, events).expect("a link");
        assert!(event.recv_timeout(PATIENCE).is_err(), "the thread has ended");
        // Its channel may close a moment later.
        let started = Instant::now();
        while link.order(1, true, None) != Err(NotOrdered::Gone) {
            assert!(started.elapsed() < PATIENCE);
        }
        assert_eq!(link.pulse().silent(), None);
    }

    #[test]
    fn the_log_takes_its_orders_and_is_switched_off_at_the_end() {
        let (events, heard) = sync_channel::<RelayEvent>(8);
        let relay = Relay::open("log:").expect("a relay");
        let link = RelayLink::start(relay, false, None, events).expect("a link");
        assert_eq!(link.order(1, true, None), Ok(()));
        assert_eq!(heard.recv_timeout(PATIENCE), Ok(answer(1)));
        drop(link);
        assert!(heard.recv_timeout(PATIENCE).is_err(), "the thread has ended");
    }

    #[cfg(feature = "serial")]
    #[test]
    fn a_flash_is_not_for_a_lock_that_opens_without_power() {
        let relay = Relay::open("serial:/dev/x?protocol=modbus&flash=10s").expect("a relay");
        let (events, _heard) = sync_channel::<RelayEvent>(1);
        let error = RelayLink::start(relay, true, None, events).expect_err("not for it");
        assert!(error.to_string().contains("fail-safe"), "{error}");
    }
}
