//! Squeeze and excitation, and pictures of any zero point.

use super::*;

/// Scale of means, of the activations before a sigmoid, and of its values.
const MEAN_STEP: f32 = 0.01;
const SQUEEZE_STEP: f32 = 0.015;
const GATE_STEP: f32 = 1.0 / 255.0;

impl Builder {
    /// The product of `from` and its gate, not rounded yet. Names begin with `name`.
    fn gate(&mut self, name: &str, from: &str, channels: usize, squeezed: usize) -> String {
        let mean = self.node("GlobalAveragePool", &format!("{name}.mean"), &[from], &[]);
        let mean = self.rounded(&mean, MEAN_STEP, 11);
        let shape = [squeezed, channels, 1, 1];
        let at = self.conv(&format!("{name}.squeeze"), &mean, MEAN_STEP, shape, [1, 0, 1]);
        let at = if squeezed.is_multiple_of(2) {
            self.node("Relu", &format!("{at}.relu"), &[&at], &[])
        } else {
            self.prelu(&at, squeezed)
        };
        let at = self.rounded(&at, SQUEEZE_STEP, -100);
        let shape = [channels, squeezed, 1, 1];
        let at = self.conv(&format!("{name}.excite"), &at, SQUEEZE_STEP, shape, [1, 0, 1]);
        // Noise alone would give factors near one half.
        for scales in [format!("{name}.excite.ws"), format!("{name}.excite.bs")] {
            multiply_floats(&mut self.graph, &scales, 3.0);
        }
        let at = self.node("Sigmoid", &format!("{name}.sigmoid"), &[&at], &[]);
        let at = self.rounded(&at, GATE_STEP, -128);
        self.node("Mul", &format!("{name}.mul"), &[from, &at], &[])
    }
}

fn floats_of(graph: &pb::GraphProto, name: &str) -> Vec<f32> {
    let constant = graph.initializer.iter().find(|constant| constant.name == name);
    let (values, _) = constant.expect("a constant").raw_data.as_chunks::<4>();
    values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn multiply_floats(graph: &mut pb::GraphProto, name: &str, factor: f32) {
    let values: Vec<f32> = floats_of(graph, name).iter().map(|value| value * factor).collect();
    set_floats(graph, name, &values);
}

/// Gates without and with a residual, before a border and behind a stride of two, with
/// channels in one group and in several.
fn gated(scale: f32, zero_point: i8) -> pb::GraphProto {
    let mut b = Builder::new();
    let at = b.rounded("picture", scale, zero_point);
    let at = b.conv("first", &at, scale, [20, 3, 3, 3], [2, 1, 1]);
    let at = b.prelu(&at, 20);
    let at = b.rounded(&at, STEP, -5);
    let at = b.conv("narrow", &at, STEP, [12, 20, 1, 1], [1, 0, 1]);
    let at = b.rounded(&at, STEP, 9);
    let at = b.gate("one", &at, 12, 3);
    let at = b.rounded(&at, STEP, 4);
    let at = b.conv("expand", &at, STEP, [70, 12, 1, 1], [1, 0, 1]);
    let at = b.prelu(&at, 70);
    let at = b.rounded(&at, STEP, 9);
    let at = b.conv("depthwise", &at, STEP, [70, 1, 3, 3], [2, 1, 70]);
    let kept = b.rounded(&at, STEP, 3);
    let at = b.conv("project", &kept, STEP, [70, 70, 1, 1], [1, 0, 1]);
    let at = b.rounded(&at, STEP, -7);
    let at = b.gate("two", &at, 70, 18);
    let at = b.node("Add", "sum", &[&at, &kept], &[]);
    let at = b.rounded(&at, STEP, 2);
    let at = b.conv("filter", &at, STEP, [70, 1, 3, 3], [1, 1, 70]);
    let at = b.rounded(&at, STEP, 0);
    let logits = b.conv("logits", &at, STEP, [2, 70, 1, 1], [1, 0, 1]);
    let face = b.node("Softmax", "face", &[&logits], &[("axis", &[1])]);
    let offsets = b.conv("offsets", &at, STEP, [4, 70, 1, 1], [1, 0, 1]);
    b.output(&face);
    b.output(&offsets);
    b.graph
}

pub(super) fn plain() -> pb::GraphProto {
    gated(1.0 / 128.0, 0)
}

/// The graph with every node in floating point, rounding included.
fn in_float(mut graph: pb::GraphProto) -> pb::GraphProto {
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
    graph
}

fn load_with(
    graph: pb::GraphProto,
    normalization: &Normalization,
    kernel: Kernel,
) -> Result<Network, NetworkError> {
    let (proto, signature) =
        (proto(graph.clone()), Signature { input: INPUT, outputs: vec![2, 4] });
    Network::of("made up", &proto, &graph, &signature, normalization, Some(kernel))
}

fn compare(got: &[Vec<f32>], expected: &[Vec<f32>]) {
    for (got, expected) in got.iter().zip(expected) {
        assert_eq!(got.len(), expected.len());
        let spread = expected.iter().copied().fold(0.0, f32::max)
            - expected.iter().copied().fold(f32::MAX, f32::min);
        assert!(spread > 0.2, "an output that tells nothing: {spread}");
        let errors: Vec<f32> = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).collect();
        // Sums in floating point round now and then to the next step.
        let mean = errors.iter().sum::<f32>() / errors.len() as f32;
        assert!(mean < 0.004 * spread, "{mean} of {spread}");
        assert!(errors.iter().all(|error| *error < 0.1 * spread));
    }
}

#[test]
fn tract_computes_the_same_gates() {
    let pictures = pictures(&[(37, 52), (61, 30)]);
    let mut network = load(plain(), Kernel::best()).expect("a network");
    assert_eq!((network.precision(), network.float_nodes().len()), (Precision::Int8, 0));
    let mut float = load(in_float(plain()), Kernel::best()).expect("a network");
    assert_eq!(float.precision(), Precision::Float);
    compare(&run(&mut network, &pictures), &run(&mut float, &pictures));
}

/// The gates must matter, or the test above shows nothing.
#[test]
fn gates_differ_from_a_constant() {
    let pictures = pictures(&[(37, 52)]);
    let with = run(&mut load(plain(), Kernel::best()).expect("a network"), &pictures);
    let mut graph = plain();
    for name in ["one.excite", "two.excite"] {
        let weights = |c: &&mut pb::TensorProto| c.name == format!("{name}.w");
        graph.initializer.iter_mut().filter(weights).for_each(|c| c.raw_data.fill(0));
    }
    let without = run(&mut load(graph, Kernel::best()).expect("a network"), &pictures);
    let difference = with[1].iter().zip(&without[1]).map(|(a, b)| (a - b).abs());
    assert!(difference.fold(0.0, f32::max) > 0.2);
}

#[test]
fn all_kernels_make_the_same_of_gates() {
    let pictures = pictures(&[(37, 52), (19, 23), (3, 3)]);
    let bits = |kernel| -> Vec<Vec<u32>> {
        let outputs = run(&mut load(plain(), kernel).expect("a network"), &pictures);
        outputs.iter().map(|output| output.iter().map(|v| v.to_bits()).collect()).collect()
    };
    let expected = bits(Kernel::Scalar);
    for kernel in kernels() {
        assert_eq!(bits(kernel), expected, "{}", kernel.name());
    }
}

#[test]
fn each_picture_of_a_batch_has_its_own_gates() {
    let sides = [(37, 52), (19, 23), (1, 1), (30, 17), (0, 5)];
    let mut network = load(plain(), Kernel::best()).expect("a network");
    let together = run(&mut network, &pictures(&sides));
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
    let first = run(&mut network, &pictures(&sides[..2]));
    for (some, all) in first.iter().zip(&together) {
        assert_eq!(some[..], all[..some.len()]);
    }
}

#[test]
fn a_gate_may_be_written_in_several_ways() {
    let pictures = pictures(&[(37, 52)]);
    let expected = run(&mut load(plain(), Kernel::best()).expect("a network"), &pictures);
    let check = |change: &dyn Fn(&mut pb::NodeProto)| {
        let mut graph = plain();
        graph.node.iter_mut().for_each(change);
        let mut network = load(graph, Kernel::best()).expect("a network");
        assert_eq!(network.float_nodes(), [] as [String; 0]);
        assert_eq!(run(&mut network, &pictures), expected);
    };
    check(&|node| {
        if node.op_type == "Mul" {
            node.input.swap(0, 1);
        }
    });
    check(&|node| {
        if node.op_type == "Add" {
            node.input.swap(0, 1);
        }
    });
    check(&|node| {
        if node.op_type == "GlobalAveragePool" {
            node.op_type = "ReduceMean".to_owned();
            node.attribute.push(pb::AttributeProto {
                name: "axes".to_owned(),
                r#type: AttributeType::Ints as i32,
                ints: vec![-1, 2],
                ..Default::default()
            });
        }
    });
    // Newer files name the axes in a constant.
    let mut graph = plain();
    graph.initializer.push(pb::TensorProto {
        name: "axes".to_owned(),
        dims: vec![2],
        data_type: DataType::Int64 as i32,
        int64_data: vec![2, 3],
        ..Default::default()
    });
    for node in graph.node.iter_mut().filter(|node| node.op_type == "GlobalAveragePool") {
        node.op_type = "ReduceMean".to_owned();
        node.input.push("axes".to_owned());
    }
    let partition = partition::Partition::of(&graph, None).expect("a partition");
    assert!(partition.float.is_none(), "{:?}", partition.reason);
}

/// The end of a network for embeddings: a filter as large as the picture, a layer without
/// bias, and no channels' sides in the output.
fn embedding(filter: usize) -> pb::GraphProto {
    let mut b = Builder::new();
    let at = b.rounded("picture", 1.0 / 128.0, 0);
    let at = b.conv("first", &at, 1.0 / 128.0, [20, 3, 3, 3], [2, 1, 1]);
    let at = b.rounded(&at, STEP, -5);
    let at = b.gate("one", &at, 20, 3);
    let at = b.rounded(&at, STEP, 4);
    let at = b.conv("whole", &at, STEP, [20, 1, filter, filter], [1, 0, 20]);
    let at = b.rounded(&at, STEP, 4);
    let at = b.conv("last", &at, STEP, [6, 20, 1, 1], [1, 0, 1]);
    for node in b.graph.node.iter_mut().filter(|node| node.name == "last") {
        node.input.truncate(2);
    }
    let at = b.node("Flatten", "flat", &[&at], &[("axis", &[1])]);
    b.output(&at);
    b.graph
}

#[test]
fn an_embedding_may_be_flattened() {
    let side = Dim::Fixed(19);
    let signature =
        Signature { input: [Dim::Fixed(1), Dim::Fixed(3), side, side], outputs: vec![6] };
    let load = |graph: pb::GraphProto| {
        let normalization = &Normalization::BYTES;
        let proto = proto(graph.clone());
        Network::of("made up", &proto, &graph, &signature, normalization, None)
    };
    let mut network = load(embedding(10)).expect("a network");
    assert_eq!(network.float_nodes(), [] as [String; 0]);
    let pictures = pictures(&[(19, 19), (19, 19)]);
    let mut float = load(in_float(embedding(10))).expect("a network");
    compare(&run(&mut network, &pictures), &run(&mut float, &pictures));
    let partition = partition::Partition::of(&embedding(9), Some((19, 19))).expect("a partition");
    let reason = partition.reason.expect("four places");
    assert_eq!(
        (&reason.node[..], &reason.reason[..]),
        ("flat", "Flatten must follow a layer of one place")
    );
}

/// Why a changed network is refused, or else the first reason for floating point.
fn fault(change: impl Fn(&mut pb::GraphProto)) -> String {
    let mut graph = plain();
    change(&mut graph);
    super::fault_of(&graph)
}

fn rewire(graph: &mut pb::GraphProto, node: &str, at: usize, to: &str) {
    for node in graph.node.iter_mut().filter(|made| made.name == node) {
        node.input[at] = to.to_owned();
    }
}

#[test]
fn gates_that_do_not_fit_are_named() {
    let said = fault(|graph| rewire(graph, "one.mul", 0, "narrow"));
    assert_eq!(said, "one.mul: Mul must join two DequantizeLinear");
    let said = fault(|graph| rewire(graph, "one.mul", 1, "one.sigmoid"));
    assert_eq!(said, "one.mul: Mul must join two DequantizeLinear");
    let said = fault(|graph| rewire(graph, "one.mul", 1, "narrow.d"));
    assert_eq!(said, "one.mul: Mul must join a layer and the Sigmoid of its channels");
    let said = fault(|graph| rewire(graph, "two.mul", 1, "one.sigmoid.d"));
    assert_eq!(said, "two.mul: 12 factors for 70 channels");
    let said = fault(|graph| rewire(graph, "sum", 1, "one.mul.d"));
    assert_eq!(said, "sum: Add must join layers of the same shape");
    let said = fault(|graph| rewire(graph, "two.sigmoid", 0, "project"));
    assert_eq!(said, "two.sigmoid: Sigmoid must follow a Conv of 1x1 on the means of channels");
    let said = fault(|graph| rewire(graph, "one.mean", 0, "picture.d"));
    assert_eq!(said, "one.mean: GlobalAveragePool must follow a Conv");
    let said = fault(|graph| rewire(graph, "one.mean", 0, "narrow"));
    assert_eq!(said, "one.mean: GlobalAveragePool must follow a DequantizeLinear");
    let said = fault(|graph| {
        for node in graph.node.iter_mut().filter(|node| node.name == "one.mean") {
            node.op_type = "ReduceMean".to_owned();
        }
    });
    assert_eq!(said, "one.mean: ReduceMean must be over axes 2 and 3 and keep them");
    let said = fault(|graph| set_floats(graph, "narrow.scale", &[1e9]));
    assert_eq!(said, "one.mul: the scale of the output is too small for those of the inputs");
}

#[test]
fn a_gate_without_8_bit_form_runs_in_floating_point_with_all_behind_it() {
    let mut graph = plain();
    rewire(&mut graph, "two.mul", 1, "two.sigmoid");
    graph.node.retain(|node| !node.name.starts_with("two.sigmoid."));
    let mut network = load(graph.clone(), Kernel::best()).expect("a network");
    assert_eq!(network.precision(), Precision::Int8);
    let named = network.float_nodes().to_vec();
    assert!(named.contains(&"two.mul".to_owned()), "{named:?}");
    assert!(!named.contains(&"one.mul".to_owned()), "{named:?}");
    let mut float = load(in_float(graph), Kernel::best()).expect("a network");
    let pictures = pictures(&[(37, 52), (37, 52)]);
    compare(&run(&mut network, &pictures), &run(&mut float, &pictures));
}

#[test]
fn pictures_have_any_zero_point() {
    let pictures = pictures(&[(37, 52), (30, 31)]);
    for (scale, zero_point) in [(1.0 / 100.0, -61), (1.0 / 300.0, 127), (1.0 / 57.0, -128)] {
        let (mean, std) = (f32::from(zero_point) + 128.0, 1.0 / scale);
        let normalization = Normalization { mean: [mean; 3], std: [std; 3] };
        let graph = gated(scale, zero_point);
        let of = |kernel| load_with(graph.clone(), &normalization, kernel).expect("a network");
        let expected = run(&mut of(Kernel::Scalar), &pictures);
        for kernel in kernels() {
            assert_eq!(run(&mut of(kernel), &pictures), expected);
        }
        let float = load_with(in_float(graph.clone()), &normalization, Kernel::best());
        compare(&expected, &run(&mut float.expect("a network"), &pictures));
    }
}

#[test]
fn a_manifest_with_another_normalization_than_the_file_is_refused() {
    let refused = |normalization: &Normalization| {
        let network = load_with(gated(1.0 / 128.0, -61), normalization, Kernel::best());
        network.err().map(|error| error.to_string())
    };
    let right = Normalization { mean: [67.0; 3], std: [128.0; 3] };
    assert_eq!(refused(&right), None);
    let said = refused(&Normalization::BYTES).expect("an error");
    assert!(said.contains("node picture: the manifest's normalization is mean [128.0"), "{said}");
    assert!(said.contains("the file's is mean 67 and std 128"), "{said}");
    assert!(said.contains("write that into the manifest"), "{said}");
    for wrong in [
        Normalization { mean: [67.0, 67.0, 68.0], ..right },
        Normalization { mean: [67.5; 3], ..right },
        Normalization { std: [128.0, 127.0, 128.0], ..right },
    ] {
        assert!(refused(&wrong).is_some(), "{wrong:?}");
    }
}
