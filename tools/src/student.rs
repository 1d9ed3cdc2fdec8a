//! MobileFaceNet in torch, to be trained on: the same weights and names as
//! [`MobileFaceNet`], forward and backward.

use crate::mobilefacenet::{Block, INPUT_SIDE, MobileFaceNet, Step, expected, steps};
use crate::weights::{Tensor as Weights, Tensors};
use anyhow::Result;
use facelatch::align::Crop;
use facelatch::models::Normalization;
use std::collections::BTreeMap;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// The network with its weights on a device.
///
/// Batch normalization keeps the statistics it came with: a few thousand photos
/// are too few to replace those of the millions it was trained on. Its weights
/// and biases learn like all others.
pub struct Student {
    /// What an optimizer moves.
    pub store: VarStore,
    tensors: BTreeMap<String, Tensor>,
    epsilon: f64,
    embedding_size: usize,
}

impl Student {
    /// A network with these weights.
    pub fn new(weights: &MobileFaceNet, device: Device) -> Self {
        let store = VarStore::new(device);
        let mut tensors = BTreeMap::new();
        for (name, _) in weights.shapes() {
            let value = &weights.tensors[&name];
            let shape: Vec<i64> = value.shape.iter().map(|side| *side as i64).collect();
            let mut path = store.root();
            let mut parts = name.split('.').peekable();
            let mut last = "";
            while let Some(part) = parts.next() {
                if parts.peek().is_some() {
                    path = path / part;
                } else {
                    last = part;
                }
            }
            let learns = !last.starts_with("running_");
            let given = Tensor::from_slice(&value.values).view(&shape[..]);
            let mut tensor =
                if learns { path.zeros(last, &shape) } else { path.zeros_no_train(last, &shape) };
            tch::no_grad(|| tensor.copy_(&given));
            tensors.insert(name, tensor);
        }
        Self { store, tensors, epsilon: weights.epsilon, embedding_size: weights.embedding_size }
    }

    /// Embeddings `N x embedding_size`, not yet of length one, of pictures
    /// `N x 3 x 112 x 112`.
    pub fn forward(&self, pictures: &Tensor) -> Tensor {
        // Channels last in memory: half again as fast on a CPU.
        let mut at = pictures.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
        for step in steps() {
            let input = at.shallow_clone();
            for (name, block) in step.blocks() {
                at = self.block(&at, &name, &block);
            }
            if let Step::Bottleneck { residual: true, .. } = step {
                at += input;
            }
        }
        let flat = at.flatten(1, -1);
        let embedding =
            flat.linear(&self.tensors["linear.weight"], self.tensors.get("linear.bias"));
        self.normalized(&embedding, "bn")
    }

    fn block(&self, input: &Tensor, name: &str, block: &Block) -> Tensor {
        let at = input.conv2d(
            &self.tensors[&format!("{name}.conv.weight")],
            None::<&Tensor>,
            [block.stride as i64; 2],
            [block.padding as i64; 2],
            [1, 1],
            block.groups as i64,
        );
        let at = self.normalized(&at, &format!("{name}.bn"));
        if block.prelu { at.prelu(&self.tensors[&format!("{name}.prelu.weight")]) } else { at }
    }

    fn normalized(&self, input: &Tensor, name: &str) -> Tensor {
        let of = |what: &str| self.tensors.get(&format!("{name}.{what}"));
        input.batch_norm(
            of("weight"),
            of("bias"),
            of("running_mean"),
            of("running_var"),
            false,
            0.0,
            self.epsilon,
            false,
        )
    }

    /// Moves every weight a share of the way to another network's.
    pub fn approach(&mut self, other: &Student, share: f64) {
        tch::no_grad(|| {
            for (name, tensor) in &mut self.tensors {
                if let Some(target) = other.tensors.get(name) {
                    let way = target - &*tensor;
                    let _ = tensor.g_add_(&(way * share));
                }
            }
        });
    }

    /// The weights as they are now.
    pub fn weights(&self) -> Result<MobileFaceNet> {
        let mut tensors = Tensors::new();
        for (name, tensor) in &self.tensors {
            let shape = tensor.size().iter().map(|side| *side as usize).collect();
            let flat = tensor.detach().to_device(Device::Cpu).contiguous().flatten(0, -1);
            tensors.insert(name.clone(), Weights { shape, values: Vec::try_from(flat)? });
        }
        Ok(MobileFaceNet { tensors, epsilon: self.epsilon, embedding_size: self.embedding_size })
    }
}

/// Crops as input pictures `N x 3 x 112 x 112`.
pub fn pictures(crops: &[&Crop], normalization: &Normalization) -> Tensor {
    let (mut all, mut one) = (Vec::new(), Vec::new());
    for crop in crops {
        normalization.planar(crop, &mut one);
        all.extend_from_slice(&one);
    }
    let side = INPUT_SIDE as i64;
    Tensor::from_slice(&all).view([-1, 3, side, side])
}

/// Rows of length one.
pub fn unit_rows(rows: &Tensor) -> Tensor {
    let length = rows.square().sum_dim_intlist([-1].as_slice(), true, Kind::Float).sqrt();
    rows / length.clamp_min(1e-12)
}

impl MobileFaceNet {
    /// Names and shapes of the tensors it holds.
    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        expected(self.embedding_size, self.tensors.contains_key("linear.bias"))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use facelatch::embed::{Embedder, Embedding};
    use facelatch::models::{ModelFile, RecognizerModel};

    /// Weights of noise that keep activations within bounds.
    pub(crate) fn noise(embedding_size: usize, seed: u32) -> MobileFaceNet {
        let mut state = seed;
        let mut next = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        let tensors = expected(embedding_size, false)
            .into_iter()
            .map(|(name, shape)| {
                let count: usize = shape.iter().product();
                let inputs = shape.iter().skip(1).product::<usize>().max(1);
                let values = (0..count)
                    .map(|_| match name.rsplit('.').next() {
                        Some("running_var") => 1.0 + next(),
                        Some("weight") if shape.len() == 1 && name.contains("bn") => 1.0 + next(),
                        Some("weight") if shape.len() == 1 => 0.25 + 0.1 * next(),
                        Some("weight") => next() * 3.4 / (inputs as f32).sqrt(),
                        _ => 0.1 * next(),
                    })
                    .collect();
                (name, Weights { shape, values })
            })
            .collect();
        MobileFaceNet { tensors, epsilon: 1e-5, embedding_size }
    }

    pub(crate) fn crop(seed: usize) -> Crop {
        let side = INPUT_SIDE;
        let pixels =
            (0..3 * side * side).map(|i| ((i * (7 + seed) + i / 97 * seed) % 256) as u8).collect();
        Crop::from_pixels(pixels).expect("112 x 112")
    }

    #[test]
    fn torch_and_the_exported_network_agree() {
        let weights = noise(32, 7);
        let student = Student::new(&weights, Device::Cpu);
        let crop = crop(3);
        let normalization = Normalization::ARCFACE;
        let torch = tch::no_grad(|| student.forward(&pictures(&[&crop], &normalization)));
        let torch: Vec<f32> = Vec::try_from(torch.flatten(0, -1)).expect("floats");
        let model = RecognizerModel {
            file: ModelFile { name: "noise.onnx".into(), bytes: weights.to_onnx().into() },
            normalization,
            embedding_size: 32,
            precision: None,
        };
        let mut embedder = Embedder::new(&model).expect("a model");
        let exported = embedder.embed(&crop).expect("an embedding");
        let similarity = exported.similarity(&Embedding::normalized(&torch));
        assert!(similarity > 0.99999, "{similarity}");
    }

    #[test]
    fn approaching_goes_its_share_of_the_way() {
        let mut student = Student::new(&noise(16, 1), Device::Cpu);
        student.approach(&Student::new(&noise(16, 2), Device::Cpu), 0.25);
        let got = student.weights().expect("weights").tensors;
        let (from, to) = (noise(16, 1).tensors, noise(16, 2).tensors);
        for (name, tensor) in &got {
            for (at, value) in tensor.values.iter().enumerate().take(100) {
                let (a, b) = (from[name].values[at], to[name].values[at]);
                assert!((value - (0.75 * a + 0.25 * b)).abs() < 1e-5, "{name}");
            }
        }
    }

    #[test]
    fn weights_come_back_as_they_went_in() {
        let weights = noise(16, 1);
        assert_eq!(Student::new(&weights, Device::Cpu).weights().expect("weights"), weights);
    }
}
