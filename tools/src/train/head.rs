//! Initial weights of a head. If the starting weights already know faces, each class
//! starts at the mean embedding of that person's photos (Qi, Brown and Lowe, "Low-Shot
//! Learning with Imprinted Weights", 2018); otherwise the head starts at random.

use crate::chance::normal;
use crate::train::data::TrainingData;
use crate::train::recipe::Recipe;
use crate::train::run_folder::{Head, HeadKind};
use crate::train::sampler::{Purpose, centers, chance};
use crate::train::torch_net::Student;
use crate::train::validation::embed;
use facelatch::vision::align::Crop;
use tch::{Kind, Tensor};

/// Logit that a new linear head gives an embedding of average length at its class centre;
/// a perpendicular embedding gets 0. If the logits were plain cosines, the loss among ten
/// people could not fall below 1.4.
const SOFTMAX_SCALE: f64 = 16.0;

/// Embeddings `N x E` of each photo and of its mirror image, not normalized to length
/// one.
pub(crate) fn views(student: &Student, data: &TrainingData, recipe: &Recipe) -> [Tensor; 2] {
    let crops: Vec<&Crop> = data.train.crops.iter().collect();
    let normalization = &recipe.normalization;
    [false, true].map(|mirrored| embed(student, &crops, normalization, mirrored, recipe.device))
}

/// A head with the mean embedding of each person as the class weights. The two tensors
/// are those of [`views`].
pub(crate) fn at_centers(views: &[Tensor; 2], data: &TrainingData, recipe: &Recipe) -> Head {
    let people = data.people.len() as i64;
    let centers = centers(views, &data.train.labels, data.people.len());
    if recipe.head != HeadKind::Softmax {
        return head(centers, None, recipe);
    }
    // A linear head sees embeddings at the length that the network gives them.
    let length = views[0].square().sum_dim_intlist([1].as_slice(), false, Kind::Float).sqrt();
    let length = length.mean(Kind::Float).double_value(&[]).max(1e-6);
    let bias = Tensor::zeros([people], (Kind::Float, recipe.device));
    head(centers * (SOFTMAX_SCALE / length), Some(bias), recipe)
}

/// A random head whose rows have a length of about one.
pub(crate) fn by_chance(embedding_size: usize, data: &TrainingData, recipe: &Recipe) -> Head {
    let people = data.people.len();
    let mut chance = chance(recipe.seed, Purpose::Head, 0, 0);
    let weight = Tensor::from_slice(&normal(&mut chance, people * embedding_size))
        .view([people as i64, embedding_size as i64])
        .to_device(recipe.device)
        / (embedding_size as f64).sqrt();
    let softmax = recipe.head == HeadKind::Softmax;
    let bias = softmax.then(|| Tensor::zeros([people as i64], (Kind::Float, recipe.device)));
    head(weight, bias, recipe)
}

fn head(weight: Tensor, bias: Option<Tensor>, recipe: &Recipe) -> Head {
    Head { kind: recipe.head, weight, bias, scale: recipe.margin.scale }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::data::tests::four_people;
    use crate::train::margin::{Margin, right};
    use crate::train::torch_net::tests::noise;
    use tch::Device;

    #[test]
    fn at_the_centres_people_are_told_before_anything_is_learned() {
        let data = four_people(3);
        let student = Student::new(&noise(16, 1), Device::Cpu);
        let arcface =
            Recipe { head: HeadKind::Arcface, margin: Margin::ARCFACE, ..Recipe::finetune() };
        for recipe in [Recipe::finetune(), arcface] {
            let views = views(&student, &data, &recipe);
            let head = at_centers(&views, &data, &recipe);
            let labels = Tensor::from_slice(&data.train.labels);
            // By chance, 3 of 12 would be right. Even random weights do better.
            let right = right(&head.logits(&views[0]), &labels);
            assert!(right > 6, "{right} of 12 by {:?}", recipe.head);
        }
    }

    #[test]
    fn chance_follows_from_the_seed() {
        let data = four_people(1);
        let weight = |seed| by_chance(16, &data, &Recipe { seed, ..Recipe::train() }).weight;
        assert!(weight(1).equal(&weight(1)) && !weight(1).equal(&weight(2)));
        assert_eq!(weight(1).size(), [4, 16]);
    }
}
