//! A network in whole numbers: [`super::qdq`]'s steps, each through one kernel,
//! in memory that is kept from run to run.
//!
//! A tensor holds all pictures of a batch one below the other, with one width in
//! memory. So a batch is any list of pictures: the crops of R- and O-Net, or all
//! levels of a pyramid. A layer passes over all of them in one walk, and a batch
//! that is the beginning of the last one walks a part of the same way.

use super::kernels::{CHANNELS, Filter, Kernel, Matrix, MaxPool, Row, Scratch, Walk};
use super::qdq::{self, Fault, Op, PICTURE, Target, Window};
use super::{Pictures, Values};

/// What a step runs.
enum Work {
    Matrix { matrix: Matrix, residual: Option<usize> },
    Filter(Filter),
    MaxPool(MaxPool),
}

struct Step {
    work: Work,
    window: Window,
    input: usize,
    output: Target,
    walk: Walk,
    /// Pixels of the walk up to the end of each picture.
    ends: Vec<usize>,
}

/// A tensor's place in memory.
struct Tensor {
    stored: usize,
    border: usize,
    /// The byte of zero.
    zero: u8,
    /// Which of the memories; tensors that are not needed at once share one.
    memory: usize,
    /// Pixels from one row to the next.
    pitch: usize,
    /// Of each picture: its first row with the border, height and width without.
    planes: Vec<Plane>,
}

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

/// A network that is ready to run.
pub(super) struct Int8Network {
    kernel: Kernel,
    steps: Vec<Step>,
    tensors: Vec<Tensor>,
    memories: Vec<Vec<u8>>,
    softmax: Vec<bool>,
    sides: Vec<(usize, usize)>,
    scratch: Scratch,
    heads: Vec<Values>,
}

/// The batch needs more memory than offsets can name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

impl Int8Network {
    /// Arranges the steps for a kernel.
    pub fn new(model: qdq::Model, kernel: Kernel) -> Result<Self, Fault> {
        let mut tensors = model.tensors;
        // A residual lies in memory like the output it is added to.
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
        let memories = share(&model.steps, tensors.len());
        let count = memories.iter().max().map_or(0, |last| last + 1);
        let stored: Vec<usize> = tensors.iter().map(|tensor| tensor.stored).collect();
        let tensors = tensors
            .iter()
            .zip(&memories)
            .map(|(tensor, &memory)| Tensor {
                stored: tensor.stored,
                border: tensor.border,
                zero: kernel.stored(tensor.quantization.zero_point),
                memory,
                pitch: 0,
                planes: Vec::new(),
            })
            .collect();
        let steps = model.steps.into_iter().map(|step| {
            let stored = stored[step.input];
            Step::new(step, stored, kernel)
        });
        let steps = steps.collect::<Result<_, Fault>>()?;
        let heads = model.heads.iter();
        Ok(Self {
            kernel,
            steps,
            tensors,
            memories: vec![Vec::new(); count],
            softmax: heads.clone().map(|head| head.softmax).collect(),
            sides: Vec::new(),
            scratch: Scratch::default(),
            heads: heads.map(|head| Values::new(head.channels)).collect(),
        })
    }

    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Outputs of the network for a batch.
    pub fn run(&mut self, pictures: &Pictures) -> Result<&[Values], TooLarge> {
        if !self.sides.starts_with(pictures.sides()) {
            self.arrange(pictures.sides())?;
        }
        self.fill(pictures);
        let count = pictures.sides().len();
        for step in &self.steps {
            step.run(&self.tensors, &mut self.memories, &mut self.heads, count, &mut self.scratch);
        }
        for (head, softmax) in self.heads.iter_mut().zip(&self.softmax) {
            if *softmax {
                head.softmax();
            }
        }
        Ok(&self.heads)
    }

    /// Lays out tensors and walks for pictures of these sides.
    fn arrange(&mut self, sides: &[(usize, usize)]) -> Result<(), TooLarge> {
        self.sides.clear();
        for tensor in &mut self.tensors {
            tensor.planes.clear();
        }
        self.tensors[PICTURE].lay(sides.iter().copied());
        for step in &self.steps {
            let Target::Tensor(output) = step.output else { continue };
            // A tensor is made from one before it.
            let (before, after) = self.tensors.split_at_mut(output);
            after[0].lay(before[step.input].planes.iter().map(|plane| step.output_sides(plane)));
        }
        for tensor in &self.tensors {
            let bytes = tensor.bytes(sides.len());
            if u32::try_from(bytes).is_err() {
                return Err(TooLarge);
            }
            let memory = &mut self.memories[tensor.memory];
            memory.resize(bytes.max(memory.len()), 0);
        }
        for step in &mut self.steps {
            match step.output {
                Target::Tensor(_) => {
                    step.lay(&self.tensors, 0);
                }
                Target::Head(head) => {
                    let head = &mut self.heads[head];
                    let pixels = step.lay(&self.tensors, head.channels);
                    head.values.resize((pixels * head.channels).max(head.values.len()), 0.0);
                }
            }
        }
        self.sides.extend_from_slice(sides);
        Ok(())
    }

    fn fill(&mut self, pictures: &Pictures) {
        let tensor = &self.tensors[PICTURE];
        let memory = &mut self.memories[tensor.memory];
        tensor.clear_border(memory, pictures.sides().len());
        // A byte is 128 more than its number.
        let flip = (128 - self.kernel.offset()) as u8;
        let mut from = pictures.values();
        for plane in &tensor.planes[..pictures.sides().len()] {
            for y in 0..plane.height {
                let (row, rest) = from.split_at(plane.width * tensor.stored);
                let at = tensor.at(plane, y, 0, 0);
                for (to, value) in memory[at..at + row.len()].iter_mut().zip(row) {
                    let byte = (value + Pictures::STEPS / 2) / Pictures::STEPS;
                    *to = byte.clamp(0, 255) as u8 ^ flip;
                }
                from = rest;
            }
        }
    }
}

/// Which memory each tensor lives in: one that no tensor still needed is in.
fn share(steps: &[qdq::Step], tensors: usize) -> Vec<usize> {
    let mut last_use = vec![0; tensors];
    for (at, step) in steps.iter().enumerate() {
        last_use[step.input] = at;
        if let Op::Matrix { residual: Some(other), .. } = step.op {
            last_use[other] = at;
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

impl Step {
    fn new(step: qdq::Step, stored: usize, kernel: Kernel) -> Result<Self, Fault> {
        let fault = |error| Fault::from((step.name.as_str(), error));
        let work = match step.op {
            Op::Matrix { layer, residual } => {
                Work::Matrix { matrix: Matrix::new(kernel, &layer).map_err(fault)?, residual }
            }
            Op::Filter { layer } => Work::Filter(Filter::new(kernel, &layer).map_err(fault)?),
            Op::MaxPool => {
                let sides = (step.window.height, step.window.width);
                Work::MaxPool(MaxPool::new(kernel, sides, step.window.stride, stored))
            }
        };
        let (window, input, output) = (step.window, step.input, step.output);
        Ok(Self { work, window, input, output, walk: Walk::default(), ends: Vec::new() })
    }

    fn output_sides(&self, plane: &Plane) -> (usize, usize) {
        let sides = (plane.height, plane.width);
        match self.work {
            Work::MaxPool(_) => qdq::pooled(&self.window, sides),
            _ => self.window.output(sides),
        }
    }

    /// The walk from the input to the output, or to a head of so many channels.
    /// Returns its pixels.
    fn lay(&mut self, tensors: &[Tensor], channels: usize) -> usize {
        let input = &tensors[self.input];
        let Window { height, width, stride, padding } = self.window;
        let offset = |pixels: usize| (pixels * input.stored) as u32;
        // Offsets fit 32 bits: the memories they lie in were checked to.
        let rows = (0..height).map(|y| y * input.pitch);
        match self.work {
            Work::MaxPool(_) => {}
            Work::Matrix { .. } => {
                let run = (width * input.stored).next_multiple_of(CHANNELS);
                self.walk.reset(run, rows.map(offset));
            }
            Work::Filter(_) => {
                let taps = rows.flat_map(|row| (0..width).map(move |x| row + x));
                self.walk.reset(input.stored, taps.map(offset));
            }
        }
        self.ends.clear();
        let mut pixels = 0;
        for (picture, plane) in input.planes.iter().enumerate() {
            let (rows, columns) = self.output_sides(plane);
            if !matches!(self.work, Work::MaxPool(_)) {
                for y in 0..rows {
                    for x in 0..columns {
                        let from = input.at(plane, y * stride, x * stride, padding);
                        let to = match self.output {
                            Target::Tensor(output) => {
                                let output = &tensors[output];
                                output.at(&output.planes[picture], y, x, 0)
                            }
                            Target::Head(_) => (pixels + y * columns + x) * channels,
                        };
                        self.walk.push(from as u32, to as u32);
                    }
                }
            }
            pixels += rows * columns;
            self.ends.push(pixels);
        }
        pixels
    }

    /// Computes the first pictures.
    fn run(
        &self,
        tensors: &[Tensor],
        memories: &mut [Vec<u8>],
        heads: &mut [Values],
        pictures: usize,
        scratch: &mut Scratch,
    ) {
        let pixels = 0..pictures.checked_sub(1).map_or(0, |last| self.ends[last]);
        let from = &tensors[self.input];
        let output = match self.output {
            Target::Tensor(output) => output,
            Target::Head(head) => {
                let Work::Matrix { matrix, .. } = &self.work else { return };
                let head = &mut heads[head];
                head.used = pixels.end * head.channels;
                let input = &memories[from.memory];
                return matrix.run_float(&self.walk, pixels, input, &mut head.values, scratch);
            }
        };
        let to = &tensors[output];
        // Taken out while it is written; what is read lies in other memories.
        let mut bytes = std::mem::take(&mut memories[to.memory]);
        to.clear_border(&mut bytes, pictures);
        let input = &memories[from.memory];
        match &self.work {
            Work::Matrix { matrix, residual } => {
                let residual = residual.map(|other| &memories[tensors[other].memory][..]);
                matrix.run(&self.walk, pixels, input, residual, &mut bytes, scratch);
            }
            Work::Filter(filter) => filter.run(&self.walk, pixels, input, &mut bytes),
            Work::MaxPool(pool) => {
                for (plane, target) in from.planes.iter().zip(&to.planes).take(pictures) {
                    for y in 0..target.height {
                        let source = from.at(plane, y * self.window.stride, 0, 0);
                        let rows = plane.height - y * self.window.stride;
                        let row = Row { source, rows, columns: plane.width, pitch: from.pitch };
                        let at = to.at(target, y, 0, 0);
                        let end = at + target.width * to.stored;
                        pool.run(&row, input, &mut bytes[at..end]);
                    }
                }
            }
        }
        memories[to.memory] = bytes;
    }
}
