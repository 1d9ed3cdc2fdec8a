//! Converts MTCNN's weights from the `mtcnn` wheel to ONNX.
//!
//! The wheel's networks take transposed pictures with the channels last: a kernel is
//! `[x, y, in, out]`, and the features before the fully connected layers are in the order
//! x, y, channel. Boxes and landmarks come out in the upright order.

use crate::networks::onnx::{Conv, GraphBuilder, Side};
use crate::weights::{self, Tensor, Tensors, WeightsError, npy};
use std::io::{Cursor, Read};
use zip::ZipArchive;
use zip::read::read_zipfile_from_stream;

/// Path of the weights within the wheel.
const IN_WHEEL: &str = "mtcnn/data/mtcnn_weights.npy";
/// Size limit of the unpacked file, bytes. The real one has 3 MB.
const MAX_FILE: u64 = 64 << 20;

/// The three networks as ONNX files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mtcnn {
    /// P-Net, the proposal network, input `1 x 3 x H x W`.
    pub pnet: Vec<u8>,
    /// R-Net, the refinement network, input `N x 3 x 24 x 24`.
    pub rnet: Vec<u8>,
    /// O-Net, the output network, input `N x 3 x 48 x 48`.
    pub onet: Vec<u8>,
}

/// A convolution stage: name, kernel side, input and output channels, and the side of the
/// max pooling after it.
struct Stage {
    name: &'static str,
    side: usize,
    from: usize,
    to: usize,
    pool: Option<usize>,
}

const fn stage(
    name: &'static str,
    side: usize,
    from: usize,
    to: usize,
    pool: Option<usize>,
) -> Stage {
    Stage { name, side, from, to, pool }
}

/// A network: its input side (`None` for any), its convolutions, the fully connected
/// layer (name, grid side and width), and its heads (name and size).
struct Net {
    name: &'static str,
    input: Option<usize>,
    stages: &'static [Stage],
    dense: Option<(&'static str, usize, usize)>,
    heads: &'static [(&'static str, usize)],
}

const PNET: Net = Net {
    name: "pnet",
    input: None,
    stages: &[
        stage("conv1", 3, 3, 10, Some(2)),
        stage("conv2", 3, 10, 16, None),
        stage("conv3", 3, 16, 32, None),
    ],
    dense: None,
    heads: &[("face", 2), ("box", 4)],
};

const RNET: Net = Net {
    name: "rnet",
    input: Some(24),
    stages: &[
        stage("conv1", 3, 3, 28, Some(3)),
        stage("conv2", 3, 28, 48, Some(3)),
        stage("conv3", 2, 48, 64, None),
    ],
    dense: Some(("dense", 3, 128)),
    heads: &[("face", 2), ("box", 4)],
};

const ONET: Net = Net {
    name: "onet",
    input: Some(48),
    stages: &[
        stage("conv1", 3, 3, 32, Some(3)),
        stage("conv2", 3, 32, 64, Some(3)),
        stage("conv3", 3, 64, 64, Some(2)),
        stage("conv4", 2, 64, 128, None),
    ],
    dense: Some(("dense", 3, 256)),
    heads: &[("face", 2), ("box", 4), ("landmarks", 10)],
};

/// Reads the wheel `mtcnn` 0.1.1, or the `mtcnn_weights.npy` inside it. Fails if an array
/// is missing, extra, misshapen or cut short.
pub fn import(bytes: &[u8]) -> Result<Mtcnn, WeightsError> {
    let mut lists = if bytes.starts_with(b"PK\x03\x04") {
        from_wheel(bytes)?
    } else {
        npy::read_lists(bytes).map_err(named)?
    };
    let mut build = |net: &Net| {
        let list = lists.remove(net.name).ok_or_else(|| WeightsError::Mismatch {
            architecture: "MTCNN".to_owned(),
            faults: vec![format!("{} is missing", net.name)],
        })?;
        net.export(list)
    };
    Ok(Mtcnn { pnet: build(&PNET)?, rnet: build(&RNET)?, onet: build(&ONET)? })
}

/// Adds the tensor's own name to an error that names a position in a list.
fn named(error: WeightsError) -> WeightsError {
    let WeightsError::Missing { name } = &error else { return error };
    let known = [&PNET, &RNET, &ONET].into_iter().find_map(|net| {
        let index = name.strip_prefix(net.name)?.strip_prefix('[')?.strip_suffix(']')?;
        net.expected().into_iter().nth(index.parse().ok()?)
    });
    match known {
        Some((tensor, _)) => WeightsError::Missing { name: format!("{tensor} ({name})") },
        None => error,
    }
}

fn from_wheel(bytes: &[u8]) -> Result<npy::Lists, WeightsError> {
    let broken = |reason: String| WeightsError::format("the wheel mtcnn 0.1.1", reason);
    let mut archive = match ZipArchive::new(Cursor::new(bytes)) {
        Ok(archive) => archive,
        // A zip file has its list of entries at the end. If a wheel is cut short, the
        // beginning of the entry still shows which tensor is the first one missing.
        Err(error) => {
            if let Some(content) = beginning(bytes) {
                npy::read_lists(&content).map_err(named)?;
            }
            return Err(broken(format!("the archive is damaged or cut short: {error}")));
        }
    };
    let file = archive.by_name(IN_WHEEL).map_err(|error| broken(format!("{IN_WHEEL}: {error}")))?;
    let mut content = Vec::new();
    file.take(MAX_FILE)
        .read_to_end(&mut content)
        .map_err(|error| broken(format!("{IN_WHEEL}: {error}")))?;
    npy::read_lists(&content).map_err(named)
}

/// The weights as far as they are present in a wheel without its list of entries.
fn beginning(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut rest = bytes;
    loop {
        let file = read_zipfile_from_stream(&mut rest).ok().flatten()?;
        if file.name().is_ok_and(|name| name == IN_WHEEL) {
            let mut content = Vec::new();
            // Keeps what was read before an error.
            let _ = file.take(MAX_FILE).read_to_end(&mut content);
            return Some(content);
        }
    }
}

impl Net {
    /// Names and shapes of the wheel's tensors, in list order.
    fn expected(&self) -> Vec<(String, Vec<usize>)> {
        let mut expected = Vec::new();
        let mut add = |layer: &str, what: &str, shape: &[usize]| {
            expected.push((format!("{}.{layer}.{what}", self.name), shape.to_vec()));
        };
        let mut features = 0;
        for Stage { name, side, from, to, .. } in self.stages {
            add(name, "weight", &[*side, *side, *from, *to]);
            add(name, "bias", &[*to]);
            add(name, "slope", &[1, 1, *to]);
            features = *to;
        }
        if let Some((name, grid, width)) = self.dense {
            add(name, "weight", &[grid * grid * features, width]);
            add(name, "bias", &[width]);
            add(name, "slope", &[width]);
            features = width;
        }
        for (name, size) in self.heads {
            // Heads of a network without a dense layer are 1x1 convolutions.
            let weight: &[usize] =
                if self.dense.is_some() { &[features, *size] } else { &[1, 1, features, *size] };
            add(name, "weight", weight);
            add(name, "bias", &[*size]);
        }
        expected
    }

    fn export(&self, list: Vec<Tensor>) -> Result<Vec<u8>, WeightsError> {
        let expected = self.expected();
        let extra = (expected.len()..list.len()).map(|index| format!("{}[{index}]", self.name));
        let names = expected.iter().map(|(name, _)| name.clone()).chain(extra);
        let tensors: Tensors = names.zip(list).collect();
        weights::check("MTCNN", &tensors, &expected)?;
        let get = |layer: &str, what: &str| &tensors[&format!("{}.{layer}.{what}", self.name)];

        let shape = match self.input {
            Some(side) => [Side::Free("N"), Side::Fixed(3), Side::Fixed(side), Side::Fixed(side)],
            None => [Side::Fixed(1), Side::Fixed(3), Side::Free("H"), Side::Free("W")],
        };
        let mut graph = GraphBuilder::new(self.name, "picture", &shape);
        let mut at = "picture".to_owned();
        let mut features = 0;
        for Stage { name, to, pool, .. } in self.stages {
            // [x, y, in, out] to [out, in, y, x].
            let kernel = get(name, "weight").permuted(&[3, 2, 1, 0]);
            at = graph.conv(name, &at, &kernel, Some(get(name, "bias")), Conv::VALID);
            at = graph.prelu(&format!("{name}.prelu"), &at, get(name, "slope"), true);
            if let Some(side) = pool {
                at = graph.max_pool(&format!("{name}.pool"), &at, *side, 2);
            }
            features = *to;
        }
        if let Some((name, grid, width)) = self.dense {
            at = graph.flatten("flatten", &at);
            // Features in the order x, y, channel to channel, y, x.
            let kernel = get(name, "weight")
                .clone()
                .reshaped(&[grid, grid, features, width])
                .permuted(&[3, 2, 1, 0])
                .reshaped(&[width, features * grid * grid]);
            at = graph.gemm(name, &at, &kernel, get(name, "bias"));
            at = graph.prelu(&format!("{name}.prelu"), &at, get(name, "slope"), false);
        }
        for (name, size) in self.heads {
            let (weight, bias) = (get(name, "weight"), get(name, "bias"));
            let logits = if *name == "face" { "face.logits" } else { name };
            let out = if self.dense.is_some() {
                graph.gemm(logits, &at, &weight.permuted(&[1, 0]), bias)
            } else {
                graph.conv(logits, &at, &weight.permuted(&[3, 2, 1, 0]), Some(bias), Conv::VALID)
            };
            let out = if *name == "face" { graph.softmax(name, &out) } else { out };
            match self.input {
                Some(_) => graph.output(&out, &[Side::Free("N"), Side::Fixed(*size)]),
                None => graph.output(
                    &out,
                    &[
                        Side::Fixed(1),
                        Side::Fixed(*size),
                        Side::Free("rows"),
                        Side::Free("columns"),
                    ],
                ),
            }
        }
        Ok(graph.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch::nn::Normalization;
    use facelatch::nn::{Batch, Dim, Network, Signature};

    /// A picture as the wheel's networks see it: `[x][y][channel]`.
    #[derive(Clone)]
    struct Transposed {
        width: usize,
        height: usize,
        channels: usize,
        values: Vec<f32>,
    }

    impl Transposed {
        fn new(width: usize, height: usize, channels: usize) -> Self {
            Self { width, height, channels, values: vec![0.0; width * height * channels] }
        }

        fn at(&mut self, x: usize, y: usize, channel: usize) -> &mut f32 {
            &mut self.values[(x * self.height + y) * self.channels + channel]
        }

        /// Kernel `[x, y, in, out]`, no padding.
        fn convolved(&self, kernel: &Tensor, bias: &Tensor) -> Self {
            let [kw, kh, from, to] = kernel.shape[..] else { panic!("{:?}", kernel.shape) };
            let mut out = Self::new(self.width - kw + 1, self.height - kh + 1, to);
            let mut input = self.clone();
            for x in 0..out.width {
                for y in 0..out.height {
                    for o in 0..to {
                        let mut sum = bias.values[o];
                        for i in 0..kw {
                            for j in 0..kh {
                                for c in 0..from {
                                    let weight = kernel.values[((i * kh + j) * from + c) * to + o];
                                    sum += *input.at(x + i, y + j, c) * weight;
                                }
                            }
                        }
                        *out.at(x, y, o) = sum;
                    }
                }
            }
            out
        }

        fn sloped(mut self, slopes: &Tensor) -> Self {
            for (at, value) in self.values.iter_mut().enumerate() {
                if *value < 0.0 {
                    *value *= slopes.values[at % slopes.values.len()];
                }
            }
            self
        }

        /// The largest of each window, stride 2; windows at the far edges are cut.
        fn pooled(&self, side: usize) -> Self {
            let size = |length: usize| (length - side).div_ceil(2) + 1;
            let mut out = Self::new(size(self.width), size(self.height), self.channels);
            let mut input = self.clone();
            for x in 0..out.width {
                for y in 0..out.height {
                    for c in 0..self.channels {
                        let mut largest = f32::MIN;
                        for i in 2 * x..(2 * x + side).min(self.width) {
                            for j in 2 * y..(2 * y + side).min(self.height) {
                                largest = largest.max(*input.at(i, j, c));
                            }
                        }
                        *out.at(x, y, c) = largest;
                    }
                }
            }
            out
        }

        /// All values times `[in, out]`.
        fn dense(&self, weight: &Tensor, bias: &Tensor) -> Self {
            let to = bias.values.len();
            let mut out = Self::new(1, 1, to);
            for o in 0..to {
                let products = self
                    .values
                    .iter()
                    .enumerate()
                    .map(|(i, value)| value * weight.values[i * to + o]);
                out.values[o] = bias.values[o] + products.sum::<f32>();
            }
            out
        }
    }

    fn noise(net: &Net) -> Vec<Tensor> {
        let mut state = 99u32;
        let mut next = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        net.expected()
            .into_iter()
            .map(|(_, shape)| {
                let count: usize = shape.iter().product();
                let inputs = (count / shape.last().copied().unwrap_or(1)).max(1) as f32;
                let values = (0..count).map(|_| next() * 3.0 / inputs.sqrt()).collect();
                Tensor { shape, values }
            })
            .collect()
    }

    /// The outputs of the heads, computed as the wheel defines them.
    fn defined(net: &Net, list: &[Tensor], picture: &Transposed) -> Vec<Transposed> {
        let mut tensors = list.iter();
        let mut next = || tensors.next().expect("as many tensors as expected");
        let mut at = picture.clone();
        for stage in net.stages {
            at = at.convolved(next(), next()).sloped(next());
            if let Some(side) = stage.pool {
                at = at.pooled(side);
            }
        }
        if net.dense.is_some() {
            at = at.dense(next(), next()).sloped(next());
        }
        net.heads
            .iter()
            .map(|(name, _)| {
                let (weight, bias) = (next(), next());
                let mut out = match net.dense {
                    Some(_) => at.dense(weight, bias),
                    None => at.convolved(weight, bias),
                };
                if *name == "face" {
                    for pair in out.values.chunks_exact_mut(2) {
                        let sum = pair[0].exp() + pair[1].exp();
                        pair.iter_mut().for_each(|value| *value = value.exp() / sum);
                    }
                }
                out
            })
            .collect()
    }

    #[test]
    fn upright_pictures_give_what_the_wheel_gives_for_transposed_ones() {
        for (net, width, height) in [(&PNET, 31, 26), (&RNET, 24, 24), (&ONET, 48, 48)] {
            let list = noise(net);
            let mut picture = Transposed::new(width, height, 3);
            let mut upright = Batch::default();
            for (at, pixel) in upright.add(height, width).chunks_mut(Batch::PIXEL).enumerate() {
                for (channel, value) in pixel.iter_mut().enumerate().take(3) {
                    let byte = ((at * 3 + channel) * 37 % 251) as u8;
                    *value = i16::from(byte) * Batch::STEPS;
                    *picture.at(at % width, at / width, channel) =
                        (f32::from(byte) - 127.5) / 128.0;
                }
            }
            let free = net.input.is_none();
            let side = |name, length| if free { Dim::Free(name) } else { Dim::Fixed(length) };
            let batch = if free { Dim::Fixed(1) } else { Dim::Free('N') };
            let signature = Signature {
                input: [batch, Dim::Fixed(3), side('H', height), side('W', width)],
                outputs: net.heads.iter().map(|(_, size)| *size).collect(),
            };
            let bytes = net.export(list.clone()).expect("an ONNX file");
            let normalization = &Normalization::ARCFACE;
            let mut network = Network::load(net.name, &bytes, &signature, normalization, None)
                .expect("a network");
            let outputs = network.run(&upright).expect("outputs");
            for (mut expected, output) in defined(net, &list, &picture).into_iter().zip(outputs) {
                let width = expected.width;
                assert_eq!(output.places().len(), width * expected.height);
                for (at, place) in output.places().enumerate() {
                    for (channel, got) in place.iter().enumerate() {
                        let expected = *expected.at(at % width, at / width, channel);
                        assert!((got - expected).abs() < 1e-3, "{}: {got} {expected}", net.name);
                    }
                }
            }
        }
    }

    #[test]
    fn a_list_with_a_wrong_array_names_it() {
        let mut list = noise(&RNET);
        list[3].shape = vec![48, 28, 3, 3];
        list.push(Tensor { shape: vec![1], values: vec![0.0] });
        let said = RNET.export(list).expect_err("wrong").to_string();
        assert!(
            said.contains("rnet.conv2.weight is [48, 28, 3, 3], expected [3, 3, 28, 48]"),
            "{said}"
        );
        assert!(said.contains("is extra"), "{said}");
    }
}
