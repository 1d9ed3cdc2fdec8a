//! The inputs of a decision, as they are kept. A view is kept as its similarities: to the
//! most similar person, and to the earlier views of its track.

use crate::access::decide::DecideSettings;
use crate::access::door::{PassbackSettings, Role};
use crate::access::liveness::GuardSettings;
use crate::access::schedule::Admission;
use crate::models::likelihood::Weighing;
use crate::vision::liveness::Sample;
use crate::vision::liveness::colour::Colours;
use crate::vision::liveness::motion::Shape;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Most frames of one tape: a visit of about ten seconds. Longer ones cannot be replayed.
pub const MOST_FRAMES: usize = 128;
/// Most compared views of one tape. Each is compared with all before it.
pub const MOST_VIEWS: usize = 64;

/// Everything that a decision was derived from, since nobody was in view.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tape {
    /// The rules at that time.
    pub rules: Rules,
    /// Time of the first frame on the service's clock.
    pub begins: Duration,
    /// What happened, in turn.
    pub steps: Vec<Step>,
    /// What the door was asked about a known person, for the last frame.
    pub asked: Option<AskedDoor>,
}

/// The rules of a decision: what follows from configuration, models and gallery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// Cosine similarity from which a view shows a person, -1..=1.
    pub threshold: f32,
    /// Cosine at which two views are of one face.
    pub same_face: f32,
    /// Cosine at which a turned head still resembles its person.
    pub resembles: f32,
    /// Evidence over frames.
    pub decide: DecideSettings,
    /// Likelihood ratio of similarities; `None` if the models have none.
    pub weighing: Option<Weighing>,
    /// Liveness.
    pub liveness: GuardSettings,
    /// Anti-passback.
    pub passback: PassbackSettings,
}

/// One step of the state machines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Step {
    /// A frame.
    Frame(FrameTaken),
    /// All votes were dropped.
    Clear,
    /// The grant on a track was taken back.
    NotOpened {
        /// The track.
        track: u64,
    },
    /// Liveness was asked for.
    Admit {
        /// The track.
        track: u64,
        /// The person.
        person: u32,
        /// Whether proof was asked for.
        proof: bool,
        /// Sides offered to a challenge.
        sides: Option<u8>,
    },
}

/// The faces of one frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrameTaken {
    /// Nanoseconds since the frame before.
    pub after: u64,
    /// Age of the frame, nanoseconds.
    pub age: u64,
    /// Whether it counted for the decision; while somebody is enrolled it does not.
    pub decides: bool,
    /// The faces.
    pub faces: Vec<FaceTaken>,
}

/// One face.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaceTaken {
    /// Number of the track.
    pub track: u64,
    /// Quality of the view, 0..=1.
    pub quality: f32,
    /// Turn of the head to the side.
    pub yaw: f32,
    /// Measurements of liveness, if they count.
    pub sample: Option<SampleTaken>,
    /// The comparison; `None` if the view was too poor.
    pub view: Option<ViewTaken>,
}

/// A view that was compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ViewTaken {
    /// The most similar person; `None` if nobody is enrolled.
    pub best: Option<BestSeen>,
    /// Similarity to the person whom the track showed before, if it was asked for.
    pub claimed: Option<Option<f32>>,
    /// Cosines to the earlier views of the track, the first view first.
    pub alike: Vec<f32>,
}

/// The most similar person.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BestSeen {
    /// Number of the person.
    pub person: u32,
    /// Cosine similarity, -1..=1.
    pub similarity: f32,
    /// What the threshold of the person is higher than that of others.
    pub stricter: f32,
    /// Whether the similarity reached the threshold.
    pub reaches: bool,
    /// Whether a negative was as similar to the view, so that it was no evidence.
    pub denied: bool,
}

/// [`Sample`], as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleTaken {
    shape: Option<[f32; 4]>,
    values: [f32; 9],
    network: Option<f32>,
}

impl From<&Sample> for SampleTaken {
    fn from(sample: &Sample) -> Self {
        let Sample { shape, moire, edges, sharpness, colours, network } = *sample;
        let Colours { saturation, saturation_spread, warmth, black, diversity, glare } = colours;
        let (spread, cues) = (saturation_spread, (moire, edges, sharpness));
        Self {
            shape: shape.map(|Shape { nose: [a, b], squeeze: [c, d] }| [a, b, c, d]),
            values: [cues.0, cues.1, cues.2, saturation, spread, warmth, black, diversity, glare],
            network,
        }
    }
}

impl From<SampleTaken> for Sample {
    fn from(taken: SampleTaken) -> Self {
        let [moire, edges, sharpness, saturation, saturation_spread, warmth, ..] = taken.values;
        let [.., black, diversity, glare] = taken.values;
        let colours = Colours { saturation, saturation_spread, warmth, black, diversity, glare };
        let shape = taken.shape.map(|[a, b, c, d]| Shape { nose: [a, b], squeeze: [c, d] });
        Self { shape, moire, edges, sharpness, colours, network: taken.network }
    }
}

/// What the door was asked about a known person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AskedDoor {
    /// What the schedule says.
    pub admission: Admission,
    /// The person has no name yet.
    pub probation: bool,
    /// Remaining time of a lockout that keeps the person out.
    pub locked_out: Option<Duration>,
    /// Lockdown.
    pub lockdown: bool,
    /// The service was stopping.
    pub stopped: bool,
    /// Direction and age of the person's last passage, whole seconds.
    pub passage: Option<(Role, u64)>,
    /// A duress gesture came before.
    pub duress: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_sample_is_kept_bit_for_bit(
            values in prop::array::uniform9(-100.0f32..100.0),
            shape in prop::option::of(prop::array::uniform4(-2.0f32..2.0)),
            network in prop::option::of(0.0f32..1.0),
        ) {
            let taken = SampleTaken { shape, values, network };
            prop_assert_eq!(SampleTaken::from(&Sample::from(taken)), taken);
        }
    }
}
