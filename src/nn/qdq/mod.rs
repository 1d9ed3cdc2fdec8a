//! Quantized ONNX, read into layers of 8-bit integers.
//!
//! The form is the one that ONNX's quantizers agree on: an activation passes
//! through `QuantizeLinear` and `DequantizeLinear`, weights through
//! `DequantizeLinear` alone, and what lies between is written in floating point:
//!
//! ```text
//! Dequantize -> Conv or Gemm -> PRelu or none -> Add or none -> Quantize
//! Dequantize -> MaxPool -> Quantize, with the same scale
//! Dequantize -> Flatten, before a Gemm
//! Dequantize -> GlobalAveragePool, or ReduceMean over the sides -> Quantize
//! Dequantize -> Conv of 1x1 on such means -> Sigmoid -> Quantize
//! Dequantize -> Mul by such a sigmoid -> Add or none -> Quantize
//! Dequantize -> Conv or Gemm -> Softmax, Flatten or none -> an output of the network
//! ```
//!
//! The picture's bytes are quantized as they are: its scale and zero point are the
//! normalization, `scale * (byte - 128 - zero_point)`.
//!
//! Each such line becomes one [`Step`]. [`super::partition`] finds the part of a graph that
//! has this form.

mod attributes;
mod gate;
mod model;
mod pool;

pub(super) use model::{
    Fault, Model, Op, Output, PICTURE, PICTURE_STORED, Step, Target, Tensor, UNIT, Window, pooled,
};

pub(super) use super::kernels::Quantization;
use super::kernels::{CHANNELS, Layer, Residual};
use attributes::{float, floats, int, ints, is_unsigned, window};
use model::{PICTURE_CHANNELS, Result, damaged, fault};
use std::collections::{HashMap, HashSet};
use tract_onnx::pb;

/// What an ONNX name stands for.
#[derive(Debug, Clone)]
enum Value {
    /// The network's input.
    Picture,
    Quantized(usize),
    Dequantized {
        tensor: usize,
        flat: bool,
    },
    Weights(Weights),
    Pooled {
        tensor: usize,
        window: Window,
    },
    /// The mean of each channel.
    Mean(usize),
    Pending(Box<Pending>),
    Gated(gate::Gated),
}

/// Dequantized constants: weights or a bias.
#[derive(Debug, Clone)]
struct Weights {
    shape: Vec<usize>,
    values: Vec<i32>,
    scales: Vec<f32>,
}

/// A layer whose output is not quantized yet.
#[derive(Debug, Clone)]
struct Pending {
    node: String,
    input: usize,
    window: Window,
    groups: usize,
    /// `[out, in / groups, height, width]`.
    weights: Weights,
    bias: Option<Weights>,
    slopes: Option<Vec<f32>>,
    residual: Option<usize>,
    softmax: bool,
    sigmoid: bool,
    /// The output has two axes, after a Gemm or a Flatten.
    flat: bool,
}

/// Reads nodes one by one.
pub(super) struct Reader<'g> {
    constants: HashMap<&'g str, &'g pb::TensorProto>,
    values: HashMap<String, Value>,
    model: Model,
    sides: Option<(usize, usize)>,
    /// Tensors with two axes.
    flat: HashSet<usize>,
}

/// What a value can be handed over as, to nodes that run in floating point.
pub(super) enum Handover {
    /// The network's input.
    Picture,
    /// Constants: the node that dequantizes them can run there, too.
    Constant,
    /// An activation.
    Activation(usize),
    /// Nothing: the node that makes it must run there, too.
    No,
}

impl<'g> Reader<'g> {
    /// A reader of a graph whose input is a picture of three channels, of these sides if
    /// they are fixed.
    pub fn new(graph: &'g pb::GraphProto, sides: Option<(usize, usize)>) -> Self {
        let constants: HashMap<_, _> =
            graph.initializer.iter().map(|c| (c.name.as_str(), c)).collect();
        let inputs = graph.input.iter().filter(|input| !constants.contains_key(&input.name[..]));
        let values = inputs.map(|input| (input.name.clone(), Value::Picture)).collect();
        let model = Model { steps: Vec::new(), tensors: Vec::new(), outputs: Vec::new() };
        Self { constants, values, model, sides, flat: HashSet::new() }
    }

    /// Reads a node. After a fault everything is as before.
    pub fn read(&mut self, node: &pb::NodeProto) -> Result<()> {
        let [output] = &node.output[..] else {
            return fault(&node.name, format!("{} outputs, one is expected", node.output.len()));
        };
        let (steps, tensors) = (self.model.steps.len(), self.model.tensors.len());
        match self.value(node) {
            Ok(value) => {
                self.values.insert(output.clone(), value);
                Ok(())
            }
            Err(fault) => {
                self.model.steps.truncate(steps);
                self.model.tensors.truncate(tensors);
                Err(fault)
            }
        }
    }

    /// Makes a value an output of the network, if it is the sum of a layer.
    /// Returns the output's number.
    pub fn output(&mut self, name: &str) -> Result<usize> {
        let number = self.model.outputs.len();
        match self.values.get(name).cloned() {
            Some(Value::Pending(pending)) => {
                if !pending.is_plain() && !pending.softmax || pending.groups != 1 {
                    let reason = "an output cannot have a PRelu, an Add, a Sigmoid or groups";
                    return fault(&pending.node, reason);
                }
                let (channels, softmax) = (pending.channels(), pending.softmax);
                self.finish(*pending, UNIT, Target::Head(number))?;
                self.model.outputs.push(Output::Head { channels, softmax });
            }
            _ => return fault(name, "an output must be a Conv or Gemm, or its Softmax"),
        }
        Ok(number)
    }

    /// How a value is handed over.
    pub fn handover(&self, name: &str) -> Handover {
        match self.values.get(name) {
            Some(Value::Picture) => Handover::Picture,
            Some(Value::Weights(_)) => Handover::Constant,
            Some(Value::Dequantized { tensor, flat: false }) if *tensor != PICTURE => {
                Handover::Activation(*tensor)
            }
            _ => Handover::No,
        }
    }

    /// Whether a value was read.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Adds an activation to the outputs; returns the output's number.
    pub fn hand_over(&mut self, tensor: usize) -> usize {
        self.model.outputs.push(Output::Activation { tensor });
        self.model.outputs.len() - 1
    }

    /// What was read.
    pub fn finished(self) -> Model {
        self.model
    }
}

impl Pending {
    fn channels(&self) -> usize {
        self.weights.shape[0]
    }

    /// Whether nothing follows the sums yet.
    fn is_plain(&self) -> bool {
        self.slopes.is_none() && self.residual.is_none() && !self.softmax && !self.sigmoid
    }
}

impl Reader<'_> {
    fn value(&mut self, node: &pb::NodeProto) -> Result<Value> {
        match node.op_type.as_str() {
            "QuantizeLinear" => self.quantize(node),
            "DequantizeLinear" => self.dequantize(node),
            "Conv" | "Gemm" => self.layer(node),
            "PRelu" | "Relu" => self.prelu(node),
            "Add" => self.add(node),
            "Mul" => self.multiply(node),
            "Sigmoid" => self.sigmoid(node),
            "MaxPool" => self.max_pool(node),
            "GlobalAveragePool" | "ReduceMean" => self.mean(node),
            "Flatten" => self.flatten(node),
            "Softmax" => match self.input(node, 0)? {
                Value::Pending(mut pending) if int(node, "axis", -1) == 1 && pending.is_plain() => {
                    pending.softmax = true;
                    Ok(Value::Pending(pending))
                }
                _ => fault(&node.name, "Softmax must follow a Conv or Gemm, over axis 1"),
            },
            other => fault(&node.name, format!("there is no 8-bit operator for {other}")),
        }
    }

    fn input(&self, node: &pb::NodeProto, at: usize) -> Result<Value> {
        let name = node.input.get(at).map_or("", String::as_str);
        match self.values.get(name) {
            Some(value) => Ok(value.clone()),
            None => fault(&node.name, format!("its input {name:?} is not quantized")),
        }
    }

    fn constant(&self, node: &pb::NodeProto, at: usize) -> Result<&pb::TensorProto> {
        let name = node.input.get(at).map_or("", String::as_str);
        match self.constants.get(name) {
            Some(constant) => Ok(constant),
            None => fault(&node.name, format!("its input {name:?} must be a constant")),
        }
    }

    /// Scales and zero points of a `QuantizeLinear` or `DequantizeLinear`.
    fn scales(&self, node: &pb::NodeProto) -> Result<(Vec<f32>, Vec<i32>)> {
        let scales = floats(node, self.constant(node, 1)?)?;
        if scales.is_empty() || scales.iter().any(|scale| !(scale.is_normal() && *scale > 0.0)) {
            let wrong = scales.iter().find(|scale| !(scale.is_normal() && **scale > 0.0));
            let wrong = wrong.map_or("missing".to_owned(), f32::to_string);
            return damaged(&node.name, format!("its scale is {wrong}, it must be positive"));
        }
        // Zero points of bytes without a sign are moved to where signed ones lie.
        let zero_points = match node.input.get(2) {
            Some(_) => {
                let constant = self.constant(node, 2)?;
                let shift = if is_unsigned(constant) { 128 } else { 0 };
                ints(node, constant)?.iter().map(|zero_point| zero_point - shift).collect()
            }
            None => vec![-128],
        };
        if zero_points.len() != scales.len() {
            return damaged(&node.name, "as many zero points as scales are expected");
        }
        Ok((scales, zero_points))
    }

    /// Scale and zero point of an activation.
    fn quantization(&self, node: &pb::NodeProto) -> Result<Quantization> {
        match (self.scales(node)?, i8::try_from) {
            ((scales, zero_points), narrow) if scales.len() == 1 => match narrow(zero_points[0]) {
                Ok(zero_point) => Ok(Quantization { scale: scales[0], zero_point }),
                Err(_) => fault(&node.name, "its zero point does not fit a byte"),
            },
            _ => fault(&node.name, "an activation must have one scale for all channels"),
        }
    }

    fn quantize(&mut self, node: &pb::NodeProto) -> Result<Value> {
        let quantization = self.quantization(node)?;
        match self.input(node, 0)? {
            Value::Picture => {
                if !self.model.tensors.is_empty() {
                    return fault(&node.name, "the picture must be quantized once, and first");
                }
                let tensor = self.tensor(PICTURE_CHANNELS, quantization, self.sides);
                self.model.tensors[tensor].stored = PICTURE_STORED;
                Ok(Value::Quantized(tensor))
            }
            Value::Pending(pending) => {
                if pending.softmax {
                    return fault(&node.name, "a Softmax must be an output of the network");
                }
                let sides = self.model.tensors[pending.input].sides;
                let sides = sides.map(|sides| pending.window.output(sides));
                let (channels, flat) = (pending.channels(), pending.flat);
                let tensor = self.tensor(channels, quantization, sides);
                let output = if pending.sigmoid { UNIT } else { quantization };
                self.finish(*pending, output, Target::Tensor(tensor))?;
                if flat {
                    self.flat.insert(tensor);
                }
                Ok(Value::Quantized(tensor))
            }
            Value::Pooled { tensor, window } => {
                self.quantize_pooled(node, tensor, window, quantization)
            }
            Value::Mean(tensor) => Ok(self.quantize_mean(node, tensor, quantization)),
            Value::Gated(gated) => Ok(self.quantize_gated(gated, quantization)),
            _ => fault(&node.name, "quantizes neither the picture nor a layer"),
        }
    }

    fn tensor(
        &mut self,
        channels: usize,
        quantization: Quantization,
        sides: Option<(usize, usize)>,
    ) -> usize {
        let stored = channels.next_multiple_of(CHANNELS);
        self.model.tensors.push(Tensor { channels, stored, border: 0, quantization, sides });
        self.model.tensors.len() - 1
    }

    fn dequantize(&mut self, node: &pb::NodeProto) -> Result<Value> {
        let name = node.input.first().map_or("", String::as_str);
        if let Some(constant) = self.constants.get(name) {
            let (scales, zero_points) = self.scales(node)?;
            let shift = if is_unsigned(constant) { 128 } else { 0 };
            let shape: Vec<usize> =
                constant.dims.iter().map(|side| usize::try_from(*side).unwrap_or(0)).collect();
            let values: Vec<i32> =
                ints(node, constant)?.iter().map(|value| value - shift).collect();
            let count = shape.iter().try_fold(1usize, |count, side| count.checked_mul(*side));
            if count != Some(values.len()) {
                return damaged(&node.name, format!("{name} is cut short"));
            }
            // Absent zero points are those of bytes without a sign; constants have
            // zero in the middle.
            let implied = node.input.len() < 3;
            if !implied && zero_points.iter().any(|zero_point| *zero_point != 0) {
                return fault(&node.name, "weights must have zero points of 0");
            }
            let channels = shape.first().copied().unwrap_or(0);
            if scales.len() != 1 && (scales.len() != channels || int(node, "axis", 1) != 0) {
                return fault(&node.name, "weights must have one scale, or one an output channel");
            }
            return Ok(Value::Weights(Weights { shape, values, scales }));
        }
        let quantization = self.quantization(node)?;
        match self.input(node, 0)? {
            Value::Quantized(tensor) if self.model.tensors[tensor].quantization == quantization => {
                Ok(Value::Dequantized { tensor, flat: false })
            }
            _ => fault(&node.name, "must undo a QuantizeLinear of the same scale and zero point"),
        }
    }

    fn weights(&self, node: &pb::NodeProto, at: usize) -> Result<Weights> {
        match self.input(node, at)? {
            Value::Weights(weights) => Ok(weights),
            _ => fault(&node.name, "its weights are not quantized"),
        }
    }

    fn layer(&mut self, node: &pb::NodeProto) -> Result<Value> {
        let gemm = node.op_type == "Gemm";
        let (input, flat) = match self.input(node, 0)? {
            Value::Dequantized { tensor, flat } => (tensor, flat),
            _ => return fault(&node.name, "its input is not quantized"),
        };
        let mut weights = self.weights(node, 1)?;
        let bias = match node.input.get(2) {
            Some(_) => Some(self.weights(node, 2)?),
            None => None,
        };
        let (window, groups) = if gemm {
            let plain = int(node, "transB", 0) == 1
                && int(node, "transA", 0) == 0
                && float(node, "alpha", 1.0) == 1.0
                && float(node, "beta", 1.0) == 1.0;
            if !plain {
                return fault(&node.name, "Gemm must have transB = 1 and no factors");
            }
            let Some((height, width)) = self.model.tensors[input].sides else {
                return fault(&node.name, "Gemm wants an input of known sides");
            };
            if !flat && (height, width) != (1, 1) {
                return fault(&node.name, "Gemm must follow a Flatten");
            }
            let [outputs, inputs] = weights.shape[..] else {
                return fault(&node.name, "weights must have two axes");
            };
            if height * width == 0 || !inputs.is_multiple_of(height * width) {
                return fault(
                    &node.name,
                    format!("{inputs} inputs for a plane of {height}x{width}"),
                );
            }
            weights.shape = vec![outputs, inputs / (height * width), height, width];
            (Window { height, width, stride: 1, padding: 0 }, 1)
        } else {
            if flat {
                return fault(&node.name, "a Conv cannot follow a Flatten");
            }
            let [_, _, height, width] = weights.shape[..] else {
                return fault(&node.name, "weights must have four axes");
            };
            let window = window(node, (height, width))?;
            (window, usize::try_from(int(node, "group", 1)).unwrap_or(0))
        };
        let channels = self.model.tensors[input].channels;
        let outputs = weights.shape[0];
        let fits = weights.shape[1].checked_mul(groups) == Some(channels)
            && (groups == 1 || (groups == channels && outputs == channels))
            && window.height * window.width > 0
            && outputs > 0;
        if !fits {
            let shape = &weights.shape;
            return fault(
                &node.name,
                format!("weights {shape:?} in {groups} groups do not fit {channels} channels"),
            );
        }
        Ok(Value::Pending(Box::new(Pending {
            node: node.name.clone(),
            input,
            window,
            groups,
            weights,
            bias,
            slopes: None,
            residual: None,
            softmax: false,
            sigmoid: false,
            flat: gemm,
        })))
    }

    fn prelu(&mut self, node: &pb::NodeProto) -> Result<Value> {
        let Value::Pending(mut pending) = self.input(node, 0)? else {
            return fault(&node.name, format!("{} must follow a Conv or Gemm", node.op_type));
        };
        if !pending.is_plain() {
            return fault(&node.name, format!("{} must follow a Conv or Gemm", node.op_type));
        }
        let channels = pending.channels();
        let mut slopes = match node.op_type.as_str() {
            "Relu" => vec![0.0],
            _ => floats(node, self.constant(node, 1)?)?,
        };
        if slopes.len() == 1 {
            slopes = vec![slopes[0]; channels];
        }
        if slopes.len() != channels || slopes.iter().any(|slope| !slope.is_finite()) {
            return damaged(
                &node.name,
                format!("one finite slope for each of {channels} channels"),
            );
        }
        pending.slopes = Some(slopes);
        Ok(Value::Pending(pending))
    }

    fn flatten(&self, node: &pb::NodeProto) -> Result<Value> {
        let first = int(node, "axis", 1) == 1;
        match self.input(node, 0)? {
            Value::Dequantized { tensor, .. } if first => {
                Ok(Value::Dequantized { tensor, flat: true })
            }
            Value::Pending(mut pending) if first && pending.is_plain() => {
                let sides = self.model.tensors[pending.input].sides;
                if sides.map(|sides| pending.window.output(sides)) != Some((1, 1)) {
                    return fault(&node.name, "Flatten must follow a layer of one place");
                }
                pending.flat = true;
                Ok(Value::Pending(pending))
            }
            _ => {
                fault(&node.name, "Flatten must follow a layer or DequantizeLinear, from axis 1 on")
            }
        }
    }

    fn add(&mut self, node: &pb::NodeProto) -> Result<Value> {
        let (mut pending, tensor) = match (self.input(node, 0)?, self.input(node, 1)?) {
            (Value::Pending(pending), Value::Dequantized { tensor, flat: false })
            | (Value::Dequantized { tensor, flat: false }, Value::Pending(pending)) => {
                (pending, tensor)
            }
            (Value::Gated(gated), Value::Dequantized { tensor, flat: false })
            | (Value::Dequantized { tensor, flat: false }, Value::Gated(gated)) => {
                return self.add_to_gated(node, gated, tensor);
            }
            _ => return fault(&node.name, "Add must join a Conv or a Mul and a DequantizeLinear"),
        };
        if !pending.is_plain() || pending.groups != 1 || pending.window != Window::PIXEL {
            return fault(&node.name, "Add must follow a Conv of 1x1 without PRelu");
        }
        let own = self.model.tensors[pending.input].sides;
        let other = &self.model.tensors[tensor];
        let fits = pending.channels() == other.channels
            && own == other.sides
            && pending.flat == self.flat.contains(&tensor);
        if tensor == PICTURE || !fits {
            return fault(&node.name, "Add must join layers of the same shape");
        }
        pending.residual = Some(tensor);
        Ok(Value::Pending(pending))
    }

    /// Makes a step of a layer whose output is `output`.
    fn finish(&mut self, pending: Pending, output: Quantization, target: Target) -> Result<()> {
        let Pending { node, input, window, groups, weights, .. } = &pending;
        let [outputs, inputs, height, width] = weights.shape[..] else {
            return fault(node, "weights must have four axes");
        };
        let from = self.model.tensors[*input];
        let scale = |channel: usize| {
            let scales = &weights.scales;
            let own = scales[if scales.len() == 1 { 0 } else { channel }];
            f64::from(own) * f64::from(from.quantization.scale)
        };
        let mut bias = pending.biases(outputs, scale)?;
        let filter = *groups != 1;
        if filter && *input == PICTURE {
            return fault(node, "the first layer must mix the channels of the picture");
        }
        // [out, in, y, x] to [out, y, x, in], or to [out, y, x] where each channel is
        // by itself.
        let (stored, row) = if filter { (1, width) } else { (from.stored, from.run(window)) };
        let mut values = vec![0i8; outputs * height * row];
        for (at, value) in weights.values.iter().enumerate() {
            let (channel, rest) = (at / (inputs * height * width), at % (inputs * height * width));
            let (input, tap) = (rest / (height * width), rest % (height * width));
            let Ok(value) = i8::try_from(*value) else {
                return damaged(node, "a weight does not fit a byte");
            };
            let at = (channel * height + tap / width) * row + tap % width * stored + input;
            values[at] = value;
            bias[channel] -= i64::from(value) * i64::from(from.quantization.zero_point);
        }
        let narrow: Option<Vec<i32>> = bias.iter().map(|bias| i32::try_from(*bias).ok()).collect();
        let Some(bias) = narrow else {
            return damaged(node, "its bias does not fit 32 bits");
        };
        let step = |channel: usize| scale(channel) / f64::from(output.scale);
        let slope = |channel: usize| {
            pending.slopes.as_ref().map_or(1.0, |slopes| f64::from(slopes[channel]))
        };
        let mut layer = Layer {
            weights: values,
            bias,
            positive: (0..outputs).map(|channel| step(channel) as f32).collect(),
            negative: (0..outputs).map(|channel| (step(channel) * slope(channel)) as f32).collect(),
            zero_point: output.zero_point,
            residual: pending.residual.map(|other| {
                let other = self.model.tensors[other].quantization;
                let scale = f64::from(other.scale) / f64::from(output.scale);
                Residual { scale: scale as f32, zero_point: other.zero_point }
            }),
        };
        let border = &mut self.model.tensors[*input].border;
        *border = (*border).max(window.padding);
        let op = if filter {
            // Channels in whole groups; those added stay at zero.
            let channels = from.stored;
            layer.weights.resize(channels * height * width, 0);
            layer.bias.resize(channels, 0);
            layer.positive.resize(channels, 0.0);
            layer.negative.resize(channels, 0.0);
            Op::Filter { layer }
        } else if pending.sigmoid {
            Op::Sigmoid { layer }
        } else {
            Op::Matrix { layer, residual: pending.residual }
        };
        let (name, window, input) = (node.clone(), *window, *input);
        self.model.steps.push(Step { name, op, window, input, output: target });
        Ok(())
    }
}

impl Pending {
    /// Whole numbers in steps of the sum, which a bias must be quantized in.
    fn biases(&self, outputs: usize, scale: impl Fn(usize) -> f64) -> Result<Vec<i64>> {
        let Some(bias) = &self.bias else { return Ok(vec![0; outputs]) };
        if bias.values.len() != outputs {
            return damaged(
                &self.node,
                format!("{} biases for {outputs} channels", bias.values.len()),
            );
        }
        for channel in 0..outputs {
            let own = f64::from(bias.scales[if bias.scales.len() == 1 { 0 } else { channel }]);
            if (own / scale(channel) - 1.0).abs() > 1e-4 {
                return damaged(
                    &self.node,
                    "the scale of its bias is not that of its input times that of its weights",
                );
            }
        }
        Ok(bias.values.iter().map(|value| i64::from(*value)).collect())
    }
}
