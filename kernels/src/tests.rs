//! Compares every kernel that this processor can run with the scalar one, bit for bit.

use super::*;
use proptest::prelude::*;

/// Reproducible random numbers: Marsaglia's xorshift64, "Xorshift RNGs", 2003. The seed
/// identifies a failing case.
pub(crate) struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    pub fn byte(&mut self) -> i8 {
        // Extremes are frequent, because sums saturate there.
        match self.next() % 8 {
            0 => i8::MIN,
            1 => i8::MAX,
            _ => self.next() as i8,
        }
    }

    fn layer(&mut self, channels: usize, inputs: usize, residual: bool) -> Layer {
        let extreme = self.next().is_multiple_of(3);
        let mut scale = |large: f32| {
            let share = (self.next() % 1000) as f32 / 1000.0 - 0.3;
            share * large / (inputs as f32).sqrt()
        };
        let large = if extreme { 1e6 } else { 0.01 };
        let positive = (0..channels).map(|_| scale(large)).collect();
        let negative = (0..channels).map(|_| scale(large)).collect();
        let other = scale(4.0);
        Layer {
            weights: (0..channels * inputs).map(|_| self.byte().max(-127)).collect(),
            bias: (0..channels).map(|_| self.next() as i32 % (1 << 20)).collect(),
            positive,
            negative,
            zero_point: self.byte(),
            residual: residual.then(|| Residual { scale: other, zero_point: self.byte() }),
        }
    }

    pub fn bytes(&mut self, count: usize) -> Vec<i8> {
        (0..count).map(|_| self.byte()).collect()
    }
}

pub(crate) fn stored(kernel: Kernel, bytes: &[i8]) -> Vec<u8> {
    bytes.iter().map(|byte| kernel.stored(*byte)).collect()
}

pub(crate) fn others() -> impl Iterator<Item = Kernel> {
    Kernel::ALL.into_iter().filter(|kernel| *kernel != Kernel::Scalar && kernel.is_available())
}

/// Activations of each pixel without padding channels and without [`Kernel::offset`].
fn numbers(kernel: Kernel, walk: &Walk, channels: usize, output: &[u8]) -> Vec<i32> {
    let pixel = |&to: &u32| output[to as usize..to as usize + channels].iter();
    walk.outputs
        .iter()
        .flat_map(pixel)
        .map(|b| i32::from(b.wrapping_sub(kernel.offset() as u8).cast_signed()))
        .collect()
}

fn walk(noise: &mut Noise, pixels: usize, runs: usize, run: usize, out: usize) -> (Walk, usize) {
    let length = 4 * runs * run + 64;
    let offsets = (0..runs).map(|_| (noise.next() as usize % (3 * runs * run)) as u32).collect();
    let mut walk = Walk::new(offsets, run);
    for pixel in 0..pixels {
        walk.push((noise.next() % 64) as u32, (pixel * out) as u32);
    }
    (walk, length)
}

proptest! {
    #[test]
    fn matrices_are_the_scalar_ones(
        seed in 1u64.., channels in 1usize..140, runs in 1usize..4, groups in 1usize..5,
        pixels in 0usize..20, residual: bool,
    ) {
        let noise = &mut Noise(seed);
        let run = 16 * groups;
        let layer = noise.layer(channels, runs * run, residual);
        let (walk, length) = walk(noise, pixels, runs, run, padded(channels) + 16);
        let input = noise.bytes(length);
        let size = pixels * (padded(channels) + 16);
        let other = residual.then(|| noise.bytes(size));
        let run = |kernel: Kernel| {
            let matrix = Matrix::new(kernel, &layer).expect("a layer");
            let (mut bytes, mut floats) = (vec![0; size], vec![0.0; size]);
            let input = stored(kernel, &input);
            let other = other.as_ref().map(|other| stored(kernel, other));
            let scratch = &mut Scratch::default();
            matrix.run(&walk, 0..pixels, &input, other.as_deref(), &mut bytes, scratch);
            if !residual {
                matrix.run_float(&walk, 0..pixels, &input, &mut floats, scratch);
            }
            let floats: Vec<u32> = floats.iter().map(|value| value.to_bits()).collect();
            (numbers(kernel, &walk, channels, &bytes), floats)
        };
        let expected = run(Kernel::Scalar);
        for kernel in others() {
            prop_assert_eq!(&run(kernel), &expected, "{}", kernel.name());
        }
    }

    #[test]
    fn filters_are_the_scalar_ones(
        seed in 1u64.., groups in 1usize..10, taps in 1usize..50, pixels in 0usize..6,
    ) {
        let noise = &mut Noise(seed);
        let channels = 16 * groups;
        let layer = noise.layer(channels, taps, false);
        let (walk, length) = walk(noise, pixels, taps, channels, channels);
        let input = noise.bytes(length);
        let run = |kernel: Kernel| {
            let mut bytes = vec![0; pixels * channels];
            let filter = Filter::new(kernel, &layer).expect("a layer");
            filter.run(&walk, 0..pixels, &stored(kernel, &input), &mut bytes);
            numbers(kernel, &walk, channels, &bytes)
        };
        let expected = run(Kernel::Scalar);
        for kernel in others() {
            prop_assert_eq!(&run(kernel), &expected, "{}", kernel.name());
        }
    }

    /// Walks along rows, as networks do: kernels may reuse what neighbouring pixels share.
    #[test]
    fn filters_along_rows_are_the_scalar_ones(
        seed in 1u64.., groups in 1usize..10, side in 1usize..6, stride in 1usize..4,
        rows in 1usize..4, columns in 1usize..7, first in 0usize..4,
    ) {
        let noise = &mut Noise(seed);
        let channels = 16 * groups;
        let layer = noise.layer(channels, side * side, false);
        let pitch = (columns - 1) * stride + side + 1;
        let runs = (0..side * side).map(|tap| (tap / side * pitch + tap % side) * channels);
        let mut walk = Walk::new(runs.map(|run| run as u32).collect(), channels);
        for pixel in 0..rows * columns {
            let from = (pixel / columns * stride * pitch + pixel % columns * stride) * channels;
            walk.push(from as u32, (pixel * channels) as u32);
        }
        let input = noise.bytes(((rows - 1) * stride + side) * pitch * channels);
        let pixels = first.min(walk.len())..walk.len();
        let run = |kernel: Kernel| {
            let mut bytes = vec![0; walk.len() * channels];
            let filter = Filter::new(kernel, &layer).expect("a layer");
            filter.run(&walk, pixels.clone(), &stored(kernel, &input), &mut bytes);
            bytes[pixels.start * channels..]
                .iter()
                .map(|byte| byte.wrapping_sub(kernel.offset() as u8))
                .collect::<Vec<u8>>()
        };
        let expected = run(Kernel::Scalar);
        for kernel in others() {
            prop_assert_eq!(&run(kernel), &expected, "{}", kernel.name());
        }
    }

    /// Compares the scalar kernel with the definition, in double precision.
    #[test]
    fn the_scalar_kernel_is_the_definition(
        weights in prop::collection::vec(-127i8..=127, 16), input in prop::collection::vec(any::<i8>(), 16),
        bias in -100_000i32..100_000, positive in 1e-4f32..1.0, negative in -1.0f32..1.0,
        zero_point: i8, other: i8, other_zero_point: i8, scale in 0.1f32..2.0,
    ) {
        let layer = Layer {
            weights: weights.clone(), bias: vec![bias], positive: vec![positive],
            negative: vec![negative], zero_point,
            residual: Some(Residual { scale, zero_point: other_zero_point }),
        };
        let matrix = Matrix::new(Kernel::Scalar, &layer).expect("a layer");
        let mut walk = Walk::new(vec![0], 16);
        walk.push(0, 0);
        let mut output = [0u8; 16];
        let other_bytes = [other.cast_unsigned(); 16];
        let bytes: Vec<u8> = input.iter().map(|q| q.cast_unsigned()).collect();
        matrix.run(&walk, 0..1, &bytes, Some(&other_bytes), &mut output, &mut Scratch::default());
        let sum: i64 = i64::from(bias)
            + weights.iter().zip(&input).map(|(w, q)| i64::from(*w) * i64::from(*q)).sum::<i64>();
        let factor = if sum < 0 { negative } else { positive };
        let value = sum as f64 * f64::from(factor)
            + f64::from(i32::from(other) - i32::from(other_zero_point)) * f64::from(scale);
        let expected = (value + f64::from(zero_point)).clamp(-128.0, 127.0);
        let got = f64::from(output[0].cast_signed());
        prop_assert!((got - expected).abs() <= 0.5 + 1e-3 * (1.0 + value.abs() / 1e4), "{got} {expected}");
    }
}

#[test]
fn what_cannot_be_exact_is_refused() {
    let fine = Layer {
        weights: vec![127; 16],
        bias: vec![0],
        positive: vec![1.0],
        negative: vec![1.0],
        zero_point: 0,
        residual: None,
    };
    let check = |change: &dyn Fn(&mut Layer)| {
        let mut layer = fine.clone();
        change(&mut layer);
        Matrix::new(Kernel::Scalar, &layer).err()
    };
    assert_eq!(check(&|_| {}), None);
    assert_eq!(check(&|layer| layer.bias[0] = i32::MIN), Some(LayerError::Overflow(0)));
    assert_eq!(check(&|layer| layer.negative[0] = f32::NAN), Some(LayerError::Scale(0)));
    assert_eq!(check(&|layer| layer.weights[3] = i8::MIN), Some(LayerError::Weight(0)));
}

#[test]
fn kernels_are_forced_by_name() {
    assert_eq!(Kernel::named("scalar"), Ok(Kernel::Scalar));
    assert!(matches!(Kernel::named("mmx"), Err(KernelError::Unknown { .. })));
    for kernel in Kernel::ALL {
        let named = Kernel::named(kernel.name());
        assert_eq!(named.is_ok(), kernel.is_available());
        assert!(kernel.is_available() || named.expect_err("missing").to_string().contains("use "));
    }
}
