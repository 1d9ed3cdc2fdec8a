//! Enrolment with the button and the camera, without screen or keyboard.
//!
//! ```text
//!            held, empty gallery, soon after a local reset
//!          +----------------------------------------------+
//!          |              recognized in several frames,   |
//!          |              button inside                   v
//!   Idle --+ held --> Administrator ------------------> Newcomer -- all views --> Keeping
//!    ^                  |    | recognized,               ^   |                     |
//!    |                  |    | button outside     held   |   | pressed,            | kept
//!    |                  |    v                    again  |   | time is up,         | or not
//!    |                  |   Confirm ---------------------+   | known person        |
//!    |     pressed,     |    | pressed,                      |                     |
//!    |     time is up   |    | time is up                    |                     |
//!    +------------------+----+-------------------------------+---------------------+
//! ```
//!
//! Holding a button is never enough to enroll somebody, inside or outside. Enrolment needs
//! an administrator's face or, for the first person of an empty gallery, a local reset of
//! the device. Anybody can hold the button outside until an administrator comes to work, so
//! that button is off by default. Where it is on, the administrator is let in as always, and
//! enrolment begins only if the button is held once more while they are still in view.
//! Nobody is enrolled under lockdown, during a lockout of the door, or in hours in which the
//! administrator may not come in. Views stay in memory until all are taken and are then
//! written in one transaction: an enrolment that breaks off leaves nothing behind.

use super::{EnrollSettings, Enrolment, Hindrance, Shot, Step};
use crate::access::gallery::PersonId;
use crate::access::gesture::Side;
use crate::access::signal::Signal;
use std::time::Duration;

/// Number of frames that must match the same known person before the enrolment ends as
/// [`Failure::AlreadyEnrolled`]: a single frame may err.
const KNOWN_FRAMES: u8 = 3;
/// Timeout of writing the gallery; after it the enrolment has failed.
const KEEP_WITHIN: Duration = Duration::from_secs(30);
/// Maximum by which a look-alike raises the threshold. With a larger one the door would
/// refuse the two people themselves.
const MOST_STRICTER: f32 = 0.15;

/// Settings of enrolment at the door.
#[derive(Clone, Debug, PartialEq)]
pub struct ButtonSettings {
    /// Whether the button outside begins an enrolment, too.
    pub outside: bool,
    /// Time limit for the administrator to be recognized.
    pub administrator_within: Duration,
    /// Time after a local reset during which the first person needs no administrator.
    pub first_within: Duration,
    /// The views to take, and the time limit for them.
    pub views: EnrollSettings,
    /// Similarity to a known person at or above which the newcomer is that person.
    pub duplicate: f32,
    /// Similarity to a known person at or above which the newcomer is a look-alike. With
    /// the default rate one in a thousand pairs of strangers reaches it.
    pub look_alike: f32,
}

/// The most similar person in the gallery, at any similarity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Like {
    /// The most similar person.
    pub person: PersonId,
    /// Cosine, -1..=1.
    pub similarity: f32,
}

/// An input of the enrolment.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// A button was held.
    Hold {
        /// Place of the button.
        side: Side,
        /// Whether the gallery has no people.
        empty: bool,
        /// The administrator who is in view alone, if one is.
        in_view: Option<PersonId>,
        /// Why nobody may be enrolled now.
        barred: Option<Barred>,
    },
    /// A button was pressed briefly, once or several times.
    Press,
    /// The device was reset locally, by somebody who has it in hand.
    LocalReset,
    /// An administrator was recognized in several frames.
    Administrator {
        /// The administrator.
        person: PersonId,
        /// Why nobody may be enrolled now.
        barred: Option<Barred>,
    },
    /// A frame.
    Frame {
        /// Content of the frame.
        shot: &'a Shot,
        /// The person most similar to its only face.
        like: Option<Like>,
    },
    /// The newcomer is in the gallery.
    Kept {
        /// [`Newcomer::number`].
        number: u32,
    },
    /// The newcomer could not be written to the gallery.
    NotKept {
        /// [`Newcomer::number`].
        number: u32,
    },
    /// The embedding model was replaced. Templates of two models cannot be compared.
    ModelsChanged,
    /// Time has passed.
    Tick,
}

/// Why nobody may be enrolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Barred {
    /// The button outside may not begin an enrolment.
    Outside,
    /// The door is in lockdown.
    Lockdown,
    /// The door is locked out after too many refused attempts.
    LockedOut,
    /// The administrator may not come in now.
    Hours,
}

/// Why an enrolment failed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Failure {
    /// A button was pressed.
    Cancelled,
    /// No administrator was recognized in time.
    NoAdministrator,
    /// The administrator did not hold the button outside again.
    NotConfirmed,
    /// Nobody may be enrolled now.
    Barred(Barred),
    /// Not enough good views in time, with the most frequent hindrance.
    NoViews(Hindrance),
    /// The newcomer is enrolled already, as this person.
    AlreadyEnrolled(Like),
    /// The gallery could not be written.
    NotKept,
    /// The models were replaced between two views.
    ModelsChanged,
}

/// Something to log and report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// A button was held: the enrolment waits for an administrator.
    Begun(Side),
    /// A button was held soon after a local reset: the first person needs no administrator.
    First(Side),
    /// A button was held with an empty gallery, but without a recent local reset.
    NotReset(Side),
    /// A button was held, and nobody may be enrolled.
    NotNow(Barred),
    /// The administrator was recognized, and must hold the button outside again.
    Confirm(PersonId),
    /// The administrator was recognized: the enrolment waits for the newcomer.
    Administrator(PersonId),
    /// The newcomer looks like a known person: the threshold of both rises.
    LookAlike(Like),
    /// The enrolment failed.
    Failed(Failure),
}

/// A person to be stored with the views taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Newcomer {
    /// One more than the number of the previous newcomer; wraps around.
    pub number: u32,
    /// The administrator; `None` for the first person, who becomes an administrator.
    pub by: Option<PersonId>,
    /// A known person who looks alike, and the amount by which the similarity threshold of
    /// both rises, 0..=0.15.
    pub look_alike: Option<(Like, f32)>,
}

/// Output of one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// Signal to show and sound.
    pub signal: Option<Signal>,
    /// Notes in the order in which they happened.
    pub events: heapless::Vec<Event, 2>,
    /// Store the view of this frame in memory.
    pub take: bool,
    /// Drop all views in memory.
    pub discard: bool,
    /// Write the newcomer and all views to the gallery. The result comes back as
    /// [`Input::Kept`] or [`Input::NotKept`].
    pub keep: Option<Newcomer>,
}

/// State of the enrolment. Times are on the clock of [`DoorEnrolment::step`].
#[derive(Clone, Debug)]
pub enum State {
    /// No enrolment.
    Idle,
    /// Waiting for an administrator.
    Administrator {
        /// Place of the button that was held.
        side: Side,
        /// End of the time limit.
        until: Duration,
    },
    /// Waiting for the administrator to hold the button outside again.
    Confirm {
        /// The administrator.
        by: PersonId,
        /// End of the time limit.
        until: Duration,
    },
    /// Taking views of the newcomer.
    Newcomer {
        /// The administrator; `None` for the first person.
        by: Option<PersonId>,
        /// The views so far.
        views: Box<Enrolment>,
        /// End of the time limit.
        until: Duration,
        /// A known person seen since the last view, and in how many frames.
        known: (Option<PersonId>, u8),
        /// The person most similar to any view so far.
        closest: Option<Like>,
    },
    /// The last newcomer is being written.
    Keeping {
        /// End of the time limit.
        until: Duration,
    },
}

/// State machine of the enrolment at one door.
#[derive(Clone, Debug)]
pub struct DoorEnrolment {
    settings: ButtonSettings,
    state: State,
    /// Time of the last local reset.
    reset: Option<Duration>,
    /// Number of the last newcomer.
    number: u32,
    /// The last hint and its time.
    hint: Option<(Signal, Duration)>,
}

/// Time in which an administrator outside must hold the button again.
const CONFIRM_WITHIN: Duration = Duration::from_secs(10);
/// Minimum time before the same hint is repeated.
const HINT_EVERY: Duration = Duration::from_secs(2);

impl DoorEnrolment {
    /// Starts idle.
    pub fn new(settings: ButtonSettings) -> Self {
        Self { settings, state: State::Idle, reset: None, number: 0, hint: None }
    }

    /// Applies new settings. The views and time limit of an enrolment under way stay.
    pub fn set_settings(&mut self, settings: ButtonSettings) {
        self.settings = settings;
    }

    /// Current state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether an enrolment is under way.
    pub fn busy(&self) -> bool {
        !matches!(self.state, State::Idle)
    }

    /// Takes one event. `now` is on a clock that never runs backwards.
    pub fn step(&mut self, now: Duration, event: Input<'_>) -> Output {
        if let Input::LocalReset = event {
            self.reset = Some(now);
            return Output::default();
        }
        match (&mut self.state, event) {
            (State::Idle, Input::Hold { side, empty, barred, .. }) => {
                self.begin(now, side, empty, barred)
            }
            (State::Administrator { until, .. }, _) if now >= *until => {
                self.fail(Failure::NoAdministrator)
            }
            (State::Confirm { until, .. }, _) if now >= *until => {
                // The administrator has come in and sees no signal any longer.
                Output { signal: None, ..self.fail(Failure::NotConfirmed) }
            }
            (State::Keeping { until }, _) if now >= *until => self.fail(Failure::NotKept),
            (State::Newcomer { views, until, .. }, _) if now >= *until => {
                let hindered = views.hindered_most();
                self.fail(Failure::NoViews(hindered))
            }
            (
                State::Administrator { .. } | State::Confirm { .. } | State::Newcomer { .. },
                Input::Press,
            ) => self.fail(Failure::Cancelled),
            (State::Administrator { .. }, Input::Administrator { barred: Some(barred), .. }) => {
                self.fail(Failure::Barred(barred))
            }
            (State::Administrator { side, .. }, Input::Administrator { person, .. }) => {
                match side {
                    Side::Inside => self.newcomer(now, Some(person), Event::Administrator(person)),
                    Side::Outside => self.confirm(now, person),
                }
            }
            (State::Confirm { .. }, Input::Hold { barred: Some(barred), .. }) => {
                self.fail(Failure::Barred(barred))
            }
            (State::Confirm { by, .. }, Input::Hold { side: Side::Outside, in_view, .. })
                if in_view == Some(*by) =>
            {
                let by = *by;
                self.newcomer(now, Some(by), Event::Administrator(by))
            }
            (State::Newcomer { .. }, Input::Frame { shot, like }) => self.frame(now, shot, like),
            (State::Keeping { .. }, Input::Kept { number }) if number == self.number => {
                self.state = State::Idle;
                // The next person needs an administrator.
                self.reset = None;
                Output { signal: Some(Signal::Enrolled), discard: true, ..Output::default() }
            }
            (State::Keeping { .. }, Input::NotKept { number }) if number == self.number => {
                self.fail(Failure::NotKept)
            }
            (State::Newcomer { .. }, Input::ModelsChanged) => self.fail(Failure::ModelsChanged),
            // Ignored: a press while the newcomer is being written (too late to cancel); a
            // second hold, also of somebody else than the administrator; an answer after the
            // timeout; frames and administrators that
            // nobody waits for; new models while no views are being taken (those that are
            // being written are all of one model).
            (State::Keeping { .. }, Input::Press)
            | (State::Idle, Input::Press)
            | (
                State::Idle
                | State::Administrator { .. }
                | State::Confirm { .. }
                | State::Keeping { .. },
                Input::ModelsChanged,
            )
            | (_, Input::Kept { .. } | Input::NotKept { .. })
            | (
                State::Administrator { .. }
                | State::Confirm { .. }
                | State::Newcomer { .. }
                | State::Keeping { .. },
                Input::Hold { .. },
            )
            | (
                State::Idle
                | State::Administrator { .. }
                | State::Confirm { .. }
                | State::Keeping { .. },
                Input::Frame { .. },
            )
            | (
                State::Idle
                | State::Confirm { .. }
                | State::Newcomer { .. }
                | State::Keeping { .. },
                Input::Administrator { .. },
            )
            | (_, Input::Tick | Input::LocalReset) => Output::default(),
        }
    }

    fn begin(&mut self, now: Duration, side: Side, empty: bool, barred: Option<Barred>) -> Output {
        let outside = side == Side::Outside && !self.settings.outside;
        if let Some(barred) = outside.then_some(Barred::Outside).or(barred) {
            let mut output = Output::default();
            event(&mut output, Event::NotNow(barred));
            return output;
        }
        if !empty {
            self.state =
                State::Administrator { side, until: now + self.settings.administrator_within };
            let signal = Some(Signal::Administrator);
            let mut output = Output { signal, discard: true, ..Output::default() };
            event(&mut output, Event::Begun(side));
            return output;
        }
        match self.reset {
            Some(reset) if now < reset + self.settings.first_within => {
                self.newcomer(now, None, Event::First(side))
            }
            _ => {
                let mut output = Output { signal: Some(Signal::Refused), ..Output::default() };
                event(&mut output, Event::NotReset(side));
                output
            }
        }
    }

    fn confirm(&mut self, now: Duration, by: PersonId) -> Output {
        self.state = State::Confirm { by, until: now + CONFIRM_WITHIN };
        let mut output = Output::default();
        event(&mut output, Event::Confirm(by));
        output
    }

    fn newcomer(&mut self, now: Duration, by: Option<PersonId>, told: Event) -> Output {
        let views = Box::new(Enrolment::new(self.settings.views.clone()));
        let until = now + self.settings.views.time;
        self.state = State::Newcomer { by, views, until, known: (None, 0), closest: None };
        self.hint = None;
        let signal = Some(Signal::Newcomer);
        let mut output = Output { signal, discard: true, ..Output::default() };
        event(&mut output, told);
        output
    }

    fn frame(&mut self, now: Duration, shot: &Shot, like: Option<Like>) -> Output {
        let State::Newcomer { by, views, known, closest, .. } = &mut self.state else {
            return Output::default();
        };
        if let Some(like) = like
            && like.similarity >= self.settings.duplicate
        {
            if Some(like.person) == *by {
                // The administrator has not stepped aside yet.
                *known = (None, 0);
                return self.hint(now, Signal::OneAtATime);
            }
            let count = if known.0 == Some(like.person) { known.1 + 1 } else { 1 };
            *known = (Some(like.person), count);
            if count >= KNOWN_FRAMES {
                return self.fail(Failure::AlreadyEnrolled(like));
            }
            return Output::default();
        }
        let by = *by;
        let step = views.step(now, shot);
        if matches!(step, Step::Take(_) | Step::Done)
            && let Some(like) = like
            && closest.is_none_or(|closest| like.similarity > closest.similarity)
        {
            *closest = Some(like);
        }
        match step {
            Step::Take(taken) => {
                *known = (None, 0);
                let (_, of) = views.progress();
                // Both are at most MAX_VIEWS.
                let signal = Some(Signal::View { taken: taken as u8, of: of as u8 });
                self.hint = None;
                Output { signal, take: true, ..Output::default() }
            }
            Step::Done => {
                let (_, of) = views.progress();
                let closest = *closest;
                self.state = State::Keeping { until: now + KEEP_WITHIN };
                let mut output = Output {
                    signal: Some(Signal::View { taken: of as u8, of: of as u8 }),
                    take: true,
                    ..Output::default()
                };
                let look_alike = closest
                    .filter(|like| like.similarity >= self.settings.look_alike)
                    .map(|like| {
                        let beyond = like.similarity - self.settings.look_alike;
                        (like, beyond.clamp(0.0, MOST_STRICTER))
                    });
                if let Some((like, _)) = look_alike {
                    event(&mut output, Event::LookAlike(like));
                }
                self.number = self.number.wrapping_add(1);
                output.keep = Some(Newcomer { number: self.number, by, look_alike });
                output
            }
            Step::Wait(hindrance) => match signal_of(hindrance) {
                Some(signal) => self.hint(now, signal),
                None => Output::default(),
            },
            Step::Early => Output::default(),
            Step::Failed(hindrance) => self.fail(Failure::NoViews(hindrance)),
        }
    }

    fn hint(&mut self, now: Duration, signal: Signal) -> Output {
        if self.hint.is_some_and(|(last, at)| last == signal && now < at + HINT_EVERY) {
            return Output::default();
        }
        self.hint = Some((signal, now));
        Output { signal: Some(signal), ..Output::default() }
    }

    fn fail(&mut self, failure: Failure) -> Output {
        self.state = State::Idle;
        let signal = Some(Signal::NotEnrolled);
        let mut output = Output { signal, discard: true, ..Output::default() };
        event(&mut output, Event::Failed(failure));
        output
    }
}

fn event(output: &mut Output, told: Event) {
    // No step has more than two events.
    let pushed = output.events.push(told);
    debug_assert!(pushed.is_ok(), "{told:?}");
}

/// Signal for a newcomer whose view cannot be used; `None` if the last signal still
/// applies.
fn signal_of(hindrance: Hindrance) -> Option<Signal> {
    match hindrance {
        Hindrance::Crowd => Some(Signal::OneAtATime),
        Hindrance::Poor(aspect) => Some(Signal::of_aspect(aspect)),
        Hindrance::SomebodyElse => Some(Signal::Refused),
        Hindrance::NoFace | Hindrance::Same | Hindrance::Turn(_) => None,
    }
}

#[cfg(test)]
mod tests;
