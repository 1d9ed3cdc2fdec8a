//! Builds ONNX graphs.

use crate::weights::Tensor;
use prost::Message;
use tract_onnx::pb;

/// Operator set of the graphs. 13 is the oldest with every operator used here, so most
/// runtimes know it.
pub const OPSET: i64 = 13;
/// Version of the ONNX file format.
const IR_VERSION: i64 = 8;

/// One axis of an input or output.
#[derive(Clone, Copy, Debug)]
pub enum Side {
    /// Fixed length.
    Fixed(usize),
    /// Any length, under this name.
    Free(&'static str),
}

/// A graph under construction. Each method that adds a node returns the name of its
/// output.
pub struct GraphBuilder {
    graph: pb::GraphProto,
}

impl GraphBuilder {
    /// An empty graph with one f32 input.
    pub fn new(name: &str, input: &str, shape: &[Side]) -> Self {
        let graph = pb::GraphProto {
            name: name.to_owned(),
            input: vec![value_info(input, shape)],
            ..Default::default()
        };
        Self { graph }
    }

    /// An empty graph with the input declaration of another graph.
    pub fn with_input(name: &str, input: pb::ValueInfoProto) -> Self {
        let graph =
            pb::GraphProto { name: name.to_owned(), input: vec![input], ..Default::default() };
        Self { graph }
    }

    /// Convolution with weights `[out, in / groups, height, width]`.
    pub fn conv(
        &mut self,
        name: &str,
        input: &str,
        weight: &Tensor,
        bias: Option<&Tensor>,
        how: Conv,
    ) -> String {
        let mut inputs = vec![input.to_owned(), self.constant(&format!("{name}.weight"), weight)];
        if let Some(bias) = bias {
            inputs.push(self.constant(&format!("{name}.bias"), bias));
        }
        self.conv_of(name, inputs, (weight.shape[2], weight.shape[3]), how)
    }

    /// Convolution of tensors already in the graph: input, weight, bias. The kernel is
    /// height and width.
    pub fn conv_of(
        &mut self,
        name: &str,
        inputs: Vec<String>,
        kernel: (usize, usize),
        how: Conv,
    ) -> String {
        let attributes = vec![
            ints("kernel_shape", &[kernel.0 as i64, kernel.1 as i64]),
            ints("strides", &[how.stride as i64; 2]),
            ints("pads", &[how.padding as i64; 4]),
            int("group", how.groups as i64),
        ];
        self.node("Conv", name, inputs, attributes)
    }

    /// Fully connected layer with weights `[out, in]` on a flat input.
    pub fn gemm(&mut self, name: &str, input: &str, weight: &Tensor, bias: &Tensor) -> String {
        let inputs = vec![
            input.to_owned(),
            self.constant(&format!("{name}.weight"), weight),
            self.constant(&format!("{name}.bias"), bias),
        ];
        self.gemm_of(name, inputs)
    }

    /// Fully connected layer of tensors already in the graph: input, weight, bias.
    pub fn gemm_of(&mut self, name: &str, inputs: Vec<String>) -> String {
        self.node("Gemm", name, inputs, vec![int("transB", 1)])
    }

    /// Quantizes an activation to 8 bits and dequantizes it. The output is `input` in
    /// steps of `scale`, clipped to the range of an i8. Constants are named after `name`.
    pub fn through_bytes(&mut self, name: &str, input: &str, scale: f32, zero_point: i8) -> String {
        let (scales, zeros) = (format!("{name}.scale"), format!("{name}.zero_point"));
        let scale = Tensor { shape: vec![], values: vec![scale] };
        let constants = [
            self.constant(&scales, &scale),
            self.whole_constant(&zeros, &[], Whole::Bytes(&[zero_point])),
        ];
        let with = |input: String| [vec![input], constants.to_vec()].concat();
        let bytes = format!("{name}.bytes");
        self.node("QuantizeLinear", &bytes, with(input.to_owned()), vec![]);
        self.node("DequantizeLinear", &format!("{name}.back"), with(bytes), vec![])
    }

    /// Dequantized constant: integers times one scale per index of axis 0.
    pub fn scaled(&mut self, name: &str, shape: &[usize], values: Whole, scales: &[f32]) -> String {
        let (bytes, words) = (vec![0; scales.len()], vec![0; scales.len()]);
        let zeros = match values {
            Whole::Bytes(_) => Whole::Bytes(&bytes),
            Whole::Words(_) => Whole::Words(&words),
        };
        let channels = [scales.len()];
        let tensor = Tensor { shape: channels.to_vec(), values: scales.to_vec() };
        let inputs = vec![
            self.whole_constant(name, shape, values),
            self.constant(&format!("{name}.scale"), &tensor),
            self.whole_constant(&format!("{name}.zero_point"), &channels, zeros),
        ];
        self.node("DequantizeLinear", &format!("{name}.back"), inputs, vec![int("axis", 0)])
    }

    /// PReLU with one slope per channel. `spatial` means that height and width follow the
    /// channels.
    pub fn prelu(&mut self, name: &str, input: &str, slopes: &Tensor, spatial: bool) -> String {
        let channels = slopes.values.len();
        let shape: &[usize] = if spatial { &[channels, 1, 1] } else { &[channels] };
        let slopes = slopes.clone().reshaped(shape);
        let inputs = vec![input.to_owned(), self.constant(&format!("{name}.slope"), &slopes)];
        self.node("PRelu", name, inputs, vec![])
    }

    /// Max pooling. A window that is only partly inside counts too.
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

    /// Flattens all axes but the batch into one.
    pub fn flatten(&mut self, name: &str, input: &str) -> String {
        self.node("Flatten", name, vec![input.to_owned()], vec![int("axis", 1)])
    }

    /// Sum of two tensors of the same shape.
    pub fn add(&mut self, name: &str, a: &str, b: &str) -> String {
        self.node("Add", name, vec![a.to_owned(), b.to_owned()], vec![])
    }

    /// Product of two tensors, one of which may have a single row and column.
    pub fn multiply(&mut self, name: &str, a: &str, b: &str) -> String {
        self.node("Mul", name, vec![a.to_owned(), b.to_owned()], vec![])
    }

    /// Product with a constant that broadcasts to the input.
    pub fn multiply_constant(&mut self, name: &str, input: &str, factors: &Tensor) -> String {
        let factors = self.constant(&format!("{name}.factor"), factors);
        self.multiply(name, input, &factors)
    }

    /// Sum with a constant that broadcasts to the input.
    pub fn add_constant(&mut self, name: &str, input: &str, terms: &Tensor) -> String {
        let terms = self.constant(&format!("{name}.term"), terms);
        self.add(name, input, &terms)
    }

    /// Mean of each channel, with height and width 1.
    pub fn mean_pool(&mut self, name: &str, input: &str) -> String {
        self.node("GlobalAveragePool", name, vec![input.to_owned()], vec![])
    }

    /// Replaces negative values by 0.
    pub fn relu(&mut self, name: &str, input: &str) -> String {
        self.node("Relu", name, vec![input.to_owned()], vec![])
    }

    /// `1 / (1 + e^-x)`.
    pub fn sigmoid(&mut self, name: &str, input: &str) -> String {
        self.node("Sigmoid", name, vec![input.to_owned()], vec![])
    }

    /// Declares an output.
    pub fn output(&mut self, name: &str, shape: &[Side]) {
        self.graph.output.push(value_info(name, shape));
    }

    /// Declares an output with the declaration of another graph.
    pub fn output_like(&mut self, output: pb::ValueInfoProto) {
        self.graph.output.push(output);
    }

    /// The bytes of the ONNX file.
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

    fn whole_constant(&mut self, name: &str, shape: &[usize], values: Whole) -> String {
        use pb::tensor_proto::DataType;
        let (data_type, raw_data) = match values {
            Whole::Bytes(values) => {
                (DataType::Int8, values.iter().map(|value| value.cast_unsigned()).collect())
            }
            Whole::Words(values) => {
                (DataType::Int32, values.iter().flat_map(|value| value.to_le_bytes()).collect())
            }
        };
        self.graph.initializer.push(pb::TensorProto {
            name: name.to_owned(),
            dims: shape.iter().map(|side| *side as i64).collect(),
            data_type: data_type as i32,
            raw_data,
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

/// Integers of a constant.
#[derive(Clone, Copy, Debug)]
pub enum Whole<'v> {
    /// 8 bits each.
    Bytes(&'v [i8]),
    /// 32 bits each.
    Words(&'v [i32]),
}

/// Geometry of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Stride in both directions, pixels.
    pub stride: usize,
    /// Zero padding on all four sides, pixels.
    pub padding: usize,
    /// Groups of channels that do not mix.
    pub groups: usize,
}

impl Conv {
    /// Stride 1, no padding, all channels mix.
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
