//! EDGE: the lights and the buzzer, on a thread that keeps their time.

pub mod player;

use crate::access::signal::Signal;
use crate::hardware::backoff::Retry;
use crate::hardware::gpio::{GpioError, Line, Output};
use player::{Levels, Player};
use std::fmt;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two tries to tell what could not be told.
const TELL_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// Without anything due.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// One of the lamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lamp {
    /// The red light.
    Red,
    /// The green light.
    Green,
    /// The blue light.
    Blue,
    /// The buzzer.
    Buzzer,
}

impl fmt::Display for Lamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Red => "red light",
            Self::Green => "green light",
            Self::Blue => "blue light",
            Self::Buzzer => "buzzer",
        })
    }
}

impl Lamp {
    fn of(self, levels: Levels) -> bool {
        match self {
            Self::Red => levels.red,
            Self::Green => levels.green,
            Self::Blue => levels.blue,
            Self::Buzzer => levels.buzzer,
        }
    }
}

/// What happened to a lamp. The others go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LampEvent {
    /// It cannot be switched; it is tried until it can. Told once, and again when the
    /// reason is another.
    Away {
        /// Which.
        lamp: Lamp,
        /// Why.
        error: String,
    },
    /// It can be switched again.
    Back {
        /// Which.
        lamp: Lamp,
    },
}

/// The lamps of a door, dark again when this is dropped.
#[derive(Debug)]
pub struct Lamps {
    shared: Arc<(Mutex<Slot>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

/// What is to be shown and was not yet, and whether it is over.
#[derive(Debug, Default)]
struct Slot {
    /// The newest alarm, or that it ended: never lost.
    standing: Option<Signal>,
    /// The newest of all others.
    passing: Option<Signal>,
    stop: bool,
}

impl Slot {
    fn put(&mut self, signal: Signal) {
        if signal.stands() {
            // At once, and what came before it is not worth the wait.
            (self.standing, self.passing) = (Some(signal), None);
        } else if signal == Signal::Quiet {
            self.standing = Some(signal);
        } else {
            self.passing = Some(signal);
        }
    }

    /// The next to be shown.
    fn take(&mut self) -> Option<Signal> {
        self.standing.take().or_else(|| self.passing.take())
    }

    fn is_empty(&self) -> bool {
        self.standing.is_none() && self.passing.is_none()
    }
}

impl Lamps {
    /// Takes these lines, dark at first. One that is not there is told and tried again.
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

    /// Shows a signal, at once and instead of the one before; an alarm goes on after it.
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
            // One that has panicked holds no line any more.
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
    /// Sets the lamp where it is not so.
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

    /// Whether there is still something to tell.
    fn tell<E: From<LampEvent>>(&mut self, events: &SyncSender<E>) -> bool {
        if let Some(event) = &self.untold {
            match events.try_send(E::from(event.clone())) {
                Err(TrySendError::Full(_)) => return true,
                // Where nobody listens there is nothing to tell.
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
    fn a_lamp_that_is_not_there_is_told_once_whatever_is_shown() {
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
