use super::written::Ir;
use super::*;
use proptest::prelude::*;

/// Two channels: a factor for each, a ReLU, and the result.
fn toy(half: bool) -> Ir {
    let mut ir = Ir::new(half);
    let side = [1, 2, 2, 2];
    let input = "shape=\"1,2,2,2\" element_type=\"f32\"";
    let picture = ir.layer("Parameter", "picture", input, &[], Some(&side));
    let mut values = [0.5f32, -2.0].into_iter();
    let factors = ir.constant("factors", &[1, 2, 1, 1], || values.next().unwrap_or_default());
    let broadcast = "auto_broadcast=\"numpy\"";
    let product = ir.layer("Multiply", "product", broadcast, &[&picture, &factors], Some(&side));
    let relu = ir.layer("ReLU", "relu", "", &[&product], Some(&side));
    ir.layer("Result", "result", "", &[&relu], None);
    ir
}

#[test]
fn nodes_edges_and_constants_are_read() {
    for half in [false, true] {
        let ir = toy(half);
        let graph = read(ir.xml().as_bytes(), &ir.bin).expect("a graph");
        let kinds: Vec<&str> = graph.nodes.iter().map(|node| node.kind.as_str()).collect();
        assert_eq!(kinds, ["Parameter", "Multiply", "ReLU", "Result"], "half {half}");
        let [picture, product, relu, result] = &graph.nodes[..] else { panic!("four nodes") };
        assert_eq!(picture.attributes["shape"], Attribute::Counts(vec![1, 2, 2, 2]));
        assert_eq!(picture.attributes["element_type"], Attribute::Text("f32".into()));
        assert_eq!(product.inputs, [Source::Node(0), Source::Constant("factors".into())]);
        assert_eq!(product.shape, [1, 2, 2, 2]);
        assert_eq!(
            (&relu.inputs[..], &result.inputs[..]),
            (&[Source::Node(1)][..], &[Source::Node(2)][..])
        );
        let factors = Tensor { shape: vec![1, 2, 1, 1], values: vec![0.5, -2.0] };
        assert_eq!(graph.constants, Tensors::from([("factors".to_owned(), factors)]));
    }
}

/// The message about a toy graph of which one text is replaced in the XML.
fn message(half: bool, from: &str, to: &str) -> String {
    let ir = toy(half);
    let xml = ir.xml();
    assert!(xml.contains(from), "{from} is not in the XML");
    match read(xml.replacen(from, to, 1).as_bytes(), &ir.bin) {
        Ok(_) => panic!("{from} -> {to} was read"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_damaged_graph_names_the_fault() {
    let deep = format!("<net version=\"11\">{}", "<a>".repeat(200_000));
    let bomb = "<!DOCTYPE net [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><net>&b;</net>";
    for (from, to, expected) in [
        ("<?xml", "<!doctype html><?xml", "is a web page; download the file itself"),
        ("<?xml", "\n <HTML><?xml", "is a web page"),
        (
            "<?xml",
            "version https://git-lfs.github.com/spec/v1\n",
            "is a Git LFS pointer; run git lfs pull",
        ),
        ("</net>", "", "not an OpenVINO IR"),
        ("<?xml version=\"1.0\"?>\n<net", bomb, "DTD"),
        ("<?xml version=\"1.0\"?>\n<net", &deep, "not an OpenVINO IR"),
        (
            "<net name=\"toy\" version=\"11\"",
            "<net name=\"toy\" version=\"10\"",
            "its version is 10, expected 11",
        ),
        (
            "<net name=\"toy\" version=\"11\"",
            "<net name=\"toy\"",
            "its version is missing, expected 11",
        ),
        ("<layers>", "<statistics /><layers>", "it has the element \"statistics\""),
        ("<layers>", "<quantization_parameters /><layers>", "take the FP16 files"),
        ("<layers>", "<layers><blob />", "\"layers\" has the element \"blob\""),
        ("<edges>", "<layers /><edges>", "it has \"layers\" twice"),
        ("type=\"ReLU\"", "type=\"FakeQuantize\"", "take the FP16 files"),
        (
            "element_type=\"f32\" shape=\"1, 2, 1, 1\"",
            "element_type=\"i8\" shape=\"1, 2, 1, 1\"",
            "quantized to 8 bits (node 1 (factors, Const))",
        ),
        (
            "element_type=\"f32\" shape=\"1, 2, 1, 1\"",
            "element_type=\"i64\" shape=\"1, 2, 1, 1\"",
            "has element_type \"i64\", expected f16 or f32",
        ),
        (
            "shape=\"1, 2, 1, 1\"",
            "shape=\"1, two, 1, 1\"",
            "node 1 (factors, Const): has shape \"1, two, 1, 1\", expected lengths",
        ),
        (
            "shape=\"1, 2, 1, 1\"",
            "shape=\"1, 3, 1, 1\"",
            "node 1 (factors, Const): has an output unlike its attributes",
        ),
        ("size=\"8\"", "size=\"12\"", "has 12 bytes for shape [1, 2, 1, 1] of 4 bytes each"),
        ("size=\"8\"", "", "node 1 (factors, Const): has no attribute \"size\""),
        ("size=\"8\"", "size=\"8\" zero=\"1\"", "has the attribute \"zero\""),
        (
            "offset=\"0\"",
            "offset=\"4\"",
            "constant factors takes bytes 4 to 12, the file has 8 bytes",
        ),
        (
            "offset=\"0\"",
            "offset=\"18446744073709551615\"",
            "constant factors takes bytes 18446744073709551615",
        ),
        ("offset=\"0\"", "offset=\"-1\"", "has offset \"-1\", expected a count"),
        (
            "name=\"relu\"",
            "name=\"relu\" shape=\"?\"",
            "has the attribute \"shape\", expected id, name, type and version",
        ),
        (
            "<dim>2</dim>",
            "<dim>-1</dim>",
            "node 0 (picture, Parameter): has a port with dim \"-1\"",
        ),
        (
            "precision=\"FP32\"",
            "precision=\"FP16\"",
            "node 0 (picture, Parameter): has an output in \"FP16\"",
        ),
        (
            "precision=\"FP32\"",
            "precision=\"FP32\" layout=\"x\"",
            "has a port with the attribute \"layout\"",
        ),
        ("id=\"2\" name", "id=\"1\" name", "node 1 (product, Multiply)"),
        (
            "from-layer=\"1\" from-port=\"0\"",
            "from-layer=\"3\" from-port=\"0\"",
            "node 2 (product, Multiply): has input 1 from layer 3, expected an earlier layer",
        ),
        (
            "from-layer=\"1\" from-port=\"0\"",
            "from-layer=\"1\" from-port=\"7\"",
            "has input 1 from port 7 of layer 1, expected a port that exists",
        ),
        (
            "from-layer=\"1\" from-port=\"0\"",
            "from-layer=\"0\" from-port=\"0\"",
            "node 2 (product, Multiply): has input 1 of shape [1, 2, 1, 1], expected [1, 2, 2, 2]",
        ),
        ("to-layer=\"4\"", "to-layer=\"5\"", "node 4 (result, Result): has no edge to input 0"),
        (
            "</edges>",
            "<edge from-layer=\"3\" from-port=\"1\" to-layer=\"9\" to-port=\"0\" /></edges>",
            "port 0 of layer 9, which is missing",
        ),
        (
            "</edges>",
            "<edge from-layer=\"3\" from-port=\"1\" to-layer=\"4\" to-port=\"0\" /></edges>",
            "two edges lead to port 0 of layer 4",
        ),
        ("</edges>", "<edge from-layer=\"3\" /></edges>", "an edge has no \"from-port\""),
    ] {
        let message = message(false, from, to);
        assert!(message.contains(expected), "{from} -> {to}: {message}");
    }
    let message = message(true, "destination_type=\"f32\"", "destination_type=\"f64\"");
    assert!(message.contains("expected destination_type f32"), "{message}");
}

#[test]
fn damaged_weights_name_the_constant() {
    let ir = toy(true);
    let message = |bin: &[u8]| read(ir.xml().as_bytes(), bin).expect_err("damaged").to_string();
    let (nan, infinite) = ([0, 0, 1, 0x7e], [0, 0x7c, 0, 0]);
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n";
    for (bin, expected) in [
        (&[][..], "cut short: constant factors takes bytes 0 to 4, the file has 0 bytes"),
        (&ir.bin[..3], "constant factors takes bytes 0 to 4, the file has 3 bytes"),
        // A wrong length is named before a strange value.
        (&infinite[..3], "the file has 3 bytes"),
        (&[0; 9], "has 5 bytes more than the constants of the .xml take"),
        (&nan, "constant factors holds a value that is NaN or infinite"),
        (&infinite, "constant factors holds a value that is NaN or infinite"),
        (pointer, "the weights file is a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "the weights file is a web page"),
    ] {
        let message = message(bin);
        assert!(message.contains(expected), "{message}");
    }
}

proptest! {
    #[test]
    fn no_damage_panics(
        half in any::<bool>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cuts in (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<[bool; 2]>()),
    ) {
        let ir = toy(half);
        let (mut xml, mut bin) = (ir.xml().into_bytes(), ir.bin);
        for (at, bits) in flips {
            let at = at.index(xml.len() + bin.len());
            match xml.len() {
                length if at < length => xml[at] ^= bits,
                length => bin[at - length] ^= bits,
            }
        }
        if cuts.2[0] {
            xml.truncate(cuts.0.index(xml.len()));
        }
        if cuts.2[1] {
            bin.truncate(cuts.1.index(bin.len()));
        }
        if let Ok(graph) = read(&xml, &bin) {
            // What is read is consistent.
            for (at, node) in graph.nodes.iter().enumerate() {
                for input in &node.inputs {
                    match input {
                        Source::Node(from) => prop_assert!(*from < at),
                        Source::Constant(name) => prop_assert!(graph.constants.contains_key(name)),
                    }
                }
            }
        }
    }
}
