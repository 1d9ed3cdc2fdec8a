//! MTCNN's weights out of the `mtcnn` wheel, into ONNX.
//!
//! The wheel's networks see transposed pictures, channels last: a kernel is
//! `[x, y, in, out]`, and the features before the fully connected layers lie in
//! the order x, y, channel. Boxes and landmarks come out in the upright order.

use crate::onnx::{Conv, GraphBuilder, Side};
use crate::weights::{self, Tensor, Tensors, WeightsError, npy};
use std::io::{Cursor, Read};
use zip::ZipArchive;

/// Path of the weights within the wheel.
const IN_WHEEL: &str = "mtcnn/data/mtcnn_weights.npy";
/// The file has 3 MB; a zip that unpacks to far more is no wheel of it.
const MAX_FILE: u64 = 64 << 20;

/// The three networks as ONNX files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mtcnn {
    /// Proposal net, `1 x 3 x H x W`.
    pub pnet: Vec<u8>,
    /// Refinement net, `N x 3 x 24 x 24`.
    pub rnet: Vec<u8>,
    /// Output net, `N x 3 x 48 x 48`.
    pub onet: Vec<u8>,
}

/// One convolution stage: name, kernel side, channels in and out, and the
/// pooling after it (side).
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

/// A network: its convolutions, the fully connected layer (grid side and
/// width), and its heads (name and size).
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

/// Reads the wheel `mtcnn` 0.1.1, or the `mtcnn_weights.npy` inside it.
pub fn import(bytes: &[u8]) -> Result<Mtcnn, WeightsError> {
    let mut lists = if bytes.starts_with(b"PK\x03\x04") {
        npy::read_lists(&from_wheel(bytes)?)?
    } else {
        npy::read_lists(bytes)?
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

fn from_wheel(bytes: &[u8]) -> Result<Vec<u8>, WeightsError> {
    let broken = |reason: String| WeightsError::format("the wheel mtcnn 0.1.1", reason);
    let mut archive =
        ZipArchive::new(Cursor::new(bytes)).map_err(|error| broken(error.to_string()))?;
    let file = archive.by_name(IN_WHEEL).map_err(|error| broken(format!("{IN_WHEEL}: {error}")))?;
    let mut content = Vec::new();
    file.take(MAX_FILE)
        .read_to_end(&mut content)
        .map_err(|error| broken(format!("{IN_WHEEL}: {error}")))?;
    Ok(content)
}

impl Net {
    /// Names and shapes of the wheel's tensors, in the order of its list.
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
