use super::*;
use proptest::prelude::*;

fn event(number: u64) -> DoorEvent {
    DoorEvent { number, ..DoorEvent::default() }
}

fn hello(oldest: u64, newest: u64) -> DoorHello {
    DoorHello { oldest, newest, ..DoorHello::default() }
}

#[test]
fn a_new_receiver_gets_what_happens_from_now_on() {
    let mut events = Events::new(&[None, Some(5)]);
    assert_eq!(events.after(), Some(5));
    assert_eq!(events.hello(&hello(1, 9)), Welcome::default());
    assert_eq!(events.cursors(), [Some(9), Some(5)]);
    events.event(&event(8));
    assert_eq!(events.receiver(0).next_event(), None);
    assert_eq!(events.receiver(1).next_event(), Some(&event(8)));
    assert_eq!(Events::new(&[None]).after(), None);
}

#[test]
fn what_the_door_no_longer_has_is_counted() {
    let mut events = Events::new(&[Some(5)]);
    assert_eq!(events.hello(&hello(9, 20)).lost, 3);
    let mut events = Events::new(&[Some(5)]);
    assert_eq!(events.hello(&hello(6, 20)).lost, 0);
    // The door's log was reset: it was asked for events after 5 and has 2.
    let welcome = events.hello(&hello(1, 2));
    assert_eq!(welcome, Welcome { lost: 0, began_again: true });
    assert_eq!(events.after(), Some(2));
}

#[test]
fn a_broker_that_claims_too_much_silences_nothing() {
    let mut events = Events::new(&[Some(5)]);
    events.hello(&hello(1, 7));
    events.event(&event(6));
    events.receiver(0).arrived(u64::MAX, 7);
    assert_eq!(events.cursors(), [Some(5)]);
    events.receiver(0).arrived(6, 7);
    assert_eq!((events.cursors(), events.receiver(0).waiting()), (vec![Some(6)], 0));
    // And nothing is sent again by what it claims.
    events.receiver(0).arrived(2, 7);
    assert_eq!(events.cursors(), [Some(6)]);
}

/// A door's log, a link with its disk, and two receivers that may fail, in small steps.
struct World {
    log: Vec<u64>,
    newest: u64,
    /// Position in the log of the next event to send, and what was taken.
    at: usize,
    taken: u64,
    connected: bool,
    events: Events,
    saved: Vec<Option<u64>>,
    got: [Vec<u64>; 2],
    /// What the first receiver still retains.
    retained: u64,
}

impl World {
    fn new() -> Self {
        Self {
            log: vec![],
            newest: 0,
            at: 0,
            taken: 0,
            connected: false,
            events: Events::new(&[Some(0), Some(0)]),
            saved: vec![Some(0); 2],
            got: [vec![], vec![]],
            retained: 0,
        }
    }

    fn connect(&mut self) {
        let after = self.events.after().unwrap_or(self.newest);
        self.at = self.log.iter().position(|number| *number > after).unwrap_or(self.log.len());
        self.taken = after;
        self.events.hello(&hello(1, self.newest));
        self.connected = true;
    }

    /// The broker's connection is new: it says what it retains.
    fn settle(&mut self) {
        self.events.receiver(0).failed();
        let newest = self.events.newest();
        self.events.receiver(0).arrived(self.retained, newest);
    }

    fn step(&mut self, step: u8) {
        match step {
            // Something happens at the door; numbers have gaps.
            0..=2 => {
                self.newest += 1 + u64::from(step);
                self.log.push(self.newest);
            }
            // The door sends the next event, if few are untaken.
            3..=7 => {
                let untaken =
                    self.log[..self.at].iter().filter(|number| **number > self.taken).count();
                if self.connected && untaken < MOST_UNTAKEN && self.at < self.log.len() {
                    self.events.event(&event(self.log[self.at]));
                    self.at += 1;
                }
            }
            // A receiver takes an event; the acknowledgement comes, or is lost.
            8..=11 => {
                let (at, lost) = (usize::from(step % 2), step >= 10);
                if let Some(number) = self.events.receiver(at).next_event().map(|e| e.number) {
                    self.got[at].push(number);
                    if at == 0 {
                        self.retained = number;
                    }
                    if !lost {
                        self.events.receiver(at).done(number);
                    } else if at == 0 {
                        self.settle();
                    } else {
                        self.events.receiver(1).failed();
                    }
                }
            }
            // The message itself is lost.
            12 => {
                self.events.receiver(1).next_event();
                self.events.receiver(1).failed();
            }
            // The link saves, or is killed and starts again.
            13 => self.saved = self.events.cursors(),
            14 => {
                self.events = Events::new(&self.saved);
                self.connected = false;
                self.connect();
                self.settle();
            }
            // The door restarts.
            _ => self.connect(),
        }
        match self.events.advice() {
            Advice::Stay => {}
            Advice::Taken(number) => self.taken = number,
            Advice::Again => self.connect(),
        }
    }
}

proptest! {
    #[test]
    fn whatever_fails_every_event_arrives_in_order_and_at_the_broker_once(
        steps in prop::collection::vec(0u8..16, 0..600),
        slow in any::<bool>(),
    ) {
        let mut world = World::new();
        world.connect();
        world.settle();
        for step in steps {
            // One receiver may be away for all of this.
            if !(slow && matches!(step, 9 | 11)) {
                world.step(step);
            }
        }
        // Then all works, until nothing is left to do.
        for _ in 0..3 * world.log.len() + 10 {
            for step in [3, 8, 9, 13] {
                world.step(step);
            }
        }
        let mut second = world.got[1].clone();
        prop_assert_eq!(&world.got[0], &world.log, "the broker");
        // A webhook may hear twice, but never of something before what it has.
        second.dedup();
        let mut seen = vec![];
        for number in second {
            if !seen.contains(&number) {
                seen.push(number);
            }
        }
        prop_assert_eq!(&seen, &world.log, "the webhook");
        prop_assert_eq!(world.events.cursors(), [Some(world.newest); 2]);
    }

    #[test]
    fn few_events_are_held_whatever_is_away(
        steps in prop::collection::vec(prop::sample::select(vec![0u8, 3, 4, 8, 13, 14, 15]), 0..800),
    ) {
        let mut world = World::new();
        world.connect();
        for step in steps {
            world.step(step);
            prop_assert!(world.events.waiting() <= MOST_UNTAKEN);
        }
    }
}
