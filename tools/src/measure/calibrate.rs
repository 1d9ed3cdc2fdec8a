//! Similarity thresholds of a recognizer, measured on people who are in neither training
//! nor test data.

use crate::measure::metrics::Scores;
use anyhow::{Result, bail};
use facelatch::models::threshold::Calibration;
use std::collections::BTreeMap;

/// False accept rates per pair for which the manifest has thresholds.
const RATES: [(&str, f64); 5] =
    [("1e-2", 1e-2), ("1e-3", 1e-3), ("1e-4", 1e-4), ("1e-5", 1e-5), ("1e-6", 1e-6)];
/// Number of impostor pairs that must pass for a rate to count as measured (Doddington's
/// "rule of 30"). The rule assumes independent pairs. Pairs of one set of photos are not
/// quite independent, so this is a lower bound.
const FEWEST_EVENTS: f64 = 30.0;
/// The tail is fitted to the impostor pairs that pass at this false accept rate.
const TAIL_FROM: f64 = 1e-3;

/// Similarity thresholds by false accept rate per pair, and the calibration behind them.
/// Thresholds below the lowest measurable rate are extrapolated from a fitted tail. `data`,
/// `people` and `photos` describe the data set in the manifest.
///
/// # Errors
/// If there are fewer than 30,000 impostor pairs.
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
            "{pairs} impostor pairs are too few for thresholds, which need at least {}; add people",
            (FEWEST_EVENTS / TAIL_FROM).ceil()
        );
    };
    // A tail of negative shape has an upper end: it would claim that no two people are ever
    // more similar than that. Such a claim is not safe for a door, so use an exponential
    // tail.
    if tail.shape < 0.0 {
        tail.shape = 0.0;
        tail.scale = scores.mean_excess(tail.similarity);
    }
    // Include the lowest measured rate. Otherwise rates between it and the next higher one
    // in the table would depend on the tail.
    let lowest = rounded_up(measured_down_to);
    let mut rates: Vec<(String, f64)> =
        RATES.iter().map(|(name, far)| ((*name).to_owned(), *far)).collect();
    if !rates.iter().any(|(name, _)| *name == lowest.0) {
        rates.push(lowest);
    }
    rates.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut thresholds = BTreeMap::new();
    let mut extrapolated = Vec::new();
    let mut floor = -1.0f32;
    for (name, far) in rates {
        let similarity = if far >= measured_down_to {
            scores.threshold_at(far)
        } else {
            extrapolated.push(name.clone());
            (tail.similarity_at(far) as f32).max(scores.threshold_at(measured_down_to))
        };
        floor = floor.max(similarity);
        thresholds.insert(name, floor);
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

/// The rate rounded up to two significant digits, as text for the manifest and as a number.
fn rounded_up(rate: f64) -> (String, f64) {
    let digit = 10f64.powf(rate.log10().floor() - 1.0);
    let near = (rate / digit).round();
    // Parsed from its text, so that reading the manifest gives the same number.
    let written = |steps: f64| {
        let text = format!("{:.1e}", steps * digit).replace(".0e", "e");
        let rounded = text.parse().unwrap_or(rate);
        (text, rounded)
    };
    let nearest = written(near);
    if nearest.1 < rate { written(near + 1.0) } else { nearest }
}

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch::models::threshold::ThresholdTable;

    #[test]
    fn rates_are_rounded_up_to_two_digits() {
        for (rate, expected) in
            [(2.43e-5, "2.5e-5"), (3e-4, "3e-4"), (9.95e-5, "1e-4"), (1.0001e-3, "1.1e-3")]
        {
            let (text, rounded) = rounded_up(rate);
            assert_eq!(text, expected);
            assert!(rounded >= rate);
        }
    }

    #[test]
    fn rare_rates_are_extrapolated_and_never_looser() {
        let n = 100_000;
        let impostor =
            (0..n).map(|i| (-0.05 * ((i as f64 + 0.5) / n as f64).ln()) as f32).collect();
        let scores = Scores::new(vec![], impostor, 0);
        let (thresholds, calibration) =
            calibrate(&scores, "made up".to_owned(), 10, 20).expect("thresholds");
        assert_eq!(calibration.extrapolated, ["1e-4", "1e-5", "1e-6"]);
        // The lowest measured rate is in the table, and no rate above it is extrapolated.
        let points = thresholds.iter().map(|(far, at)| (far.parse().expect("a rate"), *at));
        let table = ThresholdTable::new(points, calibration);
        assert_eq!(table.points().len(), 6);
        for (far, extrapolated) in [(1e-3, false), (5e-4, false), (3e-4, false), (2.9e-4, true)] {
            assert_eq!(table.for_pair(far).extrapolated, extrapolated, "{far}");
        }
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
