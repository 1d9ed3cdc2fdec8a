//! Small random networks with every feature of the real ones, for tests.

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

/// Layers with random weights.
struct Layers<N> {
    graph: GraphBuilder,
    next: N,
}

impl<N: FnMut() -> f32> Layers<N> {
    fn tensor(&mut self, shape: &[usize], size: f32) -> Tensor {
        let count = shape.iter().product();
        Tensor { shape: shape.to_vec(), values: (0..count).map(|_| (self.next)() * size).collect() }
    }

    /// A convolution, and slopes for a PReLU that may follow. The ranges of its channels
    /// are far apart, as in trained networks.
    fn conv(&mut self, name: &str, input: &str, shape: [usize; 4], how: Conv) -> (String, Tensor) {
        let inputs: usize = shape[1..].iter().product();
        let mut weight = self.tensor(&shape, 2.5 / (inputs as f32).sqrt());
        for (channel, row) in weight.values.chunks_mut(inputs).enumerate() {
            row.iter_mut().for_each(|weight| *weight *= 4.0f32.powi(channel as i32 % 3 - 1));
        }
        let bias = self.tensor(&shape[..1], 0.5);
        let at = self.graph.conv(name, input, &weight, Some(&bias), how);
        let mut slopes = self.tensor(&shape[..1], 2.0);
        slopes.values.iter_mut().for_each(|slope| *slope += 0.3);
        (at, slopes)
    }

    /// A convolution and a PReLU.
    fn conv_prelu(&mut self, name: &str, input: &str, shape: [usize; 4], how: Conv) -> String {
        let (at, slopes) = self.conv(name, input, shape, how);
        self.graph.prelu(&format!("{name}.prelu"), &at, &slopes, true)
    }
}

/// The network as ONNX: a convolution with the given padding, pooling, a bottleneck with
/// residual, a fully connected layer, and two heads, the first with softmax.
pub fn onnx(padding: usize) -> Vec<u8> {
    let sides = [Side::Free("N"), Side::Fixed(3), Side::Fixed(SIDE), Side::Fixed(SIDE)];
    let graph = GraphBuilder::new("toy", "picture", &sides);
    let mut layers = Layers { graph, next: noise(7) };
    let first = Conv { stride: 1, padding, groups: 1 };
    let at = layers.conv_prelu("first", "picture", [8, 3, 3, 3], first);
    let pooled = layers.graph.max_pool("pool", &at, 3, 2);
    let at = layers.conv_prelu("wide", &pooled, [16, 8, 1, 1], Conv::VALID);
    let filter = Conv { stride: 1, padding: 1, groups: 16 };
    let at = layers.conv_prelu("filter", &at, [16, 1, 3, 3], filter);
    let (at, _) = layers.conv("project", &at, [8, 16, 1, 1], Conv::VALID);
    let at = layers.graph.add("sum", &at, &pooled);
    let halves = Conv { stride: 2, padding: 0, groups: 1 };
    let at = layers.conv_prelu("last", &at, [6, 8, 2, 2], halves);
    let at = layers.graph.flatten("flatten", &at);
    let features = 6 * if padding == 0 { 3 * 3 } else { 4 * 4 };
    let (dense, bias) = (layers.tensor(&[10, features], 0.2), layers.tensor(&[10], 0.1));
    let at = layers.graph.gemm("dense", &at, &dense, &bias);
    let slopes = layers.tensor(&[10], 1.0);
    let at = layers.graph.prelu("dense.prelu", &at, &slopes, false);
    let (weight, bias) = (layers.tensor(&[2, 10], 1.0), layers.tensor(&[2], 0.1));
    let face = layers.graph.gemm("face.logits", &at, &weight, &bias);
    let face = layers.graph.softmax("face", &face);
    let (weight, bias) = (layers.tensor(&[4, 10], 0.5), layers.tensor(&[4], 0.1));
    let offsets = layers.graph.gemm("box", &at, &weight, &bias);
    layers.graph.output(&face, &[Side::Free("N"), Side::Fixed(2)]);
    layers.graph.output(&offsets, &[Side::Free("N"), Side::Fixed(4)]);
    layers.graph.finish()
}

/// Bytes of each channel that are zero for the first layer of [`gated`].
pub const GATED_ZEROS: [f32; 3] = [50.0, 56.0, 76.0];
/// Length of the output of [`gated`].
pub const GATED_OUTPUT: usize = 6;

/// A network like Intel's re-identification network, as ONNX, for bytes: a factor and a
/// term per channel, a padded convolution, two bottlenecks with squeeze and excitation, the
/// second with a residual, and two convolutions down to one pixel. The squeezing layers of
/// the first bottleneck end in a PReLU, those of the second in a ReLU.
pub fn gated() -> Vec<u8> {
    let sides = [Side::Free("N"), Side::Fixed(3), Side::Fixed(SIDE), Side::Fixed(SIDE)];
    let graph = GraphBuilder::new("gated", "picture", &sides);
    let mut layers = Layers { graph, next: noise(11) };
    let factors = [0.02, 0.0125, 0.025];
    let terms = [0, 1, 2].map(|channel| -GATED_ZEROS[channel] * factors[channel]);
    let [factors, terms] =
        [factors, terms].map(|values| Tensor { shape: vec![1, 3, 1, 1], values: values.to_vec() });
    let at = layers.graph.multiply_constant("scale", "picture", &factors);
    let at = layers.graph.add_constant("shift", &at, &terms);
    let first = Conv { stride: 2, padding: 1, groups: 1 };
    let mut at = layers.conv_prelu("first", &at, [8, 3, 3, 3], first);
    for block in ["one", "two"] {
        let part = |part: &str| format!("{block}.{part}");
        let input = at;
        at = layers.conv_prelu(&part("expand"), &input, [16, 8, 1, 1], Conv::VALID);
        let filter = Conv { stride: 1, padding: 1, groups: 16 };
        at = layers.conv_prelu(&part("filter"), &at, [16, 1, 3, 3], filter);
        at = layers.conv(&part("project"), &at, [8, 16, 1, 1], Conv::VALID).0;
        let mean = layers.graph.mean_pool(&part("mean"), &at);
        let gate = if block == "one" {
            layers.conv_prelu(&part("squeeze"), &mean, [4, 8, 1, 1], Conv::VALID)
        } else {
            let gate = layers.conv(&part("squeeze"), &mean, [4, 8, 1, 1], Conv::VALID).0;
            layers.graph.relu(&part("squeeze.relu"), &gate)
        };
        let gate = layers.conv(&part("excite"), &gate, [8, 4, 1, 1], Conv::VALID).0;
        let gate = layers.graph.sigmoid(&part("gate"), &gate);
        at = layers.graph.multiply(&part("scaled"), &at, &gate);
        if block == "two" {
            at = layers.graph.add(&part("sum"), &input, &at);
        }
    }
    let whole = Conv { stride: 1, padding: 0, groups: 8 };
    at = layers.conv("whole", &at, [8, 1, 9, 9], whole).0;
    at = layers.conv("projection", &at, [GATED_OUTPUT, 8, 1, 1], Conv::VALID).0;
    at = layers.graph.flatten("embedding", &at);
    layers.graph.output(&at, &[Side::Free("N"), Side::Fixed(GATED_OUTPUT)]);
    layers.graph.finish()
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
    device_of(file, &[2, 4], pictures, from)
}

/// The same for a network with outputs of these lengths.
pub fn device_of(
    file: &[u8],
    outputs: &[usize],
    pictures: &tch::Tensor,
    from: &Normalization,
) -> Vec<Vec<f32>> {
    let side = nn::Dim::Fixed(SIDE);
    let signature = Signature {
        input: [nn::Dim::Free('N'), nn::Dim::Fixed(3), side, side],
        outputs: outputs.to_vec(),
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
