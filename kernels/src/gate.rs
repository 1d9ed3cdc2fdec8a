//! Squeeze and excitation (Hu, Shen and Sun, "Squeeze-and-Excitation Networks", 2018): the
//! mean of each channel of a picture, the sigmoid of a layer, and a factor per channel for
//! the whole picture. The layers between mean and sigmoid are matrix products.
//!
//! ```text
//! mean    = round_half_even(f32(Σ (q - zero_point)) * scale) + its zero point
//! factor  = f32(gate - gate_zero_point) * scale                    per channel
//! value   = f32(q - zero_point) * factor + f32(other - other_zero_point) * other_scale
//! output  = clamp(round_half_even(value) + its zero point, -128, 127)
//! ```
//!
//! Scales are in steps of the output.

use super::{CHANNELS, Epilogue, Kernel, LayerError, Residual, Scratch, interleaved};

/// Maximum number of pixels of a picture with a mean: its sums stay far from overflow.
pub const MAX_PIXELS: usize = 1 << 22;

/// Number of bytes that 16 bits can add up, of either sign: `256 * 255 < 65_536`.
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    allow(dead_code, reason = "the scalar kernel adds in 32 bits")
)]
pub(super) const PARTIAL: usize = 256;

/// Maximum absolute value before rounding. Conversions to 32 bits stay exact.
const MAX_VALUE: f64 = (1 << 30) as f64;

/// Quantization of an activation: a byte `q` represents `scale * (q - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantization {
    /// Size of a step.
    pub scale: f32,
    /// The byte that represents zero.
    pub zero_point: i8,
}

/// A picture in memory: rows of neighbouring pixels.
#[derive(Clone, Copy)]
pub struct Pixels<'a> {
    /// The memory. It may hold other pixels, too.
    pub bytes: &'a [u8],
    /// Offset of the first pixel, in bytes.
    pub first: usize,
    /// Distance from one row to the next, in bytes.
    pub pitch: usize,
}

/// As [`Pixels`], to be written.
pub struct PixelsMut<'a> {
    /// The memory. It may hold other pixels, too; these are left as they are.
    pub bytes: &'a mut [u8],
    /// Offset of the first pixel, in bytes.
    pub first: usize,
    /// Distance from one row to the next, in bytes.
    pub pitch: usize,
}

/// Number of rows and of columns of a picture.
pub type Sides = (usize, usize);

/// Panics if a picture with pixels of `stored` bytes does not lie within `length` bytes.
fn check((rows, columns): Sides, stored: usize, (first, pitch): (usize, usize), length: usize) {
    if rows == 0 || columns == 0 {
        return;
    }
    let end = (rows - 1)
        .checked_mul(pitch)
        .zip(columns.checked_mul(stored))
        .and_then(|(rows, row)| rows.checked_add(row)?.checked_add(first));
    assert!(end.is_some_and(|end| end <= length), "memory too short");
}

/// Rounds halves to even; `value` is at most 2^22. The sum has no bits below one.
fn whole(value: f32) -> i32 {
    const SHIFT: f32 = 12_582_912.0;
    (value + SHIFT - SHIFT) as i32
}

/// Mean of each channel of a picture.
pub struct ChannelMean {
    kernel: Kernel,
    /// Stored channels.
    channels: usize,
    from: Quantization,
    to: Quantization,
}

impl ChannelMean {
    /// A mean of `channels` stored channels.
    ///
    /// # Panics
    ///
    /// If the processor lacks the kernel's instructions, or the number of channels is not a
    /// multiple of 16.
    pub fn new(kernel: Kernel, channels: usize, from: Quantization, to: Quantization) -> Self {
        assert!(kernel.is_available(), "{} is not for this processor", kernel.name());
        assert_eq!(channels % CHANNELS, 0, "channels come in groups of 16");
        Self { kernel, channels, from, to }
    }

    /// Computes one byte per stored channel. Without pixels these are the zero point.
    ///
    /// # Panics
    ///
    /// If the picture has more than [`MAX_PIXELS`] pixels or does not lie within its memory,
    /// or if `output` has another length than the stored channels.
    pub fn run(&self, sides: Sides, input: Pixels<'_>, output: &mut [u8], scratch: &mut Scratch) {
        let count = sides.0.saturating_mul(sides.1);
        assert!(count <= MAX_PIXELS, "too many pixels");
        assert_eq!(output.len(), self.channels, "one byte per channel");
        let sums = &mut scratch.sums;
        sums.clear();
        sums.resize(self.channels, 0);
        self.add(sides, input, sums);
        let zero = count as i32 * (i32::from(self.from.zero_point) + self.kernel.offset());
        let scale = f64::from(self.from.scale) / f64::from(self.to.scale) / count.max(1) as f64;
        let scale = scale as f32;
        let zero_point = i32::from(self.to.zero_point);
        let (low, high) = ((-128 - zero_point) as f32, (127 - zero_point) as f32);
        let offset = zero_point + self.kernel.offset();
        for (out, sum) in output.iter_mut().zip(&*sums) {
            let value = (sum - zero) as f32 * scale;
            *out = (whole(value.clamp(low, high)) + offset) as u8;
        }
    }

    /// Adds the bytes in memory of each channel to `sums`.
    fn add(&self, sides: Sides, input: Pixels<'_>, sums: &mut [i32]) {
        check(sides, self.channels, (input.first, input.pitch), input.bytes.len());
        match self.kernel {
            // SAFETY: for all calls below: `new` has checked that the processor has the
            // instructions, and the line above that the picture lies within its memory.
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512Vnni => unsafe { super::x86::vnni::channel_sums(sides, input, sums) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => unsafe { super::x86::avx2::channel_sums(sides, input, sums) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Kernel::Neon | Kernel::NeonDot => unsafe {
                super::neon::gate::channel_sums(sides, input, sums);
            },
            _ => scalar_sums(sides, input, sums),
        }
    }
}

fn scalar_sums((rows, columns): Sides, input: Pixels<'_>, sums: &mut [i32]) {
    if sums.is_empty() {
        return;
    }
    for row in 0..rows {
        let from = input.first + row * input.pitch;
        for pixel in input.bytes[from..from + columns * sums.len()].chunks_exact(sums.len()) {
            for (sum, byte) in sums.iter_mut().zip(pixel) {
                *sum += i32::from(byte.cast_signed());
            }
        }
    }
}

/// `1 / (1 + exp(-value))`, in double precision, so that every machine rounds alike.
pub struct Sigmoid {
    kernel: Kernel,
    to: Quantization,
}

impl Sigmoid {
    /// A sigmoid whose bytes are stored for the kernel.
    pub fn new(kernel: Kernel, to: Quantization) -> Self {
        Self { kernel, to }
    }

    /// Computes one byte per value. Bytes without a value become the zero point.
    pub fn run(&self, values: &[f32], output: &mut [u8]) {
        const SHIFT: f64 = 6_755_399_441_055_744.0;
        let Quantization { scale, zero_point } = self.to;
        let (steps, zero_point) = (1.0 / f64::from(scale), i32::from(zero_point));
        let (low, high) = (f64::from(-128 - zero_point), f64::from(127 - zero_point));
        output.fill(self.kernel.stored(self.to.zero_point));
        for (out, value) in output.iter_mut().zip(values) {
            let value = steps / (1.0 + (-f64::from(*value)).exp());
            // Halves to even, as in `whole`.
            let q = (value.clamp(low, high) + SHIFT - SHIFT) as i32 + zero_point;
            *out = (q + self.kernel.offset()) as u8;
        }
    }
}

/// What a [`Gate`] multiplies and adds, and how its output is rounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GateLayer {
    /// Stored channels.
    pub channels: usize,
    /// Quantization of the picture.
    pub input: Quantization,
    /// Quantization of the factors.
    pub gate: Quantization,
    /// Quantization of the output.
    pub output: Quantization,
    /// Quantization of another picture, which is added.
    pub residual: Option<Quantization>,
}

/// Multiplies each channel of a picture by a factor, and adds another picture if there is
/// one.
pub struct Gate {
    kernel: Kernel,
    /// Stored channels.
    channels: usize,
    /// Zero points of picture and factors including [`Kernel::offset`], and the scale of
    /// their product.
    input_zero_point: i32,
    gate_zero_point: i32,
    scale: f32,
    /// Zero point, limits and residual; the rest is empty.
    epilogue: Epilogue,
    /// Channel of each factor in the order in which the kernel reads them; `channels` or
    /// more for padding.
    order: Vec<usize>,
}

/// What a kernel reads and writes.
pub(super) struct Gated<'a> {
    pub sides: Sides,
    pub channels: usize,
    pub input_zero_point: i32,
    pub epilogue: &'a Epilogue,
    pub factors: &'a [f32],
    pub input: Pixels<'a>,
    pub residual: Option<Pixels<'a>>,
    pub output: PixelsMut<'a>,
}

impl Gate {
    /// Prepares a gate for a kernel. Fails if values can leave the range in which all
    /// kernels round alike.
    ///
    /// # Panics
    ///
    /// If the processor lacks the kernel's instructions, or the number of channels is not a
    /// multiple of 16.
    pub fn new(kernel: Kernel, layer: &GateLayer) -> Result<Self, LayerError> {
        assert!(kernel.is_available(), "{} is not for this processor", kernel.name());
        assert_eq!(layer.channels % CHANNELS, 0, "channels come in groups of 16");
        let step = f64::from(layer.output.scale);
        let scale = f64::from(layer.gate.scale) * f64::from(layer.input.scale) / step;
        let residual = layer.residual.map(|other| {
            let scale = f64::from(other.scale) / step;
            Residual { scale: scale as f32, zero_point: other.zero_point }
        });
        let other = residual.map_or(0.0, |other| f64::from(other.scale));
        let largest = scale.abs() * 255.0 * 255.0 + other.abs() * 255.0;
        if largest.is_nan() || largest > MAX_VALUE {
            return Err(LayerError::Gate);
        }
        let lanes = match kernel {
            Kernel::Avx512Vnni => 64,
            Kernel::Avx2 => 32,
            Kernel::Scalar | Kernel::Neon | Kernel::NeonDot => 16,
        };
        let place = |at: usize| match lanes {
            16 => at,
            _ => at / lanes * lanes + interleaved(lanes, at % lanes),
        };
        Ok(Self {
            kernel,
            channels: layer.channels,
            input_zero_point: i32::from(layer.input.zero_point) + kernel.offset(),
            gate_zero_point: i32::from(layer.gate.zero_point) + kernel.offset(),
            scale: scale as f32,
            epilogue: Epilogue::rounding(kernel, layer.output.zero_point, residual),
            order: (0..layer.channels.next_multiple_of(lanes)).map(place).collect(),
        })
    }

    /// Computes a picture from the factors of the stored channels.
    ///
    /// # Panics
    ///
    /// If a picture does not lie within its memory, if `factors` has another length than the
    /// stored channels, or if a residual is missing or unexpected.
    pub fn run(
        &self,
        sides: Sides,
        factors: &[u8],
        input: Pixels<'_>,
        residual: Option<Pixels<'_>>,
        output: PixelsMut<'_>,
        scratch: &mut Scratch,
    ) {
        assert_eq!(factors.len(), self.channels, "one factor per channel");
        assert_eq!(residual.is_some(), self.epilogue.residual.is_some(), "a residual or none");
        for picture in [Some(input), residual].into_iter().flatten() {
            let place = (picture.first, picture.pitch);
            check(sides, self.channels, place, picture.bytes.len());
        }
        check(sides, self.channels, (output.first, output.pitch), output.bytes.len());
        let signed = self.kernel.offset() == 0;
        scratch.floats.clear();
        scratch.floats.extend(self.order.iter().map(|channel| {
            let Some(byte) = factors.get(*channel) else { return 0.0 };
            let q = if signed { i32::from(byte.cast_signed()) } else { i32::from(*byte) };
            (q - self.gate_zero_point) as f32 * self.scale
        }));
        let gated = Gated {
            sides,
            channels: self.channels,
            input_zero_point: self.input_zero_point,
            epilogue: &self.epilogue,
            factors: &scratch.floats,
            input,
            residual,
            output,
        };
        match self.kernel {
            // SAFETY: for all calls below: `new` has checked that the processor has the
            // instructions, and the lines above that all pictures lie within their memories.
            // The factors are in the order of the kernel, padded to whole registers.
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512Vnni => unsafe { super::x86::vnni::gate(gated) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => unsafe { super::x86::avx2::gate(gated) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Kernel::Neon | Kernel::NeonDot => unsafe { super::neon::gate::gate(gated) },
            _ => scalar_gate(gated),
        }
    }
}

fn scalar_gate(gated: Gated<'_>) {
    let Gated { sides: (rows, columns), channels, input, residual, output, epilogue, .. } = gated;
    for row in 0..rows {
        for column in 0..columns {
            let place = |first: usize, pitch: usize| {
                let from = first + row * pitch + column * channels;
                from..from + channels
            };
            let other = residual.map(|other| &other.bytes[place(other.first, other.pitch)]);
            let input = &input.bytes[place(input.first, input.pitch)];
            let output = &mut output.bytes[place(output.first, output.pitch)];
            for (channel, (out, byte)) in output.iter_mut().zip(input).enumerate() {
                let q = i32::from(byte.cast_signed()) - gated.input_zero_point;
                let value = q as f32 * gated.factors[channel];
                *out = super::scalar::rounded(epilogue, value, other.map(|other| other[channel]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Noise, others, stored};
    use proptest::prelude::*;

    /// Random pictures of one size in memories of their own.
    struct Case {
        sides: Sides,
        channels: usize,
        firsts: [usize; 3],
        pitches: [usize; 3],
        memories: [Vec<i8>; 3],
        factors: Vec<i8>,
    }

    impl Case {
        fn new(noise: &mut Noise, sides: Sides, groups: usize) -> Self {
            let channels = CHANNELS * groups;
            let mut some = |most: u64| (noise.next() % most) as usize;
            let firsts = [some(40), some(40), some(40)];
            let pitches = [0; 3].map(|_| sides.1 * channels + some(40));
            let lengths = [0, 1, 2].map(|at| firsts[at] + sides.0 * pitches[at]);
            let memories = lengths.map(|length| noise.bytes(length));
            Self { sides, channels, firsts, pitches, memories, factors: noise.bytes(channels) }
        }

        fn pixels<'a>(&self, at: usize, bytes: &'a [u8]) -> Pixels<'a> {
            Pixels { bytes, first: self.firsts[at], pitch: self.pitches[at] }
        }

        /// The whole memory of the output, as signed numbers.
        fn gated(&self, kernel: Kernel, layer: &GateLayer) -> Vec<u8> {
            let memories = [0, 1, 2].map(|at| stored(kernel, &self.memories[at]));
            let [input, other, mut output] = memories;
            let gate = Gate::new(kernel, layer).expect("scales in range");
            let other = layer.residual.map(|_| self.pixels(1, &other));
            let out =
                PixelsMut { bytes: &mut output, first: self.firsts[2], pitch: self.pitches[2] };
            let factors = stored(kernel, &self.factors);
            let scratch = &mut Scratch::default();
            gate.run(self.sides, &factors, self.pixels(0, &input), other, out, scratch);
            output.iter().map(|byte| byte.wrapping_sub(kernel.offset() as u8)).collect()
        }

        fn means(&self, kernel: Kernel, from: Quantization, to: Quantization) -> Vec<u8> {
            let input = stored(kernel, &self.memories[0]);
            let mut out = vec![1; self.channels];
            let mean = ChannelMean::new(kernel, self.channels, from, to);
            mean.run(self.sides, self.pixels(0, &input), &mut out, &mut Scratch::default());
            out.iter().map(|byte| byte.wrapping_sub(kernel.offset() as u8)).collect()
        }

        /// Bytes of a picture, pixel by pixel.
        fn bytes(&self, at: usize) -> impl Iterator<Item = i8> {
            let width = self.sides.1 * self.channels;
            (0..self.sides.0 * width).map(move |i| {
                self.memories[at][self.firsts[at] + i / width * self.pitches[at] + i % width]
            })
        }
    }

    fn quantization(noise: &mut Noise, from: f32, to: f32) -> Quantization {
        let share = (noise.next() % 1000) as f32 / 1000.0;
        Quantization { scale: from * (to / from).powf(share), zero_point: noise.byte() }
    }

    fn layer(noise: &mut Noise, channels: usize, residual: bool) -> GateLayer {
        let mut one = |from, to| quantization(noise, from, to);
        GateLayer {
            channels,
            input: one(0.01, 0.1),
            gate: one(0.002, 0.01),
            output: one(0.001, 0.1),
            residual: residual.then(|| one(0.01, 0.1)),
        }
    }

    proptest! {
        #[test]
        fn gates_are_the_scalar_ones(
            seed in 1u64.., rows in 0usize..5, columns in 0usize..7, groups in 1usize..12,
            residual: bool,
        ) {
            let noise = &mut Noise(seed);
            let case = Case::new(noise, (rows, columns), groups);
            let layer = layer(noise, case.channels, residual);
            let expected = case.gated(Kernel::Scalar, &layer);
            for kernel in others() {
                prop_assert_eq!(&case.gated(kernel, &layer), &expected, "{}", kernel.name());
            }
        }

        #[test]
        fn the_scalar_gate_is_the_definition(
            seed in 1u64.., rows in 1usize..4, columns in 1usize..4, residual: bool,
        ) {
            let noise = &mut Noise(seed);
            let case = Case::new(noise, (rows, columns), 1);
            let layer = layer(noise, case.channels, residual);
            let got = case.gated(Kernel::Scalar, &layer);
            let number = |of: Quantization, byte: i8| {
                f64::from(of.scale) * f64::from(i32::from(byte) - i32::from(of.zero_point))
            };
            let width = columns * case.channels;
            let mut written = vec![false; got.len()];
            for (i, (q, other)) in case.bytes(0).zip(case.bytes(1)).enumerate() {
                let at = case.firsts[2] + i / width * case.pitches[2] + i % width;
                written[at] = true;
                let factor = case.factors[i % case.channels];
                let step = f64::from(layer.output.scale);
                let value = number(layer.input, q) * number(layer.gate, factor) / step;
                let other = layer.residual.map_or(0.0, |of| number(of, other) / step);
                let steps = value + other + f64::from(layer.output.zero_point);
                let expected = steps.clamp(-128.0, 127.0);
                let got = f64::from(got[at].cast_signed());
                // Single precision keeps 24 bits of each term.
                let most = 0.5 + 1e-6 * (1.0 + value.abs() + other.abs());
                prop_assert!((got - expected).abs() <= most, "{} {}", got, expected);
            }
            for (at, written) in written.iter().enumerate() {
                prop_assert!(*written || got[at] == case.memories[2][at].cast_unsigned());
            }
        }

        #[test]
        fn means_are_the_scalar_ones_and_the_definition(
            seed in 1u64.., rows in 0usize..30, columns in 0usize..30, groups in 1usize..8,
            extreme in prop::option::of(any::<bool>()),
        ) {
            let noise = &mut Noise(seed);
            let mut case = Case::new(noise, (rows, columns), groups);
            if let Some(high) = extreme {
                case.memories[0].fill(if high { i8::MAX } else { i8::MIN });
            }
            let from = quantization(noise, 0.01, 0.1);
            let to = quantization(noise, 0.001, 0.1);
            let got = case.means(Kernel::Scalar, from, to);
            let mut sums = vec![0i32; case.channels];
            for (i, q) in case.bytes(0).enumerate() {
                sums[i % case.channels] += i32::from(q) - i32::from(from.zero_point);
            }
            let count = (rows * columns).max(1) as f64;
            for (got, sum) in got.iter().zip(sums) {
                let value = f64::from(sum) / count * f64::from(from.scale) / f64::from(to.scale);
                let expected = (value + f64::from(to.zero_point)).clamp(-128.0, 127.0);
                let got = f64::from(got.cast_signed());
                prop_assert!((got - expected).abs() <= 0.501, "{} {}", got, expected);
            }
            for kernel in others() {
                prop_assert_eq!(&case.means(kernel, from, to), &got, "{}", kernel.name());
            }
        }

        #[test]
        fn halves_are_rounded_to_even(half in -1000i32..1000, value in -1000.0f32..1000.0) {
            let middle = half as f32 + 0.5;
            prop_assert_eq!(whole(middle), middle.round_ties_even() as i32);
            prop_assert_eq!(whole(value), value.round_ties_even() as i32);
        }

        #[test]
        fn sigmoids_are_the_definition(
            values in prop::collection::vec(-200.0f32..200.0, 0..20), zero_point: i8,
            scale in 0.001f32..0.1, kernel in prop::sample::select(Kernel::ALL.to_vec()),
        ) {
            let to = Quantization { scale, zero_point };
            let mut out = vec![1; 20];
            Sigmoid::new(kernel, to).run(&values, &mut out);
            let numbers = out.iter().map(|b| b.wrapping_sub(kernel.offset() as u8).cast_signed());
            for (at, got) in numbers.enumerate() {
                let share = values.get(at).map(|value| 1.0 / (1.0 + (-f64::from(*value)).exp()));
                let steps = share.unwrap_or(0.0) / f64::from(scale) + f64::from(zero_point);
                let expected = steps.clamp(-128.0, 127.0);
                prop_assert!((f64::from(got) - expected).abs() <= 0.501, "{} {}", got, expected);
            }
        }
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let one = Quantization { scale: 1.0, zero_point: 0 };
        let layer = GateLayer { channels: 16, input: one, gate: one, output: one, residual: None };
        assert!(Gate::new(Kernel::Scalar, &layer).is_ok());
        let tiny = Quantization { scale: 1e-6, ..one };
        for output in [tiny, Quantization { scale: 0.0, ..one }] {
            let layer = GateLayer { output, ..layer };
            assert_eq!(Gate::new(Kernel::Scalar, &layer).err(), Some(LayerError::Gate));
        }
        let infinite = Some(Quantization { scale: f32::INFINITY, ..one });
        let layer = GateLayer { residual: infinite, ..layer };
        assert_eq!(Gate::new(Kernel::Scalar, &layer).err(), Some(LayerError::Gate));
    }
}
