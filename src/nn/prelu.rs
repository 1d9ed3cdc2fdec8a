//! PReLU as one pass over the activations.
//!
//! tract expands ONNX `PRelu` into a multiplication, a comparison and a
//! selection, each with a tensor of its own: 43 % of the float time of
//! MobileFaceNet. Slopes here are negative or above one as often as not, so
//! `max(x, slope * x)` would be wrong; the sign decides.

use tract_hir::internal::*;
use tract_onnx::Onnx;

/// The ONNX reader with `PRelu` mapped to the operator of this module.
pub(super) fn with_own_prelu(mut onnx: Onnx) -> Onnx {
    onnx.op_register.insert("PRelu", |_, _| Ok((expand(OnnxPrelu), vec![])));
    onnx
}

/// `PRelu(x, slope)` as ONNX has it, before the slopes are known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct OnnxPrelu;

impl Expansion for OnnxPrelu {
    fn name(&self) -> StaticName {
        "OnnxPrelu".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 2)?;
        check_output_arity(outputs, 1)?;
        solver.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        solver.equals(&inputs[0].shape, &outputs[0].shape)?;
        Ok(())
    }

    fn wire(
        &self,
        name: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let fact = model.outlet_fact(inputs[0])?;
        ensure!(
            fact.datum_type == f32::datum_type() && fact.rank() >= 2,
            "PRelu wants f32 with a channel axis"
        );
        let channels = fact.shape[1].to_usize()?;
        let Some(slopes) = model.outlet_fact(inputs[1])?.konst.clone() else {
            bail!("PRelu wants constant slopes");
        };
        // Broadcast to the right, as ONNX does: [C], [C, 1, 1] or [1, C, 1, 1].
        let rank = fact.rank();
        let padded =
            rank.checked_sub(slopes.rank()).context("slopes have more axes than the input")?;
        let on_channels = padded <= 1 && slopes.shape().get(1 - padded) == Some(&channels);
        ensure!(
            on_channels && slopes.len() == channels,
            "PRelu wants one slope a channel: {channels} channels, slopes of shape {:?}",
            slopes.shape()
        );
        let slopes = slopes.cast_to::<f32>()?.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
        model.wire_node(name, Prelu { slopes: slopes.into() }, &inputs[..1])
    }
}

/// `x < 0 ? slope[channel] * x : x` in place, channels on axis 1.
#[derive(Clone, PartialEq)]
struct Prelu {
    slopes: Arc<[f32]>,
}

impl std::fmt::Debug for Prelu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Prelu({} channels)", self.slopes.len())
    }
}

impl Eq for Prelu {}

impl Hash for Prelu {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        for slope in self.slopes.iter() {
            slope.to_bits().hash(state);
        }
    }
}

impl Op for Prelu {
    fn name(&self) -> StaticName {
        "Prelu".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Prelu {
    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut tensor = args_1!(inputs).into_tensor();
        let plane: usize = tensor.shape()[2..].iter().product();
        let channels = self.slopes.len();
        let mut view = tensor.try_as_plain_ram_mut()?;
        let values = view.as_slice_mut::<f32>()?;
        if plane == 1 {
            for row in values.chunks_exact_mut(channels) {
                for (value, slope) in row.iter_mut().zip(self.slopes.iter()) {
                    *value = if *value < 0.0 { *value * slope } else { *value };
                }
            }
        } else if plane > 0 {
            for (index, values) in values.chunks_exact_mut(plane).enumerate() {
                let slope = self.slopes[index % channels];
                for value in values {
                    *value = if *value < 0.0 { *value * slope } else { *value };
                }
            }
        }
        Ok(tvec!(tensor.into_tvalue()))
    }

    op_out_of_plan!();
}

impl TypedOp for Prelu {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(inputs[0].without_value()))
    }

    as_op!();
}
