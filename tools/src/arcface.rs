//! The additive angular margin of Deng, Guo, Xue and Zafeiriou, "ArcFace:
//! Additive Angular Margin Loss for Deep Face Recognition", 2019, section 3.

use crate::student::unit_rows;
use std::f64::consts::PI;
use tch::Tensor;

/// Scale and margin of the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ArcFace {
    /// Radius of the sphere that logits are taken on; the paper's s.
    pub scale: f64,
    /// Angle added to a face's own class, radians in 0..=1; the paper's m.
    pub margin: f64,
}

impl ArcFace {
    /// Logits `N x classes` of embeddings `N x E` with labels `N` and class
    /// centres `classes x E`; neither side need be of length one.
    ///
    /// Where an angle plus the margin would pass π the cosine turns upwards
    /// again; from there on a straight line of the same fall is used, as in the
    /// authors' code.
    pub fn logits(&self, embeddings: &Tensor, labels: &Tensor, centers: &Tensor) -> Tensor {
        let cosines = unit_rows(embeddings).matmul(&unit_rows(centers).tr());
        let labels = labels.unsqueeze(1);
        // Away from 1, where the root below has no slope.
        let own = cosines.gather(1, &labels, false).clamp(-1.0 + 1e-6, 1.0 - 1e-6);
        let sine = (-own.square() + 1.0).sqrt();
        let turned = &own * self.margin.cos() - sine * self.margin.sin();
        let straight = &own - self.margin * self.margin.sin();
        let with_margin = turned.where_self(&own.gt((PI - self.margin).cos()), &straight);
        cosines.scatter(1, &labels, &with_margin) * self.scale
    }

    /// Mean cross-entropy of those logits.
    pub fn loss(&self, embeddings: &Tensor, labels: &Tensor, centers: &Tensor) -> Tensor {
        self.logits(embeddings, labels, centers).cross_entropy_for_logits(labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    const PAPER: ArcFace = ArcFace { scale: 64.0, margin: 0.5 };

    fn logits(angles: &[f64], labels: &[i64]) -> Vec<Vec<f64>> {
        let rows: Vec<f64> = angles.iter().flat_map(|a| [3.0 * a.cos(), 3.0 * a.sin()]).collect();
        let embeddings = Tensor::from_slice(&rows).view([-1, 2]);
        let centers = Tensor::from_slice(&[2.0, 0.0, 0.0, 5.0]).view([2, 2]);
        let logits = PAPER.logits(&embeddings, &Tensor::from_slice(labels), &centers);
        Vec::try_from(logits).expect("rows of numbers")
    }

    #[test]
    fn only_the_own_class_gets_the_margin() {
        let angle = 0.7f64;
        let rows = logits(&[angle], &[0]);
        assert!((rows[0][0] - 64.0 * (angle + 0.5).cos()).abs() < 1e-4);
        assert!((rows[0][1] - 64.0 * angle.sin()).abs() < 1e-4);
    }

    #[test]
    fn logits_fall_all_the_way_to_the_opposite() {
        let angles: Vec<f64> = (0..=100).map(|i| f64::from(i) / 100.0 * PI).collect();
        let rows = logits(&angles, &vec![0; angles.len()]);
        for pair in rows.windows(2) {
            assert!(pair[1][0] < pair[0][0], "{pair:?}");
        }
    }

    #[test]
    fn the_slope_is_finite_at_the_centre_itself() {
        let embeddings = Tensor::from_slice(&[1.0f32, 0.0]).view([1, 2]).set_requires_grad(true);
        let centers = Tensor::from_slice(&[1.0f32, 0.0, 0.0, 1.0]).view([2, 2]);
        PAPER.loss(&embeddings, &Tensor::from_slice(&[0i64]), &centers).backward();
        let slope = embeddings.grad().abs().sum(Kind::Float).double_value(&[]);
        assert!(slope.is_finite());
    }
}
