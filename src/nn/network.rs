//! A network as a tract plan, whatever its arithmetic: pictures in, outputs with the
//! channels of each place together.

use super::kernels::Kernel;
use super::operators::{ChannelsLast, Normalize, Quantized, TABLE, output_fact};
use super::partition::Partition;
use super::prelu;
use super::program::{Program, TooLarge};
use super::qdq::{Output, PICTURE, Quantization};
use super::{Activations, Batch, Dim, NetworkError, Normalization, Precision, Signature, join};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tract_core::internal::*;
use tract_hir::internal::{InferenceFact, InferenceModel, InferenceModelExt};
use tract_onnx::pb;

/// Maximum relative difference of a manifest's divisor from one by the file's scale: both
/// are rounded to single precision.
const ROUNDING: f32 = 1e-6;

/// Nodes in floating point that the log names.
const NAMED: usize = 8;

/// A network, ready to run.
pub struct Network {
    file: String,
    plan: Arc<TypedRunnableModel>,
    /// Keeps the memory of the operators from run to run.
    state: TypedSimpleState,
    /// First pixel, height and width of each picture of a run.
    table: Arc<Tensor>,
    /// Most pictures of different sides in one run; `None` for any number of any sides.
    dense: Option<usize>,
    kernel: Option<Kernel>,
    float_nodes: Vec<String>,
    outputs: Vec<Activations>,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Network({})", self.file)
    }
}

impl Network {
    /// Reads an ONNX model with one input, `batch x channels x height x width`, and checks
    /// it against the signature, and against `precision` if that is given. Quantized nodes
    /// run on 8-bit integers, all others in 32-bit floating point; [`Self::float_nodes`]
    /// names these. `file` appears in messages.
    pub fn load(
        file: &str,
        bytes: &[u8],
        signature: &Signature,
        normalization: &Normalization,
        precision: Option<Precision>,
    ) -> Result<Self, NetworkError> {
        let proto = tract_onnx::onnx().proto_model_for_read(&mut &bytes[..]).map_err(|error| {
            NetworkError::NotOnnx { file: file.to_owned(), reason: format!("{error:#}") }
        })?;
        let Some(graph) = &proto.graph else {
            let reason = "it holds no graph".to_owned();
            return Err(NetworkError::NotOnnx { file: file.to_owned(), reason });
        };
        super::check_input(file, graph, signature)?;
        super::check_precision(file, graph, precision)?;
        Self::of(file, &proto, graph, signature, normalization, None)
    }

    /// The network of a graph, with a kernel for its quantized part or the best one.
    pub(super) fn of(
        file: &str,
        proto: &pb::ModelProto,
        graph: &pb::GraphProto,
        signature: &Signature,
        normalization: &Normalization,
        kernel: Option<Kernel>,
    ) -> Result<Self, NetworkError> {
        let quantizes = graph.node.iter().any(|node| node.op_type == "QuantizeLinear");
        let partition = if quantizes {
            quantized_part(file, graph, signature, normalization)?
        } else {
            Partition::float(graph)
        };
        let kernel = match (partition.model.steps.is_empty(), kernel) {
            (true, _) => None,
            (false, Some(kernel)) => Some(kernel),
            (false, None) => Some(Kernel::chosen()?),
        };
        if quantizes && !partition.float_nodes.is_empty() {
            // Names come from the file: quoted, and not more of them than a line holds.
            let why = partition.reason.as_ref();
            let names = &partition.float_nodes[..partition.float_nodes.len().min(NAMED)];
            log::warn!(
                "{file}: {} of {} nodes run in 32-bit floating point, which is slow, from {names:?} \
                 on{}",
                partition.float_nodes.len(),
                graph.node.len(),
                why.map(|why| format!("; {:?}: {:?}", why.node, why.reason)).unwrap_or_default(),
            );
        }
        let build = Build { file, proto, graph, signature, normalization };
        // The importer and the optimizer are not ours, and a file may be damaged.
        let plan = catch_unwind(AssertUnwindSafe(|| build.plan(&partition, kernel)));
        let panicked = |_| build.prepare(anyhow!("tract panicked"));
        let plan = plan.map_err(panicked)??;
        let state = plan.spawn().map_err(|error| build.prepare(error))?;
        let dense = partition.float.is_some().then_some(match signature.input[0] {
            Dim::Fixed(_) => 1,
            Dim::Free(_) => usize::MAX,
        });
        Ok(Self {
            file: file.to_owned(),
            plan,
            state,
            table: Arc::new(Tensor::default()),
            dense,
            kernel,
            float_nodes: partition.float_nodes,
            outputs: signature.outputs.iter().map(|channels| Activations::new(*channels)).collect(),
        })
    }

    /// Runs the network on all pictures of a batch. Outputs are in their order.
    pub fn run(&mut self, batch: &Batch) -> Result<&[Activations], NetworkError> {
        // The plan uses the memory of outputs again that nobody holds any more.
        self.outputs.iter_mut().for_each(Activations::clear);
        let sides = batch.sides();
        let (mut from, mut first) = (0, 0);
        while from < sides.len() {
            let count = match self.dense {
                None => sides.len(),
                Some(most) => {
                    let same = sides[from..].iter().take_while(|side| **side == sides[from]);
                    same.take(most).count()
                }
            };
            let run = &sides[from..from + count];
            if let Err(error) = self.run_some(batch, first, run) {
                // What an error leaves in the state must not reach the next run.
                self.state = self.plan.spawn().map_err(|error| self.failed(&error, batch))?;
                return Err(self.failed(&error, batch));
            }
            first += run.iter().map(|(height, width)| height * width).sum::<usize>();
            from += count;
        }
        Ok(&self.outputs)
    }

    fn failed(&self, error: &TractError, batch: &Batch) -> NetworkError {
        let file = self.file.clone();
        if error.root_cause().is::<TooLarge>() {
            let pixels = batch.sides().iter().map(|(height, width)| height * width).sum();
            return NetworkError::TooLarge { file, pixels };
        }
        NetworkError::Run { file, reason: format!("{error:#}") }
    }

    /// Runs the plan once, on pictures whose first pixel has the number `first`.
    fn run_some(
        &mut self,
        batch: &Batch,
        mut first: usize,
        sides: &[(usize, usize)],
    ) -> TractResult<()> {
        if self.table.shape().first().is_none_or(|rows| *rows < sides.len()) {
            let rows = sides.len().next_power_of_two();
            self.table = Arc::new(Tensor::zero::<i64>(&[rows, TABLE])?);
        }
        let table = Arc::make_mut(&mut self.table).to_plain_array_view_mut::<i64>()?;
        let table = table.into_slice().context("the table of pictures is not contiguous")?;
        table.fill(-1);
        for (row, &(height, width)) in table.chunks_exact_mut(TABLE).zip(sides) {
            for (to, number) in row.iter_mut().zip([first, height, width]) {
                *to = i64::try_from(number)?;
            }
            first += height * width;
        }
        let table = TValue::from_const(Arc::clone(&self.table));
        let outputs = self.state.run(tvec!(TValue::from_const(batch.pixels()), table))?;
        for (output, value) in self.outputs.iter_mut().zip(outputs) {
            output.push(value.into_arc_tensor());
        }
        Ok(())
    }

    /// The arithmetic of the network; 8-bit integers if any node runs on them.
    pub fn precision(&self) -> Precision {
        if self.kernel.is_some() { Precision::Int8 } else { Precision::Float }
    }

    /// What computes the layers.
    pub fn kernel(&self) -> &'static str {
        self.kernel.map_or("tract f32", Kernel::name)
    }

    /// Names of the nodes that run in 32-bit floating point.
    pub fn float_nodes(&self) -> &[String] {
        &self.float_nodes
    }

    /// The file's name, as the user knows it.
    pub fn file(&self) -> &str {
        &self.file
    }
}

/// Finds the quantized part of a graph that has quantized nodes. The picture's quantization
/// must be the manifest's normalization.
fn quantized_part(
    file: &str,
    graph: &pb::GraphProto,
    signature: &Signature,
    normalization: &Normalization,
) -> Result<Partition, NetworkError> {
    let partition = Partition::of(graph, sides(signature))
        .map_err(|fault| NetworkError::quantized(file, fault))?;
    let picture = partition.model.tensors.get(PICTURE).map(|picture| picture.quantization);
    let Some(Quantization { scale, zero_point }) = picture else { return Ok(partition) };
    let (mean, std) = (f32::from(zero_point) + 128.0, 1.0 / scale);
    let given = normalization;
    let fits = given.mean.iter().all(|given| *given == mean)
        && given.std.iter().all(|given| (given * scale - 1.0).abs() <= ROUNDING);
    if !fits {
        let node = graph.input.first().map_or(String::new(), |input| input.name.clone());
        let reason = format!(
            "the manifest's normalization is mean {:?} and std {:?}, but the file's is mean {mean} \
             and std {std} for each channel (scale {scale}, zero point {zero_point}); write that \
             into the manifest if the file is right",
            given.mean, given.std
        );
        return Err(NetworkError::Quantized { file: file.to_owned(), node, reason });
    }
    Ok(partition)
}

fn sides(signature: &Signature) -> Option<(usize, usize)> {
    match signature.input[2..] {
        [Dim::Fixed(height), Dim::Fixed(width)] => Some((height, width)),
        _ => None,
    }
}

/// What a plan is built from.
struct Build<'b> {
    file: &'b str,
    proto: &'b pb::ModelProto,
    graph: &'b pb::GraphProto,
    signature: &'b Signature,
    normalization: &'b Normalization,
}

impl Build<'_> {
    fn prepare(&self, error: TractError) -> NetworkError {
        NetworkError::Prepare { file: self.file.to_owned(), reason: format!("{error:#}") }
    }

    /// The plan: pixels and table, the head that reads them, and the part in floating point
    /// behind it, if there is one.
    fn plan(
        &self,
        partition: &Partition,
        kernel: Option<Kernel>,
    ) -> Result<Arc<TypedRunnableModel>, NetworkError> {
        let mut main = TypedModel::default();
        let wires = self.head(&mut main, partition, kernel)?;
        let mut outputs: HashMap<String, OutletId> = HashMap::new();
        for (name, number) in &partition.heads {
            outputs.insert(name.clone(), wires.heads[*number]);
        }
        if let Some(float) = &partition.float {
            let made = self.tail(&mut main, float, &wires.values);
            outputs.extend(made.map_err(|error| self.prepare(error))?);
        }
        self.check_outputs(&main, &outputs)?;
        self.finish(main, &outputs, partition).map_err(|error| self.prepare(error))
    }

    /// Adds the sources and the operator that reads pictures.
    fn head(
        &self,
        main: &mut TypedModel,
        partition: &Partition,
        kernel: Option<Kernel>,
    ) -> Result<Wires, NetworkError> {
        let symbol = |name: &str| main.symbols.sym(name).to_dim();
        let pixels = i16::fact([symbol("pixels"), Batch::PIXEL.to_dim()]);
        let table = i64::fact([symbol("pictures"), TABLE.to_dim()]);
        let dims: TVec<TDim> = self
            .signature
            .input
            .iter()
            .map(|dim| match dim {
                Dim::Fixed(n) => n.to_dim(),
                Dim::Free(letter) => symbol(&letter.to_string()),
            })
            .collect();
        let wire = |main: &mut TypedModel, op: Box<dyn TypedOp>| -> TractResult<TVec<OutletId>> {
            let pixels = main.add_source("pixels", pixels.clone())?;
            let table = main.add_source("table", table.clone())?;
            main.wire_node("head", op, &[pixels, table])
        };
        let Some(kernel) = kernel else {
            let (normalization, fact) = (*self.normalization, f32::fact(&*dims));
            let op = Normalize { normalization, fact };
            let wires = wire(main, Box::new(op)).map_err(|error| self.prepare(error))?;
            let picture = self.graph.input.iter().map(|input| input.name.clone());
            let values = picture.take(1).map(|name| (name, wires[0])).collect();
            return Ok(Wires { heads: wires, values });
        };
        let program = Program::new(partition.model.clone(), kernel)
            .map_err(|fault| NetworkError::quantized(self.file, fault))?;
        let program = Arc::new(program);
        let facts = program.outputs().iter().map(|output| {
            let known = match *output {
                Output::Activation { tensor } => partition.model.tensors[tensor].sides(),
                Output::Head { .. } => None,
            };
            output_fact(&program, output, &main.symbols, &dims[0], known)
        });
        let op = Quantized { facts: facts.collect(), program: Arc::clone(&program) };
        let wires = wire(main, Box::new(op)).map_err(|error| self.prepare(error))?;
        let values = &partition.handed_over;
        let values = values.iter().map(|(name, number)| (name.clone(), wires[*number])).collect();
        Ok(Wires { heads: wires, values })
    }

    /// Adds the part in floating point; `values` are those that it reads. Returns its
    /// outputs by name.
    fn tail(
        &self,
        main: &mut TypedModel,
        graph: &pb::GraphProto,
        values: &HashMap<String, OutletId>,
    ) -> TractResult<HashMap<String, OutletId>> {
        let mut graph = graph.clone();
        graph.input.clear();
        graph.value_info.clear();
        let made: std::collections::HashSet<&str> =
            graph.node.iter().flat_map(|node| node.output.iter().map(String::as_str)).collect();
        for output in &graph.output {
            ensure!(made.contains(&output.name[..]), "no node computes the output {}", output.name);
        }
        let names: Vec<String> = graph.output.iter().map(|output| output.name.clone()).collect();
        let proto = pb::ModelProto { graph: Some(graph), ..self.proto.clone() };
        let template =
            InferenceModel { symbols: main.symbols.clone(), ..InferenceModel::default() };
        let parsed = prelu::with_own_prelu(tract_onnx::onnx())
            .with_ignore_value_info(true)
            .parse_with_template(&proto, None, template)?;
        let mut tail = parsed.model;
        let mut sources = TVec::new();
        let mut from = Vec::new();
        for (name, wire) in values {
            let Some(outlet) = parsed.outlets_by_name.get(name) else { continue };
            let fact = main.outlet_fact(*wire)?;
            let (kind, shape) = (fact.datum_type, fact.shape.to_tvec());
            tail.set_outlet_fact(*outlet, InferenceFact::dt_shape(kind, shape))?;
            sources.push(*outlet);
            from.push(*wire);
        }
        tail.set_input_outlets(&sources)?;
        let tail = tail.into_typed()?;
        let mut wires: HashMap<OutletId, OutletId> =
            tail.inputs.iter().copied().zip(from).collect();
        for id in tail.eval_order()? {
            if tail.inputs.contains(&OutletId::new(id, 0)) {
                continue;
            }
            let node = tail.node(id);
            let inputs = node.inputs.iter().map(|input| wires.get(input).copied());
            let inputs: Option<TVec<OutletId>> = inputs.collect();
            let inputs = inputs.with_context(|| format!("{}: an input is missing", node.name))?;
            let name = main.unique_name(node.name.as_str()).into_owned();
            let made = main.wire_node(name, node.op.clone(), &inputs)?;
            for (slot, to) in made.into_iter().enumerate() {
                wires.insert(OutletId::new(id, slot), to);
            }
        }
        let outlets = tail.outputs.iter().map(|outlet| wires.get(outlet).copied());
        let outlets: Option<Vec<OutletId>> = outlets.collect();
        Ok(names.into_iter().zip(outlets.context("an output is missing")?).collect())
    }

    fn check_outputs(
        &self,
        main: &TypedModel,
        outputs: &HashMap<String, OutletId>,
    ) -> Result<(), NetworkError> {
        let expected = &self.signature.outputs;
        let mut got = Vec::new();
        let mut fits = self.graph.output.len() == expected.len();
        for (output, channels) in self.graph.output.iter().zip(expected) {
            match outputs.get(&output.name).map(|outlet| main.outlet_fact(*outlet)) {
                Some(Ok(fact)) => {
                    fits &= fact.datum_type == f32::datum_type()
                        && fact.shape.get(1).is_some_and(|dim| *dim == channels.to_dim());
                    got.push(join(fact.shape.iter()));
                }
                Some(Err(_)) | None => fits = false,
            }
        }
        if fits {
            return Ok(());
        }
        Err(NetworkError::Outputs {
            file: self.file.to_owned(),
            got: format!("{} outputs ({})", self.graph.output.len(), got.join(", ")),
            expected: format!("{} with {expected:?} values on axis 1", expected.len()),
        })
    }

    /// Puts the outputs in the file's order and in one form, and makes the plan.
    fn finish(
        &self,
        mut main: TypedModel,
        outputs: &HashMap<String, OutletId>,
        partition: &Partition,
    ) -> TractResult<Arc<TypedRunnableModel>> {
        let mut all = TVec::new();
        for (output, &channels) in self.graph.output.iter().zip(&self.signature.outputs) {
            let outlet = outputs[&output.name];
            if partition.heads.contains_key(&output.name) {
                all.push(outlet);
                continue;
            }
            let places = main.symbols.new_with_prefix("places").to_dim();
            let op = ChannelsLast { channels, fact: f32::fact([places, channels.to_dim()]) };
            let name = main.unique_name("channels-last").into_owned();
            all.extend(main.wire_node(name, op, &[outlet])?);
        }
        main.select_output_outlets(&all)?;
        // A program is optimized already, and the start must be quick.
        if partition.float.is_some() { main.into_optimized()? } else { main }.into_runnable()
    }
}

/// Outlets of the head: all, and those that the part in floating point reads, by name.
struct Wires {
    heads: TVec<OutletId>,
    values: HashMap<String, OutletId>,
}
