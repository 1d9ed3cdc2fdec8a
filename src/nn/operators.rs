//! Operators of ours in a tract plan. Each plan begins with one that reads pictures:
//! [`Quantized`], a whole program on 8-bit integers, or [`Normalize`], which makes the
//! input of a network in floating point.
//!
//! Pictures enter a plan as two tensors: all pixels, and a table with the first pixel,
//! height and width of each picture. Both may be longer than the batch; the table ends at
//! the first row with a negative number. So their memory is kept from run to run.

use super::normalization::Normalization;
use super::program::{Memory, Program};
use super::qdq::Output;
use super::{Batch, PICTURE_CHANNELS};
use tract_core::internal::*;

/// Columns of the table of pictures.
pub(super) const TABLE: usize = 3;

/// Rows of the table: first pixel, height and width.
fn pictures(table: &[i64]) -> impl Iterator<Item = (usize, usize, usize)> + Clone {
    table.chunks_exact(TABLE).map_while(|row| {
        let column = |at: usize| usize::try_from(row[at]).ok();
        Some((column(0)?, column(1)?, column(2)?))
    })
}

/// The quantized part of a network: many ONNX nodes in one operator.
#[derive(Clone)]
pub(super) struct Quantized {
    pub program: Arc<Program>,
    /// Shapes of the outputs.
    pub facts: TVec<TypedFact>,
}

impl std::fmt::Debug for Quantized {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Quantized({} outputs)", self.facts.len())
    }
}

impl PartialEq for Quantized {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.program, &other.program)
    }
}

impl Eq for Quantized {}

impl Op for Quantized {
    fn name(&self) -> StaticName {
        "Quantized".into()
    }

    fn mints_runtime_symbols(&self) -> bool {
        true
    }

    op_as_typed_op!();
}

impl EvalOp for Quantized {
    fn state(&self, _: &EvalContext) -> TractResult<Option<Box<dyn OpState>>> {
        Ok(Some(Box::new(QuantizedState(Memory::new(&self.program)))))
    }

    not_out_of_plan!();
}

impl TypedOp for Quantized {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs.len() == 2, "reads pixels and a table of pictures");
        Ok(self.facts.clone())
    }

    as_op!();
}

/// The memory of a quantized program in one session.
struct QuantizedState(Memory);

impl Clone for QuantizedState {
    fn clone(&self) -> Self {
        Self(Memory::new(self.0.program()))
    }
}

impl std::fmt::Debug for QuantizedState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("QuantizedState")
    }
}

impl OpState for QuantizedState {
    fn eval(
        &mut self,
        _: &EvalContext,
        _: &dyn Op,
        inputs: TVec<TValue>,
    ) -> TractResult<TVec<TValue>> {
        let (pixels, table) = args_2!(inputs);
        let (pixels, table) = (pixels.try_as_plain_ram()?, table.try_as_plain_ram()?);
        let outputs = self.0.run(pixels.as_slice()?, pictures(table.as_slice()?))?;
        Ok(outputs.iter().map(|output| TValue::from_const(Arc::clone(output))).collect())
    }

    fn reset_lanes(&mut self, _: &[LaneId]) -> TractResult<()> {
        Ok(())
    }
}

/// Pictures of one size as normalized planes, `pictures x 3 x height x width`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Normalize {
    pub normalization: Normalization,
    /// Shape of the output.
    pub fact: TypedFact,
}

impl Eq for Normalize {}

impl Op for Normalize {
    fn name(&self) -> StaticName {
        "Normalize".into()
    }

    fn mints_runtime_symbols(&self) -> bool {
        true
    }

    op_as_typed_op!();
}

impl EvalOp for Normalize {
    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (pixels, table) = args_2!(inputs);
        let (pixels, table) = (pixels.try_as_plain_ram()?, table.try_as_plain_ram()?);
        let (pixels, table): (&[i16], &[i64]) = (pixels.as_slice()?, table.as_slice()?);
        let Normalization { mean, std } = self.normalization;
        let (_, height, width) = pictures(table).next().unwrap_or_default();
        let mut planes = Vec::new();
        for (first, ..) in pictures(table) {
            let end = (first + height * width) * Batch::PIXEL;
            let picture = pixels.get(first * Batch::PIXEL..end).context("pixels are missing")?;
            for channel in 0..PICTURE_CHANNELS {
                planes.extend(picture.chunks_exact(Batch::PIXEL).map(|pixel| {
                    let value = f32::from(pixel[channel]) / f32::from(Batch::STEPS);
                    (value - mean[channel]) / std[channel]
                }));
            }
        }
        let shape = [pictures(table).count(), PICTURE_CHANNELS, height, width];
        Ok(tvec!(Tensor::from_shape(&shape, &planes)?.into()))
    }

    op_out_of_plan!();
}

impl TypedOp for Normalize {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs.len() == 2, "reads pixels and a table of pictures");
        Ok(tvec!(self.fact.clone()))
    }

    as_op!();
}

/// An output with its channels last: `N x C x ...` becomes `places x C`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChannelsLast {
    pub channels: usize,
    /// Shape of the output.
    pub fact: TypedFact,
}

impl Op for ChannelsLast {
    fn name(&self) -> StaticName {
        "ChannelsLast".into()
    }

    fn mints_runtime_symbols(&self) -> bool {
        true
    }

    op_as_typed_op!();
}

impl EvalOp for ChannelsLast {
    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let channels = self.channels;
        ensure!(
            input.shape().get(1) == Some(&channels),
            "an output is {:?}, expected {channels} values on axis 1",
            input.shape()
        );
        let plane: usize = input.shape()[2..].iter().product();
        let values = input.try_as_plain_ram()?;
        let values: &[f32] = values.as_slice()?;
        let mut places = Vec::with_capacity(values.len());
        for picture in values.chunks_exact((channels * plane).max(1)) {
            for place in 0..plane {
                places.extend((0..channels).map(|channel| picture[channel * plane + place]));
            }
        }
        let shape = [places.len() / channels.max(1), channels];
        Ok(tvec!(Tensor::from_shape(&shape, &places)?.into()))
    }

    op_out_of_plan!();
}

impl TypedOp for ChannelsLast {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs.len() == 1, "reads one output");
        Ok(tvec!(self.fact.clone()))
    }

    as_op!();
}

/// Shape of an output of a program. `places` and free sides are known at run time.
pub(super) fn output_fact(
    program: &Program,
    output: &Output,
    symbols: &SymbolScope,
    batch: &TDim,
    sides: Option<(usize, usize)>,
) -> TypedFact {
    let free = |name: &str| symbols.new_with_prefix(name).to_dim();
    match *output {
        Output::Head { channels, .. } => f32::fact([free("places"), channels.to_dim()]),
        Output::Activation { tensor } => {
            let (height, width) = match sides {
                Some((height, width)) => (height.to_dim(), width.to_dim()),
                None => (free("height"), free("width")),
            };
            let channels = program.channels(tensor).to_dim();
            f32::fact([batch.clone(), channels, height, width])
        }
    }
}
