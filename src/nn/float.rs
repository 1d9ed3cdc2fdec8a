//! Networks in 32-bit floating point, through tract.

use super::{NetworkError, Normalization, Pictures, Side, Signature, Values, join, prelu};
use tract_onnx::pb;
use tract_onnx::prelude::*;

/// The ONNX message in `bytes`.
pub(super) fn proto(file: &str, bytes: &[u8]) -> Result<pb::ModelProto, NetworkError> {
    tract_onnx::onnx().proto_model_for_read(&mut &bytes[..]).map_err(|error| {
        NetworkError::NotOnnx { file: file.to_owned(), reason: format!("{error:#}") }
    })
}

/// A plan of tract's with its input and outputs.
pub(super) struct FloatNetwork {
    plan: Arc<TypedRunnableModel>,
    normalization: Normalization,
    /// Whether it takes several pictures at once, all of one size.
    batches: bool,
    input: Vec<f32>,
    outputs: Vec<Values>,
}

impl FloatNetwork {
    pub fn load(
        file: &str,
        proto: &pb::ModelProto,
        signature: &Signature,
        normalization: &Normalization,
    ) -> Result<Self, NetworkError> {
        let onnx = prelu::with_own_prelu(tract_onnx::onnx());
        let prepare = |error: TractError| NetworkError::Prepare {
            file: file.to_owned(),
            reason: format!("{error:#}"),
        };
        let mut model = onnx.model_for_proto_model(proto).map_err(prepare)?;
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
        Ok(Self {
            plan: model.into_runnable().map_err(prepare)?,
            normalization: *normalization,
            batches: matches!(signature.input[0], Side::Free(_)),
            input: Vec::new(),
            outputs: signature.outputs.iter().map(|channels| Values::new(*channels)).collect(),
        })
    }

    pub fn run(&mut self, file: &str, pictures: &Pictures) -> Result<&[Values], NetworkError> {
        for output in &mut self.outputs {
            output.values.clear();
        }
        let mut values = pictures.values();
        let mut sides = pictures.sides();
        while let Some(&(height, width)) = sides.first() {
            let same = sides.iter().take_while(|other| **other == (height, width)).count();
            let count = if self.batches { same } else { 1 };
            let (these, rest) = values.split_at(count * height * width * Pictures::PIXEL);
            self.input.clear();
            for picture in these.chunks_exact((height * width * Pictures::PIXEL).max(1)) {
                for channel in 0..3 {
                    let (mean, std) = (self.normalization.mean, self.normalization.std);
                    let pixels = picture.chunks_exact(Pictures::PIXEL);
                    self.input.extend(pixels.map(|pixel| {
                        let value = f32::from(pixel[channel]) / f32::from(Pictures::STEPS);
                        (value - mean[channel]) / std[channel]
                    }));
                }
            }
            self.run_some(file, [count, 3, height, width])?;
            (sides, values) = (&sides[count..], rest);
        }
        for output in &mut self.outputs {
            output.used = output.values.len();
        }
        Ok(&self.outputs)
    }

    fn run_some(&mut self, file: &str, shape: [usize; 4]) -> Result<(), NetworkError> {
        let run = |error: TractError| NetworkError::Run {
            file: file.to_owned(),
            reason: format!("{error:#}"),
        };
        let input = Tensor::from_shape(&shape, &self.input).map_err(run)?;
        let outputs = self.plan.run(tvec!(input.into())).map_err(run)?;
        for (tensor, output) in outputs.iter().zip(&mut self.outputs) {
            let view = tensor.try_as_plain_ram().map_err(run)?;
            let values = view.as_slice::<f32>().map_err(run)?;
            let channels = output.channels;
            if tensor.shape().get(1) != Some(&channels) {
                return Err(NetworkError::Outputs {
                    file: file.to_owned(),
                    got: format!("an output is {:?}", tensor.shape()),
                    expected: format!("{channels} f32 values on axis 1"),
                });
            }
            // Channels last.
            let plane: usize = tensor.shape()[2..].iter().product();
            for picture in values.chunks_exact((channels * plane).max(1)) {
                for place in 0..plane {
                    output
                        .values
                        .extend((0..channels).map(|channel| picture[channel * plane + place]));
                }
            }
        }
        Ok(())
    }
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
