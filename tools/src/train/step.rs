//! One training step: forward, loss, backward, and the update of the weights.

use crate::train::loader::Batch;
use crate::train::margin::{cosines, cross_entropy};
use crate::train::recipe::{Impostors, Recipe};
use crate::train::run_folder::{Head, HeadKind};
use crate::train::sampler::{Purpose, chance, negatives};
use crate::train::sgd::{Move, Sgd};
use crate::train::tensors::unit_rows;
use crate::train::torch_net::Student;
use anyhow::{Result, bail};
use tch::{Device, Kind, Tensor};

/// Loss scaling of mixed precision: the initial factor on the loss, which keeps 16-bit
/// gradients from vanishing; the number of steps without overflow after which it doubles;
/// and the factor below which gradients overflow at any scale (Micikevicius et al.,
/// "Mixed Precision Training", 2018, section 3.2; values of PyTorch's GradScaler).
const LOSS_SCALE: f64 = 65536.0;
const STEADY_STEPS: usize = 2000;
const LEAST_LOSS_SCALE: f64 = 1.0 / 1024.0;

/// The network and the head in training.
pub(crate) struct Learner<'a> {
    pub recipe: &'a Recipe,
    pub student: Student,
    pub head: Head,
    pub sgd: Sgd,
    /// The running average, if the recipe asks for one. It is what is judged and kept.
    pub averaged: Option<(Student, Head)>,
    /// Embeddings `N x E` of the training photos by the starting weights, rows of length
    /// one.
    pub teacher: Option<Tensor>,
    /// In mixed precision: the factor on the loss, and the steps since it last changed.
    pub loss_scale: f64,
    pub steady: usize,
}

/// Mean loss and mean cosine to the teacher of a step, and its correctly classified
/// photos.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub loss: f64,
    pub hold: f64,
    pub right: usize,
}

/// The classes that one step computes logits for.
struct Classes {
    /// Leaf tensors whose gradients are computed.
    weight: Tensor,
    bias: Option<Tensor>,
    /// Rows of the head that these are; `None` for all rows.
    rows: Option<Tensor>,
    /// Labels of the photos as positions among these classes.
    labels: Tensor,
}

impl<'a> Learner<'a> {
    pub fn new(
        recipe: &'a Recipe,
        student: Student,
        head: Head,
        averaged: Option<(Student, Head)>,
        teacher: Option<Tensor>,
    ) -> Self {
        let names = ["head.weight".to_owned(), "head.bias".to_owned()];
        let of_head = names.iter().zip([Some(&head.weight), head.bias.as_ref()]);
        let of_head = of_head.filter_map(|(name, tensor)| Some((name, tensor?)));
        let sgd = Sgd::new(recipe.momentum, student.learning().chain(of_head));
        let (loss_scale, steady) = (if recipe.mixed { LOSS_SCALE } else { 1.0 }, 0);
        Self { recipe, student, head, sgd, averaged, teacher, loss_scale, steady }
    }

    /// Trains on a batch. `place` is the epoch and the step in it. If the loss is not
    /// finite, nothing changes and the returned loss is NaN.
    pub fn step(&mut self, batch: &Batch, rate: f64, place: (usize, usize)) -> Result<Outcome> {
        let device = self.head.weight.device();
        let pictures = batch.pictures.to_device(device);
        self.student.normalize_by_batch(self.recipe.batch_norm);
        let embeddings = if self.recipe.mixed {
            tch::autocast(true, || self.student.forward(&pictures)).to_kind(Kind::Float)
        } else {
            self.student.forward(&pictures)
        };
        self.student.normalize_by_batch(false);
        let classes = self.classes(batch, place)?;
        let (plain, logits) = self.logits(&embeddings, &classes);
        let loss = cross_entropy(&logits, &classes.labels, self.recipe.smoothing);
        let hold = self.teacher.as_ref().map(|teacher| {
            let index: Vec<i64> = batch.indices.iter().map(|index| *index as i64).collect();
            let taught = teacher.index_select(0, &Tensor::from_slice(&index).to_device(device));
            let cosines = (unit_rows(&embeddings) * taught).sum_dim_intlist(
                [1].as_slice(),
                false,
                Kind::Float,
            );
            cosines.mean(Kind::Float)
        });
        let mut total = loss.shallow_clone();
        if let Some(hold) = &hold {
            total = &total + (1.0 - hold) * self.recipe.hold;
        }
        let Impostors { weight, threshold } = self.recipe.impostors;
        if weight > 0.0 {
            let labels = batch.labels.to_device(device);
            total = &total + too_similar(&embeddings, &labels, threshold) * weight;
        }
        let right = plain.argmax(1, false).eq_tensor(&classes.labels).sum(Kind::Float);
        let zero = loss.zeros_like();
        // Copies all figures from the device at once.
        let figures = [&loss, hold.as_ref().unwrap_or(&zero), &right, &total];
        let figures = figures.map(|figure| figure.detach().to_kind(Kind::Double));
        let figures = Vec::<f64>::try_from(Tensor::stack(&figures, 0).to_device(Device::Cpu))?;
        let outcome = Outcome { loss: figures[0], hold: figures[1], right: figures[2] as usize };
        if !figures[3].is_finite() {
            return Ok(Outcome { loss: f64::NAN, ..outcome });
        }
        self.descend(&total, &classes, rate)?;
        Ok(outcome)
    }

    /// All classes, or those of the batch and a random sample of the others.
    fn classes(&self, batch: &Batch, (epoch, step): (usize, usize)) -> Result<Classes> {
        let device = self.head.weight.device();
        let leaf = |tensor: &Tensor| tensor.detach().set_requires_grad(true);
        let all = self.recipe.negatives >= 1.0;
        if all {
            return Ok(Classes {
                weight: leaf(&self.head.weight),
                bias: self.head.bias.as_ref().map(leaf),
                rows: None,
                labels: batch.labels.to_device(device),
            });
        }
        let count = self.head.weight.size()[0] as usize;
        let mut chance = chance(self.recipe.seed, Purpose::Negatives, epoch, step);
        let labels = Vec::<i64>::try_from(&batch.labels)?;
        let (chosen, places) = negatives(&labels, count, self.recipe.negatives, &mut chance);
        let rows = Tensor::from_slice(&chosen).to_device(device);
        let some = |tensor: &Tensor| leaf(&tensor.index_select(0, &rows));
        Ok(Classes {
            weight: some(&self.head.weight),
            bias: self.head.bias.as_ref().map(some),
            labels: Tensor::from_slice(&places).to_device(device),
            rows: Some(rows),
        })
    }

    /// Logits `N x classes` without and with the margin.
    fn logits(&self, embeddings: &Tensor, classes: &Classes) -> (Tensor, Tensor) {
        if self.head.kind == HeadKind::Softmax {
            let logits = embeddings.linear(&classes.weight, classes.bias.as_ref());
            return (logits.detach(), logits);
        }
        let cosines = cosines(embeddings, &classes.weight);
        let logits = self.recipe.margin.with_margin(&cosines, &classes.labels);
        (cosines.detach(), logits)
    }

    /// Computes the gradients and updates the weights.
    fn descend(&mut self, total: &Tensor, classes: &Classes, rate: f64) -> Result<()> {
        let mut learning: Vec<&Tensor> =
            self.student.learning().map(|(_, tensor)| tensor).collect();
        learning.push(&classes.weight);
        learning.extend(classes.bias.as_ref());
        let scaled = total * self.loss_scale;
        let mut slopes = Tensor::f_run_backward(&[scaled], &learning, false, false)?;
        drop(learning);
        let Some(factor) = self.factor(&slopes)? else { return Ok(()) };
        if factor != 1.0 {
            tch::no_grad(|| {
                for slope in &mut slopes {
                    let _ = slope.g_mul_scalar_(factor);
                }
            });
        }
        let mut slopes = slopes.iter();
        for (name, tensor) in self.student.learning_mut() {
            let Some(slope) = slopes.next() else { break };
            // Weight decay applies to layer weights. PReLU slopes, biases and
            // normalization have no reason to be small.
            let decay = if tensor.dim() > 1 { self.recipe.weight_decay } else { 0.0 };
            self.sgd.step(name, tensor, slope, Move { rate, decay });
        }
        let moves = [
            ("head.weight", Some(&mut self.head.weight), self.recipe.weight_decay),
            ("head.bias", self.head.bias.as_mut(), 0.0),
        ];
        for (name, tensor, decay) in moves {
            let (Some(tensor), Some(slope)) = (tensor, slopes.next()) else { break };
            let how = Move { rate, decay };
            match &classes.rows {
                Some(rows) => self.sgd.step_rows(name, tensor, rows, slope, how),
                None => self.sgd.step(name, tensor, slope, how),
            }
        }
        self.follow();
        Ok(())
    }

    /// Factor on the gradients. It undoes the loss scale and clips the global norm.
    /// `None` if the gradients overflowed and the step must be skipped.
    fn factor(&mut self, slopes: &[Tensor]) -> Result<Option<f64>> {
        if !self.recipe.mixed && self.recipe.clip.is_none() {
            return Ok(Some(1.0));
        }
        let lengths: Vec<Tensor> = slopes.iter().map(Tensor::norm).collect();
        let length = Tensor::stack(&lengths, 0).norm().double_value(&[]) / self.loss_scale;
        if self.recipe.mixed {
            if !length.is_finite() {
                self.loss_scale /= 2.0;
                self.steady = 0;
                if self.loss_scale < LEAST_LOSS_SCALE {
                    bail!(
                        "gradients overflow in mixed precision at any loss scale; leave out --mixed"
                    );
                }
                return Ok(None);
            }
            self.steady += 1;
        }
        let undone = 1.0 / self.loss_scale;
        if self.steady == STEADY_STEPS {
            self.loss_scale *= 2.0;
            self.steady = 0;
        }
        let most = self.recipe.clip.unwrap_or(f64::INFINITY);
        Ok(Some(if length > most { undone * most / length } else { undone }))
    }

    /// Moves the running average towards the weights.
    fn follow(&mut self) {
        let Some((student, head)) = &mut self.averaged else { return };
        student.approach(&self.student, self.recipe.average);
        approach(head, &self.head, self.recipe.average);
    }

    /// The network and the head that are judged and kept.
    pub fn kept(&self) -> (&Student, &Head) {
        match &self.averaged {
            Some((student, head)) => (student, head),
            None => (&self.student, &self.head),
        }
    }
}

/// Mean of `max(0, similarity - threshold)` over the pairs of photos of different people; 0
/// if there are none.
fn too_similar(embeddings: &Tensor, labels: &Tensor, threshold: f64) -> Tensor {
    let rows = unit_rows(embeddings);
    let excess = (rows.matmul(&rows.tr()) - threshold).clamp_min(0.0);
    let different = labels.unsqueeze(0).ne_tensor(&labels.unsqueeze(1)).to_kind(Kind::Float);
    (excess * &different).sum(Kind::Float) / different.sum(Kind::Float).clamp_min(1.0)
}

/// Moves a head by a share of the way to another.
pub(crate) fn approach(head: &mut Head, other: &Head, share: f64) {
    tch::no_grad(|| {
        let _ = head.weight.lerp_(&other.weight, share);
        if let (Some(bias), Some(other)) = (&mut head.bias, &other.bias) {
            let _ = bias.lerp_(other, share);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::face::FaceNetwork;
    use crate::networks::reid;
    use crate::train::data::tests::four_people;
    use crate::train::head::by_chance;
    use crate::train::torch_net::pictures;
    use crate::train::torch_net::tests::{crop, crop_of, noise, reid_noise};
    use facelatch::models::Channels;

    fn learner(recipe: &Recipe) -> Learner<'_> {
        let student = Student::new(&noise(16, 1), Device::Cpu);
        let head = by_chance(16, &four_people(1), recipe);
        Learner::new(recipe, student, head, None, None)
    }

    fn batch() -> Batch {
        let crops = [crop(1), crop(2)];
        Batch {
            pictures: pictures(&crops.each_ref(), Channels::Rgb, &Recipe::finetune().normalization),
            labels: Tensor::from_slice(&[0i64, 1]),
            indices: vec![0, 1],
        }
    }

    /// How far one step moves the last layer.
    fn moved(learner: &mut Learner) -> Tensor {
        let weight = |learner: &Learner| {
            let weights = learner.student.weights().expect("weights");
            crate::train::tensors::torch(&weights.tensors()["linear.weight"])
        };
        let before = weight(learner);
        let outcome = learner.step(&batch(), 0.01, (1, 0)).expect("a step");
        assert!(outcome.loss.is_finite());
        weight(learner) - before
    }

    #[test]
    fn a_loss_that_is_scaled_moves_weights_as_far_and_an_overflow_moves_nothing() {
        let plain = moved(&mut learner(&Recipe::finetune()));
        let recipe = Recipe { mixed: true, ..Recipe::finetune() };
        let mut scaled = learner(&recipe);
        let apart = (moved(&mut scaled) - &plain).norm().double_value(&[]);
        assert!(apart < 1e-4 * plain.norm().double_value(&[]), "{apart}");
        assert_eq!((scaled.loss_scale, scaled.steady), (LOSS_SCALE, 1));
        scaled.loss_scale = 1e38;
        assert_eq!(moved(&mut scaled).norm().double_value(&[]), 0.0);
        assert_eq!((scaled.loss_scale, scaled.steady), (0.5e38, 0));
        (scaled.loss_scale, scaled.steady) = (1024.0, STEADY_STEPS - 1);
        let _ = moved(&mut scaled);
        assert_eq!((scaled.loss_scale, scaled.steady), (2048.0, 0));
    }

    #[test]
    fn impostors_beyond_the_threshold_are_a_loss_that_pushes_them_apart() {
        // Cosines: 0.6 between two people, 1 within one.
        let rows = Tensor::from_slice(&[1f32, 0.0, 2.0, 0.0, 0.6, 0.8]).view([3, 2]);
        let labels = Tensor::from_slice(&[4i64, 4, 9]);
        let term = |threshold| too_similar(&rows, &labels, threshold).double_value(&[]);
        assert!((term(0.25) - 0.35).abs() < 1e-6 && term(0.7) == 0.0);
        let alone = Tensor::from_slice(&[4i64, 4, 4]);
        assert_eq!(too_similar(&rows, &alone, 0.25).double_value(&[]), 0.0);
        let rows = rows.set_requires_grad(true);
        too_similar(&rows, &labels, 0.25).backward();
        // The second number of the first photo must fall for the cosine to fall.
        assert!(rows.grad().double_value(&[0, 1]) > 0.0);
    }

    #[test]
    fn the_start_has_no_hold_term_and_weights_elsewhere_are_pulled_back_to_it() {
        let recipe = Recipe {
            hold: 1e4,
            momentum: 0.0,
            // Short steps, whatever the length of the gradients.
            clip: Some(0.01),
            ..Recipe::finetune()
        };
        for (start, other) in
            [(noise(16, 1), noise(16, 2)), (reid_noise(1).into(), reid_noise(2).into())]
        {
            let (normalization, channels) = match &start {
                FaceNetwork::MobileFaceNet(_) => (recipe.normalization, Channels::Rgb),
                FaceNetwork::Reid(_) => (reid::NORMALIZATION, Channels::Bgr),
            };
            let side = start.architecture().alignment().side;
            let crops = [crop_of(side, 1), crop_of(side, 2)];
            let batch = || Batch {
                pictures: pictures(&crops.each_ref(), channels, &normalization),
                ..batch()
            };
            let teacher = Student::new(&start, Device::Cpu);
            let teacher = unit_rows(&tch::no_grad(|| teacher.forward(&batch().pictures)));
            let mut student = Student::new(&start, Device::Cpu);
            let head = by_chance(start.embedding_size(), &four_people(1), &recipe);
            let step = |student: Student, steps: usize| -> Vec<f64> {
                let teacher = Some(teacher.shallow_clone());
                let mut learner =
                    Learner::new(&recipe, student, head.copy_to(Device::Cpu), None, teacher);
                let step = |at| learner.step(&batch(), 1.0, (1, at)).expect("a step").hold;
                (0..steps).map(step).collect()
            };
            student.approach(&Student::new(&other, Device::Cpu), 0.05);
            let cosines = step(student, 3);
            assert!(cosines[0] < 0.9999 && cosines.is_sorted(), "{cosines:?}");
            let cosine = step(Student::new(&start, Device::Cpu), 1)[0];
            assert!((cosine - 1.0).abs() < 1e-5, "{cosine}");
        }
    }

    #[test]
    fn long_slopes_are_shortened_and_short_ones_left() {
        let length = |clip| {
            let recipe = Recipe { clip, ..Recipe::finetune() };
            moved(&mut learner(&recipe)).norm().double_value(&[])
        };
        let free = length(None);
        assert!((length(Some(1e6)) - free).abs() < 1e-6 * free);
        let all = Some(1e-3);
        assert!(length(all) < 1.001e-5, "0.01 times the clipped norm");
    }

    #[test]
    fn only_layers_are_pulled_towards_zero() {
        let recipe = Recipe { weight_decay: 0.5, ..Recipe::finetune() };
        let (mut pulled, mut free) = (learner(&recipe), learner(&recipe));
        let plain = Recipe::finetune();
        free.recipe = &plain;
        let _ = (moved(&mut pulled), moved(&mut free));
        let [pulled, free] = [pulled, free]
            .map(|learner| learner.student.weights().expect("weights").tensors().clone());
        assert_ne!(pulled["conv1.conv.weight"], free["conv1.conv.weight"]);
        assert_eq!(pulled["conv1.bn.weight"], free["conv1.bn.weight"]);
        assert_eq!(pulled["conv1.prelu.weight"], free["conv1.prelu.weight"]);
    }
}
