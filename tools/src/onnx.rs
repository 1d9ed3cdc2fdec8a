//! Writing ONNX graphs.

use crate::weights::Tensor;
use prost::Message;
use tract_onnx::pb;

/// Operator set of the graphs written. 13 is the oldest with all that is used,
/// so the most readers know it.
const OPSET: i64 = 13;
/// Version of the file format that came with it.
const IR_VERSION: i64 = 8;

/// One side of an input or output.
#[derive(Clone, Copy, Debug)]
pub enum Side {
    /// Always this many.
    Fixed(usize),
    /// Any number, under this name.
    Free(&'static str),
}

/// A graph under construction. Every method adds a node and returns the name
/// of its output.
pub struct GraphBuilder {
    graph: pb::GraphProto,
}

impl GraphBuilder {
    /// A graph with one f32 input.
    pub fn new(name: &str, input: &str, shape: &[Side]) -> Self {
        let graph = pb::GraphProto {
            name: name.to_owned(),
            input: vec![value_info(input, shape)],
            ..Default::default()
        };
        Self { graph }
    }

    /// Convolution of `[out, in / groups, height, width]` weights.
    pub fn conv(
        &mut self,
        name: &str,
        input: &str,
        weight: &Tensor,
        bias: Option<&Tensor>,
        how: Conv,
    ) -> String {
        let kernel = [weight.shape[2] as i64, weight.shape[3] as i64];
        let mut inputs = vec![input.to_owned(), self.constant(&format!("{name}.weight"), weight)];
        if let Some(bias) = bias {
            inputs.push(self.constant(&format!("{name}.bias"), bias));
        }
        let attributes = vec![
            ints("kernel_shape", &kernel),
            ints("strides", &[how.stride as i64; 2]),
            ints("pads", &[how.padding as i64; 4]),
            int("group", how.groups as i64),
        ];
        self.node("Conv", name, inputs, attributes)
    }

    /// Fully connected layer of `[out, in]` weights on a flat input.
    pub fn gemm(&mut self, name: &str, input: &str, weight: &Tensor, bias: &Tensor) -> String {
        let inputs = vec![
            input.to_owned(),
            self.constant(&format!("{name}.weight"), weight),
            self.constant(&format!("{name}.bias"), bias),
        ];
        self.node("Gemm", name, inputs, vec![int("transB", 1)])
    }

    /// PReLU of one slope a channel; `spatial` tells whether height and width
    /// follow the channels.
    pub fn prelu(&mut self, name: &str, input: &str, slopes: &Tensor, spatial: bool) -> String {
        let channels = slopes.values.len();
        let shape: &[usize] = if spatial { &[channels, 1, 1] } else { &[channels] };
        let slopes = slopes.clone().reshaped(shape);
        let inputs = vec![input.to_owned(), self.constant(&format!("{name}.slope"), &slopes)];
        self.node("PRelu", name, inputs, vec![])
    }

    /// Max-pooling; a window that is only partly there counts, too.
    pub fn max_pool(&mut self, name: &str, input: &str, side: usize, stride: usize) -> String {
        let attributes = vec![
            ints("kernel_shape", &[side as i64; 2]),
            ints("strides", &[stride as i64; 2]),
            int("ceil_mode", 1),
        ];
        self.node("MaxPool", name, vec![input.to_owned()], attributes)
    }

    /// Softmax over axis 1, the channels.
    pub fn softmax(&mut self, name: &str, input: &str) -> String {
        self.node("Softmax", name, vec![input.to_owned()], vec![int("axis", 1)])
    }

    /// All axes but the batch into one.
    pub fn flatten(&mut self, name: &str, input: &str) -> String {
        self.node("Flatten", name, vec![input.to_owned()], vec![int("axis", 1)])
    }

    /// Sum of two tensors of one shape.
    pub fn add(&mut self, name: &str, a: &str, b: &str) -> String {
        self.node("Add", name, vec![a.to_owned(), b.to_owned()], vec![])
    }

    /// Declares an output.
    pub fn output(&mut self, name: &str, shape: &[Side]) {
        self.graph.output.push(value_info(name, shape));
    }

    /// The file's bytes.
    pub fn finish(self) -> Vec<u8> {
        let model = pb::ModelProto {
            ir_version: IR_VERSION,
            opset_import: vec![pb::OperatorSetIdProto { domain: String::new(), version: OPSET }],
            producer_name: env!("CARGO_PKG_NAME").to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            graph: Some(self.graph),
            ..Default::default()
        };
        model.encode_to_vec()
    }

    fn constant(&mut self, name: &str, tensor: &Tensor) -> String {
        self.graph.initializer.push(pb::TensorProto {
            name: name.to_owned(),
            dims: tensor.shape.iter().map(|side| *side as i64).collect(),
            data_type: pb::tensor_proto::DataType::Float as i32,
            raw_data: tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            ..Default::default()
        });
        name.to_owned()
    }

    fn node(
        &mut self,
        kind: &str,
        name: &str,
        input: Vec<String>,
        attribute: Vec<pb::AttributeProto>,
    ) -> String {
        self.graph.node.push(pb::NodeProto {
            name: name.to_owned(),
            op_type: kind.to_owned(),
            input,
            output: vec![name.to_owned()],
            attribute,
            ..Default::default()
        });
        name.to_owned()
    }
}

/// How a convolution walks.
#[derive(Clone, Copy, Debug)]
pub struct Conv {
    /// Step between two windows, both ways.
    pub stride: usize,
    /// Zeros around the picture, all four sides.
    pub padding: usize,
    /// Groups of channels that do not mix.
    pub groups: usize,
}

impl Conv {
    /// Every pixel, no padding, all channels mix.
    pub const VALID: Self = Self { stride: 1, padding: 0, groups: 1 };
}

fn int(name: &str, value: i64) -> pb::AttributeProto {
    pb::AttributeProto {
        name: name.to_owned(),
        r#type: pb::attribute_proto::AttributeType::Int as i32,
        i: value,
        ..Default::default()
    }
}

fn ints(name: &str, values: &[i64]) -> pb::AttributeProto {
    pb::AttributeProto {
        name: name.to_owned(),
        r#type: pb::attribute_proto::AttributeType::Ints as i32,
        ints: values.to_vec(),
        ..Default::default()
    }
}

fn value_info(name: &str, shape: &[Side]) -> pb::ValueInfoProto {
    use pb::tensor_shape_proto::{Dimension, dimension::Value};
    let dim = shape
        .iter()
        .map(|side| Dimension {
            value: Some(match side {
                Side::Fixed(n) => Value::DimValue(*n as i64),
                Side::Free(name) => Value::DimParam((*name).to_owned()),
            }),
            ..Default::default()
        })
        .collect();
    let tensor = pb::type_proto::Tensor {
        elem_type: pb::tensor_proto::DataType::Float as i32,
        shape: Some(pb::TensorShapeProto { dim }),
    };
    pb::ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(pb::TypeProto {
            value: Some(pb::type_proto::Value::TensorType(tensor)),
            ..Default::default()
        }),
        ..Default::default()
    }
}
