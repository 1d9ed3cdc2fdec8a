//! Networks: ONNX bytes in, a plan that tract runs on the CPU out.

pub mod kernels;
mod prelu;

use thiserror::Error;
use tract_onnx::pb;
use tract_onnx::prelude::*;

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

/// The values of one output of one run.
pub struct Output {
    tensor: TValue,
}

impl Output {
    /// Length of each axis, the batch first.
    pub fn shape(&self) -> &[usize] {
        self.tensor.shape()
    }

    /// All values, row-major.
    pub fn values(&self) -> &[f32] {
        // Checked to be plain f32 when it was made.
        self.tensor.try_as_plain_ram().and_then(|view| view.as_slice::<f32>()).unwrap_or(&[])
    }
}

/// A network, ready to run.
pub struct Network {
    file: String,
    plan: Arc<TypedRunnableModel>,
    outputs: Vec<usize>,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Network({})", self.file)
    }
}

impl Network {
    /// Reads an ONNX model of one f32 input, `batch x channels x height x width`,
    /// and checks it against what the stage needs. `file` appears in messages.
    pub fn load(file: &str, bytes: &[u8], signature: &Signature) -> Result<Self, NetworkError> {
        let not_onnx = |reason: String| NetworkError::NotOnnx { file: file.to_owned(), reason };
        let onnx = prelu::with_own_prelu(tract_onnx::onnx());
        let proto = onnx
            .proto_model_for_read(&mut &bytes[..])
            .map_err(|error| not_onnx(format!("{error:#}")))?;
        let Some(graph) = &proto.graph else {
            return Err(not_onnx("it holds no graph".to_owned()));
        };
        check_input(file, graph, signature)?;

        let prepare = |error: TractError| NetworkError::Prepare {
            file: file.to_owned(),
            reason: format!("{error:#}"),
        };
        let mut model = onnx.model_for_proto_model(&proto).map_err(prepare)?;
        let shape: TVec<TDim> = signature
            .input
            .iter()
            .map(|side| match side {
                Side::Fixed(n) => n.to_dim(),
                Side::Free(letter) => model.symbols.sym(&letter.to_string()).to_dim(),
            })
            .collect();
        model
            .set_input_fact(0, InferenceFact::dt_shape(f32::datum_type(), shape))
            .map_err(prepare)?;
        let model = model.into_optimized().map_err(prepare)?;
        check_outputs(file, &model, signature)?;
        let plan = model.into_runnable().map_err(prepare)?;
        Ok(Self { file: file.to_owned(), plan, outputs: signature.outputs.clone() })
    }

    /// Runs the network on `values`, row-major in `shape`.
    pub fn run(&self, shape: &[usize; 4], values: &[f32]) -> Result<Vec<Output>, NetworkError> {
        let run = |error: TractError| NetworkError::Run {
            file: self.file.clone(),
            reason: format!("{error:#}"),
        };
        let input = Tensor::from_shape(shape, values).map_err(run)?;
        let outputs = self.plan.run(tvec!(input.into())).map_err(run)?;
        for (output, &channels) in outputs.iter().zip(&self.outputs) {
            let plain =
                output.try_as_plain_ram().and_then(|view| view.as_slice::<f32>().map(<[f32]>::len));
            if plain.is_err() || output.shape().get(1) != Some(&channels) {
                return Err(NetworkError::Outputs {
                    file: self.file.clone(),
                    got: format!("an output is {:?}", output.shape()),
                    expected: format!("{channels} f32 values on axis 1"),
                });
            }
        }
        Ok(outputs.into_iter().map(|tensor| Output { tensor }).collect())
    }

    /// The file's name, as the user knows it.
    pub fn file(&self) -> &str {
        &self.file
    }
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

fn check_outputs(
    file: &str,
    model: &TypedModel,
    signature: &Signature,
) -> Result<(), NetworkError> {
    let mut got = Vec::new();
    let mut fits = model.outputs.len() == signature.outputs.len();
    for (outlet, &channels) in model.outputs.iter().zip(&signature.outputs) {
        match model.outlet_fact(*outlet) {
            Ok(fact) => {
                fits &= fact.datum_type == f32::datum_type()
                    && fact.shape.get(1).is_some_and(|side| *side == channels.to_dim());
                got.push(join(fact.shape.iter()));
            }
            Err(_) => fits = false,
        }
    }
    if fits {
        return Ok(());
    }
    Err(NetworkError::Outputs {
        file: file.to_owned(),
        got: format!("{} outputs ({})", model.outputs.len(), got.join(", ")),
        expected: format!(
            "{} with {:?} values on axis 1",
            signature.outputs.len(),
            signature.outputs
        ),
    })
}

fn join<T: std::fmt::Display>(sides: impl Iterator<Item = T>) -> String {
    sides.map(|side| side.to_string()).collect::<Vec<_>>().join("x")
}
