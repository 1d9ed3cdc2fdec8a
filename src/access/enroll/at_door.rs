//! Enrolling with the button and the camera, without screen or keyboard.
//!
//! ```text
//!            held, empty gallery, soon after a local reset
//!          +------------------------------------------------+
//!          |                                                v
//!   Idle --+ held --> Administrator -- an administrator --> Newcomer -- all views --> Keeping
//!    ^                  |               (known by the         |                         |
//!    |                  | pressed,       evidence of several  | pressed, time is up,    | kept,
//!    |                  | time is up     frames)              | somebody known          | not kept
//!    +------------------+-------------------------------------+-------------------------+
//! ```
//!
//! Holding a button alone enrolls nobody, wherever it is: it takes an
//! administrator's face, or a reset on the device itself of a door that knows nobody.
//! Views are in memory alone until all are there, and are then kept in one
//! transaction: what breaks off leaves nothing.

use super::{EnrollSettings, Enrolment, Hindrance, Shot, Step};
use crate::access::gallery::PersonId;
use crate::access::gesture::Side;
use crate::access::signal::Signal;
use std::time::Duration;

/// Frames that must say the same of somebody known before they are sent away: one
/// alone may err.
const KNOWN_FRAMES: u8 = 3;
/// So long a file may take to be written; then the enrolment has failed.
const KEEP_WITHIN: Duration = Duration::from_secs(30);
/// Most by which a threshold is raised: more would keep the two out themselves.
const MOST_STRICTER: f32 = 0.15;

/// How it is done.
#[derive(Clone, Debug, PartialEq)]
pub struct ButtonSettings {
    /// How long an administrator may take to be recognized.
    pub administrator_within: Duration,
    /// So long after a local reset the first person needs no administrator.
    pub first_within: Duration,
    /// The views, and the time for them.
    pub views: EnrollSettings,
    /// From this similarity to somebody known on it is that person.
    pub duplicate: f32,
    /// From this one on it is a look-alike: one pair of strangers in a thousand.
    pub look_alike: f32,
}

/// Whom a face is most like, however unlike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Like {
    /// Who.
    pub person: PersonId,
    /// Cosine, -1..=1.
    pub similarity: f32,
}

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A button was held.
    Hold {
        /// Which.
        side: Side,
        /// Whether the gallery is without people.
        empty: bool,
    },
    /// A button was pressed.
    Press,
    /// Somebody with the device in hand has reset it.
    LocalReset,
    /// Somebody stands there who may let others in, by the evidence of several frames.
    Administrator(PersonId),
    /// A frame.
    Frame {
        /// What it shows.
        shot: &'a Shot,
        /// Whom the one face in it is like.
        like: Option<Like>,
    },
    /// The newcomer of this number is in the gallery.
    Kept {
        /// As [`Newcomer`] has it.
        number: u32,
    },
    /// They are not.
    NotKept {
        /// As [`Newcomer`] has it.
        number: u32,
    },
    /// Another model makes templates from now on: views of two models do not compare.
    ModelsChanged,
    /// Nothing but time.
    Tick,
}

/// Why nobody is enrolled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Failure {
    /// Somebody pressed the button.
    Cancelled,
    /// No administrator came.
    NoAdministrator,
    /// Not enough good views in time; what hindered most.
    NoViews(Hindrance),
    /// It is somebody who is enrolled.
    AlreadyEnrolled(Like),
    /// The gallery could not be written.
    NotKept,
    /// Other models came between the views.
    ModelsChanged,
}

/// Something to tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Note {
    /// A button was held: an administrator is waited for.
    Begun(Side),
    /// Without administrator: the first person.
    First(Side),
    /// Somebody held the button of an empty gallery long after any reset.
    NotReset(Side),
    /// The administrator is known: the newcomer is waited for.
    Administrator(PersonId),
    /// The newcomer is like somebody known; both need more similarity from now on.
    LookAlike(Like),
    /// Nobody is enrolled.
    Failed(Failure),
}

/// Somebody to be kept with the views taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Newcomer {
    /// One more than that of the last one.
    pub number: u32,
    /// Who let them in; nobody the first person, who becomes administrator.
    pub by: Option<PersonId>,
    /// Whom they are like, if it is remarkable, and by how much both their
    /// thresholds rise.
    pub look_alike: Option<(Like, f32)>,
}

/// What follows of an event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Actions {
    /// To be shown and sounded.
    pub signal: Option<Signal>,
    /// To be told, in order.
    pub notes: heapless::Vec<Note, 2>,
    /// Hold on to this frame's view.
    pub take: bool,
    /// Let go of all views.
    pub discard: bool,
    /// Keep the newcomer with all views taken. How that went comes back as an event.
    pub keep: Option<Newcomer>,
}

/// Where it is.
#[derive(Clone, Debug)]
pub enum State {
    /// Nobody enrolls.
    Idle,
    /// An administrator is waited for.
    Administrator {
        /// Until when.
        until: Duration,
    },
    /// Views of the newcomer are taken.
    Newcomer {
        /// Who let them in; nobody the first person.
        by: Option<PersonId>,
        /// The views.
        views: Box<Enrolment>,
        /// Until when.
        until: Duration,
        /// Somebody known in the frames since the last view, and in how many.
        known: (Option<PersonId>, u8),
        /// Whom the views are most like.
        closest: Option<Like>,
    },
    /// The newcomer of the last number is being written.
    Keeping {
        /// Until when.
        until: Duration,
    },
}

/// The enrolment of one door.
#[derive(Clone, Debug)]
pub struct ByButton {
    settings: ButtonSettings,
    state: State,
    reset: Option<Duration>,
    /// Of the last newcomer.
    number: u32,
    hint: Option<(Signal, Duration)>,
}

/// The same hint is not repeated for so long.
const HINT_EVERY: Duration = Duration::from_secs(2);

impl ByButton {
    /// Nobody enrolls.
    pub fn new(settings: ButtonSettings) -> Self {
        Self { settings, state: State::Idle, reset: None, number: 0, hint: None }
    }

    /// Goes about the next enrolment differently; one under way stays as it is.
    pub fn set_settings(&mut self, settings: ButtonSettings) {
        self.settings = settings;
    }

    /// Where it is.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether somebody enrolls, so that whoever stands there does not want in.
    pub fn busy(&self) -> bool {
        !matches!(self.state, State::Idle)
    }

    /// Takes one event at a time on a clock that does not run backwards.
    pub fn step(&mut self, now: Duration, event: Event<'_>) -> Actions {
        if let Event::LocalReset = event {
            self.reset = Some(now);
            return Actions::default();
        }
        match (&mut self.state, event) {
            (State::Idle, Event::Hold { side, empty }) => self.begin(now, side, empty),
            (State::Administrator { until } | State::Keeping { until }, _) if now >= *until => {
                let waited = matches!(self.state, State::Administrator { .. });
                self.fail(if waited { Failure::NoAdministrator } else { Failure::NotKept })
            }
            (State::Newcomer { views, until, .. }, _) if now >= *until => {
                let hindered = views.hindered_most();
                self.fail(Failure::NoViews(hindered))
            }
            (State::Administrator { .. } | State::Newcomer { .. }, Event::Press) => {
                self.fail(Failure::Cancelled)
            }
            (State::Administrator { .. }, Event::Administrator(person)) => {
                self.newcomer(now, Some(person), Note::Administrator(person))
            }
            (State::Newcomer { .. }, Event::Frame { shot, like }) => self.frame(now, shot, like),
            (State::Keeping { .. }, Event::Kept { number }) if number == self.number => {
                self.state = State::Idle;
                // Whoever comes after the first person needs them.
                self.reset = None;
                Actions { signal: Some(Signal::Enrolled), discard: true, ..Actions::default() }
            }
            (State::Keeping { .. }, Event::NotKept { number }) if number == self.number => {
                self.fail(Failure::NotKept)
            }
            (State::Newcomer { .. }, Event::ModelsChanged) => self.fail(Failure::ModelsChanged),
            // Too late to cancel what is being written; a second hold; an answer that
            // came after the time; frames and faces that nobody waits for.
            // What is written already is of one model.
            (State::Keeping { .. }, Event::Press)
            | (State::Idle, Event::Press)
            | (
                State::Idle | State::Administrator { .. } | State::Keeping { .. },
                Event::ModelsChanged,
            )
            | (_, Event::Kept { .. } | Event::NotKept { .. })
            | (
                State::Administrator { .. } | State::Newcomer { .. } | State::Keeping { .. },
                Event::Hold { .. },
            )
            | (
                State::Idle | State::Administrator { .. } | State::Keeping { .. },
                Event::Frame { .. },
            )
            | (
                State::Idle | State::Newcomer { .. } | State::Keeping { .. },
                Event::Administrator(_),
            )
            | (_, Event::Tick | Event::LocalReset) => Actions::default(),
        }
    }

    fn begin(&mut self, now: Duration, side: Side, empty: bool) -> Actions {
        if !empty {
            self.state = State::Administrator { until: now + self.settings.administrator_within };
            let signal = Some(Signal::Administrator);
            let mut actions = Actions { signal, discard: true, ..Actions::default() };
            note(&mut actions, Note::Begun(side));
            return actions;
        }
        match self.reset {
            Some(reset) if now < reset + self.settings.first_within => {
                self.newcomer(now, None, Note::First(side))
            }
            _ => {
                let mut actions = Actions { signal: Some(Signal::Refused), ..Actions::default() };
                note(&mut actions, Note::NotReset(side));
                actions
            }
        }
    }

    fn newcomer(&mut self, now: Duration, by: Option<PersonId>, told: Note) -> Actions {
        let views = Box::new(Enrolment::new(self.settings.views.clone()));
        let until = now + self.settings.views.time;
        self.state = State::Newcomer { by, views, until, known: (None, 0), closest: None };
        self.hint = None;
        let signal = Some(Signal::Newcomer);
        let mut actions = Actions { signal, discard: true, ..Actions::default() };
        note(&mut actions, told);
        actions
    }

    fn frame(&mut self, now: Duration, shot: &Shot, like: Option<Like>) -> Actions {
        let State::Newcomer { by, views, known, closest, .. } = &mut self.state else {
            return Actions::default();
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
            return Actions::default();
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
                Actions { signal, take: true, ..Actions::default() }
            }
            Step::Done => {
                let (_, of) = views.progress();
                let closest = *closest;
                self.state = State::Keeping { until: now + KEEP_WITHIN };
                let mut actions = Actions {
                    signal: Some(Signal::View { taken: of as u8, of: of as u8 }),
                    take: true,
                    ..Actions::default()
                };
                let look_alike = closest
                    .filter(|like| like.similarity >= self.settings.look_alike)
                    .map(|like| {
                        let beyond = like.similarity - self.settings.look_alike;
                        (like, beyond.clamp(0.0, MOST_STRICTER))
                    });
                if let Some((like, _)) = look_alike {
                    note(&mut actions, Note::LookAlike(like));
                }
                self.number = self.number.wrapping_add(1);
                actions.keep = Some(Newcomer { number: self.number, by, look_alike });
                actions
            }
            Step::Wait(hindrance) => match Signal::of_hindrance(hindrance) {
                Some(signal) => self.hint(now, signal),
                None => Actions::default(),
            },
            Step::Early => Actions::default(),
            Step::Failed(hindrance) => self.fail(Failure::NoViews(hindrance)),
        }
    }

    fn hint(&mut self, now: Duration, signal: Signal) -> Actions {
        if self.hint.is_some_and(|(last, at)| last == signal && now < at + HINT_EVERY) {
            return Actions::default();
        }
        self.hint = Some((signal, now));
        Actions { signal: Some(signal), ..Actions::default() }
    }

    fn fail(&mut self, failure: Failure) -> Actions {
        self.state = State::Idle;
        let signal = Some(Signal::NotEnrolled);
        let mut actions = Actions { signal, discard: true, ..Actions::default() };
        note(&mut actions, Note::Failed(failure));
        actions
    }
}

fn note(actions: &mut Actions, told: Note) {
    // No step tells more than two things.
    let pushed = actions.notes.push(told);
    debug_assert!(pushed.is_ok(), "{told:?}");
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

    fn enrolment() -> ByButton {
        let poses = Poses::from_slice(&[Pose::Front, Pose::Left]).expect("two");
        ByButton::new(ButtonSettings {
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

    fn hold(empty: bool) -> Event<'static> {
        Event::Hold { side: Side::Outside, empty }
    }

    fn like(person: PersonId, similarity: f32) -> Option<Like> {
        Some(Like { person, similarity })
    }

    fn in_front(at: f64, by: &mut ByButton) {
        by.step(s(at), hold(false));
        let administrator = by.step(s(at), Event::Administrator(ADA));
        assert_eq!(administrator.notes[..], [Note::Administrator(ADA)]);
        assert_eq!(administrator.signal, Some(Signal::Newcomer));
    }

    #[test]
    fn an_answer_about_another_newcomer_says_nothing() {
        let mut by = enrolment();
        by.step(s(0.0), Event::LocalReset);
        by.step(s(1.0), hold(true));
        for (at, pose, angle) in [(2.0, Pose::Front, 0.0), (3.0, Pose::Left, 0.3)] {
            by.step(s(at), Event::Frame { shot: &shot(pose, angle), like: None });
        }
        assert!(matches!(by.state(), State::Keeping { .. }), "{:?}", by.state());
        for late in [Event::Kept { number: 0 }, Event::NotKept { number: 7 }] {
            assert_eq!(by.step(s(4.0), late), Actions::default());
            assert!(matches!(by.state(), State::Keeping { .. }));
        }
        by.step(s(5.0), Event::Kept { number: 1 });
        assert!(!by.busy());
    }

    #[test]
    fn button_administrator_newcomer() {
        let mut by = enrolment();
        let begun = by.step(s(0.0), hold(false));
        assert_eq!(begun.notes[..], [Note::Begun(Side::Outside)]);
        by.step(s(2.0), Event::Administrator(ADA));
        // Ada steps aside; it takes a while.
        for at in [2.1, 2.2, 2.3, 2.4] {
            let shot = shot(Pose::Front, 2.0);
            let waits = by.step(s(at), Event::Frame { shot: &shot, like: like(ADA, 0.9) });
            assert!(!waits.take && waits.notes.is_empty(), "{waits:?}");
        }
        let frame = |by: &mut ByButton, at, pose, angle, like| {
            by.step(s(at), Event::Frame { shot: &shot(pose, angle), like })
        };
        let first = frame(&mut by, 4.0, Pose::Front, 0.0, like(GRACE, 0.3));
        assert_eq!((first.take, first.signal), (true, Some(Signal::View { taken: 1, of: 2 })));
        assert!(!frame(&mut by, 5.0, Pose::Front, 0.3, None).take);
        let last = frame(&mut by, 6.0, Pose::Left, 0.3, like(GRACE, 0.45));
        assert!(last.take);
        assert_eq!(last.notes[..], [Note::LookAlike(Like { person: GRACE, similarity: 0.45 })]);
        let newcomer = last.keep.expect("somebody to keep");
        assert_eq!(newcomer.by, Some(ADA));
        let (_, stricter) = newcomer.look_alike.expect("a look-alike");
        assert!((stricter - 0.05).abs() < 1e-6);
        assert!(by.busy());
        let kept = by.step(s(6.1), Event::Kept { number: 1 });
        assert_eq!((kept.signal, kept.discard), (Some(Signal::Enrolled), true));
        assert!(!by.busy());
    }

    #[test]
    fn the_first_person_needs_a_reset_and_uses_it_up_once_enrolled() {
        let mut by = enrolment();
        assert_eq!(by.step(s(0.0), hold(true)).notes[..], [Note::NotReset(Side::Outside)]);
        by.step(s(1.0), Event::LocalReset);
        assert_eq!(by.step(s(601.0), hold(true)).notes[..], [Note::NotReset(Side::Outside)]);
        by.step(s(700.0), Event::LocalReset);
        assert_eq!(by.step(s(1299.0), hold(true)).notes[..], [Note::First(Side::Outside)]);
        // Whoever was too slow may try again.
        by.step(s(1299.2), Event::Press);
        assert_eq!(by.step(s(1299.5), hold(true)).notes[..], [Note::First(Side::Outside)]);
        for (at, pose, angle) in [(1300.0, Pose::Front, 0.0), (1301.0, Pose::Left, 0.3)] {
            by.step(s(at), Event::Frame { shot: &shot(pose, angle), like: None });
        }
        by.step(s(1301.5), Event::NotKept { number: 1 });
        by.step(s(1301.6), Event::LocalReset);
        by.step(s(1301.7), hold(true));
        for (at, pose, angle) in [(1302.0, Pose::Front, 0.0), (1303.0, Pose::Left, 0.3)] {
            by.step(s(at), Event::Frame { shot: &shot(pose, angle), like: None });
        }
        by.step(s(1304.0), Event::Kept { number: 2 });
        assert_eq!(by.step(s(1305.0), hold(true)).notes[..], [Note::NotReset(Side::Outside)]);
        // A reset is worth nothing where somebody is enrolled.
        by.step(s(1306.0), Event::LocalReset);
        assert_eq!(by.step(s(1307.0), hold(false)).notes[..], [Note::Begun(Side::Outside)]);
    }

    #[test]
    fn somebody_known_is_sent_away_by_name() {
        let mut by = enrolment();
        in_front(0.0, &mut by);
        for at in [1.0, 2.0] {
            let shot = shot(Pose::Front, 0.0);
            let step = by.step(s(at), Event::Frame { shot: &shot, like: like(GRACE, 0.7) });
            assert_eq!(step, Actions::default());
        }
        let shot = shot(Pose::Front, 0.0);
        let step = by.step(s(3.0), Event::Frame { shot: &shot, like: like(GRACE, 0.7) });
        let known = Failure::AlreadyEnrolled(Like { person: GRACE, similarity: 0.7 });
        assert_eq!(step.notes[..], [Note::Failed(known)]);
        assert!(step.discard && !by.busy());
    }

    #[test]
    fn every_step_ends_by_a_press_or_by_time() {
        let failed = |actions: Actions| match actions.notes[..] {
            [Note::Failed(failure)] => failure,
            _ => panic!("{actions:?}"),
        };
        let mut by = enrolment();
        by.step(s(0.0), hold(false));
        assert_eq!(failed(by.step(s(1.0), Event::Press)), Failure::Cancelled);
        by.step(s(2.0), hold(false));
        assert_eq!(by.step(s(21.9), Event::Tick), Actions::default());
        assert_eq!(failed(by.step(s(22.0), Event::Tick)), Failure::NoAdministrator);
        in_front(30.0, &mut by);
        assert_eq!(failed(by.step(s(31.0), Event::Press)), Failure::Cancelled);
        in_front(40.0, &mut by);
        let nobody = Failure::NoViews(Hindrance::NoFace);
        assert_eq!(failed(by.step(s(100.0), Event::Tick)), nobody);
        for (at, answer) in [(200.0, Event::NotKept { number: 1 }), (300.0, Event::Tick)] {
            in_front(at, &mut by);
            by.step(s(at), Event::Frame { shot: &shot(Pose::Front, 0.0), like: None });
            by.step(s(at + 1.0), Event::Frame { shot: &shot(Pose::Left, 0.3), like: None });
            // Too late.
            assert_eq!(by.step(s(at + 2.0), Event::Press), Actions::default());
            assert_eq!(failed(by.step(s(at + 31.0), answer)), Failure::NotKept);
        }
    }

    proptest! {
        /// Whoever has nothing but the button outside and no administrator's face enrolls
        /// nobody, whatever they do; nor does a reset where somebody is enrolled.
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
                    1 => Event::Press,
                    3 => Event::Kept { number: 1 },
                    4 if !empty => Event::LocalReset,
                    5 => Event::Tick,
                    _ => Event::Frame { shot: &shot, like: None },
                };
                let actions = by.step(now, event);
                prop_assert!(!actions.take && actions.keep.is_none(), "{actions:?}");
            }
        }

        /// Somebody is kept only with all views, each taken since the administrator
        /// was known, and who is known is never kept.
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
                    1 if angle > 0.3 => Event::Press,
                    2 | 3 => Event::Administrator(ADA),
                    4 => Event::Frame { shot: &shot, like: like(GRACE, 0.8) },
                    5 if angle > 0.0 => Event::Kept { number: 1 },
                    _ => Event::Frame { shot: &shot, like: None },
                };
                let actions = by.step(now, event);
                if actions.discard {
                    taken = 0;
                }
                administrator |= actions.notes.contains(&Note::Administrator(ADA));
                if actions.take {
                    let known = matches!(event, Event::Frame { like: Some(_), .. });
                    prop_assert!(administrator && !known);
                    taken += 1;
                }
                if actions.keep.is_some() {
                    prop_assert_eq!(taken, 2);
                }
                if !by.busy() {
                    administrator = false;
                }
            }
        }
    }
}
