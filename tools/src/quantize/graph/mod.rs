//! A floating-point network as the quantizer sees it: one step for each tensor that will
//! be stored in bytes.

mod reader;

use crate::networks::onnx::Conv;
use crate::weights::Tensor;
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
    /// What happens to the picture before the first layers; `None` if they read it as it
    /// is.
    pub start: Option<PerChannel>,
    /// Steps in execution order.
    pub steps: Vec<Step>,
    /// Outputs as declared, each with the step that computes it.
    pub outputs: Vec<(pb::ValueInfoProto, usize)>,
}

/// `value * factor + term`, with one factor and one term for each channel of the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PerChannel {
    /// The factors.
    pub factors: [f32; 3],
    /// The terms.
    pub terms: [f32; 3],
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
    /// The mean of each channel over height and width, which become 1.
    MeanPool,
    /// Each channel times its gate, which makes the output of squeeze and excitation (Hu,
    /// Shen and Sun, "Squeeze-and-Excitation Networks", 2018): `input * gate + residual`,
    /// where the residual is optional.
    Gate {
        /// The step that ends in a sigmoid; its height and width are 1.
        gate: usize,
        /// The step whose output is added.
        residual: Option<usize>,
    },
}

/// Function at the end of a layer, with the name of its output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Over the channels.
    Softmax(String),
    /// Of each value.
    Sigmoid(String),
}

/// A convolution or a fully connected layer with everything up to the next stored tensor:
/// `finish(prelu(weight * input + bias) + residual)`. PReLU, residual and finish are
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
    /// Slopes of a PReLU, one per output channel. A ReLU has slopes of 0.
    pub slopes: Option<Vec<f32>>,
    /// The step whose output is added.
    pub residual: Option<usize>,
    /// Softmax or sigmoid.
    pub finish: Option<Finish>,
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

    /// Whether the PReLU is a ReLU.
    pub fn is_relu(&self) -> bool {
        self.slopes.as_ref().is_some_and(|slopes| slopes.iter().all(|slope| *slope == 0.0))
    }

    /// Whether the layer ends in a sigmoid.
    pub fn is_sigmoid(&self) -> bool {
        matches!(self.finish, Some(Finish::Sigmoid(_)))
    }
}

impl Step {
    /// Steps whose outputs are read: the input, and the residual and the gate.
    pub fn reads(&self) -> impl Iterator<Item = usize> {
        let more = match &self.op {
            Op::Linear(linear) => [linear.residual, None],
            Op::Gate { gate, residual } => [Some(*gate), *residual],
            Op::MaxPool { .. } | Op::MeanPool => [None, None],
        };
        self.input.into_iter().chain(more.into_iter().flatten())
    }
}

impl Graph {
    /// Whether the step computes an output of the network.
    pub fn is_head(&self, step: usize) -> bool {
        self.outputs.iter().any(|(_, head)| *head == step)
    }

    /// Steps that read the output of a step.
    pub fn readers(&self, step: usize) -> impl Iterator<Item = usize> {
        let reads = move |reader: &Step| reader.reads().any(|read| read == step);
        (0..).zip(&self.steps).filter_map(move |(at, reader)| reads(reader).then_some(at))
    }

    /// The layers with weights, each with the index of its step.
    pub fn linears(&self) -> impl Iterator<Item = (usize, &Linear)> {
        self.steps.iter().enumerate().filter_map(|(at, step)| match &step.op {
            Op::Linear(linear) => Some((at, linear)),
            Op::MaxPool { .. } | Op::MeanPool | Op::Gate { .. } => None,
        })
    }

    /// The same, mutable.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = (usize, &mut Linear)> {
        self.steps.iter_mut().enumerate().filter_map(|(at, step)| match &mut step.op {
            Op::Linear(linear) => Some((at, linear)),
            Op::MaxPool { .. } | Op::MeanPool | Op::Gate { .. } => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::reid;
    use crate::quantize::affine::normalized;
    use crate::quantize::simulate::Simulation;
    use crate::quantize::toy;
    use crate::train::torch_net::tests::noise;
    use facelatch::nn::Normalization;
    use prost::Message;
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

    #[test]
    fn gates_are_read_as_the_device_runs_them() {
        let bytes = toy::gated();
        let graph = Graph::read("gated.onnx", &bytes).expect("a graph");
        let is_gate = |step: &&Step| matches!(step.op, Op::Gate { .. });
        assert_eq!((graph.steps.len(), graph.steps.iter().filter(is_gate).count()), (17, 2));
        let relus = graph.linears().filter(|(_, linear)| linear.is_relu()).count();
        let sigmoids = graph.linears().filter(|(_, linear)| linear.is_sigmoid()).count();
        assert_eq!((relus, sigmoids), (1, 2));
        let (pictures, from) =
            (toy::pictures(3, 1), Normalization { mean: [0.0; 3], std: [1.0; 3] });
        let network = Simulation::float(&graph, Device::Cpu);
        let torch = toy::torch(&network, &normalized(&pictures, &from));
        let device = toy::device_of(&bytes, &[toy::GATED_OUTPUT], &pictures, &from);
        assert!(toy::difference(&torch, &device) < 1e-4);
    }

    #[test]
    fn the_network_of_open_model_zoo_is_read_whole() {
        let graph = Graph::read("noise.onnx", &reid::tests::noise()).expect("a graph");
        let residual = |step: &&Step| matches!(step.op, Op::Gate { residual: Some(_), .. });
        assert_eq!(graph.steps.iter().filter(residual).count(), 12);
        assert_eq!(graph.linears().count(), 80);
        assert!(graph.start.is_some());
        let (output, head) = &graph.outputs[0];
        // Fully connected, so that the door's runtime takes it for an output in 8 bits.
        let last = graph.linears().last().expect("a layer");
        assert_eq!((last.0, last.1.conv, &last.1.weight.shape[..]), (*head, None, &[256, 512][..]));
        assert_eq!(output.name, graph.steps[*head].name);
    }

    fn changed(change: impl Fn(&mut pb::GraphProto)) -> String {
        fault(&toy::onnx(1), change)
    }

    fn fault(file: &[u8], change: impl Fn(&mut pb::GraphProto)) -> String {
        let mut model = pb::ModelProto::decode(file).expect("a model");
        model.graph.iter_mut().for_each(change);
        let error = Graph::read("toy.onnx", &model.encode_to_vec()).expect_err("a fault");
        error.to_string()
    }

    #[test]
    fn what_cannot_be_quantized_is_named() {
        let said = changed(|graph| graph.node[1].op_type = "Tanh".to_owned());
        assert!(said.contains("node first.prelu: Tanh has no 8-bit form"), "{said}");
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

    #[test]
    fn gates_that_cannot_be_quantized_are_named() {
        let inputs = |graph: &mut pb::GraphProto, node: &str, at: usize, name: &str| {
            let nodes = graph.node.iter_mut().filter(|found| found.name == node);
            nodes.for_each(|node| name.clone_into(&mut node.input[at]));
        };
        for (node, at, input, expected) in [
            (
                "one.scaled",
                1,
                "one.mean",
                "node one.scaled: expected the output of a layer and a Sig",
            ),
            ("one.scaled", 0, "one.expand.prelu", "node one.scaled: 8 gates for 16 channels"),
            ("two.mean", 0, "one.gate", "node one.excite: only a Mul may read a Sigmoid"),
            (
                "two.scaled",
                0,
                "two.gate",
                "node two.scaled: expected the output of a layer and a Sig",
            ),
            ("first", 0, "picture", "node scale: another node reads the picture without it"),
            ("two.gate", 0, "one.excite", "node one.gate: must follow a Conv or Gemm"),
            ("two.sum", 0, "two.gate", "node two.excite: only a Mul may read a Sigmoid"),
            (
                "embedding",
                0,
                "two.sum",
                "output embedding is not a Conv on a single pixel, flattened",
            ),
        ] {
            let said = fault(&toy::gated(), |graph| inputs(graph, node, at, input));
            assert!(said.contains(expected), "{node} {input}: {said}");
        }
        let said = fault(&toy::gated(), |graph| {
            let factors = graph.initializer.iter_mut().filter(|found| found.name == "scale.factor");
            factors.for_each(|factor| factor.dims = vec![3]);
        });
        assert!(said.contains("node scale: expected one constant for each of three"), "{said}");
    }
}
