//! One step of a program: its kernel and its way through the tensors.

use super::super::kernels::{
    CHANNELS, ChannelMean, Filter, Gate, GateLayer, Kernel, MAX_PIXELS, Matrix, MaxPool, Pixels,
    PixelsMut, Row, Scratch, Sigmoid, Walk,
};
use super::super::qdq::{self, Fault, Op, Target, Window};
use super::{Plane, Tensor, TooLarge};
use tract_core::internal::{TractResult, bail};

/// What a step runs.
enum Work {
    Matrix {
        matrix: Matrix,
        residual: Option<usize>,
    },
    Filter(Filter),
    MaxPool(MaxPool),
    Mean(ChannelMean),
    /// On pictures of one pixel.
    Sigmoid {
        matrix: Matrix,
        sigmoid: Sigmoid,
    },
    /// `factors` is a tensor of pictures of one pixel.
    Gate {
        gate: Gate,
        factors: usize,
        residual: Option<usize>,
    },
}

pub(super) struct Step {
    name: String,
    work: Work,
    window: Window,
    pub(super) input: usize,
    pub(super) output: Target,
}

/// Working memory of all steps.
#[derive(Default)]
pub(super) struct Working {
    scratch: Scratch,
    /// Values before a sigmoid.
    floats: Vec<f32>,
}

/// The way of a step through the tensors of a batch.
#[derive(Default)]
pub(super) struct Route {
    walk: Walk,
    /// Pixels of the walk up to the end of each picture.
    ends: Vec<usize>,
}

impl Route {
    /// Pixels of the first pictures.
    pub(super) fn pixels(&self, pictures: usize) -> usize {
        pictures.checked_sub(1).map_or(0, |last| self.ends[last])
    }

    /// Lays the walk from the input to the output.
    pub(super) fn lay(&mut self, step: &Step, tensors: &[Tensor]) {
        let input = &tensors[step.input];
        let Window { height, width, stride, padding } = step.window;
        let offset = |pixels: usize| (pixels * input.stored) as u32;
        // Offsets fit 32 bits: the memories they lie in were checked to.
        let rows = (0..height).map(|y| y * input.pitch);
        match step.work {
            Work::MaxPool(_) | Work::Mean(_) | Work::Gate { .. } => {}
            Work::Matrix { .. } | Work::Sigmoid { .. } => {
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
            let (rows, columns) = step.output_sides(plane);
            if step.walks() {
                for y in 0..rows {
                    for x in 0..columns {
                        let from = input.at(plane, y * stride, x * stride, padding);
                        let to = match (&step.work, step.output) {
                            (Work::Matrix { matrix, .. }, Target::Head(_))
                            | (Work::Sigmoid { matrix, .. }, _) => {
                                (pixels + y * columns + x) * matrix.channels()
                            }
                            (_, Target::Tensor(output)) => {
                                let output = &tensors[output];
                                output.at(&output.planes[picture], y, x, 0)
                            }
                            (_, Target::Head(_)) => continue,
                        };
                        self.walk.push(from as u32, to as u32);
                    }
                }
            }
            pixels += rows * columns;
            self.ends.push(pixels);
        }
    }
}

impl Step {
    pub(super) fn new(
        step: qdq::Step,
        tensors: &[qdq::Tensor],
        kernel: Kernel,
    ) -> Result<Self, Fault> {
        let fault = |error| Fault::from((step.name.as_str(), error));
        let input = &tensors[step.input];
        let output = match step.output {
            Target::Tensor(output) => tensors[output].quantization,
            Target::Head(_) => qdq::UNIT,
        };
        let work = match step.op {
            Op::Matrix { layer, residual } => {
                Work::Matrix { matrix: Matrix::new(kernel, &layer).map_err(fault)?, residual }
            }
            Op::Filter { layer } => Work::Filter(Filter::new(kernel, &layer).map_err(fault)?),
            Op::MaxPool => {
                let sides = (step.window.height, step.window.width);
                Work::MaxPool(MaxPool::new(kernel, sides, step.window.stride, input.stored))
            }
            Op::Mean => {
                Work::Mean(ChannelMean::new(kernel, input.stored, input.quantization, output))
            }
            Op::Sigmoid { layer } => Work::Sigmoid {
                matrix: Matrix::new(kernel, &layer).map_err(fault)?,
                sigmoid: Sigmoid::new(kernel, output),
            },
            Op::Gate { factors, residual } => {
                let layer = GateLayer {
                    channels: input.stored,
                    input: input.quantization,
                    gate: tensors[factors].quantization,
                    output,
                    residual: residual.map(|other| tensors[other].quantization),
                };
                Work::Gate { gate: Gate::new(kernel, &layer).map_err(fault)?, factors, residual }
            }
        };
        let (window, input, output) = (step.window, step.input, step.output);
        Ok(Self { name: step.name, work, window, input, output })
    }

    pub(super) fn output_sides(&self, plane: &Plane) -> (usize, usize) {
        let sides = (plane.height, plane.width);
        match self.work {
            Work::MaxPool(_) => qdq::pooled(&self.window, sides),
            Work::Mean(_) => {
                if plane.height * plane.width == 0 {
                    (0, 0)
                } else {
                    (1, 1)
                }
            }
            Work::Gate { .. } => sides,
            Work::Matrix { .. } | Work::Filter(_) | Work::Sigmoid { .. } => {
                self.window.output(sides)
            }
        }
    }

    /// Whether the kernel follows a walk.
    fn walks(&self) -> bool {
        !matches!(self.work, Work::MaxPool(_) | Work::Mean(_) | Work::Gate { .. })
    }

    /// Checks the sides of a batch, which may be free in the file.
    pub(super) fn check(&self, tensors: &[Tensor]) -> TractResult<()> {
        let input = &tensors[self.input].planes;
        let (factors, residual) = match &self.work {
            Work::Mean(_) if input.iter().any(|plane| plane.height * plane.width > MAX_PIXELS) => {
                return Err(TooLarge.into());
            }
            Work::Matrix { residual, .. } => (None, *residual),
            Work::Gate { factors, residual, .. } => (Some(*factors), *residual),
            _ => (None, None),
        };
        let other = residual.map_or(input, |other| &tensors[other].planes);
        let one = factors.map_or(input, |factors| &tensors[factors].planes);
        for ((plane, other), one) in input.iter().zip(other).zip(one) {
            let empty = one.height * one.width == 0 && plane.height * plane.width != 0;
            if (plane.height, plane.width) != (other.height, other.width) || empty {
                bail!("node {}: its inputs have different sides", self.name);
            }
        }
        Ok(())
    }

    /// Computes a head for the first pictures.
    pub(super) fn run_head(
        &self,
        route: &Route,
        tensors: &[Tensor],
        memories: &[Vec<u8>],
        pixels: usize,
        out: &mut [f32],
        working: &mut Working,
    ) {
        let Work::Matrix { matrix, .. } = &self.work else { return };
        let input = &memories[tensors[self.input].memory];
        matrix.run_float(&route.walk, 0..pixels, input, out, &mut working.scratch);
    }

    /// Computes the tensor `to` for the first pictures.
    pub(super) fn run(
        &self,
        route: &Route,
        tensors: &[Tensor],
        memories: &mut [Vec<u8>],
        to: &Tensor,
        pictures: usize,
        working: &mut Working,
    ) {
        let (pixels, walk) = (0..route.pixels(pictures), &route.walk);
        let Working { scratch, floats } = working;
        let from = &tensors[self.input];
        // Taken out while it is written; what is read lies in other memories.
        let mut bytes = std::mem::take(&mut memories[to.memory]);
        to.clear_border(&mut bytes, pictures);
        let input = &memories[from.memory];
        match &self.work {
            Work::Matrix { matrix, residual } => {
                let residual = residual.map(|other| &memories[tensors[other].memory][..]);
                matrix.run(walk, pixels, input, residual, &mut bytes, scratch);
            }
            Work::Filter(filter) => filter.run(walk, pixels, input, &mut bytes),
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
            Work::Mean(mean) => {
                for (plane, target) in from.planes.iter().zip(&to.planes).take(pictures) {
                    let Some(out) = to.pixel(target, &mut bytes) else { continue };
                    let sides = (plane.height, plane.width);
                    mean.run(sides, from.pixels(plane, input), out, scratch);
                }
            }
            Work::Sigmoid { matrix, sigmoid } => {
                let channels = matrix.channels();
                floats.resize((pixels.len() * channels).max(floats.len()), 0.0);
                matrix.run_float(walk, pixels, input, floats, scratch);
                let mut values = floats.chunks_exact(channels.max(1));
                for target in &to.planes[..pictures] {
                    let Some(out) = to.pixel(target, &mut bytes) else { continue };
                    sigmoid.run(values.next().unwrap_or_default(), out);
                }
            }
            Work::Gate { gate, factors, residual } => {
                let factors = &tensors[*factors];
                let residual = residual.map(|other| &tensors[other]);
                for (picture, plane) in from.planes[..pictures].iter().enumerate() {
                    let pixel = &factors.planes[picture];
                    if plane.height * plane.width * pixel.height * pixel.width == 0 {
                        continue;
                    }
                    let at = factors.at(pixel, 0, 0, 0);
                    let factors = &memories[factors.memory][at..at + factors.stored];
                    let residual = residual
                        .map(|other| other.pixels(&other.planes[picture], &memories[other.memory]));
                    let place = to.pixels(&to.planes[picture], &[]);
                    let (first, pitch) = (place.first, place.pitch);
                    let out = PixelsMut { bytes: &mut bytes, first, pitch };
                    let input = from.pixels(plane, input);
                    gate.run((plane.height, plane.width), factors, input, residual, out, scratch);
                }
            }
        }
        memories[to.memory] = bytes;
    }
}

impl Tensor {
    /// A picture without its border.
    fn pixels<'a>(&self, plane: &Plane, bytes: &'a [u8]) -> Pixels<'a> {
        Pixels { bytes, first: self.at(plane, 0, 0, 0), pitch: self.pitch * self.stored }
    }

    /// The stored channels of the first pixel of a picture; `None` if it has no pixels.
    fn pixel<'a>(&self, plane: &Plane, bytes: &'a mut [u8]) -> Option<&'a mut [u8]> {
        let at = self.at(plane, 0, 0, 0);
        let empty = plane.height * plane.width == 0;
        if empty { None } else { bytes.get_mut(at..at + self.stored) }
    }
}
