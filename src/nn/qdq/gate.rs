//! Gates of squeeze and excitation: sigmoids, and products with a factor per channel.

use super::model::{Result, damaged, fault};
use super::{Op, PICTURE, Quantization, Reader, Step, Target, Value, Window};
use tract_onnx::pb;

/// A product with a factor per channel that is not quantized yet.
#[derive(Debug, Clone)]
pub(super) struct Gated {
    node: String,
    input: usize,
    factors: usize,
    residual: Option<usize>,
}

impl Reader<'_> {
    pub(super) fn sigmoid(&self, node: &pb::NodeProto) -> Result<Value> {
        let Value::Pending(mut pending) = self.input(node, 0)? else {
            return fault(&node.name, "Sigmoid must follow a Conv");
        };
        let pixel = self.model.tensors[pending.input].sides == Some((1, 1));
        if !pixel || pending.window != Window::PIXEL {
            return fault(&node.name, "Sigmoid must follow a Conv of 1x1 on the means of channels");
        }
        if !pending.is_plain() || pending.groups != 1 || pending.flat {
            return fault(&node.name, "Sigmoid must follow a Conv without PRelu, Add or groups");
        }
        pending.sigmoid = true;
        Ok(Value::Pending(pending))
    }

    pub(super) fn multiply(&self, node: &pb::NodeProto) -> Result<Value> {
        let tensor = |at: usize| match self.input(node, at)? {
            Value::Dequantized { tensor, flat: false } => Ok(tensor),
            _ => fault(&node.name, "Mul must join two DequantizeLinear"),
        };
        let (one, other) = (tensor(0)?, tensor(1)?);
        let is_sigmoid = |tensor: usize| {
            let of = |step: &Step| step.output == Target::Tensor(tensor);
            let made = self.model.steps.iter().find(|step| of(step));
            made.is_some_and(|step| matches!(step.op, Op::Sigmoid { .. }))
        };
        // Of two sigmoids, the later one has the factors.
        let (input, factors) = match (is_sigmoid(one), is_sigmoid(other)) {
            (true, true) => (one.min(other), one.max(other)),
            (false, true) => (one, other),
            (true, false) => (other, one),
            (false, false) => {
                return fault(&node.name, "Mul must join a layer and the Sigmoid of its channels");
            }
        };
        if input == PICTURE || self.flat.contains(&input) {
            return fault(&node.name, "Mul must follow a Conv");
        }
        let channels = [input, factors].map(|tensor| self.model.tensors[tensor].channels);
        match channels {
            [one, other] if one == other => {}
            // One factor for all channels, or the reverse.
            [_, 1] | [1, _] => {
                return fault(&node.name, "Mul must have one factor for each channel");
            }
            [channels, factors] => {
                return damaged(&node.name, format!("{factors} factors for {channels} channels"));
            }
        }
        Ok(Value::Gated(Gated { node: node.name.clone(), input, factors, residual: None }))
    }

    pub(super) fn add_to_gated(
        &self,
        node: &pb::NodeProto,
        gated: Gated,
        tensor: usize,
    ) -> Result<Value> {
        let [own, other] = [gated.input, tensor].map(|tensor| &self.model.tensors[tensor]);
        if tensor == PICTURE
            || self.flat.contains(&tensor)
            || own.channels != other.channels
            || own.sides != other.sides
        {
            return fault(&node.name, "Add must join layers of the same shape");
        }
        if gated.residual.is_some() {
            return fault(&node.name, "Add must follow a Mul, not another Add");
        }
        Ok(Value::Gated(Gated { residual: Some(tensor), ..gated }))
    }

    pub(super) fn quantize_gated(&mut self, gated: Gated, quantization: Quantization) -> Value {
        let Gated { node: name, input, factors, residual } = gated;
        let from = self.model.tensors[input];
        let output = self.tensor(from.channels, quantization, from.sides);
        self.model.steps.push(Step {
            name,
            op: Op::Gate { factors, residual },
            window: Window::PIXEL,
            input,
            output: Target::Tensor(output),
        });
        Value::Quantized(output)
    }
}
