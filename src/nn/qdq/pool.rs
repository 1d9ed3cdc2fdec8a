//! Pooling: the largest of windows, and the mean of each channel.

use super::attributes::{attribute, int, longs, window};
use super::model::{Result, fault};
use super::{Op, PICTURE, Quantization, Reader, Step, Target, Value, Window, pooled};
use tract_onnx::pb;

impl Reader<'_> {
    pub(super) fn max_pool(&self, node: &pb::NodeProto) -> Result<Value> {
        let Value::Dequantized { tensor, flat: false } = self.input(node, 0)? else {
            return fault(&node.name, "MaxPool must follow a DequantizeLinear");
        };
        let sides = attribute(node, "kernel_shape").map_or(&[][..], |a| &a.ints);
        let sides = match *sides {
            [height, width] if height > 0 && width > 0 => (height as usize, width as usize),
            _ => return fault(&node.name, "MaxPool must have a kernel of two sides"),
        };
        let window = window(node, sides)?;
        if tensor == PICTURE {
            return fault(&node.name, "MaxPool must follow a layer, not the picture");
        }
        if window.padding != 0 || int(node, "ceil_mode", 0) != 1 {
            return fault(&node.name, "MaxPool must have no padding and ceil_mode = 1");
        }
        Ok(Value::Pooled { tensor, window })
    }

    pub(super) fn quantize_pooled(
        &mut self,
        node: &pb::NodeProto,
        tensor: usize,
        window: Window,
        quantization: Quantization,
    ) -> Result<Value> {
        let from = self.model.tensors[tensor];
        if from.quantization != quantization {
            return fault(&node.name, "pooling must not change scale and zero point");
        }
        let sides = from.sides.map(|sides| pooled(&window, sides));
        let output = self.tensor(from.channels, quantization, sides);
        let (name, output) = (node.name.clone(), Target::Tensor(output));
        self.model.steps.push(Step { name, op: Op::MaxPool, window, input: tensor, output });
        Ok(Value::Quantized(self.model.tensors.len() - 1))
    }

    pub(super) fn mean(&self, node: &pb::NodeProto) -> Result<Value> {
        let Value::Dequantized { tensor, flat: false } = self.input(node, 0)? else {
            return fault(&node.name, format!("{} must follow a DequantizeLinear", node.op_type));
        };
        if tensor == PICTURE || self.flat.contains(&tensor) {
            return fault(&node.name, format!("{} must follow a Conv", node.op_type));
        }
        if node.op_type == "ReduceMean"
            && !(self.over_sides(node)? && int(node, "keepdims", 1) == 1)
        {
            return fault(&node.name, "ReduceMean must be over axes 2 and 3 and keep them");
        }
        Ok(Value::Mean(tensor))
    }

    /// Whether a `ReduceMean` is over height and width. Newer files name the axes in a
    /// constant.
    fn over_sides(&self, node: &pb::NodeProto) -> Result<bool> {
        let axes = match node.input.get(1) {
            Some(_) => longs(node, self.constant(node, 1)?)?,
            None => attribute(node, "axes").map_or(Vec::new(), |axes| axes.ints.clone()),
        };
        let mut axes: Vec<i64> = axes.iter().map(|axis| axis.rem_euclid(4)).collect();
        axes.sort_unstable();
        Ok(axes == [2, 3])
    }

    pub(super) fn quantize_mean(
        &mut self,
        node: &pb::NodeProto,
        tensor: usize,
        quantization: Quantization,
    ) -> Value {
        let channels = self.model.tensors[tensor].channels;
        let output = self.tensor(channels, quantization, Some((1, 1)));
        self.model.steps.push(Step {
            name: node.name.clone(),
            op: Op::Mean,
            window: Window::PIXEL,
            input: tensor,
            output: Target::Tensor(output),
        });
        Value::Quantized(output)
    }
}
