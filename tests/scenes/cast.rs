//! The people of the scenes: their templates, liveness samples and thresholds.

use facelatch::models::threshold::{Calibration, Tail, ThresholdTable};
use facelatch::models::{ModelId, ScoreCalibration};
use facelatch::vision::embed::{Embedding, Template};
use facelatch::vision::liveness::Sample;
use facelatch::vision::liveness::colour::Colours;
use facelatch::vision::pose::Pose;
use std::collections::BTreeMap;

/// People of the scenes. An embedding has one dimension per person and one per pose.
pub const PEOPLE: [&str; 6] = ["ada", "grace", "bob", "eve", "mallory", "own"];
pub const SIZE: usize = PEOPLE.len() + Pose::ALL.len();

/// Seed of the liveness challenges.
pub const CHANCE: u64 = 1;

/// Liveness sample of an ordinary person who is present.
pub fn live() -> Sample {
    let colours = Colours {
        saturation: 0.41,
        saturation_spread: 0.1,
        warmth: 0.18,
        black: 45.0,
        diversity: 0.094,
        glare: 0.0,
    };
    Sample { shape: None, moire: 0.0, edges: 0.0, sharpness: 0.07, colours, network: None }
}

pub fn model() -> ModelId {
    ModelId::new("scenes")
}

/// Template of a face as the networks would embed it. Different people are far apart, but
/// "eva" resembles ada (cosine 0.45) and "twin" is almost identical to her (0.87).
pub fn template(who: &str, pose: Pose) -> Option<Template> {
    let mut values = [0.0; SIZE];
    let at = |who: &str| PEOPLE.iter().position(|known| *known == who);
    let (like, share) = match who {
        "eva" => ("ada", 0.4f32),
        "twin" => ("ada", 0.85),
        who => (who, 1.0),
    };
    values[at("own")?] = (1.0 - share * share).sqrt();
    values[at(like)?] = share;
    let turned = Pose::ALL.iter().position(|known| *known == pose)?;
    values[PEOPLE.len() + turned] = 0.3;
    Some(Template::new(model(), Embedding::normalized(&values)))
}

pub fn calibration() -> ScoreCalibration {
    // Votes alone decide here; the weight of evidence has its own tests.
    ScoreCalibration { thresholds: thresholds(), likelihood: None }
}

pub fn thresholds() -> ThresholdTable {
    ThresholdTable::new(
        [(1e-2, 0.25), (1e-3, 0.35), (1e-4, 0.45), (1e-5, 0.55), (1e-6, 0.6)],
        Calibration {
            data: "made up".to_owned(),
            people: 2,
            photos: 2,
            impostor_pairs: 100_000_000,
            measured_down_to: 1e-6,
            extrapolated: vec![],
            tail: Tail { similarity: 0.35, far: 1e-3, scale: 0.05, shape: 0.0 },
            other_tails: vec![],
            populations: vec![],
            decided_by: BTreeMap::new(),
        },
    )
}
