//! Margin losses: they demand a higher logit of a face's own class than the other classes
//! have. All follow one formula. With the angle θ between an embedding and its class
//! centre, the logit of the own class is `s * (cos(m1 θ + m2) - m3)`; that of every other
//! class is `s * cos θ`.
//!
//! m1: Liu, Wen, Yu, Li, Raj and Song, "SphereFace: Deep Hypersphere Embedding for Face
//! Recognition", 2017. m2: Deng, Guo, Xue and Zafeiriou, "ArcFace: Additive Angular
//! Margin Loss for Deep Face Recognition", 2019, whose section 3 combines all three. m3:
//! Wang et al., "CosFace: Large Margin Cosine Loss for Deep Face Recognition", 2018.

use crate::train::run_folder::HeadKind;
use crate::train::tensors::unit_rows;
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;
use tch::{Kind, Reduction, Tensor};

/// Largest cosine used. Closer to 1, the derivative of the sine's square root no longer
/// fits 32 bits.
const NEAREST: f64 = 1.0 - 1e-6;

/// Scale and margins of an angular loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Margin {
    /// Factor on all logits, the papers' s.
    pub scale: f64,
    /// Factor on the angle to the own class (m1), 0.5..=2.
    pub multiplied: f64,
    /// Angle added to it (m2), radians, 0..=1.
    pub angle: f64,
    /// Number subtracted from its cosine (m3), 0..=1.
    pub cosine: f64,
}

impl Margin {
    /// ArcFace with the paper's scale and angle.
    pub const ARCFACE: Self = Self { scale: 64.0, multiplied: 1.0, angle: 0.5, cosine: 0.0 };
    /// CosFace with the margin that its paper recommends.
    pub const COSFACE: Self = Self { scale: 64.0, multiplied: 1.0, angle: 0.0, cosine: 0.35 };
    /// The first combination that section 3 of the ArcFace paper tries.
    pub const COMBINED: Self = Self { scale: 64.0, multiplied: 1.0, angle: 0.3, cosine: 0.2 };
    /// No margin: softmax's logits are used as they are.
    pub const NONE: Self = Self { scale: 1.0, multiplied: 1.0, angle: 0.0, cosine: 0.0 };

    /// The default margin of a head.
    pub fn of(kind: HeadKind) -> Self {
        match kind {
            HeadKind::Softmax => Self::NONE,
            HeadKind::Arcface => Self::ARCFACE,
            HeadKind::Cosface => Self::COSFACE,
            HeadKind::Combined => Self::COMBINED,
        }
    }

    /// Fails if the scale is not positive or a margin is out of range. Beyond these
    /// ranges the logit might not fall up to an angle of π.
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

    /// Logits `N x classes` of embeddings `N x E` with labels `N` and class centres
    /// `classes x E`. Neither embeddings nor centres need to have length one.
    pub fn logits(&self, embeddings: &Tensor, labels: &Tensor, centers: &Tensor) -> Tensor {
        self.with_margin(&cosines(embeddings, centers), labels)
    }

    /// The same from cosines `N x classes`.
    ///
    /// Once the angle with its margins exceeds π, the cosine would rise again. From there
    /// on a falling straight line replaces it. For m1 = 1 this is the line of ArcFace's
    /// authors, the easy margin below cos(π - m2); otherwise it is the line that meets
    /// the curve at its lowest point.
    pub fn with_margin(&self, cosines: &Tensor, labels: &Tensor) -> Tensor {
        let labels = labels.unsqueeze(1);
        let own = cosines.gather(1, &labels, false).clamp(-NEAREST, NEAREST);
        let last = ((PI - self.angle) / self.multiplied).cos();
        let (turned, below) = if self.multiplied == 1.0 {
            // Avoids the arc cosine, whose derivative is infinite at both ends. The sine
            // is computed as a product, because 1 - cos² loses digits near 1.
            let sine = ((-&own + 1.0) * (&own + 1.0)).sqrt();
            let turned = &own * self.angle.cos() - sine * self.angle.sin();
            (turned, self.angle * self.angle.sin())
        } else {
            ((own.acos() * self.multiplied + self.angle).cos(), 1.0 + last)
        };
        let with_margin = turned.where_self(&own.gt(last), &(&own - below)) - self.cosine;
        cosines.scatter(1, &labels, &with_margin) * self.scale
    }

    /// Mean cross-entropy of these logits. `smoothing` is the share of each label that is
    /// spread over all classes (Szegedy et al., "Rethinking the Inception Architecture
    /// for Computer Vision", 2016, section 7).
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

/// Mean cross-entropy of logits `N x classes` with labels `N` and label smoothing.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor, smoothing: f64) -> Tensor {
    logits.cross_entropy_loss(labels, None::<&Tensor>, Reduction::Mean, -100, smoothing)
}

/// Number of rows whose highest logit is at their label.
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
            // The derivative along the circle.
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
