//! Learns to tell covered faces from whole ones: see [`CoverClassifier`].
//!
//! Each photo is taken as it is and with painted covers, all of them as the detector finds
//! them. A multinomial logistic regression on the features of `vision::cover` tells whole
//! faces, masks, sunglasses and other covers apart. Where refusing begins follows from
//! people from whom it was not learned.

use crate::chance::Chance;
use crate::data::augment::mirrored;
use crate::data::covers::{Kind, spoilt};
use crate::data::photos;
use crate::parallel;
use anyhow::{Result, bail};
use facelatch::models::covered::{CoverClassifier, Linear};
use facelatch::models::{Alignment, Models};
use facelatch::vision::align::align;
use facelatch::vision::cover::features;
use facelatch::vision::detect::{Detector, DetectorSettings, Face, nearest_center};
use facelatch::vision::frame::Frame;
use facelatch::vision::picture;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tch::{Device, Kind as Type, Tensor};

/// The classes: whole faces, then the covers in the order of [`CoverClassifier`].
const CLASSES: usize = 4;
/// Share of whole faces above degree 0, for each cover: together less than one in a hundred.
const WHOLE_REFUSED: [f64; CLASSES - 1] = [0.001, 0.001, 0.002];
/// Share of the faces with this cover that is below degree 1.
const COVERED_COMPARED: f64 = 0.1;
/// Least difference between degree 0 and degree 1, in log odds.
const LEAST_SCALE: f64 = 1.5;
/// Covers painted per photo, for each class: kinds in turn.
const PAINTED: [&[Kind]; CLASSES - 1] = [
    &[Kind::Mask, Kind::Mask],
    &[Kind::Sunglasses, Kind::Sunglasses],
    &[Kind::Hand, Kind::Object, Kind::Bar],
];
/// Parts of the people; each is judged by a classifier learned from the others.
const FOLDS: usize = 3;
/// Weight of the penalty on the squares of the weights, relative to the mean loss.
const RIDGE: f64 = 1.5e-3;
const STEPS: usize = 250;
/// Steps of the power iteration that bounds the curvature.
const POWER_STEPS: usize = 30;
/// Fewest people: with fewer, the share of refused whole faces says nothing.
const FEWEST_PEOPLE: usize = 100;
/// Decimals of the numbers in the file. Sums of a thousand of them are right to 0.002.
const DECIMALS: f32 = 1e4;

/// One view of a face.
struct Sample {
    person: usize,
    class: usize,
    /// Whether it is a mirror image; those are learned from, but not judged.
    mirrored: bool,
    features: Vec<f32>,
}

/// A classifier, and what it does to people from whom it was not learned.
pub struct Learned {
    /// The classifier.
    pub classifier: CoverClassifier,
    /// Share of whole faces above degree 0.
    pub whole_refused: f64,
    /// Share of covered faces above degree 0, by the name of the class.
    pub refused: BTreeMap<String, f64>,
}

/// Learns from photos; each comes with the number of the person it shows.
///
/// # Errors
/// If a network fails, or if there are too few people.
pub fn learn(models: &Models, photos: &[(usize, PathBuf)], seed: i64) -> Result<Learned> {
    let samples = samples(models, photos, seed)?;
    let mut people: Vec<usize> = samples.iter().map(|sample| sample.person).collect();
    people.dedup();
    if people.len() < FEWEST_PEOPLE {
        bail!(
            "{} people with a face are too few to tell covered faces, which needs at least {FEWEST_PEOPLE}; add people",
            people.len()
        );
    }
    let fold = |sample: &Sample| sample.person % FOLDS;
    let mut odds = vec![[0.0; CLASSES - 1]; samples.len()];
    for part in 0..FOLDS {
        let others: Vec<&Sample> = samples.iter().filter(|sample| fold(sample) != part).collect();
        let line = Fit::new(&others)?;
        for (sample, odds) in samples.iter().zip(&mut odds).filter(|(s, _)| fold(s) == part) {
            *odds = line.odds(&sample.features);
        }
    }
    let judged = |class: usize, cover: usize| -> Vec<f64> {
        let of = samples.iter().zip(&odds).filter(|(s, _)| s.class == class && !s.mirrored);
        let mut values: Vec<f64> = of.map(|(_, odds)| odds[cover]).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let all: Vec<&Sample> = samples.iter().collect();
    let last = Fit::new(&all)?;
    let mut scales = [(0.0, 0.0); CLASSES - 1];
    for (cover, scale) in scales.iter_mut().enumerate() {
        let from = quantile(&judged(0, cover), 1.0 - WHOLE_REFUSED[cover]);
        let to = quantile(&judged(cover + 1, cover), COVERED_COMPARED);
        *scale = (from, (to - from).max(LEAST_SCALE));
    }
    let linear = |cover: usize| last.linear(cover, scales[cover]);
    let degree = |odds: &[f64; CLASSES - 1]| {
        odds.iter()
            .zip(scales)
            .map(|(odds, (from, scale))| (odds - from) / scale)
            .fold(f64::MIN, f64::max)
    };
    let above = |class: usize| {
        let of = || samples.iter().zip(&odds).filter(|(s, _)| s.class == class && !s.mirrored);
        of().filter(|(_, odds)| degree(odds) > 0.0).count() as f64 / of().count().max(1) as f64
    };
    let names = ["mask", "sunglasses", "other"];
    Ok(Learned {
        classifier: CoverClassifier { mask: linear(0), sunglasses: linear(1), other: linear(2) },
        whole_refused: above(0),
        refused: (1..).zip(names).map(|(class, name)| (name.to_owned(), above(class))).collect(),
    })
}

/// Value below which this share of the sorted `values` lies; 0 if there is none.
fn quantile(values: &[f64], share: f64) -> f64 {
    let at = (share * values.len() as f64) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// The face nearest the centre of each photo, whole and covered, and the mirror images.
/// Photos without a face, and covers under which no face is found, are left out.
fn samples(models: &Models, photos: &[(usize, PathBuf)], seed: i64) -> Result<Vec<Sample>> {
    let progress = photos::progress(photos.len(), "faces");
    let found = parallel::each(
        parallel::cores(),
        photos.len(),
        || Ok(Detector::new(&models.detector, DetectorSettings::default())?),
        |detector, at| {
            let (person, path) = &photos[at];
            progress.inc(1);
            let photo = match picture::read(path) {
                Ok(photo) => photo,
                Err(error) => {
                    log::warn!("{error}; skipped");
                    return Ok(Vec::new());
                }
            };
            let mut samples = Vec::new();
            let Some(face) = nearest(detector, &photo)? else {
                log::warn!("{}: no face found; skipped", path.display());
                return Ok(samples);
            };
            add(&mut samples, (*person, 0), &photo, &face);
            for (class, kinds) in (1..).zip(PAINTED) {
                for (number, kind) in (0..).zip(kinds) {
                    let mut chance = Chance::at(seed, &[at as u64, class as u64, number]);
                    let made = spoilt(&photo, &face.landmarks, *kind, &mut chance);
                    if let Some(face) = nearest(detector, &made)? {
                        add(&mut samples, (*person, class), &made, &face);
                    }
                }
            }
            Ok(samples)
        },
    )?;
    progress.finish_and_clear();
    Ok(found.into_iter().flatten().collect())
}

fn nearest(detector: &mut Detector, frame: &Frame) -> Result<Option<Face>> {
    Ok(nearest_center(detector.detect(frame)?, frame).copied())
}

fn add(samples: &mut Vec<Sample>, (person, class): (usize, usize), frame: &Frame, face: &Face) {
    let crop = align(frame, &face.landmarks, &Alignment::ARCFACE);
    for (mirrored, crop) in [(false, crop.clone()), (true, mirrored(&crop))] {
        if let Some(features) = features(&crop) {
            samples.push(Sample { person, class, mirrored, features: features.to_vec() });
        }
    }
}

/// A multinomial logistic regression. `weights` has a row per feature and a last one for the
/// constant, and a column per class.
struct Fit {
    means: Vec<f32>,
    weights: Vec<Vec<f64>>,
}

impl Fit {
    /// Fits by Nesterov's accelerated gradient ("A method of solving a convex programming
    /// problem with convergence rate O(1/k^2)", 1983). The classes weigh the same.
    fn new(samples: &[&Sample]) -> Result<Self> {
        let (count, width) = (samples.len() as i64, CoverClassifier::FEATURES as i64);
        let flat: Vec<f32> = samples.iter().flat_map(|s| s.features.iter().copied()).collect();
        let raw = Tensor::from_slice(&flat).view([count, width]);
        let means = raw.mean_dim(0, false, Type::Float);
        let ones = Tensor::ones([count, 1], (Type::Float, Device::Cpu));
        let pictures = Tensor::cat(&[raw - &means, ones], 1);
        let classes: Vec<i64> = samples.iter().map(|sample| sample.class as i64).collect();
        let wanted = Tensor::from_slice(&classes).one_hot(CLASSES as i64).to_kind(Type::Float);
        let sizes = wanted.sum_dim_intlist(0, false, Type::Float).clamp_min(1.0);
        let share = (&wanted / sizes).sum_dim_intlist(1, true, Type::Float) / CLASSES as f64;
        // The constant is not penalized.
        let penalty = Tensor::full([width + 1, 1], RIDGE, (Type::Float, Device::Cpu));
        let _ = penalty.get(width).fill_(0.0);
        // Böhning ("Multinomial logistic regression algorithm", 1992) bounds the curvature by
        // half the largest eigenvalue of the features' weighted products.
        let mut direction = Tensor::ones([width + 1, 1], (Type::Float, Device::Cpu));
        let mut largest = 1.0;
        for _ in 0..POWER_STEPS {
            let next = pictures.tr().matmul(&(&share * pictures.matmul(&direction)));
            largest = next.norm().double_value(&[]);
            direction = next / largest.max(1e-12);
        }
        let step = 1.0 / (0.5 * 1.05 * largest + RIDGE);
        let mut weights = Tensor::zeros([width + 1, CLASSES as i64], (Type::Float, Device::Cpu));
        let (mut ahead, mut pace) = (weights.copy(), 1.0f64);
        for _ in 0..STEPS {
            let off = pictures.matmul(&ahead).softmax(1, Type::Float) - &wanted;
            let slope = pictures.tr().matmul(&(off * &share)) + &penalty * &ahead;
            let next = &ahead - slope * step;
            let faster = f64::midpoint(1.0, (1.0 + 4.0 * pace * pace).sqrt());
            ahead = &next + (&next - &weights) * ((pace - 1.0) / faster);
            (weights, pace) = (next, faster);
        }
        let weights: Vec<Vec<f64>> = Vec::try_from(weights.to_kind(Type::Double))?;
        Ok(Self { means: Vec::try_from(means)?, weights })
    }

    /// Log odds of each cover against a whole face.
    fn odds(&self, features: &[f32]) -> [f64; CLASSES - 1] {
        let [weights @ .., constant] = &self.weights[..] else { return [0.0; CLASSES - 1] };
        std::array::from_fn(|cover| {
            let line = |row: &[f64]| row[cover + 1] - row[0];
            let values = features.iter().zip(&self.means).map(|(v, mean)| f64::from(v - mean));
            line(constant) + weights.iter().zip(values).map(|(row, v)| line(row) * v).sum::<f64>()
        })
    }

    /// The log odds of a cover. Refusing to enroll begins at `from`, refusing to compare at
    /// `from + scale`.
    fn linear(&self, cover: usize, (from, scale): (f64, f64)) -> Linear {
        let rounded = |value: f64| (value as f32 * DECIMALS).round() / DECIMALS;
        let rows = self.weights.iter().take(CoverClassifier::FEATURES);
        Linear {
            enrolled_below: rounded(from),
            compared_below: rounded(from + scale),
            bias: rounded(self.odds(&[0.0; CoverClassifier::FEATURES])[cover]),
            weights: rows.map(|row| rounded(row[cover + 1] - row[0])).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch::models::covered::Cover;

    /// Classes differ by the mean of one feature each.
    fn made_up(people: usize) -> Vec<Sample> {
        let mut chance = Chance::new(4);
        let mut samples = vec![];
        for person in 0..people {
            for class in 0..CLASSES {
                let mut features: Vec<f32> = (0..CoverClassifier::FEATURES)
                    .map(|_| chance.between(-0.05, 0.05) as f32 + 0.4)
                    .collect();
                features[class * 10] += 1.0;
                samples.push(Sample { person, class, mirrored: false, features });
            }
        }
        samples
    }

    #[test]
    fn classes_that_differ_are_told_apart() {
        let samples = made_up(40);
        let fit = Fit::new(&samples.iter().collect::<Vec<_>>()).expect("a fit");
        for sample in made_up(60) {
            let odds = fit.odds(&sample.features);
            let best = (0..odds.len()).max_by(|a, b| odds[*a].total_cmp(&odds[*b]));
            match sample.class {
                0 => assert!(odds.iter().all(|odds| *odds < 0.0), "{odds:?}"),
                class => assert!(best == Some(class - 1) && odds[class - 1] > 0.0, "{odds:?}"),
            }
        }
    }

    #[test]
    fn a_classifier_in_a_file_judges_by_the_same_odds() {
        let samples = made_up(40);
        let fit = Fit::new(&samples.iter().collect::<Vec<_>>()).expect("a fit");
        let linear = |cover| fit.linear(cover, (0.5, 2.0));
        let classifier =
            CoverClassifier { mask: linear(0), sunglasses: linear(1), other: linear(2) };
        for sample in samples.iter().filter(|sample| sample.class > 0) {
            let covered = classifier.judge(&sample.features);
            let expected = (fit.odds(&sample.features)[sample.class - 1] - 0.5) / 2.0;
            assert!((f64::from(covered.degree) - expected).abs() < 0.03, "{covered:?} {expected}");
            let by = [Cover::Mask, Cover::Sunglasses, Cover::Other][sample.class - 1];
            assert_eq!(covered.by, by);
        }
    }
}
