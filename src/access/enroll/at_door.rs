//! Enrolment with the button and the camera, without screen or keyboard.
//!
//! ```text
//!            held, empty gallery, soon after a local reset
//!          +----------------------------------------------+
//!          |                                              v
//!   Idle --+ held --> Administrator -- recognized --> Newcomer -- all views --> Keeping
//!    ^                  |              in several      |                         |
//!    |                  | pressed,     frames          | pressed, time is up,    | kept
//!    |                  | time is up                   | known person            | or not
//!    +------------------+------------------------------+-------------------------+
//! ```
//!
//! Holding a button is never enough to enroll somebody, inside or outside. Enrolment needs
//! an administrator's face or, for the first person of an empty gallery, a local reset of
//! the device. Views stay in memory until all are taken and are then written in one
//! transaction: an enrolment that breaks off leaves nothing behind.

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
    },
    /// A button was pressed briefly, once or several times.
    Press,
    /// The device was reset locally, by somebody who has it in hand.
    LocalReset,
    /// An administrator was recognized in several frames.
    Administrator(PersonId),
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

/// Why an enrolment failed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Failure {
    /// A button was pressed.
    Cancelled,
    /// No administrator was recognized in time.
    NoAdministrator,
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
            (State::Idle, Input::Hold { side, empty }) => self.begin(now, side, empty),
            (State::Administrator { until } | State::Keeping { until }, _) if now >= *until => {
                let waited = matches!(self.state, State::Administrator { .. });
                self.fail(if waited { Failure::NoAdministrator } else { Failure::NotKept })
            }
            (State::Newcomer { views, until, .. }, _) if now >= *until => {
                let hindered = views.hindered_most();
                self.fail(Failure::NoViews(hindered))
            }
            (State::Administrator { .. } | State::Newcomer { .. }, Input::Press) => {
                self.fail(Failure::Cancelled)
            }
            (State::Administrator { .. }, Input::Administrator(person)) => {
                self.newcomer(now, Some(person), Event::Administrator(person))
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
            // second hold; an answer after the timeout; frames and administrators that
            // nobody waits for; new models while no views are being taken (those that are
            // being written are all of one model).
            (State::Keeping { .. }, Input::Press)
            | (State::Idle, Input::Press)
            | (
                State::Idle | State::Administrator { .. } | State::Keeping { .. },
                Input::ModelsChanged,
            )
            | (_, Input::Kept { .. } | Input::NotKept { .. })
            | (
                State::Administrator { .. } | State::Newcomer { .. } | State::Keeping { .. },
                Input::Hold { .. },
            )
            | (
                State::Idle | State::Administrator { .. } | State::Keeping { .. },
                Input::Frame { .. },
            )
            | (
                State::Idle | State::Newcomer { .. } | State::Keeping { .. },
                Input::Administrator(_),
            )
            | (_, Input::Tick | Input::LocalReset) => Output::default(),
        }
    }

    fn begin(&mut self, now: Duration, side: Side, empty: bool) -> Output {
        if !empty {
            self.state = State::Administrator { until: now + self.settings.administrator_within };
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
mod tests {
    use super::*;
    use crate::access::enroll::Poses;
    use crate::models::ModelId;
    use crate::vision::embed::{Embedding, Template};
    use crate::vision::pose::Pose;
    use crate::vision::quality::Aspect;
    use proptest::prelude::*;

    const ADA: PersonId = PersonId(1);
    const GRACE: PersonId = PersonId(2);

    fn s(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn enrolment() -> DoorEnrolment {
        let poses = Poses::from_slice(&[Pose::Front, Pose::Left]).expect("two");
        DoorEnrolment::new(ButtonSettings {
            administrator_within: s(20.0),
            first_within: s(600.0),
            views: EnrollSettings { views: 2, poses, time: s(60.0), same_person: 0.4 },
            duplicate: 0.6,
            look_alike: 0.4,
        })
    }

    fn shot(pose: Pose, angle: f32) -> Shot {
        let embedding = Embedding::normalized(&[angle.cos(), angle.sin()]);
        let template = Some(Template::new(ModelId::new("one"), embedding));
        Shot::Face { weakest: (Aspect::Size, 1.0), turn: pose.example(), template }
    }

    fn hold(empty: bool) -> Input<'static> {
        Input::Hold { side: Side::Outside, empty }
    }

    fn like(person: PersonId, similarity: f32) -> Option<Like> {
        Some(Like { person, similarity })
    }

    fn in_front(at: f64, by: &mut DoorEnrolment) {
        by.step(s(at), hold(false));
        let administrator = by.step(s(at), Input::Administrator(ADA));
        assert_eq!(administrator.events[..], [Event::Administrator(ADA)]);
        assert_eq!(administrator.signal, Some(Signal::Newcomer));
    }

    #[test]
    fn an_answer_about_another_newcomer_says_nothing() {
        let mut by = enrolment();
        by.step(s(0.0), Input::LocalReset);
        by.step(s(1.0), hold(true));
        for (at, pose, angle) in [(2.0, Pose::Front, 0.0), (3.0, Pose::Left, 0.3)] {
            by.step(s(at), Input::Frame { shot: &shot(pose, angle), like: None });
        }
        assert!(matches!(by.state(), State::Keeping { .. }), "{:?}", by.state());
        for late in [Input::Kept { number: 0 }, Input::NotKept { number: 7 }] {
            assert_eq!(by.step(s(4.0), late), Output::default());
            assert!(matches!(by.state(), State::Keeping { .. }));
        }
        by.step(s(5.0), Input::Kept { number: 1 });
        assert!(!by.busy());
    }

    #[test]
    fn button_administrator_newcomer() {
        let mut by = enrolment();
        let begun = by.step(s(0.0), hold(false));
        assert_eq!(begun.events[..], [Event::Begun(Side::Outside)]);
        by.step(s(2.0), Input::Administrator(ADA));
        // Ada takes a moment to step aside.
        for at in [2.1, 2.2, 2.3, 2.4] {
            let shot = shot(Pose::Front, 2.0);
            let waits = by.step(s(at), Input::Frame { shot: &shot, like: like(ADA, 0.9) });
            assert!(!waits.take && waits.events.is_empty(), "{waits:?}");
        }
        let frame = |by: &mut DoorEnrolment, at, pose, angle, like| {
            by.step(s(at), Input::Frame { shot: &shot(pose, angle), like })
        };
        let first = frame(&mut by, 4.0, Pose::Front, 0.0, like(GRACE, 0.3));
        assert_eq!((first.take, first.signal), (true, Some(Signal::View { taken: 1, of: 2 })));
        assert!(!frame(&mut by, 5.0, Pose::Front, 0.3, None).take);
        let last = frame(&mut by, 6.0, Pose::Left, 0.3, like(GRACE, 0.45));
        assert!(last.take);
        assert_eq!(last.events[..], [Event::LookAlike(Like { person: GRACE, similarity: 0.45 })]);
        let newcomer = last.keep.expect("somebody to keep");
        assert_eq!(newcomer.by, Some(ADA));
        let (_, stricter) = newcomer.look_alike.expect("a look-alike");
        assert!((stricter - 0.05).abs() < 1e-6);
        assert!(by.busy());
        let kept = by.step(s(6.1), Input::Kept { number: 1 });
        assert_eq!((kept.signal, kept.discard), (Some(Signal::Enrolled), true));
        assert!(!by.busy());
    }

    #[test]
    fn the_first_person_needs_a_reset_and_uses_it_up_once_enrolled() {
        let mut by = enrolment();
        assert_eq!(by.step(s(0.0), hold(true)).events[..], [Event::NotReset(Side::Outside)]);
        by.step(s(1.0), Input::LocalReset);
        assert_eq!(by.step(s(601.0), hold(true)).events[..], [Event::NotReset(Side::Outside)]);
        by.step(s(700.0), Input::LocalReset);
        assert_eq!(by.step(s(1299.0), hold(true)).events[..], [Event::First(Side::Outside)]);
        // After a cancelled enrolment the reset still counts.
        by.step(s(1299.2), Input::Press);
        assert_eq!(by.step(s(1299.5), hold(true)).events[..], [Event::First(Side::Outside)]);
        for (at, pose, angle) in [(1300.0, Pose::Front, 0.0), (1301.0, Pose::Left, 0.3)] {
            by.step(s(at), Input::Frame { shot: &shot(pose, angle), like: None });
        }
        by.step(s(1301.5), Input::NotKept { number: 1 });
        by.step(s(1301.6), Input::LocalReset);
        by.step(s(1301.7), hold(true));
        for (at, pose, angle) in [(1302.0, Pose::Front, 0.0), (1303.0, Pose::Left, 0.3)] {
            by.step(s(at), Input::Frame { shot: &shot(pose, angle), like: None });
        }
        by.step(s(1304.0), Input::Kept { number: 2 });
        assert_eq!(by.step(s(1305.0), hold(true)).events[..], [Event::NotReset(Side::Outside)]);
        // With people in the gallery a reset does not replace the administrator.
        by.step(s(1306.0), Input::LocalReset);
        assert_eq!(by.step(s(1307.0), hold(false)).events[..], [Event::Begun(Side::Outside)]);
    }

    #[test]
    fn somebody_known_is_sent_away_by_name() {
        let mut by = enrolment();
        in_front(0.0, &mut by);
        for at in [1.0, 2.0] {
            let shot = shot(Pose::Front, 0.0);
            let step = by.step(s(at), Input::Frame { shot: &shot, like: like(GRACE, 0.7) });
            assert_eq!(step, Output::default());
        }
        let shot = shot(Pose::Front, 0.0);
        let step = by.step(s(3.0), Input::Frame { shot: &shot, like: like(GRACE, 0.7) });
        let known = Failure::AlreadyEnrolled(Like { person: GRACE, similarity: 0.7 });
        assert_eq!(step.events[..], [Event::Failed(known)]);
        assert!(step.discard && !by.busy());
    }

    #[test]
    fn every_step_ends_by_a_press_or_by_time() {
        let failed = |output: Output| match output.events[..] {
            [Event::Failed(failure)] => failure,
            _ => panic!("{output:?}"),
        };
        let mut by = enrolment();
        by.step(s(0.0), hold(false));
        assert_eq!(failed(by.step(s(1.0), Input::Press)), Failure::Cancelled);
        by.step(s(2.0), hold(false));
        assert_eq!(by.step(s(21.9), Input::Tick), Output::default());
        assert_eq!(failed(by.step(s(22.0), Input::Tick)), Failure::NoAdministrator);
        in_front(30.0, &mut by);
        assert_eq!(failed(by.step(s(31.0), Input::Press)), Failure::Cancelled);
        in_front(40.0, &mut by);
        let nobody = Failure::NoViews(Hindrance::NoFace);
        assert_eq!(failed(by.step(s(100.0), Input::Tick)), nobody);
        for (at, answer) in [(200.0, Input::NotKept { number: 1 }), (300.0, Input::Tick)] {
            in_front(at, &mut by);
            by.step(s(at), Input::Frame { shot: &shot(Pose::Front, 0.0), like: None });
            by.step(s(at + 1.0), Input::Frame { shot: &shot(Pose::Left, 0.3), like: None });
            // Too late.
            assert_eq!(by.step(s(at + 2.0), Input::Press), Output::default());
            assert_eq!(failed(by.step(s(at + 31.0), answer)), Failure::NotKept);
        }
    }

    proptest! {
        /// With only the outside button and no administrator's face nobody can be enrolled,
        /// and a local reset does not help if the gallery has people.
        #[test]
        fn the_button_outside_never_enrolls_alone(
            steps in prop::collection::vec((0u8..7, -0.4f32..0.4, 0u64..9000), 0..120),
            empty in any::<bool>(),
        ) {
            let mut by = enrolment();
            let mut now = Duration::ZERO;
            for (what, angle, later) in steps {
                now += Duration::from_millis(later);
                let shot = shot(if angle > 0.0 { Pose::Left } else { Pose::Front }, angle);
                let event = match what {
                    0 => hold(empty),
                    1 => Input::Press,
                    3 => Input::Kept { number: 1 },
                    4 if !empty => Input::LocalReset,
                    5 => Input::Tick,
                    _ => Input::Frame { shot: &shot, like: None },
                };
                let output = by.step(now, event);
                prop_assert!(!output.take && output.keep.is_none(), "{output:?}");
            }
        }

        /// A newcomer is kept only with all views, each taken after the administrator was
        /// recognized. A known person is never kept.
        #[test]
        fn kept_only_with_an_administrator_and_all_views(
            steps in prop::collection::vec((0u8..12, -0.4f32..0.4, 0u64..3000), 0..200),
        ) {
            let mut by = enrolment();
            let mut now = Duration::ZERO;
            let (mut administrator, mut taken) = (false, 0);
            for (what, angle, later) in steps {
                now += Duration::from_millis(later);
                let shot = shot(if angle > 0.0 { Pose::Left } else { Pose::Front }, angle);
                let event = match what {
                    0 => hold(false),
                    1 if angle > 0.3 => Input::Press,
                    2 | 3 => Input::Administrator(ADA),
                    4 => Input::Frame { shot: &shot, like: like(GRACE, 0.8) },
                    5 if angle > 0.0 => Input::Kept { number: 1 },
                    _ => Input::Frame { shot: &shot, like: None },
                };
                let output = by.step(now, event);
                if output.discard {
                    taken = 0;
                }
                administrator |= output.events.contains(&Event::Administrator(ADA));
                if output.take {
                    let known = matches!(event, Input::Frame { like: Some(_), .. });
                    prop_assert!(administrator && !known);
                    taken += 1;
                }
                if output.keep.is_some() {
                    prop_assert_eq!(taken, 2);
                }
                if !by.busy() {
                    administrator = false;
                }
            }
        }
    }
}
