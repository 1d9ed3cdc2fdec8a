//! Folds the input's normalization into the first layer.

use super::affine::Affine;
use super::graph::{Graph, Op, PerChannel};
use facelatch::nn::Normalization;

/// Normalization of a quantized network's input, as a rule: `(v - 128) / 128`. In steps of
/// 1/128 around zero, a byte `v` is the integer `v - 128`.
pub const CENTERED: Normalization = Normalization::BYTES;

/// Changes the layers that read the picture, so that pictures stored as `to` give the same
/// outputs as pictures normalized by `from` did.
///
/// Exact except where a layer pads the picture: its zeros stood for the bytes of
/// `black`, which may differ between channels, and now stand for the single byte that is
/// zero in `to`.
pub fn fold(graph: &mut Graph, from: &Normalization, to: Affine) {
    let (scales, shifts) = per_channel(graph, from);
    graph.start = None;
    let to = to.normalization();
    let reads: Vec<bool> = graph.steps.iter().map(|step| step.input.is_none()).collect();
    for (_, linear) in graph.linears_mut().filter(|(at, _)| reads[*at]) {
        let taps = linear.weight.shape.iter().skip(2).product::<usize>().max(1);
        let row = linear.row();
        for (weights, bias) in linear.weight.values.chunks_mut(row).zip(&mut linear.bias) {
            let mut sum = f64::from(*bias);
            for (weights, channel) in weights.chunks_mut(taps).zip(0..3) {
                let scale = scales[channel] * f64::from(to.std[channel]);
                let shift = scales[channel] * f64::from(to.mean[channel]) + shifts[channel];
                for weight in weights {
                    sum += f64::from(*weight) * shift;
                    *weight = (f64::from(*weight) * scale) as f32;
                }
            }
            *bias = sum as f32;
        }
    }
}

/// Factor and term of each channel that make a layer's input of a byte.
fn per_channel(graph: &Graph, from: &Normalization) -> ([f64; 3], [f64; 3]) {
    let PerChannel { factors, terms } =
        graph.start.unwrap_or(PerChannel { factors: [1.0; 3], terms: [0.0; 3] });
    let scales = [0, 1, 2].map(|at| f64::from(factors[at]) / f64::from(from.std[at]));
    let shifts = [0, 1, 2].map(|at| f64::from(terms[at]) - scales[at] * f64::from(from.mean[at]));
    (scales, shifts)
}

/// The byte of each channel for which a layer reads zero, which padding stands for. It
/// need not be whole or finite.
fn black(graph: &Graph, from: &Normalization) -> [f64; 3] {
    let (scales, shifts) = per_channel(graph, from);
    [0, 1, 2].map(|at| -shifts[at] / scales[at])
}

/// Bytes that may stand for zero in the quantized network.
///
/// A graph that only takes the normalized picture keeps 128. One that scales the picture
/// itself may have its zeros far from there, and padding with 128 would show: in
/// face-reidentification-retail-0095, whose zeros are 64, 68 and 82, it costs the embedding
/// 0.012 of cosine, and padding with 64 to 72 costs 0.0002 to 0.0003. So all bytes between
/// the channels' zeros are candidates.
pub fn candidates(graph: &Graph, from: &Normalization) -> Vec<u8> {
    let pads = graph.steps.iter().any(|step| match &step.op {
        Op::Linear(linear) => {
            step.input.is_none() && linear.conv.is_some_and(|conv| conv.padding > 0)
        }
        Op::MaxPool { .. } | Op::MeanPool | Op::Gate { .. } => false,
    });
    let black = black(graph, from);
    if !pads || graph.start.is_none() || black.iter().any(|byte| !byte.is_finite()) {
        return vec![128];
    }
    let lowest = black.iter().copied().fold(f64::INFINITY, f64::min).floor();
    let highest = black.iter().copied().fold(f64::NEG_INFINITY, f64::max).ceil();
    let byte = |value: f64| value.clamp(0.0, 255.0) as u8;
    (byte(lowest)..=byte(highest)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::affine::normalized;
    use super::super::simulate::Simulation;
    use super::super::toy;
    use super::*;
    use tch::Device;

    #[test]
    fn centered_pictures_give_what_pictures_of_any_normalization_gave() {
        let graph = Graph::read("toy.onnx", &toy::onnx(0)).expect("a graph");
        let bytes = toy::pictures(2, 1);
        for from in [Normalization::ARCFACE, Normalization::IMAGENET] {
            let mut folded = graph.clone();
            fold(&mut folded, &from, Affine::PICTURE);
            let after = run(&folded, &bytes, &CENTERED);
            let difference = toy::difference(&run(&graph, &bytes, &from), &after);
            assert!(difference < 1e-4, "{difference}");
        }
    }

    const BYTES: Normalization = Normalization { mean: [0.0; 3], std: [1.0; 3] };

    fn run(graph: &Graph, bytes: &tch::Tensor, normalization: &Normalization) -> Vec<Vec<f32>> {
        let network = Simulation::float(graph, Device::Cpu);
        toy::torch(&network, &normalized(bytes, normalization))
    }

    #[test]
    fn factors_and_terms_are_folded_exactly_where_one_byte_is_zero_for_all_channels() {
        let mut graph = Graph::read("gated.onnx", &toy::gated()).expect("a graph");
        let start = graph.start.as_mut().expect("factors and terms");
        start.terms = start.factors.map(|factor| -60.0 * factor);
        let zeros = candidates(&graph, &BYTES);
        assert!(zeros.contains(&60) && zeros.len() <= 3, "{zeros:?}");
        let (mut folded, to) = (graph.clone(), Affine::picture(60));
        assert_eq!(to.normalization(), Normalization { mean: [60.0; 3], std: [128.0; 3] });
        fold(&mut folded, &BYTES, to);
        assert_eq!(folded.start, None);
        let bytes = toy::pictures(2, 1);
        let before = run(&graph, &bytes, &BYTES);
        let difference = toy::difference(&before, &run(&folded, &bytes, &to.normalization()));
        assert!(difference < 1e-4, "{difference}");
    }

    #[test]
    fn zero_is_looked_for_only_where_the_graph_scales_and_pads() {
        let mut graph = Graph::read("gated.onnx", &toy::gated()).expect("a graph");
        let all = candidates(&graph, &BYTES);
        assert!(all.len() < 30 && [50, 56, 76].iter().all(|zero| all.contains(zero)), "{all:?}");
        let factors = graph.start.as_mut().expect("factors and terms");
        factors.factors = [0.0; 3];
        assert_eq!(candidates(&graph, &BYTES), [128]);
        let plain = Graph::read("toy.onnx", &toy::onnx(1)).expect("a graph");
        assert_eq!(candidates(&plain, &Normalization::IMAGENET), [128]);
    }
}
