//! Writes a quantized network as ONNX. Each activation passes through `QuantizeLinear`
//! and `DequantizeLinear`, weights and biases are integers behind a `DequantizeLinear`
//! each, and everything between is in floating point. A runtime that knows the pattern
//! computes in integers, and all others still get the same results.

use super::affine::Affine;
use super::affine::WEIGHT_LIMIT;
use super::graph::{Finish, Linear, Op};
use super::simulate::Quantized;
use crate::networks::onnx::{GraphBuilder, Whole};
use crate::weights::Tensor;

/// The integers of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Weights in the order of the floating-point ones.
    pub weights: Vec<i8>,
    /// One bias per output channel.
    pub bias: Vec<i32>,
    /// Value of one unit of weight, one per output channel.
    pub weight_scales: Vec<f32>,
    /// Value of one unit of bias, one per output channel: the input's scale times the
    /// weight's.
    pub bias_scales: Vec<f32>,
}

impl Stored {
    /// Rounds a layer to integers.
    pub fn new(linear: &Linear, scales: &[f32], input: Affine) -> Self {
        // The bias of a channel with hardly any weight must still fit 32 bits, with room
        // for the sum.
        let least = |bias: f32| bias.abs() / input.scale / (1 << 28) as f32;
        let weight_scales: Vec<f32> =
            scales.iter().zip(&linear.bias).map(|(scale, bias)| scale.max(least(*bias))).collect();
        let bias_scales: Vec<f32> = weight_scales.iter().map(|scale| scale * input.scale).collect();
        let rows = linear.weight.values.chunks(linear.row()).zip(&weight_scales);
        let limit = WEIGHT_LIMIT as f32;
        let weights = rows
            .flat_map(|(row, scale)| {
                row.iter().map(move |weight| {
                    (weight / scale).round_ties_even().clamp(-limit, limit) as i8
                })
            })
            .collect();
        let bias = linear
            .bias
            .iter()
            .zip(&bias_scales)
            .map(|(bias, scale)| (f64::from(*bias) / f64::from(*scale)).round_ties_even() as i32)
            .collect();
        Self { weights, bias, weight_scales, bias_scales }
    }
}

/// The network as an ONNX file. Inputs and outputs are declared as in the graph.
pub fn write(quantized: &Quantized) -> Vec<u8> {
    let graph = &quantized.graph;
    let mut onnx = GraphBuilder::with_input(&graph.name, graph.input.clone());
    let Affine { scale, zero_point } = quantized.picture;
    let picture = onnx.through_bytes("picture", &graph.input.name, scale, zero_point);
    let mut names: Vec<String> = Vec::with_capacity(graph.steps.len());
    for (at, step) in graph.steps.iter().enumerate() {
        let input = step.input.map_or(picture.as_str(), |input| &names[input]).to_owned();
        let (name, stored) = (&step.name, quantized.activations[at]);
        let output = match &step.op {
            Op::MaxPool { side, stride } => onnx.max_pool(name, &input, *side, *stride),
            Op::MeanPool => onnx.mean_pool(name, &input),
            Op::Gate { gate, residual } => {
                let scaled = onnx.multiply(name, &input, &names[*gate]);
                match residual {
                    Some(residual) => onnx.add(&format!("{name}.add"), &scaled, &names[*residual]),
                    None => scaled,
                }
            }
            Op::Linear(linear) => {
                let flat = step.input.is_some_and(|input| is_flat(&graph.steps[input].op));
                let input = match linear.conv {
                    None if !flat => onnx.flatten(&format!("{name}.flat"), &input),
                    _ => input,
                };
                let whole =
                    Stored::new(linear, &quantized.weight_scales[at], quantized.input_of(at));
                layer(&mut onnx, name, &input, linear, &whole, &names)
            }
        };
        names.push(match stored {
            Some(Affine { scale, zero_point }) => {
                onnx.through_bytes(&format!("{name}.out"), &output, scale, zero_point)
            }
            None => output,
        });
    }
    for (output, _) in &graph.outputs {
        onnx.output_like(output.clone());
    }
    onnx.finish()
}

fn layer(
    onnx: &mut GraphBuilder,
    name: &str,
    input: &str,
    linear: &Linear,
    whole: &Stored,
    names: &[String],
) -> String {
    let shape = &linear.weight.shape;
    let weight = onnx.scaled(
        &format!("{name}.weight"),
        shape,
        Whole::Bytes(&whole.weights),
        &whole.weight_scales,
    );
    let bias = onnx.scaled(
        &format!("{name}.bias"),
        &[whole.bias.len()],
        Whole::Words(&whole.bias),
        &whole.bias_scales,
    );
    let mut at = match linear.conv {
        Some(conv) => {
            let inputs = vec![input.to_owned(), weight, bias];
            onnx.conv_of(name, inputs, (shape[2], shape[3]), conv)
        }
        None => onnx.gemm_of(name, vec![input.to_owned(), weight, bias]),
    };
    if linear.is_relu() {
        at = onnx.relu(&format!("{name}.relu"), &at);
    } else if let Some(slopes) = &linear.slopes {
        let slopes = Tensor { shape: vec![slopes.len()], values: slopes.clone() };
        at = onnx.prelu(&format!("{name}.prelu"), &at, &slopes, linear.conv.is_some());
    }
    if let Some(residual) = linear.residual {
        at = onnx.add(&format!("{name}.add"), &at, &names[residual]);
    }
    match &linear.finish {
        Some(Finish::Softmax(softmax)) => onnx.softmax(softmax, &at),
        Some(Finish::Sigmoid(sigmoid)) => onnx.sigmoid(sigmoid, &at),
        None => at,
    }
}

/// Whether the output has no height and width.
fn is_flat(op: &Op) -> bool {
    matches!(op, Op::Linear(linear) if linear.conv.is_none())
}

#[cfg(test)]
mod tests {
    use super::super::affine::normalized;
    use super::super::fold::CENTERED;
    use super::super::graph::Graph;
    use super::super::judge::Aim;
    use super::super::ranges::Method;
    use super::super::simulate::Simulation;
    use super::super::{Recipe, Task, toy};
    use super::*;
    use facelatch::nn::Normalization;
    use prost::Message;
    use tch::Device;
    use tract_onnx::pb;

    fn quantized() -> Quantized {
        let graph = Graph::read("toy.onnx", &toy::onnx(1)).expect("a graph");
        let task = Task {
            graph: &graph,
            normalization: Normalization::ARCFACE,
            aim: Aim::Windows(0.5),
            calibrate: &[toy::pictures(8, 1)],
            select: &[toy::pictures(8, 2)],
            seed: 1,
        };
        let recipe = Recipe { activations: Method::MinMax, correct_biases: true };
        task.post_training(&[recipe], |_, _| ()).expect("a quantized network").quantized
    }

    #[test]
    fn the_device_gets_what_was_simulated() {
        let quantized = quantized();
        let pictures = toy::pictures(4, 3);
        let network = Simulation::quantized(&quantized, Device::Cpu);
        let simulated = toy::torch(&network, &normalized(&pictures, &CENTERED));
        let got = toy::device(&write(&quantized), &pictures, &CENTERED);
        // A value halfway between two steps may be rounded either way.
        let difference = toy::difference(&simulated, &got);
        assert!(difference < 0.02, "{difference}");
    }

    /// Two blocks with squeeze and excitation, one with a ReLU and one with a PReLU.
    #[test]
    fn the_device_gets_the_gates_that_were_simulated() {
        let graph = Graph::read("gated.onnx", &toy::gated()).expect("a graph");
        let task = Task {
            graph: &graph,
            normalization: Normalization { mean: [0.0; 3], std: [1.0; 3] },
            aim: Aim::Direction,
            calibrate: &[toy::pictures(16, 1)],
            select: &[toy::pictures(8, 2)],
            seed: 1,
        };
        let recipe = Recipe { activations: Method::MinMax, correct_biases: true };
        let done = task.post_training(&[recipe], |_, _| ()).expect("a quantized network");
        assert!(done.agreement.cost() < 0.01, "{:?}", done.agreement);
        let quantized = done.quantized;
        let zero = quantized.picture.normalization().mean[0];
        let zeros = toy::GATED_ZEROS;
        assert!(zeros.iter().any(|low| zero >= *low) && zeros.iter().any(|high| zero <= *high));
        let (pictures, from) = (toy::pictures(4, 3), quantized.picture.normalization());
        let network = Simulation::quantized(&quantized, Device::Cpu);
        let simulated = toy::torch(&network, &normalized(&pictures, &from));
        let file = write(&quantized);
        let got = toy::device_of(&file, &[toy::GATED_OUTPUT], &pictures, &from);
        // A value halfway between two steps may be rounded either way.
        let difference = toy::difference(&simulated, &got);
        assert!(difference < 0.02, "{difference}");
        let model = pb::ModelProto::decode(&file[..]).expect("a model");
        let nodes = model.graph.expect("a graph").node;
        let count = |kind: &str| nodes.iter().filter(|node| node.op_type == kind).count();
        assert_eq!(
            ["GlobalAveragePool", "Sigmoid", "Mul", "Relu", "Add"].map(count),
            [2, 2, 2, 1, 1]
        );
    }

    #[test]
    fn what_is_written_is_what_was_quantized() {
        let quantized = quantized();
        let model = pb::ModelProto::decode(&write(&quantized)[..]).expect("a model");
        let graph = model.graph.expect("a graph");
        let constant = |name: String| {
            let found = graph.initializer.iter().find(|constant| constant.name == name);
            found.unwrap_or_else(|| panic!("{name}")).clone()
        };
        let floats = |name: String| -> Vec<f32> {
            let raw = constant(name).raw_data;
            raw.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        };
        for (at, linear) in quantized.graph.linears() {
            let name = &quantized.graph.steps[at].name;
            let scales = floats(format!("{name}.weight.scale"));
            let values = constant(format!("{name}.weight")).raw_data;
            for (index, (byte, weight)) in values.iter().zip(&linear.weight.values).enumerate() {
                let scale = scales[index / linear.row()];
                let back = f32::from(byte.cast_signed()) * scale;
                assert!((back - weight).abs() <= 0.501 * scale, "{name}: {back} {weight}");
            }
            let input = quantized.input_of(at);
            for (bias, weight) in floats(format!("{name}.bias.scale")).iter().zip(&scales) {
                assert!((bias / (weight * input.scale) - 1.0).abs() < 1e-6);
            }
            let zeros = constant(format!("{name}.weight.zero_point")).raw_data;
            assert!(zeros.iter().all(|zero| *zero == 0) && zeros.len() == scales.len());
        }
        // Pooling keeps the scale.
        assert_eq!(floats("pool.out.scale".into()), floats("first.out.scale".into()));
    }
}
