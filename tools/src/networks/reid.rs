//! Intel's face-reidentification-retail-0095 of Open Model Zoo: a MobileFaceNet (Chen, Liu,
//! Gao and Han 2018) with squeeze-and-excitation blocks (Hu, Shen and Sun,
//! "Squeeze-and-Excitation Networks", 2018) and 1.107 million parameters. Batch
//! normalization is folded into its layers.
//!
//! The input is `1 x 3 x 128 x 128` in the order blue, green, red, with values of 0 to 255;
//! the graph itself normalizes them. The output is an embedding of 256 numbers, not
//! normalized to length one.

mod ir;

use crate::networks::onnx::{Conv, GraphBuilder, Side};
use crate::weights::openvino::{Graph, IrError};
use crate::weights::{self, Tensor, Tensors, WeightsError, element_count, f32_values};
use anyhow::{Context, Result, bail, ensure};
use facelatch::models::Alignment;
use facelatch::nn::{self, Batch, Network, Normalization, Signature};
use prost::Message;
use tract_onnx::pb;

/// Name of the model in Open Model Zoo.
pub const NAME: &str = "face-reidentification-retail-0095";
/// Side of the input picture, pixels.
pub const INPUT_SIDE: usize = 128;
/// Length of an embedding.
pub const EMBEDDING_SIZE: usize = 256;
/// The alignment that the network expects. The model's documentation gives the landmarks as
/// shares of the side: (0.315569, 0.461574), (0.682623, 0.461574), (0.500262, 0.640505),
/// (0.349472, 0.824692) and (0.653436, 0.824692). They count from the edge of the picture,
/// half a pixel before the first centre.
pub const ALIGNMENT: Alignment = Alignment {
    side: INPUT_SIDE,
    landmarks: [
        [39.8928, 58.5815],
        [86.8757, 58.5815],
        [63.5335, 81.4846],
        [44.2324, 105.0606],
        [83.1398, 105.0606],
    ],
};
/// For a runtime that feeds the file: values of 0 to 255 as they are.
pub const NORMALIZATION: Normalization = Normalization { mean: [0.0; 3], std: [1.0; 3] };
/// Names of the constants by which the graph multiplies a picture and which it then adds,
/// `1 x 3 x 1 x 1` each.
pub const INPUT_CONSTANTS: [&str; 2] = ["scale.factor", "shift.term"];

/// Input and output of the ONNX file.
pub fn signature() -> Signature {
    let side = nn::Dim::Fixed(INPUT_SIDE);
    let input = [nn::Dim::Fixed(1), nn::Dim::Fixed(3), side, side];
    Signature { input, outputs: vec![EMBEDDING_SIZE] }
}

/// A convolution. Its tensors are `NAME.weight`, `NAME.bias` if it has one, and
/// `NAME.prelu.slope` if a PReLU follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Name of the layer.
    pub name: String,
    /// Input channels.
    pub from: usize,
    /// Output channels.
    pub to: usize,
    /// Side of the kernel, pixels.
    pub side: usize,
    /// Geometry.
    pub how: Conv,
    /// Whether it has a bias.
    pub bias: bool,
    /// Whether a PReLU follows.
    pub prelu: bool,
}

/// Layers in order, and what follows the last of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Common prefix of the layers' names in a bottleneck, otherwise the layer's name.
    pub name: String,
    /// The layers.
    pub layers: Vec<Layer>,
    /// Squeeze and excitation: two layers on the mean of each channel, then a sigmoid. Its
    /// result multiplies each channel.
    pub gate: Option<[Layer; 2]>,
    /// Whether the input of the step is added at its end.
    pub residual: bool,
}

impl Step {
    /// All layers of the step, those of the gate last.
    pub fn all_layers(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter().chain(self.gate.iter().flatten())
    }
}

/// Squeeze and excitation goes through this share of the channels.
const SQUEEZE: usize = 8;
/// Channels after the stem, and before the first bottleneck.
const STEM: usize = 64;
/// Channels of the last two convolutions' inputs.
const FEATURES: usize = 512;

/// The whole network from the normalized picture to the embedding.
pub fn steps() -> Vec<Step> {
    let single = |layer: Layer| Step {
        name: layer.name.clone(),
        layers: vec![layer],
        gate: None,
        residual: false,
    };
    let stem = Conv { stride: 2, padding: 1, groups: 1 };
    let stem = Layer { side: 3, how: stem, ..point("stem", 3, STEM, true) };
    let mut steps = vec![single(stem), single(depthwise("stem_dw", STEM, 1, true))];
    let mut from = STEM;
    for (wide, to, residuals, residual_wide) in
        [(128, 64, 4, 128), (256, 128, 6, 256), (512, 128, 2, 256)]
    {
        let name = format!("block{}", steps.len() - 1);
        steps.push(bottleneck(&name, [from, wide, to], 2));
        for _ in 0..residuals {
            let name = format!("block{}", steps.len() - 1);
            steps.push(bottleneck(&name, [to, residual_wide, to], 1));
        }
        from = to;
    }
    let whole = Conv { groups: FEATURES, ..Conv::VALID };
    let whole = Layer { side: 8, how: whole, ..point("features_dw", FEATURES, FEATURES, false) };
    let last = point("projection", FEATURES, EMBEDDING_SIZE, false);
    steps.push(single(point("features", from, FEATURES, true)));
    steps.push(single(whole));
    steps.push(single(Layer { bias: false, ..last }));
    steps
}

/// Expand, filter each channel, project, and scale each channel by squeeze and excitation.
/// With stride 1 the input is added to the output.
fn bottleneck(name: &str, [from, wide, to]: [usize; 3], stride: usize) -> Step {
    let part = |part: &str| format!("{name}.{part}");
    Step {
        name: name.to_owned(),
        layers: vec![
            point(&part("expand"), from, wide, true),
            depthwise(&part("filter"), wide, stride, true),
            point(&part("project"), wide, to, false),
        ],
        gate: Some([
            point(&part("squeeze"), to, to / SQUEEZE, true),
            point(&part("excite"), to / SQUEEZE, to, false),
        ]),
        residual: stride == 1,
    }
}

/// A 1x1 convolution with a bias.
fn point(name: &str, from: usize, to: usize, prelu: bool) -> Layer {
    Layer { name: name.to_owned(), from, to, side: 1, how: Conv::VALID, bias: true, prelu }
}

/// A 3x3 convolution of each channel on its own, with a bias.
fn depthwise(name: &str, channels: usize, stride: usize, prelu: bool) -> Layer {
    let how = Conv { stride, padding: 1, groups: channels };
    Layer { side: 3, how, ..point(name, channels, channels, prelu) }
}

/// Names and shapes of all tensors.
pub fn expected() -> Vec<(String, Vec<usize>)> {
    let mut expected: Vec<(String, Vec<usize>)> =
        INPUT_CONSTANTS.map(|name| (name.to_owned(), vec![1, 3, 1, 1])).into();
    let steps = steps();
    for layer in steps.iter().flat_map(Step::all_layers) {
        let Layer { name, from, to, side, how, .. } = layer;
        expected.push((format!("{name}.weight"), vec![*to, from / how.groups, *side, *side]));
        if layer.bias {
            expected.push((format!("{name}.bias"), vec![*to]));
        }
        if layer.prelu {
            expected.push((format!("{name}{SLOPE}"), vec![*to]));
        }
    }
    expected
}

/// Ending of the names of PReLU slopes.
const SLOPE: &str = ".prelu.slope";

/// The network's weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Reid {
    /// Every tensor that [`expected`] lists.
    pub tensors: Tensors,
}

impl Reid {
    /// Takes tensors under the names of [`expected`].
    ///
    /// # Errors
    /// If a tensor is missing, extra, misshapen or not finite.
    pub fn from_tensors(tensors: Tensors) -> Result<Self, WeightsError> {
        weights::check(NAME, &tensors, &expected())?;
        Ok(Self { tensors })
    }

    /// Takes the weights of a graph in OpenVINO's IR.
    ///
    /// # Errors
    /// If the graph is not exactly this network. The error names the first node that
    /// differs, what it has and what was expected.
    pub fn from_ir(graph: &Graph) -> Result<Self, IrError> {
        ir::read(graph).map(|tensors| Self { tensors })
    }

    /// Reads the weights of an ONNX file that [`Self::to_onnx`] wrote, exactly.
    ///
    /// # Errors
    /// If the file is not ONNX, is quantized, or has any node or tensor that differs.
    pub fn from_onnx(onnx: &[u8]) -> Result<Self> {
        const CURE: &str = "give the floating-point file that import openvino or export wrote";
        let graph = pb::ModelProto::decode(onnx).ok().and_then(|model| model.graph);
        let graph = graph.with_context(|| format!("not an ONNX file; {CURE}"))?;
        let mut tensors = Tensors::new();
        for constant in &graph.initializer {
            let name = &constant.name;
            ensure!(
                constant.data_type == pb::tensor_proto::DataType::Float as i32,
                "{name} is not in 32-bit floating point; {CURE}"
            );
            let mut shape: Vec<usize> =
                constant.dims.iter().map(|side| usize::try_from(*side).unwrap_or(0)).collect();
            if name.ends_with(SLOPE) && shape.len() == 3 {
                shape.truncate(1);
            }
            let tensor = Tensor::new(shape, f32_values(&constant.raw_data));
            let tensor = tensor.with_context(|| format!("{name} is cut short; {CURE}"))?;
            tensors.insert(name.clone(), tensor);
        }
        let network = Self::from_tensors(tensors).context(CURE)?;
        let own = pb::ModelProto::decode(&*network.to_onnx())?.graph.unwrap_or_default();
        if own != graph {
            let differs = own.node.iter().zip(&graph.node).find(|(own, node)| own != node);
            let name = differs.map_or("its input, output or length", |(own, _)| &own.name);
            bail!("the weights are those of {NAME}, but the graph differs at {name}; {CURE}");
        }
        Ok(network)
    }

    /// The network as an ONNX file with weights in f32: input `face`, `1 x 3 x 128 x 128`,
    /// in the order blue, green, red, values of 0 to 255; output `1 x 256`.
    pub fn to_onnx(&self) -> Vec<u8> {
        let side = Side::Fixed(INPUT_SIDE);
        let mut onnx =
            GraphBuilder::new(NAME, "face", &[Side::Fixed(1), Side::Fixed(3), side, side]);
        let [factor, term] = INPUT_CONSTANTS.map(|name| &self.tensors[name]);
        let mut at = onnx.multiply_constant("scale", "face", factor);
        at = onnx.add_constant("shift", &at, term);
        for step in steps() {
            let input = at.clone();
            for layer in &step.layers {
                at = self.layer(&mut onnx, layer, &at);
            }
            let part = |part: &str| format!("{}.{part}", step.name);
            if let Some(gate) = &step.gate {
                let mut scale = onnx.mean_pool(&part("mean"), &at);
                for layer in gate {
                    scale = self.layer(&mut onnx, layer, &scale);
                }
                scale = onnx.sigmoid(&part("gate"), &scale);
                at = onnx.multiply(&part("scaled"), &at, &scale);
            }
            if step.residual {
                at = onnx.add(&part("sum"), &input, &at);
            }
        }
        at = onnx.flatten("embedding", &at);
        onnx.output(&at, &[Side::Fixed(1), Side::Fixed(EMBEDDING_SIZE)]);
        onnx.finish()
    }

    fn layer(&self, onnx: &mut GraphBuilder, layer: &Layer, input: &str) -> String {
        let Layer { name, how, .. } = layer;
        let weight = &self.tensors[&format!("{name}.weight")];
        let bias = self.tensors.get(&format!("{name}.bias"));
        let at = onnx.conv(name, input, weight, bias, *how);
        match self.tensors.get(&format!("{name}{SLOPE}")) {
            Some(slopes) => onnx.prelu(&format!("{name}.prelu"), &at, slopes, true),
            None => at,
        }
    }
}

/// Runs the ONNX file on one picture in the door's runtime.
///
/// # Errors
/// If it does not load or if the embedding is not finite.
pub fn check(onnx: &[u8]) -> Result<()> {
    let mut network = Network::load(NAME, onnx, &signature(), &NORMALIZATION, None)?;
    let mut pictures = Batch::default();
    let pixels = pictures.add(INPUT_SIDE, INPUT_SIDE);
    for (at, pixel) in pixels.chunks_exact_mut(Batch::PIXEL).enumerate() {
        // Diagonal waves, with one length for each channel.
        let diagonal = at % INPUT_SIDE + at / INPUT_SIDE;
        for (channel, value) in pixel.iter_mut().enumerate().take(3) {
            *value = (diagonal * (3 + 2 * channel) % 256) as i16 * Batch::STEPS;
        }
    }
    let outputs = network.run(&pictures)?;
    let embedding = outputs.first().and_then(|output| output.places().next());
    if !embedding.is_some_and(|values| values.iter().all(|value| value.is_finite())) {
        bail!(
            "the network computes values that are NaN or infinite, so its weights are damaged; \
             fetch the .bin again"
        );
    }
    Ok(())
}

/// Numbers in all constants of a graph.
pub fn parameters(graph: &Graph) -> usize {
    graph.constants.values().filter_map(|tensor| element_count(&tensor.shape)).sum()
}

#[cfg(test)]
pub(crate) mod tests;
