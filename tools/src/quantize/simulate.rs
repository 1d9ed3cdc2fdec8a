//! Networks in torch: in floating point, or with simulated quantization, so that ranges
//! can be judged and weights trained.
//!
//! Rounding passes gradients through unchanged (Bengio, Léonard and Courville,
//! "Estimating or propagating gradients through stochastic neurons", 2013). Weights are
//! held in units of their channel's scale, so that one learning rate suits all of them,
//! however far equalization has spread the channels.

use super::affine::{Affine, WEIGHT_LIMIT, floats};
use super::graph::{Finish, Graph, Op, PerChannel};
use anyhow::Result;
use tch::nn::{Init, Path, VarStore};
use tch::{Device, Kind, Tensor};

/// A network with the scales of its 8-bit form.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// Weights in floating point. Only the nearest multiple of the scale counts.
    pub graph: Graph,
    /// How the picture is stored.
    pub picture: Affine,
    /// Scales of the weights of each step, one per output channel; empty for a step
    /// without weights.
    pub weight_scales: Vec<Vec<f32>>,
    /// How the output of each step is stored; `None` if it ends in floating point.
    pub activations: Vec<Option<Affine>>,
}

impl Quantized {
    /// How the input of a step is stored.
    pub fn input_of(&self, step: usize) -> Affine {
        let stored = self.graph.steps[step].input.and_then(|input| self.activations[input]);
        stored.unwrap_or(self.picture)
    }
}

/// Groups of variables, each with its own learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learns {
    /// Weights and biases, in units of their scales.
    Units = 0,
    /// Logarithms of the scales of weights and activations, and PReLU slopes.
    Scales = 1,
}

/// A network that can be run and trained.
pub struct Simulation {
    /// The variables that an optimizer updates.
    pub store: VarStore,
    graph: Graph,
    picture: Affine,
    layers: Vec<Layer>,
    /// The last step that reads each step's output.
    last_reader: Vec<usize>,
}

/// The tensors of one step.
#[derive(Default)]
struct Layer {
    weight: Option<Tensor>,
    bias: Option<Tensor>,
    /// Logarithm of the weights' scales, and the value of one unit of bias; `None` in
    /// floating point.
    steps: Option<(Tensor, Tensor)>,
    slopes: Option<Tensor>,
    /// Logarithm of the output's scale, and its zero point.
    output: Option<(Tensor, Tensor)>,
}

impl Simulation {
    /// The floating-point network.
    pub fn float(graph: &Graph, device: Device) -> Self {
        Self::build(graph, Affine::PICTURE, device, |_| None, |_| None)
    }

    /// The network with simulated quantization. Biases are not rounded, because they are
    /// stored in 32 bits.
    pub fn quantized(quantized: &Quantized, device: Device) -> Self {
        Self::build(
            &quantized.graph,
            quantized.picture,
            device,
            |at| Some((&quantized.weight_scales[at][..], quantized.input_of(at))),
            |at| quantized.activations[at],
        )
    }

    fn build<'q>(
        graph: &Graph,
        picture: Affine,
        device: Device,
        scales: impl Fn(usize) -> Option<(&'q [f32], Affine)>,
        stored: impl Fn(usize) -> Option<Affine>,
    ) -> Self {
        let store = VarStore::new(device);
        let layers = graph
            .steps
            .iter()
            .enumerate()
            .map(|(at, step)| {
                let path = store.root() / at;
                let of = |values: &[f32]| Tensor::from_slice(values).to_device(device);
                let output = stored(at).map(|stored| {
                    let scale = of(&[stored.scale]).log();
                    let scale = learned(&path, "scale", &scale, Learns::Scales);
                    (scale, of(&[f32::from(stored.zero_point)]))
                });
                let linear = match &step.op {
                    Op::Linear(linear) => linear,
                    // The maximum of some bytes is one of them.
                    Op::MaxPool { .. } => return Layer::default(),
                    Op::MeanPool | Op::Gate { .. } => return Layer { output, ..Layer::default() },
                };
                let shape: Vec<i64> = linear.weight.shape.iter().map(|side| *side as i64).collect();
                let mut rows = vec![1; shape.len()];
                rows[0] = -1;
                let mut weight = of(&linear.weight.values).view(&shape[..]);
                let mut bias = of(&linear.bias);
                let mut steps = None;
                if let Some((scales, input)) = scales(at) {
                    let unit = of(scales);
                    weight /= unit.view(&rows[..]);
                    // The effect of one unit of weight on the largest input.
                    let bias_unit = &unit * (f64::from(input.scale) * WEIGHT_LIMIT);
                    bias /= &bias_unit;
                    let logarithm = learned(&path, "weight_scale", &unit.log(), Learns::Scales);
                    steps = Some((logarithm, bias_unit));
                }
                let slopes = linear.slopes.as_ref().map(|slopes| match linear.is_relu() {
                    true => of(slopes),
                    false => learned(&path, "slopes", &of(slopes), Learns::Scales),
                });
                Layer {
                    weight: Some(learned(&path, "weight", &weight, Learns::Units)),
                    bias: Some(learned(&path, "bias", &bias, Learns::Units)),
                    steps,
                    slopes,
                    output,
                }
            })
            .collect();
        let last_reader = (0..graph.steps.len())
            .map(|at| graph.readers(at).last().unwrap_or(usize::MAX))
            .collect();
        Self { store, graph: graph.clone(), picture, layers, last_reader }
    }

    /// How the picture is stored, if the network is quantized.
    pub fn picture(&self) -> Affine {
        self.picture
    }

    /// The outputs for pictures `N x 3 x H x W`, normalized as the network expects.
    /// `watch` is called with the index and the output of each step.
    pub fn forward(&self, pictures: &Tensor, mut watch: impl FnMut(usize, &Tensor)) -> Vec<Tensor> {
        let pictures = self.entering(pictures);
        let mut values: Vec<Option<Tensor>> = Vec::with_capacity(self.layers.len());
        for at in 0..self.layers.len() {
            let sums = self.sums(at, &pictures, &values);
            let output = self.finished(at, sums, &values);
            watch(at, &output);
            values.push(Some(output));
            self.forget(at, &mut values);
        }
        self.graph.outputs.iter().filter_map(|(_, head)| values[*head].take()).collect()
    }

    /// Normalized pictures as the first layers read them.
    pub fn entering(&self, pictures: &Tensor) -> Tensor {
        let channels = |values: &[f32; 3]| {
            Tensor::from_slice(values).to_device(pictures.device()).view([1, 3, 1, 1])
        };
        channels_last(&match &self.graph.start {
            Some(PerChannel { factors, terms }) => pictures * channels(factors) + channels(terms),
            None => pictures.shallow_clone(),
        })
    }

    /// First half of a step: weights times input plus bias, pooling, or input times gate.
    pub fn sums(&self, at: usize, pictures: &Tensor, values: &[Option<Tensor>]) -> Tensor {
        let step = &self.graph.steps[at];
        // Steps read earlier outputs, which are kept until their last reader has run.
        let input = step.input.and_then(|input| values[input].as_ref()).unwrap_or(pictures);
        let linear = match &step.op {
            Op::Linear(linear) => linear,
            Op::MaxPool { side, stride } => {
                let (side, stride) = (*side as i64, *stride as i64);
                return input.max_pool2d([side; 2], [stride; 2], [0, 0], [1, 1], true);
            }
            Op::MeanPool => return input.mean_dim([2i64, 3].as_slice(), true, Kind::Float),
            Op::Gate { gate, .. } => {
                // The gate is kept, because this step reads it.
                return values[*gate].as_ref().map_or_else(|| input.copy(), |gate| input * gate);
            }
        };
        let (weight, bias) = self.layers[at].weights();
        match linear.conv {
            Some(conv) => input.conv2d(
                &weight,
                Some(bias),
                [conv.stride as i64; 2],
                [conv.padding as i64; 2],
                [1, 1],
                conv.groups as i64,
            ),
            None => input.flatten(1, -1).linear(&weight, Some(bias)),
        }
    }

    /// Second half of a step: PReLU, residual, softmax or sigmoid, and rounding to bytes.
    pub fn finished(&self, at: usize, sums: Tensor, values: &[Option<Tensor>]) -> Tensor {
        let layer = &self.layers[at];
        let mut output = match &layer.slopes {
            Some(slopes) => sums.prelu(slopes),
            None => sums,
        };
        let (residual, finish) = match &self.graph.steps[at].op {
            Op::Linear(linear) => (linear.residual, linear.finish.as_ref()),
            Op::Gate { residual, .. } => (*residual, None),
            Op::MaxPool { .. } | Op::MeanPool => (None, None),
        };
        if let Some(residual) = residual.and_then(|residual| values[residual].as_ref()) {
            output += residual;
        }
        match finish {
            Some(Finish::Softmax(_)) => output = output.softmax(1, Kind::Float),
            Some(Finish::Sigmoid(_)) => output = output.sigmoid(),
            None => {}
        }
        match &layer.output {
            Some((scale, zero_point)) => output.internal_fake_quantize_learnable_per_tensor_affine(
                &scale.exp(),
                zero_point,
                Affine::LOWEST,
                Affine::HIGHEST,
                // Keeps a scale from moving faster than a single value (Esser et al.,
                // "Learned step size quantization", 2020).
                1.0 / (output.numel() as f64 * Affine::HIGHEST as f64).sqrt(),
            ),
            None => output,
        }
    }

    /// Drops the outputs that no later step reads.
    pub fn forget(&self, at: usize, values: &mut [Option<Tensor>]) {
        for (value, last) in values.iter_mut().zip(&self.last_reader) {
            if *last == at {
                *value = None;
            }
        }
    }

    /// Adds `by` to the biases of a step, in real units.
    pub fn shift(&self, at: usize, by: &Tensor) {
        let Layer { bias: Some(bias), steps, .. } = &self.layers[at] else { return };
        tch::no_grad(|| {
            let by = match steps {
                Some((_, unit)) => by / unit,
                None => by.shallow_clone(),
            };
            let _ = bias.shallow_clone().g_add_(&by);
        });
    }

    /// Moves every variable by a share of the way to that of another simulation of the
    /// same network.
    pub fn approach(&mut self, other: &Self, share: f64) {
        let targets = other.store.variables();
        tch::no_grad(|| {
            for (name, mut variable) in self.store.variables() {
                if let Some(target) = targets.get(&name) {
                    let way = target - &variable;
                    let _ = variable.g_add_(&(way * share));
                }
            }
        });
    }

    /// The network with the current weights and scales.
    pub fn to_quantized(&self) -> Result<Quantized> {
        let mut graph = self.graph.clone();
        let mut weight_scales = vec![Vec::new(); self.layers.len()];
        let mut activations = vec![None; self.layers.len()];
        for (at, linear) in graph.linears_mut() {
            let layer = &self.layers[at];
            let (Some(weight), Some(bias)) = (&layer.weight, &layer.bias) else { continue };
            // Copies, because a detached tensor still shares memory.
            let (mut weight, mut bias) = (weight.detach().copy(), bias.detach().copy());
            if let Some((scale, bias_unit)) = &layer.steps {
                let scale = scale.detach().exp();
                weight_scales[at] = floats(&scale)?;
                weight *= scale.view([vec![-1], vec![1; weight.dim() - 1]].concat().as_slice());
                bias *= bias_unit;
            }
            linear.weight.values = floats(&weight)?;
            linear.bias = floats(&bias)?;
            linear.slopes = layer.slopes.as_ref().map(floats).transpose()?;
        }
        for (activation, layer) in activations.iter_mut().zip(&self.layers) {
            *activation = layer.output.as_ref().map(|(scale, zero_point)| Affine {
                scale: scale.detach().exp().double_value(&[0]) as f32,
                zero_point: zero_point.double_value(&[0]) as i8,
            });
        }
        for (at, step) in graph.steps.iter().enumerate() {
            if let (Op::MaxPool { .. }, Some(input)) = (&step.op, step.input) {
                activations[at] = activations[input];
            }
        }
        Ok(Quantized { graph, picture: self.picture, weight_scales, activations })
    }
}

impl Layer {
    /// The weights, rounded if quantized, and the biases, both in real units.
    fn weights(&self) -> (Tensor, Tensor) {
        let (Some(weight), Some(bias)) = (&self.weight, &self.bias) else {
            return (Tensor::zeros([0], (Kind::Float, Device::Cpu)), Tensor::new());
        };
        let Some((scale, bias_unit)) = &self.steps else {
            return (weight.shallow_clone(), bias.shallow_clone());
        };
        let limited = weight.clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT);
        let rounded = &limited + (limited.round() - &limited).detach();
        let rows = [vec![-1], vec![1; weight.dim() - 1]].concat();
        (rounded * scale.exp().view(&rows[..]), bias * bias_unit)
    }
}

fn learned(path: &Path, name: &str, value: &Tensor, group: Learns) -> Tensor {
    let path = path.set_group(group as usize);
    let mut variable = path.var(name, &value.size(), Init::Const(0.0));
    tch::no_grad(|| variable.copy_(value));
    variable
}

/// The same tensor with channels last in memory, which is half again as fast on a CPU.
pub fn channels_last(pictures: &Tensor) -> Tensor {
    pictures.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}
