//! Orders from the control socket: carried out between two frames, answered once the status
//! shows what they did.

use super::control::{Begun, Command, Control, Order, OrderQueue};
use super::passages::Passages;
use super::pipeline::Pipeline;
use super::reload::Reload;
use super::site::{Passage, Site};
use super::status::DoorNow;
use crate::access::controller::Input;
use crate::access::door::{self, State};
use crate::access::event::Event;
use crate::storage::lockdown::LockdownWriter;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// Time limit for the answer to an order to open. The door itself gives a relay two
/// seconds.
const OPENS_WITHIN: Duration = Duration::from_secs(3);

/// Orders in progress.
pub(super) struct Orders {
    control: Option<(Control, Receiver<Order>)>,
    /// Orders to open that the relay has not answered, with their time limits.
    opening: Vec<(Begun, Duration)>,
    /// Finished orders, to be answered once the status shows what they did.
    done: Vec<(Begun, Result<String, String>)>,
    lockdown: LockdownWriter,
    /// Orders whose effect on lockdown is being written, in turn.
    writing: VecDeque<Writing>,
    /// The site of the door.
    site: Option<Arc<Site>>,
    /// Passages at other doors.
    passages: Passages,
}

/// An order whose effect on lockdown is being written.
struct Writing {
    begun: Begun,
    /// Lockdown ends once this is written.
    ends: bool,
}

impl Orders {
    pub fn new(control: Option<(Control, Receiver<Order>)>, lockdown: LockdownWriter) -> Self {
        let (opening, done, writing) = (Vec::new(), Vec::new(), VecDeque::new());
        let passages = Passages::default();
        Self { control, opening, done, lockdown, writing, site: None, passages }
    }

    /// Takes orders about this site, and passages at its other doors.
    pub fn set_site(&mut self, site: Arc<Site>) {
        self.site = Some(site);
    }

    /// The way of orders to the service; `None` without a control socket.
    pub fn queue(&self) -> Option<OrderQueue> {
        self.control.as_ref().map(|(control, _)| control.queue())
    }

    /// Takes up lockdown if it held when the last service ended, or was ordered since.
    pub fn restore(&self, pipeline: &mut Pipeline) -> Vec<Event> {
        if let Some((control, _)) = &self.control {
            // First: an order in between would be in neither the file nor the queue.
            control.started();
        }
        if !self.lockdown.file().holds() {
            return Vec::new();
        }
        log::warn!("lockdown holds since before this start; facelatch door normal ends it");
        command(pipeline, Duration::ZERO, door::Command::Lockdown)
    }

    /// Carries out new orders and continues those in progress. `relay` is the state of the
    /// relay, for answers.
    pub fn visit(
        &mut self,
        pipeline: &mut Pipeline,
        now: Duration,
        reload: &Reload,
        relay: &str,
    ) -> Vec<Event> {
        let mut events = self.control.as_ref().map_or_else(Vec::new, |(one, _)| one.refused());
        while let Some(order) = self.control.as_ref().and_then(|(_, orders)| orders.try_recv().ok())
        {
            if let Some(begun) = order.begin() {
                let ends_lockdown = ends_lockdown(pipeline, &begun.command);
                if !ends_lockdown {
                    events.push(ordered(pipeline, now, &begun));
                }
                events.extend(self.begin(pipeline, now, begun, reload));
            }
        }
        events.extend(self.written(pipeline, now));
        self.opened(pipeline, now, relay);
        events.extend(self.passages(pipeline, now));
        events
    }

    /// Takes in who passed at other doors of the site.
    fn passages(&mut self, pipeline: &mut Pipeline, now: Duration) -> Vec<Event> {
        let Some(site) = &self.site else { return Vec::new() };
        let mut events = Vec::new();
        for Passage { person, role, ago } in site.passages() {
            if self.passages.plausible(now, ago, person) {
                let passed = door::Input::Passed { person, role, ago };
                events.extend(pipeline.input(now, Input::Door(passed)));
            }
        }
        events
    }

    /// Whether orders wait for an answer.
    pub fn any_done(&self) -> bool {
        !self.done.is_empty()
    }

    /// Answers the finished orders. The status must show what they did.
    pub fn answer_all(&mut self) {
        for (begun, answer) in self.done.drain(..) {
            begun.answer(answer);
        }
    }

    fn begin(
        &mut self,
        pipeline: &mut Pipeline,
        now: Duration,
        begun: Begun,
        reload: &Reload,
    ) -> Vec<Event> {
        let order = match begun.command.clone() {
            Command::Door(order) => order,
            Command::Site(order) => {
                match &self.site {
                    // Its thread answers.
                    Some(site) => site.order(order, begun),
                    None => {
                        let no = "this door is in no site; set site.key in the configuration, and \
                                  restart the service";
                        self.finish(begun, Err(no.to_owned()));
                    }
                }
                return Vec::new();
            }
            Command::LocalReset => {
                let events = pipeline.input(now, Input::LocalReset);
                let did = "the first person may now be enrolled with the button";
                self.finish(begun, Ok(did.to_owned()));
                return events;
            }
            Command::TrustClock => {
                let events = pipeline.input(now, Input::TrustClock);
                let did = match pipeline.clock_trusted(now) {
                    Some(true) => "the clock is trusted",
                    Some(false) => "the clock is not synchronized; it is trusted once it is",
                    None => "no setting of this door needs the clock",
                };
                self.finish(begun, Ok(did.to_owned()));
                return events;
            }
            Command::AcceptCamera => {
                let answer = if pipeline.accept_camera() {
                    Ok("the camera is trusted from its next frame on".to_owned())
                } else {
                    Err("the camera is the one that is trusted already".to_owned())
                };
                self.finish(begun, answer);
                return Vec::new();
            }
            Command::Reload => {
                reload.wanted.store(true, Ordering::Relaxed);
                let did = "the configuration is being read again; see the log";
                self.finish(begun, Ok(did.to_owned()));
                return Vec::new();
            }
        };
        if matches!(pipeline.door().state(), State::Stopping { .. } | State::Stopped) {
            self.finish(begun, Err("the service is stopping".to_owned()));
            return Vec::new();
        }
        // Lockdown ends only once no restart can bring it back.
        if ends_lockdown(pipeline, &begun.command) {
            self.write(begun, false, true);
            return Vec::new();
        }
        let events = command(pipeline, now, order);
        let refused = events
            .iter()
            .find(|event| matches!(event, Event::Door(door::Event::NotOpenedByCommand(_))))
            .map(Event::to_string);
        match (order, refused) {
            (_, Some(reason)) => self.finish(begun, Err(reason)),
            (door::Command::Open, None) => self.opening.push((begun, now + OPENS_WITHIN)),
            (door::Command::Lockdown, None) => self.write(begun, true, false),
            (door::Command::Normal, None) => self.write(begun, false, false),
            (door::Command::AlwaysOpen, None) => self.finish(begun, Ok(mode(pipeline))),
        }
        events
    }

    /// Queues a change of the lockdown file; the order is answered after it. `ends` is
    /// whether lockdown ends only then.
    fn write(&mut self, begun: Begun, lockdown: bool, ends: bool) {
        if lockdown {
            // A new lockdown overrides earlier orders to end it.
            self.writing.iter_mut().for_each(|writing| writing.ends = false);
        }
        if self.lockdown.set(lockdown) {
            self.writing.push_back(Writing { begun, ends });
        } else if ends {
            self.finish(begun, Err("the disk is busy; try again".to_owned()));
        } else {
            let did = "done, but a restart may undo it: the disk is busy; repeat the order";
            self.finish(begun, Ok(did.to_owned()));
        }
    }

    fn written(&mut self, pipeline: &mut Pipeline, now: Duration) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(done) = self.lockdown.written() {
            let Some(Writing { begun, ends }) = self.writing.pop_front() else { break };
            if ends {
                events.push(ordered(pipeline, now, &begun));
            }
            let answer = match done {
                Ok(()) => {
                    if ends {
                        events.extend(command(pipeline, now, door::Command::Normal));
                    }
                    Ok(mode(pipeline))
                }
                Err(error) if ends => Err(error.to_string()),
                Err(error) => {
                    let mode = mode(pipeline);
                    Ok(format!("{mode}, but a restart may undo it: {error}"))
                }
            };
            self.finish(begun, answer);
        }
        events
    }

    fn opened(&mut self, pipeline: &Pipeline, now: Duration, relay: &str) {
        for (begun, until) in std::mem::take(&mut self.opening) {
            match pipeline.door().state() {
                State::Open => self.finish(begun, Ok("opened by command".to_owned())),
                State::Granting { .. } if now < until => self.opening.push((begun, until)),
                _ => self.finish(begun, Err(format!("the relay did not open: {relay}"))),
            }
        }
    }

    fn finish(&mut self, begun: Begun, answer: Result<String, String>) {
        self.done.push((begun, answer));
    }
}

/// Whether an order ends lockdown, which happens only once that is on the disk.
fn ends_lockdown(pipeline: &Pipeline, command: &Command) -> bool {
    *command == Command::Door(door::Command::Normal)
        && pipeline.door().mode() == door::Mode::Lockdown
}

/// Writes an order to the audit log before it is carried out. Returns the event to report.
fn ordered(pipeline: &mut Pipeline, now: Duration, begun: &Begun) -> Event {
    let event = Event::Ordered { order: begun.command.to_string(), by: begun.by.clone() };
    pipeline.entries().early(now, &event);
    event
}

fn command(pipeline: &mut Pipeline, now: Duration, command: door::Command) -> Vec<Event> {
    pipeline.input(now, Input::Door(door::Input::Command(command)))
}

fn mode(pipeline: &Pipeline) -> String {
    format!("mode {}", DoorNow::of(pipeline.door()).mode)
}
