//! From the bytes of a picture to the input of a network.

use serde::{Deserialize, Serialize};

/// Normalization of a network's input: `(v - mean) / std` per channel, with `v` in
/// 0..=255.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalization {
    /// Mean of red, green and blue.
    pub mean: [f32; 3],
    /// Divisor of red, green and blue, positive.
    pub std: [f32; 3],
}

impl Normalization {
    /// Normalization of MTCNN and the ArcFace models.
    pub const ARCFACE: Self = Self { mean: [127.5; 3], std: [128.0; 3] };
    /// Normalization of most quantized networks: the input is the byte minus 128, divided
    /// by 128.
    pub const BYTES: Self = Self { mean: [128.0; 3], std: [128.0; 3] };
    /// Mean and standard deviation of ImageNet, on the scale 0..=255.
    pub const IMAGENET: Self =
        Self { mean: [123.675, 116.28, 103.53], std: [58.395, 57.12, 57.375] };

    /// Checks that all values are finite and each divisor is positive.
    pub fn check(&self) -> Result<(), String> {
        let fine = self.mean.iter().all(|v| v.is_finite())
            && self.std.iter().all(|v| v.is_finite() && *v > 0.0);
        if fine { Ok(()) } else { Err("mean must be finite, std finite and positive".to_owned()) }
    }
}
