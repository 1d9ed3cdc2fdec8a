//! EDGE: threads that watch input lines, one per line, so that no line delays another.

use super::DEBOUNCE;
use super::chip::{GpioError, request};
use super::input_state::{Clock, InputState, LineEvent};
use super::line::Line;
use super::line::Name;
use crate::hardware::backoff::Retry;
use gpiocdev::Request;
use gpiocdev::line::{EdgeDetection, EdgeKind, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Interval of reading the level without an edge, which finds lost edges and missing
/// chips.
const READ_EVERY: Duration = Duration::from_millis(500);
/// Delay before an undelivered event is tried again.
const TELL_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// Most edges per round, so that an oscillating line does not block the rest.
const MAX_EDGES: usize = 32;

/// Threads that watch input lines. Dropping this ends them, within half a second.
#[derive(Debug)]
pub struct Inputs {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Inputs {
    /// Watches these lines. The first level of each is reported, then every change; times
    /// count from `started`. A line that cannot be used is reported and retried. An error
    /// if a thread cannot be started.
    pub fn open<E: From<LineEvent> + Send + 'static>(
        lines: &[(Name, Line)],
        started: Instant,
        events: &SyncSender<E>,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut inputs = Self { stop: stop.clone(), threads: Vec::with_capacity(lines.len()) };
        for (name, line) in lines {
            let (name, line, events, stop) = (*name, line.clone(), events.clone(), stop.clone());
            let watcher = Watcher {
                name,
                line,
                started,
                events,
                held: None,
                watch: InputState::new(name),
                clock: Clock::default(),
                retry: Retry::default(),
                untold: None,
            };
            let thread = std::thread::Builder::new().name(name.to_string());
            inputs.threads.push(thread.spawn(move || watcher.run(&stop))?);
        }
        Ok(inputs)
    }
}

impl Drop for Inputs {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has released its line.
            let _ = thread.join();
        }
    }
}

struct Watcher<E> {
    name: Name,
    line: Line,
    started: Instant,
    events: SyncSender<E>,
    held: Option<Request>,
    watch: InputState,
    clock: Clock,
    retry: Retry,
    /// An away or back event that is not delivered yet.
    untold: Option<LineEvent>,
}

impl<E: From<LineEvent>> Watcher<E> {
    fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            match self.held.take() {
                Some(request) => match self.listen(&request) {
                    Ok(()) => self.held = Some(request),
                    Err(error) => self.away(&GpioError::failed(&self.line, &error)),
                },
                None if self.now() >= self.retry.due() => self.open(),
                None => std::thread::sleep(self.wait(Some(self.retry.due()))),
            }
            if self.tell().is_err() {
                return;
            }
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Time to wait for an edge: until `due`, the next delivery attempt or the next
    /// reading.
    fn wait(&self, due: Option<Duration>) -> Duration {
        let due = due.map(|due| due.saturating_sub(self.now()));
        let untold = self.untold.is_some() || self.watch.owed().is_some();
        let again = untold.then_some(TELL_AGAIN_AFTER);
        due.into_iter().chain(again).min().unwrap_or(READ_EVERY).min(READ_EVERY)
    }

    /// Waits for edges and processes them; without one, reads the level.
    fn listen(&mut self, request: &Request) -> Result<(), gpiocdev::Error> {
        // An interrupted wait, such as by a signal, is no fault.
        let edges = request.wait_edge_event(self.wait(self.watch.due())).unwrap_or(false);
        if edges {
            for _ in 0..MAX_EDGES {
                let edge = request.read_edge_event()?;
                let at = self.clock.at(Duration::from_nanos(edge.timestamp_ns), self.now());
                self.watch.edge(at, edge.kind == EdgeKind::Rising);
                if !request.has_edge_event()? {
                    break;
                }
            }
        } else {
            let active = request.lone_value()? == Value::Active;
            self.watch.level(self.now(), active);
        }
        self.watch.tick(self.now());
        Ok(())
    }

    fn open(&mut self) {
        match self.request() {
            Ok((request, period, active)) => {
                self.watch.begin(self.now(), period, active);
                self.held = Some(request);
                if self.retry.succeeded() {
                    self.untold = Some(LineEvent::Back { name: self.name });
                }
            }
            Err(error) => self.away(&error),
        }
    }

    /// The open line, the debounce period that is left to this program, and the level.
    fn request(&self) -> Result<(Request, Duration, bool), GpioError> {
        let period = self.line.debounce.unwrap_or(DEBOUNCE);
        let ask = |period: Duration| {
            request(&self.line, |builder| {
                builder.as_input().with_edge_detection(EdgeDetection::BothEdges);
                if !period.is_zero() {
                    builder.with_debounce_period(period);
                }
            })
        };
        let (request, left) = match ask(period) {
            // The driver cannot do this period.
            Err(GpioError::Failed { .. }) if !period.is_zero() => (ask(Duration::ZERO)?, period),
            asked => (asked?, Duration::ZERO),
        };
        match request.lone_value() {
            Ok(value) => Ok((request, left, value == Value::Active)),
            Err(error) => Err(GpioError::failed(&self.line, &error)),
        }
    }

    fn away(&mut self, error: &GpioError) {
        let error = error.to_string();
        if self.retry.failed(self.now(), &error) {
            self.untold = Some(LineEvent::Away { name: self.name, error });
        }
    }

    /// Delivers as many events as the channel has room for; an error if the receiver is
    /// gone.
    fn tell(&mut self) -> Result<(), ()> {
        if let Some(event) = &self.untold {
            match self.events.try_send(E::from(event.clone())) {
                Ok(()) => self.untold = None,
                Err(TrySendError::Full(_)) => return Ok(()),
                Err(TrySendError::Disconnected(_)) => return Err(()),
            }
        }
        while let Some((active, at)) = self.watch.owed() {
            let event = LineEvent::Edge { name: self.name, active, at };
            match self.events.try_send(E::from(event)) {
                Ok(()) => self.watch.paid(),
                Err(TrySendError::Full(_)) => break,
                Err(TrySendError::Disconnected(_)) => return Err(()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

    #[test]
    fn a_missing_line_is_reported_once_and_the_others_work() {
        let (events, heard) = sync_channel::<LineEvent>(1);
        let line: Line = "gpio:/dev/no-such-chip/4".parse().expect("a line");
        let lines = [(Name::Contact, line.clone()), (Name::Exit, line)];
        let inputs = Inputs::open(&lines, Instant::now(), &events).expect("threads");
        let mut away = vec![];
        for _ in 0..2 {
            match heard.recv_timeout(Duration::from_secs(10)).expect("an event") {
                LineEvent::Away { name, error } => {
                    assert!(error.contains("no such GPIO chip"), "{error}");
                    away.push(name);
                }
                event => panic!("{event:?}"),
            }
        }
        assert!(away.contains(&Name::Contact) && away.contains(&Name::Exit));
        drop((inputs, events));
        assert!(heard.recv().is_err(), "both threads have ended, with nothing more to tell");
    }
}
