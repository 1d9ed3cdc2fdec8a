//! MobileFaceNet (Chen, Liu, Gao and Han, "MobileFaceNets: Efficient CNNs for Accurate
//! Real-Time Face Verification on Mobile Devices", 2018): its layers, the names of their
//! weights, and its ONNX form.

use crate::chance::Chance;
use crate::chance::normal;
use crate::networks::onnx::{Conv, GraphBuilder, Side};
use crate::weights::ncnn::Layer;
use crate::weights::{self, Tensor, Tensors, WeightsError};

/// Side of the input picture, pixels.
pub const INPUT_SIDE: usize = 112;
/// Inputs of the last, fully connected layer.
pub const FEATURES: usize = 512;
/// PyTorch's epsilon of batch normalization, added to the variance.
pub const PYTORCH_EPSILON: f64 = 1e-5;

/// A convolution with batch normalization and an optional PReLU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Input channels.
    pub from: usize,
    /// Output channels.
    pub to: usize,
    /// Side of the kernel, pixels.
    pub side: usize,
    /// Stride, pixels.
    pub stride: usize,
    /// Zero padding on each side, pixels.
    pub padding: usize,
    /// Groups: 1, or the number of channels for a depthwise convolution.
    pub groups: usize,
    /// Whether a PReLU follows.
    pub prelu: bool,
}

/// A step of the network and the name of its weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A single block.
    Block(String, Block),
    /// Expand, filter each channel, project: blocks `NAME.conv`, `NAME.conv_dw` and
    /// `NAME.project`. With `residual` the input is added to the output.
    Bottleneck {
        /// Common prefix of the blocks' names.
        name: String,
        /// The three blocks, in this order.
        blocks: [Block; 3],
        /// Whether the input is added to the output.
        residual: bool,
    },
}

/// All steps before the last, fully connected layer.
pub fn steps() -> Vec<Step> {
    let block = |from, to, side, stride, padding, groups, prelu| Block {
        from,
        to,
        side,
        stride,
        padding,
        groups,
        prelu,
    };
    let bottleneck = |name: String, from, wide, to, stride, residual| Step::Bottleneck {
        name,
        blocks: [
            block(from, wide, 1, 1, 0, 1, true),
            block(wide, wide, 3, stride, 1, wide, true),
            block(wide, to, 1, 1, 0, 1, false),
        ],
        residual,
    };
    let mut steps = vec![
        Step::Block("conv1".into(), block(3, 64, 3, 2, 1, 1, true)),
        Step::Block("conv2_dw".into(), block(64, 64, 3, 1, 1, 64, true)),
        bottleneck("conv_23".into(), 64, 128, 64, 2, false),
    ];
    let residuals = |steps: &mut Vec<Step>, name: &str, count, channels, wide| {
        for i in 0..count {
            steps.push(bottleneck(format!("{name}.model.{i}"), channels, wide, channels, 1, true));
        }
    };
    residuals(&mut steps, "conv_3", 4, 64, 128);
    steps.push(bottleneck("conv_34".into(), 64, 256, 128, 2, false));
    residuals(&mut steps, "conv_4", 6, 128, 256);
    steps.push(bottleneck("conv_45".into(), 128, 512, 128, 2, false));
    residuals(&mut steps, "conv_5", 2, 128, 256);
    steps.push(Step::Block("conv_6_sep".into(), block(128, FEATURES, 1, 1, 0, 1, true)));
    steps
        .push(Step::Block("conv_6_dw".into(), block(FEATURES, FEATURES, 7, 1, 0, FEATURES, false)));
    steps
}

impl Step {
    /// The blocks of the step with their full names.
    pub fn blocks(&self) -> Vec<(String, Block)> {
        match self {
            Step::Block(name, block) => vec![(name.clone(), *block)],
            Step::Bottleneck { name, blocks, .. } => ["conv", "conv_dw", "project"]
                .iter()
                .zip(blocks)
                .map(|(part, block)| (format!("{name}.{part}"), *block))
                .collect(),
        }
    }
}

/// MobileFaceNet's weights, under the names of PyTorch's common implementation.
#[derive(Clone, Debug, PartialEq)]
pub struct MobileFaceNet {
    /// Every tensor that [`expected`] lists.
    pub tensors: Tensors,
    /// Epsilon of batch normalization, added to the variance.
    pub epsilon: f64,
    /// Length of an embedding.
    pub embedding_size: usize,
}

/// Names and shapes of all tensors. `linear.bias` exists only in models whose last layer
/// has a bias.
pub fn expected(embedding_size: usize, bias: bool) -> Vec<(String, Vec<usize>)> {
    let mut expected = Vec::new();
    let norm = |expected: &mut Vec<(String, Vec<usize>)>, name: &str, channels: usize| {
        for what in ["weight", "bias", "running_mean", "running_var"] {
            expected.push((format!("{name}.{what}"), vec![channels]));
        }
    };
    for (name, block) in steps().iter().flat_map(Step::blocks) {
        let shape = vec![block.to, block.from / block.groups, block.side, block.side];
        expected.push((format!("{name}.conv.weight"), shape));
        norm(&mut expected, &format!("{name}.bn"), block.to);
        if block.prelu {
            expected.push((format!("{name}.prelu.weight"), vec![block.to]));
        }
    }
    expected.push(("linear.weight".to_owned(), vec![embedding_size, FEATURES]));
    if bias {
        expected.push(("linear.bias".to_owned(), vec![embedding_size]));
    }
    norm(&mut expected, "bn", embedding_size);
    expected
}

impl MobileFaceNet {
    /// Reads a state dict with PyTorch's names. Fails if a tensor is missing, extra,
    /// misshapen or not finite.
    pub fn from_state_dict(mut tensors: Tensors) -> Result<Self, WeightsError> {
        tensors.retain(|name, _| !name.ends_with(".num_batches_tracked"));
        Self::checked(tensors, PYTORCH_EPSILON)
    }

    /// Random weights. Each layer keeps the variance of its input (He, Zhang, Ren and
    /// Sun, "Delving Deep into Rectifiers", 2015, equation 14), PReLU slopes start at
    /// 0.25 as in that paper, and batch normalization starts as the identity.
    pub fn random(embedding_size: usize, chance: &mut Chance) -> Self {
        const SLOPE: f32 = 0.25;
        let tensors = expected(embedding_size, false)
            .into_iter()
            .map(|(name, shape)| {
                let count = shape.iter().product();
                let last = name.rsplit('.').next().unwrap_or_default();
                let values = match (last, shape.len()) {
                    ("weight", 2..) => {
                        // Variance is lost only where a PReLU follows.
                        let layer = name.trim_end_matches(".conv.weight");
                        let prelu = steps()
                            .iter()
                            .flat_map(Step::blocks)
                            .any(|(name, block)| name == layer && block.prelu);
                        let kept = if prelu { (1.0 + SLOPE * SLOPE) / 2.0 } else { 1.0 };
                        let inputs: usize = shape.iter().skip(1).product();
                        let deviation = 1.0 / (kept * inputs as f32).sqrt();
                        normal(chance, count).into_iter().map(|v| v * deviation).collect()
                    }
                    ("weight", _) if name.contains("prelu") => vec![SLOPE; count],
                    ("weight" | "running_var", _) => vec![1.0; count],
                    _ => vec![0.0; count],
                };
                (name, Tensor { shape, values })
            })
            .collect();
        Self { tensors, epsilon: PYTORCH_EPSILON, embedding_size }
    }

    /// The same network in a form that allows batch statistics. A channel without
    /// variance must not cause a division by zero, so an epsilon that is contained in the
    /// stored variances is taken out of them again.
    pub fn measurable(mut self) -> Self {
        if self.epsilon < PYTORCH_EPSILON {
            let more = (PYTORCH_EPSILON - self.epsilon) as f32;
            for (name, tensor) in &mut self.tensors {
                if name.ends_with(".running_var") {
                    tensor.values.iter_mut().for_each(|value| *value = (*value - more).max(0.0));
                }
            }
            self.epsilon = PYTORCH_EPSILON;
        }
        self
    }

    /// Takes tensors under the names of [`expected`], and their epsilon. Fails as
    /// [`Self::from_state_dict`] does.
    pub fn from_tensors(tensors: Tensors, epsilon: f64) -> Result<Self, WeightsError> {
        Self::checked(tensors, epsilon)
    }

    /// Reads ncnn's text and binary files with the layer names of the 2018 model.
    pub fn from_ncnn(param: &str, bin: &[u8]) -> Result<Self, WeightsError> {
        let (order, mut layers) = weights::ncnn::read(param, bin)?;
        check_ncnn(&order)?;
        let mut tensors = Tensors::new();
        let mut take = |from: String, to: String| {
            if let Some(tensor) = layers.remove(&from) {
                tensors.insert(to, tensor);
            }
        };
        let norm = [
            ("gamma", "weight"),
            ("beta", "bias"),
            ("mean", "running_mean"),
            ("variance", "running_var"),
        ];
        for (name, _) in steps().iter().flat_map(Step::blocks) {
            let layer = ncnn_name(&name);
            take(format!("{layer}_conv2d.weight"), format!("{name}.conv.weight"));
            for (from, to) in norm {
                take(format!("{layer}_batchnorm.{from}"), format!("{name}.bn.{to}"));
            }
            take(format!("{layer}_relu.slope"), format!("{name}.prelu.weight"));
        }
        take("pre_fc1.weight".into(), "linear.weight".into());
        take("pre_fc1.bias".into(), "linear.bias".into());
        for (from, to) in norm {
            take(format!("fc1.{from}"), format!("bn.{to}"));
        }
        // The rest belongs to no step and is reported as extra.
        tensors.append(&mut layers);
        // ncnn stores variances with the epsilon already in them.
        Self::checked(tensors, 0.0)
    }

    fn checked(tensors: Tensors, epsilon: f64) -> Result<Self, WeightsError> {
        let embedding_size = tensors
            .get("linear.weight")
            .and_then(|weight| weight.shape.first().copied())
            .filter(|size| *size > 0)
            .unwrap_or(512);
        let bias = tensors.contains_key("linear.bias");
        weights::check("MobileFaceNet", &tensors, &expected(embedding_size, bias))?;
        check_variances("MobileFaceNet", &tensors, epsilon)?;
        Ok(Self { tensors, epsilon, embedding_size })
    }

    /// The network as an ONNX file with batch normalization folded into the layer before
    /// it. Input `1 x 3 x 112 x 112`, output `1 x embedding_size`, not normalized to
    /// length one.
    pub fn to_onnx(&self) -> Vec<u8> {
        let side = Side::Fixed(INPUT_SIDE);
        let mut graph = GraphBuilder::new(
            "mobilefacenet",
            "face",
            &[Side::Fixed(1), Side::Fixed(3), side, side],
        );
        let mut at = "face".to_owned();
        for step in steps() {
            let input = at.clone();
            for (name, block) in step.blocks() {
                let (weight, bias) = self.folded(&format!("{name}.conv"), &format!("{name}.bn"));
                let how =
                    Conv { stride: block.stride, padding: block.padding, groups: block.groups };
                at = graph.conv(&name, &at, &weight, Some(&bias), how);
                if block.prelu {
                    let slopes = &self.tensors[&format!("{name}.prelu.weight")];
                    at = graph.prelu(&format!("{name}.prelu"), &at, slopes, true);
                }
            }
            if let Step::Bottleneck { name, residual: true, .. } = &step {
                at = graph.add(&format!("{name}.add"), &at, &input);
            }
        }
        let (weight, bias) = self.folded("linear", "bn");
        at = graph.flatten("flatten", &at);
        at = graph.gemm("embedding", &at, &weight, &bias);
        graph.output(&at, &[Side::Fixed(1), Side::Fixed(self.embedding_size)]);
        graph.finish()
    }

    fn folded(&self, layer: &str, norm: &str) -> (Tensor, Tensor) {
        folded(&self.tensors, layer, norm, self.epsilon)
    }
}

/// Fails if a variance with its epsilon is not positive, because it is divided by.
pub(crate) fn check_variances(
    architecture: &str,
    tensors: &Tensors,
    epsilon: f64,
) -> Result<(), WeightsError> {
    let faults: Vec<String> = tensors
        .iter()
        .filter(|(name, _)| name.ends_with(".running_var"))
        .filter(|(_, variance)| variance.values.iter().any(|v| f64::from(*v) + epsilon <= 0.0))
        .map(|(name, _)| format!("{name} holds a variance that is not positive"))
        .collect();
    if faults.is_empty() {
        return Ok(());
    }
    Err(WeightsError::Mismatch { architecture: architecture.into(), faults })
}

/// Weight and bias of a layer with the following batch normalization folded in. The
/// tensors of both must exist.
pub(crate) fn folded(tensors: &Tensors, layer: &str, norm: &str, epsilon: f64) -> (Tensor, Tensor) {
    let get = |name: String| &tensors[&name];
    let mut weight = get(format!("{layer}.weight")).clone();
    let (gamma, beta) = (get(format!("{norm}.weight")), get(format!("{norm}.bias")));
    let (mean, variance) =
        (get(format!("{norm}.running_mean")), get(format!("{norm}.running_var")));
    let own_bias = tensors.get(&format!("{layer}.bias"));
    let channels = gamma.values.len();
    let mut bias = vec![0.0; channels];
    let inputs = weight.values.len() / channels;
    for channel in 0..channels {
        let variance = f64::from(variance.values[channel]) + epsilon;
        let scale = f64::from(gamma.values[channel]) / variance.sqrt();
        for value in &mut weight.values[channel * inputs..(channel + 1) * inputs] {
            *value = (f64::from(*value) * scale) as f32;
        }
        let own = own_bias.map_or(0.0, |bias| f64::from(bias.values[channel]));
        let shifted = (own - f64::from(mean.values[channel])) * scale;
        bias[channel] = (shifted + f64::from(beta.values[channel])) as f32;
    }
    (weight, Tensor { shape: vec![channels], values: bias })
}

/// Checks that ncnn's layers, in their order, compute this network: geometry of the
/// convolutions, what follows what, and the normalization of the picture.
fn check_ncnn(layers: &[Layer]) -> Result<(), WeightsError> {
    let mut faults = Vec::new();
    let mut at = layers.iter().filter(|layer| layer.kind != "Split" && layer.kind != "Dropout");
    let mut next = at.next();
    let mut expect = |wanted: &[&str], name: &str| {
        let found = next;
        if found.is_some_and(|layer| wanted.contains(&layer.kind.as_str())) {
            next = at.next();
            return found;
        }
        if faults.is_empty() {
            let found = found.map_or("the end", |layer| &layer.name);
            faults.push(format!("{found} stands where {name} belongs"));
        }
        None
    };
    let mut other = Vec::new();
    if let Some(input) = expect(&["Input"], "the picture") {
        for (key, side) in [(0, INPUT_SIDE), (1, INPUT_SIDE), (2, 3)] {
            let got = input.parameter(key, 0)?;
            if ![0, side].contains(&got) {
                other.push(format!("side {key} of the picture is {got}, expected {side}"));
            }
        }
    }
    let pictures = layers.iter().filter(|layer| is_scalar(layer)).count();
    if pictures > 0 {
        for (operation, value) in [(1, 127.5), (2, 1.0 / 128.0)] {
            let name = "the normalization of the picture";
            let Some(layer) = expect(&["BinaryOp"], name) else { continue };
            let got = layer.number(2, 0.0)?;
            if layer.parameter(0, 0)? != operation || (got - value).abs() > 1e-6 {
                other.push(format!(
                    "layer {} normalizes pictures with {got}, expected (value - 127.5) / 128",
                    layer.name
                ));
            }
        }
    }
    for step in steps() {
        for (name, block) in step.blocks() {
            let layer = ncnn_name(&name);
            let kind = ["Convolution", "ConvolutionDepthWise"];
            if let Some(found) = expect(&kind, &format!("{layer}_conv2d")) {
                geometry(found, &block, &mut other)?;
            }
            expect(&["BatchNorm"], &format!("{layer}_batchnorm"));
            if block.prelu {
                expect(&["PReLU"], &format!("{layer}_relu"));
            }
        }
        if let Step::Bottleneck { name, residual: true, .. } = &step
            && let Some(sum) = expect(&["BinaryOp", "Eltwise"], &format!("the sum of {name}"))
        {
            let add = if sum.kind == "Eltwise" { 1 } else { 0 };
            if sum.parameter(0, 0)? != add || is_scalar(sum) || sum.inputs.len() != 2 {
                other.push(format!("layer {} is no sum of two inputs", sum.name));
            }
        }
    }
    expect(&["InnerProduct"], "pre_fc1");
    expect(&["BatchNorm"], "fc1");
    if let Some(layer) = next.filter(|_| faults.is_empty()) {
        faults.push(format!("{} stands after the last layer", layer.name));
    }
    faults.extend(other);
    if faults.is_empty() {
        return Ok(());
    }
    Err(WeightsError::Mismatch { architecture: "MobileFaceNet".to_owned(), faults })
}

/// Whether the layer calculates with one number and not with a second input.
fn is_scalar(layer: &Layer) -> bool {
    layer.kind == "BinaryOp" && layer.parameter(1, 0).is_ok_and(|with| with != 0)
}

/// Compares a convolution with its block.
fn geometry(layer: &Layer, block: &Block, faults: &mut Vec<String>) -> Result<(), WeightsError> {
    let get = |key, default| layer.parameter(key, default);
    let pair = |key: i64, other: i64, default| -> Result<[usize; 2], WeightsError> {
        let first = get(key, default)?;
        Ok([first, get(other, first)?])
    };
    let (left, top) = (get(4, 0)?, get(14, get(4, 0)?)?);
    let padding = vec![left, top, get(15, left)?, get(16, top)?];
    let groups = if layer.kind == "Convolution" { 1 } else { get(7, 1)? };
    for (what, got, expected) in [
        ("outputs", vec![get(0, 0)?], block.to),
        ("kernel sides", pair(1, 11, 0)?.to_vec(), block.side),
        ("strides", pair(3, 13, 1)?.to_vec(), block.stride),
        ("dilations", pair(2, 12, 1)?.to_vec(), 1),
        ("padding", padding, block.padding),
        ("groups", vec![groups], block.groups),
    ] {
        if got.iter().any(|value| *value != expected) {
            let name = &layer.name;
            faults.push(format!("layer {name} has {what} {got:?}, expected {expected}"));
        }
    }
    if get(5, 0)? != 0 {
        faults.push(format!("layer {} has a bias of its own", layer.name));
    }
    Ok(())
}

/// A block's name in the 2018 model: `conv_3.model.1.conv_dw` is `res_3_block1_conv_dw`
/// there.
fn ncnn_name(name: &str) -> String {
    let fixed = [
        ("conv1", "conv_1"),
        ("conv2_dw", "conv_2_dw"),
        ("conv_6_sep", "conv_6sep"),
        ("conv_6_dw", "conv_6dw7_7"),
    ];
    if let Some((_, known)) = fixed.iter().find(|(own, _)| *own == name) {
        return (*known).to_owned();
    }
    let name = name.replace("project", "conv_proj").replace(".conv_dw", "_conv_dw");
    let name = name.strip_suffix(".conv").map_or(name.clone(), |stem| format!("{stem}_conv_sep"));
    let name = name.replace(".conv_proj", "_conv_proj");
    match name.split_once(".model.") {
        Some((stage, rest)) => format!("{}_block{rest}", stage.replace("conv_", "res_")),
        None => format!("d{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_2018_names_are_known() {
        for (own, ncnn) in [
            ("conv1", "conv_1"),
            ("conv_23.conv", "dconv_23_conv_sep"),
            ("conv_23.conv_dw", "dconv_23_conv_dw"),
            ("conv_45.project", "dconv_45_conv_proj"),
            ("conv_3.model.0.conv", "res_3_block0_conv_sep"),
            ("conv_4.model.5.project", "res_4_block5_conv_proj"),
            ("conv_6_dw", "conv_6dw7_7"),
        ] {
            assert_eq!(ncnn_name(own), ncnn);
        }
    }

    #[test]
    fn there_are_as_many_parameters_as_the_paper_says() {
        // 0.99 million according to section 3.3.
        let count: usize = expected(128, false)
            .iter()
            .filter(|(name, _)| !name.contains("running"))
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum();
        assert!((985_000..1_010_000).contains(&count), "{count}");
    }

    #[test]
    fn a_network_from_nothing_follows_from_its_seed() {
        let network = MobileFaceNet::random(64, &mut Chance::new(1));
        assert_eq!(network, MobileFaceNet::random(64, &mut Chance::new(1)));
        assert_ne!(network, MobileFaceNet::random(64, &mut Chance::new(2)));
        assert!(MobileFaceNet::from_tensors(network.tensors.clone(), 1e-5).is_ok());
        let linear = &network.tensors["linear.weight"].values;
        let variance = linear.iter().map(|v| v * v).sum::<f32>() / linear.len() as f32;
        assert!((variance * FEATURES as f32 - 1.0).abs() < 0.05);
    }
}
