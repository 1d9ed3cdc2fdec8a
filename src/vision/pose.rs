//! Head pose from the five landmarks.
//!
//! The tip of the nose lies in front of the plane of eyes and mouth. If the head turns by
//! an angle and is seen from a distance (weak perspective: no part of the face is much
//! nearer than another), lengths in the plane shrink by the cosine of the angle, and the
//! tip moves by its height over the plane times the sine. The ratio of the two is measured:
//!
//! ```text
//!   yaw   = nose beside the middle / distance of the eyes      = D tan(yaw angle)
//!   pitch = nose below the eyes / distance of eyes from mouth  = P - E tan(pitch angle)
//! ```
//!
//! `D` is the height of the nose divided by the distance between the eyes, and `E` the
//! height divided by the distance between eyes and mouth. In the generic head of Mallick,
//! "Head pose estimation using OpenCV and dlib", 2016, the corners of the eyes lie 225 to
//! the side and 170 above, those of the mouth 150 to the side and 150 below, and all of
//! them 130 behind the tip of the nose; the centres of the eyes lie near 160. So `D` and
//! `E` are both 130 / 320 = 0.41.

use crate::vision::frame::Landmarks;
use serde::{Deserialize, Serialize};

/// Turn of a head, measured as the position of the nose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turn {
    /// Distance of the nose from the middle line of eyes and mouth, in units of the
    /// distance between the eyes. 0 is frontal; negative is to the left in the picture.
    pub yaw: f32,
    /// Position of the nose between eyes (0) and mouth (1).
    pub pitch: f32,
}

/// A pose requested at enrolment. Left and right are those of the person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pose {
    /// Looking into the camera.
    Front,
    /// Turned to the person's left, the right of the picture.
    Left,
    /// Turned to the person's right, the left of the picture.
    Right,
    /// Looking up.
    Up,
    /// Looking down.
    Down,
}

/// Turn of a frontal face: the median of 84 photos of LFW with a yaw of at most 10 degrees.
/// Heads and cameras differ: four in five of these photos have a pitch from 0.42 to 0.67.
/// So every other pose is measured relative to that of the person looking into the camera.
const FRONTAL: Turn = Turn { yaw: 0.0, pitch: 0.53 };
/// Largest difference in yaw and pitch from [`FRONTAL`] of a frontal face: 14 and 20
/// degrees.
const FRONTAL_WITHIN: [f32; 2] = [0.10, 0.15];
/// Smallest yaw of a head turned left or right: 20 degrees. A head turned less is neither
/// frontal nor turned, so that the views differ.
const TURNED: f32 = 0.15;
/// Smallest pitch of a head tilted up or down: 14 degrees, as far as most people tilt it
/// when asked.
const TILTED: f32 = 0.10;
/// Largest turn or tilt: 45 degrees. Beyond it the far half of the face is hidden.
const HIDDEN: f32 = 0.41;

impl Turn {
    /// Measures five landmarks. Roll and scale do not matter. Landmarks that are not finite
    /// give NaN.
    pub fn of(landmarks: &Landmarks) -> Self {
        let [left, right, nose, mouth_left, mouth_right] = *landmarks;
        let middle = |a: [f32; 2], b: [f32; 2]| [(a[0] + b[0]) / 2.0, (a[1] + b[1]) / 2.0];
        let from = |a: [f32; 2], b: [f32; 2]| [b[0] - a[0], b[1] - a[1]];
        let dot = |a: [f32; 2], b: [f32; 2]| a[0] * b[0] + a[1] * b[1];
        let (eyes, mouth) = (middle(left, right), middle(mouth_left, mouth_right));
        let across = from(left, right);
        let down = from(eyes, mouth);
        let width = dot(across, across).max(1e-6);
        // Project the nose onto the line from eyes to mouth.
        let pitch = dot(from(eyes, nose), down) / dot(down, down).max(1e-6);
        let beside = [nose[0] - eyes[0] - pitch * down[0], nose[1] - eyes[1] - pitch * down[1]];
        Self { yaw: dot(beside, across) / width, pitch }
    }

    /// Whether the face looks into the camera.
    pub fn is_frontal(self) -> bool {
        let [aside, tilted] = self.since(FRONTAL);
        // Written so that NaN is not frontal.
        aside.abs() <= FRONTAL_WITHIN[0] && tilted.abs() <= FRONTAL_WITHIN[1]
    }

    /// The pose relative to `front`, the same person looking into the camera. `None`
    /// between two poses, if the head is turned and tilted at once, or if it is turned too
    /// far.
    pub fn pose(self, front: Self) -> Option<Pose> {
        let [aside, tilted] = self.since(front);
        if aside.abs() <= TURNED / 2.0 && tilted.abs() <= TILTED / 2.0 {
            Some(Pose::Front)
        } else if (TURNED..=HIDDEN).contains(&aside.abs()) && tilted.abs() < TILTED {
            Some(if aside > 0.0 { Pose::Left } else { Pose::Right })
        } else if (TILTED..=HIDDEN).contains(&tilted.abs()) && aside.abs() < TURNED {
            Some(if tilted < 0.0 { Pose::Up } else { Pose::Down })
        } else {
            None
        }
    }

    /// Differences in yaw and pitch.
    fn since(self, front: Self) -> [f32; 2] {
        [self.yaw - front.yaw, self.pitch - front.pitch]
    }
}

impl Pose {
    /// All five, in the order in which they are requested.
    pub const ALL: [Self; 5] = [Self::Front, Self::Left, Self::Right, Self::Up, Self::Down];

    /// Advice for the person at the door.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Front => "look into the camera",
            Self::Left => "turn the head a little to your left",
            Self::Right => "turn the head a little to your right",
            Self::Up => "look up a little",
            Self::Down => "look down a little",
        }
    }

    /// The middle of its range, for tests of other modules.
    pub fn example(self) -> Turn {
        let (yaw, pitch) = match self {
            Self::Front => (0.0, 0.0),
            Self::Left => (0.25, 0.0),
            Self::Right => (-0.25, 0.0),
            Self::Up => (0.0, -0.2),
            Self::Down => (0.0, 0.2),
        };
        Turn { yaw: FRONTAL.yaw + yaw, pitch: FRONTAL.pitch + pitch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Alignment;

    const TEMPLATE: Landmarks = Alignment::ARCFACE.landmarks;
    use proptest::prelude::*;

    /// Landmarks of the generic head, turned by two angles in degrees and seen from a
    /// distance: x to the right, y down.
    fn head(yaw: f32, pitch: f32) -> Landmarks {
        let points: [[f32; 3]; 5] = [
            [-160.0, -160.0, 0.0],
            [160.0, -160.0, 0.0],
            [0.0, -3.0, 130.0],
            [-150.0, 160.0, 0.0],
            [150.0, 160.0, 0.0],
        ];
        let ((sy, cy), (sp, cp)) = (yaw.to_radians().sin_cos(), pitch.to_radians().sin_cos());
        points.map(|[x, y, z]| {
            // First the pitch, about the axis through the ears, then the yaw.
            let (y, z) = (y * cp - z * sp, y * sp + z * cp);
            [x * cy + z * sy, y]
        })
    }

    #[test]
    fn turning_a_head_gives_the_poses_in_their_ranges() {
        for (yaw, pitch, expected) in [
            (0.0, 0.0, Some(Pose::Front)),
            (8.0, 0.0, Some(Pose::Front)),
            (-8.0, 5.0, Some(Pose::Front)),
            (0.0, 10.0, None),
            (15.0, 0.0, None),
            (25.0, 0.0, Some(Pose::Left)),
            (-30.0, 5.0, Some(Pose::Right)),
            (40.0, 0.0, Some(Pose::Left)),
            (60.0, 0.0, None),
            (0.0, 18.0, Some(Pose::Up)),
            (5.0, -18.0, Some(Pose::Down)),
            (25.0, 25.0, None),
            (0.0, 60.0, None),
        ] {
            let turn = Turn::of(&head(yaw, pitch));
            assert_eq!(turn.pose(Turn::of(&head(0.0, 0.0))), expected, "{yaw} {pitch}: {turn:?}");
        }
        // A person who holds the head higher than others moves it from there.
        let front = Turn::of(&head(0.0, 15.0));
        assert!(front.is_frontal());
        assert_eq!(Turn::of(&head(0.0, 15.0)).pose(front), Some(Pose::Front));
        assert_eq!(Turn::of(&head(0.0, 0.0)).pose(front), Some(Pose::Down));
        assert_eq!(Turn::of(&head(25.0, 15.0)).pose(front), Some(Pose::Left));
    }

    #[test]
    fn examples_have_the_pose_of_their_name() {
        let front = Pose::Front.example();
        for pose in Pose::ALL {
            assert_eq!(pose.example().pose(front), Some(pose));
            assert_eq!(pose.example().is_frontal(), pose == Pose::Front);
        }
        assert!(Turn::of(&TEMPLATE).is_frontal());
    }

    #[test]
    fn nonsense_is_no_pose() {
        let nonsense = Turn::of(&[[f32::NAN; 2]; 5]);
        assert!(!nonsense.is_frontal() && nonsense.pose(Pose::Front.example()).is_none());
        assert_eq!(Pose::Front.example().pose(nonsense), None);
        assert!(!Turn::of(&[[5.0; 2]; 5]).is_frontal());
    }

    proptest! {
        #[test]
        fn rolling_the_head_changes_no_pose(
            angle in -3.0f32..3.0, scale in 0.2f32..5.0, nose in (-20f32..20.0, -10f32..10.0),
        ) {
            let mut landmarks = TEMPLATE;
            landmarks[2][0] += nose.0;
            landmarks[2][1] += nose.1;
            let (sin, cos) = angle.sin_cos();
            let rolled = landmarks
                .map(|[x, y]| [scale * (x * cos - y * sin) + 7.0, scale * (x * sin + y * cos)]);
            let (a, b) = (Turn::of(&landmarks), Turn::of(&rolled));
            prop_assert!((a.yaw - b.yaw).abs() < 1e-3 && (a.pitch - b.pitch).abs() < 1e-3, "{a:?} {b:?}");
        }

        /// A mirror swaps left and right and nothing else.
        #[test]
        fn a_mirrored_face_is_turned_the_other_way(yaw in -50f32..50.0, pitch in -40f32..40.0) {
            let landmarks = head(yaw, pitch);
            let [a, b, nose, c, d] = landmarks.map(|[x, y]| [-x, y]);
            let front = Turn::of(&head(0.0, 0.0));
            let mirrored = Turn::of(&[b, a, nose, d, c]).pose(front);
            let expected = Turn::of(&landmarks).pose(front).map(|pose| match pose {
                Pose::Left => Pose::Right,
                Pose::Right => Pose::Left,
                pose => pose,
            });
            prop_assert_eq!(mirrored, expected);
        }

        /// The nose moves by the tangent of the angle, as derived above.
        #[test]
        fn the_measure_is_the_tangent_of_the_angle(angle in -50f32..50.0) {
            let turn = Turn::of(&head(angle, 0.0));
            prop_assert!((turn.yaw - 130.0 / 320.0 * angle.to_radians().tan()).abs() < 1e-3);
            let turn = Turn::of(&head(0.0, angle));
            let expected = 157.0 / 320.0 - 130.0 / 320.0 * angle.to_radians().tan();
            prop_assert!((turn.pitch - expected).abs() < 1e-3, "{turn:?} {expected}");
        }
    }
}
