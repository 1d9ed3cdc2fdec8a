//! Which part of a graph runs on 8-bit integers, and which in floating point.
//!
//! The quantized part begins at the picture and ends where a node does not fit; all nodes
//! behind such a node run in floating point, in tract. So the two parts meet once, at
//! activations that are handed over dequantized.

use super::qdq::{Handover, Model, Reader};
use super::{NetworkError, qdq};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use tract_onnx::pb;

/// A graph in two parts.
pub(super) struct Partition {
    /// The quantized part; without steps if there is none.
    pub model: Model,
    /// Outputs of the quantized part that are outputs of the network, by name.
    pub heads: HashMap<String, usize>,
    /// Outputs of the quantized part that the other part reads, by name.
    pub handed_over: BTreeMap<String, usize>,
    /// The part in floating point: the graph without the quantized nodes. `None` if every
    /// node is quantized.
    pub float: Option<pb::GraphProto>,
    /// Names of the nodes in floating point, with the reason of the first.
    pub float_nodes: Vec<String>,
    pub reason: Option<qdq::Fault>,
}

impl Partition {
    /// Everything in floating point.
    fn all_float(graph: &pb::GraphProto, reason: Option<qdq::Fault>) -> Self {
        Self {
            model: Model { steps: Vec::new(), tensors: Vec::new(), outputs: Vec::new() },
            heads: HashMap::new(),
            handed_over: BTreeMap::new(),
            float_nodes: graph.node.iter().map(|node| node.name.clone()).collect(),
            float: Some(graph.clone()),
            reason,
        }
    }

    /// A graph that is not quantized at all.
    pub fn float(graph: &pb::GraphProto) -> Self {
        Self::all_float(graph, None)
    }

    /// Divides a graph whose input is a picture of three channels, of these sides if they
    /// are fixed. An error if the quantized part is damaged.
    pub fn of(graph: &pb::GraphProto, sides: Option<(usize, usize)>) -> Result<Self, qdq::Fault> {
        // Nodes that must run in floating point, because such a node needs their result in
        // a form that the quantized part does not have. Each round adds some.
        let mut forced: HashSet<usize> = HashSet::new();
        // The fault that was found first has caused all that is forced.
        let mut first: Option<qdq::Fault> = None;
        loop {
            match Self::round(graph, sides, &forced)? {
                Round::Done(partition) => {
                    return Ok(Self { reason: first.or(partition.reason), ..*partition });
                }
                Round::Force(more, reason) => {
                    first = first.or(reason);
                    if more.iter().all(|node| forced.contains(node)) {
                        return Ok(Self::all_float(graph, first));
                    }
                    forced.extend(more);
                }
                Round::AllFloat(reason) => return Ok(Self::all_float(graph, first.or(reason))),
            }
        }
    }

    fn round(
        graph: &pb::GraphProto,
        sides: Option<(usize, usize)>,
        forced: &HashSet<usize>,
    ) -> Result<Round, qdq::Fault> {
        let mut reader = Reader::new(graph, sides);
        let makers: HashMap<&str, usize> = (0..)
            .zip(&graph.node)
            .flat_map(|(at, node)| node.output.iter().map(move |name| (name.as_str(), at)))
            .collect();
        let mut outside: BTreeSet<usize> = BTreeSet::new();
        let mut reason = None;
        for (at, node) in graph.node.iter().enumerate() {
            let made_outside =
                |name: &String| makers.get(name.as_str()).is_some_and(|at| outside.contains(at));
            if forced.contains(&at) || node.input.iter().any(made_outside) {
                outside.insert(at);
                continue;
            }
            match reader.read(node) {
                Ok(()) => {}
                Err(fault) if fault.damaged => return Err(fault),
                Err(fault) => {
                    outside.insert(at);
                    reason.get_or_insert(fault);
                }
            }
        }
        let mut force = Vec::new();
        let mut heads = HashMap::new();
        for output in &graph.output {
            match makers.get(output.name.as_str()) {
                Some(at) if outside.contains(at) => {}
                Some(at) => match reader.output(&output.name) {
                    Ok(number) => {
                        heads.insert(output.name.clone(), number);
                    }
                    Err(fault) if fault.damaged => return Err(fault),
                    Err(fault) => {
                        reason.get_or_insert(fault);
                        force.push(*at);
                    }
                },
                None => {
                    let reason = "no node computes this output".to_owned();
                    let node = output.name.clone();
                    return Err(qdq::Fault { node, reason, damaged: true });
                }
            }
        }
        let mut tail = outside.clone();
        let mut handed_over = BTreeMap::new();
        for node in outside.iter().map(|at| &graph.node[*at]) {
            for name in &node.input {
                if !reader.has(name) {
                    continue;
                }
                match (reader.handover(name), makers.get(name.as_str())) {
                    (Handover::Constant, Some(maker)) => {
                        tail.insert(*maker);
                    }
                    (Handover::Activation(tensor), _) => {
                        if !handed_over.contains_key(name) {
                            handed_over.insert(name.clone(), reader.hand_over(tensor));
                        }
                    }
                    // The picture itself: nothing is gained before this node.
                    (Handover::Picture, _) => return Ok(Round::AllFloat(reason)),
                    (_, Some(maker)) => force.push(*maker),
                    (_, None) => return Ok(Round::AllFloat(reason)),
                }
            }
        }
        if !force.is_empty() {
            return Ok(Round::Force(force, reason));
        }
        let model = reader.finished();
        if model.steps.is_empty() {
            return Ok(Round::AllFloat(reason));
        }
        let float = (!outside.is_empty()).then(|| rest(graph, &tail, &heads));
        let float_nodes = outside.iter().map(|at| graph.node[*at].name.clone()).collect();
        let partition = Self { model, heads, handed_over, float, float_nodes, reason };
        Ok(Round::Done(Box::new(partition)))
    }
}

/// Result of one division.
enum Round {
    Done(Box<Partition>),
    /// These nodes must run in floating point, too; with the first fault.
    Force(Vec<usize>, Option<qdq::Fault>),
    AllFloat(Option<qdq::Fault>),
}

/// The graph with these nodes alone: without inputs, and with the outputs and constants
/// that belong to them.
fn rest(
    graph: &pb::GraphProto,
    nodes: &BTreeSet<usize>,
    heads: &HashMap<String, usize>,
) -> pb::GraphProto {
    let node: Vec<pb::NodeProto> = nodes.iter().map(|at| graph.node[*at].clone()).collect();
    let read: HashSet<&str> =
        node.iter().flat_map(|node| node.input.iter().map(String::as_str)).collect();
    let initializer =
        graph.initializer.iter().filter(|c| read.contains(c.name.as_str())).cloned().collect();
    let output =
        graph.output.iter().filter(|output| !heads.contains_key(&output.name)).cloned().collect();
    pb::GraphProto { name: graph.name.clone(), node, initializer, output, ..Default::default() }
}

impl NetworkError {
    /// The error for a damaged or unsuitable quantized node.
    pub(super) fn quantized(file: &str, fault: qdq::Fault) -> Self {
        Self::Quantized { file: file.to_owned(), node: fault.node, reason: fault.reason }
    }
}
