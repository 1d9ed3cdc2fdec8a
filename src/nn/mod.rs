//! Networks: ONNX bytes in, outputs for pictures out.
//!
//! Networks of 8-bit whole numbers run through kernels of our own ([`kernels`]);
//! those in 32-bit floating point through tract, as oracle and fallback.

mod float;
mod int8;
mod normalization;
mod prelu;
mod qdq;
#[cfg(test)]
mod tests;
pub mod worker;

pub use facelatch_kernels as kernels;
pub use normalization::Normalization;

use kernels::{Kernel, KernelError};
use thiserror::Error;
use tract_onnx::pb;

/// Why a network cannot be loaded or run. `file` names it as the user knows it.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// The bytes are no ONNX model.
    #[error("{file}: not an ONNX model ({reason}); import or export it again with facelatch-tools")]
    NotOnnx {
        /// Which file.
        file: String,
        /// What the reader said.
        reason: String,
    },
    /// An ONNX model of another kind.
    #[error(
        "{file}: input is {got}, expected {expected}; re-export it with facelatch-tools export"
    )]
    InputShape {
        /// Which file.
        file: String,
        /// What the file declares.
        got: String,
        /// What the stage feeds.
        expected: String,
    },
    /// Another number of outputs, or outputs of other shapes.
    #[error("{file}: {got}, expected {expected}; re-export it with facelatch-tools export")]
    Outputs {
        /// Which file.
        file: String,
        /// What the network gives.
        got: String,
        /// What the stage reads.
        expected: String,
    },
    /// Not the quantized form, or a layer that cannot be computed in it.
    #[error("{file}: node {node}: {reason}; quantize it again with facelatch-tools quantize")]
    Quantized {
        /// Which file.
        file: String,
        /// ONNX's name of the node.
        node: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Floating point where whole numbers are expected, or the reverse.
    #[error("{file}: {got}, expected {expected}; {cure}")]
    Precision {
        /// Which file.
        file: String,
        /// What the file holds, with the node that tells.
        got: String,
        /// What was asked for.
        expected: Precision,
        /// What to do.
        cure: &'static str,
    },
    /// The kernel that the environment forces cannot be had.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The thread that a part of the pictures is run on.
    #[error("the networks' second thread: {reason}; detect on one thread")]
    Thread {
        /// What happened to it.
        reason: String,
    },
    /// More pictures at once than memory can name.
    #[error("{file}: {pixels} pixels are too many for one run; use smaller pictures")]
    TooLarge {
        /// Which file.
        file: String,
        /// Of all pictures.
        pixels: usize,
    },
    /// tract refuses the graph.
    #[error(
        "{file}: cannot be prepared to run: {reason}; re-export it with facelatch-tools export"
    )]
    Prepare {
        /// Which file.
        file: String,
        /// The whole cause chain.
        reason: String,
    },
    /// tract failed while running.
    #[error("{file}: failed while running: {reason}; check the models with facelatch bench")]
    Run {
        /// Which file.
        file: String,
        /// The whole cause chain.
        reason: String,
    },
}

/// Arithmetic of the networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 8-bit whole numbers.
    #[default]
    Int8,
    /// 32-bit floating point.
    Float,
}

impl std::str::FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Int8, Self::Float]
            .into_iter()
            .find(|precision| precision.to_string() == name)
            .ok_or_else(|| format!("{name} is no precision; use int8 or float"))
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Int8 => "int8",
            Self::Float => "float",
        })
    }
}

/// One side of a network's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Always this many.
    Fixed(usize),
    /// Any number, known when the network runs; the letter names it in messages.
    Free(char),
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Side::Fixed(n) => write!(f, "{n}"),
            Side::Free(letter) => write!(f, "{letter}"),
        }
    }
}

/// What a stage feeds a network and reads from it.
#[derive(Clone, Debug)]
pub struct Signature {
    /// Batch, channels, height, width.
    pub input: [Side; 4],
    /// For each output the size of its axis 1.
    pub outputs: Vec<usize>,
}

/// Pictures for one run, of the same or different sides.
#[derive(Clone, Debug, Default)]
pub struct Pictures {
    sides: Vec<(usize, usize)>,
    values: Vec<i16>,
}

impl Pictures {
    /// Values of a pixel: red, green, blue and one that does not count.
    pub const PIXEL: usize = qdq::PICTURE_STORED;
    /// A value is 0 to 255 in steps of one by so many.
    pub const STEPS: i16 = kernels::STEPS;

    /// Forgets the pictures, keeps the memory.
    pub fn clear(&mut self) {
        self.sides.clear();
        self.values.clear();
    }

    /// One more picture, to be filled row by row.
    pub fn add(&mut self, height: usize, width: usize) -> &mut [i16] {
        let from = self.values.len();
        self.sides.push((height, width));
        self.values.resize(from + height * width * Self::PIXEL, 0);
        &mut self.values[from..]
    }

    /// Height and width of each.
    pub fn sides(&self) -> &[(usize, usize)] {
        &self.sides
    }

    /// All pixels of all pictures.
    pub fn values(&self) -> &[i16] {
        &self.values
    }
}

/// One output of a run: for each picture, row and column all channels.
#[derive(Clone, Debug, Default)]
pub struct Values {
    channels: usize,
    /// Of the largest batch; the last run's come first.
    values: Vec<f32>,
    used: usize,
}

impl Values {
    fn new(channels: usize) -> Self {
        Self { channels, values: Vec::new(), used: 0 }
    }

    /// The channels of each place.
    pub fn places(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values[..self.used].chunks_exact(self.channels.max(1))
    }

    /// Becomes a copy of the last run of another one, in the memory it has.
    fn set(&mut self, other: &Self) {
        self.channels = other.channels;
        self.used = other.used;
        self.values.clear();
        self.values.extend_from_slice(&other.values[..other.used]);
    }

    /// Shares of one a place, as large as the exponents of the values.
    fn softmax(&mut self) {
        for place in self.values[..self.used].chunks_exact_mut(self.channels.max(1)) {
            if let [other, this] = place {
                let share = 1.0 / (1.0 + (*other - *this).exp());
                (*other, *this) = (1.0 - share, share);
                continue;
            }
            let largest = place.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            place.iter_mut().for_each(|value| *value = (*value - largest).exp());
            let sum: f32 = place.iter().sum();
            place.iter_mut().for_each(|value| *value /= sum);
        }
    }
}

/// A network, ready to run.
pub struct Network {
    file: String,
    engine: Engine,
}

enum Engine {
    Int8(Box<int8::Int8Network>),
    Float(Box<float::FloatNetwork>),
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Network({})", self.file)
    }
}

impl Network {
    /// Reads an ONNX model of one input, `batch x channels x height x width`, and
    /// checks it against what the stage needs, and against the precision if one is
    /// asked for. `file` appears in messages.
    pub fn load(
        file: &str,
        bytes: &[u8],
        signature: &Signature,
        normalization: &Normalization,
        precision: Option<Precision>,
    ) -> Result<Self, NetworkError> {
        let proto = float::proto(file, bytes)?;
        let Some(graph) = &proto.graph else {
            return Err(NetworkError::NotOnnx {
                file: file.to_owned(),
                reason: "it holds no graph".to_owned(),
            });
        };
        check_input(file, graph, signature)?;
        let quantizer = graph.node.iter().find(|node| node.op_type == "QuantizeLinear");
        let engine = match (precision, quantizer) {
            (None | Some(Precision::Int8), Some(_)) => {
                Engine::Int8(Box::new(int8(file, graph, signature, normalization)?))
            }
            (None | Some(Precision::Float), None) => Engine::Float(Box::new(
                float::FloatNetwork::load(file, &proto, signature, normalization)?,
            )),
            (Some(expected @ Precision::Int8), None) => {
                let layer = graph.node.first().map_or("", |node| node.name.as_str());
                return Err(NetworkError::Precision {
                    file: file.to_owned(),
                    got: format!("layers from {layer} on are in floating point"),
                    expected,
                    cure: "quantize it with facelatch-tools quantize or use --precision float",
                });
            }
            (Some(expected @ Precision::Float), Some(node)) => {
                return Err(NetworkError::Precision {
                    file: file.to_owned(),
                    got: format!("node {} quantizes", node.name),
                    expected,
                    cure: "name a folder of float models with --models or use --precision int8",
                });
            }
        };
        Ok(Self { file: file.to_owned(), engine })
    }

    /// Runs the network on all pictures; what it says of them is in their order.
    pub fn run(&mut self, pictures: &Pictures) -> Result<&[Values], NetworkError> {
        match &mut self.engine {
            Engine::Int8(network) => network.run(pictures).map_err(|int8::TooLarge| {
                let pixels = pictures.sides.iter().map(|(height, width)| height * width).sum();
                NetworkError::TooLarge { file: self.file.clone(), pixels }
            }),
            Engine::Float(network) => network.run(&self.file, pictures),
        }
    }

    /// Its arithmetic.
    pub fn precision(&self) -> Precision {
        match &self.engine {
            Engine::Int8(_) => Precision::Int8,
            Engine::Float(_) => Precision::Float,
        }
    }

    /// What computes its layers.
    pub fn kernel(&self) -> &'static str {
        match &self.engine {
            Engine::Int8(network) => network.kernel().name(),
            Engine::Float(_) => "tract f32",
        }
    }

    /// The file's name, as the user knows it.
    pub fn file(&self) -> &str {
        &self.file
    }
}

fn int8(
    file: &str,
    graph: &pb::GraphProto,
    signature: &Signature,
    normalization: &Normalization,
) -> Result<int8::Int8Network, NetworkError> {
    let quantized = |fault: qdq::Fault| NetworkError::Quantized {
        file: file.to_owned(),
        node: fault.node,
        reason: fault.reason,
    };
    if *normalization != Normalization::BYTES {
        return Err(quantized(qdq::Fault {
            node: graph.input.first().map_or(String::new(), |input| input.name.clone()),
            reason: format!(
                "the manifest's normalization is mean {:?} and std {:?}, in whole numbers all are 128",
                normalization.mean, normalization.std
            ),
        }));
    }
    let sides = match signature.input[2..] {
        [Side::Fixed(height), Side::Fixed(width)] => Some((height, width)),
        _ => None,
    };
    let model = qdq::read(graph, sides).map_err(quantized)?;
    let channels: Vec<usize> = model.heads.iter().map(|head| head.channels).collect();
    if channels != signature.outputs {
        return Err(NetworkError::Outputs {
            file: file.to_owned(),
            got: format!("outputs with {channels:?} values"),
            expected: format!("{:?}", signature.outputs),
        });
    }
    int8::Int8Network::new(model, Kernel::chosen()?).map_err(quantized)
}

fn check_input(
    file: &str,
    graph: &pb::GraphProto,
    signature: &Signature,
) -> Result<(), NetworkError> {
    let wanted = || join(signature.input.iter());
    let error =
        |got: String| NetworkError::InputShape { file: file.to_owned(), got, expected: wanted() };
    let constants: std::collections::HashSet<&str> =
        graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let inputs: Vec<_> =
        graph.input.iter().filter(|input| !constants.contains(input.name.as_str())).collect();
    let [input] = inputs[..] else {
        return Err(error(format!("{} tensors", inputs.len())));
    };
    let Some(sides) = declared_shape(input) else {
        return Err(error("not a tensor with a shape".to_owned()));
    };
    let fits = sides.len() == 4
        && sides.iter().zip(&signature.input).all(|(got, wanted)| match (got, wanted) {
            // A free side in the file takes any size; a fixed one only its own.
            (None, _) => true,
            (Some(got), Side::Fixed(wanted)) => *got == *wanted as i64,
            (Some(_), Side::Free(_)) => false,
        });
    if fits {
        Ok(())
    } else {
        let got = sides.iter().map(|side| side.map_or("?".to_owned(), |n| n.to_string()));
        Err(error(join(got)))
    }
}

/// The sides an ONNX value declares; `None` for one that is free.
fn declared_shape(value: &pb::ValueInfoProto) -> Option<Vec<Option<i64>>> {
    use pb::tensor_shape_proto::dimension::Value as Side;
    let pb::type_proto::Value::TensorType(tensor) = value.r#type.as_ref()?.value.as_ref()?;
    let sides = &tensor.shape.as_ref()?.dim;
    Some(
        sides
            .iter()
            .map(|side| match side.value {
                Some(Side::DimValue(n)) => Some(n),
                _ => None,
            })
            .collect(),
    )
}

fn join<T: std::fmt::Display>(sides: impl Iterator<Item = T>) -> String {
    sides.map(|side| side.to_string()).collect::<Vec<_>>().join("x")
}
