//! Arithmetic on 8-bit integers: matrix products over the pixels of a picture
//! and filters of single channels, each with its requantization.
//!
//! The only place with unsafe code. Every kernel computes what [`scalar`]
//! does, bit for bit; tests hold each against it.
//!
//! # Numbers
//!
//! An activation is a byte `q` in -128..=127 that stands for
//! `scale * (q - zero_point)`, a weight a byte in -127..=127 with a scale for
//! each output channel and no zero point. A layer adds up
//! `sum = bias + Σ weight * q` exactly, in 32 bits; the bias has the input's zero
//! point in it. Then
//!
//! ```text
//! value = f32(sum) * (sum < 0 ? negative : positive)     PReLU and scales in one
//! value = value + f32(other - other_zero_point) * other_scale    a residual
//! q     = clamp(round_half_even(value) + zero_point, -128, 127)
//! ```
//!
//! # Memory
//!
//! Activations lie row-major with their channels together, the number of
//! channels rounded up to a multiple of [`CHANNELS`]. Kernels for processors
//! that multiply unsigned by signed bytes hold `q + 128` in memory, see
//! [`Kernel::offset`].

// The one exception from the workspace's lint; each block says why it is sound.
#![allow(unsafe_code)]

#[cfg(target_arch = "aarch64")]
mod neon;
mod pool;
mod rows;
mod scalar;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use pool::{MaxPool, Row};
pub use rows::{ONE, SLACK, STEPS, Taps, weighted_pixels, weighted_rows};
use std::ops::Range;
use std::sync::OnceLock;
use thiserror::Error;

/// Stored channels come in groups of this many.
pub const CHANNELS: usize = 16;

/// Environment variable that forces a kernel, for tests and comparisons.
pub const KERNEL_VARIABLE: &str = "FACELATCH_KERNEL";

/// The largest sum that a layer may reach: far from overflow, whatever the
/// kernel adds on the way (`128 * Σ weight` at most doubles it).
const MAX_SUM: i64 = 1 << 29;

/// A set of instructions that layers are computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Plain Rust, on every machine; what all others are held against.
    Scalar,
    /// x86-64 with AVX2: products of 16-bit pairs.
    Avx2,
    /// x86-64 with AVX-512 and its dot products of bytes.
    Avx512Vnni,
    /// aarch64 of any kind: Cortex-A53, A57, A72.
    Neon,
    /// aarch64 with dot products of bytes: Cortex-A76 and later.
    NeonDot,
}

/// Why a forced kernel cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KernelError {
    /// No kernel of that name.
    #[error("{KERNEL_VARIABLE}: there is no kernel {name}; use one of {known} or unset it")]
    Unknown {
        /// As given.
        name: String,
        /// All names.
        known: String,
    },
    /// The processor lacks its instructions.
    #[error(
        "{KERNEL_VARIABLE}: this processor cannot run the kernel {name}; use {best} or unset it"
    )]
    Missing {
        /// As given.
        name: String,
        /// The best there is.
        best: &'static str,
    },
}

impl Kernel {
    /// All of them, on whatever machine.
    pub const ALL: [Self; 5] =
        [Self::Scalar, Self::Avx2, Self::Avx512Vnni, Self::Neon, Self::NeonDot];

    /// As the environment variable and `facelatch bench` call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Neon => "neon",
            Self::NeonDot => "neon-dot",
        }
    }

    /// Whether this processor has its instructions.
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => std::is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                std::is_x86_feature_detected!("avx512f")
                    && std::is_x86_feature_detected!("avx512bw")
                    && std::is_x86_feature_detected!("avx512vl")
                    && std::is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => {
                std::arch::is_aarch64_feature_detected!("neon")
                    && std::arch::is_aarch64_feature_detected!("dotprod")
            }
            #[allow(unreachable_patterns, reason = "which are left depends on the machine")]
            _ => false,
        }
    }

    /// The fastest that this processor has.
    pub fn best() -> Self {
        static BEST: OnceLock<Kernel> = OnceLock::new();
        *BEST.get_or_init(|| {
            let by_speed = [Self::Avx512Vnni, Self::Avx2, Self::NeonDot, Self::Neon];
            by_speed.into_iter().find(|kernel| kernel.is_available()).unwrap_or(Self::Scalar)
        })
    }

    /// The one that the environment forces, or the fastest.
    pub fn chosen() -> Result<Self, KernelError> {
        std::env::var(KERNEL_VARIABLE).map_or(Ok(Self::best()), |name| Self::named(&name))
    }

    fn named(name: &str) -> Result<Self, KernelError> {
        let Some(kernel) = Self::ALL.into_iter().find(|kernel| kernel.name() == name) else {
            let known = Self::ALL.map(Self::name).join(", ");
            return Err(KernelError::Unknown { name: name.to_owned(), known });
        };
        if kernel.is_available() {
            Ok(kernel)
        } else {
            Err(KernelError::Missing { name: name.to_owned(), best: Self::best().name() })
        }
    }

    /// What a byte in memory has more than the number it stands for, 0 or 128.
    pub fn offset(self) -> i32 {
        match self {
            Self::Avx2 | Self::Avx512Vnni => 128,
            Self::Scalar | Self::Neon | Self::NeonDot => 0,
        }
    }

    /// The byte in memory for an activation.
    pub fn stored(self, q: i8) -> u8 {
        (i32::from(q) + self.offset()) as u8
    }
}

/// Weights and what follows the sum, before they are arranged for a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Matrix: `channels x inputs`, the inputs in the order in which they are
    /// walked. Filter: `channels x taps`. In -127..=127.
    pub weights: Vec<i8>,
    /// One an output channel, with the input's zero point in it:
    /// `bias - zero_point * Σ weight`.
    pub bias: Vec<i32>,
    /// From a sum of at least zero to a value in steps of the output.
    pub positive: Vec<f32>,
    /// From a sum below zero.
    pub negative: Vec<f32>,
    /// Of the output; without meaning where it is floating point.
    pub zero_point: i8,
    /// What is added to the value, if anything.
    pub residual: Option<Residual>,
}

/// How another activation is added before the output is rounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Residual {
    /// Its scale, in steps of the output.
    pub scale: f32,
    /// Its zero point.
    pub zero_point: i8,
}

/// Why a layer cannot be computed in whole numbers.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LayerError {
    /// Its sum could overflow.
    #[error("the sum of output channel {0} can grow beyond 32 bits")]
    Overflow(usize),
    /// A scale is NaN or infinite.
    #[error("the scale of output channel {0} is not finite")]
    Scale(usize),
    /// -128 among the weights, which not all kernels can multiply.
    #[error("a weight of output channel {0} is -128, they must be in -127..=127")]
    Weight(usize),
}

/// Where the pixels of a layer's input begin, where those of its output go, and
/// what of the input each of them sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Each pixel sees these runs of bytes, from its beginning on.
    runs: Vec<u32>,
    run: usize,
    inputs: Vec<u32>,
    outputs: Vec<u32>,
    last_run: usize,
    last_input: usize,
    last_output: usize,
}

impl Walk {
    /// A walk without pixels, each of which will see `run` bytes at each of `runs`.
    pub fn new(runs: Vec<u32>, run: usize) -> Self {
        let last_run = runs.iter().copied().max().unwrap_or(0) as usize;
        Self { runs, run, last_run, ..Self::default() }
    }

    /// Forgets the pixels and what they see; keeps the memory.
    pub fn reset(&mut self, run: usize, runs: impl Iterator<Item = u32>) {
        self.runs.clear();
        self.runs.extend(runs);
        self.last_run = self.runs.iter().copied().max().unwrap_or(0) as usize;
        self.run = run;
        self.inputs.clear();
        self.outputs.clear();
        (self.last_input, self.last_output) = (0, 0);
    }

    /// One more pixel: offsets in bytes, or in numbers where the output is
    /// floating point.
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

    /// Whether there is no pixel.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// Bytes a pixel sees.
    pub fn inputs(&self) -> usize {
        self.runs.len() * self.run
    }

    /// Bytes that the input must have.
    fn input_end(&self) -> usize {
        if self.is_empty() { 0 } else { self.last_input + self.last_run + self.run }
    }

    /// Elements that the output must have if a pixel has `channels`.
    fn output_end(&self, channels: usize) -> usize {
        if self.is_empty() { 0 } else { self.last_output + channels }
    }
}

/// What follows the sum, arranged for a kernel: one value a stored channel.
struct Epilogue {
    bias: Vec<i32>,
    positive: Vec<f32>,
    negative: Vec<f32>,
    /// In memory's numbers.
    zero_point: i32,
    /// The least and the largest value before the zero point is added.
    low: f32,
    high: f32,
    /// Scale, and zero point in memory's numbers.
    residual: Option<(f32, i32)>,
}

impl Epilogue {
    /// `order` names the channel at each place, `channels` and beyond for none.
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
        let zero_point = i32::from(layer.zero_point) + kernel.offset();
        let least = kernel.offset() - 128;
        Self {
            bias: order
                .clone()
                .map(|channel| if channel < channels { bias(channel) } else { 0 })
                .collect(),
            positive: floats(&layer.positive),
            negative: floats(&layer.negative),
            zero_point,
            low: (least - zero_point) as f32,
            high: (least + 255 - zero_point) as f32,
            residual: layer
                .residual
                .map(|other| (other.scale, i32::from(other.zero_point) + kernel.offset())),
        }
    }
}

impl Layer {
    /// Refuses what cannot be computed exactly.
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
    /// Widened, for kernels that multiply 16-bit numbers.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "AVX2 alone reads them"))]
    Words(Vec<i16>),
}

/// A matrix product over the channels of pixels: convolutions that mix channels
/// and fully connected layers.
pub struct Matrix {
    kernel: Kernel,
    /// Inputs of a pixel, a multiple of 16.
    inputs: usize,
    /// Real output channels.
    channels: usize,
    weights: Packed,
    epilogue: Epilogue,
}

/// Memory that a layer needs while it runs.
#[derive(Default)]
pub struct Scratch {
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "AVX2 alone needs it"))]
    words: Vec<i16>,
}

fn padded(channels: usize) -> usize {
    channels.next_multiple_of(CHANNELS)
}

impl Matrix {
    /// Arranges a layer for a kernel; its inputs must be a multiple of 16.
    ///
    /// # Panics
    ///
    /// Where the processor lacks the kernel's instructions.
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
        // Blocks of `block` channels; within them steps of `step` inputs, each with
        // all channels of the block.
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

    /// Real output channels.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Computes some pixels of the walk. A pixel of the output has as many
    /// bytes as there are channels, rounded up to a multiple of 16. The residual
    /// lies like the output.
    ///
    /// # Panics
    ///
    /// Where input, residual or output are shorter than the walk.
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
            // SAFETY, for all of them: `new` has made sure of the processor; the assertions
            // above keep every read and write of the walk within the slices.
            #[cfg(target_arch = "x86_64")]
            (Kernel::Avx512Vnni, Packed::Bytes(weights)) => unsafe {
                x86::vnni::matrix(self, weights, walk, pixels, input, residual, output);
            },
            #[cfg(target_arch = "x86_64")]
            (Kernel::Avx2, Packed::Words(weights)) => unsafe {
                x86::avx2::matrix(self, weights, walk, pixels, input, residual, output, scratch);
            },
            #[cfg(target_arch = "aarch64")]
            (Kernel::NeonDot, Packed::Bytes(weights)) => unsafe {
                neon::matrix_dot(self, weights, walk, pixels, input, residual, output);
            },
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

    /// Like `run`, without rounding: `sum * positive` as floating point, a pixel of
    /// the output having exactly its channels.
    ///
    /// # Panics
    ///
    /// Where input or output are shorter than the walk, or a residual is wanted.
    pub fn run_float(
        &self,
        walk: &Walk,
        pixels: Range<usize>,
        input: &[u8],
        output: &mut [f32],
        scratch: &mut Scratch,
    ) {
        self.check(walk, &pixels, input);
        assert!(walk.output_end(self.channels) <= output.len(), "output too short");
        assert!(self.epilogue.residual.is_none(), "no residual");
        match (self.kernel, &self.weights) {
            // SAFETY: as in `run`.
            #[cfg(target_arch = "x86_64")]
            (Kernel::Avx512Vnni, Packed::Bytes(weights)) => unsafe {
                x86::vnni::matrix_float(self, weights, walk, pixels, input, output);
            },
            #[cfg(target_arch = "x86_64")]
            (Kernel::Avx2, Packed::Words(weights)) => unsafe {
                x86::avx2::matrix_float(self, weights, walk, pixels, input, output, scratch);
            },
            #[cfg(target_arch = "aarch64")]
            (Kernel::NeonDot, Packed::Bytes(weights)) => unsafe {
                neon::matrix_dot_float(self, weights, walk, pixels, input, output);
            },
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

/// A filter of each channel by itself: depthwise convolutions.
pub struct Filter {
    kernel: Kernel,
    taps: usize,
    /// Stored channels, a multiple of 16.
    channels: usize,
    weights: Packed,
    epilogue: Epilogue,
}

impl Filter {
    /// Arranges a layer for a kernel; its channels must be a multiple of 16.
    ///
    /// # Panics
    ///
    /// Where the processor lacks the kernel's instructions.
    pub fn new(kernel: Kernel, layer: &Layer) -> Result<Self, LayerError> {
        assert!(kernel.is_available(), "{} is not for this processor", kernel.name());
        layer.check()?;
        let channels = layer.bias.len();
        assert_eq!(channels % CHANNELS, 0, "channels come in groups of 16");
        let taps = layer.weights.len() / channels.max(1);
        let weight = |channel: usize, tap: usize| {
            if channel < channels && tap < taps { layer.weights[channel * taps + tap] } else { 0 }
        };
        // Groups of `group` taps, within them the places of `lanes` channels in the
        // order that interleaving leaves them in, each with all taps of the group.
        let groups = |lanes: usize, group: usize| {
            let (blocks, steps) = (channels.div_ceil(lanes), taps.div_ceil(group));
            (0..blocks * steps * lanes).flat_map(move |at| {
                let (block, rest) = (at / (steps * lanes), at % (steps * lanes));
                let channel = block * lanes + interleaved(lanes, rest % lanes);
                (0..group).map(move |i| (channel, rest / lanes * group + i))
            })
        };
        // Of a 3x3 filter, groups of four are a column of three, and nothing.
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
                // For each 16 channels all taps, an even number of them.
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

    /// Computes some pixels of the walk, whose runs are the taps.
    ///
    /// # Panics
    ///
    /// Where input or output are shorter than the walk.
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
            #[cfg(target_arch = "x86_64")]
            (Kernel::Avx2, Packed::Words(weights)) => unsafe {
                x86::avx2::filter(self, weights, walk, pixels, input, output);
            },
            #[cfg(target_arch = "aarch64")]
            (Kernel::Neon | Kernel::NeonDot, Packed::Bytes(weights)) => unsafe {
                neon::filter(self, weights, walk, pixels, input, output);
            },
            _ => scalar::filter(self, walk, pixels, input, output),
        }
    }
}

/// Which of `lanes` channels lies at a place after bytes of neighbouring taps have
/// been interleaved within groups of 16, as x86 does: each quarter of a group
/// comes to lie in a register of its own.
fn interleaved(lanes: usize, place: usize) -> usize {
    let quarter = lanes / 4;
    place % quarter / 4 * 16 + place / quarter * 4 + place % 4
}
