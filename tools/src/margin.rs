//! Losses that ask more of a face's own class than of the others. All are one: with
//! the angle θ between an embedding and its class centre, its logit is
//! `s * (cos(m1 θ + m2) - m3)`, and `s * cos θ` that of every other class.
//!
//! m1: Liu, Wen, Yu, Li, Raj and Song, "SphereFace: Deep Hypersphere Embedding for
//! Face Recognition", 2017. m2: Deng, Guo, Xue and Zafeiriou, "ArcFace: Additive
//! Angular Margin Loss for Deep Face Recognition", 2019, whose section 3 combines all
//! three. m3: Wang et al., "CosFace: Large Margin Cosine Loss for Deep Face
//! Recognition", 2018.

use crate::run::HeadKind;
use crate::student::unit_rows;
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;
use tch::{Kind, Reduction, Tensor};

/// How near to 1 a cosine may come: closer, the root of the sine has no slope any
/// more that 32 bits could hold.
const NEAREST: f64 = 1.0 - 1e-6;

/// Scale and margins of a loss over angles.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Margin {
    /// Radius of the sphere that logits are taken on; the papers' s.
    pub scale: f64,
    /// What the angle to the own class is multiplied by, 0.5..=2.
    pub multiplied: f64,
    /// What is added to that angle, radians in 0..=1.
    pub angle: f64,
    /// What is taken from its cosine, 0..=1.
    pub cosine: f64,
}

impl Margin {
    /// ArcFace with the paper's scale and angle.
    pub const ARCFACE: Self = Self { scale: 64.0, multiplied: 1.0, angle: 0.5, cosine: 0.0 };
    /// CosFace with the margin its paper settles on.
    pub const COSFACE: Self = Self { scale: 64.0, multiplied: 1.0, angle: 0.0, cosine: 0.35 };
    /// The first of the combinations that ArcFace's section 3 tries.
    pub const COMBINED: Self = Self { scale: 64.0, multiplied: 1.0, angle: 0.3, cosine: 0.2 };
    /// None: softmax's logits are taken as they are.
    pub const NONE: Self = Self { scale: 1.0, multiplied: 1.0, angle: 0.0, cosine: 0.0 };

    /// What a head has where nothing else is asked for.
    pub fn of(kind: HeadKind) -> Self {
        match kind {
            HeadKind::Softmax => Self::NONE,
            HeadKind::Arcface => Self::ARCFACE,
            HeadKind::Cosface => Self::COSFACE,
            HeadKind::Combined => Self::COMBINED,
        }
    }

    /// Refuses margins for which the logit would not fall all the way.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.scale > 0.0 && self.scale.is_finite(),
            "the scale is {}, expected a positive number",
            self.scale
        );
        ensure!(
            (0.5..=2.0).contains(&self.multiplied),
            "the angle is multiplied by {}, expected 0.5 to 2",
            self.multiplied
        );
        for (what, margin) in [("angle", self.angle), ("cosine", self.cosine)] {
            ensure!(
                (0.0..=1.0).contains(&margin),
                "the {what} margin is {margin}, expected 0 to 1"
            );
        }
        Ok(())
    }

    /// Logits `N x classes` of embeddings `N x E` with labels `N` and class
    /// centres `classes x E`; neither side need be of length one.
    pub fn logits(&self, embeddings: &Tensor, labels: &Tensor, centers: &Tensor) -> Tensor {
        self.with_margin(&cosines(embeddings, centers), labels)
    }

    /// The same from cosines `N x classes`.
    ///
    /// Where the angle with its margins would pass π the cosine turns upwards again;
    /// from there on a straight line is used that goes on falling: for m1 = 1 the one
    /// of ArcFace's authors, the easy margin below cos(π - m2); for others the one
    /// that meets the curve at its lowest point.
    pub fn with_margin(&self, cosines: &Tensor, labels: &Tensor) -> Tensor {
        let labels = labels.unsqueeze(1);
        let own = cosines.gather(1, &labels, false).clamp(-NEAREST, NEAREST);
        let last = ((PI - self.angle) / self.multiplied).cos();
        let (turned, below) = if self.multiplied == 1.0 {
            // Without an arc cosine, whose slope is endless at both ends; the sine as
            // a product, which near 1 keeps the digits that 1 - cos² loses.
            let sine = ((-&own + 1.0) * (&own + 1.0)).sqrt();
            let turned = &own * self.angle.cos() - sine * self.angle.sin();
            (turned, self.angle * self.angle.sin())
        } else {
            ((own.acos() * self.multiplied + self.angle).cos(), 1.0 + last)
        };
        let with_margin = turned.where_self(&own.gt(last), &(&own - below)) - self.cosine;
        cosines.scatter(1, &labels, &with_margin) * self.scale
    }

    /// Mean cross-entropy of those logits, a share of each label spread over all
    /// classes (Szegedy et al., "Rethinking the Inception Architecture for Computer
    /// Vision", 2016, section 7).
    pub fn loss(
        &self,
        embeddings: &Tensor,
        labels: &Tensor,
        centers: &Tensor,
        smoothing: f64,
    ) -> Tensor {
        cross_entropy(&self.logits(embeddings, labels, centers), labels, smoothing)
    }
}

/// Cosines `N x classes` of embeddings `N x E` to centres `classes x E`.
pub fn cosines(embeddings: &Tensor, centers: &Tensor) -> Tensor {
    unit_rows(embeddings).matmul(&unit_rows(centers).tr())
}

/// Mean cross-entropy of logits `N x classes`.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor, smoothing: f64) -> Tensor {
    logits.cross_entropy_loss(labels, None::<&Tensor>, Reduction::Mean, -100, smoothing)
}

/// How many rows of logits are highest at their label.
pub fn right(logits: &Tensor, labels: &Tensor) -> i64 {
    logits.argmax(1, false).eq_tensor(labels).sum(Kind::Int64).int64_value(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Margin; 5] = [
        Margin::ARCFACE,
        Margin::COSFACE,
        Margin::COMBINED,
        Margin { scale: 64.0, multiplied: 1.35, angle: 0.2, cosine: 0.1 },
        Margin { scale: 64.0, multiplied: 0.9, angle: 0.4, cosine: 0.15 },
    ];

    fn logits(margin: Margin, angles: &[f64], labels: &[i64]) -> Vec<Vec<f64>> {
        let rows: Vec<f64> = angles.iter().flat_map(|a| [3.0 * a.cos(), 3.0 * a.sin()]).collect();
        let embeddings = Tensor::from_slice(&rows).view([-1, 2]);
        let centers = Tensor::from_slice(&[2.0, 0.0, 0.0, 5.0]).view([2, 2]);
        let logits = margin.logits(&embeddings, &Tensor::from_slice(labels), &centers);
        Vec::try_from(logits).expect("rows of numbers")
    }

    #[test]
    fn only_the_own_class_gets_the_margin() {
        let angle = 0.7f64;
        for margin in ALL {
            let Margin { multiplied, angle: added, cosine, .. } = margin;
            let rows = logits(margin, &[angle], &[0]);
            let expected = 64.0 * ((multiplied * angle + added).cos() - cosine);
            assert!((rows[0][0] - expected).abs() < 1e-4, "{margin:?}");
            assert!((rows[0][1] - 64.0 * angle.sin()).abs() < 1e-4, "{margin:?}");
        }
    }

    #[test]
    fn logits_fall_all_the_way_to_the_opposite() {
        let angles: Vec<f64> = (0..=100).map(|i| f64::from(i) / 100.0 * PI).collect();
        for margin in ALL {
            let rows = logits(margin, &angles, &vec![0; angles.len()]);
            for pair in rows.windows(2) {
                assert!(pair[1][0] < pair[0][0], "{margin:?} {pair:?}");
            }
        }
    }

    /// The reference code of ArcFace: cos θ - m sin m where cos θ <= cos(π - m).
    #[test]
    fn past_the_turn_the_authors_straight_line_is_taken() {
        let angle = 3.0f64;
        let rows = logits(Margin::ARCFACE, &[angle], &[0]);
        let expected = 64.0 * (angle.cos() - 0.5 * 0.5f64.sin());
        assert!((rows[0][0] - expected).abs() < 1e-4);
    }

    #[test]
    fn the_slope_is_finite_at_the_centre_itself_and_opposite_to_it() {
        for (margin, x) in ALL.into_iter().flat_map(|margin| [(margin, 1.0f32), (margin, -1.0)]) {
            let embeddings = Tensor::from_slice(&[x, 0.0]).view([1, 2]).set_requires_grad(true);
            let centers = Tensor::from_slice(&[1.0f32, 0.0, 0.0, 1.0]).view([2, 2]);
            margin.loss(&embeddings, &Tensor::from_slice(&[0i64]), &centers, 0.1).backward();
            let slope = embeddings.grad().abs().sum(Kind::Float).double_value(&[]);
            assert!(slope.is_finite(), "{margin:?} {x}");
        }
    }

    #[test]
    fn a_slope_is_that_of_the_formula_in_64_bits() {
        for margin in ALL {
            let at = |angle: f64| {
                let embedding = Tensor::from_slice(&[angle.cos(), angle.sin()]).view([1, 2]);
                let embedding = embedding.set_requires_grad(true);
                let centers = Tensor::from_slice(&[1.0, 0.0, 0.0, 1.0]).view([2, 2]);
                let loss = margin.loss(&embedding, &Tensor::from_slice(&[0i64]), &centers, 0.0);
                loss.backward();
                (loss.double_value(&[]), embedding.grad())
            };
            let (step, angle) = (1e-5, 0.6);
            let numeric = (at(angle + step).0 - at(angle - step).0) / (2.0 * step);
            // Along the circle.
            let slope = at(angle).1;
            let along = -angle.sin() * slope.double_value(&[0, 0])
                + angle.cos() * slope.double_value(&[0, 1]);
            assert!((numeric - along).abs() < 1e-4 * numeric.abs().max(1.0), "{margin:?}");
        }
    }

    #[test]
    fn margins_beyond_their_range_are_refused() {
        for (margin, said) in [
            (Margin { scale: 0.0, ..Margin::ARCFACE }, "scale is 0"),
            (Margin { angle: 1.5, ..Margin::ARCFACE }, "angle margin is 1.5"),
            (Margin { cosine: f64::NAN, ..Margin::ARCFACE }, "cosine margin is NaN"),
            (Margin { multiplied: 4.0, ..Margin::ARCFACE }, "multiplied by 4"),
        ] {
            let error = margin.check().expect_err("out of range").to_string();
            assert!(error.contains(said), "{error}");
        }
        assert!(ALL.iter().all(|margin| margin.check().is_ok()));
    }

    #[test]
    fn right_answers_are_counted() {
        let logits = Tensor::from_slice(&[0.1f32, 0.9, 0.8, 0.2]).view([2, 2]);
        assert_eq!(right(&logits, &Tensor::from_slice(&[1i64, 1])), 1);
    }
}
