//! Reads models in OpenVINO's intermediate representation (IR), version 11: a graph in XML
//! and a file with the raw values of its constants.
//!
//! The reader is strict. An element or attribute that it does not know is an error,
//! because it may change the result of the network. Only `rt_info`, which holds hints and
//! history, is skipped.

use super::{Budget, Tensor, Tensors, element_count, f16_values, f32_values};
use roxmltree::{Document, Node as Element, ParsingOptions};
use std::collections::{BTreeMap, HashMap};
use std::fmt;

mod error;
#[cfg(test)]
pub(crate) mod written;

pub use error::IrError;

const FORMAT: &str = "an OpenVINO IR";
/// Version of the IR, the attribute of the root element.
const VERSION: &str = "11";
/// Limit of the graph file, bytes. A face network takes less than 1 MB.
pub const MAX_XML: u64 = 16 << 20;
/// Limit of the weights file, bytes. A face network takes less than 100 MB.
pub const MAX_BIN: u64 = 512 << 20;
/// Limit of the XML's nodes. A face network has about 40,000.
const MAX_XML_NODES: u32 = 1 << 20;

const FETCH: &str = "fetch the file again";
const DOWNLOAD: &str = "download the file itself, not the page that shows it";
const LFS: &str = "run git lfs pull in its repository, or download the file itself";

impl IrError {
    fn not_ir(reason: impl Into<String>) -> Self {
        Self::NotIr { reason: reason.into(), cure: FETCH }
    }
}

/// Value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// Non-negative integers separated by commas, or a single one.
    Counts(Vec<usize>),
    /// Any other text.
    Text(String),
}

impl Attribute {
    fn parse(text: &str) -> Self {
        let counts = text.split(',').map(|part| part.trim().parse().ok()).collect();
        match counts {
            Some(counts) => Self::Counts(counts),
            None => Self::Text(text.to_owned()),
        }
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Counts(counts) => write!(f, "{counts:?}"),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

/// Where an input of a node comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The output of the node with this index in [`Graph::nodes`].
    Node(usize),
    /// The tensor of this name in [`Graph::constants`].
    Constant(String),
}

/// An operation of the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its id in the file.
    pub id: String,
    /// Its name in the file.
    pub name: String,
    /// Operation, such as `Convolution`.
    pub kind: String,
    /// Operator set, such as `opset1`.
    pub operator_set: String,
    /// Attributes of its `data` element.
    pub attributes: BTreeMap<String, Attribute>,
    /// Its inputs, in the order of its ports.
    pub inputs: Vec<Source>,
    /// Shape of its only output; empty if it has none.
    pub shape: Vec<usize>,
}

impl Node {
    /// The error that this node is not as expected.
    pub fn unlike(&self, has: impl Into<String>, expected: impl Into<String>) -> IrError {
        IrError::Node { node: self.to_string(), has: has.into(), expected: expected.into() }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.id, self.name, self.kind)
    }
}

/// A graph in floating point.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// All operations in the order of the file, each after those that it reads. Constants
    /// and their conversion to f32 are in [`Self::constants`] instead.
    pub nodes: Vec<Node>,
    /// Values of all constants, by name.
    pub constants: Tensors,
}

/// Reads a graph and its constants.
///
/// # Errors
/// If the files are no IR of version 11, if they do not fit together, if the graph is
/// quantized, if it has an element or attribute that is not known, if a node reads a later
/// one, or if a constant is cut short, not finite or neither f16 nor f32.
pub fn read(xml: &[u8], bin: &[u8]) -> Result<Graph, IrError> {
    if let Some((reason, cure)) = disguise(xml) {
        return Err(IrError::NotIr { reason: reason.to_owned(), cure });
    }
    if let Some((reason, cure)) = disguise(bin) {
        return Err(IrError::Weights { reason: reason.to_owned(), cure });
    }
    if xml.len() as u64 > MAX_XML {
        return Err(IrError::not_ir(format!("it has more than {MAX_XML} bytes")));
    }
    let text = std::str::from_utf8(xml).map_err(|error| IrError::not_ir(error.to_string()))?;
    // Without a DTD there are no entities to expand.
    let options =
        ParsingOptions { allow_dtd: false, nodes_limit: MAX_XML_NODES, ..Default::default() };
    let document = Document::parse_with_options(text, options)
        .map_err(|error| IrError::not_ir(error.to_string()))?;
    let (layers, edges) = sections(document.root_element())?;
    let layers = layers.iter().map(|layer| Layer::read(*layer)).collect::<Result<Vec<_>, _>>()?;
    let edges = read_edges(&edges)?;
    Reader::new(&layers, edges, bin)?.read()
}

/// What a file is that was saved in place of the model's, and the cure.
fn disguise(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    let start = bytes.get(..bytes.len().min(256)).unwrap_or_default();
    let start = String::from_utf8_lossy(start).trim_start_matches('\u{feff}').to_lowercase();
    let start = start.trim_start();
    if start.starts_with("version https://git-lfs") {
        return Some(("is a Git LFS pointer", LFS));
    }
    let page = ["<!doctype html", "<html"].iter().any(|sign| start.starts_with(sign));
    page.then_some(("is a web page", DOWNLOAD))
}

/// Elements within `layers` and within `edges`.
type Sections<'a, 'i> = (Vec<Element<'a, 'i>>, Vec<Element<'a, 'i>>);

/// Checks the root element and returns its layers and edges.
fn sections<'a, 'i>(root: Element<'a, 'i>) -> Result<Sections<'a, 'i>, IrError> {
    let name = root.tag_name().name();
    if name != "net" {
        return Err(IrError::not_ir(format!("its root element is {name:?}, expected \"net\"")));
    }
    let version = root.attribute("version").unwrap_or("missing");
    if version != VERSION {
        return Err(IrError::NotIr {
            reason: format!("its version is {version}, expected {VERSION}"),
            cure: "take the files from release 2023.0 of Open Model Zoo",
        });
    }
    let (mut layers, mut edges) = (None, None);
    for part in root.children().filter(Element::is_element) {
        let place = match part.tag_name().name() {
            "layers" => &mut layers,
            "edges" => &mut edges,
            "rt_info" => continue,
            "quantization_parameters" => {
                let sign = "it has the element \"quantization_parameters\"".to_owned();
                return Err(IrError::Quantized { sign });
            }
            other => {
                let reason =
                    format!("it has the element {other:?}, expected layers, edges and rt_info");
                return Err(IrError::not_ir(reason));
            }
        };
        if place.replace(part).is_some() {
            let name = part.tag_name().name();
            return Err(IrError::not_ir(format!("it has {name:?} twice")));
        }
    }
    let within = |part: Option<Element<'a, 'i>>, name: &str, child: &str| {
        let part = part.ok_or_else(|| IrError::not_ir(format!("it has no {name:?}")))?;
        let children: Vec<_> = part.children().filter(Element::is_element).collect();
        match children.iter().find(|element| element.tag_name().name() != child) {
            None => Ok(children),
            Some(other) => {
                let other = other.tag_name().name();
                Err(IrError::not_ir(format!("{name:?} has the element {other:?}")))
            }
        }
    };
    Ok((within(layers, "layers", "layer")?, within(edges, "edges", "edge")?))
}

/// An input or output of a layer.
struct Port<'a> {
    id: &'a str,
    precision: &'a str,
    shape: Vec<usize>,
}

/// A layer as the file has it.
struct Layer<'a> {
    id: &'a str,
    name: &'a str,
    kind: &'a str,
    operator_set: &'a str,
    data: BTreeMap<&'a str, &'a str>,
    inputs: Vec<Port<'a>>,
    output: Option<Port<'a>>,
}

impl<'a> Layer<'a> {
    fn read(element: Element<'a, '_>) -> Result<Self, IrError> {
        let mut layer = Self {
            id: "",
            name: "",
            kind: "",
            operator_set: "",
            data: BTreeMap::new(),
            inputs: vec![],
            output: None,
        };
        for attribute in element.attributes() {
            let value = attribute.value();
            match attribute.name() {
                "id" => layer.id = value,
                "name" => layer.name = value,
                "type" => layer.kind = value,
                "version" => layer.operator_set = value,
                other => {
                    let has = format!("the attribute {other:?}");
                    return Err(layer.unlike(has, "id, name, type and version"));
                }
            }
        }
        if layer.id.is_empty() || layer.kind.is_empty() {
            return Err(layer.unlike("no id or type", "both"));
        }
        let mut outputs = vec![];
        for part in element.children().filter(Element::is_element) {
            match part.tag_name().name() {
                "data" => {
                    layer.data = part.attributes().map(|a| (a.name(), a.value())).collect();
                }
                "input" => layer.inputs = layer.ports(part)?,
                "output" => outputs = layer.ports(part)?,
                "rt_info" => {}
                other => {
                    let has = format!("the element {other:?}");
                    return Err(layer.unlike(has, "data, input and output"));
                }
            }
        }
        layer.output = outputs.pop();
        if !outputs.is_empty() {
            return Err(layer.unlike("several outputs", "at most one"));
        }
        Ok(layer)
    }

    fn ports(&self, side: Element<'a, '_>) -> Result<Vec<Port<'a>>, IrError> {
        let mut ports = vec![];
        for element in side.children().filter(Element::is_element) {
            let (mut id, mut precision) = ("", "");
            for attribute in element.attributes() {
                match attribute.name() {
                    "id" => id = attribute.value(),
                    "precision" => precision = attribute.value(),
                    "names" => {}
                    other => {
                        let has = format!("a port with the attribute {other:?}");
                        return Err(self.unlike(has, "id, precision and names"));
                    }
                }
            }
            let mut shape = vec![];
            for part in element.children().filter(Element::is_element) {
                match (part.tag_name().name(), part.text().and_then(|text| text.parse().ok())) {
                    ("rt_info", _) => {}
                    ("dim", Some(dim)) => shape.push(dim),
                    (other, _) => {
                        let text = part.text().unwrap_or_default();
                        let has = format!("a port with {other} {text:?}");
                        return Err(self.unlike(has, "dim with a fixed length"));
                    }
                }
            }
            ports.push(Port { id, precision, shape });
        }
        Ok(ports)
    }

    fn unlike(&self, has: impl Into<String>, expected: impl Into<String>) -> IrError {
        IrError::Node { node: self.to_string(), has: has.into(), expected: expected.into() }
    }

    /// The value of an attribute that a constant needs.
    fn required(&self, name: &str) -> Result<&'a str, IrError> {
        let value = self.data.get(name).copied();
        value.ok_or_else(|| self.unlike(format!("no attribute {name:?}"), "one"))
    }

    fn count(&self, name: &str) -> Result<usize, IrError> {
        let value = self.required(name)?;
        value.parse().map_err(|_| self.unlike(format!("{name} {value:?}"), "a count"))
    }
}

impl fmt::Display for Layer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.id, self.name, self.kind)
    }
}

/// Layer and port, by their ids.
type Place<'a> = (&'a str, &'a str);

/// Edges by the input that they lead to.
fn read_edges<'a>(elements: &[Element<'a, '_>]) -> Result<HashMap<Place<'a>, Place<'a>>, IrError> {
    let mut edges = HashMap::new();
    for element in elements {
        let place = |layer: &str, port: &str| -> Result<Place<'a>, IrError> {
            let missing = |name| IrError::not_ir(format!("an edge has no {name:?}"));
            let value = |name| element.attribute(name).ok_or_else(|| missing(name));
            Ok((value(layer)?, value(port)?))
        };
        let from = place("from-layer", "from-port")?;
        let to = place("to-layer", "to-port")?;
        if edges.insert(to, from).is_some() {
            let reason = format!("two edges lead to port {} of layer {}", to.1, to.0);
            return Err(IrError::not_ir(reason));
        }
    }
    Ok(edges)
}

/// What became of a layer.
#[derive(Clone)]
struct Known<'a> {
    source: Source,
    output: Option<(&'a str, &'a [usize])>,
}

struct Reader<'a, 'l> {
    layers: &'l [Layer<'a>],
    edges: HashMap<Place<'a>, Place<'a>>,
    bin: &'l [u8],
    /// Layers read so far, by id.
    known: HashMap<&'a str, Known<'l>>,
    budget: Budget,
    /// Byte after the last constant.
    end: usize,
    /// First constant with a value that is not finite.
    not_finite: Option<String>,
    graph: Graph,
}

impl<'a, 'l> Reader<'a, 'l> {
    fn new(
        layers: &'l [Layer<'a>],
        edges: HashMap<Place<'a>, Place<'a>>,
        bin: &'l [u8],
    ) -> Result<Self, IrError> {
        // The first sign of 8 bits gives a better message than any other difference.
        for layer in layers {
            let integers = matches!(layer.data.get("element_type"), Some(&("i8" | "u8")));
            if layer.kind == "FakeQuantize" || integers {
                return Err(IrError::Quantized { sign: format!("node {layer}") });
            }
        }
        Ok(Self {
            layers,
            edges,
            bin,
            known: HashMap::new(),
            budget: Budget::new(),
            end: 0,
            not_finite: None,
            graph: Graph { nodes: vec![], constants: Tensors::new() },
        })
    }

    fn read(mut self) -> Result<Graph, IrError> {
        let layers = self.layers;
        for layer in layers {
            let known = self.layer(layer)?;
            if self.known.insert(layer.id, known).is_some() {
                return Err(layer.unlike("the id of another layer", "one of its own"));
            }
        }
        if let Some(((layer, port), _)) = self.edges.iter().min() {
            let reason = format!("an edge leads to port {port} of layer {layer}, which is missing");
            return Err(IrError::not_ir(reason));
        }
        let more = self.bin.len().saturating_sub(self.end);
        if more > 0 {
            return Err(IrError::Weights {
                reason: format!("has {more} bytes more than the constants of the .xml take"),
                cure: "take .xml and .bin from the same folder",
            });
        }
        // A wrong length says more about the file than a strange value.
        match self.not_finite {
            None => Ok(self.graph),
            Some(constant) => Err(IrError::NotFinite { constant }),
        }
    }

    fn layer(&mut self, layer: &'l Layer<'a>) -> Result<Known<'l>, IrError> {
        let mut inputs = Vec::with_capacity(layer.inputs.len());
        for port in &layer.inputs {
            inputs.push(self.input(layer, port)?);
        }
        let output = layer.output.as_ref();
        let source = match (layer.kind, inputs.as_slice()) {
            ("Const", []) => self.constant(layer)?,
            ("Convert", [Source::Constant(name)]) => {
                let to: Vec<_> = layer.data.iter().map(|(name, value)| (*name, *value)).collect();
                if to != [("destination_type", "f32")] {
                    return Err(layer.unlike(format!("{to:?}"), "destination_type f32"));
                }
                // The input is as long as the constant.
                let (from, to) = (layer.inputs.first(), output);
                if from.map(|port| &port.shape) != to.map(|port| &port.shape) {
                    return Err(layer.unlike("another shape than its input", "the same"));
                }
                Source::Constant(name.clone())
            }
            _ => {
                let attributes = layer
                    .data
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), Attribute::parse(value)))
                    .collect();
                self.graph.nodes.push(Node {
                    id: layer.id.to_owned(),
                    name: layer.name.to_owned(),
                    kind: layer.kind.to_owned(),
                    operator_set: layer.operator_set.to_owned(),
                    attributes,
                    inputs,
                    shape: output.map(|port| port.shape.clone()).unwrap_or_default(),
                });
                Source::Node(self.graph.nodes.len() - 1)
            }
        };
        if let Some(port) = output.filter(|_| layer.kind != "Const")
            && port.precision != "FP32"
        {
            return Err(layer.unlike(format!("an output in {:?}", port.precision), "FP32"));
        }
        let output = output.map(|port| (port.id, port.shape.as_slice()));
        Ok(Known { source, output })
    }

    /// Follows the edge to an input.
    fn input(&mut self, layer: &Layer<'a>, port: &Port<'a>) -> Result<Source, IrError> {
        let to = format!("input {}", port.id);
        let Some((from, from_port)) = self.edges.remove(&(layer.id, port.id)) else {
            return Err(layer.unlike(format!("no edge to {to}"), "one"));
        };
        let Some(known) = self.known.get(from) else {
            return Err(layer.unlike(format!("{to} from layer {from}"), "an earlier layer"));
        };
        match known.output {
            Some((id, shape)) if id == from_port && shape == port.shape => Ok(known.source.clone()),
            Some((id, shape)) if id == from_port => {
                let has = format!("{to} of shape {:?}", port.shape);
                Err(layer.unlike(has, format!("{shape:?}, as layer {from} gives it")))
            }
            _ => {
                let has = format!("{to} from port {from_port} of layer {from}");
                Err(layer.unlike(has, "a port that exists"))
            }
        }
    }

    fn constant(&mut self, layer: &Layer<'a>) -> Result<Source, IrError> {
        let known = ["element_type", "offset", "shape", "size"];
        if let Some(other) = layer.data.keys().find(|name| !known.contains(name)) {
            return Err(layer.unlike(format!("the attribute {other:?}"), known.join(", ")));
        }
        type Decode = fn(&[u8]) -> Vec<f32>;
        let (width, precision, decode): (usize, _, Decode) = match layer.required("element_type")? {
            "f16" => (2, "FP16", f16_values),
            "f32" => (4, "FP32", f32_values),
            other => {
                return Err(layer.unlike(format!("element_type {other:?}"), "f16 or f32"));
            }
        };
        let shape = match layer.required("shape")? {
            "" => vec![],
            text => match Attribute::parse(text) {
                Attribute::Counts(shape) => shape,
                Attribute::Text(text) => {
                    return Err(layer.unlike(format!("shape {text:?}"), "lengths"));
                }
            },
        };
        let fits = |port: &Port<'_>| port.shape == shape && port.precision == precision;
        if !layer.output.as_ref().is_some_and(fits) {
            let has = format!("an output unlike its attributes {shape:?} and {precision}");
            return Err(layer.unlike(has, "the same"));
        }
        let (offset, size) = (layer.count("offset")?, layer.count("size")?);
        let bytes = element_count(&shape).and_then(|count| count.checked_mul(width));
        if bytes != Some(size) {
            let has = format!("{size} bytes for shape {shape:?} of {width} bytes each");
            return Err(layer.unlike(has, "as many as the shape takes"));
        }
        let end = offset.saturating_add(size);
        let short = || IrError::Short {
            constant: layer.name.to_owned(),
            begin: offset,
            end,
            got: self.bin.len(),
        };
        let bytes = self.bin.get(offset..end).ok_or_else(short)?;
        self.end = self.end.max(end);
        self.budget.spend(FORMAT, layer.name, size / width)?;
        let values = decode(bytes);
        if values.iter().any(|value| !value.is_finite()) {
            self.not_finite.get_or_insert_with(|| layer.name.to_owned());
        }
        let name = layer.name.to_owned();
        if self.graph.constants.insert(name.clone(), Tensor { shape, values }).is_some() {
            return Err(layer.unlike("the name of another constant", "one of its own"));
        }
        Ok(Source::Constant(name))
    }
}

#[cfg(test)]
mod tests;
