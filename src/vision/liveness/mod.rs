//! Whether a face is there in person: a first line against prints and screens.
//!
//! Cues that need no pictures of attacks, each a pure function of a frame or of a track's
//! landmarks: how the nose moves against eyes and mouth ([`motion`]), waves of screens and
//! dots of prints ([`spectrum`]), straight edges beside the face ([`edges`]), sharpness
//! ([`crate::vision::quality`]) and colours ([`colour`]). What is suspicious is what live faces
//! hardly show, by the ramps below. Beside them networks that learned from attacks, where
//! the models have any ([`network`]), and a challenge ([`challenge`]).
//!
//! None of this stops somebody who means it: a good screen close to the camera, a video
//! of a head that turns, a mask.

pub mod colour;
pub mod edges;
pub mod motion;
pub mod network;
pub mod spectrum;

use crate::vision::frame::Frame;
use crate::vision::recognizer::View;
use colour::Colours;
use motion::{Motion, Shape};
use std::time::Duration;

/// Frames a track remembers: two seconds at 12 frames a second, which is more than a
/// board manages. Older ones make room.
const MAX_SAMPLES: usize = 24;
/// Age at which a frame is forgotten: who stays longer has moved meanwhile.
const EXPIRES: Duration = Duration::from_secs(3);
/// The networks look at a face so often at most: their answers hardly change between, and
/// they cost more than all else.
pub const NETWORK_EVERY: Duration = Duration::from_millis(500);
/// Frames without which nothing is said: one may be a bad moment.
pub const LEAST_FRAMES: usize = 3;

// Ramps from unsuspicious (0) to suspicious (1). They begin where 95 to 99 of 100 live
// faces end: 119 photos of LFW on an average head that turns, through a camera's blur,
// noise and JPEG (facelatch-tools liveness --photos 119 --seed 1). Of those 1, 50 and 99 of
// 100 lie below: moiré 3.5, 4.3, 5.9 dB; edges 0.38, 0.53, 0.93; sharpness 0.021, 0.067,
// 0.177. Screens made from them reach a median of 13 dB, prints and screens with their
// edges in view 0.96. Another camera has other ends.
const MOIRE: (f32, f32) = (6.0, 9.0);
const EDGES: (f32, f32) = (0.75, 0.95);
const BLURRED: (f32, f32) = (0.02, 0.01);
const COLOUR: (f32, f32) = (1.8, 2.6);
/// Squeeze of eyes and mouth from which on a nose that has not moved is flat: more than
/// heads and prints in motion show that turn by less than 25 degrees (0.02).
const TURN: (f32, f32) = (0.02, 0.04);
/// Parallax that a head which turned so far would show at least.
const SOLID: (f32, f32) = (0.015, 0.035);
/// Parallax from which on a face has been seen to be solid: 95 of 100 heads that turn by 4
/// to 14 degrees show more, 95 of 100 tilted prints less.
pub const SOLID_FROM: f32 = 0.023;
/// Mean and standard deviation of each of [`Colours::values`], of the same faces.
const COLOURS: [(f32, f32); 6] =
    [(0.41, 0.1), (0.1, 0.033), (0.18, 0.06), (45.0, 23.0), (0.094, 0.03), (0.0, 0.008)];

/// What one frame says of a face.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// The five points; nothing where they make no sense.
    pub shape: Option<Shape>,
    /// [`spectrum::moire`], decibels.
    pub moire: f32,
    /// [`edges::straight_edges`], 0 to 1.
    pub edges: f32,
    /// [`crate::vision::quality::Quality::sharpness`].
    pub sharpness: f32,
    /// Of the aligned face.
    pub colours: Colours,
    /// What the networks say, 0 to 1, where there are any.
    pub network: Option<f32>,
}

impl Sample {
    /// Measures a face in its frame, without the networks.
    pub fn measure(frame: &Frame, view: &View) -> Self {
        let face = &view.face;
        Self {
            shape: Shape::of(&face.landmarks),
            moire: spectrum::moire(frame, &face.rect),
            edges: edges::straight_edges(frame, &face.rect),
            sharpness: view.quality.sharpness,
            colours: Colours::measure(&view.crop),
            network: None,
        }
    }
}

/// Something that may speak against a face.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cue {
    /// The nose keeps its place in the plane of eyes and mouth while that turns.
    Flat,
    /// A lone wave in the spectrum.
    Moire,
    /// Straight edges on two sides.
    Edges,
    /// Hardly any fine detail. More than LFW has is no sign: a crisp portrait has it, too.
    Sharpness,
    /// Colours that skin hardly has.
    Colours,
    /// The networks.
    Network,
}

impl Cue {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Flat, Self::Moire, Self::Edges, Self::Sharpness, Self::Colours, Self::Network];
}

impl std::fmt::Display for Cue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Flat => "moves as a plane",
            Self::Moire => "moiré",
            Self::Edges => "straight edges",
            Self::Sharpness => "sharpness",
            Self::Colours => "colours",
            Self::Network => "network",
        })
    }
}

/// What a track's frames say together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cues {
    /// Frames counted.
    pub frames: usize,
    /// Motion of the five points; nothing where there are too few frames.
    pub motion: Option<Motion>,
    /// Mean of [`Sample::moire`].
    pub moire: f32,
    /// Mean of [`Sample::edges`].
    pub edges: f32,
    /// Mean of [`Sample::sharpness`].
    pub sharpness: f32,
    /// Means of [`Colours::values`].
    pub colours: [f32; 6],
    /// Mean of [`Sample::network`] over the frames that have it.
    pub network: Option<f32>,
}

impl Cues {
    /// How far the colours lie from those of live faces: the root of the mean square over
    /// all statistics, in standard deviations. 0 and up, 1 is usual.
    pub fn colour(&self) -> f32 {
        let apart = COLOURS
            .iter()
            .zip(self.colours)
            .map(|((mean, deviation), value)| ((value - mean) / deviation).powi(2));
        (apart.sum::<f32>() / COLOURS.len() as f32).sqrt()
    }

    /// Whether the nose has been seen to stand out of the face.
    pub fn solid(&self) -> bool {
        self.motion.is_some_and(|motion| motion.parallax >= SOLID_FROM)
    }

    /// How suspicious a cue is, 0 to 1; 0 where nothing is known.
    pub fn suspicion(&self, cue: Cue) -> f32 {
        match cue {
            Cue::Flat => self.motion.map_or(0.0, |motion| {
                ramp(motion.turn, TURN) * (1.0 - ramp(motion.parallax, SOLID))
            }),
            Cue::Moire => ramp(self.moire, MOIRE),
            Cue::Edges => ramp(self.edges, EDGES),
            Cue::Sharpness => ramp(self.sharpness, BLURRED),
            Cue::Colours => ramp(self.colour(), COLOUR),
            Cue::Network => self.network.map_or(0.0, |live| 1.0 - live),
        }
    }

    /// How live a face is, 0 to 1: what each suspicion leaves of what the others left.
    pub fn score(&self) -> f32 {
        Cue::ALL.iter().map(|cue| 1.0 - self.suspicion(*cue)).product()
    }

    /// The most suspicious cue.
    pub fn worst(&self) -> Cue {
        let more = |a: Cue, b: Cue| if self.suspicion(b) > self.suspicion(a) { b } else { a };
        Cue::ALL.into_iter().fold(Cue::Flat, more)
    }
}

/// 0 at `from`, 1 at `to`; what is not a number is suspicious.
fn ramp(value: f32, (from, to): (f32, f32)) -> f32 {
    let share = (value - from) / (to - from);
    if share.is_nan() { 1.0 } else { share.clamp(0.0, 1.0) }
}

/// What is held of a face.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// 0 (an attack) to 1 (live): [`Cues::score`].
    pub score: f32,
    /// Why.
    pub cues: Cues,
}

impl Verdict {
    /// Whether there are frames enough for it to count.
    pub fn counts(&self) -> bool {
        self.cues.frames >= LEAST_FRAMES
    }
}

/// A track's frames of the last seconds.
#[derive(Clone, Debug, Default)]
pub struct Liveness {
    samples: heapless::Deque<(Duration, Sample), MAX_SAMPLES>,
}

impl Liveness {
    /// Takes a frame, on a clock that does not run backwards.
    pub fn step(&mut self, now: Duration, sample: &Sample) -> Verdict {
        self.forget(now);
        if self.samples.is_full() {
            self.samples.pop_front();
        }
        // Room was made.
        let _ = self.samples.push_back((now, *sample));
        self.verdict()
    }

    /// What the frames so far say at this time.
    pub fn at(&mut self, now: Duration) -> Verdict {
        self.forget(now);
        self.verdict()
    }

    /// Whether the networks are to look again, at a time not before the last frame's: what
    /// they said last is forgotten, or [`NETWORK_EVERY`] old. Whatever is decided on frames
    /// for which this was asked rests on an answer of theirs.
    pub fn network_due(&self, now: Duration) -> bool {
        let last = self.samples.iter().rev().find(|(_, sample)| sample.network.is_some());
        last.is_none_or(|(at, _)| now >= *at + NETWORK_EVERY)
    }

    fn forget(&mut self, now: Duration) {
        while self.samples.front().is_some_and(|(at, _)| now >= *at + EXPIRES) {
            self.samples.pop_front();
        }
    }

    fn verdict(&self) -> Verdict {
        let samples = || self.samples.iter().map(|(_, sample)| sample);
        let frames = self.samples.len();
        let mean = |value: &dyn Fn(&Sample) -> f32| {
            samples().map(value).sum::<f32>() / frames.max(1) as f32
        };
        let shapes: heapless::Vec<Shape, MAX_SAMPLES> =
            samples().filter_map(|sample| sample.shape).collect();
        let (sum, count) = samples()
            .filter_map(|sample| sample.network)
            .fold((0.0, 0.0), |(sum, count), live| (sum + live, count + 1.0));
        let cues = Cues {
            frames,
            motion: Motion::of(shapes.iter().copied()),
            moire: mean(&|sample| sample.moire),
            edges: mean(&|sample| sample.edges),
            sharpness: mean(&|sample| sample.sharpness),
            colours: std::array::from_fn(|at| mean(&|sample| sample.colours.values()[at])),
            network: (count > 0.0).then_some(sum / count),
        };
        Verdict { score: cues.score(), cues }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A face with nothing to be said against it.
    pub fn live() -> Sample {
        let value = |at: usize| COLOURS[at].0;
        let colours = Colours {
            saturation: value(0),
            saturation_spread: value(1),
            warmth: value(2),
            black: value(3),
            diversity: value(4),
            glare: value(5),
        };
        let (shape, sharpness) = (None, 0.07);
        Sample { shape, moire: 0.0, edges: 0.0, sharpness, colours, network: None }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn after(samples: &[Sample]) -> Verdict {
        let mut track = Liveness::default();
        let steps = samples.iter().enumerate();
        steps.map(|(at, sample)| track.step(ms(100 * at as u64), sample)).last().expect("a frame")
    }

    #[test]
    fn each_cue_alone_takes_a_face_down() {
        let verdict = after(&[live(); 4]);
        assert!(verdict.counts() && verdict.score == 1.0, "{verdict:?}");
        let mut cold = live();
        cold.colours.warmth -= 20.0 * COLOURS[2].1;
        let spoilt = [
            (Cue::Moire, Sample { moire: 60.0, ..live() }),
            (Cue::Edges, Sample { edges: 1.0, ..live() }),
            (Cue::Sharpness, Sample { sharpness: 0.0, ..live() }),
            (Cue::Sharpness, Sample { sharpness: f32::NAN, ..live() }),
            (Cue::Colours, cold),
            (Cue::Network, Sample { network: Some(0.02), ..live() }),
        ];
        for (cue, sample) in spoilt {
            let verdict = after(&[sample; 4]);
            assert!(verdict.score < 0.05 && verdict.cues.worst() == cue, "{cue}: {verdict:?}");
        }
    }

    #[test]
    fn a_plane_that_turns_is_flat_and_a_head_is_not() {
        let turning = |flat: bool| {
            let samples: Vec<Sample> = (0..12)
                .map(|at| {
                    let yaw = 0.5 + 0.4 * (f64::from(at) / 2.0).sin();
                    Sample { shape: Shape::of(&motion::tests::seen(flat, yaw, 0.1, 0.0)), ..live() }
                })
                .collect();
            after(&samples)
        };
        assert!(turning(true).score < 0.05 && turning(true).cues.worst() == Cue::Flat);
        assert!(turning(false).score > 0.99);
    }

    #[test]
    fn the_networks_are_asked_until_they_answer_and_then_twice_a_second() {
        let mut track = Liveness::default();
        let answered = Sample { network: Some(0.9), ..live() };
        assert!(track.network_due(ms(0)));
        track.step(ms(0), &live());
        assert!(track.network_due(ms(100)));
        track.step(ms(100), &answered);
        assert!(!track.network_due(ms(599)) && track.network_due(ms(600)));
        // Of a fast camera newer frames may have taken the answer's place before that.
        for at in 0..MAX_SAMPLES as u64 {
            track.step(ms(110 + at), &live());
        }
        assert!(track.network_due(ms(200)));
    }

    #[test]
    fn old_frames_are_forgotten_and_few_do_not_count() {
        let mut track = Liveness::default();
        assert!(!track.step(ms(0), &live()).counts());
        track.step(ms(100), &live());
        assert!(track.step(ms(200), &live()).counts());
        assert_eq!(track.at(ms(3100)).cues.frames, 1);
        assert_eq!(track.at(ms(9000)).cues.frames, 0);
    }

    proptest! {
        #[test]
        fn a_verdict_is_a_share_and_memory_is_bounded(
            frames in prop::collection::vec((0u64..400, 0f32..50.0, 0f32..1.0, 0f32..0.2), 1..80),
        ) {
            let mut track = Liveness::default();
            let mut now = 0;
            for (wait, moire, edges, sharpness) in frames {
                now += wait;
                let sample = Sample { moire, edges, sharpness, network: Some(edges), ..live() };
                let verdict = track.step(ms(now), &sample);
                prop_assert!((0.0..=1.0).contains(&verdict.score));
                prop_assert!(verdict.cues.frames <= MAX_SAMPLES);
            }
        }
    }
}
