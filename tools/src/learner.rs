//! One step of a training: forward, loss, backward, and the moves that follow.

use crate::loader::Batch;
use crate::margin::{cosines, cross_entropy};
use crate::run::{Head, HeadKind};
use crate::sampler::{Purpose, chance, negatives};
use crate::sgd::{Move, Sgd};
use crate::student::{Student, unit_rows};
use crate::train::Recipe;
use anyhow::{Result, bail};
use tch::{Device, Kind, Tensor};

/// What losses are first multiplied by in mixed precision, lest slopes of 16 bits
/// vanish, how many steps without an overflow double it, and where it has fallen so far
/// that slopes overflow by themselves (Micikevicius et al., "Mixed Precision Training",
/// 2018, section 3.2; numbers of PyTorch's GradScaler).
const LOSS_SCALE: f64 = 65536.0;
const STEADY_STEPS: usize = 2000;
const LEAST_LOSS_SCALE: f64 = 1.0 / 1024.0;

/// Network and head while they learn.
pub(crate) struct Learner<'a> {
    pub recipe: &'a Recipe,
    pub student: Student,
    pub head: Head,
    pub sgd: Sgd,
    /// What is judged and kept, where that is no longer the same.
    pub averaged: Option<(Student, Head)>,
    /// Embeddings of length one that the starting weights give each photo, `N x E`.
    pub teacher: Option<Tensor>,
    /// In mixed precision: what losses are multiplied by, and for how many steps.
    pub loss_scale: f64,
    pub steady: usize,
}

/// What came of a step, means over its photos.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub loss: f64,
    pub hold: f64,
    pub right: usize,
}

/// The classes a step looks at.
struct Classes {
    /// Weight and bias, whose slopes are asked for.
    weight: Tensor,
    bias: Option<Tensor>,
    /// Which rows of the head they are, where they are not all.
    rows: Option<Tensor>,
    /// Places of the photos' people among them.
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

    /// Learns from a batch, unless its loss is no number: then nothing moves.
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
        let total = match &hold {
            Some(hold) => &loss + (1.0 - hold) * self.recipe.hold,
            None => loss.shallow_clone(),
        };
        let right = plain.argmax(1, false).eq_tensor(&classes.labels).sum(Kind::Float);
        let zero = loss.zeros_like();
        // One look at the device for all of it.
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

    /// All classes, or those of the batch and some others.
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

    /// Logits without and with the margin.
    fn logits(&self, embeddings: &Tensor, classes: &Classes) -> (Tensor, Tensor) {
        if self.head.kind == HeadKind::Softmax {
            let logits = embeddings.linear(&classes.weight, classes.bias.as_ref());
            return (logits.detach(), logits);
        }
        let cosines = cosines(embeddings, &classes.weight);
        let logits = self.recipe.margin.with_margin(&cosines, &classes.labels);
        (cosines.detach(), logits)
    }

    /// Slopes, and the moves they ask for.
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
            // Weights are pulled towards zero; slopes of PReLUs, biases and
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

    /// What slopes are multiplied by: undoes the loss's scale, and shortens them where
    /// they are longer together than allowed. None where they overflowed and the step
    /// is left out.
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
                    bail!("slopes overflow in mixed precision whatever the scale; leave it out");
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

    /// The running average goes its share of the way.
    fn follow(&mut self) {
        let Some((student, head)) = &mut self.averaged else { return };
        student.approach(&self.student, self.recipe.average);
        approach(head, &self.head, self.recipe.average);
    }

    /// What is judged and kept.
    pub fn kept(&self) -> (&Student, &Head) {
        match &self.averaged {
            Some((student, head)) => (student, head),
            None => (&self.student, &self.head),
        }
    }
}

/// Moves a head a share of the way to another.
pub(crate) fn approach(head: &mut Head, other: &Head, share: f64) {
    tch::no_grad(|| {
        let _ = head.weight.lerp_(&other.weight, share);
        if let (Some(bias), Some(other)) = (&mut head.bias, &other.bias) {
            let _ = bias.lerp_(other, share);
        }
    });
}
