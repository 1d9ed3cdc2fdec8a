//! Likelihood ratio of a similarity: a straight line for its logarithm, and its cost
//! (Cllr). The ratio compares the hypothesis that two faces show the same person with the
//! hypothesis that they show two people.

use crate::measure::comparisons::{Compared, Comparisons, draws, interval};
use crate::measure::metrics::Scores;
use anyhow::{Result, bail};
use facelatch::models::likelihood::Likelihood;
use std::collections::BTreeSet;

/// Largest number of Newton steps; a dozen were enough for all scores so far.
const MOST_STEPS: usize = 100;
/// The fit ends when a step changes slope and offset by less than this.
const CLOSE: f64 = 1e-9;
/// Bisection steps over similarities -1..=1, to a precision of a millionth.
const HALVINGS: usize = 21;
/// Bins per unit of similarity for the bootstrap intervals.
const STEPS: f32 = 1000.0;

/// Natural logarithm of the likelihood ratio as `slope * similarity + offset`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Change per unit of similarity.
    pub slope: f64,
    /// Value at similarity 0.
    pub offset: f64,
}

impl Line {
    /// Logarithm of the likelihood ratio at a similarity.
    pub fn at(&self, similarity: f32) -> f64 {
        self.slope * f64::from(similarity) + self.offset
    }

    /// Fits the line by logistic regression. Genuine and impostor pairs have the same total
    /// weight, whatever their numbers, so the fit minimizes [`cost`] (Brümmer and du Preez
    /// 2006). The targets are slightly below 1 and above 0, depending on the number of
    /// pairs (Platt, "Probabilistic outputs for support vector machines", 1999). The line
    /// is therefore finite even if the similarities do not overlap.
    ///
    /// # Errors
    /// If there are no genuine or no impostor pairs, or the line does not increase.
    pub fn fit(scores: &Scores) -> Result<Self> {
        let once = |pairs: &[f32]| pairs.iter().map(|similarity| (*similarity, 1.0)).collect();
        Self::fit_counted([once(&scores.genuine), once(&scores.impostor)])
    }

    /// As [`Self::fit`], from genuine and impostor similarities with their weights.
    fn fit_counted(pairs: [Vec<(f32, f64)>; 2]) -> Result<Self> {
        let [genuine, impostor] =
            pairs.each_ref().map(|pairs| pairs.iter().map(|(_, times)| times).sum::<f64>());
        if genuine == 0.0 || impostor == 0.0 {
            bail!(
                "{genuine} genuine and {impostor} impostor pairs, but a likelihood ratio needs both; add people with several photos"
            );
        }
        let kinds = [
            (&pairs[0], (genuine + 1.0) / (genuine + 2.0), 0.5 / genuine),
            (&pairs[1], 1.0 / (impostor + 2.0), 0.5 / impostor),
        ];
        let loss = |line: &Line| -> f64 {
            let of = |(pairs, target, weight): &(&Vec<(f32, f64)>, f64, f64)| {
                let cost = |(s, times): &(f32, f64)| {
                    let x = line.at(*s);
                    times * (target * softplus(-x) + (1.0 - target) * softplus(x))
                };
                weight * pairs.iter().map(cost).sum::<f64>()
            };
            kinds.iter().map(of).sum()
        };
        let mut line = Line { slope: 0.0, offset: 0.0 };
        let mut at = loss(&line);
        for _ in 0..MOST_STEPS {
            // Gradient and curvature over slope and offset.
            let (mut g, mut h) = ([0.0; 2], [0.0; 3]);
            for (pairs, target, weight) in &kinds {
                for (similarity, times) in pairs.iter() {
                    let (s, weight) = (f64::from(*similarity), weight * times);
                    let p = 1.0 / (1.0 + (-line.at(*similarity)).exp());
                    let (error, curve) = (weight * (p - target), weight * p * (1.0 - p));
                    g = [g[0] + error * s, g[1] + error];
                    h = [h[0] + curve * s * s, h[1] + curve * s, h[2] + curve];
                }
            }
            let determinant = h[0] * h[2] - h[1] * h[1];
            if determinant.is_nan() || determinant <= f64::EPSILON * h[0] * h[2] {
                break;
            }
            let mut step = [
                (h[2] * g[0] - h[1] * g[1]) / determinant,
                (h[0] * g[1] - h[1] * g[0]) / determinant,
            ];
            // Far from the optimum a Newton step may overshoot; halve it until the loss
            // falls.
            let next = loop {
                let next = Line { slope: line.slope - step[0], offset: line.offset - step[1] };
                let reached = loss(&next);
                let small = step.iter().all(|part| part.abs() < CLOSE);
                if reached <= at || small {
                    break (next, reached, small);
                }
                step = step.map(|part| part / 2.0);
            };
            if next.2 {
                break;
            }
            (line, at) = (next.0, next.1);
        }
        if !(line.slope > 0.0 && line.slope.is_finite() && line.offset.is_finite()) {
            bail!(
                "faces of the same person are not more similar than faces of two people, so the likelihood ratio does not increase with similarity; check the labels"
            );
        }
        Ok(line)
    }
}

/// Impostor similarities at least as alike as those of every population, descending: at each
/// similarity, the share of them that reaches it is at least that of any population. There
/// are as many as the largest population has.
///
/// A likelihood ratio never decreases with the similarity. So if the ratios of these
/// similarities are at most 1 on average, those of each population are, and a line fitted
/// on them claims no more evidence than the stricter population shows. `populations` holds
/// the impostor similarities of each population, descending.
pub fn strictest(populations: &[&[f32]]) -> Vec<f32> {
    let most = populations.iter().map(|impostor| impostor.len()).max().unwrap_or(0);
    let at = |rank: usize| {
        let same_share = |impostor: &&[f32]| {
            let place = rank as u128 * impostor.len() as u128 / most as u128;
            impostor.get(place as usize).copied()
        };
        populations.iter().filter_map(same_share).fold(-1.0, f32::max)
    };
    (0..most).map(at).collect()
}

/// 95 % bootstrap intervals of the slope and of the similarity at which the ratio is 1:
/// people are resampled with all their photos. Similarities are rounded to a thousandth.
/// Genuine pairs are those of `all`, and impostor pairs the strictest of `all` and `others`
/// (see [`strictest`]). `None` if a resample could not be fitted.
pub fn intervals(all: &Comparisons, others: &[&Comparisons], seed: i64) -> [Option<[f64; 2]>; 2] {
    let bins = |pairs: &[Compared], times: &dyn Fn(&Compared) -> f64| {
        let mut counts = vec![0.0; 2 * STEPS as usize + 1];
        for pair in pairs {
            let bin = (pair.similarity * STEPS).round() + STEPS;
            counts[(bin as usize).min(2 * STEPS as usize)] += times(pair);
        }
        counts
    };
    let filled = |counts: Vec<f64>| {
        let similarity = |bin: usize| bin as f32 / STEPS - 1.0;
        let counts = counts.into_iter().enumerate().filter(|(_, times)| *times > 0.0);
        counts.map(|(bin, times)| (similarity(bin), times)).collect::<Vec<_>>()
    };
    let people = |all: &Comparisons| all.people.iter().max().map_or(0, |last| last + 1);
    // Each population is drawn by a seed of its own.
    let mut draws_of_others: Vec<_> = others
        .iter()
        .zip(1i64..)
        .map(|(other, number)| (*other, draws(people(other), seed.wrapping_add(number))))
        .collect();
    let (mut slopes, mut even) = (vec![], vec![]);
    for times in draws(people(all), seed) {
        // A genuine pair counts as often as its person was drawn.
        let genuine = bins(&all.genuine, &|pair| times[all.people[pair.first as usize]]);
        let impostors = |all: &Comparisons, times: &[f64]| {
            let of = |place: u32| times[all.people[place as usize]];
            bins(&all.impostor, &|pair| of(pair.first) * of(pair.second))
        };
        let mut drawn = vec![impostors(all, &times)];
        for (other, draws) in &mut draws_of_others {
            drawn.extend(draws.next().map(|times| impostors(other, &times)));
        }
        if let Ok(line) = Line::fit_counted([filled(genuine), filled(strictest_bins(drawn))]) {
            slopes.push(line.slope);
            even.push(-line.offset / line.slope);
        }
    }
    [interval(slopes), interval(even)]
}

/// [`strictest`] of counts in bins of ascending similarity. The total is that of the first
/// population.
fn strictest_bins(mut populations: Vec<Vec<f64>>) -> Vec<f64> {
    if populations.len() < 2 {
        return populations.pop().unwrap_or_default();
    }
    let total: f64 = populations[0].iter().sum();
    let totals: Vec<f64> = populations.iter().map(|counts| counts.iter().sum()).collect();
    let mut strictest = vec![0.0; populations[0].len()];
    let (mut reached, mut before) = (vec![0.0; populations.len()], 0.0);
    for bin in (0..strictest.len()).rev() {
        let mut most = before;
        for ((counts, total), reached) in populations.iter().zip(&totals).zip(&mut reached) {
            *reached += counts[bin];
            most = f64::max(most, *reached / f64::max(*total, 1.0));
        }
        strictest[bin] = (most - before) * total;
        before = most;
    }
    strictest
}

/// Fits the line to these scores, with bounds and Cllr, in the form of the manifest. The
/// scores are those of all pairs of these faces; their impostor similarities may be the
/// strictest of several populations ([`strictest`]). `data` names the data set.
///
/// # Errors
/// If no increasing line can be fitted or it has no valid range.
pub fn measured(all: &Comparisons, scores: &Scores, data: &str) -> Result<Likelihood> {
    let line = Line::fit(scores)?;
    let Some([lowest, highest]) = bounds(&line, scores) else {
        bail!("similarities do not separate genuine from impostor pairs; add people and photos");
    };
    let found = all.people.iter().zip(&all.found).filter(|(_, found)| **found);
    let people: BTreeSet<usize> = found.clone().map(|(person, _)| *person).collect();
    let mut measured = Likelihood {
        slope: line.slope,
        offset: line.offset,
        lowest,
        highest,
        data: data.to_owned(),
        people: people.len(),
        photos: found.count(),
        genuine_pairs: scores.genuine.len() as u64,
        impostor_pairs: scores.impostor.len() as u64,
        cllr: 0.0,
    };
    // Measured with the bounds, as a door applies the ratio.
    measured.cllr = cost(scores, |similarity| measured.log_ratio(similarity));
    Ok(measured)
}

/// Range of similarities in which the line is supported by data: from the least similar
/// genuine pair to the most similar impostor pair. Beyond it there are pairs of one kind
/// only. If the kinds do not overlap, the range is the gap between them. `None` if it is
/// empty.
pub fn range(scores: &Scores) -> Option<[f64; 2]> {
    let (genuine, impostor) = (*scores.genuine.last()?, *scores.impostor.first()?);
    let (low, high) = (f64::from(genuine.min(impostor)), f64::from(genuine.max(impostor)));
    (low < high).then_some([low, high])
}

/// Bounds within which the line is used; beyond them the ratio is constant.
///
/// They lie within [`range`]. The upper bound is low enough that the ratios of impostor
/// pairs are at most 1 on average. A true likelihood ratio has a mean of 1 on impostor
/// pairs, and a bound on false accepts requires nothing else (Ville 1939). A door is
/// therefore safe with a line from few genuine pairs: they affect only how informative the
/// line is, while the impostor pairs limit the ratio. No ratio exceeds the number of
/// impostor pairs, and pairs of one person under two names lower the limit further.
pub fn bounds(line: &Line, scores: &Scores) -> Option<[f64; 2]> {
    let [low, mut high] = range(scores)?;
    let mean = |high: f64| {
        let ratio = |s: &f32| line.at(s.min(high as f32)).exp();
        scores.impostor.iter().map(ratio).sum::<f64>() / scores.impostor.len() as f64
    };
    if mean(high) > 1.0 {
        let mut believed = low;
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(believed, high);
            if mean(middle) <= 1.0 {
                believed = middle;
            } else {
                high = middle;
            }
        }
        high = believed;
    }
    (low < high).then_some([low, high])
}

/// Cost of log likelihood ratios (Cllr, Brümmer), bits: 0 for an oracle, 1 for
/// uninformative ratios, above 1 for misleading ratios.
pub fn cost(scores: &Scores, log_ratio: impl Fn(f32) -> f64) -> f64 {
    let mean = |pairs: &[f32], sign: f64| {
        let sum: f64 = pairs.iter().map(|s| softplus(sign * log_ratio(*s))).sum();
        sum / pairs.len().max(1) as f64
    };
    (mean(&scores.genuine, -1.0) + mean(&scores.impostor, 1.0)) / 2.0 / std::f64::consts::LN_2
}

/// Minimum Cllr, bits: the lowest cost of any increasing function of the similarity on
/// these pairs, computed by pooling adjacent violators (Brümmer and du Preez 2006). It is
/// the loss of discrimination; what a line costs in addition is the loss of calibration.
pub fn least_cost(scores: &Scores) -> f64 {
    let [genuine, impostor] = [&scores.genuine, &scores.impostor].map(|pairs| pairs.len() as f64);
    if genuine == 0.0 || impostor == 0.0 {
        return 0.0;
    }
    // Numbers of genuine and impostor pairs per block, by descending similarity. The share
    // of genuine pairs falls from block to block.
    let mut blocks: Vec<[f64; 2]> = Vec::new();
    let (mut g, mut i) = (scores.genuine.iter().peekable(), scores.impostor.iter().peekable());
    loop {
        let next = match (g.peek(), i.peek()) {
            (Some(a), Some(b)) => a.max(**b),
            (Some(a), None) => **a,
            (None, Some(b)) => **b,
            (None, None) => break,
        };
        let mut block = [0.0; 2];
        while g.next_if(|s| **s >= next).is_some() {
            block[0] += 1.0;
        }
        while i.next_if(|s| **s >= next).is_some() {
            block[1] += 1.0;
        }
        blocks.push(block);
        // Pool a block with the one above if its share of genuine pairs is not lower.
        while let [.., [g1, i1], [g2, i2]] = blocks[..]
            && g2 * (g1 + i1) >= g1 * (g2 + i2)
        {
            blocks.truncate(blocks.len() - 2);
            blocks.push([g1 + g2, i1 + i2]);
        }
    }
    let bits: f64 = blocks
        .iter()
        .map(|[g, i]| {
            let ratio = (g / genuine) / (i / impostor);
            let of = |count: f64, all: f64, inverse: f64| {
                if count > 0.0 { count / all * inverse.ln_1p() } else { 0.0 }
            };
            of(*g, genuine, 1.0 / ratio) + of(*i, impostor, ratio)
        })
        .sum();
    bits / 2.0 / std::f64::consts::LN_2
}

/// `ln(1 + e^x)` without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::comparisons::tests::{compared, crowd};
    use proptest::prelude::*;

    /// A deterministic sample of a normal distribution: its quantiles.
    fn normal(mean: f64, deviation: f64, count: usize) -> Vec<f32> {
        (0..count)
            .map(|at| {
                let p = (at as f64 + 0.5) / count as f64;
                (mean + deviation * crate::measure::chart::probit(p)) as f32
            })
            .collect()
    }

    #[test]
    fn two_normal_distributions_have_the_line_of_their_densities() {
        // Same deviation d, means m1 and m0: the log ratio is (m1 - m0) / d² · s
        // - (m1² - m0²) / 2d².
        let scores = Scores::new(normal(0.6, 0.1, 20_000), normal(0.2, 0.1, 50_000), 0);
        let line = Line::fit(&scores).expect("a line");
        assert!((line.slope - 40.0).abs() < 0.8, "{line:?}");
        assert!((line.offset + 16.0).abs() < 0.4, "{line:?}");
        // The true log ratio is a straight line, so there is no calibration loss.
        let (actual, least) = (cost(&scores, |s| line.at(s)), least_cost(&scores));
        assert!(least <= actual && actual < least + 1e-3, "{least} {actual}");
    }

    #[test]
    fn a_line_ends_where_impostors_would_promise_too_much() {
        let scores = Scores::new(normal(0.6, 0.1, 2000), normal(0.2, 0.1, 5000), 0);
        let line = Line::fit(&scores).expect("a line");
        let mean = |scores: &Scores, high: f64| {
            let ratios = scores.impostor.iter().map(|s| line.at(s.min(high as f32)).exp());
            ratios.sum::<f64>() / scores.impostor.len() as f64
        };
        let [low, high] = bounds(&line, &scores).expect("bounds");
        assert!(low < high && mean(&scores, high) <= 1.0);
        // Three pairs of one person under two names, as alike as can be.
        let mut impostor = scores.impostor.clone();
        impostor.extend([0.9, 0.9, 0.9]);
        let spoilt = Scores::new(scores.genuine.clone(), impostor, 0);
        let [_, lower] = bounds(&line, &spoilt).expect("bounds");
        assert!(lower < 0.9 && mean(&spoilt, lower) <= 1.0 && mean(&spoilt, lower + 1e-3) > 1.0);
        assert!(line.at(lower as f32) < (5003f64 / 3.0).ln());
        assert_eq!(bounds(&line, &Scores::default()), None);
    }

    #[test]
    fn ratios_that_say_nothing_cost_one_bit() {
        let scores = Scores::new(vec![0.1, 0.9], vec![0.2, 0.3, 0.4], 0);
        assert!((cost(&scores, |_| 0.0) - 1.0).abs() < 1e-12);
        let oracle = |s: f32| if [0.1, 0.9].contains(&s) { 50.0 } else { -50.0 };
        assert!(cost(&scores, oracle) < 1e-12);
        assert!(cost(&scores, |s| -oracle(s)) > 50.0);
        // Both kinds have the same scores, so no function separates them.
        let same = Scores::new(vec![0.1, 0.2], vec![0.1, 0.2, 0.1, 0.2], 0);
        assert!((least_cost(&same) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn kinds_that_do_not_overlap_give_a_finite_line_over_the_gap() {
        let scores = Scores::new(vec![0.8, 0.9], vec![0.1, 0.2, 0.3], 0);
        let line = Line::fit(&scores).expect("a line");
        assert!(line.slope.is_finite() && line.at(0.85) > 0.5 && line.at(0.2) < -0.5, "{line:?}");
        assert_eq!(range(&scores), Some([f64::from(0.3f32), f64::from(0.8f32)]));
        assert!(least_cost(&scores).abs() < 1e-12);
    }

    #[test]
    fn an_interval_holds_the_line() {
        let all = compared(&crowd(60, 4, 1.2));
        let line = Line::fit(&all.scores()).expect("a line");
        let [slope, even] = intervals(&all, &[], 1).map(|interval| interval.expect("an interval"));
        assert!(slope[0] < line.slope && line.slope < slope[1], "{slope:?} {line:?}");
        let zero = -line.offset / line.slope;
        assert!(even[0] < zero && zero < even[1], "{even:?} {zero}");
        let measured = measured(&all, &all.scores(), "made up").expect("a line");
        assert!(measured.people == 60 && measured.photos == 240 && measured.cllr < 1.0);
    }

    #[test]
    fn a_line_promises_no_more_than_the_stricter_population_shows() {
        // The genuine pairs come with impostors of whom few are alike; people elsewhere are
        // more alike.
        let easy = Scores::new(normal(0.6, 0.1, 2000), normal(0.1, 0.08, 20_000), 0);
        let strict = normal(0.15, 0.12, 5000).into_iter().rev().collect::<Vec<f32>>();
        let both = strictest(&[&easy.impostor, &strict]);
        let scores = Scores { impostor: both, ..easy.clone() };
        let fitted = |scores: &Scores| {
            let line = Line::fit(scores).expect("a line");
            let [_, high] = bounds(&line, scores).expect("bounds");
            move |s: f32| line.at(s.min(high as f32)).exp()
        };
        let mean = |ratio: &dyn Fn(f32) -> f64, impostor: &[f32]| {
            impostor.iter().map(|s| ratio(*s)).sum::<f64>() / impostor.len() as f64
        };
        let (alone, together) = (fitted(&easy), fitted(&scores));
        assert!(mean(&alone, &easy.impostor) <= 1.0 + 1e-3);
        assert!(mean(&alone, &strict) > 1.5, "{}", mean(&alone, &strict));
        for impostor in [&easy.impostor, &strict] {
            assert!(mean(&together, impostor) <= 1.0 + 1e-3, "{}", mean(&together, impostor));
        }
        assert_eq!(strictest(&[&easy.impostor]), easy.impostor);
        assert!(strictest(&[]).is_empty() && strictest(&[&[], &[0.5]]) == [0.5]);
    }

    #[test]
    fn intervals_see_the_stricter_population() {
        let all = compared(&crowd(60, 4, 1.2));
        let alone = intervals(&all, &[], 1);
        let own = compared(&crowd(60, 1, 1.2));
        // Fewer people of the same kind widen the interval and hardly move it.
        let [_, Some(even)] = intervals(&all, &[&own], 1) else { panic!("no interval") };
        let [_, Some(before)] = alone else { panic!("no interval") };
        assert!(even[1] >= before[1] && even[1] < before[1] + 0.2, "{even:?} {before:?}");
        // In bins, too, each population is below the strictest at every similarity.
        let bins = strictest_bins(vec![vec![6.0, 0.0, 2.0], vec![1.0, 3.0, 0.0]]);
        assert_eq!(bins, [2.0, 4.0, 2.0]);
    }

    #[test]
    fn scores_upside_down_are_refused() {
        let upside_down = Scores::new(vec![0.1, 0.2], vec![0.8, 0.9], 0);
        let error = Line::fit(&upside_down).expect_err("falling").to_string();
        assert!(error.contains("check the labels"), "{error}");
        assert!(Line::fit(&Scores::new(vec![], vec![0.1], 0)).is_err());
        assert_eq!(range(&Scores::default()), None);
        assert_eq!(least_cost(&Scores::default()), 0.0);
    }

    proptest! {
        #[test]
        fn every_population_is_below_the_strictest(
            populations in prop::collection::vec(
                prop::collection::vec(-100i32..=100, 1..40), 1..4,
            ),
            at in -100i32..=100,
        ) {
            let scores = populations.iter().map(|values| {
                let values = values.iter().map(|v| *v as f32 / 100.0).collect();
                Scores::new(vec![], values, 0)
            });
            let scores: Vec<Scores> = scores.collect();
            let impostor: Vec<&[f32]> = scores.iter().map(|s| s.impostor.as_slice()).collect();
            let both = Scores { impostor: strictest(&impostor), ..Scores::default() };
            prop_assert!(both.impostor.windows(2).all(|two| two[0] >= two[1]));
            let limit = at as f32 / 100.0;
            for scores in &scores {
                prop_assert!(
                    scores.false_accept_rate(limit) <= both.false_accept_rate(limit) + 1e-12
                );
            }
        }

        #[test]
        fn no_rising_step_costs_less_than_the_least(
            genuine in prop::collection::vec(-10i32..=10, 1..12),
            impostor in prop::collection::vec(-10i32..=10, 1..12),
            at in -10i32..=10, low in -5f64..0.0, high in 0f64..5.0,
        ) {
            let tenths = |values: &[i32]| values.iter().map(|v| *v as f32 / 10.0).collect();
            let scores = Scores::new(tenths(&genuine), tenths(&impostor), 0);
            let step = |s: f32| if s >= at as f32 / 10.0 { high } else { low };
            prop_assert!(least_cost(&scores) <= cost(&scores, step) + 1e-12);
            prop_assert!(least_cost(&scores) <= 1.0 + 1e-12);
        }

        #[test]
        fn no_line_nearby_costs_less_than_the_fitted_one(
            genuine in prop::collection::vec(-100i32..=100, 40..80),
            impostor in prop::collection::vec(-100i32..=100, 40..80),
            slope in -0.5f64..0.5, offset in -0.5f64..0.5,
        ) {
            let scores = Scores::new(
                genuine.iter().map(|v| *v as f32 / 200.0 + 0.3).collect(),
                impostor.iter().map(|v| *v as f32 / 200.0).collect(),
                0,
            );
            let line = Line::fit(&scores).expect("a line");
            prop_assert!(line.at(0.1) < line.at(0.2));
            let other = Line { slope: line.slope + slope, offset: line.offset + offset };
            // Targets other than 0 and 1 move the optimum a little.
            prop_assert!(cost(&scores, |s| line.at(s)) <= cost(&scores, |s| other.at(s)) + 2e-3);
        }
    }
}
