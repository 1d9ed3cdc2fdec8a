//! Whole networks in whole numbers: against tract's own reading of the same file,
//! and kernel against kernel.

mod gates;

use super::kernels::Kernel;
use super::*;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;

/// Writes a quantized graph, layer by layer.
struct Builder {
    graph: pb::GraphProto,
    state: u32,
}

impl Builder {
    fn new() -> Self {
        let tensor = pb::type_proto::Tensor { elem_type: DataType::Float as i32, shape: None };
        let kind = pb::TypeProto {
            value: Some(pb::type_proto::Value::TensorType(tensor)),
            ..Default::default()
        };
        let input = pb::ValueInfoProto {
            name: "picture".to_owned(),
            r#type: Some(kind),
            ..Default::default()
        };
        let graph = pb::GraphProto { input: vec![input], ..Default::default() };
        Self { graph, state: 7 }
    }

    fn next(&mut self) -> u32 {
        self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.state >> 8
    }

    fn constant(&mut self, name: &str, dims: &[usize], kind: DataType, raw: Vec<u8>) -> String {
        self.graph.initializer.push(pb::TensorProto {
            name: name.to_owned(),
            dims: dims.iter().map(|side| *side as i64).collect(),
            data_type: kind as i32,
            raw_data: raw,
            ..Default::default()
        });
        name.to_owned()
    }

    fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, dims, DataType::Float, raw)
    }

    fn node(
        &mut self,
        kind: &str,
        name: &str,
        input: &[&str],
        attributes: &[(&str, &[i64])],
    ) -> String {
        let attribute = attributes.iter().map(|(name, values)| pb::AttributeProto {
            name: (*name).to_owned(),
            r#type: if values.len() == 1 { AttributeType::Int } else { AttributeType::Ints } as i32,
            i: values[0],
            ints: if values.len() == 1 { vec![] } else { values.to_vec() },
            ..Default::default()
        });
        self.graph.node.push(pb::NodeProto {
            name: name.to_owned(),
            op_type: kind.to_owned(),
            input: input.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![name.to_owned()],
            attribute: attribute.collect(),
            ..Default::default()
        });
        name.to_owned()
    }

    /// Quantizes and dequantizes again.
    fn rounded(&mut self, from: &str, scale: f32, zero_point: i8) -> String {
        let name = format!("{from}.q");
        let scale = self.floats(&format!("{from}.scale"), &[], &[scale]);
        let raw = vec![zero_point.cast_unsigned()];
        let zero = self.constant(&format!("{from}.zero"), &[], DataType::Int8, raw);
        let bytes = self.node("QuantizeLinear", &name, &[from, &scale, &zero], &[]);
        self.node("DequantizeLinear", &format!("{from}.d"), &[&bytes, &scale, &zero], &[])
    }

    /// A convolution of noise with per-channel scales; `from_scale` is its input's.
    fn conv(
        &mut self,
        name: &str,
        from: &str,
        from_scale: f32,
        shape: [usize; 4],
        how: [usize; 3],
    ) -> String {
        let [outputs, inputs, height, width] = shape;
        let ([stride, padding, groups], count) = (how, shape.iter().product::<usize>());
        let raw =
            (0..count).map(|_| (self.next() % 255) as u8).map(|b| if b == 128 { 1 } else { b });
        let raw = raw.collect();
        let weights = self.constant(&format!("{name}.w"), &shape, DataType::Int8, raw);
        let fan = ((inputs * height * width) as f32).sqrt() * 74.0;
        let scales: Vec<f32> =
            (0..outputs).map(|_| (0.8 + (self.next() % 100) as f32 / 300.0) / fan).collect();
        let scale = self.floats(&format!("{name}.ws"), &[outputs], &scales);
        let zero =
            self.constant(&format!("{name}.wz"), &[outputs], DataType::Int8, vec![0; outputs]);
        let axis: &[(&str, &[i64])] = &[("axis", &[0])];
        let weights =
            self.node("DequantizeLinear", &format!("{name}.wd"), &[&weights, &scale, &zero], axis);
        let raw = (0..outputs).flat_map(|_| (self.next() as i32 % 2000 - 1000).to_le_bytes());
        let raw = raw.collect();
        let bias = self.constant(&format!("{name}.b"), &[outputs], DataType::Int32, raw);
        let scales: Vec<f32> = scales.iter().map(|scale| scale * from_scale).collect();
        let scale = self.floats(&format!("{name}.bs"), &[outputs], &scales);
        let raw = vec![0; 4 * outputs];
        let zero = self.constant(&format!("{name}.bz"), &[outputs], DataType::Int32, raw);
        let bias =
            self.node("DequantizeLinear", &format!("{name}.bd"), &[&bias, &scale, &zero], axis);
        self.node(
            "Conv",
            name,
            &[from, &weights, &bias],
            &[
                ("kernel_shape", &[height as i64, width as i64]),
                ("strides", &[stride as i64; 2]),
                ("pads", &[padding as i64; 4]),
                ("group", &[groups as i64]),
            ],
        )
    }

    fn prelu(&mut self, from: &str, channels: usize) -> String {
        let slopes: Vec<f32> =
            (0..channels).map(|_| (self.next() % 300) as f32 / 100.0 - 1.0).collect();
        let slopes = self.floats(&format!("{from}.slopes"), &[channels, 1, 1], &slopes);
        self.node("PRelu", &format!("{from}.prelu"), &[from, &slopes], &[])
    }

    fn output(&mut self, name: &str) {
        self.graph.output.push(pb::ValueInfoProto { name: name.to_owned(), ..Default::default() });
    }
}

const STEP: f32 = 0.025;

/// Every kind of layer once: strided and padded, depthwise, residual, pooled.
fn network() -> pb::GraphProto {
    let mut b = Builder::new();
    let at = b.rounded("picture", 1.0 / 128.0, 0);
    let at = b.conv("first", &at, 1.0 / 128.0, [20, 3, 3, 3], [2, 1, 1]);
    let at = b.prelu(&at, 20);
    let kept = b.rounded(&at, STEP, -5);
    let at = b.conv("depthwise", &kept, STEP, [20, 1, 3, 3], [1, 1, 20]);
    let at = b.prelu(&at, 20);
    let at = b.rounded(&at, STEP, 9);
    let at = b.conv("project", &at, STEP, [20, 20, 1, 1], [1, 0, 1]);
    let at = b.node("Add", "sum", &[&at, &kept], &[]);
    let at = b.rounded(&at, STEP, 3);
    let at = b.node(
        "MaxPool",
        "pool",
        &[&at],
        &[("kernel_shape", &[3, 3]), ("strides", &[2, 2]), ("ceil_mode", &[1])],
    );
    let at = b.rounded(&at, STEP, 3);
    let at = b.conv("wide", &at, STEP, [70, 20, 2, 2], [1, 0, 1]);
    let at = b.prelu(&at, 70);
    let at = b.rounded(&at, STEP, -20);
    let logits = b.conv("logits", &at, STEP, [2, 70, 1, 1], [1, 0, 1]);
    let face = b.node("Softmax", "face", &[&logits], &[("axis", &[1])]);
    let offsets = b.conv("offsets", &at, STEP, [4, 70, 1, 1], [1, 0, 1]);
    b.output(&face);
    b.output(&offsets);
    b.graph
}

fn kernels() -> impl Iterator<Item = Kernel> {
    Kernel::ALL.into_iter().filter(|kernel| kernel.is_available())
}

fn pictures(sides: &[(usize, usize)]) -> Batch {
    let mut all = Batch::default();
    for (number, &(height, width)) in sides.iter().enumerate() {
        for (at, value) in all.add(height, width).iter_mut().enumerate() {
            let (x, y) = (at / 4 % width, at / 4 / width);
            let byte = (x * (3 + number) + y * 5 + at % 4 * 40 + at * 7919 % 61) % 256;
            *value = byte as i16 * Batch::STEPS;
        }
    }
    all
}

const INPUT: [Dim; 4] = [Dim::Free('N'), Dim::Fixed(3), Dim::Free('H'), Dim::Free('W')];

fn proto(graph: pb::GraphProto) -> pb::ModelProto {
    pb::ModelProto {
        ir_version: 8,
        opset_import: vec![pb::OperatorSetIdProto { domain: String::new(), version: 13 }],
        graph: Some(graph),
        ..Default::default()
    }
}

fn load(graph: pb::GraphProto, kernel: Kernel) -> Result<Network, NetworkError> {
    let (proto, signature) =
        (proto(graph.clone()), Signature { input: INPUT, outputs: vec![2, 4] });
    Network::of("made up", &proto, &graph, &signature, &Normalization::BYTES, Some(kernel))
}

fn int8_network(kernel: Kernel) -> Network {
    load(network(), kernel).expect("a quantized network")
}

/// The same network with every node in floating point, rounding included.
fn float_network() -> Network {
    let mut graph = network();
    // The picture itself is read by a node that no quantized network has.
    for node in graph.node.iter_mut().filter(|node| node.name == "picture.q") {
        node.input[0] = "picture.same".to_owned();
    }
    let same = pb::NodeProto {
        name: "picture.same".to_owned(),
        op_type: "Identity".to_owned(),
        input: vec!["picture".to_owned()],
        output: vec!["picture.same".to_owned()],
        ..Default::default()
    };
    graph.node.insert(0, same);
    load(graph, Kernel::best()).expect("a network that tract reads")
}

fn run(network: &mut Network, pictures: &Batch) -> Vec<Vec<f32>> {
    let outputs = network.run(pictures).expect("outputs");
    outputs.iter().map(|output| output.places().flatten().copied().collect()).collect()
}

#[test]
fn tract_reads_the_same_network_in_the_file() {
    let pictures = pictures(&[(37, 52), (30, 30)]);
    let mut float = float_network();
    assert_eq!(float.precision(), Precision::Float);
    let expected = run(&mut float, &pictures);
    let got = run(&mut int8_network(Kernel::best()), &pictures);
    for (got, expected) in got.iter().zip(expected) {
        assert_eq!(got.len(), expected.len());
        let spread = expected.iter().copied().fold(0.0, f32::max)
            - expected.iter().copied().fold(f32::MAX, f32::min);
        assert!(spread > 0.2, "an output that tells nothing: {spread}");
        let errors: Vec<f32> = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).collect();
        // Sums in floating point round now and then to the next step.
        let mean = errors.iter().sum::<f32>() / errors.len() as f32;
        assert!(mean < 0.002 * spread, "{mean} of {spread}");
        assert!(errors.iter().all(|error| *error < 0.1 * spread));
    }
}

#[test]
fn all_kernels_make_the_same_of_a_network() {
    let pictures = pictures(&[(37, 52), (19, 23)]);
    let bits = |kernel| -> Vec<Vec<u32>> {
        let outputs = run(&mut int8_network(kernel), &pictures);
        outputs.iter().map(|output| output.iter().map(|v| v.to_bits()).collect()).collect()
    };
    let expected = bits(Kernel::Scalar);
    for kernel in kernels() {
        assert_eq!(bits(kernel), expected, "{}", kernel.name());
    }
}

#[test]
fn a_batch_is_each_of_its_pictures() {
    let sides = [(37, 52), (19, 23), (24, 24), (3, 3), (30, 17)];
    let mut network = int8_network(Kernel::best());
    let together = run(&mut network, &pictures(&sides));
    // A batch that the last one begins with, then others.
    for count in [3, 1, 5, 0] {
        let some = run(&mut network, &pictures(&sides[..count]));
        for (some, all) in some.iter().zip(&together) {
            assert_eq!(some[..], all[..some.len()]);
        }
    }
    let mut apart = vec![Vec::new(); 2];
    let all = pictures(&sides);
    let mut values = all.values();
    for &(height, width) in &sides {
        let mut one = Batch::default();
        let (these, rest) = values.split_at(height * width * Batch::PIXEL);
        one.add(height, width).copy_from_slice(these);
        values = rest;
        for (all, mut some) in apart.iter_mut().zip(run(&mut network, &one)) {
            all.append(&mut some);
        }
    }
    assert_eq!(apart, together);
}

/// Why a changed network is refused, or else the first reason for floating point.
fn fault(change: impl Fn(&mut pb::GraphProto)) -> String {
    let mut graph = network();
    change(&mut graph);
    fault_of(&graph)
}

fn fault_of(graph: &pb::GraphProto) -> String {
    let shown = |fault: qdq::Fault| format!("{}: {}", fault.node, fault.reason);
    match partition::Partition::of(graph, None) {
        Ok(partition) => match program::Program::new(partition.model, Kernel::best()) {
            Ok(_) => partition.reason.map_or("nothing".to_owned(), shown),
            Err(fault) => shown(fault),
        },
        Err(fault) => shown(fault),
    }
}

fn set_floats(graph: &mut pb::GraphProto, name: &str, values: &[f32]) {
    for constant in graph.initializer.iter_mut().filter(|constant| constant.name == name) {
        constant.raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let said = fault(|graph| set_floats(graph, "sum.scale", &[0.0]));
    assert!(said.starts_with("sum.q: its scale is 0"), "{said}");
    let said = fault(|graph| set_floats(graph, "sum.scale", &[f32::NAN]));
    assert!(said.starts_with("sum.q: its scale is NaN"), "{said}");
    let said = fault(|graph| {
        for node in graph.node.iter_mut().filter(|node| node.op_type == "MaxPool") {
            node.op_type = "AveragePool".to_owned();
        }
    });
    assert_eq!(said, "pool: there is no 8-bit operator for AveragePool");
    let said = fault(|graph| graph.node.retain(|node| node.name != "depthwise.prelu.q"));
    assert!(said.starts_with("depthwise.prelu.d: "), "{said}");
    let said = fault(|graph| set_floats(graph, "wide.slopes", &[1.0]));
    assert_eq!(said, "nothing", "one slope for all channels");
    let said = fault(|graph| set_floats(graph, "wide.slopes", &[1.0, 2.0]));
    assert!(said.contains("one finite slope for each of 70 channels"), "{said}");
    let said = fault(|graph| set_floats(graph, "wide.bs", &[1.0; 70]));
    assert!(said.starts_with("wide: the scale of its bias"), "{said}");
    let said = fault(|graph| {
        for constant in graph.initializer.iter_mut().filter(|c| c.name == "wide.w") {
            constant.raw_data[0] = 0x80;
        }
    });
    assert!(said.starts_with("wide: a weight of output channel 0 is -128"), "{said}");
    let said = fault(|graph| {
        for constant in graph.initializer.iter_mut().filter(|c| c.name == "project.w") {
            constant.dims[1] = 19;
            constant.raw_data.truncate(19 * 20);
        }
    });
    assert!(said.starts_with("project: weights [20, 19, 1, 1]"), "{said}");
    // Sides whose product wraps around to the number of values there are: none.
    let said = fault(|graph| {
        for constant in graph.initializer.iter_mut().filter(|c| c.name == "first.w") {
            constant.dims = vec![1 << 61, 3, 8, 1];
            constant.raw_data.clear();
        }
    });
    assert!(said.starts_with("first.wd: first.w is cut short"), "{said}");
}

#[test]
fn damaged_graphs_are_refused_or_run() {
    let mut state = 3u32;
    for round in 0..600 {
        let mut graph = if round % 2 == 0 { network() } else { gates::plain() };
        for _ in 0..=round / 2 % 3 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = (state >> 8) as usize;
            match state >> 29 {
                0 => {
                    let count = graph.node.len();
                    graph.node.remove(at % count);
                }
                1 => {
                    let count = graph.initializer.len();
                    graph.initializer.remove(at % count);
                }
                2 => {
                    let count = graph.initializer.len();
                    let raw = &mut graph.initializer[at % count].raw_data;
                    raw.truncate(at % (raw.len() + 1));
                }
                3 => {
                    let count = graph.initializer.len();
                    for side in &mut graph.initializer[at % count].dims {
                        *side = (at % 100) as i64 - 3;
                    }
                }
                4 => {
                    let (one, other) = (at % graph.node.len(), at / 64 % graph.node.len());
                    graph.node.swap(one, other);
                }
                _ => {
                    let count = graph.node.len();
                    for attribute in &mut graph.node[at % count].attribute {
                        attribute.i = (at % 2000) as i64 - 1000;
                        attribute.ints.iter_mut().for_each(|value| *value = (at % 90) as i64 - 9);
                    }
                }
            }
        }
        let Ok(partition) = partition::Partition::of(&graph, None) else { continue };
        // What tract makes of the rest is tract's.
        if partition.float.is_none()
            && let Ok(mut network) = load(graph, Kernel::Scalar)
        {
            let _ = network.run(&pictures(&[(24, 24)]));
        }
    }
}

/// The network with a node that has no 8-bit form in the middle.
fn with_average_pool() -> pb::GraphProto {
    let mut graph = network();
    for node in graph.node.iter_mut().filter(|node| node.op_type == "MaxPool") {
        node.op_type = "AveragePool".to_owned();
    }
    graph
}

#[test]
fn a_node_without_8_bit_form_runs_in_floating_point_with_all_behind_it() {
    let mut network = load(with_average_pool(), Kernel::best()).expect("a network");
    assert_eq!(network.precision(), Precision::Int8);
    let named = network.float_nodes().to_vec();
    assert_eq!(named.first().map(String::as_str), Some("pool"));
    assert!(named.iter().any(|node| node == "face") && !named.contains(&"project".to_owned()));
    let mut graph = with_average_pool();
    let same = pb::NodeProto {
        name: "picture.same".to_owned(),
        op_type: "Identity".to_owned(),
        input: vec!["picture".to_owned()],
        output: vec!["picture.same".to_owned()],
        ..Default::default()
    };
    graph.node[0].input[0] = "picture.same".to_owned();
    graph.node.insert(0, same);
    let mut float = load(graph, Kernel::best()).expect("a network");
    assert_eq!((float.precision(), float.kernel()), (Precision::Float, "tract f32"));
    // Pictures of one size may come together, others may not.
    let pictures = pictures(&[(37, 52), (37, 52), (30, 30)]);
    for (got, expected) in run(&mut network, &pictures).iter().zip(run(&mut float, &pictures)) {
        assert_eq!(got.len(), expected.len());
        let errors: Vec<f32> = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).collect();
        assert!(errors.iter().sum::<f32>() / (errors.len() as f32) < 0.01, "{errors:?}");
    }
}

#[test]
fn a_run_after_a_failed_one_is_like_any_other() {
    let mut network = int8_network(Kernel::best());
    let pictures = pictures(&[(24, 24)]);
    let before = run(&mut network, &pictures);
    let mut large = Batch::default();
    let _ = large.add(0, 0);
    for sides in [(60_000, 1), (1, 60_000)] {
        let _ = large.add(sides.0, sides.1);
    }
    let fault = network.run(&large).expect_err("offsets of 32 bits do not reach that far");
    assert!(matches!(fault, NetworkError::TooLarge { pixels: 120_000, .. }), "{fault}");
    assert_eq!(run(&mut network, &pictures), before);
}

#[test]
fn an_output_that_is_rounded_has_its_channels_last_too() {
    let mut b = Builder { graph: network(), state: 7 };
    let rounded = b.rounded("offsets", STEP, 0);
    b.graph.output[1].name = rounded;
    let mut network = load(b.graph, Kernel::best()).expect("a network");
    assert_eq!((network.precision(), network.float_nodes().len()), (Precision::Int8, 3));
    let pictures = pictures(&[(37, 52), (30, 30)]);
    let expected = run(&mut int8_network(Kernel::best()), &pictures);
    let got = run(&mut network, &pictures);
    assert_eq!(got[0], expected[0]);
    assert_eq!(got[1].len(), expected[1].len());
    for (got, expected) in got[1].iter().zip(&expected[1]) {
        let expected = expected.clamp(-128.0 * STEP, 127.0 * STEP);
        assert!((got - expected).abs() <= 0.51 * STEP, "{got} {expected}");
    }
}
