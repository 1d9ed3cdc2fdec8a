use super::*;
use crate::networks::onnx::Whole;
use crate::weights::Tensor as Weights;
use crate::weights::openvino::Source;
use crate::weights::openvino::read;
use crate::weights::openvino::written::{Ir, Value, join};

/// Uniform numbers from -0.5 to 0.5.
pub(crate) fn numbers(seed: u32) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    }
}

/// Random weights that keep activations within bounds.
pub(crate) fn random(seed: u32) -> Reid {
    with_biases(seed, 0.2)
}

/// Random weights whose embeddings differ by face, because biases are small.
pub(crate) fn telling_apart(seed: u32) -> Reid {
    with_biases(seed, 0.01)
}

/// Random weights with biases up to this value.
fn with_biases(seed: u32, bias: f32) -> Reid {
    let mut next = numbers(seed);
    let tensors = expected()
        .into_iter()
        .map(|(name, shape)| {
            let count: usize = shape.iter().product();
            let inputs = shape.iter().skip(1).product::<usize>().max(1);
            let values = (0..count)
                .map(|_| match name.rsplit('.').next() {
                    Some("factor") => (1.0 + 0.1 * next()) / 128.0,
                    Some("term") => 0.1 * next() - 1.0,
                    Some("slope") => 0.25 + 0.1 * next(),
                    Some("weight") => next() * 3.4 / (inputs as f32).sqrt(),
                    _ => bias * next(),
                })
                .collect();
            (name, Weights { shape, values })
        })
        .collect();
    Reid { tensors }
}

/// An IR of the network with random weights, written from the layers of the published file.
struct Writer {
    ir: Ir,
    state: u32,
    count: usize,
}

impl Writer {
    fn constant(&mut self, shape: &[usize], center: f32, spread: f32) -> Value {
        self.count += 1;
        let (name, state) = (format!("c{}", self.count), &mut self.state);
        self.ir.constant(&name, shape, || {
            *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            center + spread * ((*state >> 8) as f32 / (1 << 23) as f32 - 1.0)
        })
    }

    fn layer(&mut self, kind: &str, data: &str, inputs: &[&Value], shape: &[usize]) -> Value {
        self.count += 1;
        self.ir.layer(kind, &format!("n{}", self.count), data, inputs, Some(shape))
    }

    fn per_channel(&mut self, kind: &str, input: &Value, center: f32) -> Value {
        let constant = self.constant(&[1, input.shape[1], 1, 1], center, 0.1);
        let shape = input.shape.clone();
        self.layer(kind, "auto_broadcast=\"numpy\"", &[input, &constant], &shape)
    }

    fn conv(&mut self, input: &Value, to: usize, side: usize, stride: usize) -> Value {
        let pad = usize::from(side == 3);
        let from = input.shape[1];
        let depthwise = side == 8 || (side == 3 && from > 3);
        let inputs = if depthwise { 1 } else { from };
        let spread = 2.0 / ((inputs * side * side) as f32).sqrt();
        let (kind, weight) = match depthwise {
            true => ("GroupConvolution", self.constant(&[to, 1, 1, side, side], 0.0, spread)),
            false => ("Convolution", self.constant(&[to, from, side, side], 0.0, spread)),
        };
        let height = (input.shape[2] + 2 * pad - side) / stride + 1;
        let data = format!(
            "strides=\"{stride}, {stride}\" dilations=\"1, 1\" pads_begin=\"{pad}, {pad}\" \
             pads_end=\"{pad}, {pad}\" auto_pad=\"explicit\""
        );
        self.layer(kind, &data, &[input, &weight], &[1, to, height, height])
    }

    fn biased(&mut self, input: &Value, to: usize, side: usize, stride: usize) -> Value {
        let at = self.conv(input, to, side, stride);
        self.per_channel("Add", &at, 0.0)
    }

    fn prelu(&mut self, input: &Value) -> Value {
        let slope = self.constant(&[1], 0.25, 0.1);
        let shape = input.shape.clone();
        self.layer("PReLU", "", &[input, &slope], &shape)
    }

    fn bottleneck(&mut self, input: &Value, wide: usize, to: usize, stride: usize) -> Value {
        let mut at = self.biased(input, wide, 1, 1);
        at = self.prelu(&at);
        at = self.biased(&at, wide, 3, stride);
        at = self.prelu(&at);
        at = self.biased(&at, to, 1, 1);
        let side = at.shape[2];
        let data = format!(
            "kernel=\"{side}, {side}\" strides=\"{side}, {side}\" pads_begin=\"0, 0\" \
             pads_end=\"0, 0\" exclude-pad=\"true\" auto_pad=\"explicit\" rounding_type=\"floor\""
        );
        let mut scale = self.layer("AvgPool", &data, &[&at], &[1, to, 1, 1]);
        scale = self.biased(&scale, to / 8, 1, 1);
        scale = self.prelu(&scale);
        scale = self.biased(&scale, to, 1, 1);
        scale = self.layer("Sigmoid", "", &[&scale], &[1, to, 1, 1]);
        let broadcast = "auto_broadcast=\"numpy\"";
        let shape = at.shape.clone();
        at = self.layer("Multiply", broadcast, &[&at, &scale], &shape);
        match stride {
            1 => self.layer("Add", broadcast, &[input, &at], &shape),
            _ => at,
        }
    }
}

fn written(half: bool) -> Ir {
    let ir = Ir::new(half);
    let mut writer = Writer { ir, state: 7, count: 0 };
    let shape = [1, 3, 128, 128];
    let data = format!("shape=\"{}\" element_type=\"f32\"", join(&shape));
    let mut at = writer.layer("Parameter", &data, &[], &shape);
    at = writer.per_channel("Multiply", &at, 0.015_625);
    at = writer.per_channel("Add", &at, -1.0);
    at = writer.biased(&at, 64, 3, 2);
    at = writer.prelu(&at);
    at = writer.biased(&at, 64, 3, 1);
    at = writer.prelu(&at);
    for (wide, to, stride, count) in [
        (128, 64, 2, 1),
        (128, 64, 1, 4),
        (256, 128, 2, 1),
        (256, 128, 1, 6),
        (512, 128, 2, 1),
        (256, 128, 1, 2),
    ] {
        for _ in 0..count {
            at = writer.bottleneck(&at, wide, to, stride);
        }
    }
    at = writer.biased(&at, 512, 1, 1);
    at = writer.prelu(&at);
    at = writer.biased(&at, 512, 8, 1);
    at = writer.conv(&at, 256, 1, 1);
    writer.ir.layer("Result", "result", "", &[&at], None);
    writer.ir
}

/// The network with random weights, as ONNX.
pub(crate) fn noise() -> Vec<u8> {
    let ir = written(true);
    let graph = read(ir.xml().as_bytes(), &ir.bin).expect("a graph");
    Reid::from_ir(&graph).expect("the network").to_onnx()
}

#[test]
fn both_precisions_become_onnx_that_runs() {
    for half in [false, true] {
        let ir = written(half);
        let graph = read(ir.xml().as_bytes(), &ir.bin).expect("a graph");
        assert_eq!(parameters(&graph), 1_106_814);
        let network = Reid::from_ir(&graph).expect("the network");
        let onnx = network.to_onnx();
        check(&onnx).expect("it runs");
        let read = Reid::from_onnx(&onnx).expect("the same file");
        assert_eq!(read, network);
        assert!(read.to_onnx() == onnx, "half: {half}");
    }
}

#[test]
fn any_other_node_is_named() {
    let ir = written(true);
    let xml = ir.xml();
    let twice = "<layer id=\"9000\" name=\"more\" type=\"Parameter\" version=\"opset1\"></layer>";
    for (from, to, expected) in [
        (
            "type=\"PReLU\"",
            "type=\"ReLU\"",
            "has the operation ReLU of opset1, expected PReLU of opset1 as number 6 of",
        ),
        (
            "type=\"Sigmoid\" version=\"opset1\"",
            "type=\"Sigmoid\" version=\"opset4\"",
            "Sigmoid): has the operation Sigmoid of opset4",
        ),
        (
            "strides=\"2, 2\"",
            "strides=\"1, 1\"",
            "Convolution): has strides [1, 1], expected [2, 2]",
        ),
        (
            "pads_end=\"1, 1\"",
            "pads_end=\"0, 1\"",
            "Convolution): has pads_end [0, 1], expected [1, 1]",
        ),
        (
            "auto_pad=\"explicit\"",
            "auto_pad=\"valid\"",
            "has auto_pad \"valid\", expected \"explicit\"",
        ),
        ("auto_pad=\"explicit\"", "", "has no attribute \"auto_pad\", expected \"explicit\""),
        (
            "exclude-pad=\"true\"",
            "exclude-pad=\"true\" axis=\"1\"",
            "AvgPool): has the attribute \"axis\", [1], expected no such attribute",
        ),
        (
            "shape=\"1, 3, 128, 128\"",
            "shape=\"1, 3, 112, 112\"",
            "Parameter): has shape [1, 3, 112, 112], expected [1, 3, 128, 128]",
        ),
        (
            "</layer>\n</layers>",
            &format!("</layer>{twice}</layers>"),
            "node 9000 (more, Parameter): has a place after the result",
        ),
    ] {
        assert!(xml.contains(from), "{from} is not in the XML");
        let graph = read(xml.replacen(from, to, 1).as_bytes(), &ir.bin).expect("a graph");
        let message = Reid::from_ir(&graph).expect_err(to).to_string();
        assert!(message.contains(expected), "{from} -> {to}: {message}");
    }
}

#[test]
fn other_shapes_edges_and_lengths_are_named() {
    let ir = written(true);
    let graph = read(ir.xml().as_bytes(), &ir.bin).expect("a graph");
    let message = |change: &dyn Fn(&mut Graph)| {
        let mut graph = graph.clone();
        change(&mut graph);
        Reid::from_ir(&graph).expect_err("another graph").to_string()
    };
    let last = graph.nodes.len() - 1;
    let shape = message(&|graph| graph.nodes[3].shape[1] = 63);
    assert!(shape.contains("has an output of shape [1, 63, 64, 64], expected [1, 64"), "{shape}");
    let inputs = message(&|graph| graph.nodes[4].inputs.truncate(1));
    assert!(inputs.contains("has 1 inputs, expected 2"), "{inputs}");
    let edge = message(&|graph| graph.nodes[last].inputs = vec![Source::Node(0)]);
    assert!(edge.contains("as input 0 the output of node 0 (n1, Parameter), expected"), "{edge}");
    let swapped = message(&|graph| graph.nodes[4].inputs.reverse());
    assert!(swapped.contains("as input 0 the constant c"), "{swapped}");
    let slopes = message(&|graph| {
        let Source::Constant(name) = graph.nodes[5].inputs[1].clone() else { return };
        graph.constants.insert(name, Tensor { shape: vec![2], values: vec![0.1; 2] });
    });
    assert!(slopes.contains("of shape [2], expected shape [1]"), "{slopes}");
    for length in 0..=last {
        let ends = message(&|graph| graph.nodes.truncate(length));
        assert!(ends.contains(&format!("it ends after {length} nodes")), "{ends}");
    }
}

#[test]
fn the_network_has_the_steps_that_can_be_frozen() {
    let names: Vec<String> = steps().into_iter().map(|step| step.name).collect();
    assert_eq!(names.len(), crate::networks::mobilefacenet::steps().len() + 1);
    assert_eq!(names[..3], ["stem", "stem_dw", "block1"]);
    assert_eq!(names[16..], ["block15", "features", "features_dw", "projection"]);
}

#[test]
fn a_file_that_differs_anywhere_is_refused() {
    let network = random(3);
    let onnx = network.to_onnx();
    let refused = |onnx: &[u8]| format!("{:#}", Reid::from_onnx(onnx).expect_err("refused"));
    assert!(refused(b"<html>").contains("not an ONNX file"));
    assert!(refused(&onnx[..onnx.len() / 2]).contains("not an ONNX file"));
    let mut model = pb::ModelProto::decode(&*onnx).expect("a model");
    let graph = model.graph.as_mut().expect("a graph");
    graph.node[3].op_type = "Relu".to_owned();
    let error = refused(&model.encode_to_vec());
    assert!(error.contains("the graph differs at stem.prelu"), "{error}");
    let mut cut = network.tensors.clone();
    cut.remove("block3.excite.bias");
    let error = Reid::from_tensors(cut).expect_err("cut").to_string();
    assert!(error.contains("block3.excite.bias is missing"), "{error}");
    let mut bytes = GraphBuilder::new("q", "face", &[]);
    bytes.scaled("stem.weight", &[1], Whole::Bytes(&[1]), &[1.0]);
    let error = refused(&bytes.finish());
    assert!(error.contains("stem.weight is not in 32-bit floating point"), "{error}");
}

#[test]
fn the_alignment_is_one_that_a_manifest_takes() {
    ALIGNMENT.check().expect("in range");
}
