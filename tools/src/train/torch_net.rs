//! The face recognizers in torch for training: the same weights and names as
//! [`FaceNetwork`], forward and backward.

use crate::networks::face::{Architecture, FaceNetwork};
use crate::networks::mobilefacenet::{Block, Step, steps};
use crate::train::tensors::{plain, torch};
use crate::train::torch_reid;
use crate::weights::{self, Tensors};
use anyhow::{Result, bail};
use facelatch::models::Channels;
use facelatch::nn::Normalization;
use facelatch::vision::align::Crop;
use std::collections::BTreeMap;
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// A network with its weights on a device.
///
/// By default the batch normalization of MobileFaceNet keeps the statistics of the weights, because a few
/// thousand photos are too few to replace those of the millions it was trained on. Its
/// weights and biases are trained like all others.
pub struct Student {
    /// The variables that an optimizer updates.
    pub store: VarStore,
    tensors: BTreeMap<String, Tensor>,
    /// The network without its tensors.
    network: FaceNetwork,
    /// Frozen steps, counted from the picture.
    frozen: usize,
    /// Whether batch normalization uses the statistics of the batch.
    of_batch: bool,
}

/// Share by which the running statistics of batch normalization move towards those of
/// each batch; PyTorch's default.
const STATISTICS_STEP: f64 = 0.1;

impl Student {
    /// A network with these weights.
    pub fn new(weights: &FaceNetwork, device: Device) -> Self {
        let store = VarStore::new(device);
        let mut tensors = BTreeMap::new();
        for (name, value) in weights.tensors() {
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
            let given = Tensor::from_slice(&value.values).view(&shape[..]);
            let mut tensor = if weights.architecture().is_fixed(name) {
                path.zeros_no_train(last, &shape)
            } else {
                path.zeros(last, &shape)
            };
            tch::no_grad(|| tensor.copy_(&given));
            tensors.insert(name.clone(), tensor);
        }
        let network = weights.with(Tensors::new());
        Self { store, tensors, network, frozen: 0, of_batch: false }
    }

    /// Which network it is.
    pub fn architecture(&self) -> Architecture {
        self.network.architecture()
    }

    /// Freezes the first `depth` steps of [`Architecture::steps`]. If all are frozen, only
    /// the head is trained. Fails for a larger `depth`.
    pub fn freeze(&mut self, depth: usize) -> Result<()> {
        let all = self.architecture().steps();
        if depth > all.len() {
            bail!("the network has {} steps, so {depth} cannot be frozen", all.len());
        }
        self.frozen = depth;
        let names: Vec<&String> = all.iter().take(depth).flatten().collect();
        for (name, tensor) in &mut self.tensors {
            if names.iter().any(|frozen| name.starts_with(*frozen)) {
                let _ = tensor.requires_grad_(false);
            }
        }
        Ok(())
    }

    /// Selects the statistics of batch normalization. If true, each batch is normalized
    /// by its own mean and variance, and the running statistics follow them, as in
    /// training from scratch. If false, the running statistics are used, as always
    /// outside training. Frozen steps keep theirs.
    pub fn normalize_by_batch(&mut self, of_batch: bool) {
        self.of_batch = of_batch;
    }

    /// The tensors that are trained, by name.
    pub fn learning(&self) -> impl Iterator<Item = (&String, &Tensor)> {
        self.tensors.iter().filter(|(_, tensor)| tensor.requires_grad())
    }

    /// The same, mutable.
    pub fn learning_mut(&mut self) -> impl Iterator<Item = (&String, &mut Tensor)> {
        self.tensors.iter_mut().filter(|(_, tensor)| tensor.requires_grad())
    }

    /// Embeddings `N x embedding_size` of pictures `N x 3 x side x side`, with the side,
    /// channels and normalization of the network. They are not normalized to length one.
    pub fn forward(&self, pictures: &Tensor) -> Tensor {
        // Channels last in memory are half again as fast on a CPU.
        let at = pictures.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
        match self.architecture() {
            Architecture::MobileFaceNet => self.mobilefacenet(at),
            Architecture::Reid => torch_reid::forward(&self.tensors, &at),
        }
    }

    fn mobilefacenet(&self, mut at: Tensor) -> Tensor {
        let steps = steps();
        for (number, step) in steps.iter().enumerate() {
            let of_batch = self.of_batch && number >= self.frozen;
            let input = at.shallow_clone();
            for (name, block) in step.blocks() {
                at = self.block(&at, &name, &block, of_batch);
            }
            if let Step::Bottleneck { residual: true, .. } = step {
                at += input;
            }
        }
        let flat = at.flatten(1, -1);
        let embedding =
            flat.linear(&self.tensors["linear.weight"], self.tensors.get("linear.bias"));
        self.normalized(&embedding, "bn", self.of_batch && self.frozen <= steps.len())
    }

    fn block(&self, input: &Tensor, name: &str, block: &Block, of_batch: bool) -> Tensor {
        let at = input.conv2d(
            &self.tensors[&format!("{name}.conv.weight")],
            None::<&Tensor>,
            [block.stride as i64; 2],
            [block.padding as i64; 2],
            [1, 1],
            block.groups as i64,
        );
        let at = self.normalized(&at, &format!("{name}.bn"), of_batch);
        if block.prelu { at.prelu(&self.tensors[&format!("{name}.prelu.weight")]) } else { at }
    }

    fn normalized(&self, input: &Tensor, name: &str, of_batch: bool) -> Tensor {
        let of = |what: &str| self.tensors.get(&format!("{name}.{what}"));
        input.batch_norm(
            of("weight"),
            of("bias"),
            of("running_mean"),
            of("running_var"),
            of_batch,
            STATISTICS_STEP,
            self.network.epsilon(),
            of_batch,
        )
    }

    /// Moves every weight by a share of the way to that of another network.
    pub fn approach(&mut self, other: &Student, share: f64) {
        tch::no_grad(|| {
            for (name, tensor) in &mut self.tensors {
                if let Some(target) = other.tensors.get(name) {
                    let _ = tensor.lerp_(target, share);
                }
            }
        });
    }

    /// Replaces the weights. Fails if a tensor is missing, extra, misshapen or not
    /// finite.
    pub fn restore(&mut self, weights: &Tensors) -> Result<()> {
        let shapes: Vec<(String, Vec<usize>)> = self
            .tensors
            .iter()
            .map(|(name, tensor)| {
                (name.clone(), tensor.size().iter().map(|side| *side as usize).collect())
            })
            .collect();
        weights::check("this training's network", weights, &shapes)?;
        for (name, tensor) in &mut self.tensors {
            if let Some(given) = weights.get(name) {
                tch::no_grad(|| tensor.copy_(&torch(given)));
            }
        }
        Ok(())
    }

    /// A copy of the current weights.
    pub fn weights(&self) -> Result<FaceNetwork> {
        let mut tensors = Tensors::new();
        for (name, tensor) in &self.tensors {
            tensors.insert(name.clone(), plain(tensor)?);
        }
        Ok(self.network.with(tensors))
    }
}

/// Crops as normalized input pictures `N x 3 x side x side` on the CPU. All crops must have
/// the same side.
pub fn pictures(crops: &[&Crop], channels: Channels, normalization: &Normalization) -> Tensor {
    let (mut all, mut one) = (Vec::new(), Vec::new());
    for crop in crops {
        crop.planar(channels, normalization, &mut one);
        all.extend_from_slice(&one);
    }
    let side = crops.first().map_or(0, |crop| crop.side()) as i64;
    Tensor::from_slice(&all).view([crops.len() as i64, 3, side, side])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::chance::Chance;
    use crate::networks::mobilefacenet::{INPUT_SIDE, MobileFaceNet, expected};
    use crate::networks::reid;
    use crate::networks::reid::tests::numbers;
    pub(crate) use crate::networks::reid::tests::random as reid_noise;
    use crate::weights::Tensor as Weights;
    use facelatch::models::{ModelFile, RecognizerModel};
    use facelatch::vision::embed::{Embedder, Embedding};

    /// Random weights that keep activations within bounds.
    pub(crate) fn noise(embedding_size: usize, seed: u32) -> FaceNetwork {
        let mut next = numbers(seed);
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
        MobileFaceNet { tensors, epsilon: 1e-5, embedding_size }.into()
    }

    pub(crate) fn crop(seed: usize) -> Crop {
        crop_of(INPUT_SIDE, seed)
    }

    pub(crate) fn crop_of(side: usize, seed: usize) -> Crop {
        let pixels =
            (0..3 * side * side).map(|i| ((i * (7 + seed) + i / 97 * seed) % 256) as u8).collect();
        Crop::from_pixels(side, pixels).expect("a square")
    }

    #[test]
    fn torch_and_the_exported_network_agree() {
        for (weights, normalization) in
            [(noise(32, 7), Normalization::ARCFACE), (reid_noise(7).into(), reid::NORMALIZATION)]
        {
            let student = Student::new(&weights, Device::Cpu);
            let (alignment, channels) =
                (weights.architecture().alignment(), weights.architecture().channels());
            let model = RecognizerModel {
                file: ModelFile { name: "noise.onnx".into(), bytes: weights.to_onnx().into() },
                channels,
                alignment,
                normalization,
                embedding_size: weights.embedding_size(),
                precision: None,
            };
            let mut embedder = Embedder::new(&model).expect("a model");
            for crop in [3, 4].map(|seed| crop_of(alignment.side, seed)) {
                let seen = pictures(&[&crop], channels, &normalization);
                let torch = tch::no_grad(|| student.forward(&seen));
                let torch: Vec<f32> = Vec::try_from(torch.flatten(0, -1)).expect("floats");
                let exported = embedder.embed(&crop).expect("an embedding");
                let similarity = exported.similarity(&Embedding::normalized(&torch));
                assert!(similarity > 0.99999, "{} {similarity}", weights.architecture());
            }
        }
    }

    #[test]
    fn approaching_goes_its_share_of_the_way() {
        let mut student = Student::new(&noise(16, 1), Device::Cpu);
        student.approach(&Student::new(&noise(16, 2), Device::Cpu), 0.25);
        let got = student.weights().expect("weights");
        let (from, to) = (noise(16, 1), noise(16, 2));
        let (from, to) = (from.tensors(), to.tensors());
        for (name, tensor) in got.tensors() {
            for (at, value) in tensor.values.iter().enumerate().take(100) {
                let (a, b) = (from[name].values[at], to[name].values[at]);
                assert!((value - (0.75 * a + 0.25 * b)).abs() < 1e-5, "{name}");
            }
        }
    }

    #[test]
    fn weights_come_back_as_they_went_in() {
        for weights in [noise(16, 1), reid_noise(1).into()] {
            let student = Student::new(&weights, Device::Cpu);
            assert_eq!(student.weights().expect("weights"), weights);
        }
    }

    fn batch(count: usize) -> Tensor {
        let crops: Vec<Crop> = (0..count).map(crop).collect();
        pictures(&crops.iter().collect::<Vec<_>>(), Channels::Rgb, &Normalization::ARCFACE)
    }

    #[test]
    fn frozen_steps_do_not_learn_and_keep_their_statistics() {
        let mut student = Student::new(&noise(16, 1), Device::Cpu);
        let all = student.learning().count();
        student.freeze(3).expect("steps");
        let names: Vec<&String> = student.learning().map(|(name, _)| name).collect();
        assert!(names.len() < all && names.iter().all(|name| !name.starts_with("conv_23")));
        assert!(names.iter().any(|name| name.starts_with("conv_34.conv.")), "{names:?}");
        student.normalize_by_batch(true);
        let _ = student.forward(&batch(4));
        let (after, before) = (student.weights().expect("weights"), noise(16, 1));
        let same = |name: &str| after.tensors()[name] == before.tensors()[name];
        assert!(same("conv1.bn.running_mean") && same("conv_23.project.bn.running_var"));
        assert!(!same("conv_3.model.0.conv.bn.running_mean") && !same("bn.running_var"));
        student.freeze(steps().len() + 1).expect("all");
        assert_eq!(student.learning().count(), 0);
        assert!(student.freeze(steps().len() + 2).is_err());
    }

    #[test]
    fn the_normalization_of_a_picture_is_not_trained() {
        let mut student = Student::new(&reid_noise(1).into(), Device::Cpu);
        let names = |student: &Student| -> Vec<String> {
            student.learning().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(names(&student).len(), reid::expected().len() - 2);
        student.freeze(19).expect("steps");
        assert_eq!(names(&student), ["projection.weight"]);
        student.freeze(20).expect("steps");
        assert!(names(&student).is_empty() && student.freeze(21).is_err());
    }

    #[test]
    fn a_batch_normalized_by_itself_has_mean_0_and_variance_1() {
        let network = MobileFaceNet::random(16, &mut Chance::new(1));
        let mut student = Student::new(&network.into(), Device::Cpu);
        student.normalize_by_batch(true);
        let embeddings = student.forward(&batch(8));
        let mean = embeddings.mean_dim([0].as_slice(), false, tch::Kind::Float).abs().max();
        assert!(mean.double_value(&[]) < 1e-4);
        let variance = embeddings.square().mean_dim([0].as_slice(), false, tch::Kind::Float);
        assert!((variance.mean(tch::Kind::Float).double_value(&[]) - 1.0).abs() < 0.05);
        student.normalize_by_batch(false);
        let kept = student.weights().expect("weights");
        let _ = student.forward(&batch(8));
        assert_eq!(student.weights().expect("weights"), kept);
    }

    #[test]
    fn weights_of_another_size_are_not_taken() {
        let mut student = Student::new(&noise(16, 1), Device::Cpu);
        student.restore(noise(16, 2).tensors()).expect("the same shapes");
        assert_eq!(student.weights().expect("weights"), noise(16, 2));
        let error = student.restore(noise(32, 2).tensors()).expect_err("another size").to_string();
        assert!(error.contains("linear.weight is [32, 512], expected [16, 512]"), "{error}");
    }
}
