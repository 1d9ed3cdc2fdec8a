use super::*;
use crate::networks::reid;
use crate::quantize::affine::normalized;
use crate::quantize::simulate::Simulation;
use crate::quantize::toy;
use crate::train::torch_net::tests::noise;
use facelatch::nn::Normalization;
use prost::Message;
use tch::Device;

#[test]
fn torch_and_the_device_agree_on_what_was_read() {
    let bytes = toy::onnx(1);
    let graph = Graph::read("toy.onnx", &bytes).expect("a graph");
    assert_eq!(graph.steps.len(), 9);
    let (pictures, from) = (toy::pictures(3, 1), Normalization::IMAGENET);
    let network = Simulation::float(&graph, Device::Cpu);
    let torch = toy::torch(&network, &normalized(&pictures, &from));
    assert!(toy::difference(&torch, &toy::device(&bytes, &pictures, &from)) < 1e-4);
}

#[test]
fn the_recognizer_is_read_whole() {
    let graph = Graph::read("noise.onnx", &noise(32, 7).to_onnx()).expect("a graph");
    assert_eq!(graph.linears().filter(|(_, linear)| linear.residual.is_some()).count(), 12);
    assert_eq!(graph.linears().filter(|(_, linear)| linear.is_depthwise()).count(), 17);
    assert_eq!(graph.outputs.len(), 1);
}

#[test]
fn gates_are_read_as_the_device_runs_them() {
    let bytes = toy::gated();
    let graph = Graph::read("gated.onnx", &bytes).expect("a graph");
    let is_gate = |step: &&Step| matches!(step.op, Op::Gate { .. });
    assert_eq!((graph.steps.len(), graph.steps.iter().filter(is_gate).count()), (17, 2));
    let relus = graph.linears().filter(|(_, linear)| linear.is_relu()).count();
    let sigmoids = graph.linears().filter(|(_, linear)| linear.is_sigmoid()).count();
    assert_eq!((relus, sigmoids), (1, 2));
    let (pictures, from) = (toy::pictures(3, 1), Normalization { mean: [0.0; 3], std: [1.0; 3] });
    let network = Simulation::float(&graph, Device::Cpu);
    let torch = toy::torch(&network, &normalized(&pictures, &from));
    let device = toy::device_of(&bytes, &[toy::GATED_OUTPUT], &pictures, &from);
    assert!(toy::difference(&torch, &device) < 1e-4);
}

#[test]
fn the_network_of_open_model_zoo_is_read_whole() {
    let graph = Graph::read("noise.onnx", &reid::tests::noise()).expect("a graph");
    let residual = |step: &&Step| matches!(step.op, Op::Gate { residual: Some(_), .. });
    assert_eq!(graph.steps.iter().filter(residual).count(), 12);
    assert_eq!(graph.linears().count(), 80);
    assert!(graph.start.is_some());
    let (output, head) = &graph.outputs[0];
    // Fully connected, so that the door's runtime takes it for an output in 8 bits.
    let last = graph.linears().last().expect("a layer");
    assert_eq!((last.0, last.1.conv, &last.1.weight.shape[..]), (*head, None, &[256, 512][..]));
    assert_eq!(output.name, graph.steps[*head].name);
}

fn changed(change: impl Fn(&mut pb::GraphProto)) -> String {
    fault(&toy::onnx(1), change)
}

fn fault(file: &[u8], change: impl Fn(&mut pb::GraphProto)) -> String {
    let mut model = pb::ModelProto::decode(file).expect("a model");
    model.graph.iter_mut().for_each(change);
    let error = Graph::read("toy.onnx", &model.encode_to_vec()).expect_err("a fault");
    error.to_string()
}

#[test]
fn what_cannot_be_quantized_is_named() {
    let said = changed(|graph| graph.node[1].op_type = "Tanh".to_owned());
    assert!(said.contains("node first.prelu: Tanh has no 8-bit form"), "{said}");
    let said = changed(|graph| graph.node[3].op_type = "DequantizeLinear".to_owned());
    assert!(said.contains("already quantized (node wide)"), "{said}");
    let said = changed(|graph| {
        graph.initializer[0].raw_data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    assert!(said.contains("first.weight holds a value that is not finite"), "{said}");
    let said = changed(|graph| graph.output.truncate(1));
    assert!(said.contains("node box: its output is never read"), "{said}");
    assert!(Graph::read("x", b"no model").is_err());
}

#[test]
fn gates_that_cannot_be_quantized_are_named() {
    let inputs = |graph: &mut pb::GraphProto, node: &str, at: usize, name: &str| {
        let nodes = graph.node.iter_mut().filter(|found| found.name == node);
        nodes.for_each(|node| name.clone_into(&mut node.input[at]));
    };
    for (node, at, input, expected) in [
        ("one.scaled", 1, "one.mean", "node one.scaled: expected the output of a layer and a Sig"),
        ("one.scaled", 0, "one.expand.prelu", "node one.scaled: 8 gates for 16 channels"),
        ("two.mean", 0, "one.gate", "node one.excite: only a Mul may read a Sigmoid"),
        ("two.scaled", 0, "two.gate", "node two.scaled: expected the output of a layer and a Sig"),
        ("first", 0, "picture", "node scale: another node reads the picture without it"),
        ("two.gate", 0, "one.excite", "node one.gate: must follow a Conv or Gemm"),
        ("two.sum", 0, "two.gate", "node two.excite: only a Mul may read a Sigmoid"),
        ("embedding", 0, "two.sum", "output embedding is not a Conv on a single pixel, flattened"),
    ] {
        let said = fault(&toy::gated(), |graph| inputs(graph, node, at, input));
        assert!(said.contains(expected), "{node} {input}: {said}");
    }
    let said = fault(&toy::gated(), |graph| {
        let factors = graph.initializer.iter_mut().filter(|found| found.name == "scale.factor");
        factors.for_each(|factor| factor.dims = vec![3]);
    });
    assert!(said.contains("node scale: expected one constant for each of three"), "{said}");
}
