//! Networks: ONNX files run on pictures.
//!
//! Every network is a tract plan. The quantized part of a graph is recognised and becomes
//! one operator of the plan, which runs on 8-bit integers through [`kernels`]; all other
//! nodes run in 32-bit floating point through tract's own operators.

mod network;
mod normalization;
mod operators;
mod partition;
mod prelu;
mod program;
mod qdq;
#[cfg(test)]
mod tests;
pub mod worker;

pub use facelatch_kernels as kernels;
pub use network::Network;
pub use normalization::Normalization;

use kernels::KernelError;
use std::sync::Arc;
use thiserror::Error;
use tract_core::internal::Tensor;
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
pub enum Dim {
    /// Always this many.
    Fixed(usize),
    /// Any number, known when the network runs; the letter names it in messages.
    Free(char),
}

impl std::fmt::Display for Dim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Dim::Fixed(n) => write!(f, "{n}"),
            Dim::Free(letter) => write!(f, "{letter}"),
        }
    }
}

/// What a stage feeds a network and reads from it.
#[derive(Clone, Debug)]
pub struct Signature {
    /// Batch, channels, height, width.
    pub input: [Dim; 4],
    /// For each output the size of its axis 1.
    pub outputs: Vec<usize>,
}

/// Channels of a picture: red, green and blue.
const PICTURE_CHANNELS: usize = 3;

/// Pictures for one run, of the same or different sides.
#[derive(Clone, Debug)]
pub struct Batch {
    sides: Vec<(usize, usize)>,
    /// [`Self::PIXEL`] values of each pixel, of all pictures one after the other. It may
    /// have room for more.
    pixels: Arc<Tensor>,
    /// Number of values in use.
    used: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self { sides: Vec::new(), pixels: Arc::new(Tensor::default()), used: 0 }
    }
}

impl Batch {
    /// Values of a pixel: red, green, blue and one that does not count.
    pub const PIXEL: usize = qdq::PICTURE_STORED;
    /// A value is 0 to 255 in steps of one by this number.
    pub const STEPS: i16 = kernels::STEPS;

    /// Forgets the pictures, keeps the memory.
    pub fn clear(&mut self) {
        self.sides.clear();
        self.used = 0;
    }

    /// Adds a picture, to be filled row by row.
    pub fn add(&mut self, height: usize, width: usize) -> &mut [i16] {
        let (from, more) = (self.used, height * width * Self::PIXEL);
        self.sides.push((height, width));
        self.used += more;
        if self.pixels.len() < self.used || self.pixels.rank() != 2 {
            let rows = self.used.max(2 * from).div_ceil(Self::PIXEL);
            let mut pixels = Tensor::zero::<i16>(&[rows, Self::PIXEL]).unwrap_or_default();
            if let (Some(to), from) = (values_mut(&mut pixels), self.values_up_to(from)) {
                to[..from.len()].copy_from_slice(from);
            }
            self.pixels = Arc::new(pixels);
        }
        let values = values_mut(Arc::make_mut(&mut self.pixels)).unwrap_or_default();
        values.get_mut(from..from + more).unwrap_or_default()
    }

    /// Height and width of each picture.
    pub fn sides(&self) -> &[(usize, usize)] {
        &self.sides
    }

    /// All pixels of all pictures.
    pub fn values(&self) -> &[i16] {
        self.values_up_to(self.used)
    }

    fn values_up_to(&self, end: usize) -> &[i16] {
        let values = self.pixels.try_as_plain_ram().ok().and_then(|view| view.as_slice().ok());
        values.and_then(|values: &[i16]| values.get(..end)).unwrap_or_default()
    }

    /// The tensor with the pixels, which a run borrows.
    fn pixels(&self) -> Arc<Tensor> {
        Arc::clone(&self.pixels)
    }
}

fn values_mut(tensor: &mut Tensor) -> Option<&mut [i16]> {
    tensor.to_plain_array_view_mut().ok()?.into_slice()
}

/// One output of a run: for each picture, row and column all channels.
#[derive(Clone, Debug, Default)]
pub struct Activations {
    channels: usize,
    values: Places,
}

/// Values of an output, `places x channels`, in the order of the pictures.
#[derive(Clone, Debug, Default)]
enum Places {
    #[default]
    None,
    /// Of a single run of the plan, in the plan's own memory.
    One(Arc<Tensor>),
    /// Of several runs.
    Several(Vec<f32>),
}

impl Places {
    fn values(&self) -> &[f32] {
        match self {
            Self::None => &[],
            Self::One(tensor) => {
                let view = tensor.try_as_plain_ram().ok();
                view.and_then(|view| view.as_slice().ok()).unwrap_or_default()
            }
            Self::Several(values) => values,
        }
    }
}

impl Activations {
    fn new(channels: usize) -> Self {
        Self { channels, values: Places::None }
    }

    /// The channels of each place.
    pub fn places(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.values().chunks_exact(self.channels.max(1))
    }

    fn clear(&mut self) {
        self.values = Places::None;
    }

    fn push(&mut self, tensor: Arc<Tensor>) {
        let more = Places::One(tensor);
        match &mut self.values {
            Places::None => self.values = more,
            Places::Several(values) => values.extend_from_slice(more.values()),
            one => *one = Places::Several([one.values(), more.values()].concat()),
        }
    }
}

/// Checks that a graph has the arithmetic that was asked for.
fn check_precision(
    file: &str,
    graph: &pb::GraphProto,
    precision: Option<Precision>,
) -> Result<(), NetworkError> {
    let quantizer = graph.node.iter().find(|node| node.op_type == "QuantizeLinear");
    let (expected, got, cure) = match (precision, quantizer) {
        (None, _) | (Some(Precision::Int8), Some(_)) | (Some(Precision::Float), None) => {
            return Ok(());
        }
        (Some(expected @ Precision::Int8), None) => {
            let layer = graph.node.first().map_or("", |node| node.name.as_str());
            let got = format!("layers from {layer} on are in floating point");
            let cure = "quantize it with facelatch-tools quantize or use --precision float";
            (expected, got, cure)
        }
        (Some(expected @ Precision::Float), Some(node)) => {
            let got = format!("node {} quantizes", node.name);
            let cure = "name a folder of float models with --models or use --precision int8";
            (expected, got, cure)
        }
    };
    Err(NetworkError::Precision { file: file.to_owned(), got, expected, cure })
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
            (Some(got), Dim::Fixed(wanted)) => *got == *wanted as i64,
            (Some(_), Dim::Free(_)) => false,
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
    use pb::tensor_shape_proto::dimension::Value;
    let pb::type_proto::Value::TensorType(tensor) = value.r#type.as_ref()?.value.as_ref()?;
    let sides = &tensor.shape.as_ref()?.dim;
    Some(
        sides
            .iter()
            .map(|side| match side.value {
                Some(Value::DimValue(n)) => Some(n),
                _ => None,
            })
            .collect(),
    )
}

fn join<T: std::fmt::Display>(sides: impl Iterator<Item = T>) -> String {
    sides.map(|side| side.to_string()).collect::<Vec<_>>().join("x")
}
