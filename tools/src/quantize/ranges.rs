//! Ranges of activations and scales of weights.

use super::affine::{Affine, floats, normalized};
use super::simulate::Simulation;
use crate::chance::Chance;
use anyhow::{Result, bail};
use facelatch::nn::Normalization;
use serde::Serialize;
use tch::Tensor;

/// Values sampled of each activation, enough to see one in 100,000.
const SAMPLE: usize = 1 << 18;
/// The least-squares search narrows a range to this share of it, in these steps.
const NARROWEST: f64 = 0.2;
const NARROWING: f64 = 0.02;

/// How the range of an activation is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// From the smallest to the largest value seen.
    MinMax,
    /// Excludes this share of the values, half of it at each end.
    Without(f64),
    /// The range with the least squared error.
    LeastSquares,
}

/// What was seen of an activation.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    lowest: f32,
    highest: f32,
    /// A sample of the values, ascending.
    sample: Vec<f32>,
    /// Largest magnitude of each channel.
    pub peaks: Vec<f32>,
}

impl Observed {
    /// From all values, none of which may be NaN, and the largest magnitude of each
    /// channel.
    pub fn new(mut values: Vec<f32>, peaks: Vec<f32>) -> Self {
        values.sort_by(f32::total_cmp);
        let lowest = values.first().copied().unwrap_or(0.0);
        let highest = values.last().copied().unwrap_or(0.0);
        Self { lowest, highest, sample: values, peaks }
    }

    /// How to store the activation with a range chosen by `method`.
    pub fn affine(&self, method: Method) -> Affine {
        match method {
            Method::MinMax => Affine::covering(self.lowest, self.highest),
            Method::Without(share) => {
                let last = self.sample.len().saturating_sub(1);
                let cut = (share / 2.0 * last as f64).round() as usize;
                let at = |index: usize| self.sample.get(index).copied().unwrap_or(0.0);
                Affine::covering(at(cut.min(last)), at(last - cut.min(last)))
            }
            Method::LeastSquares => self.least_squares(),
        }
    }

    /// Narrows both ends together, then each end alone.
    fn least_squares(&self) -> Affine {
        let shares = || {
            let count = ((1.0 - NARROWEST) / NARROWING).round() as usize;
            (0..=count).map(|step| (1.0 - NARROWING * step as f64) as f32)
        };
        let (lowest, highest) = (self.lowest.min(0.0), self.highest.max(0.0));
        let mut best = (f64::INFINITY, lowest, highest);
        let mut consider = |lowest: f32, highest: f32| {
            let error = self.squared_error(Affine::covering(lowest, highest));
            if error < best.0 {
                best = (error, lowest, highest);
            }
            (best.1, best.2)
        };
        let (mut low, mut high) = (lowest, highest);
        for share in shares() {
            (low, high) = consider(lowest * share, highest * share);
        }
        let fixed = high;
        for share in shares() {
            (low, high) = consider(lowest * share, fixed);
        }
        let fixed = low;
        for share in shares() {
            (low, high) = consider(fixed, highest * share);
        }
        Affine::covering(low, high)
    }

    fn squared_error(&self, affine: Affine) -> f64 {
        let error = |value: &f32| f64::from(value - affine.rounded(*value)).powi(2);
        self.sample.iter().map(error).sum()
    }
}

/// Runs byte pictures `N x 3 x H x W` through a network and observes the output of each
/// of its steps. The seed decides which values are sampled. Fails if an activation is
/// empty or not finite.
pub fn observe(
    network: &Simulation,
    steps: usize,
    batches: &[Tensor],
    normalization: &Normalization,
    seed: i64,
) -> Result<Vec<Observed>> {
    let mut chance = Chance::new(seed);
    let a_batch = SAMPLE.div_ceil(batches.len().max(1));
    let mut samples: Vec<Vec<Tensor>> = (0..steps).map(|_| Vec::new()).collect();
    let mut peaks: Vec<Option<Tensor>> = (0..steps).map(|_| None).collect();
    let mut ends = vec![(f64::INFINITY, f64::NEG_INFINITY); steps];
    tch::no_grad(|| {
        for batch in batches {
            network.forward(&normalized(batch, normalization), |at, output| {
                let values = output.contiguous().view([-1]);
                let (lowest, highest) = &mut ends[at];
                *lowest = lowest.min(values.min().double_value(&[]));
                *highest = highest.max(values.max().double_value(&[]));
                let all = values.numel();
                samples[at].push(if all > a_batch {
                    let chosen = chance.some(a_batch, all);
                    values.index_select(0, &chosen.to_device(values.device()))
                } else {
                    values
                });
                let axes: &[i64] = if output.dim() == 4 { &[0, 2, 3] } else { &[0] };
                let peak = output.abs().amax(axes, false);
                peaks[at] = Some(match &peaks[at] {
                    Some(other) => peak.maximum(other),
                    None => peak,
                });
            });
        }
    });
    let mut all = Vec::new();
    for (at, (samples, peaks)) in samples.iter().zip(&peaks).enumerate() {
        let (lowest, highest) = (ends[at].0 as f32, ends[at].1 as f32);
        let Some(peaks) = peaks.as_ref().filter(|_| lowest.is_finite() && highest.is_finite())
        else {
            bail!("activation {at} is empty or not finite; check the photos and the float models");
        };
        let observed = Observed::new(floats(&Tensor::cat(samples, 0))?, floats(peaks)?);
        all.push(Observed { lowest, highest, ..observed });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::super::affine::weight_scales;
    use super::*;
    use proptest::prelude::*;

    fn spread_with_outlier() -> Observed {
        let values = (0..10_000).map(|i| i as f32 / 10_000.0 - 0.25).chain([50.0]).collect();
        Observed::new(values, vec![])
    }

    #[test]
    fn each_method_picks_its_range() {
        let seen = spread_with_outlier();
        let highest = |method| {
            let Affine { scale, zero_point } = seen.affine(method);
            scale * (127.0 - f32::from(zero_point))
        };
        assert!((highest(Method::MinMax) - 50.0).abs() < 0.1);
        assert!((highest(Method::Without(1e-3)) - 0.75).abs() < 0.01);
    }

    #[test]
    fn the_least_error_is_less_than_that_of_the_whole_range() {
        // A heavy tail at one end.
        let values = (0..10_000).map(|i| (i as f32 / 10_000.0).powi(60) - 0.01).collect();
        let seen = Observed::new(values, vec![]);
        let error = |method| seen.squared_error(seen.affine(method));
        assert!(error(Method::LeastSquares) < 0.9 * error(Method::MinMax));
        assert!(error(Method::LeastSquares) < 0.9 * error(Method::Without(0.1)));
    }

    #[test]
    fn the_largest_weight_is_127_steps() {
        let scales = weight_scales(&[0.5, -2.54, 0.0, 0.0], 2);
        assert!((scales[0] - 0.02).abs() < 1e-6);
        assert!(scales[1] > 0.0 && scales[1].is_normal());
    }

    proptest! {
        #[test]
        fn zero_is_kept_and_what_lies_within_is_off_by_half_a_step(
            lowest in -1e6f32..1e3, width in 0f32..1e6, share in 0f32..1.0,
        ) {
            let affine = Affine::covering(lowest, lowest + width);
            prop_assert_eq!(affine.rounded(0.0), 0.0);
            prop_assert!(affine.scale.is_normal() && affine.scale > 0.0);
            let value = lowest + share * width;
            // Rounding the zero point moves the ends by half a step.
            prop_assert!((affine.rounded(value) - value).abs() <= affine.scale * 1.01);
        }
    }
}
