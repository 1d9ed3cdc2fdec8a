//! Liveness: a first defence against presentation attacks with prints and screens.
//!
//! The cues need no pictures of attacks. Each is a pure function of a frame or of the
//! landmarks of a track: movement of the nose relative to eyes and mouth ([`motion`]),
//! moiré of screens and dots of prints ([`spectrum`]), straight edges beside the face
//! ([`edges`]), sharpness ([`crate::vision::quality`]) and colours ([`colour`]). A value is
//! suspicious if live faces rarely show it, by the ramps below. There are also networks
//! trained on attacks, if the model set has any ([`network`]). The challenge to turn the
//! head is a decision and lives in `access::liveness`.
//!
//! None of this stops a determined attacker with a good screen close to the camera, a video
//! of a head that turns, or a mask.

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

/// Most frames kept per track: two seconds at 12 frames per second, which is more than a
/// board reaches. The oldest frame is dropped first.
const MAX_SAMPLES: usize = 24;
/// Age at which a frame is dropped: a person who stays longer has moved in the meantime.
const EXPIRES: Duration = Duration::from_secs(3);
/// Shortest interval between two runs of the networks on a track: their results change
/// slowly, and they cost more than everything else.
pub const NETWORK_EVERY: Duration = Duration::from_millis(500);
/// Least number of frames for a verdict: a single frame may be a bad moment.
pub const LEAST_FRAMES: usize = 3;

// Ramps from unsuspicious (0) to suspicious (1). They begin at the 95th to 99th percentile
// of live faces, measured on 119 photos of LFW on an average head that turns, with the
// blur, noise and JPEG of a camera (facelatch-tools liveness --photos 119 --seed 1). The
// 1st, 50th and 99th percentiles are: moiré 3.5, 4.3, 5.9 dB; edges 0.38, 0.53, 0.93;
// sharpness 0.021, 0.067, 0.177. Simulated screens have a median moiré of 13 dB, and prints
// and screens with their edges in view have median edges of 0.96. Other cameras have other
// percentiles.
const MOIRE: (f32, f32) = (6.0, 9.0);
const EDGES: (f32, f32) = (0.75, 0.95);
const BLURRED: (f32, f32) = (0.02, 0.01);
const COLOUR: (f32, f32) = (1.8, 2.6);
/// Ramp of [`Motion::turn`] above which a nose that does not move is suspicious. Heads and
/// prints that turn by less than 25 degrees stay below 0.02.
const TURN: (f32, f32) = (0.02, 0.04);
/// Ramp of the parallax that a head with such a turn shows at least.
const SOLID: (f32, f32) = (0.015, 0.035);
/// Parallax at or above which a face counts as solid: 95 of 100 heads that turn by 4 to 14
/// degrees show more, 95 of 100 tilted prints less.
pub const SOLID_FROM: f32 = 0.023;
/// Mean and standard deviation of each of [`Colours::values`] over the same faces.
const COLOURS: [(f32, f32); 6] =
    [(0.41, 0.1), (0.1, 0.033), (0.18, 0.06), (45.0, 23.0), (0.094, 0.03), (0.0, 0.008)];

/// Measurements of a face in one frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Shape of the five landmarks. `None` if they are degenerate.
    pub shape: Option<Shape>,
    /// [`spectrum::moire`], decibels.
    pub moire: f32,
    /// [`edges::straight_edges`], 0 to 1.
    pub edges: f32,
    /// [`crate::vision::quality::Quality::sharpness`].
    pub sharpness: f32,
    /// Colour statistics of the aligned face.
    pub colours: Colours,
    /// Output of the networks, from 0 (attack) to 1 (live). `None` if they did not run.
    pub network: Option<f32>,
}

impl Sample {
    /// Measures a face in its frame, without running the networks.
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

/// A cue for a presentation attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cue {
    /// The nose does not move in the plane of eyes and mouth while that plane turns.
    Flat,
    /// An isolated peak in the spectrum.
    Moire,
    /// Straight edges on three sides of the face.
    Edges,
    /// Hardly any fine detail. High sharpness is no cue, because sharp portraits have it,
    /// too.
    Sharpness,
    /// Colours that are rare in skin.
    Colours,
    /// The output of the networks.
    Network,
}

impl Cue {
    /// All cues.
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

/// Measurements of the recent frames of a track, combined.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cues {
    /// Number of frames.
    pub frames: usize,
    /// Motion of the five landmarks. `None` with fewer than four frames.
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
    /// Distance of the colours from those of live faces: the root mean square over all
    /// statistics, in standard deviations. From 0 up; 1 is usual.
    pub fn colour(&self) -> f32 {
        let apart = COLOURS
            .iter()
            .zip(self.colours)
            .map(|((mean, deviation), value)| ((value - mean) / deviation).powi(2));
        (apart.sum::<f32>() / COLOURS.len() as f32).sqrt()
    }

    /// Whether the parallax shows that the face is solid.
    pub fn solid(&self) -> bool {
        self.motion.is_some_and(|motion| motion.parallax >= SOLID_FROM)
    }

    /// Suspicion of a cue, 0..=1; 0 if it was not measured.
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

    /// Liveness score, 0..=1: the product of `1 - suspicion` over all cues.
    pub fn score(&self) -> f32 {
        Cue::ALL.iter().map(|cue| 1.0 - self.suspicion(*cue)).product()
    }

    /// The most suspicious cue.
    pub fn worst(&self) -> Cue {
        let more = |a: Cue, b: Cue| if self.suspicion(b) > self.suspicion(a) { b } else { a };
        Cue::ALL.into_iter().fold(Cue::Flat, more)
    }
}

/// Linear ramp from 0 at `from` to 1 at `to`, clamped. NaN gives 1, suspicious.
fn ramp(value: f32, (from, to): (f32, f32)) -> f32 {
    let share = (value - from) / (to - from);
    if share.is_nan() { 1.0 } else { share.clamp(0.0, 1.0) }
}

/// The liveness verdict on a track.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// 0 (an attack) to 1 (live): [`Cues::score`].
    pub score: f32,
    /// The measurements behind the score.
    pub cues: Cues,
}

impl Verdict {
    /// Whether there are enough frames ([`LEAST_FRAMES`]) for the verdict to count.
    pub fn counts(&self) -> bool {
        self.cues.frames >= LEAST_FRAMES
    }
}

/// Measurements of a track over the last three seconds.
#[derive(Clone, Debug, Default)]
pub struct Liveness {
    samples: heapless::Deque<(Duration, Sample), MAX_SAMPLES>,
}

impl Liveness {
    /// Adds the measurements of a frame at the time `now` on a monotonic clock. Returns the
    /// verdict.
    pub fn step(&mut self, now: Duration, sample: &Sample) -> Verdict {
        self.forget(now);
        if self.samples.is_full() {
            self.samples.pop_front();
        }
        // There is room now.
        let _ = self.samples.push_back((now, *sample));
        self.verdict()
    }

    /// The verdict at a time, from the frames that have not expired.
    pub fn at(&mut self, now: Duration) -> Verdict {
        self.forget(now);
        self.verdict()
    }

    /// Whether the networks should run again at `now`, a time not before the last frame:
    /// their last result has been dropped or is [`NETWORK_EVERY`] old. If they run whenever
    /// this is true, every decision rests on a result of theirs.
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

    /// A face without any suspicion.
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
        // With a fast camera newer frames may displace the result before that time.
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
