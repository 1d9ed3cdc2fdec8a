//! Checks a graph in OpenVINO's IR node by node against the network, and takes its weights.

use super::{EMBEDDING_SIZE, INPUT_CONSTANTS, INPUT_SIDE, Layer, NAME, SLOPE, Step, steps};
use crate::weights::openvino::{Attribute, Graph, IrError, Node, Source};
use crate::weights::{Tensor, Tensors};

/// The weights of the graph under the names of [`super::expected`].
///
/// # Errors
/// At the first node that differs.
pub(super) fn read(graph: &Graph) -> Result<Tensors, IrError> {
    let mut walk = Walk { graph, next: 0, tensors: Tensors::new() };
    let picture = walk.picture()?;
    let mut at = walk.normalized(&picture)?;
    for step in steps() {
        at = walk.step(&step, &at)?;
    }
    walk.finish(&at)
}

/// An activation: the node that computes it, and its channels and side.
#[derive(Clone, Copy)]
struct Value {
    node: usize,
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

/// A walk through the nodes in order, which checks each and takes its weights.
struct Walk<'g> {
    graph: &'g Graph,
    next: usize,
    tensors: Tensors,
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
        Ok(Value { node, channels: 3, side: INPUT_SIDE })
    }

    /// Multiplies each channel by a constant and adds another.
    fn normalized(&mut self, picture: &Value) -> Result<Value, IrError> {
        let mut at = *picture;
        for (kind, name) in ["Multiply", "Add"].into_iter().zip(INPUT_CONSTANTS) {
            let (node, constant) = self.with_channels(kind, &at)?;
            self.tensors.insert(name.to_owned(), constant.clone());
            at = Value { node, ..at };
        }
        Ok(at)
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

    /// A convolution with what belongs to it.
    fn layer(&mut self, layer: &Layer, input: &Value) -> Result<Value, IrError> {
        let mut at = self.convolution(layer, input)?;
        if layer.bias {
            let (node, bias) = self.with_channels("Add", &at)?;
            let bias = bias.clone().reshaped(&[layer.to]);
            self.tensors.insert(format!("{}.bias", layer.name), bias);
            at.node = node;
        }
        if layer.prelu {
            at = self.prelu(layer, &at)?;
        }
        Ok(at)
    }

    /// Checks a convolution and takes its weights in the shape that ONNX gives them.
    fn convolution(&mut self, layer: &Layer, input: &Value) -> Result<Value, IrError> {
        let Layer { name, from, to, side, how, .. } = layer;
        let (to, side) = (*to, *side);
        let (kind, stored) = match how.groups {
            1 => ("Convolution", vec![to, *from, side, side]),
            _ => ("GroupConvolution", vec![to, 1, 1, side, side]),
        };
        let attributes = [
            ("strides", pair(how.stride)),
            ("pads_begin", pair(how.padding)),
            ("pads_end", pair(how.padding)),
            ("dilations", pair(1)),
            ("auto_pad", text("explicit")),
        ];
        let height = (input.side + 2 * how.padding - side) / how.stride + 1;
        let shape = [1, to, height, height];
        let inputs = [Expected::Value(input), Expected::Constant(&stored)];
        let (node, constants) = self.take(kind, &attributes, &inputs, &shape)?;
        let weight = self.only(node, &constants)?.clone();
        let weight = weight.reshaped(&[to, from / how.groups, side, side]);
        self.tensors.insert(format!("{name}.weight"), weight);
        Ok(Value { node, channels: to, side: height })
    }

    /// A PReLU with one slope for all channels. It is kept as a slope per channel, as the
    /// door's runtime expects it.
    fn prelu(&mut self, layer: &Layer, input: &Value) -> Result<Value, IrError> {
        let inputs = [Expected::Value(input), Expected::Constant(&[1])];
        let (node, constants) = self.take("PReLU", &[], &inputs, &input.shape())?;
        let values = self.only(node, &constants)?.values.repeat(layer.to);
        let slopes = Tensor { shape: vec![layer.to], values };
        self.tensors.insert(format!("{}{SLOPE}", layer.name), slopes);
        Ok(Value { node, ..*input })
    }

    fn step(&mut self, step: &Step, input: &Value) -> Result<Value, IrError> {
        let mut at = *input;
        for layer in &step.layers {
            at = self.layer(layer, &at)?;
        }
        let broadcast = [("auto_broadcast", text("numpy"))];
        if let Some(gate) = &step.gate {
            let mut scale = self.mean(&at)?;
            for layer in gate {
                scale = self.layer(layer, &scale)?;
            }
            let inputs = [Expected::Value(&scale)];
            (scale.node, _) = self.take("Sigmoid", &[], &inputs, &scale.shape())?;
            let inputs = [Expected::Value(&at), Expected::Value(&scale)];
            (at.node, _) = self.take("Multiply", &broadcast, &inputs, &at.shape())?;
        }
        if step.residual {
            let inputs = [Expected::Value(input), Expected::Value(&at)];
            (at.node, _) = self.take("Add", &broadcast, &inputs, &at.shape())?;
        }
        Ok(at)
    }

    /// The mean of each channel.
    fn mean(&mut self, input: &Value) -> Result<Value, IrError> {
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
        Ok(Value { node, side: 1, ..*input })
    }

    /// Takes the result, which must be the last node.
    fn finish(mut self, embedding: &Value) -> Result<Tensors, IrError> {
        debug_assert_eq!((embedding.channels, embedding.side), (EMBEDDING_SIZE, 1));
        self.take("Result", &[], &[Expected::Value(embedding)], &[])?;
        if let Some(node) = self.graph.nodes.get(self.next) {
            return Err(node.unlike("a place after the result", "the result as the last node"));
        }
        Ok(self.tensors)
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
