//! Orders to the relay, and what its answers mean for the door.

use crate::access::controller::Input;
use crate::access::door::{self, Door, Order, State};
use crate::access::event::Event;
use crate::hardware::relay::link::RelayEvent;
use crate::hardware::relay::{Relay, RelayLink};
use std::time::Duration;

/// An open relay locks by itself this long after the door should have ordered it.
const LATE: Duration = Duration::from_secs(2);

/// The relay, as a frame source needs it.
pub enum RelayHandle {
    /// Answers before the call returns: for recorded frames, whose time stands still.
    Direct(Relay),
    /// Answers later, from a thread of its own; its answers come back by
    /// [`super::pipeline::Pipeline::relay_report`].
    Link(RelayLink),
}

/// The relay with its current order.
pub(super) struct Actuator {
    relay: RelayHandle,
    /// The relay is unreachable.
    away: bool,
    /// The last fault that was reported.
    reported: Option<String>,
    /// The newest order.
    order: Option<Order>,
    /// Until when the newest order counts; `None` for an order without an end.
    until: Option<Duration>,
}

/// What an answer of the relay means: events before and after an input of the controller.
#[derive(Debug, Default)]
pub(super) struct Reaction {
    pub before: Option<Event>,
    pub input: Option<Input<'static>>,
    pub after: Option<Event>,
}

impl Actuator {
    pub fn new(relay: RelayHandle) -> Self {
        Self { relay, away: false, reported: None, order: None, until: None }
    }

    /// Whether the relay has a thread of its own.
    pub fn is_link(&self) -> bool {
        matches!(self.relay, RelayHandle::Link(_))
    }

    /// Tells the relay's thread that the service is alive.
    pub fn alive(&self) {
        if let RelayHandle::Link(link) = &self.relay {
            link.alive();
        }
    }

    /// Gives an order. The result is that of a direct relay, or of a link that does not
    /// accept orders; `None` if the answer comes later.
    pub fn order(
        &mut self,
        now: Duration,
        order: Order,
        door: &Door,
    ) -> Option<Result<(), String>> {
        self.order = Some(order);
        let until = counts_until(order, door);
        match &mut self.relay {
            RelayHandle::Direct(relay) => {
                Some(relay.switch(order.energise).map_err(|error| error.to_string()))
            }
            RelayHandle::Link(link) => {
                match link.order(order.number, order.energise, late(now, until)) {
                    Ok(()) => {
                        self.until = until;
                        None
                    }
                    Err(reason) => Some(Err(reason.to_string())),
                }
            }
        }
    }

    /// Extends the newest order: a second grant of an open lock gives no new order, only
    /// more time.
    pub fn renew(&mut self, now: Duration, door: &Door) {
        let (RelayHandle::Link(link), Some(order), State::Open) =
            (&self.relay, self.order, door.state())
        else {
            return;
        };
        let until = counts_until(order, door);
        // A busy link gets it with the next tick.
        if until != self.until && link.order(order.number, order.energise, late(now, until)).is_ok()
        {
            self.until = until;
        }
    }

    /// Takes a report of the relay's thread.
    pub fn report(&mut self, event: RelayEvent, door: &Door) -> Reaction {
        let failed = |reason: &str| Some(Event::RelayFailed(reason.to_owned()));
        match event {
            RelayEvent::Answer { order, taken, error } => {
                let newest = self.order.filter(|last| last.number == order);
                let opens = newest.is_some_and(|last| last.energise != door.idle());
                // An order that was replaced by a later one is no fault, and an unreachable
                // relay was reported already.
                let error = error.filter(|_| newest.is_some() && (opens || !self.away));
                self.reported.clone_from(&error);
                let input = Some(Input::Door(door::Input::Answer { order, taken }));
                Reaction { before: error.map(Event::RelayFailed), input, after: None }
            }
            RelayEvent::Away { error } => {
                self.away = true;
                // The order that failed may have reported the same fault.
                let after =
                    (self.reported.as_ref() != Some(&error)).then_some(Event::RelayFailed(error));
                Reaction { before: None, input: Some(Input::Door(door::Input::RelayAway)), after }
            }
            RelayEvent::Back { .. } => {
                self.away = false;
                self.reported = None;
                let input = Some(Input::Door(door::Input::RelayBack));
                Reaction { input, ..Reaction::default() }
            }
            RelayEvent::Drifted { on } => {
                let (was, should) = if on { ("off", "on") } else { ("on", "off") };
                let fault = format!(
                    "was {was} but should be {should}; set again; does something else switch it?"
                );
                Reaction { before: Some(Event::RelayFailed(fault)), ..Reaction::default() }
            }
            RelayEvent::Abandoned => Reaction {
                before: failed("switched off: the service gave no sign of life for too long"),
                input: Some(Input::Door(door::Input::RelayBack)),
                after: None,
            },
            RelayEvent::Expired => Reaction {
                before: failed(
                    "locked at its maximum on-time: the service did not order it in time",
                ),
                input: Some(Input::Door(door::Input::RelayBack)),
                after: None,
            },
        }
    }
}

/// Until when an order counts: one that opens, only as long as the door is wanted open.
fn counts_until(order: Order, door: &Door) -> Option<Duration> {
    let stops = matches!(door.state(), State::Stopping { .. } | State::Stopped);
    if stops || order.energise == door.idle() { None } else { door.open_until() }
}

/// Maximum on-time of the relay, counted from `now`.
fn late(now: Duration, until: Option<Duration>) -> Option<Duration> {
    until.map(|until| until.saturating_sub(now) + LATE)
}
