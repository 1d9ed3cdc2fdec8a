//! Intel's face-reidentification-retail-0095 of Open Model Zoo: a MobileFaceNet (Chen, Liu,
//! Gao and Han 2018) with squeeze-and-excitation blocks (Hu, Shen and Sun,
//! "Squeeze-and-Excitation Networks", 2018) and 1.107 million parameters.
//!
//! The input is `1 x 3 x 128 x 128` in the order blue, green, red, with values of 0 to 255;
//! the graph itself normalizes them. The output is an embedding of 256 numbers, not
//! normalized to length one.

use crate::networks::onnx::{Conv, GraphBuilder, Side};
use crate::weights::openvino::{Attribute, Graph, IrError, Node, Source};
use crate::weights::{Tensor, element_count};
use anyhow::{Result, bail};
use facelatch::nn::{self, Batch, Network, Normalization, Signature};

/// Name of the model in Open Model Zoo.
pub const NAME: &str = "face-reidentification-retail-0095";
/// Side of the input picture, pixels.
pub const INPUT_SIDE: usize = 128;
/// Length of an embedding.
pub const EMBEDDING_SIZE: usize = 256;
/// Where an aligned face has left eye, right eye, tip of the nose, left and right corner of
/// the mouth, as seen in the picture: x and y as shares of the side. From the model's
/// documentation.
pub const LANDMARKS: [[f32; 2]; 5] = [
    [0.315_569, 0.461_574],
    [0.682_623, 0.461_574],
    [0.500_262, 0.640_505],
    [0.349_472, 0.824_692],
    [0.653_436, 0.824_692],
];
/// For a runtime that feeds the file: values of 0 to 255 as they are.
pub const NORMALIZATION: Normalization = Normalization { mean: [0.0; 3], std: [1.0; 3] };

/// Input and output of the ONNX file.
pub fn signature() -> Signature {
    let side = nn::Dim::Fixed(INPUT_SIDE);
    let input = [nn::Dim::Fixed(1), nn::Dim::Fixed(3), side, side];
    Signature { input, outputs: vec![EMBEDDING_SIZE] }
}

/// A bottleneck: expand, filter each channel, project, and scale each channel by squeeze
/// and excitation. With `residual` the input is added to the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bottleneck {
    wide: usize,
    to: usize,
    stride: usize,
    residual: bool,
}

/// Squeeze and excitation goes through this share of the channels.
const SQUEEZE: usize = 8;
/// Channels after the stem, and before the first bottleneck.
const STEM: usize = 64;
/// Channels of the last two convolutions' inputs.
const FEATURES: usize = 512;

/// All bottlenecks in order.
fn bottlenecks() -> Vec<Bottleneck> {
    let mut all = vec![];
    for (wide, to, residuals, residual_wide) in
        [(128, 64, 4, 128), (256, 128, 6, 256), (512, 128, 2, 256)]
    {
        all.push(Bottleneck { wide, to, stride: 2, residual: false });
        let residual = Bottleneck { wide: residual_wide, to, stride: 1, residual: true };
        all.extend(std::iter::repeat_n(residual, residuals));
    }
    all
}

/// The network as an ONNX file with weights in f32: input `face`, `1 x 3 x 128 x 128`, in
/// the order blue, green, red, values of 0 to 255; output `1 x 256`.
///
/// # Errors
/// If the graph is not exactly this network. The error names the first node that differs,
/// what it has and what was expected.
pub fn to_onnx(graph: &Graph) -> Result<Vec<u8>, IrError> {
    let side = Side::Fixed(INPUT_SIDE);
    let onnx = GraphBuilder::new(NAME, "face", &[Side::Fixed(1), Side::Fixed(3), side, side]);
    let mut walk = Walk { graph, next: 0, onnx };
    let picture = walk.picture()?;
    let mut at = walk.normalized(&picture)?;
    at = walk.conv("stem", &at, Window { to: STEM, side: 3, stride: 2, padding: 1 })?;
    at = walk.prelu("stem", &at)?;
    at = walk.depthwise("stem_dw", &at, Window { to: STEM, side: 3, stride: 1, padding: 1 })?;
    at = walk.prelu("stem_dw", &at)?;
    for (number, bottleneck) in (1..).zip(bottlenecks()) {
        at = walk.bottleneck(&format!("block{number}"), &at, bottleneck)?;
    }
    at = walk.conv("features", &at, Window::point(FEATURES))?;
    at = walk.prelu("features", &at)?;
    let whole = Window { to: FEATURES, side: 8, stride: 1, padding: 0 };
    at = walk.depthwise("features_dw", &at, whole)?;
    at = walk.conv_without_bias("projection", &at, Window::point(EMBEDDING_SIZE))?;
    walk.finish(&at)
}

/// Size and geometry of a convolution.
#[derive(Clone, Copy)]
struct Window {
    /// Output channels.
    to: usize,
    /// Side of the kernel, pixels.
    side: usize,
    /// Stride, pixels.
    stride: usize,
    /// Zero padding on each side, pixels.
    padding: usize,
}

impl Window {
    /// A 1x1 convolution.
    const fn point(to: usize) -> Self {
        Self { to, side: 1, stride: 1, padding: 0 }
    }
}

/// An activation: the node that computes it, its name in the ONNX file, and its channels
/// and side.
#[derive(Clone)]
struct Value {
    node: usize,
    name: String,
    channels: usize,
    side: usize,
}

impl Value {
    fn shape(&self) -> [usize; 4] {
        [1, self.channels, self.side, self.side]
    }
}

/// An input that a node must have.
enum Expected<'v> {
    Value(&'v Value),
    /// A constant of this shape.
    Constant(&'v [usize]),
}

/// A walk through the nodes in order, which checks each and writes it as ONNX.
struct Walk<'g> {
    graph: &'g Graph,
    next: usize,
    onnx: GraphBuilder,
}

fn text(value: &str) -> Attribute {
    Attribute::Text(value.to_owned())
}

fn pair(count: usize) -> Attribute {
    Attribute::Counts(vec![count; 2])
}

impl<'g> Walk<'g> {
    /// Takes the next node and checks its kind, attributes, inputs and output shape. Returns
    /// its index and its constant inputs.
    fn take(
        &mut self,
        kind: &str,
        attributes: &[(&str, Attribute)],
        inputs: &[Expected<'_>],
        shape: &[usize],
    ) -> Result<(usize, Vec<&'g Tensor>), IrError> {
        let Some(node) = self.graph.nodes.get(self.next) else {
            return Err(IrError::NotIr {
                reason: format!("it ends after {} nodes, before a {kind}", self.next),
                cure: "take the published FP16 or FP32 files, unchanged",
            });
        };
        let index = self.next;
        self.next += 1;
        if node.kind != kind || node.operator_set != "opset1" {
            let has = format!("the operation {} of {}", node.kind, node.operator_set);
            let expected =
                format!("{kind} of opset1 as number {} of the operations of {NAME}", index + 1);
            return Err(node.unlike(has, expected));
        }
        check_attributes(node, attributes)?;
        if node.shape != shape {
            let has = format!("an output of shape {:?}", node.shape);
            return Err(node.unlike(has, format!("{shape:?}")));
        }
        if node.inputs.len() != inputs.len() {
            let has = format!("{} inputs", node.inputs.len());
            return Err(node.unlike(has, inputs.len().to_string()));
        }
        let mut constants = vec![];
        for (number, (source, expected)) in node.inputs.iter().zip(inputs).enumerate() {
            constants.extend(self.input(node, number, source, expected)?);
        }
        Ok((index, constants))
    }

    /// Checks an input; returns its tensor if it is a constant.
    fn input(
        &self,
        node: &Node,
        number: usize,
        source: &Source,
        expected: &Expected<'_>,
    ) -> Result<Option<&'g Tensor>, IrError> {
        let name = |index: usize| {
            let node = self.graph.nodes.get(index);
            format!("the output of node {}", node.map(Node::to_string).unwrap_or_default())
        };
        let tensor = |name: &String| self.graph.constants.get(name);
        let has = match source {
            Source::Node(from) => name(*from),
            Source::Constant(name) => {
                let shape = tensor(name).map(|tensor| tensor.shape.as_slice()).unwrap_or_default();
                format!("the constant {name} of shape {shape:?}")
            }
        };
        let wanted = match (source, expected) {
            (Source::Node(from), Expected::Value(value)) if *from == value.node => {
                return Ok(None);
            }
            (Source::Constant(name), Expected::Constant(shape)) => match tensor(name) {
                Some(tensor) if tensor.shape == *shape => return Ok(Some(tensor)),
                _ => format!("shape {shape:?}"),
            },
            (_, Expected::Value(value)) => name(value.node),
            (_, Expected::Constant(shape)) => format!("a constant of shape {shape:?}"),
        };
        Err(node.unlike(format!("as input {number} {has}"), wanted))
    }

    fn picture(&mut self) -> Result<Value, IrError> {
        let shape = [1, 3, INPUT_SIDE, INPUT_SIDE];
        let attributes =
            [("shape", Attribute::Counts(shape.to_vec())), ("element_type", text("f32"))];
        let (node, _) = self.take("Parameter", &attributes, &[], &shape)?;
        Ok(Value { node, name: "face".to_owned(), channels: 3, side: INPUT_SIDE })
    }

    /// Multiplies each channel by a constant and adds another.
    fn normalized(&mut self, picture: &Value) -> Result<Value, IrError> {
        let (node, factors) = self.with_channels("Multiply", picture)?;
        let name = self.onnx.multiply_constant("scale", &picture.name, factors);
        let scaled = Value { node, name, ..picture.clone() };
        let (node, terms) = self.with_channels("Add", &scaled)?;
        let name = self.onnx.add_constant("shift", &scaled.name, terms);
        Ok(Value { node, name, ..scaled })
    }

    /// A sum or product with a constant per channel.
    fn with_channels(&mut self, kind: &str, input: &Value) -> Result<(usize, &'g Tensor), IrError> {
        let constant = [1, input.channels, 1, 1];
        let inputs = [Expected::Value(input), Expected::Constant(&constant)];
        let broadcast = [("auto_broadcast", text("numpy"))];
        let (node, constants) = self.take(kind, &broadcast, &inputs, &input.shape())?;
        Ok((node, self.only(node, &constants)?))
    }

    /// The single constant of a node that [`Self::take`] has checked.
    fn only(&self, node: usize, constants: &[&'g Tensor]) -> Result<&'g Tensor, IrError> {
        match (constants, self.graph.nodes.get(node)) {
            ([constant], _) => Ok(constant),
            (_, Some(node)) => Err(node.unlike(format!("{} constants", constants.len()), "one")),
            (_, None) => Err(IrError::NotIr {
                reason: format!("it has no node {node}"),
                cure: "fetch the file again",
            }),
        }
    }

    /// A convolution with a bias.
    fn conv(&mut self, name: &str, input: &Value, window: Window) -> Result<Value, IrError> {
        let (value, weight) = self.convolution(name, input, window, false)?;
        self.biased(input, value, &weight, window, 1)
    }

    /// A convolution of each channel on its own, with a bias.
    fn depthwise(&mut self, name: &str, input: &Value, window: Window) -> Result<Value, IrError> {
        let (value, weight) = self.convolution(name, input, window, true)?;
        self.biased(input, value, &weight, window, input.channels)
    }

    fn conv_without_bias(
        &mut self,
        name: &str,
        input: &Value,
        window: Window,
    ) -> Result<Value, IrError> {
        let (value, weight) = self.convolution(name, input, window, false)?;
        let how = Conv { stride: window.stride, padding: window.padding, groups: 1 };
        self.onnx.conv(name, &input.name, &weight, None, how);
        Ok(value)
    }

    /// Checks a convolution. Returns its output, and its weights as ONNX has them.
    fn convolution(
        &mut self,
        name: &str,
        input: &Value,
        window: Window,
        depthwise: bool,
    ) -> Result<(Value, Tensor), IrError> {
        let Window { to, side, stride, padding } = window;
        let (kind, stored) = match depthwise {
            true => ("GroupConvolution", vec![to, 1, 1, side, side]),
            false => ("Convolution", vec![to, input.channels, side, side]),
        };
        let attributes = [
            ("strides", pair(stride)),
            ("pads_begin", pair(padding)),
            ("pads_end", pair(padding)),
            ("dilations", pair(1)),
            ("auto_pad", text("explicit")),
        ];
        let value = Value {
            node: self.next,
            name: name.to_owned(),
            channels: to,
            side: (input.side + 2 * padding - side) / stride + 1,
        };
        let inputs = [Expected::Value(input), Expected::Constant(&stored)];
        let (node, constants) = self.take(kind, &attributes, &inputs, &value.shape())?;
        let weight = self.only(node, &constants)?.clone();
        let inputs = if depthwise { 1 } else { input.channels };
        Ok((value, weight.reshaped(&[to, inputs, side, side])))
    }

    /// Takes the sum that follows a convolution and writes both as one.
    fn biased(
        &mut self,
        input: &Value,
        value: Value,
        weight: &Tensor,
        window: Window,
        groups: usize,
    ) -> Result<Value, IrError> {
        let (node, bias) = self.with_channels("Add", &value)?;
        let bias = bias.clone().reshaped(&[value.channels]);
        let how = Conv { stride: window.stride, padding: window.padding, groups };
        self.onnx.conv(&value.name, &input.name, weight, Some(&bias), how);
        Ok(Value { node, ..value })
    }

    /// A PReLU with one slope for all channels, written with a slope per channel, as the
    /// door's runtime expects it.
    fn prelu(&mut self, name: &str, input: &Value) -> Result<Value, IrError> {
        let inputs = [Expected::Value(input), Expected::Constant(&[1])];
        let (node, constants) = self.take("PReLU", &[], &inputs, &input.shape())?;
        let values = self.only(node, &constants)?.values.repeat(input.channels);
        let slopes = Tensor { shape: vec![input.channels], values };
        let name = self.onnx.prelu(&format!("{name}.prelu"), &input.name, &slopes, true);
        Ok(Value { node, name, ..input.clone() })
    }

    fn bottleneck(
        &mut self,
        name: &str,
        input: &Value,
        bottleneck: Bottleneck,
    ) -> Result<Value, IrError> {
        let Bottleneck { wide, to, stride, residual } = bottleneck;
        let part = |part: &str| format!("{name}.{part}");
        let mut at = self.conv(&part("expand"), input, Window::point(wide))?;
        at = self.prelu(&part("expand"), &at)?;
        let filter = Window { to: wide, side: 3, stride, padding: 1 };
        at = self.depthwise(&part("filter"), &at, filter)?;
        at = self.prelu(&part("filter"), &at)?;
        at = self.conv(&part("project"), &at, Window::point(to))?;

        let mut scale = self.mean(&part("mean"), &at)?;
        scale = self.conv(&part("squeeze"), &scale, Window::point(to / SQUEEZE))?;
        scale = self.prelu(&part("squeeze"), &scale)?;
        scale = self.conv(&part("excite"), &scale, Window::point(to))?;
        let inputs = [Expected::Value(&scale)];
        let (node, _) = self.take("Sigmoid", &[], &inputs, &scale.shape())?;
        let gate = self.onnx.sigmoid(&part("gate"), &scale.name);
        scale = Value { node, name: gate, ..scale };

        let inputs = [Expected::Value(&at), Expected::Value(&scale)];
        let broadcast = [("auto_broadcast", text("numpy"))];
        let (node, _) = self.take("Multiply", &broadcast, &inputs, &at.shape())?;
        let scaled = self.onnx.multiply(&part("scaled"), &at.name, &scale.name);
        at = Value { node, name: scaled, ..at };
        if residual {
            let inputs = [Expected::Value(input), Expected::Value(&at)];
            let (node, _) = self.take("Add", &broadcast, &inputs, &at.shape())?;
            let sum = self.onnx.add(&part("sum"), &input.name, &at.name);
            at = Value { node, name: sum, ..at };
        }
        Ok(at)
    }

    /// The mean of each channel.
    fn mean(&mut self, name: &str, input: &Value) -> Result<Value, IrError> {
        let attributes = [
            ("kernel", pair(input.side)),
            ("strides", pair(input.side)),
            ("pads_begin", pair(0)),
            ("pads_end", pair(0)),
            ("exclude-pad", text("true")),
            ("auto_pad", text("explicit")),
            ("rounding_type", text("floor")),
        ];
        let shape = [1, input.channels, 1, 1];
        let (node, _) = self.take("AvgPool", &attributes, &[Expected::Value(input)], &shape)?;
        let name = self.onnx.mean_pool(name, &input.name);
        Ok(Value { node, name, side: 1, ..input.clone() })
    }

    /// Takes the result, which must be the last node.
    fn finish(mut self, embedding: &Value) -> Result<Vec<u8>, IrError> {
        self.take("Result", &[], &[Expected::Value(embedding)], &[])?;
        if let Some(node) = self.graph.nodes.get(self.next) {
            return Err(node.unlike("a place after the result", "the result as the last node"));
        }
        let name = self.onnx.flatten("embedding", &embedding.name);
        self.onnx.output(&name, &[Side::Fixed(1), Side::Fixed(EMBEDDING_SIZE)]);
        Ok(self.onnx.finish())
    }
}

/// Fails at an attribute that is missing, not expected or of another value.
fn check_attributes(node: &Node, expected: &[(&str, Attribute)]) -> Result<(), IrError> {
    for (name, value) in expected {
        match node.attributes.get(*name) {
            Some(has) if has == value => {}
            Some(has) => {
                return Err(node.unlike(format!("{name} {has}"), value.to_string()));
            }
            None => {
                return Err(node.unlike(format!("no attribute {name:?}"), value.to_string()));
            }
        }
    }
    let known = |name: &String| expected.iter().any(|(known, _)| known == name);
    match node.attributes.iter().find(|(name, _)| !known(name)) {
        None => Ok(()),
        Some((name, value)) => {
            Err(node.unlike(format!("the attribute {name:?}, {value}"), "no such attribute"))
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
