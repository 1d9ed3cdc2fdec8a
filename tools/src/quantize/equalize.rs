//! Cross-layer equalization (Nagel et al., "Data-free quantization through weight
//! equalization and bias correction", 2019). All channels of an activation share one
//! scale, so channels are first brought to similar ranges. A factor that is divided out
//! of a channel where it is computed is multiplied into the weights that read it.
//!
//! This is exact in real numbers, because PReLU, ReLU, pooling and sums commute with
//! positive factors.
//!
//! A sigmoid does not, so the gates of squeeze and excitation stay as they are: their layer
//! is scaled at its inputs only. What they multiply can be scaled, because the gate's
//! product commutes too. The input of the gate, its mean, its product and what is added to
//! that share one factor per channel, and the factors are multiplied into the weights of
//! the squeezing layer as into those of the next layers. So all outputs of one resolution
//! are scaled alike where residuals tie them.

use super::graph::{Graph, Op};

/// Largest ratio between the factors of two channels. A channel that is always zero would
/// need an infinite factor.
const WIDEST: f32 = 1e4;

/// Brings channels to similar ranges. `peaks` holds the largest magnitude of each output
/// channel, for each step.
///
/// If all readers mix channels, the factor is the square root of range over weight, which
/// leaves activations and weights equally uneven. A depthwise reader has one scale per
/// channel anyway, so there the range alone decides.
pub fn equalize(graph: &mut Graph, peaks: &[Vec<f32>]) {
    for group in tied(graph) {
        if group.iter().any(|step| graph.is_head(*step) || is_sigmoid(graph, *step)) {
            continue;
        }
        let channels = peaks[group[0]].len();
        let range = largest(channels, group.iter().map(|step| normalized(&peaks[*step])));
        let mixing = graph
            .linears()
            .filter(|(at, linear)| reads(graph, *at, &group) && !linear.is_depthwise())
            .flat_map(|(_, linear)| {
                // Each output channel has its own scale.
                let columns = linear.row() / channels;
                linear.weight.values.chunks(linear.row()).map(move |row| {
                    normalized(&row.chunks(columns).map(peak).collect::<Vec<f32>>())
                })
            });
        let weight = largest(channels, mixing);
        let mixes = weight.iter().any(|weight| *weight > 0.0);
        let raw: Vec<f32> = range
            .iter()
            .zip(&weight)
            .map(|(range, weight)| {
                let range = range.max(1.0 / WIDEST);
                if mixes { (range / weight.max(1.0 / WIDEST)).sqrt() } else { range }
            })
            .collect();
        let highest = peak(&raw);
        let factors: Vec<f32> =
            raw.iter().map(|factor| (factor / highest).max(1.0 / WIDEST)).collect();
        scale(graph, &group, &factors);
    }
}

/// Divides the channels of the group's outputs by `factors`, and multiplies the weights
/// that read them.
fn scale(graph: &mut Graph, group: &[usize], factors: &[f32]) {
    let readers: Vec<bool> = (0..graph.steps.len()).map(|at| reads(graph, at, group)).collect();
    for (at, linear) in graph.linears_mut() {
        let row = linear.row();
        if group.contains(&at) {
            for ((weights, bias), factor) in
                linear.weight.values.chunks_mut(row).zip(&mut linear.bias).zip(factors)
            {
                weights.iter_mut().for_each(|weight| *weight /= factor);
                *bias /= factor;
            }
        }
        if readers[at] && linear.is_depthwise() {
            for (weights, factor) in linear.weight.values.chunks_mut(row).zip(factors) {
                weights.iter_mut().for_each(|weight| *weight *= factor);
            }
        } else if readers[at] {
            for weights in linear.weight.values.chunks_mut(row) {
                for (weights, factor) in weights.chunks_mut(row / factors.len()).zip(factors) {
                    weights.iter_mut().for_each(|weight| *weight *= factor);
                }
            }
        }
    }
}

fn is_sigmoid(graph: &Graph, step: usize) -> bool {
    matches!(&graph.steps[step].op, Op::Linear(linear) if linear.is_sigmoid())
}

fn reads(graph: &Graph, step: usize, group: &[usize]) -> bool {
    graph.steps[step].input.is_some_and(|input| group.contains(&input))
}

/// Groups of steps whose outputs must be scaled alike because an addition, a pooling or a
/// gate ties them. Every other step is a group of one.
fn tied(graph: &Graph) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (at, step) in graph.steps.iter().enumerate() {
        let ties = match &step.op {
            Op::Linear(linear) => [linear.residual, None],
            Op::MaxPool { .. } | Op::MeanPool => [step.input, None],
            Op::Gate { residual, .. } => [step.input, *residual],
        };
        // A tie leads to an earlier step, which is already in a group.
        let is_tied = |group: &Vec<usize>| ties.iter().flatten().any(|tie| group.contains(tie));
        match groups.iter().position(is_tied) {
            Some(first) => {
                let mut others = groups.split_off(first + 1);
                let more = others.extract_if(.., |group| is_tied(group)).flatten();
                groups[first].extend(more);
                groups[first].push(at);
                groups.append(&mut others);
            }
            None => groups.push(vec![at]),
        }
    }
    groups
}

fn peak(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |peak, value| peak.max(value.abs()))
}

/// The values as shares of the largest magnitude.
fn normalized(values: &[f32]) -> Vec<f32> {
    let peak = peak(values).max(f32::MIN_POSITIVE);
    values.iter().map(|value| value / peak).collect()
}

fn largest(channels: usize, rows: impl Iterator<Item = Vec<f32>>) -> Vec<f32> {
    rows.fold(vec![0.0; channels], |largest, row| {
        largest.iter().zip(row).map(|(a, b)| a.max(b)).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::super::affine::normalized;
    use super::super::fold::CENTERED;
    use super::super::ranges::observe;
    use super::super::simulate::Simulation;
    use super::super::toy;
    use super::*;
    use facelatch::nn::Normalization;
    use tch::Device;

    fn peaks(graph: &Graph, bytes: &tch::Tensor, from: &Normalization) -> Vec<Vec<f32>> {
        let network = Simulation::float(graph, Device::Cpu);
        let batches = [bytes.shallow_clone()];
        let seen = observe(&network, graph.steps.len(), &batches, from, 1);
        seen.expect("ranges").into_iter().map(|seen| seen.peaks).collect()
    }

    fn at(graph: &Graph, name: &str) -> usize {
        graph.steps.iter().position(|step| step.name == name).expect("a layer")
    }

    fn spread(peaks: &[f32]) -> f32 {
        peak(peaks) / peaks.iter().copied().fold(f32::MAX, f32::min)
    }

    #[test]
    fn channels_come_nearer_and_the_outputs_stay() {
        let bytes = toy::pictures(4, 1);
        let unscaled = Normalization { mean: [0.0; 3], std: [1.0; 3] };
        for (file, from, wide) in [
            (toy::onnx(1), CENTERED, vec!["wide"]),
            (toy::gated(), unscaled, vec!["one.expand", "two.expand"]),
        ] {
            let graph = Graph::read("toy.onnx", &file).expect("a graph");
            let before = peaks(&graph, &bytes, &from);
            let mut equal = graph.clone();
            equalize(&mut equal, &before);
            assert_ne!(equal, graph);
            let run = |graph: &Graph| {
                let network = Simulation::float(graph, Device::Cpu);
                toy::torch(&network, &normalized(&bytes, &from))
            };
            let difference = toy::difference(&run(&graph), &run(&equal));
            assert!(difference < 1e-5, "{difference}");
            let after = peaks(&equal, &bytes, &from);
            // A depthwise layer reads what a widening layer gives.
            for wide in wide {
                let wide = at(&graph, wide);
                assert!(spread(&after[wide]) < 1.01 && spread(&before[wide]) > 4.0);
            }
        }
    }

    #[test]
    fn gates_stay_and_what_they_multiply_is_scaled() {
        let bytes = toy::pictures(4, 1);
        let from = Normalization { mean: [0.0; 3], std: [1.0; 3] };
        let graph = Graph::read("gated.onnx", &toy::gated()).expect("a graph");
        let before = peaks(&graph, &bytes, &from);
        let mut equal = graph.clone();
        equalize(&mut equal, &before);
        let after = peaks(&equal, &bytes, &from);
        for (gate, scaled) in [("one.excite", "one.scaled"), ("two.excite", "two.scaled")] {
            let (gate, scaled) = (at(&graph, gate), at(&graph, scaled));
            for (before, after) in before[gate].iter().zip(&after[gate]) {
                assert!((before - after).abs() < 1e-5);
            }
            assert!(spread(&after[scaled]) < 0.8 * spread(&before[scaled]));
        }
    }

    #[test]
    fn what_an_addition_a_pooling_or_a_gate_ties_is_scaled_alike() {
        for (file, expected) in [
            (toy::onnx(1), &["first", "pool", "project"][..]),
            (
                toy::gated(),
                &["one.project", "one.mean", "one.scaled", "two.project", "two.mean", "two.scaled"],
            ),
        ] {
            let graph = Graph::read("toy.onnx", &file).expect("a graph");
            let name = |step: &usize| graph.steps[*step].name.as_str();
            let tied = tied(&graph);
            let group = tied.iter().find(|group| group.len() > 1).expect("a group");
            assert_eq!(group.iter().map(name).collect::<Vec<_>>(), expected);
            let alone = tied.iter().filter(|group| group.len() == 1).count();
            assert_eq!(alone, graph.steps.len() - expected.len());
        }
    }
}
