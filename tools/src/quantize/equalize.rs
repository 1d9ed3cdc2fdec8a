//! Cross-layer equalization (Nagel et al., "Data-free quantization through weight
//! equalization and bias correction", 2019): one scale has to do for all channels
//! of an activation, so channels are brought to similar ranges first. What is
//! divided out of a channel where it is made is multiplied into the weights that
//! read it.
//!
//! Exact in real numbers, because PReLU, pooling and sums keep positive factors.

use super::graph::{Graph, Op};

/// Channels are never scaled further apart than this; one that is always zero
/// would ask for infinity.
const WIDEST: f32 = 1e4;

/// Brings channels to similar ranges. `peaks` holds for each step the largest
/// magnitude of each channel of its output.
///
/// Where channels mix in all readers, the factor is the root of range over weight,
/// which leaves activations and weights equally uneven. A depthwise reader has a
/// scale for each channel anyway: there the range alone decides.
pub fn equalize(graph: &mut Graph, peaks: &[Vec<f32>]) {
    for group in tied(graph) {
        if group.iter().any(|step| graph.is_head(*step)) {
            continue;
        }
        let channels = peaks[group[0]].len();
        let range = largest(channels, group.iter().map(|step| normalized(&peaks[*step])));
        let mixing = graph
            .linears()
            .filter(|(at, linear)| reads(graph, *at, &group) && !linear.is_depthwise())
            .flat_map(|(_, linear)| {
                // Each output channel has a scale of its own.
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

/// Divides the channels of the group's tensors by `factors`, and makes up for it
/// where they are read.
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

fn reads(graph: &Graph, step: usize, group: &[usize]) -> bool {
    graph.steps[step].input.is_some_and(|input| group.contains(&input))
}

/// Steps whose outputs must be scaled alike: those that an addition or a pooling
/// ties, and all others by themselves.
fn tied(graph: &Graph) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (at, step) in graph.steps.iter().enumerate() {
        let tie = match &step.op {
            Op::Linear(linear) => linear.residual,
            Op::MaxPool { .. } => step.input,
        };
        // Ties lead back to earlier steps, which have a group.
        match groups.iter_mut().find(|group| tie.is_some_and(|tie| group.contains(&tie))) {
            Some(group) => group.push(at),
            None => groups.push(vec![at]),
        }
    }
    groups
}

fn peak(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |peak, value| peak.max(value.abs()))
}

/// Shares of the largest.
fn normalized(values: &[f32]) -> Vec<f32> {
    let peak = peak(values).max(f32::MIN_POSITIVE);
    values.iter().map(|value| value / peak).collect()
}

fn largest(channels: usize, rows: impl Iterator<Item = Vec<f32>>) -> Vec<f32> {
    rows.fold(vec![0.0; channels], |largest, row| {
        largest.iter().zip(row).map(|(a, b)| a.max(b)).collect()
    })
}
