//! A floating-point network as the quantizer sees it: one step for each tensor that will
//! be stored in bytes.

use crate::networks::onnx::Conv;
use crate::weights::Tensor;
use prost::Message;
use std::collections::HashMap;
use thiserror::Error;
use tract_onnx::pb;

/// Why a network cannot be quantized.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum GraphError {
    /// The bytes are not an ONNX model.
    #[error("{file}: not an ONNX model ({reason}); import or export it again with facelatch-tools")]
    NotOnnx {
        /// Name of the file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The network is already quantized.
    #[error(
        "{file}: already quantized (node {node}); give the floating-point models it was made from"
    )]
    Quantized {
        /// Name of the file.
        file: String,
        /// A node that shows it.
        node: String,
    },
    /// A node has no quantized form.
    #[error(
        "{file}: node {node}: {reason}; quantize takes networks written by facelatch-tools import or finetune"
    )]
    Unsupported {
        /// Name of the file.
        file: String,
        /// Name of the node.
        node: String,
        /// Why it has none.
        reason: String,
    },
    /// A weight is not finite.
    #[error("{file}: {tensor} holds a value that is not finite; import or train the network again")]
    NotFinite {
        /// Name of the file.
        file: String,
        /// Name of the tensor.
        tensor: String,
    },
}

/// A network as a list of steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// Name of the ONNX graph.
    pub name: String,
    /// The input picture as declared, `N x 3 x H x W`.
    pub input: pb::ValueInfoProto,
    /// Steps in execution order.
    pub steps: Vec<Step>,
    /// Outputs as declared, each with the step that computes it.
    pub outputs: Vec<(pb::ValueInfoProto, usize)>,
}

/// Computes one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Name of the ONNX node's output.
    pub name: String,
    /// The step whose output is read; `None` for the picture.
    pub input: Option<usize>,
    /// The operation.
    pub op: Op,
}

/// Operation of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// A layer with weights.
    Linear(Linear),
    /// Max pooling. A window that is only partly inside counts too.
    MaxPool {
        /// Side of the window, pixels.
        side: usize,
        /// Stride, pixels.
        stride: usize,
    },
}

/// A convolution or a fully connected layer with everything up to the next stored tensor:
/// `softmax(prelu(weight * input + bias) + residual)`. PReLU, residual and softmax are
/// optional.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// `[out, in / groups, height, width]`, or `[out, in]` for a fully connected layer,
    /// whose input is flattened first.
    pub weight: Tensor,
    /// One bias per output channel.
    pub bias: Vec<f32>,
    /// Geometry of a convolution; `None` for a fully connected layer.
    pub conv: Option<Conv>,
    /// Slopes of a PReLU, one per output channel.
    pub slopes: Option<Vec<f32>>,
    /// The step whose output is added.
    pub residual: Option<usize>,
    /// Name of the softmax over the channels.
    pub softmax: Option<String>,
}

impl Linear {
    /// Number of output channels.
    pub fn channels(&self) -> usize {
        self.bias.len()
    }

    /// Number of weights per output channel.
    pub fn row(&self) -> usize {
        self.weight.values.len() / self.channels().max(1)
    }

    /// Whether the layer is a depthwise convolution.
    pub fn is_depthwise(&self) -> bool {
        self.conv.is_some_and(|conv| conv.groups > 1)
    }
}

impl Graph {
    /// Reads an ONNX file; `file` names it in messages. Fails for bytes that are not
    /// ONNX, for a network that is already quantized, and for nodes or values that cannot
    /// be quantized.
    pub fn read(file: &str, bytes: &[u8]) -> Result<Self, GraphError> {
        let not_onnx =
            |reason: &str| GraphError::NotOnnx { file: file.to_owned(), reason: reason.to_owned() };
        let model = pb::ModelProto::decode(bytes).map_err(|error| not_onnx(&error.to_string()))?;
        let graph = model.graph.ok_or_else(|| not_onnx("it holds no graph"))?;
        let quantized = graph.node.iter().find(|node| node.op_type.contains("Linear"));
        if let Some(node) = quantized {
            return Err(GraphError::Quantized { file: file.to_owned(), node: node.name.clone() });
        }
        let constants: HashMap<&str, &pb::TensorProto> =
            graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        let inputs: Vec<&pb::ValueInfoProto> = graph
            .input
            .iter()
            .filter(|input| !constants.contains_key(input.name.as_str()))
            .collect();
        let [input] = inputs[..] else {
            return Err(not_onnx(&format!("{} inputs, expected one", inputs.len())));
        };
        let mut readers: HashMap<&str, usize> = HashMap::new();
        for name in graph.node.iter().flat_map(|node| &node.input) {
            *readers.entry(name).or_default() += 1;
        }
        let mut reader = Reader {
            file,
            constants,
            readers,
            values: HashMap::from([(input.name.clone(), Value::Picture)]),
            steps: Vec::new(),
        };
        for node in &graph.node {
            let value = reader.value(node)?;
            let [output] = &node.output[..] else {
                return Err(reader.fault(node, "expected one output"));
            };
            reader.values.insert(output.clone(), value);
        }
        let outputs = graph.output.iter().map(|output| match reader.values.get(&output.name) {
            Some(Value::Step(step)) => Ok((output.clone(), *step)),
            _ => Err(not_onnx(&format!("its output {} is not computed by a layer", output.name))),
        });
        let outputs = outputs.collect::<Result<_, _>>()?;
        let graph =
            Self { name: graph.name.clone(), input: input.clone(), steps: reader.steps, outputs };
        graph.check_heads(file)?;
        Ok(graph)
    }

    /// Fails if another node reads an output of the network, because outputs end in
    /// floating point, or if a step's output is never read.
    fn check_heads(&self, file: &str) -> Result<(), GraphError> {
        for (at, step) in self.steps.iter().enumerate() {
            let plain = match &step.op {
                Op::Linear(linear) => linear.slopes.is_none() && linear.residual.is_none(),
                Op::MaxPool { .. } => false,
            };
            let fault = match (self.is_head(at), self.readers(at).count()) {
                (true, 1..) => "an output of the network must not be read by another node",
                (true, 0) if !plain => "an output must come from a Conv or Gemm, or its Softmax",
                (false, 0) => "its output is never read",
                _ => continue,
            };
            return Err(GraphError::Unsupported {
                file: file.to_owned(),
                node: step.name.clone(),
                reason: fault.to_owned(),
            });
        }
        Ok(())
    }

    /// Whether the step computes an output of the network.
    pub fn is_head(&self, step: usize) -> bool {
        self.outputs.iter().any(|(_, head)| *head == step)
    }

    /// Steps that read the output of a step, as input or as residual.
    pub fn readers(&self, step: usize) -> impl Iterator<Item = usize> {
        self.steps.iter().enumerate().filter_map(move |(at, reader)| {
            let residual = match &reader.op {
                Op::Linear(linear) => linear.residual,
                Op::MaxPool { .. } => None,
            };
            (reader.input == Some(step) || residual == Some(step)).then_some(at)
        })
    }

    /// The layers with weights, each with the index of its step.
    pub fn linears(&self) -> impl Iterator<Item = (usize, &Linear)> {
        self.steps.iter().enumerate().filter_map(|(at, step)| match &step.op {
            Op::Linear(linear) => Some((at, linear)),
            Op::MaxPool { .. } => None,
        })
    }

    /// The same, mutable.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = (usize, &mut Linear)> {
        self.steps.iter_mut().enumerate().filter_map(|(at, step)| match &mut step.op {
            Op::Linear(linear) => Some((at, linear)),
            Op::MaxPool { .. } => None,
        })
    }
}

/// What an ONNX tensor name stands for.
#[derive(Clone, Copy)]
enum Value {
    Picture,
    Step(usize),
    Flat(usize),
}

struct Reader<'g> {
    file: &'g str,
    constants: HashMap<&'g str, &'g pb::TensorProto>,
    /// Number of nodes that read each name.
    readers: HashMap<&'g str, usize>,
    values: HashMap<String, Value>,
    steps: Vec<Step>,
}

impl Reader<'_> {
    fn fault(&self, node: &pb::NodeProto, reason: impl Into<String>) -> GraphError {
        GraphError::Unsupported {
            file: self.file.to_owned(),
            node: node.name.clone(),
            reason: reason.into(),
        }
    }

    fn value(&mut self, node: &pb::NodeProto) -> Result<Value, GraphError> {
        match node.op_type.as_str() {
            "Conv" => {
                let input = match self.input(node, 0)? {
                    Value::Picture => None,
                    Value::Step(step) => Some(step),
                    Value::Flat(_) => return Err(self.fault(node, "a Conv after a Flatten")),
                };
                let weight = self.constant(node, 1)?;
                let conv = self.conv(node, &weight)?;
                self.layer(node, input, weight, Some(conv))
            }
            "Gemm" => {
                // A plane of one pixel is already flat.
                let (Value::Step(input) | Value::Flat(input)) = self.input(node, 0)? else {
                    return Err(self.fault(node, "a Gemm on the picture"));
                };
                let weight = self.constant(node, 1)?;
                let plain = int(node, "transB", 0) == 1
                    && int(node, "transA", 0) == 0
                    && [float(node, "alpha"), float(node, "beta")] == [1.0, 1.0];
                if !plain || weight.shape.len() != 2 {
                    return Err(self.fault(node, "expected transB = 1 and no factors"));
                }
                self.layer(node, Some(input), weight, None)
            }
            "PRelu" => {
                let slopes = self.constant(node, 1)?.values;
                let (step, linear) = self.pending(node, 0)?;
                if linear.channels() != slopes.len() {
                    return Err(self.fault(node, "expected one slope per channel"));
                }
                linear.slopes = Some(slopes);
                Ok(Value::Step(step))
            }
            "Add" => {
                let (Value::Step(a), Value::Step(b)) = (self.input(node, 0)?, self.input(node, 1)?)
                else {
                    return Err(self.fault(node, "expected the outputs of two layers"));
                };
                // The later one is the layer that has just run.
                let (at, other) = if a > b { (0, b) } else { (1, a) };
                let (step, linear) = self.pending(node, at)?;
                linear.residual = Some(other);
                Ok(Value::Step(step))
            }
            "Softmax" => {
                if int(node, "axis", -1) != 1 {
                    return Err(self.fault(node, "expected axis 1"));
                }
                let (step, linear) = self.pending(node, 0)?;
                linear.softmax = Some(named(node));
                Ok(Value::Step(step))
            }
            "MaxPool" => {
                let Value::Step(input) = self.input(node, 0)? else {
                    return Err(self.fault(node, "expected the output of a layer"));
                };
                let (side, stride) = (same(node, "kernel_shape", 0), same(node, "strides", 1));
                let plain = same(node, "pads", 0) == Some(0) && int(node, "ceil_mode", 0) == 1;
                let (Some(side @ 1..), Some(stride @ 1..), true) = (side, stride, plain) else {
                    return Err(self.fault(node, "expected a square window and ceil_mode = 1"));
                };
                let op = Op::MaxPool { side, stride };
                Ok(self.step(Step { name: named(node), input: Some(input), op }))
            }
            "Flatten" => match self.input(node, 0)? {
                Value::Step(step) if int(node, "axis", 1) == 1 => Ok(Value::Flat(step)),
                _ => Err(self.fault(node, "expected the output of a layer and axis 1")),
            },
            other => Err(self.fault(node, format!("{other} has no 8-bit form"))),
        }
    }

    fn input(&self, node: &pb::NodeProto, at: usize) -> Result<Value, GraphError> {
        let name = node.input.get(at).map_or("", String::as_str);
        let value = self.values.get(name);
        value.copied().ok_or_else(|| self.fault(node, format!("its input {name:?} does not exist")))
    }

    fn constant(&self, node: &pb::NodeProto, at: usize) -> Result<Tensor, GraphError> {
        let name = node.input.get(at).map_or("", String::as_str);
        let Some(constant) = self.constants.get(name) else {
            return Err(self.fault(node, format!("its input {name:?} must be a constant")));
        };
        let shape = constant.dims.iter().map(|side| usize::try_from(*side).unwrap_or(0)).collect();
        let values = if constant.raw_data.is_empty() {
            constant.float_data.clone()
        } else {
            let (values, _) = constant.raw_data.as_chunks::<4>();
            values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        };
        let float = constant.data_type == pb::tensor_proto::DataType::Float as i32;
        let Some(tensor) = Tensor::new(shape, values).filter(|_| float) else {
            return Err(self.fault(node, format!("{name} is cut short or not floating point")));
        };
        if tensor.values.iter().any(|value| !value.is_finite()) {
            let (file, tensor) = (self.file.to_owned(), name.to_owned());
            return Err(GraphError::NotFinite { file, tensor });
        }
        Ok(tensor)
    }

    fn conv(&self, node: &pb::NodeProto, weight: &Tensor) -> Result<Conv, GraphError> {
        let sides = (same(node, "strides", 1), same(node, "pads", 0), same(node, "dilations", 1));
        let groups = usize::try_from(int(node, "group", 1)).unwrap_or(0);
        let depthwise = groups > 1 && weight.shape.get(..2) == Some(&[groups, 1][..]);
        match sides {
            (Some(stride @ 1..), Some(padding), Some(1))
                if weight.shape.len() == 4 && (groups == 1 || depthwise) =>
            {
                Ok(Conv { stride, padding, groups })
            }
            _ => Err(self.fault(
                node,
                "expected the same stride and padding on all sides, and one group or one per channel",
            )),
        }
    }

    fn layer(
        &mut self,
        node: &pb::NodeProto,
        input: Option<usize>,
        weight: Tensor,
        conv: Option<Conv>,
    ) -> Result<Value, GraphError> {
        let channels = weight.shape[0];
        let bias = match node.input.get(2) {
            Some(_) => self.constant(node, 2)?.values,
            None => vec![0.0; channels],
        };
        if bias.len() != channels || weight.values.is_empty() {
            return Err(self.fault(node, format!("{} biases for {channels} channels", bias.len())));
        }
        let linear = Linear { weight, bias, conv, slopes: None, residual: None, softmax: None };
        Ok(self.step(Step { name: named(node), input, op: Op::Linear(linear) }))
    }

    fn step(&mut self, step: Step) -> Value {
        self.steps.push(step);
        Value::Step(self.steps.len() - 1)
    }

    /// The layer that a node extends. Only this node may read its output, and no other
    /// node may have extended it.
    fn pending(
        &mut self,
        node: &pb::NodeProto,
        at: usize,
    ) -> Result<(usize, &mut Linear), GraphError> {
        let fault = self.fault(node, "must follow a Conv or Gemm that no other node reads");
        let alone =
            node.input.get(at).is_some_and(|name| self.readers.get(name.as_str()) == Some(&1));
        let Value::Step(step) = self.input(node, at)? else { return Err(fault) };
        match self.steps.get_mut(step).map(|step| &mut step.op) {
            Some(Op::Linear(linear))
                if alone
                    && linear.slopes.is_none()
                    && linear.residual.is_none()
                    && linear.softmax.is_none() =>
            {
                Ok((step, linear))
            }
            _ => Err(fault),
        }
    }
}

/// Name of a node's first output, which unlike the node's own name is never empty.
fn named(node: &pb::NodeProto) -> String {
    node.output.first().cloned().unwrap_or_default()
}

fn attribute<'n>(node: &'n pb::NodeProto, name: &str) -> Option<&'n pb::AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

fn int(node: &pb::NodeProto, name: &str, default: i64) -> i64 {
    attribute(node, name).map_or(default, |attribute| attribute.i)
}

fn float(node: &pb::NodeProto, name: &str) -> f32 {
    attribute(node, name).map_or(1.0, |attribute| attribute.f)
}

/// The value of a list attribute if all entries are equal.
fn same(node: &pb::NodeProto, name: &str, default: usize) -> Option<usize> {
    let Some(attribute) = attribute(node, name) else { return Some(default) };
    let first = *attribute.ints.first()?;
    let same = attribute.ints.iter().all(|side| *side == first);
    usize::try_from(first).ok().filter(|_| same)
}

#[cfg(test)]
mod tests {
    use super::super::affine::normalized;
    use super::super::simulate::Simulation;
    use super::super::toy;
    use super::*;
    use crate::train::torch_net::tests::noise;
    use facelatch::nn::Normalization;
    use tch::Device;

    #[test]
    fn torch_and_the_device_agree_on_what_was_read() {
        let bytes = toy::onnx(1);
        let graph = Graph::read("toy.onnx", &bytes).expect("a graph");
        assert_eq!(graph.steps.len(), 9);
        let (pictures, from) = (toy::pictures(3, 1), Normalization::IMAGENET);
        let network = Simulation::float(&graph, Device::Cpu);
        let torch = toy::torch(&network, &normalized(&pictures, &from));
        assert!(toy::difference(&torch, &toy::device(&bytes, &pictures, &from)) < 1e-4);
    }

    #[test]
    fn the_recognizer_is_read_whole() {
        let graph = Graph::read("noise.onnx", &noise(32, 7).to_onnx()).expect("a graph");
        assert_eq!(graph.linears().filter(|(_, linear)| linear.residual.is_some()).count(), 12);
        assert_eq!(graph.linears().filter(|(_, linear)| linear.is_depthwise()).count(), 17);
        assert_eq!(graph.outputs.len(), 1);
    }

    fn changed(change: impl Fn(&mut pb::GraphProto)) -> String {
        let mut model = pb::ModelProto::decode(&toy::onnx(1)[..]).expect("a model");
        model.graph.iter_mut().for_each(change);
        let error = Graph::read("toy.onnx", &model.encode_to_vec()).expect_err("a fault");
        error.to_string()
    }

    #[test]
    fn what_cannot_be_quantized_is_named() {
        let said = changed(|graph| graph.node[1].op_type = "Sigmoid".to_owned());
        assert!(said.contains("node first.prelu: Sigmoid has no 8-bit form"), "{said}");
        let said = changed(|graph| graph.node[3].op_type = "DequantizeLinear".to_owned());
        assert!(said.contains("already quantized (node wide)"), "{said}");
        let said = changed(|graph| {
            graph.initializer[0].raw_data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        });
        assert!(said.contains("first.weight holds a value that is not finite"), "{said}");
        let said = changed(|graph| graph.output.truncate(1));
        assert!(said.contains("node box: its output is never read"), "{said}");
        assert!(Graph::read("x", b"no model").is_err());
    }
}
