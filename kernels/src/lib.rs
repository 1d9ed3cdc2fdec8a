//! Kernels for quantized layers on 8-bit integers: matrix products over the pixels of a
//! picture, and depthwise filters, both with requantization.
//!
//! This is the workspace's only crate with unsafe code. Every kernel gives the same result
//! as the scalar one, bit for bit; tests compare each of them with it.
//!
//! # Numbers
//!
//! An activation is a byte `q` in -128..=127 that represents `scale * (q - zero_point)`. A
//! weight is a byte in -127..=127 with one scale per output channel and no zero point
//! (affine quantization of Jacob et al., "Quantization and Training of Neural Networks for
//! Efficient Integer-Arithmetic-Only Inference", 2018, with symmetric weights). A layer
//! computes `sum = bias + Σ weight * q` exactly, in 32 bits; the bias includes the input's
//! zero point. Then
//!
//! ```text
//! value = f32(sum) * (sum < 0 ? negative : positive)     PReLU and scales in one
//! value = value + f32(other - other_zero_point) * other_scale    a residual
//! q     = clamp(round_half_even(value) + zero_point, -128, 127)
//! ```
//!
//! # Memory
//!
//! Activations are stored row-major with the channels of a pixel together. The number of
//! channels is rounded up to a multiple of [`CHANNELS`]; these are the stored channels.
//! Kernels whose processor multiplies unsigned by signed bytes store `q + 128`, see
//! [`Kernel::offset`].

mod gate;
mod kernel;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pool;
mod rows;
mod scalar;
pub mod search;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use gate::{
    ChannelMean, Gate, GateLayer, MAX_PIXELS, Pixels, PixelsMut, Quantization, Sides, Sigmoid,
};
pub use kernel::{KERNEL_VARIABLE, Kernel, KernelError};
pub use pool::{MaxPool, Row};
pub use rows::{ONE, SLACK, STEPS, Taps, weighted_pixels, weighted_rows};
use std::ops::Range;
use thiserror::Error;

/// The number of stored channels is a multiple of this.
pub const CHANNELS: usize = 16;

/// Largest absolute sum that a layer may reach. It is far from overflow with the offset
/// that a kernel adds on the way: `128 * Σ weight` at most doubles the sum.
const MAX_SUM: i64 = 1 << 29;

/// A quantized layer, before its weights are arranged for a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Weights in -127..=127. Matrix: `channels x inputs`, with the inputs in the order of
    /// the walk. Filter: `channels x taps`.
    pub weights: Vec<i8>,
    /// One per output channel, including the input's zero point:
    /// `bias - zero_point * Σ weight`.
    pub bias: Vec<i32>,
    /// One factor per output channel, from a sum of at least zero to a value in steps of
    /// the output.
    pub positive: Vec<f32>,
    /// The same factor for a sum below zero.
    pub negative: Vec<f32>,
    /// Zero point of the output; unused if the output is floating point.
    pub zero_point: i8,
    /// Another activation to add to the value.
    pub residual: Option<Residual>,
}

/// Quantization of an activation that is added before the output is rounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Residual {
    /// Scale of the residual, in steps of the output.
    pub scale: f32,
    /// Zero point of the residual.
    pub zero_point: i8,
}

/// Why a layer cannot be computed exactly, with the output channel where there is one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LayerError {
    /// The sum could overflow 32 bits.
    #[error("the sum of output channel {0} can grow beyond 32 bits")]
    Overflow(usize),
    /// A scale is NaN or infinite.
    #[error("the scale of output channel {0} is not finite")]
    Scale(usize),
    /// A weight is -128, which not all kernels can multiply.
    #[error("a weight of output channel {0} is -128, they must be in -127..=127")]
    Weight(usize),
    /// The scales of a gate's inputs are too large for that of its output.
    #[error("the scale of the output is too small for those of the inputs")]
    Gate,
}

/// Offsets of a layer's pixels in its input and output, and the part of the input that each
/// pixel reads (its receptive field).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Each pixel reads `run` bytes at each of these offsets from its input.
    runs: Vec<u32>,
    run: usize,
    /// Offset of each pixel in the input, in bytes.
    inputs: Vec<u32>,
    /// Offset of each pixel in the output, in elements.
    outputs: Vec<u32>,
    /// Largest of `runs`.
    last_run: usize,
    /// Largest of `inputs`.
    last_input: usize,
    /// Largest of `outputs`.
    last_output: usize,
}

impl Walk {
    /// A walk without pixels yet. Each pixel will read `run` bytes at each of the offsets
    /// `runs`.
    pub fn new(runs: Vec<u32>, run: usize) -> Self {
        let last_run = runs.iter().copied().max().unwrap_or(0) as usize;
        Self { runs, run, last_run, ..Self::default() }
    }

    /// Removes all pixels and sets new runs; keeps the allocated memory.
    pub fn reset(&mut self, run: usize, runs: impl Iterator<Item = u32>) {
        self.runs.clear();
        self.runs.extend(runs);
        self.last_run = self.runs.iter().copied().max().unwrap_or(0) as usize;
        self.run = run;
        self.inputs.clear();
        self.outputs.clear();
        (self.last_input, self.last_output) = (0, 0);
    }

    /// Adds a pixel. `input` is an offset in bytes; `output` is in bytes, or in floats if
    /// the output is floating point.
    pub fn push(&mut self, input: u32, output: u32) {
        self.inputs.push(input);
        self.outputs.push(output);
        self.last_input = self.last_input.max(input as usize);
        self.last_output = self.last_output.max(output as usize);
    }

    /// Number of pixels.
    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    /// Whether the walk has no pixels.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// Number of bytes that a pixel reads.
    pub fn inputs(&self) -> usize {
        self.runs.len() * self.run
    }

    /// Minimum length of the input in bytes.
    fn input_end(&self) -> usize {
        if self.is_empty() { 0 } else { self.last_input + self.last_run + self.run }
    }

    /// Minimum length of the output in elements, with `channels` elements per pixel.
    fn output_end(&self, channels: usize) -> usize {
        if self.is_empty() { 0 } else { self.last_output + channels }
    }

    /// The same for some of the pixels.
    fn output_end_of(&self, pixels: &Range<usize>, channels: usize) -> usize {
        let last = self.outputs[pixels.clone()].iter().max();
        last.map_or(0, |last| *last as usize + channels)
    }
}

/// Bias and requantization, arranged for a kernel: one value per stored channel.
struct Epilogue {
    bias: Vec<i32>,
    positive: Vec<f32>,
    negative: Vec<f32>,
    /// Zero point including [`Kernel::offset`].
    zero_point: i32,
    /// Smallest and largest value before the zero point is added.
    low: f32,
    high: f32,
    /// Scale, and zero point including [`Kernel::offset`].
    residual: Option<(f32, i32)>,
}

impl Epilogue {
    /// `order` gives the channel at each place; a value of `channels` or more is padding.
    fn new(kernel: Kernel, layer: &Layer, order: impl Iterator<Item = usize> + Clone) -> Self {
        let channels = layer.bias.len();
        let inputs = layer.weights.len() / channels.max(1);
        let bias = |channel: usize| {
            let weights = &layer.weights[channel * inputs..(channel + 1) * inputs];
            let sum: i32 = weights.iter().map(|weight| i32::from(*weight)).sum();
            layer.bias[channel] - kernel.offset() * sum
        };
        let floats = |values: &[f32]| -> Vec<f32> {
            order.clone().map(|channel| values.get(channel).copied().unwrap_or(0.0)).collect()
        };
        Self {
            bias: order
                .clone()
                .map(|channel| if channel < channels { bias(channel) } else { 0 })
                .collect(),
            positive: floats(&layer.positive),
            negative: floats(&layer.negative),
            ..Self::rounding(kernel, layer.zero_point, layer.residual)
        }
    }

    /// Without bias and factors.
    fn rounding(kernel: Kernel, zero_point: i8, residual: Option<Residual>) -> Self {
        let zero_point = i32::from(zero_point) + kernel.offset();
        let least = kernel.offset() - 128;
        Self {
            bias: Vec::new(),
            positive: Vec::new(),
            negative: Vec::new(),
            zero_point,
            low: (least - zero_point) as f32,
            high: (least + 255 - zero_point) as f32,
            residual: residual
                .map(|other| (other.scale, i32::from(other.zero_point) + kernel.offset())),
        }
    }
}

impl Layer {
    /// Checks that the layer can be computed exactly.
    fn check(&self) -> Result<(), LayerError> {
        let channels = self.bias.len();
        let inputs = self.weights.len() / channels.max(1);
        for (channel, bias) in self.bias.iter().enumerate() {
            let weights = &self.weights[channel * inputs..(channel + 1) * inputs];
            if weights.contains(&i8::MIN) {
                return Err(LayerError::Weight(channel));
            }
            let sum: i64 = weights.iter().map(|weight| i64::from(weight.unsigned_abs())).sum();
            if 128 * sum + i64::from(bias.unsigned_abs()) > MAX_SUM {
                return Err(LayerError::Overflow(channel));
            }
            let other = self.residual.map_or(0.0, |other| other.scale);
            let scales = [self.positive[channel], self.negative[channel], other];
            if scales.iter().any(|scale| !scale.is_finite()) {
                return Err(LayerError::Scale(channel));
            }
        }
        Ok(())
    }
}

/// Weights in the order in which a kernel reads them.
enum Packed {
    Bytes(Vec<i8>),
    /// Widened to 16 bits, for kernels that multiply 16-bit numbers.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "AVX2 alone reads them"))]
    Words(Vec<i16>),
}

/// A matrix product over the channels of pixels: for convolutions that mix channels and for
/// fully connected layers.
pub struct Matrix {
    kernel: Kernel,
    /// Inputs per pixel, a multiple of 16.
    inputs: usize,
    /// Output channels without padding.
    channels: usize,
    weights: Packed,
    epilogue: Epilogue,
}

/// Working memory of a layer. It can be reused for any layer and kernel.
#[derive(Default)]
pub struct Scratch {
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "AVX2 alone needs it"))]
    words: Vec<i16>,
    /// Sum of each channel of a picture.
    sums: Vec<i32>,
    /// Factor of each channel.
    floats: Vec<f32>,
}

fn padded(channels: usize) -> usize {
    channels.next_multiple_of(CHANNELS)
}

impl Matrix {
    /// Arranges a layer for a kernel. Fails if the layer cannot be computed exactly.
    ///
    /// # Panics
    ///
    /// If the processor lacks the kernel's instructions, or the number of inputs is not a
    /// multiple of 16.
    pub fn new(kernel: Kernel, layer: &Layer) -> Result<Self, LayerError> {
        assert!(kernel.is_available(), "{} is not for this processor", kernel.name());
        layer.check()?;
        let channels = layer.bias.len();
        let inputs = layer.weights.len() / channels.max(1);
        assert_eq!(inputs % 16, 0, "inputs come in groups of 16");
        let rows = padded(channels);
        let weight = |channel: usize, input: usize| {
            if channel < channels { layer.weights[channel * inputs + input] } else { 0 }
        };
        // Order of the weights: blocks of `block` channels; in a block, steps of `step`
        // inputs; in a step, all channels of the block.
        let blocks = |block: usize, step: usize| {
            (0..rows / block * (inputs / step)).flat_map(move |at| {
                let (first, from) = (at / (inputs / step) * block, at % (inputs / step) * step);
                (0..block * step).map(move |i| (first + i / step, from + i % step))
            })
        };
        let weights = match kernel {
            Kernel::Scalar => Packed::Bytes(layer.weights.clone()),
            Kernel::Avx512Vnni | Kernel::NeonDot => {
                Packed::Bytes(blocks(16, 4).map(|(c, i)| weight(c, i)).collect())
            }
            Kernel::Neon => Packed::Bytes(blocks(4, 16).map(|(c, i)| weight(c, i)).collect()),
            Kernel::Avx2 => {
                Packed::Words(blocks(16, 2).map(|(c, i)| i16::from(weight(c, i))).collect())
            }
        };
        let epilogue = Epilogue::new(kernel, layer, 0..rows);
        Ok(Self { kernel, inputs, channels, weights, epilogue })
    }

    /// Number of output channels without padding.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Computes the pixels `pixels` of the walk. A pixel of the output has one byte per
    /// stored channel: the number of channels rounded up to a multiple of 16. The residual
    /// has the layout of the output.
    ///
    /// # Panics
    ///
    /// If the walk is not of this layer or has fewer pixels, if input, residual or output
    /// are too short for the walk, or if a residual is missing or unexpected.
    pub fn run(
        &self,
        walk: &Walk,
        pixels: Range<usize>,
        input: &[u8],
        residual: Option<&[u8]>,
        output: &mut [u8],
        scratch: &mut Scratch,
    ) {
        self.check(walk, &pixels, input);
        assert!(walk.output_end(padded(self.channels)) <= output.len(), "output too short");
        assert_eq!(residual.is_some(), self.epilogue.residual.is_some(), "a residual or none");
        let end = walk.output_end(padded(self.channels));
        assert!(residual.is_none_or(|other| other.len() >= end), "residual too short");
        match (self.kernel, &self.weights) {
            // SAFETY: for all calls below: `new` has checked that the processor has the
            // instructions and has packed the weights for them. The assertions above keep
            // every read and write of the walk within the slices.
            #[cfg(target_arch = "x86_64")]
            (Kernel::Avx512Vnni, Packed::Bytes(weights)) => unsafe {
                x86::vnni::matrix(self, weights, walk, pixels, input, residual, output);
            },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            (Kernel::Avx2, Packed::Words(weights)) => unsafe {
                x86::avx2::matrix(self, weights, walk, pixels, input, residual, output, scratch);
            },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            (Kernel::NeonDot, Packed::Bytes(weights)) => unsafe {
                neon::matrix_dot(self, weights, walk, pixels, input, residual, output);
            },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            (Kernel::Neon, Packed::Bytes(weights)) => unsafe {
                neon::matrix(self, weights, walk, pixels, input, residual, output);
            },
            _ => {
                let _ = scratch;
                scalar::matrix(self, walk, pixels, input, residual, output);
            }
        }
    }

    /// Like `run`, but without rounding: the output is `sum * positive` in floating point.
    /// A pixel of the output has one float per channel, without padding.
    ///
    /// # Panics
    ///
    /// If the walk is not of this layer or has fewer pixels, if input or output are too
    /// short for the walk, or if the layer has a residual.
    pub fn run_float(
        &self,
        walk: &Walk,
        pixels: Range<usize>,
        input: &[u8],
        output: &mut [f32],
        scratch: &mut Scratch,
    ) {
        self.check(walk, &pixels, input);
        let end = walk.output_end_of(&pixels, self.channels);
        assert!(end <= output.len(), "output too short");
        assert!(self.epilogue.residual.is_none(), "no residual");
        match (self.kernel, &self.weights) {
            // SAFETY: as in `run`.
            #[cfg(target_arch = "x86_64")]
            (Kernel::Avx512Vnni, Packed::Bytes(weights)) => unsafe {
                x86::vnni::matrix_float(self, weights, walk, pixels, input, output);
            },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            (Kernel::Avx2, Packed::Words(weights)) => unsafe {
                x86::avx2::matrix_float(self, weights, walk, pixels, input, output, scratch);
            },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            (Kernel::NeonDot, Packed::Bytes(weights)) => unsafe {
                neon::matrix_dot_float(self, weights, walk, pixels, input, output);
            },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            (Kernel::Neon, Packed::Bytes(weights)) => unsafe {
                neon::matrix_float(self, weights, walk, pixels, input, output);
            },
            _ => {
                let _ = scratch;
                scalar::matrix_float(self, walk, pixels, input, output);
            }
        }
    }

    fn check(&self, walk: &Walk, pixels: &Range<usize>, input: &[u8]) {
        assert!(pixels.end <= walk.len(), "no more pixels than the walk has");
        assert_eq!(walk.inputs(), self.inputs, "the walk belongs to another layer");
        assert_eq!(walk.run % 16, 0, "runs come in groups of 16");
        assert!(walk.input_end() <= input.len(), "input too short");
    }
}

/// A depthwise convolution: one filter per channel.
pub struct Filter {
    kernel: Kernel,
    taps: usize,
    /// Stored channels, a multiple of 16.
    channels: usize,
    weights: Packed,
    epilogue: Epilogue,
}

impl Filter {
    /// Arranges a layer for a kernel. Fails if the layer cannot be computed exactly.
    ///
    /// # Panics
    ///
    /// If the processor lacks the kernel's instructions, or the number of channels is not a
    /// multiple of 16.
    pub fn new(kernel: Kernel, layer: &Layer) -> Result<Self, LayerError> {
        assert!(kernel.is_available(), "{} is not for this processor", kernel.name());
        layer.check()?;
        let channels = layer.bias.len();
        assert_eq!(channels % CHANNELS, 0, "channels come in groups of 16");
        let taps = layer.weights.len() / channels.max(1);
        let weight = |channel: usize, tap: usize| {
            if channel < channels && tap < taps { layer.weights[channel * taps + tap] } else { 0 }
        };
        // Order of the weights: blocks of `lanes` channels; in a block, groups of `group`
        // taps; in a group, the channels in the order after interleaving, each with all
        // taps of the group.
        let groups = |lanes: usize, group: usize| {
            let (blocks, steps) = (channels.div_ceil(lanes), taps.div_ceil(group));
            (0..blocks * steps * lanes).flat_map(move |at| {
                let (block, rest) = (at / (steps * lanes), at % (steps * lanes));
                let channel = block * lanes + interleaved(lanes, rest % lanes);
                (0..group).map(move |i| (channel, rest / lanes * group + i))
            })
        };
        // In a 3x3 filter a group of four is a column of three taps and one zero.
        let column_first = |tap: usize| match tap {
            _ if taps != 9 => tap,
            _ if tap % 4 == 3 => taps,
            _ => tap % 4 * 3 + tap / 4,
        };
        let places = |lanes: usize| {
            (0..channels.next_multiple_of(lanes))
                .map(move |at| at / lanes * lanes + interleaved(lanes, at % lanes))
        };
        let (weights, epilogue) = match kernel {
            Kernel::Scalar => {
                (Packed::Bytes(layer.weights.clone()), Epilogue::new(kernel, layer, 0..channels))
            }
            Kernel::Avx512Vnni => (
                Packed::Bytes(groups(64, 4).map(|(c, t)| weight(c, column_first(t))).collect()),
                Epilogue::new(kernel, layer, places(64)),
            ),
            Kernel::Avx2 => (
                Packed::Words(groups(32, 2).map(|(c, t)| i16::from(weight(c, t))).collect()),
                Epilogue::new(kernel, layer, places(32)),
            ),
            Kernel::Neon | Kernel::NeonDot => {
                // Blocks of 16 channels, each with all taps padded to an even number.
                let even = taps.next_multiple_of(2);
                let weights = (0..channels / 16 * even * 16).map(|at| {
                    let (block, rest) = (at / (even * 16), at % (even * 16));
                    weight(block * 16 + rest % 16, rest / 16)
                });
                (Packed::Bytes(weights.collect()), Epilogue::new(kernel, layer, 0..channels))
            }
        };
        Ok(Self { kernel, taps, channels, weights, epilogue })
    }

    /// Computes the pixels `pixels` of the walk, whose runs are the taps.
    ///
    /// # Panics
    ///
    /// If the walk is not of this layer or has fewer pixels, or if input or output are too
    /// short for the walk.
    pub fn run(&self, walk: &Walk, pixels: Range<usize>, input: &[u8], output: &mut [u8]) {
        assert!(pixels.end <= walk.len(), "no more pixels than the walk has");
        assert_eq!((walk.runs.len(), walk.run), (self.taps, self.channels), "another layer's walk");
        assert!(walk.input_end() <= input.len(), "input too short");
        assert!(walk.output_end(self.channels) <= output.len(), "output too short");
        match (self.kernel, &self.weights) {
            // SAFETY: as in `Matrix::run`.
            #[cfg(target_arch = "x86_64")]
            (Kernel::Avx512Vnni, Packed::Bytes(weights)) => unsafe {
                x86::vnni::filter(self, weights, walk, pixels, input, output);
            },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            (Kernel::Avx2, Packed::Words(weights)) => unsafe {
                x86::avx2::filter(self, weights, walk, pixels, input, output);
            },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            (Kernel::Neon | Kernel::NeonDot, Packed::Bytes(weights)) => unsafe {
                neon::filter(self, weights, walk, pixels, input, output);
            },
            _ => scalar::filter(self, walk, pixels, input, output),
        }
    }
}

/// Channel at `place`, of `lanes` channels, after the bytes of neighbouring taps were
/// interleaved within groups of 16, as the unpack instructions of x86 do. Each quarter of a
/// group ends up in a different register.
fn interleaved(lanes: usize, place: usize) -> usize {
    let quarter = lanes / 4;
    place % quarter / 4 * 16 + place / quarter * 4 + place % 4
}
