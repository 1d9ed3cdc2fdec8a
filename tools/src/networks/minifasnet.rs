//! MiniFASNet (Minivision, "Silent-Face-Anti-Spoofing", 2020, Apache-2.0), a liveness
//! network: MobileFaceNet with pruned channels and three classes. Its variants are V1, V2
//! and, with squeeze and excitation (Hu, Shen and Sun, 2018), V1SE and V2SE.
//!
//! The order of layers follows the code that was published with the weights. The number
//! of channels is read from the weights, so that all variants are one architecture here.

use crate::networks::mobilefacenet::{Block, PYTORCH_EPSILON, check_variances, folded};
use crate::networks::onnx::{Conv, GraphBuilder, Side};
use crate::weights::{self, Tensor, Tensors, WeightsError};
use anyhow::{Context, Result, anyhow, bail};
use facelatch::nn::Normalization;
use facelatch::nn::{self, Batch, Network, Signature};
use facelatch::vision::liveness::network::{CLASSES, INPUT_SIDE};
use std::path::Path;
use tch::Kind;

/// Values of 0 to 255 unchanged: the authors' `ToTensor` does not divide.
pub const NORMALIZATION: Normalization = Normalization { mean: [0.0; 3], std: [1.0; 3] };
/// Largest difference allowed between class probabilities that were rounded in different
/// orders.
pub const MOST_APART: f32 = 1e-4;
/// Side of the last feature map: 80 pixels halved four times.
const LAST_SIDE: usize = 5;
/// Bottlenecks in order: name, stride, and the number of those with residual; 0 is one
/// without.
const STAGES: [(&str, usize, usize); 6] = [
    ("conv_23", 2, 0),
    ("conv_3", 1, 4),
    ("conv_34", 2, 0),
    ("conv_4", 1, 6),
    ("conv_45", 2, 0),
    ("conv_5", 1, 2),
];

/// The weights, under PyTorch's names.
#[derive(Clone, Debug, PartialEq)]
pub struct MiniFasNet {
    tensors: Tensors,
}

/// A step of the network.
enum Step {
    Block(String, Block),
    /// Expand, filter each channel, project. With `weighed`, squeeze and excitation then
    /// scales each channel; with `residual`, the input is added after that.
    Bottleneck {
        name: String,
        blocks: [(String, Block); 3],
        residual: bool,
        weighed: bool,
    },
}

/// Scale and architecture from a file's name, as in `2.7_80x80_MiniFASNetV2.pth` and
/// `4_0_0_80x80_MiniFASNetV1SE.pth` (the zeros are shifts). Fails for other names and for
/// a scale outside 1..=10.
pub fn named(path: &Path) -> Result<(f64, String)> {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let parts: Vec<&str> = stem.split('_').collect();
    let read = || match parts[..] {
        [scale, "80x80", name] | [scale, "0", "0", "80x80", name] => {
            let scale = scale.parse().ok().filter(|scale| (1.0..=10.0).contains(scale))?;
            name.starts_with("MiniFASNet").then(|| (scale, name.to_owned()))
        }
        _ => None,
    };
    read().ok_or_else(|| {
        anyhow!(
            "{}: the file name does not give the scale; rename it like 2.7_80x80_MiniFASNetV2.pth",
            path.display()
        )
    })
}

/// All steps before the flattening. A missing weight counts as one without channels.
fn steps(tensors: &Tensors) -> Vec<Step> {
    let side = |name: &str, axis: usize| {
        tensors.get(&format!("{name}.conv.weight")).and_then(|t| t.shape.get(axis).copied())
    };
    let outputs = |name: &str| side(name, 0).unwrap_or_default();
    let mut channels = 3;
    let mut block = |name: String, side, stride, padding, depthwise, prelu| {
        let (from, to) = (channels, if depthwise { channels } else { outputs(&name) });
        channels = to;
        let groups = if depthwise { from.max(1) } else { 1 };
        (name, Block { from, to, side, stride, padding, groups, prelu })
    };
    let (first, second) = (
        block("conv1".into(), 3, 2, 1, false, true),
        block("conv2_dw".into(), 3, 1, 1, true, true),
    );
    let mut steps = vec![Step::Block(first.0, first.1), Step::Block(second.0, second.1)];
    for (stage, stride, count) in STAGES {
        for at in 0..count.max(1) {
            let residual = count > 0;
            let name = if residual { format!("{stage}.model.{at}") } else { stage.to_owned() };
            let blocks = [
                block(format!("{name}.conv"), 1, 1, 0, false, true),
                block(format!("{name}.conv_dw"), 3, stride, 1, true, true),
                block(format!("{name}.project"), 1, 1, 0, false, false),
            ];
            let weighed = tensors.contains_key(&format!("{name}.se_module.fc1.weight"));
            steps.push(Step::Bottleneck { name, blocks, residual, weighed });
        }
    }
    let (wide, last) = (
        block("conv_6_sep".into(), 1, 1, 0, false, true),
        block("conv_6_dw".into(), LAST_SIDE, 1, 0, true, false),
    );
    steps.extend([Step::Block(wide.0, wide.1), Step::Block(last.0, last.1)]);
    steps
}

/// Names and shapes of all tensors, with the channel counts of the given weights.
fn expected(tensors: &Tensors) -> Vec<(String, Vec<usize>)> {
    let mut expected = Vec::new();
    let norm = |expected: &mut Vec<(String, Vec<usize>)>, name: &str, channels: usize| {
        for what in ["weight", "bias", "running_mean", "running_var"] {
            expected.push((format!("{name}.{what}"), vec![channels]));
        }
    };
    let mut features = 0;
    for step in steps(tensors) {
        let (blocks, weighed) = match step {
            Step::Block(name, block) => (vec![(name, block)], None),
            Step::Bottleneck { name, blocks, weighed, .. } => {
                (blocks.to_vec(), weighed.then_some(name))
            }
        };
        for (name, block) in blocks {
            let shape = vec![block.to, block.from / block.groups, block.side, block.side];
            expected.push((format!("{name}.conv.weight"), shape));
            norm(&mut expected, &format!("{name}.bn"), block.to);
            if block.prelu {
                expected.push((format!("{name}.prelu.weight"), vec![block.to]));
            }
            features = block.to;
        }
        if let Some(name) = weighed {
            let name = format!("{name}.se_module");
            let first = tensors.get(&format!("{name}.fc1.weight"));
            let few = first.and_then(|t| t.shape.first().copied()).unwrap_or_default();
            expected.push((format!("{name}.fc1.weight"), vec![few, features, 1, 1]));
            norm(&mut expected, &format!("{name}.bn1"), few);
            expected.push((format!("{name}.fc2.weight"), vec![features, few, 1, 1]));
            norm(&mut expected, &format!("{name}.bn2"), features);
        }
    }
    let linear = tensors.get("linear.weight");
    let size = linear.and_then(|t| t.shape.first().copied()).unwrap_or_default();
    expected.push(("linear.weight".to_owned(), vec![size, features]));
    norm(&mut expected, "bn", size);
    expected.push(("prob.weight".to_owned(), vec![CLASSES, size]));
    expected
}

impl MiniFasNet {
    /// Reads a state dict with PyTorch's names. Fails if a tensor is missing, extra,
    /// misshapen or not finite, or if channel counts do not fit together.
    pub fn from_state_dict(mut tensors: Tensors) -> Result<Self, WeightsError> {
        const NAME: &str = "MiniFASNet";
        tensors.retain(|name, _| !name.ends_with(".num_batches_tracked"));
        weights::check(NAME, &tensors, &expected(&tensors))?;
        // A residual needs as many channels as its input has. An empty layer has none.
        let mut channels = 0;
        let mut faults = Vec::new();
        for step in steps(&tensors) {
            let (blocks, residual) = match step {
                Step::Block(name, block) => (vec![(name, block)], false),
                Step::Bottleneck { blocks, residual, .. } => (blocks.to_vec(), residual),
            };
            for (name, block) in &blocks {
                if block.to == 0 {
                    faults.push(format!("{name} has no channels"));
                }
            }
            let last = blocks.last().map_or(0, |(_, block)| block.to);
            if residual && last != channels {
                let name = blocks.last().map_or("", |(name, _)| name);
                faults.push(format!("{name} has {last} channels, its residual has {channels}"));
            }
            channels = last;
        }
        if !faults.is_empty() {
            return Err(WeightsError::Mismatch { architecture: NAME.into(), faults });
        }
        check_variances(NAME, &tensors, PYTORCH_EPSILON)?;
        Ok(Self { tensors })
    }

    /// The network as an ONNX file with batch normalization folded into the layers before
    /// it. Input `1 x 3 x 80 x 80`, RGB, 0 to 255; output `1 x 3` class probabilities.
    /// The authors' pictures are BGR, so the channels of the first layer are swapped
    /// here.
    pub fn to_onnx(&self) -> Vec<u8> {
        let side = Side::Fixed(INPUT_SIDE);
        let mut graph =
            GraphBuilder::new("minifasnet", "face", &[Side::Fixed(1), Side::Fixed(3), side, side]);
        let mut at = "face".to_owned();
        for step in steps(&self.tensors) {
            let input = at.clone();
            match step {
                Step::Block(name, block) => at = self.block(&mut graph, &name, &block, &at),
                Step::Bottleneck { name, blocks, residual, weighed } => {
                    for (name, block) in &blocks {
                        at = self.block(&mut graph, name, block, &at);
                    }
                    if weighed {
                        at = self.weigh(&mut graph, &format!("{name}.se_module"), &at);
                    }
                    if residual {
                        at = graph.add(&format!("{name}.add"), &at, &input);
                    }
                }
            }
        }
        let (weight, bias) = self.folded("linear", "bn");
        at = graph.flatten("flatten", &at);
        at = graph.gemm("linear", &at, &weight, &bias);
        let none = Tensor { shape: vec![CLASSES], values: vec![0.0; CLASSES] };
        at = graph.gemm("prob", &at, &self.tensors["prob.weight"], &none);
        at = graph.softmax("shares", &at);
        graph.output(&at, &[Side::Fixed(1), Side::Fixed(CLASSES)]);
        graph.finish()
    }

    fn block(&self, graph: &mut GraphBuilder, name: &str, block: &Block, input: &str) -> String {
        let (mut weight, bias) = self.folded(&format!("{name}.conv"), &format!("{name}.bn"));
        if name == "conv1" {
            let plane = block.side * block.side;
            for filter in weight.values.chunks_exact_mut(3 * plane) {
                let (blue, rest) = filter.split_at_mut(plane);
                blue.swap_with_slice(&mut rest[plane..]);
            }
        }
        let how = Conv { stride: block.stride, padding: block.padding, groups: block.groups };
        let at = graph.conv(name, input, &weight, Some(&bias), how);
        if !block.prelu {
            return at;
        }
        let slopes = &self.tensors[&format!("{name}.prelu.weight")];
        graph.prelu(&format!("{name}.prelu"), &at, slopes, true)
    }

    /// Squeeze and excitation: scales each channel by a factor that follows from the
    /// means of all channels.
    fn weigh(&self, graph: &mut GraphBuilder, name: &str, input: &str) -> String {
        let mut at = graph.mean_pool(&format!("{name}.mean"), input);
        for (layer, norm) in [("fc1", "bn1"), ("fc2", "bn2")] {
            let (weight, bias) = self.folded(&format!("{name}.{layer}"), &format!("{name}.{norm}"));
            let layer = format!("{name}.{layer}");
            at = graph.conv(&layer, &at, &weight, Some(&bias), Conv::VALID);
            at = if norm == "bn1" {
                graph.relu(&format!("{layer}.relu"), &at)
            } else {
                graph.sigmoid(&format!("{layer}.share"), &at)
            };
        }
        graph.multiply(&format!("{name}.weighed"), input, &at)
    }

    fn folded(&self, layer: &str, norm: &str) -> (Tensor, Tensor) {
        folded(&self.tensors, layer, norm, PYTORCH_EPSILON)
    }

    /// Class probabilities `N x 3` of pictures `N x 3 x 80 x 80`, BGR, 0 to 255, computed
    /// in torch with nothing folded. The ONNX form is compared with them.
    pub fn forward(&self, pictures: &tch::Tensor) -> tch::Tensor {
        let mut at = pictures.shallow_clone();
        for step in steps(&self.tensors) {
            let input = at.shallow_clone();
            match step {
                Step::Block(name, block) => at = self.torch_block(&at, &name, &block),
                Step::Bottleneck { name, blocks, residual, weighed } => {
                    for (name, block) in &blocks {
                        at = self.torch_block(&at, name, block);
                    }
                    if weighed {
                        let name = format!("{name}.se_module");
                        let means = at.mean_dim(&[2i64, 3][..], true, Kind::Float);
                        let layer = |input: &tch::Tensor, layer: &str, norm: &str| {
                            let weight = self.torch(&format!("{name}.{layer}.weight"));
                            let no_bias = None::<&tch::Tensor>;
                            let at = input.conv2d(&weight, no_bias, [1, 1], [0, 0], [1, 1], 1);
                            self.torch_norm(&at, &format!("{name}.{norm}"))
                        };
                        let few = layer(&means, "fc1", "bn1").relu();
                        at = &at * layer(&few, "fc2", "bn2").sigmoid();
                    }
                    if residual {
                        at += input;
                    }
                }
            }
        }
        let no_bias = None::<&tch::Tensor>;
        let at = at.flatten(1, -1).linear(&self.torch("linear.weight"), no_bias);
        let at = self.torch_norm(&at, "bn").linear(&self.torch("prob.weight"), no_bias);
        at.softmax(1, Kind::Float)
    }

    fn torch(&self, name: &str) -> tch::Tensor {
        let tensor = &self.tensors[name];
        let shape: Vec<i64> = tensor.shape.iter().map(|side| *side as i64).collect();
        tch::Tensor::from_slice(&tensor.values).view(&shape[..])
    }

    fn torch_block(&self, input: &tch::Tensor, name: &str, block: &Block) -> tch::Tensor {
        let (stride, padding) = (block.stride as i64, block.padding as i64);
        let at = input.conv2d(
            &self.torch(&format!("{name}.conv.weight")),
            None::<&tch::Tensor>,
            [stride; 2],
            [padding; 2],
            [1, 1],
            block.groups as i64,
        );
        let at = self.torch_norm(&at, &format!("{name}.bn"));
        if block.prelu { at.prelu(&self.torch(&format!("{name}.prelu.weight"))) } else { at }
    }

    fn torch_norm(&self, input: &tch::Tensor, name: &str) -> tch::Tensor {
        let of = |what: &str| Some(self.torch(&format!("{name}.{what}")));
        let (weight, bias) = (of("weight"), of("bias"));
        let (mean, variance) = (of("running_mean"), of("running_var"));
        input.batch_norm(weight, bias, mean, variance, false, 0.0, PYTORCH_EPSILON, false)
    }
}

/// Largest difference between the outputs of the ONNX form, run by the device's own code,
/// and those of the weights in torch, over pictures of noise and of bands. A NaN counts
/// as infinity.
pub fn apart(network: &MiniFasNet, onnx: &[u8]) -> Result<f32> {
    let side = nn::Dim::Fixed(INPUT_SIDE);
    let input = [nn::Dim::Fixed(1), nn::Dim::Fixed(3), side, side];
    let signature = Signature { input, outputs: vec![CLASSES] };
    let mut through =
        Network::load("the exported network", onnx, &signature, &NORMALIZATION, None)?;
    let mut most = 0.0f32;
    for picture in 0..8usize {
        let value = |x: usize, y: usize, channel: usize| {
            let noise = (x * 7919 + y * 104_729 + channel * 1_299_709 + picture * 31) as u32;
            let noise = noise.wrapping_mul(2_654_435_761) >> 24;
            let band = ((x * picture + y * (channel + 1)) / 9 % 256) as u32;
            (noise * picture as u32 + band * (8 - picture as u32)) / 8
        };
        let mut pictures = Batch::default();
        let pixels = pictures.add(INPUT_SIDE, INPUT_SIDE);
        for (at, pixel) in pixels.chunks_exact_mut(Batch::PIXEL).enumerate() {
            for (channel, to) in pixel.iter_mut().enumerate().take(3) {
                let value = value(at % INPUT_SIDE, at / INPUT_SIDE, channel);
                *to = value.min(255) as i16 * Batch::STEPS;
            }
        }
        let planes: Vec<f32> = [2, 1, 0]
            .into_iter()
            .flat_map(|channel| {
                (0..INPUT_SIDE * INPUT_SIDE)
                    .map(move |at| (at % INPUT_SIDE, at / INPUT_SIDE, channel))
            })
            .map(|(x, y, channel)| value(x, y, channel).min(255) as f32)
            .collect();
        let shape = [1, 3, INPUT_SIDE as i64, INPUT_SIDE as i64];
        let torch = tch::no_grad(|| network.forward(&tch::Tensor::from_slice(&planes).view(shape)));
        let torch = Vec::<f32>::try_from(torch.view(-1)).context("torch's output")?;
        let outputs = through.run(&pictures)?;
        let Some(ours) = outputs.first().and_then(|output| output.places().next()) else {
            bail!("the exported network gave no output");
        };
        for (a, b) in ours.iter().zip(&torch) {
            // A NaN counts as infinitely far.
            let apart = (a - b).abs();
            most = most.max(if apart.is_nan() { f32::INFINITY } else { apart });
        }
    }
    Ok(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Chance;

    /// Small random weights, with squeeze and excitation in some blocks.
    fn weights(chance: &mut Chance) -> Tensors {
        let mut tensors = Tensors::new();
        let mut put = |name: String, shape: &[usize]| {
            let count: usize = shape.iter().product();
            let inputs = (count / shape[0].max(1)).max(1) as f64;
            let values = (0..count)
                .map(|_| match name.rsplit('.').next() {
                    Some("running_var") => chance.between(0.5, 2.0),
                    Some("weight") if shape.len() > 1 => {
                        chance.between(-1.0, 1.0) * (3.0 / inputs).sqrt()
                    }
                    Some("weight") => chance.between(0.5, 1.5),
                    _ => chance.between(-0.2, 0.2),
                } as f32)
                .collect();
            tensors.insert(name, Tensor { shape: shape.to_vec(), values });
        };
        let mut layer = |name: &str, from: usize, to: usize, side: usize, prelu: bool| {
            put(format!("{name}.conv.weight"), &[to, from, side, side]);
            for what in ["weight", "bias", "running_mean", "running_var"] {
                put(format!("{name}.bn.{what}"), &[to]);
            }
            if prelu {
                put(format!("{name}.prelu.weight"), &[to]);
            }
        };
        layer("conv1", 3, 8, 3, true);
        layer("conv2_dw", 1, 8, 3, true);
        for (stage, _, count) in STAGES {
            for at in 0..count.max(1) {
                let name = if count > 0 { format!("{stage}.model.{at}") } else { stage.to_owned() };
                let wide = 5 + at;
                layer(&format!("{name}.conv"), 8, wide, 1, true);
                layer(&format!("{name}.conv_dw"), 1, wide, 3, true);
                layer(&format!("{name}.project"), wide, 8, 1, false);
            }
        }
        layer("conv_6_sep", 8, 16, 1, true);
        layer("conv_6_dw", 1, 16, 5, false);
        for name in ["conv_3.model.3.se_module", "conv_5.model.1.se_module"] {
            put(format!("{name}.fc1.weight"), &[2, 8, 1, 1]);
            put(format!("{name}.fc2.weight"), &[8, 2, 1, 1]);
            for (norm, channels) in [("bn1", 2), ("bn2", 8)] {
                for what in ["weight", "bias", "running_mean", "running_var"] {
                    put(format!("{name}.{norm}.{what}"), &[channels]);
                }
            }
        }
        put("linear.weight".into(), &[6, 16]);
        for what in ["weight", "bias", "running_mean", "running_var"] {
            put(format!("bn.{what}"), &[6]);
        }
        put("prob.weight".into(), &[3, 6]);
        tensors
    }

    #[test]
    fn what_is_written_answers_as_the_weights_do_in_torch() {
        let network = MiniFasNet::from_state_dict(weights(&mut Chance::new(3))).expect("weights");
        let apart = apart(&network, &network.to_onnx()).expect("answers");
        assert!(apart < MOST_APART, "{apart}");
        // Other weights give other outputs, so the comparison can fail.
        let other = MiniFasNet::from_state_dict(weights(&mut Chance::new(4))).expect("weights");
        assert!(super::apart(&network, &other.to_onnx()).expect("answers") > 1e-2);
    }

    #[test]
    fn other_weights_name_what_is_wrong() {
        let faulty = |change: &dyn Fn(&mut Tensors)| {
            let mut tensors = weights(&mut Chance::new(3));
            change(&mut tensors);
            MiniFasNet::from_state_dict(tensors).expect_err("a fault").to_string()
        };
        let cut = faulty(&|tensors| {
            tensors.remove("conv_4.model.2.conv_dw.bn.bias");
        });
        assert!(cut.contains("conv_4.model.2.conv_dw.bn.bias is missing"), "{cut}");
        let none = faulty(&|tensors| {
            tensors.remove("conv_34.conv.conv.weight");
        });
        assert!(none.contains("conv_34.conv.conv.weight is missing"), "{none}");
        let extra = faulty(&|tensors| {
            let prob = tensors["prob.weight"].clone();
            tensors.insert("FT.weight".into(), prob);
        });
        assert!(extra.contains("FT.weight is extra"), "{extra}");
        assert!(MiniFasNet::from_state_dict(Tensors::new()).is_err());
    }

    #[test]
    fn the_scale_is_in_the_name() {
        let read = |name: &str| named(Path::new(name)).ok();
        assert_eq!(read("a/2.7_80x80_MiniFASNetV2.pth"), Some((2.7, "MiniFASNetV2".into())));
        assert_eq!(read("4_0_0_80x80_MiniFASNetV1SE.pth"), Some((4.0, "MiniFASNetV1SE".into())));
        for wrong in
            ["MiniFASNetV2.pth", "0.1_80x80_MiniFASNetV2.pth", "2.7_80x60_MiniFASNetV2.pth"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
