//! A small random network with every feature of the real ones, for tests.

use crate::networks::onnx::{Conv, GraphBuilder, Side};
use crate::weights::Tensor;
use facelatch::nn::Normalization;
use facelatch::nn::{self, Batch, Network, Signature};
use tch::Kind;

/// Side of its picture, pixels.
pub const SIDE: usize = 17;

/// Random numbers in -0.5..0.5.
pub fn noise(seed: u32) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    }
}

/// The network as ONNX: a convolution with the given padding, pooling, a bottleneck with
/// residual, a fully connected layer, and two heads, the first with softmax.
pub fn onnx(padding: usize) -> Vec<u8> {
    let mut next = noise(7);
    let mut tensor = |shape: &[usize], size: f32| {
        let count = shape.iter().product();
        Tensor { shape: shape.to_vec(), values: (0..count).map(|_| next() * size).collect() }
    };
    let sides = [Side::Free("N"), Side::Fixed(3), Side::Fixed(SIDE), Side::Fixed(SIDE)];
    let mut graph = GraphBuilder::new("toy", "picture", &sides);
    let mut conv = |graph: &mut GraphBuilder, name: &str, input: &str, shape: [usize; 4], how| {
        let inputs: usize = shape[1..].iter().product();
        let mut weight = tensor(&shape, 2.5 / (inputs as f32).sqrt());
        // The ranges of channels are far apart, as in trained networks.
        for (channel, row) in weight.values.chunks_mut(inputs).enumerate() {
            row.iter_mut().for_each(|weight| *weight *= 4.0f32.powi(channel as i32 % 3 - 1));
        }
        let bias = tensor(&shape[..1], 0.5);
        let at = graph.conv(name, input, &weight, Some(&bias), how);
        let mut slopes = tensor(&shape[..1], 2.0);
        slopes.values.iter_mut().for_each(|slope| *slope += 0.3);
        (at, slopes)
    };
    let first = Conv { stride: 1, padding, groups: 1 };
    let (at, slopes) = conv(&mut graph, "first", "picture", [8, 3, 3, 3], first);
    let at = graph.prelu("first.prelu", &at, &slopes, true);
    let pooled = graph.max_pool("pool", &at, 3, 2);
    let (at, slopes) = conv(&mut graph, "wide", &pooled, [16, 8, 1, 1], Conv::VALID);
    let at = graph.prelu("wide.prelu", &at, &slopes, true);
    let filter = Conv { stride: 1, padding: 1, groups: 16 };
    let (at, slopes) = conv(&mut graph, "filter", &at, [16, 1, 3, 3], filter);
    let at = graph.prelu("filter.prelu", &at, &slopes, true);
    let (at, _) = conv(&mut graph, "project", &at, [8, 16, 1, 1], Conv::VALID);
    let at = graph.add("sum", &at, &pooled);
    let halves = Conv { stride: 2, padding: 0, groups: 1 };
    let (at, slopes) = conv(&mut graph, "last", &at, [6, 8, 2, 2], halves);
    let at = graph.prelu("last.prelu", &at, &slopes, true);
    let at = graph.flatten("flatten", &at);
    let features = 6 * if padding == 0 { 3 * 3 } else { 4 * 4 };
    let dense = tensor(&[10, features], 0.2);
    let at = graph.gemm("dense", &at, &dense, &tensor(&[10], 0.1));
    let at = graph.prelu("dense.prelu", &at, &tensor(&[10], 1.0), false);
    let face = graph.gemm("face.logits", &at, &tensor(&[2, 10], 1.0), &tensor(&[2], 0.1));
    let face = graph.softmax("face", &face);
    let offsets = graph.gemm("box", &at, &tensor(&[4, 10], 0.5), &tensor(&[4], 0.1));
    graph.output(&face, &[Side::Free("N"), Side::Fixed(2)]);
    graph.output(&offsets, &[Side::Free("N"), Side::Fixed(4)]);
    graph.finish()
}

/// Random byte pictures `N x 3 x SIDE x SIDE`.
pub fn pictures(count: usize, seed: u32) -> tch::Tensor {
    let mut next = noise(seed);
    let bytes: Vec<u8> =
        (0..count * 3 * SIDE * SIDE).map(|_| ((next() + 0.5) * 255.9) as u8).collect();
    let shape = [count, 3, SIDE, SIDE].map(|side| side as i64);
    tch::Tensor::from_data_size(&bytes, &shape, Kind::Uint8)
}

/// Outputs of the device's own code for byte pictures.
pub fn device(file: &[u8], pictures: &tch::Tensor, from: &Normalization) -> Vec<Vec<f32>> {
    let side = nn::Dim::Fixed(SIDE);
    let signature = Signature {
        input: [nn::Dim::Free('N'), nn::Dim::Fixed(3), side, side],
        outputs: vec![2, 4],
    };
    let mut network = Network::load("toy.onnx", file, &signature, from, None).expect("a network");
    let values = super::affine::floats(&pictures.to_kind(Kind::Float)).expect("bytes");
    let mut fed = Batch::default();
    for picture in values.chunks(3 * SIDE * SIDE) {
        for (at, value) in fed.add(SIDE, SIDE).iter_mut().enumerate() {
            let (pixel, channel) = (at / Batch::PIXEL, at % Batch::PIXEL);
            let byte = picture.get(channel * SIDE * SIDE + pixel).filter(|_| channel < 3);
            *value = byte.map_or(0, |byte| *byte as i16 * Batch::STEPS);
        }
    }
    let outputs = network.run(&fed).expect("outputs");
    outputs.iter().map(|output| output.places().flatten().copied().collect()).collect()
}

/// Largest difference between two lists of outputs, as a share of the largest value.
pub fn difference(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    assert_eq!(
        a.iter().map(Vec::len).collect::<Vec<_>>(),
        b.iter().map(Vec::len).collect::<Vec<_>>()
    );
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    let largest = a.iter().flatten().fold(0.0f32, |largest, value| largest.max(value.abs()));
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}

/// All outputs of a simulation.
pub fn torch(network: &super::simulate::Simulation, pictures: &tch::Tensor) -> Vec<Vec<f32>> {
    let outputs = tch::no_grad(|| network.forward(pictures, |_, _| ()));
    outputs.iter().map(|output| super::affine::floats(output).expect("floats")).collect()
}
