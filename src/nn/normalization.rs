//! From the bytes of a picture to the input of a network.

use serde::{Deserialize, Serialize};

/// How a picture's bytes become a network's input: `(v - mean) / std` a
/// channel, `v` in 0..=255.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalization {
    /// Red, green, blue.
    pub mean: [f32; 3],
    /// Red, green, blue; none is zero.
    pub std: [f32; 3],
}

impl Normalization {
    /// What MTCNN and the ArcFace models use.
    pub const ARCFACE: Self = Self { mean: [127.5; 3], std: [128.0; 3] };
    /// What networks of whole numbers take: a byte is its own number, with 128 in
    /// the middle.
    pub const BYTES: Self = Self { mean: [128.0; 3], std: [128.0; 3] };
    /// ImageNet's mean and standard deviation, on 0..=255.
    pub const IMAGENET: Self =
        Self { mean: [123.675, 116.28, 103.53], std: [58.395, 57.12, 57.375] };

    /// Checks that all values are finite and no deviation is zero or negative.
    pub fn check(&self) -> Result<(), String> {
        let fine = self.mean.iter().all(|v| v.is_finite())
            && self.std.iter().all(|v| v.is_finite() && *v > 0.0);
        if fine { Ok(()) } else { Err("mean must be finite and std positive".to_owned()) }
    }
}
