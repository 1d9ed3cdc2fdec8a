//! EDGE: the lights and the buzzer, on a thread that keeps their timing.

use super::player::{Lamp, Player};
use crate::access::signal::Signal;
use crate::hardware::backoff::Retry;
use crate::hardware::gpio::{GpioError, Line, Output};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Delay before an undelivered event is tried again.
const TELL_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// Longest wait when nothing is due.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// An event of one lamp. The others keep working.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LampEvent {
    /// The lamp cannot be switched and is retried. Reported once per fault.
    Away {
        /// The lamp.
        lamp: Lamp,
        /// The fault.
        error: String,
    },
    /// The lamp can be switched again.
    Back {
        /// The lamp.
        lamp: Lamp,
    },
}

/// The lamps of a door. Dropping this switches them off.
#[derive(Debug)]
pub struct Lamps {
    shared: Arc<(Mutex<Slot>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

/// Signals for the thread, and whether it is to end.
#[derive(Debug, Default)]
struct Slot {
    /// The newest alarm or end of an alarm; never dropped.
    standing: Option<Signal>,
    /// The newest other signal.
    passing: Option<Signal>,
    stop: bool,
}

impl Slot {
    fn put(&mut self, signal: Signal) {
        if signal.stands() {
            // An alarm starts at once and discards the signal before it.
            (self.standing, self.passing) = (Some(signal), None);
        } else if signal == Signal::Quiet {
            self.standing = Some(signal);
        } else {
            self.passing = Some(signal);
        }
    }

    /// The signal to show next.
    fn take(&mut self) -> Option<Signal> {
        self.standing.take().or_else(|| self.passing.take())
    }

    fn is_empty(&self) -> bool {
        self.standing.is_none() && self.passing.is_none()
    }
}

impl Lamps {
    /// Starts the thread and takes these lines, off at first. A line that cannot be used
    /// is reported and retried. An error if the thread cannot be started.
    pub fn start<E: From<LampEvent> + Send + 'static>(
        lines: &[(Lamp, Line)],
        events: SyncSender<E>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new((Mutex::new(Slot::default()), Condvar::new()));
        let wires = lines
            .iter()
            .map(|(lamp, line)| Wire {
                lamp: *lamp,
                line: line.clone(),
                output: None,
                set: false,
                retry: Retry::default(),
                untold: None,
            })
            .collect();
        let mut player = Bench { wires, events, started: Instant::now() };
        let slot = shared.clone();
        let thread = std::thread::Builder::new().name("lamps".to_owned());
        let thread = Some(thread.spawn(move || player.run(&slot))?);
        Ok(Self { shared, thread })
    }

    /// Shows a signal at once, in place of the one before. An alarm continues after it.
    pub fn show(&self, signal: Signal) {
        let (slot, changed) = &*self.shared;
        locked(slot).put(signal);
        changed.notify_one();
    }
}

impl Drop for Lamps {
    fn drop(&mut self) {
        let (slot, changed) = &*self.shared;
        locked(slot).stop = true;
        changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has released its lines.
            let _ = thread.join();
        }
    }
}

fn locked(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Wire {
    lamp: Lamp,
    line: Line,
    output: Option<Output>,
    set: bool,
    retry: Retry,
    untold: Option<LampEvent>,
}

impl Wire {
    /// Switches the lamp unless it is in this state already.
    fn set(&mut self, now: Duration, on: bool) {
        if self.output.is_some() && self.set == on || now < self.retry.due() {
            return;
        }
        let done = match &self.output {
            Some(output) => output.set(on),
            None => Output::open(&self.line, on).map(|output| self.output = Some(output)),
        };
        self.set = on;
        match done {
            Ok(()) => {
                if self.retry.succeeded() {
                    self.untold = Some(LampEvent::Back { lamp: self.lamp });
                }
            }
            Err(error) => self.failed(now, &error),
        }
    }

    fn failed(&mut self, now: Duration, error: &GpioError) {
        self.output = None;
        let error = error.to_string();
        if self.retry.failed(now, &error) {
            self.untold = Some(LampEvent::Away { lamp: self.lamp, error });
        }
    }

    /// Delivers the pending event; true if the channel was full.
    fn tell<E: From<LampEvent>>(&mut self, events: &SyncSender<E>) -> bool {
        if let Some(event) = &self.untold {
            match events.try_send(E::from(event.clone())) {
                Err(TrySendError::Full(_)) => return true,
                // Without a receiver the event is dropped.
                Ok(()) | Err(TrySendError::Disconnected(_)) => self.untold = None,
            }
        }
        false
    }
}

struct Bench<E> {
    wires: Vec<Wire>,
    events: SyncSender<E>,
    started: Instant,
}

impl<E: From<LampEvent>> Bench<E> {
    fn run(&mut self, shared: &(Mutex<Slot>, Condvar)) {
        let (slot, changed) = shared;
        let mut player = Player::default();
        let mut signal = None;
        loop {
            let now = self.started.elapsed();
            let lit = player.step(now, signal.take());
            let mut due = lit.until;
            for wire in &mut self.wires {
                wire.set(now, wire.lamp.of(lit.levels));
                let mut later = |at: Duration| due = Some(due.map_or(at, |due| due.min(at)));
                if wire.output.is_none() {
                    later(wire.retry.due());
                }
                if wire.tell(&self.events) {
                    later(now + TELL_AGAIN_AFTER);
                }
            }
            let wait = due.map_or(LONGEST_WAIT, |due| due.saturating_sub(self.started.elapsed()));
            let (mut guard, _) = changed
                .wait_timeout_while(locked(slot), wait, |slot| slot.is_empty() && !slot.stop)
                .unwrap_or_else(PoisonError::into_inner);
            signal = guard.take();
            if guard.stop {
                break;
            }
        }
        for wire in &mut self.wires {
            wire.set(self.started.elapsed(), false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

    #[test]
    fn neither_an_alarm_nor_its_end_is_lost_among_other_signals() {
        let taken = |signals: &[Signal]| {
            let mut slot = Slot::default();
            signals.iter().for_each(|signal| slot.put(*signal));
            let taken: Vec<_> = std::iter::from_fn(|| slot.take()).collect();
            assert!(slot.is_empty());
            taken
        };
        use Signal::{CloseDoor, Quiet, Refused, Siren, Welcome};
        assert_eq!(taken(&[Siren, Refused, Welcome]), [Siren, Welcome]);
        assert_eq!(taken(&[Welcome, Quiet, Refused]), [Quiet, Refused]);
        assert_eq!(taken(&[Welcome, Quiet]), [Quiet, Welcome]);
        assert_eq!(taken(&[CloseDoor, Quiet, Welcome, Siren]), [Siren]);
        assert_eq!(taken(&[Siren, Welcome, Quiet]), [Quiet, Welcome]);
    }

    #[test]
    fn a_missing_lamp_is_reported_once() {
        let (events, heard) = sync_channel::<LampEvent>(4);
        let line: Line = "gpio:/dev/no-such-chip/4".parse().expect("a line");
        let lines = [(Lamp::Green, line.clone()), (Lamp::Buzzer, line)];
        let lamps = Lamps::start(&lines, events).expect("a thread");
        for lamp in [Lamp::Green, Lamp::Buzzer] {
            let event = heard.recv_timeout(Duration::from_secs(10)).expect("an event");
            match event {
                LampEvent::Away { lamp: which, error } => {
                    assert_eq!(which, lamp);
                    assert!(error.contains("no such GPIO chip"), "{error}");
                }
                LampEvent::Back { .. } => panic!("{event:?}"),
            }
        }
        for signal in [Signal::Welcome, Signal::Siren, Signal::Quiet] {
            lamps.show(signal);
        }
        drop(lamps);
        assert!(heard.recv().is_err(), "the thread has ended, with nothing more to tell");
    }
}
