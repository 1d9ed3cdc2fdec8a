//! Keeps the latest inputs of the state machines, so that a decision can be derived again.
//!
//! All state belongs to a track, apart from the rule for two faces, which forgets within
//! [`Rules`]' `decide.evidence_expires`. So a decision follows from the frames since its
//! track, and every track seen together with it, was new.

use super::tape::{
    AskedDoor, BestSeen, FaceTaken, FrameTaken, MOST_FRAMES, MOST_VIEWS, Rules, SampleTaken, Step,
    Tape, ViewTaken,
};
use crate::access::controller::FaceSeen;
use crate::access::gallery::{Denied, PersonId};
use crate::vision::embed::Template;
use crate::vision::track::TrackId;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Most tracks remembered as older than what is kept.
const MOST_OLDER: usize = 32;

/// Keeps the inputs of one controller.
#[derive(Clone, Debug, Default)]
pub(in crate::access) struct Recorder {
    /// Whether anything is kept.
    on: bool,
    /// Steps with their times.
    steps: VecDeque<(Duration, Step)>,
    /// The views in the steps, oldest first.
    views: VecDeque<(TrackId, Template)>,
    /// Tracks of which not all frames are kept, the oldest first.
    older: VecDeque<u64>,
    /// The last frame with several faces that is not kept.
    crowded: Option<Duration>,
}

impl Recorder {
    /// Whether inputs are kept.
    pub fn on(&self) -> bool {
        self.on
    }

    /// Begins or ends keeping.
    pub fn keep(&mut self, on: bool) {
        if self.on != on {
            *self = Self { on, ..Self::default() };
        }
    }

    /// All state machines have started again: what was before has no effect.
    pub fn restart(&mut self) {
        *self = Self { on: self.on, ..Self::default() };
    }

    /// The rules have changed, while some of what was seen before has an effect.
    pub fn lose(&mut self) {
        while !self.steps.is_empty() {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((at, Step::Frame(frame))) = self.steps.pop_front() else { return };
        if frame.faces.len() > 1 {
            self.crowded = Some(at);
        }
        for face in &frame.faces {
            self.older.retain(|track| *track != face.track);
            if self.older.len() == MOST_OLDER {
                self.older.pop_front();
            }
            self.older.push_back(face.track);
            if face.view.is_some() {
                self.views.pop_front();
            }
        }
    }

    /// Takes a frame. `decides` says whether it counts for the decision, `claimed` has the
    /// similarities that liveness asked for, `stricter` what a person's threshold is higher.
    pub fn frame(
        &mut self,
        (now, captured): (Duration, Duration),
        decides: bool,
        faces: &[FaceSeen<'_>],
        claimed: &[(TrackId, Option<f32>)],
        stricter: impl Fn(PersonId) -> f32,
    ) {
        if !self.on {
            return;
        }
        let views = faces.iter().filter(|face| face.probe.is_some()).count();
        while self.steps.len() >= 2 * MOST_FRAMES
            || !self.views.is_empty() && self.views.len() + views > MOST_VIEWS
        {
            self.drop_oldest();
        }
        let faces = faces.iter().map(|face| self.face(face, claimed, &stricter)).collect();
        let age = nanoseconds(now.saturating_sub(captured));
        let frame = FrameTaken { after: 0, age, decides, faces };
        self.steps.push_back((now, Step::Frame(frame)));
    }

    fn face(
        &mut self,
        face: &FaceSeen<'_>,
        claimed: &[(TrackId, Option<f32>)],
        stricter: impl Fn(PersonId) -> f32,
    ) -> FaceTaken {
        let view = face.probe.map(|probe| {
            let before = self.views.iter().filter(|(track, _)| *track == face.track);
            let alike = before
                .map(|(_, view)| view.similarity(probe.template).unwrap_or(f32::NAN))
                .collect();
            self.views.push_back((face.track, probe.template.clone()));
            let best = probe.best.map(|best| BestSeen {
                person: best.person.0,
                similarity: best.similarity,
                stricter: stricter(best.person),
                reaches: best.reaches,
                denied: best.denied != Denied::No,
            });
            let claimed = claimed.iter().find(|(track, _)| *track == face.track);
            ViewTaken { best, claimed: claimed.map(|(_, similarity)| *similarity), alike }
        });
        FaceTaken {
            track: face.track.0,
            quality: face.weakest.1,
            yaw: face.turn.yaw,
            sample: face.sample.as_ref().map(SampleTaken::from),
            view,
        }
    }

    /// Takes a step that no frame tells of.
    pub fn step(&mut self, now: Duration, step: Step) {
        if self.on {
            if self.steps.len() >= 2 * MOST_FRAMES {
                self.drop_oldest();
            }
            self.steps.push_back((now, step));
        }
    }

    /// Everything that the decision in the newest frame follows from. `None` if it is not
    /// kept; the second result says whether it was too much.
    pub fn tape(
        &self,
        rules: impl FnOnce() -> Rules,
        asked: Option<AskedDoor>,
    ) -> (Option<Tape>, bool) {
        if !self.on {
            return (None, false);
        }
        let rules = rules();
        let Some(first) = self.first_needed(rules.decide.evidence_expires) else {
            return (None, true);
        };
        let mut last = None;
        let steps: Vec<Step> = self
            .steps
            .iter()
            .skip(first)
            .map(|(at, step)| match step {
                Step::Frame(frame) => {
                    let before = last.replace(*at).unwrap_or(*at);
                    let after = nanoseconds(at.saturating_sub(before));
                    Step::Frame(FrameTaken { after, ..frame.clone() })
                }
                other => other.clone(),
            })
            .collect();
        let mut frames = self.steps.iter().skip(first);
        let begins = frames.find(|(_, step)| matches!(step, Step::Frame(_)));
        let begins = begins.map_or(Duration::ZERO, |(at, _)| *at);
        (Some(Tape { rules, begins, steps, asked }), false)
    }

    /// The latest step before which nothing has an effect on the newest frame.
    fn first_needed(&self, expires: Duration) -> Option<usize> {
        let faces = |step: &Step| match step {
            Step::Frame(frame) => frame.faces.iter().map(|face| face.track).collect(),
            _ => Vec::new(),
        };
        // Where each track is seen first, and the last frame with several faces before each step.
        let mut first = BTreeMap::new();
        let (mut crowds, mut crowded) = (Vec::new(), self.crowded);
        for (at, (time, step)) in self.steps.iter().enumerate() {
            let tracks = faces(step);
            crowds.push(crowded);
            if tracks.len() > 1 {
                crowded = Some(*time);
            }
            for track in tracks {
                first.entry(track).or_insert(at);
            }
        }
        let mut needed = usize::MAX;
        for (at, (time, step)) in self.steps.iter().enumerate().rev() {
            for track in faces(step) {
                if self.older.contains(&track) {
                    return None;
                }
                needed = needed.min(first.get(&track).copied().unwrap_or(0));
            }
            let quiet = crowds[at].is_none_or(|when| *time >= when + expires);
            if needed == at && quiet {
                return Some(at);
            }
            needed = if quiet { needed } else { needed.min(at.saturating_sub(1)) };
        }
        None
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
