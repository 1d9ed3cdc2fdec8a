//! How 8-bit numbers stand for real ones, and pictures as the networks see them.

use anyhow::Result;
use facelatch::nn::Normalization;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

/// Largest weight, in units of its scale. -128 is not used, so that the range is
/// symmetric.
pub const WEIGHT_LIMIT: f64 = 127.0;

/// Smallest range. It is far below any value that matters, and large enough for floating
/// point to keep its digits.
const SMALLEST: f32 = 1e-30;

/// How an activation is stored: `scale * (q - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Affine {
    /// Size of one step.
    pub scale: f32,
    /// The `q` that stands for zero.
    pub zero_point: i8,
}

impl Affine {
    /// How a picture is stored as a rule: a byte `v` is `v - 128`, in steps of 1/128, and
    /// 128 stands for zero.
    pub const PICTURE: Self = Self { scale: 1.0 / 128.0, zero_point: 0 };
    /// Smallest `q`.
    pub const LOWEST: i64 = -128;
    /// Largest `q`.
    pub const HIGHEST: i64 = 127;

    /// How a picture is stored if the byte `zero` stands for zero: a byte `v` is `v - 128`,
    /// in steps of 1/128.
    pub fn picture(zero: u8) -> Self {
        Self { zero_point: zero.wrapping_sub(128).cast_signed(), ..Self::PICTURE }
    }

    /// Normalization of a picture that is stored like this, as [`Self::picture`] makes it.
    pub fn normalization(self) -> Normalization {
        let zero = f32::from(self.zero_point) + 128.0;
        Normalization { mean: [zero; 3], std: [1.0 / self.scale; 3] }
    }

    /// The finest steps that cover a range. The range is extended to zero if it does not
    /// hold it, because padding needs zero.
    pub fn covering(lowest: f32, highest: f32) -> Self {
        let (lowest, highest) = (f64::from(lowest.min(0.0)), f64::from(highest.max(0.0)));
        let steps = (Self::HIGHEST - Self::LOWEST) as f64;
        // An activation that is always zero still needs a scale to divide by.
        let scale = ((highest - lowest).max(f64::from(SMALLEST)) / steps) as f32;
        let zero_point = Self::LOWEST as f64 - lowest / f64::from(scale);
        Self { scale, zero_point: zero_point.round().clamp(-128.0, 127.0) as i8 }
    }

    /// The value after quantization and dequantization.
    pub fn rounded(self, value: f32) -> f32 {
        let zero_point = f32::from(self.zero_point);
        let q = (value / self.scale).round_ties_even() + zero_point;
        (q.clamp(Self::LOWEST as f32, Self::HIGHEST as f32) - zero_point) * self.scale
    }
}

/// Scales of weights, one per row, for which the largest weight is 127 steps. Clipping
/// the largest weights for the least squared error was tried; no network gained from it.
pub fn weight_scales(weights: &[f32], row: usize) -> Vec<f32> {
    let limit = WEIGHT_LIMIT as f32;
    let peak = |row: &[f32]| row.iter().fold(0.0f32, |peak, weight| peak.max(weight.abs()));
    // A row of zeros still needs a scale to divide by.
    weights.chunks(row).map(|row| peak(row).max(SMALLEST) / limit).collect()
}

/// All values of a tensor.
pub fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(Vec::try_from(tensor.detach().to_device(Device::Cpu).contiguous().flatten(0, -1))?)
}

/// Byte pictures `N x 3 x H x W` as normalized f32.
pub fn normalized(bytes: &Tensor, normalization: &Normalization) -> Tensor {
    let channels =
        |values: &[f32; 3]| Tensor::from_slice(values).to_device(bytes.device()).view([1, 3, 1, 1]);
    (bytes.to_kind(Kind::Float) - channels(&normalization.mean)) / channels(&normalization.std)
}
