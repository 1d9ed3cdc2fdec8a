//! Random choices of a training: which photos an epoch shows, in which order, and which
//! classes a step uses.

use crate::chance::Chance;
use crate::train::data::TrainingData;
use crate::train::recipe::Recipe;
use crate::train::tensors::unit_rows;
use anyhow::Result;
use tch::{Kind, Tensor};

/// Purpose of random numbers. Each purpose has its own sequence, so that drawing more for
/// one does not change the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Weights of a network that is trained from scratch.
    Network,
    /// Weights of a head.
    Head,
    /// Order of the photos in an epoch.
    Order,
    /// Classes that a step uses.
    Negatives,
}

/// Random generator for a purpose at a position of a training. It depends on nothing that
/// came before that position, so a training can resume anywhere.
pub fn chance(seed: i64, purpose: Purpose, epoch: usize, step: usize) -> Chance {
    Chance::at(seed, &[purpose as u64, epoch as u64, step as u64])
}

/// How the photos of an epoch are ordered.
#[derive(Debug)]
pub enum Order {
    /// Every photo once.
    Shuffled,
    /// Each person equally often.
    ByPerson,
    /// Each group equally often.
    ByGroup {
        /// Group of each photo, from 0.
        groups: Vec<i64>,
        /// Whether the people of a group are shown equally often.
        by_person: bool,
    },
    /// People who resemble one another in the same batch.
    LookAlikes {
        /// The other people of each label, the most similar first.
        similar: Vec<Vec<i64>>,
    },
}

impl Order {
    /// The order that the recipe asks for. `known` has the embeddings of the training photos
    /// and of their mirror images by the starting weights; without it no look-alikes are
    /// known.
    ///
    /// # Errors
    /// If photos have no group, but the recipe needs one.
    pub(crate) fn new(
        data: &TrainingData,
        recipe: &Recipe,
        known: Option<&[Tensor; 2]>,
    ) -> Result<Self> {
        if recipe.balanced_groups {
            let groups = data.train.group_numbers()?;
            return Ok(Self::ByGroup { groups, by_person: recipe.balanced });
        }
        Ok(match known {
            Some(known) if recipe.look_alikes => {
                Self::LookAlikes { similar: similar(known, data, recipe.batch)? }
            }
            _ if recipe.balanced => Self::ByPerson,
            _ => Self::Shuffled,
        })
    }

    /// The photos of an epoch, in order.
    pub fn draw(&self, labels: &[i64], batch: usize, chance: &mut Chance) -> Vec<usize> {
        match self {
            Self::Shuffled => shuffled(labels.len(), chance),
            Self::ByPerson => balanced(labels, chance),
            Self::ByGroup { groups, by_person } => {
                balanced_groups(groups, labels, *by_person, chance)
            }
            Self::LookAlikes { similar } => look_alikes(labels, similar, batch, chance),
        }
    }
}

/// For each label the other people, the most similar first: those whose mean embeddings are
/// nearest. Three times as many as a batch has photos, because some will have been shown.
fn similar(known: &[Tensor; 2], data: &TrainingData, batch: usize) -> Result<Vec<Vec<i64>>> {
    let centers = centers(known, &data.train.labels, data.people.len());
    let people = centers.size()[0];
    let count = (3 * batch as i64).min(people - 1);
    (0..people)
        .map(|person| {
            let cosines = centers.matmul(&centers.get(person));
            let _ = cosines.get(person).fill_(f64::NEG_INFINITY);
            let (_, nearest) = cosines.topk(count, 0, true, true);
            Ok(Vec::try_from(nearest)?)
        })
        .collect()
}

/// Mean embedding of each label's photos and of their mirror images, rows of length one.
pub(crate) fn centers([plain, mirrored]: &[Tensor; 2], labels: &[i64], people: usize) -> Tensor {
    let device = plain.device();
    let labels = Tensor::from_slice(labels).to_device(device);
    let zeros = Tensor::zeros([people as i64, plain.size()[1]], (Kind::Float, device));
    unit_rows(&zeros.index_add(0, &labels, &(unit_rows(plain) + unit_rows(mirrored))))
}

/// Every number below `count` once, in random order.
pub fn shuffled(count: usize, chance: &mut Chance) -> Vec<usize> {
    chance.order(count).into_iter().map(|at| at as usize).collect()
}

/// Indices of as many photos as there are labels, with each class shown equally often.
/// Classes take turns in a new random order each round. Each class shows its photos in
/// turn, and shuffles them again once all were shown. The counts of two classes differ by
/// at most one; classes without photos are skipped.
pub fn balanced(labels: &[i64], chance: &mut Chance) -> Vec<usize> {
    let classes = labels.iter().map(|label| *label as usize + 1).max().unwrap_or(0);
    let mut photos = vec![Vec::new(); classes];
    for (photo, label) in labels.iter().enumerate() {
        photos[*label as usize].push(photo);
    }
    photos.retain(|photos| !photos.is_empty());
    let mut left: Vec<Vec<usize>> = vec![Vec::new(); photos.len()];
    let mut order = Vec::with_capacity(labels.len());
    while order.len() < labels.len() {
        for class in shuffled(photos.len(), chance) {
            if left[class].is_empty() {
                let shuffled = shuffled(photos[class].len(), chance);
                left[class] = shuffled.into_iter().map(|at| photos[class][at]).collect();
            }
            // Never empty: it was filled just now if it was.
            order.extend(left[class].pop());
        }
    }
    order.truncate(labels.len());
    order
}

/// Indices of as many photos as there are labels, with each group shown equally often.
/// Groups take turns in a new random order each round. Each group shows its photos in a
/// random order, or balanced by person, and begins again once all were shown.
pub fn balanced_groups(
    groups: &[i64],
    labels: &[i64],
    by_person: bool,
    chance: &mut Chance,
) -> Vec<usize> {
    let count = groups.iter().map(|group| *group as usize + 1).max().unwrap_or(0);
    let mut photos = vec![Vec::new(); count];
    for (photo, group) in groups.iter().enumerate().take(labels.len()) {
        photos[*group as usize].push(photo);
    }
    photos.retain(|photos| !photos.is_empty());
    let mut left: Vec<Vec<usize>> = vec![Vec::new(); photos.len()];
    let mut order = Vec::with_capacity(labels.len());
    while order.len() < labels.len() && !photos.is_empty() {
        for group in shuffled(photos.len(), chance) {
            let photos = &photos[group];
            if left[group].is_empty() {
                let some = if by_person {
                    let labels: Vec<i64> = photos.iter().map(|photo| labels[*photo]).collect();
                    balanced(&labels, chance)
                } else {
                    shuffled(photos.len(), chance)
                };
                left[group] = some.into_iter().map(|at| photos[at]).collect();
            }
            order.extend(left[group].pop());
        }
    }
    order.truncate(labels.len());
    order
}

/// Every photo once, in batches of `batch` people who resemble one another. A batch begins
/// with a random photo; then the people who are most similar to its person follow, one photo
/// each, as long as they have photos left. `similar` has the other people of each label, the
/// most similar first.
pub fn look_alikes(
    labels: &[i64],
    similar: &[Vec<i64>],
    batch: usize,
    chance: &mut Chance,
) -> Vec<usize> {
    let mut left = vec![Vec::new(); similar.len()];
    let first = shuffled(labels.len(), chance);
    for photo in &first {
        if let Some(photos) = left.get_mut(labels[*photo] as usize) {
            photos.push(*photo);
        }
    }
    let mut shown = vec![false; labels.len()];
    let mut order = Vec::with_capacity(labels.len());
    for photo in first {
        if shown[photo] {
            continue;
        }
        shown[photo] = true;
        order.push(photo);
        let people = similar.get(labels[photo] as usize).into_iter().flatten();
        for person in people {
            if order.len().is_multiple_of(batch.max(1)) {
                break;
            }
            let Some(photos) = left.get_mut(*person as usize) else { continue };
            while let Some(other) = photos.pop() {
                if !shown[other] {
                    shown[other] = true;
                    order.push(other);
                    break;
                }
            }
        }
    }
    order
}

/// Classes that a step uses: all classes of its own photos, and random others up to a
/// share of all classes (An et al., "Killing Two Birds with One Stone: Efficient and
/// Robust Training of Face Recognition CNNs by Partial FC", 2022). Returns the classes in
/// ascending order, and the labels as positions in that list.
pub fn negatives(
    labels: &[i64],
    classes: usize,
    share: f64,
    chance: &mut Chance,
) -> (Vec<i64>, Vec<i64>) {
    let mut chosen: Vec<i64> = labels.to_vec();
    chosen.sort_unstable();
    chosen.dedup();
    let wanted = ((share * classes as f64).ceil() as usize).min(classes);
    if chosen.len() < wanted {
        let own = chosen.clone();
        let others = chance.order(classes).into_iter();
        let others = others.filter(|class| own.binary_search(class).is_err());
        chosen.extend(others.take(wanted - own.len()));
        chosen.sort_unstable();
    }
    // Every label is among the chosen classes.
    let place = |label: &i64| chosen.binary_search(label).unwrap_or(0) as i64;
    let places = labels.iter().map(place).collect();
    (chosen, places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn any() -> Chance {
        chance(1, Purpose::Order, 1, 0)
    }

    #[test]
    fn each_purpose_and_place_has_a_chance_of_its_own() {
        let mut seen = BTreeSet::new();
        for seed in [-1, 0, 1, 2] {
            for purpose in [Purpose::Network, Purpose::Head, Purpose::Order, Purpose::Negatives] {
                for (epoch, step) in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)] {
                    assert!(seen.insert(chance(seed, purpose, epoch, step).below(1 << 60)));
                }
            }
        }
        assert_eq!(any().below(1 << 60), any().below(1 << 60));
    }

    #[test]
    fn balanced_classes_are_shown_equally_often_and_each_photo_is_seen() {
        // Classes with ten photos, five, none and one.
        let labels: Vec<i64> =
            [vec![0; 10], vec![1; 5], vec![3; 1]].into_iter().flatten().collect();
        let order = balanced(&labels, &mut any());
        assert_eq!(order.len(), 16);
        let times = |label| order.iter().filter(|photo| labels[**photo] == label).count();
        let all: Vec<usize> = [0, 1, 3].map(times).to_vec();
        assert!(all.iter().all(|times| (5..=6).contains(times)), "{all:?}");
        let small: BTreeSet<usize> = order.iter().copied().filter(|p| labels[*p] == 1).collect();
        assert_eq!(small.len(), 5);
        assert_eq!(balanced(&labels, &mut any()), order);
        assert!(balanced(&[], &mut any()).is_empty());
    }

    #[test]
    fn groups_are_shown_equally_often_however_many_people_they_have() {
        let groups = [0, 1, 1, 1, 1, 1, 1, 1, 1, 1];
        let labels = [0, 1, 1, 1, 1, 1, 1, 2, 2, 3];
        for by_person in [false, true] {
            let order = balanced_groups(&groups, &labels, by_person, &mut any());
            assert_eq!(order.len(), 10);
            // Every pair of places holds one photo of each group.
            for pair in order.chunks(2) {
                assert_eq!(pair.iter().filter(|photo| **photo == 0).count(), 1, "{order:?}");
            }
            assert_eq!(balanced_groups(&groups, &labels, by_person, &mut any()), order);
        }
        let order = balanced_groups(&groups, &labels, true, &mut any());
        let lone = order.iter().filter(|photo| labels[**photo] == 3).count();
        assert!((1..=2).contains(&lone), "as often as the people with more photos: {order:?}");
        assert!(balanced_groups(&[], &[], false, &mut any()).is_empty());
    }

    #[test]
    fn look_alikes_share_a_batch_and_every_photo_is_shown_once() {
        // Even people resemble one another, and so do odd ones.
        let labels: Vec<i64> = (0..48).map(|photo| photo % 12).collect();
        let similar: Vec<Vec<i64>> = (0..12i64)
            .map(|person| (1..6).map(|step| (person + 2 * step) % 12).collect())
            .collect();
        let order = look_alikes(&labels, &similar, 4, &mut any());
        let mut all = order.clone();
        all.sort_unstable();
        assert!(all.iter().copied().eq(0..48), "{order:?}");
        let alike = |batch: &[usize]| batch.windows(2).all(|two| (two[0] + two[1]) % 2 == 0);
        assert!(order.chunks(4).filter(|batch| alike(batch)).count() >= 6, "{order:?}");
        assert_eq!(look_alikes(&labels, &similar, 4, &mut any()), order);
        assert_eq!(look_alikes(&labels, &[], 0, &mut any()).len(), 48);
    }

    #[test]
    fn a_step_looks_at_its_own_classes_and_some_others() {
        let (classes, places) = negatives(&[7, 90, 7], 100, 0.1, &mut any());
        assert_eq!(classes.len(), 10);
        assert!(classes.is_sorted_by(|a, b| a < b));
        assert_eq!(places.iter().map(|at| classes[*at as usize]).collect::<Vec<_>>(), [7, 90, 7]);
        let (classes, places) = negatives(&[2, 1], 3, 0.0, &mut any());
        assert_eq!((classes, places), (vec![1, 2], vec![1, 0]));
        let (classes, _) = negatives(&[2, 1], 3, 1.0, &mut any());
        assert_eq!(classes, [0, 1, 2]);
    }
}
