//! Parallax: tells a solid face from a flat one by the movement of the nose relative to
//! eyes and mouth.
//!
//! Eyes and mouth corners lie nearly in a plane, and the nose stands out of it by about 0.4
//! times the distance between the eyes. Any two pictures of a plane differ by a homography
//! (Hartley and Zisserman, "Multiple View Geometry in Computer Vision", 2004, section 2.3).
//! So the homography that maps eyes and mouth corners to a fixed square maps the nose of a
//! print or a tablet always to the same point, however it is tilted. With a head that turns
//! this point moves. The method is plane plus parallax (Irani and Anandan, "Parallax
//! geometry of pairs of points for 3D scene analysis", 1996), applied to faces by De
//! Marsico, Nappi, Riccio and Dugelay, "Moving face spoofing detection via 3D projective
//! invariants", 2012.
//!
//! Limits: a head that keeps still shows no parallax, and a video of a head that turns
//! shows the same parallax as the head.

use crate::vision::frame::Landmarks;

/// Shape of the five landmarks in one frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Position of the nose in the unit square to which eyes and mouth corners are mapped:
    /// `(0, 0)` is the left eye, `(1, 1)` the right corner of the mouth.
    pub nose: [f32; 2],
    /// Anisotropic scaling of eyes and mouth corners relative to an upright square,
    /// independent of size and roll: a complex number with the absolute value `(s - t) / (s
    /// + t)` for an affine map that stretches by `s` along one axis and by `t` across it.
    pub squeeze: [f32; 2],
}

/// Motion of the landmarks over the frames of a track.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Motion {
    /// Movement of [`Shape::nose`], in units of the distance between the eyes, from 0 up:
    /// the root of the covariance of successive frames. The detector's error is independent
    /// from frame to frame, and the turn of a head is not.
    pub parallax: f32,
    /// Movement of [`Shape::squeeze`], computed in the same way, 0 to 1.
    pub turn: f32,
}

impl Shape {
    /// The shape of five landmarks. `None` if eyes and mouth corners are not a convex
    /// quadrilateral.
    pub fn of(landmarks: &Landmarks) -> Option<Self> {
        let [eye_left, eye_right, nose, mouth_left, mouth_right] =
            landmarks.map(|[x, y]| [f64::from(x), f64::from(y)]);
        let corners = [eye_left, eye_right, mouth_right, mouth_left];
        convex(&corners).then_some(())?;
        let nose = in_square(&corners, nose)?;
        let squeeze = squeeze(&corners)?;
        Some(Self { nose: nose.map(|v| v as f32), squeeze: squeeze.map(|v| v as f32) })
    }
}

/// Whether the corners are convex, clockwise in the picture and of positive area.
fn convex(corners: &[[f64; 2]; 4]) -> bool {
    (0..4).all(|at| {
        let [a, b, c] = [corners[at], corners[(at + 1) % 4], corners[(at + 2) % 4]];
        // False for NaN, too.
        (b[0] - a[0]) * (c[1] - b[1]) - (b[1] - a[1]) * (c[0] - b[0]) > 1e-6
    })
}

/// Maps a point to the unit square by the homography that maps the four corners, clockwise
/// from the upper left, to those of the square: Heckbert, "Fundamentals of texture mapping
/// and image warping", 1989, section 2.2.3.
fn in_square(&[p, q, r, s]: &[[f64; 2]; 4], [x, y]: [f64; 2]) -> Option<[f64; 2]> {
    let (across, down) = ([q[0] - r[0], q[1] - r[1]], [s[0] - r[0], s[1] - r[1]]);
    let sum = [p[0] - q[0] + r[0] - s[0], p[1] - q[1] + r[1] - s[1]];
    let area = across[0] * down[1] - down[0] * across[1];
    let g = (sum[0] * down[1] - down[0] * sum[1]) / area;
    let h = (across[0] * sum[1] - sum[0] * across[1]) / area;
    let (a, b, c) = (q[0] - p[0] + g * q[0], s[0] - p[0] + h * s[0], p[0]);
    let (d, e, f) = (q[1] - p[1] + g * q[1], s[1] - p[1] + h * s[1], p[1]);
    // The inverse is the adjugate, since a common factor does not matter.
    let depth = (d * h - e * g) * x + (b * g - a * h) * y + (a * e - b * d);
    let u = ((e - f * h) * x + (c * h - b) * y + (b * f - c * e)) / depth;
    let v = ((f * g - d) * x + (a - c * g) * y + (c * d - a * f)) / depth;
    (u.is_finite() && v.is_finite()).then_some([u, v])
}

/// The affine map from the corners of the square with the least squared error, written as
/// `z -> α z + β z̄` in complex numbers. Returns `β / α` with the roll removed.
fn squeeze(&[p, q, r, s]: &[[f64; 2]; 4]) -> Option<[f64; 2]> {
    // Images of the two sides of the square: means of opposite sides.
    let along = [(q[0] - p[0] + r[0] - s[0]) / 2.0, (q[1] - p[1] + r[1] - s[1]) / 2.0];
    let down = [(s[0] - p[0] + r[0] - q[0]) / 2.0, (s[1] - p[1] + r[1] - q[1]) / 2.0];
    // α = (along - i down) / 2, β = (along + i down) / 2.
    let (alpha, beta) = (
        [(along[0] + down[1]) / 2.0, (along[1] - down[0]) / 2.0],
        [(along[0] - down[1]) / 2.0, (along[1] + down[0]) / 2.0],
    );
    // Dividing by α removes the roll of the picture, which rotates α and β alike.
    let size = alpha[0] * alpha[0] + alpha[1] * alpha[1];
    let ratio = [
        (beta[0] * alpha[0] + beta[1] * alpha[1]) / size,
        (beta[1] * alpha[0] - beta[0] * alpha[1]) / size,
    ];
    ratio.iter().all(|v| v.is_finite()).then_some(ratio)
}

impl Motion {
    /// The motion over the shapes of a track, in order. `None` for fewer than four.
    pub fn of(shapes: impl ExactSizeIterator<Item = Shape> + Clone) -> Option<Self> {
        if shapes.len() < 4 {
            return None;
        }
        Some(Self {
            parallax: kept(shapes.clone().map(|shape| shape.nose)),
            turn: kept(shapes.map(|shape| shape.squeeze)),
        })
    }
}

/// Root of the mean product of each deviation with the next one; 0 if neighbours are not
/// positively correlated.
fn kept(points: impl ExactSizeIterator<Item = [f32; 2]> + Clone) -> f32 {
    let count = points.len() as f32;
    let sum = points.clone().fold([0.0; 2], |sum, point| [sum[0] + point[0], sum[1] + point[1]]);
    let from_mean = points.map(|point| [point[0] - sum[0] / count, point[1] - sum[1] / count]);
    let pairs = from_mean.clone().zip(from_mean.skip(1));
    let common: f32 = pairs.map(|(a, b)| a[0] * b[0] + a[1] * b[1]).sum();
    (common / (count - 1.0)).max(0.0).sqrt()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Eyes and mouth in a plane, the nose in front of it, in units of the distance between
    /// the eyes.
    const HEAD: [[f64; 3]; 5] = [
        [-0.5, -0.55, 0.0],
        [0.5, -0.55, 0.0],
        [0.0, 0.05, -0.4],
        [-0.42, 0.6, 0.0],
        [0.42, 0.6, 0.0],
    ];

    /// Five landmarks, turned and seen from ten times the distance between the eyes.
    pub fn seen(flat: bool, yaw: f64, pitch: f64, roll: f64) -> Landmarks {
        HEAD.map(|[x, y, z]| {
            let z = if flat { 0.0 } else { z };
            let (x, z) = (x * yaw.cos() + z * yaw.sin(), z * yaw.cos() - x * yaw.sin());
            let (y, z) = (y * pitch.cos() + z * pitch.sin(), z * pitch.cos() - y * pitch.sin());
            let (x, y) = (x * roll.cos() - y * roll.sin(), x * roll.sin() + y * roll.cos());
            let near = 500.0 / (10.0 + z);
            [(200.0 + x * near) as f32, (200.0 + y * near) as f32]
        })
    }

    fn turning(flat: bool, angle: f64) -> Motion {
        let shapes: Vec<Shape> = (0..12)
            .filter_map(|at| Shape::of(&seen(flat, angle * (f64::from(at) / 2.0).sin(), 0.1, 0.0)))
            .collect();
        Motion::of(shapes.into_iter()).expect("enough frames")
    }

    #[test]
    fn a_head_that_turns_is_solid_and_a_print_that_turns_is_flat() {
        let (head, print) = (turning(false, 0.3), turning(true, 0.3));
        assert!(head.parallax > 0.05, "{head:?}");
        assert!(print.parallax < 1e-4, "{print:?}");
        assert!(turning(true, 0.7).turn > print.turn);
    }

    #[test]
    fn a_detectors_error_is_no_motion() {
        let shake = |at: i32| if at % 2 == 0 { 1.0f32 } else { -1.0 };
        let shapes: Vec<Shape> = (0..12)
            .filter_map(|at| {
                let mut points = seen(false, 0.0, 0.0, 0.0);
                points[2][0] += shake(at);
                Shape::of(&points)
            })
            .collect();
        assert_eq!(Motion::of(shapes.into_iter()).map(|motion| motion.parallax), Some(0.0));
    }

    #[test]
    fn nonsense_has_no_shape() {
        assert_eq!(Shape::of(&[[f32::NAN; 2]; 5]), None);
        assert_eq!(Shape::of(&[[3.0; 2]; 5]), None);
        let mut crossed = seen(true, 0.0, 0.0, 0.0);
        crossed.swap(0, 1);
        assert_eq!(Shape::of(&crossed), None);
        assert_eq!(Motion::of(std::iter::empty()), None);
    }

    proptest! {
        #[test]
        fn the_nose_of_a_plane_stays_where_it_is(
            yaw in -1.0f64..1.0, pitch in -1.0f64..1.0, roll in -3.0f64..3.0,
        ) {
            let still = Shape::of(&seen(true, 0.0, 0.0, 0.0)).expect("a shape");
            let turned = Shape::of(&seen(true, yaw, pitch, roll)).expect("a shape");
            for axis in 0..2 {
                prop_assert!((still.nose[axis] - turned.nose[axis]).abs() < 1e-3);
            }
        }

        #[test]
        fn rolling_changes_no_shape(yaw in -0.5f64..0.5, roll in -3.0f64..3.0) {
            let upright = Shape::of(&seen(false, yaw, 0.0, 0.0)).expect("a shape");
            let rolled = Shape::of(&seen(false, yaw, 0.0, roll)).expect("a shape");
            for (a, b) in [(upright.nose, rolled.nose), (upright.squeeze, rolled.squeeze)] {
                prop_assert!((a[0] - b[0]).abs() < 1e-3 && (a[1] - b[1]).abs() < 1e-3);
            }
        }
    }
}
