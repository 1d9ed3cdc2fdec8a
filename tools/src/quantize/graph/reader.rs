//! Reads a floating-point network from ONNX.

use super::{Finish, Graph, GraphError, Linear, Op, PerChannel, Step};
use crate::networks::onnx::Conv;
use crate::weights::Tensor;
use prost::Message;
use std::collections::HashMap;
use tract_onnx::pb;

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
            picture: sides(input),
            start: None,
            steps: Vec::new(),
            sides: Vec::new(),
        };
        for node in &graph.node {
            let value = reader.value(node)?;
            let [output] = &node.output[..] else {
                return Err(reader.fault(node, "expected one output"));
            };
            reader.values.insert(output.clone(), value);
        }
        let mut outputs = Vec::new();
        for output in &graph.output {
            let name = &output.name;
            let step = match reader.values.get(name) {
                Some(Value::Step(step)) => *step,
                Some(Value::Flat(step)) => reader.flattened(*step, name).ok_or_else(|| {
                    not_onnx(&format!(
                        "its output {name} is not a Conv on a single pixel, flattened"
                    ))
                })?,
                Some(Value::Picture) | None => {
                    return Err(not_onnx(&format!("its output {name} is not computed by a layer")));
                }
            };
            outputs.push((output.clone(), step));
        }
        let Reader { start, steps, .. } = reader;
        let graph = Self { name: graph.name.clone(), input: input.clone(), start, steps, outputs };
        graph.check_heads(file)?;
        Ok(graph)
    }

    /// Fails if another node reads an output of the network, because outputs end in
    /// floating point, if a step's output is never read, or if anything but a
    /// multiplication reads a sigmoid.
    fn check_heads(&self, file: &str) -> Result<(), GraphError> {
        for (at, step) in self.steps.iter().enumerate() {
            let (plain, sigmoid) = match &step.op {
                Op::Linear(linear) => {
                    (linear.slopes.is_none() && linear.residual.is_none(), linear.is_sigmoid())
                }
                Op::MaxPool { .. } | Op::MeanPool | Op::Gate { .. } => (false, false),
            };
            let is_gate = |reader: usize| {
                let reader = &self.steps[reader];
                let gates = matches!(reader.op, Op::Gate { gate, .. } if gate == at);
                gates && reader.reads().filter(|read| *read == at).count() == 1
            };
            let fault = match (self.is_head(at), self.readers(at).count()) {
                (true, 1..) => "an output of the network must not be read by another node",
                (true, 0) if !plain || sigmoid => {
                    "an output must come from a Conv or Gemm, or its Softmax"
                }
                (false, 0) => "its output is never read",
                (false, 1..) if sigmoid && !self.readers(at).all(is_gate) => {
                    "only a Mul may read a Sigmoid"
                }
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
    /// Height and width of the picture, if they are fixed.
    picture: Option<[usize; 2]>,
    start: Option<PerChannel>,
    steps: Vec<Step>,
    /// Height and width of each step's output, where they are known.
    sides: Vec<Option<[usize; 2]>>,
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
            "Relu" => {
                let (step, linear) = self.pending(node, 0)?;
                linear.slopes = Some(vec![0.0; linear.channels()]);
                Ok(Value::Step(step))
            }
            "Mul" | "Add" if self.reads_picture(node) => self.scaled_picture(node),
            "Mul" => self.gate(node),
            "Add" => {
                let (Value::Step(a), Value::Step(b)) = (self.input(node, 0)?, self.input(node, 1)?)
                else {
                    return Err(self.fault(node, "expected the outputs of two layers"));
                };
                // The later one is the layer that has just run.
                let (at, other) = if a > b { (0, b) } else { (1, a) };
                *self.residual(node, at)? = Some(other);
                Ok(Value::Step(a.max(b)))
            }
            "Softmax" => {
                if int(node, "axis", -1) != 1 {
                    return Err(self.fault(node, "expected axis 1"));
                }
                let (step, linear) = self.pending(node, 0)?;
                linear.finish = Some(Finish::Softmax(named(node)));
                Ok(Value::Step(step))
            }
            "Sigmoid" => {
                let (step, linear) = self.pending(node, 0)?;
                if linear.slopes.is_some() {
                    return Err(self.fault(node, "a Sigmoid after a PRelu or Relu"));
                }
                linear.finish = Some(Finish::Sigmoid(named(node)));
                Ok(Value::Step(step))
            }
            "GlobalAveragePool" => {
                let Value::Step(input) = self.input(node, 0)? else {
                    return Err(self.fault(node, "expected the output of a layer"));
                };
                Ok(self.step(Step { name: named(node), input: Some(input), op: Op::MeanPool }))
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
        let linear = Linear { weight, bias, conv, slopes: None, residual: None, finish: None };
        Ok(self.step(Step { name: named(node), input, op: Op::Linear(linear) }))
    }

    fn step(&mut self, step: Step) -> Value {
        let input = step.input.map_or(self.picture, |input| self.sides[input]);
        self.sides.push(match &step.op {
            Op::Linear(Linear { conv: None, .. }) | Op::MeanPool => Some([1, 1]),
            Op::Linear(Linear { conv: Some(conv), weight, .. }) => input.and_then(|sides| {
                let side = |side: usize, window: usize| {
                    Some((side + 2 * conv.padding).checked_sub(window)? / conv.stride + 1)
                };
                Some([side(sides[0], weight.shape[2])?, side(sides[1], weight.shape[3])?])
            }),
            // Only planes of one pixel matter, and nothing is gated or flattened at once
            // after this pooling.
            Op::MaxPool { .. } => None,
            Op::Gate { .. } => input,
        });
        self.steps.push(step);
        Value::Step(self.steps.len() - 1)
    }

    /// Number of channels of a step's output.
    fn channels(&self, step: usize) -> usize {
        match (&self.steps[step].op, self.steps[step].input) {
            (Op::Linear(linear), _) => linear.channels(),
            (Op::MaxPool { .. } | Op::MeanPool | Op::Gate { .. }, Some(input)) => {
                self.channels(input)
            }
            (Op::MaxPool { .. } | Op::MeanPool | Op::Gate { .. }, None) => 3,
        }
    }

    /// Whether only this node reads its input of this index.
    fn alone(&self, node: &pb::NodeProto, at: usize) -> bool {
        node.input.get(at).is_some_and(|name| self.readers.get(name.as_str()) == Some(&1))
    }

    fn reads_picture(&self, node: &pb::NodeProto) -> bool {
        let picture = |name: &String| matches!(self.values.get(name), Some(Value::Picture));
        node.input.first().is_some_and(picture)
    }

    /// A sum or product of the picture and a constant per channel.
    fn scaled_picture(&mut self, node: &pb::NodeProto) -> Result<Value, GraphError> {
        let constant = self.constant(node, 1)?;
        let per_channel = matches!(constant.shape[..], [1, 3, 1, 1] | [3, 1, 1]);
        let (true, Ok(by)) = (per_channel, <[f32; 3]>::try_from(&constant.values[..])) else {
            return Err(self.fault(node, "expected one constant for each of three channels"));
        };
        if !self.alone(node, 0) {
            return Err(self.fault(node, "another node reads the picture without it"));
        }
        let start = self.start.get_or_insert(PerChannel { factors: [1.0; 3], terms: [0.0; 3] });
        if node.op_type == "Mul" {
            start.factors.iter_mut().zip(by).for_each(|(factor, by)| *factor *= by);
            start.terms.iter_mut().zip(by).for_each(|(term, by)| *term *= by);
        } else {
            start.terms.iter_mut().zip(by).for_each(|(term, by)| *term += by);
        }
        Ok(Value::Picture)
    }

    /// The product of a layer's output and a gate.
    fn gate(&mut self, node: &pb::NodeProto) -> Result<Value, GraphError> {
        let (Value::Step(a), Value::Step(b)) = (self.input(node, 0)?, self.input(node, 1)?) else {
            return Err(self.fault(node, "expected the outputs of two layers"));
        };
        let is_gate = |step: usize| match &self.steps[step].op {
            Op::Linear(linear) => linear.is_sigmoid() && self.sides[step] == Some([1, 1]),
            Op::MaxPool { .. } | Op::MeanPool | Op::Gate { .. } => false,
        };
        let (input, gate) = match (is_gate(a), is_gate(b)) {
            (false, true) => (a, b),
            (true, false) => (b, a),
            _ => {
                return Err(self.fault(
                    node,
                    "expected the output of a layer and a Sigmoid of height and width 1",
                ));
            }
        };
        let [channels, gates] = [input, gate].map(|step| self.channels(step));
        if channels != gates {
            return Err(self.fault(node, format!("{gates} gates for {channels} channels")));
        }
        let op = Op::Gate { gate, residual: None };
        Ok(self.step(Step { name: named(node), input: Some(input), op }))
    }

    /// The residual of the step that an `Add` extends.
    fn residual(
        &mut self,
        node: &pb::NodeProto,
        at: usize,
    ) -> Result<&mut Option<usize>, GraphError> {
        let fault = self.fault(node, "a second residual of the same layer");
        match self.input(node, at)? {
            Value::Step(step) if matches!(self.steps[step].op, Op::Gate { .. }) => {
                let alone = self.alone(node, at);
                match &mut self.steps[step].op {
                    Op::Gate { residual, .. } if alone && residual.is_none() => Ok(residual),
                    _ => Err(fault),
                }
            }
            _ => Ok(&mut self.pending(node, at)?.1.residual),
        }
    }

    /// Makes a convolution on a single pixel, whose flattened output has this name, a fully
    /// connected layer. Returns its step.
    fn flattened(&mut self, step: usize, name: &str) -> Option<usize> {
        let input = self.steps[step].input.and_then(|input| self.sides[input]);
        let one_reader = self.readers.get(self.steps[step].name.as_str()) == Some(&1);
        let Step { name: named, op: Op::Linear(linear), .. } = &mut self.steps[step] else {
            return None;
        };
        let pixel = linear.conv == Some(Conv::VALID) && linear.weight.shape[2..] == [1, 1];
        let plain = linear.slopes.is_none() && linear.residual.is_none() && linear.finish.is_none();
        if !(input == Some([1, 1]) && one_reader && pixel && plain) {
            return None;
        }
        linear.weight.shape.truncate(2);
        linear.conv = None;
        name.clone_into(named);
        Some(step)
    }

    /// The layer that a node extends. Only this node may read its output, and no other
    /// node may have extended it.
    fn pending(
        &mut self,
        node: &pb::NodeProto,
        at: usize,
    ) -> Result<(usize, &mut Linear), GraphError> {
        let fault = self.fault(node, "must follow a Conv or Gemm that no other node reads");
        let alone = self.alone(node, at);
        let Value::Step(step) = self.input(node, at)? else { return Err(fault) };
        match self.steps.get_mut(step).map(|step| &mut step.op) {
            Some(Op::Linear(linear))
                if alone
                    && linear.slopes.is_none()
                    && linear.residual.is_none()
                    && linear.finish.is_none() =>
            {
                Ok((step, linear))
            }
            _ => Err(fault),
        }
    }
}

/// Height and width of a declared picture, if they are fixed.
fn sides(input: &pb::ValueInfoProto) -> Option<[usize; 2]> {
    use pb::{tensor_shape_proto::dimension, type_proto};
    let type_proto::Value::TensorType(tensor) = input.r#type.as_ref()?.value.as_ref()?;
    let [_, _, height, width] = &tensor.shape.as_ref()?.dim[..] else { return None };
    let fixed = |side: &pb::tensor_shape_proto::Dimension| match side.value {
        Some(dimension::Value::DimValue(side)) => usize::try_from(side).ok(),
        _ => None,
    };
    Some([fixed(height)?, fixed(width)?])
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
