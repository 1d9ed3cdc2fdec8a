//! The quantized part of a network as a program: [`super::qdq`]'s steps, each run by one
//! kernel, in memory that is kept from run to run.
//!
//! A tensor holds all pictures of a batch one below the other, with one width in memory. So
//! a batch is any list of pictures of any sides: the crops of R- and O-Net, or all levels of
//! a pyramid. A layer processes all of them in one walk. A batch that is the beginning of
//! the last one walks a part of the same way.

mod step;

use super::Batch;
use super::kernels::Kernel;
use super::qdq::{self, Fault, Model, Op, Output, PICTURE, Quantization, Target};
use std::sync::Arc;
use step::{Route, Step, Working};
use thiserror::Error;
use tract_core::internal::{Tensor as TractTensor, TractResult, anyhow};

/// A tensor's place in memory. Pitch and planes depend on the batch.
#[derive(Clone)]
struct Tensor {
    channels: usize,
    stored: usize,
    border: usize,
    /// The byte that stands for zero.
    zero: u8,
    quantization: Quantization,
    /// Number of its memory. Tensors that are not needed at the same time share one.
    memory: usize,
    /// Pixels from one row to the next.
    pitch: usize,
    /// Place of each picture.
    planes: Vec<Plane>,
}

/// First row of a picture with its border, and height and width without.
#[derive(Clone, Copy, Default)]
struct Plane {
    top: usize,
    height: usize,
    width: usize,
}

impl Tensor {
    /// Offset of a pixel, which may lie in the border.
    fn at(&self, plane: &Plane, y: usize, x: usize, margin: usize) -> usize {
        let row = plane.top + self.border - margin + y;
        (row * self.pitch + self.border - margin + x) * self.stored
    }

    fn bytes(&self, pictures: usize) -> usize {
        let end = self.planes[..pictures]
            .last()
            .map_or(0, |plane| plane.top + plane.height + 2 * self.border);
        end * self.pitch * self.stored + SLACK
    }
}

/// Kernels read whole groups, the last of which may reach over the last pixel.
const SLACK: usize = 16;

/// The steps with packed weights. Programs are shared; the memory of a run is apart.
pub(super) struct Program {
    kernel: Kernel,
    steps: Vec<Step>,
    tensors: Vec<Tensor>,
    /// Number of memories.
    memories: usize,
    outputs: Vec<Output>,
}

/// What a program keeps from run to run.
pub(super) struct Memory {
    program: Arc<Program>,
    routes: Vec<Route>,
    tensors: Vec<Tensor>,
    memories: Vec<Vec<u8>>,
    /// Sides of the batch that everything is laid out for.
    sides: Vec<(usize, usize)>,
    working: Working,
    /// The last run's outputs. One that nobody holds any more is used again.
    outputs: Vec<Arc<TractTensor>>,
}

/// The batch needs more memory than offsets can name.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("the batch is too large")]
pub(super) struct TooLarge;

impl Program {
    /// Packs the weights for a kernel.
    pub fn new(model: Model, kernel: Kernel) -> Result<Self, Fault> {
        let mut tensors = model.tensors;
        // A residual lies in memory like the output that it is added to.
        loop {
            let mut same = true;
            for step in &model.steps {
                let (Op::Matrix { residual: Some(other), .. }, Target::Tensor(output)) =
                    (&step.op, step.output)
                else {
                    continue;
                };
                let border = tensors[*other].border.max(tensors[output].border);
                for tensor in [*other, output] {
                    same &= tensors[tensor].border == border;
                    tensors[tensor].border = border;
                }
            }
            if same {
                break;
            }
        }
        let memories = share(&model.steps, &model.outputs, tensors.len());
        let count = memories.iter().max().map_or(0, |last| last + 1);
        let steps = model.steps.into_iter().map(|step| Step::new(step, &tensors, kernel));
        let steps = steps.collect::<Result<_, Fault>>()?;
        let tensors = tensors
            .iter()
            .zip(&memories)
            .map(|(tensor, &memory)| Tensor {
                channels: tensor.channels,
                stored: tensor.stored,
                border: tensor.border,
                zero: kernel.stored(tensor.quantization.zero_point),
                quantization: tensor.quantization,
                memory,
                pitch: 0,
                planes: Vec::new(),
            })
            .collect();
        Ok(Self { kernel, steps, tensors, memories: count, outputs: model.outputs })
    }

    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// Channels of a tensor.
    pub fn channels(&self, tensor: usize) -> usize {
        self.tensors[tensor].channels
    }
}

impl Memory {
    pub fn new(program: &Arc<Program>) -> Self {
        let empty = || Arc::new(TractTensor::default());
        Self {
            program: Arc::clone(program),
            routes: program.steps.iter().map(|_| Route::default()).collect(),
            tensors: program.tensors.clone(),
            memories: vec![Vec::new(); program.memories],
            sides: Vec::new(),
            working: Working::default(),
            outputs: program.outputs.iter().map(|_| empty()).collect(),
        }
    }

    /// The program that runs in this memory.
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// Runs the program on a batch: the pixels of all pictures, and for each its first
    /// pixel, height and width. Heads are `places x channels`, activations
    /// `pictures x channels x height x width`, for which all pictures must have one size.
    pub fn run(
        &mut self,
        pixels: &[i16],
        pictures: impl Iterator<Item = (usize, usize, usize)> + Clone,
    ) -> TractResult<&[Arc<TractTensor>]> {
        let sides = pictures.clone().map(|(_, height, width)| (height, width));
        let count = sides.clone().count();
        if count > self.sides.len() || !sides.clone().eq(self.sides[..count].iter().copied()) {
            self.arrange(sides)?;
        }
        self.fill(pixels, pictures);
        let program = Arc::clone(&self.program);
        for (step, route) in program.steps.iter().zip(&self.routes) {
            let (tensors, working) = (&self.tensors, &mut self.working);
            match step.output {
                Target::Tensor(to) => {
                    step.run(route, tensors, &mut self.memories, &tensors[to], count, working);
                }
                Target::Head(head) => {
                    let Output::Head { channels, softmax } = program.outputs[head] else {
                        continue;
                    };
                    let places = route.pixels(count);
                    let out = room(&mut self.outputs[head], &[places, channels])?;
                    step.run_head(route, tensors, &self.memories, places, out, working);
                    if softmax {
                        soften(out, channels);
                    }
                }
            }
        }
        for (output, kept) in program.outputs.iter().zip(&mut self.outputs) {
            if let Output::Activation { tensor } = *output {
                let tensor = &self.tensors[tensor];
                let plane = tensor.planes.first().copied().unwrap_or_default();
                let shape = [count, tensor.channels, plane.height, plane.width];
                let memory = &self.memories[tensor.memory];
                tensor.dequantize(program.kernel, memory, count, room(kept, &shape)?);
            }
        }
        Ok(&self.outputs)
    }

    /// Lays out tensors and walks for pictures of these sides.
    fn arrange(&mut self, sides: impl Iterator<Item = (usize, usize)> + Clone) -> TractResult<()> {
        self.sides.clear();
        for tensor in &mut self.tensors {
            tensor.planes.clear();
        }
        let program = Arc::clone(&self.program);
        self.tensors[PICTURE].lay(sides.clone());
        for step in &program.steps {
            let Target::Tensor(output) = step.output else { continue };
            // The input of a step comes before its output.
            let (before, after) = self.tensors.split_at_mut(output);
            after[0].lay(before[step.input].planes.iter().map(|plane| step.output_sides(plane)));
        }
        for step in &program.steps {
            step.check(&self.tensors)?;
        }
        let count = sides.clone().count();
        for tensor in &self.tensors {
            let bytes = tensor.bytes(count);
            if u32::try_from(bytes).is_err() {
                return Err(TooLarge.into());
            }
            let memory = &mut self.memories[tensor.memory];
            memory.resize(bytes.max(memory.len()), 0);
        }
        for (step, route) in program.steps.iter().zip(&mut self.routes) {
            route.lay(step, &self.tensors);
        }
        self.sides.extend(sides);
        Ok(())
    }

    fn fill(
        &mut self,
        pixels: &[i16],
        pictures: impl Iterator<Item = (usize, usize, usize)> + Clone,
    ) {
        let tensor = &self.tensors[PICTURE];
        let memory = &mut self.memories[tensor.memory];
        tensor.clear_border(memory, pictures.clone().count());
        // A byte is 128 more than its number.
        let flip = (128 - self.program.kernel.offset()) as u8;
        for (plane, (first, ..)) in tensor.planes.iter().zip(pictures) {
            let mut from = pixels.get(first * tensor.stored..).unwrap_or_default();
            for y in 0..plane.height {
                let Some((row, rest)) = from.split_at_checked(plane.width * tensor.stored) else {
                    return;
                };
                let at = tensor.at(plane, y, 0, 0);
                for (to, value) in memory[at..at + row.len()].iter_mut().zip(row) {
                    let byte = (value + Batch::STEPS / 2) / Batch::STEPS;
                    *to = byte.clamp(0, 255) as u8 ^ flip;
                }
                from = rest;
            }
        }
    }
}

/// The values of an output of this shape, in the memory it had if that fits and nobody
/// holds it any more.
fn room<'t>(kept: &'t mut Arc<TractTensor>, shape: &[usize]) -> TractResult<&'t mut [f32]> {
    let fits = kept.shape() == shape
        && kept.datum_type() == tract_core::internal::DatumType::F32
        && Arc::get_mut(kept).is_some();
    if !fits {
        *kept = Arc::new(TractTensor::zero::<f32>(shape)?);
    }
    let tensor = Arc::get_mut(kept).ok_or_else(|| anyhow!("an output is shared"))?;
    let view = tensor.to_plain_array_view_mut::<f32>()?;
    view.into_slice().ok_or_else(|| anyhow!("an output is not contiguous"))
}

/// Softmax over the channels of each place.
fn soften(values: &mut [f32], channels: usize) {
    for place in values.chunks_exact_mut(channels.max(1)) {
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

/// Number of the memory of each tensor. A memory is used again once nothing needs what it
/// holds.
fn share(steps: &[qdq::Step], outputs: &[Output], tensors: usize) -> Vec<usize> {
    let mut last_use = vec![0; tensors];
    for (at, step) in steps.iter().enumerate() {
        for tensor in std::iter::once(step.input).chain(step.op.others()) {
            last_use[tensor] = at;
        }
    }
    for output in outputs {
        if let Output::Activation { tensor } = output {
            last_use[*tensor] = steps.len();
        }
    }
    let mut memories = vec![0; tensors];
    // The last step that reads what a memory holds.
    let mut busy = vec![last_use.first().copied().unwrap_or(0)];
    for (at, step) in steps.iter().enumerate() {
        let Target::Tensor(output) = step.output else { continue };
        let memory = busy.iter().position(|until| *until < at).unwrap_or(busy.len());
        if memory == busy.len() {
            busy.push(0);
        }
        busy[memory] = last_use[output].max(at);
        memories[output] = memory;
    }
    memories
}

impl Tensor {
    fn lay(&mut self, sides: impl Iterator<Item = (usize, usize)>) {
        let mut top = 0;
        self.pitch = 2 * self.border;
        for (height, width) in sides {
            self.planes.push(Plane { top, height, width });
            top += height + 2 * self.border;
            self.pitch = self.pitch.max(width + 2 * self.border);
        }
    }

    /// Values as `pictures x channels x height x width`, for pictures of one size.
    fn dequantize(&self, kernel: Kernel, memory: &[u8], pictures: usize, out: &mut [f32]) {
        let Quantization { scale, zero_point } = self.quantization;
        let mut out = out.iter_mut();
        for plane in &self.planes[..pictures] {
            for channel in 0..self.channels {
                for y in 0..plane.height {
                    let row = self.at(plane, y, 0, 0) + channel;
                    let bytes = memory[row..].iter().step_by(self.stored).take(plane.width);
                    for (byte, value) in bytes.zip(&mut out) {
                        let q = byte.wrapping_sub(kernel.offset() as u8).cast_signed();
                        *value = (i32::from(q) - i32::from(zero_point)) as f32 * scale;
                    }
                }
            }
        }
    }

    /// Zeros around the pictures; the memory may have held another tensor.
    fn clear_border(&self, memory: &mut [u8], pictures: usize) {
        let (border, stored) = (self.border, self.stored);
        if border == 0 {
            return;
        }
        for plane in &self.planes[..pictures] {
            let row = |y: usize| (plane.top + y) * self.pitch * stored;
            let wide = (plane.width + 2 * border) * stored;
            for y in (0..border).chain(plane.height + border..plane.height + 2 * border) {
                memory[row(y)..row(y) + wide].fill(self.zero);
            }
            for y in border..plane.height + border {
                let (left, right) = (row(y), row(y) + (border + plane.width) * stored);
                memory[left..left + border * stored].fill(self.zero);
                memory[right..right + border * stored].fill(self.zero);
            }
        }
    }
}
