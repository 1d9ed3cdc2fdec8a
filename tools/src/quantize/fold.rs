//! Folds the input's normalization into the first layer.

use super::graph::Graph;
use facelatch::nn::Normalization;

/// Normalization of a quantized network's input: `(v - 128) / 128`. In steps of 1/128
/// around zero, a byte `v` is the integer `v - 128`.
pub const CENTERED: Normalization = Normalization { mean: [128.0; 3], std: [128.0; 3] };

/// Changes the layers that read the picture, so that pictures normalized by [`CENTERED`]
/// give the same outputs as pictures normalized by `from` did.
///
/// Exact except where a layer pads the picture: its zeros stood for `from.mean` and now
/// stand for 128.
pub fn fold(graph: &mut Graph, from: &Normalization) {
    let reads: Vec<bool> = graph.steps.iter().map(|step| step.input.is_none()).collect();
    for (_, linear) in graph.linears_mut().filter(|(at, _)| reads[*at]) {
        let taps = linear.weight.shape.iter().skip(2).product::<usize>().max(1);
        let row = linear.row();
        for (weights, bias) in linear.weight.values.chunks_mut(row).zip(&mut linear.bias) {
            let mut sum = f64::from(*bias);
            for (weights, channel) in weights.chunks_mut(taps).zip(0..3) {
                let scale = f64::from(CENTERED.std[channel]) / f64::from(from.std[channel]);
                let shift = f64::from(CENTERED.mean[channel] - from.mean[channel])
                    / f64::from(from.std[channel]);
                for weight in weights {
                    sum += f64::from(*weight) * shift;
                    *weight = (f64::from(*weight) * scale) as f32;
                }
            }
            *bias = sum as f32;
        }
    }
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
            fold(&mut folded, &from);
            let run = |graph: &Graph, normalization: &Normalization| {
                let network = Simulation::float(graph, Device::Cpu);
                toy::torch(&network, &normalized(&bytes, normalization))
            };
            let difference = toy::difference(&run(&graph, &from), &run(&folded, &CENTERED));
            assert!(difference < 1e-4, "{difference}");
        }
    }
}
