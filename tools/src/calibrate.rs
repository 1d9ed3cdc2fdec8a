//! Thresholds of a recognizer from photos of people who play no other part.

use crate::metrics::Scores;
use anyhow::{Result, bail};
use facelatch::threshold::Calibration;
use std::collections::BTreeMap;

/// Rates the manifest gives thresholds for.
const RATES: [(&str, f64); 5] =
    [("1e-2", 1e-2), ("1e-3", 1e-3), ("1e-4", 1e-4), ("1e-5", 1e-5), ("1e-6", 1e-6)];
/// So many impostor pairs must pass for a rate to count as measured (Doddington's
/// "rule of 30"). The rule speaks of independent pairs, which those of one set
/// of photos are not quite: it is a lower bound of what is needed.
const FEWEST_EVENTS: f64 = 30.0;
/// The tail is fitted to the impostor pairs that this rate lets pass.
const TAIL_FROM: f64 = 1e-3;

/// Similarities by false accept rate a pair, and where they come from.
pub fn calibrate(
    scores: &Scores,
    data: String,
    people: usize,
    photos: usize,
) -> Result<(BTreeMap<String, f32>, Calibration)> {
    let pairs = scores.impostor.len();
    let measured_down_to = FEWEST_EVENTS / pairs.max(1) as f64;
    let Some(mut tail) = scores.fit_tail(TAIL_FROM).filter(|_| measured_down_to <= TAIL_FROM)
    else {
        bail!(
            "{pairs} impostor pairs are too few for thresholds: at least {} are needed; add people",
            (FEWEST_EVENTS / TAIL_FROM).ceil()
        );
    };
    // A tail that ends somewhere would promise that nobody ever looks more like
    // another than anyone here does. No such promise is made to a door.
    if tail.shape < 0.0 {
        tail.shape = 0.0;
        tail.scale = scores.mean_excess(tail.similarity);
    }
    let mut thresholds = BTreeMap::new();
    let mut extrapolated = Vec::new();
    let mut floor = -1.0f32;
    for (name, far) in RATES {
        let similarity = if far >= measured_down_to {
            scores.threshold_at(far)
        } else {
            extrapolated.push(name.to_owned());
            (tail.similarity_at(far) as f32).max(scores.threshold_at(measured_down_to))
        };
        floor = floor.max(similarity);
        thresholds.insert(name.to_owned(), floor);
    }
    let calibration = Calibration {
        data,
        people,
        photos,
        impostor_pairs: pairs as u64,
        measured_down_to,
        extrapolated,
        tail,
    };
    Ok((thresholds, calibration))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_rates_are_extrapolated_and_never_looser() {
        let n = 100_000;
        let impostor =
            (0..n).map(|i| (-0.05 * ((i as f64 + 0.5) / n as f64).ln()) as f32).collect();
        let scores = Scores::new(vec![], impostor, 0);
        let (thresholds, calibration) =
            calibrate(&scores, "made up".to_owned(), 10, 20).expect("thresholds");
        assert_eq!(calibration.extrapolated, ["1e-4", "1e-5", "1e-6"]);
        let values: Vec<f32> = RATES.iter().map(|(name, _)| thresholds[*name]).collect();
        assert!(values.windows(2).all(|pair| pair[0] < pair[1]), "{values:?}");
        for ((_, far), value) in RATES.iter().zip(&values) {
            let expected = -0.05 * far.ln();
            assert!((f64::from(*value) - expected).abs() < 0.02, "{far}: {value} {expected}");
        }
    }

    #[test]
    fn too_few_pairs_are_refused() {
        let scores = Scores::new(vec![], vec![0.1; 1000], 0);
        let error = calibrate(&scores, String::new(), 2, 2).expect_err("too few");
        assert!(error.to_string().contains("30000"), "{error}");
    }
}
