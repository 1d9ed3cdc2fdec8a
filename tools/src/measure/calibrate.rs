//! Similarity thresholds of a recognizer, measured on people who are in neither training
//! nor test data. At each rate the strictest population or group of people decides.

use crate::measure::groups::{Group, LEAST_EXPECTED};
use crate::measure::metrics::Scores;
use anyhow::{Result, bail};
use facelatch::models::threshold::{Calibration, MeasuredGroup, Population, Tail};
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

/// People who are compared with each other, and with nobody of another population.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Name of the data set in the manifest.
    pub data: String,
    /// Number of people.
    pub people: usize,
    /// Number of photos with a face.
    pub photos: usize,
    /// All their comparisons.
    pub scores: Scores,
    /// Groups of these people.
    pub groups: Vec<Group>,
}

/// Similarity thresholds by false accept rate per pair, and the calibration behind them.
///
/// A population decides at the rates that it measures, which are those at which 30 of its
/// impostor pairs pass; the strictest one holds. A group raises that threshold to where its
/// own rate is the stated one, if it has enough pairs to say that it must (see
/// [`Group::asks`]). At lower rates than any population measures, thresholds are
/// extrapolated from fitted tails: of the populations, and of groups with as many pairs as
/// a population needs. The strictest tail holds. No threshold is below that of a higher
/// rate.
///
/// # Errors
/// If there is no population, or one has fewer than 30,000 impostor pairs.
pub fn calibrate(samples: &[Sample]) -> Result<(BTreeMap<String, f32>, Calibration)> {
    let mut tails = Vec::new();
    for sample in samples {
        let pairs = sample.scores.impostor.len();
        let Some(tail) = tail(&sample.scores) else {
            bail!(
                "{}: {pairs} impostor pairs are too few for thresholds, which need at least {}; add people",
                sample.data,
                (FEWEST_EVENTS / TAIL_FROM).ceil()
            );
        };
        tails.push((sample.data.clone(), tail));
    }
    for sample in samples {
        let groups = sample.groups.iter();
        tails.extend(groups.filter_map(|group| Some((named(group, sample), group_tail(group)?))));
    }
    let measured_down_to =
        samples.iter().map(|sample| down_to(&sample.scores)).fold(f64::INFINITY, f64::min);
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
    let mut decided_by = BTreeMap::new();
    let mut extrapolated = Vec::new();
    let mut strictest = Strictest { similarity: -1.0, by: String::new() };
    for (rate, far) in &rates {
        if *far >= measured_down_to {
            for sample in samples.iter().filter(|sample| *far >= down_to(&sample.scores)) {
                strictest.consider(sample.scores.threshold_at(*far), || sample.data.clone());
            }
            // Every group answers to the threshold of the populations, so that the order of
            // the groups has no effect on what counts as an excess.
            let populations = strictest.similarity;
            for (sample, group) in members(samples) {
                if let Some(similarity) = group.asks(*far, populations) {
                    strictest.consider(similarity, || named(group, sample));
                }
            }
        } else {
            extrapolated.push(rate.clone());
            for sample in samples {
                strictest.consider(sample.scores.threshold_at(down_to(&sample.scores)), || {
                    sample.data.clone()
                });
            }
            for (name, tail) in &tails {
                strictest.consider(tail.similarity_at(*far) as f32, || name.clone());
            }
        }
        thresholds.insert(rate.clone(), strictest.similarity);
        decided_by.insert(rate.clone(), strictest.by.clone());
    }
    let Some((_, end)) = rates.last() else { bail!("no rates to measure") };
    let at_end = |(_, tail): &(String, Tail)| tail.similarity_at(*end);
    tails.sort_by(|a, b| at_end(b).total_cmp(&at_end(a)));
    let mut tails = tails.into_iter().map(|(_, tail)| tail);
    let Some(tail) = tails.next() else {
        bail!("nobody to measure; name a population");
    };
    let one = samples.len() == 1 && samples.iter().all(|sample| sample.groups.is_empty());
    let calibration = Calibration {
        data: samples.iter().map(|sample| sample.data.as_str()).collect::<Vec<_>>().join(", "),
        people: samples.iter().map(|sample| sample.people).sum(),
        photos: samples.iter().map(|sample| sample.photos).sum(),
        impostor_pairs: samples.iter().map(|sample| sample.scores.impostor.len() as u64).sum(),
        measured_down_to,
        extrapolated,
        tail,
        other_tails: tails.collect(),
        populations: if one { vec![] } else { samples.iter().map(described).collect() },
        decided_by: if one { BTreeMap::new() } else { decided_by },
    };
    Ok((thresholds, calibration))
}

/// The highest similarity so far, and who asked for it.
struct Strictest {
    similarity: f32,
    by: String,
}

impl Strictest {
    fn consider(&mut self, similarity: f32, by: impl FnOnce() -> String) {
        if similarity > self.similarity {
            *self = Self { similarity, by: by() };
        }
    }
}

/// The groups of all samples.
fn members(samples: &[Sample]) -> impl Iterator<Item = (&Sample, &Group)> {
    samples.iter().flat_map(|sample| sample.groups.iter().map(move |group| (sample, group)))
}

/// Name of a group in the manifest and in messages.
pub fn named(group: &Group, sample: &Sample) -> String {
    format!("{} of {}", group.name, sample.data)
}

/// Lowest false accept rate that these impostor pairs measure.
fn down_to(scores: &Scores) -> f64 {
    FEWEST_EVENTS / scores.impostor.len().max(1) as f64
}

/// The tail of a population; `None` if it has too few pairs.
fn tail(scores: &Scores) -> Option<Tail> {
    let mut tail = scores.fit_tail(TAIL_FROM).filter(|_| down_to(scores) <= TAIL_FROM)?;
    // A tail of negative shape has an upper end: it would claim that no two people are ever
    // more similar than that. Such a claim is not safe for a door, so use an exponential
    // tail.
    if tail.shape < 0.0 {
        tail.shape = 0.0;
        tail.scale = scores.mean_excess(tail.similarity);
    }
    Some(tail)
}

/// The tail of a group; `None` if it has too few pairs. It is exponential, because groups
/// have too few pairs for a shape of their own, and of many groups the strictest counts.
fn group_tail(group: &Group) -> Option<Tail> {
    let scores = group.scores();
    let tail = tail(&scores)?;
    Some(Tail { shape: 0.0, scale: scores.mean_excess(tail.similarity), ..tail })
}

/// A sample as the manifest describes it.
fn described(sample: &Sample) -> Population {
    let groups = sample.groups.iter().map(|group| MeasuredGroup {
        name: group.name.clone(),
        people: group.people,
        impostor_pairs: group.pairs() as u64,
        decides_down_to: LEAST_EXPECTED / group.pairs().max(1) as f64,
    });
    Population {
        data: sample.data.clone(),
        people: sample.people,
        photos: sample.photos,
        impostor_pairs: sample.scores.impostor.len() as u64,
        measured_down_to: down_to(&sample.scores),
        groups: groups.collect(),
    }
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
    use crate::measure::groups::tests::group;
    use crate::measure::groups::worst_of;
    use facelatch::models::threshold::ThresholdTable;

    /// A population of `pairs` impostor pairs with an exponential tail of this scale.
    fn sample(data: &str, scale: f64, pairs: usize, groups: Vec<Group>) -> Sample {
        let scores = Scores::new(vec![], exponential(scale, pairs), 0);
        Sample { data: data.to_owned(), people: 10, photos: 20, scores, groups }
    }

    /// Quantiles of an exponential distribution.
    fn exponential(scale: f64, pairs: usize) -> Vec<f32> {
        (0..pairs).map(|i| (-scale * ((i as f64 + 0.5) / pairs as f64).ln()) as f32).collect()
    }

    fn table((thresholds, calibration): (BTreeMap<String, f32>, Calibration)) -> ThresholdTable {
        let points = thresholds.iter().map(|(far, at)| (far.parse().expect("a rate"), *at));
        ThresholdTable::new(points, calibration)
    }

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
        let (thresholds, calibration) =
            calibrate(&[sample("made up", 0.05, 100_000, vec![])]).expect("thresholds");
        assert_eq!(calibration.extrapolated, ["1e-4", "1e-5", "1e-6"]);
        // One population without groups is described as it always was.
        assert!(calibration.populations.is_empty() && calibration.decided_by.is_empty());
        assert!(calibration.other_tails.is_empty());
        // The lowest measured rate is in the table, and no rate above it is extrapolated.
        let table = table((thresholds.clone(), calibration));
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
        let few = sample("few", 0.05, 1000, vec![]);
        let error = calibrate(&[sample("many", 0.05, 40_000, vec![]), few]).expect_err("too few");
        assert!(error.to_string().contains("few: 1000") && error.to_string().contains("30000"));
        assert!(calibrate(&[]).is_err());
    }

    #[test]
    fn at_each_rate_the_stricter_of_the_populations_that_measure_it_decides() {
        // The small one is stricter, but measures only down to 1e-3.
        let (large, small) =
            (sample("large", 0.03, 400_000, vec![]), sample("small", 0.05, 30_000, vec![]));
        let alone = calibrate(std::slice::from_ref(&large)).expect("thresholds").0;
        let small_alone = calibrate(std::slice::from_ref(&small)).expect("thresholds").0;
        let (both, calibration) = calibrate(&[large, small]).expect("thresholds");
        assert_eq!(both["1e-3"], small_alone["1e-3"]);
        assert_eq!(calibration.decided_by["1e-3"], "small");
        // Where only the large one measures, it decides, but never below a higher rate.
        assert_eq!(both["1e-4"], alone["1e-4"].max(both["1e-3"]));
        assert_eq!(calibration.extrapolated, ["1e-5", "1e-6"]);
        // Beyond, the strictest tail holds, which the small one has.
        assert_eq!(calibration.decided_by["1e-6"], "small");
        assert_eq!(both["1e-6"], small_alone["1e-6"]);
        assert_eq!((calibration.data.as_str(), calibration.people), ("large, small", 20));
        assert_eq!(calibration.populations.len(), 2);
        assert!(calibration.populations[1].measured_down_to > calibration.measured_down_to);
        let table = table((both.clone(), calibration));
        for far in [1e-2, 1e-3, 1e-4, 8e-5, 1e-5, 1e-6] {
            let name = format!("{far:e}");
            if let Some(similarity) = both.get(&name) {
                assert!((table.for_pair(far).similarity - similarity).abs() < 1e-5, "{far}");
            }
        }
    }

    #[test]
    fn a_group_whose_members_are_more_alike_decides_where_it_has_enough_pairs() {
        let everybody = calibrate(&[sample("made up", 0.04, 400_000, vec![])]).expect("thresholds");
        // 20,000 pairs are enough at 1e-3, where 20 may pass.
        let alike = group("alike", exponential(0.05, 20_000), false);
        // Fewer pairs than that of people just as alike are too few to decide.
        let few = group("few", exponential(0.05, 50), false);
        let like_all = group("like all", exponential(0.04, 100_000), false);
        let groups = vec![alike.clone(), few.clone(), like_all];
        let measured =
            calibrate(&[sample("made up", 0.04, 400_000, groups.clone())]).expect("thresholds");
        let (thresholds, calibration) = &measured;
        assert_eq!(thresholds["1e-3"], alike.scores().threshold_at(1e-3));
        assert!(thresholds["1e-3"] > everybody.0["1e-3"] + 0.05);
        assert_eq!(calibration.decided_by["1e-3"], "alike of made up");
        assert_eq!(calibration.extrapolated, everybody.1.extrapolated);
        assert_eq!(calibration.populations[0].groups.len(), 3);
        assert!(thresholds.iter().all(|(rate, at)| *at >= everybody.0[rate]));
        let without = vec![few];
        let same = calibrate(&[sample("made up", 0.04, 400_000, without)]).expect("thresholds");
        assert_eq!(same.0, everybody.0);
        assert!(same.1.decided_by.values().all(|by| by == "made up"));
        // No group then exceeds a rate at which it can be judged.
        let worst = worst_of(&groups, &table(measured), "made up").expect("a group");
        assert!(worst.times_stated() <= 1.0 + 1e-9, "{worst}");
        let before = worst_of(&groups, &table(everybody), "made up").expect("a group");
        assert!(before.name == "alike" && before.exceeds(), "{before}");
    }

    #[test]
    fn an_excess_of_a_small_group_is_settled_and_one_odd_pair_is_not() {
        // At 1e-4 half a pair is expected, and eight of people of their own pass.
        let group_of = |high: usize| {
            let high_first = |at: usize| if at < high { 0.9 - at as f32 / 100.0 } else { 0.0 };
            group("small", (0..5000).map(high_first).collect(), false)
        };
        let calibrated = |group: Group| {
            calibrate(&[sample("made up", 0.04, 400_000, vec![group])]).expect("thresholds")
        };
        let (thresholds, calibration) = calibrated(group_of(8));
        assert_eq!(calibration.decided_by["1e-4"], "small of made up");
        assert!(thresholds["1e-4"] > 0.885 && thresholds["1e-4"] < 0.9, "one pair may pass");
        let (thresholds, calibration) = calibrated(group_of(1));
        assert_eq!(calibration.decided_by["1e-4"], "made up");
        assert!(thresholds["1e-4"] < 0.5);
    }
}
