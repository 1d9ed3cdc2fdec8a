//! Training a recognizer on, from weights that already know faces.
//!
//! Every epoch shows each photo once. The loss is ArcFace over the people of
//! the photos, plus how far an embedding has turned away from the one that the
//! starting weights, the teacher, give to the same face: a few thousand photos
//! must not undo what millions taught. What is judged and kept is a running
//! average of the weights, which wanders less than the weights themselves
//! (Polyak and Juditsky, "Acceleration of stochastic approximation by
//! averaging", 1992).

use crate::arcface::ArcFace;
use crate::metrics::Scores;
use crate::mobilefacenet::MobileFaceNet;
use crate::student::{Student, pictures, unit_rows};
use anyhow::{Result, bail};
use facelatch::align::Crop;
use facelatch::embed::Embedding;
use facelatch::models::Normalization;
use serde::Serialize;
use tch::nn::{OptimizerConfig, Sgd, VarStore};
use tch::{Device, Kind, Tensor};

/// False accept rates whose mean true accept rate judges an epoch. Rarer ones
/// would hang on two or three pairs of a fold.
pub const JUDGED_AT: [f64; 3] = [1e-2, 1e-3, 1e-4];
/// Pictures embedded at once where nothing is learned.
const EMBED_BATCH: usize = 64;
/// Brightness (in standard deviations of the normalization) and contrast are
/// varied by at most this.
const BRIGHTNESS: f64 = 0.2;
const CONTRAST: f64 = 0.2;

/// How to train.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Recipe {
    /// How often each photo is shown.
    pub epochs: usize,
    /// Photos a step.
    pub batch: usize,
    /// Step size of the network at the start; falls along half a cosine to zero.
    pub learning_rate: f64,
    /// Share of the last step that goes on.
    pub momentum: f64,
    /// Pull of the weights towards zero.
    pub weight_decay: f64,
    /// Radius of ArcFace's sphere.
    pub scale: f64,
    /// ArcFace's angle, radians.
    pub margin: f64,
    /// Weight of the term that holds embeddings to the teacher's.
    pub hold: f64,
    /// Share of the way that the running average goes towards the weights at
    /// each step, 0..=1; at 1 it is the weights themselves.
    pub average: f64,
    /// Everything random follows from it.
    pub seed: i64,
}

/// A face to learn from or to be judged on, and whose it is.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Aligned.
    pub crop: Crop,
    /// Number of the person, from 0.
    pub person: usize,
}

/// How an epoch went.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Epoch {
    /// From 1; 0 is the start.
    pub number: usize,
    /// Mean ArcFace loss; 0 at the start.
    pub loss: f64,
    /// Mean cosine to the teacher; 1 at the start.
    pub hold: f64,
    /// On the selection photos: true accept rates at [`JUDGED_AT`], mean of all
    /// pairs' rates.
    pub judged: f64,
    /// Equal error rate there.
    pub equal_error_rate: f64,
}

/// What came of it.
#[derive(Debug)]
pub struct Finetuned {
    /// Of the chosen epoch.
    pub weights: MobileFaceNet,
    /// Which one; never 0.
    pub chosen: usize,
    /// Whether it is better than the start on the selection photos.
    pub better: bool,
    /// All epochs, the start first.
    pub epochs: Vec<Epoch>,
}

/// Trains on, judging each epoch on the selection photos. The best epoch is
/// kept; where none beats the start, the first, which has gone least far.
pub fn finetune(
    start: &MobileFaceNet,
    normalization: &Normalization,
    train: &[Sample],
    select: &[Sample],
    recipe: &Recipe,
    mut told: impl FnMut(&Progress),
) -> Result<Finetuned> {
    let people = train.iter().map(|sample| sample.person + 1).max().unwrap_or(0);
    if people < 2 || recipe.epochs == 0 || recipe.batch == 0 {
        bail!(
            "nothing to learn: {people} people, {} epochs, batch {}",
            recipe.epochs,
            recipe.batch
        );
    }
    let device = Device::cuda_if_available();
    tch::manual_seed(recipe.seed);
    let student = Student::new(start, device);
    let learner = Learner {
        arcface: ArcFace { scale: recipe.scale, margin: recipe.margin },
        recipe: *recipe,
        normalization,
        device,
    };
    // The teacher's view of each photo and of its mirror image.
    let crops: Vec<&Crop> = train.iter().map(|sample| &sample.crop).collect();
    let teacher =
        [false, true].map(|mirrored| embed(&student, &crops, normalization, mirrored, device));
    let labels: Vec<i64> = train.iter().map(|sample| sample.person as i64).collect();
    let labels = Tensor::from_slice(&labels).to_device(device);
    let head = VarStore::new(device);
    let centers = centers(&head, &teacher, &labels, people);

    let mut averaged = Student::new(start, device);
    let mut epochs = vec![judge(&student, select, normalization, device, 0, (0.0, 1.0))?];
    told(&Progress::Judged(epochs[0]));
    let mut best: Option<(usize, MobileFaceNet)> = None;
    let mut optimizers = [&student.store, &head].map(|store| {
        Sgd { momentum: recipe.momentum, wd: recipe.weight_decay, ..Sgd::default() }
            .build(store, recipe.learning_rate)
    });
    let steps_an_epoch = train.len().div_ceil(recipe.batch);
    for number in 1..=recipe.epochs {
        let order =
            Vec::<i64>::try_from(Tensor::randperm(train.len() as i64, (Kind::Int64, Device::Cpu)))?;
        let (mut loss, mut hold) = (0.0, 0.0);
        for (step, batch) in order.chunks(recipe.batch).enumerate() {
            let done = ((number - 1) * steps_an_epoch + step) as f64;
            let all = (recipe.epochs * steps_an_epoch) as f64;
            let falling = (1.0 + (std::f64::consts::PI * done / all).cos()) / 2.0;
            let [network, classes] = &mut optimizers;
            let network = network.as_mut().map_err(|error| anyhow::anyhow!("{error}"))?;
            let classes = classes.as_mut().map_err(|error| anyhow::anyhow!("{error}"))?;
            network.set_lr(recipe.learning_rate * falling);
            classes.set_lr(recipe.learning_rate * falling);
            network.zero_grad();
            classes.zero_grad();
            let (of_batch, of_teacher) =
                learner.step(&student, train, batch, &labels, &teacher, &centers);
            network.step();
            classes.step();
            averaged.approach(&student, recipe.average);
            let share = batch.len() as f64 / train.len() as f64;
            loss += of_batch * share;
            hold += of_teacher * share;
            told(&Progress::Seen(batch.len()));
        }
        if !loss.is_finite() {
            bail!("epoch {number}: the loss is no number any more; take a smaller learning rate");
        }
        let epoch = judge(&averaged, select, normalization, device, number, (loss, hold))?;
        told(&Progress::Judged(epoch));
        let leading = best.as_ref().is_none_or(|(at, _)| {
            // Where none beats the start, the first stays.
            epoch.judged > epochs[*at].judged && epoch.judged > epochs[0].judged
        });
        epochs.push(epoch);
        if leading {
            best = Some((number, averaged.weights()?));
        }
    }
    // At least one epoch ran, and the first one always leads.
    let Some((chosen, weights)) = best else { bail!("no epoch was run") };
    let better = epochs[chosen].judged > epochs[0].judged;
    Ok(Finetuned { weights, chosen, better, epochs })
}

/// What is told while it goes on.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// So many more photos were learned from.
    Seen(usize),
    /// An epoch is over.
    Judged(Epoch),
}

struct Learner<'a> {
    arcface: ArcFace,
    recipe: Recipe,
    normalization: &'a Normalization,
    device: Device,
}

impl Learner<'_> {
    /// Gradients of one batch; its mean loss and mean cosine to the teacher.
    fn step(
        &self,
        student: &Student,
        train: &[Sample],
        batch: &[i64],
        labels: &Tensor,
        teacher: &[Tensor; 2],
        centers: &Tensor,
    ) -> (f64, f64) {
        let n = batch.len() as i64;
        let crops: Vec<&Crop> = batch.iter().map(|index| &train[*index as usize].crop).collect();
        let index = Tensor::from_slice(batch).to_device(self.device);
        let uniform = |width: f64| {
            let kind = (Kind::Float, self.device);
            (Tensor::rand([n, 1, 1, 1], kind) * 2.0 - 1.0) * width
        };
        let seen = pictures(&crops, self.normalization).to_device(self.device);
        let mirrored = Tensor::rand([n], (Kind::Float, self.device)).lt(0.5);
        let seen = seen.flip([3]).where_self(&mirrored.view([n, 1, 1, 1]), &seen);
        let seen = seen * (uniform(CONTRAST) + 1.0) + uniform(BRIGHTNESS);
        let embeddings = student.forward(&seen);
        let [plain, mirror] = teacher;
        let taught = mirror
            .index_select(0, &index)
            .where_self(&mirrored.view([n, 1]), &plain.index_select(0, &index));
        let cosine = (unit_rows(&embeddings) * taught)
            .sum_dim_intlist([1].as_slice(), false, Kind::Float)
            .mean(Kind::Float);
        let loss = self.arcface.loss(&embeddings, &labels.index_select(0, &index), centers);
        (&loss + (-&cosine + 1.0) * self.recipe.hold).backward();
        (loss.double_value(&[]), cosine.double_value(&[]))
    }
}

/// One centre a person: the mean of the teacher's embeddings.
fn centers(head: &VarStore, teacher: &[Tensor; 2], labels: &Tensor, people: usize) -> Tensor {
    let [plain, mirror] = teacher;
    let size = plain.size()[1];
    let mut centers = head.root().zeros("centers", &[people as i64, size]);
    let sums = Tensor::zeros([people as i64, size], (Kind::Float, head.device())).index_add(
        0,
        labels,
        &(plain + mirror),
    );
    tch::no_grad(|| centers.copy_(&unit_rows(&sums)));
    centers
}

fn embed(
    student: &Student,
    crops: &[&Crop],
    normalization: &Normalization,
    mirrored: bool,
    device: Device,
) -> Tensor {
    let batches: Vec<Tensor> = crops
        .chunks(EMBED_BATCH)
        .map(|batch| {
            let seen = pictures(batch, normalization).to_device(device);
            let seen = if mirrored { seen.flip([3]) } else { seen };
            tch::no_grad(|| unit_rows(&student.forward(&seen)))
        })
        .collect();
    Tensor::cat(&batches, 0)
}

fn judge(
    student: &Student,
    select: &[Sample],
    normalization: &Normalization,
    device: Device,
    number: usize,
    (loss, hold): (f64, f64),
) -> Result<Epoch> {
    let crops: Vec<&Crop> = select.iter().map(|sample| &sample.crop).collect();
    let rows = embed(student, &crops, normalization, false, device).to_device(Device::Cpu);
    let rows: Vec<Vec<f32>> = Vec::try_from(rows)?;
    let embeddings: Vec<Embedding> = rows.iter().map(|row| Embedding::normalized(row)).collect();
    let faces: Vec<(usize, Option<&Embedding>)> =
        select.iter().map(|sample| sample.person).zip(embeddings.iter().map(Some)).collect();
    let scores = Scores::of_all_pairs(&faces);
    let rates = JUDGED_AT.map(|far| scores.true_accept_rate(far));
    let judged = rates.iter().sum::<f64>() / rates.len() as f64;
    Ok(Epoch { number, loss, hold, judged, equal_error_rate: scores.equal_error_rate() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::student::tests::{crop, noise};

    #[test]
    fn a_few_steps_bring_people_to_their_centres_and_stay_near_the_teacher() {
        let samples: Vec<Sample> =
            (0..8).map(|i| Sample { crop: crop(i), person: i % 4 }).collect();
        let recipe = Recipe {
            epochs: 3,
            batch: 4,
            learning_rate: 1e-4,
            momentum: 0.9,
            weight_decay: 0.0,
            scale: 64.0,
            margin: 0.5,
            hold: 10.0,
            average: 0.5,
            seed: 1,
        };
        let start = noise(16, 5);
        let mut seen = 0;
        let told = |progress: &Progress| {
            if let Progress::Seen(photos) = progress {
                seen += photos;
            }
        };
        let normalization = Normalization::ARCFACE;
        let done = finetune(&start, &normalization, &samples, &samples, &recipe, told)
            .expect("a finetuned network");
        assert_eq!(seen, 24);
        assert_eq!(done.epochs.len(), 4);
        assert!(done.epochs[3].loss < done.epochs[1].loss, "{:?}", done.epochs);
        assert!(done.epochs[3].hold > 0.5, "{:?}", done.epochs);
        assert_ne!(done.weights.tensors, start.tensors);
        let again = finetune(&start, &normalization, &samples, &samples, &recipe, |_| {})
            .expect("a finetuned network");
        assert_eq!(done.epochs, again.epochs);
    }

    #[test]
    fn nothing_to_learn_is_said() {
        let start = noise(16, 5);
        let recipe = Recipe {
            epochs: 1,
            batch: 4,
            learning_rate: 1e-4,
            momentum: 0.9,
            weight_decay: 0.0,
            scale: 64.0,
            margin: 0.5,
            hold: 1.0,
            average: 1.0,
            seed: 1,
        };
        let one = [Sample { crop: crop(1), person: 0 }];
        let error = finetune(&start, &Normalization::ARCFACE, &one, &one, &recipe, |_| {})
            .expect_err("one person");
        assert!(error.to_string().contains("1 people"), "{error}");
    }
}
