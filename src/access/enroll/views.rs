//! Collects several good, different views of one person in front of a camera.
//!
//! ```text
//!   Collecting --(as many views as wanted)--> Done
//!       |  \__ a frame that cannot be used: report why, continue
//!       +---(time is up)--> Failed, with the most frequent hindrance
//! ```

use crate::vision::embed::Template;
use crate::vision::pose::{Pose, Turn};
use crate::vision::quality::{Aspect, WORTH_ENROLLING};
use std::time::Duration;

/// Maximum number of views per person. More templates would make matching slower and
/// looser.
pub const MAX_VIEWS: usize = 16;
/// Enough for all values of [`Hindrance`], with eight aspects and five poses.
const MOST_HINDRANCES: usize = 32;
/// Minimum time between two views.
const BETWEEN_VIEWS: Duration = Duration::from_millis(300);
/// Maximum cosine of a view and the previous one; above it the view adds nothing.
const SAME_VIEW: f32 = 0.985;

/// Wanted poses, in the order in which the person is asked for them.
pub type Poses = heapless::Vec<Pose, MAX_VIEWS>;

/// Settings of an enrolment.
#[derive(Clone, Debug, PartialEq)]
pub struct EnrollSettings {
    /// Number of views wanted, 1..=[`MAX_VIEWS`].
    pub views: usize,
    /// Poses of the first views. [`Pose::Front`] comes first and is taken first; the others
    /// may come in any order. Views beyond these poses may have any pose.
    pub poses: Poses,
    /// Time limit, counted from the first frame.
    pub time: Duration,
    /// Similarity to the first view at or above which a view is of the same person.
    pub same_person: f32,
}

/// Content of a frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Shot {
    /// No face in the zone.
    Empty,
    /// More than one face in the zone.
    Crowd,
    /// One face in the zone.
    Face {
        /// The weakest aspect of the view and its score, 0..=1.
        weakest: (Aspect, f32),
        /// Direction in which the face looks.
        turn: Turn,
        /// `None` if the view is too poor to be embedded.
        template: Option<Template>,
    },
}

/// Why a frame cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hindrance {
    /// No face in the zone.
    NoFace,
    /// More than one face in the zone.
    Crowd,
    /// The view is too poor in this aspect.
    Poor(Aspect),
    /// A different person than in the first view.
    SomebodyElse,
    /// Too similar to the previous view.
    Same,
    /// Not a wanted pose; this is the next wanted one.
    Turn(Pose),
}

impl Hindrance {
    /// Advice to the person, in words.
    pub fn advice(self) -> &'static str {
        match self {
            Self::NoFace => "step in front of the camera",
            Self::Crowd => "one at a time",
            Self::Poor(aspect) => aspect.advice(),
            Self::SomebodyElse => "this is somebody else than before",
            Self::Same => "turn the head a little",
            Self::Turn(pose) => pose.advice(),
        }
    }
}

/// Result of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Keep this frame's view; with it this many views are taken.
    Take(usize),
    /// Keep this frame's view; it is the last one wanted.
    Done,
    /// The frame cannot be used; advise the person about this hindrance.
    Wait(Hindrance),
    /// The frame is too soon after the last view; no advice is needed.
    Early,
    /// Time is up; this was the most frequent hindrance.
    Failed(Hindrance),
}

/// Collects the views of one person.
#[derive(Clone, Debug)]
pub struct Enrolment {
    settings: EnrollSettings,
    began: Option<Duration>,
    first: Option<Template>,
    /// Direction of the first view.
    front: Option<Turn>,
    last: Option<(Duration, Template)>,
    taken: usize,
    /// Poses still to come.
    wanted: Poses,
    hindrances: heapless::LinearMap<Hindrance, u32, MOST_HINDRANCES>,
}

impl Enrolment {
    /// Starts without views. The time limit begins with the first frame.
    pub fn new(settings: EnrollSettings) -> Self {
        let hindrances = heapless::LinearMap::new();
        let wanted = settings.poses.clone();
        Self {
            settings,
            began: None,
            first: None,
            front: None,
            last: None,
            taken: 0,
            wanted,
            hindrances,
        }
    }

    /// Takes one frame at `now`, on a clock that never runs backwards.
    pub fn step(&mut self, now: Duration, shot: &Shot) -> Step {
        let began = *self.began.get_or_insert(now);
        if now.saturating_sub(began) >= self.settings.time {
            return Step::Failed(self.hindered_most());
        }
        let (template, turn) = match shot {
            Shot::Empty => return self.wait(Hindrance::NoFace),
            Shot::Crowd => return self.wait(Hindrance::Crowd),
            Shot::Face { weakest: (aspect, score), .. } if *score < WORTH_ENROLLING => {
                return self.wait(Hindrance::Poor(*aspect));
            }
            Shot::Face { weakest: (aspect, _), template: None, .. } => {
                return self.wait(Hindrance::Poor(*aspect));
            }
            Shot::Face { template: Some(template), turn, .. } => (template, *turn),
        };
        if let Some((at, last)) = &self.last {
            if now.saturating_sub(*at) < BETWEEN_VIEWS {
                return Step::Early;
            }
            let like = |other: &Template| template.similarity(other).unwrap_or(-1.0);
            if self.first.as_ref().is_some_and(|first| like(first) < self.settings.same_person) {
                return self.wait(Hindrance::SomebodyElse);
            }
            if like(last) > SAME_VIEW {
                return self.wait(Hindrance::Same);
            }
        }
        if let Some(next) = self.wanted.first().copied() {
            match self.wanted_by(turn) {
                Some(at) => {
                    self.wanted.remove(at);
                }
                None => return self.wait(Hindrance::Turn(next)),
            }
        }
        self.front.get_or_insert(turn);
        self.first.get_or_insert_with(|| template.clone());
        self.last = Some((now, template.clone()));
        self.taken += 1;
        if self.taken >= self.settings.views.clamp(1, MAX_VIEWS) {
            Step::Done
        } else {
            Step::Take(self.taken)
        }
    }

    /// Index of the wanted pose that `turn` has, if any. The frontal view comes first
    /// because all other poses are measured against it.
    fn wanted_by(&self, turn: Turn) -> Option<usize> {
        let Some(front) = self.front else {
            return turn.is_frontal().then_some(0);
        };
        let pose = turn.pose(front)?;
        self.wanted.iter().position(|wanted| *wanted == pose)
    }

    /// Number of views taken so far, and number wanted.
    pub fn progress(&self) -> (usize, usize) {
        (self.taken, self.settings.views.clamp(1, MAX_VIEWS))
    }

    /// The most frequent hindrance so far; [`Hindrance::NoFace`] if there was none.
    pub fn hindered_most(&self) -> Hindrance {
        let most = self.hindrances.iter().max_by_key(|(_, count)| **count);
        most.map_or(Hindrance::NoFace, |(hindrance, _)| *hindrance)
    }

    fn wait(&mut self, hindrance: Hindrance) -> Step {
        let count = self.hindrances.get(&hindrance).copied().unwrap_or(0);
        // There is room for every hindrance.
        let _ = self.hindrances.insert(hindrance, count + 1);
        Step::Wait(hindrance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::ModelId;
    use crate::vision::embed::Embedding;
    use proptest::prelude::*;

    const SETTINGS: EnrollSettings = EnrollSettings {
        views: 3,
        poses: Poses::new(),
        time: Duration::from_secs(20),
        same_person: 0.4,
    };

    fn s(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// A good view whose embedding has this angle in radians.
    fn good(angle: f32) -> Shot {
        let embedding = Embedding::normalized(&[angle.cos(), angle.sin()]);
        let template = Some(Template::new(ModelId::new("one"), embedding));
        Shot::Face { weakest: (Aspect::Pose, 0.9), turn: Pose::Front.example(), template }
    }

    #[test]
    fn three_different_views_are_enough() {
        let mut enrolment = Enrolment::new(SETTINGS);
        let poor = Shot::Face {
            weakest: (Aspect::Sharpness, 0.3),
            turn: Pose::Front.example(),
            template: None,
        };
        let script = [
            (0.0, Shot::Empty, Step::Wait(Hindrance::NoFace)),
            (0.1, poor, Step::Wait(Hindrance::Poor(Aspect::Sharpness))),
            (0.2, good(0.0), Step::Take(1)),
            (0.3, good(0.3), Step::Early),
            (0.6, good(0.05), Step::Wait(Hindrance::Same)),
            (0.7, Shot::Crowd, Step::Wait(Hindrance::Crowd)),
            (0.8, good(0.3), Step::Take(2)),
            (1.2, good(1.5), Step::Wait(Hindrance::SomebodyElse)),
            (1.6, good(-0.3), Step::Done),
        ];
        for (at, shot, expected) in script {
            assert_eq!(enrolment.step(s(at), &shot), expected, "at {at}");
        }
    }

    #[test]
    fn poses_come_in_any_order_after_the_first() {
        let mut poses = Poses::new();
        poses.extend([Pose::Front, Pose::Left, Pose::Right]);
        let mut enrolment = Enrolment::new(EnrollSettings { views: 4, poses, ..SETTINGS });
        let between = Turn { yaw: 0.11, ..Pose::Front.example() };
        let turned = |pose: Option<Pose>, angle: f32| match good(angle) {
            Shot::Face { weakest, template, .. } => {
                let turn = pose.map_or(between, Pose::example);
                Shot::Face { weakest, turn, template }
            }
            other => other,
        };
        let script = [
            (0.0, Some(Pose::Left), 0.0, Step::Wait(Hindrance::Turn(Pose::Front))),
            (0.1, Some(Pose::Front), 0.0, Step::Take(1)),
            (0.5, Some(Pose::Front), 0.2, Step::Wait(Hindrance::Turn(Pose::Left))),
            (0.6, None, 0.2, Step::Wait(Hindrance::Turn(Pose::Left))),
            (0.7, Some(Pose::Right), 0.3, Step::Take(2)),
            (1.1, Some(Pose::Right), 0.5, Step::Wait(Hindrance::Turn(Pose::Left))),
            (1.2, Some(Pose::Left), -0.3, Step::Take(3)),
            // All poses are taken; the last view may have any pose.
            (1.6, None, 0.1, Step::Done),
        ];
        for (at, pose, angle, expected) in script {
            assert_eq!(enrolment.step(s(at), &turned(pose, angle)), expected, "at {at}");
        }
        assert_eq!(enrolment.progress(), (4, 4));
    }

    #[test]
    fn time_out_says_what_hindered_most() {
        let mut enrolment = Enrolment::new(SETTINGS);
        let far = Shot::Face {
            weakest: (Aspect::Size, 0.1),
            turn: Pose::Front.example(),
            template: None,
        };
        for i in 0..19 {
            enrolment.step(s(f64::from(i)), if i < 5 { &Shot::Empty } else { &far });
        }
        let failed = Step::Failed(Hindrance::Poor(Aspect::Size));
        assert_eq!(enrolment.step(s(20.0), &good(0.0)), failed);
        assert_eq!(Enrolment::new(SETTINGS).step(s(0.0), &good(0.0)), Step::Take(1));
    }

    proptest! {
        /// An enrolment is done only with the wanted number of good views of one person,
        /// apart in time.
        #[test]
        fn done_only_with_the_views_wanted(
            frames in prop::collection::vec((-3f32..3.0, 0f32..1.0, 0u64..800), 0..60),
        ) {
            let mut enrolment = Enrolment::new(SETTINGS);
            let mut now = Duration::ZERO;
            let mut taken: Vec<(Duration, f32)> = vec![];
            for (angle, score, later) in frames {
                now += Duration::from_millis(later);
                let shot = match good(angle) {
                    Shot::Face { template, turn, .. } => {
                        Shot::Face { weakest: (Aspect::Size, score), turn, template }
                    }
                    other => other,
                };
                let step = enrolment.step(now, &shot);
                if matches!(step, Step::Take(_) | Step::Done) {
                    prop_assert!(score >= WORTH_ENROLLING && now < SETTINGS.time + Duration::from_millis(800));
                    if let Some((at, first)) = taken.first() {
                        prop_assert!(now >= *at + BETWEEN_VIEWS);
                        prop_assert!((angle - first).cos() > 0.39);
                    }
                    taken.push((now, angle));
                }
                if step == Step::Done {
                    prop_assert_eq!(taken.len(), 3);
                    break;
                }
            }
        }
    }
}
