//! One bench per layer shape of the 8-bit networks, with each kernel that this processor
//! supports. Weights and pixels are noise, on which the time does not depend.
//!
//! `cargo bench --bench layers`

use divan::Bencher;
use divan::counter::ItemsCount;
use facelatch::nn::kernels::{Filter, Kernel, Layer, Matrix, Scratch, Walk};

fn main() {
    divan::main();
}

/// `side x side` pixels with `inputs` input and `channels` output channels.
#[derive(Clone, Copy)]
struct Shape {
    side: usize,
    inputs: usize,
    channels: usize,
}

const fn shape(side: usize, inputs: usize, channels: usize) -> Shape {
    Shape { side, inputs, channels }
}

/// Matrix products: MobileFaceNet's 1x1 convolutions from large to small pictures, its
/// first layer (27 values, padded) and its last, fully connected layer.
const MATRICES: [Shape; 11] = [
    shape(56, 32, 64),
    shape(56, 64, 128),
    shape(28, 128, 64),
    shape(28, 64, 128),
    shape(28, 64, 256),
    shape(14, 256, 128),
    shape(14, 128, 256),
    shape(14, 128, 512),
    shape(7, 512, 128),
    shape(7, 128, 512),
    shape(1, 512, 128),
];

/// Depthwise 3x3 filters; `inputs` is the number of taps.
const FILTERS: [Shape; 4] =
    [shape(56, 9, 64), shape(28, 9, 128), shape(14, 9, 256), shape(7, 9, 512)];

fn cases(shapes: &[Shape]) -> impl Iterator<Item = (Kernel, Shape)> {
    let shapes = shapes.to_vec();
    let fast = |kernel: &Kernel| kernel.is_available() && *kernel != Kernel::Scalar;
    Kernel::ALL
        .into_iter()
        .filter(fast)
        .flat_map(move |kernel| shapes.clone().into_iter().map(move |shape| (kernel, shape)))
}

struct Case(Kernel, Shape);

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(kernel, Shape { side, inputs, channels }) = self;
        write!(f, "{}, {side}x{side}, {inputs} to {channels}", kernel.name())
    }
}

fn layer(shape: Shape) -> Layer {
    let Shape { inputs, channels, .. } = shape;
    Layer {
        weights: (0..inputs * channels)
            .map(|i| (i * 7919 % 255) as i32 as u8 as i8)
            .map(|w| w.max(-127))
            .collect(),
        bias: vec![100; channels],
        positive: vec![1e-3; channels],
        negative: vec![2e-4; channels],
        zero_point: -5,
        residual: None,
    }
}

#[divan::bench(args = cases(&MATRICES).map(|(kernel, shape)| Case(kernel, shape)))]
fn matrix(bencher: Bencher<'_, '_>, case: &Case) {
    let Case(kernel, shape) = *case;
    let matrix = Matrix::new(kernel, &layer(shape)).expect("a layer");
    let pixels = shape.side * shape.side;
    let mut walk = Walk::new(vec![0], shape.inputs);
    for pixel in 0..pixels {
        walk.push((pixel * shape.inputs) as u32, (pixel * shape.channels) as u32);
    }
    let input: Vec<u8> = (0..pixels * shape.inputs).map(|i| (i * 31 % 256) as u8).collect();
    let mut output = vec![0; pixels * shape.channels];
    let mut scratch = Scratch::default();
    bencher
        .counter(ItemsCount::new(pixels * shape.inputs * shape.channels))
        .bench_local(|| matrix.run(&walk, 0..pixels, &input, None, &mut output, &mut scratch));
}

#[divan::bench(args = cases(&FILTERS).map(|(kernel, shape)| Case(kernel, shape)))]
fn filter(bencher: Bencher<'_, '_>, case: &Case) {
    let Case(kernel, Shape { side, inputs: taps, channels }) = *case;
    let filter = Filter::new(kernel, &layer(case.1)).expect("a layer");
    let row = (side + 2) * channels;
    let runs = (0..taps).map(|tap| (tap / 3 * row + tap % 3 * channels) as u32).collect();
    let mut walk = Walk::new(runs, channels);
    for pixel in 0..side * side {
        let from = pixel / side * row + pixel % side * channels;
        walk.push(from as u32, (pixel * channels) as u32);
    }
    let input: Vec<u8> = (0..(side + 2) * row).map(|i| (i * 31 % 256) as u8).collect();
    let mut output = vec![0; side * side * channels];
    bencher
        .counter(ItemsCount::new(side * side * taps * channels))
        .bench_local(|| filter.run(&walk, 0..side * side, &input, &mut output));
}
